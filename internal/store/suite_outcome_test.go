package store

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// keyed decides a call with an Idempotency-Key and returns its entry.
func (s *subject) keyed(task, key, digest string) (*ledger.Entry, error) {
	e := decided("payroll")
	e.Task = task
	return e, s.DecideUsing(s.t.Context(), counterfoil.CallUse{Task: task, Class: "read", Agent: "payroll", Key: key, Digest: digest}, e, []byte(`{}`))
}

func suiteOutcomes(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.task("tsk_1", "payroll", "ins_1", func(t *counterfoil.Task) { t.MaxCalls = 2 })
	use := counterfoil.CallUse{Task: "tsk_1", Class: "read", Agent: "payroll", Key: "k", Digest: "d"}
	first, err := s.keyed("tsk_1", "k", "d")
	s.wantDone(err)
	earlier := func(task, key, digest string, want counterfoil.Earlier) {
		t.Helper()
		size := s.size()
		var got *counterfoil.Earlier
		if _, err := s.keyed(task, key, digest); !errors.As(err, &got) || !reflect.DeepEqual(*got, want) || s.size() != size {
			t.Errorf("the call before is %+v (%v), want %+v", got, err, want)
		}
	}
	earlier("tsk_1", "k", "d", counterfoil.Earlier{Entry: first.Index})
	s.wantRefused(counterfoil.IdempotencyMismatch, func() error { _, err := s.keyed("tsk_1", "k", "other"); return err })
	s.wantDone(s.FinishUsing(ctx, use, []byte(`{"ok":true}`), finished(first)))
	for range 2 {
		earlier("tsk_1", "k", "d", counterfoil.Earlier{Entry: first.Index, Done: true, Result: []byte(`{"ok":true}`)})
		s.reopen()
	}
	if err := s.FinishUsing(ctx, use, nil, finished(first)); err == nil {
		t.Error("it ended twice")
	}
	if got := s.taskOf("tsk_1"); got.Calls != 1 {
		t.Errorf("%d calls are counted", got.Calls)
	}
	// A key is the agent's in its task.
	second, err := s.keyed("", "k", "other")
	s.wantDone(err)
	// Of what nobody knows nothing is kept, and it is not done again.
	unknown := finished(second)
	unknown.Outcome = ledger.OutcomeUnknown
	s.wantDone(s.FinishUsing(ctx, counterfoil.CallUse{Agent: "payroll", Key: "k", Digest: "other"}, []byte(`{}`), unknown))
	earlier("", "k", "other", counterfoil.Earlier{Entry: second.Index})
	// A call that is refused uses up no key.
	s.wantDone(s.use1("tsk_1", "read", nil))
	s.wantRefused(counterfoil.LimitExceeded, func() error { _, err := s.keyed("tsk_1", "k3", "d"); return err })
	third, err := s.keyed("", "k3", "d")
	s.wantDone(err)
	// What is too large is not kept, but that it ended is.
	s.wantDone(s.FinishUsing(ctx, counterfoil.CallUse{Agent: "payroll", Key: "k3", Digest: "d"}, make([]byte, maxOutcome+1), finished(third)))
	earlier("", "k3", "d", counterfoil.Earlier{Entry: third.Index, Done: true})
	if _, err := s.keyed("", "k", ""); err == nil {
		t.Error("a key without a call was used")
	}
	// One that stops with a call under way does not know of it either.
	fourth, err := s.keyed("", "k4", "d")
	s.wantDone(err)
	s.reopen()
	earlier("", "k4", "d", counterfoil.Earlier{Entry: fourth.Index})
	// A key is one call's, whether it needs a person or not.
	s.ask(s.approval("payroll", "one", func(a *counterfoil.Approval) { a.Key = "k5" }))
	s.wantRefused(counterfoil.IdempotencyMismatch, func() error { _, err := s.keyed("", "k5", "d"); return err })
	request := func(change func(*counterfoil.Approval)) func() error {
		return func() error { _, _, err := s.request(s.approval("payroll", "two", change)); return err }
	}
	s.wantRefused(counterfoil.IdempotencyMismatch, request(func(a *counterfoil.Approval) { a.Key = "k3" }))
	s.wantRefused(counterfoil.ApprovalSpent, request(func(a *counterfoil.Approval) { a.Key, a.CallDigest = "k3", "d" }))
	// After a day it is forgotten.
	s.fixture.clock.Advance(outcomeKept)
	s.wantRefused(counterfoil.IdempotencyMismatch, func() error { _, err := s.keyed("", "k5", "d"); return err })
	fresh, err := s.keyed("", "k", "new")
	s.wantDone(err)
	if fresh.Index <= fourth.Index {
		t.Error("it was not made")
	}
	earlier("", "k", "new", counterfoil.Earlier{Entry: fresh.Index})
}

// Of any number of calls with one key, one is made.
func suiteOutcomeRaces(t *testing.T, s *subject) {
	s.crew()
	for round := range 10 {
		var made, before atomic.Int64
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				var e *counterfoil.Earlier
				_, err := s.keyed("", fmt.Sprint("k", round), "d")
				switch {
				case err == nil:
					made.Add(1)
				case errors.As(err, &e):
					before.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if made.Load() != 1 || before.Load() != 63 {
			t.Errorf("%d were made, %d were told of it", made.Load(), before.Load())
		}
	}
}
