package web_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// look asks for an approval's status with a token for a resource and a fresh proof.
func (s *system) look(k agentKey, id, audience string) answer {
	s.t.Helper()
	return s.lookWith(k, id, s.token(k, field("resource", audience)).member("access_token"))
}

func (s *system) lookWith(k agentKey, id, token string) answer {
	s.t.Helper()
	proof, err := credential.SignProof(k.signer, "GET", s.issuer+"/approvals/"+id, "", token, s.clock.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return s.lookRaw(id, "DPoP "+token, proof)
}

func (s *system) lookRaw(id, authorization, proof string) answer {
	r := httptest.NewRequest("GET", "/approvals/"+id, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	if proof != "" {
		r.Header.Set("DPoP", proof)
	}
	return serve(s.handlers.Public, r)
}

func TestStatusIsForTheAgentThatAsked(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	bo, cy := s.loggedIn("bo"), s.loggedIn("cy")
	id := s.held(k, "12.50")
	before, _ := s.store.Head()
	for _, audience := range []string{s.issuer, s.issuer + "/r/bank"} {
		a := s.look(k, id, audience)
		if a.status != 200 || a.member("id") != id || a.member("status") != "pending" || a.header.Get("Retry-After") != "5" ||
			a.member("approvals_required") != "2" || a.member("status_endpoint") != s.issuer+"/approvals/"+id || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("with a token for %s: %d %s %v", audience, a.status, a.body, a.header)
		}
	}
	// A second instance of the same agent asks too: what counts is agent and task.
	if a := s.look(s.enrol("payroll"), id, s.issuer); a.status != 200 {
		t.Errorf("another instance: %d %s", a.status, a.body)
	}
	decided, finished := s.since(before, ledger.CallDecided), s.since(before, ledger.CallFinished)
	if len(decided) != 3 || len(finished) != 3 || decided[0].Proof == "" || decided[0].Agent != "payroll" || decided[0].Owner != "ana" ||
		decided[0].Tool != "counterfoil/approvals" || decided[0].Decision != ledger.Allow || decided[0].Approval.ID != id ||
		finished[0].Of != decided[0].Index || finished[0].Outcome != "succeeded" {
		t.Errorf("entries: %+v %+v", decided, finished)
	}
	// To everybody else there is nothing, whatever there is.
	for name, a := range map[string]answer{
		"another agent":              s.look(other, id, s.issuer),
		"another agent's bank token": s.look(other, id, s.issuer+"/r/bank"),
		"another resource":           s.look(k, id, s.issuer+"/r/crm"),
		"nobody's id":                s.look(k, counterfoil.NewID("apr_"), s.issuer),
	} {
		wantProblem(t, a, 404, counterfoil.ToolUnknown)
		if got := a.member("detail"); name != "" && got != s.look(k, counterfoil.NewID("apr_"), s.issuer).member("detail") {
			t.Errorf("%s is told apart: %s", name, got)
		}
	}
	for _, id := range []string{"x", "apr_", "apr_%41", "apr_AAAAAAAAAAAAAAAAAAAAAA/", "..", "apr_AAAAAAAAAAAAAAAAAAAAAA/approve"} {
		wantProblem(t, s.lookRaw(id, "", ""), 404, counterfoil.ToolUnknown)
	}
	bo.decide(id, "approve")
	if a := cy.decide(id, "approve"); a.member("state") != "approved" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := s.look(k, id, s.issuer); a.status != 200 || a.member("status") != "approved" || a.header.Get("Retry-After") != "" {
		t.Errorf("approved: %d %s", a.status, a.body)
	}
}

// TestStatusNeedsAProof: what opens the gateway opens this, and nothing less.
func TestStatusNeedsAProof(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	bo := s.loggedIn("bo")
	id := s.held(k, "12.50")
	token := s.token(k, field("resource", s.issuer)).member("access_token")
	sign := func(method, url, token string, at time.Time) string {
		t.Helper()
		p, err := credential.SignProof(k.signer, method, url, "", token, at)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	url, now := s.issuer+"/approvals/"+id, s.clock.Now()
	good := sign("GET", url, token, now)
	foreign, err := credential.SignProof(other.signer, "GET", url, "", token, now)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := s.store.Head()
	for _, c := range []struct {
		authorization, proof string
		code                 counterfoil.Code
	}{
		{"", "", counterfoil.ProofMissing},
		{"DPoP " + token, "", counterfoil.ProofMissing},
		{"Bearer " + token, "", counterfoil.BearerRefused},
		{"DPoP " + token, foreign, counterfoil.ProofKeyMismatch},
		{"DPoP " + token, sign("POST", url, token, now), counterfoil.ProofTarget},
		{"DPoP " + token, sign("GET", s.issuer+"/approvals/"+counterfoil.NewID("apr_"), token, now), counterfoil.ProofTarget},
		{"DPoP " + token, sign("GET", url, token+"x", now), counterfoil.ProofTarget},
		{"DPoP " + token, sign("GET", url, token, now.Add(-time.Hour)), counterfoil.ProofStale},
		{"DPoP x" + token, good, counterfoil.TokenMalformed},
	} {
		a := s.lookRaw(id, c.authorization, c.proof)
		wantProblem(t, a, 401, c.code)
		if a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s has no challenge", c.code)
		}
	}
	// A person's session is no agent's token.
	r := httptest.NewRequest("GET", "/approvals/"+id, nil)
	r.Header.Set("Cookie", bo.cookie)
	wantProblem(t, serve(s.handlers.Public, r), 401, counterfoil.ProofMissing)
	if e := s.since(before, ledger.CallDecided); len(e) != 0 {
		t.Errorf("nobody was authenticated, and the ledger has %+v", e)
	}
	if a := s.lookRaw(id, "DPoP "+token, good); a.status != 200 {
		t.Fatalf("the honest one: %d %s", a.status, a.body)
	}
	wantProblem(t, s.lookRaw(id, "DPoP "+token, good), 401, counterfoil.ProofReplayed)
	// An agent that was suspended: recorded, as its proof was used.
	fresh := sign("GET", url, token, s.clock.Now())
	if a := s.admin("POST", "/api/v1/agents/payroll/suspend", map[string]any{"reason": "test"}); a.status != 200 {
		t.Fatal(a.body)
	}
	before, _ = s.store.Head()
	a := s.lookRaw(id, "DPoP "+token, fresh)
	if a.status != 401 {
		t.Errorf("suspended: %d %s", a.status, a.body)
	}
	if e := s.since(before, ledger.CallDecided); len(e) != 1 || e[0].Decision != ledger.Refuse || e[0].Proof == "" || string(e[0].Code) != a.member("code") {
		t.Errorf("entries: %+v", e)
	}
}

func TestStatusIsLimited(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	id := s.held(k, "12.50")
	token := s.token(k, field("resource", s.issuer)).member("access_token")
	before, _ := s.store.Head()
	limited := 0
	for range web.LookBurst + 5 {
		if a := s.lookWith(k, id, token); a.status == 429 {
			limited++
		}
	}
	if limited != 5 || len(s.since(before, ledger.CallDecided)) != web.LookBurst {
		t.Errorf("%d were refused, %d recorded", limited, len(s.since(before, ledger.CallDecided)))
	}
	wantProblem(t, s.look(other, id, s.issuer), 404, counterfoil.ToolUnknown)
	s.clock.Advance(10 * time.Second)
	if a := s.lookWith(k, id, token); a.status != 200 {
		t.Errorf("later: %d %s", a.status, a.body)
	}
}

// TestATokenForTheIssuerOpensNoTool: its audience is no resource's.
func TestATokenForTheIssuerOpensNoTool(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	a := s.token(k, field("resource", s.issuer))
	if a.status != 200 || a.member("scope") != "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, res := range []string{"bank", "crm"} {
		if _, err := s.verify(k, a.member("access_token"), res); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenAudience {
			t.Errorf("at %s: %v", res, err)
		}
	}
	// An agent that works in tasks only gets one too: that is how it will open one.
	if a := s.token(s.enrol("tasked"), field("resource", s.issuer)); a.status != 200 || a.member("scope") != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// And at the issuer a resource's token says what it is for.
	url := s.issuer + "/approvals/apr_AAAAAAAAAAAAAAAAAAAAAA"
	bank := s.token(k).member("access_token")
	proof, err := credential.SignProof(k.signer, "GET", url, "", bank, s.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.verifier.Check(t.Context(), resource.Request{
		Method: "GET", URL: url, Resource: s.issuer, Header: map[string][]string{"Authorization": {"DPoP " + bank}, "Dpop": {proof}},
	})
	if err == nil || counterfoil.CodeOf(err) != counterfoil.TokenAudience {
		t.Errorf("a bank token at the issuer: %v", err)
	}
}
