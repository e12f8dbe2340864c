package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestHeadersAgreeWithTheBody(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, tc := range []struct {
		name   string
		tool   string
		args   string
		change func(*http.Request)
	}{
		{"TP7 other method", "get_balance", `{}`, set("Mcp-Method", "tools/list")},
		{"TP7 method of another case", "get_balance", `{}`, set("Mcp-Method", "Tools/Call")},
		{"TP7 no method", "get_balance", `{}`, func(r *http.Request) { r.Header.Del("Mcp-Method") }},
		{"TP7 two methods", "get_balance", `{}`, func(r *http.Request) { r.Header.Add("Mcp-Method", "tools/call") }},
		{"TP7 other name", "get_balance", `{}`, set("Mcp-Name", "pay")},
		{"TP7 no name", "get_balance", `{}`, func(r *http.Request) { r.Header.Del("Mcp-Name") }},
		{"TP7 two names", "get_balance", `{}`, func(r *http.Request) { r.Header.Add("Mcp-Name", "get_balance") }},
		{"TP7 other name, encoded", "get_balance", `{}`, set("Mcp-Name", "=?base64?cGF5?=")},
		{"TP7 name that is no base64", "get_balance", `{}`, set("Mcp-Name", "=?base64?*?=")},
		{"other revision", "get_balance", `{}`, set("MCP-Protocol-Version", rev2025)},
		{"no revision", "get_balance", `{}`, func(r *http.Request) { r.Header.Del("MCP-Protocol-Version") }},
		{"two revisions", "get_balance", `{}`, func(r *http.Request) { r.Header.Add("MCP-Protocol-Version", rev2025) }},
		{"parameter not mirrored", "region", `{"region":"eu"}`, nil},
		{"parameter mirrored otherwise", "region", `{"region":"eu"}`, set("Mcp-Param-Region", "us")},
		{"parameter that is absent", "region", `{}`, set("Mcp-Param-Region", "us")},
		{"deep parameter", "region", `{"deep":{"n":42}}`, set("Mcp-Param-N", "41")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			p := wantHTTP(t, a.call2026(tc.tool, tc.args, tc.change), http.StatusBadRequest, counterfoil.HeaderMismatch)
			if p.Error == nil || p.Error.Code != counterfoil.RPCHeaderMismatch || string(p.ID) != "1" {
				t.Fatalf("the JSON-RPC error is %+v", p)
			}
			if len(w.upstream.calls("tools/call")) != 0 {
				t.Fatal("the call went upstream")
			}
			if e := w.log.of(ledger.CallDecided); len(e) != 1 || e[0].Code != counterfoil.HeaderMismatch {
				t.Fatalf("the log has %+v", e)
			}
			wantDone(t, a.call2026("get_balance", `{}`, set("Mcp-Name", "=?base64?Z2V0X2JhbGFuY2U=?=")))
			wantDone(t, a.call2026("region", `{"region":"Größe","deep":{"n":42}}`, func(r *http.Request) {
				r.Header.Set("Mcp-Param-Region", "=?base64?R3LDtsOfZQ==?=")
				r.Header.Set("Mcp-Param-N", "42.0")
			}))
			got := w.upstream.calls("tools/call")[1]
			if got.header.Get("Mcp-Param-Region") != "=?base64?R3LDtsOfZQ==?=" || got.header.Get("Mcp-Param-N") != "42" {
				t.Fatalf("the upstream got %v", got.header)
			}
		})
	}
}

func TestTranscript2026(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	body := `{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"get_balance","arguments":{"b":2,"a":1},"_meta":{
		"io.modelcontextprotocol/protocolVersion":"2026-07-28",
		"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},
		"io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}},"extensions":{"io.modelcontextprotocol/tasks":{}}},
		"progressToken":7,"traceparent":"00-0","com.example/x":1}}}`
	r := a.post(body, func(r *http.Request) {
		r.Header.Set("MCP-Protocol-Version", rev2026)
		r.Header.Set("Mcp-Method", "tools/call")
		r.Header.Set("Mcp-Name", "get_balance")
		r.Header.Set("Mcp-Session-Id", "ignored")
		r.Header.Set("Last-Event-ID", "ignored")
	})
	wantDone(t, r)
	if r.header.Get("Content-Type") != "application/json" || r.header.Get("Mcp-Session-Id") != "" || r.header.Get("X-Request-Id") == "" {
		t.Errorf("the headers are %v", r.header)
	}
	if want := `{"jsonrpc":"2.0","id":"a","result":{"content":[{"type":"text","text":"done"}],"resultType":"complete"}}`; r.body != want {
		t.Errorf("the answer is %s", r.body)
	}
	got := w.upstream.calls("tools/call")[0]
	want := `{"id":"a","jsonrpc":"2.0","method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}},` +
		`"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":7},` +
		`"arguments":{"a":1,"b":2},"name":"get_balance"}}`
	if got.body != want {
		t.Errorf("the upstream got\n%s, want\n%s", got.body, want)
	}
	for name, value := range map[string]string{
		"Mcp-Protocol-Version": rev2026, "Mcp-Method": "tools/call", "Mcp-Name": "get_balance", "Mcp-Session-Id": "", "Last-Event-Id": "",
		"Accept": "application/json, text/event-stream", "Accept-Encoding": "identity", "Content-Type": "application/json",
	} {
		if got.header.Get(name) != value {
			t.Errorf("the upstream's %s is %q", name, got.header.Get(name))
		}
	}

	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		r := a.do(a.request(method, "", func(r *http.Request) { r.Header.Set("MCP-Protocol-Version", rev2026) }))
		wantHTTP(t, r, http.StatusMethodNotAllowed, counterfoil.MethodForbidden)
		if r.header.Get("Allow") != "POST" {
			t.Errorf("Allow is %q", r.header.Get("Allow"))
		}
	}
}

// TestMethodsThatARevisionDoesNotHave: they are not there whatever is wrong with
// their parameters; where they are there, the same parameters are what is wrong.
func TestMethodsThatARevisionDoesNotHave(t *testing.T) {
	t.Parallel()
	_, a := bankWorld(t)
	meta := `"_meta":{"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`
	for _, method := range []string{"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"} {
		for _, params := range []string{meta, meta + `,"protocolVersion":"2026-07-28","level":"info","uri":"x:y"`, `"nothing":1`} {
			body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + params + `}}`
			r := a.post(body, func(r *http.Request) {
				r.Header.Set("MCP-Protocol-Version", rev2026)
				r.Header.Set("Mcp-Method", method)
			})
			wantHTTP(t, r, http.StatusNotFound, counterfoil.ToolUnknown)
			if !strings.Contains(r.body, `"code":-32601`) {
				t.Errorf("%s got %s", body, r.body)
			}
		}
		body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{"nothing":1}}`
		wantHTTP(t, a.post(body, nil), http.StatusBadRequest, counterfoil.PayloadMalformed)
	}
}

func TestRequiredMetaOf2026(t *testing.T) {
	t.Parallel()
	_, a := bankWorld(t)
	send := func(meta string) reply {
		return a.post(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{`+meta+`}}`, func(r *http.Request) {
			r.Header.Set("MCP-Protocol-Version", rev2026)
			r.Header.Set("Mcp-Method", "tools/list")
		})
	}
	for _, meta := range []string{
		``,
		`"_meta":{}`,
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`,
		`"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}`,
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":1}`,
		`"_meta":{"io.modelcontextprotocol/protocolVersion":1,"io.modelcontextprotocol/clientCapabilities":{}}`,
	} {
		p := wantHTTP(t, send(meta), http.StatusBadRequest, counterfoil.PayloadMalformed)
		if p.Error == nil || p.Error.Code != counterfoil.RPCInvalidParams {
			t.Errorf("%s: the JSON-RPC error is %+v", meta, p.Error)
		}
	}
	wantDone(t, send(meta2026))
}

func TestUnsupportedRevision(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	for _, revision := range []string{"2025-03-26", "2024-11-05", "1900-01-01", "x"} {
		p := wantHTTP(t, a.post(toolCall("get_balance", `{}`), func(r *http.Request) { r.Header.Set("MCP-Protocol-Version", revision) }),
			http.StatusBadRequest, counterfoil.RequestMalformed)
		var data struct {
			Supported []string `json:"supported"`
			Requested string   `json:"requested"`
		}
		if p.Error == nil || p.Error.Code != counterfoil.RPCUnsupportedVersion || json.Unmarshal(p.Error.Data, &data) != nil ||
			strings.Join(data.Supported, " ") != "2026-07-28 2025-11-25 2025-06-18" || data.Requested != revision {
			t.Errorf("%s: the JSON-RPC error is %+v", revision, p.Error)
		}
	}
	if len(w.upstream.all()) > 0 {
		t.Error("something went upstream")
	}
	for _, revision := range []string{rev2025, "2025-06-18"} {
		wantDone(t, a.post(toolCall("get_balance", `{}`), func(r *http.Request) { r.Header.Set("MCP-Protocol-Version", revision) }))
	}
}

// sessionUpstream has sessions of its own and checks nothing: who keeps them
// apart is the gateway.
func sessionUpstream(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	switch {
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "id: e1\nretry: 500\ndata:\n\nid: e2\ndata: {\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"roots/list\"}\n\n")
		// A resumed list is filtered like a fresh one.
		io.WriteString(w, `data: {"jsonrpc":"2.0","id":3,"result":{"tools":`+strings.ReplaceAll(bankTools, "\n", "")+"}}\n\n")
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusOK)
	case strings.Contains(string(body), `"initialize"`):
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Mcp-Session-Id", "upstream-1")
		io.WriteString(w, "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{\"listChanged\":true},\"tasks\":{},\"experimental\":{\"x\":{}}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}}\n\n")
	case !strings.Contains(string(body), `"method"`):
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	}
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{},"tasks":{},"extensions":{}},"clientInfo":{"name":"t","version":"1"}}}`

func openSession(t *testing.T, a *actor) string {
	t.Helper()
	r := a.post(initialize, func(r *http.Request) { r.Header.Del("MCP-Protocol-Version") })
	wantDone(t, r)
	if !strings.Contains(r.body, `"capabilities":{"tools":{"listChanged":true}}`) {
		t.Fatalf("the upstream's capabilities come as %s", r.body)
	}
	id := r.header.Get("Mcp-Session-Id")
	if id == "" || strings.Contains(id, "upstream") || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		t.Fatalf("the session's id is %q", id)
	}
	return id
}

const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`

func TestSessionsBelongToAgentTaskAndResource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(sessionUpstream), func(reg *counterfoil.Registry, _ *gateway.Config) {
		bank2 := *reg.Resources["bank"]
		bank2.Name = "bank2"
		reg.Resources["bank2"] = &bank2
	})
	a := w.actor("payroll")
	id := openSession(t, a)
	with := func(id string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) }
	}
	if got := w.upstream.all()[0]; strings.Contains(got.body, "tasks") || strings.Contains(got.body, "extensions") || got.header.Get("Mcp-Protocol-Version") != "" {
		t.Errorf("initialize went upstream as %s with %v", got.body, got.header)
	}

	wantDone(t, a.post(ping, with(id)))
	// The session says which revision it is when the header does not.
	wantDone(t, a.post(ping, func(r *http.Request) { with(id)(r); r.Header.Del("MCP-Protocol-Version") }))
	all := w.upstream.all()
	for _, got := range all[len(all)-2:] {
		if got.header.Get("Mcp-Session-Id") != "upstream-1" || got.header.Get("Mcp-Protocol-Version") != rev2025 {
			t.Errorf("the upstream got %v", got.header)
		}
	}

	task := w.actor("payroll")
	task.begin(nil)
	flipped := []byte(id)
	flipped[len(flipped)/2] ^= 1
	for name, r := range map[string]reply{
		"another agent":             w.actor("other").post(ping, with(id)),
		"another task":              task.post(ping, with(id)),
		"the upstream's own id":     a.post(ping, with("upstream-1")),
		"one bit":                   a.post(ping, with(string(flipped))),
		"cut":                       a.post(ping, with(id[:len(id)-4])),
		"long":                      a.post(ping, with(strings.Repeat("A", 20000))),
		"TP17 GET of another agent": w.actor("other").do(w.actor("other").request(http.MethodGet, "", with(id))),
		"DELETE of another agent":   w.actor("other").do(w.actor("other").request(http.MethodDelete, "", with(id))),
	} {
		p := wantHTTP(t, r, http.StatusNotFound, counterfoil.ToolUnknown)
		if p.JSONRPC != "" {
			t.Errorf("%s: the body is JSON-RPC, so that a client would not initialize again", name)
		}
	}
	wantHTTP(t, a.post(ping, func(r *http.Request) { with(id)(r); r.Header.Set("MCP-Protocol-Version", "2025-06-18") }), http.StatusBadRequest, counterfoil.HeaderMismatch)
	wantHTTP(t, a.post(ping, func(r *http.Request) { r.Header.Del("MCP-Protocol-Version") }), http.StatusBadRequest, counterfoil.HeaderMismatch)
	refused := 0
	for _, e := range w.log.of(ledger.CallDecided) {
		if e.Decision == ledger.Refuse && e.Proof != "" {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d refusals are recorded", refused)
	}
	// A client's answer to the server's request belongs to the session too.
	if r := a.post(`{"jsonrpc":"2.0","id":9,"result":{"roots":[]}}`, with(id)); r.status != http.StatusAccepted {
		t.Errorf("the answer got %d %s", r.status, r.body)
	}
	if got := w.upstream.calls(`"roots"`); got[len(got)-1].body != `{"id":9,"jsonrpc":"2.0","result":{"roots":[]}}` {
		t.Errorf("the answer went upstream as %s", got[len(got)-1].body)
	}
}

func TestResumedStreamsBelongToTheirSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(sessionUpstream), nil)
	a := w.actor("payroll")
	id := openSession(t, a)
	get := func(a *actor, session, last string) reply {
		return a.do(a.request(http.MethodGet, "", func(r *http.Request) {
			r.Header.Set("Mcp-Session-Id", session)
			if last != "" {
				r.Header.Set("Last-Event-ID", last)
			}
		}))
	}
	r := get(a, id, "")
	if r.status != http.StatusOK || r.header.Get("Content-Type") != "text/event-stream" || !strings.Contains(r.body, `"roots/list"`) || !strings.Contains(r.body, "retry: 500\n") {
		t.Fatalf("the stream is %d %s", r.status, r.body)
	}
	if strings.Contains(r.body, "list_payees") || strings.Contains(r.body, "hidden") || !strings.Contains(r.body, "get_balance") {
		t.Fatalf("a list on the stream is not filtered: %s", r.body)
	}
	event := r.body[strings.Index(r.body, "id: ")+4:]
	event = event[:strings.IndexByte(event, '\n')]
	if r := get(a, id, event); r.status != http.StatusOK {
		t.Fatalf("resuming got %d %s", r.status, r.body)
	}
	all := w.upstream.all()
	if got := all[len(all)-1]; got.header.Get("Last-Event-Id") != "e1" || got.header.Get("Accept") != "text/event-stream" {
		t.Fatalf("the upstream got %v", got.header)
	}
	// The upstream would replay anybody's stream: TP17.
	other := w.actor("other")
	otherID := openSession(t, other)
	before := len(w.upstream.all())
	wantHTTP(t, get(other, otherID, event), http.StatusNotFound, counterfoil.ToolUnknown)
	wantHTTP(t, get(a, id, "e1"), http.StatusNotFound, counterfoil.ToolUnknown)
	if len(w.upstream.all()) != before {
		t.Fatal("it went upstream")
	}
	if r := a.do(a.request(http.MethodDelete, "", func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) })); r.status != http.StatusNoContent {
		t.Fatalf("DELETE got %d %s", r.status, r.body)
	}
	var ends []string
	for _, e := range w.log.of(ledger.CallFinished) {
		ends = append(ends, e.Tool+" "+e.Outcome)
	}
	if got := strings.Join(ends, ", "); !strings.Contains(got, "bank/GET succeeded") || !strings.HasSuffix(got, "bank/DELETE succeeded") {
		t.Errorf("the ends are %s", got)
	}
}

func TestAnUpstreamWithoutGETOrWithTheSessionGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(sessionUpstream), nil)
	a := w.actor("payroll")
	id := openSession(t, a)
	with := func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) }
	w.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusMethodNotAllowed) }))
	r := a.do(a.request(http.MethodGet, "", with))
	wantHTTP(t, r, http.StatusMethodNotAllowed, counterfoil.MethodForbidden)
	w.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "session not found", http.StatusNotFound) }))
	wantHTTP(t, a.post(ping, with), http.StatusNotFound, counterfoil.ToolUnknown)
	wantHTTP(t, a.do(a.request(http.MethodGet, "", with)), http.StatusNotFound, counterfoil.ToolUnknown)
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	answer := rev2025
	w := newWorld(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"`+answer+`","capabilities":{},"supportedVersions":["2026-07-28","2025-03-26"],"resultType":"complete","cacheScope":"public"}}`)
	}), nil)
	a := w.actor("payroll")
	for asked, forwarded := range map[string]string{rev2025: rev2025, "2025-06-18": "2025-06-18", "2024-11-05": rev2025, rev2026: rev2025} {
		wantDone(t, a.post(strings.Replace(initialize, rev2025, asked, 1), func(r *http.Request) { r.Header.Del("MCP-Protocol-Version") }))
		all := w.upstream.all()
		if got := all[len(all)-1].body; !strings.Contains(got, `"protocolVersion":"`+forwarded+`"`) {
			t.Errorf("%s went upstream as %s", asked, got)
		}
	}
	discover := a.post(`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{`+meta2026+`}}`, func(r *http.Request) {
		r.Header.Set("MCP-Protocol-Version", rev2026)
		r.Header.Set("Mcp-Method", "server/discover")
	})
	if !strings.Contains(discover.body, `"supportedVersions":["2026-07-28"]`) || !strings.Contains(discover.body, `"private"`) {
		t.Errorf("discover says %s", discover.body)
	}
	// An upstream that speaks nothing that we do.
	answer = "2025-03-26"
	wantHTTP(t, a.post(initialize, nil), http.StatusBadGateway, counterfoil.UpstreamUnavailable)
}

func TestAnUpstreamOfTheOldRevision(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	discover := func() reply {
		return a.post(`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{`+meta2026+`}}`, func(r *http.Request) {
			r.Header.Set("MCP-Protocol-Version", rev2026)
			r.Header.Set("Mcp-Method", "server/discover")
		})
	}
	wantDone(t, discover())
	w.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Bad Request: no session", http.StatusBadRequest)
	}))
	if p := wantHTTP(t, discover(), http.StatusBadRequest, counterfoil.RequestMalformed); p.JSONRPC != "" {
		t.Error("a client would take the upstream for a modern one")
	}
	w.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"no","data":{"supported":["2025-11-25","2024-11-05"],"requested":"2026-07-28"}}}`)
	}))
	if r := discover(); r.status != http.StatusBadRequest || !strings.Contains(r.body, `"supported":["2025-11-25"]`) || !strings.Contains(r.body, `"id":1`) {
		t.Errorf("got %d %s", r.status, r.body)
	}
}
