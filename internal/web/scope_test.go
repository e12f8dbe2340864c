package web_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func target(name string) func(*request) {
	return func(q *request) { q.Form.Set("resource", strings.Replace(q.Form.Get("resource"), "/r/bank", name, 1)) }
}

func both(edits ...func(*request)) func(*request) {
	return func(q *request) {
		for _, e := range edits {
			e(q)
		}
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	no := func(name string, edit func(*request)) row {
		return row{"RES", name, edit, 400, "invalid_target", counterfoil.TargetInvalid}
	}
	run(t, s, k, []row{
		no("none", field("resource")),
		no("empty", field("resource", "")),
		no("twice the same", field("resource", s.issuer+"/r/bank", s.issuer+"/r/bank")),
		no("two", field("resource", s.issuer+"/r/bank", s.issuer+"/r/crm")),
		no("unknown", target("/r/nothing")),
		no("nothing granted there", target("/r/empty")),
		no("of another environment", target("/r/lab")),
		no("a slash at its end", target("/r/bank/")),
		no("below the resource", target("/r/bank/tools")),
		no("a query", target("/r/bank?a=1")),
		no("a fragment", target("/r/bank#a")),
		no("an empty fragment", target("/r/bank#")),
		no("another case", target("/R/bank")),
		no("an escape", target("/r/b%61nk")),
		no("dot segments", target("/r/x/../bank")),
		no("a name alone", field("resource", "bank")),
		no("another issuer", field("resource", "https://as.example/r/bank")),
		no("the issuer with a slash", field("resource", s.issuer+"/")),
		no("too long", field("resource", s.issuer+"/r/"+strings.Repeat("a", 3000))),
		no("the gateway's URL of a resource that has its own", target("/r/vault")),
		passes("RES", "another one that is granted", target("/r/crm")),
		passes("RES", "a direct one by its own URL", field("resource", "https://vault.example/api")),
		{"TL1", "a task", field("task", "tsk_none"), 400, "invalid_grant", counterfoil.TaskClosed},
	})
	wantStatus(t, s.token(s.enrol("tasked")), 400, "invalid_grant", counterfoil.TaskClosed)
	gardener := s.enrol("gardener")
	if a := s.token(gardener, target("/r/lab")); a.status != 200 {
		t.Errorf("within its environment: %d %s", a.status, a.body)
	}
	wantStatus(t, s.token(gardener), 400, "invalid_target", counterfoil.TargetInvalid) // granted, and of another environment
}

func TestScopes(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	no := func(name, scope string) row {
		return row{"SC", name, field("scope", scope), 400, "invalid_scope", counterfoil.ScopeInvalid}
	}
	approval := func(name string, edit func(*request)) row {
		return row{"SC", name, edit, 400, "access_denied", counterfoil.ApprovalRequired}
	}
	vault := field("resource", "https://vault.example/api")
	run(t, s, k, []row{
		no("a tool that is not granted", "list_payees"),
		no("one granted, one not", "pay list_payees"),
		no("a tool that is nowhere", "steal"),
		no("everything", "*"),
		no("another case", "Pay"),
		no("two spaces", "pay  get_balance"),
		no("a space at its end", "pay "),
		no("a comma", "pay,get_balance"),
		no("a quote", `pay"`),
		no("with the resource", "bank/pay"),
		no("too many", strings.Repeat("a ", 300)+"a"),
		{"SC", "a tool at the issuer", both(field("resource", s.issuer), field("scope", "pay")), 400, "invalid_scope", counterfoil.ScopeInvalid},
		approval("above routine at a direct resource", both(vault, field("scope", "empty"))),
		approval("routine and above at a direct resource", both(vault, field("scope", "look empty"))),
	})
	for _, tt := range []struct {
		name, want string
		edit       func(*request)
	}{
		{"none", "get_balance pay", func(*request) {}},
		{"one", "pay", field("scope", "pay")},
		{"one twice", "pay", field("scope", "pay pay")},
		{"both", "get_balance pay", field("scope", "pay get_balance")},
		{"direct: what is above routine is left out", "look", vault},
		{"the issuer's has none", "", field("resource", s.issuer)},
	} {
		a := s.token(k, tt.edit)
		if a.status != 200 || a.member("scope") != tt.want {
			t.Errorf("%s: %d %s, want scope %q", tt.name, a.status, a.body, tt.want)
		}
	}
	e := s.entries(ledger.TokenIssued)
	if last := e[len(e)-1]; last.Resource != "" || len(last.Scope) != 0 {
		t.Errorf("the entry of a token for the issuer: %+v", last)
	}
}

// detail makes authorization_details of one tool at the bank.
func (s *system) detail(edit func(map[string]any)) string {
	s.t.Helper()
	m := map[string]any{
		"type": counterfoil.DetailType, "locations": []string{s.issuer + "/r/bank"}, "actions": []string{"call"}, "tool": "pay",
		"action_class": "payout", "constraints": map[string]any{"/amount": map[string]any{"max": "500.00"}},
	}
	edit(m)
	b, err := json.Marshal([]any{m})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func asIs(map[string]any) {}

func details(text string) func(*request) { return field("authorization_details", text) }

func TestAuthorizationDetails(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	detail := s.detail
	set := func(name string, value any) func(map[string]any) { return func(m map[string]any) { m[name] = value } }
	drop := func(name string) func(map[string]any) { return func(m map[string]any) { delete(m, name) } }
	no := func(name, text string) row {
		return row{"RAR", name, details(text), 400, "invalid_authorization_details", counterfoil.DetailsInvalid}
	}
	good := detail(asIs)
	run(t, s, k, []row{
		no("no JSON", "pay"),
		no("an object", strings.Trim(good, "[]")),
		no("an empty array", "[]"),
		no("null", "null"),
		no("an array of null", "[null]"),
		no("an array of text", `["pay"]`),
		no("more after it", good+"[]"),
		no("another type", detail(set("type", "payment_initiation"))),
		no("no type", detail(drop("type"))),
		no("an unknown member", detail(set("amount", "1"))),
		no("the one-shot form", detail(set("call_digest", "sha-256:x"))),
		no("tool in another case", strings.Replace(good, `"tool"`, `"Tool"`, 1)),
		no("tool twice", strings.Replace(good, `"tool":"pay"`, `"tool":"get_balance","tool":"pay"`, 1)),
		no("no tool", detail(drop("tool"))),
		no("a tool that is a number", detail(set("tool", 7))),
		no("a tool that is null", detail(set("tool", nil))),
		no("a tool that is not granted", detail(set("tool", "list_payees"))),
		no("a tool that is nowhere", detail(set("tool", "steal"))),
		no("no locations", detail(drop("locations"))),
		no("another resource", detail(set("locations", []string{s.issuer + "/r/crm"}))),
		no("two locations", detail(set("locations", []string{s.issuer + "/r/bank", s.issuer + "/r/crm"}))),
		no("locations as text", detail(set("locations", s.issuer+"/r/bank"))),
		no("another action", detail(set("actions", []string{"delete"}))),
		no("another class", detail(set("action_class", "read"))),
		no("a digest of nothing that is pinned", detail(set("tool_digest", "sha-256:x"))),
		no("constraints null", detail(set("constraints", nil))),
		no("constraints as array", detail(set("constraints", []any{}))),
		no("a constraint of two members", detail(set("constraints", map[string]any{"/amount": map[string]any{"max": "1", "equals": "1"}}))),
		no("a constraint of none", detail(set("constraints", map[string]any{"/amount": map[string]any{}}))),
		no("an unknown constraint", detail(set("constraints", map[string]any{"/amount": map[string]any{"min": "1"}}))),
		no("a maximum that is a number", detail(set("constraints", map[string]any{"/amount": map[string]any{"max": 500}}))),
		no("a maximum that is no decimal", detail(set("constraints", map[string]any{"/amount": map[string]any{"max": "many"}}))),
		no("a name instead of a pointer", detail(set("constraints", map[string]any{"amount": map[string]any{"max": "1"}}))),
		no("too large", detail(set("tool", strings.Repeat("a", 5000)))),
		no("too many", "["+strings.Repeat(strings.Trim(detail(drop("constraints")), "[]")+",", 16)+strings.Trim(good, "[]")+"]"),
		{"RAR", "at the issuer", both(details(good), field("resource", s.issuer)), 400, "invalid_authorization_details", counterfoil.DetailsInvalid},
		passes("RAR", "the smallest", details(detail(func(m map[string]any) {
			delete(m, "actions")
			delete(m, "action_class")
			delete(m, "constraints")
		}))),
	})
}

func TestAuthorizationDetailsAreGranted(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	good := s.detail(asIs)
	for _, tt := range []struct {
		name, want string
		edit       func(*request)
	}{
		{"details alone", "pay", details(good)},
		{"details and the same in scope", "pay", both(details(good), field("scope", "pay"))},
		{"details and another in scope", "get_balance pay", both(details(good), field("scope", "get_balance"))},
	} {
		a := s.token(k, tt.edit)
		if a.status != 200 || a.member("scope") != tt.want {
			t.Errorf("%s: %d %s, want scope %q", tt.name, a.status, a.body, tt.want)
			continue
		}
		var echo struct {
			Details []counterfoil.ToolDetail `json:"authorization_details"`
		}
		if err := json.Unmarshal([]byte(a.body), &echo); err != nil || len(echo.Details) != 1 || echo.Details[0].Constraints["/amount"].Max != "500.00" {
			t.Errorf("%s: echoed %s", tt.name, a.body)
		}
		caller, err := s.verify(k, a.member("access_token"), "bank")
		if err != nil || fmt.Sprint(caller.Details) != fmt.Sprint(echo.Details) {
			t.Errorf("%s: the token has %v, %v", tt.name, caller.Details, err)
		}
	}
}

// A token that would not fit into its header is refused before it exists.
func TestTokenThatIsTooLarge(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	var tools strings.Builder
	for i := range 200 {
		fmt.Fprintf(&tools, "  - {name: %s_%d, class: read}\n", strings.Repeat("long", 12), i)
	}
	s.apply("kind: Resource\nname: wide\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:1/mcp\ntools:\n" + tools.String() +
		"---\nkind: Agent\nname: payroll\nowner: ana\nenvironment: prod\ngrants: [{tools: [\"wide/*\"]}]\n")
	k := s.enrol("payroll")
	wantStatus(t, s.token(k, target("/r/wide")), 400, "invalid_scope", counterfoil.ScopeInvalid)
	a := s.token(k, target("/r/wide"), field("scope", strings.Repeat("long", 12)+"_7"))
	if a.status != 200 {
		t.Fatalf("one tool by name: %d %s", a.status, a.body)
	}
	if _, err := s.verify(k, a.member("access_token"), "wide"); err != nil {
		t.Error(err)
	}
}
