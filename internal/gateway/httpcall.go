package gateway

import (
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// protocolHTTP is the protocol of a canonical call that is a request over HTTP.
const protocolHTTP = "http"

// An httpCall is a request for a resource of type http. What goes upstream is made of
// what was decided on: the path as it was sent, which two servers read alike; the query
// and a body of JSON written anew; headers by name.
type httpCall struct {
	call

	path       webPath
	rawQuery   string
	tool       *webTool // nil until the request is matched
	parameters []parameter
	body       webBody
	pass, part http.Header // what goes on, and what of it is a part of the call
	websocket  bool        // the client asks for one

	question *counterfoil.Question // nil where the gateway forwards by itself
	allowed  bool                  // the answer to the question

	passing    *passedBody  // nil while no body is passed on as it comes
	bodyDigest atomic.Value // string; of a body that was passed on as it came, once it is over
}

// web returns the resource that a request is for, if it is one that is served over HTTP.
func (g *Gateway) web(reg *counterfoil.Registry, r *http.Request) *counterfoil.Resource {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), g.route)
	if !ok {
		return nil
	}
	name, _, _ := strings.Cut(rest, "/")
	res := reg.Resources[name]
	if res == nil || res.Type != counterfoil.ResourceHTTP || res.Upstream == "" {
		return nil
	}
	return res
}

func (c *httpCall) screen() error {
	r := c.r
	switch r.Method {
	case http.MethodConnect, http.MethodTrace:
		return counterfoil.Refuse(counterfoil.MethodForbidden, "the method %s is not taken here", r.Method)
	}
	// RFC 9112, Section 3.2: the origin form alone.
	raw, ok := strings.CutPrefix(r.RequestURI, c.gateway.route+c.resource.Name)
	if !ok {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the request's target is not a path below the resource")
	}
	for _, o := range r.Header["Origin"] {
		if o != c.gateway.origin {
			return counterfoil.Refuse(counterfoil.OriginForbidden, "requests of web pages of other origins are not taken")
		}
	}
	c.url = c.resource.ID(c.gateway.cfg.PublicURL)
	c.target = c.url
	if err := c.locate(raw); err != nil {
		return err
	}
	if err := c.screenUpgrade(); err != nil {
		return err
	}
	return c.screenBody()
}

// locate takes apart what follows the resource's own URL.
func (c *httpCall) locate(raw string) (err error) {
	path, query, _ := strings.Cut(raw, "?")
	c.rawQuery = query
	if path == "" {
		return nil // the resource itself, which no tool is at
	}
	if c.path, err = parsePath(path); err != nil {
		return err
	}
	if strings.HasSuffix(path, "/") && !c.gateway.table(c.resource).knows(&c.path) {
		return notCanonical("it ends in a slash")
	}
	c.target = strings.TrimSuffix(c.url, "/") + path
	return nil
}

// screenUpgrade takes the wish for a WebSocket, in the one form that it has (RFC 6455,
// Section 4.1), and no other upgrade.
func (c *httpCall) screenUpgrade() error {
	h := c.r.Header
	switch upgrade := h["Upgrade"]; {
	case len(upgrade) == 0:
		return nil
	case len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && c.r.Method == http.MethodGet && c.r.ProtoMajor == 1:
		c.websocket = true
		return nil
	}
	return counterfoil.Refuse(counterfoil.RequestMalformed, "the connection cannot be upgraded")
}

func (c *httpCall) screenBody() error {
	r := c.r
	switch {
	case len(r.Header["Content-Encoding"]) > 0:
		return counterfoil.Refuse(counterfoil.RequestMalformed, "encoded bodies are not taken: send no Content-Encoding")
	case len(r.Trailer) > 0 || len(r.Header["Trailer"]) > 0:
		return counterfoil.Refuse(counterfoil.RequestMalformed, "trailers are not taken")
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength != 0:
		return counterfoil.Refuse(counterfoil.RequestMalformed, "a %s has no body", r.Method)
	case r.ContentLength > c.gateway.cfg.MaxBody:
		return tooLarge(c.gateway.cfg.MaxBody)
	}
	return nil
}

func (c *httpCall) serve() {
	if err := c.understand(); err != nil {
		c.deny(err, nil)
		return
	}
	if c.admit(c.decide()) {
		c.forward()
	}
}

// understand finds the tool that the request is for and reads the request as that tool's.
func (c *httpCall) understand() error {
	if err := c.match(); err != nil {
		return err
	}
	if c.websocket && !c.tool.WebSocket {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the tool %s is no WebSocket", c.tool.Name)
	}
	if c.tool.WebSocket && c.question != nil {
		// Who asks does not always show that it is to be one, and nobody could cut it.
		return counterfoil.Refuse(counterfoil.PolicyForbids, "the tool %s is a WebSocket, which the gateway alone serves", c.tool.Name)
	}
	if c.tool.WebSocket && !c.websocket {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the tool %s is a WebSocket: ask for the upgrade", c.tool.Name)
	}
	var err error
	if c.parameters, err = parseQuery(c.rawQuery, c.tool.lists); err != nil {
		return err
	}
	if c.pass, c.part, err = c.tool.forwarded(c.r.Header); err != nil {
		return err
	}
	if err := c.takeBody(); err != nil {
		return err
	}
	if c.body.media != "" {
		c.part["Content-Type"] = []string{c.body.media}
	}
	// The body took its time.
	was := c.tool.digest
	if err := c.renew(); err != nil {
		return err
	}
	if err := c.match(); err != nil {
		return err
	}
	if c.tool.digest != was {
		return counterfoil.Refuse(counterfoil.ToolChanged, "what is declared of %s changed while it was called: call again", c.tool.Name)
	}
	c.payload, err = c.arguments()
	return err
}

// takeBody reads the body, unless it is passed on as it comes.
func (c *httpCall) takeBody() (err error) {
	switch {
	case c.question != nil && !c.question.BodyKnown:
		c.body, err = c.unseen()
		c.opaque = true
	case c.tool.Stream && c.r.ContentLength != 0:
		c.body, err = c.unread()
		c.opaque = true
	default:
		c.body, err = c.readBody()
		c.opaque = c.body.opaque()
	}
	return err
}

// match finds the tool, as it is declared in the registry that the call has.
func (c *httpCall) match() error {
	if c.path.raw == "" {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "no tool of %s is at its own URL", c.resource.Name)
	}
	tool, err := c.gateway.table(c.resource).match(c.r.Method, &c.path)
	if err == nil {
		c.tool = tool
	}
	return err
}

// arguments is what is decided on and recorded: an object of path, query and body, of
// which there is what the request has.
func (c *httpCall) arguments() ([]byte, error) {
	small := []byte{'{'}
	if v := c.tool.variables(&c.path); v != nil {
		small = appendMember(small, "path", v)
	}
	if len(c.parameters) > 0 {
		small = appendMember(small, "query", appendQuery(nil, c.parameters))
	}
	small, err := ijson.Canonical(append(small, '}'))
	if err != nil {
		return nil, malformed("%v", err)
	}
	body := c.body.member()
	if c.tool.Stream && c.body.media != "" {
		body = append(appendMember([]byte{'{'}, "content_type", quote(c.body.media)), '}')
	}
	if body == nil {
		return small, nil
	}
	// In canonical order: the body comes first.
	out := appendMember(append(make([]byte, 0, len(small)+len(body)+10), '{'), "body", body)
	if len(small) > 2 {
		out = append(out, ',')
	}
	return append(out, small[1:]...), nil
}

// decide asks policy, and holds the arguments against what is declared of them.
func (c *httpCall) decide() error {
	c.tier = counterfoil.Routine
	err := c.decideOn(c.tool.Name, c.payload)
	if err != nil && !isCode(err, counterfoil.ApprovalRequired) {
		return err
	}
	unread := c.tool.WebSocket || c.tool.Stream || c.question != nil && !c.question.BodyKnown
	if unread && c.tier != counterfoil.Routine {
		return counterfoil.Refuse(counterfoil.PolicyForbids, "%s needs a person, and nobody would see the body of this call", c.tool.Name)
	}
	if misfit := c.misfit(); misfit != nil {
		return misfit
	}
	return err
}

// misfit refuses arguments that are not what the tool's schema takes. A body that is not
// JSON has nothing that a schema says.
func (c *httpCall) misfit() error {
	if c.tool.shape == nil {
		return nil
	}
	arguments := c.payload
	if c.opaque {
		var rest []member
		for _, m := range split(arguments) {
			if m.name != "body" {
				rest = append(rest, m)
			}
		}
		arguments = join(rest)
		if root, err := c.tool.shape.read(); c.question != nil && !c.question.BodyKnown && (err != nil || !root.saysNothingOfBody()) {
			return counterfoil.Refuse(counterfoil.PolicyForbids, "the schema of %s speaks of its body, which is not known here", c.tool.Name)
		}
	}
	return c.tool.shape.check(c.tool.Name, arguments)
}

func (c *httpCall) toolID() counterfoil.ToolID {
	id := counterfoil.ToolID{Resource: c.resource.Name}
	if c.tool != nil {
		id.Tool = c.tool.Name
	}
	return id
}

// definition is that of the tool in the registry that the call has now.
func (c *httpCall) definition() string {
	if c.tool == nil {
		return ""
	}
	tool, err := c.gateway.table(c.resource).match(c.r.Method, &c.path)
	if err != nil || tool.Name != c.tool.Name {
		return ""
	}
	return tool.digest
}

func (c *httpCall) describe(e *ledger.Entry) {
	if c.tool == nil {
		e.Tool = c.resource.Name + "/" + shorten(c.r.Method, 16)
	} else {
		e.Tool, e.ToolDigest = c.toolID().String(), c.tool.digest
	}
	if c.question != nil {
		if e.Detail == nil {
			e.Detail = map[string]any{}
		}
		e.Detail["point"] = c.question.Point
	}
}

// ended says which body it was that was passed on as it came.
func (c *httpCall) ended(e *ledger.Entry) {
	if digest, ok := c.bodyDigest.Load().(string); ok {
		e.Detail = map[string]any{"content_digest": digest}
	}
}

func (c *httpCall) counts() bool { return true }

// keyed is no where somebody else forwards the call: its answer is not known here.
func (c *httpCall) keyed() bool { return len(c.r.Header[headerKey]) > 0 && c.question == nil }

func (c *httpCall) object() *callObject {
	target := c.path.raw
	if query := encodeQuery(c.parameters); query != "" {
		target += "?" + query
	}
	return &callObject{
		Aud: c.url, Env: c.resource.Environment, Resource: c.resource.Name, Protocol: protocolHTTP,
		Method: c.r.Method, Target: target, Tool: c.toolID().String(), ToolDigest: c.tool.digest,
		Agent: c.caller.Agent, Subject: c.caller.Subject, Task: c.caller.Task,
		arguments: c.payload, headers: headerObject(c.part),
	}
}

func (c *httpCall) guard(g *counterfoil.GuardedCall) error { return c.repeats(g) }
