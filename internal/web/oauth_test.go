package web_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

// served makes bank-server the server of bank, and crm-server that of crm.
const served = `
kind: Agent
name: bank-server
owner: ana
environment: prod
---
kind: Agent
name: crm-server
owner: ana
environment: prod
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: http://127.0.0.1:1/mcp
servers: [bank-server]
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: read}
  - {name: pay, class: payout}
---
kind: Resource
name: crm
type: http
environment: prod
upstream: http://127.0.0.1:1
servers: [crm-server]
tools:
  - {name: get_customer, method: GET, path: "/customers/{id}", class: read}
`

// A clientAsk is a request of RFC 7662 or RFC 7009 before it is sent.
type clientAsk struct {
	path, accept, query, mediaType, authorization string
	form                                          url.Values
	assertion                                     counterfoiltest.JWT
}

// about asks about a token as an agent.
func (s *system) about(k agentKey, path, token string, edits ...func(*clientAsk)) answer {
	s.t.Helper()
	q := &clientAsk{
		path: path, mediaType: "application/x-www-form-urlencoded",
		form: url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "token": {token},
		},
		assertion: counterfoiltest.ForgeAssertion(k.signer, k.agent, s.issuer, s.clock.Now()),
	}
	for _, e := range edits {
		e(q)
	}
	if !q.form.Has("client_assertion") {
		q.form.Set("client_assertion", q.assertion.Compact(s.t))
	}
	r := httptest.NewRequest("POST", q.path+q.query, strings.NewReader(q.form.Encode()))
	r.Header.Set("Content-Type", q.mediaType)
	if q.accept != "" {
		r.Header.Set("Accept", q.accept)
	}
	if q.authorization != "" {
		r.Header.Set("Authorization", q.authorization)
	}
	return serve(s.handlers.Public, r)
}

func (s *system) introspect(k agentKey, token string, edits ...func(*clientAsk)) answer {
	s.t.Helper()
	return s.about(k, "/oauth/introspect", token, edits...)
}

func accepting(v string) func(*clientAsk) { return func(q *clientAsk) { q.accept = v } }

// said is what a signed introspection says, once it is checked (RFC 9701, Section 5).
func (s *system) said(k agentKey, a answer) string {
	s.t.Helper()
	if a.status != 200 || a.header.Get("Content-Type") != "application/token-introspection+jwt" {
		s.t.Fatalf("no signed introspection: %d %v %s", a.status, a.header, a.body)
	}
	j := counterfoiltest.ReadJWT(s.t, a.body)
	key, err := s.keys.Key(s.t.Context(), j.Header["kid"].(string))
	if err != nil {
		s.t.Fatal(err)
	}
	input, sig, _ := strings.Cut(reverse(a.body), ".")
	sig, input = reverse(input), reverse(sig)
	if err := key.Verify([]byte(input), unbase64(s.t, sig), j.Header["alg"].(string)); err != nil {
		s.t.Fatal(err)
	}
	if j.Header["typ"] != "token-introspection+jwt" || j.Claims["iss"] != s.issuer || j.Claims["aud"] != k.agent || j.Claims["iat"] == nil ||
		j.Claims["sub"] != nil || j.Claims["exp"] != nil {
		s.t.Errorf("it is %v %v", j.Header, j.Claims)
	}
	b, err := json.Marshal(j.Claims["token_introspection"])
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

const inactive = `{"active":false}`

func TestIntrospectionSaysWhatATokenIs(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(served)
	k, other, server, crm := s.enrol("payroll"), s.enrol("other"), s.enrol("bank-server"), s.enrol("crm-server")
	task := s.open(k, s.mine(k), `{"purpose":"pay"}`)
	issued := s.token(k, field("task", task))
	token := issued.member("access_token")
	before, _ := s.store.Head()
	claims := counterfoiltest.ReadJWT(t, token).Claims
	for name, who := range map[string]agentKey{"its agent": k, "its resource's server": server} {
		plain := s.introspect(who, token)
		if plain.status != 200 || plain.header.Get("Content-Type") != "application/json" || plain.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v %s", name, plain.status, plain.header, plain.body)
		}
		signed := s.said(who, s.introspect(who, token, accepting("application/token-introspection+jwt")))
		for how, body := range map[string]string{"JSON": plain.body, "a JWT": signed} {
			var got map[string]any
			d := json.NewDecoder(strings.NewReader(body))
			d.UseNumber()
			if err := d.Decode(&got); err != nil || got["active"] != true || got["token_type"] != "DPoP" || got["scope"] != issued.member("scope") {
				t.Errorf("%s, as %s: %s %v", name, how, body, err)
			}
			for _, member := range []string{"iss", "sub", "aud", "client_id", "iat", "nbf", "exp", "jti"} {
				if got[member] != claims[member] {
					t.Errorf("%s, as %s: %s is %v, the token's %v", name, how, member, got[member], claims[member])
				}
			}
			for member, want := range map[string]string{"cnf": "jkt", "agent": "instance", "task": "id"} {
				is, _ := got[member].(map[string]any)
				has, _ := claims[member].(map[string]any)
				if is[want] == nil || is[want] != has[want] {
					t.Errorf("%s, as %s: %s is %v, the token's %v", name, how, member, is, has)
				}
			}
		}
	}
	// To everybody else it is as a token that is none.
	nothing := s.introspect(other, "nothing")
	for name, who := range map[string]agentKey{"another agent": other, "another resource's server": crm} {
		a := s.introspect(who, token)
		if a.status != 200 || strings.TrimSpace(a.body) != inactive || a.body != nothing.body || a.header.Get("Content-Length") != nothing.header.Get("Content-Length") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if got := s.said(who, s.introspect(who, token, accepting("application/token-introspection+jwt"))); got != inactive {
			t.Errorf("%s, as a JWT: %s", name, got)
		}
	}
	entries := s.since(before, ledger.TokenIntrospected)
	active := 0
	for _, e := range entries {
		if e.Detail["active"] == true {
			active++
		}
	}
	if len(entries) != 9 || active != 4 {
		t.Errorf("%d entries, %d of them active", len(entries), active)
	}
	// After the end of its task it is not active to anybody.
	if a := s.with(k, s.mine(k), "POST", "/tasks/"+task+"/complete", ""); a.status != 200 {
		t.Fatal(a.body)
	}
	for _, who := range []agentKey{k, server} {
		if a := s.introspect(who, token); strings.TrimSpace(a.body) != inactive {
			t.Errorf("of a task that ended: %s", a.body)
		}
	}
}

func TestWhichAnswerIsAskedFor(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	token := s.token(k).member("access_token")
	const jwt, plain = "application/token-introspection+jwt", "application/json"
	for accept, want := range map[string]string{
		"": plain, "*/*": plain, "application/*": plain, "text/html": plain, plain: plain, jwt: jwt, strings.ToUpper(jwt): jwt,
		jwt + ", " + plain: jwt, plain + "," + jwt: jwt, jwt + ";q=0": plain, jwt + ";q=0.5, " + plain: plain,
		jwt + ";q=0.5, " + plain + ";q=0.4": jwt, jwt + ";q=x": plain, jwt + ";q=2": plain, jwt + ", */*": jwt,
	} {
		s.clock.Advance(time.Second)
		if a := s.introspect(k, token, accepting(accept)); a.status != 200 || a.header.Get("Content-Type") != want {
			t.Errorf("%q: %d %s, want %s", accept, a.status, a.header.Get("Content-Type"), want)
		}
	}
}

// everyJWT is one of each kind that is about, good in its own place, and some that are
// good nowhere.
func (s *system) everyJWT(k agentKey) map[string]string {
	s.t.Helper()
	token := s.token(k).member("access_token")
	proof := counterfoiltest.ForgeProof(s.t, k.signer, "POST", s.issuer+"/oauth/token", s.clock.Now())
	assertion := counterfoiltest.ForgeAssertion(k.signer, k.agent, s.issuer, s.clock.Now())
	introspection := s.introspect(k, token, accepting("application/token-introspection+jwt"))
	bent := func(edit func(*counterfoiltest.JWT)) string {
		j := counterfoiltest.ReadJWT(s.t, token)
		j.Signer = k.signer
		edit(j)
		return j.Compact(s.t)
	}
	foreign := testkit.Signer(s.t, "ES256")
	return map[string]string{
		"a proof": proof.Compact(s.t), "an assertion": assertion.Compact(s.t), "an introspection": introspection.body,
		"a token signed by its own agent": bent(func(*counterfoiltest.JWT) {}),
		"a token by a foreign key":        bent(func(j *counterfoiltest.JWT) { j.Signer = foreign }),
		"a token of no algorithm": bent(func(j *counterfoiltest.JWT) {
			j.Header["alg"], j.Sign = "none", func([]byte) []byte { return nil }
		}),
		"a security event":      bent(func(j *counterfoiltest.JWT) { j.Header["typ"] = "secevent+jwt" }),
		"a signature too many":  token + ".AAAA",
		"half a token":          token[:len(token)/2],
		"a token with a space":  token + " ",
		"its id":                counterfoiltest.ReadJWT(s.t, token).Claims["jti"].(string),
		"its key's thumbprint":  k.signer.Public().Thumbprint(),
		"its instance":          k.instance,
		"an enrolment code":     counterfoil.NewHandle(counterfoil.HandleCode).Reveal(),
		"nothing that there is": "nothing",
		"much":                  strings.Repeat("A", 20<<10),
	}
}

// TestOneKindOfJWTIsNotAnother: whatever is shown at introspection, revocation and as
// an access token that is not one is nothing there, and the honest one beside it is.
func TestOneKindOfJWTIsNotAnother(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	for name, jwt := range s.everyJWT(k) {
		s.clock.Advance(2 * time.Second)
		token := s.token(k).member("access_token")
		before, _ := s.store.Head()
		if a := s.introspect(k, jwt); a.status != 200 || strings.TrimSpace(a.body) != inactive {
			t.Errorf("introspecting %s: %d %s", name, a.status, a.body)
		}
		if a := s.about(k, "/oauth/revoke", jwt); a.status != 200 || a.body != "" {
			t.Errorf("revoking %s: %d %q", name, a.status, a.body)
		}
		if e := s.since(before, ledger.Revoked); len(e) != 0 {
			t.Errorf("revoking %s: %+v", name, e[0])
		}
		if !strings.ContainsAny(jwt, " ") && len(jwt) < 8<<10 {
			for _, path := range []string{"/tasks", "/oauth/revocations?after=-1"} {
				if a := s.with(k, jwt, "GET", path, ""); a.status != 401 && a.status != 413 {
					t.Errorf("%s at %s: %d %s", name, path, a.status, a.body)
				}
			}
		}
		if a := s.introspect(k, token); a.member("active") != "true" {
			t.Errorf("the honest token after %s: %s", name, a.body)
		}
	}
	// As assertion of the client: every other kind, and an assertion for elsewhere.
	token := s.token(k).member("access_token")
	for name, jwt := range s.everyJWT(k) {
		if name == "an assertion" {
			continue
		}
		s.clock.Advance(2 * time.Second)
		for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
			a := s.about(k, path, token, func(q *clientAsk) { q.form.Set("client_assertion", jwt) })
			if a.status/100 != 4 || a.member("error") == "" {
				t.Errorf("%s with %s as assertion: %d %s", path, name, a.status, a.body)
			}
		}
	}
	s.clock.Advance(time.Minute)
	if a := s.introspect(k, s.token(k).member("access_token")); a.member("active") != "true" {
		t.Errorf("in the end: %d %s", a.status, a.body)
	}
}

// TestAskingAboutATokenNeedsAClient: the checks of the token endpoint, at both places,
// each in the form of RFC 6749.
func TestAskingAboutATokenNeedsAClient(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			k, other := s.enrol("payroll"), s.enrol("other")
			token := s.token(k).member("access_token")
			claim := func(name string, v any) func(*clientAsk) {
				return func(q *clientAsk) { q.assertion.Claims[name] = v }
			}
			instead := func(authorization string) func(*clientAsk) {
				return func(q *clientAsk) {
					q.form.Del("client_assertion_type")
					q.form["client_assertion"] = nil
					q.authorization = authorization
				}
			}
			for name, c := range map[string]struct {
				edit      func(*clientAsk)
				status    int
				oauth     string
				code      counterfoil.Code
				challenge string
			}{
				"no assertion": {func(q *clientAsk) {
					q.form.Del("client_assertion_type")
					q.form["client_assertion"] = nil
				}, 401, "invalid_client", counterfoil.ClientRefused, ""},
				"another agent's key":        {func(q *clientAsk) { q.assertion.Signer = other.signer }, 401, "invalid_client", counterfoil.ClientRefused, ""},
				"an agent that is not there": {func(q *clientAsk) { q.assertion.Claims["iss"], q.assertion.Claims["sub"] = "nobody", "nobody" }, 401, "invalid_client", counterfoil.ClientRefused, ""},
				"for the endpoint":           {claim("aud", s.issuer+path), 401, "invalid_client", counterfoil.AssertionAudience, ""},
				"past": {func(q *clientAsk) {
					q.assertion.Claims["iat"], q.assertion.Claims["exp"] = s.clock.Now().Unix()-100, s.clock.Now().Unix()-60
				}, 401, "invalid_client", counterfoil.AssertionExpired, ""},
				"a secret beside it":     {func(q *clientAsk) { q.form.Set("client_secret", "x") }, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"Basic beside it":        {func(q *clientAsk) { q.authorization = "Basic cGF5cm9sbDp4" }, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"a bearer token instead": {instead("Bearer " + token), 401, "invalid_client", counterfoil.ClientRefused, `Bearer realm="counterfoil"`},
				"Basic instead":          {instead("basic cGF5cm9sbDp4"), 401, "invalid_client", counterfoil.ClientRefused, `Basic realm="counterfoil"`},
				"DPoP instead":           {instead("DPoP " + token), 401, "invalid_client", counterfoil.ClientRefused, `DPoP realm="counterfoil"`},
				"another way instead":    {instead(`Evil"\r\n x`), 401, "invalid_client", counterfoil.ClientRefused, `Basic realm="counterfoil"`},
				"a secret and Basic": {func(q *clientAsk) {
					instead("Basic cGF5cm9sbDp4")(q)
					q.form.Set("client_secret", "x")
				}, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"no token":            {func(q *clientAsk) { q.form.Del("token") }, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"two tokens":          {func(q *clientAsk) { q.form.Add("token", token) }, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"two hints":           {func(q *clientAsk) { q.form["token_type_hint"] = []string{"a", "b"} }, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"a query":             {func(q *clientAsk) { q.query = "?token=" + token }, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"JSON":                {func(q *clientAsk) { q.mediaType = "application/json" }, 400, "invalid_request", counterfoil.RequestMalformed, ""},
				"a form too large":    {func(q *clientAsk) { q.form.Set("x", strings.Repeat("x", 70<<10)) }, 413, "invalid_request", counterfoil.PayloadTooLarge, ""},
				"another client's id": {func(q *clientAsk) { q.form.Set("client_id", "other") }, 401, "invalid_client", "", ""},
			} {
				s.clock.Advance(2 * time.Second)
				a := s.about(k, path, token, func(q *clientAsk) {
					q.assertion = counterfoiltest.ForgeAssertion(k.signer, k.agent, s.issuer, s.clock.Now())
					c.edit(q)
				})
				if a.status != c.status || a.member("error") != c.oauth || c.code != "" && a.member("code") != string(c.code) || a.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: %d %s, want %d %s %s", name, a.status, a.body, c.status, c.oauth, c.code)
				}
				if got := a.header.Get("WWW-Authenticate"); got != c.challenge {
					t.Errorf("%s: the challenge is %q", name, got)
				}
				if strings.Contains(a.body, token[20:40]) {
					t.Errorf("%s: the answer has the token", name)
				}
			}
			// An unknown hint is no reason not to find it, and a used assertion is used.
			used := counterfoiltest.ForgeAssertion(k.signer, k.agent, s.issuer, s.clock.Now())
			once := used.Compact(t)
			same := func(q *clientAsk) {
				q.form.Set("client_assertion", once)
				q.form.Set("token_type_hint", "refresh_token")
			}
			if a := s.about(k, path, token, same); a.status != 200 {
				t.Errorf("the honest request: %d %s", a.status, a.body)
			}
			wantStatus(t, s.about(k, path, token, same), 401, "invalid_client", counterfoil.AssertionReplayed)
			wantStatus(t, s.token(k, func(q *request) { q.Form.Set("client_assertion", once) }), 401, "invalid_client", counterfoil.AssertionReplayed)
			a := serve(s.handlers.Public, httptest.NewRequest("GET", path, nil))
			if a.status != 405 || a.header.Get("Allow") != "POST" {
				t.Errorf("GET: %d %s", a.status, a.body)
			}
			// Who is suspended learns nothing.
			if a := s.admin("POST", "/api/v1/agents/payroll/suspend", map[string]any{"reason": "test"}); a.status != 200 {
				t.Fatal(a.body)
			}
			s.clock.Advance(2 * time.Second)
			wantStatus(t, s.about(k, path, token), 401, "invalid_client", counterfoil.AgentSuspended)
		})
	}
}

// TestAnAgentRevokesItsOwnTokenAlone: RFC 7009, RV5.
func TestAnAgentRevokesItsOwnTokenAlone(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(served)
	k, other, server := s.enrol("payroll"), s.enrol("other"), s.enrol("bank-server")
	first, second := s.token(k).member("access_token"), s.token(k).member("access_token")
	for name, who := range map[string]agentKey{"another agent": other, "its resource's server": server} {
		if a := s.about(who, "/oauth/revoke", first); a.status != 200 || a.body != "" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if _, err := s.verify(k, first, "bank"); err != nil {
			t.Errorf("%s revoked it: %v", name, err)
		}
	}
	a := s.about(k, "/oauth/revoke", first)
	if a.status != 200 || a.body != "" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, err := s.verify(k, first, "bank"); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
		t.Errorf("the revoked token: %v", err)
	}
	if _, err := s.verify(k, second, "bank"); err != nil {
		t.Errorf("another token of the same agent: %v", err)
	}
	if a := s.about(k, "/oauth/revoke", first); a.status != 200 {
		t.Errorf("once more: %d %s", a.status, a.body)
	}
	if a := s.introspect(server, first); strings.TrimSpace(a.body) != inactive {
		t.Errorf("to the server: %s", a.body)
	}
	if a := s.introspect(server, second); a.member("active") != "true" {
		t.Errorf("the other token, to the server: %s", a.body)
	}
	// After a restart too.
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	if _, err := s.verify(k, first, "bank"); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := s.verify(k, second, "bank"); err != nil {
		t.Errorf("the other after a restart: %v", err)
	}
}

// leak reports something as leaked, as anybody may.
func (s *system) leak(mediaType, body string) answer {
	s.t.Helper()
	r := httptest.NewRequest("POST", "/oauth/leaked", strings.NewReader(body))
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	return serve(s.handlers.Public, r)
}

// TestALeakIsRevokedAndNobodyLearnsWhat: what proves itself is revoked, by whatever
// form it came; everything has one answer.
func TestALeakIsRevokedAndNobodyLearnsWhat(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	type leaked struct{ mediaType, body string }
	forms := func(what string) []leaked {
		quoted, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		return []leaked{
			{"text/plain; charset=utf-8", "found on a wiki:\n\n" + what + "\nin the history"}, {"", what}, {"application/octet-stream", what},
			{"application/json", `{"reports":[{"what":"key","found":` + string(quoted) + `}]}`},
			{"application/x-www-form-urlencoded", url.Values{"token": {what}}.Encode()},
		}
	}
	var seen []answer
	report := func(l leaked) {
		t.Helper()
		s.clock.Advance(time.Minute)
		a := s.leak(l.mediaType, l.body)
		if a.status != 202 || a.body != "" {
			t.Errorf("%.60q: %d %s", l.body, a.status, a.body)
		}
		a.header.Del("X-Request-Id")
		seen = append(seen, a)
	}
	for i := range 5 {
		s.clock.Advance(time.Minute)
		token, kept := s.token(k).member("access_token"), s.token(k).member("access_token")
		report(forms(token)[i])
		if _, err := s.verify(k, token, "bank"); err == nil {
			t.Errorf("form %d: the leaked token is taken", i)
		}
		if _, err := s.verify(k, kept, "bank"); err != nil && counterfoil.CodeOf(err) != counterfoil.TokenExpired {
			t.Errorf("form %d: another token: %v", i, err)
		}
		// An enrolment code.
		code := s.code("other")
		report(forms(code)[i])
		if a := s.enrolWith(testkit.Signer(t, "ES256"), "other", code); a.status != 400 {
			t.Errorf("form %d: the leaked code: %d %s", i, a.status, a.body)
		}
		// A private key, as PEM.
		private, err := credential.GenerateKey("ES256")
		if err != nil {
			t.Fatal(err)
		}
		signer, err := credential.NewSigner(private)
		if err != nil {
			t.Fatal(err)
		}
		if a := s.enrolWith(signer, "other", s.code("other")); a.status != 201 {
			t.Fatal(a.body)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		own := agentKey{"other", "", signer}
		if a := s.token(own); a.status != 200 {
			t.Fatal(a.body)
		}
		report(forms(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))[i])
		wantStatus(t, s.token(own), 401, "invalid_client", counterfoil.ClientRefused)
	}
	// What proves nothing does nothing.
	s.clock.Advance(time.Minute)
	before, _ := s.store.Head()
	for name, what := range s.everyJWT(k) {
		if name == "a token with a space" || name == "a signature too many" {
			continue // a whole token is in them
		}
		report(leaked{"text/plain", what})
	}
	public, _ := json.Marshal(counterfoiltest.PublicJWK(t, k.signer))
	for _, l := range []leaked{
		{"application/json", string(public)}, {"application/json", "{"}, {"application/json", `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`},
		{"application/x-www-form-urlencoded", "%zz"}, {"text/html", "<script>"}, {"a/b/c", "\xff\x00"}, {"", ""}, {"multipart/form-data", "--x"},
		{"application/json", `{"jkt":"` + k.signer.Public().Thumbprint() + `"}`}, {"application/json", "null"},
	} {
		report(l)
	}
	if e := s.since(before, ledger.Revoked); len(e) != 0 {
		t.Errorf("something that proves nothing revoked: %+v", e[0])
	}
	if a := s.token(k); a.status != 200 {
		t.Errorf("the agent afterwards: %d %s", a.status, a.body)
	}
	for _, a := range seen[1:] {
		if a.status != seen[0].status || len(a.header) != len(seen[0].header) || !slices.Equal(a.header["Cache-Control"], seen[0].header["Cache-Control"]) {
			t.Errorf("two answers differ: %v and %v", seen[0].header, a.header)
		}
	}
	// Its size and its rate are the exceptions.
	wantStatus(t, s.leak("text/plain", strings.Repeat("x", authority.MaxLeak+1)), 413, "invalid_request", counterfoil.PayloadTooLarge)
	limited := false
	for range 200 {
		limited = limited || s.leak("text/plain", "x").status == 429
		if limited {
			break
		}
	}
	if !limited {
		t.Error("anyone may report as much as they like")
	}
}
