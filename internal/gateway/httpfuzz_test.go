package gateway

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// FuzzPath: a path that is taken is read alike by net/url and by whoever cleans paths
// first, and goes out as it came.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/customers/7", "/customers/", "//a", "/a/../b", "/a%2fb", "/a%2Eb", "/%C3%A9", "/a;b", "/a%00", "/A%20b/c:d@e", "/%E2%80%AE", "/a.", "/a b", `/a\b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := parsePath(raw)
		if err != nil {
			return
		}
		u, err := url.ParseRequestURI(raw)
		if err != nil || u.RawQuery != "" || u.EscapedPath() != raw || u.Fragment != "" {
			t.Fatalf("%q is %+v, %v", raw, u, err)
		}
		if clean := path.Clean(u.Path); clean != u.Path && clean+"/" != u.Path {
			t.Fatalf("%q is cleaned to %q", u.Path, clean)
		}
		if got := "/" + strings.Join(p.segments, "/"); got != u.Path || !utf8.ValidString(got) {
			t.Fatalf("%q is read as %q and by net/url as %q", raw, got, u.Path)
		}
		again, err := url.PathUnescape(u.Path)
		if err != nil || again != u.Path {
			t.Fatalf("%q says something else when it is decoded twice: %q, %v", raw, again, err)
		}
		for _, bad := range []string{"\\", ";", "\x00", "\r", "\n", "?", "#", "%"} {
			if strings.Contains(u.Path, bad) {
				t.Fatalf("%q holds %q", u.Path, bad)
			}
		}
	})
}

// FuzzQuery: what is written anew from a query is read alike by net/url and by us, and
// its object is strict JSON of the same values.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "a=1&a=2", "a;b", "a=%zz", "a=%26%3D+%2B", "=", "&", "a", "_method=DELETE", "a[]=1", "%00", "é=é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := parseQuery(raw, func(name string) bool { return strings.HasSuffix(name, "[]") })
		if err != nil {
			return
		}
		written := encodeQuery(query)
		values, err := url.ParseQuery(written)
		if err != nil {
			t.Fatalf("%q: %v", written, err)
		}
		n := 0
		for _, p := range query {
			if strings.Join(values[p.name], "\x00") != strings.Join(p.values, "\x00") || !p.list && len(p.values) != 1 {
				t.Fatalf("%q is %q, of which net/url reads %q", p.name, p.values, values[p.name])
			}
			n += len(p.values)
		}
		if n > maxParameters || len(values) != len(query) {
			t.Fatalf("%d values of %d names, net/url reads %d", n, len(query), len(values))
		}
		sent, err := url.ParseQuery(raw)
		if err != nil || sent.Encode() != values.Encode() {
			t.Fatalf("%q is read by net/url as %q, and what goes out as %q: %v", raw, sent.Encode(), values.Encode(), err)
		}
		again, err := parseQuery(written, func(name string) bool { return strings.HasSuffix(name, "[]") })
		if err != nil || encodeQuery(again) != written {
			t.Fatalf("%q is not read again: %v", written, err)
		}
		if object := appendQuery(nil, query); ijson.Check(object) != nil {
			// Names that differ by case alone are refused with the arguments.
			if _, err := ijson.Canonical(object); err == nil {
				t.Fatalf("%s", object)
			}
		}
	})
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	tools := []counterfoil.Tool{
		{Name: "any", Class: "c", Method: "GET", Path: "/a/{x}/{y}"}, {Name: "left", Class: "c", Method: "GET", Path: "/a/b/{y}"}, {Name: "right", Class: "c", Method: "GET", Path: "/a/{x}/c"},
		{Name: "verb", Class: "c", Method: "POST", Path: "/a/{x}:run"}, {Name: "root", Class: "c", Method: "GET", Path: "/"}, {Name: "unclassified", Method: "GET", Path: "/u"},
		{Name: "accent", Class: "c", Method: "GET", Path: "/é"},
	}
	g := &Gateway{}
	table := g.table(&counterfoil.Resource{Name: "r", Tools: tools})
	for _, tc := range []struct{ method, path, want string }{
		{"GET", "/a/x/y", "any"}, {"GET", "/a/b/y", "left"}, {"GET", "/a/b/c", "left"}, {"GET", "/a/x/c", "right"}, {"GET", "/", "root"}, {"GET", "/%C3%A9", "accent"},
		{"POST", "/a/{x}:run", "request_malformed"}, {"POST", "/a/7:run", "tool_unknown"}, {"GET", "/u", "tool_unknown"}, {"GET", "/a/B/y", "request_malformed"},
		{"GET", "/a/x/C", "request_malformed"}, {"PUT", "/a/x/y", "method_forbidden"}, {"GET", "/a//y", "request_malformed"}, {"get", "/a/x/y", "method_forbidden"},
	} {
		p, err := parsePath(tc.path)
		var tool *webTool
		if err == nil {
			tool, err = table.match(tc.method, &p)
		}
		got := string(counterfoil.CodeOf(err))
		if err == nil {
			got = tool.Name
		}
		if got != tc.want {
			t.Errorf("%s %s: %s, %v", tc.method, tc.path, got, err)
		}
	}
}
