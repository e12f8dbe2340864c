package authority

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

// pinTimeout bounds how long an apply waits for one upstream.
const pinTimeout = 5 * time.Second

// toPin returns the names of the resources whose upstreams an apply asks: those
// that it names, changed or not, and those with a tool that it unpinned.
func toPin(docs []manifest.Document, unpinned []counterfoil.ToolID) []string {
	names := map[string]bool{}
	for _, doc := range docs {
		if doc.Kind == counterfoil.KindResource {
			names[doc.Name] = true
		}
	}
	for _, t := range unpinned {
		names[t.Resource] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// pin asks the upstreams of mcp resources for their tools and pins the
// definitions of those above routine: an operator is looking, which nobody is
// when a call first sees a tool. For the same reason an apply is how an operator
// takes the changed definition of a routine tool: one that is pinned already is
// pinned as it is now. An upstream that does not answer is a warning; until a
// later apply its tools are refused, or stay pinned as they are.
func (a *Authority) pin(ctx context.Context, resources []string, actor string, result *ApplyResult) {
	if a.cfg.Definitions == nil {
		return
	}
	_, registry := a.Policy()
	asked := make([]*upstreamTools, len(resources))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, name := range resources {
		r := registry.Resources[name]
		if r != nil && r.Credential != nil && a.cfg.Credential != nil {
			if err := a.cfg.Credential(r); err != nil {
				result.Warnings = append(result.Warnings, fmt.Sprintf(
					"Resource %s: its credential cannot be used, so its calls are refused: %v", name, err))
			}
		}
		if r == nil || r.Type != counterfoil.ResourceMCP {
			continue
		}
		u := &upstreamTools{resource: r, guarded: aboveRoutine(registry, r)}
		u.pinned = a.pinnedRoutine(r, u.guarded)
		asked[i] = u
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			u.tools, u.err = a.definitions(ctx, r)
		})
	}
	wg.Wait()
	for _, u := range asked {
		if u != nil {
			a.pinTools(ctx, u, actor, result)
		}
	}
}

// unusable warns of the tools of an http resource whose schema the gateway does not
// speak.
func (a *Authority) unusable(r *counterfoil.Resource) []string {
	if a.cfg.Schema == nil {
		return nil
	}
	var out []string
	for i := range r.Tools {
		if t := &r.Tools[i]; t.Schema != "" {
			if err := a.cfg.Schema(t.Schema); err != nil {
				out = append(out, fmt.Sprintf("Resource %s: calls of %s are refused, because their arguments cannot be checked: %v", r.Name, t.Name, err))
			}
		}
	}
	return out
}

// upstreamTools is what one upstream says that its tools are.
type upstreamTools struct {
	resource *counterfoil.Resource
	guarded  []string // tools above routine
	pinned   []string // routine tools that have a pin
	tools    map[string]Definition
	err      error
}

func (a *Authority) pinTools(ctx context.Context, u *upstreamTools, actor string, result *ApplyResult) {
	name := u.resource.Name
	if u.err != nil {
		a.cfg.Log.WarnContext(ctx, "asking an upstream for its tools", "resource", name, "err", u.err)
		what := "its calls are refused until it does"
		switch {
		case len(u.guarded) > 0:
			what = fmt.Sprintf("the definitions of %d tools above routine are not pinned", len(u.guarded))
		case len(u.pinned) > 0:
			what = fmt.Sprintf("the pins of %d tools stay as they are", len(u.pinned))
		}
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"Resource %s: its upstream did not say what its tools are, so %s; apply again when it answers", name, what))
		return
	}
	for _, tool := range slices.Concat(u.guarded, u.pinned) {
		a.pinTool(ctx, counterfoil.ToolID{Resource: name, Tool: tool}, u.tools[tool].Digest, actor, result)
	}
	for _, tool := range u.resource.Tools {
		// Where nobody looks at the arguments, nothing is checked of them.
		why := u.tools[tool.Name].Unusable
		if why != "" && (len(tool.Fields) > 0 || slices.Contains(u.guarded, tool.Name)) {
			result.Warnings = append(result.Warnings, fmt.Sprintf(
				"Resource %s: calls of %s are refused where their arguments decide, because they cannot be checked: %s", name, tool.Name, why))
		}
	}
}

func (a *Authority) definitions(ctx context.Context, r *counterfoil.Resource) (map[string]Definition, error) {
	ctx, cancel := context.WithTimeout(ctx, pinTimeout)
	defer cancel()
	return a.cfg.Definitions(ctx, r)
}

func (a *Authority) pinTool(ctx context.Context, id counterfoil.ToolID, digest, actor string, result *ApplyResult) {
	if digest == "" {
		result.Warnings = append(result.Warnings, fmt.Sprintf("Resource %s: its upstream has no tool %s", id.Resource, id.Tool))
		return
	}
	before, pinned := a.cfg.Store.Pin(id.Resource, id.Tool)
	if pinned && before == digest {
		return
	}
	e := &ledger.Entry{
		Kind: ledger.ToolPinned, Actor: actor, Resource: id.Resource, Tool: id.String(), ToolDigest: digest,
		Detail: map[string]any{"how": "apply"},
	}
	if pinned {
		e.Detail["before"] = before
	}
	if err := a.cfg.Store.PinTool(context.WithoutCancel(ctx), id.Resource, id.Tool, digest, "apply", e); err != nil {
		a.cfg.Log.ErrorContext(ctx, "pinning a tool", "tool", id.String(), "err", err)
		result.Warnings = append(result.Warnings, fmt.Sprintf("Resource %s: the definition of %s could not be pinned; apply again", id.Resource, id.Tool))
		return
	}
	result.Pinned = append(result.Pinned, PinnedTool{Resource: id.Resource, Tool: id.Tool, Digest: digest, Changed: pinned})
}

// unvetted returns the tools above routine that are pinned as a call first saw
// them, when they were routine: no person looked at what a person is to approve
// now.
func (a *Authority) unvetted(registry *counterfoil.Registry) []counterfoil.ToolID {
	var ids []counterfoil.ToolID
	for _, name := range slices.Sorted(maps.Keys(registry.Resources)) {
		for _, tool := range aboveRoutine(registry, registry.Resources[name]) {
			if a.cfg.Store.PinHow(name, tool) == counterfoil.PinFirstSight {
				ids = append(ids, counterfoil.ToolID{Resource: name, Tool: tool})
			}
		}
	}
	return ids
}

// pinnedRoutine returns the tools of a resource that are pinned and not above
// routine, in order.
func (a *Authority) pinnedRoutine(r *counterfoil.Resource, guarded []string) []string {
	var names []string
	for _, tool := range r.Tools {
		if _, pinned := a.cfg.Store.Pin(r.Name, tool.Name); pinned && !slices.Contains(guarded, tool.Name) {
			names = append(names, tool.Name)
		}
	}
	return names
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
