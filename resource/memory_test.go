package resource_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/resource"
)

func TestMemoryReplay(t *testing.T) {
	t.Parallel()
	now := start
	r := resource.NewMemoryReplay(func() time.Time { return now })
	use := func(key string, until time.Time) bool {
		fresh, err := r.UseOnce(context.Background(), key, until)
		if err != nil {
			t.Fatal(err)
		}
		return fresh
	}
	until := now.Add(70*time.Second + time.Millisecond)
	if !use("a", until) || use("a", until) || !use("b", until) {
		t.Error("a first use is refused, or a second taken")
	}
	r.Load("c", until)
	if use("c", until) {
		t.Error("what was read back is taken again")
	}
	// Not forgotten one moment early, and not for ever.
	now = until
	if use("a", until) || use("b", until) || use("c", until) {
		t.Error("a live id is forgotten")
	}
	now = until.Add(2 * time.Second)
	if !use("a", now.Add(time.Second)) {
		t.Error("an id is held after its time")
	}
	// A clock that steps back forgets nothing.
	now = start
	if use("a", until) {
		t.Error("an id is forgotten when the clock steps back")
	}
}

// TestFloodForgetsNothingLive: no number of ids pushes a live one out, and
// what is past is given back.
func TestFloodForgetsNothingLive(t *testing.T) {
	t.Parallel()
	now := start
	r := resource.NewMemoryReplay(func() time.Time { return now })
	until := now.Add(70 * time.Second)
	const n = 200_000
	for i := range n {
		if fresh, _ := r.UseOnce(context.Background(), fmt.Sprint(i), until); !fresh {
			t.Fatalf("%d is refused", i)
		}
	}
	if fresh, _ := r.UseOnce(context.Background(), "0", until); fresh || r.Len() != n {
		t.Errorf("the first of %d ids is taken again; %d are held", n, r.Len())
	}
	now = now.Add(2 * time.Minute)
	for i := range 5000 {
		r.Load(fmt.Sprint("later ", i), now.Add(time.Minute))
	}
	if r.Len() != 5000 {
		t.Errorf("%d ids are held, 5000 are live", r.Len())
	}
}

func TestReplayIsSmall(t *testing.T) {
	now := start
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := resource.NewMemoryReplay(func() time.Time { return now })
	const n = 500_000
	for i := range n {
		r.Load(fmt.Sprint(i), now.Add(time.Minute))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := float64(after.HeapAlloc-before.HeapAlloc) / n; each > 100 {
		t.Errorf("%.0f bytes an id", each)
	} else {
		t.Logf("%.0f bytes an id", each)
	}
	runtime.KeepAlive(r)
}

func TestReplayRace(t *testing.T) {
	t.Parallel()
	r := resource.NewMemoryReplay(nil)
	until := time.Now().Add(time.Minute)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := range 500 {
				if fresh, _ := r.UseOnce(context.Background(), fmt.Sprint(i), until); fresh {
					won.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != 500 {
		t.Errorf("%d first uses of 500 ids", won.Load())
	}
}

func TestMemoryNonces(t *testing.T) {
	t.Parallel()
	n := resource.NewMemoryNonces()
	nonce := n.Mint(start)
	if !n.Check(nonce, start) || !n.Check(nonce, start.Add(resource.NonceLife)) {
		t.Error("a good nonce is refused")
	}
	flipped := []byte(nonce)
	flipped[5] ^= 1
	for name, c := range map[string]struct {
		nonce string
		at    time.Time
	}{
		"old":                {nonce, start.Add(resource.NonceLife + time.Second)},
		"of the future":      {n.Mint(start.Add(time.Second)), start},
		"changed":            {string(flipped), start},
		"cut":                {nonce[:len(nonce)-1], start},
		"padded":             {nonce + "=", start},
		"empty":              {"", start},
		"of another process": {resource.NewMemoryNonces().Mint(start), start},
		"with a line break":  {nonce[:31] + "\n", start},
	} {
		if n.Check(c.nonce, c.at) {
			t.Errorf("a nonce that is %s is taken", name)
		}
	}
}

// TestNonceAfterLoss: a proof that may have been used before the loss needs a
// nonce made since, however far ahead its maker's clock was.
func TestNonceAfterLoss(t *testing.T) {
	t.Parallel()
	n := resource.NewMemoryNonces()
	if n.Required(start.Add(-time.Hour), start) {
		t.Error("a nonce is required without a loss")
	}
	old := n.Mint(start.Add(-time.Second))
	n.LostAt = start
	for _, c := range []struct {
		issued time.Duration
		want   bool
	}{
		{-30 * time.Second, true}, {0, true}, {9 * time.Second, true},
		{credential.Ahead - time.Nanosecond, true}, {credential.Ahead, false}, {time.Minute, false},
	} {
		if got := n.Required(start.Add(c.issued), start); got != c.want {
			t.Errorf("a proof issued %v after the loss: required %v", c.issued, got)
		}
	}
	if n.Check(old, start) {
		t.Error("a nonce from before the loss is taken")
	}
	if !n.Check(n.Mint(start), start) {
		t.Error("a nonce made since is refused")
	}
}

// TestAnIDThatIsPastIsNotTaken: two requests with one proof that both stall past
// its life must not both win because nobody remembers it any more.
func TestAnIDThatIsPastIsNotTaken(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	r := resource.NewMemoryReplay(func() time.Time { return now })
	until := now.Add(time.Minute)
	for _, c := range []struct {
		key   string
		after time.Duration
		taken bool
	}{{"in time", 59 * time.Second, true}, {"late", 2 * time.Minute, false}} {
		now = until.Add(c.after - time.Minute)
		if taken, err := r.UseOnce(context.Background(), c.key, until); err != nil || taken != c.taken {
			t.Errorf("%s: taken %v, %v", c.key, taken, err)
		}
	}
}
