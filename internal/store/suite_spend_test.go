package store

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// spending spends an approval as its agent's instance, live, would.
func (s *subject) spending(a counterfoil.Approval) counterfoil.Spending {
	_, revision := s.Registry()
	return counterfoil.Spending{Approval: a.ID, CallDigest: a.CallDigest, Signatures: len(a.Signatures), Use: counterfoil.CallUse{Task: a.Caller.Task, Class: a.Class}, Revision: revision,
		Live: s.live(a.Caller.Agent, a.Caller.Instance), Signers: []string{"bo", "cy"}}
}

func spentEntry(a counterfoil.Approval) *ledger.Entry {
	e := decided(a.Caller.Agent)
	e.Approval = ledger.Approval{ID: a.ID, State: string(counterfoil.StateSpent), Signers: []string{"bo", "cy"}}
	return e
}

func (s *subject) spend(a counterfoil.Approval, change ...func(*counterfoil.Spending)) func() error {
	return func() error {
		sp := s.spending(a)
		for _, c := range change {
			c(&sp)
		}
		e := spentEntry(a)
		e.Approval.ID = sp.Approval
		return s.SpendApproval(s.t.Context(), sp, e, []byte(`{}`))
	}
}

func suiteSpend(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.agent("planner")
	s.instance("ins_2", "planner")
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{
		document(t, counterfoil.KindClass, "read", &counterfoil.Class{Name: "read", Payload: counterfoil.PayloadFull})}}))
	s.task("task_1", "payroll", "ins_1")
	a := s.approved(s.approval("payroll", "one", func(a *counterfoil.Approval) { a.Caller.Task = "task_1" }))
	s.wantRefused(counterfoil.ApprovalMismatch, s.spend(a, func(sp *counterfoil.Spending) { sp.CallDigest = "other" }))
	s.wantRefused(counterfoil.ApprovalMismatch, s.spend(a, func(sp *counterfoil.Spending) { sp.CallDigest = "" }))
	s.wantRefused(counterfoil.ApprovalMismatch, s.spend(a, func(sp *counterfoil.Spending) { sp.Use.Task = "" }))
	s.wantRefused(counterfoil.ApprovalMismatch, s.spend(a, func(sp *counterfoil.Spending) { sp.Live = s.live("planner", "ins_2") }))
	s.wantRefused(counterfoil.ApprovalMismatch, s.spend(a, func(sp *counterfoil.Spending) { sp.Approval = "apr_other" }))
	for _, n := range []int{0, 1, 3} {
		s.wantRefused(counterfoil.ApprovalMismatch, s.spend(a, func(sp *counterfoil.Spending) { sp.Signatures = n }))
	}
	s.wantRefused(counterfoil.TokenRevoked, s.spend(a, func(sp *counterfoil.Spending) { sp.Live.Epoch-- }))
	s.wantRefused(counterfoil.TokenRevoked, s.spend(a, func(sp *counterfoil.Spending) { sp.Live.Instance = "ins_9" }))
	pending := s.ask(s.approval("payroll", "two"))
	s.wantRefused(counterfoil.ApprovalPending, s.spend(pending))
	change := s.ask(s.approval("", "change", func(a *counterfoil.Approval) { a.Kind, a.Caller = counterfoil.ApprovalOfChange, counterfoil.Caller{} }))
	s.wantDone(s.sign(s.signing(change.ID, "bo", 0, counterfoil.StatePending)))
	s.wantDone(s.sign(s.signing(change.ID, "cy", 1, counterfoil.StateApproved)))
	s.wantRefused(counterfoil.ApprovalMismatch, s.spend(s.kept(change.ID)))
	s.reopen()
	e := spentEntry(a)
	s.wantDone(s.SpendApproval(ctx, s.spending(a), e, []byte(`{"amount":"100"}`)))
	if got := s.kept(a.ID); got.State != counterfoil.StateSpent || got.Decided != e.Index || e.Index == 0 || !got.Closed.Equal(s.fixture.clock.Now()) {
		t.Errorf("spent by entry %d: %+v", e.Index, got)
	}
	if salt, kept, err := s.Payload(ctx, e.Index); err != nil || string(kept) != `{"amount":"100"}` || ledger.Commitment(salt, kept) != e.PayloadCommitment {
		t.Errorf("the payload is %q, %v", kept, err)
	}
	if open, err := s.Unfinished(ctx); err != nil || !slices.Equal(open, []int64{e.Index}) {
		t.Errorf("open calls: %v, %v", open, err)
	}
	s.wantRefused(counterfoil.ApprovalSpent, s.spend(a))
	for name, do := range map[string]func() error{
		"no end": func() error { return s.FinishApproval(ctx, a.ID, counterfoil.StateCancelled, nil, finished(e)) },
		"no call": func() error {
			return s.FinishApproval(ctx, a.ID, counterfoil.StateFailed, nil, finished(pendingCall()))
		},
		"another one":   func() error { return s.FinishApproval(ctx, pending.ID, counterfoil.StateFailed, nil, finished(e)) },
		"no approval":   func() error { return s.FinishApproval(ctx, "", counterfoil.StateFailed, nil, finished(e)) },
		"another entry": func() error { return s.FinishApproval(ctx, a.ID, counterfoil.StateFailed, nil, spentEntry(a)) },
	} {
		size := s.size()
		if do() == nil || s.size() != size {
			t.Errorf("%s: it ended", name)
		}
	}
	s.wantState(a.ID, counterfoil.StateSpent)
	s.wantDone(s.FinishApproval(ctx, a.ID, counterfoil.StateSucceeded, []byte(`{"ok":true}`), finished(e)))
	if err := s.FinishApproval(ctx, a.ID, counterfoil.StateFailed, nil, finished(e)); err == nil {
		t.Error("it ended twice")
	}
	for range 2 {
		if got := s.kept(a.ID); got.State != counterfoil.StateSucceeded || string(got.Result) != `{"ok":true}` {
			t.Errorf("ended: %+v", got)
		}
		s.reopen()
	}
	s.wantRefused(counterfoil.ApprovalSpent, s.spend(a))

	// Nobody needs to have swept what is past its time to be used.
	late := s.approved(s.approval("payroll", "late"))
	s.fixture.clock.Advance(5 * time.Minute)
	s.wantRefused(counterfoil.ApprovalExpired, s.spend(late))
	s.wantState(late.ID, counterfoil.StateApproved)
	if err := s.SpendApproval(ctx, s.spending(late), decided("payroll"), nil); err == nil {
		t.Error("an approval was spent with an entry that does not name it")
	}
	refused := spentEntry(late)
	refused.Decision = ledger.Refuse
	if err := s.SpendApproval(ctx, s.spending(late), refused, nil); err == nil {
		t.Error("an approval was spent for a refused call")
	}
}

func pendingCall() *ledger.Entry { e := decided("payroll"); e.Index = 1; return e }

// What the last run let go and did not end is known to nobody: it is neither open
// nor ended, and not spent again.
func suiteIndeterminate(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	a, done := s.approved(s.approval("payroll", "one")), s.approved(s.approval("payroll", "two"))
	e, other := spentEntry(a), spentEntry(done)
	s.wantDone(s.SpendApproval(ctx, s.spending(a), e, nil))
	s.wantDone(s.SpendApproval(ctx, s.spending(done), other, nil))
	s.wantDone(s.FinishApproval(ctx, done.ID, counterfoil.StateFailed, nil, finished(other)))
	plain := decided("payroll")
	s.wantDone(s.Decide(ctx, plain, nil))
	for range 2 {
		s.reopen()
		s.wantState(a.ID, counterfoil.StateIndeterminate)
		s.wantState(done.ID, counterfoil.StateFailed)
		ends, err := s.Find(ctx, ledger.Filter{Kind: ledger.CallFinished})
		s.wantDone(err)
		if len(ends) != 3 || ends[1].Of != e.Index || ends[1].Outcome != ledger.OutcomeUnknown ||
			ends[1].Approval.ID != a.ID || ends[1].Approval.State != string(counterfoil.StateIndeterminate) {
			t.Fatalf("the ends are %+v", ends)
		}
		if ends[0].Of != plain.Index || ends[0].Approval.ID != "" {
			t.Errorf("the end of a call without an approval is %+v", ends[0])
		}
	}
	s.wantRefused(counterfoil.ApprovalSpent, s.spend(a))
}

func suiteLimits(t *testing.T, s *subject) {
	s.office()
	taking := func(amount int64, change ...func(*counterfoil.Taking)) func(*counterfoil.Spending) {
		t := counterfoil.Taking{Class: "payout", Field: "amount", Agent: "payroll", Window: time.Hour, Amount: amount, Max: 1000}
		for _, c := range change {
			c(&t)
		}
		return func(sp *counterfoil.Spending) { sp.Takings = append(sp.Takings, t) }
	}
	n := 0
	fresh := func() counterfoil.Approval {
		n++
		return s.approved(s.approval("payroll", fmt.Sprint(n)))
	}
	a := fresh()
	s.wantRefused(counterfoil.LimitExceeded, s.spend(a, taking(1001)))
	s.wantState(a.ID, counterfoil.StateApproved)
	s.wantDone(s.spend(a, taking(600))())
	b := fresh()
	s.wantRefused(counterfoil.LimitExceeded, s.spend(b, taking(401)))
	s.wantRefused(counterfoil.LimitExceeded, s.spend(b, taking(math.MaxInt64)))
	s.reopen()
	s.wantRefused(counterfoil.LimitExceeded, s.spend(b, taking(401)))
	// Each class, each field and each agent has sums of its own.
	for _, other := range []func(*counterfoil.Taking){
		func(t *counterfoil.Taking) { t.Class = "refund" },
		func(t *counterfoil.Taking) { t.Field = "fee" },
		func(t *counterfoil.Taking) { t.Agent = "planner" },
	} {
		s.wantDone(s.spend(fresh(), taking(1000, other))())
	}
	// Two limits that look at one field have one taking of it, and each is asked.
	long := func(max int64) func(*counterfoil.Taking) {
		return func(t *counterfoil.Taking) { t.Window, t.Max = 24*time.Hour, max }
	}
	s.wantRefused(counterfoil.LimitExceeded, s.spend(b, taking(200), taking(200, long(799))))
	s.wantDone(s.spend(b, taking(200), taking(200, long(800)))())
	c := fresh()
	s.wantRefused(counterfoil.LimitExceeded, s.spend(c, taking(201)))
	// The window rolls.
	s.fixture.clock.Advance(time.Hour - time.Millisecond)
	d := fresh()
	s.wantRefused(counterfoil.LimitExceeded, s.spend(d, taking(1000)))
	s.fixture.clock.Advance(time.Millisecond)
	s.wantRefused(counterfoil.LimitExceeded, s.spend(d, taking(1000, long(1799))))
	s.wantDone(s.spend(d, taking(1000, long(math.MaxInt64)), taking(1000))())
	// Sums beyond what an int64 holds are no smaller for that.
	huge := func(amount int64) func(*counterfoil.Spending) {
		return taking(amount, func(t *counterfoil.Taking) { t.Field, t.Max = "huge", math.MaxInt64 })
	}
	s.wantDone(s.spend(fresh(), huge(math.MaxInt64-1))())
	e := fresh()
	s.wantRefused(counterfoil.LimitExceeded, s.spend(e, huge(2)))
	s.wantDone(s.spend(e, huge(1))())
	s.wantRefused(counterfoil.LimitExceeded, s.spend(fresh(), huge(1)))
	s.wantDone(s.spend(fresh(), huge(0))())
	f := fresh()
	s.wantRefused(counterfoil.LimitExceeded, s.spend(f, taking(0, func(t *counterfoil.Taking) { t.Max = -1 })))
	for name, bad := range map[string]func(*counterfoil.Taking){
		"a negative amount": func(t *counterfoil.Taking) { t.Field, t.Amount = "roomy", -1 },
		"no window":         func(t *counterfoil.Taking) { t.Field, t.Window = "roomy", 0 },
		"no field":          func(t *counterfoil.Taking) { t.Field = "" },
	} {
		if s.spend(f, taking(1, bad))() == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	roomy := func(t *counterfoil.Taking) { t.Field = "roomy" }
	if s.spend(f, taking(1, roomy), taking(2, roomy))() == nil {
		t.Error("two amounts of one field were taken")
	}
	s.wantDone(s.spend(f, taking(1, roomy), taking(1, roomy))())
}

func TestFits(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		high, low, amount, limit int64
		want                     bool
	}{
		{0, 0, 0, 0, true}, {0, 0, 1, 0, false}, {0, 5, 5, 10, true}, {0, 5, 6, 10, false}, {0, 11, 0, 10, false},
		{1, 0, 0, 1 << 32, true}, {1, 1, 0, 1 << 32, false}, {1, 0, 0, 1<<32 - 1, false},
		{math.MaxInt64 >> 32, 1<<32 - 1, 0, math.MaxInt64, true}, {math.MaxInt64 >> 32, 1<<32 - 1, 1, math.MaxInt64, false},
		{math.MaxInt64 >> 32, 1 << 33, 0, math.MaxInt64, false}, {math.MaxInt64, 0, 0, math.MaxInt64, false},
		{0, 0, math.MaxInt64, math.MaxInt64, true}, {0, 1, math.MaxInt64, math.MaxInt64, false}, {0, 0, 0, -1, false},
	} {
		if got := fits(row.high, row.low, row.amount, row.limit); got != row.want {
			t.Errorf("%+v: %v", row, got)
		}
	}
}

// atOnce runs many at once and returns how many succeeded; whoever does not has one
// of the codes, or is overtaken.
func (s *subject) atOnce(n int, codes []counterfoil.Code, do func(i int) error) int {
	s.t.Helper()
	var wins int
	var mu sync.Mutex
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-gate
			err := do(i)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				wins++
			case errors.Is(err, counterfoil.ErrOvertaken):
			case !slices.Contains(codes, counterfoil.CodeOf(err)):
				s.t.Error(err)
			}
		})
	}
	close(gate)
	wg.Wait()
	return wins
}

// Of a hundred who try at once to do what may be done once, one does.
func suiteApprovalRaces(t *testing.T, s *subject) {
	const many = 100
	ctx := t.Context()
	s.office()
	want := func(name string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	a := s.approved(s.approval("payroll", "spend"))
	want("spent", s.atOnce(many, []counterfoil.Code{counterfoil.ApprovalSpent}, func(int) error { return s.spend(a)() }), 1)
	want("call.decided", recorded(t, s.Store, ledger.CallDecided), 1)
	e := spentEntry(a)
	e.Index = s.kept(a.ID).Decided
	want("ended", s.atOnce(many, []counterfoil.Code{counterfoil.Internal}, func(int) error {
		return s.FinishApproval(ctx, a.ID, counterfoil.StateSucceeded, nil, finished(e))
	}), 1)

	before, attached := recorded(t, s.Store, ledger.ApprovalRequested), make([]bool, many)
	ids := make([]string, many)
	want("requested", s.atOnce(many, nil, func(i int) error {
		kept, also, err := s.request(s.approval("payroll", "request"))
		ids[i], attached[i] = kept.ID, also
		return err
	}), many)
	want("requests recorded", recorded(t, s.Store, ledger.ApprovalRequested)-before, 1)
	want("not attached", len(slices.DeleteFunc(attached, func(a bool) bool { return a })), 1)
	slices.Sort(ids)
	want("approvals", len(slices.Compact(ids)), 1)
	want("within the cap", s.atOnce(many, []counterfoil.Code{counterfoil.TooManyPending}, func(i int) error {
		_, _, err := s.RequestApproval(ctx, s.approval("payroll", fmt.Sprint("cap", i)), 6, entry(ledger.ApprovalRequested, "payroll"))
		return err
	}), 5)

	b := s.ask(s.approval("payroll", "sign"))
	want("signed by one person", s.atOnce(many, []counterfoil.Code{counterfoil.ApproverNotDistinct}, func(int) error {
		return s.sign(s.signing(b.ID, "bo", 0, counterfoil.StatePending))
	}), 1)
	want("signed over one signature", s.atOnce(many, []counterfoil.Code{counterfoil.ApproverNotDistinct, counterfoil.ApprovalPending}, func(i int) error {
		return s.sign(s.signing(b.ID, []string{"cy", "di"}[i%2], 1, counterfoil.StateApproved))
	}), 1)
	want("signatures", len(s.kept(b.ID).Signatures), 2)
	want("closed or spent", s.atOnce(many, []counterfoil.Code{counterfoil.ApprovalSpent, counterfoil.ApprovalCancelled}, func(i int) error {
		if i%2 == 0 {
			return s.spend(s.kept(b.ID))()
		}
		return s.CloseApproval(ctx, b.ID, []counterfoil.ApprovalState{counterfoil.StateApproved}, counterfoil.StateCancelled, "", entry(ledger.ApprovalClosed, ""))
	}), 1)

	code := personCode("di", counterfoil.PasskeyAdded)
	s.wantDone(s.PutPersonCode(ctx, code, entry(ledger.EnrolmentCodeIssued, "")))
	want("enrolled with one code", s.atOnce(many, []counterfoil.Code{counterfoil.EnrolmentRefused}, func(i int) error {
		return s.EnrolPasskey(ctx, code.Hash, passkeyOfTest("di", fmt.Sprint("di", i), counterfoil.PasskeyAdded), entry(ledger.PersonEnrolled, ""))
	}), 1)
	want("used with one count", s.atOnce(many, []counterfoil.Code{counterfoil.PasskeyRefused}, func(int) error {
		return s.UsePasskey(ctx, []byte("di"), 9, false, entry(ledger.SessionOpened, ""))
	}), 1)

	var payable []counterfoil.Approval
	for i := range many {
		payable = append(payable, s.approved(s.approval("payroll", fmt.Sprint("pay", i))))
	}
	want("within the limit", s.atOnce(many, []counterfoil.Code{counterfoil.LimitExceeded}, func(i int) error {
		return s.spend(payable[i], func(sp *counterfoil.Spending) {
			sp.Takings = []counterfoil.Taking{{Class: "payout", Field: "amount", Agent: "payroll", Window: time.Hour, Amount: 30, Max: 1000}}
		})()
	}), 33)
}
