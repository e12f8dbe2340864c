package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// signed makes a signed call of a tool, which goes to the gateway without a connection.
func (a *actor) signed(tool string) *http.Request {
	a.w.t.Helper()
	return a.signedWith(tool, a.token(nil))
}

func (a *actor) signedWith(tool, token string) *http.Request {
	a.w.t.Helper()
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":{"account":"operating"},` + meta2026 + `}}`
	r := httptest.NewRequest(http.MethodPost, a.w.resource(), strings.NewReader(body))
	for k, v := range map[string]string{
		"Authorization": "DPoP " + token, "DPoP": a.proof(http.MethodPost, a.w.resource(), token), "Content-Type": "application/json",
		"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": rev2026, "Mcp-Method": "tools/call", "Mcp-Name": tool,
	} {
		r.Header.Set(k, v)
	}
	r.RemoteAddr = "127.0.0.1:40000" // a network of the grant
	return r
}

// A watched revocation notes looks that let somebody through although they began after
// the revocation was acknowledged.
type watchedRevocation struct {
	of    func(context.Context, counterfoil.Caller) error
	acked *sync.Map // of the callers' instances that are revoked
	late  *atomic.Int32
}

func (r watchedRevocation) Revoked(ctx context.Context, c counterfoil.Caller) error {
	_, acked := r.acked.Load(c.Instance)
	err := r.of(ctx, c)
	if acked && err == nil {
		r.late.Add(1)
	}
	return err
}

// A racer revokes and says the index of the entry.
var racers = map[string]func(w *world, a *actor) int64{
	"instance": func(w *world, a *actor) int64 { return w.log.revokeTarget(counterfoil.TargetInstance, a.instance) },
	"key": func(w *world, a *actor) int64 {
		return w.log.revokeTarget(counterfoil.TargetKey, a.signer.Public().Thumbprint())
	},
	"task": func(w *world, a *actor) int64 {
		e := &ledger.Entry{Kind: ledger.TaskClosed, Task: a.task}
		if _, err := w.log.CloseTask(context.WithoutCancel(w.t.Context()), a.task, counterfoil.TaskCompleted, "done", e); err != nil {
			w.t.Error(err)
		}
		return e.Index
	},
}

// TestNothingIsForwardedAfterItsRevocation is TL2 and RV1 on one node: clients call as
// fast as they can while what they call with is revoked. By the log's own order, no call
// was forwarded whose decision is after the revocation; by the order of events, no look
// that began after the acknowledgement let anybody through, and every request that began
// after it was refused.
func TestNothingIsForwardedAfterItsRevocation(t *testing.T) {
	t.Parallel()
	for name, revoke := range racers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var acked sync.Map
			var late, forwarded atomic.Int32
			w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
				cfg.Transport = forwarding{instant{&http.Transport{}}, func() { forwarded.Add(1) }}
				cfg.Rate = 1e9
				r := watchedRevocation{cfg.Revocation.Revoked, &acked, &late}
				cfg.Revocation, cfg.Verifier.Revocation = r, r
			})
			w.gateway.ServeHTTP(httptest.NewRecorder(), w.actor("payroll").signed("get_balance")) // what is kept is there
			if forwarded.Swap(0) != 1 {
				t.Fatal("the control was not forwarded")
			}
			const rounds, callers = 12, 8
			after := map[string]int64{} // the revocation's index, by instance
			refused, inFlight := 0, 0
			for range rounds {
				a := w.actor("payroll")
				a.begin(nil)
				token := a.token(nil)
				began := make(chan struct{}, callers)
				var all sync.WaitGroup
				for range callers {
					all.Go(func() {
						for n := 0; ; n++ {
							_, over := acked.Load(a.instance)
							rec := httptest.NewRecorder()
							w.gateway.ServeHTTP(rec, a.signedWith("get_balance", token))
							if n == 2 {
								began <- struct{}{}
							}
							if over {
								if rec.Code != http.StatusUnauthorized {
									t.Errorf("a request that began after the acknowledgement got %d %s", rec.Code, rec.Body)
								}
								return
							}
						}
					})
				}
				for range callers {
					<-began
				}
				after[a.instance] = revoke(w, a)
				acked.Store(a.instance, true)
				all.Wait()
			}
			ends := map[int64]string{}
			for _, e := range w.log.of(ledger.CallFinished) {
				ends[e.Of] = e.Outcome
			}
			ran := 0
			for _, e := range w.log.of(ledger.CallDecided) {
				at, raced := after[e.Instance]
				if !raced {
					continue
				}
				switch {
				case e.Decision != ledger.Allow:
					refused++
				case ends[e.Index] == "not_forwarded":
					inFlight++
				default:
					ran++
					if e.Index > at {
						t.Errorf("entry %d let a call through that ended %q, and the revocation is %d", e.Index, ends[e.Index], at)
					}
				}
			}
			if late.Load() != 0 || refused < rounds*callers || ran < rounds*callers || int(forwarded.Load()) != ran {
				t.Errorf("%d looks were late; %d were refused, %d ran, %d were forwarded", late.Load(), refused, ran, forwarded.Load())
			}
			t.Logf("%d ran, %d were stopped between decision and forwarding, %d were refused", ran, inFlight, refused)
		})
	}
}

// forwarding calls a function when a tool call goes upstream.
type forwarding struct {
	next http.RoundTripper
	seen func()
}

func (f forwarding) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Mcp-Method") == "tools/call" {
		f.seen()
	}
	return f.next.RoundTrip(r)
}

// BenchmarkRevocation measures how long after a revocation was acknowledged the last call
// was still let go upstream, while a client calls 1,000 times a second; 0 where none was.
// An operation is one round of that. It also says how long the acknowledgement took.
func BenchmarkRevocation(b *testing.B) {
	for name, revoke := range racers {
		b.Run(name, func(b *testing.B) {
			var last atomic.Int64 // when the last call went upstream
			w := newWorld(b, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
				cfg.Transport = forwarding{instant{&http.Transport{}}, func() { last.Store(time.Now().UnixNano()) }}
				cfg.Rate = 1e9
				cfg.Feed = cfg.Recorder.(*log)
			})
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.gateway.Run(ctx)
			}()
			w.gateway.ServeHTTP(httptest.NewRecorder(), w.actor("payroll").signed("get_balance"))
			var tails, acks []time.Duration
			const each, before = 80, 40 // calls of a round, and how many come before the revocation
			for b.Loop() {
				a := w.actor("payroll")
				a.begin(nil)
				token := a.token(nil)
				requests := make([]*http.Request, each)
				for i := range requests {
					requests[i] = a.signedWith("get_balance", token)
				}
				var all sync.WaitGroup
				var ack, took time.Duration
				tick := time.NewTicker(time.Millisecond)
				began := time.Now()
				revoked := make(chan struct{})
				for i, r := range requests {
					<-tick.C
					all.Go(func() { w.gateway.ServeHTTP(httptest.NewRecorder(), r) })
					if i == before {
						go func() {
							defer close(revoked)
							asked := time.Now()
							revoke(w, a)
							ack, took = time.Since(began), time.Since(asked)
						}()
					}
				}
				tick.Stop()
				all.Wait()
				<-revoked
				tail := time.Unix(0, last.Load()).Sub(began) - ack
				tails, acks = append(tails, max(0, tail)), append(acks, took)
			}
			cancel()
			<-done
			report(b, "tail", tails)
			report(b, "ack", acks)
		})
	}
}

// report says the 50th and 99th percentile of durations, and the longest.
func report(b *testing.B, name string, all []time.Duration) {
	slices.Sort(all)
	for _, p := range []struct {
		name string
		at   int
	}{{"p50", len(all) / 2}, {"p99", len(all) * 99 / 100}, {"max", len(all) - 1}} {
		b.ReportMetric(float64(all[p.at].Microseconds()), fmt.Sprintf("%s-%s-us", name, p.name))
	}
}
