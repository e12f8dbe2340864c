package gateway

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
)

// maxParameters bounds a query.
const maxParameters = 256

// A parameter is a name of a query with its values, in the order in which they were
// sent.
type parameter struct {
	name   string
	values []string
	list   bool // the schema says that it is one
}

func badQuery(why string) error {
	return counterfoil.Refuse(counterfoil.RequestMalformed, "the query cannot be taken: %s", why)
}

// parseQuery reads a query, sorted by name. What goes upstream is written anew from what
// was read, so escapes may be spelled in any way; but a name is there once, unless list
// says that it is a list.
func parseQuery(raw string, list func(name string) bool) ([]parameter, error) {
	if raw == "" {
		return nil, nil
	}
	parts := strings.SplitN(raw, "&", maxParameters+1)
	if len(parts) > maxParameters {
		return nil, badQuery("it has more than 256 parameters")
	}
	var out []parameter
	at := make(map[string]int, len(parts))
	for _, part := range parts {
		name, value, _ := strings.Cut(part, "=")
		name, err := decodeQuery(name)
		if err != nil {
			return nil, err
		}
		if value, err = decodeQuery(value); err != nil {
			return nil, err
		}
		switch {
		case name == "":
			return nil, badQuery("a parameter has no name")
		case isMethodOverride(name):
			return nil, badQuery("a parameter would change the method")
		}
		i, again := at[name]
		if again {
			if !out[i].list {
				return nil, badQuery("a parameter is there twice, and the tool's schema does not say that it is a list")
			}
			out[i].values = append(out[i].values, value)
			continue
		}
		at[name] = len(out)
		out = append(out, parameter{name, []string{value}, list(name)})
	}
	slices.SortFunc(out, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// decodeQuery decodes a name or a value: application/x-www-form-urlencoded (URL
// Standard, Section 5), in UTF-8.
func decodeQuery(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			b = append(b, ' ')
		case c == '%':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return "", badQuery("an escape is % and two hexadecimal digits")
			}
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		case isUnreserved(c) || strings.IndexByte("!$'()*,:@/=[]", c) >= 0:
			b = append(b, c)
		default:
			return "", badQuery("it has a character that has to be escaped")
		}
	}
	out := string(b)
	if !utf8.ValidString(out) || strings.IndexByte(out, 0) >= 0 {
		return "", badQuery("it is not UTF-8, or has a NUL")
	}
	return out, nil
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// encodeQuery writes a query: everything is escaped that may be, so that nobody reads
// another name or value out of it.
func encodeQuery(query []parameter) string {
	var b strings.Builder
	for _, p := range query {
		for _, v := range p.values {
			if b.Len() > 0 {
				b.WriteByte('&')
			}
			escapeQuery(&b, p.name)
			b.WriteByte('=')
			escapeQuery(&b, v)
		}
	}
	return b.String()
}

func escapeQuery(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; isUnreserved(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
}

// appendQuery appends the query as an object: strings, and lists of them.
func appendQuery(b []byte, query []parameter) []byte {
	b = append(b, '{')
	for i, p := range query {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, quote(p.name)...), ':')
		if !p.list {
			b = append(b, quote(p.values[0])...)
			continue
		}
		for j, v := range p.values {
			b = append(append(b, "[,"[min(j, 1)]), quote(v)...)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// lists reports whether the schema of a tool's arguments says that a parameter of the
// query is a list and nothing else.
func (t *webTool) lists(name string) bool {
	if t.shape == nil {
		return false
	}
	root, err := t.shape.read()
	if err != nil {
		return false
	}
	query := root.member("query")
	if query == nil {
		return false
	}
	return query.member(name).onlyList(0)
}

// member returns the shape of a member that is listed, where that is what is said of it.
func (s *shape) member(name string) *shape {
	for range maxParts {
		if m := s.names[name]; m != nil || len(s.parts) != 1 || !s.bare {
			return m
		}
		s = s.parts[0]
	}
	return nil
}

func (s *shape) onlyList(depth int) bool {
	if s == nil || depth > maxParts {
		return false
	}
	if s.kinds == kindArray {
		return true
	}
	for _, p := range s.parts {
		if p.onlyList(depth + 1) {
			return true
		}
	}
	return false
}
