package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// revision is what the suite holds a server against.
const revision = "2026-07-28"

// scored is how many scenarios the suite requires of a server of the revision.
const scored = 37

// otherwise are the checks that come out otherwise through the gateway: what the
// suite says of the server itself, and of the gateway. They belong to the tasks
// extension, which neither speaks and which is not scored, and have one reason:
// they call tools that the server does not have. The server answers with an
// error of JSON-RPC, the gateway with a refusal, which is a result like that of
// every call that it decided (docs/divergences.md, MCP, refusals), and the
// checks take it for the tool's own.
var otherwise = map[string][2]string{
	"tasks-lifecycle tasks-sync-tool-call":                                         {"FAILURE", "SUCCESS"},
	"tasks-capability-negotiation sep-2663-server-rejects-undeclared-client":       {"FAILURE", "SUCCESS"},
	"tasks-dispatch-and-envelope tasks-immediate-result-shortcut":                  {"FAILURE", "SUCCESS"},
	"tasks-dispatch-and-envelope tasks-result-type-complete-on-non-task-responses": {"FAILURE", "SUCCESS"},
}

// TestConformanceIsTheServersOwn: the MCP conformance suite finds through
// "counterfoil connect" and the gateway what it finds at the server itself,
// scenario by scenario and check by check, those that it does not score
// included. Each run has a server of its own, because some scenarios change it.
func TestConformanceIsTheServersOwn(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	examine := func(url string) peers.Conformance {
		return p.Conformance(t, "server", "--requirements", revision, "--url", url)
	}
	server, behind := conformanceServer(t), conformanceServer(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	var tools, granted strings.Builder
	for _, tool := range toolsOf(t, behind) {
		fmt.Fprintf(&tools, "  - {name: %s, class: read}\n", tool)
		fmt.Fprintf(&granted, ", suite/%s", tool)
	}
	sys.Apply(fmt.Sprintf(`kind: Resource
name: suite
type: mcp
environment: prod
upstream: %s
resources: read
prompts: read
tools:
%s---
kind: Agent
name: examiner
owner: ana
purpose: holds the gateway against the suite
environment: prod
grants:
  - tools: [suite/resources, suite/prompts%s]
`, recorded(t, sys, behind), &tools, &granted))
	// An agent that knows the resource's URL alone finds the issuer, as with the
	// suite's own servers below.
	mine := sys.Issuer() + "/r/suite"
	if info, err := agent.Discover(t.Context(), mine, nil); err != nil || info.Resource != mine || !slices.Equal(info.Issuers, []string{sys.Issuer()}) {
		t.Errorf("the resource says of itself %+v, %v", info, err)
	}
	at := connect(t, sys, "examiner", enroll(t, sys, "examiner", "Ed25519"), "suite")

	var direct, through peers.Conformance
	var both sync.WaitGroup
	both.Go(func() { direct = examine(server) })
	both.Go(func() { through = examine(at) })
	both.Wait()

	if !direct.Passed || len(direct.Scenarios) <= scored {
		t.Errorf("the server itself does not pass, or the suite did not run:\n%s", direct.Output)
	}
	if !through.Passed {
		t.Errorf("the gateway does not pass:\n%s", through.Output)
	}
	servers, ours := verdicts(direct), verdicts(through)
	checks := slices.Concat(slices.Collect(maps.Keys(servers)), slices.Collect(maps.Keys(ours)), slices.Collect(maps.Keys(otherwise)))
	slices.Sort(checks)
	for _, check := range slices.Compact(checks) {
		got := [2]string{servers[check], ours[check]}
		if want, ok := otherwise[check]; !ok && got[0] != got[1] || ok && got != want {
			t.Errorf("%s: %q at the server itself, %q through the gateway", check, got[0], got[1])
		}
	}
	t.Logf("directly %s; through the gateway %s", score(direct), score(through))
	sys.CheckLedger()
}

// TestConformanceOfOurClient: package agent passes the client scenarios of the
// extensions that it is for, on both wires, and refuses documents that lie.
func TestConformanceOfOurClient(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	client, err := link("conformance-client", "./conformance")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		scenario string
		want     []string // checks that must be among those that succeed
	}{
		{"auth/dpop", []string{
			"sep-1932-client-token-request-proof", "sep-1932-client-dpop-auth-scheme", "sep-1932-client-fresh-proof",
		}},
		{"auth/dpop-nonce", []string{
			"sep-1932-client-token-request-proof", "sep-1932-client-dpop-auth-scheme", "sep-1932-client-fresh-proof",
			"sep-1932-client-as-nonce", "sep-1932-client-rs-nonce",
		}},
		{"auth/client-credentials-jwt", []string{"client-credentials-jwt-verified", "valid-bearer-token"}},
		{"auth/resource-mismatch", []string{"resource-mismatch-rejected"}},
		{"auth/metadata-issuer-mismatch", []string{"sep-2468-client-validate-metadata-issuer"}},
	} {
		for _, wire := range []string{"2025-11-25", revision} {
			t.Run(tt.scenario+"/"+wire, func(t *testing.T) {
				t.Parallel()
				// Extensions are on no revision's list; --force runs them on its wire.
				got := p.Conformance(t, "client", "--command", client, "--scenario", tt.scenario, "--spec-version", wire, "--force")
				if !got.Passed {
					t.Errorf("the suite says:\n%s", got.Output)
				}
				var succeeded []string
				for _, c := range got.Scenarios[tt.scenario] {
					switch c.Status {
					case "SUCCESS":
						succeeded = append(succeeded, c.ID)
					case "INFO":
					default:
						t.Errorf("%s: %s %s", c.ID, c.Status, c.ErrorMessage)
					}
				}
				for _, id := range tt.want {
					if !slices.Contains(succeeded, id) {
						t.Errorf("%s is not among %q", id, succeeded)
					}
				}
				t.Logf("%d checks succeeded", len(succeeded))
			})
		}
	}
}

// verdicts are the statuses of each check, by scenario and check. A scenario may
// have a check more than once.
func verdicts(c peers.Conformance) map[string]string {
	all := map[string][]string{}
	for scenario, checks := range c.Scenarios {
		all[scenario+" (ran)"] = []string{"yes"}
		for _, check := range checks {
			name := scenario + " " + check.ID
			all[name] = append(all[name], check.Status)
		}
	}
	out := map[string]string{}
	for name, statuses := range all {
		slices.Sort(statuses)
		out[name] = strings.Join(statuses, " ")
	}
	return out
}

// score counts the checks of each status.
func score(c peers.Conformance) string {
	n := map[string]int{}
	for _, checks := range c.Scenarios {
		for _, check := range checks {
			n[check.Status]++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d scenarios", len(c.Scenarios))
	for _, status := range slices.Sorted(maps.Keys(n)) {
		fmt.Fprintf(&b, ", %d %s", n[status], status)
	}
	return b.String()
}

// toolsOf lists a server's tools.
func toolsOf(t *testing.T, url string) []string {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "e2e", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: url, DisableStandaloneSSE: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var names []string
	for tool, err := range session.Tools(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tool.Name)
	}
	return names
}

// conformanceServerBuilt builds the server that the MCP Go SDK holds itself
// against the suite with. Its source is in the module that go.mod pins; the one
// line that listens is replaced, because it takes only a port that is known.
var conformanceServerBuilt = sync.OnceValues(func() (string, error) {
	const pkg = "github.com/modelcontextprotocol/go-sdk/conformance/everything-server"
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", pkg, err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "main.go"))
	if err != nil {
		return "", err
	}
	listen := []byte("http.ListenAndServe(")
	if n := bytes.Count(source, listen); n != 1 {
		return "", fmt.Errorf("%s listens in %d places, want 1", pkg, n)
	}
	serve, err := os.ReadFile("testdata/everything-server/serve.go")
	if err != nil {
		return "", err
	}
	var files []string // of a program, in one folder
	for name, text := range map[string][]byte{"main.go": bytes.Replace(source, listen, []byte("serve("), 1), "serve.go": serve} {
		file := filepath.Join(built, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", err
		}
		files = append(files, file)
	}
	return link("conformance-server", files...)
})

// conformanceServer starts that server and returns its URL.
func conformanceServer(t *testing.T) string {
	t.Helper()
	bin, err := conformanceServerBuilt()
	if err != nil {
		t.Fatal(err)
	}
	return "http://127.0.0.1:" + peers.Listening(t, "the conformance server", exec.Command(bin, "-http", "loopback")) + "/"
}
