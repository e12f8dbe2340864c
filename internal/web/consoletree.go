package web

import (
	"strings"

	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/approval"
)

// typeWords are the types of JSON for people.
var typeWords = map[string]string{
	"object": "object", "array": "list", "string": "text", "number": "number", "boolean": "true or false", "null": "null",
}

// mostHidden is how many of the places of which something is not shown are named.
const mostHidden = 20

// rows are the lines of a tree.
type rows struct {
	fields map[string]string // names that class and template have for places, by JSON pointer
	out    []console.Row
	hidden []console.Hidden // what is not shown whole
}

// pointer is a JSON pointer one step longer (RFC 6901, Section 4): a name with a slash
// is one name and no path.
func pointer(to, key string) string {
	return to + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// place is a pointer as it is named: its beginning will do where it is long.
func place(to string) console.Text {
	const enough = 300
	if len(to) > enough {
		to = strings.ToValidUTF8(to[:enough], "") + "…"
	}
	return text(to)
}

// add appends a value and what is in it, line by line.
func (t *rows) add(n *approval.Node, depth int, to string) {
	r := console.Row{
		Depth: depth, Name: spans(n.Name), Type: typeWords[n.Type], Count: len(n.Children) + n.More, Value: spans(n.Text), Field: t.fields[to],
	}
	if n.NameCut() {
		t.hidden = append(t.hidden, console.Hidden{Place: place(to), Name: true, Bytes: len(n.Key)})
	}
	branch := n.Type == "object" || n.Type == "array"
	r.Empty = r.Count == 0 && (branch || n.Type == "string" && n.Length == 0 && len(n.Text) == 0)
	if !branch && n.Length > 0 {
		r.Cut, r.Digest = n.Length, n.Digest
		t.hidden = append(t.hidden, console.Hidden{Place: place(to), Bytes: n.Length})
	}
	t.out = append(t.out, r)
	t.within(n, depth+1, to)
}

// within appends what is in a value, and how much of it is left out.
func (t *rows) within(n *approval.Node, depth int, to string) {
	for i := range n.Children {
		t.add(&n.Children[i], depth, pointer(to, n.Children[i].Key))
	}
	if n.More > 0 {
		t.out = append(t.out, console.Row{Depth: depth, Left: true, Count: n.More, Digest: n.Digest})
		t.hidden = append(t.hidden, console.Hidden{Place: place(to), Members: n.More, Bytes: n.Length})
	}
}
