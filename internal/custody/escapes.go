package custody

import "sync"

// What programs do to a text that they quote: JSON and its relatives escape with a
// backslash, URLs with a percent sign or, for a space, a plus sign, HTML with an
// ampersand; and what was escaped may be escaped again.

// maxNesting is how many times escaped a byte is looked for.
const maxNesting = 3

// An option is a byte that a text may mean, in the low bits, and how many bytes of the
// text say it.
type option uint32

// options are all that a text may mean at one place. There are never more than a few:
// each nesting adds at most one reading of each kind of escape.
type options struct {
	from int // the place
	n    int
	more bool // what is not there yet could add to them
	list [maxOptions]option
}

const maxOptions = 32

func (o *options) add(b byte, next int) {
	added := option(next-o.from)<<8 | option(b) //nolint:gosec // no escape is longer than a few times maxRow
	for _, have := range o.list[:o.n] {
		if have == added {
			return
		}
	}
	if o.n < len(o.list) {
		o.list[o.n] = added
		o.n++
	}
}

// at returns one of them, and where the text goes on behind it.
func (o *options) at(k int) (b byte, next int) { return byte(o.list[k]), o.from + int(o.list[k]>>8) }

func isEscape(b byte) bool { return b == '\\' || b == '%' || b == '&' || b == '+' }

// A scan reads one text. What it finds out about a place it knows until it is some way
// past it, so that a text of nothing but escapes is read in time linear in its length,
// however they are nested.
type scan struct {
	text  []byte
	steps int64 // looks at the text and at readings of it

	base, end int // what is known of place i of this text is marked with base+i
	known     [maxNesting][window]struct {
		mark int
		options
	}
	plain [maxNesting + 1]options // of the last place of each depth where there is one reading
	row   [2]int                  // where a row of backslashes begins and, as far as it was looked at, ends

	places, next []int // of readings
}

// window is how many places are known. An escape that is escaped thrice is shorter, but
// for rows of backslashes, which are known by themselves.
const window = 64

var scans = sync.Pool{New: func() any { return &scan{end: 1} }}

// newScan returns a scan of t, which its user releases.
func newScan(t []byte) *scan {
	s := scans.Get().(*scan) //nolint:forcetypeassert // there is nothing else
	s.text, s.steps, s.row = t, 0, [2]int{}
	s.base, s.end = s.end, s.end+len(t)+1
	return s
}

func (s *scan) release() {
	s.text = nil
	scans.Put(s)
}

// read returns what the text may mean at i, escaped at most depth times. It is good until
// the next read of that depth.
func (s *scan) read(i, depth int) *options {
	s.steps++
	if depth == 0 || i >= len(s.text) || !isEscape(s.text[i]) {
		o := &s.plain[depth]
		o.from, o.n, o.more = i, 0, i >= len(s.text)
		if !o.more {
			o.add(s.text[i], i+1)
		}
		return o
	}
	o := &s.known[depth-1][i%window]
	if o.mark != s.base+i {
		o.mark, o.from, o.n, o.more = s.base+i, i, 0, false
		o.add(s.text[i], i+1)
		s.unescape(i, depth, &o.options)
	}
	return &o.options
}

func (s *scan) unescape(i, depth int, o *options) {
	openers := *s.read(i, depth-1)
	o.more = openers.more
	s.steps += int64(openers.n)
	row := -1 // the end of the last one
	for k := range openers.n {
		opener, next := openers.at(k)
		o.add(opener, next)
		switch opener {
		case '+':
			o.add(' ', next)
		case '%':
			s.readHex(next, 2, o)
		case '\\':
			s.readEscaped(next, depth-1, o)
			// A row of backslashes is read to its end, too, however often what is
			// behind it was escaped.
			if end := s.rowEnd(next); end > next && end < next+maxRow && end != row {
				s.readEscaped(end, 0, o)
				row = end
			}
		case '&':
			s.readEntity(next, depth, o)
		}
	}
}

// readHex adds the byte that n hexadecimal digits at i say.
func (s *scan) readHex(i, n int, o *options) {
	v := 0
	for k := range n {
		if i+k >= len(s.text) {
			o.more = true
			return
		}
		d := hexDigit(s.text[i+k])
		if d < 0 {
			return
		}
		v = v<<4 | d
	}
	if v <= 0xff {
		o.add(byte(v), i+n)
	}
}

func hexDigit(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b >= 'a' && b <= 'f':
		return int(b-'a') + 10
	case b >= 'A' && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}

// readEscaped adds what is after a backslash: \u002b, \x2b, and any character for itself,
// so that a match never begins within an escape.
func (s *scan) readEscaped(i, depth int, o *options) {
	escaped := s.read(i, depth)
	o.more = o.more || escaped.more
	s.steps += int64(escaped.n)
	for k := range escaped.n {
		b, next := escaped.at(k)
		o.add(b, next)
		switch b {
		case 'u':
			s.readHex(next, 4, o)
		case 'x':
			s.readHex(next, 2, o)
		}
	}
}

// rowEnd returns where a row of backslashes ends that i is in or at the beginning of, and
// i where there is none. No more than maxRow of them are looked at.
func (s *scan) rowEnd(i int) int {
	if i < s.row[0] || i >= s.row[1] {
		s.row = [2]int{i, i}
	}
	for s.row[1] < len(s.text) && s.text[s.row[1]] == '\\' && s.row[1] < i+maxRow {
		s.row[1]++
		s.steps++
	}
	return min(s.row[1], i+maxRow)
}

// maxRow is more than how many backslashes one character is escaped with by eight
// programs in a row.
const maxRow = 256

// nearRow is how near to the end of a row of backslashes it matters from which of them
// what is behind it is read: each nesting reads on from twice as many.
const nearRow = 1 << maxNesting

// entities are the named characters of HTML that are printable ASCII.
var entities = map[string]byte{
	"amp": '&', "AMP": '&', "lt": '<', "LT": '<', "gt": '>', "GT": '>', "quot": '"', "QUOT": '"', "apos": '\'', "sol": '/', "plus": '+',
	"equals": '=', "colon": ':', "semi": ';', "period": '.', "comma": ',', "commat": '@', "dollar": '$', "percnt": '%', "excl": '!',
	"num": '#', "lpar": '(', "rpar": ')', "ast": '*', "midast": '*', "quest": '?', "lsqb": '[', "lbrack": '[', "rsqb": ']', "rbrack": ']',
	"lcub": '{', "lbrace": '{', "rcub": '}', "rbrace": '}', "bsol": '\\', "verbar": '|', "vert": '|', "VerticalLine": '|', "lowbar": '_',
	"UnderBar": '_', "Hat": '^', "grave": '`', "DiacriticalGrave": '`',
}

const (
	maxEntity = 16 // characters of a name
	maxDigits = 8  // digits of a number, zeros before it included
)

// readEntity adds what is after an ampersand: a name or a number, and a semicolon.
func (s *scan) readEntity(i, depth int, o *options) {
	first := *s.read(i, depth-1)
	o.more = o.more || first.more
	s.steps += int64(first.n)
	for k := range first.n {
		if b, next := first.at(k); b == '#' {
			s.readNumber(next, depth, o)
		}
	}
	t, k := s.text, i
	for k < len(t) && k-i < maxEntity && (t[k]|0x20 >= 'a' && t[k]|0x20 <= 'z') {
		k++
	}
	s.steps += int64(k - i)
	if k == len(t) && k-i < maxEntity {
		o.more = true
		return
	}
	if k == i {
		return
	}
	if b, ok := entities[string(t[i:k])]; ok {
		s.readEnd(k, depth, b, o)
	}
}

func (s *scan) readNumber(i, depth int, o *options) {
	t := s.text
	base, k := 10, i
	if k < len(t) && t[k]|0x20 == 'x' {
		base, k = 16, k+1
	}
	v, digits := 0, 0
	for ; k < len(t) && digits < maxDigits; k, digits = k+1, digits+1 {
		d := hexDigit(t[k])
		if d < 0 || d >= base {
			break
		}
		v = v*base + d
	}
	s.steps += int64(k - i)
	switch {
	case k >= len(t):
		o.more = true
	case digits > 0 && v <= 0xff:
		s.readEnd(k, depth, byte(v), o)
	}
}

// readEnd adds b where there is a semicolon.
func (s *scan) readEnd(i, depth int, b byte, o *options) {
	end := s.read(i, depth-1)
	o.more = o.more || end.more
	s.steps += int64(end.n)
	for k := range end.n {
		if c, next := end.at(k); c == ';' {
			o.add(b, next)
		}
	}
}
