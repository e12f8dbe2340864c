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

// One credential in the place of another: TS1 to TS7. The tokens of most rows
// are signed with the issuer's own key, so that the signature is not what
// refuses them.

// ledgerBook is a second resource, and a third in another environment; the agent
// payroll is granted both.
const ledgerBook = `kind: Resource
name: book
type: mcp
environment: prod
upstream: %[1]s
tools: [{name: get_balance, class: read}]
---
kind: Resource
name: lab
type: mcp
environment: dev
upstream: %[1]s
tools: [{name: get_balance, class: read}]
---
kind: Agent
name: payroll
owner: ana
purpose: monthly payroll run
environment: prod
grants:
  - tools: [bank/get_balance, bank/pay, book/get_balance, lab/get_balance]
---
kind: Agent
name: gardener
owner: ana
environment: dev
grants:
  - tools: [bank/get_balance, lab/get_balance]
`

// forged sends payroll's call with a token that is bent and signed again with
// the issuer's key.
func forged(row, name string, want want, edit func(w *world, j *jwt)) attack {
	return atBank(row, name, want, func(w *world, q *call) {
		j := w.forgeToken()
		edit(w, j)
		q.token = j.Compact(w.T)
	})
}

func claims(edit func(w *world, m map[string]any)) func(*world, *jwt) {
	return func(w *world, j *jwt) { edit(w, j.Claims) }
}

// TestTokensOfOtherAudiences is TS1, and AT-RS-02 of the audience.
func TestTokensOfOtherAudiences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply(fmt.Sprintf(ledgerBook, w.BankUpstream()))
	book := w.Issuer() + "/r/book"
	audience := badToken(counterfoil.TokenAudience)
	atBook := func(_ *testing.T, w *world) answer {
		q := w.call(w.payroll)
		w.at(q, book, w.tokenFor(w.payroll, book))
		return w.sendCall(q)
	}
	aud := func(name string, want want, value any) attack {
		return forged("TS1", name, want, assertionClaim("aud", value))
	}
	bookToken := w.tokenFor(w.payroll, book)
	run(t, w, []attack{
		atBank("TS1", "the book's token at the bank", audience, func(_ *world, q *call) { q.token = bookToken }),
		{row: "TS1", name: "the bank's token at the book", control: atBook, want: audience, send: func(_ *testing.T, w *world) answer {
			q := w.call(w.payroll)
			w.at(q, book, q.token)
			return w.sendCall(q)
		}},
		aud("signed again", passes, w.BankURL()),
		aud("the bank alone in a list", passes, []string{w.BankURL()}),
		aud("the bank and the book", audience, []string{w.BankURL(), book}),
		aud("the book and the bank", audience, []string{book, w.BankURL()}),
		aud("the bank twice", audience, []string{w.BankURL(), w.BankURL()}),
		aud("the issuer", audience, w.Issuer()),
		aud("a slash more", audience, w.BankURL()+"/"),
		aud("another case", audience, strings.ToUpper(w.BankURL())),
		aud("all below the issuer", audience, w.Issuer()+"/r/*"),
		aud("another host's bank", audience, "https://other.example/r/bank"),
		aud("the upstream", audience, w.BankUpstream()),
		aud("an empty list", badToken(counterfoil.TokenMalformed), []string{}),
		aud("nothing", badToken(counterfoil.TokenMalformed), ""),
		aud("null", badToken(counterfoil.TokenMalformed), nil),
		forged("TS1", "no aud", badToken(counterfoil.TokenMalformed), withoutClaim("aud")),
	})
}

// TestTokensOfOtherDeployments is TS3 and TS4, and AT-RS-02 of the issuer.
func TestTokensOfOtherDeployments(t *testing.T) {
	t.Parallel()
	w, dev := newWorld(t), newWorld(t)
	w.Apply(fmt.Sprintf(ledgerBook, w.BankUpstream()))
	gardener := w.actor("gardener")
	issuer, broken := badToken(counterfoil.TokenIssuer), badToken(counterfoil.TokenMalformed)
	revoked := badToken(counterfoil.TokenRevoked)
	kid := w.issuerKey().Public().Thumbprint()
	agent := func(name string, value any) func(*world, *jwt) {
		return claims(func(_ *world, m map[string]any) { m["agent"].(map[string]any)[name] = value })
	}
	lab := w.Issuer() + "/r/lab"
	labToken := w.tokenFor(gardener, lab)
	run(t, w, []attack{
		atBank("TS3", "a token of another deployment", issuer, func(w *world, q *call) { q.token = dev.token(dev.payroll) }),
		atBank("TS3", "its token, its key, our proof key", issuer, func(w *world, q *call) {
			j := dev.forgeToken()
			j.Claims["aud"], j.Claims["cnf"] = w.BankURL(), map[string]any{"jkt": w.payroll.signer.Public().Thumbprint()}
			q.token = j.Compact(w.T)
		}),
		atBank("TS3", "another deployment's key, which says that it is ours", broken, func(w *world, q *call) {
			j := w.forgeToken()
			j.Signer, j.Header["kid"] = dev.issuerKey(), dev.issuerKey().Public().Thumbprint()
			q.token = j.Compact(w.T)
		}),
		atBank("TS3", "another deployment's key under our kid", broken, func(w *world, q *call) {
			j := w.forgeToken()
			j.Signer = dev.issuerKey()
			q.token = j.Compact(w.T)
		}),
		{row: "TS3", name: "an agent of dev asks for a token of prod", want: want{status: 400, oauth: "invalid_target", code: counterfoil.TargetInvalid},
			control: func(_ *testing.T, w *world) answer {
				q := w.tokenRequest(gardener)
				q.Form.Set("resource", lab)
				return w.sendToken(q)
			},
			send: func(_ *testing.T, w *world) answer { return w.sendToken(w.tokenRequest(gardener)) }},
		{row: "TS3", name: "an agent of prod asks for a token of dev", want: want{status: 400, oauth: "invalid_target", code: counterfoil.TargetInvalid},
			control: honestToken,
			send: func(_ *testing.T, w *world) answer {
				q := w.tokenRequest(w.payroll)
				q.Form.Set("resource", lab)
				return w.sendToken(q)
			}},
		forged("TS3", "a token that says it is of dev", want{status: 200, code: counterfoil.OutsideEnvironment}, agent("env", "dev")),
		{row: "TS3", name: "a token of dev's agent for the bank, with its key", want: want{status: 200, code: counterfoil.OutsideEnvironment},
			control: func(_ *testing.T, w *world) answer { return w.sendCall(w.callWith(gardener, labToken, lab)) },
			send: func(_ *testing.T, w *world) answer {
				j := counterfoiltest.ReadJWT(w.T, labToken)
				j.Claims["aud"], j.Signer = w.BankURL(), w.issuerKey()
				return w.sendCall(w.callWith(gardener, j.Compact(w.T), w.BankURL()))
			}},
		forged("TS3", "a token of another agent, bound to our key", revoked, claims(func(w *world, m map[string]any) {
			other := counterfoiltest.ReadJWT(w.T, w.token(w.auditor)).Claims
			m["agent"], m["sub"], m["client_id"] = other["agent"], "auditor", "auditor"
		})),
		forged("TS3", "a token of an older state of the agent", revoked, agent("epoch", 1)),
		forged("TS3", "a token of a later state of the agent", revoked, agent("epoch", time.Now().Add(240*time.Hour).UnixMilli())),
		forged("TS3", "a token of an instance that never was", revoked, agent("instance", "ins_nobody")),
		forged("TS3", "a token of another agent's instance", revoked, agent("instance", w.auditor.instance)),
		forged("TS3", "a token whose agent is not its client", broken, agent("id", "auditor")),
		forged("TS3", "a token of an agent that never was", revoked, claims(func(_ *world, m map[string]any) {
			m["agent"].(map[string]any)["id"], m["sub"], m["client_id"] = "nobody", "nobody", "nobody"
		})),
		forged("TS3", "a member more that may restrict it", broken, agent("only", "get_balance")),

		atBank("TS4", "a foreign issuer with a key of the same kid", issuer, func(w *world, q *call) {
			j := w.forgeToken()
			j.Claims["iss"], j.Signer, j.Header["kid"] = "https://as.example", w.stranger, kid
			q.token = j.Compact(w.T)
		}),
		forged("TS4", "a foreign issuer, signed with our key", issuer, assertionClaim("iss", "https://as.example")),
		forged("TS4", "our issuer with a slash at its end", issuer, claims(func(w *world, m map[string]any) { m["iss"] = w.Issuer() + "/" })),
		forged("TS4", "our issuer in another case", issuer, claims(func(w *world, m map[string]any) { m["iss"] = strings.ToUpper(w.Issuer()) })),
		forged("TS4", "our issuer with a port more", issuer, claims(func(w *world, m map[string]any) { m["iss"] = "http://localhost" })),
		forged("TS4", "an issuer that is a URL to fetch", issuer, assertionClaim("iss", w.trap)),
		forged("TS4", "no issuer", broken, withoutClaim("iss")),
		forged("TS4", "a list of issuers", broken, claims(func(w *world, m map[string]any) { m["iss"] = []string{w.Issuer()} })),
	})
	dev.CheckLedger()
}

// TestTokenHeaders is TS2 of the header and the signature: AT-RS-01, AT-RS-03.
func TestTokenHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := badToken(counterfoil.TokenMalformed)
	rows := []attack{
		forged("TS2", "a token that is only signed again", passes, func(*world, *jwt) {}),
		forged("TS2", "typ application/at+jwt", passes, header("typ", "application/at+jwt")),
		forged("TS2", "no typ", broken, func(_ *world, j *jwt) { delete(j.Header, "typ") }),
		forged("TS2", "no kid", broken, func(_ *world, j *jwt) { delete(j.Header, "kid") }),
		forged("TS2", "alg none", broken, func(_ *world, j *jwt) { j.Header["alg"], j.Sign = "none", unsigned }),
		forged("TS2", "no signature", broken, func(_ *world, j *jwt) { j.Sign = unsigned }),
		forged("TS2", "HS256 keyed with the published key", broken, func(w *world, j *jwt) {
			j.Header["alg"], j.Sign = "HS256", signedHS256(w.issuerKey().Public().JWK())
		}),
		forged("TS2", "ES384 for our key of ES256", broken, header("alg", "ES384")),
		forged("TS2", "a bit of the signature flipped", broken, func(w *world, j *jwt) { j.Sign = flipped(w.T, j.Signer) }),
		forged("TS2", "crit", broken, header("crit", []string{"exp"})),
		forged("TS2", "a jku of the attacker's", broken, func(w *world, j *jwt) { j.Header["jku"], j.Signer = w.trap, w.stranger }),
		forged("TS2", "a jwk of the attacker's", broken, func(w *world, j *jwt) {
			j.Header["jwk"], j.Signer = counterfoiltest.PublicJWK(w.T, w.stranger), w.stranger
		}),
		forged("TS2", "a kid that leads out", broken, func(w *world, j *jwt) { j.Header["kid"], j.Signer = "../../dev/null", w.stranger }),
		forged("TS2", "the agent's own key as the issuer's", broken, func(w *world, j *jwt) {
			j.Header["kid"], j.Signer = w.payroll.signer.Public().Thumbprint(), w.payroll.signer
		}),
	}
	whole := func(w *world) string { return w.token(w.payroll) }
	for name, edit := range map[string]func(string) string{
		"cut short by one": func(s string) string { return s[:len(s)-1] },
		"cut short by two": func(s string) string { return s[:len(s)-2] },
		"cut in half":      func(s string) string { return s[:len(s)/2] },
		"made longer":      func(s string) string { return s + "A" },
		"padded":           func(s string) string { return s + "==" },
		"a fourth part":    func(s string) string { return s + ".AAAA" },
		"the last character's spare bits set": func(s string) string {
			// The last of 86 characters of a signature carries 4 bits; these are
			// other characters for the same bytes.
			return s[:len(s)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", s[len(s)-1])|1])
		},
	} {
		rows = append(rows, atBank("TS2", "a token "+name, broken, func(w *world, q *call) { q.token = edit(whole(w)) }))
	}
	run(t, w, rows)
}

// typs are the explicit types of every kind of JWT that comes near this
// product. The first three are its own.
var typs = []string{"client-authentication+jwt", "dpop+jwt", "at+jwt", "JWT", "logout+jwt", "secevent+jwt", "token-introspection+jwt"}

// TestTypeMatrix is TS2 and AT-RS-01: at each place that takes a JWT, one that is right in
// all but its type, signed with the key that is right there.
func TestTypeMatrix(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	places := []struct {
		name    string
		takes   []string
		refused want
		send    func(w *world, typ string) answer
	}{
		{"a client assertion", []string{"client-authentication+jwt", "JWT"}, badClient(counterfoil.AssertionMalformed), func(w *world, typ string) answer {
			q := w.tokenRequest(w.payroll)
			q.Assertion.Header["typ"] = typ
			return w.sendToken(q)
		}},
		{"a proof at the token endpoint", []string{"dpop+jwt"}, badProof(counterfoil.ProofMalformed), func(w *world, typ string) answer {
			q := w.tokenRequest(w.payroll)
			q.Proof.Header["typ"] = typ
			return w.sendToken(q)
		}},
		{"a token at the gateway", []string{"at+jwt"}, badToken(counterfoil.TokenMalformed), func(w *world, typ string) answer {
			q, j := w.call(w.payroll), w.forgeToken()
			j.Header["typ"] = typ
			q.token = j.Compact(w.T)
			return w.sendCall(q)
		}},
		{"a proof at enrolment", []string{"dpop+jwt"}, unproven(counterfoil.ProofMalformed), func(w *world, typ string) answer {
			return w.enrol(counterfoiltest.NewSigner(w.T, credential.ES256), header("typ", typ))
		}},
		{"a proof at the gateway", []string{"dpop+jwt"}, unproven(counterfoil.ProofMalformed), func(w *world, typ string) answer {
			q := w.call(w.payroll)
			q.proof.Header["typ"] = typ
			return w.sendCall(q)
		}},
	}
	var rows []attack
	for _, p := range places {
		for _, typ := range typs {
			expected := p.refused
			for _, taken := range p.takes {
				if typ == taken {
					expected = passes
				}
			}
			if expected.passes() && p.name == "a proof at enrolment" {
				expected.status = http.StatusCreated
			}
			rows = append(rows, attack{row: "TS2", name: typ + " as " + p.name, want: expected,
				control: func(_ *testing.T, w *world) answer { return p.send(w, p.takes[0]) },
				send:    func(_ *testing.T, w *world) answer { return p.send(w, typ) }})
		}
	}
	run(t, w, rows)
}

// TestKindMatrix is TS2 and AT-RS-05 with what is really about: each JWT that the product
// makes or takes, as it is, at each place that takes another kind.
func TestKindMatrix(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kinds := map[string]func(w *world) string{
		"an assertion": func(w *world) string {
			j := counterfoiltest.ForgeAssertion(w.payroll.signer, "payroll", w.Issuer(), w.Clock.Now())
			return j.Compact(w.T)
		},
		"a proof for the token endpoint": func(w *world) string {
			j := counterfoiltest.ForgeProof(w.T, w.payroll.signer, http.MethodPost, w.Issuer()+"/oauth/token", w.Clock.Now())
			return j.Compact(w.T)
		},
		"a proof for the gateway": func(w *world) string {
			j := w.proofBy(w.payroll.signer)
			j.Claims["ath"] = credential.TokenHash(w.token(w.payroll))
			return j.Compact(w.T)
		},
		"an access token": func(w *world) string { return w.token(w.payroll) },
		"an ID token by the issuer": func(w *world) string {
			now := w.Clock.Now().Unix()
			j := jwt{Signer: w.issuerKey(), Header: map[string]any{"alg": "ES256", "typ": "JWT", "kid": w.issuerKey().Public().Thumbprint()},
				Claims: map[string]any{"iss": w.Issuer(), "sub": "payroll", "aud": w.BankURL(), "iat": now, "exp": now + 60, "jti": counterfoil.NewID("")}}
			return j.Compact(w.T)
		},
		"a logout token by the issuer": func(w *world) string {
			now := w.Clock.Now().Unix()
			j := jwt{Signer: w.issuerKey(), Header: map[string]any{"alg": "ES256", "typ": "logout+jwt", "kid": w.issuerKey().Public().Thumbprint()},
				Claims: map[string]any{"iss": w.Issuer(), "sub": "payroll", "aud": w.BankURL(), "iat": now, "exp": now + 60, "jti": counterfoil.NewID(""),
					"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}}
			return j.Compact(w.T)
		},
	}
	places := []struct {
		name, right string // right is the kind that belongs there
		refused     want
		control     func(*testing.T, *world) answer
		send        func(w *world, compact string) answer
	}{
		{"assertion", "an assertion", badClient(""), honestToken, func(w *world, compact string) answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("client_assertion", compact)
			return w.sendToken(q)
		}},
		{"proof at the token endpoint", "a proof for the token endpoint", badProof(""), honestToken, func(w *world, compact string) answer {
			q := w.tokenRequest(w.payroll)
			q.Proofs = []string{compact}
			return w.sendToken(q)
		}},
		{"token at the gateway", "an access token", badToken(counterfoil.TokenMalformed), honestCall, func(w *world, compact string) answer {
			q := w.call(w.payroll)
			q.token = compact
			return w.sendCall(q)
		}},
		{"proof at the gateway", "a proof for the gateway", unproven(""), honestCall, func(w *world, compact string) answer {
			q := w.call(w.payroll)
			q.proofs = []string{compact}
			return w.sendCall(q)
		}},
	}
	var rows []attack
	for _, p := range places {
		for name, kind := range kinds {
			a := attack{row: "TS2", name: name + " as " + p.name, control: p.control, want: passes,
				send: func(_ *testing.T, w *world) answer { return p.send(w, kind(w)) }}
			if name != p.right {
				a.want = p.refused
				if a.want.code == "" {
					a.want.code = codeOf(p.name, name)
				}
			}
			rows = append(rows, a)
		}
	}
	run(t, w, rows)
}

// codeOf is why a kind of JWT is refused at a place: for its type, or a proof for
// its target.
func codeOf(place, kind string) counterfoil.Code {
	switch {
	case place == "assertion":
		return counterfoil.AssertionMalformed
	case strings.HasPrefix(kind, "a proof"):
		return counterfoil.ProofTarget
	}
	return counterfoil.ProofMalformed
}

// TestTokenTimes is TS6, and AT-RS-02 of the times.
func TestTokenTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	expired, broken := badToken(counterfoil.TokenExpired), badToken(counterfoil.TokenMalformed)
	at := func(name string, d time.Duration) func(*world, *jwt) {
		return func(w *world, j *jwt) { j.Claims[name] = w.Clock.Now().Add(d).Unix() }
	}
	run(t, w, []attack{
		forged("TS6", "past by a second", expired, at("exp", -time.Second)),
		forged("TS6", "past just now", expired, at("exp", 0)),
		forged("TS6", "good for a second", passes, at("exp", time.Second)),
		forged("TS6", "not valid before 11 s", expired, at("nbf", 11*time.Second)),
		forged("TS6", "not valid before 8 s", passes, at("nbf", 8*time.Second)),
		forged("TS6", "issued in an hour", expired, at("iat", time.Hour)),
		forged("TS6", "exp as text", broken, func(w *world, j *jwt) { j.Claims["exp"] = fmt.Sprint(w.Clock.Now().Unix() + 60) }),
		forged("TS6", "exp null", broken, assertionClaim("exp", nil)),
		forged("TS6", "exp beyond time", broken, assertionClaim("exp", 1e300)),
		forged("TS6", "no exp", broken, withoutClaim("exp")),
		forged("TS6", "no nbf", broken, withoutClaim("nbf")),
		forged("TS6", "no iat", broken, withoutClaim("iat")),
		forged("TS6", "past, and of an unknown key", broken, func(w *world, j *jwt) {
			at("exp", -time.Second)(w, j)
			j.Signer = w.stranger
		}),
	})
}

// TestTokensOfOtherTasks is TS7 as far as there are tasks, and a token of one
// tool at another.
func TestTokensOfOtherTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := func(value any) func(*world, *jwt) { return assertionClaim("task", value) }
	until := func(w *world, d time.Duration) int64 { return w.Clock.Now().Add(d).Unix() }
	notGranted := want{status: 200, code: counterfoil.ToolNotGranted}
	run(t, w, []attack{
		forged("TS7", "a task past its deadline", badToken(counterfoil.TaskClosed), func(w *world, j *jwt) {
			j.Claims["task"] = map[string]any{"id": "tsk_1", "exp": until(w, -time.Second)}
		}),
		forged("TS7", "a task without an id", badToken(counterfoil.TokenMalformed), func(w *world, j *jwt) {
			j.Claims["task"] = map[string]any{"id": "", "exp": until(w, time.Minute)}
		}),
		forged("TS7", "a task that is null", badToken(counterfoil.TokenMalformed), task(nil)),
		forged("TS7", "a task that is a text", badToken(counterfoil.TokenMalformed), task("tsk_1")),
		{row: "TS7", name: "a token for one tool at another", want: notGranted,
			control: func(_ *testing.T, w *world) answer {
				q := w.callOf(w.auditor, "list_payees", "{}")
				return w.sendCall(q)
			},
			send: func(_ *testing.T, w *world) answer {
				q := w.callOf(w.auditor, "list_payees", "{}")
				j := counterfoiltest.ReadJWT(w.T, q.token)
				j.Claims["scope"], j.Signer = "get_balance", w.issuerKey()
				q.token = j.Compact(w.T)
				return w.sendCall(q)
			}},
		{row: "TS7", name: "a token for no tool", want: notGranted, send: func(_ *testing.T, w *world) answer {
			q, j := w.call(w.payroll), w.forgeToken()
			delete(j.Claims, "scope")
			q.token = j.Compact(w.T)
			return w.sendCall(q)
		}},
		{row: "TS7", name: "a token for a tool that the agent is not granted", want: notGranted, send: func(_ *testing.T, w *world) answer {
			q, j := w.callOf(w.payroll, "list_payees", "{}"), w.forgeToken()
			j.Claims["scope"] = "get_balance list_payees"
			q.token = j.Compact(w.T)
			return w.sendCall(q)
		}},
		atToken("TS7", "a scope that is not granted", want{status: 400, oauth: "invalid_scope", code: counterfoil.ScopeInvalid}, func(_ *world, q *tokenRequest) {
			q.Form.Set("scope", "list_payees")
		}),
		atToken("TL1", "a task that nobody opened", want{status: 400, oauth: "invalid_grant", code: counterfoil.TaskClosed}, func(_ *world, q *tokenRequest) {
			q.Form.Set("task", "tsk_1")
		}),
	})
}
