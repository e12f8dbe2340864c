package authority_test

import (
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// agents are those of the tests of tasks and revocation: one that works, one that
// opens tasks for it, one that speaks for the bank, and one that has nothing to do with
// them.
const agents = bank + `servers: [teller]
---
kind: Resource
name: shop
type: mcp
environment: prod
upstream: http://127.0.0.1:1/shop
tools: [{name: order, class: read}, {name: list, class: read}]
---
kind: Agent
name: payroll
owner: ana
environment: prod
grants: [{tools: [bank/get_balance, bank/pay, shop/order]}]
tasks: {max_duration: 2h, max_calls: 100, orchestrators: [planner]}
---
kind: Agent
name: planner
owner: bo
environment: prod
grants: [{tools: [bank/get_balance]}]
---
kind: Agent
name: teller
owner: bo
environment: prod
---
kind: Agent
name: stranger
owner: cy
environment: prod
grants: [{tools: [bank/get_balance]}]
`

// A world is a house with those agents, each with an instance.
type world struct {
	*house
	a    *authority.Authority
	keys map[string]*credential.Signer
}

func newWorld(t *testing.T, edit ...func(*authority.Config)) *world {
	t.Helper()
	h := newHouse(t)
	w := &world{house: h, a: h.authority(edit...), keys: map[string]*credential.Signer{}}
	h.mustApply(w.a, agents)
	for _, name := range []string{"payroll", "planner", "teller", "stranger"} {
		w.keys[name] = h.newSigner()
		h.enrol(w.a, name, w.keys[name])
	}
	return w
}

// form is how an agent authenticates.
func (w *world) form(agent string, more url.Values) url.Values {
	w.t.Helper()
	f := url.Values{"client_assertion_type": {authority.AssertionTypeJWT}, "client_assertion": {w.assertion(agent, w.keys[agent])}}
	maps.Copy(f, more)
	return f
}

// ask asks for a token of a resource, or of the issuer when it is empty.
func (w *world) ask(agent, res string, more url.Values) (authority.TokenResponse, error) {
	w.t.Helper()
	at := issuer
	if res != "" {
		at += "/r/" + res
	}
	f := w.form(agent, more)
	f.Set("grant_type", authority.GrantClientCredentials)
	f.Set("resource", at)
	return w.a.Issue(w.t.Context(), authority.TokenRequest{Form: f, Proof: []string{w.proof(w.keys[agent], "/oauth/token", "")}})
}

func (w *world) proof(key *credential.Signer, path, token string) string {
	w.t.Helper()
	proof, err := credential.SignProof(key, http.MethodPost, issuer+path, "", token, w.clock.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return proof
}

func (w *world) mustAsk(agent, res string, more url.Values) authority.TokenResponse {
	w.t.Helper()
	token, err := w.ask(agent, res, more)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// use shows a token with a proof, as at the door of a resource.
func (w *world) use(token, res string, key *credential.Signer) (counterfoil.Caller, error) {
	w.t.Helper()
	at, path := issuer, "/tasks"
	if res != "" {
		at, path = issuer+"/r/"+res, "/r/"+res
	}
	header := http.Header{"Authorization": {"DPoP " + token}, "Dpop": {w.proof(key, path, token)}}
	return w.door.Check(w.t.Context(), resource.Request{Method: http.MethodPost, URL: issuer + path, Resource: at, Header: header})
}

// caller is who an agent is with a token for the issuer, of a task unless it is empty.
func (w *world) caller(agent, task string) counterfoil.Caller {
	w.t.Helper()
	more := url.Values{}
	if task != "" {
		more.Set("task", task)
	}
	c, err := w.use(w.mustAsk(agent, "", more).AccessToken, "", w.keys[agent])
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) open(c counterfoil.Caller, req authority.TaskRequest) counterfoil.Task {
	w.t.Helper()
	if req.Purpose == "" {
		req.Purpose = "a run"
	}
	t, err := w.a.OpenTask(w.t.Context(), c, req)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// wantCode fails unless err is a refusal with that code; the empty code is no error.
func wantCode(t *testing.T, name string, err error, want counterfoil.Code) {
	t.Helper()
	switch {
	case want == "" && err == nil:
	case err == nil:
		t.Errorf("%s: done, want %s", name, want)
	case want == "":
		t.Errorf("%s: %v", name, err)
	case counterfoil.CodeOf(err) != want:
		t.Errorf("%s: %v, want %s", name, err, want)
	}
}

func (h *house) last(kind ledger.Kind) *ledger.Entry {
	h.t.Helper()
	all := h.entries(kind)
	if len(all) == 0 {
		h.t.Fatalf("there is no %s entry", kind)
	}
	return all[len(all)-1]
}

var somewhere = netip.MustParseAddr("192.0.2.7")
