package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const manyPending = 1000

// people declares people and gives each a passkey of the person's name.
func (s *subject) people(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{personDocument(s.t, name)}}))
		s.passkey(name, name, counterfoil.PasskeyFirst)
	}
}

func personDocument(t testing.TB, name string) counterfoil.Document {
	return document(t, counterfoil.KindPerson, name, &counterfoil.Person{Name: name, Groups: []string{"finance"}})
}

func personCode(person, how string) counterfoil.PersonCode {
	return counterfoil.PersonCode{Hash: [32]byte([]byte(fmt.Sprintf("%-32s", person+how))), Person: person, How: how, Expires: newClock().Now().Add(24 * time.Hour)}
}

func passkeyOfTest(person, id, how string) counterfoil.Passkey {
	now := newClock().Now()
	return counterfoil.Passkey{
		ID: []byte(id), Person: person, Handle: []byte("handle of " + person), PublicKey: []byte("key of " + id), AAGUID: "0", How: how,
		Eligible: true, Transports: []string{"usb"}, Enrolled: now, UsableFrom: now,
	}
}

// passkey enrols a passkey with a code.
func (s *subject) passkey(person, id, how string) {
	s.t.Helper()
	c := personCode(person, how)
	s.wantDone(s.PutPersonCode(s.t.Context(), c, entry(ledger.EnrolmentCodeIssued, "")))
	s.wantDone(s.EnrolPasskey(s.t.Context(), c.Hash, passkeyOfTest(person, id, how), entry(ledger.PersonEnrolled, "")))
}

// office is an agent that pays, with an instance, and people who say yes.
func (s *subject) office() {
	s.t.Helper()
	s.agent("payroll")
	s.instance("ins_1", "payroll")
	s.people("bo", "cy", "di")
}

// approval is a request of an agent that nobody made yet, for a call that a digest
// stands for.
func (s *subject) approval(agent, digest string, change ...func(*counterfoil.Approval)) counterfoil.Approval {
	now := s.fixture.clock.Now()
	a := counterfoil.Approval{
		ID: counterfoil.NewID("apr_"), State: counterfoil.StatePending, Kind: counterfoil.ApprovalOfCall, Owner: "ana", RequestID: "req_x",
		Caller: counterfoil.Caller{Agent: agent, Instance: "ins_1", Epoch: s.AgentState(agent).Epoch, Subject: agent, Scope: []string{"pay"}},
		Tool:   counterfoil.ToolID{Resource: "bank", Tool: "pay"}, Class: "payout",
		Rule:   counterfoil.ApprovalRule{Tier: counterfoil.Irreversible, Required: 2, Groups: [][]string{{"finance"}}},
		Fields: map[string]string{"amount": "100"}, CallDigest: digest, Digest: "sha-256:" + digest,
		Statement: []byte(`{"v":1}`), Rendering: []byte(`{"sentence":"pay"}`), Call: []byte(`{"amount":"100"}`),
		Created: now, Expires: now.Add(15 * time.Minute),
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

func (s *subject) request(a counterfoil.Approval) (counterfoil.Approval, bool, error) {
	return s.RequestApproval(s.t.Context(), a, manyPending, entry(ledger.ApprovalRequested, a.Caller.Agent))
}

// ask requests an approval that is new.
func (s *subject) ask(a counterfoil.Approval) counterfoil.Approval {
	s.t.Helper()
	kept, attached, err := s.request(a)
	s.wantDone(err)
	if attached || kept.ID != a.ID {
		s.t.Fatalf("the approval is %s (attached: %v), not the one that was asked for", kept.ID, attached)
	}
	return kept
}

// signing is a person's yes, which is the one after previous others.
func (s *subject) signing(id, person string, previous int, next counterfoil.ApprovalState) counterfoil.Signing {
	sg := counterfoil.Signing{Approval: id, Previous: previous, Next: next, Signature: counterfoil.Signature{
		Person: person, Mailbox: person, Passkey: []byte(person), Decision: counterfoil.DecisionApprove, Groups: []string{"finance"},
		At: s.fixture.clock.Now(), Record: []byte(`{"of":"` + person + `"}`), Digest: "sha-256:" + person,
	}}
	switch next {
	case counterfoil.StateApproved:
		sg.UseUntil = s.fixture.clock.Now().Add(5 * time.Minute)
	case counterfoil.StateDenied:
		sg.Signature.Decision, sg.Signature.Reason = counterfoil.DecisionDeny, "not today"
	}
	return sg
}

func (s *subject) sign(sg counterfoil.Signing) error {
	var closed *ledger.Entry
	if sg.Next == counterfoil.StateDenied {
		closed = entry(ledger.ApprovalClosed, "")
	}
	return s.SignApproval(s.t.Context(), sg, entry(ledger.ApprovalSigned, ""), closed)
}

// approved asks for an approval that two people give.
func (s *subject) approved(a counterfoil.Approval) counterfoil.Approval {
	s.t.Helper()
	s.ask(a)
	s.wantDone(s.sign(s.signing(a.ID, "bo", 0, counterfoil.StatePending)))
	s.wantDone(s.sign(s.signing(a.ID, "cy", 1, counterfoil.StateApproved)))
	return s.kept(a.ID)
}

func (s *subject) kept(id string) counterfoil.Approval {
	s.t.Helper()
	a, ok, err := s.Approval(s.t.Context(), id)
	s.wantDone(err)
	if !ok {
		s.t.Fatalf("approval %s is not kept", id)
	}
	return a
}

func (s *subject) wantState(id string, want counterfoil.ApprovalState) {
	s.t.Helper()
	if a := s.kept(id); a.State != want {
		s.t.Errorf("approval %s is %s, want %s", id, a.State, want)
	}
}

// detailOf returns a member of the newest entry of a kind.
func (s *subject) detailOf(kind ledger.Kind, name string) []string {
	s.t.Helper()
	found, err := s.Find(context.Background(), ledger.Filter{Kind: kind, Limit: 1})
	s.wantDone(err)
	if len(found) != 1 {
		s.t.Fatalf("there is no %s", kind)
	}
	var out []string
	list, _ := found[0].Detail[name].([]any)
	for _, v := range list {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

func suiteRequest(t *testing.T, s *subject) {
	s.office()
	s.agent("planner")
	s.instance("ins_2", "planner")
	s.task("task_1", "payroll", "ins_1")
	full := s.approval("payroll", "full", func(a *counterfoil.Approval) {
		a.Requester, a.Held, a.Earlier, a.ToolDigest, a.Source, a.Key, a.Openers = "uid:0", true, "apr_before", "d", netip.MustParseAddr("10.0.0.1"), "key", []string{"eve"}
		a.For, a.ForEpoch = "other", 7
		a.UseUntil, a.Closed, a.Signatures, a.Reason, a.Decided, a.Result = a.Created, a.Created, []counterfoil.Signature{{}}, "r", 9, []byte("r")
	})
	for i := range reflect.TypeFor[counterfoil.Approval]().NumField() {
		if reflect.ValueOf(full).Field(i).IsZero() {
			t.Errorf("this test does not show that %s is kept", reflect.TypeFor[counterfoil.Approval]().Field(i).Name)
		}
	}
	got := s.ask(full)
	full.UseUntil, full.Closed, full.Signatures, full.Reason, full.Decided, full.Result = time.Time{}, time.Time{}, nil, "", 0, nil // no request sets these
	if !reflect.DeepEqual(got, full) || !reflect.DeepEqual(s.kept(full.ID), full) {
		t.Errorf("kept is\n%+v, asked for\n%+v", s.kept(full.ID), full)
	}
	a := s.approval("payroll", "one")
	kept := s.ask(a)
	for range 2 {
		if got := s.kept(a.ID); !reflect.DeepEqual(got, kept) || !reflect.DeepEqual(got, a) {
			t.Errorf("kept is\n%+v, asked for\n%+v", got, a)
		}
		s.reopen()
	}
	if _, ok, err := s.Approval(t.Context(), "apr_other"); ok || err != nil {
		t.Errorf("an approval that nobody has: %v, %v", ok, err)
	}
	size := s.size()
	attach := func(id string, change ...func(*counterfoil.Approval)) {
		t.Helper()
		got, attached, err := s.request(s.approval("payroll", "one", change...))
		s.wantDone(err)
		if attached != (id != "") || attached && got.ID != id {
			t.Errorf("attached %v to %s, want %q", attached, got.ID, id)
		}
	}
	attach(a.ID)
	if s.size() != size {
		t.Error("what attaches is recorded")
	}
	// Whatever makes it another call makes it another approval.
	keyed := func(key string) func(*counterfoil.Approval) { return func(a *counterfoil.Approval) { a.Key = key } }
	tasked := func(a *counterfoil.Approval) { a.Caller.Task = "task_1" }
	attach("", keyed("k"))
	attach("", tasked)
	attach("", keyed("k"), tasked)
	s.ask(s.approval("payroll", "two"))
	s.wantRefused(counterfoil.IdempotencyMismatch, func() error {
		_, _, err := s.request(s.approval("payroll", "two", keyed("k")))
		return err
	})
	s.ask(s.approval("payroll", "two", keyed("k2")))
	// An approval that is approved is attached to as well, until its time is over.
	s.wantDone(s.sign(s.signing(a.ID, "bo", 0, counterfoil.StatePending)))
	s.wantDone(s.sign(s.signing(a.ID, "cy", 1, counterfoil.StateApproved)))
	s.fixture.clock.Advance(5*time.Minute - time.Millisecond)
	attach(a.ID)
	s.fixture.clock.Advance(time.Millisecond)
	again := s.ask(s.approval("payroll", "one"))
	attach(again.ID)
	s.fixture.clock.Advance(15 * time.Minute)
	attach("")
	other := s.approval("planner", "one", func(a *counterfoil.Approval) { a.Caller.Instance = "ins_2" })
	s.ask(other)
}

func suiteRequestRefuses(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	ask := func(most int, change ...func(*counterfoil.Approval)) func() error {
		return func() error {
			a := s.approval("payroll", counterfoil.NewID("call_"), change...)
			_, _, err := s.RequestApproval(ctx, a, most, entry(ledger.ApprovalRequested, "payroll"))
			return err
		}
	}
	s.wantRefused(counterfoil.TooManyPending, ask(0))
	s.wantDone(ask(2)())
	s.wantDone(ask(2)())
	s.wantRefused(counterfoil.TooManyPending, ask(2))
	s.fixture.clock.Advance(15 * time.Minute) // those two are past their time, though nobody wrote that down
	s.wantDone(ask(2)())
	// Where it is not live nothing is asked for any more.
	s.wantRefused(counterfoil.TokenRevoked, ask(9, func(a *counterfoil.Approval) { a.Caller.Epoch-- }))
	s.wantRefused(counterfoil.TokenRevoked, ask(9, func(a *counterfoil.Approval) { a.Caller.Instance = "ins_9" }))
	s.wantRefused(counterfoil.TokenRevoked, ask(9, func(a *counterfoil.Approval) { a.Caller.Agent = "nobody" }))
	s.wantDone(ask(9)())
	// A key that a call ran with does not let it run again.
	key := func(a *counterfoil.Approval) { a.Key, a.CallDigest = "once", "once" }
	a := s.approved(s.approval("payroll", "", key))
	s.wantDone(s.SpendApproval(ctx, s.spending(a), spentEntry(a), nil))
	s.wantRefused(counterfoil.ApprovalSpent, ask(9, key))
	s.wantDone(s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantRefused(counterfoil.AgentSuspended, ask(9))

	for name, spoil := range map[string]func(*counterfoil.Approval){
		"no id":             func(a *counterfoil.Approval) { a.ID = "" },
		"no kind":           func(a *counterfoil.Approval) { a.Kind = "" },
		"no digest":         func(a *counterfoil.Approval) { a.CallDigest = "" },
		"no time":           func(a *counterfoil.Approval) { a.Expires = time.Time{} },
		"no agent":          func(a *counterfoil.Approval) { a.Caller.Agent = "" },
		"a change's caller": func(a *counterfoil.Approval) { a.Kind = counterfoil.ApprovalOfChange },
	} {
		if ask(9, spoil)() == nil {
			t.Errorf("%s: it was kept", name)
		}
	}
}

func suiteApprovalFilter(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.task("task_1", "payroll", "ins_1")
	first := s.approved(s.approval("payroll", "one", func(a *counterfoil.Approval) { a.Key, a.Held = "k", true }))
	second := s.ask(s.approval("payroll", "two", func(a *counterfoil.Approval) { a.Caller.Task = "task_1" }))
	third := s.ask(s.approval("payroll", "two"))
	change := s.ask(s.approval("", "two", func(a *counterfoil.Approval) { a.Kind, a.Caller = counterfoil.ApprovalOfChange, counterfoil.Caller{} }))
	s.wantDone(s.sign(s.signing(third.ID, "di", 0, counterfoil.StateDenied)))
	none, task := "", "task_1"
	for range 2 {
		for name, row := range map[string]struct {
			f    counterfoil.ApprovalFilter
			want []string
		}{
			"all":           {counterfoil.ApprovalFilter{}, []string{change.ID, third.ID, second.ID, first.ID}},
			"the newest":    {counterfoil.ApprovalFilter{Limit: 1}, []string{change.ID}},
			"the newest of": {counterfoil.ApprovalFilter{Agent: "payroll", Limit: 2}, []string{third.ID, second.ID}},
			"by state":      {counterfoil.ApprovalFilter{States: []counterfoil.ApprovalState{"pending", "denied"}}, []string{change.ID, third.ID, second.ID}},
			"by kind":       {counterfoil.ApprovalFilter{Kind: counterfoil.ApprovalOfChange}, []string{change.ID}},
			"by digest":     {counterfoil.ApprovalFilter{CallDigest: "two", Agent: "payroll"}, []string{third.ID, second.ID}},
			"in no task":    {counterfoil.ApprovalFilter{CallDigest: "two", Agent: "payroll", Task: &none}, []string{third.ID}},
			"in a task":     {counterfoil.ApprovalFilter{Task: &task}, []string{second.ID}},
			"by key":        {counterfoil.ApprovalFilter{Key: "k"}, []string{first.ID}},
			"by signer":     {counterfoil.ApprovalFilter{Signer: "cy"}, []string{first.ID}},
			"held":          {counterfoil.ApprovalFilter{Held: true}, []string{first.ID}},
			"erasable":      {counterfoil.ApprovalFilter{Erasable: true}, []string{third.ID}},
			"of nobody":     {counterfoil.ApprovalFilter{Agent: "nobody"}, nil},
		} {
			list, err := s.Approvals(ctx, row.f)
			s.wantDone(err)
			var got []string
			for _, a := range list {
				got = append(got, a.ID)
				if !reflect.DeepEqual(a, s.kept(a.ID)) {
					t.Errorf("%s: listed is %+v", name, a)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("%s: %v, want %v", name, got, row.want)
			}
		}
		s.reopen()
	}
	if a := s.kept(first.ID); len(a.Signatures) != 2 || a.Signatures[0].Person != "bo" || a.Signatures[1].Person != "cy" ||
		!bytes.Equal(a.Signatures[1].Record, []byte(`{"of":"cy"}`)) || !slices.Equal(a.Signatures[0].Groups, []string{"finance"}) || !a.Signatures[0].At.Equal(newClock().Now()) {
		t.Errorf("the signatures are %+v", a.Signatures)
	}
}

func suiteSign(t *testing.T, s *subject) {
	s.office()
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{personDocument(t, "bo2")}}))
	s.passkey("bo2", "bo2", counterfoil.PasskeyFirst)
	a := s.ask(s.approval("payroll", "one"))
	signing := func(person string, previous int, next counterfoil.ApprovalState, change ...func(*counterfoil.Signing)) func() error {
		return func() error {
			sg := s.signing(a.ID, person, previous, next)
			for _, c := range change {
				c(&sg)
			}
			return s.sign(sg)
		}
	}
	const pending, approved, denied = counterfoil.StatePending, counterfoil.StateApproved, counterfoil.StateDenied
	s.wantRefused(counterfoil.ToolUnknown, signing("bo", 0, pending, func(sg *counterfoil.Signing) { sg.Approval = "apr_other" }))
	s.wantRefused(counterfoil.PasskeyRefused, signing("bo", 0, pending, func(sg *counterfoil.Signing) { sg.Signature.Passkey = []byte("other") }))
	s.wantRefused(counterfoil.PasskeyRefused, signing("bo", 0, pending, func(sg *counterfoil.Signing) { sg.Signature.Passkey = []byte("cy") }))
	if err := signing("bo", 0, approved)(); err == nil {
		t.Error("one signature of two approves it")
	}
	s.wantDone(signing("bo", 0, pending)())
	// One human counts once, by whatever name, mailbox or passkey.
	s.wantRefused(counterfoil.ApproverNotDistinct, signing("bo", 1, approved))
	s.wantRefused(counterfoil.ApproverNotDistinct, signing("bo2", 1, approved, func(sg *counterfoil.Signing) { sg.Signature.Mailbox = "bo" }))
	s.wantRefused(counterfoil.ApproverNotDistinct, signing("bo2", 1, approved, func(sg *counterfoil.Signing) { sg.Signature.Passkey = []byte("bo") }))
	size := s.size()
	for _, previous := range []int{0, 2} {
		if err := signing("cy", previous, approved)(); !errors.Is(err, counterfoil.ErrOvertaken) {
			t.Errorf("over %d signatures where there is one: %v", previous, err)
		}
	}
	if s.size() != size || len(s.kept(a.ID).Signatures) != 1 {
		t.Error("an overtaken signature left something")
	}
	s.wantDone(signing("cy", 1, approved)())
	for range 2 {
		if got := s.kept(a.ID); got.State != approved || !got.UseUntil.Equal(s.fixture.clock.Now().Add(5*time.Minute)) || !got.Closed.IsZero() {
			t.Errorf("approved: %+v", got)
		}
		s.reopen()
	}
	s.wantRefused(counterfoil.ApprovalPending, signing("di", 2, pending))

	// A no ends it, with its own entry and that of the end.
	a = s.ask(s.approval("payroll", "two"))
	s.wantDone(signing("bo", 0, pending)())
	size = s.size()
	s.wantDone(signing("cy", 1, denied)())
	if got := s.kept(a.ID); got.State != denied || got.Reason != "not today" || !got.Closed.Equal(s.fixture.clock.Now()) || s.size() != size+2 {
		t.Errorf("denied: %+v", got)
	}
	s.wantRefused(counterfoil.ApprovalDenied, signing("di", 2, pending))

	// Nobody needs to have swept what is past its time.
	a = s.ask(s.approval("payroll", "three"))
	s.fixture.clock.Advance(15*time.Minute - time.Millisecond)
	s.wantDone(signing("bo", 0, pending)())
	s.fixture.clock.Advance(time.Millisecond)
	s.wantRefused(counterfoil.ApprovalExpired, signing("cy", 1, approved))
	s.wantState(a.ID, pending)

	a = s.ask(s.approval("payroll", "four"))
	for name, do := range map[string]func() error{
		"a yes that denies": signing("bo", 0, denied, func(sg *counterfoil.Signing) { sg.Signature.Decision = counterfoil.DecisionApprove }),
		"a no that waits":   signing("bo", 0, pending, func(sg *counterfoil.Signing) { sg.Signature.Decision = counterfoil.DecisionDeny }),
		"neither":           signing("bo", 0, pending, func(sg *counterfoil.Signing) { sg.Signature.Decision = "" }),
		"no time to use":    signing("bo", 0, approved, func(sg *counterfoil.Signing) { sg.UseUntil = time.Time{} }),
		"no record":         signing("bo", 0, pending, func(sg *counterfoil.Signing) { sg.Signature.Record = nil }),
		"no entry of the end": func() error {
			return s.SignApproval(t.Context(), s.signing(a.ID, "bo", 0, denied), entry(ledger.ApprovalSigned, ""), nil)
		},
	} {
		if do() == nil {
			t.Errorf("%s: it was kept", name)
		}
	}
	if got := s.kept(a.ID); got.State != pending || len(got.Signatures) != 0 {
		t.Errorf("what was wrong left %+v", got)
	}
}

// A passkey's count rises, is kept with the signature, and never goes back.
func suiteSignCount(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	a := s.ask(s.approval("payroll", "one"))
	b := s.ask(s.approval("payroll", "two"))
	sign := func(id string, count uint32) func() error {
		return func() error {
			sg := s.signing(id, "bo", 0, counterfoil.StatePending)
			sg.SignCount, sg.BackedUp = count, true
			return s.sign(sg)
		}
	}
	use := func(count uint32) func() error {
		return func() error { return s.UsePasskey(ctx, []byte("bo"), count, true, entry(ledger.SessionOpened, "")) }
	}
	s.wantDone(use(0)())
	s.wantDone(use(0)()) // one that does not count
	s.fixture.clock.Advance(time.Minute)
	s.wantDone(sign(a.ID, 7)())
	for range 2 {
		if p, ok, err := s.PasskeyByID(ctx, []byte("bo")); err != nil || !ok || p.SignCount != 7 || !p.BackedUp || !p.Eligible || !p.Used.Equal(s.fixture.clock.Now()) {
			t.Errorf("the passkey is %+v, %v", p, err)
		}
		s.reopen()
	}
	for _, count := range []uint32{0, 6, 7} {
		s.wantRefused(counterfoil.PasskeyRefused, use(count))
		s.wantRefused(counterfoil.PasskeyRefused, sign(b.ID, count))
	}
	if got := s.kept(b.ID); len(got.Signatures) != 0 {
		t.Error("a refused signature is kept")
	}
	s.wantDone(use(8)())
	s.wantDone(sign(b.ID, 9)())
	s.wantRefused(counterfoil.PasskeyRefused, func() error { return s.UsePasskey(ctx, []byte("nobody"), 1, false, entry(ledger.SessionOpened, "")) })
}

func suiteClose(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	open := []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}
	closing := func(id string, to counterfoil.ApprovalState, from ...counterfoil.ApprovalState) func() error {
		return func() error { return s.CloseApproval(ctx, id, from, to, "why", entry(ledger.ApprovalClosed, "")) }
	}
	digest := 0
	fresh := func() string {
		digest++
		return s.approved(s.approval("payroll", fmt.Sprint(digest))).ID
	}
	for to, code := range map[counterfoil.ApprovalState]counterfoil.Code{
		counterfoil.StateCancelled: counterfoil.ApprovalCancelled, counterfoil.StateSuperseded: counterfoil.ApprovalSuperseded,
		counterfoil.StateRevoked: counterfoil.ApprovalRevoked,
	} {
		id := fresh()
		s.wantRefused(counterfoil.ApprovalPending, closing(id, to, counterfoil.StatePending))
		s.wantDone(closing(id, to, open...)())
		if a := s.kept(id); a.State != to || a.Reason != "why" || !a.Closed.Equal(s.fixture.clock.Now()) {
			t.Errorf("closed: %+v", a)
		}
		s.wantRefused(code, closing(id, to, open...))
		a := s.kept(id)
		s.wantRefused(code, func() error { return s.SpendApproval(ctx, s.spending(a), spentEntry(a), nil) })
		s.wantRefused(code, func() error { return s.sign(s.signing(id, "di", 2, counterfoil.StateApproved)) })
	}
	// It expires when its time is over, not before.
	id, pending := fresh(), s.ask(s.approval("payroll", "pending")).ID
	s.wantRefused(counterfoil.ApprovalPending, closing(id, counterfoil.StateExpired, open...))
	s.fixture.clock.Advance(5 * time.Minute)
	s.wantRefused(counterfoil.ApprovalPending, closing(pending, counterfoil.StateExpired, open...))
	s.wantDone(closing(id, counterfoil.StateExpired, open...)())
	s.wantRefused(counterfoil.ApprovalExpired, closing(id, counterfoil.StateExpired, open...))
	s.wantRefused(counterfoil.ToolUnknown, closing("apr_other", counterfoil.StateExpired, open...))

	// What ran is closed by its end alone, and what nobody knows by a person.
	ran := s.kept(fresh())
	e := spentEntry(ran)
	s.wantDone(s.SpendApproval(ctx, s.spending(ran), e, nil))
	s.wantRefused(counterfoil.ApprovalSpent, closing(ran.ID, counterfoil.StateCancelled, open...))
	s.wantRefused(counterfoil.ApprovalSpent, closing(ran.ID, counterfoil.StateFailed, counterfoil.StateIndeterminate))
	s.fixture.clock.Advance(time.Second)
	s.wantDone(s.FinishApproval(ctx, ran.ID, counterfoil.StateIndeterminate, nil, finished(e)))
	s.wantDone(closing(ran.ID, counterfoil.StateSucceeded, counterfoil.StateIndeterminate)())
	s.wantRefused(counterfoil.ApprovalSpent, closing(ran.ID, counterfoil.StateFailed, counterfoil.StateIndeterminate))
	if a := s.kept(ran.ID); !a.Closed.Equal(s.fixture.clock.Now().Add(-time.Second)) || a.State != counterfoil.StateSucceeded {
		t.Errorf("reconciled: %+v", a)
	}
	id = fresh()
	for _, bad := range [][2]counterfoil.ApprovalState{
		{counterfoil.StateApproved, counterfoil.StateSpent}, {counterfoil.StateApproved, counterfoil.StateSucceeded}, {counterfoil.StateApproved, counterfoil.StatePending},
		{counterfoil.StateApproved, counterfoil.StateDenied}, {counterfoil.StateDenied, counterfoil.StateApproved}, {counterfoil.StateSpent, counterfoil.StateFailed},
	} {
		if closing(id, bad[1], bad[0])() == nil {
			t.Errorf("it went from %s to %s", bad[0], bad[1])
		}
	}
	s.wantState(id, counterfoil.StateApproved)
}

func suiteErase(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	keyed := func(a *counterfoil.Approval) { a.Key = "k" }
	ran := s.approved(s.approval("payroll", "ran", keyed))
	e := spentEntry(ran)
	erase := func(ids ...string) func() error {
		return func() error { return s.EraseApprovals(ctx, ids, entry(ledger.ApprovalErased, "")) }
	}
	open, denied := s.ask(s.approval("payroll", "open")), s.ask(s.approval("payroll", "denied", func(a *counterfoil.Approval) { a.Key = "k0" }))
	s.wantDone(s.sign(s.signing(denied.ID, "bo", 0, counterfoil.StateDenied)))
	s.wantRefused(counterfoil.RequestMalformed, erase(ran.ID))
	s.wantDone(s.SpendApproval(ctx, s.spending(ran), e, nil))
	s.wantRefused(counterfoil.RequestMalformed, erase(ran.ID))
	s.wantDone(s.FinishApproval(ctx, ran.ID, counterfoil.StateSucceeded, []byte(`{"ok":true}`), finished(e)))
	s.wantRefused(counterfoil.RequestMalformed, erase(ran.ID, denied.ID, open.ID))
	s.wantRefused(counterfoil.RequestMalformed, erase("apr_other"))
	if a := s.kept(ran.ID); string(a.Call) == "" || string(a.Result) != `{"ok":true}` || string(s.kept(denied.ID).Call) == "" {
		t.Fatalf("a refused erasing erased %+v", a)
	}
	s.wantDone(erase(ran.ID, denied.ID)())
	for range 2 {
		a := s.kept(ran.ID)
		if a.Call != nil || a.Rendering != nil || a.Result != nil || a.Statement != nil || a.Fields != nil || a.CallDigest != "" {
			t.Errorf("something of the call is left: %+v", a)
		}
		if a.State != counterfoil.StateSucceeded || a.Digest != ran.Digest || len(a.Signatures) != 2 || a.Decided != e.Index || a.Key != "k" {
			t.Errorf("more than the call was erased: %+v", a)
		}
		if list, err := s.Approvals(ctx, counterfoil.ApprovalFilter{Erasable: true}); err != nil || len(list) != 0 {
			t.Errorf("still to erase: %v, %v", list, err)
		}
		s.reopen()
	}
	// Nobody can say any more which call it was: with the key of one that ran nothing
	// runs again, whatever it is, with that of one that did not it is asked for anew.
	s.ask(s.approval("payroll", "denied", func(a *counterfoil.Approval) { a.Key = "k0" }))
	s.wantRefused(counterfoil.ApprovalSpent, func() error { _, _, err := s.request(s.approval("payroll", "other", keyed)); return err })
	s.wantRefused(counterfoil.ApprovalSpent, func() error { _, _, err := s.request(s.approval("payroll", "ran", keyed)); return err })
	s.ask(s.approval("payroll", "ran", func(a *counterfoil.Approval) { a.Key = "k2" }))
	s.wantRefused(counterfoil.ApprovalSpent, func() error { return s.SpendApproval(ctx, s.spending(ran), spentEntry(ran), nil) })
}
