package authority

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/manifest"
)

// wideBase is what is in force before each change of the table.
const wideBase = `
{kind: Person, name: ana, email: ana@example.com, groups: [finance]}
---
{kind: Person, name: ana2, email: a.na+second@example.com, groups: [finance]}
---
{kind: Person, name: bo, email: bo@example.com, groups: [finance, board]}
---
{kind: Person, name: cy, email: cy@example.com, groups: [support]}
---
{kind: Person, name: dee, email: dee@example.com}
---
kind: Class
name: payout
tier: irreversible
approvers: [[finance, treasury], [board]]
authenticators: [00000000-0000-0000-0000-000000000001, 00000000-0000-0000-0000-000000000002]
limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]
---
{kind: Class, name: wipe, tier: forbidden, approvers: [finance]}
---
{kind: Class, name: reset, tier: guarded, approvers: [support]}
---
{kind: Class, name: read, tier: routine}
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: http://127.0.0.1:9000/mcp
tools:
  - {name: get_balance, class: read}
  - {name: pay, class: payout, fields: {amount: /amount, to: /to}}
  - {name: reset, class: reset}
  - {name: drop, class: wipe}
---
kind: Agent
name: payroll
owner: dee
environment: prod
grants: [{tools: [bank/pay]}]
---
kind: Agent
name: reader
owner: dee
environment: prod
grants: [{tools: [bank/get_balance]}]
---
kind: Policy
name: night
cedar: |
  forbid (principal, action, resource in Class::"payout") when { context.hour < 6 };
`

// registryOf returns a registry made of manifests over another.
func registryOf(t *testing.T, base *counterfoil.Registry, text string) *counterfoil.Registry {
	t.Helper()
	docs, problems := manifest.Parse([]manifest.File{{Name: "m.yaml", Data: []byte(text)}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	next, _, problems := manifest.Merge(base, docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return next
}

const (
	payoutRest = "\nauthenticators: [00000000-0000-0000-0000-000000000001, 00000000-0000-0000-0000-000000000002]\n"
	payoutMax  = "limits: [{sum: amount, per: agent, window: 24h, max: \"1000\"}]\n"
	payoutHead = "kind: Class\nname: payout\ntier: irreversible\n"
	demands    = "approvers: [[finance, treasury], [board]]"
	bankHead   = "kind: Resource\nname: bank\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n"
	bankRead   = "  - {name: get_balance, class: read}\n"
	bankPay    = "  - {name: pay, class: payout, fields: {amount: /amount, to: /to}}\n"
	bankReset  = "  - {name: reset, class: reset}\n"
	bankDrop   = "  - {name: drop, class: wipe}\n"
)

// Every way to widen is beside a change of the same member that does not.
func TestWidening(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, change string
		says         string // of the only widening; empty: there is none
		classes      string
	}{
		{"a new person in a group", "{kind: Person, name: eve, groups: [finance]}", "Person eve: joins finance", "payout wipe"},
		{"a new person in no group", "{kind: Person, name: eve, groups: [other], roles: [admin]}", "", ""},
		{"a person into a group", "{kind: Person, name: dee, email: dee@example.com, groups: [treasury]}", "Person dee: joins treasury", "payout"},
		{"an approver into another group", "{kind: Person, name: ana, email: ana@example.com, groups: [finance, board]}", "Person ana: joins board", "payout"},
		{"a person into a guarded class's group", "{kind: Person, name: dee, email: dee@example.com, groups: [support]}", "", ""},
		{"a person out of a group", "{kind: Person, name: bo, email: bo@example.com, groups: [finance]}", "", ""},
		{"another mailbox of an approver", "{kind: Person, name: ana2, email: ana2@example.com, groups: [finance]}", "Person ana2: gets another mailbox", "payout wipe"},
		{"no mailbox of an approver", "{kind: Person, name: bo, groups: [finance, board]}", "Person bo: gets another mailbox", "payout wipe"},
		{"another spelling of a mailbox", "{kind: Person, name: ana, email: A.N.A@example.com, groups: [finance]}", "", ""},
		{"another mailbox of an owner", "{kind: Person, name: dee, email: dee@example.org}", "Person dee: gets another mailbox", "payout wipe"},
		{"another mailbox of somebody else", "{kind: Person, name: cy, email: cy@example.org, groups: [support]}", "", ""},

		{"one more alternative", payoutHead + "approvers: [[finance, treasury, it], [board]]" + payoutRest + payoutMax, "Class payout: is approved by", "payout"},
		{"another group", payoutHead + "approvers: [[finance, treasury], [it]]" + payoutRest + payoutMax, "Class payout: is approved by finance or treasury, and it, not by finance or treasury, and board", "payout"},
		{"a demand less", payoutHead + "approvers: [[finance, treasury]]" + payoutRest + payoutMax, "Class payout: is approved by", "payout"},
		{"two demands in one", payoutHead + "approvers: [[finance, treasury, board]]" + payoutRest + payoutMax, "Class payout: is approved by", "payout"},
		{"a demand more by a new group", payoutHead + "approvers: [[finance, treasury], [board], [it]]" + payoutRest + payoutMax, "Class payout: is approved by", "payout"},
		{"a demand more by a known group", payoutHead + "approvers: [[finance, treasury], [board], [treasury]]" + payoutRest + payoutMax, "", ""},
		{"an alternative less", payoutHead + "approvers: [[board], [finance]]" + payoutRest + payoutMax, "", ""},
		{"nobody", payoutHead + payoutRest + payoutMax, "", ""},

		{"guarded", "{kind: Class, name: payout, tier: guarded, insecure_lower_tier: true, " + demands + ", authenticators: [00000000-0000-0000-0000-000000000001], limits: [{sum: amount, per: agent, window: 24h, max: \"1\"}]}",
			"Class payout: goes from irreversible to guarded", "payout"},
		{"routine", "{kind: Class, name: wipe, tier: routine}", "Class wipe: goes from forbidden to routine", "wipe"},
		{"forbidden no more", "{kind: Class, name: wipe, tier: irreversible, approvers: [finance]}", "Class wipe: goes from forbidden to irreversible", "wipe"},
		{"forbidden", "{kind: Class, name: payout, tier: forbidden}", "", ""},
		{"allowed to be lower", "insecure_lower_tier: true\n" + payoutHead + demands + payoutRest + payoutMax, "Class payout: may be below its lowest tier", "payout"},
		{"one more passkey", payoutHead + demands + strings.Replace(payoutRest, "]", ", 00000000-0000-0000-0000-000000000003]", 1) + payoutMax, "Class payout: takes other passkeys", "payout"},
		{"any passkey", payoutHead + demands + "\n" + payoutMax, "Class payout: takes other passkeys", "payout"},
		{"a passkey less", payoutHead + demands + "\nauthenticators: [00000000-0000-0000-0000-000000000001]\n" + payoutMax, "", ""},
		{"a higher limit", payoutHead + demands + payoutRest + strings.Replace(payoutMax, "1000", "1000.5", 1), "Class payout: limits the sum of amount in 24h0m0s no more to 1000", "payout"},
		{"a lower limit", payoutHead + demands + payoutRest + strings.Replace(payoutMax, "1000", "999.9999", 1), "", ""},
		{"no limit", payoutHead + demands + payoutRest, "Class payout: limits the sum", "payout"},
		{"a shorter window", payoutHead + demands + payoutRest + strings.Replace(payoutMax, "24h", "23h", 1), "Class payout: limits the sum", "payout"},
		{"a longer window", payoutHead + demands + payoutRest + strings.Replace(payoutMax, "24h", "48h", 1), "", ""},
		{"a limit more", payoutHead + demands + payoutRest + strings.Replace(payoutMax, "[", "[{sum: amount, per: agent, window: 1h, max: \"10\"}, ", 1), "", ""},
		{"less time to decide", "window: 1m\npayload: none\n" + payoutHead + demands + payoutRest + payoutMax, "", ""},
		{"another template", "template: Pay\n" + payoutHead + demands + payoutRest + payoutMax, "Class payout: tells approvers in other words what they sign", "payout"},

		{"a guarded class forbidden", "{kind: Class, name: reset, tier: forbidden, approvers: [support]}", "", ""},
		{"forbidden, with approvers of its own", "{kind: Class, name: payout, tier: forbidden, approvers: [support]}", "Person cy: becomes an approver of payout", "payout"},
		{"a guarded class made stricter", "{kind: Class, name: reset, tier: irreversible, approvers: [finance]}", "", ""},
		{"a guarded class made laxer", "{kind: Class, name: reset, tier: routine}", "", ""},
		{"a new class with known approvers", "{kind: Class, name: wire, tier: irreversible, approvers: [board]}", "", ""},
		{"a new class with new approvers", "{kind: Class, name: wire, tier: irreversible, approvers: [it]}\n---\n{kind: Person, name: mal, groups: [it]}",
			"Person mal: becomes an approver of wire, and so of changes like this one", "wire"},
		{"a guarded class whose approvers become approvers of changes", "{kind: Class, name: reset, tier: irreversible, approvers: [support]}",
			"Person cy: becomes an approver of reset", "reset"},

		{"a tool into another class", bankHead + bankRead + strings.Replace(bankPay, "class: payout", "class: reset", 1) + bankReset + bankDrop,
			"Resource bank: pay goes from class payout to reset: it goes from irreversible to guarded", "payout"},
		{"a tool into a forbidden class", bankHead + bankRead + strings.Replace(bankPay, "class: payout", "class: wipe", 1) + bankReset + bankDrop, "", ""},
		{"a tool out of a forbidden class", bankHead + bankRead + bankPay + bankReset + strings.Replace(bankDrop, "wipe", "read", 1),
			"Resource bank: drop goes from class wipe to read", "wipe"},
		{"a guarded tool into a stricter class", bankHead + bankRead + bankPay + strings.Replace(bankReset, "class: reset", "class: payout", 1) + bankDrop, "", ""},
		{"a tool into a class as strict, with limits of its own", "{kind: Class, name: wire, tier: irreversible, " + demands +
			", authenticators: [00000000-0000-0000-0000-000000000001], limits: [{sum: amount, per: agent, window: 24h, max: \"1000\"}]}\n---\n" +
			bankHead + bankRead + strings.Replace(bankPay, "class: payout", "class: wire", 1) + bankReset + bankDrop,
			"Resource bank: pay goes from class payout to wire: it counts towards other limits", "payout"},
		{"a tool that is not there any more", "{kind: Agent, name: payroll, owner: dee, environment: prod}\n---\n" + bankHead + bankRead + bankReset + bankDrop,
			"Resource bank: pay leaves class payout", "payout"},
		{"a guarded tool that is not there any more", bankHead + bankRead + bankPay + bankDrop, "", ""},
		{"a field that is limited", bankHead + bankRead + strings.Replace(bankPay, "amount: /amount", "amount: /cents", 1) + bankReset + bankDrop,
			"Resource bank: pay says otherwise what its amount is", "payout"},
		{"a field that is not", bankHead + bankRead + strings.Replace(bankPay, "to: /to", "to: /iban", 1) + bankReset + bankDrop,
			"Resource bank: pay says otherwise what its to is", "payout"},
		{"a field more, a field less", bankHead + bankRead + strings.Replace(bankPay, "to: /to", "iban: /to", 1) + bankReset + bankDrop,
			"Resource bank: pay says otherwise what its iban, to is", "payout"},
		{"a field of a guarded tool", bankHead + bankRead + bankPay + strings.Replace(bankReset, "class: reset", "class: reset, fields: {whom: /whom}", 1) + bankDrop, "", ""},
		{"a new tool", bankHead + bankRead + bankPay + bankReset + bankDrop + "  - {name: get_rates, class: read}\n", "", ""},
		{"the same server under another name", "kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: pay, class: read}\n",
			"Resource bank2: has pay, which reaches bank/pay of the same server, in class read", "payout"},
		{"the same server, by another spelling, in the same class", "kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: HTTP://127.0.0.1:9000/mcp/?x=y\ntools:\n  - {name: pay, class: payout, fields: {amount: /fee}}\n",
			"Resource bank2: has pay, which reaches bank/pay of the same server, in class payout", "payout"},
		{"the same server in a forbidden class", "kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: pay, class: wipe}\n", "", ""},
		{"another tool of the same server", "kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: get_rates, class: read}\n", "", ""},
		{"the endpoint of the same server", "kind: Resource\nname: raw\ntype: http\nenvironment: prod\nupstream: http://127.0.0.1:9000\ntools:\n  - {name: any, class: read, method: POST, path: \"/{what}\"}\n",
			"Resource raw: has any, which reaches bank/pay, bank/drop of the same server, in class read", "payout wipe"},
		{"another request of the same server", "kind: Resource\nname: raw\ntype: http\nenvironment: prod\nupstream: http://127.0.0.1:9000\ntools:\n  - {name: any, class: read, method: GET, path: \"/{what}\"}\n", "", ""},
		{"another server", "kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9001/mcp\ntools:\n  - {name: pay, class: read}\n", "", ""},

		{"another owner", "kind: Agent\nname: payroll\nowner: cy\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n", "Agent payroll: gets another owner, so that dee may approve for it", "payout wipe"},
		{"another owner and no such tool any more", "kind: Agent\nname: payroll\nowner: cy\nenvironment: prod\n", "Agent payroll: gets another owner", "payout wipe"},
		{"another owner of an agent that reads", "kind: Agent\nname: reader\nowner: cy\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\n", "Agent reader: gets another owner", "payout wipe"},
		{"a new agent, a wider grant", "kind: Agent\nname: reader\nowner: dee\nenvironment: prod\ngrants: [{tools: [\"bank/*\"]}]\n---\nkind: Agent\nname: new\nowner: cy\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n", "", ""},

		// Who may open tasks for an agent lends it nothing, and who speaks for a resource
		// is told of its tokens: neither says yes to anything.
		{"an orchestrator", "kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\ntasks: {orchestrators: [reader]}\n", "", ""},
		{"a server", bankHead + bankRead + bankPay + bankReset + bankDrop + "servers: [reader]\n", "", ""},
		{"no task needed any more", "kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\ntasks: {required: false, max_duration: 24h}\n", "", ""},

		{"another forbid", "kind: Policy\nname: night\ncedar: |\n  forbid (principal, action, resource in Class::\"payout\") when { context.hour < 5 };\n", "Policy night: changes in what it forbids", "payout wipe"},
		{"a forbid more", "kind: Policy\nname: night\ncedar: |\n  forbid (principal, action, resource in Class::\"payout\") when { context.hour < 6 };\n  forbid (principal, action, resource);\n", "", ""},
		{"a Policy more", "kind: Policy\nname: day\ncedar: |\n  forbid (principal, action, resource);\n", "", ""},
		{"the same again", wideBase, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := registryOf(t, nil, wideBase)
			found := widening(before, registryOf(t, before, tt.change))
			if tt.says == "" {
				if len(found) > 0 {
					t.Errorf("what widens nothing waits: %q", found)
				}
				return
			}
			if len(found) != 1 || !strings.HasPrefix(found[0].String(), tt.says) || strings.Join(found[0].Classes, " ") != tt.classes {
				t.Errorf("%q", found)
			}
		})
	}
}

// Deletions, of which a Person's and an unused class's narrow.
func TestWideningByDeletion(t *testing.T) {
	t.Parallel()
	before := registryOf(t, nil, wideBase+"---\n{kind: Class, name: unused, tier: irreversible, approvers: [finance]}\n")
	for _, tt := range []struct{ kind, name, says string }{
		{counterfoil.KindPolicy, "night", "Policy night: is deleted"},
		{counterfoil.KindPerson, "ana", ""},
		{counterfoil.KindClass, "unused", ""},
	} {
		found := widening(before, without(before, tt.kind, tt.name))
		if tt.says == "" != (len(found) == 0) || len(found) > 0 && !strings.HasPrefix(found[0].String(), tt.says) {
			t.Errorf("deleting %s %s: %q", tt.kind, tt.name, found)
		}
	}
	found := widening(before, without(before, counterfoil.KindResource, "bank"))
	if len(found) != 2 || !slices.ContainsFunc(found, func(w Widening) bool { return strings.HasPrefix(w.String(), "Resource bank: pay leaves class payout") }) {
		t.Errorf("deleting Resource bank: %q", found)
	}
}

// httpBase has a protected request of a plain server, and one of a class without limits.
const httpBase = `
{kind: Person, name: ana, email: ana@example.com, groups: [it]}
---
{kind: Person, name: bo, email: bo@example.com, groups: [it]}
---
{kind: Class, name: reset-password, tier: irreversible, approvers: [it]}
---
{kind: Class, name: lock, tier: irreversible, approvers: [it]}
---
{kind: Class, name: read, tier: routine}
---
kind: Resource
name: crm
type: http
environment: prod
upstream: https://crm.example.com/api
tools:
  - {name: reset, class: reset-password, method: POST, path: "/customers/{id}/password"}
`

// A literal takes calls from a variable, and a variable has those of every literal.
func TestWideningByOverlap(t *testing.T) {
	t.Parallel()
	const rest = "---\nkind: Resource\nname: %s\ntype: http\nenvironment: prod\nupstream: %s\ntools:\n"
	const own = `  - {name: reset, class: reset-password, method: POST, path: "/customers/{id}/password"}` + "\n"
	crm := func(tools string) string { return fmt.Sprintf(rest, "crm", "https://crm.example.com/api") + tools }
	other := func(upstream, tool string) string { return fmt.Sprintf(rest, "other", upstream) + tool }
	for _, tt := range []struct{ name, change, says string }{
		{"a literal beside it", crm(own + "  - {name: seven, class: read, method: POST, path: /customers/7/password}\n"), "Resource crm: has seven, which reaches crm/reset of the same server, in class read"},
		{"a literal beside it, in its class", crm(own + "  - {name: seven, class: reset-password, method: POST, path: /customers/7/password}\n"), "Resource crm: has seven"},
		{"a slash at its end", crm(own + "  - {name: seven, class: read, method: POST, path: /customers/7/password/}\n"), "Resource crm: has seven"},
		{"a variable for its literal", other("https://CRM.example.com:443/api/", `  - {name: act, class: read, method: POST, path: "/customers/{id}/{act}"}`+"\n"), "Resource other: has act, which reaches crm/reset of the same server, in class read"},
		{"its base in the path", other("https://crm.example.com", `  - {name: act, class: read, method: POST, path: "/{base}/customers/{id}/password"}`+"\n"), "Resource other: has act"},
		{"another literal", crm(own + "  - {name: name, class: read, method: POST, path: /customers/7/name}\n"), ""},
		{"another method", crm(own + "  - {name: seven, class: read, method: GET, path: /customers/7/password}\n"), ""},
		{"served elsewhere at its old URL", strings.Replace(crm(own), "upstream:", "public_url:", 1), ""},
		{"served elsewhere at another URL", strings.Replace(crm(own), "upstream: https://crm.", "public_url: https://crm2.", 1), "Resource crm: reset is asked of another server"},
		{"another length", crm(own + "  - {name: seven, class: read, method: POST, path: /customers/password}\n"), ""},
		{"another server", other("https://crm2.example.com/api", "  - {name: seven, class: read, method: POST, path: /customers/7/password}\n"), ""},
		{"another path of it", crm(strings.Replace(own, "{id}", "7", 1)), "Resource crm: reset is another request"},
		{"another method of it", crm(strings.Replace(own, "POST", "PUT", 1)), "Resource crm: reset is another request"},
		{"a class as strict", crm(strings.Replace(own, "class: reset-password", "class: lock", 1)), "Resource crm: reset goes from class reset-password to lock: it is not under what forbids calls of class reset-password"},
	} {
		before := registryOf(t, nil, httpBase)
		found := widening(before, registryOf(t, before, tt.change))
		if tt.says == "" && len(found) > 0 || tt.says != "" && (len(found) != 1 || !strings.HasPrefix(found[0].String(), tt.says)) {
			t.Errorf("%s: %q", tt.name, found)
		}
	}
}

// Servers run a GET for a HEAD, and leave the answer's body out.
func TestWideningByHead(t *testing.T) {
	t.Parallel()
	tools := strings.Replace(httpBase, "method: POST", "method: GET", 1)
	before := registryOf(t, nil, tools)
	for method, want := range map[string]int{"HEAD": 1, "PUT": 0} {
		after := registryOf(t, before, tools+"  - {name: seven, class: read, method: "+method+", path: /customers/7/password}\n")
		if found := widening(before, after); len(found) != want {
			t.Errorf("%s: %q", method, found)
		}
	}
}

// Whoever signs for changes does not get fewer than two without being asked.
func TestWideningLeavesTwo(t *testing.T) {
	t.Parallel()
	const head = "{kind: Class, name: payout, tier: %s, approvers: [%s]}"
	base := `
{kind: Person, name: ana, email: ana@example.com, groups: [finance]}
---
{kind: Person, name: ana2, email: a.na@example.com, groups: [finance]}
---
{kind: Person, name: bo, email: bo@example.com, groups: [finance]}
---
{kind: Person, name: mal, email: mal@example.com, groups: [spare]}
---
` + fmt.Sprintf(head, "irreversible", "finance")
	for _, tt := range []struct{ name, change, says string }{
		{"a second record less", "{kind: Person, name: ana2, email: a.na@example.com}", ""},
		{"one human", "{kind: Person, name: bo, email: bo@example.com}", "The change: leaves only ana, ana2 to sign for changes"},
		{"nobody", "{kind: Class, name: payout, tier: irreversible}", "The change: leaves nobody to sign"},
		{"a group that nobody is in", "{kind: Class, name: payout, tier: irreversible, approvers: [[finance], [finance]]}\n---\n{kind: Person, name: ana, email: ana@example.com}\n---\n{kind: Person, name: ana2, email: a.na@example.com}\n---\n{kind: Person, name: bo, email: bo@example.com}", "The change: leaves nobody"},
		{"forbidden", fmt.Sprintf(head, "forbidden", "finance"), ""},
		{"forbidden, by nobody", "{kind: Class, name: payout, tier: forbidden}", "The change: leaves nobody"},
	} {
		before := registryOf(t, nil, base)
		found := widening(before, registryOf(t, before, tt.change))
		if tt.says == "" && len(found) > 0 || tt.says != "" && (len(found) != 1 || !strings.HasPrefix(found[0].String(), tt.says)) {
			t.Errorf("%s: %q", tt.name, found)
		}
	}
}

// Two steps do not do what one may not: each way round has a step that waits.
func TestWideningInSteps(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]string{
		"over forbidden": {
			"{kind: Class, name: payout, tier: forbidden, approvers: [it]}",
			"{kind: Class, name: payout, tier: routine, insecure_lower_tier: true}",
		},
		"over a forbidden class": {
			bankHead + bankRead + strings.Replace(bankPay, "class: payout", "class: wipe", 1) + bankReset + bankDrop,
			bankHead + bankRead + strings.Replace(bankPay, "class: payout", "class: read", 1) + bankReset + bankDrop,
		},
		"over no group and a class of one's own": {
			"{kind: Person, name: bo, email: bo@example.com}\n---\n{kind: Person, name: ana, email: ana@example.com}\n---\n{kind: Person, name: ana2, email: ana2@example.com}",
			"{kind: Class, name: mine, tier: irreversible, approvers: [it]}\n---\n{kind: Person, name: mal, groups: [it]}",
		},
		"over a guarded class of one's own": {
			"{kind: Class, name: mine, tier: guarded, approvers: [it]}\n---\n{kind: Person, name: mal, groups: [it]}",
			"{kind: Class, name: mine, tier: irreversible, approvers: [it]}",
		},
		"over another server": {
			strings.Replace(bankHead, ":9000", ":9999", 1) + bankRead + bankPay + bankReset + bankDrop,
			"kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: pay, class: read}\n",
			bankHead + bankRead + bankPay + bankReset + bankDrop,
		},
		"over another server of another tool": {
			"kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9001/mcp\ntools:\n  - {name: pay, class: read}\n",
			"kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: pay, class: read}\n",
		},
		"over a grant, to another owner": {
			"kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\n",
			"kind: Agent\nname: payroll\nowner: cy\nenvironment: prod\n",
			"kind: Agent\nname: payroll\nowner: cy\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n",
		},
		"over a grant, to an owner's mailbox": {
			"kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\n",
			"{kind: Person, name: dee, email: dee@example.org}",
			"kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n",
		},
		"under a class that nothing forbids": {
			"{kind: Class, name: wire, tier: irreversible, " + demands + ", authenticators: [00000000-0000-0000-0000-000000000001], limits: [{sum: amount, per: agent, window: 24h, max: \"1000\"}]}",
			bankHead + bankRead + strings.Replace(bankPay, "class: payout", "class: wire", 1) + bankReset + bankDrop,
		},
		"over the approvers, first nobody": {
			"{kind: Class, name: wipe, tier: forbidden}",
			payoutHead + payoutRest + payoutMax,
			payoutHead + "approvers: [evil]" + payoutRest + payoutMax + "---\n{kind: Person, name: mal, groups: [evil]}",
		},
		"over a forbidden class of one's own, and then the approvers": {
			"{kind: Class, name: wipe, tier: forbidden}",
			"{kind: Class, name: mine, tier: forbidden, approvers: [it]}\n---\n{kind: Person, name: mal, groups: [it]}\n---\n{kind: Person, name: mel, groups: [it]}",
			payoutHead + payoutRest + payoutMax,
		},
		"over the last class forbidden, and the people": {
			"{kind: Class, name: wipe, tier: forbidden}",
			"{kind: Class, name: payout, tier: forbidden, approvers: [[finance], [board]]}",
			"{kind: Person, name: bo, email: bo@example.com}",
		},
	} {
		at, waits := registryOf(t, nil, wideBase), false
		for _, step := range steps {
			next := registryOf(t, at, step)
			waits = waits || len(widening(at, next)) > 0
			at = next
		}
		if !waits {
			t.Errorf("%s: nobody waits", name)
		}
	}
}
