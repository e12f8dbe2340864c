package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// payers are the clients that pay: none of them knows of approvals.
func payers(p peers.Peers) map[string]peers.Client {
	return map[string]peers.Client{
		"TypeScript SDK 1":                   p.MCP,
		"TypeScript SDK 2":                   p.MCP2("2026-07-28"),
		"TypeScript SDK 2, with a handshake": p.MCP2("legacy"),
	}
}

// payCall is a call of pay, which is told from others by its amount.
func payCall(amount int) peers.Call {
	return peers.Call{Name: "pay", Arguments: map[string]any{"to": "acme", "amount": amount, "currency": "EUR"}}
}

// TestUnmodifiedClientWaitsForPeople: the connector holds the client's one call while
// people sign, tells it progress, and gives it the answer.
func TestUnmodifiedClientWaitsForPeople(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	key := enroll(t, sys, "payroll", "Ed25519")
	signing := signAll(t, sys)
	paid := 0
	t.Run("clients", func(t *testing.T) {
		for resource := range map[string]int{"bank": 2, "till": 1} {
			addresses := map[string]peers.Address{
				"http":  {URL: connect(t, sys, "payroll", key, resource, "--wait", "50s")},
				"stdio": overStdio(t, sys, "payroll", key, resource, "--wait", "50s"),
			}
			for transport, at := range addresses {
				for name, converse := range payers(p) {
					paid++
					amount := paid
					t.Run(fmt.Sprintf("%s, %s over %s", name, resource, transport), func(t *testing.T) {
						t.Parallel()
						s := converse(t, at, payCall(amount))
						if s.Refused != nil {
							t.Fatalf("the client did not connect: %+v", *s.Refused)
						}
						wantAnswer(t, name, s.Calls[0], fmt.Sprintf(`"amount":%d.00,`, amount))
						if len(s.Calls[0].Progress) == 0 {
							t.Errorf("%s was told no progress", name)
						}
						for i, step := range s.Calls[0].Progress {
							if step.Progress != float64(i+1) {
								t.Errorf("step %d was reported as %v", i+1, step.Progress)
							}
						}
					})
				}
			}
		}
	})
	signing()
	wantPaid(t, sys, paid)
	sys.CheckLedger()
}

// signAll lets bo and cy sign whatever they may, as it comes, until the function that
// it returns is called.
func signAll(t *testing.T, sys *counterfoiltest.System) func() {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	people := []*counterfoiltest.Approver{sys.Approver("bo"), sys.Approver("cy")}
	ended := make(chan error, 1)
	go func() {
		for {
			for _, who := range people {
				if _, err := who.TryCountersignAll(); err != nil {
					ended <- err
					return
				}
			}
			select {
			case <-ctx.Done():
				ended <- nil
				return
			case <-time.After(200 * time.Millisecond): // people look now and then
			}
		}
	}()
	return func() {
		t.Helper()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// wantPaid holds the bank's books against what should have been paid, once each.
func wantPaid(t *testing.T, sys *counterfoiltest.System, want int) {
	t.Helper()
	paid, err := sys.Bank.Payments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	amounts := map[string]int{}
	for _, p := range paid {
		amounts[p.Amount.String()]++
	}
	if len(paid) != want || len(amounts) != want {
		t.Errorf("the bank paid %v, want %d payments, each once", amounts, want)
	}
}

// wantCode checks that a client got the gateway's refusal, with text in which its
// model reads of which approval it is.
func wantCode(t *testing.T, who string, c peers.Called, code counterfoil.Code) {
	t.Helper()
	if c.Code() != string(code) {
		t.Fatalf("%s: %v; want the code %q", who, c, code)
	}
	if id := c.Result.Meta.Refusal.Approval.ID; id == "" || !strings.Contains(c.Text(), id) {
		t.Errorf("%s reads %q of approval %q", who, c.Text(), id)
	}
}

// TestUnmodifiedClientRepeatsTheCall: without --wait the client reads that people have
// to say yes, and the very same call runs once they did, and only once.
func TestUnmodifiedClientRepeatsTheCall(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	key := enroll(t, sys, "payroll", "ES256")
	bo, cy := sys.Approver("bo"), sys.Approver("cy")
	paid := 0
	for resource, people := range map[string][]*counterfoiltest.Approver{"bank": {cy, bo}, "till": {bo}} {
		at := peers.Address{URL: connect(t, sys, "payroll", key, resource)}
		for name, converse := range payers(p) {
			paid++
			call := payCall(paid)
			s := converse(t, at, call, call)
			wantCode(t, name, s.Calls[0], counterfoil.ApprovalRequired)
			wantCode(t, name, s.Calls[1], counterfoil.ApprovalPending)
			id := s.Calls[0].Result.Meta.Refusal.Approval.ID
			if again := s.Calls[1].Result.Meta.Refusal.Approval.ID; id == "" || again != id {
				t.Fatalf("%s waits for %q and then for %q", name, id, again)
			}
			if n := len(s.Calls[0].Progress); n != 0 || !strings.Contains(s.Calls[0].Text(), id) {
				t.Errorf("%s got %d notices and reads %q", name, n, s.Calls[0].Text())
			}
			for _, who := range people {
				who.Countersign(id)
			}
			s = converse(t, at, call, call)
			wantAnswer(t, name, s.Calls[0], fmt.Sprintf(`"amount":%d.00,`, paid))
			wantCode(t, name, s.Calls[1], counterfoil.ApprovalSpent)
		}
	}
	// One no ends it, and the client reads why.
	at := peers.Address{URL: connect(t, sys, "payroll", key, "bank")}
	call := payCall(paid + 1)
	s := p.MCP(t, at, call)
	wantCode(t, "a client", s.Calls[0], counterfoil.ApprovalRequired)
	cy.Deny(s.Calls[0].Result.Meta.Refusal.Approval.ID, "not this month")
	s = p.MCP(t, at, call)
	wantCode(t, "a client", s.Calls[0], counterfoil.ApprovalDenied)
	if !strings.Contains(s.Calls[0].Text(), "not this month") {
		t.Errorf("the client reads %q", s.Calls[0].Text())
	}
	wantPaid(t, sys, paid)
	sys.CheckLedger()
}
