package authority_test

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

// An endpoint is one at which a client authenticates with an assertion.
type endpoint struct {
	name string
	send func(f url.Values, authorization ...string) error
}

// endpoints are those, asked for what payroll may have: a token of the bank, and one
// of its tokens introspected or revoked. Each authenticates alike.
func (w *world) endpoints() []endpoint {
	w.t.Helper()
	about := func(f url.Values) url.Values {
		f = maps1(f)
		f.Set("token", w.mustAsk("payroll", "bank", nil).AccessToken)
		return f
	}
	return []endpoint{
		{"token", func(f url.Values, authorization ...string) error {
			f = maps1(f)
			f.Set("grant_type", authority.GrantClientCredentials)
			f.Set("resource", issuer+"/r/bank")
			_, err := w.a.Issue(w.t.Context(), authority.TokenRequest{
				Form: f, Authorization: authorization, Source: somewhere, Proof: []string{w.proof(w.keys["payroll"], "/oauth/token", "")},
			})
			return err
		}},
		{"introspect", func(f url.Values, authorization ...string) error {
			_, err := w.a.Introspect(w.t.Context(), authority.ClientRequest{Form: about(f), Authorization: authorization, Source: somewhere})
			return err
		}},
		{"revoke", func(f url.Values, authorization ...string) error {
			return w.a.RevokeToken(w.t.Context(), authority.ClientRequest{Form: about(f), Authorization: authorization, Source: somewhere})
		}},
	}
}

func maps1(f url.Values) url.Values {
	out := url.Values{}
	for k, v := range f {
		out[k] = slices.Clone(v)
	}
	return out
}

// jws makes a compact JWS, whatever it says.
func (w *world) jws(key *credential.Signer, header, claims string) string {
	w.t.Helper()
	input := b64(header) + "." + b64(claims)
	sig, err := key.Sign([]byte(input))
	if err != nil {
		w.t.Fatal(err)
	}
	return input + "." + b64(string(sig))
}

// What authenticates a client at the token endpoint authenticates it at the others, and
// what is refused there is refused here, with the same code. An assertion is good for
// one request, whichever.
func TestClientsAuthenticateAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.keys["payroll"]
	other := w.newSigner()
	head := `{"alg":"ES256","typ":"client-authentication+jwt"}`
	claims := func(edit ...string) string {
		now := w.clock.Now()
		s := strings.NewReplacer("NOW", stamp(now), "LATER", stamp(now.Add(time.Minute)), "FAR", stamp(now.Add(time.Hour)), "PAST", stamp(now.Add(-time.Minute)), "JTI", counterfoil.NewID("x")).
			Replace(`{"iss":"payroll","sub":"payroll","aud":"` + issuer + `","iat":NOW,"exp":LATER,"jti":"JTI"}`)
		return strings.NewReplacer(edit...).Replace(s)
	}
	assert := func(assertion string) func() url.Values {
		return func() url.Values {
			return url.Values{"client_assertion_type": {authority.AssertionTypeJWT}, "client_assertion": {assertion}}
		}
	}
	good := func() url.Values { return assert(w.jws(key, head, claims()))() }
	with := func(name string, values ...string) func() url.Values {
		return func() url.Values { f := good(); f[name] = values; return f }
	}
	now := w.clock.Now()
	for _, tt := range []struct {
		name string
		form func() url.Values
		auth []string
		code counterfoil.Code
	}{
		{"as it should be", good, nil, ""},
		{"its client_id beside it", with("client_id", "payroll"), nil, ""},
		{"a parameter of others", with("nonsense", "x"), nil, ""},
		{"nothing", func() url.Values { return url.Values{} }, nil, counterfoil.ClientRefused},
		{"no assertion", with("client_assertion"), nil, counterfoil.RequestMalformed},
		{"another type", with("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), nil, counterfoil.RequestMalformed},
		{"two assertions", with("client_assertion", "a", "b"), nil, counterfoil.RequestMalformed},
		{"a secret beside it", with("client_secret", "hunter2"), nil, counterfoil.RequestMalformed},
		{"a password beside it", good, []string{"Basic cGF5cm9sbDpwYXlyb2xs"}, counterfoil.RequestMalformed},
		{"another's client_id", with("client_id", "stranger"), nil, counterfoil.AssertionMalformed},
		{"an unknown parameter twice", with("nonsense", "x", "y"), nil, counterfoil.RequestMalformed},
		{"no JWT", assert("x"), nil, counterfoil.AssertionMalformed},
		{"by another key", assert(w.jws(other, head, claims())), nil, counterfoil.ClientRefused},
		{"of an unknown agent", assert(w.jws(key, head, claims("payroll", "nobody"))), nil, counterfoil.ClientRefused},
		{"for the token endpoint", assert(w.jws(key, head, claims(`"aud":"`+issuer, `"aud":"`+issuer+"/oauth/token"))), nil, counterfoil.AssertionAudience},
		{"for its own endpoint", assert(w.jws(key, head, claims(`"aud":"`+issuer, `"aud":"`+issuer+"/oauth/introspect"))), nil, counterfoil.AssertionAudience},
		{"for two", assert(w.jws(key, head, claims(`"`+issuer+`"`, `["`+issuer+`","https://x.example"]`))), nil, counterfoil.AssertionAudience},
		{"of two agents", assert(w.jws(key, head, claims(`"sub":"payroll"`, `"sub":"stranger"`))), nil, counterfoil.AssertionMalformed},
		{"without a jti", assert(w.jws(key, head, claims(`"jti"`, `"x"`))), nil, counterfoil.AssertionMalformed},
		{"without an end", assert(w.jws(key, head, claims(`"exp"`, `"x"`))), nil, counterfoil.AssertionMalformed},
		{"past", assert(w.jws(key, head, claims(stamp(now.Add(time.Minute)), stamp(now.Add(-time.Minute)), `"iat":`+stamp(now)+`,`, ""))), nil, counterfoil.AssertionExpired},
		{"too long", assert(w.jws(key, head, claims(stamp(now.Add(time.Minute)), stamp(now.Add(time.Hour))))), nil, counterfoil.AssertionExpired},
		{"ahead of time", assert(w.jws(key, head, claims(`"iat":`+stamp(now), `"iat":`+stamp(now.Add(30*time.Second))))), nil, counterfoil.AssertionExpired},
		{"of another algorithm", assert(w.jws(key, `{"alg":"ES384","typ":"client-authentication+jwt"}`, claims())), nil, counterfoil.ClientRefused},
		{"unsigned", assert(b64(`{"alg":"none"}`) + "." + b64(claims()) + "."), nil, counterfoil.AssertionMalformed},
		{"a proof in its place", assert(w.proof(key, "/oauth/token", "")), nil, counterfoil.AssertionMalformed},
		{"an access token in its place", assert(w.mustAsk("payroll", "bank", nil).AccessToken), nil, counterfoil.AssertionMalformed},
	} {
		for _, at := range w.endpoints() {
			form := tt.form()
			wantCode(t, tt.name+" at "+at.name, at.send(form, tt.auth...), tt.code)
			if tt.code != "" {
				continue
			}
			for _, again := range w.endpoints() {
				wantCode(t, tt.name+" at "+at.name+", again at "+again.name, again.send(form, tt.auth...), counterfoil.AssertionReplayed)
			}
			// Over a restart too: the store has it.
			if used, err := w.store.AssertionUsed(t.Context(), counterfoil.AssertionUse{Agent: "payroll", ID: jtiOf(t, form.Get("client_assertion"))}); err != nil || !used {
				t.Errorf("%s at %s: used up: %v (%v)", tt.name, at.name, used, err)
			}
		}
	}
}

// What is refused once the agent authenticated has an entry of its own.
func TestAuthenticatedClientsAreRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ends := w.endpoints()
	form := func() url.Values { return w.form("payroll", nil) }
	token := w.mustAsk("payroll", "bank", nil).AccessToken
	for _, at := range ends {
		wantCode(t, at.name+" before", at.send(form()), "")
	}
	if _, err := w.a.Suspend(t.Context(), "payroll", "", "uid:7"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		send func(f url.Values) error
	}{
		{"/oauth/introspect", func(f url.Values) error {
			_, err := w.a.Introspect(t.Context(), authority.ClientRequest{Form: f, RequestID: "req_9", Source: somewhere})
			return err
		}},
		{"/oauth/revoke", func(f url.Values) error {
			return w.a.RevokeToken(t.Context(), authority.ClientRequest{Form: f, RequestID: "req_9", Source: somewhere})
		}},
	} {
		f := form()
		f.Set("token", token)
		wantCode(t, tt.name, tt.send(f), counterfoil.AgentSuspended)
		e := w.last(ledger.TokenRefused)
		if e.Agent != "payroll" || e.Code != counterfoil.AgentSuspended || e.Detail["endpoint"] != tt.name || e.RequestID != "req_9" || e.Source.Address != somewhere.String() {
			t.Errorf("%s: entry %+v", tt.name, e)
		}
		f = form()
		f.Del("client_assertion")
		before := w.store.Size()
		wantCode(t, tt.name+" unauthenticated", tt.send(f), counterfoil.RequestMalformed)
		if w.store.Size() != before {
			t.Errorf("%s: what nobody authenticated for has an entry", tt.name)
		}
		f = w.form("stranger", nil)
		wantCode(t, tt.name+" without a token", tt.send(f), counterfoil.RequestMalformed)
	}
}

// However many use one assertion at once, at whichever endpoint, one of them is served.
func TestOneAssertionOneRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	form := w.form("payroll", nil)
	var all sync.WaitGroup
	gate := make(chan struct{})
	ends := w.endpoints()
	// The tokens that are asked about are made before, so that the race is of the one
	// assertion alone.
	about := maps1(form)
	about.Set("token", w.mustAsk("payroll", "bank", nil).AccessToken)
	sends := []func() error{
		func() error { return ends[0].send(form) },
		func() error {
			_, err := w.a.Introspect(t.Context(), authority.ClientRequest{Form: about})
			return err
		},
		func() error { return w.a.RevokeToken(t.Context(), authority.ClientRequest{Form: about}) },
	}
	errs := make([]error, 24)
	for i := range errs {
		all.Go(func() {
			<-gate
			errs[i] = sends[i%len(sends)]()
		})
	}
	close(gate)
	all.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else if counterfoil.CodeOf(err) != counterfoil.AssertionReplayed {
			t.Error(err)
		}
	}
	if done != 1 {
		t.Errorf("%d were served", done)
	}
}

// Where the log was restored, an assertion that may have been used in the time that is
// lost is refused; one that was made later is taken.
func TestAssertionsOfATimeThatIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	restored := w.clock.Now()
	sound := w.a
	restarted := w.house.authority(func(c *authority.Config) { c.NotBefore = restored })
	w.a = restarted
	w.clock.Advance(time.Second)
	key := w.keys["payroll"]
	assertion := func(iat, exp time.Time) url.Values {
		claims := `{"iss":"payroll","sub":"payroll","aud":"` + issuer + `","exp":` + stamp(exp) + `,"jti":"` + counterfoil.NewID("x") + `"`
		if !iat.IsZero() {
			claims += `,"iat":` + stamp(iat)
		}
		return url.Values{
			"client_assertion_type": {authority.AssertionTypeJWT},
			"client_assertion":      {w.jws(key, `{"alg":"ES256","typ":"client-authentication+jwt"}`, claims+"}")},
		}
	}
	minute := func(t time.Time) time.Time { return t.Add(time.Minute) }
	after := w.clock.Now()
	for _, tt := range []struct {
		name     string
		iat, exp time.Time
		code     counterfoil.Code
	}{
		{"before", restored.Add(-time.Second), minute(restored), counterfoil.AssertionExpired},
		{"at that time", restored, minute(restored), counterfoil.AssertionExpired},
		{"later", after, minute(after), ""},
		{"at no time that it says", time.Time{}, minute(restored), counterfoil.AssertionExpired},
		{"at no time that it says, and not long before", time.Time{}, restored.Add(2 * time.Minute), counterfoil.AssertionExpired},
		{"at no time that it says, which was later", time.Time{}, restored.Add(2*time.Minute + time.Second), ""},
	} {
		for _, e := range w.endpoints() {
			wantCode(t, e.name+", "+tt.name, e.send(assertion(tt.iat, tt.exp)), tt.code)
			// The control: of a log that lost nothing each is taken.
			w.a, restarted = sound, w.a
			wantCode(t, e.name+" of a sound log, "+tt.name, e.send(assertion(tt.iat, tt.exp)), "")
			w.a = restarted
		}
	}
}
