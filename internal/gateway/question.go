package gateway

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// neverUpstream are headers that a proxy takes off a request before it passes it on,
// whether it showed them or not: the agent's own credential and proof, what would make it
// another request than the one that was judged, and the names by which servers are
// commonly told by a proxy who asks. Each is in every spelling with "_", which a server
// that makes variables of headers does not tell from "-".
var neverUpstream = spellings(
	"Authorization", "Proxy-Authorization", "DPoP", "Cookie", headerApproval,
	"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL",
	"Remote-User", "X-Remote-User", "X-User", "X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Access-Token",
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
)

// spellings returns names of headers with each "-" as it is, and as "_".
func spellings(names ...string) []string {
	var out []string
	for _, name := range names {
		spelled := []string{""}
		for i, part := range strings.SplitN(name, "-", 6) { // no name in use has more
			n := len(spelled)
			for j := range n {
				if i > 0 {
					spelled = append(spelled, spelled[j]+"_"+part)
					spelled[j] += "-"
				}
				spelled[j] += part
			}
		}
		out = append(out, spelled...)
	}
	return out
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
var atHand = map[string]bool{
	"Content-Type": true, "User-Agent": true, "Accept-Encoding": true, "X-Request-Id": true,
	"Content-Length": true, "Transfer-Encoding": true, // the proxy's own, of the body that it passes on
}

// withheld are the headers that the proxy takes off: neverUpstream, whatever else of this
// request would not go on from here, so that nobody tells a server who they are, or what
// they may, with a header that nobody looked at, and what a server might take for one of
// the headers that do go on.
func (c *httpCall) withheld() []string {
	out := slices.Clone(neverUpstream)
	if cred := c.resource.Credential; cred != nil {
		out = append(out, spellings(cred.Header)...)
	}
	out = append(out, spellings(c.tool.headers...)...)
	for name := range c.question.Header {
		if !atHand[name] {
			out = append(out, name)
		}
	}
	out = slices.DeleteFunc(out, func(name string) bool { return len(c.pass[http.CanonicalHeaderKey(name)]) > 0 })
	slices.Sort(out)
	return slices.Compact(out)
}

// unseen reads what a request says of a body that the proxy did not send. It may have one
// whatever it says, so nothing is taken that a server could read as a form: a field of
// one makes another method of it in the eyes of common frameworks, and some of them take
// a body without a type for a form.
func (c *httpCall) unseen() (webBody, error) {
	h := c.question.Header
	length := h["Content-Length"]
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
	default:
		if len(h["Content-Type"]) == 0 {
			return webBody{}, counterfoil.Refuse(counterfoil.RequestMalformed, "whether a %s has a body is not known here: send a Content-Type, with or without one", c.r.Method)
		}
		return c.unread()
	}
	if len(h["Content-Type"]) > 0 || len(h["Transfer-Encoding"]) > 0 || len(length) > 1 || len(length) == 1 && length[0] != "0" {
		return webBody{}, counterfoil.Refuse(counterfoil.RequestMalformed, "a %s has no body: send nothing that says what it is", c.r.Method)
	}
	return webBody{}, nil
}

// unread is what is known of a body that nobody here reads: its type, which is none of a
// form's.
func (c *httpCall) unread() (webBody, error) {
	media, _, err := c.mediaType()
	if err != nil {
		return webBody{}, err
	}
	if t, _, err := mime.ParseMediaType(media); err != nil || t == "application/x-www-form-urlencoded" || strings.HasPrefix(t, "multipart/") {
		return webBody{}, counterfoil.Refuse(counterfoil.PolicyForbids, "a body of type %.64q could change the method, and nobody would see it", media)
	}
	return webBody{media: media}, nil
}

// saysNothingOfBody reports whether a schema is known to: it lists members, the body is
// none of them, and there is nothing else by which it could speak of one.
func (s *shape) saysNothingOfBody() bool {
	return s.names != nil && s.names["body"] == nil && (s.others == nil || s.others.never) &&
		len(s.patterns)+len(s.parts)+len(s.conditional)+len(s.alternatives) == 0 && s.allowed == nil
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
