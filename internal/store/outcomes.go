package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// What is kept of a call with an Idempotency-Key.
const (
	outcomeKept = 24 * time.Hour
	maxOutcome  = 256 << 10 // bytes of a result; of a larger one nothing is kept

	// maxOutcomes is of how many calls of one agent results are kept; of older ones it is
	// only known that they ended. So many are dropped at a time, so that not every call
	// has to count.
	maxOutcomes  = 4096
	dropOutcomes = 64
)

// DecideUsing is Decide for a call that uses up more than its proof. An allowed call is
// counted against its task and every task above it in the same transaction; it is
// refused (task_closed, limit_exceeded), and counts nothing, where one of them does not
// leave it. The first call with a key is made; of any other that says the same call, a
// *counterfoil.Earlier is returned, and nothing is recorded, and what says another call
// is refused (idempotency_mismatch). A refused call uses up nothing.
func (s *Store) DecideUsing(ctx context.Context, use counterfoil.CallUse, e *ledger.Entry, payload []byte) error {
	if use.Task == "" && use.Key == "" || e.Decision != ledger.Allow {
		return s.Decide(ctx, e, payload)
	}
	if e.Kind != ledger.CallDecided {
		return fmt.Errorf("deciding a call with a %s entry", e.Kind)
	}
	// A call that an enforcement point asks about is recorded as the point's.
	if use.Agent == "" || use.Agent != e.Agent && use.Agent != e.OnBehalfOf || use.Key != "" && use.Digest == "" {
		return errors.New("deciding a call: it is not its agent's, or a key does not say which call it is for")
	}
	t, err := s.chain(use.Task, use.Agent)
	if err != nil {
		return err
	}
	var earlier *counterfoil.Earlier // whoever gave up does not look at it while the effect sets it
	d := &decision{opens: true}
	d.effect = func(w writer) error {
		now := s.opt.Now()
		var err error
		if use.Key != "" {
			if earlier, err = useKey(w, &use, d.index, now); err != nil {
				return err
			}
		}
		if earlier != nil {
			// As with a pin: that call may be of this very batch, so the answer
			// waits until it is committed.
			d.entries, d.drafts, d.payload, d.opens = nil, []ledger.Draft{}, nil, false
			return nil
		}
		return count(w, t, &use, now)
	}
	s.commitTo(d, e, payload)
	if err := s.record(ctx, e, d); err != nil {
		return err
	}
	if earlier != nil {
		return earlier
	}
	return nil
}

// useKey gives a key to a call, or returns the call that has it.
func useKey(w writer, use *counterfoil.CallUse, index int64, now time.Time) (*counterfoil.Earlier, error) {
	var earlier *counterfoil.Earlier
	digest := ""
	err := w.query(outcomeOf, func(r []driver.Value) error {
		digest = r[1].(string)
		earlier = &counterfoil.Earlier{Entry: r[0].(int64), Done: r[2].(int64) == 1, Result: bytesOf(r[3])}
		return nil
	}, use.Agent, use.Task, use.Key, millis(now.Add(-outcomeKept)))
	if err != nil {
		return nil, fmt.Errorf("reading the use of a key: %w", err)
	}
	if earlier != nil {
		if digest != use.Digest {
			return nil, keyOfAnother(use.Key)
		}
		return earlier, nil
	}
	// A call that needed a person has its key with its approval.
	err = w.query(keyUses, func(r []driver.Value) error {
		if other := r[1].(string); other != use.Digest && other != "" {
			digest = other
		}
		return nil
	}, use.Agent, use.Task, use.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the uses of a key: %w", err)
	}
	if digest != "" {
		return nil, keyOfAnother(use.Key)
	}
	if _, err := w.exec(putOutcome, index, use.Agent, use.Task, use.Key, use.Digest, millis(now)); err != nil {
		return nil, fmt.Errorf("keeping the use of a key: %w", err)
	}
	return nil, nil
}

func keyOfAnother(key string) error {
	return counterfoil.Refuse(counterfoil.IdempotencyMismatch, "the Idempotency-Key %q was used with another call", key)
}

// FinishUsing is Finish, and keeps the result for whoever repeats the call with its key,
// unless nobody knows how it ended. Of a call that was never sent the key is forgotten:
// the repeat is made.
func (s *Store) FinishUsing(ctx context.Context, use counterfoil.CallUse, result []byte, e *ledger.Entry) error {
	if use.Key == "" || e.Outcome == ledger.OutcomeUnknown {
		return s.Finish(ctx, e)
	}
	if len(result) > maxOutcome {
		result = nil
	}
	of := e.Of
	d := &decision{bytes: len(result), effect: func(w writer) error {
		if use.Unsent {
			if _, err := w.exec(dropOutcome, of); err != nil {
				return fmt.Errorf("forgetting the use of a key: %w", err)
			}
			return nil
		}
		if _, err := w.exec(endOutcome, of, blobOf(result)); err != nil {
			return fmt.Errorf("keeping a result: %w", err)
		}
		if result == nil {
			return nil
		}
		return s.seq.trimOutcomes(w, use.Agent)
	}}
	return s.finish(ctx, e, d)
}

// trimOutcomes drops the oldest results of an agent that has too many. It looks at the
// first result after the start, and then whenever there may be too many.
func (q *sequencer) trimOutcomes(w writer, agent string) error {
	if left, known := q.results[agent]; known && left > 0 {
		q.results[agent] = left - 1
		return nil
	}
	if _, err := w.exec(trimOutcomes, agent, int64(maxOutcomes-dropOutcomes)); err != nil {
		return fmt.Errorf("dropping old results: %w", err)
	}
	if q.results == nil {
		q.results = map[string]int{}
	}
	q.results[agent] = dropOutcomes - 1
	return nil
}
