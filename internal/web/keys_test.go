package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

func proveWith(signer *credential.Signer) func(*request) {
	return func(q *request) {
		var jwk map[string]any
		if json.Unmarshal(signer.Public().JWK(), &jwk) != nil {
			panic("a public key of ours does not parse")
		}
		q.Proof.Header["jwk"], q.Proof.Header["alg"], q.Proof.Signer = jwk, signer.Public().Alg(), signer
	}
}

func TestProofKeys(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, second, other := s.enrol("payroll"), s.enrol("payroll"), s.enrol("other")
	stranger := testkit.Signer(t, "ES256")
	gone := s.enrol("gardener")
	if a := s.admin("DELETE", "/api/v1/agents/gardener", nil); a.status != 200 {
		t.Fatalf("offboard: %d %s", a.status, a.body)
	}
	run(t, s, k, []row{
		proof("DT12", "another agent's key", counterfoil.KeyInUse, proveWith(other.signer)),
		proof("DT12", "another instance's key", counterfoil.KeyInUse, proveWith(second.signer)),
		proof("DT12", "an offboarded agent's key", counterfoil.KeyInUse, proveWith(gone.signer)),
		proof("DT12", "a key that nobody has", counterfoil.ProofKeyMismatch, proveWith(stranger)),
	})
	refused := s.entries(ledger.TokenRefused)
	if len(refused) != 4 {
		t.Fatalf("%d entries of refusals", len(refused))
	}
	if e := refused[0]; e.Agent != "payroll" || e.Code != counterfoil.KeyInUse || e.JKT != other.signer.Public().Thumbprint() || e.Decision != ledger.Refuse {
		t.Errorf("entry = %+v", e)
	}
}

func TestAnyProofKey(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	free, other := s.enrol("free"), s.enrol("other")
	var keys []*credential.Signer
	for i := range 8 {
		keys = append(keys, testkit.Signer(t, "ES256"))
		a := s.token(free, proveWith(keys[i]))
		if a.status != 200 {
			t.Fatalf("key %d: %d %s", i+1, a.status, a.body)
		}
		if _, err := s.verify(agentKey{"free", free.instance, keys[i]}, a.member("access_token"), "bank"); err != nil {
			t.Errorf("key %d: %v", i+1, err)
		}
	}
	wantStatus(t, s.token(free, proveWith(testkit.Signer(t, "ES256"))), 400, "invalid_dpop_proof", counterfoil.ProofKeyMismatch)
	if a := s.token(free, proveWith(keys[3])); a.status != 200 {
		t.Errorf("a key that is bound: %d %s", a.status, a.body)
	}
	if got := len(s.entries(ledger.ProofKeyBound)); got != 8 {
		t.Errorf("%d entries of bound keys", got)
	}
	wantStatus(t, s.token(free, proveWith(other.signer)), 400, "invalid_dpop_proof", counterfoil.KeyInUse)
	// A bound key is its agent's for good: nobody else enrols with it.
	wantProblem(t, s.enrolWith(keys[0], "other", s.code("other")), 409, counterfoil.KeyInUse)
	wantStatus(t, s.token(other, proveWith(keys[0])), 400, "invalid_dpop_proof", counterfoil.KeyInUse)
}

// An assertion may name a key of the manifest by the kid that it has there.
func TestKeyIsNamedByItsKID(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	signer := testkit.Signer(t, "ES256")
	manifest := func(kid string) string {
		jwk := strings.Replace(string(signer.Public().JWK()), "{", fmt.Sprintf(`{"kid":%q,`, kid), 1)
		return "kind: Agent\nname: keyed\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\nkeys: [" + jwk + "]\n"
	}
	s.apply(manifest("first key"))
	k := agentKey{"keyed", "", signer}
	named := func(kid string) func(*request) {
		return func(q *request) { q.Assertion.Header["kid"] = kid }
	}
	for _, kid := range []string{"first key", signer.Public().Thumbprint()} {
		if a := s.token(k, named(kid)); a.status != 200 {
			t.Errorf("kid %q: %d %s", kid, a.status, a.body)
		}
	}
	wantStatus(t, s.token(k, named("second key")), 401, "invalid_client", counterfoil.ClientRefused)
	s.apply(manifest("second key"))
	if a := s.token(k, named("second key")); a.status != 200 {
		t.Errorf("renamed: %d %s", a.status, a.body)
	}
	wantStatus(t, s.token(k, named("first key")), 401, "invalid_client", counterfoil.ClientRefused)
	if got := len(s.store.Instances("keyed")); got != 1 {
		t.Errorf("%d instances of one key", got)
	}
}

// What an unknown agent, an unknown key, a bad signature, an ended key and an
// offboarded agent are told must not differ.
func TestUnknownLooksLikeKnown(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, gone, listed := s.enrol("payroll"), s.enrol("gardener"), testkit.Signer(t, "ES256")
	if a := s.admin("POST", "/api/v1/agents/gardener/offboard", map[string]string{"reason": "done"}); a.status != 200 {
		t.Fatalf("offboard: %d %s", a.status, a.body)
	}
	keyed := "kind: Agent\nname: keyed\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\nkeys: [%s]\n"
	s.apply(fmt.Sprintf(keyed, listed.Public().JWK()))
	ended := agentKey{"keyed", "", listed}
	if a := s.token(ended); a.status != 200 {
		t.Fatalf("a key of the manifest: %d %s", a.status, a.body)
	}
	s.apply(fmt.Sprintf(keyed, "")) // the key is listed no more
	as := func(agent string, signer *credential.Signer) func(*request) {
		return func(q *request) {
			q.Assertion.Claims["iss"], q.Assertion.Claims["sub"] = agent, agent
			q.Assertion.Header["kid"], q.Assertion.Signer = signer.Public().Thumbprint(), signer
		}
	}
	stranger := testkit.Signer(t, "ES256")
	cases := map[string]func(*request){
		"an agent that never was":      as("nobody", stranger),
		"a name that cannot be":        as("No Body", stranger),
		"a key that never was":         as("payroll", stranger),
		"a bad signature":              func(q *request) { q.Assertion.Signer = stranger },
		"an offboarded agent":          as("gardener", gone.signer),
		"a key that is listed no more": as("keyed", listed),
	}
	same := func(a answer) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(a.body), &m); err != nil {
			t.Fatal(err)
		}
		if m["request_id"] == "" {
			t.Error("an answer without a request id")
		}
		delete(m, "request_id")
		a.header.Del("X-Request-Id")
		return fmt.Sprint(a.status, m, a.header)
	}
	want := ""
	for name, edit := range cases {
		if a := s.token(k); a.status != 200 {
			t.Fatalf("the request without the attack: %d %s", a.status, a.body)
		}
		a := s.token(k, edit)
		wantStatus(t, a, 401, "invalid_client", counterfoil.ClientRefused)
		if want == "" {
			want = same(a)
		}
		if got := same(a); got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
		s.clock.Advance(time.Second)
	}
	if got := len(s.entries(ledger.TokenRefused)); got != 0 {
		t.Errorf("%d entries of refusals before authentication; they belong into the aggregate", got)
	}
	// What was refused without any authentication is counted with them.
	wantProblem(t, s.get("/nothing"), 404, counterfoil.ToolUnknown)
	wantStatus(t, s.token(k, func(q *request) { q.ContentType = "text/plain" }), 400, "invalid_request", counterfoil.RequestMalformed)
	wantStatus(t, s.token(k, field("resource", "")), 400, "invalid_target", counterfoil.TargetInvalid)
	if err := s.auth.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	aggregates := s.entries(ledger.RefusedAggregate)
	if len(aggregates) != 1 {
		t.Fatalf("%d aggregate entries", len(aggregates))
	}
	codes := fmt.Sprint(aggregates[0].Detail["codes"])
	if codes != "map[assertion_malformed:1 key_unknown:5 request_malformed:1 target_invalid:1 tool_unknown:1]" {
		t.Errorf("the aggregate counts %s", codes)
	}
	if err := s.auth.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(s.entries(ledger.RefusedAggregate)); got != 1 {
		t.Errorf("nothing was refused since, and there are %d aggregate entries", got)
	}
}

func TestSuspendedAgent(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	before := s.token(k).member("access_token")
	if _, err := s.verify(k, before, "bank"); err != nil {
		t.Fatal(err)
	}
	if a := s.admin("POST", "/api/v1/agents/payroll/suspend", map[string]string{"reason": "a look"}); a.status != 200 || a.member("status") != "suspended" {
		t.Fatalf("suspend: %d %s", a.status, a.body)
	}
	wantStatus(t, s.token(k), 401, "invalid_client", counterfoil.AgentSuspended)
	// Whoever has no key of the agent learns nothing.
	wantStatus(t, s.token(k, func(q *request) { q.Assertion.Signer = testkit.Signer(t, "ES256") }), 401, "invalid_client", counterfoil.ClientRefused)
	if a := s.admin("POST", "/api/v1/agents/payroll/resume", nil); a.status != 200 || a.member("status") != "active" {
		t.Fatalf("resume: %d %s", a.status, a.body)
	}
	if _, err := s.verify(k, before, "bank"); counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
		t.Errorf("a token from before the suspension: %v", err)
	}
	if a := s.token(k); a.status != 200 {
		t.Errorf("after the resumption: %d %s", a.status, a.body)
	}
	for _, kind := range []ledger.Kind{ledger.AgentSuspended, ledger.AgentResumed} {
		if e := s.entries(kind); len(e) != 1 || e[0].Agent != "payroll" || e[0].Owner != "ana" || e[0].Actor != "uid:0" {
			t.Errorf("%s: %+v", kind, e)
		}
	}
}

// Which instances are released is said by whoever resumes, and read strictly.
func TestResumeNamesWhatItReleases(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, other := s.enrol("payroll"), s.enrol("payroll")
	now := s.clock.Now()
	seen := counterfoil.Sighting{At: now, Agent: "payroll", Instance: k.instance, JKT: k.signer.Public().Thumbprint()}
	news, err := s.auth.Suspect(t.Context(), counterfoil.Suspicion{Agent: "payroll", Instance: k.instance, First: seen, Second: seen})
	if err != nil || !news {
		t.Fatalf("suspecting: %v, %v", news, err)
	}
	const path = "/api/v1/agents/payroll/resume"
	quarantined := fmt.Sprintf(`["%s"]`, k.instance)
	for _, c := range []struct {
		name string
		body any
		code counterfoil.Code
	}{
		{"no body", nil, counterfoil.RequestMalformed},
		{"nothing named", map[string]any{"release": []string{}}, counterfoil.RequestMalformed},
		{"one that is not quarantined", map[string]any{"release": []string{k.instance, other.instance}}, counterfoil.RequestMalformed},
		{"a name that nobody has", map[string]any{"release": []string{k.instance, "ins_\x00"}}, counterfoil.RequestMalformed},
		{"a text", map[string]any{"release": k.instance}, counterfoil.PayloadMalformed},
		{"another member", map[string]any{"releases": []string{k.instance}}, counterfoil.PayloadMalformed},
	} {
		wantProblem(t, s.admin("POST", path, c.body), 400, c.code)
		if got := s.admin("GET", "/api/v1/agents/payroll", nil); !strings.Contains(got.body, `"quarantined":`+quarantined) {
			t.Errorf("%s: %s", c.name, got.body)
		}
	}
	if len(s.entries(ledger.AgentResumed)) != 0 {
		t.Error("a refusal is recorded as a resumption")
	}
	if a := s.admin("POST", path, map[string]any{"release": []string{k.instance}}); a.status != 200 || !strings.Contains(a.body, `"released":`+quarantined) || strings.Contains(a.body, `"quarantined"`) {
		t.Errorf("releasing: %d %s", a.status, a.body)
	}
	if a := s.token(k); a.status != 200 {
		t.Errorf("released: %d %s", a.status, a.body)
	}
}

func TestRateOfOneAgent(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	var requests []*http.Request
	for range 510 {
		requests = append(requests, s.finish(s.request(k)))
	}
	if count := race(s.handlers.Public, requests); count[200] != 500 || count[429] != 10 {
		t.Errorf("answers by status: %v", count)
	}
	limited := s.token(k)
	wantStatus(t, limited, 429, "invalid_request", counterfoil.RateLimited)
	if limited.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if a := s.token(other); a.status != 200 {
		t.Errorf("another agent: %d %s", a.status, a.body)
	}
	if got := len(s.entries(ledger.TokenRefused)); got != 0 {
		t.Errorf("%d entries of rate-limited requests", got)
	}
	s.clock.Advance(time.Second)
	if a := s.token(k); a.status != 200 {
		t.Errorf("a second later: %d %s", a.status, a.body)
	}
}

// Whoever floods from one address is stopped there; agents that authenticate
// pay nothing for it elsewhere.
func TestRateOfOneAddress(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	stranger := testkit.Signer(t, "ES256")
	q := s.request(k)
	q.Assertion.Signer = stranger
	bad := q.Assertion.Compact(t)
	flood := func() answer {
		q := s.request(k)
		q.Form.Set("client_assertion", bad)
		q.Proofs = []string{"x"}
		q.remote = "198.51.100.7:1"
		return s.send(q)
	}
	for range 1000 {
		wantStatus(t, flood(), 401, "invalid_client", counterfoil.ClientRefused)
	}
	wantStatus(t, flood(), 429, "invalid_request", counterfoil.RateLimited)
	if a := s.token(k); a.status != 200 {
		t.Errorf("another address: %d %s", a.status, a.body)
	}
}

func wantProblem(t *testing.T, a answer, status int, code counterfoil.Code) {
	t.Helper()
	if a.status != status || a.member("code") != string(code) || a.member("request_id") == "" ||
		a.header.Get("Content-Type") != "application/problem+json" || a.member("status") != fmt.Sprint(status) {
		t.Errorf("got %d %s %s, want %d %s", a.status, a.header.Get("Content-Type"), a.body, status, code)
	}
}

// However many instances an agent has, each logs in without saying which it is:
// the proof beside the assertion tells.
func TestEveryInstanceLogsInWithoutAKeyID(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	var all []agentKey
	for range 12 {
		all = append(all, s.enrol("payroll"))
	}
	for i, k := range all {
		if a := s.token(k, func(q *request) { delete(q.Assertion.Header, "kid") }); a.status != 200 {
			t.Errorf("instance %d: %d %s", i, a.status, a.body)
		}
	}
}
