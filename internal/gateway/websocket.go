package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// askUpgrade asks the upstream for a WebSocket (RFC 6455, Section 4.1) with the client's
// own key, without extensions, as what is compressed cannot be masked, and without
// subprotocols, which nobody decided on.
func (c *httpCall) askUpgrade(h http.Header) {
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	for _, name := range []string{"Sec-Websocket-Key", "Sec-Websocket-Version"} {
		if v := c.r.Header[name]; len(v) > 0 && isPlain(strings.Join(v, ", ")) {
			h[name] = []string{strings.Join(v, ", ")}
		}
	}
}

// opened refuses what an upstream opened that is not what it was asked for.
func opened(reply *reply) error {
	_, both := reply.Body.(io.ReadWriteCloser)
	if !both || !strings.EqualFold(reply.Header.Get("Upgrade"), "websocket") || len(reply.Header["Sec-Websocket-Extensions"])+len(reply.Header["Sec-Websocket-Protocol"]) > 0 {
		return errors.New("the upstream opened something else than a WebSocket without extensions and subprotocols")
	}
	return nil
}

// tunnel joins client and upstream, which opened what it was asked for, until one of them
// leaves or the caller is revoked.
func (c *httpCall) tunnel(reply *reply) outcome {
	upstream := reply.Body.(io.ReadWriteCloser)
	reply.unlimited()
	watch := c.watch(reply, true)
	defer watch.stop()
	h := c.w.Header()
	for name, values := range c.answerHeaders(reply.Header) {
		h[name] = values
	}
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	c.w.WriteHeader(http.StatusSwitchingProtocols)
	client, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		c.gateway.cfg.Log.Error("opening a WebSocket", "request_id", c.id, "err", err)
		return outcome{name: ledger.OutcomeUnknown, code: counterfoil.OutcomeUnknown}
	}
	closeBoth := func() { client.Close(); upstream.Close() }
	defer closeBoth()
	defer context.AfterFunc(reply.ctx, closeBoth)()

	var both sync.WaitGroup
	both.Go(func() {
		defer closeBoth()
		c.guarded(func() { _, _ = io.Copy(upstream, buffered) }) // however it ends, the other side is closed
	})
	both.Go(func() {
		defer closeBoth()
		c.guarded(func() { c.fromUpstream(client, upstream) })
	})
	both.Wait()
	// A client that left ended its request, too: that is how a WebSocket ends.
	if cause := context.Cause(reply.ctx); cause != nil && !errors.Is(cause, errDraining) && !errors.Is(cause, context.Canceled) {
		return c.cut(reply, cause)
	}
	return outcome{name: succeeded}
}

// guarded keeps a panic of a goroutine to itself.
func (c *httpCall) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			_ = c.gateway.panicked("passing on a WebSocket", p) // it is logged, and both sides are closed
		}
	}()
	f()
}

// fromUpstream copies what the upstream says, with what it was shown masked: frames of a
// server are not masked in the sense of RFC 6455, Section 5.3.
func (c *httpCall) fromUpstream(client net.Conn, upstream io.ReadCloser) {
	if m := c.released.Mask; m != nil {
		upstream = &scrubber{m.Prompt(upstream), c.struck}
	}
	_, _ = io.Copy(client, upstream) // however it ends, the other side is closed
}
