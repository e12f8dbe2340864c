package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
)

// How a resource takes the operations of its OpenAPI description.
const (
	classifyListed    = "listed"    // those alone that the manifest lists with a class; the others are kept without one
	classifySuggested = "suggested" // the others, too, in the class that they look to be of
)

// A Reference is a file that a manifest names and that goes with it.
type Reference struct {
	Manifest string // the manifest's name
	File     string // the file as the manifest names it, below the manifest's folder
	Name     string // the name under which Parse looks for it
}

// References returns the files that manifests name, each once under each name, in
// order. What is wrong with the manifests is for Parse to say.
func References(files []File) []Reference {
	var out []Reference
	for _, f := range files {
		if len(f.Data) > maxFile || !bytes.Contains(f.Data, []byte("openapi")) {
			continue
		}
		dec := yaml.NewDecoder(bytes.NewReader(f.Data))
		for {
			var root yaml.Node
			if decode(dec, &root) != nil {
				break
			}
			if file := describedIn(&root); file != "" {
				ref := Reference{f.Name, file, path.Join(path.Dir(f.Name), file)}
				if !slices.ContainsFunc(out, func(r Reference) bool { return r.Name == ref.Name }) {
					out = append(out, ref)
				}
			}
		}
	}
	return out
}

// describedIn returns the file that a document of a resource names as its description.
func describedIn(root *yaml.Node) string {
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		return ""
	}
	s := &spec{}
	n := root.Content[0]
	if s.text(n, "kind") != KindResource {
		return ""
	}
	if file := s.text(s.get(n, "openapi"), "file"); checkBeside(file) == nil {
		return file
	}
	return ""
}

var besideName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$`)

// checkBeside takes a file in the manifest's folder or below it.
func checkBeside(s string) error {
	if len(s) > 255 || !besideName.MatchString(s) {
		return fmt.Errorf("%.80q is not a file beside the manifest: letters, digits, _ - and ., in folders below it at most", s)
	}
	return nil
}

// An expansion is a resource's OpenAPI description and what became of it.
type expansion struct {
	spec      *spec
	file      string // as the resource's manifest names it
	at        Position
	operation []*operation
	classify  string
	member    *yaml.Node

	unlisted []*operation   // that are not callable
	optional map[string]int // tools in a suggested class, with their line
	listed   []listedTool
	notes    []string
}

// A listedTool is a tool that the manifest lists, with the class that its operation
// suggests.
type listedTool struct{ name, class, suggested string }

// openAPI reads the member that names a description.
func (d *doc) openAPI(n *yaml.Node, at string) *expansion {
	e := &expansion{classify: classifyListed, optional: map[string]int{}, member: n}
	before := len(d.problems)
	d.object(n, at, members{
		"file":     d.text(&e.file, checkBeside),
		"classify": d.enum(&e.classify, classifyListed, classifySuggested),
	}, "file")
	if len(d.problems) > before {
		return nil
	}
	name := path.Join(path.Dir(d.file), e.file)
	f, sent := d.beside[name]
	if !sent {
		d.fail(n, at, "the file %s is not among the files that were given", name)
		return nil
	}
	e.at.File = f.Name
	var err error
	if e.spec, err = readSpec(f.Data); err == nil {
		e.operation, err = e.spec.operations()
	}
	if err != nil {
		d.problem(Position{File: f.Name}, "%s: %s: %s is no OpenAPI description that is read here: %v", d.label, at, e.file, err)
		return nil
	}
	return e
}

// maxSchemas is how many bytes the schemas of one resource have together.
const maxSchemas = 2 << 20

// into makes the operations that the resource lists, or that it takes as suggested, its
// tools. It returns the places of the tools, as nodes was for those before.
func (e *expansion) into(d *doc, r *counterfoil.Resource, nodes []*yaml.Node) []*yaml.Node {
	if r.Type != counterfoil.ResourceHTTP {
		d.fail(e.member, "openapi", "only http resources have it")
		return nodes
	}
	e.checkBase(r)
	used, size := map[*operation]bool{}, 0
	for i := range r.Tools {
		if o := e.match(d, &r.Tools[i], nodes[i], fmt.Sprintf("tools[%d]", i)); o != nil {
			used[o] = true
			size += len(r.Tools[i].Schema)
		}
	}
	listed, lines := len(r.Tools), map[string]int{}
	for _, o := range e.operation {
		if used[o] {
			continue
		}
		if t, kept := e.another(r, o); kept {
			lines[t.Name] = o.line
			r.Tools, nodes = append(r.Tools, t), append(nodes, e.member)
			size += len(t.Schema)
		}
	}
	slices.SortStableFunc(r.Tools[listed:], classFirst)
	for i, t := range r.Tools[listed:] {
		d.pos[fmt.Sprintf("tools[%d]", listed+i)] = Position{e.at.File, lines[t.Name]}
	}
	if size > maxSchemas {
		d.fail(e.member, "openapi", "the schemas of its tools have %d bytes together; the limit is %d: make two resources of it", size, maxSchemas)
	}
	return nodes
}

// classFirst orders tools without a class, in whose order there is no sense, behind the
// others.
func classFirst(a, b counterfoil.Tool) int {
	switch {
	case a.Class == "" && b.Class == "":
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	case a.Class == "":
		return 1
	case b.Class == "":
		return -1
	}
	return 0
}

// another makes the tool of an operation that the manifest does not list: in the class
// that it looks to be of where suggestions are taken, and otherwise without one, so that
// what is not listed is not callable as something that is.
func (e *expansion) another(r *counterfoil.Resource, o *operation) (t counterfoil.Tool, kept bool) {
	err := o.err
	if e.classify == classifySuggested && err == nil {
		if t, err = e.spec.tool(o, false); err == nil {
			err = beside(r, &t)
		}
		if err == nil {
			t.Class = o.class
			e.optional[t.Name] = o.line
			return t, true
		}
	}
	t = counterfoil.Tool{Name: o.name, Method: o.method, Path: o.path}
	unknown := checkUnlisted(t.Path)
	switch {
	case unknown != nil:
		e.notes = append(e.notes, fmt.Sprintf("%s of %s can be no tool, and cannot be told from those that match it: %v", o, e.file, unknown))
		return t, false
	case err != nil:
		e.notes = append(e.notes, fmt.Sprintf("%s of %s can be no tool: %v", o, e.file, err))
	default:
		e.unlisted = append(e.unlisted, o)
	}
	for i := range r.Tools {
		if other := &r.Tools[i]; other.Method == t.Method && clash(other, &t) {
			return t, false // it is there, under another name
		}
	}
	has := func(name string) bool {
		return slices.ContainsFunc(r.Tools, func(other counterfoil.Tool) bool { return other.Name == name })
	}
	for i := 2; has(t.Name); i++ {
		t.Name = fmt.Sprintf("%s_%d", o.name, i)
	}
	return t, true
}

// beside says why a tool cannot stand beside those that are there.
func beside(r *counterfoil.Resource, t *counterfoil.Tool) error {
	for _, other := range r.Tools {
		switch {
		case other.Name == t.Name:
			return fmt.Errorf("another tool has its name, %s; list it under one of your own", t.Name)
		case other.Method == t.Method && other.Class != "" && ambiguous(other.Path, t.Path):
			return fmt.Errorf("tool %s matches the same requests equally well", other.Name)
		}
	}
	return nil
}

// match finds the operation of a tool that the manifest lists, by method and path or by
// name, and fills in what the manifest leaves out.
func (e *expansion) match(d *doc, t *counterfoil.Tool, n *yaml.Node, at string) *operation {
	byPlace := t.Method != "" || t.Path != ""
	i := slices.IndexFunc(e.operation, func(o *operation) bool {
		if byPlace {
			return o.method == t.Method && o.path == t.Path
		}
		return o.name == t.Name
	})
	if i < 0 {
		if byPlace {
			e.notes = append(e.notes, fmt.Sprintf("tool %s (%s %s) is in no operation of %s", t.Name, t.Method, t.Path, e.file))
			return nil
		}
		var names []string
		for _, o := range e.operation {
			names = append(names, o.name)
		}
		d.fail(n, at, "%s has no operation %q%s; write method and path, or the name of one", e.file, t.Name, hint(t.Name, names))
		return nil
	}
	o := e.operation[i]
	if t.Class == "" {
		t.Method, t.Path = o.method, o.path
		if err := checkUnlisted(t.Path); err != nil {
			d.fail(n, at, "%v", err)
		}
		if o.err == nil {
			e.unlisted = append(e.unlisted, o)
		}
		return o
	}
	e.listed = append(e.listed, listedTool{t.Name, t.Class, o.class})
	described, err := e.spec.tool(o, t.Stream)
	if err != nil && (t.Schema == "" || !byPlace) {
		d.fail(n, at, "%s of %s can be no tool: %v; write its method, path and schema", o, e.file, err)
		return o
	}
	t.Method, t.Path = o.method, o.path
	if t.Schema == "" {
		t.Schema = described.Schema
		if len(t.Consumes) == 0 {
			t.Consumes = described.Consumes
		}
	}
	if len(t.Headers) == 0 {
		t.Headers = described.Headers
	}
	return o
}

// checkBase notes a description whose paths are below another one than the upstream.
func (e *expansion) checkBase(r *counterfoil.Resource) {
	servers := e.spec.items(e.spec.get(e.spec.root, "servers"))
	if len(servers) == 0 || r.Upstream == "" {
		return
	}
	u, err := url.Parse(e.spec.text(servers[0], "url"))
	up, errUp := url.Parse(r.Upstream)
	if err != nil || errUp != nil || strings.Contains(u.Path, "{") {
		return
	}
	if said, is := strings.Trim(u.Path, "/"), strings.Trim(up.Path, "/"); said != is {
		e.notes = append(e.notes, fmt.Sprintf("the paths of %s are below /%s, and the upstream is at /%s: a call goes to the upstream's URL with the path appended", e.file, said, is))
	}
}

// within takes their class off the tools in a suggested one that the registry does not
// have.
func (d *Document) within(classes map[string]bool) *Document {
	r, ok := d.Noun.(*counterfoil.Resource)
	if !ok || d.described == nil || len(d.described.optional) == 0 {
		return d
	}
	kept, out := *r, *d
	kept.Tools, out.Noun = slices.Clone(r.Tools), &kept
	for i, t := range r.Tools {
		if _, optional := d.described.optional[t.Name]; optional && !classes[t.Class] {
			kept.Tools[i] = counterfoil.Tool{Name: t.Name, Method: t.Method, Path: t.Path}
		}
	}
	return &out
}

// A Suggestion is an operation of an OpenAPI description that is no tool, and the line
// that would make it one.
type Suggestion struct {
	Resource  string `json:"resource"`
	Operation string `json:"operation"` // such as GET /customers/{id}
	Class     string `json:"class"`     // that it looks to be of; nobody has to have declared it
	Manifest  string `json:"manifest"`  // a line for the resource's tools
}

// Suggestions returns the operations of the documents' descriptions that are not
// callable in a registry that has the documents, in their order.
func Suggestions(docs []Document, reg *counterfoil.Registry) []Suggestion {
	var out []Suggestion
	for i := range docs {
		e, r := docs[i].described, reg.Resources[docs[i].Name]
		if e == nil || docs[i].Kind != KindResource || r == nil {
			continue
		}
		for _, o := range e.operation {
			_, optional := e.optional[o.name]
			_, callable := r.Tool(o.name)
			if optional && !callable || slices.Contains(e.unlisted, o) {
				out = append(out, Suggestion{r.Name, o.String(), o.class, fmt.Sprintf("- {name: %s, class: %s}", plainName(o.name), o.class)})
			}
		}
	}
	return out
}

// plainName writes a tool's name so that YAML reads it as text.
func plainName(name string) string {
	w := &writer{}
	b, err := encode(w.text(name))
	if err != nil {
		return name
	}
	return strings.TrimSuffix(string(b), "\n")
}

// Notes returns what is to be said of the documents' descriptions, each in one line.
func Notes(docs []Document, reg *counterfoil.Registry) []string {
	var out []string
	for i := range docs {
		e := docs[i].described
		if e == nil {
			out = append(out, unlistedNote(reg.Resources[docs[i].Name], docs[i].Kind)...)
			continue
		}
		for _, t := range e.listed {
			is, looks := tierOf(reg, t.class), tierOf(reg, t.suggested)
			if looks < is {
				out = append(out, fmt.Sprintf("Resource %s: tool %s is of class %s, which is %s; it looks like %s, which is %s", docs[i].Name, t.name, t.class, is, t.suggested, looks))
			}
		}
		for _, note := range e.notes {
			out = append(out, fmt.Sprintf("Resource %s: openapi: %s", docs[i].Name, note))
		}
	}
	return out
}

// unlistedNote says which tools of a resource have no class. Of a resource with a
// description that is what Suggestions says.
func unlistedNote(r *counterfoil.Resource, kind string) []string {
	if r == nil || kind != KindResource {
		return nil
	}
	var names []string
	for _, t := range r.Tools {
		if t.Class == "" {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("Resource %s: without a class and so not callable: %s", r.Name, some(names))}
}

// some writes the first of many names.
func some(names []string) string {
	const most = 3
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}

// tierOf returns a class's tier, or the least strict one that a class of that name could
// have.
func tierOf(reg *counterfoil.Registry, class string) counterfoil.Tier {
	if c := reg.Classes[class]; c != nil {
		return c.Tier
	}
	return counterfoil.LowestTier(class)
}
