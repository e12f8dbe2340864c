package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A stage is one verb of human proof, whose writes fail in turn, and what comes
// before it, whose writes do not.
type stage struct {
	name    string
	kind    ledger.Kind // recorded once by the verb
	repeats bool        // doing it again is not refused
	prepare func(*subject)
	do      func(*subject) error
	holds   func(*subject) bool // whether the effect is in force
}

// proof is what the stages go by.
const (
	callOfProof   = "apr_call"
	changeOfProof = "apr_change"
)

func stages() []stage {
	one := func(a *counterfoil.Approval) { a.ID, a.Rule.Required = callOfProof, 1 }
	asked := func(s *subject) {
		s.office()
		s.ask(s.approval("payroll", "one", one))
	}
	approved := func(s *subject) {
		asked(s)
		s.wantDone(s.sign(s.signing(callOfProof, "bo", 0, counterfoil.StateApproved)))
	}
	spend := func(s *subject) error {
		sp := s.spending(s.kept(callOfProof))
		sp.Takings = []counterfoil.Taking{{Class: "payout", Field: "amount", Agent: "payroll", Window: 1, Amount: 1, Max: 1}}
		return s.SpendApproval(context.Background(), sp, spentEntry(s.kept(callOfProof)), []byte(`{}`))
	}
	finish := func(s *subject) error {
		e := spentEntry(s.kept(callOfProof))
		e.Index = s.kept(callOfProof).Decided
		return s.FinishApproval(context.Background(), callOfProof, counterfoil.StateSucceeded, []byte(`{}`), finished(e))
	}
	change := func(verb string) func(*subject) {
		return func(s *subject) {
			s.office()
			a := s.changeApproval(verb, "one")
			a.ID, a.Rule.Required = changeOfProof, 1
			s.ask(a)
			s.wantDone(s.sign(s.signing(a.ID, "bo", 0, counterfoil.StateApproved)))
		}
	}
	propose := func(s *subject) error {
		now := s.fixture.clock.Now()
		return s.PutProposal(context.Background(), counterfoil.Proposal{ID: "prp_1", Documents: []byte(`[]`), Approval: changeOfProof, Created: now, Effective: now.AddDate(0, 0, 1)},
			entry(ledger.ChangeProposed, ""))
	}
	proposed := func(s *subject) { change(counterfoil.ChangeApply)(s); s.wantDone(propose(s)) }
	waits := func(s *subject) bool {
		list, err := s.Proposals(context.Background())
		return err == nil && len(list) == 1
	}
	is := func(id string, states ...counterfoil.ApprovalState) func(*subject) bool {
		return func(s *subject) bool {
			a, _, err := s.Approval(context.Background(), id)
			for _, st := range states {
				if err == nil && a.State == st {
					return true
				}
			}
			return false
		}
	}
	ctx := context.Background()
	added := personCode("bo", counterfoil.PasskeyAdded)
	return []stage{
		{"put person code", ledger.EnrolmentCodeIssued, true, (*subject).office,
			func(s *subject) error { return s.PutPersonCode(ctx, added, entry(ledger.EnrolmentCodeIssued, "")) },
			func(s *subject) bool { _, ok, err := s.PersonCode(ctx, added.Hash); return err == nil && ok }},
		{"reset passkeys", ledger.EnrolmentCodeIssued, true, approved,
			func(s *subject) error {
				return s.PutPersonCode(ctx, personCode("bo", counterfoil.PasskeyReset), entry(ledger.EnrolmentCodeIssued, ""))
			}, is(callOfProof, counterfoil.StateRevoked)},
		{"enrol a passkey", ledger.PersonEnrolled, false, func(s *subject) {
			s.office()
			s.wantDone(s.PutPersonCode(ctx, added, entry(ledger.EnrolmentCodeIssued, "")))
		}, func(s *subject) error {
			return s.EnrolPasskey(ctx, added.Hash, passkeyOfTest("bo", "bo2", counterfoil.PasskeyAdded), entry(ledger.PersonEnrolled, ""))
		}, func(s *subject) bool { _, ok, err := s.PasskeyByID(ctx, []byte("bo2")); return err == nil && ok }},
		{"use a passkey", ledger.SessionOpened, false, (*subject).office,
			func(s *subject) error {
				return s.UsePasskey(ctx, []byte("bo"), 5, true, entry(ledger.SessionOpened, ""))
			},
			func(s *subject) bool {
				p, _, err := s.PasskeyByID(ctx, []byte("bo"))
				return err == nil && p.SignCount == 5
			}},
		{"end a passkey", ledger.PasskeyEnded, false, approved,
			func(s *subject) error {
				return s.EndPasskeys(ctx, [][]byte{[]byte("bo")}, entry(ledger.PasskeyEnded, ""))
			}, is(callOfProof, counterfoil.StateRevoked)},
		{"request", ledger.ApprovalRequested, true, (*subject).office, func(s *subject) error {
			_, _, err := s.request(s.approval("payroll", "one", one))
			return err
		}, is(callOfProof, counterfoil.StatePending)},
		{"say yes", ledger.ApprovalSigned, false, asked,
			func(s *subject) error { return s.sign(s.signing(callOfProof, "bo", 0, counterfoil.StateApproved)) },
			is(callOfProof, counterfoil.StateApproved)},
		{"say no", ledger.ApprovalClosed, false, asked,
			func(s *subject) error { return s.sign(s.signing(callOfProof, "bo", 0, counterfoil.StateDenied)) },
			is(callOfProof, counterfoil.StateDenied)},
		{"close", ledger.ApprovalClosed, false, approved, func(s *subject) error {
			return s.CloseApproval(ctx, callOfProof, []counterfoil.ApprovalState{counterfoil.StateApproved}, counterfoil.StateCancelled, "", entry(ledger.ApprovalClosed, ""))
		}, is(callOfProof, counterfoil.StateCancelled)},
		// Whoever is not told, or does not end it, leaves it indeterminate.
		{"spend", ledger.CallDecided, false, approved, spend, is(callOfProof, counterfoil.StateSpent, counterfoil.StateIndeterminate)},
		{"finish", ledger.CallFinished, false, func(s *subject) { approved(s); s.wantDone(spend(s)) }, finish,
			is(callOfProof, counterfoil.StateSucceeded, counterfoil.StateIndeterminate)},
		{"erase", ledger.ApprovalErased, true, func(s *subject) { approved(s); s.wantDone(spend(s)); s.wantDone(finish(s)) },
			func(s *subject) error {
				return s.EraseApprovals(ctx, []string{callOfProof}, entry(ledger.ApprovalErased, ""))
			},
			func(s *subject) bool { return s.kept(callOfProof).Call == nil }},
		{"suspend", ledger.AgentSuspended, false, approved,
			func(s *subject) error { return s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")) },
			is(callOfProof, counterfoil.StateRevoked)},
		{"delete a person", ledger.ConfigApplied, false, approved, func(s *subject) error {
			return s.put(counterfoil.Change{Delete: []counterfoil.DocKey{{Kind: counterfoil.KindPerson, Name: "bo"}}})
		}, is(callOfProof, counterfoil.StateRevoked)},
		{"release a passkey", ledger.PersonChanged, false, change(counterfoil.ChangeRelease), func(s *subject) error {
			return s.ReleasePasskey(ctx, []byte("di"), changeOfProof, s.kept(changeOfProof).CallDigest, entry(ledger.PersonChanged, ""))
		}, is(changeOfProof, counterfoil.StateSucceeded)},
		{"propose", ledger.ChangeProposed, false, change(counterfoil.ChangeApply), propose, waits},
		{"make a proposal", ledger.ConfigApplied, false, proposed, func(s *subject) error { return s.put(counterfoil.Change{Proposal: "prp_1"}) },
			func(s *subject) bool { return !waits(s) && is(changeOfProof, counterfoil.StateSucceeded)(s) }},
		{"close a proposal", ledger.ChangeClosed, false, proposed,
			func(s *subject) error { return s.CloseProposal(ctx, "prp_1", entry(ledger.ChangeClosed, "")) },
			func(s *subject) bool { return !waits(s) && is(changeOfProof, counterfoil.StateCancelled)(s) }},
	}
}

// TestProofFaults fails each write of each verb in turn, once before it is done and
// once after, and asks after each whether the log and the tables still say the same,
// in that process and in the next.
func TestProofFaults(t *testing.T) {
	t.Parallel()
	for _, st := range stages() {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lost=%v", st.name, lost), func(t *testing.T) {
				t.Parallel()
				from := prepared(t, st)
				for write := 0; ; write++ {
					if !proofFault(t, st, from, write, lost) {
						if write < 6 { // begin, savepoint, the effect, release, a segment and commit at least
							t.Fatalf("only %d writes were tried", write)
						}
						return
					}
				}
			})
		}
	}
}

// prepared returns what a stage begins with, as files that each try has a copy of; nil
// where that has an open call, which ends with the process.
func prepared(t *testing.T, st stage) *fixture {
	t.Helper()
	f := newFixture(t)
	s := &subject{t: t, fixture: f, Store: f.open()}
	st.prepare(s)
	open, err := s.Unfinished(t.Context())
	s.wantDone(err)
	s.wantDone(s.Close())
	if len(open) > 0 {
		return nil
	}
	return f
}

// copied is another fixture on a copy of the files.
func (f *fixture) copied(t testing.TB) *fixture {
	t.Helper()
	c := &fixture{t: t, dir: t.TempDir(), clock: f.clock, opt: f.opt}
	c.opt.Places = []string{"file:" + c.place()}
	c.write(c.db(), c.read(f.db()))
	c.write(c.place(), c.read(f.place()))
	return c
}

func proofFault(t *testing.T, st stage, from *fixture, n int, lost bool) (reached bool) {
	f := from
	if from == nil {
		f = newFixture(t)
	} else {
		f = from.copied(t)
	}
	var armed atomic.Bool
	var count atomic.Int64
	hook := func(s statement) error {
		if !armed.Load() || count.Add(1)-1 != int64(n) {
			return nil
		}
		armed.Store(false)
		return fmt.Errorf("statement %d: %w", s, errInjected)
	}
	f.opt.wrap = func(w writer) writer {
		if lost {
			return &faulty{writer: w, after: hook}
		}
		return &faulty{writer: w, before: hook}
	}
	s := &subject{t: t, fixture: f, Store: f.open()}
	if from == nil {
		st.prepare(s)
	}
	before := recorded(t, s.Store, st.kind)
	check := func(err error) {
		t.Helper()
		at := fmt.Sprintf("%s, write %d", st.name, n)
		done := recorded(t, s.Store, st.kind) - before
		if done < 0 || done > 1 || err == nil && done != 1 {
			t.Errorf("%s: recorded %d times, told %v", at, done, err)
		}
		if err != nil {
			_, refused := counterfoil.AsRefusal(err)
			if c := counterfoil.CodeOf(err); refused || c != counterfoil.LedgerUnavailable && c != counterfoil.StoreUnavailable {
				t.Errorf("%s: the fault is told as %v", at, err)
			}
		}
		if holds := st.holds(s); holds != (done == 1) {
			t.Errorf("%s: recorded %d times, in force: %v (told: %v)", at, done, holds, err)
		}
	}
	armed.Store(true)
	err := st.do(s)
	if armed.Swap(false) {
		return false
	}
	check(err)
	told := s.stepsAfter(-1).Snapshot
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.opt.wrap = nil
	s.Store = f.open()
	check(err)
	// What was told of what is revoked is what the tables say.
	if after := s.stepsAfter(-1).Snapshot; !maps.Equal(told.Agents, after.Agents) || !slices.Equal(told.Dead, after.Dead) {
		t.Errorf("%s, write %d: told %+v, the tables say %+v", st.name, n, told, after)
	}
	landed := recorded(t, s.Store, st.kind) > before
	if again := st.do(s); !st.repeats && landed == (again == nil) {
		t.Errorf("%s, write %d: landed %v, and then again: %v", st.name, n, landed, again)
	}
	s.checkLedger()
	return true
}
