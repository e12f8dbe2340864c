package daemon

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/ledger"
)

// openCustody makes what holds the credentials of upstreams.
func (d *Daemon) openCustody(kek []byte) (err error) {
	if err := os.MkdirAll(d.cfg.ProvidersDir, 0o700); err != nil {
		return fmt.Errorf("making the folder of providers: %w", err)
	}
	d.custody, err = custody.New(custody.Config{
		File: d.secret, Providers: d.cfg.ProvidersDir, Guard: d.guard, Vault: d.store, KEK: kek,
		Now: d.opt.Now, Log: d.opt.Log,
	})
	if err == nil {
		d.onUndo(d.custody.Stop)
	}
	return err
}

// release gets the credential with which an upstream is asked for its tools' definitions,
// and records that it is shown.
func (d *Daemon) release(ctx context.Context, res *counterfoil.Resource) (custody.Released, error) {
	r, err := d.custody.Release(ctx, res)
	if err != nil || r.Secret.Empty() {
		return r, err
	}
	host := ""
	if u, err := url.Parse(res.Upstream); err == nil {
		host = u.Host
	}
	e := &ledger.Entry{Kind: ledger.UpstreamCredentialUsed, Resource: res.Name, Detail: map[string]any{
		"host": host, "from": r.From, "binding": "ends here", "for": "definitions of its tools",
	}}
	if err := d.store.Append(ctx, e); err != nil {
		return custody.Released{}, err
	}
	return r, nil
}

// secret reads a file of the folder of secrets. It is read at each use, so that a
// rotated file counts at once; the manifest has checked that the name has no
// path in it. A link may point elsewhere in the folder, as those of mounted
// volumes do, and nowhere else.
func (d *Daemon) secret(file string) (counterfoil.Secret, error) {
	var none counterfoil.Secret
	if file != filepath.Base(file) || file == "." || file == ".." {
		return none, fmt.Errorf("reading a secret: %q is not a file name", file)
	}
	dir, err := filepath.EvalSymlinks(d.cfg.SecretsDir)
	if err != nil {
		return none, fmt.Errorf("reading a secret: %w", err)
	}
	path, err := filepath.EvalSymlinks(filepath.Join(dir, file))
	if err != nil {
		return none, fmt.Errorf("reading a secret: %w", err)
	}
	if inside, err := filepath.Rel(dir, path); err != nil || !filepath.IsLocal(inside) {
		return none, fmt.Errorf("reading a secret: %s is a link out of %s", file, d.cfg.SecretsDir)
	}
	b, err := readPrivate(path)
	if err != nil {
		return none, err
	}
	text := strings.TrimRight(string(b), "\r\n")
	switch {
	case text == "":
		return none, fmt.Errorf("reading a secret: %s is empty", file)
	case len(text) > maxSecret:
		return none, fmt.Errorf("reading a secret: %s is larger than %d bytes", file, maxSecret)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return none, fmt.Errorf("reading a secret: %s has a line break or another control character within", file)
	}
	return counterfoil.NewSecret(text), nil
}

// maxSecret bounds what a file of the folder of secrets holds.
const maxSecret = 8 << 10

// credential reports why the credential of a resource cannot be used.
func (d *Daemon) credential(r *counterfoil.Resource) error { return d.custody.Check(r) }
