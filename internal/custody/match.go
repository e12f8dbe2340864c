package custody

import "slices"

// match returns where the longest form that begins at i ends, or 0 where none does. more
// says that what is not there yet could make one, or a longer one.
func (m *Mask) match(s *scan, i int) (end int, more bool) {
	b := s.text[i]
	s.steps++
	switch {
	case !m.first[b]:
		return 0, false
	case !isEscape(b):
		return m.goOn(s, b, i+1)
	case passes(&m.starts, s.text, i):
		return 0, false
	}
	o := *s.read(i, maxNesting)
	more = o.more
	for k := range o.n {
		b, next := o.at(k)
		e, wants := m.goOn(s, b, next)
		end, more = max(end, e), more || wants
	}
	return end, more
}

// after returns the next place where a form may begin, where none does at i. In a row of
// backslashes what is behind it is read alike from all but the last ones.
func (m *Mask) after(s *scan, i int) int {
	if s.text[i] != '\\' || m.starts.has('\\') {
		return i + 1
	}
	return max(i+1, s.rowEnd(i)-nearRow)
}

// goOn matches the forms that begin with b, whose second byte is at next.
func (m *Mask) goOn(s *scan, b byte, next int) (end int, more bool) {
	for _, f := range m.with[b] {
		e, wants := f.match(s, next)
		end, more = max(end, e), more || wants
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

// match matches from the second unit on. It follows the text as it is while that is the
// only way to read it, and every reading of it from the first escape on.
func (f *form) match(s *scan, at int) (end int, more bool) {
	for n := 1; n < len(f.units); n++ {
		s.steps++
		if at >= len(s.text) {
			return 0, true
		}
		b := s.text[at]
		if isEscape(b) || f.wrapped && (b == '\r' || b == '\n') {
			if !(f.wrapped && mayBreak(s.text, at)) && passes(&f.units[n], s.text, at) {
				return 0, false
			}
			return f.readings(s, at, n)
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
func (f *form) readings(s *scan, at, n int) (end int, more bool) {
	places, next := append(s.places[:0], at), s.next[:0]
	for ; n < len(f.units); n++ {
		next = next[:0]
		for _, p := range places {
			if f.wrapped {
				var wants bool
				p, wants = skipBreak(s.text, p)
				more = more || wants
			}
			o := s.read(p, maxNesting)
			more = more || o.more
			s.steps += int64(o.n + len(next))
			for k := range o.n {
				if b, after := o.at(k); f.units[n].has(b) && !slices.Contains(next, after) {
					next = append(next, after)
				}
			}
		}
		if len(next) == 0 {
			break
		}
		places, next = next, places
	}
	s.places, s.next = places, next
	if n < len(f.units) {
		return 0, more
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
