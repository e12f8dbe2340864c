package authz_test

import (
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// TestForwardAuthAsksAboutTheRequestThatIsHeld: what the proxy's headers say, behind
// the resource's public URL, and nothing of the question's own method, path and host.
func TestForwardAuthAsksAboutTheRequestThatIsHeld(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback, "10.0.0.0/8")
	for _, c := range []struct{ resource, uri, path, query string }{
		{"crm", "/crm/customers/7?a=1&b=%20", "/customers/7", "a=1&b=%20"},
		{"crm", "/crm/", "/", ""},
		{"crm-2", "/crm-2/customers/7", "/customers/7", ""},
		{"whole", "/customers/%C3%A9", "/customers/%C3%A9", ""},
		{"whole", "/", "/", ""},
		{"ours", "/r/ours/x?y", "/x", "y"},
		{"crm", "/crm/a//b/../c", "/a//b/../c", ""}, // for the judge to refuse
	} {
		got := p.send("GET", "/forward-auth/"+c.resource, "", "X-Forwarded-Method: PUT", "X-Forwarded-Uri: "+c.uri,
			"X-Forwarded-Host: evil.example", "X-Forwarded-Proto: http", "X-Forwarded-Prefix: /elsewhere", "X-Forwarded-Port: 1",
			"X-Forwarded-For: 203.0.113.9, 10.1.2.3", "X-Forwarded-Client-Cert: By=x", "X-Original-Uri: /other", "X_Forwarded_Uri: /other",
			"Authorization: DPoP t", "DPoP: p", "Accept: */*", "Content-Type: application/json")
		asked := p.take()
		if got.status != http.StatusOK || len(asked) != 1 {
			t.Fatalf("%s: %d with %d questions: %s", c.uri, got.status, len(asked), got.body)
		}
		if asked[0].RequestID == "" || asked[0].RequestID != got.header.Get("X-Request-Id") {
			t.Errorf("%s: the request's id is %q and %q", c.uri, asked[0].RequestID, got.header.Get("X-Request-Id"))
		}
		asked[0].RequestID = ""
		want := counterfoil.Question{
			Point: "forward_auth", Resource: c.resource, Method: "PUT", Path: c.path, Query: c.query, Source: netip.MustParseAddr("203.0.113.9"),
			Header: http.Header{
				"Authorization": {"DPoP t"}, "Dpop": {"p"}, "Accept": {"*/*"}, "Content-Type": {"application/json"},
				"X-Original-Uri": {"/other"}, "X_forwarded_uri": {"/other"}, "X-Forwarded-Client-Cert": {"By=x"},
			},
		}
		if !reflect.DeepEqual(asked[0], want) {
			t.Errorf("%s: asked\n%+v, want\n%+v", c.uri, asked[0], want)
		}
	}
}

// TestForwardAuthRefusesWhatCanBeReadTwoWays: what is missing, there twice, or not
// below the resource's public URL is refused before anybody is asked.
func TestForwardAuthRefusesWhatCanBeReadTwoWays(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	const method, uri = "X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/customers/7"
	if got := p.send("GET", "/forward-auth/crm", "", method, uri); got.status != http.StatusOK || len(p.take()) != 1 {
		t.Fatalf("the control got %d %s", got.status, got.body)
	}
	of := func(u string) []string { return []string{method, "X-Forwarded-Uri: " + u} }
	for _, c := range []struct {
		name, path string
		headers    []string
		code       counterfoil.Code
	}{
		{"no method", "crm", []string{uri}, counterfoil.RequestMalformed},
		{"an empty method", "crm", []string{"X-Forwarded-Method: ", uri}, counterfoil.RequestMalformed},
		{"two methods", "crm", []string{method, method, uri}, counterfoil.RequestMalformed},
		{"two methods in one", "crm", []string{"X-Forwarded-Method: GET, POST", uri}, counterfoil.RequestMalformed},
		{"a method in small letters", "crm", []string{"X-Forwarded-Method: get", uri}, counterfoil.RequestMalformed},
		{"CONNECT", "crm", []string{"X-Forwarded-Method: CONNECT", uri}, counterfoil.RequestMalformed},
		{"no URI", "crm", []string{method}, counterfoil.RequestMalformed},
		{"two URIs", "crm", []string{method, uri, "X-Forwarded-Uri: /crm/admin"}, counterfoil.RequestMalformed},
		{"two URIs, spelled differently", "crm", []string{method, uri, "x-forwarded-URI: /crm/admin"}, counterfoil.RequestMalformed},
		{"another spelling of it alone", "crm", []string{method, "X_Forwarded_Uri: /crm/customers/7"}, counterfoil.RequestMalformed},
		{"nginx's own header alone", "crm", []string{method, "X-Original-Uri: /crm/customers/7"}, counterfoil.RequestMalformed},
		{"the absolute form", "crm", of("https://api.example.com/crm/customers/7"), counterfoil.RequestMalformed},
		{"an authority", "crm", of("//api.example.com/crm/customers/7"), counterfoil.RequestMalformed},
		{"an asterisk", "crm", of("*"), counterfoil.RequestMalformed},
		{"a fragment", "crm", of("/crm/customers/7#x"), counterfoil.RequestMalformed},
		{"a fragment in the query", "crm", of("/crm/customers/7?a#x"), counterfoil.RequestMalformed},
		{"a backslash", "crm", of(`/crm/customers\7`), counterfoil.RequestMalformed},
		{"a space", "crm", of("/crm/customers /7"), counterfoil.RequestMalformed},
		{"two URIs in one", "crm", of("/crm/customers/7, /crm/admin"), counterfoil.RequestMalformed},
		{"raw UTF-8", "crm", of("/crm/caf\xc3\xa9"), counterfoil.RequestMalformed},
		{"the public URL without a slash", "crm", of("/crm"), counterfoil.RequestMalformed},
		{"a neighbour", "crm", of("/crm-2/customers/7"), counterfoil.RequestMalformed},
		{"another case", "crm", of("/CRM/customers/7"), counterfoil.RequestMalformed},
		{"an escaped letter", "crm", of("/%63rm/customers/7"), counterfoil.RequestMalformed},
		{"above it", "crm", of("/customers/7"), counterfoil.RequestMalformed},
		{"an upgrade", "crm", []string{method, uri, "Upgrade: websocket"}, counterfoil.RequestMalformed},
		{"another method in a header", "crm", []string{method, uri, "X-HTTP-Method-Override: DELETE"}, counterfoil.RequestMalformed},
		{"spelled as some servers read it", "crm", []string{method, uri, "x_http_method_override: DELETE"}, counterfoil.RequestMalformed},
		{"spelled with both", "crm", []string{method, uri, "X-HTTP_Method-Override: DELETE"}, counterfoil.RequestMalformed},
		{"spelled with dots", "crm", []string{method, uri, "X.HTTP.Method~Override: DELETE"}, counterfoil.RequestMalformed},
		{"another URL in a header", "crm", []string{method, uri, "X-Original-URL: /crm/admin"}, counterfoil.RequestMalformed},
		{"no such resource", "nothing", of("/nothing/x"), counterfoil.ToolUnknown},
		{"no resource", "", of("/crm/x"), counterfoil.ToolUnknown},
		{"a path behind the resource", "crm/x", of("/crm/x"), counterfoil.ToolUnknown},
		{"a query behind the resource", "crm?x", of("/crm/x"), counterfoil.ToolUnknown},
	} {
		got := p.send("GET", "/forward-auth/"+c.path, "", c.headers...)
		if asked := p.take(); len(asked) != 0 || got.status != http.StatusForbidden {
			t.Errorf("%s: got %d, and %d questions", c.name, got.status, len(asked))
			continue
		}
		if code := got.code(t); code != c.code {
			t.Errorf("%s: got %s, want %s", c.name, code, c.code)
		}
		if counted := p.refused(); !slices.Equal(counted, []counterfoil.Code{c.code}) {
			t.Errorf("%s: counted %v", c.name, counted)
		}
	}
}

// TestWhereARequestComesFrom: X-Forwarded-For counts as far as trusted proxies wrote it.
func TestWhereARequestComesFrom(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	for said, want := range map[string]string{
		"203.0.113.9":               "203.0.113.9",
		"1.1.1.1, 203.0.113.9":      "203.0.113.9",
		"203.0.113.9, 127.0.0.3":    "203.0.113.9",
		"unknown":                   "",
		"203.0.113.9, unknown":      "",
		"127.0.0.2":                 "",
		"[2001:db8::1]:443":         "2001:db8::1",
		"1.1.1.1, ::ffff:127.0.0.1": "1.1.1.1",
	} {
		p.send("GET", "/forward-auth/crm", "", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/x", "X-Forwarded-For: "+said)
		asked := p.take()
		if len(asked) != 1 {
			t.Fatalf("%q was not asked about", said)
		}
		if got := asked[0].Source; got.IsValid() != (want != "") || got.IsValid() && got.String() != want {
			t.Errorf("%q: the source is %q, want %q", said, got, want)
		}
	}
}

// TestOnlyTrustedProxiesMayAsk: from anybody else the headers are the client's own.
func TestOnlyTrustedProxiesMayAsk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trusted string
		status  int
	}{{loopback, http.StatusOK}, {"10.0.0.0/8", http.StatusForbidden}} {
		p := newPoint(t, c.trusted)
		for name, got := range map[string]said{
			"forward-auth": p.send("GET", "/forward-auth/crm", "", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/x", "X-Forwarded-For: 10.0.0.1"),
			"ext-authz":    p.send("GET", "/ext-authz/crm/crm/x", "", "X-Forwarded-For: 10.0.0.1"),
		} {
			if got.status != c.status {
				t.Errorf("%s: peers of %s: got %d", name, c.trusted, got.status)
			}
			if c.status != http.StatusOK && got.code(t) != counterfoil.OriginForbidden {
				t.Errorf("%s: got %s", name, got.body)
			}
		}
		if asked := p.take(); (len(asked) == 2) != (c.status == http.StatusOK) {
			t.Errorf("peers of %s: %d questions", c.trusted, len(asked))
		}
		_, err := p.client.Check(t.Context(), check("crm", "GET", "/crm/x"))
		if (err == nil) != (c.status == http.StatusOK) {
			t.Errorf("gRPC: peers of %s: %v", c.trusted, err)
		}
	}
}

// TestNothingButAYesIsTakenForOne: to nginx, Traefik and Caddy every 2xx is a yes, to
// Envoy a 5xx is one where the filter fails open, and gRPC without a status is.
func TestNothingButAYesIsTakenForOne(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	for status, want := range map[int]struct{ forward, envoy, grpc int }{
		0:   {500, 403, 500},
		200: {403, 403, 403},
		202: {403, 403, 403}, // Prefer: respond-async
		204: {403, 403, 403},
		302: {403, 403, 403},
		400: {403, 400, 400},
		401: {401, 401, 401},
		403: {403, 403, 403},
		404: {403, 404, 404},
		405: {403, 405, 405},
		413: {403, 413, 413},
		429: {403, 429, 429},
		499: {403, 499, 403}, // Envoy's enumeration has none
		500: {500, 403, 500},
		503: {503, 403, 503},
	} {
		p.answer = func(counterfoil.Question) counterfoil.Answer {
			return counterfoil.Answer{
				Status: status, Body: []byte(`{"code":"approval_required","status":403}`),
				Header: http.Header{
					"Content-Type": {counterfoil.ProblemMedia}, "Www-Authenticate": {`DPoP algs="ES256"`, "Bearer"}, "Dpop-Nonce": {"n"},
					"Content-Length": {"3"}, "Transfer-Encoding": {"chunked"},
				},
				// Of an Allow alone.
				Set: http.Header{"Authorization": {"Bearer upstream"}},
			}
		}
		f := p.send("GET", "/forward-auth/crm", "", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/x")
		e := p.send("GET", "/ext-authz/crm/crm/x", "")
		g, err := p.client.Check(t.Context(), check("crm", "GET", "/crm/x"))
		if err != nil {
			t.Fatal(err)
		}
		no := g.GetDeniedResponse()
		if f.status != want.forward || e.status != want.envoy || no == nil || int(no.GetStatus().GetCode()) != want.grpc || g.GetStatus().GetCode() == 0 {
			t.Errorf("%d is answered %d, %d and %v, want %v", status, f.status, e.status, g, want)
		}
		if status == 0 {
			continue
		}
		for name, h := range map[string]http.Header{"forward-auth": f.header, "ext-authz": e.header, "gRPC": options(no.GetHeaders())} {
			if got := strings.Join(h.Values("WWW-Authenticate"), ", "); got != `DPoP algs="ES256", Bearer` || h.Get("DPoP-Nonce") != "n" || h.Get("Counterfoil-Code") != "approval_required" {
				t.Errorf("%d, %s: the headers are %v", status, name, h)
			}
			if h.Get("Authorization") != "" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("%d, %s: the headers are %v", status, name, h)
			}
		}
	}
}

// TestAYesSaysWhatGoesUpstream: what to set, and to Envoy what to remove.
func TestAYesSaysWhatGoesUpstream(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	f := p.send("GET", "/forward-auth/crm", "", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/x")
	if f.status != http.StatusOK || f.header.Get("Authorization") != "Bearer upstream" || f.body != "" || f.header.Get("Cache-Control") != "no-store" {
		t.Errorf("forward-auth: %+v", f)
	}
	e := p.send("POST", "/ext-authz/crm/crm/x", "")
	if e.status != http.StatusOK || e.header.Get("Authorization") != "Bearer upstream" || e.body != "" {
		t.Errorf("ext-authz: %+v", e)
	}
	// Envoy removes after it has set.
	if got := e.header.Get("X-Envoy-Auth-Headers-To-Remove"); got != "cookie,dpop" {
		t.Errorf("ext-authz: %q is removed", got)
	}
}

// TestExtAuthzAsksAboutTheRequest: method, path and headers as they are, and a body
// that counts as known where Envoy says that it is the whole one.
func TestExtAuthzAsksAboutTheRequest(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	const without, with = "/ext-authz/crm", "/ext-authz-with-body/crm"
	for _, c := range []struct {
		name, prefix, body string
		headers            []string
		known              bool
	}{
		{"no body is sent", without, "", nil, false},
		{"a body without a word about it", without, `{"a":1}`, nil, false},
		{"the whole body", without, `{"a":1}`, []string{"X-Envoy-Auth-Partial-Body: false"}, true},
		{"an empty body, the whole of it", without, "", []string{"X-Envoy-Auth-Partial-Body: false"}, true},
		{"its beginning", without, `{"a":1}`, []string{"X-Envoy-Auth-Partial-Body: true"}, false},
		{"two words about it", without, `{"a":1}`, []string{"X-Envoy-Auth-Partial-Body: false", "X-Envoy-Auth-Partial-Body: true"}, false},
		{"two equal words about it", without, `{"a":1}`, []string{"X-Envoy-Auth-Partial-Body: false", "X-Envoy-Auth-Partial-Body: false"}, false},
		{"another word", without, `{"a":1}`, []string{"X-Envoy-Auth-Partial-Body: False"}, false},
		{"every body is sent, and there is none", with, "", nil, true},
		{"every body is sent, this one whole", with, `{"a":1}`, []string{"X-Envoy-Auth-Partial-Body: false"}, true},
		{"every body is sent, of this one the beginning", with, `{"a":1}`, []string{"X-Envoy-Auth-Partial-Body: true"}, false},
		{"every body is sent, and nothing is said of this one", with, `{"a":1}`, nil, false},
	} {
		headers := append([]string{"Content-Length: " + strconv.Itoa(len(c.body)), "Authorization: DPoP t"}, c.headers...)
		got := p.send("POST", c.prefix+"/crm/customers/7?a=1", c.body, headers...)
		asked := p.take()
		if got.status != http.StatusOK || len(asked) != 1 {
			t.Errorf("%s: %d with %d questions: %s", c.name, got.status, len(asked), got.body)
			continue
		}
		q := asked[0]
		if q.Point != "ext_authz_http" || q.Resource != "crm" || q.Method != "POST" || q.Path != "/customers/7" || q.Query != "a=1" {
			t.Errorf("%s: asked %+v", c.name, q)
		}
		want := http.Header{"Authorization": {"DPoP t"}, "Content-Length": {strconv.Itoa(len(c.body))}}
		for _, h := range c.headers {
			name, value, _ := strings.Cut(h, ": ")
			want.Add(name, value)
		}
		if !reflect.DeepEqual(q.Header, want) {
			t.Errorf("%s: the headers are %v", c.name, q.Header)
		}
		if q.BodyKnown != c.known || c.known && string(q.Body) != c.body || !c.known && q.Body != nil {
			t.Errorf("%s: the body is %q, known %v", c.name, q.Body, q.BodyKnown)
		}
	}
	for _, c := range []struct {
		name, target, body string
		headers            []string
		status             int
	}{
		{"too large", without + "/crm/x", strings.Repeat("x", 1<<10+1), []string{"X-Envoy-Auth-Partial-Body: false"}, 413},
		{"no path", without, "", nil, 404},
		{"an asterisk behind the prefix", without + "*", "", nil, 404},
		{"not below the public URL", without + "/x", "", nil, 400},
		{"an upgrade", without + "/crm/x", "", []string{"Upgrade: websocket"}, 400},
		{"another method in a header", without + "/crm/x", "", []string{"X_Method-Override: DELETE"}, 400},
		{"elsewhere", "/", "", nil, 404},
	} {
		headers := append([]string{"Content-Length: " + strconv.Itoa(len(c.body))}, c.headers...)
		got := p.send("GET", c.target, c.body, headers...)
		if asked := p.take(); got.status != c.status || (len(asked) == 0) != (c.status != 200) {
			t.Errorf("%s: got %d with %d questions: %s", c.name, got.status, len(asked), got.body)
		}
	}
}

// TestWhatAProxyDidNotWriteIsTheClients: of the headers that look as if a proxy had written
// them, only those that this one writes are left out of the question; what is asked about
// is what has to be taken off.
func TestWhatAProxyDidNotWriteIsTheClients(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	forged := http.Header{}
	for _, name := range []string{
		"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
		"X-Forwarded-Client-Cert", "X-Envoy-External-Address", "X-Envoy-Internal", "X-Envoy-Retry-On", "X_Forwarded_User",
	} {
		forged[http.CanonicalHeaderKey(name)] = []string{"root"}
	}
	// Each of these is written by all of the proxies, these by those that ask of another
	// request.
	everywhere, asking := []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port"}, []string{"X-Forwarded-Host", "X-Forwarded-Prefix"}
	lines := []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/x"}
	r := check("crm", "GET", "/crm/x")
	said := r.GetAttributes().GetRequest().GetHttp().GetHeaders()
	for _, name := range slices.Concat(everywhere, asking, slices.Collect(maps.Keys(forged))) {
		lines = append(lines, name+": root")
		said[strings.ToLower(name)] = "root"
	}
	p.send("GET", "/forward-auth/crm", "", lines...)
	p.send("GET", "/ext-authz/crm/crm/x", "", lines...)
	if _, err := p.client.Check(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	asked := p.take()
	if len(asked) != 3 {
		t.Fatalf("%d questions", len(asked))
	}
	for _, q := range asked {
		for name := range forged {
			if !reflect.DeepEqual(q.Header[name], forged[name]) {
				t.Errorf("%s: %s is left out of %v", q.Point, name, q.Header)
			}
		}
		for _, name := range everywhere {
			if q.Header[name] != nil {
				t.Errorf("%s: %s is the proxy's", q.Point, name)
			}
		}
		for _, name := range asking {
			if (q.Header[name] == nil) != (q.Point == "forward_auth") {
				t.Errorf("%s: %s is %q", q.Point, name, q.Header[name])
			}
		}
	}
}
