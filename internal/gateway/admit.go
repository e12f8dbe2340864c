package gateway

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"reflect"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// post answers a message.
func (c *mcpCall) post() {
	body, err := c.read()
	if err != nil {
		c.refuse(err)
		return
	}
	if err := c.understand(body); err != nil {
		c.refuse(err)
		return
	}
	if err := c.renew(); err != nil {
		// There is no payload yet: no class says what may be kept of it.
		if counterfoil.CodeOf(err) == counterfoil.ToolChanged {
			c.deny(err, nil) // the client is to call again, not to log in again
		} else {
			c.refuse(err)
		}
		return
	}
	if c.message.method != nil && c.message.method.ours {
		c.answerTask()
		return
	}
	if err := c.resume(); err != nil {
		c.refuse(err)
		return
	}
	c.payload = c.message.arguments()
	if c.admit(c.decide()) {
		c.forward()
	}
}

// admit records what was decided, refused when err is not nil, and looks at
// revocation once more. It reports whether the call may be forwarded now; where
// not, it is answered. A call that waits for a person is asked about instead.
func (c *call) admit(err error) bool {
	if c.waits(err) {
		return c.approve()
	}
	if err != nil {
		c.words.deny(err, nil)
		return false
	}
	if c.words.counts() && (c.caller.Task != "" || c.words.keyed()) {
		return c.recordUsing() && c.goes()
	}
	return c.record(nil) && c.goes()
}

// decide asks policy and pins. It has no effect but pinning at first sight.
func (c *mcpCall) decide() error {
	m := &c.message
	c.tier = counterfoil.Routine
	if m.method != nil && m.method.tool == theNamedTool {
		return c.decideTool(m.target())
	}
	return c.judge()
}

// judge asks policy alone.
func (c *mcpCall) judge() error {
	m := &c.message
	switch {
	case m.method == nil:
		return nil // a client's answer: the request that it answers was decided
	case m.name == "subscriptions/listen":
		return c.decideSubscriptions()
	case m.method.tool == "":
		return nil
	case m.method.tool == theNamedTool:
		return c.decideOn(m.target(), c.payload)
	}
	return c.decideOn(m.method.tool, c.payload)
}

func (c *mcpCall) decideTool(name string) error {
	if counterfoil.CheckToolName(name) != nil || isReserved(name) {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no tool %.64q", name)
	}
	err := c.decideOn(name, c.payload)
	if r, ok := counterfoil.AsRefusal(err); ok && r.Code != counterfoil.ApprovalRequired {
		c.def = c.gateway.catalog(c.resource).known(name)
		return err
	}
	// A person is asked to approve only what is pinned, so this comes before
	// approval_required is said.
	def, pinErr := c.checkPin(c.ctx, name, c.tier)
	c.def = def
	if pinErr != nil {
		return pinErr
	}
	if c.stale() {
		// The upstream was asked for its tools and took its time.
		tier := c.tier
		if err = c.renew(); err == nil {
			err = c.decideOn(name, c.payload)
		}
		// The pin was compared as it must be for the class before: what is pinned
		// by a first sight is not for people to approve either.
		if (err == nil || counterfoil.CodeOf(err) == counterfoil.ApprovalRequired) && c.tier != tier {
			err = counterfoil.Refuse(counterfoil.ToolChanged, "the class of %s changed while it was called: call again", name)
		}
	}
	if err != nil && !isCode(err, counterfoil.ApprovalRequired) || def == nil {
		return err
	}
	if c.judged {
		// Nobody is asked to approve what the upstream would not take either.
		if misfit := c.judgeable(name, def); misfit != nil {
			return misfit
		}
	}
	if eraOf(c.revision) == modern && !c.held {
		if err := c.checkMirrors(def); err != nil {
			return framed(err)
		}
	}
	return err
}

// judgeable refuses a call whose arguments decide when there is more to it than
// the arguments that were judged: members that the tool does not have, or what MCP
// 2026-07-28 lets a client add in answer to the upstream's questions (Multi
// Round-Trip Requests), which may be the amount itself.
func (c *mcpCall) judgeable(name string, def *seen) error {
	for _, more := range []string{inputResponses, requestState} {
		if find(c.message.params, more) != nil {
			return counterfoil.Refuse(counterfoil.PolicyForbids, "the arguments of %s decide whether it may be called, and %s adds to them what no rule reads", name, more)
		}
	}
	return def.input.check(name, c.payload)
}

// isReserved reports whether a name stands for an MCP server's resources or
// prompts in grants: an upstream's tool of that name must not be called with
// their grant.
func isReserved(name string) bool {
	return name == counterfoil.ToolResources || name == counterfoil.ToolPrompts
}

// decideSubscriptions judges every resource that a client wants to hear about.
// The other notifications need a token alone, like the lists that they are
// about.
func (c *mcpCall) decideSubscriptions() error {
	for _, e := range split(find(c.message.params, "notifications")) {
		if e.name != "resourceSubscriptions" {
			continue
		}
		var uris []string
		if err := json.Unmarshal(e.value, &uris); err != nil {
			return framed(malformed("resourceSubscriptions is a list of URIs"))
		}
		for _, uri := range uris {
			if err := c.decideOn(counterfoil.ToolResources, uriArguments(quote(uri))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *call) decideOn(tool string, arguments []byte) error {
	d := c.policy.Decide(counterfoil.Action{
		Caller:    c.caller,
		Tool:      counterfoil.ToolID{Resource: c.resource.Name, Tool: tool},
		Arguments: arguments,
		Source:    c.source,
		Opaque:    c.opaque,
	}, c.now)
	c.class, c.tier, c.judged, c.fields = d.Class, d.Tier, d.Judged, d.Fields
	err := d.Err()
	if err == nil || isCode(err, counterfoil.ApprovalRequired) {
		// Nobody is asked about what the task leaves out.
		if outside := c.inTask(tool); outside != nil {
			return outside
		}
	}
	return c.rung(err)
}

// record makes the decision durable: a refusal when why is not nil. When that
// fails, it answers with the fault and returns false: what is not recorded is
// not done.
func (c *call) record(why error) bool {
	e := c.entry()
	e.Decision = ledger.Allow
	if why != nil {
		e.Decision, e.Code = ledger.Refuse, counterfoil.CodeOf(why)
		if r, ok := counterfoil.AsRefusal(why); ok {
			e.Code, e.Reason = r.Recorded(), r.Reason()
		}
	}
	// The client may go away while the entry is on its way; then it is durable
	// all the same and its end follows, so we do not leave half of it behind.
	if err := c.gateway.cfg.Recorder.Decide(context.WithoutCancel(c.ctx), e, c.payload); err != nil {
		err = recordFault(err)
		c.count(c.gateway.cfg.Answered, err)
		c.words.fail(err)
		return false
	}
	c.decided, c.decidedAt = e, c.gateway.cfg.Now()
	return true
}

// entry fills the row that answers who did what, under which state.
func (c *call) entry() *ledger.Entry {
	e := &ledger.Entry{
		Kind: ledger.CallDecided, RequestID: c.id,
		Agent: c.caller.Agent, Instance: c.caller.Instance,
		JKT: c.caller.JKT, Binding: c.caller.Binding, TokenJTI: c.caller.TokenID, Proof: c.caller.Proof,
		Epoch: c.caller.Epoch, Actors: c.caller.Actors, Task: c.caller.Task,
		Resource: c.resource.Name, Class: c.class, Scope: c.caller.Scope,
		PolicyDigest: c.policy.Digest(), Approval: c.approval,
		Source: ledger.Source{Environment: c.caller.Environment},
	}
	if c.caller.Subject != c.caller.Agent {
		e.OnBehalfOf = c.caller.Subject
	}
	if c.source.IsValid() {
		e.Source.Address = c.source.String()
	}
	if a := c.registry.Agents[c.caller.Agent]; a != nil {
		e.Owner = a.Owner
	}
	if c.class != "" {
		e.Tier = c.tier.String()
	}
	if c.earlier != nil {
		c.note("repeats", c.earlier.Entry)
	}
	if c.gateway.cfg.View != nil {
		e.View = c.gateway.cfg.View()
	}
	e.Detail = maps.Clone(c.detail)
	c.words.describe(e)
	c.noteUnbound(e)
	return e
}

// toolName is what the row says was asked for: the tool of a call, the method
// of anything else.
func (c *mcpCall) toolName() string {
	name := c.message.name
	switch {
	case !c.held && c.r.Method != http.MethodPost:
		name = c.r.Method
	case c.message.kind == answer:
		name = "answer"
	case c.message.method != nil && c.message.method.tool == theNamedTool:
		name = c.message.target()
	case c.message.method != nil && c.message.method.tool != "":
		name = c.message.method.tool
	case name == "":
		return "" // refused before there was a message
	}
	return c.resource.Name + "/" + shorten(name, 128)
}

// goes reports whether a call whose decision is durable may have its effect now: what its
// upstream is shown is there, and nothing speaks against it any more. Where not, the call
// ended and is answered.
func (c *call) goes() bool { return c.release() && c.lastLook() }

// lastLook asks after the decision is durable, and right before it has an effect, about
// revocation, and about what was applied since. A decision that finds its caller revoked,
// or that would be another one now, ends here.
func (c *call) lastLook() bool {
	err := c.stands()
	if err == nil {
		err = c.revoked()
	}
	if err == nil {
		return true
	}
	c.finish(outcome{name: notForwarded, code: counterfoil.CodeOf(err), unsent: true})
	c.count(c.gateway.cfg.Answered, err)
	c.words.fail(err)
	return false
}

// stands decides once more where what decided is not what decides now: the commit may
// have taken its time, and whoever gives out the credential. What was released is not
// shown in another way than it was released for.
func (c *call) stands() error {
	if !c.stale() {
		return nil
	}
	shown := c.resource.Credential
	err := c.decideAgain(func() error {
		// Not renew: the token was good when the decision was made.
		c.now = c.gateway.cfg.Now()
		return c.reread()
	}, c.spent != nil)
	if err == nil && !reflect.DeepEqual(shown, c.resource.Credential) {
		err = c.changed()
	}
	return err
}

// decideAgain decides by what renew takes. A call that would be refused now is refused;
// one of which something else is declared now is to be made again, and so is one for which
// people are needed and were not, or the other way round.
func (c *call) decideAgain(renew func() error, people bool) error {
	tier, class, fields, judged, definition := c.tier, c.class, c.fields, c.judged, c.words.definition()
	if err := renew(); err != nil {
		return err
	}
	err := c.words.judge()
	switch {
	case err != nil && !isCode(err, counterfoil.ApprovalRequired):
		return err
	case (err != nil) != people, c.tier != tier, c.class != class, c.judged && !judged, c.words.definition() != definition, !maps.Equal(c.fields, fields):
		return c.changed()
	}
	return nil
}

func (c *call) changed() error {
	return counterfoil.Refuse(counterfoil.ToolChanged, "what is declared of resource %s changed while it was called: call again", c.resource.Name)
}

// judge asks policy about the tool that is called.
func (c *call) judge() error { return c.decideOn(c.words.toolID().Tool, c.payload) }

// Outcomes of a call, beside ledger.OutcomeUnknown.
const (
	succeeded     = "succeeded"
	failed        = "failed"         // the upstream said so
	inputRequired = "input_required" // the upstream asks the client for more before it acts
	unavailable   = "upstream_unavailable"
	notForwarded  = "not_forwarded"
	repeated      = "repeated" // it was made before, and its answer was given again
)

// An outcome is how a call ended.
type outcome struct {
	name string
	code counterfoil.Code

	unsent bool // nothing of it ever left, or the upstream turned the gateway itself away
}

// finish ends the decision. The effect, if any, is there: when the entry cannot
// be written, the answer is still given, the store stops being ready by itself,
// and the next start ends the decision as unknown.
func (c *call) finish(o outcome) {
	e := &ledger.Entry{
		Kind: ledger.CallFinished, RequestID: c.id, Agent: c.decided.Agent, Instance: c.decided.Instance,
		Resource: c.decided.Resource, Tool: c.decided.Tool, Of: c.decided.Index, Outcome: o.name, Code: o.code,
		LatencyUS: c.gateway.cfg.Now().Sub(c.decidedAt).Microseconds(),
	}
	if c.struck != nil && c.struck.Load() {
		c.scrubbed()
	}
	c.words.ended(e)
	var err error
	switch {
	case c.spent != nil:
		err = c.finishSpent(e, o)
	case c.used.Key != "":
		c.used.Unsent = o.unsent
		err = c.gateway.cfg.Recorder.FinishUsing(context.WithoutCancel(c.ctx), c.used, c.answerToKeep(e, o, true), e)
	default:
		err = c.gateway.cfg.Recorder.Finish(context.WithoutCancel(c.ctx), e)
	}
	if err != nil {
		c.gateway.cfg.Log.Error("recording how a call ended", "request_id", c.id, "entry", c.decided.Index, "outcome", o.name, "err", err)
		c.count(c.gateway.cfg.Answered, recordFault(err))
	}
}

// recordFault is the fault of a commit that failed, unless it says itself which.
func recordFault(err error) error {
	if f := (*counterfoil.Fault)(nil); errors.As(err, &f) {
		return err
	}
	return counterfoil.NewFault(counterfoil.LedgerUnavailable, err)
}
