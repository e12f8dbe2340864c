package agent

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil/ijson"
)

// maxMirrored bounds how many tools with mirrored arguments are remembered.
const maxMirrored = 8 << 10

// A mirror is an argument of a tool that the header Mcp-Param-… must repeat
// (MCP 2026-07-28, Streamable HTTP, Custom Headers from Tool Parameters). A
// client over stdio knows no headers, so they are made here, from the
// definitions that it was listed.
type mirror struct {
	header string
	path   []string // names of properties, from the arguments down
}

// learn takes the mirrors out of the result of tools/list. A definition that
// cannot be read teaches nothing; the server then says what is missing.
func (b *bridge) learn(result jsontext.Value) {
	var list struct {
		Tools []struct {
			Name   string         `json:"name"`
			Schema jsontext.Value `json:"inputSchema"`
		} `json:"tools"`
	}
	if json.Unmarshal(result, &list) != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, tool := range list.Tools {
		found := mirrorsOf(nil, nil, tool.Schema)
		if len(found) == 0 {
			delete(b.mirrors, tool.Name)
		} else if len(b.mirrors) < maxMirrored {
			b.mirrors[tool.Name] = found
		}
	}
}

// mirrorsOf collects the properties with x-mcp-header that are reached through
// properties alone.
func mirrorsOf(found []mirror, path []string, schema jsontext.Value) []mirror {
	if schema.Kind() != '{' || len(path) > ijson.MaxDepth {
		return found // "true" is a schema as well
	}
	var s struct {
		Header     jsontext.Value            `json:"x-mcp-header"`
		Properties map[string]jsontext.Value `json:"properties"`
	}
	if json.Unmarshal(schema, &s) != nil {
		return found
	}
	if name := text(s.Header); name != "" && len(path) > 0 {
		if token, rest := cutToken(name); token == name && rest == "" {
			found = append(found, mirror{paramPrefix + name, path})
		}
	}
	for name, below := range s.Properties {
		found = mirrorsOf(found, append(path[:len(path):len(path)], name), below)
	}
	return found
}

// setMirrors sets the headers that repeat arguments.
func setMirrors(h http.Header, mirrors []mirror, arguments jsontext.Value) {
	for _, m := range mirrors {
		if v, ok := m.value(arguments); ok {
			h.Set(m.header, headerValue(v))
		}
	}
}

// value returns the argument as a header says it. Only strings, booleans and
// integers are said; an argument that is absent or null has no header.
func (m *mirror) value(v jsontext.Value) (string, bool) {
	for _, name := range m.path {
		if v.Kind() != '{' {
			return "", false
		}
		members, err := ijson.Members(v)
		if err != nil {
			return "", false
		}
		v = members[name]
	}
	switch v.Kind() {
	case '"':
		return text(v), true
	case 't', 'f':
		return string(v), true
	case '0':
		n, err := ijson.Number(string(v))
		return n, err == nil && !strings.ContainsAny(n, ".e")
	}
	return "", false
}
