package gateway

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// A shape is what a tool's inputSchema says of one value: its kind, and the names
// of its members. It is JSON Schema read for one purpose, that no rule over
// `amount` is passed by writing the amount under a name that the rule, and whoever
// wrote it, has never heard of: an object whose members are listed has no others,
// unless the schema itself says what others there may be. Whether the values are
// good is the upstream's to say.
//
// Where a schema offers alternatives, the names of all of them are taken, and
// none is tried: to hold a value against each alternative, and each of its members
// again, takes time beyond measure, which is why no validator is used here
// (docs/decisions/0008). What must hold in any case is held to: its kinds, its
// closed objects, its limits on names.
type shape struct {
	kinds kinds // the zero kinds is any
	never bool  // the schema false
	free  bool  // it says no more than a kind: an object of it is meant to have any members
	bare  bool  // it says no more than a reference

	names    map[string]*shape // nil where no properties are listed
	patterns []namePattern
	others   *shape          // members that are not listed; nil where nothing is said of them
	sealed   bool            // of its own word it has no members but those that it lists
	allowed  map[string]bool // names that members may have; nil where all may
	prefix   []*shape
	items    []*shape // of what is behind prefix, together

	parts        []*shape   // what the same value must meet as well
	conditional  []*shape   // what it must meet as well on a condition
	alternatives [][]*shape // what it must meet one of, of each group
}

type namePattern struct {
	name  *regexp.Regexp
	size  int // of what the expression compiles to
	shape *shape
}

// kinds is a set of the kinds of JSON values.
type kinds uint8

const (
	kindNull kinds = 1 << iota
	kindBoolean
	kindString
	kindInteger
	kindFraction
	kindArray
	kindObject
)

var kindsByName = map[string]kinds{
	"null": kindNull, "boolean": kindBoolean, "string": kindString, "integer": kindInteger,
	"number": kindInteger | kindFraction, "array": kindArray, "object": kindObject,
}

// kindOf returns the kind of a value as json.Unmarshal makes it.
func kindOf(v any) kinds {
	switch v := v.(type) {
	case nil:
		return kindNull
	case bool:
		return kindBoolean
	case string:
		return kindString
	case float64:
		if v == math.Trunc(v) {
			return kindInteger
		}
		return kindFraction
	case []any:
		return kindArray
	}
	return kindObject
}

// Bounds on one schema, which an upstream writes, and on one check, whose arguments
// an agent does.
const (
	maxShapes      = 1 << 12
	maxPlace       = 1 << 10 // bytes of a schema's place
	maxPatterns    = 32
	maxPattern     = 128     // bytes
	maxMatchedName = 1 << 10 // bytes of a member's name, where there are patterns
	maxParts       = 256     // deep in one another
	maxSteps       = 1 << 20
)

// readShape reads an inputSchema, canonical. An error says why arguments cannot be
// held against it, for an operator.
func readShape(text []byte) (*shape, error) {
	var root any
	if err := json.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("its definition has no inputSchema")
	}
	if _, ok := root.(map[string]any); !ok {
		return nil, fmt.Errorf("its inputSchema is not an object")
	}
	r := &shapeReader{root: root, shapes: map[string]*shape{}}
	return r.read("", root)
}

// A shapeReader reads the schemas of one document, each once, by its place in it:
// a JSON Pointer (RFC 6901).
type shapeReader struct {
	root     any
	shapes   map[string]*shape
	patterns int
}

// moved are keywords that change what a reference means.
var moved = []string{"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"}

func (r *shapeReader) read(at string, v any) (*shape, error) {
	if s := r.shapes[at]; s != nil {
		return s, nil
	}
	switch {
	case len(r.shapes) >= maxShapes:
		return nil, fmt.Errorf("its inputSchema has more than %d schemas", maxShapes)
	case len(at) > maxPlace:
		return nil, fmt.Errorf("its inputSchema has a schema at %.200q, which is too long a place", "#"+at)
	}
	s := &shape{}
	r.shapes[at] = s // before what is in it, which may refer to it
	if b, ok := v.(bool); ok {
		s.never, s.free = !b, b
		return s, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("its inputSchema has no schema at %.200q", "#"+at)
	}
	for _, k := range moved {
		if _, has := m[k]; has {
			return nil, fmt.Errorf("its inputSchema has %s, which is not spoken here", k)
		}
	}
	if _, has := m["$id"]; has && at != "" {
		return nil, fmt.Errorf("its inputSchema has $id within, which is not spoken here")
	}
	if err := wellFormed(at, m); err != nil {
		return nil, err
	}
	for _, read := range []func(*shape, string, map[string]any) error{r.kinds, r.members, r.elements, r.composition} {
		if err := read(s, at, m); err != nil {
			return nil, err
		}
	}
	s.free, s.bare = saysNoMore(m, "type"), saysNoMore(m, "$ref")
	return s, nil
}

// wellFormed refuses keywords whose value is none that they can have: two readers
// would take them for different things.
func wellFormed(at string, m map[string]any) error {
	for k, v := range m {
		ok := true
		switch k {
		case "properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions":
			_, ok = v.(map[string]any)
		case "allOf", "anyOf", "oneOf", "prefixItems":
			list, is := v.([]any)
			ok = is && len(list) > 0
		}
		if !ok {
			return fmt.Errorf("its inputSchema has a %s that is none at %.200q", k, "#"+at)
		}
	}
	return nil
}

// saysNoMore reports whether a schema has no keyword but one, and annotations.
func saysNoMore(m map[string]any, keyword string) bool {
	for k := range m {
		switch k {
		case keyword, "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment":
		default:
			return false
		}
	}
	return true
}

func (r *shapeReader) kinds(s *shape, at string, m map[string]any) error {
	v, has := m["type"]
	if !has {
		values, _ := m["enum"].([]any)
		if v, has := m["const"]; has {
			values = append(values, v)
		}
		for _, v := range values {
			s.kinds |= kindOf(v)
		}
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) == 0 {
		return fmt.Errorf("its inputSchema has no type in a list of types at %.200q", "#"+at)
	}
	for _, name := range list {
		text, _ := name.(string)
		k := kindsByName[text]
		if k == 0 {
			return fmt.Errorf("its inputSchema has an unknown type at %.200q", "#"+at)
		}
		s.kinds |= k
	}
	return nil
}

func (r *shapeReader) members(s *shape, at string, m map[string]any) (err error) {
	if properties, ok := m["properties"].(map[string]any); ok {
		s.names = make(map[string]*shape, len(properties))
		for name, v := range properties {
			if s.names[name], err = r.read(at+"/properties/"+escapePointer(name), v); err != nil {
				return err
			}
		}
	}
	patterns, _ := m["patternProperties"].(map[string]any)
	for pattern, v := range patterns {
		p, err := r.pattern(pattern)
		if err != nil {
			return err
		}
		if p.shape, err = r.read(at+"/patternProperties/"+escapePointer(pattern), v); err != nil {
			return err
		}
		s.patterns = append(s.patterns, p)
	}
	if names, ok := m["propertyNames"].(map[string]any); ok {
		list, _ := names["enum"].([]any)
		if v, has := names["const"]; has {
			list = append(list, v)
		}
		for _, v := range list {
			if s.allowed == nil {
				s.allowed = map[string]bool{}
			}
			if name, ok := v.(string); ok {
				s.allowed[name] = true
			}
		}
	}
	s.sealed = m["additionalProperties"] == false
	// additionalProperties has the last word: it leaves nothing unevaluated.
	for _, k := range []string{"unevaluatedProperties", "additionalProperties"} {
		if v, has := m[k]; has {
			if s.others, err = r.read(at+"/"+k, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// pattern compiles the expression of names. One that is not RE2 says what we
// cannot tell.
func (r *shapeReader) pattern(text string) (p namePattern, err error) {
	if r.patterns++; r.patterns > maxPatterns || len(text) > maxPattern {
		return p, fmt.Errorf("its inputSchema has more than %d patternProperties, or one longer than %d bytes", maxPatterns, maxPattern)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err == nil {
		var program *syntax.Prog
		if program, err = syntax.Compile(tree.Simplify()); err == nil {
			p.size = len(program.Inst)
			p.name, err = regexp.Compile(text)
		}
	}
	if err != nil {
		return p, fmt.Errorf("its inputSchema has a pattern of names, %.100q, that is not RE2", text)
	}
	return p, nil
}

func (r *shapeReader) elements(s *shape, at string, m map[string]any) (err error) {
	for _, k := range []string{"prefixItems", "items"} {
		list, _ := m[k].([]any)
		for i, v := range list {
			e, err := r.read(at+"/"+k+"/"+strconv.Itoa(i), v)
			if err != nil {
				return err
			}
			s.prefix = append(s.prefix, e)
		}
	}
	// contains is about some of the elements and bounds none.
	for _, k := range []string{"items", "additionalItems", "unevaluatedItems"} {
		v, has := m[k]
		if _, list := v.([]any); !has || list {
			continue
		}
		e, err := r.read(at+"/"+k, v)
		if err != nil {
			return err
		}
		s.items = append(s.items, e)
	}
	return nil
}

func (r *shapeReader) composition(s *shape, at string, m map[string]any) error {
	add := func(at string, v any, conditional bool) error {
		p, err := r.read(at, v)
		switch {
		case err != nil:
			return err
		case conditional:
			s.conditional = append(s.conditional, p)
		default:
			s.parts = append(s.parts, p)
		}
		return nil
	}
	if v, has := m["$ref"]; has {
		to, target, err := r.follow(v)
		if err == nil {
			err = add(to, target, false)
		}
		if err != nil {
			return err
		}
	}
	for _, k := range []string{"if", "then", "else"} {
		if v, has := m[k]; has {
			if err := add(at+"/"+k, v, true); err != nil {
				return err
			}
		}
	}
	for _, k := range []string{"dependentSchemas", "dependencies"} {
		group, _ := m[k].(map[string]any)
		for name, v := range group {
			if _, names := v.([]any); names {
				continue // of draft 7: the members that must be there too
			}
			if err := add(at+"/"+k+"/"+escapePointer(name), v, true); err != nil {
				return err
			}
		}
	}
	for _, k := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := m[k].([]any)
		var group []*shape
		for i, v := range list {
			e, err := r.read(at+"/"+k+"/"+strconv.Itoa(i), v)
			if err != nil {
				return err
			}
			group = append(group, e)
		}
		if k == "allOf" {
			s.parts = append(s.parts, group...)
		} else if group != nil {
			s.alternatives = append(s.alternatives, group)
		}
	}
	return nil
}

// follow returns the place that a reference means, and what is there. Nothing is
// ever fetched.
func (r *shapeReader) follow(ref any) (at string, v any, err error) {
	text, _ := ref.(string)
	fragment, local := strings.CutPrefix(text, "#")
	at, err = url.PathUnescape(fragment)
	if !local || err != nil || at != "" && at[0] != '/' {
		return "", nil, fmt.Errorf("its inputSchema refers to %.200q, which is not in it", text)
	}
	v = r.root
	for _, step := range strings.Split(at, "/")[1:] {
		name := strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) || strconv.Itoa(i) != name {
				return "", nil, fmt.Errorf("its inputSchema refers to %.200q, which is not in it", text)
			}
			v = in[i]
		default:
			v = nil
		}
		if v == nil {
			return "", nil, fmt.Errorf("its inputSchema refers to %.200q, which is not in it", text)
		}
	}
	return at, v, nil
}

// escapePointer is RFC 6901, Section 3.
func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// An inputShape is the shape of a definition's inputSchema, read when it is first
// needed: most tools are never held against it. Safe for concurrent use.
type inputShape struct {
	text []byte // canonical, of its own; nil when the definition has none, and once it is read
	once sync.Once
	root *shape
	err  error
}

// read reports why arguments cannot be held against the schema, if they cannot.
func (i *inputShape) read() (*shape, error) {
	i.once.Do(func() {
		i.root, i.err = readShape(i.text)
		i.text = nil
	})
	return i.root, i.err
}

// check refuses arguments that the schema does not take, and all arguments where
// there is no schema that can be used.
func (i *inputShape) check(tool string, arguments []byte) error {
	s, err := i.read()
	if err != nil {
		return counterfoil.Refuse(counterfoil.PolicyForbids, "the arguments of %s decide whether it may be called, and cannot be checked: %v", tool, err)
	}
	return s.check(tool, arguments)
}
