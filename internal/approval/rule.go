package approval

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
)

// Who may decide is answered here and nowhere else: at the challenge, at the
// signature, when the approval is spent, and for what the console shows.

// A crowd is who is declared, and who of them may act, at one moment.
type crowd struct {
	*counterfoil.Registry
	standing Standing
	gone     func() map[string]bool // the mailboxes of people who are suspended
}

// crowd returns who there is now, and the revision of what is declared.
func (e *Engine) crowd() (crowd, string) {
	reg, revision := e.store.Registry()
	return newCrowd(reg, e.store), revision
}

func newCrowd(reg *counterfoil.Registry, standing Standing) crowd {
	return crowd{reg, standing, sync.OnceValue(func() map[string]bool {
		gone := map[string]bool{}
		for name, p := range reg.People {
			if p != nil && standing.PersonStatus(name) != counterfoil.Active {
				gone[p.Mailbox()] = true
			}
		}
		return gone
	})}
}

// suspended reports whether a person may do nothing. It is a human who is suspended:
// every record with that mailbox is.
func (c crowd) suspended(p *counterfoil.Person) bool { return c.gone()[p.Mailbox()] }

// statusOf is where a person is in life, as pages say it.
func (c crowd) statusOf(p *counterfoil.Person) counterfoil.Status {
	if c.suspended(p) {
		return counterfoil.Suspended
	}
	return counterfoil.Active
}

// Suspended reports whether a person may neither sign nor log in nor enrol; so does
// nobody who is not declared.
func (e *Engine) Suspended(person string) bool {
	c, _ := e.crowd()
	p := c.People[person]
	return p == nil || c.suspended(p)
}

// openers returns the owners of the agents that opened an open task and those above it.
func (c crowd) openers(task string) []string {
	owners := map[string]bool{}
	for range counterfoil.MaxTaskDepth {
		t, ok := c.standing.LiveTask(task)
		if !ok {
			break
		}
		if a := c.Agents[t.Opener]; a != nil {
			owners[a.Owner] = true
		}
		task = t.Parent
	}
	return slices.Sorted(maps.Keys(owners))
}

func notEligible(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.ApproverNotEligible, format, args...)
}

// decides returns the groups for which a person may make a decision, or why the person
// may not. Whoever holds a passkey may say no to its release, in whatever group: that a
// passkey is in somebody's name is theirs to object to.
func decides(reg crowd, a *counterfoil.Approval, name, decision string) (groups []string, err error) {
	groups, err = eligible(reg, a, name)
	if err != nil && decision == counterfoil.DecisionDeny && mayObject(reg, a, name) {
		return []string{}, nil
	}
	return groups, err
}

// mayObject reports whether an approval is to release a passkey of this person's.
func mayObject(reg crowd, a *counterfoil.Approval, name string) bool {
	p := reg.People[name]
	return p != nil && !reg.suspended(p) && sameHuman(reg.Registry, p, holderOf(a))
}

// eligible returns the groups for which a person may say yes to an approval at this
// moment, or why the person may not.
func eligible(reg crowd, a *counterfoil.Approval, name string) (groups []string, err error) {
	p := reg.People[name]
	if p == nil {
		return nil, notEligible("%q is not declared", name)
	}
	if reg.suspended(p) {
		return nil, notEligible("%s is suspended", name)
	}
	for _, any := range a.Rule.Groups {
		for _, g := range any {
			if slices.Contains(p.Groups, g) && !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	if len(groups) == 0 {
		return nil, notEligible("%s is in no group that decides this", name)
	}
	if err := excluded(reg, a, p); err != nil {
		return nil, err
	}
	slices.Sort(groups)
	return groups, nil
}

// excluded says why a person may not decide an approval whatever groups the person is
// in: dual control needs people who did not ask. People are compared by mailbox, so
// that no second record of one human gets around it.
func excluded(reg crowd, a *counterfoil.Approval, p *counterfoil.Person) error {
	if a.Kind == counterfoil.ApprovalOfChange {
		// Of a passkey that is to be released, whoever holds it.
		if sameHuman(reg.Registry, p, holderOf(a)) {
			return notEligible("%s enrolled the passkey that this is about", p.Name)
		}
		return nil
	}
	mayOwn := ownerMay(&a.Rule, a.For)
	if !mayOwn {
		owners := []string{a.Owner}
		for _, name := range []string{a.Caller.Agent, a.For} {
			if agent := reg.Agents[name]; agent != nil {
				owners = append(owners, agent.Owner)
			}
		}
		for _, owner := range owners {
			if sameHuman(reg.Registry, p, owner) {
				return notEligible("%s owns the agent that asks", p.Name)
			}
		}
	}
	for _, asked := range append([]string{a.Caller.Subject}, a.Caller.Actors...) {
		if asked != a.Caller.Agent && sameHuman(reg.Registry, p, asked) && (!mayOwn || p.Name != a.Owner) {
			return notEligible("the agent asks on behalf of %s", p.Name)
		}
	}
	// Those who own an agent now that opened the task, as those who did when it asked.
	for _, opener := range slices.Concat(a.Openers, reg.openers(a.Caller.Task)) {
		if sameHuman(reg.Registry, p, opener) && (!mayOwn || p.Name != a.Owner) {
			return notEligible("%s owns an agent that opened the task", p.Name)
		}
	}
	return nil
}

// ownerMay reports whether the owner of the agent that asks may say yes. The rule has
// this for guarded classes alone; see counterfoil.RuleOf. Where an enforcement point asks
// for an agent, neither's owner may: what that agent wants is nobody's but the point's
// word.
func ownerMay(rule *counterfoil.ApprovalRule, by string) bool {
	return rule.OwnerMayApprove && rule.Tier == counterfoil.Guarded && by == ""
}

// owns reports whether a person owns the agent that asks.
func owns(reg *counterfoil.Registry, a *counterfoil.Approval, p *counterfoil.Person) bool {
	return a.Kind == counterfoil.ApprovalOfCall && sameHuman(reg, p, a.Owner)
}

// sameHuman reports whether a name, which may also be an e-mail, means this person
// or another record of the same human.
func sameHuman(reg *counterfoil.Registry, p *counterfoil.Person, name string) bool {
	if name == "" {
		return false
	}
	other := reg.People[name]
	if other == nil {
		other = &counterfoil.Person{Name: name, Email: name}
	}
	return p.Name == name || p.Mailbox() == other.Mailbox()
}

// missing is how many further signatures an approval needs, when those it has are of
// people in these groups: as many distinct people as the rule says, and a distinct one
// for each of its conjuncts.
func missing(rule *counterfoil.ApprovalRule, signers [][]string) int {
	return max(rule.Required-len(signers), len(rule.Groups)-matched(rule.Groups, signers), 0)
}

// matched is how many conjuncts distinct signers stand for at once.
func matched(conjuncts [][]string, signers [][]string) int {
	return counterfoil.Matched(len(conjuncts), len(signers), func(c, s int) bool { return meet(conjuncts[c], signers[s]) })
}

func meet(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// signedGroups returns the groups of an approval's signers, as they were recorded.
func signedGroups(a *counterfoil.Approval) [][]string {
	out := make([][]string, len(a.Signatures))
	for i := range a.Signatures {
		out[i] = a.Signatures[i].Groups
	}
	return out
}

// maySign returns the groups that a person would sign for, or why the person's yes
// would not count: who signed already is not distinct, and a signature that brings the
// approval no nearer is not asked of anybody.
func maySign(reg crowd, a *counterfoil.Approval, name, decision string) ([]string, error) {
	groups, err := decides(reg, a, name, decision)
	if err != nil || decision == counterfoil.DecisionDeny {
		return groups, err
	}
	mailbox := reg.People[name].Mailbox()
	for i := range a.Signatures {
		if s := &a.Signatures[i]; s.Person == name || s.Mailbox == mailbox {
			return nil, counterfoil.Refuse(counterfoil.ApproverNotDistinct, "%s signed already, as %s", name, s.Person)
		}
	}
	signed := signedGroups(a)
	if missing(&a.Rule, append(signed, groups)) >= missing(&a.Rule, signed) {
		return nil, notEligible("what is missing is a signature of another group than those of %s", name)
	}
	return groups, nil
}

// usable says why a passkey cannot sign a yes under a rule: it has to be of an
// authenticator that the class takes, and one that was added or reset cools before it
// counts for what cannot be undone, so that whoever got hold of a code is noticed
// first.
func usable(rule *counterfoil.ApprovalRule, k *counterfoil.Passkey, at time.Time) error {
	if k.Status != counterfoil.Active {
		return refusedPasskey("the passkey is not active")
	}
	if len(rule.Authenticators) > 0 && (!k.Attested || !slices.Contains(rule.Authenticators, k.AAGUID)) {
		return notEligible("the class takes attested authenticators of certain models alone, and this passkey is of none")
	}
	if rule.Tier <= counterfoil.Irreversible && at.Before(k.UsableFrom) {
		return notEligible("the passkey was %s: it counts for irreversible classes from %s, or once two people release it",
			k.How, k.UsableFrom.UTC().Format(time.RFC3339))
	}
	return nil
}
