package attacks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

// Bearer credentials on the way to bound tokens: LD1 to LD7.

// oldManifest is the bank once more in one mode of the ladder, before whom nobody had a
// key; %[1]s is the mode, %[2]s the bank's URL, %[3]s what it takes.
const oldManifest = `kind: Resource
name: old-%[1]s
type: mcp
environment: prod
upstream: %[2]s
binding: %[1]s
bearers: [%[3]s]
tools:
  - {name: get_balance, class: read}
  - {name: pay, class: refund, fields: {amount: /amount, currency: /currency, to: /to}}
---
`

const oldAgents = `kind: Agent
name: legacy
owner: ana
environment: prod
grants:
  - tools: ["old-observe/*", "old-prefer/*", "old-require/*"]
---
kind: Agent
name: nightly
owner: ana
environment: prod
grants:
  - tools: ["old-observe/*", "old-prefer/*", "old-require/*"]
---
kind: Agent
name: partner
owner: ana
environment: prod
grants:
  - tools: ["old-observe/*"]
`

const (
	oldKey     = "legacy-key-0123456789abcdef"
	nightlyKey = "nightly-key-0123456789abcdef"
	idpA, idpB = "https://idp.example", "https://partner.example"
)

var oldModes = []string{counterfoil.BindingObserve, counterfoil.BindingPrefer, counterfoil.BindingRequire}

// An oldWorld is a world in which each mode still has callers without a key.
type oldWorld struct {
	*world
	idp, partner *testkit.OutsideIssuer // both have a key that they call k1
	legacy       *actor
	declared     map[string]string // by mode: a bound token of legacy's that the manifest declares as a key
	tokens       map[string]string // by mode, as fresh as the time below says
	got          map[string]time.Time
}

func newOldWorld(t *testing.T) *oldWorld {
	t.Helper()
	w := &oldWorld{
		world: newWorld(t), idp: testkit.NewOutsideIssuer(t, "k1"), partner: testkit.NewOutsideIssuer(t, "k1"),
		declared: map[string]string{}, tokens: map[string]string{}, got: map[string]time.Time{},
	}
	w.Apply(w.olds() + oldAgents)
	w.legacy = w.actor("legacy")
	for _, mode := range oldModes {
		w.declared[mode] = w.tokenFor(w.legacy, w.old(mode))
	}
	w.Apply(w.olds() + oldAgents)
	return w
}

// olds are the manifests of the resources, with what they take now.
func (w *oldWorld) olds() string {
	var all strings.Builder
	for _, mode := range oldModes {
		bearers := []string{
			fmt.Sprintf("{agent: legacy, key: %q}", digestOf(oldKey)),
			fmt.Sprintf("{agent: nightly, issuer: %q, subject: job, audience: crm, keys: [%s]}", idpA, w.idp.JWK()),
		}
		if mode == counterfoil.BindingObserve {
			bearers = append(bearers, fmt.Sprintf("{agent: nightly, key: %q}", digestOf(nightlyKey)),
				fmt.Sprintf("{agent: partner, issuer: %q, subject: job, audience: crm, keys: [%s]}", idpB, w.partner.JWK()))
		}
		if token := w.declared[mode]; token != "" {
			bearers = append(bearers, fmt.Sprintf("{agent: legacy, key: %q}", digestOf(token)))
		}
		fmt.Fprintf(&all, oldManifest, mode, w.BankUpstream(), strings.Join(bearers, ", "))
	}
	return all.String()
}

func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func (w *oldWorld) old(mode string) string {
	return w.Issuer() + counterfoil.ResourcePath + "old-" + mode
}

// bearer makes a call of get_balance with something that whoever has it may use.
func (w *oldWorld) bearer(mode, token string) *call {
	w.T.Helper()
	return w.bearerOf(mode, token, "get_balance", honestArguments)
}

func (w *oldWorld) bearerOf(mode, token, tool, arguments string) *call {
	w.T.Helper()
	q := w.callOf(w.payroll, tool, arguments)
	q.url, q.scheme, q.token, q.proofs = w.old(mode), "Bearer", token, []string{}
	return q
}

// bound makes an honest call of legacy's with a token and its proof.
func (w *oldWorld) bound(mode string) *call {
	w.T.Helper()
	if now := w.Clock.Now(); now.Sub(w.got[mode]) > 2*time.Minute {
		w.tokens[mode], w.got[mode] = w.tokenFor(w.legacy, w.old(mode)), now
	}
	return w.callWith(w.legacy, w.tokens[mode], w.old(mode))
}

// claims are those of an honest token of the outside issuer.
func (w *oldWorld) claims(edit func(map[string]any)) map[string]any {
	now := w.Clock.Now().Unix()
	c := map[string]any{"iss": idpA, "sub": "job", "aud": "crm", "jti": counterfoil.NewID(""), "iat": now, "exp": now + 300}
	if edit != nil {
		edit(c)
	}
	return c
}

// sent is an attack whose control is a call that its resource takes.
func (w *oldWorld) sent(row, name string, want want, control, bent func() *call) attack {
	return attack{
		row: row, name: name, want: want,
		control: func(*testing.T, *world) answer { return w.sendCall(control()) },
		send:    func(*testing.T, *world) answer { return w.sendCall(bent()) },
	}
}

// TestBoundTokensAreNeverBearer is LD1: in no mode is a bound token good without its
// proof, not even where an operator has declared it.
func TestBoundTokensAreNeverBearer(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t)
	refused := badToken(counterfoil.BearerRefused)
	var rows []attack
	for _, mode := range oldModes {
		bound := func() *call { return w.bound(mode) }
		declared := func() *call { return w.callWith(w.legacy, w.declared[mode], w.old(mode)) }
		bend := func(from func() *call, edit func(q *call)) func() *call {
			return func() *call { q := from(); edit(q); return q }
		}
		bare := func(q *call) { q.scheme, q.proofs = "Bearer", []string{} }
		rows = append(rows,
			w.sent("LD1", mode+": a declared one", refused, declared, bend(declared, bare)),
			w.sent("LD1", mode+": a declared one with its proof", refused, declared, bend(declared, func(q *call) { q.scheme = "Bearer" })),
			w.sent("LD1", mode+": without a proof", refused, bound, bend(bound, bare)),
			w.sent("LD1", mode+": with its proof", refused, bound, bend(bound, func(q *call) { q.scheme = "bearer" })),
			w.sent("LD1", mode+": with a proof of the thief's", refused, bound, bend(bound, func(q *call) { q.scheme, q.proof.Signer = "Bearer", w.stranger })),
			w.sent("LD1", mode+": with an empty DPoP header", refused, bound, bend(bound, func(q *call) { q.scheme, q.proofs = "Bearer", []string{""} })),
			w.sent("LD1", mode+": another resource's", refused, bound, bend(bound, func(q *call) { bare(q); q.token = w.token(w.payroll) })),
			w.sent("LD1", mode+": padded", refused, bound, bend(bound, func(q *call) { bare(q); q.token += "=" })),
		)
	}
	run(t, w.world, rows)
}

// TestUndeclaredBearers is LD2: what a resource does not declare opens nothing, and what
// it declares is read in one way.
func TestUndeclaredBearers(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t)
	refused, broken := badToken(counterfoil.BearerRefused), want{status: 400, code: counterfoil.RequestMalformed}
	var rows []attack
	for _, mode := range []string{counterfoil.BindingObserve, counterfoil.BindingPrefer} {
		honest := func() *call { return w.bearer(mode, oldKey) }
		row := func(name string, want want, edit func(q *call)) {
			rows = append(rows, w.sent("LD2", mode+": "+name, want, honest, func() *call { q := honest(); edit(q); return q }))
		}
		token := func(text string) func(*call) { return func(q *call) { q.token = text } }
		values := func(all ...string) func(*call) {
			return func(q *call) { q.scheme, q.token, q.header["Authorization"] = "", "", all }
		}
		row("nobody's key", refused, token("nobody-s-key-0123456789abcdef"))
		row("in another case", refused, token(strings.ToUpper(oldKey)))
		row("a byte more", refused, token(oldKey+"a"))
		row("a byte less", refused, token(oldKey[:len(oldKey)-1]))
		row("padded", refused, token(oldKey+"="))
		row("its digest", refused, token(strings.TrimPrefix(digestOf(oldKey), "sha-256:")))
		row("nothing", broken, token(""))
		row("a proof beside it", refused, func(q *call) { q.proofs = nil })
		row("an empty proof beside it", refused, func(q *call) { q.proofs = []string{""} })
		row("as a bound token", badToken(counterfoil.TokenMalformed), func(q *call) { q.scheme, q.proofs = "DPoP", nil })
		row("twice", broken, values("Bearer "+oldKey, "Bearer "+oldKey))
		row("beside another", broken, values("Bearer "+oldKey, "Bearer x"))
		row("two in one", broken, values("Bearer "+oldKey+", Bearer "+oldKey))
		row("with a word behind it", broken, values("Bearer "+oldKey+" x"))
		row("with a parameter behind it", broken, values("Bearer "+oldKey+";a=b"))
		row("in quotes", broken, values(`Bearer "`+oldKey+`"`))
		row("after a tab", want{status: 401, code: counterfoil.ProofMissing}, values("Bearer\t"+oldKey))
		row("without a scheme", want{status: 401, code: counterfoil.ProofMissing}, values(oldKey))
		row("as a password", want{status: 401, code: counterfoil.ProofMissing}, values("Basic "+base64.StdEncoding.EncodeToString([]byte("legacy:"+oldKey))))
		row("in the query", broken, func(q *call) { values()(q); q.url += "?access_token=" + oldKey })
		row("in a header of APIs", want{status: 401, code: counterfoil.ProofMissing}, func(q *call) { values()(q); q.header["X-Api-Key"] = []string{oldKey} })
		row("the scheme in another case", passes, func(q *call) { q.scheme = "bEARER" })
		row("more spaces", passes, func(q *call) { q.scheme = "Bearer  " })
	}
	run(t, w.world, append(rows,
		w.sent("LD2", "another resource's key", refused, func() *call { return w.bearer("observe", nightlyKey) }, func() *call { return w.bearer("prefer", nightlyKey) }),
		w.sent("LD2", "a declared key where bound tokens are required", refused, func() *call { return w.bound("require") }, func() *call { return w.bearer("require", oldKey) }),
	))
	for _, h := range w.UpstreamHeaders() {
		if text := fmt.Sprint(h); strings.Contains(text, oldKey) || strings.Contains(text, nightlyKey) || len(h["Authorization"]) > 0 {
			t.Errorf("the bank saw %v", h)
		}
	}
	for _, where := range []string{w.Log.String(), string(w.Export())} {
		if strings.Contains(where, oldKey) || strings.Contains(where, nightlyKey) {
			t.Error("a key is in the log or in the ledger")
		}
	}
}

// TestBearersAboveRoutine is LD3: in prefer whoever has no key calls routine classes alone;
// in observe people are asked, as of everybody.
func TestBearersAboveRoutine(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t)
	const refund = `{"amount":10,"currency":"EUR","to":"acme"}`
	asks := func(q *call) answer { w.T.Helper(); return w.sendCall(q) }
	boundPay := func(mode string) *call {
		q := w.bound(mode)
		other := w.callOf(w.payroll, "pay", refund)
		q.body, q.header = other.body, other.header
		return q
	}
	for _, mode := range oldModes {
		for name, token := range map[string]func() string{
			"a static key": func() string { return oldKey }, "an outside issuer's token": func() string { return w.idp.Token(w.claims(nil)) },
		} {
			t.Run("LD3 "+mode+": "+name, func(t *testing.T) {
				defer w.in(t)()
				w.Clock.Advance(time.Second)
				if got := asks(boundPay(mode)); got.code != counterfoil.ApprovalRequired && got.code != counterfoil.ApprovalPending {
					t.Fatalf("a bound call: %s", got)
				}
				from, calls := w.size(), w.Reached()
				got := asks(w.bearerOf(mode, token(), "pay", refund))
				if mode == counterfoil.BindingObserve {
					if got.code != counterfoil.ApprovalRequired && got.code != counterfoil.ApprovalPending {
						t.Errorf("observe: %s", got)
					}
				} else {
					badToken(counterfoil.BearerRefused).check(t, got)
				}
				w.wantEffects(want{status: 401, code: counterfoil.BearerRefused}, from, calls)
				for _, e := range w.since(from) {
					if mode != counterfoil.BindingObserve && e.Kind == ledger.ApprovalRequested {
						t.Errorf("people are asked: %+v", e)
					}
				}
			})
		}
	}
	w.CheckLedger()
}

// TestRequireFrom is LD4: the day that a manifest names comes by itself, for each
// credential, and a restart changes nothing about it.
func TestRequireFrom(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t)
	day := w.Clock.Now().Add(time.Hour)
	w.Apply(strings.ReplaceAll(w.olds(), "binding: observe\n", "binding: observe\nrequire_from: "+day.Format(time.RFC3339)+"\n") + oldAgents)
	calls := map[string]func() *call{
		"a static key":              func() *call { return w.bearer("observe", oldKey) },
		"an outside issuer's token": func() *call { return w.bearer("observe", w.idp.Token(w.claims(nil))) },
	}
	for _, step := range []struct {
		name   string
		before time.Duration // of the day
		taken  bool
	}{{"an hour before", time.Hour, true}, {"a second before", time.Second, true}, {"then", 0, false}, {"a day later", -24 * time.Hour, false}} {
		w.Clock.Advance(day.Sub(w.Clock.Now()) - step.before)
		for range 2 {
			w.renew()
			for name, honest := range calls {
				from, reached := w.size(), w.Reached()
				got, want := w.sendCall(honest()), badToken(counterfoil.BearerRefused)
				if step.taken {
					want = passes
				}
				t.Run("LD4 "+step.name+": "+name, func(t *testing.T) {
					defer w.in(t)()
					want.check(t, got)
					w.wantEffects(want, from, reached)
				})
			}
			w.Clock.Advance(time.Millisecond)
			if got := w.sendCall(w.bound("observe")); !got.passed() {
				t.Errorf("LD4 %s: a bound call: %s", step.name, got)
			}
			if got := w.sendCall(w.bearer("prefer", oldKey)); !got.passed() {
				t.Errorf("LD4 %s: where no day is named: %s", step.name, got)
			}
			if step.taken {
				break // the second time would be another moment
			}
			w.Restart()
		}
	}
	w.CheckLedger()
}

// TestForgedBearers is LD5, and WI4 for these issuers: a token of an outside issuer says who made it, for whom and for
// how long, and is believed where a key of that issuer says so.
func TestForgedBearers(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t)
	header := func(edit map[string]any) map[string]any {
		h := map[string]any{"alg": "ES256", "typ": "JWT", "kid": "k1"}
		maps.Copy(h, edit)
		return h
	}
	set := func(name string, value any) func() string {
		return func() string {
			return w.idp.Token(w.claims(func(c map[string]any) {
				if c[name] = value; value == nil {
					delete(c, name)
				}
			}))
		}
	}
	typed := func(name string, value any) func() string {
		return func() string { return w.idp.Sign(header(map[string]any{name: value}), w.claims(nil)) }
	}
	parts := func() []string { return strings.Split(w.idp.Token(w.claims(nil)), ".") }
	b64 := base64.RawURLEncoding.EncodeToString
	thief := testkit.NewOutsideIssuer(t, "k1")
	refused, broken, audience := badToken(counterfoil.BearerRefused), badToken(counterfoil.TokenMalformed), badToken(counterfoil.TokenAudience)
	expired := badToken(counterfoil.TokenExpired)
	var rows []attack
	for _, c := range []struct {
		name  string
		token func() string
		want  want
	}{
		{"by the key of another issuer that has its kid", func() string { return w.partner.Token(w.claims(nil)) }, broken},
		{"by this issuer's key for the other", func() string { return w.idp.Token(w.claims(func(c map[string]any) { c["iss"] = idpB })) }, broken},
		{"the other issuer's", func() string { return w.partner.Token(w.claims(func(c map[string]any) { c["iss"] = idpB })) }, passes},
		{"by a thief's key that has its kid", func() string { return thief.Token(w.claims(nil)) }, broken},
		{"by a thief's key, which comes along", func() string {
			return thief.Sign(header(map[string]any{"jwk": map[string]any{"kty": "EC"}, "jku": w.trap + "/keys", "x5u": w.trap + "/x5u"}), w.claims(nil))
		}, broken},
		{"alg none", func() string { return b64([]byte(`{"alg":"none"}`)) + "." + parts()[1] + "." }, broken},
		{"alg none with the signature", func() string { p := parts(); return b64([]byte(`{"alg":"none"}`)) + "." + p[1] + "." + p[2] }, broken},
		{"no signature", func() string { p := parts(); return p[0] + "." + p[1] + "." }, broken},
		{"HS256 by the public key", func() string {
			input := b64([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + parts()[1]
			m := hmac.New(sha256.New, []byte(w.idp.JWK()))
			m.Write([]byte(input))
			return input + "." + b64(m.Sum(nil))
		}, broken},
		{"an algorithm of another curve", typed("alg", "ES384"), broken},
		{"another key's id", typed("kid", "k2"), broken},
		{"a proof's type", typed("typ", "dpop+jwt"), broken},
		{"an assertion's type", typed("typ", "client-authentication+jwt"), broken},
		{"an event's type", typed("typ", "secevent+jwt"), broken},
		{"a logout token's type", typed("typ", "logout+jwt"), broken},
		{"a part that has to be understood", typed("crit", []string{"x"}), broken},
		{"an access token's type", typed("typ", "at+jwt"), passes},
		{"another subject", set("sub", "admin"), refused},
		{"another issuer", set("iss", "https://evil.example"), refused},
		{"our issuer", set("iss", w.Issuer()), refused},
		{"another audience", set("aud", "hr"), audience},
		{"two audiences", set("aud", []string{"crm", "hr"}), audience},
		{"no audience", set("aud", nil), audience},
		{"bound to a key", set("cnf", map[string]any{"jkt": "x"}), refused},
		{"bound to nothing", func() string { return w.idp.Token(w.claims(func(c map[string]any) { c["cnf"] = nil })) }, refused},
		{"a claim twice", func() string {
			now := w.Clock.Now().Unix()
			return w.idp.SignText(`{"alg":"ES256","kid":"k1"}`, fmt.Sprintf(`{"iss":%q,"sub":"job","aud":"hr","aud":"crm","iat":%d,"exp":%d}`, idpA, now, now+300))
		}, refused},
		{"past", func() string {
			return w.idp.Token(w.claims(func(c map[string]any) { c["exp"] = w.Clock.Now().Unix() }))
		}, expired},
		{"without an end", set("exp", nil), broken},
		{"not yet", func() string {
			return w.idp.Token(w.claims(func(c map[string]any) { c["nbf"] = w.Clock.Now().Unix() + 60 }))
		}, expired},
		{"an ID token", set("nonce", "n"), broken},
	} {
		rows = append(rows, w.sent("LD5", c.name, c.want,
			func() *call { return w.bearer("observe", w.idp.Token(w.claims(nil))) }, func() *call { return w.bearer("observe", c.token()) }))
	}
	run(t, w.world, rows)
	for _, e := range w.since(0) { // whose key it was is who called
		whose := map[string]string{"nightly": idpA + " job", "partner": idpB + " job"}[e.Agent]
		if e.Kind == ledger.CallDecided && e.Detail["bearer"] != whose {
			t.Errorf("entry %d of %s: %v", e.Index, e.Agent, e.Detail)
		}
	}
}

// TestBearersThatEnd is LD6: a suspended agent's credentials open nothing, nor do those
// that are not declared any more, from the next call on.
func TestBearersThatEnd(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t)
	try := func(what, token string, want want) {
		t.Helper()
		w.Clock.Advance(time.Second)
		w.renew()
		from, reached := w.size(), w.Reached()
		want.check(t, w.sendCall(w.bearer("observe", token)))
		w.wantEffects(want, from, reached)
		if t.Failed() {
			t.Fatalf("LD6 %s", what)
		}
	}
	jwt := func() string { return w.idp.Token(w.claims(nil)) }
	suspended, refused := badToken(counterfoil.AgentSuspended), badToken(counterfoil.BearerRefused)
	try("control", oldKey, passes)
	w.Suspend("nightly")
	try("a suspended agent's key", nightlyKey, suspended)
	try("a suspended agent's token", jwt(), suspended)
	try("another agent's key", oldKey, passes)
	w.Restart()
	try("after a restart", nightlyKey, suspended)
	w.Resume("nightly")
	try("a resumed agent's key", nightlyKey, passes)
	try("a resumed agent's token", jwt(), passes)
	without := strings.ReplaceAll(w.olds(), fmt.Sprintf("{agent: legacy, key: %q}, ", digestOf(oldKey)), "")
	w.Apply(without + oldAgents)
	try("a key that is not declared any more", oldKey, refused)
	try("one that still is", nightlyKey, passes)
	w.Offboard("nightly")
	try("an agent's that is gone", jwt(), badToken(counterfoil.TokenRevoked))
	w.CheckLedger()
}

// TestBearersElsewhere is LD7, and AZ1 for such credentials: what one resource takes is
// nobody's at another, and at the issuer's own pages.
func TestBearersElsewhere(t *testing.T) {
	t.Parallel()
	w := newOldWorld(t)
	for _, token := range []string{oldKey, w.idp.Token(w.claims(nil))} {
		if got := w.sendCall(w.bearer("observe", token)); !got.passed() {
			t.Fatalf("the control: %s", got)
		}
		from, reached := w.size(), w.Reached()
		for _, c := range []struct{ method, path, body string }{
			{http.MethodPost, "/r/bank", counterfoiltest.Body("get_balance", honestArguments)},
			{http.MethodPost, "/r/old-require", counterfoiltest.Body("get_balance", honestArguments)},
			{http.MethodPost, counterfoil.TasksPath, plainTask},
			{http.MethodGet, counterfoil.FeedPath + "?after=-1", ""},
			{http.MethodPost, "/access/v1/evaluation", `{"subject":{"type":"agent","id":"legacy"},"action":{"name":"call"},"resource":{"type":"tool","id":"bank/get_balance"}}`},
			{http.MethodPost, "/access/v1/requests", `{"request_context":"x"}`},
		} {
			q := w.bearer("observe", token)
			q.method, q.url, q.body = c.method, w.Issuer()+c.path, c.body
			if got := w.sendCall(q); got.status != http.StatusUnauthorized || !slices.Contains(got.challenges(), "invalid_token") {
				t.Errorf("LD7 %s %s: %s", c.method, c.path, got)
			}
		}
		w.wantEffects(badToken(counterfoil.BearerRefused), from, reached)
	}
	w.CheckLedger()
}
