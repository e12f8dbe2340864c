package ijson

import (
	"errors"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxSafe is 2^53-1, the largest integer of which every double-based parser
// agrees (RFC 7493, Section 2.2).
const maxSafe = 1<<53 - 1

var (
	errNumber  = errors.New("not a JSON number")
	errInteger = errors.New("an integer beyond ±(2^53-1): send it as a string")
	errDecimal = errors.New("a number that does not survive RFC 8785: send it as a string")
)

// Number applies the number rule to one literal and returns its RFC 8785 form.
//
// The rule: the form must have exactly the literal's decimal value, and neither
// may be a plain integer beyond ±(2^53-1). So 100.0, 1E2 and -0 pass, as 100,
// 100 and 0; 1e400, 0.1000000000000000055 and 9007199254740993 do not, and
// 1e20 does not because its form, 100000000000000000000, is such an integer.
func Number(lit string) (canonical string, err error) {
	n, kind := scanNumber(lit)
	if kind == 0 || n != len(lit) {
		return "", errNumber
	}
	if err := checkNumber(lit, kind); err != nil {
		return "", err
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil {
		return "", errDecimal
	}
	if f == 0 {
		f = 0 // RFC 8785 writes a negative zero as 0
	}
	return string(jsontext.AppendFloat(nil, f, 64)), nil
}

// The kinds of literal that scanNumber tells apart; zero is no number.
const (
	plainInteger = 1 + iota
	decimal      // with a fraction or an exponent
)

// scanNumber returns the length and the kind of the number that s starts with
// (RFC 8259, Section 6).
func scanNumber[T string | []byte](s T) (n, kind int) {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	switch {
	case i < len(s) && s[i] == '0':
		i++
	case i < len(s) && s[i] >= '1' && s[i] <= '9':
		i = digits(s, i)
	default:
		return 0, 0
	}
	kind = plainInteger
	if i < len(s) && s[i] == '.' {
		kind = decimal
		j := digits(s, i+1)
		if j == i+1 {
			return 0, 0
		}
		i = j
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		kind = decimal
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		j := digits(s, i)
		if j == i {
			return 0, 0
		}
		i = j
	}
	return i, kind
}

func digits[T string | []byte](s T, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

// checkNumber applies the number rule to a literal of the given kind.
func checkNumber[T string | []byte](lit T, kind int) error {
	// Every integer of at most 15 digits is within ±(2^53-1).
	if kind == plainInteger {
		if len(lit) <= 15 {
			return nil
		}
		n, err := strconv.ParseInt(string(lit), 10, 64)
		if err != nil || n > maxSafe || n < -maxSafe {
			return errInteger
		}
		return nil
	}
	// Two decimals of at most 15 digits are never the same double, so the
	// shortest form of the nearest one is this very value. Without an exponent
	// the magnitude stays far from where doubles get sparser.
	if len(lit) <= 16 {
		for i := 0; ; i++ {
			if i == len(lit) {
				return nil
			}
			if c := lit[i]; c == 'e' || c == 'E' {
				break
			}
		}
	}
	return checkDecimal(string(lit))
}

func checkDecimal(lit string) error {
	// A double's shortest form has at most 17 significant digits, so a value
	// of more never is one. This also bounds the work for a long literal.
	sig, exp := decompose(lit)
	if len(sig) > 17 || len(sig) > 0 && exp == farAway {
		return errDecimal
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil {
		return errDecimal // beyond the largest double
	}
	var buf [32]byte
	form := string(jsontext.AppendFloat(buf[:0], f, 64))
	if s, e := decompose(form); s != sig || e != exp {
		return errDecimal
	}
	if _, kind := scanNumber(form); kind == plainInteger {
		return checkNumber(form, kind)
	}
	return nil
}

// farAway is the exponent of what no double comes near.
const farAway = 1 << 20

// decompose writes the magnitude of a number as 0.sig × 10^exp with neither
// leading nor trailing zeros in sig; zero is ("", 0). The sign is not looked
// at: parsing and formatting keep it but for zero, whose sign means nothing.
func decompose(lit string) (sig string, exp int) {
	lit = strings.TrimPrefix(lit, "-")
	if i := strings.IndexAny(lit, "eE"); i >= 0 {
		e, err := strconv.Atoi(lit[i+1:])
		if err != nil || e > farAway/2 || e < -farAway/2 {
			e = farAway
		}
		lit, exp = lit[:i], e
	}
	whole, frac, _ := strings.Cut(lit, ".")
	sig = whole + frac
	exp2 := len(whole)
	for len(sig) > 0 && sig[0] == '0' {
		sig, exp2 = sig[1:], exp2-1
	}
	sig = strings.TrimRight(sig, "0")
	if sig == "" {
		return "", 0
	}
	if exp == farAway || exp2 > farAway/4 || exp2 < -farAway/4 {
		return sig, farAway
	}
	return sig, exp + exp2
}
