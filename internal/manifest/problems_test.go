package manifest

import (
	"slices"
	"strings"
	"testing"
)

// The documents that the rows below change in one place. As they are, they
// apply: each row's positive control.
const controls = `kind: Person
name: ana
email: ana@example.com
groups: [fin]
roles: [admin]
---
kind: Class
name: payout
tier: irreversible
approvers: [fin]
window: 15m
template: "Pay {{.amount}}"
limits: [{sum: amount, per: agent, window: 24h, max: "100"}]
payload: full
authenticators: [08987058-cadc-4b81-b6e1-30de50dcbe96]
---
kind: Class
name: read
tier: routine
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: http://127.0.0.1:9000/mcp
binding: require
prompts: read
tools:
  - {name: get_balance, class: read}
  - {name: pay, class: payout, fields: {amount: /amount}}
---
kind: Resource
name: crm
type: http
environment: prod
upstream: https://crm.example
credential: {header: Authorization, prefix: "Bearer ", file: crm-token}
tools:
  - {name: get, method: GET, path: "/customers/{id}", class: read}
  - {name: me, method: GET, path: "/customers/me", class: read}
---
kind: Resource
name: far
type: direct
environment: prod
public_url: https://far.example/api
---
kind: Agent
name: payroll
owner: ana
purpose: monthly
environment: prod
workloads: [{issuer: "https://ci.example", subject: "repo:x"}]
grants:
  - tools: [bank/get_balance, "crm/*", bank/prompts]
  - tools: [bank/pay]
    networks: [10.0.0.0/8]
    when: context.fields.amount.greaterThan(decimal("0.0"))
tasks: {max_duration: 1h, max_calls: 10}
proof_keys: any
---
kind: Policy
name: nights
cedar: |
  forbid (principal, action, resource in Class::"payout")
  when { context.hour >= 22 };
`

// apply returns all problems of Parse and Merge, as the engine reports them.
func apply(text string) []string {
	docs, problems := Parse([]File{{"m.yaml", []byte(text)}})
	if len(problems) == 0 {
		_, _, problems = Merge(nil, docs)
	}
	var out []string
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

func TestControls(t *testing.T) {
	t.Parallel()
	if p := apply(controls); len(p) > 0 {
		t.Fatalf("the controls have problems:\n%s", strings.Join(p, "\n"))
	}
}

// Each row changes one line; want is the whole of what the operator reads.
func TestProblems(t *testing.T) {
	t.Parallel()
	tests := []struct{ old, new, want string }{
		// Documents.
		{"kind: Policy", "knd: Policy", `m.yaml:62: document: there is no kind; write one of Person, Class, Resource, Agent, Policy, Transmitter, Vocabulary`},
		{"kind: Policy", "kind: policy", `m.yaml:62: document: kind "policy" is unknown; did you mean "Policy"?; the kinds are Person, Class, Resource, Agent, Policy, Transmitter, Vocabulary`},
		{"kind: Policy", "kind: Secret", `m.yaml:62: document: kind "Secret" is unknown; the kinds are Person, Class, Resource, Agent, Policy, Transmitter, Vocabulary`},
		{"name: nights\n", "", `m.yaml:62: Policy: member "name" is missing`},
		{"name: nights", "name: Nights", `m.yaml:63: Policy: name: name "Nights" has "N"; only a-z, 0-9 and - are allowed`},
		{"name: nights", "name: 2026", `m.yaml:63: Policy: name: must be text; YAML reads 2026 as something else, so put it in quotes`},
		{"name: nights", "name: nights\nname: days", `m.yaml:64: Policy nights: member "name" is there twice`},
		{"name: nights", "name: nights\nceder: x", `m.yaml:64: Policy nights: member "ceder" is unknown; did you mean "cedar"?; known are cedar, kind, name`},
		{"name: read\ntier: routine", "name: payout\ntier: irreversible\napprovers: [fin]", `m.yaml:17: Class payout: is declared twice; the first time at m.yaml:7`},
		{"kind: Policy", "- kind: Policy", `m.yaml:62: this is not YAML: did not find expected '-' indicator`},
		{"name: nights", "name: &n nights", `m.yaml:63: Policy nights: name: anchors and aliases are not taken; write the value out`},
		{"name: nights", "name: !!str nights", `m.yaml:63: Policy nights: name: the tag !!str is not taken; write the plain value`},
		{"name: nights", "name:", `m.yaml:63: Policy: name: there is no value; write one or leave the member out`},
		{"name: nights", "name: [nights]", `m.yaml:63: Policy: name: must be one value, not a list`},
		{"name: nights", "name: nights\n<<: {a: b}", `m.yaml:64: Policy nights: merge keys (<<) are not taken; write the members out`},

		// Person.
		{"email: ana@example.com", "email: ana", `m.yaml:3: Person ana: email: "ana" is not an email address`},
		{"email: ana@example.com", "email: ana@example.com.", `m.yaml:3: Person ana: email: "ana@example.com." has a domain with an empty label`},
		{"email: ana@example.com", "email: ana@b\u00fccher.example", `m.yaml:3: Person ana: email: "ana@bücher.example" has a character that is not plain ASCII; write the domain in its ASCII form (xn--…)`},
		{"groups: [fin]", "groups: fin", `m.yaml:4: Person ana: groups: must be a list, not one value`},
		{"groups: [fin]", "groups: [fin, fin]", `m.yaml:4: Person ana: groups[1]: "fin" is there twice`},
		{"groups: [fin]", "groups: [Fin]", `m.yaml:4: Person ana: groups[0]: name "Fin" has "F"; only a-z, 0-9 and - are allowed`},
		{"roles: [admin]", "roles: [approver]", `m.yaml:5: Person ana: roles[0]: approver is no role; who approves is said by groups and by the class's approvers`},
		{"roles: [admin]", "roles: [admn]", `m.yaml:5: Person ana: roles[0]: "admn" is none of admin, auditor; did you mean "admin"?`},

		// Class.
		{"tier: routine", "tier: rutine", `m.yaml:19: Class read: tier: "rutine" is none of routine, guarded, irreversible, forbidden; did you mean "routine"?`},
		{"tier: routine", "", `m.yaml:17: Class read: member "tier" is missing`},
		{"tier: irreversible", "tier: guarded", `m.yaml:7: Class payout: tier: class payout cannot be below irreversible: what it does cannot be taken back; ` + "`insecure_lower_tier: true`" + ` allows it and is recorded`},
		{"tier: irreversible", "tier: guarded\ninsecure_lower_tier: true", ``},
		{"tier: irreversible", "tier: forbidden", ``},
		{"tier: routine", "tier: guarded\nlimits: [{sum: amount, per: agent, window: 24h, max: 7}]", ``},
		{"tier: routine", "tier: routine\nlimits: []", ``},
		{"tier: routine", "tier: routine\nlimits: [{sum: amount, per: agent, window: 24h, max: 7}]", `m.yaml:17: Class read: limits: limits go with a tier above routine: they are taken when an approval is spent, and at a routine call nothing adds up`},
		{"tier: irreversible", "tier: guarded\ninsecure_lower_tier: yes", `m.yaml:10: Class payout: insecure_lower_tier: must be true or false` + "\n" + `m.yaml:7: Class payout: tier: class payout cannot be below irreversible: what it does cannot be taken back; ` + "`insecure_lower_tier: true`" + ` allows it and is recorded`},
		{"name: read\ntier: routine", "name: credential-reset\ntier: routine", `m.yaml:17: Class credential-reset: tier: class credential-reset cannot be below guarded: what it does cannot be taken back; ` + "`insecure_lower_tier: true`" + ` allows it and is recorded`},
		{"approvers: [fin]", "approvers: []", `m.yaml:10: Class payout: approvers: is empty; name a group or leave the member out`},
		{"approvers: [fin]", "approvers: [[fin], hr]", `m.yaml:10: Class payout: approvers[1]: must be a list, not one value`},
		{"approvers: [fin]", "approvers: [fin, [hr]]", `m.yaml:10: Class payout: approvers[1]: must be one value, not a list`},
		{"approvers: [fin]", "approvers: [[fin], []]", `m.yaml:10: Class payout: approvers[1]: is empty; name a group`},
		{"window: 15m", "window: 15", `m.yaml:11: Class payout: window: "15" is not a duration such as 90s, 15m or 24h`},
		{"window: 15m", "window: -15m", `m.yaml:11: Class payout: window: "-15m" is not whole seconds, at least one, at most ten years`},
		{"window: 15m", "window: 1500ms", `m.yaml:11: Class payout: window: "1500ms" is not whole seconds, at least one, at most ten years`},
		{"window: 15m", "window: 999999h", `m.yaml:11: Class payout: window: "999999h" is not whole seconds, at least one, at most ten years`},
		{`template: "Pay {{.amount}}"`, `template: "Pay {{.amount}"`, `m.yaml:12: Class payout: template: is not a template: 1: bad character U+007D '}'`},
		{`template: "Pay {{.amount}}"`, `template: "{{printf .amount}}"`, `m.yaml:12: Class payout: template: is not a template: 1: function "printf" not defined`},
		{`template: "Pay {{.amount}}"`, `template: "{{if .amount}}Pay{{end}}"`, `m.yaml:12: Class payout: template: has "{{if .amount}}Pay{{end}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{if .amount}}{{else}}Pay{{end}}"`, `m.yaml:12: Class payout: template: has "{{if .amount}}{{else}}Pay{{end}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{range .amount}}x{{end}}"`, `m.yaml:12: Class payout: template: has "{{range .amount}}x{{end}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{with .amount}}x{{end}}"`, `m.yaml:12: Class payout: template: has "{{with .amount}}x{{end}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{$x := .amount}}"`, `m.yaml:12: Class payout: template: has "{{$x := .amount}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{.amount.Big}}"`, `m.yaml:12: Class payout: template: has "{{.amount.Big}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{.}}"`, `m.yaml:12: Class payout: template: has "{{.}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{1000}}"`, `m.yaml:12: Class payout: template: has "{{1000}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{(.amount)}}"`, `m.yaml:12: Class payout: template: has "{{(.amount)}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{.amount .to}}"`, `m.yaml:12: Class payout: template: has "{{.amount .to}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: '{{define "x"}}y{{end}}Pay'`, `m.yaml:12: Class payout: template: defines a template "x" of its own; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: '{{template "x"}}'`, `m.yaml:12: Class payout: template: has "{{template \"x\"}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{.amount | .to}}"`, `m.yaml:12: Class payout: template: has "{{.amount | .to}}"; a template is text with fields such as {{.amount}}, no condition, loop, variable or function`},
		{`template: "Pay {{.amount}}"`, `template: "{{.betrag_für}}"`, `m.yaml:12: Class payout: template: "betrag_für" is not a field's name: letters, digits and _, at most 64, no digit first`},
		{`template: "Pay {{.amount}}"`, `template: "Pay \u202e{{.amount}}"`, `m.yaml:12: Class payout: template: has the control character U+202E`},
		{`max: "100"`, `max: "100.12345"`, `m.yaml:13: Class payout: limits[0].max: "100.12345" is not a decimal above zero of at most four places, such as "100.50"`},
		{`max: "100"`, `max: -1`, `m.yaml:13: Class payout: limits[0].max: "-1" is not a decimal above zero of at most four places, such as "100.50"`},
		{`max: "100"`, `max: 1e3`, `m.yaml:13: Class payout: limits[0].max: "1e3" is not a decimal above zero of at most four places, such as "100.50"`},
		{`max: "100"`, `max: 0x10`, `m.yaml:13: Class payout: limits[0].max: "0x10" is not a decimal above zero of at most four places, such as "100.50"`},
		{`max: "100"`, `max: true`, `m.yaml:13: Class payout: limits[0].max: must be a decimal such as "100.50"; YAML reads true as something else, so put it in quotes`},
		{`per: agent, `, ``, `m.yaml:13: Class payout: limits[0]: member "per" is missing`},
		{`per: agent`, `per: task`, `m.yaml:13: Class payout: limits[0].per: "task" is none of agent`},
		{`sum: amount`, `sum: /amount`, `m.yaml:13: Class payout: limits[0].sum: "/amount" is not a field's name: letters, digits and _, at most 64, no digit first`},
		{`payload: full`, `payload: all`, `m.yaml:14: Class payout: payload: "all" is none of full, digest, none`},
		{`08987058-cadc`, `08987058cadc`, `m.yaml:15: Class payout: authenticators[0]: "08987058cadc-4b81-b6e1-30de50dcbe96" is not an AAGUID: 32 lower-case hexadecimal digits in groups of 8-4-4-4-12`},

		// Resource.
		{"type: mcp", "type: mpc", `m.yaml:23: Resource bank: type: "mpc" is none of mcp, http, direct; did you mean "mcp"?`},
		{"name: bank\ntype: mcp\nenvironment: prod", "name: bank\ntype: mcp", `m.yaml:21: Resource bank: member "environment" is missing`},
		{"upstream: http://127.0.0.1:9000/mcp\n", "", `m.yaml:21: Resource bank: member "upstream" is missing: the gateway forwards to it; a resource that is not fronted has type direct`},
		{"binding: require", "binding: required", `m.yaml:26: Resource bank: binding: "required" is none of require, prefer, observe; did you mean "require"?`},
		{"binding: require", "binding: prefer", `m.yaml:26: Resource bank: binding: takes a bearer token beside bound ones, and no bearers say which; name them, or use require`},
		{"binding: require", "binding: observe", `m.yaml:26: Resource bank: binding: takes a bearer token beside bound ones, and no bearers say which; name them, or use require`},
		{"public_url: https://far.example/api\n", "", `m.yaml:42: Resource far: member "public_url" is missing: a direct resource is known to agents by its own URL`},
		{"public_url: https://far.example/api", "public_url: https://far.example/api?x=1", `m.yaml:46: Resource far: public_url: must not have a query`},
		{"public_url: https://far.example/api", "public_url: https://far.example/api\nupstream: https://far.example", `m.yaml:47: Resource far: upstream: a direct resource is not fronted; leave the upstream out or use type mcp or http`},
		{"public_url: https://far.example/api", "public_url: https://far.example/api\nprompts: read", `m.yaml:47: Resource far: prompts: only mcp resources have it`},
		{"name: get_balance, class: read", "name: get_balance", `m.yaml:29: Resource bank: tools[0]: member "class" is missing`},
		{"name: get_balance, class: read", "name: get balance, class: read", `m.yaml:29: Resource bank: tools[0].name: tool name "get balance" has " "; only letters, digits, _ - and . are allowed`},
		{"name: get_balance, class: read", "name: pay, class: read", `m.yaml:30: Resource bank: tools[1]: tool "pay" is there twice; the first is tools[0]`},
		{"name: get_balance, class: read", "name: prompts, class: read", `m.yaml:29: Resource bank: tools[0]: the name "prompts" is reserved: it stands for the server's prompts, which the member "prompts" gives a class`},
		{"name: get_balance, class: read", "name: get_balance, class: raed", `m.yaml:29: Resource bank: tools[0].class: there is no Class "raed"; did you mean "read"?`},
		{"name: get_balance, class: read", "name: get_balance, class: read, method: GET, path: /x", `m.yaml:29: Resource bank: tools[0]: only tools of http resources have method and path`},
		{"prompts: read", "prompts: raed", `m.yaml:27: Resource bank: prompts: there is no Class "raed"; did you mean "read"?`},
		{"fields: {amount: /amount}", "fields: {amount: amount}", `m.yaml:30: Resource bank: tools[1].fields.amount: "amount" does not begin with a slash; write a JSON pointer (RFC 6901), such as /amount`},
		{"fields: {amount: /amount}", "fields: {amount: /a~2}", `m.yaml:30: Resource bank: tools[1].fields.amount: "/a~2" has a ~ that is neither ~0 (for ~) nor ~1 (for /)`},
		{"fields: {amount: /amount}", "fields: {the amount: /amount}", `m.yaml:30: Resource bank: tools[1].fields: "the amount" is not a field's name: letters, digits and _, at most 64, no digit first`},
		{`method: GET, path: "/customers/{id}"`, `path: "/customers/{id}"`, `m.yaml:39: Resource crm: tools[0]: a tool of an http resource needs method and path`},
		{`method: GET, path: "/customers/{id}"`, `method: FETCH, path: "/customers/{id}"`, `m.yaml:39: Resource crm: tools[0].method: "FETCH" is none of GET, HEAD, POST, PUT, PATCH, DELETE`},
		{`path: "/customers/me"`, `path: "/customers/{name}"`, `m.yaml:40: Resource crm: tools[1]: tool "me" and tool "get" match the same requests equally well (GET /customers/{name} and /customers/{id})`},
		{`path: "/customers/me"`, `path: "/{kind}/me"`, `m.yaml:40: Resource crm: tools[1]: tool "me" and tool "get" match the same requests equally well (GET /{kind}/me and /customers/{id})`},
		{`path: "/customers/me"`, `path: "/customers/a{id}"`, `m.yaml:40: Resource crm: tools[1].path: segment "a{id}" of "/customers/a{id}" is not a variable such as {id}; a variable is a whole segment`},
		{`path: "/customers/me"`, `path: "/customers/%6de"`, `m.yaml:40: Resource crm: tools[1].path: segment "%6de" of "/customers/%6de" has a character that a path template does not take (no %, ? or #)`},
		{`path: "/customers/me"`, `path: "/customers//me"`, `m.yaml:40: Resource crm: tools[1].path: "/customers//me" has an empty segment`},
		{`path: "/customers/me"`, `path: "/customers/../me"`, `m.yaml:40: Resource crm: tools[1].path: "/customers/../me" has a segment ..`},
		{`path: "/customers/me"`, `path: "customers"`, `m.yaml:40: Resource crm: tools[1].path: "customers" does not begin with a slash`},
		{`upstream: https://crm.example`, `upstream: https://crm.example?a=b`, `m.yaml:36: Resource crm: upstream: must not have a query: the query is the call's`},
		{`file: crm-token`, `file: ../crm-token`, `m.yaml:37: Resource crm: credential.file: "../crm-token" is not a plain file name under secrets_dir: letters, digits, _ - and ., without a slash and without two dots in a row`},
		{`file: crm-token`, `file: /etc/passwd`, `m.yaml:37: Resource crm: credential.file: "/etc/passwd" is not a plain file name under secrets_dir: letters, digits, _ - and ., without a slash and without two dots in a row`},
		{`, file: crm-token`, ``, `m.yaml:37: Resource crm: credential: nothing says where the secret comes from; write one of file, stored, exec, url, oauth`},
		{`header: Authorization`, `header: "X: y"`, `m.yaml:37: Resource crm: credential.header: "X: y" is not a header's name`},
		{`header: Authorization`, `header: Transfer-Encoding`, `m.yaml:37: Resource crm: credential.header: header "Transfer-Encoding" is the request's own and cannot carry a credential`},
		{`prefix: "Bearer "`, `prefix: ""`, ``},
		{`prefix: "Bearer "`, `prefix: 1`, `m.yaml:37: Resource crm: credential.prefix: must be text; YAML reads 1 as something else, so put it in quotes`},
		{"purpose: monthly", `purpose: ""`, ``},
		{`prefix: "Bearer "`, `prefix: "a\r\nX-Admin: "`, `m.yaml:37: Resource crm: credential.prefix: has the control character U+000D`},

		// Agent.
		{"owner: ana", "owner: anna", `m.yaml:50: Agent payroll: owner: there is no Person "anna"; did you mean "ana"?`},
		{"owner: ana\n", "", `m.yaml:48: Agent payroll: member "owner" is missing`},
		{"purpose: monthly\nenvironment: prod", "purpose: monthly", `m.yaml:48: Agent payroll: member "environment" is missing`},
		{"bank/get_balance,", "bank/get_balanse,", `m.yaml:55: Agent payroll: grants[0].tools[0]: bank/get_balanse: Resource bank classifies no tool "get_balanse"; did you mean "get_balance"?`},
		{"bank/get_balance,", "banc/get_balance,", `m.yaml:55: Agent payroll: grants[0].tools[0]: banc/get_balance: there is no Resource "banc"; did you mean "bank"?`},
		{"bank/get_balance,", "bank/resources,", `m.yaml:55: Agent payroll: grants[0].tools[0]: bank/resources: Resource bank gives its resources no class; add ` + "`resources: CLASS`" + ` to it`},
		{"bank/get_balance,", "get_balance,", `m.yaml:55: Agent payroll: grants[0].tools[0]: "get_balance" is not of the form resource/tool`},
		{"bank/get_balance,", `"bank/get_*",`, `m.yaml:55: Agent payroll: grants[0].tools[0]: "bank/get_*" has a *; the only pattern is resource/*, every tool that the resource's manifest classifies`},
		{"bank/get_balance,", `"*",`, `m.yaml:55: Agent payroll: grants[0].tools[0]: "*" has a *; the only pattern is resource/*, every tool that the resource's manifest classifies`},
		{"tools: [bank/pay]", "tools: []", `m.yaml:56: Agent payroll: grants[1].tools: is empty; leave the grant out`},
		{"networks: [10.0.0.0/8]", "networks: []", `m.yaml:57: Agent payroll: grants[1].networks: is empty; leave the member out`},
		{"networks: [10.0.0.0/8]", "networks: [10.0.0.1]", `m.yaml:57: Agent payroll: grants[1].networks[0]: "10.0.0.1" is an address; write the network as 10.0.0.1/32`},
		{"networks: [10.0.0.0/8]", "networks: [10.0.0.1/8]", `m.yaml:57: Agent payroll: grants[1].networks[0]: "10.0.0.1/8" has bits beyond its length; did you mean 10.0.0.0/8?`},
		{"networks: [10.0.0.0/8]", "networks: [office]", `m.yaml:57: Agent payroll: grants[1].networks[0]: "office" is not a network such as 10.0.0.0/8 or "::1/128"`},
		{"networks: [10.0.0.0/8]", `networks: ["::ffff:10.0.0.0/104"]`, `m.yaml:57: Agent payroll: grants[1].networks[0]: "::ffff:10.0.0.0/104" is IPv4 written as IPv6; write it as IPv4`},
		{`decimal("0.0")`, `decimal("0")`, `m.yaml:58: Agent payroll: grants[1].when: decimal("0") can only err: a decimal is text with a point and one to four places, such as decimal("50000.0")`},
		{`context.fields.amount`, `context.feilds.amount`, `m.yaml:58: Agent payroll: grants[1].when: context has no member "feilds"; did you mean "fields"? (it has args, fields, hour, weekday, network, task, subject, actors, key_kind)`},
		{`when: context.fields.amount.greaterThan(decimal("0.0"))`, "when: |\n      true\n      &&\n      }; permit (principal, action, resource) when { true", `m.yaml:61: Agent payroll: grants[1].when: this is not Cedar: near ";": invalid primary`},
		{`when: context.fields.amount.greaterThan(decimal("0.0"))`, `when: "true }; permit (principal, action, resource) when { true"`, `m.yaml:58: Agent payroll: grants[1].when: the condition is 2 policies; it must be one expression`},
		{"max_calls: 10", "max_calls: 0", `m.yaml:59: Agent payroll: tasks.max_calls: 0 is not a whole number from 1 to 2147483647`},
		{"max_calls: 10", "max_calls: many", `m.yaml:59: Agent payroll: tasks.max_calls: must be a whole number`},
		{"proof_keys: any", "proof_keys: all", `m.yaml:60: Agent payroll: proof_keys: "all" is none of registered, any`},
		{"proof_keys: any", "clones: record", ``},
		{"proof_keys: any", "clones: quarantine", ``},
		{"proof_keys: any", "clones: ignore", `m.yaml:60: Agent payroll: clones: "ignore" is none of quarantine, record`},
		{"proof_keys: any", "clones: true", `m.yaml:60: Agent payroll: clones: must be text; YAML reads true as something else, so put it in quotes`},
		{"https://ci.example", "ci.example", `m.yaml:53: Agent payroll: workloads[0].issuer: "ci.example" is not an http or https URL`},
		{"https://ci.example", "http://0.0.0.0", `m.yaml:53: Agent payroll: workloads[0].issuer: leads to 0.0.0.0, which is no address to connect to`},
		{"repo:x", "repo:*", `m.yaml:53: Agent payroll: workloads[0].subject: "repo:*" is not one subject: it is compared as it is written, and has no wildcards`},
		{"proof_keys: any", "keys: [{kty: oct, k: AAAA}]", `m.yaml:60: Agent payroll: keys[0]: is not a public key that is taken here: KEYERROR`},
		{"proof_keys: any", "keys: [text]", `m.yaml:60: Agent payroll: keys[0]: is not a public key that is taken here: KEYERROR`},
		{"proof_keys: any", "keys: [{kty: EC, crv: P-256, x: " + jwkX + ", y: " + jwkX + "}]", `m.yaml:60: Agent payroll: keys[0]: is not a public key that is taken here: KEYERROR`},
		{"proof_keys: any", "keys: [{kty: EC, crv: P-256, x: " + jwkX + ", y: " + jwkY + ", d: AAAA}]", `m.yaml:60: Agent payroll: keys[0]: is not a public key that is taken here: KEYERROR`},
		{"proof_keys: any", "keys: [{kty: EC, crv: P-256, x: " + jwkX + ", y: " + jwkY + "}]", ``},

		// Policy.
		{"  when { context.hour >= 22 };", "  when { context.huor >= 22 };", `m.yaml:65: Policy nights: cedar: context has no member "huor"; did you mean "hour"? (it has args, fields, hour, weekday, network, task, subject, actors, key_kind)`},
		{"  when { context.hour >= 22 };", "  when { context.hour >= };", `m.yaml:66: Policy nights: cedar: this is not Cedar: near ";": invalid primary`},
		{"  when { context.hour >= 22 };", "  when { context.hour >= 22 }", `m.yaml:66: Policy nights: cedar: this is not Cedar: the text ends where more is expected`},
		{"  forbid (principal", "  permit (principal", `m.yaml:65: Policy nights: cedar: a policy holds forbid only; permission is given by an agent's grants`},
		{"  forbid (principal,", "  forbid (principal == User::\"x\",", `m.yaml:65: Policy nights: cedar: the forbid never applies: the principal of a call is an Agent, as in principal == Agent::"payroll"`},
		{"cedar: |\n  forbid (principal, action, resource in Class::\"payout\")\n  when { context.hour >= 22 };\n", "cedar: \" \"\n", `m.yaml:64: Policy nights: cedar: is empty`},
	}
	for _, tt := range tests {
		t.Run(strings.TrimSpace(tt.new), func(t *testing.T) {
			t.Parallel()
			if strings.Count(controls, tt.old) == 0 {
				t.Fatalf("%q is not in the controls", tt.old)
			}
			got := strings.Join(apply(strings.Replace(controls, tt.old, tt.new, 1)), "\n")
			want, open := strings.CutSuffix(tt.want, "KEYERROR") // the rest is another package's text
			if open && (!strings.HasPrefix(got, want) || strings.Contains(got, "\n")) {
				t.Errorf("\ngot  %s\nwant %s…", got, want)
			}
			if !open && got != want {
				t.Errorf("\ngot  %s\nwant %s", got, want)
			}
		})
	}
}

// Whatever is wrong is said at once, over all files.
func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	_, problems := Parse([]File{
		{"a.yaml", []byte("kind: Person\nname: ana\nrolls: [admin]\n---\nkind: Class\nname: x\ntier: high\nwindow: soon\n")},
		{"b.yaml", []byte("kind: Person\nname: ana\n---\nkind: Agent\nname: b\n")},
		{"c.yaml", []byte("kind: Person\nname: fine\n---\nname: [\n")},
		{"d.yaml", []byte("\xff")},
		{"e.yaml", []byte("\xef\xbb\xbfkind: Person\nname: e\n")},
	})
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	want := []string{
		`a.yaml:3: Person ana: member "rolls" is unknown; did you mean "roles"?; known are email, groups, kind, name, roles`,
		`a.yaml:7: Class x: tier: "high" is none of routine, guarded, irreversible, forbidden`,
		`a.yaml:8: Class x: window: "soon" is not a duration such as 90s, 15m or 24h`,
		`b.yaml:1: Person ana: is declared twice; the first time at a.yaml:1`,
		`b.yaml:4: Agent b: member "owner" is missing`,
		`b.yaml:4: Agent b: member "environment" is missing`,
		`c.yaml:5: this is not YAML: did not find expected node content`,
		`d.yaml: the file is not UTF-8`,
		`e.yaml:1: the file begins with a byte order mark; save it as UTF-8 without one`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
}

func TestUpstreams(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"http://127.0.0.1:9000/mcp", "https://crm.example", "https://crm.example.", "http://[::1]:1", "http://crm", "http://10.0.0.1/a/b?c=d", "HTTP://CRM.example:65535/", "http://my_host:80", "https://xn--mnchen-3ya.example",
	} {
		if err := checkUpstream(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "crm.example", "//crm.example", "ftp://crm.example", "file:///etc/passwd", "http:crm", "http://", "http://:80", "http://crm:", "http://crm:0", "http://crm:65536", "http://crm:http",
		"http://u:p@crm.example", "http://u@crm.example", "http://crm.example#f", "http://crm.example/#", "http://crm example", `http://crm\x`, "http://crm%2eexample", "http://crm.example\n",
		"http://[fe80::1%25eth0]", "http://127.1", "http://localhost.", "http://[::ffff:0.0.0.0]",
		"http://metadata.google.internal/", "http://METADATA.google.internal.", "http://metadata", "http://instance-data", "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376", "http://169.254.43518", "http://0xA9.0xFE.0xA9.0xFE",
		"http://0.0.0.0", "http://[::]", "http://224.0.0.1", "http://-crm.example", "http://crm..example", "http://münchen.example", "http://1.2.3", "http://[::1",
	} {
		if err := checkUpstream(s); err == nil {
			t.Errorf("%s passes", s)
		}
	}
}

func TestAmbiguous(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want bool
	}{
		{"/a", "/a", true},
		{"/a", "/b", false},
		{"/a", "/a/", false},
		{"/{x}", "/{y}", true},
		{"/{x}", "/a", false},
		{"/{x}", "/", false},
		{"/a/{x}", "/{y}/b", true},
		{"/a/{x}", "/a/b", false},
		{"/a/{x}/c", "/a/{y}/d", false},
		{"/a/{x}/c", "/a/b/{y}", true},
		{"/{a}/{b}", "/x/{b}", false},
		{"/a/{x}", "/a/{x}/{y}", false},
	}
	for _, tt := range tests {
		if ambiguous(tt.a, tt.b) != tt.want || ambiguous(tt.b, tt.a) != tt.want {
			t.Errorf("%s and %s: want %t", tt.a, tt.b, tt.want)
		}
	}
}
