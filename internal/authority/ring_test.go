package authority_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/ledger"
)

func (h *house) events() *authority.Keyring {
	h.t.Helper()
	ring, err := authority.NewKeyring(h.t.Context(), authority.KeyringConfig{
		Store: h.store, Purpose: authority.PurposeEvents, Alg: credential.RS256, KEK: kek(1), Now: h.clock.Now, Log: h.log,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return ring
}

// Keys of two purposes are two rings over one table: neither signs or verifies for the
// other, and they turn by themselves.
func TestTwoRings(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	tokens, err := h.keyring(kek(1))
	if err != nil {
		t.Fatal(err)
	}
	events := h.events()
	kid := events.Signer().Public().Thumbprint()
	if alg := events.Signer().Public().Alg(); alg != credential.RS256 || events.Purpose() != authority.PurposeEvents || tokens.Purpose() != authority.PurposeTokens {
		t.Errorf("%s signs %s", alg, events.Purpose())
	}
	if _, err := tokens.Key(t.Context(), kid); err == nil {
		t.Error("the key of events is one of tokens")
	}
	if _, err := events.Key(t.Context(), tokens.Signer().Public().Thumbprint()); err == nil {
		t.Error("the key of tokens is one of events")
	}
	if _, err := credential.SignToken(events.Signer(), credential.TokenClaims{}); err == nil {
		t.Error("the key of events signs a token")
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	b, err := authority.JWKSOf(tokens, events)
	if err != nil {
		t.Fatal(err)
	}
	if err := ijson.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	algs := map[any]int{}
	for _, key := range set.Keys {
		if key["d"] != nil || key["use"] != "sig" || key["kid"] == nil {
			t.Errorf("published %v", key)
		}
		algs[key["alg"]]++
	}
	if fmt.Sprint(algs) != "map[ES256:2 RS256:2]" {
		t.Errorf("published are %v", algs)
	}

	before := tokens.Signer().Public().Thumbprint()
	h.clock.Advance(authority.JWKSLife)
	if err := events.Rotate(t.Context(), "uid:7"); err != nil {
		t.Fatal(err)
	}
	if events.Signer().Public().Thumbprint() == kid || tokens.Signer().Public().Thumbprint() != before {
		t.Error("not the one ring turned")
	}
	if e := h.last(ledger.KeyRotated); e.Detail["purpose"] != authority.PurposeEvents || e.Actor != "uid:7" {
		t.Errorf("entry %+v", e)
	}
	h.clock.Advance(authority.DefaultKeyPeriod)
	if err := tokens.Advance(t.Context()); err != nil {
		t.Errorf("the other, after it: %v", err)
	}
	if err := events.Advance(t.Context()); err != nil {
		t.Error(err)
	}

	// Over a restart.
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	again := h.events()
	if again.Signer().Public().Thumbprint() != events.Signer().Public().Thumbprint() || again.Signer().Public().Alg() != credential.RS256 {
		t.Error("the keys changed over a restart")
	}
}

// heard is a store that hears of commits and makes none of them, from when it is told
// to: its own goroutines are outside of the bubble that Run is in.
type heard struct {
	*store.Store
	from   bool
	rings  []string // purposes of keys that were to be saved
	closed []string // tasks
	keys   []string
}

func (s *heard) SaveKeys(ctx context.Context, from, keys []counterfoil.SigningKey, e *ledger.Entry) error {
	if !s.from {
		return s.Store.SaveKeys(ctx, from, keys, e)
	}
	s.rings = append(s.rings, fmt.Sprint(e.Detail["purpose"]))
	return errLost
}

func (s *heard) CloseTask(_ context.Context, id string, to counterfoil.TaskState, _ string, _ *ledger.Entry) (counterfoil.Voided, error) {
	s.closed = append(s.closed, string(to)+" "+id)
	return counterfoil.Voided{}, counterfoil.Refuse(counterfoil.TaskClosed, "it is closed")
}

func (s *heard) Revoke(_ context.Context, r counterfoil.Revocation, _ *ledger.Entry) (v counterfoil.Voided, news bool, err error) {
	s.keys = append(s.keys, r.Target.String())
	return v, true, nil
}

// Run looks after the rings beside the one of tokens, once a minute, and after what
// ends at a time, once a second.
func TestRunEndsWhatIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := &heard{Store: w.store}
	ring, err := authority.NewKeyring(t.Context(), authority.KeyringConfig{
		Store: s, Purpose: authority.PurposeEvents, KEK: kek(1), Now: w.clock.Now, Log: w.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	a := w.house.authority(func(c *authority.Config) { c.Store, c.Rings = s, []*authority.Keyring{ring} })
	task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
	old, _ := w.rotate("payroll", time.Hour)
	s.from = true
	w.runFor(a, 2*time.Second)
	if len(s.closed)+len(s.keys)+len(s.rings) > 0 {
		t.Fatalf("before their time: %q, %q and %q", s.closed, s.keys, s.rings)
	}
	w.clock.Advance(authority.DefaultKeyPeriod)
	w.runFor(a, time.Second)
	if fmt.Sprint(s.closed) != "[expired "+task.ID+"]" || fmt.Sprint(s.keys) != "[key "+old.Public().Thumbprint()+"]" || len(s.rings) > 0 {
		t.Errorf("within a second: %q, %q and %q", s.closed, s.keys, s.rings)
	}
}

// The ring of events turns by itself.
func TestRingsAdvance(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	s := &heard{Store: h.store}
	ring, err := authority.NewKeyring(t.Context(), authority.KeyringConfig{
		Store: s, Purpose: authority.PurposeEvents, KEK: kek(1), Now: h.clock.Now, Log: h.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.clock.Advance(authority.DefaultKeyPeriod)
	a := h.authority(func(c *authority.Config) { c.Rings = []*authority.Keyring{ring} })
	s.from = true
	h.runFor(a, time.Minute)
	if fmt.Sprint(s.rings) != "["+authority.PurposeEvents+"]" {
		t.Errorf("rings that turned: %q", s.rings)
	}
}
