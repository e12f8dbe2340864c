package custody

import (
	"bytes"
	"errors"
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
	with   [256][]*form // those that begin with a byte
	starts class        // what the first byte of a form may be
	first  [256]bool    // with which bytes a form may begin, as it is or escaped
	lower  []string     // the secrets in lower case, for names of header fields
	tail   int          // how much of a line a reader keeps back: no less than what may begin a form
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
	for i := range m.forms {
		m.tail = max(m.tail, longestEscape*len(m.forms[i].units))
	}
	for b := range 256 {
		for i := range m.forms {
			if f := &m.forms[i]; f.units[0].has(byte(b)) {
				m.with[b] = append(m.with[b], f)
				m.starts.add(byte(b))
			}
		}
		m.first[b] = m.starts.has(byte(b)) || isEscape(byte(b))
	}
	return m
}

// Bytes returns b with an asterisk for each byte of a secret, and whether there was one.
// The length stays, and so do line breaks. Without a secret it is b itself; otherwise a
// copy. What cannot be judged with the work that b is worth is taken for a secret.
func (m *Mask) Bytes(b []byte) (out []byte, struck bool) {
	if m == nil || len(m.forms) == 0 || len(b) < minSecret {
		return b, false
	}
	s := newScan(b)
	defer s.release()
	out = b
	for i := 0; i < len(b); {
		if !m.first[b[i]] {
			i++
			continue
		}
		end, _ := m.match(s, i)
		if s.steps > m.worth(int64(len(b))) {
			end = len(b)
		}
		if end == 0 {
			i = m.after(s, i)
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

// longestEscape is that of JSON, \u0041, in bytes.
const longestEscape = 6

// Reader returns a reader of what r reads, masked. A line is returned as soon as it was
// read. Of one that has not ended the reader keeps as much back as may begin a secret,
// whatever it is: how long a text stays away must not tell how much of it is right.
func (m *Mask) Reader(r io.ReadCloser) *MaskReader { return &MaskReader{mask: m, from: r} }

// Prompt is Reader for what has no lines, such as frames: whatever cannot be part of a
// secret is returned at once. Somebody who chooses what an upstream says, and measures
// when it comes, may guess at the secret a character at a time.
func (m *Mask) Prompt(r io.ReadCloser) *MaskReader {
	return &MaskReader{mask: m, from: r, prompt: true}
}

// Reading a text costs a few steps a byte, ordinarily; what is made of nothing but escapes
// costs up to about 130, and a few more for each form that may begin behind them. What
// costs more repeats the beginning of a secret over and over.
const (
	stepsAtFirst = 1 << 24
	stepsPerByte = 256
	stepsPerForm = 16 // and byte
)

// worth is how many steps may be made for so many bytes.
func (m *Mask) worth(n int64) int64 {
	return stepsAtFirst + n*int64(stepsPerByte+stepsPerForm*len(m.forms))
}

var errWork = errors.New("looking for the credential in the answer takes more work than an answer is worth")

// A MaskReader masks what it reads. One goroutine reads; Struck may be asked by any.
type MaskReader struct {
	mask   *Mask
	from   io.ReadCloser
	prompt bool
	text   []byte // read; masked before done
	done   int    // how much of text is judged
	out    int    // how much of that may be given out
	given  int    // how much of it was
	err    error  // how from ended
	read   int64  // how much of from was read
	steps  int64  // the work that it took
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

// Read returns at least one byte, or how the reading ended. It ends with an error where
// it takes more work than what was read is worth; nothing is returned that was not judged.
func (r *MaskReader) Read(p []byte) (int, error) {
	if r.mask == nil || len(r.mask.forms) == 0 {
		return r.from.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for r.given == r.out {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
		r.out = r.free()
	}
	n := copy(p, r.text[r.given:r.out])
	r.given += n
	return n, nil
}

// fill reads once and masks all that can be judged by now.
func (r *MaskReader) fill() {
	full := len(r.text) == cap(r.text) // there is more to read than there was room for
	kept := copy(r.text, r.text[r.out:])
	r.text, r.done, r.out, r.given = r.text[:kept], r.done-r.out, 0, 0
	room := max(leastRead, cap(r.text)-kept)
	if full {
		room = min(2*max(leastRead, cap(r.text)), mostRead)
	}
	r.text = slices.Grow(r.text, room)
	var n int
	n, r.err = r.from.Read(r.text[kept:cap(r.text)])
	r.text = r.text[:kept+n]
	r.read += int64(n)
	s := newScan(r.text)
	defer s.release()
	defer func() { r.steps += s.steps }()
	for r.done < len(r.text) {
		end, more := r.mask.match(s, r.done)
		switch {
		case r.steps+s.steps > r.mask.worth(r.read):
			r.err = errWork
			r.text = r.text[:r.done]
		case more && r.err == nil:
			return // what comes next decides
		case end == 0:
			r.done = r.mask.after(s, r.done)
		default:
			blot(r.text[r.done:end])
			r.done = end
			r.struck.Store(true)
		}
	}
}

// free returns how much of what is judged may be given out now.
func (r *MaskReader) free() int {
	if r.prompt || r.err != nil {
		return r.done
	}
	line := bytes.LastIndexByte(r.text[:r.done], '\n') + 1
	return min(r.done, max(line, len(r.text)-r.mask.tail))
}
