package policy

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestParseUnits(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{
		"0": 0, "1": 10000, "500.00": 5000000, "0.0001": 1, "-0.5": -5000, "12.50": 125000, "12.5000000": 125000,
		"922337203685477.5807": math.MaxInt64, "-922337203685477.5808": math.MinInt64, "-0": 0,
	} {
		if got, ok := ParseUnits(s); !ok || got != want {
			t.Errorf("%s is %d, %t", s, got, ok)
		}
	}
	for _, s := range []string{
		"", "-", "+1", ".5", "5.", "01", "-01", "1,5", " 1", "1 ", "1e3", "1E3", "0x1", "1_0", "0.00001", "922337203685477.5808", "-922337203685477.5809", "1000000000000000", "NaN", "inf", "１",
		"99999999999999999999999999", "0.99999999999999999999",
	} {
		if got, ok := ParseUnits(s); ok {
			t.Errorf("%q is taken as %d", s, got)
		}
	}
}

func TestParseNumber(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0", "-0", "0.0", "1e5", "1E+5", "1e-5", "1e00005", "0e99999999999999", "123456789012345678.9e-3"} {
		if _, ok := parseNumber(s); ok != (s != "0e99999999999999") {
			t.Errorf("%q: %t", s, ok)
		}
	}
	for _, s := range []string{"1e", "1e+", "e5", "1e5.0", "1.e5", "--1", "1e99999", "1e-99999", "123456789012345678901"} {
		if n, ok := parseNumber(s); ok {
			t.Errorf("%q is taken as %+v", s, n)
		}
	}
}

// What is read is exact: it agrees with rational arithmetic.
func TestNumberIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "literal")
		r, ok := new(big.Rat).SetString(s)
		if !ok {
			t.Skip(s)
		}
		n, ok := parseNumber(s)
		units := new(big.Rat).Mul(r, big.NewRat(10000, 1))
		want := units.IsInt() && units.Num().IsInt64()
		got, gotOK := n.units()
		if !ok {
			if want {
				t.Fatalf("%s has no image", s)
			}
			return
		}
		if gotOK != want || (want && got != units.Num().Int64()) {
			t.Fatalf("%s is %d, %t units; want %s", s, got, gotOK, units)
		}
		whole := r.IsInt() && r.Num().CmpAbs(big.NewInt(maxInteger)) <= 0
		v, longOK := n.long()
		if longOK != whole || (whole && v != r.Num().Int64()) || n.integer() != r.IsInt() {
			t.Fatalf("%s is long %d, %t; want %s", s, v, longOK, r)
		}
	})
}

func TestPointers(t *testing.T) {
	t.Parallel()
	// RFC 6901, Section 5.
	var a arguments
	if err := a.parse([]byte(`{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,"deep":{"x":[{"y":9}]},"~1":10}`)); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"/foo": `["bar","baz"]`, "/foo/0": `"bar"`, "/": "0", "/a~1b": "1", "/c%d": "2", "/e^f": "3", "/g|h": "4", `/i\j`: "5", `/k"l`: "6", "/ ": "7", "/m~0n": "8", "/deep/x/0/y": "9", "/~01": "10",
	} {
		tokens, err := ParsePointer(p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if got, ok := a.at(tokens); !ok || string(got) != want {
			t.Errorf("%s is %s, %t", p, got, ok)
		}
	}
	for _, p := range []string{"/nothing", "/foo/2", "/foo/-", "/foo/00", "/foo/01", "/foo/-1", "/foo/+1", "/foo/1e0", "/foo/99999999999999999999", "/foo/x", "/foo/0/x", "/deep/x/0/z", "/a/b", "/deep/"} {
		tokens, err := ParsePointer(p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if got, ok := a.at(tokens); ok {
			t.Errorf("%s is %s", p, got)
		}
	}
	for _, p := range []string{"", "foo", "/a~", "/a~2", "#/a"} {
		if _, err := ParsePointer(p); err == nil {
			t.Errorf("%q is taken", p)
		}
	}
	if _, ok := a.at(nil); ok {
		t.Error("no pointer points somewhere")
	}
}
