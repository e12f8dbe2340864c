package authority_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// court is what is in force when people have enrolled.
const court = `
{kind: Person, name: ana, email: ana@example.com, groups: [finance]}
---
{kind: Person, name: bo, email: bo@example.com, groups: [finance]}
---
{kind: Person, name: cy, email: cy@example.com, groups: [finance]}
---
{kind: Person, name: dee, email: dee@example.com}
---
{kind: Class, name: payout, tier: irreversible, approvers: [finance], limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]}
---
{kind: Class, name: read, tier: routine}
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: http://127.0.0.1:9000/mcp
tools:
  - {name: get_balance, class: read}
  - {name: pay, class: payout, fields: {amount: /amount}}
---
kind: Agent
name: payroll
owner: dee
environment: prod
grants: [{tools: [bank/pay]}]
---
kind: Policy
name: night
cedar: |
  forbid (principal, action, resource in Class::"payout") when { context.hour < 6 };
`

// widenings are a document for each kind of widening, and beside each one that
// concerns the same and does not widen.
var widenings = []struct{ name, wide, narrow string }{
	{"an approver added", "{kind: Person, name: eve, groups: [finance]}", "{kind: Person, name: eve, groups: [other]}"},
	{"an approver's mailbox", "{kind: Person, name: bo, email: eve@example.com, groups: [finance]}", "{kind: Person, name: bo, email: B.O@example.com, groups: [finance]}"},
	{
		"a class's approvers", `{kind: Class, name: payout, tier: irreversible, approvers: [finance, it], limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]}`,
		`{kind: Class, name: payout, tier: irreversible, approvers: [[finance], [finance]], limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]}`,
	},
	{
		"a tier", `{kind: Class, name: payout, tier: guarded, insecure_lower_tier: true, approvers: [finance], limits: [{sum: amount, per: agent, window: 24h, max: "1000"}]}`,
		"{kind: Class, name: payout, tier: forbidden, approvers: [finance]}",
	},
	{
		"a limit", `{kind: Class, name: payout, tier: irreversible, approvers: [finance], limits: [{sum: amount, per: agent, window: 24h, max: "1001"}]}`,
		`{kind: Class, name: payout, tier: irreversible, approvers: [finance], limits: [{sum: amount, per: agent, window: 24h, max: "999"}]}`,
	},
	{
		"a tool's class", "kind: Resource\nname: bank\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: get_balance, class: read}\n  - {name: pay, class: read}\n",
		"kind: Resource\nname: bank\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:9000/mcp\ntools:\n  - {name: get_balance, class: payout}\n  - {name: pay, class: payout, fields: {amount: /amount}}\n",
	},
	{
		"an agent's owner", "kind: Agent\nname: payroll\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n",
		"kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\n",
	},
	{
		"a forbid", "kind: Policy\nname: night\ncedar: |\n  forbid (principal, action, resource in Class::\"payout\") when { context.hour < 5 };\n",
		"kind: Policy\nname: day\ncedar: |\n  forbid (principal, action, resource in Class::\"payout\") when { context.hour > 22 };\n",
	},
}

// A quorum is a house with an approval engine and people who have passkeys.
type quorum struct {
	*house
	*authority.Authority
	engine *approval.Engine
	phones map[string]*passkey.Authenticator

	mu    sync.Mutex
	notes []approval.Notice
}

func newQuorum(t *testing.T, edit ...func(*authority.Config)) *quorum {
	t.Helper()
	q := &quorum{house: newHouse(t), phones: map[string]*passkey.Authenticator{}}
	var err error
	q.engine, err = approval.New(approval.Config{
		Store: q.store, Issuer: issuer, Origin: "https://console.example", Now: q.clock.Now, Log: q.log,
		Notify: func(_ context.Context, n approval.Notice) {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.notes = append(q.notes, n)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	q.Authority = q.authority(append([]func(*authority.Config){func(c *authority.Config) { c.Changes, c.Changed = q.engine, q.engine.Changes() }}, edit...)...)
	q.mustApply(q.Authority, court)
	return q
}

// enrolAll gives the approvers a passkey each, and lets a day pass.
func (q *quorum) enrolAll() *quorum {
	q.t.Helper()
	for _, person := range []string{"ana", "bo", "cy"} {
		code, _, err := q.engine.MakeCode(q.t.Context(), person, "uid:7", false)
		if err != nil {
			q.t.Fatal(err)
		}
		options, err := q.engine.EnrolmentOptions(q.t.Context(), code.Reveal())
		if err != nil {
			q.t.Fatal(err)
		}
		q.phones[person] = passkey.New("console.example", "https://console.example")
		if _, err := q.engine.Enrol(q.t.Context(), code.Reveal(), q.phones[person].Create(options)); err != nil {
			q.t.Fatal(err)
		}
	}
	return q
}

func (q *quorum) sign(id, person, decision, reason string) {
	q.t.Helper()
	options, err := q.engine.Challenge(q.t.Context(), id, person, decision, reason)
	if err != nil {
		q.t.Fatal(err)
	}
	if _, err := q.engine.Sign(q.t.Context(), id, person, decision, reason, q.phones[person].Get(options)); err != nil {
		q.t.Fatal(err)
	}
}

// last returns what people were told last.
func (q *quorum) last() approval.Notice {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.notes) == 0 {
		return approval.Notice{}
	}
	return q.notes[len(q.notes)-1]
}

// settles what is due, as Run does.
func (q *quorum) settles() {
	q.t.Helper()
	if err := q.SettleChanges(q.t.Context()); err != nil {
		q.t.Fatal(err)
	}
}

// inForce reports whether a document is.
func (q *quorum) inForce(yaml string) bool {
	q.t.Helper()
	result, err := q.Apply(q.t.Context(), authority.ApplyRequest{
		Files: []manifest.File{{Name: "x.yaml", Data: []byte(yaml)}}, Actor: "uid:7", DryRun: true,
	})
	if err != nil || len(result.Problems) > 0 {
		q.t.Fatal(result.Problems, err)
	}
	return !slices.ContainsFunc(result.Changes, func(c authority.AppliedChange) bool { return c.Verb != manifest.Unchanged })
}

func (q *quorum) proposed(yaml string) *authority.Proposal {
	q.t.Helper()
	result := q.mustApply(q.Authority, yaml)
	if result.Proposal == nil {
		q.t.Fatalf("it took effect at once: %+v", result)
	}
	return result.Proposal
}

// AD4: what widens waits a day, with a notice to the people who approve now, beside
// what narrows, which does not.
func TestWideningWaits(t *testing.T) {
	t.Parallel()
	for _, tt := range widenings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q := newQuorum(t).enrolAll()
			if result := q.mustApply(q.Authority, tt.narrow); result.Proposal != nil || !q.inForce(tt.narrow) {
				t.Fatalf("what narrows waits: %+v", result.Proposal)
			}
			q = newQuorum(t).enrolAll()
			p := q.proposed(tt.wide)
			if want := q.clock.Now().Add(24 * time.Hour); !p.Effective.Equal(want) || len(p.Why) == 0 || p.Verb != "apply" || p.Actor != "uid:7" {
				t.Errorf("%+v", p)
			}
			if q.inForce(tt.wide) {
				t.Fatal("it is in force at once")
			}
			if n := q.last(); n.Event != approval.EventChangeProposed || fmt.Sprint(n.People) != "[ana bo cy]" {
				t.Errorf("told %+v", n)
			}
			if again := q.proposed(tt.wide); again.ID != p.ID || len(q.entries(ledger.ChangeProposed)) != 1 {
				t.Errorf("asked for again, it is %s", again.ID)
			}
			q.clock.Advance(24*time.Hour - time.Millisecond)
			q.settles()
			if q.inForce(tt.wide) {
				t.Fatal("it is in force a moment too early")
			}
			q.clock.Advance(time.Millisecond)
			q.settles()
			q.settles()
			if !q.inForce(tt.wide) {
				t.Fatalf("it is not in force after a day: %v", q.entries(ledger.ChangeClosed))
			}
			closed := q.entries(ledger.ChangeClosed)
			if len(closed) != 1 || closed[0].Reason != "its time came" || closed[0].Detail["proposal"] != p.ID {
				t.Errorf("closed %+v", closed)
			}
			if left, err := q.Proposals(t.Context()); err != nil || len(left) > 0 {
				t.Errorf("%v wait, %v", left, err)
			}
		})
	}
}

// AD4: two of the people who approve now let it take effect at once; one does not, and
// one no ends it.
func TestWideningIsSigned(t *testing.T) {
	t.Parallel()
	for _, tt := range widenings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q := newQuorum(t).enrolAll()
			p := q.proposed(tt.wide)
			q.sign(p.Approval, "ana", counterfoil.DecisionApprove, "")
			if q.settles(); q.inForce(tt.wide) {
				t.Fatal("one signature was enough")
			}
			q.sign(p.Approval, "bo", counterfoil.DecisionApprove, "")
			if q.settles(); !q.inForce(tt.wide) {
				t.Fatalf("two signatures were not enough: %s", q.logs.String())
			}
			closed := q.entries(ledger.ChangeClosed)
			if len(closed) != 1 || closed[0].Reason != "approved" || fmt.Sprint(closed[0].Approval.Signers) != "[ana bo]" {
				t.Errorf("closed %+v", closed)
			}
			a, ok, err := q.store.Approval(t.Context(), p.Approval)
			if err != nil || !ok || a.State.Open() {
				t.Errorf("the approval is %s, %v", a.State, err)
			}

			q = newQuorum(t).enrolAll()
			p = q.proposed(tt.wide)
			q.sign(p.Approval, "ana", counterfoil.DecisionApprove, "")
			q.sign(p.Approval, "cy", counterfoil.DecisionDeny, "not on a Friday")
			q.settles()
			q.clock.Advance(25 * time.Hour)
			if q.settles(); q.inForce(tt.wide) {
				t.Fatal("somebody said no, and it is in force")
			}
			if closed := q.entries(ledger.ChangeClosed); len(closed) != 1 || closed[0].Reason != "denied" || !slices.Contains(closed[0].Approval.Signers, "cy") {
				t.Errorf("closed %+v", closed)
			}
		})
	}
}

// Before anybody has a passkey there is nobody to wait for, and a development server
// does not wait.
func TestWideningAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range widenings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nobody := newQuorum(t)
			dev := newQuorum(t, func(c *authority.Config) { c.Dev = true }).enrolAll()
			for name, q := range map[string]*quorum{"nobody": nobody, "dev": dev} {
				if result := q.mustApply(q.Authority, tt.wide); result.Proposal != nil || !q.inForce(tt.wide) {
					t.Errorf("%s: %+v", name, result)
				}
				applied := q.entries(ledger.ConfigApplied)
				if applied[len(applied)-1].Detail["widens"] == nil {
					t.Errorf("%s: the entry does not say that it widens", name)
				}
			}
		})
	}
}

// A deletion that widens waits like a document that does.
func TestDeletionWaits(t *testing.T) {
	t.Parallel()
	q := newQuorum(t).enrolAll()
	if d, err := q.Delete(t.Context(), counterfoil.KindPerson, "cy", "uid:7"); err != nil || d.Proposal != nil {
		t.Fatalf("a person: %+v, %v", d, err)
	}
	d, err := q.Delete(t.Context(), counterfoil.KindPolicy, "night", "uid:7")
	if err != nil || d.Proposal == nil || d.Proposal.Verb != "delete" {
		t.Fatalf("%+v, %v", d, err)
	}
	again, err := q.Delete(t.Context(), counterfoil.KindPolicy, "night", "uid:7")
	if err != nil || again.Proposal.ID != d.Proposal.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := q.Get(counterfoil.KindPolicy, "night"); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	q.sign(d.Proposal.Approval, "ana", counterfoil.DecisionApprove, "")
	q.sign(d.Proposal.Approval, "bo", counterfoil.DecisionApprove, "")
	q.settles()
	if _, err := q.Get(counterfoil.KindPolicy, "night"); err == nil {
		t.Error("it is there")
	}
}

// Documents of one apply stay together, and nothing of them is in force before.
func TestWideningTakesTheRestWithIt(t *testing.T) {
	t.Parallel()
	q := newQuorum(t).enrolAll()
	const other = "{kind: Class, name: extra, tier: routine}"
	p := q.proposed(other + "\n---\n" + widenings[0].wide)
	if q.inForce(other) {
		t.Error("half of it is in force")
	}
	if err := q.Withdraw(t.Context(), p.ID, "uid:8"); err != nil {
		t.Fatal(err)
	}
	closed := q.entries(ledger.ChangeClosed)
	if len(closed) != 1 || closed[0].Reason != "withdrawn" || closed[0].Actor != "uid:8" {
		t.Errorf("closed %+v", closed)
	}
	if a, _, err := q.store.Approval(t.Context(), p.Approval); err != nil || a.State != counterfoil.StateCancelled {
		t.Errorf("its approval is %s, %v", a.State, err)
	}
	if err := q.Withdraw(t.Context(), p.ID, "uid:8"); err == nil || counterfoil.CodeOf(err) != counterfoil.ToolUnknown {
		t.Errorf("withdrawn twice: %v", err)
	}
	q.clock.Advance(25 * time.Hour)
	if q.settles(); q.inForce(other) {
		t.Error("what was withdrawn is in force")
	}
	if next := q.proposed(widenings[0].wide); next.ID == p.ID {
		t.Error("it is the one that was withdrawn")
	}
}

// What is in force may change while a change waits. What can be made still is made of
// what is in force then; what cannot, or would widen more than people were told, is not.
func TestWhatWaitsMeetsWhatIsInForce(t *testing.T) {
	t.Parallel()
	const eve, limit = "{kind: Person, name: eve, groups: [finance]}", `{kind: Class, name: payout, tier: irreversible, approvers: [finance], limits: [{sum: amount, per: agent, window: 24h, max: "5000"}]}`
	for _, tt := range []struct {
		name, wide, meanwhile string
		made                  bool
		reason                string
	}{
		{"something else", eve, "{kind: Person, name: zoe}", true, "its time came"},
		{"the same", eve, "", true, "its time came"},
		{"a narrower limit", limit, `{kind: Class, name: payout, tier: irreversible, approvers: [finance], limits: [{sum: amount, per: agent, window: 24h, max: "10"}]}`, false, "Class payout is not what it was when this was asked for"},
		{"an agent narrowed", "kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n---\n" + eve, "kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\n", false, "Agent payroll is not what it was"},
		{"a part of it", "{kind: Class, name: extra, tier: routine}\n---\n" + eve, "{kind: Class, name: extra, tier: routine}", true, "its time came"},
		{"a part of it, otherwise", "{kind: Class, name: extra, tier: routine}\n---\n" + eve, "{kind: Class, name: extra, tier: forbidden}", false, "Class extra is not what it was"},
		{"what it widens is more", "{kind: Person, name: eve, groups: [finance]}", "{kind: Class, name: wire, tier: irreversible, approvers: [finance]}", false, "nobody was told"},
		{"a document deleted", "{kind: Class, name: spare, tier: routine}\n---\n" + eve, "delete spare", false, "Class spare is not what it was"},
		{"its class is gone", "{kind: Resource, name: new, type: mcp, environment: prod, upstream: \"http://127.0.0.1:9/x\", tools: [{name: x, class: spare}]}\n---\n" + eve, "delete spare", false, "cannot be made any more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q := newQuorum(t)
			q.mustApply(q.Authority, "{kind: Class, name: spare, tier: routine}")
			q.enrolAll()
			p := q.proposed(tt.wide)
			switch tt.meanwhile {
			case "":
			case "delete spare":
				if _, err := q.Delete(t.Context(), counterfoil.KindClass, "spare", "uid:7"); err != nil {
					t.Fatal(err)
				}
			default:
				if result := q.mustApply(q.Authority, tt.meanwhile); result.Proposal != nil {
					t.Fatal(result.Proposal)
				}
			}
			q.clock.Advance(24 * time.Hour)
			q.settles()
			closed := q.entries(ledger.ChangeClosed)
			if len(closed) != 1 || !strings.Contains(closed[0].Reason, tt.reason) || closed[0].Detail["proposal"] != p.ID {
				t.Errorf("closed %+v", closed)
			}
			if _, registry := q.Policy(); tt.name == "an agent narrowed" && len(registry.Agents["payroll"].Grants) > 0 {
				t.Error("what was taken away is back")
			}
			if tt.made && !q.inForce(tt.wide) {
				t.Error("it is not in force")
			}
			if _, registry := q.Policy(); !tt.made && (registry.People["eve"] != nil || registry.Classes["payout"].Limits[0].Max == "5000") {
				t.Error("it is in force")
			}
		})
	}
}

// What is asked for again over what has changed is asked anew: the one before would not
// be made at its time.
func TestAskedAgainOverWhatChanged(t *testing.T) {
	t.Parallel()
	q := newQuorum(t).enrolAll()
	const agent = "kind: Agent\nname: payroll\nowner: dee\nenvironment: prod\n"
	wide := agent + "grants: [{tools: [bank/pay]}]\n---\n{kind: Person, name: eve, groups: [finance]}"
	p := q.proposed(wide)
	q.mustApply(q.Authority, agent)
	again := q.proposed(wide)
	if again.ID == p.ID || again.Approval == p.Approval {
		t.Fatalf("%+v", again)
	}
	if a, _, err := q.store.Approval(t.Context(), p.Approval); err != nil || a.State != counterfoil.StateCancelled {
		t.Errorf("the first one's approval is %s, %v", a.State, err)
	}
	q.sign(again.Approval, "ana", counterfoil.DecisionApprove, "")
	q.sign(again.Approval, "bo", counterfoil.DecisionApprove, "")
	if q.settles(); !q.inForce(wide) {
		t.Errorf("not in force: %s", q.logs.String())
	}
	d, err := q.Delete(t.Context(), counterfoil.KindPolicy, "night", "uid:7")
	if err != nil || d.Proposal == nil {
		t.Fatalf("%+v, %v", d, err)
	}
	q.mustApply(q.Authority, "kind: Policy\nname: night\ncedar: |\n  forbid (principal, action, resource in Class::\"payout\") when { context.hour < 6 };\n  forbid (principal, action, resource);\n")
	q.clock.Advance(24 * time.Hour)
	q.settles()
	if _, err := q.Get(counterfoil.KindPolicy, "night"); err != nil {
		t.Errorf("a Policy that forbids more since is deleted: %v", err)
	}
}

// A signer who is no approver any more does not count, although the signature was good.
func TestSignersAreLookedAtAgain(t *testing.T) {
	t.Parallel()
	q := newQuorum(t).enrolAll()
	p := q.proposed(widenings[0].wide)
	q.sign(p.Approval, "ana", counterfoil.DecisionApprove, "")
	q.sign(p.Approval, "bo", counterfoil.DecisionApprove, "")
	q.mustApply(q.Authority, "{kind: Person, name: bo, email: bo@example.com}")
	if q.settles(); q.inForce(widenings[0].wide) {
		t.Fatal("bo, who approves nothing any more, let it take effect")
	}
	q.clock.Advance(24 * time.Hour)
	if q.settles(); !q.inForce(widenings[0].wide) {
		t.Error("its time came, and it is not in force")
	}
}

// A dry run says that it would wait, and asks nobody.
func TestDryRunSaysThatItWouldWait(t *testing.T) {
	t.Parallel()
	q := newQuorum(t).enrolAll()
	result, err := q.Apply(t.Context(), authority.ApplyRequest{
		Files: []manifest.File{{Name: "x.yaml", Data: []byte(widenings[0].wide)}}, Actor: "uid:7", DryRun: true,
	})
	if err != nil || result.Proposal == nil || result.Proposal.ID != "" || len(result.Proposal.Why) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	if left, err := q.Proposals(t.Context()); err != nil || len(left) > 0 || len(q.entries(ledger.ChangeProposed)) > 0 {
		t.Errorf("%v wait, %v", left, err)
	}
}

// A flood of changes is a flood of questions.
func TestFewChangesWait(t *testing.T) {
	t.Parallel()
	q := newQuorum(t, func(c *authority.Config) { c.Changes = nil }).enrolAll()
	for i := range 20 {
		if p := q.proposed(fmt.Sprintf("{kind: Person, name: p%d, groups: [finance]}", i)); p.Approval != "" {
			t.Fatalf("%+v", p)
		}
	}
	_, err := q.apply(t.Context(), q.Authority, "{kind: Person, name: p20, groups: [finance]}")
	if err == nil || counterfoil.CodeOf(err) != counterfoil.TooManyPending {
		t.Errorf("one more: %v", err)
	}
	if result := q.mustApply(q.Authority, "{kind: Person, name: p20}"); result.Proposal != nil {
		t.Error("what does not widen waits")
	}
}

// Run makes a change that was signed as soon as it hears of it.
func TestRunMakesWhatIsSigned(t *testing.T) {
	t.Parallel()
	q := newQuorum(t).enrolAll()
	p := q.proposed(widenings[0].wide)
	q.sign(p.Approval, "ana", counterfoil.DecisionApprove, "")
	q.sign(p.Approval, "bo", counterfoil.DecisionApprove, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); q.Run(ctx) }()
	follow := q.store.Registry
	for registry, _ := follow(); registry.People["eve"] == nil; registry, _ = follow() {
		select {
		case <-t.Context().Done():
			t.Fatal("never")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-done
}

// What was committed and never acknowledged is made once, and what was not committed is
// made the next time.
func TestSettlingSurvivesFaults(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		s := &lossy{}
		q := newQuorum(t, func(c *authority.Config) { s.Store, c.Store = c.Store.(*store.Store), s })
		q.enrolAll()
		q.proposed(widenings[0].wide)
		q.clock.Advance(24 * time.Hour)
		s.before, s.after = !after, after
		if err := q.SettleChanges(t.Context()); !errors.Is(err, errLost) {
			t.Fatal(err)
		}
		s.before, s.after = false, false
		q.settles()
		q.settles()
		if got := len(q.entries(ledger.ChangeClosed)); got != 1 || !q.inForce(widenings[0].wide) {
			t.Errorf("committed %v: closed %d times", after, got)
		}
	}
}
