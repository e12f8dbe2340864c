package web

import (
	"context"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
)

// Bounds of what a page shows of an agent's tasks.
const (
	maxOpenShown   = 200
	maxClosedShown = 25
	closedWindow   = 7 * 24 * time.Hour
)

// tasksOf returns an agent's tasks, those that it works in and those that it opened for
// others, newest first.
func (m *management) tasksOf(ctx context.Context, agent string, state counterfoil.TaskState, most int) ([]counterfoil.Task, error) {
	var out []counterfoil.Task
	for _, f := range []counterfoil.TaskFilter{{Agent: agent, State: state, Limit: most}, {Opener: agent, State: state, Limit: most}} {
		found, err := m.Authority.Tasks(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, t := range found {
			if !slices.ContainsFunc(out, func(o counterfoil.Task) bool { return o.ID == t.ID }) {
				out = append(out, t)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b counterfoil.Task) int { return b.Opened.Compare(a.Opened) })
	return out, nil
}

// fillTasks fills in an agent's tasks: those that are open, and those that were closed
// lately.
func (p *pages) fillTasks(ctx context.Context, a *console.Agent) error {
	open, err := p.tasksOf(ctx, a.Name, counterfoil.TaskOpen, maxOpenShown)
	if err != nil {
		return err
	}
	all, err := p.tasksOf(ctx, a.Name, "", maxOpenShown+maxClosedShown)
	if err != nil {
		return err
	}
	now := p.Now()
	for i := range open {
		a.OpenTasks = append(a.OpenTasks, taskShown(&open[i]))
	}
	for i := range all {
		t := &all[i]
		if t.State == counterfoil.TaskOpen || t.Closed.Before(now.Add(-closedWindow)) {
			continue
		}
		if len(a.ClosedTasks) == maxClosedShown {
			a.MoreTasks = true
			break
		}
		a.ClosedTasks = append(a.ClosedTasks, taskShown(t))
	}
	slices.SortStableFunc(a.ClosedTasks, func(a, b console.Task) int { return b.Closed.Compare(a.Closed) })
	return nil
}

func taskShown(t *counterfoil.Task) console.Task {
	out := console.Task{
		ID: t.ID, State: string(t.State), Agent: t.Agent, Opener: t.Opener, Parent: t.Parent, For: text(t.Purpose),
		Opened: t.Opened, Deadline: t.Deadline, Closed: t.Closed, Reason: text(t.Reason), Calls: t.Calls, Most: t.MaxCalls,
	}
	if t.MaxCalls > 0 {
		out.Percent = int(min(100*t.Calls/t.MaxCalls, 100))
	}
	for _, id := range t.Tools {
		out.Tools = append(out.Tools, id.String())
	}
	for _, l := range t.Limits {
		what := l.Class + ", calls"
		if l.Sum != "" {
			what = l.Class + ", sum of " + l.Sum
		}
		out.Limits = append(out.Limits, console.LimitUse{Field: what, Used: decimal(l.Used), Max: decimal(l.Max)})
	}
	return out
}
