package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// TestHeldCallsSurviveARestart: what was approved while nobody was there to make it is
// made by the next start, once.
func TestHeldCallsSurviveARestart(t *testing.T) {
	t.Parallel()
	var conf gateway.Config
	o, a := newOffice(t, nil, func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) { conf = *cfg })
	stop := o.run()
	id := a.ask("pay", pay100, nil).Result.TaskID
	o.gateway.Drain()
	stop()
	o.approve(id)
	if s := o.state(id).State; s != counterfoil.StateApproved || o.paid() != 0 {
		t.Fatalf("it is %s and %d went upstream", s, o.paid())
	}

	o.engine = engineOn(t, o.log, &conf)
	conf.Approvals = o.engine
	g, err := gateway.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	o.gateway = g
	t.Cleanup(g.Drain)
	o.run()
	if err := o.engine.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := o.leaves(id, counterfoil.StateApproved, counterfoil.StateSpent); s != counterfoil.StateSucceeded || o.paid() != 1 {
		t.Fatalf("it is %s and %d went upstream", s, o.paid())
	}
	if got := a.task2026("get", id); got.Result.Status != "completed" || inner(t, got).Result.Content[0].Text != "done" {
		t.Errorf("the task is %+v", got.Result)
	}
	if err := o.engine.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.checkProof(t)
}

// TestDrainingWaitsForHeldCalls: a held call that is on its way when the
// time to drain is over is broken off, and its end is on record.
func TestDrainingWaitsForHeldCalls(t *testing.T) {
	t.Parallel()
	for _, patient := range []bool{true, false} {
		o, a := newOffice(t, nil, func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) { cfg.UpstreamTimeout = time.Hour })
		arrived, release := make(chan struct{}), make(chan struct{})
		o.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Mcp-Method") == "tools/call" {
				close(arrived)
				select {
				case <-release:
				case <-r.Context().Done():
					return
				}
			}
			jsonUpstream(w, r)
		}))
		o.run()
		id := a.ask("pay", pay100, nil).Result.TaskID
		o.approve(id)
		<-arrived
		o.gateway.Drain()
		ctx, cancel := context.WithCancel(t.Context())
		want := counterfoil.StateIndeterminate
		if patient {
			want = counterfoil.StateSucceeded
			close(release)
		} else {
			cancel()
		}
		o.gateway.Wait(ctx)
		cancel()
		if s := o.state(id).State; s != want {
			t.Errorf("it is %s, want %s", s, want)
		}
	}
}

// TestAHeldCallIsTriedAgainAfterAFault: it was not spent, so nothing is lost.
func TestAHeldCallIsTriedAgainAfterAFault(t *testing.T) {
	t.Parallel()
	var store *spendFault
	o, a := newOffice(t, nil, func(o *office, _ *counterfoil.Registry, cfg *gateway.Config) {
		store = &spendFault{log: cfg.Recorder.(*log)}
		o.engine = engineOn(t, store, cfg)
		cfg.Approvals = o.engine
	})
	store.failed = make(chan struct{}, 8)
	id := a.ask("pay", pay100, nil).Result.TaskID
	store.broken.Store(true)
	o.run()
	o.approve(id)
	<-store.failed
	if s := o.state(id).State; s != counterfoil.StateApproved || o.paid() != 0 {
		t.Fatalf("it is %s and %d went upstream", s, o.paid())
	}
	store.broken.Store(false)
	if s := o.leaves(id, counterfoil.StateApproved, counterfoil.StateSpent); s != counterfoil.StateSucceeded || o.paid() != 1 {
		t.Fatalf("it is %s and %d went upstream", s, o.paid())
	}
}

// TestAHeldCallOutlivesItsToken: the token was good when the call was accepted, and
// people take longer than tokens live. What is applied meanwhile counts all the same.
func TestAHeldCallOutlivesItsToken(t *testing.T) {
	t.Parallel()
	between := &interposed{claimed: func(int) {}}
	o, a := newOffice(t, nil, func(o *office, _ *counterfoil.Registry, cfg *gateway.Config) {
		between.Approvals = o.engine
		cfg.Approvals = between
	})
	id := a.ask("pay", pay100, nil).Result.TaskID
	o.clock.Advance(10 * time.Minute)
	between.claimed = func(n int) {
		if n == 1 {
			o.apply(func(reg *counterfoil.Registry) { reg.People["dee"] = &counterfoil.Person{Name: "dee"} })
		}
	}
	o.run()
	o.approve(id)
	if s := o.leaves(id, counterfoil.StateApproved, counterfoil.StateSpent); s != counterfoil.StateSucceeded || o.paid() != 1 {
		t.Fatalf("it is %s and %d went upstream", s, o.paid())
	}
	if !o.state(id).Caller.Expires.Before(o.clock.Now()) {
		t.Error("the token is still good")
	}
}

// A revokedView knows of a revocation that has not reached approvals.
type revokedView struct {
	resource.Revocation
	revoked atomic.Bool
}

func (v *revokedView) Revoked(ctx context.Context, c counterfoil.Caller) error {
	if v.revoked.Load() {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the token was revoked")
	}
	return v.Revocation.Revoked(ctx, c)
}

// TestRevocationIsLookedAtBeforeAHeldCallIsSpent is APR-06 for held calls: what the
// view knows counts, whether or not the approval is void already.
func TestRevocationIsLookedAtBeforeAHeldCallIsSpent(t *testing.T) {
	t.Parallel()
	view := &revokedView{}
	o, a := newOffice(t, nil, func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) {
		view.Revocation = cfg.Revocation
		cfg.Revocation = view
	})
	id := a.ask("pay", pay100, nil).Result.TaskID
	o.approve(id)
	view.revoked.Store(true)
	if err := o.engine.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := o.run()
	if s := o.leaves(id, counterfoil.StateApproved); s != counterfoil.StateSuperseded || !strings.Contains(o.state(id).Reason, "token_revoked") {
		t.Fatalf("it is %s: %s", s, o.state(id).Reason)
	}
	stop()
	if o.paid() != 0 {
		t.Fatal("it ran")
	}
	decided := o.log.of(ledger.CallDecided)
	if e := decided[len(decided)-1]; e.Decision != ledger.Refuse || e.Code != counterfoil.TokenRevoked || e.Approval.ID != id {
		t.Errorf("the record is %+v", e)
	}
}

// A crowd is an engine with held calls whose approvals cannot be read.
type crowd struct {
	gateway.Approvals
	ids   chan string
	looks atomic.Int32 // at those that cannot be read
}

func (c *crowd) Held() <-chan string { return c.ids }

func (c *crowd) HeldCall(ctx context.Context, id string) (counterfoil.Approval, error) {
	if strings.HasPrefix(id, "stuck") {
		c.looks.Add(1)
		return counterfoil.Approval{}, errors.New("the disk is out of order")
	}
	return c.Approvals.HeldCall(ctx, id)
}

// TestStuckHeldCallsDoNotKeepOthersWaiting: what is tried again waits without a place,
// and is there once however often it is told of.
func TestStuckHeldCallsDoNotKeepOthersWaiting(t *testing.T) {
	t.Parallel()
	many := &crowd{ids: make(chan string)}
	o, a := newOffice(t, nil, func(o *office, _ *counterfoil.Registry, cfg *gateway.Config) {
		many.Approvals = o.engine
		cfg.Approvals = many
	})
	id := a.ask("pay", pay100, nil).Result.TaskID
	o.approve(id)
	o.run()
	t.Cleanup(o.gateway.Drain)  // before the one of run, which waits for all of them
	const stuck, told = 100, 20 // more than are made at a time, and each of them again and again
	for range told {
		for i := range stuck {
			many.ids <- fmt.Sprint("stuck", i)
		}
	}
	many.ids <- id
	if s := o.leaves(id, counterfoil.StateApproved, counterfoil.StateSpent); s != counterfoil.StateSucceeded || o.paid() != 1 {
		t.Fatalf("it is %s and %d went upstream", s, o.paid())
	}
	if n := many.looks.Load(); n > stuck*told/2 {
		t.Errorf("%d held calls that are stuck were tried %d times", stuck, n)
	}
}
