package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil/ledger"
)

// recheck is how many of the newest entries are hashed again at a start when
// no checkpoint is kept anywhere; otherwise those since the checkpoint are.
const recheck = 1 << 16

// Open opens the store at a URL of the form sqlite:PATH, making the database
// when there is none. It refuses, with a text that says what to do, when the
// file is not a sound database of ours or was written by a newer version, when
// another process has it, when the log is smaller than or different from what a
// checkpoint place says, when it is gone though it was begun before, and when
// the clock stands before the last entry.
//
// Calls that were allowed and have no end are ended, with the outcome unknown.
func Open(ctx context.Context, url string, opt Options) (*Store, error) {
	path, ok := strings.CutPrefix(url, "sqlite:")
	if !ok || path == "" {
		return nil, fmt.Errorf("opening the store %q: only sqlite:PATH is known", url)
	}
	if opt.Now == nil || opt.Origin == "" || opt.Signer == nil || opt.Verifier == nil {
		return nil, errors.New("opening the store: Now, Origin, Signer and Verifier are required")
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.wrap == nil {
		opt.wrap = func(w writer) writer { return w }
	}
	places, err := parsePlaces(opt.Places)
	if err != nil {
		return nil, err
	}
	s := &Store{
		opt: opt, path: path, places: places,
		changed: make(chan struct{}, 1), settle: make(chan struct{}, 1), filled: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := s.open(ctx); err != nil {
		s.release()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	dangling := sortedOpen(s.seq.open)
	s.start()
	if err := s.endDangling(ctx, dangling); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening %s: ending the calls that the last run left open: %w", path, err)
	}
	return s, nil
}

// release gives back what a failed open holds.
func (s *Store) release() {
	if s.reads != nil {
		s.reads.Close()
	}
	if s.seq != nil && s.seq.w != nil {
		s.seq.w.close()
	}
	_ = s.lock.release() // nothing was written through it
}

// advice is what an operator can do about a log that is damaged, gone or not the
// newest (docs/operating.md, Backup). Moving the database away is no way out: it
// would begin a second log under the key of the first.
const advice = "; put back the newest copy of the whole data folder, or run counterfoil restore: it goes on from a backup (--from FILE), " +
	"or from the database that is there, and voids what must not come back"

// errNoLog is a log without an entry where Options.Begin does not allow one.
var errNoLog = errors.New("the ledger is gone: its key has signed one, and here is none" + advice)

// open does everything that only reads, but for bringing the schema up to date.
func (s *Store) open(ctx context.Context) error {
	var err error
	if s.lock, err = takeLock(s.path + ".lock"); err != nil {
		return err
	}
	if !s.opt.Begin {
		// Refused before the file is made, so that nobody takes an empty one
		// for what is left of the log.
		if info, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			return errNoLog
		}
	}
	size, err := createFile(s.path)
	if err != nil {
		return err
	}
	w, err := s.openSound(ctx, size)
	if err != nil {
		if damaged(err) {
			return fmt.Errorf("the file is not a database or is damaged (%w)%s", err, advice)
		}
		return err
	}
	s.seq = &sequencer{store: s, w: s.opt.wrap(w), arrived: make(chan struct{}, 1), open: map[int64]struct{}{}}
	if s.reads, err = openReaders(s.path); err != nil {
		return err
	}
	if err := s.ownLog(); err != nil {
		return err
	}
	if err := s.loadLog(ctx); err != nil {
		return err
	}
	if err := s.loadJudged(); err != nil {
		return err
	}
	if err := s.checkClock(); err != nil {
		return err
	}
	if s.views, err = loadViews(s.seq.w, s.opt.Issuer); err != nil {
		return fmt.Errorf("reading the registry: %w", err)
	}
	if s.seq.older, err = anyOlder(s.seq.w); err != nil {
		return err
	}
	// Whoever followed a run before this one is behind, whatever the last step was.
	s.steps.seq = s.tree.Size() - 1
	return nil
}

// createFile makes an empty file that only its owner reads, so that SQLite
// gives its other files the same mode, and returns the size of what is there.
func createFile(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// openSound opens the writing connection on a database that is sound and of
// this version.
func (s *Store) openSound(ctx context.Context, size int64) (*sqliteWriter, error) {
	w, err := openWriter(ctx, s.path)
	if err != nil {
		return nil, err
	}
	err = w.migrate(s.path)
	if err == nil && size > 0 && size < quickCheckCeiling {
		var verdict string
		if verdict, err = w.pragma("quick_check(1)"); err == nil && verdict != "ok" {
			err = fmt.Errorf("the database is damaged: %s%s", verdict, advice)
		}
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// ownLog binds a new database to its log, and refuses one that is bound to
// another. Nothing of an existing database is changed.
func (s *Store) ownLog() error {
	w, origin := s.seq.w, ""
	err := w.query(getMeta, func(r []driver.Value) error { origin = r[0].(string); return nil }, "origin")
	if err != nil {
		return fmt.Errorf("reading the log's origin: %w", err)
	}
	if origin != "" {
		if origin != s.opt.Origin && baseOf(origin) == baseOf(s.opt.Origin) {
			return fmt.Errorf("the log is that of %q, the key beside it is of %q: one of the two is from before this folder was restored%s", origin, s.opt.Origin, advice)
		}
		if origin != s.opt.Origin {
			return fmt.Errorf("the log is that of %q, not of %q: the issuer of a data folder never changes; start it with the old URL, or begin another folder", origin, s.opt.Origin)
		}
		return nil
	}
	for _, step := range []struct {
		s    statement
		args []driver.Value
	}{{begin, nil}, {putMeta, []driver.Value{"origin", s.opt.Origin}}, {putMeta, []driver.Value{"revision", "1"}}, {putMeta, []driver.Value{"judged", "0"}}, {commit, nil}} {
		if _, err := w.exec(step.s, step.args...); err != nil {
			abort(w)
			return fmt.Errorf("beginning a log: %w", err)
		}
	}
	return nil
}

// baseOf returns the name that a log had before it was ever restored.
func baseOf(origin string) string {
	base, _ := ledger.BaseOrigin(origin)
	return base
}

// loadLog reads the head of the log, compares it with every checkpoint that is
// kept, and hashes the entries since then again: what the last run wrote before
// it ended is what is still there.
func (s *Store) loadLog(ctx context.Context) error {
	size, err := readSize(s.seq.w)
	if err != nil {
		return fmt.Errorf("reading the head of the log: %w", err)
	}
	if size == 0 && !s.opt.Begin {
		return errNoLog
	}
	hashes := s.Hashes(ctx)
	tree, err := ledger.LoadTree(size, hashes)
	if err != nil {
		return fmt.Errorf("%w%s", err, advice)
	}
	from := max(0, size-recheck)
	for _, p := range s.places {
		c, err := p.check(s.opt.Verifier, size, hashes)
		if err != nil {
			return err
		}
		if c == nil && size > 0 {
			s.opt.Log.Warn("no checkpoint is kept where one should be; it is taken for a new place", "place", p.path)
		}
		if c != nil && c.Size > s.signed.checkpoint.Size {
			s.signed.checkpoint = *c
			from = c.Size
		}
	}
	last, err := s.rehash(ctx, from, tree, hashes)
	if err != nil {
		return err
	}
	saved, err := s.savedOpen(ctx)
	if err != nil {
		return err
	}
	for _, i := range saved.Open {
		s.seq.open[i] = struct{}{}
	}
	if err := s.replayOpen(ctx, saved.Size, size, s.seq.open); err != nil {
		return err
	}
	s.tree = tree
	s.seq.tree, s.seq.last, s.seq.openSeen = tree, last, saved.Size
	return nil
}

// loadJudged reads how far sightings were judged.
func (s *Store) loadJudged() error {
	judged := int64(notJudged)
	err := s.seq.w.query(getMeta, func(r []driver.Value) error {
		n, err := strconv.ParseInt(r[0].(string), 10, 64)
		if err != nil || n < 0 || n > s.tree.Size() {
			return fmt.Errorf("%q is no index of the log: the log is damaged or was cut%s", r[0], advice)
		}
		judged = n
		return nil
	}, "judged")
	if err != nil {
		return fmt.Errorf("reading how far the log was followed: %w", err)
	}
	s.judged.Store(judged)
	s.seq.judgedSaved = judged
	return nil
}

// rehash computes the tree again from the entries from one index on, compares
// it with the stored one, and returns the time of the last entry.
func (s *Store) rehash(ctx context.Context, from int64, want ledger.Tree, hashes tlog.HashReader) (last string, err error) {
	size := want.Size()
	if from == size && size > 0 {
		from = size - 1 // at least the last one, for its time
	}
	tree, err := ledger.LoadTree(from, hashes)
	if err != nil {
		return "", fmt.Errorf("%w%s", err, advice)
	}
	var at string
	err = s.Entries(ctx, from, size, func(_ int64, entry []byte) error {
		tree.Add(tlog.RecordHash(entry))
		_, at, err = matches(entry, nil)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w%s", err, advice)
	}
	if tree.Size() != size || tree.Root() != want.Root() {
		return "", fmt.Errorf("the entries %d to %d do not give the tree that is stored beside them: the log is damaged%s", from, size-1, advice)
	}
	return at, nil
}

// checkClock refuses a clock that stands before the last entry: proofs that
// were used could be good again.
func (s *Store) checkClock() error {
	now := s.opt.Now()
	s.seq.latest = now
	if s.seq.last == "" {
		return nil
	}
	last, err := ledger.ParseTime(s.seq.last)
	if err != nil {
		return fmt.Errorf("reading the last entry: %w", err)
	}
	if last.Sub(now) <= backstep {
		return nil
	}
	if !s.opt.ConfirmClock {
		return fmt.Errorf("the clock says %s, but the last entry is of %s: set the clock right, or, when it is right, start once with --confirm-clock",
			ledger.FormatTime(now), s.seq.last)
	}
	s.opt.Log.Warn("the clock stands before the last entry and was confirmed", "clock", ledger.FormatTime(now), "last", s.seq.last)
	return nil
}

// start starts the goroutines of an opened store.
func (s *Store) start() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	probe, keep := s.opt.probe, s.opt.keep
	stopTicks := func() {}
	if probe == nil {
		t := time.NewTicker(time.Second)
		probe, stopTicks = t.C, t.Stop
	}
	go func() {
		defer close(s.done)
		defer stopTicks()
		s.seq.run(probe)
	}()
	s.workers.Go(func() { s.keepCheckpoints(ctx, keep) })
	s.workers.Go(func() { s.bringHome(ctx) })
}

// endDangling ends the calls that the last run left open.
func (s *Store) endDangling(ctx context.Context, dangling []int64) error {
	for some := range slices.Chunk(dangling, maxBatch) {
		if err := s.endUnknown(ctx, some, "the server stopped before the call had an end"); err != nil {
			return err
		}
	}
	return nil
}

// savedOpen is the list of open calls as it was when the log had Size entries:
// a start reads the log from there on only.
type savedOpen struct {
	Size int64   `json:"size"`
	Open []int64 `json:"open"`
}

func (s *Store) savedOpen(ctx context.Context) (savedOpen, error) {
	var o savedOpen
	var text string
	rows, err := s.reads.QueryContext(ctx, sqliteTexts[getMeta], "open")
	if err != nil {
		return o, readFault(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&text); err != nil {
			return o, readFault(err)
		}
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return o, fmt.Errorf("reading the list of open calls: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return o, readFault(err)
	}
	return o, nil
}

var (
	decidedNeedle  = []byte(`"kind":"call.decided"`)
	finishedNeedle = []byte(`"kind":"call.finished"`)
)

// replayOpen brings a list of open calls from one size of the log to another.
func (s *Store) replayOpen(ctx context.Context, from, to int64, open map[int64]struct{}) error {
	return s.Entries(ctx, from, to, func(index int64, entry []byte) error {
		// What is not contained is not the kind; what is may be in a detail.
		if !bytes.Contains(entry, decidedNeedle) && !bytes.Contains(entry, finishedNeedle) {
			return nil
		}
		e, err := ledger.Parse(entry)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		switch {
		case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow:
			open[index] = struct{}{}
		case e.Kind == ledger.CallFinished:
			delete(open, e.Of)
		}
		return nil
	})
}

func sortedOpen(open map[int64]struct{}) []int64 {
	out := make([]int64, 0, len(open))
	for i := range open {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// lockFile keeps other processes away from the database.
type lockFile struct{ f *os.File }

func (l *lockFile) release() error {
	if l == nil {
		return nil
	}
	// The file stays: removing it would let two processes lock two files of
	// one name. It is unlocked and not only closed, because a child between
	// fork and exec has it open as well, and would keep it locked.
	return errors.Join(funlock(l.f), l.f.Close())
}

func takeLock(path string) (*lockFile, error) {
	if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the folder %s does not exist: make it first", filepath.Dir(path))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("another counterfoil has it open (%s is locked): stop that one first", path)
	}
	return &lockFile{f}, nil
}
