// Package e2e holds the whole of Counterfoil, its binary on the agent's side
// included, against programs that nobody here wrote (package peers).
package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestOpenIDClientGetsABoundToken: a certified OAuth client that knows issuer,
// name, key and resource finds out the rest, and the gateway takes what it got.
func TestOpenIDClientGetsABoundToken(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	ed25519, es256 := enroll(t, sys, "payroll", "Ed25519"), enroll(t, sys, "payroll", "ES256")

	for _, tt := range []struct{ name, key, alg, discovery string }{
		{"Ed25519 and RFC 8414", ed25519, "Ed25519", "oauth2"},
		{"ES256 and OpenID Connect Discovery", es256, "ES256", "oidc"},
	} {
		got := p.OpenID(t, peers.OpenID{
			Issuer: sys.Issuer(), Agent: "payroll", KeyFile: tt.key, Resource: sys.BankURL(), Discovery: tt.discovery,
			Use: map[string]any{
				"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": map[string]any{
					"protocolVersion": "2025-11-25", "capabilities": map[string]any{},
					"clientInfo": map[string]any{"name": "openid-client", "version": "6"},
				},
			},
		})
		if got.Refused != nil {
			t.Errorf("%s: refused: %+v", tt.name, *got.Refused)
			continue
		}
		if got.TokenType != "dpop" || got.ExpiresIn != 300 || !slices.Contains(strings.Fields(got.Scope), "get_balance") {
			t.Errorf("%s: a token of type %q for %d s and %q", tt.name, got.TokenType, got.ExpiresIn, got.Scope)
		}
		if got.JKT == "" || got.Claims.Cnf.JKT != got.JKT {
			t.Errorf("%s: the token is bound to %q, the proofs' key is %q", tt.name, got.Claims.Cnf.JKT, got.JKT)
		}
		if got.Header.Typ != "at+jwt" || got.Claims.Iss != sys.Issuer() || got.Claims.Aud != sys.BankURL() || got.Claims.Sub != "payroll" {
			t.Errorf("%s: the token is %+v %+v", tt.name, got.Header, got.Claims)
		}
		if got.Used == nil || got.Used.Status != http.StatusOK {
			t.Errorf("%s: the gateway answered %+v", tt.name, got.Used)
		}

	}

	// The same request with one thing wrong.
	for wrong, change := range map[string]struct {
		ask  func(*peers.OpenID)
		want string
	}{
		"a name that nobody has":       {func(a *peers.OpenID) { a.Agent = "nobody" }, "invalid_client"},
		"another agent's name":         {func(a *peers.OpenID) { a.Agent = "auditor" }, "invalid_client"},
		"a resource that is not there": {func(a *peers.OpenID) { a.Resource = sys.Issuer() + "/r/nothing" }, "invalid_target"},
		"a tool that is not granted":   {func(a *peers.OpenID) { a.Scope = "list_payees" }, "invalid_scope"},
	} {
		ask := peers.OpenID{Issuer: sys.Issuer(), Agent: "payroll", KeyFile: ed25519, Resource: sys.BankURL()}
		change.ask(&ask)
		if got := p.OpenID(t, ask); got.Refused == nil || got.Refused.Error != change.want {
			t.Errorf("%s got %+v, want %s", wrong, got, change.want)
		}
	}

	issued := 0
	for _, e := range sys.Entries() {
		if e.Kind == ledger.TokenIssued && e.Agent == "payroll" {
			issued++
		}
	}
	if issued != 2 {
		t.Errorf("%d tokens are in the ledger, want 2", issued)
	}
	sys.CheckLedger()
}

// TestUnmodifiedClientThroughTheConnector: the TypeScript SDK's client knows a
// URL, the reference server knows nothing of us, and between them are
// "counterfoil connect" and the gateway.
func TestUnmodifiedClientThroughTheConnector(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	sys.Apply(fmt.Sprintf(`kind: Resource
name: everything
type: mcp
environment: prod
upstream: %s
tools:
  - {name: echo, class: read}
  - {name: trigger-long-running-operation, class: read}
  - {name: get-env, class: read}
---
kind: Agent
name: curious
owner: ana
purpose: calls whatever it is shown
environment: prod
grants:
  - tools: [everything/echo, everything/trigger-long-running-operation]
`, recorded(t, sys, p.Everything(t))))
	at := connect(t, sys, "curious", enroll(t, sys, "curious", "Ed25519"), "everything")

	s := p.MCP(t, peers.Address{URL: at},
		peers.Call{Name: "echo", Arguments: map[string]any{"message": "the two halves match"}},
		peers.Call{Name: "trigger-long-running-operation", Arguments: map[string]any{"duration": 0.2, "steps": 4}},
		peers.Call{Name: "get-env"},
		peers.Call{Name: "get-sum", Arguments: map[string]any{"a": 1, "b": 2}},
	)
	if s.Protocol != "2025-11-25" {
		t.Errorf("the revision is %q", s.Protocol)
	}
	slices.Sort(s.Tools)
	if want := []string{"echo", "trigger-long-running-operation"}; !slices.Equal(s.Tools, want) {
		t.Errorf("the tools are %q, want %q", s.Tools, want)
	}

	echo, long := s.Calls[0], s.Calls[1]
	if echo.Result == nil || echo.Result.IsError || !strings.Contains(echo.Text(), "the two halves match") {
		t.Errorf("echo answered %+v", echo)
	}
	if long.Result == nil || long.Result.IsError || !strings.Contains(long.Text(), "completed") {
		t.Errorf("the long operation answered %+v", long)
	}
	if len(long.Progress) != 4 {
		t.Errorf("the long operation reported progress %v, want 4 steps", long.Progress)
	}
	for i, n := range long.Progress {
		if n.Progress != float64(i+1) || n.Total != 4 {
			t.Errorf("step %d was reported as %v of %v", i+1, n.Progress, n.Total)
		}
	}
	for i, code := range map[int]counterfoil.Code{2: counterfoil.ToolNotGranted, 3: counterfoil.ToolUnknown} {
		if got := s.Calls[i]; got.Result == nil || !got.Result.IsError || got.Result.Meta.Refusal.Code != string(code) {
			t.Errorf("%s answered %+v, want %s", got.Name, got, code)
		}
	}

	// What the ledger says happened.
	want := map[string]int{
		"everything/echo allow": 1, "everything/trigger-long-running-operation allow": 1,
		"everything/get-env refuse tool_not_granted": 1, "everything/get-sum refuse tool_unknown": 1,
	}
	if decided := decisions(sys, "curious"); !maps.Equal(decided, want) {
		t.Errorf("the ledger has\n%v, want\n%v", decided, want)
	}
	sys.CheckLedger()
}

// enroll makes a key and enrols it, as on the agent's machine, and returns the
// key's file.
func enroll(t *testing.T, sys *counterfoiltest.System, agent, alg string) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), agent+".key")
	cmd := exec.CommandContext(t.Context(), binary(t), "enroll",
		"--issuer", sys.Issuer(), "--agent", agent, "--alg", alg, "--code", "-", "--key", key)
	cmd.Env = []string{}
	cmd.Stdin = strings.NewReader(sys.EnrolCode(agent) + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("counterfoil enroll: %v\n%s", err, out)
	}
	return key
}

// recorded puts what keeps the calls for CheckLedger before an upstream that is
// another program, and returns its URL in place of the upstream's.
func recorded(t *testing.T, sys *counterfoiltest.System, upstream string) string {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: u.Scheme, Host: u.Host})
		},
		FlushInterval: -1, // a notification is sent on as it comes
	}
	return sys.Upstream(counterfoiltest.NewRecorder(proxy)) + u.Path
}

// overStdio is the connector as a desktop client's configuration has it: a
// command, which the client starts.
func overStdio(t *testing.T, sys *counterfoiltest.System, agent, key, resource string, more ...string) peers.Address {
	t.Helper()
	return peers.Address{Command: binary(t), Args: append([]string{
		"connect", "--issuer", sys.Issuer(), "--agent", agent, "--key", key, "--resource", resource, "--stdio",
	}, more...)}
}

// connect starts the connector on a free port of loopback and returns the URL
// that it serves under. It ends with the test.
func connect(t *testing.T, sys *counterfoiltest.System, agent, key, resource string, more ...string) string {
	t.Helper()
	cmd := exec.Command(binary(t), append([]string{"connect", "--issuer", sys.Issuer(), "--agent", agent, "--key", key,
		"--resource", resource, "--listen", "127.0.0.1:0"}, more...)...)
	cmd.Env = []string{}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("ending the connector: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("counterfoil connect: %v", err)
		}
		if t.Failed() {
			t.Logf("counterfoil connect said:\n%s", stderr.Bytes())
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	at, ok := strings.CutPrefix(strings.TrimSpace(line), "ready url=")
	if err != nil || !ok {
		t.Fatalf("the connector said %q (%v)", line, err)
	}
	return at
}

// built is the folder of the binary that the tests run; TestMain removes it.
var built string

var build = sync.OnceValues(func() (string, error) { return link("counterfoil", "../cmd/counterfoil") })

// link builds a program, with the race detector when the test has it: everything
// is compiled that way already.
func link(name string, source ...string) (string, error) {
	args := []string{"build", "-buildvcs=false"}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	bin := filepath.Join(built, name)
	if out, err := exec.Command("go", append(append(args, "-o", bin), source...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return bin, nil
}

func binary(t *testing.T) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if built, err = os.MkdirTemp("", "counterfoil-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer os.RemoveAll(built)
		defer func() { closeBrowser() }()
		return m.Run()
	}())
}
