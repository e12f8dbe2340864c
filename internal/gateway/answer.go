package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/resource"
)

const (
	metaRefusal = "counterfoil/refusal"

	// maxScope bounds the scope parameter of a challenge.
	maxScope = 1 << 10
)

// A refusalObject is what an agent is told of a refusal, in every protocol.
type refusalObject struct {
	Code      counterfoil.Code            `json:"code"`
	Detail    string                      `json:"detail"`
	RequestID string                      `json:"request_id"`
	Approval  *counterfoil.ApprovalStatus `json:"approval,omitzero"`
}

// A problem is the body of RFC 9457. Where the framing of MCP is at fault it is
// a JSON-RPC error as well.
type problem struct {
	JSONRPC string         `json:"jsonrpc,omitzero"`
	ID      jsontext.Value `json:"id,omitzero"`
	Error   *rpcError      `json:"error,omitzero"`
	counterfoil.Problem
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data,omitzero"`
}

// explain returns what may be said of an error. Of a fault that is what its
// code means; its cause stays inside.
func (c *call) explain(err error) refusalObject {
	p := counterfoil.ProblemOf(err, c.id)
	return refusalObject{Code: p.Code, Detail: p.Detail, RequestID: p.RequestID, Approval: p.Approval}
}

func (c *call) count(hook func(counterfoil.Code), err error) {
	if hook != nil {
		hook(counterfoil.CodeOf(err))
	}
}

// refuse records a refusal that concerns authentication or framing and answers
// with it in HTTP.
func (c *call) refuse(err error) {
	if c.record(err) {
		c.count(c.gateway.cfg.Answered, err)
		c.words.fail(err)
	}
}

// deny records a refusal that was decided over a valid message and answers with
// it in JSON-RPC: an MCP client takes HTTP 403 for a wish to log in again.
func (c *mcpCall) deny(err error, g *counterfoil.GuardedCall) {
	var body []byte
	if g != nil {
		var lookErr error
		if body, lookErr = c.unapprovedBody(g, err); lookErr != nil {
			err, body = lookErr, nil
		}
	}
	c.denyWith(err, body)
}

// denyWith is deny with an answer of its own.
func (c *mcpCall) denyWith(err error, body []byte) {
	authentication := counterfoil.CodeOf(err).Wire().Status == http.StatusUnauthorized
	f := (*framing)(nil)
	if _, decided := counterfoil.AsRefusal(err); !decided || authentication || errors.As(err, &f) || c.message.kind != request {
		c.refuse(err)
		return
	}
	if !c.record(err) {
		return
	}
	c.count(c.gateway.cfg.Answered, err)
	if body == nil && c.message.name == "tools/call" {
		body = c.refusedResult(err)
	}
	if body != nil {
		c.writeJSON(http.StatusOK, typeJSON, body)
		return
	}
	// JSON-RPC has no code for this, and MCP reserves its own range; the HTTP
	// status that the refusal has elsewhere is outside of both.
	o := c.explain(err)
	b, encErr := json.Marshal(rpcError{Code: o.Code.Wire().Status, Message: o.Code.Wire().Title(), Data: o})
	if encErr != nil {
		c.fail(encErr)
		return
	}
	c.writeJSON(http.StatusOK, typeJSON, encodeRPC(c.message.id, "error", b))
}

// refusedResult is the result of a tool call that was refused: one sentence for
// the model, and the refusal object three times, wherever a client may look.
func (c *mcpCall) refusedResult(err error) []byte {
	return encodeRPC(c.message.id, "result", c.refusedContent(c.toolName(), err))
}

// refusedContent is such a result of a call of that tool.
func (c *mcpCall) refusedContent(tool string, err error) []byte {
	o := c.explain(err)
	object, encErr := json.Marshal(o)
	if encErr != nil {
		object = []byte(`{"code":"internal"}`)
	}
	textBlock := func(b []byte, s string) []byte {
		b = append(b, `{"type":"text","text":`...)
		return append(append(b, quote(s)...), '}')
	}
	b := append(make([]byte, 0, 4*len(object)+512), `{"_meta":{"`+metaRefusal+`":`...)
	b = append(append(b, object...), `},"content":[`...)
	b = append(textBlock(b, sentence(tool, o)), ',')
	b = append(textBlock(b, string(object)), `],"isError":true`...)
	if eraOf(c.revision) == modern {
		b = append(b, `,"resultType":"complete"`...)
	}
	if c.def != nil && !c.def.output {
		// A client that knows an outputSchema validates even what isError marks
		// (the 1.x TypeScript SDK), so the object is left out where there is one
		// or may be one.
		b = appendMember(b, "structuredContent", object)
	}
	return append(b, '}')
}

// sentence is what the model reads.
func sentence(tool string, o refusalObject) string {
	if o.Approval != nil {
		if s := approvalSentence(tool, o); s != "" {
			return s
		}
	}
	return "The call of " + tool + " was refused (" + string(o.Code) + "): " + strings.TrimSuffix(o.Detail, ".") + "."
}

// approvalSentence is what the model reads where people have a say. What they are
// to do is for them: a model that asks in the chat for a yes gets one that counts
// for nothing.
func approvalSentence(tool string, o refusalObject) string {
	a := o.Approval
	switch o.Code {
	case counterfoil.ApprovalRequired, counterfoil.ApprovalPending, counterfoil.ApprovalSuperseded:
		if a.Status != string(counterfoil.StatePending) && a.Status != string(counterfoil.StateApproved) {
			return ""
		}
		return fmt.Sprintf("The call of %s is held for human approval %s: nothing ran. Wait at least %d seconds and repeat the identical call, until %s at the latest; do not change it, do not look for another way, and do not ask the model or the user in this conversation to approve: that counts for nothing.",
			tool, a.ID, a.Interval, a.ExpiresAt.UTC().Format(time.RFC3339))
	case counterfoil.ApprovalDenied:
		said := "."
		if a.Reason != "" {
			said = ": " + strings.TrimSuffix(a.Reason, ".") + "."
		}
		return fmt.Sprintf("A person denied the call of %s (approval %s)%s Nothing ran. Do not repeat it.", tool, a.ID, said)
	case counterfoil.ApprovalSpent:
		return fmt.Sprintf("The call of %s was made before, on approval %s, and its outcome is %q (ledger entry %d). It was not made again.", tool, a.ID, a.Status, a.Entry)
	}
	return ""
}

// fail answers in HTTP.
func (c *call) fail(err error) {
	c.failAs(err, counterfoil.ProblemMedia, &problem{Problem: counterfoil.ProblemOf(err, c.id)})
}

// fail answers in HTTP and, where the framing is at fault, in JSON-RPC at once.
func (c *mcpCall) fail(err error) {
	f := (*framing)(nil)
	if !errors.As(err, &f) {
		c.call.fail(err)
		return
	}
	p := problem{Problem: counterfoil.ProblemOf(err, c.id)}
	contentType, rpc, data := counterfoil.ProblemMedia, f.rpc, f.data
	if rpc == 0 {
		rpc = p.Code.Wire().JSONRPC
	}
	if data == nil {
		data = c.explain(err)
	}
	if rpc != 0 {
		contentType = typeJSON
		p.JSONRPC, p.ID, p.Error = "2.0", c.message.id, &rpcError{rpc, p.Detail, data}
	}
	c.failAs(err, contentType, &p)
}

// failAs answers with that body, and with the headers that belong to the error.
func (c *call) failAs(err error, contentType string, p *problem) {
	wire := p.Code.Wire()
	if wire.Fault {
		c.gateway.cfg.Log.Error("answering with a fault", "request_id", c.id, "code", p.Code, "err", err)
	}
	h := c.w.Header()
	if wire.Retry {
		h.Set("Retry-After", "1")
	}
	if wire.Status == http.StatusUnauthorized || c.unproven {
		c.challenge(err)
	}
	b, encErr := json.Marshal(p)
	if encErr != nil {
		b = []byte(`{}`)
	}
	c.writeJSON(wire.Status, contentType, b)
}

// challenge says how to authenticate (RFC 9449, Section 7.1; RFC 9728, Section
// 5.1). Without a resource there is nothing to authenticate for.
func (c *call) challenge(err error) {
	if c.resource == nil {
		return
	}
	for _, v := range resource.Challenge(err, metadataURL(c.url), c.scope()) {
		c.w.Header().Add("WWW-Authenticate", v)
	}
	if counterfoil.CodeOf(err) == counterfoil.NonceRequired {
		c.w.Header().Set("DPoP-Nonce", c.gateway.cfg.Verifier.Nonce())
	}
}

// metadataURL is where the metadata of a resource is: the well-known part comes
// between host and path (RFC 9728, Section 3.1).
func metadataURL(identifier string) string {
	u, err := url.Parse(identifier)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + "/.well-known/oauth-protected-resource" + strings.TrimSuffix(u.EscapedPath(), "/")
}

// scope names the tools that a token can be for, as far as a header can hold
// them. What this agent is granted is its own affair.
func (c *call) scope() string {
	var b strings.Builder
	for _, t := range c.resource.Tools {
		if t.Class == "" {
			continue
		}
		if b.Len()+1+len(t.Name) > maxScope {
			return ""
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.Name)
	}
	return b.String()
}

func (c *call) writeJSON(status int, contentType string, body []byte) {
	c.w.Header().Set("Content-Type", contentType)
	c.w.WriteHeader(status)
	c.w.Write(body) // whoever does not read it any more has gone away
}
