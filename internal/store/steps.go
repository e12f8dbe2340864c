package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
)

// What is kept of the feed for those who are a little behind. Whoever is further behind
// gets everything at once.
const (
	maxSteps     = 4096
	maxStepItems = 1 << 17 // states and dead in all of them
)

// A trail is the newest steps of what is revoked, each linked to the one before.
type trail struct {
	mu       sync.Mutex
	seq      int64 // of the newest step; where the log ended, while there is none since the start
	kept     []counterfoil.RevocationStep
	items    int
	grown    chan struct{}               // closed by the next step; nil while nobody waits
	snapshot *counterfoil.RevocationStep // of seq, once somebody asked
}

func itemsOf(s *counterfoil.RevocationStep) int { return len(s.Agents) + len(s.Dead) }

// add is called by the sequencer after a commit that changed something, before anybody
// is told that it did.
func (f *trail) add(s counterfoil.RevocationStep) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Prev = f.seq
	f.seq, f.snapshot = s.Seq, nil
	f.kept = append(f.kept, s)
	f.items += itemsOf(&s)
	drop := 0
	for len(f.kept)-drop > 1 && (len(f.kept)-drop > maxSteps || f.items > maxStepItems) {
		f.items -= itemsOf(&f.kept[drop])
		drop++
	}
	if drop > 0 {
		// In place: nobody holds this slice, and what an append left behind would
		// keep what is dropped.
		n := copy(f.kept, f.kept[drop:])
		clear(f.kept[n:])
		f.kept = f.kept[:n]
	}
	if f.grown != nil {
		close(f.grown)
		f.grown = nil
	}
}

// begin is called by the sequencer after a commit that changed nothing. The trail of an
// empty log begins with its first entries: whoever follows has an index to ask after,
// and waits for what comes.
func (f *trail) begin(seq int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seq < 0 {
		f.seq, f.snapshot = seq, nil
	}
}

// after returns the steps after one, in order; behind is true where they are not all at
// hand. Where there are none, grown is closed by the next.
func (f *trail) after(seq int64, now func() time.Time) (feed counterfoil.RevocationFeed, behind bool, grown <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// The time is read while nobody can add: whatever was acknowledged before it is in.
	feed = counterfoil.RevocationFeed{Seq: f.seq, At: now()}
	if seq == f.seq && seq >= 0 {
		if f.grown == nil {
			f.grown = make(chan struct{})
		}
		return feed, false, f.grown
	}
	if seq < 0 || seq > f.seq || len(f.kept) == 0 || seq < f.kept[0].Prev {
		return feed, true, nil
	}
	i, _ := slices.BinarySearchFunc(f.kept, seq, func(s counterfoil.RevocationStep, seq int64) int {
		if s.Seq <= seq {
			return -1
		}
		return 1
	})
	feed.Steps = slices.Clone(f.kept[i:])
	return feed, false, nil
}

// RevocationFeed returns what changed after a step, in order, and waits until something
// did or ctx ends: then there are no steps, and Seq and At say that nothing changed
// until At. Where the steps are not at hand, as after is negative, long ago or not of
// this log, it returns a Snapshot at once: every agent that is not offboarded, and
// everything that is dead. A step is in the feed before the verb that made it returns.
// MaxStale is for who hands it on to say.
func (s *Store) RevocationFeed(ctx context.Context, after int64) (counterfoil.RevocationFeed, error) {
	for waits := true; ; {
		feed, behind, grown := s.steps.after(after, s.opt.Now)
		if behind {
			return s.snapshot(), nil
		}
		if grown == nil || !waits {
			return feed, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			waits = false // and one more look, for what is true now
		}
	}
}

// snapshot returns everything as of the newest step.
func (s *Store) snapshot() counterfoil.RevocationFeed {
	// Nobody adds a step while this is held.
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.steps.mu.Lock()
	defer s.steps.mu.Unlock()
	now := s.opt.Now()
	if s.steps.snapshot == nil {
		s.steps.snapshot = s.views.snapshot(s.steps.seq, now)
	}
	return counterfoil.RevocationFeed{Seq: s.steps.seq, At: now, Snapshot: s.steps.snapshot}
}

func (v *views) snapshot(seq int64, now time.Time) *counterfoil.RevocationStep {
	step := &counterfoil.RevocationStep{Seq: seq, Prev: seq, At: now, Agents: maps.Clone(v.agents), Dead: make([]counterfoil.Dead, 0, len(v.dead)+len(v.deadTokens))}
	maps.DeleteFunc(step.Agents, func(_ string, a counterfoil.AgentState) bool { return a.Status == counterfoil.Offboarded })
	for _, d := range v.dead {
		step.Dead = append(step.Dead, d)
	}
	for id, until := range v.deadTokens {
		step.Dead = append(step.Dead, counterfoil.Dead{Kind: counterfoil.TargetToken, ID: id, Until: fromMillis(until)})
	}
	step.Dead = slices.DeleteFunc(step.Dead, func(d counterfoil.Dead) bool { return !now.Before(d.Until) })
	slices.SortFunc(step.Dead, func(a, b counterfoil.Dead) int {
		if c := strings.Compare(string(a.Kind), string(b.Kind)); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return step
}

// A change is what the views learned of a commit that who enforces must know.
type change struct {
	agents map[string]counterfoil.AgentState
	dead   []counterfoil.Dead
}

// setAgent learns where an agent is in its life.
func (v *views) setAgent(agent string, state counterfoil.AgentState) {
	v.agents[agent] = state
	if v.changed.agents == nil {
		v.changed.agents = map[string]counterfoil.AgentState{}
	}
	v.changed.agents[agent] = state
	v.changes++
}

// bury learns that something is dead.
func (v *views) bury(d counterfoil.Dead) {
	if d.Kind == counterfoil.TargetToken {
		v.deadTokens[d.ID] = millis(d.Until)
	} else {
		at := deadKey{d.Kind, d.ID}
		if old, ok := v.dead[at]; ok { // as the table has it
			d.Until = later(old.Until, d.Until)
			if old.Before.IsZero() || d.Before.IsZero() {
				d.Before = time.Time{}
			} else {
				d.Before = later(old.Before, d.Before)
			}
		}
		v.dead[at] = d
	}
	v.changed.dead = append(v.changed.dead, d)
	v.changes++
}

// forget drops what is dead for longer than any token could be in its time.
func (v *views) forget(d deadKey) {
	if d.kind == counterfoil.TargetToken {
		delete(v.deadTokens, d.id)
		return
	}
	delete(v.dead, d)
}

// A deadKey names what is dead.
type deadKey struct {
	kind counterfoil.TargetKind
	id   string
}
