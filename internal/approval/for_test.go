package approval

import (
	"slices"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A subject that has an agent's name is no agent whose limits count: a token says for
// whom its agent acts, and only the word of an enforcement point is of another agent.
func TestWhoseLimitsACallCountsAgainst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("cy", "ed")
	on := func(c *counterfoil.GuardedCall) { c.Caller.Subject = "other" }
	by := func(c *counterfoil.GuardedCall) { on(c); c.For, c.Caller.Task = "other", "" }
	run := func(c counterfoil.GuardedCall) counterfoil.Approval {
		t.Helper()
		id := w.ask(c)
		w.approve(id, "cy", "ed")
		w.run(c)
		return w.approval(id)
	}
	if a := run(w.pay("900", "DE1", on)); len(a.Openers) != 0 || a.For != "" || a.ForEpoch != 0 {
		t.Errorf("on behalf of what is called other: %+v", a)
	}
	_, err := w.Claim(t.Context(), w.pay("900", "DE2"))
	wantRefused(t, err, counterfoil.LimitExceeded) // the 900 were payroll's
	a := run(w.pay("900", "DE3", by))
	if !slices.Equal(a.Openers, []string{"bo"}) || a.For != "other" || a.ForEpoch != w.store.AgentState("other").Epoch {
		t.Errorf("by other, as a point says: %+v", a)
	}
	_, err = w.Claim(t.Context(), w.pay("900", "DE4", by))
	wantRefused(t, err, counterfoil.LimitExceeded)
	_, err = w.Claim(t.Context(), w.pay("1", "DE5", by, in("tsk_1")))
	wantRefused(t, err, counterfoil.TokenRevoked)
	_, err = w.Claim(t.Context(), w.pay("1", "DE6", func(c *counterfoil.GuardedCall) { by(c); c.For = "nobody" }))
	wantRefused(t, err, counterfoil.TokenRevoked)
	w.checkLog()
}

// What the agent loses that a point speaks of ends what was allowed for it, also within
// the millisecond in which people were asked.
func TestWhatTheAgentLosesEndsWhatAPointAsked(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		w := newWorld(t)
		w.enrol("cy", "ed")
		c := w.pay("1", "DE1", func(c *counterfoil.GuardedCall) { c.Caller.Subject, c.For, c.Caller.Task = "other", "other", "" })
		id := w.ask(c)
		w.approve(id, "cy", "ed")
		if lost {
			if _, err := w.store.Suspend(t.Context(), "other", &ledger.Entry{Kind: ledger.AgentSuspended, Agent: "other"}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.store.Resume(t.Context(), "other", nil, &ledger.Entry{Kind: ledger.AgentResumed, Agent: "other"}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.Claim(t.Context(), c)
		if lost {
			wantRefused(t, err, counterfoil.ApprovalRevoked)
			continue
		}
		wantDone(t, err)
		for _, e := range w.entriesOf(ledger.ApprovalRequested) {
			if e.Detail["for"] != "other" {
				t.Errorf("the entry says %v", e.Detail)
			}
		}
		w.checkLog()
	}
	// Nobody signs for an agent that is suspended.
	w := newWorld(t)
	w.enrol("cy", "ed")
	id := w.ask(w.pay("1", "DE1", func(c *counterfoil.GuardedCall) { c.Caller.Subject, c.For, c.Caller.Task = "other", "other", "" }))
	if _, err := w.store.Suspend(t.Context(), "other", &ledger.Entry{Kind: ledger.AgentSuspended, Agent: "other"}); err != nil {
		t.Fatal(err)
	}
	_, err := w.sign(id, "cy", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApprovalRevoked)
}
