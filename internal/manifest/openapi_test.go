package manifest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
)

const described = `kind: Class
name: read
tier: routine
---
kind: Class
name: credential-reset
tier: guarded
approvers: [support]
---
kind: Resource
name: crm
type: http
environment: prod
upstream: https://10.1.2.3/v2
openapi: {file: openapi/crm.yaml}
tools:
  - {name: get_customer, class: read}
  - {name: list, method: GET, path: /customers, class: read, fields: {limit: /query/limit}}
  - {name: reset_password, class: read}
`

func spec30(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/openapi/crm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// applied reads a manifest and its description.
func describedBy(t testing.TB, manifest, spec string) (*counterfoil.Registry, []Document) {
	t.Helper()
	docs, problems := Parse([]File{{"m/crm.yaml", []byte(manifest)}, {"m/openapi/crm.yaml", []byte(spec)}})
	reg, _, more := Merge(nil, docs)
	for _, p := range append(problems, more...) {
		t.Errorf("unexpected problem: %s", p)
	}
	if t.Failed() {
		t.FailNow()
	}
	return reg, docs
}

func toolLines(r *counterfoil.Resource) string {
	var out []string
	for _, tool := range classifiedTools(r) {
		out = append(out, fmt.Sprintf("%s %s %s %s %v %v %s", tool.Name, tool.Method, tool.Path, tool.Class, tool.Consumes, tool.Headers, tool.Schema))
	}
	return strings.Join(out, "\n")
}

const (
	schemaGet   = `{"additionalProperties":false,"properties":{"path":{"additionalProperties":false,"properties":{"customer_id":{"type":"string"}},"required":["customer_id"],"type":"object"}},"required":["path"],"type":"object"}`
	schemaList  = `{"additionalProperties":false,"properties":{"query":{"additionalProperties":false,"properties":{"filter[name]":{"type":"string"},"filter[since]":{"type":"string"},"ids":{"type":"string"},"limit":{"type":"string"},"tag":{"items":{"type":"string"},"type":"array"}},"required":["tag"],"type":"object"}},"required":["query"],"type":"object"}`
	schemaReset = `{"additionalProperties":false,"properties":{"body":{"type":"object"},"path":{"additionalProperties":false,"properties":{"customer_id":{"type":"string"}},"required":["customer_id"],"type":"object"}},"required":["path"],"type":"object"}`
	schemaNew   = `{"$defs":{"Customer":{"properties":{"born":{"type":["string","null"]},"friends":{"items":{"$ref":"#/$defs/Customer"},"type":"array"},"kind":{"enum":["person","company"],"type":"string"},"name":{"type":"string"},"parent":{"$ref":"#/$defs/Customer"}},"required":["name"],"type":"object"}},` +
		`"additionalProperties":false,"properties":{"body":{"$ref":"#/$defs/Customer"}},"required":["body"],"type":"object"}`
	schemaPhoto = `{"additionalProperties":false,"properties":{"body":{"anyOf":[{"properties":{"url":{"type":"string"}},"type":"object"},` +
		`{"additionalProperties":false,"properties":{"content_digest":{"type":"string"},"content_type":{"type":"string"}},"required":["content_digest","content_type"],"type":"object"}]},` +
		`"path":{"additionalProperties":false,"properties":{"customer_id":{"type":"string"}},"required":["customer_id"],"type":"object"}},"required":["path"],"type":"object"}`
)

// What is not listed is not callable; what is listed has its operator's class, and the
// description's place and schema.
func TestOpenAPIListed(t *testing.T) {
	t.Parallel()
	reg, docs := describedBy(t, described, spec30(t))
	want := "get_customer GET /customers/{customer_id} read [] [] " + schemaGet + "\n" +
		"list GET /customers read [] [X-Tenant] " + schemaList + "\n" +
		"reset_password POST /customers/{customer_id}/password read [] [] " + schemaReset
	if got := toolLines(reg.Resources["crm"]); got != want {
		t.Errorf("tools:\n%s", got)
	}
	var lines []string
	for _, s := range Suggestions(docs, reg) {
		lines = append(lines, s.Resource+" "+s.Operation+" "+s.Manifest)
	}
	wantLines := "crm POST /customers - {name: createCustomer, class: write}\n" +
		"crm DELETE /customers/{customer-id} - {name: delete_customers_customer-id, class: write}\n" +
		"crm PUT /customers/{customer-id}/photo - {name: put_photo, class: write}\n" +
		"crm POST /payments - {name: payments.create, class: payout}"
	if got := strings.Join(lines, "\n"); got != wantLines {
		t.Errorf("suggestions:\n%s", got)
	}
	notes := strings.Join(Notes(docs, reg), "\n")
	wantNotes := "Resource crm: tool reset_password is of class read, which is routine; it looks like credential-reset, which is guarded\n" +
		`Resource crm: openapi: GET /reports/{name}.csv of openapi/crm.yaml can be no tool: segment "{name}.csv" of "/reports/{name}.csv" is not a variable such as {id}; a variable is a whole segment`
	if notes != wantNotes {
		t.Errorf("notes:\n%s", notes)
	}
	// What is kept needs no description any more.
	text, err := Format(reg.Resources["crm"])
	if err != nil {
		t.Fatal(err)
	}
	if _, changes := merged(t, reg, string(text)); verbs(changes) != "unchanged Resource/crm" {
		t.Errorf("%s\n%s", verbs(changes), text)
	}
	if _, changes := describedOver(t, reg, described, spec30(t)); !strings.Contains(verbs(changes), "unchanged Resource/crm") {
		t.Errorf("%s", verbs(changes))
	}
}

// What is not listed is kept without a class, so that no tool's variable covers it, and
// stays when its manifest is applied without the description. What can be no tool is
// kept, too.
func TestOpenAPIUnlisted(t *testing.T) {
	t.Parallel()
	unlisted := func(r *counterfoil.Resource) string {
		var out []string
		for _, tool := range r.Tools {
			if tool.Class != "" {
				continue
			}
			if _, callable := r.Tool(tool.Name); callable {
				t.Errorf("%s is a tool that is found", tool.Name)
			}
			if tool.Schema != "" || tool.Headers != nil || tool.Consumes != nil {
				t.Errorf("%+v says more than where it is", tool)
			}
			out = append(out, tool.Name+" "+tool.Method+" "+tool.Path)
		}
		return strings.Join(out, "\n")
	}
	const want = "createCustomer POST /customers\n" +
		"delete_customers_customer-id DELETE /customers/{customer_id}\n" +
		"put_photo PUT /customers/{customer_id}/photo\n" +
		"payments.create POST /payments\n" +
		"report GET /reports/{name}.csv"
	reg, _ := describedBy(t, described, spec30(t))
	r := reg.Resources["crm"]
	if got := unlisted(r); got != want {
		t.Errorf("kept:\n%s", got)
	}
	text, err := Format(r)
	if err != nil {
		t.Fatal(err)
	}
	again, changes := merged(t, reg, string(text))
	if verbs(changes) != "unchanged Resource/crm" || unlisted(again.Resources["crm"]) != want {
		t.Errorf("%s\n%s", verbs(changes), text)
	}
	docs, _ := Parse([]File{{"m.yaml", text}})
	if got := strings.Join(Notes(docs, again), "\n"); got != "Resource crm: without a class and so not callable: createCustomer, delete_customers_customer-id, put_photo and 2 more" {
		t.Error(got)
	}
	// A suggested class that nobody declared is none.
	suggested := strings.Replace(described, "openapi/crm.yaml}", "openapi/crm.yaml, classify: suggested}", 1)
	reg, docs = describedBy(t, suggested, spec30(t))
	if got := unlisted(reg.Resources["crm"]); !strings.Contains(got, "createCustomer POST /customers\n") || !strings.Contains(got, "report GET /reports/{name}.csv") {
		t.Errorf("kept of suggestions:\n%s", got)
	}
	if got := len(Suggestions(docs, reg)); got != 4 {
		t.Errorf("%d suggestions", got)
	}
	// A name that is taken is another's.
	own := strings.Replace(described, "name: list, method", "name: createCustomer, method", 1)
	reg, _ = describedBy(t, own, spec30(t))
	if got := unlisted(reg.Resources["crm"]); !strings.Contains(got, "createCustomer_2 POST /customers\n") {
		t.Errorf("kept beside a tool of its name:\n%s", got)
	}
	// A variable that covers what is not listed is said; what is listed may take it.
	spec := spec30(t) + "\n"
	spec = strings.Replace(spec, "\npaths:\n", "\npaths:\n  /customers/export:\n    get: {operationId: export}\n", 1)
	reg, _ = describedBy(t, described, spec)
	const warned = "Resource crm: get_customer (GET /customers/{customer_id}) covers export (/customers/export), of another class or none: what is called so, or looks like it to some servers, is no call of get_customer"
	if got := Warnings(reg, testNow); !slices.Contains(got, warned) {
		t.Errorf("warnings:\n%s", strings.Join(got, "\n"))
	}
	reg, _ = describedBy(t, described+"  - {name: export, class: read}\n", spec)
	if got := Warnings(reg, testNow); slices.Contains(got, warned) {
		t.Errorf("warnings:\n%s", strings.Join(got, "\n"))
	}
	// Nobody is granted what is not listed.
	docs, problems := Parse([]File{
		{"m/crm.yaml", []byte("kind: Person\nname: ana\n---\nkind: Agent\nname: a\nowner: ana\nenvironment: prod\ngrants: [{tools: [crm/createCustomer]}]\n---\n" + described)},
		{"m/openapi/crm.yaml", []byte(spec30(t))},
	})
	if _, _, more := Merge(nil, docs); len(problems) > 0 || len(more) != 1 || !strings.Contains(more[0].String(), `Resource crm classifies no tool "createCustomer"`) {
		t.Errorf("%v %v", problems, more)
	}
}

// Where a resource has no description its manifest says by hand what is not callable.
func TestToolsWithoutClass(t *testing.T) {
	t.Parallel()
	const text = `kind: Class
name: read
tier: routine
---
kind: Resource
name: crm
type: http
environment: prod
upstream: https://10.1.2.3/
tools:
  - {name: get, method: GET, path: "/c/{id}", class: read, colons: true}
  - {name: cancel, method: POST, path: "/c/{id}:cancel"}
  - {name: odd, method: GET, path: "/{x}/y"}
`
	reg, _ := merged(t, nil, text)
	r := reg.Resources["crm"]
	if !r.Tools[0].Colons || r.Tools[1].Path != "/c/{id}:cancel" || r.Tools[1].Class != "" {
		t.Errorf("%+v", r.Tools)
	}
	out, err := Format(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, changes := merged(t, reg, string(out)); verbs(changes) != "unchanged Resource/crm" {
		t.Errorf("%s\n%s", verbs(changes), out)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"/c/{id}:cancel"}`, `"/c/{id}:cancel", class: read}`, "tools[1].path: segment \"{id}:cancel\" of \"/c/{id}:cancel\" is not a variable"},
		{`"/c/{id}:cancel"}`, `"/c/{}:cancel"}`, "tools[1].path: segment"},
		{`method: POST, path: "/c/{id}:cancel"}`, `method: GET, path: "/c/{other}"}`, "match the same requests equally well"},
		{"type: http", "type: mcp", `tools[1]: member "class" is missing`},
		{"- {name: cancel, method: POST", "- {name: cancel", "tools[1]: a tool of an http resource needs method and path"},
	} {
		docs, problems := Parse([]File{{"m.yaml", []byte(strings.Replace(text, tt.old, tt.new, 1))}})
		if len(problems) == 0 {
			_, _, problems = Merge(nil, docs)
		}
		if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), tt.want) && p.Line > 0 }) {
			t.Errorf("%s: got %v", tt.new, problems)
		}
	}
}

func describedOver(t testing.TB, base *counterfoil.Registry, manifest, spec string) (*counterfoil.Registry, []Change) {
	t.Helper()
	docs, problems := Parse([]File{{"m/crm.yaml", []byte(manifest)}, {"m/openapi/crm.yaml", []byte(spec)}})
	reg, changes, more := Merge(base, docs)
	for _, p := range append(problems, more...) {
		t.Errorf("unexpected problem: %s", p)
	}
	return reg, changes
}

// A suggested class is taken where somebody declared it, and nowhere else.
func TestOpenAPISuggested(t *testing.T) {
	t.Parallel()
	text := strings.Replace(described, "openapi/crm.yaml}", "openapi/crm.yaml, classify: suggested}", 1)
	text = strings.Replace(text, "  - {name: reset_password, class: read}\n", "", 1)
	reg, docs := describedBy(t, text, spec30(t))
	names := func(r *counterfoil.Resource) (out []string) {
		for _, tool := range classifiedTools(r) {
			out = append(out, tool.Name+":"+tool.Class)
		}
		return out
	}
	if got := strings.Join(names(reg.Resources["crm"]), " "); got != "get_customer:read list:read reset_password:credential-reset" {
		t.Error(got)
	}
	if got := len(Suggestions(docs, reg)); got != 4 {
		t.Errorf("%d suggestions", got)
	}
	reg, docs = describedBy(t, "kind: Class\nname: payout\ntier: irreversible\n---\nkind: Class\nname: write\ntier: guarded\n---\n"+text, spec30(t))
	if got := strings.Join(names(reg.Resources["crm"]), " "); got != "get_customer:read list:read createCustomer:write delete_customers_customer-id:write reset_password:credential-reset put_photo:write payments.create:payout" {
		t.Error(got)
	}
	if got := Suggestions(docs, reg); len(got) != 0 {
		t.Errorf("suggestions %v", got)
	}
	lines := toolLines(reg.Resources["crm"])
	for _, want := range []string{
		"createCustomer POST /customers write [] [X-Tenant] " + schemaNew,
		"put_photo PUT /customers/{customer_id}/photo write [image/jpeg image/png] [] " + schemaPhoto,
	} {
		if !strings.Contains(lines+"\n", want+"\n") {
			t.Errorf("no %s\nin %s", want, lines)
		}
	}
}

// What a manifest says of a listed tool itself stands.
func TestOpenAPIOwnMembers(t *testing.T) {
	t.Parallel()
	const own = "  - {name: put_photo, class: read, stream: true}\n" +
		"  - {name: createCustomer, class: read, headers: [X-Mine], schema: {type: object}}\n" +
		"  - {name: csv, method: GET, path: /reports/q1.csv, class: read}\n" +
		"  - {name: drop, method: DELETE, path: \"/customers/{customer_id}\", class: read}\n"
	reg, docs := describedBy(t, described+own, spec30(t))
	got := strings.Split(toolLines(reg.Resources["crm"]), "\n")[3:]
	want := []string{
		`put_photo PUT /customers/{customer_id}/photo read [] [] {"additionalProperties":false,"properties":{"body":{"additionalProperties":false,"properties":{"content_type":{"type":"string"}},"required":["content_type"],"type":"object"},` +
			`"path":{"additionalProperties":false,"properties":{"customer_id":{"type":"string"}},"required":["customer_id"],"type":"object"}},"required":["path"],"type":"object"}`,
		`createCustomer POST /customers read [] [X-Mine] {"type":"object"}`,
		"csv GET /reports/q1.csv read [] [] ",
		"drop DELETE /customers/{customer_id} read [] [] " + schemaGet,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if notes := strings.Join(Notes(docs, reg), "\n"); !strings.Contains(notes, "tool csv (GET /reports/q1.csv) is in no operation of openapi/crm.yaml") {
		t.Error(notes)
	}
}

// JSON says the same as YAML, and OpenAPI 3.1 the same as 3.0 in words of its own.
func TestOpenAPIForms(t *testing.T) {
	t.Parallel()
	want, _ := describedBy(t, described, spec30(t))
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(spec30(t)), &n); err != nil {
		t.Fatal(err)
	}
	v, err := jsonOf(n.Content[0], true)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	new31 := strings.NewReplacer("3.0.3", "3.1.1", "type: string, format: date, nullable: true", "type: [string, 'null'], format: date").Replace(spec30(t))
	for name, text := range map[string]string{"json": string(asJSON), "tabs": "\t\n" + strings.ReplaceAll(string(asJSON), `{"`, "{\n\t\""), "3.1": new31} {
		got, _ := describedBy(t, described, text)
		if toolLines(got.Resources["crm"]) != toolLines(want.Resources["crm"]) {
			t.Errorf("%s:\n%s", name, toolLines(got.Resources["crm"]))
		}
	}
}

func TestOpenAPIProblems(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, old, new, want string }{
		{"as it is", "", "", ""},
		{"another type", "3.0.3", "2.9.0", `m/openapi/crm.yaml: Resource crm: openapi: openapi/crm.yaml is no OpenAPI description that is read here: it says openapi: "2.9.0"; 3.0 and 3.1 are read`},
		{"swagger", "openapi: 3.0.3", "swagger: '2.0'", "it is Swagger 2.0"},
		{"no YAML", "info: {", "info: }", "is no OpenAPI description that is read here: line 2: it is not YAML"},
		{"two documents", "openapi: 3.0.3", "openapi: 3.0.3\n---\nopenapi: 3.0.3", "it is more than one YAML document"},
		{"a name twice", "operationId: listCustomers", "operationId: listCustomers\n      operationId: other", "is there twice"},
		{"a merge key", "info:", "x: &a {b: c}\ny: {<<: *a}\ninfo:", "a member's name must be plain text"},
		{"elsewhere", `$ref: "#/components/parameters/Customer"`, `$ref: "https://evil.example/p.yaml"`, `it refers to "https://evil.example/p.yaml", which is not in the file`},
		{"a file", `$ref: "#/components/parameters/Customer"`, `$ref: "/etc/passwd"`, `which is not in the file`},
		{"not there", `$ref: "#/components/parameters/Customer"`, `$ref: "#/components/parameters/Customers"`, `which is not there`},
		{"a circle", "Customer: {name: customer-id, in: path, required: true, schema: {type: string}}", `Customer: {$ref: "#/components/parameters/Customer"}`, "refers to itself"},
		{"no such operation", "operationId: get_customer", "operationId: get_custome", `tools[0]: openapi/crm.yaml has no operation "get_customer"; did you mean "get_custome"?`},
		{"needs a cookie", "parameters:\n        - {name: limit", "parameters:\n        - {name: sid, in: cookie, required: true}\n        - {name: limit", `tools[1]: GET /customers of openapi/crm.yaml can be no tool: it needs the cookie "sid"`},
		{"needs its own token", "X-Tenant", "X-Forwarded-User", `it needs the header "X-Forwarded-User", which is never passed on`},
		{"an unnamed object", "schema: {$ref: \"#/components/schemas/Filter\"}", "schema: {type: object}", `its parameter "filter" is an object whose members it does not name`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(spec30(t), tt.old) {
				t.Fatalf("%q is not in the description", tt.old)
			}
			_, problems := Parse([]File{{"m/crm.yaml", []byte(described)}, {"m/openapi/crm.yaml", []byte(strings.Replace(spec30(t), tt.old, tt.new, 1))}})
			if tt.want == "" {
				if len(problems) > 0 {
					t.Error(problems)
				}
				return
			}
			if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), tt.want) }) {
				t.Errorf("got %v", problems)
			}
		})
	}
}

func TestOpenAPIMember(t *testing.T) {
	t.Parallel()
	const upTo = "openapi: {file: openapi/crm.yaml}"
	tests := []struct{ name, old, new, want string }{
		{"as it is", "", "", ""},
		{"not sent", upTo, "openapi: {file: crm.yml}", "m/crm.yaml:15: Resource crm: openapi: the file m/crm.yml is not among the files that were given"},
		{"outside", upTo, "openapi: {file: ../crm.yaml}", `"../crm.yaml" is not a file beside the manifest`},
		{"absolute", upTo, "openapi: {file: /etc/passwd}", `"/etc/passwd" is not a file beside the manifest`},
		{"hidden", upTo, "openapi: {file: .ssh/id}", `".ssh/id" is not a file beside the manifest`},
		{"no file", upTo, "openapi: {classify: listed}", `member "file" is missing`},
		{"classify", upTo, "openapi: {file: openapi/crm.yaml, classify: all}", `"all" is none of listed, suggested`},
		{"of another type", "type: http", "type: mcp", "openapi: only http resources have it"},
		{"a base", "10.1.2.3/v2", "10.1.2.3/v3", ""},
		{"no place", "path: /customers, ", "", `a tool of an http resource needs method and path`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(described, tt.old) {
				t.Fatalf("%q is not in the manifest", tt.old)
			}
			_, problems := Parse([]File{{"m/crm.yaml", []byte(strings.Replace(described, tt.old, tt.new, 1))}, {"m/openapi/crm.yaml", []byte(spec30(t))}})
			if tt.want == "" {
				if len(problems) > 0 {
					t.Error(problems)
				}
				return
			}
			if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), tt.want) }) {
				t.Errorf("got %v", problems)
			}
		})
	}
}

// Whatever a description says, reading it ends, and what it makes of a tool is a
// manifest that can be read again.
func FuzzOpenAPI(f *testing.F) {
	f.Add([]byte(spec30(f)))
	f.Add([]byte(`{"openapi":"3.1.0","paths":{"/a/{b}":{"post":{"operationId":"get_customer","requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}}}}},"components":{"schemas":{"A":{"$ref":"#/components/schemas/B"},"B":{"$ref":"#/components/schemas/A"}}}}`))
	f.Add([]byte("openapi: 3.0.0\nx: &a [*b]\npaths: {/a: {get: {operationId: get_customer, parameters: &b [*b, {name: q, in: query, schema: *b}]}}}\n"))
	manifest := strings.Replace(described, "openapi/crm.yaml}", "openapi/crm.yaml, classify: suggested}", 1)
	manifest = manifest[:strings.Index(manifest, "tools:")]
	f.Fuzz(func(t *testing.T, b []byte) {
		docs, problems := Parse([]File{{"m/crm.yaml", []byte(manifest)}, {"m/openapi/crm.yaml", b}})
		if len(problems) > 0 {
			return
		}
		reg, _, problems := Merge(nil, docs)
		Suggestions(docs, reg)
		Notes(docs, reg)
		if len(problems) > 0 {
			t.Fatalf("%v", problems)
		}
		if text, err := Format(reg.Resources["crm"]); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ method, id, path, summary, want string }{
		{"GET", "listPayments", "/payments", "", "read"},
		{"GET", "", "/users/{id}/password", "", "read"},
		{"HEAD", "", "/keys", "", "read"},
		{"GET", "resetPassword", "/reset", "", "credential-reset"},
		{"GET", "rotateAPIKeys", "/rotate", "", "key-operation"},
		{"POST", "createOrder", "/orders", "", "write"},
		{"POST", "createOrder", "/orders", "Place an order and pay for it", "payout"},
		{"POST", "", "/accounts/{id}/transfers", "", "payout"},
		{"POST", "refund-order", "/x", "", "payout"},
		{"DELETE", "", "/users/{id}", "", "admin-change"},
		{"POST", "deleteUser", "/x", "", "admin-change"},
		{"POST", "updateUser", "/users/{id}", "", "write"},
		{"PUT", "", "/users/{id}/roles", "", "admin-change"},
		{"POST", "", "/users/{id}/mfa", "", "credential-reset"},
		{"POST", "", "/signing-keys", "", "key-operation"},
		{"PATCH", "", "/monkeys/{id}", "", "write"},
		{"POST", "", "/password/token", "", "key-operation"},
	} {
		if got := suggest(tt.method, tt.id, tt.path, tt.summary); got != tt.want {
			t.Errorf("%s %s %s: %s, want %s", tt.method, tt.id, tt.path, got, tt.want)
		}
	}
}

// References are found without the manifests being right, and each once.
func TestReferences(t *testing.T) {
	t.Parallel()
	got := References([]File{
		{"m/a.yaml", []byte("kind: Resource\nopenapi: {file: x.yaml, nonsense: 1}\n---\nkind: Resource\nopenapi: {file: sub/y.json}\n---\nkind: Agent\nopenapi: {file: z.yaml}\n---\nkind: Resource\nopenapi: {file: ../../etc/passwd}\n")},
		{"./m/b.yaml", []byte("kind: Resource\nopenapi: {file: x.yaml}\n")},
		{"standard input", []byte("kind: Resource\nopenapi: {file: x.yaml}\n---\n: [")},
		{"c.yaml", []byte("kind: Resource\nopenapi: x.yaml\n")},
	})
	want := []Reference{{"m/a.yaml", "x.yaml", "m/x.yaml"}, {"m/a.yaml", "sub/y.json", "m/sub/y.json"}, {"standard input", "x.yaml", "x.yaml"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
