package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// ErrConflict says that the registry, or the keyring, is not any more what a
// change was computed from: compute it again.
var ErrConflict = errors.New("what the change was computed from was changed meanwhile")

// Options are what a store is opened with. Now, Origin, Signer and Verifier
// are required.
type Options struct {
	Now func() time.Time

	// Origin names the log, Signer and Verifier are its key. A log keeps its
	// origin and its key.
	Origin   string
	Signer   note.Signer
	Verifier note.Verifier

	// Issuer is the public URL, which a resource's identifier begins with: whose
	// token a caller has is known by its audience.
	Issuer string

	// Places are where checkpoints are kept outside the database: "file:PATH".
	Places []string

	// Begin allows a log without an entry. Who knows that this key has signed a
	// log before leaves it out: a database that is gone or empty then stops the
	// start, where it would begin a second log under the same key.
	Begin bool

	// ConfirmClock opens a log whose last entry is dated after the clock. New
	// entries are dated as the last one until the clock has passed it.
	ConfirmClock bool

	Log *slog.Logger // discarded when nil

	// For tests: what the probe of a store that failed and the keeper of
	// checkpoints wait for instead of a second, and what stands between the
	// sequencer and its connection.
	probe, keep <-chan time.Time
	wrap        func(writer) writer
}

// A Store keeps state and ledger. It is safe for concurrent use.
type Store struct {
	opt   Options
	path  string
	lock  *lockFile
	reads *sql.DB
	seq   *sequencer

	// mu guards what the sequencer makes visible after each commit.
	mu    sync.RWMutex
	views *views
	tree  ledger.Tree
	grown chan struct{} // closed when the tree grows; nil while nobody waits

	broken atomic.Pointer[error] // why the store is not ready

	places  []place
	changed chan struct{} // to the keeper: the tree grew
	settle  chan struct{} // to the sequencer: bring the rest of the WAL home
	walSize atomic.Int64  // bytes of entries since the WAL was last brought home
	filled  chan struct{} // to the checkpointer: the WAL is worth it

	steps  trail        // of what is revoked, as they are committed
	feed   feed         // sightings, as they are committed
	judged atomic.Int64 // index before which all of them are judged, or notJudged

	stop    context.CancelFunc
	workers sync.WaitGroup // keeper, checkpointer, and those who end abandoned calls
	done    chan struct{}  // closed when the sequencer has ended
	closing sync.Once
	closed  error // what Close returns; set by closing

	signed struct { // the newest checkpoint
		sync.Mutex
		checkpoint ledger.Checkpoint
	}
	stats stats
}

type stats struct {
	decisions, batches, failures, bytes, places, overflows atomic.Int64
}

// Stats are counts since the store was opened, for metrics.
type Stats struct {
	Decisions     int64 // committed
	Batches       int64 // commits
	Failures      int64 // commits and probes that failed
	Bytes         int64 // of entries
	PlaceFailures int64 // checkpoints that a place did not take
	Overflows     int64 // times that whoever follows sightings fell behind and read the log instead
}

// Stats returns the counts.
func (s *Store) Stats() Stats {
	return Stats{
		Decisions:     s.stats.decisions.Load(),
		Batches:       s.stats.batches.Load(),
		Failures:      s.stats.failures.Load(),
		Bytes:         s.stats.bytes.Load(),
		PlaceFailures: s.stats.places.Load(),
		Overflows:     s.stats.overflows.Load(),
	}
}

// Ready returns nil when the store takes decisions, and why not otherwise. A
// store that failed looks once a second whether it can write again, and each
// decision tries too: it needs no restart.
func (s *Store) Ready() error {
	if p := s.broken.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *Store) setBroken(err error) {
	if err == nil {
		if s.broken.Swap(nil) != nil {
			s.opt.Log.Info("the ledger takes entries again")
		}
		return
	}
	s.stats.failures.Add(1)
	if s.broken.Swap(&err) == nil {
		s.opt.Log.Error("the ledger cannot be written; decisions are refused", "err", err)
	}
}

// committed is called by the sequencer after each commit.
func (s *Store) committed(decisions, bytes int) {
	if s.broken.Load() != nil {
		s.setBroken(nil)
	}
	if decisions == 0 {
		return
	}
	s.stats.decisions.Add(int64(decisions))
	s.stats.batches.Add(1)
	s.stats.bytes.Add(int64(bytes))
	// Beside the entries a commit writes the pages that it changes in part.
	if s.walSize.Add(int64(bytes)+3*pageSize) >= walTarget {
		signal(s.filled)
	}
	signal(s.changed)
}

// signal leaves one token in c.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Close waits for the decisions that were handed in, signs the last checkpoint
// and closes the database. Decisions that are handed in from then on are
// refused. Closing again returns what the first one did.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *Store) close() error {
	s.seq.close()
	<-s.done
	s.stop()
	s.workers.Wait()
	return errors.Join(s.keepCheckpoint(), s.seq.saveAlone(), s.reads.Close(), s.seq.w.close(), s.lock.release())
}

// abandon ends an allowed call whose caller was not told that it was. It does
// not wait: when it fails, the next start does it.
func (s *Store) abandon(index int64, why string) {
	s.workers.Go(func() {
		if err := s.endUnknown(context.Background(), []int64{index}, why); err != nil {
			s.opt.Log.Warn("ending an abandoned call", "entry", index, "err", err)
		}
	})
}

// endUnknown commits the ends of open calls of which nobody knows the end, all
// or none of them. What is not known of a call is not known of the approval that it
// was let go with: a person says whether it ran, and it never runs again by itself.
func (s *Store) endUnknown(ctx context.Context, indexes []int64, why string) error {
	var ends []*ledger.Entry
	spent := make([]string, len(indexes)) // approvals
	for n, i := range indexes {
		b, err := s.Entry(ctx, i)
		if err != nil {
			return err
		}
		e, err := ledger.Parse(b)
		if err != nil {
			return err
		}
		spent[n] = e.Approval.ID
		ends = append(ends, &ledger.Entry{
			Kind: ledger.CallFinished, Of: i, RequestID: e.RequestID, Agent: e.Agent, Owner: e.Owner, Instance: e.Instance,
			Resource: e.Resource, Tool: e.Tool, Task: e.Task, Outcome: ledger.OutcomeUnknown, Reason: why,
		})
	}
	return s.commit(ctx, &decision{entries: ends, ends: indexes, effect: func(w writer) error {
		for n, id := range spent {
			if id == "" {
				continue
			}
			ended, err := endApproval(w, id, indexes[n])
			if err != nil {
				return err
			}
			if ended {
				ends[n].Approval = ledger.Approval{ID: id, State: string(counterfoil.StateIndeterminate)}
			}
		}
		return nil
	}})
}

var _ interface {
	Revoked(context.Context, counterfoil.Caller) error
} = (*Store)(nil)
