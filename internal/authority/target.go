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
// what is above routine out of a standing token.
func (a *Authority) narrow(at *attempt) error {
	var registry *counterfoil.Registry
	at.set, registry = a.Policy()
	if at.form.task != "" {
		return counterfoil.Refuse(counterfoil.TaskClosed, "there is no such task")
	}
	if at.form.resource == a.cfg.Issuer {
		// Before tasks are asked for: this is how one is opened.
		at.target = target{id: a.cfg.Issuer}
		return noTools(at.form)
	}
	if at.who.agent.Tasks.Required {
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
	return at.set.Narrow(agent, found.name, union(at.form.scope, named))
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
	return counterfoil.Refuse(counterfoil.TargetInvalid, "there is no such resource, or nothing there is granted to this agent")
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
