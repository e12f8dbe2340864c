package authority

import (
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// A target is what a token is for: a resource, or the issuer itself, whose token
// opens the agent's own pages and no tool.
type target struct {
	id       string                // the audience
	name     string                // of the resource; empty for the issuer
	resource *counterfoil.Resource // nil for the issuer
}

// A grantedScope is what a token gives.
type grantedScope struct {
	tools   []string
	details []counterfoil.ToolDetail
}

func (g grantedScope) scope() string { return strings.Join(g.tools, " ") }

// maxGranted bounds scope and details together, in bytes, so that a token fits
// into the 8 KiB header that it travels in, after base64 and with its claims.
const maxGranted = 5 << 10

// narrow finds the resource and what of the agent's grants the token gives.
//
// Without scope and authorization_details a token has every tool that is
// granted. Otherwise it has exactly the union of the tools that either names:
// details name tools and bound their arguments, and a tool that is in both is
// bound. At a direct resource, where nobody would ask a person, policy keeps
// what is above routine out of a standing token. Of all that, a token of a task has
// what the task and those above it cover.
func (a *Authority) narrow(at *attempt) error {
	var registry *counterfoil.Registry
	at.set, registry = a.Policy()
	if at.form.task != "" {
		var err error
		if at.chain, err = a.taskFor(at.who.agent.Name, at.form.task, at.now); err != nil {
			return err
		}
	}
	if at.form.resource == a.cfg.Issuer {
		// Before tasks are asked for: this is how one is opened.
		at.target = target{id: a.cfg.Issuer}
		return noTools(at.form)
	}
	if at.who.agent.Tasks.Required && len(at.chain) == 0 {
		return counterfoil.Refuse(counterfoil.TaskClosed, "agent %s works in tasks only, and the request names none", at.who.agent.Name)
	}
	found, ok := a.findTarget(registry, at.form.resource)
	if !ok || found.resource.Environment != at.who.agent.Environment {
		return noTarget()
	}
	at.target = found
	tools, err := a.narrowTools(at, found)
	if err != nil {
		return err
	}
	g := grantedScope{tools: tools, details: at.form.details}
	if size := len(g.scope()) + detailsSize(g.details); size > maxGranted {
		return counterfoil.Refuse(counterfoil.ScopeInvalid, "what is asked for makes a token of more than 8 KiB; name fewer tools in scope")
	}
	at.granted = g
	return nil
}

func (a *Authority) narrowTools(at *attempt, found target) ([]string, error) {
	agent := at.who.agent.Name
	_, err := at.set.Narrow(agent, found.name, nil)
	switch {
	case err == nil:
	case counterfoil.CodeOf(err) == counterfoil.ApprovalRequired:
		return nil, err
	default:
		return nil, noTarget() // unknown, of another environment, nothing granted: one answer
	}
	named := detailTools(at.form.details)
	if len(named) > 0 {
		if _, err := at.set.Narrow(agent, found.name, named); err != nil {
			return nil, asDetails(err)
		}
		if err := checkDetails(at.form.details, found, func(tool string) (string, bool) {
			return a.cfg.Store.Pin(found.name, tool)
		}); err != nil {
			return nil, err
		}
	}
	granted, err := at.set.Narrow(agent, found.name, union(at.form.scope, named))
	if err != nil {
		return nil, err
	}
	return withinTask(at, found.name, granted, named)
}

// withinTask keeps what the attempt's task covers: of all that is granted when nothing
// was asked for by name, and otherwise all of it or nothing.
func withinTask(at *attempt, resource string, granted, named []string) ([]string, error) {
	if len(at.chain) == 0 {
		return granted, nil
	}
	var kept []string
	for _, tool := range granted {
		switch {
		case at.chain.covers(counterfoil.ToolID{Resource: resource, Tool: tool}):
			kept = append(kept, tool)
		case slices.Contains(named, tool):
			return nil, counterfoil.Refuse(counterfoil.DetailsInvalid, "authorization_details: the task does not include tool %q", tool)
		case slices.Contains(at.form.scope, tool):
			return nil, counterfoil.Refuse(counterfoil.ScopeInvalid, "the task does not include tool %q", tool)
		}
	}
	if len(kept) == 0 {
		return nil, noTarget()
	}
	return kept, nil
}

// noTools is the check of a token for the issuer itself.
func noTools(f tokenForm) error {
	if f.scope != nil {
		return counterfoil.Refuse(counterfoil.ScopeInvalid, "there are no tools at the issuer")
	}
	if f.details != nil {
		return counterfoil.Refuse(counterfoil.DetailsInvalid, "there are no tools at the issuer")
	}
	return nil
}

func noTarget() error {
	return counterfoil.Refuse(counterfoil.TargetInvalid, "there is no such resource, or nothing there is granted to this agent or included in its task")
}

// findTarget compares character by character: two spellings of a URL are two
// resources, because a token's audience is compared so too.
func (a *Authority) findTarget(registry *counterfoil.Registry, id string) (target, bool) {
	if name, ok := strings.CutPrefix(id, a.cfg.Issuer+counterfoil.ResourcePath); ok {
		if r := registry.Resources[name]; r != nil && r.ID(a.cfg.Issuer) == id {
			return target{id, name, r}, true
		}
	}
	for name, r := range registry.Resources {
		if r.PublicURL != "" && r.PublicURL == id {
			return target{id, name, r}, true
		}
	}
	return target{}, false
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// detailsSize is about how many bytes the details take in a token.
func detailsSize(details []counterfoil.ToolDetail) int {
	n := 0
	for _, d := range details {
		n += 120 + len(counterfoil.DetailType) + len(d.Locations[0]) + len(d.Tool) + len(d.ToolDigest) + len(d.ActionClass)
		for pointer, c := range d.Constraints {
			n += 20 + len(pointer) + len(c.Max) + len(c.Equals)
			for _, v := range c.Enum {
				n += 3 + len(v)
			}
		}
	}
	return n
}
