package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestADeadSessionIsNobodyElsesFault: two agents call at once, and the upstream
// has ended the session of one of them. Its list of tools is an error, the
// other's is not.
func TestADeadSessionIsNobodyElsesFault(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		rw.Header().Set("Mcp-Session-Id", fmt.Sprintf("upstream-%d", opened.Add(1)))
		io.WriteString(rw, "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{\"listChanged\":true}}}}\n\n")
	}), nil)
	dead, alive := w.actor("payroll"), w.actor("other")
	deadID, aliveID := openSession(t, dead), openSession(t, alive)
	asking, ask := make(chan struct{}), make(chan struct{})
	w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Session-Id") == "upstream-1" {
			asking <- struct{}{}
			<-ask
			http.Error(rw, "session not found", http.StatusNotFound)
			return
		}
		jsonUpstream(rw, r)
	}))
	with := func(id string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) }
	}
	first := make(chan reply, 1)
	go func() { first <- dead.post(toolCall("get_balance", `{}`), with(deadID)) }()
	<-asking // it asks for the tools, and is not answered yet
	wantDone(t, alive.post(toolCall("get_balance", `{}`), with(aliveID)))
	close(ask)
	wantHTTP(t, <-first, http.StatusBadGateway, counterfoil.UpstreamUnavailable)
}

// TestAListOfToolsIsWaitedForOnce: the limit is the whole list's and not each
// page's.
func TestAListOfToolsIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	const limit = 400 * time.Millisecond
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) { cfg.UpstreamTimeout = limit })
	a := w.actor("payroll")
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	w.clock.Advance(time.Minute)
	var pages atomic.Int32
	w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		pages.Add(1)
		page := time.NewTimer(limit / 8)
		defer page.Stop()
		select {
		case <-page.C:
		case <-r.Context().Done():
			return
		}
		_, rest, _ := strings.Cut(string(b), `"id":`)
		id, _, _ := strings.Cut(rest, `,`)
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":%s,"result":{"tools":[],"nextCursor":"more"}}`, id)
	}))
	wantHTTP(t, a.post(toolCall("get_balance", `{}`), nil), http.StatusBadGateway, counterfoil.UpstreamUnavailable)
	if got := pages.Load(); got < 1 || got > 9 {
		t.Errorf("it asked for %d pages of an eighth of the limit each", got)
	}
}

// A panickyTransport panics when it is told to.
type panickyTransport struct {
	next  http.RoundTripper
	panic *atomic.Bool
}

func (p panickyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.panic.Load() {
		panic("the transport is broken")
	}
	return p.next.RoundTrip(r)
}

// TestAPanicInAGoroutineEndsItsOwnCall: the recover of the server that calls the
// gateway does not reach the goroutines that the gateway starts.
func TestAPanicInAGoroutineEndsItsOwnCall(t *testing.T) {
	t.Parallel()
	t.Run("fetching definitions", func(t *testing.T) {
		t.Parallel()
		var broken atomic.Bool
		broken.Store(true)
		w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
			cfg.Transport = panickyTransport{&http.Transport{}, &broken}
		})
		a := w.actor("payroll")
		r := a.post(toolCall("get_balance", `{}`), nil)
		wantHTTP(t, r, http.StatusInternalServerError, counterfoil.Internal)
		if strings.Contains(r.body, "transport") {
			t.Errorf("the answer says why: %s", r.body)
		}
		broken.Store(false)
		wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	})
	t.Run("looking at a stream's caller", func(t *testing.T) {
		t.Parallel()
		var broken atomic.Bool
		w := newWorld(t, http.HandlerFunc(sessionUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
			cfg.Revocation = revocationHook{cfg.Revocation, func() {
				if broken.Load() {
					panic("the view is broken")
				}
			}}
		})
		a := w.actor("payroll")
		id := openSession(t, a)
		w.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		res, err := w.client.Do(a.request(http.MethodGet, "", func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) }))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		broken.Store(true)
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		if e := w.log.waitEnds(2)[1]; e.Outcome != ledger.OutcomeUnknown {
			t.Errorf("the end is %+v", e)
		}
		broken.Store(false)
		w.upstream.handle(http.HandlerFunc(sessionUpstream))
		wantDone(t, a.post(ping, func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) }))
	})
}

// A lostPin lets somebody else pin first.
type lostPin struct {
	gateway.Pins
	digest string // what they pin; empty: nobody does
	err    error  // what the loser hears
}

func (l *lostPin) PinTool(ctx context.Context, resource, tool, digest, how string, e *ledger.Entry) error {
	if l.digest == "" && l.err == nil {
		return l.Pins.PinTool(ctx, resource, tool, digest, how, e)
	}
	if l.digest != "" {
		theirs := &ledger.Entry{Kind: ledger.ToolPinned, Resource: resource, Tool: resource + "/" + tool, ToolDigest: l.digest, Actor: "uid:0"}
		if err := l.Pins.PinTool(ctx, resource, tool, l.digest, "apply", theirs); err != nil {
			return err
		}
	}
	return l.err
}

func TestAPinThatComesSecondIsComparedWithTheFirst(t *testing.T) {
	t.Parallel()
	// What the upstream says get_balance is.
	seen, a := bankWorld(t)
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	same := pinned(seen, "get_balance")
	lost := errors.New("somebody else was first")
	for _, tc := range []struct {
		name  string
		pins  lostPin
		check func(*testing.T, reply)
	}{
		{"nobody else", lostPin{}, func(t *testing.T, r reply) { wantDone(t, r) }},
		{"the same, said as an error", lostPin{digest: same, err: lost}, func(t *testing.T, r reply) { wantDone(t, r) }},
		{"the same, not said", lostPin{digest: same}, func(t *testing.T, r reply) { wantDone(t, r) }},
		{"another, said as an error", lostPin{digest: "sha-256:x", err: lost}, func(t *testing.T, r reply) { wantDenied(t, r, counterfoil.ToolChanged) }},
		{"another, not said", lostPin{digest: "sha-256:x"}, func(t *testing.T, r reply) { wantDenied(t, r, counterfoil.ToolChanged) }},
		{"a commit that failed", lostPin{err: lost}, func(t *testing.T, r reply) {
			wantHTTP(t, r, http.StatusServiceUnavailable, counterfoil.LedgerUnavailable)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
				tc.pins.Pins = cfg.Pins
				cfg.Pins = &tc.pins
			})
			r := w.actor("payroll").post(toolCall("get_balance", `{}`), nil)
			tc.check(t, r)
			if got, want := len(w.upstream.calls("tools/call")), len(w.log.of(ledger.CallFinished)); got != want {
				t.Errorf("the upstream saw %d calls, %d were forwarded", got, want)
			}
		})
	}
}

// TestTheStoreKeepsTheFirstPin: a first sight does not replace what a person
// pinned in between.
func TestTheStoreKeepsTheFirstPin(t *testing.T) {
	t.Parallel()
	log, _ := openLog(t, func() time.Time { return start }, issuer)
	first := func(digest string) error {
		return log.PinTool(t.Context(), "bank", "pay", digest, counterfoil.PinFirstSight, &ledger.Entry{Kind: ledger.ToolPinned, Tool: "bank/pay", ToolDigest: digest})
	}
	log.pin("pay", "sha-256:a")
	if err := first("sha-256:b"); err != nil {
		t.Logf("the loser hears %v", err)
	}
	if got, _ := log.Pin("bank", "pay"); got != "sha-256:a" {
		t.Errorf("pinned is %q", got)
	}
	log.pin("pay", "sha-256:c") // a person may
	if got, _ := log.Pin("bank", "pay"); got != "sha-256:c" {
		t.Errorf("pinned is %q", got)
	}
}
