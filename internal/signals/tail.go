package signals

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A tail holds the newest ledger entries that tell receivers something. What is older
// is read from the log for who needs it.
type tail struct {
	mu      sync.Mutex
	first   int64 // every entry from first to before next is looked at
	next    int64
	entries []*ledger.Entry
	more    chan struct{} // closed when there is another of entries; nil while nobody waits
}

func (t *tail) begin(at int64) { t.first, t.next = at, at }

// begins returns the first index that the tail has; end the one after the last.
func (t *tail) begins() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.first
}

func (t *tail) end() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// grown returns a channel that is closed once there is another entry that tells
// something.
func (t *tail) grown() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.more == nil {
		t.more = make(chan struct{})
	}
	return t.more
}

// add takes in what an interval of the log tells.
func (t *tail) add(next int64, some []*ledger.Entry, most int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if next <= t.next {
		return
	}
	// Two may have read one interval; it is added once.
	for _, e := range some {
		if e.Index >= t.next {
			t.entries = append(t.entries, e)
		}
	}
	news := len(some) > 0 && some[len(some)-1].Index >= t.next
	t.next = next
	if over := len(t.entries) - most; over > 0 {
		t.first = t.entries[over-1].Index + 1
		t.entries = slices.Clone(t.entries[over:])
	}
	if news && t.more != nil {
		close(t.more)
		t.more = nil
	}
}

// from returns the entries from an index on, where the tail begins, and where it ends.
func (t *tail) from(index int64) (some []*ledger.Entry, first, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, _ := slices.BinarySearchFunc(t.entries, index, func(e *ledger.Entry, index int64) int { return int(e.Index - index) })
	return slices.Clone(t.entries[i:]), t.first, t.next
}

// follow takes in what the log has more than the tail.
func (e *Engine) follow(ctx context.Context) error {
	from, to := e.tail.end(), e.cfg.Log.Size()
	some, next, err := e.read(ctx, from, to, e.most.tail)
	if err == nil && next > from {
		e.tail.add(next, some, e.most.tail)
	}
	return err
}

// read returns the entries of an interval that tell something, at most so many, and
// where it stopped.
func (e *Engine) read(ctx context.Context, from, to int64, most int) (some []*ledger.Entry, next int64, err error) {
	next = from
	err = e.cfg.Log.Entries(ctx, from, to, func(index int64, raw []byte) error {
		if len(some) == most {
			return errFull
		}
		if telling(raw) {
			entry, err := ledger.Parse(raw)
			if err != nil {
				return err
			}
			some = append(some, entry)
		}
		next = index + 1
		return nil
	})
	if errors.Is(err, errFull) {
		err = nil
	}
	return some, next, err
}

var errFull = errors.New("there is no room for more")

var kindNeedle = []byte(`"kind":"`)

// telling reports whether an entry may be of a kind that tells receivers something,
// without reading it: nearly all are not. Members are in the order of their names, so
// that the last kind is the entry's own and not one of its detail.
func telling(raw []byte) bool {
	i := bytes.LastIndex(raw, kindNeedle)
	if i < 0 {
		return false
	}
	rest := raw[i+len(kindNeedle):]
	end := bytes.IndexByte(rest, '"')
	return end > 0 && tells[ledger.Kind(rest[:end])]
}

// A backlog is what a stream's receiver has not got of before the tail. Guarded by its
// own mutex.
type backlog struct {
	mu      sync.Mutex
	scanned int64 // every entry before it was looked at
	entries []*ledger.Entry
}

// waiting calls fn with the events that the stream's receiver has not got, in their
// order, until it returns false. It returns the index of an entry such that the
// receiver has, of it and all before it, everything that fn was not shown.
func (e *Engine) waiting(ctx context.Context, s *counterfoil.SignalStream, fn func(p placed) bool) (clear int64, err error) {
	e.mu.Lock()
	b := e.backlogs[s.ID]
	if b == nil {
		b = &backlog{}
		e.backlogs[s.ID] = b
	}
	e.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()

	start := max(s.Cursor+1, s.From)
	b.scanned = max(b.scanned, start)
	for {
		b.entries = slices.DeleteFunc(b.entries, func(entry *ledger.Entry) bool { return entry.Index < start || !e.lacks(s, entry) })
		first := e.tail.begins()
		if b.scanned >= first || len(b.entries) >= e.most.backlog {
			break
		}
		some, next, err := e.read(ctx, b.scanned, first, e.most.backlog-len(b.entries))
		if err != nil {
			return 0, err
		}
		if next == b.scanned {
			return 0, fmt.Errorf("reading the ledger from entry %d: it is shorter than it was", next)
		}
		b.entries, b.scanned = append(b.entries, some...), next
	}
	recent, first, next := e.tail.from(b.scanned)
	if b.scanned < first {
		recent, next = nil, b.scanned
	}
	clear = next - 1
	for _, entry := range slices.Concat(b.entries, recent) {
		at, err := entry.When()
		if err != nil {
			return 0, err
		}
		for place, ev := range e.lacking(s, entry) {
			clear = min(clear, entry.Index-1)
			if !fn(placedAt(s.ID, place, ev, at)) {
				return clear, nil
			}
		}
	}
	return clear, nil
}

// lacking yields the events of an entry that the stream is told and its receiver has
// not got, by their places.
func (e *Engine) lacking(s *counterfoil.SignalStream, entry *ledger.Entry) iter.Seq2[int64, event] {
	return func(yield func(int64, event) bool) {
		for n, ev := range e.eventsOf(entry) {
			place := entry.Index*counterfoil.MaxEventsOfEntry + int64(n)
			if _, acked := slices.BinarySearch(s.Acked, place); acked || n >= counterfoil.MaxEventsOfEntry || !e.wants(s, ev) {
				continue
			}
			if !yield(place, ev) {
				return
			}
		}
	}
}

func (e *Engine) lacks(s *counterfoil.SignalStream, entry *ledger.Entry) bool {
	for range e.lacking(s, entry) {
		return true
	}
	return false
}
