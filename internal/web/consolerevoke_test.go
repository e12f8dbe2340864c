package web_test

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A lively is a system in which there is something of every kind to take.
type lively struct {
	*system
	adm              *browser
	one, two         agentKey // instances of payroll
	token, top, task string
	gone             string // an instance that ended
	over             string // a task that ended
	before           int64  // the size of the log when it was made
}

func newLively(t *testing.T) *lively {
	t.Helper()
	s := newOffice(t)
	l := &lively{system: s, adm: s.loggedIn("adm"), one: s.enrol("payroll"), two: s.enrol("payroll")}
	bo := s.loggedIn("bo")
	other := s.enrol("other")
	s.token(l.two, field("resource", s.issuer+"/r/crm")) // which expires
	s.clock.Advance(20 * time.Minute)
	for _, b := range []*browser{l.adm, bo} {
		b.login()
	}
	must := func(a answer, what string) {
		t.Helper()
		if a.status != 200 {
			t.Fatalf("%s: %d %s", what, a.status, a.body)
		}
	}
	// Tokens that were taken already, each in its way, are no more to take.
	must(s.token(l.one), "a token of an epoch that is over")
	must(s.admin("POST", "/api/v1/agents/payroll/suspend", map[string]any{"reason": "test"}), "suspending")
	must(s.admin("POST", "/api/v1/agents/payroll/resume", map[string]any{"reason": "test"}), "resuming")
	gone := s.enrol("payroll")
	l.gone = gone.instance
	must(s.token(gone), "a token of an instance that ends")
	must(s.admin("POST", "/api/v1/revocations", map[string]any{"kind": "instance", "id": l.gone, "reason": "test"}), "ending an instance")
	must(s.token(l.one), "a token that is revoked")
	issued := s.entries(ledger.TokenIssued)
	must(s.admin("POST", "/api/v1/revocations", map[string]any{"kind": "token", "id": issued[len(issued)-1].TokenJTI, "reason": "test"}), "revoking a token")
	l.over = s.openTask()
	must(s.token(l.one, field("task", l.over)), "a token of a task that ends")
	must(s.admin("POST", "/api/v1/tasks/"+l.over+"/cancel", map[string]any{"reason": "test"}), "ending a task")
	l.before = s.store.Size()
	l.top = s.openTask()
	now := s.clock.Now()
	below := counterfoil.Task{
		ID: counterfoil.NewID("tsk_"), Agent: "payroll", Opener: "payroll", Instance: l.two.instance, Purpose: "tell <b>everybody</b>",
		Parent: l.top, Opened: now, Deadline: now.Add(30 * time.Minute), MaxCalls: 4,
	}
	live := counterfoil.Live{Agent: "payroll", Instance: l.two.instance, Epoch: s.store.AgentState("payroll").Epoch}
	if err := s.store.OpenTask(t.Context(), below, live, &ledger.Entry{Kind: ledger.TaskOpened, Agent: "payroll", Task: below.ID}); err != nil {
		t.Fatal(err)
	}
	l.task = below.ID
	for _, a := range []answer{
		s.token(l.one), s.token(l.two, field("resource", s.issuer+"/r/crm")), s.token(l.two, field("resource", s.issuer)),
		s.token(l.one, field("task", l.top)), s.token(l.two, field("task", l.task)), s.token(other),
	} {
		must(a, "a token")
	}
	issued = s.entries(ledger.TokenIssued)
	l.token = issued[len(issued)-1].TokenJTI
	if a := bo.decide(s.held(l.one, "100"), counterfoil.DecisionApprove); a.status != 200 {
		t.Fatalf("signing: %d %s", a.status, a.body)
	}
	s.held(l.two, "200")
	return l
}

func (l *lively) target(kind counterfoil.TargetKind) string {
	return map[counterfoil.TargetKind]string{
		counterfoil.TargetToken: l.token, counterfoil.TargetKey: l.two.signer.Public().Thumbprint(), counterfoil.TargetInstance: l.one.instance,
		counterfoil.TargetTask: l.top, counterfoil.TargetAgent: "payroll", counterfoil.TargetPerson: "bo", counterfoil.TargetResource: "bank",
		counterfoil.TargetOwner: "ana",
	}[kind]
}

// told is what a page says how many of each kind there are.
func told(t *testing.T, body string) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, m := range regexp.MustCompile(`<div><p>(\d+) (agent|live token|instance|key|open task|open approval|passkey|granted tool)s?[,<]`).FindAllStringSubmatch(body, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		out[m[2]] = n
	}
	return out
}

// listed is what an entry says that it took, without the tokens of an instance or a task
// that had ended before: they were void then, and an entry may list them all the same.
func (l *lively) listed(e *ledger.Entry) map[string]int {
	ended := func(token any) bool {
		return slices.ContainsFunc(l.entries(ledger.TokenIssued), func(i *ledger.Entry) bool { return i.TokenJTI == token && (i.Instance == l.gone || i.Task == l.over) })
	}
	out := map[string]int{}
	for name, word := range map[string]string{
		"agents": "agent", "tokens": "live token", "instances": "instance", "keys": "key", "tasks": "open task", "approvals": "open approval",
		"passkeys": "passkey", "grants": "granted tool",
	} {
		list, _ := e.Detail[name].([]any)
		if list = slices.DeleteFunc(slices.Clone(list), ended); len(list) > 0 {
			out[word] = len(list)
		}
	}
	return out
}

// TestWhatIsSaidBeforeTheClick: the page before a revocation counts exactly what the
// revocation then takes, and the page after it says the same.
func TestWhatIsSaidBeforeTheClick(t *testing.T) {
	t.Parallel()
	type way struct{ name, page, form string }
	ways := []way{
		{"suspend", "/agents/payroll/suspend", "/agents/payroll/suspend"}, {"offboard", "/agents/payroll/offboard", "/agents/payroll/offboard"},
	}
	for _, k := range counterfoil.TargetKinds() {
		ways = append(ways, way{string(k), "", "/revoke"})
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			l := newLively(t)
			form := url.Values{"csrf": {l.adm.token()}, "reason": {"its <laptop> was stolen"}}
			if w.page == "" {
				id := l.target(counterfoil.TargetKind(w.name))
				w.page = "/revoke?kind=" + w.name + "&id=" + url.QueryEscape(id)
				form.Set("kind", w.name)
				form.Set("id", id)
			}
			if w.name == "offboard" {
				form.Set("name", "payroll")
			}
			page := l.adm.visit(w.page)
			if page.status != 200 || !strings.Contains(page.body, `action="`+w.form+`"`) {
				t.Fatalf("before: %d %s", page.status, page.body)
			}
			before := told(t, page.body)
			if len(before) == 0 {
				t.Errorf("it says nothing: %s", page.body)
			}
			if w.name == "task" || w.name == "agent" {
				if !strings.Contains(page.body, "tell &lt;b&gt;everybody&lt;/b&gt;") {
					t.Error("the task's purpose is not there, or not as text")
				}
			}
			done := l.adm.submit(w.form, form)
			to := done.header.Get("Location")
			m := regexp.MustCompile(`^/revocations/(\d+)\?done=(revoked|suspended|offboarded)$`).FindStringSubmatch(to)
			if done.status != 303 || m == nil {
				t.Fatalf("after the click: %d %q %s", done.status, to, done.body)
			}
			index, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			e := l.since(index, "")[0]
			took := l.listed(e)
			if e.Actor != "adm" || e.Reason != "its <laptop> was stolen" {
				t.Errorf("the entry says %s: %s", e.Actor, e.Reason)
			}
			if w.name == "resource" && before["live token"] > 0 {
				delete(before, "live token") // the entry says when: whatever was issued before is void
			}
			if fmt.Sprint(before) != fmt.Sprint(took) {
				t.Errorf("said before: %v, taken: %v", before, took)
			}
			receipt := l.adm.visit(to)
			after := told(t, receipt.body)
			if all, _ := e.Detail["tokens"].([]any); len(all) > 0 {
				took["live token"] = len(all)
			}
			if receipt.status != 200 || fmt.Sprint(after) != fmt.Sprint(took) {
				t.Errorf("said after: %d %v, taken: %v", receipt.status, after, took)
			}
			for _, want := range []string{"not yet", "its &lt;laptop&gt; was stolen", ">adm<", fmt.Sprintf(`href="/ledger/%d"`, index)} {
				if !strings.Contains(receipt.body, want) {
					t.Errorf("the receipt does not say %s", want)
				}
			}
		})
	}
}

// TestARevocationIsFollowed: its page says what each enforcement point said, and where.
func TestARevocationIsFollowed(t *testing.T) {
	t.Parallel()
	l := newLively(t)
	form := url.Values{"csrf": {l.adm.token()}, "reason": {"test"}, "kind": {"token"}, "id": {l.token}}
	to := l.adm.submit("/revoke", form).header.Get("Location")
	index := l.since(l.before, ledger.Revoked)[0].Index
	health := func(want ...string) {
		t.Helper()
		a := l.adm.visit("/health")
		for _, w := range want {
			if !strings.Contains(a.body, w) {
				t.Errorf("the health page does not say %q", w)
			}
		}
	}
	health(fmt.Sprintf(`href="/revocations/%d"`, index), "4 revocations<", "never")
	if a := l.adm.get(fmt.Sprintf("/api/v1/revocations/%d", index)); a.status != 200 || !strings.Contains(a.body, `"name":"gateway"`) || strings.Contains(a.body, "stopped") {
		t.Errorf("the receipt before: %d %s", a.status, a.body)
	}
	l.clock.Advance(3 * time.Millisecond)
	enforced := &ledger.Entry{Kind: ledger.RevocationEnforced, View: ledger.View{Seq: index}, Detail: map[string]any{"point": "gateway", "streams": 7, "latency_us": 3000}}
	if err := l.store.Append(t.Context(), enforced); err != nil {
		t.Fatal(err)
	}
	a := l.adm.visit(to)
	if strings.Contains(a.body, "not yet<") {
		t.Error("it says that the gateway goes on accepting")
	}
	for _, want := range []string{"1 of 1 enforcement point", "3.0 ms", fmt.Sprintf(`href="/ledger/%d"`, enforced.Index), `class="num">7<`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the receipt does not say %q", want)
		}
	}
	if a := l.adm.get(fmt.Sprintf("/api/v1/revocations/%d", index)); !strings.Contains(a.body, `"latency_us":3000`) || !strings.Contains(a.body, `"streams":7`) {
		t.Errorf("the receipt after: %d %s", a.status, a.body)
	}
	health("gateway", "nothing</span>")

	// The same again is no news, and is in no list twice.
	if got := l.adm.submit("/revoke", form).header.Get("Location"); got != "/revocations?done=already" {
		t.Errorf("once more leads to %q", got)
	}
	list := l.adm.visit("/revocations")
	if n := strings.Count(list.body, `href="/revocations/`); n != 4 || !strings.Contains(list.body, "Token revoked") || !strings.Contains(list.body, "1 live token") {
		t.Errorf("the list has %d: %s", n, list.body)
	}
	api := l.adm.get("/api/v1/revocations")
	if api.status != 200 || strings.Count(api.body, `"index"`) != 4 || strings.Contains(api.body, "points") {
		t.Errorf("the list: %d %s", api.status, api.body)
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=x", "?limit=", "?before=1"} {
		if a := l.adm.get("/api/v1/revocations" + query); a.status != 400 {
			t.Errorf("%s: %d", query, a.status)
		}
	}
}

// TestTasksAreShown: an agent's page says what each task is for, until when, and how
// much of it is used.
func TestTasksAreShown(t *testing.T) {
	t.Parallel()
	l := newLively(t)
	a := l.adm.visit("/agents/payroll")
	for _, want := range []string{
		"the salaries of March", "tell &lt;b&gt;everybody&lt;/b&gt;", "0 of 4 calls", `href="/revoke?kind=task&amp;id=` + l.task + `"`,
		`href="/revoke?kind=instance&amp;id=` + l.one.instance + `"`, "29 min left",
	} {
		if !strings.Contains(a.body, want) && !strings.Contains(a.body, strings.Replace(want, "29 min", "30 min", 1)) {
			t.Errorf("the agent's page does not say %q", want)
		}
	}
	aud := l.loggedIn("aud")
	if b := aud.visit("/agents/payroll"); strings.Contains(b.body, "/revoke?") || !strings.Contains(b.body, "the salaries of March") {
		t.Error("an auditor is offered what only administrators do, or does not see the tasks")
	}
	tasks := aud.get("/api/v1/tasks?agent=payroll&state=open")
	if tasks.status != 200 || strings.Count(tasks.body, `"expires_at"`) != 2 {
		t.Errorf("the tasks: %d %s", tasks.status, tasks.body)
	}
	if a := l.adm.post("/api/v1/tasks/"+l.top+"/cancel", map[string]any{"reason": "no longer needed"}); a.status != 200 || a.member("state") != "cancelled" {
		t.Errorf("cancelling: %d %s", a.status, a.body)
	}
	wantProblem(t, l.adm.post("/api/v1/tasks/"+l.top+"/cancel", map[string]any{"reason": "again"}), 409, counterfoil.TaskClosed)
	wantProblem(t, l.adm.post("/api/v1/tasks/tsk_none/cancel", map[string]any{"reason": "again"}), 404, counterfoil.ToolUnknown)
	if a := aud.get("/api/v1/tasks?state=open"); strings.Contains(a.body, "expires_at") {
		t.Errorf("open still: %s", a.body)
	}
	for _, state := range []string{"cancelled", "revoked"} { // the one below goes with it
		if a := aud.get("/api/v1/tasks?state=" + state); state == "cancelled" && strings.Count(a.body, "expires_at") == 0 {
			t.Errorf("%s: %s", state, a.body)
		}
	}
	a = l.adm.visit("/agents/payroll")
	if !strings.Contains(a.body, "3 tasks closed lately") || !strings.Contains(a.body, "no longer needed") || !strings.Contains(a.body, "None is open") {
		t.Errorf("after it was cancelled the page says %s", a.body)
	}
	closed := l.since(l.before, ledger.TaskClosed)
	if len(closed) != 1 || closed[0].Actor != "adm" || closed[0].Task != l.top {
		t.Errorf("the log has %d such entries: %+v", len(closed), closed)
	}
}

// TestWhoIsSuspendedIsSaidToBe: on the pages of people and of resources, with what brings
// them back, and no button to do it again.
func TestWhoIsSuspendedIsSaidToBe(t *testing.T) {
	t.Parallel()
	l := newLively(t)
	for kind, page := range map[string]string{"person": "/people", "resource": "/resources"} {
		id := l.target(counterfoil.TargetKind(kind))
		button, back := "/revoke?kind="+kind+"&amp;id="+id+`"`, "counterfoil "+kind+" resume "+id
		if a := l.adm.visit(page); !strings.Contains(a.body, button) || strings.Contains(a.body, back) {
			t.Errorf("%s, before", page)
		}
		if a := l.adm.post("/api/v1/revocations", map[string]any{"kind": kind, "id": id, "reason": "test"}); a.status != 200 {
			t.Fatalf("%s: %d %s", kind, a.status, a.body)
		}
		if a := l.adm.visit(page); strings.Contains(a.body, button) || !strings.Contains(a.body, back) || !strings.Contains(a.body, ">suspended<") {
			t.Errorf("%s, after: %s", page, a.body)
		}
		// Nothing here brings anybody back.
		for _, path := range []string{"/api/v1/people/bo/resume", "/api/v1/resources/bank/resume", "/api/v1/agents/payroll/resume"} {
			wantProblem(t, l.adm.post(path, map[string]any{"reason": "x"}), 404, counterfoil.ToolUnknown)
		}
	}
	people := l.adm.get("/api/v1/people")
	if !strings.Contains(people.body, `"name":"bo","status":"suspended"`) || !strings.Contains(people.body, `"name":"cy","status":"active"`) {
		t.Errorf("people: %s", people.body)
	}
}

// TestWhatCannotBeRevoked is refused before the click and at it.
func TestWhatCannotBeRevoked(t *testing.T) {
	t.Parallel()
	l := newLively(t)
	token := l.adm.token()
	for _, row := range []struct {
		kind, id string
		status   int
	}{
		{"agent", "nobody", 404}, {"person", "nobody", 404}, {"resource", "nothing", 404}, {"task", "tsk_none", 404}, {"token", "tok_none", 404},
		{"key", "none", 404}, {"instance", "ins_none", 404}, {"owner", "bo", 404}, {"everything", "x", 400}, {"", "x", 400}, {"agent", "", 400},
	} {
		a := l.adm.visit("/revoke?kind=" + row.kind + "&id=" + row.id)
		if a.status != row.status {
			t.Errorf("%s %s: %d, want %d", row.kind, row.id, a.status, row.status)
		}
		if row.kind == "token" || row.kind == "owner" || row.id == "" {
			continue // a token that nobody can use any more may be named all the same
		}
		if a := l.adm.submit("/revoke", url.Values{"csrf": {token}, "kind": {row.kind}, "id": {row.id}, "reason": {"x"}}); a.status < 400 || a.status >= 500 {
			t.Errorf("%s %s at the click: %d", row.kind, row.id, a.status)
		}
	}
	for name, form := range map[string]url.Values{
		"no reason": {"csrf": {token}, "kind": {"agent"}, "id": {"payroll"}}, "no token": {"kind": {"agent"}, "id": {"payroll"}, "reason": {"x"}},
		"two targets": {"csrf": {token}, "kind": {"agent"}, "id": {"payroll", "other"}, "reason": {"x"}},
	} {
		if a := l.adm.submit("/revoke", form); a.status < 400 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	aud := l.loggedIn("aud")
	if a := aud.submit("/revoke", url.Values{"csrf": {aud.token()}, "kind": {"agent"}, "id": {"payroll"}, "reason": {"x"}}); a.status != 403 {
		t.Errorf("an auditor revokes: %d", a.status)
	}
	if n := l.since(l.before, ledger.Revoked); len(n) != 0 {
		t.Errorf("refused, and done %d times", len(n))
	}
	if !slices.ContainsFunc(l.entries(ledger.AgentCreated), func(e *ledger.Entry) bool { return e.Agent == "payroll" }) {
		t.Error("the control: payroll is there")
	}
	if a := l.adm.submit("/revoke", url.Values{"csrf": {token}, "kind": {"agent"}, "id": {"payroll"}, "reason": {"x"}}); a.status != 303 {
		t.Errorf("the control: %d %s", a.status, a.body)
	}
}
