package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// maxPath bounds the path of a request below its resource, in bytes.
const maxPath = 4 << 10

// A webPath is a path below a resource, as it was sent, that two servers read alike:
// nothing in it can be taken for a border between segments, for a step up, or for the
// path's end, and nothing is escaped that need not be.
type webPath struct {
	raw      string   // begins with a slash
	sent     []string // segments as they were sent; the last is empty where the path ends in a slash
	segments []string // the same, decoded
}

func notCanonical(why string) error {
	return counterfoil.Refuse(counterfoil.RequestMalformed, "the path is not canonical: %s", why)
}

// parsePath reads a path. Whatever two readers could take for different paths is
// refused, not repaired.
func parsePath(raw string) (webPath, error) {
	p := webPath{raw: raw}
	switch {
	case raw == "" || raw[0] != '/':
		return p, notCanonical("it does not begin with a slash")
	case len(raw) > maxPath:
		return p, notCanonical("it is too long")
	}
	p.sent = strings.Split(raw[1:], "/")
	p.segments = make([]string, len(p.sent))
	for i, s := range p.sent {
		if s == "" {
			if i == len(p.sent)-1 {
				break // whether a path may end so is for its tool to say
			}
			return p, notCanonical("it has an empty segment")
		}
		decoded, err := decodeSegment(s)
		if err != nil {
			return p, err
		}
		p.segments[i] = decoded
	}
	return p, nil
}

// decodeSegment decodes what RFC 3986, Section 3.3, calls a segment.
func decodeSegment(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '%' {
			if !isUnreserved(c) && strings.IndexByte("!$&'()*+,=:@", c) < 0 {
				return "", notCanonical("it has a character that has to be escaped, or must not be there")
			}
			b = append(b, c)
			continue
		}
		if i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
			return "", notCanonical("an escape is % and two hexadecimal digits in upper case")
		}
		c = unhex(s[i+1])<<4 | unhex(s[i+2])
		switch {
		case isUnreserved(c):
			return "", notCanonical("a letter, a digit or one of -._~ is escaped")
		case c < 0x20 || c == 0x7f || strings.IndexByte(`/\%;?#`, c) >= 0:
			return "", notCanonical("it has an escaped character that some servers take for another part of the URL")
		}
		b = append(b, c)
		i += 2
	}
	out := string(b)
	switch {
	case !utf8.ValidString(out):
		return "", notCanonical("it is not UTF-8")
	case strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", notCanonical("it has a character that cannot be seen")
	case out != "" && (out[0] == ' ' || out[len(out)-1] == ' ' || out[len(out)-1] == '.'):
		return "", notCanonical("a segment begins or ends with a space, or ends with a dot")
	}
	return out, nil
}

// isUnreserved is RFC 3986, Section 2.3.
func isUnreserved(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func isUpperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }

// unhex is of a hexadecimal digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return (c | 0x20 - 'a') + 10
}

// A webTool is a tool of an HTTP resource as requests are matched with it.
type webTool struct {
	counterfoil.Tool
	digest   string
	segments []webSegment
	shape    *inputShape // nil where there is no schema
	consumes map[string]bool
	headers  []string // canonical names
	parts    bool     // a request may ask for a part of the answer
}

// A webSegment is one of a template: a text, or a variable for one segment that is not
// empty. A template that ends in a slash has an empty text last.
type webSegment struct {
	text     string
	sent     string // text as a path holds it
	stem     string // text up to what servers take for a format or an action
	variable string

	// pieces are the texts, folded, of a segment that has variables within. Only tools
	// without a class have one.
	pieces []string
}

// escapeSegment escapes what a segment cannot hold as it is, and nothing else.
func escapeSegment(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if isUnreserved(s[i]) || strings.IndexByte("!$&'()*+,=:@", s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			escapeQuery(&b, s[i:i+1])
		}
	}
	return b.String()
}

// A webTable is the tools of one resource.
type webTable struct {
	resource *counterfoil.Resource
	tools    []webTool
	unlisted []webTool // without a class: nobody calls them, under no other name either
}

// table returns the tools of a resource as they are declared now.
func (g *Gateway) table(res *counterfoil.Resource) *webTable {
	if t, ok := g.tables.Load(res.Name); ok && t.(*webTable).resource == res {
		return t.(*webTable)
	}
	t := &webTable{resource: res}
	for i := range res.Tools {
		tool := &res.Tools[i]
		switch {
		case !strings.HasPrefix(tool.Path, "/"):
		case tool.Class == "":
			t.unlisted = append(t.unlisted, newWebTool(tool, false))
		default:
			t.tools = append(t.tools, newWebTool(tool, res.Credential == nil))
		}
	}
	g.tables.Store(res.Name, t)
	return t
}

func newWebTool(t *counterfoil.Tool, parts bool) webTool {
	out := webTool{Tool: *t, digest: webDigest(t), consumes: map[string]bool{}, parts: parts}
	for s := range strings.SplitSeq(t.Path[1:], "/") {
		out.segments = append(out.segments, newWebSegment(s, t.Class == ""))
	}
	if t.Schema != "" {
		out.shape = &inputShape{text: []byte(t.Schema)}
	}
	for _, c := range t.Consumes {
		out.consumes[strings.ToLower(c)] = true
	}
	for _, h := range t.Headers {
		if h = http.CanonicalHeaderKey(h); isToken(h) && counterfoil.MayForward(h) && (parts || !asksForParts(h)) {
			out.headers = append(out.headers, h)
		}
	}
	return out
}

// webDigest is the digest of what an operator declared of a tool that is a request over
// HTTP: what people approve is a call of that, and of nothing that was declared since.
func webDigest(t *counterfoil.Tool) string {
	b := []byte{'{'}
	if len(t.Consumes) > 0 {
		if list, err := ijson.Marshal(t.Consumes); err == nil {
			b = appendMember(b, "consumes", list)
		}
	}
	b = appendMember(appendMember(b, "method", quote(t.Method)), "path", quote(t.Path))
	if t.Schema != "" {
		b = appendMember(b, "schema", []byte(t.Schema))
	}
	sum := sha256.Sum256(append(b, '}'))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// match returns the tool that a request is for, or refuses. Of templates that fit, the
// one with a text where the other has a variable counts, from the left.
func (t *webTable) match(method string, p *webPath) (*webTool, error) {
	var best *webTool
	var allow []string
	for i := range t.tools {
		tool := &t.tools[i]
		if !tool.fits(p, func(a, b string) bool { return a == b }) {
			continue
		}
		if tool.Method != method {
			allow = append(allow, tool.Method)
			continue
		}
		if best == nil || tool.before(best) {
			best = tool
		}
	}
	switch {
	case best == nil && allow != nil:
		slices.Sort(allow)
		return nil, &wrongMethod{counterfoil.Refuse(counterfoil.MethodForbidden, "no tool of this path has the method %.16q", method), slices.Compact(allow)}
	case best == nil:
		return nil, counterfoil.Refuse(counterfoil.ToolUnknown, "no tool of %s has this path", t.resource.Name)
	}
	if err := t.contested(best, p); err != nil {
		return nil, err
	}
	return best, nil
}

// knows reports whether a tool of any method has the path.
func (t *webTable) knows(p *webPath) bool {
	return slices.ContainsFunc(t.tools, func(tool webTool) bool { return tool.fits(p, func(a, b string) bool { return a == b }) })
}

// A wrongMethod is the refusal of a method that a path has not.
type wrongMethod struct {
	*counterfoil.Refusal
	allow []string
}

func (m *wrongMethod) Unwrap() error { return m.Refusal }

// fits reports whether the path has the template's form.
func (t *webTool) fits(p *webPath, same func(a, b string) bool) bool {
	if len(t.segments) != len(p.segments) {
		return false
	}
	for i, s := range t.segments {
		switch {
		case s.variable != "" && p.segments[i] == "":
			return false
		case s.variable == "" && !same(s.text, p.segments[i]):
			return false
		}
	}
	return true
}

// before reports whether the tool's template goes before another that fits the same
// path, but perhaps for the slash at its end.
func (t *webTool) before(other *webTool) bool {
	mine, theirs := t.core(), other.core()
	if len(mine) != len(theirs) {
		return false
	}
	for i := range mine {
		if text, theirText := mine[i].variable == "", theirs[i].variable == ""; text != theirText {
			return text
		}
	}
	return false
}

// variables appends the path's variables, as members of an object.
func (t *webTool) variables(p *webPath) []byte {
	var b []byte
	for i, s := range t.segments {
		if s.variable == "" {
			continue
		}
		if b == nil {
			b = []byte{'{'}
		} else {
			b = append(b, ',')
		}
		b = append(append(append(b, quote(s.variable)...), ':'), quote(p.segments[i])...)
	}
	if b == nil {
		return nil
	}
	return append(b, '}')
}
