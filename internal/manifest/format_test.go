package manifest

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// What get -o yaml prints is what apply takes.
func TestFormatExample(t *testing.T) {
	t.Parallel()
	docs := mustParse(t, string(example(t)))
	var out []string
	for _, d := range docs {
		b, err := Format(d.Noun)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
		again := mustParse(t, string(b))
		if len(again) != 1 || again[0].Kind != d.Kind || again[0].Name != d.Name || !reflect.DeepEqual(again[0].Noun, d.Noun) {
			t.Errorf("%s %s does not come back:\n%s", d.Kind, d.Name, b)
		}
	}
	want, err := os.ReadFile("testdata/formatted.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(out, "---\n"); got != string(want) {
		t.Errorf("the form changed:\n%s", got)
	}
}

func TestFormatRefuses(t *testing.T) {
	t.Parallel()
	var none *counterfoil.Class
	for _, n := range []any{nil, 1, none, counterfoil.Class{Name: "x"}, &counterfoil.Agent{Name: "NO"}, &counterfoil.Person{Name: "x", Email: "\x00"}, &counterfoil.Policy{Name: "x", Cedar: "a\xffb"}} {
		if b, err := Format(n); err == nil {
			t.Errorf("%#v is written as\n%s", n, b)
		}
	}
	if _, err := Format(&counterfoil.Person{Name: "x", Email: "x@y.example"}); err != nil {
		t.Error(err)
	}
}

func drawText(t *rapid.T, label string) string {
	s := rapid.OneOf(
		rapid.StringMatching(`[ -~]{1,30}`),
		rapid.SampledFrom([]string{"true", "null", "~", "1e3", "0x1", "2026-01-01", "- a", "a: b", "#x", "x #y", "'", "\"", "|", ">", "*a", "&a", "!t", "%x", "@x", "`x", "[", "{", "é – ü", "日本", "yes", "NO", ".inf", "<<", "=", "---", "...", " lead", "trail ", "?", "a\\b"}),
	).Draw(t, label)
	if checkLine(s) != nil {
		return "x"
	}
	return s
}

func drawCedar(t *rapid.T, label string) string {
	s := rapid.StringMatching(`[ -~\n\t]{1,60}`).Draw(t, label)
	if strings.TrimSpace(s) == "" {
		return "true"
	}
	return s
}

func drawName(t *rapid.T, label string) string {
	return rapid.OneOf(rapid.StringMatching(`[a-z0-9-]{1,8}`), rapid.SampledFrom([]string{"1", "null", "true", "1e3", "0-1", "-", "--", "---", "2026-01-01", "no"})).Draw(t, label)
}

func drawDuration(t *rapid.T, label string) counterfoil.Duration {
	return counterfoil.Duration(time.Duration(rapid.IntRange(1, 1000000).Draw(t, label)) * time.Second)
}

// drawSchema draws a schema whose values YAML would like to read as something else.
func drawSchema(t *rapid.T) string {
	value := rapid.SampledFrom([]string{"null", "true", "1", "-0.5", "1e+21", `"1"`, `"null"`, `"2026-01-01"`, `"<<"`, `"a: b #c"`, `"\u2028"`, `" "`, `"\n"`, "[]", "{}", `{"~":[{}]}`})
	b, err := ijson.Canonical([]byte(`{"properties":{"body":{"const":` + value.Draw(t, "const") + `,"enum":[` + value.Draw(t, "enum") + `,` + value.Draw(t, "enum2") +
		`]},"query":{"properties":{"null":{"type":"string"}}}},"type":"object"}`))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func drawProvider(t *rapid.T) *counterfoil.UpstreamCredential {
	c := &counterfoil.UpstreamCredential{Header: "X-Api"}
	switch rapid.IntRange(0, 4).Draw(t, "source") {
	case 0:
		c.Stored = "1e3"
	case 1:
		c.Exec, c.TTL = "vault.sh", drawDuration(t, "ttl")
	case 2:
		c.URL, c.URLToken = "https://vault.example/v1/x", "null"
	default:
		c.OAuth = &counterfoil.OAuthProvider{TokenURL: "https://as.example/token", ClientID: drawText(t, "id"), ClientSecret: "s", Scope: "a b", Resource: "https://up.example", SubjectToken: "t"}
	}
	return c
}

func drawNoun(t *rapid.T) any {
	name := drawName(t, "name")
	maybe := func(label string, f func()) {
		if rapid.Bool().Draw(t, label+"?") {
			f()
		}
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		n := &counterfoil.Person{Name: name}
		maybe("email", func() { n.Email = "a@b.example" })
		maybe("groups", func() {
			n.Groups = rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9-]{1,4}`), 1, 3, rapid.ID).Draw(t, "groups")
		})
		maybe("roles", func() { n.Roles = []string{"auditor"} })
		return n
	case 1:
		n := &counterfoil.Class{Name: name, Tier: counterfoil.Tier(rapid.IntRange(0, 3).Draw(t, "tier")), InsecureLowerTier: true}
		maybe("approvers", func() {
			n.Approvers = rapid.SliceOfN(rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9-]{1,4}`), 1, 3, rapid.ID), 1, 3).Draw(t, "approvers")
		})
		maybe("window", func() { n.Window = drawDuration(t, "window") })
		maybe("template", func() { n.Template = strings.NewReplacer("{", "(", "}", ")").Replace(drawText(t, "template")) })
		maybe("limits", func() {
			if n.Tier == counterfoil.Routine {
				return
			}
			n.Limits = []counterfoil.Limit{{Sum: "a_1", Per: "agent", Window: drawDuration(t, "lw"), Max: rapid.StringMatching(`[1-9][0-9]{0,5}(\.[0-9]{1,4})?`).Draw(t, "max")}}
		})
		maybe("owner", func() { n.OwnerMayApprove = true })
		maybe("aaguid", func() { n.Authenticators = []string{"08987058-cadc-4b81-b6e1-30de50dcbe96"} })
		return n
	case 2:
		n := &counterfoil.Resource{Name: name, Type: "http", Environment: drawName(t, "env"), Binding: "require", Upstream: "https://x.example:8443/a?"[:24]}
		maybe("credential", func() { n.Credential = &counterfoil.UpstreamCredential{Header: "X-Api", File: "k.1"} })
		maybe("prefix", func() {
			n.Credential = &counterfoil.UpstreamCredential{Header: "X-Api", Prefix: drawText(t, "prefix"), File: "k"}
		})
		maybe("servers", func() { n.Servers = []string{"null", "x-" + name} })
		for i := range rapid.IntRange(0, 3).Draw(t, "tools") {
			tool := counterfoil.Tool{Name: fmt.Sprintf("T.%d_-", i), Class: drawName(t, "class"), Method: "GET", Path: fmt.Sprintf("/t%d/{id}", i)}
			maybe("fields", func() {
				tool.Fields = map[string]string{"a": "/" + drawText(t, "pointer"), "null": "/x"}
				if checkPointer(tool.Fields["a"]) != nil {
					tool.Fields["a"] = "/~0~1"
				}
			})
			maybe("taken", func() {
				tool.Method = "PUT"
				tool.Consumes, tool.Headers = []string{"image/png", "text/csv"}, []string{"X-" + fmt.Sprint(i), "null"}
			})
			maybe("schema", func() { tool.Schema = drawSchema(t) })
			maybe("stream", func() { tool.Method, tool.Stream, tool.WebSocket = "POST", true, false })
			n.Tools = append(n.Tools, tool)
		}
		maybe("ladder", func() {
			n.Binding = rapid.SampledFrom([]string{"observe", "prefer"}).Draw(t, "binding")
			n.Bearers = []counterfoil.Bearer{
				{Agent: drawName(t, "bearer"), Key: "sha-256:" + strings.Repeat("A", 43)},
				{Agent: "x", Issuer: "https://i.example", Subject: "null", Audience: drawText(t, "aud"), JWKSURI: "https://i.example/keys"},
				{Agent: "x", Issuer: "https://i.example", Subject: "s", Keys: []string{`{"crv":"P-256","kty":"EC","x":"` + jwkX + `","y":"` + jwkY + `"}`}},
			}
			maybe("from", func() {
				n.RequireFrom = time.Unix(rapid.Int64Range(1e9, 4e9).Draw(t, "unix"), 0).UTC()
			})
			maybe("date", func() { n.RequireFrom = time.Date(2027, 2, 28, 0, 0, 0, 0, time.UTC) })
		})
		maybe("provider", func() { n.Credential = drawProvider(t) })
		maybe("elsewhere", func() { n.Upstream, n.PublicURL, n.Credential = "", "https://p.example/api", nil })
		return n
	case 3:
		n := &counterfoil.Agent{Name: name, Owner: drawName(t, "owner"), Environment: drawName(t, "env")}
		maybe("purpose", func() { n.Purpose = drawText(t, "purpose") })
		maybe("keys", func() { n.Keys = []string{`{"crv":"P-256","kty":"EC","x":"` + jwkX + `","y":"` + jwkY + `"}`} })
		maybe("workloads", func() {
			n.Workloads = []counterfoil.Workload{{Issuer: "https://i.example/x", Subject: strings.ReplaceAll(drawText(t, "subject"), "*", "+")}}
		})
		for range rapid.IntRange(0, 2).Draw(t, "grants") {
			g := counterfoil.Grant{Tools: []counterfoil.ToolID{{Resource: drawName(t, "r"), Tool: "*"}, {Resource: drawName(t, "r2"), Tool: "a.B_c-1"}}}
			maybe("networks", func() {
				g.Networks = []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("0.0.0.0/0")}
			})
			maybe("when", func() { g.When = drawCedar(t, "when") })
			n.Grants = append(n.Grants, g)
		}
		maybe("tasks", func() {
			n.Tasks = counterfoil.TaskLimits{MaxDuration: drawDuration(t, "md"), MaxCalls: 7, Required: true}
		})
		maybe("orchestrators", func() { n.Tasks.Orchestrators = []string{"other-than-any", "x-" + name} })
		maybe("signals", func() { n.Signals = &counterfoil.Signals{} })
		maybe("push", func() { n.Signals = &counterfoil.Signals{Push: []string{"https://a.example/e", "http://[::1]:8/"}} })
		maybe("proof keys", func() { n.ProofKeys = "any" })
		maybe("clones", func() {
			n.Clones = rapid.SampledFrom([]string{counterfoil.ClonesQuarantine, counterfoil.ClonesRecord}).Draw(t, "clones")
		})
		return n
	case 4:
		n := &counterfoil.Transmitter{Name: name, Issuer: "https://t.example/" + name, JWKSURI: "https://t.example/keys"}
		maybe("keys", func() {
			n.JWKSURI, n.Keys = "", []string{`{"crv":"P-256","kid":"k1","kty":"EC","x":"` + jwkX + `","y":"` + jwkY + `"}`}
		})
		maybe("audience", func() { n.Audience = drawText(t, "audience") })
		maybe("poll", func() { n.Poll, n.Token = "https://t.example/poll?x=1", "a-token" })
		maybe("disabled", func() { n.Disabled = []string{counterfoil.DisabledVoidApprovals} })
		return n
	default:
		return &counterfoil.Policy{Name: name, Cedar: drawCedar(t, "cedar")}
	}
}

// Parse(Format(x)) is x for everything a manifest can say, and formatting is
// stable.
func TestFormatRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		noun := drawNoun(t)
		b, err := Format(noun)
		if err != nil {
			t.Fatal(err)
		}
		docs, problems := Parse([]File{{"f", b}})
		if len(problems) > 0 || len(docs) != 1 || !reflect.DeepEqual(docs[0].Noun, noun) {
			t.Fatalf("problems %v\n%s\nhave %+v\nwant %+v", problems, b, docs, noun)
		}
		if again, err := Format(docs[0].Noun); err != nil || string(again) != string(b) {
			t.Fatalf("formatted twice:\n%s\n%s", b, again)
		}
		if d := Diff(noun, docs[0].Noun); d != "" {
			t.Fatalf("a noun differs from itself:\n%s", d)
		}
	})
}

func TestDiff(t *testing.T) {
	t.Parallel()
	reg, _ := merged(t, nil, string(example(t)))
	bank := *reg.Resources["bank"]
	bank.Environment = "test"
	bank.Tools = append([]counterfoil.Tool{}, bank.Tools[0])
	var none *counterfoil.Person
	tests := []struct {
		name     string
		old, new any
		want     string
	}{
		{"same", reg.Classes["read"], reg.Classes["read"], ""},
		{"nothing", nil, nil, ""},
		{"new", nil, reg.Classes["read"], "--- /dev/null\n+++ Class/read\n@@ -0,0 +1,3 @@\n+kind: Class\n+name: read\n+tier: routine\n"},
		{"gone", reg.People["bo"], none, "--- Person/bo\n+++ /dev/null\n@@ -1,4 +0,0 @@\n-kind: Person\n-name: bo\n-email: bo@example.com\n-groups: [finance-approvers]\n"},
		{"changed", reg.Resources["bank"], &bank, `--- Resource/bank
+++ Resource/bank
@@ -1,9 +1,8 @@
 kind: Resource
 name: bank
 type: mcp
-environment: prod
+environment: test
 upstream: http://127.0.0.1:9000/mcp
 binding: require
 tools:
   - {name: get_balance, class: read}
-  - {name: pay, class: payout, fields: {amount: /amount, currency: /currency, to: /to}}
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Diff(tt.old, tt.new); got != tt.want {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// A diff is right when its lines make both sides and its headers count them.
func TestDiffLines(t *testing.T) {
	t.Parallel()
	lines := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 0, 40)
	rapid.Check(t, func(t *rapid.T) {
		a, b := lines.Draw(t, "a"), lines.Draw(t, "b")
		var backA, backB []string
		for _, l := range compareLines(a, b) {
			if l.a != len(backA) || l.b != len(backB) {
				t.Fatalf("line %+v is misplaced", l)
			}
			if l.op != '+' {
				backA = append(backA, l.text)
			}
			if l.op != '-' {
				backB = append(backB, l.text)
			}
		}
		if strings.Join(a, "") != strings.Join(backA, "") || strings.Join(b, "") != strings.Join(backB, "") {
			t.Fatal("the sides do not come back")
		}
	})
	long := make([]string, maxDiff+1)
	if compareLines(long, long) != nil || len(compareLines(long, long[1:])) != 2*maxDiff+1 {
		t.Error("long texts")
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	tests := []struct{ old, new, want string }{
		{"", "", ""},
		{"name: cy                       # ana owns payroll and cannot approve for it\nemail: cy@example.com\ngroups: [finance-approvers]", "name: cy",
			"Class payout: a call of agent payroll needs 2 approvers and 1 may approve (bo); ana owns the agent and may not"},
		{"groups: [finance-approvers]", "groups: []",
			""},
		{"approvers: [finance-approvers] # one", "approvers: [[finance-approvers], [board]] # one",
			"Class payout: no choice of different people gives a call of agent payroll an approver of each of [finance-approvers] and [board]; ana owns the agent and may not"},
		{"tier: guarded\napprovers: [finance-approvers]", "tier: guarded",
			"Class credential-reset: names no approvers, so no call of agent payroll can be approved"},
		{"tier: guarded\napprovers: [finance-approvers]", "tier: guarded\napprovers: [finance-aprovers]",
			"Class credential-reset: a call of agent payroll needs 1 approvers and 0 may approve"},
		{"tier: irreversible ", "tier: guarded\ninsecure_lower_tier: true ",
			"Class payout: runs as guarded, below irreversible, because of insecure_lower_tier"},
		{`Class::"payout"`, `Class::"payuot"`,
			`Policy no-payouts-at-night: cedar: names Class::"payuot", which does not exist; did you mean "payout"?`},
		{"tier: irreversible ", "tier: irreversible\nowner_may_approve: true ", ""},
		{"tier: guarded\napprovers: [finance-approvers]", "tier: guarded\napprovers: [ana-alone]\n---\nkind: Person\nname: zoe\nemail: a.n.a@example.com\ngroups: [ana-alone]",
			"People ana, zoe have one mailbox, ana@example.com: they count as one person for approvals\n" +
				"Class credential-reset: a call of agent payroll needs 1 approvers and 0 may approve; ana owns the agent and may not"},
		{"email: cy@example.com", "email: BO+2@example.com",
			"People bo, cy have one mailbox, bo@example.com: they count as one person for approvals\n" +
				"Class payout: a call of agent payroll needs 2 approvers and 1 may approve (bo); ana owns the agent and may not"},
		// One human with two groups, one under each name, is one human.
		{"email: cy@example.com\ngroups: [finance-approvers]", "email: b.o@example.com\ngroups: [board]",
			"People bo, cy have one mailbox, bo@example.com: they count as one person for approvals\n" +
				"Class payout: a call of agent payroll needs 2 approvers and 1 may approve (bo); ana owns the agent and may not"},
		{"Pay {{.amount}}", "Pay {{.amout}} {{.amount}}",
			"Class payout: template: {{.amout}} shows nothing for bank/pay, which has no field amout"},
		{"fields: {amount: /amount, ", "fields: {",
			"Class payout: template: {{.amount}} shows nothing for bank/pay, which has no field amount\n" +
				"Agent payroll: grants[1].when: reads context.fields.amount, which bank/pay does not have: unless the condition asks with `has` first, every call is refused\n" +
				`Resource bank: tools.pay: class "payout" limits the field "amount", which tool pay does not have: every call is refused (limit_exceeded)`},
		{"type: mcp                      # mcp | http | direct (not fronted: tokens only)\nenvironment: prod", "type: mcp\nenvironment: test",
			`Agent payroll: grants[0]: grants bank/get_balance, but the agent is in environment "prod" and the resource in "test": every call is refused` + "\n" +
				`Agent payroll: grants[1]: grants bank/pay, but the agent is in environment "prod" and the resource in "test": every call is refused`},
		{"type: mcp                      # mcp | http | direct (not fronted: tokens only)\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp", "type: direct\nenvironment: prod\npublic_url: http://127.0.0.1:9000/mcp",
			`Agent payroll: grants[1]: grants bank/pay, but at a direct resource no token names a tool of class "payout": nobody would ask a person`},
	}
	for _, tt := range tests {
		t.Run(tt.new, func(t *testing.T) {
			t.Parallel()
			text := string(example(t))
			if !strings.Contains(text, tt.old) {
				t.Fatalf("%q is not in the example", tt.old)
			}
			reg, _ := merged(t, nil, strings.Replace(text, tt.old, tt.new, 1))
			if got := strings.Join(Warnings(reg, testNow), "\n"); got != tt.want {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// Deleting what others refer to leaves them dangling; that is no problem of a
// later merge, while making one is.
func TestMergeBesideDangling(t *testing.T) {
	t.Parallel()
	reg, _ := merged(t, nil, string(example(t)))
	delete(reg.People, "ana")
	want := `Agent payroll: owner: there is no Person "ana" (declared earlier, not in these files)`
	if p := Check(reg); len(p) != 1 || p[0].String() != want {
		t.Errorf("check: %v", p)
	}
	merged(t, reg, "kind: Person\nname: anna\n") // although the hint changes
	merged(t, reg, "kind: Class\nname: extra\ntier: routine\n")
	_, _, problems := Merge(reg, mustParse(t, "kind: Resource\nname: bank\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools: [{name: pay, class: payout}]\n"))
	if len(problems) != 1 || problems[0].Text != `Agent payroll: grants[0].tools[0]: bank/get_balance: Resource bank classifies no tool "get_balance" (declared earlier, not in these files)` {
		t.Errorf("problems %v", problems)
	}
	// The agent itself must be right when it is applied again.
	_, _, problems = Merge(reg, mustParse(t, "kind: Agent\nname: payroll\nowner: ana\nenvironment: prod\n"))
	if len(problems) != 1 || problems[0].String() != `m.yaml:3: Agent payroll: owner: there is no Person "ana"` {
		t.Errorf("problems %v", problems)
	}
}

func TestMergeUnique(t *testing.T) {
	t.Parallel()
	key := `keys: [{kty: EC, crv: P-256, x: ` + jwkX + `, y: ` + jwkY + `}]`
	_, _, problems := Merge(nil, mustParse(t, "kind: Person\nname: o\n---\nkind: Agent\nname: a\nowner: o\nenvironment: e\n"+key+"\n---\nkind: Agent\nname: b\nowner: o\nenvironment: e\n"+key+
		"\n---\nkind: Resource\nname: x\ntype: direct\nenvironment: e\npublic_url: https://x.example\n---\nkind: Resource\nname: y\ntype: direct\nenvironment: e\npublic_url: https://x.example\n"))
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	want := []string{
		`m.yaml:26: Resource y: public_url: Resource x has the same URL; a token for one would be a token for both`,
		`m.yaml:14: Agent b: keys[0]: Agent a has the same key; a key belongs to one instance of one agent`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
}

// Documents that Parse did not make change nothing.
func TestMergeForeignDocuments(t *testing.T) {
	t.Parallel()
	var none *counterfoil.Agent
	reg, changes, problems := Merge(nil, []Document{{}, {Kind: "Agent", Name: "a", Noun: none}, {Kind: "Agent", Name: "a", Noun: &counterfoil.Agent{Name: "b"}}, {Kind: "Policy", Name: "a", Noun: &counterfoil.Class{Name: "a"}}})
	if len(changes)+len(problems)+len(reg.Agents)+len(reg.Policies)+len(reg.Classes) > 0 {
		t.Errorf("changes %v problems %v", changes, problems)
	}
}

// FuzzParse wants every accepted document to come back from its written form.
func FuzzParse(f *testing.F) {
	f.Add(example(f))
	f.Add([]byte(controls))
	f.Add([]byte("kind: Policy\nname: x\ncedar: |2\n   a\n  b\n"))
	f.Add([]byte("{kind: Class, name: \"x\", tier: forbidden, approvers: [[a, b], [c]]}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		docs, problems := Parse([]File{{"f", b}})
		for _, d := range docs {
			text, err := Format(d.Noun)
			if err != nil {
				t.Fatalf("%s %s: %v", d.Kind, d.Name, err)
			}
			again, p := Parse([]File{{"f", text}})
			if len(p) > 0 || len(again) != 1 || len(changed(d.Noun, again[0].Noun)) > 0 {
				t.Fatalf("%s %s does not come back: %v\n%s", d.Kind, d.Name, p, text)
			}
		}
		if len(problems) == 0 {
			reg, _, problems := Merge(nil, docs)
			if len(problems) == 0 {
				Warnings(reg, testNow)
			}
		}
	})
}
