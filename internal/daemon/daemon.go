// Package daemon wires one node together: configuration, keys, store, engines
// and listeners, and takes them down again in order. It makes no decisions and
// holds no SQL.
package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/evidence"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/notify"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// Options are what a program, not an operator, decides.
type Options struct {
	Log     *slog.Logger
	Version string
	Now     func() time.Time // time.Now when nil
}

// A Daemon is one running node. Open it, Run it, Close it.
type Daemon struct {
	cfg       Config
	opt       Options
	store     *store.Store
	authority *authority.Authority
	approvals *approval.Engine
	notifier  *notify.Notifier
	guard     *outbound.Guard  // of everything that is connected to
	custody   *custody.Custody // of upstreams' credentials
	gateway   *gateway.Gateway
	sightings *evidence.Sightings
	signals   *signals.Engine
	books     books
	clock     *clockGuard
	keys      *authority.Keyring // of access tokens
	eventKeys *authority.Keyring // of shared signals
	draining  context.Context    // ends when no request is taken any more
	drainNow  context.CancelFunc
	handlers  web.Handlers
	authzAddr string // where proxies ask
	servers   []served
	undo      []func()
	closeOnce sync.Once
	closeErr  error
}

// served is a server with the listener it is for.
type served struct {
	name   string
	server *http.Server
	ln     net.Listener
}

// Open prepares everything and listens, but takes no request before Run. What
// is damaged or does not fit stops it, with what to do about it.
func Open(ctx context.Context, cfg Config, opt Options) (_ *Daemon, err error) {
	if problems := cfg.check(); len(problems) > 0 {
		return nil, problems
	}
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	cfg.fill()
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	d := &Daemon{cfg: cfg, opt: opt, clock: &clockGuard{start: time.Now()}, guard: cfg.guard()}
	d.draining, d.drainNow = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			d.rollback()
		}
	}()
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Daemon) open(ctx context.Context) error {
	cfg := &d.cfg
	if err := prepareFolder(cfg.Data); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.SecretsDir, 0o700); err != nil {
		return fmt.Errorf("making the folder of secrets: %w", err)
	}
	public, err := d.listen("public", &cfg.Public, DefaultPublicURL)
	if err != nil {
		return err
	}
	management, err := d.listen("management", &cfg.Management, DefaultManagementURL)
	if err != nil {
		return err
	}
	fresh, err := isFresh(cfg)
	if err != nil {
		return err
	}
	kek, err := loadKEK(cfg.KEK.File, cfg.Dev && fresh)
	if err != nil {
		return err
	}
	key, err := d.openStore(ctx, kek, fresh)
	if err != nil {
		return err
	}
	started := &ledger.Entry{Kind: ledger.ServerStarted, Detail: map[string]any{
		"version": d.opt.Version, "issuer": cfg.Public.URL, "dev": cfg.Dev, "clock_confirmed": cfg.ConfirmClock,
	}}
	if err := d.store.Append(ctx, started); err != nil {
		return err
	}
	if err := key.settle(cfg.Data); err != nil {
		return err
	}
	if err := d.openEngines(ctx, kek); err != nil {
		return err
	}
	if err := d.serve("public", d.handlers.Public, public, cfg.Public.TLS); err != nil {
		return err
	}
	if err := d.serve("management", d.handlers.Management, management, cfg.Management.TLS); err != nil {
		return err
	}
	if cfg.Metrics.Listen != "" {
		ln, err := net.Listen("tcp", cfg.Metrics.Listen)
		if err != nil {
			return fmt.Errorf("listening for metrics: %w", err)
		}
		d.onUndo(func() { ln.Close() })
		if err := d.serve("metrics", d.handlers.Metrics, ln, TLS{}); err != nil {
			return err
		}
	}
	if err := d.serveAuthz(); err != nil {
		return err
	}
	// The socket comes last: the store's lock tells that no other process has
	// this folder, so that a socket that is there is a dead one.
	admin, cleanup, err := listenAdmin(cfg.Data)
	if err != nil {
		return err
	}
	d.onUndo(cleanup)
	d.onUndo(func() { admin.Close() })
	return d.serve("admin", d.handlers.Admin, admin, TLS{})
}

func (d *Daemon) onUndo(f func()) { d.undo = append(d.undo, f) }

func (d *Daemon) rollback() {
	for i := len(d.undo) - 1; i >= 0; i-- {
		d.undo[i]()
	}
	d.undo = nil
}

func (d *Daemon) listen(name string, l *Listener, fallback string) (net.Listener, error) {
	ln, err := listen(d.cfg.Data, name, l, fallback)
	if err != nil {
		return nil, err
	}
	d.onUndo(func() { ln.Close() })
	return ln, nil
}

func (d *Daemon) openStore(ctx context.Context, kek []byte, fresh bool) (logKey, error) {
	key, err := loadLogKey(d.cfg.Data, logOrigin(d.cfg.Public.URL), kek, fresh)
	if err != nil {
		return key, err
	}
	d.store, err = store.Open(ctx, d.cfg.Storage, store.Options{
		Now: d.opt.Now, Issuer: d.cfg.Public.URL, Origin: key.origin, Signer: key.signer, Verifier: key.verifier, Begin: key.begins,
		Places: d.cfg.Checkpoints, Log: d.opt.Log, ConfirmClock: d.cfg.ConfirmClock,
	})
	if err != nil {
		return key, err
	}
	d.books = books{d.store, key.verifier}
	d.onUndo(func() { d.store.Close() })
	return key, nil
}

// openEngines makes what decides, on the store that is open.
func (d *Daemon) openEngines(ctx context.Context, kek []byte) error {
	cfg, now := &d.cfg, d.opt.Now
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerStore(registry, d.store)
	tally := web.NewTally(registry)
	source := web.Source(cfg.proxies())

	memory := resource.NewMemoryReplay(now)
	lost, err := d.readBack(ctx, memory)
	if err != nil {
		return err
	}
	replay := guardedReplay{memory, d.clock}
	ring := authority.KeyringConfig{Store: d.store, KEK: kek, Period: cfg.Lifetimes.SigningKey, Now: now, Log: d.opt.Log}
	if d.keys, err = authority.NewKeyring(ctx, ring); err != nil {
		return err
	}
	// An RSA key takes a while to make, and most deployments never need one.
	ring.Purpose, ring.Alg, ring.Lazy = authority.PurposeEvents, credential.RS256, true
	if d.eventKeys, err = authority.NewKeyring(ctx, ring); err != nil {
		return err
	}
	restored, err := d.restored(ctx)
	if err != nil {
		return err
	}
	if err := d.openPeople(); err != nil {
		return err
	}
	registerNotifier(registry, d.notifier)
	if err := d.openCustody(kek); err != nil {
		return err
	}
	outside, err := d.issuers()
	if err != nil {
		return err
	}
	verifier := &resource.Verifier{
		Issuer: cfg.Public.URL, Keys: d.keys, Replay: replay, Revocation: d.store, Nonces: d.nonces(lost), Outside: outside, Now: now, Log: d.opt.Log,
	}
	d.authority, err = authority.New(authority.Config{
		Changes: d.approvals, Changed: d.approvals.Changes(), Dev: cfg.Dev,
		Issuer: cfg.Public.URL, Store: d.store, Keys: d.keys, Replay: replay, Nonces: d.nonces(lost), TokenLife: cfg.Lifetimes.Token,
		Definitions: d.definitions, Schema: gateway.CheckSchema, Credential: d.credential, Tokens: verifier, Revocation: d.store,
		Guard: d.guard, Rings: []*authority.Keyring{d.eventKeys}, NotBefore: restored, Now: now, Log: d.opt.Log,
	})
	if err != nil {
		return err
	}
	clones := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "counterfoil_clones_suspected_total", Help: "Suspicions that a key was cloned.",
	})
	registry.MustRegister(clones)
	d.sightings = evidence.NewSightings(evidence.Config{
		Log: d.store, Keys: d.store, Alarm: d.authority, Window: proofMemory, Raised: clones.Inc, Logger: d.opt.Log,
	})
	if err := d.openSignals(kek); err != nil {
		return err
	}
	d.gateway, err = gateway.New(gateway.Config{
		PublicURL: cfg.Public.URL, ManagementURL: cfg.Management.URL, Verifier: verifier, Approvals: d.approvals,
		Recorder: d.store, Revocation: d.store, Feed: d.store, Tasks: d.store, Pins: d.store, Policy: d.authority.Policy, Credentials: d.custody, Source: source,
		SessionKey: derive(kek, "session"), Unauthenticated: d.unauthenticated(tally), Answered: tally.Count, View: d.view,
		Transport: d.guard.Transport(outbound.Upstream), UpstreamTimeout: cfg.Limits.UpstreamTimeout, MaxBody: cfg.Limits.Body, Now: now, Log: d.opt.Log,
	})
	if err != nil {
		return err
	}
	d.handlers, err = web.New(web.Config{
		Issuer: cfg.Public.URL, ManagementURL: cfg.Management.URL, Authority: d.authority, Keys: d.keys, EventKeys: d.eventKeys,
		Signals: d.signals, Revocations: boundedFeed{d.store, cfg.Revocation.MaxStale, d.books.verifier.Name()}, Backup: d.Backup, Draining: d.draining, Credentials: d.custody,
		Approvals: d.approvals, Evaluator: d.gateway, Passkeys: d.store, Verifier: verifier, Recorder: d.store, View: d.view, Now: now, Dev: cfg.Dev,
		Log: d.books, Entries: d.books, Gateway: d.gateway, Source: source, Behind: web.Behind(cfg.proxies()), Ready: d.notReady, Actor: actorOf,
		Tally: tally, Metrics: registry, Logger: d.opt.Log,
	})
	return err
}

// unauthenticated counts what has no entry of its own: in the metrics, and in
// the aggregate that the authority writes once a minute.
func (d *Daemon) unauthenticated(tally *web.Tally) func(counterfoil.Code) {
	return func(code counterfoil.Code) {
		tally.Count(code)
		d.authority.Refused(code)
	}
}

// view says which revocation state calls are compared with: on one node that of
// the newest entry, as what was acknowledged is visible.
func (d *Daemon) view() ledger.View {
	return ledger.View{Seq: d.store.Size() - 1}
}

// nonces makes one space of nonces: the token endpoint and the gateway have one
// each (RFC 9449, Section 8.2). lost says that proofs may have been used that
// nobody remembers.
func (d *Daemon) nonces(lost bool) *resource.MemoryNonces {
	n := resource.NewMemoryNonces()
	n.Always = d.cfg.DPoPNonce == "always"
	if lost {
		n.LostAt = d.opt.Now()
	}
	return n
}

// proofMemory is how long after its use a proof could be accepted: one dated
// ahead as far as is allowed, to the end of its window, and the skew once more.
const proofMemory = credential.ProofWindow + 2*credential.Ahead

// assertionMemory is longer than any client assertion can be in its time.
const assertionMemory = 5 * time.Minute

// readBack loads the proofs of the last window out of the ledger, so that none
// is taken a second time after a restart (docs/design.md, single use). It reports
// whether there may be others: the clock was confirmed by hand, so that it is not
// known which window that is, requests were refused for their rate, whose
// proofs were used up without an entry of each, or the log goes on from a backup.
func (d *Daemon) readBack(ctx context.Context, memory *resource.MemoryReplay) (lost bool, err error) {
	since := d.opt.Now().Add(-proofMemory)
	err = d.store.RecentProofs(ctx, since, func(hash string, used time.Time) {
		memory.Load(hash, used.Add(proofMemory))
	})
	if err != nil {
		return false, fmt.Errorf("reading back the proofs that were used: %w", err)
	}
	// One entry stands for the refusals of a second.
	limited, err := d.store.Find(ctx, ledger.Filter{Kind: ledger.RefusedAggregate, Code: counterfoil.RateLimited, Since: since.Add(-time.Second), Limit: 1})
	if err != nil {
		return false, fmt.Errorf("reading back which requests were refused for their rate: %w", err)
	}
	// What was used in the time that a restoration lost is in no log.
	restored, err := d.restored(ctx)
	if err != nil {
		return false, err
	}
	return d.cfg.ConfirmClock || len(limited) > 0 || restored.After(since), nil
}

// restored returns when the log was restored from a backup, if that is so lately that it
// matters; the zero Time otherwise. Which assertions and proofs were used in the time that
// was lost is in no log.
func (d *Daemon) restored(ctx context.Context) (time.Time, error) {
	since := d.opt.Now().Add(-assertionMemory)
	found, err := d.store.Find(ctx, ledger.Filter{Kind: ledger.ServerRestored, Since: since, Limit: 1})
	if err == nil && len(found) == 0 {
		return time.Time{}, nil
	}
	var at time.Time
	if err == nil {
		at, err = found[0].When()
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading back whether the log was restored: %w", err)
	}
	return at, nil
}

// definitions asks an upstream for its tools, for pinning at apply.
func (d *Daemon) definitions(ctx context.Context, res *counterfoil.Resource) (map[string]authority.Definition, error) {
	released, err := d.release(ctx, res)
	if err != nil {
		return nil, err
	}
	defs, err := gateway.Definitions(ctx, d.guard.Transport(outbound.Upstream), res, released)
	if err != nil {
		return nil, err
	}
	known := make(map[string]authority.Definition, len(defs))
	for tool, def := range defs {
		of := authority.Definition{Digest: def.Digest}
		if _, classified := res.Tool(tool); classified { // nobody can call the others
			of.Unusable = def.Unusable()
		}
		known[tool] = of
	}
	return known, nil
}

// notReady says why requests are not taken.
func (d *Daemon) notReady() []string {
	var reasons []string
	if err := d.store.Ready(); err != nil {
		reasons = append(reasons, "ledger: "+err.Error())
	}
	if err := d.clock.err(); err != nil {
		reasons = append(reasons, "clock: "+err.Error())
	}
	return reasons
}

// serve adds a server. Its certificate is read now: a node that says it is ready
// can serve.
func (d *Daemon) serve(name string, h http.Handler, ln net.Listener, files TLS) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		// "OPTIONS *" is refused and counted like any other path that is not there.
		DisableGeneralOptionsHandler: true,

		ErrorLog:  slog.NewLogLogger(d.opt.Log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if name == "admin" {
		s.ConnContext = withActor
	}
	if files.Cert != "" {
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			return fmt.Errorf("reading the certificate of %s: %w", name, err)
		}
		s.TLSConfig.Certificates = []tls.Certificate{pair}
	}
	d.servers = append(d.servers, served{name, s, ln})
	return nil
}

// PublicURL is the issuer's identifier.
func (d *Daemon) PublicURL() string { return d.cfg.Public.URL }

// ManagementURL is where the console is.
func (d *Daemon) ManagementURL() string { return d.cfg.Management.URL }

// Data is the data folder, absolute.
func (d *Daemon) Data() string { return d.cfg.Data }

// Run serves until ctx ends or a listener fails, then drains: no new requests,
// those in flight finish and are recorded. Streams that do not end by
// themselves are cut when the drain time is over.
func (d *Daemon) Run(ctx context.Context) error {
	run, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, len(d.servers))
	for _, s := range d.servers {
		go func() {
			var err error
			if len(s.server.TLSConfig.Certificates) > 0 {
				err = s.server.ServeTLS(s.ln, "", "")
			} else {
				err = s.server.Serve(s.ln)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serving %s: %w", s.name, err)
				return
			}
			failed <- nil
		}()
	}
	var background sync.WaitGroup
	background.Go(func() { d.authority.Run(run) })
	background.Go(func() { d.clock.run(run) })
	background.Go(func() { d.sightings.Run(run) })
	background.Go(func() {
		if err := d.signals.Run(run); err != nil && run.Err() == nil {
			d.opt.Log.Error("following the ledger for shared signals", "err", err)
		}
	})
	background.Go(func() { d.approvals.Run(run) })
	background.Go(func() { d.notifier.Run(run) })
	background.Go(func() { d.gateway.Run(run) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	d.opt.Log.Info("stopping: no new requests are taken, those in flight are finished", "limit", d.cfg.Limits.Drain.String())
	d.drain()
	stop()
	background.Wait()
	return err
}

func (d *Daemon) drain() {
	d.drainNow()
	d.gateway.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.Limits.Drain)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range d.servers {
		all.Go(func() {
			if s.server.Shutdown(ctx) != nil {
				s.server.Close() // what is left are streams without an end
			}
		})
	}
	all.Go(func() { d.gateway.Wait(ctx) })
	all.Wait()
}

// stopTimeout bounds the wait for the last entry, on a disk that hangs.
const stopTimeout = 2 * time.Second

// Close signs the last checkpoint and lets go of the data folder.
func (d *Daemon) Close() error {
	d.closeOnce.Do(func() {
		for _, s := range d.servers {
			s.server.Close()
		}
		d.custody.Stop() // what still asks reads the store
		// The last word of an orderly end; where it cannot be written, the next
		// start shows that there was none.
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := d.store.Append(ctx, &ledger.Entry{Kind: ledger.ServerStopped}); err != nil {
			d.opt.Log.Error("recording the end", "err", err)
		}
		d.closeErr = d.store.Close()
		d.rollback()
	})
	return d.closeErr
}
