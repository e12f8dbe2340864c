package attacks

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// allocated returns how many bytes were allocated meanwhile by this process,
// which is the server's. It bounds from above what its heap can have grown by,
// whenever the collector runs. A test that asks for it does not run beside others.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestLargeCredentials: what is too large is refused before anybody looks into
// it, and costs next to nothing. It does not run in parallel: see allocated.
func TestLargeCredentials(t *testing.T) {
	w := newWorld(t)
	jwt := w.token(w.payroll)
	head, rest, _ := strings.Cut(jwt, ".")
	large := head + "." + strings.Repeat("A", 1<<20) + rest
	atGateway := func(edit func(x *wire)) func() []byte {
		return func() []byte {
			x := w.wire(w.call(w.payroll))
			edit(x)
			return []byte(x.bytes())
		}
	}
	atToken := func(edit func(q *tokenRequest), more func(x *wire)) func() []byte {
		return func() []byte {
			q := w.tokenRequest(w.payroll)
			edit(q)
			x := w.wireOf(q.Request(t, w.Issuer()+"/oauth/token"))
			more(x)
			return []byte(x.bytes())
		}
	}
	set := func(name, value string) func(x *wire) { return func(x *wire) { x.set(name, value) } }
	asIs := func(*wire) {}
	honest := func(*tokenRequest) {}
	for _, tc := range []struct {
		name    string
		request func() []byte
		status  int
		code    counterfoil.Code // empty: the server library answers
	}{
		{"a token of 1 MiB", atGateway(set("Authorization", "DPoP "+large)), 431, ""},
		{"a token of 9 KiB", atGateway(set("Authorization", "DPoP "+large[:9<<10])), 413, counterfoil.PayloadTooLarge},
		{"a token of 100,000 dots", atGateway(set("Authorization", "DPoP "+strings.Repeat(".", 1e5))), 431, ""},
		{"a token of 8,000 dots", atGateway(set("Authorization", "DPoP "+strings.Repeat(".", 8000))), 401, counterfoil.TokenMalformed},
		{"a proof of 1 MiB", atGateway(set("Dpop", large)), 431, ""},
		{"a proof of 9 KiB", atGateway(set("Dpop", large[:9<<10])), 413, counterfoil.PayloadTooLarge},
		{"a proof of 8,000 dots", atGateway(set("Dpop", strings.Repeat(".", 8000))), 401, counterfoil.ProofMalformed},
		{"a field of 10 MiB", atGateway(set("X-A", strings.Repeat("x", 10<<20))), 431, ""},
		{"a name of 10 MiB", atGateway(set("X-"+strings.Repeat("a", 10<<20), "x")), 431, ""},
		{"100,000 fields", atGateway(func(x *wire) {
			x.fields = append(x.fields, strings.Split(strings.Repeat("X-A: b\n", 1e5), "\n")[:1e5]...)
		}), 431, ""},
		{"a path of 10 MiB", atGateway(func(x *wire) { x.line = "POST /r/" + strings.Repeat("a", 10<<20) + " HTTP/1.1" }), 431, ""},
		{"a path of 16 KiB", atGateway(func(x *wire) { x.line = "POST /r/" + strings.Repeat("a/", 8<<10) + " HTTP/1.1" }), 404, counterfoil.ToolUnknown},
		{"10,001 parameters in a query", atGateway(func(x *wire) { x.line = "POST /r/bank?" + strings.Repeat("a&", 10001) + "hidden=y HTTP/1.1" }), 400, counterfoil.RequestMalformed},
		{"an assertion of 1 MiB", atToken(func(q *tokenRequest) { q.Form.Set("client_assertion", large) }, asIs), 413, counterfoil.PayloadTooLarge},
		{"an assertion of 17 KiB", atToken(func(q *tokenRequest) { q.Form.Set("client_assertion", large[:17<<10]) }, asIs), 413, counterfoil.PayloadTooLarge},
		{"an assertion of 100,000 dots", atToken(func(q *tokenRequest) { q.Form.Set("client_assertion", strings.Repeat(".", 1e5)) }, asIs), 413, counterfoil.PayloadTooLarge},
		{"an assertion of 16,000 dots", atToken(func(q *tokenRequest) { q.Form.Set("client_assertion", strings.Repeat(".", 16000)) }, asIs), 401, counterfoil.AssertionMalformed},
		{"a proof of 1 MiB for a token", atToken(honest, set("Dpop", large)), 431, ""},
		{"a proof of 9 KiB for a token", atToken(honest, set("Dpop", large[:9<<10])), 413, counterfoil.PayloadTooLarge},
		{"60,000 parameters", atToken(func(q *tokenRequest) { q.Body = strings.Repeat("a&", 30000) }, asIs), 400, counterfoil.RequestMalformed},
		{"a body of 10 MiB", atToken(func(q *tokenRequest) { q.Body = strings.Repeat("x", 10<<20) }, asIs), 413, counterfoil.PayloadTooLarge},
		{"an enrolment of 10 MiB", func() []byte {
			return []byte(w.wireOf(w.post(w.Issuer()+"/enroll", "application/json", `{"agent":"`+strings.Repeat("x", 10<<20)+`"}`)).bytes())
		}, 413, counterfoil.PayloadTooLarge},
	} {
		t.Run("DO1 "+tc.name, func(t *testing.T) {
			defer w.in(t)()
			w.Clock.Advance(time.Second)
			if got := honestCall(t, w); !got.passed() {
				t.Fatalf("a call: %s", got)
			}
			if got := honestToken(t, w); !got.passed() {
				t.Fatalf("a token: %s", got)
			}
			request := tc.request()
			var answers []answer
			bytes := allocated(func() { answers = w.sendRaw(request, false) })
			if len(answers) != 1 || answers[0].status != tc.status || answers[0].code != tc.code {
				t.Errorf("%d bytes got %.2000s, want HTTP %d %s", len(request), fmt.Sprint(answers), tc.status, tc.code)
			}
			if bytes > 1<<20 {
				t.Errorf("%d bytes made the server allocate %d", len(request), bytes)
			}
			t.Logf("%d bytes sent, %d allocated", len(request), bytes)
		})
	}
	w.CheckLedger()
}

// TestLargePayloads: however a body is made, reading it takes memory in
// proportion to its size and no more. It does not run in parallel: see allocated.
func TestLargePayloads(t *testing.T) {
	w := newTapWorld(t)
	const large = 1 << 20
	names := func(n int, name func(i int) string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(`"` + name(i) + `":0`)
		}
		return b.String() + "}"
	}
	// Texts of one hash in Java: Aa and BB have one, and so have all texts of them.
	colliding := func(i int) string {
		var b strings.Builder
		for bit := range 17 {
			b.WriteString([]string{"Aa", "BB"}[i>>bit&1])
		}
		return b.String()
	}
	refused := []string{
		`{"a":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + "}",
		strings.Repeat(`{"a":`, 1e5) + "0" + strings.Repeat("}", 1e5),
		`{"a":` + strings.Repeat("[", large) + "}",
		names(1e5, func(i int) string { return fmt.Sprint(i) }),
		names(25000, colliding),
		`{"a":` + names(10001, func(i int) string { return fmt.Sprint(i) }) + "}",
		"{" + strings.Repeat(`"":0,`, large/5) + `"":0}`,
		`{"a":"` + strings.Repeat(`\ud800`, large/6) + `"}`,
		`{"a":` + strings.Repeat("9", large) + "}",
		`{"a":1e` + strings.Repeat("9", large) + "}",
		`{"a":0.` + strings.Repeat("0", large) + "1}",
		`{"a":"` + strings.Repeat("\\", large),
		strings.Repeat(" ", large) + `{"a":`,
	}
	whole := []string{
		`{"a":"` + strings.Repeat(`\u0061`, large/6) + `"}`,
		`{"a":"` + strings.Repeat(`\u001f`, large/6) + `"}`,
		`{"a":"` + strings.Repeat("x", large) + `"}`,
		`{"a":[` + strings.Repeat("[],", large/3) + `[]]}`,
		`{"a":[` + strings.Repeat("0,", large/2) + `0]}`,
		`{"a":` + names(9999, colliding) + `}`,
		`{"a":` + strings.Repeat(" ", large) + "0}",
	}
	for i, args := range append(refused, whole...) {
		t.Run(fmt.Sprintf("DO2 %d %.20q", i, args), func(t *testing.T) {
			defer w.in(t)()
			w.tap.t = t
			w.Clock.Advance(time.Second)
			if got := w.sendCall(w.callTap("once", `{"a":1}`)); !got.passed() || len(w.seen()) != 1 {
				t.Fatalf("a small payload: %s", got)
			}
			request := []byte(w.wire(w.callTap("once", args)).bytes())
			var answers []answer
			bytes := allocated(func() { answers = w.sendRaw(request, false) })
			seen := len(w.seen())
			if len(answers) != 1 {
				t.Fatalf("got %d answers", len(answers))
			}
			if passes := i >= len(refused); passes && (!answers[0].passed() || seen != 1) ||
				!passes && (answers[0].status != http.StatusBadRequest || answers[0].code != counterfoil.PayloadMalformed || seen != 0) {
				t.Errorf("got %.500s, the upstream saw %d", answers[0], seen)
			}
			// The upstream of the test is in this process too: its part is what passed.
			limit := uint64(16 << 20)
			if seen > 0 {
				limit += 16 << 20
			}
			if bytes > limit {
				t.Errorf("%d bytes made the server allocate %d", len(request), bytes)
			}
			t.Logf("%d bytes sent, %d allocated", len(request), bytes)
		})
	}
	w.tap.t = t
	w.CheckLedger()
}

// TestProofFlood, DO4: an agent that sends more than it may is refused for it alone,
// and nothing that it sends pushes out of memory which proofs were used.
func TestProofFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// One more than an agent may have at once, and many more.
	const flood, burst, at = 2600, 2000, 16
	token := w.token(w.payroll)
	victim := w.token(w.auditor)
	now := w.Clock.Now()
	send := func(a *actor, token, proof string) answer {
		q := &call{
			method: http.MethodPost, url: w.BankURL(), scheme: "DPoP", token: token, proofs: []string{proof}, body: "x", // recorded, and not forwarded
			header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Mcp-Protocol-Version": {"2026-07-28"}},
		}
		return w.sendCall(q)
	}
	prove := func(a *actor, token string) string {
		proof, err := credential.SignProof(a.signer, http.MethodPost, w.BankURL(), "", token, now)
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	proofs := make([]string, flood)
	for i := range proofs {
		proofs[i] = prove(w.payroll, token)
	}
	each := func(do func(i int)) {
		var next atomic.Int64
		var all sync.WaitGroup
		for range at {
			all.Go(func() {
				for i := next.Add(1) - 1; i < flood; i = next.Add(1) - 1 {
					do(int(i))
				}
			})
		}
		all.Wait()
	}
	from := w.size()
	var taken, limited, others atomic.Int64
	each(func(i int) {
		switch got := send(w.payroll, token, proofs[i]); got.code {
		case counterfoil.PayloadMalformed:
			taken.Add(1)
		case counterfoil.RateLimited:
			limited.Add(1)
			if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
				t.Errorf("over the rate: %s", got)
			}
		default:
			t.Errorf("proof %d: %s", i, got)
		}
		if i%100 == 0 { // the control: somebody else meanwhile
			if got := send(w.auditor, victim, prove(w.auditor, victim)); got.code != counterfoil.PayloadMalformed {
				t.Errorf("another agent meanwhile: %s", got)
			}
			others.Add(1)
		}
	})
	// What a token takes and what was called before count too.
	if taken.Load() > burst || taken.Load() < burst-10 || taken.Load()+limited.Load() != flood {
		t.Errorf("%d were taken and %d were over the rate", taken.Load(), limited.Load())
	}
	if got := honestCall(t, w); got.code != counterfoil.RateLimited {
		t.Errorf("an honest call of the agent that floods: %s", got)
	}
	if got := w.sendCall(w.call(w.auditor)); !got.passed() {
		t.Errorf("an honest call of another: %s", got)
	}
	// None is good a second time, the first ones and those over the rate included.
	w.Clock.Advance(time.Second)
	each(func(i int) {
		if got := send(w.payroll, token, proofs[i]); got.code != counterfoil.ProofReplayed {
			t.Errorf("proof %d again: %s", i, got)
		}
	})
	if got := honestCall(t, w); !got.passed() {
		t.Errorf("a second later an honest call: %s", got)
	}
	// The flood is a bounded number of entries.
	recorded, aggregates := 0, 0
	for _, e := range w.since(from) {
		if e.Agent == "payroll" && e.Kind == ledger.CallDecided {
			recorded++
		}
		if e.Kind == ledger.RefusedAggregate {
			aggregates++
		}
	}
	if recorded > burst+2 || aggregates == 0 || aggregates > 10 {
		t.Errorf("%d entries and %d aggregates came of it", recorded, aggregates)
	}
}

// TestTokenFlood, DO5: who floods the token endpoint is refused before anything is
// verified or used up, and pays alone.
func TestTokenFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy)
	neighbour, resident := w.actor("payroll"), w.actor("payroll")
	const limit = 1000 // refusals of one address at once
	from := func(address string, q *tokenRequest) answer {
		q.Header["X-Forwarded-For"] = []string{address}
		return w.sendToken(q)
	}
	honest := func() *tokenRequest { return w.tokenRequest(w.payroll) }
	const attacker, other = "192.0.2.1", "192.0.2.2"
	kinds := []func() *tokenRequest{
		func() *tokenRequest {
			q := honest()
			q.Form = url.Values{}
			q.Form.Set("client_assertion", "x")
			return q
		},
		func() *tokenRequest { q := honest(); q.Assertion.Signer = w.stranger; return q },
		func() *tokenRequest {
			q := honest()
			q.Form.Set("client_assertion", strings.Repeat("a.", 8000))
			return q
		},
		func() *tokenRequest {
			q := honest()
			q.Assertion.Claims["iss"], q.Assertion.Claims["sub"] = "nobody", "nobody"
			return q
		},
	}
	seen := map[counterfoil.Code]int{}
	for i := range limit + 100 {
		got := from(attacker, kinds[i%len(kinds)]())
		seen[got.code]++
		if limited := got.code == counterfoil.RateLimited; limited != (i >= limit) || limited && (got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "") {
			t.Fatalf("request %d: %s", i, got)
		}
	}
	if len(seen) < 4 {
		t.Errorf("it was refused with %v only", seen)
	}
	// From there nothing is looked at: what is refused now is not used up.
	q := honest()
	if got := from(attacker, q); got.code != counterfoil.RateLimited {
		t.Errorf("an honest request from the flood's address: %s", got)
	}
	if got := from(attacker, honest()); got.code != counterfoil.RateLimited {
		t.Errorf("another one: %s", got)
	}
	enrol := w.post(w.Issuer()+"/enroll", "application/json", `{"agent":"payroll","code":"`+w.EnrolCode("payroll")+`"}`)
	enrol.Header.Set("X-Forwarded-For", attacker)
	if got := w.do(enrol); got.code != counterfoil.RateLimited {
		t.Errorf("an enrolment from there: %s", got)
	}
	// The controls: the same bytes from elsewhere, and an agent at work.
	if got := from(other, q); !got.passed() {
		t.Errorf("the same request from elsewhere: %s", got)
	}
	if got := w.sendCall(w.call(w.auditor)); !got.passed() {
		t.Errorf("a call meanwhile: %s", got)
	}
	// The addresses of one IPv6 network are one.
	for i := range limit {
		from(fmt.Sprintf("2001:db8::%x", i+1), kinds[0]())
	}
	if got := from("2001:db8::ffff", honest()); got.code != counterfoil.RateLimited {
		t.Errorf("another address of a network that floods: %s", got)
	}
	// An instance is at one place, or its key was copied: each has its own here.
	if got := from("2001:db8:1::1", w.tokenRequest(neighbour)); !got.passed() {
		t.Errorf("another network: %s", got)
	}
	w.Clock.Advance(time.Minute)
	if got := from(attacker, w.tokenRequest(resident)); !got.passed() {
		t.Errorf("a minute later: %s", got)
	}
	w.CheckLedger()
}

// TestTokensOfOneAgent, DO4: an agent has a rate of its own.
func TestTokensOfOneAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const burst, at = 500, 10
	var taken atomic.Int64
	var all sync.WaitGroup
	for range at {
		all.Go(func() {
			for range (burst + 50) / at {
				got := honestToken(t, w)
				if got.passed() {
					taken.Add(1)
				} else if got.code != counterfoil.RateLimited || got.status != http.StatusTooManyRequests {
					t.Errorf("token %d: %s", taken.Load(), got)
				}
			}
		})
	}
	all.Wait()
	if n := taken.Load(); n < burst-10 || n > burst {
		t.Errorf("it got %d tokens", n)
	}
	if got := w.sendToken(w.tokenRequest(w.auditor)); !got.passed() { // the control
		t.Errorf("another agent: %s", got)
	}
	w.Clock.Advance(time.Second)
	if got := honestToken(t, w); !got.passed() {
		t.Errorf("a second later: %s", got)
	}
	w.CheckLedger()
}

// TestNamesAreNoMetrics, DO6: whatever names a caller makes up, there are as many
// series as before.
func TestNamesAreNoMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy)
	series := func() map[string]bool {
		got := w.do(w.get("GET", w.ManagementURL()+"/metrics"))
		if got.status != http.StatusOK {
			t.Fatalf("reading the metrics: %s", got)
		}
		all := map[string]bool{}
		for _, line := range strings.Split(string(got.body), "\n") {
			if line != "" && line[0] != '#' {
				all[line[:strings.LastIndexByte(line, ' ')]] = true
			}
		}
		return all
	}
	unsigned := make([]byte, 64) // whose signature it is nobody can know
	proof := w.tokenRequest(w.payroll).Proof.Compact(t)
	ask := func(i int) answer {
		name := fmt.Sprintf("unknown-%d", i)
		q := w.tokenRequest(w.payroll)
		q.Assertion.Sign = func([]byte) []byte { return unsigned }
		q.Proofs = []string{proof}
		q.Assertion.Claims["iss"], q.Assertion.Claims["sub"] = name, name
		q.Assertion.Header["kid"] = name
		q.Form.Set("client_id", name)
		q.Form.Set("resource", w.Issuer()+"/r/"+name)
		q.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		q.Header.Set("User-Agent", name)
		return w.sendToken(q)
	}
	paths := func(i int) answer { return w.do(w.get("GET", fmt.Sprintf("%s/%d/x", w.Issuer(), i))) }
	tools := func(i int) answer { return w.sendCall(w.callOf(w.payroll, fmt.Sprintf("tool_%d", i), `{}`)) }
	ask(0)
	paths(0)
	tools(0)
	before := series()
	if len(before) == 0 {
		t.Fatal("there are no metrics")
	}
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker + 1; i <= 10000; i += 8 {
				if got := ask(i); got.code != counterfoil.ClientRefused {
					t.Errorf("client %d: %s", i, got)
					return
				}
			}
		})
	}
	all.Wait()
	for i := range 200 {
		if got := paths(i + 1); got.code != counterfoil.ToolUnknown {
			t.Fatalf("path %d: %s", i, got)
		}
		if got := tools(i + 1); got.code != counterfoil.ToolUnknown {
			t.Fatalf("tool %d: %s", i, got)
		}
	}
	for name := range series() {
		if !before[name] {
			t.Errorf("a series more: %s", name)
		}
	}
	if got := honestToken(t, w); !got.passed() {
		t.Errorf("an honest request: %s", got)
	}
	w.CheckLedger()
}

// TestKeysOfOneAgent, DO6: an agent that may bind keys binds a few.
func TestKeysOfOneAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply("kind: Agent\nname: hoarder\nowner: ana\nenvironment: prod\nproof_keys: any\ngrants:\n  - tools: [bank/get_balance]\n")
	hoarder := w.actor("hoarder")
	with := func(signer *credential.Signer) answer {
		q := w.tokenRequest(hoarder)
		q.Proof = counterfoiltest.ForgeProof(t, signer, http.MethodPost, w.Issuer()+"/oauth/token", w.Clock.Now())
		return w.sendToken(q)
	}
	const limit = 8
	var bound []*credential.Signer
	for range limit {
		signer := counterfoiltest.NewSigner(t, credential.ES256)
		if got := with(signer); !got.passed() {
			t.Fatalf("key %d: %s", len(bound), got)
		}
		bound = append(bound, signer)
	}
	for range 20 {
		if got := with(counterfoiltest.NewSigner(t, credential.ES256)); got.passed() || got.status != http.StatusBadRequest {
			t.Errorf("one more key: %s", got)
		}
	}
	for i, signer := range bound { // the control
		if got := with(signer); !got.passed() {
			t.Errorf("key %d again: %s", i, got)
		}
	}
	w.CheckLedger()
}
