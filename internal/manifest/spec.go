package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil/ijson"
)

const (
	maxSpec       = 4 << 20 // bytes of one OpenAPI description
	maxOperations = 2000    // of one description
	maxHops       = 32      // references that lead to references
	maxVisits     = 1 << 21 // values that are read of one description, those that are referred to each time
)

// A spec is an OpenAPI description (3.0 or 3.1), as far as it says what may be called
// and with what. References lead to places in it alone: what is elsewhere would be
// fetched, and could be another tomorrow.
type spec struct {
	root *yaml.Node
	old  bool // 3.0, whose schemas are not quite JSON Schema
	left int  // values that may yet be read of it
	defs map[string]*definition

	places map[string]*yaml.Node // where references lead
}

// readSpec reads a description. Nothing of it is checked that nothing depends on.
func readSpec(data []byte) (*spec, error) {
	switch {
	case len(data) > maxSpec:
		return nil, fmt.Errorf("it has %d bytes; the limit is %d", len(data), maxSpec)
	case !utf8.Valid(data):
		return nil, errors.New("it is not UTF-8")
	}
	s := &spec{left: maxVisits, defs: map[string]*definition{}, places: map[string]*yaml.Node{}}
	var err error
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		s.root, err = jsonNodes(data)
	} else {
		s.root, err = yamlNodes(data)
	}
	if err != nil {
		return nil, err
	}
	if err := s.tidy(s.root, 0); err != nil {
		return nil, err
	}
	version := s.text(s.root, "openapi")
	switch {
	case s.get(s.root, "swagger") != nil:
		return nil, errors.New("it is Swagger 2.0; OpenAPI 3.0 and 3.1 are read, and converters are common")
	case strings.HasPrefix(version, "3.0."):
		s.old = true
	case !strings.HasPrefix(version, "3.1."):
		return nil, fmt.Errorf("it says openapi: %.20q; 3.0 and 3.1 are read", version)
	}
	return s, nil
}

func yamlNodes(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := decode(dec, &doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty")
		}
		line, text := yamlError(err)
		return nil, fmt.Errorf("line %d: it is not YAML: %s", line, text)
	}
	if err := decode(dec, &more); !errors.Is(err, io.EOF) {
		return nil, errors.New("it is more than one YAML document")
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("it is empty")
	}
	return doc.Content[0], nil
}

// jsonNodes reads JSON as itself, because YAML reads some of its texts in other ways.
func jsonNodes(data []byte) (*yaml.Node, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	lines := &lineCount{data: data, line: 1}
	n, err := jsonNodeOf(dec, lines, 0)
	if err != nil {
		return nil, fmt.Errorf("line %d: it is not JSON: %w", lines.at(dec.InputOffset()), ijson.Explain(err))
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after its JSON value")
	}
	return n, nil
}

// A lineCount says on which line an offset is, for offsets in their order.
type lineCount struct {
	data []byte
	done int
	line int
}

func (l *lineCount) at(offset int64) int {
	if end := min(int(offset), len(l.data)); end > l.done {
		l.line += bytes.Count(l.data[l.done:end], []byte("\n"))
		l.done = end
	}
	return l.line
}

func jsonNodeOf(dec *jsontext.Decoder, lines *lineCount, depth int) (*yaml.Node, error) {
	if depth > ijson.MaxDepth {
		return nil, errors.New("it is nested too deeply")
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: lines.at(dec.InputOffset())}
	switch kind := tok.Kind(); kind {
	case '{', '[':
		end := jsontext.Kind('}')
		if n.Kind, n.Tag = yaml.MappingNode, "!!map"; kind == '[' {
			n.Kind, n.Tag, end = yaml.SequenceNode, "!!seq", ']'
		}
		for dec.PeekKind() != end {
			v, err := jsonNodeOf(dec, lines, depth+1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, v)
		}
		_, err := dec.ReadToken()
		return n, err
	case '"':
		n.Value = tok.String()
	case '0':
		n.Value, n.Tag = tok.String(), "!!float"
	case 'n':
		n.Value, n.Tag = "null", "!!null"
	default:
		n.Value, n.Tag = tok.String(), "!!bool"
	}
	return n, nil
}

// tidy refuses what would make one text mean another.
func (s *spec) tidy(n *yaml.Node, depth int) error {
	if s.left--; s.left < 0 || depth > ijson.MaxDepth {
		return fmt.Errorf("line %d: there is too much in it, or it is nested too deeply", n.Line)
	}
	if n.Kind == yaml.AliasNode {
		return nil // what it stands for is looked at where it stands
	}
	if n.Kind == yaml.MappingNode {
		have := make(map[string]bool, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			switch {
			case k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge":
				return fmt.Errorf("line %d: a member's name must be plain text", k.Line)
			case have[k.Value]:
				return fmt.Errorf("line %d: member %.80q is there twice", k.Line, k.Value)
			}
			have[k.Value] = true
		}
	}
	for _, c := range n.Content {
		if err := s.tidy(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// spend counts a visit of a value and of what is in it. A text is short, and what its
// references and aliases make of it need not be.
func (s *spec) spend(n *yaml.Node) bool {
	s.left -= 1 + len(n.Content)
	return s.left >= 0
}

// get returns the member of a mapping, or nil.
func (s *spec) get(n *yaml.Node, name string) *yaml.Node {
	n = plainNode(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return plainNode(n.Content[i+1])
		}
	}
	return nil
}

func plainNode(n *yaml.Node) *yaml.Node {
	for hops := 0; n != nil && n.Kind == yaml.AliasNode && hops < maxHops; hops++ {
		n = n.Alias
	}
	return n
}

// text returns a member that is text, or nothing.
func (s *spec) text(n *yaml.Node, name string) string {
	if v := s.get(n, name); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

func (s *spec) flag(n *yaml.Node, name string) bool {
	v := s.get(n, name)
	return v != nil && v.ShortTag() == "!!bool" && strings.EqualFold(v.Value, "true")
}

// A member of a mapping.
type specMember struct {
	name  string
	line  int
	value *yaml.Node
}

// members returns the members of a mapping in their order.
func (s *spec) members(n *yaml.Node) []specMember {
	n = plainNode(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	out := make([]specMember, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		out = append(out, specMember{n.Content[i].Value, n.Content[i].Line, plainNode(n.Content[i+1])})
	}
	return out
}

func (s *spec) items(n *yaml.Node) []*yaml.Node {
	n = plainNode(n)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	out := slices.Clone(n.Content)
	for i := range out {
		out[i] = plainNode(out[i])
	}
	return out
}

// resolve follows a reference to where it leads.
func (s *spec) resolve(ref string) (*yaml.Node, error) {
	pointer, local := strings.CutPrefix(ref, "#/")
	if !local {
		return nil, fmt.Errorf("it refers to %.160q, which is not in the file; bundle the description into one file", ref)
	}
	if n := s.places[ref]; n != nil {
		return n, nil
	}
	n := s.root
	for token := range strings.SplitSeq(pointer, "/") {
		name, err := url.PathUnescape(token)
		if err != nil {
			return nil, fmt.Errorf("it refers to %.160q, which is no pointer", ref)
		}
		name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
		if list := s.items(n); list != nil {
			i, err := strconv.Atoi(name)
			if n = nil; err == nil && i >= 0 && i < len(list) {
				n = list[i]
			}
		} else {
			n = s.get(n, name)
		}
		if n == nil {
			return nil, fmt.Errorf("it refers to %.160q, which is not there", ref)
		}
	}
	s.places[ref] = n
	return n, nil
}

// object returns what a node is or refers to, where references stand in for the whole:
// parameters, bodies, path items.
func (s *spec) object(n *yaml.Node) (*yaml.Node, error) {
	for range maxHops {
		ref := s.text(n, "$ref")
		if ref == "" {
			return n, nil
		}
		next, err := s.resolve(ref)
		if err != nil {
			return nil, err
		}
		n = next
	}
	return nil, errors.New("it refers to what refers to itself")
}
