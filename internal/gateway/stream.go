package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	// lookInterval is how often an open stream's caller is looked at when nothing
	// flows and no Feed says that there is something to look for: it is the second
	// net, so that whatever becomes of the first a revoked agent's stream is cut well
	// within a second.
	lookInterval = 250 * time.Millisecond

	// lastWordLimit is how long a client whose call was cut may take to read why.
	lastWordLimit = 200 * time.Millisecond

	// writeLimit is how long a client may take to read one event.
	writeLimit = 30 * time.Second
)

var (
	errDraining = errors.New("the server is shutting down")
	errGone     = errors.New("the client is gone")
)

// A watch looks at an open stream's caller, when something may have been revoked and
// now and then, and ends the stream when the caller is.
type watch struct {
	call    *call
	endless bool // ends with the server
	cancel  context.CancelCauseFunc
	gone    chan struct{} // closed when nothing is written to the client any more

	mu    sync.Mutex    // guards what follows: a look can come before watch returns
	timer *time.Timer   // nil once it is stopped
	out   *streamWriter // nil while there is none
	why   error         // why it was cut; nil while it is not
}

// watch begins to look at the caller. It is among the open streams before its first
// look: what is revoked before that is seen by this look, and after it by whoever goes
// through them.
func (c *call) watch(reply *reply, endless bool) *watch {
	w := &watch{call: c, endless: endless, cancel: reply.cancel, gone: make(chan struct{})}
	w.mu.Lock()
	w.timer = time.AfterFunc(c.gateway.look, w.look)
	w.mu.Unlock()
	c.gateway.streams.add(w)
	w.look()
	return w
}

// look runs in goroutines of others, out of reach of the recover that guards requests: a
// panic in it cuts its own stream and not all of them.
func (w *watch) look() {
	defer func() {
		if p := recover(); p != nil {
			w.cut(w.call.gateway.panicked("looking at a stream's caller", p))
		}
	}()
	if err := w.err(); err != nil {
		w.cut(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Reset(w.call.gateway.look)
	}
}

// cut ends the stream: the upstream's side, and a client that does not read. Whatever is
// being written to it fails, and nothing more is.
func (w *watch) cut(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil || w.why != nil {
		return
	}
	w.why = why
	w.cancel(why)
	if errors.Is(why, errDraining) {
		return // what was written may still be read
	}
	w.call.gateway.streams.countCut()
	if w.out != nil {
		_ = w.out.control.SetWriteDeadline(longAgo) // a writer without deadlines is bounded by its server
	}
}

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

// isCut reports whether the stream is cut, and so is going.
func (w *watch) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why != nil
}

// limit sets until when what is written has to be read, unless the stream is cut.
func (w *watch) limit(out *streamWriter, deadline time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.why != nil {
		return w.why
	}
	w.out = out
	return out.limit(deadline)
}

// written lifts the deadline: the connection may serve other requests.
func (w *watch) written(out *streamWriter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = nil
	_ = out.limit(time.Time{}) // on a connection that is gone there is nothing to lift
}

// err says why the stream must end now, or nil.
func (w *watch) err() error {
	if w.endless && w.call.gateway.draining.Load() {
		return errDraining
	}
	return w.call.revoked()
}

func (w *watch) stop() {
	w.call.gateway.streams.remove(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
	close(w.gone)
}

// stream passes a stream on, event by event, and returns how the call ended.
// The entry of its end follows the stream.
func (c *mcpCall) stream(reply *reply) outcome {
	endless := c.message.kind != request || c.message.name == "subscriptions/listen"
	if !c.held {
		reply.unlimited() // what the gateway calls by itself keeps its limit
	}
	watch := c.watch(reply, endless)
	defer watch.stop()
	if c.outlasts() && !c.held {
		// What somebody may ask for again is not broken off because its client went
		// away: the answer is waited for as that of a held call would be.
		gone := context.AfterFunc(c.r.Context(), func() { reply.limited(c.gateway.cfg.UpstreamTimeout) })
		defer gone()
	}

	out := c.beginStream(watch)
	defer watch.written(out)
	events := newEventReader(reply.Body, int(c.gateway.cfg.MaxAnswer))
	for {
		ev, err := events.next()
		if err == nil {
			err = watch.err()
		}
		if err != nil {
			if endless && (errors.Is(err, io.EOF) || c.ctx.Err() != nil) {
				return outcome{name: succeeded}
			}
			o := c.cut(reply, err)
			c.lastWord(out, o)
			return o
		}
		last, o, err := c.event(&ev)
		if err != nil {
			c.gateway.cfg.Log.Warn("cutting a stream", "request_id", c.id, "err", err)
			return outcome{name: ledger.OutcomeUnknown, code: counterfoil.CodeOf(err)}
		}
		if err := out.write(&ev); err != nil {
			if watch.isCut() {
				return c.cut(reply, err)
			}
			if !c.outlasts() {
				return outcome{name: ledger.OutcomeUnknown, code: counterfoil.OutcomeUnknown}
			}
		}
		if last {
			return o
		}
	}
}

// cut says how a call ended whose stream ended without an answer.
func (c *call) cut(reply *reply, err error) outcome {
	if cause := context.Cause(reply.ctx); cause != nil {
		err = cause
	}
	if r, ok := counterfoil.AsRefusal(err); ok {
		return outcome{name: ledger.OutcomeUnknown, code: r.Code}
	}
	if c.ctx.Err() == nil {
		c.gateway.cfg.Log.Warn("a stream ended without its answer", "request_id", c.id, "err", err)
	}
	return outcome{name: ledger.OutcomeUnknown, code: counterfoil.OutcomeUnknown}
}

// lastWord tells the client of a call that was cut why it gets no answer. The client may
// be the reason, or not read: it has a moment for it, and no more.
func (c *mcpCall) lastWord(out *streamWriter, o outcome) {
	if c.held || c.message.kind != request || o.code == "" {
		return
	}
	why := c.explain(c.faultOf(o.code))
	b, err := json.Marshal(rpcError{Code: why.Code.Wire().Status, Message: why.Code.Wire().Title(), Data: why})
	if err != nil {
		return
	}
	ev := event{data: encodeRPC(c.message.id, "error", b)}
	if out.limit(time.Now().Add(lastWordLimit)) == nil {
		_, _ = out.w.Write(ev.append(out.buf[:0]))
		_ = out.control.Flush()
	}
}

// event changes an event on its way to the client. It reports whether it was
// the answer to the request, and how the call ended then. An event that must
// not go on comes back as a comment.
func (c *mcpCall) event(ev *event) (last bool, o outcome, err error) {
	if ev.comment {
		return false, o, nil
	}
	c.bindEvent(ev)
	if len(ev.data) == 0 {
		return false, o, nil
	}
	if !ev.isMessage() {
		*ev = event{comment: true}
		return false, o, nil
	}
	m, err := readRPC(ev.data)
	if err != nil {
		return false, o, err
	}
	if m.isAnswer() {
		return c.answerEvent(ev, &m)
	}
	if m.ID != nil && eraOf(c.revision) == modern {
		// MCP 2026-07-28, Streamable HTTP, Receiving Messages: a server sends no
		// requests.
		*ev = event{comment: true}
		return false, o, nil
	}
	if m.Method == "notifications/tools/list_changed" {
		c.gateway.catalog(c.resource).void()
	}
	return false, o, nil
}

// answerEvent handles the answer to the request, or, on a stream that was
// opened with GET, the answer to an earlier one.
func (c *mcpCall) answerEvent(ev *event, m *rpcMessage) (last bool, o outcome, err error) {
	if c.message.kind == request {
		if !m.answers(c.message.id) {
			*ev = event{comment: true}
			return false, o, nil
		}
		ev.data, o, err = c.rewrite(m)
		return true, o, err
	}
	if m.Result == nil {
		return false, o, nil
	}
	result, err := c.transform(methodOf(m.Result), m.Result)
	if err != nil {
		return false, o, err
	}
	ev.data = encodeRPC(m.ID, "result", result)
	return false, o, nil
}

// bindEvent binds an event's id to the session. 2026-07-28 has no event ids.
func (c *mcpCall) bindEvent(ev *event) {
	if !ev.hasID {
		return
	}
	if c.open == nil {
		ev.id, ev.hasID = "", false // nobody could resume
		return
	}
	if ev.id != "" {
		ev.id = c.gateway.sealer.sealEvent(c.open, ev.id)
	}
}

// A streamWriter writes events to the client, each at once.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	watch   *watch
	buf     []byte
}

func (c *mcpCall) beginStream(watch *watch) *streamWriter {
	h := c.w.Header()
	h.Set("Content-Type", typeStream)
	h.Set("X-Accel-Buffering", "no") // a proxy in front must not collect events
	c.w.WriteHeader(http.StatusOK)
	s := &streamWriter{w: c.w, control: http.NewResponseController(c.w), watch: watch}
	if err := s.control.Flush(); err != nil {
		c.gateway.cfg.Log.Debug("beginning a stream", "request_id", c.id, "err", err) // the first event will say it
	}
	return s
}

func (s *streamWriter) write(ev *event) error {
	s.buf = ev.append(s.buf[:0])
	// A deadline of the connection, which knows the machine's clock alone. A
	// writer that has none is bounded by its server.
	if err := s.watch.limit(s, time.Now().Add(writeLimit)); err != nil {
		return err
	}
	if _, err := s.w.Write(s.buf); err != nil {
		return errGone
	}
	if err := s.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return errGone
	}
	return nil
}

func (s *streamWriter) limit(deadline time.Time) error {
	if err := s.control.SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return errGone
	}
	return nil
}

// listen answers GET: the stream on which a session's server speaks by itself,
// or an earlier stream that is resumed (MCP 2025-11-25, Transports).
func (c *mcpCall) listen() {
	c.sessionRequest(func() (http.Header, error) {
		h := http.Header{"Accept": {typeStream}}
		last, there, err := headerValue(c.r.Header, headerEvent)
		if err != nil || !there {
			return h, err
		}
		id, err := c.gateway.sealer.openEvent(c.open, last)
		h[headerEvent] = []string{id}
		return h, err
	}, func(reply *reply) (func(), outcome) {
		if reply.StatusCode == http.StatusOK && reply.mediaType() == typeStream {
			return func() {}, c.stream(reply)
		}
		return c.sessionRejected(reply)
	})
}

// end answers DELETE: the client is done with its session.
func (c *mcpCall) end() {
	c.sessionRequest(func() (http.Header, error) { return nil, nil }, func(reply *reply) (func(), outcome) {
		if reply.StatusCode/100 == 2 {
			return func() { c.w.WriteHeader(http.StatusNoContent) }, outcome{name: succeeded}
		}
		return c.sessionRejected(reply)
	})
}

// sessionRequest is the way of a GET or DELETE: they exist for sessions alone.
func (c *mcpCall) sessionRequest(headers func() (http.Header, error), handle func(*reply) (func(), outcome)) {
	h, err := c.inSession(headers)
	if err != nil {
		c.refuse(err)
		return
	}
	if !c.admit(nil) {
		return
	}
	o := outcome{name: ledger.OutcomeUnknown}
	write := func() {}
	func() {
		defer func() { c.finish(o) }()
		reply, err := c.peer().do(c.ctx, c.r.Method, h, nil)
		if err == nil {
			defer reply.close()
			write, o = handle(reply)
			return
		}
		o = c.outcomeOf(err)
		write = func() { c.failUpstream(err) }
	}()
	write()
}

// inSession opens the session of a GET or DELETE.
func (c *mcpCall) inSession(headers func() (http.Header, error)) (http.Header, error) {
	noSuch := func() error {
		c.w.Header().Set("Allow", http.MethodPost)
		return counterfoil.Refuse(counterfoil.MethodForbidden, "%s is for sessions of %s: send Mcp-Session-Id", c.r.Method, revision20251125)
	}
	revision, there, err := headerValue(c.r.Header, headerRevision)
	if err != nil {
		return nil, err
	}
	if there && eraOf(revision) == modern {
		return nil, noSuch()
	}
	if there && eraOf(revision) == 0 {
		return nil, unsupported(revision, supportedRevisions)
	}
	id, there, err := headerValue(c.r.Header, headerSession)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, noSuch()
	}
	if c.open, err = c.gateway.sealer.open(id, c.resource.Name, &c.caller); err != nil {
		return nil, err
	}
	if revision != "" && revision != c.open.Revision {
		return nil, mismatch("the header MCP-Protocol-Version says %s, the session was opened with %s", revision, c.open.Revision)
	}
	c.revision = c.open.Revision
	return headers()
}

// sessionRejected handles the statuses that an upstream refuses GET or DELETE
// with.
func (c *mcpCall) sessionRejected(reply *reply) (func(), outcome) {
	var err error
	switch reply.StatusCode {
	case http.StatusMethodNotAllowed:
		c.w.Header().Set("Allow", http.MethodPost)
		err = counterfoil.Refuse(counterfoil.MethodForbidden, "the upstream does not take %s", c.r.Method)
	case http.StatusNotFound:
		err = counterfoil.Refuse(counterfoil.ToolUnknown, "the upstream ended the session: initialize again")
	default:
		return c.rejected(reply)
	}
	return func() { c.count(c.gateway.cfg.Answered, err); c.fail(err) }, outcome{name: failed, code: counterfoil.CodeOf(err)}
}
