package agent

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil/ijson"
)

// firstStateless is the first revision of MCP without sessions and with the
// headers that mirror the body. Revisions are dates and sort as text.
const firstStateless = "2026-07-28"

// A message is one JSON-RPC message of the local client: its bytes, which go
// out as they came, and what the transport must know of it.
type message struct {
	raw      []byte
	id       jsontext.Value // of a call; nil for a notification or a response
	method   string         // empty for a response
	revision string         // that the message itself names, in _meta
	name     string         // what Mcp-Name mirrors; empty when nothing
	args     jsontext.Value // of tools/call
	refersTo jsontext.Value // the call that notifications/cancelled is about
	progress jsontext.Value // the progress token; nil when the caller wants no progress
}

// parseMessage reads one message under the same strict rules as the gateway, so
// that what is refused there is refused here with a clear word.
func parseMessage(raw []byte) (message, error) {
	if strings.HasPrefix(string(raw), "[") {
		return message{}, errors.New("batches are not taken; send one message a line")
	}
	members, err := ijson.Members(raw)
	if err != nil {
		return message{}, err
	}
	m := message{raw: raw}
	if id, ok := members["id"]; ok {
		if k := id.Kind(); k != '"' && k != '0' {
			return message{}, errors.New("id must be a string or a number")
		}
		m.id = id
	}
	method, ok := members["method"]
	if !ok {
		_, result := members["result"]
		_, failed := members["error"]
		if m.id == nil || !result && !failed {
			return message{}, errors.New("it is neither a request nor a response")
		}
		m.id = nil
		return m, nil
	}
	if m.method = text(method); m.method == "" {
		return message{}, errors.New("method must be a string")
	}
	params := map[string]jsontext.Value{}
	if p, ok := members["params"]; ok && p.Kind() == '{' {
		if params, err = ijson.Members(p); err != nil {
			return message{}, err
		}
	}
	if meta, ok := params["_meta"]; ok && meta.Kind() == '{' {
		metas, err := ijson.Members(meta)
		if err != nil {
			return message{}, err
		}
		m.revision = text(metas["io.modelcontextprotocol/protocolVersion"])
		if token := metas["progressToken"]; token.Kind() == '"' || token.Kind() == '0' {
			m.progress = token
		}
	}
	switch {
	case m.method == "tools/call":
		m.name, m.args = text(params["name"]), params["arguments"]
	case m.method == "prompts/get":
		m.name = text(params["name"])
	case m.method == "resources/read":
		m.name = text(params["uri"])
	case strings.HasPrefix(m.method, "tasks/"):
		m.name = text(params["taskId"])
	case m.method == "notifications/cancelled":
		m.refersTo = params["requestId"]
	}
	return m, nil
}

// isCall reports whether an answer is due.
func (m *message) isCall() bool { return m.id != nil }

// text returns the string that v is, and nothing for any other value.
func text(v jsontext.Value) string {
	var s string
	if v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// key makes ids comparable: the same string may be escaped in two ways.
func key(id jsontext.Value) string {
	if id.Kind() == '"' {
		return `"` + text(id)
	}
	return string(id)
}

// setHeaders sets the headers that MCP's streamable HTTP asks for.
func (m *message) setHeaders(h http.Header, revision, session string) {
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "application/json, text/event-stream")
	if revision != "" {
		h.Set("Mcp-Protocol-Version", revision)
	}
	if revision < firstStateless {
		if session != "" {
			h.Set("Mcp-Session-Id", session)
		}
		return
	}
	// MCP 2026-07-28, Streamable HTTP, Standard Request Headers.
	if m.method != "" {
		h.Set("Mcp-Method", m.method)
	}
	if m.name != "" {
		h.Set("Mcp-Name", headerValue(m.name))
	}
}

// headerValue writes a text so that it survives as a header: as it is when it
// is plain ASCII without outer blanks, otherwise as =?base64?…?=.
func headerValue(s string) string {
	const before, after = "=?base64?", "?="
	plain := strings.Trim(s, " ") == s && !(strings.HasPrefix(s, before) && strings.HasSuffix(s, after))
	for i := range len(s) {
		plain = plain && s[i] >= 0x20 && s[i] <= 0x7e
	}
	if plain {
		return s
	}
	return before + base64.StdEncoding.EncodeToString([]byte(s)) + after
}

// A reply is what is read of a message from the server. It passes through
// whatever it holds; a server is not held to the rules for what is authorised.
type reply struct {
	ID     jsontext.Value `json:"id"`
	Method jsontext.Value `json:"method"`
	Error  jsontext.Value `json:"error"`
	Result jsontext.Value `json:"result"`
}

func parseReply(b []byte) (reply, error) {
	var r reply
	err := json.Unmarshal(b, &r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return r, err
}

// answers reports whether r is the response to the call.
func (r *reply) answers(m *message) bool {
	return r.Method == nil && (r.Result != nil || r.Error != nil) && m.isCall() && key(r.ID) == key(m.id)
}
