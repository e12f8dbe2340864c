package counterfoil

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestProblemsTellWhatMayBeTold(t *testing.T) {
	cause := errors.New("canary-7d20")
	for _, c := range []struct {
		err  error
		want string
	}{
		{Refuse(ToolUnknown, "there is no tool %q", "fly"),
			`{"type":"https://github.com/counterfoil/counterfoil/blob/main/docs/errors.md#tool_unknown","title":"tool unknown","status":404,"code":"tool_unknown","detail":"there is no tool \"fly\"","request_id":"req_1"}`},
		{NewFault(LedgerUnavailable, cause),
			`{"type":"https://github.com/counterfoil/counterfoil/blob/main/docs/errors.md#ledger_unavailable","title":"ledger unavailable","status":503,"code":"ledger_unavailable","detail":"The decision could not be recorded, so nothing was done.","request_id":"req_1"}`},
		{cause,
			`{"type":"https://github.com/counterfoil/counterfoil/blob/main/docs/errors.md#internal","title":"internal","status":500,"code":"internal","detail":"A fault of the server. Nothing more was done.","request_id":"req_1"}`},
	} {
		b, err := json.Marshal(ProblemOf(c.err, "req_1"))
		if err != nil || string(b) != c.want {
			t.Errorf("%v:\n%s\nwant\n%s\n%v", c.err, b, c.want, err)
		}
		if strings.Contains(string(b), "canary") {
			t.Errorf("%s tells a fault's cause", b)
		}
	}
	waits := Refuse(ApprovalRequired, "two people must approve this")
	waits.Approval = &ApprovalStatus{ID: "apr_1"}
	if p := ProblemOf(waits, ""); p.Approval != waits.Approval {
		t.Error("the approval is not told")
	}
}
