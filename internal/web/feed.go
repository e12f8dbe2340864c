package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Revocations tells what is revoked. Safe for concurrent use.
type Revocations interface {
	// Origin names the log whose indexes number the steps, as the answers do. It never
	// changes.
	Origin() string
	// RevocationFeed returns the steps after the one of that index. It waits until
	// there is one or ctx ends, which is no error: then there is none. Where the
	// steps are not at hand, or after is negative, it returns everything at once. Every
	// revocation makes a step. The answer says which log it is of.
	RevocationFeed(ctx context.Context, after int64) (counterfoil.RevocationFeed, error)
}

// feedTool is what a server's look at what is revoked is called in the ledger.
const feedTool = "counterfoil/revocations"

// maxWaiting bounds how many requests of one agent wait at once.
const maxWaiting = 64

// feedRoutes are what enforcement points that are not ours follow (resource.Feed).
func (p *public) feedRoutes(rt *router) {
	rt.handle(http.MethodGet, p.base+counterfoil.FeedPath, p.withTokenAs(tokened{
		tool: feedTool, look: p.lookAtFeed,
		// A server has many instances, and each follows by itself.
		limited: func(c counterfoil.Caller) string { return c.Agent + " " + c.Instance },
	}, p.feed))
}

// lookAtFeed lets in agents that speak for some resource, and none else: what is
// revoked says who is there. The index that one asks with is what it enforces by now,
// and its entry says so; one of another log is none of ours.
func (p *public) lookAtFeed(r *http.Request, c counterfoil.Caller, e *ledger.Entry) error {
	e.View = ledger.View{}
	q, err := p.feedQuery(r)
	if err != nil {
		return err
	}
	_, registry := p.Authority.Policy()
	for _, res := range registry.Resources {
		if slices.Contains(res.Servers, c.Agent) {
			// What is ahead of the log is nothing that anybody enforces.
			if size, _ := p.Entries.Head(); q.after >= 0 && q.after < size {
				e.View.Seq = q.after
			}
			return nil
		}
	}
	return counterfoil.Refuse(counterfoil.ToolNotGranted, "no resource lists agent %s among its servers", c.Agent)
}

// A feedAsk is what a server asks with.
type feedAsk struct {
	after int64 // -1 for everything
	wait  time.Duration
}

// feedQuery reads after, wait and log. Where log names another log than ours, after is
// an index of that one, and everything is what the server has to be told.
func (p *public) feedQuery(r *http.Request) (feedAsk, error) {
	var q feedAsk
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, counterfoil.Refuse(counterfoil.RequestMalformed, "the query string is malformed")
	}
	seconds := int64(0)
	for name, into := range map[string]*int64{"after": &q.after, "wait": &seconds} {
		values := query[name]
		delete(query, name)
		if name == "wait" && len(values) == 0 {
			continue
		}
		n, err := int64(0), error(nil)
		if len(values) == 1 {
			n, err = strconv.ParseInt(values[0], 10, 64)
		}
		if len(values) != 1 || err != nil || strconv.FormatInt(n, 10) != values[0] || n < -1 {
			return q, counterfoil.Refuse(counterfoil.RequestMalformed, "%s is a number, once", name)
		}
		*into = n
	}
	log := query["log"]
	delete(query, "log")
	switch {
	case len(query) > 0:
		return q, counterfoil.Refuse(counterfoil.RequestMalformed, "the query has after, wait and log, and nothing else")
	case len(log) > 1 || len(log) == 1 && (log[0] == "" || len(log[0]) > maxOrigin):
		return q, counterfoil.Refuse(counterfoil.RequestMalformed, "log is the origin of a log, once")
	case seconds < 0 || seconds > int64(counterfoil.MaxFeedWait/time.Second):
		return q, counterfoil.Refuse(counterfoil.RequestMalformed, "wait is 0 to %d seconds", int64(counterfoil.MaxFeedWait/time.Second))
	}
	if len(log) == 1 && log[0] != p.Revocations.Origin() {
		q.after = -1
	}
	q.wait = time.Duration(seconds) * time.Second
	return q, nil
}

// maxOrigin is how long the origin of a log may be that a server says, in bytes.
const maxOrigin = 1024

func (p *public) feed(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	q, err := p.feedQuery(r)
	if err != nil {
		return 0, nil, err
	}
	if !p.waiting.enter(c.Agent) {
		return 0, nil, counterfoil.Refuse(counterfoil.RateLimited, "more than %d requests of the agent wait", maxWaiting)
	}
	defer p.waiting.leave(c.Agent)
	waiting, cancel := context.WithTimeout(ctx, q.wait)
	defer cancel()
	if p.Draining != nil {
		defer context.AfterFunc(p.Draining, cancel)()
	}
	told, err := p.Revocations.RevocationFeed(waiting, q.after)
	if err != nil {
		return 0, nil, err
	}
	// Whoever was revoked while it waited is told nothing more.
	if err := p.Verifier.Revocation.Revoked(ctx, c); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, told, nil
}

// waiting counts requests that wait, by agent. The zero waiting has none.
type waiting struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (w *waiting) enter(agent string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == nil {
		w.n = map[string]int{}
	}
	if w.n[agent] >= maxWaiting {
		return false
	}
	w.n[agent]++
	return true
}

func (w *waiting) leave(agent string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n[agent]--; w.n[agent] <= 0 {
		delete(w.n, agent)
	}
}
