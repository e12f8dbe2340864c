package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/counterfoil/counterfoil"
)

// Warnings returns what is in force and yet suspicious: rules that name what
// does not exist, and tools whose every call some condition or limit refuses.
// None of it is an error, since documents come and go one by one.
func Warnings(reg *counterfoil.Registry) []Problem {
	if reg == nil {
		return nil
	}
	set, _ := Load(reg)
	w := warner{reg: reg, set: set}
	for _, name := range slices.Sorted(maps.Keys(reg.Policies)) {
		if p := reg.Policies[name]; p != nil {
			w.policy(name, p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(set.agents)) {
		w.agent(name, set.agents[name])
	}
	for _, name := range slices.Sorted(maps.Keys(set.resources)) {
		w.limits(set.resources[name])
	}
	return w.found
}

type warner struct {
	reg   *counterfoil.Registry
	set   *Set
	found []Problem
}

func (w *warner) add(kind, name, field, format string, args ...any) {
	w.found = append(w.found, Problem{Kind: kind, Name: name, Field: field, Text: fmt.Sprintf(format, args...)})
}

// policy warns of entities that are not there: a forbid for a misspelt class
// never applies.
func (w *warner) policy(name string, p *counterfoil.Policy) {
	rules, _ := compilePolicy(name, p.Cedar)
	seen := map[cedar.EntityUID]bool{}
	look := func(e cedar.EntityUID) {
		if text := w.missing(e); text != "" && !seen[e] {
			w.add("Policy", name, fieldCedar, "%s", text)
		}
		seen[e] = true
	}
	for _, r := range rules {
		for _, s := range []scope{r.principal, r.resource} {
			if s.bound {
				look(s.entity)
			}
		}
		for _, c := range (*ast.Policy)(r.policy.AST()).Conditions {
			ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
				if v, ok := n.(ast.NodeValue); ok {
					if e, ok := v.Value.(cedar.EntityUID); ok {
						look(e)
					}
				}
				return true
			})
		}
	}
}

// missing says that an entity is not in the registry.
func (w *warner) missing(e cedar.EntityUID) string {
	id := string(e.ID)
	var known []string
	switch e.Type {
	case typeAgent:
		known = slices.Sorted(maps.Keys(w.reg.Agents))
	case typeClass:
		known = slices.Sorted(maps.Keys(w.reg.Classes))
	case typeResource:
		known = slices.Sorted(maps.Keys(w.reg.Resources))
	case typeTool:
		for _, r := range w.set.resources {
			for _, t := range r.tools {
				known = append(known, t.id.String())
			}
		}
		slices.Sort(known)
	case "Action":
		known = []string{string(actionCall.ID)}
	default:
		return fmt.Sprintf("names %s, but no call has an entity of that type", e)
	}
	if slices.Contains(known, id) {
		return ""
	}
	hint := ""
	if near := Nearest(id, known); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return fmt.Sprintf("names %s, which does not exist%s", e, hint)
}

// agent warns of grants that no call can use.
func (w *warner) agent(name string, a *agent) {
	for i := range a.grants {
		g := &a.grants[i]
		place := fmt.Sprintf("grants[%d]", i)
		for _, t := range w.covered(g) {
			r := w.set.resources[t.id.Resource]
			if r.Environment != a.environment {
				w.add("Agent", name, place, "grants %s, but the agent is in environment %q and the resource in %q: every call is refused", t.id, a.environment, r.Environment)
			}
			if r.Type == counterfoil.ResourceDirect && t.tier != counterfoil.Routine {
				w.add("Agent", name, place, "grants %s, but at a direct resource no token names a tool of class %q: nobody would ask a person", t.id, t.class)
			}
			if missing := missingFields(g, t); len(missing) > 0 {
				w.add("Agent", name, place+"."+fieldWhen, "reads context.fields.%s, which %s does not have: unless the condition asks with `has` first, every call is refused",
					strings.Join(missing, ", context.fields."), t.id)
			}
		}
	}
}

// covered returns the classified tools that the grant covers, in order.
func (w *warner) covered(g *grant) []*tool {
	var out []*tool
	for _, id := range g.Tools {
		r := w.set.resources[id.Resource]
		if r == nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(r.tools)) {
			if id.Tool == name || id.Tool == "*" {
				out = append(out, r.tools[name])
			}
		}
	}
	return out
}

// missingFields returns the fields that the grant's condition reads and the tool
// does not have.
func missingFields(g *grant, t *tool) []string {
	if g.when == nil {
		return nil
	}
	var out []string
	for _, p := range g.when.reads.paths {
		if p[0] == ctxFields && len(p) > 1 && !t.hasField(p[1]) && !slices.Contains(out, p[1]) {
			out = append(out, p[1])
		}
	}
	return out
}

func (t *tool) hasField(name string) bool {
	return slices.ContainsFunc(t.fields, func(f field) bool { return f.name == name })
}

// limits warns of tools whose class limits a field that they do not have.
func (w *warner) limits(r *resource) {
	for _, name := range slices.Sorted(maps.Keys(r.tools)) {
		t := r.tools[name]
		for _, l := range t.limits {
			if !t.hasField(l.field) {
				w.add("Resource", r.Name, "tools."+name, "class %q limits the field %q, which tool %s does not have: every call is refused (limit_exceeded)", t.class, l.field, name)
			}
		}
	}
}
