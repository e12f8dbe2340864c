package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestHowApprovedCallsEnd is APR-11: what nobody knows the end of is a state of its
// own and never runs again.
func TestHowApprovedCallsEnd(t *testing.T) {
	t.Parallel()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	text := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			io.WriteString(w, body)
		}
	}
	for _, tc := range []struct {
		name     string
		upstream http.HandlerFunc // nil: it cannot be reached
		status   int
		state    counterfoil.ApprovalState
		kept     string // what a repeat with the key gets
	}{
		{"done", text("application/json", `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"paid"}]}}`), 200, counterfoil.StateSucceeded, `"text":"paid"`},
		{"done, streamed", text("text/event-stream", "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"paid\"}]}}\n\n"), 200, counterfoil.StateSucceeded, `"text":"paid"`},
		{"with numbers that we would not send", text("application/json", `{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":{"n":123456789012345678901234567890}}}`), 200, counterfoil.StateSucceeded, `123456789012345678901234567890`},
		{"too large to be kept", text("application/json", `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"`+strings.Repeat("x", 1<<20)+`"}]}}`), 200, counterfoil.StateSucceeded, ""},
		{"the tool failed", text("application/json", `{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}`), 200, counterfoil.StateFailed, `"isError":true`},
		{"it asks for more", text("application/json", `{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"x"}}`), 200, counterfoil.StateFailed, `"input_required"`},
		{"an error of JSON-RPC", text("application/json", `{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}`), 200, counterfoil.StateFailed, `"code":-32602`},
		{"refused", status(403), 502, counterfoil.StateFailed, ""},
		{"it broke", status(500), 504, counterfoil.StateIndeterminate, ""},
		{"a proxy lost it", status(502), 504, counterfoil.StateIndeterminate, ""},
		{"an answer that cannot be read", text("application/json", `<html>`), 504, counterfoil.StateIndeterminate, ""},
		{"a stream that breaks off", text("text/event-stream", ": hello\n\n"), 200, counterfoil.StateIndeterminate, ""},
		{"it took too long", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 504, counterfoil.StateIndeterminate, ""},
		{"it cannot be reached", nil, 502, counterfoil.StateFailed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var down atomic.Bool
			o, a := newOffice(t, nil, func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) {
				cfg.UpstreamTimeout = 500 * time.Millisecond
				cfg.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					if down.Load() {
						address = "127.0.0.1:1"
					}
					return new(net.Dialer).DialContext(ctx, network, address)
				}}
			})
			id := wantHeld(t, a.call2026("pay", pay100, keyed("k")), counterfoil.ApprovalRequired).ID
			o.approve(id)
			if tc.upstream != nil {
				o.upstream.handle(tc.upstream)
			} else {
				down.Store(true)
			}
			r := a.call2026("pay", pay100, keyed("k"))
			if r.status != tc.status || tc.status == 504 && !strings.Contains(r.body, `"code":"outcome_unknown"`) {
				t.Fatalf("got %d %s", r.status, r.body)
			}
			o.log.waitEnds(1)
			if s := o.state(id).State; s != tc.state {
				t.Fatalf("it is %s, want %s", s, tc.state)
			}
			calls := o.paid()
			down.Store(false)
			o.upstream.handle(http.HandlerFunc(jsonUpstream))
			again := a.call2026("pay", pay100, keyed("k"))
			if tc.kept != "" {
				if !strings.Contains(again.body, tc.kept) || !strings.Contains(again.body, `"counterfoil/refusal"`) || !strings.Contains(again.body, `"approval_spent"`) {
					t.Errorf("a repeat gets %s", again.body)
				}
			} else if over := wantHeld(t, again, counterfoil.ApprovalSpent); over.Status != string(tc.state) {
				t.Errorf("a repeat is told %+v", over)
			}
			if o.paid() != calls || calls > 1 {
				t.Fatalf("%d calls went upstream, then %d", calls, o.paid())
			}
			e := o.log.of(ledger.CallFinished)[0]
			if e.Approval.State != string(tc.state) || (e.Detail["answer"] != nil) != strings.HasPrefix(tc.name, "too large") {
				t.Errorf("the end is %+v", e)
			}
			checkLog(t, o.log)
		})
	}
}

// TestAClientThatGoesAwayDoesNotBreakOffWhatPeopleAllowed: what came of it is
// learned and kept (RTY-02).
func TestAClientThatGoesAwayDoesNotBreakOffWhatPeopleAllowed(t *testing.T) {
	t.Parallel()
	for _, streamed := range []bool{false, true} {
		t.Run(fmt.Sprintf("streamed %v", streamed), func(t *testing.T) {
			t.Parallel()
			o, a := newOffice(t, nil, nil)
			id := wantHeld(t, a.call2026("pay", pay100, keyed("k")), counterfoil.ApprovalRequired).ID
			o.approve(id)
			arrived, gone := make(chan struct{}), make(chan struct{})
			o.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				const message = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"paid"}]}}`
				if streamed {
					w.Header().Set("Content-Type", "text/event-stream")
					w.(http.Flusher).Flush()
				} else {
					w.Header().Set("Content-Type", "application/json")
				}
				close(arrived)
				<-gone
				if streamed {
					io.WriteString(w, "data: "+message+"\n\n")
				} else {
					io.WriteString(w, message)
				}
			}))
			ctx, cancel := context.WithCancel(t.Context())
			r := a.request(http.MethodPost, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":`+pay100+`,`+meta2026+`}}`, func(r *http.Request) {
				r.Header.Set("MCP-Protocol-Version", rev2026)
				r.Header.Set("Mcp-Method", "tools/call")
				r.Header.Set("Mcp-Name", "pay")
				r.Header.Set("Idempotency-Key", "k")
			})
			ended := make(chan error, 1)
			go func() {
				res, err := o.client.Do(r.WithContext(ctx))
				if err == nil {
					_, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				ended <- err
			}()
			<-arrived
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			close(gone)
			if e := o.log.waitEnds(1)[0]; e.Outcome != "succeeded" || e.Approval.State != "succeeded" {
				t.Errorf("the end is %+v", e)
			}
			o.upstream.handle(http.HandlerFunc(jsonUpstream))
			if again := a.call2026("pay", pay100, keyed("k")); !strings.Contains(again.body, `"text":"paid"`) || o.paid() != 1 {
				t.Errorf("a repeat gets %s", again.body)
			}
		})
	}
}

// A spendFault is a store that cannot spend.
type spendFault struct {
	*log
	broken atomic.Bool
	failed chan struct{} // hears of each; nil when nobody does
}

func (s *spendFault) SpendApproval(ctx context.Context, sp counterfoil.Spending, e *ledger.Entry, payload []byte) error {
	if s.broken.Load() {
		select {
		case s.failed <- struct{}{}:
		default:
		}
		return errors.New("the disk is full")
	}
	return s.log.SpendApproval(ctx, sp, e, payload)
}

func TestWhatCannotBeSpentIsNotForwarded(t *testing.T) {
	t.Parallel()
	var store *spendFault
	o, a := newOffice(t, nil, func(o *office, _ *counterfoil.Registry, cfg *gateway.Config) {
		store = &spendFault{log: cfg.Recorder.(*log)}
		o.engine = engineOn(t, store, cfg)
		cfg.Approvals = o.engine
	})
	id := wantHeld(t, a.call2026("pay", pay100, nil), counterfoil.ApprovalRequired).ID
	o.approve(id)
	store.broken.Store(true)
	r := a.call2026("pay", pay100, nil)
	wantHTTP(t, r, http.StatusServiceUnavailable, counterfoil.LedgerUnavailable)
	if o.paid() != 0 || o.state(id).State != counterfoil.StateApproved || strings.Contains(r.body, "disk") {
		t.Fatalf("%d went upstream, it is %s, and the answer is %s", o.paid(), o.state(id).State, r.body)
	}
	store.broken.Store(false)
	wantDone(t, a.call2026("pay", pay100, nil))
	o.checkProof(t)
}
