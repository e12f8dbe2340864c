package resource_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/resource"
)

// The attack tables. Each row changes one thing about an honest call, which is
// made beside it, so that a refusal for another reason does not count.

type attack struct {
	id, name string
	change   func(s *system, c *call)
	code     counterfoil.Code // empty: accepted
}

func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range attacks() {
		t.Run(a.id+" "+a.name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, credential.ES256, credential.ES256)
			_, err := s.try(nil)
			wantDone(t, err)
			caller, err := s.try(func(c *call) { a.change(s, c) })
			if a.code == "" {
				wantDone(t, err)
				return
			}
			wantRefused(t, err, a.code)
			if caller.Proof != "" {
				t.Error("the proof of a request that is refused for itself is used up")
			}
			_, err = s.try(nil)
			wantDone(t, err)
		})
	}
}

func attacks() []attack {
	const target, malformed = counterfoil.ProofTarget, counterfoil.ProofMalformed
	headers := func(h func(c *call, proof string) http.Header) func(*system, *call) {
		return func(s *system, c *call) { c.header = h(c, s.proof(*c, c.token)) }
	}
	claims := func(change func(*credential.TokenClaims)) func(*system, *call) {
		return func(s *system, c *call) { c.token = s.token(change) }
	}
	all := []attack{
		{"DG1", "bound token sent as bearer", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"Bearer " + c.token}}
		}), counterfoil.BearerRefused},
		{"DG1", "bound token sent as bearer with a proof", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"bearer " + c.token}, "Dpop": {p}}
		}), counterfoil.BearerRefused},
		{"DG2", "no credentials", headers(func(*call, string) http.Header { return http.Header{} }), counterfoil.ProofMissing},
		{"DG2", "a proof without a token", headers(func(c *call, p string) http.Header { return http.Header{"Dpop": {p}} }), counterfoil.ProofMissing},
		{"DG2", "a token without a proof", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"DPoP " + c.token}}
		}), counterfoil.ProofMissing},
		{"DG2", "an empty proof", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"DPoP " + c.token}, "Dpop": {""}}
		}), malformed},
		{"DG2", "two proofs", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"DPoP " + c.token}, "Dpop": {p, p}}
		}), malformed},
		{"DG2", "two tokens", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"DPoP " + c.token, "DPoP " + c.token}, "Dpop": {p}}
		}), counterfoil.RequestMalformed},
		{"DG2", "bearer and DPoP at once", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"Bearer " + c.token, "DPoP " + c.token}, "Dpop": {p}}
		}), counterfoil.RequestMalformed},
		{"DG2", "two tokens in one header", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"DPoP " + c.token + ", Bearer " + c.token}, "Dpop": {p}}
		}), counterfoil.RequestMalformed},
		{"DG2", "no token after the scheme", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"DPoP "}, "Dpop": {p}}
		}), counterfoil.RequestMalformed},
		{"DG2", "Basic", headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {"Basic AAAA"}, "Dpop": {p}}
		}), counterfoil.ProofMissing},
		{"DG2", "the token in Proxy-Authorization", headers(func(c *call, p string) http.Header {
			return http.Header{"Proxy-Authorization": {"DPoP " + c.token}, "Dpop": {p}}
		}), counterfoil.ProofMissing},
		{"DG2", "proof without ath", func(s *system, c *call) {
			c.header = http.Header{"Authorization": {"DPoP " + c.token}, "Dpop": {s.proof(*c, "")}}
		}, target},
		{"DG2", "ath of another token", func(s *system, c *call) {
			other := s.token(func(c *credential.TokenClaims) { c.ID = "tok_2" })
			c.header = http.Header{"Authorization": {"DPoP " + c.token}, "Dpop": {s.proof(*c, other)}}
		}, target},

		{"DG3", "proof for another method", func(_ *system, c *call) { c.htm = "GET" }, target},
		{"DG3", "proof for a method in lower case", func(_ *system, c *call) { c.htm = "post" }, target},
		{"DG3", "proof for another path", func(_ *system, c *call) { c.htu = bank + "/pay" }, target},
		{"DG3", "proof for another host", func(_ *system, c *call) { c.htu = strings.Replace(bankCall, "gateway", "mirror", 1) }, target},
		{"DG3", "proof for the upstream", func(_ *system, c *call) { c.htu = "http://bank.internal:8080/accounts" }, target},
		{"DG3", "proof for the host that headers name", func(s *system, c *call) {
			c.htu = "https://evil.example/r/bank/accounts"
			c.header = http.Header{
				"Authorization": {"DPoP " + c.token}, "Dpop": {s.proof(*c, c.token)},
				"Host": {"evil.example"}, "X-Forwarded-Host": {"evil.example"}, "Forwarded": {"host=evil.example"},
			}
		}, target},
		{"DG3", "proof for the URL with another query", func(_ *system, c *call) { c.url += "?a=b" }, ""},

		{"DG4", "stolen token, own key", func(s *system, c *call) { c.signer = testkit.Signer(s.t, credential.ES256) }, counterfoil.ProofKeyMismatch},
		{"DG4", "stolen token, own key of another kind", func(s *system, c *call) { c.signer = testkit.Signer(s.t, credential.Ed25519) }, counterfoil.ProofKeyMismatch},

		{"DG6", "proof 60 s old", func(s *system, c *call) { c.at = s.now.Add(-60 * time.Second) }, ""},
		{"DG6", "proof 61 s old", func(s *system, c *call) { c.at = s.now.Add(-61 * time.Second) }, counterfoil.ProofStale},
		{"DG6", "proof 10 s ahead", func(s *system, c *call) { c.at = s.now.Add(10 * time.Second) }, ""},
		{"DG6", "proof 11 s ahead", func(s *system, c *call) { c.at = s.now.Add(11 * time.Second) }, counterfoil.ProofStale},

		{"DG7", "token in the query", func(s *system, c *call) {
			c.url += "?access_token=" + c.token
			c.header = http.Header{"Dpop": {s.proof(*c, c.token)}}
		}, counterfoil.ProofMissing},
		{"DG7", "token in a cookie", func(s *system, c *call) {
			c.header = http.Header{"Cookie": {"access_token=" + c.token}, "Dpop": {s.proof(*c, c.token)}}
		}, counterfoil.ProofMissing},

		{"TS1", "token for another resource", claims(func(c *credential.TokenClaims) { c.Audience = "https://gateway.example/r/mail" }), counterfoil.TokenAudience},
		{"TS1", "token at another resource", func(_ *system, c *call) { c.resource = "https://gateway.example/r/mail" }, counterfoil.TokenAudience},
		{"TS1", "resource not configured", func(_ *system, c *call) { c.resource = "" }, counterfoil.TokenAudience},

		{"TS4", "our issuer with a slash more", claims(func(c *credential.TokenClaims) { c.Issuer = issuer + "/" }), counterfoil.TokenIssuer},
		{"TS4", "another issuer by the same key", claims(func(c *credential.TokenClaims) { c.Issuer = "https://other.example" }), counterfoil.TokenIssuer},
		{"TS4", "an unknown key that says it is ours", func(s *system, c *call) { c.token = foreign(s, nil) }, counterfoil.TokenMalformed},
		{"TS4", "a foreign issuer with its own key", func(s *system, c *call) {
			c.token = foreign(s, func(c *credential.TokenClaims) { c.Issuer = "https://other.example" })
		}, counterfoil.TokenIssuer},

		{"TS6", "expired", claims(func(c *credential.TokenClaims) { c.Expires = start }), counterfoil.TokenExpired},
		{"TS6", "not yet valid", claims(func(c *credential.TokenClaims) { c.NotBefore = start.Add(time.Minute) }), counterfoil.TokenExpired},
		{"TS6", "expired and of an unknown key", func(s *system, c *call) {
			c.token = foreign(s, func(c *credential.TokenClaims) { c.Expires = start })
		}, counterfoil.TokenMalformed},
		{"TS7", "task past its deadline", claims(func(c *credential.TokenClaims) {
			c.Task = &credential.TaskClaim{ID: "tsk_1", Expires: start}
		}), counterfoil.TaskClosed},
		{"TS7", "task within its deadline", claims(func(c *credential.TokenClaims) {
			c.Task = &credential.TaskClaim{ID: "tsk_1", Expires: start.Add(time.Second)}
		}), ""},
		{"#15", "token cut short", func(s *system, c *call) { c.token = c.token[:len(c.token)-1] }, counterfoil.TokenMalformed},
		{"#15", "token made longer", func(s *system, c *call) { c.token += "A" }, counterfoil.TokenMalformed},
		{"#60", "dots alone", func(s *system, c *call) { c.token = strings.Repeat(".", 8000) }, counterfoil.TokenMalformed},
		{"", "token larger than 8 KiB", func(s *system, c *call) { c.token = strings.Repeat("A", 8193) }, counterfoil.PayloadTooLarge},
	}
	for _, scheme := range []string{"dpop", "DPOP", "DPoP ", "dPoP"} {
		all = append(all, attack{"DG7", fmt.Sprintf("scheme %q", scheme), headers(func(c *call, p string) http.Header {
			return http.Header{"Authorization": {scheme + " " + c.token}, "Dpop": {p}}
		}), ""})
	}
	return all
}

// foreign signs a token with a key that the verifier does not know.
func foreign(s *system, change func(*credential.TokenClaims)) string {
	other := *s
	other.issuer = testkit.Signer(s.t, credential.ES256)
	return other.token(change)
}

// TestSameKidOfAnotherIssuer is TS4: a key source must not be asked for a kid
// without knowing whose it is.
func TestSameKidOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	_, err := s.try(nil)
	wantDone(t, err)
	// The kid is ours, the signature is not.
	stranger := testkit.Signer(t, credential.ES256)
	forged := *s
	forged.issuer = stranger
	token := forged.token(nil)
	s.keys[stranger.Public().Thumbprint()] = s.issuer.Public()
	_, err = s.try(func(c *call) { c.token = token })
	wantRefused(t, err, counterfoil.TokenMalformed)
}

// TestTypeMatrix is TS2: what is no access token is not taken for one, and
// what is no proof not for a proof.
func TestTypeMatrix(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	assertion, err := credential.SignAssertion(s.issuer, "payroll", issuer, s.now)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := credential.SignProof(s.issuer, "POST", bankCall, "", "", s.now)
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"assertion": assertion, "proof": proof} {
		_, err := s.try(nil)
		wantDone(t, err)
		_, err = s.try(func(c *call) { c.token = token })
		if refusal, ok := counterfoil.AsRefusal(err); !ok || refusal.Code != counterfoil.TokenMalformed {
			t.Errorf("%s as access token: %v", name, err)
		}
	}
	token := s.token(nil)
	for name, p := range map[string]string{"assertion": assertion, "token": token} {
		_, err := s.try(func(c *call) {
			c.header = http.Header{"Authorization": {"DPoP " + token}, "Dpop": {p}}
		})
		if refusal, ok := counterfoil.AsRefusal(err); !ok || refusal.Code != counterfoil.ProofMalformed {
			t.Errorf("%s as proof: %v", name, err)
		}
	}
}

// TestProofIsUsedOnce is DG5.
func TestProofIsUsedOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	request := s.request(nil)
	first, err := s.verifier.Check(context.Background(), request)
	wantDone(t, err)
	if first.Proof == "" {
		t.Error("the used proof is not named")
	}
	again, err := s.verifier.Check(context.Background(), request)
	wantRefused(t, err, counterfoil.ProofReplayed)
	if again.Proof != "" || again.Agent != "payroll" {
		t.Errorf("a replay is of %+v", again)
	}
	// A fresh proof for the same call is taken.
	_, err = s.try(nil)
	wantDone(t, err)
}

// TestOneOfManyPresentationsWins is DG5, concurrently.
func TestOneOfManyPresentationsWins(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	for range 3 {
		request := s.request(nil)
		var won atomic.Int32
		var wg sync.WaitGroup
		gate := make(chan struct{})
		for range 200 {
			wg.Go(func() {
				<-gate
				_, err := s.verifier.Check(context.Background(), request)
				if err == nil {
					won.Add(1)
				} else if refusal, ok := counterfoil.AsRefusal(err); !ok || refusal.Code != counterfoil.ProofReplayed {
					t.Errorf("got %v, want proof_replayed", err)
				}
			})
		}
		close(gate)
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 200 presentations of one proof are taken", won.Load())
		}
	}
}

// TestReplayOverTheWholeWindow is DG6: a proof dated as far ahead as is taken
// is refused again for as long as its date is good, and then for its date.
func TestReplayOverTheWholeWindow(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-60 * time.Second, 0, 9 * time.Second, 10 * time.Second} {
		s := newSystem(t, credential.ES256, credential.Ed25519)
		s.claims.Expires = start.Add(time.Hour)
		request := s.request(func(c *call) { c.at = s.now.Add(ahead) })
		_, err := s.verifier.Check(context.Background(), request)
		wantDone(t, err)
		end := start.Add(ahead + credential.ProofWindow)
		for ; s.now.Before(end.Add(3 * time.Minute)); s.now = s.now.Add(500 * time.Millisecond) {
			_, err := s.verifier.Check(context.Background(), request)
			want := counterfoil.ProofReplayed
			if s.now.After(end) {
				want = counterfoil.ProofStale
			}
			if refusal, ok := counterfoil.AsRefusal(err); !ok || refusal.Code != want {
				t.Fatalf("dated %v ahead, after %v: got %v, want %s", ahead, s.now.Sub(start), err, want)
			}
		}
		_, err = s.try(nil)
		wantDone(t, err)
	}
}

// TestReplayAfterRestart: ids that are read back are as good as remembered.
func TestReplayAfterRestart(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	request := s.request(nil)
	caller, err := s.verifier.Check(context.Background(), request)
	wantDone(t, err)

	restarted := func() *resource.MemoryReplay {
		fresh := resource.NewMemoryReplay(func() time.Time { return s.now })
		v := *s
		v.verifier = &resource.Verifier{Issuer: issuer, Keys: s.keys, Replay: fresh, Revocation: resource.TokensOnly{}, Now: func() time.Time { return s.now }}
		s.verifier = v.verifier
		return fresh
	}
	replay := restarted()
	replay.Load(caller.Proof, s.now.Add(credential.ProofWindow+credential.Ahead))
	_, err = s.verifier.Check(context.Background(), request)
	wantRefused(t, err, counterfoil.ProofReplayed)

	// The control: without reading back it would pass.
	restarted()
	_, err = s.verifier.Check(context.Background(), request)
	wantDone(t, err)
}

// TestRevocationIsAskedEachTime: with a kept token too, after the proof is
// used up, and what it cannot tell refuses.
func TestRevocationIsAskedEachTime(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	var answer error
	asked := 0
	s.verifier.Revocation = revocation(func(c counterfoil.Caller) error {
		asked++
		if c.Agent != "payroll" || c.Instance != "ins_1" || c.Epoch != 1 || c.JKT == "" {
			t.Errorf("asked about %+v", c)
		}
		return answer
	})
	_, err := s.try(nil)
	wantDone(t, err)

	answer = counterfoil.Refuse(counterfoil.TokenRevoked, "the agent was offboarded")
	caller, err := s.try(nil)
	wantRefused(t, err, counterfoil.TokenRevoked)
	if caller.Proof == "" {
		t.Error("the used proof of a revoked caller is not named")
	}
	answer = counterfoil.NewFault(counterfoil.RevocationStale, errors.New("too old"))
	if _, err = s.try(nil); counterfoil.CodeOf(err) != counterfoil.RevocationStale {
		t.Errorf("got %v, want revocation_stale", err)
	}
	answer = nil
	_, err = s.try(nil)
	wantDone(t, err)
	if asked != 4 {
		t.Errorf("asked %d times of 4", asked)
	}
}

type revocation func(counterfoil.Caller) error

func (f revocation) Revoked(_ context.Context, c counterfoil.Caller) error { return f(c) }

// TestRemovedKeyStopsMatching: a kept token is worth nothing once its key is
// removed, or another key has its name.
func TestRemovedKeyStopsMatching(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	token := s.token(nil)
	use := func() error {
		_, err := s.try(func(c *call) { c.token = token })
		return err
	}
	wantDone(t, use())
	kid := s.issuer.Public().Thumbprint()
	delete(s.keys, kid)
	wantRefused(t, use(), counterfoil.TokenMalformed)
	s.keys[kid] = testkit.Signer(t, credential.ES256).Public()
	wantRefused(t, use(), counterfoil.TokenMalformed)
	s.keys[kid] = s.issuer.Public()
	wantDone(t, use())
}

// TestKeptTokensExpire: what is kept is the signature, not the verdict.
func TestKeptTokensExpire(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	token := s.token(nil)
	use := func() error {
		_, err := s.try(func(c *call) { c.token = token })
		return err
	}
	wantDone(t, use())
	s.now = s.claims.Expires.Add(-time.Second)
	wantDone(t, use())
	s.now = s.claims.Expires
	wantRefused(t, use(), counterfoil.TokenExpired)
}

// TestNonce: asked for before the proof is used up, each server's its own.
func TestNonce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	nonces := resource.NewMemoryNonces()
	s.verifier.Nonces = nonces
	_, err := s.try(nil)
	wantDone(t, err) // not required

	nonces.Always = true
	caller, err := s.try(nil)
	wantRefused(t, err, counterfoil.NonceRequired)
	if caller.Proof != "" {
		t.Error("a proof that lacks a nonce is used up")
	}
	nonce := s.verifier.Nonce()
	_, err = s.try(func(c *call) { c.nonce = nonce })
	wantDone(t, err)
	_, err = s.try(func(c *call) { c.nonce = resource.NewMemoryNonces().Mint(s.now) })
	wantRefused(t, err, counterfoil.NonceRequired)
	s.now = s.now.Add(resource.NonceLife)
	s.claims.Expires = s.now.Add(time.Hour)
	_, err = s.try(func(c *call) { c.nonce = nonce })
	wantDone(t, err)
	s.now = s.now.Add(time.Second)
	_, err = s.try(func(c *call) { c.nonce = nonce })
	wantRefused(t, err, counterfoil.NonceRequired)
}

// TestWhatIsMissingRefuses: law 2, and faults are no refusals.
func TestWhatIsMissingRefuses(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.ES256)
	good := func() *resource.Verifier {
		now := func() time.Time { return s.now }
		return &resource.Verifier{Issuer: issuer, Keys: s.keys, Replay: resource.NewMemoryReplay(now), Revocation: resource.TokensOnly{}, Now: now}
	}
	for name, c := range map[string]struct {
		change func(*resource.Verifier)
		code   counterfoil.Code
	}{
		"complete":      {func(*resource.Verifier) {}, ""},
		"no issuer":     {func(v *resource.Verifier) { v.Issuer = "" }, counterfoil.TokenIssuer},
		"no keys":       {func(v *resource.Verifier) { v.Keys = nil }, counterfoil.Internal},
		"no replay":     {func(v *resource.Verifier) { v.Replay = nil }, counterfoil.Internal},
		"no revocation": {func(v *resource.Verifier) { v.Revocation = nil }, counterfoil.Internal},
		"replay fails":  {func(v *resource.Verifier) { v.Replay = brokenReplay{} }, counterfoil.StoreUnavailable},
		"keys fail":     {func(v *resource.Verifier) { v.Keys = brokenKeys{} }, counterfoil.StoreUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			v := good()
			c.change(v)
			caller, err := v.Check(context.Background(), s.request(nil))
			if c.code == "" {
				wantDone(t, err)
				return
			}
			if err == nil || counterfoil.CodeOf(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if caller.Agent != "" {
				t.Errorf("a caller %+v", caller)
			}
		})
	}
}

type brokenReplay struct{}

func (brokenReplay) UseOnce(context.Context, string, time.Time) (bool, error) {
	return true, errors.New("no connection")
}

type brokenKeys struct{}

func (brokenKeys) Key(context.Context, string) (credential.PublicKey, error) {
	return credential.PublicKey{}, errors.New("no connection")
}

// TestCaller: who comes out is who the token says.
func TestCaller(t *testing.T) {
	t.Parallel()
	s := newSystem(t, credential.ES256, credential.Ed25519)
	s.claims.Task = &credential.TaskClaim{ID: "tsk_1", Expires: start.Add(time.Minute)}
	got, err := s.try(nil)
	wantDone(t, err)
	if len(got.Proof) != 43 {
		t.Errorf("proof %q", got.Proof)
	}
	got.Proof = ""
	got.Issued, got.Expires = got.Issued.UTC(), got.Expires.UTC()
	want := fmt.Sprintf("%+v", counterfoil.Caller{
		Agent: "payroll", Instance: "ins_1", Environment: "production", Epoch: 1, Task: "tsk_1", Subject: "payroll",
		Audience: bank, TokenID: "tok_1", Scope: []string{"pay", "read"},
		Issued: start, Expires: start.Add(5 * time.Minute),
		JKT: s.agent.Public().Thumbprint(), Binding: "dpop", KeyKind: "Ed25519",
	})
	if fmt.Sprintf("%+v", got) != want {
		t.Errorf("got  %+v\nwant %s", got, want)
	}
}
