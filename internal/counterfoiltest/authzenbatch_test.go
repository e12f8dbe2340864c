package counterfoiltest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	. "github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// What could not be decided of several questions is a no of its own: the answers to the
// others arrive, which may have used an approval up.
func TestAFaultInABatchIsOneNo(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(strings.Replace(tillManifest(sys), "till/get_balance]", "till/get_balance, down/get]", 1) + `---
kind: Resource
name: down
type: mcp
environment: prod
upstream: http://127.0.0.1:1/mcp
servers: [edge]
tools: [{name: get, class: read}]
`)
	edge := newPoint(sys, "edge")
	cy := sys.Approver("cy")
	denied := edge.evaluate(question("payroll", "till/pay", refundOne, ""))
	asked := edge.do(http.MethodPost, denied.Context.Request.Endpoint, `{"request_context":"`+denied.Context.Request.Context+`"}`)
	if s := cy.Countersign(asked.Task.ID); s != counterfoil.StateApproved {
		t.Fatalf("cy made it %s", s)
	}
	use := question("payroll", "till/pay", refundOne, `{"authzen_access_request_approval":{"id":"`+asked.Task.ID+`"}}`)
	a := edge.evaluations(`{"evaluations":[` + use + `,` + question("payroll", "down/get", `{}`, "") + `,` + question("payroll", "till/get_balance", `{}`, "") + `]}`)
	if a.status != http.StatusOK || len(a.Evaluations) != 3 {
		t.Fatalf("HTTP %d %s", a.status, a.body)
	}
	for i, want := range []counterfoil.Code{"", counterfoil.UpstreamUnavailable, ""} {
		if e := a.Evaluations[i]; *e.Decision != (want == "") || e.Context.Reason != want {
			t.Errorf("evaluation %d: %s", i, a.body)
		}
	}
	sys.CheckLedger()
	if one := edge.evaluate(question("payroll", "down/get", `{}`, "")); one.status != http.StatusBadGateway {
		t.Errorf("by itself: HTTP %d %s", one.status, one.body)
	}
}

// A short request has no long answer: what does not fit is said, and is answered when it
// is asked by itself.
func TestABatchIsNotAmplified(t *testing.T) {
	t.Parallel()
	sys := New(t)
	sys.Apply(tillManifest(sys))
	edge := newPoint(sys, "edge")
	one := question("payroll", "till/pay", strings.Replace(refundOne, "acme", strings.Repeat("a", 60<<10), 1), "")
	items := func(n int) string {
		return strings.TrimSuffix(one, "}") + `,"evaluations":[` + strings.TrimSuffix(strings.Repeat("{},", n), ",") + "]}"
	}
	requestable := func(n int) (fits int) {
		a := edge.evaluations(items(n))
		if a.status != http.StatusOK || len(a.Evaluations) != n || len(a.body) > 1<<20+n<<10 {
			t.Fatalf("%d: HTTP %d, %d evaluations, %d bytes", n, a.status, len(a.Evaluations), len(a.body))
		}
		for i, e := range a.Evaluations {
			switch says := strings.Contains(e.Context.Detail, "evaluate it by itself"); {
			case *e.Decision || e.Context.Reason != counterfoil.ApprovalRequired || (e.Context.Request == nil) != says:
				t.Errorf("evaluation %d: %v %+v", i, *e.Decision, e.Context)
			case !says:
				fits++
			}
		}
		return fits
	}
	if n := requestable(5); n != 5 {
		t.Errorf("control: %d of 5 are requestable", n)
	}
	if n := requestable(40); n < 8 || n > 10 {
		t.Errorf("%d of 40 are requestable", n)
	}
	if a := edge.evaluate(one); a.Context.Request == nil {
		t.Errorf("by itself: %.300s", a.body)
	}
}
