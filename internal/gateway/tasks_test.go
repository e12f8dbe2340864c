package gateway_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

const metaTasks = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`

// send2026 sends a request in the new revision with a _meta of its own.
func (a *actor) send2026(method, name, params, meta string, change func(*http.Request)) reply {
	a.w.t.Helper()
	return a.post(`{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+params+`,`+meta+`}}`, func(r *http.Request) {
		r.Header.Set("MCP-Protocol-Version", rev2026)
		r.Header.Set("Mcp-Method", method)
		r.Header.Set("Mcp-Name", name)
		if change != nil {
			change(r)
		}
	})
}

// ask calls a tool as a client that takes a task for an answer.
func (a *actor) ask(tool, arguments string, change func(*http.Request)) answer {
	a.w.t.Helper()
	return read(a.w.t, a.send2026("tools/call", tool, `"name":"`+tool+`","arguments":`+arguments, metaTasks, change))
}

func (a *actor) taskReply(verb, id string) reply {
	a.w.t.Helper()
	params := `"taskId":"` + id + `"`
	if verb == "update" {
		params += `,"inputResponses":{"approval":{"action":"accept"}}`
	}
	return a.send2026("tasks/"+verb, id, params, metaTasks, nil)
}

func (a *actor) task2026(verb, id string) answer {
	a.w.t.Helper()
	return read(a.w.t, a.taskReply(verb, id))
}

// run begins to make held calls, until the test or stop ends it.
func (o *office) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	g := o.gateway
	go func() {
		defer close(done)
		g.Run(ctx)
	}()
	var once atomic.Bool
	stop = func() {
		if once.Swap(true) {
			return
		}
		cancel()
		<-done
		g.Wait(context.Background())
	}
	o.t.Cleanup(stop)
	return stop
}

// leaves waits until an approval is in none of the states.
func (o *office) leaves(id string, states ...counterfoil.ApprovalState) counterfoil.ApprovalState {
	o.t.Helper()
	for {
		size, _ := o.log.Head()
		if s := o.state(id).State; !slices.Contains(states, s) {
			return s
		}
		if err := o.log.Wait(o.t.Context(), size); err != nil {
			o.t.Fatalf("it stays as it is: %v", err)
		}
	}
}

// inner is the result of the held call.
func inner(t testing.TB, a answer) answer {
	t.Helper()
	var in answer
	if err := json.Unmarshal([]byte(`{"result":`+string(a.Result.Inner)+`}`), &in); err != nil {
		t.Fatalf("the result is %s: %v", a.Result.Inner, err)
	}
	return in
}

// TestAHeldCallIsATask is the way of standards 5.8 (b) 1.
func TestAHeldCallIsATask(t *testing.T) {
	t.Parallel()
	o, a := newOffice(t, nil, nil)
	o.run()
	made := a.ask("pay", pay100, nil)
	id := made.Result.TaskID
	if made.Result.ResultType != "task" || made.Result.Status != "working" || made.Result.StatusMessage != "waiting for 2 approvals" ||
		made.Result.Poll != 5000 || made.Result.TTLMs <= (15*time.Minute).Milliseconds() || !strings.HasPrefix(id, "apr_") ||
		made.Result.CreatedAt != "2026-11-21T12:00:00.000Z" || made.Result.Meta.Refusal.Code != counterfoil.ApprovalRequired {
		t.Fatalf("the task is %+v", made.Result)
	}
	if again := a.ask("pay", pay100, nil); again.Result.TaskID != id || !again.Result.Meta.Refusal.Approval.Attached {
		t.Errorf("a repeat is another task: %+v", again.Result)
	}
	o.clock.Advance(time.Minute)
	o.decide(id, "bo", counterfoil.DecisionApprove, "")
	got := a.task2026("get", id)
	if got.Result.ResultType != "complete" || got.Result.Status != "working" || got.Result.StatusMessage != "waiting for 1 approval" || got.Result.LastUpdatedAt != "2026-11-21T12:01:00.000Z" {
		t.Errorf("it is %+v", got.Result)
	}
	if o.paid() != 0 {
		t.Fatal("it ran before it was approved")
	}
	o.decide(id, "cy", counterfoil.DecisionApprove, "")
	if s := o.leaves(id, counterfoil.StateApproved, counterfoil.StateSpent); s != counterfoil.StateSucceeded {
		t.Fatalf("it is %s", s)
	}
	got = a.task2026("get", id)
	if in := inner(t, got); got.Result.Status != "completed" || in.Result.IsError || in.Result.Content[0].Text != "done" {
		t.Errorf("it is %+v", got.Result)
	}
	sent := o.upstream.calls(`"name":"pay"`)
	if len(sent) != 1 || !strings.Contains(sent[0].body, `"arguments":`+pay100) || sent[0].header.Get("Mcp-Name") != "pay" || sent[0].header.Get("Authorization") != "" {
		t.Fatalf("upstream: %+v", sent)
	}
	// A repeat of a call that ran is refused, and by the task's id its answer comes
	// back.
	if over := a.ask("pay", pay100, nil); !over.Result.IsError || over.Result.Meta.Refusal.Code != counterfoil.ApprovalSpent {
		t.Errorf("a repeat gets %+v", over.Result)
	}
	if stored := a.ask("pay", pay100, naming(id)); stored.Result.IsError || stored.Result.Content[0].Text != "done" || stored.Result.Meta.Refusal.Code != counterfoil.ApprovalSpent {
		t.Errorf("a repeat by its id gets %+v", stored.Result)
	}
	// What the gateway did by itself is recorded like a call, on the same request.
	var mine []ledger.Entry
	for _, e := range o.log.of(ledger.CallDecided) {
		if e.Tool == "bank/pay" && e.Decision == ledger.Allow {
			mine = append(mine, e)
		}
	}
	if len(mine) != 1 || mine[0].Agent != "payroll" || mine[0].Proof != "" || mine[0].Source.Address != "127.0.0.1" || mine[0].RequestID != o.state(id).RequestID {
		t.Errorf("the record is %+v", mine)
	}
	for _, e := range o.log.of(ledger.CallDecided) {
		if e.Tool == "bank/tasks/get" && (e.Decision != ledger.Allow || e.Approval.ID != id || e.Proof == "") {
			t.Errorf("a question about the task is recorded as %+v", e)
		}
	}
	o.checkProof(t)
}

// TestHowTasksEnd is APR-15 and what else can come of a held call: whatever people
// decide is the result of a tool that failed.
func TestHowTasksEnd(t *testing.T) {
	t.Parallel()
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, body)
		}
	}
	// withID answers with the id that the request has, which is the gateway's own.
	withID := func(rest string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, id, _ := strings.Cut(string(b), `"id":`)
			id, _, _ = strings.Cut(id, ",")
			text(`{"jsonrpc":"2.0","id":`+id+`,`+rest+`}`)(w, r)
		}
	}
	approve := func(o *office, _ *actor, id string) { o.approve(id) }
	for _, tc := range []struct {
		name     string
		do       func(o *office, a *actor, id string)
		upstream http.HandlerFunc
		state    counterfoil.ApprovalState
		status   string
		code     counterfoil.Code // of the refusal in the result; empty when there is none
		says     string
		runs     int
	}{
		{"denied", func(o *office, _ *actor, id string) { o.decide(id, "cy", counterfoil.DecisionDeny, "no budget") }, nil,
			counterfoil.StateDenied, "completed", counterfoil.ApprovalDenied, "no budget", 0},
		{"nobody decided", func(o *office, _ *actor, _ string) { o.clock.Advance(16 * time.Minute) }, nil,
			counterfoil.StatePending, "completed", counterfoil.ApprovalExpired, "", 0},
		{"cancelled", func(_ *office, a *actor, id string) { a.task2026("cancel", id) }, nil,
			counterfoil.StateCancelled, "cancelled", "", "", 0},
		{"the agent was revoked", func(o *office, _ *actor, id string) {
			o.decide(id, "bo", counterfoil.DecisionApprove, "")
			o.log.revoke("payroll")
		}, nil, counterfoil.StateRevoked, "", "", "", 0},
		{"the grant was taken away", func(o *office, _ *actor, id string) {
			o.apply(func(reg *counterfoil.Registry) {
				agent := *reg.Agents["payroll"]
				agent.Grants = []counterfoil.Grant{{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "get_balance"}}}}
				reg.Agents["payroll"] = &agent
			})
			o.approve(id)
		}, nil, counterfoil.StateSuperseded, "completed", counterfoil.ApprovalSuperseded, "tool_not_granted", 0},
		{"it needs nobody any more", func(o *office, _ *actor, id string) {
			o.apply(func(reg *counterfoil.Registry) {
				class := *reg.Classes["payout"]
				class.Tier, class.InsecureLowerTier = counterfoil.Routine, true
				reg.Classes["payout"] = &class
			})
			o.approve(id)
		}, nil, counterfoil.StateSuperseded, "completed", counterfoil.ApprovalSuperseded, "", 0},
		{"the class changed", func(o *office, _ *actor, id string) {
			o.apply(func(reg *counterfoil.Registry) {
				class := *reg.Classes["payout"]
				class.Template = "Pay"
				reg.Classes["payout"] = &class
			})
			o.approve(id)
		}, nil, counterfoil.StateSuperseded, "completed", counterfoil.ApprovalSuperseded, "", 0},
		{"the network is not the grant's", func(o *office, _ *actor, id string) {
			o.apply(func(reg *counterfoil.Registry) {
				agent := *reg.Agents["payroll"]
				agent.Grants = []counterfoil.Grant{agent.Grants[0]}
				agent.Grants[0].Networks = agent.Grants[0].Networks[1:] // ::1 alone
				reg.Agents["payroll"] = &agent
			})
			o.approve(id)
		}, nil, counterfoil.StateSuperseded, "completed", counterfoil.ApprovalSuperseded, "outside_environment", 0},
		{"the tool failed", approve, withID(`"result":{"content":[{"type":"text","text":"no funds"}],"isError":true}`),
			counterfoil.StateFailed, "completed", "", "no funds", 1},
		{"an error of JSON-RPC", approve, withID(`"error":{"code":-32000,"message":"broken pipe"}`),
			counterfoil.StateFailed, "failed", "", "broken pipe", 1},
		{"an answer that cannot be read", approve, text(`<html>`),
			counterfoil.StateIndeterminate, "completed", counterfoil.OutcomeUnknown, "not made again", 1},
		{"it took too long", approve, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			counterfoil.StateIndeterminate, "completed", counterfoil.OutcomeUnknown, "", 1},
		{"refused by the upstream", approve, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
			counterfoil.StateFailed, "completed", counterfoil.UpstreamUnavailable, "", 1},
		{"too large to be kept", approve, withID(`"result":{"content":[{"type":"text","text":"` + strings.Repeat("x", 1<<20) + `"}]}`),
			counterfoil.StateSucceeded, "completed", counterfoil.ApprovalSpent, "not kept", 1},
		{"a stream", approve, func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			jsonUpstream(rec, r)
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\ndata: "+rec.Body.String()+"\n\n")
		}, counterfoil.StateSucceeded, "completed", "", "done", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o, a := newOffice(t, nil, func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) {
				cfg.UpstreamTimeout = 500 * time.Millisecond
			})
			stop := o.run()
			id := a.ask("pay", pay100, nil).Result.TaskID
			if tc.upstream != nil {
				o.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Mcp-Method") == "tools/call" {
						tc.upstream(w, r)
						return
					}
					jsonUpstream(w, r)
				}))
			}
			tc.do(o, a, id)
			if tc.state != counterfoil.StatePending {
				if s := o.leaves(id, counterfoil.StatePending, counterfoil.StateApproved, counterfoil.StateSpent); s != tc.state {
					t.Fatalf("it is %s, want %s", s, tc.state)
				}
			}
			stop()
			if o.paid() != tc.runs {
				t.Errorf("%d went upstream", o.paid())
			}
			waits, err := o.log.Approvals(t.Context(), counterfoil.ApprovalFilter{States: []counterfoil.ApprovalState{counterfoil.StatePending}})
			if err != nil || len(waits) > 0 && tc.state != counterfoil.StatePending {
				t.Errorf("people are asked about %d more, %v", len(waits), err)
			}
			if tc.status == "" {
				return // nobody is there to ask
			}
			got := a.task2026("get", id)
			if got.Result.Status != tc.status {
				t.Fatalf("the task is %+v", got.Result)
			}
			if all, _ := json.Marshal(got); tc.says != "" && !strings.Contains(string(all)+string(got.Result.Inner)+got.Result.StatusMessage+failureOf(got), tc.says) {
				t.Errorf("it does not say %q: %+v %s", tc.says, got.Result, got.Result.Inner)
			}
			if tc.code != "" {
				in := inner(t, got)
				if !in.Result.IsError || in.Result.Meta.Refusal == nil || in.Result.Meta.Refusal.Code != tc.code || in.Result.ResultType != "complete" || !strings.Contains(in.Result.Content[0].Text, "bank/pay") {
					t.Errorf("the result is %s", got.Result.Inner)
				}
			}
			if (got.Result.Failure != nil) != (tc.status == "failed") || tc.status == "cancelled" && got.Result.Inner != nil {
				t.Errorf("the task is %+v", got.Result)
			}
			// A cancellation of what is over changes nothing and is acknowledged.
			if r := a.taskReply("cancel", id); !strings.Contains(r.body, `"result":{"resultType":"complete"}`) {
				t.Errorf("the cancellation gets %s", r.body)
			}
			if again := a.task2026("get", id); again.Result.Status != tc.status {
				t.Errorf("then it is %+v", again.Result)
			}
			o.checkProof(t)
		})
	}
}

func failureOf(a answer) string {
	if a.Result.Failure == nil {
		return ""
	}
	return a.Result.Failure.Message
}

// TestTasksAreTheirOwnersAlone: for anybody else, and for what is no held call, there
// is no task.
func TestTasksAreTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	o, a := newOffice(t, nil, nil)
	id := a.ask("pay", pay100, nil).Result.TaskID
	plain := wantHeld(t, a.call2026(resetTool, `{}`, nil), counterfoil.ApprovalRequired).ID
	inTask := o.clerk("payroll")
	inTask.begin(nil)
	other := o.actor("other")
	for name, who := range map[string]*actor{"another agent": other, "another task": inTask} {
		for _, verb := range []string{"get", "cancel", "update"} {
			got := who.task2026(verb, id)
			if got.Error == nil || got.Error.Code != counterfoil.RPCInvalidParams {
				t.Errorf("%s, %s: %+v", name, verb, got)
			}
		}
	}
	for _, nobody := range []string{"apr_" + strings.Repeat("a", 26), plain, "task-1", "", "apr_"} {
		if got := a.task2026("get", nobody); got.Error == nil || got.Error.Code != counterfoil.RPCInvalidParams {
			t.Errorf("%q: %+v", nobody, got)
		}
	}
	if got := a.task2026("update", id); got.Error == nil || got.Error.Code != counterfoil.RPCInvalidParams {
		t.Errorf("an update gets %+v", got)
	}
	if got := a.task2026("get", id); got.Result.Status != "working" {
		t.Errorf("its owner is told %+v", got)
	}
	if o.state(id).State != counterfoil.StatePending {
		t.Fatal("somebody changed it")
	}
	if got := o.upstream.calls("tasks/"); len(got) > 0 {
		t.Errorf("the upstream was asked: %+v", got)
	}

	// Clients that do not declare the extension.
	r := a.send2026("tasks/get", id, `"taskId":"`+id+`"`, meta2026, nil)
	if p := wantHTTP(t, r, http.StatusBadRequest, counterfoil.RequestMalformed); p.Error == nil || p.Error.Code != -32021 || !strings.Contains(string(p.Error.Data), `"requiredCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}`) {
		t.Errorf("a client that did not declare it is told %s", r.body)
	}
	// Routing headers are compared as everywhere.
	r = a.send2026("tasks/get", "apr_x", `"taskId":"`+id+`"`, metaTasks, nil)
	wantHTTP(t, r, http.StatusBadRequest, counterfoil.HeaderMismatch)
	r = a.post(`{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"`+id+`"}}`, nil)
	wantHTTP(t, r, http.StatusNotFound, counterfoil.ToolUnknown)
}

// TestTheExtensionIsOfferedWhereACallCanBeHeld: and an upstream's own extensions are
// not.
func TestTheExtensionIsOfferedWhereACallCanBeHeld(t *testing.T) {
	t.Parallel()
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Method") != "server/discover" {
			jsonUpstream(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"extensions":{"io.modelcontextprotocol/tasks":{"x":1},"com.example/more":{}}}}}`)
	})
	discover := func(a *actor) string {
		return a.post(`{"jsonrpc":"2.0","id":7,"method":"server/discover","params":{`+metaTasks+`}}`, func(r *http.Request) {
			r.Header.Set("MCP-Protocol-Version", rev2026)
			r.Header.Set("Mcp-Method", "server/discover")
		}).body
	}
	_, a := newOffice(t, hello, nil)
	if got := discover(a); !strings.Contains(got, `"extensions":{"io.modelcontextprotocol/tasks":{}}`) || strings.Contains(got, "com.example") {
		t.Errorf("it says %s", got)
	}
	_, a = newOffice(t, hello, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Resources["bank"].Tools = reg.Resources["bank"].Tools[:5] // what is read
	})
	if got := discover(a); strings.Contains(got, "extensions") {
		t.Errorf("where nothing is held it says %s", got)
	}
	wantHTTP(t, a.taskReply("get", "apr_"+strings.Repeat("a", 26)), http.StatusNotFound, counterfoil.ToolUnknown)
	_, a = newOffice(t, hello, func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) { cfg.Approvals = nil })
	if got := discover(a); strings.Contains(got, "extensions") {
		t.Errorf("where nobody is asked it says %s", got)
	}
	wantDenied(t, a.call2026("pay", pay100, nil), counterfoil.ApprovalRequired)
	wantHTTP(t, a.taskReply("get", "apr_"+strings.Repeat("a", 26)), http.StatusNotFound, counterfoil.ToolUnknown)
}

// TestTwoKindsOfClientsOnOneApproval: whoever asked first decides whether the gateway
// makes the call; the other waits and repeats.
func TestTwoKindsOfClientsOnOneApproval(t *testing.T) {
	t.Parallel()
	o, a := newOffice(t, nil, nil)
	plain := wantHeld(t, a.call2026("pay", pay100, nil), counterfoil.ApprovalRequired).ID
	if got := a.ask("pay", pay100, nil); got.Result.TaskID != "" || !got.Result.IsError || got.Result.Meta.Refusal.Approval.ID != plain {
		t.Errorf("a task of what nobody would make: %+v", got.Result)
	}
	held := a.ask(resetTool, `{}`, nil).Result.TaskID
	if got := wantHeld(t, a.call2026(resetTool, `{}`, nil), counterfoil.ApprovalPending); got.ID != held {
		t.Errorf("another approval: %+v", got)
	}
	o.approve(held)
	wantDone(t, a.call2026(resetTool, `{}`, nil)) // it comes before the gateway
	o.run()
	if got := a.task2026("get", held); got.Result.Status != "completed" || inner(t, got).Result.Content[0].Text != "done" {
		t.Errorf("the task is %+v", got.Result)
	}
	o.checkProof(t)
	if o.paid() != 1 {
		t.Errorf("%d went upstream", o.paid())
	}
}
