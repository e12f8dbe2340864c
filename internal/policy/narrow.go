package policy

import (
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// Narrow returns the tools of the resource that a token for the agent may name,
// sorted. Nothing requested asks for all that is granted (contract: a scope that
// is left out; RFC 6749, Section 3.1: one without a value is as one left out).
// Classes that are forbidden are named as well, so that the call itself is told
// class_forbidden. Environment, networks, conditions and policies are judged at
// the call.
//
// At a direct resource nobody would ask a person before a call, so a standing
// grant never covers a tool above routine there.
//
// The refusals are client_refused, target_invalid, scope_invalid and
// approval_required.
func (s *Set) Narrow(agent, resource string, requested []string) (granted []string, err error) {
	if s == nil || s.agents[agent] == nil {
		return nil, counterfoil.Refuse(counterfoil.ClientRefused, "the agent is not known")
	}
	a, r := s.agents[agent], s.resources[resource]
	if r == nil {
		return nil, counterfoil.Refuse(counterfoil.TargetInvalid, "there is no resource %.80q", resource)
	}
	all, gated := s.standing(a, r)
	if len(requested) == 0 {
		switch {
		case len(all) > 0:
			return all, nil
		case len(gated) > 0:
			return nil, refuseGated(gated)
		}
		return nil, counterfoil.Refuse(counterfoil.TargetInvalid, "the agent has no grant at resource %q", resource)
	}
	for _, name := range requested {
		if slices.Contains(gated, name) {
			return nil, refuseGated([]string{name})
		}
		if !slices.Contains(all, name) {
			return nil, counterfoil.Refuse(counterfoil.ScopeInvalid, "no grant of the agent lists %.160q at resource %q", name, resource)
		}
		granted = append(granted, name)
	}
	slices.Sort(granted)
	return slices.Compact(granted), nil
}

func refuseGated(tools []string) error {
	return counterfoil.Refuse(counterfoil.ApprovalRequired,
		"nobody asks a person before a call of %s, so no standing grant covers it", strings.Join(tools, ", "))
}

// standing returns the tools of the resource that the agent's grants cover, and
// apart from them those that a token must not name all the same.
func (s *Set) standing(a *agent, r *resource) (all, gated []string) {
	for name, t := range r.tools {
		if !a.covers(t.id) {
			continue
		}
		if r.Type == counterfoil.ResourceDirect && t.tier != counterfoil.Routine {
			gated = append(gated, name)
			continue
		}
		all = append(all, name)
	}
	slices.Sort(all)
	slices.Sort(gated)
	return all, gated
}

func (a *agent) covers(t counterfoil.ToolID) bool {
	for i := range a.grants {
		if a.grants[i].Covers(t) {
			return true
		}
	}
	return false
}

// Callable returns which tools of the resource the caller may be shown:
// classified, in the token, granted, in the agent's environment and not of a
// forbidden class. Networks, conditions and policies depend on the call and are
// judged there. The answer is for lists only; nothing is called on its strength.
func (s *Set) Callable(caller counterfoil.Caller, resource string) func(tool string) bool {
	none := func(string) bool { return false }
	if s == nil {
		return none
	}
	a, r := s.agents[caller.Agent], s.resources[resource]
	if a == nil || r == nil || r.Environment == "" || a.environment != r.Environment || caller.Environment != r.Environment {
		return none
	}
	return func(name string) bool {
		t := r.tools[name]
		return t != nil && t.tier != counterfoil.Forbidden && inToken(&caller, name) && a.covers(t.id)
	}
}
