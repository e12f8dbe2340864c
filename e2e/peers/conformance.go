package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// conformanceTimeout bounds one run of the suite, which takes seconds.
const conformanceTimeout = 2 * time.Minute

// A Check is one thing that the MCP conformance suite looked at.
type Check struct {
	ID           string
	Status       string // SUCCESS, FAILURE, WARNING, SKIPPED or INFO
	Description  string
	ErrorMessage string
}

// Conformance is what the MCP conformance suite found.
type Conformance struct {
	Scenarios map[string][]Check // by name
	Passed    bool               // the suite's own verdict
	Output    string
}

// resultFolder is how the suite names a scenario's folder.
var resultFolder = regexp.MustCompile(`^(?:server-)?(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$`)

// Conformance runs a subcommand of the MCP conformance suite and returns what it
// found. What it starts is started by a shell, so a command of its has no blanks.
// It may be called from any goroutine of the test.
func (p Peers) Conformance(t testing.TB, subcommand string, args ...string) Conformance {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), conformanceTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.node, append([]string{
		filepath.Join(p.dir, "node_modules/@modelcontextprotocol/conformance/dist/index.js"), subcommand, "--output-dir", dir,
	}, args...)...)
	cmd.Dir, cmd.Env = dir, []string{}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	got := Conformance{Scenarios: map[string][]Check{}, Passed: err == nil, Output: output.String()}

	// A scenario with a slash in its name has its folder below another one.
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "checks.json" {
			return err
		}
		scenario := resultFolder.FindStringSubmatch(filepath.ToSlash(filepath.Dir(name)))
		if scenario == nil || got.Scenarios[scenario[1]] != nil {
			t.Errorf("%s is not the one result of a scenario", name)
			return nil
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		checks := []Check{} // a scenario may look at nothing
		err = json.Unmarshal(b, &checks)
		got.Scenarios[scenario[1]] = checks
		return err
	})
	if err != nil {
		t.Errorf("reading what the suite found: %v\n%s", err, got.Output)
	}
	return got
}
