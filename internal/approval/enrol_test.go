package approval

import (
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestACodeIsForOnePasskeyOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code, kept, err := w.MakeCode(t.Context(), "bo", "uid:0", false)
	wantDone(t, err)
	if kept.How != counterfoil.PasskeyFirst || !kept.Expires.Equal(w.clock.Now().Add(24*time.Hour)) {
		t.Errorf("the code is %+v", kept)
	}
	text := code.Reveal()
	enrol := func(text string) error {
		options, err := w.EnrolmentOptions(t.Context(), text)
		if err != nil {
			return err
		}
		_, err = w.Enrol(t.Context(), text, w.phone("bo").Create(options))
		return err
	}
	other, _ := counterfoil.NewEnrolmentCode()
	for _, bad := range []string{"", "cfe_", text[:len(text)-1], text + "a", other.Reveal()} {
		wantRefused(t, enrol(bad), counterfoil.EnrolmentRefused)
		_, err := w.Enrol(t.Context(), bad, []byte(`{}`))
		wantRefused(t, err, counterfoil.EnrolmentRefused)
	}
	_, err = w.Enrol(t.Context(), text, []byte(`{}`))
	wantRefusedFor(t, err, counterfoil.PasskeyRefused, "begin again")
	options, err := w.EnrolmentOptions(t.Context(), text)
	wantDone(t, err)
	w.clock.Advance(ceremonyLife)
	_, err = w.Enrol(t.Context(), text, w.phone("bo").Create(options))
	wantRefusedFor(t, err, counterfoil.PasskeyRefused, "begin again")
	wantDone(t, enrol(text))
	wantRefused(t, enrol(text), counterfoil.EnrolmentRefused)

	// A later code voids the one before; none is good after a day.
	first, _, err := w.MakeCode(t.Context(), "cy", "uid:0", false)
	wantDone(t, err)
	second, _, err := w.MakeCode(t.Context(), "cy", "uid:0", false)
	wantDone(t, err)
	wantRefused(t, enrol(first.Reveal()), counterfoil.EnrolmentRefused)
	w.clock.Advance(24 * time.Hour)
	wantRefused(t, enrol(second.Reveal()), counterfoil.EnrolmentRefused)
	_, _, err = w.MakeCode(t.Context(), "nobody", "uid:0", false)
	wantRefused(t, err, counterfoil.ToolUnknown)

	for _, e := range w.entries() {
		b, err := ledger.Encode(e)
		wantDone(t, err)
		for _, c := range []string{text, first.Reveal(), second.Reveal(), "cfe_"} {
			if contains(b, c) {
				t.Errorf("a %s entry has a code", e.Kind)
			}
		}
	}
}

// Only who never had a passkey enrols one that counts at once: no order of codes and
// resets gets around that.
func TestWhenAPasskeyCounts(t *testing.T) {
	t.Parallel()
	how := func(w *world, reset bool) string {
		_, code, err := w.MakeCode(t.Context(), "bo", "uid:0", reset)
		wantDone(t, err)
		return code.How
	}
	w := newWorld(t)
	if got := how(w, true); got != counterfoil.PasskeyFirst {
		t.Errorf("a reset of nothing is %s", got)
	}
	w.enrol("bo")
	if got := how(w, false); got != counterfoil.PasskeyAdded {
		t.Errorf("a second one is %s", got)
	}
	if got := how(w, true); got != counterfoil.PasskeyReset {
		t.Errorf("a reset is %s", got)
	}
	if got := how(w, false); got != counterfoil.PasskeyReset {
		t.Errorf("after a reset that nobody finished, the next is %s", got)
	}
	w.enrolWith("bo", passkey.New(testRP, testOrigin), false)
	keys, err := w.store.PasskeysOf(t.Context(), "bo")
	wantDone(t, err)
	if len(keys) != 2 || !keys[1].UsableFrom.Equal(w.clock.Now().Add(coolingTime)) || !slices.Equal(keys[0].Handle, keys[1].Handle) {
		t.Errorf("the passkeys are %+v", keys)
	}
	// Whoever has the passkeys is told each time, and with a reset those who decide too.
	told := w.told(EventPasskeyReset)
	for i, others := range []bool{false, true, true, true, false} {
		if len(told) != 5 || !slices.Contains(told[i].People, "bo") || slices.Contains(told[i].People, "cy") != others {
			t.Fatalf("told: %+v", told)
		}
	}

	dev := newWorld(t, func(w *world) { w.dev = true })
	dev.enrol("bo")
	p := dev.enrolWith("bo", passkey.New(testRP, testOrigin), false)
	if len(p.Passkeys) != 2 || p.Passkeys[1].UsableFrom.After(dev.clock.Now()) || len(dev.told(EventChangeProposed)) != 0 {
		t.Errorf("in development: %+v", p)
	}
}

// A reset ends the old passkeys before the new one is there, logins and signatures
// included.
func TestAResetEndsWhatWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo")
	options, err := w.LoginOptions(t.Context())
	wantDone(t, err)
	if _, _, err := w.MakeCode(t.Context(), "bo", "uid:0", true); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.Login(t.Context(), w.phone("bo").Get(options))
	wantRefused(t, err, counterfoil.PasskeyRefused)
	w.wantState(id, counterfoil.StateRevoked)
	_, err = w.Challenge(t.Context(), w.ask(pay), "bo", counterfoil.DecisionDeny, "")
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "no passkey")
}

// The entry of an enrolment has what signatures are verified with, and no address.
func TestTheEntryOfAPasskey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	e := w.entriesOf(ledger.PersonEnrolled)[0]
	own := w.phone("bo").Passkeys()[0]
	for name, want := range map[string]any{
		"person": "bo", "credential": encode(own.ID), "public_key": encode(passkey.PublicKey(own.Key)), "rp_id": testRP, "origin": testOrigin,
		"backup_eligible": false, "attested": false, "how": "first", "aaguid": "00000000-0000-0000-0000-000000000000",
	} {
		if e.Detail[name] != want {
			t.Errorf("%s is %v, want %v", name, e.Detail[name], want)
		}
	}
	keys, err := w.store.PasskeysOf(t.Context(), "bo")
	wantDone(t, err)
	if e.Actor != "bo" || keys[0].Entry != e.Index {
		t.Errorf("the entry is %+v, the passkey says %d", e, keys[0].Entry)
	}
}

// Ceremonies are bounded: the oldest goes.
func TestSoManyCeremonies(t *testing.T) {
	t.Parallel()
	c := newCeremonies[int]()
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for i := range maxCeremonies + 1 {
		c.begin(string(rune(i)), i, now)
	}
	if c.order.Len() != maxCeremonies || len(c.byKey) != maxCeremonies {
		t.Errorf("%d are kept", c.order.Len())
	}
	if _, ok := c.end(string(rune(0)), now); ok {
		t.Error("the oldest is there")
	}
	if v, ok := c.end(string(rune(1)), now); !ok || v != 1 {
		t.Error("the second is not there")
	}
	if _, ok := c.end(string(rune(1)), now); ok {
		t.Error("one was there twice")
	}
	c.begin("late", 1, now.Add(ceremonyLife))
	if c.order.Len() != 1 {
		t.Errorf("%d stale ones are kept", c.order.Len()-1)
	}
}

// Changes of who may approve are signed like calls.
func TestAChangeIsAskedAbout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	request := counterfoil.ChangeRequest{
		Verb: counterfoil.ChangeApply, Sentence: "Let fay approve payouts", Call: []byte(`{"v":1,"put":[]}`), Groups: []string{"finance"},
		Actor: "uid:0", Expires: w.clock.Now().Add(24 * time.Hour),
	}
	a, err := w.RequestChange(t.Context(), request)
	wantDone(t, err)
	if a.Kind != counterfoil.ApprovalOfChange || a.Rule.Required != 2 || a.Tool.String() != "counterfoil/apply" || a.Requester != "uid:0" {
		t.Errorf("asked: %+v", a)
	}
	v, err := w.View(t.Context(), "bo", a.ID)
	wantDone(t, err)
	if plain(v.Sentence) != request.Sentence || !v.MaySign || v.Asked != "uid:0" || v.NoTemplate {
		t.Errorf("seen: %+v", v)
	}
	w.approve(a.ID, "bo")
	select {
	case id := <-w.Changes():
		t.Errorf("%s is told after one signature", id)
	default:
	}
	w.approve(a.ID, "cy")
	if got := w.approval(a.ID); got.State != counterfoil.StateApproved || !got.UseUntil.Equal(a.Expires) {
		t.Errorf("approved: %+v", got)
	}
	select {
	case id := <-w.Changes():
		if id != a.ID {
			t.Errorf("told of %s", id)
		}
	default:
		t.Error("nobody is told")
	}
	request.Call = []byte(`{"v":1,"put":[1]}`)
	a, err = w.RequestChange(t.Context(), request)
	wantDone(t, err)
	if _, err := w.sign(a.ID, "ed", counterfoil.DecisionDeny, "no"); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-w.Changes():
		if id != a.ID {
			t.Errorf("told of %s", id)
		}
	default:
		t.Error("nobody is told of a no")
	}
	for _, bad := range []func(*counterfoil.ChangeRequest){
		func(c *counterfoil.ChangeRequest) { c.Groups = nil },
		func(c *counterfoil.ChangeRequest) { c.Call = nil },
		func(c *counterfoil.ChangeRequest) { c.Call = []byte(`{"a":1,"a":2}`) },
		func(c *counterfoil.ChangeRequest) { c.Verb = "" },
		func(c *counterfoil.ChangeRequest) { c.Expires = time.Time{} },
	} {
		c := request
		bad(&c)
		if _, err := w.RequestChange(t.Context(), c); err == nil {
			t.Errorf("asked about %+v", c)
		}
	}
	w.checkLog()
}
