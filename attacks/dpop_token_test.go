package attacks

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// The proof at the token endpoint: DT1 to DT12, and DPOP-AS-01 to 09 of the same
// matter.

// badProofOf bends the proof of payroll's token request.
func badProofOf(row, name string, want want, edit func(w *world, j *jwt)) attack {
	return atToken(row, name, want, func(w *world, q *tokenRequest) { edit(w, &q.Proof) })
}

// TestProofAttacksAtTheTokenEndpoint is DPOP-AS-02 and DPOP-AS-08 as well.
func TestProofAttacksAtTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	endpoint := w.Issuer() + "/oauth/token"
	broken, target := badProof(counterfoil.ProofMalformed), badProof(counterfoil.ProofTarget)
	proofs := func(set func(q *tokenRequest)) func(*world, *tokenRequest) {
		return func(_ *world, q *tokenRequest) { q.Late = append(q.Late, set) }
	}
	key := func(edit func(m map[string]any)) func(*world, *jwt) {
		return func(_ *world, j *jwt) { edit(j.Header["jwk"].(map[string]any)) }
	}
	set := func(name string, value any) func(*world, *jwt) {
		return key(func(m map[string]any) { m[name] = value })
	}
	claim := assertionClaim
	htu := func(row, name string, want want, value string) attack {
		return badProofOf(row, name, want, claim("htu", value))
	}
	host := strings.TrimPrefix(w.Issuer(), "http://")
	run(t, w, append(proofTimes(), []attack{
		atToken("DT1", "none", badProof(counterfoil.ProofMissing), proofs(func(q *tokenRequest) { q.Proofs = []string{} })),
		atToken("DT1", "two headers", broken, proofs(func(q *tokenRequest) { q.Proofs = append(q.Proofs, q.Proofs[0]) })),
		atToken("DT1", "two in one header", broken, proofs(func(q *tokenRequest) { q.Proofs[0] += ", " + q.Proofs[0] })),
		atToken("DT1", "an empty header", broken, proofs(func(q *tokenRequest) { q.Proofs = []string{""} })),
		atToken("DT1", "what is no JWT", broken, proofs(func(q *tokenRequest) { q.Proofs = []string{"abc"} })),
		atToken("DT1", "a fourth part", broken, proofs(func(q *tokenRequest) { q.Proofs[0] += ".AAAA" })),
		atToken("DT1", "padding", broken, proofs(func(q *tokenRequest) { q.Proofs[0] += "=" })),

		badProofOf("DT2", "typ JWT", broken, header("typ", "JWT")),
		badProofOf("DT2", "no typ", broken, func(_ *world, j *jwt) { delete(j.Header, "typ") }),
		badProofOf("DT2", "typ in upper case", broken, header("typ", "DPOP+JWT")),
		badProofOf("DT2", "typ with application/", broken, header("typ", "application/dpop+jwt")),
		badProofOf("DT2", "typ of an assertion", broken, header("typ", "client-authentication+jwt")),

		badProofOf("DT3", "alg none", broken, func(_ *world, j *jwt) { j.Header["alg"], j.Sign = "none", unsigned }),
		badProofOf("DT3", "HS256 keyed with the public key", broken, func(w *world, j *jwt) {
			j.Header["alg"], j.Sign = "HS256", signedHS256(w.payroll.signer.Public().JWK())
		}),
		badProofOf("DT3", "RS256", broken, header("alg", "RS256")),
		badProofOf("DT3", "ES384 for a key of ES256", broken, header("alg", "ES384")),
		badProofOf("DT3", "no alg", broken, func(_ *world, j *jwt) { delete(j.Header, "alg") }),

		badProofOf("DT4", "no jwk", broken, func(_ *world, j *jwt) { delete(j.Header, "jwk") }),
		badProofOf("DT4", "a private jwk", broken, set("d", strings.Repeat("A", 43))),
		badProofOf("DT4", "a symmetric jwk", broken, header("jwk", map[string]any{"kty": "oct", "k": "AAAA"})),
		badProofOf("DT4", "another curve", broken, set("crv", "P-384")),
		badProofOf("DT4", "a point off the curve", broken, set("y", base64.RawURLEncoding.EncodeToString(make([]byte, 32)))),
		badProofOf("DT4", "a jwk that is a text", broken, header("jwk", "https://keys.example")),
		badProofOf("DT4", "a jku beside the jwk", broken, header("jku", w.trap)),
		badProofOf("DT4", "more members in jwk", passes, set("note", "mine")),

		badProofOf("DT5", "signed by another key", broken, func(w *world, j *jwt) { j.Signer = w.stranger }),
		badProofOf("DT5", "a bit flipped", broken, func(w *world, j *jwt) { j.Sign = flipped(w.T, j.Signer) }),
		badProofOf("DT5", "no signature", broken, func(_ *world, j *jwt) { j.Sign = unsigned }),

		badProofOf("DT6", "htm GET", target, claim("htm", "GET")),
		badProofOf("DT6", "htm post", target, claim("htm", "post")),
		badProofOf("DT6", "no htm", broken, withoutClaim("htm")),
		badProofOf("DT6", "no htu", broken, withoutClaim("htu")),
		htu("DT6", "htu of another path", target, w.Issuer()+"/oauth/other"),
		htu("DT6", "htu with a slash more", target, endpoint+"/"),
		htu("DT6", "htu of another host", target, "http://evil.example/oauth/token"),
		htu("DT6", "htu of another port", target, "http://localhost/oauth/token"),
		htu("DT6", "htu of another scheme", target, "https://"+host+"/oauth/token"),
		htu("DT6", "htu with user information", target, "http://payroll@"+host+"/oauth/token"),
		htu("DT6", "htu that is relative", target, "/oauth/token"),
		htu("DT6", "the issuer as htu", target, w.Issuer()),
		atToken("DT6", "htu of the forwarded host", target, func(_ *world, q *tokenRequest) {
			q.Proof.Claims["htu"] = "http://evil.example/oauth/token"
			q.Header["X-Forwarded-Host"], q.Header["Forwarded"] = []string{"evil.example"}, []string{"host=evil.example"}
		}),
		htu("DPOP-AS-09", "htu in another case of scheme and host", passes, "HTTP://"+strings.ToUpper(host)+"/oauth/token"),
		htu("DPOP-AS-09", "htu with query and fragment", passes, endpoint+"?a=1#b"),
		htu("DPOP-AS-09", "htu with dot segments", passes, w.Issuer()+"/a/../oauth/token"),
		htu("DPOP-AS-09", "htu with an escape that is none", passes, w.Issuer()+"/oauth/t%6Fken"),

		badProofOf("DT8", "no jti", broken, withoutClaim("jti")),
		badProofOf("DT8", "an empty jti", broken, claim("jti", "")),
		badProofOf("DT8", "a jti that is a number", broken, claim("jti", 7)),

		badProofOf("DT11", "made for the gateway", target, func(w *world, j *jwt) {
			j.Claims["htu"], j.Claims["ath"] = w.BankURL(), credential.TokenHash(w.token(w.payroll))
		}),
		badProofOf("DT11", "an ath here says nothing", passes, claim("ath", credential.TokenHash("x"))),
		atToken("DPOP-AS-01", "an honest proof", passes, func(*world, *tokenRequest) {}),
	}...))
}

func proofTimes() []attack {
	stale, broken := badProof(counterfoil.ProofStale), badProof(counterfoil.ProofMalformed)
	at := func(d time.Duration) func(*world, *jwt) {
		return func(w *world, j *jwt) { j.Claims["iat"] = w.Clock.Now().Add(d).Unix() }
	}
	raw := func(iat string) func(*world, *jwt) {
		return func(w *world, j *jwt) {
			j.RawClaims = fmt.Sprintf(`{"htm":"POST","htu":%q,"jti":%q,"iat":%s}`, w.Issuer()+"/oauth/token", j.Claims["jti"], iat)
		}
	}
	return []attack{
		badProofOf("DT7", "iat an hour ago", stale, at(-time.Hour)),
		badProofOf("DT7", "iat in an hour", stale, at(time.Hour)),
		badProofOf("DT7", "iat 61 s ago", stale, at(-61*time.Second)),
		badProofOf("DT7", "iat 60 s ago", passes, at(-60*time.Second)),
		badProofOf("DT7", "iat 10 s ahead", passes, at(10*time.Second)),
		badProofOf("DT7", "iat 11 s ahead", stale, at(11*time.Second)),
		badProofOf("DT7", "iat as text", broken, assertionClaim("iat", "now")),
		badProofOf("DT7", "iat as a number in a text", broken, func(w *world, j *jwt) { j.Claims["iat"] = fmt.Sprint(w.Clock.Now().Unix()) }),
		badProofOf("DT7", "iat null", broken, assertionClaim("iat", nil)),
		badProofOf("DT7", "iat 1e400", broken, raw("1e400")),
		badProofOf("DT7", "iat -1", broken, raw("-1")),
		badProofOf("DT7", "iat NaN", broken, raw("NaN")),
		badProofOf("DT7", "iat twice", broken, raw(`1,"iat":2`)),
		badProofOf("DT7", "iat as written", passes, func(w *world, j *jwt) { raw(fmt.Sprint(w.Clock.Now().Unix()))(w, j) }),
		badProofOf("DT7", "iat with a fraction", passes, func(w *world, j *jwt) { raw(fmt.Sprintf("%d.5", w.Clock.Now().Unix()))(w, j) }),
		badProofOf("DT7", "no iat", broken, withoutClaim("iat")),
	}
}

// TestBoundTokenNamesItsKey is DPOP-AS-01 and AT-AS-01: what the answer and the
// token say.
func TestBoundTokenNamesItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := honestToken(t, w)
	compact, _ := got.member("access_token").(string)
	if got.member("token_type") != "DPoP" || compact == "" || got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the answer: %s", got)
	}
	token := counterfoiltest.ReadJWT(t, compact)
	for name, want := range map[string]string{
		"iss": w.Issuer(), "aud": w.BankURL(), "sub": "payroll", "client_id": "payroll",
		"iat": fmt.Sprint(w.Clock.Now().Unix()), "exp": fmt.Sprint(w.Clock.Now().Add(5 * time.Minute).Unix()),
	} {
		if got := fmt.Sprint(token.Claims[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if id, _ := token.Claims["jti"].(string); len(id) < 16 || token.Header["typ"] != "at+jwt" || token.Header["alg"] != "ES256" || token.Header["kid"] == nil {
		t.Errorf("jti %q, header %v", id, token.Header)
	}
	cnf, _ := token.Claims["cnf"].(map[string]any)
	if cnf["jkt"] != w.payroll.signer.Public().Thumbprint() || len(cnf) != 1 {
		t.Errorf("cnf is %v", cnf)
	}
	w.CheckLedger()
}

// TestProofIsGoodForOneToken is DT8.
func TestProofIsGoodForOneToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := w.actor("payroll")
	q := w.tokenRequest(w.payroll)
	proof, id := q.Proof.Compact(t), q.Proof.Claims["jti"]
	withProof := func(_ *testing.T, w *world) answer {
		q := w.tokenRequest(w.payroll)
		q.Proofs = []string{proof}
		return w.sendToken(q)
	}
	if got := withProof(t, w); !got.passed() {
		t.Fatalf("the first use: %s", got)
	}
	replayed := badProof(counterfoil.ProofReplayed)
	again := func(name string, want want) attack {
		return attack{row: "DT8", name: name, control: honestToken, send: withProof, want: want}
	}
	sameID := func(a *actor) func(*testing.T, *world) answer {
		return func(_ *testing.T, w *world) answer {
			q := w.tokenRequest(a)
			q.Proof.Claims["jti"] = id
			return w.sendToken(q)
		}
	}
	run(t, w, []attack{
		again("twice", replayed),
		{row: "DT8", name: "the same id in another proof of the key", control: honestToken, send: sameID(w.payroll), want: replayed},
		{row: "DT8", name: "the same id of another instance's key", control: honestToken, send: sameID(second), want: passes},
		{row: "DT8", name: "the same id of another agent's key", control: honestToken, send: sameID(w.auditor), want: passes},
	})
	// The run has ended in a restart: what was used is read back from the log.
	run(t, w, []attack{again("after a restart", replayed)})
	w.Clock.Advance(time.Minute)
	run(t, w, []attack{again("when it is past", badProof(counterfoil.ProofStale))})
}

// TestProofKeysOfOthers is DT12: one key is one agent's, for ever. The alarm that
// it raises is in TestAnothersKeyRaisesTheAlarm.
func TestProofKeysOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply("kind: Agent\nname: gone\nowner: ana\nenvironment: prod\n---\nkind: Agent\nname: free\nowner: ana\nenvironment: prod\nproof_keys: any\ngrants: [{tools: [bank/get_balance]}]\n" +
		"---\nkind: Agent\nname: rival\nowner: ana\nenvironment: prod\nproof_keys: any\ngrants: [{tools: [bank/get_balance]}]\n")
	second, gone, free, rival := w.actor("payroll"), w.actor("gone"), w.actor("free"), w.actor("rival")
	w.Offboard("gone")
	inUse, mismatch := badProof(counterfoil.KeyInUse), badProof(counterfoil.ProofKeyMismatch)
	prove := func(name string, a *actor, key *credential.Signer, want want) attack {
		send := func(key *credential.Signer) func(*testing.T, *world) answer {
			return func(_ *testing.T, w *world) answer {
				q := w.tokenRequest(a)
				q.Proof = counterfoiltest.ForgeProof(w.T, key, http.MethodPost, w.Issuer()+"/oauth/token", w.Clock.Now())
				return w.sendToken(q)
			}
		}
		return attack{row: "DT12", name: name, control: send(a.signer), send: send(key), want: want}
	}
	own := counterfoiltest.NewSigner(t, credential.ES256)
	from := w.size()
	run(t, w, []attack{
		prove("another agent's registered key", w.payroll, w.auditor.signer, inUse),
		prove("another agent's registered key, where any key would do", free, w.auditor.signer, inUse),
		prove("another instance's key", w.payroll, second.signer, inUse),
		prove("an offboarded agent's key", w.payroll, gone.signer, inUse),
		prove("a key that nobody has", w.payroll, w.stranger, mismatch),
		prove("a key that nobody has, where any key would do", free, own, passes),
		prove("the key that another agent has bound since", rival, own, inUse),
	})
	recorded := 0
	for _, e := range w.since(from) {
		if e.Kind == ledger.TokenRefused && e.Code == counterfoil.KeyInUse && e.Agent != "" {
			recorded++
		}
	}
	if recorded != 5 {
		t.Errorf("%d of 5 refusals name the agent in the log", recorded)
	}
}

// newNonceWorld is a world whose server asks every proof for a nonce, and what it
// answered to those without one.
func newNonceWorld(t *testing.T) (w *world, token, call answer) {
	t.Helper()
	w = newWorld(t, func(c *daemon.Config) { c.DPoPNonce = "always" })
	nonce := func(a answer) string {
		nonces := a.header.Values("DPoP-Nonce")
		if len(nonces) != 1 || nonces[0] == "" || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("an answer that asks for a nonce: %s", a)
		}
		return nonces[0]
	}
	token = honestToken(t, w)
	w.tokenNonce = nonce(token)
	call = honestCall(t, w)
	w.callNonce = nonce(call)
	return w, token, call
}

// TestNoncesAtTheTokenEndpoint is DPOP-AS-03.
func TestNoncesAtTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	w, first, _ := newNonceWorld(t)
	wanted := want{status: 400, oauth: "use_dpop_nonce", code: counterfoil.NonceRequired}
	wanted.check(t, first)
	nonce := func(name string, edit func(w *world, j *jwt)) attack {
		return badProofOf("DPOP-AS-03", name, wanted, edit)
	}
	run(t, w, []attack{
		nonce("no nonce", withoutClaim("nonce")),
		nonce("an empty nonce", assertionClaim("nonce", "")),
		nonce("a nonce of its own", assertionClaim("nonce", "x")),
		nonce("a nonce made longer", assertionClaim("nonce", w.tokenNonce+"a")),
		nonce("a nonce cut short", assertionClaim("nonce", w.tokenNonce[1:])),
		nonce("the gateway's nonce", assertionClaim("nonce", w.callNonce)),
		badProofOf("DPOP-AS-03", "a nonce that is a number", badProof(counterfoil.ProofMalformed), assertionClaim("nonce", 7)),
	})
}

// TestNoncesEnd is DPOP-AS-03 and DPOP-RS-05: a nonce is good for five minutes
// and for one life of the server.
func TestNoncesEnd(t *testing.T) {
	t.Parallel()
	w, _, _ := newNonceWorld(t)
	w.token(w.payroll)
	got := honestToken(t, w)
	if !got.passed() || got.header.Get("DPoP-Nonce") == "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the next nonce comes with the token: %s", got)
	}
	next := got.header.Get("DPoP-Nonce")
	w.Clock.Advance(5*time.Minute + time.Second)
	old := want{status: 400, oauth: "use_dpop_nonce", code: counterfoil.NonceRequired}
	old.check(t, honestToken(t, w))
	w.tokenNonce = honestToken(t, w).header.Get("DPoP-Nonce")
	if next == w.tokenNonce || !honestToken(t, w).passed() {
		t.Error("a fresh nonce is refused, or is the old one")
	}
	w.CheckLedger() // which restarts
	old.check(t, honestToken(t, w))
	w.tokenNonce = honestToken(t, w).header.Get("DPoP-Nonce")
	if got := honestToken(t, w); !got.passed() {
		t.Errorf("with a nonce of this life: %s", got)
	}
}
