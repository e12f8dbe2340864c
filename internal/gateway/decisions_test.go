package gateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestEachDecisionOverMCP(t *testing.T) {
	t.Parallel()
	type world2 struct {
		*world
		*actor
	}
	for _, tc := range []struct {
		name       string
		call       func(w world2) reply
		code       counterfoil.Code
		structured bool
	}{
		{"no manifest classifies it", func(w world2) reply { return w.post(toolCall("hidden", `{}`), nil) }, counterfoil.ToolUnknown, false},
		{"not a tool's name", func(w world2) reply { return w.post(toolCall("a b", `{}`), nil) }, counterfoil.ToolUnknown, false},
		{"the resources' grant is for no tool", func(w world2) reply { return w.post(toolCall("resources", `{"uri":"x"}`), nil) }, counterfoil.ToolUnknown, false},
		{"no grant", func(w world2) reply { return w.post(toolCall("list_payees", `{}`), nil) }, counterfoil.ToolNotGranted, false},
		{"forbidden class", func(w world2) reply { return w.post(toolCall("wipe", `{}`), nil) }, counterfoil.ClassForbidden, false},
		{"above routine and pinned", func(w world2) reply {
			tools, err := gateway.Definitions(w.t.Context(), nil, w.registry.Resources["bank"], custody.Released{})
			if err != nil {
				w.t.Fatal(err)
			}
			w.log.pin("pay", tools["pay"].Digest)
			return w.post(toolCall("pay", `{"amount":1}`), nil)
		}, counterfoil.ApprovalRequired, true},
		{"above routine and not pinned", func(w world2) reply { return w.post(toolCall("pay", `{"amount":1}`), nil) }, counterfoil.ToolChanged, false},
		{"in the new revision", func(w world2) reply { return w.call2026("list_payees", `{}`, nil) }, counterfoil.ToolNotGranted, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			got := wantDenied(t, tc.call(world2{w, a}), tc.code)
			if (got.Result.Structured != nil) != tc.structured {
				t.Errorf("structuredContent is %v", got.Result.Structured)
			}
			if text := got.Result.Content[0].Text; !strings.Contains(text, string(tc.code)) || strings.Count(text, ". ") > 0 {
				t.Errorf("the sentence is %q", text)
			}
			decided := w.log.of(ledger.CallDecided)
			if len(decided) != 1 || decided[0].Decision != ledger.Refuse || decided[0].Code != tc.code || len(w.log.of(ledger.CallFinished)) != 0 {
				t.Fatalf("the log has %+v", decided)
			}
			if len(w.upstream.calls("tools/call")) > 0 {
				t.Fatal("the call went upstream")
			}
			wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
		})
	}
}

func TestStructuredContentIsLeftOutWhereThereIsAnOutputSchema(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	for _, tool := range []string{"typed", "region"} {
		wantDone(t, a.post(toolCall(tool, `{}`), nil))
		w.log.pin(tool, "sha-256:other")
		got := wantDenied(t, a.post(toolCall(tool, `{}`), nil), counterfoil.ToolChanged)
		if (got.Result.Structured == nil) != (tool == "typed") {
			t.Errorf("structuredContent of %s is %v", tool, got.Result.Structured)
		}
	}
}

func TestTheRowAnswersWhoDidWhat(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	task := a.begin(nil)
	wantDone(t, a.post(toolCall("get_balance", `{"account":"a"}`), nil))
	kinds := make([]string, 0, 3)
	for _, e := range w.log.all() {
		kinds = append(kinds, string(e.Kind))
	}
	if got := strings.Join(kinds, " "); got != "tool.pinned call.decided call.finished" {
		t.Fatalf("the log has %s", got)
	}
	d, f := w.log.all()[1], w.log.all()[2]
	switch {
	case d.Agent != "payroll", d.Owner != "ana", d.Instance != a.instance, d.JKT != a.signer.Public().Thumbprint(), d.Binding != "dpop",
		d.TokenJTI == "", d.Proof == "", d.Epoch != a.epoch, d.Task != task, d.Resource != "bank", d.Tool != "bank/get_balance", d.ToolDigest == "",
		d.Class != "read", d.Tier != "routine", len(d.Scope) == 0, d.PolicyDigest == "", d.Decision != ledger.Allow, d.Code != "",
		d.Source.Address == "", d.Source.Environment != "prod", d.OnBehalfOf != "":
		t.Errorf("the decision's row is %+v", d)
	case f.Of != d.Index, f.Outcome != "succeeded", f.RequestID != d.RequestID, f.Tool != d.Tool:
		t.Errorf("the end's row is %+v", f)
	}
}

func TestEveryAuthenticatedRequestIsRecorded(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	for _, m := range []string{"ping", "tools/list", "resources/list", "prompts/list", "initialize"} {
		params := "{}"
		if m == "initialize" {
			params = `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`
		}
		a.post(`{"jsonrpc":"2.0","id":"x","method":"`+m+`","params":`+params+`}`, nil)
	}
	if r := a.post(`{"jsonrpc":"2.0","method":"notifications/initialized"}`, nil); r.status != http.StatusAccepted || r.body != "" {
		t.Fatalf("a notification got %d %q", r.status, r.body)
	}
	p := wantHTTP(t, a.post(`{"jsonrpc":"2.0","id":"x","method":"tasks/get","params":{"taskId":"1"}}`, nil), http.StatusNotFound, counterfoil.ToolUnknown)
	if p.Error == nil || p.Error.Code != counterfoil.RPCMethodNotFound || string(p.ID) != `"x"` {
		t.Fatalf("the unknown method got %+v", p)
	}
	var tools []string
	for _, e := range w.log.of(ledger.CallDecided) {
		tools = append(tools, e.Tool+" "+e.Decision)
	}
	want := "bank/ping allow, bank/tools/list allow, bank/resources/list allow, bank/prompts/list allow, bank/initialize allow, bank/notifications/initialized allow, bank/tasks/get refuse"
	if got := strings.Join(tools, ", "); got != want {
		t.Fatalf("the log has %s", got)
	}
	if got := len(w.log.of(ledger.CallFinished)); got != 6 {
		t.Fatalf("%d ends for 6 allowed", got)
	}
}

func TestProofAttacksAtTheGateway(t *testing.T) {
	t.Parallel()
	honest := toolCall("get_balance", `{}`)
	for _, tc := range []struct {
		name   string
		change func(a *actor, r *http.Request)
		status int
		code   counterfoil.Code
	}{
		{"DG1 bound token as bearer", func(a *actor, r *http.Request) { r.Header.Set("Authorization", "Bearer "+a.token(nil)) }, 401, counterfoil.BearerRefused},
		{"DG2 no proof", func(_ *actor, r *http.Request) { r.Header.Del("DPoP") }, 401, counterfoil.ProofMissing},
		{"DG2 no credentials", func(_ *actor, r *http.Request) { r.Header.Del("DPoP"); r.Header.Del("Authorization") }, 401, counterfoil.ProofMissing},
		{"DG2 ath of another token", func(a *actor, r *http.Request) { r.Header.Set("DPoP", a.proof("POST", a.w.resource(), a.token(nil))) }, 401, counterfoil.ProofTarget},
		{"DG2 no ath", func(a *actor, r *http.Request) { r.Header.Set("DPoP", a.proof("POST", a.w.resource(), "")) }, 401, counterfoil.ProofTarget},
		{"DG3 other method", func(a *actor, r *http.Request) { resign(a, r, "GET", a.w.resource()) }, 401, counterfoil.ProofTarget},
		{"DG3 other path", func(a *actor, r *http.Request) { resign(a, r, "POST", a.w.url+"/r/crm") }, 401, counterfoil.ProofTarget},
		{"DG3 the upstream's URL", func(a *actor, r *http.Request) { resign(a, r, "POST", a.w.registry.Resources["bank"].Upstream) }, 401, counterfoil.ProofTarget},
		{"DG3 forwarded host", func(a *actor, r *http.Request) {
			r.Header.Set("X-Forwarded-Host", "evil.example")
			r.Host = "evil.example"
			resign(a, r, "POST", "http://evil.example/r/bank")
		}, 401, counterfoil.ProofTarget},
		{"DG4 stolen token, own key", func(a *actor, r *http.Request) {
			thief := a.w.actor("payroll")
			r.Header.Set("DPoP", thief.proof("POST", a.w.resource(), strings.TrimPrefix(r.Header.Get("Authorization"), "DPoP ")))
		}, 401, counterfoil.ProofKeyMismatch},
		{"DG7 two tokens", func(a *actor, r *http.Request) { r.Header.Add("Authorization", "DPoP "+a.token(nil)) }, 400, counterfoil.RequestMalformed},
		{"TS1 token for another resource", func(a *actor, r *http.Request) {
			use(a, r, a.token(func(c *credential.TokenClaims) { c.Audience = a.w.url + "/r/crm" }))
		}, 401, counterfoil.TokenAudience},
		{"TS4 token of another issuer", func(a *actor, r *http.Request) {
			use(a, r, a.token(func(c *credential.TokenClaims) { c.Issuer = issuer + "/" }))
		}, 401, counterfoil.TokenIssuer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			r := a.post(honest, func(r *http.Request) { tc.change(a, r) })
			wantHTTP(t, r, tc.status, tc.code)
			challenge := strings.Join(r.header.Values("WWW-Authenticate"), ", ")
			if !strings.Contains(challenge, `resource_metadata="`+w.url+`/.well-known/oauth-protected-resource/r/bank"`) || !strings.Contains(challenge, `scope="get_balance `) {
				t.Errorf("the challenge is %q", challenge)
			}
			if len(w.log.all()) != 0 || len(w.upstream.all()) != 0 || w.early[tc.code] != 1 {
				t.Fatalf("log %v, upstream %v, counted %v", w.log.all(), w.upstream.all(), w.early)
			}
			// The scheme's case does not matter, nor does a forwarded host.
			wantDone(t, a.post(honest, func(r *http.Request) {
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "DPoP", "dpop", 1))
				r.Header.Set("X-Forwarded-Host", "evil.example")
			}))
		})
	}
}

// resign makes the proof for another target.
func resign(a *actor, r *http.Request, method, url string) {
	r.Header.Set("DPoP", a.proof(method, url, strings.TrimPrefix(r.Header.Get("Authorization"), "DPoP ")))
}

// use sends another token, with a proof for it.
func use(a *actor, r *http.Request, token string) {
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header.Set("DPoP", a.proof(r.Method, a.w.resource(), token))
}

func TestOneProofIsOneCall(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	// DG5 and DG9: the same proof, many times at once, each with its own body.
	first := a.request(http.MethodPost, toolCall("get_balance", `{"n":0}`), nil)
	var wg sync.WaitGroup
	answers := make([]reply, 40)
	for i := range answers {
		wg.Go(func() {
			answers[i] = a.post(toolCall("get_balance", fmt.Sprintf(`{"n":%d}`, i)), func(r *http.Request) {
				r.Header["Authorization"], r.Header["Dpop"] = first.Header["Authorization"], first.Header["Dpop"]
			})
		})
	}
	wg.Wait()
	done := 0
	for _, r := range answers {
		if r.status == http.StatusOK {
			wantDone(t, r)
			done++
		} else {
			wantHTTP(t, r, http.StatusUnauthorized, counterfoil.ProofReplayed)
		}
	}
	if done != 1 || len(w.upstream.calls("tools/call")) != 1 || len(w.log.of(ledger.CallDecided)) != 1 {
		t.Fatalf("%d calls were done, the upstream saw %d, the log has %d", done, len(w.upstream.calls("tools/call")), len(w.log.of(ledger.CallDecided)))
	}
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
}

func TestResourcesWithAURLOfTheirOwn(t *testing.T) {
	t.Parallel()
	// Behind somebody else's gateway the proof is for that one's URL.
	const own = "https://bank.example/mcp"
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(reg *counterfoil.Registry, _ *gateway.Config) { reg.Resources["bank"].PublicURL = own })
	a := w.actor("payroll")
	send := func(url string) reply {
		return a.post(toolCall("get_balance", `{}`), func(r *http.Request) {
			token := a.token(func(c *credential.TokenClaims) { c.Audience = own })
			r.Header.Set("Authorization", "DPoP "+token)
			r.Header.Set("DPoP", a.proof("POST", url, token))
		})
	}
	wantDone(t, send(own))
	r := send(w.resource())
	wantHTTP(t, r, http.StatusUnauthorized, counterfoil.ProofTarget)
	if got := r.header.Get("WWW-Authenticate"); !strings.Contains(got, `resource_metadata="https://bank.example/.well-known/oauth-protected-resource/mcp"`) {
		t.Errorf("the challenge is %q", got)
	}
}

func TestAPublicURLWithAPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) { cfg.PublicURL += "/cf" })
	a := w.actor("payroll")
	wantDone(t, a.post(toolCall("get_balance", `{}`), func(r *http.Request) { r.Header.Set("Origin", w.url) }))
	wantHTTP(t, a.post(toolCall("get_balance", `{}`), func(r *http.Request) { r.URL.Path = "/r/bank" }), http.StatusNotFound, counterfoil.ToolUnknown)
	r := a.post(toolCall("get_balance", `{}`), func(r *http.Request) { r.Header.Del("Authorization") })
	wantHTTP(t, r, http.StatusUnauthorized, counterfoil.ProofMissing)
	if got := r.header.Get("WWW-Authenticate"); !strings.Contains(got, `"`+w.url+`/.well-known/oauth-protected-resource/cf/r/bank"`) {
		t.Errorf("the challenge is %q", got)
	}
}

func TestRevokedCallerIsRecordedBecauseItsProofIsUsed(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	w.log.revoke("payroll")
	before := len(w.log.all())
	wantHTTP(t, a.post(toolCall("get_balance", `{}`), nil), http.StatusUnauthorized, counterfoil.TokenRevoked)
	if e := w.log.all()[before]; len(w.log.all()) != before+1 || e.Code != counterfoil.TokenRevoked || e.Proof == "" || e.Decision != ledger.Refuse {
		t.Fatalf("the log has %+v", w.log.all()[before:])
	}
}

func TestLastLookAtRevocation(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	calls := len(w.upstream.calls("tools/call"))
	w.log.decided = func(*ledger.Entry) { w.log.revoke("payroll") } // after the commit, before it is forwarded
	r := a.post(toolCall("get_balance", `{}`), nil)
	wantHTTP(t, r, http.StatusUnauthorized, counterfoil.TokenRevoked)
	if r.header.Get("WWW-Authenticate") == "" {
		t.Error("there is no challenge")
	}
	if got := len(w.upstream.calls("tools/call")); got != calls {
		t.Fatalf("the upstream saw %d calls", got)
	}
	ends := w.log.of(ledger.CallFinished)
	if e := ends[len(ends)-1]; e.Outcome != "not_forwarded" || e.Code != counterfoil.TokenRevoked {
		t.Fatalf("the end is %+v", e)
	}
}

func TestWithoutLedgerNothingHappens(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	calls := len(w.upstream.all())
	w.log.breakDown(errors.New("no space left on device"))
	for _, body := range []string{toolCall("get_balance", `{}`), toolCall("list_payees", `{}`), `{"jsonrpc":"2.0","id":1,"method":"ping"}`, `garbage`} {
		r := a.post(body, nil)
		wantHTTP(t, r, http.StatusServiceUnavailable, counterfoil.LedgerUnavailable)
		if r.header.Get("Retry-After") == "" || strings.Contains(r.body, "space") {
			t.Errorf("got %v %s", r.header, r.body)
		}
	}
	if got := len(w.upstream.all()); got != calls {
		t.Fatalf("the upstream saw %d requests", got-calls)
	}
	w.log.breakDown(nil)
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
}

func TestAnEndThatCannotBeRecordedIsStillAnswered(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	w.log.decided = func(*ledger.Entry) { w.log.breakDown(errors.New("no space left on device")) }
	// The effect is there: saying anything else would be a lie.
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
}

func TestCredentialsStayOnTheirSides(t *testing.T) {
	t.Parallel()
	// LC3 and LC1: the agent's never goes upstream, the upstream's never comes back.
	secret := counterfoil.NewSecret("s3cret-of-the-bank")
	var missing bool
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(reg *counterfoil.Registry, cfg *gateway.Config) {
		reg.Resources["bank"].Credential = &counterfoil.UpstreamCredential{Header: "Authorization", Prefix: "Bearer ", File: "bank-token"}
		cfg.Credentials = secrets(func(file string) (counterfoil.Secret, error) {
			if missing || file != "bank-token" {
				return counterfoil.Secret{}, errors.New("no such file")
			}
			return secret, nil
		})
	})
	a := w.actor("payroll")
	r := a.post(toolCall("get_balance", `{}`), nil)
	wantDone(t, r)
	for name, values := range r.header {
		if name == "Set-Cookie" || strings.Contains(strings.Join(values, " "), "s3cret") {
			t.Errorf("the client got %s: %v", name, values)
		}
	}
	for _, got := range w.upstream.all() {
		if auth := got.header.Values("Authorization"); len(auth) != 1 || auth[0] != "Bearer s3cret-of-the-bank" || got.header.Get("Dpop") != "" {
			t.Fatalf("the upstream got %v", got.header)
		}
	}
	missing = true
	wantHTTP(t, a.post(toolCall("get_balance", `{}`), nil), http.StatusBadGateway, counterfoil.UpstreamUnavailable)
	ends := w.log.of(ledger.CallFinished)
	if e := ends[len(ends)-1]; e.Outcome != "upstream_unavailable" {
		t.Fatalf("the end is %+v", e)
	}
}

// TestRequestsThatTwoReadersWouldSplitDifferently sends bytes of its own (TP13,
// TP14): the upstream sees at most one well-formed request.
func TestRequestsThatTwoReadersWouldSplitDifferently(t *testing.T) {
	t.Parallel()
	body := toolCall("get_balance", `{}`)
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n", len(body), body)
	for _, tc := range []struct {
		name, line, headers, body string
		honest                    bool
	}{
		{"honest", "POST /r/bank HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\n", len(body)), body, true},
		{"honest chunked", "POST /r/bank HTTP/1.1", "Transfer-Encoding: chunked\r\n", chunked + "\r\n", true},
		{"CL and TE", "POST /r/bank HTTP/1.1", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", chunked + "\r\nPOST /r/bank HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"two lengths", "POST /r/bank HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n", len(body)), body, false},
		{"TE twice", "POST /r/bank HTTP/1.1", "Transfer-Encoding: chunked, chunked\r\n", chunked + "\r\n", false},
		{"TE identity", "POST /r/bank HTTP/1.1", "Transfer-Encoding: identity\r\n", body, false},
		{"announced trailer", "POST /r/bank HTTP/1.1", "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n", chunked + "Authorization: DPoP x\r\n\r\n", false},
		{"trailer out of the blue", "POST /r/bank HTTP/1.1", "Transfer-Encoding: chunked\r\n", chunked + "X-Extra: DPoP x\r\n\r\n", false},
		{"absolute form of another host", "POST http://evil.example/r/bank HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\n", len(body)), body, false},
		{"h2c", "POST /r/bank HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", len(body)), body, false},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1", "", "", false},
		{"truncated", "POST /r/bank HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\n", len(body)+10), body, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			token := a.token(nil)
			conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s\r\nHost: localhost\r\nContent-Type: application/json\r\nMCP-Protocol-Version: 2025-11-25\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\n%s\r\n%s",
				tc.line, token, a.proof("POST", w.resource(), token), tc.headers, tc.body)
			if tc.name == "truncated" {
				conn.(*net.TCPConn).CloseWrite()
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			calls := len(w.upstream.calls("tools/call"))
			if tc.honest && (res.StatusCode != http.StatusOK || calls != 1) {
				t.Fatalf("got %d %s, the upstream saw %d calls", res.StatusCode, answer, calls)
			}
			if !tc.honest && (res.StatusCode < 400 || calls != 0) {
				t.Fatalf("got %d %s, the upstream saw %d calls", res.StatusCode, answer, calls)
			}
		})
	}
}

func TestListsShowWhatMayBeCalled(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	names := func(a *actor, change func(*http.Request), body string) (names []string, scope string) {
		t.Helper()
		r := a.post(body, change)
		wantDone(t, r)
		var got struct {
			Result struct {
				Tools []struct {
					Name string `json:"name"`
				} `json:"tools"`
				CacheScope string `json:"cacheScope"`
			} `json:"result"`
		}
		if err := json.Unmarshal([]byte(r.body), &got); err != nil {
			t.Fatal(err)
		}
		for _, tool := range got.Result.Tools {
			names = append(names, tool.Name)
		}
		return names, got.Result.CacheScope
	}
	const old = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	got, _ := names(a, nil, old)
	if s := strings.Join(got, " "); s != "get_balance region typed pay" {
		t.Errorf("payroll sees %s", s)
	}
	got, scope := names(w.actor("other"), func(r *http.Request) {
		r.Header.Set("MCP-Protocol-Version", rev2026)
		r.Header.Set("Mcp-Method", "tools/list")
	}, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{`+meta2026+`}}`)
	if s := strings.Join(got, " "); s != "get_balance" || scope != "private" {
		t.Errorf("other sees %s, cacheScope %q", s, scope)
	}
	if a.scope = []string{"region"}; true {
		if got, _ := names(a, nil, old); strings.Join(got, " ") != "region" {
			t.Errorf("a token for region sees %v", got)
		}
	}
	if pins := w.log.of(ledger.ToolPinned); len(pins) != 4 { // the routine ones: get_balance, list_payees, region, typed
		t.Errorf("%d tools were pinned", len(pins))
	}
}

func TestResourceListsAreAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"resources":[{"uri":"a:b","name":"a"}],"prompts":[{"name":"p"}],"resourceTemplates":[{"name":"t"}],"contents":[],"messages":[],"nextCursor":"2"}}`)
	}), nil)
	allowed, other := w.actor("payroll"), w.actor("other")
	for _, method := range []string{"resources/list", "resources/templates/list", "prompts/list"} {
		body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `"}`
		list := map[string]string{"resources/list": "resources", "resources/templates/list": "resourceTemplates", "prompts/list": "prompts"}[method]
		if r := allowed.post(body, nil); strings.Contains(r.body, `"`+list+`":[]`) || !strings.Contains(r.body, "nextCursor") {
			t.Errorf("%s: payroll got %s", method, r.body)
		}
		if r := other.post(body, nil); !strings.Contains(r.body, `"`+list+`":[]`) || strings.Contains(r.body, "nextCursor") {
			t.Errorf("%s: other got %s", method, r.body)
		}
	}
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}`,
	} {
		wantDone(t, allowed.post(body, nil))
		var got toolResult
		r := other.post(body, nil)
		if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != http.StatusOK || got.Error == nil || got.Error.Code != 403 {
			t.Fatalf("other got %d %s", r.status, r.body)
		}
		var data refusal
		if err := json.Unmarshal(got.Error.Data, &data); err != nil || data.Code != counterfoil.ToolNotGranted {
			t.Fatalf("the data is %s", got.Error.Data)
		}
	}
	last := w.log.of(ledger.CallDecided)
	if e := last[len(last)-1]; e.Tool != "bank/prompts" || e.Class != "read" {
		t.Errorf("the row says %s, class %s", e.Tool, e.Class)
	}
}
