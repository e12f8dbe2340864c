package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// bearerWarnings warns of a resource that takes credentials whose thief has all that
// they open, and of such credentials that open nothing.
func bearerWarnings(reg *counterfoil.Registry, r *counterfoil.Resource, now time.Time) []string {
	var out []string
	warn := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("Resource %s: ", r.Name)+fmt.Sprintf(format, args...))
	}
	mode := r.BindingAt(now)
	switch {
	case mode == counterfoil.BindingObserve:
		warn("binding: observe takes a bearer token for all that its agent may, so whoever steals one may the same%s", until(r))
	case mode == counterfoil.BindingPrefer:
		warn("binding: prefer takes a bearer token for routine classes, so whoever steals one may call these%s", until(r))
	case r.Binding != counterfoil.BindingRequire:
		warn("require_from: %s is past, so binding is require; write `binding: require` and leave require_from out", r.RequireFrom.Format(time.RFC3339))
	case len(r.Bearers) > 0:
		warn("bearers: none is taken, because binding is require")
	}
	for i, b := range r.Bearers {
		a := reg.Agents[b.Agent]
		switch {
		case a == nil:
		case a.Environment != r.Environment:
			warn("bearers[%d]: agent %s is of environment %s, so the credential opens nothing here, in %s", i, a.Name, a.Environment, r.Environment)
		case !grantsAt(a, r.Name):
			warn("bearers[%d]: agent %s has no grant for this resource, so the credential opens nothing", i, a.Name)
		}
	}
	return out
}

func until(r *counterfoil.Resource) string {
	if r.RequireFrom.IsZero() {
		return "; require_from would end it by itself"
	}
	return ", until " + r.RequireFrom.Format(time.RFC3339)
}

func grantsAt(a *counterfoil.Agent, resource string) bool {
	return slices.ContainsFunc(a.Grants, func(g counterfoil.Grant) bool {
		return slices.ContainsFunc(g.Tools, func(t counterfoil.ToolID) bool { return t.Resource == resource })
	})
}

// httpWarnings warns of fields that are nowhere in the arguments of an HTTP call, or not
// in all of them.
func httpWarnings(r *counterfoil.Resource) []string {
	if r.Type != counterfoil.ResourceHTTP {
		return nil
	}
	var out []string
	for i := range r.Tools {
		t := &r.Tools[i]
		for _, name := range slices.Sorted(maps.Keys(t.Fields)) {
			tokens, err := policy.ParsePointer(t.Fields[name])
			switch {
			case err != nil:
			case !slices.Contains(argumentParts, tokens[0]):
				out = append(out, fmt.Sprintf("Resource %s: field %s of %s is never there: the arguments of an http tool are path, query and body, so it begins with one of /path, /query, /body", r.Name, name, t.Name))
			case tokens[0] == "body" && len(t.Consumes) > 0:
				out = append(out, fmt.Sprintf("Resource %s: %s takes %s, and refuses it all the same: field %s is in the body, which is read only where it is JSON", r.Name, t.Name, strings.Join(t.Consumes, ", "), name))
			case tokens[0] == "path" && len(tokens) > 1 && !slices.Contains(strings.Split(t.Path, "/"), "{"+tokens[1]+"}"):
				out = append(out, fmt.Sprintf("Resource %s: field %s of %s is never there: %s has no {%s}", r.Name, name, t.Name, t.Path, tokens[1]))
			}
		}
		if of := covered(r, t); len(of) > 0 {
			out = append(out, fmt.Sprintf("Resource %s: %s (%s %s) covers %s, of another class or none: what is called so, or looks like it to some servers, is no call of %s", r.Name, t.Name, t.Method, t.Path, some(of), t.Name))
		}
	}
	return out
}

// covered returns the tools of other classes, or of none, that have a text in the place
// of a variable of a tool's.
func covered(r *counterfoil.Resource, t *counterfoil.Tool) []string {
	var out []string
	mine := strings.Split(strings.TrimSuffix(t.Path, "/"), "/")
	for _, other := range r.Tools {
		theirs := strings.Split(strings.TrimSuffix(other.Path, "/"), "/")
		if t.Class == "" || other.Class == t.Class || other.Method != t.Method || len(mine) != len(theirs) {
			continue
		}
		within, fits := false, true
		for i := range mine {
			within = within || isVariable(mine[i]) && !isVariable(theirs[i])
			fits = fits && (isVariable(mine[i]) || isVariable(theirs[i]) || strings.EqualFold(mine[i], theirs[i]))
		}
		if within && fits {
			out = append(out, other.Name+" ("+other.Path+")")
		}
	}
	return out
}
