package authority

import (
	"regexp"
	"time"

	"github.com/counterfoil/counterfoil"
)

// taskPrefix begins the id of a task, and taskID is the form of one.
const taskPrefix = "tsk_"

var taskID = regexp.MustCompile(`^` + taskPrefix + `[a-z2-7]{26}$`)

// A chain is a task and those above it, itself first. The empty chain is of no task.
type chain []counterfoil.Task

// id is the task's; empty when there is none.
func (c chain) id() string {
	if len(c) == 0 {
		return ""
	}
	return c[0].ID
}

// covers reports whether every task of the chain has the tool.
func (c chain) covers(id counterfoil.ToolID) bool {
	for i := range c {
		if !c[i].Covers(id) {
			return false
		}
	}
	return true
}

// within reports whether the chain's task is another one or below it.
func (c chain) within(task string) bool {
	for i := range c {
		if c[i].ID == task {
			return true
		}
	}
	return false
}

// liveChain returns an open task and those above it. It is not ok when one of them
// is not open, or past its deadline: closing a task closes those below it, so that is
// what a moment in between looks like, and a broken record.
func (a *Authority) liveChain(id string, now time.Time) (c chain, ok bool) {
	for id != "" {
		t, open := a.cfg.Store.LiveTask(id)
		if !open || !t.Live(now) || len(c) == counterfoil.MaxTaskDepth {
			return nil, false
		}
		c = append(c, t)
		id = t.Parent
	}
	return c, len(c) > 0
}

// taskFor returns the open task of that agent, with those above it. Any instance of
// the agent may go on with a task: that is how a batch job that was killed resumes. A
// task that ended, another agent's and one that never was are one answer.
func (a *Authority) taskFor(agent, id string, now time.Time) (chain, error) {
	c, ok := a.liveChain(id, now)
	if !ok || c[0].Agent != agent {
		return nil, counterfoil.Refuse(counterfoil.TaskClosed, "there is no such open task of this agent")
	}
	return c, nil
}
