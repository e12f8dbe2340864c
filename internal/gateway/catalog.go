package gateway

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
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

func (c *mcpCall) asker() asker {
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
func (c *mcpCall) fetchTools(ctx context.Context) (tools map[string]Definition, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.gateway.panicked("asking an upstream for its tools", p)
		}
	}()
	p := c.peer()
	p.timeout = min(p.timeout, definitionTimeout)
	if c.resource.Credential != nil {
		if p.released, err = c.shown(ctx, "tools/list"); err != nil {
			return nil, err
		}
		p.struck = new(atomic.Bool)
	}
	if c.revision == "" {
		// No client's call: the upstream is asked in what it speaks, within the same time.
		ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, errTimeout)
		defer cancel()
		return p.definitions(ctx)
	}
	return p.tools(ctx)
}
