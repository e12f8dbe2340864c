package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Tasks are what is known of open tasks, and of calls that wait. Safe for concurrent use.
type Tasks interface {
	// LiveTask returns a task that is open; ok is false for every other. It costs no
	// more than a look into memory: how much of the task is used up may lag, which
	// counts where it is used up, and its deadline is the caller's to compare.
	LiveTask(id string) (t counterfoil.Task, ok bool)

	// PresentKey returns the thumbprint of the key that counts for a call that was
	// proved by jkt and waited: the instance's present one, where jkt was its own and was
	// rotated away; jkt otherwise, also where it was revoked.
	PresentKey(instance, jkt string) string
}

// counts is no of a list, a ping or a subscription: those are nothing that happens once.
func (c *mcpCall) counts() bool {
	switch c.message.name {
	case "tools/call", "resources/read", "prompts/get":
		return true
	}
	return false
}

// lineage calls each with the caller's task and those above it, as long as it returns
// nil. A task that ended, or is somebody else's, is closed to the caller, and so is one
// whose parent ended: it has nothing any more to be a part of.
func (c *call) lineage(each func(t *counterfoil.Task) error) error {
	if c.caller.Task == "" {
		return nil
	}
	closed := counterfoil.Refuse(counterfoil.TaskClosed, "task %s is not open, or one above it", c.caller.Task)
	if c.gateway.cfg.Tasks == nil {
		return closed
	}
	tasks, ok := counterfoil.TaskChain(c.gateway.cfg.Tasks.LiveTask, c.caller.Task, c.gateway.cfg.Now())
	if !ok || tasks[0].Agent != c.caller.Agent {
		return closed
	}
	for i := range tasks {
		if err := each(&tasks[i]); err != nil {
			return err
		}
	}
	return nil
}

// inTask refuses what the caller's task, or one above it, leaves out. Where one of them
// sums a field of the call, the call is judged by its arguments: a name that the tool
// does not know must not hide an amount.
func (c *call) inTask(tool string) error {
	c.sums = false
	if c.caller.Task == "" {
		return nil
	}
	id := counterfoil.ToolID{Resource: c.resource.Name, Tool: tool}
	return c.lineage(func(t *counterfoil.Task) error {
		if !t.Covers(id) {
			return counterfoil.Refuse(counterfoil.OutsideTask, "task %s does not include %s", t.ID, id)
		}
		for i := range t.Limits {
			if t.Limits[i].Class == c.class && t.Limits[i].Sum != "" {
				c.sums, c.judged = true, true
			}
		}
		return nil
	})
}

// coveredByTask narrows what may be called to what the caller's task and those above it
// include. In a task that is over that is nothing.
func (c *call) coveredByTask(callable func(string) bool) func(string) bool {
	if c.caller.Task == "" {
		return callable
	}
	var tasks []counterfoil.Task
	err := c.lineage(func(t *counterfoil.Task) error {
		tasks = append(tasks, *t)
		return nil
	})
	if err != nil {
		return func(string) bool { return false }
	}
	return func(tool string) bool {
		if !callable(tool) {
			return false
		}
		for i := range tasks {
			if !tasks[i].Covers(counterfoil.ToolID{Resource: c.resource.Name, Tool: tool}) {
				return false
			}
		}
		return true
	}
}

// amounts are the call's, where a limit of its task sums them.
func (c *call) amounts() map[string]int64 {
	if !c.sums {
		return nil
	}
	return c.policy.Amounts(c.words.toolID(), c.payload)
}

// keyed is about calls of tools alone, as what only reads may be made again.
func (c *mcpCall) keyed() bool {
	return c.message.name == "tools/call" && len(c.r.Header[headerKey]) > 0
}

// present is who is asked about at the store before the call has an effect. A call that was
// held outlasts the key that it was proved by: rotating it takes nothing.
func (c *call) present() counterfoil.Caller {
	who := c.caller
	if who.Binding == bindingAsserted {
		// Nobody showed anything of this agent's: that it and the resource are in force
		// is all that can be asked. Its task is asked about where the call is counted.
		return counterfoil.Caller{Agent: who.Agent, Audience: who.Audience, Binding: counterfoil.NotBound, Bearer: bindingAsserted}
	}
	if c.held && c.gateway.cfg.Tasks != nil {
		who.JKT = c.gateway.cfg.Tasks.PresentKey(who.Instance, who.JKT)
	}
	return who
}

// use is what a call without an approval uses up.
func (c *call) use() (counterfoil.CallUse, error) {
	use := counterfoil.CallUse{Task: c.caller.Task, Class: c.class, Amounts: c.amounts(), Agent: c.caller.Agent}
	if !c.words.keyed() {
		return use, nil
	}
	var err error
	if use.Key, err = c.idempotencyKey(); err != nil {
		return use, err
	}
	use.Digest, err = c.words.keyDigest()
	return use, err
}

// keyDigest is that of the call without the tool's definition: a call that ran is the
// same call after it was pinned anew.
func (c *call) keyDigest() (string, error) {
	b, err := c.repeatable()
	if err != nil {
		return "", err
	}
	return counterfoil.CallDigest(b), nil
}

func (c *call) repeatable() ([]byte, error) {
	o := c.words.object()
	o.ToolDigest = ""
	return o.encode()
}

// keyDigest: what a client adds in answer to the upstream's questions makes it another
// call, as it may be what decides.
func (c *mcpCall) keyDigest() (string, error) {
	b, err := c.repeatable()
	if err != nil {
		return "", err
	}
	for _, more := range []string{inputResponses, requestState} {
		if v := find(c.message.params, more); v != nil {
			b = append(append(b, '\n'), join([]member{{more, v}})...)
		}
	}
	return counterfoil.CallDigest(b), nil
}

// recordUsing is record for a call that is allowed and uses something up: of its task,
// or its Idempotency-Key. It reports whether the call may go on; where not, it is
// answered. Whatever is refused used up nothing.
func (c *call) recordUsing() bool {
	use, err := c.use()
	if err != nil {
		c.words.deny(err, nil)
		return false
	}
	e := c.entry()
	e.Decision = ledger.Allow
	err = c.gateway.cfg.Recorder.DecideUsing(context.WithoutCancel(c.ctx), use, e, c.payload)
	earlier := (*counterfoil.Earlier)(nil)
	_, refused := counterfoil.AsRefusal(err)
	switch {
	case err == nil:
		c.decided, c.decidedAt, c.used = e, c.gateway.cfg.Now(), use
		if use.Key != "" {
			// Whoever lost the answer asks for it with the key, so a client that leaves
			// breaks nothing off.
			c.keeps, c.ctx = true, context.WithoutCancel(c.ctx)
		}
		return true
	case errors.As(err, &earlier):
		c.repeat(earlier)
	case refused:
		c.words.deny(err, nil)
	default:
		err = recordFault(err)
		c.count(c.gateway.cfg.Answered, err)
		c.words.fail(err)
	}
	return false
}

// repeat answers a call that was made before, without making it again.
func (c *call) repeat(earlier *counterfoil.Earlier) {
	unknown := func(what string) {
		// How it ended is not known here, so this is no result of a tool: see forward.
		c.refuse(counterfoil.Refuse(counterfoil.OutcomeUnknown,
			"the call was made before with this Idempotency-Key (ledger entry %d), and %s; it was not made again", earlier.Entry, what))
	}
	switch {
	case !earlier.Done:
		unknown("it is under way, or nobody knows how it ended")
		return
	case earlier.Result == nil:
		unknown("it ended, but its answer was not kept, or is not any more")
		return
	}
	write, err := c.words.again(earlier)
	if err != nil {
		c.refuse(err)
		return
	}
	c.earlier = earlier
	if c.record(nil) && c.lastLook() {
		c.finish(outcome{name: repeated})
		write()
	}
}

// again says in _meta that the answer is of an earlier call.
func (c *mcpCall) again(earlier *counterfoil.Earlier) (func(), error) {
	why, err := json.Marshal(repetition{
		Entry: earlier.Entry, RequestID: c.id, Detail: "The call was made before with this Idempotency-Key. This is its answer; it was not made again.",
	})
	if err != nil {
		return nil, err
	}
	body, err := c.keptAnswer(earlier.Result, metaRepeated, why)
	return func() { c.writeJSON(http.StatusOK, typeJSON, body) }, err
}

// A repetition is what an answer says in _meta that was given before.
type repetition struct {
	Entry     int64  `json:"entry"` // the call.decided of the call that was made
	RequestID string `json:"request_id"`
	Detail    string `json:"detail"`
}

const metaRepeated = "counterfoil/repeated"

// outlasts reports whether the call goes on when its client leaves, as somebody may ask
// for its answer later: people allowed it, or it has an Idempotency-Key. Of such a call
// nobody may believe that it did nothing unless that is certain.
func (c *call) outlasts() bool { return c.spent != nil || c.used.Key != "" }

// answerToKeep returns what is kept of a call that ended so, for whoever repeats it. Of
// one that nobody knows the end of that is nothing to go by. One that ended without an
// answer of the upstream's keeps what ours said where nobody has it otherwise.
func (c *call) answerToKeep(e *ledger.Entry, o outcome, ours bool) []byte {
	switch {
	case c.overlong:
		if e.Detail == nil {
			e.Detail = map[string]any{}
		}
		e.Detail["answer"] = "too large to be kept"
		return nil
	case o.name == ledger.OutcomeUnknown:
		return nil
	case c.kept == nil && ours && o.code != "":
		return c.words.lost(o.code)
	}
	return c.kept
}

// lost is the result of a tool call that failed.
func (c *mcpCall) lost(code counterfoil.Code) []byte {
	return append(appendMember([]byte{'{'}, "result", c.refusedContent(c.toolName(), c.faultOf(code))), '}')
}
