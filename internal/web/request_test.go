package web_test

import (
	"net/http"
	"net/http/httptest"

	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// A request is a token request before it is signed and sent.
type request struct {
	*counterfoiltest.TokenRequest
	remote string
}

// request makes a good token request for the bank.
func (s *system) request(k agentKey) *request {
	s.t.Helper()
	return &request{
		TokenRequest: counterfoiltest.NewTokenRequest(s.t, s.issuer, s.issuer+"/r/bank", k.agent, k.signer, s.clock.Now()),
		remote:       "192.0.2.1:1234",
	}
}

// send signs and sends a request.
func (s *system) send(q *request) answer {
	s.t.Helper()
	return serve(s.handlers.Public, s.finish(q))
}

// finish signs a request, in the form in which a handler gets it.
func (s *system) finish(q *request) *http.Request {
	s.t.Helper()
	sent := q.Request(s.t, s.issuer+"/oauth/token")
	r := httptest.NewRequest(sent.Method, "/oauth/token"+q.Query, sent.Body)
	r.ContentLength, r.Header, r.RemoteAddr = sent.ContentLength, sent.Header, q.remote
	return r
}

// tokenAt is token for an issuer with a path.
func (s *system) tokenAt(base string, k agentKey) answer {
	s.t.Helper()
	r := s.finish(s.request(k))
	r.URL.Path = base + r.URL.Path
	return serve(s.handlers.Public, r)
}
