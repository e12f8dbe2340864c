package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// desktop are the SDKs of the desktop clients, which start the command that they
// find in their configuration.
func desktop(p peers.Peers) map[string]peers.Client {
	return map[string]peers.Client{"TypeScript SDK 1": p.MCP, "TypeScript SDK 2": p.MCP2("auto")}
}

const filesManifest = `kind: Class
name: write
tier: routine
---
kind: Resource
name: files
type: mcp
environment: prod
upstream: %s
tools:
  - {name: list_directory, class: read}
  - {name: read_text_file, class: read}
  - {name: get_file_info, class: read}
  - {name: write_file, class: write}
  - {name: edit_file, class: write}
---
kind: Agent
name: reader
owner: ana
purpose: reads files
environment: prod
grants:
  - tools: [files/list_directory, files/read_text_file]
---
kind: Agent
name: editor
owner: ana
purpose: edits files
environment: prod
grants:
  - tools: [files/edit_file, files/read_text_file]
  - tools: [files/write_file]
    when: context.args.path like "*.txt"
`

// TestADesktopClientWorksOnFilesItWasGranted: between a desktop client and the
// reference server for files, where its configuration had the server's own
// command, is the connector's.
func TestADesktopClientWorksOnFilesItWasGranted(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(folder, "report.txt")
	if err := os.WriteFile(report, []byte("all is well\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sys.Apply(fmt.Sprintf(filesManifest, recorded(t, sys, p.Files(t, folder))))

	path := func(name string) map[string]any { return map[string]any{"path": filepath.Join(folder, name)} }
	write := func(name string) peers.Call {
		return peers.Call{Name: "write_file", Arguments: map[string]any{"path": filepath.Join(folder, name), "content": "written"}}
	}
	edit := peers.Call{Name: "edit_file", Arguments: map[string]any{"path": report, "edits": []any{map[string]any{"oldText": "well", "newText": "lost"}}}}
	reader := overStdio(t, sys, "reader", enroll(t, sys, "reader", "Ed25519"), "files")
	editor := overStdio(t, sys, "editor", enroll(t, sys, "editor", "ES256"), "files")
	before := tree(t, folder)

	for name, client := range desktop(p) {
		s := client(t, reader,
			peers.Call{Name: "list_directory", Arguments: path(".")},
			peers.Call{Name: "read_text_file", Arguments: path("report.txt")},
			peers.Call{Name: "read_text_file", Arguments: map[string]any{"path": filepath.Join(filepath.Dir(folder), "elsewhere.txt")}},
			write("new.txt"), write("report.txt"), edit,
			peers.Call{Name: "get_file_info", Arguments: path("report.txt")},
			peers.Call{Name: "move_file", Arguments: map[string]any{"source": report, "destination": filepath.Join(folder, "gone.txt")}},
			peers.Call{Name: "create_directory", Arguments: path("new")},
		)
		if want := []string{"list_directory", "read_text_file"}; !slices.Equal(slices.Sorted(slices.Values(s.Tools)), want) {
			t.Errorf("%s: the reader's tools are %q, want %q", name, s.Tools, want)
		}
		wantAnswer(t, name, s.Calls[0], "[FILE] report.txt")
		wantAnswer(t, name, s.Calls[1], "all is well")
		// The server's own refusal comes through as it is.
		if c := s.Calls[2]; c.Result == nil || !c.Result.IsError || c.Code() != "" || !strings.Contains(c.Text(), "outside allowed directories") {
			t.Errorf("%s: a file outside the folder: %v", name, c)
		}
		for _, c := range s.Calls[3:7] {
			wantRefusal(t, name, c, counterfoil.ToolNotGranted)
		}
		for _, c := range s.Calls[7:] {
			wantRefusal(t, name, c, counterfoil.ToolUnknown)
		}
	}
	if after := tree(t, folder); !maps.Equal(before, after) {
		t.Errorf("the folder had %v and has %v", before, after)
	}

	// The same calls change files for the agent that may make them, and only
	// where it may.
	s := p.MCP(t, editor, write("new.txt"), edit, write("new.sh"))
	if want := []string{"edit_file", "read_text_file", "write_file"}; !slices.Equal(slices.Sorted(slices.Values(s.Tools)), want) {
		t.Errorf("the editor's tools are %q, want %q", s.Tools, want)
	}
	wantAnswer(t, "the editor", s.Calls[0], "Successfully wrote")
	wantAnswer(t, "the editor", s.Calls[1], "all is lost")
	wantRefusal(t, "the editor", s.Calls[2], counterfoil.PolicyForbids)
	if got, want := tree(t, folder), map[string]string{"report.txt": "all is lost\n", "new.txt": "written"}; !maps.Equal(got, want) {
		t.Errorf("the folder has %v, want %v", got, want)
	}
	sys.CheckLedger()
}

const memoryManifest = `kind: Class
name: write
tier: routine
---
kind: Resource
name: memory
type: mcp
environment: prod
upstream: %s
tools:
  - {name: read_graph, class: read}
  - {name: search_nodes, class: read}
  - {name: create_entities, class: write}
  - {name: delete_entities, class: write}
---
kind: Agent
name: reader
owner: ana
purpose: remembers
environment: prod
grants:
  - tools: [memory/read_graph, memory/search_nodes]
---
kind: Agent
name: learner
owner: ana
purpose: learns
environment: prod
grants:
  - tools: [memory/create_entities]
`

// TestADesktopClientRemembersWhatItMay is the same with the reference server
// that keeps a graph of facts.
func TestADesktopClientRemembersWhatItMay(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	file := filepath.Join(t.TempDir(), "memory.jsonl")
	sys.Apply(fmt.Sprintf(memoryManifest, recorded(t, sys, p.Memory(t, file))))

	learn := func(name string) peers.Call {
		return peers.Call{Name: "create_entities", Arguments: map[string]any{"entities": []any{
			map[string]any{"name": name, "entityType": "person", "observations": []any{"owns payroll"}},
		}}}
	}
	reader := overStdio(t, sys, "reader", enroll(t, sys, "reader", "Ed25519"), "memory")
	learner := overStdio(t, sys, "learner", enroll(t, sys, "learner", "ES384"), "memory")

	s := p.MCP(t, learner, learn("ana"), peers.Call{Name: "read_graph"})
	if want := []string{"create_entities"}; !slices.Equal(s.Tools, want) {
		t.Errorf("the learner's tools are %q, want %q", s.Tools, want)
	}
	wantAnswer(t, "the learner", s.Calls[0], "ana")
	wantRefusal(t, "the learner", s.Calls[1], counterfoil.ToolNotGranted)
	before, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(before), "ana") {
		t.Fatalf("the memory has %q (%v)", before, err)
	}

	for name, client := range desktop(p) {
		s := client(t, reader,
			peers.Call{Name: "read_graph"},
			peers.Call{Name: "search_nodes", Arguments: map[string]any{"query": "payroll"}},
			learn("mallory"),
			peers.Call{Name: "delete_entities", Arguments: map[string]any{"entityNames": []any{"ana"}}},
			peers.Call{Name: "add_observations", Arguments: map[string]any{"observations": []any{}}},
		)
		if want := []string{"read_graph", "search_nodes"}; !slices.Equal(slices.Sorted(slices.Values(s.Tools)), want) {
			t.Errorf("%s: the reader's tools are %q, want %q", name, s.Tools, want)
		}
		wantAnswer(t, name, s.Calls[0], "ana")
		wantAnswer(t, name, s.Calls[1], "owns payroll")
		wantRefusal(t, name, s.Calls[2], counterfoil.ToolNotGranted)
		wantRefusal(t, name, s.Calls[3], counterfoil.ToolNotGranted)
		wantRefusal(t, name, s.Calls[4], counterfoil.ToolUnknown)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("the memory had %q and has %q (%v)", before, after, err)
	}
	sys.CheckLedger()
}

// wantAnswer checks that a call got the tool's own answer.
func wantAnswer(t *testing.T, who string, c peers.Called, text string) {
	t.Helper()
	if c.Result == nil || c.Result.IsError || !strings.Contains(c.Text(), text) {
		t.Errorf("%s: %v; want %q", who, c, text)
	}
}

// wantRefusal checks that a client got the gateway's refusal, with text in which
// its model reads which tool was refused and why.
func wantRefusal(t *testing.T, who string, c peers.Called, code counterfoil.Code) {
	t.Helper()
	if c.Code() != string(code) {
		t.Errorf("%s: %v; want the code %q", who, c, code)
	} else if !strings.Contains(c.Text(), string(code)) || !strings.Contains(c.Text(), c.Name) {
		t.Errorf("%s: %v; nobody reads there what was refused and why", who, c)
	}
}

// tree returns the content of every file of a folder, and its folders.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if d.IsDir() {
			found[path] = "a folder"
			return nil
		}
		b, err := os.ReadFile(filepath.Join(folder, path))
		found[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
