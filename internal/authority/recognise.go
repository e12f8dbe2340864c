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
	f := finder{seen: map[string]bool{}}
	kind, _, _ := strings.Cut(contentType, ";")
	form := strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded")
	if ijson.Check(body) == nil {
		f.json(body)
		return f.found
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
	return f.found
}

type finder struct {
	found []leak
	seen  map[string]bool
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

// json looks at every string and every object of JSON that passed ijson.Check.
func (f *finder) json(b []byte) {
	dec := jsontext.NewDecoder(bytes.NewReader(b))
	for len(f.found) < maxLeaks {
		switch dec.PeekKind() {
		case '{':
			start := dec.InputOffset()
			rest := b[start:]
			if i := bytes.IndexByte(rest, '{'); i >= 0 {
				f.object(rest[i:])
			}
		case jsontext.KindInvalid:
			return // the end
		}
		tok, err := dec.ReadToken()
		if err != nil {
			return
		}
		if tok.Kind() == '"' {
			f.text(tok.String())
		}
	}
}

// object looks at an object that b begins with: whether it is a private JWK.
func (f *finder) object(b []byte) {
	value, err := jsontext.NewDecoder(bytes.NewReader(b)).ReadValue()
	if err != nil || ijson.Check(value) != nil {
		return
	}
	f.key(privateJWK(value))
}

func (f *finder) key(k *leakedKey) {
	if k != nil {
		f.add(k.thumbprint(), leak{private: k})
	}
}

// What secrets look like in a text.
var (
	codeText = regexp.MustCompile(`cfe_[a-z2-7]{33}`)
	jwtText  = regexp.MustCompile(`[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`)
	pemText  = regexp.MustCompile(`(?s)-----BEGIN (?:EC |RSA )?PRIVATE KEY-----.*?-----END (?:EC |RSA )?PRIVATE KEY-----`)
	jwkText  = regexp.MustCompile(`\{[^{}]*"kty"[^{}]*\}`)
)

func (f *finder) text(s string) {
	for _, m := range codeText.FindAllString(s, maxLeaks) {
		if hash, err := counterfoil.ParseEnrolmentCode(m); err == nil {
			f.add(m, leak{code: &hash})
		}
	}
	for _, m := range jwtText.FindAllString(s, maxLeaks) {
		// The header of a JWT is an object; most of what else looks so is a domain
		// name or a version.
		if strings.HasPrefix(m, "eyJ") && len(m) <= credential.MaxToken {
			f.add(m, leak{token: m})
		}
	}
	for _, m := range pemText.FindAllString(s, maxLeaks) {
		// In files of settings the ends of lines are written out.
		f.key(privatePEM(strings.ReplaceAll(m, `\n`, "\n")))
	}
	for _, m := range jwkText.FindAllString(s, maxLeaks) {
		f.object([]byte(m))
	}
}

// privatePEM reads a private key in PEM: PKCS #8, SEC 1 or PKCS #1 (RFC 5958, RFC
// 5915, RFC 8017). The public half is computed from it, or checked against it.
func privatePEM(text string) *leakedKey {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if signer, ok := key.(crypto.Signer); ok && err == nil {
		return leakedOf(signer)
	}
	return nil
}

// privateJWK reads a private JWK (RFC 7518, Section 6; RFC 8037, Section 2).
func privateJWK(b []byte) *leakedKey {
	var j struct {
		Kty string `json:"kty"`
		Crv string `json:"crv"`
		N   string `json:"n"`
		E   string `json:"e"`
		D   string `json:"d"`
	}
	if err := ijson.UnmarshalLax(b, &j); err != nil || j.D == "" {
		return nil
	}
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
