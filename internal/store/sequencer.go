package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	maxBatch      = 1024     // decisions in one commit
	maxBatchBytes = 16 << 20 // of entries, payloads and what approvals hold in one commit
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
	tidied   time.Time // when tidy last did something
	open     map[int64]struct{}
	openSeen int64 // size of the log when the list of open decisions was last written

	judgedSaved int64          // what is written of Store.judged
	results     map[string]int // of an agent, how many more are kept before the oldest are dropped
	older       bool           // there are ids of assertions that an older version remembered

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
	judged    int64 // what was written of Store.judged; zero: nothing
	purged    []deadKey
	teaches   bool // a member changes the views
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
		// Whoever wakes this goroutine hands it the processor next, before the
		// others that are about to come: on a busy machine each commit would be
		// of one or two decisions, and a commit costs more than a decision. On an
		// idle one nobody is before it in the queue, and nothing is waited for.
		runtime.Gosched()
		if work = q.take(work[:0]); len(work) > 0 {
			q.commit(work)
		}
		clear(work)
		if q.ended() {
			return
		}
	}
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
	q.store.committed(len(q.batch.members), q.batch.bytes)
	q.answerAll(q.batch.members, nil)
}

// clock reads the time for a batch. When the clock has stepped back, nothing
// is decided until it has caught up: the ids of used proofs may have been
// forgotten already, and their time would make them good again.
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
		first: q.tree.Size(), data: b.data[:0], hashes: b.hashes[:0], stored: b.stored[:0], purged: b.purged[:0],
	}
	if _, err := q.w.exec(begin); err != nil {
		// A rollback that failed may have left a transaction open.
		abort(q.w)
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

// stage runs a decision's effect and adds its entries to the batch. A refusal
// concerns this decision alone, and nothing of it stays; err concerns the
// whole transaction.
func (q *sequencer) stage(d *decision) (refusal, err error) {
	// Before the effect, of which nothing may stay where this says no.
	for _, i := range d.ends {
		if _, ok := q.open[i]; !ok {
			return fmt.Errorf("ending call %d: it is not an open call: it ended already, or never was", i), nil
		}
	}
	index := q.batch.tree.Size()
	d.index, d.time = index, q.batch.at // an effect may keep where its entry is
	if d.learn != nil {
		q.batch.teaches = true // whatever it does is not seen before the commit
	}
	if d.effect != nil {
		if refusal, err = q.attempt(d); refusal != nil || err != nil {
			return refusal, err
		}
	}
	q.batch.bytes += d.bytes
	if d.payload != nil {
		if _, err := q.w.exec(insertPayload, index, d.salt, d.payload); err != nil {
			return nil, fmt.Errorf("keeping a payload: %w", err)
		}
		q.batch.bytes += len(d.payload)
	}
	for _, i := range d.ends {
		delete(q.open, i)
		q.batch.ended = append(q.batch.ended, i)
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
		if _, ok := counterfoil.AsRefusal(refusal); !ok && !isVerdict(refusal) {
			refusal = counterfoil.NewFault(counterfoil.StoreUnavailable, refusal)
		}
	}
	if _, err := q.w.exec(release); err != nil {
		return nil, fmt.Errorf("releasing a savepoint: %w", err)
	}
	return refusal, nil
}

// isVerdict reports whether an error that is no refusal is an answer, not a fault.
func isVerdict(err error) bool {
	return errors.Is(err, ErrConflict) || errors.Is(err, errKnown) || errors.Is(err, counterfoil.ErrOvertaken) ||
		errors.Is(err, counterfoil.ErrChanged)
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
	if err := q.tidy(); err != nil {
		return err
	}
	// A crash from here on leaves either all of the batch or nothing.
	if _, err := q.w.exec(commit); err != nil {
		q.doubt = true
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// tidy forgets, once a second, the assertion ids and the dead that no assertion and no
// token can be valid with any more, however the clock stepped, and how calls ended that
// nobody repeats any more; and writes down how far sightings were judged.
func (q *sequencer) tidy() error {
	if q.latest.Sub(q.tidied) < time.Second {
		return nil
	}
	q.tidied = q.latest
	over := millis(q.latest.Add(-2 * backstep))
	if _, err := q.w.exec(purgeAssertions, over); err != nil {
		return fmt.Errorf("forgetting assertions: %w", err)
	}
	if q.older {
		var err error
		if q.older, err = anyOlder(q.w); err != nil {
			return err
		}
	}
	if _, err := q.w.exec(purgeOutcomes, millis(q.latest.Add(-outcomeKept))); err != nil {
		return fmt.Errorf("forgetting outcomes: %w", err)
	}
	err := q.w.query(purgeDead, func(r []driver.Value) error {
		q.batch.purged = append(q.batch.purged, deadKey{counterfoil.TargetKind(r[0].(string)), r[1].(string)})
		return nil
	}, over)
	if err != nil {
		return fmt.Errorf("forgetting what is dead for long: %w", err)
	}
	return q.saveJudged()
}

// anyOlder reports whether there is an id of an assertion without its agent.
func anyOlder(w writer) (any bool, err error) {
	err = w.query(olderAssertion, func([]driver.Value) error { any = true; return nil })
	if err != nil {
		return true, fmt.Errorf("reading assertions: %w", err)
	}
	return any, nil
}

// sees reports whether the views say what the tables do: nobody in the batch so far
// changes them. An effect may then go by them, as nobody else writes, and they are read
// here without the lock, as nobody else changes them.
func (q *sequencer) sees() bool { return !q.batch.teaches }

// saveJudged writes how far sightings were judged, where that is not what is
// written. What a batch that fails loses is written with the next.
func (q *sequencer) saveJudged() error {
	judged := q.store.judged.Load()
	if judged == q.judgedSaved {
		return nil
	}
	if _, err := q.w.exec(putMeta, "judged", strconv.FormatInt(judged, 10)); err != nil {
		return fmt.Errorf("writing how far the log was followed: %w", err)
	}
	q.batch.judged = judged
	return nil
}

// fail undoes a batch, in memory too, and answers everyone in it.
func (q *sequencer) fail(work []*decision, cause error) {
	abort(q.w)
	q.store.setBroken(cause)
	if q.doubt {
		// When even this cannot be read, the next batch begins with it.
		if err := q.resolve(); err != nil {
			q.store.opt.Log.Error("reading the head of the ledger", "err", err)
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
	if b.judged > 0 {
		q.judgedSaved = b.judged
	}
	s := q.store
	s.mu.Lock()
	s.tree = q.tree
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
	q.learn(s.views)
	s.mu.Unlock()
	s.feed.put(b.members, b.at)
}

// learn tells the views what was committed, and those who follow what is revoked what
// of it concerns them.
func (q *sequencer) learn(v *views) {
	b := &q.batch
	before, seq := v.changes, int64(0)
	for _, d := range b.members {
		if d.learn == nil {
			continue
		}
		changes := v.changes
		if d.learn(v); v.changes > changes {
			seq = d.index + int64(len(d.drafts)) - 1
		}
	}
	for _, d := range b.purged {
		v.forget(d)
	}
	if v.changes == before {
		q.store.steps.begin(q.tree.Size() - 1)
		return
	}
	at, _ := ledger.ParseTime(b.at) // the sequencer wrote it
	q.store.steps.add(counterfoil.RevocationStep{Seq: seq, At: at, Agents: v.changed.agents, Dead: v.changed.dead})
	v.changed = change{}
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
		abort(q.w)
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

// abort ends a transaction that is not to be. An error says that there was none
// any more, which is as well: SQLite ends some by itself.
func abort(w writer) { _, _ = w.exec(rollback) }

func readSize(w writer) (int64, error) {
	var size int64
	err := w.query(readHead, func(r []driver.Value) error {
		size = r[0].(int64)
		return nil
	})
	return size, err
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

// saveAlone is for Close: the next start then reads nothing through. When it
// fails, that start merely reads more.
func (q *sequencer) saveAlone() error {
	if q.doubt || q.openSeen == q.tree.Size() && q.judgedSaved == q.store.judged.Load() {
		return nil
	}
	if _, err := q.w.exec(begin); err != nil {
		return fmt.Errorf("writing the list of open calls: %w", err)
	}
	err := q.saveOpen(q.tree.Size())
	if err == nil {
		err = q.saveJudged()
	}
	if err == nil {
		_, err = q.w.exec(commit)
	}
	if err != nil {
		abort(q.w)
	}
	return err
}
