package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// neverUpstream are headers that a proxy takes off a request before it passes it on: the
// agent's own credential and proof, and what would make it another request than the one
// that was judged.
var neverUpstream = []string{
	"Authorization", "Proxy-Authorization", "DPoP", "Cookie", headerApproval,
	"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL",
}

// Ask judges a request that a proxy holds, as the gateway judges its own, and records it.
// What is allowed is passed on by the proxy: that it was, and nothing more, is how the
// call ended. Nobody is asked about a call whose body the proxy did not send, and no
// answer is kept.
func (g *Gateway) Ask(ctx context.Context, q counterfoil.Question) counterfoil.Answer {
	w := &recorded{header: http.Header{}}
	set, reg := g.cfg.Policy()
	c := &httpCall{
		call: call{
			gateway: g, ctx: ctx, w: w, source: q.Source, id: q.RequestID, forwards: true,
			now: g.cfg.Now(), policy: set, registry: reg, resource: reg.Resources[q.Resource],
		},
		question: &q,
	}
	c.words = c
	if c.id == "" {
		c.id = counterfoil.NewID("req_")
	}
	c.r = c.asked(ctx)
	if c.resource == nil || c.resource.Type != counterfoil.ResourceHTTP {
		c.resource = nil
		err := counterfoil.Refuse(counterfoil.ToolUnknown, "there is no resource %.64q of type http", q.Resource)
		c.count(g.cfg.Unauthenticated, err)
		w.header.Set("X-Request-Id", c.id)
		c.fail(err)
		return w.refusal()
	}
	c.take(c)
	if !c.allowed {
		return w.refusal()
	}
	a := counterfoil.Answer{Allow: true, Set: http.Header{}, Remove: c.withheld()}
	if cred := c.resource.Credential; cred != nil {
		a.Set.Set(cred.Header, cred.Prefix+c.released.Secret.Reveal())
	}
	return a
}

// atHand are headers that the gateway does not forward and that say nothing to a server
// of who asks or for what.
var atHand = map[string]bool{"Content-Type": true, "User-Agent": true, "Accept-Encoding": true, "X-Request-Id": true}

// withheld are the headers that the proxy takes off: neverUpstream, and whatever else of
// this request would not go on from here, so that nobody tells a server who they are, or
// what they may, with a header that nobody looked at.
func (c *httpCall) withheld() []string {
	out := slices.Clone(neverUpstream)
	for name := range c.question.Header {
		if len(c.pass[name]) == 0 && !atHand[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// asked is the request that the question is about, as if it had come here.
func (c *httpCall) asked(ctx context.Context) *http.Request {
	q := c.question
	target := c.gateway.route + q.Resource + q.Path
	if q.Query != "" {
		target += "?" + q.Query
	}
	r := &http.Request{
		Method: q.Method, URL: &url.URL{Path: q.Path, RawQuery: q.Query}, RequestURI: target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: q.Header, Body: http.NoBody, Host: c.gateway.host,
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if q.BodyKnown && len(q.Body) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(q.Body)), int64(len(q.Body))
	}
	return r.WithContext(ctx)
}

// recorded is an answer that somebody else gives.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorded) Header() http.Header { return r.header }

func (r *recorded) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorded) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

// refusal is the answer to a question that is refused. A status that a proxy could take
// for a yes is a fault of ours.
func (r *recorded) refusal() counterfoil.Answer {
	if r.status < 400 {
		r.status = http.StatusInternalServerError
	}
	for name := range r.header {
		if strings.HasPrefix(name, "X-Accel-") {
			delete(r.header, name)
		}
	}
	return counterfoil.Answer{Status: r.status, Header: r.header, Body: r.body.Bytes()}
}
