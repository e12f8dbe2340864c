package resource_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/resource"
)

// large is a snapshot of so many agents and so many dead tokens.
func large(agents, dead int) counterfoil.RevocationFeed {
	step := &counterfoil.RevocationStep{Seq: 1, At: start, Agents: make(map[string]counterfoil.AgentState, agents)}
	for i := range agents {
		step.Agents[fmt.Sprintf("agent-%07d", i)] = counterfoil.AgentState{Status: counterfoil.Active, Epoch: activeEpoch + int64(i)}
	}
	for i := range dead {
		step.Dead = append(step.Dead, counterfoil.Dead{Kind: counterfoil.TargetToken, ID: fmt.Sprintf("tok_%026d", i), Until: start.Add(time.Hour)})
	}
	return counterfoil.RevocationFeed{Seq: 1, At: start, Snapshot: step, MaxStale: 10_000}
}

// BenchmarkView measures what a view of a million agents and 100,000 dead tokens
// takes: memory, what a step costs it, and what each request does.
func BenchmarkView(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	view := &resource.View{Now: func() time.Time { return start }}
	func() {
		if err := view.Take(large(1_000_000, 100_000), start); err != nil {
			b.Fatal(err)
		}
	}()
	runtime.GC()
	runtime.ReadMemStats(&after)
	size := float64(after.HeapAlloc - before.HeapAlloc)
	c := payroll()
	c.Agent, c.Epoch = "agent-0500000", activeEpoch+500_000
	b.Run("revoked", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := view.Revoked(context.Background(), c); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(size/(1<<20), "MiB")
	})
	seq := int64(1)
	b.Run("step", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			step := counterfoil.RevocationStep{Seq: seq + 1, Prev: seq, At: start, Agents: map[string]counterfoil.AgentState{
				"agent-0000001": {Status: counterfoil.Suspended, Epoch: activeEpoch + 2_000_000 + seq},
			}}
			seq++
			if err := view.Take(counterfoil.RevocationFeed{Seq: seq, At: start, Steps: []counterfoil.RevocationStep{step}}, start); err != nil {
				b.Fatal(err)
			}
		}
	})
	runtime.KeepAlive(view)
}

// TestViewIsSmall: an agent and what is dead take so much and no more.
func TestViewIsSmall(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	view := &resource.View{Now: func() time.Time { return start }}
	const n = 200_000
	if err := view.Take(large(n, n/10), start); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := float64(after.HeapAlloc-before.HeapAlloc) / n; each > 150 {
		t.Errorf("%.0f bytes an agent", each)
	} else {
		t.Logf("%.0f bytes an agent, with a dead token to ten of them", each)
	}
	runtime.KeepAlive(view)
}
