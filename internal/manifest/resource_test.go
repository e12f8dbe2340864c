package manifest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// everything is a resource with every member that http resources have.
const everything = `kind: Person
name: ana
email: ana@example.com
---
kind: Person
name: bo
email: bo@example.com
groups: [support]
---
kind: Agent
name: cron
owner: ana
environment: prod
grants: [{tools: [crm/*]}]
---
kind: Class
name: read
tier: routine
---
kind: Class
name: reset
tier: guarded
approvers: [support]
---
kind: Resource
name: crm
type: http
environment: prod
upstream: https://10.1.2.3/api
binding: observe
require_from: 2026-12-24
bearers:
  - {agent: cron, key: "sha-256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
  - {agent: cron, issuer: "https://idp.example", subject: svc, audience: crm, jwks_uri: "https://idp.example/keys"}
credential: {header: X-Api-Key, oauth: {token_url: "https://as.example/token", client_id: cf, client_secret: cs, scope: "a b", subject_token: st}, ttl: 10m}
tools:
  - {name: get, method: GET, path: "/c/{id}", class: read, headers: [X-Tenant]}
  - name: put
    method: PUT
    path: "/c/{id}"
    class: reset
    fields: {id: /path/id, name: /body/name}
    schema:
      type: object
      properties: {path: {type: object}, body: {type: object, properties: {name: {type: string}}, required: [name]}}
  - {name: photo, method: PUT, path: "/c/{id}/photo", class: read, consumes: [image/png]}
  - {name: upload, method: POST, path: /blobs, class: read, stream: true}
  - {name: live, method: GET, path: /live, class: read, websocket: true}
`

func TestResourceMembers(t *testing.T) {
	t.Parallel()
	reg, _ := merged(t, nil, everything)
	r := reg.Resources["crm"]
	if r.Binding != counterfoil.BindingObserve || !r.RequireFrom.Equal(time.Date(2026, 12, 24, 0, 0, 0, 0, time.UTC)) || len(r.Bearers) != 2 || r.Bearers[1].JWKSURI != "https://idp.example/keys" {
		t.Errorf("%+v", r)
	}
	if c := r.Credential; c.OAuth == nil || c.OAuth.SubjectToken != "st" || c.TTL != counterfoil.Duration(10*time.Minute) || c.File != "" {
		t.Errorf("%+v", c)
	}
	if want := `{"properties":{"body":{"properties":{"name":{"type":"string"}},"required":["name"],"type":"object"},"path":{"type":"object"}},"type":"object"}`; r.Tools[1].Schema != want {
		t.Error(r.Tools[1].Schema)
	}
	if !r.Tools[3].Stream || !r.Tools[4].WebSocket || r.Tools[2].Consumes[0] != "image/png" || r.Tools[0].Headers[0] != "X-Tenant" {
		t.Errorf("%+v", r.Tools)
	}
	text, err := Format(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, changes := merged(t, reg, string(text)); verbs(changes) != "unchanged Resource/crm" {
		t.Errorf("%s\n%s", verbs(changes), text)
	}
	if !strings.Contains(string(text), "require_from: \"2026-12-24\"\n") && !strings.Contains(string(text), "require_from: 2026-12-24\n") {
		t.Errorf("%s", text)
	}
	// JSON text is the same schema.
	as, _ := merged(t, nil, strings.Replace(everything, `
      type: object
      properties: {path: {type: object}, body: {type: object, properties: {name: {type: string}}, required: [name]}}`,
		` '`+r.Tools[1].Schema+`'`, 1))
	if as.Resources["crm"].Tools[1].Schema != r.Tools[1].Schema {
		t.Error(as.Resources["crm"].Tools[1].Schema)
	}
}

func TestResourceMemberProblems(t *testing.T) {
	t.Parallel()
	const (
		key  = `key: "sha-256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"`
		cred = `{header: X-Api-Key, oauth: {token_url: "https://as.example/token", client_id: cf, client_secret: cs, scope: "a b", subject_token: st}, ttl: 10m}`
		up   = "upstream: https://10.1.2.3/api\n"
	)
	tests := []struct{ old, new, want string }{
		{"binding: observe", "binding: prefer", ""},
		{"2026-12-24", "2026-12-24T07:00:00+01:00", ""},
		{"2026-12-24", "tomorrow", `require_from: "tomorrow" is not a date such as`},
		{"2026-12-24", "2026-02-30", `require_from: "2026-02-30" is not a date such as`},
		{"2026-12-24", "2026-12-24T07:00:00.5Z", "is not whole seconds"},
		{"binding: observe\n", "binding: require\n", "require_from: goes with binding observe or prefer"},
		{"binding: observe\n", "", "require_from: goes with binding observe or prefer"},
		{key, "key: letmein", "bearers[0].key: is not the digest of a key"},
		{key, `key: "sha-256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"`, "its last character cannot end one"},
		{key, key + ", issuer: https://x.example", "bearers[0]: a static key has no issuer"},
		{", " + key, "", "bearers[0]: write a static key's digest (key), or issuer and subject"},
		{"agent: cron, " + key, key, `bearers[0]: member "agent" is missing`},
		{"agent: cron, " + key, "agent: corn, " + key, `bearers[0].agent: there is no Agent "corn"; did you mean "cron"?`},
		{"subject: svc, ", "", "bearers[1]: write a static key's digest (key), or issuer and subject"},
		{"subject: svc", `subject: "*"`, "it is compared as it is written"},
		{`, jwks_uri: "https://idp.example/keys"`, "", "bearers[1]: neither jwks_uri nor keys is there"},
		{`jwks_uri: "https://idp.example/keys"`, `jwks_uri: "http://idp.example/keys"`, "must be https"},
		{"credential:", "  - {agent: ana, " + key + "}\ncredential:", "bearers[2]: bearers[0] takes the same credential"},
		{"credential:", `  - {agent: cron, issuer: "https://idp.example", subject: other, jwks_uri: "https://elsewhere.example/keys"}` + "\ncredential:", "Resource crm names other keys of the same issuer"},
		{cred, "{header: X-Api-Key}", "credential: nothing says where the secret comes from"},
		{cred, "{header: X-Api-Key, file: a, stored: b}", "credential: the secret comes from one place, not from file and stored"},
		{cred, "{header: X-Api-Key, stored: b}", ""},
		{cred, "{header: X-Api-Key, stored: B}", "credential.stored:"},
		{cred, "{header: X-Api-Key, stored: b, ttl: 5m}", "credential: ttl goes with exec, url and oauth"},
		{cred, "{header: X-Api-Key, exec: vault.sh, ttl: 5m}", ""},
		{cred, "{header: X-Api-Key, exec: ../vault.sh}", "credential.exec:"},
		{cred, `{header: X-Api-Key, exec: "vault.sh --now"}`, "is not the plain file name of a program in providers_dir"},
		{cred, `{header: X-Api-Key, url: "https://vault.example/v1/crm", url_token: vt}`, ""},
		{cred, `{header: X-Api-Key, url: "http://vault.example/v1/crm"}`, "credential.url: must be https"},
		{cred, `{header: X-Api-Key, url: "https://u:p@vault.example/"}`, "credential.url: must not have a user"},
		{cred, "{header: X-Api-Key, file: a, url_token: vt}", "credential: url_token goes with url"},
		{"client_secret: cs, ", "", `credential.oauth: member "client_secret" is missing`},
		{"https://as.example/token", "http://as.example/token", "credential.oauth.token_url: must be https"},
		{up, "", `member "upstream" is missing`},
		{up, "public_url: https://crm.example/api\n", ""},
		{"type: http", "type: mcp", "only tools of http resources"},
		{"type: http\nenvironment: prod\n" + up, "type: direct\nenvironment: prod\npublic_url: https://crm.example\n", "bearers: a direct resource is not fronted"},
		{"[X-Tenant]", "[X-Tenant, x-tenant]", `"x-tenant" is there as "X-Tenant"`},
		{"[X-Tenant]", "[Authorization]", `header "Authorization" is never passed on`},
		{"[X-Tenant]", "[X-Forwarded-For]", `header "X-Forwarded-For" is never passed on`},
		{"[X-Tenant]", "[X-HTTP-Method-Override]", "is never passed on"},
		{"[X-Tenant]", "[X_HTTP_Method_Override]", "is never passed on"},
		{"[X-Tenant]", "[X-Host]", "is never passed on"},
		{"[X-Tenant]", "[X-Original-Host]", "is never passed on"},
		{"[X-Tenant]", "[Signature]", "is never passed on"},
		{"[X-Tenant]", "[Repr-Digest]", "is never passed on"},
		{"[X-Tenant]", "[idempotency-key]", "is never passed on"},
		{"[X-Tenant]", "[x-api-key]", `header "x-api-key" is the one that carries the credential`},
		{"[X-Tenant]", `["X Y"]`, "is not a header's name"},
		{"[image/png]", "[IMAGE/PNG]", "is not a media type in lower case"},
		{"[image/png]", `["image/*"]`, "is not a media type in lower case"},
		{"[image/png]", "[application/json]", "is JSON, which is taken without being named"},
		{"[image/png]", "[application/merge-patch+json]", "is JSON, which is taken without being named"},
		{"class: read, headers: [X-Tenant]", "class: read, consumes: [image/png]", "a GET has no body, so it consumes nothing"},
		{"class: read, headers: [X-Tenant]", "class: read, stream: true", "a GET has no body to stream"},
		{"class: read, headers: [X-Tenant]", "class: read, fields: {a: /body/a}", "a GET has no body, so fields.a is of nothing"},
		{"class: read, stream: true", "class: read, stream: true, fields: {a: /body}", "so fields.a is of nothing"},
		{"class: read, stream: true", "class: read, stream: true, consumes: [text/csv]", ""},
		{"class: read, stream: true", "class: read, stream: true, consumes: [text/csv, application/x-www-form-urlencoded]", "leave application/x-www-form-urlencoded out of consumes, or stream out"},
		{"class: read, stream: true", "class: read, stream: true, consumes: [multipart/form-data]", "so it is read and never streamed; leave multipart/form-data out"},
		{"class: read, stream: true", "class: read, consumes: [multipart/form-data]", ""},
		{"class: read, stream: true", "class: reset, stream: true", "tools[3].stream: a body that is passed on as it comes is read by nobody, so it goes with routine classes alone; Class reset is guarded"},
		{"class: read, websocket: true", "class: reset, websocket: true", "tools[4].websocket: what goes over a WebSocket is read by nobody"},
		{"name: live, method: GET", "name: live, method: POST", "a WebSocket begins with a GET"},
		{"{path: {type: object}, body: {", "{name: {type: object}, body: {", `has the property "name"; the arguments of an http tool are path, query and body`},
		{"      type: object\n", "      type: object\n      type: object\n", `member "type" is there twice`},
		{"required: [name]", "required: [name], maximum: 0x10", "0x10 is no number of JSON"},
		{"required: [name]", "required: [name], maximum: 9223372036854775807", "is not JSON that is taken here"},
		{"required: [name]", "required: &a [name]", "anchors and aliases are not taken"},
	}
	for _, tt := range tests {
		t.Run(tt.new, func(t *testing.T) {
			t.Parallel()
			if strings.Count(everything, tt.old) != 1 {
				t.Fatalf("%q is not in the manifest once", tt.old)
			}
			docs, problems := Parse([]File{{"m.yaml", []byte(strings.Replace(everything, tt.old, tt.new, 1))}})
			if len(problems) == 0 {
				_, _, problems = Merge(nil, docs)
			}
			if tt.want == "" {
				if len(problems) > 0 {
					t.Error(problems)
				}
				return
			}
			if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), tt.want) && p.File == "m.yaml" && p.Line > 0 }) {
				t.Errorf("got %v", problems)
			}
		})
	}
}

func TestResourceWarnings(t *testing.T) {
	t.Parallel()
	const observed = "Resource crm: binding: observe takes a bearer token for all that its agent may, so whoever steals one may the same, until 2026-12-24T00:00:00Z"
	tests := []struct{ old, new, want string }{
		{"", "", observed},
		{"binding: observe", "binding: prefer", "Resource crm: binding: prefer takes a bearer token for routine classes, so whoever steals one may call these, until 2026-12-24T00:00:00Z"},
		{"require_from: 2026-12-24\n", "", "Resource crm: binding: observe takes a bearer token for all that its agent may, so whoever steals one may the same; require_from would end it by itself"},
		{"2026-12-24", "2026-10-31", "Resource crm: require_from: 2026-10-31T00:00:00Z is past, so binding is require; write `binding: require` and leave require_from out"},
		{"binding: observe\nrequire_from: 2026-12-24", "binding: require", "Resource crm: bearers: none is taken, because binding is require"},
		{"grants: [{tools: [crm/*]}]", "", observed + "\nResource crm: bearers[0]: agent cron has no grant for this resource, so the credential opens nothing\n" +
			"Resource crm: bearers[1]: agent cron has no grant for this resource, so the credential opens nothing"},
		{"consumes: [image/png]", "consumes: [image/png], fields: {a: /body/a}", observed + "\nResource crm: photo takes image/png, and refuses it all the same: field a is in the body, which is read only where it is JSON"},
		{"{id: /path/id, name: /body/name}", "{id: /path/customer, name: /name}", observed + "\nResource crm: field id of put is never there: /c/{id} has no {customer}\n" +
			"Resource crm: field name of put is never there: the arguments of an http tool are path, query and body, so it begins with one of /path, /query, /body"},
	}
	for _, tt := range tests {
		t.Run(tt.new, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(everything, tt.old) {
				t.Fatalf("%q is not in the manifest", tt.old)
			}
			reg, _ := merged(t, nil, strings.Replace(everything, tt.old, tt.new, 1))
			if got := strings.Join(Warnings(reg, testNow), "\n"); got != tt.want {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}
