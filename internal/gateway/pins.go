package gateway

import (
	"context"
	"errors"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// pinned returns the digest that a tool's definition must have. Of a tool above
// routine a pin that no person looked at is none: a class that is raised while
// a first sight is on its way may leave one behind.
func (c *call) pinned(name string, tier counterfoil.Tier) (digest string, ok bool) {
	// How comes before what: an administrator's pin replaces a first sight and
	// never the other way round, so the digest is not older than its how.
	if tier != counterfoil.Routine && c.gateway.cfg.Pins.PinHow(c.resource.Name, name) == counterfoil.PinFirstSight {
		return "", false
	}
	return c.gateway.cfg.Pins.Pin(c.resource.Name, name)
}

// checkPin compares the tool's definition with the pinned one. A routine tool
// is pinned when it is first seen; any other was pinned by an administrator or
// is refused. It returns what is known of the definition, if anything.
func (c *mcpCall) checkPin(ctx context.Context, name string, tier counterfoil.Tier) (*seen, error) {
	cat := c.gateway.catalog(c.resource)
	notPinned := func() error {
		return counterfoil.Refuse(counterfoil.ToolChanged,
			"the definition of %s is not pinned: apply the manifest while the upstream is reachable", name)
	}
	before, isPinned := c.pinned(name, tier)
	if !isPinned && tier != counterfoil.Routine {
		return cat.known(name), notPinned()
	}
	asking := *c // the fetch may outlive this call, which goes on to change
	def, err := cat.fresh(ctx, name, c.asker(), c.gateway.cfg.Now, asking.fetchTools)
	// The upstream may have taken its time: the pin that counts is the one that
	// is there now.
	pinned, isPinned := c.pinned(name, tier)
	switch {
	case !isPinned && tier != counterfoil.Routine:
		return cat.known(name), notPinned()
	case err != nil:
		// Also where a person is to be asked: nobody is asked to approve arguments
		// that could not be held against the definition that is pinned.
		if f := (*counterfoil.Fault)(nil); !errors.As(err, &f) {
			err = counterfoil.NewFault(counterfoil.UpstreamUnavailable, err)
		}
		return cat.known(name), err
	case def == nil && isPinned:
		return nil, counterfoil.Refuse(counterfoil.ToolChanged, "the upstream no longer lists %s", name)
	case def == nil:
		return nil, counterfoil.Refuse(counterfoil.ToolUnknown, "the upstream lists no tool %s", name)
	}
	if !isPinned {
		if pinned, err = c.pin(ctx, name, def.digest); err != nil {
			return def, err
		}
	}
	if def.digest != pinned && pinned != before {
		// Which of the two is newer, the definition or the pin, is not known, so
		// this is no change to report. The next call asks the upstream again.
		cat.void()
		return def, counterfoil.Refuse(counterfoil.ToolChanged, "%s was pinned while it was called: call again", name)
	}
	if def.digest != pinned {
		if err := c.reportChange(ctx, name, pinned, def.digest); err != nil {
			return def, err
		}
		return def, counterfoil.Refuse(counterfoil.ToolChanged, "the upstream changed the definition of %s since it was pinned", name)
	}
	return def, nil
}

// pin pins a routine tool at first sight and returns the digest that is pinned
// then: of two calls that see two definitions, one wins.
func (c *call) pin(ctx context.Context, name, digest string) (string, error) {
	cat := c.gateway.catalog(c.resource)
	cat.pinning.Lock()
	defer cat.pinning.Unlock()
	if pinned, ok := c.gateway.cfg.Pins.Pin(c.resource.Name, name); ok {
		return pinned, nil
	}
	e := &ledger.Entry{
		Kind: ledger.ToolPinned, RequestID: c.id, Resource: c.resource.Name,
		Tool:       counterfoil.ToolID{Resource: c.resource.Name, Tool: name}.String(),
		ToolDigest: digest, Detail: map[string]any{"how": counterfoil.PinFirstSight},
	}
	err := c.gateway.cfg.Pins.PinTool(ctx, c.resource.Name, name, digest, counterfoil.PinFirstSight, e)
	// An administrator's pin, or another node's, may have been first: then ours
	// was not written. Whichever is there now is the one to compare with, so we
	// look before the error.
	if pinned, ok := c.gateway.cfg.Pins.Pin(c.resource.Name, name); ok {
		return pinned, nil
	}
	if err == nil {
		err = errors.New("a pin that was committed is not there")
	}
	return "", recordFault(err)
}

// reportChange records a changed definition, once for each that is seen.
func (c *call) reportChange(ctx context.Context, name, pinned, digest string) error {
	cat := c.gateway.catalog(c.resource)
	cat.mu.Lock()
	known := cat.reported[name] == digest
	cat.reported[name] = digest
	cat.mu.Unlock()
	if known {
		return nil
	}
	err := c.gateway.cfg.Recorder.Append(ctx, &ledger.Entry{
		Kind: ledger.ToolChanged, RequestID: c.id, Resource: c.resource.Name,
		Tool:       counterfoil.ToolID{Resource: c.resource.Name, Tool: name}.String(),
		ToolDigest: digest, Code: counterfoil.ToolChanged, Detail: map[string]any{"pinned": pinned},
	})
	if err != nil {
		cat.mu.Lock()
		delete(cat.reported, name)
		cat.mu.Unlock()
		return recordFault(err)
	}
	return nil
}

// tierOf returns how much human proof a classified tool needs. What nobody
// classified is forbidden.
func (c *call) tierOf(name string) counterfoil.Tier {
	t, ok := c.resource.Tool(name)
	if !ok {
		return counterfoil.Forbidden
	}
	class := c.registry.Classes[t.Class]
	if class == nil {
		return counterfoil.Forbidden
	}
	return class.Tier
}
