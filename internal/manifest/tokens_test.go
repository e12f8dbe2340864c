package manifest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// One token of an outside issuer is one agent's wherever it is taken. One with another
// audience, which is the resource's own where none is said, is another token.
func TestATokenIsOneAgents(t *testing.T) {
	t.Parallel()
	const text = `kind: Person
name: ana
email: ana@example.com
---
{kind: Agent, name: cron, owner: ana, environment: prod}
---
{kind: Agent, name: night, owner: ana, environment: prod}
---
kind: Resource
name: crm
type: http
environment: prod
upstream: https://10.1.2.3/
binding: observe
bearers:
  - {agent: cron, issuer: "https://idp.example", subject: svc%s, jwks_uri: "https://idp.example/keys"}
---
kind: Resource
name: erp
type: http
environment: prod
upstream: https://10.1.2.4/
binding: observe
bearers:
  - {agent: %s, issuer: "https://idp.example", subject: %s%s, jwks_uri: "https://idp.example/keys"}
`
	for _, tt := range []struct {
		audience, agent, subject, other string
		refused                         bool
	}{
		{", audience: jobs", "cron", "svc", ", audience: jobs", false},
		{", audience: jobs", "night", "svc", ", audience: jobs", true},
		{", audience: jobs", "night", "svc", ", audience: nights", false},
		{", audience: jobs", "night", "other", ", audience: jobs", false},
		{", audience: jobs", "night", "svc", "", false},
		{"", "night", "svc", "", false},
	} {
		docs, problems := Parse([]File{{"m.yaml", fmt.Appendf(nil, text, tt.audience, tt.agent, tt.subject, tt.other)}})
		if len(problems) == 0 {
			_, _, problems = Merge(nil, docs)
		}
		refused := slices.ContainsFunc(problems, func(p Problem) bool {
			return strings.Contains(p.String(), "bearers[0].subject: Resource crm takes the same token as agent cron; a token is one agent's") && p.Line > 0
		})
		if refused != tt.refused || !refused && len(problems) > 0 {
			t.Errorf("%+v: %v", tt, problems)
		}
	}
}
