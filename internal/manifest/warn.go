package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// Warnings returns what is in force and yet suspicious: calls that nobody can
// approve, classes below their lowest tier, rules that name what does not exist.
// Each is one line.
func Warnings(reg *counterfoil.Registry) []string {
	if reg == nil {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(reg.Classes)) {
		c := reg.Classes[name]
		if c != nil && c.Tier > counterfoil.LowestTier(name) {
			out = append(out, fmt.Sprintf("Class %s: runs as %s, below %s, because of insecure_lower_tier", name, c.Tier, counterfoil.LowestTier(name)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reg.Agents)) {
		if a := reg.Agents[name]; a != nil {
			out = append(out, approvalWarnings(reg, a)...)
		}
	}
	for _, p := range policy.Warnings(reg) {
		at := ""
		if p.Field != "" {
			at = p.Field + ": "
		}
		out = append(out, fmt.Sprintf("%s %s: %s%s", p.Kind, p.Name, at, p.Text))
	}
	return out
}

// approvalWarnings warns of classes that the agent may call and that too few
// people may approve for it.
func approvalWarnings(reg *counterfoil.Registry, a *counterfoil.Agent) []string {
	var out []string
	for _, name := range callableClasses(reg, a) {
		c := reg.Classes[name]
		if c == nil {
			continue
		}
		need := map[counterfoil.Tier]int{counterfoil.Guarded: 1, counterfoil.Irreversible: 2}[c.Tier]
		switch {
		case need == 0:
			continue
		case len(c.Approvers) == 0:
			out = append(out, fmt.Sprintf("Class %s: names no approvers, so no call of agent %s can be approved", name, a.Name))
			continue
		}
		need = max(need, len(c.Approvers))
		eligible := eligiblePeople(reg, c, a)
		switch {
		case len(eligible) < need:
			out = append(out, fmt.Sprintf("Class %s: a call of agent %s needs %d approvers and %d may approve%s%s",
				name, a.Name, need, len(eligible), nameList(eligible), ownerNote(reg, c, a)))
		case !canSatisfy(reg, c.Approvers, eligible):
			out = append(out, fmt.Sprintf("Class %s: no choice of different people gives a call of agent %s an approver of each of %s%s",
				name, a.Name, approverText(c.Approvers), ownerNote(reg, c, a)))
		}
	}
	return out
}

// callableClasses returns the classes of the tools that the agent's grants
// cover.
func callableClasses(reg *counterfoil.Registry, a *counterfoil.Agent) []string {
	classes := map[string]bool{}
	for i := range a.Grants {
		for _, id := range a.Grants[i].Tools {
			r := reg.Resources[id.Resource]
			switch {
			case r == nil:
			case id.Tool == "*":
				for _, t := range r.Tools {
					classes[t.Class] = true
				}
				classes[r.Resources], classes[r.Prompts] = true, true
			default:
				if t, ok := r.Tool(id.Tool); ok {
					classes[t.Class] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(classes))
}

// eligiblePeople returns who is in one of the class's groups. The owner of the
// agent is not eligible unless the class says so.
func eligiblePeople(reg *counterfoil.Registry, c *counterfoil.Class, a *counterfoil.Agent) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		p := reg.People[name]
		if p == nil || (name == a.Owner && !c.OwnerMayApprove) {
			continue
		}
		if slices.ContainsFunc(c.Approvers, func(groups []string) bool { return inOne(p, groups) }) {
			out = append(out, name)
		}
	}
	return out
}

func inOne(p *counterfoil.Person, groups []string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(p.Groups, g) })
}

// canSatisfy reports whether different people can stand for all the demands
// (augmenting paths).
func canSatisfy(reg *counterfoil.Registry, demands [][]string, people []string) bool {
	holds := map[string]int{} // person to demand
	var assign func(demand int, seen map[string]bool) bool
	assign = func(demand int, seen map[string]bool) bool {
		for _, name := range people {
			if seen[name] || !inOne(reg.People[name], demands[demand]) {
				continue
			}
			seen[name] = true
			if other, taken := holds[name]; !taken || assign(other, seen) {
				holds[name] = demand
				return true
			}
		}
		return false
	}
	for i := range demands {
		if !assign(i, map[string]bool{}) {
			return false
		}
	}
	return true
}

func nameList(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func ownerNote(reg *counterfoil.Registry, c *counterfoil.Class, a *counterfoil.Agent) string {
	p := reg.People[a.Owner]
	if c.OwnerMayApprove || p == nil || !slices.ContainsFunc(c.Approvers, func(g []string) bool { return inOne(p, g) }) {
		return ""
	}
	return fmt.Sprintf("; %s owns the agent and may not", a.Owner)
}

func approverText(demands [][]string) string {
	parts := make([]string, len(demands))
	for i, d := range demands {
		parts[i] = "[" + strings.Join(d, ", ") + "]"
	}
	return strings.Join(parts, " and ")
}
