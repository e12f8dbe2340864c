package daemon

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/seal"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/internal/store"
)

// sealedStreams is the purpose under which what a receiver of shared signals wants
// to be shown is sealed.
const sealedStreams = "streams/authorization"

// openSignals makes what tells others of revocations, and hears of theirs.
func (d *Daemon) openSignals(kek []byte) (err error) {
	d.signals, err = signals.New(signals.Config{
		Issuer: d.cfg.Public.URL, Log: d.store, Streams: d.store, Inbox: d.store,
		Registry:   func() *counterfoil.Registry { r, _ := d.store.Registry(); return r },
		AgentState: d.store.AgentState,
		Signer:     d.eventSigner,
		Seal:       func(stream string, b []byte) ([]byte, error) { return seal.Seal(kek, sealedStreams, stream, b) },
		Open:       func(stream string, b []byte) ([]byte, error) { return seal.Open(kek, sealedStreams, stream, b) },
		Secret:     d.secret,
		Revoke: func(ctx context.Context, r counterfoil.Revocation, actor string) error {
			_, err := d.authority.Revoke(ctx, r, actor)
			return err
		},
		Guard: d.guard, Now: d.opt.Now, Logger: d.opt.Log,
	})
	return err
}

// eventSigner returns what signs events; the first who asks waits for its key.
func (d *Daemon) eventSigner(ctx context.Context) (*credential.Signer, error) {
	if err := d.eventKeys.Ensure(ctx); err != nil {
		return nil, err
	}
	return d.eventKeys.Signer(), nil
}

// A boundedFeed says, with what is revoked, for how long that may be gone by, and of
// which log it is.
type boundedFeed struct {
	*store.Store
	maxStale time.Duration
	origin   string
}

// Origin names the log.
func (f boundedFeed) Origin() string { return f.origin }

// RevocationFeed is the store's.
func (f boundedFeed) RevocationFeed(ctx context.Context, after int64) (counterfoil.RevocationFeed, error) {
	feed, err := f.Store.RevocationFeed(ctx, after)
	feed.Log, feed.MaxStale = f.origin, f.maxStale.Milliseconds()
	return feed, err
}
