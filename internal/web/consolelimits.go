package web

import (
	"math/big"

	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/approval"
)

// limitUse is a limit with the parts of a bar. What is no number has no bar.
func limitUse(l approval.LimitView) console.LimitUse {
	u := console.LimitUse{Field: l.Field, Window: l.Window, Used: l.Used, This: l.Amount, Max: l.Max}
	u.Percent, u.More = percent(l.Used, l.Max), percent(l.Amount, l.Max)
	u.Over = u.Percent+u.More > 100
	u.Percent = min(u.Percent, 100)
	u.More = min(u.More, 100-u.Percent)
	return u
}

func percent(part, whole string) int {
	a, ok := new(big.Rat).SetString(part)
	b, okb := new(big.Rat).SetString(whole)
	if !ok || !okb || b.Sign() <= 0 || a.Sign() < 0 {
		return 0
	}
	f, _ := new(big.Rat).Mul(new(big.Rat).Quo(a, b), big.NewRat(100, 1)).Float64()
	if f > 100 {
		return 101
	}
	return int(f)
}
