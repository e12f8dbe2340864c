package policy

import (
	"fmt"
	"strings"

	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Members of the context.
const (
	ctxArgs    = "args"
	ctxFields  = "fields"
	ctxHour    = "hour"
	ctxWeekday = "weekday"
	ctxNetwork = "network"
	ctxTask    = "task"
	ctxSubject = "subject"
	ctxActors  = "actors"
	ctxKeyKind = "key_kind"
)

var contextMembers = []string{ctxArgs, ctxFields, ctxHour, ctxWeekday, ctxNetwork, ctxTask, ctxSubject, ctxActors, ctxKeyKind}

// A reads is what a rule's text names of the context, in any branch. Evaluation
// can reach nothing else: Cedar has no computed member names.
type reads struct {
	// whole says that context itself is passed around, so everything is named.
	whole bool

	// paths are the longest chains of members after context that the text has,
	// such as args.payee.iban. The last step may be one asked for with `has`.
	paths [][]string
}

// add adds what an expression names.
func (r *reads) add(body ast.IsNode) (err error) {
	ast.Inspect(ast.NewNode(body), func(n ast.IsNode) bool {
		path, ok := contextPath(n)
		switch {
		case !ok:
			return true
		case len(path) == 0:
			r.whole = true
		default:
			if e := checkMember(path[0]); e != nil && err == nil {
				err = e
			}
			r.paths = append(r.paths, path)
		}
		return false
	})
	return err
}

// checkMember refuses what the context never has: reading it can only err, and
// `has` is always false, so that a misspelt forbid would never apply.
func checkMember(name string) error {
	for _, m := range contextMembers {
		if m == name {
			return nil
		}
	}
	hint := ""
	if near := Nearest(name, contextMembers); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return fmt.Errorf("context has no member %q%s (it has %s)", name, hint, strings.Join(contextMembers, ", "))
}

// contextPath returns the chain of members when n is context, context.a.b or
// context.a has b. Any other use of a part of the context is a use of a chain
// that is passed around, which is found at that chain.
func contextPath(n ast.IsNode) ([]string, bool) {
	if has, ok := n.(ast.NodeTypeHas); ok {
		path, ok := accessPath(has.Arg)
		return append(path, string(has.Value)), ok
	}
	return accessPath(n)
}

func accessPath(n ast.IsNode) ([]string, bool) {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		return nil, n.Name == "context"
	case ast.NodeTypeAccess:
		path, ok := accessPath(n.Arg)
		return append(path, string(n.Value)), ok
	}
	return nil, false
}

// member reports whether the rule names the member of the context.
func (r *reads) member(name string) bool {
	if r.whole {
		return true
	}
	for _, p := range r.paths {
		if p[0] == name {
			return true
		}
	}
	return false
}

// inner reports whether the rule names the member name of the record parent of
// the context, or the record as a whole.
func (r *reads) inner(parent, name string) bool {
	if r.whole {
		return true
	}
	for _, p := range r.paths {
		if p[0] == parent && (len(p) == 1 || p[1] == name) {
			return true
		}
	}
	return false
}

// touches reports whether the rule names what is at path, something in it or
// something around it.
func (r *reads) touches(path []string) bool {
	if r.whole {
		return true
	}
	for _, p := range r.paths {
		if related(p, path) {
			return true
		}
	}
	return false
}

// related reports whether one path begins with the other.
func related(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Nearest returns the candidate that was most likely meant by a misspelt word,
// or nothing when none is near: one slip for every three letters.
func Nearest(word string, candidates []string) string {
	best, distance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := editDistance(word, c, distance); d > 0 && d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours from a to b, and gives up beyond limit.
func editDistance(a, b string, limit int) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row, above, above2 := &rows[i%3], &rows[(i+2)%3], &rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], above2[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
