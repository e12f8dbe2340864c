package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
)

// Bounds on the life of an access token, and what it is when nobody says.
const (
	minTokenLife     = time.Minute
	maxTokenLife     = 15 * time.Minute
	DefaultTokenLife = 5 * time.Minute
)

// A Store is what the engine needs of the store: what is live, and decisions.
type Store interface {
	Directory
	Standing
	Recorder
	Registrar
	ProposalStore
	Tasks
	Revoker
	Rotator
}

// Tokens says what a token is that is not shown to be used. A resource.Verifier is
// one: nothing else checks tokens.
type Tokens interface {
	// Inspect verifies signature, issuer, type and time of a token for any audience.
	// Its refusal says what is wrong with it. It lets nobody in.
	Inspect(ctx context.Context, compact string) (credential.Token, error)
}

// Revocation knows what is revoked, as of now.
type Revocation interface {
	// Revoked refuses a caller who is not live.
	Revoked(ctx context.Context, c counterfoil.Caller) error
}

// A Replay remembers proofs until they expire on their own.
type Replay interface {
	// UseOnce records key until t and reports whether it was unseen. Of any
	// number of concurrent calls with the same key exactly one reports true.
	UseOnce(ctx context.Context, key string, until time.Time) (bool, error)
}

// Nonces say when a proof needs a nonce of ours (RFC 9449, Section 8), make
// them and know them again. The token endpoint's are not the gateway's.
type Nonces interface {
	Required(issuedAt, now time.Time) bool
	Check(nonce string, now time.Time) bool
	Mint(now time.Time) string
}

// Config is what an Authority is made of. Issuer, Store, Keys, Replay, Now and
// Log are required.
type Config struct {
	Issuer    string // the public URL, without a slash at its end
	Store     Store
	Keys      *Keyring
	Replay    Replay
	Nonces    Nonces        // nil: never needed
	TokenLife time.Duration // DefaultTokenLife when zero

	// Tokens and Revocation are for introspection, revocation by clients and reports
	// of leaks, which are faults without them.
	Tokens     Tokens
	Revocation Revocation

	// NotBefore is when this log was restored: assertions that were made then or
	// earlier are refused, as those that were used in the time that is lost are in no
	// log. Zero: never.
	NotBefore time.Time

	// Rings are key rings beside Keys, whose life Run looks after too.
	Rings []*Keyring

	// Guard judges where manifests send the server. Nil: with an empty list.
	Guard *outbound.Guard

	// Credential reports why the credential of a resource, which has one, cannot be
	// used, without using it. Nil: nothing is said of credentials at apply.
	Credential func(r *counterfoil.Resource) error

	// Schema reports why arguments cannot be held against the schema of an http
	// resource's tool. Nil: nothing is said of schemas at apply.
	Schema func(schema string) error

	// Definitions asks an mcp resource's upstream for its tools' definitions, by
	// tool. Nil: nothing is pinned at apply.
	Definitions func(ctx context.Context, r *counterfoil.Resource) (map[string]Definition, error)

	// Changes asks people whether what widens may take effect at once. Nil: it
	// waits for its time.
	Changes Changes
	// Changed tells of approvals of changes that were decided. Nil: they are
	// looked for once a minute.
	Changed <-chan string
	// Dev puts everything in force at once, whoever may approve by it.
	Dev bool

	Now func() time.Time
	Log *slog.Logger
}

// A Definition is what an apply needs to know of a tool's definition.
type Definition struct {
	Digest string // what is pinned

	// Unusable says why the arguments of calls cannot be checked, or is empty.
	Unusable string
}

// An Authority issues tokens and keeps the registry. It is safe for concurrent
// use.
type Authority struct {
	cfg      Config
	keys     keyCache
	agents   *Limiter      // by authenticated agent
	sources  *Limiter      // by address, charged for what is refused before authentication
	leaks    *Limiter      // by address, charged for each report
	reports  chan struct{} // has one for each report of a leak that is looked at
	refusals aggregate

	mu      sync.Mutex // held while the registry changes
	inForce atomic.Pointer[inForce]
}

// inForce is a registry, its revision and the policy compiled from it, always
// together.
type inForce struct {
	set      *policy.Set
	registry *counterfoil.Registry
	revision string
}

// New makes the engine over a store. A stored registry that no longer compiles
// stops the start.
func New(cfg Config) (*Authority, error) {
	if cfg.TokenLife == 0 {
		cfg.TokenLife = DefaultTokenLife
	}
	if cfg.TokenLife < minTokenLife || cfg.TokenLife > maxTokenLife {
		return nil, fmt.Errorf("tokens that live for %s: %s to %s is possible", cfg.TokenLife, minTokenLife, maxTokenLife)
	}
	a := &Authority{
		cfg:     cfg,
		agents:  NewLimiter(agentRate, agentBurst),
		sources: NewLimiter(sourceRate, sourceBurst),
		leaks:   NewLimiter(leakRate, leakBurst),
		reports: make(chan struct{}, maxReports),
	}
	a.refusals.since = cfg.Now()
	return a, a.reload()
}

// Policy returns what is in force: a registry and the policy compiled from it.
// It is never older than an acknowledged change.
func (a *Authority) Policy() (*policy.Set, *counterfoil.Registry) {
	f := a.inForce.Load()
	return f.set, f.registry
}

// current is Policy, and never older than what the store has committed already,
// acknowledged or not.
func (a *Authority) current() (*policy.Set, *counterfoil.Registry, error) {
	if _, revision := a.cfg.Store.Registry(); a.inForce.Load().revision != revision {
		if err := a.catchUp(); err != nil {
			return nil, nil, err
		}
	}
	set, registry := a.Policy()
	return set, registry, nil
}

// catchUp puts what the store has in force, if it is not.
func (a *Authority) catchUp() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reload()
}

// settle ends a change of the registry. Whatever the commit's answer was, what
// is in force is what is stored: a fault can be told of a commit that was made.
func (a *Authority) settle(err error) error {
	return errors.Join(err, a.reload())
}

// reload puts the store's registry in force, unless it is. A problem leaves the
// old one. It is called with the lock held.
func (a *Authority) reload() error {
	registry, revision := a.cfg.Store.Registry()
	if f := a.inForce.Load(); f != nil && f.revision == revision {
		return nil
	}
	set, problems := policy.Load(registry)
	if len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = fmt.Errorf("%s %s: %s: %s", p.Kind, p.Name, p.Field, p.Text)
		}
		return fmt.Errorf("loading the registry: %w", errors.Join(errs...))
	}
	a.inForce.Store(&inForce{set, registry, revision})
	return nil
}

// Algorithms returns the algorithms of assertions and proofs that are taken.
func Algorithms() []string { return credential.Algorithms() }

// upkeep is how often Run looks at what is due, and deadlines how often at what ends at
// a time. What is past its time is refused without anybody looking; Run records it, so
// that others hear of it.
const (
	upkeep    = time.Minute
	deadlines = time.Second
)

// Run does what is due by the clock until ctx ends: the aggregate of refusals,
// a minute each, the life of the signing keys, changes that waited, and a registry
// that was committed after its caller was told that nobody knows; every second, tasks
// past their deadline and keys past their overlap. Changes that
// people decided on are made at once, and of those that wait at the start people are
// told again. Then it writes what is left.
func (a *Authority) Run(ctx context.Context) {
	tick := time.NewTicker(upkeep)
	defer tick.Stop()
	ends := time.NewTicker(deadlines)
	defer ends.Stop()
	settle := func() { a.do(ctx, "settling the changes that wait", a.SettleChanges) }
	settle() // what came due while nobody ran
	a.do(ctx, "telling of the changes that wait", a.tellAgain)
	for {
		select {
		case <-a.cfg.Changed:
			settle()
		case <-ends.C:
			a.do(ctx, "closing tasks past their deadline", a.ExpireTasks)
			a.do(ctx, "ending keys past their overlap", a.ExpireKeys)
		case <-tick.C:
			settle()
			a.do(ctx, "flushing the refusals", a.Flush)
			for _, ring := range append([]*Keyring{a.cfg.Keys}, a.cfg.Rings...) {
				a.do(ctx, "advancing the signing keys", ring.Advance)
			}
			a.do(ctx, "putting the registry in force", func(context.Context) error { return a.catchUp() })
		case <-ctx.Done():
			a.do(context.WithoutCancel(ctx), "flushing the refusals", a.Flush)
			return
		}
	}
}

func (a *Authority) do(ctx context.Context, what string, f func(context.Context) error) {
	if err := f(ctx); err != nil {
		a.cfg.Log.ErrorContext(ctx, what, "err", err) // the next round tries again
	}
}

func source(addr netip.Addr) ledger.Source {
	if !addr.IsValid() {
		return ledger.Source{}
	}
	return ledger.Source{Address: addr.String()}
}
