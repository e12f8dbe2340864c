package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
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

// A slowRecorder takes its time for each entry.
type slowRecorder struct {
	Recorder
	takes    time.Duration
	recorded int
}

func (s *slowRecorder) Append(ctx context.Context, _ *ledger.Entry) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.takes, errCommitted)
	defer cancel()
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errCommitted) {
		return ctx.Err()
	}
	s.recorded++
	return nil
}

var errCommitted = errors.New("it is committed")

// TestDrainIsBounded: a store that is stuck holds up the end of the server once
// and not once for each agent.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		takes    time.Duration
		recorded int
		drained  time.Duration
	}{
		{"a store that works", 10 * time.Millisecond, 5, 50 * time.Millisecond},
		{"a slow store", 900 * time.Millisecond, 2, drainLimit},
		{"a store that is stuck", time.Hour, 0, drainLimit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				recorder := &slowRecorder{takes: tc.takes}
				g := &Gateway{cfg: Config{Recorder: recorder, Now: time.Now, Log: slog.New(slog.DiscardHandler)}, rates: newRates(1)}
				reg := counterfoil.NewRegistry()
				for i := range 5 {
					name := fmt.Sprintf("agent-%d", i)
					reg.Agents[name] = &counterfoil.Agent{}
					for range 3 {
						g.rates.take(name, reg, time.Now())
					}
				}
				began := time.Now()
				g.Drain()
				if took := time.Since(began); took != tc.drained || recorder.recorded != tc.recorded {
					t.Errorf("it took %s for %d entries", took, recorder.recorded)
				}
			})
		})
	}
}

// TestOneCatalogForEachResource: what one upstream said is not known of another,
// and what is remembered does not grow with each move.
func TestOneCatalogForEachResource(t *testing.T) {
	t.Parallel()
	g := &Gateway{}
	at := func(upstream string) *catalog {
		return g.catalog(&counterfoil.Resource{Name: "bank", Upstream: upstream})
	}
	first := at("https://one.example/mcp")
	first.put("pay", &Definition{Digest: "sha-256:x"}, time.Time{})
	if at("https://one.example/mcp") != first {
		t.Error("a resource that stays is forgotten")
	}
	for i := range 100 {
		if c := at(fmt.Sprintf("https://%d.example/mcp", i)); c == first || c.known("pay") != nil {
			t.Fatal("a resource that moved is known by what it was")
		}
	}
	held := 0
	g.catalogs.Range(func(any, any) bool { held++; return true })
	if held != 1 {
		t.Errorf("%d catalogs are held", held)
	}
}
