package authority_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/seal"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/ledger"
)

func (w *world) leak(body, kind string) {
	w.t.Helper()
	if err := w.a.Leaked(w.t.Context(), authority.LeakRequest{Body: []byte(body), ContentType: kind, Source: somewhere, RequestID: "req_3"}); err != nil {
		w.t.Errorf("reporting %.40q: %v", body, err)
	}
}

// keyPair gives an agent's instance a key whose private half the test has.
func (w *world) keyPair(agent, alg string) (pem string) {
	w.t.Helper()
	generate := credential.GenerateKey
	if alg == credential.PS256 {
		generate = func(string) (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }
	}
	key, err := generate(alg)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := credential.MarshalPrivateKeyPEM(key)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.keys[agent], err = credential.NewSigner(key); err != nil {
		w.t.Fatal(err)
	}
	w.enrol(w.a, agent, w.keys[agent])
	return string(b)
}

// What proves the leak is revoked, exactly that, and the address is recorded.
func TestLeaked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, other := w.mustAsk("payroll", "bank", nil).AccessToken, w.mustAsk("payroll", "bank", nil).AccessToken
	w.leak(`[{"token":"`+token+`","type":"counterfoil_token","url":"https://code.example/x"}]`, "application/json")
	_, err := w.use(token, "bank", w.keys["payroll"])
	wantCode(t, "the token", err, counterfoil.TokenRevoked)
	if _, err := w.use(other, "bank", w.keys["payroll"]); err != nil {
		t.Errorf("another token: %v", err)
	}
	e := w.last(ledger.Revoked)
	if e.Agent != "payroll" || e.TokenJTI != jtiOf(t, token) || e.Reason != "reported as leaked" || e.Source.Address != somewhere.String() || e.RequestID != "req_3" || e.Actor != "" {
		t.Errorf("entry %+v", e)
	}

	pem := w.keyPair("stranger", credential.Ed25519)
	inst, _ := w.store.InstanceByKey(w.keys["stranger"].Public().Thumbprint())
	strangers := w.mustAsk("stranger", "bank", nil).AccessToken
	w.leak(pem, "")
	_, err = w.use(strangers, "bank", w.keys["stranger"])
	wantCode(t, "a token of the key's instance", err, counterfoil.TokenRevoked)
	_, err = w.ask("stranger", "bank", nil)
	wantCode(t, "the key", err, counterfoil.ClientRefused)
	if e := w.last(ledger.Revoked); e.Agent != "stranger" || e.Instance != inst.ID || e.JKT != inst.JKT || fmt.Sprint(e.Detail["instances"]) != "["+inst.ID+"]" {
		t.Errorf("entry %+v", e)
	}

	code, _, err := w.a.EnrolCode(t.Context(), "payroll", "uid:7")
	if err != nil {
		t.Fatal(err)
	}
	kept, _, err := w.a.EnrolCode(t.Context(), "payroll", "uid:7")
	if err != nil {
		t.Fatal(err)
	}
	w.leak("code="+url.QueryEscape(code.Reveal()), "application/x-www-form-urlencoded")
	enrol := func(code counterfoil.Secret) error {
		_, err := w.a.Enroll(t.Context(), authority.EnrolRequest{Agent: "payroll", Code: code.Reveal(), Proof: []string{w.proof(w.newSigner(), "/enroll", "")}})
		return err
	}
	wantCode(t, "the code", enrol(code), counterfoil.EnrolmentRefused)
	wantCode(t, "another code", enrol(kept), "")
	if e := w.last(ledger.Revoked); e.Detail["kind"] != "enrolment_code" || strings.Contains(fmt.Sprint(e), code.Reveal()) || e.Reason != "reported as leaked" {
		t.Errorf("entry %+v", e)
	}
	if n := len(w.entries(ledger.Revoked)); n != 3 {
		t.Errorf("%d entries", n)
	}
	// All of it again, and no more of it is said.
	w.leak(token+"\n"+pem+"\n"+code.Reveal(), "text/plain")
	if n := len(w.entries(ledger.Revoked)); n != 3 {
		t.Errorf("after the same again, %d entries", n)
	}
}

// Several in one report are each revoked.
func TestLeakedTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.mustAsk("payroll", "bank", nil).AccessToken, w.mustAsk("planner", "bank", nil).AccessToken
	w.leak("first "+a+"\nsecond "+b+"\n", "text/plain")
	for token, agent := range map[string]string{a: "payroll", b: "planner"} {
		_, err := w.use(token, "bank", w.keys[agent])
		wantCode(t, agent, err, counterfoil.TokenRevoked)
	}
}

// What anybody may know does nothing, and the answer to it is that of everything.
func TestWhatProvesNoLeak(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pem := w.keyPair("payroll", credential.PS256)
	token := w.mustAsk("payroll", "bank", nil).AccessToken
	public := w.keys["payroll"].Public()
	_, claims := claimsOf(t, token)
	before := w.store.Size()
	jwk := string(public.JWK())
	for name, body := range map[string]string{
		"a thumbprint": public.Thumbprint(), "a thumbprint in JSON": `{"jkt":"` + public.Thumbprint() + `"}`, "a public key": jwk,
		"a public key with a number": strings.TrimSuffix(jwk, "}") + `,"d":"AQAB"}`, "a token's id": fmt.Sprint(claims["jti"]), "an agent's name": "payroll",
		"a token without its signature": token[:strings.LastIndex(token, ".")+1], "a token with another": token[:strings.LastIndex(token, ".")+1] + strings.Repeat("A", 86),
		"an instance": w.store.Instances("payroll")[0].ID, "nothing": "", "nonsense": "\x00\xff{", "much": strings.Repeat("x", authority.MaxLeak),
		"a code that nobody made": func() string { c, _ := counterfoil.NewEnrolmentCode(); return c.Reveal() }(),
		"a key that nobody has":   (&world{house: w.house, a: w.a, keys: map[string]*credential.Signer{}}).strange(),
		"an assertion":            w.assertion("payroll", w.keys["payroll"]),
	} {
		w.leak(body, "")
		if w.store.Size() != before {
			t.Fatalf("%s: something is recorded", name)
		}
	}
	if _, err := w.use(token, "bank", w.keys["payroll"]); err != nil {
		t.Errorf("the token: %v", err)
	}
	// The control: the private half of that very key.
	w.leak(pem, "")
	_, err := w.use(token, "bank", w.keys["payroll"])
	wantCode(t, "the private key", err, counterfoil.TokenRevoked)
}

// strange is a private key that nobody has.
func (w *world) strange() string {
	key, err := credential.GenerateKey(credential.ES256)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := credential.MarshalPrivateKeyPEM(key)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// A report is refused for its size and for too many of one address, and for nothing
// else; another address may still report.
func TestLeakBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.a.Leaked(t.Context(), authority.LeakRequest{Body: make([]byte, authority.MaxLeak+1), Source: somewhere})
	wantCode(t, "too large", err, counterfoil.PayloadTooLarge)
	gone, leave := context.WithCancel(t.Context())
	leave() // so that nobody waits for the answers
	report := func(from string) error {
		return w.a.Leaked(gone, authority.LeakRequest{Body: []byte("x"), Source: netip.MustParseAddr(from)})
	}
	for range 60 {
		if err := report("192.0.2.9"); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, "one more", report("192.0.2.9"), counterfoil.RateLimited)
	wantCode(t, "from elsewhere", report("192.0.2.10"), "")
	w.clock.Advance(time.Second)
	wantCode(t, "a second later", report("192.0.2.9"), "")
}

// unsaid is a store that cannot record revocations.
type unsaid struct{ *store.Store }

func (unsaid) Revoke(context.Context, counterfoil.Revocation, *ledger.Entry) (v counterfoil.Voided, news bool, err error) {
	return v, false, counterfoil.NewFault(counterfoil.LedgerUnavailable, errors.New("the disk is full"))
}

// A leak that could not be revoked has to come again.
func TestLeakFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.mustAsk("payroll", "bank", nil).AccessToken
	broken := w.house.authority(func(c *authority.Config) { c.Store = unsaid{w.house.store} })
	for body, code := range map[string]counterfoil.Code{token: counterfoil.LedgerUnavailable, "x": ""} {
		err := broken.Leaked(t.Context(), authority.LeakRequest{Body: []byte(body), Source: somewhere})
		if code == "" && err != nil || code != "" && (err == nil || counterfoil.CodeOf(err) != code) {
			t.Errorf("%.10s: %v", body, err)
		}
	}
	none := w.house.authority(func(c *authority.Config) { c.Tokens = nil })
	if err := none.Leaked(t.Context(), authority.LeakRequest{Body: []byte("x")}); err == nil {
		t.Error("without anybody who checks tokens a report was taken")
	}
}

// The answer takes as long whether there was something to revoke or not.
func TestLeaksTakeAsLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.mustAsk("payroll", "bank", nil).AccessToken
	for _, body := range []string{"x", token} {
		start := time.Now()
		w.leak(body, "")
		if took := time.Since(start); took < 100*time.Millisecond {
			t.Errorf("%.10s took %v", body, took)
		}
	}
}

// A report that has a signing key of the issuer itself is an alarm for a person, not a
// revocation.
func TestLeakedSigningKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rows, err := w.store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := w.store.Size()
	w.leak(string(w.house.keys.Signer().Public().JWK()), "")
	if strings.Contains(w.logs.String(), "signing key") && strings.Contains(w.logs.String(), "reported as leaked") {
		t.Error("the public half was enough for an alarm")
	}
	for _, row := range rows {
		pem, err := seal.Open(kek(1), "signing_keys/sealed", row.KID, row.Sealed)
		if err != nil {
			t.Fatal(err)
		}
		w.leak(string(pem), "")
		if !strings.Contains(w.logs.String(), row.KID) || !strings.Contains(w.logs.String(), "level=ERROR") {
			t.Errorf("nobody is told of %s", row.KID)
		}
	}
	if w.store.Size() != before {
		t.Error("something is recorded")
	}
}

// slow is who checks tokens, and takes until it is let go.
type slow struct {
	began chan struct{}
	end   chan struct{}
}

func (s slow) Inspect(context.Context, string) (credential.Token, error) {
	s.began <- struct{}{}
	<-s.end
	return credential.Token{}, counterfoil.Refuse(counterfoil.TokenMalformed, "it is none")
}

// So many reports are looked at at once, of however many addresses; when one is done
// the next is taken. That the answer waits for its time keeps nobody out.
func TestReportsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tokens := slow{make(chan struct{}), make(chan struct{})}
	a := w.house.authority(func(c *authority.Config) { c.Tokens = tokens })
	token := w.mustAsk("payroll", "bank", nil).AccessToken
	gone, leave := context.WithCancel(t.Context())
	leave()
	report := func(ctx context.Context, n int, body string) error {
		from := netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
		return a.Leaked(ctx, authority.LeakRequest{Body: []byte(body), Source: from})
	}
	done := make(chan error, authority.MaxReports)
	for n := range authority.MaxReports {
		go func() { done <- report(gone, n, token) }()
		<-tokens.began
	}
	wantCode(t, "one more", report(gone, 100, "x"), counterfoil.RateLimited)
	close(tokens.end)
	for range authority.MaxReports {
		if err := <-done; err != nil {
			t.Errorf("one of those: %v", err)
		}
	}
	for n := range 2 * authority.MaxReports {
		wantCode(t, "afterwards", report(gone, n, "x"), "")
	}
}
