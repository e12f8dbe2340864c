package authority_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/internal/seal"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

const issuer = "https://cf.example"

// A house is a real store with what stands on it.
type house struct {
	t     *testing.T
	clock *testkit.Clock
	path  string
	opt   store.Options
	store *store.Store
	keys  *authority.Keyring
	door  *resource.Verifier // what checks tokens
	logs  bytes.Buffer
	log   *slog.Logger
}

func newHouse(t *testing.T) *house {
	t.Helper()
	signer, verifier := testkit.LogKey(t, "cf.example/ledger")
	h := &house{t: t, clock: testkit.NewClock(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)), path: filepath.Join(t.TempDir(), "cf.db")}
	h.log = slog.New(slog.NewTextHandler(&h.logs, nil))
	h.opt = store.Options{Now: h.clock.Now, Issuer: issuer, Origin: "cf.example/ledger", Signer: signer, Verifier: verifier, Begin: true}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	s, err := store.Open(context.Background(), "sqlite:"+h.path, h.opt)
	if err != nil {
		h.t.Fatal(err)
	}
	h.store = s
	h.t.Cleanup(func() { s.Close() })
}

func (h *house) keyring(kek []byte) (*authority.Keyring, error) {
	return authority.NewKeyring(context.Background(), authority.KeyringConfig{Store: h.store, KEK: kek, Now: h.clock.Now, Log: h.log})
}

func (h *house) authority(edit ...func(*authority.Config)) *authority.Authority {
	h.t.Helper()
	keys, err := h.keyring(kek(1))
	if err != nil {
		h.t.Fatal(err)
	}
	h.keys = keys
	replay := resource.NewMemoryReplay(h.clock.Now)
	h.door = &resource.Verifier{Issuer: issuer, Keys: keys, Replay: replay, Revocation: h.store, Now: h.clock.Now}
	cfg := authority.Config{
		Issuer: issuer, Store: h.store, Keys: keys, Replay: replay, Tokens: h.door, Revocation: h.store, Now: h.clock.Now, Log: h.log,
	}
	for _, e := range edit {
		e(&cfg)
	}
	a, err := authority.New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *house) entries(kind ledger.Kind) []*ledger.Entry {
	h.t.Helper()
	var out []*ledger.Entry
	size, _ := h.store.Head()
	err := h.store.Entries(context.Background(), 0, size, func(_ int64, b []byte) error {
		e, err := ledger.Parse(b)
		if err == nil && e.Kind == kind {
			out = append(out, e)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func TestKeyringSurvivesARestart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first, err := h.keyring(kek(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	second, err := h.keyring(kek(1))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.JWKS(), second.JWKS()) || first.Signer().Public().Thumbprint() != second.Signer().Public().Thumbprint() {
		t.Error("the keys changed over a restart")
	}
	if got := len(h.entries(ledger.KeyRotated)); got != 1 {
		t.Errorf("%d entries of keys", got)
	}
}

// No private key is in the database in the clear.
func TestKeysAreSealedAtRest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if _, err := h.keyring(kek(1)); err != nil {
		t.Fatal(err)
	}
	keys, err := h.store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if len(k.Sealed) == 0 || bytes.Contains(k.Sealed, []byte("PRIVATE")) {
			t.Errorf("key %s is kept as %q", k.KID, k.Sealed)
		}
		if _, err := seal.Open(kek(1), "signing_keys/sealed", k.KID, k.Sealed); err != nil {
			t.Error(err)
		}
	}
}

func TestKeyringStopsTheStart(t *testing.T) {
	t.Parallel()
	save := func(h *house, edit func([]counterfoil.SigningKey)) {
		keys, err := h.store.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		from := slices.Clone(keys)
		edit(keys)
		if err := h.store.SaveKeys(t.Context(), from, keys, &ledger.Entry{Kind: ledger.KeyRotated}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		edit func(*house)
		kek  byte
		want string
		is   error
	}{
		{"another KEK", func(*house) {}, 2, "put back the KEK file", seal.ErrWrongKEK},
		{"a damaged private half", func(h *house) { save(h, func(k []counterfoil.SigningKey) { k[0].Sealed[30] ^= 1 }) }, 1, "restore it from a backup", seal.ErrDamaged},
		{"no private half", func(h *house) { save(h, func(k []counterfoil.SigningKey) { k[0].Sealed = nil }) }, 1, "restore it from a backup", seal.ErrDamaged},
		{"swapped private halves", func(h *house) {
			save(h, func(k []counterfoil.SigningKey) { k[0].Sealed, k[1].Sealed = k[1].Sealed, k[0].Sealed })
		}, 1, "restore it from a backup", seal.ErrDamaged},
		{"two active keys", func(h *house) {
			save(h, func(k []counterfoil.SigningKey) { k[0].State, k[1].State = authority.KeyActive, authority.KeyActive })
		}, 1, "2 active and 0 next", nil},
		{"no active key", func(h *house) {
			save(h, func(k []counterfoil.SigningKey) { k[0].State, k[1].State = authority.KeyNext, authority.KeyRetired })
		}, 1, "restore the database", nil},
		{"a KEK of the wrong size", func(*house) {}, 0, "32", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			if _, err := h.keyring(kek(1)); err != nil {
				t.Fatalf("without the damage: %v", err)
			}
			tt.edit(h)
			key := kek(tt.kek)
			if tt.kek == 0 {
				key = key[:8]
			}
			_, err := h.keyring(key)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("the start says %v", err)
			}
		})
	}
}

// The active key's period ends by itself, also while nothing ran.
func TestKeysRotateByThemselves(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	keys, err := h.keyring(kek(1))
	if err != nil {
		t.Fatal(err)
	}
	first := keys.Signer().Public().Thumbprint()
	h.clock.Advance(authority.DefaultKeyPeriod - time.Second)
	if err := keys.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys.Signer().Public().Thumbprint() != first {
		t.Fatal("the key rotated before its period was over")
	}
	h.clock.Advance(time.Second)
	if err := keys.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := keys.Signer().Public().Thumbprint()
	if second == first {
		t.Fatal("the key did not rotate")
	}
	if _, err := keys.Key(t.Context(), first); err != nil {
		t.Errorf("the retired key: %v", err)
	}
	h.clock.Advance(2 * authority.DefaultKeyPeriod)
	again, err := h.keyring(kek(1))
	if err != nil {
		t.Fatal(err)
	}
	if again.Signer().Public().Thumbprint() == second {
		t.Error("a start after the period did not rotate")
	}
	if _, err := again.Key(t.Context(), first); counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
		t.Errorf("a key that should be removed: %v", err)
	}
	rows, err := h.store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if gone := row.State == authority.KeyRetired || row.State == authority.KeyRemoved; gone != (row.Sealed == nil) {
			t.Errorf("key %s is %s, and its private half is there: %v", row.KID, row.State, row.Sealed != nil)
		}
	}
}

// brittle is a store whose log can be made to fail.
type brittle struct {
	*store.Store
	fail error
}

func (b *brittle) Append(ctx context.Context, e *ledger.Entry) error {
	if b.fail != nil {
		return b.fail
	}
	return b.Store.Append(ctx, e)
}

// Counts of refusals wait until they can be written.
func TestAggregateWaitsForTheLedger(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	b := &brittle{Store: h.store, fail: counterfoil.NewFault(counterfoil.LedgerUnavailable, errors.New("the disk is full"))}
	a := h.authority(func(c *authority.Config) { c.Store = b })
	a.Refused(counterfoil.ClientRefused)
	a.Refused(counterfoil.ClientRefused)
	a.Refused("a code that is in no table")
	h.clock.Advance(time.Minute)
	if err := a.Flush(t.Context()); err == nil {
		t.Fatal("a failed flush was not reported")
	}
	a.Refused(counterfoil.ClientRefused)
	b.fail = nil
	h.clock.Advance(time.Minute)
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := h.entries(ledger.RefusedAggregate)
	if len(got) != 1 || fmt.Sprint(got[0].Detail["codes"]) != "map[client_refused:3 internal:1]" || fmt.Sprint(got[0].Detail["total"]) != "4" ||
		got[0].Detail["from"] != "2026-11-20T10:00:00.000000Z" || got[0].Detail["to"] != "2026-11-20T10:02:00.000000Z" {
		t.Errorf("entries = %+v", got)
	}
}

func TestRunFlushesOnceAMinute(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	b := &counter{brittle: brittle{Store: h.store}}
	a := h.authority(func(c *authority.Config) { c.Store = b })
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.Run(ctx)
		}()
		for range 3 {
			a.Refused(counterfoil.ClientRefused)
			<-time.After(time.Minute)
			synctest.Wait()
		}
		if b.n != 3 {
			t.Errorf("%d entries after three minutes", b.n)
		}
		a.Refused(counterfoil.ClientRefused)
		cancel()
		<-done
		if b.n != 4 {
			t.Errorf("%d entries after the end", b.n)
		}
	})
}

// counter counts what would be appended: a store's goroutines are outside of
// the bubble.
type counter struct {
	brittle
	n int
}

func (c *counter) Append(context.Context, *ledger.Entry) error {
	c.n++
	return nil
}

const bank = `
{kind: Person, name: ana, groups: [finance]}
---
{kind: Person, name: bo, groups: [finance]}
---
{kind: Person, name: cy, groups: [finance]}
---
{kind: Class, name: read, tier: routine}
---
{kind: Class, name: payout, tier: irreversible, approvers: [finance]}
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: http://127.0.0.1:1/mcp
tools: [{name: get_balance, class: read}, {name: pay, class: payout}, {name: sweep, class: payout}]
`

// An apply pins what is above routine, and only that; an upstream that does not
// answer is a warning.
func TestApplyPinsDefinitions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	fail := error(nil)
	tools := map[string]authority.Definition{
		"get_balance": {Digest: "sha-256:a", Unusable: "nobody reads its arguments"}, "pay": {Digest: "sha-256:b"}, "extra": {Digest: "sha-256:c"},
	}
	a := h.authority(func(c *authority.Config) {
		c.Definitions = func(_ context.Context, r *counterfoil.Resource) (map[string]authority.Definition, error) {
			if r.Name != "bank" {
				t.Errorf("asked for %s", r.Name)
			}
			return tools, fail
		}
	})
	apply := func() authority.ApplyResult {
		t.Helper()
		result, err := a.Apply(t.Context(), authority.ApplyRequest{Files: []manifest.File{{Name: "bank.yaml", Data: []byte(bank)}}, Actor: "uid:7"})
		if err != nil || len(result.Problems) > 0 {
			t.Fatal(err, result.Problems)
		}
		return result
	}
	result := apply()
	if fmt.Sprint(result.Pinned) != "[{bank pay sha-256:b false}]" || !strings.Contains(strings.Join(result.Warnings, "\n"), "no tool sweep") {
		t.Errorf("%+v", result)
	}
	if _, ok := h.store.Pin("bank", "get_balance"); ok {
		t.Error("a routine tool was pinned")
	}
	if result := apply(); len(result.Pinned) != 0 {
		t.Errorf("again: %+v", result.Pinned)
	}
	if w := strings.Join(result.Warnings, "\n"); strings.Contains(w, "cannot be checked") {
		t.Errorf("nothing is wrong with what is checked: %s", w)
	}
	tools["pay"] = authority.Definition{Digest: "sha-256:changed", Unusable: "it is a riddle"}
	result = apply()
	if fmt.Sprint(result.Pinned) != "[{bank pay sha-256:changed true}]" {
		t.Errorf("changed: %+v", result.Pinned)
	}
	if w := strings.Join(result.Warnings, "\n"); !strings.Contains(w, "calls of pay are refused") || !strings.Contains(w, "it is a riddle") {
		t.Errorf("a definition that cannot be used: %s", w)
	}
	fail = errors.New("dial tcp 10.0.0.7: no route to the secret host")
	result = apply()
	warnings := strings.Join(result.Warnings, "\n")
	if !strings.Contains(warnings, "not pinned") || strings.Contains(warnings, "secret host") {
		t.Errorf("out of reach: %s", warnings)
	}
	got := h.entries(ledger.ToolPinned)
	if len(got) != 2 || got[0].Tool != "bank/pay" || got[0].Actor != "uid:7" || got[1].ToolDigest != "sha-256:changed" || got[1].Detail["before"] != "sha-256:b" {
		t.Errorf("entries = %+v", got)
	}
}

func TestTokenLifeHasBounds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.authority()
	for _, d := range []time.Duration{time.Second, 16 * time.Minute, -time.Minute} {
		if _, err := authority.New(authority.Config{Issuer: issuer, Store: h.store, Keys: h.keys, TokenLife: d, Now: h.clock.Now, Log: h.log}); err == nil {
			t.Errorf("tokens that live for %s were taken", d)
		}
	}
}

func kek(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
