package approval

import (
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A person who is suspended may do nothing, whatever was begun before; nor may another
// record of the same human.
func TestASuspendedPerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personDoc("bob", func(p *counterfoil.Person) { p.Email, p.Groups = "b.o+second@example.com", []string{"finance"} })
	w.personDoc("bo", func(p *counterfoil.Person) { p.Email = "bo@example.com" })
	w.enrol("bo", "cy", "ed", "bob")
	signed, begun := w.ask(w.pay("100", "DE1")), w.ask(w.pay("200", "DE1"))
	w.approve(signed, "bo", "cy")
	code, _, err := w.MakeCode(t.Context(), "bo", "uid:0", false)
	wantDone(t, err)
	options, err := w.Challenge(t.Context(), begun, "bo", counterfoil.DecisionApprove, "")
	wantDone(t, err)
	login, err := w.LoginOptions(t.Context())
	wantDone(t, err)
	spending, err := w.Claim(t.Context(), w.pay("100", "DE1"))
	wantDone(t, err)
	if v := w.view(w.first(w.crowd()), ptr(w.approval(begun)), ""); !slices.Contains(v.Candidates, "bo") || !slices.Contains(v.Candidates, "bob") {
		t.Errorf("before, %v may sign", v.Candidates)
	}

	v := w.revoke(counterfoil.TargetPerson, "bo")
	if !slices.Equal(v.Approvals, []string{signed}) || len(v.Passkeys) != 1 {
		t.Errorf("voided %+v", v)
	}
	if _, err := w.spend(spending, w.pay("100", "DE1")); counterfoil.CodeOf(err) != counterfoil.ApprovalRevoked {
		t.Errorf("what bo signed is spent: %v", err)
	}
	_, err = w.Claim(t.Context(), w.pay("100", "DE1", named(signed)))
	wantRefused(t, err, counterfoil.ApprovalRevoked)
	_, err = w.Sign(t.Context(), begun, "bo", counterfoil.DecisionApprove, "", w.phone("bo").Get(options))
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "suspended")
	for _, name := range []string{"bo", "bob"} {
		for _, decision := range []string{counterfoil.DecisionApprove, counterfoil.DecisionDeny} {
			_, err = w.Challenge(t.Context(), begun, name, decision, "")
			wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "suspended")
		}
		if !w.Suspended(name) {
			t.Errorf("%s is not suspended", name)
		}
		_, _, err = w.MakeCode(t.Context(), name, "uid:0", true)
		wantRefused(t, err, counterfoil.EnrolmentRefused)
	}
	_, _, err = w.Login(t.Context(), w.phone("bo").Get(login))
	wantRefused(t, err, counterfoil.PasskeyRefused)
	login, err = w.LoginOptions(t.Context())
	wantDone(t, err)
	_, _, err = w.Login(t.Context(), w.phone("bob").Get(login)) // whose own passkey is as it was
	wantRefused(t, err, counterfoil.PasskeyRefused)
	_, err = w.EnrolmentOptions(t.Context(), code.Reveal())
	wantRefused(t, err, counterfoil.EnrolmentRefused)
	if v := w.view(w.first(w.crowd()), ptr(w.approval(begun)), ""); slices.Contains(v.Candidates, "bo") || slices.Contains(v.Candidates, "bob") || !slices.Contains(v.Candidates, "ed") {
		t.Errorf("%v may sign", v.Candidates)
	}
	people, err := w.People(t.Context())
	wantDone(t, err)
	for _, p := range people {
		if (p.Status == counterfoil.Suspended) != (p.Name == "bo" || p.Name == "bob") {
			t.Errorf("%s is %s", p.Name, p.Status)
		}
	}
	_, err = w.View(t.Context(), "bo", begun)
	wantRefused(t, err, counterfoil.ToolUnknown)

	// Others go on, and nothing of before comes back with who is let in again.
	w.approve(begun, "cy", "ed")
	w.run(w.pay("200", "DE1"))
	w.restore(counterfoil.TargetPerson, "bo")
	next := w.ask(w.pay("150", "DE1"))
	_, err = w.Challenge(t.Context(), next, "bo", counterfoil.DecisionApprove, "")
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "no passkey")
	fresh, made, err := w.MakeCode(t.Context(), "bo", "uid:0", false)
	wantDone(t, err)
	if made.How != counterfoil.PasskeyReset || fresh.Reveal() == code.Reveal() {
		t.Errorf("the code of who is back is for a passkey that is %s", made.How)
	}
	w.wantState(signed, counterfoil.StateRevoked)
	w.checkLog()
}

// What somebody else's signal takes of a person may leave the passkeys. They sign
// nothing all the same, and their word of before counts no more when it is looked at.
func TestAPersonWhoseSignatureDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	id, other := w.ask(w.pay("100", "DE1")), w.ask(w.pay("200", "DE1"))
	w.approve(id, "bo", "cy")
	before := w.approval(id)
	if why, err := w.doubt(t.Context(), w.first(w.crowd()), &before); why != "" || err != nil {
		t.Fatalf("before: %q, %v", why, err)
	}
	r := counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetPerson, ID: "bo"}, Reason: "disabled", Suspend: counterfoil.Suspend{Approvals: true}}
	if _, news, err := w.store.Revoke(t.Context(), r, &ledger.Entry{Kind: ledger.Revoked, Detail: map[string]any{"kind": "person", "id": "bo"}}); err != nil || !news {
		t.Fatal(news, err)
	}
	if why, err := w.doubt(t.Context(), w.first(w.crowd()), &before); why != "bo is suspended" || err != nil {
		t.Errorf("when it is used: %q, %v", why, err)
	}
	_, err := w.sign(other, "bo", counterfoil.DecisionApprove, "")
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "suspended")
	w.restore(counterfoil.TargetPerson, "bo")
	w.approve(other, "bo", "ed")
	w.run(w.pay("200", "DE1"))
	w.checkLog()
}

// An approval does not outlive its task, or a task above it, by a millisecond.
func TestAnApprovalEndsWithItsTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	w.task("tsk_top", func(t *counterfoil.Task) { t.Deadline = t.Opened.Add(8 * time.Minute) })
	w.task("tsk_sub", func(t *counterfoil.Task) { t.Parent, t.Deadline = "tsk_top", t.Opened.Add(8*time.Minute) })
	end := w.clock.Now().Add(8 * time.Minute)
	for _, task := range []string{"tsk_top", "tsk_sub"} {
		if a := w.approval(w.ask(w.pay("100", "DE1", in(task)))); !a.Expires.Equal(end) {
			t.Errorf("in %s it is to be decided until %s, the task ends at %s", task, a.Expires, end)
		}
	}
	if a := w.approval(w.ask(w.pay("100", "DE1"))); !a.Expires.Equal(w.clock.Now().Add(15 * time.Minute)) {
		t.Errorf("in a long task it is to be decided until %s", a.Expires)
	}
	pay := w.pay("300", "DE1", in("tsk_sub"))
	id := w.ask(pay)
	w.clock.Advance(5 * time.Minute)
	w.approve(id, "bo", "cy")
	if a := w.approval(id); !a.UseUntil.Equal(end) {
		t.Errorf("it may be used until %s, the task ends at %s", a.UseUntil, end)
	}
	w.clock.Advance(3*time.Minute - time.Millisecond)
	s, err := w.Claim(t.Context(), pay)
	wantDone(t, err)
	w.clock.Advance(time.Millisecond)
	_, err = w.Claim(t.Context(), pay)
	wantRefused(t, err, counterfoil.TaskClosed)
	if _, err := w.spend(s, pay); err == nil {
		t.Error("it was spent after its task")
	}
	w.checkLog()
}

// What hangs on a task that is closed is over, and whoever was asked is told.
func TestAClosedTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	w.task("tsk_a")
	waits, ready := w.pay("100", "DE1", in("tsk_a")), w.pay("200", "DE1", in("tsk_a"))
	held := w.pay("300", "DE1", in("tsk_a"), func(c *counterfoil.GuardedCall) { c.Held = true })
	waiting, approved, heldID := w.ask(waits), w.ask(ready), w.ask(held)
	elsewhere := w.ask(w.pay("100", "DE1"))
	w.approve(approved, "bo", "cy")
	w.approve(heldID, "bo", "cy")
	spending, err := w.Claim(t.Context(), ready)
	wantDone(t, err)
	wantDone(t, w.Sweep(t.Context()))
	v, err := w.store.CloseTask(t.Context(), "tsk_a", counterfoil.TaskCompleted, "done", &ledger.Entry{Kind: ledger.TaskClosed, Agent: "payroll", Task: "tsk_a"})
	wantDone(t, err)
	if len(v.Approvals) != 3 {
		t.Errorf("voided %+v", v)
	}
	for _, c := range []counterfoil.GuardedCall{waits, ready, held, w.pay("200", "DE1", in("tsk_a"), named(approved)), w.pay("1", "DE1", in("tsk_none"))} {
		_, err := w.Claim(t.Context(), c)
		wantRefused(t, err, counterfoil.TaskClosed)
	}
	if _, err := w.spend(spending, ready); err == nil {
		t.Error("it was spent after its task was closed")
	}
	_, err = w.Challenge(t.Context(), waiting, "bo", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApprovalRevoked)
	a, err := w.HeldCall(t.Context(), heldID)
	wantDone(t, err)
	if a.State != counterfoil.StateRevoked || w.StatusOf(a).Status != "revoked" {
		t.Errorf("who waits for the held call is told that it is %s", a.State)
	}
	for range 2 { // and told once
		wantDone(t, w.Sweep(t.Context()))
	}
	var told []string
	for _, n := range w.told(EventClosed) {
		told = append(told, n.Approval)
	}
	slices.Sort(told)
	want := []string{waiting, approved, heldID}
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("people were told of %v, want %v", told, want)
	}
	w.approve(elsewhere, "bo", "cy") // another task goes on
	w.run(w.pay("100", "DE1"))
	w.checkLog()
}

// Dual control needs people who did not ask: who owns an agent that opened the task, or
// one above it, asked.
func TestWhoOpenedTheTaskDoesNotSign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("ana", "bo", "cy", "ed")
	w.task("tsk_top", func(t *counterfoil.Task) { t.Agent, t.Opener, t.Purpose = "other", "other", "plan the month" })
	w.task("tsk_given", func(t *counterfoil.Task) { t.Opener, t.Parent, t.Purpose = "other", "tsk_top", "pay what is due" })
	w.task("tsk_below", func(t *counterfoil.Task) { t.Parent = "tsk_given" })
	for _, task := range []string{"tsk_given", "tsk_below"} {
		pay := w.pay("100", "DE1", in(task))
		id := w.ask(pay)
		if a := w.approval(id); !slices.Equal(a.Openers, []string{"bo"}) {
			t.Errorf("in %s the openers are %v", task, a.Openers)
		}
		_, err := w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
		wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "opened the task")
		if v, err := w.View(t.Context(), "bo", id); err != nil || v.MaySign || slices.Contains(v.Candidates, "bo") {
			t.Errorf("the opener's owner sees %+v, %v", v, err)
		}
		w.approve(id, "cy", "ed")
		w.run(pay)
	}
	// An agent that opens a task of its own has nobody excluded but its owner.
	id := w.ask(w.pay("100", "DE1"))
	w.approve(id, "bo", "cy")
	w.run(w.pay("100", "DE1"))

	// The owner of who opened it, as of when it is used.
	early := w.ask(w.pay("40", "DE1", in("tsk_given")))
	pay := w.pay("50", "DE1", in("tsk_given"))
	id = w.ask(pay)
	w.approve(id, "cy", "ed")
	w.apply(doc(t, counterfoil.KindAgent, "other", counterfoil.Agent{Name: "other", Owner: "cy", Environment: "prod"}))
	_, err := w.Claim(t.Context(), pay)
	wantRefused(t, err, counterfoil.ApprovalRevoked)

	for range 2 {
		wantDone(t, w.Sweep(t.Context()))
	}
	if n := w.told(EventClosed); len(n) != 1 || n[0].Approval != id {
		t.Errorf("people were told %d times that it is over", len(n))
	}

	// Who owned it when it asked.
	_, err = w.Challenge(t.Context(), early, "bo", counterfoil.DecisionApprove, "")
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "opened the task")

	// Whoever may sign for the own agent may not for one that asks through it.
	own := w.pay("60", "DE1", of("own", "own"), in("tsk_below"))
	id = w.ask(own)
	_, err = w.Challenge(t.Context(), id, "cy", counterfoil.DecisionApprove, "")
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "opened the task")
	w.approve(id, "ana") // who owns payroll, as the class lets her
	w.run(own)
	w.checkLog()
}

// A resource that is suspended takes no call, and nobody is asked about one.
func TestASuspendedResource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id, waits := w.ask(pay), w.ask(w.pay("200", "DE1"))
	w.approve(id, "bo", "cy")
	s, err := w.Claim(t.Context(), pay)
	wantDone(t, err)
	if v := w.revoke(counterfoil.TargetResource, "bank"); len(v.Approvals) != 2 {
		t.Errorf("voided %+v", v)
	}
	_, err = w.Claim(t.Context(), pay)
	wantRefused(t, err, counterfoil.TokenRevoked)
	if _, err := w.spend(s, pay); err == nil {
		t.Error("it was spent at a suspended resource")
	}
	_, err = w.Challenge(t.Context(), waits, "bo", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApprovalRevoked)
	w.restore(counterfoil.TargetResource, "bank")
	w.wantState(id, counterfoil.StateRevoked)
	anew := w.ask(pay)
	w.approve(anew, "bo", "cy")
	w.run(pay)
	w.checkLog()
}

// Nobody signs for an agent, a resource or a task that is not there, whether or not
// the approval was revoked with it.
func TestNothingIsSignedThatHasNoGround(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("ana", "bo", "cy")
	id, pay := w.ask(w.pay("100", "DE1")), w.pay("200", "DE1")
	w.approve(w.ask(pay), "bo", "cy")
	code, _, err := w.MakeCode(t.Context(), "bo", "uid:0", false)
	wantDone(t, err)
	for name, row := range map[string]struct {
		store       ungrounded
		sign, claim counterfoil.Code
	}{
		"":             {ungrounded{Store: w.store}, "", ""},
		"the task":     {ungrounded{Store: w.store, task: true}, counterfoil.ApprovalRevoked, counterfoil.TaskClosed},
		"its time":     {ungrounded{Store: w.store, late: true}, counterfoil.ApprovalRevoked, counterfoil.TaskClosed},
		"its agent":    {ungrounded{Store: w.store, foreign: true}, counterfoil.ApprovalRevoked, counterfoil.TaskClosed},
		"the resource": {ungrounded{Store: w.store, resource: true}, counterfoil.ApprovalRevoked, counterfoil.TokenRevoked},
		"the agent":    {ungrounded{Store: w.store, agent: true}, counterfoil.ApprovalRevoked, ""}, // the store looks at that when it is spent
	} {
		e := w.on(row.store)
		_, err := e.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
		if err != nil && counterfoil.CodeOf(err) != row.sign || err == nil && row.sign != "" {
			t.Errorf("without %q it is signed with %v", name, err)
		}
		if _, err = e.Claim(t.Context(), pay); err != nil && counterfoil.CodeOf(err) != row.claim || err == nil && row.claim != "" {
			t.Errorf("without %q it is claimed with %v", name, err)
		}
	}
	e := w.on(ungrounded{Store: w.store, people: true})
	_, err = e.EnrolmentOptions(t.Context(), code.Reveal())
	wantRefused(t, err, counterfoil.EnrolmentRefused)
	wantRefused(t, e.CancelBy(t.Context(), id, "ana", ""), counterfoil.RoleRequired)
	release := counterfoil.Approval{Kind: counterfoil.ApprovalOfChange, Tool: counterfoil.ToolID{Resource: "counterfoil", Tool: counterfoil.ChangeRelease}, Requester: "bo"}
	if mayObject(w.first(e.crowd()), &release, "bo") || !mayObject(w.first(w.crowd()), &release, "bo") {
		t.Error("who is suspended objects to the release of a passkey, or nobody does")
	}
	if _, err := w.EnrolmentOptions(t.Context(), code.Reveal()); err != nil {
		t.Errorf("the code, of who is not suspended: %v", err)
	}
	wantDone(t, w.CancelBy(t.Context(), id, "ana", ""))
}

// ungrounded is a store in which something is gone, and the approvals are as they were.
type ungrounded struct {
	Store
	task, late, foreign, resource, agent, people bool
}

func (u ungrounded) LiveTask(id string) (counterfoil.Task, bool) {
	t, ok := u.Store.LiveTask(id)
	if u.late {
		t.Deadline = t.Opened
	}
	if u.foreign {
		t.Agent = "other"
	}
	return t, ok && !u.task
}

func (u ungrounded) PersonStatus(name string) counterfoil.Status {
	if u.people {
		return ""
	}
	return u.Store.PersonStatus(name)
}

func (u ungrounded) ResourceStatus(name string) (counterfoil.Status, time.Time) {
	if u.resource {
		return "", time.Time{}
	}
	return u.Store.ResourceStatus(name)
}

func (u ungrounded) AgentState(name string) counterfoil.AgentState {
	if u.agent {
		return counterfoil.AgentState{}
	}
	return u.Store.AgentState(name)
}

// An approved call is one of its task's: it counts against the limits of that, too.
func TestAnApprovedCallCountsInItsTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	w.task("tsk_a", func(t *counterfoil.Task) {
		t.MaxCalls = 2
		t.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: 150_0000}}
	})
	for _, row := range []struct {
		amount string
		fits   bool
	}{{"100", true}, {"60", false}, {"50", true}, {"0.5", false}} {
		pay := w.pay(row.amount, "DE1", in("tsk_a"))
		w.approve(w.ask(pay), "bo", "cy")
		s, err := w.Claim(t.Context(), pay)
		wantDone(t, err)
		if s.Use.Task != "tsk_a" || s.Use.Class != "payout" || s.Use.Key != "" || len(s.Use.Amounts) != 1 {
			t.Errorf("it uses %+v", s.Use)
		}
		_, err = w.spend(s, pay)
		if (err == nil) != row.fits || err != nil && counterfoil.CodeOf(err) != counterfoil.LimitExceeded {
			t.Errorf("%s: %v", row.amount, err)
		}
	}
	given := w.pay("1", "DE1", func(c *counterfoil.GuardedCall) { c.Amounts = map[string]int64{"amount": 7} })
	w.approve(w.ask(given), "bo", "cy")
	if s, err := w.Claim(t.Context(), given); err != nil || s.Use.Amounts["amount"] != 7 {
		t.Errorf("amounts that were read already: %+v, %v", s.Use, err)
	}
}

// People see what the task is for, as its agent wrote it and with what hides marked.
func TestTheTaskIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	w.task("tsk_a", func(t *counterfoil.Task) { t.Opener, t.Purpose = "other", "pay \u202egpj" })
	id := w.ask(w.pay("100", "DE1", in("tsk_a")))
	v, err := w.View(t.Context(), "cy", id)
	wantDone(t, err)
	if r := v.Rendering; r.TaskPurpose != "pay \u202egpj" || r.TaskOpener != "other" || !slices.Equal(r.Openers, []string{"bo"}) || r.Task != "tsk_a" || r.Purpose != "monthly payroll run" {
		t.Errorf("the rendering is %+v", r)
	}
	if got := plain(v.TaskPurpose); got != "pay ⟨U+202E⟩gpj" {
		t.Errorf("people see %q", got)
	}
	if n := w.told(EventRequested); len(n) != 1 || n[0].Task != "tsk_a" || n[0].Purpose != "pay ⟨U+202E⟩gpj" {
		t.Errorf("people are told %+v", n)
	}
	v, err = w.View(t.Context(), "cy", w.ask(w.pay("100", "DE1", in(""))))
	wantDone(t, err)
	for _, member := range []string{"task", "task_purpose", "task_opener", "openers"} {
		if !slices.Contains(v.Rendering.Absent, member) {
			t.Errorf("without a task, %s is not among what is absent: %v", member, v.Rendering.Absent)
		}
	}
}

// What was revoked between a signature and the call is found with the log alone.
func TestOfflineKnowsWhatWasRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	w.task("tsk_a", func(t *counterfoil.Task) { t.Opener = "other" })
	w.apply(doc(t, counterfoil.KindAgent, "other", counterfoil.Agent{Name: "other", Owner: "ed", Environment: "prod"}))
	pay := w.pay("100", "DE1", in("tsk_a"))
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	w.run(pay)
	w.checkLog()
	before := func(kind ledger.Kind, n int, what ...*ledger.Entry) []*ledger.Entry {
		l := w.entries()
		i := slices.IndexFunc(l, func(e *ledger.Entry) bool {
			if e.Kind == kind && e.Approval.ID == id {
				n--
			}
			return n < 0
		})
		return slices.Insert(l, i, what...)
	}
	person := func(kind ledger.Kind) *ledger.Entry {
		return &ledger.Entry{Kind: kind, Detail: map[string]any{"kind": "person", "id": "cy"}}
	}
	list := func(kind ledger.Kind, name string, ids ...any) *ledger.Entry {
		return &ledger.Entry{Kind: kind, Detail: map[string]any{name: ids}}
	}
	for _, row := range []struct {
		name, word string
		log        []*ledger.Entry
	}{
		{"nothing", "", w.entries()},
		{"a signer, before the signature", "cy was suspended", before(ledger.ApprovalSigned, 1, person(ledger.Revoked))},
		{"a signer, who was back by then", "", before(ledger.ApprovalSigned, 1, person(ledger.Revoked), person(ledger.Restored))},
		{"the approval, with a signer", "was over", before(ledger.CallDecided, 0, list(ledger.Revoked, "approvals", id))},
		{"the approval, with its task", "was over", before(ledger.CallDecided, 0, list(ledger.TaskClosed, "approvals", id))},
		{"the task", "tsk_a was closed", before(ledger.CallDecided, 0, &ledger.Entry{Kind: ledger.TaskClosed, Task: "tsk_a"})},
		{"the task, with its agent", "tsk_a was closed", before(ledger.CallDecided, 0, list(ledger.AgentSuspended, "tasks", "tsk_a"))},
		{"another task", "", before(ledger.CallDecided, 0, &ledger.Entry{Kind: ledger.TaskClosed, Task: "tsk_b"})},
		{"a passkey", "ended", before(ledger.ApprovalSigned, 0, list(ledger.Revoked, "passkeys", encode(w.phone("bo").Passkeys()[0].ID)))},
	} {
		if bad := feed(row.log); (bad == "") != (row.word == "") || !contains([]byte(bad), row.word) {
			t.Errorf("%s: %q, want %q", row.name, bad, row.word)
		}
	}
	// Nor does it count what somebody signed who opened the task.
	l := w.entries()
	for _, e := range l {
		if e.Kind == ledger.ApprovalRequested {
			if openers := e.Detail["openers"]; len(texts(openers)) != 1 || texts(openers)[0] != "bo" && texts(openers)[0] != "ed" {
				t.Errorf("the openers are %v", openers)
			}
			e.Detail["openers"] = []any{"cy"}
		}
	}
	if bad := feed(l); !contains([]byte(bad), "opened its task") {
		t.Errorf("with cy as an opener: %q", bad)
	}
}

func ptr(a counterfoil.Approval) *counterfoil.Approval { return &a }

// first is the crowd without its revision.
func (w *world) first(c crowd, _ string) crowd { return c }
