package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Suspect commits a suspicion and, where it says so, with it that the instance is
// quarantined and that the open approvals that it asked for are revoked. It reports false, and nothing is recorded, when the instance ended,
// is quarantined, or was suspected since: the same sightings are one suspicion,
// however often they are read.
func (s *Store) Suspect(ctx context.Context, p counterfoil.Suspicion, e *ledger.Entry) (bool, error) {
	if i, ok := s.Instance(p.Instance); !ok || !isNews(i, p) {
		return false, nil // and the statements below decide, where it does not know yet
	}
	now := fromMillis(millis(later(s.opt.Now(), p.Second.At)))
	l := &losses{}
	// An agent that is in two places all day is not a thief of its own key: what
	// somebody else does with it has an hour of its own.
	shown := p.Second.Foreign && !p.Quarantine
	err := s.amended(ctx, []*ledger.Entry{e},
		func(v *views) {
			i := v.instances[p.Instance]
			if shown {
				i.Shown = later(i.Shown, now)
			} else {
				i.Suspected = later(i.Suspected, now)
			}
			if p.Quarantine {
				i.Status = counterfoil.Quarantined
			}
			v.instances[p.Instance] = i
			l.learn(v)
		},
		func(w writer, d *decision) error {
			var n int64
			var err error
			if shown {
				n, err = w.exec(showKey, p.Instance, p.Agent, millis(now), millis(p.Since))
			} else {
				n, err = w.exec(suspectInstance, p.Instance, p.Agent, millis(now), millis(p.Since), p.Quarantine, p.Second.Foreign)
			}
			if err != nil {
				return fmt.Errorf("suspecting instance %q: %w", p.Instance, err)
			}
			if n != 1 {
				return errKnown
			}
			if !p.Quarantine {
				return nil
			}
			// Once it is released it gets tokens again, and those of before are void by
			// the agent's mark.
			if err := l.bury(w, counterfoil.TargetInstance, p.Instance, now, now); err != nil {
				return err
			}
			if err := l.revokeOpen(w, now, "the instance that asked for it is quarantined", openOfInstance, p.Agent, p.Instance); err != nil {
				return err
			}
			d.tell(0, l)
			return nil
		})
	if errors.Is(err, errKnown) {
		return false, nil
	}
	return err == nil, err
}

// isNews reports whether a suspicion is, as far as is known.
func isNews(i counterfoil.Instance, p counterfoil.Suspicion) bool {
	since := fromMillis(millis(p.Since))
	switch {
	case i.Status != counterfoil.Active:
		return false
	case !p.Second.Foreign:
		return i.Suspected.Before(since)
	case p.Quarantine:
		return i.Suspected.Before(since) && i.Shown.Before(since)
	}
	return i.Shown.Before(since)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
