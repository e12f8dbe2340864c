package approval

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil/ijson"
)

// seen writes segments so that a test can name them.
func seen(segments []Segment) string {
	var b strings.Builder
	for _, s := range segments {
		switch {
		case s.Code != "":
			fmt.Fprintf(&b, "<%s>", s.Code)
		case s.Lookalike:
			fmt.Fprintf(&b, "?%s?", s.Text)
		default:
			b.WriteString(s.Text)
		}
	}
	return b.String()
}

func TestVisible(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                       "",
		"Pay 100 EUR to DE89":    "Pay 100 EUR to DE89",
		"Zürich, naïve, Ærø":     "Zürich, naïve, Ærø",
		"Москва":                 "Москва",
		"東京 トウキョウ":               "東京 トウキョウ",
		"a\u202eb":               "a<U+202E>b",
		"a\u2066b\u2069":         "a<U+2066>b<U+2069>",
		"pay\u200bload":          "pay<U+200B>load",
		"\ufeffx":                "<U+FEFF>x",
		"a\nb\tc\rd":             "a<U+000A>b<U+0009>c<U+000D>d",
		"\x00\x1b[31m\x7f\u0085": "<U+0000><U+001B>[31m<U+007F><U+0085>",
		"a\u00a0b":               "a<U+00A0>b",
		"a\u3000b\u2003c":        "a<U+3000>b<U+2003>c",
		"soft\u00adhyphen":       "soft<U+00AD>hyphen",
		"x\U000e0041\U000e007fy": "x<U+E0041><U+E007F>y",
		"x\ufe0fy\U000e0100":     "x<U+FE0F>y<U+E0100>",
		"\u3164\u115f":           "<U+3164><U+115F>",
		"\ue000":                 "<U+E000>",
		"\u2028":                 "<U+2028>",
		"\U000f0000":             "<U+F0000>",
		"\xff":                   "<U+FFFD>",
		"pаypal":                 "?pаypal?", // Cyrillic а
		"to pаypal now":          "to ?pаypal? now",
		"DЕ89 3704":              "?DЕ89? 3704", // Cyrillic Е
		"АЕ07033":                "?АЕ07033?",   // Cyrillic, with digits
		"send to ѕсоре now":      "send to ?ѕсоре? now",
		"οmega":                  "?οmega?", // Greek ο
		"ｐａｙ":                    "?ｐａｙ?",
		"𝐩𝐚𝐲":                    "?𝐩𝐚𝐲?",
		"1٠0":                    "?1٠0?", // an Arabic zero
		"bıll":                   "?bıll?",
		"¹²":                     "¹²",
	} {
		if got := seen(Visible(in)); got != want {
			t.Errorf("Visible(%q) = %q, want %q", in, got, want)
		}
	}
}

func checkVisible(t *testing.T, s string) {
	t.Helper()
	var back strings.Builder
	for _, seg := range Visible(s) {
		if (seg.Text == "") == (seg.Code == "") {
			t.Errorf("a segment of %q is %+v", s, seg)
		}
		if seg.Code != "" {
			n, err := strconv.ParseUint(strings.TrimPrefix(seg.Code, "U+"), 16, 32)
			if err != nil || seg.Name == "" {
				t.Errorf("a segment of %q is %+v", s, seg)
			}
			back.WriteRune(rune(n))
			continue
		}
		for _, r := range seg.Text {
			if unicode.Is(unicode.C, r) || unicode.Is(unicode.Z, r) && r != ' ' {
				t.Errorf("%U of %q is shown as it is", r, s)
			}
		}
		back.WriteString(seg.Text)
	}
	want := s
	if !utf8.ValidString(s) {
		want = string([]rune(s))
	}
	if back.String() != want {
		t.Errorf("the segments of %q are %q", s, back.String())
	}
}

func FuzzVisible(f *testing.F) {
	for _, s := range []string{"", "pay", "a\u202eb", "pаypal", "\xff\xfe", "x\U000e0041", "\u115f1"} {
		f.Add(s)
	}
	f.Fuzz(checkVisible)
}

func FuzzSentence(f *testing.F) {
	f.Add("Pay {{.amount}} to {{.to}}", "100", "DE1")
	f.Add("{{", "{{.to}}", "}}")
	f.Add("{{.amount}}{{.amount}}", "{{.to}}", "\u202e")
	f.Add("{{ .amount }} {{range .}}", "a", "b")
	f.Fuzz(func(t *testing.T, template, amount, to string) {
		fields := map[string]string{"amount": amount, "to": to}
		got := sentence(template, fields)
		for _, s := range got {
			if s.Value && s.Code == "" && !strings.Contains(amount, s.Text) && !strings.Contains(to, s.Text) {
				t.Errorf("%q is marked as a value in sentence(%q, %q, %q)", s.Text, template, amount, to)
			}
		}
		if !strings.Contains(template, "{{") && plain(got) != plain(Visible(template)) {
			t.Errorf("sentence(%q) = %q", template, plain(got))
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}],"c":"x"}`), []byte(`{"a":[],"c":{}}`))
	f.Add([]byte(`1`), []byte(`{"":{"~/":true}}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		ca, err := ijson.Canonical(a)
		if err != nil {
			return
		}
		if _, err := Tree(ca); err != nil {
			t.Errorf("Tree(%s): %v", ca, err)
		}
		if d, more, err := differences(ca, ca); err != nil || len(d) != 0 || more != 0 {
			t.Errorf("%s differs from itself: %v, %v", ca, d, err)
		}
		cb, err := ijson.Canonical(b)
		if err != nil {
			return
		}
		d, _, err := differences(ca, cb)
		if err != nil {
			t.Errorf("differences(%s, %s): %v", ca, cb, err)
		}
		if len(d) == 0 && string(ca) != string(cb) && !strings.Contains(string(ca)+string(cb), "task") {
			t.Errorf("no difference between %s and %s", ca, cb)
		}
	})
}
