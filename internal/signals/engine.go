package signals

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/ledger"
)

// A Log is the ledger as it is read. Safe for concurrent use.
type Log interface {
	// Size returns how many entries are committed.
	Size() int64
	// Wait returns when there are more than size, or ctx ends.
	Wait(ctx context.Context, size int64) error
	// Entries calls fn with the exact bytes of the entries from one index to before
	// another, in order, as far as the log goes, and returns fn's first error.
	Entries(ctx context.Context, from, to int64, fn func(index int64, entry []byte) error) error
	// Append records an entry that has no effect beside itself.
	Append(ctx context.Context, e *ledger.Entry) error
}

// Streams keeps receivers' streams. Each verb commits with its entry, and an error
// means that nothing can be relied on to be there. Safe for concurrent use.
type Streams interface {
	// PutStream keeps a stream. Its present state must be that of from, nil for none:
	// otherwise, and where the agent has another stream, it is an error.
	PutStream(ctx context.Context, s counterfoil.SignalStream, from *counterfoil.SignalStream, e *ledger.Entry) error
	// DeleteStream forgets a stream.
	DeleteStream(ctx context.Context, id string, e *ledger.Entry) error
	// Streams returns every stream.
	Streams(ctx context.Context) ([]counterfoil.SignalStream, error)
	// AckStream keeps how far a stream's receiver has got.
	AckStream(ctx context.Context, id string, cursor int64, acked []int64, e *ledger.Entry) error
}

// An Inbox remembers which events were received. Safe for concurrent use.
type Inbox interface {
	// SignalSeen reports whether an event of that transmitter and id was received.
	SignalSeen(ctx context.Context, transmitter, id string) (bool, error)
	// ReceiveSignal records that it was, until then, in one commit with its entry. Of
	// any number of calls with one id, exactly one is news; the others record nothing.
	ReceiveSignal(ctx context.Context, transmitter, id string, until time.Time, e *ledger.Entry) (news bool, err error)
}

// Config is what an Engine is made of. Every field must be set.
type Config struct {
	Issuer  string // ours, without a slash at its end
	Log     Log
	Streams Streams
	Inbox   Inbox

	// Registry returns what manifests declare now; AgentState an agent's state of life.
	Registry   func() *counterfoil.Registry
	AgentState func(agent string) counterfoil.AgentState

	// Signer returns the signer that events are signed with now: of RS256, and with a
	// key that signs nothing else.
	Signer func(ctx context.Context) (*credential.Signer, error)

	// Seal and Open keep a receiver's secret, for one stream.
	Seal func(stream string, plaintext []byte) ([]byte, error)
	Open func(stream string, sealed []byte) ([]byte, error)

	// Secret returns the content of a file under the secrets directory.
	Secret func(file string) (counterfoil.Secret, error)

	// Revoke takes authority away, and records it. What is revoked already is no error.
	Revoke func(ctx context.Context, r counterfoil.Revocation, actor string) error

	// Guard judges where receivers and transmitters are. Nil: with an empty list.
	Guard *outbound.Guard

	Now    func() time.Time
	Logger *slog.Logger
}

// An Engine is both sides of shared signals. Safe for concurrent use.
type Engine struct {
	cfg  Config
	tail tail
	most bounds

	mu       sync.Mutex
	backlogs map[string]*backlog  // by stream
	pushes   map[string]*attempts // by stream
	pulls    map[string]*attempts // by transmitter
	verified map[string]time.Time // by stream: when it last asked for verification

	changes sync.Mutex // one change of streams at a time, on this node

	keys    keyCache
	arrived budget
}

// bounds are of what is kept in memory, and of what a stream keeps.
type bounds struct {
	tail    int // entries that tell something, for all streams
	backlog int // entries before those, for one stream
	acked   int // places beyond a stream's cursor
}

// New makes an engine, which follows the log once it runs.
func New(cfg Config) (*Engine, error) {
	if cfg.Issuer == "" || cfg.Log == nil || cfg.Streams == nil || cfg.Inbox == nil || cfg.Registry == nil || cfg.AgentState == nil ||
		cfg.Signer == nil || cfg.Seal == nil || cfg.Open == nil || cfg.Secret == nil || cfg.Revoke == nil || cfg.Now == nil || cfg.Logger == nil {
		return nil, errors.New("making shared signals: a part that they need is missing")
	}
	e := &Engine{
		cfg: cfg, most: bounds{tail: 1 << 14, backlog: 1 << 12, acked: 1 << 12},
		backlogs: map[string]*backlog{}, pushes: map[string]*attempts{}, pulls: map[string]*attempts{}, verified: map[string]time.Time{},
	}
	e.tail.begin(cfg.Log.Size())
	return e, nil
}

// tick is how often what waits for its time is looked at.
const tick = time.Second

// Run follows the log, pushes what is due and polls transmitters, until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() {
		for ctx.Err() == nil {
			if err := e.cfg.Log.Wait(ctx, e.tail.end()); err != nil {
				continue
			}
			if err := e.follow(ctx); err != nil && ctx.Err() == nil {
				e.cfg.Logger.WarnContext(ctx, "following the ledger for shared signals", "err", err)
				e.rest(ctx, tick)
			}
		}
	})
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		grown := e.tail.grown()
		e.deliver(ctx, &all)
		e.pull(ctx, &all)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-grown:
		}
	}
}

// rest waits, or until ctx ends.
func (*Engine) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// attempts is how trying something again stands. Guarded by Engine.mu.
type attempts struct {
	running bool
	failed  int // in a row
	next    time.Time
	what    int64 // the place that was refused, and
	refused int   // how often
}

// Bounds of the time between two attempts.
const (
	firstBackoff = time.Second
	lastBackoff  = 5 * time.Minute
)

func backoff(failed int) time.Duration {
	d := firstBackoff
	for range failed - 1 {
		if d *= 2; d >= lastBackoff {
			return lastBackoff
		}
	}
	return d
}

// begin reports whether an attempt is due, and then counts it as running.
func (e *Engine) begin(all map[string]*attempts, id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := all[id]
	if a == nil {
		a = &attempts{}
		all[id] = a
	}
	if a.running || e.cfg.Now().Before(a.next) {
		return false
	}
	a.running = true
	return true
}

// end ends an attempt. One that failed is due again later and later.
func (e *Engine) end(all map[string]*attempts, id string, pause time.Duration, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := all[id]
	a.running = false
	a.next = e.cfg.Now().Add(pause)
	if err == nil {
		a.failed = 0
		return
	}
	a.failed++
	a.next = e.cfg.Now().Add(backoff(a.failed))
}
