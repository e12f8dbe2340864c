package custody

// What programs do to a text that they quote: JSON and its relatives escape with a
// backslash, URLs with a percent sign or, for a space, a plus sign, HTML with an
// ampersand; and what was escaped may be escaped again.

// maxNesting is how many times escaped a byte is looked for.
const maxNesting = 3

// An option is a byte that a text may mean, and where the text goes on.
type option struct {
	b    byte
	next int
}

// options are all that a text may mean at one place. There are never more than a few:
// each nesting adds at most one reading of each kind of escape.
type options struct {
	list [32]option
	n    int
	more bool // what is not there yet could add to them
}

func (o *options) add(b byte, next int) {
	for i := range o.n {
		if o.list[i] == (option{b, next}) {
			return
		}
	}
	if o.n < len(o.list) {
		o.list[o.n] = option{b, next}
		o.n++
	}
}

func isEscape(b byte) bool { return b == '\\' || b == '%' || b == '&' || b == '+' }

// read adds what t may mean at i, escaped at most depth times.
func read(t []byte, i, depth int, o *options) {
	if i >= len(t) {
		o.more = true
		return
	}
	o.add(t[i], i+1)
	if depth == 0 || !isEscape(t[i]) {
		return
	}
	var openers options
	read(t, i, depth-1, &openers)
	o.more = o.more || openers.more
	for _, opener := range openers.list[:openers.n] {
		o.add(opener.b, opener.next)
		switch opener.b {
		case '+':
			o.add(' ', opener.next)
		case '%':
			readHex(t, opener.next, 2, o)
		case '\\':
			readBackslash(t, opener.next, depth, o)
		case '&':
			readEntity(t, opener.next, depth, o)
		}
	}
}

// readHex adds the byte that n hexadecimal digits at i say.
func readHex(t []byte, i, n int, o *options) {
	v := 0
	for k := range n {
		if i+k >= len(t) {
			o.more = true
			return
		}
		d := hexDigit(t[i+k])
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

// readBackslash adds what is after a backslash: \u002b, \x2b, and any character for
// itself, so that a match never begins within an escape. A row of backslashes is read to
// its end, too, however often what is behind it was escaped.
func readBackslash(t []byte, i, depth int, o *options) {
	var escaped options
	read(t, i, depth-1, &escaped)
	end := i
	for end < len(t) && t[end] == '\\' && end-i < maxRow {
		end++
	}
	if end > i {
		read(t, end, 0, &escaped)
	}
	o.more = o.more || escaped.more
	for _, e := range escaped.list[:escaped.n] {
		o.add(e.b, e.next)
		switch e.b {
		case 'u':
			readHex(t, e.next, 4, o)
		case 'x':
			readHex(t, e.next, 2, o)
		}
	}
}

// maxRow is how many backslashes one character is escaped with at most, by six programs
// in a row.
const maxRow = 63

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
func readEntity(t []byte, i, depth int, o *options) {
	var first options
	read(t, i, depth-1, &first)
	o.more = o.more || first.more
	for _, f := range first.list[:first.n] {
		if f.b == '#' {
			readNumber(t, f.next, depth, o)
		}
	}
	k := i
	for k < len(t) && k-i < maxEntity && (t[k]|0x20 >= 'a' && t[k]|0x20 <= 'z') {
		k++
	}
	if k == len(t) && k-i < maxEntity {
		o.more = true
		return
	}
	if b, ok := entities[string(t[i:k])]; ok {
		readEnd(t, k, depth, b, o)
	}
}

func readNumber(t []byte, i, depth int, o *options) {
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
	switch {
	case k >= len(t):
		o.more = true
	case digits > 0 && v <= 0xff:
		readEnd(t, k, depth, byte(v), o)
	}
}

// readEnd adds b where there is a semicolon.
func readEnd(t []byte, i, depth int, b byte, o *options) {
	var end options
	read(t, i, depth-1, &end)
	o.more = o.more || end.more
	for _, e := range end.list[:end.n] {
		if e.b == ';' {
			o.add(b, e.next)
		}
	}
}
