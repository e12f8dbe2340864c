package web_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
)

// An anOperation is a row of the OpenAPI document.
type anOperation struct {
	method, path string
	For          string `json:"x-counterfoil-for"`
	Responses    map[string]any
	Security     []any
}

// document reads openapi.json as anybody gets it.
func (s *system) document() []anOperation {
	s.t.Helper()
	a := (&browser{s: s}).get("/api/v1/openapi.json")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]anOperation
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || a.status != 200 || doc.OpenAPI != "3.1.0" {
		s.t.Fatalf("openapi.json: %d %v %.200s", a.status, err, a.body)
	}
	var out []anOperation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			o := doc.Paths[path][method]
			o.method, o.path = strings.ToUpper(method), path
			out = append(out, o)
		}
	}
	return out
}

// may is who may do what: the review's list, beside which the document is held.
var may = map[string]string{
	"GET /api/v1/openapi.json":               "anyone",
	"POST /api/v1/enrolments/options":        "anyone",
	"POST /api/v1/enrolments":                "anyone",
	"POST /api/v1/sessions/options":          "anyone",
	"POST /api/v1/sessions":                  "anyone",
	"GET /api/v1/session":                    "person",
	"DELETE /api/v1/session":                 "person",
	"GET /api/v1/approvals":                  "person",
	"GET /api/v1/approvals/{id}":             "person",
	"POST /api/v1/approvals/{id}/challenge":  "person",
	"POST /api/v1/approvals/{id}/signatures": "person",
	"POST /api/v1/approvals/{id}/cancel":     "admin",
	"POST /api/v1/approvals/{id}/reconcile":  "admin",
	"GET /api/v1/people":                     "reader",
	"GET /api/v1/agents":                     "reader",
	"GET /api/v1/agents/{name}":              "reader",
	"POST /api/v1/agents/{name}/suspend":     "admin",
	"POST /api/v1/agents/{name}/offboard":    "admin",
	"GET /api/v1/tasks":                      "reader",
	"POST /api/v1/tasks/{id}/cancel":         "admin",
	"GET /api/v1/revocations":                "reader",
	"POST /api/v1/revocations":               "admin",
	"GET /api/v1/revocations/{index}":        "reader",
	"GET /api/v1/bearer":                     "reader",
	"GET /api/v1/ledger/entries":             "reader",
	"GET /api/v1/ledger/entries/{index}":     "reader",
	"GET /api/v1/ledger/receipts/{index}":    "reader",
	"GET /api/v1/ledger/chain":               "reader",
	"GET /api/v1/health":                     "reader",
}

// bodies are what an honest client sends where something has to be sent.
var bodies = map[string]string{
	"POST /api/v1/approvals/{id}/challenge":  `{"decision":"approve"}`,
	"POST /api/v1/approvals/{id}/signatures": `{"decision":"approve","credential":{}}`,
	"POST /api/v1/approvals/{id}/cancel":     `{"reason":"not needed"}`,
	"POST /api/v1/approvals/{id}/reconcile":  `{"happened":false,"reason":"looked"}`,
	"POST /api/v1/agents/{name}/suspend":     `{"reason":"test"}`,
	"POST /api/v1/agents/{name}/offboard":    `{"reason":"test"}`,
	"POST /api/v1/tasks/{id}/cancel":         `{"reason":"test"}`,
	"POST /api/v1/revocations":               `{"kind":"agent","id":"other","reason":"test"}`,
}

// ask sends what an operation takes, for an approval and an agent.
func (b *browser) ask(o anOperation, id, agent string) answer {
	if strings.HasSuffix(o.path, "/offboard") {
		agent = "gardener" // whom nothing else is asked about
	}
	index := "0"
	if strings.Contains(o.path, "/revocations/") {
		index = b.s.revocation()
	}
	if strings.Contains(o.path, "/tasks/") {
		id = b.s.openTask()
	}
	path := strings.NewReplacer("{id}", id, "{name}", agent, "{index}", index).Replace(o.path)
	if strings.HasSuffix(path, "/chain") {
		path += "?approval=" + id
	}
	var body []byte
	if text, ok := bodies[o.method+" "+o.path]; ok {
		body = []byte(text)
	}
	return b.send(b.request(o.method, path, body))
}

// revocation is the index of an entry that revokes something, made for the first who
// asks.
func (s *system) revocation() string {
	s.t.Helper()
	all := s.entries(ledger.Revoked)
	if len(all) == 0 {
		a := s.admin("POST", "/api/v1/revocations", map[string]any{"kind": "resource", "id": "empty", "reason": "test"})
		if a.status != 200 {
			s.t.Fatalf("revoking: %d %s", a.status, a.body)
		}
		return a.member("index")
	}
	return fmt.Sprint(all[0].Index)
}

// openTask is the id of an open task of payroll's.
func (s *system) openTask() string {
	s.t.Helper()
	now := s.clock.Now()
	all := s.store.Instances("payroll")
	if len(all) == 0 {
		s.t.Fatal("payroll has no instance")
	}
	task := counterfoil.Task{
		ID: counterfoil.NewID("tsk_"), Agent: "payroll", Opener: "payroll", Instance: all[0].ID, Purpose: "the salaries of March",
		Opened: now, Deadline: now.Add(time.Hour),
	}
	live := counterfoil.Live{Agent: "payroll", Instance: all[0].ID, Epoch: s.store.AgentState("payroll").Epoch}
	if err := s.store.OpenTask(s.t.Context(), task, live, &ledger.Entry{Kind: ledger.TaskOpened, Agent: "payroll", Task: task.ID}); err != nil {
		s.t.Fatal(err)
	}
	return task.ID
}

// TestWhoMayDoWhat walks the OpenAPI document with everybody who may not (AD1,
// AP16), and with those who may.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	bo, dan, eve, aud, adm := s.loggedIn("bo"), s.loggedIn("dan"), s.loggedIn("eve"), s.loggedIn("aud"), s.loggedIn("adm")
	late := s.loggedIn("cy")
	s.clock.Advance(web.SessionIdle)
	for _, b := range []*browser{bo, dan, eve, aud, adm} {
		b.login()
	}
	id := s.held(k, "12.50")
	fresh := func() string { // each call is another one
		s.asked++
		return s.held(k, fmt.Sprintf("%d.00", s.asked))
	}
	doc := s.document()
	if len(doc) != len(may) {
		t.Errorf("the document has %d operations, the list %d", len(doc), len(may))
	}
	for _, o := range doc {
		name := o.method + " " + o.path
		if may[name] == "" || o.For != may[name] || (len(o.Security) == 0) != (o.For == "anyone") {
			t.Errorf("%s is for %q with %v, want %q", name, o.For, o.Security, may[name])
		}
		if o.For == "anyone" {
			continue
		}
		ends := strings.HasSuffix(o.path, "/session") && o.method == "DELETE"
		none := (&browser{s: s})
		wantProblem(t, none.ask(o, id, "free"), 401, counterfoil.SessionRequired)
		wantProblem(t, late.ask(o, id, "free"), 401, counterfoil.SessionRequired)
		for _, header := range s.agentHeaders(k, o) {
			r := none.request(o.method, strings.NewReplacer("{id}", id, "{name}", "free", "{index}", "0").Replace(o.path), nil)
			maps.Copy(r.Header, header)
			wantProblem(t, none.send(r), 401, counterfoil.SessionRequired)
		}
		forged := *adm
		forged.cookie = "counterfoil_session=" + counterfoil.NewHandle(counterfoil.HandleSession).Reveal()
		wantProblem(t, forged.ask(o, id, "free"), 401, counterfoil.SessionRequired)
		switch {
		case may[name] == "admin":
			for _, b := range []*browser{dan, eve, bo, aud} {
				wantProblem(t, b.ask(o, id, "free"), 403, counterfoil.RoleRequired)
			}
		case may[name] == "reader":
			for _, b := range []*browser{dan, eve, bo} {
				wantProblem(t, b.ask(o, id, "free"), 403, counterfoil.RoleRequired)
			}
			wantAllowed(t, name, aud.ask(o, id, "free"))
		case strings.Contains(o.path, "{id}"):
			for _, b := range []*browser{dan, eve} {
				wantProblem(t, b.ask(o, id, "free"), 404, counterfoil.ToolUnknown)
				wantProblem(t, b.ask(o, counterfoil.NewID("apr_"), "free"), 404, counterfoil.ToolUnknown)
			}
			wantAllowed(t, name, bo.ask(o, id, "free"))
			continue
		}
		if o.path == "/api/v1/approvals" {
			if a := dan.get(o.path); a.status != 200 || strings.Contains(a.body, id) {
				t.Errorf("dan's list: %d %s", a.status, a.body)
			}
			if a := bo.get(o.path); a.status != 200 || !strings.Contains(a.body, id) {
				t.Errorf("bo's list: %d %s", a.status, a.body)
			}
		}
		if !ends {
			wantAllowed(t, name, adm.ask(o, fresh(), "free"))
		}
	}
}

// agentHeaders are an agent's ways of saying who it is, its token with a fresh proof
// among them.
func (s *system) agentHeaders(k agentKey, o anOperation) []http.Header {
	s.t.Helper()
	a := s.token(k, field("resource", s.issuer))
	token := a.member("access_token")
	proof, err := credential.SignProof(k.signer, o.method, s.manage+o.path, "", token, s.clock.Now())
	if err != nil || token == "" {
		s.t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	return []http.Header{
		{"Authorization": {"DPoP " + token}, "Dpop": {proof}},
		{"Authorization": {"Bearer " + token}},
		{"Cookie": {"counterfoil_session=" + token}},
	}
}

// wantAllowed fails the test when a request did not get past the question who asks.
func wantAllowed(t *testing.T, name string, a answer) {
	t.Helper()
	switch counterfoil.Code(a.member("code")) {
	case counterfoil.SessionRequired, counterfoil.RoleRequired, counterfoil.OriginForbidden, counterfoil.ToolUnknown, counterfoil.MethodForbidden,
		counterfoil.RequestMalformed, counterfoil.PayloadMalformed, counterfoil.Internal:
		t.Errorf("%s: %d %s", name, a.status, a.body)
	}
}

// forgeries are bodies that say that something is approved.
var forgeries = []string{
	`{"decision":"approve"}`,
	`{"decision":"approve","credential":{}}`,
	`{"decision":"approve","credential":{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AA","signature":"AA","userHandle":"AA"},"clientExtensionResults":{}}}`,
	`{"decision":"approve","credential":null}`,
	`{"decision":"approve","approver":"bo","state":"approved","signatures":[{"person":"bo"},{"person":"cy"}]}`,
	`{"state":"approved"}`,
	`{"approved":true,"yes":true,"confirm":true}`,
	`{"happened":true,"reason":"approved","state":"approved"}`,
	`{"files":[{"name":"a.yaml","data":"kind: Approval\nname: x\nstate: approved\n"}],"dry_run":false}`,
	`[{"op":"replace","path":"/state","value":"approved"}]`,
	`"approved"`,
	`null`,
}

// TestNothingButAnAssertionApproves walks everything that the three handlers answer,
// with every method, and tries to approve without one. Afterwards the approval waits
// still, and two people's assertions approve it.
func TestNothingButAnAssertionApproves(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	bo, cy, adm := s.loggedIn("bo"), s.loggedIn("cy"), s.loggedIn("adm")
	id := s.held(k, "12.50")
	fill := func(path string) string {
		return strings.NewReplacer("{id}", id, "{name}", id, "{index}", "0", "{kind}", "approvals", "{path...}", "approvals/"+id,
			"{resource}", "bank", "{below...}", id, "{tile...}", id).Replace(path)
	}
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "APPROVE"}
	paths := map[string]bool{"/api/v1/approvals/{id}/approve": true, "/api/v1/approvals/{id}/state": true, "/approvals/{id}/approve": true}
	for _, o := range s.document() {
		paths[o.path] = true
	}
	for _, h := range []http.Handler{s.handlers.Admin, unnamed(s.handlers.Public), unnamed(s.handlers.Management)} {
		for _, r := range web.Routes(h) {
			_, path, _ := strings.Cut(r, " ")
			paths[path] = true
		}
	}
	tried := 0
	try := func(what string, a answer) {
		tried++
		if counterfoil.Code(a.member("code")) == counterfoil.Internal {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	for path := range paths {
		if strings.HasPrefix(path, "/metrics") || strings.HasSuffix(path, "/export") {
			continue
		}
		for _, method := range methods {
			if method == "DELETE" && path == "/api/v1/session" {
				continue // it would log the others out
			}
			for _, body := range forgeries {
				if method == "GET" || method == "HEAD" || method == "DELETE" {
					body = ""
				}
				for _, query := range []string{"", "?decision=approve&state=approved"} {
					for _, b := range []*browser{bo, cy, adm, {s: s}} {
						r := b.request(method, fill(path)+query, []byte(body))
						if body == "" {
							r = b.request(method, fill(path)+query, nil)
						}
						if b.cookie == "" {
							maps.Copy(r.Header, s.oneToken(k))
						}
						try(method+" "+path, b.send(r))
					}
					r := httptest.NewRequest(method, fill(path)+query, strings.NewReader(body))
					r.Header.Set("Content-Type", "application/json")
					try("socket "+method+" "+path, serve(s.handlers.Admin, asActor(r)))
					p := httptest.NewRequest(method, fill(path)+query, strings.NewReader(body))
					maps.Copy(p.Header, s.oneToken(k))
					p.Header.Set("Content-Type", "application/json")
					try("public "+method+" "+path, serve(s.handlers.Public, p))
				}
				if body == "" {
					break
				}
			}
		}
	}
	if got := s.state(id); got != "pending" || tried < 1000 {
		t.Fatalf("after %d attempts the approval is %s", tried, got)
	}
	for i, b := range []*browser{bo, cy} {
		b.login()
		a := b.decide(id, "approve")
		if want := []string{"pending", "approved"}[i]; a.status != 200 || a.member("state") != want {
			t.Fatalf("%s signs: %d %s", b.person, a.status, a.body)
		}
	}
	if got := s.state(id); got != "approved" {
		t.Errorf("after two assertions: %s", got)
	}
}

// TestTheManagementAPIIsOnItsListenerAlone (AD2, AD8): not on the data plane's port,
// however the path is spelled.
func TestTheManagementAPIIsOnItsListenerAlone(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	adm := s.loggedIn("adm")
	paths := []string{
		"/", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/debug/vars", "/oauth/../api/v1/agents", "//api/v1/agents", "/api//v1/agents",
		"/%61pi/v1/agents", "/api/v1/%2e%2e/v1/agents", "/api/v1/agents/", "/ledger/tile/../../api/v1/agents", "/r/../api/v1/agents",
	}
	for _, o := range s.document() {
		paths = append(paths, strings.NewReplacer("{id}", "apr_AAAAAAAAAAAAAAAAAAAAAA", "{name}", "payroll", "{index}", "0").Replace(o.path))
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			if strings.HasPrefix(path, "/r/") {
				continue // the gateway's
			}
			r := adm.request(method, path, nil)
			wantProblem(t, serve(s.handlers.Public, r), 404, counterfoil.ToolUnknown)
		}
	}
	// Nor does another spelling open it where it is.
	for _, path := range paths[4:13] {
		if a := adm.get(path); a.status != 404 {
			t.Errorf("%s: %d %.100s", path, a.status, a.body)
		}
	}
	if a := adm.get("/api/v1/agents"); a.status != 200 {
		t.Errorf("as it is spelled: %d %s", a.status, a.body)
	}
	// What says how the server is, is for this machine alone.
	wantProblem(t, adm.get("/metrics"), 404, counterfoil.ToolUnknown)
}

// TestBodiesAreTakenAsTheyAre (AD3): no member more, none null, none twice, no other
// kind of value.
func TestBodiesAreTakenAsTheyAre(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	adm, bo := s.loggedIn("adm"), s.loggedIn("bo")
	id := s.held(k, "12.50")
	send := func(b *browser, path, body string) answer { return b.send(b.request("POST", path, []byte(body))) }
	suspend, challenge := "/api/v1/agents/free/suspend", "/api/v1/approvals/"+id+"/challenge"
	for _, c := range []struct {
		b    *browser
		path string
		body string
		code counterfoil.Code
	}{
		{adm, suspend, `{"reason":"x","role":"admin"}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"x","tenant_id":"1"}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"x","revoked":false}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"x","__proto__":{"role":"admin"}}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"x","constructor":{}}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":null}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":["x"]}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":{"0":"x"}}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":7}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"Reason":"x"}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"x","reason":"y"}`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"x","re\u0061son":"y"}`, counterfoil.PayloadMalformed},
		{adm, suspend, `[{"reason":"x"}]`, counterfoil.PayloadMalformed},
		{adm, suspend, `null`, counterfoil.PayloadMalformed},
		{adm, suspend, `true`, counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"x"}{}`, counterfoil.PayloadMalformed},
		{adm, suspend, ``, counterfoil.PayloadMalformed},
		{adm, suspend, "\xef\xbb\xbf{}", counterfoil.PayloadMalformed},
		{adm, suspend, `{"reason":"` + "\xff" + `"}`, counterfoil.PayloadMalformed},
		{adm, suspend + "?role=admin", `{"reason":"x"}`, counterfoil.RequestMalformed},
		{bo, challenge, `{"decision":"approve","approver":"cy"}`, counterfoil.PayloadMalformed},
		{bo, challenge, `{"decision":"approve","ceremony":"x","challenge":"x"}`, counterfoil.PayloadMalformed},
		{bo, challenge, `{"decision":["approve"]}`, counterfoil.PayloadMalformed},
		{bo, challenge, `{"decision":"approve","decision":"deny"}`, counterfoil.PayloadMalformed},
		{bo, "/api/v1/approvals/" + id + "/signatures", `{"decision":"approve","credential":null}`, counterfoil.PayloadMalformed},
	} {
		a := send(c.b, c.path, c.body)
		if a.status != 400 || a.member("code") != string(c.code) {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	for _, query := range []string{"state=pending&state=denied", "state=", "state=x", "STATE=pending", "state[]=pending", "role=admin", "%zz", "state=pending;limit=1"} {
		if a := bo.get("/api/v1/approvals?" + query); a.status != 400 {
			t.Errorf("?%s: %d %s", query, a.status, a.body)
		}
	}
	if a := bo.get("/api/v1/approvals?state=pending"); a.status != 200 || !strings.Contains(a.body, id) {
		t.Errorf("?state=pending: %d %s", a.status, a.body)
	}
	if a := s.admin("GET", "/api/v1/agents/free", nil); a.member("status") != "active" {
		t.Errorf("refused bodies had an effect: %s", a.body)
	}
	if a := send(adm, suspend, `{"reason":"x"}`); a.status != 200 || a.member("status") != "suspended" {
		t.Errorf("an honest one: %d %s", a.status, a.body)
	}
	if a := send(bo, challenge, `{"decision":"approve"}`); a.status != 200 {
		t.Errorf("an honest challenge: %d %s", a.status, a.body)
	}
}

// TestTheDocumentSaysWhatIsAnswered: every operation names the statuses that the tests
// above got.
func TestTheDocumentSaysWhatIsAnswered(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	for _, o := range s.document() {
		for status, when := range map[int]bool{
			400: true, 403: true, 405: true, 500: true, 503: true,
			401: o.For != "anyone",
			404: strings.Contains(o.path, "{"),
			409: strings.HasSuffix(o.path, "/signatures") || strings.HasSuffix(o.path, "/tasks/{id}/cancel"),
			429: o.For == "anyone" && o.method == "POST",
			413: o.method == "POST",
		} {
			if _, has := o.Responses[fmt.Sprint(status)]; when && !has {
				t.Errorf("%s %s does not name %d", o.method, o.path, status)
			}
		}
	}
}
