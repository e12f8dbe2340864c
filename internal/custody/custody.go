// Package custody holds what upstreams are shown: it gets an upstream's credential from
// the one place that its manifest names, keeps it no longer than it may, gives it out for
// one call at a time, and takes it out of answers that repeat it.
//
// What it guarantees: a secret is never in an error, a log line or an entry; a source is
// asked by one caller at a time, whatever number waits; what is over is never given out.
// What it does not check: whether the call may be made, which is decided before Release,
// and where the secret goes, which is the upstream's own address alone.
package custody

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/ledger"
)

// Config is what a Custody needs. File, Vault, KEK, Now and Log are required; without
// Providers what runs programs is refused at Release.
type Config struct {
	// File reads a secret by the plain name of its file. It is asked at each release,
	// so that a file that is replaced counts at once.
	File func(name string) (counterfoil.Secret, error)

	Providers string          // folder of the programs that may be named by exec
	Guard     *outbound.Guard // of the addresses of providers; nil has an empty list
	Vault     Vault
	KEK       []byte // 32 bytes; what the vault keeps is sealed under it
	Now       func() time.Time
	Log       *slog.Logger
}

// A Vault keeps sealed credentials. Each change commits with its entry.
type Vault interface {
	// SealedCredential returns what was put, or nil where there is none of the name.
	SealedCredential(ctx context.Context, name string) ([]byte, error)
	// PutCredential keeps it in place of the one of before, with a credential.stored.
	PutCredential(ctx context.Context, name string, sealed []byte, e *ledger.Entry) error
	// DeleteCredential commits that there is none any more, with a
	// credential.deleted. It is refused (tool_unknown) where there is none.
	DeleteCredential(ctx context.Context, name string, e *ledger.Entry) error
	// Credentials lists them by name, without what they hold.
	Credentials(ctx context.Context) ([]counterfoil.StoredCredential, error)
}

// A Custody gives out the credentials of upstreams. It may be used concurrently.
type Custody struct {
	cfg  Config
	base context.Context // ends with Stop: of what asks a source
	stop context.CancelFunc
	work sync.WaitGroup

	ending  sync.Mutex // of stopped, and of adding to work
	stopped bool

	mu      sync.Mutex
	sources map[string]*source // by resource
}

// New returns a Custody that has nothing yet.
func New(cfg Config) (*Custody, error) {
	if cfg.File == nil || cfg.Vault == nil || cfg.KEK == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("opening custody: File, Vault, KEK, Now and Log are required")
	}
	c := &Custody{cfg: cfg, sources: map[string]*source{}}
	c.base, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Stop ends whatever is still asking a source, and waits for it. A Release that waits
// fails, and so does a later one that had to ask.
func (c *Custody) Stop() {
	c.ending.Lock()
	c.stopped = true
	c.ending.Unlock()
	c.stop()
	c.work.Wait()
}

var errStopped = errors.New("the server is stopping")

// start runs f beside its caller, and reports whether it does: not once Stop was called.
func (c *Custody) start(f func()) bool {
	c.ending.Lock()
	defer c.ending.Unlock()
	if !c.stopped {
		c.work.Go(f)
	}
	return !c.stopped
}

// A Released is a credential for one call. The zero Released is of a resource that has
// none.
type Released struct {
	// Secret is what the header holds after the prefix.
	Secret counterfoil.Secret
	// From says where it is from, and nothing secret: "file crm-token", "stored crm",
	// "exec vault-crm", "url https://host", "oauth https://host".
	From string
	// Expires is when it must not be used any more. Zero: it is not known to end.
	Expires time.Time
	// Mask takes it, and what the resource had before it, out of answers. It is never
	// nil where there is a secret.
	Mask *Mask
}

// Release returns the credential of a resource, for one call that is allowed. Files and
// the vault are read each time; what the other sources said is kept until it is over, and
// asked for again a little before. A source that fails is not asked again at once, and
// what it said before serves until that is over. The error is a fault and holds no secret.
func (c *Custody) Release(ctx context.Context, res *counterfoil.Resource) (Released, error) {
	if res.Credential == nil {
		return Released{}, nil
	}
	r, err := c.source(res).release(ctx)
	if err != nil {
		return Released{}, fmt.Errorf("getting the credential of resource %s: %w", res.Name, err)
	}
	return r, nil
}
