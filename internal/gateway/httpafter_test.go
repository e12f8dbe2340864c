package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestAKeyOfWhatNobodyReads: two uploads under one key could not be told from each other,
// so the second would get the first one's answer and not be made.
func TestAKeyOfWhatNobodyReads(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	upload := func(body string, change func(*http.Request)) reply {
		return c.send("POST", "/upload", body, func(r *http.Request) {
			if body != "" {
				r.Header.Set("Content-Type", "application/octet-stream")
			}
			change(r)
		})
	}
	for _, body := range []string{"one", "two"} {
		wantHTTP(t, upload(body, keyed("k")), 400, counterfoil.RequestMalformed)
		wantAnswer(t, upload(body, func(*http.Request) {}), 200, `{"body":"`+body+`","line":"POST /api/upload"}`)
	}
	wantHTTP(t, c.send("GET", "/chat", "", func(r *http.Request) {
		keyed("k")(r)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
	}), 400, counterfoil.RequestMalformed)
	// What is read has its key, and so has what is not there.
	wantAnswer(t, upload("", keyed("k")), 200, `{"body":"","line":"POST /api/upload"}`)
	if again := upload("", keyed("k")); again.status != 200 || again.header.Get("Counterfoil-Repeated") == "" {
		t.Errorf("the repetition is %d %v", again.status, again.header)
	}
	if got := len(o.upstream.all()); got != 3 {
		t.Errorf("the upstream got %d requests", got)
	}
}

// TestWhatIsAppliedWhileTheCredentialIsOnItsWay: a provider may take seconds, and what is
// applied meanwhile counts, on every way on which a call goes upstream.
func TestWhatIsAppliedWhileTheCredentialIsOnItsWay(t *testing.T) {
	t.Parallel()
	crm := func(change func(*counterfoil.Resource)) func(*counterfoil.Registry) {
		return func(reg *counterfoil.Registry) {
			r := *reg.Resources["crm"]
			r.Tools = slices.Clone(r.Tools)
			change(&r)
			reg.Resources["crm"] = &r
		}
	}
	class := func(name, of string) func(*counterfoil.Registry) {
		return crm(func(r *counterfoil.Resource) {
			for i := range r.Tools {
				if r.Tools[i].Name == name {
					r.Tools[i].Class = of
				}
			}
		})
	}
	for _, tc := range []struct {
		name   string
		change func(*counterfoil.Registry)
		code   counterfoil.Code // empty: it goes
	}{
		{"nothing", nil, ""},
		{"something else", func(reg *counterfoil.Registry) { reg.People["dee"] = &counterfoil.Person{Name: "dee"} }, ""},
		{"a rule", func(reg *counterfoil.Registry) {
			reg.Policies["no"] = &counterfoil.Policy{Name: "no", Cedar: `forbid (principal, action == Action::"call", resource) when { context.args.path.id == "7" };`}
		}, counterfoil.PolicyForbids},
		{"the grant", func(reg *counterfoil.Registry) {
			reg.Agents["payroll"] = &counterfoil.Agent{Name: "payroll", Owner: "ana", Environment: "prod"}
		}, counterfoil.ToolNotGranted},
		{"the classes", func(reg *counterfoil.Registry) { class("note", "reset")(reg); class("reset_password", "read")(reg) }, counterfoil.ToolChanged},
		{"the schema", crm(func(r *counterfoil.Resource) {
			for i := range r.Tools {
				r.Tools[i].Schema = `{"type":"object"}`
			}
		}), counterfoil.ToolChanged},
		{"what the upstream is shown", crm(func(r *counterfoil.Resource) {
			r.Credential = &counterfoil.UpstreamCredential{Header: "X-Key", File: "crm-token"}
		}), counterfoil.ToolChanged},
		{"where it is", crm(func(r *counterfoil.Resource) { r.Upstream += "2" }), counterfoil.ToolChanged},
	} {
		for _, way := range []string{"routine", "with a key", "allowed by people"} {
			t.Run(tc.name+", "+way, func(t *testing.T) {
				t.Parallel()
				var o *office
				var armed atomic.Bool
				o, c := newCRM(t, nil, func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) {
					cfg.Credentials = secrets(func(string) (counterfoil.Secret, error) {
						if armed.Swap(false) && tc.change != nil {
							o.apply(tc.change)
						}
						return counterfoil.NewSecret(crmSecret), nil
					})
				})
				before := o.registry
				target, body, change, id := "/customers/7/notes", `{"a":1}`, func(*http.Request) {}, ""
				switch way {
				case "with a key":
					change = keyed("k")
				case "allowed by people":
					target, body = "/customers/7/password", `{"reason":"lost"}`
					wantHTTP(t, c.send("POST", target, body, nil), 403, counterfoil.ApprovalRequired)
					id = o.pending(t)
					o.approve(id)
				}
				armed.Store(true)
				r := c.send("POST", target, body, change)
				decided, ends := o.log.of(ledger.CallDecided), o.log.of(ledger.CallFinished)
				end := ends[len(ends)-1]
				if last := decided[len(decided)-1]; last.Decision != ledger.Allow || end.Of != last.Index {
					t.Fatalf("decided %+v, ended %+v", last, end)
				}
				if tc.code == "" {
					if r.status != 200 || len(o.upstream.all()) != 1 || end.Outcome != "succeeded" {
						t.Fatalf("got %d %s, ended %+v", r.status, r.body, end)
					}
					return
				}
				wantHTTP(t, r, tc.code.Wire().Status, tc.code)
				if n := len(o.upstream.all()); n != 0 || end.Outcome != "not_forwarded" || end.Code != tc.code {
					t.Fatalf("%d went upstream, ended %+v", n, end)
				}
				if id != "" && o.state(id).State != counterfoil.StateFailed {
					t.Errorf("the approval is %s", o.state(id).State)
				}
				if way == "with a key" {
					// It was never sent, so the key is still there for the same call.
					o.apply(func(reg *counterfoil.Registry) { *reg = *before })
					if r := c.send("POST", target, body, change); r.status != 200 || r.header.Get("Counterfoil-Repeated") != "" {
						t.Errorf("once it is taken back: %d %s", r.status, r.body)
					}
				}
			})
		}
	}
}

// TestAHeldCallIsDecidedAfterItsCredential, which is released when it is made.
func TestAHeldCallIsDecidedAfterItsCredential(t *testing.T) {
	t.Parallel()
	for _, forbidden := range []bool{false, true} {
		var o *office
		var armed atomic.Bool
		o, a := newOffice(t, nil, func(_ *office, reg *counterfoil.Registry, cfg *gateway.Config) {
			reg.Resources["bank"].Credential = &counterfoil.UpstreamCredential{Header: "Authorization", File: "bank-token"}
			cfg.Credentials = secrets(func(string) (counterfoil.Secret, error) {
				if armed.Swap(false) && forbidden {
					o.apply(func(reg *counterfoil.Registry) {
						reg.Policies["no"] = &counterfoil.Policy{Name: "no", Cedar: `forbid (principal, action == Action::"call", resource == Tool::"bank/pay");`}
					})
				}
				return counterfoil.NewSecret("secret-of-the-bank"), nil
			})
		})
		id := a.ask("pay", pay100, nil).Result.TaskID
		armed.Store(true)
		o.run()
		o.approve(id)
		want, paid := counterfoil.StateSucceeded, 1
		if forbidden {
			want, paid = counterfoil.StateFailed, 0
		}
		if s := o.leaves(id, counterfoil.StateApproved, counterfoil.StateSpent); s != want || o.paid() != paid {
			t.Errorf("forbidden %v: it is %s and %d went upstream", forbidden, s, o.paid())
		}
	}
}

// TestAnAnswerThatIsLost: once the upstream said that it did something, what cannot be
// passed on of its answer takes nothing back.
func TestAnAnswerThatIsLost(t *testing.T) {
	t.Parallel()
	var answer func(http.ResponseWriter)
	o, c := newCRM(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { answer(rw) }), nil)
	encoded := func(status int) func(http.ResponseWriter) {
		return func(rw http.ResponseWriter) {
			rw.Header().Set("Content-Encoding", "gzip")
			rw.Header().Set("Location", "/api/customers/8")
			rw.WriteHeader(status)
			io.WriteString(rw, "x")
		}
	}
	broken := func(status int) func(http.ResponseWriter) {
		return func(rw http.ResponseWriter) {
			rw.Header().Set("Content-Type", "application/json")
			rw.Header().Set("Content-Length", "100")
			rw.WriteHeader(status)
			io.WriteString(rw, `{"id":`)
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	for _, tc := range []struct {
		name, method string
		answer       func(http.ResponseWriter)
		code         counterfoil.Code
	}{
		{"made", "POST", func(rw http.ResponseWriter) { rw.WriteHeader(201) }, ""},
		{"made, encoded", "POST", encoded(201), counterfoil.OutcomeUnknown},
		{"made, broken off", "POST", broken(201), counterfoil.OutcomeUnknown},
		{"made, to be seen elsewhere", "POST", encoded(303), counterfoil.OutcomeUnknown},
		{"to be made elsewhere", "POST", encoded(307), counterfoil.UpstreamUnavailable},
		{"not made", "POST", encoded(404), counterfoil.UpstreamUnavailable},
		{"not made, broken off", "POST", broken(409), counterfoil.UpstreamUnavailable},
		{"refused", "POST", func(rw http.ResponseWriter) { rw.WriteHeader(401) }, counterfoil.UpstreamUnavailable},
		{"read, encoded", "GET", encoded(200), counterfoil.UpstreamUnavailable},
		{"read, broken off", "GET", broken(200), counterfoil.UpstreamUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o.world.t = t
			answer = tc.answer
			target, body := "/customers/7", ""
			if tc.method == "POST" {
				target, body = "/customers/7/notes", `{"a":1}`
			}
			r := c.send(tc.method, target, body, nil)
			ends := o.log.of(ledger.CallFinished)
			end := ends[len(ends)-1]
			if tc.code == "" {
				if r.status != 201 || end.Outcome != "succeeded" {
					t.Errorf("got %d, ended %+v", r.status, end)
				}
				return
			}
			wantHTTP(t, r, tc.code.Wire().Status, tc.code)
			if want := map[counterfoil.Code]string{counterfoil.OutcomeUnknown: ledger.OutcomeUnknown, counterfoil.UpstreamUnavailable: "upstream_unavailable"}[tc.code]; end.Outcome != want {
				t.Errorf("ended %+v, want %s", end, want)
			}
		})
	}
}

// A keyWatch is a transport that notes the Idempotency-Keys of requests, and sends none of
// them while it is closed.
type keyWatch struct {
	next   http.RoundTripper
	closed atomic.Bool

	mu   sync.Mutex
	seen []string
}

func (k *keyWatch) RoundTrip(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	k.seen = append(k.seen, strings.Join(r.Header["idempotency-key"], "|")) //nolint:staticcheck // it is sent in this spelling
	k.mu.Unlock()
	if k.closed.Load() {
		return nil, errors.New("connection refused")
	}
	return k.next.RoundTrip(r)
}

// TestAgentsShareNoKeys: an upstream that knows all of them by one credential must not take
// one agent's key for another's.
func TestAgentsShareNoKeys(t *testing.T) {
	t.Parallel()
	watch := &keyWatch{next: &http.Transport{DisableKeepAlives: true}}
	var conf gateway.Config
	o, c := newCRM(t, nil, func(_ *office, reg *counterfoil.Registry, cfg *gateway.Config) {
		reg.Agents["other"].Grants = append(reg.Agents["other"].Grants, counterfoil.Grant{Tools: []counterfoil.ToolID{{Resource: "crm", Tool: "note"}}})
		cfg.Transport = watch
		conf = *cfg
	})
	other := o.web("other")
	other.scope = []string{"note"}
	note := func(c *client, key string) reply {
		return c.send("POST", "/customers/7/notes", `{"a":1}`, keyed(key))
	}
	watch.closed.Store(true)
	wantHTTP(t, note(c, "k"), 502, counterfoil.UpstreamUnavailable)
	watch.closed.Store(false)
	restarted, err := gateway.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(restarted.Drain)
	o.gateway = restarted
	for _, r := range []reply{note(c, "k"), note(c, "k2"), note(other, "k")} {
		if r.status != 200 || r.header.Get("Counterfoil-Repeated") != "" {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	if again := note(other, "k"); again.header.Get("Counterfoil-Repeated") == "" {
		t.Errorf("the repetition was made: %v", again.header)
	}
	if len(watch.seen) != 4 || watch.seen[0] != watch.seen[1] {
		t.Fatalf("the retry has another key: %q", watch.seen)
	}
	for i, key := range watch.seen[1:] {
		if len(key) != 43 || slices.Contains(watch.seen[i+2:], key) {
			t.Errorf("the keys are %q", watch.seen)
		}
	}
	if r := c.send("POST", "/customers/7/notes", `{"a":1}`, nil); r.status != 200 || watch.seen[4] != "" {
		t.Errorf("without a key: %d, %q", r.status, watch.seen[4])
	}
}

// TestAKeptStreamIsWhole: events that somebody may ask for again are kept to their end, or
// it is not known what became of the call; those that nobody keeps end with the server.
func TestAKeptStreamIsWhole(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		change  func(*http.Request)
		breaks  bool
		outcome string
		body    string
	}{
		{"not kept", func(*http.Request) {}, false, "succeeded", "data: one\n\n"},
		{"kept", keyed("k"), false, "succeeded", "data: one\n\ndata: two\n\n"},
		{"kept, and broken off", keyed("k"), true, ledger.OutcomeUnknown, "data: one\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			more := make(chan struct{})
			o, c := newCRM(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(rw, "data: one\n\n")
				rw.(http.Flusher).Flush()
				select {
				case <-more:
				case <-r.Context().Done():
					return
				}
				if tc.breaks {
					panic(http.ErrAbortHandler)
				}
				io.WriteString(rw, "data: two\n\n")
			}), nil)
			res, err := o.client.Do(c.call("GET", "/customers/7", "", tc.change))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			lines := bufio.NewReader(res.Body)
			if line, err := lines.ReadString('\n'); err != nil || line != "data: one\n" {
				t.Fatalf("got %q, %v", line, err)
			}
			o.gateway.Look()
			o.gateway.Drain()
			o.gateway.Look()
			if strings.HasPrefix(tc.name, "kept") {
				close(more)
			}
			rest, err := io.ReadAll(lines)
			if got := "data: one\n" + string(rest); got != tc.body || (err == nil) != (tc.name == "kept") {
				t.Errorf("got %q, %v", got, err)
			}
			if e := o.log.waitEnds(1)[0]; e.Outcome != tc.outcome {
				t.Errorf("the end is %+v", e)
			}
			if tc.name == "kept" {
				again := c.send("GET", "/customers/7", "", tc.change)
				if again.status != 200 || again.body != tc.body || again.header.Get("Counterfoil-Repeated") == "" {
					t.Errorf("the repetition is %d %q", again.status, again.body)
				}
			}
		})
	}
}

// A refusedSecret counts how often an upstream did not take what it was shown.
type refusedSecret struct {
	secrets
	n atomic.Int64
}

func (r *refusedSecret) Refused(*counterfoil.Resource, custody.Released) { r.n.Add(1) }

// TestAnMCPUpstreamThatRefusesTheCredential: whoever released it hears of it, so that the
// next call gets another one.
func TestAnMCPUpstreamThatRefusesTheCredential(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		status int
		of     string
		heard  int64
	}{
		{"taken", 200, "tools/call", 0},
		{"not the credential", 403, "tools/call", 0},
		{"a call", 401, "tools/call", 1},
		{"by a proxy", 407, "tools/call", 1},
		{"the list of tools", 401, "tools/list", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			creds := &refusedSecret{secrets: func(string) (counterfoil.Secret, error) { return counterfoil.NewSecret("secret-of-the-bank"), nil }}
			w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				r.Body = io.NopCloser(strings.NewReader(string(b)))
				if tc.status != 200 && strings.Contains(string(b), `"`+tc.of+`"`) {
					rw.WriteHeader(tc.status)
					return
				}
				jsonUpstream(rw, r)
			}), func(reg *counterfoil.Registry, cfg *gateway.Config) {
				reg.Resources["bank"].Credential = &counterfoil.UpstreamCredential{Header: "Authorization", File: "bank-token"}
				cfg.Credentials = creds
			})
			r := w.actor("payroll").post(toolCall("get_balance", `{}`), nil)
			if tc.status == 200 {
				wantDone(t, r)
			} else {
				wantHTTP(t, r, http.StatusBadGateway, counterfoil.UpstreamUnavailable)
			}
			if got := creds.n.Load(); got != tc.heard {
				t.Errorf("it was heard %d times", got)
			}
		})
	}
	t.Run("a session's stream", func(t *testing.T) {
		t.Parallel()
		creds := &refusedSecret{secrets: func(string) (counterfoil.Secret, error) { return counterfoil.NewSecret("secret-of-the-bank"), nil }}
		w := newWorld(t, http.HandlerFunc(sessionUpstream), func(reg *counterfoil.Registry, cfg *gateway.Config) {
			reg.Resources["bank"].Credential = &counterfoil.UpstreamCredential{Header: "Authorization", File: "bank-token"}
			cfg.Credentials = creds
		})
		a := w.actor("payroll")
		id := openSession(t, a)
		if creds.n.Load() != 0 {
			t.Fatal("it is refused from the start")
		}
		w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(401) }))
		for i, method := range []string{http.MethodGet, http.MethodDelete} {
			r := a.do(a.request(method, "", func(r *http.Request) { r.Header.Set("Mcp-Session-Id", id) }))
			wantHTTP(t, r, http.StatusBadGateway, counterfoil.UpstreamUnavailable)
			if got := creds.n.Load(); got != int64(i+1) {
				t.Errorf("%s: it was heard %d times", method, got)
			}
		}
	})
}

// TestAskWithAnApproval: what people allowed a proxy passes on once.
func TestAskWithAnApproval(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	ask := func(body string) counterfoil.Answer {
		return c.ask(t, o.gateway, "POST", "/customers/7/password", func(q *counterfoil.Question) {
			q.Header.Set("Content-Type", "application/json")
			q.Body, q.BodyKnown = []byte(body), true
		})
	}
	if got := codeOf(t, ask(`{"reason":"lost"}`)); got != counterfoil.ApprovalRequired {
		t.Fatalf("got %q", got)
	}
	id := o.pending(t)
	if got := codeOf(t, ask(`{"reason":"lost"}`)); got != counterfoil.ApprovalPending {
		t.Errorf("got %q", got)
	}
	o.approve(id)
	if got := codeOf(t, ask(`{"reason":"found"}`)); got != counterfoil.ApprovalRequired {
		t.Errorf("another call: got %q", got)
	}
	yes := ask(`{"reason":"lost"}`)
	if !yes.Allow || yes.Set.Get("Authorization") != "Bearer "+crmSecret {
		t.Fatalf("%d %s", yes.Status, yes.Body)
	}
	// What became of it is not known here.
	if s := o.state(id).State; s != counterfoil.StateIndeterminate {
		t.Errorf("the approval is %s", s)
	}
	ends := o.log.of(ledger.CallFinished)
	if len(ends) != 1 || ends[0].Outcome != "passed_on" || ends[0].Approval.ID != id {
		t.Errorf("the ends are %+v", ends)
	}
	again := c.ask(t, o.gateway, "POST", "/customers/7/password", func(q *counterfoil.Question) {
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set("Counterfoil-Approval", id)
		q.Body, q.BodyKnown = []byte(`{"reason":"lost"}`), true
	})
	if got := codeOf(t, again); got != counterfoil.ApprovalSpent {
		t.Errorf("a second time: got %q", got)
	}
	if used := o.log.custody(t); len(used) != 1 {
		t.Errorf("the credential was released %d times: %s", len(used), fmt.Sprint(used))
	}
}

// TestAKeyOutlivesTheGatewaysCredential: an upstream that turns the gateway away has done
// nothing, so that the key of the call is free once its operator mended that.
func TestAKeyOutlivesTheGatewaysCredential(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusForbidden} {
		var mended atomic.Bool
		_, c := newCRM(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if !mended.Load() {
				w.WriteHeader(status)
				return
			}
			w.Write([]byte(`{"done":true}`))
		}), nil)
		note := func() reply { return c.send("POST", "/customers/7/notes", `{"a":1}`, keyed("k")) }
		first := note()
		mended.Store(true)
		again := note()
		if status == http.StatusForbidden {
			// What the upstream decided of the call is its answer.
			if first.status != status || again.status != status || again.header.Get("Counterfoil-Repeated") == "" {
				t.Errorf("%d: %d %s, then %d %s", status, first.status, first.body, again.status, again.body)
			}
			continue
		}
		wantHTTP(t, first, 502, counterfoil.UpstreamUnavailable)
		if again.status != 200 || again.header.Get("Counterfoil-Repeated") != "" {
			t.Errorf("%d: then %d %s", status, again.status, again.body)
		}
	}
}

// unmasked releases a secret that nothing would take out of answers.
type unmasked struct{ secrets }

func (u unmasked) Release(ctx context.Context, res *counterfoil.Resource) (custody.Released, error) {
	r, err := u.secrets.Release(ctx, res)
	r.Mask = nil
	return r, err
}

// TestNoSecretIsShownThatCannotBeMasked: where nothing would take a credential out of
// answers, no upstream is shown it.
func TestNoSecretIsShownThatCannotBeMasked(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	for _, masked := range []bool{true, false} {
		_, c := newCRM(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			reached.Add(1)
			w.Write([]byte(`{"done":true}`))
		}), func(_ *office, _ *counterfoil.Registry, cfg *gateway.Config) {
			if !masked {
				cfg.Credentials = unmasked{cfg.Credentials.(secrets)}
			}
		})
		r := c.send("POST", "/customers/7/notes", `{"a":1}`, nil)
		if masked {
			if r.status != 200 || reached.Swap(0) != 1 {
				t.Errorf("with a mask: %d %s", r.status, r.body)
			}
			continue
		}
		wantHTTP(t, r, 502, counterfoil.UpstreamUnavailable)
		if n := reached.Load(); n != 0 {
			t.Errorf("the upstream saw %d requests", n)
		}
	}
}
