package credential

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

func testSigner(t *testing.T, alg string) *Signer {
	t.Helper()
	key, err := GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func signedProof(t *testing.T, s *Signer) string {
	t.Helper()
	proof, err := SignProof(s, "POST", testURL, "", "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// A header that is known is what reading it would find, and the signature is
// verified all the same.
func TestKnownHeadersSkipNoCheck(t *testing.T) {
	t.Parallel()
	mine, thief := testSigner(t, ES256), testSigner(t, ES256)
	request := ProofRequest{Method: "POST", URL: testURL}
	var h Headers
	check := func(compact string) (Proof, error) {
		u, err := h.ParseProof([]string{compact})
		if err != nil {
			return Proof{}, err
		}
		return u.Check(request, testNow)
	}
	first, err := h.ParseProof([]string{signedProof(t, mine)})
	if err != nil || first.jws.known {
		t.Fatal("the first is not read", err)
	}
	h.KeepProof(first)
	again, err := h.ParseProof([]string{signedProof(t, mine)})
	if err != nil || !again.jws.known {
		t.Fatal("the second is read again", err)
	}
	if p, err := again.Check(request, testNow); err != nil || p.JKT != mine.Public().Thumbprint() || p.Alg != ES256 {
		t.Fatalf("the control: %+v %v", p, err)
	}

	good, stolen := strings.Split(signedProof(t, mine), "."), strings.Split(signedProof(t, thief), ".")
	for name, parts := range map[string][]string{
		"another key's signature under the known header": {good[0], good[1], stolen[2]},
		"other claims under the known header":            {good[0], stolen[1], good[2]},
		"both":                                           {good[0], stolen[1], stolen[2]},
		"no signature":                                   {good[0], good[1], ""},
		"a signature that is padded":                     {good[0], good[1], good[2] + "=="},
		"claims that are not JSON":                       {good[0], "e30x", good[2]},
	} {
		if _, err := check(strings.Join(parts, ".")); counterfoil.CodeOf(err) != counterfoil.ProofMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := again.Check(request, testNow.Add(time.Hour)); counterfoil.CodeOf(err) != counterfoil.ProofStale {
		t.Errorf("an hour later: %v", err)
	}
	if p, err := check(strings.Join(stolen, ".")); err != nil || p.JKT != thief.Public().Thumbprint() {
		t.Errorf("an unknown header beside the known one: %+v %v", p, err)
	}
}

// A proof's header is none of a token, known or not.
func TestKnownHeadersKeepTheirKind(t *testing.T) {
	t.Parallel()
	s := testSigner(t, ES256)
	var h Headers
	proof := signedProof(t, s)
	p, err := h.ParseProof([]string{proof})
	if err != nil {
		t.Fatal(err)
	}
	h.KeepProof(p)
	if _, err := h.ParseToken(proof); counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
		t.Errorf("a proof is read as a token: %v", err)
	}
	token, err := SignToken(s, TokenClaims{
		Issuer: testIssuer, Audience: testResource, Subject: "payroll", ClientID: "payroll", ID: "tok_1", JKT: s.Public().Thumbprint(),
		IssuedAt: testNow, NotBefore: testNow, Expires: testNow.Add(time.Minute), Agent: AgentClaim{ID: "payroll", Instance: "ins_1", Env: "prod", Epoch: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := h.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	h.KeepToken(u)
	if again, err := h.ParseToken(token); err != nil || !again.jws.known || again.KeyID() != u.KeyID() || again.ClaimedIssuer() != testIssuer {
		t.Errorf("a known token: %+v %v", again, err)
	}
	if _, err := h.ParseProof([]string{token}); counterfoil.CodeOf(err) != counterfoil.ProofMalformed {
		t.Errorf("a token is read as a proof: %v", err)
	}
}

func TestKnownHeadersAreBounded(t *testing.T) {
	t.Parallel()
	var h Headers
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range maxHeaders {
				h.keep(&h.proofs, fmt.Sprint(g, " ", i), fmt.Append(nil, g, " ", i), knownHeader{})
				h.find(fmt.Sprint(g, " ", i), true)
			}
		})
	}
	all.Wait()
	if n := len(h.proofs.known); n != maxHeaders || len(h.proofs.of) != n {
		t.Errorf("%d headers of %d keys are remembered, %d may be", n, len(h.proofs.of), maxHeaders)
	}
	// One key in many spellings pushes out nobody; a header without measure is read
	// each time.
	before := maps.Clone(h.proofs.known)
	h.keep(&h.proofs, "key", []byte("spelling 0"), knownHeader{})
	for i := range maxHeaders {
		h.keep(&h.proofs, "key", fmt.Append(nil, "spelling ", i), knownHeader{})
	}
	h.keep(&h.proofs, "long", bytes.Repeat([]byte("x"), maxHeader+1), knownHeader{})
	gone := 0
	for text := range before {
		if _, there := h.find(text, true); !there {
			gone++
		}
	}
	if gone != 1 || len(h.proofs.known) != maxHeaders {
		t.Errorf("%d others are gone, %d headers are remembered", gone, len(h.proofs.known))
	}
	if _, there := h.find(fmt.Sprint("spelling ", maxHeaders-1), true); !there {
		t.Error("the last spelling is not remembered")
	}
	if _, ok := (*Headers)(nil).find("0 0", true); ok {
		t.Error("what is not there remembers")
	}
}
