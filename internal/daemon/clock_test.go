package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/resource"
)

func TestNoProofIsTakenAfterTheClockStepped(t *testing.T) {
	for _, c := range []struct {
		name  string
		step  time.Duration
		taken bool
	}{
		{"no step", 0, true},
		{"a correction", 2 * time.Second, true},
		{"an hour ahead", time.Hour, false},
		{"an hour back", -time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := &clockGuard{start: time.Now()}
			r := guardedReplay{resource.NewMemoryReplay(time.Now), g}
			if fresh, err := r.UseOnce(context.Background(), "first", time.Now().Add(time.Minute)); err != nil || !fresh {
				t.Fatalf("before the step: %v, %v", fresh, err)
			}
			g.observe(c.step)
			fresh, err := r.UseOnce(context.Background(), "second", time.Now().Add(time.Minute))
			if taken := err == nil && fresh; taken != c.taken {
				t.Errorf("after a step of %s: taken %v (%v)", c.step, taken, err)
			}
			if (g.err() == nil) != c.taken {
				t.Errorf("the guard says %v", g.err())
			}
		})
	}
}
