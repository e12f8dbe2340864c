package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// Other people's gateways that ask: PX1 to PX5.

const frontedURL = "https://api.example.com/crm"

// frontedManifest is an API that others' proxies stand before.
const frontedManifest = `kind: Resource
name: fronted
type: http
environment: prod
public_url: ` + frontedURL + `
credential: {header: Authorization, prefix: "Bearer ", file: fronted-token}
tools:
  - {name: get, method: GET, path: "/customers/{id}", class: read}
  - {name: reset, method: POST, path: "/customers/{id}/password", class: refund}
---
kind: Agent
name: desk
owner: ana
environment: prod
grants:
  - tools: ["fronted/*"]
`

const frontedSecret = "fronted-secret-0123456789"

// A frontWorld is a world that proxies ask, and an agent whose requests they hold.
type frontWorld struct {
	*world
	desk  *actor
	token string
	got   time.Time
}

func newFrontWorld(t *testing.T, trusted string) *frontWorld {
	t.Helper()
	w := &frontWorld{world: newWorld(t, func(c *daemon.Config) { c.Authz.Listen, c.TrustedProxies = "127.0.0.1:0", []string{trusted} })}
	w.secret("fronted-token", frontedSecret)
	w.Apply(frontedManifest)
	w.desk = w.actor("desk")
	return w
}

// asks is a proxy's question about desk's honest call of a path. The request that the
// proxy holds is in its headers or, for ext-authz, in its own line.
func (w *frontWorld) asks(protocol, method, path string) *call {
	w.T.Helper()
	if now := w.Clock.Now(); w.token == "" || now.Sub(w.got) > 2*time.Minute {
		w.token, w.got = w.tokenFor(w.desk, frontedURL), now
	}
	q := w.callWith(w.desk, w.token, frontedURL+path)
	q.method, q.body, q.header = method, "", http.Header{"X-Forwarded-For": {"203.0.113.9"}}
	if method != http.MethodGet {
		q.header["Content-Type"] = []string{"application/json"}
	}
	q.proof.Claims["htm"] = method
	q.url = "http://" + w.AuthzAddr() + protocol + "fronted"
	if protocol == forwardAuth {
		q.header["X-Forwarded-Method"], q.header["X-Forwarded-Uri"], q.method = []string{method}, []string{"/crm" + path}, http.MethodGet
	} else {
		q.url += "/crm" + path
	}
	return q
}

const forwardAuth, extAuthz = "/forward-auth/", "/ext-authz/"

// TestNobodyButAProxyAsks is PX1: with a token and a proof that are good for the call, and
// with every header by which a proxy says who it is, a peer that is no proxy gets neither a
// yes nor the upstream's credential.
func TestNobodyButAProxyAsks(t *testing.T) {
	t.Parallel()
	for trusted, taken := range map[string]bool{"127.0.0.0/8": true, "10.0.0.0/24": false} {
		w := newFrontWorld(t, trusted)
		for _, protocol := range []string{forwardAuth, extAuthz} {
			for _, spoofs := range []bool{false, true} {
				if taken && spoofs {
					continue // what a proxy sends along is another row's
				}
				q := w.asks(protocol, http.MethodGet, "/customers/7")
				if spoofs {
					said := q.header["X-Forwarded-Uri"]
					spoof(q.header)
					q.header["X-Forwarded-For"], q.header["X-Envoy-External-Address"], q.header["X-Forwarded-Uri"] = []string{"10.0.0.1"}, []string{"10.0.0.1"}, said
				}
				from := w.size()
				got := w.sendCall(q)
				switch {
				case taken && (got.status != http.StatusOK || got.header.Get("Authorization") != "Bearer "+frontedSecret):
					t.Errorf("PX1 %s by a proxy: %s", protocol, got)
				case !taken && (got.status != http.StatusForbidden || got.code != counterfoil.OriginForbidden || strings.Contains(got.String(), frontedSecret)):
					t.Errorf("PX1 %s by somebody else, spoofing: %v: %s", protocol, spoofs, got)
				}
				for _, e := range w.since(from) {
					if !taken && (e.Kind == ledger.CallDecided || e.Kind == ledger.UpstreamCredentialUsed) {
						t.Errorf("PX1 %s: entry %d is %s", protocol, e.Index, e.Kind)
					}
				}
			}
		}
		w.CheckLedger()
	}
}

// TestQuestionsOfProxies is PX2, PX3, PX4 and PX5: what is asked about is what the proxy holds, in one
// reading; its token and proof are verified as the gateway's own calls are.
func TestQuestionsOfProxies(t *testing.T) {
	t.Parallel()
	w := newFrontWorld(t, "127.0.0.0/8")
	set := func(name string, values ...string) func(q *call) { return func(q *call) { q.header[name] = values } }
	none := func(*call) {}
	for _, c := range []struct {
		row, name, protocol, method, path string
		edit                              func(q *call)
		status                            int
		code                              counterfoil.Code // empty: it is a yes
	}{
		{"PX2", "a neighbour of what was proved", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Uri", "/crm/customers/8"), 401, counterfoil.ProofTarget},
		{"PX2", "another method than was proved", forwardAuth, "GET", "/customers/7/password", set("X-Forwarded-Method", "POST"), 401, counterfoil.ProofTarget},
		{"PX2", "two URIs", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Uri", "/crm/customers/7", "/crm/admin"), 403, counterfoil.RequestMalformed},
		{"PX2", "the same URI twice", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Uri", "/crm/customers/7", "/crm/customers/7"), 403, counterfoil.RequestMalformed},
		{"PX2", "none", forwardAuth, "GET", "/customers/7", func(q *call) { delete(q.header, "X-Forwarded-Uri") }, 403, counterfoil.RequestMalformed},
		{"PX2", "in nginx's own header alone", forwardAuth, "GET", "/customers/7", func(q *call) {
			q.header["X-Original-Uri"] = q.header["X-Forwarded-Uri"]
			delete(q.header, "X-Forwarded-Uri")
		}, 403, counterfoil.RequestMalformed},
		{"PX2", "another spelling beside it", forwardAuth, "GET", "/customers/7", set("X_Forwarded_Uri", "/crm/admin"), 200, ""},
		{"PX2", "another host", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Host", "evil.example"), 200, ""},
		{"PX2", "another host's certificate", extAuthz, "GET", "/customers/7", set("X-Forwarded-Client-Cert", "Hash=00;URI=spiffe://evil"), 200, ""},
		{"PX2", "another method in a header", extAuthz, "GET", "/customers/7", set("X-Http-Method-Override", "DELETE"), 400, counterfoil.RequestMalformed},
		{"PX2", "spelled as some servers read it", forwardAuth, "GET", "/customers/7", set("x_http_method_override", "DELETE"), 403, counterfoil.RequestMalformed},
		{"PX3", "dots", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Uri", "/crm/customers/../customers/7"), 403, counterfoil.RequestMalformed},
		{"PX3", "an escaped slash", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Uri", "/crm/customers%2f7"), 403, counterfoil.RequestMalformed},
		{"PX3", "a path of a neighbour", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Uri", "/crm-2/customers/7"), 403, counterfoil.RequestMalformed},
		{"PX3", "another host in it", forwardAuth, "GET", "/customers/7", set("X-Forwarded-Uri", "//evil.example/crm/customers/7"), 403, counterfoil.RequestMalformed},
		{"PX3", "an escaped letter", extAuthz, "GET", "/customers/7", func(q *call) { q.url = strings.Replace(q.url, "/crm/", "/%63rm/", 1) }, 400, counterfoil.RequestMalformed},
		{"PX3", "no tool's", extAuthz, "GET", "/admin", none, 404, counterfoil.ToolUnknown},
		{"PX4", "a tool that needs people, without a body", forwardAuth, "POST", "/customers/7/password", none, 403, counterfoil.PolicyForbids},
		{"PX4", "such a tool, with a body that nobody vouches for", extAuthz, "POST", "/customers/7/password", func(q *call) { q.body = `{"reason":"lost"}` }, 403, counterfoil.PolicyForbids},
		{"PX4", "such a tool, with the beginning of a body", extAuthz, "POST", "/customers/7/password", func(q *call) {
			q.body, q.header["X-Envoy-Auth-Partial-Body"] = `{"reason":"lost"}`, []string{"true"}
		}, 403, counterfoil.PolicyForbids},
		{"PX5", "a bound token as bearer", forwardAuth, "GET", "/customers/7", func(q *call) { q.scheme, q.proofs = "Bearer", []string{} }, 401, counterfoil.BearerRefused},
		{"PX5", "a thief's key", extAuthz, "GET", "/customers/7", func(q *call) {
			q.proof.Signer, q.proof.Header["jwk"] = w.stranger, counterfoiltest.PublicJWK(t, w.stranger)
		}, 401, counterfoil.ProofKeyMismatch},
		{"PX5", "a proof for the proxy", forwardAuth, "GET", "/customers/7", func(q *call) { q.proof.Claims["htu"] = q.url }, 401, counterfoil.ProofTarget},
		{"PX5", "two proofs", extAuthz, "GET", "/customers/7", func(q *call) {
			q.proof.Claims["ath"] = credential.TokenHash(q.token)
			q.proofs = []string{q.proof.Compact(t), q.proof.Compact(t)}
		}, 401, counterfoil.ProofMalformed},
	} {
		t.Run(c.row+" "+c.name, func(t *testing.T) {
			defer w.in(t)()
			w.Clock.Advance(time.Second)
			if got := w.sendCall(w.asks(c.protocol, http.MethodGet, "/customers/7")); got.status != http.StatusOK {
				t.Fatalf("the question without the attack: %s", got)
			}
			q := w.asks(c.protocol, c.method, c.path)
			w.renew()
			c.edit(q)
			from := w.size()
			got := w.sendCall(q)
			yes := got.status == http.StatusOK && got.header.Get("Authorization") == "Bearer "+frontedSecret
			if got.status != c.status || yes != (c.code == "") || !yes && (got.code != c.code || strings.Contains(fmt.Sprint(got), frontedSecret)) {
				t.Errorf("got %s, want %d %s", got, c.status, c.code)
			}
			used := 0
			for _, e := range w.since(from) {
				if e.Kind == ledger.UpstreamCredentialUsed || e.Decision == ledger.Allow {
					used++
				}
			}
			if yes != (used == 2) || !yes && used > 0 {
				t.Errorf("%d entries let it through", used)
			}
		})
	}
	// One proof is one yes, whoever asks and by which protocol.
	for _, first := range []string{forwardAuth, extAuthz} {
		w.Clock.Advance(time.Second)
		q, again := w.asks(first, http.MethodGet, "/customers/7"), w.asks(forwardAuth, http.MethodGet, "/customers/7")
		if got := w.sendCall(q); got.status != http.StatusOK {
			t.Fatalf("PX5 the first time: %s", got)
		}
		again.proofs = q.proofs
		for range 2 {
			if got := w.sendCall(again); got.status != http.StatusUnauthorized || got.code != counterfoil.ProofReplayed || got.header.Get("Authorization") != "" {
				t.Errorf("PX5 a proof of before, after %s: %s", first, got)
			}
			w.Restart()
			again.url = "http://" + w.AuthzAddr() + forwardAuth + "fronted"
		}
	}
	w.CheckLedger()
}
