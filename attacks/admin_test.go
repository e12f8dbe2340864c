package attacks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// Administration: AD1 to AD6, AD8.

// An apiOperation is a row of the daemon's own description of its management API.
type apiOperation struct{ method, path, who string }

func (o *office) operations() []apiOperation {
	o.T.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			For string `json:"x-counterfoil-for"`
		} `json:"paths"`
	}
	got := o.visit(visit{http.MethodGet, "/api/v1/openapi.json", "", nil})
	if err := json.Unmarshal(got.body, &doc); err != nil || got.status != http.StatusOK {
		o.T.Fatalf("openapi.json: %s %v", got, err)
	}
	var all []apiOperation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			all = append(all, apiOperation{strings.ToUpper(method), path, doc.Paths[path][method].For})
		}
	}
	return all
}

var apiBodies = map[string]string{
	"/challenge": `{"decision":"approve"}`, "/signatures": `{"decision":"approve","credential":{}}`, "/cancel": `{"reason":"x"}`,
	"/reconcile": `{"happened":false,"reason":"x"}`, "/suspend": `{"reason":"x"}`, "/offboard": `{"reason":"x"}`,
}

// TestEveryOperationByEverybody is AD1: each operation that the daemon describes, by
// everybody who may not, over the wire; and by those who may.
func TestEveryOperationByEverybody(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.Apply("{kind: Agent, name: gardener, owner: ana, environment: prod}\n---\n{kind: Agent, name: weeder, owner: ana, environment: prod}")
	eve, aud, adm := o.Approver("eve"), o.Approver("aud"), o.Approver("adm")
	late := o.Approver("ana")
	o.Clock.Advance(15 * time.Minute) // which ends every session
	id, task := o.ask(o.clerk, atTill, o.payment()), o.open(o.rival, plainTask)
	revocation := o.revoke(counterfoil.TargetTask, o.open(o.rival, plainTask))
	for _, p := range []*counterfoiltest.Approver{o.bo, eve, aud, adm} {
		p.Login()
	}
	all := o.operations()
	if len(all) < 20 {
		t.Fatalf("the document has %d operations: %v", len(all), all)
	}
	nobody := want{status: 401, code: counterfoil.SessionRequired}
	noRole := want{status: 403, code: counterfoil.RoleRequired}
	unknown := want{status: 404, code: counterfoil.ToolUnknown}
	groups := map[string]int{}
	for _, op := range all {
		groups[op.who]++
		agent := "gardener"
		if strings.HasSuffix(op.path, "/offboard") {
			agent = "weeder" // whom nothing else is asked about
		}
		one, index := id, int64(0)
		switch {
		case strings.Contains(op.path, "/tasks/"):
			one = task
		case strings.Contains(op.path, "/revocations/"):
			index = revocation
		}
		path := strings.NewReplacer("{id}", one, "{name}", agent, "{index}", fmt.Sprint(index)).Replace(op.path)
		if strings.HasSuffix(path, "/chain") {
			path += "?approval=" + id
		}
		body := ""
		if at := strings.LastIndexByte(op.path, '/'); op.method == http.MethodPost {
			body = apiBodies[op.path[at:]]
		}
		v := visit{op.method, path, body, nil}
		as := func(p *counterfoiltest.Approver) visit { v := v; v.as = p; return v }
		what := "AD1 " + op.method + " " + op.path
		if op.who == "anyone" {
			continue
		}
		o.wantNot(what+" by nobody", nobody, func() answer { return o.visit(v) })
		o.wantNot(what+" by a session that is over", nobody, func() answer { return o.visit(as(late)) })
		for name, header := range o.agentHeaders(op.method, path) {
			o.wantNot(what+" by "+name, nobody, func() answer { return o.visit(v, func(r *http.Request) { maps.Copy(r.Header, header) }) })
		}
		switch {
		case op.who == "admin":
			for _, p := range []*counterfoiltest.Approver{o.bo, eve, aud} {
				o.wantNot(what+" by "+p.Name, noRole, func() answer { return o.visit(as(p)) })
			}
		case op.who == "reader":
			for _, p := range []*counterfoiltest.Approver{o.bo, eve} {
				o.wantNot(what+" by "+p.Name, noRole, func() answer { return o.visit(as(p)) })
			}
		case strings.Contains(op.path, "{id}"):
			o.wantNot(what+" by eve", unknown, func() answer { return o.visit(as(eve)) })
			continue // who may is all that the other tests are about
		case op.method == http.MethodDelete:
			continue // logging out
		}
		// What gets past the question who asks is refused for something else, or done.
		if got := o.visit(as(adm)); slices.Contains([]counterfoil.Code{
			counterfoil.SessionRequired, counterfoil.RoleRequired, counterfoil.OriginForbidden, counterfoil.ToolUnknown, counterfoil.MethodForbidden,
		}, got.code) || got.status/100 == 5 {
			t.Errorf("%s by an administrator: %s", what, got)
		}
	}
	if groups["admin"] < 4 || groups["reader"] < 5 || groups["person"] < 5 || groups["anyone"] > 5 || len(groups) != 4 {
		t.Errorf("operations are for %v", groups)
	}
	o.reconcile()
}

// agentHeaders are an agent's ways to say who it is.
func (o *office) agentHeaders(method, path string) map[string]http.Header {
	o.T.Helper()
	token := o.tokenAt(o.clerk, o.Issuer())
	target, _, _ := strings.Cut(o.ManagementURL()+path, "?")
	proof := counterfoiltest.ForgeProof(o.T, o.clerk.signer, method, target, o.Clock.Now())
	proof.Claims["ath"] = credential.TokenHash(token)
	return map[string]http.Header{
		"an agent":                       {"Authorization": {"DPoP " + token}, "Dpop": {proof.Compact(o.T)}},
		"an agent without a proof":       {"Authorization": {"Bearer " + token}},
		"an agent with a cookie":         {"Cookie": {"counterfoil_session=" + token}},
		"a cookie that is made up":       {"Cookie": {"counterfoil_session=" + strings.Repeat("A", 43)}},
		"a name in a header":             {"X-Forwarded-User": {"adm"}, "X-Remote-User": {"adm"}, "Authorization": {"Basic YWRtOmFkbQ=="}},
		"an administrator's two cookies": {"Cookie": {"counterfoil_session=" + strings.Repeat("A", 43) + "; counterfoil_session=" + strings.Repeat("B", 43)}},
	}
}

// TestAdministrationIsNotOnTheDataPlane is AD2 and AD8: whatever the path looks like,
// and with an administrator's own session in it.
func TestAdministrationIsNotOnTheDataPlane(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	adm := o.Approver("adm")
	cookie := ""
	for _, c := range adm.Cookies() {
		cookie = c.Name + "=" + c.Value
	}
	host := strings.TrimPrefix(o.Issuer(), "http://")
	raw := func(method, target string) answer {
		got := o.sendRaw([]byte(method+" "+target+" HTTP/1.1\r\nHost: "+host+"\r\nCookie: "+cookie+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), false)
		if len(got) != 1 {
			t.Fatalf("%s %s: %d answers", method, target, len(got))
		}
		return got[0]
	}
	paths := []string{
		"/", "/admin", "/v1/../api/v1/agents", "/oauth/../api/v1/agents", "/oauth/..%2fapi/v1/agents", "/oauth/%2e%2e/api/v1/agents", "//api/v1/agents", "/api//v1/agents",
		"/%61pi/v1/agents", "/api/v1/agents/", "/api/v1/agents;x=1", "/api/v1/agents%00", "/API/v1/agents", "/approvals", "/login", "/enrol", "/agents", "/people",
		"/ledger/../api/v1/agents", "/debug/pprof/", "/debug/pprof/profile", "/debug/vars", "/metrics", "/healthz", "/readyz", "/api/v1/apply", "/api/v1/status", "/setup",
	}
	for _, op := range o.operations() {
		paths = append(paths, strings.NewReplacer("{id}", counterfoil.NewID("apr_"), "{name}", "clerk", "{index}", "0").Replace(op.path))
	}
	for _, path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			if got := raw(method, path); got.status != http.StatusNotFound && got.status != http.StatusBadRequest || strings.Contains(string(got.body), "clerk") {
				t.Errorf("AD2 %s %s: %s", method, path, got)
			}
		}
	}
	for _, target := range []string{o.ManagementURL() + "/api/v1/agents", "http://evil.example/api/v1/agents", "*"} {
		if got := raw(http.MethodGet, target); got.status/100 != 4 {
			t.Errorf("AD2 %s: %s", target, got)
		}
	}
	// Where it is, other spellings open nothing either, and there is nothing to profile.
	for _, path := range []string{"/api//v1/agents", "//api/v1/agents", "/%61pi/v1/agents", "/api/v1/agents/", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars"} {
		if got := o.visit(visit{http.MethodGet, path, "", adm}); got.status != http.StatusNotFound {
			t.Errorf("AD8 %s: %s", path, got)
		}
	}
	for _, header := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		got := o.visit(visit{http.MethodGet, "/metrics", "", nil}, func(r *http.Request) { r.Header.Set(header, "192.0.2.1") })
		if got.status != http.StatusNotFound && got.status != http.StatusUnauthorized {
			t.Errorf("AD8 /metrics for somebody behind a proxy (%s): HTTP %d", header, got.status)
		}
	}
	if got := o.visit(visit{http.MethodGet, "/api/v1/agents", "", adm}); got.status != http.StatusOK || !strings.Contains(string(got.body), "clerk") {
		t.Errorf("the control: %s", got)
	}
	if got := o.visit(visit{http.MethodGet, "/metrics", "", nil}); got.status != http.StatusOK {
		t.Errorf("the metrics for this machine: %s", got)
	}
	o.reconcile()
}

// TestMembersThatAreNotTheSendersToSet is AD3.
func TestMembersThatAreNotTheSendersToSet(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	adm := o.Approver("adm")
	const path = "/api/v1/agents/rival/suspend"
	for _, body := range []string{
		`{"reason":"x","role":"admin"}`, `{"reason":"x","roles":["admin"]}`, `{"reason":"x","tenant_id":"1"}`, `{"reason":"x","revoked":false}`,
		`{"reason":"x","__proto__":{"roles":["admin"]}}`, `{"reason":null}`, `{"reason":["x"]}`, `{"Reason":"x"}`, `{"reason":"x","reason":"y"}`, `[{"reason":"x"}]`, `null`,
	} {
		got := o.visit(visit{http.MethodPost, path, body, adm})
		if got.status != http.StatusBadRequest || got.code != counterfoil.PayloadMalformed {
			t.Errorf("AD3 %s: %s", body, got)
		}
	}
	for _, v := range []visit{
		{http.MethodPatch, "/api/v1/agents/rival", `[{"op":"replace","path":"/owner","value":"bo"}]`, adm},
		{http.MethodPatch, "/api/v1/agents/rival", `{"owner":null}`, adm},
		{http.MethodPut, "/api/v1/people/eve", `{"groups":["finance-approvers"]}`, adm},
		{http.MethodPost, "/api/v1/people", `{"name":"mal","roles":["admin"]}`, adm},
		{http.MethodPost, "/api/v1/people/bo/enroll-code", `{"reset":true}`, adm},
		{http.MethodPost, "/api/v1/apply", `{"files":[]}`, adm},
		{http.MethodPost, "/api/v1/agents/rival/resume", `{"reason":"x"}`, adm},
	} {
		if got := o.visit(v); got.status != http.StatusNotFound && got.status != http.StatusMethodNotAllowed {
			t.Errorf("AD3 %s %s: %s", v.method, v.path, got)
		}
	}
	for _, body := range []string{`{"code":"x","roles":["admin"]}`, `{"code":"x","person":"adm"}`} {
		if got := o.visit(visit{http.MethodPost, "/api/v1/enrolments/options", body, nil}); got.code != counterfoil.PayloadMalformed {
			t.Errorf("AD3 %s: %s", body, got)
		}
	}
	for _, manifest := range []string{
		"{kind: Person, name: mal, roles: [root]}", "{kind: Person, name: mal, passkeys: [x]}", "{kind: Person, name: mal, usable_from: 2020-01-01T00:00:00Z}",
		"{kind: Agent, name: mal, owner: ana, environment: prod, status: active, epoch: 1}", "{kind: Approval, name: mal, state: approved}", "{kind: Class, name: payout, tier: routine}",
	} {
		if problems := o.TryApply(manifest); len(problems) == 0 {
			t.Errorf("AD3 %s was applied", manifest)
		}
	}
	o.wantRun("the agent as before", func() answer { return o.send(o.rival, "bank/get_balance", honestArguments) })
	if got := o.visit(visit{http.MethodPost, path, `{"reason":"x"}`, adm}); got.status != http.StatusOK || got.member("status") != "suspended" {
		t.Errorf("the control: %s", got)
	}
	o.reconcile()
}

// TestOneAdministratorIsNotEnough is AD4, on a server that is none for development:
// what widens who may approve waits a day, or for two people; what narrows counts at
// once.
func TestOneAdministratorIsNotEnough(t *testing.T) {
	t.Parallel()
	var earnest atomic.Bool
	o := newOffice(t, func(c *daemon.Config) { c.Dev = !earnest.Load() })
	eve := o.Approver("eve")
	earnest.Store(true)
	o.Restart()
	o.again()
	eve.Login()
	pending := func() []string {
		var out []string
		for _, a := range o.Approvals(counterfoil.StatePending) {
			out = append(out, a.ID)
		}
		return out
	}
	propose := func(what, manifest string) (approval string) {
		t.Helper()
		before := pending()
		status, body := o.Admin(http.MethodPost, "/api/v1/apply", map[string]any{"files": []map[string]string{{"name": "a.yaml", "data": manifest}}})
		var told struct {
			Proposal *struct {
				Approval  string    `json:"approval"`
				Effective time.Time `json:"effective"`
			} `json:"proposal"`
		}
		if err := json.Unmarshal(body, &told); err != nil || status != http.StatusOK || told.Proposal == nil || told.Proposal.Approval == "" {
			t.Fatalf("AD4 %s does not wait: HTTP %d %s", what, status, body)
		}
		if d := told.Proposal.Effective.Sub(o.Clock.Now()); d < 24*time.Hour-time.Minute || d > 24*time.Hour {
			t.Errorf("AD4 %s takes effect in %s", what, d)
		}
		if now := pending(); len(now) != len(before)+1 || !slices.Contains(now, told.Proposal.Approval) {
			t.Errorf("AD4 %s: the approvers are asked %v", what, now)
		}
		return told.Proposal.Approval
	}
	const join = "{kind: Person, name: eve, email: eve@example.com, groups: [legal, finance-approvers]}"
	inForce := func() bool { return slices.Contains(o.groups("eve"), "finance-approvers") }

	// Nothing that narrows waits.
	o.Apply("{kind: Person, name: dan, email: B.O+pay@Example.com}")
	if slices.Contains(o.groups("dan"), "finance-approvers") {
		t.Errorf("what narrows waits")
	}

	// One signature is none. Two let it count at once.
	id := propose("a new approver", join)
	if a := eve.Decide(id, counterfoil.DecisionApprove, ""); a.Status != http.StatusNotFound {
		t.Errorf("AD4 eve lets herself in: HTTP %d %s", a.Status, a.Body)
	}
	if o.bo.Countersign(id) != counterfoil.StatePending || inForce() {
		t.Errorf("AD4 one signature was enough")
	}
	if a := o.bo.Decide(id, counterfoil.DecisionApprove, ""); a.Code != counterfoil.ApproverNotDistinct {
		t.Errorf("AD4 the same person once more: HTTP %d %s", a.Status, a.Body)
	}
	o.cy.Countersign(id)
	o.wait("two signatures count", inForce)

	// What would loosen waits: payments go as before meanwhile. One no ends it.
	o.Apply("{kind: Person, name: eve, email: eve@example.com, groups: [legal]}")
	for what, manifest := range map[string]string{
		"other approvers":       `{kind: Class, name: payout, tier: irreversible, approvers: [finance-approvers, legal], template: "Pay {{.amount}} {{.currency}} to {{.to}}"}`,
		"a lower tier":          `{kind: Class, name: payout, tier: guarded, insecure_lower_tier: true, approvers: [finance-approvers], template: "Pay {{.amount}} {{.currency}} to {{.to}}"}`,
		"another class":         strings.Replace(bankAgain(o.BankUpstream()), "class: payout", "class: small-payment", 1),
		"another owner":         strings.Replace("{kind: Agent, name: clerk, owner: ana, environment: prod, grants: [{tools: [bank/get_balance, bank/pay, till/pay, \"shop/*\", kiosk/pay]}]}", "owner: ana", "owner: bo", 1),
		"an approver's mailbox": "{kind: Person, name: cy, email: mallory@example.com, groups: [finance-approvers]}",
	} {
		id := propose(what, manifest)
		arguments := o.payment()
		o.wantNot("AD4 a payment while "+what+" waits", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atBankPay, arguments) })
		o.bo.Countersign(o.Approvals(counterfoil.StatePending)[0].ID)
		o.wantNot("AD4 with one of two", refused(counterfoil.ApprovalPending), func() answer { return o.send(o.clerk, atBankPay, arguments) })
		if state := o.cy.Deny(id, "not without the others"); state != counterfoil.StateDenied {
			t.Errorf("AD4 after a no it is %s", state)
		}
	}
	o.wait("each no is settled", func() bool { return len(o.proposals()) == 0 })

	// Nobody signs: it waits its day.
	propose("an approver again", join)
	o.Clock.Advance(24*time.Hour - time.Second)
	o.Restart()
	if inForce() {
		t.Errorf("AD4 a second before its day is over it counts")
	}
	o.Clock.Advance(2 * time.Second)
	o.Restart()
	o.wait("its day is over", inForce)

	// A new passkey of somebody who has one cools a day, for what cannot be undone.
	o.again()
	second := o.ApproverWith("bo", o.device())
	arguments := o.payment()
	id = o.ask(o.clerk, atBankPay, arguments)
	o.wantNot("AD4 a passkey that an administrator added", want{status: 403, code: counterfoil.ApproverNotEligible}, func() answer {
		options := bareChallenge(t, o.challenge(second, id, counterfoil.DecisionApprove, ""))
		return o.sign(second, id, counterfoil.DecisionApprove, "", second.Device.Get(options))
	})
	if a := o.bo.Decide(id, counterfoil.DecisionApprove, ""); a.State != counterfoil.StatePending {
		t.Errorf("bo's first passkey: HTTP %d %s", a.Status, a.Body)
	}
	reset := o.reset("cy")
	if a := reset.Decide(id, counterfoil.DecisionApprove, ""); a.Code != counterfoil.ApproverNotEligible {
		t.Errorf("AD4 a passkey that an administrator reset: HTTP %d %s", a.Status, a.Body)
	}
	if state := reset.Deny(id, "no"); state != counterfoil.StateDenied {
		t.Errorf("and yet it may say no: %s", state)
	}
	o.reconcile()
}

func bankAgain(url string) string {
	return fmt.Sprintf("kind: Resource\nname: bank\ntype: mcp\nenvironment: prod\nupstream: %s\ntools:\n  - {name: get_balance, class: read}\n  - {name: list_payees, class: read}\n"+
		"  - {name: pay, class: payout, fields: {amount: /amount, currency: /currency, to: /to}}\n", url)
}

// groups returns the groups of a person that are in force.
func (o *office) groups(name string) []string {
	o.T.Helper()
	var shown struct {
		Document struct {
			Groups []string `json:"groups"`
		} `json:"document"`
	}
	status, body := o.Admin(http.MethodGet, "/api/v1/people/"+name, nil)
	if err := json.Unmarshal(body, &shown); err != nil || status != http.StatusOK {
		o.T.Fatalf("showing %s: HTTP %d %s %v", name, status, body, err)
	}
	return shown.Document.Groups
}

func (o *office) proposals() (ids []string) {
	o.T.Helper()
	var list struct {
		Changes []struct {
			ID string `json:"id"`
		} `json:"changes"`
	}
	status, body := o.Admin(http.MethodGet, "/api/v1/changes", nil)
	if err := json.Unmarshal(body, &list); err != nil || status != http.StatusOK {
		o.T.Fatalf("the changes that wait: HTTP %d %s %v", status, body, err)
	}
	for _, c := range list.Changes {
		ids = append(ids, c.ID)
	}
	return ids
}

// wait looks until something is so.
func (o *office) wait(what string, so func() bool) {
	o.T.Helper()
	for deadline := time.Now().Add(counterfoiltest.Timeout); time.Now().Before(deadline); {
		if so() {
			return
		}
	}
	o.T.Fatalf("%s, and nothing comes of it", what)
}

// TestNothingToBeginWith is AD5: there is no account, no password and no second first
// time.
func TestNothingToBeginWith(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, path := range []string{"/setup", "/bootstrap", "/install", "/register", "/api/v1/setup", "/api/v1/bootstrap", "/api/v1/login", "/api/v1/users", "/api/v1/people"} {
		for _, body := range []string{`{"username":"admin","password":"admin"}`, `{"name":"mal","roles":["admin"]}`} {
			got := o.visit(visit{http.MethodPost, path, body, nil}, func(r *http.Request) { r.SetBasicAuth("admin", "admin") })
			if got.status != http.StatusUnauthorized && got.status != http.StatusNotFound && got.status != http.StatusMethodNotAllowed {
				t.Errorf("AD5 %s: %s", path, got)
			}
		}
	}
	// A code opens once, for a while, and no other is told from it by its answer.
	device := o.device()
	eve := o.Visitor("eve", device)
	code := o.PersonCode("eve", false)
	replaced := code
	code = o.PersonCode("eve", false)
	refusal := func(what, code string) {
		t.Helper()
		got := o.visit(visit{http.MethodPost, "/api/v1/enrolments/options", fmt.Sprintf(`{"code":%q}`, code), nil})
		if got.status != http.StatusBadRequest || got.code != counterfoil.EnrolmentRefused || got.member("detail") != "the enrolment code is not valid" {
			t.Errorf("AD5 %s: %s", what, got)
		}
	}
	refusal("a code that was replaced", replaced)
	if a := eve.Enrol(code); a.Status != http.StatusCreated {
		t.Fatalf("the code: HTTP %d %s", a.Status, a.Body)
	}
	refusal("a code that was used", code)
	old := o.PersonCode("aud", false)
	o.Clock.Advance(24 * time.Hour)
	refusal("a code of a day ago", old)
	agents := o.EnrolCode("clerk")
	refusal("an agent's code", agents)
	late := o.PersonCode("aud", false)
	got := o.do(o.enrolment("clerk", late))
	if got.passed() {
		t.Errorf("AD5 a person's code for an agent: %s", got)
	}
	// The socket is whose the daemon is, and nobody else's.
	path, err := daemon.FindSocket(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("AD5 the socket: %v %v", info, err)
	}
	o.reconcile()
}

// TestPagesThatWereRebound is AD6: a page whose name was made to lead here is not
// ours, on either listener and on the socket.
func TestPagesThatWereRebound(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	adm := o.Approver("adm")
	mine := strings.TrimPrefix(o.ManagementURL(), "http://")
	_, port, _ := strings.Cut(mine, ":")
	for _, host := range []string{"evil.example", "evil.example:" + port, "localhost.evil.example:" + port, "127.0.0.1:" + port, "localhost:1", "[::1]:" + port, "0.0.0.0:" + port} {
		for _, v := range []visit{
			{http.MethodGet, "/api/v1/agents", "", adm}, {http.MethodGet, "/api/v1/openapi.json", "", nil}, {http.MethodGet, "/", "", adm}, {http.MethodGet, "/login", "", nil},
			{http.MethodPost, "/api/v1/agents/rival/suspend", `{"reason":"x"}`, adm}, {http.MethodPost, "/api/v1/sessions/options", `{}`, nil},
		} {
			got := o.visit(v, func(r *http.Request) {
				r.Host = host
				r.Header.Set("Accept", "text/html, application/json")
				if v.method != http.MethodGet {
					r.Header.Set("Origin", "http://"+host)
				}
			})
			if got.status != http.StatusForbidden || strings.Contains(string(got.body), "clerk") {
				t.Errorf("AD6 %s %s as %s: %s", v.method, v.path, host, got)
			}
		}
	}
	for _, host := range []string{"evil.example", "evil.example:" + port} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, o.Issuer()+"/oauth/jwks", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if got := o.do(r); got.status != http.StatusBadRequest {
			t.Errorf("AD6 the public listener as %s: %s", host, got)
		}
	}
	for _, origin := range []string{"http://evil.example", o.ManagementURL(), "null"} {
		status, body := o.socketFrom(origin)
		if status != http.StatusForbidden || counterfoiltest.CodeOf(body) != counterfoil.OriginForbidden {
			t.Errorf("AD6 the socket for a page of %s: HTTP %d %s", origin, status, body)
		}
	}
	if status, body := o.socketFrom(""); status != http.StatusOK {
		t.Errorf("the socket for a program: HTTP %d %s", status, body)
	}
	for _, v := range []visit{{http.MethodGet, "/api/v1/agents", "", adm}, {http.MethodPost, "/api/v1/agents/rival/suspend", `{"reason":"x"}`, adm}} {
		if got := o.visit(v); got.status != http.StatusOK {
			t.Errorf("the control: %s", got)
		}
	}
	o.reconcile()
}

// socketFrom asks the administration socket as a page would that something let through.
func (o *office) socketFrom(origin string) (int, []byte) {
	o.T.Helper()
	path, err := daemon.FindSocket(o.Dir)
	if err != nil {
		o.T.Fatal(err)
	}
	r, err := http.NewRequestWithContext(o.T.Context(), http.MethodGet, "http://admin/api/v1/agents", nil)
	if err != nil {
		o.T.Fatal(err)
	}
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Do(r)
	if err != nil {
		o.T.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		o.T.Fatal(err)
	}
	return resp.StatusCode, body
}
