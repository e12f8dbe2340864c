package authority

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// maxListed is how many tasks one list shows, defaultListed how many when nobody says.
const (
	maxListed     = 1000
	defaultListed = 100
)

// TaskOf returns a task that is the caller's to see: one that it works in or opened,
// and with a token of a task only that one and those below it. Every other task is as
// one that is not there.
func (a *Authority) TaskOf(ctx context.Context, caller counterfoil.Caller, id string) (counterfoil.Task, error) {
	t, err := a.Task(ctx, id)
	if err != nil {
		return counterfoil.Task{}, err
	}
	sees, err := a.sees(ctx, caller, &t, nil)
	if err != nil {
		return counterfoil.Task{}, err
	}
	if !sees {
		return counterfoil.Task{}, unknown("task", id)
	}
	return t, nil
}

// sees reports whether a task is the caller's to see and to end. The tasks above it
// are asked for whatever their state: one that closed takes those below with it, and
// they may still be looked at. known are tasks that were read already.
func (a *Authority) sees(ctx context.Context, caller counterfoil.Caller, t *counterfoil.Task, known map[string]counterfoil.Task) (bool, error) {
	if caller.Agent == "" || t.Agent != caller.Agent && t.Opener != caller.Agent {
		return false, nil
	}
	if caller.Task == "" || t.ID == caller.Task {
		return true, nil
	}
	id := t.Parent
	for range counterfoil.MaxTaskDepth {
		if id == "" || id == caller.Task {
			return id != "", nil
		}
		above, ok := known[id]
		if !ok {
			var err error
			if above, ok, err = a.cfg.Store.Task(ctx, id); err != nil || !ok {
				return false, err
			}
		}
		id = above.Parent
	}
	return false, nil
}

// TasksOf returns the tasks that are the caller's to see, the newest first.
func (a *Authority) TasksOf(ctx context.Context, caller counterfoil.Caller) ([]counterfoil.Task, error) {
	known := map[string]counterfoil.Task{}
	for _, f := range []counterfoil.TaskFilter{{Agent: caller.Agent, Limit: maxListed}, {Opener: caller.Agent, Limit: maxListed}} {
		tasks, err := a.cfg.Store.Tasks(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			known[t.ID] = asOf(t, a.cfg.Now())
		}
	}
	seen := []counterfoil.Task{}
	for _, t := range known {
		sees, err := a.sees(ctx, caller, &t, known)
		if err != nil {
			return nil, err
		}
		if sees {
			seen = append(seen, t)
		}
	}
	sortTasks(seen)
	return seen, nil
}

// Task returns a task, for administrators and auditors.
func (a *Authority) Task(ctx context.Context, id string) (counterfoil.Task, error) {
	if !taskID.MatchString(id) {
		return counterfoil.Task{}, unknown("task", id)
	}
	t, ok, err := a.cfg.Store.Task(ctx, id)
	if err == nil && !ok {
		err = unknown("task", id)
	}
	return asOf(t, a.cfg.Now()), err
}

// asOf is a task as it is at a moment: nothing is allowed in one that is past its
// deadline, so it has expired, whether or not ExpireTasks came to it.
func asOf(t counterfoil.Task, now time.Time) counterfoil.Task {
	if t.State == counterfoil.TaskOpen && !t.Live(now) {
		t.State, t.Closed, t.Reason = counterfoil.TaskExpired, t.Deadline, pastDeadline
	}
	return t
}

const pastDeadline = "past its deadline"

// Tasks returns the tasks that the filter chooses, for administrators and auditors.
func (a *Authority) Tasks(ctx context.Context, f counterfoil.TaskFilter) ([]counterfoil.Task, error) {
	f.Limit = min(cmp.Or(f.Limit, defaultListed), maxListed)
	tasks, err := a.cfg.Store.Tasks(ctx, f)
	if err != nil {
		return nil, err
	}
	if f.State == counterfoil.TaskExpired { // those that are still to be closed, too
		open := f
		open.State = counterfoil.TaskOpen
		more, err := a.cfg.Store.Tasks(ctx, open)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, more...)
		sortTasks(tasks)
	}
	now := a.cfg.Now()
	for i := range tasks {
		tasks[i] = asOf(tasks[i], now)
	}
	tasks = slices.DeleteFunc(tasks, func(t counterfoil.Task) bool { return f.State != "" && t.State != f.State })
	return tasks[:min(len(tasks), f.Limit)], nil
}

// EndTask ends a task that is the caller's to see, as completed or as cancelled: with
// the answer every token of it and every open approval is void, and so is every task
// below it. One that ended already is task_closed.
func (a *Authority) EndTask(ctx context.Context, caller counterfoil.Caller, id string, completed bool, reason string) (counterfoil.Task, error) {
	if err := checkText("reason", reason, 0); err != nil {
		return counterfoil.Task{}, err
	}
	t, err := a.TaskOf(ctx, caller, id)
	if err != nil {
		return counterfoil.Task{}, err
	}
	if t.State != counterfoil.TaskOpen {
		return counterfoil.Task{}, counterfoil.Refuse(counterfoil.TaskClosed, "the task is %s already", t.State)
	}
	state := counterfoil.TaskCancelled
	if completed {
		state = counterfoil.TaskCompleted
	}
	return a.closeTask(ctx, &t, state, reason, func(e *ledger.Entry) {
		e.TokenJTI, e.Source.Environment = caller.TokenID, caller.Environment
		by(e, caller)
	})
}

// CancelTask ends any task, for an administrator.
func (a *Authority) CancelTask(ctx context.Context, id, reason, actor string) (counterfoil.Task, error) {
	if err := checkText("reason", reason, 0); err != nil {
		return counterfoil.Task{}, err
	}
	t, err := a.Task(ctx, id)
	if err != nil {
		return counterfoil.Task{}, err
	}
	return a.closeTask(ctx, &t, counterfoil.TaskCancelled, reason, func(e *ledger.Entry) { e.Actor = actor })
}

// closeTask ends a task and returns it as it is then. Whether the client waits for the
// answer is not a part of the decision.
func (a *Authority) closeTask(ctx context.Context, t *counterfoil.Task, to counterfoil.TaskState, reason string, who func(*ledger.Entry)) (counterfoil.Task, error) {
	ctx = context.WithoutCancel(ctx)
	_, registry := a.Policy()
	e := taskEntry(ledger.TaskClosed, t, registry)
	e.Reason, e.Detail["state"] = reason, string(to)
	who(e)
	if _, err := a.cfg.Store.CloseTask(ctx, t.ID, to, reason, e); err != nil {
		return counterfoil.Task{}, err
	}
	after, ok, err := a.cfg.Store.Task(ctx, t.ID)
	if err == nil && !ok {
		err = fmt.Errorf("reading task %s, which was closed: it is not there", t.ID)
	}
	return after, err
}

// maxExpired is how many tasks one round of ExpireTasks closes: each is a commit, and
// what else is looked after waits for it.
const maxExpired = 100

// ExpireTasks closes the tasks that are past their deadline, those that were opened
// first, and so many of them; the next round closes others. Nothing was allowed in
// them since: this takes what hangs on them, and lets everybody know.
func (a *Authority) ExpireTasks(ctx context.Context) error {
	var errs []error
	due := a.cfg.Store.DueTasks(a.cfg.Now())
	ends := make(map[string]bool, len(due))
	for _, id := range due {
		ends[id] = true
	}
	closed := 0
	for _, id := range due {
		t, open := a.cfg.Store.LiveTask(id)
		if !open || ends[t.Parent] {
			continue // it ends with the one above it
		}
		if closed++; closed > maxExpired {
			break
		}
		_, err := a.closeTask(ctx, &t, counterfoil.TaskExpired, pastDeadline, func(*ledger.Entry) {})
		if r, refused := counterfoil.AsRefusal(err); refused && r.Code == counterfoil.TaskClosed {
			continue // at this moment
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sortTasks sorts the newest first.
func sortTasks(tasks []counterfoil.Task) {
	slices.SortFunc(tasks, func(x, y counterfoil.Task) int {
		return cmp.Or(y.Opened.Compare(x.Opened), strings.Compare(x.ID, y.ID))
	})
}
