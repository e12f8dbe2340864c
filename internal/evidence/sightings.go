package evidence

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/counterfoil/counterfoil"
)

// A Log is the ledger as it is followed.
type Log interface {
	// Begin returns the index to follow from after a start: the sightings before it
	// were judged, and are older by more than back than the last one that was.
	Begin(ctx context.Context, back time.Duration) (from int64, err error)
	// Follow calls fn with the sightings of the log in their order: those of the
	// entries from an index on, and then each new one once it is committed, until
	// ctx ends or fn returns an error. Commits do not wait for it.
	Follow(ctx context.Context, from int64, fn func(counterfoil.Sighting) error) error
	// Judged remembers for the next start that the sightings before an index were
	// judged. It is cheap, and may forget the last second.
	Judged(next int64)
}

// Keys say whose a live key is.
type Keys interface {
	ProofKey(jkt string) (agent, instance string, ok bool)
}

// An Alarm is told of suspicions.
type Alarm interface {
	// Suspect records a suspicion and does what the agent's policy says, both
	// durably or neither. It reports whether this was news: the same suspicion
	// may come again.
	Suspect(ctx context.Context, s counterfoil.Suspicion) (news bool, err error)
}

// Config is what Sightings are made of. Everything is required.
type Config struct {
	Log   Log
	Keys  Keys
	Alarm Alarm

	// Window is how far apart two sightings in two places are honest: as long as
	// a proof may be accepted after its use.
	Window time.Duration

	Raised func() // is called for each suspicion that was news
	Logger *slog.Logger
}

// Sightings look for keys in two places.
type Sightings struct{ cfg Config }

// NewSightings makes them. They see nothing before Run.
func NewSightings(cfg Config) *Sightings { return &Sightings{cfg} }

// pause is how long Run waits before it tries again what failed.
const pause = time.Second

// Run follows the log until ctx ends. It begins where the last run ended judging,
// and reads two windows more for where each instance was then, so that no stop hides
// a clone, however far behind it was. What fails is tried again from the sighting
// on that was not judged yet, with all that was seen before it.
func (s *Sightings) Run(ctx context.Context) {
	f := follower{Sightings: s, watch: newWatch(s.cfg.Window, s.cfg.Keys.ProofKey), next: -1}
	for {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		s.cfg.Logger.ErrorContext(ctx, "following the ledger", "err", err)
		if !wait(ctx) {
			return
		}
	}
}

// A follower is how far a Run is.
type follower struct {
	*Sightings
	watch *watch
	next  int64 // the entry to go on from; -1 before it is known where to begin
}

// follow returns when the log cannot be read, or ctx ends.
func (f *follower) follow(ctx context.Context) error {
	if f.next < 0 {
		from, err := f.cfg.Log.Begin(ctx, 2*f.cfg.Window)
		if err != nil {
			return err
		}
		f.next = from
	}
	return f.cfg.Log.Follow(ctx, f.next, func(seen counterfoil.Sighting) error {
		if suspicion, suspect := f.watch.see(seen); suspect {
			if err := f.raise(ctx, suspicion); err != nil {
				return err
			}
		}
		// A crash before this is durable judges the sighting twice, which is no
		// news to the alarm; one after it loses nothing.
		f.next = seen.Entry + 1
		f.cfg.Log.Judged(f.next)
		return nil
	})
}

// raise tells the alarm, again and again where that fails. Sightings that come
// meanwhile are in the log.
func (s *Sightings) raise(ctx context.Context, p counterfoil.Suspicion) error {
	log := s.cfg.Logger.With("agent", p.Agent, "instance", p.Instance, "jkt", p.Second.JKT, "entry", p.Second.Entry)
	for {
		news, err := s.cfg.Alarm.Suspect(ctx, p)
		if err == nil {
			if news {
				s.cfg.Raised()
				log.WarnContext(ctx, "a key is suspected to be cloned", "first", p.First.Address, "second", p.Second.Address)
			}
			return nil
		}
		log.ErrorContext(ctx, "recording that a key is suspected to be cloned", "err", err)
		if !wait(ctx) {
			return ctx.Err()
		}
	}
}

// wait reports whether there is still something to wait for.
func wait(ctx context.Context) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A watch remembers where each instance was last seen. That is enough: a sighting
// elsewhere within the window is a suspicion, and the place to compare the next
// one with.
type watch struct {
	window time.Duration
	owner  func(jkt string) (agent, instance string, ok bool)
	last   map[string]counterfoil.Sighting // by instance
	swept  time.Time
}

func newWatch(window time.Duration, owner func(string) (string, string, bool)) *watch {
	return &watch{window: window, owner: owner, last: map[string]counterfoil.Sighting{}}
}

// see takes the next sighting of the log.
//
// It compares places by instance, not by key. Both are the same where an instance
// proves with its own key; where it may prove with others, whoever cloned the
// first one brings a proof key of their own.
func (w *watch) see(s counterfoil.Sighting) (counterfoil.Suspicion, bool) {
	w.sweep(s.At)
	if s.Foreign {
		agent, instance, live := w.owner(s.JKT)
		// The key of an instance that ended opens nothing any more.
		return counterfoil.Suspicion{Agent: agent, Instance: instance, First: w.within(instance, s.At), Second: s}, live
	}
	place, known := placeOf(s.Address)
	if !known {
		return counterfoil.Suspicion{}, false
	}
	first := w.within(s.Instance, s.At)
	w.last[s.Instance] = s
	if first.JKT == "" {
		return counterfoil.Suspicion{}, false
	}
	if before, _ := placeOf(first.Address); before == place {
		return counterfoil.Suspicion{}, false
	}
	return counterfoil.Suspicion{Agent: s.Agent, Instance: s.Instance, First: first, Second: s}, true
}

// within returns the last sighting of an instance, the zero one when it was a
// window ago.
func (w *watch) within(instance string, now time.Time) counterfoil.Sighting {
	if s, ok := w.last[instance]; ok && now.Sub(s.At) < w.window {
		return s
	}
	return counterfoil.Sighting{}
}

// sweep forgets, once a window, what is older than one: there are never more than
// the instances that were seen in two of them.
func (w *watch) sweep(now time.Time) {
	if now.Sub(w.swept) < w.window {
		return
	}
	w.swept = now
	for instance, s := range w.last {
		if now.Sub(s.At) >= w.window {
			delete(w.last, instance)
		}
	}
}

var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// placeOf returns where an address is; known is false when it is none.
// localhost is one place, 127.0.0.1 as well as ::1. So is an IPv6 network of 64
// bits: one machine has many addresses of it, and changes them (RFC 8981). Link-local addresses are a place each: all links have that network.
func placeOf(address string) (place netip.Prefix, known bool) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, false
	}
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	switch {
	case a == localhost:
		a, bits = netip.IPv6Loopback(), 128
	case a.IsLoopback():
	case a.Is6() && !a.IsLinkLocalUnicast():
		bits = 64
	}
	place, err = a.Prefix(bits)
	return place, err == nil
}
