package gateway_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
)

// ofResource changes a copy of a resource.
func ofResource(name string, change func(*counterfoil.Resource)) func(*counterfoil.Registry) {
	return func(reg *counterfoil.Registry) {
		r := *reg.Resources[name]
		r.Tools = slices.Clone(r.Tools)
		change(&r)
		reg.Resources[name] = &r
	}
}

// ofAgent changes a copy of an agent.
func ofAgent(name string, change func(*counterfoil.Agent)) func(*counterfoil.Registry) {
	return func(reg *counterfoil.Registry) {
		a := *reg.Agents[name]
		change(&a)
		reg.Agents[name] = &a
	}
}

func notOfThePoint(name string) func(*counterfoil.Registry) {
	return ofResource(name, func(r *counterfoil.Resource) { r.Servers = []string{"another"} })
}

// What is applied while the upstream is asked for its tools counts in what a point is
// told.
func TestWhatIsAppliedWhileAPointWaitsCounts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*counterfoil.Registry)
		code   counterfoil.Code
	}{
		{"nothing of it", func(reg *counterfoil.Registry) { reg.People["eve"] = &counterfoil.Person{Name: "eve"} }, ""},
		{"the grant", ofAgent("payroll", func(a *counterfoil.Agent) {
			a.Grants = []counterfoil.Grant{{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "count"}}}}
		}), counterfoil.ToolNotGranted},
		{"the class", classify("get_balance", "payout"), counterfoil.ToolChanged},
		{"the class, forbidden", classify("get_balance", "never"), counterfoil.ClassForbidden},
		{"the point", notOfThePoint("bank"), counterfoil.ToolUnknown},
		{"the tool", ofResource("bank", func(r *counterfoil.Resource) {
			r.Tools = slices.DeleteFunc(r.Tools, func(t counterfoil.Tool) bool { return t.Name == "get_balance" })
		}), counterfoil.ToolUnknown},
		{"tasks", ofAgent("payroll", func(a *counterfoil.Agent) { a.Tasks.Required = true }), counterfoil.OutsideTask},
		{"the environment", ofAgent("payroll", func(a *counterfoil.Agent) { a.Environment = "test" }), counterfoil.OutsideEnvironment},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := newPDP(t, nil, nil)
			p.onList(func() { p.apply(tc.change) })
			if v := p.evaluate(p.statement("bank/get_balance", `{}`)); v.Code != tc.code {
				t.Errorf("got %+v, want %q", v, tc.code)
			}
			if len(p.upstream.calls("tools/list")) != 1 {
				t.Error("the upstream was not asked in between")
			}
		})
	}
}

// A point that is taken from before a resource while its question is decided is told no,
// wherever that is noticed.
func TestAPointThatServesNoMore(t *testing.T) {
	t.Parallel()
	t.Run("while it is recorded", func(t *testing.T) {
		t.Parallel()
		p := newPDP(t, nil, nil)
		s := p.statement("crm/get_customer", `{"path":{"id":"7"}}`)
		if v := p.evaluate(s); !v.Allow {
			t.Fatalf("control: %+v", v)
		}
		var once sync.Once
		p.log.decided = func(*ledger.Entry) { once.Do(func() { p.apply(notOfThePoint("crm")) }) }
		v := p.evaluate(s)
		ends := p.log.of(ledger.CallFinished)
		if v.Allow || v.Code != counterfoil.ToolUnknown || ends[len(ends)-1].Outcome != "not_forwarded" {
			t.Errorf("got %+v, ended %+v", v, ends[len(ends)-1])
		}
	})
	for _, removed := range []bool{false, true} {
		between := &interposed{claimed: func(int) {}}
		p := newPDP(t, nil, func(_ *counterfoil.Registry, cfg *gateway.Config) {
			between.Approvals = cfg.Approvals
			cfg.Approvals = between
		})
		s := p.statement(resetCrm, resetArguments)
		s.Approval = p.ask(p.evaluate(s), "").ID
		p.decide(s.Approval, "bo", counterfoil.DecisionApprove, "")
		between.spending = func(n int) {
			switch {
			case n > 1:
			case removed:
				p.apply(notOfThePoint("crm"))
			default:
				p.apply(func(reg *counterfoil.Registry) { reg.People["eve"] = &counterfoil.Person{Name: "eve"} })
			}
		}
		want, state := counterfoil.Code(""), counterfoil.StateIndeterminate
		if removed {
			want, state = counterfoil.ToolUnknown, counterfoil.StateApproved
		}
		if v := p.evaluate(s); v.Code != want {
			t.Errorf("removed %v, before the spending: %+v", removed, v)
		}
		if st := p.state(s.Approval).State; st != state {
			t.Errorf("removed %v: the approval is %s", removed, st)
		}
	}
}

// What a point loses while its inquiry is recorded counts, and so does what is said there.
func TestInquireLooksAfterItsEntry(t *testing.T) {
	t.Parallel()
	words := func(cedar string) func(*counterfoil.Registry) {
		return func(reg *counterfoil.Registry) {
			reg.Vocabularies["words"] = &counterfoil.Vocabulary{Name: "words", Servers: []string{"edge"}, Class: "read", Cedar: cedar}
		}
	}
	const allowed = `permit (principal is user, action, resource is doc);`
	q := policy.Inquiry{Subject: policy.Word{Type: "user", ID: "bo"}, Action: "see", Resource: policy.Word{Type: "doc", ID: "1"}}
	for _, tc := range []struct {
		name string
		do   func(*pdp)
		code counterfoil.Code
	}{
		{"nothing", func(*pdp) {}, ""},
		{"something else", func(p *pdp) { p.apply(words(allowed)) }, ""},
		{"the point is revoked", func(p *pdp) { p.log.revoke("edge") }, counterfoil.TokenRevoked},
		{"the vocabulary forbids it", func(p *pdp) { p.apply(words(allowed + ` forbid (principal, action, resource);`)) }, counterfoil.PolicyForbids},
		{"the vocabulary is gone", func(p *pdp) { p.apply(func(*counterfoil.Registry) {}) }, counterfoil.ToolUnknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := newPDP(t, nil, func(reg *counterfoil.Registry, _ *gateway.Config) { words(allowed)(reg) })
			p.log.decided = func(*ledger.Entry) { tc.do(p) }
			v, err := p.gateway.Inquire(t.Context(), "req_1", p.point, q)
			if err != nil || v.Allow != (tc.code == "") || v.Code != tc.code || v.Entry < 0 {
				t.Errorf("got %+v, %v", v, err)
			}
			end, want := p.log.of(ledger.CallFinished), "passed_on"
			if tc.code != "" {
				want = "not_forwarded"
			}
			if len(end) != 1 || end[0].Outcome != want {
				t.Errorf("it ended as %+v", end)
			}
		})
	}
}

// oldUpstream speaks MCP 2025-11-25 alone.
func oldUpstream(rw http.ResponseWriter, r *http.Request) {
	switch version := r.Header.Get("MCP-Protocol-Version"); {
	case version == rev2026:
		http.Error(rw, "unsupported protocol version", http.StatusBadRequest)
	case r.Method == http.MethodDelete:
		rw.WriteHeader(http.StatusNoContent)
	case version == "":
		rw.Header().Set("Mcp-Session-Id", "s1")
		rec := replacing(`{"content":[{"type":"text","text":"done"}],"resultType":"complete"}`,
			`{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"old","version":"1"}}`)
		rec.ServeHTTP(rw, r)
	default:
		jsonUpstream(rw, r)
	}
}

// A point may be in front of an upstream of any revision that is spoken here.
func TestEvaluateAsksAnOldUpstreamForItsTools(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{"2026-07-28": jsonUpstream, "2025-11-25": oldUpstream} {
		p := newPDP(t, h, nil)
		for range 2 {
			if v, err := p.gateway.Evaluate(t.Context(), p.statement("bank/get_balance", `{}`)); err != nil || !v.Allow {
				t.Errorf("%s: %+v, %v", name, v, err)
			}
			p.clock.Advance(2 * time.Second)
		}
	}
}

// The credential that an upstream is shown for its list of tools is used by who asked,
// on behalf of the agent that is spoken of.
func TestTheCredentialOfAnEvaluation(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, func(reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Resources["bank"].Credential = &counterfoil.UpstreamCredential{Header: "Authorization", Prefix: "Bearer ", File: "bank-token"}
	})
	if v := p.evaluate(p.statement("bank/get_balance", `{}`)); !v.Allow {
		t.Fatalf("control: %+v", v)
	}
	used := p.log.custody(t)
	if len(used) != 1 || used[0].Agent != "edge" || used[0].Instance != p.point.Instance || used[0].OnBehalfOf != "payroll" || used[0].Detail["for"] != "tools/list" {
		t.Errorf("the entries: %+v", used)
	}
	p.clock.Advance(2 * time.Second)
	own := p.office.clerk("payroll")
	wantDone(t, own.call2026("get_balance", `{}`, nil))
	for _, e := range p.log.custody(t)[1:] {
		if e.Agent != "payroll" || e.OnBehalfOf != "" {
			t.Errorf("of a call of its own: %+v", e)
		}
	}
}

// Neither owner may say yes, nor whoever becomes one, in a class that lets owners as in
// any other. Nor does what was asked under another owner stand.
func TestWhoOwnsTheAgentThatAPointSpeaksOf(t *testing.T) {
	t.Parallel()
	owner := func(agent, person string) func(*counterfoil.Registry) {
		return ofAgent(agent, func(a *counterfoil.Agent) { a.Owner = person })
	}
	for _, own := range []bool{false, true} {
		for _, agent := range []string{"payroll", "edge"} {
			p := newPDP(t, nil, func(reg *counterfoil.Registry, _ *gateway.Config) { reg.Classes["reset"].OwnerMayApprove = own })
			s := p.statement(resetCrm, resetArguments)
			s.Approval = p.ask(p.evaluate(s), "").ID
			if v, err := p.engine.View(t.Context(), "bo", s.Approval); err != nil || !v.MaySign {
				t.Fatalf("control: bo sees %+v, %v", v, err)
			}
			p.apply(owner(agent, "bo"))
			if _, err := p.engine.Challenge(t.Context(), s.Approval, "bo", counterfoil.DecisionApprove, ""); err == nil || counterfoil.CodeOf(err) != counterfoil.ApproverNotEligible {
				t.Errorf("%s is bo's, owners may %v: %v", agent, own, err)
			}
			p.decide(s.Approval, "cy", counterfoil.DecisionApprove, "")
			if v := p.evaluate(s); v.Code != counterfoil.ApprovalSuperseded {
				t.Errorf("%s is bo's, owners may %v: asked under another owner: %+v", agent, own, v)
			}
		}
	}
	// From another's to the point's own: then it is among nobody else's.
	p := newPDP(t, nil, nil)
	s := p.statement(resetCrm, resetArguments)
	s.Approval = p.ask(p.evaluate(s), "").ID
	p.decide(s.Approval, "cy", counterfoil.DecisionApprove, "")
	p.apply(owner("payroll", "dee"))
	if v := p.evaluate(s); v.Code != counterfoil.ApprovalSuperseded {
		t.Errorf("the point's owner owns it now: %+v", v)
	}
}

// An evaluation asks nobody, also where what it names does not stand any more.
func TestASupersededApprovalAsksNobodyAnew(t *testing.T) {
	t.Parallel()
	asked := func(p *pdp) int {
		all, err := p.log.Approvals(t.Context(), counterfoil.ApprovalFilter{Kind: counterfoil.ApprovalOfCall, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for _, state := range []string{"pending", "approved"} {
		p := newPDP(t, nil, nil)
		s := p.statement(resetCrm, resetArguments)
		first := p.evaluate(s)
		s.Approval = p.ask(first, "").ID
		if state == "approved" {
			p.decide(s.Approval, "bo", counterfoil.DecisionApprove, "")
		}
		before := asked(p)
		p.apply(func(reg *counterfoil.Registry) {
			c := *reg.Classes["reset"]
			c.Template = "Reset it"
			reg.Classes["reset"] = &c
		})
		for range 3 {
			v := p.evaluate(s)
			if v.Code != counterfoil.ApprovalSuperseded || v.Approval == nil || v.Approval.ID != s.Approval {
				t.Errorf("%s: %+v", state, v)
			}
		}
		if n := asked(p) - before; n != 0 {
			t.Errorf("%s: people were asked %d times by evaluations", state, n)
		}
		// Control: on request they are.
		if a := p.ask(first, ""); a.ID == s.Approval || a.State != counterfoil.StatePending || asked(p) != before+1 {
			t.Errorf("%s: on request: %s %s", state, a.ID, a.State)
		}
	}
}

// People are told whose word it is, and what they sign says so.
func TestWhatPeopleAreToldOfAStatement(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, nil)
	id := p.ask(p.evaluate(p.statement(resetCrm, resetArguments)), "").ID
	v, err := p.engine.View(t.Context(), "bo", id)
	if err != nil {
		t.Fatal(err)
	}
	const want = "That agent payroll, which ana owns, makes this call is the word of the enforcement point edge, and is not proved."
	if v.Rendering.Asserted != want || slices.Contains(v.Rendering.Absent, "asserted") || v.Rendering.OnBehalfOf != "payroll" {
		t.Errorf("people are shown %+v", v.Rendering)
	}
	// Control: of a call that the agent makes itself nothing is said.
	own := p.office.clerk("payroll")
	mine := wantHeld(t, own.call2026(resetTool, `{}`, nil), counterfoil.ApprovalRequired)
	if v, err = p.engine.View(t.Context(), "bo", mine.ID); err != nil || v.Rendering.Asserted != "" || !slices.Contains(v.Rendering.Absent, "asserted") {
		t.Errorf("of its own call: %+v, %v", v.Rendering, err)
	}
}

// A statement's sum is one of the agent's, and people see it as that.
func TestPeopleSeeTheAgentsOwnLimits(t *testing.T) {
	t.Parallel()
	p := newPDP(t, nil, func(reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Classes["reset"].Limits = []counterfoil.Limit{{Sum: "n", Per: "agent", Window: counterfoil.Duration(time.Hour), Max: "10"}}
		for i := range reg.Resources["crm"].Tools {
			if tool := &reg.Resources["crm"].Tools[i]; tool.Name == "reset_password" {
				tool.Fields, tool.Schema = map[string]string{"n": "/body/n"}, ""
			}
		}
	})
	for i, used := range []string{"0", "4"} {
		s := p.statement(resetCrm, strings.Replace(`{"body":{"n":4},"path":{"id":"X"}}`, "X", string(rune('0'+i)), 1))
		s.Approval = p.ask(p.evaluate(s), "").ID
		v, err := p.engine.View(t.Context(), "bo", s.Approval)
		if err != nil || len(v.Limits) != 1 || v.Limits[0].Used != used {
			t.Errorf("call %d: %+v, %v", i, v.Limits, err)
		}
		p.decide(s.Approval, "bo", counterfoil.DecisionApprove, "")
		if v := p.evaluate(s); !v.Allow {
			t.Fatalf("control: %+v", v)
		}
	}
}
