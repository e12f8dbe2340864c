package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A Log is what everyone may see of the ledger: that it grows and never
// changes. Its tiles hold hashes only.
type Log interface {
	// Checkpoint returns a signed checkpoint that is not older than the last
	// answer that anyone had.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Tile returns the tile of that path (ledger.TilePath); ok is false when
	// the log has no such tile.
	Tile(ctx context.Context, path string) (tile []byte, ok bool, err error)
}

// Entries are what administrators see of the ledger.
type Entries interface {
	// Head returns how many entries there are and the root over them.
	Head() (size int64, root string)
	// Entry returns the exact bytes of an entry that exists.
	Entry(ctx context.Context, index int64) ([]byte, error)
	// Range calls each with the exact bytes of the entries from one index to
	// before another, in order, and returns its first error.
	Range(ctx context.Context, from, to int64, each func(entry []byte) error) error
	// Find returns the newest entries that the filter chooses, newest first.
	Find(ctx context.Context, f ledger.Filter) ([]*ledger.Entry, error)
	// Receipt returns the receipt of an entry that exists.
	Receipt(ctx context.Context, index int64) (ledger.Receipt, error)
	// Export writes the whole log.
	Export(ctx context.Context, w io.Writer) error
}

// Config is what the handlers are made of. Fields without "optional" must be set.
type Config struct {
	// Issuer is the public URL, without a slash at its end.
	Issuer string
	// ManagementURL is the management listener's, as browsers write its origin: for
	// telling its own pages from others'.
	ManagementURL string

	Authority *authority.Authority
	Keys      *authority.Keyring
	EventKeys *authority.Keyring // those that sign shared signals, which are published beside the others; optional
	Approvals *approval.Engine
	Passkeys  Passkeys           // whether a session's passkey is still one
	Verifier  *resource.Verifier // of agents that ask the issuer itself
	Recorder  Recorder
	View      func() ledger.View // what revocation state requests are decided with; optional
	Now       func() time.Time

	Revocations Revocations // what enforcement points follow

	// Signals are shared signals. Optional: without it none are offered.
	Signals *signals.Engine

	// Credentials keeps upstreams' credentials that are stored. Optional: without it none
	// are put, deleted or listed.
	Credentials Credentials

	// Evaluator answers enforcement points of others. Optional: without it none is heard.
	Evaluator Evaluator

	// Backup writes a backup, for whom ctx says who asks. Until its first byte an error
	// has written nothing. Optional: without it there is none over the socket.
	Backup func(ctx context.Context, w io.Writer) error

	// Draining ends when the server takes no new requests: what waits is answered then.
	// Optional.
	Draining context.Context

	// Dev says that people may reach the console over plain HTTP.
	Dev bool

	Log     Log
	Entries Entries
	Gateway http.Handler                     // serves everything below ISSUER/r/
	Source  func(*http.Request) netip.Addr   // see Source
	Behind  func(*http.Request) bool         // see Behind
	Ready   func() []string                  // why requests are not taken now; nothing when they are
	Actor   func(ctx context.Context) string // who speaks on the administration socket; empty is nobody
	Tally   *Tally
	Metrics prometheus.Gatherer
	Logger  *slog.Logger
}

// Handlers are the routes, one handler for each listener.
type Handlers struct {
	Public     http.Handler // issuer, ledger and gateway
	Management http.Handler // health for this machine; the console's place
	Metrics    http.Handler // health for whoever reaches its listener
	Admin      http.Handler // for the unix socket alone: whoever opens it is an administrator
}

// New makes the handlers.
func New(cfg Config) (Handlers, error) {
	if cfg.Authority == nil || cfg.Keys == nil || cfg.Log == nil || cfg.Entries == nil || cfg.Gateway == nil ||
		cfg.Approvals == nil || cfg.Passkeys == nil || cfg.Verifier == nil || cfg.Recorder == nil || cfg.Revocations == nil || cfg.Now == nil || cfg.ManagementURL == "" ||
		cfg.Source == nil || cfg.Behind == nil || cfg.Ready == nil || cfg.Actor == nil || cfg.Tally == nil || cfg.Metrics == nil || cfg.Logger == nil {
		return Handlers{}, errors.New("making the routes: a part that they need is missing")
	}
	base, err := basePath(cfg.Issuer)
	if err != nil {
		return Handlers{}, err
	}
	a := &answers{cfg.Logger, cfg.Tally}
	management, err := newManagement(cfg, a)
	if err != nil {
		return Handlers{}, err
	}
	return Handlers{
		Public:     newPublic(cfg, base, a),
		Management: management,
		Metrics:    newMetrics(cfg, a),
		Admin:      newAdmin(cfg, a),
	}, nil
}
