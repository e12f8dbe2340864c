package counterfoiltest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// A JWT is one to be: maps for what is bent by member, raw texts for the rest.
// The product's own signing functions refuse to make most of what an attacker
// sends.
type JWT struct {
	Header, Claims       map[string]any
	RawHeader, RawClaims string // instead of the maps, when not empty
	Signer               *credential.Signer
	Sign                 func(input []byte) []byte // instead of the signer
	Text                 string                    // instead of all
}

// Compact signs and serialises.
func (j *JWT) Compact(t testing.TB) string {
	t.Helper()
	if j.Text != "" {
		return j.Text
	}
	part := func(raw string, m map[string]any) string {
		if raw == "" {
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			raw = string(b)
		}
		return base64.RawURLEncoding.EncodeToString([]byte(raw))
	}
	input := part(j.RawHeader, j.Header) + "." + part(j.RawClaims, j.Claims)
	var sig []byte
	if j.Sign != nil {
		sig = j.Sign([]byte(input))
	} else {
		var err error
		if sig, err = j.Signer.Sign([]byte(input)); err != nil {
			t.Fatal(err)
		}
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// ReadJWT takes a compact JWT apart, to be bent and signed again.
func ReadJWT(t testing.TB, compact string) *JWT {
	t.Helper()
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		t.Fatalf("not a compact JWT: %q", compact)
	}
	j := &JWT{}
	for i, m := range []*map[string]any{&j.Header, &j.Claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(m); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// PublicJWK is a signer's public key as a map, to be bent.
func PublicJWK(t testing.TB, signer *credential.Signer) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(signer.Public().JWK(), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// ForgeAssertion is an honest client assertion, to be bent.
func ForgeAssertion(signer *credential.Signer, agent, issuer string, now time.Time) JWT {
	return JWT{
		Header: map[string]any{"alg": signer.Public().Alg(), "typ": "client-authentication+jwt", "kid": signer.Public().Thumbprint()},
		Claims: map[string]any{
			"iss": agent, "sub": agent, "aud": issuer, "jti": counterfoil.NewID(""), "iat": now.Unix(), "exp": now.Unix() + 60,
		},
		Signer: signer,
	}
}

// ForgeProof is an honest proof without a token's hash, to be bent.
func ForgeProof(t testing.TB, signer *credential.Signer, method, target string, now time.Time) JWT {
	t.Helper()
	return JWT{
		Header: map[string]any{"alg": signer.Public().Alg(), "typ": "dpop+jwt", "jwk": PublicJWK(t, signer)},
		Claims: map[string]any{"htm": method, "htu": target, "jti": counterfoil.NewID(""), "iat": now.Unix()},
		Signer: signer,
	}
}

// A TokenRequest is a token request before it is signed. Everything in it can
// be bent.
type TokenRequest struct {
	Method, Query, ContentType string
	Form                       url.Values
	Header                     http.Header
	Body                       string // instead of the form

	Assertion, Proof JWT
	Proofs           []string // instead of the one proof; empty and not nil is none

	Late []func(*TokenRequest) // run after signing
}

// NewTokenRequest makes an honest request.
func NewTokenRequest(t testing.TB, issuer, resource, agent string, signer *credential.Signer, now time.Time) *TokenRequest {
	t.Helper()
	return &TokenRequest{
		Method: http.MethodPost, ContentType: "application/x-www-form-urlencoded", Header: http.Header{},
		Form: url.Values{
			"grant_type":            {"client_credentials"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"resource":              {resource},
		},
		Assertion: ForgeAssertion(signer, agent, issuer, now),
		Proof:     ForgeProof(t, signer, http.MethodPost, issuer+counterfoil.TokenPath, now),
	}
}

// Request signs what is not signed yet and makes the HTTP request to the
// endpoint.
func (q *TokenRequest) Request(t testing.TB, endpoint string) *http.Request {
	t.Helper()
	if !q.Form.Has("client_assertion") {
		q.Form.Set("client_assertion", q.Assertion.Compact(t))
	}
	if q.Proofs == nil {
		q.Proofs = []string{q.Proof.Compact(t)}
	}
	for _, edit := range q.Late {
		edit(q)
	}
	body := q.Body
	if body == "" {
		body = q.Form.Encode()
	}
	r, err := http.NewRequestWithContext(t.Context(), q.Method, endpoint+q.Query, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if q.ContentType != "" {
		r.Header.Set("Content-Type", q.ContentType)
	}
	for name, values := range q.Header {
		r.Header[name] = values
	}
	if len(q.Proofs) > 0 {
		r.Header["Dpop"] = q.Proofs
	}
	return r
}
