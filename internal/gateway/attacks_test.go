package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// jsonUpstream is the least that can be called a server: it lists its tools and
// answers every request with JSON.
func jsonUpstream(w http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	buf := make([]byte, 1<<16)
	for {
		n, err := r.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	body := b.String()
	if !strings.Contains(body, `"id":`) {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	id := body[strings.Index(body, `"id":`)+5:]
	id = id[:strings.IndexByte(id, ',')]
	result := `{"content":[{"type":"text","text":"done"}],"resultType":"complete"}`
	if strings.Contains(body, `"method":"tools/list"`) {
		result = `{"tools":` + bankTools + `,"ttlMs":60000,"cacheScope":"public","resultType":"complete"}`
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Set-Cookie", "tracking=1")
	w.Write([]byte(`{"jsonrpc":"2.0","id":` + id + `,"result":` + result + `}`))
}

const bankTools = `[
 {"name":"get_balance","description":"Balance of an account","inputSchema":{"type":"object"}},
 {"name":"list_payees","inputSchema":{"type":"object"}},
 {"name":"region","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}},
 {"name":"typed","inputSchema":{"type":"object"},"outputSchema":{"type":"object"}},
 {"name":"pay","description":"Pay","inputSchema":{"type":"object"}},
 {"name":"hidden","inputSchema":{"type":"object"}}
]`

func bankWorld(t testing.TB) (*world, *actor) {
	t.Helper()
	w := newWorld(t, http.HandlerFunc(jsonUpstream), nil)
	return w, w.actor("payroll")
}

// TestFramingAttacks shows how a body that is refused is recorded and answered.
// What is refused, and why, is in package attacks.
func TestFramingAttacks(t *testing.T) {
	t.Parallel()
	honest := toolCall("get_balance", `{"account":"a","amount":100}`)
	raw := func(s string) string { return s }
	for _, tc := range []struct{ name, body string }{
		{"a name twice", toolCall("get_balance", `{"a":1,"a":2}`)},
		{"a name in two cases", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_balance","Name":"pay"}}`},
		{"a surrogate alone", toolCall("get_balance", `{"a":"\ud800"}`)},
		{"a second value", honest + honest},
		{"a batch", "[" + honest + "," + toolCall("pay", `{"amount":1}`) + "]"},
		{"a number beyond numbers", toolCall("get_balance", `{"amount":1E400}`)},
		{"depth", toolCall("get_balance", `{"a":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`}`)},
		{"unknown member", `{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}`},
		{"unknown params member", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_balance","task":{}}}`},
		{"other version", `{"jsonrpc":"1.0","id":1,"method":"ping"}`},
		{"no version", `{"id":1,"method":"ping"}`},
		{"null id", `{"jsonrpc":"2.0","id":null,"method":"ping"}`},
		{"fraction id", `{"jsonrpc":"2.0","id":1.5,"method":"ping"}`},
		{"object id", `{"jsonrpc":"2.0","id":{},"method":"ping"}`},
		{"params array", `{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}`},
		{"params null", `{"jsonrpc":"2.0","id":1,"method":"ping","params":null}`},
		{"arguments array", toolCall("get_balance", `[]`)},
		{"name number", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}`},
		{"name missing", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}`},
		{"request without id", `{"jsonrpc":"2.0","method":"tools/call","params":{"name":"get_balance"}}`},
		{"notification with id", `{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}`},
		{"answer without session", `{"jsonrpc":"2.0","id":1,"result":{}}`},
		{"answer with two outcomes", `{"jsonrpc":"2.0","id":1,"result":{},"error":{}}`},
		{"string", `"tools/call"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			p := wantHTTP(t, a.post(raw(tc.body), nil), http.StatusBadRequest, counterfoil.PayloadMalformed)
			if p.Error == nil || p.Error.Code != counterfoil.RPCInvalidRequest {
				t.Fatalf("the JSON-RPC error is %+v", p.Error)
			}
			if got := w.upstream.all(); len(got) > 0 {
				t.Fatalf("the upstream got %v", got)
			}
			if e := w.log.all()[0]; e.Decision != "refuse" || e.Code != counterfoil.PayloadMalformed || e.Proof == "" || len(w.log.all()) != 1 {
				t.Fatalf("the log has %+v", w.log.all())
			}
			wantDone(t, a.post(honest, nil)) // the positive control
		})
	}
}

func TestWhatIsForwardedIsCanonical(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, sent, want string }{
		{"TP8 numbers and order", `{"b":1e2,"a":100.0,"z":-0,"s":"100"}`, `{"a":100,"b":100,"s":"100","z":0}`},
		{"TP3 escaped names", `{"am\u006funt":1}`, `{"amount":1}`},
		{"white space", " { \"a\" : [ 1 , 2 ] } ", `{"a":[1,2]}`},
		{"nested JSON text stays text", `{"a":"{\"pay\":1}"}`, `{"a":"{\"pay\":1}"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			wantDone(t, a.post(toolCall("get_balance", tc.sent), func(r *http.Request) {
				r.Header.Set("X-HTTP-Method-Override", "DELETE")
				r.Header.Set("Cookie", "a=b")
				r.Header.Set("X-Forwarded-User", "root")
				r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01")
				r.Header.Set("Mcp-Name", "pay") // means nothing in this revision
			}))
			got := w.upstream.calls("tools/call")
			if len(got) != 1 {
				t.Fatalf("the upstream got %d calls", len(got))
			}
			want := `{"id":1,"jsonrpc":"2.0","method":"tools/call","params":{"arguments":` + tc.want + `,"name":"get_balance"}}`
			if got[0].body != want {
				t.Fatalf("the upstream got %s, want %s", got[0].body, want)
			}
			allowed := map[string]bool{"Content-Type": true, "Content-Length": true, "Accept": true, "Accept-Encoding": true, "User-Agent": true, "Mcp-Protocol-Version": true}
			for name := range got[0].header {
				if !allowed[name] {
					t.Errorf("the header %s went upstream", name)
				}
			}
			// AU7: what is recorded is what was received.
			decided := w.log.of("call.decided")
			e := decided[len(decided)-1]
			salt, payload, err := w.log.Payload(t.Context(), e.Index)
			if err != nil || len(payload) != 0 || ledger.Commitment(salt, []byte(tc.want)) != e.PayloadCommitment {
				t.Fatalf("recorded is a commitment to something else than %s; kept is %q, %v", tc.want, payload, err)
			}
		})
	}
}

// TestHTTPAttacks shows that what is refused unread is counted and not recorded.
// More of it is in package attacks.
func TestHTTPAttacks(t *testing.T) {
	t.Parallel()
	honest := toolCall("get_balance", `{}`)
	for _, tc := range []struct {
		name   string
		change func(*http.Request)
		status int
		code   counterfoil.Code
		early  bool // refused before the proof was used
	}{
		{"another type", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 400, counterfoil.RequestMalformed, true},
		{"another verb", func(r *http.Request) { r.Method = "PURGE" }, 405, counterfoil.MethodForbidden, true},
		{"a query", func(r *http.Request) { r.URL.RawQuery = "_method=DELETE" }, 400, counterfoil.RequestMalformed, true},
		{"a token in the query", func(r *http.Request) { r.URL.RawQuery = "access_token=x" }, 400, counterfoil.RequestMalformed, true},
		{"an upgrade", func(r *http.Request) { r.Header.Set("Connection", "Upgrade"); r.Header.Set("Upgrade", "websocket") }, 400, counterfoil.RequestMalformed, true},
		{"OPTIONS", func(r *http.Request) { r.Method = "OPTIONS" }, 405, counterfoil.MethodForbidden, true},
		{"foreign origin", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, 403, counterfoil.OriginForbidden, true},
		{"null origin", func(r *http.Request) { r.Header.Set("Origin", "null") }, 403, counterfoil.OriginForbidden, true},
		{"unknown resource", func(r *http.Request) { r.URL.Path = "/r/nobody" }, 404, counterfoil.ToolUnknown, true},
		{"another resource", func(r *http.Request) { r.URL.Path = "/r/crm" }, 401, counterfoil.TokenAudience, true},
		{"dots in the path", func(r *http.Request) { r.URL.Path = "/r/../r/bank" }, 404, counterfoil.ToolUnknown, true},
		{"GET without session", func(r *http.Request) { r.Method = "GET"; r.Body = nil; r.ContentLength = 0 }, 401, counterfoil.ProofTarget, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			p := wantHTTP(t, a.post(honest, tc.change), tc.status, tc.code)
			if p.JSONRPC != "" {
				t.Errorf("the body is JSON-RPC: %+v", p)
			}
			if len(w.upstream.all()) > 0 || len(w.log.all()) > 0 || w.early[tc.code] != 1 {
				t.Fatalf("the upstream got %v, the log has %v, counted %v", w.upstream.all(), w.log.all(), w.early)
			}
			// The same request without the attack, from the gateway's own pages too.
			wantDone(t, a.post(honest, func(r *http.Request) {
				r.Header.Set("Content-Type", `application/json; charset="UTF-8"`)
				r.Header.Set("Origin", w.url)
			}))
		})
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	pad := func(n int) string { return toolCall("get_balance", `{"pad":"`+strings.Repeat("x", n)+`"}`) }
	wantHTTP(t, a.post(pad(4<<20), nil), http.StatusRequestEntityTooLarge, counterfoil.PayloadTooLarge)
	// Without a Content-Length it is found while reading, after authentication.
	wantHTTP(t, a.post(pad(4<<20), func(r *http.Request) { r.ContentLength = -1 }), http.StatusRequestEntityTooLarge, counterfoil.PayloadTooLarge)
	if e := w.log.of("call.decided"); len(e) != 1 || e[0].Code != counterfoil.PayloadTooLarge {
		t.Fatalf("the log has %+v", e)
	}
	wantDone(t, a.post(pad(64<<10), nil))
}
