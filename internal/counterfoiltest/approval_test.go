package counterfoiltest_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	. "github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

var payment = m{"to": "acme", "amount": 100, "currency": "EUR"}

// paid fails the test unless the bank made so many payments.
func paid(t *testing.T, sys *System, want int) {
	t.Helper()
	got, err := sys.Bank.Payments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != want {
		t.Errorf("the bank made %d payments, want %d", len(got), want)
	}
}

// TestTwoPeopleLetOnePaymentRun: from the refusal to the payment and the refusal of
// the second one, across restarts.
func TestTwoPeopleLetOnePaymentRun(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	ana, bo, cy := sys.Approver("ana"), sys.Approver("bo"), sys.Approver("cy")
	id := payroll.Ask(payroll.Transport, "pay", payment)

	if a := ana.Decide(id, counterfoil.DecisionApprove, ""); a.Code != counterfoil.ApproverNotEligible {
		t.Errorf("the agent's owner: %s %s", a.Code, a.Body)
	}
	if s := bo.Countersign(id); s != counterfoil.StatePending {
		t.Errorf("one signature made it %s", s)
	}
	if a := bo.Decide(id, counterfoil.DecisionApprove, ""); a.Code != counterfoil.ApproverNotDistinct {
		t.Errorf("the same person again: %s %s", a.Code, a.Body)
	}
	WantRefused(t, payroll.Call("pay", payment), counterfoil.ApprovalPending)
	paid(t, sys, 0)

	sys.Restart()
	cy.Login() // sessions do not outlive the server
	if s := cy.Countersign(id); s != counterfoil.StateApproved {
		t.Errorf("two signatures made it %s", s)
	}
	sys.Restart()
	WantRefused(t, payroll.Call("pay", m{"to": "acme", "amount": 101, "currency": "EUR"}), counterfoil.ApprovalRequired)
	WantDone(t, payroll.Call("pay", payment))
	paid(t, sys, 1)
	spent := payroll.Call("pay", payment)
	WantRefused(t, spent, counterfoil.ApprovalSpent)
	if s := spent.Refusal; s != nil && (s.Approval == nil || s.Approval.ID != id || s.Approval.Status != string(counterfoil.StateSucceeded)) {
		t.Errorf("the second one was told %+v", s.Approval)
	}
	paid(t, sys, 1)
	sys.CheckLedger()
}

// TestOneOfManyEqualCallsRuns: they have one approval, and whichever of them comes
// first uses it up.
func TestOneOfManyEqualCallsRuns(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	till := payroll.For(sys.TillURL())
	id := payroll.Ask(till, "pay", payment)
	sys.Approver("bo").Countersign(id)
	var all sync.WaitGroup
	answers := make([]Answer, 8)
	for i := range answers {
		all.Go(func() { answers[i] = payroll.CallAt(till, "pay", payment) })
	}
	all.Wait()
	done := 0
	for _, a := range answers {
		if a.Refusal == nil && a.Err == nil {
			done++
			continue
		}
		WantRefused(t, a, counterfoil.ApprovalSpent)
	}
	if done != 1 {
		t.Errorf("%d calls ran, want one", done)
	}
	paid(t, sys, 1)
	sys.CheckLedger()
}

// TestWhatEndsAnApproval: a no, silence, and the agent's suspension, each beside a yes
// that would have let the call run.
func TestWhatEndsAnApproval(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	bo, cy := sys.Approver("bo"), sys.Approver("cy")

	id := payroll.Ask(payroll.Transport, "pay", payment)
	bo.Countersign(id)
	cy.Deny(id, "not this month")
	denied := payroll.Call("pay", payment)
	WantRefused(t, denied, counterfoil.ApprovalDenied)
	if s := denied.Refusal; s != nil && (s.Approval == nil || s.Approval.Reason != "not this month") {
		t.Errorf("the agent was told %+v", s.Approval)
	}

	late := m{"to": "acme", "amount": 7, "currency": "EUR"}
	id = payroll.Ask(payroll.Transport, "pay", late)
	bo.Countersign(id)
	sys.Clock.Advance(16 * time.Minute) // beyond the class's quarter of an hour
	cy.Login()
	if a := cy.Decide(id, counterfoil.DecisionApprove, ""); a.Code != counterfoil.ApprovalExpired {
		t.Errorf("too late: %s %s", a.Code, a.Body)
	}
	again := payroll.Ask(payroll.Transport, "pay", late)
	if again == id {
		t.Error("an approval that expired came back")
	}

	bo.Login()
	bo.Countersign(again)
	cy.Countersign(again)
	sys.Suspend("payroll")
	sys.Resume("payroll")
	if v := sys.Approval(again); v.State != counterfoil.StateRevoked {
		t.Errorf("the agent was suspended meanwhile, and the approval is %s", v.State)
	}
	if anew := payroll.Ask(payroll.Transport, "pay", late); anew == again {
		t.Error("an approval that was revoked came back")
	}
	paid(t, sys, 0)
	sys.CheckLedger()
}

// TestNobodyIsLoggedInByACookieAlone: what reads and decides needs a session, and what
// decides an assertion of that moment.
func TestNobodyIsLoggedInByACookieAlone(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	bo := sys.Approver("bo")
	id := payroll.Ask(payroll.For(sys.TillURL()), "pay", payment)
	stranger := sys.Visitor("stranger", bo.Device)
	if a := stranger.Do(http.MethodGet, "/api/v1/approvals/"+id, nil); a.Code != counterfoil.SessionRequired {
		t.Errorf("without a session: %d %s", a.Status, a.Body)
	}
	if a := stranger.Enrol("cfe_abcdefghijklmnopqrstuvwxyz"); a.Code != counterfoil.EnrolmentRefused {
		t.Errorf("with a made-up code: %d %s", a.Status, a.Body)
	}
	if a := bo.Do(http.MethodPost, "/api/v1/approvals/"+id+"/signatures", m{"decision": counterfoil.DecisionApprove}); a.Status < 400 {
		t.Errorf("with a session and no assertion: %d %s", a.Status, a.Body)
	}
	if v := sys.Approval(id); v.State != counterfoil.StatePending || len(v.Signatures) != 0 || !strings.Contains(string(v.Call), "acme") {
		t.Errorf("it is %+v", v)
	}
	if waits := sys.Approvals(counterfoil.StatePending); len(waits) != 1 || waits[0].ID != id {
		t.Errorf("what waits is %+v", waits)
	}
	bo.Countersign(id) // the control
	WantDone(t, payroll.CallAt(payroll.For(sys.TillURL()), "pay", payment))
	sys.CheckLedger()
}
