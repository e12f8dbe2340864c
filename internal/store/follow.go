package store

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// maxFeed is how many sightings wait for whoever follows them. Beyond it the
// follower reads the log, where all of them are.
const maxFeed = 1 << 14

// A feed hands the sightings of each commit to the one who follows them. Nobody
// waits for the follower: what there is no room for is dropped, and read from the
// log.
type feed struct {
	mu      sync.Mutex
	arrived chan struct{} // nil while nobody follows; holds a token when there is something to take
	waiting []counterfoil.Sighting
	dropped bool
}

// put is called by the sequencer after each commit, before it answers.
func (f *feed) put(members []*decision, at string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.arrived == nil || f.dropped {
		return
	}
	var when time.Time
	before := len(f.waiting)
	for _, d := range members {
		if d.sighting.JKT == "" {
			continue
		}
		if when.IsZero() {
			when, _ = ledger.ParseTime(at) // the sequencer wrote it
		}
		// Of a decision's entries the last one is the sighting: a key is bound
		// before the token that it was bound for.
		d.sighting.Entry, d.sighting.At = d.index+int64(len(d.drafts))-1, when
		f.waiting = append(f.waiting, d.sighting)
	}
	if len(f.waiting) > maxFeed {
		f.waiting, f.dropped = nil, true
	}
	if len(f.waiting) > before || f.dropped {
		signal(f.arrived)
	}
}

// take returns what waits, and whether something was dropped. spent is room that
// the caller is done with.
func (f *feed) take(spent []counterfoil.Sighting) (some []counterfoil.Sighting, dropped bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	some, dropped = f.waiting, f.dropped
	f.waiting, f.dropped = spent[:0], false
	return some, dropped
}

func (f *feed) open() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrived = make(chan struct{}, 1)
	return f.arrived
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrived, f.waiting, f.dropped = nil, nil, false
}

// Follow calls fn with the sightings of the log in their order: those of the
// entries from an index on, and then each new one once it is committed, until ctx
// ends or fn returns an error. Commits do not wait for it. One at a time follows.
func (s *Store) Follow(ctx context.Context, from int64, fn func(counterfoil.Sighting) error) error {
	arrived := s.feed.open() // nothing is missed from here on
	defer s.feed.close()
	next := from
	var some []counterfoil.Sighting
	for behind := true; ; {
		if behind {
			var err error
			if next, err = s.readSightings(ctx, next, fn); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-arrived:
		}
		if some, behind = s.feed.take(some); behind {
			s.stats.overflows.Add(1)
			s.opt.Log.Warn("sightings came faster than they were followed; reading the log", "from", next)
		}
		for _, seen := range some {
			if seen.Entry < next {
				continue // read from the log already
			}
			if err := fn(seen); err != nil {
				return err
			}
			next = seen.Entry + 1
		}
	}
}

// readSightings calls fn with the sightings from an index on, and returns where
// the log ended.
func (s *Store) readSightings(ctx context.Context, from int64, fn func(counterfoil.Sighting) error) (int64, error) {
	size := s.Size()
	err := s.Entries(ctx, from, size, func(_ int64, entry []byte) error {
		seen, err := readSighting(entry)
		if err != nil || seen.JKT == "" {
			return err
		}
		return fn(seen)
	})
	return max(from, size), err
}

// Judged remembers that the sightings of all entries before next need not be looked
// at again; whoever follows calls it, and an index that is not beyond the last one is
// no news. It is written with a commit, once a second, and when the store is closed:
// a crash forgets what was judged since, and it is judged again.
func (s *Store) Judged(next int64) {
	if next > s.judged.Load() {
		s.judged.Store(next)
	}
}

// notJudged is what Judged was told last where nobody wrote it down: in a database
// that an older version made.
const notJudged = -1

// Begin returns where to follow from after a start: an index such that the sightings
// before it are judged, and older by more than back than the last one that is. In a
// database of an older version what is there counts as judged.
func (s *Store) Begin(ctx context.Context, back time.Duration) (int64, error) {
	end := s.judged.Load()
	if end == notJudged {
		end = s.Size()
	}
	from, bound := end, ""
	err := s.backwards(ctx, end, func(g segment) (bool, error) {
		if bound != "" {
			if newest(g.data) < bound {
				return false, nil
			}
			from = g.first
			return true, nil
		}
		err := g.each(g.first, end, func(_ int64, entry []byte) error {
			seen, err := readSighting(entry)
			if err == nil && seen.JKT != "" {
				bound, from = ledger.FormatTime(seen.At.Add(-back)), g.first
			}
			return err
		})
		return true, err
	})
	return from, err
}

var proofNeedle = []byte(`"proof":"`)

func readSighting(entry []byte) (counterfoil.Sighting, error) {
	if !bytes.Contains(entry, proofNeedle) {
		return counterfoil.Sighting{}, nil
	}
	e, err := ledger.Parse(entry)
	if err != nil {
		return counterfoil.Sighting{}, err
	}
	seen := sightingOf(e)
	seen.Entry = e.Index
	seen.At, err = e.When()
	return seen, err
}

// sightingOf returns what an entry says of a key, without the entry's place: the
// zero Sighting when it says nothing.
//
// A refused token request is none, unless it is the key that is refused: its instance
// is that of its assertion, which may be one that was used before and is anybody's
// then. A key is judged beside an assertion that was not used.
func sightingOf(e *ledger.Entry) counterfoil.Sighting {
	foreign := e.Kind == ledger.TokenRefused && e.Code == counterfoil.KeyInUse
	if e.Proof == "" || e.Kind == ledger.CallFinished || e.Kind == ledger.TokenRefused && !foreign {
		return counterfoil.Sighting{}
	}
	return counterfoil.Sighting{
		RequestID: e.RequestID, Agent: e.Agent, Instance: e.Instance, JKT: e.JKT, Address: e.Source.Address, Foreign: foreign,
	}
}
