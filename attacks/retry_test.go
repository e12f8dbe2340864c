package attacks

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// Jobs that are killed, retried and resumed: RTY-01 to RTY-06.

// TestKilledJobsResume is RTY-01: a job that was killed while people were asked goes on
// in its task with a key of its own, and what it asked for runs once.
func TestKilledJobsResume(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	killed := o.actor("clerk")
	task := o.open(killed, plainTask)
	till := o.TillURL()
	pays := o.payment()
	pay := func(a *actor) answer {
		return o.sendCall(o.callBy(a, o.tokenFor(a, till, inTask(task)), till, "pay", pays))
	}
	asked := pay(killed)
	id := asked.told().ID
	if asked.code != counterfoil.ApprovalRequired || id == "" {
		t.Fatalf("asking: %s", asked)
	}
	o.restart()
	o.awake()
	if state := o.bo.Countersign(id); state != counterfoil.StateApproved {
		t.Fatalf("after the signature the approval is %s", state)
	}
	next := o.actor("clerk")
	// Neither outside of the task nor for another agent is it of use.
	o.wantNot("RTY-01: outside of the task", refused(counterfoil.ApprovalMismatch), func() answer {
		q := o.callBy(next, o.tokenFor(next, till), till, "pay", pays)
		q.header.Set("Counterfoil-Approval", id)
		return o.sendCall(q)
	})
	o.says("RTY-01: another agent in the task", o.tokenIn(o.rival, task, till), 400, counterfoil.TaskClosed)
	o.wantRun("the job that resumed", func() answer { return pay(next) })
	for name, a := range map[string]*actor{"again": next, "the killed one comes back": killed} {
		o.wantNotAny("RTY-01: "+name, func() answer {
			q := o.callBy(a, o.tokenFor(a, till, inTask(task)), till, "pay", pays)
			q.header.Set("Counterfoil-Approval", id)
			return o.sendCall(q)
		})
	}
	// A rotation keeps what was asked for, too.
	pays = o.payment()
	id = pay(next).told().ID
	o.rotate(next, 0)
	if state := o.bo.Countersign(id); state != counterfoil.StateApproved {
		t.Fatalf("after the signature the approval is %s", state)
	}
	o.wantRun("after a rotation", func() answer { return pay(next) })
	o.reconcile()
}

// TestLostAnswersAreGivenAgain is RTY-02 and RTY-04: a call with an Idempotency-Key is
// made once, and its answer comes again, to its agent in its task alone and as long as
// that may ask.
func TestLostAnswersAreGivenAgain(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	task := g.open(g.batch, plainTask)
	desk := g.desk()
	pay := func(a *actor, token, amount, key string) answer {
		q := g.callBy(a, token, desk, "pay", `{"amount":`+amount+`,"currency":"EUR","to":"acme"}`)
		q.header.Set("Idempotency-Key", key)
		return g.sendCall(q)
	}
	text := func(a answer) string {
		_, rest, _ := strings.Cut(string(a.body), `"content":`)
		content, _, _ := strings.Cut(rest, "]")
		return content
	}
	in := func() string { return g.tokenFor(g.batch, desk, inTask(task)) }
	calls := g.Reached()
	first := pay(g.batch, in(), "1.5", "one")
	g.works("the first", first)
	for _, name := range []string{"again", "once more"} {
		got := pay(g.batch, in(), "1.5", "one")
		if !got.passed() || text(got) != text(first) || text(got) == "" {
			t.Errorf("RTY-02 %s: %s\nthe first: %s", name, got, first)
		}
	}
	g.Restart()
	if got := pay(g.batch, in(), "1.5", "one"); !got.passed() || text(got) != text(first) {
		t.Errorf("RTY-02 after a restart: %s", got)
	}
	other := g.actor("batch")
	if got := pay(other, g.tokenFor(other, desk, inTask(task)), "1.5", "one"); !got.passed() || text(got) != text(first) {
		t.Errorf("RTY-02 another instance of the agent: %s", got)
	}
	if n := g.Reached() - calls; n != 1 {
		t.Errorf("RTY-02: the call was made %d times", n)
	}
	if got := pay(g.batch, in(), "1.51", "one"); got.code != counterfoil.IdempotencyMismatch {
		t.Errorf("RTY-02 another payload: %s", got)
	}
	if n := g.Reached() - calls; n != 1 {
		t.Errorf("RTY-02: the call was made %d times", n)
	}
	// Another task's and nobody's task's key is another key.
	g.works("the key outside of the task", pay(g.batch, g.tokenFor(g.batch, desk), "1.5", "one"))
	if n := g.Reached() - calls; n != 2 {
		t.Errorf("RTY-02: outside of the task the call was made %d times", n-1)
	}
	// Many at once with one key are one call.
	token := in()
	var requests []*http.Request
	for range 20 {
		q := g.callBy(g.batch, token, desk, "pay", `{"amount":2,"currency":"EUR","to":"acme"}`)
		q.header.Set("Idempotency-Key", "many")
		requests = append(requests, g.request(q))
	}
	calls = g.Reached()
	for _, got := range g.atOnce(requests) {
		if !got.passed() && got.code != counterfoil.OutcomeUnknown {
			t.Errorf("RTY-02 one of many: %s", got)
		}
	}
	if n := g.Reached() - calls; n != 1 {
		t.Errorf("RTY-02: one key of many is %d calls", n)
	}
	// The task ends between two attempts.
	held := in()
	g.works("ending the task", g.end(g.batch, task, "complete"))
	g.says("RTY-04: a token", g.tokenIn(g.batch, task, desk), 400, counterfoil.TaskClosed)
	if got := g.tokenIn(g.batch, task, desk); got.oauth != "invalid_grant" {
		t.Errorf("RTY-04: %s", got)
	}
	g.says("RTY-04: the answer of before", pay(g.batch, held, "1.5", "one"), 401, counterfoil.TaskClosed)
	g.Entries() // the record verifies; what was given again is a decision without a call of its own
}

// TestWorkersShareNothing is RTY-03 and RTY-05: of two workers with one proof or one
// assertion one is served, after a restart too.
func TestWorkersShareNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.renew()
	one := w.call(w.payroll)
	w.works("a worker", w.sendCall(one))
	w.says("RTY-03: the other", w.sendCall(one), 401, counterfoil.ProofReplayed)
	q := w.tokenRequest(w.payroll)
	w.works("a worker's token", w.sendToken(q))
	proof, assertion := q.Proofs, q.Form.Get("client_assertion")
	w.Restart()
	w.says("RTY-05: the proof after a restart", w.sendCall(one), 401, counterfoil.ProofReplayed)
	again := w.tokenRequest(w.payroll)
	again.Form.Set("client_assertion", assertion)
	w.says("RTY-05: the assertion after a restart", w.sendToken(again), 401, counterfoil.AssertionReplayed)
	again = w.tokenRequest(w.payroll)
	again.Proofs = proof
	w.says("RTY-05: the token endpoint's proof after a restart", w.sendToken(again), 400, counterfoil.ProofReplayed)
	w.works("the control: with its own", w.sendCall(w.call(w.payroll)))
	w.CheckLedger()
}

// TestTokensThatEndWhileAJobWaits is RTY-06: people take longer than a token lives. The
// job gets another and goes on asking; nobody is asked twice.
func TestTokensThatEndWhileAJobWaits(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	till, pays := o.TillURL(), o.payment()
	old := o.tokenFor(o.clerk, till)
	pay := func(token string) answer { return o.sendCall(o.callBy(o.clerk, token, till, "pay", pays)) }
	id := pay(old).told().ID
	o.Clock.Advance(6 * time.Minute)
	o.says("RTY-06: the old token", pay(old), 401, counterfoil.TokenExpired)
	got := pay(o.tokenFor(o.clerk, till))
	if told := got.told().ID; told != id || got.code != counterfoil.ApprovalPending && got.code != counterfoil.ApprovalRequired {
		t.Errorf("RTY-06: with a new token: %s, want %s", got, id)
	}
	o.works("its state, with a new token", o.status(o.clerk, till, id))
	o.awake()
	if state := o.bo.Countersign(id); state != counterfoil.StateApproved {
		t.Fatalf("after the signature the approval is %s", state)
	}
	o.wantRun("the call", func() answer { return pay(o.tokenFor(o.clerk, till)) })
	if n := len(o.Approvals("")); n != 1 {
		t.Errorf("RTY-06: people were asked %d times", n)
	}
	o.reconcile()
}
