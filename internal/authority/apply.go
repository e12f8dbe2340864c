package authority

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

// An ApplyResult says what an apply did or, for a dry run or beside problems,
// would have done.
type ApplyResult struct {
	Changes  []AppliedChange `json:"changes"`
	Pinned   []PinnedTool    `json:"pinned,omitzero"`
	Warnings []string        `json:"warnings,omitzero"`
	Problems []string        `json:"problems,omitzero"` // nothing was done when there is one

	// Suggestions are operations of OpenAPI descriptions that are not callable, each
	// with the line that would let it be called.
	Suggestions []manifest.Suggestion `json:"suggestions,omitzero"`

	// Proposal is what the changes wait for, when they widen who may approve or
	// lessen what needs approval. Nothing was done yet. Of a dry run it has no id.
	Proposal *Proposal `json:"proposal,omitzero"`
}

// An AppliedChange is what happens to one document.
type AppliedChange struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Verb   string   `json:"verb"` // create, update or unchanged
	Fields []string `json:"fields,omitzero"`
	Diff   string   `json:"diff,omitzero"`
}

// A PinnedTool is a tool definition that was pinned.
type PinnedTool struct {
	Resource string `json:"resource"`
	Tool     string `json:"tool"`
	Digest   string `json:"digest"`
	Changed  bool   `json:"changed,omitzero"` // another digest was pinned before
}

// An ApplyRequest is manifests to put in force.
type ApplyRequest struct {
	Files  []manifest.File
	Actor  string
	DryRun bool // say what would change, and change nothing
}

// A change is a computed apply, ready to commit.
type change struct {
	result  ApplyResult
	store   counterfoil.Change
	entries []*ledger.Entry
	widens  []Widening
}

// Apply puts manifests in force: all of them or, when anything is wrong with
// one, none. What is there already is left alone, so applying twice changes
// nothing the second time. When it returns, every later decision follows the
// new registry; or, when the change has to wait, nothing has changed and the result
// says what it waits for.
func (a *Authority) Apply(ctx context.Context, req ApplyRequest) (ApplyResult, error) {
	docs, problems := manifest.Parse(req.Files)
	problems = append(problems, manifest.Addresses(docs, a.cfg.Guard)...)
	if len(problems) > 0 {
		return ApplyResult{Problems: texts(problems)}, nil
	}
	c, err := a.applyDocuments(ctx, docs, req)
	if err != nil || len(c.result.Problems) > 0 || req.DryRun || c.result.Proposal != nil {
		return c.result, err
	}
	// Without the lock: a slow upstream must not keep anybody from suspending
	// an agent.
	a.pin(ctx, toPin(docs, c.store.Unpin), req.Actor, &c.result)
	return c.result, nil
}

func (a *Authority) applyDocuments(ctx context.Context, docs []manifest.Document, req ApplyRequest) (change, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Before anything is compared: what was committed and never acknowledged
	// counts as unchanged, so it has to be in force by then.
	if err := a.reload(); err != nil {
		return change{}, err
	}
	c, err := a.plan(docs, req.Actor)
	if err != nil || len(c.result.Problems) > 0 {
		return c, err
	}
	waiting, err := a.waiting(context.WithoutCancel(ctx), &c)
	if err != nil {
		return change{}, err
	}
	c.result.Warnings = append(c.result.Warnings, waiting...)
	if len(c.store.Put) == 0 {
		return c, nil
	}
	if c.result.Proposal, err = a.propose(ctx, &c, applied(req.Files), digestOf(docs), req.Actor, req.DryRun); err != nil {
		return change{}, fmt.Errorf("proposing: %w", err)
	}
	if req.DryRun || c.result.Proposal != nil {
		return c, nil
	}
	if err := a.commitChange(ctx, &c); err != nil {
		return change{}, fmt.Errorf("applying: %w", err)
	}
	return c, nil
}

// commitChange makes a change. Whether the client waits for the answer is not a part of
// the decision. A crash between the commit and what follows loses nothing: the next
// start loads what was committed.
func (a *Authority) commitChange(ctx context.Context, c *change) error {
	return a.settle(a.cfg.Store.Apply(context.WithoutCancel(ctx), c.store, c.entries))
}

// plan computes what the documents change, without changing it.
func (a *Authority) plan(docs []manifest.Document, actor string) (change, error) {
	base, revision := a.cfg.Store.Registry()
	next, changes, problems := manifest.Merge(base, docs)
	c := change{store: counterfoil.Change{Base: revision}}
	if len(problems) > 0 {
		c.result.Problems = texts(problems)
		return c, nil
	}
	c.widens = widening(base, next)
	c.result.Warnings = append(manifest.Warnings(next, a.cfg.Now()), manifest.Notes(docs, next)...)
	c.result.Suggestions = manifest.Suggestions(docs, next)
	loosens := loosened(base, next, a.cfg.Now())
	covers := covered(base, next)
	c.result.Warnings = append(append(c.result.Warnings, loosens...), covers...)
	var digests []any
	for _, ch := range changes {
		noun := nounOf(next, ch.Kind, ch.Name)
		c.result.Changes = append(c.result.Changes, AppliedChange{
			Kind: ch.Kind, Name: ch.Name, Verb: ch.Verb, Fields: ch.Fields,
			Diff: diffOf(ch.Verb, nounOf(base, ch.Kind, ch.Name), noun),
		})
		if ch.Kind == counterfoil.KindResource {
			c.result.Warnings = append(c.result.Warnings, a.unusable(next.Resources[ch.Name])...)
			if status, _ := a.cfg.Store.ResourceStatus(ch.Name); status != counterfoil.Active {
				c.result.Warnings = append(c.result.Warnings, fmt.Sprintf("Resource %[1]s is suspended and takes no call; to put it back in force: counterfoil resource resume %[1]s", ch.Name))
			}
		}
		if ch.Verb == manifest.Unchanged {
			continue
		}
		body, err := ijson.Marshal(noun)
		if err != nil {
			return c, fmt.Errorf("encoding %s %s: %w", ch.Kind, ch.Name, err)
		}
		c.store.Put = append(c.store.Put, counterfoil.Document{Kind: ch.Kind, Name: ch.Name, Body: body})
		digests = append(digests, map[string]any{"kind": ch.Kind, "name": ch.Name, "verb": ch.Verb, "digest": digest(body)})
		e := changeEntry(ch, noun, actor)
		if e != nil {
			c.entries = append(c.entries, e)
		}
		if agent, ok := noun.(*counterfoil.Agent); ok {
			if a.cfg.Store.AgentState(ch.Name).Status == counterfoil.Offboarded {
				c.result.Problems = append(c.result.Problems, fmt.Sprintf("Agent %s was offboarded: names are never given twice; choose another", ch.Name))
				continue
			}
			before := base.Agents[ch.Name]
			if before == nil || before.Owner != agent.Owner {
				if why := a.ownerGone(agent.Owner, base, next); why != "" {
					c.result.Problems = append(c.result.Problems, fmt.Sprintf("Agent %s: %s", ch.Name, why))
					continue
				}
			}
			if why := narrowed(before, agent); why != "" {
				c.store.Void = append(c.store.Void, agent.Name)
				c.result.Warnings = append(c.result.Warnings, fmt.Sprintf("Agent %s: %s, so every token that it has is void", agent.Name, why))
				e.Detail["voided"] = "every token issued before: " + why
			}
			a.planKeys(&c, before, agent, actor)
		}
	}
	entries := appliedEntries(digests, loweredTiers(next), c.widens, actor)
	if c.store.Unpin = a.unvetted(next); len(c.store.Unpin) > 0 && len(entries) > 0 {
		entries[0].Detail["unpinned"] = c.store.Unpin
	}
	if len(loosens) > 0 && len(entries) > 0 {
		entries[0].Detail["loosens"] = bounded(loosens)
	}
	if len(covers) > 0 && len(entries) > 0 {
		entries[0].Detail["covers"] = bounded(covers)
	}
	c.entries = append(entries, c.entries...)
	return c, nil
}

// narrowed says why the tokens that an agent has allow more than its document
// does now, in what only the token endpoint looks at; empty when they do not.
// Whatever else a document takes back is asked for at each call.
func narrowed(before, after *counterfoil.Agent) string {
	switch {
	case before == nil:
		return ""
	case after.Tasks.Required && !before.Tasks.Required:
		return "it works in tasks only from now on"
	case before.ProofKeys == proofKeysAny && after.ProofKeys != proofKeysAny:
		return "it proves with its registered keys only from now on"
	}
	return ""
}

// maxRecorded is how many documents one config.applied names, so that an entry
// stays far below its largest size.
const maxRecorded = 1000

// appliedEntries say which documents an apply changed and what they are now, and
// what of it widens, whether or not anybody was asked.
func appliedEntries(digests []any, lowered []string, widens []Widening, actor string) []*ledger.Entry {
	var entries []*ledger.Entry
	for chunk := range slices.Chunk(digests, maxRecorded) {
		e := &ledger.Entry{Kind: ledger.ConfigApplied, Actor: actor, Detail: map[string]any{"documents": chunk}}
		if len(lowered) > 0 {
			e.Detail["insecure_lower_tier"] = lowered
		}
		if len(widens) > 0 && len(entries) == 0 {
			e.Detail["widens"] = whyTexts(widens)
		}
		entries = append(entries, e)
	}
	return entries
}

// planKeys registers an instance for each key of the manifest that is new, ends
// those whose key is listed no more, and refuses keys that anybody else ever
// had. Instances that enrolled with a code are not the manifest's and stay.
func (a *Authority) planKeys(c *change, before, agent *counterfoil.Agent, actor string) {
	problem := func(format string, args ...any) {
		c.result.Problems = append(c.result.Problems, fmt.Sprintf("Agent %s: keys: ", agent.Name)+fmt.Sprintf(format, args...))
	}
	if len(agent.Keys) > maxInstances {
		problem("%d of them; %d is the limit", len(agent.Keys), maxInstances)
		return
	}
	listed := map[string]bool{}
	for i, jwk := range agent.Keys {
		key, err := credential.ParseJWK([]byte(jwk))
		if err != nil {
			problem("key %d: %v", i+1, err)
			continue
		}
		jkt := key.Thumbprint()
		listed[jkt] = true
		inst, live := a.cfg.Store.InstanceByKey(jkt)
		if live && inst.Agent == agent.Name && !ended(inst) {
			continue
		}
		if _, ever := a.cfg.Store.AgentOfKey(jkt); ever || plannedKey(c.store.NewKeys, jkt) {
			problem("key %d (%s) belongs, or once belonged, to another agent or instance; keys are never shared and never reused", i+1, jkt)
			continue
		}
		inst = counterfoil.Instance{
			ID: counterfoil.NewID("ins_"), Agent: agent.Name, JKT: jkt, JWK: jwk, Alg: key.Alg(),
			Status: counterfoil.Active, Enrolled: a.cfg.Now(), How: counterfoil.EnrolledByManifest,
		}
		c.store.NewKeys = append(c.store.NewKeys, inst)
		c.entries = append(c.entries, a.instanceEntry(inst, agent.Owner, counterfoil.EnrolledByManifest))
	}
	if before != nil {
		a.planEnds(c, before, listed, actor)
	}
}

// planEnds ends the instances whose key is listed no more, with an entry each.
func (a *Authority) planEnds(c *change, before *counterfoil.Agent, listed map[string]bool, actor string) {
	warn := func(format string, args ...any) {
		c.result.Warnings = append(c.result.Warnings, fmt.Sprintf("Agent %s: ", before.Name)+fmt.Sprintf(format, args...))
	}
	for _, jwk := range before.Keys {
		key, err := credential.ParseJWK([]byte(jwk))
		if err != nil || listed[key.Thumbprint()] {
			continue
		}
		inst, ok := a.cfg.Store.InstanceByKey(key.Thumbprint())
		switch {
		case !ok || ended(inst):
		case inst.How == counterfoil.EnrolledByCode:
			warn("key %s is no longer listed; its instance %s enrolled with a code and stays", inst.JKT, inst.ID)
		default:
			c.store.EndKeys = append(c.store.EndKeys, inst.ID)
			c.entries = append(c.entries, &ledger.Entry{
				Kind: ledger.Revoked, Agent: inst.Agent, Owner: before.Owner, Instance: inst.ID, JKT: inst.JKT, Actor: actor,
				Reason: "its key is no longer listed", Detail: map[string]any{"kind": string(counterfoil.TargetInstance), "id": inst.ID},
			})
			warn("key %s is no longer listed: its instance %s ends, and the key is never accepted again", inst.JKT, inst.ID)
		}
	}
}

func plannedKey(keys []counterfoil.Instance, jkt string) bool {
	return slices.ContainsFunc(keys, func(inst counterfoil.Instance) bool { return inst.JKT == jkt })
}

// changeEntry is the entry that a document's change has beside config.applied.
func changeEntry(ch manifest.Change, noun any, actor string) *ledger.Entry {
	e := &ledger.Entry{Actor: actor, Detail: map[string]any{"name": ch.Name}}
	if len(ch.Fields) > 0 {
		e.Detail["fields"] = ch.Fields
	}
	switch noun := noun.(type) {
	case *counterfoil.Agent:
		e.Kind = ledger.AgentChanged
		if ch.Verb == manifest.Create {
			e.Kind = ledger.AgentCreated
		}
		e.Agent, e.Owner, e.Source.Environment = noun.Name, noun.Owner, noun.Environment
		return e
	case *counterfoil.Person:
		e.Kind = ledger.PersonChanged
		return e
	}
	return nil
}

// loweredTiers names the classes that say insecure_lower_tier.
func loweredTiers(registry *counterfoil.Registry) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(registry.Classes)) {
		if registry.Classes[name].InsecureLowerTier {
			names = append(names, name)
		}
	}
	return names
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func diffOf(verb string, before, after any) string {
	if verb == manifest.Unchanged {
		return ""
	}
	return manifest.Diff(before, after)
}

func texts(problems []manifest.Problem) []string {
	out := make([]string, len(problems))
	for i, p := range problems {
		out[i] = p.String()
	}
	return out
}
