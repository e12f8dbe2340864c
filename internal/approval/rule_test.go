package approval

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestMissing(t *testing.T) {
	t.Parallel()
	a, b, ab, c := []string{"a"}, []string{"b"}, []string{"a", "b"}, []string{"c"}
	for _, row := range []struct {
		name     string
		required int
		groups   [][]string
		signers  [][]string
		want     int
	}{
		{"nobody yet", 2, [][]string{a}, nil, 2},
		{"one of two", 2, [][]string{a}, [][]string{a}, 1},
		{"two of two", 2, [][]string{a}, [][]string{a, a}, 0},
		{"either", 1, [][]string{ab}, [][]string{b}, 0},
		{"and, one side twice", 2, [][]string{a, b}, [][]string{a, a}, 1},
		{"and, both sides", 2, [][]string{a, b}, [][]string{b, a}, 0},
		{"one person is not two sides", 2, [][]string{a, b}, [][]string{ab}, 1},
		{"who can be both steps aside", 2, [][]string{a, b}, [][]string{ab, a}, 0},
		{"a chain of stepping aside", 3, [][]string{a, b, c}, [][]string{{"a", "b"}, {"b", "c"}, a}, 0},
		{"three sides, two of one", 3, [][]string{a, b, c}, [][]string{a, a, c}, 1},
		{"more people than sides", 2, [][]string{ab}, [][]string{a}, 1},
		{"no groups at all", 2, nil, [][]string{a}, 1},
		{"others do not count for a side", 1, [][]string{a}, [][]string{c}, 1},
	} {
		rule := counterfoil.ApprovalRule{Required: row.required, Groups: row.groups}
		if got := missing(&rule, row.signers); got != row.want {
			t.Errorf("%s: %d missing, want %d", row.name, got, row.want)
		}
	}
}

// The agent's owner, whoever it acts for and whoever handed it on decide nothing, under
// no name and by no second record.
func TestWhoAskedDoesNotDecide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personDoc("ana2", func(p *counterfoil.Person) { p.Email, p.Groups = "A.n.a+work@Example.com", []string{"finance"} })
	w.personDoc("bo2", func(p *counterfoil.Person) { p.Email, p.Groups = "b.o@example.com", []string{"finance"} })
	w.enrol("ana", "ana2", "bo", "bo2", "cy", "ed", "fay")
	id := w.ask(w.pay("100", "DE1"))
	for _, name := range []string{"ana", "ana2", "fay", "gus", "nobody", ""} {
		for _, decision := range []string{counterfoil.DecisionApprove, counterfoil.DecisionDeny} {
			_, err := w.Challenge(t.Context(), id, name, decision, "")
			wantRefused(t, err, counterfoil.ApproverNotEligible)
			_, err = w.Sign(t.Context(), id, name, decision, "", []byte(`{}`))
			wantRefused(t, err, counterfoil.ApproverNotEligible)
		}
	}
	w.approve(id, "bo")

	// The same human once more: the same person, another record of theirs.
	for _, name := range []string{"bo", "bo2"} {
		_, err := w.Challenge(t.Context(), id, name, counterfoil.DecisionApprove, "")
		wantRefused(t, err, counterfoil.ApproverNotDistinct)
	}
	w.wantState(id, counterfoil.StatePending)
	w.approve(id, "cy")

	// On behalf of cy, handed on by ed.
	id = w.ask(w.pay("100", "DE1", func(c *counterfoil.GuardedCall) { c.Caller.Subject, c.Caller.Actors = "cy", []string{"ed@example.com"} }))
	for _, name := range []string{"cy", "ed", "ana"} {
		_, err := w.Challenge(t.Context(), id, name, counterfoil.DecisionApprove, "")
		wantRefused(t, err, counterfoil.ApproverNotEligible)
	}
	w.approve(id, "bo")
	w.checkLog()
}

// The second record of a human who signed is caught when the approval is spent too.
func TestTwoWhoBecameOneHuman(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	w.personDoc("cy", func(p *counterfoil.Person) { p.Email = "BO@example.com" })
	_, err := w.Claim(t.Context(), pay)
	wantRefused(t, err, counterfoil.ApprovalRevoked)
	w.wantState(id, counterfoil.StateRevoked)
}

func TestOneOfEachGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "di", "ed")
	both := w.pay("100", "DE1", of("both", "both"))
	id := w.ask(both)
	w.approve(id, "bo")
	// Another of finance brings it no nearer; one of audit does.
	_, err := w.Challenge(t.Context(), id, "cy", counterfoil.DecisionApprove, "")
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "another group")
	v, err := w.View(t.Context(), "di", id)
	wantDone(t, err)
	if len(v.Candidates) != 2 || v.Candidates[0] != "di" || v.Candidates[1] != "ed" || v.Missing != 1 || !v.MaySign {
		t.Errorf("may still sign: %v, %d missing", v.Candidates, v.Missing)
	}
	w.approve(id, "di")
	w.run(both)

	// Who is in both stands for whichever is missing.
	later := w.pay("200", "DE1", of("both", "both"))
	id = w.ask(later)
	w.approve(id, "ed", "bo")
	w.run(later)
	w.checkLog()
}

// A guarded class may let the owner approve, and says so; an irreversible one cannot.
func TestTheOwnerMayApproveWhereTheClassSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("ana", "bo")
	own := w.pay("100", "DE1", of("own", "own"))
	id := w.ask(own)
	v, err := w.View(t.Context(), "ana", id)
	wantDone(t, err)
	if !v.MaySign || !v.OwnAgent {
		t.Errorf("the owner sees %+v", v)
	}
	w.approve(id, "ana")
	if v, err := w.View(t.Context(), "bo", id); err != nil || len(v.Signatures) != 1 || !v.Signatures[0].Owner {
		t.Errorf("the owner's signature is not marked: %+v, %v", v.Signatures, err)
	}
	w.run(own)

	reg, _ := w.crowd()
	a := w.approval(id)
	a.Rule.Tier = counterfoil.Irreversible // whatever the record says
	if _, err := eligible(reg, &a, "ana"); err == nil {
		t.Error("the owner may approve what cannot be undone")
	}
	w.class("both", func(c *counterfoil.Class) { c.OwnerMayApprove = true })
	id = w.ask(w.pay("100", "DE1", of("both", "both")))
	_, err = w.Challenge(t.Context(), id, "ana", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApproverNotEligible)
	w.checkLog()
}

// Two distinct records, of which one signs with the other's passkey: the assertion says
// whose it is.
func TestOnePasskeyIsOnePerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	shared := passkey.New(testRP, testOrigin)
	shared.Copy(w.phone("bo").Passkeys()[0])
	code, _, err := w.MakeCode(t.Context(), "cy", "uid:0", false)
	wantDone(t, err)
	options, err := w.EnrolmentOptions(t.Context(), code.Reveal())
	wantDone(t, err)
	_, err = w.Enrol(t.Context(), code.Reveal(), shared.Create(options, func(c *passkey.Ceremony) {
		p := w.phone("bo").Passkeys()[0]
		c.ID, c.Key = p.ID, p.Key
	}))
	wantRefused(t, err, counterfoil.KeyInUse)
}

// Whoever has a passkey that cools decides nothing that cannot be undone, except to
// say no.
func TestACoolingPasskey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	w.enrolWith("bo", w.phone("bo"), true)
	keys, err := w.store.PasskeysOf(t.Context(), "bo")
	wantDone(t, err)
	if len(keys) != 2 || keys[0].Status != counterfoil.Ended || !keys[1].UsableFrom.Equal(w.clock.Now().Add(24*time.Hour)) {
		t.Fatalf("after a reset: %+v", keys)
	}
	id := w.ask(w.pay("100", "DE1"))
	_, err = w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "reset")
	// For what can be undone it counts.
	guarded := w.pay("100", "DE1", of("reset", "credential-reset"))
	w.approve(w.ask(guarded), "bo")
	w.run(guarded)
	if _, err := w.sign(id, "bo", counterfoil.DecisionDeny, "not on my watch"); err != nil {
		t.Errorf("a no: %v", err)
	}
	w.clock.Advance(24*time.Hour - time.Millisecond)
	id = w.ask(w.pay("100", "DE2"))
	_, err = w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApproverNotEligible)
	w.clock.Advance(time.Millisecond)
	w.approve(id, "bo")
	w.checkLog()
}

// Two others release a passkey at once; one no ends it.
func TestAPasskeyIsReleasedByTwo(t *testing.T) {
	t.Parallel()
	for _, decision := range []string{counterfoil.DecisionApprove, counterfoil.DecisionDeny} {
		w := newWorld(t)
		w.enrol("bo", "cy", "ed")
		second := passkey.New(testRP, testOrigin)
		w.enrolWith("bo", second, false)
		change := w.told(EventChangeProposed)
		if len(change) != 1 || !slices.Equal(change[0].People, []string{"ana", "cy", "di", "ed", "bo"}) {
			t.Fatalf("told: %+v", change)
		}
		id := change[0].Approval
		// Not by whoever holds it.
		_, err := w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
		wantRefused(t, err, counterfoil.ApproverNotEligible)
		w.approve(id, "cy")
		if _, err := w.sign(id, "ed", decision, ""); err != nil {
			t.Fatal(err)
		}
		keys, err := w.store.PasskeysOf(t.Context(), "bo")
		wantDone(t, err)
		pay := w.ask(w.pay("100", "DE1"))
		w.phones["bo"] = second
		if decision == counterfoil.DecisionDeny {
			if keys[1].Status != counterfoil.Ended || keys[0].Status != counterfoil.Active || len(w.entriesOf(ledger.PasskeyEnded)) != 1 {
				t.Errorf("after a no: %+v", keys)
			}
			w.clock.Advance(2 * coolingTime)
			wantDone(t, w.Sweep(t.Context()))
			w.checkLog()
			continue
		}
		if keys[1].UsableFrom.After(w.clock.Now()) {
			t.Errorf("after a yes: %+v", keys)
		}
		w.approve(pay, "bo")
		wantDone(t, w.Sweep(t.Context())) // does nothing again
		if n := len(w.entriesOf(ledger.ChangeClosed)); n != 1 {
			t.Errorf("%d change.closed", n)
		}
		w.wantState(id, counterfoil.StateSucceeded)
		w.checkLog()
	}
}

// What was decided about a passkey and not done when the process ended is done by the
// next sweep.
func TestAReleaseIsMadeUpFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	w.enrolWith("bo", passkey.New(testRP, testOrigin), false)
	a := w.approval(w.told(EventChangeProposed)[0].Approval)
	w.approve(a.ID, "cy")
	// A signature that the store kept and nobody acted on.
	options, err := w.Challenge(t.Context(), a.ID, "ed", counterfoil.DecisionApprove, "")
	wantDone(t, err)
	quiet := w.on(actsOnNothing{w.store})
	_, err = quiet.Sign(t.Context(), a.ID, "ed", counterfoil.DecisionApprove, "", w.phone("ed").Get(options))
	wantDone(t, err)
	w.wantState(a.ID, counterfoil.StateApproved)
	w.reopen()
	wantDone(t, w.Sweep(t.Context()))
	w.wantState(a.ID, counterfoil.StateSucceeded)
	w.checkLog()
}

// Whoever gets a passkey in their name hears of it and may object, in whatever group:
// their no ends it, and their yes does not count.
func TestWhoeverHoldsAPasskeyMayObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "fay")
	mine := w.phone("fay")
	w.phones["fay"] = nil
	w.enrol("fay") // in no group, with a code that somebody else made and used
	thief := w.phones["fay"]
	w.phones["fay"] = mine
	told := w.told(EventChangeProposed)
	if len(told) != 1 || !slices.Contains(told[0].People, "fay") {
		t.Fatalf("told: %+v", told)
	}
	id := told[0].Approval
	inbox, err := w.Inbox(t.Context(), "fay")
	if err != nil || len(inbox) != 1 || inbox[0].MaySign || !inbox[0].MayDeny || inbox[0].WhyNot == "" {
		t.Errorf("the inbox: %+v, %v", inbox, err)
	}
	if v, err := w.View(t.Context(), "fay", id); err != nil || v.MaySign || !v.MayDeny {
		t.Errorf("the view: %+v, %v", v, err)
	}
	if _, err := w.View(t.Context(), "gus", id); err != nil {
		t.Errorf("an auditor: %v", err)
	}
	_, err = w.Challenge(t.Context(), id, "fay", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApproverNotEligible)
	_, err = w.Challenge(t.Context(), id, "gus", counterfoil.DecisionDeny, "")
	wantRefused(t, err, counterfoil.ApproverNotEligible)
	if s, err := w.sign(id, "fay", counterfoil.DecisionDeny, "not mine"); err != nil || s != counterfoil.StateDenied {
		t.Fatalf("a no: %s, %v", s, err)
	}
	keys, err := w.store.PasskeysOf(t.Context(), "fay")
	wantDone(t, err)
	if keys[0].Status != counterfoil.Active || keys[1].Status != counterfoil.Ended || !slices.Equal(keys[1].ID, thief.Passkeys()[0].ID) {
		t.Errorf("after a no: %+v", keys)
	}
	w.checkLog()
}

// Which passkey is released is read from what was signed, whatever lies beside it.
func TestAReleaseIsOfWhatWasSigned(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(a *counterfoil.Approval, mine, other string){
		"": func(*counterfoil.Approval, string, string) {},
		"the fields": func(a *counterfoil.Approval, _, other string) {
			a.Fields = map[string]string{fieldPerson: "ed", fieldCredential: other}
		},
		"the call": func(a *counterfoil.Approval, mine, other string) {
			a.Call = []byte(strings.Replace(string(a.Call), mine, other, 1))
		},
		"call and digest": func(a *counterfoil.Approval, mine, other string) {
			a.Call = []byte(strings.Replace(string(a.Call), mine, other, 1))
			a.CallDigest = counterfoil.CallDigest(a.Call)
		},
	} {
		w := newWorld(t)
		w.enrol("bo", "cy", "ed")
		second, third := passkey.New(testRP, testOrigin), passkey.New(testRP, testOrigin)
		w.enrolWith("bo", second, false)
		w.enrolWith("ed", third, false)
		mine, other := second.Passkeys()[0].ID, third.Passkeys()[0].ID
		id := w.told(EventChangeProposed)[0].Approval
		w.approve(id, "cy")
		options, err := w.Challenge(t.Context(), id, "ed", counterfoil.DecisionApprove, "")
		wantDone(t, err)
		_, err = w.on(actsOnNothing{w.store}).Sign(t.Context(), id, "ed", counterfoil.DecisionApprove, "", w.phone("ed").Get(options))
		wantDone(t, err)
		a := w.approval(id)
		forged := forgedApproval{w.store, func(a *counterfoil.Approval) { change(a, encode(mine), encode(other)) }}
		err = w.on(forged).release(t.Context(), &a)
		honest := name == "" || name == "the fields"
		if (err == nil) != honest {
			t.Errorf("%q: %v", name, err)
		}
		for of, id := range map[string][]byte{"bo": mine, "ed": other} {
			k, _, err := w.store.PasskeyByID(t.Context(), id)
			wantDone(t, err)
			if released := !k.UsableFrom.After(w.clock.Now()); released != (honest && of == "bo") {
				t.Errorf("%q: the passkey of %s is released: %t", name, of, released)
			}
		}
	}
}

// forgedApproval is a store in which somebody changed an approval.
type forgedApproval struct {
	Store
	change func(*counterfoil.Approval)
}

func (s forgedApproval) Approval(ctx context.Context, id string) (counterfoil.Approval, bool, error) {
	a, ok, err := s.Store.Approval(ctx, id)
	s.change(&a)
	return a, ok, err
}

// An authenticator's model counts where its maker vouches for it.
func TestAuthenticatorsOfCertainModels(t *testing.T) {
	t.Parallel()
	maker, stranger := passkey.NewMaker("maker"), passkey.NewMaker("stranger")
	w := newWorld(t, func(w *world) { w.roots = maker.Pool() })
	model := [16]byte{0xee, 0x88, 0x28, 0x79, 0x72, 0x1c, 0x49, 0x13, 0x97, 0x75, 0x3d, 0xfc, 0xce, 0x97, 0x07, 0x2a}
	const aaguid = "ee882879-721c-4913-9775-3dfcce97072a"
	for name, m := range map[string]*passkey.Maker{"bo": maker, "cy": stranger, "ed": nil, "ana": maker} {
		w.phone(name).Maker, w.phone(name).AAGUID = m, model
	}
	w.phone("ana").AAGUID = [16]byte{1}
	w.enrol("bo", "cy", "ed", "ana")
	for name, want := range map[string]bool{"bo": true, "cy": false, "ed": false, "ana": true} {
		keys, err := w.store.PasskeysOf(t.Context(), name)
		wantDone(t, err)
		if keys[0].Attested != want {
			t.Errorf("%s's passkey: %+v", name, keys[0])
		}
	}
	w.class("credential-reset", func(c *counterfoil.Class) { c.Authenticators = []string{aaguid} })
	call := w.pay("100", "DE1", of("reset", "credential-reset"))
	call.Caller.Agent, call.Caller.Instance, call.Caller.Subject, call.Caller.Task = "other", "ins_other", "other", "" // bo owns it, so ask as payroll too
	for _, name := range []string{"cy", "ed", "ana"} {
		_, err := w.Challenge(t.Context(), w.askOrFind(call), name, counterfoil.DecisionApprove, "")
		wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "models")
	}
	own := w.pay("100", "DE1", of("reset", "credential-reset"))
	w.approve(w.ask(own), "bo")
	w.run(own)
	w.checkLog()

	// A certificate of the maker for another model.
	code, _, err := w.MakeCode(t.Context(), "di", "uid:0", false)
	wantDone(t, err)
	options, err := w.EnrolmentOptions(t.Context(), code.Reveal())
	wantDone(t, err)
	phone := w.phone("di")
	phone.Maker, phone.AAGUID = maker, model
	_, err = w.Enrol(t.Context(), code.Reveal(), phone.Create(options, func(c *passkey.Ceremony) { c.CertAAGUID = [16]byte{9} }))
	wantRefused(t, err, counterfoil.PasskeyRefused)
}
