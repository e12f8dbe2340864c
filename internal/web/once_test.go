package web_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
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

func TestAssertionIsUsedOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	q := s.request(k)
	assertion := q.Assertion.Compact(t)
	q.Form.Set("client_assertion", assertion)
	if a := s.send(q); a.status != 200 {
		t.Fatalf("the first use: %d %s", a.status, a.body)
	}
	again := s.request(k)
	again.Form.Set("client_assertion", assertion)
	wantStatus(t, s.send(again), 401, "invalid_client", counterfoil.AssertionReplayed)

	// The same after a restart: the ids are durable.
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	again = s.request(k)
	again.Form.Set("client_assertion", assertion)
	wantStatus(t, s.send(again), 401, "invalid_client", counterfoil.AssertionReplayed)
	if a := s.token(k); a.status != 200 {
		t.Fatalf("a fresh one after the restart: %d %s", a.status, a.body)
	}
}

// A proof that was refused, lacked a nonce or was replayed uses up no assertion.
func TestRefusedProofUsesUpNoAssertion(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	q := s.request(k)
	assertion := q.Assertion.Compact(t)
	for _, edit := range []func(*request){
		proofClaim("htm", "GET"),
		func(q *request) { q.Proofs = []string{} },
		func(q *request) { q.Form.Set("scope", "nothing") },
		func(q *request) { q.Form.Set("resource", s.issuer+"/r/none") },
	} {
		q := s.request(k)
		q.Form.Set("client_assertion", assertion)
		edit(q)
		if a := s.send(q); a.status != 400 {
			t.Fatalf("got %d %s", a.status, a.body)
		}
	}
	last := s.request(k)
	last.Form.Set("client_assertion", assertion)
	if a := s.send(last); a.status != 200 {
		t.Errorf("the assertion was used up: %d %s", a.status, a.body)
	}
}

func TestNonces(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	s.nonces.Always = true
	q := s.request(k)
	assertion := q.Assertion.Compact(t)
	q.Form.Set("client_assertion", assertion)
	a := s.send(q)
	wantStatus(t, a, 400, "use_dpop_nonce", counterfoil.NonceRequired)
	nonces := a.header.Values("DPoP-Nonce")
	if len(nonces) != 1 || nonces[0] == "" {
		t.Fatalf("DPoP-Nonce = %q", nonces)
	}
	for _, wrong := range []string{"x", nonces[0] + "a", nonces[0][1:]} {
		q := s.request(k)
		q.Form.Set("client_assertion", assertion)
		q.Proof.Claims["nonce"] = wrong
		wantStatus(t, s.send(q), 400, "use_dpop_nonce", counterfoil.NonceRequired)
	}
	// The same assertion still serves, and the answer has the next nonce.
	q = s.request(k)
	q.Form.Set("client_assertion", assertion)
	q.Proof.Claims["nonce"] = nonces[0]
	a = s.send(q)
	if a.status != 200 || a.header.Get("DPoP-Nonce") == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("with the nonce: %d %s %v", a.status, a.body, a.header)
	}
	// A nonce is good for five minutes.
	s.clock.Advance(6 * time.Minute)
	q = s.request(k)
	q.Proof.Claims["nonce"] = nonces[0]
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
	s.clock.Advance(11 * time.Second)
	if a := s.token(k); a.status != 200 {
		t.Errorf("after the loss: %d %s", a.status, a.body)
	}
}
