package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"regexp"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// A seeker looks for secrets in one text, as the issuer does that it is sent to, but
// knows nobody's keys: what it finds may be nobody's any more.
type seeker struct {
	issuer string
	seen   map[string]bool
	found  recognised
}

// look takes JSON, with strings and keys anywhere in it, or any other text.
func (s *seeker) look(b []byte) {
	var v any
	if ijson.Check(b) == nil && ijson.UnmarshalLax(b, &v) == nil {
		s.value(v)
		return
	}
	s.text(string(b))
}

func (s *seeker) value(v any) {
	switch v := v.(type) {
	case string:
		s.text(v)
	case []any:
		for _, e := range v {
			s.value(e)
		}
	case map[string]any:
		s.jwk(v)
		for name, e := range v {
			s.text(name)
			s.value(e)
		}
	}
}

// What secrets look like in a text.
var (
	codeText = regexp.MustCompile(`cfe_[a-z2-7]{33}`)
	jwtText  = regexp.MustCompile(`[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`)
	pemText  = regexp.MustCompile(`(?s)-----BEGIN (?:EC |RSA )?PRIVATE KEY-----.*?-----END (?:EC |RSA )?PRIVATE KEY-----`)
	jwkText  = regexp.MustCompile(`\{[^{}]*"kty"[^{}]*\}`)
)

func (s *seeker) text(text string) {
	for _, m := range codeText.FindAllString(text, -1) {
		if _, err := counterfoil.ParseEnrolmentCode(m); err == nil && s.first(m) {
			s.found.Codes++
		}
	}
	for _, m := range jwtText.FindAllString(text, -1) {
		// Another issuer's token, or an assertion of an agent, is nothing that this one
		// revokes.
		if t, err := credential.ParseToken(m); err == nil && strings.TrimSuffix(t.ClaimedIssuer(), "/") == s.issuer && s.first(m) {
			s.found.Tokens++
		}
	}
	for _, m := range pemText.FindAllString(text, -1) {
		// In files of settings the ends of lines are written out.
		if key, err := privatePEM(strings.ReplaceAll(m, `\n`, "\n")); err == nil {
			s.key(key)
		}
	}
	for _, m := range jwkText.FindAllString(text, -1) {
		var v map[string]any
		if b := []byte(m); ijson.Check(b) == nil && ijson.UnmarshalLax(b, &v) == nil {
			s.jwk(v)
		}
	}
}

// first reports whether this is found for the first time.
func (s *seeker) first(what string) bool {
	before := s.seen[what]
	s.seen[what] = true
	return !before
}

func (s *seeker) key(k credential.PublicKey) {
	if jkt := k.Thumbprint(); s.first(jkt) {
		s.found.Keys = append(s.found.Keys, jkt)
	}
}

var errNoKey = errors.New("it is no private key")

// privatePEM returns the public half of a private key in PEM: PKCS #8, SEC 1 or PKCS #1
// (RFC 5958, RFC 5915, RFC 8017).
func privatePEM(text string) (credential.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return credential.PublicKey{}, errNoKey
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
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return credential.PublicKey{}, errNoKey
	}
	return credential.NewPublicKey(signer.Public())
}

// jwk looks at an object: whether it is a private JWK (RFC 7518, Section 6; RFC 8037,
// Section 2).
func (s *seeker) jwk(v map[string]any) {
	member := func(name string) string { m, _ := v[name].(string); return m }
	d, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(member("d"), "="))
	if err != nil || len(d) == 0 {
		return
	}
	var key credential.PublicKey
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}
	switch kty, crv := member("kty"), member("crv"); {
	case kty == "RSA":
		var public []byte
		if public, err = ijson.Marshal(map[string]string{"kty": kty, "n": member("n"), "e": member("e")}); err == nil {
			key, err = credential.ParseJWK(public)
		}
	case kty == "EC" && curves[crv] != nil:
		var private *ecdsa.PrivateKey
		if private, err = ecdsa.ParseRawPrivateKey(curves[crv], d); err == nil {
			key, err = credential.NewPublicKey(private.Public())
		}
	case kty == "OKP" && crv == "Ed25519" && len(d) == ed25519.SeedSize:
		key, err = credential.NewPublicKey(ed25519.NewKeyFromSeed(d).Public())
	default:
		return
	}
	if err == nil {
		s.key(key)
	}
}
