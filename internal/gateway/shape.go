package gateway

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
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
// Where a schema offers alternatives, the names of all of them are taken. That
// makes the check linear in the arguments, whatever an upstream wrote: to hold a
// value against each alternative, and each of its members again, takes time beyond
// measure, which is why no validator is used here (docs/decisions/0008).
type shape struct {
	kinds kinds // the zero kinds is any
	never bool  // the schema false
	free  bool  // an object without a word about its members is meant to have any

	names    map[string]*shape // nil where no properties are listed
	patterns []namePattern
	others   *shape // members that are not listed; nil where nothing is said of them
	prefix   []*shape
	items    []*shape // of what is behind prefix, together

	parts        []*shape   // what the same value must, or on a condition must, meet as well
	conditional  []*shape   // those of parts that count on a condition
	alternatives [][]*shape // one of each
}

type namePattern struct {
	name  *regexp.Regexp // nil matches every name
	size  int            // of its text
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

const (
	maxShapes = 1 << 14 // of one schema
	maxSteps  = 1 << 20 // of one check
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
	root   any
	shapes map[string]*shape
}

// moved are keywords that change what a reference means.
var moved = []string{"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"}

func (r *shapeReader) read(at string, v any) (*shape, error) {
	if s := r.shapes[at]; s != nil {
		return s, nil
	}
	if len(r.shapes) >= maxShapes {
		return nil, fmt.Errorf("its inputSchema has more than %d schemas", maxShapes)
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
	s.free = saysNothing(m)
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

// saysNothing reports whether a schema says no more than of which kind a value is.
func saysNothing(m map[string]any) bool {
	for k := range m {
		switch k {
		case "type", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment":
		default:
			return false
		}
	}
	return true
}

func (r *shapeReader) kinds(s *shape, at string, m map[string]any) error {
	v, has := m["type"]
	if !has {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
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
		p := namePattern{size: len(pattern)}
		if p.shape, err = r.read(at+"/patternProperties/"+escapePointer(pattern), v); err != nil {
			return err
		}
		// One that is not RE2 names what we cannot tell: the schema says that
		// there are such members, so they are taken.
		p.name, _ = regexp.Compile(pattern)
		s.patterns = append(s.patterns, p)
	}
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
	for _, k := range []string{"items", "additionalItems", "unevaluatedItems", "contains"} {
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
		if err == nil {
			s.parts = append(s.parts, p)
			if conditional {
				s.conditional = append(s.conditional, p)
			}
		}
		return err
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

// check refuses arguments, canonical, that are of another shape.
func (s *shape) check(tool string, arguments []byte) error {
	var v any
	if err := json.Unmarshal(arguments, &v); err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments are not one strict JSON value")
	}
	c := shapeCheck{steps: maxSteps}
	at, why := c.value(v, []*shape{s})
	switch {
	case why == "":
		return nil
	case at == "":
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments of %s are not what its inputSchema takes: %s", tool, why)
	}
	return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments of %s are not what its inputSchema takes: at %.200q %s", tool, at, why)
}

// A shapeCheck is one check on its way. Its steps bound what an agent and an
// upstream together can make it do.
type shapeCheck struct{ steps int }

const tooIntricate = "there are too many values for so intricate a schema"

// value returns where a value is of none of the shapes, as a JSON Pointer, and
// why; why is empty where it is of one of them.
func (c *shapeCheck) value(v any, shapes []*shape) (at, why string) {
	kind := kindOf(v)
	if !slices.ContainsFunc(shapes, func(s *shape) bool { return c.takes(s, kind, 0) }) {
		if c.steps <= 0 {
			return "", tooIntricate
		}
		return "", "there is a value of another kind"
	}
	switch v := v.(type) {
	case map[string]any:
		return c.object(v, c.whole(shapes))
	case []any:
		return c.array(v, c.whole(shapes))
	}
	return "", ""
}

// maxParts bounds how deep the parts of a schema are followed for a kind.
const maxParts = 64

// takes reports whether a shape takes values of a kind.
func (c *shapeCheck) takes(s *shape, kind kinds, depth int) bool {
	if c.steps--; c.steps <= 0 || s.never || s.kinds != 0 && s.kinds&kind == 0 {
		return false
	}
	if depth > maxParts {
		return true // it refers to itself; it said all that it has to say
	}
	for _, p := range s.parts {
		if !slices.Contains(s.conditional, p) && !c.takes(p, kind, depth+1) {
			return false
		}
	}
	for _, group := range s.alternatives {
		if !slices.ContainsFunc(group, func(p *shape) bool { return c.takes(p, kind, depth+1) }) {
			return false
		}
	}
	return true
}

// A whole is everything that shapes say of one value together.
type whole struct {
	shapes []*shape
	open   bool // one of the alternatives takes an object with any members
}

// whole follows the parts and the alternatives of shapes, each once.
func (c *shapeCheck) whole(shapes []*shape) whole {
	w := whole{shapes: make([]*shape, 0, 8)}
	seen := map[*shape]bool{}
	var add func(s *shape, alternative bool)
	add = func(s *shape, alternative bool) {
		if c.steps--; c.steps <= 0 {
			return
		}
		w.open = w.open || alternative && s.free && !s.never && (s.kinds == 0 || s.kinds&kindObject != 0)
		if seen[s] {
			return
		}
		seen[s] = true
		w.shapes = append(w.shapes, s)
		for _, p := range s.parts {
			add(p, false)
		}
		for _, group := range s.alternatives {
			for _, p := range group {
				add(p, true)
			}
		}
	}
	for _, s := range shapes {
		add(s, len(shapes) > 1)
	}
	return w
}

// object holds the members of an object against what is listed.
func (c *shapeCheck) object(members map[string]any, w whole) (at, why string) {
	listed := false
	for _, s := range w.shapes {
		listed = listed || s.names != nil || s.patterns != nil || s.others != nil
		w.open = w.open || s.others != nil && !s.others.never
	}
	for name, v := range members {
		under, found := c.member(name, w.shapes)
		switch {
		case c.steps <= 0:
			return "", tooIntricate
		case !found && listed && !w.open:
			return "/" + escapePointer(name), "there is a member that it does not have"
		case !found:
			continue
		}
		if at, why := c.value(v, under); why != "" {
			return "/" + escapePointer(name) + at, why
		}
	}
	return "", ""
}

// member returns what the shapes say of a member, and whether they say anything.
func (c *shapeCheck) member(name string, shapes []*shape) (under []*shape, found bool) {
	for _, s := range shapes {
		c.steps--
		listed := s.names[name]
		if listed != nil {
			under = append(under, listed)
		}
		for _, p := range s.patterns {
			// RE2 takes time in proportion to both.
			if c.steps -= 1 + len(name)*p.size/64; c.steps <= 0 {
				return nil, false
			}
			if p.name == nil || p.name.MatchString(name) {
				under, listed = append(under, p.shape), p.shape
			}
		}
		if listed == nil && s.others != nil && !s.others.never {
			under = append(under, s.others)
		}
	}
	return under, len(under) > 0
}

func (c *shapeCheck) array(elements []any, w whole) (at, why string) {
	for i, v := range elements {
		var under []*shape
		for _, s := range w.shapes {
			if c.steps--; i < len(s.prefix) {
				under = append(under, s.prefix[i])
			} else {
				under = append(under, s.items...)
			}
		}
		switch {
		case c.steps <= 0:
			return "", tooIntricate
		case len(under) == 0:
			continue
		}
		if at, why := c.value(v, under); why != "" {
			return "/" + strconv.Itoa(i) + at, why
		}
	}
	return "", ""
}
