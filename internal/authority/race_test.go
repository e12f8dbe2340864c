package authority_test

import (
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// Whoever gets a token while authority is taken away has nothing with it: of a
// revocation that was answered, nothing that was issued before or beside it is usable.
func TestIssuingRacesRevoking(t *testing.T) {
	t.Parallel()
	const rounds, at = 40, 3
	w := newWorld(t)
	for round := range rounds {
		task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
		in := url.Values{"task": {task.ID}}
		what := counterfoil.Target{Kind: counterfoil.TargetTask, ID: task.ID}
		switch round % 4 {
		case 1:
			what = counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}
		case 2:
			what = counterfoil.Target{Kind: counterfoil.TargetKey, ID: w.keys["payroll"].Public().Thumbprint()}
		case 3:
			what = counterfoil.Target{Kind: counterfoil.TargetResource, ID: "bank"}
		}
		tokens := make([]string, at)
		var all sync.WaitGroup
		gate := make(chan struct{})
		for i := range tokens {
			all.Go(func() {
				<-gate
				token, err := w.ask("payroll", "bank", in)
				if err == nil {
					tokens[i] = token.AccessToken
				} else if _, ok := counterfoil.AsRefusal(err); !ok {
					t.Error(err)
				}
			})
		}
		all.Go(func() {
			<-gate
			if _, err := w.a.Revoke(t.Context(), counterfoil.Revocation{Target: what}, "uid:7"); err != nil {
				t.Error(err)
			}
		})
		close(gate)
		all.Wait()
		for _, token := range tokens {
			if token == "" {
				continue
			}
			if c, err := w.use(token, "bank", w.keys["payroll"]); err == nil {
				t.Fatalf("round %d: after %s was revoked, a token of epoch %d is usable", round, what, c.Epoch)
			}
		}
		// What comes next begins anew.
		w.clock.Advance(2 * time.Second)
		switch what.Kind {
		case counterfoil.TargetAgent:
			if _, err := w.a.Resume(t.Context(), "payroll", nil, "", "uid:7"); err != nil {
				t.Fatal(err)
			}
		case counterfoil.TargetKey:
			w.keys["payroll"] = w.newSigner()
			w.enrol(w.a, "payroll", w.keys["payroll"])
		case counterfoil.TargetResource:
			if err := w.a.RestoreTarget(t.Context(), what, "", "uid:7"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.use(w.mustAsk("payroll", "bank", nil).AccessToken, "bank", w.keys["payroll"]); err != nil {
			t.Fatalf("round %d: the control: %v", round, err)
		}
	}
}
