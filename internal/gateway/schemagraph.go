package gateway

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A schemaGraph is a JSON Schema as a document, by the place of each schema in
// it. An upstream writes it, so it may refer to itself without end, and a small
// one may unfold to a very large one: both are found before anything is held
// against it.
type schemaGraph struct {
	nodes   map[string]map[string]any // by JSON Pointer; the root is ""
	weights map[string]int            // of those that are weighed; -1 while they are
	draft7  bool
}

// Keywords whose values are schemas (JSON Schema 2020-12, Core, Section 10, and
// what draft 7 calls otherwise), by what a schema there is about: the value
// itself, or something in it.
var (
	sameOne  = []string{"if", "then", "else"}
	sameList = []string{"allOf", "anyOf", "oneOf"}
	sameMap  = []string{"dependentSchemas", "dependencies"}

	insideOne = []string{
		"additionalItems", "additionalProperties", "contains", "contentSchema", "items", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
	}
	insideList = []string{"items", "prefixItems"}
	insideMap  = []string{"patternProperties", "properties"}

	asideMap = []string{"$defs", "definitions"}

	negated = []string{"not"} // about the value itself, and no part of what it is

	// moving are keywords that change what a reference means.
	moving = []string{"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"}
)

const (
	dialect2020 = "https://json-schema.org/draft/2020-12/schema"
	dialect7    = "http://json-schema.org/draft-07/schema"

	// maxWeight bounds how many schemas one value is held against.
	maxWeight = 1 << 10
)

// readGraph finds every schema of a document. MCP 2026-07-28 (Basic, JSON Schema
// Usage) takes one that names no dialect for one of 2020-12.
func readGraph(root map[string]any) (*schemaGraph, error) {
	g := &schemaGraph{nodes: map[string]map[string]any{}, weights: map[string]int{}}
	if name, named := root["$schema"]; named {
		text, _ := name.(string)
		switch strings.TrimSuffix(text, "#") {
		case dialect2020:
		case dialect7, strings.Replace(dialect7, "http:", "https:", 1):
			g.draft7 = true
		default:
			return nil, fmt.Errorf("its inputSchema is of the dialect %.80q, which is not spoken here", text)
		}
	}
	return g, g.add("", root)
}

func (g *schemaGraph) add(at string, v any) error {
	node, ok := v.(map[string]any)
	if !ok {
		return nil // true and false are schemas, too
	}
	g.nodes[at] = node
	for _, k := range moving {
		if _, has := node[k]; has {
			return fmt.Errorf("its inputSchema has %s, which is not spoken here", k)
		}
	}
	if _, has := node["$id"]; has && at != "" {
		return fmt.Errorf("its inputSchema has $id within, which is not spoken here")
	}
	for _, group := range [][]string{sameOne, negated, insideOne, sameList, insideList, sameMap, insideMap, asideMap} {
		for _, child := range g.children(at, group) {
			if _, known := g.nodes[child.at]; known {
				continue
			}
			if err := g.add(child.at, child.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// A placed value is one of a document, with its place.
type placed struct {
	at    string
	value any
}

// children returns what is under some keywords of a schema: one schema, a list
// of them or named ones.
func (g *schemaGraph) children(at string, keywords []string) []placed {
	var out []placed
	for _, k := range keywords {
		under := at + "/" + k
		switch v := g.nodes[at][k].(type) {
		case map[string]any:
			if !slices.Contains(sameMap, k) && !slices.Contains(insideMap, k) && !slices.Contains(asideMap, k) {
				out = append(out, placed{under, v})
				continue
			}
			for name, schema := range v {
				out = append(out, placed{under + "/" + escapePointer(name), schema})
			}
		case []any:
			for i, schema := range v {
				out = append(out, placed{under + "/" + strconv.Itoa(i), schema})
			}
		}
	}
	return out
}

// escapePointer is RFC 6901, Section 3.
func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// reference returns the place that a schema refers to, if it refers at all.
func (g *schemaGraph) reference(at string) (to string, refers bool, err error) {
	v, refers := g.nodes[at]["$ref"]
	if !refers {
		return "", false, nil
	}
	text, _ := v.(string)
	fragment, local := strings.CutPrefix(text, "#")
	to, err = url.PathUnescape(fragment)
	if _, known := g.nodes[to]; err != nil || !local || !known {
		return "", true, fmt.Errorf("its inputSchema refers to %.80q, which is no schema in it", text)
	}
	return to, true, nil
}

// parts returns the places of the schemas that make up a schema: the same value
// is held against each of them.
func (g *schemaGraph) parts(at string) ([]string, error) {
	var out []string
	for _, group := range [][]string{sameOne, sameList, sameMap} {
		for _, c := range g.children(at, group) {
			if g.nodes[c.at] != nil {
				out = append(out, c.at)
			}
		}
	}
	to, refers, err := g.reference(at)
	if refers && err == nil {
		out = append(out, to)
	}
	return out, err
}

// weigh returns how many schemas one value is held against in all. A value that
// would be held against the same schema again would be so for ever.
func (g *schemaGraph) weigh(at string) (int, error) {
	switch w := g.weights[at]; {
	case w > 0:
		return w, nil
	case w < 0:
		return 0, fmt.Errorf("its inputSchema refers to itself without end at %.80q", "#"+at)
	}
	g.weights[at] = -1
	sum := 1
	same, err := g.parts(at)
	if err != nil {
		return 0, err
	}
	if g.nodes[at+"/not"] != nil {
		same = append(same, at+"/not")
	}
	for _, s := range same {
		w, err := g.weigh(s)
		if err != nil {
			return 0, err
		}
		if sum += w; sum > maxWeight {
			return 0, fmt.Errorf("its inputSchema is too intricate at %.80q", "#"+at)
		}
	}
	g.weights[at] = sum
	return sum, nil
}

// close closes the objects of a schema that list their properties, in the schema
// that stands for a whole value and in what is within. The parts of a composition
// know their own properties alone, so it is what composes them that is closed.
func (g *schemaGraph) close(at string, done map[string]bool) {
	node := g.nodes[at]
	if node == nil || done[at] {
		return
	}
	done[at] = true
	if g.lists(at) {
		if g.draft7 {
			node["additionalProperties"] = false
		} else {
			node["unevaluatedProperties"] = false
		}
	}
	g.closeWithin(at, done, map[string]bool{})
}

func (g *schemaGraph) closeWithin(at string, done, seen map[string]bool) {
	if seen[at] {
		return
	}
	seen[at] = true
	for _, group := range [][]string{insideOne, insideList, insideMap} {
		for _, c := range g.children(at, group) {
			g.close(c.at, done)
		}
	}
	parts, _ := g.parts(at) // weighed before, so there is no error
	for _, p := range parts {
		g.closeWithin(p, done, seen)
	}
}

// lists reports whether a schema says which properties an object has and nothing
// about others, so that others are not meant.
func (g *schemaGraph) lists(at string) bool {
	node := g.nodes[at]
	_, additional := node["additionalProperties"]
	_, unevaluated := node["unevaluatedProperties"]
	if additional || unevaluated {
		return false
	}
	properties, _ := node["properties"].(map[string]any)
	listed := len(properties) > 0
	parts, _ := g.parts(at)
	if g.draft7 {
		// Draft 7 cannot close a composition.
		return listed && len(parts) == 0 && node["patternProperties"] == nil
	}
	for _, p := range parts {
		if g.open(p) {
			return false
		}
		listed = listed || g.lists(p)
	}
	return listed
}

// open reports whether a part of a composition takes any object on purpose.
func (g *schemaGraph) open(at string) bool {
	node := g.nodes[at]
	parts, _ := g.parts(at)
	types, several := node["type"].([]any)
	object := node["type"] == "object" || several && slices.Contains(types, any("object"))
	return object && node["properties"] == nil && node["additionalProperties"] == nil && len(parts) == 0
}
