package approval

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

// places are what an amount has at most behind the point; amounts are counted in
// ten-thousandths.
const places = 4

// takings returns what a call takes from its class's cumulative limits. A field that
// is absent, negative or no decimal of at most four places refuses, as does one call
// that is beyond the limit by itself: nobody is asked for what could never run.
func takings(class *counterfoil.Class, agent string, fields map[string]string) ([]counterfoil.Taking, error) {
	var out []counterfoil.Taking
	for _, l := range class.Limits {
		most, ok := units(l.Max)
		if !ok || l.Per != "agent" {
			return nil, counterfoil.Refuse(counterfoil.LimitExceeded, "the limit on %s of class %s cannot be read", l.Sum, class.Name)
		}
		text, ok := fields[l.Sum]
		if !ok {
			return nil, counterfoil.Refuse(counterfoil.LimitExceeded, "class %s limits the sum of %s, which the call does not have", class.Name, l.Sum)
		}
		amount, ok := units(text)
		if !ok {
			return nil, counterfoil.Refuse(counterfoil.LimitExceeded,
				"class %s limits the sum of %s, and %q is not a decimal from 0 of at most %d places", class.Name, l.Sum, text, places)
		}
		if amount > most {
			return nil, counterfoil.Refuse(counterfoil.LimitExceeded, "%s is %q, more than the %s that class %s allows in %s",
				l.Sum, text, l.Max, class.Name, l.Window)
		}
		out = append(out, counterfoil.Taking{
			Class: class.Name, Field: l.Sum, Agent: agent, Window: time.Duration(l.Window), Amount: amount, Max: most,
		})
	}
	return out, nil
}

// amounts are a call's fields that are decimals, as a task's limits sum them. Who
// decided on the call has read them from its arguments; otherwise they are read here.
func amounts(c *counterfoil.GuardedCall) map[string]int64 {
	if c.Amounts != nil {
		return c.Amounts
	}
	out := map[string]int64{}
	for name, text := range c.Fields {
		if n, ok := units(text); ok {
			out[name] = n
		}
	}
	return out
}

// units reads a decimal from zero, of at most four places, in ten-thousandths. There
// is no sign, as a negative amount would give budget back, and no leading zero, which
// some read as octal.
func units(s string) (int64, bool) {
	whole, frac, point := strings.Cut(s, ".")
	if !digits(whole) || len(whole) > 1 && whole[0] == '0' || point && !digits(frac) || len(frac) > places {
		return 0, false
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", places-len(frac)), 10, 64)
	return n, err == nil
}

// decimal writes ten-thousandths as units reads them, without zeros at the end.
func decimal(n int64) string {
	s := strconv.FormatInt(n, 10)
	if len(s) <= places {
		s = strings.Repeat("0", places+1-len(s)) + s
	}
	whole, frac := s[:len(s)-places], strings.TrimRight(s[len(s)-places:], "0")
	if frac == "" {
		return whole
	}
	return whole + "." + frac
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// payer is the agent whose limits a call counts against: the one that makes it, where an
// enforcement point asks about it.
func payer(caller *counterfoil.Caller, by string) string {
	if by != "" {
		return by
	}
	return caller.Agent
}

// fits refuses what its class's limits have no room for as things are: nobody is asked
// for what could not run. What counts in the end is what is left when it is spent.
func (e *Engine) fits(ctx context.Context, cl *claim) error {
	wanted, err := takings(cl.class, payer(&cl.Caller, cl.For), cl.Fields)
	if err != nil {
		return err
	}
	for _, t := range wanted {
		used, err := e.store.Taken(ctx, t)
		if err != nil {
			return err
		}
		if used > t.Max-t.Amount {
			return counterfoil.Refuse(counterfoil.LimitExceeded, "class %s allows %s of %s in %s, and %s are used; wait for the window to pass, or ask for less",
				t.Class, decimal(t.Max), t.Field, t.Window, decimal(used))
		}
	}
	return nil
}
