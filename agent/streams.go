package agent

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// worthwhile is how long a stream without events stays open on a server that
// means it, and that is asked again.
const worthwhile = 10 * time.Second

// errAnswered ends the reading of a stream: the call has its answer.
var errAnswered = errors.New("the call is answered")

// A position is where a stream was when it ended.
type position struct {
	last  string        // id of the last event; empty when the server gives none
	pause time.Duration // before the next attempt
	moved bool          // an event with an id came
}

// stream hands the messages of a call's stream on until its answer has come.
// When the stream ends before, it is resumed where the revision and the server
// allow that (MCP 2025-11-25, Resumability; 2026-07-28 has none): a server may
// close a stream and have the client come back for the rest.
func (b *bridge) stream(ctx context.Context, m message, revision string, resp *http.Response) {
	p := position{pause: resumePause}
	err := b.pass(&p, &m, resp)
	for tries := 0; err == nil && p.last != "" && revision < firstStateless && tries < maxResumes; tries++ {
		again, gone := b.resume(ctx, &p)
		if errors.Is(gone, errNoStream) || ctx.Err() != nil {
			err = gone
			break
		}
		if gone != nil {
			continue
		}
		p.moved = false
		err = b.pass(&p, &m, again)
		_ = again.Body.Close()
		if p.moved {
			tries = 0
		}
	}
	if errors.Is(err, errAnswered) {
		return
	}
	if m.method == "subscriptions/listen" && ctx.Err() == nil {
		// MCP 2026-07-28, Cancellation: over stdio the server says by this
		// notification that the subscription is over.
		b.write(jsontext.Value(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":` + string(m.id) + `,"reason":"the stream ended"}}`))
		return
	}
	b.failed(ctx, m, errors.Join(errors.New("the stream ended before the answer"), err))
}

// pass hands the messages of one stream on. It returns errAnswered when the
// call m has its answer, nil when the stream ended, and what broke it otherwise;
// a broken connection counts as an end, as it can be resumed like one.
func (b *bridge) pass(p *position, m *message, resp *http.Response) error {
	var fatal error
	err := readEvents(resp.Body, func(e event) error {
		if e.id != "" {
			p.last, p.moved = e.id, true
		}
		if e.retry > 0 {
			p.pause = e.retry
		}
		if len(e.data) == 0 || e.name != "message" {
			return nil // the priming event has no data
		}
		r, err := parseReply(e.data)
		if err != nil {
			fatal = fmt.Errorf("an event is not a message: %w", err)
			return fatal
		}
		if m != nil && r.answers(m) {
			b.deliver(m, &r, e.data)
			return errAnswered
		}
		b.write(jsontext.Value(e.data))
		return nil
	})
	switch {
	case errors.Is(err, errAnswered):
		return errAnswered
	case fatal != nil:
		return fatal
	}
	return nil
}

// resume opens a stream where it ended, or the server's own when it never began.
func (b *bridge) resume(ctx context.Context, p *position) (*http.Response, error) {
	timer := time.NewTimer(p.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return b.get(ctx, p.last)
}

// get asks for a stream (MCP 2025-11-25, Listening for Messages from the
// Server).
func (b *bridge) get(ctx context.Context, last string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	b.mu.Lock()
	session, revision := b.session, b.revision
	b.mu.Unlock()
	for name, value := range map[string]string{"Mcp-Session-Id": session, "Mcp-Protocol-Version": revision, "Last-Event-Id": last} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: the server answered %d", errNoStream, resp.StatusCode)
	}
	return resp, nil
}

// errNoStream says that the server gives no stream, which it need not.
var errNoStream = errors.New("there is no stream")

// listen keeps the stream open on which a server of a revision with sessions
// sends what belongs to no call. It runs until the conversation ends, the server
// has none, or it cannot be reached several times in a row.
func (b *bridge) listen(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	b.mu.Lock()
	if b.unlisten != nil {
		b.unlisten() // an earlier session's
	}
	b.unlisten = cancel
	b.mu.Unlock()
	b.calls.Go(func() {
		defer cancel()
		var p position // the first attempt is made at once
		for tries := 0; tries <= maxResumes && ctx.Err() == nil; tries++ {
			resp, err := b.resume(ctx, &p)
			if errors.Is(err, errNoStream) {
				b.log.DebugContext(ctx, "no stream of the server's own", "err", err)
				return
			}
			p.pause = resumePause
			if err != nil {
				continue
			}
			p.moved = false
			opened := time.Now()
			err = b.pass(&p, nil, resp)
			_ = resp.Body.Close()
			if err != nil {
				b.log.WarnContext(ctx, "the server's own stream is not readable", "err", err)
				return
			}
			if p.moved || time.Since(opened) > worthwhile {
				tries = 0
			}
		}
	})
}
