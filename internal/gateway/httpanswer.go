package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// headerRepeated says of an answer that it is the one of an earlier call, by the entry of
// that call's decision.
const headerRepeated = "Counterfoil-Repeated"

// A webAnswer is an answer as it is kept for whoever repeats the call.
type webAnswer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"` // base64
}

// keyDigest refuses a key for what nobody reads: two such calls could not be told from each
// other, and the second would get the first one's answer and not be made.
func (c *httpCall) keyDigest() (string, error) {
	if c.websocket || c.tool.Stream && c.body.media != "" {
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the tool %s takes no %s: what is sent is not read here, so no repetition could be told from another call", c.tool.Name, headerKey)
	}
	return c.call.keyDigest()
}

// mostKept is how many bytes of an answer's body are kept; -1 where none are.
func (c *httpCall) mostKept() int {
	switch {
	case !c.keeps:
		return -1
	case c.spent == nil:
		return maxRoutine / 4 * 3 // it is written in base64
	}
	return maxKept / 4 * 3
}

// keepWeb notes an answer that somebody may ask for again, as the client gets it.
func (c *httpCall) keepWeb(status int, from http.Header, body []byte) {
	if !c.keeps {
		return
	}
	b, err := json.Marshal(webAnswer{status, c.answerHeaders(from), body}, json.Deterministic(true))
	if c.kept, c.overlong = nil, err != nil || len(body) > c.mostKept(); !c.overlong {
		c.kept = b
	}
}

// lost is the problem that the client was told instead of an answer.
func (c *httpCall) lost(code counterfoil.Code) []byte {
	body, err := json.Marshal(counterfoil.ProblemOf(c.faultOf(code), c.id))
	if err != nil {
		return nil
	}
	b, err := json.Marshal(webAnswer{code.Wire().Status, http.Header{"Content-Type": {counterfoil.ProblemMedia}}, body})
	if err != nil {
		return nil
	}
	return b
}

func (c *httpCall) again(earlier *counterfoil.Earlier) (func(), error) {
	return c.replay(earlier.Result, earlier.Entry)
}

// replay makes what writes a kept answer.
func (c *httpCall) replay(kept []byte, entry int64) (func(), error) {
	var a webAnswer
	if err := json.Unmarshal(kept, &a); err != nil || a.Status < 200 || a.Status > 599 {
		return nil, errors.New("the answer that was kept cannot be read")
	}
	return func() {
		h := c.w.Header()
		for name, values := range a.Header {
			h[name] = values
		}
		h.Set(headerRepeated, strconv.FormatInt(entry, 10))
		c.plainBody(h, a.Header)
		c.w.WriteHeader(a.Status)
		c.w.Write(a.Body) // whoever does not read it any more has gone away
	}, nil
}

// deny records a refusal and answers with it. Where people have a say it tells what the
// call waits for, or gives the answer again that it got.
func (c *httpCall) deny(err error, g *counterfoil.GuardedCall) {
	r, refused := counterfoil.AsRefusal(err)
	if g == nil || !refused || r.Approval == nil {
		c.refuse(err)
		return
	}
	if r.Code == counterfoil.ApprovalSpent && c.question == nil {
		write, lookErr := c.spentAnswer(r, g)
		if lookErr != nil {
			c.refuse(lookErr)
			return
		}
		if write != nil {
			if c.record(err) {
				c.count(c.gateway.cfg.Answered, err)
				write()
			}
			return
		}
	}
	if !c.record(err) {
		return
	}
	c.count(c.gateway.cfg.Answered, err)
	w := waitingCall{refusal: r, requestID: c.id, resource: c.url, call: *g}
	prefers := c.r.Header
	if c.question != nil {
		prefers = nil // a proxy takes 202 for a yes
	}
	status, body, encErr := w.answer(c.w.Header(), prefers)
	if encErr != nil {
		c.fail(encErr)
		return
	}
	c.w.WriteHeader(status)
	c.w.Write(body) // whoever does not read it any more has gone away
}

// spentAnswer writes the answer that a call got which was allowed by people, where this
// one is its repetition and the answer was kept.
func (c *httpCall) spentAnswer(r *counterfoil.Refusal, g *counterfoil.GuardedCall) (func(), error) {
	a, err := c.gateway.cfg.Approvals.Status(c.ctx, r.Approval.ID, c.caller)
	switch {
	case isCode(err, counterfoil.ToolUnknown):
		return nil, nil // it was dropped just now
	case err != nil:
		return nil, err
	case a.Result == nil || a.Key == "" || a.Key != g.Key:
		return nil, nil
	}
	return c.replay(a.Result, a.Decided)
}

// fail answers with a problem (RFC 9457).
func (c *httpCall) fail(err error) {
	if m := (*wrongMethod)(nil); errors.As(err, &m) {
		c.w.Header().Set("Allow", strings.Join(m.allow, ", "))
	}
	if isCode(err, counterfoil.ToolNotGranted) {
		c.challenge(err) // RFC 6750, Section 3.1: insufficient_scope
	}
	c.call.fail(err)
}
