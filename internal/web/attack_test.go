package web_test

import (
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A row is one attack on the token endpoint. Beside each, the same request
// without the attack is sent and must pass. A row whose code is empty is itself
// a request that must pass.
type row struct {
	id, name string
	edit     func(*request)
	status   int
	oauth    string
	code     counterfoil.Code
}

func proof(id, name string, code counterfoil.Code, edit func(*request)) row {
	return row{id, name, edit, 400, "invalid_dpop_proof", code}
}

func passes(id, name string, edit func(*request)) row { return row{id, name, edit, 200, "", ""} }

// run sends every row. Rows are in sequence, a second apart, so that no rate is
// met; a refused row must leave no token behind.
func run(t *testing.T, s *system, k agentKey, rows []row) {
	t.Helper()
	outer := s.t
	defer func() { s.t = outer }()
	for _, r := range rows {
		t.Run(r.id+" "+r.name, func(t *testing.T) {
			s.t = t
			s.clock.Advance(time.Second)
			if a := s.send(s.request(k)); a.status != 200 {
				t.Fatalf("the request without the attack: %d %s", a.status, a.body)
			}
			before, _ := s.store.Head()
			q := s.request(k)
			r.edit(q)
			a := s.send(q)
			wantStatus(t, a, r.status, r.oauth, r.code)
			if got := len(s.since(before, ledger.TokenIssued)); (got == 1) != (r.status == 200) || got > 1 {
				t.Errorf("%d tokens were recorded", got)
			}
			if strings.Contains(a.body, "access_token") != (r.status == 200) {
				t.Errorf("answer %s", a.body)
			}
		})
	}
}

func claim(name string, value any) func(*request) {
	return func(q *request) { q.Assertion.Claims[name] = value }
}

func proofClaim(name string, value any) func(*request) {
	return func(q *request) { q.Proof.Claims[name] = value }
}

func field(name string, values ...string) func(*request) {
	return func(q *request) { q.Form[name] = values }
}

// TestTokenRequestLimits has what a client may not get an answer to over a
// connection: the server stops reading. The attacks that fit into a request are in
// the package attacks.
func TestTokenRequestLimits(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	run(t, s, s.enrol("payroll"), []row{
		{"DO1", "a body of 1 MiB", func(q *request) { q.Body = strings.Repeat("a", 1<<20) }, 413, "invalid_request", counterfoil.PayloadTooLarge},
		{"DO1", "an assertion of 17 KiB", func(q *request) { q.Form.Set("client_assertion", strings.Repeat("a", 17<<10)) }, 413, "invalid_request", counterfoil.PayloadTooLarge},
		{"DO1", "a proof of 9 KiB", func(q *request) { q.Proofs = []string{strings.Repeat("a", 9<<10)} }, 413, "invalid_request", counterfoil.PayloadTooLarge},
		{"DO1", "an assertion of dots", func(q *request) { q.Form.Set("client_assertion", strings.Repeat(".", 16<<10)) }, 401, "invalid_client", counterfoil.AssertionMalformed},
		{"DO2", "claims that are deep", func(q *request) {
			q.Assertion.RawClaims = `{"sub":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}"
		}, 401, "invalid_client", counterfoil.AssertionMalformed},
	})
}
