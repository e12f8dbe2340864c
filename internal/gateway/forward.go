package gateway

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// peer returns the upstream as this call speaks to it.
func (c *mcpCall) peer() *peer {
	p := &peer{
		transport: c.gateway.cfg.Transport, timeout: c.gateway.cfg.UpstreamTimeout,
		resource: c.resource, revision: c.revision, released: c.released, struck: c.struck, call: &c.call,
	}
	if c.open != nil {
		p.session = c.open.ID
	}
	return p
}

// forward sends the message that was decided on, answers the client and records
// how it ended. Whatever happens in between, the decision is ended once.
func (c *mcpCall) forward() {
	o := outcome{name: ledger.OutcomeUnknown}
	done := false
	finish := func() {
		if !done {
			done = true
			c.finish(o)
		}
	}
	defer finish() // also when something below panics

	reply, err := c.send()
	if err != nil {
		o = c.outcomeOf(err)
		finish()
		c.failUpstream(err)
		return
	}
	defer reply.close()
	switch {
	case reply.StatusCode == http.StatusOK && reply.mediaType() == typeStream && c.message.kind == request && c.message.name != "initialize":
		o = c.stream(reply)
	case reply.StatusCode == http.StatusOK && c.message.kind == request:
		var body []byte
		body, o, err = c.answer(reply)
		finish()
		if err != nil {
			c.failUpstream(err)
			return
		}
		c.writeJSON(http.StatusOK, typeJSON, body)
	case reply.StatusCode/100 == 2 && c.message.kind != request:
		o.name = succeeded
		finish()
		c.w.WriteHeader(http.StatusAccepted)
	default:
		var write func()
		write, o = c.rejected(reply)
		finish()
		write()
	}
}

// send makes the upstream's request.
func (c *mcpCall) send() (*reply, error) {
	p := c.peer()
	if c.message.name == "initialize" {
		p.revision = "" // it is being negotiated
	}
	era := eraOf(c.revision)
	return p.do(c.ctx, http.MethodPost, c.mirrors(era), c.message.encode(era, c.tier != counterfoil.Routine))
}

// mirrors makes the headers that mirror the body, from the body.
func (c *mcpCall) mirrors(era era) http.Header {
	if era != modern {
		return nil
	}
	h := http.Header{headerMethod: {c.message.name}}
	if c.message.method.named != "" {
		h[headerName] = []string{encodeHeader(c.message.target())}
	}
	if c.def != nil {
		for i := range c.def.mirrors {
			if v, ok := c.def.mirrors[i].value(c.payload); ok {
				h.Set(c.def.mirrors[i].header, encodeHeader(v))
			}
		}
	}
	return h
}

// answer reads an answer that is not streamed and returns what the client gets.
func (c *mcpCall) answer(reply *reply) ([]byte, outcome, error) {
	var m rpcMessage
	var err error
	if reply.mediaType() == typeStream {
		m, err = readAnswer(reply, c.message.id)
	} else if reply.mediaType() == typeJSON {
		var b []byte
		if b, err = readAll(reply.Body, c.gateway.cfg.MaxAnswer); err == nil {
			m, err = readRPC(b)
		}
	} else {
		err = fmt.Errorf("the upstream answered with the type %.64q", reply.Header.Get("Content-Type"))
	}
	if err == nil && !m.answers(c.message.id) {
		err = errNotAnswer
	}
	if err != nil {
		o, err := c.brokenAnswer(err)
		return nil, o, err
	}
	body, o, err := c.rewrite(&m)
	if err != nil {
		return nil, outcome{name: ledger.OutcomeUnknown, code: counterfoil.CodeOf(err)}, err
	}
	if err := c.sealSession(reply.Header); err != nil {
		return nil, outcome{name: unavailable, code: counterfoil.UpstreamUnavailable}, counterfoil.NewFault(counterfoil.UpstreamUnavailable, err)
	}
	return body, o, nil
}

// rewrite returns the client's form of an answer, and how the call ended.
func (c *mcpCall) rewrite(m *rpcMessage) ([]byte, outcome, error) {
	if m.Error != nil {
		c.keep("error", m.Error)
		return encodeRPC(c.message.id, "error", m.Error), outcome{name: failed}, nil
	}
	o := outcome{name: succeeded}
	if c.message.name == "tools/call" {
		switch isError, final := isToolError(m.Result); {
		case isError:
			o.name = failed
		case !final:
			o.name = inputRequired
		}
	}
	result, err := c.transform(c.message.name, m.Result)
	if err != nil {
		if f := (*counterfoil.Fault)(nil); errors.As(err, &f) {
			return nil, o, err
		}
		o, err := c.brokenAnswer(err)
		return nil, o, err
	}
	c.keep("result", result)
	return encodeRPC(c.message.id, "result", result), o, nil
}

// rejected handles every status but those that carry an ordinary answer. It
// returns the answer to be written after the end is recorded.
func (c *mcpCall) rejected(reply *reply) (write func(), o outcome) {
	refused := func(err error) (func(), outcome) {
		return func() { c.count(c.gateway.cfg.Answered, err); c.fail(err) }, outcome{name: failed, code: counterfoil.CodeOf(err)}
	}
	switch status := reply.StatusCode; status {
	case http.StatusBadRequest, http.StatusNotFound:
		if body, ok := c.rejection(reply); ok {
			return func() { c.writeJSON(status, typeJSON, body) }, outcome{name: failed}
		}
		if status == http.StatusNotFound && c.open != nil {
			// MCP 2025-11-25, Transports, Session Management: the session is over.
			return refused(counterfoil.Refuse(counterfoil.ToolUnknown, "the upstream ended the session: initialize again"))
		}
		fallthrough
	case http.StatusMethodNotAllowed, http.StatusNotAcceptable:
		if eraOf(c.revision) == modern && reply.mediaType() != typeStream {
			// An upstream of an older revision. The body is no modern JSON-RPC
			// error, so that a client that speaks both falls back to initialize
			// (MCP 2026-07-28, Streamable HTTP, Backward Compatibility).
			return refused(counterfoil.Refuse(counterfoil.RequestMalformed,
				"the upstream does not speak %s: initialize with %s", revision20260728, revision20251125))
		}
	}
	err := fmt.Errorf("the upstream answered with status %d", reply.StatusCode)
	if mayHaveActed(reply.StatusCode) || c.outlasts() && reply.StatusCode >= 500 {
		// It may be done. And of a call that must not run twice, an upstream that broke,
		// or a proxy that lost it, has not said that it did nothing.
		o, err := c.brokenAnswer(err)
		return func() { c.failUpstream(err) }, o
	}
	if v := reply.Header.Get("Retry-After"); isDigits(v) {
		c.w.Header().Set("Retry-After", v)
	}
	return func() { c.failUpstream(counterfoil.NewFault(counterfoil.UpstreamUnavailable, err)) },
		outcome{name: unavailable, code: counterfoil.UpstreamUnavailable, unsent: turnedAway(reply.StatusCode)}
}

// rejection passes on a JSON-RPC error that came with an error status.
func (c *mcpCall) rejection(reply *reply) ([]byte, bool) {
	if reply.mediaType() != typeJSON {
		return nil, false
	}
	b, err := readAll(reply.Body, 1<<20)
	if err != nil {
		return nil, false
	}
	m, err := readRPC(b)
	if err != nil || m.Error == nil || c.message.id != nil && !m.answers(c.message.id) {
		return nil, false
	}
	e := onlySpoken(m.Error)
	c.keep("error", e)
	return encodeRPC(c.message.id, "error", e), true
}

// onlySpoken takes revisions that are not spoken here out of an
// UnsupportedProtocolVersionError.
func onlySpoken(e []byte) []byte {
	var v struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    struct {
			Supported []string `json:"supported"`
			Requested string   `json:"requested"`
		} `json:"data"`
	}
	if err := json.Unmarshal(e, &v); err != nil || v.Code != counterfoil.RPCUnsupportedVersion {
		return e
	}
	v.Data.Supported = spoken(v.Data.Supported)
	b, err := json.Marshal(v)
	if err != nil {
		return e
	}
	return b
}

// outcomeOf says how a call ended that got no answer.
func (c *call) outcomeOf(err error) outcome {
	if unsent := (*unsentError)(nil); errors.As(err, &unsent) {
		if c.ctx.Err() != nil {
			return outcome{notForwarded, counterfoil.UpstreamUnavailable, true} // the client went away first
		}
		return outcome{unavailable, counterfoil.UpstreamUnavailable, true}
	}
	return outcome{name: ledger.OutcomeUnknown, code: counterfoil.OutcomeUnknown}
}

// mayHaveActed reports whether an upstream that answered with a status may have done what
// it was asked: that is no error, and no redirect that asks for the same request at
// another place (RFC 9110, Sections 15.4.8 and 15.4.9).
func mayHaveActed(status int) bool {
	return status < 400 && status != http.StatusTemporaryRedirect && status != http.StatusPermanentRedirect
}

// brokenAnswer is how a call ended whose answer came and cannot be read. What
// is not a tool call, and what nobody had to allow, can be asked again.
func (c *mcpCall) brokenAnswer(err error) (outcome, error) {
	if c.message.name != "tools/call" && c.spent == nil {
		return outcome{name: unavailable, code: counterfoil.UpstreamUnavailable}, counterfoil.NewFault(counterfoil.UpstreamUnavailable, err)
	}
	return outcome{name: ledger.OutcomeUnknown, code: counterfoil.OutcomeUnknown}, counterfoil.NewFault(counterfoil.OutcomeUnknown, err)
}

// failUpstream answers with the fault of an exchange that failed.
func (c *call) failUpstream(err error) {
	if f := (*counterfoil.Fault)(nil); !errors.As(err, &f) {
		err = counterfoil.NewFault(c.outcomeOf(err).code, err)
	}
	c.count(c.gateway.cfg.Answered, err)
	c.words.fail(err)
}

// sameNumber reports whether two texts are one integer: MCP wants 42.0 and 42
// to be equal.
func sameNumber(header, canonical string) bool {
	got, err := ijson.Number(header)
	return err == nil && got == canonical && isID([]byte(canonical))
}

func isDigits(s string) bool {
	if s == "" || len(s) > 9 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
