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

// The life of a task: TS7, TL1 to TL10.

// guildManifest has who works in tasks: batch is ana's, conductor may open tasks for
// it, idle is nobody's to conduct. The desk pays without asking anybody.
const guildManifest = `kind: Resource
name: desk
type: mcp
environment: prod
upstream: %[1]s
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: read}
  - {name: pay, class: small-payment, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Resource
name: stall
type: mcp
environment: prod
upstream: %[2]s
tools: [{name: echo, class: small-payment, fields: {amount: /amount}}]
---
kind: Agent
name: batch
owner: ana
environment: prod
grants: [{tools: [bank/get_balance, bank/list_payees, "desk/*", stall/echo]}]
tasks: {max_duration: 2h, max_calls: 500, orchestrators: [conductor]}
---
kind: Agent
name: conductor
owner: ana
environment: prod
grants: [{tools: [bank/get_balance, till/pay]}]
---
kind: Agent
name: idle
owner: ana
environment: prod
grants: [{tools: [bank/get_balance]}]
`

// A guild is a world of agents that work in tasks.
type guild struct {
	*world
	batch, conductor, idle *actor
}

func newGuild(t *testing.T) *guild {
	t.Helper()
	g := &guild{world: newWorld(t)}
	g.Apply(fmt.Sprintf(guildManifest, g.BankUpstream(), newTap(t).url))
	g.batch, g.conductor, g.idle = g.actor("batch"), g.actor("conductor"), g.actor("idle")
	return g
}

func (g *guild) desk() string { return g.Issuer() + counterfoil.ResourcePath + "desk" }

// callIn makes a call of a tool, given as resource/tool, with a token of a task; of none
// when it is empty.
func (g *guild) callIn(a *actor, task, tool, arguments string) *call {
	g.T.Helper()
	resource, name, _ := strings.Cut(tool, "/")
	at := g.Issuer() + counterfoil.ResourcePath + resource
	return g.callBy(a, g.tokenFor(a, at, inTask(task)), at, name, arguments)
}

// callBy makes a call with a token of the test's choice.
func (w *world) callBy(a *actor, token, resource, tool, arguments string) *call {
	w.T.Helper()
	return &call{
		method: http.MethodPost, url: resource, body: counterfoiltest.Body(tool, arguments),
		header: http.Header{
			"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
			"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {tool},
		},
		scheme: "DPoP", token: token, proof: counterfoiltest.ForgeProof(w.T, a.signer, http.MethodPost, resource, w.Clock.Now()),
	}
}

// tokenIn asks for a token of a task.
func (w *world) tokenIn(a *actor, task, resource string, edits ...func(*tokenRequest)) answer {
	w.T.Helper()
	q := w.tokenRequest(a)
	q.Form.Set("resource", resource)
	inTask(task)(q)
	for _, edit := range edits {
		edit(q)
	}
	return w.sendToken(q)
}

// says wants an answer's status and code.
func (w *world) says(what string, got answer, status int, code counterfoil.Code) {
	w.T.Helper()
	if got.status != status || got.code != code {
		w.T.Errorf("%s: got %s\nwant %d %s", what, got, status, code)
	}
}

// works wants that a request passed.
func (w *world) works(what string, got answer) {
	w.T.Helper()
	if !got.passed() {
		w.T.Errorf("%s: %s", what, got)
	}
}

// alike wants two answers that differ in nothing but their own ids.
func alike(w *world, what string, one, other answer, ids ...string) {
	w.T.Helper()
	mask := strings.NewReplacer(append([]string{one.requestID, "REQUEST", other.requestID, "REQUEST"}, ids...)...)
	if one.status != other.status || mask.Replace(string(one.body)) != mask.Replace(string(other.body)) {
		w.T.Errorf("%s is told from what is not there:\n%s\n%s", what, one, other)
	}
}

func (g *guild) end(a *actor, id, how string) answer {
	g.T.Helper()
	return g.sendOwn(a, http.MethodPost, counterfoil.TasksPath+"/"+id+"/"+how, "")
}

// TestTasksOnlyLessen is TL4, TL5 and TL6: what a task has is its agent's, and of a
// child its parent's, whoever opens it.
func TestTasksOnlyLessen(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	open := func(a *actor, body string) answer { return g.sendOwn(a, http.MethodPost, counterfoil.TasksPath, body) }
	parent := g.open(g.batch, `{"purpose":"p","tools":["bank/get_balance","desk/pay"],"expires_in":600,"max_calls":7}`)
	others := g.open(g.idle, plainTask)
	byOther := g.open(g.conductor, `{"purpose":"p","agent":"batch"}`)
	for _, tc := range []struct {
		row, name string
		as        *actor
		control   string
		body      string
		status    int
		code      counterfoil.Code
	}{
		{"TL4", "a tool that is not granted", g.batch, `{"purpose":"p","tools":["bank/get_balance"]}`, `{"purpose":"p","tools":["bank/get_balance","bank/pay"]}`, 403, counterfoil.ToolNotGranted},
		{"TL4", "a tool that is nowhere", g.batch, `{"purpose":"p","tools":["desk/pay"]}`, `{"purpose":"p","tools":["desk/steal"]}`, 403, counterfoil.ToolNotGranted},
		{"TL4", "every tool", g.batch, `{"purpose":"p"}`, `{"purpose":"p","tools":["bank/*"]}`, 400, counterfoil.RequestMalformed},
		{"TL4", "no tool", g.batch, `{"purpose":"p"}`, `{"purpose":"p","tools":[]}`, 400, counterfoil.RequestMalformed},
		{"TL4", "null", g.batch, `{"purpose":"p"}`, `{"purpose":"p","tools":null}`, 400, counterfoil.PayloadMalformed},
		{"TL4", "a member that is not the sender's", g.batch, `{"purpose":"p"}`, `{"purpose":"p","opener":"payroll"}`, 400, counterfoil.PayloadMalformed},
		{"TL4", "the opener's tools", g.conductor, `{"purpose":"p","agent":"batch","tools":["desk/pay"]}`, `{"purpose":"p","agent":"batch","tools":["till/pay"]}`, 403, counterfoil.ToolNotGranted},
		{"TL6", "a tool beyond the parent's", g.batch, `{"purpose":"p","parent":"` + parent + `","tools":["desk/pay"]}`, `{"purpose":"p","parent":"` + parent + `","tools":["bank/list_payees"]}`, 403, counterfoil.OutsideTask},
		{"TL5", "an orchestrator of somebody else", g.conductor, `{"purpose":"p","agent":"batch"}`, `{"purpose":"p","agent":"idle"}`, 404, counterfoil.ToolUnknown},
		{"TL5", "an agent that conducts nobody", g.idle, `{"purpose":"p","agent":"idle"}`, `{"purpose":"p","agent":"batch"}`, 404, counterfoil.ToolUnknown},
		{"TL5", "the agent that is conducted", g.batch, `{"purpose":"p","agent":"batch"}`, `{"purpose":"p","agent":"conductor"}`, 404, counterfoil.ToolUnknown},
		{"TL5", "another agent's task as parent", g.batch, `{"purpose":"p","parent":"` + parent + `"}`, `{"purpose":"p","parent":"` + others + `"}`, 409, counterfoil.TaskClosed},
		{"TL5", "a parent that is nobody's", g.batch, `{"purpose":"p","parent":"` + parent + `"}`, `{"purpose":"p","parent":"` + counterfoil.NewID("tsk_") + `"}`, 409, counterfoil.TaskClosed},
		{"TL5", "the task of one whom it conducts, which it did not open", g.conductor, `{"purpose":"p","agent":"batch","parent":"` + byOther + `"}`, `{"purpose":"p","agent":"batch","parent":"` + parent + `"}`, 409, counterfoil.TaskClosed},
		{"TL5", "its own agent in another's task that it opened", g.conductor, `{"purpose":"p","agent":"batch","parent":"` + byOther + `"}`, `{"purpose":"p","parent":"` + byOther + `"}`, 409, counterfoil.TaskClosed},
	} {
		t.Run(tc.row+" "+tc.name, func(t *testing.T) {
			defer g.in(t)()
			g.Clock.Advance(time.Second)
			if got := open(tc.as, tc.control); got.status != http.StatusCreated {
				t.Fatalf("the request without the attack: %s", got)
			}
			from := g.size()
			g.says(tc.name, open(tc.as, tc.body), tc.status, tc.code)
			for _, e := range g.since(from) {
				if e.Kind == ledger.TaskOpened {
					t.Errorf("refused, and yet a task was opened: %+v", e)
				}
			}
		})
	}
	alike(g.world, "TL5: an agent that is there", open(g.conductor, `{"purpose":"p","agent":"idle"}`), open(g.conductor, `{"purpose":"p","agent":"none"}`), `idle`, "NAME", `none`, "NAME")

	// What goes on too long is cut.
	child := g.opened(g.batch, `{"purpose":"p","parent":"`+parent+`","expires_in":86400,"max_calls":100000}`)
	if of := g.taskOf(parent); child["expires_at"] != of["expires_at"] || child["max_calls"] != of["max_calls"] || fmt.Sprint(child["tools"]) != fmt.Sprint(of["tools"]) {
		t.Errorf("TL6: the child is %v, its parent %v", child, of)
	}
	if long := g.opened(g.batch, `{"purpose":"p","expires_in":86400,"max_calls":100000}`); long["expires_at"] != g.Clock.Now().UTC().Add(2*time.Hour).Truncate(time.Second).Format(time.RFC3339) || fmt.Sprint(long["max_calls"]) != "500" {
		t.Errorf("TL6: beyond the agent's own bounds: %v", long)
	}
	// And nobody is deeper than may be.
	for depth, id := 1, g.open(g.batch, plainTask); ; depth++ {
		got := open(g.batch, `{"purpose":"p","parent":"`+id+`"}`)
		if depth == counterfoil.MaxTaskDepth {
			g.says("TL6: a task too deep", got, 403, counterfoil.LimitExceeded)
			break
		}
		if id, _ = got.member("id").(string); id == "" {
			t.Fatalf("a task at depth %d: %s", depth+1, got)
		}
	}
	g.CheckLedger()
}

// TestTasksOfOthers is TL1 and TL7: a task is its agent's, and its opener's to end. A token
// of a task knows that one and those below.
func TestTasksOfOthers(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	mine := g.open(g.batch, plainTask)
	sibling := g.open(g.batch, plainTask)
	below := g.open(g.batch, `{"purpose":"p","parent":"`+mine+`"}`)
	given := g.open(g.conductor, `{"purpose":"p","agent":"batch"}`)
	none := counterfoil.NewID("tsk_")
	closedGrant := want{status: 400, oauth: "invalid_grant", code: counterfoil.TaskClosed}

	g.works("its own task", g.tokenIn(g.batch, mine, g.BankURL()))
	g.works("a task that was opened for it", g.tokenIn(g.batch, given, g.BankURL()))
	ended := g.open(g.batch, plainTask)
	g.works("completing", g.end(g.batch, ended, "complete"))
	for what, q := range map[string]answer{
		"TL1: another agent's":           g.tokenIn(g.idle, mine, g.BankURL()),
		"TL1: the opener's, not its own": g.tokenIn(g.conductor, given, g.BankURL()),
		"TL1: a completed one":           g.tokenIn(g.batch, ended, g.BankURL()),
		"TL1: none":                      g.tokenIn(g.batch, none, g.BankURL()),
		"TL1: another spelling":          g.tokenIn(g.batch, strings.ToUpper(mine), g.BankURL()),
		"TL1: a space":                   g.tokenIn(g.batch, mine+" ", g.BankURL()),
	} {
		t.Run(what, func(t *testing.T) { closedGrant.check(t, q) })
	}
	twice := g.tokenRequest(g.batch)
	twice.Form["task"] = []string{mine, sibling}
	malformed.check(t, g.sendToken(twice))

	for _, verb := range []struct{ method, path string }{
		{http.MethodGet, ""}, {http.MethodPost, "/complete"}, {http.MethodPost, "/cancel"},
	} {
		for what, who := range map[string]*actor{"another agent": g.idle, "who conducts it and did not open it": g.conductor} {
			of := g.sendOwn(who, verb.method, counterfoil.TasksPath+"/"+mine+verb.path, "")
			g.says("TL7: "+what+verb.path, of, 404, counterfoil.ToolUnknown)
			alike(g.world, "TL7: another's task", of, g.sendOwn(who, verb.method, counterfoil.TasksPath+"/"+none+verb.path, ""), mine, "ID", none, "ID")
		}
		inMine := g.ownToken(g.batch, inTask(mine))
		for what, id := range map[string]string{"a sibling": sibling, "another's": given} {
			g.says("TL7: a token of a task at "+what+verb.path, g.sendCall(g.own(g.batch, inMine, verb.method, counterfoil.TasksPath+"/"+id+verb.path, "")), 404, counterfoil.ToolUnknown)
		}
		inBelow := g.ownToken(g.batch, inTask(below))
		g.says("TL7: a token of a child at its parent"+verb.path, g.sendCall(g.own(g.batch, inBelow, verb.method, counterfoil.TasksPath+"/"+mine+verb.path, "")), 404, counterfoil.ToolUnknown)
		for what, id := range map[string]string{"its own": mine, "one below": below} {
			if verb.method == http.MethodGet {
				g.works("a token of a task at "+what, g.sendCall(g.own(g.batch, inMine, verb.method, counterfoil.TasksPath+"/"+id, "")))
			}
		}
	}
	inMine := g.ownToken(g.batch, inTask(mine))
	openIn := func(body string) answer {
		return g.sendCall(g.own(g.batch, inMine, http.MethodPost, counterfoil.TasksPath, body))
	}
	g.says("TL7: a parent outside of the token's task", openIn(`{"purpose":"p","parent":"`+sibling+`"}`), 403, counterfoil.OutsideTask)
	got := openIn(`{"purpose":"p"}`)
	if got.status != http.StatusCreated || got.member("parent") != mine {
		t.Errorf("TL7: a task that is opened in a task: %s", got)
	}
	listed := g.sendCall(g.own(g.batch, inMine, http.MethodGet, counterfoil.TasksPath, ""))
	if text := string(listed.body); !listed.passed() || !strings.Contains(text, below) || strings.Contains(text, sibling) || strings.Contains(text, given) {
		t.Errorf("TL7: what a token of a task is shown: %s", listed)
	}
	if idle := g.sendOwn(g.idle, http.MethodGet, counterfoil.TasksPath, ""); strings.TrimSpace(string(idle.body)) != `{"tasks":[]}` {
		t.Errorf("TL7: what another agent is shown: %s", idle)
	}
	for _, id := range []string{mine, sibling, below, given} {
		if state := g.taskOf(id)["state"]; state != "open" {
			t.Errorf("TL7: the task %s is %v", id, state)
		}
	}
	g.works("the opener ends what it opened", g.end(g.conductor, given, "cancel"))
	g.works("a token of a task ends it", g.sendCall(g.own(g.batch, inMine, http.MethodPost, counterfoil.TasksPath+"/"+mine+"/complete", "")))
	g.says("TL7: a child ended with its parent", g.end(g.batch, below, "complete"), 409, counterfoil.TaskClosed)
	g.CheckLedger()
}

// TestTasksEndOnce is TL3: nobody ends a task twice, opens it again or moves its end.
func TestTasksEndOnce(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	for _, how := range []string{"complete", "cancel"} {
		id := g.open(g.batch, `{"purpose":"p","expires_in":600}`)
		at := counterfoil.TasksPath + "/" + id
		held := g.callIn(g.batch, id, "bank/get_balance", honestArguments)
		g.works("a call in the task", g.sendCall(g.callIn(g.batch, id, "bank/get_balance", honestArguments)))
		before := g.taskOf(id)
		for what, q := range map[string]struct{ method, path, body string }{
			"extending":           {http.MethodPost, at + "/complete", `{"expires_in":3600}`},
			"extending by PATCH":  {http.MethodPatch, at, `{"expires_in":3600}`},
			"extending by PUT":    {http.MethodPut, at, `{"expires_in":3600}`},
			"extending by POST":   {http.MethodPost, at, `{"expires_in":3600}`},
			"extending at /tasks": {http.MethodPost, counterfoil.TasksPath, `{"purpose":"p","id":"` + id + `"}`},
			"a verb of ours":      {http.MethodPost, at + "/extend", `{}`},
			"reopening":           {http.MethodPost, at + "/reopen", `{}`},
			"a query":             {http.MethodPost, at + "/complete?state=open", ``},
		} {
			if got := g.sendOwn(g.batch, q.method, q.path, q.body); got.passed() || got.status < 400 || got.status >= 500 {
				t.Errorf("TL3 %s: %s", what, got)
			}
		}
		if after := g.taskOf(id); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("TL3: the task became %v from %v", after, before)
		}
		g.works(how, g.end(g.batch, id, how))
		for _, again := range []string{"complete", "cancel"} {
			g.says("TL3: "+again+" after "+how, g.end(g.batch, id, again), 409, counterfoil.TaskClosed)
		}
		if status, body := g.Admin(http.MethodPost, "/api/v1/tasks/"+id+"/cancel", map[string]string{"reason": "r"}); status != 409 {
			t.Errorf("TL3: cancelled by an administrator after %s: HTTP %d %s", how, status, body)
		}
		g.says("TL3: a call with a token of before", g.sendCall(held), 401, counterfoil.TaskClosed)
		g.says("TL3: a token", g.tokenIn(g.batch, id, g.BankURL()), 400, counterfoil.TaskClosed)
	}
	// The clock ends it too, for tokens that would go on, and neither clock nor
	// restart brings it back.
	id := g.open(g.batch, `{"purpose":"p","expires_in":60}`)
	token := g.tokenFor(g.batch, g.BankURL(), inTask(id))
	if exp, err := counterfoiltest.ReadJWT(t, token).Claims["exp"].(interface{ Int64() (int64, error) }).Int64(); err != nil || exp > g.Clock.Now().Unix()+60 {
		t.Errorf("TL3: the token goes on to %d, %v", exp, err)
	}
	g.Clock.Advance(58 * time.Second)
	g.works("a call a moment before the end", g.sendCall(g.callBy(g.batch, token, g.BankURL(), "get_balance", honestArguments)))
	g.Clock.Advance(3 * time.Second)
	if got := g.sendCall(g.callBy(g.batch, token, g.BankURL(), "get_balance", honestArguments)); got.status != 401 || got.code != counterfoil.TaskClosed && got.code != counterfoil.TokenExpired {
		t.Errorf("TL3: a call after the end: %s", got)
	}
	g.says("TL3: a token after the end", g.tokenIn(g.batch, id, g.BankURL()), 400, counterfoil.TaskClosed)
	g.says("TL3: completing after the end", g.end(g.batch, id, "complete"), 409, counterfoil.TaskClosed)
	g.Restart()
	g.says("TL3: a token after a restart", g.tokenIn(g.batch, id, g.BankURL()), 400, counterfoil.TaskClosed)
	g.CheckLedger()
}

// TestTokensOfOneTaskAtAnother is TS7 with real tasks: what a task leaves out is not
// called in it, whatever the token says.
func TestTokensOfOneTaskAtAnother(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	looks := g.open(g.batch, `{"purpose":"p","tools":["bank/get_balance"]}`)
	pays := g.open(g.batch, `{"purpose":"p","tools":["desk/pay","bank/list_payees"]}`)
	g.works("what the task has", g.sendCall(g.callIn(g.batch, looks, "bank/get_balance", honestArguments)))
	g.works("what the other has", g.sendCall(g.callIn(g.batch, pays, "bank/list_payees", `{}`)))

	g.says("TS7: another task's tool", g.sendCall(g.callIn(g.batch, looks, "bank/list_payees", `{}`)), 200, counterfoil.ToolNotGranted)
	g.says("TS7: another task's tool, asked for", g.tokenIn(g.batch, looks, g.BankURL(), func(q *tokenRequest) { q.Form.Set("scope", "list_payees") }), 400, counterfoil.ScopeInvalid)
	forge := func(edit func(j *jwt)) *call {
		j := counterfoiltest.ReadJWT(t, g.tokenFor(g.batch, g.BankURL(), inTask(looks)))
		j.Claims["jti"], j.Signer = counterfoil.NewID("tok_"), g.issuerKey()
		edit(j)
		return g.callBy(g.batch, j.Compact(t), g.BankURL(), "list_payees", `{}`)
	}
	g.says("TS7: a scope that the task has not", g.sendCall(forge(func(j *jwt) { j.Claims["scope"] = "get_balance list_payees" })), 200, counterfoil.OutsideTask)
	others := g.open(g.idle, plainTask)
	claim := func(id string) func(j *jwt) {
		return func(j *jwt) { j.Claims["task"] = map[string]any{"id": id, "exp": g.Clock.Now().Unix() + 300} }
	}
	g.works("the control: a token that names the other task", g.sendCall(forge(func(j *jwt) { claim(pays)(j); j.Claims["scope"] = "list_payees" })))
	g.says("TS7: another agent's task", g.sendCall(forge(claim(others))), 401, counterfoil.TaskClosed)
	g.says("TS7: a task that is nobody's", g.sendCall(forge(claim(counterfoil.NewID("tsk_")))), 401, counterfoil.TaskClosed)
	g.CheckLedger()
}

// TestCallsAreCounted is TL8: however many come at once, a task makes no more calls
// than it may, and its children's are its own.
func TestCallsAreCounted(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	const most, many = 20, 100
	for _, heat := range []struct {
		name, body string
		allowed    int
	}{
		{"the control: any number", `{"purpose":"p"}`, many},
		{"max_calls", fmt.Sprintf(`{"purpose":"p","max_calls":%d}`, most), most},
		{"a limit on a class", fmt.Sprintf(`{"purpose":"p","limits":[{"class":"read","max":"%d"}]}`, most), most},
	} {
		id := g.open(g.batch, heat.body)
		token := g.tokenFor(g.batch, g.BankURL(), inTask(id))
		var requests []*http.Request
		for range many {
			requests = append(requests, g.request(g.callBy(g.batch, token, g.BankURL(), "get_balance", honestArguments)))
		}
		calls, passed := g.Reached(), 0
		for _, got := range g.atOnce(requests) {
			if got.passed() {
				passed++
			} else {
				g.says("TL8 "+heat.name, got, 200, counterfoil.LimitExceeded)
			}
		}
		if reached := g.Reached() - calls; passed != heat.allowed || reached != heat.allowed || fmt.Sprint(g.taskOf(id)["calls"]) != fmt.Sprint(heat.allowed) {
			t.Errorf("TL8 %s: %d passed, %d arrived, the task is %v", heat.name, passed, reached, g.taskOf(id))
		}
		g.Clock.Advance(10 * time.Second)
	}
	// What is below counts for what is above, and what is refused counts for nobody.
	parent := g.open(g.batch, `{"purpose":"p","max_calls":5}`)
	one := g.open(g.batch, `{"purpose":"p","parent":"`+parent+`","max_calls":3}`)
	other := g.open(g.batch, `{"purpose":"p","parent":"`+parent+`"}`)
	look := func(task string) answer {
		return g.sendCall(g.callIn(g.batch, task, "bank/get_balance", honestArguments))
	}
	for range 3 {
		g.works("a call in the child", look(one))
	}
	g.says("TL8: the child's fourth", look(one), 200, counterfoil.LimitExceeded)
	g.works("a call in the other child", look(other))
	g.works("a call in the parent", look(parent))
	for what, task := range map[string]string{"the other child's": other, "the parent's": parent} {
		g.says("TL8: "+what+" sixth in all", look(task), 200, counterfoil.LimitExceeded)
	}
	if n := g.taskOf(parent)["calls"]; fmt.Sprint(n) != "5" {
		t.Errorf("TL8: the parent counts %v", n)
	}
	g.Restart()
	g.says("TL8: after a restart", look(other), 200, counterfoil.LimitExceeded)
	g.CheckLedger()
}

// TestSumsOfATask is TL9: amounts in other spellings, missing, negative or hidden do
// not get past a task's limit, of the parent neither.
func TestSumsOfATask(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	limited := `{"purpose":"p","limits":[{"class":"small-payment","sum":"amount","max":"10"}]}`
	pay := func(task, amount string) answer {
		return g.sendCall(g.callIn(g.batch, task, "stall/echo", `{"amount":`+amount+`}`))
	}
	for _, amount := range []string{`4.01`, `-1`, `1e9`, `"1"`, `"4.00"`, `"-1"`, `null`, `[1]`, `{"amount":1}`, `true`, `1e-5`, `0.00001`, `9999999999999999999`, `1e300`} {
		id := g.open(g.batch, limited)
		g.works("the control", pay(id, `6.00`))
		if got := pay(id, amount); got.code == "" {
			t.Errorf("TL9 %s: %s", amount, got)
		}
		g.works("what fits beside it", pay(id, `4`))
		g.says("TL9: no more after "+amount, pay(id, `0.01`), 200, counterfoil.LimitExceeded)
	}
	id := g.open(g.batch, limited)
	absent := g.sendCall(g.callIn(g.batch, id, "stall/echo", `{"price":1}`))
	if absent.code == "" {
		t.Errorf("TL9: no amount: %s", absent)
	}
	below := g.open(g.batch, `{"purpose":"p","parent":"`+id+`"}`)
	g.works("a child's payment", pay(below, `1e1`))
	g.says("TL9: a child's beyond the parent's sum", pay(below, `0.01`), 200, counterfoil.LimitExceeded)
	g.says("TL9: the parent's own", pay(id, `0.01`), 200, counterfoil.LimitExceeded)
	g.works("another class", g.sendCall(g.callIn(g.batch, id, "desk/get_balance", honestArguments)))
	for name, body := range map[string]string{
		"a class that is nowhere":   `{"purpose":"p","limits":[{"class":"nothing","max":"1"}]}`,
		"a field that no tool has":  `{"purpose":"p","limits":[{"class":"small-payment","sum":"price","max":"1"}]}`,
		"a negative bound":          `{"purpose":"p","limits":[{"class":"read","max":"-1"}]}`,
		"one limit twice":           `{"purpose":"p","limits":[{"class":"read","max":"1"},{"class":"read","max":"2"}]}`,
		"a bound that is no number": `{"purpose":"p","limits":[{"class":"read","max":"many"}]}`,
	} {
		g.says("TL9 "+name, g.sendOwn(g.batch, http.MethodPost, counterfoil.TasksPath, body), 400, counterfoil.RequestMalformed)
	}
	g.CheckLedger()
}

// TestCallsInFlightWhenATaskEnds is TL2: with the answer that the task is complete no
// call of it is decided any more, in the order of the log.
func TestCallsInFlightWhenATaskEnds(t *testing.T) {
	t.Parallel()
	g := newGuild(t)
	id := g.open(g.batch, plainTask)
	token := g.tokenFor(g.batch, g.BankURL(), inTask(id))
	owner := g.own(g.batch, g.ownToken(g.batch), http.MethodPost, counterfoil.TasksPath+"/"+id+"/complete", "")
	var requests []*http.Request
	for range 100 {
		requests = append(requests, g.request(g.callBy(g.batch, token, g.BankURL(), "get_balance", honestArguments)))
	}
	g.works("the control", g.sendCall(g.callBy(g.batch, token, g.BankURL(), "get_balance", honestArguments)))
	from := g.size()
	requests = append(requests[:50], append([]*http.Request{g.request(owner)}, requests[50:]...)...)
	cut := 0
	for i, got := range g.atOnce(requests) {
		if i == 50 {
			g.works("completing", got)
		} else if got.passed() && !strings.Contains(string(got.body), `"content"`) {
			cut++ // it was under way, and nobody knows how it ended
			if !strings.Contains(string(got.body), `"code":"task_closed"`) {
				t.Errorf("TL2: a call that was cut is not told why: %v", got)
			}
		} else if !got.passed() {
			g.says("TL2", got, 401, counterfoil.TaskClosed)
		}
	}
	t.Logf("%d answers that were under way were cut", cut)
	g.says("TL2: a call after", g.sendCall(g.callBy(g.batch, token, g.BankURL(), "get_balance", honestArguments)), 401, counterfoil.TaskClosed)
	closed := int64(-1)
	for _, e := range g.since(from) {
		switch {
		case e.Kind == ledger.TaskClosed && e.Task == id:
			closed = e.Index
		case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow && e.Task == id && closed >= 0:
			t.Errorf("TL2: entry %d allows a call of a task that entry %d closed", e.Index, closed)
		}
	}
	if closed < 0 {
		t.Error("TL2: the task was not closed")
	}
	g.Entries() // the record verifies; an answer that was cut has an end that nobody knows
}
