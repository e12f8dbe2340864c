package custody

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/counterfoil/counterfoil"
)

// A Mask finds secrets in what upstreams answer: as they are; escaped as JSON, URLs and
// HTML escape, each byte or any of them, and what was escaped again; in hexadecimal; in
// base64 of both alphabets, alone or within something longer, in lines or not. It does not
// find what somebody meant to hide: a secret in pieces, reversed or encrypted.
//
// It is immutable and may be used concurrently; a nil Mask finds nothing.
type Mask struct {
	forms  []form
	starts class     // what the first byte of a form may be
	first  [256]bool // with which bytes a form may begin, as it is or escaped
	lower  []string  // the secrets in lower case, for names of header fields
}

// NewMask returns what finds these secrets. What is shorter than eight bytes is passed
// over: Release gives out nothing like it.
func NewMask(secrets ...counterfoil.Secret) *Mask {
	m := &Mask{}
	var all []string
	for _, s := range secrets {
		if v := s.Reveal(); len(v) >= minSecret {
			all = append(append(all, v), inside(v)...)
		}
	}
	slices.Sort(all)
	for _, s := range slices.Compact(all) {
		m.lower = append(m.lower, strings.ToLower(s))
		m.forms = append(m.forms, formsOf(s)...)
	}
	for _, f := range m.forms {
		for i := range m.starts {
			m.starts[i] |= f.units[0][i]
		}
	}
	for b := range 256 {
		m.first[b] = m.starts.has(byte(b)) || isEscape(byte(b))
	}
	return m
}

// Bytes returns b with an asterisk for each byte of a secret, and whether there was one.
// The length stays, and so do line breaks. Without a secret it is b itself; otherwise a
// copy.
func (m *Mask) Bytes(b []byte) (out []byte, struck bool) {
	if m == nil || len(m.forms) == 0 {
		return b, false
	}
	out = b
	for i := 0; i < len(b); {
		if !m.first[b[i]] {
			i++
			continue
		}
		end, _ := m.match(b, i)
		if end == 0 {
			i++
			continue
		}
		if !struck {
			struck, out = true, bytes.Clone(b)
		}
		blot(out[i:end])
		i = end
	}
	return out, struck
}

// String is Bytes of a text.
func (m *Mask) String(s string) (string, bool) {
	b, struck := m.Bytes([]byte(s))
	if !struck {
		return s, false
	}
	return string(b), true
}

// Header masks the values of h in place and reports whether it struck. A field whose name
// holds a secret, in upper or lower case, is dropped.
func (m *Mask) Header(h http.Header) (struck bool) {
	if m == nil {
		return false
	}
	for name, values := range h {
		if m.names(name) {
			delete(h, name)
			struck = true
			continue
		}
		own := false
		for i, v := range values {
			masked, hit := m.String(v)
			if !hit {
				continue
			}
			if !own { // somebody else may have the slice
				values, own = slices.Clone(values), true
				h[name] = values
			}
			values[i], struck = masked, true
		}
	}
	return struck
}

func (m *Mask) names(field string) bool {
	name := strings.ToLower(field)
	return slices.ContainsFunc(m.lower, func(s string) bool { return strings.Contains(name, s) })
}

// blot leaves line breaks: they frame events.
func blot(b []byte) {
	for i := range b {
		if b[i] != '\r' && b[i] != '\n' {
			b[i] = '*'
		}
	}
}

// match returns where the longest form that begins at i ends, or 0 where none does. more
// says that what is not there yet could make one, or a longer one.
func (m *Mask) match(t []byte, i int) (end int, more bool) {
	b := t[i]
	if !m.first[b] {
		return 0, false
	}
	escaped := isEscape(b)
	if escaped {
		if passes(&m.starts, t, i) {
			return 0, false
		}
		var o options
		read(t, i, maxNesting, &o)
		if !slices.ContainsFunc(o.list[:o.n], func(o option) bool { return m.starts.has(o.b) }) {
			return 0, o.more
		}
	}
	for k := range m.forms {
		f := &m.forms[k]
		if !escaped && !f.units[0].has(b) {
			continue
		}
		e, wants := f.match(t, i)
		end = max(end, e)
		more = more || wants
	}
	return end, more
}

// passes tells of the most frequent escapes at once that they are nothing of c.
func passes(c *class, t []byte, i int) bool {
	switch {
	case c.has(t[i]):
		return false
	case t[i] == '+':
		return !c.has(' ')
	case t[i] == '\\' && i+1 < len(t):
		next := t[i+1]
		return !isEscape(next) && next != 'u' && next != 'x' && !c.has(next)
	}
	return false
}

// match follows the text as it is while that is the only way to read it, and every
// reading of it from the first escape on.
func (f *form) match(t []byte, i int) (end int, more bool) {
	at := i
	for n := range f.units {
		if at >= len(t) {
			return 0, true
		}
		b := t[at]
		if isEscape(b) || n > 0 && f.wrapped && (b == '\r' || b == '\n') {
			if !(f.wrapped && mayBreak(t, at)) && passes(&f.units[n], t, at) {
				return 0, false
			}
			return f.readings(t, at, n)
		}
		if !f.units[n].has(b) {
			return 0, false
		}
		at++
	}
	return at, false
}

// readings matches from unit n on: it keeps every place that some reading of the text
// before it leads to.
func (f *form) readings(t []byte, at, n int) (end int, more bool) {
	var o options
	places, next := []int{at}, []int(nil)
	for ; n < len(f.units); n++ {
		next = next[:0]
		for _, p := range places {
			o.n, o.more = 0, false
			if n > 0 && f.wrapped {
				p, o.more = skipBreak(t, p)
			}
			read(t, p, maxNesting, &o)
			more = more || o.more
			for _, opt := range o.list[:o.n] {
				if f.units[n].has(opt.b) && !slices.Contains(next, opt.next) {
					next = append(next, opt.next)
				}
			}
		}
		if len(next) == 0 {
			return 0, more
		}
		places, next = next, places
	}
	return slices.Max(places), more
}

// mayBreak tells whether there may be a line break.
func mayBreak(t []byte, i int) bool {
	return t[i] != '\\' || i+1 == len(t) || t[i+1] == 'r' || t[i+1] == 'n'
}

// skipBreak passes over a line break, as it is or escaped in JSON. more says that what is
// not there yet could be the rest of one.
func skipBreak(t []byte, i int) (after int, more bool) {
	rest := t[i:]
	for _, b := range []string{"\r\n", "\n", `\r\n`, `\n`} {
		switch {
		case len(rest) >= len(b) && string(rest[:len(b)]) == b:
			return i + len(b), false
		case len(rest) < len(b) && string(rest) == b[:len(rest)]:
			more = true
		}
	}
	return i, more
}

// Reader returns a reader of what r reads, masked. What cannot be part of a secret is
// returned as soon as it was read.
func (m *Mask) Reader(r io.ReadCloser) *MaskReader { return &MaskReader{mask: m, from: r} }

// A MaskReader masks what it reads. One goroutine reads; Struck may be asked by any.
type MaskReader struct {
	mask   *Mask
	from   io.ReadCloser
	text   []byte // read; masked before done
	done   int    // how much of text may be given out
	given  int    // how much of it was
	err    error  // how from ended
	struck atomic.Bool
}

// Struck reports whether there was a secret in what was read so far.
func (r *MaskReader) Struck() bool { return r.struck.Load() }

// Close closes what it reads from.
func (r *MaskReader) Close() error { return r.from.Close() }

// A read asks for leastRead bytes at first, and for up to mostRead once there is that much.
const (
	leastRead = 2 << 10
	mostRead  = 16 << 10
)

// Read returns at least one byte, or how the reading ended.
func (r *MaskReader) Read(p []byte) (int, error) {
	if r.mask == nil || len(r.mask.forms) == 0 {
		return r.from.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for r.given == r.done {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.text[r.given:r.done])
	r.given += n
	return n, nil
}

// fill reads once and masks all that can be judged by now.
func (r *MaskReader) fill() {
	full := len(r.text) == cap(r.text) // there is more to read than there was room for
	kept := copy(r.text, r.text[r.done:])
	r.text, r.given, r.done = r.text[:kept], 0, 0
	room := max(leastRead, cap(r.text)-kept)
	if full {
		room = min(2*max(leastRead, cap(r.text)), mostRead)
	}
	r.text = slices.Grow(r.text, room)
	var n int
	n, r.err = r.from.Read(r.text[kept:cap(r.text)])
	r.text = r.text[:kept+n]
	for r.done < len(r.text) {
		end, more := r.mask.match(r.text, r.done)
		switch {
		case more && r.err == nil:
			return // what comes next decides
		case end == 0:
			r.done++
		default:
			blot(r.text[r.done:end])
			r.done = end
			r.struck.Store(true)
		}
	}
}
