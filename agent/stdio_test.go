package agent_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
)

// A session is a client's end of Stdio.
type session struct {
	t     *testing.T
	in    *io.PipeWriter
	lines *bufio.Scanner
	out   *io.PipeReader
	ended chan error
}

func startStdio(t *testing.T, c *agent.Connector) *session {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	s := &session{t: t, in: inW, out: outR, lines: bufio.NewScanner(outR), ended: make(chan error, 1)}
	s.lines.Buffer(nil, 32<<20)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		s.ended <- c.Stdio(ctx, inR, outW)
		_ = outW.Close()
	}()
	t.Cleanup(func() {
		cancel()
		_ = inW.Close()
		_ = outR.Close()
	})
	return s
}

func (s *session) send(lines ...string) {
	s.t.Helper()
	for _, l := range lines {
		if _, err := io.WriteString(s.in, l+"\n"); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *session) want(line string) {
	s.t.Helper()
	if got := s.next(); got != line {
		s.t.Fatalf("got  %s\nwant %s", got, line)
	}
}

func (s *session) next() string {
	s.t.Helper()
	if !s.lines.Scan() {
		s.t.Fatalf("the output ended: %v", s.lines.Err())
	}
	return s.lines.Text()
}

// wantError reads an error reply to the id.
func (s *session) wantError(id string, code int, text string) {
	s.t.Helper()
	line := s.next()
	if !strings.HasPrefix(line, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,`, id, code)) || !strings.Contains(line, text) {
		s.t.Fatalf("got %s\nwant error %d for %s with %q", line, code, id, text)
	}
}

// close ends the input and waits.
func (s *session) close() {
	s.t.Helper()
	_ = s.in.Close()
	for s.lines.Scan() {
		s.t.Errorf("one more line: %s", s.lines.Text())
	}
	if err := <-s.ended; err != nil {
		s.t.Error(err)
	}
}

func TestUnmodifiedMCPClientOverStdio(t *testing.T) {
	t.Parallel()
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(revision, func(t *testing.T) {
			t.Parallel()
			w, bank := openBank(t)
			w.verifier.Nonces = always()
			testSDK(t, w, bank, revision)
		})
	}
}

func testSDK(t *testing.T, w *world, bank *bankserver.Bank, revision string) {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- w.connector().Stdio(context.Background(), inR, outW)
		_ = outW.Close()
	}()
	s, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
		ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) {}, // makes 2026-07-28 subscribe
	}).Connect(t.Context(), &mcp.IOTransport{Reader: outR, Writer: inW}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		t.Fatal(err)
	}
	callBank(t, s, bank, revision)
	// Many at once, each with its own answer.
	results := make(chan error, 32)
	for i := range cap(results) {
		go func() {
			account := []string{"operating", "reserve"}[i%2]
			res, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_balance", Arguments: map[string]any{"account": account}})
			if err == nil && !strings.Contains(res.Content[0].(*mcp.TextContent).Text, account) {
				err = fmt.Errorf("asked for %s, got %+v", account, res.Content[0])
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A request is what a scripted server saw.
type request struct {
	method, body string
	header       http.Header
}

// scripted is an upstream that reports each request and answers as the function
// says.
func scripted(seen chan<- request, answer func(http.ResponseWriter, *http.Request, string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if seen != nil {
			seen <- request{r.Method, string(b), r.Header.Clone()}
		}
		answer(w, r, string(b))
	})
}

func answerJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// method returns the method of a message.
func method(body string) string {
	var m struct {
		Method string `json:"method"`
	}
	_ = json.Unmarshal([]byte(body), &m)
	return m.Method
}

const initialized = `{"jsonrpc":"2.0","method":"notifications/initialized"}`

func TestStdioOfARevisionWithSessions(t *testing.T) {
	t.Parallel()
	seen := make(chan request, 16)
	push, pushed := make(chan string), make(chan struct{})
	w := newWorld(t, scripted(seen, func(rw http.ResponseWriter, r *http.Request, body string) {
		switch {
		case r.Method == "GET":
			rw.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(rw).Flush()
			for {
				select {
				case m := <-push:
					fmt.Fprintf(rw, "data: %s\n\n", m)
					_ = http.NewResponseController(rw).Flush()
				case <-r.Context().Done():
					close(pushed)
					return
				}
			}
		case r.Method == "DELETE":
			rw.WriteHeader(204)
		case method(body) == "initialize":
			rw.Header().Set("Mcp-Session-Id", "s-1")
			answerJSON(rw, 200, "{\n \"jsonrpc\":\"2.0\",\"id\":0,\n \"result\":{\"protocolVersion\":\"2025-11-25\",\"big\":12345678901234567890}}")
		case strings.Contains(body, `"id"`) && method(body) != "":
			answerJSON(rw, 200, `{"jsonrpc":"2.0","id":"a\u0062","result":{}}`)
		default:
			rw.WriteHeader(202)
		}
	}))
	s := startStdio(t, w.connector())

	s.send(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}`)
	s.want(`{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","big":12345678901234567890}}`)
	r := <-seen
	if r.header.Get("Mcp-Session-Id") != "" || r.header.Get("Mcp-Protocol-Version") != "" || r.header.Get("Accept") != "application/json, text/event-stream" {
		t.Errorf("initialize came with %v", r.header)
	}
	check := func(r request, method string) {
		t.Helper()
		if r.method != method || r.header.Get("Mcp-Session-Id") != "s-1" || r.header.Get("Mcp-Protocol-Version") != "2025-11-25" || r.header.Get("Mcp-Method") != "" {
			t.Errorf("%s came with %v", r.method, r.header)
		}
	}
	s.send(initialized)
	check(<-seen, "POST")
	check(<-seen, "GET") // the server's own stream is opened now

	s.send(`{"jsonrpc":"2.0","id":"ab","method":"ping"}`)
	s.want(`{"jsonrpc":"2.0","id":"a\u0062","result":{}}`)
	check(<-seen, "POST")

	// The server asks the client, on its stream, and gets an answer.
	push <- `{"jsonrpc":"2.0","id":1,"method":"roots/list"}`
	s.want(`{"jsonrpc":"2.0","id":1,"method":"roots/list"}`)
	s.send(`{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}`)
	if r := <-seen; r.body != `{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}` {
		t.Errorf("the answer arrived as %s", r.body)
	}
	// Such a revision cancels by a notification, also of unknown calls.
	s.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`)
	if r := <-seen; method(r.body) != "notifications/cancelled" {
		t.Errorf("the cancellation arrived as %s", r.body)
	}
	s.close()
	<-pushed
	check(<-seen, "DELETE")
}

const modern = `"params":{"name":"é","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`

func TestStdioOf20260728(t *testing.T) {
	t.Parallel()
	seen := make(chan request, 16)
	goOn, gone := make(chan struct{}), make(chan struct{})
	w := newWorld(t, scripted(seen, func(rw http.ResponseWriter, r *http.Request, body string) {
		rw.Header().Set("Content-Type", "text/event-stream")
		flush := func(s string) {
			fmt.Fprint(rw, s)
			_ = http.NewResponseController(rw).Flush()
		}
		switch method(body) {
		case "tools/call":
			flush("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1}}\n\n")
			<-goOn
			flush(": comment\nid: 5\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{}}\n\n")
		case "slow":
			flush("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":0}}\n\n")
			<-r.Context().Done()
			close(gone)
		case "subscriptions/listen":
			flush("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\"}\n\n")
		default:
			rw.Header().Set("Content-Type", "application/json")
			answerJSON(rw, 202, "")
		}
	}))
	s := startStdio(t, w.connector())
	s.send(`{"jsonrpc":"2.0","id":1,"method":"tools/call",` + modern)
	// Progress comes through before the answer is there.
	s.want(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}`)
	close(goOn)
	s.want(`{"jsonrpc":"2.0","id":1,"result":{}}`)
	r := <-seen
	for name, want := range map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "=?base64?w6k=?=", "Mcp-Session-Id": ""} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// A cancelled call's stream is closed; no notification is sent, no answer
	// comes.
	s.send(`{"jsonrpc":"2.0","id":"x","method":"slow",` + modern)
	s.want(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":0}}`)
	<-seen
	s.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}`)
	<-gone
	// A subscription that the server lets go of is over for the client too.
	s.send(`{"jsonrpc":"2.0","id":2,"method":"subscriptions/listen",` + modern)
	s.want(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}`)
	s.want(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2,"reason":"the stream ended"}}`)
	if r := <-seen; method(r.body) != "subscriptions/listen" {
		t.Errorf("next arrived %s", r.body)
	}
	// What names no revision goes under the conversation's.
	s.send(`{"jsonrpc":"2.0","method":"notifications/something"}`)
	if r := <-seen; r.header.Get("Mcp-Protocol-Version") != "2026-07-28" || r.header.Get("Mcp-Method") != "notifications/something" {
		t.Errorf("the notification came with %v", r.header)
	}
	s.close()
	if len(seen) != 0 {
		t.Errorf("at the end came %+v", <-seen)
	}
}

// TestStdioMirrorsArguments: over HTTP a tool may ask for headers that repeat
// its arguments, which a client over stdio cannot know.
func TestStdioMirrorsArguments(t *testing.T) {
	t.Parallel()
	seen := make(chan request, 4)
	w := newWorld(t, scripted(seen, func(rw http.ResponseWriter, _ *http.Request, body string) {
		if method(body) == "tools/list" {
			answerJSON(rw, 200, `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"plain","inputSchema":true},{"name":"pay","inputSchema":{"properties":{
				"region":{"type":"string","x-mcp-header":"Region"},"deep":{"properties":{"n":{"x-mcp-header":"N"},"f":{"x-mcp-header":"F"}}},
				"dry":{"x-mcp-header":"Dry"},"gone":{"x-mcp-header":"Gone"},"bad":{"x-mcp-header":"a b"},"any":true}}}]}}`)
			return
		}
		answerJSON(rw, 200, `{"jsonrpc":"2.0","id":2,"result":{}}`)
	}))
	s := startStdio(t, w.connector())
	meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`
	s.send(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{` + meta + `}}`)
	s.next()
	<-seen
	s.send(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"pay","arguments":{"region":"Zürich","deep":{"n":42.0,"f":1.5},"dry":true,"gone":null,"bad":"x"},` + meta + `}}`)
	s.next()
	got := map[string]string{}
	for name, v := range (<-seen).header {
		if strings.HasPrefix(name, "Mcp-Param-") {
			got[name] = strings.Join(v, ",")
		}
	}
	want := map[string]string{"Mcp-Param-Region": "=?base64?WsO8cmljaA==?=", "Mcp-Param-N": "42", "Mcp-Param-Dry": "true"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	s.close()
}

func TestStdioAnswersEveryCall(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		answer func(http.ResponseWriter)
		code   int
		text   string
	}{
		{"problem", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(413)
			_, _ = io.WriteString(w, `{"code":"payload_too_large","detail":"less","request_id":"req_9"}`)
		}, -32603, `"message":"payload_too_large: less (request req_9)","data":{"code":"payload_too_large"`},
		{"error for the call", func(w http.ResponseWriter) {
			answerJSON(w, 404, `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}`)
		}, -32601, `"message":"no"`},
		{"error for nobody", func(w http.ResponseWriter) {
			answerJSON(w, 400, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}`)
		}, -32700, `"message":"what?"`},
		{"another call's answer", func(w http.ResponseWriter) { answerJSON(w, 200, `{"jsonrpc":"2.0","id":2,"result":{}}`) }, -32603, "not the response"},
		{"accepted", func(w http.ResponseWriter) { w.WriteHeader(202) }, -32603, "202"},
		{"page", func(w http.ResponseWriter) { http.Error(w, "<html>", 500) }, -32603, "500"},
		{"cut JSON", func(w http.ResponseWriter) { answerJSON(w, 200, `{"jsonrpc":`) }, -32603, "not the response"},
		{"empty stream", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/event-stream") }, -32603, "before the answer"},
		{"stream of something else", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			_, _ = io.WriteString(w, "data: nonsense\n\n")
		}, -32603, "not a message"},
		{"cut connection", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, -32603, "upstream_unavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { tc.answer(rw) }))
			s := startStdio(t, w.connector())
			s.send(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
			s.wantError("1", tc.code, tc.text)
			s.close()
		})
	}
}

func TestStdioRefusesWhatIsNotOneMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		answerJSON(rw, 200, `{"jsonrpc":"2.0","id":9,"result":{}}`)
	}))
	s := startStdio(t, w.connector())
	for _, tc := range []struct {
		line, id string
		code     int
	}{
		{`{`, "null", -32700},
		{`[{"jsonrpc":"2.0","id":1,"method":"ping"}]`, "null", -32700},
		{`{"jsonrpc":"2.0","id":{},"method":"ping"}`, "null", -32600},
		{`{"jsonrpc":"2.0","id":3,"method":"ping","params":{"n":9007199254740993}}`, "3", -32600},
		{`{"jsonrpc":"2.0","id":"x","method":"ping","Method":"tools/call"}`, `"x"`, -32600},
	} {
		s.send(tc.line)
		s.wantError(tc.id, tc.code, "payload_malformed")
	}
	s.send(`{"x":"` + strings.Repeat("x", 4<<20) + `"}`)
	s.wantError("null", -32600, "payload_too_large")
	if w.requests.Load() != 0 {
		t.Error("something was sent on")
	}
	s.send("", "  \r", `{"jsonrpc":"2.0","id":9,"method":"ping"}`+"\r")
	s.want(`{"jsonrpc":"2.0","id":9,"result":{}}`)
	s.close()
}

func TestStdioResumesAStream(t *testing.T) {
	t.Parallel()
	var posts atomic.Int64
	w := newWorld(t, scripted(nil, func(rw http.ResponseWriter, r *http.Request, body string) {
		rw.Header().Set("Content-Type", "text/event-stream")
		switch {
		case method(body) == "initialize":
			fmt.Fprint(rw, "data: {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"protocolVersion\":\"2025-11-25\"}}\n\n")
		case r.Method == "POST":
			posts.Add(1)
			fmt.Fprint(rw, "id: e1\nretry: 1\ndata:\n\n") // "come back for the rest"
		case r.Header.Get("Last-Event-ID") == "e1":
			fmt.Fprint(rw, "id: e2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n")
		case r.Header.Get("Last-Event-ID") == "e2":
			fmt.Fprint(rw, "id: e3\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n")
		default:
			rw.WriteHeader(405)
		}
	}))
	s := startStdio(t, w.connector())
	s.send(`{"jsonrpc":"2.0","id":0,"method":"initialize"}`)
	s.want(`{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25"}}`)
	s.send(`{"jsonrpc":"2.0","id":1,"method":"tools/call"}`)
	s.want(`{"jsonrpc":"2.0","method":"notifications/progress"}`)
	s.want(`{"jsonrpc":"2.0","id":1,"result":{}}`)
	s.close()
	if posts.Load() != 1 {
		t.Errorf("the call was sent %d times", posts.Load())
	}
}

func TestStdioAnswersRunningCallsWhenTheInputEnds(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-goOn
		answerJSON(rw, 200, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	}))
	s := startStdio(t, w.connector())
	s.send(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	s.send(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	s.wantError("1", -32600, "still running")
	<-arrived
	_ = s.in.Close()
	close(goOn)
	s.want(`{"jsonrpc":"2.0","id":1,"result":{}}`)
	s.close()
}

func TestStdioEndsWithItsContext(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	w := newWorld(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // from then on a server notices that a client left
		close(arrived)
		<-r.Context().Done()
	}))
	inR, inW := io.Pipe()
	defer inW.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.connector().Stdio(ctx, inR, io.Discard) }()
	if _, err := io.WriteString(inW, `{"jsonrpc":"2.0","id":1,"method":"ping"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	<-arrived
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestStdioEndsWhenTheClientIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		answerJSON(rw, 200, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	}))
	s := startStdio(t, w.connector())
	_ = s.out.Close()
	s.send(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	if err := <-s.ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("ended with %v", err)
	}
}
