package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// racers is how many present one thing at once. They stay below every rate, so
// that what refuses all but one is not that.
const racers = 200

// A race is something that is good once. The racers' requests are made before
// they start: those of contested show the same one, those of control one each.
type race struct {
	row, name          string
	contested, control func(w *world) []*http.Request
	wins, loses        want

	recorded ledger.Kind // the entry that stands for a win
	reached  int         // how many calls a win makes at the upstream
}

// TestOneOfManyWins shows that of many who present one assertion, one proof or
// one enrolment code at once, over connections of their own, exactly one wins,
// that the others are told why, and that record and upstream know of one. Beside
// each, as many with something of their own all win.
func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	honest := func(*world, *tokenRequest) {}
	for _, r := range []race{
		{
			row: "CA10", name: "an assertion with proofs of their own", recorded: ledger.TokenIssued,
			control: tokenRequests(honest),
			contested: func(w *world) []*http.Request {
				assertion := w.tokenRequest(w.payroll).Assertion.Compact(w.T)
				return tokenRequests(func(_ *world, q *tokenRequest) { q.Form.Set("client_assertion", assertion) })(w)
			},
			wins: passes, loses: badClient(counterfoil.AssertionReplayed),
		},
		{
			row: "DT8", name: "a proof at the token endpoint", recorded: ledger.TokenIssued,
			control: tokenRequests(honest),
			contested: func(w *world) []*http.Request {
				proof := w.tokenRequest(w.payroll).Proof.Compact(w.T)
				return tokenRequests(func(_ *world, q *tokenRequest) { q.Proofs = []string{proof} })(w)
			},
			wins: passes, loses: badProof(counterfoil.ProofReplayed),
		},
		{
			row: "DG5", name: "a proof at the gateway", recorded: ledger.CallDecided, reached: 1,
			control: func(w *world) []*http.Request {
				return many(func() *http.Request { return w.request(w.call(w.payroll)) })
			},
			contested: func(w *world) []*http.Request {
				one := w.call(w.payroll)
				w.request(one) // signs the proof
				return many(func() *http.Request { return w.request(one) })
			},
			wins: passes, loses: unproven(counterfoil.ProofReplayed),
		},
		{
			row: "DG9", name: "a proof at the gateway with bodies of their own", recorded: ledger.CallDecided, reached: 1,
			control: func(w *world) []*http.Request {
				return many(func() *http.Request { return w.request(w.call(w.payroll)) })
			},
			contested: func(w *world) []*http.Request {
				one, n := w.call(w.payroll), 0
				w.request(one)
				return many(func() *http.Request {
					n++
					one.body = strings.Replace(counterfoiltest.Body("get_balance", honestArguments), `"id":1,`, fmt.Sprintf(`"id":%d,`, n), 1)
					return w.request(one)
				})
			},
			wins: passes, loses: unproven(counterfoil.ProofReplayed),
		},
		{
			row: "advisory 1", name: "an enrolment code with keys of their own", recorded: ledger.InstanceEnrolled,
			control: func(w *world) []*http.Request {
				return many(func() *http.Request { return w.enrolment("auditor", w.EnrolCode("auditor")) })
			},
			contested: func(w *world) []*http.Request {
				code := w.EnrolCode("auditor")
				return many(func() *http.Request { return w.enrolment("auditor", code) })
			},
			wins: want{status: http.StatusCreated}, loses: want{status: http.StatusBadRequest, code: counterfoil.EnrolmentRefused},
		},
	} {
		t.Run(r.row+" "+r.name, func(t *testing.T) {
			t.Parallel()
			r.run(t)
		})
	}
}

// TestOneAssertionBindsOneKey is CA10 for an agent that may bind keys: one assertion
// is one token, and so one key of whoever was first, not as many as may be bound.
func TestOneAssertionBindsOneKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply("kind: Agent\nname: free\nowner: ana\nenvironment: prod\nproof_keys: any\ngrants: [{tools: [bank/get_balance]}]\n")
	const keys = 8 // that one instance may bind
	for _, heat := range []struct {
		name    string
		shared  bool
		winners int
	}{
		{"the control: an assertion each", false, keys},
		{"one assertion", true, 1},
	} {
		free := w.actor("free")
		assertion := w.tokenRequest(free).Assertion.Compact(t)
		var requests []*http.Request
		for range keys {
			q := w.proveWith(free, counterfoiltest.NewSigner(t, credential.ES256))
			if heat.shared {
				q.Form.Set("client_assertion", assertion)
			}
			requests = append(requests, q.Request(t, w.Issuer()+"/oauth/token"))
		}
		from, won := w.size(), 0
		for _, a := range w.atOnce(requests) {
			if a.passed() {
				won++
			} else {
				badClient(counterfoil.AssertionReplayed).check(t, a)
			}
		}
		bound := 0
		for _, e := range w.since(from) {
			if e.Kind == ledger.ProofKeyBound && e.Instance == free.instance {
				bound++
			}
		}
		if won != heat.winners || bound != heat.winners {
			t.Errorf("%s: %d tokens and %d keys, want %d", heat.name, won, bound, heat.winners)
		}
	}
	w.CheckLedger()
}

func (r *race) run(t *testing.T) {
	w := newWorld(t)
	w.renew()
	for _, heat := range []struct {
		name     string
		requests []*http.Request
		winners  int
	}{
		{"the control", r.control(w), racers},
		{"the race", r.contested(w), 1},
	} {
		from, calls := w.size(), w.Reached()
		won := 0
		for _, a := range w.atOnce(heat.requests[:racers]) {
			if a.passed() {
				won++
				r.wins.check(t, a)
			} else {
				r.loses.check(t, a)
			}
		}
		if won != heat.winners {
			t.Errorf("%s: %d of %d won, want %d", heat.name, won, racers, heat.winners)
		}
		recorded := 0
		for _, e := range w.since(from) {
			if e.Kind == r.recorded && e.Decision != ledger.Refuse {
				recorded++
			}
		}
		if reached := w.Reached() - calls; recorded != heat.winners || reached != heat.winners*r.reached {
			t.Errorf("%s: the ledger knows of %d, the upstream of %d", heat.name, recorded, reached)
		}
		// What was presented stays used up: one who comes late loses too.
		if heat.winners == 1 {
			r.loses.check(t, w.do(heat.requests[racers]))
		}
		w.Clock.Advance(10 * time.Second) // the rates are full again
	}
	w.CheckLedger()
}

// many makes the racers' requests and one more, of somebody who comes late.
func many(one func() *http.Request) []*http.Request {
	requests := make([]*http.Request, racers+1)
	for i := range requests {
		requests[i] = one()
	}
	return requests
}

func tokenRequests(edit func(*world, *tokenRequest)) func(*world) []*http.Request {
	return func(w *world) []*http.Request {
		return many(func() *http.Request {
			q := w.tokenRequest(w.payroll)
			edit(w, q)
			return q.Request(w.T, w.Issuer()+"/oauth/token")
		})
	}
}

// enrolment makes the request that enrols a new key.
func (w *world) enrolment(agent, code string) *http.Request {
	w.T.Helper()
	target := w.Issuer() + "/enroll"
	proof := counterfoiltest.ForgeProof(w.T, counterfoiltest.NewSigner(w.T, credential.ES256), http.MethodPost, target, w.Clock.Now())
	r, err := http.NewRequestWithContext(w.T.Context(), http.MethodPost, target, strings.NewReader(fmt.Sprintf(`{"agent":%q,"code":%q}`, agent, code)))
	if err != nil {
		w.T.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header["Dpop"] = []string{proof.Compact(w.T)}
	return r
}

// atOnce sends requests at the same moment and returns their answers.
func (w *world) atOnce(requests []*http.Request) []answer {
	w.T.Helper()
	answers := make([]answer, len(requests))
	var all, ready sync.WaitGroup
	ready.Add(len(requests))
	for i, r := range requests {
		all.Go(func() {
			ready.Done()
			ready.Wait()
			answers[i] = w.do(r)
		})
	}
	all.Wait()
	return answers
}
