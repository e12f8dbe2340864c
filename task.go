package counterfoil

import (
	"slices"
	"time"
)

// A TaskState is where a task is in its life. The zero TaskState is unknown,
// which is not open.
type TaskState string

// The states: open, and the ways to end. A task that ended never opens again.
const (
	TaskOpen      TaskState = "open"
	TaskCompleted TaskState = "completed" // its agent, or who opened it, says that it is done
	TaskCancelled TaskState = "cancelled" // its agent, who opened it, or an administrator took it back
	TaskExpired   TaskState = "expired"   // past its deadline
	TaskRevoked   TaskState = "revoked"   // with its agent, its owner's agents, or its parent
)

// Bounds on tasks.
const (
	DefaultTaskLife = time.Hour
	MaxTaskLife     = 24 * time.Hour
	MaxTaskDepth    = 4    // a task that no other opened has depth 1
	MaxOpenTasks    = 1000 // of one agent
	MaxTaskLimits   = 16   // of one task
)

// A Task is a bounded unit of an agent's work: purpose, deadline, and a grant that is
// never more than the agent's own or its parent's. What the agent may do in it ends
// with it: every token of the task, every open approval, every stream, every task
// below it. It is no process: any instance of the agent may go on with it.
type Task struct {
	ID       string `json:"id"`     // "tsk_" and 128 random bits
	Agent    string `json:"agent"`  // who works in it
	Opener   string `json:"opener"` // the agent that opened it: itself, or an orchestrator of it
	Instance string `json:"instance"`
	Parent   string `json:"parent,omitzero"`
	Purpose  string `json:"purpose"`

	// Tools are those that may be called in it. Empty: every one that the agent's
	// grants have, and of a child none beyond its parent's.
	Tools []ToolID `json:"tools,omitzero"`

	Opened   time.Time   `json:"opened"`
	Deadline time.Time   `json:"deadline"`
	MaxCalls int64       `json:"max_calls,omitzero"` // zero: any number
	Calls    int64       `json:"calls"`              // made so far, by its children too
	Limits   []TaskLimit `json:"limits,omitzero"`

	State  TaskState `json:"state"`
	Closed time.Time `json:"closed,omitzero"`
	Reason string    `json:"reason,omitzero"`
}

// Covers reports whether the task's own list has the tool.
func (t *Task) Covers(id ToolID) bool { return len(t.Tools) == 0 || slices.Contains(t.Tools, id) }

// Live reports whether the task is open and before its deadline.
func (t *Task) Live(now time.Time) bool { return t.State == TaskOpen && now.Before(t.Deadline) }

// TaskChain returns a task and those above it, itself first, by what live says of each:
// a Task that is open, whose deadline may be past. It is not ok when one of them is not
// live: closing a task closes those below it, so that is what a moment in between looks
// like, and a broken record. No task, and more of them than there may be, are not ok
// either. Whose the task is, is for who asks.
func TaskChain(live func(id string) (Task, bool), id string, now time.Time) (chain []Task, ok bool) {
	for id != "" {
		t, open := live(id)
		if !open || !t.Live(now) || len(chain) == MaxTaskDepth {
			return nil, false
		}
		chain = append(chain, t)
		id = t.Parent
	}
	return chain, len(chain) > 0
}

// A TaskLimit bounds what the calls of a class come to in one task. Amounts are
// ten-thousandths, of calls too.
type TaskLimit struct {
	Class string `json:"class"`
	Sum   string `json:"sum,omitzero"` // a field of the class's tools; empty: the number of calls
	Max   int64  `json:"max"`
	Used  int64  `json:"used"`
}

// A CallUse is what an allowed call uses up beside its proof.
type CallUse struct {
	Task  string // empty: none
	Class string

	// Amounts are the call's fields that are decimals, in ten-thousandths: what a
	// task's limits sum. A limit on a field that is not there refuses the call.
	Amounts map[string]int64

	// Key is the caller's Idempotency-Key, empty when there was none, and Digest
	// says which call it is for. A key is the agent's in its task.
	Agent, Key, Digest string

	// Unsent says of a call that ended that nothing of it ever left: its Key is as if
	// it had not been used. What its task counted stays.
	Unsent bool
}

// An Earlier is the call that an Idempotency-Key was used for before. It is an error:
// the present call is not made.
type Earlier struct {
	Entry  int64  // its call.decided
	Done   bool   // it ended, and how is known
	Result []byte // the answer as it was kept; nil where none was
}

// Error says that the call was made before.
func (*Earlier) Error() string { return "a call with this Idempotency-Key was made before" }

// A TaskFilter chooses tasks. Empty members choose every one.
type TaskFilter struct {
	Agent  string
	Opener string
	State  TaskState
	Parent string
	Limit  int // 100 when zero
}
