package gateway

import (
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// An mcpCall is a request of the Model Context Protocol: a message, or a stream that is
// opened or a session that is ended without one.
type mcpCall struct {
	call

	message  message
	revision string
	open     *session // the session that the request belongs to, if any
	def      *seen    // of the tool that is called

	mark    *mark  // what our own requestState says, if the client brought one
	answers []byte // inputResponses beside it
}

func (c *mcpCall) serve() {
	switch c.r.Method {
	case http.MethodPost:
		c.post()
	case http.MethodGet:
		c.listen()
	case http.MethodDelete:
		c.end()
	}
}

// screen refuses what needs no look at who asks.
func (c *mcpCall) screen() error {
	g, r := c.gateway, c.r
	switch r.Method {
	case http.MethodPost, http.MethodGet, http.MethodDelete:
	default:
		c.w.Header().Set("Allow", "POST, GET, DELETE")
		return counterfoil.Refuse(counterfoil.MethodForbidden, "the method %.16q is not taken here", r.Method)
	}
	// RFC 9112, Section 3.2.2: the absolute form comes from clients that take
	// us for a proxy. We are none.
	if (r.URL.IsAbs() || r.URL.Host != "") && (r.URL.User != nil || !strings.HasPrefix(r.URL.Scheme, "http") || !strings.EqualFold(r.URL.Host, g.host)) {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the request is for another host")
	}
	if len(r.Header["Upgrade"]) > 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the connection cannot be upgraded")
	}
	for _, o := range r.Header["Origin"] {
		// MCP 2026-07-28, Streamable HTTP, Security: a page of another origin
		// that reaches us was led here (DNS rebinding).
		if o != g.origin {
			return counterfoil.Refuse(counterfoil.OriginForbidden, "requests of web pages of other origins are not taken")
		}
	}
	if err := c.resolve(); err != nil {
		return err
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the URL has a query; the resource's identifier has none")
	}
	return c.screenBody()
}

// resolve finds the resource that the path names. Only the canonical path is
// taken: a name has no character that could be escaped.
func (c *mcpCall) resolve() error {
	g, r := c.gateway, c.r
	name, ok := strings.CutPrefix(r.URL.Path, g.route)
	if !ok || r.URL.RawPath != "" || counterfoil.CheckName(name) != nil {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such resource")
	}
	c.now = g.cfg.Now()
	c.policy, c.registry = g.cfg.Policy()
	c.resource = c.registry.Resources[name]
	if c.resource == nil {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no resource %s", name)
	}
	if c.resource.Type != counterfoil.ResourceMCP {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "resource %s is of type %s, which this gateway does not serve", name, c.resource.Type)
	}
	c.url = c.resource.ID(g.cfg.PublicURL)
	c.target = c.url
	return nil
}

func (c *mcpCall) definition() string {
	if c.def == nil {
		return ""
	}
	return c.def.digest
}

func (c *mcpCall) describe(e *ledger.Entry) {
	e.Tool, e.ToolDigest = c.toolName(), c.definition()
}
