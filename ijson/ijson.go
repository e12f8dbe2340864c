// Package ijson reads and writes the JSON that is authorised, signed or
// recorded: strict I-JSON (RFC 7493) in, canonical JSON (RFC 8785) out.
//
// It exists because two parsers that read one text differently are a way
// around every policy: what was judged is not what was done. So a text that
// any common parser might read differently is refused, not repaired: duplicate
// names (also names that are equal under case folding, which encoding/json
// takes for one), a NUL in a name, invalid UTF-8, a byte order mark, lone
// surrogates, trailing bytes, and numbers that a parser working in binary
// floating point would change. What is left is read by a second, independent
// parser wherever a value is used, and both must accept it.
//
// Differences from RFC 7493: noncharacters (Section 2.1) are accepted, as
// every parser reads them alike; a top-level value may be of any kind, as
// Section 2 allows; and the recommendation of Section 2.2 on numbers is a rule.
//
// Errors are plain: a short text that names the place. Callers make them into
// refusals. The package does not limit sizes; callers do, before reading.
package ijson

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep arrays and objects may be nested.
const MaxDepth = 64

// MaxNames is how many names one object may have. No call has as many, and what
// reads an object after us may not be linear in them.
const MaxNames = 10_000

// Check reports why b is not one strict JSON value, or nil. It allocates
// nothing for ordinary texts.
func Check(b []byte) error {
	s := scanners.Get().(*scanner)
	err := s.check(b)
	s.release()
	return err
}

// Canonical checks b and returns its RFC 8785 form in a new slice. The form
// passes Check itself, and Canonical does not change it.
func Canonical(b []byte) ([]byte, error) {
	if err := Check(b); err != nil {
		return nil, err
	}
	return canonicalize(append(make([]byte, 0, len(b)), b...))
}

func canonicalize(own []byte) ([]byte, error) {
	v := jsontext.Value(own)
	if err := v.Canonicalize(); err != nil {
		return nil, fmt.Errorf("canonicalizing: %w", err)
	}
	return v, nil
}

// Unmarshal checks b and stores it in v. Names match by their exact case; a
// member that v does not know is an error. When it returns an error, v may
// have been written to in part and must not be used.
func Unmarshal(b []byte, v any) error {
	if err := Check(b); err != nil {
		return err
	}
	return Explain(json.Unmarshal(b, v, strict))
}

// UnmarshalLax is Unmarshal except that unknown members are ignored. It is for
// claims and key members where the RFC says that what is not understood is
// ignored.
func UnmarshalLax(b []byte, v any) error {
	if err := Check(b); err != nil {
		return err
	}
	return Explain(json.Unmarshal(b, v))
}

var strict = json.RejectUnknownMembers(true)

// Marshal returns the canonical encoding (RFC 8785) of a value of ours. It is
// an error when the encoding would not pass Check: a number that would change
// must be a string.
func Marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if err := Check(b); err != nil {
		return nil, err
	}
	return canonicalize(b)
}

// Members returns the members of an object, raw, by their unescaped names. It
// checks b again, so that it cannot be misused on what was not checked; the
// values do not alias b.
func Members(b []byte) (map[string]jsontext.Value, error) {
	if err := Check(b); err != nil {
		return nil, err
	}
	if jsontext.Value(b).Kind() != '{' {
		return nil, fmt.Errorf("at the top: an object is needed")
	}
	var m map[string]jsontext.Value
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, Explain(err)
	}
	return m, nil
}

// Explain words an error of the json package as this package words its own:
// the place and what is wrong there, without the names of Go types. It is for
// callers that unmarshal a part of what passed Check. Other errors, and nil,
// are returned as they are.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	var se *json.SemanticError
	if !errors.As(err, &se) {
		return err
	}
	place := "at the top"
	if se.JSONPointer != "" {
		place = fmt.Sprintf("at %.128q", string(se.JSONPointer))
	}
	switch {
	case errors.Is(se.Err, json.ErrUnknownName):
		return fmt.Errorf("%s: an unknown member", place)
	// What a type of ours says about its own text.
	case se.Err != nil && !errors.Is(se.Err, strconv.ErrSyntax) && !errors.Is(se.Err, strconv.ErrRange):
		return fmt.Errorf("%s: %w", place, se.Err)
	}
	return fmt.Errorf("%s: the wrong type of value", place)
}
