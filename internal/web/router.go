package web

import (
	"context"
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

// A handler answers a request or returns why not; the router renders that.
type handler func(w http.ResponseWriter, r *http.Request) error

// A route is a path pattern with its methods. A segment {name} matches one
// segment that is not empty, a last one {name...} one or more.
type route struct {
	segments []string
	oauth    bool // errors in the form of RFC 6749
	methods  map[string]handler

	// otherwise may have another answer to a method that is none of these than
	// that. Optional.
	otherwise handler
}

// A router dispatches by the exact path. It is not http.ServeMux, because that
// redirects what it finds unclean: a path that is not spelled as ours is not
// ours, and for the gateway it is evidence.
type router struct {
	answers *answers
	routes  []route

	// screen checks what holds for every request of a listener, those beneath
	// the prefix too; gate what holds for every route of ours.
	screen, gate handler

	// unrecorded is called with the code of every refusal that the ledger does
	// not have yet. Optional.
	unrecorded func(counterfoil.Code)

	// beneath takes the requests below a prefix as they came.
	prefix  string
	beneath http.Handler
}

func (rt *router) handle(method, pattern string, h handler) { rt.add(method, pattern, false, h) }

// handleOAuth adds a route whose errors are in the form of RFC 6749.
func (rt *router) handleOAuth(method, pattern string, h handler) { rt.add(method, pattern, true, h) }

func (rt *router) add(method, pattern string, oauth bool, h handler) {
	segments := strings.Split(pattern, "/")
	for i := range rt.routes {
		if slices.Equal(rt.routes[i].segments, segments) {
			rt.routes[i].methods[method] = h
			return
		}
	}
	rt.routes = append(rt.routes, route{segments: segments, oauth: oauth, methods: map[string]handler{method: h}})
}

// otherwise sets what a path's other methods are answered with, if not with that
// they are wrong.
func (rt *router) otherwise(pattern string, h handler) {
	segments := strings.Split(pattern, "/")
	for i := range rt.routes {
		if slices.Equal(rt.routes[i].segments, segments) {
			rt.routes[i].otherwise = h
		}
	}
}

// bodyTimeout is how long a body may take to come. The gateway gives its own
// more.
const bodyTimeout = 10 * time.Second

// ServeHTTP gives the request its id, finds its route and renders what the
// route returns.
func (rt *router) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &writer{ResponseWriter: rw}
	id := counterfoil.NewID("req_")
	if r.Trailer == nil {
		// What follows the body is put into the server's own request. A map that
		// is there already is shared with the copy below, so that it is seen.
		r.Trailer = http.Header{}
	}
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
	w.Header().Set("X-Request-Id", id) // the gateway goes on with it
	oauth := false
	defer func() {
		if cause := recover(); cause != nil {
			rt.answers.crashed(w, r, cause, oauth)
		}
	}()
	if r.ContentLength != 0 {
		// A body that does not come keeps a connection, before anyone is
		// authenticated and also where nobody reads it: net/http wants the rest
		// of it before it sends an answer. It lifts the deadline itself at the
		// body's end. Writers without deadlines end slow clients in their own way.
		_ = http.NewResponseController(rw).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	below := rt.beneath != nil && strings.HasPrefix(r.URL.EscapedPath(), rt.prefix)
	var rte route
	found := false
	if !below {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		rte, found = rt.find(r)
		oauth = rte.oauth
	}
	if rt.screen != nil {
		if err := rt.screen(w, r); err != nil {
			rt.note(err)
			rt.answers.fail(w, r, err, oauth)
			return
		}
	}
	if below {
		rt.beneath.ServeHTTP(w, r)
		return
	}
	if err := rt.serve(w, r, rte, found); err != nil {
		rt.note(err)
		rt.answers.fail(w, r, err, oauth)
	}
}

// recorded marks an error of an engine, which has put it into the ledger or
// into the aggregate.
type recorded struct{ error }

func (r recorded) Unwrap() error { return r.error }

// note counts a refusal of ours: an unknown path, a method, a malformed body.
func (rt *router) note(err error) {
	if rt.unrecorded == nil || errors.As(err, new(recorded)) {
		return
	}
	if r, ok := counterfoil.AsRefusal(err); ok {
		rt.unrecorded(r.Recorded())
	}
}

func (rt *router) serve(w *writer, r *http.Request, rte route, found bool) error {
	if rt.gate != nil {
		if err := rt.gate(w, r); err != nil {
			return err
		}
	}
	if !found {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is nothing at this path")
	}
	h, ok := rte.methods[r.Method]
	if !ok && r.Method == http.MethodHead {
		h, ok = rte.methods[http.MethodGet] // net/http leaves out the body
	}
	if !ok {
		if rte.otherwise != nil {
			if err := rte.otherwise(w, r); err != nil {
				return err
			}
		}
		w.Header().Set("Allow", rte.allow())
		return counterfoil.Refuse(counterfoil.MethodForbidden, "use %s", rte.allow())
	}
	return h(w, r)
}

// find returns the route of a request. Paths with escapes, empty segments or
// dot segments have none.
func (rt *router) find(r *http.Request) (route, bool) {
	p := r.URL.Path
	if r.URL.RawPath != "" || p != path.Clean(p) {
		return route{}, false
	}
	segments := strings.Split(p, "/")
	for _, rte := range rt.routes {
		if rte.match(r, segments) {
			return rte, true
		}
	}
	return route{}, false
}

func (rte route) match(r *http.Request, segments []string) bool {
	for i, want := range rte.segments {
		name, isName := strings.CutPrefix(want, "{")
		name = strings.TrimSuffix(name, "}")
		if isName && strings.HasSuffix(name, "...") && i < len(segments) {
			rest := strings.Join(segments[i:], "/")
			r.SetPathValue(strings.TrimSuffix(name, "..."), rest)
			return rest != ""
		}
		switch {
		case i >= len(segments):
			return false
		case isName && segments[i] != "":
			r.SetPathValue(name, segments[i])
		case want != segments[i]:
			return false
		}
	}
	return len(rte.segments) == len(segments)
}

func (rte route) allow() string {
	var names []string
	for m := range rte.methods {
		names = append(names, m)
		if m == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

type requestIDKey struct{}

// RequestID returns the id under which a request is answered, logged and
// recorded. It is empty outside of a request to this package's handlers.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// A writer knows whether the answer has begun.
type writer struct {
	http.ResponseWriter
	wrote bool
}

// WriteHeader begins the answer. An informational status does not.
func (w *writer) WriteHeader(status int) {
	w.wrote = w.wrote || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

// Write begins the answer if nothing did.
func (w *writer) Write(b []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(b)
}

// Flush sends what was written, for streamed answers.
func (w *writer) Flush() {
	w.wrote = true
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap gives http.ResponseController the server's own writer.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
