package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	maxBatch      = 1024     // decisions in one commit
	maxBatchBytes = 16 << 20 // of entries in one commit
	maxWaiting    = 1 << 16  // decisions in the queue; beyond it callers are refused at once

	// A segment is what one read of an entry reads.
	maxSegment      = 256
	maxSegmentBytes = 64 << 10

	// backstep is how far the clock may step back unnoticed. Ids of proofs are
	// kept 10 seconds longer than proofs are good for, so this much cannot
	// make a used one good again.
	backstep = 5 * time.Second

	// openEvery is how many entries the list of open decisions may lag behind
	// the log: what a start reads through.
	openEvery = 1 << 16
)

// none is the decision that nothing ends.
const none = -1

// A decision is what a caller hands in: an effect, or none, and its entries.
type decision struct {
	entries []*ledger.Entry
	drafts  []ledger.Draft // of entries; nil where the effect changes them
	effect  func(writer) error
	learn   func(*views) // after the commit; nil when nothing in memory changes

	salt, payload []byte // of the first entry
	opens         bool   // the first entry is a call that is now open
	ends          int64  // index of the open call that the first entry ends, or none

	// Set by the sequencer, read by the caller once it is answered.
	index int64
	time  string

	fate atomic.Int32
	done chan error
}

// Fates of a decision. The caller leaves by waiting→left or taken→lost, the
// sequencer moves by waiting→taken→answered; each step is one swap, so both
// agree on who was first.
const (
	waiting  int32 = iota
	taken          // in a batch
	left           // the caller gave up before that: nothing happens
	lost           // the caller gave up after that
	answered       //
)

// A sequencer is the only one that writes. All but the queue is used by its
// goroutine alone.
type sequencer struct {
	store *Store
	w     writer

	mu      sync.Mutex
	queue   []*decision
	closed  bool
	arrived chan struct{} // holds one token while the queue may not be empty

	tree     ledger.Tree
	last     string    // time of the last entry
	now      string    // time for the batch that begins
	latest   time.Time // the latest that the clock ever said
	purged   time.Time // when assertions were last forgotten
	open     map[int64]struct{}
	openSeen int64 // size of the log when the list of open decisions was last written

	batch batch
	doubt bool // a commit failed and it is not known yet whether it was made
}

// A batch is what one transaction holds beyond what is committed.
type batch struct {
	members   []*decision // staged: their effects ran
	tree      ledger.Tree
	at        string
	opened    []int64
	ended     []int64
	count     int64 // entries in data that are in no segment yet
	first     int64
	data      []byte
	hashes    []byte
	stored    []tlog.Hash // scratch
	bytes     int
	openSaved bool
}

var errClosed = errors.New("the store is closed")

// submit queues a decision and waits for its fate.
func (q *sequencer) submit(ctx context.Context, d *decision) error {
	if err := ctx.Err(); err != nil {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("waiting for the ledger: %w", err))
	}
	if err := q.enqueue(d); err != nil {
		return err
	}
	select {
	case err := <-d.done:
		return err
	case <-ctx.Done():
	}
	if d.fate.CompareAndSwap(waiting, left) {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("waiting for the ledger: %w", ctx.Err()))
	}
	if d.fate.CompareAndSwap(taken, lost) {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, fmt.Errorf("waiting for a commit that is under way: %w", ctx.Err()))
	}
	return <-d.done // answered in this very moment
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

// run works until the queue is closed and empty.
func (q *sequencer) run(probe <-chan time.Time) {
	work := make([]*decision, 0, maxBatch)
	for {
		select {
		case <-q.arrived:
		case <-q.store.settle:
			q.settle()
			continue
		case <-probe:
			q.probe()
			continue
		}
		var end bool
		work, end = q.take(work[:0])
		if len(work) > 0 {
			q.commit(work)
		}
		clear(work)
		if end {
			return
		}
	}
}

// take returns what waits, at most a batch, and whether nothing will ever come
// after it.
func (q *sequencer) take(work []*decision) (_ []*decision, end bool) {
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
	return work, q.closed && rest == 0
}

// commit makes one transaction of the decisions and answers each of them.
func (q *sequencer) commit(work []*decision) {
	if err := q.clock(); err != nil {
		q.answerAll(work, err)
		return
	}
	err := q.begin()
	if err == nil {
		err = q.stageAll(work)
	}
	if err == nil {
		err = q.finish()
	}
	if err != nil {
		q.fail(work, err)
		return
	}
	q.adopt()
	q.answerAll(q.batch.members, nil)
	q.store.committed(len(q.batch.members), q.batch.bytes)
}

// clock reads the time for a batch. When the clock has stepped back, nothing
// is decided until it has caught up: used ids may have been forgotten already
// (threats: time is what makes a used proof unusable).
func (q *sequencer) clock() error {
	now := q.store.opt.Now()
	if now.After(q.latest) {
		q.latest = now
	} else if q.latest.Sub(now) > backstep {
		err := fmt.Errorf("the clock says %s, it said %s before: set it right, or restart with the clock confirmed", ledger.FormatTime(now), ledger.FormatTime(q.latest))
		q.store.setBroken(err)
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, err)
	}
	q.now = ledger.FormatTime(now)
	return nil
}

func (q *sequencer) begin() error {
	if q.doubt {
		if err := q.resolve(); err != nil {
			return err
		}
	}
	b := &q.batch
	*b = batch{
		members: b.members[:0], tree: q.tree, at: max(q.last, q.now), opened: b.opened[:0], ended: b.ended[:0],
		first: q.tree.Size(), data: b.data[:0], hashes: b.hashes[:0], stored: b.stored[:0],
	}
	if _, err := q.w.exec(begin); err != nil {
		// A rollback that failed may have left a transaction open.
		q.w.exec(rollback)
		if _, again := q.w.exec(begin); again != nil {
			return fmt.Errorf("beginning a transaction: %w", err)
		}
	}
	return nil
}

// stageAll stages the decisions whose callers still wait. The error is one of
// the whole batch.
func (q *sequencer) stageAll(work []*decision) error {
	for i, d := range work {
		if !d.fate.CompareAndSwap(waiting, taken) {
			continue // its caller left
		}
		refusal, err := q.stage(d)
		if err != nil {
			return err
		}
		if refusal != nil {
			q.answer(d, refusal)
			continue
		}
		q.batch.members = append(q.batch.members, d)
		if q.batch.bytes > maxBatchBytes {
			q.requeue(work[i+1:])
			break
		}
	}
	return nil
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

// stage runs a decision's effect and adds its entries to the batch. A refusal
// concerns this decision alone, and nothing of it stays; err concerns the
// whole transaction.
func (q *sequencer) stage(d *decision) (refusal, err error) {
	if d.effect != nil {
		if refusal, err = q.attempt(d); refusal != nil || err != nil {
			return refusal, err
		}
	}
	if d.ends != none {
		if _, ok := q.open[d.ends]; !ok {
			return fmt.Errorf("ending call %d: it is not an open call: it ended already, or never was", d.ends), nil
		}
	}
	index := q.batch.tree.Size()
	if d.payload != nil {
		if _, err := q.w.exec(insertPayload, index, d.salt, d.payload); err != nil {
			return nil, fmt.Errorf("keeping a payload: %w", err)
		}
	}
	d.index, d.time = index, q.batch.at
	if d.ends != none {
		delete(q.open, d.ends)
		q.batch.ended = append(q.batch.ended, d.ends)
	}
	if d.opens {
		q.open[index] = struct{}{}
		q.batch.opened = append(q.batch.opened, index)
	}
	for _, draft := range d.drafts {
		if err := q.add(draft); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// attempt runs an effect so that nothing stays of one that refuses, or of one
// that wrote into its entry what cannot be encoded.
func (q *sequencer) attempt(d *decision) (refusal, err error) {
	if _, err := q.w.exec(savepoint); err != nil {
		return nil, fmt.Errorf("opening a savepoint: %w", err)
	}
	if refusal = d.effect(q.w); refusal == nil && d.drafts == nil {
		d.drafts, refusal = prepare(d.entries)
	}
	if refusal != nil {
		if _, err := q.w.exec(rollbackTo); err != nil {
			// SQLite rolled the whole transaction back, as it does when the
			// disk is full.
			return nil, fmt.Errorf("%w (then rolling back: %w)", refusal, err)
		}
		if _, ok := counterfoil.AsRefusal(refusal); !ok && !errors.Is(refusal, ErrConflict) && !errors.Is(refusal, errKnown) {
			refusal = counterfoil.NewFault(counterfoil.StoreUnavailable, refusal)
		}
	}
	if _, err := q.w.exec(release); err != nil {
		return nil, fmt.Errorf("releasing a savepoint: %w", err)
	}
	return refusal, nil
}

// add gives an entry its place in the batch.
func (q *sequencer) add(draft ledger.Draft) error {
	b := &q.batch
	start := len(b.data)
	b.data = draft.AppendTo(b.data, b.tree.Size(), b.at)
	b.stored = b.tree.Append(tlog.RecordHash(b.data[start:]), b.stored[:0])
	for i := range b.stored {
		b.hashes = append(b.hashes, b.stored[i][:]...)
	}
	b.data = append(b.data, '\n')
	b.bytes += len(b.data) - start
	b.count++
	if b.count == maxSegment || len(b.data) >= maxSegmentBytes {
		return q.writeSegment()
	}
	return nil
}

func (q *sequencer) writeSegment() error {
	b := &q.batch
	if b.count == 0 {
		return nil
	}
	if _, err := q.w.exec(insertSegment, b.first, b.count, b.hashes, b.data); err != nil {
		return fmt.Errorf("writing entries: %w", err)
	}
	b.first += b.count
	b.count, b.data, b.hashes = 0, b.data[:0], b.hashes[:0]
	return nil
}

// finish writes what is left and commits.
func (q *sequencer) finish() error {
	if err := q.writeSegment(); err != nil {
		return err
	}
	if q.batch.tree.Size() == q.tree.Size() {
		_, err := q.w.exec(rollback) // every decision was refused
		return err
	}
	if q.batch.tree.Size()-q.openSeen >= openEvery {
		if err := q.saveOpen(q.batch.tree.Size()); err != nil {
			return err
		}
		q.batch.openSaved = true
	}
	if err := q.purge(); err != nil {
		return err
	}
	// A crash from here on leaves either all of the batch or nothing.
	if _, err := q.w.exec(commit); err != nil {
		q.doubt = true
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// purge forgets, once a second, the assertion ids that no assertion can be
// valid with any more, however the clock stepped.
func (q *sequencer) purge() error {
	if q.latest.Sub(q.purged) < time.Second {
		return nil
	}
	q.purged = q.latest
	if _, err := q.w.exec(purgeAssertions, millis(q.latest.Add(-2*backstep))); err != nil {
		return fmt.Errorf("forgetting assertions: %w", err)
	}
	return nil
}

// fail undoes a batch, in memory too, and answers everyone in it.
func (q *sequencer) fail(work []*decision, cause error) {
	q.w.exec(rollback) // an error says that there was nothing to roll back
	q.store.setBroken(cause)
	if q.doubt {
		// When even this cannot be read, the next batch begins with it.
		if err := q.resolve(); err != nil {
			q.store.opt.Log.Error("reading the head of the ledger", "error", err)
		}
	} else {
		q.undo()
	}
	fault := counterfoil.NewFault(counterfoil.LedgerUnavailable, cause)
	for _, d := range work {
		if d.fate.CompareAndSwap(waiting, taken) || d.fate.Load() == taken {
			q.answer(d, fault)
		}
	}
}

// undo forgets the open calls of a batch that was not made.
func (q *sequencer) undo() {
	for _, i := range q.batch.opened {
		delete(q.open, i)
	}
	for _, i := range q.batch.ended {
		if i < q.tree.Size() {
			q.open[i] = struct{}{}
		}
	}
}

// resolve finds out whether the commit that failed was made, and brings memory
// in line with the database: one of the two heads must be there.
func (q *sequencer) resolve() error {
	size, err := readSize(q.w)
	if err != nil {
		return fmt.Errorf("reading the head of the ledger: %w", err)
	}
	switch size {
	case q.tree.Size():
		q.undo()
	case q.batch.tree.Size():
		// It was made, but everyone in it was, or will be, told that it was
		// not: its allowed calls never run.
		q.adopt()
		for _, i := range q.batch.opened {
			if _, still := q.open[i]; still {
				q.store.abandon(i, "the commit's outcome was not known in time")
			}
		}
	default:
		return fmt.Errorf("the ledger has %d entries, %d or %d were expected", size, q.tree.Size(), q.batch.tree.Size())
	}
	q.doubt = false
	return nil
}

// adopt makes what was committed visible.
func (q *sequencer) adopt() {
	b := &q.batch
	q.tree, q.last = b.tree, b.at
	if b.openSaved {
		q.openSeen = b.tree.Size()
	}
	s := q.store
	s.mu.Lock()
	s.tree, s.last = q.tree, q.last
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
	for _, d := range b.members {
		if d.learn != nil {
			d.learn(s.views)
		}
	}
	s.mu.Unlock()
}

func (q *sequencer) answerAll(work []*decision, err error) {
	for _, d := range work {
		d.fate.CompareAndSwap(waiting, taken) // where the batch never began
		q.answer(d, err)
	}
}

// answer tells the caller of a decision that was taken. A caller who has gone
// was told no: a call that was allowed to it has ended.
func (q *sequencer) answer(d *decision, err error) {
	if d.fate.CompareAndSwap(taken, answered) {
		d.done <- err
		return
	}
	if err == nil && d.opens && d.fate.Load() == lost {
		q.store.abandon(d.index, "its caller was gone when it was recorded")
	}
}

// probe finds out whether a store that failed takes writes again. It fills more
// room than a batch usually needs, in a transaction of its own, and frees it.
func (q *sequencer) probe() {
	if q.store.Ready() == nil {
		return
	}
	if err := q.clock(); err != nil {
		return
	}
	if err := q.tryWrite(); err != nil {
		q.w.exec(rollback)
		q.store.setBroken(err)
		return
	}
	q.store.setBroken(nil)
}

func (q *sequencer) tryWrite() error {
	if err := q.begin(); err != nil {
		return err
	}
	for _, s := range []statement{fillProbe, commit, begin, freeProbe, commit} {
		if _, err := q.w.exec(s); err != nil {
			return fmt.Errorf("probing the database: %w", err)
		}
	}
	return nil
}

func readSize(w writer) (int64, error) {
	var size int64
	err := w.query(readHead, func(r []driver.Value) error {
		size = r[0].(int64)
		return nil
	})
	return size, err
}

// close lets no more decisions in; what waits is still done.
func (q *sequencer) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}

// saveOpen writes the list of open calls as of a size of the log.
func (q *sequencer) saveOpen(size int64) error {
	b, err := json.Marshal(savedOpen{Size: size, Open: sortedOpen(q.open)})
	if err != nil {
		return err
	}
	if _, err := q.w.exec(putMeta, "open", string(b)); err != nil {
		return fmt.Errorf("writing the list of open calls: %w", err)
	}
	return nil
}

// saveOpenAlone is for Close: the next start then reads nothing through. When
// it fails, that start merely reads more.
func (q *sequencer) saveOpenAlone() error {
	if q.doubt || q.openSeen == q.tree.Size() {
		return nil
	}
	if _, err := q.w.exec(begin); err != nil {
		return fmt.Errorf("writing the list of open calls: %w", err)
	}
	err := q.saveOpen(q.tree.Size())
	if err == nil {
		_, err = q.w.exec(commit)
	}
	if err != nil {
		q.w.exec(rollback)
	}
	return err
}

// settle brings home what the checkpointer could not, because the log grew
// under it. It is little, and then the WAL begins anew instead of growing.
func (q *sequencer) settle() {
	if err := q.w.query(checkpointWAL, func([]driver.Value) error { return nil }); err != nil {
		q.store.opt.Log.Warn("bringing the WAL home", "error", err)
	}
}

// walTarget is how many bytes of entries make the checkpointer work.
const walTarget = 4 << 20

// bringHome copies the WAL into the database, on a connection of its own, so
// that no commit waits for it.
func (s *Store) bringHome(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.filled:
		}
		s.walSize.Store(0)
		var busy, frames, home int64
		err := s.reads.QueryRowContext(ctx, sqliteTexts[checkpointWAL]).Scan(&busy, &frames, &home)
		if err != nil {
			if ctx.Err() == nil {
				s.opt.Log.Warn("bringing the WAL home", "error", err)
			}
			continue
		}
		if home < frames {
			signal(s.settle)
		}
	}
}
