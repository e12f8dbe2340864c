package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

const (
	maxWhen   = 8 << 10  // bytes of a grant's condition
	maxCedar  = 64 << 10 // bytes of a policy document
	maxNested = 100      // brackets within brackets, operators before one value: Cedar's parser is recursive

	// maxPattern bounds a pattern of like, in bytes as it is written: matching takes its
	// length times that of the text, and an agent chooses the text.
	maxPattern = 256
)

const (
	typeAgent    = "Agent"
	typeTool     = "Tool"
	typeClass    = "Class"
	typeResource = "Resource"
)

var actionCall = cedar.NewEntityUID("Action", "call")

// A rule is one Cedar policy, compiled, with what its text names. It is
// immutable and may be shared by grants with the same text.
type rule struct {
	name   string // `policy "no-payouts-at-night", line 1`; empty for a condition
	policy *cedar.Policy
	reads  reads

	principal, resource scope
}

// A scope is one part of a rule's head: any entity, or this one and all below.
type scope struct {
	bound  bool
	entity cedar.EntityUID
}

// A textError is a problem at a line of a Cedar text; line 0 is unknown.
type textError struct {
	line int
	text string
}

func (e *textError) Error() string {
	if e.line > 0 {
		return fmt.Sprintf("line %d: %s", e.line, e.text)
	}
	return e.text
}

func textErrorf(line int, format string, args ...any) *textError {
	return &textError{line, fmt.Sprintf(format, args...)}
}

// compileWhen compiles a grant's condition, which is one expression. It is put
// into a permit; whatever text comes out as anything but exactly that permit
// with exactly that clause is refused, since "true }; permit (…) when { true"
// would be a permit for everything.
func compileWhen(when string) (*rule, *textError) {
	const before = "permit (principal, action, resource) when {\n"
	if strings.TrimSpace(when) == "" {
		return nil, textErrorf(0, "the condition is empty; leave `when` out for a grant without one")
	}
	list, terr := parseCedar(when, before, "\n};", maxWhen)
	if terr != nil {
		return nil, terr
	}
	if len(list) != 1 {
		return nil, textErrorf(0, "the condition is %d policies; it must be one expression", len(list))
	}
	p := (*ast.Policy)(list[0].AST())
	if len(p.Conditions) != 1 || p.Conditions[0].Condition != ast.ConditionWhen {
		return nil, textErrorf(0, "the condition has %d clauses; it must be one expression", len(p.Conditions))
	}
	if list[0].Effect() != cedar.Permit || len(p.Annotations) > 0 ||
		p.Principal != (ast.ScopeTypeAll{}) || p.Action != ast.IsActionScopeNode(ast.ScopeTypeAll{}) || p.Resource != (ast.ScopeTypeAll{}) {
		return nil, textErrorf(0, "the condition changes the grant's head; it must be one expression")
	}
	// What the parser took must be what it would write again.
	var again cedar.PolicyList
	if err := again.UnmarshalCedar(list[0].MarshalCedar()); err != nil || len(again) != 1 ||
		!sameConditions(p, (*ast.Policy)(again[0].AST())) {
		return nil, textErrorf(0, "the condition does not survive being written out again; it must be one expression")
	}
	return newRule("", list[0])
}

func sameConditions(a, b *ast.Policy) bool {
	return len(a.Conditions) == 1 && len(b.Conditions) == 1 &&
		a.Conditions[0].Condition == b.Conditions[0].Condition &&
		ast.Equal(ast.NewNode(a.Conditions[0].Body), ast.NewNode(b.Conditions[0].Body))
}

// compilePolicy compiles a policy document: one forbid or several.
func compilePolicy(name, text string) ([]*rule, []*textError) {
	list, terr := parseCedar(text, "", "", maxCedar)
	if terr != nil {
		return nil, []*textError{terr}
	}
	if len(list) == 0 {
		return nil, []*textError{textErrorf(0, "there is no policy in the text; write forbid (principal, action, resource) when { … };")}
	}
	var rules []*rule
	var errs []*textError
	for _, p := range list {
		line := p.Position().Line
		if p.Effect() != cedar.Forbid {
			errs = append(errs, textErrorf(line, "a policy holds forbid only; permission is given by an agent's grants"))
			continue
		}
		r, terr := newRule(fmt.Sprintf("policy %q, line %d", name, line), p)
		if terr == nil {
			terr = r.bindScope((*ast.Policy)(p.AST()))
		}
		if terr != nil {
			if terr.line == 0 {
				terr.line = line
			}
			errs = append(errs, terr)
			continue
		}
		rules = append(rules, r)
	}
	return rules, errs
}

// parseCedar parses text between before and after. Lines of errors are those of
// text.
func parseCedar(text, before, after string, limit int) (list cedar.PolicyList, terr *textError) {
	if len(text) > limit {
		return nil, textErrorf(0, "the text has %d bytes; the limit is %d", len(text), limit)
	}
	if line := nestedAt(text); line > 0 {
		return nil, textErrorf(line, "brackets, ! or - are nested deeper than %d", maxNested)
	}
	defer func() {
		if p := recover(); p != nil {
			list, terr = nil, textErrorf(0, "the text cannot be compiled: %v", p)
		}
	}()
	if err := list.UnmarshalCedar([]byte(before + text + after)); err != nil {
		return nil, rephrase(err, strings.Count(before, "\n"), strings.Count(strings.TrimRight(text, "\n"), "\n")+1)
	}
	return list, nil
}

// nestedAt returns the line where brackets are nested too deep, or where a
// value has too many of the operators that stand before one, or 0. Those in
// strings and comments count too; nobody needs a hundred of them.
func nestedAt(text string) int {
	depth, before, line := 0, 0, 1
	for i := range len(text) {
		switch text[i] {
		case '(', '[', '{':
			depth++
			before = 0
		case ')', ']', '}':
			depth--
			before = 0
		case '!', '-':
			before++
		case '\n':
			line++
		case ' ', '\t', '\r':
		default:
			before = 0
		}
		if depth > maxNested || before > maxNested {
			return line
		}
	}
	return 0
}

var parserError = regexp.MustCompile(`^(?:parser error: )?parse error at <input>:(\d+):(\d+) ("(?:[^"\\]|\\.)*"): (.*)$`)

// rephrase makes an error of Cedar's parser readable: its position is in our
// frame, not in the operator's text.
func rephrase(err error, above, lines int) *textError {
	m := parserError.FindStringSubmatch(err.Error())
	if m == nil {
		return textErrorf(0, "this is not Cedar: %s", strings.TrimPrefix(err.Error(), "parser error: "))
	}
	line, _ := strconv.Atoi(m[1])
	line -= above
	near, msg := m[3], m[4]
	ended := line > lines || near == `""`
	got, expected, ok := strings.Cut(strings.TrimPrefix(msg, "exact got "), " want ")
	switch {
	case strings.HasPrefix(msg, "`"): // `x` is not a function
		return textErrorf(min(line, lines), "this is not Cedar: %s", msg)
	case ended:
		return textErrorf(lines, "this is not Cedar: the text ends where more is expected")
	case ok:
		msg = fmt.Sprintf("expected %q, found %q", expected, got)
	}
	return textErrorf(line, "this is not Cedar: near %s: %s", near, msg)
}

// newRule finds out what the policy's text names and refuses what could only
// ever err.
func newRule(name string, p *cedar.Policy) (*rule, *textError) {
	r := &rule{name: name, policy: p}
	if terr := r.readConditions((*ast.Policy)(p.AST()), (*reads).add); terr != nil {
		return nil, terr
	}
	return r, nil
}

// readConditions adds what each condition names, as read finds it, and refuses those that
// could only err, and those that whoever is asked about could make slow.
func (r *rule) readConditions(tree *ast.Policy, read func(*reads, ast.IsNode) error) *textError {
	for _, c := range tree.Conditions {
		for _, check := range []func(ast.IsNode) error{
			func(body ast.IsNode) error { return read(&r.reads, body) }, checkCalls, checkPatterns, checkCondition,
		} {
			if err := check(c.Body); err != nil {
				return textErrorf(0, "%v", err)
			}
		}
	}
	return nil
}

// checkCondition refuses a value that is no condition.
func checkCondition(body ast.IsNode) error {
	if v, ok := body.(ast.NodeValue); ok {
		if _, ok := v.Value.(cedar.Boolean); !ok {
			return fmt.Errorf("%s is a value, not a condition", v.Value.MarshalCedar())
		}
	}
	return nil
}

// checkCalls refuses calls of functions whose arguments are constants and wrong:
// decimal("50000") is one, since a decimal has a point.
func checkCalls(body ast.IsNode) (err error) {
	ast.Inspect(ast.NewNode(body), func(n ast.IsNode) bool {
		call, ok := n.(ast.NodeTypeExtensionCall)
		if !ok || err != nil {
			return err == nil
		}
		for _, a := range call.Args {
			if _, ok := a.(ast.NodeValue); !ok {
				return true
			}
		}
		if _, e := eval.Eval(call, eval.Env{Entities: cedar.EntityMap{}}); e != nil {
			err = fmt.Errorf("%s can only err: %w", callText(call), e)
			if call.Name == "decimal" && len(call.Args) == 1 {
				err = fmt.Errorf("%s can only err: a decimal is text with a point and one to four places, such as decimal(\"50000.0\")", callText(call))
			}
		}
		return err == nil
	})
	return err
}

// checkPatterns refuses patterns that an agent could make slow.
func checkPatterns(body ast.IsNode) (err error) {
	ast.Inspect(ast.NewNode(body), func(n ast.IsNode) bool {
		like, ok := n.(ast.NodeTypeLike)
		if ok && err == nil {
			if size := len(like.Value.MarshalCedar()); size > maxPattern {
				err = fmt.Errorf("a pattern of like has %d bytes; the limit is %d", size, maxPattern)
			}
		}
		return err == nil
	})
	return err
}

func callText(call ast.NodeTypeExtensionCall) string {
	args := make([]string, len(call.Args))
	for i, a := range call.Args {
		args[i] = string(a.(ast.NodeValue).Value.MarshalCedar())
	}
	return fmt.Sprintf("%s(%s)", call.Name, strings.Join(args, ", "))
}

var errNever = errors.New("never applies")

// bindScope reads the rule's head for the index. A head that no call can match
// is an error: a forbid that never applies is a mistake that nobody would see.
func (r *rule) bindScope(p *ast.Policy) *textError {
	var err error
	if r.principal, err = readScope(p.Principal, typeAgent); err != nil {
		return textErrorf(0, "the forbid never applies: the principal of a call is an Agent, as in principal == Agent::\"payroll\"")
	}
	if r.resource, err = readScope(p.Resource, typeTool, typeClass, typeResource); err != nil {
		return textErrorf(0, "the forbid never applies: the resource of a call is a Tool, in a Class and in a Resource, as in resource == Tool::\"bank/pay\", resource in Class::\"payout\" or resource in Resource::\"bank\"")
	}
	switch a := p.Action.(type) {
	case ast.ScopeTypeAll:
		return nil
	case ast.ScopeTypeEq:
		if a.Entity == actionCall {
			return nil
		}
	case ast.ScopeTypeIn:
		if a.Entity == actionCall {
			return nil
		}
	case ast.ScopeTypeInSet:
		if slices.Contains(a.Entities, actionCall) {
			return nil
		}
	}
	return textErrorf(0, "the forbid never applies: the only action is Action::\"call\"")
}

// readScope reads one part of the head. The first type is that of the entity
// itself, the others are those of its parents.
func readScope(s ast.IsScopeNode, types ...string) (scope, error) {
	below := func(e cedar.EntityUID) (scope, error) {
		if !slices.Contains(types, string(e.Type)) {
			return scope{}, errNever
		}
		return scope{bound: true, entity: e}, nil
	}
	switch s := s.(type) {
	case ast.ScopeTypeAll:
		return scope{}, nil
	case ast.ScopeTypeEq:
		if string(s.Entity.Type) != types[0] {
			return scope{}, errNever
		}
		return below(s.Entity)
	case ast.ScopeTypeIn:
		return below(s.Entity)
	case ast.ScopeTypeIs:
		if string(s.Type) != types[0] {
			return scope{}, errNever
		}
		return scope{}, nil
	case ast.ScopeTypeIsIn:
		if string(s.Type) != types[0] {
			return scope{}, errNever
		}
		return below(s.Entity)
	}
	return scope{}, errNever
}
