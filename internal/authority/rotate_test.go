package authority_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

// rotation asks for another key, on a token for the issuer.
func (w *world) rotation(token string, next *credential.Signer, overlap time.Duration) authority.RotateRequest {
	w.t.Helper()
	return authority.RotateRequest{
		NewProof: w.proof(next, "/keys/rotate", token), AccessTokenHash: credential.TokenHash(token), Overlap: overlap, Source: somewhere, RequestID: "req_5",
	}
}

// rotate gives an agent's instance another key, and returns both.
func (w *world) rotate(agent string, overlap time.Duration) (old, next *credential.Signer) {
	w.t.Helper()
	old, next = w.keys[agent], w.newSigner()
	token := w.mustAsk(agent, "", nil).AccessToken
	c, err := w.use(token, "", old)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.a.RotateKey(w.t.Context(), c, w.rotation(token, next, overlap)); err != nil {
		w.t.Fatal(err)
	}
	w.keys[agent] = next
	return old, next
}

// askWith asks for a token of the bank with one key's assertion and another's proof.
func (w *world) askWith(agent string, own, prove *credential.Signer) (authority.TokenResponse, error) {
	w.t.Helper()
	return w.token(w.a, agent, own, prove)
}

// A rotated instance is who it was, under the new key; the old one is dead at once, or
// when its time is over.
func TestRotateKey(t *testing.T) {
	t.Parallel()
	for _, overlap := range []time.Duration{0, 10 * time.Minute} {
		w := newWorld(t)
		task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
		before, _ := w.store.InstanceByKey(w.keys["payroll"].Public().Thumbprint())
		bound := w.mustAsk("payroll", "bank", url.Values{"task": {task.ID}}).AccessToken
		start := w.clock.Now()
		old, next := w.rotate("payroll", overlap)

		inst, ok := w.store.InstanceByKey(next.Public().Thumbprint())
		if !ok || inst.ID != before.ID || inst.Alg != credential.ES256 {
			t.Fatalf("the new key is of %+v", inst)
		}
		e := w.last(ledger.KeyRotated)
		previous, _ := e.Detail["previous"].(map[string]any)
		if e.Agent != "payroll" || e.Owner != "ana" || e.Instance != inst.ID || e.JKT != inst.JKT || e.RequestID != "req_5" || e.Source.Address != somewhere.String() ||
			previous["jkt"] != old.Public().Thumbprint() || previous["until"] != ledger.FormatTime(start.Add(overlap)) {
			t.Errorf("entry %+v", e)
		}
		if token, err := w.askWith("payroll", next, next); err != nil {
			t.Errorf("with the new key: %v", err)
		} else if _, err := w.use(token.AccessToken, "bank", next); err != nil {
			t.Errorf("its token: %v", err)
		}
		if _, err := w.ask("payroll", "bank", url.Values{"task": {task.ID}}); err != nil {
			t.Errorf("its task: %v", err)
		}

		dead := func(when string) {
			t.Helper()
			_, err := w.askWith("payroll", old, old)
			wantCode(t, when+", the old key", err, counterfoil.ClientRefused)
			_, err = w.askWith("payroll", next, old)
			wantCode(t, when+", a proof by the old key", err, counterfoil.ProofKeyMismatch)
		}
		if overlap == 0 {
			dead("at once")
			_, err := w.use(bound, "bank", old)
			wantCode(t, "at once, a token bound to it", err, counterfoil.TokenRevoked)
			continue
		}
		if _, err := w.use(bound, "bank", old); err != nil {
			t.Errorf("in its overlap, a token bound to the old key: %v", err)
		}
		for _, pair := range [][2]*credential.Signer{{old, old}, {old, next}, {next, old}} {
			if _, err := w.askWith("payroll", pair[0], pair[1]); err != nil {
				t.Errorf("in its overlap: %v", err)
			}
		}
		// A token bound to the old key does not outlive it.
		w.clock.Advance(overlap - time.Minute)
		token, err := w.askWith("payroll", next, old)
		if err != nil || token.ExpiresIn != 60 {
			t.Errorf("a minute before its end, a token for %d seconds (%v)", token.ExpiresIn, err)
		}
		w.clock.Advance(time.Minute)
		dead("after its overlap")
		if err := w.a.ExpireKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.a.ExpireKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		es := w.entries(ledger.Revoked)
		if len(es) != 1 || es[0].Detail["id"] != old.Public().Thumbprint() || es[0].Detail["instances"] != nil || es[0].Agent != "payroll" {
			t.Errorf("entries %+v", es)
		}
		dead("once it was told")
		if _, err := w.askWith("payroll", next, next); err != nil {
			t.Errorf("the new key, after that: %v", err)
		}
	}
}

// The present key alone rotates, for a key that its holder shows and nobody ever had.
func TestRotateKeyRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	declared := w.newSigner()
	w.mustApply(w.a, strings.Replace(agents, "name: teller\n", "name: teller\nkeys: ['"+string(declared.Public().JWK())+"']\n", 1))
	task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
	tokenOf := func(agent string) string { return w.mustAsk(agent, "", nil).AccessToken }
	callerOf := func(token string, key *credential.Signer) counterfoil.Caller {
		c, err := w.use(token, "", key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	token := tokenOf("payroll")
	c := callerOf(token, w.keys["payroll"])
	next := w.newSigner()
	with := func(edit func(*authority.RotateRequest)) authority.RotateRequest {
		req := w.rotation(token, next, time.Hour)
		edit(&req)
		return req
	}
	inTask := w.mustAsk("payroll", "", url.Values{"task": {task.ID}}).AccessToken
	w.keys["teller"] = declared
	tellers := tokenOf("teller")
	for _, tt := range []struct {
		name string
		c    counterfoil.Caller
		req  authority.RotateRequest
		code counterfoil.Code
	}{
		{"no proof", c, with(func(r *authority.RotateRequest) { r.NewProof = "" }), counterfoil.RequestMalformed},
		{"no JWT", c, with(func(r *authority.RotateRequest) { r.NewProof = "x" }), counterfoil.ProofMalformed},
		{"two proofs", c, with(func(r *authority.RotateRequest) { r.NewProof += "," + r.NewProof }), counterfoil.ProofMalformed},
		{"a proof for another URL", c, with(func(r *authority.RotateRequest) { r.NewProof = w.proof(next, "/tasks", token) }), counterfoil.ProofTarget},
		{"for no token", c, with(func(r *authority.RotateRequest) { r.NewProof = w.proof(next, "/keys/rotate", "") }), counterfoil.ProofTarget},
		{"for another token", c, with(func(r *authority.RotateRequest) { r.NewProof = w.proof(next, "/keys/rotate", inTask) }), counterfoil.ProofTarget},
		{"without the token's hash", c, with(func(r *authority.RotateRequest) { r.AccessTokenHash = "" }), counterfoil.Internal},
		{"an overlap of more than a day", c, with(func(r *authority.RotateRequest) { r.Overlap = authority.MaxOverlap + 1 }), counterfoil.RequestMalformed},
		{"an overlap of less than nothing", c, with(func(r *authority.RotateRequest) { r.Overlap = -1 }), counterfoil.RequestMalformed},
		{"its own key", c, w.rotation(token, w.keys["payroll"], 0), counterfoil.KeyInUse},
		{"another agent's key", c, w.rotation(token, w.keys["stranger"], 0), counterfoil.KeyInUse},
		{"with a token of a task", callerOf(inTask, w.keys["payroll"]), w.rotation(inTask, next, 0), counterfoil.OutsideTask},
		{"a key out of a manifest", callerOf(tellers, declared), w.rotation(tellers, next, 0), counterfoil.RequestMalformed},
		{"as it should be", c, with(func(*authority.RotateRequest) {}), ""},
		{"again", c, with(func(*authority.RotateRequest) {}), counterfoil.ProofKeyMismatch},
	} {
		before := len(w.entries(ledger.KeyRotated))
		got, err := w.a.RotateKey(t.Context(), tt.c, tt.req)
		wantCode(t, tt.name, err, tt.code)
		if rotated := len(w.entries(ledger.KeyRotated)) > before; rotated != (tt.code == "") || rotated && got.JKT != next.Public().Thumbprint() {
			t.Errorf("%s: recorded %v, %+v", tt.name, rotated, got)
		}
	}
	// A key that enrolled with a code and is listed all the same.
	listed := w.newSigner()
	w.enrol(w.a, "planner", listed)
	w.keys["planner"] = listed
	w.mustApply(w.a, strings.Replace(agents, "name: planner\n", "name: planner\nkeys: ['"+string(listed.Public().JWK())+"']\n", 1))
	planners := tokenOf("planner")
	_, err := w.a.RotateKey(t.Context(), callerOf(planners, listed), w.rotation(planners, w.newSigner(), 0))
	wantCode(t, "a key that enrolled, and that a manifest lists", err, counterfoil.RequestMalformed)
	// Whoever has the old key, in its overlap, cannot take the instance over.
	old := w.keys["payroll"]
	var stolen string
	stolen, err = w.askAtIssuer("payroll", old)
	if err != nil {
		t.Fatal(err)
	}
	thief := w.newSigner()
	_, err = w.a.RotateKey(t.Context(), callerOf(stolen, old), w.rotation(stolen, thief, 0))
	wantCode(t, "with the old key", err, counterfoil.ProofKeyMismatch)
	// A rotation while an old key is there ends it at once.
	w.keys["payroll"] = next
	w.rotate("payroll", time.Hour)
	_, err = w.askWith("payroll", old, old)
	wantCode(t, "the older key after the next rotation", err, counterfoil.ClientRefused)
	if _, err := w.askWith("payroll", next, next); err != nil {
		t.Errorf("the one before, in its overlap: %v", err)
	}
}

// askAtIssuer asks for a token of the issuer with one key.
func (w *world) askAtIssuer(agent string, key *credential.Signer) (string, error) {
	kept := w.keys[agent]
	w.keys[agent] = key
	defer func() { w.keys[agent] = kept }()
	token, err := w.ask(agent, "", nil)
	return token.AccessToken, err
}

// An old key that is revoked takes itself alone; an instance's own, the instance and
// with it the old one.
func TestRevokedKeysOfARotation(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		oldOnly bool
		next    counterfoil.Code
	}{"the old one": {true, ""}, "its own": {false, counterfoil.ClientRefused}} {
		w := newWorld(t)
		old, next := w.rotate("payroll", time.Hour)
		for _, key := range []*credential.Signer{old, next} {
			if _, err := w.askWith("payroll", key, key); err != nil {
				t.Fatal(err)
			}
		}
		key := next
		if tt.oldOnly {
			key = old
		}
		if _, err := w.a.Revoke(t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetKey, ID: key.Public().Thumbprint()}}, "uid:7"); err != nil {
			t.Fatal(err)
		}
		_, err := w.askWith("payroll", old, old)
		wantCode(t, name+": the old one", err, counterfoil.ClientRefused)
		_, err = w.askWith("payroll", next, next)
		wantCode(t, name+": its own", err, tt.next)
	}
}

// A key that was rotated from binds no other to its instance: that one would outlive it.
func TestOldKeysBindNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(w.a, strings.Replace(agents, "name: payroll\nowner: ana\nenvironment: prod\n", "name: payroll\nowner: ana\nenvironment: prod\nproof_keys: any\n", 1))
	old, next := w.rotate("payroll", time.Hour)
	_, err := w.askWith("payroll", old, w.newSigner())
	wantCode(t, "on the old key's assertion", err, counterfoil.ProofKeyMismatch)
	_, err = w.askWith("payroll", next, w.newSigner())
	wantCode(t, "on the present one's", err, "")
}
