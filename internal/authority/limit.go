package authority

import (
	"context"
	"sync"
	"time"

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

	// Of each address: a scanner that found something reports once.
	leakRate, leakBurst = 2, 60
)

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
