package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// asked keeps an approval that a caller asked for.
func (s *subject) asked(id string, held bool, by counterfoil.Caller) {
	s.t.Helper()
	s.ask(s.approval("payroll", id, func(a *counterfoil.Approval) { a.ID, a.Held, a.Caller = id, held, by }))
}

// A call that is held is made without its token, so it dies with the token at once.
// Whatever is repeated needs another token anyway.
func suiteHeldOfToken(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	one, two, three := s.token("tok_1", "payroll", "ins_1", ""), s.token("tok_2", "payroll", "ins_1", ""), s.token("tok_3", "payroll", "ins_1", "")
	s.asked("apr_held", true, one)
	s.asked("apr_repeated", false, one)
	s.asked("apr_other", true, two)
	s.asked("apr_given_back", true, three)
	if v := s.revoke(counterfoil.TargetToken, "tok_1"); !slices.Equal(v.Approvals, []string{"apr_held"}) || !slices.Equal(s.detailOf(ledger.Revoked, "approvals"), v.Approvals) {
		t.Errorf("voided: %+v", v)
	}
	r := counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: "tok_3"}, Agent: "payroll", Expires: s.fixture.clock.Now().Add(time.Minute)}
	if news, err := s.RevokeTokenWith(ctx, s.use("payroll", "back"), r, entry(ledger.Revoked, "payroll")); err != nil || !news {
		t.Errorf("giving a token back: %v, %v", news, err)
	}
	for range 2 {
		s.wantState("apr_held", counterfoil.StateRevoked)
		s.wantState("apr_given_back", counterfoil.StateRevoked)
		s.wantState("apr_repeated", counterfoil.StatePending)
		s.wantState("apr_other", counterfoil.StatePending)
		s.reopen()
	}
}

// What was asked for under a key outlives its rotation, and dies with its revocation,
// also where that comes long after.
func suiteAskedUnderKey(t *testing.T, s *subject) {
	s.shop()
	under := func(jkt string) counterfoil.Caller {
		c := s.caller("payroll", "ins_1", "")
		c.JKT = jkt
		return c
	}
	s.asked("apr_old", true, under("jkt-ins_1"))
	s.asked("apr_bound", true, under("bound"))
	if got := s.PresentKey("ins_1", "jkt-ins_1"); got != "jkt-ins_1" {
		t.Errorf("the present key is %s", got)
	}
	s.wantDone(s.rotate("jkt-ins_1", "k2", time.Hour))
	s.asked("apr_new", true, under("k2"))
	ended := func(r *counterfoil.Revocation) { r.Ended = true }
	if _, _, err := s.tryRevoke(counterfoil.TargetKey, "jkt-ins_1", ended); err == nil {
		t.Error("a key ran out before its time")
	}
	s.fixture.clock.Advance(time.Hour)
	if v := s.revoke(counterfoil.TargetKey, "jkt-ins_1", ended); len(v.Approvals) > 0 || !slices.Equal(v.Keys, []string{"jkt-ins_1", "bound"}) {
		t.Errorf("voided: %+v", v)
	}
	if _, _, err := s.tryRevoke(counterfoil.TargetKey, "k2", ended); err == nil {
		t.Error("the present key ran out")
	}
	for range 2 {
		for jkt, want := range map[string]string{"jkt-ins_1": "k2", "k2": "k2", "bound": "bound", "none": "none"} {
			if got := s.PresentKey("ins_1", jkt); got != want {
				t.Errorf("the present key for %s is %s, want %s", jkt, got, want)
			}
		}
		if got := s.PresentKey("ins_9", "jkt-ins_1"); got != "jkt-ins_1" {
			t.Errorf("of another instance it is %s", got)
		}
		s.wantState("apr_old", counterfoil.StatePending)
		s.reopen()
	}
	if v := s.revoke(counterfoil.TargetKey, "jkt-ins_1"); !slices.Equal(v.Approvals, []string{"apr_old"}) || len(v.Keys) > 0 {
		t.Errorf("voided: %+v", v)
	}
	if got := s.PresentKey("ins_1", "jkt-ins_1"); got != "jkt-ins_1" {
		t.Errorf("for a key that was revoked it is %s", got)
	}
	s.wantState("apr_old", counterfoil.StateRevoked)
	s.wantState("apr_bound", counterfoil.StatePending)
	s.wantState("apr_new", counterfoil.StatePending)
	s.wantDone(s.Revoked(t.Context(), under("k2")))

	// A bound key alone, and one that is rotated from with those beside it.
	s.wantDone(s.bind(t.Context(), "payroll", "ins_1", "b2", 8))
	s.wantDone(s.bind(t.Context(), "payroll", "ins_1", "b3", 8))
	s.asked("apr_b2", false, under("b2"))
	s.asked("apr_b3", false, under("b3"))
	if v := s.revoke(counterfoil.TargetKey, "b2"); !slices.Equal(v.Approvals, []string{"apr_b2"}) || !slices.Equal(v.Keys, []string{"b2"}) {
		t.Errorf("voided: %+v", v)
	}
	s.wantDone(s.rotate("k2", "k3", time.Hour))
	s.asked("apr_k3", true, under("k3"))
	if v := s.revoke(counterfoil.TargetKey, "k2"); !slices.Equal(v.Approvals, []string{"apr_new", "apr_b3"}) || !slices.Equal(v.Keys, []string{"k2", "b3"}) {
		t.Errorf("voided: %+v", v)
	}
	s.wantState("apr_k3", counterfoil.StatePending)
	s.checkLedger()
}

// Keys that were bound before a rotation end with the key that the instance had then;
// those of after it stay.
func suiteBoundBefore(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	want := func(live bool, keys ...string) {
		t.Helper()
		for _, jkt := range keys {
			c := s.caller("payroll", "ins_1", "")
			c.JKT = jkt
			if _, _, ok := s.ProofKey(jkt); ok != live || (s.Revoked(ctx, c) == nil) != live {
				t.Errorf("%s is live %v (%v)", jkt, ok, s.Revoked(ctx, c))
			}
		}
	}
	s.wantDone(s.rotate("jkt-ins_1", "k2", time.Hour))
	s.wantDone(s.bind(ctx, "payroll", "ins_1", "after", 8))
	for range 2 {
		want(true, "jkt-ins_1", "bound", "k2", "after")
		s.reopen()
	}
	s.fixture.clock.Advance(time.Hour)
	s.wantRefused(counterfoil.KeyInUse, func() error { return s.bind(ctx, "payroll", "ins_1", "bound", 8) })
	for range 2 {
		want(false, "jkt-ins_1", "bound")
		want(true, "k2", "after")
		s.reopen()
	}
	// At once, where there is no overlap; and with the older one, where there is a third.
	s.wantDone(s.rotate("k2", "k3", time.Hour))
	s.wantDone(s.bind(ctx, "payroll", "ins_1", "third", 8))
	s.wantDone(s.rotate("k3", "k4", time.Hour))
	want(false, "k2", "after")
	want(true, "k3", "third", "k4")
	s.wantDone(s.bind(ctx, "payroll", "ins_1", "fourth", 8))
	s.wantDone(s.rotate("k4", "k5", 0))
	for range 2 {
		want(false, "k3", "third", "k4", "fourth")
		want(true, "k5")
		s.reopen()
	}
	s.checkLedger()
}

// What an assertion is good for, it is good for while its key is taken: verified just
// before a rotation or a revocation it gets nothing after it.
func suiteKeyOfAssertion(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	n := 0
	issue := func(key, bind string) func() error {
		return func() error {
			n++
			i := s.issuance("payroll", "ins_1", fmt.Sprint(n))
			i.Live.Key = key
			if bind == "" {
				return s.Issue(ctx, i, entry(ledger.TokenIssued, "payroll"), nil)
			}
			i.Bind = counterfoil.KeyBinding{JKT: bind, Most: 8}
			return s.Issue(ctx, i, entry(ledger.TokenIssued, "payroll"), entry(ledger.ProofKeyBound, "payroll"))
		}
	}
	introspect := func(key string) func() error {
		return func() error {
			n++
			live := s.liveOf("payroll", "ins_1")
			live.Key = key
			return s.UseAssertion(ctx, s.use("payroll", fmt.Sprint(n)), live, entry(ledger.TokenIntrospected, "payroll"))
		}
	}
	if issue("", "")() == nil {
		t.Error("a token was issued on no key")
	}
	s.wantDone(issue("jkt-ins_1", "")())
	s.wantDone(issue("jkt-ins_1", "b1")())
	s.wantDone(introspect("jkt-ins_1")())
	// In the overlap the key before is taken, and binds nothing.
	s.wantDone(s.rotate("jkt-ins_1", "k2", time.Hour))
	s.wantDone(issue("jkt-ins_1", "")())
	s.wantRefused(counterfoil.ProofKeyMismatch, issue("jkt-ins_1", "b2"))
	s.wantRefused(counterfoil.ProofKeyMismatch, issue("jkt-ins_1", "b1"))
	s.wantDone(issue("k2", "b3")())
	s.fixture.clock.Advance(time.Hour)
	s.wantRefused(counterfoil.ClientRefused, issue("jkt-ins_1", ""))
	s.wantRefused(counterfoil.ClientRefused, introspect("jkt-ins_1"))
	s.wantDone(s.rotate("k2", "k3", 0))
	for range 2 {
		for _, key := range []string{"jkt-ins_1", "k2", "nobody's"} {
			s.wantRefused(counterfoil.ClientRefused, issue(key, ""))
			s.wantRefused(counterfoil.ClientRefused, issue(key, "b4"))
			s.wantRefused(counterfoil.ClientRefused, introspect(key))
		}
		s.wantDone(issue("k3", "")())
		s.reopen()
	}
	s.wantDone(s.rotate("k3", "k4", time.Hour))
	s.revoke(counterfoil.TargetKey, "k3")
	s.wantRefused(counterfoil.ClientRefused, issue("k3", ""))
	s.wantDone(issue("k4", "b5")())
}

// An instance that ended has no key of before, and a start finds none.
func suiteEndedKeys(t *testing.T, s *subject) {
	s.shop()
	s.agent("planner")
	s.instance("ins_2", "planner")
	s.wantDone(s.rotate("jkt-ins_1", "k2", time.Hour))
	s.wantDone(s.rotate("jkt-ins_2", "k3", time.Hour, func(r *counterfoil.Rotation) { r.Agent, r.Instance = "planner", "ins_2" }))
	s.fixture.clock.Advance(30 * time.Minute)
	if i, _ := s.Instance("ins_1"); i.Old == nil {
		t.Error("it has no key of before")
	}
	s.revoke(counterfoil.TargetInstance, "ins_1")
	_, err := s.Offboard(t.Context(), "planner", entry(ledger.AgentOffboarded, "planner"))
	s.wantDone(err)
	s.fixture.clock.Advance(time.Hour)
	for range 2 {
		for _, id := range []string{"ins_1", "ins_2"} {
			if i, _ := s.Instance(id); i.Old != nil || i.Status != counterfoil.Ended {
				t.Errorf("%s is %+v", id, i)
			}
		}
		if due := s.DueKeys(s.fixture.clock.Now()); len(due) > 0 {
			t.Errorf("due: %v", due)
		}
		s.reopen()
	}
	// As an older database has it.
	s.wantDone(s.Close())
	s.fixture.edit(`UPDATE instances SET old_jkt = 'jkt-' || id, old_until = 1`)
	s.Store = s.fixture.open()
	if due := s.DueKeys(s.fixture.clock.Now()); len(due) > 0 {
		t.Errorf("due: %v", due)
	}
}

// A token names the resource as it was called when the token was issued, whatever the
// resource is called since.
func suiteMovedResource(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	books := func(url string) counterfoil.Document {
		return document(t, counterfoil.KindResource, "books", &counterfoil.Resource{Name: "books", Type: counterfoil.ResourceDirect, PublicURL: url})
	}
	s.apply(books("https://books.example"))
	caller := s.token("tok_1", "payroll", "ins_1", "")
	caller.Audience = "https://books.example"
	s.wantDone(s.Revoked(ctx, caller))
	s.fixture.clock.Advance(time.Second)
	s.revoke(counterfoil.TargetResource, "books")
	s.apply(books("https://ledgers.example"))
	s.wantDone(s.Restore(ctx, counterfoil.Target{Kind: counterfoil.TargetResource, ID: "books"}, entry(ledger.Restored, "")))
	s.fixture.clock.Advance(time.Second)
	fresh := caller
	fresh.Audience, fresh.Issued = "https://ledgers.example", s.fixture.clock.Now()
	for range 2 {
		s.wantRefused(counterfoil.TokenRevoked, s.revoked(caller))
		s.wantDone(s.Revoked(ctx, fresh))
		s.reopen()
	}
}

// A key is not used up by what was never sent, and is by what may have been.
func suiteUnsentOutcomes(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.task("tsk_1", "payroll", "ins_1")
	use := counterfoil.CallUse{Task: "tsk_1", Class: "read", Agent: "payroll", Key: "k", Digest: "d", Unsent: true}
	first, err := s.keyed("tsk_1", "k", "d")
	s.wantDone(err)
	s.wantDone(s.FinishUsing(ctx, use, []byte(`{}`), finished(first)))
	s.reopen()
	second, err := s.keyed("tsk_1", "k", "other") // it says no call any more
	s.wantDone(err)
	if got := s.taskOf("tsk_1"); got.Calls != 2 {
		t.Errorf("%d calls are counted", got.Calls)
	}
	unknown := finished(second)
	unknown.Outcome = ledger.OutcomeUnknown
	s.wantDone(s.FinishUsing(ctx, use, nil, unknown)) // which is no word that it was not sent
	var earlier *counterfoil.Earlier
	if _, err := s.keyed("tsk_1", "k", "other"); !errors.As(err, &earlier) || earlier.Entry != second.Index || earlier.Done {
		t.Errorf("the repeat got %v", err)
	}
}

// Of results there are no more than so many, and none of a task that is over; that the
// calls ended is known all the same.
func suiteKeptOutcomes(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.task("tsk_1", "payroll", "ins_1")
	result := func(task, key string) (kept bool) {
		t.Helper()
		var e *counterfoil.Earlier
		if _, err := s.keyed(task, key, "d"); !errors.As(err, &e) || !e.Done {
			t.Fatalf("%s: %v", key, err)
		}
		return e.Result != nil
	}
	end := func(task, key string, e *ledger.Entry) error {
		return s.FinishUsing(ctx, counterfoil.CallUse{Task: task, Agent: "payroll", Key: key, Digest: "d"}, []byte(`{}`), finished(e))
	}
	made := func(task, key string) error {
		e, err := s.keyed(task, key, "d")
		if err != nil {
			return err
		}
		return end(task, key, e)
	}
	s.wantDone(made("tsk_1", "in"))
	s.wantDone(made("", "out"))
	late, err := s.keyed("tsk_1", "late", "d")
	s.wantDone(err)
	if !result("tsk_1", "in") {
		t.Error("the result is not kept")
	}
	if _, err := s.closeTask("tsk_1", counterfoil.TaskCompleted); err != nil {
		t.Fatal(err)
	}
	s.wantDone(end("tsk_1", "late", late))
	count := func() (n int64) {
		t.Helper()
		s.wantDone(s.reads.QueryRowContext(ctx, `SELECT count(*) FROM outcomes WHERE result IS NOT NULL`).Scan(&n))
		return n
	}
	if !result("", "out") || count() != 1 {
		t.Errorf("%d results are kept", count())
	}
	// Rows as calls leave them, and two more calls.
	s.wantDone(s.Close())
	s.fixture.edit(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
		INSERT INTO outcomes (entry, agent, task, key, digest, at, done, result) SELECT -6000 + i, 'payroll', '', 'n' || i, 'd', 9000000000000, 1, x'7b7d' FROM n`)
	s.Store = s.fixture.open()
	for i := range dropOutcomes + 2 {
		s.wantDone(made("", fmt.Sprint("more", i)))
		if n := count(); n > maxOutcomes || n < maxOutcomes-dropOutcomes {
			t.Fatalf("%d results are kept after %d more", n, i+1)
		}
	}
	if result("", "n1") || !result("", "more0") || !result("", "n5000") {
		t.Error("not the oldest were dropped")
	}
}
