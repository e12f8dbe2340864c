package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A Feed tells what is revoked, in the order in which it was. Safe for concurrent use.
type Feed interface {
	// RevocationFeed returns the steps after the one with that number, or, where those
	// are not at hand or after is negative, a snapshot. It waits until there is one or
	// ctx ends. What it tells of, Config.Revocation says already.
	RevocationFeed(ctx context.Context, after int64) (counterfoil.RevocationFeed, error)
}

const (
	// enforcementPoint is this gateway's name among the enforcement points.
	enforcementPoint = "gateway"

	// retryFeed is how long is waited before a feed that failed, or that said nothing
	// new, is asked again.
	retryFeed = time.Second
)

// openStreams are the streams that are open to clients. The zero openStreams has none.
type openStreams struct {
	mu   sync.Mutex // guards what follows; never held while a stream is asked or cut
	open map[*watch]struct{}
	cuts int // of callers that are revoked, since they were last asked for
}

func (s *openStreams) add(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*watch]struct{}{}
	}
	s.open[w] = struct{}{}
}

func (s *openStreams) remove(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, w)
}

func (s *openStreams) countCut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts++
}

// all returns the streams that are open now.
func (s *openStreams) all() []*watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*watch, 0, len(s.open))
	for w := range s.open {
		out = append(out, w)
	}
	return out
}

// takeCuts returns how many streams were cut since it was called last.
func (s *openStreams) takeCuts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.cuts
	s.cuts = 0
	return n
}

// cutRevoked cuts every stream whose caller is revoked, and returns those that are cut
// and not gone yet. A stream that begins meanwhile looks by itself once it is among
// those that are found here, so that none is in between.
func (g *Gateway) cutRevoked() []*watch {
	var cut []*watch
	for _, w := range g.streams.all() {
		w.look()
		if w.isCut() {
			cut = append(cut, w)
		}
	}
	return cut
}

// follow cuts streams as revocations come in, until ctx ends. It waits for no stream:
// one that takes its time keeps none of the others open.
func (g *Gateway) follow(ctx context.Context) {
	t := teller{gateway: g, wake: make(chan struct{}, 1)}
	var telling sync.WaitGroup
	telling.Go(func() { t.run(ctx) })
	defer telling.Wait()
	f := pursuit{gateway: g, after: -1, agents: map[string]struct{}{}}
	for ctx.Err() == nil {
		if f.next(ctx, &t) {
			continue
		}
		if !pause(ctx, retryFeed) {
			return
		}
	}
}

// pause reports whether it waited to its end.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A pursuit is how far the feed was followed.
type pursuit struct {
	gateway *Gateway
	after   int64               // the step that is known
	agents  map[string]struct{} // that were there at that step
}

// next takes what the feed has next, and reports whether there was something.
func (p *pursuit) next(ctx context.Context, t *teller) (more bool) {
	g := p.gateway
	defer func() {
		if cause := recover(); cause != nil {
			_ = g.panicked("following what is revoked", cause) // it is logged, and asked for again
			more = false
		}
	}()
	feed, err := g.cfg.Feed.RevocationFeed(ctx, p.after)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		g.cfg.Log.Error("following what is revoked", "after", p.after, "err", err)
		return false
	}
	first := p.after < 0
	at, takes := p.learn(&feed)
	cut := g.cutRevoked()
	// What came before this gateway has no stream here: the server's start says so.
	if takes && (!first || feed.Seq > g.begun) {
		t.tell(receipt{seq: feed.Seq, at: at, streams: g.streams.takeCuts(), going: cut})
	}
	more = feed.Seq > p.after
	p.after = feed.Seq
	return more
}

// learn remembers which agents there are, and says since when what the feed tells is so
// and whether it takes anything away. Agents that are new take nothing.
func (p *pursuit) learn(feed *counterfoil.RevocationFeed) (at time.Time, takes bool) {
	at = feed.At
	step := func(s *counterfoil.RevocationStep) {
		at = s.At
		// A step that changes neither agents nor what is dead took something all the same:
		// a person's word, which no token has.
		takes = takes || len(s.Dead) > 0 || len(s.Agents) == 0
		for name := range s.Agents {
			if _, known := p.agents[name]; known {
				takes = true
			}
			p.agents[name] = struct{}{}
		}
	}
	if feed.Snapshot != nil {
		clear(p.agents)
		step(feed.Snapshot)
		takes = true // whatever was missed
	}
	for i := range feed.Steps {
		step(&feed.Steps[i])
	}
	return at, takes
}

// A receipt is that what was revoked up to a step has no effect here any more, once the
// streams are gone that are still going.
type receipt struct {
	seq     int64
	at      time.Time // of the step
	streams int       // cut
	going   []*watch
}

// add adds what a later receipt says.
func (r *receipt) add(later receipt) {
	r.seq, r.at = later.seq, later.at
	r.streams += later.streams
	r.going = append(r.going, later.going...)
}

// A teller records receipts, one at a time: what comes while one is on its way is in the
// next, so that any number of revocations costs a few entries.
type teller struct {
	gateway *Gateway
	wake    chan struct{} // holds a token when there is something to tell

	mu   sync.Mutex
	next *receipt // guarded by mu; nil when there is nothing
}

func (t *teller) tell(r receipt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == nil {
		t.next = &receipt{}
	}
	t.next.add(r)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *teller) take() *receipt {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.next
	t.next = nil
	return r
}

// run ends with ctx. What is not told then is told by the next start, which has no
// streams of before.
func (t *teller) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		if r := t.take(); r != nil && !t.record(ctx, r) {
			return
		}
	}
}

// record waits until the receipt is true, records it, and tries again what fails. It
// reports whether it did before ctx ended.
func (t *teller) record(ctx context.Context, r *receipt) bool {
	for {
		for _, w := range r.going {
			select {
			case <-w.gone:
			case <-ctx.Done():
				return false
			}
		}
		r.going = nil
		err := t.append(ctx, r)
		if err == nil {
			return true
		}
		t.gateway.cfg.Log.Error("recording that a revocation is enforced", "entry", r.seq, "err", err)
		if !pause(ctx, retryFeed) {
			return false
		}
		if later := t.take(); later != nil {
			r.add(*later)
		}
	}
}

func (t *teller) append(ctx context.Context, r *receipt) error {
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	cfg := &t.gateway.cfg
	return cfg.Recorder.Append(ctx, &ledger.Entry{
		Kind: ledger.RevocationEnforced, View: ledger.View{Seq: r.seq},
		Detail: map[string]any{"point": enforcementPoint, "streams": r.streams, "latency_us": max(0, cfg.Now().Sub(r.at).Microseconds())},
	})
}
