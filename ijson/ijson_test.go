package ijson

import (
	"bytes"
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// texts are what Check accepts and refuses, each refused one beside an
// accepted one that lacks only what is refused.
var texts = []struct{ name, good, bad string }{
	{"duplicate name", `{"a":1,"b":2}`, `{"a":1,"a":2}`},
	{"duplicate name, deep", `{"x":[{"a":1,"b":2}]}`, `{"x":[{"a":1,"a":2}]}`},
	{"duplicate name, escaped", `{"method":1,"metho\u0065":2}`, `{"method":1,"metho\u0064":2}`},
	{"names that differ in case", `{"method":1,"methods":2}`, `{"method":1,"Method":2}`},
	{"long s folds to s", `{"params":1,"paramţ":2}`, `{"params":1,"paramſ":2}`},
	{"Kelvin folds to k", `{"task":1,"tasl":2}`, "{\"task\":1,\"tas\u212a\":2}"},
	{"a fold in escapes", `{"k":1,"\u212b":2}`, `{"k":1,"\u212a":2}`},
	{"folds beyond the basic plane", `{"\ud801\udc00":1,"\ud801\udc29":2}`, `{"\ud801\udc00":1,"\ud801\udc28":2}`},
	{"duplicate control characters", `{"\n":1,"\t":2}`, `{"\n":1,"\u000a":2}`},
	{"same name, another object", `{"a":{"a":[{"a":1}]}}`, `{"a":{"a":[{"a":1,"A":1}]}}`},
	{"name again after a nested object", `{"a":{"b":1},"b":2}`, `{"a":{"b":1},"a":2}`},
	{"NUL in a name", `{"a\u0001":1}`, `{"a\u0000":1}`},
	{"NUL in a string is data", `"\u0000"`, "\"\x00\""},
	{"byte order mark", `{}`, "\xef\xbb\xbf{}"},
	{"invalid UTF-8", "\"\xc3\xa9\"", "\"\xc3\""},
	{"overlong", `"/"`, "\"\xc0\xaf\""},
	{"surrogate in UTF-8", "\"\xed\x9f\xbf\"", "\"\xed\xa0\x80\""},
	{"lone surrogate, high", `"\ud83d\ude00"`, `"\ud83d"`},
	{"lone surrogate, low", `"\ud83d\ude00"`, `"\ude00"`},
	{"surrogates swapped", `"\ud83d\ude00"`, `"\ude00\ud83d"`},
	{"lone surrogate in a name", `{"\ud83d\ude00":1}`, `{"\ud83d":1}`},
	{"trailing bytes", `{} `, `{} x`},
	{"two values", `[{},{}]`, `{}{}`},
	{"trailing NUL", `1`, "1\x00"},
	{"comment", `{"a":1}`, `{"a":/**/1}`},
	{"trailing comma", `[1]`, `[1,]`},
	{"single quotes", `{"a":1}`, `{'a':1}`},
	{"NaN", `null`, `NaN`},
	{"Infinity", `1`, `Infinity`},
	{"literal in another case", `true`, `True`},
	{"leading plus", `1`, `+1`},
	{"leading zero", `10`, `010`},
	{"no digit after the point", `1.0`, `1.`},
	{"nothing", `0`, ``},
	{"white space alone", ` 0`, ` `},
	{"white space of Unicode", ` 0`, "\u00a00"},
	{"integer", `9007199254740991`, `9007199254740992`},
	{"negative integer", `-9007199254740991`, `-9007199254740992`},
	{"overflow", `1e22`, `1e400`},
	{"underflow", `5e-324`, `1e-400`},
	{"too precise", `0.1`, `0.1000000000000000055`},
	{"number in a deep place", `[[{"a":[1]}]]`, `[[{"a":[1e400]}]]`},
	{"depth", strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)},
	{"names", namesObject(MaxNames), namesObject(MaxNames + 1)},
	{"depth of objects", strings.Repeat(`{"a":`, MaxDepth) + "1" + strings.Repeat("}", MaxDepth), strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1)},
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range texts {
		t.Run(c.name, func(t *testing.T) {
			if err := Check([]byte(c.good)); err != nil {
				t.Errorf("the good text %q: %v", c.good, err)
			}
			if err := Check([]byte(c.bad)); err == nil {
				t.Errorf("the bad text %q is accepted", c.bad)
			}
		})
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{ // want "" is refused
		{"0", "0"}, {"-0", "0"}, {"-0.0", "0"}, {"0e999999999999", "0"},
		{"100", "100"}, {"100.0", "100"}, {"1e2", "100"}, {"1E2", "100"}, {"1E22", "1e+22"},
		{"1.5", "1.5"}, {"-1.50", "-1.5"}, {"123.456e78", "1.23456e+80"}, {"0.1", "0.1"},
		{"5e-324", "5e-324"}, {"1.7976931348623157e308", "1.7976931348623157e+308"},
		{"9007199254740991", "9007199254740991"}, {"9007199254740991.0", "9007199254740991"},
		{"9007199254740992", ""}, {"9007199254740993", ""}, {"9007199254740993.0", ""},
		{"9007199254740992.0", ""}, {"1e20", ""}, {"1e21", "1e+21"}, {"10000000000000000000000", ""},
		{"1e400", ""}, {"-1e400", ""}, {"1e-400", ""}, {"1e99999999999999999999", ""}, {"1e-99999999999999999999", ""},
		{"0.1000000000000000055", ""}, {"0.30000000000000001", ""}, {"4.9e-324", ""},
		{"", ""}, {"-", ""}, {"01", ""}, {"1.", ""}, {".5", ""}, {"1e", ""}, {"1e+", ""}, {"+1", ""}, {"0x1", ""}, {"1 ", ""}, {"NaN", ""},
		{strings.Repeat("1", 400), ""}, {"0." + strings.Repeat("0", 400) + "1", ""},
		{"1" + strings.Repeat("0", 400) + "e-400", "1"},
	} {
		got, err := Number(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("Number(%.30q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{` { "b" : 1.0 , "a" : [ 1e2, -0, "\u0041\/" ] } `, `{"a":[100,0,"A/"],"b":1}`},
		// RFC 8785, Section 3.2.3: names are sorted by UTF-16 code units.
		{`{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}`,
			"{\"\\r\":2,\"1\":4,\"\u0080\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\ufb33\":3}"},
	} {
		in := []byte(c.in)
		got, err := Canonical(in)
		if err != nil || string(got) != c.want {
			t.Errorf("Canonical(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
		if string(in) != c.in {
			t.Errorf("Canonical changed its argument to %q", in)
		}
	}
}

func TestCanonicalDoesNotAlias(t *testing.T) {
	t.Parallel()
	in := []byte(`{"a":1}`)
	out, err := Canonical(in)
	if err != nil {
		t.Fatal(err)
	}
	in[2] = 'z'
	if string(out) != `{"a":1}` {
		t.Errorf("the result changed with the argument: %s", out)
	}
}

func TestUnmarshal(t *testing.T) {
	t.Parallel()
	type T struct {
		A int `json:"a"`
	}
	for _, c := range []struct {
		in          string
		strict, lax bool
	}{
		{`{"a":1}`, true, true},
		{`{"a":1,"b":2}`, false, true},
		{`{"A":1}`, false, true}, // ignored, not taken for a
		{`{"a":"1"}`, false, false},
		{`{"a":1.0}`, false, false},
		{`{"a":1}x`, false, false},
		{`{"a":1,"A":2}`, false, false},
	} {
		var v T
		if err := Unmarshal([]byte(c.in), &v); (err == nil) != c.strict {
			t.Errorf("Unmarshal(%s): %v", c.in, err)
		}
		v = T{}
		if err := UnmarshalLax([]byte(c.in), &v); (err == nil) != c.lax {
			t.Errorf("UnmarshalLax(%s): %v", c.in, err)
		} else if c.in[2] == 'A' && v.A != 0 {
			t.Errorf("the member A was taken for a")
		}
	}
}

type tier struct{}

func (*tier) UnmarshalText(b []byte) error { return fmt.Errorf("no tier %q", b) }

// TestDecodingErrors: they are for whoever sent the text, who knows nothing of
// our types.
func TestDecodingErrors(t *testing.T) {
	t.Parallel()
	type T struct {
		N int   `json:"n"`
		T tier  `json:"t"`
		L []int `json:"l"`
	}
	for in, want := range map[string]string{
		`{"n":"x"}`:              `at "/n": the wrong type of value`,
		`{"n":1.5}`:              `at "/n": the wrong type of value`,
		`{"l":[1,"x"]}`:          `at "/l/1": the wrong type of value`,
		`{"l":[1,null,{"a":1}]}`: `at "/l/2": the wrong type of value`,
		`{"t":"q"}`:              `at "/t": no tier "q"`,
		`{"n":1,"x":2}`:          `at "/x": an unknown member`,
		`[]`:                     `at the top: the wrong type of value`,
	} {
		var v T
		if err := Unmarshal([]byte(in), &v); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	got, err := Marshal(map[string]any{"b": 1.5, "a": []string{"x"}})
	if err != nil || string(got) != `{"a":["x"],"b":1.5}` {
		t.Errorf("Marshal = %s, %v", got, err)
	}
	if _, err := Marshal(int64(1) << 53); err == nil {
		t.Error("an integer that would change is marshalled")
	}
	if _, err := Marshal("\xff"); err == nil {
		t.Error("invalid UTF-8 is marshalled")
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	m, err := Members([]byte(`{"\u0061": {"x" :1}, "b":2}`))
	if err != nil || len(m) != 2 || string(m["a"]) != `{"x" :1}` {
		t.Errorf("Members = %s, %v", m, err)
	}
	for _, bad := range []string{`[]`, `null`, `"a"`, `{"a":1}{}`} {
		if m, err := Members([]byte(bad)); err == nil {
			t.Errorf("Members(%s) = %v", bad, m)
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	t.Parallel()
	err := Check([]byte(`{"params":{"a/b":[1,{"x":1,"X":2}]}}`))
	const want = `at byte 27, "/params/a~1b/1": the name "X" is there twice, or differs from another in case alone`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestManyNames(t *testing.T) {
	t.Parallel()
	// Linear time, and a collision is found on either side of
	// the change from comparing to a map.
	for _, n := range []int{few - 1, few, few + 1, MaxNames - 1} {
		var b bytes.Buffer
		b.WriteByte('{')
		for i := range n {
			b.WriteString(`"N`)
			b.WriteString(strings.Repeat("x", i%3))
			b.WriteString(itoa(i))
			b.WriteString(`":{"N0":1},`)
		}
		good := b.String() + `"last":1}`
		if err := Check([]byte(good)); err != nil {
			t.Errorf("%d names: %v", n, err)
		}
		for _, dup := range []string{"N0", "n0", "nX" + itoa(1)} {
			if err := Check([]byte(b.String() + `"` + dup + `":1}`)); err == nil {
				t.Errorf("%d names and %s again: accepted", n, dup)
			}
		}
	}
}

func itoa(i int) string { b, _ := stdjson.Marshal(i); return string(b) }

func TestCheckAllocatesNothing(t *testing.T) {
	b := []byte(`{"jti":"x","htm":"POST","htu":"https://server.example.com/token","iat":1562262616,"a":{"b":[1.5,true,null]}}`)
	if n := testing.AllocsPerRun(100, func() {
		if err := Check(b); err != nil {
			t.Fatal(err)
		}
	}); n > 1 { // sync.Pool drops things at random under the race detector
		t.Errorf("%v allocations", n)
	}
}

// TestJSONTestSuite runs the files of nst/JSONTestSuite.
func TestJSONTestSuite(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("COUNTERFOIL_VECTORS")
	if dir == "" {
		dir = "../../shared/vectors"
	}
	data, err := os.ReadFile(filepath.Join(dir, "jsontestsuite.json"))
	if err != nil {
		t.Skip("skipped: jsontestsuite.json is not there; set COUNTERFOIL_VECTORS to the folder that holds it")
	}
	var files map[string]string
	if err := stdjson.Unmarshal(data, &files); err != nil {
		t.Fatal(err)
	}
	// These are valid JSON, and refused because parsers read them differently.
	refused := map[string]bool{
		"y_object_duplicated_key.json":           true,
		"y_object_duplicated_key_and_value.json": true,
		"y_object_escaped_null_in_key.json":      true,
	}
	seen := 0
	accepted, all := map[string]int{}, map[string]int{} // by what the name starts with
	for name, enc := range files {
		text, err := base64.StdEncoding.DecodeString(enc)
		if err != nil {
			t.Fatal(err)
		}
		err = Check(text)
		switch {
		case strings.HasPrefix(name, "y_") && !refused[name] && err != nil:
			t.Errorf("%s is refused: %v", name, err)
		case (strings.HasPrefix(name, "n_") || refused[name]) && err == nil:
			t.Errorf("%s is accepted", name)
		}
		if refused[name] {
			seen++
		}
		kind, _, _ := strings.Cut(name, "_")
		all[kind]++
		if err == nil {
			accepted[kind]++
		}
		if err == nil && !jsontext.Value(text).IsValid() {
			t.Errorf("%s: jsontext refuses what Check accepts", name)
		}
	}
	t.Logf("JSONTestSuite: %d of %d y_ files accepted (all but %d named here), %d of %d n_, %d of %d i_",
		accepted["y"], all["y"], len(refused), accepted["n"], all["n"], accepted["i"], all["i"])
	if accepted["n"] != 0 || accepted["y"] != all["y"]-len(refused) || all["n"] < 180 || all["y"] < 90 {
		t.Error("the counts are not those expected")
	}
	if seen != len(refused) || len(files) < 300 {
		t.Errorf("the suite is not the one expected: %d files, %d of the refused ones", len(files), seen)
	}
}

// FuzzCheck holds what is accepted against two other parsers.
func FuzzCheck(f *testing.F) {
	for _, c := range texts {
		f.Add([]byte(c.good))
		f.Add([]byte(c.bad))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := Check(b)
		canonical, cerr := Canonical(b)
		if (err == nil) != (cerr == nil) {
			t.Fatalf("Check: %v, Canonical: %v", err, cerr)
		}
		if err != nil {
			return
		}
		if !jsontext.Value(b).IsValid() {
			t.Fatal("jsontext refuses what Check accepts")
		}
		again, err := Canonical(canonical)
		if err != nil || !bytes.Equal(again, canonical) {
			t.Fatalf("canonical form %q becomes %q, %v", canonical, again, err)
		}
		// encoding/json reads text and canonical form as the same value.
		var was, is any
		if err := stdjson.Unmarshal(b, &was); err != nil {
			t.Fatalf("encoding/json refuses what Check accepts: %v", err)
		}
		if err := stdjson.Unmarshal(canonical, &is); err != nil {
			t.Fatalf("encoding/json refuses the canonical form: %v", err)
		}
		x, _ := stdjson.Marshal(was)
		y, _ := stdjson.Marshal(is)
		if x, y := zero(x), zero(y); !bytes.Equal(x, y) {
			t.Fatalf("encoding/json reads %s, then %s", x, y)
		}
	})
}

// zero takes the sign from zeros, which RFC 8785 drops.
func zero(b []byte) []byte {
	var v any
	if stdjson.Unmarshal(b, &v) != nil {
		return b
	}
	var walk func(any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case float64:
			return v + 0
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
			return v
		case map[string]any:
			for k := range v {
				v[k] = walk(v[k])
			}
			return v
		}
		return v
	}
	out, _ := stdjson.Marshal(walk(v))
	return out
}

func BenchmarkCheck(b *testing.B) {
	text := []byte(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","arguments":{"to":"DE89370400440532013000","amount":"100.00","currency":"EUR","memo":"invoice 4711, thank you"}}}`)
	b.SetBytes(int64(len(text)))
	for _, c := range []struct {
		name string
		f    func([]byte) error
	}{
		{"check", Check},
		{"canonical", func(b []byte) error { _, err := Canonical(b); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.f(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// namesObject returns an object of n names.
func namesObject(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"n%d":0`, i)
	}
	return "{" + b.String()[1:] + "}"
}
