package bankserver

import (
	"fmt"
	"strconv"
	"strings"
)

// An Amount is money in cents. It is written as a JSON number of units with at
// most two places and read from that text, digit by digit: a binary fraction
// never comes between what was sent and what is paid.
type Amount int64

// String writes units and two places, "1234.50".
func (a Amount) String() string {
	sign, cents := "", int64(a)
	if cents < 0 {
		// The least int64 has no positive counterpart; no account holds it,
		// because ParseAmount and the checked sums stay far from it.
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

// MarshalJSON writes a number, so that a rule can compare it.
func (a Amount) MarshalJSON() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalJSON reads a number by its literal text.
func (a *Amount) UnmarshalJSON(b []byte) error {
	v, err := ParseAmount(string(b))
	if err != nil {
		return err
	}
	*a = v
	return nil
}

// ParseAmount reads a decimal of at most two places without sign and exponent.
// A third place is refused and not rounded, even when it is zero.
func ParseAmount(s string) (Amount, error) {
	units, places, pointed := strings.Cut(s, ".")
	if !digits(units) || pointed && (!digits(places) || len(places) > 2) || len(units) > 1 && units[0] == '0' {
		return 0, fmt.Errorf("the amount must be a number with at most two decimal places, like 12.50, and is %.40q", s)
	}
	// Thirteen digits of units are far below 2^63 cents and, as a number of
	// JSON, still exact in clients that know only binary fractions.
	if len(units) > 13 {
		return 0, fmt.Errorf("the amount %.40q is too large", s)
	}
	n, err := strconv.ParseInt(units+(places + "00")[:2], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the amount: %w", err)
	}
	return Amount(n), nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
