package authority_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/ledger"
)

var errLost = counterfoil.NewFault(counterfoil.LedgerUnavailable, errors.New("nobody knows whether it was committed"))

// lossy is a store whose commits of the registry fail: before, so that they are
// not made, after, so that they are made and nobody hears of it, or late, so
// that they are made once the caller was told.
type lossy struct {
	*store.Store
	before, after, late bool
	made                func() error // the late commit
}

func (l *lossy) commit(do func() error) error {
	switch {
	case l.before:
		return errLost
	case l.late:
		l.made = do
		return errLost
	}
	err := do()
	if err == nil && l.after {
		return errLost
	}
	return err
}

func (l *lossy) Apply(ctx context.Context, c counterfoil.Change, entries []*ledger.Entry) error {
	return l.commit(func() error { return l.Store.Apply(context.WithoutCancel(ctx), c, entries) })
}

func (l *lossy) Offboard(ctx context.Context, agent string, e *ledger.Entry) (v counterfoil.Voided, err error) {
	err = l.commit(func() error {
		v, err = l.Store.Offboard(ctx, agent, e)
		return err
	})
	return v, err
}

// apply applies a manifest that is right.
func (h *house) apply(ctx context.Context, a *authority.Authority, yaml string) (authority.ApplyResult, error) {
	h.t.Helper()
	result, err := a.Apply(ctx, authority.ApplyRequest{Files: []manifest.File{{Name: "x.yaml", Data: []byte(yaml)}}, Actor: "uid:7"})
	if len(result.Problems) > 0 {
		h.t.Fatal(result.Problems)
	}
	return result, err
}

func (h *house) mustApply(a *authority.Authority, yaml string) authority.ApplyResult {
	h.t.Helper()
	result, err := h.apply(h.t.Context(), a, yaml)
	if err != nil {
		h.t.Fatal(err)
	}
	return result
}

const (
	dee     = "{kind: Person, name: dee}"
	payroll = "\n---\nkind: Agent\nname: payroll\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\n"
)

// What was committed is in force, whatever the caller was told.
func TestWhatIsCommittedIsInForce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	s := &lossy{Store: h.store}
	a := h.authority(func(c *authority.Config) { c.Store = s })
	there := func() bool {
		_, registry := a.Policy()
		return registry.People["dee"] != nil
	}
	s.before = true
	if _, err := h.apply(t.Context(), a, dee); !errors.Is(err, errLost) || there() {
		t.Fatalf("what was not committed: %v, in force %v", err, there())
	}
	s.before, s.after = false, true
	if _, err := h.apply(t.Context(), a, dee); !errors.Is(err, errLost) || !there() {
		t.Errorf("what was committed: %v, in force %v", err, there())
	}
	if _, err := a.Delete(t.Context(), counterfoil.KindPerson, "dee", "uid:7"); !errors.Is(err, errLost) || there() {
		t.Errorf("a deletion that was committed: %v, still in force %v", err, there())
	}
	s.after, s.late = false, true
	if _, err := h.apply(t.Context(), a, dee); !errors.Is(err, errLost) || there() {
		t.Fatalf("what is not committed yet: %v, in force %v", err, there())
	}
	if err := s.made(); err != nil {
		t.Fatal(err)
	}
	s.late = false
	if result := h.mustApply(a, dee); result.Changes[0].Verb != manifest.Unchanged || !there() {
		t.Errorf("applied again, it is %s, and in force: %v", result.Changes[0].Verb, there())
	}
	h.mustApply(a, bank+payroll)
	s.after = true
	_, err := a.Offboard(t.Context(), "payroll", "", "uid:7")
	if _, registry := a.Policy(); !errors.Is(err, errLost) || registry.Agents["payroll"] != nil {
		t.Errorf("offboarded: %v, %v", err, registry.Agents["payroll"])
	}
}

// What was committed after the answer comes into force by itself.
func TestRunPutsInForce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	s := &lossy{Store: h.store, late: true}
	a := h.authority(func(c *authority.Config) { c.Store = s })
	if _, err := h.apply(t.Context(), a, dee); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	if err := s.made(); err != nil {
		t.Fatal(err)
	}
	if _, registry := a.Policy(); registry.People["dee"] != nil {
		t.Fatal("it is in force before anybody looked")
	}
	h.runFor(a, time.Minute)
	if _, registry := a.Policy(); registry.People["dee"] == nil {
		t.Error("it is not in force after a minute")
	}
}

// runFor lets Run go on for so long, by a clock that stands when nothing happens.
func (h *house) runFor(a *authority.Authority, d time.Duration) {
	h.t.Helper()
	synctest.Test(h.t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.Run(ctx)
		}()
		<-time.After(d)
		synctest.Wait()
		cancel()
		<-done
	})
}

// Once an administrator's request is taken, it is done to its end, whether or
// not the client is there for the answer.
func TestAdministratorsWhoLeave(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	h.mustApply(a, bank+payroll)
	gone, leave := context.WithCancel(t.Context())
	leave()
	h.clock.Advance(authority.JWKSLife)
	first := h.keys.Signer().Public().Thumbprint()
	for _, tt := range []struct {
		name string
		do   func() error
		done func() bool
	}{
		{"apply", func() error { _, err := h.apply(gone, a, dee); return err }, func() bool { _, r := a.Policy(); return r.People["dee"] != nil }},
		{"delete", func() error { _, err := a.Delete(gone, counterfoil.KindPerson, "dee", "uid:7"); return err }, func() bool { _, r := a.Policy(); return r.People["dee"] == nil }},
		{"enrol code", func() error { _, _, err := a.EnrolCode(gone, "payroll", "uid:7"); return err }, func() bool { return len(h.entries(ledger.EnrolmentCodeIssued)) == 1 }},
		{"suspend", func() error { _, err := a.Suspend(gone, "payroll", "", "uid:7"); return err }, func() bool { return h.store.AgentState("payroll").Status == counterfoil.Suspended }},
		{"resume", func() error { _, err := a.Resume(gone, "payroll", nil, "", "uid:7"); return err }, func() bool { return h.store.AgentState("payroll").Status == counterfoil.Active }},
		{"offboard", func() error { _, err := a.Offboard(gone, "payroll", "", "uid:7"); return err }, func() bool { _, r := a.Policy(); return r.Agents["payroll"] == nil }},
		{"emergency", func() error { return h.keys.RotateEmergency(rotating{gone}, "uid:7") }, func() bool { return h.keys.Signer().Public().Thumbprint() != first }},
	} {
		if tt.done() {
			t.Fatalf("%s: done before it was asked for", tt.name)
		}
		if err := tt.do(); err != nil || !tt.done() {
			t.Errorf("%s: %v, done: %v", tt.name, err, tt.done())
		}
	}
}

// rotating is a context that ends after the keys were read: reading them is no
// part of the decision.
type rotating struct{ context.Context }

func (r rotating) Done() <-chan struct{} { return nil }

// forgetful is a store that commits keys and says that it did not know.
type forgetful struct {
	*store.Store
	before, after bool
}

func (f *forgetful) SaveKeys(ctx context.Context, from, keys []counterfoil.SigningKey, e *ledger.Entry) error {
	if f.before {
		return errLost
	}
	err := f.Store.SaveKeys(ctx, from, keys, e)
	if err == nil && f.after {
		return errLost
	}
	return err
}

// The ring is what is stored, whatever a rotation was told, and the next
// rotation begins there.
func TestKeyringIsWhatIsStored(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"ordered", "emergency", "period"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			s := &forgetful{Store: h.store}
			keys, err := authority.NewKeyring(t.Context(), authority.KeyringConfig{Store: s, KEK: kek(1), Now: h.clock.Now, Log: h.log})
			if err != nil {
				t.Fatal(err)
			}
			turn := func() error {
				h.clock.Advance(authority.DefaultKeyPeriod)
				switch how {
				case "ordered":
					return keys.Rotate(t.Context(), "uid:7")
				case "emergency":
					return keys.RotateEmergency(t.Context(), "uid:7")
				}
				return keys.Advance(t.Context())
			}
			wantStored := func() {
				t.Helper()
				rows, err := h.store.Keys(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				active := 0
				for _, row := range rows {
					if row.State == authority.KeyActive {
						active++
						if row.KID != keys.Signer().Public().Thumbprint() {
							t.Errorf("%s is active and %s signs", row.KID, keys.Signer().Public().Thumbprint())
						}
					}
					if _, err := keys.Key(t.Context(), row.KID); (err == nil) != (row.State != authority.KeyRemoved) {
						t.Errorf("key %s is %s: %v", row.KID, row.State, err)
					}
				}
				if active != 1 {
					t.Errorf("%d active keys", active)
				}
			}
			first := keys.Signer().Public().Thumbprint()
			s.before = true
			if err := turn(); !errors.Is(err, errLost) || keys.Signer().Public().Thumbprint() != first {
				t.Fatalf("a rotation that was not made: %v", err)
			}
			wantStored()
			s.before, s.after = false, true
			if err := turn(); !errors.Is(err, errLost) {
				t.Fatal(err)
			}
			second := keys.Signer().Public().Thumbprint()
			if second == first {
				t.Error("the rotation was made, and the old key signs")
			}
			wantStored()
			s.after = false
			if err := turn(); err != nil || keys.Signer().Public().Thumbprint() == second {
				t.Errorf("the next rotation: %v", err)
			}
			wantStored()
		})
	}
}

// A rotation begins with what is stored, not with what was read some time ago.
func TestRotationBeginsWithWhatIsStored(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, err := h.keyring(kek(1))
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.keyring(kek(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := one.RotateEmergency(t.Context(), "uid:7"); err != nil {
		t.Fatal(err)
	}
	h.clock.Advance(authority.JWKSLife)
	if err := other.Rotate(t.Context(), "uid:7"); err != nil {
		t.Fatal(err)
	}
	if err := one.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x, y := one.Signer().Public().Thumbprint(), other.Signer().Public().Thumbprint(); x != y {
		t.Errorf("%s and %s sign", x, y)
	}
}

func (h *house) newSigner() *credential.Signer {
	h.t.Helper()
	private, err := credential.GenerateKey("ES256")
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := credential.NewSigner(private)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// enrol enrols a key with a code.
func (h *house) enrol(a *authority.Authority, agent string, s *credential.Signer) {
	h.t.Helper()
	code, _, err := a.EnrolCode(h.t.Context(), agent, "uid:7")
	if err != nil {
		h.t.Fatal(err)
	}
	proof, err := credential.SignProof(s, "POST", issuer+"/enroll", "", "", h.clock.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := a.Enroll(h.t.Context(), authority.EnrolRequest{Agent: agent, Code: code.Reveal(), Proof: []string{proof}}); err != nil {
		h.t.Fatal(err)
	}
}

// token asks for a token of the bank, proven with another key if there is one.
func (h *house) token(a *authority.Authority, agent string, own, prove *credential.Signer) (authority.TokenResponse, error) {
	h.t.Helper()
	return h.tokenOn(a, h.assertion(agent, own), prove)
}

func (h *house) assertion(agent string, own *credential.Signer) string {
	h.t.Helper()
	assertion, err := credential.SignAssertion(own, agent, issuer, h.clock.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	return assertion
}

// tokenOn asks on an assertion, proven with a key.
func (h *house) tokenOn(a *authority.Authority, assertion string, prove *credential.Signer) (authority.TokenResponse, error) {
	proof, err := credential.SignProof(prove, "POST", issuer+"/oauth/token", "", "", h.clock.Now())
	if err != nil {
		return authority.TokenResponse{}, err
	}
	return a.Issue(h.t.Context(), authority.TokenRequest{Proof: []string{proof}, Form: url.Values{
		"grant_type": {authority.GrantClientCredentials}, "client_assertion_type": {authority.AssertionTypeJWT},
		"client_assertion": {assertion}, "resource": {issuer + "/r/bank"},
	}})
}

// A narrowing that only the token endpoint looks at voids the tokens there are.
func TestNarrowingVoidsTokens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, wide, narrow string
		code               counterfoil.Code // of the next token request with the bound key
	}{
		{"tasks", payroll + "tasks: {required: false}\nproof_keys: any\n", payroll + "tasks: {required: true}\nproof_keys: any\n", counterfoil.TaskClosed},
		{"proof keys", payroll + "proof_keys: any\n", payroll + "proof_keys: registered\n", counterfoil.ProofKeyMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			a := h.authority()
			h.mustApply(a, bank+tt.wide)
			own, bound := h.newSigner(), h.newSigner()
			h.enrol(a, "payroll", own)
			if _, err := h.token(a, "payroll", own, bound); err != nil {
				t.Fatal(err)
			}
			caller := counterfoil.Caller{
				Agent: "payroll", Instance: h.store.Instances("payroll")[0].ID,
				Epoch: h.store.AgentState("payroll").Epoch, JKT: bound.Public().Thumbprint(),
			}
			live := func() error { return h.store.Revoked(t.Context(), caller) }
			// Neither another change nor a widening voids anything.
			h.mustApply(a, bank+strings.Replace(tt.wide, "bank/get_balance", "bank/pay", 1))
			h.mustApply(a, bank+tt.wide)
			if err := live(); err != nil {
				t.Fatalf("before: %v", err)
			}
			result := h.mustApply(a, bank+tt.narrow)
			if err := live(); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
				t.Errorf("after it was narrowed: %v", err)
			}
			if _, err := h.token(a, "payroll", own, bound); err == nil || counterfoil.CodeOf(err) != tt.code {
				t.Errorf("the next token: %v", err)
			}
			if !strings.Contains(strings.Join(result.Warnings, "\n"), "void") {
				t.Errorf("the operator is told %q", result.Warnings)
			}
			changed := h.entries(ledger.AgentChanged)
			for i, e := range changed {
				if _, says := e.Detail["voided"]; says != (i == len(changed)-1) {
					t.Errorf("entry %d of %d: %v", i, len(changed), e.Detail)
				}
			}
			caller.Epoch = h.store.AgentState("payroll").Epoch
			h.mustApply(a, bank+tt.wide)
			if err := live(); err != nil {
				t.Errorf("a widening: %v", err)
			}
		})
	}
}

// Between a commit and the answer there is a moment in which the epoch is new
// and the policy in force old. No token is made of both.
func TestNoTokenOfTheNewEpochFromTheOldDocument(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	s := &lossy{Store: h.store}
	a := h.authority(func(c *authority.Config) { c.Store = s })
	h.mustApply(a, bank+payroll)
	own := h.newSigner()
	h.enrol(a, "payroll", own)
	if _, err := h.token(a, "payroll", own, own); err != nil {
		t.Fatal(err)
	}
	s.late = true
	if _, err := h.apply(t.Context(), a, bank+payroll+"tasks: {required: true}\n"); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	if err := s.made(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.token(a, "payroll", own, own); err == nil || counterfoil.CodeOf(err) != counterfoil.TaskClosed {
		t.Errorf("a token right after the commit: %v", err)
	}
}

// An instance whose key is listed no more ends with an entry of its own; one
// that enrolled with a code does not end because a manifest is silent about it.
func TestUnlistedKeysEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	declared, enrolled := h.newSigner(), h.newSigner()
	list := func(keys ...*credential.Signer) string {
		yaml := bank + payroll + "keys: ["
		for _, k := range keys {
			yaml += "'" + string(k.Public().JWK()) + "',"
		}
		return yaml + "]\n"
	}
	h.mustApply(a, list(declared))
	h.enrol(a, "payroll", enrolled)
	h.mustApply(a, list(declared, enrolled))
	for _, s := range []*credential.Signer{declared, enrolled} {
		if _, err := h.token(a, "payroll", s, s); err != nil {
			t.Fatal(err)
		}
	}
	inst, _ := h.store.InstanceByKey(declared.Public().Thumbprint())
	result := h.mustApply(a, list())
	if _, err := h.token(a, "payroll", declared, declared); err == nil || counterfoil.CodeOf(err) != counterfoil.ClientRefused {
		t.Errorf("the key that is no longer listed: %v", err)
	}
	if _, err := h.token(a, "payroll", enrolled, enrolled); err != nil {
		t.Errorf("the key that enrolled with a code: %v", err)
	}
	if text := strings.Join(result.Warnings, "\n"); !strings.Contains(text, inst.ID+" ends") || !strings.Contains(text, "enrolled with a code and stays") {
		t.Errorf("the operator is told %q", result.Warnings)
	}
	got := h.entries(ledger.Revoked)
	if len(got) != 1 || got[0].Agent != "payroll" || got[0].Owner != "ana" || got[0].Instance != inst.ID || got[0].JKT != inst.JKT ||
		got[0].Actor != "uid:7" || got[0].Reason != "its key is no longer listed" || got[0].Detail["kind"] != "instance" || got[0].Detail["id"] != inst.ID {
		t.Errorf("entries = %+v", got)
	}
}

// first is what the gateway does when a call first sees a routine tool.
func (h *house) first(tool, digest string) {
	h.t.Helper()
	err := h.store.PinTool(h.t.Context(), "bank", tool, digest, counterfoil.PinFirstSight, &ledger.Entry{Kind: ledger.ToolPinned, Resource: "bank", Tool: "bank/" + tool, ToolDigest: digest})
	if err != nil {
		h.t.Fatal(err)
	}
}

// defined makes definitions of digests.
func defined(digests map[string]string) map[string]authority.Definition {
	tools := make(map[string]authority.Definition, len(digests))
	for tool, digest := range digests {
		tools[tool] = authority.Definition{Digest: digest}
	}
	return tools
}

// A routine tool that changed works again once an operator applied its resource,
// and not before; pins go with the resource.
func TestApplyTakesChangedRoutineTools(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	digests, fail := map[string]string{"get_balance": "sha-256:a", "pay": "sha-256:b", "sweep": "sha-256:c"}, error(nil)
	a := h.authority(func(c *authority.Config) {
		c.Definitions = func(context.Context, *counterfoil.Resource) (map[string]authority.Definition, error) {
			return defined(digests), fail
		}
	})
	// runs says what the gateway would of a call: its pin is the upstream's.
	runs := func() bool {
		d, ok := h.store.Pin("bank", "get_balance")
		return ok && d == digests["get_balance"]
	}
	h.mustApply(a, bank)
	h.first("get_balance", digests["get_balance"])
	if !runs() {
		t.Fatal("a tool that was seen does not run")
	}
	if result := h.mustApply(a, bank); len(result.Pinned) > 0 {
		t.Errorf("pinned %v of what did not change", result.Pinned)
	}
	digests["get_balance"] = "sha-256:changed"
	if h.first("get_balance", digests["get_balance"]); runs() {
		t.Fatal("a changed tool runs before anybody looked at it")
	}
	fail = errors.New("no route")
	if result := h.mustApply(a, bank); runs() || !strings.Contains(strings.Join(result.Warnings, "\n"), "apply again") {
		t.Errorf("out of reach: %+v", result)
	}
	fail = nil
	if result := h.mustApply(a, bank); !runs() || fmt.Sprint(result.Pinned) != "[{bank get_balance sha-256:changed true}]" {
		t.Errorf("applied again: %+v", result)
	}
	got := h.entries(ledger.ToolPinned)
	if last := got[len(got)-1]; last.Tool != "bank/get_balance" || last.Detail["how"] != "apply" || last.Detail["before"] != "sha-256:a" || last.Actor != "uid:7" {
		t.Errorf("entry = %+v", last)
	}
	if _, err := a.Delete(t.Context(), counterfoil.KindResource, "bank", "uid:7"); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"get_balance", "pay"} {
		if d, ok := h.store.Pin("bank", tool); ok {
			t.Errorf("%s is pinned to %s, and there is no bank", tool, d)
		}
	}
	applied := h.entries(ledger.ConfigApplied)
	if text := fmt.Sprint(applied[len(applied)-1].Detail); !strings.Contains(text, "pins:dropped") {
		t.Errorf("the entry says %s", text)
	}
}

// What a call pinned at first sight is not what a person is asked to approve:
// when the class rises, the pin goes, and comes back as the operator's.
func TestFirstSightDoesNotVetForAPerson(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	fail := error(nil)
	a := h.authority(func(c *authority.Config) {
		c.Definitions = func(context.Context, *counterfoil.Resource) (map[string]authority.Definition, error) {
			return defined(map[string]string{"get_balance": "sha-256:a", "pay": "sha-256:b", "sweep": "sha-256:c"}), fail
		}
	})
	h.mustApply(a, bank)
	h.first("get_balance", "sha-256:a")
	h.mustApply(a, dee)
	if how := h.store.PinHow("bank", "get_balance"); how != counterfoil.PinFirstSight {
		t.Fatalf("before: %q", how)
	}
	fail = errors.New("no route")
	h.mustApply(a, "{kind: Class, name: read, tier: guarded, approvers: [finance]}")
	if d, ok := h.store.Pin("bank", "get_balance"); ok {
		t.Errorf("what nobody looked at is pinned to %s", d)
	}
	if how := h.store.PinHow("bank", "pay"); how != "apply" {
		t.Errorf("what the operator pinned is pinned by %q", how)
	}
	applied := h.entries(ledger.ConfigApplied)
	if text := fmt.Sprint(applied[len(applied)-1].Detail["unpinned"]); text != "[bank/get_balance]" {
		t.Errorf("the entry says %s", text)
	}
	fail = nil
	h.mustApply(a, bank) // which makes it routine again
	h.first("get_balance", "sha-256:a")
	result := h.mustApply(a, "{kind: Class, name: read, tier: guarded, approvers: [finance]}")
	if how := h.store.PinHow("bank", "get_balance"); how != "apply" || len(result.Pinned) != 1 {
		t.Errorf("within reach it is pinned by %q: %+v", how, result.Pinned)
	}
}
