package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/ledger"
)

func readPlace(t *testing.T, f *fixture) ledger.Checkpoint {
	t.Helper()
	b, err := os.ReadFile(f.place())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ledger.OpenCheckpoint(b, f.opt.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill makes a log of n entries and closes it.
func (f *fixture) fill(n int) {
	f.t.Helper()
	s := f.open()
	for range n {
		e := decided("payroll")
		e.Decision = ledger.Refuse
		if err := s.Decide(context.Background(), e, nil); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.t.Fatal(err)
	}
}

// edit changes the database behind the store's back.
func (f *fixture) edit(statements ...string) {
	f.t.Helper()
	db, err := sql.Open("sqlite", f.db())
	if err != nil {
		f.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			f.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (f *fixture) read(path string) []byte {
	f.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *fixture) write(path string, b []byte) {
	f.t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// Whatever was done to the files, the start says what it is and what to do. The
// same store starts before it was done.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	const restore = advice // and nothing that would begin a second log
	for name, row := range map[string]struct {
		spoil func(*fixture)
		want  []string
	}{
		"no database":  {func(f *fixture) { f.write(f.db(), bytes.Repeat([]byte("garbage\n"), 1000)) }, []string{"not a database", "counterfoil restore"}},
		"a short file": {func(f *fixture) { f.write(f.db(), []byte("SQLite")) }, []string{"not a database", "counterfoil restore"}},
		"half of it":   {func(f *fixture) { b := f.read(f.db()); f.write(f.db(), b[:len(b)/2]) }, []string{"damaged", "counterfoil restore"}},
		"zeros in the middle": {func(f *fixture) {
			b := f.read(f.db())
			clear(b[4096*3 : 4096*9])
			f.write(f.db(), b)
		}, []string{"damaged", "counterfoil restore"}},
		"an empty file": {func(f *fixture) { f.write(f.db(), nil) }, []string{"the log has 0 entries", restore}},
		"an older copy": {func(f *fixture) { f.rollBack(20) }, []string{"the log has 30 entries, the checkpoint in", "had 50", restore}},
		"an older copy that went on": {func(f *fixture) {
			f.rollBack(20)
			kept := f.read(f.place())
			os.Remove(f.place())
			f.fill(40)
			f.write(f.place(), kept)
		},
			[]string{"the first 50 entries are not those", restore}},
		"the newest entries deleted": {func(f *fixture) { f.edit(`DELETE FROM segments WHERE first >= 45`) }, []string{"the log has 45 entries", restore}},
		"an entry and its hashes changed": {func(f *fixture) {
			// The last entry is rewritten, its leaf hash with it: only the kept
			// checkpoint knows better.
			f.edit(`UPDATE segments SET hashes = zeroblob(length(hashes)) WHERE first = 49`)
		}, []string{"the first 50 entries are not those", restore}},
		"the last entry changed": {func(f *fixture) {
			f.edit(`UPDATE segments SET data = CAST(replace(CAST(data AS TEXT), 'payroll', 'payrole') AS BLOB) WHERE first = 49`)
		}, []string{"do not give the tree", "counterfoil restore"}},
		"an entry changed since the checkpoint": {func(f *fixture) {
			kept := f.read(f.place())
			f.fill(10)
			f.write(f.place(), kept)
			f.edit(`UPDATE segments SET data = CAST(replace(CAST(data AS TEXT), 'payroll', 'payrole') AS BLOB) WHERE first = 52`)
		}, []string{"the entries 50 to 59 do not give the tree", "counterfoil restore"}},
		"an entry gone since the checkpoint": {func(f *fixture) {
			kept := f.read(f.place())
			f.fill(10)
			f.write(f.place(), kept)
			f.edit(`DELETE FROM segments WHERE first = 52`)
		}, []string{"counterfoil restore"}},
		"another program's database":             {func(f *fixture) { os.Remove(f.db()); f.edit(`CREATE TABLE t (a)`) }, []string{"another program"}},
		"another program's database with a mark": {func(f *fixture) { os.Remove(f.db()); f.edit(`PRAGMA application_id = 7`) }, []string{"another program"}},
		"a newer version":                        {func(f *fixture) { f.edit(`PRAGMA user_version = 99`) }, []string{"newer version", "schema 99"}},
		"another log":                            {func(f *fixture) { f.edit(`UPDATE meta SET value = 'other' WHERE name = 'origin'`) }, []string{`that of "other"`, "never changes"}},
		"a document that is none":                {func(f *fixture) { f.edit(`INSERT INTO documents VALUES ('Agent', 'x', '{}')`) }, []string{"reading the registry"}},
		"a checkpoint of another key": {func(f *fixture) { other := newFixture(f.t); other.fill(1); f.write(f.place(), f.read(other.place())) },
			[]string{"not one of this log", restore}},
		"a checkpoint that is none": {func(f *fixture) { f.write(f.place(), []byte("x")) }, []string{"not one of this log", restore}},
		"an empty checkpoint":       {func(f *fixture) { f.write(f.place(), nil) }, []string{"not one of this log", restore}},
		"a clock that is behind":    {func(f *fixture) { f.clock.Advance(-backstep - time.Millisecond) }, []string{"the clock says 2026-11-21T11:59:54.999000Z", "--confirm-clock"}},
		"no file":                   {func(f *fixture) { f.opt.Begin = false; os.Remove(f.db()); os.Remove(f.place()) }, []string{"the ledger is gone", restore}},
		"no entry": {func(f *fixture) {
			f.opt.Begin = false
			os.Remove(f.place())
			f.edit(`DELETE FROM segments`)
		}, []string{restore}},
		"an empty file and no checkpoint": {func(f *fixture) { f.opt.Begin = false; os.Remove(f.place()); f.write(f.db(), nil) }, []string{"the ledger is gone", restore}},
		"no folder":                       {func(f *fixture) { os.RemoveAll(f.dir) }, []string{"does not exist"}},
		"a folder in its place":           {func(f *fixture) { os.Remove(f.db()); os.Mkdir(f.db(), 0o700) }, []string{"is a directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.fill(50)
			f.open().Close()
			row.spoil(f)
			s, err := f.tryOpen()
			if err == nil {
				s.Close()
				t.Fatal("it starts")
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, want %q", err, want)
				}
			}
			// A refused start holds nothing: the next one gets as far.
			if _, again := f.tryOpen(); again == nil || strings.Contains(again.Error(), "locked") {
				t.Errorf("and then: %v", again)
			}
		})
	}
}

// rollBack adds entries and then puts back the database as it was before, as a
// restored backup would.
func (f *fixture) rollBack(n int) {
	f.t.Helper()
	os.Remove(f.place()) // the log of 50 becomes one of 30 that grows to 50 again
	fresh := newFixture(f.t)
	fresh.dir, fresh.opt, fresh.clock = f.dir, f.opt, f.clock
	for _, suffix := range []string{"", "-wal", "-shm"} {
		os.Remove(f.db() + suffix)
	}
	fresh.fill(50 - n)
	old := f.read(f.db())
	fresh.fill(n)
	f.write(f.db(), old)
}

func TestOpenRefusesWhatItCannotKnow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, url := range []string{"", "sqlite:", "postgres://localhost/x", "store.db"} {
		if _, err := Open(context.Background(), url, f.opt); err == nil {
			t.Errorf("%q opens", url)
		}
	}
	for name, spoil := range map[string]func(*Options){
		"no clock":    func(o *Options) { o.Now = nil },
		"no origin":   func(o *Options) { o.Origin = "" },
		"no key":      func(o *Options) { o.Signer = nil },
		"no verifier": func(o *Options) { o.Verifier = nil },
		"a place":     func(o *Options) { o.Places = []string{"https://example.com"} },
	} {
		if _, err := f.tryOpen(spoil); err == nil {
			t.Errorf("%s: it opens", name)
		}
	}
}

func TestOneProcess(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	if _, err := f.tryOpen(); err == nil || !strings.Contains(err.Error(), "another counterfoil has it open") {
		t.Errorf("a second one: %v", err)
	}
	if err := s.Append(t.Context(), entry(ledger.ServerStarted, "")); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
}

func TestConfirmedClock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(1)
	f.clock.Advance(-time.Hour)
	s := f.open(func(o *Options) { o.ConfirmClock = true })
	e := entry(ledger.ServerStarted, "")
	if err := s.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if e.Time != ledger.FormatTime(newClock().Now()) {
		t.Errorf("the entry is dated %s, before the one before it", e.Time)
	}
	f.checkLedger(s, nil)
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	if err := s.Append(t.Context(), entry(ledger.ServerStarted, "")); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(f.db() + suffix)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", suffix, info.Mode(), err)
		}
	}
}

// A crash is a copy of the files as they are while the store is open: what was
// acknowledged is in the WAL or in the database.
func TestCrash(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	ctx := t.Context()
	var open []int64
	for i := range 30 {
		e := decided("payroll")
		if err := s.Decide(ctx, e, nil); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			open = append(open, e.Index)
			continue
		}
		if err := s.Finish(ctx, finished(e)); err != nil {
			t.Fatal(err)
		}
	}
	size, _ := s.Head()
	b, err := s.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	crashed := newFixture(t)
	crashed.opt = f.opt
	crashed.opt.Places = []string{"file:" + crashed.place()}
	for _, suffix := range []string{"", "-wal"} {
		crashed.write(crashed.db()+suffix, f.read(f.db()+suffix))
	}
	again := crashed.open()
	if n, _ := again.Head(); n != size+int64(len(open)) {
		t.Errorf("%d entries and %d open calls became %d entries", size, len(open), n)
	}
	ends, err := again.Find(ctx, ledger.Filter{Kind: ledger.CallFinished, Limit: len(open)})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range ends {
		if e.Of != open[len(open)-1-i] || e.Outcome != ledger.OutcomeUnknown {
			t.Errorf("the end of %d is %+v", open[len(open)-1-i], e)
		}
	}
	if left, err := again.Unfinished(ctx); err != nil || len(left) != 0 {
		t.Errorf("open calls: %v, %v", left, err)
	}
	crashed.checkLedger(again, b)
}

func TestCheckpointsAreKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	keep := make(chan time.Time)
	second := filepath.Join(f.dir, "elsewhere", "checkpoint")
	f.opt.keep = keep
	f.opt.Places = append(f.opt.Places, "file:"+second)
	s := f.open()
	for i := range int64(5) {
		if err := s.Append(t.Context(), entry(ledger.ServerStarted, "")); err != nil {
			t.Fatal(err)
		}
		keep <- time.Now() // taken only after the one before was kept
		if i > 0 {
			if c := readPlace(t, f); c.Size < i {
				t.Errorf("after %d entries a checkpoint of %d is kept", i+1, c.Size)
			}
		}
	}
	if s.Stats().PlaceFailures == 0 || s.Ready() != nil {
		t.Errorf("a place that is not there: %+v, %v", s.Stats(), s.Ready())
	}
	if err := os.Mkdir(filepath.Dir(second), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.read(f.place()), f.read(second)) {
		t.Error("the places differ")
	}
	left, err := filepath.Glob(filepath.Join(f.dir, "*.tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A large log starts from the list of open calls that was written along, not
// from its beginning.
func TestOpenCallsAreWrittenAlong(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	e := decided("payroll")
	if err := s.Decide(t.Context(), e, nil); err != nil {
		t.Fatal(err)
	}
	s.seq.openSeen = -openEvery // as if the log were that much longer; nothing is under way
	if err := s.Append(t.Context(), entry(ledger.ServerStarted, "")); err != nil {
		t.Fatal(err)
	}
	saved, err := s.savedOpen(t.Context())
	if err != nil || saved.Size != 2 || fmt.Sprint(saved.Open) != "[0]" {
		t.Errorf("saved: %+v, %v", saved, err)
	}
	if open, err := s.Unfinished(t.Context()); err != nil || len(open) != 1 {
		t.Errorf("open: %v, %v", open, err)
	}
}

func TestWaitReturnsWhenTheLogGrows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	grown := make(chan error, 2)
	for range 2 {
		go func() { grown <- s.Wait(context.Background(), 0) }()
	}
	if err := s.Append(t.Context(), entry(ledger.ServerStarted, "")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-grown; err != nil {
			t.Error(err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.Wait(ended, 1); err == nil {
		t.Error("it returns before the log grows")
	}
}
