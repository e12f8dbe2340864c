package authority

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/seal"
	"github.com/counterfoil/counterfoil/ledger"
)

// What a signing key is for. There is one ring for each purpose.
const (
	PurposeTokens = "access-token"
	PurposeEvents = "security-events" // shared signals, whose receivers take RS256
)

// sealedKeys is the purpose under which the table's private keys are sealed.
const sealedKeys = "signing_keys/sealed"

// States of a signing key, in the order of its life.
const (
	KeyNext    = "next"    // published, does not sign yet
	KeyActive  = "active"  // signs
	KeyRetired = "retired" // published, signs no more; its private half is gone
	KeyRemoved = "removed" // not published; what it signed is void
)

const (
	// JWKSLife is how long anyone may keep the published keys. A key is
	// published for at least this long before it signs.
	JWKSLife = 10 * time.Minute

	// retiredFor is how long a key stays published after its last signature:
	// the longest life a token can be given, and the skew of clocks.
	retiredFor = maxTokenLife + time.Minute

	// DefaultKeyPeriod is how long a key signs.
	DefaultKeyPeriod = 30 * 24 * time.Hour
)

// A KeyStore keeps signing keys durably.
type KeyStore interface {
	// Keys returns every key of the table, in any state.
	Keys(ctx context.Context) ([]counterfoil.SigningKey, error)
	// SaveKeys writes the keys, each over the one of its id, together with the
	// entry, if the table still has the keys of from in those states. A fault
	// leaves open whether it did.
	SaveKeys(ctx context.Context, from, keys []counterfoil.SigningKey, e *ledger.Entry) error
}

// KeyringConfig is what a Keyring needs. Store, KEK, Now and Log are required.
type KeyringConfig struct {
	Store   KeyStore
	Purpose string        // PurposeTokens when empty
	Alg     string        // of the keys that are made; credential.ES256 when empty
	KEK     []byte        // 32 bytes; the private keys are sealed under it
	Period  time.Duration // how long a key signs; DefaultKeyPeriod when zero
	Lazy    bool          // make no key before Ensure asks for one
	Now     func() time.Time
	Log     *slog.Logger
}

// A Keyring holds the keys of one purpose. At any time one key is
// active and one is next, so that a rotation never has to wait for caches. It
// is safe for concurrent use; rotations are serialised, and of two rings over one
// table that rotate at the same moment one is told to try again.
type Keyring struct {
	cfg  KeyringConfig
	mu   sync.Mutex // held while the keys change
	view atomic.Pointer[keyView]
}

// A keyView is the state of the ring at one moment. It is immutable.
type keyView struct {
	keys   []counterfoil.SigningKey // next, active and retired
	public map[string]credential.PublicKey
	signer *credential.Signer // of the active key
	set    []map[string]any   // what is published
	jwks   []byte
}

// NewKeyring loads the keys, makes the first ones where there are none, and
// does what is due. A key that does not open stops the start.
func NewKeyring(ctx context.Context, cfg KeyringConfig) (*Keyring, error) {
	if cfg.Period == 0 {
		cfg.Period = DefaultKeyPeriod
	}
	cfg.Purpose, cfg.Alg = cmp.Or(cfg.Purpose, PurposeTokens), cmp.Or(cfg.Alg, credential.ES256)
	k := &Keyring{cfg: cfg}
	k.view.Store(&keyView{})
	if _, err := k.refresh(ctx); err != nil {
		return nil, err
	}
	if !cfg.Lazy {
		if err := k.Ensure(ctx); err != nil {
			return nil, err
		}
	}
	return k, k.Advance(ctx)
}

// Ensure makes the first keys where there are none yet.
func (k *Keyring) Ensure(ctx context.Context) error {
	if k.view.Load().signer != nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	table, err := k.refresh(ctx)
	if err != nil || k.view.Load().signer != nil {
		return err
	}
	if err := k.replaceAll(ctx, table, "", "first start"); err != nil {
		return fmt.Errorf("making the first signing keys: %w", err)
	}
	return nil
}

// refresh brings the view in line with the table, which it returns. They differ
// after a commit of which nobody knew whether it was made: what is published and
// what signs has to be what is stored.
func (k *Keyring) refresh(ctx context.Context) ([]counterfoil.SigningKey, error) {
	table, err := k.cfg.Store.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading the signing keys: %w", err)
	}
	live := slices.DeleteFunc(slices.Clone(table), func(key counterfoil.SigningKey) bool {
		return key.Purpose != k.cfg.Purpose || key.State == KeyRemoved
	})
	if maps.Equal(states(live), states(k.view.Load().keys)) {
		return table, nil
	}
	v, err := k.makeView(live)
	if err != nil {
		return nil, err
	}
	k.view.Store(v)
	return table, nil
}

func states(keys []counterfoil.SigningKey) map[string]string {
	by := map[string]string{}
	for _, key := range keys {
		by[key.KID] = key.State
	}
	return by
}

// Signer returns the signer of the active key; nil before there is one.
func (k *Keyring) Signer() *credential.Signer { return k.view.Load().signer }

// JWKS returns the published keys as a JWK set (RFC 7517, Section 5).
func (k *Keyring) JWKS() []byte { return k.view.Load().jwks }

// Purpose returns what the ring's keys are for.
func (k *Keyring) Purpose() string { return k.cfg.Purpose }

// JWKSOf returns the published keys of several rings as one JWK set. A verifier tells
// them apart by kid, and takes none for another's purpose: an access token names ES256
// and its own type.
func JWKSOf(rings ...*Keyring) ([]byte, error) {
	set := []map[string]any{}
	for _, k := range rings {
		set = append(set, k.view.Load().set...)
	}
	return ijson.Marshal(map[string]any{"keys": set})
}

// Key returns the published key of that id: it is a resource.KeySource.
func (k *Keyring) Key(_ context.Context, kid string) (credential.PublicKey, error) {
	key, ok := k.view.Load().public[kid]
	if !ok {
		return credential.PublicKey{}, counterfoil.Refuse(counterfoil.TokenMalformed, "the token is signed by no key of this issuer")
	}
	return key, nil
}

// Keys returns what is published, without anything secret.
func (k *Keyring) Keys() []counterfoil.SigningKey {
	keys := slices.Clone(k.view.Load().keys)
	for i := range keys {
		keys[i].Sealed = nil
	}
	return keys
}

// Advance does what is due by the clock: it removes retired keys whose tokens
// have all expired, and rotates when the active key's period is over. When it
// fails the next call tries again, from what is stored then.
func (k *Keyring) Advance(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	table, err := k.refresh(ctx)
	if err != nil {
		return err
	}
	now, keys := k.cfg.Now(), slices.Clone(k.view.Load().keys)
	due := false
	for i, key := range keys {
		if key.State == KeyRetired && !now.Before(key.RetiredAt.Add(retiredFor)) {
			keys[i].State, due = KeyRemoved, true
		}
	}
	why := "expired"
	active, next := byState(keys, KeyActive), byState(keys, KeyNext)
	if active >= 0 && next >= 0 && !now.Before(keys[active].ActiveAt.Add(k.cfg.Period)) && published(keys[next], now) {
		if keys, err = k.turn(keys, now); err != nil {
			return err
		}
		why, due = "period", true
	}
	if !due {
		return nil
	}
	return k.save(ctx, table, keys, "", why)
}

// Rotate makes the next key sign and retires the active one. It refuses while
// caches may not know the next key.
func (k *Keyring) Rotate(ctx context.Context, actor string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	table, err := k.refresh(ctx)
	if err != nil {
		return err
	}
	now, keys := k.cfg.Now(), slices.Clone(k.view.Load().keys)
	if len(keys) == 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "there is no key for %s yet: the first is made when it is needed", k.cfg.Purpose)
	}
	if next := keys[byState(keys, KeyNext)]; !published(next, now) {
		return counterfoil.Refuse(counterfoil.RequestMalformed,
			"the next key is published since %s and caches may not know it before %s; rotate then, or as an emergency when the active key is compromised",
			next.Created.UTC().Format(time.RFC3339), next.Created.Add(JWKSLife).UTC().Format(time.RFC3339))
	}
	if keys, err = k.turn(keys, now); err != nil {
		return err
	}
	return k.save(ctx, table, keys, actor, "ordered")
}

// RotateEmergency replaces every key at once: the active one is taken for
// compromised, and the next one with it, because they lie in one place. All
// tokens that were issued before are void here with the answer. A resource
// server that keeps the key set may take them until its copy expires.
func (k *Keyring) RotateEmergency(ctx context.Context, actor string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	table, err := k.refresh(ctx)
	if err != nil {
		return err
	}
	return k.replaceAll(ctx, table, actor, "emergency")
}

// replaceAll removes the keys and makes a fresh active and a fresh next one.
func (k *Keyring) replaceAll(ctx context.Context, table []counterfoil.SigningKey, actor, why string) error {
	now := k.cfg.Now()
	keys := slices.Clone(k.view.Load().keys)
	for i := range keys {
		keys[i].State = KeyRemoved
	}
	for _, state := range []string{KeyActive, KeyNext} {
		key, err := k.newKey(state, now)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	return k.save(ctx, table, keys, actor, why)
}

// turn moves next to active and active to retired, and makes a new next.
func (k *Keyring) turn(keys []counterfoil.SigningKey, now time.Time) ([]counterfoil.SigningKey, error) {
	active, next := byState(keys, KeyActive), byState(keys, KeyNext)
	keys[active].State, keys[active].RetiredAt = KeyRetired, now
	keys[next].State, keys[next].ActiveAt = KeyActive, now
	fresh, err := k.newKey(KeyNext, now)
	if err != nil {
		return nil, err
	}
	return append(keys, fresh), nil
}

// save makes a new state of the ring, computed from that state of the table,
// durable and then visible. A crash in between is repaired by the next start,
// which loads what is durable. Whether the caller waits for the answer is not a
// part of the decision.
func (k *Keyring) save(ctx context.Context, table, keys []counterfoil.SigningKey, actor, why string) error {
	ctx = context.WithoutCancel(ctx)
	kids := map[string][]string{}
	for i, key := range keys {
		if key.State == KeyRetired || key.State == KeyRemoved {
			keys[i].Sealed = nil // it never signs again: the private half ends here
		}
		kids[key.State] = append(kids[key.State], key.KID)
	}
	live := slices.DeleteFunc(slices.Clone(keys), func(key counterfoil.SigningKey) bool { return key.State == KeyRemoved })
	v, err := k.makeView(live)
	if err != nil {
		return err
	}
	e := &ledger.Entry{Kind: ledger.KeyRotated, Actor: actor, Reason: why, Detail: map[string]any{"purpose": k.cfg.Purpose}}
	for _, state := range slices.Sorted(maps.Keys(kids)) {
		e.Detail[state] = kids[state]
	}
	if err := k.cfg.Store.SaveKeys(ctx, table, keys, e); err != nil {
		// It may have been made all the same. When that cannot be read now, the
		// next Advance does.
		if _, again := k.refresh(ctx); again != nil {
			k.cfg.Log.ErrorContext(ctx, "reading the signing keys back", "err", again)
		}
		return fmt.Errorf("saving the signing keys: %w", err)
	}
	k.view.Store(v)
	k.cfg.Log.InfoContext(ctx, "signing keys rotated", "purpose", k.cfg.Purpose, "why", why, "active", kids[KeyActive][0])
	return nil
}

func (k *Keyring) newKey(state string, now time.Time) (counterfoil.SigningKey, error) {
	// Of tokens, ES256 is what every resource server can verify (standards say RS256,
	// which is four times the size and no better).
	private, err := credential.GenerateKey(k.cfg.Alg)
	if err != nil {
		return counterfoil.SigningKey{}, fmt.Errorf("making a signing key: %w", err)
	}
	signer, err := credential.NewSignerFor(k.cfg.Alg, private)
	if err != nil {
		return counterfoil.SigningKey{}, fmt.Errorf("making a signing key: %w", err)
	}
	pem, err := credential.MarshalPrivateKeyPEM(private)
	if err != nil {
		return counterfoil.SigningKey{}, fmt.Errorf("encoding a signing key: %w", err)
	}
	public := signer.Public()
	sealed, err := seal.Seal(k.cfg.KEK, sealedKeys, public.Thumbprint(), pem)
	if err != nil {
		return counterfoil.SigningKey{}, err
	}
	key := counterfoil.SigningKey{
		KID: public.Thumbprint(), Purpose: k.cfg.Purpose, Alg: public.Alg(), State: state,
		JWK: public.JWK(), Sealed: sealed, Created: now,
	}
	if state == KeyActive {
		key.ActiveAt = now
	}
	return key, nil
}

// makeView opens what has to be opened and checks that the rows are what they
// say: a damaged row must stop the start, not the first token.
func (k *Keyring) makeView(keys []counterfoil.SigningKey) (*keyView, error) {
	slices.SortFunc(keys, func(x, y counterfoil.SigningKey) int {
		return cmp.Or(x.Created.Compare(y.Created), strings.Compare(x.KID, y.KID))
	})
	v := &keyView{keys: keys, public: map[string]credential.PublicKey{}}
	count := map[string]int{}
	for _, key := range keys {
		public, err := credential.ParseJWKFor(key.Alg, key.JWK)
		if err != nil || public.Thumbprint() != key.KID {
			return nil, fmt.Errorf("signing key %s: its row is damaged; restore the database from a backup", key.KID)
		}
		count[key.State]++
		v.public[key.KID] = public
		published, err := publish(public)
		if err != nil {
			return nil, fmt.Errorf("publishing signing key %s: %w", key.KID, err)
		}
		v.set = append(v.set, published)
		if key.State == KeyRetired {
			continue
		}
		signer, err := k.open(key)
		if err != nil {
			return nil, err
		}
		if key.State == KeyActive {
			v.signer = signer
		}
	}
	if count[KeyActive] != 1 || count[KeyNext] != 1 {
		return nil, fmt.Errorf("the signing keys are damaged: %d active and %d next, one each is needed; restore the database from a backup", count[KeyActive], count[KeyNext])
	}
	var err error
	v.jwks, err = ijson.Marshal(map[string]any{"keys": v.set})
	return v, err
}

func (k *Keyring) open(key counterfoil.SigningKey) (*credential.Signer, error) {
	pem, err := seal.Open(k.cfg.KEK, sealedKeys, key.KID, key.Sealed)
	if err != nil {
		return nil, err
	}
	private, err := credential.ParsePrivateKeyPEM(pem)
	if err != nil {
		return nil, fmt.Errorf("reading signing key %s: %w", key.KID, err)
	}
	signer, err := credential.NewSignerFor(key.Alg, private)
	if err != nil {
		return nil, fmt.Errorf("reading signing key %s: %w", key.KID, err)
	}
	if signer.Public().Thumbprint() != key.KID {
		return nil, fmt.Errorf("signing key %s: its private half is another key's; restore the database from a backup", key.KID)
	}
	return signer, nil
}

// publish returns a key as the JWK set shows it.
func publish(public credential.PublicKey) (map[string]any, error) {
	var jwk map[string]any
	if err := ijson.Unmarshal(public.JWK(), &jwk); err != nil {
		return nil, err
	}
	jwk["kid"], jwk["alg"], jwk["use"] = public.Thumbprint(), public.Alg(), "sig"
	return jwk, nil
}

func byState(keys []counterfoil.SigningKey, state string) int {
	return slices.IndexFunc(keys, func(key counterfoil.SigningKey) bool { return key.State == state })
}

func published(key counterfoil.SigningKey, now time.Time) bool {
	return !now.Before(key.Created.Add(JWKSLife))
}
