package manifest

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
)

func example(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustParse(t testing.TB, text string) []Document {
	t.Helper()
	docs, problems := Parse([]File{{"m.yaml", []byte(text)}})
	for _, p := range problems {
		t.Errorf("unexpected problem: %s", p)
	}
	return docs
}

// merged parses and merges and wants no problem.
func merged(t testing.TB, base *counterfoil.Registry, text string) (*counterfoil.Registry, []Change) {
	t.Helper()
	reg, changes, problems := Merge(base, mustParse(t, text))
	for _, p := range problems {
		t.Errorf("unexpected problem: %s", p)
	}
	if t.Failed() {
		t.FailNow()
	}
	return reg, changes
}

func verbs(changes []Change) string {
	var out []string
	for _, c := range changes {
		s := fmt.Sprintf("%s %s/%s", c.Verb, c.Kind, c.Name)
		if len(c.Fields) > 0 {
			s += " " + strings.Join(c.Fields, ",")
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

// The contract's example applies as it stands.
func TestExample(t *testing.T) {
	t.Parallel()
	reg, changes := merged(t, nil, string(example(t)))
	want := "create Person/ana\ncreate Person/bo\ncreate Person/cy\ncreate Class/payout\ncreate Class/credential-reset\ncreate Class/read\n" +
		"create Resource/bank\ncreate Resource/crm\ncreate Agent/payroll\ncreate Policy/no-payouts-at-night"
	if got := verbs(changes); got != want {
		t.Errorf("changes:\n%s", got)
	}
	wantReg := counterfoil.NewRegistry()
	wantReg.People["ana"] = &counterfoil.Person{Name: "ana", Email: "ana@example.com", Groups: []string{"finance-approvers"}, Roles: []string{"admin"}}
	wantReg.People["bo"] = &counterfoil.Person{Name: "bo", Email: "bo@example.com", Groups: []string{"finance-approvers"}}
	wantReg.People["cy"] = &counterfoil.Person{Name: "cy", Email: "cy@example.com", Groups: []string{"finance-approvers"}}
	wantReg.Classes["payout"] = &counterfoil.Class{
		Name: "payout", Tier: counterfoil.Irreversible, Approvers: [][]string{{"finance-approvers"}},
		Window: counterfoil.Duration(15 * time.Minute), Template: "Pay {{.amount}} {{.currency}} to {{.to}}",
		Limits: []counterfoil.Limit{{Sum: "amount", Per: "agent", Window: counterfoil.Duration(24 * time.Hour), Max: "100000"}}, Payload: "full",
	}
	wantReg.Classes["credential-reset"] = &counterfoil.Class{Name: "credential-reset", Tier: counterfoil.Guarded, Approvers: [][]string{{"finance-approvers"}}}
	wantReg.Classes["read"] = &counterfoil.Class{Name: "read", Tier: counterfoil.Routine}
	wantReg.Resources["bank"] = &counterfoil.Resource{
		Name: "bank", Type: "mcp", Environment: "prod", Upstream: "http://127.0.0.1:9000/mcp", Binding: "require",
		Tools: []counterfoil.Tool{
			{Name: "get_balance", Class: "read"},
			{Name: "pay", Class: "payout", Fields: map[string]string{"amount": "/amount", "currency": "/currency", "to": "/to"}},
		},
	}
	wantReg.Resources["crm"] = &counterfoil.Resource{
		Name: "crm", Type: "http", Environment: "prod", Upstream: "http://127.0.0.1:9001", Binding: "require",
		Credential: &counterfoil.UpstreamCredential{Header: "Authorization", Prefix: "Bearer ", File: "crm-token"},
		Tools: []counterfoil.Tool{
			{Name: "get_customer", Method: "GET", Path: "/customers/{id}", Class: "read"},
			{Name: "reset_password", Method: "POST", Path: "/customers/{id}/password", Class: "credential-reset"},
		},
	}
	wantReg.Agents["payroll"] = &counterfoil.Agent{
		Name: "payroll", Owner: "ana", Purpose: "monthly payroll run", Environment: "prod",
		Grants: []counterfoil.Grant{
			{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "get_balance"}, {Resource: "crm", Tool: "get_customer"}, {Resource: "crm", Tool: "reset_password"}}},
			{
				Tools:    []counterfoil.ToolID{{Resource: "bank", Tool: "pay"}},
				Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
				When:     `context.fields.amount.greaterThan(decimal("0.0")) && context.fields.amount.lessThanOrEqual(decimal("50000.0"))`,
			},
		},
		Tasks: counterfoil.TaskLimits{MaxDuration: counterfoil.Duration(time.Hour), MaxCalls: 1000},
	}
	wantReg.Policies["no-payouts-at-night"] = &counterfoil.Policy{
		Name:  "no-payouts-at-night",
		Cedar: "forbid (principal, action == Action::\"call\", resource in Class::\"payout\")\nwhen { context.hour >= 22 || context.hour < 6 };\n",
	}
	if !reflect.DeepEqual(reg, wantReg) {
		t.Errorf("registry differs:\n%+v", reg)
	}
	if w := Warnings(reg, testNow); len(w) != 0 {
		t.Errorf("warnings: %s", strings.Join(w, "\n"))
	}
	set, problems := policy.Load(reg)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	granted, err := set.Narrow("payroll", "bank", nil)
	if err != nil || strings.Join(granted, " ") != "get_balance pay" {
		t.Errorf("granted %v, %v", granted, err)
	}
}

func TestMergeIsIdempotent(t *testing.T) {
	t.Parallel()
	first, _ := merged(t, nil, string(example(t)))
	second, changes := merged(t, first, string(example(t)))
	for _, c := range changes {
		if c.Verb != Unchanged || len(c.Fields) > 0 {
			t.Errorf("%s %s: %s %v", c.Kind, c.Name, c.Verb, c.Fields)
		}
	}
	if !reflect.DeepEqual(first, second) {
		t.Error("the registry changed")
	}
	// What is absent and what is empty are the same; what differs is named.
	third, changes := merged(t, second, "kind: Person\nname: bo\nemail: bo@example.org\ngroups: [finance-approvers]\nroles: []\n---\nkind: Class\nname: read\ntier: routine\nlimits: []\n---\nkind: Class\nname: extra\ntier: forbidden\n")
	if got := verbs(changes); got != "update Person/bo email\nunchanged Class/read\ncreate Class/extra" {
		t.Errorf("changes:\n%s", got)
	}
	if second.People["bo"].Email != "bo@example.com" || third.People["bo"].Email != "bo@example.org" || second.Classes["extra"] != nil {
		t.Error("the base was changed")
	}
	if _, changes = merged(t, second, "kind: Class\nname: read\ntier: routine\npayload: none\nwindow: 90s\n"); verbs(changes) != "update Class/read payload,window" {
		t.Errorf("changes:\n%s", verbs(changes))
	}
	if _, changes = merged(t, second, "kind: Person\nname: ana\ngroups: [finance-approvers]\n"); verbs(changes) != "update Person/ana email,roles" {
		t.Errorf("changes:\n%s", verbs(changes))
	}
}

func TestNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# only a comment\n", "---\n---\n", "---\n# one\n---\n...\n"} {
		if docs := mustParse(t, text); len(docs) > 0 {
			t.Errorf("%q gives %v", text, docs)
		}
	}
	if docs, problems := Parse(nil); len(docs)+len(problems) > 0 {
		t.Error("nothing gives something")
	}
	reg, changes, problems := Merge(nil, nil)
	if reg == nil || len(changes)+len(problems) > 0 {
		t.Error("merging nothing gives something")
	}
	if Warnings(nil, testNow) != nil || Check(nil) != nil {
		t.Error("nothing is warned of")
	}
}

// Forms that mean the same, and how they are kept.
func TestForms(t *testing.T) {
	t.Parallel()
	docs := mustParse(t, `
kind: Class
name: a
tier: guarded
approvers: [x]
---
kind: Class
name: b
tier: guarded
approvers: [x, y]
window: 24h
---
kind: Class
name: c
tier: guarded
approvers: [[x, y], [z]]
limits:
  - {sum: amount, per: agent, window: 1h30m, max: 100.50}
---
{kind: Class, name: d, tier: guarded, approvers: [[x], [y]], owner_may_approve: true, insecure_lower_tier: false, limits: [{sum: a, per: agent, window: 90s, max: 7}]}
`)
	var got [][][]string
	for _, d := range docs {
		got = append(got, d.Noun.(*counterfoil.Class).Approvers)
	}
	want := [][][]string{{{"x"}}, {{"x", "y"}}, {{"x", "y"}, {"z"}}, {{"x"}, {"y"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("approvers %v", got)
	}
	if c := docs[2].Noun.(*counterfoil.Class); c.Limits[0].Max != "100.50" || c.Limits[0].Window != counterfoil.Duration(90*time.Minute) {
		t.Errorf("limit %+v", c.Limits[0])
	}
	if c := docs[3].Noun.(*counterfoil.Class); !c.OwnerMayApprove || c.InsecureLowerTier || c.Limits[0].Max != "7" || c.Limits[0].Window != counterfoil.Duration(90*time.Second) {
		t.Errorf("class %+v", c)
	}
	if p := docs[2].Pos["limits[0].max"]; p != (Position{"m.yaml", 18}) {
		t.Errorf("position %v", p)
	}
}

const jwkX = `f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU`
const jwkY = `x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0`

// A key is kept as its required members and its kid, in canonical form, however
// it was written (RFC 7515, Appendix A.3 has this one).
func TestKeys(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{
		"mapping": `{kty: EC, crv: P-256, x: ` + jwkX + `, y: ` + jwkY + `, kid: mine, alg: ES256, key_ops: [verify]}`,
		"text":    `'{"y":"` + jwkY + `","x":"` + jwkX + `","kty":"EC","crv":"P-256","use":"sig"}'`,
		"block":   "\n    kty: EC\n    crv: \"P-256\"\n    x: " + jwkX + "\n    y: " + jwkY,
	} {
		docs := mustParse(t, "kind: Agent\nname: a\nowner: o\nenvironment: prod\nkeys:\n  - "+key+"\n")
		if len(docs) != 1 {
			t.Fatalf("%s: no document", name)
		}
		kid := ""
		if strings.Contains(key, "kid") {
			kid = `"kid":"mine",`
		}
		want := []string{`{"crv":"P-256",` + kid + `"kty":"EC","x":"` + jwkX + `","y":"` + jwkY + `"}`}
		if got := docs[0].Noun.(*counterfoil.Agent).Keys; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPanicsNever(t *testing.T) {
	t.Parallel()
	for _, b := range [][]byte{
		bytes.Repeat([]byte("["), 20000), bytes.Repeat([]byte("{a: "), 20000), bytes.Repeat([]byte("- "), 20000),
		[]byte("? a\n: b\n"), []byte("? [a]\n: b\n"), []byte("!!binary x"), []byte("%YAML 9.9\n---\n"), []byte("a: *b"), []byte("&a [*a]"),
		[]byte("kind: Class\nname: x\ntier: &t routine\n"), []byte("\x00"), []byte("kind: [Class]"), []byte("kind: Class\nname: {a: b}\n"), []byte("- kind: Class\n"), []byte("text"),
	} {
		_, problems := Parse([]File{{"f", b}})
		if len(problems) == 0 {
			t.Errorf("%.40q passes", b)
		}
	}
	// Ten levels of nine aliases each are a billion values when they are followed.
	bomb := "a: &a [x]\n"
	for i := 'b'; i < 'k'; i++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	_, problems := Parse([]File{{"bomb", []byte("kind: Person\nname: x\n" + bomb)}})
	if len(problems) != 10 {
		t.Errorf("%d problems with the bomb", len(problems))
	}
	big := strings.Repeat("kind: Nothing\n---\n", 1000)
	if _, problems := Parse([]File{{"big", []byte(big)}}); len(problems) != maxProblems+1 {
		t.Errorf("%d problems", len(problems))
	}
}

// testNow is when the tests are.
var testNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
