package resource_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/attest"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/resource"
)

const (
	staticKey = "legacy-key-0123456789abcdef"
	idp       = "https://idp.example"
)

func keyDigest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// A ladder is a system whose resource still takes two bearer credentials.
type ladder struct {
	*system
	outside *testkit.OutsideIssuer
	bearers []counterfoil.Bearer
}

func newLadder(t *testing.T) *ladder {
	l := &ladder{system: newSystem(t, credential.ES256, credential.EdDSA), outside: testkit.NewOutsideIssuer(t, "k1")}
	l.bearers = []counterfoil.Bearer{
		{Agent: "payroll", Key: keyDigest(staticKey)},
		{Agent: "reports", Issuer: idp, Subject: "reports-job", Audience: "crm", Keys: []string{l.outside.JWK()}},
	}
	issuers, err := attest.New(attest.Config{Fetch: func(context.Context, string, int64) ([]byte, error) {
		return nil, errors.New("nothing is fetched in this test")
	}})
	if err != nil {
		t.Fatal(err)
	}
	l.verifier.Outside = issuers
	return l
}

func (l *ladder) claims(change func(map[string]any)) map[string]any {
	c := map[string]any{
		"iss": idp, "sub": "reports-job", "aud": "crm", "jti": "j1",
		"iat": l.now.Unix(), "exp": l.now.Add(time.Hour).Unix(),
	}
	if change != nil {
		change(c)
	}
	return c
}

func (l *ladder) send(mode, token string, header http.Header) (counterfoil.Caller, error) {
	h := http.Header{"Authorization": {"Bearer " + token}}
	maps.Copy(h, header)
	return l.verifier.Check(context.Background(), resource.Request{
		Method: "POST", URL: bankCall, Resource: bank, Header: h, Binding: mode, Bearers: l.bearers,
	})
}

// Each rung: what is declared is taken where the mode takes it, and nowhere else.
func TestBearerIsTakenWhereTheModeTakesIt(t *testing.T) {
	t.Parallel()
	l := newLadder(t)
	outside := l.outside.Token(l.claims(nil))
	for _, mode := range []string{counterfoil.BindingObserve, counterfoil.BindingPrefer} {
		caller, err := l.send(mode, staticKey, nil)
		wantDone(t, err)
		if caller.Agent != "payroll" || caller.Binding != counterfoil.NotBound || caller.Bearer != "key "+keyDigest(staticKey) ||
			caller.TokenID != keyDigest(staticKey) || caller.Audience != bank || caller.Proof != "" || caller.JKT != "" || len(caller.Scope) != 0 {
			t.Errorf("%s: the caller is %+v", mode, caller)
		}
		if !caller.Expires.After(l.now) || caller.Expires.After(l.now.Add(time.Hour)) {
			t.Errorf("%s: the check of a static key counts until %v", mode, caller.Expires)
		}
		caller, err = l.send(mode, outside, nil)
		wantDone(t, err)
		if caller.Agent != "reports" || caller.Binding != counterfoil.NotBound || caller.TokenID != "j1" || caller.Bearer != idp+" reports-job" ||
			!caller.Expires.Equal(l.now.Add(time.Hour)) {
			t.Errorf("%s: the caller is %+v", mode, caller)
		}
	}
	// The zero mode, the last one and what is none take bound tokens alone.
	for _, mode := range []string{"", counterfoil.BindingRequire, "Observe", "observe ", "anything"} {
		for _, token := range []string{staticKey, outside} {
			_, err := l.send(mode, token, nil)
			wantRefused(t, err, counterfoil.BearerRefused)
		}
	}
	// Bound tokens are taken in all of them.
	for _, mode := range []string{"", counterfoil.BindingObserve, counterfoil.BindingPrefer, counterfoil.BindingRequire} {
		r := l.request(nil)
		r.Binding, r.Bearers = mode, l.bearers
		caller, err := l.verifier.Check(t.Context(), r)
		wantDone(t, err)
		if caller.Binding != counterfoil.BoundDPoP {
			t.Errorf("%q: a bound token makes a caller that is %q", mode, caller.Binding)
		}
	}
}

// DPOP-RS-06, DG1: what is bound to a key is never taken without a proof of it.
func TestBoundTokensAreNeverBearer(t *testing.T) {
	t.Parallel()
	l := newLadder(t)
	bound := l.token(nil)
	// An operator who declares them all the same: as a static key, and as an issuer.
	l.bearers = append(l.bearers,
		counterfoil.Bearer{Agent: "payroll", Key: keyDigest(bound)},
		counterfoil.Bearer{Agent: "payroll", Issuer: issuer, Subject: "payroll", Audience: bank, Keys: []string{string(l.issuer.Public().JWK())}},
		counterfoil.Bearer{Agent: "payroll", Issuer: issuer + "/", Subject: "payroll", Audience: bank, Keys: []string{l.outside.JWK()}},
	)
	cnf := l.outside.Token(l.claims(func(c map[string]any) { c["cnf"] = map[string]any{"jkt": "x"} }))
	null := l.outside.Token(l.claims(func(c map[string]any) { c["cnf"] = nil }))
	slash := l.outside.Token(l.claims(func(c map[string]any) { c["iss"], c["sub"], c["aud"] = issuer+"/", "payroll", bank }))
	header := `{"alg":"ES256","kid":"k1"}`
	twice := l.outside.SignText(header, `{"iss":"`+idp+`","sub":"reports-job","aud":"crm","exp":4000000000,"iat":1,"cnf":{"jkt":"x"},"cnf":null}`)
	l.bearers = append(l.bearers, counterfoil.Bearer{Agent: "reports", Key: keyDigest(cnf)}, counterfoil.Bearer{Agent: "reports", Key: keyDigest(twice)})
	for _, mode := range []string{counterfoil.BindingObserve, counterfoil.BindingPrefer, counterfoil.BindingRequire} {
		for name, token := range map[string]string{"ours": bound, "cnf": cnf, "a null cnf": null, "cnf twice": twice, "our name with a slash": slash} {
			if _, err := l.send(mode, token, nil); counterfoil.CodeOf(err) != counterfoil.BearerRefused {
				t.Errorf("%s, %s: %v", mode, name, err)
			}
		}
		// Nor anything beside a proof: whoever has a key is to use it.
		c := call{htm: "POST", htu: bankCall, signer: l.agent, at: l.now}
		_, err := l.send(mode, staticKey, http.Header{"Dpop": {l.proof(c, staticKey)}})
		wantRefused(t, err, counterfoil.BearerRefused)
		_, err = l.send(mode, bound, http.Header{"Dpop": {l.proof(c, bound)}})
		wantRefused(t, err, counterfoil.BearerRefused)
	}
	_, err := l.send(counterfoil.BindingObserve, staticKey, nil)
	wantDone(t, err)
}

func TestStaticKeysAreExact(t *testing.T) {
	t.Parallel()
	l := newLadder(t)
	short := "fifteen-bytes.."
	l.bearers = append(l.bearers, counterfoil.Bearer{Agent: "payroll", Key: keyDigest(short)}, counterfoil.Bearer{Agent: "", Key: keyDigest("nobody-s-key-0123456789")})
	for name, token := range map[string]string{
		"a byte less": staticKey[:len(staticKey)-1], "a byte more": staticKey + "a", "upper case": strings.ToUpper(staticKey),
		"padded": staticKey + "=", "the digest": strings.TrimPrefix(keyDigest(staticKey), "sha-256:"), "too short": short,
		"without an agent": "nobody-s-key-0123456789", "long": strings.Repeat("a", 9<<10),
	} {
		if _, err := l.send(counterfoil.BindingObserve, token, nil); counterfoil.CodeOf(err) != counterfoil.BearerRefused {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, token := range []string{"", "two words", "quoted\"key-0123456789", staticKey + ", " + staticKey} {
		_, err := l.send(counterfoil.BindingObserve, token, nil)
		wantRefused(t, err, counterfoil.RequestMalformed)
	}
	two := http.Header{"Authorization": {"Bearer " + staticKey, "Bearer " + staticKey}}
	_, err := l.send(counterfoil.BindingObserve, "", two)
	wantRefused(t, err, counterfoil.RequestMalformed)

	// One key for two agents names nobody.
	l.bearers = append(l.bearers, counterfoil.Bearer{Agent: "reports", Key: keyDigest(staticKey)})
	_, err = l.send(counterfoil.BindingObserve, staticKey, nil)
	wantRefused(t, err, counterfoil.BearerRefused)
}

// The scheme's case does not matter (RFC 9110, Section 11.1), nor do more spaces.
func TestBearerSchemeCase(t *testing.T) {
	t.Parallel()
	l := newLadder(t)
	for _, value := range []string{"bearer " + staticKey, "BEARER  " + staticKey} {
		_, err := l.send(counterfoil.BindingObserve, "", http.Header{"Authorization": {value}})
		wantDone(t, err)
	}
}

// What is revoked is refused with a caller, so that it can be recorded.
func TestRevokedBearerIsKnown(t *testing.T) {
	t.Parallel()
	l := newLadder(t)
	l.verifier.Revocation = revoked{}
	caller, err := l.send(counterfoil.BindingObserve, staticKey, nil)
	wantRefused(t, err, counterfoil.AgentSuspended)
	if caller.Agent != "payroll" || caller.Bearer == "" || caller.Proof != "" {
		t.Errorf("the caller is %+v", caller)
	}
	caller, err = l.send(counterfoil.BindingObserve, "unknown-key-0123456789", nil)
	wantRefused(t, err, counterfoil.BearerRefused)
	if caller.Agent != "" || caller.Bearer != "" {
		t.Errorf("nobody's key makes the caller %+v", caller)
	}
}

type revoked struct{}

func (revoked) Revoked(_ context.Context, c counterfoil.Caller) error {
	return counterfoil.Refuse(counterfoil.AgentSuspended, "agent %q is suspended", c.Agent)
}

// RFC 9449, Section 7.2: the challenge names the scheme that was used, and the other.
func TestBearerChallenges(t *testing.T) {
	t.Parallel()
	l := newLadder(t)
	expired := l.outside.Token(l.claims(func(c map[string]any) { c["iat"], c["exp"] = l.now.Add(-time.Hour).Unix(), l.now.Unix() }))
	_, err := l.send(counterfoil.BindingObserve, expired, nil)
	wantRefused(t, err, counterfoil.TokenExpired)
	got := resource.Challenge(err, "", "")
	if len(got) != 2 || !strings.HasPrefix(got[0], `Bearer error="invalid_token"`) || !strings.HasPrefix(got[1], "DPoP ") {
		t.Errorf("the challenges are %q", got)
	}
}

// A View, which is what a resource server elsewhere has, lets nobody in without a key.
func TestViewsKnowNoBearer(t *testing.T) {
	t.Parallel()
	l := newLadder(t)
	l.verifier.Revocation = &resource.View{Now: func() time.Time { return l.now }}
	if _, err := l.send(counterfoil.BindingObserve, staticKey, nil); err == nil {
		t.Error("a view that knows nothing lets a bearer credential in")
	}
	l.verifier.Revocation = nil
	if _, err := l.send(counterfoil.BindingObserve, staticKey, nil); err == nil {
		t.Error("a verifier without a view lets a bearer credential in")
	}
}
