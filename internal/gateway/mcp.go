package gateway

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// A kind is what a JSON-RPC message is.
type kind uint8

const (
	request kind = iota + 1
	notification
	answer // of a client, to a request of the server; with sessions only
)

// maxName bounds tool and prompt names and resource URIs. They become a header
// of the forwarded request.
const maxName = 8 << 10

// A message is what a client sent, taken apart. Every part is canonical JSON
// that passed ijson.Check; what its method does not know is not in it.
type message struct {
	kind   kind
	id     []byte // a string or an integer; nil in a notification
	name   string // of the method
	method *method

	params    []member // in canonical order, without _meta
	meta      []member // of _meta, what goes on
	hasParams bool
	hasMeta   bool
	revision  string // what _meta says; empty when it says nothing
	words     string // the agent's own, see metaReason
	tasks     bool   // the client takes a task for a result
	elicits   bool   // the client sends its user to a URL

	outcome member // of an answer: result or error
}

// A framing error is a refusal that concerns the framing of MCP: it is answered
// in HTTP and in JSON-RPC at once.
type framing struct {
	refusal *counterfoil.Refusal
	rpc     int // the JSON-RPC code; the table's when zero
	data    any
}

// framed says that a refusal concerns the framing of MCP.
func framed(err error) error {
	r, ok := counterfoil.AsRefusal(err)
	if f := (*framing)(nil); !ok || errors.As(err, &f) {
		return err
	}
	return &framing{refusal: r}
}

func (f *framing) Error() string { return f.refusal.Error() }
func (f *framing) Unwrap() error { return f.refusal }

func malformed(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.PayloadMalformed, format, args...)
}

// invalidParams is what MCP 2026-07-28 (Overview, Per-request protocol fields)
// wants where _meta lacks a required member.
func invalidParams(format string, args ...any) error {
	return &framing{counterfoil.Refuse(counterfoil.PayloadMalformed, format, args...), counterfoil.RPCInvalidParams, nil}
}

func unknownMethod(name string) error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no method %.64q here", name)
}

// readMessage reads one JSON-RPC message. Beside an error it returns what it
// had read by then, so that the answer can carry the id and the record the
// method.
func readMessage(body []byte) (message, error) {
	var m message
	text, err := ijson.Canonical(body)
	if err != nil {
		return m, malformed("%v", err)
	}
	switch text[0] {
	case '{':
	case '[':
		// MCP 2025-06-18 took batches out of the protocol, and a batch would
		// hide the second message behind the first one's decision.
		return m, malformed("one JSON-RPC message a request: arrays of messages are not taken")
	default:
		return m, malformed("a JSON-RPC message is an object")
	}
	envelope := split(text)
	if err := m.readEnvelope(envelope); err != nil {
		return m, err
	}
	if m.kind == answer {
		return m, nil
	}
	m.method = methods[m.name]
	if m.method == nil {
		return m, unknownMethod(m.name)
	}
	if m.method.notification != (m.kind == notification) {
		if m.kind == notification {
			return m, malformed("method %s is a request: send an id", m.name)
		}
		return m, malformed("method %s is a notification: send no id", m.name)
	}
	return m, m.readParams(find(envelope, "params"))
}

func (m *message) readEnvelope(envelope []member) error {
	if v := find(envelope, "id"); v != nil {
		if !isID(v) {
			return malformed("id must be a string or an integer")
		}
		m.id = v
	}
	for _, e := range envelope {
		switch e.name {
		case "jsonrpc":
			if string(e.value) != `"2.0"` {
				return malformed(`jsonrpc must be "2.0"`)
			}
		case "method":
			name, ok := text(e.value)
			if !ok {
				return malformed("method must be a string")
			}
			m.name = name
		case "params":
			if e.value[0] != '{' {
				return malformed("params must be an object")
			}
		case "result", "error":
			if m.outcome.name != "" {
				return malformed("an answer has a result or an error, not both")
			}
			m.outcome = e
		case "id":
		default:
			return malformed("member %.64q is not one of a JSON-RPC message", e.name)
		}
	}
	hasMethod, hasParams := find(envelope, "method") != nil, find(envelope, "params") != nil
	switch {
	case find(envelope, "jsonrpc") == nil:
		return malformed(`jsonrpc must be "2.0"`)
	case m.outcome.name != "":
		if hasMethod || hasParams || m.id == nil || m.outcome.value[0] != '{' {
			return malformed("an answer has an id and one object, result or error, and nothing else")
		}
		m.kind = answer
	case !hasMethod:
		return malformed("method is missing")
	case m.id == nil:
		m.kind = notification
	default:
		m.kind = request
	}
	return nil
}

// readParams keeps the members that the method knows and refuses the others.
func (m *message) readParams(params []byte) error {
	m.hasParams = params != nil
	for _, p := range split(params) {
		if p.name == "_meta" {
			if err := m.readMeta(p.value); err != nil {
				return err
			}
			continue
		}
		want, known := m.method.params[p.name]
		if !known {
			return malformed("params of %s have no member %.64q", m.name, p.name)
		}
		if !isKind(p.value, want) {
			return malformed("params member %s of %s is of another type", p.name, m.name)
		}
		m.params = append(m.params, p)
	}
	if m.method.needs != "" && find(m.params, m.method.needs) == nil {
		return malformed("params of %s need %s", m.name, m.method.needs)
	}
	if m.method.named != "" && len(find(m.params, m.method.named)) > maxName {
		return malformed("params member %s is longer than %d bytes", m.method.named, maxName)
	}
	return nil
}

func (m *message) readMeta(meta []byte) error {
	if meta[0] != '{' {
		return malformed("_meta must be an object")
	}
	m.hasMeta = true
	for _, e := range split(meta) {
		if e.name == metaReason {
			words, ok := text(e.value)
			if !ok || len(words) > counterfoil.MaxWords {
				return malformed("_meta member %s is a string of at most %d bytes", metaReason, counterfoil.MaxWords)
			}
			m.words = words
			continue
		}
		want, known := metaKinds[e.name]
		switch {
		case !known:
			continue
		case !isKind(e.value, want):
			return invalidParams("_meta member %s is of another type", e.name)
		case e.name == metaProgress && !isID(e.value):
			return malformed("progressToken must be a string or an integer")
		case e.name == metaVersion:
			m.revision, _ = text(e.value)
		case e.name == metaCapabilities:
			capabilities := split(e.value)
			m.tasks = declares(find(capabilities, "extensions"), extensionTasks)
			m.elicits = declares(find(capabilities, "elicitation"), "url")
			e.value = keep(e.value, clientCapabilities)
		}
		m.meta = append(m.meta, e)
	}
	return nil
}

// declares reports whether an object of capabilities has one of that name.
func declares(capabilities []byte, name string) bool {
	v := find(split(capabilities), name)
	return len(v) > 0 && v[0] == '{'
}

// target is the value that Mcp-Name mirrors: the name of a tool or prompt, or a
// resource's URI. Empty for other methods.
func (m *message) target() string {
	if m.method == nil || m.method.named == "" {
		return ""
	}
	s, _ := text(find(m.params, m.method.named))
	return s
}

// arguments is what is decided on and recorded: the arguments of a tool, the
// URI of a resource, name and arguments of a prompt. nil when nothing is.
func (m *message) arguments() []byte {
	if m.method == nil {
		return nil
	}
	switch m.method.tool {
	case theNamedTool:
		if args := find(m.params, "arguments"); args != nil {
			return args
		}
		return emptyObject
	case counterfoil.ToolResources:
		return uriArguments(find(m.params, "uri"))
	case counterfoil.ToolPrompts:
		args := find(m.params, "arguments")
		if args == nil {
			args = emptyObject
		}
		return join([]member{{"arguments", args}, {"name", find(m.params, "name")}})
	}
	return nil
}

func uriArguments(uri []byte) []byte { return join([]member{{"uri", uri}}) }

// encode writes the message that is forwarded: canonical JSON, from the known
// members alone. Of a strict call only what was decided on goes on: name or
// URI and arguments, and of _meta what the protocol itself needs.
func (m *message) encode(era era, strict bool) []byte {
	out := append(make([]byte, 0, 256), '{')
	if m.kind == answer && m.outcome.name == "error" {
		out = appendMember(out, m.outcome.name, m.outcome.value)
	}
	if m.id != nil {
		out = appendMember(out, "id", m.id)
	}
	out = appendMember(out, "jsonrpc", []byte(`"2.0"`))
	if m.kind == answer {
		if m.outcome.name == "result" {
			out = appendMember(out, m.outcome.name, m.outcome.value)
		}
		return append(out, '}')
	}
	out = appendMember(out, "method", quote(m.name))
	params := m.forwarded(era, strict)
	if len(params) > 0 || m.hasParams {
		out = appendMember(out, "params", join(params))
	}
	return append(out, '}')
}

func (m *message) forwarded(era era, strict bool) []member {
	params := make([]member, 0, len(m.params)+1)
	if meta := m.forwardedMeta(era, strict); len(meta) > 0 {
		params = append(params, member{"_meta", join(meta)}) // '_' sorts before every lower-case letter
	}
	for _, p := range m.params {
		switch {
		case m.name == "initialize" && p.name == "capabilities":
			p.value = keep(p.value, clientCapabilities)
		case strict && (p.name == inputResponses || p.name == requestState):
			continue
		}
		params = append(params, p)
	}
	return params
}

func (m *message) forwardedMeta(era era, strict bool) []member {
	meta := make([]member, 0, len(m.meta))
	for _, e := range m.meta {
		switch {
		case e.name == metaProgress && strict:
		case e.name == metaProgress, era == modern:
			meta = append(meta, e)
		}
	}
	return meta
}

// keep returns the object with the named members alone.
func keep(object []byte, names map[string]bool) []byte {
	members := split(object)
	kept := members[:0]
	for _, m := range members {
		if names[m.name] {
			kept = append(kept, m)
		}
	}
	return join(kept)
}

func isKind(value []byte, want byte) bool {
	switch want {
	case '*':
		return true
	case '0':
		return value[0] == '-' || '0' <= value[0] && value[0] <= '9'
	}
	return value[0] == want
}

// isID reports whether a canonical value can be a JSON-RPC id or a progress
// token (MCP 2026-07-28, Overview, Requests): a string or an integer.
func isID(value []byte) bool {
	if value[0] == '"' {
		return true
	}
	digits := bytes.TrimPrefix(value, []byte("-"))
	return len(digits) > 0 && len(bytes.Trim(digits, "0123456789")) == 0
}

// text returns the string that a JSON string stands for.
func text(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), true
	}
	b, err := jsontext.AppendUnquote(nil, value)
	return string(b), err == nil
}

// quote returns a string as JSON. What is not UTF-8 becomes U+FFFD.
func quote(s string) []byte {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		return []byte(`""`)
	}
	return b
}

// shorten cuts a string of somebody else's to n bytes for the record.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + "…"
}
