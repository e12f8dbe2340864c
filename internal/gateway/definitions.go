package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/custody"
)

const (
	maxPages = 64      // of a list of tools
	maxTools = 8 << 10 // of one upstream
	maxList  = 8 << 20 // bytes of one page
)

// A Definition is what an upstream says a tool is: the whole object out of its
// list, description and annotations included, because all of it is read by
// somebody who decides.
type Definition struct {
	Digest string // "sha-256:" and base64url of SHA-256 over JSON
	JSON   []byte // canonical (RFC 8785)

	output  bool        // it has an outputSchema
	mirrors []param     // arguments that headers mirror
	input   *inputShape // what its arguments must be
}

// Unusable says why the arguments of calls cannot be checked, or is empty.
// Calls are then refused where the arguments decide, and where a person does.
func (d *Definition) Unusable() string {
	if _, err := d.input.read(); err != nil {
		return err.Error()
	}
	return ""
}

// A param is an argument that the header Mcp-Param-Name mirrors (MCP
// 2026-07-28, Streamable HTTP, Custom Headers from Tool Parameters).
type param struct {
	header string
	path   []string // names as canonical JSON writes them
}

// readDefinition reads one element of a list of tools. A definition that is
// not I-JSON has no digest that everybody would compute alike, so it cannot be
// pinned and is as good as absent.
func readDefinition(raw []byte) (name string, d Definition, err error) {
	canonical, err := ijson.Canonical(raw)
	if err != nil {
		return "", d, fmt.Errorf("reading a tool's definition: %w", err)
	}
	members := split(canonical)
	name, ok := text(find(members, "name"))
	if !ok {
		return "", d, errors.New("reading a tool's definition: it has no name")
	}
	if err := counterfoil.CheckToolName(name); err != nil {
		return "", d, fmt.Errorf("reading a tool's definition: %w", err)
	}
	sum := sha256.Sum256(canonical)
	d = Definition{
		Digest:  "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:]),
		JSON:    canonical,
		output:  find(members, "outputSchema") != nil,
		mirrors: mirrored(nil, nil, find(members, "inputSchema")),
		input:   &inputShape{text: bytes.Clone(find(members, "inputSchema"))},
	}
	return name, d, nil
}

// mirrored collects the properties with x-mcp-header. Only what is reached
// through properties alone counts.
func mirrored(out []param, path []string, schema []byte) []param {
	if len(path) > ijson.MaxDepth {
		return out
	}
	for _, p := range split(find(split(schema), "properties")) {
		at := append(path[:len(path):len(path)], p.name)
		if header, ok := text(find(split(p.value), "x-mcp-header")); ok && isToken(header) {
			out = append(out, param{headerParam + header, at})
		}
		out = mirrored(out, at, p.value)
	}
	return out
}

// isToken reports whether s can be part of a header's name (RFC 9110, Section
// 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// value returns the argument as its header says it, and whether there is one.
func (p *param) value(arguments []byte) (string, bool) {
	v := arguments
	for _, name := range p.path {
		if v = find(split(v), name); v == nil {
			return "", false
		}
	}
	switch {
	case v[0] == '"':
		return text(v)
	case isID(v), string(v) == "true", string(v) == "false":
		return string(v), true
	}
	return "", false
}

// Definitions asks an upstream for its tools on the gateway's own behalf, so
// that they can be pinned when a manifest is applied. It speaks the newest
// revision and falls back to a session. It is shown what was released, the zero
// Released where it takes nothing. A nil transport is the gateway's own.
func Definitions(ctx context.Context, transport http.RoundTripper, res *counterfoil.Resource, released custody.Released) (map[string]Definition, error) {
	if transport == nil {
		transport = newTransport()
	}
	p := &peer{transport: transport, timeout: definitionTimeout, resource: res, released: released, struck: new(atomic.Bool)}
	return p.definitions(ctx)
}

// definitions asks for the tools in the newest revision, and in a session of its own
// where the upstream does not speak that.
func (p *peer) definitions(ctx context.Context) (map[string]Definition, error) {
	p.revision = revision20260728
	tools, err := p.tools(ctx)
	var unsent *unsentError
	if err == nil || errors.As(err, &unsent) {
		return tools, err
	}
	p.revision = ""
	if err := p.initialize(ctx); err != nil {
		return nil, err
	}
	tools, err = p.tools(ctx)
	if p.session != "" {
		// Politeness: a session that nobody ends is ended by the upstream.
		if r, err := p.do(ctx, http.MethodDelete, nil, nil); err == nil {
			r.close()
		}
	}
	return tools, err
}

// initialize opens a session (MCP 2025-11-25, Lifecycle).
func (p *peer) initialize(ctx context.Context) error {
	params := `{"capabilities":{},"clientInfo":{"name":"counterfoil","version":"1"},"protocolVersion":"` + revision20251125 + `"}`
	result, header, err := p.request(ctx, "initialize", []byte(params))
	if err != nil {
		return err
	}
	var r struct {
		ProtocolVersion string `json:"protocolVersion"`
	}
	if err := json.Unmarshal(result, &r); err != nil || eraOf(r.ProtocolVersion) != sessions {
		return fmt.Errorf("the upstream speaks revision %.32q", r.ProtocolVersion)
	}
	p.revision = r.ProtocolVersion
	if p.session = header.Get(headerSession); p.session != "" && !isSessionID(p.session) {
		return errors.New("the upstream's session id is not visible ASCII")
	}
	reply, err := p.do(ctx, http.MethodPost, nil, []byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`))
	if err != nil {
		return err
	}
	reply.close()
	return nil
}

// tools fetches the whole list, within one time limit: an upstream that takes
// its time with each page would hold a call for as long as it has pages.
func (p *peer) tools(ctx context.Context) (map[string]Definition, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, errTimeout)
	defer cancel()
	out := make(map[string]Definition)
	cursor := ""
	for range maxPages {
		params := make([]member, 0, 2)
		if eraOf(p.revision) == modern {
			params = append(params, member{"_meta", []byte(`{"` + metaCapabilities + `":{},"` + metaClientInfo + `":{"name":"counterfoil","version":"1"},"` + metaVersion + `":"` + p.revision + `"}`)})
		}
		if cursor != "" {
			params = append(params, member{"cursor", quote(cursor)})
		}
		result, _, err := p.request(ctx, "tools/list", join(params))
		if err != nil {
			return nil, err
		}
		var page struct {
			Tools      []jsontext.Value `json:"tools"`
			NextCursor string           `json:"nextCursor"`
		}
		if err := json.Unmarshal(result, &page); err != nil {
			return nil, fmt.Errorf("reading the list of tools: %w", err)
		}
		for _, raw := range page.Tools {
			if name, d, err := readDefinition(raw); err == nil {
				out[name] = d
			}
		}
		if cursor = page.NextCursor; cursor == "" {
			return out, nil
		}
		if len(out) > maxTools {
			break
		}
	}
	return nil, fmt.Errorf("the upstream's list of tools has no end: %d tools so far", len(out))
}

// request makes a request of the gateway's own and returns its result.
func (p *peer) request(ctx context.Context, name string, params []byte) (jsontext.Value, http.Header, error) {
	id := string(quote(counterfoil.NewID("cf_"))) // the session may be a client's, with ids of its own
	body := []byte(`{"id":` + id + `,"jsonrpc":"2.0","method":` + string(quote(name)) + `,"params":` + string(params) + `}`)
	var header http.Header
	if eraOf(p.revision) == modern {
		header = http.Header{headerMethod: {name}}
	}
	reply, err := p.do(ctx, http.MethodPost, header, body)
	if err != nil {
		return nil, nil, err
	}
	defer reply.close()
	if reply.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("the upstream answered %s with status %s", name, strconv.Itoa(reply.StatusCode))
	}
	m, err := readAnswer(reply, []byte(id))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the upstream's answer to %s: %w", name, err)
	}
	if m.Error != nil {
		return nil, nil, fmt.Errorf("the upstream answered %s with an error", name)
	}
	return m.Result, reply.Header, nil
}

// readAnswer reads the answer to one request, from JSON or from a stream.
func readAnswer(reply *reply, id []byte) (rpcMessage, error) {
	if reply.mediaType() == typeJSON {
		b, err := readAll(reply.Body, maxList)
		if err != nil {
			return rpcMessage{}, err
		}
		m, err := readRPC(b)
		if err == nil && !m.answers(id) {
			err = errNotAnswer
		}
		return m, err
	}
	if reply.mediaType() != typeStream {
		return rpcMessage{}, errNotAnswer
	}
	events := newEventReader(io.LimitReader(reply.Body, maxList), maxList)
	for {
		ev, err := events.next()
		if err != nil {
			return rpcMessage{}, err
		}
		if !ev.isMessage() {
			continue
		}
		m, err := readRPC(ev.data)
		if err != nil || m.answers(id) {
			return m, err
		}
	}
}
