package attacks

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// The client assertion: CA1 to CA16, and JWTCA-AS-01 to 07 of the same matter.

// badAssertion bends the assertion of payroll's token request.
func badAssertion(row, name string, want want, edit func(w *world, j *jwt)) attack {
	return atToken(row, name, want, func(w *world, q *tokenRequest) { edit(w, &q.Assertion) })
}

func assertionClaim(name string, value any) func(*world, *jwt) {
	return func(_ *world, j *jwt) { j.Claims[name] = value }
}

func withoutClaim(name string) func(*world, *jwt) {
	return func(_ *world, j *jwt) { delete(j.Claims, name) }
}

func header(name string, value any) func(*world, *jwt) {
	return func(_ *world, j *jwt) { j.Header[name] = value }
}

// unsigned leaves the signature empty.
func unsigned([]byte) []byte { return nil }

// signedHS256 makes a symmetric signature with what everybody can know.
func signedHS256(key []byte) func([]byte) []byte {
	return func(input []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(input)
		return mac.Sum(nil)
	}
}

// flipped signs and then flips a bit.
func flipped(t testing.TB, signer *credential.Signer) func([]byte) []byte {
	return func(input []byte) []byte {
		sig, err := signer.Sign(input)
		if err != nil {
			t.Error(err)
			return nil
		}
		sig[10] ^= 1
		return sig
	}
}

// TestAssertionKeyAttacks is CA1 to CA4: what the signature is checked with.
func TestAssertionKeyAttacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.actorWith("auditor", counterfoiltest.NewSigner(t, credential.ES384))
	unsupported := badClient(counterfoil.AssertionMalformed)
	unknown := badClient(counterfoil.ClientRefused)
	var rows []attack
	for _, alg := range []string{"none", "None", "nOnE", "NONE", ""} {
		rows = append(rows, badAssertion("CA1", fmt.Sprintf("alg %q and no signature", alg), unsupported, func(_ *world, j *jwt) {
			j.Header["alg"], j.Sign = alg, unsigned
		}))
	}
	rows = append(rows, badAssertion("CA1", "no alg", unsupported, func(_ *world, j *jwt) { delete(j.Header, "alg") }))
	for name, key := range publicForms(t, w.payroll.signer) {
		rows = append(rows, badAssertion("CA2", "HS256 keyed with the public key as "+name, unsupported, func(_ *world, j *jwt) {
			j.Header["alg"], j.Sign = "HS256", signedHS256(key)
		}))
	}
	rows = append(rows,
		badAssertion("CA2", "the attacker's key under our kid", unknown, func(w *world, j *jwt) { j.Signer = w.stranger }),
		badAssertion("CA2", "the attacker's key under its kid", unknown, func(w *world, j *jwt) {
			j.Signer, j.Header["kid"] = w.stranger, w.stranger.Public().Thumbprint()
		}),
		badAssertion("CA2", "another agent's key under its kid", unknown, func(w *world, j *jwt) {
			j.Signer, j.Header["kid"] = w.auditor.signer, w.auditor.signer.Public().Thumbprint()
		}),
		badAssertion("CA2", "a bit of the signature flipped", unknown, func(w *world, j *jwt) { j.Sign = flipped(w.T, j.Signer) }),
		badAssertion("CA2", "no signature", unknown, func(_ *world, j *jwt) { j.Sign = unsigned }),
		badAssertion("CA3", "RS256", unsupported, header("alg", "RS256")),
		badAssertion("CA3", "ES512", unsupported, header("alg", "ES512")),
		badAssertion("CA3", "ES256K", unsupported, header("alg", "ES256K")),
	)
	for _, alg := range []string{"ES384", "PS256", "EdDSA", "Ed25519"} {
		rows = append(rows, badAssertion("CA3", alg+" for a key of ES256", unknown, header("alg", alg)))
	}
	rows = append(rows, attack{row: "CA3", name: "ES256 for a key of ES384", want: unknown,
		control: func(_ *testing.T, w *world) answer { return w.sendToken(w.tokenRequest(other)) },
		send: func(_ *testing.T, w *world) answer {
			q := w.tokenRequest(other)
			q.Assertion.Header["alg"] = "ES256"
			return w.sendToken(q)
		}})
	for name, value := range map[string]any{
		"jwk": counterfoiltest.PublicJWK(t, w.stranger), "jku": w.trap + "/keys", "x5u": w.trap + "/cert", "x5c": []string{"MIIB"},
	} {
		rows = append(rows, badAssertion("CA4", name+" with the attacker's key", unsupported, func(w *world, j *jwt) {
			j.Header[name], j.Signer = value, w.stranger
		}))
	}
	rows = append(rows,
		badAssertion("CA4", "a kid that is a URL", unknown, func(w *world, j *jwt) { j.Header["kid"], j.Signer = w.trap, w.stranger }),
		badAssertion("CA4", "crit", unsupported, header("crit", []string{"exp"})),
		badAssertion("CA4", "b64", unsupported, header("b64", false)),
		badAssertion("CA4", "zip", unsupported, header("zip", "DEF")),
		badAssertion("JWTCA-AS-07", "a kid nobody has", unknown, header("kid", "nobody")),
		badAssertion("JWTCA-AS-07", "no kid", passes, func(_ *world, j *jwt) { delete(j.Header, "kid") }),
	)
	run(t, w, rows)
}

// publicForms are the texts that a confused verifier may take for a shared
// secret.
func publicForms(t *testing.T, signer *credential.Signer) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(signer.Public().Key())
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"JWK": signer.Public().JWK(), "DER": der, "raw point": der[len(der)-64:],
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	}
}

// TestAssertionClaimAttacks is JWTCA-AS-02, JWTCA-AS-03, JWTCA-AS-04 and
// JWTCA-AS-05 as well.
func TestAssertionClaimAttacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	issuer := w.Issuer()
	audience, broken, unknown := badClient(counterfoil.AssertionAudience), badClient(counterfoil.AssertionMalformed), badClient(counterfoil.ClientRefused)
	aud := func(name string, want want, value any) attack {
		return badAssertion("CA6", name, want, assertionClaim("aud", value))
	}
	rows := []attack{
		aud("the token endpoint as aud", audience, issuer+"/oauth/token"),
		aud("the resource as aud", audience, w.BankURL()),
		aud("another server as aud", audience, "https://as.example"),
		aud("us and another server as aud", audience, []string{issuer, "https://as.example"}),
		aud("another server and us as aud", audience, []string{"https://as.example", issuer}),
		aud("us and our token endpoint as aud", audience, []string{issuer, issuer + "/oauth/token"}),
		aud("us twice as aud", audience, []string{issuer, issuer}),
		aud("an empty array as aud", broken, []string{}),
		aud("an empty aud", audience, ""),
		aud("null as aud", broken, nil),
		aud("an object as aud", broken, map[string]any{"issuer": issuer}),
		aud("a slash at its end", audience, issuer+"/"),
		aud("another case", audience, strings.ToUpper(issuer)),
		aud("another scheme", audience, "https"+strings.TrimPrefix(issuer, "http")),
		aud("us alone in an array", passes, []string{issuer}),
		badAssertion("CA6", "no aud", broken, withoutClaim("aud")),

		badAssertion("CA8", "iss is not sub", broken, assertionClaim("iss", "auditor")),
		badAssertion("CA8", "sub is not iss", broken, assertionClaim("sub", "auditor")),
		badAssertion("CA8", "no iss", broken, withoutClaim("iss")),
		badAssertion("CA8", "no sub", broken, withoutClaim("sub")),
		badAssertion("CA8", "another agent's name, our key", unknown, func(_ *world, j *jwt) { j.Claims["iss"], j.Claims["sub"] = "auditor", "auditor" }),
		badAssertion("CA8", "the name in another case", unknown, func(_ *world, j *jwt) { j.Claims["iss"], j.Claims["sub"] = "Payroll", "Payroll" }),
		atToken("CA8", "client_id of another agent", broken, func(_ *world, q *tokenRequest) { q.Form.Set("client_id", "auditor") }),
		atToken("CA8", "its own client_id", passes, func(_ *world, q *tokenRequest) { q.Form.Set("client_id", "payroll") }),

		badAssertion("CA9", "no jti", broken, withoutClaim("jti")),
		badAssertion("CA9", "an empty jti", broken, assertionClaim("jti", "")),
		badAssertion("CA9", "a jti of 10 KiB", broken, assertionClaim("jti", strings.Repeat("a", 10<<10))),
		badAssertion("CA9", "a jti that is a number", broken, assertionClaim("jti", 7)),
		badAssertion("CA9", "a jti that is null", broken, assertionClaim("jti", nil)),
	}
	run(t, w, append(append(append(rows, assertionTimes()...), duplicateNames()...), assertionTypes()...))
}

func assertionTimes() []attack {
	expired, broken := badClient(counterfoil.AssertionExpired), badClient(counterfoil.AssertionMalformed)
	at := func(set func(j *jwt, now int64)) func(*world, *jwt) {
		return func(w *world, j *jwt) { set(j, w.Clock.Now().Unix()) }
	}
	times := func(iat, exp int64) func(*world, *jwt) {
		return at(func(j *jwt, now int64) { j.Claims["iat"], j.Claims["exp"] = now+iat, now+exp })
	}
	return []attack{
		badAssertion("CA7", "no exp", broken, withoutClaim("exp")),
		badAssertion("CA7", "exp past by the skew", expired, times(-70, -10)),
		badAssertion("CA7", "exp past within the skew", passes, times(-69, -9)),
		badAssertion("CA7", "exp long past", expired, times(-3700, -3600)),
		badAssertion("CA7", "a life of 121 s", expired, times(0, 121)),
		badAssertion("CA7", "a life of 120 s", passes, times(0, 120)),
		badAssertion("CA7", "exp before iat", broken, times(5, 4)),
		badAssertion("CA7", "iat 61 s ahead", expired, times(61, 120)),
		badAssertion("CA7", "iat 11 s ahead", expired, times(11, 60)),
		badAssertion("CA7", "iat 8 s ahead", passes, times(8, 60)),
		badAssertion("CA7", "nbf 61 s ahead", expired, at(func(j *jwt, now int64) { j.Claims["nbf"] = now + 61 })),
		badAssertion("CA7", "nbf 8 s ahead", passes, at(func(j *jwt, now int64) { j.Claims["nbf"] = now + 8 })),
		badAssertion("CA7", "exp as text", broken, at(func(j *jwt, now int64) { j.Claims["exp"] = fmt.Sprint(now + 60) })),
		badAssertion("CA7", "exp beyond numbers", broken, rawAssertion(`{"iss":"payroll","sub":"payroll","aud":%q,"jti":%q,"iat":%d,"exp":1e400}`, 3)),
		badAssertion("CA7", "ten years without iat", expired, at(func(j *jwt, now int64) {
			delete(j.Claims, "iat")
			j.Claims["exp"] = now + 10*365*86400
		})),
		badAssertion("CA7", "a minute without iat", passes, at(func(j *jwt, _ int64) { delete(j.Claims, "iat") })),
	}
}

// rawAssertion writes the claims as a text, with the first so many of issuer,
// jti, iat and exp in it.
func rawAssertion(format string, n int) func(*world, *jwt) {
	return func(w *world, j *jwt) {
		values := []any{w.Issuer(), j.Claims["jti"], j.Claims["iat"], j.Claims["exp"]}
		j.RawClaims = fmt.Sprintf(format, values[:n]...)
	}
}

func duplicateNames() []attack {
	broken := badClient(counterfoil.AssertionMalformed)
	rawHeader := func(format string) func(*world, *jwt) {
		return func(_ *world, j *jwt) { j.RawHeader = fmt.Sprintf(format, j.Header["kid"]) }
	}
	claims := func(format string) func(*world, *jwt) { return rawAssertion(format, 4) }
	const rest = `"iss":"payroll","aud":%q,"jti":%q,"iat":%d,"exp":%d}`
	return []attack{
		badAssertion("CA16", "claims as written", passes, claims(`{"sub":"payroll",`+rest)),
		badAssertion("CA16", "sub twice", broken, claims(`{"sub":"auditor","sub":"payroll",`+rest)),
		badAssertion("CA16", "sub twice alike", broken, claims(`{"sub":"payroll","sub":"payroll",`+rest)),
		badAssertion("CA16", "sub and Sub", broken, claims(`{"Sub":"auditor","sub":"payroll",`+rest)),
		badAssertion("CA16", "an escaped sub", broken, claims(`{"s\u0075b":"auditor","sub":"payroll",`+rest)),
		badAssertion("CA16", "a long s", broken, claims(`{"`+"\u017f"+`ub":"auditor","sub":"payroll",`+rest)),
		badAssertion("CA16", "a name twice further in", broken, claims(`{"x":{"a":1,"a":2},"sub":"payroll",`+rest)),
		badAssertion("CA16", "more after the claims", broken, claims(`{"sub":"payroll",`+rest+`{}`)),
		badAssertion("CA16", "a header as written", passes, rawHeader(`{"alg":"ES256","kid":%q}`)),
		badAssertion("CA16", "alg twice", broken, rawHeader(`{"alg":"none","alg":"ES256","kid":%q}`)),
		badAssertion("CA16", "alg and ALG", broken, rawHeader(`{"ALG":"none","alg":"ES256","kid":%q}`)),
	}
}

func assertionTypes() []attack {
	broken := badClient(counterfoil.AssertionMalformed)
	rows := []attack{
		badAssertion("JWTCA-AS-06", "no typ", passes, func(_ *world, j *jwt) { delete(j.Header, "typ") }),
		badAssertion("JWTCA-AS-06", "typ JWT", passes, header("typ", "JWT")),
	}
	for _, typ := range []string{"dpop+jwt", "at+jwt", "oauth-authz-req+jwt", "oauth-client-attestation-pop+jwt", "secevent+jwt", "application/at+jwt", "JOSE"} {
		rows = append(rows, badAssertion("JWTCA-AS-06", "typ "+typ, broken, header("typ", typ)))
	}
	return append(rows,
		atToken("CA12", "a proof as assertion", broken, func(w *world, q *tokenRequest) { q.Form.Set("client_assertion", q.Proof.Compact(w.T)) }),
		atToken("CA12", "an access token as assertion", broken, func(w *world, q *tokenRequest) { q.Form.Set("client_assertion", w.token(w.payroll)) }),
		atToken("CA12", "an assertion as proof", badProof(counterfoil.ProofMalformed), func(w *world, q *tokenRequest) {
			q.Proofs = []string{q.Assertion.Compact(w.T)}
		}),
		atToken("CA12", "an assertion as subject_token", want{status: 400, oauth: "unsupported_grant_type", code: counterfoil.GrantUnsupported}, func(w *world, q *tokenRequest) {
			q.Form.Set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
			q.Form.Set("subject_token", q.Assertion.Compact(w.T))
			q.Form.Set("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
		}),
		atBank("CA12", "an assertion as access token", badToken(counterfoil.TokenMalformed), func(w *world, q *call) {
			assertion := counterfoiltest.ForgeAssertion(w.payroll.signer, "payroll", w.Issuer(), w.Clock.Now())
			q.token = assertion.Compact(w.T)
		}),
	)
}

// TestTokenFormAttacks is JWTCA-AS-01 as well.
func TestTokenFormAttacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	head := func(name string, values ...string) func(*world, *tokenRequest) {
		return func(_ *world, q *tokenRequest) { q.Header[name] = values }
	}
	field := func(name string, values ...string) func(*world, *tokenRequest) {
		return func(_ *world, q *tokenRequest) { q.Form[name] = values }
	}
	late := func(edit func(q *tokenRequest)) func(*world, *tokenRequest) {
		return func(_ *world, q *tokenRequest) { q.Late = append(q.Late, edit) }
	}
	contentType := func(value string) func(*world, *tokenRequest) {
		return func(_ *world, q *tokenRequest) { q.ContentType = value }
	}
	unsupported := want{status: 400, oauth: "unsupported_grant_type", code: counterfoil.GrantUnsupported}
	run(t, w, []attack{
		atToken("CA13", "Basic beside the assertion", malformed, head("Authorization", "Basic cGF5cm9sbDp4")),
		atToken("CA13", "Bearer beside the assertion", malformed, head("Authorization", "Bearer x")),
		atToken("CA13", "an empty Authorization header", malformed, head("Authorization", "")),
		atToken("CA13", "client_secret beside the assertion", malformed, field("client_secret", "x")),
		atToken("CA13", "an empty client_secret", malformed, field("client_secret", "")),
		atToken("CA13", "the assertion twice", malformed, late(func(q *tokenRequest) { q.Form.Add("client_assertion", q.Form.Get("client_assertion")) })),
		atToken("CA13", "client_id and client_secret alone", malformed, late(func(q *tokenRequest) {
			q.Form.Del("client_assertion")
			q.Form.Del("client_assertion_type")
			q.Form.Set("client_id", "payroll")
			q.Form.Set("client_secret", "x")
		})),
		atToken("CA13", "no client authentication", badClient(counterfoil.ClientRefused), late(func(q *tokenRequest) {
			q.Form.Del("client_assertion")
			q.Form.Del("client_assertion_type")
		})),
		atToken("CA13", "a client_id alone", badClient(counterfoil.ClientRefused), late(func(q *tokenRequest) {
			q.Form.Del("client_assertion")
			q.Form.Del("client_assertion_type")
			q.Form.Set("client_id", "payroll")
		})),
		atToken("CA14", "another client_assertion_type", malformed, field("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")),
		atToken("CA14", "the type in another case", malformed, field("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:JWT-bearer")),
		atToken("CA14", "no client_assertion_type", malformed, field("client_assertion_type", "")),
		atToken("CA14", "no client_assertion", malformed, field("client_assertion", "")),
		atToken("CA14", "a parameter in the query string", malformed, func(_ *world, q *tokenRequest) { q.Query = "?scope=pay" }),
		atToken("CA14", "an empty query string", malformed, func(_ *world, q *tokenRequest) { q.Query = "?" }),
		atToken("CA14", "all in the query string", malformed, late(func(q *tokenRequest) { q.Query, q.Body = "?"+q.Form.Encode(), "x=" })),
		atToken("CA14", "a JSON body", malformed, func(_ *world, q *tokenRequest) {
			q.ContentType, q.Body = "application/json", `{"grant_type":"client_credentials"}`
		}),
		atToken("CA14", "a JSON body that says it is a form", malformed, func(_ *world, q *tokenRequest) { q.Body = `{"grant_type":"client_credentials"}` }),
		atToken("CA14", "text/plain", malformed, contentType("text/plain")),
		atToken("CA14", "multipart", malformed, contentType("multipart/form-data; boundary=x")),
		atToken("CA14", "no Content-Type", malformed, contentType("")),
		atToken("CA14", "two Content-Types", malformed, head("Content-Type", "application/x-www-form-urlencoded", "application/json")),
		atToken("CA14", "another charset", malformed, contentType("application/x-www-form-urlencoded; charset=utf-16")),
		atToken("CA14", "charset UTF-8", passes, contentType("application/x-www-form-urlencoded; charset=UTF-8")),
		atToken("CA14", "Content-Encoding", malformed, head("Content-Encoding", "gzip")),
		atToken("CA14", "scope twice", malformed, field("scope", "pay", "pay")),
		atToken("CA14", "an unknown parameter twice", malformed, field("x", "1", "2")),
		atToken("CA14", "an unknown parameter", passes, field("x", "1")),
		atToken("CA14", "a parameter without a value", passes, field("scope", "")),
		atToken("CA14", "resource twice", want{status: 400, oauth: "invalid_target", code: counterfoil.TargetInvalid}, func(w *world, q *tokenRequest) {
			q.Form.Add("resource", w.Issuer()+"/r/other")
		}),
		atToken("CA14", "a semicolon between parameters", malformed, late(func(q *tokenRequest) { q.Body = q.Form.Encode() + ";x=1" })),
		atToken("CA14", "a broken escape", malformed, late(func(q *tokenRequest) { q.Body = q.Form.Encode() + "&x=%zz" })),
		atToken("CA14", "no UTF-8", malformed, field("x", "\xff")),
		atToken("CA14", "a NUL", malformed, field("x", "a\x00b")),
		atToken("CA14", "no grant_type", malformed, field("grant_type", "")),
		atToken("CA14", "the password grant", unsupported, field("grant_type", "password")),
		atToken("CA14", "an authorization code", unsupported, field("grant_type", "authorization_code")),
		atToken("CA14", "a refresh token", unsupported, field("grant_type", "refresh_token")),
	})
}

// TestAssertionIsGoodForOneToken is CA10 on one node, and JWTCA-AS-05: the id of an assertion that
// was used is durable with the token, so that a restart forgets none.
func TestAssertionIsGoodForOneToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := w.tokenRequest(w.payroll)
	assertion := q.Assertion.Compact(t)
	twice := func(_ *testing.T, w *world) answer {
		q := w.tokenRequest(w.payroll)
		q.Form.Set("client_assertion", assertion)
		return w.sendToken(q)
	}
	again := func(name string) attack {
		return attack{row: "CA10", name: name, control: honestToken, send: twice, want: badClient(counterfoil.AssertionReplayed)}
	}
	if got := twice(t, w); !got.passed() {
		t.Fatalf("the first use: %s", got)
	}
	otherID := again("the same id in another assertion")
	otherID.send = func(_ *testing.T, w *world) answer {
		q := w.tokenRequest(w.payroll)
		q.Assertion.Claims["jti"] = counterfoiltest.ReadJWT(w.T, assertion).Claims["jti"]
		return w.sendToken(q)
	}
	anothers := atToken("CA10", "the same id of another agent", passes, nil)
	anothers.send = func(_ *testing.T, w *world) answer {
		q := w.tokenRequest(w.auditor)
		q.Assertion.Claims["jti"] = counterfoiltest.ReadJWT(w.T, assertion).Claims["jti"]
		return w.sendToken(q)
	}
	run(t, w, []attack{again("twice"), otherID, anothers})
	run(t, w, []attack{again("after a restart")}) // the run before has ended in one
	w.Clock.Advance(2 * time.Minute)
	past := again("when it is past")
	past.want = badClient(counterfoil.AssertionExpired)
	run(t, w, []attack{past})
}
