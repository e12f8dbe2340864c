package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// maxAnswer is the largest metadata document, token answer or problem that is
// read.
const maxAnswer = 64 << 10

// An answered is what is known of a refusal out of its body: a problem (RFC
// 9457) or an OAuth error (RFC 6749, Section 5.2).
type answered struct {
	Code        counterfoil.Code `json:"code"`
	Detail      string           `json:"detail"`
	RequestID   string           `json:"request_id"`
	OAuth       string           `json:"error"`
	Description string           `json:"error_description"`
	Approval    jsontext.Value   `json:"approval"`
}

// readAnswered reads what it can: a body of another form leaves everything
// empty, because some proxy may have answered in the server's place.
func readAnswered(body []byte) answered {
	var a answered
	if err := ijson.UnmarshalLax(body, &a); err != nil {
		return answered{}
	}
	if !validCode(a.Code) {
		a.Code = ""
	}
	if a.Detail == "" {
		a.Detail = a.Description
	}
	a.Detail, a.OAuth, a.RequestID = printable(a.Detail), printable(a.OAuth), printable(a.RequestID)
	return a
}

// err returns the refusal or the fault that the answer is, and nil when the
// answer names no code.
func (a answered) err() error {
	if a.Code == "" {
		return nil
	}
	detail := a.Detail
	if detail == "" {
		detail = a.Code.Wire().Meaning
	}
	if a.RequestID != "" {
		detail += " (request " + a.RequestID + ")"
	}
	if a.Code.Wire().Fault && a.Code.Wire().Code == a.Code {
		return counterfoil.NewFault(a.Code, errors.New(detail))
	}
	r := &counterfoil.Refusal{Code: a.Code, Detail: detail}
	if len(a.Approval) > 0 {
		var s counterfoil.ApprovalStatus
		if json.Unmarshal(a.Approval, &s) == nil {
			r.Approval = &s
		}
	}
	return r
}

// refusedBy makes an error of what a server answered with a status that is no
// success.
func refusedBy(who string, status int, body []byte) error {
	a := readAnswered(body)
	if err := a.err(); err != nil {
		return err
	}
	if a.OAuth != "" {
		return fmt.Errorf("%s answered %d %s: %s", who, status, a.OAuth, a.Detail)
	}
	return fmt.Errorf("%s answered %d %s", who, status, http.StatusText(status))
}

// readLimited reads a body of at most maxAnswer bytes and closes it.
func readLimited(body io.ReadCloser) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	err = errors.Join(err, body.Close())
	if err != nil {
		return nil, fmt.Errorf("reading an answer: %w", err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("reading an answer: it is larger than %d bytes", maxAnswer)
	}
	return b, nil
}

// peek reads the beginning of a body and puts it back, so that the caller still
// reads all of it.
func peek(resp *http.Response) []byte {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	rest := resp.Body
	back := io.Reader(io.MultiReader(bytes.NewReader(b), rest))
	if err != nil {
		back = io.MultiReader(bytes.NewReader(b), broken{err})
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{back, rest}
	return b
}

// broken is what comes after a body that could not be read.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// validCode reports whether c has the form of our codes. One that this build
// does not know is kept: a newer server may answer with it.
func validCode(c counterfoil.Code) bool {
	for i := range len(c) {
		if (c[i] < 'a' || c[i] > 'z') && c[i] != '_' {
			return false
		}
	}
	return len(c) <= 64
}

// printable makes a server's words safe for a terminal and a log line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 500 {
		s = string(r[:500]) + "…"
	}
	return s
}
