package authority

import (
	"regexp"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func TestParseCode(t *testing.T) {
	t.Parallel()
	code := newCode()
	if !regexp.MustCompile(`^cfe_[a-z2-7]{33}$`).MatchString(code) {
		t.Fatalf("code %q is not of the documented form", code)
	}
	parsed, err := ParseCode(code)
	if err != nil || parsed.Hash != hashCode(code) {
		t.Fatalf("ParseCode(%q) = %v, %v", code, parsed, err)
	}
	if newCode() == code {
		t.Fatal("two codes are the same")
	}
	for i := range len(code) {
		for _, c := range []byte("a2zA-") {
			if code[i] == c {
				continue
			}
			wrong := code[:i] + string(c) + code[i+1:]
			if _, err := ParseCode(wrong); err == nil || counterfoil.CodeOf(err) != counterfoil.EnrolmentRefused {
				t.Errorf("ParseCode(%q) with one character changed: %v", wrong, err)
			}
		}
	}
	for _, wrong := range []string{"", "cfe_", code[1:], code + "a", " " + code, code + "\n", "CFE_" + code[4:]} {
		if _, err := ParseCode(wrong); err == nil {
			t.Errorf("ParseCode(%q) was accepted", wrong)
		}
	}
}

// The last of the 26 characters has two bits too many: of its four spellings
// one is the code.
func TestParseCodeHasOneSpelling(t *testing.T) {
	t.Parallel()
	body := codePrefix + "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	if _, err := ParseCode(body + checksum(body)); err != nil {
		t.Fatalf("the canonical spelling: %v", err)
	}
	for _, last := range "bcdh" {
		odd := body[:len(body)-1] + string(last)
		if _, err := ParseCode(odd + checksum(odd)); (err == nil) != (last == 'e') {
			t.Errorf("ending in %q: %v", last, err)
		}
	}
}

func FuzzParseCode(f *testing.F) {
	f.Add(newCode())
	f.Add("cfe_")
	f.Fuzz(func(t *testing.T, s string) {
		code, err := ParseCode(s)
		if err != nil {
			return
		}
		if code.Hash != hashCode(s) || len(s) != codeLength {
			t.Errorf("ParseCode(%q) = %v", s, code)
		}
	})
}
