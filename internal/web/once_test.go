package web_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ledger"
)

// race sends requests at once and counts the answers by status.
func race(h http.Handler, requests []*http.Request) map[int]int {
	var (
		mu    sync.Mutex
		count = map[int]int{}
		ready = make(chan struct{})
		wg    sync.WaitGroup
	)
	for _, r := range requests {
		wg.Go(func() {
			<-ready
			a := serve(h, r)
			mu.Lock()
			defer mu.Unlock()
			count[a.status]++
		})
	}
	close(ready)
	wg.Wait()
	return count
}

const racers = 200

func TestAssertionIsUsedOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	q := s.request(k)
	assertion := q.assertion.compact(t)
	q.form.Set("client_assertion", assertion)
	if a := s.send(q); a.status != 200 {
		t.Fatalf("the first use: %d %s", a.status, a.body)
	}
	again := s.request(k)
	again.form.Set("client_assertion", assertion)
	wantStatus(t, s.send(again), 401, "invalid_client", counterfoil.AssertionReplayed)

	// The same after a restart: the ids are durable.
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	again = s.request(k)
	again.form.Set("client_assertion", assertion)
	wantStatus(t, s.send(again), 401, "invalid_client", counterfoil.AssertionReplayed)
	if a := s.token(k); a.status != 200 {
		t.Fatalf("a fresh one after the restart: %d %s", a.status, a.body)
	}
}

func TestOneOfManyWinsAnAssertion(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	assertion := s.request(k).assertion
	text := assertion.compact(t)
	var requests []*http.Request
	for range racers {
		q := s.request(k)
		q.form.Set("client_assertion", text)
		requests = append(requests, s.finish(q))
	}
	count := race(s.handlers.Public, requests)
	if count[200] != 1 || count[401] != racers-1 {
		t.Errorf("answers by status: %v", count)
	}
	if got := len(s.entries(ledger.TokenIssued)); got != 1 {
		t.Errorf("%d tokens were recorded", got)
	}
}

func TestOneOfManyWinsAProof(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	q := s.request(k)
	text := q.proof.compact(t)
	var requests []*http.Request
	for range racers {
		q := s.request(k)
		q.proofs = []string{text}
		requests = append(requests, s.finish(q))
	}
	count := race(s.handlers.Public, requests)
	if count[200] != 1 || count[400] != racers-1 {
		t.Errorf("answers by status: %v", count)
	}
	if got := len(s.entries(ledger.TokenIssued)); got != 1 {
		t.Errorf("%d tokens were recorded", got)
	}
	again := s.request(k)
	again.proofs = []string{text}
	wantStatus(t, s.send(again), 400, "invalid_dpop_proof", counterfoil.ProofReplayed)
}

// A proof that was refused, lacked a nonce or was replayed uses up no assertion.
func TestRefusedProofUsesUpNoAssertion(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	q := s.request(k)
	assertion := q.assertion.compact(t)
	for _, edit := range []func(*request){
		proofClaim("htm", "GET"),
		func(q *request) { q.proofs = []string{} },
		func(q *request) { q.form.Set("scope", "nothing") },
		func(q *request) { q.form.Set("resource", s.issuer+"/r/none") },
	} {
		q := s.request(k)
		q.form.Set("client_assertion", assertion)
		edit(q)
		if a := s.send(q); a.status != 400 {
			t.Fatalf("got %d %s", a.status, a.body)
		}
	}
	last := s.request(k)
	last.form.Set("client_assertion", assertion)
	if a := s.send(last); a.status != 200 {
		t.Errorf("the assertion was used up: %d %s", a.status, a.body)
	}
}

func TestOneOfManyWinsAnEnrolmentCode(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	code := s.code("payroll")
	var (
		mu    sync.Mutex
		count = map[int]int{}
		wg    sync.WaitGroup
		ready = make(chan struct{})
	)
	signers := make([]*credential.Signer, racers)
	for i := range signers {
		signers[i] = newSigner(t, "ES256")
	}
	for _, signer := range signers {
		wg.Go(func() {
			<-ready
			a := s.enrolWith(signer, "payroll", code)
			mu.Lock()
			defer mu.Unlock()
			count[a.status]++
		})
	}
	close(ready)
	wg.Wait()
	if count[201] != 1 || count[400] != racers-1 {
		t.Errorf("answers by status: %v", count)
	}
	if got := len(s.store.Instances("payroll")); got != 1 {
		t.Errorf("%d instances", got)
	}
}

func TestNonces(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	s.nonces.Always = true
	q := s.request(k)
	assertion := q.assertion.compact(t)
	q.form.Set("client_assertion", assertion)
	a := s.send(q)
	wantStatus(t, a, 400, "use_dpop_nonce", counterfoil.NonceRequired)
	nonces := a.header.Values("DPoP-Nonce")
	if len(nonces) != 1 || nonces[0] == "" {
		t.Fatalf("DPoP-Nonce = %q", nonces)
	}
	for _, wrong := range []string{"x", nonces[0] + "a", nonces[0][1:]} {
		q := s.request(k)
		q.form.Set("client_assertion", assertion)
		q.proof.claims["nonce"] = wrong
		wantStatus(t, s.send(q), 400, "use_dpop_nonce", counterfoil.NonceRequired)
	}
	// The same assertion still serves, and the answer has the next nonce.
	q = s.request(k)
	q.form.Set("client_assertion", assertion)
	q.proof.claims["nonce"] = nonces[0]
	a = s.send(q)
	if a.status != 200 || a.header.Get("DPoP-Nonce") == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("with the nonce: %d %s %v", a.status, a.body, a.header)
	}
	// A nonce is good for five minutes.
	s.clock.advance(6 * time.Minute)
	q = s.request(k)
	q.proof.claims["nonce"] = nonces[0]
	wantStatus(t, s.send(q), 400, "use_dpop_nonce", counterfoil.NonceRequired)
}

// After a loss of used proofs, proofs from before it need a nonce made since;
// later ones need none.
func TestNonceAfterALoss(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	if a := s.token(k); a.status != 200 || a.header.Get("DPoP-Nonce") != "" {
		t.Fatalf("before the loss: %d %s %v", a.status, a.body, a.header)
	}
	s.nonces.LostAt = s.clock.Now()
	wantStatus(t, s.token(k), 400, "use_dpop_nonce", counterfoil.NonceRequired)
	s.clock.advance(11 * time.Second)
	if a := s.token(k); a.status != 200 {
		t.Errorf("after the loss: %d %s", a.status, a.body)
	}
}
