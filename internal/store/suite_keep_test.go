package store

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// suiteRevision: an approval is spent under the registry that it was verified under, and
// under no other, however little of it changed.
func suiteRevision(t *testing.T, s *subject) {
	s.office()
	a := s.approved(s.approval("payroll", "one"))
	before := s.spending(a)
	s.people("gus")
	size := s.size()
	for name, do := range map[string]func() error{
		"another revision": s.spend(a, func(sp *counterfoil.Spending) { sp.Revision = before.Revision }),
		"a later one":      s.spend(a, func(sp *counterfoil.Spending) { sp.Revision += "0" }),
	} {
		if err := do(); !errors.Is(err, counterfoil.ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.spend(a, func(sp *counterfoil.Spending) { sp.Revision = "" })(); err == nil {
		t.Error("an approval was spent that was verified under nothing")
	}
	s.wantState(a.ID, counterfoil.StateApproved)
	if s.size() != size {
		t.Errorf("%d entries were recorded", s.size()-size)
	}
	s.reopen()
	s.wantDone(s.spend(a)())

	// An agent that ends changes what is declared too.
	s.agent("planner")
	b := s.approved(s.approval("payroll", "two"))
	before = s.spending(b)
	_, err := s.Offboard(t.Context(), "planner", entry(ledger.AgentOffboarded, "planner"))
	s.wantDone(err)
	if err := s.spend(b, func(sp *counterfoil.Spending) { sp.Revision = before.Revision })(); !errors.Is(err, counterfoil.ErrChanged) {
		t.Errorf("after an agent ended: %v", err)
	}
	s.wantDone(s.spend(b)())
}

// suiteBrief: a list holds of calls nothing that an agent may make large.
func suiteBrief(t *testing.T, s *subject) {
	s.office()
	a := s.approved(s.approval("payroll", "one"))
	change := s.ask(s.approval("", "two", func(a *counterfoil.Approval) { a.Kind, a.Caller = counterfoil.ApprovalOfChange, counterfoil.Caller{} }))
	e := spentEntry(a)
	s.wantDone(s.SpendApproval(t.Context(), s.spending(a), e, nil))
	s.wantDone(s.FinishApproval(t.Context(), a.ID, counterfoil.StateSucceeded, []byte(`{"ok":true}`), finished(e)))
	list, err := s.Approvals(t.Context(), counterfoil.ApprovalFilter{Brief: true})
	s.wantDone(err)
	whole := s.kept(a.ID)
	if whole.Fields == nil || whole.Call == nil || whole.Result == nil {
		t.Fatalf("this test does not show what a list leaves out: %+v", whole)
	}
	whole.Fields, whole.Call, whole.Result = nil, nil, nil
	if len(list) != 2 || !reflect.DeepEqual(list[1], whole) || !reflect.DeepEqual(list[0], s.kept(change.ID)) {
		t.Errorf("the list is %+v", list)
	}
}

// suiteLeftBehind: whoever asks and takes back in turns leaves only so much behind, until
// it is erased. What people decided on does not count.
func suiteLeftBehind(t *testing.T, s *subject) {
	const most = 2
	s.office()
	s.agent("other")
	s.instance("ins_other", "other")
	ask := func(digest string) (counterfoil.Approval, error) {
		a, _, err := s.RequestApproval(t.Context(), s.approval("payroll", digest), most, entry(ledger.ApprovalRequested, "payroll"))
		return a, err
	}
	closed := func(a counterfoil.Approval, to counterfoil.ApprovalState) {
		t.Helper()
		s.wantDone(s.CloseApproval(t.Context(), a.ID, []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}, to, "", entry(ledger.ApprovalClosed, "payroll")))
	}
	for i := range keptPerPending * most {
		d, err := ask(fmt.Sprint("decided", i))
		s.wantDone(err)
		s.wantDone(s.sign(s.signing(d.ID, "bo", 0, counterfoil.StateDenied)))
	}
	var ids []string
	for i := range keptPerPending * most {
		a, err := ask(fmt.Sprint("taken", i))
		s.wantDone(err)
		ids = append(ids, a.ID)
		switch i % 3 {
		case 0:
			closed(a, counterfoil.StateCancelled)
		case 1: // it runs out, and nobody has written that down yet
			s.fixture.clock.Advance(15 * time.Minute)
		default:
			s.fixture.clock.Advance(15 * time.Minute)
			closed(a, counterfoil.StateExpired)
		}
	}
	refused := func() error { _, err := ask("one more"); return err }
	s.wantRefused(counterfoil.TooManyPending, refused)
	s.ask(s.approval("other", "of another agent", func(a *counterfoil.Approval) { a.Caller.Instance = "ins_other" }))
	s.reopen()
	s.wantRefused(counterfoil.TooManyPending, refused)
	s.wantDone(s.EraseApprovals(t.Context(), ids[:1], entry(ledger.ApprovalErased, "")))
	s.wantDone(refused())
}

// TestLargeApprovalsShareNoCommit: what approvals hold counts in a commit as payloads do.
func TestLargeApprovalsShareNoCommit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	hold := make(chan struct{}, 1)
	commits := 0
	f.opt.wrap = func(w writer) writer {
		return &faulty{writer: w, before: func(st statement) error {
			if st != commit {
				return nil
			}
			select {
			case <-hold:
				entered <- struct{}{}
				<-gate
			default:
			}
			commits++
			return nil
		}}
	}
	s := &subject{t: t, fixture: f, Store: f.open()}
	s.office()
	hold <- struct{}{}
	first := make(chan error, 1)
	go func() { first <- s.Append(t.Context(), entry(ledger.SessionOpened, "")) }()
	<-entered
	commits = 0
	// Six of them wait while the one before is committed.
	const many = 6
	done := make(chan error, many)
	for i := range many {
		go func() {
			a := s.approval("payroll", fmt.Sprint("large", i), func(a *counterfoil.Approval) {
				if i%2 == 0 {
					a.Call = []byte(`"` + strings.Repeat("a", maxBatchBytes/2) + `"`)
				} else {
					a.Fields = map[string]string{"amount": strings.Repeat("a", maxBatchBytes/2)}
				}
			})
			_, _, err := s.RequestApproval(t.Context(), a, many, entry(ledger.ApprovalRequested, "payroll"))
			done <- err
		}()
	}
	for queued := 0; queued < many; runtime.Gosched() {
		s.seq.mu.Lock()
		queued = len(s.seq.queue)
		s.seq.mu.Unlock()
	}
	close(gate)
	s.wantDone(<-first)
	for range many {
		s.wantDone(<-done)
	}
	s.wantDone(s.Close())
	// The one before and that of Close are among them.
	if commits -= 2; commits < many/2 {
		t.Errorf("%d approvals of half of what a commit holds were committed in %d", many, commits)
	}
}

// TestApprovalsAreFoundByIndex: nothing that is asked for every few seconds, or by each
// call, reads all that ever was.
func TestApprovalsAreFoundByIndex(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := &subject{t: t, fixture: f, Store: f.open()}
	task := ""
	erasable, _ := approvalFilter(counterfoil.ApprovalFilter{Erasable: true, Brief: true, Limit: 10_000})
	open, _ := approvalFilter(counterfoil.ApprovalFilter{States: []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}, Brief: true, Limit: 10_000})
	equal, _ := approvalFilter(counterfoil.ApprovalFilter{Kind: counterfoil.ApprovalOfCall, Agent: "a", Task: &task, CallDigest: "d", Brief: true, Limit: 1000})
	for name, text := range map[string]string{
		"pending": sqliteTexts[countPending], "erasable": erasable, "open": open, "equal calls": equal, "one": sqliteTexts[readApproval],
	} {
		var plan []string
		rows, err := s.reads.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+text, slices.Repeat([]any{"x"}, strings.Count(text, "?")-strings.Count(text, "?2")/2)...)
		s.wantDone(err)
		for rows.Next() {
			var id, parent, zero int
			var detail string
			s.wantDone(rows.Scan(&id, &parent, &zero, &detail))
			plan = append(plan, detail)
		}
		s.wantDone(rows.Err())
		if got := strings.Join(plan, "\n"); strings.Contains(strings.ReplaceAll(got, "SCAN approvals USING COVERING INDEX approvals_kept", ""), "SCAN approvals") {
			t.Errorf("%s: %s", name, got)
		}
	}
}
