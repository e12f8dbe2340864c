package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

// A way is a transport that a test can close, before anything is sent and after.
type way struct {
	next         http.RoundTripper
	closed, lost atomic.Bool
}

func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.closed.Load() {
		return nil, errors.New("connection refused")
	}
	res, err := w.next.RoundTrip(r)
	if err == nil && w.lost.Load() {
		res.Body.Close()
		return nil, errors.New("connection reset")
	}
	return res, err
}

// TestAKeyIsNotUsedUpByWhatWasNeverSent: the repeat of such a call is made. What may
// have been sent is not made again.
func TestAKeyIsNotUsedUpByWhatWasNeverSent(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		fail   func(w *world, a *actor, wy *way, secret *atomic.Bool) (mend func())
		unsent bool
	}{
		{"the upstream takes no connection", func(_ *world, _ *actor, wy *way, _ *atomic.Bool) func() {
			wy.closed.Store(true)
			return func() { wy.closed.Store(false) }
		}, true},
		{"the credential is missing", func(_ *world, _ *actor, _ *way, secret *atomic.Bool) func() {
			secret.Store(false)
			return func() { secret.Store(true) }
		}, true},
		{"the last look", func(w *world, a *actor, _ *way, _ *atomic.Bool) func() {
			w.log.decided = func(*ledger.Entry) { w.log.revokeTarget(counterfoil.TargetInstance, a.instance) }
			return func() { w.log.decided = nil }
		}, true},
		{"the answer is lost", func(_ *world, _ *actor, wy *way, _ *atomic.Bool) func() {
			wy.lost.Store(true)
			return func() { wy.lost.Store(false) }
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			wy := &way{next: &http.Transport{DisableKeepAlives: true}}
			var secret atomic.Bool
			secret.Store(true)
			w := newWorld(t, counting(counted), func(reg *counterfoil.Registry, cfg *gateway.Config) {
				reg.Resources["bank"].Credential = &counterfoil.UpstreamCredential{Header: "Authorization", File: "bank-token"}
				cfg.Credentials = secrets(func(string) (counterfoil.Secret, error) {
					if !secret.Load() {
						return counterfoil.Secret{}, errors.New("no such file")
					}
					return counterfoil.NewSecret("s"), nil
				})
				cfg.Transport = wy
			})
			a, b := w.actor("payroll"), w.actor("payroll")
			task := a.begin(nil)
			b.task = task // another instance of the agent goes on with it
			wantDone(t, a.call2026("get_balance", `{}`, nil))
			mend := tc.fail(w, a, wy, &secret)
			before := len(w.upstream.calls("tools/call"))
			if r := a.call2026("get_balance", `{"account":"eu"}`, keyed("k")); r.status == http.StatusOK {
				t.Fatalf("it went through: %s", r.body)
			}
			mend()
			if sent := len(w.upstream.calls("tools/call")) - before; (sent == 0) != tc.unsent {
				t.Fatalf("%d reached the upstream", sent)
			}
			r := b.call2026("get_balance", `{"account":"eu"}`, keyed("k"))
			if !tc.unsent {
				wantHTTP(t, r, http.StatusGatewayTimeout, counterfoil.OutcomeUnknown)
				return
			}
			if !strings.Contains(r.body, `"call 2"`) || repetition(t, r) != nil {
				t.Errorf("the repeat got %d %s", r.status, r.body)
			}
			if again := b.call2026("get_balance", `{"account":"eu"}`, keyed("k")); repetition(t, again) == nil {
				t.Errorf("and again: %s", again.body)
			}
			if w.calls(task) != 3 { // what a task counted stays
				t.Errorf("%d calls are counted", w.calls(task))
			}
			checkLog(t, w.log)
		})
	}
}

// TestALongAnswerOfARoutineCallIsNotKept, while that of a call that people allowed is.
func TestALongAnswerOfARoutineCallIsNotKept(t *testing.T) {
	t.Parallel()
	o, a := newOffice(t, nil, nil)
	wantDone(t, a.call2026("get_balance", `{}`, nil))
	for _, size := range []int{200 << 10, 300 << 10} {
		o.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%s"}]}}`, strings.Repeat("x", size))
		}))
		key := keyed(fmt.Sprint(size))
		wantDone(t, a.call2026("get_balance", `{}`, key))
		again := a.call2026("get_balance", `{}`, key)
		if kept := repetition(t, again) != nil; kept != (size < 256<<10) {
			t.Errorf("of %d bytes the repeat got %d %.200s", size, again.status, again.body)
		}
	}
}

// TestAHeldCallOutlivesItsKey: people take longer than keys are kept. A rotation takes
// nothing that waits; a revocation does, of the key that was rotated from too.
func TestAHeldCallOutlivesItsKey(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		overlap time.Duration
		revoked bool // the key under which it was asked for, after it was rotated
		bound   bool // the key is none of the instance's own, but one that it bound
		runs    bool
	}{
		{"rotated at once", 0, false, false, true},
		{"rotated with an overlap", time.Minute, false, false, true},
		{"rotated and revoked", 0, true, false, false},
		{"rotated with an overlap and revoked", time.Minute, true, false, false},
		{"bound, and rotated", 0, false, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o, a := newOffice(t, nil, nil)
			ctx, own := t.Context(), a.signer
			live := counterfoil.Live{Agent: a.name, Instance: a.instance, Epoch: a.epoch, Key: own.Public().Thumbprint()}
			if tc.bound {
				a.signer = testkit.Signer(t, credential.ES256)
				err := o.log.Issue(ctx, counterfoil.Issuance{
					Use: counterfoil.AssertionUse{Agent: a.name, ID: "1", Until: o.clock.Now().Add(time.Minute)}, Live: live,
					Bind: counterfoil.KeyBinding{JKT: a.signer.Public().Thumbprint(), Most: 8},
				}, &ledger.Entry{Kind: ledger.TokenIssued, Agent: a.name}, &ledger.Entry{Kind: ledger.ProofKeyBound, Agent: a.name})
				if err != nil {
					t.Fatal(err)
				}
			}
			id := a.ask(resetTool, `{}`, nil).Result.TaskID
			next := testkit.Signer(t, credential.ES256).Public()
			err := o.log.Rotate(ctx, counterfoil.Rotation{
				Agent: a.name, Instance: a.instance, Old: live.Key, JKT: next.Thumbprint(), JWK: string(next.JWK()), Alg: next.Alg(), OldUntil: o.clock.Now().Add(tc.overlap),
			}, live, &ledger.Entry{Kind: ledger.KeyRotated, Agent: a.name})
			if err != nil {
				t.Fatal(err)
			}
			o.clock.Advance(10 * time.Minute)
			if tc.revoked {
				o.log.revokeTarget(counterfoil.TargetKey, live.Key)
			}
			if o.state(id).State == counterfoil.StatePending {
				o.approve(id)
			}
			o.run()
			s := o.leaves(id, counterfoil.StatePending, counterfoil.StateApproved, counterfoil.StateSpent)
			if (s == counterfoil.StateSucceeded) != tc.runs || (o.paid() == 1) != tc.runs {
				t.Errorf("it is %s: %s; %d ran", s, o.state(id).Reason, o.paid())
			}
		})
	}
}
