package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func (s *subject) resume(agent string) error {
	_, err := s.Resume(s.t.Context(), agent, entry(ledger.AgentResumed, agent))
	return err
}

// suspicion is of two sightings at that moment.
func suspicion(instance string, at time.Time, quarantine bool) counterfoil.Suspicion {
	seen := counterfoil.Sighting{At: at, Agent: "payroll", Instance: instance, JKT: "jkt-" + instance}
	return counterfoil.Suspicion{Agent: "payroll", Instance: instance, First: seen, Second: seen, Since: at, Quarantine: quarantine}
}

// suspect wants a suspicion to be news, or not to be and to leave no entry.
func (s *subject) suspect(p counterfoil.Suspicion, want bool) {
	s.t.Helper()
	before := s.size()
	e := entry(ledger.CloneSuspected, p.Agent)
	news, err := s.Suspect(s.t.Context(), p, e)
	if err != nil || news != want || (s.size() > before) != want {
		s.t.Errorf("news %v, want %v (%v); %d entries of it", news, want, err, s.size()-before)
	}
}

func suiteClones(t *testing.T, s *subject) {
	ctx := t.Context()
	s.agent("payroll")
	s.agent("planner")
	for id, agent := range map[string]string{"ins_1": "payroll", "ins_2": "payroll", "ins_3": "planner"} {
		s.instance(id, agent)
	}
	epoch := s.AgentState("payroll").Epoch
	caller := func(instance, agent string) counterfoil.Caller {
		return counterfoil.Caller{Agent: agent, Instance: instance, Epoch: s.AgentState(agent).Epoch, JKT: "jkt-" + instance}
	}
	issue := func(instance, id string) error {
		return s.Issue(ctx, s.use("payroll", id), s.live("payroll", instance), entry(ledger.TokenIssued, "payroll"))
	}
	now := s.fixture.clock.Now

	// A suspicion that is only recorded changes nothing, and is one.
	s.fixture.clock.Add(time.Second)
	var told sync.WaitGroup
	var news atomic.Int64
	for range 32 {
		told.Go(func() {
			one, err := s.Suspect(ctx, suspicion("ins_1", now(), false), entry(ledger.CloneSuspected, "payroll"))
			if err != nil {
				t.Error(err)
			}
			if one {
				news.Add(1)
			}
		})
	}
	told.Wait()
	if n := recorded(t, s.Store, ledger.CloneSuspected); n != 1 || news.Load() != 1 {
		t.Errorf("told 32 times at once, recorded %d times, and %d were told that it was news", n, news.Load())
	}
	s.suspect(suspicion("ins_1", now(), false), false)
	s.wantDone(s.Revoked(ctx, caller("ins_1", "payroll")))
	s.reopen()
	s.suspect(suspicion("ins_1", now(), false), false)

	// What was seen before the suspicion is known; what was seen after it is not.
	s.suspect(suspicion("ins_1", now().Add(-time.Millisecond), true), false)
	s.fixture.clock.Add(time.Millisecond)
	s.suspect(suspicion("ins_1", now(), true), true)
	s.suspect(suspicion("ins_1", now().Add(time.Hour), true), false) // quarantining twice is one effect
	for range 2 {
		s.wantRefused(counterfoil.AgentSuspended, func() error { return s.Revoked(ctx, caller("ins_1", "payroll")) })
		s.wantRefused(counterfoil.AgentSuspended, func() error { return issue("ins_1", "1") })
		s.wantRefused(counterfoil.AgentSuspended, func() error {
			return s.BindProofKey(ctx, unused("payroll"), "ins_1", "b", 8, entry(ledger.ProofKeyBound, "payroll"))
		})
		// The agent's other instance and the other agent go on.
		s.wantDone(s.Revoked(ctx, caller("ins_2", "payroll")))
		s.wantDone(s.Revoked(ctx, caller("ins_3", "planner")))
		if i, _ := s.Instance("ins_1"); i.Status != counterfoil.Quarantined || !i.Suspected.Equal(now()) {
			t.Errorf("the instance is %+v", i)
		}
		if got := s.AgentState("payroll"); got.Epoch != epoch || got.Status != counterfoil.Active {
			t.Errorf("the agent is %+v", got)
		}
		s.reopen()
	}
	s.wantDone(issue("ins_2", "1")) // and the refusals used nothing up

	// Resuming releases it, under a new epoch, and judges what was seen so far.
	s.wantRefused(counterfoil.RequestMalformed, func() error { return s.resume("planner") }) // it has none
	before := caller("ins_1", "payroll")
	e := entry(ledger.AgentResumed, "payroll")
	released, err := s.Resume(ctx, "payroll", e)
	s.wantDone(err)
	if !slices.Equal(released, []string{"ins_1"}) || e.Epoch <= epoch {
		t.Errorf("released %v at epoch %d", released, e.Epoch)
	}
	b, err := s.Entry(ctx, e.Index)
	s.wantDone(err)
	if !strings.Contains(string(b), `"detail":{"released":["ins_1"]}`) {
		t.Errorf("the entry does not say what was released: %s", b)
	}
	s.wantRefused(counterfoil.RequestMalformed, func() error { return s.resume("payroll") })
	for range 2 {
		for _, id := range []string{"ins_1", "ins_2"} {
			if i, _ := s.Instance(id); i.Status != counterfoil.Active || !i.Suspected.Equal(now()) {
				t.Errorf("released: %+v", i)
			}
		}
		s.reopen()
	}
	s.wantRefused(counterfoil.TokenRevoked, func() error { return s.Revoked(ctx, before) })
	s.wantDone(s.Revoked(ctx, caller("ins_1", "payroll")))
	s.wantDone(issue("ins_1", "2"))
	s.suspect(suspicion("ins_1", now(), true), false)
	s.suspect(suspicion("ins_2", now(), true), false)
	s.fixture.clock.Add(time.Millisecond)
	s.suspect(suspicion("ins_1", now(), true), true)

	// A suspended agent's instance too; both end with one resume, at the epoch that
	// the suspension gave.
	s.fixture.clock.Add(time.Millisecond)
	s.wantDone(s.Suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.suspect(suspicion("ins_2", now(), true), true)
	epoch = s.AgentState("payroll").Epoch
	released, err = s.Resume(ctx, "payroll", entry(ledger.AgentResumed, "payroll"))
	s.wantDone(err)
	if got := s.AgentState("payroll"); !slices.Equal(released, []string{"ins_1", "ins_2"}) || got.Epoch != epoch {
		t.Errorf("released %v, and the agent is %+v", released, got)
	}

	// Offboarding takes what is quarantined with it, for good.
	s.fixture.clock.Add(time.Second)
	s.suspect(suspicion("ins_1", now(), true), true)
	voided, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
	s.wantDone(err)
	if !slices.Equal(voided.Instances, []string{"ins_1", "ins_2"}) {
		t.Errorf("voided: %+v", voided)
	}
	s.fixture.clock.Add(time.Second)
	s.suspect(suspicion("ins_1", now(), true), false)
	s.suspect(suspicion("ins_9", now(), true), false)
}

// proven is the entry of a call whose proof verified.
func proven(n int) *ledger.Entry {
	e := decided("payroll")
	e.Instance, e.JKT, e.Proof, e.Source.Address = "ins_1", "jkt-ins_1", fmt.Sprintf("proof-%d", n), "10.0.0.1"
	return e
}

var errEnough = errors.New("enough")

// follow returns the first n sightings that a follower is told, and calls begun
// when it was told the first.
func (s *subject) follow(back time.Duration, n int, begun func()) []counterfoil.Sighting {
	s.t.Helper()
	var seen []counterfoil.Sighting
	err := s.Follow(s.t.Context(), back, func(got counterfoil.Sighting) error {
		if seen = append(seen, got); len(seen) == 1 && begun != nil {
			begun()
		}
		if len(seen) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		s.t.Fatalf("following: %v", err)
	}
	return seen
}

func suiteSightings(t *testing.T, s *subject) {
	ctx := t.Context()
	s.agent("payroll")
	decide := func(n int) *ledger.Entry {
		e := proven(n)
		s.wantDone(s.Decide(ctx, e, nil))
		return e
	}
	other := []*ledger.Entry{
		{Kind: ledger.TokenRefused, Code: counterfoil.ScopeInvalid, Agent: "payroll", Instance: "ins_1", JKT: "k", Proof: "p1"}, // its assertion may be anybody's
		{Kind: ledger.TokenRefused, Code: counterfoil.ProofReplayed, Agent: "payroll", Instance: "ins_1", JKT: "k"},
		{Kind: ledger.AgentChanged, Agent: "payroll", Detail: map[string]any{"x": map[string]any{"proof": "text"}}},
	}
	old := decide(0)
	s.fixture.clock.Add(time.Minute)
	first := decide(1)
	for _, e := range other {
		s.wantDone(s.Append(ctx, e))
	}
	foreign := &ledger.Entry{Kind: ledger.TokenRefused, Code: counterfoil.KeyInUse, RequestID: "req_1", Agent: "planner", Instance: "ins_3", JKT: "jkt-ins_1", Proof: "p2"}
	s.wantDone(s.Append(ctx, foreign))
	s.fixture.clock.Add(time.Hour)
	s.wantDone(s.Append(ctx, entry(ledger.ServerStarted, ""))) // later than every sighting

	want := []int64{first.Index, foreign.Index}
	var more []int64
	for range 2 {
		seen := s.follow(time.Second, len(want)+2, func() {
			// From here on they come with their commits.
			more = []int64{decide(2).Index}
			s.wantDone(s.Append(ctx, other[0]))
			more = append(more, decide(3).Index)
		})
		for i, index := range append(slices.Clone(want), more...) {
			if seen[i].Entry != index {
				t.Errorf("sighting %d is of entry %d, want %d", i, seen[i].Entry, index)
			}
		}
		if got := seen[0]; got.Agent != "payroll" || got.Instance != "ins_1" || got.JKT != "jkt-ins_1" || got.Address != "10.0.0.1" ||
			got.Foreign || got.RequestID == "" || ledger.FormatTime(got.At) == "" {
			t.Errorf("the sighting is %+v", got)
		}
		s.reopen()
		// The window before the newest one begins later now.
		want = more
	}
	if seen := s.follow(2*time.Hour, 3, nil); seen[0].Entry != old.Index || !seen[2].Foreign || seen[2].Instance != "ins_3" || seen[2].RequestID != "req_1" {
		t.Errorf("from the beginning: %+v", seen)
	}
	// What is told at its commit is what the log says of it.
	live := s.follow(0, 3, func() { decide(4); decide(5) })
	read := s.follow(0, 3, func() { decide(6) })
	if live[2] != read[slices.IndexFunc(read, func(r counterfoil.Sighting) bool { return r.Entry == live[2].Entry })] {
		t.Errorf("at its commit: %+v, read: %+v", live[2], read)
	}
}

// A follower that falls behind holds nobody up and reads what it missed.
func TestFollowerFallsBehind(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	append1 := func(n int) {
		e := &ledger.Entry{Kind: ledger.TokenIssued, Agent: "payroll", Instance: "ins_1", JKT: "k", Proof: fmt.Sprint(n)}
		if err := s.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	append1(0)
	const n = 8
	var seen []int64
	err := s.Follow(t.Context(), time.Hour, func(got counterfoil.Sighting) error {
		if seen = append(seen, got.Entry); len(seen) == 1 {
			// As if there were no more room for what comes now.
			s.feed.mu.Lock()
			s.feed.waiting, s.feed.dropped = nil, true
			s.feed.mu.Unlock()
			signal(s.feed.arrived)
			for i := range n {
				append1(i + 1)
			}
		}
		if len(seen) == n+1 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || s.Stats().Overflows != 1 {
		t.Errorf("following: %v, %d overflows", err, s.Stats().Overflows)
	}
	for i, index := range seen {
		if index != int64(i) {
			t.Errorf("sighting %d is of entry %d", i, index)
		}
	}
	f.checkLedger(s, nil)
}

// A sighting that comes with its commit and was read from the log before is told
// once.
func TestFollowTellsEachOnce(t *testing.T) {
	t.Parallel()
	s := newFixture(t).open()
	e := func(n int) *ledger.Entry {
		return &ledger.Entry{Kind: ledger.TokenIssued, Agent: "payroll", Instance: "ins_1", JKT: "k", Proof: fmt.Sprint(n)}
	}
	if err := s.Append(t.Context(), e(0)); err != nil {
		t.Fatal(err)
	}
	var seen []int64
	err := s.Follow(t.Context(), time.Hour, func(got counterfoil.Sighting) error {
		if seen = append(seen, got.Entry); len(seen) == 2 {
			return errEnough
		}
		// As if its commit had come while the log was read.
		s.feed.put([]*decision{{sighting: got, index: got.Entry}}, ledger.FormatTime(got.At))
		return s.Append(t.Context(), e(1))
	})
	if !errors.Is(err, errEnough) || !slices.Equal(seen, []int64{0, 1}) {
		t.Errorf("told %v (%v)", seen, err)
	}
}

// Of a feed that nobody empties only so much is kept.
func TestFeedIsBounded(t *testing.T) {
	t.Parallel()
	var f feed
	member := &decision{sighting: counterfoil.Sighting{JKT: "k"}}
	at := ledger.FormatTime(newClock().now)
	f.put([]*decision{member}, at)
	if len(f.waiting) != 0 {
		t.Error("what nobody follows is kept")
	}
	arrived := f.open()
	for range maxFeed {
		f.put([]*decision{member, {}}, at)
	}
	if some, dropped := f.take(nil); len(some) != maxFeed || dropped {
		t.Errorf("%d are kept, dropped %v", len(some), dropped)
	}
	for range maxFeed + 2 {
		f.put([]*decision{member}, at)
	}
	<-arrived
	if some, dropped := f.take(nil); len(some) != 0 || !dropped {
		t.Errorf("over the bound %d are kept, dropped %v", len(some), dropped)
	}
}

// Follow ends with its context, and what it waits for is no work.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	s := newFixture(t).open()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Follow(ctx, time.Hour, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("following: %v", err)
	}
}
