package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

// isJSONType reports whether a content type is JSON in UTF-8. In any other
// encoding the bytes would mean something else to another reader.
func isJSONType(value string) bool {
	if value == typeJSON {
		return true
	}
	t, params, err := mime.ParseMediaType(value)
	if err != nil || t != typeJSON {
		return false
	}
	for name, v := range params {
		if name != "charset" || !strings.EqualFold(v, "utf-8") {
			return false
		}
	}
	return true
}

// read reads the body, once. A body that cannot be read to its end is refused.
func (c *call) read() ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, c.gateway.cfg.MaxBody))
	if err != nil {
		if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
			return nil, tooLarge(big.Limit)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the body was not there after %s", c.gateway.cfg.BodyTimeout)
		}
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the body could not be read to its end")
	}
	// Trailers that were not announced are known only now.
	if len(c.r.Trailer) > 0 {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "trailers are not taken")
	}
	return body, nil
}

// understand takes the message apart and checks that it is one, in a revision
// that is spoken here and in a session of the caller's own.
func (c *mcpCall) understand(body []byte) error {
	m, err := readMessage(body)
	c.message = m
	if _, is := counterfoil.AsRefusal(err); is && m.name == "" {
		return framed(err) // there is nothing that headers could mirror
	}
	if openErr := c.openSession(eraOf(m.revision) != modern); openErr != nil {
		return openErr
	}
	revision, revErr := m.era(c.r.Header, c.open)
	if revErr != nil {
		return framed(revErr)
	}
	c.revision = revision
	// Before what is wrong with the parameters: of a method that a revision does
	// not have there are none (MCP 2026-07-28, Streamable HTTP: 404 and -32601).
	if m.method != nil && m.method.eras&eraOf(revision) == 0 {
		return framed(unknownMethod(m.name))
	}
	if err != nil {
		return framed(err)
	}
	if eraOf(revision) == modern {
		c.open = nil // MCP 2026-07-28, Streamable HTTP: a session id is ignored
		return framed(m.checkHeaders(c.r.Header))
	}
	if m.kind == answer && c.open == nil {
		return framed(malformed("an answer belongs to a session, and the header Mcp-Session-Id is missing"))
	}
	if m.name == "initialize" {
		c.negotiate()
	}
	return nil
}

// openSession opens the session that the request names, if it speaks a revision
// with sessions.
func (c *mcpCall) openSession(old bool) error {
	if !old || c.r.Header.Get(headerRevision) == revision20260728 || c.message.name == "initialize" {
		return nil
	}
	id, there, err := headerValue(c.r.Header, headerSession)
	if err != nil || !there {
		return err
	}
	c.open, err = c.gateway.sealer.open(id, c.resource.Name, &c.caller)
	return err
}

// negotiate asks the upstream for a revision that is spoken here when the
// client asks for another (MCP 2025-11-25, Lifecycle, Version Negotiation).
func (c *mcpCall) negotiate() {
	for i, p := range c.message.params {
		if p.name != "protocolVersion" {
			continue
		}
		if v, _ := text(p.value); eraOf(v) != sessions {
			c.message.params[i].value = quote(revision20251125)
		} else {
			c.revision = v
		}
	}
}

// hurry bounds how long the body may take. Also of a request that is refused
// unread: net/http reads what is left of it before the connection goes on. The
// deadline is the connection's, which knows the machine's clock alone; a writer
// that has none is bounded by its server.
//
// Nobody has to lift it: at the body's end net/http does, as it then reads on to
// notice a client that leaves. Of a body without an end it must stay.
func (c *call) hurry() {
	err := http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(c.gateway.cfg.BodyTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		c.gateway.cfg.Log.Debug("setting a read deadline", "request_id", c.id, "err", err) // the read will say it
	}
}

// screenBody refuses bodies that two readers could take for different ones.
func (c *mcpCall) screenBody() error {
	h := c.r.Header
	if len(h["Content-Encoding"]) > 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "encoded bodies are not taken: send no Content-Encoding")
	}
	if len(c.r.Trailer) > 0 || len(h["Trailer"]) > 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "trailers are not taken")
	}
	if c.r.Method != http.MethodPost {
		if c.r.ContentLength != 0 {
			return counterfoil.Refuse(counterfoil.RequestMalformed, "a %s has no body", c.r.Method)
		}
		return nil
	}
	if ct := h["Content-Type"]; len(ct) != 1 || !isJSONType(ct[0]) {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "send one Content-Type, application/json in UTF-8")
	}
	if c.r.ContentLength > c.gateway.cfg.MaxBody {
		return tooLarge(c.gateway.cfg.MaxBody)
	}
	return nil
}

func tooLarge(limit int64) error {
	return counterfoil.Refuse(counterfoil.PayloadTooLarge, "the body is larger than %d bytes", limit)
}
