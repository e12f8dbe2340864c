package gateway_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// An interposed engine does something after each claim that could be spent, and before
// what was claimed is spent. Both count from 1.
type interposed struct {
	gateway.Approvals
	claimed, spending func(n int)
	claims, spends    atomic.Int32
}

func (i *interposed) Spend(ctx context.Context, s counterfoil.Spending, e *ledger.Entry, payload []byte) error {
	if n := i.spends.Add(1); i.spending != nil {
		i.spending(int(n))
	}
	return i.Approvals.Spend(ctx, s, e, payload)
}

func (i *interposed) Claim(ctx context.Context, g counterfoil.GuardedCall) (counterfoil.Spending, error) {
	s, err := i.Approvals.Claim(ctx, g)
	if err == nil {
		i.claimed(int(i.claims.Add(1)))
	}
	return s, err
}

// TestWhatIsAppliedWhileSignaturesAreVerifiedCounts: policy is evaluated anew for
// what is spent.
func TestWhatIsAppliedWhileSignaturesAreVerifiedCounts(t *testing.T) {
	t.Parallel()
	class := func(change func(*counterfoil.Class)) func(*counterfoil.Registry) {
		return func(reg *counterfoil.Registry) {
			c := *reg.Classes["payout"]
			change(&c)
			reg.Classes["payout"] = &c
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*counterfoil.Registry)
		code   counterfoil.Code          // empty: it runs
		state  counterfoil.ApprovalState // afterwards; approved when empty
	}{
		{"nothing", nil, "", ""},
		{"something else", func(reg *counterfoil.Registry) { reg.People["dee"] = &counterfoil.Person{Name: "dee"} }, "", ""},
		// As strict as before, so that the tier says nothing of it.
		{"the rule", class(func(c *counterfoil.Class) { c.Approvers = [][]string{{"audit"}} }), counterfoil.ApprovalSuperseded, counterfoil.StateSuperseded},
		{"the tool's class, as strict", func(reg *counterfoil.Registry) {
			reg.Classes["wire"] = &counterfoil.Class{Name: "wire", Tier: counterfoil.Irreversible, Approvers: [][]string{{"finance"}}}
			bank := *reg.Resources["bank"]
			bank.Tools = slices.Clone(bank.Tools)
			for i := range bank.Tools {
				if bank.Tools[i].Name == "pay" {
					bank.Tools[i].Class = "wire"
				}
			}
			reg.Resources["bank"] = &bank
		}, counterfoil.ToolChanged, ""},
		{"who signed", func(reg *counterfoil.Registry) {
			reg.People["bo"] = &counterfoil.Person{Name: "bo", Email: "bo@example.com"}
		}, counterfoil.ApprovalRevoked, counterfoil.StateRevoked},
		{"the grant", func(reg *counterfoil.Registry) {
			agent := *reg.Agents["payroll"]
			agent.Grants = []counterfoil.Grant{{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "get_balance"}}}}
			reg.Agents["payroll"] = &agent
		}, counterfoil.ToolNotGranted, ""},
		{"the class, forbidden", class(func(c *counterfoil.Class) { c.Tier = counterfoil.Forbidden }), counterfoil.ClassForbidden, ""},
		{"the class, less strict", class(func(c *counterfoil.Class) { c.Tier, c.InsecureLowerTier = counterfoil.Routine, true }), counterfoil.ToolChanged, ""},
		{"the class, of one person", class(func(c *counterfoil.Class) { c.Tier, c.InsecureLowerTier = counterfoil.Guarded, true }), counterfoil.ToolChanged, ""},
		{"where a field is", func(reg *counterfoil.Registry) {
			bank := *reg.Resources["bank"]
			bank.Tools = slices.Clone(bank.Tools)
			for i := range bank.Tools {
				if bank.Tools[i].Name == "pay" {
					bank.Tools[i].Fields = map[string]string{"amount": "/fee", "to": "/to"}
				}
			}
			reg.Resources["bank"] = &bank
		}, counterfoil.ToolChanged, ""},
	} {
		for _, moment := range []string{"after the claim", "before the spending"} {
			t.Run(tc.name+", "+moment, func(t *testing.T) {
				t.Parallel()
				between := &interposed{claimed: func(int) {}}
				o, a := newOffice(t, nil, func(o *office, _ *counterfoil.Registry, cfg *gateway.Config) {
					between.Approvals = o.engine
					cfg.Approvals = between
				})
				id := wantHeld(t, a.call2026("pay", pay100, nil), counterfoil.ApprovalRequired).ID
				o.approve(id)
				claims := int32(1)
				if tc.change != nil {
					claims++
					once := func(n int) {
						if n == 1 {
							o.apply(tc.change)
						}
					}
					if between.claimed = once; moment != "after the claim" {
						between.claimed, between.spending = func(int) {}, once
					}
				}
				r := a.call2026("pay", pay100, nil)
				if tc.code == "" {
					wantDone(t, r)
					if n := between.claims.Load(); n != claims {
						t.Errorf("it was claimed %d times, want %d", n, claims)
					}
					return
				}
				wantDenied(t, r, tc.code)
				want := cmp.Or(tc.state, counterfoil.StateApproved)
				if o.paid() != 0 || o.state(id).State != want {
					t.Fatalf("%d went upstream and it is %s", o.paid(), o.state(id).State)
				}
				decided := o.log.of(ledger.CallDecided)
				if e := decided[len(decided)-1]; e.Decision != ledger.Refuse || e.Approval.ID != id && want == counterfoil.StateApproved {
					t.Errorf("the record is %+v", e)
				}
			})
		}
	}
}

// TestARegistryThatChangesAllTheTimeIsNoWayIn: a call tries so often and no more, and its
// approval is still there afterwards.
func TestARegistryThatChangesAllTheTimeIsNoWayIn(t *testing.T) {
	t.Parallel()
	between := &interposed{claimed: func(int) {}}
	o, a := newOffice(t, nil, func(o *office, _ *counterfoil.Registry, cfg *gateway.Config) {
		between.Approvals = o.engine
		cfg.Approvals = between
	})
	id := wantHeld(t, a.call2026("pay", pay100, nil), counterfoil.ApprovalRequired).ID
	o.approve(id)
	between.claimed = func(n int) {
		o.apply(func(reg *counterfoil.Registry) {
			reg.People["dee"] = &counterfoil.Person{Name: "dee", Email: fmt.Sprintf("dee%d@example.com", n)}
		})
	}
	wantHTTP(t, a.call2026("pay", pay100, nil), http.StatusServiceUnavailable, counterfoil.LedgerUnavailable)
	if n := between.claims.Load(); n < 2 || n > 5 || o.paid() != 0 || o.state(id).State != counterfoil.StateApproved {
		t.Fatalf("claimed %d times, %d went upstream, and it is %s", n, o.paid(), o.state(id).State)
	}
	between.claimed = func(int) {}
	wantDone(t, a.call2026("pay", pay100, nil))
	o.checkProof(t)
}
