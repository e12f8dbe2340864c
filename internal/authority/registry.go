package authority

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

// Kinds returns the kinds of documents, in the order in which they are listed.
func Kinds() []string {
	return []string{counterfoil.KindPerson, counterfoil.KindClass, counterfoil.KindResource, counterfoil.KindAgent, counterfoil.KindPolicy, counterfoil.KindTransmitter, counterfoil.KindVocabulary}
}

// nounOf returns a document of a registry as its noun, or nil.
func nounOf(r *counterfoil.Registry, kind, name string) any {
	switch kind {
	case counterfoil.KindPerson:
		return found(r.People, name)
	case counterfoil.KindClass:
		return found(r.Classes, name)
	case counterfoil.KindResource:
		return found(r.Resources, name)
	case counterfoil.KindAgent:
		return found(r.Agents, name)
	case counterfoil.KindPolicy:
		return found(r.Policies, name)
	case counterfoil.KindTransmitter:
		return found(r.Transmitters, name)
	case counterfoil.KindVocabulary:
		return found(r.Vocabularies, name)
	}
	return nil
}

// found keeps an absent document from becoming a typed nil.
func found[T any](m map[string]*T, name string) any {
	if v := m[name]; v != nil {
		return v
	}
	return nil
}

// Get returns one document as its noun.
func (a *Authority) Get(kind, name string) (any, error) {
	_, registry := a.Policy()
	if !slices.Contains(Kinds(), kind) {
		return nil, unknownKind(kind)
	}
	if noun := nounOf(registry, kind, name); noun != nil {
		return noun, nil
	}
	return nil, unknown(kind, name)
}

// List returns every document of a kind, by name.
func (a *Authority) List(kind string) ([]any, error) {
	_, registry := a.Policy()
	var names []string
	switch kind {
	case counterfoil.KindPerson:
		names = slices.Sorted(maps.Keys(registry.People))
	case counterfoil.KindClass:
		names = slices.Sorted(maps.Keys(registry.Classes))
	case counterfoil.KindResource:
		names = slices.Sorted(maps.Keys(registry.Resources))
	case counterfoil.KindAgent:
		names = slices.Sorted(maps.Keys(registry.Agents))
	case counterfoil.KindPolicy:
		names = slices.Sorted(maps.Keys(registry.Policies))
	case counterfoil.KindTransmitter:
		names = slices.Sorted(maps.Keys(registry.Transmitters))
	case counterfoil.KindVocabulary:
		names = slices.Sorted(maps.Keys(registry.Vocabularies))
	default:
		return nil, unknownKind(kind)
	}
	nouns := make([]any, len(names))
	for i, name := range names {
		nouns[i] = nounOf(registry, kind, name)
	}
	return nouns, nil
}

func unknownKind(kind string) error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no kind %.40q; there are %v", kind, Kinds())
}

// An AgentView is an agent with where it is in its life.
type AgentView struct {
	Agent     *counterfoil.Agent `json:"agent"`
	Status    counterfoil.Status `json:"status"`
	Epoch     int64              `json:"epoch"`
	Instances int                `json:"instances"` // live ones

	Quarantined []string `json:"quarantined,omitzero"` // ids of instances
}

// Agents returns every agent that is not offboarded, by name.
func (a *Authority) Agents() []AgentView {
	_, registry := a.Policy()
	views := []AgentView{}
	for _, name := range slices.Sorted(maps.Keys(registry.Agents)) {
		views = append(views, a.view(registry.Agents[name]))
	}
	return views
}

// Agent returns one of them.
func (a *Authority) Agent(name string) (AgentView, error) {
	agent, err := a.agent(name)
	if err != nil {
		return AgentView{}, err
	}
	return a.view(agent), nil
}

func (a *Authority) view(agent *counterfoil.Agent) AgentView {
	state := a.cfg.Store.AgentState(agent.Name)
	v := AgentView{Agent: agent, Status: state.Status, Epoch: state.Epoch}
	for _, inst := range a.cfg.Store.Instances(agent.Name) {
		switch inst.Status {
		case counterfoil.Active:
			v.Instances++
		case counterfoil.Quarantined:
			v.Quarantined = append(v.Quarantined, inst.ID)
		}
	}
	return v
}

// Instances returns the instances of an agent, dead ones too.
func (a *Authority) Instances(agent string) ([]counterfoil.Instance, error) {
	if a.cfg.Store.AgentState(agent).Status == "" {
		return nil, unknown(counterfoil.KindAgent, agent)
	}
	return a.cfg.Store.Instances(agent), nil
}

// Suspend stops an agent until it is resumed: its tokens, its tasks and its open
// approvals are void with the answer, which says what they were. Resuming revives none
// of them.
func (a *Authority) Suspend(ctx context.Context, agent, reason, actor string) (counterfoil.Voided, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	doc, err := a.agent(agent)
	if err != nil {
		return counterfoil.Voided{}, err
	}
	return a.cfg.Store.Suspend(context.WithoutCancel(ctx), agent, lifeEntry(ledger.AgentSuspended, doc, reason, actor))
}

// Resume lets a suspended agent work again, and releases the quarantined instances
// that are named, which it returns. One that is not named stays quarantined: who ends
// a suspension has not said that a key was not copied. All of it is under a new epoch,
// so tokens from before stay void.
func (a *Authority) Resume(ctx context.Context, agent string, release []string, reason, actor string) (released []string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	doc, err := a.agent(agent)
	if err != nil {
		return nil, err
	}
	// As the store has it: what was committed counts, whether or not it is in force here.
	registry, _ := a.cfg.Store.Registry()
	if why := a.ownerGone(doc.Owner, registry); why != "" {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "agent %s: %s", agent, why)
	}
	return a.cfg.Store.Resume(context.WithoutCancel(ctx), agent, release, lifeEntry(ledger.AgentResumed, doc, reason, actor))
}

// ownerGone says why an agent cannot get its authority from an owner; empty when it can.
// It is a human who is suspended: every record of the same mailbox is. It is called
// with the lock held, which the revocation of a person takes too.
func (a *Authority) ownerGone(owner string, registries ...*counterfoil.Registry) string {
	for _, r := range registries {
		me := r.People[owner]
		for _, name := range slices.Sorted(maps.Keys(r.People)) {
			same := name == owner || me != nil && r.People[name].Mailbox() == me.Mailbox()
			if !same || a.cfg.Store.PersonStatus(name) == counterfoil.Active {
				continue
			}
			who := owner
			if name != owner {
				who = fmt.Sprintf("%s, who is %s,", owner, name)
			}
			return fmt.Sprintf("its owner %s is suspended: resume the person first (counterfoil person resume %s), or give the agent another owner", who, name)
		}
	}
	return ""
}

func lifeEntry(kind ledger.Kind, agent *counterfoil.Agent, reason, actor string) *ledger.Entry {
	return &ledger.Entry{Kind: kind, Agent: agent.Name, Owner: agent.Owner, Actor: actor, Reason: reason}
}

// Offboard ends an agent for good: tokens, keys and instances are void with the
// answer, and neither its name nor its keys are ever accepted again.
func (a *Authority) Offboard(ctx context.Context, agent, reason, actor string) (counterfoil.Voided, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	doc, err := a.agent(agent)
	if err != nil {
		return counterfoil.Voided{}, err
	}
	voided, err := a.cfg.Store.Offboard(context.WithoutCancel(ctx), agent, lifeEntry(ledger.AgentOffboarded, doc, reason, actor))
	if err := a.settle(err); err != nil {
		return counterfoil.Voided{}, err
	}
	return voided, nil
}

// Deleted is what a deletion did. When it has a Proposal, nothing was done yet.
type Deleted struct {
	Voided   counterfoil.Voided // of an agent
	Proposal *Proposal
}

// Delete removes a document that nothing refers to. An agent is offboarded. What
// would lessen what needs approval waits, as it does in Apply.
func (a *Authority) Delete(ctx context.Context, kind, name, actor string) (Deleted, error) {
	if kind == counterfoil.KindAgent {
		voided, err := a.Offboard(ctx, name, "", actor)
		return Deleted{Voided: voided}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.reload(); err != nil {
		return Deleted{}, err
	}
	c, err := a.planDelete(kind, name, actor)
	if err != nil {
		return Deleted{}, err
	}
	what := proposed{Kind: kind, Name: name}
	p, err := a.propose(ctx, &c, what, what.digest(), actor, false)
	if err != nil {
		return Deleted{}, fmt.Errorf("proposing: %w", err)
	}
	if p != nil {
		return Deleted{Proposal: p}, nil
	}
	if err := a.commitChange(ctx, &c); err != nil {
		return Deleted{}, fmt.Errorf("deleting: %w", err)
	}
	return Deleted{}, nil
}

// planDelete computes what it takes to delete a document, without doing it.
func (a *Authority) planDelete(kind, name, actor string) (change, error) {
	base, revision := a.cfg.Store.Registry()
	if nounOf(base, kind, name) == nil {
		if !slices.Contains(Kinds(), kind) {
			return change{}, unknownKind(kind)
		}
		return change{}, unknown(kind, name)
	}
	next, before := without(base, kind, name), texts(manifest.Check(base))
	for _, problem := range texts(manifest.Check(next)) {
		if !slices.Contains(before, problem) {
			return change{}, counterfoil.Refuse(counterfoil.RequestMalformed, "%s %s is in use: %s", kind, name, problem)
		}
	}
	document := map[string]any{"kind": kind, "name": name, "verb": "delete"}
	if kind == counterfoil.KindResource {
		document["pins"] = "dropped" // by the store, with the document
	}
	c := change{widens: widening(base, next)}
	c.store = counterfoil.Change{Base: revision, Delete: []counterfoil.DocKey{{Kind: kind, Name: name}}}
	c.entries = appliedEntries([]any{document}, nil, c.widens, actor)
	return c, nil
}

// without returns the registry less one document.
func without(r *counterfoil.Registry, kind, name string) *counterfoil.Registry {
	next := &counterfoil.Registry{
		People: maps.Clone(r.People), Classes: maps.Clone(r.Classes), Resources: maps.Clone(r.Resources),
		Agents: maps.Clone(r.Agents), Policies: maps.Clone(r.Policies), Transmitters: maps.Clone(r.Transmitters),
		Vocabularies: maps.Clone(r.Vocabularies),
	}
	switch kind {
	case counterfoil.KindPerson:
		delete(next.People, name)
	case counterfoil.KindClass:
		delete(next.Classes, name)
	case counterfoil.KindResource:
		delete(next.Resources, name)
	case counterfoil.KindPolicy:
		delete(next.Policies, name)
	case counterfoil.KindTransmitter:
		delete(next.Transmitters, name)
	case counterfoil.KindVocabulary:
		delete(next.Vocabularies, name)
	}
	return next
}
