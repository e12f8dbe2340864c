package authority

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// A placedTool is a tool with where it is.
type placedTool struct {
	counterfoil.Tool
	resource *counterfoil.Resource
}

func (t placedTool) id() counterfoil.ToolID {
	return counterfoil.ToolID{Resource: t.resource.Name, Tool: t.Name}
}

// server says which server the tool's calls go to, and how: equal for the spellings of
// one URL, not for two names of one machine. Empty where nothing is forwarded.
func (t placedTool) server() string {
	at := t.place()
	if at == "" {
		return ""
	}
	u, err := url.Parse(at)
	if err != nil {
		return t.resource.Type + " " + at
	}
	return t.resource.Type + " " + strings.ToLower(u.Scheme) + "://" + hostOf(u) + strings.TrimRight(u.Path, "/") + "?" + u.RawQuery
}

// place returns the URL that the tool's calls go to. Of an http resource that other
// enforcement points serve it is the resource's own: where they forward to they alone
// know. Empty where no call is decided on.
func (t placedTool) place() string {
	if t.resource.Upstream == "" && t.resource.Type == counterfoil.ResourceHTTP {
		return t.resource.PublicURL
	}
	return t.resource.Upstream
}

func hostOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(n, 10) // 09000 is dialled as 9000
	}
	return hostName(u.Hostname()) + ":" + port
}

// loopback stands for every name of this machine that it has by itself.
const loopback = "localhost"

// hostName is one spelling of a host. Two names of one machine stay two, but for those
// that every machine has for itself.
func hostName(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil && (host == loopback || strings.HasSuffix(host, "."+loopback)): // RFC 6761, Section 6.3
		return loopback
	case err != nil:
		return host
	}
	if addr = addr.Unmap().WithZone(""); addr.IsLoopback() || addr.IsUnspecified() {
		return loopback
	}
	return addr.String()
}

// asks says which of the server's requests the tool is.
func (t placedTool) asks() string { return t.Method + " " + t.Path }

// A request is what an upstream is asked for by the calls of one tool.
type request struct {
	host, method string
	segments     []string // of the path; one that begins with "{" is any
	tool         string   // within an MCP endpoint; empty: whatever the request says
}

// request returns the tool's request; ok is false where nothing is forwarded.
func (t placedTool) request() (r request, ok bool) {
	u, err := url.Parse(t.place())
	if err != nil || t.place() == "" {
		return request{}, false
	}
	r = request{host: hostOf(u), method: t.Method, tool: t.Name}
	path := u.Path
	if t.resource.Type == counterfoil.ResourceHTTP {
		r.tool = ""
		path = strings.TrimRight(path, "/") + t.Path
		if r.method == http.MethodHead {
			r.method = http.MethodGet // servers run one for the other
		}
	} else {
		r.method = http.MethodPost
	}
	// Many servers take a path with a slash at its end for the one without.
	r.segments = strings.Split(strings.Trim(path, "/"), "/")
	return r, true
}

// overlaps reports whether some request is both. Which of two templates of one
// resource a path belongs to is decided by the more special one, so a literal beside a
// variable takes calls away from it.
func (r request) overlaps(o request) bool {
	if r.host != o.host || r.method != o.method || len(r.segments) != len(o.segments) {
		return false
	}
	if r.tool != "" && o.tool != "" && r.tool != o.tool {
		return false
	}
	for i, a := range r.segments {
		b := o.segments[i]
		if a != b && !strings.HasPrefix(a, "{") && !strings.HasPrefix(b, "{") {
			return false
		}
	}
	return true
}

// allTools returns every classified tool of a registry, in order.
func allTools(r *counterfoil.Registry) []placedTool {
	var out []placedTool
	for _, name := range slices.Sorted(maps.Keys(r.Resources)) {
		res := r.Resources[name]
		for _, t := range res.Tools {
			if t.Class != "" {
				out = append(out, placedTool{t, res})
			}
		}
		for _, special := range []string{counterfoil.ToolResources, counterfoil.ToolPrompts} {
			if t, ok := res.Tool(special); ok && !slices.ContainsFunc(res.Tools, func(o counterfoil.Tool) bool { return o.Name == special }) {
				out = append(out, placedTool{t, res})
			}
		}
	}
	return out
}

// tools looks at every tool of a protected class: what becomes of it, and whether
// another tool reaches the same of the same server.
func (w *widener) tools() {
	old, now := map[counterfoil.ToolID]placedTool{}, map[counterfoil.ToolID]placedTool{}
	for _, t := range allTools(w.after) {
		now[t.id()] = t
	}
	var guarded []placedTool
	for _, t := range allTools(w.before) {
		old[t.id()] = t
		if w.protected[t.Class] {
			guarded = append(guarded, t)
			w.tool(t, now)
		}
	}
	for _, t := range allTools(w.after) {
		was, is := old[t.id()]
		if is && was.Class == t.Class && was.server() == t.server() && was.asks() == t.asks() || !w.runs(t.Class) {
			continue
		}
		w.beside(t, guarded)
	}
}

// runs reports whether calls of a class are possible after the change.
func (w *widener) runs(class string) bool {
	c := w.after.Classes[class]
	return c != nil && c.Tier != counterfoil.Forbidden
}

// beside looks at a tool that is new, or new in its class or place, and at the
// protected ones that it reaches under its own name. Whatever its class, what forbids
// those by their names, class or fields says nothing of it.
func (w *widener) beside(t placedTool, guarded []placedTool) {
	r, ok := t.request()
	if !ok {
		return
	}
	var names, classes []string
	for _, g := range guarded {
		if same, ok := g.request(); ok && g.id() != t.id() && r.overlaps(same) {
			names, classes = append(names, g.id().String()), append(classes, g.Class)
		}
	}
	if len(names) == 0 {
		return
	}
	const most = 3
	if n := len(names) - most; n > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", n))
	}
	w.add(counterfoil.KindResource, t.resource.Name, fmt.Sprintf("has %s, which reaches %s of the same server, in class %s",
		t.Name, strings.Join(names, ", "), t.Class), classes...)
}

// tool looks at one tool of a protected class.
func (w *widener) tool(t placedTool, now map[counterfoil.ToolID]placedTool) {
	add := func(format string, args ...any) {
		w.add(counterfoil.KindResource, t.resource.Name, t.Name+" "+fmt.Sprintf(format, args...), t.Class)
	}
	next, there := now[t.id()]
	if !there {
		// It is not callable now. But a tool that nobody knows any more could be
		// declared tomorrow in any class, which nobody would wait for.
		add("leaves class %s, after which it could be declared anew in any other", t.Class)
		return
	}
	if next.Class != t.Class && w.runs(next.Class) {
		add("goes from class %s to %s: it %s", t.Class, next.Class, strings.Join(w.moved(t.Class, next.Class), ", and "))
	}
	if next.server() != t.server() {
		// Its old server would have nobody who guards it: tomorrow it could be
		// declared in any class, and this tool come back.
		add("is asked of another server from now on")
	}
	if next.asks() != t.asks() {
		add("is another request from now on")
	}
	fields := maps.Clone(next.Fields)
	if fields == nil {
		fields = map[string]string{}
	}
	maps.Copy(fields, t.Fields)
	maps.DeleteFunc(fields, func(name, _ string) bool {
		is, has := next.Fields[name]
		was, had := t.Fields[name]
		return has == had && is == was
	})
	if len(fields) > 0 {
		add("says otherwise what its %s is: limits, what forbids and what people read go by it", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
	}
}

// moved says what a tool of a protected class needs less of in another. Limits begin
// anew there, and what forbids the one class says nothing of the other.
func (w *widener) moved(from, to string) []string {
	before, after := w.before.Classes[from], w.after.Classes[to]
	why := looser(before, after)
	if len(why) == 0 && len(before.Limits) > 0 {
		why = append(why, "counts towards other limits")
	}
	if len(why) == 0 {
		why = append(why, "is not under what forbids calls of class "+from)
	}
	return why
}
