package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	typeJSON   = "application/json"
	typeStream = "text/event-stream"

	userAgent = "counterfoil"

	defaultTimeout = 60 * time.Second

	// Node closes idle connections after five seconds and does not say so to a
	// request that is on its way; a call lost like that has an unknown outcome.
	// Letting go first costs a new connection after a pause, no more.
	idleTimeout = 4 * time.Second
)

// errTimeout is the cause of a context that ended because the upstream took
// too long.
var errTimeout = errors.New("the upstream took too long")

// newTransport is for callers that bring none: no proxy, no compression, idle
// connections bounded, and no way to a link-local address.
func newTransport() http.RoundTripper {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: refuseLinkLocal}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// refuseLinkLocal keeps an upstream's name from leading to the metadata service
// of a cloud: it looks at the address that is dialled, after resolving. An
// operator's upstream may be private or loopback, never link-local.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dialling %q: %w", address, err)
	}
	ip := ap.Addr().Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{100, 100, 100, 200}) || ip == metadataV6 {
		return fmt.Errorf("dialling %s: an upstream cannot be at a link-local or metadata address", ip)
	}
	return nil
}

var metadataV6 = netip.MustParseAddr("fd00:ec2::254")

// A peer is an upstream as one request sees it: where it is, what the gateway
// shows it, in which revision and session they speak.
type peer struct {
	transport http.RoundTripper
	timeout   time.Duration
	resource  *counterfoil.Resource
	secret    counterfoil.Secret
	revision  string // empty before it is negotiated
	session   string // the upstream's id, or empty
}

// A reply is what an upstream answered, headers read and body not. Close
// releases the connection.
type reply struct {
	*http.Response
	ctx    context.Context
	timer  *time.Timer             // the time limit
	cancel context.CancelCauseFunc // ends the exchange
}

func (r *reply) close() {
	r.timer.Stop()
	r.cancel(context.Canceled)
	r.Body.Close()
}

// unlimited lifts the time limit: a stream lives as long as it lives.
func (r *reply) unlimited() { r.timer.Stop() }

// limited sets the time limit anew, from now.
func (r *reply) limited(d time.Duration) { r.timer.Reset(d) }

// mediaType returns the answer's media type without parameters.
func (r *reply) mediaType() string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// An unsent error says that nothing reached the upstream.
type unsentError struct{ err error }

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

// do sends one request and returns what came back. The time limit covers
// headers and body until the caller lifts it. An error that is not an
// unsentError means that the upstream may have acted.
//
// net/http does not repeat a POST of which anything was written, so that a
// request reaches the upstream at most once.
func (p *peer) do(ctx context.Context, httpMethod string, header http.Header, body []byte) (*reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(p.timeout, func() { cancel(errTimeout) })
	var connected, sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }, WroteHeaders: func() { sent.Store(true) },
	})

	fail := func(err error) (*reply, error) {
		timer.Stop()
		cause := context.Cause(ctx)
		if cause != nil {
			err = cause
		}
		cancel(err)
		// Broken off with a connection at hand it may be on its way at this moment.
		if !sent.Load() && (cause == nil || !connected.Load()) {
			return nil, &unsentError{err}
		}
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, httpMethod, p.resource.Upstream, bytes.NewReader(body))
	if err != nil {
		return fail(fmt.Errorf("making the upstream's request: %w", err))
	}
	if len(body) == 0 {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header = p.headers(header, len(body) > 0)
	// RoundTrip and not a Client: redirects are not followed, so that neither
	// the call nor the credential goes where the upstream points.
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return fail(err)
	}
	if enc := res.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		res.Body.Close()
		return fail(fmt.Errorf("the upstream answered with the encoding %q, which was not asked for", enc))
	}
	return &reply{res, ctx, timer, cancel}, nil
}

// headers makes all the headers that go upstream; nothing is copied from the
// request that came in. The credential is set last, over everything.
func (p *peer) headers(more http.Header, body bool) http.Header {
	h := make(http.Header, 8+len(more))
	for name, values := range more {
		h[name] = values
	}
	h["Accept-Encoding"] = []string{"identity"}
	h["User-Agent"] = []string{userAgent}
	if h["Accept"] == nil {
		h["Accept"] = []string{typeJSON + ", " + typeStream}
	}
	if body {
		h["Content-Type"] = []string{typeJSON}
	}
	if p.revision != "" {
		h[headerRevision] = []string{p.revision}
	}
	if p.session != "" {
		h[headerSession] = []string{p.session}
	}
	if c := p.resource.Credential; c != nil {
		h.Set(c.Header, c.Prefix+p.secret.Reveal())
	}
	return h
}

// readAll reads an answer's body of at most max bytes.
func readAll(r io.Reader, max int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("the upstream's answer is larger than %d bytes", max)
	}
	return b, nil
}
