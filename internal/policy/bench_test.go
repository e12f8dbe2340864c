package policy

import (
	"fmt"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// BenchmarkDecide decides one payment with its context: a grant with a
// condition, one forbid in scope and n−1 that are not.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000} {
		reg := bank()
		grantOnly(exampleWhen)(reg, nil)
		policyOnly(`forbid (principal, action == Action::"call", resource in Class::"payout") when { context.hour >= 22 || context.hour < 6 };`)(reg, nil)
		for i := range n - 1 {
			name := fmt.Sprintf("p%d", i)
			head := [...]string{
				`principal == Agent::"agent-%d", action, resource`,
				`principal, action, resource == Tool::"bank/tool-%d"`,
				`principal, action, resource in Class::"class-%d"`,
				`principal == Agent::"agent-%d", action == Action::"call", resource in Class::"payout"`,
			}[i%4]
			text := fmt.Sprintf("forbid ("+head+") when { context.hour > 20 || context.fields.amount.greaterThan(decimal(\"5.0\")) };", i)
			reg.Policies[name] = &counterfoil.Policy{Name: name, Cedar: text}
		}
		s := load(b, reg)
		a := action("pay", pay100)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := s.Decide(a, noon); !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}

// BenchmarkDecideBare decides a call that no rule concerns.
func BenchmarkDecideBare(b *testing.B) {
	s := load(b, bank())
	a := action("get_balance", `{"account":"1"}`)
	b.ReportAllocs()
	for b.Loop() {
		if d := s.Decide(a, noon); !d.Allow {
			b.Fatal(d)
		}
	}
}
