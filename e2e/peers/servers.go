package peers

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// Everything starts the MCP reference server behind streamable HTTP on
// loopback and returns its URL once it listens. It ends with the test.
func (p Peers) Everything(t testing.TB) string {
	t.Helper()
	return p.serve(t, nil, "node_modules/@modelcontextprotocol/server-everything/dist/index.js", "streamableHttp")
}

// Files starts the reference server for a folder's files, which speaks on
// standard input and output, behind a bridge.
func (p Peers) Files(t testing.TB, folder string) string {
	t.Helper()
	return p.serve(t, nil, "stdio-bridge.mjs", p.node, "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js", folder)
}

// Memory starts the reference server that keeps a graph of facts in a file,
// behind a bridge as well.
func (p Peers) Memory(t testing.TB, file string) string {
	t.Helper()
	return p.serve(t, []string{"MEMORY_FILE_PATH=" + file}, "stdio-bridge.mjs", p.node, "node_modules/@modelcontextprotocol/server-memory/dist/index.js")
}

// Notes starts a server made with the second major version of the SDK, which
// speaks 2026-07-28: read_note, write_note and count.
func (p Peers) Notes(t testing.TB) string {
	t.Helper()
	return p.serve(t, nil, "server-2.mjs")
}

// serve starts a server on a port of loopback that the system picks.
func (p Peers) serve(t testing.TB, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(p.node, append([]string{"--import", "./loopback.mjs"}, args...)...)
	cmd.Dir = p.dir
	cmd.Env = append([]string{}, env...)
	return "http://127.0.0.1:" + Listening(t, strings.Join(args, " "), cmd) + "/mcp"
}

// Listening starts a server that does as loopback.mjs says and returns its port
// once it listens. It ends with the test.
func Listening(t testing.TB, name string, cmd *exec.Cmd) string {
	t.Helper()
	stdin, err := cmd.StdinPipe() // its end ends the server, however we end
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
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
			t.Errorf("%s ended badly: %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s%s", name, said.Bytes(), stderr.Bytes())
		}
	})
	t.Cleanup(stop)

	at, ok := <-port
	if !ok {
		stop()
		t.Fatalf("%s ended before it listened", name)
	}
	return at
}
