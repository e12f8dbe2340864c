package attacks

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// A wire is a request as the bytes that go over the connection, for what no HTTP
// client sends.
type wire struct {
	line   string
	fields []string // "Name: value", without the line break
	body   string
	after  string // what follows the body

	eol   string // of the head; CR LF when empty
	open  bool   // leaves the connection open on our side: no Connection: close
	ended bool   // says that nothing more comes, for a request that is cut short
}

// wire signs a call and writes it as its own bytes.
func (w *world) wire(q *call) *wire {
	w.T.Helper()
	r := w.request(q)
	x := &wire{line: r.Method + " " + r.URL.RequestURI() + " HTTP/1.1", body: q.body}
	x.fields = append(x.fields, "Host: "+r.URL.Host)
	for name, values := range r.Header {
		for _, v := range values {
			x.fields = append(x.fields, name+": "+v)
		}
	}
	slices.Sort(x.fields[1:])
	x.set("Content-Length", strconv.Itoa(len(q.body)))
	return x
}

// set replaces a field, or removes it when the value is "-".
func (x *wire) set(name, value string) {
	x.fields = slices.DeleteFunc(x.fields, func(f string) bool { return strings.HasPrefix(f, name+":") })
	if value != "-" {
		x.fields = append(x.fields, name+": "+value)
	}
}

// chunked sends the body in one chunk.
func (x *wire) chunked() {
	x.set("Content-Length", "-")
	x.set("Transfer-Encoding", "chunked")
	x.body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(x.body), x.body)
}

func (x *wire) bytes() string {
	eol := x.eol
	if eol == "" {
		eol = "\r\n"
	}
	head := append([]string{x.line}, x.fields...)
	if !x.open {
		head = append(head, "Connection: close")
	}
	return strings.Join(head, eol) + eol + eol + x.body + x.after
}

// sendWire sends the bytes and returns the answers to the end of the connection.
func (w *world) sendWire(x *wire) []answer {
	w.T.Helper()
	return w.sendRaw([]byte(x.bytes()), x.ended)
}

// sendRaw sends bytes, and the end of what is sent where that is wanted, and
// returns the answers to the end of the connection. Nothing is copied, so that what
// is allocated meanwhile is the server's.
func (w *world) sendRaw(request []byte, end bool) []answer {
	w.T.Helper()
	u, err := url.Parse(w.Issuer())
	if err != nil {
		w.T.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		w.T.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(counterfoiltest.Timeout)); err != nil {
		w.T.Fatal(err)
	}
	// A server that has refused may have closed before all was written.
	_, _ = conn.Write(request)
	if end {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	return readAnswers(conn)
}

// readAnswers reads answers to the end of a connection.
func readAnswers(conn io.Reader) []answer {
	var answers []answer
	from := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(from, nil)
		if err != nil {
			return answers
		}
		body, _ := io.ReadAll(resp.Body) // what came before a reset counts
		resp.Body.Close()
		answers = append(answers, read(resp.StatusCode, resp.Header, body))
	}
}

// A tap is an upstream that takes nothing for granted: it reads its connections
// byte by byte, so that what a lenient server would mend or leave out shows. It
// answers every tools/call with "done".
type tap struct {
	t   testing.TB
	url string

	mu    sync.Mutex
	tools string   // what tools/list says
	mood  string   // how a tools/call is answered; empty: with "done"
	got   []tapped // every request but those for the list of tools
	lists int
	odd   []string // what was no well-formed request

	plain func(tapped) string // answers every request, of any kind, where it is set
}

// A tapped request is one that reached the tap.
type tapped struct {
	line   string
	fields []string
	body   string
	args   string // of a tools/call, as they stand in the body
}

// tapResults are the tap's answers to what is neither tools/list nor tools/call.
var tapResults = map[string]string{
	"initialize":               `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"tap","version":"1"}}`,
	"server/discover":          `{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"tap","version":"1"},"ttlMs":1,"cacheScope":"private","resultType":"complete"}`,
	"resources/list":           `{"resources":[],"ttlMs":1,"cacheScope":"private","resultType":"complete"}`,
	"resources/templates/list": `{"resourceTemplates":[],"ttlMs":1,"cacheScope":"private","resultType":"complete"}`,
	"resources/read":           `{"contents":[],"ttlMs":1,"cacheScope":"private","resultType":"complete"}`,
	"prompts/list":             `{"prompts":[],"ttlMs":1,"cacheScope":"private","resultType":"complete"}`,
	"prompts/get":              `{"messages":[],"resultType":"complete"}`,
	"completion/complete":      `{"completion":{"values":[]},"resultType":"complete"}`,
}

// Moods of a tap.
const (
	saysNo        = "says no"        // isError
	turnsAway     = "turns it away"  // 403
	talksNonsense = "talks nonsense" // 200, and no JSON
	hangsUp       = "hangs up"       // after it has got the call
)

const tapTools = `[{"name":"echo","description":"Says done","inputSchema":{"type":"object"}},{"name":"once","inputSchema":{"type":"object"}}]`

func newTap(t testing.TB) *tap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &tap{t: t, url: "http://" + ln.Addr().String() + "/mcp", tools: tapTools}
	var open sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	open.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			open.Go(func() { u.serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		open.Wait()
	})
	return u
}

// serve reads one connection: requests of RFC 9112 with a Content-Length, and
// nothing else.
func (u *tap) serve(conn net.Conn) {
	defer conn.Close()
	from := bufio.NewReader(conn)
	for {
		var head []string
		for {
			line, err := from.ReadString('\n')
			if err != nil {
				if line != "" || len(head) > 0 {
					u.note("a head that ends in %q after %q", line, head)
				}
				return
			}
			if !strings.HasSuffix(line, "\r\n") {
				u.note("a line that ends without CR: %q", line)
				return
			}
			if line = strings.TrimSuffix(line, "\r\n"); line == "" {
				break
			}
			head = append(head, line)
		}
		body, ok := u.body(head, from)
		if !ok {
			return
		}
		answer := u.answer(head, body)
		if _, err := io.WriteString(conn, answer); err != nil || answer == "" {
			return
		}
	}
}

func (u *tap) body(head []string, from io.Reader) (string, bool) {
	if len(head) == 0 {
		u.note("an empty line where a request begins")
		return "", false
	}
	length := -1
	for _, f := range head[1:] {
		name, value, ok := strings.Cut(f, ": ")
		if !ok || strings.ContainsAny(name, " \t") || strings.ContainsAny(value, "\r\n\x00") {
			u.note("a field %q", f)
			return "", false
		}
		switch strings.ToLower(name) {
		case "content-length":
			n, err := strconv.Atoi(value)
			if err != nil || length >= 0 {
				u.note("Content-Length %q after %d", value, length)
				return "", false
			}
			length = n
		case "transfer-encoding", "trailer", "te", "upgrade", "connection":
			u.note("a field %q", f)
		}
	}
	b := make([]byte, max(length, 0))
	if _, err := io.ReadFull(from, b); err != nil {
		u.note("a body that is shorter than %d: %v", length, err)
		return "", false
	}
	return string(b), true
}

func (u *tap) answer(head []string, body string) string {
	if u.plain != nil {
		got := tapped{line: head[0], fields: head[1:], body: body}
		u.mu.Lock()
		u.got = append(u.got, got)
		u.mu.Unlock()
		return u.plain(got)
	}
	var msg struct {
		ID     jsontext.Value `json:"id"`
		Method string         `json:"method"`
		Params struct {
			Arguments jsontext.Value `json:"arguments"`
		} `json:"params"`
	}
	if err := ijson.UnmarshalLax([]byte(body), &msg); err != nil {
		u.note("a body that is not JSON: %q", body)
	}
	result := `{"content":[{"type":"text","text":"done"}],"resultType":"complete"}`
	if other, ok := tapResults[msg.Method]; ok {
		result = other
	}
	u.mu.Lock()
	mood := ""
	if msg.Method == "tools/list" {
		u.lists++
		result = `{"tools":` + u.tools + `,"ttlMs":60000,"cacheScope":"public","resultType":"complete"}`
	} else {
		u.got = append(u.got, tapped{head[0], head[1:], body, string(msg.Params.Arguments)})
	}
	if msg.Method == "tools/call" {
		mood = u.mood
	}
	u.mu.Unlock()
	switch mood {
	case saysNo:
		result = `{"content":[{"type":"text","text":"no"}],"isError":true,"resultType":"complete"}`
	case turnsAway:
		return "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
	case talksNonsense:
		return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n<html>"
	case hangsUp:
		return ""
	}
	if len(msg.ID) == 0 {
		return "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
	}
	answer := `{"jsonrpc":"2.0","id":` + string(msg.ID) + `,"result":` + result + `}`
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
}

func (u *tap) note(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.odd = append(u.odd, fmt.Sprintf(format, args...))
}

// seen returns what reached the tap since the last time, and fails the test when
// something of it was no well-formed request.
func (u *tap) seen() []tapped {
	u.t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range u.odd {
		u.t.Errorf("the upstream saw %s", o)
	}
	got := u.got
	u.got, u.odd = nil, nil
	return got
}

// feel changes the tap's mood.
func (u *tap) feel(mood string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mood = mood
}

// offer replaces what the tap says that its tools are.
func (u *tap) offer(tools string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tools = tools
}

const tapManifest = `kind: Class
name: kept
tier: routine
payload: full
---
kind: Resource
name: tap
type: mcp
environment: prod
upstream: %s
resources: read
prompts: read
tools:
  - {name: echo, class: kept}
  - {name: once, class: read}
---
kind: Agent
name: tapper
owner: ana
environment: prod
grants:
  - tools: ["tap/*", tap/resources, tap/prompts]
`

// A tapWorld is a world with a tap, and an agent that may call its tools.
type tapWorld struct {
	*world
	*tap
	tapper *actor
	token  string
	got    time.Time
}

func newTapWorld(t *testing.T, options ...counterfoiltest.Option) *tapWorld {
	t.Helper()
	w := &tapWorld{world: newWorld(t, options...), tap: newTap(t)}
	w.Apply(fmt.Sprintf(tapManifest, w.tap.url))
	w.tapper = w.actor("tapper")
	return w
}

func (w *tapWorld) tapURL() string { return w.Issuer() + "/r/tap" }

// callTap makes an honest call of a tool of the tap.
func (w *tapWorld) callTap(tool, arguments string) *call {
	w.T.Helper()
	if now := w.Clock.Now(); w.token == "" || now.Sub(w.got) > 2*time.Minute {
		w.token, w.got = w.tokenFor(w.tapper, w.tapURL()), now
	}
	w.tapper.compact, w.tapper.got = w.token, w.Clock.Now()
	q := w.callOf(w.tapper, tool, arguments)
	w.at(q, w.tapURL(), w.token)
	return q
}
