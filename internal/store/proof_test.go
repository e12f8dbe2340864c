package store

import (
	"context"
	"errors"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A database of before there was human proof is taken further with all that it has.
func TestProofComesToAnOlderDatabase(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := &subject{t: t, fixture: f, Store: f.open()}
	s.agent("payroll")
	s.instance("ins_1", "payroll")
	e := decided("payroll")
	s.wantDone(s.Decide(t.Context(), e, nil))
	s.wantDone(s.Finish(t.Context(), finished(e)))
	s.wantDone(s.Close())
	f.edit(`DROP TABLE approvals`, `DROP TABLE signatures`, `DROP TABLE takings`, `DROP TABLE passkeys`, `DROP TABLE person_codes`, `DROP TABLE proposals`)
	f.before7()
	f.edit(`PRAGMA user_version = 5`)
	s.Store = f.open()
	if i, ok := s.Instance("ins_1"); !ok || i.Status != counterfoil.Active {
		t.Errorf("the instance is %+v", i)
	}
	s.people("bo", "cy")
	a := s.approved(s.approval("payroll", "one"))
	s.wantDone(s.spend(a)())
	s.reopen()
	s.wantState(a.ID, counterfoil.StateIndeterminate)
	s.checkLedger()
}

// A crash between the spending and the end is a copy of the files as they are then.
func TestCrashOfASpentApproval(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := &subject{t: t, fixture: f, Store: f.open()}
	s.office()
	a := s.approved(s.approval("payroll", "one"))
	s.wantDone(s.spend(a)())
	size := s.size()
	crashed := newFixture(t)
	crashed.opt = f.opt
	crashed.opt.Places = []string{"file:" + crashed.place()}
	for _, suffix := range []string{"", "-wal"} {
		crashed.write(crashed.db()+suffix, f.read(f.db()+suffix))
	}
	again := &subject{t: t, fixture: crashed, Store: crashed.open()}
	again.wantState(a.ID, counterfoil.StateIndeterminate)
	if n := again.size(); n != size+1 {
		t.Errorf("%d entries became %d", size, n)
	}
	again.wantRefused(counterfoil.ApprovalSpent, again.spend(a))
	again.checkLedger()
	// The one that lives on ends it itself.
	e := spentEntry(a)
	e.Index = s.kept(a.ID).Decided
	s.wantDone(s.FinishApproval(t.Context(), a.ID, counterfoil.StateSucceeded, nil, finished(e)))
	s.wantState(a.ID, counterfoil.StateSucceeded)
}

// A caller who leaves while its approval is being spent is told no: nobody knows of
// a call, so the approval does not stay spent.
func TestWhoeverLeavesWhileSpending(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gate, entered := make(chan struct{}), make(chan struct{}, 16)
	hold := make(chan struct{}, 1)
	f.opt.wrap = func(w writer) writer {
		return &faulty{writer: w, before: func(s statement) error {
			if s == commit {
				select {
				case <-hold:
					entered <- struct{}{}
					<-gate
				default:
				}
			}
			return nil
		}}
	}
	s := &subject{t: t, fixture: f, Store: f.open()}
	s.office()
	a := s.approved(s.approval("payroll", "one"))
	ctx, leave := context.WithCancel(t.Context())
	hold <- struct{}{}
	done := make(chan error, 1)
	go func() { done <- s.SpendApproval(ctx, s.spending(a), spentEntry(a), nil) }()
	<-entered
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("a caller who left: %v", err)
	}
	size := s.size()
	close(gate)
	s.wantDone(s.Wait(t.Context(), size+1))
	s.wantState(a.ID, counterfoil.StateIndeterminate)
	if ends, err := s.Find(t.Context(), ledger.Filter{Kind: ledger.CallFinished}); err != nil || len(ends) != 1 || ends[0].Approval.State != string(counterfoil.StateIndeterminate) {
		t.Errorf("the ends are %+v, %v", ends, err)
	}
	s.checkLedger()
}
