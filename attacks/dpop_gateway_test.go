package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// Token and proof at the gateway: DG1 to DG9, and DPOP-RS-01 to 09 of the same
// matter.

// badCallProof bends the proof of payroll's call.
func badCallProof(row, name string, want want, edit func(w *world, j *jwt)) attack {
	return atBank(row, name, want, func(w *world, q *call) { edit(w, &q.proof) })
}

// TestProofAttacksAtTheGateway is DPOP-RS-03 as well.
func TestProofAttacksAtTheGateway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	missing := want{status: 401, code: counterfoil.ProofMissing}
	broken, target := unproven(counterfoil.ProofMalformed), unproven(counterfoil.ProofTarget)
	twoMethods := want{status: 400, code: counterfoil.RequestMalformed, challenge: "invalid_request"}
	claim := assertionClaim
	late := func(edit func(q *call)) func(*world, *call) {
		return func(_ *world, q *call) { q.late = append(q.late, edit) }
	}
	authorization := func(values ...string) func(*world, *call) {
		return func(w *world, q *call) {
			for i, v := range values {
				values[i] = strings.ReplaceAll(v, "TOKEN", w.token(w.payroll))
			}
			q.header["Authorization"] = values
			q.proof.Claims["ath"] = credential.TokenHash(w.token(w.payroll))
			q.scheme, q.token = "", ""
		}
	}
	ath := func(of func(w *world) string) func(*world, *jwt) {
		return func(w *world, j *jwt) { j.Claims["ath"] = of(w) }
	}
	htu := func(name, value string) attack { return badCallProof("DG3", name, target, claim("htu", value)) }
	upper := "HTTP://" + strings.ToUpper(strings.TrimPrefix(w.Issuer(), "http://")) + "/r/bank"
	rows := []attack{
		atBank("DG1", "a bound token as bearer, without a proof", badToken(counterfoil.BearerRefused), func(_ *world, q *call) {
			q.scheme, q.proofs = "Bearer", []string{}
		}),
		atBank("DG1", "a bound token as bearer, with its proof", badToken(counterfoil.BearerRefused), func(_ *world, q *call) { q.scheme = "Bearer" }),
		atBank("DG1", "bearer in another case", badToken(counterfoil.BearerRefused), func(_ *world, q *call) { q.scheme = "bEARER" }),

		atBank("DG2", "no proof", want{status: 401, code: counterfoil.ProofMissing, challenge: "invalid_dpop_proof"}, func(_ *world, q *call) { q.proofs = []string{} }),
		atBank("DG2", "an empty proof", broken, func(_ *world, q *call) { q.proofs = []string{""} }),
		atBank("DG2", "two proofs", broken, late(func(q *call) { q.proofs = append(q.proofs, q.proofs[0]) })),
		atBank("DG2", "two proofs in one header", broken, late(func(q *call) { q.proofs[0] += "," + q.proofs[0] })),
		atBank("DG2", "a proof without ath", target, func(_ *world, q *call) { q.noHash = true }),
		badCallProof("DG2", "an empty ath", target, claim("ath", "")),
		badCallProof("DG2", "a wrong ath", target, claim("ath", credential.TokenHash("x"))),
		badCallProof("DG2", "an ath with padding", target, ath(func(w *world) string { return credential.TokenHash(w.token(w.payroll)) + "=" })),
		badCallProof("DG2", "the ath of another agent's token", target, ath(func(w *world) string { return credential.TokenHash(w.token(w.auditor)) })),
		badCallProof("DG2", "an ath that is a list", broken, func(w *world, j *jwt) {
			j.Claims["ath"] = []string{credential.TokenHash(w.token(w.payroll))}
		}),
		badCallProof("DG2", "a proof that is signed by another key", broken, func(w *world, j *jwt) { j.Signer = w.stranger }),
		badCallProof("DG2", "a proof with a bit flipped", broken, func(w *world, j *jwt) { j.Sign = flipped(w.T, j.Signer) }),
		badCallProof("DG2", "a proof of alg none", broken, func(_ *world, j *jwt) { j.Header["alg"], j.Sign = "none", unsigned }),
		badCallProof("DG2", "a proof of typ JWT", broken, header("typ", "JWT")),
		badCallProof("DG2", "a proof with a private jwk", broken, func(_ *world, j *jwt) {
			j.Header["jwk"].(map[string]any)["d"] = strings.Repeat("A", 43)
		}),
		badCallProof("DG2", "a proof without jti", broken, withoutClaim("jti")),
		badCallProof("DG2", "a proof without iat", broken, withoutClaim("iat")),

		badCallProof("DG3", "for GET", target, claim("htm", "GET")),
		badCallProof("DG3", "for post", target, claim("htm", "post")),
		atBank("DG3", "for POST, sent as DELETE", target, func(_ *world, q *call) { q.method, q.body = http.MethodDelete, "" }),
		htu("for the token endpoint", w.Issuer()+"/oauth/token"),
		htu("for another resource", w.Issuer()+"/r/other"),
		htu("for a path below", w.BankURL()+"/pay"),
		htu("for another host", "http://evil.example/r/bank"),
		htu("for another port", "http://localhost/r/bank"),
		htu("for another scheme", "https"+strings.TrimPrefix(w.BankURL(), "http")),
		htu("for the upstream", w.BankUpstream()),
		htu("with a slash at its end", w.BankURL()+"/"),
		htu("with the path in another case", w.Issuer()+"/r/Bank"),
		atBank("DG3", "for the host that headers name", target, func(_ *world, q *call) {
			q.proof.Claims["htu"] = "http://evil.example/r/bank"
			q.header["X-Forwarded-Host"], q.header["X-Forwarded-Proto"] = []string{"evil.example"}, []string{"http"}
			q.header["Forwarded"], q.header["X-Original-Url"] = []string{"host=evil.example;proto=http"}, []string{"/r/bank"}
		}),
		atBank("DG3", "for the host that the request names", want{status: 400, code: counterfoil.RequestMalformed}, func(_ *world, q *call) {
			q.proof.Claims["htu"], q.header["Host"] = "http://evil.example/r/bank", []string{"evil.example"}
		}),
		badCallProof("DPOP-RS-01", "htu in another case of scheme and host", passes, claim("htu", upper)),
		badCallProof("DPOP-RS-01", "htu with query and fragment", passes, claim("htu", w.BankURL()+"?a#b")),

		atBank("DG4", "a stolen token, a key of one's own", badToken(counterfoil.ProofKeyMismatch), func(w *world, q *call) { q.proof = w.proofBy(w.stranger) }),
		atBank("DG4", "a stolen token, another agent's key", badToken(counterfoil.ProofKeyMismatch), func(w *world, q *call) { q.proof = w.proofBy(w.auditor.signer) }),
		atBank("DG4", "a key of one's own that says it is the right one", broken, func(w *world, q *call) {
			q.proof = w.proofBy(w.stranger)
			q.proof.Header["jwk"] = counterfoiltest.PublicJWK(w.T, w.payroll.signer)
		}),
		atBank("DG4", "the right key under another kid", passes, func(w *world, q *call) { q.proof.Header["kid"] = w.stranger.Public().Thumbprint() }),

		atBank("DPOP-RS-02", "no credentials", missing, func(_ *world, q *call) { q.scheme, q.token, q.proofs = "", "", []string{} }),
		atBank("DPOP-RS-02", "a proof without a token", missing, func(_ *world, q *call) { q.scheme, q.token = "", "" }),
		atBank("DPOP-RS-02", "Basic", missing, authorization("Basic cGF5cm9sbDp4")),
		atBank("DPOP-RS-07", "Bearer and DPoP at once", twoMethods, authorization("Bearer TOKEN", "DPoP TOKEN")),
		atBank("DPOP-RS-07", "the token twice", twoMethods, authorization("DPoP TOKEN", "DPoP TOKEN")),
		atBank("DPOP-RS-07", "two tokens in one header", twoMethods, authorization("DPoP TOKEN, Bearer TOKEN")),
		atBank("DPOP-RS-07", "the scheme alone", twoMethods, authorization("DPoP")),
		atBank("DPOP-RS-07", "an empty header", twoMethods, authorization("")),
		atBank("DPOP-RS-08", "the token in Proxy-Authorization", missing, func(_ *world, q *call) {
			q.header["Proxy-Authorization"] = []string{"DPoP " + q.token}
			q.scheme, q.token = "", ""
		}),
	}
	for _, scheme := range []string{"dpop", "DPOP", "dPoP", "DPoP "} {
		rows = append(rows, atBank("DG7", fmt.Sprintf("the scheme as %q", scheme), passes, func(_ *world, q *call) { q.scheme = scheme }))
	}
	for _, name := range []string{"access_token", "token", "dpop"} {
		rows = append(rows, atBank("DG7", "the token in the query as "+name, want{status: 400, code: counterfoil.RequestMalformed}, func(_ *world, q *call) {
			q.url += "?" + name + "=" + q.token
			q.scheme, q.token = "", ""
		}))
	}
	rows = append(rows,
		atBank("DG7", "the token in the query beside the header", want{status: 400, code: counterfoil.RequestMalformed}, func(_ *world, q *call) { q.url += "?access_token=" + q.token }),
		atBank("DG7", "the token in a form", want{status: 400, code: counterfoil.RequestMalformed}, func(_ *world, q *call) {
			q.body, q.header["Content-Type"] = "access_token="+q.token, []string{"application/x-www-form-urlencoded"}
			q.scheme, q.token = "", ""
		}),
		atBank("DG7", "the token in the message", missing, func(_ *world, q *call) {
			q.body = strings.Replace(q.body, "{", `{"access_token":"`+q.token+`",`, 1)
			q.scheme, q.token = "", ""
		}),
		atBank("DG7", "the token in a cookie", missing, func(_ *world, q *call) {
			q.header["Cookie"] = []string{"access_token=" + q.token}
			q.scheme, q.token = "", ""
		}),
	)
	run(t, w, rows)
}

// proofBy is a proof for payroll's call by another key.
func (w *world) proofBy(signer *credential.Signer) jwt {
	w.T.Helper()
	return counterfoiltest.ForgeProof(w.T, signer, http.MethodPost, w.BankURL(), w.Clock.Now())
}

// TestChallenges is what a 401 of the gateway says beside its error: DPOP-RS-02,
// DPOP-RS-04 and DPOP-RS-06.
func TestChallenges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	send := func(edit func(q *call)) []string {
		q := w.call(w.payroll)
		edit(q)
		return w.sendCall(q).header.Values("WWW-Authenticate")
	}
	plain := send(func(q *call) { q.scheme, q.token, q.proofs = "", "", []string{} })
	if len(plain) != 1 || !strings.HasPrefix(plain[0], "DPoP ") || !strings.Contains(plain[0], `algs="ES256`) || strings.Contains(plain[0], "error") {
		t.Errorf("DPOP-RS-02: without credentials the challenge is %q", plain)
	}
	if !strings.Contains(plain[0], `resource_metadata="`+w.Issuer()+`/.well-known/oauth-protected-resource/r/bank"`) {
		t.Errorf("the challenge does not name the metadata: %q", plain)
	}
	mismatch := send(func(q *call) { q.proof = w.proofBy(w.stranger) })
	if len(mismatch) != 1 || !strings.HasPrefix(mismatch[0], `DPoP error="invalid_token"`) || !strings.Contains(mismatch[0], "algs=") {
		t.Errorf("DPOP-RS-04: another key's challenge is %q", mismatch)
	}
	bearer := send(func(q *call) { q.scheme = "Bearer" })
	if len(bearer) != 2 || !strings.HasPrefix(bearer[0], `Bearer error="invalid_token"`) || !strings.HasPrefix(bearer[1], "DPoP ") || !strings.Contains(bearer[1], "algs=") {
		t.Errorf("DPOP-RS-06: a bearer's challenges are %q", bearer)
	}
	if got := honestCall(t, w); !got.passed() || len(got.header.Values("WWW-Authenticate")) > 0 {
		t.Errorf("an honest call: %s", got)
	}
	w.CheckLedger()
}

// TestProofIsGoodForOneCall is DG5 and DG9: the proof does not cover the body, so
// whatever comes with it second is refused. Two hundred at once are in
// TestOneOfManyWins.
func TestProofIsGoodForOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.call(w.payroll)
	w.request(first)
	proof, id := first.proofs[0], first.proof.Claims["jti"]
	replay := func(edit func(q *call)) func(*testing.T, *world) answer {
		return func(_ *testing.T, w *world) answer {
			q := w.call(w.payroll)
			q.token, q.proofs = first.token, []string{proof}
			edit(q)
			return w.sendCall(q)
		}
	}
	same := replay(func(*call) {})
	replayed := unproven(counterfoil.ProofReplayed)
	if got := same(t, w); !got.passed() {
		t.Fatalf("the first use: %s", got)
	}
	sameID := func(_ *testing.T, w *world) answer {
		q := w.call(w.payroll)
		q.proof.Claims["jti"] = id
		return w.sendCall(q)
	}
	anothers := func(_ *testing.T, w *world) answer {
		q := w.call(w.auditor)
		q.proof.Claims["jti"] = id
		return w.sendCall(q)
	}
	run(t, w, []attack{
		{row: "DG5", name: "twice", send: same, want: replayed},
		{row: "DG5", name: "the same id in another proof of the key", send: sameID, want: replayed},
		{row: "DG5", name: "the same id of another agent's key", send: anothers, want: passes},
		{row: "DG9", name: "with another body", send: replay(func(q *call) {
			q.body = counterfoiltest.Body("get_balance", `{"account":"savings"}`)
		}), want: replayed},
		{row: "DG9", name: "with another tool", send: replay(func(q *call) {
			q.body = counterfoiltest.Body("pay", `{"to":"acme","amount":1,"currency":"EUR"}`)
			q.header["Mcp-Name"] = []string{"pay"}
		}), want: replayed},
	})
	// The run has ended in a restart: what was used is read back from the log.
	run(t, w, []attack{{row: "DG5", name: "after a restart", send: same, want: replayed}})
	w.Clock.Advance(time.Minute)
	run(t, w, []attack{{row: "DG5", name: "when it is past", send: same, want: unproven(counterfoil.ProofStale)}})
}

// TestRefusedCallUsesItsProofUp is DG9 the other way round: whoever changes the
// body of a call on its way and comes first spoils it, and cannot come again.
func TestRefusedCallUsesItsProofUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var proof, token string
	send := func(tool, arguments string) func(*testing.T, *world) answer {
		return func(_ *testing.T, w *world) answer {
			q := w.callOf(w.payroll, tool, arguments)
			q.token, q.proofs = token, []string{proof}
			return w.sendCall(q)
		}
	}
	first := w.call(w.payroll)
	w.request(first)
	proof, token = first.proofs[0], first.token
	if got := send("list_payees", "{}")(t, w); got.code != counterfoil.ToolNotGranted {
		t.Fatalf("a call that is not granted: %s", got)
	}
	run(t, w, []attack{{row: "DG9", name: "the honest call after a changed one", send: send("get_balance", honestArguments), want: unproven(counterfoil.ProofReplayed)}})
}

// TestProofWindow is DG6: the edges of the window to the second, and no gap
// between the end of a proof's time and the end of its memory, across restarts
// too.
func TestProofWindow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dated := func(d time.Duration) func(*world, *jwt) {
		return func(w *world, j *jwt) { j.Claims["iat"] = w.Clock.Now().Add(d).Unix() }
	}
	stale, replayed := unproven(counterfoil.ProofStale), unproven(counterfoil.ProofReplayed)
	run(t, w, []attack{
		badCallProof("DG6", "59 s old", passes, dated(-59*time.Second)),
		badCallProof("DG6", "60 s old", passes, dated(-60*time.Second)),
		badCallProof("DG6", "61 s old", stale, dated(-61*time.Second)),
		badCallProof("DG6", "9 s ahead", passes, dated(9*time.Second)),
		badCallProof("DG6", "10 s ahead", passes, dated(10*time.Second)),
		badCallProof("DG6", "11 s ahead", stale, dated(11*time.Second)),
		badCallProof("DG6", "an hour ahead", stale, dated(time.Hour)),
	})
	for _, ahead := range []time.Duration{-59 * time.Second, 0, 9 * time.Second, 10 * time.Second} {
		w.renew()
		q := w.call(w.payroll)
		iat := w.Clock.Now().Add(ahead)
		q.proof.Claims["iat"] = iat.Unix()
		w.request(q)
		send := func(_ *testing.T, w *world) answer {
			again := w.call(w.payroll)
			again.token, again.proofs = q.token, q.proofs
			return w.sendCall(again)
		}
		if got := send(t, w); !got.passed() {
			t.Fatalf("the first use of a proof dated %v ahead: %s", ahead, got)
		}
		again := func(when string, at time.Time, want want) attack {
			w.Clock.Advance(at.Sub(w.Clock.Now()) - time.Second) // the run moves it by one
			return attack{row: "DG6", name: fmt.Sprintf("dated %v ahead, again %s", ahead, when), send: send, want: want}
		}
		now := w.Clock.Now()
		run(t, w, []attack{again("at once", now.Add(time.Second), replayed)}) // ends in a restart
		if end := iat.Add(credential.ProofWindow); end.Add(-time.Second).After(w.Clock.Now()) {
			run(t, w, []attack{again("1 s before its end", end.Add(-time.Second), replayed)})
			run(t, w, []attack{again("at its end", end, replayed)})
		}
		run(t, w, []attack{again("1 s after its end", iat.Add(credential.ProofWindow+time.Second), stale)})
	}
}

// TestNoncesAtTheGateway is DPOP-RS-05.
func TestNoncesAtTheGateway(t *testing.T) {
	t.Parallel()
	w, _, first := newNonceWorld(t)
	wanted := want{status: 401, code: counterfoil.NonceRequired, challenge: "use_dpop_nonce"}
	wanted.check(t, first)
	nonce := func(name string, edit func(w *world, j *jwt)) attack {
		return badCallProof("DPOP-RS-05", name, wanted, edit)
	}
	run(t, w, []attack{
		nonce("no nonce", withoutClaim("nonce")),
		nonce("an empty nonce", assertionClaim("nonce", "")),
		nonce("a nonce of its own", assertionClaim("nonce", "x")),
		nonce("a nonce made longer", assertionClaim("nonce", w.callNonce+"a")),
		nonce("a nonce cut short", assertionClaim("nonce", w.callNonce[1:])),
		nonce("the token endpoint's nonce", assertionClaim("nonce", w.tokenNonce)),
	})
}

// TestUnboundTokens is DPOP-RS-09, MT2 as far as it goes, and what is bound to nothing: a token of ours
// that is not bound to a key by its thumbprint opens nothing, though its
// signature is good.
func TestUnboundTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cnf := func(name string, value any) attack {
		return atBank("DPOP-RS-09", name, badToken(counterfoil.TokenMalformed), func(w *world, q *call) {
			j := w.forgeToken()
			j.Claims["cnf"] = value
			q.token = j.Compact(w.T)
		})
	}
	jkt := w.payroll.signer.Public().Thumbprint()
	rows := []attack{
		atBank("DPOP-RS-09", "a token that is only signed again", passes, func(w *world, q *call) { q.token = w.forgeToken().Compact(w.T) }),
		cnf("bound to a certificate", map[string]any{"x5t#S256": jkt}),
		cnf("bound to a certificate and a key", map[string]any{"jkt": jkt, "x5t#S256": jkt}),
		cnf("bound to a key by value", map[string]any{"jwk": counterfoiltest.PublicJWK(t, w.payroll.signer)}),
		cnf("bound to nothing", map[string]any{}),
		cnf("bound to null", nil),
		cnf("bound to a text", jkt),
		cnf("bound to an empty thumbprint", map[string]any{"jkt": ""}),
		atBank("DPOP-RS-09", "without cnf", badToken(counterfoil.TokenMalformed), func(w *world, q *call) {
			j := w.forgeToken()
			delete(j.Claims, "cnf")
			q.token = j.Compact(w.T)
		}),
	}
	run(t, w, rows)
}
