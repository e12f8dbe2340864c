package gateway_test

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
)

// ask puts an honest, signed question about a request whose body the proxy did not send,
// as change changes it.
func (c *client) ask(t *testing.T, g *gateway.Gateway, method, target string, change func(*counterfoil.Question)) counterfoil.Answer {
	t.Helper()
	path, query, _ := strings.Cut(target, "?")
	q := counterfoil.Question{
		RequestID: counterfoil.NewID("req_"), Point: "forward_auth", Resource: "crm", Method: method, Path: path, Query: query,
		Header: c.call(method, target, "", nil).Header, Source: netip.MustParseAddr("127.0.0.1"),
	}
	if change != nil {
		change(&q)
	}
	return g.Ask(context.WithoutCancel(t.Context()), q)
}

func codeOf(t *testing.T, a counterfoil.Answer) counterfoil.Code {
	t.Helper()
	if a.Allow {
		return ""
	}
	var p problem
	if err := json.Unmarshal(a.Body, &p); err != nil || a.Status < 400 || a.Set != nil {
		t.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	return p.Code
}

// TestABodyThatNobodySees: of a request whose body the proxy did not send, what says what
// the body is has to be there and to be good, and a form is none, as a field of it can
// change the method.
func TestABodyThatNobodySees(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
		for i := range reg.Resources["crm"].Tools {
			if tool := &reg.Resources["crm"].Tools[i]; tool.Name == "photo" {
				tool.Consumes = []string{"image/png", "multipart/form-data", "multipart/mixed", "application/x-www-form-urlencoded"}
			}
		}
	})
	const json, form = "application/json", "application/x-www-form-urlencoded"
	for _, of := range []struct {
		method, target string
		header         http.Header
		code           counterfoil.Code
	}{
		{"GET", "/customers/7", nil, ""},
		{"GET", "/customers/7", http.Header{"Content-Length": {"0"}}, ""},
		{"GET", "/customers/7", http.Header{"Content-Type": {json}}, counterfoil.RequestMalformed},
		{"GET", "/customers/7", http.Header{"Content-Type": {form}}, counterfoil.RequestMalformed},
		{"GET", "/customers/7", http.Header{"Content-Length": {"3"}}, counterfoil.RequestMalformed},
		{"GET", "/customers/7", http.Header{"Content-Length": {"0", "0"}}, counterfoil.RequestMalformed},
		{"GET", "/customers/7", http.Header{"Transfer-Encoding": {"chunked"}}, counterfoil.RequestMalformed},
		{"GET", "/customers/7", http.Header{"Content-Encoding": {"gzip"}}, counterfoil.RequestMalformed},
		{"POST", "/customers/7/notes", http.Header{"Content-Type": {json}}, ""},
		{"POST", "/customers/7/notes", http.Header{"Content-Type": {"application/json; charset=utf-8"}, "Content-Length": {"9"}}, ""},
		{"POST", "/customers/7/notes", nil, counterfoil.RequestMalformed},
		{"POST", "/customers/7/notes", http.Header{"Content-Length": {"0"}}, counterfoil.RequestMalformed}, // of the question, perhaps
		{"POST", "/customers/7/notes", http.Header{"Content-Type": {form}}, counterfoil.RequestMalformed},
		{"POST", "/customers/7/notes", http.Header{"Content-Type": {json, form}}, counterfoil.RequestMalformed},
		{"POST", "/customers/7/notes", http.Header{"Content-Type": {"text/plain"}}, counterfoil.RequestMalformed},
		{"POST", "/customers/7/notes", http.Header{"Content-Type": {json}, "Content-Encoding": {"gzip"}}, counterfoil.RequestMalformed},
		// That its tool takes a form of those that are seen changes nothing.
		{"PUT", "/customers/7/photo", http.Header{"Content-Type": {"image/png"}}, ""},
		{"PUT", "/customers/7/photo", http.Header{"Content-Type": {form}}, counterfoil.PolicyForbids},
		{"PUT", "/customers/7/photo", http.Header{"Content-Type": {"Application/X-WWW-Form-Urlencoded; charset=utf-8"}}, counterfoil.PolicyForbids},
		{"PUT", "/customers/7/photo", http.Header{"Content-Type": {"multipart/form-data; boundary=b"}}, counterfoil.PolicyForbids},
		{"PUT", "/customers/7/photo", http.Header{"Content-Type": {"multipart/mixed; boundary=b"}}, counterfoil.PolicyForbids},
		{"PUT", "/customers/7/photo", http.Header{"Content-Type": {"image/jpeg"}}, counterfoil.RequestMalformed},
		{"POST", "/upload", http.Header{"Content-Type": {"application/octet-stream"}}, ""},
		{"POST", "/upload", http.Header{"Content-Type": {form}}, counterfoil.RequestMalformed},
	} {
		a := c.ask(t, o.gateway, of.method, of.target, func(q *counterfoil.Question) {
			for name, values := range of.header {
				q.Header[name] = values
			}
		})
		if got := codeOf(t, a); got != of.code {
			t.Errorf("%s %s with %v: got %q, want %q", of.method, of.target, of.header, got, of.code)
		}
		if slices.Contains(a.Remove, "Content-Length") || slices.Contains(a.Remove, "Transfer-Encoding") || slices.Contains(a.Remove, "Content-Type") {
			t.Errorf("%s %s: %q are taken off", of.method, of.target, a.Remove)
		}
	}
}

// TestAStreamedForm is refused at the gateway itself, too, whatever the registry says.
func TestAStreamedForm(t *testing.T) {
	t.Parallel()
	_, c := newCRM(t, nil, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
		for i := range reg.Resources["crm"].Tools {
			if tool := &reg.Resources["crm"].Tools[i]; tool.Name == "upload" {
				tool.Consumes = append(tool.Consumes, "application/x-www-form-urlencoded")
			}
		}
	})
	for media, status := range map[string]int{"application/octet-stream": 200, "application/x-www-form-urlencoded": 403} {
		r := c.send("POST", "/upload", "_method=DELETE", func(r *http.Request) { r.Header.Set("Content-Type", media) })
		if r.status != status {
			t.Errorf("%s: got %d %s", media, r.status, r.body)
		}
	}
}

// TestNoWebSocketThroughAProxy: neither with the wish for one nor, as some proxies do not
// show it, without.
func TestNoWebSocketThroughAProxy(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	if a := c.ask(t, o.gateway, "GET", "/customers/7", nil); !a.Allow {
		t.Errorf("the control: %d %s", a.Status, a.Body)
	}
	for name, change := range map[string]func(*counterfoil.Question){
		"hidden": nil,
		"shown":  func(q *counterfoil.Question) { q.Header.Set("Upgrade", "websocket") },
		"known":  func(q *counterfoil.Question) { q.BodyKnown = true },
	} {
		if a := c.ask(t, o.gateway, "GET", "/chat", change); codeOf(t, a) != counterfoil.PolicyForbids {
			t.Errorf("%s: %v %d %s", name, a.Allow, a.Status, a.Body)
		}
	}
}

// TestASchemaThatMaySpeakOfTheBody: a question about a body that is not known passes only
// where the schema is certain to say nothing of it.
func TestASchemaThatMaySpeakOfTheBody(t *testing.T) {
	t.Parallel()
	const path = `"path":{"type":"object"}`
	for schema, passes := range map[string]bool{
		`{"properties":{` + path + `},"type":"object"}`:                                                                                true,
		`{"additionalProperties":false,"properties":{` + path + `},"type":"object"}`:                                                   true,
		`{"properties":{` + path + `,"body":{"type":"object"}},"type":"object"}`:                                                       false,
		`{"properties":{` + path + `,"body":true},"type":"object"}`:                                                                    false,
		`{"additionalProperties":true,"properties":{` + path + `},"type":"object"}`:                                                    false,
		`{"additionalProperties":{"properties":{"amount":{"type":"integer"}},"type":"object"},"properties":{` + path + `}}`:            false,
		`{"unevaluatedProperties":{"type":"object"},"properties":{` + path + `}}`:                                                      false,
		`{"patternProperties":{"^b":{"properties":{"amount":{"type":"integer"}}}},"properties":{` + path + `}}`:                        false,
		`{"allOf":[{"properties":{"body":{"properties":{"amount":{"type":"integer"}}}}}],"properties":{` + path + `}}`:                 false,
		`{"anyOf":[{"properties":{"body":{"type":"object"}}},{"properties":{"query":{"type":"object"}}}],"properties":{` + path + `}}`: false,
		`{"oneOf":[{"properties":{"body":{"type":"object"}}}],"properties":{` + path + `}}`:                                            false,
		`{"if":{"properties":{"body":{"type":"object"}}},"properties":{` + path + `}}`:                                                 false,
		`{"dependentSchemas":{"path":{"properties":{"body":{"type":"object"}}}},"properties":{` + path + `}}`:                          false,
		`{"$defs":{"a":{"properties":{"body":{"type":"object"},` + path + `}}},"$ref":"#/$defs/a"}`:                                    false,
		`{"propertyNames":{"enum":["path","body"]},"properties":{` + path + `}}`:                                                       false,
		`{"type":"object"}`: false,
	} {
		o, c := newCRM(t, nil, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
			for i := range reg.Resources["crm"].Tools {
				if tool := &reg.Resources["crm"].Tools[i]; tool.Name == "note" {
					tool.Schema = schema
				}
			}
		})
		a := c.ask(t, o.gateway, "POST", "/customers/7/notes", func(q *counterfoil.Question) { q.Header.Set("Content-Type", "application/json") })
		want := counterfoil.PolicyForbids
		if passes {
			want = ""
		}
		if got := codeOf(t, a); got != want {
			t.Errorf("%s: got %q, want %q: %s", schema, got, want, a.Body)
		}
		// A body that is known is held against the same schema.
		if a := c.ask(t, o.gateway, "POST", "/customers/7/notes", func(q *counterfoil.Question) { q.BodyKnown = true }); !a.Allow {
			t.Errorf("%s: without a body: %d %s", schema, a.Status, a.Body)
		}
	}
}

// TestWhatIsTakenOff: every header of the request that the gateway would not forward, and
// blindly those that say who asks or make it another request, in each spelling.
func TestWhatIsTakenOff(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Resources["crm"].Credential.Header = "X-Api-Key"
		for i := range reg.Resources["crm"].Tools {
			if tool := &reg.Resources["crm"].Tools[i]; tool.Name == "get_customer" {
				tool.Headers = []string{"X-User", "X-Tenant"}
			}
		}
	})
	a := c.ask(t, o.gateway, "GET", "/customers/7", func(q *counterfoil.Question) {
		for name, value := range map[string]string{
			"X-Forwarded-User": "root", "X-Forwarded-Client-Cert": "By=x", "X-Envoy-Retry-On": "5xx", "X.Remote.User": "root",
			"X-Tenant": "acme", "User-Agent": "t", "Accept": "*/*",
		} {
			q.Header[name] = []string{value}
		}
	})
	if !a.Allow {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	off := map[string]bool{}
	for _, name := range a.Remove {
		if off[name] {
			t.Errorf("%s is there twice", name)
		}
		off[name] = true
	}
	for _, name := range []string{
		"Authorization", "DPoP", "Cookie", "X-Forwarded-User", "X-Forwarded-Client-Cert", "X-Envoy-Retry-On", "X.Remote.User",
		// Whether they are there or not.
		"X-HTTP-Method-Override", "X_HTTP_Method_Override", "X-HTTP_Method-Override", "X_Original_URL", "Remote_User", "X_Forwarded_User", "X_Forwarded-Access_Token",
		"X_Api_Key", "X_Tenant", "X-User", "X_User",
	} {
		if !off[name] {
			t.Errorf("%s stays: %q are taken off", name, a.Remove)
		}
	}
	for _, name := range []string{"X-Tenant", "User-Agent", "Accept"} {
		if off[name] {
			t.Errorf("%s is taken off", name)
		}
	}
	if a := c.ask(t, o.gateway, "GET", "/customers/7", func(q *counterfoil.Question) { q.Header.Set("X-User", "u") }); !a.Allow || slices.Contains(a.Remove, "X-User") || !slices.Contains(a.Remove, "X_User") {
		t.Errorf("a header that the tool names: %+v", a)
	}
}
