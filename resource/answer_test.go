package resource_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/resource"
)

const algsParam = `algs="ES256 ES384 EdDSA Ed25519 PS256"`

func TestChallenge(t *testing.T) {
	t.Parallel()
	const metadata = "https://gateway.example/.well-known/oauth-protected-resource/r/bank"
	about := algsParam + `, resource_metadata="` + metadata + `", scope="pay read"`
	s := newSystem(t, credential.ES256, credential.ES256)
	_, none := s.try(func(c *call) { c.header = http.Header{} })
	_, bearer := s.try(func(c *call) { c.header = http.Header{"Authorization": {"Bearer x"}} })
	_, noProof := s.try(func(c *call) { c.header = http.Header{"Authorization": {"DPoP " + c.token}} })
	_, twice := s.try(func(c *call) { c.header = http.Header{"Authorization": {"DPoP a", "DPoP b"}} })
	scoped := counterfoil.Refuse(counterfoil.ToolNotGranted, "no")
	scoped.Scope = "pay"
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{"no credentials", none, []string{`DPoP ` + about}},
		{"bearer", bearer, []string{
			`Bearer error="invalid_token", error_description="send Authorization: DPoP with a proof; bearer is not taken", resource_metadata="` + metadata + `"`,
			`DPoP ` + about,
		}},
		{"a token without a proof", noProof, []string{`DPoP error="invalid_dpop_proof", error_description="a DPoP header is needed", ` + about}},
		{"two headers", twice, []string{`DPoP error="invalid_request", error_description="more than one Authorization header", ` + about}},
		{"another key", counterfoil.Refuse(counterfoil.ProofKeyMismatch, "no"), []string{`DPoP error="invalid_token", error_description="no", ` + about}},
		{"nonce", counterfoil.Refuse(counterfoil.NonceRequired, "no"), []string{`DPoP error="use_dpop_nonce", error_description="no", ` + about}},
		{"scope", scoped, []string{`DPoP error="insufficient_scope", error_description="no", ` + strings.Replace(about, "pay read", "pay", 1)}},
		{"what the sender sent", counterfoil.Refuse(counterfoil.ProofTarget, "htu %s", "a\"b\\c\r\nX: é\x7f"), []string{`DPoP error="invalid_dpop_proof", error_description="htu a'b?c??X: ??", ` + about}},
		{"no matter of authentication", counterfoil.Refuse(counterfoil.PolicyForbids, "no"), nil},
		{"fault", counterfoil.NewFault(counterfoil.StoreUnavailable, errors.New("secret")), nil},
		{"another error", errors.New("secret"), nil},
	} {
		if got := resource.Challenge(c.err, metadata, "pay read"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
	}
	if got := resource.Challenge(none, "", ""); !reflect.DeepEqual(got, []string{`DPoP ` + algsParam}) {
		t.Errorf("without metadata and scope: %q", got)
	}
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	var log bytes.Buffer
	s.verifier.Log = slog.New(slog.NewTextHandler(&log, nil))
	served := 0
	h := s.verifier.Middleware(bank, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		if c, ok := resource.CallerFrom(r.Context()); !ok || c.Agent != "payroll" {
			t.Errorf("the caller is %+v", c)
		}
	}))
	send := func(change func(*call)) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "http://localhost:9999/r/bank/accounts?q=1", nil)
		r.Host = "evil.example"
		r.Header = s.request(change).Header
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	if w := send(nil); w.Code != http.StatusOK || served != 1 {
		t.Fatalf("the honest request: %d %s", w.Code, w.Body)
	}
	for _, c := range []struct {
		name   string
		change func(*call)
		status int
		code   counterfoil.Code
	}{
		{"no credentials", func(c *call) { c.header = http.Header{} }, 401, counterfoil.ProofMissing},
		{"bearer", func(c *call) { c.header = http.Header{"Authorization": {"Bearer " + c.token}} }, 401, counterfoil.BearerRefused},
		{"another path", func(c *call) { c.htu = bank }, 401, counterfoil.ProofTarget},
		{"the host that the request names", func(c *call) { c.htu = "http://evil.example/r/bank/accounts" }, 401, counterfoil.ProofTarget},
		{"two tokens", func(c *call) { c.header = http.Header{"Authorization": {"DPoP a", "DPoP b"}} }, 400, counterfoil.RequestMalformed},
	} {
		w := send(c.change)
		var problem struct {
			Title, Detail string
			Status        int
			Code          counterfoil.Code
			RequestID     string `json:"request_id"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
			t.Fatal(err)
		}
		if w.Code != c.status || problem.Status != c.status || problem.Code != c.code || problem.Detail == "" || problem.RequestID == "" {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Cache-Control") != "no-store" || len(w.Header().Values("WWW-Authenticate")) == 0 {
			t.Errorf("%s: headers %v", c.name, w.Header())
		}
	}
	if served != 1 {
		t.Errorf("a refused request is served")
	}

	// A nonce comes with the answer that asks for it, and is good.
	nonces := resource.NewMemoryNonces()
	nonces.Always = true
	s.verifier.Nonces = nonces
	w := send(nil)
	nonce := w.Header().Get("DPoP-Nonce")
	if w.Code != 401 || nonce == "" {
		t.Errorf("asking for a nonce: %d %v", w.Code, w.Header())
	}
	if w := send(func(c *call) { c.nonce = nonce }); w.Code != http.StatusOK {
		t.Errorf("with the nonce: %d %s", w.Code, w.Body)
	}
	s.verifier.Nonces = nil

	// A fault keeps its text for the log.
	s.verifier.Replay = brokenReplay{}
	w = send(nil)
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "no connection") {
		t.Errorf("a fault: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if !strings.Contains(log.String(), "no connection") || !strings.Contains(log.String(), "request_id=req_") {
		t.Errorf("the log has not got the cause: %s", log.String())
	}
	if served != 2 {
		t.Errorf("served %d requests of 2", served)
	}
}

func TestCallerFromNothing(t *testing.T) {
	t.Parallel()
	if c, ok := resource.CallerFrom(t.Context()); ok {
		t.Errorf("a caller out of nothing: %+v", c)
	}
}
