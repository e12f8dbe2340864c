package authority_test

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

// A description that grows where classes are suggested gives more to whoever was granted
// every tool: it is told and recorded, and to whoever was granted tools by their names
// it gives nothing.
func TestWhatAGrantOfEveryToolCoversIsRecorded(t *testing.T) {
	t.Parallel()
	const described = `openapi: 3.1.0
paths:
  /things: {get: {operationId: list}}
`
	const more = "  /things/all: {delete: {operationId: drop}}\n  /pay: {post: {operationId: pay}}\n  /secret: {get: {operationId: read_other, summary: read}}\n"
	text := func(grant string) string {
		return `kind: Person
name: ana
email: ana@example.com
---
{kind: Class, name: read, tier: routine}
---
{kind: Class, name: write, tier: routine}
---
{kind: Class, name: payout, tier: forbidden}
---
kind: Agent
name: cron
owner: ana
purpose: x
environment: prod
grants: [{tools: [` + grant + `]}]
---
kind: Resource
name: crm
type: http
environment: prod
upstream: http://127.0.0.1:1/
openapi: {file: crm.yaml, classify: suggested}
`
	}
	for grant, want := range map[string]string{
		"crm/*":    "Agent cron: crm/* covers what is new there: drop (write, routine), read_other (read, routine)",
		"crm/list": "",
	} {
		h := newHouse(t)
		a := h.authority()
		apply := func(spec string) authority.ApplyResult {
			t.Helper()
			result, err := a.Apply(t.Context(), authority.ApplyRequest{
				Files: []manifest.File{{Name: "m.yaml", Data: []byte(text(grant))}, {Name: "crm.yaml", Data: []byte(spec)}}, Actor: "uid:7",
			})
			if err != nil || len(result.Problems) > 0 {
				t.Fatalf("%v %v", result.Problems, err)
			}
			return result
		}
		covers := func(result authority.ApplyResult) string {
			var out []string
			for _, w := range result.Warnings {
				if strings.Contains(w, " covers what is new there") {
					out = append(out, w)
				}
			}
			return strings.Join(out, "\n")
		}
		if got := covers(apply(described)); got != "" {
			t.Errorf("%s: what is new altogether: %s", grant, got)
		}
		if got := covers(apply(described + more)); got != want {
			t.Errorf("%s: %q, want %q", grant, got, want)
		}
		list, _ := h.last(ledger.ConfigApplied).Detail["covers"].([]any)
		if recorded := len(list) == 1 && list[0] == want; recorded != (want != "") {
			t.Errorf("%s: recorded is %v", grant, list)
		}
		if got := covers(apply(described + more)); got != "" {
			t.Errorf("%s: what is there already: %s", grant, got)
		}
	}
}
