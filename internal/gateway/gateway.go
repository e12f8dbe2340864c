package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A Recorder makes decisions durable. Each verb returns after the commit; an
// error means that nothing can be relied on to be there, so nothing may follow
// from it. Safe for concurrent use.
type Recorder interface {
	// Decide records e, a call.decided, keeps the payload beside the log under
	// the commitment that it fills in, and sets e.Index.
	Decide(ctx context.Context, e *ledger.Entry, payload []byte) error

	// Finish records e, the call.finished that ends the decision e.Of. A
	// decision ends once.
	Finish(ctx context.Context, e *ledger.Entry) error

	// Append records an entry that has no effect beside itself.
	Append(ctx context.Context, e *ledger.Entry) error
}

// Live says what is revoked, now.
type Live interface {
	// Revoked returns nil when the caller's agent, instance and epoch are live,
	// the refusal when not, and a fault when it cannot be known.
	Revoked(ctx context.Context, caller counterfoil.Caller) error
}

// Pins holds the digests that tools' definitions must have.
type Pins interface {
	// Pin returns the digest that is pinned.
	Pin(resource, tool string) (digest string, ok bool)

	// PinTool commits a digest with e and makes it visible before it returns.
	PinTool(ctx context.Context, resource, tool, digest, how string, e *ledger.Entry) error
}

// Config is what a Gateway needs. Fields without "optional" must be set.
type Config struct {
	// PublicURL is where the gateway is reached from outside, without a slash
	// at the end. It is also the one origin that web pages may have.
	PublicURL string

	Verifier *resource.Verifier
	Recorder Recorder
	Live     Live
	Pins     Pins

	// Policy returns what decides at this moment, and the registry that it was
	// made from.
	Policy func() (*policy.Set, *counterfoil.Registry)

	// Secrets reads an upstream credential by its file's name.
	Secrets func(file string) (counterfoil.Secret, error)

	// Source says where a request comes from; the zero Addr is unknown.
	Source func(*http.Request) netip.Addr

	// SessionKey seals session ids, at least 32 bytes. Optional: without it
	// sessions end with the process.
	SessionKey []byte

	// Unauthenticated is called with the code of every request that was refused
	// before its proof was used. Those are counted, not recorded one by one.
	// Optional.
	Unauthenticated func(counterfoil.Code)

	// Answered is called with the code of every refusal and fault after that.
	// Optional.
	Answered func(counterfoil.Code)

	// View says what revocation state decisions are made with. Optional.
	View func() ledger.View

	Transport       http.RoundTripper // optional
	UpstreamTimeout time.Duration     // of an answer that is not a stream; 60 s when zero
	MaxBody         int64             // of a request, in bytes; 4 MiB when zero
	MaxAnswer       int64             // of a JSON answer or one event, in bytes; 16 MiB when zero
	Now             func() time.Time  // optional
	Log             *slog.Logger      // optional
}

const (
	defaultMaxBody   = 4 << 20
	defaultMaxAnswer = 16 << 20

	route = "/r/"
)

// A Gateway serves /r/{resource}. It keeps nothing that matters: everything it
// holds in memory is a cache.
type Gateway struct {
	cfg      Config // complete
	origin   string // of PublicURL
	host     string
	route    string // the path of PublicURL and /r/
	sealer   *sealer
	catalogs sync.Map // of *catalog, by resource
	draining atomic.Bool
}

// New makes a gateway.
func New(cfg Config) (*Gateway, error) {
	u, err := url.Parse(cfg.PublicURL)
	if err != nil || u.Host == "" || strings.HasSuffix(cfg.PublicURL, "/") {
		return nil, fmt.Errorf("making the gateway: public URL %q is not an absolute URL without a slash at its end", cfg.PublicURL)
	}
	if cfg.Verifier == nil || cfg.Recorder == nil || cfg.Live == nil || cfg.Pins == nil || cfg.Policy == nil || cfg.Secrets == nil || cfg.Source == nil {
		return nil, errors.New("making the gateway: a part that it needs is missing")
	}
	if cfg.SessionKey == nil {
		cfg.SessionKey = newSessionKey()
	}
	sealer, err := newSealer(cfg.SessionKey)
	if err != nil {
		return nil, fmt.Errorf("making the gateway: %w", err)
	}
	cfg.SessionKey = nil
	if cfg.Transport == nil {
		cfg.Transport = newTransport()
	}
	if cfg.UpstreamTimeout <= 0 {
		cfg.UpstreamTimeout = defaultTimeout
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = defaultMaxBody
	}
	if cfg.MaxAnswer <= 0 {
		cfg.MaxAnswer = defaultMaxAnswer
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Gateway{cfg: cfg, origin: u.Scheme + "://" + u.Host, host: u.Host, route: u.Path + route, sealer: sealer}, nil
}

// Drain ends the streams that would never end by themselves (GET, and
// subscriptions/listen), so that a server that shuts down waits for calls
// alone. Calls in flight go on.
func (g *Gateway) Drain() { g.draining.Store(true) }

// A call is one request on its way through the gateway.
type call struct {
	gateway *Gateway
	w       http.ResponseWriter
	r       *http.Request
	id      string // of the request
	began   time.Time

	resource *counterfoil.Resource
	policy   *policy.Set
	registry *counterfoil.Registry
	url      string // the resource's identifier
	caller   counterfoil.Caller
	source   netip.Addr

	message  message
	revision string
	open     *session // the session that the request belongs to, if any
	payload  []byte   // what is decided on: canonical JSON, or nil
	framed   bool     // a refusal now concerns the framing of MCP
	unproven bool     // a refusal now concerns who asks

	class     string
	tier      counterfoil.Tier
	def       *seen         // of the tool that is called
	decided   *ledger.Entry // once the decision is durable
	decidedAt time.Time
}

// ServeHTTP answers one request. The order matters: what costs nothing first,
// then who asks, then what is asked, and nothing is forwarded before all of it
// is decided and recorded.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{gateway: g, w: w, r: r, began: g.cfg.Now(), source: g.cfg.Source(r), id: w.Header().Get("X-Request-Id")}
	if c.id == "" {
		c.id = counterfoil.NewID("req_")
	}
	w.Header().Set("X-Request-Id", c.id)
	w.Header().Set("Cache-Control", "no-store")

	if err := c.screen(); err != nil {
		c.count(g.cfg.Unauthenticated, err)
		c.fail(err)
		return
	}
	c.unproven = true
	var err error
	c.caller, err = g.cfg.Verifier.Check(r.Context(), resource.Request{
		Method: r.Method, URL: c.url, Resource: c.url, Header: r.Header,
	})
	if err != nil {
		// A caller beside the error means that the proof was used: it goes into
		// the log, so that a restart knows it.
		if c.caller.Proof == "" {
			c.count(g.cfg.Unauthenticated, err)
			c.fail(err)
			return
		}
		c.refuse(err)
		return
	}
	c.unproven = false
	switch r.Method {
	case http.MethodPost:
		c.post()
	case http.MethodGet:
		c.listen()
	case http.MethodDelete:
		c.end()
	}
}

// screen refuses what needs no look at who asks.
func (c *call) screen() error {
	g, r := c.gateway, c.r
	switch r.Method {
	case http.MethodPost, http.MethodGet, http.MethodDelete:
	default:
		c.w.Header().Set("Allow", "POST, GET, DELETE")
		return counterfoil.Refuse(counterfoil.MethodForbidden, "the method %.16q is not taken here", r.Method)
	}
	// RFC 9112, Section 3.2.2: the absolute form comes from clients that take
	// us for a proxy. We are none.
	if r.URL.Host != "" && !strings.EqualFold(r.URL.Host, g.host) {
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
func (c *call) resolve() error {
	g, r := c.gateway, c.r
	name, ok := strings.CutPrefix(r.URL.Path, g.route)
	if !ok || r.URL.RawPath != "" || counterfoil.CheckName(name) != nil {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such resource")
	}
	c.policy, c.registry = g.cfg.Policy()
	c.resource = c.registry.Resources[name]
	if c.resource == nil {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no resource %s", name)
	}
	if c.resource.Type != counterfoil.ResourceMCP {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "resource %s is of type %s, which this gateway does not serve", name, c.resource.Type)
	}
	c.url = g.cfg.PublicURL + route + name
	if c.resource.PublicURL != "" {
		c.url = c.resource.PublicURL
	}
	return nil
}

// screenBody refuses bodies that two readers could take for different ones.
func (c *call) screenBody() error {
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
