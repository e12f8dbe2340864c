package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// stepsAfter asks the feed without waiting.
func (s *subject) stepsAfter(after int64) counterfoil.RevocationFeed {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f, err := s.RevocationFeed(ctx, after)
	s.wantDone(err)
	if !f.At.Equal(s.fixture.clock.Now()) {
		s.t.Errorf("it is as of %s", f.At)
	}
	return f
}

func (s *subject) suspendAndResume() {
	s.t.Helper()
	s.wantDone(s.suspend(s.t.Context(), "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantDone(s.resume("payroll"))
}

func deadOf(list []counterfoil.Dead) (out []string) {
	for _, d := range list {
		out = append(out, string(d.Kind)+" "+d.ID)
	}
	slices.Sort(out)
	return out
}

func suiteFeed(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	s.token("tok_1", "payroll", "ins_1", "")
	begin := s.stepsAfter(-1)
	if begin.Snapshot == nil || begin.Steps != nil || begin.Snapshot.Seq != begin.Seq || begin.Seq >= s.size() || len(begin.Snapshot.Agents) != 1 || len(begin.Snapshot.Dead) != 0 {
		t.Fatalf("the beginning is %+v", begin)
	}
	if f := s.stepsAfter(begin.Seq); f.Snapshot != nil || f.Steps != nil || f.Seq != begin.Seq {
		t.Errorf("nothing changed: %+v", f)
	}
	// What is revoked is no step of what is issued.
	s.token("tok_2", "payroll", "ins_1", "")
	if f := s.stepsAfter(begin.Seq); f.Steps != nil || f.Seq != begin.Seq {
		t.Errorf("a token was issued: %+v", f)
	}
	var seqs []int64
	step := func(do func(), agents int, dead ...string) {
		t.Helper()
		before := s.stepsAfter(-1).Seq
		do()
		f := s.stepsAfter(before)
		if len(f.Steps) != 1 || f.Snapshot != nil || f.Seq != s.size()-1 {
			t.Fatalf("it is not one step: %+v", f)
		}
		got := f.Steps[0]
		if got.Seq != f.Seq || got.Prev != before || !got.At.Equal(s.fixture.clock.Now()) || len(got.Agents) != agents || !slices.Equal(deadOf(got.Dead), dead) {
			t.Errorf("the step is %+v, want %d agents, %v", got, agents, dead)
		}
		for name, state := range got.Agents {
			if state != s.AgentState(name) {
				t.Errorf("%s is %+v", name, state)
			}
		}
		seqs = append(seqs, got.Seq)
	}
	step(func() { s.agent("planner") }, 1)
	step(func() { // of two entries the last says where it is
		_, base := s.Registry()
		s.wantDone(s.Apply(ctx, counterfoil.Change{Base: base, Put: []counterfoil.Document{agentDocument(t, "third")}},
			[]*ledger.Entry{entry(ledger.AgentCreated, "third"), entry(ledger.ConfigApplied, "")}))
	}, 1)
	step(func() { s.revoke(counterfoil.TargetToken, "tok_1") }, 0, "token tok_1")
	step(func() { s.revoke(counterfoil.TargetTask, "tsk_1") }, 0, "task tsk_1")
	step(func() { s.revoke(counterfoil.TargetKey, "bound") }, 0, "key bound")
	step(func() { s.revoke(counterfoil.TargetResource, "bank") }, 0, "resource https://issuer/r/bank")
	step(func() { s.wantDone(s.rotate("jkt-ins_1", "k2", 0)) }, 0, "key jkt-ins_1")
	step(func() { s.suspect(suspicion("ins_1", s.fixture.clock.Now(), true), true) }, 0, "instance ins_1")
	step(func() { s.wantDone(s.resume("payroll", "ins_1")) }, 1)
	step(func() { s.revoke(counterfoil.TargetInstance, "ins_1") }, 0, "instance ins_1")
	step(func() { s.revoke(counterfoil.TargetOwner, "ana") }, 3)
	step(func() {
		_, err := s.Offboard(ctx, "planner", entry(ledger.AgentOffboarded, "planner"))
		s.wantDone(err)
	}, 1)
	// All of them, linked and in order, and any part.
	for i, after := range append([]int64{begin.Seq}, seqs...) {
		f := s.stepsAfter(after)
		if len(f.Steps) != len(seqs)-i {
			t.Fatalf("%d steps after %d, want %d", len(f.Steps), after, len(seqs)-i)
		}
		prev := after
		for _, st := range f.Steps {
			if st.Prev != prev || st.Seq <= prev {
				t.Errorf("step %d after %d says %d", st.Seq, prev, st.Prev)
			}
			prev = st.Seq
		}
	}
	// One that is between two is at the first of them.
	if f := s.stepsAfter(begin.Seq + 1); len(f.Steps) != len(seqs) || f.Snapshot != nil {
		t.Errorf("after %d: %+v", begin.Seq+1, f)
	}
	// What nobody was ever at, and what is before all that is kept, is everything.
	all := s.stepsAfter(-1)
	for _, after := range []int64{-5, begin.Seq - 1, all.Seq + 1, 1 << 40} {
		if f := s.stepsAfter(after); f.Snapshot == nil || f.Steps != nil || f.Seq != all.Seq {
			t.Errorf("after %d: %+v", after, f)
		}
	}
	wantDead := []string{"instance ins_1", "key bound", "key jkt-ins_1", "resource https://issuer/r/bank", "task tsk_1", "token tok_1"}
	wantAgents := map[string]counterfoil.AgentState{"payroll": s.AgentState("payroll"), "third": s.AgentState("third")} // who is not known is revoked
	check := func(f counterfoil.RevocationFeed) {
		t.Helper()
		if got := deadOf(f.Snapshot.Dead); !slices.Equal(got, wantDead) || !maps.Equal(f.Snapshot.Agents, wantAgents) {
			t.Errorf("everything is %v, %+v", got, f.Snapshot.Agents)
		}
	}
	check(all)
	// Steps and everything come to the same.
	// After a start everybody is behind, and what there is is the same.
	s.reopen()
	again := s.stepsAfter(all.Seq - 1)
	if again.Snapshot == nil || again.Seq < all.Seq {
		t.Fatalf("after a start: %+v", again)
	}
	check(again)
	// A quarantined instance gets tokens again once it is released; ended it does not.
	for _, d := range again.Snapshot.Dead {
		if d.Kind == counterfoil.TargetInstance && !d.Before.IsZero() || d.Kind == counterfoil.TargetResource && d.Before.IsZero() {
			t.Errorf("%+v", d)
		}
	}
	// It is told as long as a token of before could be in its time.
	s.fixture.clock.Advance(longestToken - time.Second)
	check(s.stepsAfter(-1))
	s.fixture.clock.Advance(time.Second)
	wantDead = nil
	s.wantDone(s.resume("payroll"))
	wantAgents["payroll"] = s.AgentState("payroll")
	check(s.stepsAfter(-1))
	// And then it is forgotten, but for what is known of it anyway.
	s.fixture.clock.Advance(time.Minute)
	s.wantDone(s.Append(ctx, entry(ledger.ServerStarted, "")))
	if n := s.buried(); n != 0 {
		t.Errorf("%d are kept", n)
	}
	s.reopen()
	if n := s.buried(); n != 0 {
		t.Errorf("%d are in the table", n)
	}
	check(s.stepsAfter(-1))
}

func (s *subject) buried() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.views.dead) + len(s.views.deadTokens)
}

// Who is too far behind for what is kept gets everything.
func suiteFeedRing(t *testing.T, s *subject) {
	s.crew()
	first := s.stepsAfter(-1).Seq
	s.suspendAndResume()
	second := s.stepsAfter(first).Steps[0].Seq
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Go(func() {
			for n := i; n < 3*maxSteps; n += 256 {
				_, _, err := s.tryRevoke(counterfoil.TargetToken, fmt.Sprint("tok_", n), func(r *counterfoil.Revocation) {
					r.Agent, r.Expires = "payroll", s.fixture.clock.Now().Add(time.Minute)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.steps.mu.Lock()
	kept, items := len(s.steps.kept), s.steps.items
	s.steps.mu.Unlock()
	if kept > maxSteps || items > maxStepItems {
		t.Errorf("%d steps of %d are kept", kept, items)
	}
	// Commits of many revocations are one step each: whether that is too far depends.
	for _, after := range []int64{first, second} {
		f := s.stepsAfter(after)
		if f.Snapshot != nil {
			if n := len(f.Snapshot.Dead); n != 3*maxSteps {
				t.Errorf("everything is %d", n)
			}
			continue
		}
		dead := 0
		for _, st := range f.Steps {
			dead += len(st.Dead)
		}
		if dead != 3*maxSteps {
			t.Errorf("%d are told", dead)
		}
	}
}

func TestTrailDropsTheOldest(t *testing.T) {
	t.Parallel()
	now := newClock().Now
	f := &trail{seq: 10}
	for i := range int64(maxSteps + 5) {
		f.add(counterfoil.RevocationStep{Seq: 11 + i, Dead: make([]counterfoil.Dead, 1)})
	}
	if len(f.kept) != maxSteps || f.items != maxSteps || f.kept[0].Prev != 15 {
		t.Fatalf("%d steps of %d are kept, from %d", len(f.kept), f.items, f.kept[0].Prev)
	}
	if _, behind, _ := f.after(14, now); !behind {
		t.Error("a step is missing, and nobody says so")
	}
	if feed, behind, _ := f.after(15, now); behind || len(feed.Steps) != maxSteps {
		t.Errorf("behind %v, %d steps", behind, len(feed.Steps))
	}
	// A large one takes the room of many, and stays alone if it must.
	f.add(counterfoil.RevocationStep{Seq: 1 << 20, Dead: make([]counterfoil.Dead, maxStepItems+1)})
	if len(f.kept) != 1 || f.items != maxStepItems+1 {
		t.Errorf("%d steps of %d are kept", len(f.kept), f.items)
	}
	if feed, behind, _ := f.after(int64(10+maxSteps+5), now); behind || len(feed.Steps) != 1 {
		t.Errorf("behind %v, %+v", behind, feed.Seq)
	}
}

// Who waits is woken by a step and by nothing else, and hears of it before the verb
// that made it returns.
func suiteFeedWaits(t *testing.T, s *subject) {
	s.crew()
	at := s.stepsAfter(-1).Seq
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const readers = 16
	got := make(chan counterfoil.RevocationFeed, readers)
	var ready sync.WaitGroup
	for range readers {
		ready.Add(1)
		go func() {
			ready.Done()
			f, err := s.RevocationFeed(ctx, at)
			if err != nil {
				t.Error(err)
			}
			got <- f
		}()
	}
	ready.Wait()
	s.wantDone(s.Append(ctx, entry(ledger.ServerStarted, ""))) // no step
	select {
	case f := <-got:
		t.Fatalf("somebody was woken: %+v", f)
	default:
	}
	s.wantDone(s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
	for range readers {
		if f := <-got; len(f.Steps) != 1 || f.Steps[0].Agents["payroll"].Status != counterfoil.Suspended {
			t.Errorf("told: %+v", f)
		}
	}
	// Whoever stops waiting is told that nothing changed.
	at = s.stepsAfter(-1).Seq
	go func() {
		f, _ := s.RevocationFeed(ctx, at)
		got <- f
	}()
	cancel()
	if f := <-got; f.Steps != nil || f.Snapshot != nil || f.Seq != at {
		t.Errorf("told: %+v", f)
	}
}

// Whoever follows the steps has, at each of them, what everything says.
func suiteFeedFollowed(t *testing.T, s *subject) {
	s.crew()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	agents, dead, at := map[string]counterfoil.AgentState{}, map[string]bool{}, int64(-1)
	take := func(st *counterfoil.RevocationStep) {
		maps.Copy(agents, st.Agents)
		for _, d := range st.Dead {
			dead[string(d.Kind)+" "+d.ID] = true
		}
		at = st.Seq
	}
	done := make(chan struct{})
	last := make(chan int64, 1)
	go func() {
		defer close(done)
		end := int64(-1)
		for end < 0 || at < end {
			f, err := s.RevocationFeed(ctx, at)
			if err != nil {
				t.Error(err)
			}
			if f.Snapshot != nil {
				take(f.Snapshot)
			}
			for i := range f.Steps {
				if f.Steps[i].Prev > at {
					t.Errorf("a gap before %d", f.Steps[i].Seq)
				}
				take(&f.Steps[i])
			}
			select {
			case end = <-last:
			default:
			}
		}
	}()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 30 {
				id := fmt.Sprintf("tsk_%d_%d", i, n)
				if err := s.openTask(s.aTask(id, "payroll", "ins_1")); err != nil {
					t.Error(err)
				}
				if _, _, err := s.tryRevoke(counterfoil.TargetTask, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.agent("last")
	all := s.stepsAfter(-1)
	last <- all.Seq
	s.revoke(counterfoil.TargetAgent, "planner") // so that it looks once more
	all = s.stepsAfter(-1)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it never got there")
	}
	if at < all.Seq {
		f := s.stepsAfter(at)
		for i := range f.Steps {
			take(&f.Steps[i])
		}
	}
	if len(dead) != len(all.Snapshot.Dead) || len(dead) != 240 || !maps.Equal(agents, all.Snapshot.Agents) {
		t.Errorf("followed: %d, %v; everything: %d, %v", len(dead), agents, len(all.Snapshot.Dead), all.Snapshot.Agents)
	}
}

// What could not be recorded is told to nobody.
func TestFeedOfAFailedCommit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	fail := false
	f.opt.wrap = func(w writer) writer {
		return &faulty{writer: w, before: func(st statement) error {
			if st == commit && fail {
				return errInjected
			}
			return nil
		}}
	}
	s := &subject{t: t, fixture: f, Store: f.open()}
	s.crew()
	at := s.stepsAfter(-1).Seq
	fail = true
	if _, _, err := s.tryRevoke(counterfoil.TargetAgent, "payroll"); err == nil {
		t.Fatal("it was told as done")
	}
	if got := s.stepsAfter(at); got.Steps != nil || got.Seq != at {
		t.Errorf("told: %+v", got)
	}
	fail = false
	s.revoke(counterfoil.TargetAgent, "payroll")
	if got := s.stepsAfter(at); len(got.Steps) != 1 {
		t.Errorf("told: %+v", got)
	}
}
