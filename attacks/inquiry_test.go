package attacks

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// Introspection and revocation by OAuth (RFC 7662, RFC 7009): IN1 to IN4.

// TestWhoAsksAboutTokens is IN1: who asks about a token or revokes one authenticates by
// every check of the token endpoint.
func TestWhoAsksAboutTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	issuer := w.Issuer()
	claim := func(name string, value any) func(*tokenRequest) {
		return func(q *tokenRequest) { q.Assertion.Claims[name] = value }
	}
	head := func(name string, value any) func(*tokenRequest) {
		return func(q *tokenRequest) { q.Assertion.Header[name] = value }
	}
	form := func(name string, values ...string) func(*tokenRequest) {
		return func(q *tokenRequest) { q.Form[name] = values }
	}
	refuse := func(code counterfoil.Code) want { return badClient(code) }
	broken, unknown := refuse(counterfoil.AssertionMalformed), refuse(counterfoil.ClientRefused)
	for _, tc := range []struct {
		name string
		edit func(*tokenRequest)
		want want
	}{
		{"alg none", func(q *tokenRequest) { q.Assertion.Header["alg"], q.Assertion.Sign = "none", unsigned }, broken},
		{"HS256 with the public key", func(q *tokenRequest) {
			q.Assertion.Header["alg"], q.Assertion.Sign = "HS256", signedHS256(w.payroll.signer.Public().JWK())
		}, broken},
		{"the attacker's key", func(q *tokenRequest) { q.Assertion.Signer = w.stranger }, unknown},
		{"another agent's key", func(q *tokenRequest) {
			q.Assertion.Signer, q.Assertion.Header["kid"] = w.auditor.signer, w.auditor.signer.Public().Thumbprint()
		}, unknown},
		{"a bit flipped", func(q *tokenRequest) { q.Assertion.Sign = flipped(w.T, q.Assertion.Signer) }, unknown},
		{"another algorithm", head("alg", "ES384"), unknown},
		{"a key in the header", head("jwk", counterfoiltest.PublicJWK(t, w.stranger)), broken},
		{"a key at a URL", head("jku", w.trap), broken},
		{"crit", head("crit", []string{"exp"}), broken},
		{"the type of an access token", head("typ", "at+jwt"), broken},
		{"the type of a proof", head("typ", "dpop+jwt"), broken},
		{"the endpoint as aud", claim("aud", issuer+counterfoil.IntrospectPath), refuse(counterfoil.AssertionAudience)},
		{"two in aud", claim("aud", []string{issuer, "https://as.example"}), refuse(counterfoil.AssertionAudience)},
		{"an unknown agent", func(q *tokenRequest) { q.Assertion.Claims["iss"], q.Assertion.Claims["sub"] = "nobody", "nobody" }, unknown},
		{"iss and sub that differ", claim("sub", "auditor"), broken},
		{"past", func(q *tokenRequest) {
			q.Assertion.Claims["iat"], q.Assertion.Claims["exp"] = w.Clock.Now().Unix()-600, w.Clock.Now().Unix()-500
		}, refuse(counterfoil.AssertionExpired)},
		{"no jti", func(q *tokenRequest) { delete(q.Assertion.Claims, "jti") }, broken},
		{"another assertion type", form("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), malformed},
		{"no assertion", func(q *tokenRequest) { q.Form["client_assertion"] = []string{""} }, malformed},
		{"two assertion types", form("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), malformed},
		{"two tokens", form("token", "a", "b"), malformed},
		{"no token", form("token", ""), malformed},
		{"a secret beside it", form("client_secret", "s"), malformed},
		{"basic authentication beside it", func(q *tokenRequest) { q.Header.Set("Authorization", "Basic cGF5cm9sbDpz") }, malformed},
		{"another's client_id", form("client_id", "auditor"), broken},
	} {
		for _, path := range []string{counterfoil.IntrospectPath, counterfoil.RevokePath} {
			t.Run("IN1 "+tc.name+" at "+path, func(t *testing.T) {
				defer w.in(t)()
				w.Clock.Advance(time.Second)
				if got := w.sendInquiry(path, w.inquiry(w.payroll, "nothing")); got.status != 200 {
					t.Fatalf("the request without the attack: %s", got)
				}
				token := w.tokenFor(w.payroll, w.BankURL())
				from := w.size()
				q := w.inquiry(w.payroll, token)
				tc.edit(q)
				got := w.sendInquiry(path, q)
				// The very code is the token endpoint's for the same attack.
				if got.status != tc.want.status || got.oauth != tc.want.oauth || got.code == "" || got.code != tc.want.code {
					t.Errorf("got %s\nwant %+v", got, tc.want)
				}
				if strings.Contains(string(got.body), "active") || w.revocations(from) > 0 {
					t.Errorf("refused, and yet: %s", got)
				}
				if w.sendCall(w.callWith(w.payroll, token, w.BankURL())).status != 200 {
					t.Error("the token is void")
				}
			})
		}
	}
	// An assertion is used up by each of the endpoints, for all of them.
	for _, path := range []string{counterfoil.IntrospectPath, counterfoil.RevokePath} {
		used := w.inquiry(w.payroll, "nothing")
		if got := w.sendInquiry(path, used); got.status != 200 {
			t.Fatalf("an inquiry: %s", got)
		}
		assertion := used.Form.Get("client_assertion")
		for _, again := range []string{counterfoil.IntrospectPath, counterfoil.RevokePath} {
			q := w.inquiry(w.payroll, "nothing")
			q.Form.Set("client_assertion", assertion)
			w.says("IN1: an assertion of "+path+" at "+again, w.sendInquiry(again, q), 401, counterfoil.AssertionReplayed)
		}
		q := w.tokenRequest(w.payroll)
		q.Form.Set("client_assertion", assertion)
		w.says("IN1: an assertion of "+path+" at the token endpoint", w.sendToken(q), 401, counterfoil.AssertionReplayed)
	}
	q := w.tokenRequest(w.payroll)
	w.works("a token", w.sendToken(q))
	assertion := q.Form.Get("client_assertion")
	w.Restart()
	for _, path := range []string{counterfoil.IntrospectPath, counterfoil.RevokePath} {
		again := w.inquiry(w.payroll, "nothing")
		again.Form.Set("client_assertion", assertion)
		w.says("IN1: an assertion of the token endpoint at "+path+", after a restart", w.sendInquiry(path, again), 401, counterfoil.AssertionReplayed)
	}
	w.CheckLedger()
}

// TestWhatIsToldOfTokens is IN2 and IN3: of a token that is not the asker's business, is
// none, or is no good, nothing is told but that, always in the same words.
func TestWhatIsToldOfTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply("kind: Agent\nname: verger\nowner: ana\nenvironment: prod\n---\nkind: Resource\nname: chapel\ntype: mcp\nenvironment: prod\nupstream: " + w.BankUpstream() +
		"\nservers: [verger]\ntools: [{name: get_balance, class: read}]\n---\nkind: Agent\nname: monk\nowner: ana\nenvironment: prod\ngrants: [{tools: [chapel/get_balance, bank/get_balance]}]\n")
	verger, monk := w.actor("verger"), w.actor("monk")
	chapel := w.Issuer() + "/r/chapel"
	token := w.tokenFor(monk, chapel)
	elsewhere := w.tokenFor(monk, w.BankURL())
	for name, who := range map[string]*actor{"its own agent": monk, "a server of its resource": verger} {
		got := w.introspect(who, token)
		if !w.active(got) || got.member("client_id") != "monk" || got.member("aud") != chapel || got.member("token_type") != "DPoP" || got.member("jti") != w.jti(token) {
			t.Errorf("the control: %s is told %s", name, got)
		}
	}
	forged := counterfoiltest.ReadJWT(t, token)
	forged.Signer = w.stranger
	expired := w.forgeToken()
	expired.Claims["exp"], expired.Claims["iat"], expired.Claims["nbf"] = w.Clock.Now().Unix()-10, w.Clock.Now().Unix()-300, w.Clock.Now().Unix()-300
	revokedToken := w.tokenFor(monk, chapel)
	w.revoke(counterfoil.TargetToken, w.jti(revokedToken))
	own := counterfoiltest.ForgeAssertion(monk.signer, "monk", w.Issuer(), w.Clock.Now())
	proof := counterfoiltest.ForgeProof(t, monk.signer, http.MethodPost, chapel, w.Clock.Now())
	answered := w.inquiry(monk, token)
	answered.Header.Set("Accept", "application/token-introspection+jwt")
	signed := w.sendInquiry(counterfoil.IntrospectPath, answered)
	if signed.header.Get("Content-Type") != "application/token-introspection+jwt" {
		t.Fatalf("an answer as JWT: %s", signed)
	}
	for name, tc := range map[string]struct {
		who   *actor
		token string
	}{
		"IN2 another agent's token":                    {w.auditor, token},
		"IN2 a token of a resource it is no server of": {verger, elsewhere},
		"IN2 another agent's token for the server":     {w.auditor, w.ownToken(monk)},
		"IN3 a token by another key":                   {monk, forged.Compact(t)},
		"IN3 a token that is past":                     {w.payroll, expired.Compact(t)},
		"IN3 a token that is revoked":                  {monk, revokedToken},
		"IN3 a token that is cut":                      {monk, token[:len(token)-3]},
		"IN3 a token that goes on":                     {monk, token + "AAAA"},
		"IN3 an assertion":                             {monk, own.Compact(t)},
		"IN3 a proof":                                  {monk, proof.Compact(t)},
		"IN3 an introspection's answer":                {monk, string(signed.body)},
		"IN3 a code":                                   {monk, w.EnrolCode("monk")},
		"IN3 nonsense":                                 {monk, "a.b.c"},
		"IN3 much":                                     {monk, strings.Repeat("a", 20000)},
	} {
		got := w.introspect(tc.who, tc.token)
		if got.status != 200 || string(got.body) != inactive {
			t.Errorf("%s: %s", name, got)
		}
		if got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the answer may be kept: %s", name, got)
		}
		// And to revoke it is answered as for every other.
		if got := w.sendInquiry(counterfoil.RevokePath, w.inquiry(w.auditor, tc.token)); got.status != 200 || len(got.body) != 0 {
			t.Errorf("%s, revoked: %s", name, got)
		}
	}
	w.works("the control: the token is good", w.sendCall(w.callBy(monk, token, chapel, "get_balance", honestArguments)))
	// An answer as JWT is no access token.
	w.says("IN3: an introspection's answer as a token", w.sendCall(w.callBy(monk, string(signed.body), chapel, "get_balance", honestArguments)), 401, counterfoil.TokenMalformed)
	// The server of a resource is told, and revokes nothing.
	if got := w.sendInquiry(counterfoil.RevokePath, w.inquiry(verger, token)); got.status != 200 {
		t.Errorf("IN2: a server revokes: %s", got)
	}
	w.works("IN2: the token after that", w.sendCall(w.callBy(monk, token, chapel, "get_balance", honestArguments)))
	// A hint that is wrong changes nothing.
	q := w.inquiry(monk, token)
	q.Form.Set("token_type_hint", "refresh_token")
	if got := w.sendInquiry(counterfoil.RevokePath, q); got.status != 200 {
		t.Errorf("a hint: %s", got)
	}
	w.says("IN4: revoked by its agent", w.sendCall(w.callBy(monk, token, chapel, "get_balance", honestArguments)), 401, counterfoil.TokenRevoked)
	from := w.size()
	if got := w.sendInquiry(counterfoil.RevokePath, w.inquiry(monk, token)); got.status != 200 || w.revocations(from) > 1 {
		t.Errorf("IN4: revoked twice: %s", got)
	}
	kept := 0
	for _, e := range w.since(0) {
		if e.Kind == ledger.TokenIntrospected {
			kept++
		}
	}
	if kept == 0 {
		t.Error("IN2: nothing was recorded")
	}
	w.CheckLedger()
}
