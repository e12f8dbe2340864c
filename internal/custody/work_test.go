package custody

import (
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// rows are texts of escapes alone, or nearly.
var rows = map[string]string{
	"backslashes": `\`, "rows of 8": strings.Repeat(`\`, 8) + "a", "rows of 63": strings.Repeat(`\`, 63) + "e", "rows of 70": strings.Repeat(`\`, 70) + "a", "rows of 300": strings.Repeat(`\`, 300) + "a",
	"rows of two kinds": strings.Repeat(`\`, 47) + `\x5c`, "short rows of two kinds": `\\\\\x5c\\`, "escaped backslashes": `\u005c`, "twice": `\\u005c`, "in percent": "%5c", "in entities": "&bsol;",
	"an echo of an echo": `\\\"`, "ampersands": "&", "entities": "&amp;", "entities thrice": "&amp;amp;amp;", "numbers": "&#38;#38;", "percent signs": "%", "percent": "%25", "percent thrice": "%252525",
	"plus": "+", "all of them": `\%&+`, "all of them escaped": `\u0025&amp;%26%5c\\u0026amp;%2526`, "pairs": `\\&amp;\\%25\\\\+`,
}

const jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"

func work(m *Mask, text string) int64 {
	s := newScan([]byte(text))
	defer s.release()
	for i := 0; i < len(text); {
		if end, _ := m.match(s, i); end > 0 {
			i = end
		} else {
			i = m.after(s, i)
		}
	}
	return s.steps
}

// perByte is what ought to be enough for a byte: half of what may be spent on it.
func perByte(m *Mask) float64 { return float64(m.worth(1)-m.worth(0)) / 2 }

// Whatever an answer is made of, a byte costs a bounded number of steps, and half of what
// may be spent on it at most; a secret behind it is found.
func TestMaskWorkIsLinear(t *testing.T) {
	t.Parallel()
	basic := base64.StdEncoding.EncodeToString([]byte("sk_live_0123456789:another-secret"))
	masks := map[string]*Mask{jwt: maskOf(jwt), canary: maskOf(canary), basic: maskOf(jwt, "Basic "+basic, "Bearer e"+jwt, "x5c-u0025-secret", "session=a"+jwt)}
	check := func(name, row string) {
		t.Helper()
		for secret, m := range masks {
			short, long := strings.Repeat(row, 1+2000/len(row)), strings.Repeat(row, 1+32000/len(row))
			few, many := float64(work(m, short))/float64(len(short)), float64(work(m, long))/float64(len(long))
			if many > perByte(m) || many > 1.5*few+1 {
				t.Errorf("%s, %q: %.1f steps a byte, and %.1f where there is more of it", name, row, few, many)
			}
			in := short + "x" + secret + "x" + short
			out, struck := m.Bytes([]byte(in))
			if !struck || len(out) != len(in) || strings.Contains(string(out), secret) {
				t.Errorf("%s: the secret is not found between", name)
			}
			if read := readAll(t, m, iotest.HalfReader(strings.NewReader(in))); read != string(out) {
				t.Errorf("%s: what is read differs", name)
			}
		}
	}
	for name, row := range rows {
		check(name, row)
	}
	parts := []string{`\`, `\\`, "%", "&", "+", "25", "5c", "26", "amp;", "#", "x", "u", "u00", ";", "38;", "x26", "bsol;", "e", "%25", "u0025", "u005c", "x5c", "n", "a"}
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // any texts will do
	for range 20 {
		row := ""
		for range 1 + r.IntN(12) {
			row += strings.Repeat(parts[r.IntN(len(parts))], 1+r.IntN(6))
		}
		check("a mix", row)
	}
}

// A reader does no more work than that for it, and a long row is hardly any.
func TestMaskReaderWorkIsLinear(t *testing.T) {
	t.Parallel()
	for name, row := range rows {
		text := strings.Repeat(row, (64<<10)/len(row))
		r := maskOf(jwt).Reader(io.NopCloser(strings.NewReader(text + jwt)))
		b, err := io.ReadAll(r)
		if err != nil || len(b) != len(text)+len(jwt) || strings.Contains(string(b), jwt) || !r.Struck() {
			t.Errorf("%s: %d of %d bytes, %v", name, len(b), len(text), err)
		}
		most := perByte(r.mask)
		if name == "backslashes" {
			most = 4 // a row is read once, at its beginning and its end
		}
		if float64(r.steps) > most*float64(len(b)) {
			t.Errorf("%s: %d steps for %d bytes", name, r.steps, len(b))
		}
	}
}

// Who knows the secret can still make work of it: then the answer ends, and nothing of it
// that was not judged is passed on.
func TestMaskWorkIsBounded(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("A", 4000) + "!"
	m := maskOf(secret)
	text := strings.Repeat("A", 200_000)
	r := m.Reader(io.NopCloser(strings.NewReader(text + "!")))
	b, err := io.ReadAll(r)
	if !errors.Is(err, errWork) || len(b) >= len(text) {
		t.Errorf("%d bytes were read, %v", len(b), err)
	}
	if n, err := r.Read(make([]byte, 100)); n != 0 || !errors.Is(err, errWork) {
		t.Errorf("after the end %d bytes, %v", n, err)
	}
	out, struck := m.Bytes([]byte(text)) // there may have been one
	if !struck || len(out) != len(text) || !strings.HasSuffix(string(out), "****") {
		t.Error("what was not judged is left")
	}
	// The same secret in as much of anything else.
	plain := strings.Repeat("A quick brown fox. ", 10_000)
	if read := readAll(t, m, strings.NewReader(plain+secret)); read != plain+strings.Repeat("*", len(secret)) {
		t.Error("ordinary text does not pass")
	}
	if read := readAll(t, m, iotest.OneByteReader(strings.NewReader("x"+secret))); read != "x"+strings.Repeat("*", len(secret)) {
		t.Error("the secret byte by byte is not masked")
	}
}
