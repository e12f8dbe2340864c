package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/gateway"
)

// crmTools are those of the resource crm.
var crmTools = []counterfoil.Tool{
	{Name: "get_customer", Class: "read", Method: "GET", Path: "/customers/{id}"},
	{Name: "list_customers", Class: "read", Method: "GET", Path: "/customers/"},
	{Name: "search", Class: "read", Method: "GET", Path: "/customers/search", Schema: `{"additionalProperties":false,"properties":{"query":{"additionalProperties":false,"properties":{"q":{"type":"string"},"tag":{"items":{"type":"string"},"type":"array"}},"type":"object"}},"type":"object"}`},
	{Name: "note", Class: "read", Method: "POST", Path: "/customers/{id}/notes", Headers: []string{"X-Trace-Id", "authorization", "X_Odd"}},
	{Name: "photo", Class: "read", Method: "PUT", Path: "/customers/{id}/photo", Consumes: []string{"image/png", "multipart/form-data"}},
	{Name: "upload", Class: "read", Method: "POST", Path: "/upload", Consumes: []string{"application/octet-stream"}, Stream: true},
	{Name: "chat", Class: "read", Method: "GET", Path: "/chat", WebSocket: true},
	{Name: "reset_password", Class: "reset", Method: "POST", Path: "/customers/{id}/password", Schema: `{"properties":{"body":{"additionalProperties":false,"properties":{"reason":{"type":"string"}},"type":"object"},"path":{"type":"object"}},"type":"object"}`},
	{Name: "wipe", Class: "never", Method: "DELETE", Path: "/customers/{id}"},
	{Name: "export", Method: "GET", Path: "/customers/export"}, // not listed
}

const crmSecret = "s3cret-of-the-crm"

// newCRM is a gateway in front of an HTTP API, with people who may allow resets.
func newCRM(t testing.TB, h http.Handler, change func(*office, *counterfoil.Registry, *gateway.Config)) (*office, *client) {
	t.Helper()
	if h == nil {
		h = http.HandlerFunc(echoing)
	}
	o, _ := newOffice(t, h, func(o *office, reg *counterfoil.Registry, cfg *gateway.Config) {
		crm := reg.Resources["crm"]
		crm.Upstream = strings.TrimSuffix(crm.Upstream, "/mcp") + "/api"
		crm.Credential = &counterfoil.UpstreamCredential{Header: "Authorization", Prefix: "Bearer ", File: "crm-token"}
		crm.Tools = append([]counterfoil.Tool(nil), crmTools...)
		cfg.Credentials = secrets(func(string) (counterfoil.Secret, error) { return counterfoil.NewSecret(crmSecret), nil })
		a := reg.Agents["payroll"]
		for _, tool := range crmTools {
			// What is not listed is granted, too, as whoever is granted all of it has.
			a.Grants[0].Tools = append(a.Grants[0].Tools, counterfoil.ToolID{Resource: "crm", Tool: tool.Name})
		}
		if change != nil {
			change(o, reg, cfg)
		}
	})
	o.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return o, o.web("payroll")
}

// echoing answers with the request that it got.
func echoing(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	rw.Header().Set("Content-Type", "application/json")
	b, err := json.Marshal(map[string]any{"line": r.Method + " " + r.RequestURI, "body": strings.ToValidUTF8(string(body), "?")}, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	rw.Write(b)
}

// A client is an actor of the resource crm.
type client struct {
	*actor
}

func (w *world) web(name string) *client {
	a := w.actor(name)
	a.scope = nil
	for _, tool := range crmTools {
		a.scope = append(a.scope, tool.Name)
	}
	return &client{a}
}

func (c *client) audience() string { return c.w.url + c.w.base + "/r/crm" }

// call makes an honest, signed request. change changes it after it is signed.
func (c *client) call(method, target, body string, change func(*http.Request)) *http.Request {
	c.w.t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(c.w.t.Context(), method, c.audience()+target, rd)
	if err != nil {
		c.w.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	token := c.token(func(t *credential.TokenClaims) { t.Audience = c.audience() })
	path, _, _ := strings.Cut(target, "?")
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header.Set("DPoP", c.proof(method, c.audience()+path, token))
	if change != nil {
		change(r)
	}
	return r
}

func (c *client) send(method, target, body string, change func(*http.Request)) reply {
	c.w.t.Helper()
	return c.do(c.call(method, target, body, change))
}

// wantAnswer checks an answer that the upstream gave.
func wantAnswer(t testing.TB, r reply, status int, body string) {
	t.Helper()
	if r.status != status || r.body != body {
		t.Fatalf("got %d %s, want %d %s", r.status, r.body, status, body)
	}
}
