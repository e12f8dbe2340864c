package store

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// aTask is of an agent that opens it itself.
func (s *subject) aTask(id, agent, instance string) counterfoil.Task {
	now := s.fixture.clock.Now()
	return counterfoil.Task{ID: id, Agent: agent, Opener: agent, Instance: instance, Purpose: "pay", Opened: now, Deadline: now.Add(time.Hour), State: counterfoil.TaskOpen}
}

func (s *subject) openTask(t counterfoil.Task, live ...counterfoil.Live) error {
	e := entry(ledger.TaskOpened, t.Agent)
	e.Task = t.ID
	l := counterfoil.Live{Agent: t.Opener, Instance: t.Instance, Epoch: s.AgentState(t.Opener).Epoch}
	if len(live) > 0 {
		l = live[0]
	}
	return s.OpenTask(s.t.Context(), t, l, e)
}

// task opens a task of an agent.
func (s *subject) task(id, agent, instance string, change ...func(*counterfoil.Task)) {
	s.t.Helper()
	t := s.aTask(id, agent, instance)
	for _, c := range change {
		c(&t)
	}
	s.wantDone(s.openTask(t))
}

// below makes a task one that another opened under a parent.
func below(parent string) func(*counterfoil.Task) {
	return func(t *counterfoil.Task) { t.Parent = parent }
}

func (s *subject) closeTask(id string, to counterfoil.TaskState) (counterfoil.Voided, error) {
	e := entry(ledger.TaskClosed, "")
	e.Task = id
	return s.CloseTask(s.t.Context(), id, to, "done", e)
}

func (s *subject) taskOf(id string) counterfoil.Task {
	s.t.Helper()
	t, ok, err := s.Task(s.t.Context(), id)
	if err != nil || !ok {
		s.t.Fatalf("task %q: %v, %v", id, ok, err)
	}
	return t
}

// before7 takes a database back to before there were tasks.
func (f *fixture) before7() {
	f.edit(`DROP TABLE tasks`, `DROP TABLE task_limits`, `DROP TABLE dead`, `DROP TABLE standing`, `DROP TABLE outcomes`, `DROP TABLE streams`, `DROP TABLE signals`, `DROP TABLE credentials`,
		`ALTER TABLE assertions RENAME TO newer`, `DROP INDEX assertions_until`, `DROP INDEX assertions_task`,
		`CREATE TABLE assertions (id BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID`,
		`CREATE INDEX assertions_until ON assertions (until)`, `INSERT INTO assertions SELECT id, until FROM newer`, `DROP TABLE newer`, `DROP INDEX codes_agent`,
		`ALTER TABLE instances DROP COLUMN old_jkt`, `ALTER TABLE instances DROP COLUMN old_jwk`, `ALTER TABLE instances DROP COLUMN old_alg`,
		`ALTER TABLE instances DROP COLUMN old_until`, `ALTER TABLE keys DROP COLUMN until`)
}

// An assertion that was used before the database was taken further is still used.
func TestAssertionsOfAnOlderDatabase(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := &subject{t: t, fixture: f, Store: f.open()}
	s.agent("payroll")
	s.instance("ins_1", "payroll")
	issue := func(id string) func() error {
		return func() error {
			return s.Issue(t.Context(), s.issuance("payroll", "ins_1", id), entry(ledger.TokenIssued, "payroll"), nil)
		}
	}
	s.wantDone(issue("1")())
	s.wantDone(s.Close())
	f.before7()
	f.edit(`PRAGMA user_version = 6`)
	s.Store = f.open()
	s.wantRefused(counterfoil.AssertionReplayed, issue("1"))
	if used, err := s.AssertionUsed(t.Context(), s.use("payroll", "1")); err != nil || !used {
		t.Errorf("it is used: %v, %v", used, err)
	}
	s.wantDone(issue("2")())
}

// crew is two agents, each with an instance and a way to be somebody.
func (s *subject) crew() {
	s.t.Helper()
	s.agent("payroll")
	s.agent("planner")
	s.instance("ins_1", "payroll")
	s.instance("ins_2", "planner")
}

func suiteTasks(t *testing.T, s *subject) {
	ctx := t.Context()
	s.crew()
	pay, get := counterfoil.ToolID{Resource: "bank", Tool: "pay"}, counterfoil.ToolID{Resource: "bank", Tool: "get"}
	want := s.aTask("tsk_1", "payroll", "ins_1")
	want.Tools, want.MaxCalls, want.Parent = []counterfoil.ToolID{pay, get}, 7, ""
	want.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: 50}, {Class: "read", Max: 20000}}
	s.wantDone(s.openTask(want))
	for range 2 {
		got := s.taskOf("tsk_1")
		live, ok := s.LiveTask("tsk_1")
		if !reflect.DeepEqual(got, want) || !ok || !reflect.DeepEqual(live, want) {
			t.Errorf("kept is\n%+v, in memory\n%+v, opened\n%+v", got, live, want)
		}
		s.reopen()
	}
	if _, ok, err := s.Task(ctx, "tsk_9"); ok || err != nil {
		t.Errorf("a task that nobody has: %v, %v", ok, err)
	}
	// An orchestrator opens one for another, below its own.
	s.fixture.clock.Advance(time.Second)
	s.task("tsk_2", "planner", "ins_2")
	s.task("tsk_3", "planner", "ins_2", below("tsk_2"), func(t *counterfoil.Task) { t.Agent, t.Deadline = "payroll", t.Deadline.Add(-time.Minute) })
	refused := map[string]struct {
		code  counterfoil.Code
		spoil func(*counterfoil.Task)
	}{
		"a parent that is not": {counterfoil.TaskClosed, below("tsk_9")},
		"somebody else's parent": {counterfoil.TaskClosed, func(t *counterfoil.Task) {
			t.Parent, t.Agent, t.Opener, t.Instance = "tsk_1", "planner", "planner", "ins_2"
		}},
		"a tool that the parent has not": {counterfoil.OutsideTask, func(t *counterfoil.Task) {
			t.Parent, t.Tools = "tsk_1", []counterfoil.ToolID{{Resource: "bank", Tool: "wire"}}
		}},
		"an agent that is not":   {counterfoil.ClientRefused, func(t *counterfoil.Task) { t.Agent = "nobody" }},
		"an instance of another": {counterfoil.TokenRevoked, func(t *counterfoil.Task) { t.Instance = "ins_2" }},
		"a time that is over":    {counterfoil.TaskClosed, func(t *counterfoil.Task) { t.Opened = t.Opened.Add(-time.Hour); t.Deadline = s.fixture.clock.Now() }},
	}
	for name, r := range refused {
		task := s.aTask("tsk_x", "payroll", "ins_1")
		task.Deadline = task.Deadline.Add(-time.Minute)
		r.spoil(&task)
		before := s.size()
		if err := s.openTask(task); err == nil || counterfoil.CodeOf(err) != r.code || s.size() != before {
			t.Errorf("%s: %v, want %s", name, err, r.code)
		}
	}
	for name, spoil := range map[string]func(*counterfoil.Task){
		"no id":              func(t *counterfoil.Task) { t.ID = "" },
		"no purpose":         func(t *counterfoil.Task) { t.Purpose = "" },
		"no deadline":        func(t *counterfoil.Task) { t.Deadline = time.Time{} },
		"its own parent":     func(t *counterfoil.Task) { t.Parent = t.ID },
		"less than no calls": func(t *counterfoil.Task) { t.MaxCalls = -1 },
		"a limit below zero": func(t *counterfoil.Task) { t.Limits = []counterfoil.TaskLimit{{Class: "read", Max: -1}} },
		"a limit of nothing": func(t *counterfoil.Task) { t.Limits = []counterfoil.TaskLimit{{Max: 1}} },
		"too many limits":    func(t *counterfoil.Task) { t.Limits = make([]counterfoil.TaskLimit, 17) },
		"longer than its parent": func(t *counterfoil.Task) {
			t.Parent, t.Deadline = "tsk_1", t.Deadline.Add(time.Hour)
		},
		"an id that is taken": func(t *counterfoil.Task) { t.ID = "tsk_1" },
	} {
		task := s.aTask("tsk_x", "payroll", "ins_1")
		spoil(&task)
		before := s.size()
		if s.openTask(task) == nil || s.size() != before {
			t.Errorf("%s: it was opened", name)
		}
	}
	for i, depth := 0, []string{"tsk_1", "tsk_d2", "tsk_d3", "tsk_d4"}; i+1 < len(depth); i++ {
		s.task(depth[i+1], "payroll", "ins_1", below(depth[i]), func(t *counterfoil.Task) {
			t.Deadline, t.Tools = t.Deadline.Add(-time.Minute), []counterfoil.ToolID{pay}
		})
	}
	deep := s.aTask("tsk_d5", "payroll", "ins_1")
	deep.Parent, deep.Deadline, deep.Tools = "tsk_d4", deep.Deadline.Add(-time.Minute), []counterfoil.ToolID{pay}
	listless := deep
	listless.Parent, listless.Tools = "tsk_1", nil // which would be everything
	s.wantRefused(counterfoil.OutsideTask, func() error { return s.openTask(listless) })
	s.wantRefused(counterfoil.LimitExceeded, func() error { return s.openTask(deep) })

	filtered := func(f counterfoil.TaskFilter) (ids []string) {
		list, err := s.Tasks(ctx, f)
		s.wantDone(err)
		for _, t := range list {
			ids = append(ids, t.ID)
		}
		return ids
	}
	for _, f := range []struct {
		filter counterfoil.TaskFilter
		want   []string
	}{
		{counterfoil.TaskFilter{Agent: "planner"}, []string{"tsk_2"}},
		{counterfoil.TaskFilter{Opener: "planner"}, []string{"tsk_3", "tsk_2"}},
		{counterfoil.TaskFilter{Parent: "tsk_1"}, []string{"tsk_d2"}},
		{counterfoil.TaskFilter{Agent: "payroll", Limit: 2}, []string{"tsk_d4", "tsk_d3"}},
		{counterfoil.TaskFilter{State: counterfoil.TaskCompleted}, nil},
	} {
		if got := filtered(f.filter); !slices.Equal(got, f.want) {
			t.Errorf("%+v chooses %v, want %v", f.filter, got, f.want)
		}
	}
	if due := s.DueTasks(s.fixture.clock.Now()); len(due) != 0 {
		t.Errorf("due: %v", due)
	}
	if due := s.DueTasks(want.Deadline); len(due) == 0 || due[0] != "tsk_1" {
		t.Errorf("due at its deadline: %v", due)
	}
}

// An agent has so many open tasks and no more, whoever opens them at once.
func suiteManyTasks(t *testing.T, s *subject) {
	s.crew()
	var refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for n := i; n < counterfoil.MaxOpenTasks+30; n += 64 {
				err := s.openTask(s.aTask(fmt.Sprintf("tsk_%d", n), "payroll", "ins_1"))
				if err != nil && counterfoil.CodeOf(err) != counterfoil.LimitExceeded {
					t.Error(err)
				}
				if err != nil {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	open, err := s.Tasks(t.Context(), counterfoil.TaskFilter{Agent: "payroll", State: counterfoil.TaskOpen, Limit: 2000})
	if err != nil || len(open) != counterfoil.MaxOpenTasks || refused.Load() != 30 {
		t.Fatalf("%d are open, %d were refused, %v", len(open), refused.Load(), err)
	}
	if _, err := s.closeTask(open[0].ID, counterfoil.TaskCompleted); err != nil {
		t.Fatal(err)
	}
	s.task("tsk_again", "payroll", "ins_1")
}

// caller is who a token of a task makes.
func (s *subject) caller(agent, instance, task string) counterfoil.Caller {
	i, _ := s.Instance(instance)
	return counterfoil.Caller{Agent: agent, Instance: instance, Epoch: s.AgentState(agent).Epoch, Task: task, JKT: i.JKT, TokenID: "tok_none",
		Audience: "https://issuer/r/bank", Issued: s.fixture.clock.Now()}
}

// token issues a token and returns its caller.
func (s *subject) token(id, agent, instance, task string) counterfoil.Caller {
	s.t.Helper()
	s.wantDone(s.tryToken(id, agent, instance, task))
	c := s.caller(agent, instance, task)
	c.TokenID = id
	return c
}

func (s *subject) tryToken(id, agent, instance, task string) error {
	i := s.issuance(agent, instance, "for "+id)
	i.Token, i.Task, i.Resource, i.Expires = id, task, "bank", s.fixture.clock.Now().Add(15*time.Minute)
	return s.Issue(s.t.Context(), i, entry(ledger.TokenIssued, agent), nil)
}

func (s *subject) revoked(c counterfoil.Caller) func() error {
	return func() error { return s.Revoked(s.t.Context(), c) }
}

// What hangs on a task ends with it, in one entry, and never comes back.
func suiteCloseTask(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.agent("planner")
	s.instance("ins_2", "planner")
	s.task("tsk_1", "payroll", "ins_1")
	s.task("tsk_2", "payroll", "ins_1", below("tsk_1"), func(t *counterfoil.Task) { t.Agent = "planner" })
	s.task("tsk_other", "payroll", "ins_1")
	caller, child, other, none := s.token("tok_1", "payroll", "ins_1", "tsk_1"), s.token("tok_2", "planner", "ins_2", "tsk_2"),
		s.token("tok_3", "payroll", "ins_1", "tsk_other"), s.token("tok_4", "payroll", "ins_1", "")
	held := s.approved(s.approval("payroll", "one", func(a *counterfoil.Approval) { a.Caller.Task = "tsk_1" }))
	pending := s.ask(s.approval("payroll", "two", func(a *counterfoil.Approval) { a.Caller.Task = "tsk_1" }))
	apart := s.ask(s.approval("payroll", "three", func(a *counterfoil.Approval) { a.Caller.Task = "tsk_other" }))
	for _, c := range []counterfoil.Caller{caller, child, other, none} {
		s.wantDone(s.Revoked(ctx, c))
	}
	size := s.size()
	if _, err := s.closeTask("tsk_1", counterfoil.TaskExpired); err == nil || s.size() != size {
		t.Errorf("it expired before its time: %v", err)
	}
	if _, err := s.closeTask("tsk_1", counterfoil.TaskOpen); err == nil || s.size() != size {
		t.Errorf("it was closed as open: %v", err)
	}
	v, err := s.closeTask("tsk_1", counterfoil.TaskCompleted)
	s.wantDone(err)
	if s.size() != size+1 {
		t.Errorf("it took %d entries", s.size()-size)
	}
	wantIDs := []string{held.ID, pending.ID}
	if !slices.Equal(v.Tasks, []string{"tsk_1", "tsk_2"}) || !slices.Equal(v.Tokens, []string{"tok_1", "tok_2"}) || !slices.Equal(v.Approvals, wantIDs) {
		t.Errorf("voided: %+v", v)
	}
	if got := s.detailOf(ledger.TaskClosed, "tokens"); !slices.Equal(got, v.Tokens) {
		t.Errorf("the entry lists %v", got)
	}
	for range 2 {
		s.wantRefused(counterfoil.TaskClosed, s.revoked(caller))
		s.wantRefused(counterfoil.TaskClosed, s.revoked(child))
		s.wantDone(s.Revoked(ctx, other))
		s.wantDone(s.Revoked(ctx, none))
		s.wantState(held.ID, counterfoil.StateRevoked)
		s.wantState(apart.ID, counterfoil.StatePending)
		if got := s.taskOf("tsk_1"); got.State != counterfoil.TaskCompleted || got.Reason != "done" || got.Closed.IsZero() {
			t.Errorf("closed: %+v", got)
		}
		if got := s.taskOf("tsk_2"); got.State != counterfoil.TaskRevoked {
			t.Errorf("below it: %+v", got)
		}
		// Nothing opens it again, and nothing is got for it.
		s.wantRefused(counterfoil.TaskClosed, func() error { return s.tryToken("tok_9", "payroll", "ins_1", "tsk_1") })
		s.wantRefused(counterfoil.TaskClosed, func() error { _, err := s.closeTask("tsk_1", counterfoil.TaskCompleted); return err })
		s.wantRefused(counterfoil.TaskClosed, func() error { return s.use1("tsk_1", "read", nil) })
		s.wantRefused(counterfoil.ApprovalRevoked, s.spend(held))
		s.wantRefused(counterfoil.TaskClosed, func() error {
			_, _, err := s.request(s.approval("payroll", "four", func(a *counterfoil.Approval) { a.Caller.Task = "tsk_1" }))
			return err
		})
		late := s.aTask("tsk_3", "payroll", "ins_1")
		late.Parent = "tsk_1"
		s.wantRefused(counterfoil.TaskClosed, func() error { return s.openTask(late) })
		again := s.aTask("tsk_1", "payroll", "ins_1")
		if s.openTask(again) == nil {
			t.Error("it was opened again")
		}
		s.reopen()
	}
	// Another one's time is over without anybody saying so.
	s.wantDone(s.use1("tsk_other", "read", nil))
	s.fixture.clock.Advance(time.Hour)
	s.wantRefused(counterfoil.TaskClosed, s.revoked(other))
	s.wantRefused(counterfoil.TaskClosed, func() error { return s.use1("tsk_other", "read", nil) })
	s.wantRefused(counterfoil.TaskClosed, func() error { return s.use1("tsk_other", "", nil) })
	s.wantRefused(counterfoil.TaskClosed, func() error { return s.tryToken("tok_9", "payroll", "ins_1", "tsk_other") })
	if due := s.DueTasks(s.fixture.clock.Now()); !slices.Equal(due, []string{"tsk_other"}) {
		t.Errorf("due: %v", due)
	}
	_, err = s.closeTask("tsk_other", counterfoil.TaskExpired)
	s.wantDone(err)
	if due := s.DueTasks(s.fixture.clock.Now()); len(due) != 0 {
		t.Errorf("due: %v", due)
	}
}

// With an orchestrator end the tasks that it opened for others, and nothing else of
// theirs.
func suiteOrchestrators(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.agent("planner")
	s.instance("ins_2", "planner")
	s.task("tsk_1", "planner", "ins_2", func(t *counterfoil.Task) { t.Agent = "payroll" })
	s.task("tsk_2", "payroll", "ins_1", below("tsk_1"))
	s.task("tsk_3", "payroll", "ins_1")
	top, under, own := s.token("tok_1", "payroll", "ins_1", "tsk_1"), s.token("tok_2", "payroll", "ins_1", "tsk_2"), s.token("tok_3", "payroll", "ins_1", "tsk_3")
	ask := s.ask(s.approval("payroll", "one", func(a *counterfoil.Approval) { a.Caller.Task = "tsk_2" }))
	for _, c := range []counterfoil.Caller{top, under, own} {
		s.wantDone(s.Revoked(ctx, c))
	}
	at := s.stepsAfter(-1).Seq
	v, err := s.Suspend(ctx, "planner", entry(ledger.AgentSuspended, "planner"))
	s.wantDone(err)
	if !slices.Equal(v.Tasks, []string{"tsk_1", "tsk_2"}) || !slices.Equal(v.Tokens, []string{"tok_1", "tok_2"}) || !slices.Equal(v.Approvals, []string{ask.ID}) {
		t.Errorf("voided: %+v", v)
	}
	// Who enforces elsewhere is told of the tasks: their agent's mark is what it was.
	if f := s.stepsAfter(at); len(f.Steps) != 1 || !slices.Equal(deadOf(f.Steps[0].Dead), []string{"task tsk_1", "task tsk_2"}) || len(f.Steps[0].Agents) != 1 {
		t.Errorf("told: %+v", f.Steps)
	}
	for range 2 {
		s.wantRefused(counterfoil.TaskClosed, s.revoked(top))
		s.wantRefused(counterfoil.TaskClosed, s.revoked(under))
		s.wantDone(s.Revoked(ctx, own))
		s.reopen()
	}
}

// use1 decides one call of payroll in a task.
func (s *subject) use1(task, class string, amounts map[string]int64) error {
	t, _ := s.LiveTask(task)
	agent := t.Agent
	if agent == "" {
		agent = "payroll"
	}
	e := decided(agent)
	e.Task = task
	if err := s.DecideUsing(s.t.Context(), counterfoil.CallUse{Task: task, Class: class, Amounts: amounts, Agent: agent}, e, []byte(`{}`)); err != nil {
		return err
	}
	return s.Finish(s.t.Context(), finished(e))
}

// A call counts against its task and all above, and what one of them does not leave is
// counted nowhere.
func suiteCounting(t *testing.T, s *subject) {
	s.crew()
	s.task("tsk_1", "payroll", "ins_1", func(t *counterfoil.Task) {
		t.MaxCalls = 5
		t.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: 100_0000}, {Class: "payout", Max: 3 * aCall}}
	})
	s.task("tsk_2", "payroll", "ins_1", below("tsk_1"), func(t *counterfoil.Task) {
		t.Agent, t.MaxCalls = "planner", 100
		t.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: 1000_0000}}
	})
	want := func(calls, amount, payouts, childCalls, childAmount int64) {
		t.Helper()
		a, b := s.taskOf("tsk_1"), s.taskOf("tsk_2")
		if a.Calls != calls || a.Limits[0].Used != amount || a.Limits[1].Used != payouts*aCall || b.Calls != childCalls || b.Limits[0].Used != childAmount {
			t.Errorf("counted: %d, %+v; below: %d, %+v", a.Calls, a.Limits, b.Calls, b.Limits)
		}
	}
	pay := func(n int64) map[string]int64 { return map[string]int64{"amount": n} }
	s.wantDone(s.use1("tsk_1", "read", nil))
	want(1, 0, 0, 0, 0)
	s.wantDone(s.use1("tsk_2", "payout", pay(60_0000)))
	want(2, 60_0000, 1, 1, 60_0000)
	// The child has room for it, the parent has not: neither counts it.
	s.wantRefused(counterfoil.LimitExceeded, func() error { return s.use1("tsk_2", "payout", pay(40_0001)) })
	want(2, 60_0000, 1, 1, 60_0000)
	for name, amounts := range map[string]map[string]int64{"no such field": nil, "a negative amount": pay(-1), "more than there is": pay(1<<63 - 1)} {
		before := s.size()
		if err := s.use1("tsk_2", "payout", amounts); counterfoil.CodeOf(err) != counterfoil.LimitExceeded || s.size() != before {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(2, 60_0000, 1, 1, 60_0000)
	s.wantDone(s.use1("tsk_2", "payout", pay(40_0000)))
	s.wantDone(s.use1("tsk_1", "payout", pay(0)))
	want(4, 100_0000, 3, 2, 100_0000)
	s.wantRefused(counterfoil.LimitExceeded, func() error { return s.use1("tsk_1", "payout", pay(0)) }) // the fourth
	// What has no class is not counted, and what is refused neither.
	s.wantDone(s.use1("tsk_2", "", nil))
	e := decided("planner")
	e.Decision = ledger.Refuse
	s.wantDone(s.DecideUsing(t.Context(), counterfoil.CallUse{Task: "tsk_2", Class: "read", Agent: "planner"}, e, nil))
	want(4, 100_0000, 3, 2, 100_0000)
	s.reopen()
	s.wantDone(s.use1("tsk_2", "read", nil))
	want(5, 100_0000, 3, 3, 100_0000)
	s.wantRefused(counterfoil.LimitExceeded, func() error { return s.use1("tsk_2", "read", nil) })
	s.wantRefused(counterfoil.LimitExceeded, func() error { return s.use1("tsk_1", "read", nil) })
	// Nobody calls in another's task.
	other := decided("payroll")
	s.wantRefused(counterfoil.TaskClosed, func() error {
		return s.DecideUsing(t.Context(), counterfoil.CallUse{Task: "tsk_2", Class: "read", Agent: "payroll"}, other, nil)
	})
	if s.DecideUsing(t.Context(), counterfoil.CallUse{Task: "tsk_2", Class: "read", Agent: "planner"}, other, nil) == nil {
		t.Error("a call was counted for another agent than its entry says")
	}
}

// An approval that is spent counts as any call does, or is not spent.
func suiteSpendInTask(t *testing.T, s *subject) {
	s.office()
	s.task("tsk_1", "payroll", "ins_1", func(t *counterfoil.Task) {
		t.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: 100}}
	})
	in := func(a *counterfoil.Approval) { a.Caller.Task = "tsk_1" }
	amount := func(n int64) func(*counterfoil.Spending) {
		return func(sp *counterfoil.Spending) { sp.Use.Amounts = map[string]int64{"amount": n} }
	}
	a, b := s.approved(s.approval("payroll", "one", in)), s.approved(s.approval("payroll", "two", in))
	s.wantRefused(counterfoil.LimitExceeded, s.spend(a, amount(101)))
	s.wantRefused(counterfoil.LimitExceeded, s.spend(a))
	s.wantState(a.ID, counterfoil.StateApproved)
	s.wantDone(s.spend(a, amount(60))())
	s.wantRefused(counterfoil.LimitExceeded, s.spend(b, amount(41)))
	s.wantState(b.ID, counterfoil.StateApproved)
	if got := s.taskOf("tsk_1"); got.Calls != 1 || got.Limits[0].Used != 60 {
		t.Errorf("counted: %+v", got)
	}
	s.wantDone(s.spend(b, amount(40))())
}

// Of any number of calls at once, as many are let go as the task leaves: those below it
// too, and never more.
func suiteCountRaces(t *testing.T, s *subject) {
	const callers, most, sum = 64, 100, 70
	s.crew()
	s.task("tsk_1", "payroll", "ins_1", func(t *counterfoil.Task) {
		t.MaxCalls = most
		t.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: sum}}
	})
	s.task("tsk_2", "payroll", "ins_1", below("tsk_1"))
	s.task("tsk_3", "payroll", "ins_1", below("tsk_2"), func(t *counterfoil.Task) { t.MaxCalls = 20 })
	var calls, payouts atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range 4 {
				task, class := fmt.Sprintf("tsk_%d", 1+(i+n)%3), "payout"
				if i%4 == 0 {
					class = "read"
				}
				err := s.use1(task, class, map[string]int64{"amount": 1})
				switch {
				case err == nil && class == "payout":
					payouts.Add(1)
					fallthrough
				case err == nil:
					calls.Add(1)
				case counterfoil.CodeOf(err) != counterfoil.LimitExceeded:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	a, c := s.taskOf("tsk_1"), s.taskOf("tsk_3")
	if a.Calls != calls.Load() || a.Calls > most || a.Limits[0].Used != payouts.Load() || a.Limits[0].Used != sum || c.Calls > 20 {
		t.Errorf("%d calls and %d payouts were let go; counted %d, %+v; at the bottom %d", calls.Load(), payouts.Load(), a.Calls, a.Limits, c.Calls)
	}
}

// A call is closed out of its task or counted in it, never both.
func suiteCloseRaces(t *testing.T, s *subject) {
	s.crew()
	for round := range 20 {
		id := fmt.Sprintf("tsk_%d", round)
		s.task(id, "payroll", "ins_1")
		var done atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				err := s.use1(id, "read", nil)
				if err == nil {
					done.Add(1)
				} else if counterfoil.CodeOf(err) != counterfoil.TaskClosed {
					t.Error(err)
				}
			})
		}
		var ends atomic.Int64
		for range 4 {
			wg.Go(func() {
				if _, err := s.closeTask(id, counterfoil.TaskCompleted); err == nil {
					ends.Add(1)
				} else if counterfoil.CodeOf(err) != counterfoil.TaskClosed {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := s.taskOf(id); got.Calls != done.Load() || ends.Load() != 1 {
			t.Errorf("%d calls were let go, %d are counted; it ended %d times", done.Load(), got.Calls, ends.Load())
		}
	}
}
