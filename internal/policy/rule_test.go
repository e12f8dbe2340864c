package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"pgregory.net/rapid"

	"github.com/counterfoil/counterfoil"
)

// A condition is one expression. Whatever text breaks out of it is an error, or
// it would be a grant of its own.
func TestWhenIsOneExpression(t *testing.T) {
	t.Parallel()
	for _, when := range []string{
		`true`, `context.hour > 8`, "true // a comment", "// first\ntrue", "\n\ttrue\n", `(true)`, `"}" == "}"`, `context.args.s == "true }; permit (principal, action, resource) when { true"`,
		`context.args == {a: {b: 1}}`, `if context.hour > 8 then true else false`, `!!true`, `context.args.s like "a*\*"`, `context.args has "}"`,
	} {
		if _, err := compileWhen(when); err != nil {
			t.Errorf("%q: %v", when, err)
		}
	}
	tests := []struct{ when, want string }{
		{`true }; permit (principal, action, resource) when { true`, "2 policies"},
		{`true }; permit (principal, action, resource); forbid (principal, action, resource) when { true`, "3 policies"},
		{`true }; @a("b") permit (principal, action, resource) unless { false`, "2 policies"},
		{"true\n};\n// hidden\nforbid(principal,action,resource) when {true", "2 policies"},
		{`false } when { true`, "2 clauses"},
		{`true } unless { false`, "2 clauses"},
		{`true } unless { false } when { true`, "3 clauses"},
		{`true };`, "line 1"},
		{`true }; //`, "not Cedar"},
		{`true } /* { */`, "not Cedar"},
		{`true; true`, "not Cedar"},
		{``, "empty"},
		{"  \n ", "empty"},
		{`// true`, "not Cedar"},
		{`}`, "not Cedar"},
		{`true,`, "not Cedar"},
		{`?principal == Agent::"x"`, "not Cedar"},
		{`context.`, "not Cedar"},
		{`unknown(1)`, "not a function"},
		{`context.args.x.frobnicate()`, "not a method"},
		{`"text"`, "not a condition"},
		{`1`, "not a condition"},
		{`context.nothing == 1`, `no member "nothing"`},
		{`context has weekdya`, `did you mean "weekday"`},
		{`context.fields.amount.lessThan(decimal("5"))`, "decimal is text with a point"},
		{`context.network.isInRange(ip("10.0.0.0/40"))`, "can only err"},
		{`decimal() == decimal("1.0")`, "can only err"},
		{strings.Repeat("(", 101) + "true" + strings.Repeat(")", 101), "nested deeper"},
		{strings.Repeat("!", 101) + "true", "nested deeper"},
		{strings.Repeat("- ", 101) + "1 < 0", "nested deeper"},
		{strings.Repeat("(", 100000), "limit is"},
		{"true || " + strings.Repeat("x", maxWhen), "limit is"},
		{"true\n&&\n}", "line 3"},
		{"true\n&&", "line 2: this is not Cedar"},
		{"\x00", "not Cedar"},
		{"\xff", "not Cedar"},
	}
	for _, tt := range tests {
		r, err := compileWhen(tt.when)
		if err == nil || r != nil {
			t.Errorf("%.80q is taken", tt.when)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80q: %v, want %q", tt.when, err, tt.want)
		}
	}
}

func TestPolicyText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`forbid (principal, action, resource);`,
		`@id("x") forbid (principal == Agent::"a", action == Action::"call", resource == Tool::"b/c") when { true } unless { false };`,
		`forbid (principal in Agent::"a", action in [Action::"call", Action::"look"], resource in Class::"payout");`,
		`forbid (principal is Agent, action in Action::"call", resource is Tool in Resource::"bank");`,
		`forbid (principal is Agent in Agent::"a", action, resource in Tool::"b/c");` + "\n// and\n" + `forbid (principal, action, resource is Tool);`,
	} {
		if _, errs := compilePolicy("p", text); len(errs) > 0 {
			t.Errorf("%s: %v", text, errs)
		}
	}
	tests := []struct{ text, want string }{
		{`permit (principal, action, resource);`, "line 1: a policy holds forbid only"},
		{"forbid (principal, action, resource);\npermit (principal, action, resource);", "line 2: a policy holds forbid only"},
		{``, "no policy"},
		{`// nothing`, "no policy"},
		{`forbid (principal == Person::"a", action, resource);`, "never applies: the principal"},
		{`forbid (principal is Tool, action, resource);`, "never applies: the principal"},
		{`forbid (principal, action == Action::"read", resource);`, "never applies: the only action"},
		{`forbid (principal, action in [Action::"read"], resource);`, "never applies: the only action"},
		{`forbid (principal, action, resource == Class::"payout");`, "never applies: the resource"},
		{`forbid (principal, action, resource in Group::"x");`, "never applies: the resource"},
		{`forbid (principal, action, resource is Class);`, "never applies: the resource"},
		{`forbid (principal, action, resource is Tool in Agent::"x");`, "never applies: the resource"},
		{"forbid (principal, action, resource)\nwhen { context.args.a > };", "line 2"},
		{"forbid (principal, action, resource)", "line 1: this is not Cedar: the text ends"},
		{"forbid (principal, action, resource) when { context.arg.a };", `did you mean "args"`},
		{strings.Repeat("x", maxCedar+1), "limit is"},
	}
	for _, tt := range tests {
		_, errs := compilePolicy("p", tt.text)
		if len(errs) == 0 {
			t.Errorf("%.80q is taken", tt.text)
		} else if !strings.Contains(errs[0].Error(), tt.want) {
			t.Errorf("%.80q: %v, want %q", tt.text, errs[0], tt.want)
		}
	}
}

func TestProblemsOfLoad(t *testing.T) {
	t.Parallel()
	reg := bank()
	reg.Policies["b"] = &counterfoil.Policy{Name: "b", Cedar: "forbid (principal, action, resource);\npermit (principal, action, resource);\npermit (principal, action, resource);"}
	reg.Policies["a"] = &counterfoil.Policy{Name: "a", Cedar: "x"}
	reg.Agents["idle"].Grants = []counterfoil.Grant{{}, {When: "\n\n1 +"}}
	_, problems := Load(reg)
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s %s %s %d", p.Kind, p.Name, p.Field, p.Line))
	}
	if want := []string{"Policy a cedar 1", "Policy b cedar 2", "Policy b cedar 3", "Agent idle grants[1].when 3"}; !slices.Equal(got, want) {
		t.Errorf("problems %q", got)
	}
}

// What a rule's text names of the context is found in every branch and form.
func TestReads(t *testing.T) {
	t.Parallel()
	tests := []struct{ when, want string }{
		{`true`, ``},
		{`context.args.a`, `args.a`},
		{`context["args"]["a"]`, `args.a`},
		{`context.args has a`, `args.a`},
		{`context.args has "a b"`, `args.a b`},
		{`context has args.a.b`, `args args.a args.a.b`},
		{`context.args == 1`, `args`},
		{`context.args.list.contains(context.args.x)`, `args.list args.x`},
		{`[context.args.a].contains({b: context.fields.c})`, `args.a fields.c`},
		{`if context.hour > 1 then context.args.a else false && context.args.b.c`, `hour args.a args.b.c`},
		{`(if true then context.args else context.args).x`, `args args`},
		{`{a: context.args}.a.x`, `args`},
		{`context.args.a.lessThan(context.args.b)`, `args.a args.b`},
		{`context.network.isInRange(ip("10.0.0.0/8"))`, `network`},
		{`context.args.s like "*x"`, `args.s`},
		{`!(-context.args.n < 3)`, `args.n`},
		{`resource in context.args.e`, `args.e`},
		{`context.args.e is Tool in context.args.f`, `args.e args.f`},
		{`context.args.a.isEmpty()`, `args.a`},
		{`principal.getTag(context.args.k) == 1`, `args.k`},
		{`context == context`, `*`},
		{`[context].isEmpty()`, `*`},
		{`(context has args).x`, `args`},
	}
	for _, tt := range tests {
		r, err := compileWhen(tt.when)
		if err != nil {
			t.Errorf("%s: %v", tt.when, err)
			continue
		}
		var got []string
		for _, p := range r.reads.paths {
			got = append(got, strings.Join(p, "."))
		}
		if r.reads.whole {
			got = []string{"*"}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s names %q, want %q", tt.when, s, tt.want)
		}
	}
}

// What has no image refuses every rule that names it, something in it or
// something around it, in whatever branch, and no other rule.
func TestWithoutImage(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`[`, 60) + `null` + strings.Repeat(`]`, 60)
	wide := `[` + strings.Repeat(`1,`, maxElements) + `1]`
	tests := []struct {
		args, when string
		refused    bool
	}{
		{`{"memo":null}`, `context.args has memo`, true},
		{`{"memo":null}`, `!(context.args has memo)`, true},
		{`{"memo":null}`, `true || context.args.memo == "x"`, true},
		{`{"memo":null}`, `if true then true else context.args["memo"] == 1`, true},
		{`{"memo":null}`, `context.args != {}`, true},
		{`{"memo":null}`, `[context].contains(1) || true`, true},
		{`{"memo":null}`, `context == context`, true},
		{`{"memo":null}`, `context.args has memo.x || true`, true},
		{`{"memo":null}`, `!(context.args has note)`, false},
		{`{"memo":"null"}`, `context.args has memo`, false},
		{`{"memo":null,"n":1}`, `context.args.n == 1`, false},
		{`{"memo":null}`, `context.hour == 12`, false},
		{`{"memo":null}`, `!(context.fields has amount)`, false},

		{`{"p":{"a":null,"b":1}}`, `context.args.p.b == 1`, false},
		{`{"p":{"a":null,"b":1}}`, `context.args.p has a || true`, true},
		{`{"p":{"a":null,"b":1}}`, `context.args.p == {b: 1}`, true},
		{`{"p":{"a":null,"b":1}}`, `context.args has p`, true},
		{`{"p":{"a":null,"b":1}}`, `context.args.p has b`, false},
		{`{"p":{"a":{"x":null}}}`, `context.args.p.a.x == 1 || true`, true},
		{`{"p":{"a":{"x":null}}}`, `[context.args.p.a].isEmpty() || true`, true},

		{`{"l":[1,null]}`, `context.args.l.contains(1)`, true},
		{`{"l":[1,[2,null]]}`, `context.args has l`, true},
		{`{"l":[{"a":null,"b":1}]}`, `context.args.l.contains({b: 1}) || true`, true},
		{`{"l":[{"a":1,"b":1}]}`, `context.args.l.contains({a: 1, b: 1})`, false},
		{`{"l":[1,null],"m":[2]}`, `context.args.m.contains(2)`, false},
		{`{"l":` + deep + `}`, `context.args has l`, true},
		{`{"l":` + wide + `}`, `context.args has l`, true},
		{`{"l":[` + wide[3:] + `}`, `context.args has l`, false},

		{`{"n":1.00001}`, `context.args has n`, true},
		{`{"n":1.0001}`, `context.args.n == decimal("1.0001")`, false},
		{`{"n":9007199254740992}`, `context.args has n`, true},
		{`{"n":-9007199254740991}`, `context.args.n == -9007199254740991`, false},
		{`{"n":1e400}`, `context.args has n`, true},
		{`{"n":922337203685477.5808}`, `context.args has n`, true},
		{`{"n":922337203685477.5807}`, `context.args.n == decimal("922337203685477.5807")`, false},
		{`{"n":-922337203685477.5808}`, `context.args.n == decimal("-922337203685477.5808")`, false},
		{`{"n":-0}`, `context.args.n == 0`, false},
		{`{"n":1e2}`, `context.args.n == 100`, false},
		{`{"n":100.0}`, `context.args.n == 100`, false},
		{`{"n":"100"}`, `context.args.n != 100`, false},
		{`{"a\u0062":null}`, `context.args has ab`, true},
	}
	for _, tt := range tests {
		t.Run(tt.when+" "+tt.args[:min(len(tt.args), 40)], func(t *testing.T) {
			t.Parallel()
			want2 := func(d Decision) {
				t.Helper()
				if got := strings.Contains(d.Detail, "no rule can judge"); got != tt.refused {
					t.Errorf("refused %t (%s %q)", got, d.Code, d.Detail)
				}
				if d.Allow == tt.refused {
					t.Errorf("allow %t, code %s, %q", d.Allow, d.Code, d.Detail)
				}
			}
			reg := bank()
			grantOnly(tt.when)(reg, nil)
			want2(load(t, reg).Decide(action("pay", tt.args), noon))
			reg = bank()
			policyOnly("forbid (principal, action, resource) unless { "+tt.when+" };")(reg, nil)
			want2(load(t, reg).Decide(action("pay", tt.args), noon))
			// The same rule in another scope refuses nothing.
			reg = bank()
			policyOnly("forbid (principal, action, resource in Class::\"read\") unless { "+tt.when+" };")(reg, nil)
			want(t, load(t, reg).Decide(action("pay", tt.args), noon), "", "")
		})
	}
}

// The same holds for fields, wherever they point.
func TestFieldsWithoutImage(t *testing.T) {
	t.Parallel()
	reg := bank()
	reg.Resources["bank"].Tools[1].Fields = map[string]string{"amount": "/amount", "all": "/payee", "name": "/payee/name", "second": "/list/1", "gone": "/list/9", "dash": "/list/-", "zero": "/list/01"}
	tests := []struct {
		when   string
		code   counterfoil.Code
		detail string
	}{
		{`context.fields.name == "Bo"`, "", ""},
		{`context.fields has all`, counterfoil.PolicyForbids, "reads context.fields.all.x"},
		{`context.fields == {}`, counterfoil.PolicyForbids, "no rule can judge"},
		{`context.fields.second == decimal("2.0")`, "", ""},
		{`!(context.fields has gone) && !(context.fields has dash) && !(context.fields has zero)`, "", ""},
		{`context.fields.gone == 1`, counterfoil.PolicyForbids, "cannot be evaluated"},
		{`context.args.payee.name == "Bo"`, "", ""},
	}
	for _, tt := range tests {
		grantOnly(tt.when)(reg, nil)
		s := load(t, reg)
		want(t, s.Decide(action("pay", `{"amount":1,"payee":{"name":"Bo","x":null},"list":[1,2]}`), noon), tt.code, tt.detail)
	}
}

// ruleText draws policies over few names, so that they often meet.
func ruleText(t *rapid.T) string {
	principal := rapid.SampledFrom([]string{`principal`, `principal == Agent::"payroll"`, `principal in Agent::"payroll"`, `principal == Agent::"idle"`, `principal is Agent`, `principal is Agent in Agent::"idle"`}).Draw(t, "principal")
	act := rapid.SampledFrom([]string{`action`, `action == Action::"call"`, `action in Action::"call"`, `action in [Action::"x", Action::"call"]`}).Draw(t, "action")
	res := rapid.SampledFrom([]string{`resource`, `resource == Tool::"bank/pay"`, `resource in Tool::"bank/pay"`, `resource == Tool::"bank/get_balance"`, `resource in Class::"payout"`, `resource in Class::"read"`, `resource in Resource::"bank"`, `resource in Resource::"far"`, `resource is Tool`, `resource is Tool in Class::"payout"`, `resource is Tool in Resource::"lab"`}).Draw(t, "resource")
	cond := rapid.SampledFrom([]string{`true`, `false`, `context.hour > 8`, `context.args.amount > 50`, `context.args has amount`, `context.fields.to == "DE02"`, `1 + "a" == 2`, `context.task == "x"`, `context has task`}).Draw(t, "cond")
	clause := rapid.SampledFrom([]string{"when", "unless"}).Draw(t, "clause")
	return fmt.Sprintf("forbid (%s, %s, %s) %s { %s };", principal, act, res, clause, cond)
}

// The index leaves out only what could not apply, and the members of the context
// that are left out are only those that nothing reads: the decision is that of
// Cedar over all policies and the whole context.
func TestIndexIsNoShortcut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		reg := bank()
		texts := rapid.SliceOfN(rapid.Custom(ruleText), 0, 12).Draw(t, "policies")
		all := cedar.NewPolicySet()
		for i, text := range texts {
			name := fmt.Sprintf("p%d", i)
			reg.Policies[name] = &counterfoil.Policy{Name: name, Cedar: text}
			var p cedar.Policy
			if err := p.UnmarshalCedar([]byte(text)); err != nil {
				t.Fatal(err)
			}
			all.Add(cedar.PolicyID(name), &p)
		}
		var open cedar.Policy
		if err := open.UnmarshalCedar([]byte(`permit (principal, action, resource);`)); err != nil {
			t.Fatal(err)
		}
		all.Add("grant", &open)

		tool := rapid.SampledFrom([]string{"bank/pay", "bank/get_balance", "far/look"}).Draw(t, "tool")
		amount := rapid.IntRange(0, 100).Draw(t, "amount")
		args := fmt.Sprintf(`{"amount":%d,"payee":{"iban":"DE02"}}`, amount)
		now := noon.Add(time.Duration(rapid.IntRange(-12, 11).Draw(t, "hour")) * time.Hour)
		a := action(tool, args)
		s, problems := Load(reg)
		if len(problems) > 0 {
			t.Fatal(problems)
		}

		where := s.resources[a.Tool.Resource].tools[a.Tool.Tool]
		fields := cedar.RecordMap{}
		if len(where.fields) > 0 {
			d, _ := cedar.NewDecimalFromInt(int64(amount))
			fields = cedar.RecordMap{"amount": d, "to": cedar.String("DE02")}
		}
		verdict, diag := cedar.Authorize(all, cedar.EntityMap{where.entity.UID: where.entity}, cedar.Request{
			Principal: cedar.NewEntityUID("Agent", "payroll"), Action: cedar.NewEntityUID("Action", "call"), Resource: where.entity.UID,
			Context: cedar.NewRecord(cedar.RecordMap{
				"args":   cedar.NewRecord(cedar.RecordMap{"amount": cedar.Long(amount), "payee": cedar.NewRecord(cedar.RecordMap{"iban": cedar.String("DE02")})}),
				"fields": cedar.NewRecord(fields), "hour": cedar.Long(now.Hour()), "weekday": cedar.Long(1),
				"subject": cedar.String("payroll"), "key_kind": cedar.String("ES256"),
			}),
		})
		allow := verdict == cedar.Allow && len(diag.Errors) == 0
		d := s.Decide(a, now)
		if d.Allow != allow || (!allow && d.Code != counterfoil.PolicyForbids) {
			t.Fatalf("index says %t (%s %q), Cedar %v %+v", d.Allow, d.Code, d.Detail, verdict, diag)
		}
	})
}

// exprText draws conditions over few arguments.
func exprText(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		atom := rapid.SampledFrom([]string{
			`context.args.a == 1`, `context.args has b`, `context.args["c"] == "x"`, `context.args.d.e == 2`, `context.args.d has e`, `context.args has d.f`,
			`context.args.l.contains(1)`, `context.fields.amount == decimal("1.0")`, `context.fields has to`, `context.args == {a: 1}`, `context.hour == 12`, `context has task`,
			`context.args.d == {e: 2}`, `{x: context.args.a}.x == 1`, `true`, `false`, `context.actors.contains("x")`, `context == context`,
		})
		if depth == 0 {
			return atom.Draw(t, "atom")
		}
		sub := exprText(depth - 1)
		switch rapid.IntRange(0, 4).Draw(t, "op") {
		case 0:
			return "(" + sub.Draw(t, "l") + " && " + sub.Draw(t, "r") + ")"
		case 1:
			return "(" + sub.Draw(t, "l") + " || " + sub.Draw(t, "r") + ")"
		case 2:
			return "!(" + sub.Draw(t, "e") + ")"
		case 3:
			return "(if " + sub.Draw(t, "i") + " then " + sub.Draw(t, "t") + " else " + sub.Draw(t, "e") + ")"
		default:
			return atom.Draw(t, "atom")
		}
	})
}

// A context that holds only what a rule names gives it the same answer as the
// whole one.
func TestPrunedContext(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		when := exprText(3).Draw(t, "when")
		var args []string
		for name, values := range map[string][]string{"a": {`1`, `2`, `"x"`}, "b": {`true`}, "c": {`"x"`}, "d": {`{"e":2}`, `{}`, `{"e":2,"f":1}`}, "l": {`[1]`, `[]`}, "z": {`1`}} {
			if rapid.Bool().Draw(t, name) {
				args = append(args, fmt.Sprintf("%q:%s", name, rapid.SampledFrom(values).Draw(t, name+"=")))
			}
		}
		text := "{" + strings.Join(args, ",") + "}"
		decide := func(when string) Decision {
			reg := bank()
			grantOnly(when)(reg, nil)
			s, problems := Load(reg)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			return s.Decide(action("pay", text), noon)
		}
		pruned, whole := decide(when), decide("(context == context) && ("+when+")")
		if pruned.Allow != whole.Allow || pruned.Code != whole.Code {
			t.Fatalf("%s over %s: pruned %s %q, whole %s %q", when, text, pruned.Code, pruned.Detail, whole.Code, whole.Detail)
		}
	})
}
