package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// TestRatesAreBoundedByTheRegistry: whatever names tokens have had, what is
// remembered is of the agents that are there now, and one for all others.
func TestRatesAreBoundedByTheRegistry(t *testing.T) {
	t.Parallel()
	r, now := newRates(1), time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for i := range 1000 {
		reg := counterfoil.NewRegistry()
		name := fmt.Sprintf("agent-%d", i)
		reg.Agents[name], reg.Agents["always"] = &counterfoil.Agent{}, &counterfoil.Agent{}
		r.take(name, reg, now)
		r.take("always", reg, now)
		r.take("nobody-"+name, reg, now)
		if len(r.byAgent) > len(reg.Agents)+2 {
			t.Fatalf("%d are remembered of %d agents", len(r.byAgent), len(reg.Agents))
		}
	}
	// Whoever stayed was not given a new allowance on the way.
	if a := r.byAgent["always"]; a == nil || a.refused != 1000-2 {
		t.Errorf("the agent that stayed has %+v", a)
	}
}
