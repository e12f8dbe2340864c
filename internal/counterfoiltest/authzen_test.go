package counterfoiltest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	. "github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// pointManifest declares an enforcement point of somebody else's, in front of the till,
// and one that is in front of nothing.
const pointManifest = `kind: Agent
name: edge
owner: bo
purpose: asks for the gateway of the shop
environment: prod
---
kind: Agent
name: nobody
owner: ana
purpose: is in front of nothing
environment: prod
`

// A point is an enforcement point of somebody else's.
type point struct {
	sys    *System
	client *agent.Transport
}

func newPoint(sys *System, name string) *point {
	return &point{sys, sys.Agent(name).For(sys.Issuer())}
}

// An asked is what a point is answered with.
type asked struct {
	status int
	header http.Header
	body   []byte

	Decision    *bool   `json:"decision"`
	Context     asking  `json:"context"`
	Evaluations []asked `json:"evaluations"`

	Task   handle `json:"task"`
	Result struct {
		Mode     string `json:"mode"`
		Approval struct {
			ID    string    `json:"id"`
			Until time.Time `json:"approved_until"`
		} `json:"approval"`
		Context jsontext.Value `json:"approval_context"`
	} `json:"result"`

	Type string           `json:"type"`
	Code counterfoil.Code `json:"code"`
}

type asking struct {
	EvaluationID string           `json:"evaluation_id"`
	Reason       counterfoil.Code `json:"reason"`
	Detail       string           `json:"detail"`
	Request      *struct {
		Requestable bool      `json:"requestable"`
		Endpoint    string    `json:"endpoint"`
		ExpiresAt   time.Time `json:"expires_at"`
		Context     string    `json:"request_context"`
	} `json:"access_request"`
}

type handle struct {
	ID       string    `json:"id"`
	Status   string    `json:"status"`
	Endpoint string    `json:"status_endpoint"`
	Expires  time.Time `json:"expires_at"`
	Links    struct {
		Cancel string `json:"cancel"`
	} `json:"links"`
}

func (p *point) do(method, path, body string, header ...string) asked {
	p.sys.T.Helper()
	req, err := http.NewRequestWithContext(p.sys.T.Context(), method, path, nil)
	if strings.HasPrefix(path, "/") {
		req, err = http.NewRequestWithContext(p.sys.T.Context(), method, p.sys.Issuer()+path, nil)
	}
	if err != nil {
		p.sys.T.Fatal(err)
	}
	if method == http.MethodPost {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader([]byte(body))), int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.client.Client().Do(req)
	if err != nil {
		if r, ok := counterfoil.AsRefusal(err); ok {
			return asked{Code: r.Code, status: r.Code.Wire().Status}
		}
		p.sys.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.sys.T.Fatal(err)
	}
	var a asked
	if err := json.Unmarshal(text, &a); err != nil {
		p.sys.T.Fatalf("HTTP %d %q: %v", resp.StatusCode, text, err)
	}
	a.status, a.header, a.body = resp.StatusCode, resp.Header, text
	return a
}

func (p *point) evaluate(body string, header ...string) asked {
	p.sys.T.Helper()
	return p.do(http.MethodPost, "/access/v1/evaluation", body, header...)
}

func (p *point) evaluations(body string) asked {
	p.sys.T.Helper()
	return p.do(http.MethodPost, "/access/v1/evaluations", body)
}

// wantDecision fails the test unless that is what the answer says.
func wantDecision(t *testing.T, what string, a asked, want bool) {
	t.Helper()
	if a.status != http.StatusOK || a.Decision == nil || *a.Decision != want {
		t.Errorf("%s: HTTP %d %s, want the decision %v", what, a.status, a.body, want)
	}
}

// entryAt is the entry that an evaluation's id names.
func entryAt(t *testing.T, sys *System, id string) *ledger.Entry {
	t.Helper()
	for _, e := range sys.Entries() {
		if strconv.FormatInt(e.Index, 10) == id {
			return e
		}
	}
	t.Fatalf("there is no entry %q", id)
	return nil
}

// certification is the policy of the AuthZEN certification scenario, Section 2.
const certification = `kind: Vocabulary
name: certification
servers: [edge]
class: read
cedar: |
  permit (principal is user, action == Action::"read", resource is record)
  when { ["alice", "bob"].contains(principal.id) };
  permit (principal == user::"alice", action == Action::"write", resource is record)
  when { !(resource has status && resource.status == "archived") };
  permit (principal is user, action == Action::"write", resource is record)
  when { principal has role && principal.role == "admin" };
  permit (principal == user::"alice", action == Action::"delete", resource is record)
  when { action has soft && action.soft };
`

func vectors(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("COUNTERFOIL_VECTORS")
	if dir == "" {
		dir = "../../../shared/vectors"
	}
	b, err := os.ReadFile(filepath.Join(dir, "authzen", name))
	if err != nil {
		t.Skipf("skipped: authzen/%s is not there; set COUNTERFOIL_VECTORS to the folder that holds it", name)
	}
	return b
}

var (
	jsonBlock = regexp.MustCompile(`(?s)~~~ json\n(.*?)~~~`)
	expects   = regexp.MustCompile("`\"decision\": (true|false)`")
)

// A section of the scenario: its requests and what is expected of them.
type section struct {
	text   string
	blocks []string
}

func sectionOf(t *testing.T, scenario, id string) section {
	t.Helper()
	_, text, ok := strings.Cut(scenario, "{#"+id+"}\n")
	if !ok {
		t.Fatalf("the scenario has no section %s", id)
	}
	if i := strings.Index(text, "\n#"); i >= 0 {
		text = text[:i]
	}
	s := section{text: text}
	for _, m := range jsonBlock.FindAllStringSubmatch(text, -1) {
		s.blocks = append(s.blocks, m[1])
	}
	return s
}

// TestAuthZENCertification runs the scenario of the Authorization API 1.0 at the levels
// Basic and Batch, Core and Properties, and Discovery.
func TestAuthZENCertification(t *testing.T) {
	t.Parallel()
	scenario := string(vectors(t, "authorization-api-1_0-scenario.md"))
	sys := New(t)
	sys.Apply(pointManifest + "---\n" + certification)
	edge := newPoint(sys, "edge")

	for _, id := range []string{"c-2-2-1", "c-2-2-2", "c-2-2-3", "c-2-2-4", "c-2-2-5", "c-2-2-6", "c-2-2-7", "c-2-2-8", "c-2-2-9"} {
		s := sectionOf(t, scenario, id)
		want := strings.Contains(s.text, `"decision": true`)
		if len(s.blocks) > 1 {
			want = strings.Contains(s.blocks[1], "true")
		} else if m := expects.FindStringSubmatch(s.text); m == nil {
			t.Errorf("%s expects nothing", id)
		}
		for range 2 { // Section 4.5: the same each time
			wantDecision(t, id, edge.evaluate(s.blocks[0]), want)
		}
	}
	malformed := 0
	for _, id := range []string{"c-2-4-1", "c-2-4-2", "c-2-4-6"} {
		for _, body := range sectionOf(t, scenario, id).blocks {
			if a := edge.evaluate(body); a.status != http.StatusBadRequest {
				t.Errorf("%s: %s: HTTP %d %s", id, body, a.status, a.body)
			}
			malformed++
		}
	}
	if malformed != 10 {
		t.Errorf("%d malformed requests in the scenario", malformed)
	}
	fixture := sectionOf(t, scenario, "c-2-2-1").blocks[0]
	for what, a := range map[string]asked{
		"c-2-4-3": edge.evaluate(fixture, "Content-Type", "text/plain"),
		"c-2-4-4": edge.evaluate(`{"subject":`),
		"c-2-4-5": edge.evaluate(``),
	} {
		if a.status != http.StatusBadRequest {
			t.Errorf("%s: HTTP %d %s", what, a.status, a.body)
		}
	}
	if a := edge.evaluate(fixture, "X-Request-ID", "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"); a.header.Get("X-Request-ID") != "bfe9eb29-ab87-4ca3-be83-a1d5d8305716" {
		t.Errorf("c-2-5-1: the request's id is answered with %q", a.header.Get("X-Request-ID"))
	}
	if a := edge.evaluate(`{`, "X-Request-ID", "42"); a.header.Get("X-Request-ID") != "42" || a.status != http.StatusBadRequest {
		t.Errorf("c-2-5-1: of a malformed request: HTTP %d, %q", a.status, a.header.Get("X-Request-ID"))
	}
	if a := edge.evaluate(fixture, "X-Request-ID", strings.Repeat("x", 129)); len(a.header.Get("X-Request-ID")) == 129 {
		t.Error("an id of any length is echoed")
	}
	certifyBatch(t, scenario, edge)
	certifyDiscovery(t, sys)
	sys.CheckLedger()
}

func certifyBatch(t *testing.T, scenario string, edge *point) {
	t.Helper()
	for _, id := range []string{"c-3-2-1", "c-3-2-2", "c-3-2-3", "c-3-2-4", "c-3-2-5", "c-3-2-6", "c-3-2-7", "c-3-4-1"} {
		s := sectionOf(t, scenario, id)
		a := edge.evaluations(s.blocks[0])
		if a.status != http.StatusOK || len(a.Evaluations) != 2 || a.Decision != nil {
			t.Errorf("%s: HTTP %d %s", id, a.status, a.body)
			continue
		}
		var want struct {
			Evaluations []struct {
				Decision bool `json:"decision"`
			} `json:"evaluations"`
		}
		if len(s.blocks) > 1 {
			if err := json.Unmarshal([]byte(s.blocks[1]), &want); err != nil {
				t.Fatal(err)
			}
		}
		for i, e := range a.Evaluations {
			if e.Decision == nil || len(want.Evaluations) > 0 && *e.Decision != want.Evaluations[i].Decision {
				t.Errorf("%s: evaluation %d: %s", id, i, a.body)
			}
		}
		if id == "c-3-4-1" && (!*a.Evaluations[0].Decision || *a.Evaluations[1].Decision) {
			t.Errorf("%s: %s", id, a.body)
		}
	}
	for _, id := range []string{"c-3-4-2", "c-3-4-3"} {
		wantDecision(t, id, edge.evaluations(sectionOf(t, scenario, id).blocks[0]), true)
	}
}

func certifyDiscovery(t *testing.T, sys *System) {
	t.Helper()
	resp, err := http.Get(sys.Issuer() + "/.well-known/authzen-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var meta map[string]any
	if err := json.UnmarshalRead(resp.Body, &meta); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" ||
		meta["policy_decision_point"] != sys.Issuer() || meta["access_evaluation_endpoint"] != sys.Issuer()+"/access/v1/evaluation" ||
		meta["access_evaluations_endpoint"] != sys.Issuer()+"/access/v1/evaluations" || meta["access_request_endpoint"] != sys.Issuer()+"/access/v1/requests" {
		t.Errorf("c-6: HTTP %d %v", resp.StatusCode, meta)
	}
	for name := range meta {
		if strings.HasPrefix(name, "search") {
			t.Errorf("the metadata offers %s", name)
		}
	}
}

// interop is the policy of the interoperability scenarios of the working group, todos and
// gateways; who has which role is theirs to know, and is in the policy here.
const interop = `kind: Vocabulary
name: interop
servers: [edge]
class: read
cedar: |
  permit (principal is user, action == Action::"can_read_user", resource is user);
  permit (principal is user, action in [Action::"can_read_todos"], resource is todo);
  permit (principal is user, action == Action::"can_create_todo", resource is todo)
  when { ["%[1]s", "%[2]s", "%[3]s"].contains(principal.id) };
  permit (principal == user::"%[1]s", action in [Action::"can_update_todo", Action::"can_delete_todo"], resource is todo);
  permit (principal == user::"%[2]s", action in [Action::"can_update_todo", Action::"can_delete_todo"], resource is todo)
  when { resource.ownerID == "morty@the-citadel.com" };
  permit (principal == user::"%[3]s", action in [Action::"can_update_todo", Action::"can_delete_todo"], resource is todo)
  when { resource.ownerID == "summer@the-smiths.com" };
  permit (principal is identity, action == Action::"GET", resource is route);
  permit (principal is identity, action in [Action::"POST", Action::"PUT", Action::"DELETE"], resource is route)
  when { ["%[1]s", "%[2]s", "%[3]s"].contains(principal.id) };
`

// TestAuthZENInterop answers the decisions that implementations show to each other.
func TestAuthZENInterop(t *testing.T) {
	t.Parallel()
	todos, gateways := vectors(t, "decisions-authorization-api-1_0-02.json"), vectors(t, "gateway-decisions.json")
	sys := New(t)
	sys.Apply(pointManifest + "---\n" + fmt.Sprintf(interop,
		"CiRmZDA2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs",
		"CiRmZDE2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs",
		"CiRmZDI2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs"))
	edge := newPoint(sys, "edge")
	all := 0
	for _, file := range [][]byte{todos, gateways} {
		var vectors struct {
			Evaluation []struct {
				Request  jsontext.Value `json:"request"`
				Expected bool           `json:"expected"`
			} `json:"evaluation"`
			Evaluations []struct {
				Request  jsontext.Value `json:"request"`
				Expected []struct {
					Decision bool `json:"decision"`
				} `json:"expected"`
			} `json:"evaluations"`
		}
		if err := json.Unmarshal(file, &vectors); err != nil {
			t.Fatal(err)
		}
		for _, v := range vectors.Evaluation {
			wantDecision(t, string(v.Request), edge.evaluate(string(v.Request)), v.Expected)
			all++
		}
		for _, v := range vectors.Evaluations {
			a := edge.evaluations(string(v.Request))
			for i, e := range v.Expected {
				if i >= len(a.Evaluations) || *a.Evaluations[i].Decision != e.Decision {
					t.Errorf("%s: %s", v.Request, a.body)
				}
				all++
			}
		}
	}
	if all < 65 {
		t.Errorf("%d decisions", all)
	}
	sys.CheckLedger()
}

// tillManifest puts the point in front of the till.
func tillManifest(sys *System) string {
	return pointManifest + `---
kind: Resource
name: till
type: mcp
environment: prod
upstream: ` + sys.BankUpstream() + `
servers: [edge]
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: small-payment, fields: {amount: /amount}}
  - {name: pay, class: refund, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Agent
name: payroll
owner: ana
purpose: monthly payroll run
environment: prod
grants:
  - tools: [bank/get_balance, bank/pay, till/pay, till/get_balance]
  - {tools: [till/list_payees], when: "context.args has amount && context.args.amount < 10"}
`
}

func question(subject, tool, arguments, context string) string {
	if arguments != "" {
		arguments = `,"properties":{"arguments":` + arguments + `}`
	}
	if context != "" {
		context = `,"context":` + context
	}
	return `{"subject":{"type":"agent","id":"` + subject + `"},"action":{"name":"call"` + arguments + `},"resource":{"type":"tool","id":"` + tool + `"}` + context + `}`
}

// TestAPointAsksAboutAgents: what an agent may call is decided as it is at the gateway,
// and recorded as the word of who asks.
func TestAPointAsksAboutAgents(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(tillManifest(sys))
	edge, nobody := newPoint(sys, "edge"), newPoint(sys, "nobody")
	balance := question("payroll", "till/get_balance", `{"account":"operating"}`, "")
	allowed := edge.evaluate(balance)
	wantDecision(t, "a routine call", allowed, true)
	e := entryAt(t, sys, allowed.Context.EvaluationID)
	if e.Kind != ledger.CallDecided || e.Agent != "edge" || e.OnBehalfOf != "payroll" || e.Tool != "till/get_balance" || e.Decision != ledger.Allow ||
		e.Detail["asserted"] != true || e.Detail["point"] != "authzen" || e.Proof != "" {
		t.Errorf("the entry: %+v", e)
	}
	for what, c := range map[string]struct {
		ask  string
		code counterfoil.Code
	}{
		"an agent without the grant":      {question("auditor", "till/get_balance", `{}`, ""), counterfoil.ToolNotGranted},
		"an agent that is not there":      {question("ghost", "till/get_balance", `{}`, ""), counterfoil.TokenRevoked},
		"a resource of somebody else's":   {question("payroll", "bank/get_balance", `{}`, ""), counterfoil.ToolUnknown},
		"a resource that is not there":    {question("payroll", "moon/get_balance", `{}`, ""), counterfoil.ToolUnknown},
		"a tool that is not there":        {question("payroll", "till/burn", `{}`, ""), counterfoil.ToolUnknown},
		"arguments that decide, not said": {question("payroll", "till/list_payees", "", ""), counterfoil.PolicyForbids},
		"arguments that decide":           {question("payroll", "till/list_payees", `{"amount":11}`, ""), counterfoil.PolicyForbids},
		"a call that needs a person":      {question("payroll", "till/pay", `{"to":"acme","amount":1,"currency":"EUR"}`, ""), counterfoil.ApprovalRequired},
		"a task that is not there":        {question("payroll", "till/get_balance", `{}`, `{"task":"tsk_x"}`), counterfoil.TaskClosed},
	} {
		a := edge.evaluate(c.ask)
		wantDecision(t, what, a, false)
		if a.Context.Reason != c.code {
			t.Errorf("%s: %s, want %s", what, a.body, c.code)
		}
	}
	// One answer for what is somebody else's and for what is not there.
	mine, theirs := nobody.evaluate(balance), nobody.evaluate(question("payroll", "moon/get_balance", `{}`, ""))
	wantDecision(t, "a point that serves nothing", mine, false)
	same := func(a asked) string { return strings.ReplaceAll(a.Context.Detail, "till", "moon") }
	if same(mine) != same(theirs) || mine.Context.Reason != theirs.Context.Reason {
		t.Errorf("an oracle: %s and %s", mine.body, theirs.body)
	}
	for what, body := range map[string]string{
		"another action":           strings.Replace(balance, `"call"`, `"read"`, 1),
		"another resource":         strings.Replace(balance, `"tool"`, `"record"`, 1),
		"arguments of two minds":   question("payroll", "till/get_balance", `{"account":"operating"}`, `{"arguments":{"account":"other"}}`),
		"arguments that are text":  question("payroll", "till/get_balance", `"all"`, ""),
		"a name twice":             strings.Replace(balance, `"account"`, `"account":"x","account"`, 1),
		"an address that is none":  question("payroll", "till/get_balance", `{}`, `{"address":"here"}`),
		"an approval that is none": question("payroll", "till/get_balance", `{}`, `{"authzen_access_request_approval":{"id":"yes"}}`),
	} {
		if a := edge.evaluate(body); a.status != http.StatusBadRequest {
			t.Errorf("%s: HTTP %d %s", what, a.status, a.body)
		}
	}
	sys.Suspend("payroll")
	a := edge.evaluate(balance)
	wantDecision(t, "a suspended agent", a, false)
	if a.Context.Reason != counterfoil.AgentSuspended {
		t.Errorf("a suspended agent: %s", a.body)
	}
	sys.CheckLedger()
}

// TestAuthZENBatchesStop: what a batch's semantic says is answered and no more.
func TestAuthZENBatchesStop(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(pointManifest + "---\n" + certification)
	edge := newPoint(sys, "edge")
	batch := func(options string, subjects ...string) string {
		var items []string
		for _, s := range subjects {
			items = append(items, `{"subject":{"type":"user","id":"`+s+`"}}`)
		}
		return `{"action":{"name":"write"},"resource":{"type":"record","id":"record-1"},"options":` + options + `,"evaluations":[` + strings.Join(items, ",") + `]}`
	}
	for options, want := range map[string][]bool{
		`{}`:                                     {true, false, true, false},
		`{"evaluations_semantic":"execute_all"}`: {true, false, true, false},
		`{"evaluations_semantic":"deny_on_first_deny"}`:     {true, false},
		`{"evaluations_semantic":"permit_on_first_permit"}`: {true},
	} {
		a := edge.evaluations(batch(options, "alice", "bob", "alice", "bob"))
		var got []bool
		for _, e := range a.Evaluations {
			got = append(got, *e.Decision)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %s", options, a.body)
		}
	}
	for what, body := range map[string]string{
		"an unknown semantic":     batch(`{"evaluations_semantic":"flip"}`, "alice"),
		"options that are text":   batch(`"all"`, "alice"),
		"evaluations of no list":  `{"evaluations":{}}`,
		"evaluations of no item":  `{"evaluations":[1]}`,
		"a default that is text":  `{"subject":"alice","evaluations":[{}]}`,
		"neither one nor several": `{"evaluations":[]}`,
	} {
		if a := edge.evaluations(body); a.status != http.StatusBadRequest {
			t.Errorf("%s: HTTP %d %s", what, a.status, a.body)
		}
	}
	if a := edge.evaluations(batch(`{}`, slices.Repeat([]string{"alice"}, 101)...)); a.Code != counterfoil.PayloadTooLarge {
		t.Errorf("101 evaluations: HTTP %d %s", a.status, a.body)
	}
	sys.CheckLedger()
}

const refundOne = `{"to":"acme","amount":1,"currency":"EUR"}`

// TestPeopleAllowWhatAPointAsks: a denial, the request, a person's yes, and one
// evaluation that uses it up.
func TestPeopleAllowWhatAPointAsks(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(tillManifest(sys))
	edge, nobody := newPoint(sys, "edge"), newPoint(sys, "nobody")
	ana, bo, cy := sys.Approver("ana"), sys.Approver("bo"), sys.Approver("cy")
	refund := question("payroll", "till/pay", refundOne, "")
	denied := edge.evaluate(refund)
	wantDecision(t, "before anybody is asked", denied, false)
	request := denied.Context.Request
	if request == nil || !request.Requestable || request.Endpoint != sys.Issuer()+"/access/v1/requests" || strings.Contains(request.Context, "acme") {
		t.Fatalf("the denial: %s", denied.body)
	}
	for _, e := range sys.Entries() {
		if e.Kind == ledger.ApprovalRequested {
			t.Errorf("people were asked by a question: %+v", e)
		}
	}
	body := `{"request_context":"` + request.Context + `","denial":{}}`
	for what, a := range map[string]asked{
		"no denial":        edge.do(http.MethodPost, request.Endpoint, `{}`),
		"a changed denial": edge.do(http.MethodPost, request.Endpoint, strings.Replace(body, request.Context[:8], "AAAAAAAA", 1)),
		"somebody else's":  nobody.do(http.MethodPost, request.Endpoint, body),
		"a denial of yore": func() asked { return edge.do(http.MethodPost, request.Endpoint, `{"request_context":"AAAA"}`) }(),
	} {
		if a.status != http.StatusBadRequest || a.Type != "urn:openid:authzen:access-request:error:invalid_denial_binding" {
			t.Errorf("%s: HTTP %d %s", what, a.status, a.body)
		}
	}
	first := edge.do(http.MethodPost, request.Endpoint, body, "Idempotency-Key", "k1")
	again := edge.do(http.MethodPost, request.Endpoint, body, "Idempotency-Key", "k1")
	if first.status != http.StatusCreated || first.Task.Status != "pending" || again.Task.ID != first.Task.ID {
		t.Fatalf("the request: HTTP %d %s, then %s", first.status, first.body, again.body)
	}
	other := edge.evaluate(question("payroll", "till/pay", strings.Replace(refundOne, "1", "2", 1), ""))
	if a := edge.do(http.MethodPost, request.Endpoint, `{"request_context":"`+other.Context.Request.Context+`"}`, "Idempotency-Key", "k1"); a.status != http.StatusConflict ||
		a.Type != "urn:openid:authzen:access-request:error:duplicate_request" {
		t.Errorf("another request with the key: HTTP %d %s", a.status, a.body)
	}
	if a := nobody.do(http.MethodGet, first.Task.Endpoint, ""); a.status != http.StatusNotFound {
		t.Errorf("somebody else's task: HTTP %d %s", a.status, a.body)
	}
	use := func(id string) string {
		return question("payroll", "till/pay", refundOne, `{"authzen_access_request_approval":{"id":"`+id+`"}}`)
	}
	pending := edge.evaluate(use(first.Task.ID))
	wantDecision(t, "while it is pending", pending, false)
	if pending.Context.Reason != counterfoil.ApprovalPending {
		t.Errorf("while it is pending: %s", pending.body)
	}
	for _, p := range []*Approver{ana, bo} { // the owners of the agent and of the point
		if a := p.Decide(first.Task.ID, counterfoil.DecisionApprove, ""); a.Code != counterfoil.ApproverNotEligible {
			t.Errorf("%s: %s %s", p.Name, a.Code, a.Body)
		}
	}
	if s := cy.Countersign(first.Task.ID); s != counterfoil.StateApproved {
		t.Fatalf("cy made it %s", s)
	}
	approved := edge.do(http.MethodGet, first.Task.Endpoint, "")
	if approved.Task.Status != "approved" || approved.Result.Mode != "reevaluate" || approved.Result.Approval.ID != first.Task.ID || approved.Result.Approval.Until.IsZero() {
		t.Errorf("approved: %s", approved.body)
	}
	sys.Restart() // a task's handle outlives whoever has it
	wantDecision(t, "without naming it", edge.evaluate(refund), false)
	wantDecision(t, "for another amount", edge.evaluate(strings.Replace(use(first.Task.ID), `"amount":1`, `"amount":2`, 1)), false)
	wantDecision(t, "for another agent", edge.evaluate(strings.Replace(use(first.Task.ID), "payroll", "auditor", 1)), false)
	named := question("payroll", "till/pay", refundOne, `{"authzen_access_request_approval":`+string(approved.Result.Context)+`}`)
	used := edge.evaluate(named)
	wantDecision(t, "as approved", used, true)
	e := entryAt(t, sys, used.Context.EvaluationID)
	if e.Agent != "edge" || e.OnBehalfOf != "payroll" || e.Approval.ID != first.Task.ID || !slices.Equal(e.Approval.Signers, []string{"cy"}) {
		t.Errorf("the entry: %+v", e)
	}
	spent := edge.evaluate(named)
	wantDecision(t, "a second time", spent, false)
	if spent.Context.Reason != counterfoil.ApprovalSpent {
		t.Errorf("a second time: %s", spent.body)
	}
	if a := edge.do(http.MethodPost, first.Task.Endpoint+"/cancel", ""); a.status != http.StatusConflict || a.Type != "urn:openid:authzen:access-request:error:invalid_task_state" {
		t.Errorf("cancelling what was used: HTTP %d %s", a.status, a.body)
	}
	sys.CheckLedger()
}

// TestAPointCancels what it asked for.
func TestAPointCancels(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(tillManifest(sys))
	edge := newPoint(sys, "edge")
	denied := edge.evaluate(question("payroll", "till/pay", refundOne, ""))
	task := edge.do(http.MethodPost, "/access/v1/requests", `{"denial":{"access_request":{"request_context":"`+denied.Context.Request.Context+`"}}}`).Task
	if a := edge.do(http.MethodPost, task.Links.Cancel, ""); a.status != http.StatusOK || a.Task.Status != "cancelled" {
		t.Errorf("cancelling: HTTP %d %s", a.status, a.body)
	}
	if a := edge.do(http.MethodPost, task.Links.Cancel, ""); a.status != http.StatusConflict {
		t.Errorf("cancelling again: HTTP %d %s", a.status, a.body)
	}
	sys.Clock.Advance(11 * time.Minute)
	if a := edge.do(http.MethodPost, "/access/v1/requests", `{"request_context":"`+denied.Context.Request.Context+`"}`); a.status != http.StatusBadRequest {
		t.Errorf("a denial whose time is over: HTTP %d %s", a.status, a.body)
	}
	sys.CheckLedger()
}

// TestSuspendingAnAgentVoidsWhatAPointAsked: what people allowed before is not allowed
// after the agent is back.
func TestSuspendingAnAgentVoidsWhatAPointAsked(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(tillManifest(sys))
	edge := newPoint(sys, "edge")
	denied := edge.evaluate(question("payroll", "till/pay", refundOne, ""))
	task := edge.do(http.MethodPost, "/access/v1/requests", `{"request_context":"`+denied.Context.Request.Context+`"}`).Task
	if s := sys.Approver("cy").Countersign(task.ID); s != counterfoil.StateApproved {
		t.Fatalf("cy made it %s", s)
	}
	sys.Clock.Advance(time.Second)
	sys.Suspend("payroll")
	sys.Resume("payroll")
	a := edge.evaluate(question("payroll", "till/pay", refundOne, `{"authzen_access_request_approval":{"id":"`+task.ID+`"}}`))
	wantDecision(t, "after the agent was suspended", a, false)
	if a.Context.Reason != counterfoil.ApprovalRevoked {
		t.Errorf("%s", a.body)
	}
	sys.CheckLedger()
}

// TestNobodyAsksWithoutAToken: a decision point answers those that it knows.
func TestNobodyAsksWithoutAToken(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(pointManifest + "---\n" + certification)
	const ask = `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`
	wantDecision(t, "control", newPoint(sys, "edge").evaluate(ask), true)
	for _, path := range []string{"/access/v1/evaluation", "/access/v1/evaluations", "/access/v1/requests"} {
		resp, err := http.Post(sys.Issuer()+path, "application/json", strings.NewReader(ask))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: HTTP %d", path, resp.StatusCode)
		}
	}
	wantDecision(t, "a point of no vocabulary", newPoint(sys, "nobody").evaluate(ask), false)
}
