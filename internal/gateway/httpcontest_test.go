package gateway

import (
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// TestContested: what a server might take for another operation than the tool whose
// template fits is none of the tool's, each beside a value that is nobody else's.
func TestContested(t *testing.T) {
	t.Parallel()
	tool := func(name, class, method, path string) counterfoil.Tool {
		return counterfoil.Tool{Name: name, Class: class, Method: method, Path: path}
	}
	ids := tool("id", "c", "GET", "/free/{id}")
	ids.Colons = true
	g := &Gateway{}
	table := g.table(&counterfoil.Resource{Name: "r", Tools: []counterfoil.Tool{
		tool("get", "c", "GET", "/c/{id}"), tool("put", "c", "POST", "/c/{id}"), tool("head", "c", "HEAD", "/c/{id}"), tool("sub", "c", "GET", "/c/{id}/notes"), tool("slash", "c", "GET", "/s/{id}/"),
		tool("export", "other", "GET", "/c/export"), tool("stats", "other", "GET", "/c/stats.json"), tool("me", "other", "GET", "/c/@me"), tool("run", "other", "POST", "/c/bulk-run"),
		tool("", "", "GET", "/c/dump"), tool("", "", "GET", "/s/dump"), tool("", "", "POST", "/c/{id}:void"), tool("", "", "GET", "/c/{name}.csv"), tool("", "", "GET", "/c/x{a}-{b}y"),
		tool("", "", "DELETE", "/c/{id}"), tool("", "", "GET", "/{any}/hidden"), tool("", "", "GET", "/free/{id}:void"), ids,
	}})
	for path, want := range map[string]string{
		"GET /c/7": "get", "GET /c/export": "export", "GET /c/export-1": "get", "GET /c/export_1": "get", "GET /c/exports": "get", "GET /c/export2": "get", "GET /c/expor": "get", "GET /c/re.export": "get",
		"GET /c/export.json": "request_malformed", "GET /c/EXPORT.json": "request_malformed", "GET /c/export,1": "request_malformed", "GET /c/export:run": "request_malformed", "GET /c/export%20x": "request_malformed",
		"GET /c/export@x": "request_malformed", "GET /c/export+": "request_malformed", "GET /c/e%C5%BFport": "get", "GET /c/%C5%BFtats": "request_malformed", "GET /c/export%CC%81": "request_malformed", "GET /c/export%C3%A9": "get",
		"GET /c/stats.json": "stats", "GET /c/stats": "request_malformed", "GET /c/stats.xml": "request_malformed", "GET /c/statsjson": "get", "GET /c/@me": "me", "GET /c/@me.json": "request_malformed", "GET /c/@you": "get",
		"GET /c/bulk-run": "method_forbidden", "POST /c/bulk-run": "run", "POST /c/bulk-run.json": "request_malformed", "POST /c/bulk": "put", "HEAD /c/export": "method_forbidden", "HEAD /c/7": "head",
		"GET /c/dump": "tool_unknown", "HEAD /c/dump": "tool_unknown", "POST /c/dump": "tool_unknown", "GET /c/Dump": "tool_unknown", "GET /c/dump.json": "tool_unknown", "GET /c/dump,1": "tool_unknown", "GET /c/dumped": "get",
		"POST /c/7:void": "tool_unknown", "POST /c/7%3AVOID": "tool_unknown", "POST /c/7:other": "request_malformed", "POST /c/7": "put", "GET /c/a.csv": "tool_unknown", "GET /c/a.CSV": "tool_unknown", "GET /c/a.csvx": "get",
		"GET /c/x1-2y": "tool_unknown", "GET /c/x12y": "get", "DELETE /c/7": "method_forbidden", "GET /s/7/": "slash", "GET /s/dump/": "tool_unknown",
		"GET /c/hidden": "tool_unknown", "GET /c/hidden/notes": "sub", "GET /c/hiddens": "get", "GET /c/dump/notes": "sub",
		"GET /c/7:cancel": "request_malformed", "GET /c/7%3Acancel": "request_malformed", "GET /c/7:a-b_c": "request_malformed", "GET /c/7:cancel.json": "request_malformed", "GET /c/:cancel": "request_malformed", "GET /c/7:%C3%A9": "request_malformed",
		"GET /c/urn:x:1": "get", "GET /c/12:30": "get", "GET /c/a:": "get", "GET /c/a:b@c": "get", "GET /c/a:1b": "get", "GET /c/7:cancel/notes": "sub", "GET /s/7:cancel/": "request_malformed",
		"GET /free/user:ann": "id", "GET /free/7:cancel": "id", "GET /free/7:void": "tool_unknown",
	} {
		method, raw, _ := strings.Cut(path, " ")
		p, err := parsePath(raw)
		var got *webTool
		if err == nil {
			got, err = table.match(method, &p)
		}
		said := string(counterfoil.CodeOf(err))
		if err == nil {
			said = got.Name
		}
		if said != want {
			t.Errorf("%s: %s, want %s (%v)", path, said, want, err)
		}
	}
}

// TestMethodOverrides: names that common frameworks take for another method, in the
// spellings in which they read them, each beside one that they do not.
func TestMethodOverrides(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"_method", "_METHOD", ".method", " _method", "_method ", "\t_method", "[method", "_method[x]", "_method[", "_method]", "[_method]", "[[_method", "_method[][a]", " method", "_method\x00",
		"X-HTTP-Method-Override", "x_http_method_override", "X.Http.Method", "x http-method-override", "$httpMethod", ". method",
	} {
		if got := isMethodOverride(name); got != (name != " method" && name != ". method") {
			t.Errorf("%q: %v", name, got)
		}
	}
	for _, name := range []string{"method", "a[_method]", "a_method", "_methods", "_method.x", "", "[", "]", "[]", "payment_method", "_", "http_method"} {
		if isMethodOverride(name) {
			t.Errorf("%q is taken for one", name)
		}
	}
}

// TestForms: a form that two servers could read in two ways is refused.
func TestForms(t *testing.T) {
	t.Parallel()
	const form, mixed, url = "multipart/form-data; boundary=x", "multipart/related; boundary=x", "application/x-www-form-urlencoded"
	part := func(headers ...string) string {
		return "--x\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\nDELETE\r\n--x--\r\n"
	}
	const field = "Content-Disposition: form-data; "
	for _, tc := range []struct {
		media, body string
		ok          bool
	}{
		{url, "a=b", true}, {url + "; charset=UTF-8", "a=b", true}, {url + "; charset=utf-16", "a=b", false}, {url, "a=b&_method=DELETE", false}, {url, "a=b;c=d", false},
		{url, ".method=DELETE", false}, {url, "+_method=DELETE", false}, {url, "%5Bmethod=DELETE", false}, {url, "_method%5Bx%5D=DELETE", false}, {url, "_method[]=DELETE", false}, {url, "a[_method]=1", true},
		{form, part(field + `name="a"`), true}, {form, part(field+`name="a"; filename="x.png"`, "Content-Type: image/png"), true}, {form, part(field + `name="a"; filename="x"; filename*=utf-8''x`), true},
		{form, part(field + `name="_method"`), false}, {form, part(field + `name=_method`), false}, {form, part(field + `name=" _method"`), false}, {form, part(field + `name="_method[x]"`), false},
		{form, part(field + `name="x"; name="_method"`), false}, {form, part(`Content-Disposition: attachment; name="_method"`), false}, {form, part(`Content-Disposition: attachment; name="a"`), false},
		{form, part(field+`name="a"`, field+`name="_method"`), false}, {form, part("Content-Type: text/plain"), false}, {form, part(field + `filename="x"`), false}, {form, part(field + `name="_method`), false},
		{form, part(field + `name="x"; name*=utf-8''_method`), false}, {form, part(field + `name*0="_met"; name*1="hod"`), false}, {form, part(field + `name="_meth\\od"`), false}, {form, part(field + `name="%5fmethod"`), false},
		{form, part(field + `name="=?utf-8?q?_method?="`), false}, {form, "nothing", false},
		{mixed, part("Content-Type: text/plain"), true}, {mixed, part(`Content-Disposition: attachment; filename="a"`), true}, {mixed, part(`Content-Disposition: attachment; name="_method"`), false},
		{mixed, part("Content-Id: <a>"), true}, {mixed, part("Content-Id: _method"), false}, {mixed, part(`Content-Disposition: attachment; name="a"; name="_method"`), false},
		{"image/png", "_method=DELETE", true},
	} {
		if err := refuseOverride(tc.media, []byte(tc.body)); (err == nil) != tc.ok {
			t.Errorf("%s %q: %v", tc.media, tc.body, err)
		}
	}
	if jsonOverride([]byte(`{"a":{"_method":"DELETE"},"b":["_method"]}`)) || !jsonOverride([]byte(`{"_Method":"DELETE","a":1}`)) || jsonOverride([]byte(`["_method"]`)) {
		t.Error("members of JSON bodies are taken for what they are not")
	}
}

// TestHeadersOfTools: what a tool names goes on where the one list of what never does
// says so, and parts are asked for where nothing is masked.
func TestHeadersOfTools(t *testing.T) {
	t.Parallel()
	from := http.Header{}
	for _, name := range []string{"X-Tenant", "Signature", "Repr-Digest", "X-Host", "X_http_method_override", "X-Http-Method-Override", "Idempotency-Key", "Range", "If-Range", "If-Match", "Accept"} {
		from[name] = []string{"v"}
	}
	named := counterfoil.Tool{Class: "c", Method: "GET", Path: "/", Headers: []string{"X-Tenant", "Signature", "Repr-Digest", "X-Host", "X_HTTP_Method_Override", "X-HTTP-Method-Override", "Idempotency-Key", "range"}}
	for parts, want := range map[bool]string{true: "Accept If-Match If-Range Range X-Tenant", false: "Accept If-Match X-Tenant"} {
		tool := newWebTool(&named, parts)
		all, _, err := tool.forwarded(from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range []string{"Accept", "If-Match", "If-Range", "Range", "Signature", "Repr-Digest", "X-Host", "X_http_method_override", "X-Http-Method-Override", "Idempotency-Key", "X-Tenant"} {
			if len(all[name]) > 0 {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want || len(all) != len(got) {
			t.Errorf("with parts %v: %v", parts, all)
		}
	}
}
