package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// unbound is a caller that showed a static key.
func unbound(agent string) counterfoil.Caller {
	return counterfoil.Caller{
		Agent: agent, Subject: agent, Binding: counterfoil.NotBound, Bearer: "key sha-256:x", TokenID: "sha-256:x",
		Audience: "https://issuer/r/bank", Scope: []string{"pay"},
	}
}

// Of a caller without a key its agent and its resource count, and that it has none.
func suiteUnbound(t *testing.T, s *subject) {
	s.shop()
	static := unbound("payroll")
	issued := unbound("payroll")
	issued.Issued = s.fixture.clock.Now()
	s.wantDone(s.revoked(static)())
	s.wantDone(s.revoked(issued)())
	for name, spoil := range map[string]func(*counterfoil.Caller){
		"an unknown agent":     func(c *counterfoil.Caller) { c.Agent = "nobody" },
		"no agent":             func(c *counterfoil.Caller) { c.Agent = "" },
		"no credential":        func(c *counterfoil.Caller) { c.Bearer = "" },
		"not said to be one":   func(c *counterfoil.Caller) { c.Binding = "" },
		"bound":                func(c *counterfoil.Caller) { c.Binding = counterfoil.BoundDPoP },
		"with an instance":     func(c *counterfoil.Caller) { c.Instance = "ins_1" },
		"with a key":           func(c *counterfoil.Caller) { c.JKT = "jkt-ins_1" },
		"with an epoch":        func(c *counterfoil.Caller) { c.Epoch = s.AgentState("payroll").Epoch },
		"in a task":            func(c *counterfoil.Caller) { c.Task = "tsk_1" },
		"of a stale key alone": func(c *counterfoil.Caller) { c.Binding, c.JKT, c.Instance = counterfoil.NotBound, "bound", "ins_1" },
	} {
		c := static
		spoil(&c)
		if err := s.revoked(c)(); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A resource that is suspended takes nothing; resumed it takes the key again, and no
	// token of before.
	s.revoke(counterfoil.TargetResource, "bank")
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(static))
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(issued))
	s.fixture.clock.Advance(time.Second)
	s.wantDone(s.Restore(t.Context(), counterfoil.Target{Kind: counterfoil.TargetResource, ID: "bank"}, entry(ledger.Restored, "")))
	s.wantDone(s.revoked(static)())
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(issued))
	issued.Issued = s.fixture.clock.Now().Add(time.Second)
	s.wantDone(s.revoked(issued)())

	// An agent that is suspended or gone is nobody.
	s.wantDone(s.suspend(t.Context(), "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantRefused(counterfoil.AgentSuspended, s.revoked(static))
	s.wantDone(s.resume("payroll"))
	s.wantDone(s.revoked(static)())
	_, err := s.Offboard(t.Context(), "payroll", entry(ledger.AgentOffboarded, "payroll"))
	s.wantDone(err)
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(static))
}

// What was asked for without a key is approved and spent like anything, as long as the
// agent is active; who has a key cannot leave it out.
func suiteUnboundApproval(t *testing.T, s *subject) {
	s.office()
	n := 0
	next := func(change func(*counterfoil.Approval)) counterfoil.Approval {
		n++
		return s.approval("payroll", fmt.Sprint("call", n), func(a *counterfoil.Approval) {
			a.Caller = unbound("payroll")
			if change != nil {
				change(a)
			}
		})
	}
	live := func(sp *counterfoil.Spending) { sp.Live = counterfoil.Live{Agent: "payroll", Unbound: true} }
	s.wantDone(s.spend(s.approved(next(nil)), live)())

	for name, spoil := range map[string]func(*counterfoil.Approval){
		"bound":            func(a *counterfoil.Approval) { a.Caller.Binding = counterfoil.BoundDPoP },
		"not said":         func(a *counterfoil.Approval) { a.Caller.Binding = "" },
		"with an epoch":    func(a *counterfoil.Approval) { a.Caller.Epoch = 1 },
		"with an instance": func(a *counterfoil.Approval) { a.Caller.Instance = "ins_9" },
	} {
		if _, _, err := s.request(next(spoil)); counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
			t.Errorf("%s: %v", name, err)
		}
	}
	a := s.approved(next(nil))
	s.wantRefused(counterfoil.TokenRevoked, s.spend(a, func(sp *counterfoil.Spending) { sp.Live = counterfoil.Live{Agent: "payroll"} }))
	s.wantRefused(counterfoil.TokenRevoked, s.spend(a, func(sp *counterfoil.Spending) {
		sp.Live = counterfoil.Live{Agent: "payroll", Unbound: true, Instance: "ins_9"}
	}))
	s.wantDone(s.suspend(t.Context(), "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantRefused(counterfoil.ApprovalRevoked, s.spend(a, live))
	if _, _, err := s.request(next(nil)); counterfoil.CodeOf(err) != counterfoil.AgentSuspended {
		t.Errorf("a suspended agent asks: %v", err)
	}
}

// Find passes over what no bearer sent.
func suiteFindByBinding(t *testing.T, s *subject) {
	s.agent("payroll")
	for i := range 20 {
		e := decided("payroll")
		e.Decision = ledger.Refuse
		if i%5 == 0 {
			e.Binding = counterfoil.NotBound
		}
		s.wantDone(s.Decide(t.Context(), e, nil))
	}
	found, err := s.Find(t.Context(), ledger.Filter{Kind: ledger.CallDecided, Binding: counterfoil.NotBound})
	s.wantDone(err)
	if len(found) != 4 || found[0].Index < found[3].Index {
		t.Errorf("%d entries are found, want 4, newest first", len(found))
	}
}
