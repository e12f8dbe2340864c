package custody

import (
	"encoding/base64"
	"fmt"
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

// inside returns the secrets that a credential holds, where it is more than a secret: of a
// header field's whole value what is behind the scheme; of Basic credentials (RFC 7617),
// which are base64 of user and password, what they say, the password, and the user, which
// is where many an API has its key; and of cookies and parameters their values.
func inside(credential string) []string { return unpack(nil, credential, maxLayers) }

// maxLayers is how deep a credential is looked into: a scheme, its parameters, and user and
// password in one of them.
const maxLayers = 3

func unpack(list []string, credential string, layers int) []string {
	if layers == 0 {
		return list
	}
	add := func(s string) {
		if len(s) >= minSecret {
			list = unpack(append(list, s), s, layers-1)
		}
	}
	if rest, ok := behindScheme(credential); ok {
		add(rest)
	}
	if user, password, ok := basic(credential); ok {
		add(user + ":" + password)
		add(user)
		add(password)
	}
	for part := range strings.FieldsFuncSeq(credential, func(r rune) bool { return r == ';' || r == ',' }) {
		name, value, ok := strings.Cut(strings.Trim(part, " "), "=")
		if ok && token(name) {
			add(strings.Trim(value, `"`))
		}
	}
	return list
}

// behindScheme returns what is behind the first space of a header field's value.
func behindScheme(s string) (string, bool) {
	scheme, rest, ok := strings.Cut(s, " ")
	return strings.Trim(rest, " "), ok && token(scheme)
}

// basic reads Basic credentials, without the scheme.
func basic(s string) (user, password string, ok bool) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil || !visible(string(b)) {
		return "", "", false
	}
	return strings.Cut(string(b), ":")
}

// unseen reports why a mask would not find what a credential holds: it is too short to be
// told from ordinary text. A password of one character is what APIs want beside a key that
// is the user.
func unseen(credential string) error {
	if rest, ok := behindScheme(credential); ok {
		if len(rest) < minSecret {
			return fmt.Errorf("it is a scheme and %d characters; fewer than %d could not be told from ordinary text in answers", len(rest), minSecret)
		}
		credential = rest
	}
	user, password, ok := basic(credential)
	switch {
	case !ok:
		return nil
	case len(password) > 1 && len(password) < minSecret:
		return fmt.Errorf("it is user and password, and the password has %d characters; fewer than %d could not be told from ordinary text in answers", len(password), minSecret)
	case len(password) <= 1 && len(user) < minSecret:
		return fmt.Errorf("it is a user of %d characters without a password; fewer than %d could not be told from ordinary text in answers", len(user), minSecret)
	}
	return nil
}

// token reports whether s is a token of RFC 9110, Section 5.6.2, as names of schemes and
// cookies are.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// visible reports whether s is of printable ASCII alone, which is what a header field can
// carry such that nobody reads it as something else.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
