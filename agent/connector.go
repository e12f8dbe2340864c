package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	// maxBody is the largest request that is passed on: the gateway's own
	// limit by default.
	maxBody = 4 << 20
	// bodyTimeout bounds the reading of a request's body.
	bodyTimeout = 30 * time.Second
)

// passedOn are the request headers that go to the resource, beside those of
// paramPrefix and those that the configuration names. Everything else stays here: what a
// local client sends to log in, cookies, and what claims to say who the client is.
var passedOn = []string{
	"Accept", "Content-Type", "Idempotency-Key", "Counterfoil-Approval",
	"Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name", "Mcp-Session-Id", "Last-Event-Id",
	"Accept-Language", "Prefer", "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
	"Traceparent", "Tracestate",
}

// neverPassed are request headers that no configuration can name: credentials, what
// says who asks for whom, and what belongs to one connection alone.
var neverPassed = []string{
	"Authorization", "Proxy-Authorization", "Dpop", "Cookie", "Host", "Origin", "Forwarded", "Via", "X-Real-Ip",
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Content-Encoding", "Expect",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
}

// paramPrefix begins the headers that mirror a tool's arguments.
const paramPrefix = "Mcp-Param-"

// heldBack are the response headers that do not go to the local client. A
// client that saw a challenge would begin an OAuth dance of its own; a cookie or
// a CORS grant would be in the connector's own name.
var heldBack = []string{
	"Www-Authenticate", "Proxy-Authenticate", "Authentication-Info", "Proxy-Authentication-Info", "Dpop-Nonce",
	"Set-Cookie", "Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Methods",
	"Access-Control-Allow-Headers", "Access-Control-Expose-Headers", "Access-Control-Max-Age",
}

// A ConnectorConfig says what a connector connects.
type ConnectorConfig struct {
	Transport *Transport

	// Secret is the first segment of every path over TCP: at least 128 bits in
	// letters and digits. When empty one is made, which secret scanners know by its
	// prefix and checksum.
	Secret counterfoil.Secret

	// Headers are request headers that are passed on beside the usual ones: those
	// that a tool of an HTTP API takes.
	Headers []string

	// Wait is how long a call that needs people is held for them, see Waiter.
	// Zero hands the refusal on at once.
	Wait  time.Duration
	After func(time.Duration) <-chan time.Time // makes the pauses of it; time.After when nil

	Log *slog.Logger // nothing is logged when nil
}

// A Connector gives a program that cannot sign the use of one resource: over
// loopback HTTP, a unix socket, or standard input and output. To its client it
// is a server without logins; whoever reaches it acts as the agent.
//
// Over TCP any local user and any web page in a local browser can connect, so a
// request needs the secret path, a Host that is the listener's own (against DNS
// rebinding) and no foreign Origin. A unix socket is kept by its mode.
//
// It is safe for concurrent use.
type Connector struct {
	transport *Transport
	waiter    *Waiter
	secret    counterfoil.Secret
	log       *slog.Logger
	proxy     *httputil.ReverseProxy
	headers   []string // that are passed on, in canonical form
}

// NewConnector checks the configuration. It sends nothing and listens nowhere.
func NewConnector(c ConnectorConfig) (*Connector, error) {
	if c.Transport == nil {
		return nil, errors.New("there is no transport")
	}
	if c.Secret.Empty() {
		c.Secret = counterfoil.NewHandle(counterfoil.HandleConnector)
	}
	if s := c.Secret.Reveal(); !counterfoil.CheckHandle(counterfoil.HandleConnector, s) && (len(s) < 22 || !alphanumeric(s)) {
		return nil, errors.New("the secret must have at least 22 letters and digits, which hold 128 bits")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	headers, err := passing(c.Headers)
	if err != nil {
		return nil, err
	}
	waiter := NewWaiter(WaitConfig{Transport: c.Transport, Wait: c.Wait, After: c.After, Log: c.Log})
	conn := &Connector{transport: c.Transport, waiter: waiter, secret: c.Secret, log: c.Log, headers: headers}
	conn.proxy = &httputil.ReverseProxy{
		Transport:     waiter,
		FlushInterval: -1, // every piece at once: progress must not wait for the end
		ErrorLog:      slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		// The request was built afresh by rebuild; the proxy cleans query
		// parameters that it cannot read, which would change what was asked.
		Rewrite: func(p *httputil.ProxyRequest) {
			u := *p.In.URL
			p.Out.URL = &u
			p.Out.Host = ""
		},
		ModifyResponse: conn.hide,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			conn.fail(w, r, problemOf(err))
		},
	}
	return conn, nil
}

// passing returns the headers that are passed on, with those that the configuration
// names.
func passing(more []string) ([]string, error) {
	all := slices.Clone(passedOn)
	for _, name := range more {
		canonical := http.CanonicalHeaderKey(name)
		if rest := strings.TrimLeftFunc(name, func(r rune) bool { return r < 0x80 && tokenByte(byte(r)) }); name == "" || rest != "" {
			return nil, fmt.Errorf("%.80q is no header's name", name)
		}
		if slices.Contains(neverPassed, canonical) || strings.HasPrefix(canonical, "X-Forwarded-") {
			return nil, fmt.Errorf("the header %s is never passed on", canonical)
		}
		all = append(all, canonical)
	}
	return all, nil
}

func alphanumeric(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// URL returns where the resource is served for clients of a listener. It holds
// the secret: it is printed for the one user and not logged.
func (c *Connector) URL(ln net.Listener) string {
	if a, ok := ln.Addr().(*net.UnixAddr); ok {
		return "unix:" + a.Name
	}
	return "http://" + ln.Addr().String() + "/" + c.secret.Reveal() + "/"
}

// Serve serves on a loopback or unix listener until ctx ends, then lets running
// requests finish for a moment and closes the listener. It returns nil when ctx
// ended it, and the refusal when the transport's task was closed.
func (c *Connector) Serve(ctx context.Context, ln net.Listener) error {
	switch a := ln.Addr().(type) {
	case *net.UnixAddr:
	case *net.TCPAddr:
		if !a.IP.IsLoopback() {
			return errors.Join(fmt.Errorf("serving on %s: only loopback is served", a), ln.Close())
		}
	default:
		return errors.Join(fmt.Errorf("serving on %s: neither loopback nor a unix socket", ln.Addr()), ln.Close())
	}
	srv := &http.Server{
		Handler:           c,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
		// There is no WriteTimeout: a stream lasts as long as its call.
	}
	ended := make(chan struct{})
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.transport.working, cancel)()
	stop := context.AfterFunc(serving, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // streams that would not end are cut
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return c.over(ctx)
	}
	return fmt.Errorf("serving on %s: %w", ln.Addr(), err)
}

// over returns the refusal when the task is closed and ctx, which would have ended
// things as well, has not.
func (c *Connector) over(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	return c.transport.taskErr()
}

// ServeHTTP serves one request. It must run in an http.Server, which says on
// which listener the request came; without that it refuses.
func (c *Connector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := c.rebuild(w, r)
	if err != nil {
		c.fail(w, r, counterfoil.Problem{Code: err.Code, Status: err.Code.Wire().Status, Detail: err.Detail})
		return
	}
	c.proxy.ServeHTTP(w, out)
}

// rebuild makes the request for the resource out of nothing but what is known
// to belong there.
func (c *Connector) rebuild(w http.ResponseWriter, r *http.Request) (*http.Request, *counterfoil.Refusal) {
	rest, refusal := c.admit(r)
	if refusal != nil {
		return nil, refusal
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		// OPTIONS too: a preflight is a web page's, and none may call.
		return nil, counterfoil.Refuse(counterfoil.MethodForbidden, "the method %.20q is not taken here", r.Method)
	}
	if r.Header.Get("Upgrade") != "" {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "connections are not upgraded here")
	}
	target, refusal := c.target(rest, r.URL.RawQuery)
	if refusal != nil {
		return nil, refusal
	}
	body, refusal := readBody(w, r)
	if refusal != nil {
		return nil, refusal
	}
	out, err := http.NewRequestWithContext(r.Context(), r.Method, target, bytes.NewReader(body))
	if err != nil {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the path or the query cannot be read")
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, paramPrefix) {
			out.Header[name] = values
		}
	}
	for _, name := range c.headers {
		if values := r.Header.Values(name); len(values) > 0 {
			out.Header[name] = values
		}
	}
	return out, nil
}

// readBody reads the whole body. Then it can be sent again when the resource
// asks for a nonce, and a client that breaks off has sent nothing.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *counterfoil.Refusal) {
	ctl := http.NewResponseController(w)
	// A server that knows no deadlines has its own way to end slow clients.
	_ = ctl.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the body did not come whole")
	}
	// Lifted again: the connection is read on to notice that the client left.
	_ = ctl.SetReadDeadline(time.Time{})
	return body, nil
}

// admit decides whether the request is for this connector, and returns its path
// below the secret.
func (c *Connector) admit(r *http.Request) (rest string, refusal *counterfoil.Refusal) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	var hosts []string
	needSecret := true
	switch a := local.(type) {
	case *net.TCPAddr:
		if hosts = ownHosts(a); hosts == nil {
			return "", counterfoil.Refuse(counterfoil.OriginForbidden, "only loopback is served")
		}
		// A web page whose name was rebound to 127.0.0.1 comes with its own
		// name as Host, and its requests count as its own origin's.
		if !contains(hosts, r.Host) {
			return "", counterfoil.Refuse(counterfoil.OriginForbidden, "the Host %.100q is not this listener's", r.Host)
		}
	case *net.UnixAddr:
		needSecret = false // the socket's mode says who may
	default:
		return "", counterfoil.Refuse(counterfoil.OriginForbidden, "it is not known on which listener this came")
	}
	if refusal := checkOrigin(r.Header, hosts); refusal != nil {
		return "", refusal
	}
	nothing := counterfoil.Refuse(counterfoil.ToolUnknown, "there is nothing here")
	path := r.URL.EscapedPath()
	first, below, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if c.isSecret(first) {
		rest = "/" + below
	} else if needSecret {
		return "", nothing
	} else {
		rest = path
	}
	// A client that finds OAuth metadata goes and logs in by itself. Here there
	// is none, on any path where one might look.
	for segment := range strings.SplitSeq(r.URL.Path, "/") {
		if strings.EqualFold(segment, ".well-known") {
			return "", nothing
		}
	}
	return rest, nil
}

// ownHosts are the Host values of a loopback listener, nil for another address.
func ownHosts(a *net.TCPAddr) []string {
	if !a.IP.IsLoopback() {
		return nil
	}
	port := strconv.Itoa(a.Port)
	hosts := []string{"127.0.0.1:" + port, "localhost:" + port, "[::1]:" + port, net.JoinHostPort(a.IP.String(), port)}
	if a.Port == 80 { // the port that is left out (RFC 9110, Section 4.2.1)
		hosts = append(hosts, "127.0.0.1", "localhost", "[::1]")
	}
	return hosts
}

// checkOrigin refuses requests of web pages other than the listener's own. A
// page's script always sends Origin with a request that has an effect; newer
// browsers send Sec-Fetch-Site with all.
func checkOrigin(h http.Header, hosts []string) *counterfoil.Refusal {
	origins := h.Values("Origin")
	if len(origins) > 1 {
		return counterfoil.Refuse(counterfoil.OriginForbidden, "there is more than one Origin")
	}
	if len(origins) == 1 {
		host, plain := strings.CutPrefix(origins[0], "http://")
		if !plain || !contains(hosts, host) {
			return counterfoil.Refuse(counterfoil.OriginForbidden, "the Origin %.100q is not this listener's", origins[0])
		}
	}
	switch site := h.Get("Sec-Fetch-Site"); site {
	case "", "same-origin", "none":
		return nil
	default:
		return counterfoil.Refuse(counterfoil.OriginForbidden, "the request was made by a web page of another origin")
	}
}

func contains(hosts []string, host string) bool {
	for _, h := range hosts {
		if strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

// isSecret compares in a time that does not depend on how much of the secret
// was guessed, nor on its length.
func (c *Connector) isSecret(s string) bool {
	got, want := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(c.secret.Reveal()))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// target returns the URL below the resource's. A path that another reader might
// take for one outside of it is refused.
func (c *Connector) target(rest, query string) (string, *counterfoil.Refusal) {
	base := c.transport.resource
	if !strings.HasPrefix(rest, "/") || strings.Contains(query, "#") {
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the path or the query is not in its plain form")
	}
	if rest != "/" {
		for segment := range strings.SplitSeq(strings.TrimSuffix(rest[1:], "/"), "/") {
			plain, err := url.PathUnescape(segment)
			if err != nil || plain == "" || plain == "." || plain == ".." || strings.ContainsAny(plain, "/\\\x00") {
				return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the path is not in its plain form")
			}
		}
		base = strings.TrimSuffix(base, "/") + rest
	}
	if query != "" {
		base += "?" + query
	}
	return base, nil
}

// hide makes the resource's answer one that a client without logins understands.
func (c *Connector) hide(resp *http.Response) error {
	if resp.StatusCode == http.StatusUnauthorized {
		// The client did nothing wrong and has nothing to log in with. As an
		// error it is answered by fail.
		if err := readAnswered(peek(resp)).err(); err != nil {
			return err
		}
		return errors.New("the resource answered 401 and named no code")
	}
	for _, name := range heldBack {
		resp.Header.Del(name)
	}
	for _, name := range []string{"Location", "Content-Location"} {
		if at := resp.Header.Get(name); at != "" {
			resp.Header.Set(name, c.here(at, resp.Request))
		}
	}
	return nil
}

// here makes a place below the resource one below this connector. Any other place stays
// as it is: what a client sends there has no token.
func (c *Connector) here(at string, r *http.Request) string {
	u, err := url.Parse(at)
	if err != nil || r == nil {
		return at
	}
	u = r.URL.ResolveReference(u)
	if origin(u) != origin(c.transport.url) || u.User != nil || !c.transport.below(u) {
		return at
	}
	rest := strings.TrimPrefix(u.EscapedPath(), strings.TrimSuffix(c.transport.url.EscapedPath(), "/"))
	local := "/" + c.secret.Reveal() + rest
	if u.RawQuery != "" {
		local += "?" + u.RawQuery
	}
	if u.Fragment != "" {
		local += "#" + u.EscapedFragment()
	}
	return local
}

// problemOf says how an error on the way to the resource is answered. What
// concerns the agent's own credentials is never 401, which would make the
// client log in, nor 400, as if the client had sent them.
func problemOf(err error) counterfoil.Problem {
	p := counterfoil.Problem{Code: counterfoil.UpstreamUnavailable, Status: http.StatusBadGateway, Detail: err.Error()}
	var fault *counterfoil.Fault
	if refusal, refused := counterfoil.AsRefusal(err); refused {
		p.Code, p.Detail, p.Approval = refusal.Code, refusal.Detail, refusal.Approval
	} else if errors.As(err, &fault) {
		p.Code, p.Detail = fault.Code, fault.Cause.Error()
	}
	if p.Code.Wire().Retry {
		p.Status = http.StatusServiceUnavailable
	}
	return p
}

// fail answers with a problem, whose type and title it fills in. It is the one
// place that does.
func (c *Connector) fail(w http.ResponseWriter, r *http.Request, p counterfoil.Problem) {
	if r.Context().Err() != nil {
		// The client is gone, and nothing that looks whole may be written.
		panic(http.ErrAbortHandler)
	}
	c.log.InfoContext(r.Context(), "request not served", "code", p.Code, "status", p.Status, "method", r.Method, "detail", p.Detail)
	p.Type, p.Title = p.Code.Page(), p.Code.Title()
	body, err := ijson.Marshal(p)
	if err != nil {
		panic(http.ErrAbortHandler) // a detail that is not UTF-8: nothing of it is sent
	}
	h := w.Header()
	h.Set("Content-Type", counterfoil.ProblemMedia)
	h.Set("Cache-Control", "no-store")
	if p.Code.Wire().Retry {
		h.Set("Retry-After", "1")
	}
	if p.Code == counterfoil.MethodForbidden {
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE")
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that is gone by now is no concern
}
