package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// What a rule of a vocabulary reads begins with one of these.
const (
	rootPrincipal = "principal"
	rootAction    = "action"
	rootResource  = "resource"
	rootContext   = "context"
)

const typeAction = "Action"

// A wordRule is a permit or a forbid of a vocabulary. The paths of its reads begin with
// the root that they are of.
type wordRule struct {
	rule
	line                int
	principal, resource wordScope
	actions             []cedar.EntityUID // nil: any
}

// A wordScope is one part of a rule's head.
type wordScope struct {
	kind string // the type that it names; empty: any
	id   *cedar.String
}

func (s *wordScope) takes(uid cedar.EntityUID) bool {
	return (s.kind == "" || s.kind == string(uid.Type)) && (s.id == nil || *s.id == uid.ID)
}

// concerns reports whether the rule's head may match. Cedar decides whether it does.
func (r *wordRule) concerns(q *cedar.Request) bool {
	return r.principal.takes(q.Principal) && r.resource.takes(q.Resource) && (r.actions == nil || slices.Contains(r.actions, q.Action))
}

// compileVocabulary compiles the policies of a vocabulary: permits, each of which says
// what types it is about, and forbids.
func compileVocabulary(name, text string) ([]*wordRule, []*textError) {
	list, terr := parseCedar(text, "", "", maxCedar)
	if terr != nil {
		return nil, []*textError{terr}
	}
	var rules []*wordRule
	var errs []*textError
	permits := 0
	for _, p := range list {
		line := p.Position().Line
		r, terr := newWordRule(fmt.Sprintf("vocabulary %q, line %d", name, line), p)
		if terr != nil {
			terr.line = max(terr.line, line)
			errs = append(errs, terr)
			continue
		}
		if r.line = line; p.Effect() == cedar.Permit {
			permits++
		}
		rules = append(rules, r)
	}
	if permits == 0 && len(errs) == 0 {
		errs = append(errs, textErrorf(0, "nothing is permitted; write permit (principal is TYPE, action == Action::\"NAME\", resource is TYPE) when { … };"))
	}
	return rules, errs
}

func newWordRule(name string, p *cedar.Policy) (*wordRule, *textError) {
	r := &wordRule{rule: rule{name: name, policy: p}}
	tree := (*ast.Policy)(p.AST())
	var err error
	if r.principal, err = readWordScope(tree.Principal, rootPrincipal); err != nil {
		return nil, textErrorf(0, "%v", err)
	}
	if r.resource, err = readWordScope(tree.Resource, rootResource); err != nil {
		return nil, textErrorf(0, "%v", err)
	}
	if r.actions, err = readActions(tree.Action); err != nil {
		return nil, textErrorf(0, "%v", err)
	}
	switch {
	case r.principal.kind == TypeAgent:
		return nil, textErrorf(0, "what agents may call is said by their grants; a vocabulary is about other subjects")
	case p.Effect() == cedar.Permit && (r.principal.kind == "" || r.resource.kind == ""):
		return nil, textErrorf(0, "a permit says what it is about: permit (principal is TYPE, …, resource is TYPE), or == one of them")
	}
	if terr := r.readConditions(tree, readWords); terr != nil {
		return nil, terr
	}
	return r, nil
}

// readWordScope reads the head's principal or resource. Nothing that is asked about has
// parents, so a head that asks for them never applies.
func readWordScope(s ast.IsScopeNode, root string) (wordScope, error) {
	var out wordScope
	switch s := s.(type) {
	case ast.ScopeTypeAll:
		return out, nil
	case ast.ScopeTypeEq:
		out = wordScope{string(s.Entity.Type), &s.Entity.ID}
	case ast.ScopeTypeIs:
		out = wordScope{kind: string(s.Type)}
	default:
		return out, fmt.Errorf("never applies: nothing that is asked about is in anything; write %s == …, or %s is …, and say the rest by properties", root, root)
	}
	if out.kind == typeAction {
		return out, fmt.Errorf("never applies: the %s is no Action", root)
	}
	return out, nil
}

func readActions(s ast.IsActionScopeNode) (actions []cedar.EntityUID, err error) {
	switch s := s.(type) {
	case ast.ScopeTypeAll:
		return nil, nil
	case ast.ScopeTypeEq:
		actions = []cedar.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		actions = []cedar.EntityUID{s.Entity}
	case ast.ScopeTypeInSet:
		actions = append([]cedar.EntityUID{}, s.Entities...)
	}
	for _, a := range actions {
		if string(a.Type) != typeAction {
			return nil, fmt.Errorf("never applies: an action is Action::\"NAME\", not %s", a)
		}
	}
	if len(actions) == 0 {
		return nil, errors.New("never applies: it names no action")
	}
	return actions, nil
}

// readWords adds what an expression names of the question. An entity that is only
// compared is not read. What is read of something else than the question, such as of an
// entity that is chosen by a condition, may be anything of it.
func readWords(r *reads, body ast.IsNode) (err error) {
	var visit func(n ast.IsNode) bool
	fail := func(format string, args ...any) bool {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
		return false
	}
	operands := func(nodes ...ast.IsNode) bool {
		for _, n := range nodes {
			if v, ok := n.(ast.NodeTypeVariable); ok && v.Name != rootContext {
				continue
			}
			ast.Inspect(ast.NewNode(n), visit)
		}
		return false
	}
	alike := func(left, right ast.IsNode) bool {
		if isEntity(left) != isEntity(right) {
			return fail("compares an entity with what is none, which is never equal; the id of an entity is its attribute id, as in resource.owner == principal.id")
		}
		return true
	}
	visit = func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeEquals:
			return alike(n.Left, n.Right) && operands(n.Left, n.Right)
		case ast.NodeTypeNotEquals:
			return alike(n.Left, n.Right) && operands(n.Left, n.Right)
		case ast.NodeTypeIs:
			return operands(n.Left)
		case ast.NodeTypeIsIn:
			return fail("never applies: nothing that is asked about is in anything")
		case ast.NodeTypeIn:
			if v, ok := n.Left.(ast.NodeTypeVariable); !ok || v.Name != rootAction {
				return fail("never applies: nothing that is asked about is in anything; compare with ==, or use a property")
			}
			return operands(n.Left, n.Right)
		case ast.NodeTypeGetTag, ast.NodeTypeHasTag:
			return fail("what is asked about has no tags; its properties are attributes, such as resource.status")
		}
		if path, ok := rootedPath(n); ok {
			r.paths = append(r.paths, path)
			return false
		}
		switch n.(type) {
		case ast.NodeTypeAccess, ast.NodeTypeHas:
			r.whole = true
		}
		return true
	}
	ast.Inspect(ast.NewNode(body), visit)
	return err
}

// isEntity reports whether an expression is one of the question's entities, or one that
// is written out. No property is one: JSON has none.
func isEntity(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		return n.Name != rootContext
	case ast.NodeValue:
		_, ok := n.Value.(cedar.EntityUID)
		return ok
	}
	return false
}

// rootedPath returns the chain of members when n is such as resource, resource.a.b or
// resource.a has b.
func rootedPath(n ast.IsNode) ([]string, bool) {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		return []string{string(n.Name)}, true
	case ast.NodeTypeAccess:
		path, ok := rootedPath(n.Arg)
		return append(path, string(n.Value)), ok
	case ast.NodeTypeHas:
		path, ok := rootedPath(n.Arg)
		return append(path, string(n.Value)), ok
	}
	return nil, false
}

// rootedName writes a path as a rule would.
func rootedName(path []string) string {
	if len(path) == 0 {
		return "what is asked"
	}
	s := strings.Join(path, ".")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
