package custody

import (
	"encoding/base64"
	"strings"
)

// A class is a set of bytes.
type class [4]uint64

func (c *class) add(b byte)      { c[b>>6] |= 1 << (b & 63) }
func (c *class) has(b byte) bool { return c[b>>6]&(1<<(b&63)) != 0 }

// A form is one way to write a secret: what each of its bytes may be once escapes are
// undone. The base64 forms have classes at their ends, where a character holds bits of
// the secret and of what is beside it.
type form struct {
	units   []class
	wrapped bool // may be broken into lines
}

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// formsOf returns the forms of a secret: plain, hexadecimal, and base64 at each of the
// three places in a group of three bytes at which it may begin.
func formsOf(secret string) []form {
	forms := []form{plainForm(secret), hexForm(secret)}
	for before := range 3 {
		forms = append(forms, base64Form(secret, before))
	}
	return forms
}

func plainForm(secret string) form {
	f := form{units: make([]class, len(secret))}
	for i := range len(secret) {
		f.units[i].add(secret[i])
	}
	return f
}

func hexForm(secret string) form {
	const lower, upper = "0123456789abcdef", "0123456789ABCDEF"
	f := form{units: make([]class, 2*len(secret)), wrapped: true}
	for i := range len(secret) {
		for half, digit := range [2]byte{secret[i] >> 4, secret[i] & 15} {
			f.units[2*i+half].add(lower[digit])
			f.units[2*i+half].add(upper[digit])
		}
	}
	return f
}

// base64Form is of the characters that hold a bit of the secret, where so many bytes are
// before it in its group. Both alphabets are one form; padding is no part of it.
func base64Form(secret string, before int) form {
	first, last := 8*before, 8*(before+len(secret)) // bits of the secret, last excluded
	f := form{wrapped: true}
	for char := first / 6; char*6 < last; char++ {
		var want, known byte
		for bit := range 6 {
			at := char*6 + bit
			if at < first || at >= last {
				continue
			}
			mask := byte(1) << (5 - bit)
			known |= mask
			at -= first
			if secret[at/8]&(1<<(7-at%8)) != 0 {
				want |= mask
			}
		}
		var c class
		for digit := range byte(64) {
			if digit&known != want {
				continue
			}
			c.add(base64Digits[digit])
			switch base64Digits[digit] {
			case '+':
				c.add('-')
			case '/':
				c.add('_')
			}
		}
		f.units = append(f.units, c)
	}
	return f
}

// minSecret is how long what is masked has to be. Anything shorter would strike where
// nobody wrote it, and could be guessed anyway.
const minSecret = 8

// inside returns the secrets that a secret holds: of Basic credentials (RFC 7617), which
// are base64 of user and password, what they say and the password alone.
func inside(secret string) []string {
	text := strings.TrimRight(secret, "=")
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	said := string(b)
	user, password, found := strings.Cut(said, ":")
	if !found || user == "" || !visible(said) {
		return nil
	}
	var list []string
	for _, s := range []string{said, password} {
		if len(s) >= minSecret {
			list = append(list, s)
		}
	}
	return list
}

// visible reports whether s is of printable ASCII alone, which is what a header field can
// carry such that nobody reads it as something else.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
