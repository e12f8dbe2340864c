package attacks

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// How much and how many: AP17, AP18.

// batch is how many approvals of one agent wait at once.
const batch = 20

// TestOnePayoutInAHundredParts is AP17: many small payments are one big one, also when
// people have said yes to each and all are made at once.
func TestOnePayoutInAHundredParts(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const part, parts, fit = `{"amount":100,"part":%d,"to":"acme"}`, 100, 50 // of 5000
	exceeded := refused(counterfoil.LimitExceeded)

	// More are approved than fit, before any is made: then all at once.
	var requests []*http.Request
	for n := range 3 * batch {
		o.approved(o.clerk, atStall, fmt.Sprintf(part, n))
		requests = append(requests, o.request(o.prepare(o.clerk, atStall, fmt.Sprintf(part, n))))
	}
	from, before, told := o.size(), o.arrived(), 0
	for _, a := range o.atOnce(requests) {
		if a.passed() {
			told++
		} else {
			exceeded.check(t, a)
		}
	}
	if made, allowed := o.arrived()-before, o.allowed(from); told != fit || made != fit || allowed != fit {
		t.Errorf("AP17 of %d parts, %d were told yes, %d decided, %d made; want %d", len(requests), told, allowed, made, fit)
	}
	// Nobody is asked about the others, nor about what another tool takes of the limit.
	o.Clock.Advance(10 * time.Second)
	for n := 3 * batch; n < parts; n++ {
		o.notAsked("AP17 a part more", atStall, fmt.Sprintf(part, n))
	}
	o.notAsked("AP17 with another tool", atKiosk, `{"amount":0.01,"currency":"EUR","to":"acme"}`)
	// A limit is each agent's, and is full again a day after it was used.
	one := fmt.Sprintf(part, 0)
	other := o.approved(o.rival, atStall, one)
	o.wantRun("another agent's", func() answer { return o.send(o.rival, atStall, one, naming(other)) })
	o.Clock.Advance(23 * time.Hour)
	o.again()
	o.notAsked("AP17 an hour before the day is over", atStall, one)
	o.Clock.Advance(time.Hour)
	o.again()
	late := o.approved(o.clerk, atStall, one)
	o.wantRun("the day after", func() answer { return o.send(o.clerk, atStall, one, naming(late)) })
	o.reconcile()
}

// TestAmountsThatCannotBeSummed is AP17: what a limit cannot count is not asked about.
func TestAmountsThatCannotBeSummed(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, amount := range []string{
		`-100`, `-0.0001`, `5000.01`, `5000.0001`, `100.00001`, `1e9`, `1e15`, `9007199254740991`, `1e-7`,
		`"100"`, `"1e3"`, `" 100"`, `"0x64"`, `"-100"`, `"١٠٠"`, `true`, `null`, `[100]`, `{"amount":100}`, `""`,
	} {
		o.notAsked("AP17 "+amount, atKiosk, `{"amount":`+amount+`,"currency":"EUR","to":"acme"}`)
	}
	o.notAsked("AP17 no amount", atKiosk, `{"currency":"EUR","to":"acme"}`)
	o.notAsked("AP17 an amount under another name", atKiosk, `{"Amount":100,"currency":"EUR","to":"acme"}`)
	for _, amount := range []string{`5000`, `5e3`, `5000.00`} {
		o.Clock.Advance(24 * time.Hour)
		o.again()
		arguments := `{"amount":` + amount + `,"currency":"EUR","to":"acme"}`
		o.approved(o.clerk, atKiosk, arguments)
		o.wantRun("all of it: "+amount, func() answer { return o.send(o.clerk, atKiosk, arguments) })
	}
	o.reconcile()
}

// notAsked wants that a call is refused without anybody being asked.
func (o *office) notAsked(what, tool, arguments string) {
	o.T.Helper()
	from := o.size()
	got := o.wantNotAny(what, func() answer { return o.send(o.clerk, tool, arguments) })
	if got.code == "" || got.told().ID != "" || got.status/100 == 5 {
		o.T.Errorf("%s: %s", what, got)
	}
	for _, e := range o.since(from) {
		if e.Kind == ledger.ApprovalRequested {
			o.T.Errorf("%s: people are asked about it", what)
		}
	}
}

// TestApprovalFlood is AP18: an agent that asks a thousand times has twenty approvals
// that wait, and nobody else is worse off.
func TestApprovalFlood(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const flood = 1000
	from, asked, first := o.size(), 0, ""
	for range flood / 100 {
		var requests []*http.Request
		for range 100 {
			requests = append(requests, o.request(o.prepare(o.clerk, atShop, o.order())))
		}
		for _, a := range o.atOnce(requests) {
			switch {
			case a.code == counterfoil.ApprovalRequired:
				asked++
				first = a.told().ID
			default:
				refused(counterfoil.TooManyPending).check(t, a)
			}
		}
		o.Clock.Advance(2 * time.Second) // the rate is full again
	}
	requested := 0
	for _, e := range o.since(from) {
		if e.Kind == ledger.ApprovalRequested {
			requested++
		}
	}
	waiting := len(o.Approvals(counterfoil.StatePending))
	if asked != batch || requested != batch || waiting != batch {
		t.Errorf("AP18 of %d requests %d were taken, %d recorded, and %d wait; want %d", flood, asked, requested, waiting, batch)
	}
	if n := o.arrived(); n != 0 {
		t.Errorf("%d calls reached an upstream", n)
	}
	// Others ask as before, and what needs nobody runs, the flooder's too.
	arguments := o.payment()
	id := o.approved(o.rival, atTill, arguments)
	o.wantRun("another agent's", func() answer { return o.send(o.rival, atTill, arguments, naming(id)) })
	o.wantRun("the flooder's own reading", func() answer { return o.send(o.clerk, "bank/get_balance", honestArguments) })
	// One decided makes room for one, and a restart for none.
	o.wantNot("one more", refused(counterfoil.TooManyPending), func() answer { return o.send(o.clerk, atTill, o.payment()) })
	o.bo.Deny(first, "too many")
	o.wantNot("one in its place", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atTill, o.payment()) })
	o.restart()
	o.wantNot("one more after a restart", refused(counterfoil.TooManyPending), func() answer { return o.send(o.clerk, atTill, o.payment()) })
	o.reconcile()
}
