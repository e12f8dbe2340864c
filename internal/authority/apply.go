package authority

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

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
	next    *counterfoil.Registry
	store   counterfoil.Change
	entries []*ledger.Entry
}

// Apply puts manifests in force: all of them or, when anything is wrong with
// one, none. What is there already is left alone, so applying twice changes
// nothing the second time. When it returns, every later decision follows the
// new registry.
func (a *Authority) Apply(ctx context.Context, req ApplyRequest) (ApplyResult, error) {
	docs, problems := manifest.Parse(req.Files)
	if len(problems) > 0 {
		return ApplyResult{Problems: texts(problems)}, nil
	}
	result, err := a.applyDocuments(ctx, docs, req)
	if err != nil || len(result.Problems) > 0 || req.DryRun {
		return result, err
	}
	// Without the lock: a slow upstream must not keep anybody from suspending
	// an agent.
	a.pin(ctx, docs, req.Actor, &result)
	return result, nil
}

func (a *Authority) applyDocuments(ctx context.Context, docs []manifest.Document, req ApplyRequest) (ApplyResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, err := a.plan(docs, req)
	if err != nil || len(c.result.Problems) > 0 || req.DryRun || len(c.store.Put) == 0 {
		return c.result, err
	}
	if err := a.cfg.Store.Apply(ctx, c.store, c.entries); err != nil {
		return ApplyResult{}, fmt.Errorf("applying: %w", err)
	}
	// A crash between the commit and here loses nothing: the next start loads
	// what was committed.
	return c.result, a.reload()
}

// plan computes what the documents change, without changing it.
func (a *Authority) plan(docs []manifest.Document, req ApplyRequest) (change, error) {
	base, revision := a.cfg.Store.Registry()
	next, changes, problems := manifest.Merge(base, docs)
	c := change{next: next, store: counterfoil.Change{Base: revision}}
	if len(problems) > 0 {
		c.result.Problems = texts(problems)
		return c, nil
	}
	c.result.Warnings = manifest.Warnings(next)
	var digests []any
	for _, ch := range changes {
		noun := nounOf(next, ch.Kind, ch.Name)
		c.result.Changes = append(c.result.Changes, AppliedChange{
			Kind: ch.Kind, Name: ch.Name, Verb: ch.Verb, Fields: ch.Fields,
			Diff: diffOf(ch.Verb, nounOf(base, ch.Kind, ch.Name), noun),
		})
		if ch.Verb == manifest.Unchanged {
			continue
		}
		body, err := ijson.Marshal(noun)
		if err != nil {
			return c, fmt.Errorf("encoding %s %s: %w", ch.Kind, ch.Name, err)
		}
		c.store.Put = append(c.store.Put, counterfoil.Document{Kind: ch.Kind, Name: ch.Name, Body: body})
		digests = append(digests, map[string]any{"kind": ch.Kind, "name": ch.Name, "verb": ch.Verb, "digest": digest(body)})
		if e := changeEntry(ch, noun, req.Actor); e != nil {
			c.entries = append(c.entries, e)
		}
		if agent, ok := noun.(*counterfoil.Agent); ok {
			if a.cfg.Store.AgentState(ch.Name).Status == counterfoil.Offboarded {
				c.result.Problems = append(c.result.Problems, fmt.Sprintf("Agent %s was offboarded: names are never given twice; choose another", ch.Name))
				continue
			}
			a.planKeys(&c, base.Agents[ch.Name], agent)
		}
	}
	c.entries = append(appliedEntries(digests, loweredTiers(next), req.Actor), c.entries...)
	return c, nil
}

// maxRecorded is how many documents one config.applied names, so that an entry
// stays far below its largest size.
const maxRecorded = 1000

// appliedEntries say which documents an apply changed and what they are now.
func appliedEntries(digests []any, lowered []string, actor string) []*ledger.Entry {
	var entries []*ledger.Entry
	for chunk := range slices.Chunk(digests, maxRecorded) {
		e := &ledger.Entry{Kind: ledger.ConfigApplied, Actor: actor, Detail: map[string]any{"documents": chunk}}
		if len(lowered) > 0 {
			e.Detail["insecure_lower_tier"] = lowered
		}
		entries = append(entries, e)
	}
	return entries
}

// planKeys registers an instance for each key of the manifest that is new, ends
// those whose key is listed no more, and refuses keys that anybody else ever
// had. Instances that enrolled with a code are not the manifest's and stay.
func (a *Authority) planKeys(c *change, before, agent *counterfoil.Agent) {
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
		if live && inst.Agent == agent.Name && inst.Status == counterfoil.Active {
			continue
		}
		if _, ever := a.cfg.Store.AgentOfKey(jkt); ever || plannedKey(c.store.NewKeys, jkt) {
			problem("key %d (%s) belongs, or once belonged, to another agent or instance; keys are never shared and never reused", i+1, jkt)
			continue
		}
		inst = counterfoil.Instance{
			ID: counterfoil.NewID("ins_"), Agent: agent.Name, JKT: jkt, JWK: jwk, Alg: key.Alg(),
			Status: counterfoil.Active, Enrolled: a.cfg.Now(),
		}
		c.store.NewKeys = append(c.store.NewKeys, inst)
		c.entries = append(c.entries, a.instanceEntry(inst, agent.Owner, "manifest"))
	}
	if before == nil {
		return
	}
	for _, jwk := range before.Keys {
		key, err := credential.ParseJWK([]byte(jwk))
		if err != nil || listed[key.Thumbprint()] {
			continue
		}
		if inst, ok := a.cfg.Store.InstanceByKey(key.Thumbprint()); ok && inst.Status == counterfoil.Active {
			c.store.EndKeys = append(c.store.EndKeys, inst.ID)
			c.result.Warnings = append(c.result.Warnings, fmt.Sprintf(
				"Agent %s: key %s is no longer listed: its instance %s ends, and the key is never accepted again", agent.Name, key.Thumbprint(), inst.ID))
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

// pinTimeout bounds how long an apply waits for one upstream.
const pinTimeout = 5 * time.Second

// pin asks the upstreams of the applied mcp resources for their tools and pins
// the definitions of those above routine: an operator is looking, which nobody
// is when a call first sees a tool. An upstream that does not answer is a
// warning; its tools stay refused until a later apply.
func (a *Authority) pin(ctx context.Context, docs []manifest.Document, actor string, result *ApplyResult) {
	if a.cfg.Definitions == nil {
		return
	}
	_, registry := a.Policy()
	asked := make([]*upstreamTools, len(docs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, doc := range docs {
		r := registry.Resources[doc.Name]
		if doc.Kind != counterfoil.KindResource || r == nil || r.Type != counterfoil.ResourceMCP {
			continue
		}
		guarded := aboveRoutine(registry, r)
		if len(guarded) == 0 {
			continue
		}
		asked[i] = &upstreamTools{resource: r, guarded: guarded}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			asked[i].digests, asked[i].err = a.definitions(ctx, r)
		})
	}
	wg.Wait()
	for _, u := range asked {
		if u != nil {
			a.pinTools(ctx, u, actor, result)
		}
	}
}

// upstreamTools is what one upstream says that its tools are.
type upstreamTools struct {
	resource *counterfoil.Resource
	guarded  []string          // tools above routine
	digests  map[string]string // by tool
	err      error
}

func (a *Authority) pinTools(ctx context.Context, u *upstreamTools, actor string, result *ApplyResult) {
	name := u.resource.Name
	if u.err != nil {
		a.cfg.Log.WarnContext(ctx, "asking an upstream for its tools", "resource", name, "err", u.err)
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"Resource %s: its upstream did not say what its tools are, so the definitions of %d tools above routine are not pinned; apply again when it answers", name, len(u.guarded)))
		return
	}
	for _, tool := range u.guarded {
		a.pinTool(ctx, name, tool, u.digests[tool], actor, result)
	}
}

func (a *Authority) definitions(ctx context.Context, r *counterfoil.Resource) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, pinTimeout)
	defer cancel()
	return a.cfg.Definitions(ctx, r)
}

func (a *Authority) pinTool(ctx context.Context, resource, tool, digest, actor string, result *ApplyResult) {
	id := counterfoil.ToolID{Resource: resource, Tool: tool}
	if digest == "" {
		result.Warnings = append(result.Warnings, fmt.Sprintf("Resource %s: its upstream has no tool %s", resource, tool))
		return
	}
	before, pinned := a.cfg.Store.Pin(resource, tool)
	if pinned && before == digest {
		return
	}
	e := &ledger.Entry{
		Kind: ledger.ToolPinned, Actor: actor, Resource: resource, Tool: id.String(), ToolDigest: digest,
		Detail: map[string]any{"how": "apply"},
	}
	if pinned {
		e.Detail["before"] = before
	}
	if err := a.cfg.Store.PinTool(ctx, resource, tool, digest, "apply", e); err != nil {
		a.cfg.Log.ErrorContext(ctx, "pinning a tool", "tool", id.String(), "err", err)
		result.Warnings = append(result.Warnings, fmt.Sprintf("Resource %s: the definition of %s could not be pinned; apply again", resource, tool))
		return
	}
	result.Pinned = append(result.Pinned, PinnedTool{Resource: resource, Tool: tool, Digest: digest, Changed: pinned})
}

// aboveRoutine returns the tools of a resource that need a person, in order.
func aboveRoutine(registry *counterfoil.Registry, r *counterfoil.Resource) []string {
	var names []string
	for _, tool := range r.Tools {
		if class := registry.Classes[tool.Class]; class == nil || class.Tier != counterfoil.Routine {
			names = append(names, tool.Name)
		}
	}
	return names
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
