package credential

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil/ijson"
)

// Limits on what is read, in bytes, before anything of it is decoded.
const (
	MaxAssertion = 16 << 10
	MaxProof     = 8 << 10
	MaxToken     = 8 << 10

	maxID    = 256 // jti, nonce
	maxKeyID = 256 // kid
)

// Ahead is how far ahead of our clock a date may be, and how long after its
// end a date is still remembered, because clocks differ.
const Ahead = 10 * time.Second

// jws is one compact JWS (RFC 7515, Section 7.1), decoded, not verified.
type jws struct {
	header  header
	input   []byte // what is signed: the first two parts and the dot
	payload []byte
	sig     []byte

	first int  // where the first part of input ends
	known bool // the header was not read but remembered
}

// header holds the JOSE header parameters that mean something to us, to use or
// to refuse. Others must be ignored (RFC 7515, Section 4).
type header struct {
	Alg string         `json:"alg"`
	Typ string         `json:"typ"`
	Kid string         `json:"kid"`
	JWK jsontext.Value `json:"jwk"`

	// Extensions that change what is signed or must be understood (RFC 7515,
	// Section 4.1.11; RFC 7797), compression (RFC 7516), and keys of the
	// sender's choice. Presence is refused.
	Crit jsontext.Value `json:"crit"`
	B64  jsontext.Value `json:"b64"`
	Zip  jsontext.Value `json:"zip"`
	JKU  jsontext.Value `json:"jku"`
	X5U  jsontext.Value `json:"x5u"`
	X5C  jsontext.Value `json:"x5c"`
}

var (
	errParts  = errors.New("it is not three parts with a dot between")
	errBase64 = errors.New("a part is not canonical, unpadded base64url")
)

// strictBase64 refuses padding and non-zero trailing bits; decode adds what it
// lets pass.
var strictBase64 = base64.RawURLEncoding.Strict()

// decode appends the bytes that part encodes. One value has one spelling:
// encoding/base64 skips line breaks, which shows in the length.
func decode(dst, part []byte) ([]byte, error) {
	n := len(dst)
	want := strictBase64.DecodedLen(len(part))
	dst, err := strictBase64.AppendDecode(dst, part)
	if err != nil || len(dst)-n != want {
		return nil, errBase64
	}
	return dst, nil
}

// A reading says which headers are taken.
type reading struct {
	algs []string // the algorithms
	key  bool     // the sender's key may be in it, as in a proof
}

var (
	readKeyless = reading{algs: algorithms}
	readProof   = reading{algs: algorithms, key: true}
	readEvent   = reading{algs: eventAlgorithms}
)

// parseJWS decodes a compact JWS whose size the caller has checked. The key is that
// of a header that is known.
func parseJWS(compact string, as reading, known *Headers) (t jws, key PublicKey, err error) {
	// Dots are counted, not split at: a megabyte of them must not become a
	// million strings. Five parts would be JWE, which nothing here takes.
	if strings.Count(compact, ".") != 2 {
		return jws{}, key, errParts
	}
	// One buffer holds the text and what it decodes to.
	buf := make([]byte, len(compact), len(compact)+3*len(compact)/4+3)
	copy(buf, compact)
	first := strings.IndexByte(compact, '.')
	last := strings.LastIndexByte(compact, '.')
	t = jws{input: buf[:last:last], first: first}

	b := buf
	if header, ok := known.find(compact[:first], as.key); ok {
		t.header, t.known, key = header.header, true, header.key
	} else {
		if b, err = decode(b, buf[:first]); err != nil {
			return jws{}, key, err
		}
	}
	head := b[len(compact):]
	from := len(b)
	if b, err = decode(b, buf[first+1:last]); err != nil {
		return jws{}, key, err
	}
	t.payload = b[from:]
	from = len(b)
	if b, err = decode(b, buf[last+1:len(compact)]); err != nil {
		return jws{}, key, err
	}
	t.sig = b[from:]
	if t.known {
		return t, key, nil
	}
	if err := ijson.UnmarshalLax(head, &t.header); err != nil {
		return jws{}, key, fmt.Errorf("its header: %w", err)
	}
	return t, key, t.header.check(as)
}

func (h *header) check(as reading) error {
	if !slices.Contains(as.algs, h.Alg) {
		return fmt.Errorf("its alg %.32q is not one of %s", h.Alg, strings.Join(as.algs, ", "))
	}
	if len(h.Kid) > maxKeyID {
		return fmt.Errorf("its kid is longer than %d bytes", maxKeyID)
	}
	for _, p := range [...]struct {
		name  string
		value jsontext.Value
	}{
		{"crit", h.Crit}, {"b64", h.B64}, {"zip", h.Zip}, {"jku", h.JKU}, {"x5u", h.X5U}, {"x5c", h.X5C},
	} {
		if p.value != nil {
			return fmt.Errorf("its header has %s, which is not taken", p.name)
		}
	}
	if h.JWK != nil && !as.key {
		return errors.New("its header has jwk: the key is the registered one, never the sender's")
	}
	return nil
}

// claims decodes the payload, which must be a JSON object (RFC 7519, Section
// 4): duplicate names are refused, unknown ones ignored.
func (t *jws) claims(v any) error {
	if len(t.payload) == 0 || jsontext.Value(t.payload).Kind() != '{' {
		return errors.New("its claims are not a JSON object")
	}
	if err := ijson.UnmarshalLax(t.payload, v); err != nil {
		return fmt.Errorf("its claims: %w", err)
	}
	return nil
}

// signJWS signs a header and claims of ours.
func signJWS(s *Signer, headerPart string, claims any) (string, error) {
	if headerPart == "" {
		return "", fmt.Errorf("signing: a key of algorithm %s signs security events alone", s.pub.alg)
	}
	payload, err := ijson.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	b := make([]byte, 0, len(headerPart)+2+base64.RawURLEncoding.EncodedLen(len(payload))+maxSignature*4/3+2)
	b = append(b, headerPart...)
	b = append(b, '.')
	b = base64.RawURLEncoding.AppendEncode(b, payload)
	sig, err := s.Sign(b)
	if err != nil {
		return "", err
	}
	b = append(b, '.')
	b = base64.RawURLEncoding.AppendEncode(b, sig)
	return string(b), nil
}

// headerPart encodes a header of ours.
func headerPart(h any) (string, error) {
	b, err := ijson.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encoding a header: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// date is a NumericDate (RFC 7519, Section 2): seconds since 1970, possibly
// with a fraction. A string or null is refused; absent is zero.
type date struct {
	t   time.Time
	set bool
}

// lastSecond is the end of the year 9999.
const lastSecond = 253402300799

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (d *date) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	v, err := dec.ReadValue()
	if err != nil {
		return err
	}
	if v.Kind() != '0' {
		return errors.New("a number of seconds is needed")
	}
	d.set = true
	if s, ok := seconds(v); ok {
		d.t = time.Unix(s, 0)
		return nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f < 0 || f > lastSecond {
		return errors.New("a number of seconds since 1970 is needed")
	}
	whole, frac := math.Modf(f)
	d.t = time.Unix(int64(whole), int64(frac*1e9))
	return nil
}

// seconds reads a plain integer of at most 11 digits.
func seconds(v []byte) (s int64, ok bool) {
	if len(v) > 11 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		s = s*10 + int64(c-'0')
	}
	return s, s <= lastSecond
}

// audience is an aud claim (RFC 7519, Section 4.1.3): a string or an array.
type audience []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (a *audience) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '"' {
		var s string
		if err := json.UnmarshalDecode(dec, &s); err != nil {
			return err
		}
		*a = audience{s}
		return nil
	}
	if dec.PeekKind() != '[' {
		return errors.New("a string or an array of strings is needed")
	}
	var all []jsontext.Value
	if err := json.UnmarshalDecode(dec, &all); err != nil {
		return err
	}
	for _, v := range all {
		if v.Kind() != '"' {
			return errors.New("a string or an array of strings is needed")
		}
		var s string
		if err := json.Unmarshal(v, &s); err != nil {
			return err
		}
		*a = append(*a, s)
	}
	return nil
}

// only reports whether the audience is want and nothing else. Strings are
// compared as they are (RFC 3986, Section 6.2.1): a variant is another.
func (a audience) only(want string) bool {
	return len(a) == 1 && a[0] == want && want != ""
}
