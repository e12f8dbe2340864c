package attacks

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

//go:generate go test -run TestDocument -update .

var update = flag.Bool("update", false, "write docs/attacks.md anew")

const (
	room     = "attacks" // this package's path below the module
	document = "../docs/attacks.md"
)

// rowID finds the rows that a text is about.
var rowID = regexp.MustCompile(`\b(?:(?:CA|WI|DT|DG|MT|TS|TX|TL|TP|AP|RV|AU|AD|SS|DO|HI|LC|CK|KR|LK|IN|SE|LD|PX|AZ)[0-9]{1,2}|(?:DPOP|JWTCA|AT)-(?:AS|RS)-[0-9]{2}|RTY-[0-9]{2})\b`)

// TestDocument holds docs/attacks.md against the catalogue.
func TestDocument(t *testing.T) {
	t.Parallel()
	want := Document()
	if *update {
		if err := os.WriteFile(document, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/attacks.md is not what the catalogue says; run go generate ./attacks")
	}
}

func TestRowsSayHowTheyAreShown(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, g := range Catalogue() {
		for _, r := range g.Rows {
			if seen[r.ID] || !strings.HasPrefix(r.ID, g.Prefix) || rowID.FindString(r.ID) != r.ID {
				t.Errorf("%s: an id that is used twice, is not the group's, or is none", r.ID)
			}
			seen[r.ID] = true
			if len(r.Tests) == 0 && r.Beyond == "" {
				t.Errorf("%s: neither a test nor what is not built", r.ID)
			}
			if r.Sent == "" || r.Expected == "" || r.Invariants == "" {
				t.Errorf("%s: sent, expected or invariants are missing", r.ID)
			}
		}
	}
}

// TestNamedTestsExist looks for every test of the catalogue in the source of its
// package.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	packages := map[string]map[string]*ast.FuncDecl{}
	for _, g := range Catalogue() {
		for _, r := range g.Rows {
			for _, name := range r.Tests {
				dot := strings.LastIndexByte(name, '.')
				dir, test := name[:max(dot, 0)], name[dot+1:]
				if packages[dir] == nil {
					packages[dir] = functions(t, filepath.Join("..", dir))
				}
				if _, ok := packages[dir][test]; !ok || !strings.HasPrefix(test, "Test") {
					t.Errorf("%s: there is no test %s", r.ID, name)
				}
			}
		}
	}
}

// TestCatalogueIsWhatIsTested: each test of this package is named by the rows that
// it is about, and is about the rows that name it. What it is about are the ids
// in the texts of its tables, those of the functions it uses among them, and in
// its comment.
func TestCatalogueIsWhatIsTested(t *testing.T) {
	t.Parallel()
	declared := functions(t, ".")
	for name, f := range declared {
		if !strings.HasPrefix(name, "Test") || f.Recv != nil {
			continue
		}
		about := map[string]bool{}
		for _, id := range rowID.FindAllString(f.Doc.Text(), -1) {
			about[id] = true
		}
		rowsOf(f, declared, map[string]bool{name: true}, about)
		named := map[string]bool{}
		for _, g := range Catalogue() {
			for _, r := range g.Rows {
				if slices.Contains(r.Tests, room+"."+name) {
					named[r.ID] = true
				}
			}
		}
		for _, id := range slices.Sorted(maps.Keys(about)) {
			if !named[id] {
				t.Errorf("%s is about %s, and the row does not name it", name, id)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(named)) {
			if !about[id] {
				t.Errorf("the row %s names %s, which says nothing of it", id, name)
			}
		}
	}
}

// rowsOf collects the ids at the beginning of texts in a function and in the
// functions of the package that it names.
func rowsOf(f *ast.FuncDecl, declared map[string]*ast.FuncDecl, visited, about map[string]bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			text, err := strconv.Unquote(n.Value)
			if at := rowID.FindStringIndex(text); n.Kind == token.STRING && err == nil && at != nil && at[0] == 0 {
				about[text[:at[1]]] = true
			}
		case *ast.Ident:
			if g := declared[n.Name]; g != nil && !visited[n.Name] {
				visited[n.Name] = true
				rowsOf(g, declared, visited, about)
			}
		}
		return true
	})
}

// functions parses the tests of a folder, comments with them.
func functions(t *testing.T, dir string) map[string]*ast.FuncDecl {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*ast.FuncDecl{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				all[f.Name.Name] = f
			}
		}
	}
	if len(all) == 0 {
		if _, err := fs.Stat(os.DirFS("."), dir); err != nil {
			t.Errorf("the folder %s: %v", dir, err)
		}
	}
	return all
}
