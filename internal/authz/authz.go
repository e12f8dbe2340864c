package authz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"

	"github.com/counterfoil/counterfoil"
)

// Paths that a proxy's configuration names; a resource's name follows.
const (
	ForwardAuthPath = "/forward-auth/"
	ExtAuthzPath    = "/ext-authz/"

	// ExtAuthzWithBodyPath is ExtAuthzPath for a filter that has with_request_body on
	// all of its routes: what then comes without a body has none.
	ExtAuthzWithBodyPath = "/ext-authz-with-body/"
)

// The protocols, as a Question names them.
const (
	pointForwardAuth  = "forward_auth"
	pointExtAuthzHTTP = "ext_authz_http"
	pointExtAuthzGRPC = "ext_authz_grpc"
)

// A Judge decides whether a request may be passed on, and has recorded it when it
// answers. It is asked concurrently, and its Answer is the caller's.
type Judge interface {
	Ask(ctx context.Context, q counterfoil.Question) counterfoil.Answer
}

// Config is what a Handler is made of.
type Config struct {
	Judge     Judge
	PublicURL string                                  // the issuer's, without a slash at its end
	Resource  func(name string) *counterfoil.Resource // nil: there is none of that name
	Trusted   func(r *http.Request) bool              // whether the peer may ask
	Source    func(r *http.Request) netip.Addr        // where the request that is asked about comes from
	Refused   func(counterfoil.Code)                  // counts what the Judge is not asked about; optional
	Log       *slog.Logger                            // optional
	MaxBody   int64                                   // of a request that is asked about, in bytes; 4 MiB when zero
}

const defaultMaxBody = 4 << 20

// A Handler answers on the listener that proxies ask. It serves HTTP/1.1 and HTTP/2,
// gRPC among it.
type Handler struct {
	cfg  Config
	grpc *grpc.Server
}

// New makes a handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Judge == nil || cfg.Resource == nil || cfg.Trusted == nil || cfg.Source == nil {
		return nil, errors.New("making the handler that proxies ask: a part that it needs is missing")
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = defaultMaxBody
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Refused == nil {
		cfg.Refused = func(counterfoil.Code) {}
	}
	h := &Handler{cfg: cfg}
	h.grpc = newServer(h)
	return h, nil
}

// ServeHTTP answers one proxy about one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := counterfoil.NewID("req_")
	if !h.cfg.Trusted(r) {
		// Everything below believes what the peer says of somebody's request.
		h.answer(w, id, h.refused(id, counterfoil.Refuse(counterfoil.OriginForbidden, "only proxies among trusted_proxies may ask here")))
		return
	}
	// The path alone says what is asked: everything else, the type of the content among
	// it, may be the client's. The request target is taken as it was sent: what a path
	// means once it is decoded is for the Judge to say.
	path := r.RequestURI
	switch {
	case strings.HasPrefix(path, ForwardAuthPath):
		h.forwardAuth(w, r, id, strings.TrimPrefix(path, ForwardAuthPath))
	case strings.HasPrefix(path, ExtAuthzPath):
		h.extAuthz(w, r, id, strings.TrimPrefix(path, ExtAuthzPath), false)
	case strings.HasPrefix(path, ExtAuthzWithBodyPath):
		h.extAuthz(w, r, id, strings.TrimPrefix(path, ExtAuthzWithBodyPath), true)
	case path != auth.Authorization_Check_FullMethodName:
		h.answer(w, id, h.refused(id, counterfoil.Refuse(counterfoil.ToolUnknown, "nothing is asked here")))
	case r.ProtoMajor != 2 || r.Method != http.MethodPost:
		h.answer(w, id, h.refused(id, counterfoil.Refuse(counterfoil.MethodForbidden, "gRPC is a POST over HTTP/2")))
	default:
		h.grpc.ServeHTTP(w, r)
	}
}

// judged is what judge answers. One that fails or panics has refused: with a connection
// that breaks instead, an Envoy whose filter fails open lets the request through.
func (h *Handler) judged(id string, judge func() (counterfoil.Answer, error)) (a counterfoil.Answer) {
	defer func() {
		if cause := recover(); cause != nil {
			h.cfg.Log.Error("panic", "doing", "judging whether a request may be passed on", "request_id", id, "panic", cause, "stack", string(debug.Stack()))
			a = h.refused(id, counterfoil.NewFault(counterfoil.Internal, fmt.Errorf("judging: panic: %v", cause)))
		}
	}()
	a, err := judge()
	if err != nil {
		return h.refused(id, err)
	}
	return a
}

// ask puts the question.
func (h *Handler) ask(ctx context.Context, q counterfoil.Question) counterfoil.Answer {
	a := h.cfg.Judge.Ask(ctx, q)
	if !a.Allow && a.Status == 0 {
		a = h.refused(q.RequestID, counterfoil.NewFault(counterfoil.Internal, errors.New("asking: an empty answer")))
	}
	return a
}

// below splits a request target into what follows the resource's public URL and the
// query. The host is nobody's business: the resource has one public URL, and a proxy's
// word for what it was called is the client's.
func (h *Handler) below(name, target string) (path, query string, err error) {
	if counterfoil.CheckName(name) != nil {
		return "", "", counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such resource: the proxy's configuration has to name one")
	}
	res := h.cfg.Resource(name)
	if res == nil {
		return "", "", counterfoil.Refuse(counterfoil.ToolUnknown, "there is no resource %s", name)
	}
	// RFC 9112, Section 3.2.1: the origin form, which has no fragment. What a server
	// behind the proxy makes of anything else nobody knows.
	if !strings.HasPrefix(target, "/") || strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' || r == '\\' }) {
		return "", "", counterfoil.Refuse(counterfoil.RequestMalformed, "the URI of the request is not a path with a query")
	}
	u, err := url.Parse(res.ID(h.cfg.PublicURL))
	if err != nil {
		return "", "", counterfoil.NewFault(counterfoil.Internal, fmt.Errorf("reading the public URL of %s: %w", name, err))
	}
	path, query, _ = strings.Cut(target, "?")
	path, found := strings.CutPrefix(path, strings.TrimSuffix(u.EscapedPath(), "/"))
	if !found || !strings.HasPrefix(path, "/") {
		return "", "", counterfoil.Refuse(counterfoil.RequestMalformed, "the path is not below the public URL of %s", name)
	}
	return path, query, nil
}

// question begins the question about a request.
func (h *Handler) question(id, point, resource, method, target string, header http.Header, source netip.Addr) (counterfoil.Question, error) {
	q := counterfoil.Question{RequestID: id, Point: point, Resource: resource, Method: method, Source: source}
	var err error
	if q.Path, q.Query, err = h.below(resource, target); err != nil {
		return q, err
	}
	// RFC 9110, Section 9.1: a method is a token; every one that there is has capital
	// letters only.
	if method == "" || len(method) > 32 || strings.ContainsFunc(method, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' }) {
		return q, counterfoil.Refuse(counterfoil.RequestMalformed, "the method of the request is none")
	}
	// After an upgrade nobody looks at what is sent any more: where a tool is a
	// WebSocket the gateway serves it, which cuts it when the token is revoked.
	if len(header["Upgrade"]) > 0 || method == http.MethodConnect {
		return q, counterfoil.Refuse(counterfoil.RequestMalformed, "the protocol of a connection is not changed through this proxy")
	}
	// Nobody can be relied on to take these off: most of the proxies cannot be told to in
	// an answer, and a server that makes variables of headers tells neither "_" nor "."
	// in a name from "-".
	for name := range header {
		if name = plainName(name); slices.Contains(overrides, name) {
			return q, counterfoil.Refuse(counterfoil.RequestMalformed, "the header %s makes it another request to some servers", name)
		}
	}
	q.Header = theirs(header, point)
	return q, nil
}

// overrides are headers by which some servers make another request of the one that was
// judged.
var overrides = []string{"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url"}

// plainName returns the name of a header as letters, digits and "-", canonical.
func plainName(name string) string {
	return http.CanonicalHeaderKey(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name))
}

// theirs returns the client's headers: without those that the proxy writes about the
// request, and those that were about the one hop to here (RFC 9110, Section 7.6.1). What
// merely looks as if a proxy had written it is the client's, and goes no further.
func theirs(h http.Header, point string) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		if slices.Contains(hop, name) || slices.Contains(written, name) || point == pointForwardAuth && slices.Contains(asked, name) {
			continue
		}
		out[name] = slices.Clone(values)
	}
	return out
}

var (
	hop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Expect"}

	// framing is of one hop, too, but says whether there is a body.
	framing = []string{"Content-Length", "Transfer-Encoding"}

	// written is what each of the proxies writes over whatever a client says.
	written = []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port"}

	// asked is, beside it, what a question of forward authentication is made of.
	asked = []string{forwardedMethod, forwardedURI, "X-Forwarded-Host", "X-Forwarded-Prefix"}
)
