package resource

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

const replayShards = 256

// MemoryReplay is a ReplayCache for one machine. It forgets an id only when
// its time has passed: there is no limit that an attacker could push a live id
// out by. An id takes 20 bytes plus the map's slack, under 100 in all. What it
// knows is lost with the process; Load brings it back from a record.
type MemoryReplay struct {
	now    func() time.Time
	shards [replayShards]replayShard
}

// A replayShard holds ids by 128 bits of their SHA-256, with the last second,
// since 1970, in which they are live. Should two ids ever meet there, the later
// is refused.
type replayShard struct {
	mu    sync.Mutex
	m     map[[16]byte]uint32
	sweep uint32 // when to look for what is past
	peak  int    // the most that the map held
}

// sweepEvery is how many seconds pass between two sweeps of a shard. Ids live
// about a minute, so each is looked at some three times.
const sweepEvery = 30

// NewMemoryReplay makes an empty cache. now may be nil for time.Now.
func NewMemoryReplay(now func() time.Time) *MemoryReplay {
	if now == nil {
		now = time.Now
	}
	return &MemoryReplay{now: now}
}

// UseOnce records key until t and reports whether it was unseen. It never
// returns an error.
func (r *MemoryReplay) UseOnce(_ context.Context, key string, until time.Time) (bool, error) {
	return r.use(key, until), nil
}

// Load records an id that was used before, as read back from a record after a
// restart.
func (r *MemoryReplay) Load(key string, until time.Time) { r.use(key, until) }

func (r *MemoryReplay) use(key string, until time.Time) bool {
	sum := sha256.Sum256([]byte(key))
	id := [16]byte(sum[:16])
	now := second(r.now())
	last := second(until)
	if until.Nanosecond() > 0 {
		last++
	}

	s := &r.shards[sum[16]]
	s.mu.Lock()
	defer s.mu.Unlock()
	if now >= s.sweep {
		s.drop(now)
	}
	if old, seen := s.m[id]; seen && now <= old {
		s.m[id] = max(old, last)
		return false
	}
	if last < now {
		// Its time passed between the check of its age and here: an id that is
		// past is not remembered, so it is not taken either.
		return false
	}
	if s.m == nil {
		s.m = map[[16]byte]uint32{}
	}
	s.m[id] = last
	s.peak = max(s.peak, len(s.m))
	return true
}

// drop forgets what is past. A map does not give memory back, so one that was
// far larger is made anew.
func (s *replayShard) drop(now uint32) {
	s.sweep = now + sweepEvery
	for id, last := range s.m {
		if last < now {
			delete(s.m, id)
		}
	}
	if s.peak > 64 && len(s.m) < s.peak/4 {
		m := make(map[[16]byte]uint32, 2*len(s.m))
		for id, last := range s.m {
			m[id] = last
		}
		s.m, s.peak = m, len(m)
	}
}

// second returns whole seconds since 1970; before that is 0, beyond 2106 the
// last there is, so that a wrong clock forgets nothing early.
func second(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), 1<<32-2))
}

// Len returns how many ids are held, those that are past and not swept yet
// included.
func (r *MemoryReplay) Len() int {
	n := 0
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += len(s.m)
		s.mu.Unlock()
	}
	return n
}
