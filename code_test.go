package counterfoil

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
)

//go:generate go test -run TestErrorsDocument -update .

var update = flag.Bool("update", false, "write docs/errors.md anew")

// declaredCodes reads the constants of type Code out of the source, by their
// names, so that a code nobody gave a row is found.
func declaredCodes(t *testing.T) map[string]Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]Code{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Code" {
			s, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes[spec.Names[0].Name] = Code(s)
		}
		return true
	})
	return codes
}

func TestEveryCodeHasOneRow(t *testing.T) {
	rows := map[Code]int{}
	for _, w := range Wires() {
		rows[w.Code]++
	}
	declared := declaredCodes(t)
	if len(declared) < 60 {
		t.Fatalf("only %d codes found in code.go", len(declared))
	}
	for _, c := range declared {
		if rows[c] != 1 {
			t.Errorf("%s has %d rows", c, rows[c])
		}
		delete(rows, c)
	}
	for c := range rows {
		t.Errorf("row %s has no constant", c)
	}
}

// TestReservedCodesAreThoseOfNobody reads the sources: a code that something
// answers with is not reserved, and one that nothing does is.
func TestReservedCodesAreThoseOfNobody(t *testing.T) {
	names := declaredCodes(t)
	used := map[Code]bool{}
	words := regexp.MustCompile(`[\w.]+`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"), path == "code.go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		qualifier := "counterfoil."
		if filepath.Dir(path) == "." {
			qualifier = ""
		}
		for _, word := range words.FindAllString(string(text), -1) {
			if name, ok := strings.CutPrefix(word, qualifier); ok && names[name] != "" {
				used[names[name]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range Wires() {
		if w.Reserved && used[w.Code] {
			t.Errorf("%s is used and reserved", w.Code)
		}
		if !w.Reserved && !used[w.Code] {
			t.Errorf("%s is neither used nor reserved", w.Code)
		}
	}
}

func TestRowsAreAnswerable(t *testing.T) {
	for _, w := range Wires() {
		if http.StatusText(w.Status) == "" || w.Status < 400 {
			t.Errorf("%s: status %d", w.Code, w.Status)
		}
		if w.Fault != (w.Status >= 500) {
			t.Errorf("%s: fault %v with status %d", w.Code, w.Fault, w.Status)
		}
		if (w.TokenStatus == 0) != (w.OAuth == "") {
			t.Errorf("%s: token status %d with OAuth error %q", w.Code, w.TokenStatus, w.OAuth)
		}
		if w.Meaning == "" || w.Remedy == "" {
			t.Errorf("%s: no meaning or no remedy", w.Code)
		}
		// RFC 6750, Section 3: a challenge goes with 400, 401 or 403.
		if w.Challenge != "" && w.Status != 400 && w.Status != 401 && w.Status != 403 {
			t.Errorf("%s: challenge with status %d", w.Code, w.Status)
		}
	}
	if got := Code("no_such_code").Wire().Code; got != Internal {
		t.Errorf("an unknown code is answered as %s", got)
	}
}

// TestErrorsDocument holds docs/errors.md against the table.
func TestErrorsDocument(t *testing.T) {
	want := errorsDocument()
	const path = "docs/errors.md"
	if *update {
		if err := os.MkdirAll("docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the table says; run go generate", path)
	}
}

func errorsDocument() []byte {
	var b bytes.Buffer
	b.WriteString(`# Refusals and faults

Generated from the table in ` + "`code.go`" + `; do not edit (` + "`go generate .`" + `).

A refusal is a decided no; repeating the same request gets the same answer until something changes. A fault is the server's own
failure: nothing was done, unless the code says that the outcome is unknown. Every answer carries ` + "`code`, `detail` and `request_id`" + `.
Once the agent is authenticated, the ledger knows the request by that id; what is refused before is counted by code, an entry a minute.

How they are sent: at ` + "`/oauth/*`" + ` as RFC 6749 JSON with ` + "`error`" + `; to MCP clients, once the token is valid, as a result with ` + "`isError`" + `
and the refusal in ` + "`_meta[\"counterfoil/refusal\"]`" + ` (HTTP 200); everywhere else as ` + "`application/problem+json`" + ` (RFC 9457).

`)
	byStatus := map[int][]Wire{}
	var statuses []int
	var reserved []Wire
	for _, w := range Wires() {
		if w.Reserved {
			reserved = append(reserved, w)
			continue
		}
		if byStatus[w.Status] == nil {
			statuses = append(statuses, w.Status)
		}
		byStatus[w.Status] = append(byStatus[w.Status], w)
	}
	sort.Ints(statuses)
	for _, s := range statuses {
		fmt.Fprintf(&b, "## %d %s\n\n", s, http.StatusText(s))
		for _, w := range byStatus[s] {
			writeRow(&b, w)
		}
	}
	b.WriteString("## Reserved for what comes next\n\nNothing of this version answers with these. Their names, statuses and meanings are taken.\n\n")
	for _, w := range reserved {
		writeRow(&b, w)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func writeRow(b *bytes.Buffer, w Wire) {
	var facts []string
	if w.Reserved {
		facts = append(facts, fmt.Sprintf("HTTP %d", w.Status))
	}
	if w.OAuth != "" {
		status, oauth := w.AtToken()
		facts = append(facts, fmt.Sprintf("at the token endpoint %d `%s`", status, oauth))
	}
	if w.Challenge != "" {
		facts = append(facts, fmt.Sprintf("`WWW-Authenticate` error `%s`", w.Challenge))
	}
	if w.JSONRPC != 0 {
		facts = append(facts, fmt.Sprintf("JSON-RPC `%d`", w.JSONRPC))
	}
	if w.Retry {
		facts = append(facts, "`Retry-After` is sent")
	}
	fmt.Fprintf(b, "### `%s`\n\n%s\n\n**What to do.** %s\n", w.Code, w.Meaning, w.Remedy)
	if len(facts) > 0 {
		fmt.Fprintf(b, "\nOn the wire: %s.\n", strings.Join(facts, "; "))
	}
	b.WriteString("\n")
}
