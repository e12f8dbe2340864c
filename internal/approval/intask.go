package approval

import (
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
)

// inTask finds the task that the call is of, and those above it: a call of a task that
// is not open, or past its deadline, is refused, whatever people said.
func (cl *claim) inTask(standing Standing) error {
	var err error
	if cl.tasks, err = liveTasks(standing, cl.Caller.Task, cl.Caller.Agent, cl.now); err != nil {
		return err
	}
	if other := cl.reg.Agents[cl.For]; other != nil && other.Owner != cl.agent.Owner {
		cl.openers = append(cl.openers, other.Owner)
	}
	for i := range cl.tasks {
		opener := cl.reg.Agents[cl.tasks[i].Opener]
		if opener == nil {
			return counterfoil.Refuse(counterfoil.TaskClosed, "the agent that opened the task is not declared any more")
		}
		if opener.Owner != cl.agent.Owner && !slices.Contains(cl.openers, opener.Owner) {
			cl.openers = append(cl.openers, opener.Owner)
		}
	}
	slices.Sort(cl.openers)
	return nil
}

// liveTasks returns a task of an agent's and those above it, all of which have to be
// open and in time; none for no task.
func liveTasks(standing Standing, id, agent string, now time.Time) ([]counterfoil.Task, error) {
	if id == "" {
		return nil, nil
	}
	tasks, ok := counterfoil.TaskChain(standing.LiveTask, id, now)
	if !ok || tasks[0].Agent != agent {
		return nil, counterfoil.Refuse(counterfoil.TaskClosed, "the task is completed, cancelled, expired or unknown")
	}
	return tasks, nil
}

// earliest cuts a time to the deadlines of tasks: nothing of a task outlives it.
func earliest(at time.Time, tasks []counterfoil.Task) time.Time {
	for i := range tasks {
		if tasks[i].Deadline.Before(at) {
			at = tasks[i].Deadline
		}
	}
	return millis(at)
}
