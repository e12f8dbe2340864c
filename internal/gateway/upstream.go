package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

const (
	typeJSON   = "application/json"
	typeStream = "text/event-stream"

	userAgent = "counterfoil"

	defaultTimeout = 60 * time.Second
)

// errTimeout is the cause of a context that ended because the upstream took
// too long.
var errTimeout = errors.New("the upstream took too long")

// newTransport is for callers that bring none: it reaches no link-local or metadata
// address, through no proxy, and its connections and headers are bounded.
func newTransport() http.RoundTripper {
	return (*outbound.Guard)(nil).Transport(outbound.Upstream)
}

// A peer is an upstream as one request sees it: where it is, what the gateway
// shows it, in which revision and session they speak.
type peer struct {
	transport http.RoundTripper
	timeout   time.Duration
	resource  *counterfoil.Resource
	released  custody.Released
	struck    *atomic.Bool // set when an answer holds what was released
	revision  string       // empty before it is negotiated
	session   string       // the upstream's id, or empty
	call      *call        // what it is asked for; nil where that is no call
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

// do sends one request and returns what came back: see exchange.
func (p *peer) do(ctx context.Context, httpMethod string, header http.Header, body []byte) (*reply, error) {
	x := exchange{transport: p.transport, timeout: p.timeout, released: &p.released, struck: p.struck}
	reply, err := x.do(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, httpMethod, p.resource.Upstream, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		if len(body) == 0 {
			req.Body, req.ContentLength = http.NoBody, 0
		}
		req.Header = p.headers(header, len(body) > 0)
		return req, nil
	})
	if err != nil {
		return nil, err
	}
	if p.call != nil {
		p.call.unshown(reply.StatusCode, p.released)
	}
	if err := reply.encoded(); err != nil {
		reply.close()
		return nil, err
	}
	return reply, nil
}

// An exchange is one request to an upstream and its answer.
type exchange struct {
	transport http.RoundTripper
	timeout   time.Duration
	released  *custody.Released // what the request shows
	struck    *atomic.Bool      // set when the answer holds it
}

// do sends the request and returns what came back, with what was released masked. The
// time limit covers headers and body until the caller lifts it. An error that is not an
// unsentError means that the upstream may have acted.
//
// net/http does not repeat a POST of which anything was written, so that a
// request reaches the upstream at most once.
func (x *exchange) do(ctx context.Context, request func(context.Context) (*http.Request, error)) (*reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(x.timeout, func() { cancel(errTimeout) })
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
		err = x.mask(err)
		// Broken off with a connection at hand it may be on its way at this moment.
		if !sent.Load() && (cause == nil || !connected.Load()) {
			return nil, &unsentError{err}
		}
		return nil, err
	}
	req, err := request(ctx)
	if err != nil {
		return fail(fmt.Errorf("making the upstream's request: %w", err))
	}
	// RoundTrip and not a Client: redirects are not followed, so that neither
	// the call nor the credential goes where the upstream points.
	res, err := x.transport.RoundTrip(req) //nolint:bodyclose // by reply.close
	if err != nil {
		return fail(err)
	}
	if m := x.released.Mask; m != nil {
		if m.Header(res.Header) {
			x.struck.Store(true)
		}
		if res.StatusCode != http.StatusSwitchingProtocols {
			res.Body = &scrubber{m.Reader(res.Body), x.struck}
		}
	}
	return &reply{res, ctx, timer, cancel}, nil
}

// A scrubber is an answer's body without what was released, and says when it was there.
type scrubber struct {
	*custody.MaskReader
	struck *atomic.Bool
}

func (s *scrubber) Read(p []byte) (int, error) {
	n, err := s.MaskReader.Read(p)
	if s.Struck() {
		s.struck.Store(true)
	}
	return n, err
}

// A maskedError says what another one says, without what was released: an upstream's
// malformed answer is quoted in errors.
type maskedError struct {
	text string
	err  error
}

func (m *maskedError) Error() string { return m.text }
func (m *maskedError) Unwrap() error { return m.err }

func (x *exchange) mask(err error) error {
	if text, struck := x.released.Mask.String(err.Error()); struck {
		x.struck.Store(true)
		return &maskedError{text, err}
	}
	return err
}

// encoded says that an answer is in an encoding, which was not asked for.
func (r *reply) encoded() error {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return fmt.Errorf("the upstream answered with the encoding %.64q, which was not asked for", enc)
	}
	return nil
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
		h.Set(c.Header, c.Prefix+p.released.Secret.Reveal())
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
