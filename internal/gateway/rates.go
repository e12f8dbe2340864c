package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	// defaultRate is far above what an agent needs and far below what fills a
	// disk in a night: each request that goes on is two entries at most.
	defaultRate = 1000

	// tellInterval is how often an agent's refusals over its rate become an
	// entry.
	tellInterval = time.Second

	// tellLimit bounds how long writing such an entry is waited for.
	tellLimit = 5 * time.Second

	// drainLimit bounds how long writing all of those that are left when the
	// server ends is waited for.
	drainLimit = 2 * time.Second
)

// Rates are token buckets, one for each agent, so that one agent's flood leaves
// the others alone. They limit requests whose proof was used up: those are
// recorded one by one, so that without a limit whoever holds a token could fill
// the ledger.
//
// A request over the rate has no entry of its own, or it would cost what the
// limit is to save; an agent's are counted and become one entry a second, and
// the first of them one before it is answered. So the proofs of such requests are
// in memory only, while all others are read back from their entries after a
// restart (Entry.Proof). After a start whose log shows such refusals within the
// window that is read back, every proof from before the start needs a nonce
// (internal/daemon): a forgotten one is not taken again.
type rates struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex
	byAgent map[string]*allowance // guarded by mu
}

// An allowance is what one agent may ask. Its fields are guarded by rates.mu.
type allowance struct {
	bucket  *rate.Limiter
	refused int       // not in the ledger yet
	since   time.Time // of the first of them
}

func newRates(perSecond float64) *rates {
	return &rates{limit: rate.Limit(perSecond), burst: max(1, int(2*perSecond)), byAgent: map[string]*allowance{}}
}

// strangers is the one allowance of all that the registry does not know: agents
// that were offboarded and whose tokens are not over yet. No agent has the name.
const strangers = ""

// take reports whether the agent may ask now. first means that it may not and
// that nobody is about to tell: the caller has to see to it.
func (r *rates) take(agent string, reg *counterfoil.Registry, now time.Time) (ok, first bool) {
	if reg.Agents[agent] == nil {
		agent = strangers
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.byAgent[agent]
	if a == nil {
		r.forget(reg)
		a = &allowance{bucket: rate.NewLimiter(r.limit, r.burst)}
		r.byAgent[agent] = a
	}
	if a.bucket.AllowN(now, 1) {
		return true, false
	}
	if a.refused++; a.refused == 1 {
		a.since = now
	}
	return false, a.refused == 1
}

// forget drops the agents that are gone, so that there are never more
// allowances than agents, and strangers. It is called with the lock held.
func (r *rates) forget(reg *counterfoil.Registry) {
	if len(r.byAgent) <= len(reg.Agents) {
		return
	}
	for name, a := range r.byAgent {
		if reg.Agents[name] == nil && name != strangers && a.refused == 0 {
			delete(r.byAgent, name)
		}
	}
}

// told returns what is to be told of an agent and begins to count anew.
func (r *rates) told(agent string) (n int, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.byAgent[agent]; a != nil {
		n, since = a.refused, a.since
		a.refused = 0
	}
	return n, since
}

// names returns the agents of which there is something to tell.
func (r *rates) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for name, a := range r.byAgent {
		if a.refused > 0 {
			out = append(out, name)
		}
	}
	return out
}

// limit refuses a request of an agent that asks too often.
func (c *call) limit() error {
	g, agent := c.gateway, c.caller.Agent
	ok, first := g.rates.take(agent, c.registry, g.cfg.Now())
	if ok {
		return nil
	}
	if first {
		if c.registry.Agents[agent] == nil {
			agent = strangers
		}
		time.AfterFunc(tellInterval, func() { g.tell(context.Background(), agent) })
		// The first of a second has its entry before its answer: a start after
		// a crash must see that there were some.
		err := g.cfg.Recorder.Append(c.ctx, &ledger.Entry{
			Kind: ledger.RefusedAggregate, Agent: agent, Decision: ledger.Refuse, Code: counterfoil.RateLimited,
			Detail: map[string]any{"began": ledger.FormatTime(g.cfg.Now())},
		})
		if err != nil {
			return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("recording a refusal over the rate: %w", err))
		}
	}
	return counterfoil.Refuse(counterfoil.RateLimited, "an agent may send %g requests a second: send fewer", g.cfg.Rate)
}

// tell records how many requests of an agent were refused over its rate. What
// cannot be recorded is in the log for operators; nothing followed from it.
func (g *Gateway) tell(ctx context.Context, agent string) {
	defer func() {
		if p := recover(); p != nil {
			_ = g.panicked("recording refusals", p) // it is logged, and nobody waits
		}
	}()
	n, since := g.rates.told(agent)
	if n == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	err := g.cfg.Recorder.Append(ctx, &ledger.Entry{
		Kind: ledger.RefusedAggregate, Agent: agent, Decision: ledger.Refuse, Code: counterfoil.RateLimited,
		Detail: map[string]any{"count": n, "from": ledger.FormatTime(since), "to": ledger.FormatTime(g.cfg.Now())},
	})
	if err != nil {
		g.cfg.Log.Error("recording refusals over the rate", "agent", agent, "count", n, "err", err)
	}
}
