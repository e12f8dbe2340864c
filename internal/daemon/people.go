package daemon

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/notify"
)

// openPeople makes what asks people.
func (d *Daemon) openPeople() error {
	roots, err := attestationRoots(d.cfg.Approvals.AttestationRoots)
	if err != nil {
		return err
	}
	tell, err := d.cfg.Notify.read()
	if err != nil {
		return err
	}
	tell.Guard, tell.Now, tell.Log = d.guard, d.opt.Now, d.opt.Log
	if d.notifier, err = notify.New(tell); err != nil {
		return err
	}
	d.approvals, err = approval.New(approval.Config{
		Store: d.store, Issuer: d.cfg.Public.URL, Origin: d.cfg.Management.URL, Dev: d.cfg.Dev, Roots: roots,
		Notify: d.notice, Now: d.opt.Now, Log: d.opt.Log,
	})
	return err
}

// notice hands what people should hear of to whoever tells them. It does not wait.
func (d *Daemon) notice(ctx context.Context, n approval.Notice) {
	registry, _ := d.store.Registry()
	d.notifier.Queue(ctx, message(registry, n))
}

// attestationRoots reads the certificates whose attestation makes a passkey's model
// believed. Without a file no model is, and a class that asks for one has nobody who
// can sign.
func attestationRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the attestation roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the attestation roots: %s has no certificate in PEM", file)
	}
	return pool, nil
}
