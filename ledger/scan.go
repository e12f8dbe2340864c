package ledger

import (
	"bytes"
	"errors"
	"strconv"
)

var errShape = errors.New("it is not one JSON object as entries are written")

// Members calls fn with the name and the value of each top-level member of an
// encoded entry, in their order, until fn returns false. It allocates nothing,
// which is why it exists beside Parse: followers and verifiers look at two
// members of millions of entries. It understands encodings that Encode made
// (no space between tokens, names sorted and without escapes) and returns an
// error for what it sees not to be one; it does not validate the values. Name
// and value are parts of entry.
func Members(entry []byte, fn func(name, value []byte) bool) error {
	if len(entry) < 2 || entry[0] != '{' || entry[len(entry)-1] != '}' {
		return errShape
	}
	var last []byte
	for i := 1; ; {
		name, rest, err := cutName(entry, i)
		if err != nil {
			return err
		}
		if last != nil && bytes.Compare(last, name) >= 0 {
			return errShape // a name twice, or out of order
		}
		last = name
		end, err := skipValue(entry, rest)
		if err != nil {
			return err
		}
		if !fn(name, entry[rest:end]) {
			return nil
		}
		switch {
		case entry[end] == ',':
			i = end + 1
		case entry[end] == '}' && end == len(entry)-1:
			return nil
		default:
			return errShape
		}
	}
}

// cutName returns the member name that begins at i and where its value begins.
func cutName(b []byte, i int) (name []byte, value int, err error) {
	if i >= len(b) || b[i] != '"' {
		return nil, 0, errShape
	}
	n := bytes.IndexByte(b[i+1:], '"')
	if n < 0 {
		return nil, 0, errShape
	}
	name = b[i+1 : i+1+n]
	value = i + n + 3
	if value >= len(b) || b[value-1] != ':' || bytes.IndexByte(name, '\\') >= 0 {
		return nil, 0, errShape
	}
	return name, value, nil
}

// skipValue returns where the value that begins at i ends, which is before the
// end of b.
func skipValue(b []byte, i int) (int, error) {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	}
	start := i
	for i < len(b) && scalar[b[i]] {
		i++
	}
	if i == start || i == len(b) {
		return 0, errShape
	}
	return i, nil
}

// scalar is what numbers, true, false and null are made of.
var scalar = func() (t [256]bool) {
	for _, c := range "+-.0123456789Eaeflnrstu" {
		t[c] = true
	}
	return t
}()

func skipNested(b []byte, i int) (int, error) {
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			end, err := skipString(b, i)
			if err != nil {
				return 0, err
			}
			i = end - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				if i+1 == len(b) {
					return 0, errShape
				}
				return i + 1, nil
			}
		}
	}
	return 0, errShape
}

// skipString returns where the string whose quote is at i ends. A quote is part
// of the string when an odd number of backslashes stands before it.
func skipString(b []byte, i int) (int, error) {
	for j := i + 1; ; {
		n := bytes.IndexByte(b[j:], '"')
		if n < 0 || j+n+1 >= len(b) {
			return 0, errShape
		}
		j += n
		slashes := 0
		for b[j-1-slashes] == '\\' {
			slashes++
		}
		j++
		if slashes%2 == 0 {
			return j, nil
		}
	}
}

// place returns what an entry says of its own place: its index, and its time
// without the quotes.
func place(entry []byte) (index int64, at []byte, err error) {
	index = -1
	err = Members(entry, func(name, value []byte) bool {
		switch string(name) {
		case "index":
			index = parseIndex(value)
		case "time":
			at = value
		}
		return true
	})
	if err != nil {
		return 0, nil, err
	}
	if index < 0 {
		return 0, nil, errors.New("it has no index")
	}
	if len(at) != len(timeLayout)+2 || at[0] != '"' {
		return 0, nil, errors.New("it has no time")
	}
	return index, at[1 : len(at)-1], nil
}

// parseIndex returns -1 for what is not an index.
func parseIndex(b []byte) int64 {
	if len(b) == 0 || len(b) > 16 {
		return -1
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	if b[0] == '0' && len(b) > 1 {
		return -1
	}
	return n
}

// Text returns the string of a value that Members gave, without its escapes.
// It is empty for a value that is not a string.
func Text(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	// JSON's escapes are a subset of Go's but for \/, which RFC 8785 never
	// writes; \u surrogate pairs it never writes either.
	s, err := strconv.Unquote(string(value))
	if err != nil {
		return ""
	}
	return s
}
