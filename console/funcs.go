package console

import (
	"fmt"
	"html/template"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var funcs = template.FuncMap{
	"asset":  func(name string) string { return AssetPath + assets[name].Name },
	"when":   when,
	"until":  until,
	"iso":    iso,
	"exact":  exact,
	"short":  short,
	"label":  label,
	"plural": plural,
	"number": number,
	"join":   func(s []string) string { return strings.Join(s, ", ") },
	"plain":  Plain,
	"flat":   Flat,
	"long":   long,
	"path":   url.PathEscape,
	"query":  url.QueryEscape,
	"dict":   dict,
	"add":    func(a, b int) int { return a + b },
	"tier":   tierWord,
	"state":  StateWord,
	"mark":   stateMark,
	"secs":   func(t time.Time) int64 { return t.Unix() },
	"first":  first,
	"upper":  upper,
	"waits":  func(code string) bool { return code == "approval_required" || code == "approval_pending" },
}

// A Moment is a time as it is shown: relative, with the exact one to be had.
type Moment struct{ ISO, Exact, Text, Mode string }

// when says how long ago something was.
func when(now, at time.Time) Moment { return Moment{iso(at), exact(at), ago(now, at), "ago"} }

// until says how much time is left.
func until(now, at time.Time) Moment { return Moment{iso(at), exact(at), left(now, at), "left"} }

func iso(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func exact(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 UTC") }

// ago and left write times as src/times.ts does, which keeps them current.
func ago(now, at time.Time) string {
	d := now.Sub(at)
	if d < 0 {
		return "in " + span(-d)
	}
	if d < 10*time.Second {
		return "just now"
	}
	return span(d) + " ago"
}

func left(now, at time.Time) string {
	d := at.Sub(now)
	if d <= 0 {
		return "no time left"
	}
	return span(d) + " left"
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d/time.Hour))
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}

// short keeps an id's prefix and its first characters, which is enough to tell two
// apart on one page. Copying gives the whole.
func short(id string) string {
	const keep = 6
	rest := id
	if m := prefix.FindString(id); m != "" {
		rest = id[len(m):]
	}
	if len(rest) <= keep+2 {
		return id
	}
	return id[:len(id)-len(rest)+keep] + "…"
}

// label shortens an id, and leaves a name as it is.
func label(s string) string {
	const name = 32
	if prefix.MatchString(s) || len(s) > name && !strings.Contains(s, "/") {
		return short(s)
	}
	return s
}

// prefix is what says of what kind an id is.
var prefix = regexp.MustCompile(`^(?:[a-z]{2,4}_|sha-256:)`)

func plural(n any, one, many string) string {
	if s := number(n); s != "1" {
		return s + " " + many
	}
	return "1 " + one
}

// number groups the digits of a number by thousands with thin spaces.
func number(v any) string {
	s := fmt.Sprint(v)
	if _, err := strconv.ParseInt(s, 10, 64); err != nil || len(s) < 5 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteRune('\u202f')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func dict(pairs ...any) (map[string]any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("a name in a template is not a string: %v", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}

// long reports whether a text is of more than a few lines: it then scrolls by itself,
// so that nothing that follows it is pushed off the page.
func long(t Text) bool {
	const few = 400
	n := 0
	for _, s := range t {
		n += len(s.Text) + len(s.Code)
	}
	return n > few
}

// upper begins a sentence.
func upper(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + s[n:]
}

func first(s string) string {
	for _, r := range s {
		return strings.ToUpper(string(r))
	}
	return "?"
}

// tierWord is what is shown of a tier. A tier that is not known is shown as the
// strictest.
func tierWord(tier string) string {
	switch tier {
	case "routine", "guarded", "irreversible":
		return tier
	}
	return "forbidden"
}

// StateWord names an approval’s state for people.
func StateWord(state string) string {
	switch state {
	case "pending":
		return "Waiting"
	case "approved":
		return "Approved, not used yet"
	case "spent":
		return "Running"
	case "succeeded":
		return "Done"
	case "failed":
		return "Failed"
	case "indeterminate":
		return "Outcome unknown"
	case "denied":
		return "Refused"
	case "expired":
		return "Expired"
	case "cancelled":
		return "Cancelled"
	case "superseded":
		return "Superseded"
	case "revoked":
		return "Revoked"
	}
	return "Unknown"
}

// stateMark is which of the four looks a state has.
func stateMark(state string) string {
	switch state {
	case "succeeded":
		return "good"
	case "pending", "approved", "spent", "indeterminate":
		return "open"
	case "denied", "failed", "revoked":
		return "bad"
	}
	return "quiet"
}
