package resource_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/resource"
)

const (
	issuer   = "https://issuer.example"
	bank     = "https://gateway.example/r/bank"
	bankCall = bank + "/accounts"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// keys is a KeySource over a map, as a keyring is.
type keys map[string]credential.PublicKey

func (k keys) Key(_ context.Context, kid string) (credential.PublicKey, error) {
	if key, ok := k[kid]; ok {
		return key, nil
	}
	return credential.PublicKey{}, counterfoil.Refuse(counterfoil.TokenMalformed, "the key %.64q is unknown", kid)
}

// A system is an issuer, an agent's instance with its key, and a verifier, at
// one injected time.
type system struct {
	t        testing.TB
	now      time.Time
	issuer   *credential.Signer
	agent    *credential.Signer
	keys     keys
	verifier *resource.Verifier
	claims   credential.TokenClaims
}

func newSystem(t testing.TB, issuerAlg, agentAlg string) *system {
	t.Helper()
	s := &system{t: t, now: start, issuer: testkit.Signer(t, issuerAlg), agent: testkit.Signer(t, agentAlg)}
	s.keys = keys{s.issuer.Public().Thumbprint(): s.issuer.Public()}
	clock := func() time.Time { return s.now }
	s.verifier = &resource.Verifier{
		Issuer:     issuer,
		Keys:       s.keys,
		Replay:     resource.NewMemoryReplay(clock),
		Revocation: resource.TokensOnly{},
		Now:        clock,
	}
	s.claims = credential.TokenClaims{
		Issuer: issuer, Audience: bank, Subject: "payroll", ClientID: "payroll", ID: "tok_1",
		IssuedAt: start, NotBefore: start, Expires: start.Add(5 * time.Minute),
		Scope: []string{"pay", "read"}, JKT: s.agent.Public().Thumbprint(), SubProfile: credential.SubProfileAgent,
		Agent: credential.AgentClaim{ID: "payroll", Instance: "ins_1", Env: "production", Epoch: 1},
	}
	return s
}

func (s *system) token(change func(*credential.TokenClaims)) string {
	s.t.Helper()
	c := s.claims
	if change != nil {
		change(&c)
	}
	token, err := credential.SignToken(s.issuer, c)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// A call is a request in the making: an attack changes one thing about it.
type call struct {
	method, url, resource string
	header                http.Header

	// of the proof
	token, htm, htu, nonce string
	signer                 *credential.Signer
	at                     time.Time
}

// try makes an honest call, lets change change it, and checks it.
func (s *system) try(change func(*call)) (counterfoil.Caller, error) {
	s.t.Helper()
	return s.verifier.Check(context.Background(), s.request(change))
}

func (s *system) request(change func(*call)) resource.Request {
	s.t.Helper()
	c := call{method: "POST", url: bankCall, resource: bank, token: s.token(nil), htm: "POST", htu: bankCall, signer: s.agent, at: s.now}
	if change != nil {
		change(&c)
	}
	if c.header == nil {
		c.header = http.Header{"Authorization": {"DPoP " + c.token}, "Dpop": {s.proof(c, c.token)}}
	}
	return resource.Request{Method: c.method, URL: c.url, Resource: c.resource, Header: c.header}
}

func (s *system) proof(c call, token string) string {
	s.t.Helper()
	p, err := credential.SignProof(c.signer, c.htm, c.htu, c.nonce, token, c.at)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func wantRefused(t testing.TB, err error, code counterfoil.Code) *counterfoil.Refusal {
	t.Helper()
	refusal, ok := counterfoil.AsRefusal(err)
	if !ok || refusal.Code != code {
		t.Fatalf("got %v, want the refusal %s", err, code)
	}
	return refusal
}

func wantDone(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("the honest request is refused: %v", err)
	}
}
