package peers

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NodeAPI starts the HTTP API of upstream.mjs and returns its URL.
func (p Peers) NodeAPI(t testing.TB) string {
	t.Helper()
	return serveAPI(t, exec.CommandContext(t.Context(), p.node, filepath.Join(p.dir, "upstream.mjs")))
}

// PythonAPI starts the HTTP API of upstream.py and returns its URL. Without Python it
// skips the test and says so, or fails it when the run demands the peers.
func (p Peers) PythonAPI(t testing.TB) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv(requireEnv) == "require" {
		t.Fatal("there is no python3: run make deps")
	} else if err != nil {
		t.Skip("not run, there is no python3: make deps installs it")
	}
	return serveAPI(t, exec.CommandContext(t.Context(), python, filepath.Join(p.dir, "upstream.py")))
}

// serveAPI starts a server that prints its port and ends with its standard input.
func serveAPI(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // it is killed with the test where it does not end
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not say its port: %v", cmd.Path, err)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(port)
}
