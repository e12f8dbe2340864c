package attacks

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// A streamer is an upstream with sessions that checks nothing: it answers
// whoever names a session and replays any stream to whoever names an event of
// it. Its streams go on until they are cut.
type streamer struct{ requests, streams atomic.Int64 }

func (u *streamer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.requests.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	reply := func(result string) {
		w.Header().Set("Content-Type", "application/json")
		id := string(body[strings.Index(string(body), `"id":`)+len(`"id":`):])
		io.WriteString(w, `{"jsonrpc":"2.0","id":`+id[:strings.IndexByte(id, ',')]+`,"result":`+result+`}`)
	}
	switch text := string(body); {
	case r.Method == http.MethodGet:
		u.streams.Add(1)
		defer u.streams.Add(-1)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "id: e1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"private\"}}\n\n")
		_ = http.NewResponseController(w).Flush() // the reader will miss it
		<-r.Context().Done()
	case r.Method == http.MethodDelete:
	case strings.Contains(text, `"initialize"`):
		w.Header().Set("Mcp-Session-Id", "session-of-"+fmt.Sprint(u.requests.Load()))
		reply(`{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"logging":{}},"serverInfo":{"name":"s","version":"1"}}`)
	case strings.Contains(text, `"tools/list"`):
		reply(`{"tools":[{"name":"say","inputSchema":{"type":"object"}}]}`)
	case !strings.Contains(text, `"id":`):
		w.WriteHeader(http.StatusAccepted)
	default:
		reply(`{"content":[{"type":"text","text":"done"}]}`)
	}
}

// A guest is an agent in a session of the streamer's.
type guest struct {
	w       *world
	actor   *actor
	room    string // the resource; "room" when empty
	token   string // got when empty
	session string
	event   string // the id of an event of its stream
}

func (g *guest) url() string { return g.w.Issuer() + "/r/" + cmp.Or(g.room, "room") }

// request makes an honest request in the guest's session.
func (g *guest) request(method, body string) *call {
	g.actor.compact, g.actor.got = g.token, g.w.Clock.Now()
	q := g.w.callOf(g.actor, "say", `{}`)
	g.w.at(q, g.url(), g.token)
	q.method, q.body = method, body
	q.proof.Claims["htm"] = method
	q.header = http.Header{"Accept": {"application/json, text/event-stream"}, "Mcp-Protocol-Version": {"2025-11-25"}}
	if body != "" {
		q.header["Content-Type"] = []string{"application/json"}
	}
	if g.session != "" {
		q.header["Mcp-Session-Id"] = []string{g.session}
	}
	return q
}

const sayIt = `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"say","arguments":{}}}`

// enter initializes a session and opens its stream, of which it returns the
// rest after the first event.
func (g *guest) enter(t *testing.T) io.ReadCloser {
	t.Helper()
	if g.token == "" {
		g.token = g.w.tokenFor(g.actor, g.url())
	}
	q := g.request(http.MethodPost, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	delete(q.header, "Mcp-Protocol-Version")
	got := g.w.sendCall(q)
	if g.session = got.header.Get("Mcp-Session-Id"); !got.passed() || g.session == "" {
		t.Fatalf("initializing: %s", got)
	}
	if got := g.w.sendCall(g.request(http.MethodPost, sayIt)); !got.passed() {
		t.Fatalf("a call in the session: %s", got)
	}
	return g.listen(t, "")
}

// listen opens the session's stream and reads one event.
func (g *guest) listen(t *testing.T, last string) io.ReadCloser {
	t.Helper()
	q := g.request(http.MethodGet, "")
	if last != "" {
		q.header["Last-Event-Id"] = []string{last}
	}
	resp, err := g.w.client.Do(g.w.request(q))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("opening the stream: HTTP %d %s", resp.StatusCode, b)
	}
	from := bufio.NewReader(resp.Body)
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			t.Fatalf("reading the stream: %v", err)
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			g.event = strings.TrimSpace(id)
		}
		if strings.HasPrefix(line, "data: ") && strings.Contains(line, "private") {
			return struct {
				io.Reader
				io.Closer
			}{from, resp.Body}
		}
	}
}

// TestSessionsOfTheRevoked, TP17 and RV7: a session gives nothing that token and proof do not
// give, and another agent's gives nothing at all.
func TestSessionsOfTheRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	room := &streamer{}
	manifest := fmt.Sprintf("kind: Resource\nname: room\ntype: mcp\nenvironment: prod\nupstream: %s/mcp\ntools: [{name: say, class: read}]\n", w.Upstream(counterfoiltest.NewRecorder(room)))
	for _, name := range []string{"suspended", "offboarded", "neighbour"} {
		manifest += "---\nkind: Agent\nname: " + name + "\nowner: ana\nenvironment: prod\ngrants: [{tools: [room/say]}]\n"
	}
	w.Apply(manifest)
	neighbour := &guest{w: w, actor: w.actor("neighbour")}
	defer neighbour.enter(t).Close()
	for _, tc := range []struct {
		name   string
		revoke func()
		code   counterfoil.Code
	}{
		{"suspended", func() { w.Suspend("suspended") }, counterfoil.AgentSuspended},
		{"offboarded", func() { w.Offboard("offboarded") }, counterfoil.TokenRevoked},
	} {
		t.Run("TP17 "+tc.name, func(t *testing.T) {
			defer w.in(t)()
			g := &guest{w: w, actor: w.actor(tc.name)}
			stream := g.enter(t)
			defer stream.Close()
			// The control: the same agent's stream is resumed, and the neighbour's not.
			g.listen(t, g.event).Close()
			before := room.requests.Load()
			for name, bend := range map[string]func(q *call){
				"another's session":        func(q *call) { q.header["Mcp-Session-Id"] = []string{g.session} },
				"another's event":          func(q *call) { q.header["Last-Event-Id"] = []string{g.event} },
				"the upstream's own event": func(q *call) { q.header["Last-Event-Id"] = []string{"e1"} },
				"another's session, event": func(q *call) {
					q.header["Mcp-Session-Id"], q.header["Last-Event-Id"] = []string{g.session}, []string{g.event}
				},
				"the upstream's session id": func(q *call) { q.header["Mcp-Session-Id"] = []string{"session-of-1"} },
			} {
				q := neighbour.request(http.MethodGet, "")
				bend(q)
				if got := w.sendCall(q); got.status != http.StatusNotFound || got.code != counterfoil.ToolUnknown {
					t.Errorf("%s: %s", name, got)
				}
			}
			if after := room.requests.Load(); after != before {
				t.Errorf("%d of them reached the upstream", after-before)
			}

			tc.revoke()
			before = room.requests.Load()
			from := w.size()
			if rest, err := io.ReadAll(stream); len(rest) > 0 && strings.Contains(string(rest), "private") {
				t.Errorf("the stream went on: %q, %v", rest, err)
			} else if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the stream was not cut: %v", err)
			}
			for name, q := range map[string]*call{
				"a call in the session":   g.request(http.MethodPost, sayIt),
				"the session's stream":    g.request(http.MethodGet, ""),
				"its stream again":        g.request(http.MethodGet, ""),
				"the end of the session":  g.request(http.MethodDelete, ""),
				"a notification":          g.request(http.MethodPost, `{"jsonrpc":"2.0","method":"notifications/initialized"}`),
				"an answer to the server": g.request(http.MethodPost, `{"jsonrpc":"2.0","id":9,"result":{}}`),
			} {
				if name == "its stream again" {
					q.header["Last-Event-Id"] = []string{g.event}
				}
				if got := w.sendCall(q); got.status != http.StatusUnauthorized || got.code != tc.code {
					t.Errorf("%s: %s", name, got)
				}
			}
			if after := room.requests.Load(); after != before {
				t.Errorf("%d requests reached the upstream", after-before)
			}
			for _, e := range w.since(from) {
				if e.Kind == ledger.CallDecided && e.Decision == ledger.Allow {
					t.Errorf("allowed after the revocation: %+v", e)
				}
			}
			// The control: the neighbour's session goes on.
			if got := w.sendCall(neighbour.request(http.MethodPost, sayIt)); !got.passed() {
				t.Errorf("the neighbour: %s", got)
			}
		})
	}
	w.Entries() // the record verifies; a stream that was cut has an end that nobody knows
}
