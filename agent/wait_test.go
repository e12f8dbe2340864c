package agent_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/resource"
)

// A desk is a gateway's end of approvals: behind the real verifier, it refuses
// calls until people said yes, and runs each approved one once.
type desk struct {
	w     *world
	ticks chan time.Time
	asked chan time.Duration // the pauses that the waiter made

	mu       sync.Mutex
	plain    bool   // answers in plain HTTP
	endpoint string // of the status; empty for the right one
	state    counterfoil.ApprovalState
	look     int // status of a look; 0 for 200
	clock    time.Time
	calls    []string // bodies
	named    []string // approvals that they named
	runs     int
	looks    int
	breaks   bool // a run's connection breaks before the answer
}

const approvalID = "apr_abcdefghijklmnopqrstuvwxyz"

func newDesk(t *testing.T) *desk {
	d := &desk{ticks: make(chan time.Time), asked: make(chan time.Duration, 64), state: counterfoil.StatePending, clock: time.Now()}
	d.w = newWorld(t, http.HandlerFunc(d.call))
	d.w.now = func() time.Time {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.clock
	}
	d.w.onLook = d.status
	return d
}

// after makes the pauses; each ends when the test says so.
func (d *desk) after(p time.Duration) <-chan time.Time {
	d.asked <- p
	return d.ticks
}

// pass lets one pause go by, in which what is given happens, and returns how long
// it was. The look before it is over.
func (d *desk) pass(t *testing.T, happens ...func()) time.Duration {
	t.Helper()
	p := <-d.asked
	d.set(func() {
		d.clock = d.clock.Add(p)
		for _, f := range happens {
			f()
		}
	})
	d.ticks <- time.Time{}
	return p
}

func (d *desk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// decided makes a state be so.
func (d *desk) decided(s counterfoil.ApprovalState) func() { return func() { d.state = s } }

func (d *desk) object() counterfoil.ApprovalStatus {
	s := counterfoil.ApprovalStatus{
		ID: approvalID, Status: string(d.state), StatusEndpoint: d.w.issuer + "/approvals/" + approvalID, Interval: 5,
		ExpiresAt: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), ApprovalsRequired: 2, Digest: "sha-256:abc",
	}
	if d.endpoint != "" {
		s.StatusEndpoint = d.endpoint
	}
	return s
}

func (d *desk) status(rw http.ResponseWriter, r *http.Request) {
	_, err := d.w.verifier.Check(r.Context(), resource.Request{Method: r.Method, URL: d.w.srv.URL + r.URL.Path, Resource: d.w.resource, Header: r.Header})
	if err != nil {
		d.w.t.Errorf("a look without a good token and proof: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looks++
	if d.look != 0 {
		rw.WriteHeader(d.look)
		return
	}
	writeJSON(rw, 200, d.object())
}

func (d *desk) call(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls, d.named = append(d.calls, string(body)), append(d.named, r.Header.Get("Counterfoil-Approval"))
	code := map[counterfoil.ApprovalState]counterfoil.Code{
		counterfoil.StatePending: counterfoil.ApprovalPending, counterfoil.StateDenied: counterfoil.ApprovalDenied,
		counterfoil.StateExpired: counterfoil.ApprovalExpired, counterfoil.StateSucceeded: counterfoil.ApprovalSpent,
	}[d.state]
	if code == counterfoil.ApprovalPending && len(d.calls) == 1 {
		code = counterfoil.ApprovalRequired
	}
	if code == "" {
		d.runs++
		d.state = counterfoil.StateSucceeded
		if d.breaks {
			panic(http.ErrAbortHandler)
		}
		writeJSON(rw, 200, map[string]any{"jsonrpc": "2.0", "id": 7, "result": map[string]any{"content": []any{map[string]any{"type": "text", "text": "paid"}}}})
		return
	}
	refusal := map[string]any{"code": code, "detail": fmt.Sprintf("call %d", len(d.calls)), "request_id": "req_1", "approval": d.object()}
	if d.plain {
		rw.Header().Set("Content-Type", counterfoil.ProblemMedia)
		rw.WriteHeader(http.StatusForbidden)
		b, _ := json.Marshal(refusal)
		_, _ = rw.Write(b)
		return
	}
	writeJSON(rw, 200, map[string]any{"jsonrpc": "2.0", "id": 7, "result": map[string]any{
		"isError": true, "_meta": map[string]any{"counterfoil/refusal": refusal}, "content": []any{map[string]any{"type": "text", "text": "held"}},
	}})
}

// connector waits for 50 seconds of the desk's clock.
func (d *desk) connector() *agent.Connector {
	d.w.t.Helper()
	c, err := agent.NewConnector(agent.ConnectorConfig{Transport: d.w.transport(), Wait: agent.DefaultWait, After: d.after, Log: d.w.logger()})
	if err != nil {
		d.w.t.Fatal(err)
	}
	return c
}

// An answered is what a client got.
type answered struct {
	status int
	body   string
	header http.Header
	err    error
}

const (
	payCall     = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","arguments":{"to":"acme","amount":100}}}`
	payProgress = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","arguments":{"to":"acme"},"_meta":{"progressToken":"p/1"}}}`
)

// send sends a call in the background.
func (d *desk) send(c *http.Client, url, body string) <-chan answered {
	got := make(chan answered, 1)
	go func() {
		var a answered
		a.status, a.body, a.header, a.err = try(d.w.t, c, "POST", url, body, "Content-Type", "application/json", "Accept", "application/json, text/event-stream")
		got <- a
	}()
	return got
}

// want holds what reached the gateway against what should have.
func (d *desk) want(t *testing.T, body string, calls, runs int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.calls) != calls || d.runs != runs {
		t.Errorf("%d calls and %d runs, want %d and %d", len(d.calls), d.runs, calls, runs)
	}
	for i, c := range d.calls {
		if c != body {
			t.Errorf("call %d was %s, want %s", i, c, body)
		}
		if want := map[bool]string{true: approvalID}[i > 0]; d.named[i] != want {
			t.Errorf("call %d named %q, want %q", i, d.named[i], want)
		}
	}
}

func TestAHeldCallRunsOnceWhenPeopleSaidYes(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		d := newDesk(t)
		d.plain = plain
		ln, err := agent.ListenUnix(filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		for name, at := range map[string]struct {
			client *http.Client
			ln     net.Listener
		}{
			"loopback": {client(t, nil), listen(t)},
			"unix": {client(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", ln.Addr().String())
			}), ln},
		} {
			d.set(func() { d.state, d.calls, d.named, d.runs, d.looks = counterfoil.StatePending, nil, nil, 0, 0 })
			url := serve(t, d.connector(), at.ln)
			if name == "unix" {
				url = "http://local/"
			}
			got := d.send(at.client, url, payCall)
			if p := d.pass(t); p != 5*time.Second {
				t.Errorf("%s: the first pause was %v, and the server said 5 s", name, p)
			}
			d.pass(t)
			d.pass(t, d.decided(counterfoil.StateApproved))
			a := <-got
			if a.err != nil || a.status != 200 || !strings.Contains(a.body, "paid") {
				t.Errorf("%s: %+v", name, a)
			}
			d.want(t, payCall, 2, 1) // the looks told when it was worth it
			if d.looks != 3 {
				t.Errorf("%s: %d looks, want 3", name, d.looks)
			}
		}
	}
}

func TestAHeldCallOverStdio(t *testing.T) {
	t.Parallel()
	for body, events := range map[string]int{payCall: 0, payProgress: 2} {
		d := newDesk(t)
		s := startStdio(t, d.connector())
		s.send(body)
		for i := range events {
			line := s.next()
			if !strings.Contains(line, `"method":"notifications/progress"`) || !strings.Contains(line, `"progressToken":"p/1"`) ||
				!strings.Contains(line, fmt.Sprintf(`"progress":%d,`, i+1)) && !strings.Contains(line, fmt.Sprintf(`"progress":%d}`, i+1)) {
				t.Errorf("notification %d is %s", i, line)
			}
			if i == 0 {
				d.pass(t)
			}
		}
		d.pass(t, d.decided(counterfoil.StateApproved))
		if line := s.next(); !strings.Contains(line, "paid") || !strings.HasPrefix(line, `{"`) {
			t.Errorf("the answer is %s", line)
		}
		s.close()
		d.want(t, body, 2, 1)
	}
}

func TestAHeldCallEndsWithWhatWasDecided(t *testing.T) {
	t.Parallel()
	for state, code := range map[counterfoil.ApprovalState]counterfoil.Code{
		counterfoil.StateDenied: counterfoil.ApprovalDenied, counterfoil.StateExpired: counterfoil.ApprovalExpired,
		counterfoil.StateSucceeded: counterfoil.ApprovalSpent,
	} {
		d := newDesk(t)
		got := d.send(client(t, nil), serve(t, d.connector(), listen(t)), payCall)
		d.pass(t)
		d.pass(t, d.decided(state))
		if a := <-got; a.status != 200 || !strings.Contains(a.body, `"`+string(code)+`"`) {
			t.Errorf("%s: %+v", state, a)
		}
		d.want(t, payCall, 2, 0)
	}
}

// The wait ends below the clients' minute, and what they then get is the
// refusal that the gateway gave, to the byte.
func TestAHeldCallGivesTheRefusalWhenTheTimeIsOver(t *testing.T) {
	t.Parallel()
	for _, body := range []string{payCall, payProgress} {
		d := newDesk(t)
		start := d.w.now()
		got := d.send(client(t, nil), serve(t, d.connector(), listen(t)), body)
		var waited time.Duration
		for waited < agent.DefaultWait {
			waited += d.pass(t)
		}
		a := <-got
		if waited != agent.DefaultWait || d.w.now().Sub(start) > 55*time.Second {
			t.Errorf("it waited %v", waited)
		}
		if a.status != 200 || !strings.Contains(a.body, `"approval_required"`) || !strings.Contains(a.body, "call 1") {
			t.Errorf("%+v", a)
		}
		if body == payProgress {
			wantStream(t, a, 11)
		} else if a.header.Get("Content-Type") != "application/json" {
			t.Errorf("the answer is %v", a.header)
		}
		d.want(t, body, 1, 0)
	}
}

// wantStream wants a stream with growing progress and the answer at its end.
func wantStream(t *testing.T, a answered, notices int) {
	t.Helper()
	if a.header.Get("Content-Type") != "text/event-stream" || a.header.Get("Content-Length") != "" {
		t.Errorf("the answer is no stream: %v", a.header)
	}
	var progress []float64
	events := strings.Split(strings.TrimSpace(a.body), "\n\n")
	for i, e := range events {
		var m struct {
			ID     int    `json:"id"`
			Method string `json:"method"`
			Params struct {
				Token    string  `json:"progressToken"`
				Progress float64 `json:"progress"`
				Message  string  `json:"message"`
			} `json:"params"`
		}
		data, ok := strings.CutPrefix(e, "event: message\ndata: ")
		if err := json.Unmarshal([]byte(data), &m); !ok || err != nil {
			t.Fatalf("event %d is %q (%v)", i, e, err)
		}
		if i == len(events)-1 {
			if m.ID != 7 {
				t.Errorf("the last event is %s", e)
			}
			break
		}
		if m.Method != "notifications/progress" || m.Params.Token != "p/1" || m.Params.Message != "waiting for 2 people to say yes to "+approvalID+", until 2030-01-01T00:00:00Z" {
			t.Errorf("event %d is %s", i, e)
		}
		progress = append(progress, m.Params.Progress)
	}
	if len(progress) != notices || !slices.IsSorted(progress) || len(slices.Compact(progress)) != notices {
		t.Errorf("the progress is %v, want %d that grow", progress, notices)
	}
}

func TestAClientThatGoesEndsTheWait(t *testing.T) {
	t.Parallel()
	for _, body := range []string{payCall, payProgress} {
		d := newDesk(t)
		connector := d.connector()
		ended := make(chan struct{}, 2)
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			defer func() { ended <- struct{}{} }()
			connector.ServeHTTP(rw, r)
		}))
		t.Cleanup(srv.Close)
		url := connector.URL(srv.Listener)
		ctx, leave := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/json, text/event-stream")
		gone := make(chan struct{})
		c := client(t, nil)
		go func() {
			defer close(gone)
			if resp, err := c.Do(req); err == nil {
				_, _ = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
		}()
		p := <-d.asked
		leave()
		<-gone
		<-ended
		d.set(func() { d.clock, d.state = d.clock.Add(p), counterfoil.StateApproved })
		// Whoever comes next is served, and finds the approval; the wait of the
		// one that left takes no part in it.
		if a := <-d.send(client(t, nil), url, body); !strings.Contains(a.body, "paid") {
			t.Errorf("the next client got %+v", a)
		}
		if d.runs != 1 || len(d.calls) != 2 || d.looks != 0 {
			t.Errorf("%d runs of %d calls after %d looks", d.runs, len(d.calls), d.looks)
		}
	}
}

func TestWhatIsNotHeld(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*desk)
		calls  int
		passes int
	}{
		"what was denied":         {func(d *desk) { d.state = counterfoil.StateDenied }, 1, 0},
		"what was spent":          {func(d *desk) { d.state = counterfoil.StateSucceeded }, 1, 0},
		"an approval nobody made": {func(d *desk) { d.look = 404 }, 1, 1}, // an upstream could have made the refusal up
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			tt.change(d)
			got := d.send(client(t, nil), serve(t, d.connector(), listen(t)), payCall)
			for range tt.passes {
				d.pass(t)
			}
			if a := <-got; a.status != 200 || !strings.Contains(a.body, "counterfoil/refusal") {
				t.Errorf("%+v", a)
			}
			d.want(t, payCall, tt.calls, 0)
		})
	}

	// Without a wait the refusal comes at once.
	d := newDesk(t)
	if a := <-d.send(client(t, nil), serve(t, d.w.connector(), listen(t)), payProgress); !strings.Contains(a.body, "approval_required") || d.looks != 0 {
		t.Errorf("%+v after %d looks", a, d.looks)
	}
}

// A refusal that names another place for the status is not the gateway's.
func TestTheStatusIsAskedForOnlyWhereItIs(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/elsewhere", "/id/approvals/apr_another", "/id/approvals/" + approvalID + "/", "/r/crm/customers"} {
		d := newDesk(t)
		d.endpoint = d.w.srv.URL + path
		if path == "/elsewhere" {
			d.endpoint = "https://evil.example/approvals/" + approvalID
		}
		for _, body := range []string{payCall, payProgress} {
			if a := <-d.send(client(t, nil), serve(t, d.connector(), listen(t)), body); a.status != 200 || a.header.Get("Content-Type") != "application/json" || !strings.Contains(a.body, "counterfoil/refusal") {
				t.Errorf("%s: %+v", path, a)
			}
		}
		if len(d.calls) != 2 || d.looks != 0 || len(d.asked) != 0 {
			t.Errorf("%s: %d calls, %d looks, %d pauses", path, len(d.calls), d.looks, len(d.asked))
		}
	}
}

// A token and its proofs go to the resource's origin alone: where the issuer has
// another one, the call itself says whether it still waits.
func TestTheCallItselfIsRepeatedWhereTheStatusCannotBeHad(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.w.resource = strings.Replace(d.w.resource, "127.0.0.1", "localhost", 1)
	got := d.send(client(t, nil), serve(t, d.connector(), listen(t)), payCall)
	d.pass(t)
	d.pass(t, d.decided(counterfoil.StateApproved))
	if a := <-got; !strings.Contains(a.body, "paid") {
		t.Errorf("%+v", a)
	}
	d.want(t, payCall, 3, 1)
	if d.looks != 0 {
		t.Errorf("%d looks", d.looks)
	}
}

func TestACallThatMayHaveRunIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, body := range []string{payCall, payProgress} {
		d := newDesk(t)
		d.breaks = true
		got := d.send(client(t, nil), serve(t, d.connector(), listen(t)), body)
		d.pass(t, d.decided(counterfoil.StateApproved))
		a := <-got
		if body == payCall && a.status != http.StatusBadGateway || body == payProgress && !strings.Contains(a.body, `"error"`) || strings.Contains(a.body, "paid") {
			t.Errorf("%+v", a)
		}
		d.want(t, body, 2, 1)
	}
}

func TestAServerMaySlowLooksDown(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.look = http.StatusTooManyRequests
	got := d.send(client(t, nil), serve(t, d.connector(), listen(t)), payCall)
	for _, want := range []time.Duration{5, 10, 15} {
		if p := d.pass(t); p != want*time.Second {
			t.Errorf("the pause was %v, want %d s", p, want)
		}
	}
	d.pass(t, func() { d.look, d.state = 0, counterfoil.StateApproved })
	if a := <-got; !strings.Contains(a.body, "paid") {
		t.Errorf("%+v", a)
	}
	d.want(t, payCall, 2, 1)
}
