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

// Warnings returns what is in force and yet suspicious: calls that nobody can
// approve, one human under two names, classes below their lowest tier, rules that
// name what does not exist, bearer credentials that are no use, or still are. Each is one
// line. What depends on the time is as of now.
func Warnings(reg *counterfoil.Registry, now time.Time) []string {
	if reg == nil {
		return nil
	}
	out := append(mailboxWarnings(reg), signalWarnings(reg)...)
	for _, name := range slices.Sorted(maps.Keys(reg.Classes)) {
		c := reg.Classes[name]
		if c == nil {
			continue
		}
		if c.Tier > counterfoil.LowestTier(name) {
			out = append(out, fmt.Sprintf("Class %s: runs as %s, below %s, because of insecure_lower_tier", name, c.Tier, counterfoil.LowestTier(name)))
		}
		out = append(out, templateWarnings(reg, c)...)
	}
	for _, name := range slices.Sorted(maps.Keys(reg.Resources)) {
		if r := reg.Resources[name]; r != nil {
			out = append(out, bearerWarnings(reg, r, now)...)
			out = append(out, httpWarnings(r)...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reg.Agents)) {
		if a := reg.Agents[name]; a != nil {
			out = append(out, approvalWarnings(reg, a)...)
			out = append(out, orchestratorWarnings(reg, a)...)
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

// mailboxWarnings warns of people who have one mailbox: two records, one human.
func mailboxWarnings(reg *counterfoil.Registry) []string {
	behind := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		if p := reg.People[name]; p != nil {
			behind[p.Mailbox()] = append(behind[p.Mailbox()], name)
		}
	}
	var out []string
	for _, mailbox := range slices.Sorted(maps.Keys(behind)) {
		if names := behind[mailbox]; len(names) > 1 {
			out = append(out, fmt.Sprintf("People %s have one mailbox, %s: they count as one person for approvals", strings.Join(names, ", "), mailbox))
		}
	}
	return out
}

// signalWarnings warns of people whom no transmitter can speak about, because events
// name people by their e-mail.
func signalWarnings(reg *counterfoil.Registry) []string {
	if len(reg.Transmitters) == 0 {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		if p := reg.People[name]; p != nil && p.Email == "" {
			out = append(out, fmt.Sprintf("Person %s: has no email, so no transmitter's event about this person has an effect", name))
		}
	}
	return out
}

// orchestratorWarnings warns of orchestrators beyond the agent's environment: what
// they cannot call themselves they could have called.
func orchestratorWarnings(reg *counterfoil.Registry, a *counterfoil.Agent) []string {
	var out []string
	for _, name := range a.Tasks.Orchestrators {
		if o := reg.Agents[name]; o != nil && o.Environment != a.Environment {
			out = append(out, fmt.Sprintf("Agent %s: tasks.orchestrators: Agent %s is of environment %s and may open tasks here, in %s", a.Name, name, o.Environment, a.Environment))
		}
	}
	return out
}

// templateWarnings warns of fields that a class's template shows and a tool of the
// class has not.
func templateWarnings(reg *counterfoil.Registry, c *counterfoil.Class) []string {
	fields, err := templateFields(c.Template)
	if err != nil {
		return nil // none, or one that was kept before templates were checked this closely
	}
	var out []string
	for _, field := range fields {
		var lack []string
		for _, name := range slices.Sorted(maps.Keys(reg.Resources)) {
			for _, t := range classifiedTools(reg.Resources[name]) {
				if _, has := t.Fields[field]; t.Class == c.Name && !has {
					lack = append(lack, name+"/"+t.Name)
				}
			}
		}
		if len(lack) > 0 {
			out = append(out, fmt.Sprintf("Class %s: template: {{.%s}} shows nothing for %s, which %s no field %s",
				c.Name, field, strings.Join(lack, ", "), map[bool]string{true: "has", false: "have"}[len(lack) == 1], field))
		}
	}
	return out
}

// classifiedTools returns every tool that a resource classifies, its resources and
// prompts among them.
func classifiedTools(r *counterfoil.Resource) []counterfoil.Tool {
	if r == nil {
		return nil
	}
	tools := slices.DeleteFunc(slices.Clone(r.Tools), func(t counterfoil.Tool) bool { return t.Class == "" })
	for _, name := range []string{counterfoil.ToolResources, counterfoil.ToolPrompts} {
		if t, ok := r.Tool(name); ok && !slices.ContainsFunc(tools, func(o counterfoil.Tool) bool { return o.Name == name }) {
			tools = append(tools, t)
		}
	}
	return tools
}

// approvalWarnings warns of classes that the agent may call and that too few
// people may approve for it.
func approvalWarnings(reg *counterfoil.Registry, a *counterfoil.Agent) []string {
	var out []string
	for _, name := range callableClasses(reg, a) {
		c := reg.Classes[name]
		switch {
		case c == nil || c.Tier == counterfoil.Forbidden || c.Tier == counterfoil.Routine:
			continue
		case len(c.Approvers) == 0:
			out = append(out, fmt.Sprintf("Class %s: names no approvers, so no call of agent %s can be approved", name, a.Name))
			continue
		}
		rule := counterfoil.RuleOf(c)
		eligible := eligibleHumans(reg, rule, a)
		switch {
		case len(eligible) < rule.Required:
			out = append(out, fmt.Sprintf("Class %s: a call of agent %s needs %d approvers and %d may approve%s%s",
				name, a.Name, rule.Required, len(eligible), nameList(eligible), ownerNote(reg, rule, a)))
		case !canSatisfy(rule.Groups, eligible):
			out = append(out, fmt.Sprintf("Class %s: no choice of different people gives a call of agent %s an approver of each of %s%s",
				name, a.Name, approverText(rule.Groups), ownerNote(reg, rule, a)))
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

// A human is everybody in the registry who has one mailbox: one signature.
type human []*counterfoil.Person

// eligibleHumans returns who is in one of the rule's groups, by mailbox. The owner
// of the agent is not eligible unless the rule says so, under no name.
func eligibleHumans(reg *counterfoil.Registry, rule counterfoil.ApprovalRule, a *counterfoil.Agent) []human {
	owner := ""
	if p := reg.People[a.Owner]; p != nil && !rule.OwnerMayApprove {
		owner = p.Mailbox()
	}
	at := map[string]int{}
	var out []human
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		p := reg.People[name]
		if p == nil || p.Mailbox() == owner || !inAny(p, rule.Groups) {
			continue
		}
		i, known := at[p.Mailbox()]
		if !known {
			i = len(out)
			at[p.Mailbox()] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], p)
	}
	return out
}

func inAny(p *counterfoil.Person, demands [][]string) bool {
	return slices.ContainsFunc(demands, func(groups []string) bool { return inOne(p, groups) })
}

func inOne(p *counterfoil.Person, groups []string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(p.Groups, g) })
}

// canSatisfy reports whether different people can stand for all the demands.
func canSatisfy(demands [][]string, people []human) bool {
	return counterfoil.Matched(len(demands), len(people), func(d, c int) bool {
		return slices.ContainsFunc(people[c], func(p *counterfoil.Person) bool { return inOne(p, demands[d]) })
	}) == len(demands)
}

func nameList(people []human) string {
	if len(people) == 0 {
		return ""
	}
	names := make([]string, len(people))
	for i, h := range people {
		names[i] = h[0].Name
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// ownerNote says that the owner would be eligible and may not, where that is so.
func ownerNote(reg *counterfoil.Registry, rule counterfoil.ApprovalRule, a *counterfoil.Agent) string {
	owner := reg.People[a.Owner]
	if rule.OwnerMayApprove || owner == nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		if p := reg.People[name]; p != nil && p.Mailbox() == owner.Mailbox() && inAny(p, rule.Groups) {
			return fmt.Sprintf("; %s owns the agent and may not", a.Owner)
		}
	}
	return ""
}

func approverText(demands [][]string) string {
	parts := make([]string, len(demands))
	for i, d := range demands {
		parts[i] = "[" + strings.Join(d, ", ") + "]"
	}
	return strings.Join(parts, " and ")
}
