package authority

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Rates. An authenticated agent has its own, so that one agent's flood leaves
// the others alone. An address pays only for what is refused before
// authentication, so that honest agents behind one address do not pay for each
// other.
const (
	agentRate, agentBurst   = 100, 500
	sourceRate, sourceBurst = 200, 1000
)

// maxLimited bounds how many keys a limiter tells apart.
const maxLimited = 8192

// A limiter is a token bucket for each key.
type limiter struct {
	rate  rate.Limit
	burst int

	mu     sync.Mutex
	byName map[string]*rate.Limiter // guarded by mu
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{rate: rate.Limit(perSecond), burst: burst, byName: map[string]*rate.Limiter{}}
}

// take takes n tokens of key's bucket and reports whether they were there; with
// n = 0 it only looks whether there is any.
func (l *limiter) take(key string, now time.Time, n int) bool {
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
func (l *limiter) forget(now time.Time) {
	for key, b := range l.byName {
		if b.TokensAt(now) >= float64(l.burst) {
			delete(l.byName, key)
		}
	}
	if len(l.byName) >= maxLimited {
		clear(l.byName)
	}
}

// sourceKey is what an address is limited by: an IPv6 host has a whole /64. All
// unknown addresses are one.
func sourceKey(a netip.Addr) string {
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil {
			return p.String()
		}
	}
	return a.String()
}

// An aggregate counts the refusals that have no entry of their own: those
// before authentication, and those over a rate. Its size is bounded by the
// table of codes. What it holds at a crash is lost: at most a minute of counts.
type aggregate struct {
	mu     sync.Mutex
	since  time.Time                // guarded by mu
	counts map[counterfoil.Code]int // guarded by mu
}

// Refused counts a refusal that has no entry of its own. The gateway counts
// here too, so that there is one aggregate entry a minute.
func (a *Authority) Refused(code counterfoil.Code) {
	a.refusals.mu.Lock()
	defer a.refusals.mu.Unlock()
	if a.refusals.counts == nil {
		a.refusals.counts = map[counterfoil.Code]int{}
	}
	a.refusals.counts[code.Wire().Code]++
}

// Flush writes what was counted since the last time as one entry, if there is
// anything. When the entry cannot be written the counts stay for the next time.
func (a *Authority) Flush(ctx context.Context) error {
	r := &a.refusals
	r.mu.Lock()
	counts, since, now := r.counts, r.since, a.cfg.Now()
	r.counts, r.since = nil, now
	r.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	byCode, total := map[string]any{}, 0
	for code, n := range counts {
		byCode[string(code)] = n
		total += n
	}
	err := a.cfg.Store.Append(ctx, &ledger.Entry{
		Kind: ledger.RefusedAggregate, Decision: ledger.Refuse,
		Detail: map[string]any{
			"from": ledger.FormatTime(since), "to": ledger.FormatTime(now), "total": total, "codes": byCode,
		},
	})
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.since = since
		if r.counts == nil {
			r.counts = map[counterfoil.Code]int{}
		}
		for code, n := range counts {
			r.counts[code] += n
		}
	}
	return err
}
