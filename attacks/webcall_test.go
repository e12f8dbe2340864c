package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// TestBodiesAndQueriesOfAnAPI: what is decided on is what an API can read in a request,
// in one way; what can be read in two is refused.
func TestBodiesAndQueriesOfAnAPI(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	pay := func(body string) *call { return w.callWeb(http.MethodPost, "/payments", body) }
	typed := func(method, target, contentType, body string) *call {
		q := w.callWeb(method, target, body)
		q.header["Content-Type"] = strings.Split(contentType, "|")
		if contentType == "" {
			delete(q.header, "Content-Type")
		}
		return q
	}
	with := func(q *call, name, value string) *call { q.header[name] = []string{value}; return q }
	octets := "application/octet-stream"
	malformed, broken, forbidden := want{status: 400, code: counterfoil.RequestMalformed}, want{status: 400, code: counterfoil.PayloadMalformed}, want{status: 403, code: counterfoil.PolicyForbids}
	for _, tc := range []struct {
		row, name string
		send      func() *call
		target    string // instead of the call's own, in the request line
		want      want
		reaches   string // the request line and the body, where it passes
	}{
		{"TP8", "an amount", func() *call { return pay(`{"amount":10}`) }, "", passes, "POST /api/payments {\"amount\":10}"},
		{"TP8", "an amount in another spelling", func() *call { return pay(`{ "amount" : 1.0e1 }`) }, "", passes, "POST /api/payments {\"amount\":10}"},
		{"TP8", "more than the rule", func() *call { return pay(`{"amount":50.01}`) }, "", forbidden, ""},
		{"TP8", "more, with an exponent", func() *call { return pay(`{"amount":1e2}`) }, "", forbidden, ""},
		{"TP8", "an amount as text", func() *call { return pay(`{"amount":"10"}`) }, "", forbidden, ""},
		{"TP8", "an integer beyond 2^53", func() *call { return pay(`{"amount":10,"n":9007199254740993}`) }, "", broken, ""},
		{"TP8", "a number beyond doubles", func() *call { return pay(`{"amount":1e400}`) }, "", broken, ""},
		{"TP8", "an amount in a list", func() *call { return pay(`[{"amount":10}]`) }, "", forbidden, ""},
		{"TP1", "an amount twice", func() *call { return pay(`{"amount":10,"amount":1000}`) }, "", broken, ""},
		{"TP1", "a name twice, within", func() *call { return pay(`{"amount":10,"a":{"b":1,"b":2}}`) }, "", broken, ""},
		{"TP2", "an amount under another case beside it", func() *call { return pay(`{"amount":10,"Amount":1000}`) }, "", broken, ""},
		{"TP3", "a name escaped", func() *call { return pay(`{"\u0061mount":1000}`) }, "", forbidden, ""},
		{"TP3", "a byte order mark", func() *call { return pay("\ufeff{\"amount\":10}") }, "", broken, ""},
		{"TP3", "not UTF-8", func() *call { return pay("{\"amount\":10,\"a\":\"\xff\"}") }, "", broken, ""},
		{"TP3", "a lone surrogate", func() *call { return pay(`{"amount":10,"a":"\ud800"}`) }, "", broken, ""},
		{"TP4", "another value behind it", func() *call { return pay(`{"amount":10}{"amount":1000}`) }, "", broken, ""},
		{"TP4", "a comment", func() *call { return pay(`{"amount":10}//`) }, "", broken, ""},
		{"TP4", "NaN", func() *call { return pay(`{"amount":NaN}`) }, "", broken, ""},
		{"TP4", "depth", func() *call {
			return pay(`{"amount":10,"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`)
		}, "", broken, ""},
		{"TP9", "no type", func() *call { return typed("POST", "/payments", "", `{"amount":10}`) }, "", malformed, ""},
		{"TP9", "text", func() *call { return typed("POST", "/payments", "text/plain", `{"amount":1000}`) }, "", malformed, ""},
		{"TP9", "a form", func() *call { return typed("POST", "/payments", "application/x-www-form-urlencoded", "amount=1000") }, "", malformed, ""},
		{"TP9", "many parts", func() *call { return typed("POST", "/payments", "multipart/form-data; boundary=x", "--x--") }, "", malformed, ""},
		{"TP9", "UTF-16", func() *call { return typed("POST", "/payments", "application/json; charset=utf-16", `{"amount":10}`) }, "", malformed, ""},
		{"TP9", "two types", func() *call { return typed("POST", "/payments", "application/json|text/plain", `{"amount":10}`) }, "", malformed, ""},
		{"TP9", "gzip", func() *call { return with(pay(`{"amount":10}`), "Content-Encoding", "gzip") }, "", malformed, ""},
		{"TP9", "identity", func() *call { return with(pay(`{"amount":10}`), "Content-Encoding", "identity") }, "", malformed, ""},
		{"TP9", "what the operation takes", func() *call { return typed("POST", "/things/7", octets, "\x00\xff{") }, "", passes, "POST /api/things/7 \x00\xff{"},
		{"TP9", "a body of a GET", func() *call { return typed("GET", "/things/7", "application/json", `{"a":1}`) }, "", malformed, ""},
		{"TP10", "a verb that the path has not", func() *call { return w.callWeb(http.MethodPut, "/things/7", `{"a":1}`) }, "", want{status: 405, code: counterfoil.MethodForbidden}, ""},
		{"TP10", "a verb that nobody has", func() *call { return w.callWeb("FROB", "/things/7", "") }, "", want{status: 405, code: counterfoil.MethodForbidden}, ""},
		{"TP10", "a verb in a header", func() *call {
			return with(w.callWeb(http.MethodGet, "/things/7", ""), "X-Http-Method-Override", "DELETE")
		}, "", passes, "GET /api/things/7 "},
		{"TP10", "a verb in the query", func() *call { return w.callWeb(http.MethodGet, "/things/7?_method=DELETE", "") }, "", malformed, ""},
		{"TP10", "a verb in a form", func() *call { return typed("POST", "/things/7", "application/x-www-form-urlencoded", "_method=DELETE") }, "", malformed, ""},
		{"TP10", "a form without one", func() *call { return typed("POST", "/things/7", "application/x-www-form-urlencoded", "a=b") }, "", passes, "POST /api/things/7 a=b"},
		{"TP11", "a query", func() *call { return w.callWeb(http.MethodGet, "/things?b=2&a=1", "") }, "", passes, "GET /api/things?a=1&b=2 "},
		{"TP11", "a query with all kinds of characters", func() *call { return w.callWeb(http.MethodGet, "/things?a=%26%3D+%2B%20%C3%A9&b", "") }, "", passes, "GET /api/things?a=%26%3D%20%2B%20%C3%A9&b= "},
		{"TP11", "a name twice in the query", func() *call { return w.callWeb(http.MethodGet, "/things?a=1&a=2", "") }, "", malformed, ""},
		{"TP11", "a semicolon in the query", nil, "/r/web/things?a=1;b=2", malformed, ""},
		{"TP11", "an escape that is none in the query", nil, "/r/web/things?a=%zz", malformed, ""},
		{"TP11", "NUL in the query", nil, "/r/web/things?a=%00", malformed, ""},
		{"TP11", "not UTF-8 in the query", nil, "/r/web/things?a=%ff", malformed, ""},
		{"TP11", "another question mark", nil, "/r/web/things?a=1?b=2", malformed, ""},
		{"TP11", "a fragment in the query", nil, "/r/web/things?a=1#b", malformed, ""},
		{"TP11", "an empty parameter", nil, "/r/web/things?a=1&&b=2", malformed, ""},
		{"TP11", "a parameter without a name", nil, "/r/web/things?=1", malformed, ""},
		{"TP11", "10,001 parameters", nil, "/r/web/things?" + strings.Repeat("a&", 10001) + "hidden=y", malformed, ""},
		{"TP11", "300 parameters", nil, "/r/web/things?" + strings.TrimSuffix(manyParameters(300), "&"), malformed, ""},
		{"TP19", "what the schema has", func() *call { return w.callWeb("POST", "/things/7/name?tag=a&tag=b", `{"name":"x"}`) }, "", passes, "POST /api/things/7/name?tag=a&tag=b {\"name\":\"x\"}"},
		{"TP19", "another name for it", func() *call { return w.callWeb("POST", "/things/7/name", `{"name":"x","nom":"y"}`) }, "", broken, ""},
		{"TP19", "another type of it", func() *call { return w.callWeb("POST", "/things/7/name", `{"name":{"first":"x"}}`) }, "", broken, ""},
		{"TP19", "a parameter that the schema has not", func() *call { return w.callWeb("POST", "/things/7/name?force=1", `{"name":"x"}`) }, "", broken, ""},
		{"TP19", "a single parameter twice", func() *call { return w.callWeb("POST", "/things/7/name?dry=1&dry=2", `{"name":"x"}`) }, "", malformed, ""},
	} {
		t.Run(tc.row+" "+tc.name, func(t *testing.T) {
			defer w.in(t)()
			w.tap.t = t
			w.Clock.Advance(time.Second)
			if got := w.honestGet(); !got.passed() || len(w.seen()) != 1 {
				t.Fatalf("the request without the attack: %s", got)
			}
			from := w.size()
			var got answer
			if tc.send == nil {
				got = w.sendTarget(w.callWeb(http.MethodGet, "/things", ""), tc.target)
			} else {
				got = w.sendCall(tc.send())
			}
			tc.want.check(t, got)
			if !tc.want.passes() {
				w.wantNothing(from)
				return
			}
			reached := w.seen()
			if len(reached) != 1 || strings.Replace(reached[0].line, " HTTP/1.1", " ", 1)+reached[0].body != tc.reaches {
				t.Fatalf("the upstream saw %q, want %q", reached, tc.reaches)
			}
			for _, f := range reached[0].fields {
				if name, _, _ := strings.Cut(strings.ToLower(f), ":"); strings.Contains(name, "override") || name == "dpop" {
					t.Errorf("the upstream saw %q", f)
				}
			}
		})
	}
	w.tap.t = t
	w.CheckLedger()
}

func manyParameters(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d=1&", i)
	}
	return b.String()
}

// TestForwardedHeadersToAnAPI is HI3 and MT3 for HTTP resources: none of the headers by
// which a proxy speaks goes further, in any spelling, and neither does a header of the
// sender's that the tool does not name.
func TestForwardedHeadersToAnAPI(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	q := w.callWeb(http.MethodGet, "/things/7", "")
	spoof(q.header)
	for _, name := range []string{"Cookie", "Proxy-Authorization", "X-User", "X_User", "x-USER-id", "Connection", "Keep-Alive", "Te", "X-Http-Method", "X-Method-Override", "Host-Override", "Via", "Max-Forwards"} {
		q.header[name] = []string{"evil"}
	}
	q.header["Connection"] = []string{"Authorization, Accept"}
	got := w.sendCall(q)
	reached := w.seen()
	if !got.passed() || len(reached) != 1 {
		t.Fatalf("answered %s, the upstream saw %q", got, reached)
	}
	authorized := false
	for _, f := range reached[0].fields {
		name, value, _ := strings.Cut(f, ": ")
		name = strings.ToLower(name)
		authorized = authorized || name == "authorization" && value == "Bearer "+webSecret
		if strings.Contains(value, "evil") || strings.Contains(name, "forwarded") || strings.Contains(name, "cert") || name == "dpop" {
			t.Errorf("the upstream saw %q", f)
		}
	}
	if !authorized {
		t.Errorf("the credential did not reach the upstream: %q", reached[0].fields)
	}
	for _, e := range w.since(0) {
		if e.Source.Address == "10.0.0.1" {
			t.Errorf("entry %d (%s) has the address that a header says", e.Index, e.Kind)
		}
	}
	w.CheckLedger()
}
