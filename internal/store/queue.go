package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A decision is what a caller hands in: an effect, or none, and its entries.
type decision struct {
	entries []*ledger.Entry
	drafts  []ledger.Draft // of entries; nil where the effect changes them
	effect  func(writer) error
	learn   func(*views) // after the commit; nil when nothing in memory changes

	bytes         int     // that the effect writes, where they may be many
	salt, payload []byte  // of the first entry
	opens         bool    // the first entry is a call that is now open
	ends          []int64 // indexes of the open calls that the entries end

	// sighting is what the entry says of a key, taken from it by the caller: the
	// entry is the caller's again when it gives up. Zero: nothing.
	sighting counterfoil.Sighting

	// Set by the sequencer before the effect, read by the effect, and by the caller
	// once it is answered.
	index int64
	time  string

	fate atomic.Int32
	done chan error // has room for the answer, so that answering never waits

	// Room for what most decisions have one of.
	one      [1]*ledger.Entry
	oneDraft [1]ledger.Draft
	oneEnd   [1]int64
}

// dones holds channels whose one answer was received.
var dones = sync.Pool{New: func() any { return make(chan error, 1) }}

// Fates of a decision. The caller leaves by waiting→left or taken→lost, the
// sequencer moves by waiting→taken→answered; each step is one swap, so both
// agree on who was first.
const (
	waiting int32 = iota
	taken         // in a batch
	left          // the caller gave up before that: nothing happens
	lost          // the caller gave up after that
	answered
)

var errClosed = errors.New("the store is closed")

// submit queues a decision and waits for its fate.
func (q *sequencer) submit(ctx context.Context, d *decision) error {
	if err := ctx.Err(); err != nil {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("waiting for the ledger: %w", err))
	}
	done := dones.Get().(chan error)
	d.done = done
	if err := q.enqueue(d); err != nil {
		return err
	}
	select {
	case err := <-done:
		dones.Put(done)
		return err
	case <-ctx.Done():
	}
	if d.fate.CompareAndSwap(waiting, left) {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("waiting for the ledger: %w", ctx.Err()))
	}
	if d.fate.CompareAndSwap(taken, lost) {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("waiting for a commit that is under way: %w", ctx.Err()))
	}
	return <-done // answered in this very moment
}

func (q *sequencer) enqueue(d *decision) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, errClosed)
	}
	if len(q.queue) >= maxWaiting {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("%d decisions wait for the ledger already", len(q.queue)))
	}
	q.queue = append(q.queue, d)
	q.wake()
	return nil
}

// wake is called with the lock held.
func (q *sequencer) wake() {
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// take returns what waits, at most a batch.
func (q *sequencer) take(work []*decision) []*decision {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.queue), maxBatch)
	work = append(work, q.queue[:n]...)
	rest := copy(q.queue, q.queue[n:])
	clear(q.queue[rest:])
	q.queue = q.queue[:rest]
	if rest > 0 {
		q.wake()
	}
	return work
}

// ended reports whether nothing waits and nothing will.
func (q *sequencer) ended() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && len(q.queue) == 0
}

// requeue puts decisions back to the front of the queue.
func (q *sequencer) requeue(rest []*decision) {
	if len(rest) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(append(make([]*decision, 0, len(rest)+len(q.queue)), rest...), q.queue...)
	q.wake()
}

// close lets no more decisions in; what waits is still done.
func (q *sequencer) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}
