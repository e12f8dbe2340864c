package resource_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/resource"
)

// TestInspectSaysWhatATokenIs: whom it is for does not matter, everything else does.
func TestInspectSaysWhatATokenIs(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	s.verifier.Revocation, s.verifier.Replay = nil, nil
	for _, audience := range []string{bank, "https://vault.example/api", issuer} {
		token, err := s.verifier.Inspect(context.Background(), s.token(func(c *credential.TokenClaims) { c.Audience = audience }))
		wantDone(t, err)
		if token.Audience != audience || token.ID != "tok_1" || token.Agent.ID != "payroll" || token.JKT != s.agent.Public().Thumbprint() {
			t.Errorf("it says %+v", token)
		}
	}
	good := s.token(nil)
	signed := func(signer *credential.Signer, edit func(*credential.TokenClaims)) string {
		t.Helper()
		c := s.claims
		if edit != nil {
			edit(&c)
		}
		token, err := credential.SignToken(signer, c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	proof, err := credential.SignProof(s.agent, "POST", bank, "", good, s.now)
	if err != nil {
		t.Fatal(err)
	}
	assertion, err := credential.SignAssertion(s.agent, "payroll", issuer, s.now)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for name, c := range map[string]struct {
		token string
		code  counterfoil.Code
	}{
		"another issuer's":     {s.token(func(c *credential.TokenClaims) { c.Issuer = "https://other.example" }), counterfoil.TokenIssuer},
		"past":                 {s.token(func(c *credential.TokenClaims) { c.Expires = s.now }), counterfoil.TokenExpired},
		"not yet":              {s.token(func(c *credential.TokenClaims) { c.NotBefore = s.now.Add(time.Hour) }), counterfoil.TokenExpired},
		"by another key":       {signed(testkit.Signer(t, credential.ES256), nil), counterfoil.TokenMalformed},
		"by the agent itself":  {signed(s.agent, nil), counterfoil.TokenMalformed},
		"a proof":              {proof, counterfoil.TokenMalformed},
		"an assertion":         {assertion, counterfoil.TokenMalformed},
		"another's signature":  {parts[0] + "." + parts[1] + "." + strings.Split(s.token(func(c *credential.TokenClaims) { c.ID = "tok_9" }), ".")[2], counterfoil.TokenMalformed},
		"without a signature":  {parts[0] + "." + parts[1] + ".", counterfoil.TokenMalformed},
		"nothing":              {"", counterfoil.TokenMalformed},
		"an opaque one":        {"tok_1", counterfoil.TokenMalformed},
		"larger than they are": {good + strings.Repeat("A", 16<<10), counterfoil.PayloadTooLarge},
	} {
		if token, err := s.verifier.Inspect(context.Background(), c.token); err == nil || counterfoil.CodeOf(err) != c.code || token.ID != "" {
			t.Errorf("%s: %v, %+v", name, err, token.TokenClaims)
		}
	}
	// It is no way in: what was inspected still needs its proof, and no proof is used up.
	if _, err := s.verifier.Inspect(context.Background(), good); err != nil {
		t.Fatal(err)
	}
	s.verifier.Revocation, s.verifier.Replay = resource.TokensOnly{}, resource.NewMemoryReplay(nil)
	if _, err := s.try(func(c *call) { c.header = map[string][]string{"Authorization": {"DPoP " + good}} }); err == nil {
		t.Error("a token that was inspected needs no proof")
	}
	if _, err := (&resource.Verifier{Issuer: issuer}).Inspect(context.Background(), good); err == nil || counterfoil.CodeOf(err) != counterfoil.Internal {
		t.Errorf("without keys: %v", err)
	}
	// The key is asked for each time.
	clear(s.keys)
	if _, err := s.verifier.Inspect(context.Background(), good); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
		t.Errorf("of a key that was removed: %v", err)
	}
}
