package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestNoRequestIsMadeTwice: net/http makes some requests again when a kept connection
// breaks, which the ledger would not know.
func TestNoRequestIsMadeTwice(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	var breaks atomic.Bool
	o, c := newCRM(t, nil, nil)
	o.upstream.raw(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // what it has is nobody's affair
		if breaks.Load() {
			if conn, _, err := rw.(http.Hijacker).Hijack(); err == nil {
				conn.Close()
			}
			return
		}
		io.WriteString(rw, "ok")
	}))
	for i, tc := range []struct {
		method, target, body string
		change               func(*http.Request)
	}{
		{"GET", "/customers/7", "", func(*http.Request) {}},
		{"GET", "/customers/7", "", keyed("k1")},
		{"POST", "/customers/7/notes", `{"a":1}`, keyed("k2")},
		{"POST", "/customers/7/notes", "", keyed("k3")},
	} {
		breaks.Store(false)
		wantAnswer(t, c.send("GET", "/customers/7", "", nil), 200, "ok") // leaves a connection
		breaks.Store(true)
		before := seen.Load()
		wantHTTP(t, c.send(tc.method, tc.target, tc.body, tc.change), 504, counterfoil.OutcomeUnknown)
		if n := seen.Load() - before; n != 1 {
			t.Errorf("%d: the upstream saw %d requests", i, n)
		}
	}
}

// TestABodyThatNoRuleReads: who writes what a rule forbids in a form that it cannot read
// does not pass it.
func TestABodyThatNoRuleReads(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	photo := func() reply {
		return c.send("PUT", "/customers/7/photo", `{"public":true}`, func(r *http.Request) { r.Header.Set("Content-Type", "image/png") })
	}
	if r := photo(); r.status != 200 {
		t.Fatalf("without a rule: %d %s", r.status, r.body)
	}
	o.apply(func(reg *counterfoil.Registry) {
		reg.Policies["private"] = &counterfoil.Policy{Name: "private", Cedar: `forbid (principal, action == Action::"call", resource == Tool::"crm/photo") when { context.args has body && context.args.body has public };`}
	})
	wantHTTP(t, photo(), 403, counterfoil.PolicyForbids)
	wantHTTP(t, c.send("PUT", "/customers/7/photo", `{"public":true}`, nil), 403, counterfoil.PolicyForbids)
	if r := c.send("PUT", "/customers/7/photo", `{"size":1}`, nil); r.status != 200 {
		t.Errorf("what the rule allows: %d %s", r.status, r.body)
	}
	// A rule over the path alone has nothing against bytes.
	o.apply(func(reg *counterfoil.Registry) {
		reg.Policies["private"] = &counterfoil.Policy{Name: "private", Cedar: `forbid (principal, action == Action::"call", resource == Tool::"crm/photo") when { context.args.path.id == "8" };`}
	})
	if r := photo(); r.status != 200 {
		t.Errorf("with a rule over the path: %d %s", r.status, r.body)
	}
	wantHTTP(t, c.send("PUT", "/customers/8/photo", "x", func(r *http.Request) { r.Header.Set("Content-Type", "image/png") }), 403, counterfoil.PolicyForbids)
}

// TestAToolThatIsDeclaredAnew: what people allowed is a call of what was declared then.
func TestAToolThatIsDeclaredAnew(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	reset := func() reply { return c.send("POST", "/customers/7/password", `{"reason":"lost"}`, nil) }
	ask := func(code counterfoil.Code) string {
		t.Helper()
		r := reset()
		wantHTTP(t, r, 403, code)
		var p struct {
			Approval counterfoil.ApprovalStatus `json:"approval"`
		}
		if err := json.Unmarshal([]byte(r.body), &p); err != nil {
			t.Fatal(err)
		}
		return p.Approval.ID
	}
	first := ask(counterfoil.ApprovalRequired)
	o.approve(first)
	o.apply(func(reg *counterfoil.Registry) {
		crm := *reg.Resources["crm"]
		crm.Tools = append([]counterfoil.Tool(nil), crm.Tools...)
		for i := range crm.Tools {
			if crm.Tools[i].Name == "reset_password" {
				crm.Tools[i].Schema = `{"type":"object"}`
			}
		}
		reg.Resources["crm"] = &crm
	})
	r := reset()
	if r.status != 403 || len(o.upstream.all()) > 0 {
		t.Fatalf("what was allowed of another tool was made: %d %s", r.status, r.body)
	}
	second := ask(counterfoil.ApprovalPending)
	if second == first {
		t.Fatal("it waits for what was allowed before")
	}
	o.approve(second)
	if r := reset(); r.status != 200 {
		t.Errorf("once it is allowed again: %d %s", r.status, r.body)
	}
}

// TestAnHTTPCallInATask is counted by the task and is of it alone.
func TestAnHTTPCallInATask(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	task := c.begin(func(task *counterfoil.Task) {
		task.MaxCalls, task.Tools = 2, []counterfoil.ToolID{{Resource: "crm", Tool: "get_customer"}}
	})
	for range 2 {
		if r := c.send("GET", "/customers/7", "", nil); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	wantHTTP(t, c.send("GET", "/customers/7", "", nil), 403, counterfoil.LimitExceeded)
	wantHTTP(t, c.send("GET", "/customers/search", "", nil), 403, counterfoil.OutsideTask)
	o.close(task)
	wantHTTP(t, c.send("GET", "/customers/7", "", nil), 401, counterfoil.TaskClosed)
	var got []string
	for _, e := range o.log.of(ledger.CallDecided) {
		got = append(got, fmt.Sprint(e.Decision, e.Code))
	}
	if want := "allow allow refuselimit_exceeded refuseoutside_task refusetask_closed"; strings.Join(got, " ") != want || len(o.upstream.all()) != 2 {
		t.Errorf("decided: %v", got)
	}
}
