package main

import (
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
)

// TestScripts runs testdata/script: what a person types and reads. BANK is the
// URL of a real MCP server; serve starts in the background and is killed at the
// end of each script.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			bank, err := bankserver.Open(filepath.Join(env.WorkDir, "bank.db"))
			if err != nil {
				return err
			}
			server := httptest.NewServer(bank.Handler())
			env.Defer(func() {
				server.CloseClientConnections()
				server.Close()
				bank.Close()
			})
			env.Setenv("BANK", server.URL+"/mcp")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitready": waitReady,
			"subst":     substitute,
			"flip":      flip,
			"exits":     exits,
		},
	})
}

// waitReady DIR starts nothing; it waits until a server has settled its address
// in DIR and answers, and sets ISSUER.
func waitReady(ts *testscript.TestScript, _ bool, args []string) {
	issuer, err := awaitServer(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("ISSUER", issuer)
}

// substitute FILE replaces ${VARIABLES} in a file.
func substitute(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		b, err := os.ReadFile(path)
		ts.Check(err)
		ts.Check(os.WriteFile(path, []byte(os.Expand(string(b), ts.Getenv)), 0o600))
	}
}

// flip FILE OLD NEW replaces the first OLD in a file by NEW.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	changed, ok := replaceOnce(string(b), args[1], args[2])
	if !ok {
		ts.Fatalf("%s does not have %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(path, []byte(changed), 0o600))
}

// exits CODE COMMAND… runs a command and wants that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s: exit %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}
