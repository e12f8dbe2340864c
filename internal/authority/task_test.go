package authority_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

// A task is what was asked for, cut to what is allowed, and the log says it.
func TestOpenTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.caller("payroll", "")
	task := w.open(c, authority.TaskRequest{
		Purpose: "pay everybody", Tools: []string{"bank/pay", "shop/order"}, ExpiresIn: 5 * time.Hour, MaxCalls: 1000,
		Limits: []authority.TaskLimitRequest{{Class: "payout", Max: "3"}}, Source: somewhere, RequestID: "req_1",
	})
	if task.Agent != "payroll" || task.Opener != "payroll" || task.State != counterfoil.TaskOpen || task.MaxCalls != 100 ||
		!task.Deadline.Equal(w.clock.Now().Add(2*time.Hour)) || task.Instance != c.Instance {
		t.Errorf("task %+v", task)
	}
	if kept, err := w.a.TaskOf(t.Context(), c, task.ID); err != nil || fmt.Sprint(kept) != fmt.Sprint(task) {
		t.Errorf("kept is %+v (%v), returned was %+v", kept, err, task)
	}
	e := w.last(ledger.TaskOpened)
	if e.Agent != "payroll" || e.Owner != "ana" || e.Task != task.ID || e.Instance != c.Instance || e.JKT != c.JKT || e.TokenJTI != c.TokenID ||
		e.RequestID != "req_1" || e.Source.Address != somewhere.String() || e.Proof != "" || e.Detail["purpose"] != "pay everybody" ||
		fmt.Sprint(e.Detail["tools"]) != "[bank/pay shop/order]" || fmt.Sprint(e.Detail["max_calls"]) != "100" {
		t.Errorf("entry %+v", e)
	}
	for name, tt := range map[string]struct {
		req  authority.TaskRequest
		code counterfoil.Code
	}{
		"no purpose":             {authority.TaskRequest{}, counterfoil.RequestMalformed},
		"a purpose of two lines": {authority.TaskRequest{Purpose: "a\nb"}, counterfoil.RequestMalformed},
		"a tool not granted":     {authority.TaskRequest{Purpose: "x", Tools: []string{"shop/list"}}, counterfoil.ToolNotGranted},
		"for nobody":             {authority.TaskRequest{Purpose: "x", Agent: "nobody"}, counterfoil.ToolUnknown},
		"for one it may not":     {authority.TaskRequest{Purpose: "x", Agent: "planner"}, counterfoil.ToolUnknown},
		"below nothing":          {authority.TaskRequest{Purpose: "x", Parent: "tsk_" + strings.Repeat("a", 26)}, counterfoil.TaskClosed},
		"below what is no id":    {authority.TaskRequest{Purpose: "x", Parent: "x"}, counterfoil.TaskClosed},
		"for itself, by name":    {authority.TaskRequest{Purpose: "x", Agent: "payroll"}, ""},
	} {
		before := len(w.entries(ledger.TaskOpened))
		_, err := w.a.OpenTask(t.Context(), c, tt.req)
		wantCode(t, name, err, tt.code)
		if opened := len(w.entries(ledger.TaskOpened)) > before; opened != (tt.code == "") {
			t.Errorf("%s: a task is recorded: %v", name, opened)
		}
	}
}

// An orchestrator opens tasks for those whose manifest names it, and nothing of its own
// comes with that.
func TestOrchestrators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	planner, payroll, stranger := w.caller("planner", ""), w.caller("payroll", ""), w.caller("stranger", "")
	_, err := w.a.OpenTask(t.Context(), stranger, authority.TaskRequest{Purpose: "x", Agent: "payroll"})
	wantCode(t, "a stranger for payroll", err, counterfoil.ToolUnknown)
	own := w.open(planner, authority.TaskRequest{Tools: []string{"bank/get_balance"}, ExpiresIn: time.Minute})
	_, err = w.a.OpenTask(t.Context(), planner, authority.TaskRequest{Purpose: "x", Agent: "payroll", Parent: own.ID, Tools: []string{"bank/pay"}})
	wantCode(t, "more than its own task", err, counterfoil.OutsideTask)
	_, err = w.a.OpenTask(t.Context(), planner, authority.TaskRequest{Purpose: "x", Agent: "payroll", Tools: []string{"shop/list"}})
	wantCode(t, "more than payroll may", err, counterfoil.ToolNotGranted)
	below := w.open(planner, authority.TaskRequest{Agent: "payroll", Parent: own.ID})
	if fmt.Sprint(below.Tools) != "[bank/get_balance]" || !below.Deadline.Equal(own.Deadline) || below.Agent != "payroll" || below.Opener != "planner" {
		t.Errorf("below it: %+v", below)
	}
	alone := w.open(planner, authority.TaskRequest{Agent: "payroll", Tools: []string{"bank/pay"}})
	if e := w.last(ledger.TaskOpened); e.Agent != "payroll" || e.Owner != "ana" || e.Instance != "" || e.Detail["opener"] != "planner" ||
		!strings.Contains(fmt.Sprint(e.Detail["by"]), planner.Instance) {
		t.Errorf("entry %+v", e)
	}
	if _, err := w.ask("payroll", "bank", url.Values{"task": {alone.ID}}); err != nil {
		t.Errorf("who works in it: %v", err)
	}
	_, err = w.ask("planner", "bank", url.Values{"task": {alone.ID}})
	wantCode(t, "who opened it", err, counterfoil.TaskClosed)
	// Below a task that it opened for payroll; not below payroll's own, nor a stranger's.
	w.open(planner, authority.TaskRequest{Agent: "payroll", Parent: alone.ID})
	_, err = w.a.OpenTask(t.Context(), planner, authority.TaskRequest{Purpose: "x", Agent: "payroll", Parent: w.open(payroll, authority.TaskRequest{}).ID})
	wantCode(t, "below payroll's own", err, counterfoil.TaskClosed)
	_, err = w.a.OpenTask(t.Context(), planner, authority.TaskRequest{Purpose: "x", Parent: alone.ID})
	wantCode(t, "its own task below payroll's", err, counterfoil.TaskClosed)
	_, err = w.a.OpenTask(t.Context(), stranger, authority.TaskRequest{Purpose: "x", Parent: alone.ID})
	wantCode(t, "a stranger below it", err, counterfoil.TaskClosed)

	// Who sees and ends it: who works in it and who opened it.
	for name, tt := range map[string]struct {
		c    counterfoil.Caller
		code counterfoil.Code
	}{"payroll": {payroll, ""}, "planner": {planner, ""}, "stranger": {stranger, counterfoil.ToolUnknown}} {
		_, err := w.a.TaskOf(t.Context(), tt.c, alone.ID)
		wantCode(t, name+" sees", err, tt.code)
		if tt.code != "" {
			_, err = w.a.EndTask(t.Context(), tt.c, alone.ID, true, "")
			wantCode(t, name+" ends", err, tt.code)
		}
	}
	ended, err := w.a.EndTask(t.Context(), planner, alone.ID, false, "not needed")
	if err != nil || ended.State != counterfoil.TaskCancelled || ended.Reason != "not needed" {
		t.Errorf("%+v (%v)", ended, err)
	}
	if _, err := w.a.Suspend(t.Context(), "payroll", "", "uid:7"); err != nil {
		t.Fatal(err)
	}
	_, err = w.a.OpenTask(t.Context(), planner, authority.TaskRequest{Purpose: "x", Agent: "payroll"})
	wantCode(t, "for a suspended agent", err, counterfoil.ToolUnknown)
	if _, err = w.a.Resume(t.Context(), "payroll", nil, "", "uid:7"); err != nil {
		t.Fatal(err)
	}
	w.open(planner, authority.TaskRequest{Agent: "payroll"})
}

// A caller whose token is of a task sees, opens and ends that one and those below.
func TestTokensOfTasksStayInThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	free := w.caller("payroll", "")
	mine := w.open(free, authority.TaskRequest{Tools: []string{"bank/get_balance"}})
	other := w.open(free, authority.TaskRequest{})
	inside := w.caller("payroll", mine.ID)
	if inside.Task != mine.ID {
		t.Fatalf("the caller is of task %q", inside.Task)
	}
	child := w.open(inside, authority.TaskRequest{})
	if child.Parent != mine.ID || fmt.Sprint(child.Tools) != "[bank/get_balance]" {
		t.Errorf("opened inside: %+v", child)
	}
	grandchild := w.open(inside, authority.TaskRequest{Parent: child.ID})
	for name, tt := range map[string]struct {
		parent string
		code   counterfoil.Code
	}{
		"its own": {mine.ID, ""}, "below it": {grandchild.ID, ""}, "another": {other.ID, counterfoil.OutsideTask},
		"one that is not there": {"tsk_x", counterfoil.OutsideTask},
	} {
		_, err := w.a.OpenTask(t.Context(), inside, authority.TaskRequest{Purpose: "x", Parent: tt.parent})
		wantCode(t, "below "+name, err, tt.code)
		if name != "one that is not there" {
			_, err = w.a.OpenTask(t.Context(), free, authority.TaskRequest{Purpose: "x", Parent: tt.parent})
			wantCode(t, "with a token of no task, below "+name, err, "")
		}
	}
	_, err := w.a.OpenTask(t.Context(), inside, authority.TaskRequest{Purpose: "x", Tools: []string{"bank/pay"}})
	wantCode(t, "more tools than it", err, counterfoil.OutsideTask)
	for name, tt := range map[string]struct {
		id   string
		code counterfoil.Code
	}{"its own": {mine.ID, ""}, "a child": {child.ID, ""}, "a grandchild": {grandchild.ID, ""}, "another": {other.ID, counterfoil.ToolUnknown}} {
		_, err := w.a.TaskOf(t.Context(), inside, tt.id)
		wantCode(t, "sees "+name, err, tt.code)
		_, err = w.a.TaskOf(t.Context(), free, tt.id)
		wantCode(t, "with a token of no task, sees "+name, err, "")
		if tt.code != "" {
			_, err = w.a.EndTask(t.Context(), inside, tt.id, true, "")
			wantCode(t, "ends "+name, err, tt.code)
		}
	}
	seen, err := w.a.TasksOf(t.Context(), inside)
	all, err2 := w.a.TasksOf(t.Context(), free)
	if err != nil || err2 != nil || len(seen) != 7 || len(all) != 9 || slices.ContainsFunc(seen, func(t counterfoil.Task) bool { return t.ID == other.ID }) {
		t.Errorf("inside %d tasks are seen, outside %d (%v, %v)", len(seen), len(all), err, err2)
	}
	// One that closed with its parent is still below it.
	if _, err := w.a.EndTask(t.Context(), inside, child.ID, true, ""); err != nil {
		t.Fatal(err)
	}
	got, err := w.a.TaskOf(t.Context(), inside, grandchild.ID)
	if err != nil || got.State != counterfoil.TaskRevoked {
		t.Errorf("a grandchild whose parent was completed: %+v (%v)", got, err)
	}
	// And its own is its own to end.
	if _, err := w.a.EndTask(t.Context(), inside, mine.ID, true, ""); err != nil {
		t.Error(err)
	}
}

// Tasks are so deep and no deeper.
func TestTaskDepth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, parent := w.caller("payroll", ""), ""
	for range counterfoil.MaxTaskDepth {
		parent = w.open(c, authority.TaskRequest{Parent: parent}).ID
	}
	_, err := w.a.OpenTask(t.Context(), c, authority.TaskRequest{Purpose: "x", Parent: parent})
	wantCode(t, "one deeper", err, counterfoil.LimitExceeded)
	if _, err := w.ask("payroll", "bank", url.Values{"task": {parent}}); err != nil {
		t.Errorf("a token of the deepest: %v", err)
	}
}

// A token of a task is for what the agent, the task and every task above it have, and
// no longer than the task.
func TestTokensOfTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.caller("payroll", "")
	top := w.open(c, authority.TaskRequest{Tools: []string{"bank/get_balance", "bank/pay"}, ExpiresIn: 2 * time.Minute})
	low := w.open(c, authority.TaskRequest{Parent: top.ID, Tools: []string{"bank/get_balance"}})
	elsewhere := w.open(c, authority.TaskRequest{Tools: []string{"shop/order"}})
	foreign := w.open(w.caller("stranger", ""), authority.TaskRequest{})
	ended := w.open(c, authority.TaskRequest{})
	if _, err := w.a.EndTask(t.Context(), c, ended.ID, true, ""); err != nil {
		t.Fatal(err)
	}
	detail := func(tool string) string {
		return `[{"type":"` + counterfoil.DetailType + `","locations":["` + issuer + `/r/bank"],"tool":"` + tool + `"}]`
	}
	for _, tt := range []struct {
		name, task, res string
		more            url.Values
		scope           string
		code            counterfoil.Code
	}{
		{"all of no task", "", "bank", nil, "get_balance pay", ""},
		{"all of it", top.ID, "bank", nil, "get_balance pay", ""},
		{"all of a narrow one", low.ID, "bank", nil, "get_balance", ""},
		{"what it has", low.ID, "bank", url.Values{"scope": {"get_balance"}}, "get_balance", ""},
		{"what it lacks", low.ID, "bank", url.Values{"scope": {"pay"}}, "", counterfoil.ScopeInvalid},
		{"one of each", low.ID, "bank", url.Values{"scope": {"get_balance pay"}}, "", counterfoil.ScopeInvalid},
		{"what its parent has, in details", top.ID, "bank", url.Values{"authorization_details": {detail("pay")}}, "pay", ""},
		{"what it lacks, in details", low.ID, "bank", url.Values{"authorization_details": {detail("pay")}}, "", counterfoil.DetailsInvalid},
		{"what is not granted", top.ID, "bank", url.Values{"scope": {"sweep"}}, "", counterfoil.ScopeInvalid},
		{"a resource that it has nothing of", elsewhere.ID, "bank", nil, "", counterfoil.TargetInvalid},
		{"the one that it has", elsewhere.ID, "shop", nil, "order", ""},
		{"the issuer", low.ID, "", nil, "", ""},
		{"another's", foreign.ID, "bank", nil, "", counterfoil.TaskClosed},
		{"another's, at the issuer", foreign.ID, "", nil, "", counterfoil.TaskClosed},
		{"one that ended", ended.ID, "bank", nil, "", counterfoil.TaskClosed},
		{"one that never was", "tsk_" + strings.Repeat("a", 26), "bank", nil, "", counterfoil.TaskClosed},
		{"nonsense", "x", "bank", nil, "", counterfoil.TaskClosed},
	} {
		more := url.Values{}
		for k, v := range tt.more {
			more[k] = v
		}
		if tt.task != "" {
			more.Set("task", tt.task)
		}
		token, err := w.ask("payroll", tt.res, more)
		wantCode(t, tt.name, err, tt.code)
		if token.Scope != tt.scope {
			t.Errorf("%s: scope %q, want %q", tt.name, token.Scope, tt.scope)
		}
		if err != nil {
			if e := w.last(ledger.TokenRefused); e.Code != tt.code || e.Agent != "payroll" {
				t.Errorf("%s: entry %+v", tt.name, e)
			}
			continue
		}
		read, err := w.door.Inspect(t.Context(), token.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		if tt.task == "" {
			if read.Task != nil {
				t.Errorf("%s: the token is of task %v", tt.name, read.Task)
			}
			continue
		}
		kept, _ := w.store.LiveTask(tt.task)
		if read.Task == nil || read.Task.ID != tt.task || !read.Task.Expires.Equal(kept.Deadline) || read.Expires.After(kept.Deadline) {
			t.Errorf("%s: task claim %v, exp %v, the task ends at %v", tt.name, read.Task, read.Expires, kept.Deadline)
		}
		if e := w.last(ledger.TokenIssued); e.Task != tt.task {
			t.Errorf("%s: the entry is of task %q", tt.name, e.Task)
		}
	}
	// A token ends with its task.
	w.clock.Advance(90 * time.Second)
	token := w.mustAsk("payroll", "bank", url.Values{"task": {low.ID}})
	if token.ExpiresIn != 30 {
		t.Errorf("a token of a task that has 30 seconds left is for %d", token.ExpiresIn)
	}
	if token := w.mustAsk("payroll", "bank", nil); token.ExpiresIn != 300 {
		t.Errorf("of no task: %d", token.ExpiresIn)
	}
	// At its very deadline, before anybody closed it.
	w.clock.Advance(30 * time.Second)
	_, err := w.ask("payroll", "bank", url.Values{"task": {low.ID}})
	wantCode(t, "past its deadline", err, counterfoil.TaskClosed)
	_, err = w.a.OpenTask(t.Context(), c, authority.TaskRequest{Purpose: "x", Parent: top.ID})
	wantCode(t, "below one past its deadline", err, counterfoil.TaskClosed)
}

// An agent that works in tasks only gets the one token that opens one, and those of
// tasks.
func TestTasksRequired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.ask("payroll", "bank", nil); err != nil {
		t.Fatal(err)
	}
	w.mustApply(w.a, strings.Replace(agents, "tasks: {max", "tasks: {required: true, max", 1))
	_, err := w.ask("payroll", "bank", nil)
	wantCode(t, "of no task", err, counterfoil.TaskClosed)
	task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
	if _, err := w.ask("payroll", "bank", url.Values{"task": {task.ID}}); err != nil {
		t.Errorf("of a task: %v", err)
	}
}

// Any instance of the agent goes on with an open task: that is how a job that was
// killed resumes.
func TestAnotherInstanceResumesATask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
	first := w.keys["payroll"]
	w.keys["payroll"] = w.newSigner()
	w.enrol(w.a, "payroll", w.keys["payroll"])
	token := w.mustAsk("payroll", "bank", url.Values{"task": {task.ID}})
	c, err := w.use(token.AccessToken, "bank", w.keys["payroll"])
	if inst, _ := w.store.InstanceByKey(first.Public().Thumbprint()); err != nil || c.Task != task.ID || c.Instance == inst.ID {
		t.Errorf("%+v (%v)", c, err)
	}
}

// A task ends once, with everything that hangs on it, and never opens again.
func TestEndTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.caller("payroll", "")
	for _, tt := range []struct {
		name string
		end  func(id string) (counterfoil.Task, error)
		want counterfoil.TaskState
	}{
		{"completed", func(id string) (counterfoil.Task, error) { return w.a.EndTask(t.Context(), c, id, true, "done") }, counterfoil.TaskCompleted},
		{"cancelled", func(id string) (counterfoil.Task, error) { return w.a.EndTask(t.Context(), c, id, false, "done") }, counterfoil.TaskCancelled},
		{"by an administrator", func(id string) (counterfoil.Task, error) { return w.a.CancelTask(t.Context(), id, "done", "uid:7") }, counterfoil.TaskCancelled},
	} {
		task := w.open(c, authority.TaskRequest{})
		below := w.open(c, authority.TaskRequest{Parent: task.ID})
		token := w.mustAsk("payroll", "bank", url.Values{"task": {below.ID}}).AccessToken
		use := func() error { _, err := w.use(token, "bank", w.keys["payroll"]); return err }
		wantCode(t, tt.name+": before", use(), "")
		_, err := tt.end("tsk_" + strings.Repeat("a", 26))
		wantCode(t, tt.name+": another", err, counterfoil.ToolUnknown)
		got, err := tt.end(task.ID)
		if err != nil || got.State != tt.want || got.Reason != "done" || got.Closed.IsZero() {
			t.Errorf("%s: %+v (%v)", tt.name, got, err)
		}
		wantCode(t, tt.name+": a token below", use(), counterfoil.TaskClosed)
		for _, id := range []string{task.ID, below.ID} {
			_, err = w.ask("payroll", "bank", url.Values{"task": {id}})
			wantCode(t, tt.name+": a new token", err, counterfoil.TaskClosed)
			_, err = tt.end(id)
			wantCode(t, tt.name+": again", err, counterfoil.TaskClosed)
		}
		e := w.last(ledger.TaskClosed)
		if e.Task != task.ID || e.Agent != "payroll" || e.Owner != "ana" || e.Reason != "done" || e.Detail["state"] != string(tt.want) ||
			!strings.Contains(fmt.Sprint(e.Detail["tasks"]), below.ID) || (e.Actor == "uid:7") != (tt.name == "by an administrator") {
			t.Errorf("%s: entry %+v", tt.name, e)
		}
	}
	_, err := w.a.EndTask(t.Context(), c, w.open(c, authority.TaskRequest{}).ID, true, "a\x00b")
	wantCode(t, "a reason that cannot be seen", err, counterfoil.RequestMalformed)
}

// What is past its deadline is closed, with what is below it, once.
func TestTasksExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.caller("payroll", "")
	short := w.open(c, authority.TaskRequest{ExpiresIn: time.Minute})
	below := w.open(c, authority.TaskRequest{Parent: short.ID})
	long := w.open(c, authority.TaskRequest{})
	state := func(id string) counterfoil.TaskState {
		task, err := w.a.Task(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return task.State
	}
	w.clock.Advance(time.Minute - time.Millisecond)
	if err := w.a.ExpireTasks(t.Context()); err != nil || state(short.ID) != counterfoil.TaskOpen {
		t.Fatalf("before its deadline: %v (%v)", state(short.ID), err)
	}
	listed := func(of counterfoil.TaskState) (ids []string) {
		tasks, err := w.a.Tasks(t.Context(), counterfoil.TaskFilter{Agent: "payroll", State: of})
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			ids = append(ids, task.ID)
		}
		slices.Sort(ids)
		return ids
	}
	ended, all := []string{short.ID, below.ID}, []string{short.ID, below.ID, long.ID}
	slices.Sort(ended)
	slices.Sort(all)
	if got := listed(counterfoil.TaskOpen); !slices.Equal(got, all) || listed(counterfoil.TaskExpired) != nil {
		t.Errorf("before its deadline %v are open", got)
	}
	w.clock.Advance(time.Millisecond)
	// Nobody closed it yet, and it is shown as what it is.
	if got, err := w.a.TaskOf(t.Context(), c, short.ID); err != nil || got.State != counterfoil.TaskExpired || !got.Closed.Equal(short.Deadline) || state(below.ID) != counterfoil.TaskExpired || state(long.ID) != counterfoil.TaskOpen {
		t.Errorf("at its deadline: %+v (%v)", got, err)
	}
	own, err := w.a.TasksOf(t.Context(), c)
	if err != nil || len(own) != 3 {
		t.Errorf("its tasks: %+v (%v)", own, err)
	}
	for _, task := range own {
		if (task.State == counterfoil.TaskOpen) != (task.ID == long.ID) {
			t.Errorf("%s is %s", task.ID, task.State)
		}
	}
	if got := listed(counterfoil.TaskOpen); !slices.Equal(got, []string{long.ID}) || !slices.Equal(listed(counterfoil.TaskExpired), ended) || !slices.Equal(listed(""), all) {
		t.Errorf("open: %v, expired: %v, all: %v", got, listed(counterfoil.TaskExpired), listed(""))
	}
	_, err = w.a.EndTask(t.Context(), c, short.ID, true, "")
	wantCode(t, "completing one past its deadline", err, counterfoil.TaskClosed)
	for range 2 {
		if err := w.a.ExpireTasks(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if a, b, c := state(short.ID), state(below.ID), state(long.ID); a != counterfoil.TaskExpired || b != counterfoil.TaskRevoked || c != counterfoil.TaskOpen {
		t.Errorf("the tasks are %s, %s and %s", a, b, c)
	}
	if got := w.entries(ledger.TaskClosed); len(got) != 1 || got[0].Task != short.ID || got[0].Detail["state"] != string(counterfoil.TaskExpired) {
		t.Errorf("entries %+v", got)
	}
}

// Suspending an agent ends its tasks and those that it opened for others, and resuming
// it revives none.
func TestTasksEndWithTheirAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	own := w.open(w.caller("planner", ""), authority.TaskRequest{})
	forOther := w.open(w.caller("planner", ""), authority.TaskRequest{Agent: "payroll"})
	others := w.open(w.caller("payroll", ""), authority.TaskRequest{})
	token := w.mustAsk("payroll", "bank", url.Values{"task": {forOther.ID}}).AccessToken
	if _, err := w.use(token, "bank", w.keys["payroll"]); err != nil {
		t.Fatal(err)
	}
	voided, err := w.a.Suspend(t.Context(), "planner", "", "uid:7")
	if err != nil || !slices.Contains(voided.Tasks, own.ID) || !slices.Contains(voided.Tasks, forOther.ID) || len(voided.Tasks) != 2 {
		t.Fatalf("voided %+v (%v)", voided, err)
	}
	if _, err := w.a.Resume(t.Context(), "planner", nil, "", "uid:7"); err != nil {
		t.Fatal(err)
	}
	_, err = w.use(token, "bank", w.keys["payroll"])
	wantCode(t, "a token of the task that it opened", err, counterfoil.TaskClosed)
	for _, id := range []string{own.ID, forOther.ID} {
		if task, err := w.a.Task(t.Context(), id); err != nil || task.State != counterfoil.TaskRevoked {
			t.Errorf("%+v (%v)", task, err)
		}
	}
	if task, err := w.a.Task(t.Context(), others.ID); err != nil || task.State != counterfoil.TaskOpen {
		t.Errorf("another's own: %+v (%v)", task, err)
	}
}

// However many tasks end at once, a round closes so many, so that what else is due
// waits no longer for them; the next goes on, and those below one end with it.
func TestTasksExpireInRounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.caller("payroll", "")
	first := w.open(c, authority.TaskRequest{ExpiresIn: time.Minute})
	for range authority.MaxExpired {
		w.open(c, authority.TaskRequest{ExpiresIn: time.Minute})
	}
	for range 3 {
		w.open(c, authority.TaskRequest{Parent: first.ID, ExpiresIn: time.Minute})
	}
	w.clock.Advance(time.Minute)
	for round, want := range []int{authority.MaxExpired, authority.MaxExpired + 1, authority.MaxExpired + 1} {
		if err := w.a.ExpireTasks(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(w.entries(ledger.TaskClosed)); got != want {
			t.Errorf("after round %d, %d are closed, want %d", round+1, got, want)
		}
	}
	if due := w.store.DueTasks(w.clock.Now()); len(due) != 0 {
		t.Errorf("%d are left", len(due))
	}
}
