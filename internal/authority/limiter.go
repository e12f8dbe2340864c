package authority

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxLimited bounds how many keys a Limiter tells apart.
const maxLimited = 8192

// A Limiter is a token bucket for each key, of a bounded number of keys. It is safe for
// concurrent use.
type Limiter struct {
	rate  rate.Limit
	burst int

	mu     sync.Mutex
	byName map[string]*rate.Limiter // guarded by mu
}

// NewLimiter makes a Limiter of so many tokens a second, and so many at once.
func NewLimiter(perSecond float64, burst int) *Limiter {
	return &Limiter{rate: rate.Limit(perSecond), burst: burst, byName: map[string]*rate.Limiter{}}
}

// Take takes n tokens of key's bucket and reports whether they were there; with
// n = 0 it only looks whether there is any.
func (l *Limiter) Take(key string, now time.Time, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.byName[key]
	if b == nil {
		if len(l.byName) >= maxLimited {
			l.forget(now)
		}
		b = rate.NewLimiter(l.rate, l.burst)
		l.byName[key] = b
	}
	if n == 0 {
		return b.TokensAt(now) >= 1
	}
	return b.AllowN(now, n)
}

// forget drops the full buckets, which say nothing, and when that frees
// nothing, all: whoever has so many addresses gains no more by it than by one
// more address.
func (l *Limiter) forget(now time.Time) {
	for key, b := range l.byName {
		if b.TokensAt(now) >= float64(l.burst) {
			delete(l.byName, key)
		}
	}
	if len(l.byName) >= maxLimited {
		clear(l.byName)
	}
}

// AddressKey is what an address is limited by: an IPv6 host has a whole /64. All
// unknown addresses are one.
func AddressKey(a netip.Addr) string {
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil {
			return p.String()
		}
	}
	return a.String()
}
