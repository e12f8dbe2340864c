package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A taskView is an open task as it is kept in memory. It never changes; what it counts
// is in the tables alone.
type taskView struct {
	counterfoil.Task
	parent *taskView // nil: none
}

// OpenTask commits an open task with e, a task.opened. live is the opener's. It is
// refused where the opener is not live or the agent not active, with the codes of
// Revoked; where the parent is not open, past its deadline, or neither the opener's
// own nor the agent's (task_closed); where the agent has counterfoil.MaxOpenTasks, or
// the parent is as deep as a task may be (limit_exceeded).
func (s *Store) OpenTask(ctx context.Context, t counterfoil.Task, live counterfoil.Live, e *ledger.Entry) error {
	if err := checkTask(&t, live, e); err != nil {
		return err
	}
	tools, err := json.Marshal(t.Tools, json.FormatNilSliceAsNull(true))
	if err != nil {
		return fmt.Errorf("opening a task: %w", err)
	}
	t.Tools, t.Limits = slices.Clone(t.Tools), slices.Clone(t.Limits)
	t.Opened, t.Deadline = fromMillis(millis(t.Opened)), fromMillis(millis(t.Deadline))
	t.State, t.Calls, t.Closed, t.Reason = counterfoil.TaskOpen, 0, time.Time{}, ""
	for i := range t.Limits {
		t.Limits[i].Used = 0
	}
	return s.record(ctx, e, &decision{
		effect: func(w writer) error {
			now := s.opt.Now()
			if err := wantLive(w, live); err != nil {
				return err
			}
			if err := wantActive(w, t.Agent); err != nil {
				return err
			}
			if err := wantParent(w, &t, now); err != nil {
				return err
			}
			return putTask(w, &t, string(tools))
		},
		learn: func(v *views) { v.addTask(t) },
	})
}

// checkTask looks for what no caller means.
func checkTask(t *counterfoil.Task, live counterfoil.Live, e *ledger.Entry) error {
	if e.Kind != ledger.TaskOpened {
		return fmt.Errorf("opening a task with a %s entry", e.Kind)
	}
	if t.ID == "" || t.Agent == "" || t.Opener == "" || t.Opener != live.Agent || t.Purpose == "" || t.Opened.IsZero() || !t.Opened.Before(t.Deadline) {
		return errors.New("opening a task: its id, agent, purpose or times are missing, or its opener is not who is live")
	}
	if t.MaxCalls < 0 || t.Parent == t.ID || len(t.Limits) > counterfoil.MaxTaskLimits {
		return errors.New("opening a task: it is its own parent, or what it may do is negative, or has too many limits")
	}
	for _, l := range t.Limits {
		if l.Class == "" || l.Max < 0 {
			return errors.New("opening a task: a limit has no class, or is negative")
		}
	}
	return nil
}

// wantParent refuses a task below what is not open, or too deep. A task never outlives
// its parent and never has more tools: whoever opens it sees to that, and it is here
// once more because nothing comes after.
func wantParent(w writer, t *counterfoil.Task, now time.Time) error {
	if millis(t.Deadline) <= millis(now) {
		return counterfoil.Refuse(counterfoil.TaskClosed, "the time of the task is over before it begins")
	}
	if t.Parent == "" {
		return nil
	}
	p, err := taskOf(w, t.Parent)
	if err != nil {
		return err
	}
	if p.ID == "" || !p.Live(now) || p.Agent != t.Opener && p.Agent != t.Agent && p.Opener != t.Opener {
		return counterfoil.Refuse(counterfoil.TaskClosed, "the parent is not an open task of who opens one below it")
	}
	if t.Deadline.After(p.Deadline) {
		return fmt.Errorf("opening task %q: it would outlive its parent", t.ID)
	}
	if len(t.Tools) == 0 && len(p.Tools) > 0 {
		return counterfoil.Refuse(counterfoil.OutsideTask, "the parent lists its tools, and a task below it without a list would have more")
	}
	for _, tool := range t.Tools {
		if !p.Covers(tool) {
			return counterfoil.Refuse(counterfoil.OutsideTask, "the parent does not have the tool %s", tool)
		}
	}
	for depth := 2; p.Parent != ""; depth++ {
		if depth >= counterfoil.MaxTaskDepth {
			return counterfoil.Refuse(counterfoil.LimitExceeded, "the parent is as deep as a task may be (%d)", counterfoil.MaxTaskDepth)
		}
		if p, err = taskOf(w, p.Parent); err != nil {
			return err
		}
	}
	return nil
}

func putTask(w writer, t *counterfoil.Task, tools string) error {
	var open int64
	err := w.query(countOpenTasks, func(r []driver.Value) error { open = r[0].(int64); return nil }, t.Agent)
	if err != nil {
		return fmt.Errorf("counting open tasks: %w", err)
	}
	if open >= counterfoil.MaxOpenTasks {
		return counterfoil.Refuse(counterfoil.LimitExceeded, "agent %q has %d open tasks; end some of them", t.Agent, open)
	}
	n, err := w.exec(insertTask, t.ID, t.Agent, t.Opener, t.Instance, t.Parent, t.Purpose, tools, millis(t.Opened), millis(t.Deadline), t.MaxCalls)
	if err != nil {
		return fmt.Errorf("keeping a task: %w", err)
	}
	if n != 1 {
		return fmt.Errorf("keeping a task: its id %q is taken", t.ID)
	}
	for i, l := range t.Limits {
		if _, err := w.exec(insertTaskLimit, t.ID, int64(i), l.Class, l.Sum, l.Max); err != nil {
			return fmt.Errorf("keeping a task's limit: %w", err)
		}
	}
	return nil
}

// A closing says how tasks are closed.
type closing struct {
	to     counterfoil.TaskState // what is below becomes revoked
	reason string
	now    time.Time
	void   string // an agent whose tokens and approvals are void already
}

// CloseTask commits the end of an open task and of every task below it, with e, a
// task.closed: nobody gets a token for them any more, those that there are are void,
// and their open approvals are revoked. The entry says what was lost. What is below a
// task ends with it as revoked; what its calls came to is not kept. It is refused (task_closed) where the task is not open,
// and an error to let it expire before its time.
func (s *Store) CloseTask(ctx context.Context, id string, to counterfoil.TaskState, reason string, e *ledger.Entry) (counterfoil.Voided, error) {
	if e.Kind != ledger.TaskClosed {
		return counterfoil.Voided{}, fmt.Errorf("closing a task with a %s entry", e.Kind)
	}
	switch to {
	case counterfoil.TaskCompleted, counterfoil.TaskCancelled, counterfoil.TaskExpired, counterfoil.TaskRevoked:
	default:
		return counterfoil.Voided{}, fmt.Errorf("closing a task: %q is no end", to)
	}
	l := &losses{}
	err := s.amended(ctx, []*ledger.Entry{e}, l.learn, func(w writer, d *decision) error {
		now := s.opt.Now()
		t, err := taskOf(w, id)
		if err != nil {
			return err
		}
		// What is past its deadline expired, whoever has not recorded it yet.
		byHand := to == counterfoil.TaskCompleted || to == counterfoil.TaskCancelled
		if t.State != counterfoil.TaskOpen || byHand && !t.Live(now) {
			return counterfoil.Refuse(counterfoil.TaskClosed, "the task is not open")
		}
		if to == counterfoil.TaskExpired && t.Live(now) {
			return fmt.Errorf("closing task %q: its time is not over", id)
		}
		if err := l.closeTasks(w, closing{to: to, reason: reason, now: now}, openTasksBelow, id); err != nil {
			return err
		}
		d.tell(0, l)
		return nil
	})
	if err != nil {
		return counterfoil.Voided{}, err
	}
	return l.Voided, nil
}

// closeTasks closes the open tasks that a statement lists, each with what hangs on it.
func (l *losses) closeTasks(w writer, c closing, st statement, args ...driver.Value) error {
	type open struct {
		id, agent string
		to        counterfoil.TaskState
	}
	var found []open
	err := w.query(st, func(r []driver.Value) error {
		o := open{r[0].(string), r[1].(string), counterfoil.TaskRevoked}
		if r[2].(int64) == 1 {
			o.to = c.to
		}
		found = append(found, o)
		return nil
	}, args...)
	if err != nil {
		return fmt.Errorf("reading open tasks: %w", err)
	}
	for _, o := range found {
		n, err := w.exec(closeTask, o.id, string(o.to), c.reason, millis(c.now))
		if err != nil {
			return fmt.Errorf("closing task %q: %w", o.id, err)
		}
		if n != 1 {
			return fmt.Errorf("closing task %q: it is not open", o.id)
		}
		l.Tasks = append(l.Tasks, o.id)
		if _, err := w.exec(dropResults, o.agent, o.id); err != nil {
			return fmt.Errorf("dropping the results of task %q: %w", o.id, err)
		}
		if o.agent == c.void {
			continue // its mark says so
		}
		tokens, err := texts(w, tokensOfTask, o.id, millis(c.now))
		if err != nil {
			return err
		}
		l.Tokens = append(l.Tokens, tokens...)
		if err := l.revokeOpen(w, c.now, "its task is closed", openOfTask, o.agent, o.id); err != nil {
			return err
		}
		if err := l.bury(w, counterfoil.TargetTask, o.id, c.now, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// wantOpenTask refuses a task that is not open, not in its time, or not the agent's.
func wantOpenTask(w writer, id, agent string, now time.Time) error {
	if id == "" {
		return nil
	}
	t, err := taskOf(w, id)
	if err != nil {
		return err
	}
	if t.Agent != agent || !t.Live(now) {
		return taskClosed()
	}
	return nil
}

func taskClosed() error {
	return counterfoil.Refuse(counterfoil.TaskClosed, "the task is closed, or its time is over")
}

// A taskReader collects the rows of tasks, each with one of its limits or none.
type taskReader struct{ list []counterfoil.Task }

func (r *taskReader) row(v []driver.Value) error {
	if n := len(r.list); n == 0 || r.list[n-1].ID != v[0].(string) {
		t := counterfoil.Task{
			ID: v[0].(string), Agent: v[1].(string), Opener: v[2].(string), Instance: v[3].(string), Parent: v[4].(string), Purpose: v[5].(string),
			Opened: fromMillis(v[7].(int64)), Deadline: fromMillis(v[8].(int64)), MaxCalls: v[9].(int64), Calls: v[10].(int64),
			State: counterfoil.TaskState(v[11].(string)), Closed: fromMillis(v[12].(int64)), Reason: v[13].(string),
		}
		if err := json.Unmarshal([]byte(v[6].(string)), &t.Tools); err != nil {
			return fmt.Errorf("reading task %q: %w", t.ID, err)
		}
		r.list = append(r.list, t)
	}
	if v[14] != nil {
		t := &r.list[len(r.list)-1]
		t.Limits = append(t.Limits, counterfoil.TaskLimit{Class: v[14].(string), Sum: v[15].(string), Max: v[16].(int64), Used: v[17].(int64)})
	}
	return nil
}

// taskOf returns the zero Task for an id that nobody has.
func taskOf(w writer, id string) (counterfoil.Task, error) {
	var r taskReader
	if err := w.query(taskRow, r.row, id); err != nil {
		return counterfoil.Task{}, fmt.Errorf("reading task %q: %w", id, err)
	}
	if len(r.list) == 0 {
		return counterfoil.Task{}, nil
	}
	return r.list[0], nil
}

// Task returns a task in any state, as it is committed now; ok is false for an id that
// nobody has.
func (s *Store) Task(ctx context.Context, id string) (t counterfoil.Task, ok bool, err error) {
	var r taskReader
	if err := s.readRows(ctx, sqliteTexts[taskRow], r.row, id); err != nil || len(r.list) == 0 {
		return t, false, err
	}
	return r.list[0], true, nil
}

// Tasks returns those that the filter chooses, newest first.
func (s *Store) Tasks(ctx context.Context, f counterfoil.TaskFilter) ([]counterfoil.Task, error) {
	var r taskReader
	text, args := taskFilter(f)
	if err := s.readRows(ctx, text, r.row, args...); err != nil {
		return nil, err
	}
	return r.list, nil
}

// LiveTask returns a task that is open, from memory: whether its time is over is the
// caller's to ask, and what it counts is what it counted when the store was opened or
// it was. Task counts.
func (s *Store) LiveTask(id string) (counterfoil.Task, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.views.tasks[id]
	if t == nil {
		return counterfoil.Task{}, false
	}
	return t.Task, true
}

// DueTasks returns the ids of the open tasks whose time is over, parents first.
func (s *Store) DueTasks(now time.Time) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var due []*taskView
	for _, t := range s.views.tasks {
		if !now.Before(t.Deadline) {
			due = append(due, t)
		}
	}
	slices.SortFunc(due, func(a, b *taskView) int {
		if c := a.Opened.Compare(b.Opened); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	ids := make([]string, len(due))
	for i, t := range due {
		ids[i] = t.ID
	}
	return ids
}

// chain returns an open task of an agent and those above it; nil for none.
func (s *Store) chain(id, agent string) (*taskView, error) {
	if id == "" {
		return nil, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.views.tasks[id]
	if t == nil || t.Agent != agent {
		return nil, taskClosed()
	}
	return t, nil
}

// aCall is what a call counts as, in a limit on the number of calls.
const aCall = 10000

// count counts a call against a task and every one above it, or refuses: task_closed
// where one of them is not open or not in its time, limit_exceeded where it is one call
// too many or more than a limit leaves. Nothing of a refused call stays counted, as the
// whole decision is undone. A call without a class is not counted.
func count(w writer, t *taskView, use *counterfoil.CallUse, now time.Time) error {
	for ; t != nil; t = t.parent {
		if use.Class == "" {
			if err := wantOpenTask(w, t.ID, t.Agent, now); err != nil {
				return err
			}
			continue
		}
		n, err := w.exec(countCall, t.ID, millis(now))
		if err != nil {
			return fmt.Errorf("counting a call: %w", err)
		}
		if n != 1 {
			if err := wantOpenTask(w, t.ID, t.Agent, now); err != nil {
				return err
			}
			return counterfoil.Refuse(counterfoil.LimitExceeded, "the task has made its %d calls", t.MaxCalls)
		}
		for i := range t.Limits {
			if err := countLimits(w, t, i, use); err != nil {
				return err
			}
		}
	}
	return nil
}

func countLimits(w writer, t *taskView, i int, use *counterfoil.CallUse) error {
	l := &t.Limits[i]
	if l.Class != use.Class {
		return nil
	}
	amount, ok := int64(aCall), true
	if l.Sum != "" {
		amount, ok = use.Amounts[l.Sum]
	}
	if !ok || amount < 0 {
		return counterfoil.Refuse(counterfoil.LimitExceeded, "the task has a limit on the sum of %q, which the call does not have or which is negative", l.Sum)
	}
	n, err := w.exec(countLimit, t.ID, int64(i), amount)
	if err != nil {
		return fmt.Errorf("counting against a task's limit: %w", err)
	}
	if n == 1 {
		return nil
	}
	if l.Sum == "" {
		return counterfoil.Refuse(counterfoil.LimitExceeded, "the task's limit on the number of calls of class %s does not leave another one", l.Class)
	}
	return counterfoil.Refuse(counterfoil.LimitExceeded, "the task's limit on the sum of %q in class %s does not leave as much", l.Sum, l.Class)
}
