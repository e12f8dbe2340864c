// Package attacks is the catalogue of the attacks that this project answers. Its
// tests send them over HTTP to a whole daemon, each beside the same request
// without the attack, and show that the one is refused with the code it says and
// has no effect, and that the other passes.
package attacks

import (
	"bytes"
	"fmt"
	"strings"
)

// A Row is one attack and what has to come of it.
type Row struct {
	ID         string
	Sent       string
	Expected   string
	Invariants string   // see docs/threat-model.md
	Tests      []string // what shows it: package path below the module, a dot, the function
	Beyond     string   // which part that it needs is not built; empty when all of it is shown
}

// A Group is the rows about one thing. Its prefix begins the id of each.
type Group struct {
	Prefix, Title string
	Rows          []Row
}

// Catalogue returns every row.
func Catalogue() []Group {
	return []Group{
		{"CA", "Client assertion", assertionRows},
		{"DT", "Proof at the token endpoint", tokenProofRows},
		{"DG", "Token and proof at the gateway", gatewayRows},
		{"TS", "One credential in the place of another", substitutionRows},
		{"TP", "Evading the policy of tools", payloadRows},
		{"AU", "The log", logRows},
		{"DO", "Exhaustion", exhaustionRows},
		{"HI", "Headers", headerRows},
		{"LC", "Upstream credentials and other secrets", secretRows},
		{"CK", "Cloned keys", cloneRows},
		{"RV", "Revocation", revocationRows},
		{"KR", "Rotation of keys", rotationRows},
		{"LK", "Reports of leaks", leakRows},
		{"IN", "Introspection and revocation by OAuth (RFC 7662, RFC 7009)", inquiryRows},
		{"SE", "Shared signals (SSF 1.0)", signalRows},
		{"AD", "Administration", adminRows},
		{"SS", "Connections outward", outwardRows},
		{"TL", "Life of a task", taskRows},
		{"RTY", "Jobs that are retried", retryRows},
		{"MT", "Client certificates", certificateRows},
		{"WI", "Workload identity", workloadRows},
		{"TX", "Token exchange", exchangeRows},
		{"LD", "From bearer to bound", ladderRows},
		{"PX", "Other people's gateways that ask", pointRows},
		{"AZ", "AuthZEN", authzenRows},
		{"AP", "Approvals", approvalRows},
		{"DPOP", "RFC 9449, checks of both servers", dpopRows},
		{"JWTCA", "RFC 7523, client authentication", clientRows},
		{"AT", "RFC 9068, access tokens", accessTokenRows},
	}
}

// Parts that rows name and that are not built.
const (
	certificates = "client certificates"
	exchange     = "token exchange"
	nodes        = "several nodes"
	workloads    = "workload identity"
)

func shown(tests ...string) []string { return tests }

// Document renders docs/attacks.md.
func Document() []byte {
	var b bytes.Buffer
	b.WriteString(`# Attacks and what shows that they fail

Generated from the catalogue in ` + "`attacks/`" + `; do not edit (` + "`go generate ./attacks`" + `).

Each row is sent beside the same request without the attack, which has to pass: a refusal for another reason does not count. Tests of the package
` + "`attacks`" + ` send it over HTTP to a whole daemon, with a real store and a real MCP server behind it, and hold the record against what happened
in the end; the other tests named show what cannot be sent that way. "Not built" names the part of the product that a row, or the rest of it, needs.
The invariants are those of the [threat model](threat-model.md).
`)
	for _, g := range Catalogue() {
		fmt.Fprintf(&b, "\n## %s\n\n| | sent | expected | | shown by |\n|---|---|---|---|---|\n", g.Title)
		for _, r := range g.Rows {
			var by []string
			for _, t := range r.Tests {
				by = append(by, "`"+t+"`")
			}
			if r.Beyond != "" {
				by = append(by, "not built: "+r.Beyond)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.ID, cell(r.Sent), cell(r.Expected), r.Invariants, strings.Join(by, ", "))
		}
	}
	return b.Bytes()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
