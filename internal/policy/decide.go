package policy

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"

	"github.com/counterfoil/counterfoil"
)

// A call is one action on its way to a decision. It does not outlive Decide, and
// what it needs for an ordinary decision is inside it, so that it can stay on the
// stack.
type call struct {
	counterfoil.Action
	now   time.Time
	agent *agent
	tool  *tool

	grants []*grant // those that cover the tool and the network
	rules  ruleList // everything in the call's scope, forbids first

	forbids int // how many of the rules are forbids

	args    arguments
	parsed  bool
	context cedar.Record

	grantRoom  [4]*grant
	ruleRoom   [8]*rule
	memberRoom [8]member
}

// A ruleList is a set of policies in order, for Cedar. The id of each is its
// place.
type ruleList []*rule

// All iterates over the rules in their order, which makes diagnostics the same
// each time.
func (l ruleList) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for i, r := range l {
			if !yield(ruleID(i), r.policy) {
				return
			}
		}
	}
}

// ruleID makes an id that rulePlace reads. The first few cost nothing.
func ruleID(i int) cedar.PolicyID {
	const digits = "0123456789"
	if i < len(digits) {
		return cedar.PolicyID(digits[i : i+1])
	}
	return cedar.PolicyID(strconv.Itoa(i))
}

func rulePlace(id cedar.PolicyID) int {
	i, _ := strconv.Atoi(string(id))
	return i
}

// Decide judges one action. Its order is part of the contract: of several
// reasons to refuse the first counts.
//
//  1. tool_unknown: no manifest classifies the tool.
//  2. tool_not_granted: the token's scope or every grant leaves the tool out.
//  3. outside_environment: agent and resource are of different environments, or
//     no covering grant takes calls from the source.
//  4. class_forbidden: the class never runs.
//  5. payload_malformed: a rule reads the arguments and they are no JSON object.
//  6. policy_forbids: a forbid applies, no covering grant's condition holds, or
//     a rule in scope errs or names what has no image.
//  7. tool_not_granted: the token's authorization details bound the call out.
//  8. limit_exceeded: a field that a limit sums is absent, negative, not a
//     decimal, or alone more than the limit.
//  9. approval_required: the class needs a person.
func (s *Set) Decide(a counterfoil.Action, now time.Time) (d Decision) {
	if s == nil {
		return refuse(Decision{}, counterfoil.PolicyForbids, "no policy is loaded")
	}
	c := call{Action: a, now: now}
	c.grants, c.rules = c.grantRoom[:0], c.ruleRoom[:0]
	defer func() {
		// Decide is total: whatever a library does with hostile arguments, the
		// answer is no.
		if p := recover(); p != nil {
			d = refuse(d, counterfoil.PolicyForbids, "the call cannot be evaluated")
		}
	}()
	d = Decision{}
	if r := s.resources[a.Tool.Resource]; r != nil {
		c.tool = r.tools[a.Tool.Tool]
	}
	if c.tool == nil {
		return refuse(d, counterfoil.ToolUnknown, "no manifest classifies %s/%s", a.Tool.Resource, a.Tool.Tool)
	}
	d.Class, d.Tier = c.tool.class, c.tool.tier
	c.agent = s.agents[a.Caller.Agent]
	where := s.resources[a.Tool.Resource].Environment
	d.Allow = c.granted(&d) && c.located(&d, where) && s.permitted(&c, &d) && c.bounded(&d) && c.limited(&d) && c.tiered(&d)
	d.Judged = c.parsed
	return d
}

func refuse(d Decision, code counterfoil.Code, format string, args ...any) Decision {
	d.refuse(code, format, args...)
	return d
}

// maxDetail bounds a detail: errors of libraries repeat what the agent sent.
const maxDetail = 500

// refuse makes the decision a refusal and returns false, which ends the steps.
func (d *Decision) refuse(code counterfoil.Code, format string, args ...any) bool {
	d.Allow = false
	d.Code = code
	d.Detail = fmt.Sprintf(format, args...)
	if len(d.Detail) > maxDetail {
		d.Detail = strings.ToValidUTF8(d.Detail[:maxDetail], "") + "…"
	}
	return false
}

// granted is step 2. It leaves the grants that cover the tool.
func (c *call) granted(d *Decision) bool {
	if !inToken(&c.Caller, c.Tool.Tool) {
		d.scope = c.Tool.Tool
		return d.refuse(counterfoil.ToolNotGranted, "the token's scope does not include %s", c.Tool.Tool)
	}
	if c.agent == nil {
		return d.refuse(counterfoil.ToolNotGranted, "agent %q has no grants", c.Caller.Agent)
	}
	for i := range c.agent.grants {
		if g := &c.agent.grants[i]; g.Covers(c.Tool) {
			c.grants = append(c.grants, g)
		}
	}
	if len(c.grants) == 0 {
		return d.refuse(counterfoil.ToolNotGranted, "no grant of agent %q lists %s", c.Caller.Agent, c.tool.name)
	}
	return true
}

// inToken reports whether the token is for the tool, by scope or by an
// authorization detail.
func inToken(c *counterfoil.Caller, tool string) bool {
	if slices.Contains(c.Scope, tool) {
		return true
	}
	for i := range c.Details {
		if c.Details[i].Tool == tool {
			return true
		}
	}
	return false
}

// located is steps 3 and 4. It leaves the grants that take calls from the
// source. The token's word on the environment counts as well as the registry's:
// neither may be stale in the agent's favour.
func (c *call) located(d *Decision, where string) bool {
	if where == "" || c.agent.environment != where || c.Caller.Environment != where {
		return d.refuse(counterfoil.OutsideEnvironment, "resource %q is in environment %q; the agent is not", c.Tool.Resource, where)
	}
	c.Source = c.Source.Unmap().WithZone("")
	all := c.grants
	c.grants = c.grants[:0]
	for _, g := range all {
		if g.holds(c.Source) {
			c.grants = append(c.grants, g)
		}
	}
	switch {
	case len(c.grants) == 0 && !c.Source.IsValid():
		return d.refuse(counterfoil.OutsideEnvironment, "the grant of %s is bound to networks and the address of this call is unknown", c.tool.name)
	case len(c.grants) == 0:
		return d.refuse(counterfoil.OutsideEnvironment, "no grant of %s takes calls from %s", c.tool.name, c.Source.String())
	case c.tool.tier == counterfoil.Forbidden:
		return d.refuse(counterfoil.ClassForbidden, "class %q never runs", c.tool.class)
	}
	return true
}

// parse reads the arguments once, when somebody asks for them.
func (c *call) parse(d *Decision) bool {
	if c.parsed {
		return true
	}
	c.args.members = c.memberRoom[:0]
	if err := c.args.parse(c.Arguments); err != nil {
		return d.refuse(counterfoil.PayloadMalformed, "the arguments are not one strict JSON object: %s", err.Error())
	}
	c.parsed = true
	return true
}

// permitted is steps 5 and 6: everything that is Cedar.
func (s *Set) permitted(c *call, d *Decision) bool {
	if s.broken != "" {
		return d.refuse(counterfoil.PolicyForbids, "%s", s.broken)
	}
	c.rules = s.forbids.concerning(c.rules, c.agent.uid, c.tool)
	c.forbids = len(c.rules)
	open := false // a covering grant has no condition
	for _, g := range c.grants {
		switch {
		case g.broken:
			return d.refuse(counterfoil.PolicyForbids, "the condition of grant %d of agent %q cannot be compiled", g.index+1, c.Caller.Agent)
		case g.when == nil:
			open = true
		default:
			c.rules = append(c.rules, g.when)
		}
	}
	if len(c.rules) == 0 {
		return true
	}
	if !c.buildContext(d) {
		return false
	}
	verdict, diag := cedar.Authorize(slices.Clone(c.rules), c.tool, cedar.Request{
		Principal: c.agent.uid, Action: actionCall, Resource: c.tool.lineage[0], Context: c.context,
	})
	switch {
	case len(diag.Errors) > 0:
		// Cedar skips a rule that errs. A forbid that could not be evaluated may
		// be the one that forbids, so nothing else counts.
		e := diag.Errors[0]
		return d.refuse(counterfoil.PolicyForbids, "%s cannot be evaluated for this call: %s", c.ruleName(rulePlace(e.PolicyID)), e.Message)
	case verdict == cedar.Allow:
		return true
	case len(diag.Reasons) > 0:
		return d.refuse(counterfoil.PolicyForbids, "%s forbids the call", c.ruleName(rulePlace(diag.Reasons[0].PolicyID)))
	case !open:
		return d.refuse(counterfoil.PolicyForbids, "the call does not meet the condition of %s", c.grantNames())
	}
	return true
}

// ruleName names the i-th rule in scope for the detail of a refusal.
func (c *call) ruleName(i int) string {
	if i < c.forbids {
		return c.rules[i].name
	}
	i -= c.forbids
	for _, g := range c.grants {
		if g.when == nil {
			continue
		}
		if i == 0 {
			return fmt.Sprintf("the condition of grant %d of agent %q", g.index+1, c.Caller.Agent)
		}
		i--
	}
	return "a condition"
}

func (c *call) grantNames() string {
	var names []string
	for _, g := range c.grants {
		names = append(names, fmt.Sprint(g.index+1))
	}
	if len(names) == 1 {
		return fmt.Sprintf("grant %s of agent %q", names[0], c.Caller.Agent)
	}
	return fmt.Sprintf("any of the grants %s of agent %q", strings.Join(names, ", "), c.Caller.Agent)
}

// bounded is step 7. The details of a token for one tool are alternatives; one
// of them must be met.
func (c *call) bounded(d *Decision) bool {
	if len(c.Caller.Details) == 0 {
		return true
	}
	why := ""
	for i := range c.Caller.Details {
		detail := &c.Caller.Details[i]
		if detail.Type != counterfoil.DetailType {
			// What we do not know may be a bound.
			return d.refuse(counterfoil.ToolNotGranted, "the token has an authorization detail of the unknown type %.80q", detail.Type)
		}
		if detail.Tool != c.Tool.Tool {
			continue
		}
		if len(detail.Constraints) > 0 {
			if !c.parse(d) {
				return false
			}
		}
		no := unmet(detail, c)
		if no == "" {
			return true
		}
		why = no
	}
	if why == "" {
		return true // no detail concerns the tool: the scope has it
	}
	return d.refuse(counterfoil.ToolNotGranted, "the token's authorization details do not cover the call: %s", why)
}

// limited is step 8.
func (c *call) limited(d *Decision) bool {
	if len(c.tool.limits) == 0 && c.tool.tier == counterfoil.Routine {
		return true
	}
	if !c.parse(d) {
		return false
	}
	d.Fields = make(map[string]string, len(c.tool.fields))
	for i := range c.tool.fields {
		f := &c.tool.fields[i]
		if raw, ok := c.args.at(f.at); ok {
			d.Fields[f.name] = text(raw)
		}
	}
	for i := range c.tool.limits {
		if why := c.exceeds(&c.tool.limits[i]); why != "" {
			return d.refuse(counterfoil.LimitExceeded, "class %q limits %s: %s", c.tool.class, c.tool.limits[i].field, why)
		}
	}
	return true
}

// exceeds says why a limit refuses the call by itself. A negative amount would
// give budget back.
func (c *call) exceeds(l *limit) string {
	if !l.ok {
		return "the limit is not a decimal of at most four places"
	}
	var raw []byte
	found := false
	for i := range c.tool.fields {
		if c.tool.fields[i].name == l.field {
			raw, found = c.args.at(c.tool.fields[i].at)
		}
	}
	if !found {
		return "the call has no such field"
	}
	n, ok := numberOf(raw)
	if !ok {
		return "the value is not a JSON number"
	}
	units, ok := n.units()
	switch {
	case !ok:
		return "the value is not a decimal of at most four places"
	case units < 0:
		return "the value is negative"
	case units > l.max:
		return fmt.Sprintf("the value alone is more than %s", l.text)
	}
	return ""
}

// tiered is step 9.
func (c *call) tiered(d *Decision) bool {
	switch c.tool.tier {
	case counterfoil.Routine:
		return true
	case counterfoil.Guarded:
		return d.refuse(counterfoil.ApprovalRequired, "class %q is guarded: one person must approve this very call", c.tool.class)
	default:
		return d.refuse(counterfoil.ApprovalRequired, "class %q is irreversible: two people must approve this very call", c.tool.class)
	}
}
