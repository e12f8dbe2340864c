package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestAnHTTPCall is one call through the gateway and all that is left of it.
func TestAnHTTPCall(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	r := c.send("POST", "/customers/7/notes?b=2&a=x%20y", `{ "text":"hi", "n":1.0 }`, func(r *http.Request) {
		r.Header.Set("X-Trace-Id", "t-1")
		r.Header.Set("X_Odd", "evil")
		r.Header.Set("Cookie", "a=b")
		r.Header.Set("X-Forwarded-For", "10.0.0.1")
		r.Header.Set("X-Http-Method-Override", "DELETE")
		r.Header.Set("Prefer", "respond-async, return=minimal")
		r.Header.Set("Accept", "application/json")
	})
	wantAnswer(t, r, 200, `{"body":"{\"n\":1,\"text\":\"hi\"}","line":"POST /api/customers/7/notes?a=x%20y&b=2"}`)
	got := o.upstream.all()
	if len(got) != 1 {
		t.Fatalf("the upstream got %d requests", len(got))
	}
	want := map[string]string{
		"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "counterfoil", "Content-Type": "application/json", "Content-Length": "19",
		"X-Trace-Id": "t-1", "Prefer": "return=minimal", "Authorization": "Bearer " + crmSecret,
	}
	for name, values := range got[0].header {
		if want[name] != strings.Join(values, "|") {
			t.Errorf("the upstream got %s: %v", name, values)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("the upstream did not get %v", want)
	}
	entries := append(o.log.of(ledger.CallDecided), o.log.of(ledger.CallFinished)...)
	if len(entries) != 2 {
		t.Fatalf("the log has %+v", entries)
	}
	decided, finished := entries[0], entries[1]
	if decided.Tool != "crm/note" || decided.Decision != ledger.Allow || decided.Class != "read" || !strings.HasPrefix(decided.ToolDigest, "sha-256:") || decided.JKT == "" {
		t.Errorf("decided: %+v", decided)
	}
	salt, _, err := o.log.Payload(t.Context(), decided.Index)
	if err != nil || ledger.Commitment(salt, []byte(`{"body":{"n":1,"text":"hi"},"path":{"id":"7"},"query":{"a":"x y","b":"2"}}`)) != decided.PayloadCommitment {
		t.Errorf("recorded is a commitment to something else, %v", err)
	}
	if finished.Of != decided.Index || finished.Outcome != "succeeded" || finished.Tool != "crm/note" {
		t.Errorf("finished: %+v", finished)
	}
	used := o.log.custody(t)
	if len(used) != 1 || used[0].Of != decided.Index || used[0].Detail["binding"] != "ends here" || used[0].Detail["from"] != "file crm-token" {
		t.Errorf("the use of the credential: %+v", used)
	}
}

// custody are the entries of credentials that were used, and found in answers.
func (l *log) custody(t testing.TB) []ledger.Entry {
	t.Helper()
	size, _ := l.Head()
	var out []ledger.Entry
	err := l.Entries(t.Context(), 0, size, func(_ int64, b []byte) error {
		e, err := ledger.Parse(b)
		if err == nil && (e.Kind == ledger.UpstreamCredentialUsed || e.Kind == ledger.AnswerScrubbed) {
			out = append(out, *e)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWhatAnHTTPCallIs: each refusal is beside the honest call that it differs from.
func TestWhatAnHTTPCallIs(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	typed := func(contentType string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Content-Type"] = strings.Split(contentType, "|") }
	}
	for _, tc := range []struct {
		name, method, target, body string
		change                     func(*http.Request)
		status                     int
		code                       counterfoil.Code
		reaches                    string
	}{
		{"a template", "GET", "/customers/7", "", nil, 200, "", "GET /api/customers/7"},
		{"a literal beats a variable", "GET", "/customers/search?q=x", "", nil, 200, "", "GET /api/customers/search?q=x"},
		{"a slash at the end", "GET", "/customers/", "", nil, 200, "", "GET /api/customers/"},
		{"none at the end", "GET", "/customers", "", nil, 404, counterfoil.ToolUnknown, ""},
		{"a slash too many", "GET", "/customers/7/", "", nil, 400, counterfoil.RequestMalformed, ""},
		{"an empty segment", "GET", "/customers//7", "", nil, 400, counterfoil.RequestMalformed, ""},
		{"a literal in another case", "GET", "/customers/Search", "", nil, 400, counterfoil.RequestMalformed, ""},
		{"the resource itself", "GET", "", "", nil, 404, counterfoil.ToolUnknown, ""},
		{"nothing known", "GET", "/orders", "", nil, 404, counterfoil.ToolUnknown, ""},
		{"another method", "PATCH", "/customers/7", `{}`, nil, 405, counterfoil.MethodForbidden, ""},
		{"a class that never runs", "DELETE", "/customers/7", "", nil, 403, counterfoil.ClassForbidden, ""},
		{"reserved characters", "GET", "/customers/a:b@c,d", "", nil, 200, "", "GET /api/customers/a:b@c,d"},
		{"reserved characters, escaped", "GET", "/customers/a%3A1", "", nil, 200, "", "GET /api/customers/a%3A1"},
		{"what looks like an action", "GET", "/customers/7:cancel", "", nil, 400, counterfoil.RequestMalformed, ""},
		{"what looks like an action, escaped", "GET", "/customers/7%3Acancel", "", nil, 400, counterfoil.RequestMalformed, ""},
		{"what looks like a format of a literal", "GET", "/customers/search.json", "", nil, 400, counterfoil.RequestMalformed, ""},
		{"what begins like a literal", "GET", "/customers/searching", "", nil, 200, "", "GET /api/customers/searching"},
		{"what is not listed", "GET", "/customers/export", "", nil, 404, counterfoil.ToolUnknown, ""},
		{"what is not listed, with a format", "GET", "/customers/Export.json", "", nil, 404, counterfoil.ToolUnknown, ""},
		{"a member that is a method", "POST", "/customers/7/notes", `{"_method":"DELETE"}`, nil, 400, counterfoil.RequestMalformed, ""},
		{"a member within that is one", "POST", "/customers/7/notes", `{"a":{"_method":"DELETE"}}`, nil, 200, "", `POST /api/customers/7/notes{"a":{"_method":"DELETE"}}`},
		{"a list that the schema has", "GET", "/customers/search?tag=b&q=1&tag=a", "", nil, 200, "", "GET /api/customers/search?q=1&tag=b&tag=a"},
		{"what is no list", "GET", "/customers/search?q=1&q=2", "", nil, 400, counterfoil.RequestMalformed, ""},
		{"a parameter that the schema has not", "GET", "/customers/search?limit=1", "", nil, 400, counterfoil.PayloadMalformed, ""},
		{"no body", "POST", "/customers/7/notes", "", nil, 200, "", "POST /api/customers/7/notes"},
		{"a type without a body", "POST", "/customers/7/notes", "", typed("application/json"), 400, counterfoil.RequestMalformed, ""},
		{"a type of nothing", "GET", "/customers/7", "", typed("application/json"), 200, "", "GET /api/customers/7"},
		{"JSON of another name", "POST", "/customers/7/notes", `{"a":1.0}`, typed("application/merge-patch+json"), 200, "", `POST /api/customers/7/notes{"a":1}`},
		{"another type", "POST", "/customers/7/notes", "a=1", typed("text/plain"), 400, counterfoil.RequestMalformed, ""},
		{"two types", "POST", "/customers/7/notes", `{}`, typed("application/json|text/plain"), 400, counterfoil.RequestMalformed, ""},
		{"another charset", "POST", "/customers/7/notes", `{}`, typed("application/json; charset=utf-16"), 400, counterfoil.RequestMalformed, ""},
		{"a name twice", "POST", "/customers/7/notes", `{"a":1,"a":2}`, nil, 400, counterfoil.PayloadMalformed, ""},
		{"what would end the object", "POST", "/customers/7/notes", `{}},"path":{"id":"8"}`, nil, 400, counterfoil.PayloadMalformed, ""},
		{"bytes that the tool takes", "PUT", "/customers/7/photo", "\x89PNG{", typed("image/png"), 200, "", "PUT /api/customers/7/photo\x89PNG{"},
		{"bytes that it does not take", "PUT", "/customers/7/photo", "GIF", typed("image/gif"), 400, counterfoil.RequestMalformed, ""},
		{"a form with a method", "PUT", "/customers/7/photo", "--x\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--x--\r\n", typed("multipart/form-data; boundary=x"), 400, counterfoil.RequestMalformed, ""},
		{"a form without", "PUT", "/customers/7/photo", "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--\r\n", typed("multipart/form-data; boundary=x"), 200, "", "PUT /api/customers/7/photo--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--\r\n"},
		{"an encoding", "POST", "/customers/7/notes", `{}`, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 400, counterfoil.RequestMalformed, ""},
		{"a page of elsewhere", "GET", "/customers/7", "", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403, counterfoil.OriginForbidden, ""},
		{"an upgrade", "GET", "/customers/7", "", func(r *http.Request) { r.Header.Set("Connection", "Upgrade"); r.Header.Set("Upgrade", "websocket") }, 400, counterfoil.RequestMalformed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o.world.t = t
			before := len(o.upstream.all())
			r := c.send(tc.method, tc.target, tc.body, tc.change)
			got := o.upstream.all()[before:]
			if tc.code != "" {
				wantHTTP(t, r, tc.status, tc.code)
				if len(got) > 0 {
					t.Fatalf("the upstream got %+v", got)
				}
				if tc.code == counterfoil.MethodForbidden && r.header.Get("Allow") != "DELETE, GET" {
					t.Errorf("Allow is %q", r.header.Get("Allow"))
				}
				return
			}
			if r.status != tc.status || len(got) != 1 || !strings.Contains(r.body, "line") {
				t.Fatalf("got %d %s, the upstream %+v", r.status, r.body, got)
			}
			if line := got[0].method + " " + got[0].target + got[0].body; line != tc.reaches {
				t.Errorf("the upstream got %q, want %q", line, tc.reaches)
			}
			if d := got[0].header.Get("Content-Digest"); (d != "") != strings.HasPrefix(tc.name, "bytes that the") && (d != "") != (tc.name == "a form without") {
				t.Errorf("Content-Digest is %q", d)
			}
		})
	}
}

// TestATokenOfAnotherTool: the challenge names the scope that would do.
func TestATokenOfAnotherTool(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	c.scope = []string{"search"}
	r := c.send("GET", "/customers/7", "", nil)
	wantHTTP(t, r, 403, counterfoil.ToolNotGranted)
	if v := r.header.Get("WWW-Authenticate"); !strings.Contains(v, `error="insufficient_scope"`) || !strings.Contains(v, `scope="get_customer"`) || !strings.Contains(v, "/.well-known/oauth-protected-resource/r/crm") {
		t.Errorf("the challenge is %q", v)
	}
	wantAnswer(t, c.send("GET", "/customers/search", "", nil), 200, `{"body":"","line":"GET /api/customers/search"}`)
	if r := c.send("GET", "/customers/search", "", func(r *http.Request) { r.Header.Del("Dpop") }); r.status != 401 || r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a proof: %d %v", r.status, r.header)
	}
	// A proof is for the path, not for the resource.
	r = c.send("GET", "/customers/search", "", func(r *http.Request) { r.URL.Path = "/r/crm/customers/7" })
	wantHTTP(t, r, 401, counterfoil.ProofTarget)
	if got := len(o.upstream.all()); got != 1 {
		t.Errorf("the upstream got %d requests", got)
	}
}
