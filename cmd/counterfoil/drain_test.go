package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// A gate is an upstream that lets no call through before it is opened.
type gate struct {
	next    http.Handler
	arrived chan struct{}
	open    chan struct{}
}

func newGate() *gate { return &gate{arrived: make(chan struct{}, inFlight), open: make(chan struct{})} }

func (g *gate) before(next http.Handler) http.Handler {
	g.next = next
	return g
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if bytes.Contains(body, []byte(`"tools/call"`)) {
		g.arrived <- struct{}{}
		select {
		case <-g.open:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	g.next.ServeHTTP(w, r)
}

// TestTermDuringManyCalls tells the server to end while a thousand calls are at the
// upstream: it takes no new one, every one that it took is answered and recorded, and
// it ends by itself and well, within its drain time.
func TestTermDuringManyCalls(t *testing.T) {
	t.Parallel()
	count, g := &byNumber{seen: map[int]int{}}, newGate()
	v, _, signer := newVictim(t, count, g)
	facts := &told{calls: map[int]*callState{}}
	h := &hammer{t: t, issuer: v.issuer, signer: signer, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight}}, told: facts}
	defer h.client.CloseIdleConnections()
	token, assertion, refused, err := h.login(t.Context(), "")
	if err != nil || refused != "" {
		t.Fatalf("logging in: %v %s", err, refused)
	}
	facts.loggedIn(assertion)

	var all sync.WaitGroup
	pace := time.NewTicker(2 * time.Millisecond) // below what one agent may ask in a second
	defer pace.Stop()
	for range inFlight {
		<-pace.C
		all.Go(func() {
			s := h.fresh(token)
			status, code, id, err := h.call(t.Context(), s)
			if err != nil || status != http.StatusOK || code != "" {
				t.Errorf("call %d, which was in flight: HTTP %d %s %v", s.number, status, code, err)
				return
			}
			facts.answered(s, id)
		})
	}
	for n := range inFlight {
		select {
		case <-g.arrived:
		case <-time.After(counterfoiltest.Timeout):
			t.Fatalf("%d of %d calls arrived", n, inFlight)
		}
	}

	from := time.Now()
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	v.wantClosed()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
	all.Wait()
	if err := v.cmd.Wait(); err != nil {
		t.Fatalf("it ended with %v\n%s", err, v.stderr)
	}
	took := time.Since(from)
	if took > 12*time.Second { // the drain time is 10s, and a process needs a moment to end
		t.Errorf("it took %v to end", took)
	}

	v.start()
	export := v.export()
	count.mu.Lock()
	defer count.mu.Unlock()
	reconcile(t, export, facts, count.seen)
	var kinds []ledger.Kind
	for _, e := range readExport(t, export) {
		if e.Kind == ledger.CallFinished && e.Outcome == ledger.OutcomeUnknown {
			t.Errorf("entry %d says that nobody knows how %d ended", e.Index, e.Of)
		}
		if e.Kind == ledger.ServerStopped || e.Kind == ledger.ServerStarted {
			kinds = append(kinds, e.Kind)
		}
	}
	if len(kinds) != 3 || kinds[1] != ledger.ServerStopped {
		t.Errorf("the log has %v: it was no orderly end", kinds)
	}
	t.Logf("%d calls in flight; ended %v after it was told", inFlight, took.Round(time.Millisecond))
}

// wantClosed waits until nobody is let in any more.
func (v *victim) wantClosed() {
	v.t.Helper()
	u, err := url.Parse(v.issuer)
	if err != nil {
		v.t.Fatal(err)
	}
	for deadline := time.Now().Add(counterfoiltest.Timeout); ; {
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(deadline) {
			v.t.Fatal("it was told to end and lets callers in")
		}
		<-time.After(5 * time.Millisecond) // another process: nothing says when
	}
}
