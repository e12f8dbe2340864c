package counterfoil

import "testing"

// One human counts once, however the address is written.
func TestMailbox(t *testing.T) {
	t.Parallel()
	for email, want := range map[string]string{
		"ana@example.com":           "ana@example.com",
		"Ana@Example.COM":           "ana@example.com",
		"a.n.a+payroll@example.com": "ana@example.com",
		"ana@example.com.":          "ana@example.com",
		"ana@googlemail.com":        "ana@gmail.com",
		"bo@example.com":            "bo@example.com",
		"ana@example.org":           "ana@example.org",
		"":                          "ana",
	} {
		if got := (&Person{Name: "ana", Email: email}).Mailbox(); got != want {
			t.Errorf("the mailbox of %q is %q, want %q", email, got, want)
		}
	}
}
