package authority

import (
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/credential"
)

// margined puts something before each line of a text.
func margined(margin, text string) string {
	return margin + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+margin) + "\n"
}

// cut puts a text on lines of so many characters.
func cut(s string, width int) string {
	var b strings.Builder
	for line := range slices.Chunk([]byte(s), width) {
		b.WriteString(string(line) + "\n")
	}
	return b.String()
}

// percent encodes every character that is no letter and no digit.
func percent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteString("%" + string("0123456789ABCDEF"[c>>4]) + string("0123456789ABCDEF"[c&15]))
	}
	return b.String()
}

// What a leak is usually cut out of hides nothing.
func TestRecogniseInWhatItIsCutOutOf(t *testing.T) {
	t.Parallel()
	token := "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2NmIn0." + strings.Repeat("s1-_", 21) + "AA"
	for _, alg := range []string{credential.ES256, credential.PS256} {
		public, _, key := privateOf(t, alg)
		jkt := public.Thumbprint()
		for margin, name := range map[string]string{
			"    ": "an indented block", "\t": "tabs", "+": "an added line", "-": "a line taken away", " ": "a line beside them",
			"> ": "a quotation", "> > ": "one of a quotation", "+    ": "an added block", "-      ": "a block taken away", "# ": "a comment",
		} {
			body := "key: |\n" + margined(margin, key) + "next: 1\n"
			for end, body := range map[string]string{"": body, " with CRLF": strings.ReplaceAll(body, "\n", "\r\n")} {
				if got := words(recognise([]byte(body), "")); !slices.Equal(got, []string{jkt}) {
					t.Errorf("%s, in %s%s: %q", alg, name, end, got)
				}
			}
		}
		for name, body := range map[string]string{
			"on one line": strings.ReplaceAll(key, "\n", " "), "in an address": "https://x.example/?key=" + percent(key),
			"one line of a difference of another kind": strings.Replace(margined("+", key), "\n+", "\n ", 2),
		} {
			if got := words(recognise([]byte(body), "")); !slices.Equal(got, []string{jkt}) {
				t.Errorf("%s, %s: %q", alg, name, got)
			}
		}
		if got := words(recognise([]byte(strings.Replace(key, "\n", "\nAAAA", 1)), "")); slices.Contains(got, jkt) {
			t.Errorf("%s: another key is taken for it", alg)
		}
	}
	for name, body := range map[string]string{
		"after an encoded sign": "next=%2Fcb%3Faccess_token%3D" + token + "%26x%3D1", "encoded throughout": "t=" + percent(token),
		"taken away": "-" + token + "\n", "added": "+" + token + "\n", "behind a word": "token-" + token,
		"over lines": cut(token, 40) + "Regards\n", "over many lines": cut(token, 17) + "\nx", "over lines to the end": strings.TrimSuffix(cut(token, 64), "\n"),
		"over lines in a block": "token: >-\n" + margined("      ", cut(token, 40)) + "next: 1\n", "over lines, with CRLF": strings.ReplaceAll(cut(token, 40), "\n", "\r\n"),
		"over added lines": margined("+", cut(token, 40)) + "+x\n", "over lines taken away": margined("-  ", cut(token, 40)) + "-x\n",
		"over quoted lines": margined("> ", cut(token, 40)) + "> x\n", "over lines that go on": strings.ReplaceAll(cut(token, 40), "\n", "\\\n"),
		"behind its name, over lines": "+  token: " + strings.ReplaceAll(strings.TrimSpace(cut(token, 40)), "\n", "\n+    ") + "\n+  x: 1\n",
	} {
		if got := words(recognise([]byte(body), "")); !slices.Contains(got, token) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, body := range []string{
		strings.Repeat("eyJ\n", 1<<14), strings.Repeat("eyJ ", 1<<14), "eyJhbGciOiJFUzI1\n" + strings.Repeat("a\n", 1<<15), strings.Repeat("eyJhbGciOiJFUzI1\n", 1<<12),
		"-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----", "%", "%4", "%zz", "eyJhbGciOiJFUzI1NiJ9\n", cut(token[:len(token)-3], 40) + "\n",
	} {
		if got := words(recognise([]byte(body), "")); slices.ContainsFunc(got, func(w string) bool { return w == token }) || len(got) > maxLeaks {
			t.Errorf("%.40q: %d", body, len(got))
		}
	}
}
