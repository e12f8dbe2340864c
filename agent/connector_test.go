package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
)

func (w *world) connector() *agent.Connector {
	w.t.Helper()
	c, err := agent.NewConnector(agent.ConnectorConfig{Transport: w.transport(), Log: w.logger()})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// serve serves a connector for the test's time and returns its URL.
func serve(t *testing.T, c *agent.Connector, ln net.Listener) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c.URL(ln)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := agent.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// client follows no redirect, and keeps no connection beyond the test.
func client(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	tr := &http.Transport{DialContext: dial, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestConnectorAttacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ln := listen(t)
	url := serve(t, w.connector(), ln)
	addr := ln.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	secret := strings.Trim(strings.TrimPrefix(url, "http://"+addr), "/")
	root := "http://" + addr
	c := client(t, nil)
	swap := "a"
	if secret[0] == 'a' {
		swap = "b"
	}
	for _, tc := range []struct {
		name   string
		method string
		url    string
		header []string
		status int
		code   counterfoil.Code // empty: it is passed on
	}{
		{"control", "POST", url, nil, 200, ""},
		{"control: without the last slash", "POST", strings.TrimSuffix(url, "/"), nil, 200, ""},
		{"control: a read", "GET", url + "customers/7?x=1", nil, 200, ""},

		// threats.md 44: DNS rebinding, foreign pages, forms.
		{"rebound name", "POST", url, []string{"Host", "evil.example:" + port}, 403, counterfoil.OriginForbidden},
		{"rebound name without port", "POST", url, []string{"Host", "evil.example"}, 403, counterfoil.OriginForbidden},
		{"name that ends in localhost", "POST", url, []string{"Host", "evil.localhost:" + port}, 403, counterfoil.OriginForbidden},
		{"own name and a dot", "POST", url, []string{"Host", "localhost.:" + port}, 403, counterfoil.OriginForbidden},
		{"another port", "POST", url, []string{"Host", "127.0.0.1:1"}, 403, counterfoil.OriginForbidden},
		{"no port", "POST", url, []string{"Host", "127.0.0.1"}, 403, counterfoil.OriginForbidden},
		{"another loopback address", "POST", url, []string{"Host", "127.0.0.2:" + port}, 403, counterfoil.OriginForbidden},
		{"control: localhost", "POST", url, []string{"Host", "localhost:" + port}, 200, ""},
		{"control: LOCALHOST", "POST", url, []string{"Host", "LOCALHOST:" + port}, 200, ""},
		{"control: IPv6", "POST", url, []string{"Host", "[::1]:" + port}, 200, ""},
		{"foreign page", "POST", url, []string{"Origin", "https://evil.example"}, 403, counterfoil.OriginForbidden},
		{"foreign page's form", "POST", url, []string{"Origin", "https://evil.example", "Content-Type", "text/plain"}, 403, counterfoil.OriginForbidden},
		{"sandboxed page", "POST", url, []string{"Origin", "null"}, 403, counterfoil.OriginForbidden},
		{"empty origin", "POST", url, []string{"Origin", ""}, 403, counterfoil.OriginForbidden},
		{"page on another local port", "POST", url, []string{"Origin", "http://127.0.0.1:1"}, 403, counterfoil.OriginForbidden},
		{"page over TLS", "POST", url, []string{"Origin", "https://127.0.0.1:" + port}, 403, counterfoil.OriginForbidden},
		{"origin that begins like ours", "POST", url, []string{"Origin", root + ".evil.example"}, 403, counterfoil.OriginForbidden},
		{"two origins", "POST", url, []string{"Origin", root, "Origin", "https://evil.example"}, 403, counterfoil.OriginForbidden},
		{"cross-site without Origin", "GET", url, []string{"Sec-Fetch-Site", "cross-site"}, 403, counterfoil.OriginForbidden},
		{"same-site without Origin", "GET", url, []string{"Sec-Fetch-Site", "same-site"}, 403, counterfoil.OriginForbidden},
		{"preflight", "OPTIONS", url, []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"}, 403, counterfoil.OriginForbidden},
		{"control: own origin", "POST", url, []string{"Origin", root, "Sec-Fetch-Site", "same-origin"}, 200, ""},
		{"control: own origin by name", "POST", url, []string{"Origin", "http://localhost:" + port}, 200, ""},

		// Every local user can connect.
		{"no secret", "POST", root + "/", nil, 404, counterfoil.ToolUnknown},
		{"wrong secret", "POST", root + "/" + swap + secret[1:] + "/", nil, 404, counterfoil.ToolUnknown},
		{"half the secret", "POST", root + "/" + secret[:13] + "/", nil, 404, counterfoil.ToolUnknown},
		{"secret and more", "POST", root + "/" + secret + "x/", nil, 404, counterfoil.ToolUnknown},
		{"secret in capitals", "POST", root + "/" + strings.ToUpper(secret) + "/", nil, 404, counterfoil.ToolUnknown},
		{"secret later", "POST", root + "/x/" + secret + "/", nil, 404, counterfoil.ToolUnknown},
		{"secret after dots", "POST", root + "/x/../" + secret + "/", nil, 404, counterfoil.ToolUnknown},
		{"secret in the query", "POST", root + "/?" + secret, nil, 404, counterfoil.ToolUnknown},

		// Metadata is hidden.
		{"resource metadata", "GET", root + "/.well-known/oauth-protected-resource", nil, 404, counterfoil.ToolUnknown},
		{"resource metadata of the path", "GET", root + "/.well-known/oauth-protected-resource/" + secret, nil, 404, counterfoil.ToolUnknown},
		{"under the secret", "GET", url + ".well-known/oauth-protected-resource", nil, 404, counterfoil.ToolUnknown},
		{"deeper", "GET", url + "x/.well-known/openid-configuration", nil, 404, counterfoil.ToolUnknown},
		{"escaped", "GET", url + "%2ewell-known/oauth-authorization-server", nil, 404, counterfoil.ToolUnknown},
		{"in capitals", "GET", url + ".Well-Known/oauth-authorization-server", nil, 404, counterfoil.ToolUnknown},
		{"login endpoints of older clients", "POST", root + "/register", nil, 404, counterfoil.ToolUnknown},

		// The resource's own path is not left.
		{"dots", "GET", url + "../crm", nil, 400, counterfoil.RequestMalformed},
		{"escaped dots", "GET", url + "%2e%2e/crm", nil, 400, counterfoil.RequestMalformed},
		{"one dot", "GET", url + "./x", nil, 400, counterfoil.RequestMalformed},
		{"escaped slash", "GET", url + "..%2fcrm", nil, 400, counterfoil.RequestMalformed},
		{"backslash", "GET", url + "..%5ccrm", nil, 400, counterfoil.RequestMalformed},
		{"two slashes", "GET", url + "/x", nil, 400, counterfoil.RequestMalformed},
		{"NUL", "GET", url + "x%00", nil, 400, counterfoil.RequestMalformed},
		{"control: escapes", "GET", url + "a%20b;c=d/%C3%A4/?a=1;b=%", nil, 200, ""},

		{"method", "OPTIONS", url, nil, 405, counterfoil.MethodForbidden},
		{"trace", "TRACE", url, nil, 405, counterfoil.MethodForbidden},
		{"made-up method", "BREW", url, nil, 405, counterfoil.MethodForbidden},
		{"upgrade", "GET", url, []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 400, counterfoil.RequestMalformed},
		{"control: delete", "DELETE", url, nil, 200, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := w.requests.Load()
			status, body, header := do(t, c, tc.method, tc.url, "", tc.header...)
			if status != tc.status {
				t.Errorf("%d %s, want %d", status, body, tc.status)
			}
			if tc.code != "" {
				if !strings.Contains(body, `"code":"`+string(tc.code)+`"`) || header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("answer %s (%s), want a problem with %s", body, header.Get("Content-Type"), tc.code)
				}
				if w.requests.Load() != before {
					t.Error("the resource was asked")
				}
			} else if below, ok := strings.CutPrefix(tc.url, url); ok && below != "" && !strings.Contains(body, " /r/bank/"+below+" ") {
				t.Errorf("the resource was asked for %s", body)
			}
			if strings.Contains(body, secret) {
				t.Error("the answer holds the secret")
			}
			for name := range header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("the answer has %s", name)
				}
			}
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(w.log.String(), secret) {
		t.Error("the secret was logged")
	}
}

func TestConnectorOutsideOfAServerRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.connector()
	ln := listen(t)
	defer ln.Close()
	for name, addr := range map[string]net.Addr{
		"unknown": nil, "not loopback": &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}, "pipe": &net.IPAddr{IP: net.IPv6loopback},
	} {
		r := httptest.NewRequest("POST", c.URL(ln), nil)
		if addr != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
		}
		rec := httptest.NewRecorder()
		c.ServeHTTP(rec, r)
		if rec.Code != 403 {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
	if w.requests.Load() != 0 {
		t.Error("the resource was asked")
	}
}

func TestConnectorPassesHeadersByList(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		rw.Header().Set("Mcp-Session-Id", "s")
		rw.Header().Set("X-Total", "7")
		rw.Header().Set("WWW-Authenticate", `DPoP error="insufficient_scope", resource_metadata="x"`)
		rw.Header().Set("DPoP-Nonce", "n")
		rw.Header().Set("Set-Cookie", "c=1")
		rw.Header().Set("Access-Control-Allow-Origin", "*")
		rw.WriteHeader(403)
	}))
	url := serve(t, w.connector(), listen(t))
	passed := []string{
		"Accept", "application/json", "Content-Type", "application/json", "MCP-Protocol-Version", "2026-07-28",
		"Mcp-Method", "tools/call", "Mcp-Name", "pay", "Mcp-Param-Amount", "1", "mcp-param-to", "acme", "Mcp-Session-Id", "s",
		"Last-Event-ID", "9", "Idempotency-Key", "k", "Counterfoil-Approval", "apr_1",
	}
	held := []string{
		"Authorization", "Bearer stolen", "DPoP", "x.y.z", "Cookie", "c=1", "Forwarded", "for=1.2.3.4", "X-Forwarded-For", "1.2.3.4",
		"X-Forwarded-Host", "h", "X-Real-Ip", "1.2.3.4", "X-Forwarded-User", "root", "X_Forwarded_User", "root", "Proxy-Authorization", "Basic x",
		"Connection", "Content-Type, keep-alive", "Te", "trailers", "Via", "1.1 x", "X-Request-Id", "r", "User-Agent", "curl", "Mcp-Paramx", "y",
	}
	status, _, header := do(t, client(t, nil), "POST", url, "{}", append(slices.Clone(passed), held...)...)
	up := <-got
	for i := 0; i < len(passed); i += 2 {
		if v := up.Values(passed[i]); len(v) != 1 || v[0] != passed[i+1] {
			t.Errorf("%s arrived as %q", passed[i], v)
		}
		up.Del(passed[i])
	}
	for _, name := range []string{"Authorization", "Dpop", "Content-Length", "Accept-Encoding"} {
		delete(up, name) // the agent's own, and the transport's
	}
	if len(up) != 0 {
		t.Errorf("also arrived: %v", slices.Collect(maps.Keys(up)))
	}
	if status != 403 || header.Get("Mcp-Session-Id") != "s" || header.Get("X-Total") != "7" {
		t.Errorf("%d %v", status, header)
	}
	for _, name := range []string{"WWW-Authenticate", "DPoP-Nonce", "Set-Cookie", "Access-Control-Allow-Origin"} {
		if header.Get(name) != "" {
			t.Errorf("%s came through", name)
		}
	}
}

func TestConnectorHidesThatThereIsALogin(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*world)
		status int
		code   counterfoil.Code
	}{
		{"revoked for good", func(w *world) {
			for i := range 9 {
				w.revoke(fmt.Sprintf("tok_%d", i), counterfoil.TokenRevoked)
			}
		}, 502, counterfoil.TokenRevoked},
		{"suspended", func(w *world) { w.revoke("tok_1", counterfoil.AgentSuspended) }, 502, counterfoil.AgentSuspended},
		{"foreign 401", func(w *world) {
			w.onRequest = func(rw http.ResponseWriter, _ *http.Request) bool {
				rw.Header().Set("WWW-Authenticate", "Bearer")
				rw.WriteHeader(401)
				return true
			}
		}, 502, counterfoil.UpstreamUnavailable},
		{"refused by the issuer", func(w *world) {
			w.onToken = func(rw http.ResponseWriter, _ *http.Request) bool {
				refuseToken(rw, 401, "invalid_client", counterfoil.ClientRefused, "who?")
				return true
			}
		}, 502, counterfoil.ClientRefused},
		{"issuer is busy", func(w *world) {
			w.onToken = func(rw http.ResponseWriter, _ *http.Request) bool {
				refuseToken(rw, 429, "invalid_request", counterfoil.RateLimited, "slower")
				return true
			}
		}, 503, counterfoil.RateLimited},
		{"redirect", func(w *world) {
			w.onRequest = func(rw http.ResponseWriter, r *http.Request) bool {
				http.Redirect(rw, r, "/elsewhere", http.StatusTemporaryRedirect)
				return true
			}
		}, 502, counterfoil.UpstreamUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tc.change(w)
			url := serve(t, w.connector(), listen(t))
			status, body, header := do(t, client(t, nil), "POST", url, "{}")
			if status != tc.status || !strings.Contains(body, `"code":"`+string(tc.code)+`"`) {
				t.Errorf("%d %s", status, body)
			}
			if header.Get("WWW-Authenticate") != "" || (header.Get("Retry-After") != "") != (tc.status == 503) {
				t.Errorf("header %v", header)
			}
		})
	}
}

func TestConnectorLimitsBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(rw, n)
	}))
	url := serve(t, w.connector(), listen(t))
	c := client(t, nil)
	if status, body, _ := do(t, c, "POST", url, strings.Repeat("x", 4<<20)); status != 200 || body != "4194304" {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _, err := try(t, c, "POST", url, strings.Repeat("x", 4<<20+1)); err == nil && (status != 413 || !strings.Contains(body, "payload_too_large")) {
		t.Errorf("%d %s", status, body)
	}
	// A body that breaks off is not sent on.
	before := w.requests.Load()
	conn, err := net.Dial("tcp", strings.Split(url, "/")[2])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\nhalf", url[strings.LastIndex(url[:len(url)-1], "/"):], conn.RemoteAddr())
	_ = conn.(*net.TCPConn).CloseWrite()
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		if resp.StatusCode != 400 {
			t.Errorf("half a body: %d", resp.StatusCode)
		}
		_ = resp.Body.Close()
	}
	if w.requests.Load() != before {
		t.Error("half a body was sent on")
	}
}

func TestConnectorSendsAgainWhenANonceIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.verifier.Nonces = always()
	url := serve(t, w.connector(), listen(t))
	if status, body, _ := do(t, client(t, nil), "POST", url, "x"); status != 200 || body != "POST /r/bank x" {
		t.Errorf("%d %s", status, body)
	}
}

// TestConnectorStreams reads an event while the call that sends it still runs.
func TestConnectorStreams(t *testing.T) {
	t.Parallel()
	goOn, gone := make(chan struct{}), make(chan struct{})
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(rw, "data: 1\n\n")
		_ = http.NewResponseController(rw).Flush()
		<-goOn
		fmt.Fprint(rw, "data: 2\n\n")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done() // until the client leaves
		close(gone)
	}))
	url := serve(t, w.connector(), listen(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t, nil).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{"data: 1", "", "data: 2"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("%q, want %q: %v", lines.Text(), want, lines.Err())
		}
		if want == "data: 1" {
			close(goOn)
		}
	}
	cancel()
	<-gone
}

func TestConnectorOnAUnixSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	conn := w.connector()
	path := filepath.Join(t.TempDir(), "agent.sock")
	ln, err := agent.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := agent.ListenUnix(path); err == nil {
		t.Error("a socket that is served was taken over")
	}
	if got := serve(t, conn, ln); got != "unix:"+path {
		t.Errorf("URL %s", got)
	}
	c := client(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
	tcp := listen(t)
	defer tcp.Close()
	withSecret := strings.TrimPrefix(conn.URL(tcp), "http://"+tcp.Addr().String())
	for _, tc := range []struct {
		path   string
		header []string
		status int
		body   string
	}{
		{"/", nil, 200, "GET /r/bank "},
		{"/customers/7", nil, 200, "GET /r/bank/customers/7 "},
		{withSecret + "customers/7", nil, 200, "GET /r/bank/customers/7 "},
		{"/", []string{"Host", "anything"}, 200, "GET /r/bank "},
		{"/", []string{"Origin", "http://localhost"}, 403, ""},
		{"/.well-known/oauth-protected-resource", nil, 404, ""},
		{"/../crm", nil, 400, ""},
	} {
		status, body, _ := do(t, c, "GET", "http://unix"+tc.path, "", tc.header...)
		if status != tc.status || tc.body != "" && body != tc.body {
			t.Errorf("%s %v: %d %s", tc.path, tc.header, status, body)
		}
	}
}

func TestListenUnixReplacesOnlyDeadSockets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	ln, err := agent.ListenUnix(path)
	if err != nil {
		t.Fatal("a dead socket is in the way:", err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if err := ln.Close(); err != nil {
		t.Error("closing twice:", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.ListenUnix(path); err == nil {
		t.Error("a file was replaced by a socket")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListenTakesLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"", ":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0", "127.0.0.1", "127.1:0", "[::1%lo]:0", "[::ffff:192.0.2.1]:0"} {
		if ln, err := agent.Listen(addr); err == nil {
			t.Errorf("%q: listens on %s", addr, ln.Addr())
			_ = ln.Close()
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "LOCALHOST:0", "127.0.0.2:0"} {
		ln, err := agent.Listen(addr)
		if err != nil {
			t.Errorf("%q: %v", addr, err)
			continue
		}
		if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("%q: listens on %s", addr, ln.Addr())
		}
		_ = ln.Close()
	}
}

// anywhere is a listener that says it is on another address.
type anywhere struct{ net.Listener }

func (anywhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 1} }

func TestServeTakesLoopbackOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.connector().Serve(t.Context(), anywhere{listen(t)}); err == nil {
		t.Error("served on every address")
	}
}

func TestConnectorConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if _, err := agent.NewConnector(agent.ConnectorConfig{}); err == nil {
		t.Error("made without a transport")
	}
	for _, secret := range []string{"short", "with/a/slash/in/the/middle/of/it", strings.Repeat("x", 21), "cfc_" + strings.Repeat("a", 33)} {
		if _, err := agent.NewConnector(agent.ConnectorConfig{Transport: w.transport(), Secret: counterfoil.NewSecret(secret)}); err == nil {
			t.Errorf("secret %q was taken", secret)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error holds the secret: %v", err)
		}
	}
	ln := listen(t)
	defer ln.Close()
	if a, b := w.connector().URL(ln), w.connector().URL(ln); a == b || len(a) < len("http://127.0.0.1:1//")+26 {
		t.Errorf("secrets %s and %s", a, b)
	} else if secret := strings.Split(a, "/")[3]; !counterfoil.CheckHandle(counterfoil.HandleConnector, secret) {
		t.Errorf("no scanner knows the secret %s", secret)
	}
}

// openBank serves the example bank at the resource.
func openBank(t *testing.T) (*world, *bankserver.Bank) {
	t.Helper()
	bank, err := bankserver.Open(filepath.Join(t.TempDir(), "bank.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bank.Close(); err != nil {
			t.Error(err)
		}
	})
	return newWorld(t, bank.Handler()), bank
}

func TestUnmodifiedMCPClientOverHTTP(t *testing.T) {
	t.Parallel()
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(revision, func(t *testing.T) {
			t.Parallel()
			w, bank := openBank(t)
			url := serve(t, w.connector(), listen(t))
			s, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(),
				&mcp.StreamableClientTransport{Endpoint: url, HTTPClient: client(t, nil)}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
			if err != nil {
				t.Fatal(err)
			}
			callBank(t, s, bank, revision)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// callBank makes one payment and sees it executed.
func callBank(t *testing.T, s *mcp.ClientSession, bank *bankserver.Bank, revision string) {
	t.Helper()
	if got := s.InitializeResult().ProtocolVersion; got != revision {
		t.Errorf("revision %s, want %s", got, revision)
	}
	list, err := s.ListTools(t.Context(), nil)
	if err != nil || len(list.Tools) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	res, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "pay", Arguments: map[string]any{"to": "acme", "amount": 100, "currency": "EUR"}})
	if err != nil || res.IsError {
		t.Fatalf("%+v, %v", res, err)
	}
	paid, err := bank.Payments(t.Context())
	if err != nil || len(paid) != 1 || paid[0].Amount != 100_00 {
		t.Errorf("%v, %v", paid, err)
	}
}
