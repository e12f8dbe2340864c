package attacks

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// webManifest declares an HTTP API behind a base path, whose secret is in a file.
const webManifest = `kind: Class
name: write
tier: routine
payload: full
---
kind: Resource
name: web
type: http
environment: prod
upstream: %s
credential: {header: Authorization, prefix: "Bearer ", file: web-token}
tools:
  - {name: list, method: GET, path: /things, class: write}
  - {name: get, method: GET, path: "/things/{id}", class: write}
  - {name: put, method: POST, path: "/things/{id}", class: write, consumes: [application/octet-stream, application/x-www-form-urlencoded]}
  - {name: pay, method: POST, path: /payments, class: write, fields: {amount: /body/amount}}
  - {name: rename, method: POST, path: "/things/{id}/name", class: write, schema: {type: object, properties: {path: {type: object, properties: {id: {type: string}}}, query: {type: object, properties: {tag: {type: array, items: {type: string}}, dry: {type: string}}, additionalProperties: false}, body: {type: object, properties: {name: {type: string}}, required: [name], additionalProperties: false}}, additionalProperties: false}}
---
kind: Policy
name: small-payments
cedar: |
  forbid (principal, action == Action::"call", resource == Tool::"web/pay")
  unless { context.fields has amount && context.fields.amount.lessThanOrEqual(decimal("50.0")) };
---
kind: Agent
name: webber
owner: ana
environment: prod
grants:
  - tools: ["web/*"]
`

// webSecret is what the API takes. It has characters that encodings change.
const webSecret = `s3cr/t+of"the\web?=1&end~`

// A webWorld is a world with an HTTP API behind the gateway, read byte by byte, and an
// agent that may call all of it.
type webWorld struct {
	*world
	*tap
	webber *actor
	token  string
	got    time.Time
}

func newWebWorld(t *testing.T, options ...counterfoiltest.Option) *webWorld {
	t.Helper()
	w := &webWorld{world: newWorld(t, options...), tap: newTap(t)}
	w.tap.plain = func(tapped) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"
	}
	w.secret("web-token", webSecret)
	w.Apply(fmt.Sprintf(webManifest, strings.TrimSuffix(w.tap.url, "/mcp")+"/api"))
	w.webber = w.actor("webber")
	return w
}

func (w *webWorld) webURL() string { return w.Issuer() + "/r/web" }

// callWeb makes an honest call: target is the path below the resource, with a query
// where there is one; a body is JSON.
func (w *webWorld) callWeb(method, target, body string) *call {
	w.T.Helper()
	if now := w.Clock.Now(); w.token == "" || now.Sub(w.got) > 2*time.Minute {
		w.token, w.got = w.tokenFor(w.webber, w.webURL()), now
	}
	path, _, _ := strings.Cut(target, "?")
	q := &call{
		method: method, url: w.webURL() + target, body: body, header: http.Header{"Accept": {"application/json"}}, scheme: "DPoP", token: w.token,
		proof: counterfoiltest.ForgeProof(w.T, w.webber.signer, method, w.webURL()+path, w.Clock.Now()),
	}
	if body != "" {
		q.header["Content-Type"] = []string{"application/json"}
	}
	return q
}

// sendTarget sends an honest call whose request line has that very target, which a
// client library would write in another way.
func (w *webWorld) sendTarget(q *call, target string) answer {
	w.T.Helper()
	x := w.wire(q)
	x.line = q.method + " " + target + " HTTP/1.1"
	answers := w.sendWire(x)
	if len(answers) == 0 {
		w.T.Fatalf("no answer to %q", x.line)
	}
	return answers[0]
}

// honestGet is the control of attacks on paths and queries.
func (w *webWorld) honestGet() answer { return w.sendCall(w.callWeb(http.MethodGet, "/things/7", "")) }

// wantNothing fails where something reached the API, or was allowed since then.
func (w *webWorld) wantNothing(from int64) {
	w.T.Helper()
	if got := w.seen(); len(got) > 0 {
		w.T.Errorf("the upstream saw %q", got)
	}
	for _, e := range w.since(from) {
		if e.Decision == "allow" {
			w.T.Errorf("entry %d (%s of %s) allows", e.Index, e.Kind, e.Tool)
		}
	}
}

// secret puts a file where the server reads secrets.
func (w *world) secret(name, value string) {
	w.T.Helper()
	if err := os.WriteFile(filepath.Join(w.Dir, "secrets", name), []byte(value), 0o600); err != nil {
		w.T.Fatal(err)
	}
}
