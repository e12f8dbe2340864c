package authority_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

const inactive = `{"active":false}`

// introspect asks, as an agent, about a token.
func (w *world) introspect(agent, token string) string {
	w.t.Helper()
	got, err := w.a.Introspect(w.t.Context(), authority.ClientRequest{Form: w.form(agent, url.Values{"token": {token}, "token_type_hint": {"refresh_token"}})})
	if err != nil {
		w.t.Fatal(err)
	}
	if got.ContentType != authority.IntrospectionJSON {
		w.t.Errorf("content type %q", got.ContentType)
	}
	return string(got.Body)
}

// A token is told to its own agent and to those who speak for its resource, whole.
func TestIntrospect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
	token := w.mustAsk("payroll", "bank", url.Values{"task": {task.ID}, "scope": {"get_balance"}, "authorization_details": {
		`[{"type":"` + counterfoil.DetailType + `","locations":["` + issuer + `/r/bank"],"tool":"get_balance"}]`,
	}}).AccessToken
	_, claims := claimsOf(t, token)
	for _, agent := range []string{"payroll", "teller"} {
		var got map[string]any
		if err := ijson.Unmarshal([]byte(w.introspect(agent, token)), &got); err != nil {
			t.Fatal(err)
		}
		want := maps.Clone(claims)
		want["active"], want["token_type"] = true, "DPoP"
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is told\n%v, want\n%v", agent, got, want)
		}
		for _, name := range []string{"iss", "sub", "aud", "client_id", "scope", "exp", "iat", "nbf", "jti", "cnf", "authorization_details", "task", "agent"} {
			if got[name] == nil {
				t.Errorf("%s is not told %s", agent, name)
			}
		}
		e := w.last(ledger.TokenIntrospected)
		if e.Agent != agent || e.TokenJTI != claims["jti"] || e.Detail["active"] != true || e.Detail["endpoint"] != "/oauth/introspect" || e.JKT != w.keys[agent].Public().Thumbprint() {
			t.Errorf("entry %+v", e)
		}
	}
	if got := w.introspect("stranger", token); got != inactive {
		t.Errorf("a stranger is told %s", got)
	}
	if e := w.last(ledger.TokenIntrospected); e.Agent != "stranger" || e.Detail["active"] != false || e.Detail["why"] == nil {
		t.Errorf("entry %+v", e)
	}
	// Who speaks for one resource does not for another, nor for the issuer.
	for _, res := range []string{"shop", ""} {
		token := w.mustAsk("payroll", res, nil).AccessToken
		if got := w.introspect("teller", token); got != inactive {
			t.Errorf("the bank's server is told of a token of %q: %s", res, got)
		}
		if got := w.introspect("payroll", token); got == inactive {
			t.Errorf("its own agent is not told of a token of %q", res)
		}
	}
}

// Whatever a token is not, the answer is the same.
func TestInactiveTokensAreAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.mustAsk("payroll", "bank", nil).AccessToken
	if got := w.introspect("payroll", good); got == inactive {
		t.Fatal("a token that is good is not active")
	}
	parts := strings.Split(good, ".")
	expired := w.mustAsk("payroll", "bank", nil).AccessToken
	w.clock.Advance(authority.DefaultTokenLife)
	for name, token := range map[string]string{
		"nonsense": "x", "no signature": parts[0] + "." + parts[1] + ".", "another's signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", 86),
		"expired": expired, "an assertion": w.assertion("payroll", w.keys["payroll"]), "a proof": w.proof(w.keys["payroll"], "/oauth/token", ""),
		"an id": "tok_" + strings.Repeat("a", 26), "too large": strings.Repeat("x", credential.MaxToken+1),
	} {
		if got := w.introspect("payroll", token); got != inactive {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// What was revoked is not active, by whichever way.
func TestRevokedTokensAreInactive(t *testing.T) {
	t.Parallel()
	for _, kind := range counterfoil.TargetKinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
			token := w.mustAsk("payroll", "bank", url.Values{"task": {task.ID}}).AccessToken
			if got := w.introspect("teller", token); got == inactive {
				t.Fatal("before: it is not active")
			}
			if _, err := w.a.Revoke(t.Context(), counterfoil.Revocation{Target: w.target(kind, token, task.ID), Reason: "a test"}, "uid:7"); err != nil {
				t.Fatal(err)
			}
			if got := w.introspect("teller", token); got != inactive {
				t.Errorf("after: %s", got)
			}
		})
	}
}

// The answer as a JWT is for who asked, and cannot be taken for an access token.
func TestIntrospectionAsJWT(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.mustAsk("payroll", "bank", nil).AccessToken
	for name, active := range map[string]string{"teller": "true", "stranger": "false"} {
		got, err := w.a.Introspect(t.Context(), authority.ClientRequest{Form: w.form(name, url.Values{"token": {token}}), JWT: true})
		if err != nil || got.ContentType != authority.IntrospectionJWT {
			t.Fatal(got.ContentType, err)
		}
		header, claims := claimsOf(t, string(got.Body))
		inner, _ := claims["token_introspection"].(map[string]any)
		names := slices.Sorted(maps.Keys(claims))
		if header["typ"] != "token-introspection+jwt" || header["kid"] != w.house.keys.Signer().Public().Thumbprint() || claims["iss"] != issuer || claims["aud"] != name ||
			fmt.Sprint(inner["active"]) != active || fmt.Sprint(names) != "[aud iat iss token_introspection]" || (active == "false") != (len(inner) == 1) {
			t.Errorf("%s: %v %v", name, header, claims)
		}
		if _, err := w.door.Inspect(t.Context(), string(got.Body)); counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
			t.Errorf("taken for an access token: %v", err)
		}
	}
}

// stale is a view of what is revoked that is too old to be relied on.
type stale struct{}

func (stale) Revoked(context.Context, counterfoil.Caller) error {
	return counterfoil.NewFault(counterfoil.RevocationStale, errors.New("nothing was heard"))
}

// Where it is not known what is revoked nothing is said, and nothing used up.
func TestIntrospectionFailsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.mustAsk("payroll", "bank", nil).AccessToken
	blind := w.house.authority(func(c *authority.Config) { c.Revocation = stale{} })
	f := w.form("payroll", url.Values{"token": {token}})
	_, err := blind.Introspect(t.Context(), authority.ClientRequest{Form: f})
	if err == nil || counterfoil.CodeOf(err) != counterfoil.RevocationStale {
		t.Errorf("%v", err)
	}
	if _, err := w.a.Introspect(t.Context(), authority.ClientRequest{Form: f}); err != nil {
		t.Errorf("the assertion was used up: %v", err)
	}
	none := w.house.authority(func(c *authority.Config) { c.Tokens = nil })
	if _, err := none.Introspect(t.Context(), authority.ClientRequest{Form: w.form("payroll", url.Values{"token": {token}})}); err == nil || counterfoil.CodeOf(err) != counterfoil.Internal {
		t.Errorf("without anybody who checks tokens: %v", err)
	}
}
