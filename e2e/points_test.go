package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// behindProxies is an API that others' proxies stand before; %s is its public URL.
const behindProxies = `kind: Resource
name: crm
type: http
environment: prod
public_url: %s
credential: {header: Authorization, prefix: "Bearer ", file: crm-token}
tools:
  - {name: list_customers, method: GET, path: /customers, class: read}
  - {name: get_customer, method: GET, path: "/customers/{id}", class: read}
  - {name: put_note, method: PUT, path: "/customers/{id}/note", class: read}
  - {name: get_order, method: GET, path: "/orders/{id}", class: read}
  - {name: put_order, method: PUT, path: "/orders/{id}", class: read}
  - {name: reset_password, method: POST, path: "/customers/{id}/password", class: refund}
---
kind: Agent
name: desk
owner: ana
purpose: looks after customers
environment: prod
grants:
  - tools: [crm/list_customers, crm/get_customer, crm/put_note, crm/reset_password]
  - tools: [crm/get_order]
    when: "context.args.path.id != \"secret\""
  - tools: [crm/put_order]
    when: "context.args.body.amount < 100"
`

const crmSecret = "s3cret-of-the-crm-0123456789"

// asked is a system whose authz listener takes questions from this machine.
func asked(t *testing.T, more ...counterfoiltest.Option) *counterfoiltest.System {
	t.Helper()
	options := append([]counterfoiltest.Option{func(c *daemon.Config) {
		c.Authz.Listen, c.TrustedProxies, c.DPoPNonce = "127.0.0.1:0", []string{"127.0.0.0/8"}, "always"
	}}, more...)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock(), options...)
	if err := os.WriteFile(filepath.Join(sys.Dir, "secrets", "crm-token"), []byte(crmSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return sys
}

// An upstream keeps what reaches it.
type upstream struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, r.Clone(r.Context()))
	io.WriteString(w, "the customer")
}

func (u *upstream) take() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return seen
}

// TestNginxInFrontOfAnAPI: nginx from the distribution, configured as documented, asks
// about every request: with a bound token and a proof the call goes to the API, which
// gets its own secret and no token; a stolen token, a proof of before, a tool that needs
// people or whose rules read arguments, and a path that is none stop at nginx.
func TestNginxInFrontOfAnAPI(t *testing.T) {
	t.Parallel()
	sys := asked(t)
	up := &upstream{}
	at := peers.NginxAsDocumented(t, "http://"+sys.AuthzAddr(), sys.Upstream(up))
	public := at + "/crm"
	sys.Apply(fmt.Sprintf(behindProxies, public))
	desk := sys.Agent("desk")

	// The agent's own client, which is asked for a nonce on the way.
	resp, err := desk.For(public).Client().Get(public + "/customers/7")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	seen := up.take()
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "the customer" || len(seen) != 1 {
		t.Fatalf("got %d %q (%v), and %d requests reached the API", resp.StatusCode, body, err, len(seen))
	}
	if h := seen[0].Header; h.Get("Authorization") != "Bearer "+crmSecret || len(h["Dpop"]) > 0 || seen[0].RequestURI != "/crm/customers/7" {
		t.Errorf("the API got %s with %v", seen[0].RequestURI, h)
	}

	o := newHolder(t, sys, desk, public)
	for _, c := range []struct {
		name, method, path string
		change             func(h http.Header)
		status             int
		code               counterfoil.Code
	}{
		{"the control", "GET", "/customers/7", nil, 200, ""},
		{"without arguments", "GET", "/customers", nil, 200, ""},
		{"a method of its own", "PUT", "/customers/7/note", nil, 200, ""},
		{"perhaps a form, which can change the method", "PUT", "/customers/7/note", func(h http.Header) { h.Set("Content-Type", "application/x-www-form-urlencoded") }, 403, counterfoil.RequestMalformed},
		{"perhaps a form, of which nothing says so", "PUT", "/customers/7/note", func(h http.Header) { h.Del("Content-Type") }, 403, counterfoil.RequestMalformed},
		{"a body where there is none", "GET", "/customers/7", func(h http.Header) { h.Set("Content-Type", "application/json") }, 403, counterfoil.RequestMalformed},
		{"nothing", "GET", "/customers/7", func(h http.Header) { h.Del("Authorization"); h.Del("DPoP") }, 401, ""},
		{"the token as a bearer", "GET", "/customers/7", func(h http.Header) {
			h.Set("Authorization", strings.Replace(h.Get("Authorization"), "DPoP", "Bearer", 1))
			h.Del("DPoP")
		}, 401, counterfoil.BearerRefused},
		{"the token with a thief's key", "GET", "/customers/7", func(h http.Header) {
			h.Set("DPoP", o.proof(counterfoiltest.NewSigner(t, credential.Ed25519), "GET", "/customers/7"))
		}, 401, counterfoil.ProofKeyMismatch},
		{"a proof for another path", "GET", "/customers/7", func(h http.Header) { h.Set("DPoP", o.proof(desk.Signer, "GET", "/customers/8")) }, 401, counterfoil.ProofTarget},
		{"a proof for another method", "GET", "/customers/7", func(h http.Header) { h.Set("DPoP", o.proof(desk.Signer, "PUT", "/customers/7")) }, 401, counterfoil.ProofTarget},
		{"a tool whose grant reads the path", "GET", "/orders/7", nil, 200, ""},
		{"a path that its grant refuses", "GET", "/orders/secret", nil, 403, counterfoil.PolicyForbids},
		{"a tool whose grant reads the body", "PUT", "/orders/7", nil, 403, counterfoil.PolicyForbids},
		{"a tool that needs a person", "POST", "/customers/7/password", nil, 403, ""},
		{"a path that is no tool's", "GET", "/admin", nil, 403, counterfoil.ToolUnknown},
		{"a path with dots", "GET", "/customers/../admin", nil, 403, counterfoil.RequestMalformed},
		{"an escaped slash", "GET", "/customers/7%2fpassword", nil, 403, counterfoil.RequestMalformed},
		{"a method that the path has not", "DELETE", "/customers/7", nil, 403, counterfoil.MethodForbidden},
		{"another word for the method", "GET", "/customers/7", func(h http.Header) {
			h["X-Forwarded-Method"], h["X-Forwarded-Uri"], h["X-Forwarded-Host"] = []string{"POST"}, []string{"/crm/admin"}, []string{"evil.example"}
		}, 200, ""},
	} {
		h := o.header(c.method, c.path)
		if c.change != nil {
			c.change(h)
		}
		got := o.send(c.method, at+"/crm"+c.path, h)
		reached := len(up.take())
		if got.StatusCode != c.status || (reached == 1) != (c.status == 200) || c.code != "" && got.Header.Get("Counterfoil-Code") != string(c.code) {
			t.Errorf("%s: got %d %s, and %d requests reached the API", c.name, got.StatusCode, got.Header.Get("Counterfoil-Code"), reached)
		}
		if c.status == 401 && !strings.Contains(strings.Join(got.Header.Values("WWW-Authenticate"), ","), "DPoP") && c.code != counterfoil.BearerRefused {
			t.Errorf("%s: the challenge is %q", c.name, got.Header.Values("WWW-Authenticate"))
		}
	}

	// The same proof once more.
	h := o.header("GET", "/customers/7")
	if got := o.send("GET", public+"/customers/7", h.Clone()); got.StatusCode != 200 {
		t.Errorf("the control got %d", got.StatusCode)
	}
	if got := o.send("GET", public+"/customers/7", h); got.StatusCode != 401 || got.Header.Get("Counterfoil-Code") != string(counterfoil.ProofReplayed) || len(up.take()) != 1 {
		t.Errorf("a proof of before got %d %s", got.StatusCode, got.Header.Get("Counterfoil-Code"))
	}

	sys.Suspend("desk")
	if got := o.send("GET", public+"/customers/7", o.header("GET", "/customers/7")); got.StatusCode != 401 || len(up.take()) != 0 {
		t.Errorf("a suspended agent got %d", got.StatusCode)
	}

	const want = 7 // of the client, the five controls of the table, and the one before the proof was sent again
	passed, used := 0, 0
	for _, e := range sys.Entries() {
		switch {
		case e.Kind == ledger.CallFinished && e.Outcome == "passed_on":
			passed++
		case e.Kind == ledger.UpstreamCredentialUsed:
			used++
		}
	}
	if passed != want || used != want {
		t.Errorf("the ledger has %d calls that were passed on and %d uses of the secret, want %d", passed, used, want)
	}
	if strings.Contains(sys.Log.String(), crmSecret) || strings.Contains(string(sys.Export()), crmSecret) {
		t.Error("the secret is in the log or in the ledger")
	}
}

// TestOnlyProxiesReachTheListener: with a token and a proof that are good for the call
// somebody whose address is not a proxy's gets neither a yes nor the secret.
func TestOnlyProxiesReachTheListener(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trusted string
		status  int
		secret  string
	}{{"127.0.0.0/8", http.StatusOK, "Bearer " + crmSecret}, {"10.0.0.0/8", http.StatusForbidden, ""}} {
		sys := asked(t, func(cfg *daemon.Config) { cfg.TrustedProxies, cfg.DPoPNonce = []string{c.trusted}, "" })
		const public = "https://api.example.com/crm"
		sys.Apply(fmt.Sprintf(behindProxies, public))
		o := newHolder(t, sys, sys.Agent("desk"), public)
		for protocol, path := range map[string]string{"forward-auth": "/forward-auth/crm", "ext-authz": "/ext-authz/crm/crm/customers/7"} {
			h := o.header("GET", "/customers/7")
			h["X-Forwarded-Method"], h["X-Forwarded-Uri"], h["X-Forwarded-For"] = []string{"GET"}, []string{"/crm/customers/7"}, []string{"10.0.0.1"}
			got := o.send("GET", "http://"+sys.AuthzAddr()+path, h)
			if got.StatusCode != c.status || got.Header.Get("Authorization") != c.secret {
				t.Errorf("%s, with %s trusted: got %d with %v", protocol, c.trusted, got.StatusCode, got.Header)
			}
		}
	}
}

// A holder has a token and makes a proof for each request.
type holder struct {
	t      *testing.T
	sys    *counterfoiltest.System
	agent  *counterfoiltest.Agent
	public string
	token  string
	nonce  string
}

func newHolder(t *testing.T, sys *counterfoiltest.System, agent *counterfoiltest.Agent, public string) *holder {
	t.Helper()
	info, err := agent.For(public).Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &holder{t: t, sys: sys, agent: agent, public: public, token: info.Token.Reveal()}
}

func (o *holder) proof(signer *credential.Signer, method, path string) string {
	o.t.Helper()
	proof, err := credential.SignProof(signer, method, o.public+path, o.nonce, o.token, o.sys.Clock.Now())
	if err != nil {
		o.t.Fatal(err)
	}
	return proof
}

func (o *holder) header(method, path string) http.Header {
	path, _, _ = strings.Cut(path, "?")
	h := http.Header{"Authorization": {"DPoP " + o.token}, "Dpop": {o.proof(o.agent.Signer, method, path)}}
	if method != http.MethodGet {
		h.Set("Content-Type", "application/json")
	}
	return h
}

// send sends a request, and again where it is asked for a nonce.
func (o *holder) send(method, target string, h http.Header) *http.Response {
	o.t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.RequestURI, r.Header = "", h
	resp, err := http.DefaultTransport.RoundTrip(r.WithContext(o.t.Context()))
	if err != nil {
		o.t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.Header.Get("Counterfoil-Code") == string(counterfoil.NonceRequired) && o.nonce == "" {
		o.nonce = resp.Header.Get("DPoP-Nonce")
		if h.Get("DPoP") != "" {
			h.Set("DPoP", o.proof(o.agent.Signer, method, strings.TrimPrefix(r.URL.EscapedPath(), "/crm")))
		}
		return o.send(method, target, h)
	}
	return resp
}

// TestEnvoyAsksOverGRPC: through the generated client, as Envoy's filter does: with the
// body a tool that needs a person waits for one, and the same request goes on once it is
// approved; another body does not. Without the body it never does.
func TestEnvoyAsksOverGRPC(t *testing.T) {
	t.Parallel()
	sys := asked(t)
	const public = "https://api.example.com/crm"
	sys.Apply(fmt.Sprintf(behindProxies, public))
	desk := sys.Agent("desk")
	bo := sys.Approver("bo")
	o := newHolder(t, sys, desk, public)
	conn, err := grpc.NewClient(sys.AuthzAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := auth.NewAuthorizationClient(conn)

	var check func(method, path, body string, whole bool) *auth.CheckResponse
	check = func(method, path, body string, whole bool) *auth.CheckResponse {
		t.Helper()
		headers := map[string]string{":path": "/crm" + path, "accept": "*/*", "x-user": "admin", "user_id": "admin", "x-forwarded-user": "admin"}
		for name, values := range o.header(method, path) {
			headers[strings.ToLower(name)] = values[0]
		}
		r := &auth.AttributeContext_HttpRequest{Method: method, Path: "/crm" + path, Host: "evil.example", Headers: headers, RawBody: []byte(body)}
		if whole {
			headers["x-envoy-auth-partial-body"] = "false"
		}
		got, err := client.Check(t.Context(), &auth.CheckRequest{Attributes: &auth.AttributeContext{
			Source: &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
				Address: "203.0.113.9", PortSpecifier: &core.SocketAddress_PortValue{PortValue: 4000},
			}}}},
			Request:           &auth.AttributeContext_Request{Http: r},
			ContextExtensions: map[string]string{"resource": "crm"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if no := got.GetDeniedResponse(); o.nonce == "" && option(no.GetHeaders(), "dpop-nonce") != "" {
			o.nonce = option(no.GetHeaders(), "dpop-nonce")
			return check(method, path, body, whole)
		}
		return got
	}

	read := check("GET", "/customers/7?full=1", "", false)
	if ok := read.GetOkResponse(); ok == nil || option(ok.GetHeaders(), "authorization") != "Bearer "+crmSecret || !slices.Contains(ok.GetHeadersToRemove(), "dpop") || slices.Contains(ok.GetHeadersToRemove(), "authorization") {
		t.Fatalf("a read was answered with %v", read)
	}
	for name, removed := range map[string]bool{"x-user": true, "x_user": true, "user_id": true, "x-forwarded-user": true, "cookie": true, "accept": false, "content-type": false} {
		if slices.Contains(read.GetOkResponse().GetHeadersToRemove(), name) != removed {
			t.Errorf("%s: removed are %q", name, read.GetOkResponse().GetHeadersToRemove())
		}
	}

	const reset, pay = `{"reason":"lost"}`, "/customers/7/password"
	if got := check("POST", pay, reset, false); got.GetDeniedResponse() == nil {
		t.Errorf("without the body: %v", got)
	}
	asked := check("POST", pay, reset, true)
	var problem counterfoil.Problem
	no := asked.GetDeniedResponse()
	if err := ijson.UnmarshalLax([]byte(no.GetBody()), &problem); err != nil || no.GetStatus().GetCode() != 403 || problem.Code != counterfoil.ApprovalRequired || problem.Approval == nil {
		t.Fatalf("a tool that needs a person was answered with %v (%v)", asked, err)
	}
	if got := check("POST", pay, reset, true); got.GetOkResponse() != nil {
		t.Errorf("before it was approved: %v", got)
	}
	bo.Countersign(problem.Approval.ID)
	if got := check("POST", pay, `{"reason":"bored"}`, true); got.GetOkResponse() != nil {
		t.Errorf("another body on that approval: %v", got)
	}
	if got := check("POST", pay, reset, false); got.GetOkResponse() != nil {
		t.Errorf("without the body on that approval: %v", got)
	}
	if got := check("POST", pay, reset, true); got.GetOkResponse() == nil {
		t.Errorf("approved: %v", got)
	}
	if got := check("POST", pay, reset, true); got.GetOkResponse() != nil {
		t.Errorf("a second time on one approval: %v", got)
	}
	sys.Entries()
}

func option(said []*core.HeaderValueOption, name string) string {
	for _, o := range said {
		if o.GetHeader().GetKey() == name {
			return o.GetHeader().GetValue()
		}
	}
	return ""
}
