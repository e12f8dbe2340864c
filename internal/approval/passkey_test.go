package approval

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// A lie changes one thing of an honest answer. word is in the detail of its refusal,
// so that each is refused by the check that it is for.
type lie struct {
	name, word string
	tell       func(*passkey.Ceremony)
}

func yes() *bool { b := true; return &b }

// mangled changes the answer after it was signed.
func mangled(f func(*passkey.Answer)) func(*passkey.Ceremony) {
	return func(c *passkey.Ceremony) { c.Mangle = f }
}

// flip changes one byte of a base64url text.
func flip(s string, at int) string {
	b, _ := base64.RawURLEncoding.DecodeString(s)
	b[(at+len(b))%len(b)] ^= 1
	return base64.RawURLEncoding.EncodeToString(b)
}

// bothCeremonies are lies about what creation and assertion have in common.
func bothCeremonies() []lie {
	origin := func(o string) func(*passkey.Ceremony) { return func(c *passkey.Ceremony) { c.Origin = o } }
	return []lie{
		{"UV off", "", func(c *passkey.Ceremony) { c.UV = false }},
		{"UP off", "", func(c *passkey.Ceremony) { c.UP = false }},
		{"BS without BE", "", func(c *passkey.Ceremony) { c.BS = true }},
		{"evil origin", "origin", origin("https://evil.example")},
		{"subdomain", "origin", origin("https://a.console.example")},
		{"parent domain", "origin", origin("https://example")},
		{"http", "origin", origin("http://console.example")},
		{"port", "origin", origin("https://console.example:8443")},
		{"default port spelled out", "origin", origin("https://console.example:443")},
		{"capitals", "origin", origin("https://Console.example")},
		{"slash", "origin", origin("https://console.example/")},
		{"null origin", "origin", origin("null")},
		{"other rpId", "", func(c *passkey.Ceremony) { c.RPID = "evil.example" }},
		{"parent rpId", "", func(c *passkey.Ceremony) { c.RPID = "example" }},
		{"challenge of the client", "challenge", func(c *passkey.Ceremony) { c.Challenge = base64.RawURLEncoding.EncodeToString(make([]byte, 32)) }},
		{"no challenge", "challenge", func(c *passkey.Ceremony) { c.Challenge = "" }},
		{"padded challenge", "challenge", func(c *passkey.Ceremony) { c.Challenge += "=" }},
		{"crossOrigin", "frame", func(c *passkey.Ceremony) { c.CrossOrigin = yes() }},
		{"crossOrigin is text", "frame", func(c *passkey.Ceremony) { c.CrossOrigin, c.Extra = nil, `,"crossOrigin":"false"` }},
		{"crossOrigin is null", "frame", func(c *passkey.Ceremony) { c.CrossOrigin, c.Extra = nil, `,"crossOrigin":null` }},
		{"topOrigin", "topOrigin", func(c *passkey.Ceremony) { c.TopOrigin = testOrigin }},
		{"topOrigin is null", "topOrigin", func(c *passkey.Ceremony) { c.Extra = `,"topOrigin":null` }},
		{"topOrigin is empty", "topOrigin", func(c *passkey.Ceremony) { c.Extra = `,"topOrigin":""` }},
		{"origin twice", "strict JSON", func(c *passkey.Ceremony) { c.Extra = `,"origin":"https://evil.example"` }},
		{"origin twice in other case", "strict JSON", func(c *passkey.Ceremony) { c.Extra = `,"Origin":"https://evil.example"` }},
		{"crossOrigin in other case", "", func(c *passkey.Ceremony) { c.CrossOrigin, c.Extra = nil, `,"crossorigin":true` }},
		{"id and rawId differ", "differ", mangled(func(a *passkey.Answer) { a.RawID = flip(a.RawID, 0) })},
		{"not a public key", "differ", mangled(func(a *passkey.Answer) { a.Type = "password" })},
		{"clientDataJSON changed", "", mangled(func(a *passkey.Answer) { a.Response.ClientDataJSON = flip(a.Response.ClientDataJSON, 12) })},
		{"clientDataJSON with line end", "base64url", mangled(func(a *passkey.Answer) { a.Response.ClientDataJSON += "\n" })},
		{"clientDataJSON padded", "base64url", mangled(func(a *passkey.Answer) { a.Response.ClientDataJSON += "==" })},
		{"too large", "more than", mangled(func(a *passkey.Answer) { a.Extensions["x"] = strings.Repeat("x", maxCredential) })},
	}
}

func assertionLies(other *passkey.Authenticator) []lie {
	return append(bothCeremonies(),
		lie{"UV off, for its own check", "UV", func(c *passkey.Ceremony) { c.UV = false }},
		lie{"UP off, for its own check", "UP", func(c *passkey.Ceremony) { c.UP = false }},
		lie{"other rpId, for its own check", "relying party", func(c *passkey.Ceremony) { c.RPID = "evil.example" }},
		lie{"a creation", "webauthn.get is needed", func(c *passkey.Ceremony) { c.Type = "webauthn.create" }},
		lie{"a payment", "webauthn.get is needed", func(c *passkey.Ceremony) { c.Type = "payment.get" }},
		lie{"BE flips", "copied", func(c *passkey.Ceremony) { c.BE = true }},
		lie{"counter stands", "count", func(c *passkey.Ceremony) { c.Count = 1 }},
		lie{"counter back to zero", "count", func(c *passkey.Ceremony) { c.Count = 0 }},
		lie{"another key", "signature", func(c *passkey.Ceremony) { c.Key = passkey.NewKey() }},
		lie{"an unknown passkey", "passkey", func(c *passkey.Ceremony) { c.ID = []byte("unknown") }},
		lie{"another person's handle", "user handle", func(c *passkey.Ceremony) { c.UserHandle = []byte("somebody") }},
		lie{"another person's passkey", "not an active one of bo", func(c *passkey.Ceremony) {
			p := other.Passkeys()[0]
			c.ID, c.Key, c.UserHandle, c.Count = p.ID, p.Key, p.Handle, 1000
		}},
		lie{"another person's key under one's own id", "signature", func(c *passkey.Ceremony) { c.Key = other.Passkeys()[0].Key }},
		lie{"signature changed", "signature", mangled(func(a *passkey.Answer) { a.Response.Signature = flip(a.Response.Signature, -1) })},
		lie{"no signature", "signature", mangled(func(a *passkey.Answer) { a.Response.Signature = "" })},
		lie{"authenticatorData changed", "", mangled(func(a *passkey.Answer) { a.Response.AuthenticatorData = flip(a.Response.AuthenticatorData, -1) })},
		lie{"authenticatorData with more", "", mangled(func(a *passkey.Answer) { a.Response.AuthenticatorData += "AAAA" })},
	)
}

// Each lie is refused at signing, and the honest answer to a fresh challenge passes.
func TestLiesAboutASignatureAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	id := w.ask(w.pay("100", "DE1"))
	w.clock.Advance(time.Second)
	// A first signature elsewhere, so that the counter has somewhere to go back from.
	w.approve(w.ask(w.pay("1", "DE9")), "bo")
	for _, l := range assertionLies(w.phone("cy")) {
		size := w.store.Size()
		_, err := w.sign(id, "bo", counterfoil.DecisionApprove, "", l.tell)
		r, ok := counterfoil.AsRefusal(err)
		if !ok || r.Code != counterfoil.PasskeyRefused || !strings.Contains(r.Detail, l.word) {
			t.Errorf("%s: got %v, want passkey_refused for %q", l.name, err, l.word)
		}
		if w.store.Size() != size {
			t.Errorf("%s left an entry", l.name)
		}
	}
	// What is no lie: no user handle where the page said whose passkey it is, members
	// that WebAuthn may still get, and a passkey that is not counted.
	if _, err := w.sign(id, "bo", counterfoil.DecisionApprove, "", func(c *passkey.Ceremony) {
		c.UserHandle, c.CrossOrigin, c.Extra = nil, nil, `,"new_keys_may_be_added_here":"x"`
	}); err != nil {
		t.Errorf("the control: %v", err)
	}
	w.approve(id, "cy")
	w.checkLog()
}

func TestLiesAboutALoginAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	login := func(lies ...func(*passkey.Ceremony)) (string, error) {
		options, err := w.LoginOptions(t.Context())
		wantDone(t, err)
		if contains(options, "allowCredentials") || !contains(options, `"userVerification":"required"`) {
			t.Fatalf("login options %s", options)
		}
		name, _, err := w.Login(t.Context(), w.phone("bo").Get(options, lies...))
		return name, err
	}
	if name, err := login(); err != nil || name != "bo" {
		t.Fatalf("the control: %q, %v", name, err)
	}
	lies := append(assertionLies(w.phone("cy")), lie{"no user handle", "nobody's", func(c *passkey.Ceremony) { c.UserHandle = nil }})
	for _, l := range lies {
		if l.name == "another person's passkey" {
			continue // that is cy's login
		}
		size := w.store.Size()
		name, err := login(l.tell)
		if counterfoil.CodeOf(orNil(err)) != counterfoil.PasskeyRefused || name != "" {
			t.Errorf("%s: got %q, %v", l.name, name, err)
		}
		if w.store.Size() != size {
			t.Errorf("%s left an entry", l.name)
		}
	}
	if name, err := login(); err != nil || name != "bo" {
		t.Errorf("the control after: %q, %v", name, err)
	}
	if e := w.entriesOf(ledger.SessionOpened); len(e) != 2 || e[0].Actor != "bo" {
		t.Errorf("session.opened: %+v", e)
	}

	// One challenge, one login; and none that is too old.
	options, err := w.LoginOptions(t.Context())
	wantDone(t, err)
	answer := w.phone("bo").Get(options)
	_, _, err = w.Login(t.Context(), answer)
	wantDone(t, err)
	_, _, err = w.Login(t.Context(), answer)
	wantRefusedFor(t, err, counterfoil.PasskeyRefused, "challenge")
	options, err = w.LoginOptions(t.Context())
	wantDone(t, err)
	w.clock.Advance(ceremonyLife)
	_, _, err = w.Login(t.Context(), w.phone("bo").Get(options))
	wantRefusedFor(t, err, counterfoil.PasskeyRefused, "challenge")

	// Whoever is not declared any more is nobody.
	options, err = w.LoginOptions(t.Context())
	wantDone(t, err)
	_, base := w.store.Registry()
	wantDone(t, w.store.Apply(t.Context(), counterfoil.Change{Base: base, Delete: []counterfoil.DocKey{{Kind: counterfoil.KindPerson, Name: "bo"}}}, []*ledger.Entry{{Kind: ledger.ConfigApplied}}))
	_, _, err = w.Login(t.Context(), w.phone("bo").Get(options))
	wantRefused(t, err, counterfoil.PasskeyRefused)
}

func TestLiesAboutANewPasskeyAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("cy")
	code, _, err := w.MakeCode(t.Context(), "bo", "uid:0", false)
	wantDone(t, err)
	enrol := func(lies ...func(*passkey.Ceremony)) error {
		options, err := w.EnrolmentOptions(t.Context(), code.Reveal())
		wantDone(t, err)
		_, err = w.Enrol(t.Context(), code.Reveal(), w.phone("bo").Create(options, lies...))
		return err
	}
	lies := append(bothCeremonies(),
		lie{"an assertion", "webauthn.create is needed", func(c *passkey.Ceremony) { c.Type = "webauthn.get" }},
		lie{"attestation object changed", "", mangled(func(a *passkey.Answer) { a.Response.AttestationObject = flip(a.Response.AttestationObject, 0) })},
		lie{"attestation object with more", "", mangled(func(a *passkey.Answer) { a.Response.AttestationObject += "AAAA" })},
		lie{"another id than the attested one", "", mangled(func(a *passkey.Answer) { a.ID = flip(a.ID, 0); a.RawID = a.ID })},
		lie{"id too long", "1023", func(c *passkey.Ceremony) { c.ID = make([]byte, 1024) }},
	)
	for _, l := range lies {
		if l.name == "clientDataJSON changed" {
			continue // nothing is signed without attestation: the challenge is what counts
		}
		size := w.store.Size()
		err := enrol(l.tell)
		r, ok := counterfoil.AsRefusal(err)
		if !ok || r.Code != counterfoil.PasskeyRefused || !strings.Contains(r.Detail, l.word) {
			t.Errorf("%s: got %v, want passkey_refused for %q", l.name, err, l.word)
		}
		if w.store.Size() != size {
			t.Errorf("%s left an entry", l.name)
		}
	}
	// Somebody else's passkey, and somebody else's key under another id.
	theirs := w.phone("cy").Passkeys()[0]
	wantRefused(t, enrol(func(c *passkey.Ceremony) { c.ID = theirs.ID }), counterfoil.KeyInUse)
	wantRefused(t, enrol(func(c *passkey.Ceremony) { c.Key = theirs.Key }), counterfoil.KeyInUse)
	wantDone(t, enrol())
	w.checkLog()
}

// A backup state that changes passes and is recorded; a counter may stay at zero.
func TestWhatMayChangeOfAPasskey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	synced := w.phone("bo")
	synced.BE, synced.Uncounted = true, true
	w.enrol("bo")
	id := w.ask(w.pay("100", "DE1"))
	if _, err := w.sign(id, "bo", counterfoil.DecisionApprove, "", func(c *passkey.Ceremony) { c.BE = false }); counterfoil.CodeOf(orNil(err)) != counterfoil.PasskeyRefused {
		t.Errorf("BE off: %v", err)
	}
	if _, err := w.sign(id, "bo", counterfoil.DecisionApprove, "", func(c *passkey.Ceremony) { c.BS = true }); err != nil {
		t.Errorf("BS on: %v", err)
	}
	keys, err := w.store.PasskeysOf(t.Context(), "bo")
	wantDone(t, err)
	if !keys[0].BackedUp || !keys[0].Eligible || keys[0].SignCount != 0 {
		t.Errorf("kept: %+v", keys[0])
	}
	if e := w.entriesOf(ledger.ApprovalSigned); len(e) != 1 || e[0].Detail["backed_up"] != true {
		t.Errorf("approval.signed: %+v", e)
	}
	w.checkLog()
}

// A copy of a passkey, which goes on from where it was copied, is found out.
func TestACopiedPasskeyIsFoundOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	first, second := w.ask(w.pay("1", "DE1")), w.ask(w.pay("2", "DE1"))
	thief := passkey.New(testRP, testOrigin)
	thief.Copy(w.phone("bo").Passkeys()[0])
	w.approve(first, "bo")
	options, err := w.Challenge(t.Context(), second, "bo", counterfoil.DecisionApprove, "")
	wantDone(t, err)
	_, err = w.Sign(t.Context(), second, "bo", counterfoil.DecisionApprove, "", thief.Get(options))
	wantRefusedFor(t, err, counterfoil.PasskeyRefused, "count")
	w.approve(second, "bo")
}

func TestCountsOn(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		kept, now uint32
		want      bool
	}{{0, 0, true}, {0, 1, true}, {1, 2, true}, {1, 1, false}, {2, 1, false}, {1, 0, false}, {1<<32 - 1, 0, false}} {
		if got := countsOn(row.kept, row.now); got != row.want {
			t.Errorf("countsOn(%d, %d) = %t", row.kept, row.now, got)
		}
	}
}

// A passkey that the options did not allow is refused all the same.
func TestOptionsAreNotWhatRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	second := passkey.New(testRP, testOrigin)
	w.enrolWith("bo", second, false)
	id := w.ask(w.pay("100", "DE1"))
	use := func(c *passkey.Ceremony) {
		p := second.Passkeys()[0]
		c.ID, c.Key, c.UserHandle, c.Count = p.ID, p.Key, p.Handle, 7
	}
	_, err := w.sign(id, "bo", counterfoil.DecisionApprove, "", use)
	wantRefusedFor(t, err, counterfoil.ApproverNotEligible, "added")
	if _, err = w.sign(id, "bo", counterfoil.DecisionDeny, "", use); err != nil {
		t.Errorf("a no: %v", err)
	}
	w.checkLog()
}

func TestOptionsOfCeremonies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code, _, err := w.MakeCode(t.Context(), "bo", "uid:0", false)
	wantDone(t, err)
	options, err := w.EnrolmentOptions(t.Context(), code.Reveal())
	wantDone(t, err)
	for _, part := range []string{`"residentKey":"required"`, `"userVerification":"required"`, `"attestation":"none"`, `"id":"console.example"`, `"alg":-7`, `"excludeCredentials":[]`} {
		if !contains(options, part) {
			t.Errorf("%s is not in %s", part, options)
		}
	}
	_, err = w.Enrol(t.Context(), code.Reveal(), w.phone("bo").Create(options))
	wantDone(t, err)
	code, _, err = w.MakeCode(t.Context(), "bo", "uid:0", false)
	wantDone(t, err)
	options, err = w.EnrolmentOptions(t.Context(), code.Reveal())
	wantDone(t, err)
	own := w.phone("bo").Passkeys()[0]
	if !contains(options, `"excludeCredentials":[{`) || !contains(options, encode(own.ID)) || !contains(options, encode(own.Handle)) {
		t.Errorf("the second passkey's options %s do not name the first, or not its handle", options)
	}
	id := w.ask(w.pay("100", "DE1"))
	options, err = w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
	wantDone(t, err)
	if !contains(options, `"userVerification":"required"`) || !contains(options, encode(own.ID)) || !contains(options, `"timeout":300000`) {
		t.Errorf("the options of a signature are %s", options)
	}
}

func TestManagementURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]party{
		"http://localhost:8421":        {"localhost", "http://localhost:8421"},
		"https://console.example":      {"console.example", "https://console.example"},
		"https://console.example:443/": {"console.example", "https://console.example"},
		"http://CONSOLE.example:80":    {"console.example", "http://console.example"},
		"https://console.example:8443": {"console.example", "https://console.example:8443"},
	} {
		if got, err := newParty(url); err != nil || got != want {
			t.Errorf("newParty(%s) = %+v, %v", url, got, err)
		}
	}
	for _, url := range []string{"", "console.example", "ftp://console.example", "https://127.0.0.1:8421", "https://[::1]", "https://u@console.example", "https://münchen.example", "https://"} {
		if _, err := newParty(url); err == nil {
			t.Errorf("newParty(%s) was accepted", url)
		}
	}
}

func orNil(err error) error {
	if err == nil {
		return counterfoil.Refuse("none", "there is no error")
	}
	return err
}
