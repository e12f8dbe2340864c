package web_test

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/ledger"
)

func TestTokenIsIssued(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	a := s.token(k)
	if a.status != 200 || a.member("token_type") != "DPoP" || a.member("expires_in") != "300" || a.member("scope") != "get_balance pay" {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers of an answer with a token: %v", a.header)
	}
	caller, err := s.verify(k, a.member("access_token"), "bank")
	if err != nil {
		t.Fatal(err)
	}
	if caller.Agent != "payroll" || caller.Instance != k.instance || caller.Environment != "prod" ||
		caller.Epoch != s.store.AgentState("payroll").Epoch || strings.Join(caller.Scope, " ") != "get_balance pay" ||
		caller.JKT != k.signer.Public().Thumbprint() {
		t.Errorf("caller = %+v", caller)
	}
	issued := s.entries(ledger.TokenIssued)
	if len(issued) != 1 {
		t.Fatalf("%d entries of tokens", len(issued))
	}
	e := issued[0]
	if e.Agent != "payroll" || e.Owner != "ana" || e.Instance != k.instance || e.JKT != caller.JKT || e.TokenJTI != caller.TokenID ||
		e.Proof == "" || e.Resource != "bank" || e.Epoch != caller.Epoch || e.Decision != ledger.Allow || e.RequestID == "" ||
		e.Source.Address != "192.0.2.1" || e.PolicyDigest == "" {
		t.Errorf("entry = %+v", e)
	}
	// The token of one resource opens no other.
	if _, err := s.verify(k, a.member("access_token"), "crm"); err == nil {
		t.Error("the token opened another resource")
	}
}
