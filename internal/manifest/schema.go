package manifest

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil/ijson"
)

// maxSchema is how many bytes one tool's schema has at most, in canonical JSON.
const maxSchema = 64 << 10

// schema reads the JSON Schema of a tool's arguments, as a mapping or as JSON text, and
// keeps it in canonical form. What of JSON Schema the gateway speaks is for it to say.
func (d *doc) schema(dst *string) handler {
	return func(n *yaml.Node, at string) {
		var text []byte
		if n.Kind == yaml.MappingNode {
			v, err := jsonOf(n, false)
			if err != nil {
				d.fail(n, at, "%v", err)
				return
			}
			if text, err = json.Marshal(v, json.Deterministic(true)); err != nil {
				d.fail(n, at, "is not a JSON Schema: %v", err)
				return
			}
		} else {
			s, ok := d.scalar(n, at, "a JSON Schema, as a mapping or as JSON text", "!!str")
			if !ok {
				return
			}
			text = []byte(s)
		}
		if len(text) > maxSchema {
			d.fail(n, at, "has %d bytes as JSON; the limit is %d", len(text), maxSchema)
			return
		}
		canonical, err := ijson.Canonical(text)
		if err != nil {
			d.fail(n, at, "is not JSON that is taken here: %v", err)
			return
		}
		if err := checkSchema(canonical); err != nil {
			d.fail(n, at, "%v", err)
			return
		}
		*dst = string(canonical)
	}
}

// checkSchema takes a schema of an HTTP call's arguments: an object with members path,
// query and body. One that was written for the body alone would refuse every call.
func checkSchema(text []byte) error {
	if len(text) > maxSchema {
		return fmt.Errorf("has %d bytes as JSON; the limit is %d", len(text), maxSchema)
	}
	m, err := ijson.Members(text)
	if err != nil {
		return fmt.Errorf("is not a JSON Schema that is an object")
	}
	properties, has := m["properties"]
	if !has {
		return nil
	}
	names, err := ijson.Members(properties)
	if err != nil {
		return fmt.Errorf("has properties that are no object")
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !slices.Contains(argumentParts, name) {
			return fmt.Errorf("has the property %.80q; the arguments of an http tool are path, query and body, and what is in them is below these", name)
		}
	}
	return nil
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// maxValues bounds what one conversion visits: with aliases a short text can be a long
// value.
const maxValues = 1 << 17

// jsonOf returns the JSON value that a YAML node is. The lax reading is for files that
// others wrote: it follows aliases, and takes numbers in YAML's other forms.
func jsonOf(n *yaml.Node, lax bool) (any, error) {
	left := maxValues
	return convert(n, lax, 0, &left)
}

// json is a value of the description, which counts as far as it is read.
func (s *spec) json(n *yaml.Node) (any, error) {
	most := max(min(maxValues, s.left), 0)
	left := most
	v, err := convert(n, true, 0, &left)
	s.left -= most - left
	return v, err
}

func convert(n *yaml.Node, lax bool, depth int, left *int) (any, error) {
	if *left--; *left < 0 || depth > ijson.MaxDepth {
		return nil, fmt.Errorf("line %d: there is too much in it, or it is nested too deeply", n.Line)
	}
	switch {
	case n.Kind == yaml.AliasNode && lax && n.Alias != nil:
		return convert(n.Alias, lax, depth+1, left)
	case n.Kind == yaml.AliasNode || n.Anchor != "" && !lax:
		return nil, fmt.Errorf("line %d: anchors and aliases are not taken; write the value out", n.Line)
	case n.Style&yaml.TaggedStyle != 0:
		return nil, fmt.Errorf("line %d: the tag %.40s is not taken; write the plain value", n.Line, n.Tag)
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				return nil, fmt.Errorf("line %d: a member's name must be plain text", k.Line)
			}
			if _, twice := m[k.Value]; twice {
				return nil, fmt.Errorf("line %d: member %.80q is there twice", k.Line, k.Value)
			}
			v, err := convert(n.Content[i+1], lax, depth+1, left)
			if err != nil {
				return nil, err
			}
			m[k.Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			v, err := convert(e, lax, depth+1, left)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		return scalarOf(n, lax)
	}
	return nil, fmt.Errorf("line %d: there is no value", n.Line)
}

func scalarOf(n *yaml.Node, lax bool) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int", "!!float":
		if jsonNumber.MatchString(n.Value) {
			return jsontext.Value(n.Value), nil
		}
		var f float64
		if err := n.Decode(&f); err == nil && lax && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f, nil
		}
		return nil, fmt.Errorf("line %d: %.40s is no number of JSON", n.Line, n.Value)
	}
	return n.Value, nil
}

// jsonNode writes a JSON value as YAML: a mapping where it can be read again, in the
// quoted form the text itself.
func (w *writer) jsonNode(text string) *yaml.Node {
	if text == "" {
		return nil
	}
	if w.quoted {
		return w.quote(text)
	}
	dec := jsontext.NewDecoder(strings.NewReader(text))
	n, err := w.decoded(dec, 0)
	if err != nil || n.Kind != yaml.MappingNode {
		return w.quote(text)
	}
	return n
}

// decoded writes the parts of a schema (path, query, body) on a line each.
func (w *writer) decoded(dec *jsontext.Decoder, depth int) (*yaml.Node, error) {
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case '{':
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if depth > 1 {
			n.Style = yaml.FlowStyle
		}
		for dec.PeekKind() != '}' {
			// Names and values come in turn.
			for range 2 {
				v, err := w.decoded(dec, depth+1)
				if err != nil {
					return nil, err
				}
				n.Content = append(n.Content, v)
			}
		}
		_, err := dec.ReadToken()
		return n, err
	case '[':
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for dec.PeekKind() != ']' {
			v, err := w.decoded(dec, depth+1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, v)
		}
		_, err := dec.ReadToken()
		return n, err
	case '"':
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: tok.String()}, nil
	case 't', 'f':
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(tok.Bool())}, nil
	case 'n':
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	}
	tag := "!!int"
	if strings.ContainsAny(tok.String(), ".eE") {
		tag = "!!float"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: tok.String()}, nil
}
