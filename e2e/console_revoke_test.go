package e2e

import (
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/counterfoil/counterfoil"
	agents "github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestConsoleRevokes: without a script, the page before says what a click takes, the
// click takes it, and the page after says when the gateway stopped accepting it.
func TestConsoleRevokes(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	ana, bo := enrolled(t, sys, "ana"), enrolled(t, sys, "bo")
	agent := sys.Agent("payroll")
	tasks, inTask := agentTasks(t, sys, agent)
	top, err := tasks.Open(t.Context(), agents.OpenTask{Purpose: "Pay what is due in March", MaxCalls: 3})
	must(t, err)
	below, err := tasks.Open(t.Context(), agents.OpenTask{Purpose: "Ask for <b>balances</b>", Parent: top.ID})
	must(t, err)
	working, aside := inTask(top.ID), inTask(below.ID)
	for _, transport := range []*agents.Transport{working, aside, agent.Transport} {
		if a := agent.CallAt(transport, "get_balance", map[string]any{}); a.Err != nil || a.Refusal != nil {
			t.Fatalf("before: %v %v", a.Err, a.Refusal)
		}
	}
	id := agent.Ask(working, "pay", paymentOrder(310, "globex"))
	bo.visit("/approvals/" + id)
	bo.says("main", "Pay what is due in March", "in the words of the agent that opened it")
	bo.approves(id)

	do(ana, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	ana.visit("/agents/payroll")
	ana.says("main", "Pay what is due in March", "2 of 3 calls", "Ask for <b>balances</b>")
	ana.click(`a[href="/revoke?kind=task&id=` + top.ID + `"]`)
	ana.until(`document.querySelector("h1")?.innerText === "End this task of payroll?"`)
	ana.says(".takes", "2 live tokens", "2 open tasks", "Pay what is due in March", "Ask for <b>balances</b>", "1 open approval", "Pay 310 EUR to globex")
	if err := chromedp.Do(ana.ctx, chromedp.SendKeys(chromedp.CSS("#why"), "it is April")); err != nil {
		t.Fatal(err)
	}
	ana.click("form[action='/revoke'] button")
	ana.until(`location.pathname.startsWith("/revocations/")`)
	ana.says("main", "Revoked, from this moment on", "Task ended", "it is April", "2 live tokens", "2 open tasks", "1 open approval", "gateway")
	for _, transport := range []*agents.Transport{working, aside} {
		if a := agent.CallAt(transport, "get_balance", map[string]any{}); a.Err == nil {
			t.Errorf("after: %+v", a.Result)
		}
	}
	if a := agent.Call("get_balance", map[string]any{}); a.Err != nil || a.Refusal != nil {
		t.Errorf("outside of the task: %v %v", a.Err, a.Refusal)
	}
	bo.visit("/approvals/" + id)
	bo.says(".closed", "Revoked", "Nothing ran")

	// The page is a receipt: it says so as soon as the gateway has.
	path := eval[string](ana, `location.pathname`)
	ana.comesToSay(path, "main", "1 of 1 enforcement point")
	ana.visit("/health")
	ana.says("main", "What is known of revocations", "gateway", "nothing")
	ana.visit("/revocations")
	ana.says("main", "Task ended", "2 live tokens, 2 open tasks, 1 open approval")

	// And who was revoked is no more among those who may.
	ana.visit("/revoke?kind=person&id=bo")
	ana.says(".takes", "1 passkey", "Every session")
	if err := chromedp.Do(ana.ctx, chromedp.SendKeys(chromedp.CSS("#why"), "left")); err != nil {
		t.Fatal(err)
	}
	ana.click("form[action='/revoke'] button")
	ana.until(`location.pathname.startsWith("/revocations/")`)
	bo.visit("/")
	bo.until(`location.pathname === "/login"`)
	ana.visit("/people")
	ana.says("main", "suspended", "counterfoil person resume bo")
	waits := agent.Ask(agent.Transport, "pay", paymentOrder(20, "acme"))
	ana.visit("/approvals/" + waits)
	ana.says(".stub", "May sign: cy")

	revoked := 0
	for _, e := range sys.Entries() {
		if e.Kind == ledger.Revoked {
			revoked++
			if e.Actor != "ana" {
				t.Errorf("entry %d says that %q did it", e.Index, e.Actor)
			}
		}
	}
	if revoked != 2 {
		t.Errorf("%d revocations are in the log", revoked)
	}
	counterfoiltest.WantRefused(t, agent.Call("pay", paymentOrder(20, "acme")), counterfoil.ApprovalPending)
	for _, b := range []*tab{ana, bo} {
		b.quiet()
	}
	sys.CheckLedger()
}
