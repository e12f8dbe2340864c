package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	// protocolAuthZEN is the protocol of a canonical call that an enforcement point
	// asked about.
	protocolAuthZEN = "authzen"

	// bindingAsserted is how the caller of such a call is bound: not at all. It is
	// somebody's word.
	bindingAsserted = "asserted"

	// requestTime is how long after a denial people may be asked about it.
	requestTime = 10 * time.Minute

	// maxRequestable bounds the arguments of a call that people may be asked about, in
	// bytes: they come back with the request.
	maxRequestable = 64 << 10

	toolEvaluation = "counterfoil/evaluation" // what a question in words of a Vocabulary is called in the ledger
)

// Evaluate decides on a call that an enforcement point says an agent wants to make, and
// records the decision as it does of its own calls. The point, which has to be verified,
// must be one of the resource's servers; of any other resource it learns no more than of
// one that does not exist. That it is the agent who wants the call is the point's word,
// and so are task and address: nothing above routine is allowed without an approval that
// the statement names, which is used up. Whoever is told yes makes the call now, or never.
//
// Every refusal is a Verdict; an error is a fault, after which nothing may follow.
func (g *Gateway) Evaluate(ctx context.Context, s counterfoil.Statement) (counterfoil.Verdict, error) {
	c := g.newAsserted(ctx, s)
	if c.admit(c.decide()) && c.pointStands() {
		c.finish(outcome{name: passedOn})
	}
	return c.verdict()
}

// An assertedCall is a call that an enforcement point asks about.
type assertedCall struct {
	call

	statement counterfoil.Statement
	tool      counterfoil.Tool
	digest    string      // of the definition that is pinned of it, where its server has one
	input     *inputShape // what that definition takes
	why       error       // why it may not be made; nil while nothing speaks against it
}

// newAsserted makes the call. Its resource may be one that does not exist.
func (g *Gateway) newAsserted(ctx context.Context, s counterfoil.Statement) *assertedCall {
	c := &assertedCall{call: call{gateway: g, ctx: ctx, id: s.RequestID, now: g.cfg.Now(), source: s.Source, payload: s.Arguments}, statement: s}
	c.words = c
	c.policy, c.registry = g.cfg.Policy()
	c.resource = c.registry.Resources[s.Tool.Resource]
	if !c.serves(c.resource) {
		c.resource = &counterfoil.Resource{} // for the record, which is not to repeat what anybody says
	}
	c.url = c.resource.ID(g.cfg.PublicURL)
	c.caller = counterfoil.Caller{
		Agent: s.Agent, Subject: s.Agent, Task: s.Task, Binding: bindingAsserted,
		Audience: c.url, Scope: []string{s.Tool.Tool}, Expires: s.Point.Expires,
	}
	return c
}

// decide asks policy and, where the gateway knows the tool's definition, the pins.
func (c *assertedCall) decide() error {
	s := &c.statement
	if err := c.renewed(); err != nil {
		return err
	}
	if err := c.gateway.cfg.Revocation.Revoked(c.ctx, c.present()); err != nil {
		return err
	}
	err := c.decideOn(c.tool.Name, c.payload)
	if err != nil && !isCode(err, counterfoil.ApprovalRequired) {
		return err
	}
	if unpinned := c.seeDefinition(); unpinned != nil {
		return unpinned
	}
	if c.stale() {
		// The upstream was asked for its tools and took its time.
		tier := c.tier
		if err = c.renew(); err == nil {
			err = c.decideOn(c.tool.Name, c.payload)
		}
		if err != nil && !isCode(err, counterfoil.ApprovalRequired) {
			return err
		}
		if c.tier != tier {
			// The pin was compared as it must be for the class before.
			return counterfoil.Refuse(counterfoil.ToolChanged, "the class of %s changed while it was asked about: ask again", s.Tool)
		}
	}
	if misfit := c.conforms(); misfit != nil {
		return misfit
	}
	if err != nil && s.Task != "" {
		// A task is proved by a token that names it. What people allow here is no part
		// of one, or one call would be counted in a task on somebody's word alone.
		return counterfoil.Refuse(counterfoil.PolicyForbids, "a call of class %q needs people, who are not asked about a call in a task on the word of an enforcement point", c.class)
	}
	return err
}

// renewed takes the tool as it is declared now, where it is the point's to ask about, and
// what is declared of the agent. What is not there and what is not the point's to ask
// about are refused alike.
func (c *assertedCall) renewed() error {
	s := &c.statement
	tool, ok := c.resource.Tool(s.Tool.Tool)
	if !ok || !c.serves(c.resource) {
		return c.notServed()
	}
	c.tool = tool
	a := c.registry.Agents[s.Agent]
	if a == nil {
		return nil // revocation says so
	}
	c.caller.Environment = a.Environment
	if a.Tasks.Required && s.Task == "" {
		return counterfoil.Refuse(counterfoil.OutsideTask, "agent %q makes calls in tasks alone, and none is named", s.Agent)
	}
	return nil
}

// serves reports whether the resource, which may be none, is one that the point is in
// front of.
func (c *assertedCall) serves(res *counterfoil.Resource) bool {
	return res != nil && slices.Contains(res.Servers, c.statement.Point.Agent)
}

func (c *assertedCall) notServed() error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "this enforcement point serves no tool %.128q", c.statement.Tool.String())
}

// seeDefinition holds what the upstream says of an MCP tool against what is pinned of it.
func (c *assertedCall) seeDefinition() error {
	if c.resource.Type != counterfoil.ResourceMCP || c.resource.Upstream == "" || isReserved(c.tool.Name) {
		return nil
	}
	// It is asked on the gateway's own behalf, in whatever revision it speaks. Whoever
	// has it asked is the point: see describe.
	probe := &mcpCall{call: c.call}
	probe.words, probe.caller = probe, c.statement.Point
	probe.caller.Subject = c.statement.Agent
	def, err := probe.checkPin(c.ctx, c.tool.Name, c.tier)
	if def != nil {
		c.digest, c.input = def.digest, def.input
	}
	return err
}

// conforms holds what decided against what is declared of the tool: arguments that were
// read are said, and are such as the tool takes.
func (c *assertedCall) conforms() error {
	name, input := c.tool.Name, c.input
	if t := c.webTool(); t != nil {
		input = t.shape
		c.judged = c.judged || input != nil && c.payload != nil // as of every request that has a schema
	}
	switch {
	case !c.judged:
		return nil
	case c.payload == nil:
		return counterfoil.Refuse(counterfoil.PolicyForbids, "the arguments of %s decide whether it may be called, and they are not said", name)
	case input == nil:
		return nil
	}
	return input.check(name, c.payload)
}

// webTool is the tool of a resource over HTTP as it is declared now; nil for any other.
func (c *assertedCall) webTool() *webTool {
	if c.resource.Type != counterfoil.ResourceHTTP {
		return nil
	}
	table := c.gateway.table(c.resource)
	for i := range table.tools {
		if table.tools[i].Name == c.tool.Name {
			return &table.tools[i]
		}
	}
	return nil
}

// pointStands looks at the one who asked once more, right before it is told yes: at the
// registry that is in force, and at revocation.
func (c *assertedCall) pointStands() bool {
	_, reg := c.gateway.cfg.Policy()
	err := c.notServed()
	if c.serves(reg.Resources[c.resource.Name]) {
		err = c.gateway.cfg.Revocation.Revoked(c.ctx, c.statement.Point)
	}
	if err == nil {
		return true
	}
	c.finish(outcome{name: notForwarded, code: counterfoil.CodeOf(err), unsent: true})
	c.fail(err)
	return false
}

// verdict is what the point is told.
func (c *assertedCall) verdict() (counterfoil.Verdict, error) {
	v := counterfoil.Verdict{Class: c.class, Entry: -1}
	if c.decided != nil {
		v.Entry = c.decided.Index
	}
	if c.why == nil {
		v.Allow = c.decided != nil && c.decided.Decision == ledger.Allow
		return v, nil
	}
	r, ok := counterfoil.AsRefusal(c.why)
	if !ok {
		return counterfoil.Verdict{}, c.why
	}
	v.Code, v.Detail, v.Approval = r.Code, r.Detail, r.Approval
	if r.Code != counterfoil.ApprovalRequired || c.gateway.cfg.Approvals == nil || len(c.payload) > maxRequestable {
		return v, nil
	}
	o, err := c.object().encode()
	if err != nil {
		return counterfoil.Verdict{}, err
	}
	v.Digest = counterfoil.CallDigest(o)
	v.Until = c.now.Add(requestTime)
	v.Context, err = c.gateway.sealer.sealDenial(c.statement, v.Until)
	v.Requestable = err == nil
	return v, err
}

func (c *assertedCall) deny(err error, _ *counterfoil.GuardedCall) {
	if c.record(err) {
		c.count(c.gateway.cfg.Answered, err)
		c.why = err
	}
}

func (c *assertedCall) fail(err error) { c.why = err }

func (c *assertedCall) again(*counterfoil.Earlier) (func(), error) {
	return nil, errors.New("answering a question with an earlier call's answer")
}

func (c *assertedCall) lost(counterfoil.Code) []byte { return nil }

func (c *assertedCall) toolID() counterfoil.ToolID { return c.statement.Tool }

func (c *assertedCall) definition() string {
	if t := c.webTool(); t != nil {
		return t.digest
	}
	return c.digest
}

// describe makes it the entry of who asked: an entry's agent is never somebody's word.
func (c *assertedCall) describe(e *ledger.Entry) {
	describePoint(e, &c.statement.Point, c.registry)
	e.Task, e.Actors, e.Scope, e.ToolDigest = "", nil, nil, c.definition()
	detail := map[string]any{"asserted": true, "point": protocolAuthZEN}
	if c.resource.Name != "" {
		// What is asked about by whom it does not concern stays out of the record: it may
		// be anything.
		e.Tool, e.OnBehalfOf = c.resource.Name+"/"+shorten(c.statement.Tool.Tool, 128), shorten(c.statement.Agent, 128)
		e.Task = shorten(c.statement.Task, 128) // which it counts in, where it is allowed
		if c.source.IsValid() {
			detail["address"] = c.source.String()
		}
	} else {
		e.Tool, e.OnBehalfOf = toolEvaluation, ""
	}
	if e.Detail == nil {
		e.Detail = map[string]any{}
	}
	maps.Copy(e.Detail, detail)
}

// describePoint says in an entry who asked. The proof of its request is in the entry of
// that.
func describePoint(e *ledger.Entry, point *counterfoil.Caller, registry *counterfoil.Registry) {
	e.Agent, e.Instance, e.JKT, e.Binding = point.Agent, point.Instance, point.JKT, point.Binding
	e.TokenJTI, e.Epoch, e.Proof, e.Owner = point.TokenID, point.Epoch, "", ""
	e.Source = ledger.Source{Environment: point.Environment}
	if a := registry.Agents[point.Agent]; a != nil {
		e.Owner = a.Owner
	}
}

// counts: people are asked on request alone, so that a question is no more than that.
func (c *assertedCall) counts() bool {
	return c.tier == counterfoil.Routine || c.statement.Approval != ""
}

func (c *assertedCall) keyed() bool { return false }

// object is the call with who asks: what people allow one enforcement point is not for
// another.
func (c *assertedCall) object() *callObject {
	s := &c.statement
	return &callObject{
		Aud: c.url, Env: c.resource.Environment, Resource: c.resource.Name, Protocol: protocolAuthZEN,
		Method: "evaluation", Target: s.Point.Agent, Tool: s.Tool.String(), ToolDigest: c.definition(),
		Agent: s.Point.Agent, Subject: s.Agent, arguments: c.payload,
	}
}

// guard has people asked by the enforcement point, on behalf of the agent.
func (c *assertedCall) guard(g *counterfoil.GuardedCall) error {
	g.Caller = c.statement.Point
	g.Caller.Task, g.Caller.Subject, g.Caller.Actors = "", c.statement.Agent, nil
	g.For = c.statement.Agent
	g.Named = c.statement.Approval
	return nil
}

// RequestAccess asks people about a call that Evaluate refused with approval_required, or
// finds what they were asked before. denial is what the Verdict had as its Context; of
// another point's, of one whose time is over and of anything else it returns
// counterfoil.ErrDenial. The key is the Idempotency-Key; empty when there is none.
// Everything is decided anew first.
func (g *Gateway) RequestAccess(ctx context.Context, point counterfoil.Caller, requestID, denial, key string) (counterfoil.Approval, error) {
	s, err := g.sealer.openDenial(denial, point.Agent, g.cfg.Now())
	if err != nil {
		return counterfoil.Approval{}, err
	}
	if key != "" && !isKey(key) {
		return counterfoil.Approval{}, counterfoil.Refuse(counterfoil.RequestMalformed, "the header %s is 1 to %d visible ASCII characters", headerKey, maxKey)
	}
	s.Point, s.RequestID = point, requestID
	c := g.newAsserted(ctx, s)
	err = c.decide()
	switch {
	case err == nil:
		return counterfoil.Approval{}, counterfoil.Refuse(counterfoil.RequestMalformed, "the call needs nobody now: ask for its evaluation again")
	case !isCode(err, counterfoil.ApprovalRequired) || g.cfg.Approvals == nil:
		return counterfoil.Approval{}, err
	}
	call, err := c.guardedCall()
	if err != nil {
		return counterfoil.Approval{}, err
	}
	call.Key = key
	claimed, err := g.cfg.Approvals.Claim(ctx, call)
	id := claimed.Approval // approved already, and left to be used by an evaluation
	if r, ok := counterfoil.AsRefusal(err); ok && r.Approval != nil {
		id, err = r.Approval.ID, nil
	}
	if err != nil {
		return counterfoil.Approval{}, err
	}
	return g.cfg.Approvals.Status(ctx, id, call.Caller)
}

// A denial is what a point brings back to have people asked.
type denial struct {
	Point     string `json:"point"`
	Agent     string `json:"agent"`
	Resource  string `json:"resource"`
	Tool      string `json:"tool"`
	Arguments []byte `json:"arguments,omitzero"`
	Source    string `json:"source,omitzero"`
	Until     int64  `json:"until"` // seconds since 1970
}

// sealDenial makes what only this deployment opens: a point cannot ask people about what
// was not refused to it.
func (s *sealer) sealDenial(st counterfoil.Statement, until time.Time) (string, error) {
	d := denial{Point: st.Point.Agent, Agent: st.Agent, Resource: st.Tool.Resource, Tool: st.Tool.Tool, Arguments: st.Arguments, Until: until.Unix()}
	if st.Source.IsValid() {
		d.Source = st.Source.String()
	}
	b, err := ijson.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("sealing a denial: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.denials.Seal(nil, nil, b, nil)), nil
}

func (s *sealer) openDenial(text, point string, now time.Time) (counterfoil.Statement, error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return counterfoil.Statement{}, counterfoil.ErrDenial
	}
	b, err := s.denials.Open(nil, nil, sealed, nil)
	if err != nil {
		return counterfoil.Statement{}, counterfoil.ErrDenial
	}
	var d denial
	if err := ijson.Unmarshal(b, &d); err != nil || d.Point != point || !now.Before(time.Unix(d.Until, 0)) {
		return counterfoil.Statement{}, counterfoil.ErrDenial
	}
	st := counterfoil.Statement{Agent: d.Agent, Tool: counterfoil.ToolID{Resource: d.Resource, Tool: d.Tool}, Arguments: d.Arguments}
	if d.Source != "" {
		if st.Source, err = netip.ParseAddr(d.Source); err != nil {
			return counterfoil.Statement{}, counterfoil.ErrDenial
		}
	}
	return st, nil
}

// Inquire decides on a question of an enforcement point in words of its Vocabulary, and
// records the decision. The whole question is the entry's payload.
func (g *Gateway) Inquire(ctx context.Context, requestID string, point counterfoil.Caller, q policy.Inquiry) (counterfoil.Verdict, error) {
	set, registry := g.cfg.Policy()
	name, d := set.Inquire(point.Agent, q)
	why := d.Err()
	if why == nil {
		why = g.cfg.Revocation.Revoked(ctx, point)
	}
	if _, refused := counterfoil.AsRefusal(why); why != nil && !refused {
		return counterfoil.Verdict{}, why
	}
	payload, err := inquiryPayload(q)
	if err != nil {
		return counterfoil.Verdict{}, err
	}
	e := &ledger.Entry{
		Kind: ledger.CallDecided, RequestID: requestID, Tool: toolEvaluation, PolicyDigest: set.Digest(), Decision: ledger.Allow,
		Class: d.Class, Detail: map[string]any{"asserted": true, "point": protocolAuthZEN},
	}
	describePoint(e, &point, registry)
	if name != "" {
		e.Detail["vocabulary"], e.Tier = name, d.Tier.String()
	}
	if g.cfg.View != nil {
		e.View = g.cfg.View()
	}
	v := counterfoil.Verdict{Allow: why == nil, Class: d.Class}
	if r, ok := counterfoil.AsRefusal(why); ok {
		v.Code, v.Detail = r.Code, r.Detail
		e.Decision, e.Code, e.Reason = ledger.Refuse, r.Recorded(), r.Reason()
	}
	// The asker may go away while the entry is on its way: it is durable all the same.
	if err := g.cfg.Recorder.Decide(context.WithoutCancel(ctx), e, payload); err != nil {
		return counterfoil.Verdict{}, recordFault(err)
	}
	v.Entry = e.Index
	if !v.Allow {
		return v, nil
	}
	// Nobody here learns more of how it ends, so nothing is left open.
	end := &ledger.Entry{
		Kind: ledger.CallFinished, RequestID: requestID, Agent: e.Agent, Instance: e.Instance, Tool: e.Tool, Of: e.Index, Outcome: passedOn,
	}
	// What was taken away while the entry was on its way counts.
	if why = g.lastInquiry(ctx, &point, set, q, name); why != nil {
		end.Outcome, end.Code = notForwarded, counterfoil.CodeOf(why)
		v = counterfoil.Verdict{Class: v.Class, Entry: v.Entry}
	}
	if err := g.cfg.Recorder.Finish(context.WithoutCancel(ctx), end); err != nil {
		g.cfg.Log.Error("recording how an inquiry ended", "request_id", requestID, "entry", e.Index, "err", err)
	}
	if r, ok := counterfoil.AsRefusal(why); ok {
		v.Code, v.Detail = r.Code, r.Detail
	} else if why != nil {
		return counterfoil.Verdict{}, why
	}
	return v, nil
}

// lastInquiry looks once more, right before a yes, at the point and at what it asked.
// Where other policies are in force than those that decided, these decide.
func (g *Gateway) lastInquiry(ctx context.Context, point *counterfoil.Caller, decided *policy.Set, q policy.Inquiry, name string) error {
	if set, _ := g.cfg.Policy(); set != decided {
		again, d := set.Inquire(point.Agent, q)
		if err := d.Err(); err != nil {
			return err
		}
		if again != name {
			return counterfoil.Refuse(counterfoil.ToolChanged, "another vocabulary answers this now: ask again")
		}
	}
	return g.cfg.Revocation.Revoked(ctx, *point)
}

// inquiryPayload writes a question down, in canonical JSON.
func inquiryPayload(q policy.Inquiry) ([]byte, error) {
	object := func(members ...member) []byte { return join(members) }
	entity := func(kind, id string, properties []byte) []byte {
		m := []member{{"id", quote(id)}}
		if properties != nil {
			m = append(m, member{"properties", properties})
		}
		return object(append(m, member{"type", quote(kind)})...)
	}
	action := []member{{"name", quote(q.Action)}}
	if q.ActionProperties != nil {
		action = append(action, member{"properties", q.ActionProperties})
	}
	all := []member{{"action", object(action...)}}
	if q.Context != nil {
		all = append(all, member{"context", q.Context})
	}
	all = append(all, member{"resource", entity(q.Resource.Type, q.Resource.ID, q.Resource.Properties)},
		member{"subject", entity(q.Subject.Type, q.Subject.ID, q.Subject.Properties)})
	b, err := ijson.Canonical(object(all...))
	if err != nil {
		return nil, fmt.Errorf("writing an inquiry down: %w", err)
	}
	return b, nil
}
