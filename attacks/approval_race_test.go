package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// What happens at once: AP2, AP4, AP13, AP16.

// holding lets the gateway make the call itself, as a client does that speaks tasks.
func holding(q *call) {
	q.body = strings.Replace(q.body, `"io.modelcontextprotocol/clientCapabilities":{}`,
		`"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}`, 1)
}

// task asks about a held call as a client does that speaks tasks.
func (o *office) task(a *actor, tool, verb, id string) answer {
	o.T.Helper()
	return o.send(a, tool, `{}`, holding, func(q *call) {
		_, rest, _ := strings.Cut(q.body, `"_meta":`)
		q.body = `{"jsonrpc":"2.0","id":1,"method":"tasks/` + verb + `","params":{"taskId":"` + id + `","_meta":` + rest
		q.header.Set("Mcp-Method", "tasks/"+verb)
		q.header.Set("Mcp-Name", id)
	})
}

// taskStatus returns the status of the task that an answer is.
func (a answer) taskStatus() (id, status string) {
	result, _ := a.member("result").(map[string]any)
	id, _ = result["taskId"].(string)
	status, _ = result["status"].(string)
	return id, status
}

// TestHeldCallsRunOnce is AP2 where the gateway makes the call itself, while the agent
// repeats it, and AP16 for the tasks that such calls are.
func TestHeldCallsRunOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const heats = 5
	for range heats {
		arguments := o.order()
		id, status := o.send(o.clerk, atShop, arguments, holding).taskStatus()
		if id == "" || status != "working" {
			t.Fatalf("a held call is %q, %q", id, status)
		}
		// Somebody else's task is nobody's, and is not cancelled by trying.
		unknown := counterfoil.NewID("apr_")
		for _, verb := range []string{"get", "cancel", "update"} {
			of, none := o.task(o.rival, atShop, verb, id), o.task(o.rival, atShop, verb, unknown)
			mask := strings.NewReplacer(id, "ID", unknown, "ID", of.requestID, "REQUEST", none.requestID, "REQUEST")
			if of.passed() || of.status != none.status || mask.Replace(string(of.body)) != mask.Replace(string(none.body)) {
				t.Errorf("AP16 tasks/%s of another agent's: %s\nand of none: %s", verb, of, none)
			}
		}
		// The signature, and repeats with its name and without at the same moment.
		from, before := o.size(), o.arrived()
		options := o.challenge(o.bo, id, counterfoil.DecisionApprove, "")
		body := decisionBody(counterfoil.DecisionApprove, "", o.bo.Device.Get(options))
		requests := []*http.Request{o.asking(visit{http.MethodPost, "/api/v1/approvals/" + id + "/signatures", body, o.bo})}
		for i := range 12 {
			q := o.prepare(o.clerk, atShop, arguments)
			if i%3 == 0 {
				naming(id)(q)
			} else if i%3 == 1 {
				holding(q)
			}
			requests = append(requests, o.request(q))
		}
		for i, a := range o.atOnce(requests) {
			if i == 0 && !a.passed() {
				t.Errorf("the signature: %s", a)
			}
		}
		o.wait("the held call is made", func() bool { return o.arrived() > before && o.Approval(id).State == counterfoil.StateSucceeded })
		if n, allowed := o.arrived()-before, o.spendings(from); n != 1 || allowed != 1 {
			t.Errorf("AP2 %d decisions that allow, %d calls at the upstream", allowed, n)
		}
		o.wantNot("once more", refused(counterfoil.ApprovalSpent), func() answer { return o.send(o.clerk, atShop, arguments, naming(id)) })
		if a := o.task(o.clerk, atShop, "get", id); !a.passed() || !strings.Contains(string(a.body), "completed") {
			t.Errorf("the agent's own task: %s", a)
		}
		if a := o.task(o.rival, atShop, "get", id); a.passed() || strings.Contains(string(a.body), "done") {
			t.Errorf("AP16 what came of another agent's: %s", a)
		}
		o.Clock.Advance(10 * time.Second)
	}
	o.reconcile()
}

// spendings counts the decisions that used an approval.
func (o *office) spendings(from int64) (n int) {
	for _, e := range o.since(from) {
		if e.Kind == ledger.CallDecided && e.Decision == ledger.Allow && e.Approval.State == string(counterfoil.StateSpent) {
			n++
		}
	}
	return n
}

// TestYesAndNoAtOnce is AP4: of a yes and a no at the same moment one counts, and two
// who say yes at once sign over one another.
func TestYesAndNoAtOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	at := func(p *counterfoiltest.Approver, id, decision string) *http.Request {
		body := decisionBody(decision, "", p.Device.Get(o.challenge(p, id, decision, "")))
		return o.asking(visit{http.MethodPost, "/api/v1/approvals/" + id + "/signatures", body, p})
	}
	for range 10 {
		// One yes is enough here: who is first decides it.
		arguments := o.payment()
		id := o.ask(o.clerk, atTill, arguments)
		answers := o.atOnce([]*http.Request{at(o.bo, id, counterfoil.DecisionApprove), at(o.cy, id, counterfoil.DecisionDeny)})
		won := 0
		for _, a := range answers {
			if a.passed() {
				won++
			} else if a.status/100 != 4 {
				t.Errorf("AP4 the loser: %s", a)
			}
		}
		state := o.Approval(id).State
		if won != 1 || len(o.signers(id)) != 1 || answers[0].passed() != (state == counterfoil.StateApproved) || answers[1].passed() != (state == counterfoil.StateDenied) {
			t.Errorf("AP4 a yes and a no at once: %d won, signed have %v, and it is %s", won, o.signers(id), state)
		}
		if state == counterfoil.StateDenied {
			o.wantNot("AP4 the call", refused(counterfoil.ApprovalDenied), func() answer { return o.send(o.clerk, atTill, arguments) })
		} else {
			o.wantRun("the call", func() answer { return o.send(o.clerk, atTill, arguments) })
		}
	}
	for range 5 {
		arguments := o.payment()
		id := o.ask(o.clerk, atBankPay, arguments)
		passed := 0
		for _, a := range o.atOnce([]*http.Request{at(o.bo, id, counterfoil.DecisionApprove), at(o.cy, id, counterfoil.DecisionApprove)}) {
			if a.passed() {
				passed++
			} else if a.status != http.StatusConflict || !strings.Contains(string(a.body), `"challenge"`) {
				t.Errorf("who was overtaken: %s", a)
			}
		}
		if signed := o.signers(id); passed != 1 || len(signed) != 1 {
			t.Errorf("AP4 of two signatures over nothing %d passed: %v", passed, signed)
		}
		for _, p := range []*counterfoiltest.Approver{o.bo, o.cy} {
			if fmt.Sprint(o.signers(id)) != "["+p.Name+"]" && len(o.signers(id)) == 1 {
				p.Countersign(id)
			}
		}
		o.wantRun("the call of both", func() answer { return o.send(o.clerk, atBankPay, arguments) })
	}
	o.reconcile()
}

// TestRevocationWhileItRuns is AP13 at the moment: what is revoked while a call is made
// either came after the decision, or the call did not run.
func TestRevocationWhileItRuns(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const declared = "{kind: Person, name: bo, email: bo@example.com, groups: [%s]}"
	for heat := range 10 {
		o.awake()
		arguments := o.payment()
		id := o.approved(o.clerk, atTill, arguments)
		from, before := o.size(), o.arrived()
		made := make(chan answer, 1)
		r := o.request(o.prepare(o.clerk, atTill, arguments))
		go func() {
			resp, err := o.client.Do(r)
			if err != nil {
				made <- answer{}
				return
			}
			resp.Body.Close()
			made <- answer{status: resp.StatusCode}
		}()
		if heat%2 == 0 {
			o.Suspend("clerk")
		} else {
			o.Apply(fmt.Sprintf(declared, "legal"))
		}
		<-made
		decided, gone := int64(-1), int64(-1)
		for _, e := range o.since(from) {
			switch {
			case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow:
				decided = e.Index
			case e.Kind == ledger.AgentSuspended || e.Kind == ledger.ConfigApplied:
				gone = e.Index
			}
		}
		// A last look before it is forwarded may still hold back what was decided.
		ran := o.arrived() - before
		if ran > 1 || ran == 1 && decided < 0 || decided > gone || gone < 0 {
			t.Errorf("AP13 %d calls at the upstream, decided at %d, revoked at %d", ran, decided, gone)
		}
		if state := o.Approval(id).State; ran == 1 && !state.Ran() {
			t.Errorf("AP13 it ran, and its approval is %s", state)
		}
		if heat%2 == 0 {
			o.Resume("clerk")
			clear(o.tokens)
		} else {
			o.Apply(fmt.Sprintf(declared, "finance-approvers"))
		}
		o.wantNotAny("AP13 afterwards", func() answer { return o.send(o.clerk, atTill, arguments, naming(id)) })
	}
	// A call that is cut off on its way has an end that nobody knows.
	o.restart()
	cut := 0
	for _, e := range o.since(0) {
		if e.Kind == ledger.CallFinished && e.Outcome == ledger.OutcomeUnknown {
			cut++
		}
	}
	o.reconcileBut(cut)
}
