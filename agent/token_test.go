package agent_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/internal/testkit"
)

func TestRefusalsOfTheIssuer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		answer func(http.ResponseWriter)
		code   counterfoil.Code // internal: no code came
		text   string
	}{
		{"refusal", func(w http.ResponseWriter) {
			refuseToken(w, 401, "invalid_client", counterfoil.ClientRefused, "who?")
		}, counterfoil.ClientRefused, "who? (request req_1)"},
		{"fault", func(w http.ResponseWriter) {
			refuseToken(w, 500, "server_error", counterfoil.Internal, "")
		}, counterfoil.Internal, "internal"},
		{"newer code", func(w http.ResponseWriter) { refuseToken(w, 400, "invalid_scope", "brand_new", "d") }, "brand_new", "d"},
		{"no code", func(w http.ResponseWriter) {
			writeJSON(w, 400, map[string]any{"error": "invalid_scope", "error_description": "no such\x1b[2Jtool"})
		}, counterfoil.Internal, "400 invalid_scope: no such [2Jtool"},
		{"no JSON", func(w http.ResponseWriter) { http.Error(w, "<html>", 404) }, counterfoil.Internal, "404 Not Found"},
		{"bearer", func(w http.ResponseWriter) {
			writeJSON(w, 200, map[string]any{"access_token": "abc", "token_type": "Bearer", "expires_in": 60})
		}, counterfoil.Internal, `type "Bearer"`},
		{"no life", func(w http.ResponseWriter) {
			writeJSON(w, 200, map[string]any{"access_token": "abc", "token_type": "DPoP"})
		}, counterfoil.Internal, "how long"},
		{"no token", func(w http.ResponseWriter) {
			writeJSON(w, 200, map[string]any{"access_token": "a b", "token_type": "DPoP", "expires_in": 60})
		}, counterfoil.Internal, "has none"},
		{"two tokens", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"access_token":"a","access_token":"b","token_type":"DPoP","expires_in":60}`)
		}, counterfoil.Internal, "access_token"},
		{"endless", func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, 1<<20)) }, counterfoil.Internal, "larger"},
		{"redirect", func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(307)
		}, counterfoil.Internal, "redirect"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.onToken = func(rw http.ResponseWriter, _ *http.Request) bool {
				tc.answer(rw)
				return true
			}
			c := w.transport().Client()
			_, _, _, err := try(t, c, "GET", w.resource, "")
			wantCode(t, err, tc.code)
			if !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v; want %q in it", err, tc.text)
			}
			if w.requests.Load() != 0 {
				t.Error("the resource was asked without a token")
			}
		})
	}
}

func TestMetadataOfAnotherIssuerIsNotUsed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(map[string]any)
	}{
		{"another issuer", func(m map[string]any) { m["issuer"] = "https://evil.example" }},
		{"a slash more", func(m map[string]any) { m["issuer"] = m["issuer"].(string) + "/" }},
		{"no issuer", func(m map[string]any) { delete(m, "issuer") }},
		{"plain token endpoint", func(m map[string]any) { m["token_endpoint"] = "http://192.0.2.1/token" }},
		{"no token endpoint", func(m map[string]any) { delete(m, "token_endpoint") }},
		{"plain enrolment endpoint", func(m map[string]any) { m["counterfoil_enrolment_endpoint"] = "http://192.0.2.1/" }},
		{"other logins only", func(m map[string]any) { m["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"} }},
		{"no DPoP", func(m map[string]any) { delete(m, "dpop_signing_alg_values_supported") }},
		{"other algorithms", func(m map[string]any) { m["dpop_signing_alg_values_supported"] = []string{"ES256"} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.metadata = tc.change
			if _, err := w.transport().Token(t.Context()); err == nil {
				t.Error("the metadata was used")
			}
			if w.asks.Load() != 0 {
				t.Error("an assertion was sent")
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		w.metadata = func(m map[string]any) { m["something_new"] = []any{1, nil} }
		if _, err := w.transport().Token(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for name, change := range map[string]func(*agent.Config){
		"no issuer":       func(c *agent.Config) { c.Issuer = "" },
		"plain issuer":    func(c *agent.Config) { c.Issuer = "http://id.example.com" },
		"issuer's query":  func(c *agent.Config) { c.Issuer += "?x" },
		"fragment":        func(c *agent.Config) { c.Issuer += "#" },
		"user":            func(c *agent.Config) { c.Issuer = "https://u@id.example.com" },
		"no host":         func(c *agent.Config) { c.Resource = "https:///r" },
		"plain resource":  func(c *agent.Config) { c.Resource = "http://gateway.example.com/r/bank" },
		"other scheme":    func(c *agent.Config) { c.Resource = "ftp://127.0.0.1/r" },
		"relative":        func(c *agent.Config) { c.Resource = "/r/bank" },
		"agent's name":    func(c *agent.Config) { c.Agent = "Pay Roll" },
		"no key":          func(c *agent.Config) { c.Signer = nil },
		"scope of spaces": func(c *agent.Config) { c.Scope = []string{"pay get_balance"} },
	} {
		c := w.config()
		change(&c)
		if _, err := agent.NewTransport(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, url := range []string{"https://gateway.example.com/r/bank", "http://localhost:8420/r/bank", "http://[::1]:1/r"} {
		c := w.config()
		c.Resource = url
		if _, err := agent.NewTransport(c); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestOneRequestForATokenHoweverManyWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.onToken = func(http.ResponseWriter, *http.Request) bool {
		once.Do(func() { close(asked) })
		<-release
		return false
	}
	tr := w.transport()
	c := tr.Client()
	// The first to ask gives up; the request goes on for the others.
	impatient, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := tr.Token(impatient)
		gaveUp <- err
	}()
	<-asked
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("gave up with %v", err)
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if status, _, _, err := try(t, c, "POST", w.resource, "x"); err != nil || status != 200 {
				t.Errorf("%d, %v", status, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if w.asks.Load() != 1 {
		t.Errorf("%d requests for a token, want 1", w.asks.Load())
	}
}

func TestTokenIsRenewedInTime(t *testing.T) {
	t.Parallel()
	k := testkit.NewClock(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	w := newWorld(t, nil)
	w.now = k.Now
	renewing := make(chan struct{}, 1)
	hold := make(chan struct{})
	w.onToken = func(http.ResponseWriter, *http.Request) bool {
		if w.asks.Load() == 2 {
			renewing <- struct{}{}
			<-hold
		}
		return false
	}
	tr := w.transport()
	expires := func() time.Time {
		t.Helper()
		info, err := tr.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.Expires
	}
	first := expires()
	k.Advance(239 * time.Second)
	if expires() != first || w.asks.Load() != 1 {
		t.Error("renewed before four fifths of its life")
	}
	k.Advance(time.Second)
	if expires() != first {
		t.Error("waited for the next token although the old one was good")
	}
	<-renewing // but asked for it
	k.Advance(54 * time.Second)
	if expires() != first {
		t.Error("a good token was not used while the next one is under way")
	}
	k.Advance(time.Second) // its last five seconds do not count
	next := make(chan time.Time)
	go func() {
		info, err := tr.Token(context.Background())
		if err != nil {
			t.Error(err)
		}
		next <- info.Expires
	}()
	close(hold)
	if got := <-next; !got.After(first) {
		t.Errorf("expires %s, which is no later than %s", got, first)
	}
	if w.tokens.Load() != 2 {
		t.Errorf("%d tokens", w.tokens.Load())
	}
}

func TestFailedRenewal(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		fail func(http.ResponseWriter)
		good bool // the old token is used on
	}{
		{"fault", func(w http.ResponseWriter) {
			refuseToken(w, 500, "server_error", counterfoil.Internal, "")
		}, true},
		{"rate", func(w http.ResponseWriter) {
			refuseToken(w, 429, "invalid_request", counterfoil.RateLimited, "")
		}, true},
		{"refusal", func(w http.ResponseWriter) {
			refuseToken(w, 401, "invalid_client", counterfoil.ClientRefused, "")
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			k := testkit.NewClock(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
			w := newWorld(t, nil)
			w.now = k.Now
			tr := w.transport()
			if _, err := tr.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			var failing atomic.Bool
			failing.Store(true)
			failed := make(chan struct{}, 16)
			w.onToken = func(rw http.ResponseWriter, _ *http.Request) bool {
				if !failing.Load() {
					return false
				}
				tc.fail(rw)
				failed <- struct{}{}
				return true
			}
			k.Advance(250 * time.Second)
			if _, err := tr.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-failed
			// The refusal shows once the flight has landed; a good token shows
			// always.
			for {
				_, err := tr.Token(t.Context())
				if tc.good {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				if err != nil {
					wantCode(t, err, counterfoil.ClientRefused)
					break
				}
			}
			failing.Store(false)
			k.Advance(time.Minute)
			// A flight that had not landed yet may still bring its failure.
			for range 2 {
				_, err := tr.Token(t.Context())
				if err == nil {
					return
				}
				t.Log(err)
			}
			t.Error("it did not recover")
		})
	}
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := agent.EnrolConfig{Issuer: w.issuer, Agent: "payroll", Code: counterfoil.NewSecret("cfe_good"), Signer: w.key}
	got, err := agent.Enroll(t.Context(), c)
	if err != nil || got.Instance != "ins_7" || got.Agent != "payroll" || got.JKT != w.key.Public().Thumbprint() {
		t.Errorf("%+v, %v", got, err)
	}
	c.Code = counterfoil.NewSecret("cfe_bad")
	_, err = agent.Enroll(t.Context(), c)
	wantCode(t, err, counterfoil.EnrolmentRefused)
	if strings.Contains(err.Error(), "cfe_bad") {
		t.Errorf("the code is in the error: %v", err)
	}
	c.Code = counterfoil.Secret{}
	if _, err := agent.Enroll(t.Context(), c); err == nil {
		t.Error("enrolled without a code")
	}
}
