package custody

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

// canary has characters that each kind of escaping treats in another way.
const canary = `sk/live+9"A&<b>=_~%c\d e'z`

func maskOf(secrets ...string) *Mask {
	list := make([]counterfoil.Secret, len(secrets))
	for i, s := range secrets {
		list[i] = counterfoil.NewSecret(s)
	}
	return NewMask(list...)
}

// everyByte writes each byte of s with a format.
func everyByte(s, format string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

// quoted is a JSON string without its quotes; slash says that slashes are escaped, as
// PHP does.
func quoted(s string, slash bool) string {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		panic(err)
	}
	s = string(b[1 : len(b)-1])
	if slash {
		s = strings.ReplaceAll(s, "/", `\/`)
	}
	return s
}

// written are the ways to write a secret that a Mask finds.
func written(s string) map[string]string {
	std, web := base64.StdEncoding, base64.URLEncoding
	m := map[string]string{
		"plain": s, "with its prefix": "Bearer " + s,
		"JSON": quoted(s, false), "JSON of PHP": quoted(s, true), "JSON in JSON": quoted(quoted(s, false), false), "JSON thrice": quoted(quoted(quoted(s, true), true), true),
		"every byte \\u": everyByte(s, `\u%04x`), "upper case \\u": everyByte(s, `\u%04X`), "\\x": everyByte(s, `\x%02x`), "Go's quotes": strings.Trim(fmt.Sprintf("%q", s), `"`),
		"query": url.QueryEscape(s), "path": url.PathEscape(s), "every byte %": everyByte(s, "%%%02X"), "lower case %": everyByte(s, "%%%02x"),
		"query twice": url.QueryEscape(url.QueryEscape(s)), "query in JSON": quoted(url.QueryEscape(s), true), "JSON in a query": url.QueryEscape(quoted(s, true)),
		"HTML": html.EscapeString(s), "HTML by number": everyByte(s, "&#%d;"), "HTML by padded number": everyByte(s, "&#%05d;"), "HTML by hexadecimal": everyByte(s, "&#x%02X;"),
		"HTML twice": html.EscapeString(html.EscapeString(s)), "HTML in Go's JSON": strings.ReplaceAll(quoted(html.EscapeString(s), false), "&", `\u0026`),
		"hexadecimal": hex.EncodeToString([]byte(s)), "HEXADECIMAL": strings.ToUpper(hex.EncodeToString([]byte(s))),
	}
	for n := range 4 {
		for name, e := range map[string]*base64.Encoding{"std": std, "url": web, "std raw": std.WithPadding(base64.NoPadding), "url raw": web.WithPadding(base64.NoPadding)} {
			in := "Bearer: "[:n] + s
			m[fmt.Sprintf("base64 %s after %d bytes", name, n)] = e.EncodeToString([]byte(in))
			m[fmt.Sprintf("base64 %s after %d bytes, more behind", name, n)] = e.EncodeToString([]byte(in + "!?"))
			m[fmt.Sprintf("base64 %s after %d bytes, in a query", name, n)] = url.QueryEscape(e.EncodeToString([]byte(in)))
			m[fmt.Sprintf("base64 %s after %d bytes, in JSON of PHP", name, n)] = quoted(e.EncodeToString([]byte(in)), true)
		}
		m[fmt.Sprintf("base64 in lines after %d bytes", n)] = lines(std.EncodeToString([]byte("Bearer: "[:n]+s)), 5, "\r\n")
		m[fmt.Sprintf("base64 in lines in JSON after %d bytes", n)] = lines(std.EncodeToString([]byte("Bearer: "[:n]+s)), 7, `\n`)
	}
	return m
}

func lines(s string, width int, end string) string {
	var b strings.Builder
	for len(s) > width {
		b.WriteString(s[:width] + end)
		s = s[width:]
	}
	return b.String() + s
}

func TestMaskFindsEveryForm(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{canary, "abcdefgh", "AAAAAAAAAAAAAAAA", `\\\\\\\\\\`, "%%%%%%%%25", "++++++++", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"} {
		m := maskOf(secret)
		for name, text := range written(secret) {
			for _, around := range [][2]string{{"", ""}, {`{"a":"`, `"}`}, {"x: ", "\r\n"}, {"data: ", "\n\n"}, {"(", ")"}} {
				in := around[0] + text + around[1]
				out, struck := m.Bytes([]byte(in))
				switch {
				case !struck:
					t.Errorf("%q %s: %q was not found", secret, name, in)
				case len(out) != len(in):
					t.Errorf("%q %s: %d bytes became %d", secret, name, len(in), len(out))
				case !strings.HasPrefix(string(out), around[0]) || !strings.HasSuffix(string(out), around[1]):
					t.Errorf("%q %s: %q became %q", secret, name, in, out)
				}
				if again, struck := m.Bytes(out); struck {
					t.Errorf("%q %s: %q still holds it, %q", secret, name, out, again)
				}
				if read := readAll(t, m, iotest.OneByteReader(strings.NewReader(in))); read != string(out) {
					t.Errorf("%q %s: byte by byte %q, at once %q", secret, name, read, out)
				}
			}
		}
	}
}

func readAll(t testing.TB, m *Mask, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(m.Reader(io.NopCloser(r)))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// The exact bytes that are taken: nothing of the secret is left, nothing else is gone.
func TestMaskTakesTheSecretAlone(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-token"
	m := maskOf(secret)
	for in, want := range map[string]string{
		"Bearer s3cr3t-token, yes":        "Bearer ************, yes",
		`{"a":"s3cr3t\u002dtoken","b":1}`: `{"a":"*****************","b":1}`,
		"?t=s3cr3t%2Dtoken&u=1":           "?t=**************&u=1",
		"s3cr3t-tokes3cr3t-token":         "s3cr3t-toke************",
		"s3cr3t-tokens3cr3t-token":        "************************",
		"s3cr3t-toke":                     "s3cr3t-toke",
		"S3CR3T-TOKEN":                    "S3CR3T-TOKEN",
		"%73%33%63%72%33%74-toke":         "%73%33%63%72%33%74-toke",
		`s3cr3t\u002dtoke`:                `s3cr3t\u002dtoke`,
		`\\s3cr3t-token`:                  `**************`,
		"a=s3cr3t-toke\r\nn":              "a=s3cr3t-toke\r\nn",
		base64.StdEncoding.EncodeToString([]byte("s3cr3t-tokem")): base64.StdEncoding.EncodeToString([]byte("s3cr3t-tokem")),
		"": "",
	} {
		out, struck := m.Bytes([]byte(in))
		if string(out) != want || struck != (in != want) {
			t.Errorf("%q became %q (struck %t), want %q", in, out, struck, want)
		}
	}
	b := []byte("nothing here")
	if out, _ := m.Bytes(b); &out[0] != &b[0] {
		t.Error("what holds no secret was copied")
	}
	own := []byte("s3cr3t-token")
	if m.Bytes(own); string(own) != secret {
		t.Error("the caller's bytes were changed")
	}
}

// What a password manager would call a short password would strike everywhere.
func TestMaskOfNothing(t *testing.T) {
	t.Parallel()
	var none *Mask
	h := http.Header{"A": {"seven77"}}
	for name, m := range map[string]*Mask{"nil": none, "of nothing": NewMask(), "of an empty secret": NewMask(counterfoil.Secret{}), "of a short one": maskOf("seven77")} {
		if out, struck := m.Bytes([]byte("seven77")); struck || string(out) != "seven77" {
			t.Errorf("%s: %q", name, out)
		}
		if m.Header(h) {
			t.Errorf("%s: a header", name)
		}
		r := m.Reader(io.NopCloser(strings.NewReader("seven77")))
		if b, err := io.ReadAll(r); err != nil || string(b) != "seven77" || r.Struck() {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// Basic credentials are found as they are sent and as what they say.
func TestMaskOfBasicCredentials(t *testing.T) {
	t.Parallel()
	m := maskOf(base64.StdEncoding.EncodeToString([]byte("legacy:hunter2-hunter2")))
	for in, want := range map[string]string{
		"Basic bGVnYWN5Omh1bnRlcjItaHVudGVyMg==": "Basic ********************************",
		"password hunter2-hunter2":               "password ***************",
		"legacy:hunter2-hunter2":                 "**********************",
		"user legacy":                            "user legacy",
	} {
		if out, _ := m.Bytes([]byte(in)); string(out) != want {
			t.Errorf("%q became %q", in, out)
		}
	}
}

// What a file holds is not always the secret alone.
func TestMaskOfWhatHoldsASecret(t *testing.T) {
	t.Parallel()
	b64 := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct {
		credential string
		masked     []string
		left       string
	}{
		"a key as user":            {b64([]byte("sk_live_0123456789:")), []string{"sk_live_0123456789", "sk_live_0123456789:", b64([]byte("x:sk_live_0123456789")), `sk_live_0123456789`}, "sk_live"},
		"a key and a placeholder":  {b64([]byte("sk_live_0123456789:X")), []string{"sk_live_0123456789", "sk_live_0123456789:X"}, "X"},
		"a password without user":  {b64([]byte(":personal-token")), []string{"personal-token", ":personal-token"}, "personal"},
		"user and password":        {b64([]byte("legacy-user:hunter2-hunter2")), []string{"legacy-user", "hunter2-hunter2", "legacy-user:hunter2-hunter2"}, "legacy"},
		"Bearer and a token":       {"Bearer abcdefgh-12345", []string{"abcdefgh-12345", "Bearer abcdefgh-12345", "bearer=abcdefgh-12345", "abcdefgh%2d12345", b64([]byte("abcdefgh-12345"))}, "Bearer abcdefgh"},
		"Basic and credentials":    {"Basic " + b64([]byte("legacy:hunter2-hunter2")), []string{b64([]byte("legacy:hunter2-hunter2")), "hunter2-hunter2", "legacy:hunter2-hunter2"}, "Basic legacy"},
		"Basic and a key as user":  {"Basic " + b64([]byte("sk_live_0123456789:")), []string{"sk_live_0123456789"}, "Basic"},
		"a cookie":                 {"session=0123456789abcdef", []string{"0123456789abcdef", "session=0123456789abcdef", "0123456789abcd%65f"}, "session="},
		"cookies":                  {"lang=en; session=0123456789abcdef; csrf=fedcba9876543210==", []string{"0123456789abcdef", "fedcba9876543210=="}, "lang=en; session; csrf"},
		"a scheme with parameters": {`Token token="0123456789abcdef", email=ada@example.com`, []string{"0123456789abcdef"}, "Token token="},
		"none of these":            {"correct-horse/battery+staple=", []string{"correct-horse/battery+staple="}, "battery+staple= horse"},
	} {
		if err := usable(counterfoil.NewSecret(c.credential)); err != nil {
			t.Errorf("%s is refused: %v", name, err)
		}
		m := maskOf(c.credential)
		for _, s := range append(c.masked, c.credential) {
			if out, struck := m.Bytes([]byte("<" + s + ">")); !struck || strings.Contains(string(out), s) {
				t.Errorf("%s: %q is left: %q", name, s, out)
			}
		}
		if out, struck := m.Bytes([]byte(c.left)); struck {
			t.Errorf("%s: %q became %q", name, c.left, out)
		}
	}
}

// A credential whose secret is too short to be masked is not taken at all.
func TestWhatCouldNotBeMaskedIsRefused(t *testing.T) {
	t.Parallel()
	b64 := base64.StdEncoding.EncodeToString
	for credential, says := range map[string]string{
		b64([]byte("legacy-user:hunter2")): "the password has 7", "Basic " + b64([]byte("legacy-user:hunter2")): "the password has 7", b64([]byte("legacy:pw")): "the password has 2",
		b64([]byte("legacy:")): "a user of 6", b64([]byte("legacy:x")): "a user of 6", "Bearer seven77": "a scheme and 7",
		b64([]byte("legacy-user:hunter22")): "", "Basic " + b64([]byte("legacy-user:hunter22")): "", b64([]byte("legacy8u:")): "", b64([]byte("legacy8u:x")): "", "Bearer eight888": "",
	} {
		err := usable(counterfoil.NewSecret(credential))
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", credential, err, says)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "seven")) {
			t.Errorf("the error shows it: %v", err)
		}
	}
}

// A credential is looked into so deep and no deeper, whatever a provider says.
func TestMaskOfManyWords(t *testing.T) {
	t.Parallel()
	m := maskOf(strings.Repeat("a b ", maxSecret/4-1) + "c")
	if n := len(m.forms); n > 5*(1+maxLayers) {
		t.Errorf("%d forms", n)
	}
}

// Several secrets at once: those of before are found beside the present one.
func TestMaskOfSeveral(t *testing.T) {
	t.Parallel()
	m := maskOf("first-secret", "second-secret", "first-secret-and-more")
	in := "first-secret second-secret first-secret-and-more"
	if out, struck := m.Bytes([]byte(in)); !struck || strings.Trim(string(out), "* ") != "" || len(out) != len(in) {
		t.Errorf("%q", out)
	}
}

func TestMaskOfHeaders(t *testing.T) {
	t.Parallel()
	m := maskOf("s3cr3t-token")
	shared := []string{"Bearer s3cr3t-token", "other"}
	h := http.Header{
		"X-Echo": shared, "Location": {"https://u.example/?a=s3cr3t%2dtoken", "s3cr3t-token"}, "X-Kept": {"s3cr3t"}, "S3cr3t-Token": {"1"}, "X-S3cr3t-Tokens": {"1"},
	}
	if !m.Header(h) {
		t.Fatal("it did not strike")
	}
	if got := fmt.Sprint(h); got != "map[Location:[https://u.example/?a=************** ************] X-Echo:[Bearer ************ other] X-Kept:[s3cr3t]]" {
		t.Errorf("%s", got)
	}
	if shared[0] != "Bearer s3cr3t-token" {
		t.Error("somebody else's slice was changed")
	}
	if m.Header(h) {
		t.Error("it struck twice")
	}
}

// pieces gives one piece at each read, and says how many were read.
type pieces struct {
	list []string
	read int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.read == len(p.list) {
		return 0, io.EOF
	}
	p.read++
	return copy(b, p.list[p.read-1]), nil
}

func (p *pieces) Close() error { return nil }

// A stream's event is passed on when it is there, not when the next one is; and how much of
// a line that has not ended is passed on does not tell how much of it is the secret's.
func TestMaskHoldsBackTheSameOfWhateverALineSays(t *testing.T) {
	t.Parallel()
	m := maskOf("s3cr3t-token")
	first := func(read func(io.ReadCloser) *MaskReader, guess string) int {
		t.Helper()
		text := strings.Repeat("x", 200-len(guess)) + guess
		r := read(&pieces{list: []string{"data: one\n\n", text, "?", "!\n"}})
		b, n := make([]byte, 1<<10), 0
		for _, want := range []string{"data: one\n\n", text} {
			got, err := r.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if n = got; want != text && string(b[:got]) != want {
				t.Fatalf("the first line came as %q", b[:got])
			}
		}
		rest, err := io.ReadAll(r)
		if err != nil || string(b[:n])+string(rest) != text+"?!\n" {
			t.Fatalf("%q and %q: %v", b[:n], rest, err)
		}
		return n
	}
	for guess := range strings.SplitSeq("s s3 s3cr3 s3cr3t-toke s3x \\u0073 %73 czNj q", " ") {
		if n, plain := first(m.Reader, guess), first(m.Reader, "none"); n != plain || n >= 200-len("s3cr3t-token") {
			t.Errorf("of a line that ends in %q came %d bytes, of another one %d", guess, n, plain)
		}
	}
	// The control: what is prompt does tell.
	if first(m.Prompt, "s3cr3") == first(m.Prompt, "none") {
		t.Error("a prompt reader keeps nothing back")
	}
}

// What has no lines is passed on when it is there, but for what may be a secret.
func TestAPromptMaskHoldsNothingBackThatCannotBeASecret(t *testing.T) {
	t.Parallel()
	p := &pieces{list: []string{
		"data: {\"n\":1,\"auth\":\"Bearer s3cr3t-token\"}\n\n", "data: the s3cr3t-", "token is here\n\n", "data: 100% s3cr3t-tok", "yo\n\n", "s3cr3t-toke",
	}}
	m := maskOf("s3cr3t-token")
	r := m.Prompt(p)
	b := make([]byte, 1<<10)
	for i, want := range []struct {
		text string
		read int
	}{
		{"data: {\"n\":1,\"auth\":\"Bearer ************\"}\n\n", 1},
		{"data: the ", 2}, {"************ is here\n\n", 3},
		{"data: 100% ", 4}, {"s3cr3t-tokyo\n\n", 5},
		{"s3cr3t-toke", 7},
	} {
		n, err := r.Read(b)
		if want.read == 7 {
			want.read = 6 // the end was read, which is no piece
		}
		if got := string(b[:n]); err != nil || got != want.text || p.read != want.read {
			t.Fatalf("read %d: %q after %d pieces (%v), want %q after %d", i, got, p.read, err, want.text, want.read)
		}
	}
	if n, err := r.Read(b); n != 0 || !errors.Is(err, io.EOF) || !r.Struck() {
		t.Errorf("at the end: %d, %v, struck %t", n, err, r.Struck())
	}
}

// An error of the upstream's comes after everything that was read before it.
func TestMaskReaderPassesErrorsOn(t *testing.T) {
	t.Parallel()
	r := maskOf("s3cr3t-token").Reader(io.NopCloser(io.MultiReader(strings.NewReader("a s3cr3t-"), iotest.ErrReader(io.ErrUnexpectedEOF))))
	if b, err := io.ReadAll(r); string(b) != "a s3cr3t-" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
}

// JSON stays JSON, whatever of it is masked.
func TestMaskedJSONIsJSON(t *testing.T) {
	t.Parallel()
	m := maskOf(canary, "nabcdefgh")
	for _, s := range []string{canary, "x" + canary + "\n", "\nabcdefgh", `\nabcdefgh`, "\\" + canary, strings.Repeat(`\`, 9) + canary, canary + `\`} {
		for _, s := range []string{quoted(s, false), quoted(quoted(s, true), false), quoted(url.QueryEscape(s), false)} {
			out, _ := m.Bytes([]byte(`{"a":["` + s + `"]}`))
			if !jsontext.Value(out).IsValid() {
				t.Errorf("%s became %s", s, out)
			}
		}
	}
}

// FuzzMask writes a secret with any mixture of escapes between any bytes: it is found, the
// length stays, and a stream in pieces gives what the whole gives.
func FuzzMask(f *testing.F) {
	f.Add("s3cr3t-token", []byte{0, 1, 2, 3, 4, 5}, "a", "b", 3)
	f.Add(canary, []byte{1, 1, 1}, `{"x":"`, `"}`, 1)
	f.Add(`\\\\\\\\\\`, []byte{1, 6, 7}, `\`, `\`, 2)
	f.Add("%25%25%25", []byte{2, 7}, "%", "25", 5)
	f.Fuzz(func(t *testing.T, secret string, choices []byte, before, after string, piece int) {
		if usable(counterfoil.NewSecret(secret)) != nil || strings.Contains(secret, "*") || len(secret) > 200 || len(choices) == 0 || len(before)+len(after) > 1000 {
			t.Skip()
		}
		var b strings.Builder
		for i := range len(secret) {
			b.WriteString(escapedAs(secret[i], choices[i%len(choices)]))
		}
		in := before + b.String() + after
		m := maskOf(secret)
		out, struck := m.Bytes([]byte(in))
		if !struck || len(out) != len(in) || strings.Contains(string(out), secret) {
			t.Fatalf("%q in %q became %q", secret, in, out)
		}
		// What surrounds it may make a match begin earlier, which may end earlier: then
		// all of it is not gone, but no whole is left.
		if _, again := m.Bytes(out); again {
			t.Fatalf("%q in %q became %q, which still holds it", secret, in, out)
		}
		for i := range out {
			if out[i] != in[i] && out[i] != '*' {
				t.Fatalf("%q became %q", in, out)
			}
		}
		size := 1 + (piece&0x7fffffff)%7
		var got bytes.Buffer
		r := m.Reader(io.NopCloser(iotest.OneByteReader(strings.NewReader(in))))
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, make([]byte, size)); err != nil || got.String() != string(out) {
			t.Fatalf("in pieces %q, at once %q (%v)", got.String(), out, err)
		}
	})
}

func escapedAs(b, how byte) string {
	switch how % 10 {
	case 1:
		return fmt.Sprintf(`\u%04x`, b)
	case 2:
		return fmt.Sprintf("%%%02X", b)
	case 3:
		return fmt.Sprintf("%%%02x", b)
	case 4:
		return fmt.Sprintf("&#%d;", b)
	case 5:
		return fmt.Sprintf("&#x%x;", b)
	case 6:
		return quoted(string(rune(b)), true)
	case 7:
		return url.QueryEscape(string(rune(b)))
	case 8:
		return quoted(quoted(string(rune(b)), true), true)
	case 9:
		return html.EscapeString(string(rune(b)))
	}
	return string(rune(b))
}

func BenchmarkMask(b *testing.B) {
	m := maskOf("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl")
	for name, text := range map[string]string{
		"json":         `{"id":12345,"name":"Ada Lovelace","mail":"ada@example.com","note":"the quick brown fox jumps over the lazy dog"},`,
		"json in json": `{\"id\":12345,\"name\":\"Ada Lovelace\",\"mail\":\"ada@example.com\",\"note\":\"the quick brown fox\"},`,
		"base64":       base64.StdEncoding.EncodeToString([]byte("the quick brown fox jumps over the lazy dog and back again")),
		"backslashes":  strings.Repeat(`\`, 100), "short rows": strings.Repeat(strings.Repeat(`\`, 8)+"a", 10), "rows of two kinds": strings.Repeat(strings.Repeat(`\`, 47)+`\x5c`, 2),
		"ampersands": strings.Repeat("&", 100), "entities": strings.Repeat("&amp;amp;amp;", 8), "percent signs": strings.Repeat("%25", 33), "an echo": strings.Repeat(`\\\"`, 25),
	} {
		data := []byte(strings.Repeat(text, 1000))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, struck := m.Bytes(data); struck {
					b.Fatal("it struck")
				}
			}
		})
	}
}
