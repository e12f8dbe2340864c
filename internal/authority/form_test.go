package authority

import (
	"net/url"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// What passes is a list of details of the one type, whose echo in the token is
// read back as the same.
func FuzzParseDetails(f *testing.F) {
	f.Add(`[{"type":"` + counterfoil.DetailType + `","locations":["https://cf.example/r/bank"],"actions":["call"],"tool":"pay","constraints":{"/amount":{"max":"500.00"}}}]`)
	f.Add(`[{"type":"` + counterfoil.DetailType + `","locations":["x"],"tool":"pay","tool_digest":"sha-256:x"}]`)
	f.Add(`[null]`)
	f.Fuzz(func(t *testing.T, s string) {
		details, err := parseDetails([]byte(s))
		if err != nil {
			if counterfoil.CodeOf(err) != counterfoil.DetailsInvalid {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if len(details) == 0 {
			t.Fatal("no details, and no error")
		}
		b, err := ijson.Marshal(details)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseDetails(b)
		if err != nil || len(again) != len(details) {
			t.Errorf("%s is read back as %v, %v", b, again, err)
		}
		for _, d := range details {
			if d.Type != counterfoil.DetailType || d.Tool == "" || len(d.Locations) != 1 {
				t.Errorf("detail %+v", d)
			}
		}
	})
}

// A form that passes has one value for everything that counts.
func FuzzParseTokenForm(f *testing.F) {
	f.Add("grant_type=client_credentials&client_assertion_type=" + url.QueryEscape(AssertionTypeJWT) + "&client_assertion=x&resource=https%3A%2F%2Fcf.example%2Fr%2Fbank&scope=a+b")
	f.Add("grant_type=client_credentials&grant_type=x")
	f.Fuzz(func(t *testing.T, body string) {
		form, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		parsed, err := parseTokenForm(&TokenRequest{Form: form})
		if err != nil {
			if _, ok := counterfoil.AsRefusal(err); !ok {
				t.Errorf("refused with a fault: %v", err)
			}
			return
		}
		if parsed.assertion == "" || parsed.resource == "" {
			t.Errorf("form %+v", parsed)
		}
		for name, values := range form {
			if len(values) != 1 {
				t.Errorf("%q is there %d times", name, len(values))
			}
		}
	})
}
