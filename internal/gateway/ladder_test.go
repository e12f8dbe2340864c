package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/attest"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	oldKey    = "legacy-key-0123456789abcdef"
	oldKeyTwo = "another-key-0123456789abcdef"
	idp       = "https://idp.example"
)

func keyDigest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// A ladderWorld is a bank that still takes a static key and an outside issuer's tokens,
// both for payroll, and a key for other.
type ladderWorld struct {
	*world
	idp *testkit.OutsideIssuer
	log logText
}

// A logText is what operators read.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func newLadder(t *testing.T, h http.Handler, mode string, change func(*counterfoil.Registry, *gateway.Config)) *ladderWorld {
	t.Helper()
	l := &ladderWorld{idp: testkit.NewOutsideIssuer(t, "k1")}
	issuers, err := attest.New(attest.Config{Fetch: func(context.Context, string, int64) ([]byte, error) {
		return nil, errors.New("nothing is fetched in this test")
	}})
	if err != nil {
		t.Fatal(err)
	}
	l.world = newWorld(t, h, func(reg *counterfoil.Registry, cfg *gateway.Config) {
		bank := reg.Resources["bank"]
		bank.Binding = mode
		bank.Bearers = []counterfoil.Bearer{
			{Agent: "payroll", Key: keyDigest(oldKey)},
			{Agent: "other", Key: keyDigest(oldKeyTwo)},
			{Agent: "payroll", Issuer: idp, Subject: "job", Audience: "bank", Keys: []string{l.idp.JWK()}},
		}
		cfg.Verifier.Outside = issuers
		cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(&l.log, t.Output()), nil))
		if change != nil {
			change(reg, cfg)
		}
	})
	tools, err := gateway.Definitions(t.Context(), nil, l.registry.Resources["bank"], custody.Released{})
	if err != nil {
		t.Fatal(err)
	}
	l.world.log.pin("pay", tools["pay"].Digest)
	return l
}

// outside is a token of the outside issuer.
func (l *ladderWorld) outside() string {
	now := l.clock.Now().Unix()
	return l.idp.Token(map[string]any{"iss": idp, "sub": "job", "aud": "bank", "jti": "j1", "iat": now, "exp": now + 300})
}

// bearer calls a tool with something that whoever has it may use.
func (l *ladderWorld) bearer(token, tool, arguments string) reply {
	l.t.Helper()
	return l.bearerPost(token, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`","arguments":`+arguments+`,`+meta2026+`}}`, func(r *http.Request) {
		r.Header.Set("Mcp-Method", "tools/call")
		r.Header.Set("Mcp-Name", tool)
	})
}

func (l *ladderWorld) bearerPost(token, body string, change func(*http.Request)) reply {
	l.t.Helper()
	r, err := http.NewRequestWithContext(l.t.Context(), http.MethodPost, l.resource(), strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": rev2026,
		"Authorization": "Bearer " + token, "User-Agent": "legacy/1.0",
	} {
		r.Header.Set(name, value)
	}
	if change != nil {
		change(r)
	}
	return (&actor{w: l.world}).do(r)
}

func (l *ladderWorld) last() *ledger.Entry {
	l.t.Helper()
	found, err := l.world.log.Find(l.t.Context(), ledger.Filter{Kind: ledger.CallDecided, Limit: 1})
	if err != nil || len(found) != 1 {
		l.t.Fatalf("finding the last decision: %d, %v", len(found), err)
	}
	return found[0]
}

// Each rung and each class: what a bearer credential may call, beside a bound token.
func TestLadder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode      string
		read, pay counterfoil.Code // empty: it is made
	}{
		{counterfoil.BindingObserve, "", counterfoil.ApprovalRequired},
		{counterfoil.BindingPrefer, "", counterfoil.BearerRefused},
		{counterfoil.BindingRequire, counterfoil.BearerRefused, counterfoil.BearerRefused},
		{"", counterfoil.BearerRefused, counterfoil.BearerRefused},
	} {
		t.Run("mode "+c.mode, func(t *testing.T) {
			t.Parallel()
			l := newLadder(t, http.HandlerFunc(jsonUpstream), c.mode, nil)
			for _, token := range []string{oldKey, l.outside()} {
				before := len(l.upstream.calls("tools/call"))
				l.wantCode(l.bearer(token, "get_balance", "{}"), c.read)
				if c.read == "" {
					e := l.last()
					want := map[string]any{"bearer": "key " + keyDigest(oldKey), "binding_mode": c.mode, "would_refuse": "bearer_refused", "user_agent": "legacy/1.0"}
					if token != oldKey {
						want["bearer"] = idp + " job"
					}
					for name, v := range want {
						if e.Detail[name] != v {
							t.Errorf("the entry's %s is %v, want %v", name, e.Detail[name], v)
						}
					}
					if e.Agent != "payroll" || e.Owner != "ana" || e.Binding != counterfoil.NotBound || e.JKT != "" || e.Proof != "" || e.Instance != "" ||
						e.Source.Environment != "prod" || e.Decision != ledger.Allow || e.TokenJTI == "" || len(e.Scope) == 0 {
						t.Errorf("the entry is %+v", e)
					}
					if n := len(l.upstream.calls("tools/call")); n != before+1 {
						t.Errorf("%d requests reached the upstream", n-before)
					}
				}
				l.wantCode(l.bearer(token, "pay", `{"amount":"1"}`), c.pay)
			}
			// A bound token does on every rung what it may.
			a := l.actor("payroll")
			wantDone(t, a.call2026("get_balance", "{}", nil))
			wantDenied(t, a.call2026("pay", `{"amount":"1"}`, nil), counterfoil.ApprovalRequired)
			if e := l.last(); e.Binding != counterfoil.BoundDPoP || e.Detail["bearer"] != nil {
				t.Errorf("the entry of a bound call is %+v", e)
			}
			for _, r := range l.upstream.all() {
				if text := fmt.Sprint(r.header, r.body); strings.Contains(text, oldKey) || strings.Contains(text, "Bearer") {
					t.Error("the upstream was shown the credential")
				}
			}
			if l.log.count(oldKey) > 0 {
				t.Error("the log has the credential")
			}
		})
	}
}

// wantCode wants a refusal by that code, over HTTP or over MCP, or that it was made.
func (l *ladderWorld) wantCode(r reply, code counterfoil.Code) {
	l.t.Helper()
	switch {
	case code == "":
		wantDone(l.t, r)
	case code.Wire().Status == http.StatusUnauthorized:
		wantHTTP(l.t, r, http.StatusUnauthorized, code)
	default:
		wantDenied(l.t, r, code)
	}
}

// A grant bounds a bearer credential as it bounds a token.
func TestBearerHasItsAgentsGrantsAlone(t *testing.T) {
	t.Parallel()
	l := newLadder(t, http.HandlerFunc(jsonUpstream), counterfoil.BindingObserve, nil)
	wantDone(t, l.bearer(oldKeyTwo, "get_balance", "{}"))
	wantDenied(t, l.bearer(oldKeyTwo, "region", "{}"), counterfoil.ToolNotGranted)
	wantDenied(t, l.bearer(oldKey, "wipe", "{}"), counterfoil.ClassForbidden)
	l.apply(func(r *counterfoil.Registry) {
		a := *r.Agents["other"]
		a.Environment = "dev"
		r.Agents["other"] = &a
	})
	wantDenied(t, l.bearer(oldKeyTwo, "get_balance", "{}"), counterfoil.OutsideEnvironment)
	l.apply(func(r *counterfoil.Registry) {
		a := *r.Agents["payroll"]
		a.Tasks.Required = true
		r.Agents["payroll"] = &a
	})
	wantHTTP(t, l.bearer(oldKey, "get_balance", "{}"), http.StatusUnauthorized, counterfoil.BearerRefused)
}

// DPOP-RS-06: in no mode is a bound token taken as a bearer one.
func TestBoundTokenIsNoBearerInAnyMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{counterfoil.BindingObserve, counterfoil.BindingPrefer, counterfoil.BindingRequire} {
		l := newLadder(t, http.HandlerFunc(jsonUpstream), mode, nil)
		a := l.actor("payroll")
		stolen := a.token(nil)
		l.apply(func(r *counterfoil.Registry) {
			bank := *r.Resources["bank"]
			bank.Bearers = append([]counterfoil.Bearer{
				{Agent: "payroll", Key: keyDigest(stolen)},
				{Agent: "payroll", Issuer: issuer, Subject: "payroll", Audience: l.resource(), Keys: []string{string(l.issuer.Public().JWK())}},
			}, bank.Bearers...)
			r.Resources["bank"] = &bank
		})
		wantHTTP(t, l.bearer(stolen, "get_balance", "{}"), http.StatusUnauthorized, counterfoil.BearerRefused)
		wantHTTP(t, a.call2026("get_balance", "{}", func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+strings.TrimPrefix(r.Header.Get("Authorization"), "DPoP "))
		}), http.StatusUnauthorized, counterfoil.BearerRefused)
		wantDone(t, a.call2026("get_balance", "{}", nil))
		if n := len(l.upstream.calls("tools/call")); n != 1 {
			t.Errorf("%s: %d calls reached the upstream", mode, n)
		}
	}
}

// A switch with a date enforces itself, without anybody's doing.
func TestRequireFromEnforcesItself(t *testing.T) {
	t.Parallel()
	l := newLadder(t, http.HandlerFunc(jsonUpstream), counterfoil.BindingObserve, func(r *counterfoil.Registry, _ *gateway.Config) {
		r.Resources["bank"].RequireFrom = start.Add(time.Hour)
	})
	a := l.actor("payroll")
	l.clock.Advance(time.Hour - time.Nanosecond)
	wantDone(t, l.bearer(oldKey, "get_balance", "{}"))
	l.clock.Advance(time.Nanosecond)
	r := l.bearer(oldKey, "get_balance", "{}")
	wantHTTP(t, r, http.StatusUnauthorized, counterfoil.BearerRefused)
	if c := r.header.Values("WWW-Authenticate"); len(c) != 2 || !strings.HasPrefix(c[0], "Bearer ") || !strings.HasPrefix(c[1], "DPoP ") {
		t.Errorf("the challenges are %q", c)
	}
	wantDone(t, a.call2026("get_balance", "{}", nil))
}

// What is suspended, or not declared any more, is refused at the next call; who is
// known is recorded, who is not is counted.
func TestRevokedBearer(t *testing.T) {
	t.Parallel()
	l := newLadder(t, http.HandlerFunc(jsonUpstream), counterfoil.BindingObserve, nil)
	wantDone(t, l.bearer(oldKey, "get_balance", "{}"))
	wantHTTP(t, l.bearer("nobody-s-key-0123456789", "get_balance", "{}"), http.StatusUnauthorized, counterfoil.BearerRefused)
	if l.early[counterfoil.BearerRefused] != 1 {
		t.Errorf("counted are %v", l.early)
	}
	if _, err := l.world.log.Suspend(t.Context(), "payroll", &ledger.Entry{Kind: ledger.AgentSuspended, Agent: "payroll"}); err != nil {
		t.Fatal(err)
	}
	wantHTTP(t, l.bearer(oldKey, "get_balance", "{}"), http.StatusUnauthorized, counterfoil.AgentSuspended)
	if e := l.last(); e.Agent != "payroll" || e.Code != counterfoil.AgentSuspended || e.Detail["bearer"] != "key "+keyDigest(oldKey) {
		t.Errorf("the entry is %+v", e)
	}
	wantDone(t, l.bearer(oldKeyTwo, "get_balance", "{}"))
	l.apply(func(r *counterfoil.Registry) {
		bank := *r.Resources["bank"]
		bank.Bearers = nil
		r.Resources["bank"] = &bank
	})
	wantHTTP(t, l.bearer(oldKeyTwo, "get_balance", "{}"), http.StatusUnauthorized, counterfoil.BearerRefused)
}

// A credential that is taken back while the upstream answers gets no more of it.
func TestOpenStreamEndsWithTheMode(t *testing.T) {
	t.Parallel()
	go1, done := make(chan struct{}), make(chan struct{})
	l := newLadder(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Mcp-Method"), "tools/call") {
			jsonUpstream(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"one\"}}\n\n")
		_ = http.NewResponseController(w).Flush()
		close(go1)
		select {
		case <-done:
		case <-r.Context().Done():
			return
		}
		fmt.Fprint(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"two\"}}\n\n")
	}), counterfoil.BindingObserve, nil)
	got := make(chan reply)
	go func() { got <- l.bearer(oldKey, "get_balance", "{}") }()
	<-go1
	l.apply(func(r *counterfoil.Registry) {
		bank := *r.Resources["bank"]
		bank.Binding = counterfoil.BindingRequire
		r.Resources["bank"] = &bank
	})
	close(done)
	r := <-got
	if !strings.Contains(r.body, "one") || strings.Contains(r.body, `"two"`) {
		t.Errorf("the client read %q", r.body)
	}
}

// Lists show what may be called, on this rung.
func TestListsShowTheRung(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]bool{counterfoil.BindingObserve: true, counterfoil.BindingPrefer: false} {
		l := newLadder(t, http.HandlerFunc(jsonUpstream), mode, nil)
		r := l.bearerPost(oldKey, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{`+meta2026+`}}`, func(r *http.Request) { r.Header.Set("Mcp-Method", "tools/list") })
		if r.status != http.StatusOK || !strings.Contains(r.body, `"get_balance"`) || strings.Contains(r.body, `"pay"`) != want {
			t.Errorf("%s: %d %s", mode, r.status, r.body)
		}
	}
}

// The log for operators names a credential once a minute, and never shows it.
func TestBearerIsMentionedOnceAMinute(t *testing.T) {
	t.Parallel()
	l := newLadder(t, http.HandlerFunc(jsonUpstream), counterfoil.BindingObserve, nil)
	const line = "a bearer credential is still in use"
	for range 5 {
		wantDone(t, l.bearer(oldKey, "get_balance", "{}"))
	}
	wantDone(t, l.bearer(oldKeyTwo, "get_balance", "{}"))
	if n := l.log.count(line); n != 2 {
		t.Errorf("%d lines, want one of each credential", n)
	}
	l.clock.Advance(time.Minute)
	wantDone(t, l.bearer(oldKey, "get_balance", "{}"))
	if n := l.log.count(line); n != 3 {
		t.Errorf("%d lines after a minute", n)
	}
	// A client that sends its key as its name, too.
	wantDone(t, l.bearerPost(oldKey, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{`+meta2026+`}}`, func(r *http.Request) {
		r.Header.Set("User-Agent", "x "+oldKey)
		r.Header.Set("Mcp-Method", "tools/list")
	}))
	if e := l.last(); e.Detail["user_agent"] != nil {
		t.Errorf("the entry has %v", e.Detail)
	}
}

// A client's name that is longer than what is recorded of it shows no part of its key
// either.
func TestALongUserAgentHidesNoPartOfAKey(t *testing.T) {
	t.Parallel()
	l := newLadder(t, http.HandlerFunc(jsonUpstream), counterfoil.BindingObserve, nil)
	for agent, want := range map[string]any{
		strings.Repeat("x", 120) + oldKey:                nil,
		strings.Repeat("x", 120) + "\x80" + oldKey + "é": nil,
		strings.Repeat("x", 120) + "legacy/1.0-and-more": strings.Repeat("x", 120) + "legacy/1",
	} {
		wantDone(t, l.bearerPost(oldKey, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{`+meta2026+`}}`, func(r *http.Request) {
			r.Header.Set("User-Agent", agent)
			r.Header.Set("Mcp-Method", "tools/list")
		}))
		if got := l.last().Detail["user_agent"]; got != want {
			t.Errorf("the entry has %v, want %v", got, want)
		}
	}
}

// TestADeclarationThatChanges: a credential whose keys, place or audience are others is
// another one, whatever its name is. Who else is declared changes nothing.
func TestADeclarationThatChanges(t *testing.T) {
	t.Parallel()
	other := testkit.NewOutsideIssuer(t, "k2")
	for name, tc := range map[string]struct {
		change func(*counterfoil.Bearer)
		goes   bool
	}{
		"nothing":  {func(*counterfoil.Bearer) {}, true},
		"keys":     {func(b *counterfoil.Bearer) { b.Keys = []string{other.JWK()} }, false},
		"jwks_uri": {func(b *counterfoil.Bearer) { b.Keys, b.JWKSURI = nil, "https://idp.example/keys" }, false},
		"audience": {func(b *counterfoil.Bearer) { b.Audience = "other" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLadder(t, http.HandlerFunc(jsonUpstream), counterfoil.BindingObserve, nil)
			l.world.log.decided = func(*ledger.Entry) {
				l.apply(func(r *counterfoil.Registry) {
					bank := *r.Resources["bank"]
					bank.Bearers = append([]counterfoil.Bearer{{Agent: "payroll", Key: keyDigest("a-new-key-0123456789")}}, bank.Bearers...)
					for i := range bank.Bearers {
						if bank.Bearers[i].Issuer == idp {
							tc.change(&bank.Bearers[i])
						}
					}
					r.Resources["bank"] = &bank
				})
			}
			r := l.bearer(l.outside(), "get_balance", "{}")
			if n := len(l.upstream.calls("tools/call")); (n == 1) != tc.goes {
				t.Errorf("%d calls reached the upstream: %d %s", n, r.status, r.body)
			}
			if tc.goes {
				wantDone(t, r)
				return
			}
			wantHTTP(t, r, http.StatusUnauthorized, counterfoil.BearerRefused)
			if e := l.world.log.of(ledger.CallFinished); len(e) != 1 || e[0].Outcome != "not_forwarded" || e[0].Code != counterfoil.BearerRefused {
				t.Errorf("the ends are %+v", e)
			}
		})
	}
}

// TestABearerAsksForPeople: where bearers are observed, one may ask for an approval and
// spend it, once, under its own name; on the next rung it may not.
func TestABearerAsksForPeople(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{counterfoil.BindingObserve, counterfoil.BindingPrefer} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o, _ := newOffice(t, nil, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
				bank := reg.Resources["bank"]
				bank.Binding = counterfoil.BindingObserve
				bank.Bearers = []counterfoil.Bearer{{Agent: "payroll", Key: keyDigest(oldKey)}, {Agent: "other", Key: keyDigest(oldKeyTwo)}}
			})
			l := &ladderWorld{world: o.world}
			pay := func(key string) reply { return l.bearer(key, "pay", pay100) }
			id := wantHeld(t, pay(oldKey), counterfoil.ApprovalRequired).ID
			o.approve(id)
			wantDenied(t, pay(oldKeyTwo), counterfoil.ToolNotGranted)
			o.apply(func(reg *counterfoil.Registry) {
				bank := *reg.Resources["bank"]
				bank.Binding = mode
				reg.Resources["bank"] = &bank
			})
			if mode != counterfoil.BindingObserve {
				l.wantCode(pay(oldKey), counterfoil.BearerRefused)
				if o.paid() != 0 || o.state(id).State != counterfoil.StateApproved {
					t.Errorf("%d went upstream and it is %s", o.paid(), o.state(id).State)
				}
				return
			}
			wantDone(t, pay(oldKey))
			e := l.last()
			if e.Approval.ID != id || e.Approval.State != "spent" || e.Binding != counterfoil.NotBound || e.Detail["bearer"] != "key "+keyDigest(oldKey) || e.Detail["would_refuse"] != "bearer_refused" {
				t.Errorf("the entry is %+v", e)
			}
			wantDenied(t, pay(oldKey), counterfoil.ApprovalSpent)
			if o.paid() != 1 {
				t.Errorf("%d went upstream", o.paid())
			}
			o.checkProof(t)
		})
	}
}
