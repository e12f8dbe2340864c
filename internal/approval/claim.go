package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// A claim is a call that a person has to allow, and what is declared about it now.
type claim struct {
	counterfoil.GuardedCall
	digest string
	now    time.Time
	reg    crowd
	of     string // the revision of reg
	class  *counterfoil.Class
	agent  *counterfoil.Agent

	tasks   []counterfoil.Task // the caller's, and those above it; none where the call is of no task
	openers []string           // owners of the agents that opened these, and of the one that it is made for, without the agent's own
}

func (e *Engine) newClaim(c counterfoil.GuardedCall) (*claim, error) {
	reg, revision := e.crowd()
	cl := &claim{
		GuardedCall: c, digest: counterfoil.CallDigest(c.Call), now: e.now(), reg: reg, of: revision,
		class: reg.Classes[c.Class], agent: reg.Agents[c.Caller.Agent],
	}
	switch {
	case cl.class == nil || cl.class.Tier == counterfoil.Forbidden:
		return nil, counterfoil.Refuse(counterfoil.ClassForbidden, "the class of %s never runs", c.Tool)
	case cl.agent == nil:
		return nil, counterfoil.Refuse(counterfoil.TokenRevoked, "the agent is not declared any more")
	case c.For != "" && (reg.Agents[c.For] == nil || c.Caller.Task != ""):
		return nil, counterfoil.Refuse(counterfoil.TokenRevoked, "the agent that the call is for is not declared any more, or it is said to be in a task")
	case classOf(reg.Registry, c.Tool) != c.Class:
		// What decided on the call has not heard yet of what is declared.
		return nil, counterfoil.Refuse(counterfoil.ToolChanged, "the class of %s changed while it was called: call again", c.Tool)
	case cl.class.Tier == counterfoil.Routine || len(c.Call) == 0 || c.Caller.Agent == "" || c.Tool.Tool == "":
		return nil, fmt.Errorf("claiming an approval for %s of tier %s: nobody is asked for that", c.Tool, cl.class.Tier)
	}
	if status, _ := e.store.ResourceStatus(c.Tool.Resource); status != counterfoil.Active {
		return nil, counterfoil.Refuse(counterfoil.TokenRevoked, "the resource %s is suspended", c.Tool.Resource)
	}
	return cl, cl.inTask(e.store)
}

// classOf is the class of a tool that is declared; empty for any other.
func classOf(reg *counterfoil.Registry, id counterfoil.ToolID) string {
	if r := reg.Resources[id.Resource]; r != nil {
		t, _ := r.Tool(id.Tool)
		return t.Class
	}
	return ""
}

// Claim finds the approval of a call, or asks for one. It returns a Spending when
// people have said yes and everything that they signed verifies again at this moment:
// every assertion, every signer's eligibility, and that class, rule, template, tool
// and owner are what was signed. Spend then uses it up.
//
// In every other case it returns a refusal with the approval's status, or a fault: a
// call without a Spending does not run.
func (e *Engine) Claim(ctx context.Context, c counterfoil.GuardedCall) (counterfoil.Spending, error) {
	cl, err := e.newClaim(c)
	if err != nil {
		return counterfoil.Spending{}, err
	}
	a, earlier, err := e.find(ctx, cl)
	if err != nil {
		return counterfoil.Spending{}, err
	}
	if a.ID == "" {
		return counterfoil.Spending{}, e.askFirst(ctx, cl, earlier)
	}
	switch state := stateAt(&a, cl.now); {
	case !state.Open():
		return counterfoil.Spending{}, e.closedRefusal(ctx, cl, &a, state)
	case state == counterfoil.StatePending:
		if what := cl.changed(&a); what != "" {
			return counterfoil.Spending{}, e.supersede(ctx, cl, &a, what)
		}
		return counterfoil.Spending{}, e.refuse(&a, counterfoil.ApprovalPending, "approval %s is not decided yet", a.ID)
	}
	return e.admit(ctx, cl, &a)
}

// find returns the approval that the call means: the one that it names, or the one of
// an equal call of the same agent in the same task with the same Idempotency-Key. The
// zero Approval means that people have to be asked; earlier is then the approval of an
// equal call that ran.
func (e *Engine) find(ctx context.Context, cl *claim) (a counterfoil.Approval, earlier string, err error) {
	if cl.Named != "" {
		a, ok, err := e.store.Approval(ctx, cl.Named)
		if err != nil {
			return a, "", err
		}
		// One answer for an unknown approval and for anybody else's. What was erased
		// has no digest any more and lets nothing run.
		mismatch := a.CallDigest != cl.digest && !cl.underAnotherDefinition(&a) && !(a.CallDigest == "" && !a.State.Open())
		if !ok || !cl.asked(&a) || mismatch || a.Key != "" && cl.Key != "" && a.Key != cl.Key {
			return a, "", counterfoil.Refuse(counterfoil.ApprovalMismatch, "the approval that the call names is not of this call")
		}
		return a, "", nil
	}
	f := counterfoil.ApprovalFilter{
		Kind: counterfoil.ApprovalOfCall, Agent: cl.Caller.Agent, Task: &cl.Caller.Task, CallDigest: cl.digest, Brief: true, Limit: 1000,
	}
	equal, err := e.store.Approvals(ctx, f)
	if err != nil {
		return a, "", err
	}
	if a, earlier = cl.choose(equal); a.ID != "" {
		// One is read whole: of an equal call there may be a thousand.
		whole, ok, err := e.store.Approval(ctx, a.ID)
		if err == nil && !ok {
			err = fmt.Errorf("approval %s was there and is not any more", a.ID)
		}
		return whole, "", err
	}
	if cl.Key != "" {
		// What was erased has no digest any more. A key that ran does not run again.
		f.CallDigest, f.Key = "", cl.Key
		keyed, err := e.store.Approvals(ctx, f)
		if err != nil {
			return a, "", err
		}
		for i := range keyed {
			if keyed[i].State.Ran() && keyed[i].CallDigest == "" {
				return keyed[i], "", nil
			}
		}
	}
	return a, earlier, nil
}

// underAnotherDefinition reports whether an approval is of this very call, but that the
// tool had another definition then. The definition's digest is a part of the call, so
// that the two have other digests.
func (cl *claim) underAnotherDefinition(a *counterfoil.Approval) bool {
	if a.ToolDigest == "" || cl.ToolDigest == "" || a.ToolDigest == cl.ToolDigest || a.Tool != cl.Tool {
		return false
	}
	members, err := ijson.Members(cl.Call)
	if err != nil || members["tool_digest"] == nil {
		return false
	}
	was, err := ijson.Marshal(a.ToolDigest)
	if err != nil {
		return false
	}
	members["tool_digest"] = was
	call, err := ijson.Marshal(members)
	return err == nil && counterfoil.CallDigest(call) == a.CallDigest
}

// ofAnotherDefinition finds the open approval of an equal call of the tool as it was
// before its definition changed, so that it is superseded and not left to be signed.
func (e *Engine) ofAnotherDefinition(ctx context.Context, cl *claim) (counterfoil.Approval, error) {
	open, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{
		Kind: counterfoil.ApprovalOfCall, Agent: cl.Caller.Agent, Task: &cl.Caller.Task, Brief: true, Limit: 1000,
		States: []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved},
	})
	if err != nil {
		return counterfoil.Approval{}, err
	}
	for i := range open {
		if b := &open[i]; cl.asked(b) && b.Key == cl.Key && stateAt(b, cl.now).Open() && cl.underAnotherDefinition(b) {
			return *b, nil
		}
	}
	return counterfoil.Approval{}, nil
}

// asked reports whether an approval was asked for by the caller's agent in its task.
func (cl *claim) asked(a *counterfoil.Approval) bool {
	return a.Kind == counterfoil.ApprovalOfCall && a.Caller.Agent == cl.Caller.Agent && a.Caller.Task == cl.Caller.Task
}

// choose finds the approval that a call without a name repeats, among those of equal
// calls, newest first. A call that ran is repeated while its Idempotency-Key says so,
// or, without one, until the approval's deadline; a no stands as long. Any other equal
// call is a new request.
func (cl *claim) choose(equal []counterfoil.Approval) (a counterfoil.Approval, earlier string) {
	var open, denied *counterfoil.Approval
	for i := range equal {
		b := &equal[i]
		if !cl.asked(b) {
			continue
		}
		state := stateAt(b, cl.now)
		if state.Ran() && earlier == "" {
			earlier = b.ID
		}
		if b.Key != cl.Key {
			continue
		}
		inTime := cl.now.Before(b.Expires)
		switch {
		case state.Ran() && (cl.Key != "" || inTime):
			return *b, ""
		case state.Open() && open == nil:
			open = b
		case state == counterfoil.StateDenied && inTime && denied == nil:
			denied = b
		}
	}
	switch {
	case open != nil:
		return *open, ""
	case denied != nil:
		return *denied, ""
	}
	return counterfoil.Approval{}, earlier
}

// closedRefusal answers a call whose approval came to an end. A call that does not
// name it meets here only what still stands for it: that it ran, or a no.
func (e *Engine) closedRefusal(ctx context.Context, cl *claim, a *counterfoil.Approval, state counterfoil.ApprovalState) error {
	if state == counterfoil.StateSuperseded && !cl.Held && cl.For == "" {
		return e.askAnew(ctx, cl)
	}
	return e.refuse(a, codeOf(state), "%s", sentenceOf(a, state))
}

// codeOf is the code of a state that lets nothing run.
func codeOf(s counterfoil.ApprovalState) counterfoil.Code {
	switch {
	case s.Ran():
		return counterfoil.ApprovalSpent
	case s.Open():
		return counterfoil.ApprovalPending
	}
	switch s {
	case counterfoil.StateDenied:
		return counterfoil.ApprovalDenied
	case counterfoil.StateExpired:
		return counterfoil.ApprovalExpired
	case counterfoil.StateCancelled:
		return counterfoil.ApprovalCancelled
	case counterfoil.StateSuperseded:
		return counterfoil.ApprovalSuperseded
	}
	return counterfoil.ApprovalRevoked
}

// ended says how a call ended that ran.
func ended(s counterfoil.ApprovalState) string {
	switch s {
	case counterfoil.StateSpent:
		return "is under way"
	case counterfoil.StateIndeterminate:
		return "may or may not have happened"
	}
	return string(s)
}

func sentenceOf(a *counterfoil.Approval, state counterfoil.ApprovalState) string {
	switch {
	case state.Ran():
		return fmt.Sprintf("approval %s was used, and its call %s; it does not run again", a.ID, ended(state))
	case state == counterfoil.StateDenied:
		return fmt.Sprintf("a person said no to approval %s", a.ID)
	case state == counterfoil.StateApproved:
		return fmt.Sprintf("approval %s is decided already", a.ID)
	}
	return fmt.Sprintf("approval %s is %s", a.ID, state)
}

// refuse makes a refusal that carries the approval's status.
func (e *Engine) refuse(a *counterfoil.Approval, code counterfoil.Code, format string, args ...any) error {
	r := counterfoil.Refuse(code, format, args...)
	r.Approval = e.StatusOf(*a)
	r.Approval.Attached = code == counterfoil.ApprovalPending
	return r
}

// askFirst asks about a call of which nothing is known, or only under another definition
// of its tool: then what was asked before is superseded, so that nobody signs what cannot
// run. It is looked for once there is a new approval, so that a flood of calls that are
// refused costs no more for it.
func (e *Engine) askFirst(ctx context.Context, cl *claim, earlier string) error {
	err := e.ask(ctx, cl, earlier)
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Code != counterfoil.ApprovalRequired {
		return err
	}
	before, readErr := e.ofAnotherDefinition(ctx, cl)
	switch {
	case readErr != nil:
		return readErr
	case before.ID == "":
		return err
	}
	if closeErr := e.close(ctx, &before, counterfoil.StateSuperseded, "", "the tool changed"); closeErr != nil {
		if _, over := counterfoil.AsRefusal(closeErr); !over {
			return closeErr
		}
		return err // something else ended it first
	}
	return superseded(r)
}

// ask keeps a new approval and returns the refusal that says so. An equal call that
// came at the same moment gets the same approval.
func (e *Engine) ask(ctx context.Context, cl *claim, earlier string) error {
	if err := e.fits(ctx, cl); err != nil {
		return err
	}
	if err := shownWhole(cl); err != nil {
		return err
	}
	a, entry, err := e.newApproval(cl, earlier)
	if err != nil {
		return fmt.Errorf("making an approval: %w", err)
	}
	kept, attached, err := e.store.RequestApproval(context.WithoutCancel(ctx), a, e.cfg.MaxPending, entry)
	if err != nil {
		return err
	}
	if attached {
		return e.refuse(&kept, counterfoil.ApprovalPending, "approval %s is not decided yet", kept.ID)
	}
	e.notify(ctx, EventRequested, &kept)
	return e.refuse(&kept, counterfoil.ApprovalRequired, "%s: %s", kept.ID, wantedOf(&kept))
}

// wantedOf says to the agent how many have to say yes, and not who may.
func wantedOf(a *counterfoil.Approval) string {
	if a.Rule.Required == 1 {
		return "a person has to say yes to exactly this call"
	}
	return fmt.Sprintf("%d people have to say yes to exactly this call", a.Rule.Required)
}

// newApproval makes an approval of a call, with everything that is going to be signed.
func (e *Engine) newApproval(cl *claim, earlier string) (counterfoil.Approval, *ledger.Entry, error) {
	window := time.Duration(cl.class.Window)
	if window <= 0 {
		window = defaultWindow
	}
	a := counterfoil.Approval{
		ID: counterfoil.NewID("apr_"), State: counterfoil.StatePending, Kind: counterfoil.ApprovalOfCall,
		Owner: cl.agent.Owner, Openers: cl.openers, Caller: cl.Caller, For: cl.For, RequestID: cl.RequestID, Source: cl.Source,
		Tool: cl.Tool, ToolDigest: cl.ToolDigest, Class: cl.class.Name, Rule: counterfoil.RuleOf(cl.class),
		Fields: cl.Fields, Key: cl.Key, Held: cl.Held,
		CallDigest: cl.digest, Call: cl.Call, Earlier: earlier,
		Created: cl.now, Expires: earliest(cl.now.Add(window), cl.tasks),
	}
	if cl.For != "" {
		a.ForEpoch = e.store.AgentState(cl.For).Epoch
	}
	entry, err := e.complete(&a, cl.class, cl.render(earlier))
	return a, entry, err
}

// complete renders an approval, states what is going to be signed, and makes the entry
// of the request. The entry has no digest of the call or of the rendering: what is said
// in few words could be guessed and compared, and the log is for ever.
func (e *Engine) complete(a *counterfoil.Approval, class *counterfoil.Class, r Rendering) (*ledger.Entry, error) {
	var err error
	if a.Rendering, err = r.write(); err != nil {
		return nil, err
	}
	s, err := state(a, class)
	if err != nil {
		return nil, err
	}
	entry := e.entryOf(ledger.ApprovalRequested, a, counterfoil.StatePending)
	entry.RequestID, entry.Actor, entry.ToolDigest, entry.Tier = a.RequestID, a.Requester, a.ToolDigest, a.Rule.Tier.String()
	entry.Detail = map[string]any{
		"approval_digest": a.Digest, "class_digest": s.ClassDigest, "template_digest": s.TemplateDigest, "kind": a.Kind,
		"rule": a.Rule, "required": a.Rule.Required, "expires": s.Expires,
	}
	if len(a.Openers) > 0 {
		entry.Detail["openers"] = a.Openers // whose signature does not count; offline, nothing else says so
	}
	if a.For != "" {
		entry.Detail["for"] = a.For
	}
	return entry, nil
}

// entryOf makes an entry about an approval with what each of them says.
func (e *Engine) entryOf(kind ledger.Kind, a *counterfoil.Approval, s counterfoil.ApprovalState) *ledger.Entry {
	c := &a.Caller
	entry := &ledger.Entry{
		Kind: kind, RequestID: a.RequestID, Agent: c.Agent, Owner: a.Owner, Instance: c.Instance, Epoch: c.Epoch,
		Actors: c.Actors, Task: c.Task, Resource: a.Tool.Resource, Tool: a.Tool.String(), Class: a.Class,
		Approval: ledger.Approval{ID: a.ID, State: string(s)},
		Source:   ledger.Source{Environment: c.Environment},
	}
	if c.Subject != c.Agent {
		entry.OnBehalfOf = c.Subject
	}
	for i := range a.Signatures {
		if a.Signatures[i].Decision == counterfoil.DecisionApprove {
			entry.Approval.Signers = append(entry.Approval.Signers, a.Signatures[i].Person)
		}
	}
	return entry
}

// changed says what is not any more as it was when people were asked; empty when
// nothing is. The call itself is compared by its digest, the environment being a part
// of it.
func (cl *claim) changed(a *counterfoil.Approval) string {
	s, err := stated(a)
	if err != nil {
		return "" // what was asked is not known: admit refuses it
	}
	rule, err1 := digestOf(counterfoil.RuleOf(cl.class))
	signed, err2 := digestOf(s.Rule)
	class, err3 := digestOf(cl.class)
	template, err4 := digestOf(cl.class.Template)
	switch {
	case errors.Join(err1, err2, err3, err4) != nil:
		return "class"
	case rule != signed:
		return "rule"
	case template != s.TemplateDigest:
		return "template"
	case class != s.ClassDigest || s.Class != cl.class.Name:
		return "class"
	case a.ToolDigest != cl.ToolDigest || a.Tool != cl.Tool:
		return "tool"
	case a.Owner != cl.agent.Owner, cl.For != "" && !slices.Equal(a.Openers, cl.openers):
		return "owner" // of the one who asks, or of the agent that it asks for
	case cl.elsewhere(a):
		return "upstream"
	}
	return ""
}

// elsewhere reports whether the call would be sent to another server than the one that
// people were shown.
func (cl *claim) elsewhere(a *counterfoil.Approval) bool {
	r, err := parseRendering(a.Rendering)
	res := cl.reg.Resources[cl.Tool.Resource]
	return err != nil || res == nil || res.Upstream != r.Upstream
}

// supersede closes an approval under which something else would run than was asked
// about, and asks anew. Where it was closed and nothing was asked because the process
// ended in between, the next call asks.
func (e *Engine) supersede(ctx context.Context, cl *claim, a *counterfoil.Approval, what string) error {
	if err := e.close(ctx, a, counterfoil.StateSuperseded, "", "the "+what+" changed"); err != nil {
		return err
	}
	if (cl.Held || cl.For != "") && cl.Named != "" {
		// The gateway makes a call that it held: nobody repeated it, so nobody would
		// learn of a new approval. And a question of an enforcement point asks nobody.
		return e.refuse(a, counterfoil.ApprovalSuperseded, "approval %s is superseded: the %s changed", a.ID, what)
	}
	return e.askAnew(ctx, cl)
}

// askAnew asks again and says approval_superseded, with the status of the approval that
// is asked for now.
func (e *Engine) askAnew(ctx context.Context, cl *claim) error {
	err := e.ask(ctx, cl, "")
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Approval == nil {
		return err
	}
	return superseded(r)
}

// superseded says of a new approval that it is in the place of another.
func superseded(r *counterfoil.Refusal) error {
	anew := counterfoil.Refuse(counterfoil.ApprovalSuperseded,
		"what was asked about is not what would run now; people are asked again, with approval %s", r.Approval.ID)
	anew.Approval = r.Approval
	return anew
}

// admit verifies an approved approval all over again and returns what spends it.
func (e *Engine) admit(ctx context.Context, cl *claim, a *counterfoil.Approval) (counterfoil.Spending, error) {
	if what := cl.changed(a); what != "" {
		return counterfoil.Spending{}, e.supersede(ctx, cl, a, what)
	}
	why, err := e.doubt(ctx, cl.reg, a)
	if err != nil {
		return counterfoil.Spending{}, err
	}
	if cl.For != "" && why == "" {
		// Who asks was verified; that the agent lost nothing since is looked up here.
		state := e.store.AgentState(cl.For)
		if state.Status != counterfoil.Active || state.Epoch != a.ForEpoch || cl.For != a.For {
			why = fmt.Sprintf("agent %s was revoked since", cl.For)
		}
	}
	if why != "" {
		e.log.Warn("an approved approval does not hold", "approval", a.ID, "agent", a.Caller.Agent, "tool", a.Tool.String(), "why", why)
		if err := e.close(ctx, a, counterfoil.StateRevoked, "", why); err != nil {
			return counterfoil.Spending{}, err
		}
		return counterfoil.Spending{}, e.refuse(a, counterfoil.ApprovalRevoked, "approval %s does not hold any more", a.ID)
	}
	takes, err := takings(cl.class, payer(&cl.Caller, cl.For), cl.Fields)
	if err != nil {
		return counterfoil.Spending{}, err
	}
	s := counterfoil.Spending{
		Approval: a.ID, CallDigest: cl.digest, Signatures: len(a.Signatures), Takings: takes, Revision: cl.of,
		Live: counterfoil.Live{
			Agent: cl.Caller.Agent, Instance: cl.Caller.Instance, Epoch: cl.Caller.Epoch, Unbound: cl.Caller.Binding == counterfoil.NotBound,
		},
		Use: counterfoil.CallUse{Task: cl.Caller.Task, Class: cl.Class, Amounts: amounts(&cl.GuardedCall), Agent: cl.Caller.Agent},
	}
	for i := range a.Signatures {
		s.Signers = append(s.Signers, a.Signatures[i].Person)
	}
	return s, nil
}

// close moves an open approval to its end, with its entry and a notice.
func (e *Engine) close(ctx context.Context, a *counterfoil.Approval, to counterfoil.ApprovalState, actor, reason string) error {
	entry := e.entryOf(ledger.ApprovalClosed, a, to)
	entry.Actor, entry.Reason = actor, reason
	from := []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}
	if err := e.store.CloseApproval(context.WithoutCancel(ctx), a.ID, from, to, reason, entry); err != nil {
		return err
	}
	a.State, a.Reason, a.Closed = to, reason, e.now()
	if to == counterfoil.StateRevoked {
		e.told.add(a)
	}
	e.notify(ctx, EventClosed, a)
	return nil
}

// Spend uses an approval up with d, the call.decided that allows its call. Of any
// number of callers one succeeds, and only it may forward.
func (e *Engine) Spend(ctx context.Context, s counterfoil.Spending, d *ledger.Entry, payload []byte) error {
	err := e.store.SpendApproval(ctx, s, d, payload)
	if r, ok := counterfoil.AsRefusal(err); ok && r.Approval == nil {
		if a, ok, readErr := e.store.Approval(ctx, s.Approval); readErr == nil && ok {
			with := *r
			with.Approval = e.StatusOf(a)
			return &with
		}
	}
	return err
}

// Finish records how a call ended whose approval was spent. What nobody can say is
// StateIndeterminate, which a person ends.
func (e *Engine) Finish(ctx context.Context, id string, state counterfoil.ApprovalState, result []byte, f *ledger.Entry) error {
	return e.store.FinishApproval(ctx, id, state, result, f)
}

// Status returns an approval to the agent that asked, in the task that it asked in;
// for everybody else there is none.
func (e *Engine) Status(ctx context.Context, id string, caller counterfoil.Caller) (counterfoil.Approval, error) {
	a, ok, err := e.store.Approval(ctx, id)
	if err != nil {
		return counterfoil.Approval{}, err
	}
	if !ok || !(&claim{GuardedCall: counterfoil.GuardedCall{Caller: caller}}).asked(&a) {
		return counterfoil.Approval{}, noApproval()
	}
	a.State = stateAt(&a, e.now())
	return a, nil
}

func noApproval() error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such approval")
}

// Cancel takes an approval back for the agent that asked.
func (e *Engine) Cancel(ctx context.Context, id string, caller counterfoil.Caller) error {
	a, err := e.Status(ctx, id, caller)
	if err != nil {
		return err
	}
	if !a.State.Open() {
		return e.refuse(&a, codeOf(a.State), "%s", sentenceOf(&a, a.State))
	}
	return e.close(ctx, &a, counterfoil.StateCancelled, caller.Agent, "the agent took it back")
}
