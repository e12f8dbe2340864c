package attacks

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// What an agent may do with an approval: make the very call, once, in time. AP1, AP2,
// AP3, AP6, AP16.

// TestOnePayloadApprovedAnotherSent is AP1: what runs is what was approved, and a
// spelling of it, and nothing else.
func TestOnePayloadApprovedAnotherSent(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const approved = `{"amount":100,"to":"Zo\u00eb","what":"caf\u00e9"}`
	for _, c := range []struct {
		name, sent string
		same       bool
	}{
		{"one byte", `{"amount":100,"to":"Zo\u00eb","what":"caf\u00e8"}`, false},
		{"a space at the end", `{"amount":100,"to":"Zo\u00eb ","what":"caf\u00e9"}`, false},
		{"another case", `{"amount":100,"to":"zo\u00eb","what":"caf\u00e9"}`, false},
		{"a member more", `{"amount":100,"cc":"me","to":"Zo\u00eb","what":"caf\u00e9"}`, false},
		{"a member less", `{"to":"Zo\u00eb","what":"caf\u00e9"}`, false},
		{"a member that is null", `{"amount":null,"to":"Zo\u00eb","what":"caf\u00e9"}`, false},
		{"no arguments", `{}`, false},
		{"a member of another name", `{"Amount":100,"to":"Zo\u00eb","what":"caf\u00e9"}`, false},
		{"decomposed letters", `{"amount":100,"to":"Zoe\u0308","what":"caf\u00e9"}`, false},
		{"a letter that looks the same", `{"amount":100,"to":"Zo\u00eb","what":"\u0441af\u00e9"}`, false},
		{"a zero-width space", `{"amount":100,"to":"Zo\u00eb","what":"caf\u00e9\u200b"}`, false},
		{"an amount as text", `{"amount":"100","to":"Zo\u00eb","what":"caf\u00e9"}`, false},
		{"an amount in a list", `{"amount":[100],"to":"Zo\u00eb","what":"caf\u00e9"}`, false},
		{"an amount that is more by as little as may be", `{"amount":100.00000000000001,"to":"Zo\u00eb","what":"caf\u00e9"}`, false},
		{"members in another order", `{"what":"caf\u00e9","to":"Zo\u00eb","amount":100}`, true},
		{"spaces between", ` { "amount" : 100 , "to" : "Zo\u00eb", "what":"caf\u00e9" } `, true},
		{"letters as they are", `{"amount":100,"to":"Zoë","what":"café"}`, true},
		{"letters that need no escape", `{"amount":100,"t\u006f":"Zo\u00eb","what":"\u0063af\u00e9"}`, true},
		{"an amount with places", `{"amount":100.00,"to":"Zo\u00eb","what":"caf\u00e9"}`, true},
		{"an amount with an exponent", `{"amount":1e2,"to":"Zo\u00eb","what":"caf\u00e9"}`, true},
	} {
		t.Run("AP1 "+c.name, func(t *testing.T) {
			defer o.inPart(t)()
			o.Clock.Advance(16 * time.Minute) // the part before counts no more
			o.again()
			id := o.approved(o.clerk, atShop, approved)
			if !c.same {
				o.wantNot("with the approval named", refused(counterfoil.ApprovalMismatch), func() answer { return o.send(o.clerk, atShop, c.sent, naming(id)) })
				other := o.wantNot("without", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atShop, c.sent) })
				if other.told().ID == id {
					t.Errorf("another call is told of %s", id)
				}
				o.wantRun("what was approved", func() answer { return o.send(o.clerk, atShop, approved, naming(id)) })
				return
			}
			o.wantRun("the same in other words", func() answer { return o.send(o.clerk, atShop, c.sent) })
			got := o.tap.got[len(o.tap.got)-1]
			if want := canonicalJSON(t, parsedJSON(t, []byte(approved))); got.args != want {
				t.Errorf("the upstream got %s, approved was %s", got.args, want)
			}
			o.wantNot("as it was approved", refused(counterfoil.ApprovalSpent), func() answer { return o.send(o.clerk, atShop, approved) })
		})
	}
	o.reconcile()
}

// TestWhatIsAroundTheArgumentsIsApprovedToo is AP1 for everything of a call but its
// arguments: another tool, resource or agent, another instance's call being the same.
func TestWhatIsAroundTheArgumentsIsApprovedToo(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	arguments := o.payment()
	id := o.approved(o.clerk, atTill, arguments)
	o.wantNot("AP1 at another resource", refused(counterfoil.ApprovalMismatch), func() answer { return o.send(o.clerk, atKiosk, arguments, naming(id)) })
	o.wantNot("AP1 at one of a stricter class", refused(counterfoil.ApprovalMismatch), func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
	o.wantNot("AP1 by another agent", refused(counterfoil.ApprovalMismatch), func() answer { return o.send(o.rival, atTill, arguments, naming(id)) })
	o.wantNot("AP1 by another agent that names nothing", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.rival, atTill, arguments) })
	for _, odd := range []string{"apr_", "apr_" + strings.Repeat("a", 27), strings.ToUpper(id), id + " " + id, id + "," + id, "*", "-"} {
		if odd == "-" {
			odd = "" // an empty header
		}
		o.wantNot("a name that is none", want{status: 400, code: counterfoil.RequestMalformed}, func() answer { return o.send(o.clerk, atTill, arguments, naming(odd)) })
	}
	o.wantNot("two names", want{status: 400, code: counterfoil.HeaderMismatch}, func() answer {
		return o.send(o.clerk, atTill, arguments, func(q *call) { q.header["Counterfoil-Approval"] = []string{id, id} })
	})
	o.wantRun("the call", func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
	o.reconcile()
}

// TestAnApprovalIsUsedOnce is AP2.
func TestAnApprovalIsUsedOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	spent := refused(counterfoil.ApprovalSpent)

	// One after the other, with its name and without, and after a restart.
	arguments := o.payment()
	id := o.approved(o.clerk, atBankPay, arguments)
	o.wantRun("AP2 the first", func() answer { return o.send(o.clerk, atBankPay, arguments) })
	for range 2 {
		o.wantNot("the second", spent, func() answer { return o.send(o.clerk, atBankPay, arguments) })
		got := o.wantNot("the third, which names it", spent, func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
		if s := got.told(); s.ID != id || s.Status != string(counterfoil.StateSucceeded) || s.Entry == 0 {
			t.Errorf("the agent is told %+v", s)
		}
		o.restart()
	}

	// An approval that is not used yet outlives a restart, and is for one call then too.
	o.again()
	arguments = o.payment()
	id = o.approved(o.clerk, atBankPay, arguments)
	o.restart()
	o.wantRun("after a restart", func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
	o.wantNot("once more", spent, func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })

	// A hundred at once, half of which name it. Beside them, a hundred calls that need
	// nobody all run.
	o.again()
	for _, heat := range []struct {
		name    string
		winners int
		control bool
	}{{"the control", 100, true}, {"AP2 the race", 1, false}} {
		arguments = o.payment()
		if !heat.control {
			id = o.approved(o.clerk, atBankPay, arguments)
		}
		var requests []*http.Request
		for i := range 100 {
			q := o.prepare(o.clerk, "bank/get_balance", honestArguments)
			if !heat.control {
				q = o.prepare(o.clerk, atBankPay, arguments)
				if i%2 == 0 {
					naming(id)(q)
				}
			}
			requests = append(requests, o.request(q))
		}
		from, before, won := o.size(), o.arrived(), 0
		for _, a := range o.atOnce(requests) {
			if a.passed() {
				won++
			} else {
				spent.check(t, a)
			}
		}
		if n, allowed := o.arrived()-before, o.allowed(from); won != heat.winners || n != won || allowed != won {
			t.Errorf("%s: %d were told yes, %d decided, %d at the upstream, want %d", heat.name, won, allowed, n, heat.winners)
		}
		o.Clock.Advance(5 * time.Second) // the rate is full again
	}
	o.reconcile()
}

// TestEqualCallsAreOneQuestion: what many replicas ask at once is asked once, and
// what was approved once runs once (AP2).
func TestEqualCallsAreOneQuestion(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	arguments := o.payment()
	var requests []*http.Request
	for range 50 {
		requests = append(requests, o.request(o.prepare(o.clerk, atBankPay, arguments)))
	}
	ids, required := map[string]bool{}, 0
	for _, a := range o.atOnce(requests) {
		ids[a.told().ID] = true
		if a.code == counterfoil.ApprovalRequired {
			required++
		} else if a.code != counterfoil.ApprovalPending || !a.told().Attached {
			t.Errorf("one of many: %s", a)
		}
	}
	if len(ids) != 1 || required != 1 || len(o.Approvals(counterfoil.StatePending)) != 1 {
		t.Errorf("fifty equal calls made %d approvals and asked %d times", len(ids), required)
	}
	// With a key each they are not equal.
	o.wantNot("with a key", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atBankPay, arguments, keyed("one")) })
	o.wantNot("with the same key", refused(counterfoil.ApprovalPending), func() answer { return o.send(o.clerk, atBankPay, arguments, keyed("one")) })
	o.wantNot("with that key and other arguments", want{status: 200, code: counterfoil.IdempotencyMismatch}, func() answer { return o.send(o.clerk, atBankPay, o.payment(), keyed("one")) })
	o.reconcile()
}

// TestApprovalsEnd is AP6: at the second, and after a restart too.
func TestApprovalsEnd(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const window, use = 15 * time.Minute, 5 * time.Minute
	decide := func(id string) want {
		o.again()
		a := o.bo.Decide(id, counterfoil.DecisionApprove, "")
		return want{status: a.Status, code: a.Code}
	}
	for _, late := range []struct {
		name    string
		by      time.Duration
		restart bool
		ends    bool
	}{
		{"a second before its end", -time.Second, false, false},
		{"at its end", 0, false, true},
		{"a second after it", time.Second, false, true},
		{"a second after it and a restart", time.Second, true, true},
	} {
		t.Run("AP6 "+late.name, func(t *testing.T) {
			defer o.inPart(t)()
			wait := func(d time.Duration) {
				o.Clock.Advance(d)
				if late.restart {
					o.restart()
				}
			}
			expired := refused(counterfoil.ApprovalExpired)

			// To be decided.
			arguments := o.payment()
			id := o.ask(o.clerk, atTill, arguments)
			wait(window + late.by)
			switch got := decide(id); {
			case !late.ends && got.status != 200, late.ends && got != (want{status: 403, code: counterfoil.ApprovalExpired}):
				t.Errorf("signing it: %+v", got)
			}
			if late.ends {
				o.wantNot("naming it", expired, func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
				o.wantNot("the call", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atTill, arguments) })
			} else {
				o.wantRun("the call", func() answer { return o.send(o.clerk, atTill, arguments) })
			}

			// To be used.
			o.again()
			arguments = o.payment()
			id = o.approved(o.clerk, atTill, arguments)
			wait(use + late.by)
			if late.ends {
				o.wantNot("naming what was approved", expired, func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
				o.wantNot("the call that was approved", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atTill, arguments) })
			} else {
				o.wantRun("the call that was approved", func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
			}
		})
	}
	o.reconcile()
}

// TestOthersApprovals is AP16: an id says nothing to whom it is not for.
func TestOthersApprovals(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	eve, aud, adm := o.Approver("eve"), o.Approver("aud"), o.Approver("adm")
	arguments := o.payment()
	id, unknown := o.ask(o.clerk, atTill, arguments), counterfoil.NewID("apr_")
	masked := func(a answer) string {
		text := strings.NewReplacer(a.requestID, "REQUEST", id, "ID", unknown, "ID").Replace(string(a.body))
		return fmt.Sprint(a.status, a.header.Get("Content-Type"), a.header.Get("WWW-Authenticate"), text)
	}
	alike := func(what string, ask func(id string) answer) {
		t.Helper()
		of, none := ask(id), ask(unknown)
		if of.code != counterfoil.ToolUnknown && of.code != counterfoil.ApprovalMismatch || masked(of) != masked(none) {
			t.Errorf("AP16 %s: somebody else's is answered\n%s\nand none at all\n%s", what, masked(of), masked(none))
		}
	}

	// Other agents.
	alike("the status, for another agent", func(id string) answer { return o.status(o.rival, o.TillURL(), id) })
	alike("the status, for another agent with a token of the issuer's", func(id string) answer { return o.status(o.rival, o.Issuer(), id) })
	alike("a call of another agent that names it", func(id string) answer { return o.send(o.rival, atTill, arguments, naming(id)) })
	if a := o.status(o.clerk, o.TillURL(), id); a.status != http.StatusOK || a.member("id") != id {
		t.Errorf("the status, for who asked: %s", a)
	}
	if a := o.status(o.clerk, o.Issuer(), id); a.status != http.StatusOK {
		t.Errorf("the status, for who asked with a token of the issuer's: %s", a)
	}
	if a := o.status(o.clerk, o.BankURL(), id); a.status == http.StatusOK {
		t.Errorf("the status with a token of another resource: %s", a)
	}

	// Other people.
	for _, v := range []visit{
		{http.MethodGet, "/api/v1/approvals/ID", "", eve},
		{http.MethodPost, "/api/v1/approvals/ID/challenge", `{"decision":"deny"}`, eve},
		{http.MethodPost, "/api/v1/approvals/ID/challenge", `{"decision":"approve"}`, eve},
		{http.MethodPost, "/api/v1/approvals/ID/signatures", `{"decision":"approve","credential":{}}`, eve},
		{http.MethodGet, "/approvals/ID/proof", "", eve},
	} {
		alike(v.method+" "+v.path, func(id string) answer {
			v := v
			v.path = strings.Replace(v.path, "ID", id, 1)
			return o.visit(v)
		})
	}
	for _, p := range []string{"/approvals/", "/decided/"} {
		got := o.visit(visit{http.MethodGet, p + id, "", eve}, func(r *http.Request) { r.Header.Set("Accept", "text/html") })
		if got.status != http.StatusNotFound || strings.Contains(string(got.body), "acme") {
			t.Errorf("the page %s of somebody else's: %s", p, got)
		}
	}
	for _, path := range []string{"/api/v1/approvals", "/api/v1/approvals?state=pending", "/api/v1/approvals?agent=clerk"} {
		if a := o.visit(visit{http.MethodGet, path, "", eve}); a.status != http.StatusOK || strings.Contains(string(a.body), id) {
			t.Errorf("eve's list %s: %s", path, a)
		}
		for _, who := range []visit{{http.MethodGet, path, "", o.bo}, {http.MethodGet, path, "", aud}, {http.MethodGet, path, "", adm}} {
			if a := o.visit(who); !strings.Contains(string(a.body), id) {
				t.Errorf("%s's list %s: %s", who.as.Name, path, a)
			}
		}
	}
	if got := o.signers(id); len(got) != 0 || o.Approval(id).State != counterfoil.StatePending {
		t.Errorf("meanwhile the approval is %s with %v", o.Approval(id).State, got)
	}
	o.reconcile()
}

// status asks for an approval as an agent does, with a token for a resource.
func (o *office) status(a *actor, resource, id string) answer {
	o.T.Helper()
	target := o.Issuer() + counterfoil.ApprovalPath + id
	q := o.callWith(a, o.tokenAt(a, resource), target)
	q.method, q.body = http.MethodGet, ""
	q.header = http.Header{}
	q.proof.Claims["htm"] = http.MethodGet
	return o.sendCall(q)
}

// ended reports whether the log says that an approval ended unused: in an entry of its
// own, or in that of what took its ground away.
func (o *office) ended(id string) bool {
	o.T.Helper()
	for _, e := range o.since(0) {
		if e.Kind == ledger.ApprovalClosed && e.Approval.ID == id {
			return true
		}
		if lost, _ := e.Detail["approvals"].([]any); slices.Contains(lost, any(id)) {
			return true
		}
	}
	return false
}
