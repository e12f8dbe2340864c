package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	// maxHeld is how many held calls are made at a time.
	maxHeld = 64

	// maxTaken is how many held calls are being made or wait to be: for their turn, or
	// to be tried again. Whoever is beyond it is told of again.
	maxTaken = 1024

	// retryHeld is how long a held call waits that could not be decided on because
	// something was out of order: an upstream that does not say what its tools
	// are, a store that cannot write. It was not spent, so it may be tried again.
	retryHeld = time.Second

	// maxRetryHeld bounds the wait, which doubles.
	maxRetryHeld = 15 * time.Second
)

var errStopped = errors.New("the server stopped before the call was answered")

// heldCalls are the calls that the gateway makes itself.
type heldCalls struct {
	ctx      context.Context // of all of them; ends when the time to drain is over
	cancel   context.CancelCauseFunc
	draining chan struct{} // closed when none may begin any more

	room chan struct{} // holds a token for each call that is being made

	mu      sync.Mutex // guards what follows
	stopped bool
	running sync.WaitGroup
	taken   map[string]struct{} // ids of the approvals whose calls are being made or wait to be
}

// begin runs f for an approval, unless somebody does already or the gateway drains.
func (h *heldCalls) begin(id string, f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, already := h.taken[id]; already || h.stopped || len(h.taken) == maxTaken {
		return
	}
	if h.taken == nil {
		h.taken = map[string]struct{}{}
	}
	h.taken[id] = struct{}{}
	h.running.Go(func() {
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.taken, id)
		}()
		f()
	})
}

// join makes Wait wait for something else that was allowed, until leave; it is no once the
// gateway drains.
func (h *heldCalls) join() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return false
	}
	h.running.Add(1)
	return true
}

func (h *heldCalls) leave() { h.running.Done() }

// turn runs f once there is room for it, and reports what it says; false where the
// gateway drains first.
func (h *heldCalls) turn(f func() bool) bool {
	select {
	case <-h.draining:
		return false
	default:
	}
	select {
	case h.room <- struct{}{}:
		defer func() { <-h.room }()
		return f()
	case <-h.draining:
		return false
	}
}

func (h *heldCalls) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped {
		h.stopped = true
		if h.draining != nil {
			close(h.draining)
		}
	}
}

// Run makes held calls as they are approved, those too that were approved before
// the gateway started, until ctx or Drain ends that; calls that it began go on: see
// Wait. And until ctx ends it follows what is revoked: it cuts the streams of a caller
// that is, and records what has no effect any more.
func (g *Gateway) Run(ctx context.Context) {
	var following sync.WaitGroup
	if g.cfg.Feed != nil {
		following.Go(func() { g.follow(ctx) })
	}
	g.makeHeldCalls(ctx)
	following.Wait()
}

func (g *Gateway) makeHeldCalls(ctx context.Context) {
	if g.cfg.Approvals == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.held.draining:
			return // what is approved and not made is found by the next start
		case id, ok := <-g.cfg.Approvals.Held():
			if !ok {
				return
			}
			g.held.begin(id, func() { g.makeHeld(id) })
		}
	}
}

// Wait returns when the held calls that are on their way ended. When ctx is over
// first, they are broken off: nobody knows what came of those that were sent, and
// that is what is recorded. Call Drain before, so that no more begin.
func (g *Gateway) Wait(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { g.held.cancel(errStopped) })
	defer stop()
	g.held.running.Wait()
}

// makeHeld makes one held call, or finds that it may not be made. While it waits to try
// again others have its place. It runs in a goroutine of its own, out of reach of the
// recover that guards requests.
func (g *Gateway) makeHeld(id string) {
	defer func() {
		if p := recover(); p != nil {
			_ = g.panicked("making a held call", p) // it is logged, and nobody waits
		}
	}()
	try := func() bool { return g.tryHeld(id) }
	for wait := retryHeld; g.held.turn(try); wait = min(2*wait, maxRetryHeld) {
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-g.held.draining:
			again.Stop()
			return
		}
	}
}

// tryHeld makes a held call if it may be made now, and reports whether it has to be
// tried again. Everything that a call in a request goes through it goes through
// too, but for the token and the proof, which were good when it was accepted.
func (g *Gateway) tryHeld(id string) (again bool) {
	a, err := g.cfg.Approvals.HeldCall(g.held.ctx, id)
	switch {
	case err != nil:
		return g.heldFault(id, err)
	case a.State != counterfoil.StateApproved || !g.cfg.Now().Before(a.UseUntil):
		return false // somebody was first, or its time is over
	}
	c, err := g.heldCall(&a)
	if err == nil {
		err = c.decideHeld(&a)
	}
	var spending counterfoil.Spending
	gc := counterfoil.GuardedCall{}
	if err == nil {
		gc, err = c.guardedCall()
	}
	if err == nil {
		gc.Named, gc.Key, gc.Held = a.ID, a.Key, true
		spending, err = c.claim(&gc)
	}
	if err == nil {
		err = c.spend(&gc, spending)
	}
	if err != nil {
		return g.notMade(c, &a, err)
	}
	if c.goes() {
		c.forward()
	}
	return false
}

// heldCall makes the call that was approved from what was kept of it.
func (g *Gateway) heldCall(a *counterfoil.Approval) (*mcpCall, error) {
	o, err := readCallObject(a.Call)
	if err != nil {
		return nil, err
	}
	c := &mcpCall{
		call: call{
			gateway: g, ctx: g.held.ctx, w: nobody{http.Header{}}, held: true, forwards: true, id: a.RequestID, caller: a.Caller, source: a.Source,
			now: g.cfg.Now(), approval: ledger.Approval{ID: a.ID, State: string(a.State)},
		},
		revision: revision20260728,
	}
	c.words = c
	c.caller.Proof = "" // it was used up, and recorded, when the call was accepted
	c.policy, c.registry = g.cfg.Policy()
	c.resource = c.registry.Resources[o.Resource]
	if c.resource == nil || c.resource.Type != counterfoil.ResourceMCP || c.resource.ID(g.cfg.PublicURL) != o.Aud {
		c.resource = nil
		return c, counterfoil.Refuse(counterfoil.ToolUnknown, "resource %s is not there any more", o.Resource)
	}
	c.url = o.Aud
	c.message = message{
		kind: request, id: quote(counterfoil.NewID("cf_")), name: o.Method, method: methods[o.Method], revision: c.revision, hasParams: true, hasMeta: true,
		meta: []member{
			{metaCapabilities, emptyObject}, // nobody is there to be asked
			{metaClientInfo, []byte(`{"name":"` + userAgent + `","version":"1"}`)},
			{metaVersion, quote(c.revision)},
		},
	}
	if o.Method != "tools/call" {
		return c, counterfoil.Refuse(counterfoil.ToolUnknown, "a held call is a call of a tool, not %s", o.Method)
	}
	if o.arguments != nil {
		c.message.params = append(c.message.params, member{"arguments", o.arguments})
	}
	c.message.params = append(c.message.params, member{"name", quote(o.Target)})
	c.payload = c.message.arguments()
	return c, nil
}

// decideHeld decides anew: who asks is still somebody, and policy and pins say what
// they said.
func (c *mcpCall) decideHeld(a *counterfoil.Approval) error {
	if err := c.revoked(); err != nil {
		return err
	}
	switch err := c.decide(); {
	case err == nil:
		return counterfoil.Refuse(counterfoil.ApprovalSuperseded, "%s needs nobody's approval any more: call it again", a.Tool)
	case !isCode(err, counterfoil.ApprovalRequired):
		return err
	case c.def == nil || c.def.digest != a.ToolDigest:
		return counterfoil.Refuse(counterfoil.ApprovalSuperseded, "the definition of %s is not the one that people looked at", a.Tool)
	}
	return nil
}

// notMade says what follows from a held call that was not made: it is recorded like
// any refusal and closed, so that nobody waits for it. What is a fault of ours is
// tried again.
func (g *Gateway) notMade(c *mcpCall, a *counterfoil.Approval, err error) (again bool) {
	why, refused := counterfoil.AsRefusal(err)
	if !refused {
		return g.heldFault(a.ID, err)
	}
	now, err := g.cfg.Approvals.HeldCall(g.held.ctx, a.ID)
	switch {
	case err != nil:
		return g.heldFault(a.ID, err)
	case now.State != counterfoil.StateApproved:
		return false // whoever closed it, or was first, recorded that
	}
	c.count(g.cfg.Answered, why)
	if c.resource != nil && !c.record(why) {
		return true
	}
	if err := g.cfg.Approvals.GiveUp(context.WithoutCancel(g.held.ctx), a.ID, why); err != nil {
		return g.heldFault(a.ID, err)
	}
	return false
}

// heldFault reports whether a held call that met an error is tried again: not when
// that is a refusal, which says that it is over.
func (g *Gateway) heldFault(id string, err error) (again bool) {
	if _, over := counterfoil.AsRefusal(err); over || g.held.ctx.Err() != nil {
		return false
	}
	g.cfg.Log.Error("a held call is not made yet", "approval", id, "err", err)
	return true
}
