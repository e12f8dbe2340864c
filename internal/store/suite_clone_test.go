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

func (s *subject) resume(agent string, release ...string) error {
	_, err := s.Resume(s.t.Context(), agent, release, entry(ledger.AgentResumed, agent))
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
		return s.Issue(ctx, s.issuance("payroll", instance, id), entry(ledger.TokenIssued, "payroll"), nil)
	}
	now := s.fixture.clock.Now

	// A suspicion that is only recorded changes nothing, and is one.
	s.fixture.clock.Advance(time.Second)
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
	s.fixture.clock.Advance(time.Millisecond)
	s.suspect(suspicion("ins_1", now(), true), true)
	s.suspect(suspicion("ins_1", now().Add(time.Hour), true), false) // quarantining twice is one effect
	for range 2 {
		s.wantRefused(counterfoil.AgentSuspended, func() error { return s.Revoked(ctx, caller("ins_1", "payroll")) })
		s.wantRefused(counterfoil.AgentSuspended, func() error { return issue("ins_1", "1") })
		s.wantRefused(counterfoil.AgentSuspended, func() error { return s.bind(ctx, "payroll", "ins_1", "b", 8) })
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

	// It is released when it is named, under a new epoch, which judges what was seen
	// of it so far; and not without, nor together with what is not quarantined.
	s.wantRefused(counterfoil.RequestMalformed, func() error { return s.resume("planner") }) // it has none
	wantAdvice := func(advice string, release ...string) {
		t.Helper()
		s.wantRefused(counterfoil.RequestMalformed, func() error {
			err := s.resume("payroll", release...)
			if r, ok := counterfoil.AsRefusal(err); !ok || !strings.Contains(r.Detail, advice) {
				t.Errorf("releasing %q: %v", release, err)
			}
			return err
		})
	}
	wantAdvice("--release INSTANCE")
	wantAdvice(`"ins_2" of agent "payroll" is active, not quarantined`, "ins_1", "ins_2")
	wantAdvice(`has no instance "ins_3"`, "ins_1", "ins_3")
	wantAdvice(`has no instance ""`, "")
	before := caller("ins_1", "payroll")
	if i, _ := s.Instance("ins_1"); i.Status != counterfoil.Quarantined || s.AgentState("payroll").Epoch != epoch {
		t.Errorf("after refusals the instance is %+v", i)
	}
	e := entry(ledger.AgentResumed, "payroll")
	released, err := s.Resume(ctx, "payroll", []string{"ins_1", "ins_1"}, e)
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
		if i, _ := s.Instance("ins_1"); i.Status != counterfoil.Active || !i.Suspected.Equal(now()) || !i.Shown.Equal(now()) {
			t.Errorf("released: %+v", i)
		}
		if i, _ := s.Instance("ins_2"); i.Status != counterfoil.Active || !i.Suspected.IsZero() || !i.Shown.IsZero() {
			t.Errorf("not named: %+v", i)
		}
		s.reopen()
	}
	s.wantRefused(counterfoil.TokenRevoked, func() error { return s.Revoked(ctx, before) })
	s.wantDone(s.Revoked(ctx, caller("ins_1", "payroll")))
	s.wantDone(issue("ins_1", "2"))
	s.suspect(suspicion("ins_1", now(), true), false)
	s.fixture.clock.Advance(time.Millisecond)
	s.suspect(suspicion("ins_1", now(), true), true)

	// A suspension that ends, for whatever reason, frees no key; what is released
	// with its end is what is named.
	s.fixture.clock.Advance(time.Millisecond)
	s.suspect(suspicion("ins_2", now(), true), true)
	for i, release := range [][]string{nil, {"ins_2", "ins_1"}} {
		s.fixture.clock.Advance(time.Millisecond)
		s.wantDone(s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
		if i == 0 {
			wantAdvice(`"ins_9"`, "ins_9")
			if got := s.AgentState("payroll").Status; got != counterfoil.Suspended {
				t.Errorf("a refused release left the agent %s", got)
			}
		}
		epoch = s.AgentState("payroll").Epoch
		e := entry(ledger.AgentResumed, "payroll")
		released, err = s.Resume(ctx, "payroll", release, e)
		s.wantDone(err)
		slices.Sort(release)
		if got := s.AgentState("payroll"); !slices.Equal(released, release) || got.Status != counterfoil.Active || got.Epoch <= epoch || e.Epoch != got.Epoch {
			t.Errorf("released %v, and the agent is %+v", released, got)
		}
		want := counterfoil.Quarantined
		if i == 1 {
			want = counterfoil.Active
		}
		for _, id := range []string{"ins_1", "ins_2"} {
			if inst, _ := s.Instance(id); inst.Status != want {
				t.Errorf("resumed with %v: %s is %s", release, id, inst.Status)
			}
		}
	}

	// Where nothing follows, two places and somebody else's use have an hour each:
	// Since is that long ago.
	s.fixture.clock.Advance(time.Millisecond)
	borrowed := func(quarantine bool, since time.Duration) counterfoil.Suspicion {
		p := suspicion("ins_2", now(), quarantine)
		p.First, p.Second.Foreign, p.Since = counterfoil.Sighting{}, true, now().Add(-since)
		return p
	}
	s.suspect(borrowed(false, time.Millisecond), false) // its release was less ago
	s.suspect(borrowed(false, 0), true)
	s.suspect(borrowed(false, 0), false)
	s.suspect(suspicion("ins_2", now(), false), true)
	s.fixture.clock.Advance(time.Hour - time.Millisecond)
	s.reopen()
	s.suspect(borrowed(false, time.Hour), false)
	s.fixture.clock.Advance(2 * time.Millisecond)
	s.suspect(borrowed(false, time.Hour), true)
	// What was recorded so quarantines nobody later; what comes after it does.
	s.suspect(borrowed(true, 0), false)
	s.fixture.clock.Advance(time.Millisecond)
	s.suspect(borrowed(true, 0), true)
	s.wantDone(s.resume("payroll", "ins_2"))

	// Offboarding takes what is quarantined with it, for good.
	s.fixture.clock.Advance(time.Second)
	s.suspect(suspicion("ins_1", now(), true), true)
	voided, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
	s.wantDone(err)
	if !slices.Equal(voided.Instances, []string{"ins_1", "ins_2"}) {
		t.Errorf("voided: %+v", voided)
	}
	s.fixture.clock.Advance(time.Second)
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
// when it was told the first. All that is there was judged.
func (s *subject) follow(back time.Duration, n int, begun func()) []counterfoil.Sighting {
	s.t.Helper()
	s.Judged(s.size())
	from, err := s.Begin(s.t.Context(), back)
	s.wantDone(err)
	var seen []counterfoil.Sighting
	err = s.Follow(s.t.Context(), from, func(got counterfoil.Sighting) error {
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
	s.instance("ins_1", "payroll")
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
	s.fixture.clock.Advance(time.Minute)
	first := decide(1)
	for _, e := range other {
		s.wantDone(s.Append(ctx, e))
	}
	foreign := &ledger.Entry{Kind: ledger.TokenRefused, Code: counterfoil.KeyInUse, RequestID: "req_1", Agent: "planner", Instance: "ins_3", JKT: "jkt-ins_1", Proof: "p2"}
	s.wantDone(s.Append(ctx, foreign))
	s.fixture.clock.Advance(time.Hour)
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
	// So it is of a token whose key was bound with it: the sighting is the token's.
	i := s.issuance("payroll", "ins_1", "1")
	i.Bind = counterfoil.KeyBinding{JKT: "bound", Most: 8}
	issued := &ledger.Entry{Kind: ledger.TokenIssued, Agent: "payroll", Instance: "ins_1", JKT: "bound", Proof: "p"}
	s.fixture.clock.Advance(time.Second)
	decide(7)
	live = s.follow(0, 2, func() { s.wantDone(s.Issue(ctx, i, issued, entry(ledger.ProofKeyBound, "payroll"))) })
	read = s.follow(0, 2, nil)
	if live[1] != read[1] || read[1].Entry != issued.Index || read[1].JKT != "bound" {
		t.Errorf("at its commit: %+v, read: %+v", live[1], read)
	}
}

// A start goes on where judging ended, however far behind that was, and begins a
// window before it. What was judged is remembered with the commits and at the end.
func TestBeginWhereJudgingEnded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	sub := &subject{t: t, fixture: f, Store: s}
	begin := func(back time.Duration) int64 {
		t.Helper()
		from, err := sub.Begin(t.Context(), back)
		sub.wantDone(err)
		return from
	}
	sight := func() {
		t.Helper()
		e := proven(int(sub.size()))
		e.Kind, e.Decision = ledger.TokenIssued, ""
		sub.wantDone(sub.Append(t.Context(), e))
	}
	for range 10 {
		sight()
		f.clock.Advance(time.Minute)
	}
	if got := begin(time.Second); got != 0 {
		t.Errorf("before anything was judged: from %d", got)
	}
	sub.Judged(4)
	sub.Judged(3) // who reads again what was judged takes nothing back
	if got := begin(time.Second); got != 3 {
		t.Errorf("the last one that was judged is 3: from %d", got)
	}
	if got := begin(time.Minute); got != 2 {
		t.Errorf("a minute before it: from %d", got)
	}
	sub.reopen()
	if got := begin(time.Second); got != 3 {
		t.Errorf("after an end: from %d", got)
	}
	// A crash: what a commit took with it is there.
	sub.Judged(7)
	sight()
	sub.Judged(8)
	sight()
	saved := func() (at string) {
		t.Helper()
		err := sub.reads.QueryRowContext(t.Context(), sqliteTexts[getMeta], "judged").Scan(&at)
		sub.wantDone(err)
		return at
	}
	if got := saved(); got != "7" {
		t.Errorf("written within a second is %s", got)
	}
	f.clock.Advance(time.Second)
	sight()
	if got := saved(); got != "8" {
		t.Errorf("written after a second is %s", got)
	}
	sub.wantDone(sub.Close())
	// Of a database of an older version, all that is there was judged.
	f.edit(`DELETE FROM meta WHERE name = 'judged'`)
	sub.Store = f.open()
	if got := begin(0); got != sub.size()-1 {
		t.Errorf("an older version's: from %d of %d", got, sub.size())
	}
	sub.checkLedger()
	sub.wantDone(sub.Close())
	f.edit(`INSERT INTO meta (name, value) VALUES ('judged', '99')`)
	if s, err := Open(t.Context(), "sqlite:"+f.db(), f.opt); err == nil || !strings.Contains(err.Error(), `"99" is no index of the log`) {
		t.Errorf("an index that the log has not: %v", err)
		s.Close()
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
	err := s.Follow(t.Context(), 0, func(got counterfoil.Sighting) error {
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
	err := s.Follow(t.Context(), 0, func(got counterfoil.Sighting) error {
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
	at := ledger.FormatTime(newClock().Now())
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
	if err := s.Follow(ctx, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("following: %v", err)
	}
}
