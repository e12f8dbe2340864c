package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/resource"
)

// maxStep is how far the wall clock may move against the monotonic one before
// it is a step, not a correction. Proofs are judged to ten seconds.
const maxStep = 5 * time.Second

// A clockGuard watches for a wall clock that steps. What was single use in the
// old time may be fresh again in the new one, so after a step no proof is taken
// until an operator has confirmed the clock by a restart.
type clockGuard struct {
	mu      sync.Mutex
	start   time.Time // with the monotonic reading
	stepped time.Duration
}

// look compares the two clocks. A test passes a time with a monotonic reading
// of its own making.
func (g *clockGuard) look(now time.Time) {
	wall := now.Round(0).Sub(g.start.Round(0)) // Round(0) strips the monotonic reading
	g.observe(wall - now.Sub(g.start))
}

func (g *clockGuard) observe(step time.Duration) {
	if step < maxStep && step > -maxStep {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stepped == 0 {
		g.stepped = step
	}
}

// err says why the clock cannot be relied on; nil when it can.
func (g *clockGuard) err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stepped == 0 {
		return nil
	}
	return fmt.Errorf("the clock stepped by %s while the server ran; set it right and restart (with --confirm-clock if the ledger's last entry is ahead of it)", g.stepped.Round(time.Second))
}

func (g *clockGuard) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.look(time.Now())
		}
	}
}

// guardedReplay is the memory of used proofs as long as the clock that it
// forgets by can be relied on.
type guardedReplay struct {
	*resource.MemoryReplay
	guard *clockGuard
}

// UseOnce is MemoryReplay's, or an error after a step of the clock: then it is
// not known what was used.
func (r guardedReplay) UseOnce(ctx context.Context, key string, until time.Time) (bool, error) {
	if err := r.guard.err(); err != nil {
		return false, err
	}
	return r.MemoryReplay.UseOnce(ctx, key, until)
}
