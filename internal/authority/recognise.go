package authority

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// maxLeaks is how many secrets of one report are looked at: each costs a signature
// check at least.
const maxLeaks = 8

// A leak is one secret that a report holds, in one of three forms. Nothing shows yet
// that it is anybody's.
type leak struct {
	code    *[sha256.Size]byte // hash of an enrolment code
	token   string             // a compact JWT
	private *leakedKey         // a private key
}

// A leakedKey is a private key that was reported, by its public half.
type leakedKey struct {
	public credential.PublicKey

	// exponent is the private exponent that a report gives to an RSA public key. The
	// public halves of other keys are computed from the private ones, so that they
	// need no proof. A public key is public: whoever adds a number to one has no
	// private key.
	exponent *big.Int
}

func (k *leakedKey) thumbprint() string { return k.public.Thumbprint() }

// proves reports whether it is the private key of its public half.
func (k *leakedKey) proves() bool {
	if k.exponent == nil {
		return true
	}
	pub, ok := k.public.Key().(*rsa.PublicKey)
	if !ok || k.exponent.Sign() <= 0 || k.exponent.BitLen() > pub.N.BitLen() {
		return false
	}
	m, err := rand.Int(rand.Reader, pub.N)
	if err != nil || m.BitLen() < 2 {
		return false
	}
	c := new(big.Int).Exp(m, k.exponent, pub.N)
	return c.Exp(c, big.NewInt(int64(pub.E)), pub.N).Cmp(m) == 0
}

// recognise finds the secrets of ours in a report, whatever form it has: a form, JSON
// with strings and keys anywhere in it, or text. It finds each once, and few.
func recognise(body []byte, contentType string) []leak {
	f := newFinder()
	f.report(body, contentType)
	return f.found
}

// Bounds on the work that one report makes. To parse a private key is arithmetic whose
// cost grows with the cube of its size.
const (
	maxParsed  = 4 * maxLeaks // keys in one report, whether they are any
	maxPrivate = 5 << 10      // bytes of a key; one of RSA with maxRSA bits has fewer
	maxRSA     = 8192         // bits, as of public keys that are taken
)

// A finder looks for secrets in one report.
type finder struct {
	found  []leak
	seen   map[string]bool            // what was found
	tried  map[[sha256.Size]byte]bool // hashes of the keys that were looked at, so that none is twice
	parsed int                        // how many were parsed
}

func newFinder() *finder {
	return &finder{seen: map[string]bool{}, tried: map[[sha256.Size]byte]bool{}}
}

func (f *finder) report(body []byte, contentType string) {
	kind, _, _ := strings.Cut(contentType, ";")
	form := strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded")
	if ijson.Check(body) == nil {
		f.json(body)
		return
	}
	// As it is, form or not: a file that is sent as a form without being encoded as one.
	f.text(string(body))
	if values, err := url.ParseQuery(string(body)); form && err == nil {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			for _, v := range values[name] {
				f.any(v)
			}
		}
	}
}

func (f *finder) add(key string, l leak) {
	if !f.seen[key] && len(f.found) < maxLeaks {
		f.seen[key] = true
		f.found = append(f.found, l)
	}
}

// any looks at a text that may be JSON.
func (f *finder) any(s string) {
	if b := []byte(s); ijson.Check(b) == nil {
		f.json(b)
		return
	}
	f.text(s)
}

// json looks at every string and every object of JSON that passed ijson.Check, each
// once, however deep it is.
func (f *finder) json(b []byte) {
	dec := jsontext.NewDecoder(bytes.NewReader(b))
	var open []privateJWK // of each array or object around
	var name string
	for len(f.found) < maxLeaks {
		tok, err := dec.ReadToken()
		if err != nil {
			return // the end
		}
		switch tok.Kind() {
		case '{', '[':
			open = append(open, privateJWK{})
		case '}', ']':
			f.jwk(&open[len(open)-1])
			open = open[:len(open)-1]
		case '"':
			s := tok.String()
			f.text(s)
			switch in, n := dec.StackIndex(dec.StackDepth()); {
			case in == '{' && n%2 == 1:
				name = s
			case in == '{':
				open[len(open)-1].set(name, s)
			}
		}
	}
}

// key looks at a key that was not looked at before, of which text is all that parse
// reads.
func (f *finder) key(text string, parse func() *leakedKey) {
	hash := sha256.Sum256([]byte(text))
	if f.tried[hash] || f.parsed >= maxParsed {
		return
	}
	f.tried[hash] = true
	f.parsed++
	if k := parse(); k != nil {
		f.add(k.thumbprint(), leak{private: k})
	}
}

func (f *finder) jwk(j *privateJWK) {
	if j.D == "" || j.Kty == "" {
		return
	}
	if text := strings.Join([]string{j.Kty, j.Crv, j.N, j.E, j.D}, "\x00"); len(text) <= maxPrivate {
		f.key(text, j.key)
	}
}

func (f *finder) pem(text string) {
	// Twice as much, for base64 and the ends of lines.
	if len(text) > 2*maxPrivate {
		return
	}
	block, _ := pem.Decode([]byte(text))
	if block != nil && len(block.Bytes) <= maxPrivate {
		f.key(block.Type+"\x00"+string(block.Bytes), func() *leakedKey { return privatePEM(block) })
	}
}

// What secrets look like in a text.
var (
	codeText = regexp.MustCompile(`cfe_[a-z2-7]{33}`)
	// The header of a JWT is an object; most of what else looks so is a domain name or
	// a version.
	jwtText = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{13,}\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`)
	pemText = regexp.MustCompile(`(?s)-----BEGIN (?:EC |RSA )?PRIVATE KEY-----.*?-----END (?:EC |RSA )?PRIVATE KEY-----`)
	jwkText = regexp.MustCompile(`\{[^{}]*"kty"[^{}]*\}`)
)

// text looks at a text as it is, and as it was before it became a part of an address.
func (f *finder) text(s string) {
	f.look(s)
	if plain := unescaped(s); plain != s {
		f.look(plain)
	}
}

func (f *finder) look(s string) {
	for _, m := range codeText.FindAllString(s, maxLeaks) {
		if hash, err := counterfoil.ParseEnrolmentCode(m); err == nil {
			f.add(m, leak{code: &hash})
		}
	}
	for _, m := range rejoined(s) { // before their pieces
		f.add(m, leak{token: m})
	}
	for _, m := range jwtText.FindAllString(s, maxLeaks) {
		if len(m) <= credential.MaxToken {
			f.add(m, leak{token: m})
		}
	}
	for _, m := range pemText.FindAllString(s, maxParsed) {
		f.pem(straight(m))
	}
	for _, m := range jwkText.FindAllString(s, maxParsed) {
		var j privateJWK
		if b := []byte(m); ijson.Check(b) == nil && ijson.UnmarshalLax(b, &j) == nil {
			f.jwk(&j)
		}
	}
}

// privatePEM reads a private key in PEM: PKCS #8, SEC 1 or PKCS #1 (RFC 5958, RFC
// 5915, RFC 8017). The public half is computed from it, or checked against it.
func privatePEM(block *pem.Block) *leakedKey {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		var outer struct {
			Version   int
			Algorithm pkix.AlgorithmIdentifier
			Key       []byte
		}
		if _, err := asn1.Unmarshal(block.Bytes, &outer); err != nil || outer.Algorithm.Algorithm.Equal(rsaEncryption) && !fewBits(outer.Key) {
			return nil
		}
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		if !fewBits(block.Bytes) {
			return nil
		}
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if signer, ok := key.(crypto.Signer); ok && err == nil {
		return leakedOf(signer)
	}
	return nil
}

// rsaEncryption is what PKCS #8 calls an RSA key (RFC 8017, Appendix A.1).
var rsaEncryption = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}

// fewBits reports whether a PKCS #1 private key is of a size that is taken, by its
// modulus alone. Nothing is computed.
func fewBits(der []byte) bool {
	var k struct {
		Version int
		N       *big.Int
	}
	_, err := asn1.Unmarshal(der, &k)
	return err == nil && k.N.Sign() > 0 && k.N.BitLen() <= maxRSA
}

// A privateJWK is what a private JWK has that is looked at (RFC 7518, Section 6; RFC
// 8037, Section 2).
type privateJWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	N   string `json:"n"`
	E   string `json:"e"`
	D   string `json:"d"`
}

func (j *privateJWK) set(name, value string) {
	switch name {
	case "kty":
		j.Kty = value
	case "crv":
		j.Crv = value
	case "n":
		j.N = value
	case "e":
		j.E = value
	case "d":
		j.D = value
	}
}

// key returns the private key that it is, or nil.
func (j *privateJWK) key() *leakedKey {
	d, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(j.D, "="))
	if err != nil {
		return nil
	}
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}
	switch {
	case j.Kty == "RSA":
		public, err := ijson.Marshal(map[string]string{"kty": j.Kty, "n": j.N, "e": j.E})
		if err != nil {
			return nil
		}
		if k, err := credential.ParseJWK(public); err == nil {
			return &leakedKey{public: k, exponent: new(big.Int).SetBytes(d)}
		}
	case j.Kty == "EC" && curves[j.Crv] != nil:
		if key, err := ecdsa.ParseRawPrivateKey(curves[j.Crv], d); err == nil {
			return leakedOf(key)
		}
	case j.Kty == "OKP" && j.Crv == "Ed25519" && len(d) == ed25519.SeedSize:
		return leakedOf(ed25519.NewKeyFromSeed(d))
	}
	return nil
}

// leakedOf is a private key whose public half belongs to it.
func leakedOf(key crypto.Signer) *leakedKey {
	public, err := credential.NewPublicKey(key.Public())
	if err != nil {
		return nil
	}
	return &leakedKey{public: public}
}
