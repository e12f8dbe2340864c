package authority

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

// ladder orders the binding modes: how much whoever stole a token can do.
var ladder = map[string]int{counterfoil.BindingRequire: 0, counterfoil.BindingPrefer: 1, counterfoil.BindingObserve: 2}

// loosened says where a change of the registry lets a token be used without the key
// that it is bound to, which it could not be before, or could not for as long. Nobody is
// asked about it, because what people sign for is asked for in every mode; it is
// recorded, and whoever applies it is told. It is in the order of names.
func loosened(before, after *counterfoil.Registry, now time.Time) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(after.Resources)) {
		old, r := before.Resources[name], after.Resources[name]
		if old == nil {
			old = &counterfoil.Resource{Binding: counterfoil.BindingRequire}
		}
		add := func(format string, args ...any) {
			out = append(out, fmt.Sprintf("Resource %s: ", name)+fmt.Sprintf(format, args...))
		}
		was, is := old.BindingAt(now), r.BindingAt(now)
		if ladder[is] == 0 {
			continue
		}
		if ladder[is] > ladder[was] {
			add("binding goes from %s to %s", was, is)
		}
		if from := old.RequireFrom; from.After(now) && (r.RequireFrom.IsZero() || r.RequireFrom.After(from)) {
			add("binding is not %s from %s on, as it was to be", counterfoil.BindingRequire, from.Format(time.RFC3339))
		}
		for i := range r.Bearers {
			if b := &r.Bearers[i]; ladder[was] == 0 || !slices.ContainsFunc(old.Bearers, func(o counterfoil.Bearer) bool { return sameBearer(&o, b) }) {
				add("takes the bearer credential %s for agent %s", b.Label(), b.Agent)
			}
		}
	}
	return out
}

// covered says which tools that are new at a resource an agent may call by a grant of
// every tool there, which it had before: nobody wrote its name beside theirs, and where
// classes are suggested nobody wrote the tools. It is recorded and told, like loosened.
func covered(before, after *counterfoil.Registry) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(after.Agents)) {
		old := before.Agents[name]
		if old == nil {
			continue
		}
		was, is := everyTool(old), everyTool(after.Agents[name])
		for _, res := range slices.Sorted(maps.Keys(is)) {
			there := before.Resources[res]
			if there == nil || !was[res] {
				continue
			}
			var tools []string
			for _, t := range after.Resources[res].Tools {
				c := after.Classes[t.Class]
				if _, had := there.Tool(t.Name); !had && c != nil && c.Tier != counterfoil.Forbidden {
					tools = append(tools, fmt.Sprintf("%s (%s, %s)", t.Name, c.Name, c.Tier))
				}
			}
			const most = 5
			if n := len(tools) - most; n > 0 {
				tools = append(tools[:most], fmt.Sprintf("and %d more", n))
			}
			if len(tools) > 0 {
				out = append(out, fmt.Sprintf("Agent %s: %s/%s covers what is new there: %s", name, res, counterfoil.EveryTool, strings.Join(tools, ", ")))
			}
		}
	}
	return out
}

// everyTool returns the resources of which an agent is granted every tool.
func everyTool(a *counterfoil.Agent) map[string]bool {
	out := map[string]bool{}
	for _, g := range a.Grants {
		for _, t := range g.Tools {
			if t.Tool == counterfoil.EveryTool {
				out[t.Resource] = true
			}
		}
	}
	return out
}

func sameBearer(a, b *counterfoil.Bearer) bool {
	return a.Agent == b.Agent && a.Key == b.Key && a.Issuer == b.Issuer && a.Subject == b.Subject && a.Audience == b.Audience &&
		a.JWKSURI == b.JWKSURI && slices.Equal(a.Keys, b.Keys)
}
