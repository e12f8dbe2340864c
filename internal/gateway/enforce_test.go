package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// A feedHook calls a function before the feed is asked.
type feedHook struct {
	gateway.Feed
	asked func(after int64)
}

func (f feedHook) RevocationFeed(ctx context.Context, after int64) (counterfoil.RevocationFeed, error) {
	f.asked(after)
	return f.Feed.RevocationFeed(ctx, after)
}

// A recorderHook calls a function before an entry is appended that says what is enforced.
type recorderHook struct {
	gateway.Recorder
	enforced func() error
}

func (r recorderHook) Append(ctx context.Context, e *ledger.Entry) error {
	if e.Kind == ledger.RevocationEnforced {
		if err := r.enforced(); err != nil {
			return err
		}
	}
	return r.Recorder.Append(ctx, e)
}

// followed is a world whose gateway follows what is revoked, and has nothing else to find
// it by: its looks at open streams are an hour apart.
func followed(t *testing.T, change func(*gateway.Config)) *world {
	t.Helper()
	up := make(chan struct{})
	var once sync.Once
	w := newWorld(t, http.HandlerFunc(sessionUpstream), func(reg *counterfoil.Registry, cfg *gateway.Config) {
		reg.People["ben"] = &counterfoil.Person{Name: "ben"}
		reg.Agents["other"].Owner = "ben"
		cfg.Feed = feedHook{cfg.Recorder.(*log), func(after int64) {
			if after >= 0 {
				once.Do(func() { close(up) })
			}
		}}
		if change != nil {
			change(cfg)
		}
	})
	w.gateway.LookEvery(time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.gateway.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	select {
	case <-up:
	case <-t.Context().Done():
		t.Fatal("it does not follow")
	}
	return w
}

// A tap is an open stream of a client, and what its upstream says on it.
type tap struct {
	t       *testing.T
	session string
	body    io.ReadCloser
	lines   *bufio.Reader
	say     chan string
}

// listen opens a stream. Only the first of a session says that there is one.
func (a *actor) listen(t *testing.T) *tap {
	t.Helper()
	a.w.upstream.handle(http.HandlerFunc(sessionUpstream))
	p := &tap{t: t, session: openSession(t, a), say: make(chan string)}
	a.w.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for {
			select {
			case text := <-p.say:
				io.WriteString(w, text)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	res, err := a.w.client.Do(a.request(http.MethodGet, "", func(r *http.Request) { r.Header.Set("Mcp-Session-Id", p.session) }))
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the stream got %d", res.StatusCode)
	}
	p.body, p.lines = res.Body, bufio.NewReader(res.Body)
	t.Cleanup(func() { p.body.Close() })
	return p
}

// flows checks that what the upstream says arrives.
func (p *tap) flows() {
	p.t.Helper()
	p.say <- "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n"
	line, err := p.lines.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "data: ") {
		p.t.Fatalf("the stream says %q, %v", line, err)
	}
	if _, err := p.lines.ReadString('\n'); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits until the stream ends.
func (p *tap) ends() {
	p.t.Helper()
	if b, err := io.ReadAll(p.lines); err != nil || len(b) > 0 {
		p.t.Errorf("the stream ended with %q, %v", b, err)
	}
}

// enforced waits for as many entries of what is enforced.
func (w *world) enforced(n int) []ledger.Entry {
	w.t.Helper()
	for {
		size, _ := w.log.Head()
		found, err := w.log.Find(w.t.Context(), ledger.Filter{Kind: ledger.RevocationEnforced})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(found) >= n {
			out := make([]ledger.Entry, len(found))
			for i, e := range found {
				out[len(found)-1-i] = *e
			}
			return out
		}
		if err := w.log.Wait(w.t.Context(), size); err != nil {
			w.t.Fatalf("the entry never came: %v", err)
		}
	}
}

// TestARevocationCutsOpenStreams is RV7 and TP17: whatever is revoked, the streams that
// hang on it end, those that do not go on, and the log says when.
func TestARevocationCutsOpenStreams(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		revoke func(w *world, a *actor) int64 // the index of the entry
		spares bool                           // the other agent's stream
	}{
		{"agent", func(w *world, a *actor) int64 { return w.log.revokeTarget(counterfoil.TargetAgent, a.name) }, true},
		{"instance", func(w *world, a *actor) int64 { return w.log.revokeTarget(counterfoil.TargetInstance, a.instance) }, true},
		{"key", func(w *world, a *actor) int64 {
			return w.log.revokeTarget(counterfoil.TargetKey, a.signer.Public().Thumbprint())
		}, true},
		{"owner", func(w *world, _ *actor) int64 { return w.log.revokeTarget(counterfoil.TargetOwner, "ana") }, true},
		{"person", func(w *world, _ *actor) int64 { return w.log.revokeTarget(counterfoil.TargetPerson, "ana") }, true},
		{"task", func(w *world, a *actor) int64 { return w.log.revokeTarget(counterfoil.TargetTask, a.task) }, true},
		{"task that is completed", func(w *world, a *actor) int64 {
			e := &ledger.Entry{Kind: ledger.TaskClosed, Task: a.task}
			if _, err := w.log.CloseTask(t.Context(), a.task, counterfoil.TaskCompleted, "done", e); err != nil {
				t.Error(err)
			}
			return e.Index
		}, true},
		{"token", func(w *world, a *actor) int64 {
			e := &ledger.Entry{Kind: ledger.Revoked, Actor: "uid:0"}
			_, _, err := w.log.Revoke(t.Context(), counterfoil.Revocation{
				Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: a.sent}, Agent: a.name, Expires: w.clock.Now().Add(5 * time.Minute),
			}, e)
			if err != nil {
				t.Error(err)
			}
			return e.Index
		}, true},
		{"resource", func(w *world, _ *actor) int64 { return w.log.revokeTarget(counterfoil.TargetResource, "bank") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := followed(t, nil)
			a, other := w.actor("payroll"), w.actor("other")
			bystander := other.listen(t)
			a.begin(nil)
			stream := a.listen(t)
			stream.flows()
			bystander.flows()
			index := tc.revoke(w, a)
			stream.ends()
			e := w.enforced(1)[0]
			if e.View.Seq != index || e.Index <= index || e.Detail["point"] != "gateway" || e.Detail["latency_us"] == nil {
				t.Errorf("the entry is %+v, the revocation was %d", e, index)
			}
			if tc.spares {
				bystander.flows()
				if e.Detail["streams"] != 1.0 {
					t.Errorf("%v were cut", e.Detail["streams"])
				}
			} else {
				bystander.ends()
				if e.Detail["streams"] != 2.0 {
					t.Errorf("%v were cut", e.Detail["streams"])
				}
			}
			// The session does not outlive it either, nor may it be resumed.
			if tc.name != "token" { // the actor gets another one for each request
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					body := ""
					if method == http.MethodPost {
						body = ping
					}
					if r := a.do(a.request(method, body, func(r *http.Request) { r.Header.Set("Mcp-Session-Id", stream.session) })); r.status != http.StatusUnauthorized {
						t.Errorf("%s in the session got %d %s", method, r.status, r.body)
					}
				}
			}
			if tc.spares {
				bystander.body.Close() // or the server would wait for it
			}
		})
	}
}

// TestASlowFeedIsNotTheOnlyNet: what the feed does not say in time is found by looking.
func TestASlowFeedIsNotTheOnlyNet(t *testing.T) {
	t.Parallel()
	slow := make(chan struct{})
	w := newWorld(t, http.HandlerFunc(sessionUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
		cfg.Feed = feedHook{cfg.Recorder.(*log), func(after int64) {
			if after >= 0 {
				<-slow
			}
		}}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.gateway.Run(ctx)
	}()
	a := w.actor("payroll")
	stream := a.listen(t)
	stream.flows()
	index := w.log.revokeTarget(counterfoil.TargetInstance, a.instance)
	stream.ends()
	for _, e := range w.enforced(0) {
		if e.View.Seq >= index {
			t.Errorf("it is told before the feed said it: %+v", e)
		}
	}
	close(slow)
	found := w.enforced(1)
	if e := found[len(found)-1]; e.View.Seq != index || e.Detail["streams"] != 1.0 {
		t.Errorf("the entry is %+v", e)
	}
	cancel()
	<-done
}

// TestAClientThatDoesNotReadIsCutToo: a stream that is stuck in a write keeps neither
// itself open nor the receipt waiting.
func TestAClientThatDoesNotReadIsCutToo(t *testing.T) {
	t.Parallel()
	w := followed(t, nil)
	a := w.actor("payroll")
	stream := a.listen(t)
	stream.flows()
	big := "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"x\":\"" + strings.Repeat("x", 1<<20) + "\"}}\n\n"
	stuck := false
	for range 64 {
		select {
		case stream.say <- big:
		case <-time.After(300 * time.Millisecond): // neither side takes any more
			stuck = true
		}
		if stuck {
			break
		}
	}
	if !stuck {
		t.Fatal("the client takes everything unread")
	}
	index := w.log.revokeTarget(counterfoil.TargetInstance, a.instance)
	began := time.Now()
	if e := w.enforced(1)[0]; e.View.Seq != index || e.Detail["streams"] != 1.0 || time.Since(began) > 10*time.Second {
		t.Errorf("after %s the entry is %+v", time.Since(began), e)
	}
	if e := w.log.waitEnds(2)[1]; e.Outcome != ledger.OutcomeUnknown || e.Code != counterfoil.TokenRevoked {
		t.Errorf("the end is %+v", e)
	}
}

// TestManyRevocationsAreFewReceipts: while one is on its way the others gather, and the
// streams of those are cut all the same.
func TestManyRevocationsAreFewReceipts(t *testing.T) {
	t.Parallel()
	first, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w := followed(t, func(cfg *gateway.Config) {
		cfg.Recorder = recorderHook{cfg.Recorder, func() error {
			once.Do(func() { close(first) })
			<-release
			return nil
		}}
	})
	late := w.actor("payroll")
	stream := late.listen(t)
	stream.flows()
	last := w.log.revokeTarget(counterfoil.TargetInstance, w.actor("payroll").instance)
	<-first
	for range 20 {
		last = w.log.revokeTarget(counterfoil.TargetInstance, w.actor("payroll").instance)
	}
	last = max(last, w.log.revokeTarget(counterfoil.TargetInstance, late.instance))
	stream.ends() // although the receipt before is not recorded yet
	close(release)
	found := w.enforced(2)
	for found[len(found)-1].View.Seq < last {
		found = w.enforced(len(found) + 1)
	}
	if len(found) > 3 {
		t.Errorf("22 revocations are %d entries", len(found))
	}
	streams := 0.0
	for _, e := range found {
		streams += e.Detail["streams"].(float64)
	}
	if streams != 1 {
		t.Errorf("%v streams were cut", streams)
	}
}

// TestAReceiptIsTriedAgain: what is not recorded is told later.
func TestAReceiptIsTriedAgain(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	w := followed(t, func(cfg *gateway.Config) {
		cfg.Recorder = recorderHook{cfg.Recorder, func() error {
			if tries.Add(1) == 1 {
				return errors.New("the disk is full")
			}
			return nil
		}}
	})
	index := w.log.revokeTarget(counterfoil.TargetInstance, w.actor("payroll").instance)
	if e := w.enforced(1)[0]; e.View.Seq != index || tries.Load() != 2 {
		t.Errorf("after %d tries the entry is %+v", tries.Load(), e)
	}
}

// TestWhatTakesNothingHasNoReceipt: an agent that is new takes nothing from anybody, and
// one whose tokens are void does.
func TestWhatTakesNothingHasNoReceipt(t *testing.T) {
	t.Parallel()
	w := followed(t, nil)
	w.apply(func(reg *counterfoil.Registry) {
		reg.Agents["new"] = &counterfoil.Agent{Name: "new", Owner: "ana", Environment: "prod"}
	})
	w.log.apply(w.registry)
	if state := w.log.AgentState("new"); state.Status != counterfoil.Active {
		t.Fatalf("the agent is %+v", state)
	}
	index := w.log.revokeTarget(counterfoil.TargetAgent, "other")
	if e := w.enforced(1)[0]; e.View.Seq != index {
		t.Errorf("the first entry is %+v", e)
	}
	// The new one is known by now.
	index = w.log.revokeTarget(counterfoil.TargetAgent, "new")
	if e := w.enforced(2)[1]; e.View.Seq != index {
		t.Errorf("the second entry is %+v", e)
	}
	// A person has no token, and no agent here; that they may do nothing is in force at once.
	w.apply(func(reg *counterfoil.Registry) { reg.People["dee"] = &counterfoil.Person{Name: "dee"} })
	w.log.apply(w.registry)
	index = w.log.revokeTarget(counterfoil.TargetPerson, "dee")
	if e := w.enforced(3)[2]; e.View.Seq != index || e.Detail["streams"] != float64(0) {
		t.Errorf("the third entry is %+v", e)
	}
}

// TestAPanickingFeedEndsNothing: it is asked again, and the gateway goes on.
func TestAPanickingFeedEndsNothing(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	w := followed(t, func(cfg *gateway.Config) {
		inner := cfg.Feed
		cfg.Feed = feedHook{inner, func(after int64) {
			if after >= 0 && asked.Add(1) == 2 {
				panic("a feed that is out of order")
			}
		}}
		// The first question says that it follows.
	})
	w.log.revokeTarget(counterfoil.TargetInstance, w.actor("payroll").instance) // is answered, and the next question panics
	w.enforced(1)
	index := w.log.revokeTarget(counterfoil.TargetInstance, w.actor("payroll").instance)
	if e := w.enforced(2)[1]; e.View.Seq != index {
		t.Errorf("the entry is %+v", e)
	}
}

// TestAHeldCallOfWhoIsRevokedNeverRuns: people said yes, and then what it hangs on was
// taken away. It is the same where the call is repeated by its agent.
func TestAHeldCallOfWhoIsRevokedNeverRuns(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(o *office, a *actor){
		"nothing":  nil,
		"agent":    func(o *office, a *actor) { o.log.revokeTarget(counterfoil.TargetAgent, a.name) },
		"instance": func(o *office, a *actor) { o.log.revokeTarget(counterfoil.TargetInstance, a.instance) },
		"key":      func(o *office, a *actor) { o.log.revokeTarget(counterfoil.TargetKey, a.signer.Public().Thumbprint()) },
		"task":     func(o *office, a *actor) { o.close(a.task) },
		"resource": func(o *office, _ *actor) { o.log.revokeTarget(counterfoil.TargetResource, "bank") },
		"owner":    func(o *office, _ *actor) { o.log.revokeTarget(counterfoil.TargetOwner, "ana") },
		"approver": func(o *office, _ *actor) { o.log.revokeTarget(counterfoil.TargetPerson, "bo") },
		"token": func(o *office, a *actor) {
			_, news, err := o.log.Revoke(t.Context(), counterfoil.Revocation{
				Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: a.sent}, Agent: a.name, Expires: o.clock.Now().Add(5 * time.Minute),
			}, &ledger.Entry{Kind: ledger.Revoked, Actor: "uid:0"})
			if err != nil || !news {
				t.Errorf("revoking a token: %v, %v", news, err)
			}
		},
	} {
		for _, wait := range []time.Duration{0, 10 * time.Minute} {
			t.Run(fmt.Sprintf("%s, made %s later", name, wait), func(t *testing.T) {
				t.Parallel()
				o, a := newOffice(t, nil, nil)
				a.begin(nil)
				id := a.ask(resetTool, `{}`, nil).Result.TaskID
				if wait == 0 {
					o.approve(id)
				}
				if revoke != nil {
					revoke(o, a)
				}
				o.clock.Advance(wait)
				if o.state(id).State == counterfoil.StatePending && name != "approver" {
					o.approve(id) // as if nobody had been told
				}
				if name == "approver" {
					o.clock.Advance(wait) // what nobody decides on expires
				}
				stop := o.run()
				if err := o.engine.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := o.leaves(id, counterfoil.StatePending, counterfoil.StateApproved, counterfoil.StateSpent)
				stop()
				if want := revoke == nil; (s == counterfoil.StateSucceeded) != want || (o.paid() == 1) != want {
					t.Errorf("it is %s, %d ran", s, o.paid())
				}
			})
		}
	}
}

// A stuckWriter is a client's side that takes nothing until it is let go, whatever
// deadline it is given.
type stuckWriter struct {
	header  http.Header
	begun   chan struct{}
	release chan struct{}
	once    sync.Once
}

func (s *stuckWriter) Header() http.Header { return s.header }
func (s *stuckWriter) WriteHeader(int)     {}
func (s *stuckWriter) Flush()              {}
func (s *stuckWriter) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.release
	return len(b), nil
}

// TestAReceiptIsOfWhatIsReallyGone: as long as something may still be written to a client
// nobody says that it is cut, and no later revocation says it either.
func TestAReceiptIsOfWhatIsReallyGone(t *testing.T) {
	t.Parallel()
	var released atomic.Bool
	asked := make(chan int64, 16)
	w := followed(t, func(cfg *gateway.Config) {
		cfg.Recorder = recorderHook{cfg.Recorder, func() error {
			if !released.Load() {
				t.Error("it is recorded while a client is still written to")
			}
			return nil
		}}
		cfg.Feed = feedHook{cfg.Feed, func(after int64) { asked <- after }}
	})
	known := func(index int64) {
		for after := range asked {
			if after >= index {
				return
			}
		}
	}
	a := w.actor("payroll")
	w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if !strings.Contains(string(body), `"tools/call"`) {
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			jsonUpstream(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(rw, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	client := &stuckWriter{header: http.Header{}, begun: make(chan struct{}), release: make(chan struct{})}
	served := make(chan struct{})
	request := a.signed("get_balance")
	go func() {
		defer close(served)
		w.gateway.ServeHTTP(client, request)
	}()
	<-client.begun
	w.log.revokeTarget(counterfoil.TargetInstance, a.instance)
	// A stream that is not stuck is cut meanwhile.
	other := w.actor("other")
	stream := other.listen(t)
	stream.flows()
	last := w.log.revokeTarget(counterfoil.TargetInstance, other.instance)
	stream.ends()
	known(last)
	for range 3 { // whoever wanted to record something has had the time
		w.log.revokeTarget(counterfoil.TargetInstance, w.actor("other").instance)
	}
	if n := len(w.enforced(0)); n != 0 {
		t.Errorf("%d entries are there", n)
	}
	released.Store(true)
	close(client.release)
	<-served
	for found := w.enforced(1); found[len(found)-1].View.Seq < last; {
		found = w.enforced(len(found) + 1)
	}
}
