package attacks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// What an approval does not outlive: AP3, AP13, AP14.

// A change happens between the signatures and the call.
type change struct {
	name string
	make func(o *office)
	undo func(o *office) // so that the next one begins where this one did; optional

	state   counterfoil.ApprovalState // of the approval then
	control bool                      // it changes nothing that counts
}

// TestApproversWhoLeave is AP13: everything that a signature rests on is looked at
// again when it is used.
func TestApproversWhoLeave(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	gone := func(name string) func(*office) {
		return func(o *office) {
			if status, body := o.Admin(http.MethodDelete, "/api/v1/people/"+name, nil); status != http.StatusOK {
				o.T.Fatalf("removing %s: HTTP %d %s", name, status, body)
			}
		}
	}
	back := func(o *office) {
		o.Apply("{kind: Person, name: cy, email: cy@example.com, groups: [finance-approvers]}")
		o.Apply("{kind: Agent, name: clerk, owner: ana, purpose: buys what is needed, environment: prod, grants: [{tools: [bank/get_balance, bank/pay, till/pay, \"shop/*\", kiosk/pay]}]}")
	}
	declare := func(manifest string) func(*office) { return func(o *office) { o.Apply(manifest) } }
	revoked := counterfoil.StateRevoked
	for _, c := range []change{
		{name: "nothing that counts", make: declare("{kind: Person, name: eve, email: eve@example.com, groups: [legal, more]}"), control: true},
		{name: "another passkey of a signer's, beside the first", make: func(o *office) { o.ApproverWith("cy", o.device()) }, control: true},
		{name: "who signed is removed", make: gone("cy"), undo: func(o *office) { back(o); o.cy = o.Approver("cy") }, state: revoked},
		{name: "who signed leaves the group", make: declare("{kind: Person, name: cy, email: cy@example.com, groups: [legal]}"), undo: back, state: revoked},
		{name: "who signed leaves every group", make: declare("{kind: Person, name: cy, email: cy@example.com}"), undo: back, state: revoked},
		{name: "who signed becomes the agent's owner", make: declare("{kind: Agent, name: clerk, owner: cy, environment: prod, purpose: buys what is needed, grants: [{tools: [bank/get_balance, bank/pay, till/pay, \"shop/*\", kiosk/pay]}]}"), undo: back, state: counterfoil.StateSuperseded},
		{name: "the two who signed become one human", make: declare("{kind: Person, name: cy, email: b.o+cy@example.com, groups: [finance-approvers]}"), undo: back, state: revoked},
		{name: "the owner becomes who signed", make: declare("{kind: Person, name: cy, email: ana+cy@example.com, groups: [finance-approvers]}"), undo: back, state: revoked},
		{name: "the passkeys of who signed end", make: func(o *office) { o.cy = o.reset("cy") }, state: revoked},
	} {
		t.Run("AP13 "+c.name, func(t *testing.T) {
			defer o.inPart(t)()
			o.Clock.Advance(time.Minute)
			o.again()
			arguments := o.payment()
			id := o.approved(o.clerk, atBankPay, arguments)
			c.make(o)
			if c.control {
				o.wantRun("the call", func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
				return
			}
			got := o.wantNotAny("the call", func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
			if code := got.code; code != counterfoil.ApprovalRevoked && !(c.state == counterfoil.StateSuperseded && code == counterfoil.ApprovalSuperseded) {
				t.Errorf("the call is told %s", got)
			}
			if a := o.Approval(id); a.State != c.state || !o.ended(id) {
				t.Errorf("the approval is %s, and the log says that it ended: %t; want %s", a.State, o.ended(id), c.state)
			}
			// It does not come back with what is undone.
			if c.undo != nil {
				c.undo(o)
			}
			o.wantNotAny("the call once more", func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
		})
	}
	o.reconcile()
}

// reset ends a person's passkeys and enrols a new one.
func (o *office) reset(name string) *counterfoiltest.Approver {
	o.T.Helper()
	p := o.Visitor(name, o.device())
	if a := p.Enrol(o.PersonCode(name, true)); a.Status != http.StatusCreated {
		o.T.Fatalf("resetting %s: HTTP %d %s", name, a.Status, a.Body)
	}
	p.Login()
	return p
}

// wantNotAny wants that a call did not run, whatever it is told.
func (o *office) wantNotAny(what string, run func() answer) answer {
	o.T.Helper()
	var got answer
	o.wantNot(what, want{}, func() answer { got = run(); return answer{} })
	if got.passed() {
		o.T.Errorf("%s: %s", what, got)
	}
	return got
}

// TestWhoAsksIsGone is AP13 for the agent: suspended, offboarded, its instance ended,
// its task's token void. What it had approved is void with it.
func TestWhoAsksIsGone(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	pending, arguments := o.payment(), o.payment()
	waits := o.ask(o.clerk, atTill, pending)
	id := o.approved(o.clerk, atTill, arguments)
	control := o.payment()
	others := o.approved(o.rival, atTill, control)
	o.Suspend("clerk")
	o.wantNot("AP13 suspended", badToken(counterfoil.AgentSuspended), func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
	for _, of := range []string{id, waits} {
		if a := o.Approval(of); a.State != counterfoil.StateRevoked || !o.ended(of) {
			t.Errorf("the approval of a suspended agent is %s, and the log says that: %t", a.State, o.ended(of))
		}
	}
	if a := o.bo.Decide(waits, counterfoil.DecisionApprove, ""); a.Code != counterfoil.ApprovalRevoked {
		t.Errorf("signing for a suspended agent: HTTP %d %s", a.Status, a.Body)
	}
	o.Resume("clerk")
	clear(o.tokens)
	o.wantNot("AP13 resumed", refused(counterfoil.ApprovalRevoked), func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
	o.wantNot("AP13 resumed, without naming it", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atTill, arguments) })
	o.wantRun("the other agent's", func() answer { return o.send(o.rival, atTill, control, naming(others)) })
	o.reconcile()
}

// TestRulesThatChange is AP14: what people were asked about is what runs, or people
// are asked again, under the rule that is.
func TestRulesThatChange(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const class = `{kind: Class, name: refund, tier: guarded, approvers: [finance-approvers], template: "Refund {{.amount}} {{.currency}} to {{.to}}"}`
	undo := func(o *office) { o.Apply(class) }
	with := func(replacements ...string) func(*office) {
		return func(o *office) { o.Apply(strings.NewReplacer(replacements...).Replace(class)) }
	}
	for _, c := range []struct {
		name    string
		make    func(*office)
		people  int // that are asked now
		control bool
	}{
		{name: "an apply of the same", make: undo, control: true},
		{name: "another class", make: func(o *office) { o.Apply(`{kind: Class, name: small-payment, tier: guarded, approvers: [legal]}`) }, control: true},
		{name: "two people instead of one", make: with("tier: guarded", "tier: irreversible"), people: 2},
		{name: "one more of another group", make: with("[finance-approvers]", "[[finance-approvers], [legal]]"), people: 2},
		{name: "other people", make: with("[finance-approvers]", "[legal]"), people: 1},
		{name: "another template", make: with("Refund", "Please refund"), people: 1},
		{name: "another time to decide", make: with("tier: guarded", "tier: guarded, window: 10m"), people: 1},
		{name: "a limit", make: with("tier: guarded", `tier: guarded, limits: [{sum: amount, per: agent, window: 1h, max: "100"}]`), people: 1},
		{name: "the owner may", make: with("tier: guarded", "tier: guarded, owner_may_approve: true"), people: 1},
	} {
		for _, signed := range []bool{false, true} {
			name := "AP14 " + c.name + ", while it waits"
			if signed {
				name = "AP14 " + c.name + ", once it is approved"
			}
			t.Run(name, func(t *testing.T) {
				defer o.inPart(t)()
				o.Clock.Advance(time.Minute)
				o.again()
				arguments := o.payment()
				id := o.ask(o.clerk, atTill, arguments)
				if signed {
					o.bo.Countersign(id)
				}
				c.make(o)
				defer undo(o)
				if c.control {
					if !signed {
						o.bo.Countersign(id)
					}
					o.wantRun("the call", func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
					return
				}
				got := o.wantNot("the call", refused(counterfoil.ApprovalSuperseded), func() answer { return o.send(o.clerk, atTill, arguments) })
				now := got.told()
				if now.ID == id || now.Status != "pending" || now.ApprovalsRequired != c.people {
					t.Errorf("the agent is told of %+v, want a new one of %d people", now, c.people)
				}
				if a := o.Approval(id); a.State != counterfoil.StateSuperseded {
					t.Errorf("the old one is %s", a.State)
				}
				if a := o.bo.Decide(id, counterfoil.DecisionApprove, ""); a.Status != http.StatusForbidden {
					t.Errorf("signing the old one: HTTP %d %s", a.Status, a.Body)
				}
				again := o.wantNot("the call that names the old one", refused(counterfoil.ApprovalSuperseded), func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
				if id := again.told().ID; id != now.ID {
					t.Errorf("naming the old one, the agent is told of %s, and before of %s", id, now.ID)
				}
			})
		}
	}
	// What was signed under the weaker rule counts for nothing under the stricter one.
	arguments := o.payment()
	o.bo.Countersign(o.ask(o.clerk, atTill, arguments))
	with("tier: guarded", "tier: irreversible")(o)
	id := o.wantNot("AP14 under the stricter rule", refused(counterfoil.ApprovalSuperseded), func() answer { return o.send(o.clerk, atTill, arguments) }).told().ID
	if got := o.signers(id); len(got) != 0 {
		t.Errorf("the new approval begins with %v", got)
	}
	o.bo.Countersign(id)
	o.wantNot("with one of two", refused(counterfoil.ApprovalPending), func() answer { return o.send(o.clerk, atTill, arguments) })
	o.cy.Countersign(id)
	o.wantRun("with both", func() answer { return o.send(o.clerk, atTill, arguments) })
	o.reconcile()
}

// TestToolsThatChangeAfterApproval is AP14 for the tool: what people looked at is what
// runs.
func TestToolsThatChangeAfterApproval(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	shop := fmt.Sprintf("kind: Resource\nname: shop\ntype: mcp\nenvironment: prod\nupstream: %s\ntools:\n  - {name: echo, class: order, fields: {what: /what, to: /to}}\n  - {name: once, class: petty, fields: {amount: /amount, to: /to}}\n", o.tap.url)
	for _, named := range []bool{true, false} {
		for _, signed := range []bool{true, false} {
			o.again()
			o.calls++
			arguments := o.order()
			id := o.ask(o.clerk, atShop, arguments)
			if signed {
				o.bo.Countersign(id)
			}
			repeat := func() answer {
				if named {
					return o.send(o.clerk, atShop, arguments, naming(id))
				}
				return o.send(o.clerk, atShop, arguments)
			}
			what := fmt.Sprintf("AP14 the definition changed (named %t, signed %t)", named, signed)
			o.tap.offer(strings.Replace(tapTools, "Says done", fmt.Sprint("Says done, and ", o.calls), 1))
			o.Clock.Advance(2 * time.Second) // what tools/list said is asked for again
			o.wantNot(what, refused(counterfoil.ToolChanged), repeat)
			o.Apply(shop) // which pins it
			got := o.wantNot(what+", and was pinned again", refused(counterfoil.ApprovalSuperseded), repeat)
			if a := o.Approval(id); a.State != counterfoil.StateSuperseded {
				t.Errorf("%s: the old approval is %s", what, a.State)
			}
			next := got.told().ID
			if next == id {
				t.Errorf("%s: the new approval is the old one", what)
			}
			o.bo.Countersign(next)
			o.wantRun(what+": what was looked at again", func() answer { return o.send(o.clerk, atShop, arguments, naming(next)) })
		}
	}
	o.reconcile()
}

// TestUpstreamsThatFailAfterwards is AP3: an approval is used up before anything is
// sent, whatever comes of it; a retry is told how it ended and makes no second call.
func TestUpstreamsThatFailAfterwards(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	adm := o.Approver("adm")
	dark := 0
	for i, c := range []struct {
		mood  string
		first want
		state counterfoil.ApprovalState
	}{
		{"", passes, counterfoil.StateSucceeded},
		{saysNo, passes, counterfoil.StateFailed},
		{turnsAway, want{status: 502, code: counterfoil.UpstreamUnavailable}, counterfoil.StateFailed},
		{talksNonsense, want{status: 504, code: counterfoil.OutcomeUnknown}, counterfoil.StateIndeterminate},
		{hangsUp, want{status: 504, code: counterfoil.OutcomeUnknown}, counterfoil.StateIndeterminate},
	} {
		t.Run("AP3 the upstream "+c.mood, func(t *testing.T) {
			defer o.inPart(t)()
			o.Clock.Advance(time.Minute)
			o.again()
			adm.Login()
			arguments, key := o.order(), fmt.Sprint("key-", i)
			id := o.approved(o.clerk, atShop, arguments, keyed(key))
			o.tap.feel(c.mood)
			from, before := o.size(), o.arrived()
			first := o.send(o.clerk, atShop, arguments, keyed(key))
			o.tap.feel("")
			if first.status != c.first.status || first.code != c.first.code || o.arrived() != before+1 || o.allowed(from) != 1 {
				t.Fatalf("the call: %s, and %d reached the upstream", first, o.arrived()-before)
			}
			spent := refused(counterfoil.ApprovalSpent)
			for _, repeat := range []struct {
				name   string
				edits  []func(*call)
				stored bool
			}{
				{"with its key", []func(*call){keyed(key)}, c.state != counterfoil.StateIndeterminate && c.mood != turnsAway},
				{"with its name", []func(*call){naming(id)}, false},
				{"with both", []func(*call){keyed(key), naming(id)}, c.state != counterfoil.StateIndeterminate && c.mood != turnsAway},
			} {
				got := o.wantNot(repeat.name, spent, func() answer { return o.send(o.clerk, atShop, arguments, repeat.edits...) })
				if s := got.told(); s.ID != id || s.Status != string(c.state) {
					t.Errorf("%s the agent is told %+v, want %s", repeat.name, s, c.state)
				}
				if content := contentOf(first); repeat.stored != (content != "" && contentOf(got) == content) {
					t.Errorf("%s the answer is %s, and was %s", repeat.name, got, first)
				}
			}
			o.wantNot("with its key and other arguments", refused(counterfoil.IdempotencyMismatch), func() answer { return o.send(o.clerk, atShop, o.order(), keyed(key)) })
			next := o.wantNot("with another key", refused(counterfoil.ApprovalRequired), func() answer { return o.send(o.clerk, atShop, arguments, keyed(key+"b")) })
			if earlier := o.shown(next.told().ID)["earlier"]; earlier != id {
				t.Errorf("people are shown %v for the earlier run, want %s", earlier, id)
			}
			if c.state != counterfoil.StateIndeterminate {
				return
			}
			// A person finds out, and nothing runs again.
			dark++
			got := o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/reconcile", `{"happened":false,"reason":"looked at the shop"}`, adm})
			if got.status != http.StatusOK || got.member("state") != string(counterfoil.StateFailed) {
				t.Errorf("reconciling: %s", got)
			}
			o.wantNot("once reconciled", spent, func() answer { return o.send(o.clerk, atShop, arguments, keyed(key)) })
			o.wantNot("once reconciled, with its name", spent, func() answer { return o.send(o.clerk, atShop, arguments, naming(id)) })
		})
	}
	o.reconcileBut(dark)
}

// contentOf returns the content of a tool's result.
func contentOf(a answer) string {
	var wire struct {
		Result struct {
			Content json.RawMessage `json:"content"`
		} `json:"result"`
	}
	if json.Unmarshal(a.body, &wire) != nil {
		return ""
	}
	return string(wire.Result.Content)
}
