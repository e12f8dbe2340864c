package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"testing"

	"github.com/go-json-experiment/json"
)

// An OutsideIssuer is an issuer that is not ours, with one P-256 key. It signs whatever
// it is told to.
type OutsideIssuer struct {
	KID string

	t   testing.TB
	key *ecdsa.PrivateKey
}

// NewOutsideIssuer makes an issuer whose key has that id.
func NewOutsideIssuer(t testing.TB, kid string) *OutsideIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &OutsideIssuer{KID: kid, t: t, key: key}
}

// JWK returns the public key.
func (o *OutsideIssuer) JWK() string {
	point, err := o.key.PublicKey.Bytes()
	if err != nil {
		o.t.Fatal(err)
	}
	return o.encode(map[string]any{
		"kty": "EC", "crv": "P-256", "kid": o.KID, "use": "sig", "alg": "ES256",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	})
}

// JWKS returns a JWK set with the public key.
func (o *OutsideIssuer) JWKS() string { return `{"keys":[` + o.JWK() + `]}` }

// Token signs claims as an ordinary access token.
func (o *OutsideIssuer) Token(claims map[string]any) string {
	return o.Sign(map[string]any{"alg": "ES256", "typ": "JWT", "kid": o.KID}, claims)
}

// Sign signs claims under a header that may say anything, by ES256.
func (o *OutsideIssuer) Sign(header, claims map[string]any) string {
	return o.SignText(o.encode(header), o.encode(claims))
}

// SignText signs any two texts.
func (o *OutsideIssuer) SignText(header, claims string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, o.key, sum[:])
	if err != nil {
		o.t.Fatal(err)
	}
	sig := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func (o *OutsideIssuer) encode(v any) string {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(b)
}
