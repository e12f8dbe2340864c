package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Rotate commits with e, a key.rotated, that an instance has another key of its own.
// The one of before is dead at once or, where OldUntil is later than now, taken until
// then; an older one that was still taken is dead. Keys that the instance bound before
// end with the one that it had then. Approvals and tasks stay: see PresentKey. It is
// refused, as a whole, where the instance is not live or Old is not its own key any
// more (token_revoked, agent_suspended), where anybody ever had the new key
// (key_in_use), and where a manifest lists the instance's key (request_malformed).
func (s *Store) Rotate(ctx context.Context, r counterfoil.Rotation, live counterfoil.Live, e *ledger.Entry) error {
	if r.Agent == "" || r.Agent != live.Agent || r.Instance != live.Instance || r.Old == "" || r.JKT == "" || r.JWK == "" || r.Alg == "" {
		return errors.New("rotating a key: a thumbprint, the key or its algorithm is missing, or the instance is not the one that is live")
	}
	if e.Kind != ledger.KeyRotated {
		return fmt.Errorf("rotating a key with a %s entry", e.Kind)
	}
	r.OldUntil = fromMillis(millis(r.OldUntil))
	l, overlaps := &losses{}, false
	var aged []string // keys that end with the one that is rotated from
	return s.record(ctx, e, &decision{
		effect: func(w writer) error {
			now := s.opt.Now()
			overlaps = r.OldUntil.After(now)
			var err error
			aged, err = l.rotate(w, &r, live, overlaps, now)
			return err
		},
		learn: func(v *views) {
			i := v.instances[r.Instance]
			i.Old = nil
			delete(v.rotated, r.Instance)
			if overlaps {
				i.Old = &counterfoil.OldKey{JKT: i.JKT, JWK: i.JWK, Alg: i.Alg, Until: r.OldUntil}
				v.rotated[r.Instance] = struct{}{}
			}
			for _, jkt := range aged {
				k := v.keys[jkt]
				k.until = r.OldUntil
				v.keys[jkt] = k
			}
			i.JKT, i.JWK, i.Alg = r.JKT, r.JWK, r.Alg
			v.instances[r.Instance] = i
			v.keys[r.JKT] = keyView{agent: r.Agent, instance: r.Instance, registered: true, live: true}
			l.learn(v)
		},
	})
}

// rotate returns the keys that are taken until the rotation's time is over.
func (l *losses) rotate(w writer, r *counterfoil.Rotation, live counterfoil.Live, overlaps bool, now time.Time) (aged []string, err error) {
	if err := wantLive(w, live); err != nil {
		return nil, err
	}
	i, err := instanceKeysOf(w, r.Instance)
	if err != nil {
		return nil, err
	}
	if i.jkt != r.Old {
		return nil, counterfoil.Refuse(counterfoil.TokenRevoked, "the key is not the present one of instance %q", r.Instance)
	}
	if i.how == counterfoil.EnrolledByManifest {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the key of instance %q is in a manifest: it is replaced there", r.Instance)
	}
	if err := l.endAgedKeys(w, r.Instance, now); err != nil { // an older one, and what was bound beside it
		return nil, err
	}
	until := millis(r.OldUntil)
	if !overlaps {
		until = millis(now)
	}
	if _, err := w.exec(ageKeys, r.Instance, until); err != nil {
		return nil, fmt.Errorf("ending the keys of instance %q: %w", r.Instance, err)
	}
	if overlaps {
		if aged, err = texts(w, agedKeys, r.Instance); err != nil {
			return nil, err
		}
	} else {
		until = 0
		if err := l.endAgedKeys(w, r.Instance, now); err != nil {
			return nil, err
		}
	}
	n, err := w.exec(insertKey, r.JKT, r.Agent, r.Instance, int64(1))
	if err != nil {
		return nil, fmt.Errorf("keeping a key: %w", err)
	}
	if n != 1 {
		return nil, counterfoil.Refuse(counterfoil.KeyInUse, "the key %s is, or once was, in use; make a new one", r.JKT)
	}
	n, err = w.exec(rotateInstance, r.Instance, r.Old, r.JKT, r.JWK, r.Alg, until)
	if err != nil {
		return nil, fmt.Errorf("keeping the key of instance %q: %w", r.Instance, err)
	}
	if n != 1 {
		return nil, fmt.Errorf("keeping the key of instance %q: it has another", r.Instance)
	}
	return aged, nil
}

// PresentKey returns the key that counts for one that waits since it was proved by jkt:
// the present key of the instance, where jkt was its own and was rotated away, and jkt
// otherwise. A key that was revoked stays what it is.
func (s *Store) PresentKey(instance, jkt string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.views.keys[jkt]
	if !ok || k.instance != instance || !k.registered || k.revoked {
		return jkt
	}
	return s.views.instances[instance].JKT
}

// DueKeys returns the thumbprints of the keys that were replaced, whose time beside the
// new ones is over, and of which no entry says so yet. They are refused all the same;
// who is told of what is revoked hears of them by Revoke.
func (s *Store) DueKeys(now time.Time) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var due []string
	for id := range s.views.rotated {
		if i := s.views.instances[id]; i.Old != nil && !now.Before(i.Old.Until) {
			due = append(due, i.Old.JKT)
		}
	}
	slices.Sort(due)
	return due
}
