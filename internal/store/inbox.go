package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/ledger"
)

// SignalSeen reports whether ReceiveSignal was done with that id. It decides nothing:
// ReceiveSignal does.
func (s *Store) SignalSeen(ctx context.Context, transmitter, id string) (seen bool, err error) {
	err = s.readRows(ctx, sqliteTexts[findSignal], func([]driver.Value) error {
		seen = true
		return nil
	}, transmitter, id)
	return seen, err
}

// ReceiveSignal commits e, a signal.received, and that the transmitter's signal of that
// id was received, which is remembered until then. Of any number of calls with one id
// exactly one is news; the others record nothing.
func (s *Store) ReceiveSignal(ctx context.Context, transmitter, id string, until time.Time, e *ledger.Entry) (news bool, err error) {
	if transmitter == "" || id == "" || until.IsZero() {
		return false, errors.New("receiving a signal: its transmitter, its id or how long it is remembered is missing")
	}
	now := s.opt.Now()
	err = s.record(ctx, e, &decision{effect: func(w writer) error {
		if _, err := w.exec(purgeSignals, millis(now)); err != nil {
			return fmt.Errorf("forgetting old signals: %w", err)
		}
		n, err := w.exec(insertSignal, transmitter, id, millis(until))
		if err != nil {
			return fmt.Errorf("keeping a signal's id: %w", err)
		}
		if n != 1 {
			return errKnown
		}
		return nil
	}})
	if errors.Is(err, errKnown) {
		return false, nil
	}
	return err == nil, err
}
