package gateway

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// Headers of MCP over streamable HTTP.
const (
	headerRevision = "Mcp-Protocol-Version"
	headerMethod   = "Mcp-Method"
	headerName     = "Mcp-Name"
	headerParam    = "Mcp-Param-"
	headerSession  = "Mcp-Session-Id"
	headerEvent    = "Last-Event-Id"
)

// The sentinel of MCP 2026-07-28, Streamable HTTP, Value Encoding.
const (
	encodedPrefix = "=?base64?"
	encodedSuffix = "?="
)

func mismatch(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.HeaderMismatch, format, args...)
}

// unsupported is UnsupportedProtocolVersionError (MCP 2026-07-28, Versioning).
func unsupported(requested string, supported []string) error {
	return &framing{
		refusal: counterfoil.Refuse(counterfoil.RequestMalformed, "revision %.32q is not spoken here, but %s", requested, strings.Join(supported, ", ")),
		rpc:     counterfoil.RPCUnsupportedVersion,
		data:    map[string]any{"supported": supported, "requested": shorten(requested, 32)},
	}
}

// headerValue returns the value of a header that may be there once.
func headerValue(h http.Header, name string) (value string, there bool, err error) {
	switch v := h[name]; len(v) {
	case 0:
		return "", false, nil
	case 1:
		return v[0], true, nil
	}
	return "", true, mismatch("the header %s is there twice", name)
}

// era finds out in which revision a message speaks, or refuses. open is
// the session that the request belongs to, if any.
func (m *message) era(h http.Header, open *session) (string, error) {
	stated, there, err := headerValue(h, headerRevision)
	if err != nil {
		return "", err
	}
	if !there {
		switch {
		case m.revision != "":
			return "", mismatch("the header MCP-Protocol-Version is missing; the body says %.32q", m.revision)
		case m.name == "initialize":
			// MCP 2025-11-25, Lifecycle: the revision is negotiated in the body,
			// the header comes with the requests after it.
			return revision20251125, nil
		case open != nil:
			// MCP 2025-11-25, Transports, Protocol Version Header: what was
			// negotiated identifies the revision when the header is absent.
			return open.Revision, nil
		}
		return "", mismatch("the header MCP-Protocol-Version is missing")
	}
	if eraOf(stated) == 0 {
		return "", unsupported(stated, supportedRevisions)
	}
	if m.revision != "" && m.revision != stated {
		return "", mismatch("the header MCP-Protocol-Version says %s, the body %.32q", stated, m.revision)
	}
	if open != nil && eraOf(stated) == sessions && stated != open.Revision {
		return "", mismatch("the header MCP-Protocol-Version says %s, the session was opened with %s", stated, open.Revision)
	}
	return stated, nil
}

// checkHeaders compares the headers that mirror the body with the body, which
// alone decides (MCP 2026-07-28, Streamable HTTP, Server Validation).
func (m *message) checkHeaders(h http.Header) error {
	if m.kind == answer {
		return malformed("in 2026-07-28 a client sends requests and notifications, not answers")
	}
	method, there, err := headerValue(h, headerMethod)
	if err != nil {
		return err
	}
	// The revision defines no headers for notifications: what is there must be
	// true, but nothing has to be there.
	if !there && m.kind == request {
		return mismatch("the header Mcp-Method is missing")
	}
	if there && method != m.name {
		return mismatch("the header Mcp-Method says %.64q, the body %.64q", method, m.name)
	}
	if m.kind == notification {
		return nil
	}
	if m.method.named != "" {
		raw, there, err := headerValue(h, headerName)
		if err != nil {
			return err
		}
		if !there {
			return mismatch("the header Mcp-Name is missing")
		}
		if name, ok := decodeHeader(raw); !ok || name != m.target() {
			return mismatch("the header Mcp-Name says %.64q, the body %.64q", raw, m.target())
		}
	}
	if m.revision == "" {
		return invalidParams("_meta member %s is missing", metaVersion)
	}
	if find(m.meta, metaCapabilities) == nil {
		return invalidParams("_meta member %s is missing", metaCapabilities)
	}
	return nil
}

// decodeHeader returns the value that a mirroring header stands for, and
// whether it is well formed.
func decodeHeader(raw string) (string, bool) {
	encoded, ok := strings.CutPrefix(raw, encodedPrefix)
	if ok {
		encoded, ok = strings.CutSuffix(encoded, encodedSuffix)
	}
	if !ok {
		return raw, isPlain(raw)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	return string(b), err == nil && !strings.ContainsAny(encoded, "\r\n") // which Go's decoder passes over
}

// encodeHeader returns a value as a mirroring header holds it.
func encodeHeader(value string) string {
	sentinel := strings.HasPrefix(value, encodedPrefix) && strings.HasSuffix(value, encodedSuffix)
	if isPlain(value) && !sentinel && strings.Trim(value, " \t") == value {
		return value
	}
	return encodedPrefix + base64.StdEncoding.EncodeToString([]byte(value)) + encodedSuffix
}

// isPlain reports whether a value can be a header as it is: visible ASCII,
// space and tab.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 0x20 && c != '\t') || c > 0x7e {
			return false
		}
	}
	return true
}

// checkMirrors compares the headers that mirror arguments with the arguments.
func (c *mcpCall) checkMirrors(def *seen) error {
	for i := range def.mirrors {
		p := &def.mirrors[i]
		want, wanted := p.value(c.payload)
		raw, there, err := headerValue(c.r.Header, http.CanonicalHeaderKey(p.header))
		switch {
		case err != nil:
			return err
		case wanted && !there:
			return mismatch("the header %s is missing", p.header)
		case !wanted && there:
			return mismatch("the header %s mirrors an argument that is absent", p.header)
		case !wanted:
		default:
			if got, ok := decodeHeader(raw); !ok || got != want && !sameNumber(got, want) {
				return mismatch("the header %s says another value than the body", p.header)
			}
		}
	}
	return nil
}
