package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// losses are what a change took beside what it was about. The change's entry lists it,
// so that the log says it without the tables.
type losses struct {
	approvals []string // ids of those that were open and are revoked
	passkeys  []string // credential ids of those that were active and ended, base64url
}

// revokeOpen revokes the open approvals that a statement lists, and returns their
// ids. It runs in the transaction of what takes away their ground, so that nobody
// signs or spends one in between.
func revokeOpen(w writer, now time.Time, why string, st statement, args ...driver.Value) ([]string, error) {
	type open struct {
		id    string
		state counterfoil.ApprovalState
	}
	var found []open
	err := w.query(st, func(r []driver.Value) error {
		found = append(found, open{r[0].(string), counterfoil.ApprovalState(r[1].(string))})
		return nil
	}, args...)
	if err != nil {
		return nil, fmt.Errorf("reading open approvals: %w", err)
	}
	var ids []string
	for _, o := range found {
		if err := move(w, o.id, o.state, counterfoil.StateRevoked, why, now); err != nil {
			return nil, err
		}
		ids = append(ids, o.id)
	}
	return ids, nil
}

// tell writes into an entry of the decision what was lost. The entry is a copy: see
// amended.
func (d *decision) tell(i int, l losses) {
	if len(l.approvals)+len(l.passkeys) == 0 {
		return
	}
	e := d.entries[i]
	detail := map[string]any{}
	maps.Copy(detail, e.Detail)
	if len(l.approvals) > 0 {
		detail["approvals"] = l.approvals
	}
	if len(l.passkeys) > 0 {
		detail["passkeys"] = l.passkeys
	}
	e.Detail, d.drafts = detail, nil // encoded again once the effect is done
}

// amended commits entries that the effect may add to. The effect has copies of them,
// because a caller who gives up has its own back at that moment.
func (s *Store) amended(ctx context.Context, entries []*ledger.Entry, learn func(*views), effect func(writer, *decision) error) error {
	drafts, err := prepare(entries)
	if err != nil {
		return err
	}
	d := &decision{drafts: drafts, learn: learn, sighting: sightingOf(entries[len(entries)-1])}
	for _, e := range entries {
		c := *e
		d.entries = append(d.entries, &c)
	}
	d.effect = func(w writer) error { return effect(w, d) }
	if err := s.commit(ctx, d); err != nil {
		return err
	}
	for i, e := range entries {
		*e = *d.entries[i]
	}
	return nil
}
