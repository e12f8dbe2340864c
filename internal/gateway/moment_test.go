package gateway_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A revocationHook calls a function whenever it is asked who is revoked.
type revocationHook struct {
	resource.Revocation
	asked func()
}

func (l revocationHook) Revoked(ctx context.Context, caller counterfoil.Caller) error {
	l.asked()
	return l.Revocation.Revoked(ctx, caller)
}

// heldWorld is a world that says on a channel when a token was checked.
func heldWorld(t *testing.T, change func(*gateway.Config)) (*world, *actor, chan struct{}) {
	t.Helper()
	checked := make(chan struct{}, 1)
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
		cfg.Verifier.Revocation = revocationHook{cfg.Revocation, func() { checked <- struct{}{} }}
		if change != nil {
			change(cfg)
		}
	})
	return w, w.actor("payroll"), checked
}

// hold sends half of a body, waits until the token was checked, does something,
// and sends the rest.
func hold(a *actor, checked chan struct{}, body string, between func()) reply {
	a.w.t.Helper()
	rd, wr := io.Pipe()
	defer rd.Close()
	go func() {
		defer wr.Close()
		if _, err := io.WriteString(wr, body[:len(body)/2]); err != nil {
			return
		}
		<-checked
		between()
		_, _ = io.WriteString(wr, body[len(body)/2:]) // the server may have hung up, as it should
	}()
	return a.do(a.request(http.MethodPost, "", func(r *http.Request) {
		r.Body, r.ContentLength = rd, -1
	}))
}

func TestTheDecisionIsOfTheMomentAfterTheBody(t *testing.T) {
	t.Parallel()
	body := toolCall("get_balance", `{}`)
	forbid := func(reg *counterfoil.Registry) {
		read := *reg.Classes["read"]
		read.Tier = counterfoil.Forbidden
		reg.Classes["read"] = &read
	}
	for _, tc := range []struct {
		name    string
		between func(*world)
		check   func(*testing.T, reply)
	}{
		{"nothing happened", func(*world) {}, func(t *testing.T, r reply) { wantDone(t, r) }},
		{"four minutes went by", func(w *world) { w.clock.Advance(4 * time.Minute) }, func(t *testing.T, r reply) { wantDone(t, r) }},
		{"the token expired", func(w *world) { w.clock.Advance(5 * time.Minute) }, func(t *testing.T, r reply) {
			wantHTTP(t, r, http.StatusUnauthorized, counterfoil.TokenExpired)
			if r.header.Get("WWW-Authenticate") == "" {
				t.Error("there is no challenge")
			}
		}},
		{"the class was forbidden", func(w *world) { w.apply(forbid) }, func(t *testing.T, r reply) {
			wantDenied(t, r, counterfoil.ClassForbidden)
		}},
		{"the resource was taken away", func(w *world) {
			w.apply(func(reg *counterfoil.Registry) {
				delete(reg.Resources, "bank")
				reg.Agents["payroll"] = &counterfoil.Agent{Name: "payroll", Owner: "ana", Environment: "prod"}
				reg.Agents["other"] = &counterfoil.Agent{Name: "other", Owner: "ana", Environment: "prod"}
			})
		}, func(t *testing.T, r reply) { wantHTTP(t, r, http.StatusNotFound, counterfoil.ToolUnknown) }},
		{"the resource was moved", func(w *world) {
			w.apply(func(reg *counterfoil.Registry) {
				bank := *reg.Resources["bank"]
				bank.PublicURL = "https://bank.example/mcp"
				reg.Resources["bank"] = &bank
			})
		}, func(t *testing.T, r reply) { wantHTTP(t, r, http.StatusNotFound, counterfoil.ToolUnknown) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a, checked := heldWorld(t, nil)
			r := hold(a, checked, body, func() { tc.between(w) })
			tc.check(t, r)
			want := 1
			if r.status != http.StatusOK || strings.Contains(r.body, "counterfoil/refusal") {
				want = 0
			}
			if got := len(w.upstream.calls("tools/call")); got != want {
				t.Errorf("the upstream saw %d calls", got)
			}
			if decided := w.log.of(ledger.CallDecided); len(decided) != 1 || decided[0].Proof == "" || decided[0].Tool != "bank/get_balance" {
				t.Errorf("the record is %+v", decided)
			}
		})
	}
}

// TestTheDecisionIsOfTheMomentAfterTheListOfTools: an upstream that takes its
// time to say what its tools are is waited for before a call is allowed.
func TestTheDecisionIsOfTheMomentAfterTheListOfTools(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		between func(*world)
		check   func(*testing.T, reply)
	}{
		{"nothing happened", func(*world) {}, func(t *testing.T, r reply) { wantDone(t, r) }},
		{"the token expired", func(w *world) { w.clock.Advance(5 * time.Minute) }, func(t *testing.T, r reply) {
			wantHTTP(t, r, http.StatusUnauthorized, counterfoil.TokenExpired)
		}},
		{"the grant was taken away", func(w *world) {
			w.apply(func(reg *counterfoil.Registry) {
				reg.Agents["payroll"] = &counterfoil.Agent{Name: "payroll", Owner: "ana", Environment: "prod"}
			})
		}, func(t *testing.T, r reply) { wantDenied(t, r, counterfoil.ToolNotGranted) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if len(w.upstream.calls("tools/call")) == 0 {
					tc.between(w)
				}
				jsonUpstream(rw, r)
			}))
			r := a.post(toolCall("get_balance", `{}`), nil)
			tc.check(t, r)
			if got, want := len(w.upstream.calls("tools/call")), len(w.log.of(ledger.CallFinished)); got != want {
				t.Errorf("the upstream saw %d calls, %d were forwarded", got, want)
			}
		})
	}
}

// TestAClassThatIsLoweredMeanwhile: nobody is asked to approve what cannot be held
// against its definition, and an upstream that does not say what that is does not
// become a way to call the tool unseen.
func TestAClassThatIsLoweredMeanwhile(t *testing.T) {
	t.Parallel()
	for _, lowered := range []bool{false, true} {
		w, a := bankWorld(t)
		w.log.pin("pay", "sha-256:x")
		w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			if lowered {
				w.apply(func(reg *counterfoil.Registry) {
					bank := *reg.Resources["bank"]
					bank.Tools = []counterfoil.Tool{{Name: "pay", Class: "read"}}
					reg.Resources["bank"] = &bank
					reg.Agents["payroll"] = &counterfoil.Agent{Name: "payroll", Owner: "ana", Environment: "prod", Grants: []counterfoil.Grant{
						{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "pay"}}},
					}}
					reg.Agents["other"] = &counterfoil.Agent{Name: "other", Owner: "ana", Environment: "prod"}
				})
			}
			rw.WriteHeader(http.StatusInternalServerError)
		}))
		wantHTTP(t, a.post(toolCall("pay", `{}`), nil), http.StatusBadGateway, counterfoil.UpstreamUnavailable)
		if got := len(w.upstream.calls("tools/call")); got != 0 {
			t.Errorf("the upstream saw %d calls", got)
		}
	}
}

func TestABodyIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	w, a, checked := heldWorld(t, func(cfg *gateway.Config) { cfg.BodyTimeout = 500 * time.Millisecond })
	end := make(chan struct{})
	r := hold(a, checked, toolCall("get_balance", `{}`), func() { <-end })
	close(end)
	if p := wantHTTP(t, r, http.StatusBadRequest, counterfoil.RequestMalformed); !strings.Contains(p.Detail, "500ms") {
		t.Errorf("the refusal does not say why: %s", p.Detail)
	}
	if decided := w.log.of(ledger.CallDecided); len(decided) != 1 || decided[0].Code != counterfoil.RequestMalformed || decided[0].Proof == "" {
		t.Errorf("the record is %+v", decided)
	}

	// A refusal that does not read the body does not wait for it either.
	rd, wr := io.Pipe()
	defer wr.Close()
	r = a.do(a.request(http.MethodPost, "", func(r *http.Request) {
		r.Body, r.ContentLength = rd, 100
		r.Header.Del("Authorization")
	}))
	wantHTTP(t, r, http.StatusUnauthorized, counterfoil.ProofMissing)

	// The limit is the body's and not the call's: were it still there, the
	// client would be taken for gone.
	w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		late := time.NewTimer(time.Second)
		defer late.Stop()
		select {
		case <-late.C:
			jsonUpstream(rw, r)
		case <-r.Context().Done():
		}
	}))
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
}

// TestListsOfOldStreamsAreFilteredAnew: what the upstream says on a stream that
// was opened before an apply is judged by what was applied.
func TestListsOfOldStreamsAreFilteredAnew(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*counterfoil.Registry)
		shown  bool
	}{
		{"nothing happened", nil, true},
		{"the grant was taken away", func(reg *counterfoil.Registry) {
			reg.Agents["payroll"] = &counterfoil.Agent{Name: "payroll", Owner: "ana", Environment: "prod"}
		}, false},
		{"the resource was taken away", func(reg *counterfoil.Registry) {
			delete(reg.Resources, "bank")
			reg.Agents["payroll"] = &counterfoil.Agent{Name: "payroll", Owner: "ana", Environment: "prod"}
			reg.Agents["other"] = &counterfoil.Agent{Name: "other", Owner: "ana", Environment: "prod"}
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, http.HandlerFunc(sessionUpstream), nil)
			a := w.actor("payroll")
			id := openSession(t, a)
			more := make(chan struct{})
			w.upstream.handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.(http.Flusher).Flush()
				select {
				case <-more:
				case <-r.Context().Done():
					return
				}
				io.WriteString(w, `data: {"jsonrpc":"2.0","id":3,"result":{"tools":`+strings.ReplaceAll(bankTools, "\n", "")+"}}\n\n")
			}))
			res, err := w.client.Do(a.request(http.MethodGet, "", func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) }))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if tc.change != nil {
				w.apply(tc.change)
			}
			close(more)
			b, err := io.ReadAll(res.Body)
			if err != nil || strings.Contains(string(b), "get_balance") != tc.shown || !strings.Contains(string(b), `"tools":[`) {
				t.Errorf("the stream says %q, %v", b, err)
			}
		})
	}
}

func TestEachAgentHasItsRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) { cfg.Rate = 2 })
	a, other, gone := w.actor("payroll"), w.actor("other"), w.actor("payroll")
	gone.name = "nobody" // a token of an agent that the registry does not know
	for range 4 {
		wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	}
	calls := len(w.upstream.calls("tools/call"))
	request := a.request(http.MethodPost, toolCall("get_balance", `{}`), nil)
	again := request.Clone(request.Context())
	again.Body = io.NopCloser(strings.NewReader(toolCall("get_balance", `{}`)))
	r := a.do(request)
	wantHTTP(t, r, http.StatusTooManyRequests, counterfoil.RateLimited)
	// That there were some is durable before the first is answered: a start after
	// a crash has to know.
	if begun := w.aggregates("began"); len(begun) != 1 || begun[0].Agent != "payroll" || begun[0].Code != counterfoil.RateLimited {
		t.Errorf("with the first answer the entries are %+v", begun)
	}
	if r.header.Get("Retry-After") == "" || r.header.Get("WWW-Authenticate") != "" {
		t.Errorf("the headers are %v", r.header)
	}
	// The proof was used up all the same.
	wantHTTP(t, a.do(again), http.StatusUnauthorized, counterfoil.ProofReplayed)
	for range 2 {
		wantHTTP(t, a.post("no JSON", nil), http.StatusTooManyRequests, counterfoil.RateLimited)
	}
	// Whoever else asks does not notice.
	wantDone(t, other.post(toolCall("get_balance", `{}`), nil))
	for range 4 {
		wantHTTP(t, gone.post(ping, nil), http.StatusUnauthorized, counterfoil.TokenRevoked)
	}
	wantHTTP(t, gone.post(ping, nil), http.StatusTooManyRequests, counterfoil.RateLimited)

	// It passes.
	w.clock.Advance(time.Second)
	wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	if got := len(w.upstream.calls("tools/call")); got != calls+2 {
		t.Errorf("the upstream saw %d calls", got-calls)
	}

	// Each agent's refusals become one entry, without waiting for the end.
	counts := map[string]any{}
	for len(counts) < 2 {
		size, _ := w.log.Head()
		found := w.aggregates("count")
		for _, e := range found {
			counts[e.Agent] = e.Detail["count"]
		}
		if len(found) < 2 {
			if err := w.log.Wait(t.Context(), size); err != nil {
				t.Fatalf("the entries never came: %v", err)
			}
		}
	}
	if len(w.aggregates("count")) != 2 || counts["payroll"] != 3.0 || counts[""] != 1.0 {
		t.Errorf("the entries are %+v", w.aggregates("count"))
	}
	// What is counted when the server ends is recorded as well.
	for range 10 {
		a.post(ping, nil)
	}
	w.gateway.Drain()
	if got := w.aggregates("count"); len(got) != 3 || got[2].Agent != "payroll" || got[2].Code != counterfoil.RateLimited {
		t.Errorf("the entries are %+v", got)
	}
}

// aggregates returns the entries of refusals over a rate that have a detail.
func (w *world) aggregates(detail string) []ledger.Entry {
	w.t.Helper()
	size, _ := w.log.Head()
	var out []ledger.Entry
	err := w.log.Entries(w.t.Context(), 0, size, func(_ int64, b []byte) error {
		e, err := ledger.Parse(b)
		if err == nil && e.Kind == ledger.RefusedAggregate && e.Detail[detail] != nil {
			out = append(out, *e)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// TestWhatIsKeptOfPayloads is about who asks the store to keep what: a payload
// is for the log to commit to, and its class says what stays of it.
func TestWhatIsKeptOfPayloads(t *testing.T) {
	t.Parallel()
	const secret = `{"account":"4711"}`
	for _, tc := range []struct {
		keep, payload string
		salt          bool
	}{
		{counterfoil.PayloadFull, secret, true},
		{"", "", true},
		{counterfoil.PayloadDigest, "", true},
		{counterfoil.PayloadNone, "", false},
	} {
		t.Run(tc.keep, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, http.HandlerFunc(jsonUpstream), func(reg *counterfoil.Registry, _ *gateway.Config) {
				reg.Classes["read"].Payload = tc.keep
			})
			a := w.actor("payroll")
			wantDone(t, a.post(toolCall("get_balance", secret), nil))
			e := w.log.of(ledger.CallDecided)[0]
			salt, payload, err := w.log.Payload(t.Context(), e.Index)
			if string(payload) != tc.payload || (err == nil) != tc.salt || e.PayloadCommitment == "" {
				t.Errorf("kept is %q, %v; the commitment is %q", payload, err, e.PayloadCommitment)
			}
			if tc.salt && ledger.Commitment(salt, []byte(secret)) != e.PayloadCommitment {
				t.Error("the payload cannot be shown to be the one")
			}
			// A tool that nobody classified has no class that keeps anything.
			wantDenied(t, a.post(toolCall("unheard_of", secret), nil), counterfoil.ToolUnknown)
			refused := w.log.of(ledger.CallDecided)[1]
			if _, payload, err := w.log.Payload(t.Context(), refused.Index); err != nil || len(payload) > 0 {
				t.Errorf("kept of the refused call is %q, %v", payload, err)
			}
		})
	}
}

// TestNothingIsKeptOfWhatIsRefusedBeforeItHasAClass: a call whose token expires
// on the way has no class that says what may be kept of it.
func TestNothingIsKeptOfWhatIsRefusedBeforeItHasAClass(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, keep      string
		expires         bool
		committed, salt bool
	}{
		{"in time, nothing kept", counterfoil.PayloadNone, false, true, false},
		{"in time, all kept", counterfoil.PayloadFull, false, true, true},
		{"expired, nothing kept", counterfoil.PayloadNone, true, false, false},
		{"expired, all kept", counterfoil.PayloadFull, true, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, a, checked := heldWorld(t, nil)
			w.registry.Classes["read"].Payload = tc.keep
			w.log.apply(w.registry)
			hold(a, checked, toolCall("get_balance", `{"account":"4711"}`), func() {
				if tc.expires {
					w.clock.Advance(5 * time.Minute)
				}
			})
			e := w.log.of(ledger.CallDecided)[0]
			if (e.Code == counterfoil.TokenExpired) != tc.expires || (e.PayloadCommitment != "") != tc.committed {
				t.Errorf("the record is %+v", e)
			}
			if _, _, err := w.log.Payload(t.Context(), e.Index); (err == nil) != tc.salt {
				t.Errorf("reading what is kept: %v", err)
			}
		})
	}
}

var _ resource.Revocation = revocationHook{}
