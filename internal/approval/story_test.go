package approval

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// What people sign is one call, once.
func TestAnApprovalIsForOneCallOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.wantState(id, counterfoil.StatePending)

	_, err := w.Claim(t.Context(), pay)
	if r := wantRefused(t, err, counterfoil.ApprovalPending); r.Approval.ID != id || !r.Approval.Attached || r.Approval.ApprovalsRequired != 2 {
		t.Errorf("a repeat is told %+v", r.Approval)
	}
	w.approve(id, "bo")
	_, err = w.Claim(t.Context(), pay)
	wantRefused(t, err, counterfoil.ApprovalPending)
	w.approve(id, "cy")
	w.wantState(id, counterfoil.StateApproved)

	// Another call that names it: not this one.
	for _, c := range []counterfoil.GuardedCall{
		w.pay("999", "DE1", named(id)),
		w.pay("100", "DE2", named(id)),
		w.pay("100", "DE1", named(id), func(c *counterfoil.GuardedCall) { c.Caller.Task = "tsk_2" }),
		w.pay("100", "DE1", named(id), func(c *counterfoil.GuardedCall) {
			c.Caller.Agent, c.Caller.Instance, c.Caller.Task = "other", "ins_other", ""
		}),
		w.pay("100", "DE1", named("apr_"+id[5:]+"x")),
	} {
		_, err := w.Claim(t.Context(), c)
		if r := wantRefused(t, err, counterfoil.ApprovalMismatch); r.Approval != nil {
			t.Errorf("who names another's approval learns %+v", r.Approval)
		}
	}
	got, index := w.run(w.pay("100", "DE1", named(id)))
	if got != id {
		t.Errorf("spent %s, want %s", got, id)
	}
	w.wantState(id, counterfoil.StateSucceeded)

	// Named, equal within the deadline, and after it when named: it never runs again.
	for _, c := range []counterfoil.GuardedCall{pay, w.pay("100", "DE1", named(id))} {
		_, err = w.Claim(t.Context(), c)
		if r := wantRefused(t, err, counterfoil.ApprovalSpent); r.Approval.Entry != index || r.Approval.Status != "succeeded" {
			t.Errorf("a repeat is told %+v", r.Approval)
		}
	}
	w.clock.Advance(16 * time.Minute)
	_, err = w.Claim(t.Context(), w.pay("100", "DE1", named(id)))
	wantRefused(t, err, counterfoil.ApprovalSpent)

	// Without a name, a later equal call is a new one, and its page shows the first.
	again := w.ask(pay)
	if a := w.approval(again); a.Earlier != id || again == id {
		t.Errorf("the new approval %s has earlier %q, want %q", again, a.Earlier, id)
	}
	if r := w.checkLog(); r.Signatures != 2 || r.Calls != 1 || r.Passkeys != 2 {
		t.Errorf("offline: %+v", r)
	}
}

func TestEntriesOfAnApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	id := w.ask(w.pay("100", "DE1"))
	w.approve(id, "bo", "cy")
	a := w.approval(id)
	requested := w.entriesOf(ledger.ApprovalRequested)[0]
	for _, name := range []string{"approval_digest", "class_digest", "template_digest", "rule", "required", "expires"} {
		if requested.Detail[name] == nil {
			t.Errorf("approval.requested has no %s", name)
		}
	}
	if requested.Detail["approval_digest"] != a.Digest || requested.Owner != "ana" || requested.Class != "payout" || requested.Tier != "irreversible" {
		t.Errorf("approval.requested is %+v", requested)
	}
	for _, e := range w.entries() {
		b, err := ledger.Encode(e)
		wantDone(t, err)
		for _, secret := range []string{a.CallDigest, digest("", a.Rendering), "@example.com", "DE1", "console.example/enrol"} {
			if contains(b, secret) {
				t.Errorf("a %s entry has %q", e.Kind, secret)
			}
		}
	}
	signed := w.entriesOf(ledger.ApprovalSigned)
	if len(signed) != 2 || signed[1].Approval.State != "approved" || len(signed[1].Approval.Signers) != 2 || signed[0].Actor != "bo" {
		t.Errorf("approval.signed: %+v", signed)
	}
}
