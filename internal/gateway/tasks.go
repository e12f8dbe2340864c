package gateway

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

// Held calls are tasks to clients that speak the extension
// io.modelcontextprotocol/tasks (2026-07-28): a call that people have to allow is
// answered with a task, the gateway makes the call once they did, and the client
// asks now and then. The task's id is the approval's. An upstream's own tasks are
// not let through.

const (
	// afterwards is how long what came of a call can be asked for at least.
	afterwards = 10 * time.Minute

	rpcMissingCapability = -32021 // MCP 2026-07-28
)

// A task is how a held call looks to a client.
type task struct {
	Meta           jsontext.Value `json:"_meta,omitzero"`
	CreatedAt      string         `json:"createdAt"`
	Error          jsontext.Value `json:"error,omitzero"`
	LastUpdatedAt  string         `json:"lastUpdatedAt"`
	PollIntervalMs int64          `json:"pollIntervalMs"`
	Result         jsontext.Value `json:"result,omitzero"`
	ResultType     string         `json:"resultType"`
	Status         string         `json:"status"`
	StatusMessage  string         `json:"statusMessage,omitzero"`
	TaskID         string         `json:"taskId"`
	TTLMs          int64          `json:"ttlMs"`
}

// Statuses of a task.
const (
	taskWorking   = "working"
	taskCompleted = "completed"
	taskFailed    = "failed" // the upstream answered with an error of JSON-RPC, and never anything else
	taskCancelled = "cancelled"
)

// taskOf is the task without what came of it.
func (c *mcpCall) taskOf(a *counterfoil.Approval) *task {
	const layout = "2006-01-02T15:04:05.000Z"
	updated := a.Created
	for _, s := range a.Signatures {
		updated = later(updated, s.At)
	}
	return &task{
		ResultType: "complete", TaskID: a.ID, Status: taskWorking,
		CreatedAt: a.Created.UTC().Format(layout), LastUpdatedAt: later(updated, a.Closed).UTC().Format(layout),
		TTLMs:          (a.Expires.Sub(a.Created) + counterfoil.ApprovalUseWindow + c.gateway.cfg.UpstreamTimeout + afterwards).Milliseconds(),
		PollIntervalMs: counterfoil.ApprovalPoll.Milliseconds(),
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// created answers a call with the task that it is now. The approval is durable: a
// question about the task that comes at once is answered.
func (c *mcpCall) created(a *counterfoil.Approval, why error) ([]byte, error) {
	t := c.taskOf(a)
	t.ResultType, t.StatusMessage = "task", waitingFor(a)
	object, err := json.Marshal(c.explain(why))
	if err != nil {
		return nil, err
	}
	t.Meta = join([]member{{metaRefusal, object}})
	return c.encodeTask(t)
}

func (c *mcpCall) encodeTask(t *task) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return encodeRPC(c.message.id, "result", b), nil
}

func waitingFor(a *counterfoil.Approval) string {
	if a.State == counterfoil.StateApproved {
		return "approved; the call is about to be made"
	}
	missing := max(1, a.Rule.Required-len(a.Signatures))
	if missing == 1 {
		return "waiting for 1 approval"
	}
	return fmt.Sprintf("waiting for %d approvals", missing)
}

// holds reports whether a call at this resource can become a task.
func (c *mcpCall) holds() bool {
	if c.gateway.cfg.Approvals == nil {
		return false
	}
	for i := range c.resource.Tools {
		if t := c.tierOf(c.resource.Tools[i].Name); t == counterfoil.Guarded || t == counterfoil.Irreversible {
			return true
		}
	}
	return false
}

// answerTask answers what a client asks about a task. It is decided and recorded
// like any request; the upstream has no part in it.
func (c *mcpCall) answerTask() {
	c.tier = counterfoil.Routine
	a, err := c.theTask()
	if err != nil {
		c.noTask(err)
		return
	}
	c.approval.ID = a.ID // without its state: a look uses nothing up
	if c.message.name == "tasks/update" {
		// A held call asks its client for nothing, so whatever this answers was
		// never asked.
		c.noTask(counterfoil.Refuse(counterfoil.PayloadMalformed, "the task %s asks for no input; people decide on it, and not here", a.ID))
		return
	}
	if !c.admit(nil) {
		return
	}
	body, err := c.taskAnswer(&a)
	if err != nil {
		c.finish(outcome{name: failed, code: counterfoil.CodeOf(err)})
		c.count(c.gateway.cfg.Answered, err)
		c.fail(err)
		return
	}
	c.finish(outcome{name: succeeded})
	c.writeJSON(200, typeJSON, body)
}

// theTask finds the task that the request names: one of this agent, in this task of
// ours, at this resource. Whether there is another's is not said.
func (c *mcpCall) theTask() (counterfoil.Approval, error) {
	unknown := counterfoil.Refuse(counterfoil.ToolUnknown, "there is no task %.64q", c.message.target())
	if c.gateway.cfg.Approvals == nil {
		return counterfoil.Approval{}, framed(unknownMethod(c.message.name))
	}
	if c.holds() && !c.message.tasks {
		// Tasks, Protocol Errors.
		return counterfoil.Approval{}, &framing{
			refusal: counterfoil.Refuse(counterfoil.RequestMalformed, "%s is for clients that declare the extension %s", c.message.name, extensionTasks),
			rpc:     rpcMissingCapability,
			data:    map[string]any{"requiredCapabilities": map[string]any{"extensions": map[string]any{extensionTasks: struct{}{}}}},
		}
	}
	id := c.message.target()
	if !isApprovalID(id) {
		return counterfoil.Approval{}, unknown
	}
	a, err := c.gateway.cfg.Approvals.Status(c.ctx, id, c.caller)
	switch {
	case isCode(err, counterfoil.ToolUnknown):
		return a, unknown
	case err != nil:
		return a, err
	case !a.Held || a.Tool.Resource != c.resource.Name, c.outOfReach(&a):
		return a, unknown
	}
	return a, nil
}

// noTask refuses. At a resource where no call can become a task the methods do not
// exist.
func (c *mcpCall) noTask(err error) {
	if isCode(err, counterfoil.ToolUnknown) && !c.holds() {
		c.refuse(framed(unknownMethod(c.message.name)))
		return
	}
	o := c.explain(err)
	b, encErr := json.Marshal(rpcError{Code: counterfoil.RPCInvalidParams, Message: o.Detail, Data: o})
	if encErr != nil {
		c.refuse(encErr)
		return
	}
	c.denyWith(err, encodeRPC(c.message.id, "error", b))
}

// taskAnswer does what was asked and returns the answer.
func (c *mcpCall) taskAnswer(a *counterfoil.Approval) ([]byte, error) {
	if c.message.name == "tasks/cancel" {
		// A wish: what is closed, or running, stays as it is (Tasks, Task
		// Cancellation).
		err := c.gateway.cfg.Approvals.Cancel(c.ctx, a.ID, c.caller)
		if _, refused := counterfoil.AsRefusal(err); err != nil && !refused {
			return nil, recordFault(err)
		}
		return encodeRPC(c.message.id, "result", []byte(`{"resultType":"complete"}`)), nil
	}
	t := c.taskOf(a)
	if err := c.complete(t, a); err != nil {
		return nil, err
	}
	return c.encodeTask(t)
}

// complete adds what came of the held call. What people decided is the result of a
// tool that failed, never an error of the protocol (APR-15).
func (c *mcpCall) complete(t *task, a *counterfoil.Approval) error {
	status := c.gateway.cfg.Approvals.StatusOf(*a) // which knows what is past its time
	refused := func(code counterfoil.Code, format string, args ...any) error {
		r := counterfoil.Refuse(code, format, args...)
		r.Approval = status
		t.Status, t.StatusMessage, t.Result = taskCompleted, r.Detail, c.refusedContent(a.Tool.String(), r)
		return nil
	}
	switch state := counterfoil.ApprovalState(status.Status); state {
	case counterfoil.StatePending, counterfoil.StateApproved:
		t.StatusMessage = waitingFor(a)
	case counterfoil.StateSpent:
		t.StatusMessage = "approved; the call is being made"
	case counterfoil.StateSucceeded, counterfoil.StateFailed:
		if a.Result == nil {
			return refused(counterfoil.ApprovalSpent, "the call was made and %s; its answer was not kept", state)
		}
		kept, err := members(a.Result)
		if err != nil {
			return err
		}
		if t.Status, t.Result, t.Error = taskCompleted, kept["result"], kept["error"]; t.Error != nil {
			t.Status, t.StatusMessage = taskFailed, "the upstream answered with an error"
		}
	case counterfoil.StateIndeterminate:
		return refused(counterfoil.OutcomeUnknown, "the call was sent and no answer came: it may or may not have happened, and it is not made again")
	case counterfoil.StateDenied:
		return refused(counterfoil.ApprovalDenied, "a person said no%s", because(status.Reason))
	case counterfoil.StateSuperseded:
		return refused(counterfoil.ApprovalSuperseded, "what was approved is not what would run now%s", because(a.Reason))
	case counterfoil.StateRevoked:
		return refused(counterfoil.ApprovalRevoked, "the agent, its task or an approver was revoked")
	case counterfoil.StateCancelled:
		t.Status, t.StatusMessage = taskCancelled, "taken back"
	default:
		return refused(counterfoil.ApprovalExpired, "its time was over before it was decided and made")
	}
	return nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
