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

// taskFor returns the open task of that agent, with those above it. Any instance of
// the agent may go on with a task: that is how a batch job that was killed resumes. A
// task that ended, another agent's and one that never was are one answer.
func (a *Authority) taskFor(agent, id string, now time.Time) (chain, error) {
	c, ok := counterfoil.TaskChain(a.cfg.Store.LiveTask, id, now)
	if !ok || c[0].Agent != agent {
		return nil, counterfoil.Refuse(counterfoil.TaskClosed, "there is no such open task of this agent")
	}
	return c, nil
}
