package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
)

// A pdp is a gateway that an enforcement point asks, which stands in front of the bank
// and the crm.
type pdp struct {
	*office
	point counterfoil.Caller
	agent *actor // payroll, which the point speaks of
}

func newPDP(t testing.TB, h http.Handler, change func(*counterfoil.Registry, *gateway.Config)) *pdp {
	t.Helper()
	if h == nil {
		h = http.HandlerFunc(jsonUpstream)
	}
	p := &pdp{}
	var c *client
	p.office, c = newCRM(t, h, func(_ *office, reg *counterfoil.Registry, cfg *gateway.Config) {
		reg.People["dee"] = &counterfoil.Person{Name: "dee", Email: "dee@example.com"}
		reg.Agents["edge"] = &counterfoil.Agent{Name: "edge", Owner: "dee", Environment: "prod"}
		reg.Resources["bank"].Servers, reg.Resources["crm"].Servers = []string{"edge"}, []string{"edge"}
		reg.Classes["reset"].Approvers = [][]string{{"finance"}}
		if change != nil {
			change(reg, cfg)
		}
	})
	edge := p.actor("edge")
	p.agent = c.actor
	p.point = counterfoil.Caller{
		Agent: "edge", Instance: edge.instance, Environment: "prod", Epoch: edge.epoch, Subject: "edge", Audience: p.url,
		TokenID: "tok_edge", Issued: start, Expires: start.Add(time.Hour), JKT: edge.signer.Public().Thumbprint(), Binding: counterfoil.BoundDPoP,
		Proof: "a proof that the request's own entry has",
	}
	return p
}

func (p *pdp) statement(tool, arguments string) counterfoil.Statement {
	id, err := counterfoil.ParseToolID(tool)
	if err != nil {
		p.t.Fatal(err)
	}
	s := counterfoil.Statement{RequestID: counterfoil.NewID("req_"), Point: p.point, Agent: "payroll", Tool: id, Source: netip.MustParseAddr("127.0.0.1")}
	if arguments != "" {
		s.Arguments = []byte(arguments)
	}
	return s
}

func (p *pdp) evaluate(s counterfoil.Statement) counterfoil.Verdict {
	p.t.Helper()
	v, err := p.gateway.Evaluate(p.t.Context(), s)
	if err != nil {
		p.t.Fatal(err)
	}
	if v.Allow == (v.Code != "") {
		p.t.Errorf("a verdict of two minds: %+v", v)
	}
	return v
}

const resetCrm, resetArguments = "crm/reset_password", `{"body":{"reason":"lost"},"path":{"id":"7"}}`

// ask has people asked about a denial.
func (p *pdp) ask(v counterfoil.Verdict, key string) counterfoil.Approval {
	p.t.Helper()
	a, err := p.gateway.RequestAccess(p.t.Context(), p.point, "req_x", v.Context, key)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, nil)
	with := func(s counterfoil.Statement, change func(*counterfoil.Statement)) counterfoil.Statement {
		change(&s)
		return s
	}
	balance := p.statement("bank/get_balance", `{}`)
	for name, c := range map[string]struct {
		ask  counterfoil.Statement
		code counterfoil.Code
	}{
		"a tool of MCP":                     {balance, ""},
		"a tool over HTTP":                  {p.statement("crm/get_customer", `{"path":{"id":"7"}}`), ""},
		"arguments that nobody reads":       {p.statement("crm/get_customer", ""), ""},
		"arguments as the schema has them":  {p.statement("crm/search", `{"query":{"q":"x"}}`), ""},
		"arguments that the schema has not": {p.statement("crm/search", `{"query":{"admin":"x"}}`), counterfoil.PayloadMalformed},
		"a forbidden class":                 {p.statement("crm/wipe", `{"path":{"id":"7"}}`), counterfoil.ClassForbidden},
		"a class that needs people":         {p.statement(resetCrm, resetArguments), counterfoil.ApprovalRequired},
		"such a class, arguments not said":  {p.statement(resetCrm, ""), counterfoil.PolicyForbids},
		"such a class, odd arguments":       {p.statement(resetCrm, `{"body":{"reason":"lost","force":true},"path":{"id":"7"}}`), counterfoil.PayloadMalformed},
		"an agent that has no grant":        {with(balance, func(s *counterfoil.Statement) { s.Agent = "other"; s.Tool.Tool = "pay" }), counterfoil.ToolNotGranted},
		"an agent that is not there":        {with(balance, func(s *counterfoil.Statement) { s.Agent = "ghost" }), counterfoil.TokenRevoked},
		"no agent":                          {with(balance, func(s *counterfoil.Statement) { s.Agent = "" }), counterfoil.TokenRevoked},
		"an address outside the grant":      {with(balance, func(s *counterfoil.Statement) { s.Source = netip.MustParseAddr("192.0.2.1") }), counterfoil.OutsideEnvironment},
		"no address":                        {with(balance, func(s *counterfoil.Statement) { s.Source = netip.Addr{} }), counterfoil.OutsideEnvironment},
		"a task that is not there":          {with(balance, func(s *counterfoil.Statement) { s.Task = "tsk_none" }), counterfoil.TaskClosed},
		"an approval for a routine call":    {with(balance, func(s *counterfoil.Statement) { s.Approval = "apr_aaaaaaaaaaaaaaaaaaaaaaaaaa" }), ""},
		"an approval that is not there":     {with(p.statement(resetCrm, resetArguments), func(s *counterfoil.Statement) { s.Approval = "apr_aaaaaaaaaaaaaaaaaaaaaaaaaa" }), counterfoil.ApprovalMismatch},
		"a point of nothing":                {with(balance, func(s *counterfoil.Statement) { s.Point.Agent = "payroll" }), counterfoil.ToolUnknown},
		"a point that is revoked":           {with(balance, func(s *counterfoil.Statement) { s.Point.Epoch-- }), counterfoil.TokenRevoked},
	} {
		if v := p.evaluate(c.ask); v.Code != c.code {
			t.Errorf("%s: %+v, want %q", name, v, c.code)
		}
	}
	for _, e := range p.log.of(ledger.CallDecided) {
		if e.Agent != "edge" && e.Agent != "payroll" || e.Proof != "" || e.Detail["asserted"] != true || e.Source.Address != "" {
			t.Errorf("entry %d: %+v", e.Index, e)
		}
	}
}

// What an upstream's tool is now must be what was pinned, also for a call that does not
// come through here.
func TestEvaluateHoldsAToolToItsPin(t *testing.T) {
	t.Parallel()
	var changed atomic.Bool
	other := replacing(`"Balance of an account"`, `"Balance of every account"`)
	p := newPDP(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if changed.Load() {
			other.ServeHTTP(rw, r)
			return
		}
		jsonUpstream(rw, r)
	}), nil)
	s := p.statement("bank/get_balance", `{}`)
	if v := p.evaluate(s); !v.Allow {
		t.Fatalf("control: %+v", v)
	}
	changed.Store(true)
	p.clock.Advance(2 * time.Second)
	if v := p.evaluate(s); v.Code != counterfoil.ToolChanged {
		t.Errorf("a definition that changed: %+v", v)
	}
}

// TestAnAllowedStatementIsOnce: of any number of evaluations on one approval one is told
// yes, and of any other call none.
func TestAnAllowedStatementIsOnce(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, nil)
	s := p.statement(resetCrm, resetArguments)
	denied := p.evaluate(s)
	if !denied.Requestable || denied.Digest == "" || !denied.Until.After(p.clock.Now()) {
		t.Fatalf("the denial: %+v", denied)
	}
	a := p.ask(denied, "")
	if again := p.ask(denied, ""); again.ID != a.ID {
		t.Errorf("an equal request asks again: %s and %s", a.ID, again.ID)
	}
	if a.Caller.Agent != "edge" || a.Caller.Subject != "payroll" || len(a.Openers) != 1 || a.Openers[0] != "ana" {
		t.Errorf("people are asked about %+v", a)
	}
	p.decide(a.ID, "bo", counterfoil.DecisionApprove, "")
	if got := p.ask(denied, ""); got.ID != a.ID || got.State != counterfoil.StateApproved {
		t.Errorf("asked again once it is approved: %s %s", got.ID, got.State)
	}
	s.Approval = a.ID
	other := s
	other.Arguments = []byte(strings.Replace(resetArguments, "7", "8", 1))
	if v := p.evaluate(other); v.Code != counterfoil.ApprovalMismatch {
		t.Errorf("another customer: %+v", v)
	}
	var yes atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			v, err := p.gateway.Evaluate(t.Context(), s)
			if err != nil {
				t.Error(err)
			}
			if v.Allow {
				yes.Add(1)
			} else if v.Code != counterfoil.ApprovalSpent {
				t.Errorf("a loser is told %+v", v)
			}
		})
	}
	all.Wait()
	if yes.Load() != 1 {
		t.Errorf("%d were told yes", yes.Load())
	}
	if st := p.state(a.ID).State; st != counterfoil.StateIndeterminate {
		t.Errorf("nobody here knows how it ended, and it is %s", st)
	}
}

// What a point asks about is of the agent's own limits.
func TestAStatementCountsAgainstTheAgentsLimits(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, func(reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Classes["reset"].Limits = []counterfoil.Limit{{Sum: "n", Per: "agent", Window: counterfoil.Duration(time.Hour), Max: "10"}}
		for i := range reg.Resources["crm"].Tools {
			if tool := &reg.Resources["crm"].Tools[i]; tool.Name == "reset_password" {
				tool.Fields, tool.Schema = map[string]string{"n": "/body/n"}, ""
			}
		}
		// The other agent may do the same, and has a budget of its own.
		reg.Agents["other"].Grants = append(reg.Agents["other"].Grants, counterfoil.Grant{Tools: []counterfoil.ToolID{{Resource: "crm", Tool: "reset_password"}}})
	})
	use := func(agent string, n int) counterfoil.Code {
		t.Helper()
		s := p.statement(resetCrm, fmt.Sprintf(`{"body":{"n":%d},"path":{"id":"7"}}`, n))
		s.Agent = agent
		a, err := p.gateway.RequestAccess(t.Context(), p.point, "req_x", p.evaluate(s).Context, "")
		if err != nil {
			return counterfoil.CodeOf(err)
		}
		p.decide(a.ID, "bo", counterfoil.DecisionApprove, "")
		s.Approval = a.ID
		return p.evaluate(s).Code
	}
	for _, c := range []struct {
		agent string
		n     int
		code  counterfoil.Code
	}{{"payroll", 6, ""}, {"payroll", 5, counterfoil.LimitExceeded}, {"other", 9, ""}, {"payroll", 4, ""}} {
		if code := use(c.agent, c.n); code != c.code {
			t.Errorf("%s, %d: %q, want %q", c.agent, c.n, code, c.code)
		}
	}
}

// A call in a task is one of its calls, and what needs people is asked in no task.
func TestAStatementInATask(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, nil)
	task := p.agent.begin(func(k *counterfoil.Task) { k.MaxCalls = 2 })
	s := p.statement("bank/get_balance", `{}`)
	s.Task = task
	for i, code := range []counterfoil.Code{"", "", counterfoil.LimitExceeded} {
		if v := p.evaluate(s); v.Code != code {
			t.Errorf("call %d: %+v, want %q", i, v, code)
		}
	}
	if n := p.calls(task); n != 2 {
		t.Errorf("the task counted %d calls", n)
	}
	guarded := p.statement(resetCrm, resetArguments)
	if v := p.evaluate(guarded); !v.Requestable {
		t.Errorf("control: %+v", v)
	}
	guarded.Task = task
	if v := p.evaluate(guarded); v.Code != counterfoil.PolicyForbids || v.Requestable {
		t.Errorf("people would be asked about a task: %+v", v)
	}
	s.Agent = "other"
	if v := p.evaluate(s); v.Code != counterfoil.TaskClosed {
		t.Errorf("another agent's task: %+v", v)
	}
}

// What is not recorded is not allowed.
func TestEvaluateNeedsTheLedger(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, func(reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Vocabularies["words"] = &counterfoil.Vocabulary{Name: "words", Servers: []string{"edge"}, Class: "read", Cedar: `permit (principal is user, action, resource is doc);`}
	})
	s := p.statement("bank/get_balance", `{}`)
	q := policy.Inquiry{Subject: policy.Word{Type: "user", ID: "bo"}, Action: "see", Resource: policy.Word{Type: "doc", ID: "1"}, Context: []byte(`{"a":[1,2]}`)}
	if v := p.evaluate(s); !v.Allow {
		t.Fatalf("control: %+v", v)
	}
	if v, err := p.gateway.Inquire(t.Context(), "req_1", p.point, q); err != nil || !v.Allow {
		t.Fatalf("control: %+v, %v", v, err)
	}
	p.log.breakDown(errors.New("disk is full"))
	defer p.log.breakDown(nil)
	if v, err := p.gateway.Evaluate(t.Context(), s); err == nil || v.Allow {
		t.Errorf("allowed without an entry: %+v", v)
	}
	if v, err := p.gateway.Inquire(t.Context(), "req_2", p.point, q); err == nil || v.Allow {
		t.Errorf("allowed without an entry: %+v", v)
	}
}

// A revoked point is told nothing, in its own words neither.
func TestInquireOfARevokedPoint(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, func(reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Vocabularies["words"] = &counterfoil.Vocabulary{Name: "words", Servers: []string{"edge"}, Class: "read", Cedar: `permit (principal is user, action, resource is doc);`}
	})
	q := policy.Inquiry{Subject: policy.Word{Type: "user", ID: "bo"}, Action: "see", Resource: policy.Word{Type: "doc", ID: "1"}}
	p.point.Epoch--
	if v, err := p.gateway.Inquire(t.Context(), "req_1", p.point, q); err != nil || v.Allow || v.Code != counterfoil.TokenRevoked {
		t.Errorf("%+v, %v", v, err)
	}
}

// FuzzOpenDenial holds that no text but the gateway's own opens.
func FuzzOpenDenial(f *testing.F) {
	p := newPDP(f, nil, nil)
	f.Add("")
	f.Add(strings.Repeat("A", 200))
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := p.gateway.RequestAccess(t.Context(), p.point, "req_x", text, ""); !errors.Is(err, counterfoil.ErrDenial) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
