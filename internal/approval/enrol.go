package approval

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// An enrolCeremony is a challenge for a new passkey of whoever has the code.
type enrolCeremony struct {
	challenge []byte
	handle    []byte // the user handle that the options name
}

func refusedCode() error {
	return counterfoil.Refuse(counterfoil.EnrolmentRefused, "the enrolment code is not valid")
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}

// MakeCode makes a one-time code with which a person enrols a passkey, and voids the
// codes before it. Only who never had one enrols a first passkey, which counts at once;
// with reset, the passkeys that the person has end now and not when the code is used.
func (e *Engine) MakeCode(ctx context.Context, person, actor string, reset bool) (counterfoil.Secret, counterfoil.PersonCode, error) {
	var none counterfoil.PersonCode
	reg, _ := e.crowd()
	p := reg.People[person]
	if p == nil {
		return counterfoil.Secret{}, none, counterfoil.Refuse(counterfoil.ToolUnknown, "there is no person %q", person)
	}
	if reg.suspended(p) {
		return counterfoil.Secret{}, none, counterfoil.Refuse(counterfoil.EnrolmentRefused, "%[1]s is suspended: counterfoil person resume %[1]s comes first", person)
	}
	keys, err := e.store.PasskeysOf(ctx, person)
	if err != nil {
		return counterfoil.Secret{}, none, err
	}
	how := counterfoil.PasskeyAdded
	switch {
	case len(keys) == 0:
		how = counterfoil.PasskeyFirst
	case reset || len(active(keys)) == 0:
		how = counterfoil.PasskeyReset
	}
	text, hash := counterfoil.NewEnrolmentCode()
	code := counterfoil.PersonCode{Hash: hash, Person: person, How: how, Expires: millis(e.now().Add(codeLife))}
	entry := &ledger.Entry{
		Kind: ledger.EnrolmentCodeIssued, Actor: actor,
		Detail: map[string]any{"person": person, "how": how, "expires": ledger.FormatTime(code.Expires)},
	}
	if err := e.store.PutPersonCode(context.WithoutCancel(ctx), code, entry); err != nil {
		return counterfoil.Secret{}, none, err
	}
	// Whoever gets a passkey in somebody's name must not be the only one who knows.
	switch how {
	case counterfoil.PasskeyReset:
		e.tellOfPasskey(ctx, person, e.deciders(reg), fmt.Sprintf("%s made a code that resets the passkeys of %s: those before count no more.", actor, person))
	case counterfoil.PasskeyAdded:
		e.tellOfPasskey(ctx, person, nil, fmt.Sprintf("%s made a code with which %s can add a passkey.", actor, person))
	}
	return text, code, nil
}

// tellOfPasskey tells the holder, and whoever else is to know, of a passkey.
func (e *Engine) tellOfPasskey(ctx context.Context, holder string, others []string, sentence string) {
	people := slices.Clone(others)
	if !slices.Contains(people, holder) {
		people = append(people, holder)
	}
	e.cfg.Notify(ctx, Notice{Event: EventPasskeyReset, URL: e.party.origin + "/people", People: people, Sentence: sentence})
}

func active(keys []counterfoil.Passkey) []counterfoil.Passkey {
	return slices.DeleteFunc(slices.Clone(keys), func(k counterfoil.Passkey) bool { return k.Status != counterfoil.Active })
}

// code reads a code and finds what it is for. Whether it was never made, is spent or is
// too old, and of somebody who is suspended, the answer is one.
func (e *Engine) code(ctx context.Context, text string) (counterfoil.PersonCode, error) {
	hash, err := counterfoil.ParseEnrolmentCode(text)
	if err != nil {
		return counterfoil.PersonCode{}, err
	}
	code, ok, err := e.store.PersonCode(ctx, hash)
	if err != nil {
		return counterfoil.PersonCode{}, err
	}
	if !ok || !e.now().Before(code.Expires) || e.Suspended(code.Person) {
		return counterfoil.PersonCode{}, refusedCode()
	}
	return code, nil
}

// EnrolmentOptions begins the enrolment of a passkey: the options of
// navigator.credentials.create for whoever has the code. A later call replaces it.
func (e *Engine) EnrolmentOptions(ctx context.Context, text string) ([]byte, error) {
	code, err := e.code(ctx, text)
	if err != nil {
		return nil, err
	}
	keys, err := e.store.PasskeysOf(ctx, code.Person)
	if err != nil {
		return nil, err
	}
	// One handle for a person: an authenticator keeps one passkey for each. It tells
	// nothing of who it is (WebAuthn Level 3, Section 14.6.1).
	c := enrolCeremony{challenge: random(32), handle: random(32)}
	if len(keys) > 0 {
		c.handle = keys[0].Handle
	}
	e.enrolments.begin(hex.EncodeToString(code.Hash[:]), c, e.now())
	return e.party.create(code.Person, c.handle, c.challenge, active(keys), e.cfg.Roots != nil)
}

// Enrol takes a new passkey and spends the code. A first one counts at once; one that
// was added or reset counts for irreversible classes after a day, or once two people
// release it.
func (e *Engine) Enrol(ctx context.Context, text string, credential []byte) (PersonView, error) {
	code, err := e.code(ctx, text)
	if err != nil {
		return PersonView{}, err
	}
	now := e.now()
	c, begun := e.enrolments.end(hex.EncodeToString(code.Hash[:]), now)
	if !begun {
		return PersonView{}, refusedPasskey("no challenge was given for this code, or it is used or older than %s: begin again", ceremonyLife)
	}
	in, err := parseRegistration(credential)
	if err != nil {
		return PersonView{}, err
	}
	k, err := e.party.register(in, c.challenge, e.cfg.Roots, now)
	if err != nil {
		return PersonView{}, err
	}
	k.Person, k.Handle, k.How, k.Status = code.Person, c.handle, code.How, counterfoil.Active
	k.Enrolled, k.UsableFrom = now, now
	cools := code.How != counterfoil.PasskeyFirst && !e.cfg.Dev
	if cools {
		k.UsableFrom = now.Add(coolingTime)
	}
	entry := e.enrolled(&k)
	if err := e.store.EnrolPasskey(context.WithoutCancel(ctx), code.Hash, k, entry); err != nil {
		return PersonView{}, err
	}
	k.Entry = entry.Index
	if code.How != counterfoil.PasskeyFirst {
		e.tellOfPasskey(ctx, k.Person, nil, fmt.Sprintf("A passkey of %s was %s.", k.Person, k.How))
	}
	// What a crash right here leaves is a passkey that nobody is asked about: it cools
	// its day.
	if cools {
		if err := e.askRelease(ctx, &k); err != nil {
			e.log.Error("people could not be asked to release a passkey: it cools its day", "person", k.Person, "err", err)
		}
	}
	return e.person(ctx, k.Person)
}

// enrolled makes the entry that signatures are verified against for ever.
func (e *Engine) enrolled(k *counterfoil.Passkey) *ledger.Entry {
	d := map[string]any{
		"person": k.Person, "credential": encode(k.ID), "public_key": encode(k.PublicKey), "user_handle": encode(k.Handle),
		"aaguid": k.AAGUID, "attested": k.Attested, "rp_id": e.party.id, "origin": e.party.origin,
		"backup_eligible": k.Eligible, "backed_up": k.BackedUp, "how": k.How, "usable_from": ledger.FormatTime(k.UsableFrom),
	}
	if len(k.Transports) > 0 {
		d["transports"] = k.Transports
	}
	return &ledger.Entry{Kind: ledger.PersonEnrolled, Actor: k.Person, Detail: d}
}

// A loginCeremony is a challenge for whoever has a passkey.
type loginCeremony struct{ challenge []byte }

// LoginOptions begins a login: the options of navigator.credentials.get for any
// passkey that the browser finds.
func (e *Engine) LoginOptions(context.Context) ([]byte, error) {
	c := loginCeremony{random(32)}
	e.logins.begin(encode(c.challenge), c, e.now())
	return e.party.request(c.challenge, nil)
}

// Login returns whose passkey answered a challenge of LoginOptions, and which.
func (e *Engine) Login(ctx context.Context, credential []byte) (person string, passkey []byte, err error) {
	in, err := parseAssertion(credential)
	if err != nil {
		return "", nil, err
	}
	c, begun := e.logins.end(in.client.Challenge, e.now())
	if !begun {
		return "", nil, refusedPasskey("the challenge is not one that was given, or it is used or older than %s: begin again", ceremonyLife)
	}
	k, ok, err := e.store.PasskeyByID(ctx, in.id)
	if err != nil {
		return "", nil, err
	}
	// Nobody said who it is: the user handle does (WebAuthn Level 3, Section 7.2, step 6).
	if !ok || k.Status != counterfoil.Active || e.Suspended(k.Person) || len(in.handle) == 0 {
		return "", nil, refusedPasskey("the passkey is nobody's")
	}
	out, err := e.asserted(in, &k, c.challenge)
	if err != nil {
		return "", nil, err
	}
	entry := &ledger.Entry{
		Kind: ledger.SessionOpened, Actor: k.Person,
		Detail: map[string]any{"credential": encode(k.ID), "sign_count": int64(out.count), "backed_up": out.backedUp},
	}
	if err := e.store.UsePasskey(context.WithoutCancel(ctx), k.ID, out.count, out.backedUp, entry); err != nil {
		return "", nil, err
	}
	return k.Person, k.ID, nil
}
