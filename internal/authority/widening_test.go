package authority

import (
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
		{"another mailbox of an owner", "{kind: Person, name: dee, email: dee@example.org}", "Person dee: gets another mailbox", "payout"},
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
		{"another template, less time to decide", "window: 1m\npayload: none\ntemplate: Pay\n" + payoutHead + demands + payoutRest + payoutMax, "", ""},

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
			"Resource bank: pay says otherwise what its amount is, which class payout limits", "payout"},
		{"a field that is not", bankHead + bankRead + strings.Replace(bankPay, "to: /to", "to: /iban", 1) + bankReset + bankDrop, "", ""},
		{"a new tool", bankHead + bankRead + bankPay + bankReset + bankDrop + "  - {name: get_rates, class: read}\n", "", ""},
		{"the same server under another name", "kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: pay, class: read}\n",
			"Resource bank2: has pay, which is bank/pay of the same server, in class read", "payout"},
		{"another server", "kind: Resource\nname: bank2\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9001/mcp\ntools:\n  - {name: pay, class: read}\n", "", ""},

		{"another owner", "kind: Agent\nname: payroll\nowner: cy\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n", "Agent payroll: gets another owner, so that dee may approve for it", "payout"},
		{"another owner and no such tool any more", "kind: Agent\nname: payroll\nowner: cy\nenvironment: prod\n", "Agent payroll: gets another owner", "payout"},
		{"another owner of an agent that reads", "kind: Agent\nname: reader\nowner: cy\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\n", "", ""},
		{"a new agent, a wider grant", "kind: Agent\nname: reader\nowner: dee\nenvironment: prod\ngrants: [{tools: [\"bank/*\"]}]\n---\nkind: Agent\nname: new\nowner: cy\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n", "", ""},

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
