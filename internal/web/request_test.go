package web_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// A request is a token request before it is signed and sent. Everything in it
// can be bent.
type request struct {
	method, query, contentType string
	form                       url.Values
	header                     http.Header
	body                       string // instead of the form
	remote                     string

	assertion, proof jwt
	proofs           []string // instead of the one proof

	late []func(*request) // after signing
}

// A jwt is a token to be: maps for what is bent by member, raw texts for the
// rest.
type jwt struct {
	header, claims       map[string]any
	rawHeader, rawClaims string
	signer               *credential.Signer
	sign                 func(input []byte) []byte // instead of the signer
	text                 string                    // instead of all
}

func (j *jwt) compact(t *testing.T) string {
	t.Helper()
	if j.text != "" {
		return j.text
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
	input := part(j.rawHeader, j.header) + "." + part(j.rawClaims, j.claims)
	var sig []byte
	if j.sign != nil {
		sig = j.sign([]byte(input))
	} else {
		var err error
		if sig, err = j.signer.Sign([]byte(input)); err != nil {
			t.Fatal(err)
		}
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// request makes a good token request for the bank.
func (s *system) request(k agentKey) *request {
	now := s.clock.Now().Unix()
	var jwk map[string]any
	if err := json.Unmarshal(k.signer.Public().JWK(), &jwk); err != nil {
		s.t.Fatal(err)
	}
	return &request{
		method: "POST", contentType: "application/x-www-form-urlencoded", header: http.Header{}, remote: "192.0.2.1:1234",
		form: url.Values{
			"grant_type":            {"client_credentials"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"resource":              {s.issuer + "/r/bank"},
		},
		assertion: jwt{
			header: map[string]any{"alg": k.signer.Public().Alg(), "typ": "client-authentication+jwt", "kid": k.signer.Public().Thumbprint()},
			claims: map[string]any{
				"iss": k.agent, "sub": k.agent, "aud": s.issuer, "jti": counterfoil.NewID(""), "iat": now, "exp": now + 60,
			},
			signer: k.signer,
		},
		proof: jwt{
			header: map[string]any{"alg": k.signer.Public().Alg(), "typ": "dpop+jwt", "jwk": jwk},
			claims: map[string]any{"htm": "POST", "htu": s.issuer + "/oauth/token", "jti": counterfoil.NewID(""), "iat": now},
			signer: k.signer,
		},
	}
}

// send signs and sends a request.
func (s *system) send(q *request) answer {
	s.t.Helper()
	return serve(s.handlers.Public, s.finish(q))
}

func (s *system) finish(q *request) *http.Request {
	s.t.Helper()
	if !q.form.Has("client_assertion") {
		q.form.Set("client_assertion", q.assertion.compact(s.t))
	}
	if q.proofs == nil {
		q.proofs = []string{q.proof.compact(s.t)}
	}
	for _, edit := range q.late {
		edit(q)
	}
	body := q.body
	if body == "" {
		body = q.form.Encode()
	}
	r := httptest.NewRequest(q.method, "/oauth/token"+q.query, strings.NewReader(body))
	r.RemoteAddr = q.remote
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	for _, p := range q.proofs {
		r.Header.Add("DPoP", p)
	}
	return r
}

// tokenAt is token for an issuer with a path.
func (s *system) tokenAt(base string, k agentKey) answer {
	s.t.Helper()
	r := s.finish(s.request(k))
	r.URL.Path = base + r.URL.Path
	return serve(s.handlers.Public, r)
}
