package approval

import (
	"errors"
	"slices"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestNothingIsSpentUnderAnotherRule: what is applied between a claim and its spending
// counts, whatever it is. The call is claimed again, which says what became of it.
func TestNothingIsSpentUnderAnotherRule(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		apply func(*world)
		code  counterfoil.Code // of the next claim; empty: it may be spent
	}{
		"nothing": {func(*world) {}, ""},
		"something else": {func(w *world) {
			w.personDoc("gus", func(p *counterfoil.Person) { p.Email = "augustus@example.com" })
		}, ""},
		"the rule":            {func(w *world) { w.class("payout", func(c *counterfoil.Class) { c.Approvers = [][]string{{"audit"}} }) }, counterfoil.ApprovalSuperseded},
		"the template":        {func(w *world) { w.class("payout", func(c *counterfoil.Class) { c.Template = "Pay" }) }, counterfoil.ApprovalSuperseded},
		"the limit":           {func(w *world) { w.class("payout", func(c *counterfoil.Class) { c.Limits = nil }) }, counterfoil.ApprovalSuperseded},
		"the owner":           {func(w *world) { w.owner("bo") }, counterfoil.ApprovalSuperseded},
		"a signer":            {func(w *world) { w.personDoc("bo", func(p *counterfoil.Person) { p.Groups = []string{"audit"} }) }, counterfoil.ApprovalRevoked},
		"a signer's mailbox":  {func(w *world) { w.personDoc("bo", func(p *counterfoil.Person) { p.Email = "cy@example.com" }) }, counterfoil.ApprovalRevoked},
		"the class of a tool": {func(w *world) { w.reclass("pay", "both") }, counterfoil.ToolChanged},
		"no class of a tool":  {func(w *world) { w.reclass("pay", "") }, counterfoil.ToolChanged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.enrol("bo", "cy")
			c := w.pay("100", "DE1")
			id := w.ask(c)
			w.approve(id, "bo", "cy")
			s, err := w.Claim(t.Context(), c)
			if err != nil || s.Revision == "" {
				t.Fatalf("%+v, %v", s, err)
			}
			_, before := w.store.Registry()
			tc.apply(w)
			if _, now := w.store.Registry(); now == before {
				if _, err := w.spend(s, c); err != nil {
					t.Fatal(err)
				}
				return
			}
			if _, err := w.spend(s, c); !errors.Is(err, counterfoil.ErrChanged) {
				t.Fatalf("it was spent under another registry: %v", err)
			}
			w.wantState(id, counterfoil.StateApproved)
			s, err = w.Claim(t.Context(), c)
			if tc.code != "" {
				wantRefused(t, err, tc.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.spend(s, c); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (w *world) owner(name string) {
	w.t.Helper()
	reg, _ := w.store.Registry()
	a := *reg.Agents["payroll"]
	a.Owner = name
	w.apply(doc(w.t, counterfoil.KindAgent, "payroll", a))
}

// reclass gives a tool of the bank another class; none takes it away.
func (w *world) reclass(tool, class string) {
	w.t.Helper()
	reg, _ := w.store.Registry()
	r := *reg.Resources["bank"]
	r.Tools = slices.Clone(r.Tools)
	i := slices.IndexFunc(r.Tools, func(t counterfoil.Tool) bool { return t.Name == tool })
	if r.Tools[i].Class = class; class == "" {
		r.Tools = slices.Delete(r.Tools, i, i+1)
	}
	w.apply(doc(w.t, counterfoil.KindResource, "bank", r))
}

// TestWhatListsLeaveOutIsThereWhereItIsNeeded: a repeat is found in a list, and verified
// whole; what is handed on after a start needs no more than its id.
func TestWhatListsLeaveOutIsThereWhereItIsNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	c := w.pay("100", "DE1", func(c *counterfoil.GuardedCall) { c.Held = true })
	id := w.ask(c)
	w.approve(id, "bo", "cy")
	w.reopen()
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-w.Held(); got != id {
		t.Fatalf("handed on is %s", got)
	}
	w.run(c)
	// The answer of what ran is in the record that a repeat finds.
	a, _, err := w.find(t.Context(), &claim{GuardedCall: c, digest: counterfoil.CallDigest(c.Call), now: w.now()})
	if err != nil || a.ID != id || len(a.Result) == 0 || len(a.Call) == 0 || a.Fields["amount"] != "100" {
		t.Errorf("found is %+v, %v", a, err)
	}
	if n, err := w.store.Find(t.Context(), ledger.Filter{Kind: ledger.ApprovalRequested}); err != nil || len(n) != 1 {
		t.Errorf("%d requests, %v", len(n), err)
	}
}
