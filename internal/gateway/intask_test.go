package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

func bankTool(name string) counterfoil.ToolID {
	return counterfoil.ToolID{Resource: "bank", Tool: name}
}

// calls is how many calls a task counted.
func (w *world) calls(task string) int64 {
	w.t.Helper()
	t, ok, err := w.log.Task(w.t.Context(), task)
	if err != nil || !ok {
		w.t.Fatalf("task %s: %v, %v", task, ok, err)
	}
	return t.Calls
}

// only is a change of a task that names its tools.
func only(tools ...string) func(*counterfoil.Task) {
	return func(t *counterfoil.Task) {
		for _, name := range tools {
			t.Tools = append(t.Tools, bankTool(name))
		}
	}
}

// under is a change of a task that puts it below another.
func under(parent string, more func(*counterfoil.Task)) func(*counterfoil.Task) {
	return func(t *counterfoil.Task) {
		t.Parent = parent
		if more != nil {
			more(t)
		}
	}
}

const readResource = `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b"}}`

func TestACallIsCoveredByItsTaskAndThoseAboveIt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		begin func(*actor)
		body  string
		code  counterfoil.Code // empty: it goes through
	}{
		{"no task", func(*actor) {}, toolCall("region", `{}`), ""},
		{"a task without a list", func(a *actor) { a.begin(nil) }, toolCall("region", `{}`), ""},
		{"a task that lists it", func(a *actor) { a.begin(only("region", "typed")) }, toolCall("region", `{}`), ""},
		{"a task that does not", func(a *actor) { a.begin(only("typed")) }, toolCall("region", `{}`), counterfoil.OutsideTask},
		{"its parent lists it", func(a *actor) { a.begin(under(a.begin(only("region", "typed")), only("region"))) }, toolCall("region", `{}`), ""},
		{"its parent does not", func(a *actor) { a.begin(under(a.begin(only("typed")), only("typed"))) }, toolCall("region", `{}`), counterfoil.OutsideTask},
		{"its parent's parent does not", func(a *actor) {
			a.begin(under(a.begin(under(a.begin(only("typed")), only("typed"))), only("typed")))
		}, toolCall("region", `{}`), counterfoil.OutsideTask},
		{"resources", func(a *actor) { a.begin(only("resources")) }, readResource, ""},
		{"no resources", func(a *actor) { a.begin(only("region")) }, readResource, counterfoil.OutsideTask},
		{"what is not granted stays so", func(a *actor) { a.begin(nil) }, toolCall("list_payees", `{}`), counterfoil.ToolNotGranted},
		{"nobody is asked about what is outside", func(a *actor) { a.begin(only("region")) }, toolCall("pay", `{"amount":1}`), counterfoil.OutsideTask},
		{"a ping", func(a *actor) { a.begin(only("typed")) }, ping, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o, a := newOffice(t, nil, nil)
			tc.begin(a)
			r := a.post(tc.body, nil)
			decided := o.log.of(ledger.CallDecided)
			e := decided[len(decided)-1]
			if e.Task != a.task || e.Code != tc.code {
				t.Errorf("the record is %+v", e)
			}
			if tc.code == "" {
				wantDone(t, r)
				if want := int64(1); a.task != "" && tc.body != ping && o.calls(a.task) != want {
					t.Errorf("%d calls are counted", o.calls(a.task))
				}
				return
			}
			if r.status != http.StatusOK || !strings.Contains(r.body, `"code":"`+string(tc.code)+`"`) {
				t.Errorf("got %d %s", r.status, r.body)
			}
			if len(o.upstream.calls(`"tools/call"`))+len(o.upstream.calls(`"resources/read"`)) != 0 || o.calls(a.task) != 0 {
				t.Errorf("the upstream was called, or %d calls are counted", o.calls(a.task))
			}
		})
	}
}

func TestATaskEndsItsCalls(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(w *world, a *actor, parent string)
		code counterfoil.Code
	}{
		{"nothing happened", func(*world, *actor, string) {}, ""},
		{"it is closed", func(w *world, a *actor, _ string) { w.close(a.task) }, counterfoil.TaskClosed},
		{"its parent is", func(w *world, _ *actor, parent string) { w.close(parent) }, counterfoil.TaskClosed},
		{"its time is over", func(w *world, _ *actor, _ string) { w.clock.Advance(time.Hour) }, counterfoil.TaskClosed},
		{"it never was", func(_ *world, a *actor, _ string) { a.task = "tsk_never" }, counterfoil.TaskClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			parent := a.begin(nil)
			a.begin(under(parent, nil))
			wantDone(t, a.post(toolCall("region", `{}`), nil))
			tc.end(w, a, parent)
			r := a.post(toolCall("region", `{}`), nil)
			want := 1
			if tc.code == "" {
				wantDone(t, r)
				want = 2
			} else {
				wantHTTP(t, r, http.StatusUnauthorized, tc.code)
			}
			if got := len(w.upstream.calls("tools/call")); got != want {
				t.Errorf("the upstream saw %d calls", got)
			}
		})
	}
}

// TestWithoutTasksNoCallIsInOne: what cannot be looked up is closed.
func TestWithoutTasksNoCallIsInOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) { cfg.Tasks = nil })
	a := w.actor("payroll")
	wantDone(t, a.post(toolCall("region", `{}`), nil))
	a.begin(nil)
	wantHTTP(t, a.post(toolCall("region", `{}`), nil), http.StatusUnauthorized, counterfoil.TaskClosed)
}

func TestATaskCountsWhatRuns(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	parent := a.begin(func(t *counterfoil.Task) { t.MaxCalls = 3 })
	child := a.begin(under(parent, func(t *counterfoil.Task) { t.MaxCalls = 2 }))
	// What is no call, and what is refused, is not counted.
	wantDone(t, a.post(ping, nil))
	wantDone(t, a.post(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, nil))
	wantDenied(t, a.post(toolCall("wipe", `{}`), nil), counterfoil.ClassForbidden)
	wantDone(t, a.post(toolCall("region", `{}`), nil))
	wantDone(t, a.post(readResource, nil))
	wantDenied(t, a.post(toolCall("region", `{}`), nil), counterfoil.LimitExceeded)
	if w.calls(child) != 2 || w.calls(parent) != 2 {
		t.Errorf("%d and %d calls are counted", w.calls(child), w.calls(parent))
	}
	// What its children use is the parent's, too.
	a.task = parent
	wantDone(t, a.post(toolCall("region", `{}`), nil))
	wantDenied(t, a.post(toolCall("region", `{}`), nil), counterfoil.LimitExceeded)
	a.begin(under(parent, nil))
	wantDenied(t, a.post(toolCall("region", `{}`), nil), counterfoil.LimitExceeded)
	if got := len(w.upstream.calls("tools/call")); got != 2 {
		t.Errorf("the upstream saw %d calls", got)
	}
}

// TestOfManyCallsATaskLetsItsNumberThrough: the limit is counted where it is decided.
func TestOfManyCallsATaskLetsItsNumberThrough(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	task := a.begin(func(t *counterfoil.Task) { t.MaxCalls = 7 })
	var all sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 40 {
		all.Go(func() {
			if r := a.post(toolCall("region", `{}`), nil); strings.Contains(r.body, `"text":"done"`) {
				mu.Lock()
				defer mu.Unlock()
				done++
			}
		})
	}
	all.Wait()
	if got := len(w.upstream.calls("tools/call")); got != 7 || done != 7 || w.calls(task) != 7 {
		t.Errorf("%d went upstream, %d were done, %d are counted", got, done, w.calls(task))
	}
}

// summing is a world with two tools that have a number, of a class that the actor's task
// limits.
func summing(t *testing.T, max int64) (*world, *actor, string) {
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(reg *counterfoil.Registry, _ *gateway.Config) {
		tools := reg.Resources["bank"].Tools
		for i := range tools {
			switch tools[i].Name {
			case "region":
				tools[i].Fields = map[string]string{"amount": "/deep/n"}
			case "get_balance":
				tools[i].Fields = map[string]string{"amount": "/amount"}
			}
		}
	})
	a := w.actor("payroll")
	task := a.begin(func(t *counterfoil.Task) {
		t.Limits = []counterfoil.TaskLimit{{Class: "read", Sum: "amount", Max: max}}
	})
	return w, a, task
}

func TestATaskSumsAField(t *testing.T) {
	t.Parallel()
	w, a, task := summing(t, 10_0000)
	call := func(arguments string) reply { return a.post(toolCall("get_balance", arguments), nil) }
	amount := func(n string) string { return `{"amount":` + n + `}` }
	wantDone(t, call(amount("7.5")))
	wantDenied(t, call(amount("2.5001")), counterfoil.LimitExceeded)
	wantDone(t, call(amount("2.5")))
	wantDenied(t, call(amount("0.0001")), counterfoil.LimitExceeded)
	wantDone(t, call(amount("0")))
	// What cannot be summed is refused, and gives nothing back.
	for _, arguments := range []string{`{}`, amount("-5"), amount(`"1"`), amount("0.00001"), amount("null"), amount(`{"x":1}`), `{"Amount":1}`} {
		if r := call(arguments); !strings.Contains(r.body, `"code":"limit_exceeded"`) {
			t.Errorf("%s got %d %s", arguments, r.status, r.body)
		}
	}
	if task, _, err := w.log.Task(t.Context(), task); err != nil || task.Limits[0].Used != 10_0000 || task.Calls != 3 {
		t.Errorf("used is %+v, %v", task, err)
	}
	if got := len(w.upstream.calls("tools/call")); got != 3 {
		t.Errorf("the upstream saw %d calls", got)
	}
	// Of a tool of the class that has no such field there is nothing to sum.
	wantDenied(t, a.post(toolCall("typed", `{}`), nil), counterfoil.LimitExceeded)
	a.task = ""
	wantDone(t, a.post(toolCall("typed", `{}`), nil))
}

// TestWhatATaskSumsIsJudged is TP19: a name that the tool does not know must not hide
// what is summed.
func TestWhatATaskSumsIsJudged(t *testing.T) {
	t.Parallel()
	_, a, _ := summing(t, 10_0000)
	const alias = `{"deep":{"n":1},"amt":9}`
	if r := a.post(toolCall("region", alias), nil); !strings.Contains(r.body, "counterfoil/refusal") && r.status != http.StatusBadRequest {
		t.Errorf("got %d %s", r.status, r.body)
	}
	wantDone(t, a.post(toolCall("region", `{"deep":{"n":1}}`), nil))
	a.begin(nil) // nothing is summed in this one
	wantDone(t, a.post(toolCall("region", alias), nil))
}

func TestListsShowWhatTheTaskIncludes(t *testing.T) {
	t.Parallel()
	w, a := bankWorld(t)
	shown := func() string {
		r := a.post(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, nil)
		var names []string
		for _, name := range []string{"get_balance", "list_payees", "region", "typed", "pay", "hidden"} {
			if strings.Contains(r.body, `"name":"`+name+`"`) {
				names = append(names, name)
			}
		}
		return strings.Join(names, " ")
	}
	for _, tc := range []struct {
		begin func()
		want  string
	}{
		{func() {}, "get_balance region typed pay"},
		{func() { a.begin(nil) }, "get_balance region typed pay"},
		{func() { a.begin(only("region", "pay", "list_payees")) }, "region pay"},
		{func() { a.begin(under(a.begin(only("region", "pay")), only("region"))) }, "region"},
	} {
		tc.begin()
		if got := shown(); got != tc.want {
			t.Errorf("it sees %q, want %q", got, tc.want)
		}
	}
	// Each of these lists is all or nothing.
	a.begin(only("region"))
	for method, list := range map[string]string{"resources/list": "resources", "resources/templates/list": "resourceTemplates", "prompts/list": "prompts"} {
		w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":1,"result":{%q:[{"name":"x"}]}}`, list)
		}))
		body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `"}`
		if r := a.post(body, nil); !strings.Contains(r.body, `"`+list+`":[]`) {
			t.Errorf("%s outside the task shows %s", method, r.body)
		}
		task := a.task
		a.begin(nil)
		if r := a.post(body, nil); strings.Contains(r.body, `[]`) {
			t.Errorf("%s shows %s", method, r.body)
		}
		a.task = task
	}
}

// TestAGuardedCallCountsWhereItIsSpent: nobody's yes takes the task's limit away.
func TestAGuardedCallCountsWhereItIsSpent(t *testing.T) {
	t.Parallel()
	o, a := newOffice(t, nil, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
		tools := reg.Resources["bank"].Tools
		for i := range tools {
			if tools[i].Name == "pay" {
				tools[i].Fields = map[string]string{"amount": "/amount"}
			}
		}
	})
	task := a.begin(func(t *counterfoil.Task) {
		t.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: 150_0000}}
	})
	asked := func(key string) string {
		id := wantHeld(t, a.call2026("pay", `{"amount":100}`, keyed(key)), counterfoil.ApprovalRequired).ID
		o.approve(id)
		return id
	}
	first, second := asked("a"), asked("b")
	wantDone(t, a.call2026("pay", `{"amount":100}`, keyed("a")))
	wantDenied(t, a.call2026("pay", `{"amount":100}`, keyed("b")), counterfoil.LimitExceeded)
	if o.state(first).State != counterfoil.StateSucceeded || o.state(second).State != counterfoil.StateApproved {
		t.Errorf("they are %s and %s", o.state(first).State, o.state(second).State)
	}
	if got, _, err := o.log.Task(t.Context(), task); err != nil || got.Limits[0].Used != 100_0000 || got.Calls != 1 {
		t.Errorf("used is %+v, %v", got, err)
	}
	o.checkProof(t)
	if o.paid() != 1 {
		t.Errorf("%d were paid", o.paid())
	}
}

// TestATaskThatClosesInBetween: a task that ends after its call was decided, and before
// it was forwarded, is seen by the last look; one that ends before is seen where the
// call is decided.
func TestATaskThatClosesInBetween(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{false, true} {
		t.Run(fmt.Sprintf("guarded %v", guarded), func(t *testing.T) {
			t.Parallel()
			var o *office
			var a *actor
			spent := func() {}
			o, a = newOffice(t, nil, func(o *office, _ *counterfoil.Registry, cfg *gateway.Config) {
				o.engine = engineOn(t, afterSpending{cfg.Recorder.(*log), func() { spent() }}, cfg)
				cfg.Approvals = o.engine
			})
			call := func() reply { return a.call2026("region", `{}`, nil) }
			if guarded {
				call = func() reply { return a.call2026("pay", pay100, nil) }
			}
			ask := func() {
				a.begin(nil)
				if guarded {
					o.approve(wantHeld(t, call(), counterfoil.ApprovalRequired).ID)
				}
			}
			ask()
			wantDone(t, call())
			before := len(o.upstream.calls("tools/call"))
			ask()
			task := a.task
			end := func() { o.close(task) }
			if guarded {
				spent = end
			} else {
				o.log.decided = func(*ledger.Entry) { end() }
			}
			wantHTTP(t, call(), http.StatusUnauthorized, counterfoil.TaskClosed)
			o.log.decided, spent = nil, func() {}
			if got := len(o.upstream.calls("tools/call")); got != before {
				t.Errorf("%d calls went upstream", got-before)
			}
			ends := o.log.of(ledger.CallFinished)
			if e := ends[len(ends)-1]; e.Outcome != "not_forwarded" || e.Code != counterfoil.TaskClosed {
				t.Errorf("the end is %+v", e)
			}
		})
	}
}

// afterSpending is a store that does something after an approval is spent.
type afterSpending struct {
	*log
	then func()
}

func (s afterSpending) SpendApproval(ctx context.Context, sp counterfoil.Spending, e *ledger.Entry, payload []byte) error {
	err := s.log.SpendApproval(ctx, sp, e, payload)
	if err == nil {
		s.then()
	}
	return err
}

// TestAJobThatStartsAnewGoesOn is RTY-01, RTY-03 and RTY-06: the task is the agent's, not
// a process's. Whoever of its instances comes next, with another key and a token of
// today, goes on with what was asked for, and it runs once.
func TestAJobThatStartsAnewGoesOn(t *testing.T) {
	t.Parallel()
	o, first := newOffice(t, nil, nil)
	task := first.begin(nil)
	id := wantHeld(t, first.call2026("pay", pay100, keyed("payday")), counterfoil.ApprovalRequired).ID
	o.clock.Advance(6 * time.Minute) // its token is over by now

	second := o.clerk("payroll")
	second.task = task
	if again := wantHeld(t, second.call2026("pay", pay100, keyed("payday")), counterfoil.ApprovalPending); again.ID != id {
		t.Errorf("it asks anew: %+v", again)
	}
	o.approve(id)
	sent := second.request(http.MethodPost, toolCall("pay", pay100), keyed("payday"))
	replayed := sent.Clone(sent.Context())
	replayed.Body = io.NopCloser(strings.NewReader(toolCall("pay", pay100)))
	wantDone(t, second.do(sent))
	wantHTTP(t, second.do(replayed), http.StatusUnauthorized, counterfoil.ProofReplayed)
	for _, a := range []*actor{first, second} {
		if r := read(t, a.call2026("pay", pay100, keyed("payday"))); r.Result.Meta.Refusal == nil || r.Result.Meta.Refusal.Code != counterfoil.ApprovalSpent || r.Result.Content[0].Text != "done" {
			t.Errorf("a repeat gets %+v", r.Result)
		}
	}
	// In another task, and in none, it is another call.
	other := o.clerk("payroll")
	wantHeld(t, other.call2026("pay", pay100, keyed("payday")), counterfoil.ApprovalRequired)
	other.begin(nil)
	wantHeld(t, other.call2026("pay", pay100, keyed("payday")), counterfoil.ApprovalRequired)
	if o.paid() != 1 || o.calls(task) != 1 {
		t.Errorf("%d were paid, %d calls are counted", o.paid(), o.calls(task))
	}
	o.checkProof(t)
}
