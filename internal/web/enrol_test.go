package web_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestEnrolment(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	signer := testkit.Signer(t, "ES256")
	code := s.code("payroll")
	a := s.enrolWith(signer, "payroll", code)
	if a.status != 201 || a.member("agent") != "payroll" || a.member("jkt") != signer.Public().Thumbprint() || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	e := s.entries(ledger.InstanceEnrolled)
	if len(e) != 1 || e[0].Agent != "payroll" || e[0].Owner != "ana" || e[0].Instance != a.member("instance") || e[0].JKT != a.member("jkt") || e[0].Proof == "" {
		t.Errorf("entry = %+v", e)
	}
	issued := slices.DeleteFunc(s.entries(ledger.EnrolmentCodeIssued), func(e *ledger.Entry) bool { return e.Agent == "" }) // of people
	if len(issued) != 1 || issued[0].Actor != "uid:0" {
		t.Errorf("entry of the code = %+v", issued)
	}
	// Neither the ledger nor the log has the code.
	var all strings.Builder
	for _, e := range s.entries("") {
		fmt.Fprintf(&all, "%+v\n", e)
	}
	if strings.Contains(all.String(), code) || strings.Contains(s.logs.String(), code) {
		t.Error("the code is in the ledger or in the log")
	}
}

func TestEnrolmentIsRefused(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	fresh := func() *credential.Signer { return testkit.Signer(t, "ES256") }
	used := s.code("payroll")
	first := fresh()
	if a := s.enrolWith(first, "payroll", used); a.status != 201 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	expired := s.code("payroll")
	s.clock.Advance(15*time.Minute + time.Second)
	live := s.code("payroll")
	suspended := s.code("gardener")
	s.admin("POST", "/api/v1/agents/gardener/suspend", nil)

	texts := map[string]bool{}
	for _, tt := range []struct{ name, agent, code string }{
		{"unknown", "payroll", "cfe_aaaaaaaaaaaaaaaaaaaaaaaaaa" + "epzyuyq"},
		{"used", "payroll", used},
		{"expired", "payroll", expired},
		{"another agent's", "other", live},
		{"an agent's that never was", "nobody", live},
		{"a suspended agent's", "gardener", suspended},
	} {
		a := s.enrolWith(fresh(), tt.agent, tt.code)
		wantProblem(t, a, 400, counterfoil.EnrolmentRefused)
		if tt.name != "unknown" {
			texts[a.member("detail")] = true
		}
	}
	if len(texts) != 1 {
		t.Errorf("refusals differ: %v", texts)
	}
	wantProblem(t, s.enrolWith(fresh(), "payroll", live[:len(live)-1]+"x"), 400, counterfoil.EnrolmentRefused)
	wantProblem(t, s.enrolWith(fresh(), "Pay Roll", live), 400, counterfoil.RequestMalformed)
	wantProblem(t, s.enrolWith(first, "payroll", live), 409, counterfoil.KeyInUse)

	// None of that used the live code up.
	if a := s.enrolWith(fresh(), "payroll", live); a.status != 201 {
		t.Errorf("the live code: %d %s", a.status, a.body)
	}
	if got := len(s.entries(ledger.InstanceEnrolled)); got != 2 {
		t.Errorf("%d instances were recorded", got)
	}
}

func TestEnrolmentRequests(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	signer := testkit.Signer(t, "ES256")
	code := s.code("payroll")
	sign := func(method, url string) string {
		p, err := credential.SignProof(signer, method, url, "", "", s.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	good, err := json.Marshal(map[string]string{"agent": "payroll", "code": code})
	if err != nil {
		t.Fatal(err)
	}
	proof := func() string { return sign("POST", s.issuer+"/enroll") }
	for _, tt := range []struct {
		name, body string
		proofs     []string
		status     int
		code       counterfoil.Code
	}{
		{"no proof", string(good), nil, 401, counterfoil.ProofMissing},
		{"two proofs", string(good), []string{proof(), proof()}, 401, counterfoil.ProofMalformed},
		{"a proof for the token endpoint", string(good), []string{sign("POST", s.issuer+"/oauth/token")}, 401, counterfoil.ProofTarget},
		{"a proof for GET", string(good), []string{sign("GET", s.issuer+"/enroll")}, 401, counterfoil.ProofTarget},
		{"no body", "", []string{proof()}, 400, counterfoil.PayloadMalformed},
		{"an array", "[]", []string{proof()}, 400, counterfoil.PayloadMalformed},
		{"an unknown member", strings.Replace(string(good), "{", `{"instance":"mine",`, 1), []string{proof()}, 400, counterfoil.PayloadMalformed},
		{"agent twice", strings.Replace(string(good), "{", `{"agent":"other",`, 1), []string{proof()}, 400, counterfoil.PayloadMalformed},
		{"Agent beside agent", strings.Replace(string(good), "{", `{"Agent":"other",`, 1), []string{proof()}, 400, counterfoil.PayloadMalformed},
		{"more after it", string(good) + "{}", []string{proof()}, 400, counterfoil.PayloadMalformed},
		{"a code that is a number", `{"agent":"payroll","code":7}`, []string{proof()}, 400, counterfoil.PayloadMalformed},
		{"too large", `{"agent":"` + strings.Repeat("a", 5000) + `"}`, []string{proof()}, 413, counterfoil.PayloadTooLarge},
	} {
		a := s.enrolRaw(tt.body, tt.proofs...)
		wantProblem(t, a, tt.status, tt.code)
		if (tt.status == 401) != strings.HasPrefix(a.header.Get("WWW-Authenticate"), "DPoP ") {
			t.Errorf("%s: WWW-Authenticate = %q", tt.name, a.header.Get("WWW-Authenticate"))
		}
		if t.Failed() {
			t.Fatal(tt.name)
		}
	}
	one := proof()
	if a := s.enrolRaw(string(good), one); a.status != 201 {
		t.Fatalf("the request without any of that: %d %s", a.status, a.body)
	}
	wantProblem(t, s.enrolRaw(string(good), one), 401, counterfoil.ProofReplayed)
}
