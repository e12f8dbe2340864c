package web_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestTwoPeopleSign(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	ana, bo, cy := s.loggedIn("ana"), s.loggedIn("bo"), s.loggedIn("cy")
	id := s.held(k, "12.50")
	a := bo.get("/api/v1/approvals/" + id)
	for _, part := range []string{`"call":{`, `"amount":"12.50"`, `"rendering":{`, `"statement":{`, `"digest":"sha-256:`, `"may_sign":true`, `"signatures":[]`} {
		if !strings.Contains(a.body, part) {
			t.Errorf("what bo is shown lacks %s: %s", part, a.body)
		}
	}
	// The owner is in the group, and may not (AP4).
	wantProblem(t, ana.post("/api/v1/approvals/"+id+"/challenge", map[string]any{"decision": "approve"}), 403, counterfoil.ApproverNotEligible)

	if a := bo.decide(id, "approve"); a.status != 200 || a.member("state") != "pending" {
		t.Fatalf("bo: %d %s", a.status, a.body)
	}
	wantProblem(t, bo.post("/api/v1/approvals/"+id+"/challenge", map[string]any{"decision": "approve"}), 403, counterfoil.ApproverNotDistinct)
	if a := cy.decide(id, "approve"); a.status != 200 || a.member("state") != "approved" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("cy: %d %s", a.status, a.body)
	}
	if e := s.entries(ledger.ApprovalSigned); len(e) != 2 || e[0].Actor != "bo" || e[1].Actor != "cy" {
		t.Errorf("entries: %+v", e)
	}
	for _, decision := range []string{"", "yes", "Approve", "approved"} {
		if a := cy.post("/api/v1/approvals/"+id+"/challenge", map[string]any{"decision": decision}); a.status != 400 {
			t.Errorf("%q: %d %s", decision, a.status, a.body)
		}
	}
}

// TestOvertakenSignature: whoever signs what another signed meanwhile gets a fresh
// challenge beside the refusal, and signs that.
func TestOvertakenSignature(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	bo, cy := s.loggedIn("bo"), s.loggedIn("cy")
	id := s.held(k, "12.50")
	old := cy.post("/api/v1/approvals/"+id+"/challenge", map[string]any{"decision": "approve"})
	if a := bo.decide(id, "approve"); a.status != 200 {
		t.Fatalf("bo: %d %s", a.status, a.body)
	}
	sign := func(options string) answer {
		return cy.post("/api/v1/approvals/"+id+"/signatures", map[string]any{
			"decision": "approve", "credential": json.RawMessage(cy.phone.Get([]byte(options))),
		})
	}
	a := sign(old.body)
	wantProblem(t, a, 409, counterfoil.ApprovalPending)
	var fresh struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	if err := json.Unmarshal([]byte(a.body), &fresh); err != nil || len(fresh.PublicKey) == 0 {
		t.Fatalf("no fresh challenge: %s", a.body)
	}
	if got := s.state(id); got != "pending" {
		t.Errorf("an overtaken signature counted: %s", got)
	}
	if a := sign(a.body); a.status != 200 || a.member("state") != "approved" {
		t.Errorf("the fresh one: %d %s", a.status, a.body)
	}
}

func TestOneNoEndsIt(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	bo, cy := s.loggedIn("bo"), s.loggedIn("cy")
	id := s.held(k, "12.50")
	if a := bo.decide(id, "deny"); a.status != 200 || a.member("state") != "denied" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := cy.decide(id, "approve"); a.status != 403 || a.member("code") != string(counterfoil.ApprovalDenied) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.look(k, id, s.issuer); a.member("status") != "denied" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestAnotherPersonsPasskey: the session says whose assertion it has to be.
func TestAnotherPersonsPasskey(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	bo, cy, adm := s.loggedIn("bo"), s.loggedIn("cy"), s.loggedIn("adm")
	id := s.held(k, "12.50")
	options := bo.post("/api/v1/approvals/"+id+"/challenge", map[string]any{"decision": "approve"})
	if options.status != 200 {
		t.Fatal(options.body)
	}
	bare := strings.Replace(options.body, `"allowCredentials"`, `"x"`, 1)
	body := map[string]any{"decision": "approve", "credential": json.RawMessage(cy.phone.Get([]byte(bare)))}
	if a := bo.post("/api/v1/approvals/"+id+"/signatures", body); a.status != 400 || a.member("code") != string(counterfoil.PasskeyRefused) {
		t.Errorf("cy's passkey in bo's session: %d %s", a.status, a.body)
	}
	wantProblem(t, adm.decide(id, "approve"), 403, counterfoil.ApproverNotEligible)
	// Nor does a no become a yes on its way.
	options = bo.post("/api/v1/approvals/"+id+"/challenge", map[string]any{"decision": "deny", "reason": "no"})
	credential := json.RawMessage(bo.phone.Get([]byte(options.body)))
	if a := bo.post("/api/v1/approvals/"+id+"/signatures", map[string]any{"decision": "approve", "credential": credential}); a.status != 400 {
		t.Errorf("a no sent as a yes: %d %s", a.status, a.body)
	}
	if got := s.state(id); got != "pending" {
		t.Errorf("it is %s", got)
	}
	if a := bo.decide(id, "approve"); a.status != 200 {
		t.Errorf("bo: %d %s", a.status, a.body)
	}
}

func TestAdministratorsEndApprovals(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	adm := s.loggedIn("adm")
	id := s.held(k, "12.50")
	a := adm.post("/api/v1/approvals/"+id+"/cancel", map[string]any{"reason": "not needed"})
	if a.status != 200 || a.member("state") != "cancelled" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := adm.post("/api/v1/approvals/"+id+"/cancel", map[string]any{"reason": "again"}); a.status != 403 || a.member("code") != string(counterfoil.ApprovalCancelled) {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	if a := adm.post("/api/v1/approvals/"+id+"/reconcile", map[string]any{"reason": "x"}); a.status != 400 {
		t.Errorf("without what happened: %d %s", a.status, a.body)
	}
	if a := adm.post("/api/v1/approvals/"+id+"/reconcile", map[string]any{"happened": true, "reason": "x"}); a.status == 200 {
		t.Errorf("one that nothing was spent of: %d %s", a.status, a.body)
	}
}

func TestAdministratorsReadAndEndAgents(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	s.enrol("payroll")
	adm := s.loggedIn("adm")
	if a := adm.get("/api/v1/agents"); !strings.Contains(a.body, `"name":"payroll"`) || !strings.Contains(a.body, `"live":1`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := adm.get("/api/v1/agents/payroll"); !strings.Contains(a.member("manifest"), "owner: ana") || !strings.Contains(a.body, `"jkt"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	wantProblem(t, adm.get("/api/v1/agents/nobody"), 404, counterfoil.ToolUnknown)
	if a := adm.post("/api/v1/agents/payroll/suspend", map[string]any{"reason": "looks odd"}); a.member("status") != "suspended" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if e := s.entries(ledger.AgentSuspended); len(e) != 1 || e[0].Actor != "adm" || e[0].Reason != "looks odd" {
		t.Errorf("entries: %+v", e)
	}
	// Nothing gives it back here.
	wantProblem(t, adm.post("/api/v1/agents/payroll/resume", map[string]any{"reason": "x"}), 404, counterfoil.ToolUnknown)
	wantProblem(t, adm.post("/api/v1/agents/payroll/enroll-code", map[string]any{}), 404, counterfoil.ToolUnknown)
	if a := adm.post("/api/v1/agents/payroll/offboard", map[string]any{"reason": "over"}); a.status != 200 || !strings.Contains(a.body, `"keys":["`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := adm.get("/api/v1/people"); !strings.Contains(a.body, `"name":"bo"`) || !strings.Contains(a.body, `"passkeys"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := adm.get("/api/v1/health"); a.member("ready") != "true" || a.member("newest") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestChain: one call from its token to the signatures, found by either end.
func TestChain(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	bo, cy, aud := s.loggedIn("bo"), s.loggedIn("cy"), s.loggedIn("aud")
	id, other := s.held(k, "12.50"), s.held(k, "1.00")
	bo.decide(id, "approve")
	cy.decide(id, "approve")
	bo.decide(other, "deny")
	steps := func(query string) (out []string, indexes []int64) {
		t.Helper()
		a := aud.get("/api/v1/ledger/chain?" + query)
		var got struct {
			Links []struct {
				Step  string
				Index int64
				Entry map[string]any
			}
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		for _, l := range got.Links {
			out, indexes = append(out, l.Step), append(indexes, l.Index)
			if receipt := aud.get("/api/v1/ledger/receipts/" + jsonNumber(l.Index)); receipt.status != 200 {
				t.Errorf("no receipt of %d: %s", l.Index, receipt.body)
			}
		}
		return out, indexes
	}
	got, indexes := steps("approval=" + id)
	if !slices.IsSorted(indexes) || count(got, "requested") != 1 || count(got, "signed") != 2 {
		t.Errorf("by the approval: %v", got)
	}
	requested := s.entries(ledger.ApprovalRequested)
	if len(requested) != 2 || requested[0].Approval.ID != id {
		t.Fatalf("%+v", requested)
	}
	if again, _ := steps("request_id=" + requested[0].RequestID); !slices.Equal(again, got) {
		t.Errorf("by the request: %v, by the approval %v", again, got)
	}
	wantProblem(t, aud.get("/api/v1/ledger/chain?approval="+counterfoil.NewID("apr_")), 404, counterfoil.ToolUnknown)
	for _, query := range []string{"", "?approval=x&request_id=y", "?approval=" + id + "&approval=" + other, "?agent=payroll"} {
		if a := aud.get("/api/v1/ledger/chain" + query); a.status != 400 {
			t.Errorf("%q: %d %s", query, a.status, a.body)
		}
	}
	// Entries by the filters of the search.
	for query, want := range map[string]int{
		"approval=" + id + "&kind=approval.signed": 2, "actor=bo&kind=approval.signed": 2, "actor=cy&kind=approval.signed": 1,
		"kind=approval.requested&class=payout": 2, "approval=" + id[:len(id)-1]: 0,
	} {
		a := aud.get("/api/v1/ledger/entries?" + query)
		var found struct{ Entries []any }
		if err := json.Unmarshal([]byte(a.body), &found); err != nil || len(found.Entries) != want {
			t.Errorf("%s: %d entries, want %d: %s", query, len(found.Entries), want, a.body)
		}
	}
}

func count(all []string, one string) int {
	n := 0
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

func jsonNumber(n int64) string {
	b, _ := json.Marshal(n)
	return string(b)
}
