package resource_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/resource"
)

// A published is an issuer that publishes keys.
type published struct {
	url   string
	asked atomic.Int32
	body  atomic.Pointer[string]
	fails atomic.Bool
}

func publish(t *testing.T, body string) *published {
	t.Helper()
	p := &published{}
	p.body.Store(&body)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		switch {
		case p.fails.Load():
			http.Error(w, "away", http.StatusServiceUnavailable)
		case r.URL.Path == counterfoil.JWKSPath:
			w.Header().Set("Content-Type", "application/jwk-set+json")
			fmt.Fprint(w, *p.body.Load())
		default:
			http.Redirect(w, r, counterfoil.JWKSPath, http.StatusFound)
		}
	}))
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

func jwks(keys ...credential.PublicKey) string {
	var all []string
	for _, k := range keys {
		all = append(all, fmt.Sprintf(`%s,"kid":%q,"alg":%q,"use":"sig"}`, strings.TrimSuffix(string(k.JWK()), "}"), k.Thumbprint(), k.Alg()))
	}
	return `{"keys":[` + strings.Join(all, ",") + `]}`
}

func TestKeySet(t *testing.T) {
	t.Parallel()
	first, second := testkit.Signer(t, credential.ES256).Public(), testkit.Signer(t, credential.Ed25519).Public()
	p := publish(t, jwks(first))
	now := start
	s := &resource.KeySet{Issuer: p.url, Now: func() time.Time { return now }}
	want := func(name string, kid string, code counterfoil.Code, asked int32) {
		t.Helper()
		before := p.asked.Load()
		key, err := s.Key(t.Context(), kid)
		switch {
		case code == "" && (err != nil || key.Thumbprint() != kid):
			t.Errorf("%s: %v", name, err)
		case code == counterfoil.TokenMalformed:
			wantRefused(t, err, code)
		case code == counterfoil.StoreUnavailable:
			if _, refused := counterfoil.AsRefusal(err); err == nil || refused {
				t.Errorf("%s: %v, want a fault", name, err)
			}
		}
		if got := p.asked.Load() - before; got != asked {
			t.Errorf("%s: the issuer was asked %d times, want %d", name, got, asked)
		}
	}
	want("the first request asks", first.Thumbprint(), "", 1)
	want("the next does not", first.Thumbprint(), "", 0)
	want("an unknown key so soon", second.Thumbprint(), counterfoil.TokenMalformed, 0)
	now = now.Add(11 * time.Second)
	want("an unknown key is asked for", second.Thumbprint(), counterfoil.TokenMalformed, 1)
	want("and not again", "another", counterfoil.TokenMalformed, 0)

	// The issuer replaces its key: the new one is known at once, the old one no more.
	body := jwks(second)
	p.body.Store(&body)
	now = now.Add(11 * time.Second)
	want("the new key", second.Thumbprint(), "", 1)
	want("the removed key", first.Thumbprint(), counterfoil.TokenMalformed, 0)

	// The issuer is away.
	p.fails.Store(true)
	now = now.Add(10 * time.Minute)
	want("known, and fresh enough", second.Thumbprint(), "", 0)
	now = now.Add(time.Second)
	want("known, and too old", second.Thumbprint(), counterfoil.StoreUnavailable, 1)
	want("and not asked again at once", second.Thumbprint(), counterfoil.StoreUnavailable, 0)
	p.fails.Store(false)
	now = now.Add(11 * time.Second)
	want("the issuer is back", second.Thumbprint(), "", 1)
}

// TestKeySetTakesNothingElse: each document is refused beside one that is taken.
func TestKeySetTakesNothingElse(t *testing.T) {
	t.Parallel()
	key := testkit.Signer(t, credential.ES256).Public()
	good := jwks(key)
	for name, body := range map[string]string{
		"nothing":             ``,
		"no set":              `[]`,
		"no keys":             `{"keys":[]}`,
		"a kid of its own":    strings.Replace(good, key.Thumbprint(), "key-1", 1),
		"for encryption":      strings.Replace(good, `"sig"`, `"enc"`, 1),
		"another algorithm":   strings.Replace(good, `"alg":"ES256"`, `"alg":"ES384"`, 1),
		"private":             strings.Replace(good, `"use":`, `"d":"AAAA","use":`, 1),
		"two texts":           good + good,
		"larger than it is":   good + strings.Repeat(" ", 64<<10),
		"a member with twins": strings.Replace(good, `{"keys":`, `{"keys":[],"keys":`, 1),
	} {
		p := publish(t, body)
		s := &resource.KeySet{Issuer: p.url}
		if err := s.Fetch(t.Context()); err == nil {
			t.Errorf("%s is taken", name)
		}
		p.body.Store(&good)
		if err := s.Fetch(t.Context()); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	p := publish(t, good)
	for name, issuer := range map[string]string{
		"redirects": p.url + "/elsewhere", "plain http beyond loopback": "http://issuer.example", "no URL": "issuer", "a user": strings.Replace(p.url, "://", "://u:p@", 1),
	} {
		if err := (&resource.KeySet{Issuer: issuer}).Fetch(t.Context()); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestKeySetRuns: Run asks at once and ends with its context.
func TestKeySetRuns(t *testing.T) {
	t.Parallel()
	key := testkit.Signer(t, credential.ES256).Public()
	p := publish(t, jwks(key))
	ctx, stop := context.WithCancel(t.Context())
	s := &resource.KeySet{Issuer: p.url, Client: &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
		defer stop() // after the first answer
		return http.DefaultTransport.RoundTrip(r)
	})}}
	s.Run(ctx)
	if got := p.asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestTool: a token opens the tools of its scope.
func TestTool(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.Ed25519)
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for name, tt := range map[string]struct {
		tool    string
		details []counterfoil.ToolDetail
		past    bool // the middleware is not there
		status  int
	}{
		"in the scope":                     {tool: "pay", status: http.StatusNoContent},
		"not in the scope":                 {tool: "refund", status: http.StatusForbidden},
		"a part of a name":                 {tool: "pa", status: http.StatusForbidden},
		"nothing":                          {tool: "", status: http.StatusForbidden},
		"with details of it":               {tool: "pay", details: []counterfoil.ToolDetail{{Type: counterfoil.DetailType, Locations: []string{bank}, Tool: "pay", Constraints: map[string]counterfoil.Constraint{"/amount": {Max: "5"}}}}, status: http.StatusForbidden},
		"with details of another":          {tool: "pay", details: []counterfoil.ToolDetail{{Type: counterfoil.DetailType, Locations: []string{bank}, Tool: "read"}}, status: http.StatusNoContent},
		"around the check of the token":    {tool: "pay", past: true, status: http.StatusUnauthorized},
		"another tool, around that check":  {tool: "refund", past: true, status: http.StatusUnauthorized},
		"with no details and another tool": {tool: "read", status: http.StatusNoContent},
	} {
		h := s.verifier.Tool(tt.tool, served)
		if !tt.past {
			h = s.verifier.Middleware(bank, h)
		}
		token := s.token(func(c *credential.TokenClaims) { c.Details = tt.details })
		r := httptest.NewRequest(http.MethodPost, bankCall, nil)
		c := call{token: token, htm: http.MethodPost, htu: bankCall, signer: s.agent, at: s.now}
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", s.proof(c, token))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, tt.status, w.Body)
		}
		if challenge := w.Header().Get("WWW-Authenticate"); tt.status == http.StatusForbidden && tt.tool != "" && (!strings.Contains(challenge, `error="insufficient_scope"`) || !strings.Contains(challenge, `scope="`+tt.tool+`"`)) {
			t.Errorf("%s: the challenge is %s", name, challenge)
		}
	}
}
