package gateway

import (
	"context"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
)

// looks counts how often it was asked who is revoked.
type looks struct{ n atomic.Int64 }

func (l *looks) Revoked(context.Context, counterfoil.Caller) error {
	l.n.Add(1)
	return nil
}

// TestAWatchLooksUntilItIsStopped is for the race detector too: a watch's timer
// is set by the call and set again by the look.
func TestAWatchLooksUntilItIsStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		live := &looks{}
		c := &call{gateway: &Gateway{cfg: Config{Revocation: live}, look: lookInterval}, r: httptest.NewRequest("GET", "/r/bank", nil)}
		ctx, cancel := context.WithCancelCause(t.Context())
		w := c.watch(&reply{ctx: ctx, cancel: cancel}, false)
		<-time.After(10*lookInterval + lookInterval/2) // synctest's time
		synctest.Wait()
		if got := live.n.Load(); got != 11 || context.Cause(ctx) != nil {
			t.Errorf("it looked %d times, %v", got, context.Cause(ctx))
		}
		w.stop()
		<-time.After(10 * lookInterval) // synctest's time
		synctest.Wait()
		if got := live.n.Load(); got != 11 {
			t.Errorf("it looked %d times", got)
		}
	})
}
