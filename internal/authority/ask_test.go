package authority_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
)

// Taking everybody away opens nothing: who is left is asked about the last two of them,
// and whoever had a passkey is remembered.
func TestNobodyLeftIsNotNobodyYet(t *testing.T) {
	t.Parallel()
	q := newQuorum(t).enrolAll()
	if d, err := q.Delete(t.Context(), counterfoil.KindPerson, "ana", "uid:7"); err != nil || d.Proposal != nil {
		t.Fatalf("one of three: %+v, %v", d, err)
	}
	for _, person := range []string{"bo", "cy"} {
		d, err := q.Delete(t.Context(), counterfoil.KindPerson, person, "uid:7")
		if err != nil || d.Proposal == nil || !slices.Contains(q.last().People, person) {
			t.Fatalf("%s: %+v, %v, told %v", person, d, err, q.last().People)
		}
		q.clock.Advance(24 * time.Hour)
		q.settles()
		if _, err := q.Get(counterfoil.KindPerson, person); err == nil {
			t.Fatalf("%s is there", person)
		}
	}
	const mal = "{kind: Person, name: mal, groups: [finance]}"
	p := q.proposed(mal + "\n---\n{kind: Person, name: mel, groups: [finance]}")
	q.clock.Advance(24 * time.Hour)
	if q.settles(); !q.inForce(mal) {
		t.Errorf("%s is never made", p.ID)
	}
}

// Taking the approvers out of a class first does not make the next step one that nobody
// hears of: the first one waits, with a notice to them.
func TestApproversAreNotStrippedFirst(t *testing.T) {
	t.Parallel()
	const strip = `{kind: Class, name: payout, tier: irreversible, limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]}`
	const evil = `{kind: Class, name: payout, tier: irreversible, approvers: [evil], limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]}` + "\n---\n{kind: Person, name: mal, groups: [evil]}"
	q := newQuorum(t).enrolAll()
	p := q.proposed(strip)
	if p.Approval == "" || fmt.Sprint(q.last().People) != "[ana bo cy]" {
		t.Errorf("%+v, told %+v", p, q.last())
	}
	q.sign(p.Approval, "cy", counterfoil.DecisionDeny, "why")
	q.settles()
	q.clock.Advance(25 * time.Hour)
	if q.settles(); q.inForce(strip) {
		t.Error("it is in force although somebody said no")
	}
	// Where nobody may decide from the start, whoever had a passkey is told.
	q = newQuorum(t)
	q.mustApply(q.Authority, strip)
	q.enrolAll()
	p = q.proposed(evil)
	n := q.last()
	if p.Approval != "" || n.Event != approval.EventChangeProposed || fmt.Sprint(n.People) != "[ana bo cy]" || n.Sentence == "" || !n.Expires.Equal(p.Effective) {
		t.Errorf("%+v, told %+v", p, n)
	}
	if err := q.Withdraw(t.Context(), p.ID, "uid:8"); err != nil {
		t.Fatal(err)
	}
	q.clock.Advance(25 * time.Hour)
	if q.settles(); q.inForce(evil) {
		t.Error("what was withdrawn is in force")
	}
}

// A change that waits is told of again by the process that comes after: the notices of
// the one before may never have been sent.
func TestWhatWaitsIsToldOfAgain(t *testing.T) {
	t.Parallel()
	for name, base := range map[string]string{
		"asked": "", "told": `{kind: Class, name: payout, tier: irreversible, limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]}`,
	} {
		q := newQuorum(t)
		if base != "" {
			q.mustApply(q.Authority, base)
		}
		q.enrolAll()
		p := q.proposed(widenings[7].wide)
		first := q.last()
		q.mu.Lock()
		q.notes = nil
		q.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		for tries := 0; q.last().Event == "" && tries < 10_000; tries++ {
			<-time.After(time.Millisecond)
		}
		cancel()
		<-done
		if again := q.last(); fmt.Sprint(again) != fmt.Sprint(first) || again.Approval != p.Approval || len(q.notes) != 1 {
			t.Errorf("%s: %+v, then %d, %+v", name, first, len(q.notes), again)
		}
	}
}
