package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
)

// An operation is one of a description: what may be called, and the class that it
// looks as if it were of.
type operation struct {
	id, method string
	written    string // the path as the description has it
	path       string // as a template
	name       string // of the tool that it would be
	class      string // suggested
	line       int
	node, item *yaml.Node // the operation, and the path that it is at

	variables map[string]string // of the path: the description's name to the template's
	err       error             // why it can be no tool
}

// String returns "GET /customers/{id}".
func (o *operation) String() string { return o.method + " " + o.written }

// operations returns what a description says may be called, in its order.
func (s *spec) operations() ([]*operation, error) {
	var out []*operation
	taken := map[string]bool{}
	for _, p := range s.members(s.get(s.root, "paths")) {
		if !strings.HasPrefix(p.name, "/") {
			continue // an extension
		}
		item, err := s.object(p.value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
		if item != nil && !s.spend(item) {
			return nil, fmt.Errorf("line %d: there is too much in its paths", p.line)
		}
		template, variables, bad := templateOf(p.name)
		for _, m := range s.members(item) {
			method := strings.ToUpper(m.name)
			if !slices.Contains(methods, method) || m.name == method {
				continue
			}
			o := &operation{
				id: s.text(m.value, "operationId"), method: method, written: p.name, path: template,
				line: m.line, node: m.value, item: item, variables: variables, err: bad,
			}
			o.class = suggest(method, o.id, p.name, s.text(m.value, "summary"))
			o.name = nameFor(o, taken)
			taken[o.name] = true
			if out = append(out, o); len(out) > maxOperations {
				return nil, fmt.Errorf("it has more than %d operations", maxOperations)
			}
		}
	}
	return out, nil
}

// templateOf makes a description's path a template of ours, whose variables are whole
// segments.
func templateOf(path string) (template string, variables map[string]string, err error) {
	segments := strings.Split(path, "/")
	variables = map[string]string{}
	for i, seg := range segments {
		if len(seg) < 3 || seg[0] != '{' || strings.IndexByte(seg, '}') != len(seg)-1 {
			continue
		}
		name := strings.NewReplacer("-", "_", ".", "_").Replace(seg[1 : len(seg)-1])
		if name[0] >= '0' && name[0] <= '9' {
			name = "_" + name
		}
		variables[seg[1:len(seg)-1]] = name
		segments[i] = "{" + name + "}"
	}
	template = strings.Join(segments, "/")
	return template, variables, checkPath(template)
}

// nameFor names the tool of an operation: by its operationId, or by method and path.
func nameFor(o *operation, taken map[string]bool) string {
	if o.id != "" {
		if name := cleaned(o.id); !taken[name] {
			return name
		}
	}
	parts := []string{strings.ToLower(o.method)}
	for seg := range strings.SplitSeq(o.written, "/") {
		if seg = strings.Trim(seg, "{}"); seg != "" {
			parts = append(parts, cleaned(seg))
		}
	}
	base := cleaned(strings.Join(parts, "_"))
	name := base
	for i := 2; taken[name]; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	return name
}

// tool returns what an operation says of its tool: schema, media types and headers. Of a
// body that is streamed nothing is known but its type.
func (s *spec) tool(o *operation, stream bool) (counterfoil.Tool, error) {
	t := counterfoil.Tool{Name: o.name, Method: o.method, Path: o.path}
	if o.err != nil {
		return t, o.err
	}
	r := &schemaReader{spec: s}
	args := map[string]any{}
	var required []string
	put := func(part string, properties map[string]any, needed []string) {
		if len(properties) == 0 {
			return
		}
		v := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
		if len(needed) > 0 {
			slices.Sort(needed)
			v["required"] = slices.Compact(needed)
			required = append(required, part)
		}
		args[part] = v
	}
	path, needed := map[string]any{}, []string{}
	for _, name := range o.variables {
		path[name] = map[string]any{"type": "string"}
		needed = append(needed, name)
	}
	put("path", path, needed)
	query, needed, headers, err := r.parameters(o)
	if err != nil {
		return t, err
	}
	put("query", query, needed)
	t.Headers = headers
	body, must, consumes, err := r.body(o)
	switch {
	case err != nil:
		return t, err
	case stream && body != nil:
		body, consumes, r.refs = opaque("content_type"), nil, nil
	}
	t.Consumes = consumes
	if body != nil {
		if args["body"] = body; must {
			required = append(required, "body")
		}
	}
	root := map[string]any{"type": "object", "properties": args, "additionalProperties": false}
	if len(required) > 0 {
		slices.Sort(required)
		root["required"] = required
	}
	t.Schema, err = r.assemble(root)
	return t, err
}

// opaque is the schema of what the arguments say of a body that nobody reads.
func opaque(names ...string) map[string]any {
	properties := map[string]any{}
	for _, name := range names {
		properties[name] = map[string]any{"type": "string"}
	}
	return map[string]any{"type": "object", "properties": properties, "required": names, "additionalProperties": false}
}

// parameters reads what goes into the query and into headers. An operation's own
// parameter stands in for its path's of the same name and place.
func (r *schemaReader) parameters(o *operation) (query map[string]any, needed, headers []string, err error) {
	query = map[string]any{}
	seen := map[string]bool{}
	var all []*yaml.Node
	for _, of := range []*yaml.Node{o.node, o.item} {
		list := r.spec.get(of, "parameters")
		if list != nil && !r.spec.spend(list) { // those of a path count with each of its operations
			return nil, nil, nil, errors.New("there is too much in its parameters")
		}
		all = append(all, r.spec.items(list)...)
	}
	for _, n := range all {
		p, err := r.spec.object(n)
		if err == nil && p != nil && !r.spec.spend(p) {
			err = errors.New("there is too much in its parameters")
		}
		if err != nil {
			return nil, nil, nil, err
		}
		name, in := r.spec.text(p, "name"), r.spec.text(p, "in")
		if seen[in+"\n"+name] {
			continue
		}
		seen[in+"\n"+name] = true
		must := r.spec.flag(p, "required")
		switch in {
		case "query":
			some, err := r.parameter(p, name)
			if err != nil {
				return nil, nil, nil, err
			}
			for of, schema := range some {
				query[of] = schema
			}
			if _, plain := some[name]; plain && must {
				needed = append(needed, name)
			}
		case "header":
			switch known := usual(name) || slices.ContainsFunc(headers, func(h string) bool { return strings.EqualFold(h, name) }); {
			case known:
			case checkForwarded(name) == nil:
				headers = append(headers, name)
			case must:
				return nil, nil, nil, fmt.Errorf("it needs the header %.80q, which is never passed on", name)
			}
		case "cookie":
			if must {
				return nil, nil, nil, fmt.Errorf("it needs the cookie %.80q, and cookies are never passed on", name)
			}
		}
	}
	slices.Sort(headers)
	return query, needed, headers, nil
}

// usual reports whether a header is passed on for every tool, or is said elsewhere:
// OpenAPI, Parameter Object: parameters named Accept, Content-Type and Authorization
// are ignored.
func usual(header string) bool {
	switch low := strings.ToLower(header); low {
	case "accept", "accept-language", "authorization", "content-type", "range", "prefer", "traceparent", "tracestate", "idempotency-key":
		return true
	default:
		return strings.HasPrefix(low, "if-")
	}
}

// body reads what a request carries. What is not JSON is named by its type and its
// digest in the arguments, and that is all that is said of it.
func (r *schemaReader) body(o *operation) (schema any, must bool, consumes []string, err error) {
	if o.method == "GET" || o.method == "HEAD" {
		return nil, false, nil, nil
	}
	n, err := r.spec.object(r.spec.get(o.node, "requestBody"))
	if err != nil || n == nil {
		return nil, false, nil, err
	}
	var alternatives []any
	media := r.spec.get(n, "content")
	if media != nil && !r.spec.spend(media) {
		return nil, false, nil, errors.New("there is too much in its body")
	}
	content := r.spec.members(media)
	for _, m := range content {
		media, _, _ := strings.Cut(strings.ToLower(m.name), ";")
		switch media = strings.TrimSpace(media); {
		case isJSON(media) || media == "*/*" || media == "application/*":
			var v any = true
			if s := r.spec.get(m.value, "schema"); s != nil {
				if v, err = r.schema(s, 0); err != nil {
					return nil, false, nil, err
				}
			}
			alternatives = append(alternatives, v)
		case checkMediaType(media) == nil && !slices.Contains(consumes, media):
			consumes = append(consumes, media)
		}
	}
	slices.Sort(consumes)
	if len(consumes) > 0 {
		alternatives = append(alternatives, opaque("content_digest", "content_type"))
	}
	switch must = r.spec.flag(n, "required"); len(alternatives) {
	case 0:
		if must || len(content) > 0 {
			return nil, false, nil, errors.New("its body is of no media type that can be named")
		}
		return nil, false, nil, nil
	case 1:
		return alternatives[0], must, consumes, nil
	}
	return map[string]any{"anyOf": alternatives}, must, consumes, nil
}
