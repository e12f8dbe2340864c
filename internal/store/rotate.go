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
// then; an older one that was still taken is dead. Approvals and tasks stay. It is
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
	return s.record(ctx, e, &decision{
		effect: func(w writer) error {
			now := s.opt.Now()
			overlaps = r.OldUntil.After(now)
			return l.rotate(w, &r, live, overlaps, now)
		},
		learn: func(v *views) {
			i := v.instances[r.Instance]
			i.Old = nil
			delete(v.rotated, r.Instance)
			if overlaps {
				i.Old = &counterfoil.OldKey{JKT: i.JKT, JWK: i.JWK, Alg: i.Alg, Until: r.OldUntil}
				k := v.keys[i.JKT]
				k.until = r.OldUntil
				v.keys[i.JKT] = k
				v.rotated[r.Instance] = struct{}{}
			}
			i.JKT, i.JWK, i.Alg = r.JKT, r.JWK, r.Alg
			v.instances[r.Instance] = i
			v.keys[r.JKT] = keyView{agent: r.Agent, instance: r.Instance, registered: true, live: true}
			l.learn(v)
		},
	})
}

func (l *losses) rotate(w writer, r *counterfoil.Rotation, live counterfoil.Live, overlaps bool, now time.Time) error {
	if err := wantLive(w, live); err != nil {
		return err
	}
	i, err := instanceKeysOf(w, r.Instance)
	if err != nil {
		return err
	}
	if i.jkt != r.Old {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the key is not the present one of instance %q", r.Instance)
	}
	if i.how == counterfoil.EnrolledByManifest {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the key of instance %q is in a manifest: it is replaced there", r.Instance)
	}
	n, err := w.exec(insertKey, r.JKT, r.Agent, r.Instance, int64(1))
	if err != nil {
		return fmt.Errorf("keeping a key: %w", err)
	}
	if n != 1 {
		return counterfoil.Refuse(counterfoil.KeyInUse, "the key %s is, or once was, in use; make a new one", r.JKT)
	}
	if i.oldJKT != "" {
		if err := l.endKey(w, i.oldJKT, now); err != nil {
			return err
		}
	}
	until := int64(0)
	if overlaps {
		until = millis(r.OldUntil)
	} else if err := l.endKey(w, r.Old, now); err != nil {
		return err
	}
	n, err = w.exec(rotateInstance, r.Instance, r.Old, r.JKT, r.JWK, r.Alg, until)
	if err != nil {
		return fmt.Errorf("keeping the key of instance %q: %w", r.Instance, err)
	}
	if n != 1 {
		return fmt.Errorf("keeping the key of instance %q: it has another", r.Instance)
	}
	return nil
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
