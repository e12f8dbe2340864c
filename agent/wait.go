package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	// DefaultWait is how long a call is held where somebody waits for it: below
	// the 60 seconds after which MCP clients give a call up.
	DefaultWait = 50 * time.Second

	// leastInterval and mostInterval bound what a server says about the pause
	// between two looks.
	leastInterval, mostInterval = time.Second, 30 * time.Second
	// slowDown is added to the pause for every "slow down" (RFC 8628, Section
	// 3.5, has the same).
	slowDown = 5 * time.Second
	// lookTimeout bounds one look at an approval.
	lookTimeout = 5 * time.Second

	headerApproval = "Counterfoil-Approval"
	metaRefusal    = "counterfoil/refusal"
)

// A WaitConfig says how long a Waiter holds calls.
type WaitConfig struct {
	Transport *Transport

	// Wait is how long a call is held in all, from the moment it comes. Zero
	// holds none.
	Wait time.Duration

	After func(time.Duration) <-chan time.Time // makes the pauses; time.After when nil
	Log   *slog.Logger                         // nothing is logged when nil
}

// A Waiter is an http.RoundTripper that holds a call for which people have to
// say yes, for programs that would take the refusal for an end. It looks at the
// approval from time to time and, once that is decided, sends the very same
// request again, with a token and a proof of now and the approval's name. When
// the time is over it returns the last refusal as it came. An MCP call that
// names a progress token and takes a stream gets one, with a notification at
// each look.
//
// Nothing but a refusal to wait for is ever repeated: a call that was answered
// otherwise, or by nothing, may have been done. A request that ends meanwhile
// ends the wait and not the approval: whoever repeats the call finds it. It is
// safe for concurrent use.
type Waiter struct {
	transport *Transport
	wait      time.Duration
	after     func(time.Duration) <-chan time.Time
	log       *slog.Logger
}

// NewWaiter returns a Waiter. It sends nothing.
func NewWaiter(c WaitConfig) *Waiter {
	w := &Waiter{transport: c.Transport, wait: c.Wait, after: c.After, log: c.Log}
	if w.after == nil {
		w.after = time.After
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	return w
}

// Client returns a client that uses w and follows no redirect.
func (w *Waiter) Client() *http.Client {
	c := w.transport.Client()
	c.Transport = w
	return c
}

// CloseIdleConnections closes connections that no request uses.
func (w *Waiter) CloseIdleConnections() { w.transport.CloseIdleConnections() }

// RoundTrip sends one request and holds it as the type says.
func (w *Waiter) RoundTrip(req *http.Request) (*http.Response, error) {
	start := w.transport.now()
	resp, err := w.transport.RoundTrip(req)
	if err != nil || w.wait <= 0 || req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return resp, err
	}
	waits := w.waitsFor(resp)
	if waits == nil {
		return resp, nil
	}
	h := &holding{waiter: w, req: req, resp: resp, approval: *waits, until: start.Add(w.wait)}
	w.log.InfoContext(req.Context(), "waiting for people", "approval", waits.ID, "until", h.until)
	if m, ok := h.reports(); ok {
		return h.stream(m), nil
	}
	return h.hold(req.Context(), func(int) error { return nil })
}

// endpoint is where the issuer says how an approval stands.
func (w *Waiter) endpoint(id string) string {
	return w.transport.issuer.id + counterfoil.ApprovalPath + id
}

// waitsFor returns the approval that a refused call waits for, and nil for every
// other answer. The body is still there afterwards. A refusal that names another
// place for the approval's status is not the gateway's: an upstream that made it up
// would have the call repeated.
func (w *Waiter) waitsFor(resp *http.Response) *counterfoil.ApprovalStatus {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var told answered
	switch {
	case resp.StatusCode == http.StatusForbidden && kind == counterfoil.ProblemMedia:
		told = readAnswered(peek(resp))
	case resp.StatusCode == http.StatusOK && kind == "application/json":
		// An answer that is no refusal is not read as one: it may be large.
		body := peek(resp)
		if len(body) >= maxAnswer || !bytes.Contains(body, []byte(metaRefusal)) {
			return nil
		}
		var r struct {
			Result struct {
				Meta struct {
					Refusal answered `json:"counterfoil/refusal"`
				} `json:"_meta"`
			} `json:"result"`
		}
		if ijson.UnmarshalLax(body, &r) != nil {
			return nil
		}
		told = r.Result.Meta.Refusal
	}
	if told.Code != counterfoil.ApprovalRequired && told.Code != counterfoil.ApprovalPending {
		return nil
	}
	var s counterfoil.ApprovalStatus
	if json.Unmarshal(told.Approval, &s) != nil || !isApprovalID(s.ID) || s.StatusEndpoint != w.endpoint(s.ID) {
		return nil
	}
	return &s
}

// isApprovalID reports whether s may go into a header and a path.
func isApprovalID(s string) bool {
	rest, ok := strings.CutPrefix(s, "apr_")
	return ok && rest != "" && len(rest) <= 64 && alphanumeric(rest)
}

// A holding is one call that waits.
type holding struct {
	waiter   *Waiter
	req      *http.Request
	resp     *http.Response // the last refusal
	approval counterfoil.ApprovalStatus
	until    time.Time
	slower   time.Duration // that the server asked for
}

// hold waits until the call is answered otherwise, the time is over or ctx ends.
// It tells every look beforehand; an error of tell ends the wait.
func (h *holding) hold(ctx context.Context, tell func(look int) error) (*http.Response, error) {
	for look := 1; ; look++ {
		if err := tell(look); err != nil {
			_ = h.resp.Body.Close()
			return nil, err
		}
		left := h.until.Sub(h.waiter.transport.now())
		if left <= 0 {
			return h.resp, nil
		}
		select {
		case <-h.waiter.after(min(h.pause(), left)):
		case <-ctx.Done():
			_ = h.resp.Body.Close()
			return nil, context.Cause(ctx)
		}
		switch h.look(ctx) {
		case lookAgain:
			continue
		case lookInVain:
			return h.resp, nil
		}
		// A token that ran out meanwhile is asked for before the call goes out: an
		// issuer that is away for a moment ends no wait, one that says no does.
		if _, err := h.waiter.transport.Token(ctx); err != nil && !final(err) && ctx.Err() == nil {
			continue
		}
		resp, err := h.repeat(ctx)
		if err != nil {
			_ = h.resp.Body.Close()
			return nil, err
		}
		waits := h.waiter.waitsFor(resp)
		_ = h.resp.Body.Close()
		if waits == nil {
			return resp, nil
		}
		h.resp, h.approval = resp, *waits
	}
}

// pause is the time until the next look.
func (h *holding) pause() time.Duration {
	p := time.Duration(h.approval.Interval) * time.Second
	return min(max(p, leastInterval)+h.slower, mostInterval)
}

// What a look at an approval says to do.
type verdict int

const (
	lookAgain  verdict = iota // it is pending, or could not be seen just now
	lookRepeat                // it is decided, or its status cannot be had: the call says more
	lookInVain                // there is no such approval
)

// look asks how the approval stands.
func (h *holding) look(ctx context.Context) verdict {
	t := h.waiter.transport
	endpoint := h.waiter.endpoint(h.approval.ID)
	u, err := url.Parse(endpoint)
	if err != nil || origin(u) != origin(t.url) {
		// The token and the proofs go to the resource's origin alone.
		return lookRepeat
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return lookRepeat
	}
	req.Header.Set("Accept", "application/json")
	resp, err := t.RoundTrip(req)
	if err != nil {
		if final(err) {
			return lookRepeat // no token is given any more, and the call says why
		}
		return lookAgain
	}
	defer resp.Body.Close()
	body, err := readLimited(resp.Body)
	if err != nil {
		return lookAgain
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return lookInVain
	case http.StatusTooManyRequests:
		h.slower += slowDown
		return lookAgain
	case http.StatusUnauthorized, http.StatusForbidden:
		return lookRepeat // the call says why
	default:
		return lookAgain
	}
	var s counterfoil.ApprovalStatus
	if ijson.UnmarshalLax(body, &s) != nil || s.ID != h.approval.ID {
		return lookRepeat
	}
	if s.Status == string(counterfoil.StatePending) {
		h.approval.Interval = s.Interval
		return lookAgain
	}
	return lookRepeat
}

// repeat sends the call again: the same bytes, and the name of the approval, so
// that one that was denied or expired meanwhile is said to be, and no new one is
// asked for.
func (h *holding) repeat(ctx context.Context) (*http.Response, error) {
	again := h.req.Clone(ctx)
	again.Header.Set(headerApproval, h.approval.ID)
	if h.req.GetBody != nil {
		body, err := h.req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("making the body again: %w", err)
		}
		again.Body = body
	}
	return h.waiter.transport.RoundTrip(again)
}

// reports returns the MCP call that wants to be told how it goes and takes a
// stream.
func (h *holding) reports() (message, bool) {
	if h.resp.StatusCode != http.StatusOK || h.req.GetBody == nil || !strings.Contains(h.req.Header.Get("Accept"), "text/event-stream") {
		return message{}, false
	}
	body, err := h.req.GetBody()
	if err != nil {
		return message{}, false
	}
	raw, err := io.ReadAll(body)
	_ = body.Close()
	if err != nil {
		return message{}, false
	}
	m, err := parseMessage(raw)
	return m, err == nil && m.isCall() && m.progress != nil
}

// stream answers with a stream at once and tells on it what hold finds.
func (h *holding) stream(m message) *http.Response {
	ctx, cancel := context.WithCancel(h.req.Context())
	r, w := io.Pipe()
	first := h.resp
	go func() {
		defer cancel()
		resp, err := h.hold(ctx, func(look int) error { return h.progress(w, m, look) })
		if ctx.Err() != nil {
			if resp != nil {
				_ = resp.Body.Close()
			}
			_ = w.CloseWithError(context.Cause(ctx))
			return
		}
		_ = w.CloseWithError(h.end(w, m, resp, err))
	}()
	header := first.Header.Clone()
	header.Del("Content-Length")
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	return &http.Response{
		Status: first.Status, StatusCode: first.StatusCode, Proto: first.Proto, ProtoMajor: first.ProtoMajor, ProtoMinor: first.ProtoMinor,
		Header: header, ContentLength: -1, Request: first.Request,
		Body: &streamed{PipeReader: r, cancel: cancel},
	}
}

// streamed is the body of a held call. Whoever closes it ends the wait.
type streamed struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close ends the wait.
func (s *streamed) Close() error {
	s.cancel()
	return s.PipeReader.Close()
}

// progress writes a notifications/progress (MCP 2026-07-28, Progress), whose
// number has to grow.
func (h *holding) progress(w io.Writer, m message, look int) error {
	n := struct {
		JSONRPC string `json:"jsonrpc"`
		Method  string `json:"method"`
		Params  any    `json:"params"`
	}{"2.0", "notifications/progress", map[string]any{
		"progressToken": m.progress, "progress": look, "message": h.sentence(),
	}}
	raw, err := json.Marshal(n, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("writing a notification: %w", err)
	}
	return writeEvent(w, raw)
}

// sentence says what the call waits for.
func (h *holding) sentence() string {
	people := "a person to say yes"
	if n := h.approval.ApprovalsRequired; n > 1 {
		people = fmt.Sprintf("%d people to say yes", n)
	}
	return fmt.Sprintf("waiting for %s to %s, until %s", people, h.approval.ID, h.approval.ExpiresAt.UTC().Format(time.RFC3339))
}

// end writes what the call came to as the stream's last message.
func (h *holding) end(w io.Writer, m message, resp *http.Response, err error) error {
	if err != nil {
		return writeProblem(w, m, problemOf(err))
	}
	defer resp.Body.Close()
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
		_, err := io.Copy(w, resp.Body)
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+1))
	if err != nil || len(body) > maxMessage {
		return writeProblem(w, m, problemOf(errors.Join(errors.New("the answer did not come whole"), err)))
	}
	if r, err := parseReply(body); err == nil && r.answers(&m) {
		return writeEvent(w, body)
	}
	return writeProblem(w, m, problemOf(refusedBy("the resource", resp.StatusCode, body)))
}

// writeProblem answers the call with an error of our own.
func writeProblem(w io.Writer, m message, p counterfoil.Problem) error {
	code := p.Code.Wire().JSONRPC
	if code == 0 {
		code = counterfoil.RPCInternal
	}
	e, err := newErrorReply(m.id, code, p)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing an error: %w", err)
	}
	return writeEvent(w, raw)
}

// writeEvent writes one message as a server-sent event.
func writeEvent(w io.Writer, raw []byte) error {
	var b bytes.Buffer
	b.WriteString("event: message\n")
	for line := range bytes.Lines(raw) { // a line of its own for each of the text's
		b.WriteString("data: ")
		b.Write(bytes.TrimRight(line, "\r\n"))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}
