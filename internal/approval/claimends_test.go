package approval

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Many small payouts are one big one, and what cannot be summed is not asked about.
func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	for _, bad := range []string{"-1", "+1", "1e2", "0x10", "1.00001", "", " 1", "1.", ".5", "010", "1,5", "NaN", "99999999999999999999", "1000.0001", "true", "null"} {
		_, err := w.Claim(t.Context(), w.pay(bad, "DE1"))
		wantRefused(t, err, counterfoil.LimitExceeded)
	}
	_, err := w.Claim(t.Context(), w.pay("1", "DE1", func(c *counterfoil.GuardedCall) { delete(c.Fields, "amount") }))
	wantRefused(t, err, counterfoil.LimitExceeded)
	if n := len(w.entriesOf(ledger.ApprovalRequested)); n != 0 {
		t.Fatalf("people were asked %d times about what could never run", n)
	}
	pays := make([]counterfoil.GuardedCall, 3)
	for i := range pays { // all of them are asked about while there is room
		pays[i] = w.pay("400", fmt.Sprint("DE", i))
		w.approve(w.ask(pays[i]), "bo", "cy")
	}
	for i, pay := range pays {
		s, err := w.Claim(t.Context(), pay)
		wantDone(t, err)
		_, err = w.spend(s, pay)
		if i < 2 {
			wantDone(t, err)
			continue
		}
		wantRefused(t, err, counterfoil.LimitExceeded)
		w.wantState(s.Approval, counterfoil.StateApproved)
		v, err := w.View(t.Context(), "bo", s.Approval)
		wantDone(t, err)
		if want := (LimitView{Field: "amount", Window: "24h0m0s", Used: "800", Amount: "400", Max: "1000"}); len(v.Limits) != 1 || v.Limits[0] != want {
			t.Errorf("people see the limits %+v, want %+v", v.Limits, want)
		}
	}
	// Nobody is asked for what has no room now.
	asked := len(w.entriesOf(ledger.ApprovalRequested))
	_, err = w.Claim(t.Context(), w.pay("200.01", "DE9"))
	wantRefused(t, err, counterfoil.LimitExceeded)
	if n := len(w.entriesOf(ledger.ApprovalRequested)); n != asked {
		t.Errorf("people were asked %d times about what has no room", n-asked)
	}
	w.ask(w.pay("200", "DE9"))
	w.checkLog()
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{
		"0": 0, "1": 10000, "1.5": 15000, "0.0001": 1, "100.00": 1000000, "922337203685477.5807": 1<<63 - 1,
	} {
		got, ok := units(s)
		if !ok || got != want {
			t.Errorf("units(%s) = %d, %t", s, got, ok)
		}
		if again, ok := units(decimal(got)); !ok || again != want {
			t.Errorf("decimal(%d) = %s", got, decimal(got))
		}
	}
	if _, ok := units("922337203685477.5808"); ok {
		t.Error("an amount beyond 64 bits is taken")
	}
}

func TestWhoMayCancelAndLook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	for name, c := range map[string]counterfoil.GuardedCall{
		"another task":  w.pay("100", "DE1", func(c *counterfoil.GuardedCall) { c.Caller.Task = "tsk_2" }),
		"another agent": w.pay("100", "DE1", func(c *counterfoil.GuardedCall) { c.Caller.Agent = "other" }),
		"nobody":        {},
	} {
		if _, err := w.Status(t.Context(), id, c.Caller); counterfoil.CodeOf(orNil(err)) != counterfoil.ToolUnknown {
			t.Errorf("%s looks: %v", name, err)
		}
		if err := w.Cancel(t.Context(), id, c.Caller); counterfoil.CodeOf(orNil(err)) != counterfoil.ToolUnknown {
			t.Errorf("%s cancels: %v", name, err)
		}
	}
	if a, err := w.Status(t.Context(), id, pay.Caller); err != nil || a.ID != id {
		t.Errorf("the agent looks: %v", err)
	}
	wantDone(t, w.Cancel(t.Context(), id, pay.Caller))
	wantRefused(t, w.Cancel(t.Context(), id, pay.Caller), counterfoil.ApprovalCancelled)
	_, err := w.Claim(t.Context(), w.pay("100", "DE1", named(id)))
	wantRefused(t, err, counterfoil.ApprovalCancelled)
	id = w.ask(pay)
	for _, name := range []string{"bo", "gus", "nobody", ""} {
		wantRefused(t, w.CancelBy(t.Context(), id, name, "no"), counterfoil.RoleRequired)
		wantRefused(t, w.Reconcile(t.Context(), id, name, true, "no"), counterfoil.RoleRequired)
	}
	wantDone(t, w.CancelBy(t.Context(), id, "ana", "not this month"))
	w.wantState(id, counterfoil.StateCancelled)
	wantRefused(t, w.CancelBy(t.Context(), id, "ana", ""), counterfoil.ApprovalCancelled)
	wantRefused(t, w.CancelBy(t.Context(), "apr_none", "ana", ""), counterfoil.ToolUnknown)
}

// What nobody knows the end of is ended by a person and never runs again by itself.
func TestAnUnknownEnd(t *testing.T) {
	t.Parallel()
	for _, happened := range []bool{true, false} {
		w := newWorld(t)
		w.enrol("bo", "cy")
		pay := w.pay("100", "DE1")
		id := w.ask(pay)
		w.approve(id, "bo", "cy")
		s, err := w.Claim(t.Context(), pay)
		wantDone(t, err)
		_, err = w.spend(s, pay)
		wantDone(t, err)
		wantRefused(t, w.Reconcile(t.Context(), id, "ana", happened, "early"), counterfoil.ApprovalSpent)
		w.reopen() // the node dies: the call has no end
		w.wantState(id, counterfoil.StateIndeterminate)
		_, err = w.Claim(t.Context(), pay)
		if r := wantRefused(t, err, counterfoil.ApprovalSpent); r.Approval.Status != "indeterminate" {
			t.Errorf("told %+v", r.Approval)
		}
		w.clock.Advance(100 * time.Hour)
		wantDone(t, w.Sweep(t.Context()))
		if len(w.approval(id).Call) == 0 {
			t.Error("what nobody knows the end of was erased")
		}
		wantDone(t, w.Reconcile(t.Context(), id, "ana", happened, "looked at the bank"))
		want := counterfoil.StateFailed
		if happened {
			want = counterfoil.StateSucceeded
		}
		w.wantState(id, want)
		wantRefused(t, w.Reconcile(t.Context(), id, "ana", !happened, ""), counterfoil.ApprovalSpent)
		w.checkLog()
	}
}

// Suspending the agent voids what waits for it.
func TestASuspendedAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	s, err := w.Claim(t.Context(), pay)
	wantDone(t, err)
	_, err = w.store.Suspend(t.Context(), "payroll", &ledger.Entry{Kind: ledger.AgentSuspended, Agent: "payroll"})
	wantDone(t, err)
	if _, err := w.spend(s, pay); err == nil {
		t.Error("a suspended agent spends")
	}
	w.wantState(id, counterfoil.StateRevoked)
	pay.Named = id
	_, err = w.Claim(t.Context(), pay)
	wantRefused(t, err, counterfoil.TaskClosed)
}

// A class that never runs, none at all and one that needs nobody get no approval.
func TestWhatIsNotAskedAbout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.class("own", func(c *counterfoil.Class) { c.Tier = counterfoil.Forbidden })
	_, err := w.Claim(t.Context(), w.pay("1", "DE1", of("own", "own")))
	wantRefused(t, err, counterfoil.ClassForbidden)
	_, err = w.Claim(t.Context(), w.pay("1", "DE1", of("own", "nothing")))
	wantRefused(t, err, counterfoil.ClassForbidden)
	if _, err = w.Claim(t.Context(), w.pay("1", "DE1", of("own", "read"))); err == nil {
		t.Error("a routine call has an approval")
	}
	_, err = w.Claim(t.Context(), w.pay("1", "DE1", func(c *counterfoil.GuardedCall) { c.Caller.Agent = "nobody" }))
	wantRefused(t, err, counterfoil.TokenRevoked)
}

// A store that fails lets nothing through.
func TestAFaultIsANo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	w.approve(w.ask(pay), "bo", "cy")
	broken := w.on(unreadable{w.store})
	if s, err := broken.Claim(context.Background(), pay); err == nil || s.Approval != "" {
		t.Errorf("without a store: %+v, %v", s, err)
	}
	if _, err := w.Claim(t.Context(), pay); err != nil {
		t.Errorf("the control: %v", err)
	}
}

// unreadable is a store whose passkeys cannot be read.
type unreadable struct{ Store }

func (unreadable) PasskeyByID(context.Context, []byte) (counterfoil.Passkey, bool, error) {
	return counterfoil.Passkey{}, false, counterfoil.NewFault(counterfoil.StoreUnavailable, errors.New("gone"))
}
