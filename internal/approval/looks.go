package approval

import (
	"slices"
	"sync"
	"time"
)

// looks remember when people opened approvals, so that whoever signs without reading
// can be seen. They are in memory alone and mean nothing for what is allowed.
type looks struct {
	mu     sync.Mutex
	opened map[string]time.Time       // by person and approval
	last   map[string][]time.Duration // by person: how long the latest signatures took
}

const (
	maxLooks   = 10_000
	keptDelays = 31
)

func newLooks() *looks {
	return &looks{opened: map[string]time.Time{}, last: map[string][]time.Duration{}}
}

// open remembers the first time that a person saw an approval.
func (l *looks) open(person, id string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.opened) >= maxLooks {
		clear(l.opened)
	}
	key := signingKey(id, person)
	if _, ok := l.opened[key]; !ok {
		l.opened[key] = now
	}
}

// took returns how long a person had an approval open before signing it.
func (l *looks) took(person, id string, now time.Time) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := signingKey(id, person)
	at, ok := l.opened[key]
	if !ok {
		return 0, false
	}
	delete(l.opened, key)
	d := max(now.Sub(at), 0)
	kept := append(l.last[person], d)
	l.last[person] = kept[max(len(kept)-keptDelays, 0):]
	return d, true
}

// median returns how long a person's latest signatures took, in seconds.
func (l *looks) median(person string) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := slices.Sorted(slices.Values(l.last[person]))
	if len(d) == 0 {
		return 0
	}
	return d[len(d)/2].Seconds()
}
