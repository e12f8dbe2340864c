package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// noon is a Monday.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

const exampleWhen = `context.fields.amount.greaterThan(decimal("0.0")) && context.fields.amount.lessThanOrEqual(decimal("50000.0"))`

// bank returns a registry like the contract's example, with routine payouts so
// that conditions and policies are seen.
func bank() *counterfoil.Registry {
	reg := counterfoil.NewRegistry()
	reg.Classes = map[string]*counterfoil.Class{
		"read":     {Name: "read", Tier: counterfoil.Routine},
		"payout":   {Name: "payout", Tier: counterfoil.Routine},
		"limited":  {Name: "limited", Tier: counterfoil.Routine, Limits: []counterfoil.Limit{{Sum: "amount", Per: "agent", Window: counterfoil.Duration(time.Hour), Max: "100.50"}}},
		"guarded":  {Name: "guarded", Tier: counterfoil.Guarded},
		"final":    {Name: "final", Tier: counterfoil.Irreversible},
		"never":    {Name: "never", Tier: counterfoil.Forbidden},
		"unlikely": {Name: "unlikely", Tier: counterfoil.Routine, Limits: []counterfoil.Limit{{Sum: "amount", Max: "much"}}},
	}
	fields := map[string]string{"amount": "/amount", "currency": "/currency", "to": "/payee/iban"}
	reg.Resources = map[string]*counterfoil.Resource{
		"bank": {Name: "bank", Type: counterfoil.ResourceMCP, Environment: "prod", Prompts: "read", Tools: []counterfoil.Tool{
			{Name: "get_balance", Class: "read"},
			{Name: "pay", Class: "payout", Fields: fields},
			{Name: "pay_limited", Class: "limited", Fields: fields},
			{Name: "pay_guarded", Class: "guarded", Fields: fields},
			{Name: "pay_final", Class: "final", Fields: fields},
			{Name: "pay_never", Class: "never"},
			{Name: "pay_ghost", Class: "ghost"},
			{Name: "pay_unlikely", Class: "unlikely", Fields: fields},
			{Name: "unclassified"},
		}},
		"lab": {Name: "lab", Type: counterfoil.ResourceMCP, Environment: "test", Tools: []counterfoil.Tool{{Name: "probe", Class: "read"}}},
		"far": {Name: "far", Type: counterfoil.ResourceDirect, Environment: "prod", Tools: []counterfoil.Tool{{Name: "look", Class: "read"}, {Name: "reset", Class: "guarded"}}},
	}
	reg.Agents = map[string]*counterfoil.Agent{
		"payroll": {Name: "payroll", Environment: "prod", Grants: []counterfoil.Grant{
			{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "*"}, {Resource: "lab", Tool: "probe"}, {Resource: "far", Tool: "*"}}},
		}},
		"idle": {Name: "idle", Environment: "prod"},
	}
	return reg
}

func load(t testing.TB, reg *counterfoil.Registry) *Set {
	t.Helper()
	s, problems := Load(reg)
	if len(problems) > 0 {
		t.Fatalf("loading: %+v", problems)
	}
	return s
}

func action(tool, args string) counterfoil.Action {
	r, name, ok := strings.Cut(tool, "/")
	if !ok {
		r, name = "bank", tool
	}
	return counterfoil.Action{
		Caller: counterfoil.Caller{
			Agent: "payroll", Environment: "prod", Subject: "payroll", KeyKind: "ES256",
			Audience: "https://gw.example/r/" + r, Scope: []string{name},
		},
		Tool:      counterfoil.ToolID{Resource: r, Tool: name},
		Arguments: []byte(args),
		Source:    netip.MustParseAddr("127.0.0.1"),
	}
}

// want checks a decision and what holds for every decision.
func want(t *testing.T, d Decision, code counterfoil.Code, detail string) {
	t.Helper()
	if d.Code != code {
		t.Fatalf("code %q, want %q (detail %q)", d.Code, code, d.Detail)
	}
	if d.Allow != (code == "") {
		t.Fatalf("allow is %t beside code %q", d.Allow, d.Code)
	}
	if !strings.Contains(d.Detail, detail) {
		t.Fatalf("detail %q does not say %q", d.Detail, detail)
	}
	err := d.Err()
	if (err == nil) != d.Allow {
		t.Fatalf("Err is %v and allow %t", err, d.Allow)
	}
	if err != nil && counterfoil.CodeOf(err) != code {
		t.Fatalf("Err has code %q", counterfoil.CodeOf(err))
	}
}

func grantOnly(when string, networks ...netip.Prefix) func(*counterfoil.Registry, *counterfoil.Action) {
	return func(reg *counterfoil.Registry, _ *counterfoil.Action) {
		reg.Agents["payroll"].Grants = []counterfoil.Grant{{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "pay"}}, When: when, Networks: networks}}
	}
}

func policyOnly(cedar string) func(*counterfoil.Registry, *counterfoil.Action) {
	return func(reg *counterfoil.Registry, _ *counterfoil.Action) {
		reg.Policies["p"] = &counterfoil.Policy{Name: "p", Cedar: cedar}
	}
}

const pay100 = `{"amount":100,"currency":"EUR","payee":{"iban":"DE02","name":"Bo"}}`

// Every refusal has a row that differs from an allowed one in one thing.
func TestDecide(t *testing.T) {
	t.Parallel()
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	type change = func(*counterfoil.Registry, *counterfoil.Action)
	tests := []struct {
		name   string
		tool   string
		args   string
		change change
		code   counterfoil.Code
		detail string
	}{
		{"read is allowed", "get_balance", `{}`, nil, "", ""},
		{"no arguments at all", "get_balance", ``, nil, "", ""},
		{"prompts have a class", "prompts", `{}`, nil, "", ""},
		{"resources have none", "resources", `{}`, nil, counterfoil.ToolUnknown, "no manifest classifies bank/resources"},
		{"tool without a class", "unclassified", `{}`, nil, counterfoil.ToolUnknown, "bank/unclassified"},
		{"tool nobody knows", "nothing", `{}`, nil, counterfoil.ToolUnknown, ""},
		{"the star is no tool", "*", `{}`, nil, counterfoil.ToolUnknown, ""},
		{"resource nobody knows", "nowhere/get_balance", `{}`, nil, counterfoil.ToolUnknown, ""},

		{"not in scope", "get_balance", `{}`, func(_ *counterfoil.Registry, a *counterfoil.Action) { a.Caller.Scope = []string{"pay"} }, counterfoil.ToolNotGranted, "scope does not include get_balance"},
		{"scope star is no wildcard", "get_balance", `{}`, func(_ *counterfoil.Registry, a *counterfoil.Action) { a.Caller.Scope = []string{"*"} }, counterfoil.ToolNotGranted, ""},
		{"no scope", "get_balance", `{}`, func(_ *counterfoil.Registry, a *counterfoil.Action) { a.Caller.Scope = nil }, counterfoil.ToolNotGranted, ""},
		{"agent without grants", "get_balance", `{}`, func(_ *counterfoil.Registry, a *counterfoil.Action) { a.Caller.Agent = "idle" }, counterfoil.ToolNotGranted, `no grant of agent "idle" lists bank/get_balance`},
		{"agent unknown", "get_balance", `{}`, func(_ *counterfoil.Registry, a *counterfoil.Action) { a.Caller.Agent = "nobody" }, counterfoil.ToolNotGranted, ""},
		{"grant for another tool", "get_balance", `{}`, grantOnly(""), counterfoil.ToolNotGranted, ""},
		{"grant for this tool", "pay", pay100, grantOnly(""), "", ""},

		{"resource elsewhere", "lab/probe", `{}`, nil, counterfoil.OutsideEnvironment, `"test"`},
		{"token from elsewhere", "get_balance", `{}`, func(_ *counterfoil.Registry, a *counterfoil.Action) { a.Caller.Environment = "test" }, counterfoil.OutsideEnvironment, ""},
		{"token from nowhere", "get_balance", `{}`, func(_ *counterfoil.Registry, a *counterfoil.Action) { a.Caller.Environment = "" }, counterfoil.OutsideEnvironment, ""},
		{"agent moved since", "get_balance", `{}`, func(r *counterfoil.Registry, _ *counterfoil.Action) { r.Agents["payroll"].Environment = "test" }, counterfoil.OutsideEnvironment, ""},
		{"inside the network", "pay", pay100, grantOnly("", loopback), "", ""},
		{"inside, mapped into IPv6", "pay", pay100, func(r *counterfoil.Registry, a *counterfoil.Action) {
			grantOnly("", loopback)(r, a)
			a.Source = netip.MustParseAddr("::ffff:127.0.0.1")
		}, "", ""},
		{"outside the network", "pay", pay100, func(r *counterfoil.Registry, a *counterfoil.Action) {
			grantOnly("", loopback)(r, a)
			a.Source = netip.MustParseAddr("10.0.0.1")
		}, counterfoil.OutsideEnvironment, "10.0.0.1"},
		{"address unknown", "pay", pay100, func(r *counterfoil.Registry, a *counterfoil.Action) {
			grantOnly("", loopback)(r, a)
			a.Source = netip.Addr{}
		}, counterfoil.OutsideEnvironment, "unknown"},
		{"address unknown and no networks", "pay", pay100, func(r *counterfoil.Registry, a *counterfoil.Action) {
			grantOnly("")(r, a)
			a.Source = netip.Addr{}
		}, "", ""},

		{"class forbidden", "pay_never", `{}`, nil, counterfoil.ClassForbidden, `"never"`},
		{"class not there", "pay_ghost", `{}`, nil, counterfoil.ClassForbidden, `"ghost"`},

		{"condition holds", "pay", pay100, grantOnly(exampleWhen), "", ""},
		{"condition holds at its edge", "pay", `{"amount":50000}`, grantOnly(exampleWhen), "", ""},
		{"condition holds for a fraction", "pay", `{"amount":0.0001}`, grantOnly(exampleWhen), "", ""},
		{"condition fails by a unit", "pay", `{"amount":50000.0001}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, `condition of grant 1 of agent "payroll"`},
		{"condition fails at zero", "pay", `{"amount":0}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, ""},
		{"condition fails below zero", "pay", `{"amount":-1}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, ""},
		{"condition errs: string", "pay", `{"amount":"100"}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, "cannot be evaluated"},
		{"condition errs: absent", "pay", `{}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, "cannot be evaluated"},
		{"condition errs: object", "pay", `{"amount":{}}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, "cannot be evaluated"},
		{"condition unknowable: null", "pay", `{"amount":null}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, "no rule can judge"},
		{"condition unknowable: five places", "pay", `{"amount":1.00001}`, grantOnly(exampleWhen), counterfoil.PolicyForbids, "no rule can judge"},

		{"forbid applies", "pay", pay100, policyOnly(`forbid (principal, action == Action::"call", resource in Class::"payout") when { context.hour < 13 };`), counterfoil.PolicyForbids, `policy "p", line 1 forbids the call`},
		{"forbid does not apply", "pay", pay100, policyOnly(`forbid (principal, action == Action::"call", resource in Class::"payout") when { context.hour > 13 };`), "", ""},
		{"forbid for another class", "pay", pay100, policyOnly(`forbid (principal, action, resource in Class::"read");`), "", ""},
		{"forbid for another agent", "pay", pay100, policyOnly(`forbid (principal == Agent::"idle", action, resource);`), "", ""},
		{"unless", "pay", pay100, policyOnly(`forbid (principal, action, resource) unless { context.weekday == 1 };`), "", ""},
		{"second forbid of a document", "pay", pay100, policyOnly("forbid (principal, action, resource in Class::\"read\");\nforbid (principal == Agent::\"payroll\", action, resource == Tool::\"bank/pay\");"), counterfoil.PolicyForbids, `policy "p", line 2`},
		{"forbid errs", "pay", `{"amount":"60000"}`, policyOnly(`forbid (principal, action, resource) when { context.args.amount > 50000 };`), counterfoil.PolicyForbids, "cannot be evaluated"},
		{"forbid judges", "pay", `{"amount":60000}`, policyOnly(`forbid (principal, action, resource) when { context.args.amount > 50000 };`), counterfoil.PolicyForbids, "forbids the call"},
		{"forbid lets pass", "pay", `{"amount":50000}`, policyOnly(`forbid (principal, action, resource) when { context.args.amount > 50000 };`), "", ""},
		{"erring forbid out of scope", "pay", `{"amount":"60000"}`, policyOnly(`forbid (principal, action, resource in Class::"read") when { context.args.amount > 50000 };`), "", ""},
		{"policy that cannot be compiled", "get_balance", `{}`, policyOnly(`forbid (`), counterfoil.PolicyForbids, "cannot be compiled"},

		{"arguments nobody reads", "pay", `[`, nil, "", ""},
		{"arguments a rule reads", "pay", `[`, policyOnly(`forbid (principal, action, resource) when { context.args has x };`), counterfoil.PayloadMalformed, ""},

		{"within the limit", "pay_limited", `{"amount":100.5}`, nil, "", ""},
		{"zero", "pay_limited", `{"amount":0}`, nil, "", ""},
		{"above the limit", "pay_limited", `{"amount":100.5001}`, nil, counterfoil.LimitExceeded, "more than 100.50"},
		{"limit: negative", "pay_limited", `{"amount":-0.0001}`, nil, counterfoil.LimitExceeded, "negative"},
		{"limit: absent", "pay_limited", `{}`, nil, counterfoil.LimitExceeded, "no such field"},
		{"limit: string", "pay_limited", `{"amount":"1"}`, nil, counterfoil.LimitExceeded, "not a JSON number"},
		{"limit: null", "pay_limited", `{"amount":null}`, nil, counterfoil.LimitExceeded, "not a JSON number"},
		{"limit: five places", "pay_limited", `{"amount":0.00001}`, nil, counterfoil.LimitExceeded, "four places"},
		{"limit: huge", "pay_limited", `{"amount":1e300}`, nil, counterfoil.LimitExceeded, "four places"},
		{"limit: no JSON", "pay_limited", `{"amount":1,}`, nil, counterfoil.PayloadMalformed, ""},
		{"limit of the class is none", "pay_unlikely", `{"amount":1}`, nil, counterfoil.LimitExceeded, "not a decimal"},

		{"guarded", "pay_guarded", pay100, nil, counterfoil.ApprovalRequired, "one person"},
		{"irreversible", "pay_final", pay100, nil, counterfoil.ApprovalRequired, "two people"},
		{"forbid before approval", "pay_final", pay100, policyOnly(`forbid (principal, action, resource);`), counterfoil.PolicyForbids, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg, a := bank(), action(tt.tool, tt.args)
			if tt.change != nil {
				tt.change(reg, &a)
			}
			s, _ := Load(reg)
			want(t, s.Decide(a, noon), tt.code, tt.detail)
		})
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	t.Parallel()
	var nilSet *Set
	want(t, nilSet.Decide(action("pay", pay100), noon), counterfoil.PolicyForbids, "no policy")
	want(t, (&Set{}).Decide(action("pay", pay100), noon), counterfoil.ToolUnknown, "")
	want(t, load(t, bank()).Decide(counterfoil.Action{}, time.Time{}), counterfoil.ToolUnknown, "")
	if err := (Decision{}).Err(); counterfoil.CodeOf(err) != counterfoil.PolicyForbids {
		t.Errorf("zero decision: %v", err)
	}
	if nilSet.Digest() != "" || nilSet.Callable(action("pay", "").Caller, "bank")("pay") {
		t.Error("a nil set says something")
	}
	if _, err := nilSet.Narrow("payroll", "bank", nil); counterfoil.CodeOf(err) != counterfoil.ClientRefused {
		t.Errorf("nil set narrows: %v", err)
	}
	empty, problems := Load(nil)
	if len(problems) > 0 {
		t.Errorf("loading nothing: %v", problems)
	}
	want(t, empty.Decide(action("pay", pay100), noon), counterfoil.ToolUnknown, "")
	holes := counterfoil.NewRegistry()
	holes.Agents["a"], holes.Classes["c"], holes.Resources["r"], holes.Policies["p"] = nil, nil, nil, nil
	s, problems := Load(holes)
	if len(problems) > 0 || s.Digest() == "" {
		t.Errorf("loading holes: %v", problems)
	}
	Warnings(holes)
	Warnings(nil)
}

func TestDecisionCarries(t *testing.T) {
	t.Parallel()
	s := load(t, bank())
	d := s.Decide(action("pay_final", `{"amount":12.50,"currency":"E\u0055R","payee":{"iban":["x",1]}}`), noon)
	if d.Class != "final" || d.Tier != counterfoil.Irreversible {
		t.Errorf("class %q tier %v", d.Class, d.Tier)
	}
	if d.Fields["amount"] != "12.50" || d.Fields["currency"] != "EUR" || d.Fields["to"] != `["x",1]` || len(d.Fields) != 3 {
		t.Errorf("fields %v", d.Fields)
	}
	if d := s.Decide(action("pay_final", `{"currency":null}`), noon); d.Fields["currency"] != "null" || len(d.Fields) != 1 {
		t.Errorf("fields %v", d.Fields)
	}
	a := action("get_balance", "{}")
	a.Caller.Scope = nil
	if r, ok := counterfoil.AsRefusal(s.Decide(a, noon).Err()); !ok || r.Scope != "get_balance" {
		t.Errorf("the scope that would suffice is missing: %+v", r)
	}
	a.Caller.Agent, a.Caller.Scope = "idle", []string{"get_balance"}
	if r, _ := counterfoil.AsRefusal(s.Decide(a, noon).Err()); r.Scope != "" {
		t.Errorf("scope %q does not suffice", r.Scope)
	}
}

// Of several grants that cover a call one condition is enough, but none may err.
func TestSeveralGrants(t *testing.T) {
	t.Parallel()
	pay := []counterfoil.ToolID{{Resource: "bank", Tool: "pay"}}
	star := []counterfoil.ToolID{{Resource: "bank", Tool: "*"}}
	small := `context.args.amount < 10`
	big := `context.args.amount > 1000`
	office := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	tests := []struct {
		name   string
		grants []counterfoil.Grant
		args   string
		code   counterfoil.Code
		detail string
	}{
		{"first holds", []counterfoil.Grant{{Tools: pay, When: small}, {Tools: star, When: big}}, `{"amount":1}`, "", ""},
		{"second holds", []counterfoil.Grant{{Tools: pay, When: small}, {Tools: star, When: big}}, `{"amount":2000}`, "", ""},
		{"none holds", []counterfoil.Grant{{Tools: pay, When: small}, {Tools: star, When: big}}, `{"amount":100}`, counterfoil.PolicyForbids, `any of the grants 1, 2 of agent "payroll"`},
		{"one is open", []counterfoil.Grant{{Tools: pay, When: small}, {Tools: star}}, `{"amount":100}`, "", ""},
		{"one is open, the other errs", []counterfoil.Grant{{Tools: star}, {Tools: pay, When: small}}, `{"amount":"100"}`, counterfoil.PolicyForbids, "condition of grant 2"},
		{"one is open, the other cannot be compiled", []counterfoil.Grant{{Tools: star}, {Tools: pay, When: "?"}}, `{"amount":100}`, counterfoil.PolicyForbids, "grant 2"},
		{"the erring one is for elsewhere", []counterfoil.Grant{{Tools: star}, {Tools: pay, When: small, Networks: office}}, `{"amount":"100"}`, "", ""},
		{"the open one is for elsewhere", []counterfoil.Grant{{Tools: star, Networks: office}, {Tools: pay, When: small}}, `{"amount":100}`, counterfoil.PolicyForbids, "grant 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := bank()
			reg.Agents["payroll"].Grants = tt.grants
			s, _ := Load(reg)
			want(t, s.Decide(action("pay", tt.args), noon), tt.code, tt.detail)
		})
	}
}

// The context has what the package says it has, of the type it says.
func TestContext(t *testing.T) {
	t.Parallel()
	full := action("pay", `{"amount":12.5,"n":12,"s":"x","b":true,"list":[1,1,2],"payee":{"iban":"DE02"},"odd name":{"":1}}`)
	full.Caller.Task, full.Caller.Actors = "tsk_1", []string{"idle", "payroll"}
	bare := counterfoil.Action{Caller: counterfoil.Caller{Agent: "payroll", Environment: "prod", Scope: []string{"pay"}}, Tool: full.Tool}
	sunday := time.Date(2026, 3, 1, 23, 30, 0, 0, time.FixedZone("", -3600)) // Monday 00:30 UTC
	tests := []struct {
		when string
		a    counterfoil.Action
		now  time.Time
		ok   bool
	}{
		{`principal == Agent::"payroll" && action == Action::"call" && resource == Tool::"bank/pay"`, full, noon, true},
		{`resource in Class::"payout" && resource in Resource::"bank" && resource is Tool && principal is Agent`, full, noon, true},
		{`resource in Class::"read"`, full, noon, false},
		{`context.hour == 12 && context.weekday == 1`, full, noon, true},
		{`context.hour == 0 && context.weekday == 1`, full, sunday, true},
		{`context.weekday == 7`, full, noon.AddDate(0, 0, -1), true},
		{`context.weekday == 6`, full, noon.AddDate(0, 0, -2), true},
		{`context.network.isInRange(ip("127.0.0.0/8")) && context.network == ip("127.0.0.1")`, full, noon, true},
		{`context has network`, bare, noon, false},
		{`context.task == "tsk_1" && context.subject == "payroll" && context.key_kind == "ES256"`, full, noon, true},
		{`context.actors.contains("idle") && context.actors.containsAll(["payroll", "idle"])`, full, noon, true},
		{`context has task || context has subject || context has actors || context has key_kind`, bare, noon, false},
		{`context has args && context has fields && context has hour && context has weekday`, bare, noon, true},
		{`context.args == {} && context.fields == {}`, bare, noon, true},
		{`context.args.n == 12 && context.args.s == "x" && context.args.b && context.args.payee.iban == "DE02"`, full, noon, true},
		{`context.args.amount == decimal("12.5") && context.fields.amount == decimal("12.50")`, full, noon, true},
		{`context.args.list == [2, 1]`, full, noon, true},
		{`context.args["odd name"][""] == 1`, full, noon, true},
		{`context.fields == {"amount": decimal("12.5"), "to": "DE02"}`, full, noon, true},
		{`context.args has payee.iban && !(context.args has payee.bic)`, full, noon, true},
		{`context == {}`, bare, noon, false},
	}
	for _, tt := range tests {
		t.Run(tt.when, func(t *testing.T) {
			t.Parallel()
			reg := bank()
			grantOnly(tt.when)(reg, nil)
			code := counterfoil.PolicyForbids
			if tt.ok {
				code = ""
			}
			d := load(t, reg).Decide(tt.a, tt.now)
			if strings.Contains(d.Detail, "evaluated") {
				t.Fatal(d.Detail)
			}
			want(t, d, code, "")
		})
	}
}

// What is an integer in the arguments is a decimal in the fields, so that one
// rule meets 12 and 12.50, at any depth.
func TestFieldsAreDecimal(t *testing.T) {
	t.Parallel()
	reg := bank()
	reg.Resources["bank"].Tools[1].Fields = map[string]string{"amount": "/amount", "all": "/all"}
	grantOnly(`context.fields.amount.lessThan(decimal("13.0")) && (if context.fields has all then context.fields.all == {"a": [decimal("1.0"), decimal("2.5")]} else true)`)(reg, nil)
	s := load(t, reg)
	for _, args := range []string{`{"amount":12}`, `{"amount":12.50}`, `{"amount":12.5}`, `{"amount":-3}`, `{"amount":1.25e1}`, `{"amount":1,"all":{"a":[1,2.5,1]}}`} {
		want(t, s.Decide(action("pay", args), noon), "", "")
	}
	for _, args := range []string{`{"amount":13}`, `{"amount":13.0}`, `{"amount":12,"all":{"a":[1]}}`} {
		want(t, s.Decide(action("pay", args), noon), counterfoil.PolicyForbids, "condition")
	}
	// 2^53−1 is a long and no decimal.
	want(t, s.Decide(action("pay", `{"amount":9007199254740991}`), noon), counterfoil.PolicyForbids, "no rule can judge")
}

// A set decides for many at once (meaningful under the race detector).
func TestConcurrentDecide(t *testing.T) {
	t.Parallel()
	reg := bank()
	grantOnly(exampleWhen)(reg, nil)
	policyOnly(`forbid (principal, action, resource) when { context.args.amount == 7 };`)(reg, nil)
	s := load(t, reg)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				amount := (i + j) % 10
				d := s.Decide(action("pay", fmt.Sprintf(`{"amount":%d}`, amount)), noon)
				if d.Allow != (amount != 0 && amount != 7) {
					t.Errorf("amount %d: %+v", amount, d)
				}
			}
		})
	}
	wg.Wait()
}
