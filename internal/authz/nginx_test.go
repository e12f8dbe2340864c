package authz_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/e2e/peers"
)

// TestNginxAsDocumented: nginx with the configuration of docs/points.md passes on what
// is allowed, with the credential in place of the token, and of a refusal what a client
// needs to go on.
func TestNginxAsDocumented(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	var reached atomic.Int64
	var last atomic.Pointer[http.Request]
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		last.Store(r.Clone(r.Context()))
		io.WriteString(w, "the customer")
	}))
	t.Cleanup(upstream.Close)
	at := peers.NginxAsDocumented(t, p.url, upstream.URL)

	ask := func(method, target string) said {
		t.Helper()
		return send(t, at, method, target, "", "Authorization: DPoP t", "DPoP: p",
			// What a client says in nginx's place.
			"X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/elsewhere", "X-Forwarded-For: 10.9.9.9", "X_forwarded_uri: /crm/elsewhere",
			// And to the server behind.
			"Accept: text/plain", "Cookie: a=b", "X-User: admin", "x-remote-user: admin", "Connection: Authorization")
	}

	resp := ask("DELETE", "/crm/customers/7?a=1")
	asked := p.take()
	if resp.status != http.StatusOK || resp.body != "the customer" || len(asked) != 1 {
		t.Fatalf("got %+v with %d questions", resp, len(asked))
	}
	if q := asked[0]; q.Method != "DELETE" || q.Path != "/customers/7" || q.Query != "a=1" || q.Header.Get("Authorization") != "DPoP t" || q.Header.Get("Dpop") != "p" || q.BodyKnown {
		t.Errorf("asked %+v", q)
	}
	got := last.Load()
	for name := range got.Header {
		if name != "Authorization" && name != "Accept" && name != "Connection" { // the last is nginx's own
			t.Errorf("upstream got %s: %q", name, got.Header.Get(name))
		}
	}
	if got.Header.Get("Authorization") != "Bearer upstream" || len(got.Header["Dpop"]) > 0 || got.RequestURI != "/crm/customers/7?a=1" || got.Method != "DELETE" {
		t.Errorf("upstream got %s %s with %v", got.Method, got.RequestURI, got.Header)
	}

	// Without a credential the token does not go upstream either.
	p.answer = func(counterfoil.Question) counterfoil.Answer {
		return counterfoil.Answer{Allow: true, Remove: []string{"Authorization", "DPoP"}}
	}
	if resp := ask("GET", "/crm/customers/7"); resp.status != http.StatusOK || len(last.Load().Header["Authorization"]) > 0 || len(last.Load().Header["Dpop"]) > 0 {
		t.Errorf("got %d, upstream got %v", resp.status, last.Load().Header)
	}
	p.take()

	// nginx reads these paths as some below /crm/; what is asked about is what came.
	before := reached.Load()
	for _, target := range []string{"//crm/customers/7", "/x/../crm/customers/7", "/%63rm/customers/7"} {
		if resp := ask("GET", target); resp.status != http.StatusForbidden || len(p.take()) != 0 {
			t.Errorf("%s: got %+v", target, resp)
		}
	}

	for status, want := range map[int]int{202: 403, 204: 403, 400: 403, 401: 401, 403: 403, 404: 403, 429: 403, 503: 500} {
		p.answer = func(counterfoil.Question) counterfoil.Answer {
			return counterfoil.Answer{Status: status, Body: []byte(`{"code":"nonce_required"}`), Header: http.Header{
				"Www-Authenticate": {`DPoP error="use_dpop_nonce"`}, "Dpop-Nonce": {"n-1"}, "Content-Type": {counterfoil.ProblemMedia},
			}}
		}
		resp := ask("GET", "/crm/customers/7")
		p.take()
		if resp.status != want {
			t.Errorf("%d: the client got %d", status, resp.status)
		}
		if resp.header.Get("DPoP-Nonce") != "n-1" || resp.header.Get("Counterfoil-Code") != "nonce_required" || resp.header.Get("X-Request-Id") == "" {
			t.Errorf("%d: the client got %v", status, resp.header)
		}
		if challenge := resp.header.Get("WWW-Authenticate"); want == http.StatusUnauthorized && challenge != `DPoP error="use_dpop_nonce"` {
			t.Errorf("%d: the challenge is %q", status, challenge)
		}
		if want == http.StatusForbidden && !strings.HasPrefix(resp.body, `{"status":403,"code":"nonce_required","request_id":"req_`) {
			t.Errorf("%d: the client got %q", status, resp.body)
		}
	}
	if reached.Load() != before {
		t.Errorf("%d requests that were refused reached the upstream", reached.Load()-before)
	}
}
