package counterfoil

import (
	"regexp"
	"testing"
)

func TestParseEnrolmentCode(t *testing.T) {
	t.Parallel()
	secret, hash := NewEnrolmentCode()
	code := secret.Reveal()
	if !regexp.MustCompile(`^cfe_[a-z2-7]{33}$`).MatchString(code) {
		t.Fatalf("code %q is not of the documented form", code)
	}
	parsed, err := ParseEnrolmentCode(code)
	if err != nil || parsed != hash {
		t.Fatalf("ParseEnrolmentCode(%q) = %v, %v", code, parsed, err)
	}
	if other, _ := NewEnrolmentCode(); other.Reveal() == code {
		t.Fatal("two codes are the same")
	}
	for i := range len(code) {
		for _, c := range []byte("a2zA-") {
			if code[i] == c {
				continue
			}
			wrong := code[:i] + string(c) + code[i+1:]
			if _, err := ParseEnrolmentCode(wrong); err == nil || CodeOf(err) != EnrolmentRefused {
				t.Errorf("ParseEnrolmentCode(%q) with one character changed: %v", wrong, err)
			}
		}
	}
	for _, wrong := range []string{"", "cfe_", code[1:], code + "a", " " + code, code + "\n", "CFE_" + code[4:]} {
		if _, err := ParseEnrolmentCode(wrong); err == nil {
			t.Errorf("ParseEnrolmentCode(%q) was accepted", wrong)
		}
	}
}

// The last of the 26 characters has two bits too many: of its four spellings
// one is the code.
func TestParseEnrolmentCodeHasOneSpelling(t *testing.T) {
	t.Parallel()
	body := HandleCode + "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	if _, err := ParseEnrolmentCode(body + checksum(body)); err != nil {
		t.Fatalf("the canonical spelling: %v", err)
	}
	for _, last := range "bcdh" {
		odd := body[:len(body)-1] + string(last)
		if _, err := ParseEnrolmentCode(odd + checksum(odd)); (err == nil) != (last == 'e') {
			t.Errorf("ending in %q: %v", last, err)
		}
	}
}

func FuzzParseEnrolmentCode(f *testing.F) {
	code, _ := NewEnrolmentCode()
	f.Add(code.Reveal())
	f.Add("cfe_")
	f.Fuzz(func(t *testing.T, s string) {
		hash, err := ParseEnrolmentCode(s)
		if err != nil {
			return
		}
		if hash != hashCode(s) || len(s) != codeLength {
			t.Errorf("ParseEnrolmentCode(%q) = %v", s, hash)
		}
	})
}
