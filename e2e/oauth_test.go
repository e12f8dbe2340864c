package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestOAuth4webapiShowsItsBoundToken: from the resource's URL alone oauth4webapi
// finds the issuer, gets a token, takes it itself as a resource server would, and
// shows it at the gateway. Where nonces are always asked for it comes back with
// one, at the token endpoint and at the gateway.
func TestOAuth4webapiShowsItsBoundToken(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	for _, tt := range []struct {
		name, alg string
		options   []counterfoiltest.Option
		nonces    []string
	}{
		{"Ed25519", "Ed25519", nil, nil},
		{"ES256, a nonce in every proof", "ES256", []counterfoiltest.Option{func(c *daemon.Config) { c.DPoPNonce = "always" }}, []string{"token", "resource"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock(), tt.options...)
			sys.Apply(fmt.Sprintf(`kind: Resource
name: ledgers
type: mcp
environment: prod
upstream: %s
tools:
  - {name: get_balance, class: read}
`, sys.BankUpstream()))
			key, auditors := enroll(t, sys, "payroll", tt.alg), enroll(t, sys, "auditor", tt.alg)
			ask := peers.OAuth{
				Agent: "payroll", KeyFile: key, Resource: sys.BankURL(),
				Use: map[string]any{
					"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": map[string]any{
						"protocolVersion": "2025-11-25", "capabilities": map[string]any{},
						"clientInfo": map[string]any{"name": "oauth4webapi", "version": "3"},
					},
				},
			}

			got := p.OAuth(t, ask)
			if got.Refused != nil {
				t.Fatalf("refused: %+v", *got.Refused)
			}
			if !slices.Equal(got.Nonces, tt.nonces) {
				t.Errorf("it was asked for a nonce at %q, want %q", got.Nonces, tt.nonces)
			}
			if got.Resource == nil || got.Resource.Resource != sys.BankURL() || got.Issuer != sys.Issuer() {
				t.Errorf("it found the resource %+v of the issuer %q", got.Resource, got.Issuer)
			}
			if got.TokenType != "dpop" || got.ExpiresIn != 300 || !slices.Contains(strings.Fields(got.Scope), "get_balance") {
				t.Errorf("a token of type %q for %d s and %q", got.TokenType, got.ExpiresIn, got.Scope)
			}
			signer, err := agent.LoadKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if jkt := signer.Public().Thumbprint(); got.JKT != jkt {
				t.Errorf("its proofs' key is %q, the agent's %q", got.JKT, jkt)
			}
			if c := got.Claims; c == nil || c.Iss != sys.Issuer() || c.Aud != sys.BankURL() || c.Sub != "payroll" || c.ClientID != "payroll" || c.Cnf.JKT != got.JKT {
				t.Errorf("as a resource server it saw %+v", c)
			}
			if got.Used == nil || got.Used.Status != http.StatusOK {
				t.Errorf("the gateway answered %+v", got.Used)
			}

			// The same with one thing wrong: how far it came, and what it was told.
			for name, no := range map[string]struct {
				wrong  func(*peers.OAuth)
				where  string
				status int
				err    string
				code   counterfoil.Code
			}{
				"an assertion for the token endpoint": {func(a *peers.OAuth) { a.Audience = sys.Issuer() + "/oauth/token" },
					"token", http.StatusUnauthorized, "invalid_client", counterfoil.AssertionAudience},
				"an assertion for another issuer": {func(a *peers.OAuth) { a.Audience = "https://elsewhere.example" },
					"token", http.StatusUnauthorized, "invalid_client", counterfoil.AssertionAudience},
				"another agent's key": {func(a *peers.OAuth) { a.KeyFile = auditors },
					"token", http.StatusUnauthorized, "invalid_client", counterfoil.ClientRefused},
				"a proof by another agent's key": {func(a *peers.OAuth) { a.ProofKeyFile = auditors },
					"token", http.StatusBadRequest, "invalid_dpop_proof", counterfoil.KeyInUse},
				"a proof by a key that nobody knows": {func(a *peers.OAuth) { a.ProofKeyFile = newKey(t, tt.alg) },
					"token", http.StatusBadRequest, "invalid_dpop_proof", counterfoil.ProofKeyMismatch},
				"a token shown with another key": {func(a *peers.OAuth) { a.ShowKeyFile = auditors },
					"resource", http.StatusUnauthorized, "invalid_token", counterfoil.ProofKeyMismatch},
				"a token shown to another resource": {func(a *peers.OAuth) { a.ShowTo = sys.Issuer() + "/r/ledgers" },
					"resource", http.StatusUnauthorized, "invalid_token", counterfoil.TokenAudience},
			} {
				ask := ask
				no.wrong(&ask)
				got := p.OAuth(t, ask)
				switch r := got.Refused; {
				case r == nil:
					t.Errorf("%s: the gateway answered %+v", name, got.Used)
				case r.Where != no.where || r.Status != no.status || r.Error != no.err || r.Code != string(no.code):
					t.Errorf("%s: refused %+v, want HTTP %d, %s and %s for the %s", name, *r, no.status, no.err, no.code, no.where)
				case r.Where == "resource" && r.Scheme != "dpop":
					t.Errorf("%s: the challenge is for %q", name, r.Scheme)
				}
			}

			issued := 0
			for _, e := range sys.Entries() {
				if e.Kind == ledger.TokenIssued && e.Agent == "payroll" {
					issued++
				}
			}
			if issued != 3 { // the good one, and the two that were shown wrongly
				t.Errorf("%d tokens are in the ledger, want 3", issued)
			}
			sys.CheckLedger()
		})
	}
}

// TestOAuth4webapiAsksAboutItsTokenAndRevokesIt: RFC 7662 with both kinds of answer
// (RFC 9701) and RFC 7009, by private_key_jwt. To an agent that the token is not of
// there is no such token, and what it revokes stays good.
func TestOAuth4webapiAsksAboutItsTokenAndRevokesIt(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	got := p.OAuth(t, peers.OAuth{
		Agent: "payroll", KeyFile: enroll(t, sys, "payroll", "Ed25519"), Resource: sys.BankURL(),
		Use: map[string]any{
			"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": map[string]any{
				"protocolVersion": "2025-11-25", "capabilities": map[string]any{},
				"clientInfo": map[string]any{"name": "oauth4webapi", "version": "3"},
			},
		},
		About: &peers.OtherAgent{Other: "auditor", OtherKeyFile: enroll(t, sys, "auditor", "ES256")},
	})
	if got.Refused != nil || got.About == nil || got.Claims == nil {
		t.Fatalf("refused: %+v", got.Refused)
	}
	const asJSON, asJWT = "application/json", "application/token-introspection+jwt"
	a := got.About
	for name, c := range map[string]struct {
		got    peers.Introspected
		media  string
		active bool
	}{
		"another agent":                {a.Other, asJSON, false},
		"another agent, as a JWT":      {a.OtherJWT, asJWT, false},
		"its own":                      {a.Before, asJSON, true},
		"its own, as a JWT":            {a.BeforeJWT, asJWT, true},
		"once it is revoked":           {a.After, asJSON, false},
		"once it is revoked, as a JWT": {a.AfterJWT, asJWT, false},
	} {
		if c.got.Type != c.media || c.got.Said["active"] != c.active {
			t.Errorf("%s: %+v", name, c.got)
		}
		if !c.active {
			if len(c.got.Said) != 1 {
				t.Errorf("%s: it says more than that it is not active: %v", name, c.got.Said)
			}
			continue
		}
		cnf, _ := c.got.Said["cnf"].(map[string]any)
		for member, want := range map[string]any{
			"iss": sys.Issuer(), "sub": "payroll", "aud": sys.BankURL(), "client_id": "payroll", "scope": got.Scope, "token_type": "DPoP",
		} {
			if c.got.Said[member] != want {
				t.Errorf("%s: %s is %v, want %v", name, member, c.got.Said[member], want)
			}
		}
		if cnf["jkt"] != got.JKT {
			t.Errorf("%s: cnf is %v, its key %s", name, cnf, got.JKT)
		}
	}
	if got.Used == nil || got.Used.Status != http.StatusOK {
		t.Errorf("before, the gateway answered %+v", got.Used)
	}
	if a.Used.Status != http.StatusUnauthorized || !strings.Contains(a.Used.Body, string(counterfoil.TokenRevoked)) {
		t.Errorf("once it was revoked the gateway answered %+v", a.Used)
	}
	revoked := 0
	for _, e := range sys.Entries() {
		if e.Kind == ledger.Revoked {
			revoked++
			if e.Agent != "payroll" || e.TokenJTI == "" {
				t.Errorf("the entry is %+v", e)
			}
		}
	}
	if revoked != 2 { // the second is on the record too, and took nothing
		t.Errorf("%d revocations are in the ledger, want 2", revoked)
	}
	sys.CheckLedger()
}

// newKey makes a key that is registered nowhere and returns its file.
func newKey(t *testing.T, alg string) string {
	t.Helper()
	private, err := credential.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "unknown.key")
	if err := agent.SaveKey(file, private); err != nil {
		t.Fatal(err)
	}
	return file
}
