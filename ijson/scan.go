package ijson

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// A scanner checks one text in one pass.
type scanner struct {
	b []byte
	i int // the next byte

	// keys holds the folded names of the objects that are open, one after
	// another; ends[k] is where the k-th of them ends. An object's names are
	// dropped when it closes.
	keys []byte
	ends []int
}

var scanners = sync.Pool{New: func() any {
	return &scanner{keys: make([]byte, 0, 512), ends: make([]int, 0, 64)}
}}

// release gives the scanner back, without the caller's bytes and without more
// memory than an ordinary text needs.
func (s *scanner) release() {
	if cap(s.keys) > 64<<10 || cap(s.ends) > 4096 {
		return
	}
	s.b = nil
	scanners.Put(s)
}

// A placeError says what is wrong and where: the offset in bytes and the JSON
// pointer (RFC 6901) of the value.
type placeError struct {
	offset int
	path   []string // innermost first
	text   string
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func (e *placeError) Error() string {
	if len(e.path) == 0 {
		return fmt.Sprintf("at byte %d: %s", e.offset, e.text)
	}
	var p strings.Builder
	for i := len(e.path) - 1; i >= 0; i-- {
		p.WriteByte('/')
		p.WriteString(pointerEscapes.Replace(e.path[i]))
	}
	return fmt.Sprintf("at byte %d, %.128q: %s", e.offset, p.String(), e.text)
}

func (s *scanner) fail(format string, args ...any) error {
	return &placeError{offset: s.i, text: fmt.Sprintf(format, args...)}
}

// within adds the place of a member or an element to an error.
func within(err error, place string) error {
	var e *placeError
	if errors.As(err, &e) {
		e.path = append(e.path, place)
	}
	return err
}

var byteOrderMark = []byte("\xef\xbb\xbf")

func (s *scanner) check(b []byte) error {
	*s = scanner{b: b, keys: s.keys[:0], ends: s.ends[:0]}
	// RFC 8259, Section 8.1, lets a parser ignore a byte order mark; some do
	// and some do not, so it is refused.
	if bytes.HasPrefix(b, byteOrderMark) {
		return s.fail("a byte order mark")
	}
	s.space()
	if s.i == len(s.b) {
		return s.fail("no value")
	}
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.i < len(s.b) {
		return s.fail("bytes after the value")
	}
	return nil
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0, which is no JSON, at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// value reads one value; depth is how many arrays and objects are open.
func (s *scanner) value(depth int) error {
	switch s.peek() {
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case '"':
		return s.str(false)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	n, kind := scanNumber(s.b[s.i:])
	if kind == 0 {
		return s.fail("not a JSON value")
	}
	if err := checkNumber(s.b[s.i:s.i+n], kind); err != nil {
		return s.fail("%v", err)
	}
	s.i += n
	return nil
}

func (s *scanner) literal(want string) error {
	if len(s.b)-s.i < len(want) || string(s.b[s.i:s.i+len(want)]) != want {
		return s.fail("not a JSON value")
	}
	s.i += len(want)
	return nil
}

func (s *scanner) array(depth int) error {
	if depth > MaxDepth {
		return s.fail("nested deeper than %d", MaxDepth)
	}
	s.i++ // [
	s.space()
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for n := 0; ; n++ {
		s.space()
		if err := s.value(depth); err != nil {
			return within(err, fmt.Sprint(n))
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case ']':
			s.i++
			return nil
		default:
			return s.fail("',' or ']' is needed")
		}
	}
}

func (s *scanner) object(depth int) error {
	if depth > MaxDepth {
		return s.fail("nested deeper than %d", MaxDepth)
	}
	names := names{first: len(s.ends), start: len(s.keys)}
	s.i++ // {
	s.space()
	if s.peek() == '}' {
		s.i++
		return nil
	}
	for {
		s.space()
		if s.peek() != '"' {
			return s.fail("a name in quotes is needed")
		}
		at := s.i
		if err := s.str(true); err != nil {
			return err
		}
		name := s.b[at+1 : s.i-1]
		if len(names.many) >= MaxNames {
			s.i = at
			return s.fail("an object has more than %d names", MaxNames)
		}
		if !names.add(s) {
			s.i = at
			return s.fail("the name %.64q is there twice, or differs from another in case alone", name)
		}
		s.space()
		if s.peek() != ':' {
			return s.fail("':' is needed")
		}
		s.i++
		s.space()
		if err := s.value(depth); err != nil {
			return within(err, string(name))
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case '}':
			s.i++
			s.ends, s.keys = s.ends[:names.first], s.keys[:names.start]
			return nil
		default:
			return s.fail("',' or '}' is needed")
		}
	}
}

// names are those of one object so far.
type names struct {
	first int // of its ends
	start int // of its keys
	many  map[string]struct{}
}

// few is how many names are compared one by one; from there on a map is made,
// so that a text of many names takes no more than linear time.
const few = 16

// add takes the key that s.str appended last and reports whether it is new.
func (n *names) add(s *scanner) bool {
	from := n.start
	if len(s.ends) > n.first {
		from = s.ends[len(s.ends)-1]
	}
	key := s.keys[from:]
	if n.many == nil && len(s.ends)-n.first < few {
		at := n.start
		for _, end := range s.ends[n.first:] {
			if bytes.Equal(s.keys[at:end], key) {
				return false
			}
			at = end
		}
		s.ends = append(s.ends, len(s.keys))
		return true
	}
	if n.many == nil {
		n.many = make(map[string]struct{}, 2*few)
		at := n.start
		for _, end := range s.ends[n.first:] {
			n.many[string(s.keys[at:end])] = struct{}{}
			at = end
		}
	}
	if _, seen := n.many[string(key)]; seen {
		return false
	}
	n.many[string(key)] = struct{}{}
	s.keys = s.keys[:from] // the map has it
	return true
}

// str reads a string. Of a name it appends the key, that is the unescaped text
// with each rune replaced by the least that it is equal to under simple case
// folding, so that keys are equal exactly where strings.EqualFold says so.
func (s *scanner) str(name bool) error {
	s.i++ // "
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			s.i++
			return nil
		case c < ' ':
			return s.fail("a control character in a string")
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return err
			}
			if !name {
				continue
			}
			// A NUL ends a name for parsers written in C.
			if r == 0 {
				return s.fail("a NUL in a name")
			}
			s.keys = utf8.AppendRune(s.keys, fold(r))
		case c < utf8.RuneSelf:
			s.i++
			if name {
				if c >= 'a' && c <= 'z' {
					c -= 'a' - 'A'
				}
				s.keys = append(s.keys, c)
			}
		default:
			r, n := utf8.DecodeRune(s.b[s.i:])
			if r == utf8.RuneError && n <= 1 {
				return s.fail("invalid UTF-8")
			}
			s.i += n
			if name {
				s.keys = utf8.AppendRune(s.keys, fold(r))
			}
		}
	}
	return s.fail("a string without its end")
}

// fold returns the least rune of r's case-folding orbit.
func fold(r rune) rune {
	for {
		next := unicode.SimpleFold(r)
		if next <= r {
			return next
		}
		r = next
	}
}

// escape reads one escape sequence, or a pair of them for a rune beyond the
// basic plane.
func (s *scanner) escape() (rune, error) {
	if s.i+1 >= len(s.b) {
		return 0, s.fail("a string without its end")
	}
	switch c := s.b[s.i+1]; c {
	case '"', '\\', '/':
		s.i += 2
		return rune(c), nil
	case 'b':
		s.i += 2
		return '\b', nil
	case 'f':
		s.i += 2
		return '\f', nil
	case 'n':
		s.i += 2
		return '\n', nil
	case 'r':
		s.i += 2
		return '\r', nil
	case 't':
		s.i += 2
		return '\t', nil
	case 'u':
	default:
		return 0, s.fail("an unknown escape")
	}
	r, ok := s.hex4(s.i)
	switch {
	case !ok:
		return 0, s.fail("an unknown escape")
	case r < 0xd800 || r > 0xdfff:
		s.i += 6
		return r, nil
	case r >= 0xdc00:
		return 0, s.fail("a lone surrogate")
	}
	low, ok := s.hex4(s.i + 6)
	if !ok || low < 0xdc00 || low > 0xdfff {
		return 0, s.fail("a lone surrogate")
	}
	s.i += 12
	return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), nil
}

// hex4 reads \uXXXX at i.
func (s *scanner) hex4(i int) (r rune, ok bool) {
	if len(s.b)-i < 6 || s.b[i] != '\\' || s.b[i+1] != 'u' {
		return 0, false
	}
	for _, c := range s.b[i+2 : i+6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
