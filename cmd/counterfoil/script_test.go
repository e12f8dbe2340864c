package main

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
	"github.com/counterfoil/counterfoil/examples/legacy/legacyserver"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// TestScripts runs testdata/script: what a person types and reads. BANK is the
// URL of a real MCP server, LEGACY that of an HTTP API and LEGACYTOKEN the one token that
// it takes; serve starts in the background and is killed at the
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
			const token = "crm-7f0b6f0a41d84e0b"
			legacy := httptest.NewServer(legacyserver.New(token).Handler())
			env.Defer(func() {
				legacy.CloseClientConnections()
				legacy.Close()
			})
			env.Setenv("BANK", server.URL+"/mcp")
			env.Setenv("LEGACY", legacy.URL)
			env.Setenv("LEGACYTOKEN", token)
			env.Setenv("HOME", env.WorkDir)
			env.Values[everybody{}] = map[string]*demoPerson{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitready": waitReady,
			"subst":     substitute,
			"flip":      flip,
			"exits":     exits,
			"approval":  names("apr_"),
			"change":    names("prp_"),
			"task":      names("tsk_"),
			"instance":  names("ins_"),
			"entry":     entryNamed,
			"copies":    copies,
			"enrols":    enrols,
			"decides":   decides,
			"bears":     bears,

			"awaitpending": awaitPending,
			"awaits":       awaits,
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

// names is the commands approval, change, task and instance VARIABLE [stdout], which set a
// variable to what of the kind the last command named first on standard error, or on
// standard output.
func names(prefix string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		where := append(args, "stderr")[1]
		id := regexp.MustCompile(prefix + `\w+`).FindString(ts.ReadFile(where))
		if id == "" {
			ts.Fatalf("no %s… was named: %s", prefix, ts.ReadFile(where))
		}
		ts.Setenv(args[0], id)
	}
}

// entryNamed is the command entry VARIABLE [stdout]: it sets a variable to the index of
// the entry that the last command named.
func entryNamed(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(`entry (\d+)`).FindStringSubmatch(ts.ReadFile(append(args, "stderr")[1]))
	if found == nil {
		ts.Fatalf("no entry was named")
	}
	ts.Setenv(args[0], found[1])
}

// copies FROM TO copies a key file with its mode.
func copies(ts *testscript.TestScript, _ bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// everybody is the key of a script's people, by name.
type everybody struct{}

// enrols NAME DIR enrols a passkey of a person at the console of the server in DIR.
// The last command printed the code.
func enrols(ts *testscript.TestScript, _ bool, args []string) {
	code := regexp.MustCompile(`\b` + args[0] + `\s+http\S+#(cfe_\w+)`).FindStringSubmatch(ts.ReadFile("stdout"))
	if code == nil {
		code = regexp.MustCompile(`code\s+(cfe_\w+)`).FindStringSubmatch(ts.ReadFile("stdout"))
	}
	if code == nil {
		ts.Fatalf("no code of %s was printed", args[0])
	}
	console, err := os.ReadFile(filepath.Join(ts.MkAbs(args[1]), "management.url"))
	ts.Check(err)
	p, err := newDemoPerson(context.Background(), strings.TrimSpace(string(console)), args[0], code[1])
	ts.Check(err)
	ts.Value(everybody{}).(map[string]*demoPerson)[args[0]] = p
}

// decides NAME approve|deny ID [REASON] signs a decision.
func decides(ts *testscript.TestScript, _ bool, args []string) {
	reason := ""
	if len(args) > 3 {
		reason = args[3]
	}
	r, err := ts.Value(everybody{}).(map[string]*demoPerson)[args[0]].decide(context.Background(), args[2], args[1], reason)
	ts.Check(err)
	if r.code != allowed {
		ts.Fatalf("%s: %s: %s", args[0], r.code, r.text)
	}
}

// awaitpending VARIABLE sets a variable to the one approval that waits, once there is
// one.
func awaitPending(ts *testscript.TestScript, _ bool, args []string) {
	id := await(ts, `"id":"(apr_\w+)"`, "counterfoil", "approval", "list", "--state", "pending", "--json")
	ts.Setenv(args[0], id[1])
}

// awaits PATTERN COMMAND… runs a command until its standard output matches.
func awaits(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, args[0], args[1], args[2:]...)
}

func await(ts *testscript.TestScript, pattern, command string, args ...string) []string {
	for deadline := time.Now().Add(counterfoiltest.Timeout); ; {
		failed := ts.Exec(command, args...) // which may be what ends soon
		if found := regexp.MustCompile(pattern).FindStringSubmatch(ts.ReadFile("stdout")); found != nil {
			return found
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never matched %q (%v)", command, pattern, failed)
		}
		<-time.After(20 * time.Millisecond) // another process does it, and nothing says when
	}
}
