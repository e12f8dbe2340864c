package policy

import (
	"net/netip"
	"strings"

	"github.com/cedar-policy/cedar-go"

	"github.com/counterfoil/counterfoil"
)

// named reports whether a rule in scope names the member of the context.
func (c *call) named(member string) bool {
	for _, r := range c.rules {
		if r.reads.member(member) {
			return true
		}
	}
	return false
}

func (c *call) namedInner(parent, name string) bool {
	for _, r := range c.rules {
		if r.reads.inner(parent, name) {
			return true
		}
	}
	return false
}

// buildContext makes those members of the context that a rule in scope names,
// and refuses the call when a rule names what has no image. A call whose rules
// name nothing costs nothing.
func (c *call) buildContext(d *Decision) bool {
	var m contextMap
	var im imager
	im.path = im.room[:0]
	if c.named(ctxArgs) {
		if !c.parse(d) {
			return false
		}
		m.set(ctxArgs, c.argsRecord(&im))
	}
	if c.named(ctxFields) {
		if !c.parse(d) {
			return false
		}
		m.set(ctxFields, c.fieldsRecord(&im))
	}
	if c.Opaque {
		if !c.withoutBody(d) {
			return false
		}
	}
	for _, path := range im.without {
		for i, r := range c.rules {
			if r.reads.touches(path) {
				return d.refuse(counterfoil.PolicyForbids,
					"%s reads %s, which has a value that no rule can judge: null, a number beyond ±(2^53−1) or of more than four decimal places, or too large an array",
					c.ruleName(i), contextName(path))
			}
		}
	}
	c.setCircumstances(&m)
	if m.m != nil {
		c.context = cedar.NewRecord(m.m)
	}
	return true
}

// withoutBody refuses the call when a rule names the body of the request, or a field
// that is read out of it, and the body is none that can be judged.
func (c *call) withoutBody(d *Decision) bool {
	paths := [][]string{{ctxArgs, bodyMember}}
	for _, f := range c.tool.fields {
		if len(f.at) == 0 || f.at[0] == bodyMember {
			paths = append(paths, []string{ctxFields, f.name})
		}
	}
	for _, path := range paths {
		for i, r := range c.rules {
			if r.reads.touches(path) {
				return d.refuse(counterfoil.PolicyForbids, "%s reads %s, and the body of this call is none that a rule can judge: send JSON", c.ruleName(i), contextName(path))
			}
		}
	}
	return true
}

// bodyMember is the arguments' member that is the body of a request over HTTP.
const bodyMember = "body"

// A contextMap is a context in the making.
type contextMap struct{ m cedar.RecordMap }

func (m *contextMap) set(name cedar.String, v cedar.Value) {
	if m.m == nil {
		m.m = cedar.RecordMap{}
	}
	m.m[name] = v
}

// contextName writes a path as a rule would.
func contextName(path []string) string {
	if len(path) == 0 {
		return "the arguments"
	}
	s := "context." + strings.Join(path, ".")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

func (c *call) argsRecord(im *imager) cedar.Record {
	m := cedar.RecordMap{} // as many as are named, not as many as were sent
	for i := range c.args.members {
		arg := &c.args.members[i]
		name := string(arg.name)
		if !c.namedInner(ctxArgs, name) {
			continue
		}
		if v, ok := im.member(ctxArgs, name, arg.raw); ok {
			m[cedar.String(name)] = v
		}
	}
	return cedar.NewRecord(m)
}

func (c *call) fieldsRecord(im *imager) cedar.Record {
	im.decimals = true
	m := cedar.RecordMap{}
	for i := range c.tool.fields {
		f := &c.tool.fields[i]
		if !c.namedInner(ctxFields, f.name) {
			continue
		}
		raw, ok := c.args.at(f.at)
		if !ok {
			continue // truly absent: `has` says so, anything else errs
		}
		if v, ok := im.member(ctxFields, f.name, raw); ok {
			m[cedar.String(f.name)] = v
		}
	}
	return cedar.NewRecord(m)
}

// setCircumstances sets the members that do not come from the arguments.
func (c *call) setCircumstances(m *contextMap) {
	if c.named(ctxHour) {
		m.set(ctxHour, cedar.Long(c.now.UTC().Hour()))
	}
	if c.named(ctxWeekday) {
		m.set(ctxWeekday, cedar.Long((int(c.now.UTC().Weekday())+6)%7+1))
	}
	if c.Source.IsValid() && c.named(ctxNetwork) {
		m.set(ctxNetwork, cedar.IPAddr(netip.PrefixFrom(c.Source, c.Source.BitLen())))
	}
	c.setText(m, ctxTask, c.Caller.Task)
	c.setText(m, ctxSubject, c.Caller.Subject)
	c.setText(m, ctxKeyKind, c.Caller.KeyKind)
	if len(c.Caller.Actors) > 0 && c.named(ctxActors) {
		actors := make([]cedar.Value, len(c.Caller.Actors))
		for i, a := range c.Caller.Actors {
			actors[i] = cedar.String(a)
		}
		m.set(ctxActors, cedar.NewSet(actors...))
	}
}

// setText sets a member that is absent when it is empty.
func (c *call) setText(m *contextMap, name, value string) {
	if value != "" && c.named(name) {
		m.set(cedar.String(name), cedar.String(value))
	}
}
