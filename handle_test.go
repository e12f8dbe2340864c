package counterfoil

import (
	"regexp"
	"strings"
	"testing"
)

// TestHandlesAreOfTheDocumentedForm: what a secret scanner looks for is what is made,
// and nothing else passes.
func TestHandlesAreOfTheDocumentedForm(t *testing.T) {
	t.Parallel()
	documented := regexp.MustCompile(`cf[ces]_[a-z2-7]{33}`)
	prefixes := []string{HandleCode, HandleSession, HandleConnector}
	for _, prefix := range prefixes {
		secret := NewHandle(prefix)
		s := secret.Reveal()
		if got := documented.FindString("url=http://127.0.0.1:1/" + s + "/mcp"); got != s {
			t.Errorf("%s handle %q is found as %q", prefix, s, got)
		}
		if !CheckHandle(prefix, s) {
			t.Errorf("%q is refused", s)
		}
		if secret.String() == s {
			t.Error("a handle prints itself")
		}
		if NewHandle(prefix).Reveal() == s {
			t.Error("two handles are the same")
		}
		for _, other := range prefixes {
			if other != prefix && (CheckHandle(other, s) || CheckHandle(other, other+s[len(prefix):])) {
				t.Errorf("a %s handle is taken for one of %s", prefix, other)
			}
		}
		for i := range len(s) {
			for _, c := range []byte("a2zA-") {
				if s[i] != c && CheckHandle(prefix, s[:i]+string(c)+s[i+1:]) {
					t.Errorf("%q with character %d as %q is taken", s, i, c)
				}
			}
		}
		for _, wrong := range []string{"", prefix, s[1:], s + "a", s[:len(s)-1], " " + s, s + "\n", strings.ToUpper(s), s + s} {
			if CheckHandle(prefix, wrong) {
				t.Errorf("%q is taken", wrong)
			}
		}
	}
}

// The last of the 26 characters has two bits too many: of its four spellings one is the
// handle.
func TestAHandleHasOneSpelling(t *testing.T) {
	t.Parallel()
	body := HandleSession + strings.Repeat("a", handleRandom)
	if !CheckHandle(HandleSession, body+checksum(body)) {
		t.Fatal("the canonical spelling is refused")
	}
	for _, last := range "bcd" {
		odd := body[:len(body)-1] + string(last)
		if CheckHandle(HandleSession, odd+checksum(odd)) {
			t.Errorf("ending in %q: another spelling is taken", last)
		}
	}
}

func FuzzCheckHandle(f *testing.F) {
	f.Add(NewHandle(HandleSession).Reveal())
	f.Add("cfs_")
	f.Fuzz(func(t *testing.T, s string) {
		if CheckHandle(HandleSession, s) && (len(s) != 37 || s[30:] != checksum(s[:30])) {
			t.Errorf("%q is taken", s)
		}
	})
}
