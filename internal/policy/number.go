package policy

import (
	"strings"

	"github.com/cedar-policy/cedar-go"
)

// A number is the exact value of a JSON number: ±mant × 10^exp, where mant does
// not end in 0 unless it is 0. Floating point never comes near an amount.
type number struct {
	neg  bool
	mant uint64
	exp  int
}

const (
	// maxDigits keeps mant within 64 bits. A number of more significant digits
	// has no image in Cedar anyway.
	maxDigits = 19

	// maxExp bounds the exponent long before it matters: Cedar's numbers end at
	// 10^19.
	maxExp = 1000

	maxInteger = 1<<53 - 1 // RFC 7493, Section 2.2
)

// parseNumber reads a literal of the JSON grammar. It is not ok for what is no
// such literal and for numbers too long or too large to have an image.
func parseNumber(lit string) (n number, ok bool) {
	lit, n.neg = strings.CutPrefix(lit, "-")
	mant, exp, hasExp := cutExponent(lit)
	whole, frac, hasFrac := strings.Cut(mant, ".")
	if !isDigits(whole) || (hasFrac && !isDigits(frac)) || (len(whole) > 1 && whole[0] == '0') {
		return number{}, false
	}
	if hasExp {
		if n.exp, ok = parseExponent(exp); !ok {
			return number{}, false
		}
	}
	n.exp -= len(frac)
	digits := strings.TrimLeft(whole+frac, "0")
	if digits == "" {
		return number{}, true // zero, and minus zero is zero
	}
	trimmed := strings.TrimRight(digits, "0")
	n.exp += len(digits) - len(trimmed)
	if len(trimmed) > maxDigits || n.exp > maxExp || n.exp < -maxExp {
		return number{}, false
	}
	for i := range len(trimmed) {
		n.mant = n.mant*10 + uint64(trimmed[i]-'0')
	}
	return n, true
}

func cutExponent(lit string) (mant, exp string, ok bool) {
	if i := strings.IndexAny(lit, "eE"); i >= 0 {
		return lit[:i], lit[i+1:], true
	}
	return lit, "", false
}

func parseExponent(s string) (exp int, ok bool) {
	s, plus := strings.CutPrefix(s, "+")
	neg := false
	if !plus {
		s, neg = strings.CutPrefix(s, "-")
	}
	if !isDigits(s) {
		return 0, false
	}
	s = strings.TrimLeft(s, "0")
	if len(s) > 4 {
		return 0, false
	}
	for i := range len(s) {
		exp = exp*10 + int(s[i]-'0')
	}
	if neg {
		exp = -exp
	}
	return exp, true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// integer reports whether the number is whole.
func (n number) integer() bool { return n.exp >= 0 }

// long returns the number as a Cedar long. Beyond ±(2^53−1) the sender and the
// upstream may not agree on the value, so there is no image.
func (n number) long() (int64, bool) {
	return n.scaled(0, maxInteger)
}

// units returns the number in ten-thousandths, which is what a Cedar decimal
// counts. It is not ok for more than four places and beyond the range.
func (n number) units() (int64, bool) {
	if n.neg {
		return n.scaled(4, 1<<63)
	}
	return n.scaled(4, 1<<63-1)
}

// scaled returns n × 10^places when that is whole and its absolute value at most
// limit.
func (n number) scaled(places int, limit uint64) (int64, bool) {
	e := n.exp + places
	if n.mant == 0 {
		return 0, true
	}
	if e < 0 || e > 19 {
		return 0, false
	}
	v := n.mant
	for range e {
		if v > limit/10 {
			return 0, false
		}
		v *= 10
	}
	if v > limit {
		return 0, false
	}
	if n.neg {
		return -int64(v), true // -(1<<63) is its own negative
	}
	return int64(v), true
}

// ParseUnits reads a decimal of at most four places within Cedar's range, as
// limits and constraints are written ("500.00"), in ten-thousandths. Exponents
// are not taken: nobody writes an amount so.
func ParseUnits(s string) (units int64, ok bool) {
	if strings.ContainsAny(s, "eE") {
		return 0, false
	}
	n, ok := parseNumber(s)
	if !ok {
		return 0, false
	}
	return n.units()
}

// cedarDecimal makes the Cedar decimal of so many ten-thousandths.
func cedarDecimal(units int64) (cedar.Value, bool) {
	d, err := cedar.NewDecimal(units, -4)
	return d, err == nil
}
