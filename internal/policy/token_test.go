package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func TestNarrow(t *testing.T) {
	t.Parallel()
	s := load(t, bank())
	everything := "get_balance pay pay_final pay_ghost pay_guarded pay_limited pay_never pay_unlikely prompts"
	tests := []struct {
		name, agent, resource string
		requested             []string
		want                  string
		code                  counterfoil.Code
	}{
		{"all", "payroll", "bank", nil, everything, ""},
		{"all, when nothing is named", "payroll", "bank", []string{}, everything, ""},
		{"some, sorted, once", "payroll", "bank", []string{"pay", "get_balance", "pay"}, "get_balance pay", ""},
		{"prompts are classed", "payroll", "bank", []string{"prompts"}, "prompts", ""},
		{"resources are not", "payroll", "bank", []string{"resources"}, "", counterfoil.ScopeInvalid},
		{"unclassified", "payroll", "bank", []string{"unclassified"}, "", counterfoil.ScopeInvalid},
		{"one of two is not granted", "payroll", "bank", []string{"pay", "nothing"}, "", counterfoil.ScopeInvalid},
		{"a star is no tool", "payroll", "bank", []string{"*"}, "", counterfoil.ScopeInvalid},
		{"empty name", "payroll", "bank", []string{""}, "", counterfoil.ScopeInvalid},
		{"other environment is judged at the call", "payroll", "lab", nil, "probe", ""},
		{"no grants", "idle", "bank", nil, "", counterfoil.TargetInvalid},
		{"no grants, named", "idle", "bank", []string{"pay"}, "", counterfoil.ScopeInvalid},
		{"no such resource", "payroll", "nowhere", nil, "", counterfoil.TargetInvalid},
		{"no such agent", "nobody", "bank", nil, "", counterfoil.ClientRefused},
		{"direct: routine alone", "payroll", "far", nil, "look", ""},
		{"direct: routine", "payroll", "far", []string{"look"}, "look", ""},
		{"direct: above routine", "payroll", "far", []string{"reset"}, "", counterfoil.ApprovalRequired},
		{"direct: one of two", "payroll", "far", []string{"look", "reset"}, "", counterfoil.ApprovalRequired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := s.Narrow(tt.agent, tt.resource, tt.requested)
			if tt.code != "" {
				if _, ok := counterfoil.AsRefusal(err); !ok || counterfoil.CodeOf(err) != tt.code || got != nil {
					t.Fatalf("got %v, %v", got, err)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Fatalf("got %v, %v", got, err)
			}
		})
	}
	reg := bank()
	reg.Agents["idle"].Grants = []counterfoil.Grant{{Tools: []counterfoil.ToolID{{Resource: "far", Tool: "reset"}}}}
	if _, err := load(t, reg).Narrow("idle", "far", nil); counterfoil.CodeOf(err) != counterfoil.ApprovalRequired {
		t.Errorf("only gated tools: %v", err)
	}
}

func TestCallable(t *testing.T) {
	t.Parallel()
	s := load(t, bank())
	all := []string{"get_balance", "pay", "pay_never", "pay_ghost", "pay_final", "unclassified", "prompts", "resources", "nothing", "*"}
	shown := func(c counterfoil.Caller, resource string) string {
		f := s.Callable(c, resource)
		var out []string
		for _, name := range all {
			if f(name) {
				out = append(out, name)
			}
		}
		return strings.Join(out, " ")
	}
	c := counterfoil.Caller{Agent: "payroll", Environment: "prod", Scope: all}
	if got := shown(c, "bank"); got != "get_balance pay pay_final prompts" {
		t.Errorf("shown: %s", got)
	}
	c.Scope = []string{"pay", "nothing"}
	c.Details = []counterfoil.ToolDetail{{Type: counterfoil.DetailType, Tool: "pay_final"}}
	if got := shown(c, "bank"); got != "pay pay_final" {
		t.Errorf("shown in a narrow token: %s", got)
	}
	for name, change := range map[string]func(*counterfoil.Caller){
		"agent":       func(c *counterfoil.Caller) { c.Agent = "nobody" },
		"no grants":   func(c *counterfoil.Caller) { c.Agent = "idle" },
		"environment": func(c *counterfoil.Caller) { c.Environment = "test" },
		"token":       func(c *counterfoil.Caller) { c.Scope, c.Details = nil, nil },
	} {
		other := c
		change(&other)
		if got := shown(other, "bank"); got != "" {
			t.Errorf("%s: shown %s", name, got)
		}
	}
	if got := shown(c, "nowhere") + shown(c, "lab"); got != "" {
		t.Errorf("elsewhere: shown %s", got)
	}
}

// Each row has a control: the same call and the constraint met.
func TestDetails(t *testing.T) {
	t.Parallel()
	s := load(t, bank())
	detail := func(at string, c counterfoil.Constraint) counterfoil.ToolDetail {
		return counterfoil.ToolDetail{Type: counterfoil.DetailType, Locations: []string{"https://gw.example/r/bank"}, Actions: []string{"call"}, Tool: "pay", Constraints: map[string]counterfoil.Constraint{at: c}}
	}
	most, euro, either := counterfoil.Constraint{Max: "500.00"}, counterfoil.Constraint{Equals: "EUR"}, counterfoil.Constraint{Enum: []string{"EUR", "USD"}}
	tests := []struct {
		name string
		d    counterfoil.ToolDetail
		args string
		want string // empty: allowed
	}{
		{"max", detail("/amount", most), `{"amount":500}`, ""},
		{"max, fraction", detail("/amount", most), `{"amount":499.9999}`, ""},
		{"above max", detail("/amount", most), `{"amount":500.0001}`, "more than 500.00"},
		{"max of a string", detail("/amount", most), `{"amount":"1"}`, "not a JSON number"},
		{"max of null", detail("/amount", most), `{"amount":null}`, "not a JSON number"},
		{"max of five places", detail("/amount", most), `{"amount":1.00001}`, "four places"},
		{"max of a list", detail("/amount", most), `{"amount":[1]}`, "not a JSON number"},
		{"max of nothing", detail("/amount", most), `{}`, "absent"},
		{"equals", detail("/currency", euro), `{"currency":"E\u0055R"}`, ""},
		{"not equals", detail("/currency", euro), `{"currency":"USD"}`, `is not "EUR"`},
		{"equals, other case", detail("/currency", euro), `{"currency":"eur"}`, `is not "EUR"`},
		{"equals of a number", detail("/n", counterfoil.Constraint{Equals: "5"}), `{"n":5}`, "not a string"},
		{"equals of true", detail("/n", counterfoil.Constraint{Equals: "true"}), `{"n":true}`, "not a string"},
		{"enum", detail("/currency", either), `{"currency":"USD"}`, ""},
		{"not in enum", detail("/currency", either), `{"currency":"GBP"}`, "none of the values"},
		{"nested", detail("/payee/iban", counterfoil.Constraint{Equals: "DE02"}), `{"payee":{"iban":"DE02"}}`, ""},
		{"element", detail("/payees/1", counterfoil.Constraint{Equals: "b"}), `{"payees":["a","b"]}`, ""},
		{"empty constraint", detail("/currency", counterfoil.Constraint{}), `{"currency":"USD"}`, "exactly one"},
		{"two in one", detail("/currency", counterfoil.Constraint{Equals: "EUR", Enum: []string{"EUR"}}), `{"currency":"EUR"}`, "exactly one"},
		{"max that is none", detail("/amount", counterfoil.Constraint{Max: "lots"}), `{"amount":1}`, "not a decimal"},
		{"pointer that is none", detail("amount", most), `{"amount":1}`, "slash"},
		{"other place", counterfoil.ToolDetail{Type: counterfoil.DetailType, Tool: "pay", Locations: []string{"https://gw.example/r/other"}}, `{}`, "another resource"},
		{"this place", counterfoil.ToolDetail{Type: counterfoil.DetailType, Tool: "pay", Locations: []string{"https://gw.example/r/bank"}}, `{}`, ""},
		{"other action", counterfoil.ToolDetail{Type: counterfoil.DetailType, Tool: "pay", Actions: []string{"look"}}, `{}`, "action"},
		{"other class", counterfoil.ToolDetail{Type: counterfoil.DetailType, Tool: "pay", ActionClass: "read"}, `{}`, `"read"`},
		{"this class", counterfoil.ToolDetail{Type: counterfoil.DetailType, Tool: "pay", ActionClass: "payout"}, `{}`, ""},
		{"other type", counterfoil.ToolDetail{Type: "x", Tool: "pay"}, `{}`, "unknown type"},
		{"other type, other tool", counterfoil.ToolDetail{Type: "x", Tool: "get_balance"}, `{}`, "unknown type"},
		{"other tool", counterfoil.ToolDetail{Type: counterfoil.DetailType, Tool: "get_balance"}, `{}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := action("pay", tt.args)
			a.Caller.Details = []counterfoil.ToolDetail{tt.d}
			code := counterfoil.ToolNotGranted
			if tt.want == "" {
				code = ""
			}
			want(t, s.Decide(a, noon), code, tt.want)
		})
	}
	two := detail("/amount", most)
	two.Constraints["/currency"] = euro
	a := action("pay", `{"amount":1,"currency":"USD"}`)
	a.Caller.Scope, a.Caller.Details = nil, []counterfoil.ToolDetail{two}
	want(t, s.Decide(a, noon), counterfoil.ToolNotGranted, "/currency")
	// Details are alternatives, and stand for the scope.
	a.Caller.Details = []counterfoil.ToolDetail{two, detail("/amount", most)}
	want(t, s.Decide(a, noon), "", "")
	a.Arguments = []byte(`{"amount":1`)
	want(t, s.Decide(a, noon), counterfoil.PayloadMalformed, "")
}

func TestCheckDetail(t *testing.T) {
	t.Parallel()
	good := counterfoil.ToolDetail{Type: counterfoil.DetailType, Tool: "pay", Actions: []string{"call"}, Constraints: map[string]counterfoil.Constraint{"/a": {Max: "1.5"}, "/b": {Enum: []string{""}}, "/c/0": {Equals: "x"}}}
	if err := CheckDetail(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*counterfoil.ToolDetail){
		"unknown":       func(d *counterfoil.ToolDetail) { d.Type = "x" },
		"tool":          func(d *counterfoil.ToolDetail) { d.Tool = "" },
		"action":        func(d *counterfoil.ToolDetail) { d.Actions = []string{"call", "look"} },
		"slash":         func(d *counterfoil.ToolDetail) { d.Constraints = map[string]counterfoil.Constraint{"a": {Max: "1"}} },
		"exactly":       func(d *counterfoil.ToolDetail) { d.Constraints = map[string]counterfoil.Constraint{"/a": {}} },
		"not a decimal": func(d *counterfoil.ToolDetail) { d.Constraints = map[string]counterfoil.Constraint{"/a": {Max: "1e3"}} },
	} {
		d := good
		change(&d)
		if err := CheckDetail(d); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The digest is the same each time and changes with everything that decides.
func TestDigest(t *testing.T) {
	t.Parallel()
	base := load(t, bank()).Digest()
	if !strings.HasPrefix(base, "sha-256:") || len(base) != len("sha-256:")+43 {
		t.Errorf("digest %q", base)
	}
	for range 20 {
		if d := load(t, bank()).Digest(); d != base {
			t.Fatalf("digest %s, then %s", base, d)
		}
	}
	seen := []string{base}
	for name, change := range map[string]func(*counterfoil.Registry){
		"tier":        func(r *counterfoil.Registry) { r.Classes["read"].Tier = counterfoil.Guarded },
		"approvers":   func(r *counterfoil.Registry) { r.Classes["final"].Approvers = [][]string{{"a"}} },
		"limit":       func(r *counterfoil.Registry) { r.Classes["limited"].Limits[0].Max = "1" },
		"environment": func(r *counterfoil.Registry) { r.Resources["bank"].Environment = "test" },
		"agent":       func(r *counterfoil.Registry) { r.Agents["payroll"].Environment = "test" },
		"grant":       func(r *counterfoil.Registry) { r.Agents["payroll"].Grants[0].When = "true" },
		"tool":        func(r *counterfoil.Registry) { r.Resources["bank"].Tools[0].Class = "payout" },
		"field":       func(r *counterfoil.Registry) { r.Resources["bank"].Tools[1].Fields["x"] = "/x" },
		"prompts":     func(r *counterfoil.Registry) { r.Resources["bank"].Prompts = "" },
		"type":        func(r *counterfoil.Registry) { r.Resources["bank"].Type = "direct" },
		"policy": func(r *counterfoil.Registry) {
			r.Policies["p"] = &counterfoil.Policy{Name: "p", Cedar: "forbid (principal, action, resource);"}
		},
		"no agent": func(r *counterfoil.Registry) { delete(r.Agents, "idle") },
	} {
		reg := bank()
		change(reg)
		d := load(t, reg).Digest()
		if slices.Contains(seen, d) {
			t.Errorf("%s does not change the digest", name)
		}
		seen = append(seen, d)
	}
	reg := bank()
	reg.People["x"] = &counterfoil.Person{Name: "x"}
	reg.Resources["bank"].Upstream = "http://elsewhere"
	if load(t, reg).Digest() != base {
		t.Error("what decides nothing changes the digest")
	}
}
