package policy

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// FuzzDecide wants every decision to be one, whatever the arguments, the
// condition and the policy are: never a panic, never an allowing refusal, the
// same answer each time, and no when Cedar cannot tell.
func FuzzDecide(f *testing.F) {
	f.Add([]byte(pay100), exampleWhen, `forbid (principal, action, resource) when { context.args == {} };`, "/amount")
	f.Add([]byte(`{"amount":null}`), `context.args has amount`, `forbid (principal, action, resource in Class::"payout") unless { context.fields.x.contains(1) };`, "/a/0")
	f.Add([]byte(`[1,2]`), `context == {}`, `permit (principal, action, resource);`, "/~0~1")
	f.Add([]byte(`{"a":`+strings.Repeat(`[`, 70)+strings.Repeat(`]`, 70)+`}`), `context.args.a.isEmpty()`, ``, "")
	f.Add([]byte(`{"amount":1e999,"amount":2}`), `true }; permit (principal, action, resource) when { true`, `forbid (`, "x")
	f.Fuzz(func(t *testing.T, args []byte, when, cedarText, at string) {
		reg := bank()
		grantOnly(when)(reg, nil)
		reg.Resources["bank"].Tools[1].Fields = map[string]string{"amount": at}
		reg.Policies["p"] = &counterfoil.Policy{Name: "p", Cedar: cedarText}
		s, problems := Load(reg)
		a := action("pay", "")
		a.Arguments = args
		a.Source = netip.MustParseAddr("fe80::1%eth0")
		a.Caller.Details = []counterfoil.ToolDetail{{Type: counterfoil.DetailType, Tool: "pay"}, {Type: counterfoil.DetailType, Tool: "pay", Constraints: map[string]counterfoil.Constraint{at: {Max: "5"}}}}
		d := s.Decide(a, noon)
		if d.Allow == (d.Code != "") {
			t.Fatalf("no decision: %+v", d)
		}
		if len(problems) > 0 && d.Allow {
			t.Fatalf("allowed under problems %+v", problems)
		}
		if again := s.Decide(a, noon); again.Code != d.Code || again.Detail != d.Detail {
			t.Fatalf("decided %+v, then %+v", d, again)
		}
		Warnings(reg)

		// The same arguments where limits and approvals read them.
		for _, tool := range []string{"pay_limited", "pay_final"} {
			reg := bank()
			reg.Resources["bank"].Tools[2].Fields = map[string]string{"amount": at}
			b := action(tool, "")
			b.Arguments = args
			if d := load(t, reg).Decide(b, time.Time{}); d.Allow == (d.Code != "") {
				t.Fatalf("no decision: %+v", d)
			}
		}
	})
}

// Arguments made to be slow are not: colliding hashes, many members, great
// depth, long numbers.
func TestHostileArguments(t *testing.T) {
	t.Parallel()
	// A long and a decimal of as many ten-thousandths have one hash.
	var colliding strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&colliding, "%d,%d.%04d,", i, i/10000, i%10000)
	}
	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, `"k%d":[%snull],`, i, strings.Repeat(`[0],`, 20000))
	}
	var nulls strings.Builder
	for i := range 50000 {
		fmt.Fprintf(&nulls, `"k%d":null,`, i)
	}
	tests := map[string]string{
		"colliding":       `{"l":[` + colliding.String() + `0]}`,
		"many":            `{` + many.String() + `"l":0}`,
		"deep":            `{"l":` + strings.Repeat(`{"a":`, 100000) + `1` + strings.Repeat(`}`, 100000) + `}`,
		"digits":          `{"l":` + strings.Repeat("9", 1000000) + `}`,
		"exponent":        `{"l":1e` + strings.Repeat("9", 1000000) + `}`,
		"nulls":           `{"l":{` + nulls.String() + `"k":1}}`,
		"string":          `{"l":"` + strings.Repeat("x", 1<<20) + `"}`,
		"not utf-8":       "{\"l\":\"\xff\"}",
		"surrogate":       `{"l":"\ud800"}`,
		"duplicate":       `{"l":1,"l":2}`,
		"duplicate below": `{"l":{"a":1,"a":2}}`,
		"trailing":        `{"l":1} {}`,
		"not closed":      `{"l":1`,
		"bad address":     `{"l":"x","addr":"` + strings.Repeat("x", 1<<20) + `"}`,
		"long name":       `{"` + strings.Repeat("x", 1<<20) + `":{"a":1,"a":1}}`,
		"list":            `[]`,
		"null":            `null`,
	}
	reg := bank()
	grantOnly(`context.args has l && context.args.l != 1 && context.args != {} && (if context.args has addr then ip(context.args.addr).isIpv4() else true)`)(reg, nil)
	s := load(t, reg)
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := s.Decide(action("pay", args), noon)
			if name == "string" {
				want(t, d, "", "")
				return
			}
			if d.Allow {
				t.Errorf("allowed")
			}
			if malformed := map[string]bool{"deep": true, "not utf-8": true, "surrogate": true, "duplicate": true, "duplicate below": true, "long name": true, "trailing": true, "not closed": true, "list": true, "null": true}; malformed[name] != (d.Code == counterfoil.PayloadMalformed) {
				t.Errorf("code %s, %.200s", d.Code, d.Detail)
			}
			if len(d.Detail) > maxDetail+len("…") {
				t.Errorf("a detail of %d bytes", len(d.Detail))
			}
		})
	}
}

// The value of a number is what exact arithmetic says that it is, and an amount
// is one that was written out.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.50", "12e-1", "9007199254740993", "922337203685477.5807", "922337203685477.5808", "0.00001", "1e1000", "01", "1.", "0x1", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := parseNumber(s)
		if ok {
			if !json.Valid([]byte(s)) {
				t.Fatalf("%q is no number of JSON", s)
			}
			want, exact := new(big.Rat).SetString(s)
			got := new(big.Rat).SetFrac(new(big.Int).SetUint64(n.mant), big.NewInt(1))
			ten := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(n.exp, -n.exp))), nil))
			if n.exp < 0 {
				ten.Inv(ten)
			}
			if got.Mul(got, ten); n.neg {
				got.Neg(got)
			}
			if !exact || got.Cmp(want) != 0 {
				t.Fatalf("%q is %s, read as %s", s, want, got)
			}
		}
		if units, ok := ParseUnits(s); ok {
			want, exact := new(big.Rat).SetString(s)
			if !exact || want.Mul(want, big.NewRat(10000, 1)).Cmp(new(big.Rat).SetInt64(units)) != 0 {
				t.Fatalf("%q is %d ten-thousandths", s, units)
			}
		}
	})
}

// A pointer that is taken is written back as it was read.
func FuzzParsePointer(f *testing.F) {
	for _, s := range []string{"/amount", "/a~1b/~0", "/~01", "/", "//", "x", "/~2", "/~"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tokens, err := ParsePointer(s)
		if err != nil {
			return
		}
		var out strings.Builder
		for _, token := range tokens {
			out.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(token))
		}
		if out.String() != s {
			t.Fatalf("%q is read as %q", s, tokens)
		}
	})
}
