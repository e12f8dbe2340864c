package web_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestServerMetadata(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		a := s.get(path)
		var m map[string]any
		if err := json.Unmarshal([]byte(a.body), &m); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		for name, want := range map[string]string{
			"issuer": s.issuer, "token_endpoint": s.issuer + "/oauth/token", "jwks_uri": s.issuer + "/oauth/jwks",
			"grant_types_supported": "[client_credentials]", "response_types_supported": "[]",
			"token_endpoint_auth_methods_supported": "[private_key_jwt]",
			"introspection_endpoint":                s.issuer + "/oauth/introspect", "introspection_endpoint_auth_methods_supported": "[private_key_jwt]",
			"introspection_signing_alg_values_supported": "[ES256]",
			"revocation_endpoint":                        s.issuer + "/oauth/revoke", "revocation_endpoint_auth_methods_supported": "[private_key_jwt]",
			"counterfoil_tasks_endpoint": s.issuer + "/tasks", "counterfoil_key_rotation_endpoint": s.issuer + "/keys/rotate",
			"counterfoil_leak_endpoint": s.issuer + "/oauth/leaked", "counterfoil_revocation_feed": s.issuer + "/oauth/revocations",
			"authorization_details_types_supported": "[" + counterfoil.DetailType + "]",
		} {
			if got := fmt.Sprint(m[name]); got != want {
				t.Errorf("%s: %s = %s, want %s", path, name, got, want)
			}
		}
		for _, name := range []string{
			"token_endpoint_auth_signing_alg_values_supported", "introspection_endpoint_auth_signing_alg_values_supported",
			"revocation_endpoint_auth_signing_alg_values_supported", "dpop_signing_alg_values_supported",
		} {
			algs := fmt.Sprint(m[name])
			if !strings.Contains(algs, "ES256") || strings.Contains(algs, "none") || strings.Contains(algs, "HS") || strings.Contains(algs, "RS256") {
				t.Errorf("%s = %s", name, algs)
			}
		}
		// What is not there is not named.
		for _, name := range []string{
			"authorization_endpoint", "registration_endpoint", "counterfoil_signals",
			"code_challenge_methods_supported", "scopes_supported", "client_id_metadata_document_supported",
		} {
			if _, ok := m[name]; ok {
				t.Errorf("%s advertises %s", path, name)
			}
		}
		// Every URL of ours that it names is there.
		for name, v := range m {
			url, ok := v.(string)
			if !ok || !strings.HasPrefix(url, s.issuer+"/") || name == "counterfoil_ledger" {
				continue
			}
			if a := s.get(strings.TrimPrefix(url, s.issuer)); a.status == 404 {
				t.Errorf("%s = %s is not there", name, url)
			}
		}
	}
}

// An issuer with a path has its documents at the inserted and at the appended
// paths, and everything else below its path.
func TestIssuerWithAPath(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.issuer += "/cf"
	s.metrics = newRegistry()
	s.build()
	for path, want := range map[string]int{
		"/.well-known/oauth-authorization-server/cf":      200,
		"/.well-known/openid-configuration/cf":            200,
		"/cf/.well-known/openid-configuration":            200,
		"/cf/oauth/jwks":                                  200,
		"/.well-known/oauth-protected-resource/cf/r/bank": 200,
		"/cf/r/bank": 200,
		"/.well-known/oauth-authorization-server": 404,
		"/oauth/jwks": 404,
		"/r/bank":     404,
		"/.well-known/oauth-protected-resource/r/bank": 404,
	} {
		if a := s.get(path); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	var m struct{ Resource string }
	if err := json.Unmarshal([]byte(s.get("/.well-known/oauth-protected-resource/cf/r/bank").body), &m); err != nil || m.Resource != s.issuer+"/r/bank" {
		t.Errorf("resource = %q, %v", m.Resource, err)
	}
	k := s.enrol("payroll")
	if a := s.tokenAt("/cf", k); a.status != 200 {
		t.Errorf("a token: %d %s", a.status, a.body)
	}
	// What is asked with a token is there too, and its proof is for the whole URL.
	q := s.request(k)
	q.Form.Set("resource", s.issuer)
	r := s.finish(q)
	r.URL.Path = "/cf" + r.URL.Path
	token := serve(s.handlers.Public, r).member("access_token")
	for path, want := range map[string]int{"/cf/tasks": 200, "/tasks": 404} {
		proof, err := credential.SignProof(k.signer, "GET", s.issuer+"/tasks", "", token, s.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", proof)
		if a := serve(s.handlers.Public, r); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestResourceMetadata(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	const at = "/.well-known/oauth-protected-resource/r/"
	a := s.get(at + "bank")
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil || a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if m["resource"] != s.issuer+"/r/bank" || fmt.Sprint(m["authorization_servers"]) != "["+s.issuer+"]" ||
		m["dpop_bound_access_tokens_required"] != true || fmt.Sprint(m["bearer_methods_supported"]) != "[header]" {
		t.Errorf("metadata = %s", a.body)
	}
	if _, ok := m["scopes_supported"]; ok {
		t.Error("scopes_supported makes clients ask for what is not granted")
	}
	if strings.Contains(a.body, "upstream") || strings.Contains(a.body, "127.0.0.1:1/") || strings.Contains(a.body, "get_balance") {
		t.Errorf("the metadata tells what is behind: %s", a.body)
	}
	if a := s.get(at + "crm/customers/7"); a.status != 200 || !strings.Contains(a.body, s.issuer+`/r/crm"`) {
		t.Errorf("below an http resource: %d %s", a.status, a.body)
	}
	for _, path := range []string{at + "none", at, at + "bank/tools", at + "vault", at + "b%61nk", at + "bank/", "/.well-known/oauth-protected-resource"} {
		wantProblem(t, s.get(path), 404, counterfoil.ToolUnknown)
	}
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	a := s.get("/oauth/jwks")
	if a.status != 200 || a.header.Get("Cache-Control") != "public, max-age=600" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(a.body), &set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("%v %s", err, a.body)
	}
	for _, k := range set.Keys {
		if k["kty"] != "EC" || k["alg"] != "ES256" || k["use"] != "sig" || k["kid"] == nil || k["d"] != nil {
			t.Errorf("key %v", k)
		}
	}
}

func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for path, allow := range map[string]string{
		"/.well-known/oauth-authorization-server": "GET, HEAD", "/enroll": "POST", "/ledger/checkpoint": "GET, HEAD",
	} {
		for _, method := range []string{"PUT", "DELETE", "TRACE", "OPTIONS", "CONNECT", "BREW"} {
			a := serve(s.handlers.Public, httptest.NewRequest(method, path, nil))
			wantProblem(t, a, 405, counterfoil.MethodForbidden)
			if a.header.Get("Allow") != allow {
				t.Errorf("%s %s: Allow = %q", method, path, a.header.Get("Allow"))
			}
		}
	}
	for _, method := range []string{"GET", "PUT"} {
		a := serve(s.handlers.Public, httptest.NewRequest(method, "/oauth/token", nil))
		wantStatus(t, a, 405, "invalid_request", counterfoil.MethodForbidden)
		if a.header.Get("Allow") != "POST" {
			t.Errorf("Allow = %q", a.header.Get("Allow"))
		}
	}
	for _, path := range []string{
		"/", "/x", "/oauth", "/oauth/", "/oauth/token/", "/oauth//token", "//oauth/token", "/oauth/./token", "/x/../oauth/token",
		"/oauth%2ftoken", "/oauth/t%6fken", "/OAuth/token", "/api/v1/apply", "/metrics", "/healthz", "/admin", "/ledger", "/ledger/tile",
	} {
		a := s.get(path)
		if a.status != 404 || a.member("code") != "tool_unknown" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if loc := a.header.Get("Location"); loc != "" {
			t.Errorf("%s leads to %s", path, loc)
		}
	}
	// An absolute form with a foreign host is no request for us.
	r := httptest.NewRequest("GET", "http://evil.example/oauth/jwks", nil)
	wantStatus(t, serve(s.handlers.Public, r), 400, "invalid_request", counterfoil.RequestMalformed)
	r = httptest.NewRequest("GET", s.issuer+"/oauth/jwks", nil)
	if a := serve(s.handlers.Public, r); a.status != 200 {
		t.Errorf("an absolute form with our own host: %d", a.status)
	}
}

func TestGatewayGetsPathsAsTheyCame(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, path := range []string{"/r/bank", "/r/crm/customers/7", "/r/crm/a//b", "/r/crm/a/../b", "/r/crm/%2e%2e/x", "/r/crm/a%2fb"} {
		if a := s.get(path); a.status != 200 || a.body != "gateway "+path {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	a := s.get("/r/bank/panic")
	wantProblem(t, a, 500, counterfoil.Internal)
	if strings.Contains(a.body, "fell over") || !strings.Contains(s.logs.String(), "fell over") {
		t.Errorf("the cause of a panic belongs into the log alone: %s", a.body)
	}
}

func TestLedgerIsPublicAsHashes(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	a := s.get("/ledger/checkpoint")
	if a.status != 200 || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	c, err := ledger.OpenCheckpoint([]byte(a.body), s.opened.opt.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	if size, root := s.store.Head(); c.Size != size || c.Hash != root {
		t.Errorf("the checkpoint is over %d, the log has %d", c.Size, size)
	}
	tile := s.get(fmt.Sprintf("/ledger/tile/0/000.p/%d", c.Size))
	if tile.status != 200 || int64(len(tile.body)) != c.Size*tlog.HashSize || !strings.Contains(tile.header.Get("Cache-Control"), "immutable") {
		t.Errorf("%d, %d bytes, %v", tile.status, len(tile.body), tile.header)
	}
	if strings.Contains(tile.body, "payroll") {
		t.Error("a tile holds text")
	}
	for _, path := range []string{
		"/ledger/tile/0/000", "/ledger/tile/entries/000", "/ledger/tile/data/000", "/ledger/tile/8/0/000", "/ledger/tile/0/000.p/0",
		"/ledger/tile/0/000.p/256", "/ledger/tile/9/000", "/ledger/tile/0/0", "/ledger/tile/0/999", "/ledger/tile/-1/000", "/ledger/entries/0",
	} {
		if a := s.get(path); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

// Every parameter, header and member is given odd values. Nothing of it may be
// a fault, let alone end the process.
func TestOddValuesAreNoFaults(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	odd := []any{nil, true, -1, 1e300, "", "\x00", "\r\n", "\u202e", strings.Repeat("a", 300), []any{nil}, map[string]any{"a": nil}}
	check := func(what string, a answer) {
		t.Helper()
		if a.status >= 500 || a.status == 0 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
		for name, values := range a.header {
			if slices.ContainsFunc(values, func(v string) bool { return strings.ContainsAny(v, "\r\n\x00") }) {
				t.Errorf("%s: header %s = %q", what, name, values)
			}
		}
	}
	for _, v := range odd {
		s.clock.Advance(1e9)
		for _, name := range []string{"grant_type", "client_assertion_type", "client_assertion", "client_id", "resource", "scope", "authorization_details", "task"} {
			q := s.request(k)
			q.Form[name] = []string{fmt.Sprint(v)}
			check(name, s.send(q))
		}
		for _, name := range []string{"iss", "sub", "aud", "jti", "iat", "nbf", "exp"} {
			check("claim "+name, s.token(k, claim(name, v)))
		}
		for _, name := range []string{"htm", "htu", "jti", "iat", "nonce", "ath"} {
			check("proof's "+name, s.token(k, proofClaim(name, v)))
		}
		for _, name := range []string{"alg", "typ", "kid", "jwk", "crit"} {
			check("header "+name, s.token(k, func(q *request) { q.Assertion.Header[name] = v }))
			check("proof's header "+name, s.token(k, func(q *request) { q.Proof.Header[name] = v }))
		}
		for _, name := range []string{"type", "locations", "actions", "tool", "tool_digest", "action_class", "constraints"} {
			b, err := json.Marshal([]any{map[string]any{"type": counterfoil.DetailType, "locations": []string{s.issuer + "/r/bank"}, "tool": "pay", name: v}})
			if err != nil {
				t.Fatal(err)
			}
			check("detail "+name, s.token(k, field("authorization_details", string(b))))
		}
		for _, name := range []string{"agent", "code"} {
			b, err := json.Marshal(map[string]any{"agent": "payroll", "code": s.code("payroll"), name: v})
			if err != nil {
				t.Fatal(err)
			}
			check("enrol "+name, s.enrolRaw(string(b), "x"))
		}
		for _, name := range []string{"files", "dry_run"} {
			check("apply "+name, s.admin("POST", "/api/v1/apply", map[string]any{name: v}))
		}
		check("suspend", s.admin("POST", "/api/v1/agents/nobody/suspend", map[string]any{"reason": v}))
		check("rotate", s.admin("POST", "/api/v1/keys/rotate", map[string]any{"emergency": v}))
	}
	if a := s.token(k); a.status != 200 && a.status != 401 {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

func TestNewWantsAllItsParts(t *testing.T) {
	t.Parallel()
	if _, err := web.New(web.Config{Issuer: "http://localhost"}); err == nil {
		t.Error("handlers without parts were made")
	}
}
