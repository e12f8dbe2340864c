package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// repetition reads what an answer says of itself when it was given before; nil when it
// says nothing.
func repetition(t testing.TB, r reply) *struct {
	Entry     int64  `json:"entry"`
	RequestID string `json:"request_id"`
	Detail    string `json:"detail"`
} {
	t.Helper()
	type again struct {
		Repeated *struct {
			Entry     int64  `json:"entry"`
			RequestID string `json:"request_id"`
			Detail    string `json:"detail"`
		} `json:"counterfoil/repeated"`
	}
	var got struct {
		Result struct {
			Meta again `json:"_meta"`
		} `json:"result"`
		Error struct {
			Data again `json:"data"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatalf("the answer is %s: %v", r.body, err)
	}
	if got.Error.Data.Repeated != nil {
		return got.Error.Data.Repeated
	}
	return got.Result.Meta.Repeated
}

// counting is an upstream that says which call its answer is of.
func counting(body string) http.Handler {
	var mu sync.Mutex
	n := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(text)))
		if !strings.Contains(string(text), `"tools/call"`) {
			jsonUpstream(w, r)
			return
		}
		mu.Lock()
		n++
		mine := n
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, body, mine)
	})
}

const (
	counted       = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"call %d"}],"resultType":"complete"}}`
	countedError  = `{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"call %d"}}`
	countedFailed = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"call %d"}],"isError":true,"resultType":"complete"}}`
)

// TestARepeatGetsTheAnswerThatThereWas is RTY-02: a call with an Idempotency-Key is made
// once, and its answer is there for whoever lost it.
func TestARepeatGetsTheAnswerThatThereWas(t *testing.T) {
	t.Parallel()
	for name, upstream := range map[string]string{"a result": counted, "an error": countedError, "a failure": countedFailed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, counting(upstream), nil)
			a := w.actor("payroll")
			first := a.call2026("get_balance", `{"account":"eu"}`, keyed("k-1"))
			if !strings.Contains(first.body, "call 1") || repetition(t, first) != nil {
				t.Fatalf("the first answer is %s", first.body)
			}
			// Another instance of the agent repeats it, in another spelling.
			again := w.actor("payroll").call2026("get_balance", `{ "account" : "\u0065u" }`, keyed("k-1"))
			said := repetition(t, again)
			decided := w.log.of(ledger.CallDecided)
			if !strings.Contains(again.body, "call 1") || again.status != first.status || said == nil || said.Entry != decided[0].Index || said.RequestID != again.header.Get("X-Request-Id") {
				t.Errorf("the repeat got %s, which says %+v", again.body, said)
			}
			if len(w.upstream.calls("tools/call")) != 1 {
				t.Error("it was made twice")
			}
			// The record says that it was a repeat, and ends.
			e, end := decided[1], w.log.of(ledger.CallFinished)[1]
			if e.Decision != ledger.Allow || e.Detail["repeats"] != float64(decided[0].Index) || end.Of != e.Index || end.Outcome != "repeated" {
				t.Errorf("the record is %+v, %+v", e, end)
			}
			// The controls: another key, and none.
			for i, change := range []func(*http.Request){keyed("k-2"), nil} {
				if r := a.call2026("get_balance", `{"account":"eu"}`, change); !strings.Contains(r.body, fmt.Sprintf("call %d", i+2)) || repetition(t, r) != nil {
					t.Errorf("another call got %s", r.body)
				}
			}
			checkLog(t, w.log)
		})
	}
}

func TestAnIdempotencyKeyIsForOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, counting(counted), nil)
	a := w.actor("payroll")
	wantDone(t, a.call2026("get_balance", `{"account":"eu"}`, keyed("k")))
	for name, r := range map[string]reply{
		"other arguments": a.call2026("get_balance", `{"account":"us"}`, keyed("k")),
		"another tool":    a.call2026("typed", `{"account":"eu"}`, keyed("k")),
		"an answer to the upstream": a.send2026("tools/call", "get_balance",
			`"name":"get_balance","arguments":{"account":"eu"},"inputResponses":{"x":{}},"requestState":"s"`, meta2026, keyed("k")),
	} {
		if got := wantDenied(t, r, counterfoil.IdempotencyMismatch); got.Result.Meta["counterfoil/refusal"].RequestID == "" {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	if len(w.upstream.calls("tools/call")) != 1 {
		t.Error("it was made twice")
	}
	// It is the agent's, in its task.
	other, task := w.actor("other"), w.actor("payroll")
	task.begin(nil)
	other.scope = []string{"get_balance"}
	wantDone(t, other.call2026("get_balance", `{}`, keyed("k")))
	wantDone(t, task.call2026("get_balance", `{"account":"us"}`, keyed("k")))
	// It ends after a day.
	task = w.actor("payroll")
	w.clock.Advance(25 * time.Hour)
	wantDone(t, task.call2026("get_balance", `{"account":"us"}`, keyed("k")))
	for _, key := range []string{"", "a b", strings.Repeat("k", 256), "ü"} {
		wantHTTP(t, a.call2026("get_balance", `{"account":"eu"}`, keyed(key)), http.StatusBadRequest, counterfoil.RequestMalformed)
	}
	wantHTTP(t, a.call2026("get_balance", `{"account":"eu"}`, func(r *http.Request) { r.Header["Idempotency-Key"] = []string{"a", "b"} }),
		http.StatusBadRequest, counterfoil.HeaderMismatch)
}

// TestARefusedRepeatDoesNotGetTheAnswer: whoever may not make the call now is not told
// what came of it, and a refused call uses no key.
func TestARefusedRepeatDoesNotGetTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, counting(counted), nil)
	a := w.actor("payroll")
	wantDone(t, a.call2026("get_balance", `{}`, keyed("k")))
	scope := a.scope
	a.scope = []string{"region"}
	wantDenied(t, a.call2026("get_balance", `{}`, keyed("k")), counterfoil.ToolNotGranted)
	wantDenied(t, a.call2026("get_balance", `{}`, keyed("k-2")), counterfoil.ToolNotGranted)
	a.scope = scope
	if r := a.call2026("get_balance", `{}`, keyed("k")); repetition(t, r) == nil {
		t.Errorf("the repeat got %s", r.body)
	}
	if r := a.call2026("get_balance", `{}`, keyed("k-2")); repetition(t, r) != nil {
		t.Errorf("the first call with a key got %s", r.body)
	}
	// Nor is who is revoked between the decision and its answer.
	w.log.decided = func(*ledger.Entry) { w.log.revoke("payroll") }
	if r := a.call2026("get_balance", `{}`, keyed("k")); r.status != http.StatusUnauthorized || strings.Contains(r.body, "call 1") {
		t.Errorf("got %d %s", r.status, r.body)
	}
}

// TestARepeatOfWhatNobodyKnows: what is under way, and what nobody knows the end of, is
// not made again and not made up.
func TestARepeatOfWhatNobodyKnows(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}), make(chan struct{})
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if !strings.Contains(string(body), `"tools/call"`) {
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			jsonUpstream(rw, r)
			return
		}
		arrived <- struct{}{}
		<-answer
		panic(http.ErrAbortHandler) // it was sent, and no answer comes
	}), nil)
	a := w.actor("payroll")
	ended := make(chan reply, 1)
	go func() { ended <- a.call2026("get_balance", `{}`, keyed("k")) }()
	<-arrived
	p := wantHTTP(t, w.actor("payroll").call2026("get_balance", `{}`, keyed("k")), http.StatusGatewayTimeout, counterfoil.OutcomeUnknown)
	if !strings.Contains(p.Detail, "not made again") {
		t.Errorf("it says %q", p.Detail)
	}
	close(answer)
	wantHTTP(t, <-ended, http.StatusGatewayTimeout, counterfoil.OutcomeUnknown)
	wantHTTP(t, a.call2026("get_balance", `{}`, keyed("k")), http.StatusGatewayTimeout, counterfoil.OutcomeUnknown)
	if len(w.upstream.calls("tools/call")) != 1 {
		t.Error("it was made twice")
	}
	// Each has its record, and its proof is used.
	refused := 0
	for _, e := range w.log.of(ledger.CallDecided) {
		if e.Decision == ledger.Refuse && e.Code == counterfoil.OutcomeUnknown && e.Proof != "" {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d refusals are recorded", refused)
	}
	// The control: another key is another call.
	go func() { ended <- a.call2026("get_balance", `{}`, keyed("k-2")) }()
	<-arrived
	wantHTTP(t, <-ended, http.StatusGatewayTimeout, counterfoil.OutcomeUnknown)
}

// TestOfManyWithOneKeyOneRuns is the same over 40 requests at once.
func TestOfManyWithOneKeyOneRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, counting(counted), nil)
	a := w.actor("payroll")
	wantDone(t, a.call2026("get_balance", `{}`, nil))
	before := len(w.upstream.calls("tools/call"))
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if r := a.call2026("get_balance", `{"account":"eu"}`, keyed("k")); !strings.Contains(r.body, "call 2") && !strings.Contains(r.body, "outcome_unknown") {
				t.Errorf("got %s", r.body)
			}
		})
	}
	all.Wait()
	if got := len(w.upstream.calls("tools/call")) - before; got != 1 {
		t.Errorf("%d were made", got)
	}
}

// TestHowKeyedCallsEnd: of what ended without the upstream's answer, that it did is the
// answer.
func TestHowKeyedCallsEnd(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		upstream http.HandlerFunc
		change   func(*gateway.Config)
		repeat   counterfoil.Code // in the body of the repeat; empty: the upstream's answer
		status   int
	}{
		{"an answer", func(w http.ResponseWriter, r *http.Request) { jsonUpstream(w, r) }, nil, "", 200},
		{"it broke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, nil, counterfoil.OutcomeUnknown, 504},
		{"it said no", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, nil, counterfoil.UpstreamUnavailable, 200},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }, nil, counterfoil.OutcomeUnknown, 504},
		{"too large to be kept", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%s"}]}}`, strings.Repeat("x", 1<<20))
		}, nil, counterfoil.OutcomeUnknown, 504},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			wantDone(t, a.call2026("get_balance", `{}`, nil)) // pins it
			w.upstream.handle(tc.upstream)
			before := len(w.upstream.calls("tools/call"))
			first := a.call2026("get_balance", `{}`, keyed("k"))
			w.upstream.handle(http.HandlerFunc(jsonUpstream))
			again := a.call2026("get_balance", `{}`, keyed("k"))
			if again.status != tc.status || tc.repeat != "" && !strings.Contains(again.body, `"code":"`+string(tc.repeat)+`"`) || tc.repeat == "" && !strings.Contains(again.body, `"done"`) {
				t.Errorf("the first got %d %.200s, the repeat %d %.400s", first.status, first.body, again.status, again.body)
			}
			if got := len(w.upstream.calls("tools/call")) - before; got != 1 {
				t.Errorf("%d were made", got)
			}
			checkLog(t, w.log)
		})
	}
}

// TestAKeyedCallOutlastsItsClient is RTY-02: the answer is there although nobody waited
// for it. Without a key the client is all that there is, and its leaving ends the call.
func TestAKeyedCallOutlastsItsClient(t *testing.T) {
	t.Parallel()
	for _, streamed := range []bool{false, true} {
		for _, key := range []string{"k", ""} {
			t.Run(fmt.Sprintf("streamed %v, key %q", streamed, key), func(t *testing.T) {
				t.Parallel()
				w, a := bankWorld(t)
				wantDone(t, a.call2026("get_balance", `{}`, nil))
				arrived, gone := make(chan struct{}), make(chan struct{})
				w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					const message = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"late"}]}}`
					rw.Header().Set("Content-Type", "application/json")
					if streamed {
						rw.Header().Set("Content-Type", "text/event-stream")
						rw.(http.Flusher).Flush()
					}
					close(arrived)
					select {
					case <-gone:
					case <-r.Context().Done():
						return
					}
					if streamed {
						io.WriteString(rw, "data: "+message+"\n\n")
					} else {
						io.WriteString(rw, message)
					}
				}))
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() {
					body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_balance","arguments":{},` + meta2026 + `}}`
					res, err := w.client.Do(a.request(http.MethodPost, body, func(r *http.Request) {
						r.Header.Set("MCP-Protocol-Version", rev2026)
						r.Header.Set("Mcp-Method", "tools/call")
						r.Header.Set("Mcp-Name", "get_balance")
						if key != "" {
							r.Header.Set("Idempotency-Key", key)
						}
					}).WithContext(ctx))
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
				if key == "" {
					if e := w.log.waitEnds(2)[1]; e.Outcome != ledger.OutcomeUnknown {
						t.Errorf("the end is %+v", e)
					}
					return
				}
				close(gone)
				if e := w.log.waitEnds(2)[1]; e.Outcome != "succeeded" {
					t.Errorf("the end is %+v", e)
				}
				w.upstream.handle(http.HandlerFunc(jsonUpstream))
				if r := a.call2026("get_balance", `{}`, keyed("k")); !strings.Contains(r.body, `"late"`) || repetition(t, r) == nil {
					t.Errorf("the repeat got %s", r.body)
				}
			})
		}
	}
}

// TestARepeatCountsNothing: the task pays for the call once, also where it is over its
// number by now.
func TestARepeatCountsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, counting(counted), nil)
	a := w.actor("payroll")
	task := a.begin(func(t *counterfoil.Task) { t.MaxCalls = 1 })
	wantDone(t, a.call2026("get_balance", `{}`, keyed("k")))
	if r := a.call2026("get_balance", `{}`, keyed("k")); repetition(t, r) == nil || w.calls(task) != 1 {
		t.Errorf("got %s, %d are counted", r.body, w.calls(task))
	}
	wantDenied(t, a.call2026("get_balance", `{}`, keyed("k-2")), counterfoil.LimitExceeded)
	// A refused call used no key: in another task's turn it is as if it never was.
	if r := a.call2026("get_balance", `{"account":"eu"}`, keyed("k-2")); !strings.Contains(r.body, "limit_exceeded") {
		t.Errorf("got %s", r.body)
	}
	w.close(task)
	wantHTTP(t, a.call2026("get_balance", `{}`, keyed("k")), http.StatusUnauthorized, counterfoil.TaskClosed)
}
