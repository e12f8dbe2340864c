package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A Recorder makes decisions durable. Each verb returns after the commit; an
// error means that nothing can be relied on to be there, so nothing may follow
// from it. Safe for concurrent use.
type Recorder interface {
	// Decide records e, a call.decided, fills in the commitment to the payload,
	// keeps of the payload what the class of e says, and sets e.Index.
	Decide(ctx context.Context, e *ledger.Entry, payload []byte) error

	// Finish records e, the call.finished that ends the decision e.Of. A
	// decision ends once.
	Finish(ctx context.Context, e *ledger.Entry) error

	// DecideUsing is Decide for a call that uses something up, all of it with the entry
	// or nothing: a call of its task and of those above it, of their limits, and its
	// Idempotency-Key. It refuses where a task is not open or past its deadline
	// (task_closed), where a limit has no room or nothing to sum (limit_exceeded), and
	// where the key was used for another call (idempotency_mismatch). For a call that
	// was decided with this key before it returns a *counterfoil.Earlier.
	DecideUsing(ctx context.Context, use counterfoil.CallUse, e *ledger.Entry, payload []byte) error

	// FinishUsing is Finish, and keeps the result for whoever repeats the call with
	// its key; nil keeps none. Of a call that was never sent it forgets the key.
	FinishUsing(ctx context.Context, use counterfoil.CallUse, result []byte, e *ledger.Entry) error

	// Append records an entry that has no effect beside itself.
	Append(ctx context.Context, e *ledger.Entry) error
}

// Pins holds the digests that tools' definitions must have.
type Pins interface {
	// Pin returns the digest that is pinned.
	Pin(resource, tool string) (digest string, ok bool)

	// PinHow returns who or what vouched for the pinned digest, as PinTool was
	// told; empty when nothing is pinned.
	PinHow(resource, tool string) string

	// PinTool commits a digest with e and makes it visible before it returns.
	PinTool(ctx context.Context, resource, tool, digest, how string, e *ledger.Entry) error
}

// Credentials are what upstreams are shown. Safe for concurrent use.
type Credentials interface {
	// Release returns the credential of a resource, for one call that is allowed.
	Release(ctx context.Context, res *counterfoil.Resource) (custody.Released, error)

	// Refused says that the upstream did not take what was released.
	Refused(res *counterfoil.Resource, r custody.Released)
}

// Config is what a Gateway needs. Fields without "optional" must be set.
type Config struct {
	// PublicURL is where the gateway is reached from outside, without a slash
	// at the end. It is also the one origin that web pages may have.
	PublicURL string

	Verifier   *resource.Verifier
	Recorder   Recorder
	Revocation resource.Revocation // looked at again right before a call is forwarded
	Pins       Pins

	// Policy returns what decides at this moment, and the registry that it was
	// made from.
	Policy func() (*policy.Set, *counterfoil.Registry)

	// Credentials gives out what upstreams are shown.
	Credentials Credentials

	// Source says where a request comes from; the zero Addr is unknown.
	Source func(*http.Request) netip.Addr

	// SessionKey seals session ids, and makes the Idempotency-Keys that upstreams of
	// HTTP are told; at least 32 bytes. Optional: without it sessions end with the
	// process, and upstreams know no key from before.
	SessionKey []byte

	// Unauthenticated is called with the code of every request that was refused
	// before its proof was used. Those are counted, not recorded one by one.
	// Optional.
	Unauthenticated func(counterfoil.Code)

	// Answered is called with the code of every refusal and fault after that.
	// Optional.
	Answered func(counterfoil.Code)

	// View says what revocation state decisions are made with. Optional.
	View func() ledger.View

	// Approvals asks people about calls above routine. Optional: without it
	// every such call is refused (approval_required), and there is nobody to ask.
	Approvals Approvals

	// Tasks are the open tasks. Optional: without them every call in a task is refused
	// (task_closed).
	Tasks Tasks

	// Feed tells at once what is revoked: see Run. Optional: without it the open streams
	// of a caller that is revoked are found by looking at them now and then, and nobody
	// records that they are gone.
	Feed Feed

	// ManagementURL is where people log in, without a slash at the end. Optional:
	// without it no client is asked to send its user there.
	ManagementURL string

	Transport       http.RoundTripper // optional
	UpstreamTimeout time.Duration     // of an answer that is not a stream; 60 s when zero
	BodyTimeout     time.Duration     // until a request's body is there; 30 s when zero
	Rate            float64           // requests a second of one agent, twice as many at once; 1000 when zero
	MaxBody         int64             // of a request, in bytes; 4 MiB when zero
	MaxAnswer       int64             // of a JSON answer or one event, in bytes; 16 MiB when zero
	Now             func() time.Time  // optional
	Log             *slog.Logger      // optional
}

const (
	defaultMaxBody     = 4 << 20
	defaultMaxAnswer   = 16 << 20
	defaultBodyTimeout = 30 * time.Second
)

// A Gateway serves /r/{resource}. It keeps nothing that matters: everything it
// holds in memory is a cache.
type Gateway struct {
	cfg      Config // complete
	origin   string // of PublicURL
	host     string
	route    string // the path of PublicURL and /r/
	sealer   *sealer
	rates    *rates
	tables   sync.Map // of *webTable, by the resource's name
	catalogs sync.Map // of *catalog, by the resource's name: the one of its present upstream
	draining atomic.Bool
	held     heldCalls
	streams  openStreams
	ladder   ladder
	look     time.Duration // between two looks at an open stream's caller
	begun    int64         // the newest entry when the gateway was made, as far as it knows
}

// New makes a gateway.
func New(cfg Config) (*Gateway, error) {
	u, err := url.Parse(cfg.PublicURL)
	if err != nil || u.Host == "" || strings.HasSuffix(cfg.PublicURL, "/") {
		return nil, fmt.Errorf("making the gateway: public URL %q is not an absolute URL without a slash at its end", cfg.PublicURL)
	}
	if cfg.Verifier == nil || cfg.Recorder == nil || cfg.Revocation == nil || cfg.Pins == nil || cfg.Policy == nil || cfg.Credentials == nil || cfg.Source == nil {
		return nil, errors.New("making the gateway: a part that it needs is missing")
	}
	if cfg.SessionKey == nil {
		cfg.SessionKey = newSessionKey()
	}
	sealer, err := newSealer(cfg.SessionKey)
	if err != nil {
		return nil, fmt.Errorf("making the gateway: %w", err)
	}
	cfg.SessionKey = nil
	if cfg.Transport == nil {
		cfg.Transport = newTransport()
	}
	if cfg.UpstreamTimeout <= 0 {
		cfg.UpstreamTimeout = defaultTimeout
	}
	if cfg.BodyTimeout <= 0 {
		cfg.BodyTimeout = defaultBodyTimeout
	}
	if cfg.Rate <= 0 {
		cfg.Rate = defaultRate
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = defaultMaxBody
	}
	if cfg.MaxAnswer <= 0 {
		cfg.MaxAnswer = defaultMaxAnswer
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	held, cancel := context.WithCancelCause(context.Background())
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	begun := int64(0)
	if cfg.View != nil {
		begun = cfg.View().Seq
	}
	return &Gateway{
		look: lookInterval, begun: begun,
		cfg: cfg, origin: u.Scheme + "://" + u.Host, host: u.Host, route: u.Path + counterfoil.ResourcePath, sealer: sealer, rates: newRates(cfg.Rate),
		held: heldCalls{ctx: held, cancel: cancel, draining: make(chan struct{}), room: make(chan struct{}, maxHeld)},
	}, nil
}

// Drain ends the streams that would never end by themselves (GET, and
// subscriptions/listen), so that a server that shuts down waits for calls
// alone, begins no held call any more, and records what was only counted. Calls
// in flight go on: the server waits for those of requests, Wait for held ones.
// However many agents there is something to tell of, and however slow the store
// is, it returns after drainLimit: the caller's own limit is still to begin.
func (g *Gateway) Drain() {
	g.draining.Store(true)
	g.held.drain()
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	for _, agent := range g.rates.names() {
		g.tell(ctx, agent)
	}
}

// panicked makes a panic of a goroutine of ours the fault of what waits for it.
func (g *Gateway) panicked(doing string, cause any) error {
	g.cfg.Log.Error("panic", "doing", doing, "panic", cause, "stack", string(debug.Stack()))
	return counterfoil.NewFault(counterfoil.Internal, fmt.Errorf("%s: panic: %v", doing, cause))
}
