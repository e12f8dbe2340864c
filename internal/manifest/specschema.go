package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil/ijson"
)

// How a keyword's value holds schemas. What is none of these and not a value says
// nothing of an argument's kind and names, and is left out: a description that is worded
// anew is no other tool.
var (
	schemaIn    = []string{"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems"}
	schemaLists = []string{"allOf", "anyOf", "oneOf", "prefixItems"}
	schemaMaps  = []string{"properties", "patternProperties", "dependentSchemas"}
	values      = []string{"type", "required", "enum", "const"}
)

// A definition is a schema that a description has at one place, made one of JSON Schema.
type definition struct {
	name string         // below $defs
	text jsontext.Value // nil while it is read
	refs []string       // places of the definitions that it refers to
	err  error
}

// A schemaReader makes schemas of one operation.
type schemaReader struct {
	spec *spec
	refs []string
}

// schema makes a description's schema one of JSON Schema 2020-12, of which only kinds,
// names and their places are kept.
func (r *schemaReader) schema(n *yaml.Node, depth int) (any, error) {
	n = plainNode(n)
	if n == nil {
		return nil, errors.New("there is no schema where one belongs")
	}
	if !r.spec.spend(n) || depth > ijson.MaxDepth/2 {
		return nil, fmt.Errorf("line %d: there is too much in it, or it is nested too deeply", n.Line)
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		return strings.EqualFold(n.Value, "true"), nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: there is no schema where one belongs", n.Line)
	}
	out := map[string]any{}
	if ref := r.spec.text(n, "$ref"); ref != "" {
		to, err := r.reference(ref)
		if err != nil {
			return nil, err
		}
		if out["$ref"] = to; r.spec.old {
			return out, nil // OpenAPI 3.0.3, Reference Object: what stands beside it is ignored
		}
	}
	for _, m := range r.spec.members(n) {
		if err := r.keyword(out, m, depth); err != nil {
			return nil, err
		}
	}
	if t, ok := out["type"].(string); ok && r.spec.old && r.spec.flag(n, "nullable") {
		out["type"] = []any{t, "null"}
	}
	return out, nil
}

func (r *schemaReader) keyword(out map[string]any, m specMember, depth int) (err error) {
	switch {
	case slices.Contains(values, m.name):
		if out[m.name], err = r.spec.json(m.value); err == nil && m.name == "type" {
			err = checkTypes(out[m.name])
		}
	case slices.Contains(schemaIn, m.name):
		out[m.name], err = r.schema(m.value, depth+1)
	case slices.Contains(schemaLists, m.name):
		list := []any{}
		for _, e := range r.spec.items(m.value) {
			v, err := r.schema(e, depth+1)
			if err != nil {
				return err
			}
			list = append(list, v)
		}
		if len(list) > 0 {
			out[m.name] = list
		}
	case slices.Contains(schemaMaps, m.name):
		all := map[string]any{}
		for _, p := range r.spec.members(m.value) {
			if all[p.name], err = r.schema(p.value, depth+1); err != nil {
				return err
			}
		}
		out[m.name] = all
	}
	return err
}

var jsonTypes = []string{"null", "boolean", "object", "array", "number", "integer", "string"}

func checkTypes(v any) error {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, t := range list {
		if name, _ := t.(string); !slices.Contains(jsonTypes, name) {
			return fmt.Errorf("its schema has the type %.40q, which JSON Schema does not have", fmt.Sprint(t))
		}
	}
	return nil
}

// reference returns where a reference leads in the tool's own schema.
func (r *schemaReader) reference(ref string) (string, error) {
	// A schema that is nothing but a reference stands for what it refers to, or for
	// nothing at all where that goes round.
	for range maxHops {
		n, err := r.spec.resolve(ref)
		if err != nil {
			return "", err
		}
		next := r.spec.text(n, "$ref")
		if next == "" || !r.spec.old && r.saysMore(n) {
			d := r.spec.define(ref)
			r.refs = append(r.refs, ref)
			return "#/$defs/" + d.name, nil
		}
		ref = next
	}
	return "", fmt.Errorf("%.160q refers to what refers to itself", ref)
}

func (r *schemaReader) saysMore(n *yaml.Node) bool {
	return slices.ContainsFunc(r.spec.members(n), func(m specMember) bool {
		return slices.Contains(slices.Concat(values, schemaIn, schemaLists, schemaMaps), m.name)
	})
}

// define gives the schema at a place its name, which depends on the place alone: one
// more operation that is listed does not change the schemas of the others.
func (s *spec) define(ref string) *definition {
	if d := s.defs[ref]; d != nil {
		return d
	}
	name, component := strings.CutPrefix(ref, "#/components/schemas/")
	if !component || name != cleaned(name) {
		sum := sha256.Sum256([]byte(ref))
		name = cleaned(ref[strings.LastIndexByte(ref, '/')+1:]) + "-" + hex.EncodeToString(sum[:4])
	}
	d := &definition{name: name}
	s.defs[ref] = d
	return d
}

// cleaned returns text in the alphabet of tools' names, at most 100 bytes of it.
func cleaned(s string) string {
	out := []byte(s[:min(len(s), 100)])
	for i, c := range out {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.':
		default:
			out[i] = '_'
		}
	}
	return string(out)
}

// defined returns the definition at a place, read once.
func (s *spec) defined(ref string) *definition {
	d := s.define(ref)
	if d.text != nil || d.err != nil {
		return d
	}
	n, err := s.resolve(ref)
	r := &schemaReader{spec: s}
	var v any
	if err == nil {
		v, err = r.schema(n, 0)
	}
	if err == nil {
		d.text, err = json.Marshal(v, json.Deterministic(true))
	}
	d.refs, d.err = r.refs, err
	return d
}

// assemble writes a tool's schema with every definition that it leads to.
func (r *schemaReader) assemble(root map[string]any) (string, error) {
	defs, size := map[string]any{}, 0
	for todo := slices.Clone(r.refs); len(todo) > 0; {
		ref := todo[0]
		todo = todo[1:]
		d := r.spec.defined(ref)
		if d.err != nil {
			return "", d.err
		}
		if _, done := defs[d.name]; done {
			continue
		}
		defs[d.name] = d.text
		if size += len(d.text); size > maxSchema {
			return "", fmt.Errorf("its schema has more than %d bytes", maxSchema)
		}
		todo = append(todo, d.refs...)
	}
	if len(defs) > 0 {
		root["$defs"] = defs
	}
	b, err := json.Marshal(root, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("writing its schema: %w", err)
	}
	b, err = ijson.Canonical(b)
	if err != nil {
		return "", fmt.Errorf("its schema is not JSON that is taken here: %w", err)
	}
	return string(b), checkSchema(b)
}

// parameter returns the schemas of a parameter in a query, by the names that it has
// there. Whatever the description says of its type, it is text as it is sent; a list is
// one that repeats its name.
func (r *schemaReader) parameter(p *yaml.Node, name string) (map[string]any, error) {
	text := map[string]any{"type": "string"}
	schema, err := r.spec.object(r.spec.get(p, "schema"))
	if err != nil {
		return nil, err
	}
	if schema == nil {
		return map[string]any{name: text}, nil // it has content, which is one text
	}
	style := r.spec.text(p, "style")
	explode := style == "" || style == "form"
	if r.spec.get(p, "explode") != nil {
		explode = r.spec.flag(p, "explode")
	}
	switch kind := r.kindOf(schema, 0); {
	case kind == "array" && explode && (style == "" || style == "form"):
		return map[string]any{name: map[string]any{"type": "array", "items": text}}, nil
	case kind == "object" && (style == "deepObject" || explode && (style == "" || style == "form")):
		all := map[string]any{}
		for _, m := range r.spec.members(r.spec.get(schema, "properties")) {
			of := m.name
			if style == "deepObject" {
				of = name + "[" + m.name + "]"
			}
			all[of] = text
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("its parameter %.80q is an object whose members it does not name", name)
		}
		return all, nil
	}
	return map[string]any{name: text}, nil
}

// kindOf says whether a schema is of a list or of an object, as far as it says so.
func (r *schemaReader) kindOf(n *yaml.Node, depth int) string {
	n, err := r.spec.object(n)
	if err != nil || n == nil || depth > maxHops || !r.spec.spend(n) {
		return ""
	}
	if t := r.spec.get(n, "type"); t != nil {
		if t.Kind == yaml.ScalarNode {
			return t.Value
		}
		for _, e := range r.spec.items(t) {
			if e.Value == "array" || e.Value == "object" {
				return e.Value
			}
		}
		return ""
	}
	for _, k := range []string{"allOf", "anyOf", "oneOf"} {
		for _, e := range r.spec.items(r.spec.get(n, k)) {
			if kind := r.kindOf(e, depth+1); kind == "array" || kind == "object" {
				return kind
			}
		}
	}
	return ""
}
