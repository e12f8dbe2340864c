package attacks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

const socketManifest = `kind: Resource
name: live
type: http
environment: prod
upstream: %s
credential: {header: Authorization, prefix: "Bearer ", file: web-token}
tools:
  - {name: feed, method: GET, path: /feed, class: read, websocket: true}
  - {name: news, method: GET, path: /news, class: read}
---
kind: Agent
name: listener
owner: ana
environment: prod
grants:
  - tools: ["live/*"]
`

// TestWebSockets is TP14 where a tool says that it is a WebSocket: it is one with a token
// and a proof, other upgrades are none, what goes through shows nothing of the upstream's
// credential, and it ends with its agent.
func TestWebSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.secret("web-token", webSecret)
	shown := make(chan string, 16)
	// It repeats what it is sent, and its credential beside it.
	upstream := httptest.NewServer(websocket.Server{Handler: func(c *websocket.Conn) {
		shown <- c.Request().Header.Get("Authorization") + " " + c.Request().Header.Get("Dpop")
		for {
			var text string
			if websocket.Message.Receive(c, &text) != nil {
				return
			}
			if websocket.Message.Send(c, text+" "+c.Request().Header.Get("Authorization")) != nil {
				return
			}
		}
	}})
	t.Cleanup(upstream.Close)
	w.Apply(fmt.Sprintf(socketManifest, upstream.URL))
	a := w.actor("listener")
	url := w.Issuer() + "/r/live"
	token := w.tokenFor(a, url)

	upgrade := func(path, protocol string, bend func(*call)) answer {
		q := &call{
			method: http.MethodGet, url: url + path, scheme: "DPoP", token: token, header: http.Header{},
			proof: counterfoiltest.ForgeProof(t, a.signer, http.MethodGet, url+path, w.Clock.Now()),
		}
		if bend != nil {
			bend(q)
		}
		x := w.wire(q)
		x.set("Content-Length", "-")
		x.open = true
		x.fields = append(x.fields, "Connection: Upgrade", "Upgrade: "+protocol, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
		return w.firstAnswer(x)
	}
	for _, tc := range []struct {
		name, path, protocol string
		bend                 func(*call)
		status               int
		code                 counterfoil.Code
	}{
		{"as it should be", "/feed", "websocket", nil, 101, ""},
		{"without a proof", "/feed", "websocket", func(q *call) { q.proofs = []string{} }, 401, counterfoil.ProofMissing},
		{"a proof by another key", "/feed", "websocket", func(q *call) { q.proof = counterfoiltest.ForgeProof(t, w.stranger, "GET", q.url, w.Clock.Now()) }, 401, counterfoil.ProofKeyMismatch},
		{"a tool that is none", "/news", "websocket", nil, 400, counterfoil.RequestMalformed},
		{"h2c", "/feed", "h2c", nil, 400, counterfoil.RequestMalformed},
		{"two protocols", "/feed", "websocket, h2c", nil, 400, counterfoil.RequestMalformed},
	} {
		w.Clock.Advance(time.Second)
		got := upgrade(tc.path, tc.protocol, tc.bend)
		if got.status != tc.status || got.code != tc.code {
			t.Errorf("%s: %s, want %d %s", tc.name, got, tc.status, tc.code)
		}
		if got.status == 101 {
			if s := <-shown; s != "Bearer "+webSecret+" " {
				t.Errorf("the upstream was shown %q", s)
			}
		}
	}
	if got := w.sendCall(&call{method: "GET", url: url + "/feed", scheme: "DPoP", token: token, header: http.Header{},
		proof: counterfoiltest.ForgeProof(t, a.signer, "GET", url+"/feed", w.Clock.Now())}); got.status != 400 {
		t.Errorf("without an upgrade: %s", got)
	}

	w.Clock.Advance(time.Second)
	q := &call{method: "GET", url: url + "/feed", scheme: "DPoP", token: token, header: http.Header{}, proof: counterfoiltest.ForgeProof(t, a.signer, "GET", url+"/feed", w.Clock.Now())}
	signed := w.request(q).Header
	config, err := websocket.NewConfig(strings.Replace(url, "http://", "ws://", 1)+"/feed", w.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	config.Header = http.Header{"Authorization": signed["Authorization"], "DPoP": signed["Dpop"]}
	conn, err := config.DialContext(t.Context())
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	defer conn.Close()
	<-shown
	if err := conn.SetDeadline(time.Now().Add(counterfoiltest.Timeout)); err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"hello", strings.Repeat("x", 70000)} {
		if err := websocket.Message.Send(conn, said); err != nil {
			t.Fatal(err)
		}
		var heard string
		if err := websocket.Message.Receive(conn, &heard); err != nil {
			t.Fatal(err)
		}
		if want := said + " Bearer " + strings.Repeat("*", len(webSecret)); heard != want && heard != said+" "+strings.Repeat("*", len("Bearer ")+len(webSecret)) {
			t.Errorf("heard %.200q", heard)
		}
	}
	w.Suspend("listener")
	var heard string
	if err := websocket.Message.Receive(conn, &heard); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the agent was suspended: %q %v", heard, err)
	}
	w.CheckLedgerBut(1) // what was cut when its agent was suspended
}

// firstAnswer sends a request, reads one answer and hangs up.
func (w *world) firstAnswer(x *wire) answer {
	w.T.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.Issuer(), "http://"))
	if err != nil {
		w.T.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(counterfoiltest.Timeout)); err != nil {
		w.T.Fatal(err)
	}
	if _, err := io.WriteString(conn, x.bytes()); err != nil {
		w.T.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.T.Fatalf("no answer to %q: %v", x.line, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return read(resp.StatusCode, resp.Header, nil)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.T.Fatal(err)
	}
	return read(resp.StatusCode, resp.Header, body)
}
