package agent_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/resource"
)

func (o *office) tasksAs(t *testing.T, task string) *agent.Tasks {
	t.Helper()
	c := o.w.config()
	c.Task = task
	tasks, err := agent.NewTasks(c)
	if err != nil {
		t.Fatal(err)
	}
	return tasks
}

func TestTasks(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tasks := o.tasksAs(t, "")
	opened, err := tasks.Open(t.Context(), agent.OpenTask{
		Purpose: "the payroll of May", Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "pay"}}, Life: 90 * time.Second, MaxCalls: 7,
		Limits: []agent.TaskLimit{{Class: "payout", Sum: "amount", Max: "100.5"}}, Parent: "tsk_above", For: "clerk",
	})
	if err != nil || opened.Purpose != "the payroll of May" || opened.State != counterfoil.TaskOpen {
		t.Fatalf("%+v, %v", opened, err)
	}
	in := o.asked[0]
	if in["expires_in"] != 90.0 || in["max_calls"] != 7.0 || in["parent"] != "tsk_above" || in["agent"] != "clerk" ||
		in["tools"].([]any)[0] != "bank/pay" || in["limits"].([]any)[0].(map[string]any)["max"] != "100.5" {
		t.Errorf("it asked for %v", in)
	}
	if _, err := tasks.Open(t.Context(), agent.OpenTask{Purpose: "plain"}); err != nil || len(o.asked[1]) != 1 {
		t.Errorf("%v, %v", o.asked[1], err)
	}
	if list, err := tasks.List(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if got, err := tasks.Show(t.Context(), opened.ID); err != nil || got.ID != opened.ID {
		t.Errorf("%+v, %v", got, err)
	}
	done, err := tasks.Complete(t.Context(), opened.ID, "all paid")
	if err != nil || done.State != counterfoil.TaskCompleted || done.Reason != "all paid" {
		t.Errorf("%+v, %v", done, err)
	}
	_, err = tasks.Complete(t.Context(), opened.ID, "")
	wantCode(t, err, counterfoil.TaskClosed)
	if got, err := tasks.Cancel(t.Context(), o.open("tsk_b"), "no more"); err != nil || got.State != counterfoil.TaskCancelled {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = tasks.Show(t.Context(), "tsk_nobody")
	wantCode(t, err, counterfoil.ToolUnknown)
	for _, id := range []string{"", "tsk_", "tsk_a/b", "tsk_..", "apr_1", "tsk_a?x=1"} {
		_, err := tasks.Show(t.Context(), id)
		if _, asked := counterfoil.AsRefusal(err); asked || err == nil {
			t.Errorf("%q was sent: %v", id, err)
		}
		if c := o.w.config(); id != "" {
			c.Task = id
			if _, err := agent.NewTransport(c); err == nil {
				t.Errorf("a transport took the task %q", id)
			}
		}
	}
}

// TestTheEndOfATaskIsToldOnce: whose answer was lost is not told that the task was
// closed already.
func TestTheEndOfATaskIsToldOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tasks := o.tasksAs(t, "")
	id := o.open("tsk_a")
	o.lose = "/complete"
	if got, err := tasks.Complete(t.Context(), id, "done"); err != nil || got.State != counterfoil.TaskCompleted || got.Reason != "done" {
		t.Errorf("%+v, %v", got, err)
	}
	id = o.open("tsk_b")
	o.lose = "/complete"
	o.close(id, counterfoil.TaskCancelled) // somebody else ended it
	_, err := tasks.Complete(t.Context(), id, "")
	wantCode(t, err, counterfoil.TaskClosed)
}

// TestTokensAreOfTheTask: every token request names it, and a token of a task that
// ended is given up at once, on the issuer's word.
func TestTokensAreOfTheTask(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	id := o.open("tsk_a")
	c := o.w.config()
	c.Task = id
	tr, err := agent.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	call := func() (int, string, error) {
		status, body, _, err := try(t, tr.Client(), "POST", o.w.resource, "pay")
		return status, body, err
	}
	if status, body, err := call(); err != nil || status != 200 || o.w.tasked[0] != id {
		t.Fatalf("%d %s, %v, for %q", status, body, err, o.w.tasked)
	}
	o.w.revoke("tok_1", counterfoil.TokenRevoked) // a new token is of the same task
	if status, _, err := call(); err != nil || status != 200 || len(o.w.tasked) != 2 || o.w.tasked[1] != id {
		t.Fatalf("%d, %v, for %q", status, err, o.w.tasked)
	}
	select {
	case <-tr.TaskClosed():
		t.Fatal("an open task counts as closed")
	default:
	}
	o.close(id, counterfoil.TaskCompleted)
	_, _, err = call()
	wantCode(t, err, counterfoil.TaskClosed)
	select {
	case <-tr.TaskClosed():
	default:
		t.Error("the closed task does not count as closed")
	}
	if !strings.Contains(err.Error(), "says the issuer") {
		t.Errorf("it is not the issuer's word: %v", err)
	}
}

// A resource that only says so closes nothing.
func TestAResourceClosesNoTask(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	c := o.w.config()
	c.Task = o.open("tsk_a")
	lies := 0
	o.w.onRequest = func(rw http.ResponseWriter, _ *http.Request) bool {
		lies++
		problem(rw, 401, counterfoil.TaskClosed, "over")
		return true
	}
	tr, err := agent.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	status, _, _, err := try(t, tr.Client(), "POST", o.w.resource, "pay")
	if err != nil || status != 401 || lies != 2 {
		t.Errorf("%d, %v, after %d answers", status, err, lies)
	}
	select {
	case <-tr.TaskClosed():
		t.Error("the task counts as closed")
	default:
	}
}

// TestConnectorEndsWithItsTask: over HTTP and over standard input and output the
// client that notices gets the refusal, and then the connector ends with it.
func TestConnectorEndsWithItsTask(t *testing.T) {
	t.Parallel()
	connector := func(t *testing.T) (*office, string, *agent.Connector) {
		o := newOffice(t)
		o.w.upstream = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			writeJSON(rw, 200, map[string]any{"jsonrpc": "2.0", "id": 7, "result": map[string]any{}})
		})
		c := o.w.config()
		c.Task = o.open("tsk_a")
		tr, err := agent.NewTransport(c)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := agent.NewConnector(agent.ConnectorConfig{Transport: tr, Log: o.w.logger()})
		if err != nil {
			t.Fatal(err)
		}
		return o, c.Task, conn
	}
	t.Run("http", func(t *testing.T) {
		t.Parallel()
		o, id, conn := connector(t)
		ln := listen(t)
		ended := make(chan error, 1)
		go func() { ended <- conn.Serve(t.Context(), ln) }()
		c := client(t, nil)
		if status, body, _ := do(t, c, "POST", conn.URL(ln), payCall); status != 200 {
			t.Fatalf("the control: %d %s", status, body)
		}
		o.close(id, counterfoil.TaskRevoked)
		status, body, _ := do(t, c, "POST", conn.URL(ln), payCall)
		if status != http.StatusBadGateway || !strings.Contains(body, `"code":"task_closed"`) {
			t.Fatalf("%d %s", status, body)
		}
		wantCode(t, <-ended, counterfoil.TaskClosed)
	})
	t.Run("stdio", func(t *testing.T) {
		t.Parallel()
		o, id, conn := connector(t)
		in, to := io.Pipe()
		defer to.Close()
		from, out := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- conn.Stdio(t.Context(), in, out)
			out.Close()
		}()
		say := func(id string) string { // ids differ: the one before may be running still
			if _, err := io.WriteString(to, strings.Replace(payCall, `"id":7`, `"id":`+id, 1)+"\n"); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			for one := make([]byte, 1); !bytes.HasSuffix(b.Bytes(), []byte("\n")); {
				if _, err := from.Read(one); err != nil {
					t.Fatalf("%v after %s", err, &b)
				}
				b.Write(one)
			}
			return b.String()
		}
		if answer := say("7"); !strings.Contains(answer, `"result"`) {
			t.Fatalf("the control: %s", answer)
		}
		o.close(id, counterfoil.TaskExpired)
		if answer := say("8"); !strings.Contains(answer, `"code":"task_closed"`) {
			t.Fatalf("%s", answer)
		}
		wantCode(t, <-ended, counterfoil.TaskClosed)
	})
}

// TestATokenThatRunsOutEndsNoWait: RTY-06. Each look and the repeated call have a
// token that lives, and an issuer that is away for a moment ends nothing.
func TestATokenThatRunsOutEndsNoWait(t *testing.T) {
	t.Parallel()
	t.Run("while it is looked at", func(t *testing.T) {
		t.Parallel()
		tokenRunsOut(t, newDesk(t), 2)
	})
	t.Run("while the call itself is repeated", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.w.resource = strings.Replace(d.w.resource, "127.0.0.1", "localhost", 1) // so no look is sent
		tokenRunsOut(t, d, 5)
	})
}

// tokenRunsOut has a call wait for 30 seconds with tokens that live for 8. The call is
// sent so many times.
func tokenRunsOut(t *testing.T, d *desk, calls int) {
	t.Helper()
	d.w.life = 8 // seconds; pauses are 5
	var away bool
	d.w.onToken = func(rw http.ResponseWriter, _ *http.Request) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		if away {
			refuseToken(rw, 503, "temporarily_unavailable", counterfoil.StoreUnavailable, "away")
		}
		return away
	}
	got := d.send(client(t, nil), serve(t, d.connector(), listen(t)), payCall)
	for range 3 {
		d.pass(t)
	}
	d.pass(t, func() { away = true })
	d.pass(t, d.decided(counterfoil.StateApproved))
	d.pass(t, func() { away = false })
	if a := <-got; !strings.Contains(a.body, "paid") {
		t.Errorf("%+v", a)
	}
	d.want(t, payCall, calls, 1)
	if n := d.w.tokens.Load(); n < 4 {
		t.Errorf("%d tokens for a wait of 30 seconds", n)
	}
}

// look401 serves the status of the approval, and refuses looks as the issuer does.
func (d *desk) look401(rw http.ResponseWriter, r *http.Request) {
	_, err := d.w.verifier.Check(r.Context(), resource.Request{Method: r.Method, URL: d.w.srv.URL + r.URL.Path, Resource: d.w.resource, Header: r.Header})
	if err != nil {
		problem(rw, 401, counterfoil.CodeOf(err), "no")
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	writeJSON(rw, 200, d.object())
}

// TestATaskThatClosesEndsTheWait: what can come to nothing any more is not waited for.
func TestATaskThatClosesEndsTheWait(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	o := &office{w: d.w, tasks: map[string]agent.Task{}}
	d.w.office = o
	c := d.w.config()
	c.Task = o.open("tsk_a")
	tr, err := agent.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := agent.NewConnector(agent.ConnectorConfig{Transport: tr, Wait: time.Hour, After: d.after, Log: d.w.logger()})
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- conn.Serve(t.Context(), ln) }()
	d.w.onLook = d.look401
	got := d.send(client(t, nil), conn.URL(ln), payCall)
	d.pass(t)
	<-d.asked // the look was answered
	o.close("tsk_a", counterfoil.TaskCancelled)
	d.ticks <- time.Time{}
	if a := <-got; a.status != http.StatusBadGateway || !strings.Contains(a.body, `"task_closed"`) {
		t.Errorf("%+v", a)
	}
	wantCode(t, <-ended, counterfoil.TaskClosed)
}

// TestRepetitionsKeepTheKey: RTY-02, RTY-03. What the transport and the waiter send
// again is the same call with the same Idempotency-Key, under proofs that were never
// sent before; the verifier would refuse any other.
func TestRepetitionsKeepTheKey(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.w.onLook = d.look401
	var keys []string
	proofs := map[string]bool{}
	d.w.revoke("tok_1", counterfoil.TokenRevoked) // so that the transport repeats it, too
	d.w.onRequest = func(_ http.ResponseWriter, r *http.Request) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		proofs[r.Header.Get("DPoP")] = true
		return false
	}
	got := make(chan answered, 1)
	url := serve(t, d.connector(), listen(t))
	go func() {
		var a answered
		a.status, a.body, a.header, a.err = try(t, client(t, nil), "POST", url, payCall, "Content-Type", "application/json", "Accept", "application/json", "Idempotency-Key", "may")
		got <- a
	}()
	d.pass(t, d.decided(counterfoil.StateApproved))
	if a := <-got; !strings.Contains(a.body, "paid") {
		t.Fatalf("%+v", a)
	}
	if len(keys) != 3 || len(proofs) != len(keys) || strings.Join(keys, "") != strings.Repeat("may", len(keys)) {
		t.Errorf("%d requests with %d proofs and the keys %q", len(keys), len(proofs), keys)
	}
}

func TestReportLeak(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	if err := agent.ReportLeak(t.Context(), o.w.issuer, counterfoil.NewSecret("cfe_found"), o.w.srv.Client()); err != nil || len(o.leaks) != 1 || o.leaks[0] != "cfe_found" {
		t.Errorf("%q, %v", o.leaks, err)
	}
	if err := agent.ReportLeak(t.Context(), o.w.issuer, counterfoil.Secret{}, o.w.srv.Client()); err == nil {
		t.Error("nothing was reported")
	}
	if err := agent.ReportLeak(t.Context(), "http://192.0.2.1", counterfoil.NewSecret("x"), nil); err == nil {
		t.Error("a secret was sent in plain text")
	}
	if err := agent.ReportLeak(t.Context(), o.w.srv.URL+"/elsewhere", counterfoil.NewSecret("x"), o.w.srv.Client()); err == nil || strings.Contains(err.Error(), `"x"`) {
		t.Errorf("not taken: %v", err)
	}
}
