package authority

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	// MaxLeak is the largest report of a leak, in bytes.
	MaxLeak = 64 << 10

	// leakFloor is how long the answer to a report takes at least. A commit is within
	// it, so that the time does not say whether there was one.
	leakFloor = 100 * time.Millisecond

	leakReason = "reported as leaked"

	// maxReports is how many reports are looked at at once, of all addresses together:
	// each makes us check signatures and keys for somebody whom nobody knows.
	maxReports = 4
)

// A LeakRequest is a report of something that leaked, from anyone.
type LeakRequest struct {
	Body        []byte
	ContentType string // "application/x-www-form-urlencoded" or anything; what it is is recognised by its content
	Source      netip.Addr
	RequestID   string
}

// Leaked takes a report of what leaked and revokes exactly what it shows: a whole access
// token that verifies, a private key whose public half is registered here, an
// enrolment code. What does not prove the leak, such as a thumbprint, an id or a
// public key, does nothing, since anybody may know it.
//
// Whoever reports learns nothing: the answer is the same, and takes as long, whether
// there was something to revoke, nothing, or nonsense. A refusal is of its size or of
// too many, from one address or at once; a fault says that the report has to come again.
func (a *Authority) Leaked(ctx context.Context, req LeakRequest) error {
	if a.cfg.Tokens == nil {
		return errors.New("taking a report of a leak: nobody is there who checks tokens")
	}
	if len(req.Body) > MaxLeak {
		return counterfoil.Refuse(counterfoil.PayloadTooLarge, "a report is larger than %d bytes", MaxLeak)
	}
	if !a.leaks.Take(AddressKey(req.Source), a.cfg.Now(), 1) {
		return counterfoil.Refuse(counterfoil.RateLimited, "too many reports from this address")
	}
	floor := time.NewTimer(leakFloor)
	defer floor.Stop()
	select {
	case a.reports <- struct{}{}:
	default:
		return counterfoil.Refuse(counterfoil.RateLimited, "too many reports at this moment")
	}
	err := a.burnAll(ctx, &req)
	select {
	case <-floor.C:
	case <-ctx.Done(): // nobody is there to tell the time
	}
	return err
}

// burnAll revokes everything that a report has, and lets the next report in.
func (a *Authority) burnAll(ctx context.Context, req *LeakRequest) error {
	defer func() { <-a.reports }()
	var errs []error
	for _, l := range recognise(req.Body, req.ContentType) {
		errs = append(errs, a.burn(ctx, req, l))
	}
	return errors.Join(errs...)
}

// burn revokes what leaked, if it is something. Its error is a fault, never a refusal.
func (a *Authority) burn(ctx context.Context, req *LeakRequest, l leak) error {
	err := a.revokeLeaked(context.WithoutCancel(ctx), req, l)
	if _, refused := counterfoil.AsRefusal(err); refused {
		return nil // there is no such thing, or not any more
	}
	return err
}

func (a *Authority) revokeLeaked(ctx context.Context, req *LeakRequest, l leak) error {
	var r counterfoil.Revocation
	switch {
	case l.code != nil:
		e := a.leakEntry(req, counterfoil.Revocation{Reason: leakReason})
		e.Detail = map[string]any{"kind": "enrolment_code", "codes": 1} // not whose: the code alone is known
		_, err := a.cfg.Store.DropCode(ctx, *l.code, e)
		return err
	case l.token != "":
		token, why, err := a.inspect(ctx, l.token)
		if err != nil || why != "" {
			return err
		}
		r = revocationOf(&token, leakReason)
	default:
		jkt := l.private.thumbprint()
		_, known := a.cfg.Store.AgentOfKey(jkt)
		signs := a.signs(ctx, jkt)
		if !known && !signs || !l.private.proves() {
			return nil
		}
		if signs {
			// A key of the issuer itself is replaced by a person, at once.
			a.cfg.Log.ErrorContext(ctx, "a signing key of this issuer was reported as leaked, and the report has its private half: rotate the keys as an emergency", "jkt", jkt)
			return nil
		}
		r = counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetKey, ID: jkt}, Reason: leakReason}
	}
	_, err := a.revoke(ctx, r, a.leakEntry(req, r))
	return err
}

// leakEntry begins the entry of a leak, which has nobody who did it but the address.
func (a *Authority) leakEntry(req *LeakRequest, r counterfoil.Revocation) *ledger.Entry {
	e := a.revokedEntry(r)
	e.RequestID, e.Source = req.RequestID, source(req.Source)
	return e
}

// signs reports whether a key is one that this issuer publishes.
func (a *Authority) signs(ctx context.Context, kid string) bool {
	return slices.ContainsFunc(append([]*Keyring{a.cfg.Keys}, a.cfg.Rings...), func(ring *Keyring) bool {
		_, err := ring.Key(ctx, kid)
		return err == nil
	})
}
