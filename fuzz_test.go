package counterfoil

import (
	"strings"
	"testing"
)

// What names of the vocabulary are taken are written back as they were read.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"bank/pay", "bank/*", "bank/", "/pay", "bank/pay/again", "BANK/pay", "routine", "", "15m0s", "1h", "-1ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseToolID(s); err == nil {
			if id.String() != s || strings.Count(s, "/") != 1 || id.Tool == EveryTool || CheckName(id.Resource) != nil || CheckToolName(id.Tool) != nil {
				t.Errorf("ParseToolID(%q) = %+v", s, id)
			}
		}
		var id ToolID
		if err := id.UnmarshalText([]byte(s)); err == nil && id.String() != s {
			t.Errorf("%q is read as %+v", s, id)
		}
		if tier, err := ParseTier(s); err == nil && tier.String() != s || err != nil && tier != Forbidden {
			t.Errorf("ParseTier(%q) = %v, %v", s, tier, err)
		}
		var d, again Duration
		if err := d.UnmarshalText([]byte(s)); err == nil {
			b, err := d.MarshalText()
			if err != nil || again.UnmarshalText(b) != nil || again != d {
				t.Errorf("the duration %q is written as %q and read as %v", s, b, again)
			}
		}
	})
}

// What a refusal quotes is told to the sender and is in no record.
func FuzzReason(f *testing.F) {
	f.Add("plain")
	f.Add(`a "quoted" \\" \ text`)
	f.Add("\x00\xff\n\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		s = s[:min(len(s), 256)] // all cuts of it are tried
		r := Refuse(RequestMalformed, "the name %q is not %.40q, at %d", s, s, 7)
		if want := `the name "…" is not "…", at 7`; r.Reason() != want {
			t.Errorf("%q leaves %q", s, r.Reason())
		}
		// A detail that was cut short may end inside of a quotation.
		for cut := range r.Detail {
			short := (&Refusal{Detail: r.Detail[:cut]}).Reason()
			if want := `the name "…" is not "…", at 7`; len(short) > len(want) || cut > len("the name ") && !strings.HasPrefix(short, `the name "…"`) {
				t.Errorf("%q leaves %q", r.Detail[:cut], short)
			}
		}
	})
}
