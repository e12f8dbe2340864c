package web

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates. What anyone may ask costs a place among the ceremonies that are kept, and a
// signature check: a person at a desk needs two requests a quarter of an hour, an
// office behind one address a few hundred. An agent looks at its approval every five
// seconds; each look is two entries of the ledger.
const (
	addressRate, addressBurst = 2, 120
	lookRate, lookBurst       = 10, 50
)

// maxBuckets bounds how many keys are told apart.
const maxBuckets = 8192

// buckets is a token bucket for each key.
type buckets struct {
	rate  rate.Limit
	burst int

	mu    sync.Mutex
	byKey map[string]*rate.Limiter // guarded by mu
}

func newBuckets(perSecond float64, burst int) *buckets {
	return &buckets{rate: rate.Limit(perSecond), burst: burst, byKey: map[string]*rate.Limiter{}}
}

// take takes a token of the key's bucket and reports whether there was one.
func (b *buckets) take(key string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.byKey[key]
	if l == nil {
		if len(b.byKey) >= maxBuckets {
			b.forget(now)
		}
		l = rate.NewLimiter(b.rate, b.burst)
		b.byKey[key] = l
	}
	return l.AllowN(now, 1)
}

// forget drops the buckets that are full, which say nothing, and where that frees
// nothing, all: whoever has so many addresses gains no more by it than by one more.
func (b *buckets) forget(now time.Time) {
	for key, l := range b.byKey {
		if l.TokensAt(now) >= float64(b.burst) {
			delete(b.byKey, key)
		}
	}
	if len(b.byKey) >= maxBuckets {
		clear(b.byKey)
	}
}

// addressKey is what an address is limited by: an IPv6 host has a whole /64. All
// unknown addresses are one.
func addressKey(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
