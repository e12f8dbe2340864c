package gateway

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// definitionTTL is how long a definition that was seen is taken for the one
// that the upstream has: how long a change can go unnoticed, and how often a
// busy resource is asked.
const definitionTTL = time.Second

// definitionTimeout bounds a whole list that a call waits for.
const definitionTimeout = 10 * time.Second

// A seen definition is what the gateway keeps of one: of its text the
// inputSchema alone.
type seen struct {
	digest  string
	output  bool
	mirrors []param
	input   *inputShape
	at      time.Time
}

// see keeps of a definition what calls need. What was read of the same definition
// before stays read.
func see(d *Definition, before *seen, now time.Time) *seen {
	s := &seen{d.Digest, d.output, d.mirrors, d.input, now}
	if before != nil && before.digest == d.Digest {
		s.input = before.input
	}
	return s
}

// A catalog is what the gateway knows of the tools of one resource on one
// upstream. It is a cache: losing it costs one request to the upstream.
type catalog struct {
	upstream string

	pinning sync.Mutex // held while a first sight is committed

	mu       sync.Mutex // guards what follows
	tools    map[string]*seen
	at       time.Time         // of the last whole list; zero when it is void
	reported map[string]string // tool to the changed digest that the ledger has
	flights  map[asker]*flight
}

// An asker is what an upstream can tell apart of those who ask for its tools.
// Calls that are one to it share a fetch; a session that is dead fails the calls
// of that session and nobody else's.
type asker struct{ revision, session string }

// A flight is a fetch that several calls wait for. What came of it is set
// before done is closed and not changed any more.
type flight struct {
	done  chan struct{}
	tools map[string]*seen
	err   error
}

// catalog returns what is known of a resource's tools. What another upstream
// said is not known of this one: there is one catalog of a resource at a time,
// so a resource that moves begins a new one in the place of the old.
func (g *Gateway) catalog(res *counterfoil.Resource) *catalog {
	for {
		old, ok := g.catalogs.Load(res.Name)
		if ok && old.(*catalog).upstream == res.Upstream {
			return old.(*catalog)
		}
		c := &catalog{upstream: res.Upstream, tools: map[string]*seen{}, reported: map[string]string{}, flights: map[asker]*flight{}}
		if ok && g.catalogs.CompareAndSwap(res.Name, old, c) {
			return c
		}
		if _, other := g.catalogs.LoadOrStore(res.Name, c); !ok && !other {
			return c
		}
	}
}

// put notes a definition that was seen.
func (c *catalog) put(name string, d *Definition, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tools) >= maxTools && c.tools[name] == nil {
		clear(c.tools)
	}
	c.tools[name] = see(d, c.tools[name], now)
}

// known returns what was last seen of a tool, however long ago.
func (c *catalog) known(name string) *seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tools[name]
}

// void makes the next call ask the upstream.
func (c *catalog) void() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = time.Time{}
	for _, t := range c.tools {
		t.at = time.Time{}
	}
}

// fresh returns the tool's definition as the upstream has it, asking for the
// list when what is known is too old. nil without an error: it has no such
// tool. However many calls of one asker come at once, the upstream is asked
// once.
func (c *catalog) fresh(ctx context.Context, name string, who asker, now func() time.Time, fetch fetchFunc) (*seen, error) {
	c.mu.Lock()
	if t := c.tools[name]; t != nil && now().Sub(t.at) < definitionTTL {
		c.mu.Unlock()
		return t, nil
	} else if t == nil && now().Sub(c.at) < definitionTTL {
		c.mu.Unlock()
		return nil, nil
	}
	f := c.flights[who]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flights[who] = f
		// The client that began this may go away; others may be waiting.
		go c.fetch(context.WithoutCancel(ctx), f, who, now, fetch)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	return f.tools[name], nil
}

// A fetchFunc asks an upstream for all of its tools. It does not panic and ends
// by itself: calls wait for it.
type fetchFunc func(context.Context) (map[string]Definition, error)

func (c *catalog) fetch(ctx context.Context, f *flight, who asker, now func() time.Time, fetch fetchFunc) {
	began := now()
	tools, err := fetch(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.err = err; err == nil {
		f.tools = make(map[string]*seen, len(tools))
		for name, d := range tools {
			f.tools[name] = see(&d, c.tools[name], began)
		}
		c.tools, c.at = maps.Clone(f.tools), began // put adds to it, f's waiters read theirs
	}
	delete(c.flights, who)
	close(f.done)
}

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
func (c *call) checkPin(ctx context.Context, name string, tier counterfoil.Tier) (*seen, error) {
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

func (c *call) asker() asker {
	a := asker{revision: c.revision}
	if c.open != nil {
		a.session = c.open.ID
	}
	return a
}

// fetchTools asks the upstream for its tools the way the call itself would be
// sent, so that a server that tells sessions or revisions apart says what it
// says to this client. It runs in a goroutine of its own, out of reach of the
// recover that guards requests: a panic is the fetch's error.
func (c *call) fetchTools(ctx context.Context) (tools map[string]Definition, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.gateway.panicked("asking an upstream for its tools", p)
		}
	}()
	p := c.peer()
	p.timeout = min(p.timeout, definitionTimeout)
	if err := c.credential(p); err != nil {
		return nil, err
	}
	return p.tools(ctx)
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
