package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// maxWhole bounds an answer that is read to its end before the client gets any of it.
const maxWhole = 64 << 10

// passedOn is the outcome of a call that somebody else forwards: nobody here knows more.
const passedOn = "passed_on"

// forward sends the request that was decided on, answers the client and records how it
// ended. Whatever happens in between, the decision is ended once.
func (c *httpCall) forward() {
	o := outcome{name: ledger.OutcomeUnknown}
	done := false
	finish := func() {
		if !done {
			done = true
			c.finish(o)
		}
	}
	if c.websocket && c.gateway.held.join() {
		defer c.gateway.held.leave() // a server that shuts down does not know of a WebSocket: Wait does
	}
	defer finish() // also when something below panics
	if c.question != nil {
		o.name, c.allowed = passedOn, true
		return
	}
	defer func() { c.passing.stop() }()
	reply, err := c.send()
	if err != nil {
		o = c.outcomeOf(err)
		finish()
		if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
			err = tooLarge(big.Limit)
			c.count(c.gateway.cfg.Answered, err)
			c.fail(err)
			return
		}
		c.failUpstream(err)
		return
	}
	defer reply.close()
	if err := c.unusable(reply); err != nil {
		o = c.unanswered(reply.StatusCode)
		finish()
		c.failUpstream(counterfoil.NewFault(o.code, err))
		return
	}
	if reply.StatusCode == http.StatusSwitchingProtocols {
		o = c.tunnel(reply)
		return
	}
	whole, body, err := c.begin(reply)
	switch {
	case err != nil:
		o = c.unanswered(reply.StatusCode)
		finish()
		c.failUpstream(counterfoil.NewFault(o.code, err))
	case whole:
		o = c.outcomeOfStatus(reply.StatusCode)
		c.keepWeb(reply.StatusCode, reply.Header, body)
		finish()
		c.writeAnswer(reply.StatusCode, reply.Header, body)
	default:
		var broken bool
		o, broken = c.pipe(reply, body)
		finish()
		if broken {
			// What the client has is not the whole answer, and must not look like it.
			panic(http.ErrAbortHandler)
		}
	}
}

// outcomeOfStatus is how a call ended that was answered so.
func (c *httpCall) outcomeOfStatus(status int) outcome {
	if status >= 400 {
		return outcome{name: failed}
	}
	return outcome{name: succeeded}
}

// unanswered is how a call ended whose answer had that status and cannot be passed on.
// What only reads can be asked again. Of a call that must not run twice, an upstream that
// broke, or a proxy that lost it, has not said that it did nothing either.
func (c *httpCall) unanswered(status int) outcome {
	reads := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	if mayHaveActed(status) && (!reads || c.outlasts()) || status >= 500 && c.outlasts() {
		return outcome{name: ledger.OutcomeUnknown, code: counterfoil.OutcomeUnknown}
	}
	// A key for repeating the call is not used up by a credential that has to be mended.
	return outcome{name: unavailable, code: counterfoil.UpstreamUnavailable, unsent: turnedAway(status)}
}

// unusable says why an answer cannot be passed on.
func (c *httpCall) unusable(reply *reply) error {
	status := reply.StatusCode
	if c.unshown(status, c.released) {
		return fmt.Errorf("the upstream did not take what the gateway showed it: status %d", status)
	}
	if err := reply.encoded(); err != nil {
		return err
	}
	switch {
	case status == http.StatusSwitchingProtocols && c.websocket:
		return opened(reply)
	case status < 200, status > 599:
		return fmt.Errorf("the upstream answered with status %d", status)
	case status >= 500 && c.outlasts():
		return fmt.Errorf("the upstream answered with status %d", status)
	case c.resource.Credential != nil && partial(reply):
		return errors.New("the upstream answered with a part of what there is, which nobody asked for")
	}
	return nil
}

// upstreamURL is where the request goes.
func (c *httpCall) upstreamURL() (*url.URL, error) {
	u, err := url.Parse(c.resource.Upstream)
	if err != nil {
		return nil, fmt.Errorf("reading the upstream's URL: %w", err)
	}
	raw := strings.TrimSuffix(u.EscapedPath(), "/") + c.path.raw
	if u.Path, err = url.PathUnescape(raw); err != nil {
		return nil, fmt.Errorf("making the upstream's URL: %w", err)
	}
	u.RawPath, u.RawQuery = raw, encodeQuery(c.parameters)
	if u.EscapedPath() != raw {
		return nil, errors.New("making the upstream's URL: its path would be spelled in another way")
	}
	return u, nil
}

// A silent body is empty. Of a request with one net/http makes no second one when its
// connection breaks, as it does of a GET without a body: see exchange.do.
type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, io.EOF }
func (silent) Close() error             { return nil }

// send makes the upstream's request.
func (c *httpCall) send() (*reply, error) {
	x := exchange{transport: c.gateway.cfg.Transport, timeout: c.gateway.cfg.UpstreamTimeout, released: &c.released, struck: c.struck}
	return x.do(c.ctx, func(ctx context.Context) (*http.Request, error) {
		u, err := c.upstreamURL()
		if err != nil {
			return nil, err
		}
		req := (&http.Request{
			Method: c.r.Method, URL: u, Host: u.Host, Header: c.upstreamHeaders(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		}).WithContext(ctx)
		switch {
		case c.tool.Stream && c.body.media != "":
			req.Body, req.ContentLength = c.passBody(), c.r.ContentLength
		case len(c.body.bytes) > 0:
			body := c.body.bytes
			req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		case c.r.Method == http.MethodGet, c.r.Method == http.MethodHead, c.r.Method == http.MethodOptions:
			req.Body = silent{}
		}
		return req, nil
	})
}

// upstreamHeaders makes all the headers that go upstream. The credential is set last,
// over everything.
func (c *httpCall) upstreamHeaders() http.Header {
	h := make(http.Header, len(c.pass)+8)
	for name, values := range c.pass {
		h[name] = values
	}
	h["Accept-Encoding"] = []string{"identity"}
	h["User-Agent"] = []string{userAgent}
	if c.body.media != "" {
		h["Content-Type"] = []string{c.body.media}
	}
	if c.body.digest != "" {
		h["Content-Digest"] = []string{c.body.digest}
	}
	key := c.used.Key
	if v := c.r.Header[headerKey]; c.spent != nil && len(v) == 1 {
		key = v[0]
	}
	if key != "" {
		// Under a name that net/http does not know: by its own it would take the request
		// for one that may be made again.
		h[strings.ToLower(headerKey)] = []string{c.gateway.sealer.upstreamKey(c.caller.Agent, c.resource.Name, key)}
	}
	if c.websocket {
		c.askUpgrade(h)
	}
	if cred := c.resource.Credential; cred != nil {
		h.Set(cred.Header, cred.Prefix+c.released.Secret.Reveal())
	}
	return h
}

// passBody is the body of a tool that takes it as it comes, within its limit; each part
// of it has the time that a whole one has otherwise.
func (c *httpCall) passBody() io.ReadCloser {
	c.passing = &passedBody{call: c, from: http.MaxBytesReader(c.w, c.r.Body, c.gateway.cfg.MaxBody), sum: sha256.New()}
	return c.passing
}

// A passedBody is read by the upstream's connection, perhaps for a moment longer than its
// request lasts.
type passedBody struct {
	call *httpCall
	from io.ReadCloser
	sum  hash.Hash
	done bool

	mu   sync.Mutex // guards over
	over bool       // the request is answered; its connection is somebody else's
}

func (p *passedBody) Read(b []byte) (int, error) {
	if !p.hurry() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := p.from.Read(b)
	p.sum.Write(b[:n])
	if errors.Is(err, io.EOF) && !p.done {
		p.done = true
		p.call.bodyDigest.Store("sha-256=:" + base64.StdEncoding.EncodeToString(p.sum.Sum(nil)) + ":")
	}
	return n, err
}

func (p *passedBody) hurry() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		_ = http.NewResponseController(p.call.w).SetReadDeadline(time.Now().Add(p.call.gateway.cfg.BodyTimeout)) // a writer without deadlines is bounded by its server
	}
	return !p.over
}

func (p *passedBody) stop() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

func (p *passedBody) Close() error { return p.from.Close() }

// begin reads what there is of an answer before the client gets any of it: the whole of
// a short one, nothing of a stream.
func (c *httpCall) begin(reply *reply) (whole bool, body []byte, err error) {
	status := reply.StatusCode
	if c.r.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified {
		return true, nil, nil
	}
	known := reply.ContentLength >= 0 && reply.ContentLength <= maxWhole
	media, _, mediaErr := mime.ParseMediaType(reply.Header.Get("Content-Type"))
	json := mediaErr == nil && (media == typeJSON || strings.HasSuffix(media, "+json"))
	if !known && (reply.ContentLength >= 0 || !json) {
		return false, nil, nil
	}
	body, err = io.ReadAll(io.LimitReader(reply.Body, maxWhole+1))
	return len(body) <= maxWhole, body, err
}

// writeAnswer writes a whole answer.
func (c *httpCall) writeAnswer(status int, from http.Header, body []byte) {
	h := c.w.Header()
	for name, values := range c.answerHeaders(from) {
		h[name] = values
	}
	if body != nil {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	} else if v := from.Get("Content-Length"); isDigits(v) && c.r.Method == http.MethodHead {
		h.Set("Content-Length", v)
	}
	c.plainBody(h, from)
	c.w.WriteHeader(status)
	c.w.Write(body) // whoever does not read it any more has gone away
}

// plainBody keeps net/http from guessing a type that the upstream did not say.
func (c *httpCall) plainBody(h, from http.Header) {
	if len(from["Content-Type"]) == 0 {
		h["Content-Type"] = nil
	}
	h.Set("X-Content-Type-Options", "nosniff")
}

// pipe passes an answer on as it comes, cut when its caller is revoked. It returns how
// the call ended and whether the client has less than the whole.
func (c *httpCall) pipe(reply *reply, head []byte) (o outcome, broken bool) {
	events := reply.mediaType() == typeStream
	endless := events && !c.outlasts() // what is kept is kept whole, or not at all
	reply.unlimited()
	watch := c.watch(reply, endless)
	defer watch.stop()
	if c.outlasts() {
		// What somebody may ask for again is not broken off because its client went away.
		gone := context.AfterFunc(c.r.Context(), func() { reply.limited(c.gateway.cfg.UpstreamTimeout) })
		defer gone()
	}
	h := c.w.Header()
	for name, values := range c.answerHeaders(reply.Header) {
		h[name] = values
	}
	c.plainBody(h, reply.Header)
	if reply.ContentLength >= 0 {
		h.Set("Content-Length", strconv.FormatInt(reply.ContentLength, 10))
	}
	if events {
		h.Set("X-Accel-Buffering", "no") // a proxy in front must not collect events
	}
	c.w.WriteHeader(reply.StatusCode)
	out := &streamWriter{w: c.w, control: http.NewResponseController(c.w), watch: watch}
	defer watch.written(out)
	_ = out.control.Flush() // the first part will say what is wrong

	kept, err := c.copyAnswer(reply, out, head, endless)
	switch {
	case errors.Is(err, io.EOF):
		if kept != nil {
			c.keepWeb(reply.StatusCode, reply.Header, kept)
		}
		return c.outcomeOfStatus(reply.StatusCode), false
	case endless && errors.Is(context.Cause(reply.ctx), errDraining), endless && c.ctx.Err() != nil:
		return c.outcomeOfStatus(reply.StatusCode), true
	}
	return c.cut(reply, err), true
}

// copyAnswer copies an answer until it ends, which is io.EOF, or something else does. It
// returns what is to be kept of it.
func (c *httpCall) copyAnswer(reply *reply, out *streamWriter, head []byte, endless bool) (kept []byte, err error) {
	buf := make([]byte, 32<<10)
	most := c.mostKept()
	gone := false
	for part := head; ; {
		if len(part) > 0 {
			if most >= 0 {
				if kept = append(kept, part...); len(kept) > most {
					kept, most, c.overlong = nil, -1, true
				}
			}
			if err := out.send(part); err != nil && !gone {
				if gone = true; out.watch.isCut() || !c.outlasts() {
					return nil, err
				}
			}
		}
		if err != nil {
			return kept, err
		}
		if !endless && !gone {
			reply.limited(c.gateway.cfg.UpstreamTimeout) // for the next part
		}
		var n int
		n, err = reply.Body.Read(buf)
		part = buf[:n]
		if cut := out.watch.err(); cut != nil {
			return nil, cut
		}
	}
}

// send writes a part of an answer at once.
func (s *streamWriter) send(part []byte) error {
	if err := s.watch.limit(s, time.Now().Add(writeLimit)); err != nil {
		return err
	}
	if _, err := s.w.Write(part); err != nil {
		return errGone
	}
	if err := s.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return errGone
	}
	return nil
}

// mapLocation returns where an answer points, as the client reaches it: within the
// upstream that is below the resource's URL. It is empty for what is at the upstream's
// own origin and not below it, which nobody outside reaches.
func (c *httpCall) mapLocation(location string) string {
	at, err := c.upstreamURL()
	if err != nil {
		return ""
	}
	to, err := at.Parse(location)
	if err != nil {
		return ""
	}
	if !strings.EqualFold(to.Scheme, at.Scheme) || !strings.EqualFold(to.Host, at.Host) {
		return location
	}
	base, err := url.Parse(c.resource.Upstream)
	if err != nil {
		return ""
	}
	below, ok := strings.CutPrefix(to.EscapedPath(), strings.TrimSuffix(base.EscapedPath(), "/"))
	if !ok || below != "" && below[0] != '/' {
		return ""
	}
	mapped := strings.TrimSuffix(c.url, "/") + below
	if to.RawQuery != "" {
		mapped += "?" + to.RawQuery
	}
	if f := to.EscapedFragment(); f != "" {
		mapped += "#" + f
	}
	return mapped
}
