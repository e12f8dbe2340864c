package web_test

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

// rotate asks for another key.
func (s *system) rotate(k agentKey, next *credential.Signer, token string, more string) answer {
	s.t.Helper()
	proof, err := credential.SignProof(next, "POST", s.issuer+"/keys/rotate", "", token, s.clock.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return s.with(k, token, "POST", "/keys/rotate", `{"proof":"`+proof+`"`+more+`}`)
}

// TestAnInstanceGetsAnotherKey: proved by both keys, and the old one is dead at once or
// after the overlap.
func TestAnInstanceGetsAnotherKey(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	token, task := s.mine(k), s.open(k, s.mine(k), `{"purpose":"pay"}`)
	next := testkit.Signer(t, "Ed25519")
	before, _ := s.store.Head()
	good := func(signer *credential.Signer, at time.Time, method, url, of string) string {
		p, err := credential.SignProof(signer, method, url, "", of, at)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	url, now := s.issuer+"/keys/rotate", s.clock.Now()
	for name, c := range map[string]struct {
		body   string
		status int
		code   counterfoil.Code
	}{
		"no proof":                      {`{}`, 400, counterfoil.RequestMalformed},
		"a proof that is none":          {`{"proof":"x"}`, 401, counterfoil.ProofMalformed},
		"a proof for another page":      {`{"proof":"` + good(next, now, "POST", s.issuer+"/tasks", token) + `"}`, 401, counterfoil.ProofTarget},
		"a proof for another method":    {`{"proof":"` + good(next, now, "GET", url, token) + `"}`, 401, counterfoil.ProofTarget},
		"a proof without the token":     {`{"proof":"` + good(next, now, "POST", url, "") + `"}`, 401, counterfoil.ProofTarget},
		"a proof of another token":      {`{"proof":"` + good(next, now, "POST", url, s.mine(k)) + `"}`, 401, counterfoil.ProofTarget},
		"an old proof":                  {`{"proof":"` + good(next, now.Add(-time.Hour), "POST", url, token) + `"}`, 401, counterfoil.ProofStale},
		"another agent's key":           {`{"proof":"` + good(other.signer, now, "POST", url, token) + `"}`, 409, counterfoil.KeyInUse},
		"the key that it has":           {`{"proof":"` + good(k.signer, now, "POST", url, token) + `"}`, 409, counterfoil.KeyInUse},
		"an overlap of more than a day": {`{"proof":"` + good(next, now, "POST", url, token) + `","overlap":86401}`, 400, counterfoil.RequestMalformed},
		"an overlap before now":         {`{"proof":"` + good(next, now, "POST", url, token) + `","overlap":-1}`, 400, counterfoil.RequestMalformed},
		"another instance's":            {`{"proof":"` + good(next, now, "POST", url, token) + `","instance":"` + other.instance + `"}`, 400, counterfoil.PayloadMalformed},
	} {
		a := s.with(k, token, "POST", "/keys/rotate", c.body)
		if a.status != c.status || a.member("code") != string(c.code) {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.body, c.status, c.code)
		}
	}
	// With an hour beside each other: both work, for the same instance.
	a := s.rotate(k, next, token, `,"overlap":3600`)
	if a.status != 200 || a.member("instance") != k.instance || a.member("jkt") != next.Public().Thumbprint() || a.member("agent") != "payroll" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	renewed := agentKey{k.agent, k.instance, next}
	for name, who := range map[string]agentKey{"the new key": renewed, "the old key, in the overlap": k} {
		if a := s.token(who); a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if a := s.with(who, s.mine(who), "GET", "/tasks/"+task, ""); a.status != 200 || a.member("state") != "open" {
			t.Errorf("%s, at its task: %d %s", name, a.status, a.body)
		}
	}
	// The old key rotates nothing any more.
	wantProblem(t, s.rotate(k, testkit.Signer(t, "ES256"), s.mine(k), ""), 401, counterfoil.ProofKeyMismatch)
	s.clock.Advance(time.Hour + time.Minute)
	wantStatus(t, s.token(k), 401, "invalid_client", counterfoil.ClientRefused)
	if a := s.token(renewed); a.status != 200 {
		t.Errorf("after the overlap: %d %s", a.status, a.body)
	}
	// Without an overlap the old key is dead with the answer, and so is its token.
	held := s.token(renewed).member("access_token")
	last := testkit.Signer(t, "ES256")
	if a := s.rotate(renewed, last, s.mine(renewed), ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, err := s.verify(renewed, held, "bank"); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
		t.Errorf("a token of the old key: %v", err)
	}
	if a := s.token(agentKey{k.agent, k.instance, last}); a.status != 200 {
		t.Errorf("the last key: %d %s", a.status, a.body)
	}
	if e := s.since(before, ledger.KeyRotated); len(e) != 2 || e[0].Instance != k.instance || e[0].JKT != next.Public().Thumbprint() {
		t.Errorf("the ledger has %+v", e)
	}
	s.wantEnded(before, "counterfoil/keys/rotate", 10)
}
