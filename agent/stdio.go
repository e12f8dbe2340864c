package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

const (
	maxCalls      = 256              // at once; more are refused
	noticeTimeout = 30 * time.Second // for sending what has no answer
	drainTimeout  = time.Minute      // for calls that run when the input ends
	partTimeout   = 5 * time.Second  // for ending the session
	maxResumes    = 5                // attempts to resume a stream without progress
	resumePause   = time.Second      // before each, unless the server says otherwise
)

// errClientCancelled is why a call's context ends when its client asked for it.
var errClientCancelled = errors.New("the client cancelled the call")

// Stdio serves one MCP client over newline-delimited JSON-RPC (MCP, stdio
// transport): what comes from in goes to the resource over streamable HTTP, and
// what comes back goes to out, byte for byte but for white space. Both kinds of
// revision are carried: those with sessions, whose stream from the server is
// kept open, and 2026-07-28, whose headers are made from the message.
//
// It returns nil when in ends, after the calls that still run are answered, and
// when ctx ends, which cuts them; an error when in cannot be read or out cannot
// be written; the refusal when the transport's task was closed. A Read of in that is under way is left behind, as nothing can end
// it; the process is expected to exit.
func (c *Connector) Stdio(ctx context.Context, in io.Reader, out io.Writer) error {
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &bridge{
		http: c.waiter.Client(), url: c.transport.resource, log: c.log,
		out: out, broke: cancel, running: map[string]*running{}, mirrors: map[string][]mirror{},
	}
	lines := make(chan line)
	go readLines(run, in, lines)
	for {
		select {
		case <-run.Done():
			return b.end(ctx, run)
		case <-c.transport.TaskClosed():
			// Calls that run get their answer, which is that same refusal.
			b.drain(run, partTimeout)
			cancel(c.transport.taskErr())
			return b.end(ctx, run)
		case l, more := <-lines:
			if !more {
				b.drain(run, drainTimeout)
				return b.end(ctx, run)
			}
			if l.err != nil {
				cancel(fmt.Errorf("reading the client: %w", l.err))
				continue
			}
			b.take(run, l)
		}
	}
}

// A line is one line of the client's, or why there is none.
type line struct {
	text    []byte
	tooLong bool
	err     error
}

// readLines sends the lines of in until it ends and closes the channel.
func readLines(ctx context.Context, in io.Reader, lines chan<- line) {
	defer close(lines)
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		var l line
		for {
			part, err := r.ReadSlice('\n')
			if len(l.text)+len(part) > maxBody {
				l.tooLong, l.text = true, nil // the rest of the line is read and dropped
			}
			if !l.tooLong {
				l.text = append(l.text, part...)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) {
				l.err = err
			}
			l.text = bytes.TrimSpace(l.text)
			if len(l.text) > 0 || l.tooLong || l.err != nil {
				select {
				case lines <- l:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
			break
		}
	}
}

// A bridge is one client's conversation.
type bridge struct {
	http  *http.Client
	url   string
	log   *slog.Logger
	broke context.CancelCauseFunc // called when the client cannot be written to

	outMu sync.Mutex // guards writes to out: a message is one line
	out   io.Writer

	calls sync.WaitGroup // everything that runs beside the reader

	mu       sync.Mutex // guards what follows
	running  map[string]*running
	revision string              // that the client speaks: negotiated, or named in its messages
	session  string              // of a revision with sessions
	mirrors  map[string][]mirror // by tool
	unlisten context.CancelFunc  // ends the server's own stream; nil when there is none
}

// running is a call that has no answer yet.
type running struct {
	method    string
	stateless bool
	cancel    context.CancelCauseFunc
}

// take handles one message. Calls run on their own. What has no answer is sent
// before the next message is looked at, and so is initialize, because its order
// matters: notifications/initialized must not overtake it, nor calls that.
func (b *bridge) take(ctx context.Context, l line) {
	if l.tooLong {
		b.answer(jsontext.Value("null"), counterfoil.RPCInvalidRequest, counterfoil.Problem{
			Code: counterfoil.PayloadTooLarge, Detail: fmt.Sprintf("a message is larger than %d bytes", maxBody)})
		return
	}
	m, err := parseMessage(l.text)
	if err != nil {
		b.malformed(l.text, err)
		return
	}
	switch {
	case m.isCall():
		b.start(ctx, m)
	case m.method == "notifications/cancelled" && b.cancel(m.refersTo):
		// MCP 2026-07-28, Cancellation: over HTTP the end of the call's stream
		// is the signal, and no notification is expected.
	default:
		b.notify(ctx, m)
	}
}

// malformed answers what is not taken. Where a call can be made out in it the
// client gets its answer, and does not wait for ever.
func (b *bridge) malformed(text []byte, why error) {
	p := counterfoil.Problem{Code: counterfoil.PayloadMalformed, Detail: why.Error()}
	r, err := parseReply(text)
	switch k := r.ID.Kind(); {
	case err != nil:
		b.answer(jsontext.Value("null"), counterfoil.RPCParse, p)
	case k == '"' || k == '0':
		b.answer(r.ID, counterfoil.RPCInvalidRequest, p)
	default:
		b.answer(jsontext.Value("null"), counterfoil.RPCInvalidRequest, p)
	}
}

// start runs a call.
func (b *bridge) start(ctx context.Context, m message) {
	call, cancel := context.WithCancelCause(ctx)
	b.mu.Lock()
	revision := b.revisionOf(&m)
	_, twice := b.running[key(m.id)]
	tooMany := len(b.running) >= maxCalls
	if !twice && !tooMany {
		b.running[key(m.id)] = &running{method: m.method, stateless: revision >= firstStateless, cancel: cancel}
	}
	b.mu.Unlock()
	if twice || tooMany {
		cancel(nil)
		p := counterfoil.Problem{Code: counterfoil.RequestMalformed, Detail: "a call with this id is still running"}
		if tooMany {
			p = counterfoil.Problem{Code: counterfoil.RateLimited, Detail: fmt.Sprintf("%d calls run already", maxCalls)}
		}
		b.answer(m.id, counterfoil.RPCInvalidRequest, p)
		return
	}
	run := func() {
		defer cancel(nil)
		b.call(call, m, revision)
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.running, key(m.id))
	}
	if m.method == "initialize" {
		run()
		return
	}
	b.calls.Go(run)
}

// revisionOf returns the revision that a message is sent under: its own word,
// or what the conversation has come to. b.mu is held.
func (b *bridge) revisionOf(m *message) string {
	switch {
	case m.method == "initialize":
		// A client that found no stateless server begins anew.
		b.revision, b.session = "", ""
	case m.revision != "":
		b.revision = m.revision
	}
	return b.revision
}

// cancel ends a call that runs under a revision without sessions, and reports
// whether it was one. It goes by the call's own revision.
func (b *bridge) cancel(id jsontext.Value) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.running[key(id)]
	if r == nil || !r.stateless {
		// Without a call there is nothing to cancel under such a revision.
		return r == nil && b.revision >= firstStateless
	}
	r.cancel(errClientCancelled)
	return true
}

// post sends a message.
func (b *bridge) post(ctx context.Context, m message, revision string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(m.raw))
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	m.setHeaders(req.Header, revision, b.session)
	if m.method == "tools/call" && revision >= firstStateless {
		setMirrors(req.Header, b.mirrors[m.name], m.args)
	}
	b.mu.Unlock()
	return b.http.Do(req)
}

// notify sends a message that has no answer. What goes wrong is only logged:
// there is nobody to tell.
func (b *bridge) notify(ctx context.Context, m message) {
	b.mu.Lock()
	revision := b.revisionOf(&m)
	b.mu.Unlock()
	sending, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	resp, err := b.post(sending, m, revision)
	if err != nil {
		b.log.WarnContext(ctx, "a notification was not delivered", "method", m.method, "err", err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		b.log.WarnContext(ctx, "a notification was refused", "method", m.method, "status", resp.StatusCode, "code", readAnswered(peek(resp)).Code)
		return
	}
	if m.method == "notifications/initialized" && revision < firstStateless {
		b.listen(ctx)
	}
}

// call sends a call and hands its answer on. The client always gets one answer,
// unless it cancelled the call or everything ends.
func (b *bridge) call(ctx context.Context, m message, revision string) {
	resp, err := b.post(ctx, m, revision)
	if err != nil {
		b.failed(ctx, m, err)
		return
	}
	defer resp.Body.Close()
	if s := resp.Header.Get("Mcp-Session-Id"); s != "" && m.method == "initialize" {
		b.mu.Lock()
		b.session = s
		b.mu.Unlock()
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "text/event-stream" && resp.StatusCode == http.StatusOK {
		b.stream(ctx, m, revision, resp)
		return
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+1))
	if err != nil || len(body) > maxMessage {
		b.failed(ctx, m, errors.Join(errors.New("the answer did not come whole"), err))
		return
	}
	r, err := parseReply(body)
	switch {
	case err == nil && r.answers(&m):
		b.deliver(&m, &r, body)
	case err == nil && r.Error.Kind() == '{' && r.Result == nil && r.Method == nil:
		// The server could not tell the id.
		b.write(errorReply{JSONRPC: "2.0", ID: m.id, Error: r.Error})
	case resp.StatusCode == http.StatusOK:
		b.failed(ctx, m, errors.New("the answer is not the response to the call"))
	case resp.StatusCode == http.StatusNotFound && resp.Request.Header.Get("Mcp-Session-Id") != "":
		b.failed(ctx, m, errors.New("the session is gone; the client must begin again"))
	default:
		b.failed(ctx, m, refusedBy("the resource", resp.StatusCode, body))
	}
}

// deliver hands a response on, and learns from those that say what the transport
// must know.
func (b *bridge) deliver(m *message, r *reply, raw []byte) {
	if m.method == "initialize" && r.Result != nil {
		var result struct {
			Revision string `json:"protocolVersion"`
		}
		// What cannot be read here the client refuses itself.
		_ = json.Unmarshal(r.Result, &result, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		b.mu.Lock()
		b.revision = result.Revision
		b.mu.Unlock()
	}
	if m.method == "tools/list" && r.Result != nil {
		b.learn(r.Result)
	}
	b.write(jsontext.Value(raw))
}

// failed answers a call that came to nothing.
func (b *bridge) failed(ctx context.Context, m message, err error) {
	if ctx.Err() != nil {
		return // cancelled by the client, or everything ends
	}
	p := problemOf(err)
	b.log.InfoContext(ctx, "call not served", "code", p.Code, "method", m.method, "detail", p.Detail)
	code := p.Code.Wire().JSONRPC
	if code == 0 {
		code = counterfoil.RPCInternal
	}
	b.answer(m.id, code, p)
}

// errorReply is a JSON-RPC response of our own.
type errorReply struct {
	JSONRPC string         `json:"jsonrpc"`
	ID      jsontext.Value `json:"id"`
	Error   jsontext.Value `json:"error"`
}

// rpcError is a JSON-RPC error with what a program needs to know why.
type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    struct {
		Code     counterfoil.Code            `json:"code"`
		Detail   string                      `json:"detail"`
		Approval *counterfoil.ApprovalStatus `json:"approval,omitzero"`
	} `json:"data"`
}

// answer writes an error of our own.
func (b *bridge) answer(id jsontext.Value, code int, p counterfoil.Problem) {
	e, err := newErrorReply(id, code, p)
	if err != nil {
		b.broke(err)
		return
	}
	b.write(e)
}

// newErrorReply makes an error of our own.
func newErrorReply(id jsontext.Value, code int, p counterfoil.Problem) (errorReply, error) {
	e := rpcError{Code: code, Message: string(p.Code) + ": " + p.Detail}
	e.Data.Code, e.Data.Detail, e.Data.Approval = p.Code, p.Detail, p.Approval
	raw, err := json.Marshal(e, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return errorReply{}, fmt.Errorf("writing an error: %w", err)
	}
	return errorReply{JSONRPC: "2.0", ID: id, Error: raw}, nil
}

// write writes one message as one line. A client that cannot be written to is
// gone, and everything ends.
func (b *bridge) write(v any) {
	raw, isRaw := v.(jsontext.Value)
	if !isRaw {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			b.broke(fmt.Errorf("writing a message: %w", err))
			return
		}
	}
	raw = raw.Clone()
	if err := raw.Compact(); err != nil { // a line break inside would end the line
		b.log.Warn("a message of the server is not JSON and was dropped", "err", err)
		return
	}
	b.outMu.Lock()
	defer b.outMu.Unlock()
	if _, err := b.out.Write(append(raw, '\n')); err != nil {
		b.broke(fmt.Errorf("writing to the client: %w", err))
	}
}

// drain lets running calls finish after the client said its last word. What
// never finishes by itself is ended.
func (b *bridge) drain(ctx context.Context, most time.Duration) {
	b.mu.Lock()
	if b.unlisten != nil {
		b.unlisten()
	}
	for _, r := range b.running {
		if r.method == "subscriptions/listen" {
			r.cancel(errClientCancelled)
		}
	}
	b.mu.Unlock()
	done := make(chan struct{})
	go func() {
		b.calls.Wait()
		close(done)
	}()
	limit := time.NewTimer(most)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// end cuts what still runs and ends the session, so that the server need not
// keep it (MCP 2025-11-25, Session Management). It returns why the conversation
// broke, if it did. ctx is the caller's, run the conversation's.
func (b *bridge) end(ctx, run context.Context) error {
	var why error
	if ctx.Err() == nil {
		why = context.Cause(run)
	}
	b.mu.Lock()
	session, revision := b.session, b.revision
	for _, r := range b.running {
		r.cancel(nil)
	}
	if b.unlisten != nil {
		b.unlisten()
	}
	b.mu.Unlock()
	b.calls.Wait()
	if _, refused := counterfoil.AsRefusal(why); refused || session == "" || revision >= firstStateless {
		return why
	}
	part, cancel := context.WithTimeout(context.WithoutCancel(ctx), partTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(part, http.MethodDelete, b.url, nil)
	if err != nil {
		return why // the URL was parsed before
	}
	req.Header.Set("Mcp-Session-Id", session)
	req.Header.Set("Mcp-Protocol-Version", revision)
	resp, err := b.http.Do(req)
	if err != nil {
		b.log.WarnContext(ctx, "the session was not ended", "err", err)
		return why
	}
	_ = resp.Body.Close() // a server may keep its sessions (405); it knows best
	return why
}
