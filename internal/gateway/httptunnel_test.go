package gateway_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A socketUpstream opens a WebSocket with some headers more, says who it is, and listens
// until it is closed.
func socketUpstream(more string, asked chan<- http.Header) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Clone()
		conn, buf, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"+more+"\r\n")
		io.WriteString(conn, "hello\n")
		_, _ = io.Copy(io.Discard, buf) // until it is closed
	}
}

// open asks for a WebSocket and returns the connection after the answer to that.
func (c *client) open(t *testing.T) (*http.Response, *bufio.Reader, net.Conn) {
	t.Helper()
	r := c.call("GET", "/chat", "", func(r *http.Request) {
		for name, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
			"Sec-Websocket-Protocol": "admin, chat",
		} {
			r.Header.Set(name, value)
		}
	})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, r)
	if err != nil {
		t.Fatal(err)
	}
	return res, in, conn
}

// TestAWebSocketHasNoSubprotocol: nobody decided on one, so none is asked for, and what an
// upstream opens with one all the same is not passed on.
func TestAWebSocketHasNoSubprotocol(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		more   string
		status int
	}{
		{"", 101},
		{"Sec-WebSocket-Protocol: admin\r\n", 502},
		{"Sec-WebSocket-Extensions: permessage-deflate\r\n", 502},
	} {
		o, c := newCRM(t, nil, nil)
		asked := make(chan http.Header, 1)
		o.upstream.raw(socketUpstream(tc.more, asked))
		res, in, conn := c.open(t)
		if h := <-asked; h["Sec-Websocket-Protocol"] != nil || h.Get("Sec-Websocket-Key") == "" {
			t.Errorf("the upstream was asked with %v", h)
		}
		if res.StatusCode != tc.status || res.Header["Sec-Websocket-Protocol"] != nil {
			t.Fatalf("%q: got %d %v", tc.more, res.StatusCode, res.Header)
		}
		want := "upstream_unavailable"
		if tc.status == 101 {
			want = "succeeded"
			if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
				t.Errorf("got %q, %v", line, err)
			}
			conn.Close()
		}
		if e := o.log.waitEnds(1)[0]; e.Outcome != want {
			t.Errorf("%q: the end is %+v", tc.more, e)
		}
	}
}

// TestWhatEndsWithTheServer: streams of HTTP and WebSockets are cut when the server drains,
// as they are when their caller is revoked, and an answer that ends by itself is not.
func TestWhatEndsWithTheServer(t *testing.T) {
	t.Parallel()
	for _, revoked := range []bool{false, true} {
		want := ledger.Entry{Outcome: "succeeded"}
		if revoked {
			want = ledger.Entry{Outcome: ledger.OutcomeUnknown, Code: counterfoil.TokenRevoked}
		}
		end := func(o *office) {
			if revoked {
				o.log.revoke("payroll")
			} else {
				o.gateway.Drain()
			}
			o.gateway.Look()
		}
		check := func(o *office) {
			t.Helper()
			if e := o.log.waitEnds(1)[0]; e.Outcome != want.Outcome || e.Code != want.Code {
				t.Errorf("revoked %v: the end is %+v", revoked, e)
			}
		}

		o, c := newCRM(t, nil, nil)
		o.upstream.raw(socketUpstream("", make(chan http.Header, 1)))
		_, in, _ := c.open(t)
		if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		end(o)
		if b, _ := io.ReadAll(in); len(b) > 0 {
			t.Errorf("more came: %q", b)
		}
		o.gateway.Drain()
		o.gateway.Wait(t.Context())
		check(o)

		more := make(chan struct{})
		for _, media := range []string{"text/event-stream", "text/plain"} {
			o, c := newCRM(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", media)
				io.WriteString(rw, "data: one\n\n")
				rw.(http.Flusher).Flush()
				select {
				case <-more:
					io.WriteString(rw, "data: two\n\n")
				case <-r.Context().Done():
				}
			}), nil)
			res, err := o.client.Do(c.call("GET", "/customers/7", "", nil))
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(res.Body)
			if line, err := lines.ReadString('\n'); err != nil || line != "data: one\n" {
				t.Fatalf("got %q, %v", line, err)
			}
			end(o)
			goes := media == "text/plain" && !revoked
			if goes {
				close(more)
			}
			b, err := io.ReadAll(lines)
			if got := string(b); (got == "\ndata: two\n\n") != goes || (err == nil) != goes {
				t.Errorf("%s, revoked %v: got %q, %v", media, revoked, got, err)
			}
			res.Body.Close()
			check(o)
		}
	}
}
