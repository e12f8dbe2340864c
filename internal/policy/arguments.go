package policy

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is the depth up to which arguments are read, the same as everywhere
// else. The argument object itself is the first level.
const maxDepth = 64

// An arguments is a call's argument object, cut into its members but not read
// deeper than somebody asks.
type arguments struct {
	members []member
}

type member struct{ name, raw []byte }

var errDepth = fmt.Errorf("is nested deeper than %d levels", maxDepth)

// A reader is a strict JSON decoder (RFC 8259, no duplicate names, valid UTF-8)
// over bytes in memory.
type reader struct {
	dec jsontext.Decoder
	buf bytes.Buffer
	b   []byte
}

var readers = sync.Pool{New: func() any { return new(reader) }}

func newReader(b []byte) *reader {
	r := readers.Get().(*reader)
	r.b = b
	r.buf = *bytes.NewBuffer(b)
	r.dec.Reset(&r.buf)
	return r
}

func (r *reader) free() {
	r.b, r.buf = nil, bytes.Buffer{}
	r.dec.Reset(&r.buf) // lets go of the bytes
	readers.Put(r)
}

// name returns the next member's name; most names are a part of the reader's
// bytes.
func (r *reader) name() ([]byte, error) {
	v, err := r.value()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1], nil
	}
	return jsontext.AppendUnquote(nil, v)
}

// value returns the next value as a part of the reader's bytes.
func (r *reader) value() ([]byte, error) {
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	end := r.dec.InputOffset()
	return r.b[end-int64(len(v)) : end : end], nil
}

// parse cuts the object into members. No arguments at all are the empty object:
// a call need not have any.
func (a *arguments) parse(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	r := newReader(b)
	defer r.free()
	if r.dec.PeekKind() != '{' {
		if _, err := r.dec.ReadValue(); err != nil {
			return err
		}
		return errors.New("is not an object")
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	for r.dec.PeekKind() != '}' {
		name, err := r.name()
		if err != nil {
			return err
		}
		raw, err := r.value()
		if err != nil {
			return err
		}
		if tooDeep(raw, maxDepth-1) {
			return errDepth
		}
		a.members = append(a.members, member{name, raw})
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	if rest := bytes.TrimLeft(b[r.dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return errors.New("has something after the object")
	}
	return nil
}

// tooDeep reports whether a JSON text that was read without an error is nested
// deeper than limit.
func tooDeep(b []byte, limit int) bool {
	if len(b) == 0 || (b[0] != '{' && b[0] != '[') {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

func (a *arguments) member(name string) ([]byte, bool) {
	for i := range a.members {
		if string(a.members[i].name) == name {
			return a.members[i].raw, true
		}
	}
	return nil, false
}

// A pointer is a parsed JSON pointer (RFC 6901).
type pointer []string

// ParsePointer reads a JSON pointer to something inside the arguments. The
// pointer to the whole, "", is none.
func ParsePointer(s string) ([]string, error) {
	if s == "" {
		return nil, errors.New("is empty; write a JSON pointer into the arguments, such as /amount")
	}
	if s[0] != '/' {
		return nil, fmt.Errorf("%q does not begin with a slash; write a JSON pointer (RFC 6901), such as /%s", s, s)
	}
	tokens := strings.Split(s[1:], "/")
	if len(tokens) > maxDepth {
		return nil, fmt.Errorf("%.40q… is longer than %d steps", s, maxDepth)
	}
	for i, t := range tokens {
		// RFC 6901, Section 3: a tilde is followed by 0 or 1.
		for j := range len(t) {
			if t[j] == '~' && (j+1 == len(t) || (t[j+1] != '0' && t[j+1] != '1')) {
				return nil, fmt.Errorf("%q has a ~ that is neither ~0 (for ~) nor ~1 (for /)", s)
			}
		}
		// RFC 6901, Section 4: first ~1, then ~0, so that ~01 is ~1.
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~")
	}
	return tokens, nil
}

// at returns the value that the pointer points to, if there is one.
func (a *arguments) at(p pointer) ([]byte, bool) {
	if len(p) == 0 {
		return nil, false
	}
	v, ok := a.member(p[0])
	for _, token := range p[1:] {
		if !ok {
			return nil, false
		}
		v, ok = child(v, token)
	}
	return v, ok
}

// child returns the member or the element of v that token names.
func child(v []byte, token string) ([]byte, bool) {
	r := newReader(v)
	defer r.free()
	switch r.dec.PeekKind() {
	case '{':
		return memberOf(r, token)
	case '[':
		return elementOf(r, token)
	}
	return nil, false
}

func memberOf(r *reader, token string) ([]byte, bool) {
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, false
	}
	for r.dec.PeekKind() == '"' {
		name, err := r.name()
		if err != nil {
			return nil, false
		}
		if string(name) != token {
			if r.dec.SkipValue() != nil {
				return nil, false
			}
			continue
		}
		v, err := r.value()
		return v, err == nil
	}
	return nil, false
}

func elementOf(r *reader, token string) ([]byte, bool) {
	// RFC 6901, Section 4: digits without leading zeros. "-" is the element
	// after the last, which is not there.
	if !isDigits(token) || (len(token) > 1 && token[0] == '0') {
		return nil, false
	}
	n, err := strconv.Atoi(token)
	if err != nil {
		return nil, false
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, false
	}
	for ; n > 0; n-- {
		if r.dec.PeekKind() == ']' || r.dec.SkipValue() != nil {
			return nil, false
		}
	}
	if r.dec.PeekKind() == ']' {
		return nil, false
	}
	v, err := r.value()
	return v, err == nil
}

// text returns a JSON value as text: strings as they are, everything else as it
// was written.
func text(v []byte) string {
	if s, ok := stringOf(v); ok {
		return s
	}
	return string(v)
}

func stringOf(v []byte) (string, bool) {
	if len(v) == 0 || v[0] != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// numberOf returns the exact value of a JSON number.
func numberOf(v []byte) (number, bool) {
	if len(v) == 0 || (v[0] != '-' && (v[0] < '0' || v[0] > '9')) {
		return number{}, false
	}
	return parseNumber(string(v))
}
