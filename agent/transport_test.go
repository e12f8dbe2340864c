package agent_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/resource"
)

func TestEachRequestIsVerifiedAndOneTokenServesThem(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{credential.Ed25519, credential.ES256} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.key = testkit.Signer(t, alg)
			c := w.transport().Client()
			for i := range 3 {
				status, body, _ := do(t, c, "POST", w.resource+"/x%20y?a=1;b=2#f", fmt.Sprint(i))
				if want := fmt.Sprintf("POST /r/bank/x%%20y?a=1;b=2 %d", i); status != 200 || body != want {
					t.Errorf("%d %q, want %q", status, body, want)
				}
			}
			if status, _, _ := do(t, c, "GET", w.resource, ""); status != 200 {
				t.Errorf("GET: %d", status)
			}
			if w.tokens.Load() != 1 || w.discovered.Load() != 1 {
				t.Errorf("%d tokens, %d times discovered", w.tokens.Load(), w.discovered.Load())
			}
		})
	}
}

func TestTokenSaysWhatWasGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	tr := w.transport()
	start := w.now()
	info, err := tr.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(info.Scope, " ") != "pay" || info.Expires.Before(start.Add(299*time.Second)) || info.Expires.After(w.now().Add(300*time.Second)) {
		t.Errorf("scope %q, expires in %s", info.Scope, info.Expires.Sub(start))
	}
	if tr.Resource() != w.resource {
		t.Errorf("resource %s", tr.Resource())
	}
}

func TestScopeAndDetailsAreAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var scope, details string
	w.onToken = func(_ http.ResponseWriter, r *http.Request) bool {
		scope, details = r.PostFormValue("scope"), r.PostFormValue("authorization_details")
		return false
	}
	c := w.config()
	c.Scope = []string{"pay", "get_balance"}
	c.Details = []counterfoil.ToolDetail{{Type: counterfoil.DetailType, Locations: []string{w.resource}, Tool: "bank/pay"}}
	tr, err := agent.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `[{"locations":["` + w.resource + `"],"tool":"bank/pay","type":"` + counterfoil.DetailType + `"}]`
	if scope != "pay get_balance" || details != want {
		t.Errorf("scope %q, details %s", scope, details)
	}
}

func TestNoncesOfBothServers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.asNonces, w.verifier.Nonces = always(), always()
	c := w.transport().Client()
	for i := range 3 {
		if status, body, _ := do(t, c, "POST", w.resource, "x"); status != 200 || body != "POST /r/bank x" {
			t.Fatalf("%d %q", status, body)
		}
		// The first request is asked for a nonce once; later ones have it.
		if got, want := w.requests.Load(), int64(i+2); got != want {
			t.Errorf("after %d calls the resource saw %d requests, want %d", i+1, got, want)
		}
	}
	if w.asks.Load() != 2 || w.tokens.Load() != 1 {
		t.Errorf("%d asks for %d tokens", w.asks.Load(), w.tokens.Load())
	}
}

func always() *resource.MemoryNonces {
	n := resource.NewMemoryNonces()
	n.Always = true
	return n
}

func TestNonceDeliveredWithASuccessIsUsed(t *testing.T) {
	t.Parallel()
	nonces := always()
	w := newWorld(t, nil)
	w.verifier.Nonces = nonces
	w.onRequest = func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("DPoP-Nonce", nonces.Mint(w.now()))
		return false
	}
	plain := w.upstream
	w.upstream = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p, err := credential.ParseProof(r.Header.Values("DPoP"))
		if err != nil {
			t.Error(err)
		}
		got, err := p.Check(credential.ProofRequest{Method: "GET", URL: w.resource,
			TokenHash: credential.TokenHash(strings.TrimPrefix(r.Header.Get("Authorization"), "DPoP "))}, w.now())
		if err != nil {
			t.Error(err)
		}
		rw.Header().Set("X-Nonce", got.Nonce)
		plain.ServeHTTP(rw, r)
	})
	c := w.transport().Client()
	_, _, first := do(t, c, "GET", w.resource, "")
	_, _, second := do(t, c, "GET", w.resource, "")
	if want := first.Get("DPoP-Nonce"); want == "" || second.Get("X-Nonce") != want {
		t.Errorf("the second proof holds %q, want the nonce that came with the first success, %q", second.Get("X-Nonce"), want)
	}
}

func TestNonceIsAskedForOnceAndNotForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.verifier.Nonces = always()
	w.onRequest = func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("WWW-Authenticate", `Bearer error="x, DPoP", DPoP algs="ES256", error="use_dpop_nonce"`)
		rw.Header().Set("DPoP-Nonce", "never-good-enough")
		rw.WriteHeader(401)
		return true
	}
	if status, _, _ := do(t, w.transport().Client(), "POST", w.resource, "x"); status != 401 {
		t.Errorf("status %d", status)
	}
	if w.requests.Load() != 2 {
		t.Errorf("%d requests, want 2", w.requests.Load())
	}
}

func TestBodyThatCannotBeMadeAgainIsSentOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.verifier.Nonces = always()
	c := w.transport().Client()
	send := func(replayable bool) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.resource, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		if !replayable {
			req.GetBody = nil
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if status, body := send(false); status != 401 || !strings.Contains(body, "nonce_required") {
		t.Errorf("%d %s; want the 401 with its body", status, body)
	}
	// The nonce of that answer was kept, so the next attempt of the program is
	// good at once.
	if status, body := send(false); status != 200 || body != "POST /r/bank body" {
		t.Errorf("%d %s", status, body)
	}
	if w.requests.Load() != 2 {
		t.Errorf("%d requests", w.requests.Load())
	}
}

func TestTokenIsMintedAgainOnceWhenTheResourceSaysSo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		code   counterfoil.Code
		status int
		tokens int64
	}{
		{"revoked", counterfoil.TokenRevoked, 200, 2},
		{"suspended", counterfoil.AgentSuspended, 401, 1}, // a new token would not help
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.revoke("tok_1", tc.code)
			status, body, _ := do(t, w.transport().Client(), "POST", w.resource, "x")
			if status != tc.status || w.tokens.Load() != tc.tokens {
				t.Errorf("%d with %d tokens: %s", status, w.tokens.Load(), body)
			}
			if status == 401 && !strings.Contains(body, string(tc.code)) {
				t.Errorf("the body was lost: %q", body)
			}
		})
	}
	t.Run("every token revoked", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		for i := range 9 {
			w.revoke(fmt.Sprintf("tok_%d", i), counterfoil.TokenRevoked)
		}
		if status, _, _ := do(t, w.transport().Client(), "POST", w.resource, "x"); status != 401 || w.requests.Load() != 2 {
			t.Errorf("%d after %d requests", status, w.requests.Load())
		}
	})
	t.Run("foreign resource without codes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		w.onRequest = func(rw http.ResponseWriter, _ *http.Request) bool {
			if w.requests.Load() > 1 {
				return false
			}
			rw.Header().Add("WWW-Authenticate", `DPoP error="invalid_token"`)
			rw.WriteHeader(401)
			return true
		}
		if status, _, _ := do(t, w.transport().Client(), "POST", w.resource, "x"); status != 200 || w.tokens.Load() != 2 {
			t.Errorf("%d with %d tokens", status, w.tokens.Load())
		}
	})
}

func TestProofsGoToTheResourceAlone(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int64
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stolen.Add(1)
		if r.Header.Get("Authorization") != "" || r.Header.Get("DPoP") != "" {
			t.Error("credentials went to another host")
		}
	}))
	t.Cleanup(thief.Close)
	w := newWorld(t, nil)
	w.onRequest = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/r/bank/redirect" {
			return false
		}
		http.Redirect(rw, r, thief.URL+"/r/bank", http.StatusTemporaryRedirect)
		return true
	}
	tr := w.transport()
	// A client of the standard library with its own policy, which follows.
	follows := &http.Client{Transport: tr}
	for name, url := range map[string]string{
		"redirect":    w.resource + "/redirect",
		"other host":  thief.URL + "/r/bank",
		"other port":  "http://127.0.0.1:1/r/bank",
		"other name":  strings.Replace(w.resource, "127.0.0.1", "localhost", 1),
		"other proto": strings.Replace(w.resource, "http:", "https:", 1),
		"with a user": strings.Replace(w.resource, "127.0.0.1", "user:pw@127.0.0.1", 1),
	} {
		if _, _, _, err := try(t, follows, "GET", url, ""); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: the error holds a password: %v", name, err)
		}
	}
	if stolen.Load() != 0 {
		t.Errorf("the other host saw %d requests", stolen.Load())
	}
	if status, _, _ := do(t, follows, "GET", w.resource, ""); status != 200 {
		t.Errorf("the control: %d", status)
	}
}

func TestCallersOwnCredentialsAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.resource, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "elsewhere.example"
	for _, name := range []string{"Authorization", "authorization", "DPoP", "Dpop", "Proxy-Authorization"} {
		req.Header[name] = []string{"mine"} // spellings that Header.Del would miss
	}
	resp, err := w.transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	if odd := "authorization"; req.Header[odd][0] != "mine" || req.Host != "elsewhere.example" {
		t.Error("RoundTrip changed the caller's request")
	}
}

// roundTripper makes a function an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestPassingFaults runs in a bubble, so that the pause before a repetition
// takes no time. Nothing is on a network: requests go to the handler directly.
func TestPassingFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, method, path string
		broken, status     int
		asks, requests     int64
		fails              bool
	}{
		{name: "token endpoint once unreachable", method: "POST", path: "/id/oauth/token", broken: 1, asks: 1, requests: 1},
		{name: "token endpoint twice unreachable", method: "POST", path: "/id/oauth/token", broken: 2, asks: 0, fails: true},
		{name: "token endpoint once unavailable", method: "POST", path: "/id/oauth/token", broken: 1, status: 503, asks: 1, requests: 1},
		{name: "metadata once unreachable", method: "POST", path: "/.well-known/oauth-authorization-server/id", broken: 1, asks: 1, requests: 1},
		{name: "read once cut", method: "GET", path: "/r/bank", broken: 1, asks: 1, requests: 1},
		{name: "read twice cut", method: "GET", path: "/r/bank", broken: 2, asks: 1, fails: true},
		{name: "write once cut", method: "POST", path: "/r/bank", broken: 1, asks: 1, fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			proofs := map[string]bool{}
			c := w.config()
			synctest.Test(t, func(t *testing.T) {
				c.HTTP = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					if p := r.Header.Get("DPoP"); p != "" {
						if proofs[p] {
							t.Error("a proof was sent twice")
						}
						proofs[p] = true
					}
					if r.URL.Path == tc.path && tc.broken > 0 {
						tc.broken--
						if tc.status == 0 {
							return nil, errors.New("cut")
						}
						return &http.Response{StatusCode: tc.status, Body: http.NoBody, Header: http.Header{}}, nil
					}
					rec := httptest.NewRecorder()
					r = r.Clone(r.Context())
					if r.Body == nil {
						r.Body = http.NoBody
					}
					w.serve(rec, r)
					return rec.Result(), nil
				})}
				tr, err := agent.NewTransport(c)
				if err != nil {
					t.Fatal(err)
				}
				body := ""
				if tc.method == "POST" {
					body = "x"
				}
				status, _, _, err := try(t, tr.Client(), tc.method, w.resource, body)
				if tc.fails != (err != nil) || err == nil && status != 200 {
					t.Errorf("%d, %v", status, err)
				}
				if w.asks.Load() != tc.asks || w.requests.Load() != tc.requests {
					t.Errorf("%d asks, %d requests", w.asks.Load(), w.requests.Load())
				}
			})
		})
	}
}

// TestNoProofIsRepeatedBelow breaks a kept connection under a GET, which
// http.Transport repeats by itself with the same headers unless it is kept from
// that: the resource, having seen the first, would say proof_replayed.
func TestNoProofIsRepeatedBelow(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST with a key"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			var cut atomic.Bool
			upstream := w.upstream
			w.upstream = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if cut.CompareAndSwap(true, false) {
					panic(http.ErrAbortHandler) // the proof is used up, the answer is lost
				}
				upstream.ServeHTTP(rw, r)
			})
			c := w.transport().Client()
			verb, key, _ := strings.Cut(method, " with a ")
			send := func() (int, string, error) {
				var header []string
				if key != "" {
					header = []string{"Idempotency-Key", "k"}
				}
				status, body, _, err := try(t, c, verb, w.resource, strings.Repeat("x", len(key)), header...)
				return status, body, err
			}
			if status, _, err := send(); err != nil || status != 200 { // the connection is kept now
				t.Fatal(status, err)
			}
			cut.Store(true)
			status, body, err := send()
			if verb == "GET" && (err != nil || status != 200) {
				t.Errorf("%d %s, %v", status, body, err)
			}
			if verb == "POST" && err == nil {
				t.Errorf("%d %s: a call whose outcome is not known was repeated", status, body)
			}
			if status, _, err := send(); err != nil || status != 200 {
				t.Errorf("afterwards: %d, %v", status, err)
			}
		})
	}
}

// closed counts how often a body is closed.
type closed struct {
	io.Reader
	n int
}

func (c *closed) Close() error { c.n++; return nil }

func TestBodyIsClosedInEveryCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	tr := w.transport()
	for _, url := range []string{w.resource, "http://192.0.2.1/r/bank"} {
		b := &closed{Reader: strings.NewReader("x")}
		req, err := http.NewRequestWithContext(t.Context(), "POST", url, b)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := tr.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
		}
		if b.n == 0 {
			t.Errorf("%s: the body was not closed", url)
		}
	}
}

func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	tr := w.transport()
	info, err := tr.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := agent.NewConnector(agent.ConnectorConfig{Transport: tr, Log: w.logger()})
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	log.Info("all of it", "token", info, "transport", tr, "connector", conn)
	fmt.Fprintf(&logged, "%v %+v %#v", info, info, info)
	fmt.Fprintf(&logged, "%v %+v", tr, conn)
	if strings.Contains(logged.String(), info.Token.Reveal()) {
		t.Error("the token was printed")
	}
	if !strings.HasPrefix(info.Token.Reveal(), "eyJ") {
		t.Error("the control: there is a token to print")
	}
}
