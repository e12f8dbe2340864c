package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A faulty writer fails when it is told to: before a statement, so that it is
// not done, or after it, so that it is done and nobody hears of it.
type faulty struct {
	writer
	before func(statement) error
	after  func(statement) error
}

func (w *faulty) exec(s statement, args ...driver.Value) (int64, error) {
	if w.before != nil {
		if err := w.before(s); err != nil {
			return 0, err
		}
	}
	n, err := w.writer.exec(s, args...)
	if err == nil && w.after != nil {
		if err := w.after(s); err != nil {
			return 0, err
		}
	}
	return n, err
}

var errInjected = errors.New("injected")

// A step is one verb with its effect.
type step struct {
	name  string
	once  bool // doing it again is refused
	kind  ledger.Kind
	do    func(context.Context, *Store) error
	holds func(*Store) bool // whether the effect is in force
}

func steps(t *testing.T) []step {
	status := func(want counterfoil.Status) func(*Store) bool {
		return func(s *Store) bool { return s.AgentState("payroll").Status == want }
	}
	used := func(id string) func(*Store) bool {
		return func(s *Store) bool {
			used, err := s.AssertionUsed(context.Background(), counterfoil.AssertionUse{Agent: "payroll", ID: id})
			return err == nil && used
		}
	}
	var call ledger.Entry
	return []step{
		{"apply", false, ledger.AgentCreated, func(ctx context.Context, s *Store) error {
			_, base := s.Registry()
			return s.Apply(ctx, counterfoil.Change{Base: base, Put: []counterfoil.Document{agentDocument(t, "payroll")},
				NewKeys: []counterfoil.Instance{instance("ins_0", "payroll")}}, []*ledger.Entry{entry(ledger.AgentCreated, "payroll"), entry(ledger.ConfigApplied, "")})
		}, func(s *Store) bool {
			reg, _ := s.Registry()
			_, ok := s.InstanceByKey("jkt-ins_0")
			return reg.Agents["payroll"] != nil && ok && s.AgentState("payroll").Status == counterfoil.Active
		}},
		{"put code", false, ledger.EnrolmentCodeIssued, func(ctx context.Context, s *Store) error {
			return s.PutCode(ctx, code("payroll", "x"), entry(ledger.EnrolmentCodeIssued, "payroll"))
		}, nil},
		{"enrol", true, ledger.InstanceEnrolled, func(ctx context.Context, s *Store) error {
			return s.Enroll(ctx, code("payroll", "x").Hash, instance("ins_1", "payroll"), entry(ledger.InstanceEnrolled, "payroll"))
		}, func(s *Store) bool { _, ok := s.Instance("ins_1"); return ok }},
		{"issue", true, ledger.TokenIssued, func(ctx context.Context, s *Store) error {
			return s.Issue(ctx, s.issuance("payroll", "ins_1", "1"), entry(ledger.TokenIssued, "payroll"), nil)
		}, used("1")},
		{"bind and issue", true, ledger.ProofKeyBound, func(ctx context.Context, s *Store) error {
			i := s.issuance("payroll", "ins_1", "2")
			i.Bind = counterfoil.KeyBinding{JKT: "bound", Most: 8}
			return s.Issue(ctx, i, entry(ledger.TokenIssued, "payroll"), entry(ledger.ProofKeyBound, "payroll"))
		}, func(s *Store) bool { _, _, ok := s.ProofKey("bound"); return ok && used("2")(s) }},
		{"decide", false, ledger.CallDecided, func(ctx context.Context, s *Store) error {
			e := decided("payroll")
			err := s.Decide(ctx, e, []byte(`{}`))
			if err == nil {
				call = *e
			}
			return err
		}, nil},
		{"finish", true, ledger.CallFinished, func(ctx context.Context, s *Store) error { return s.Finish(ctx, finished(&call)) }, func(s *Store) bool {
			open, err := s.Unfinished(context.Background())
			return err == nil && len(open) == 0
		}},
		{"pin", false, ledger.ToolPinned, func(ctx context.Context, s *Store) error {
			return s.PinTool(ctx, "bank", "pay", "d", "apply", entry(ledger.ToolPinned, ""))
		}, func(s *Store) bool { _, ok := s.Pin("bank", "pay"); return ok }},
		{"save keys", false, ledger.KeyRotated, func(ctx context.Context, s *Store) error {
			from, err := s.Keys(ctx)
			if err != nil {
				return err
			}
			return s.SaveKeys(ctx, from, []counterfoil.SigningKey{{KID: "k", Purpose: "p", Alg: "a", State: "next", JWK: []byte(`{}`)}}, entry(ledger.KeyRotated, ""))
		}, func(s *Store) bool { keys, err := s.Keys(context.Background()); return err == nil && len(keys) == 1 }},
		{"suspect", false, ledger.CloneSuspected, func(ctx context.Context, s *Store) error {
			_, err := s.Suspect(ctx, suspicion("ins_1", newClock().Now(), true), entry(ledger.CloneSuspected, "payroll"))
			return err
		}, func(s *Store) bool { i, _ := s.Instance("ins_1"); return i.Status == counterfoil.Quarantined }},
		{"suspend", true, ledger.AgentSuspended, func(ctx context.Context, s *Store) error {
			return s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll"))
		}, status(counterfoil.Suspended)},
		{"resume", true, ledger.AgentResumed, func(ctx context.Context, s *Store) error {
			_, err := s.Resume(ctx, "payroll", []string{"ins_1"}, entry(ledger.AgentResumed, "payroll"))
			return err
		}, func(s *Store) bool {
			i, _ := s.Instance("ins_1")
			return s.AgentState("payroll").Status == counterfoil.Active && i.Status == counterfoil.Active
		}},
		{"offboard", true, ledger.AgentOffboarded, func(ctx context.Context, s *Store) error {
			_, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
			return err
		}, func(s *Store) bool {
			reg, _ := s.Registry()
			return reg.Agents["payroll"] == nil && s.AgentState("payroll").Status == counterfoil.Offboarded
		}},
		{"put a credential", false, ledger.CredentialStored, func(ctx context.Context, s *Store) error {
			return s.PutCredential(ctx, "crm", []byte{1}, entry(ledger.CredentialStored, ""))
		}, func(s *Store) bool {
			b, err := s.SealedCredential(context.Background(), "crm")
			return err == nil && len(b) == 1
		}},
		{"delete a credential", true, ledger.CredentialDeleted, func(ctx context.Context, s *Store) error {
			return s.DeleteCredential(ctx, "crm", entry(ledger.CredentialDeleted, ""))
		}, func(s *Store) bool {
			b, err := s.SealedCredential(context.Background(), "crm")
			return err == nil && b == nil
		}},
	}
}

// TestFaults fails each write of each verb in turn, once before it is done and
// once after, and asks after each whether the log, the tables and the memory
// still say the same, of that process and of the next.
func TestFaults(t *testing.T) {
	t.Parallel()
	names := steps(t)
	for at := range names {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lost=%v", names[at].name, lost), func(t *testing.T) {
				t.Parallel()
				for write := 0; ; write++ {
					if !faultAt(t, at, write, lost) {
						if write < 3 { // begin, a segment and commit at least
							t.Fatalf("only %d writes were tried", write)
						}
						return
					}
				}
			})
		}
	}
}

// faultAt runs the steps up to one whose n-th write fails, checks, and reports
// whether there was such a write.
func faultAt(t *testing.T, at, n int, lost bool) (reached bool) {
	f := newFixture(t)
	ctx := t.Context()
	var armed atomic.Bool
	var count atomic.Int64
	var failed statement = -1
	hook := func(s statement) error {
		if !armed.Load() || count.Add(1)-1 != int64(n) {
			return nil
		}
		armed.Store(false)
		failed = s
		return fmt.Errorf("statement %d: %w", s, errInjected)
	}
	f.opt.wrap = func(w writer) writer {
		if lost {
			return &faulty{writer: w, after: hook}
		}
		return &faulty{writer: w, before: hook}
	}
	s := f.open()
	all := steps(t)
	for _, st := range all[:at] {
		if err := st.do(ctx, s); err != nil {
			t.Fatalf("%s: %v", st.name, err)
		}
	}
	st := all[at]
	armed.Store(true)
	err := st.do(ctx, s)
	if armed.Swap(false) {
		return false // it has no such write
	}
	checkStep(t, s, st, err)
	// What the process that lives on says, the next one says too.
	after, root := s.Head()
	if err := s.Close(); err != nil {
		t.Fatalf("write %d (statement %d): closing: %v", n, failed, err)
	}
	f.opt.wrap = nil
	s = f.open()
	f.checkLedger(s, nil)
	// A call that is left open gets its end at the start.
	calls := st.kind == ledger.CallDecided || st.kind == ledger.CallFinished
	if size, again := s.Head(); !calls && (size != after || again != root) {
		t.Errorf("%s, write %d (statement %d): %d entries before the restart, %d after it", st.name, n, failed, after, size)
	}
	checkStep(t, s, st, err)
	// And it goes on from there: what may happen once happens once.
	landed := recorded(t, s, st.kind) > 0
	if again := st.do(ctx, s); st.once && landed == (again == nil) {
		t.Errorf("%s, write %d (statement %d): landed %v, and then again: %v", st.name, n, failed, landed, again)
	}
	if err := s.Append(ctx, entry(ledger.ServerStarted, "")); err != nil {
		t.Error(err)
	}
	f.checkLedger(s, nil)
	return true
}

// checkStep wants the effect in force exactly when its entry is recorded, and
// both when the caller was told so.
func checkStep(t *testing.T, s *Store, st step, err error) {
	t.Helper()
	n := recorded(t, s, st.kind)
	if n > 1 {
		t.Errorf("%s: recorded %d times", st.name, n)
	}
	if err == nil && n != 1 {
		t.Errorf("%s: acknowledged and not recorded", st.name)
	}
	if err != nil {
		if _, ok := counterfoil.AsRefusal(err); ok {
			t.Errorf("%s: a fault is told as a refusal: %v", st.name, err)
		}
		if c := counterfoil.CodeOf(err); c != counterfoil.LedgerUnavailable && c != counterfoil.StoreUnavailable {
			t.Errorf("%s: the fault is %v", st.name, err)
		}
	}
	if st.holds != nil && st.holds(s) != (n == 1) {
		t.Errorf("%s: recorded %d times, in force: %v (told: %v)", st.name, n, st.holds(s), err)
	}
}

func recorded(t *testing.T, s *Store, kind ledger.Kind) int {
	t.Helper()
	found, err := s.Find(context.Background(), ledger.Filter{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// A full disk refuses, turns readiness off, loses nothing, and is over as soon
// as there is room: by itself, or with the next decision.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"a probe", "a decision"} {
		t.Run("until "+how, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			probe := make(chan time.Time)
			var limit atomic.Int64
			limit.Store(1 << 30)
			f.opt.probe = probe
			f.opt.wrap = func(w writer) writer {
				db := w.(*sqliteWriter)
				return &faulty{writer: w, before: func(s statement) error {
					if s == begin {
						return db.script(fmt.Sprintf("PRAGMA max_page_count = %d", limit.Load()))
					}
					return nil
				}}
			}
			s := f.open()
			ctx := t.Context()
			told := 0
			put := func() error {
				e := decided("payroll")
				e.Decision = ledger.Refuse
				err := s.Decide(ctx, e, []byte(strings.Repeat("x", 2000)))
				if err == nil {
					told++
				}
				return err
			}
			for range 20 {
				if err := put(); err != nil {
					t.Fatal(err)
				}
			}
			limit.Store(1) // SQLite takes the size that it has
			var err error
			for range 200 {
				if err = put(); err != nil {
					break
				}
			}
			if err == nil || counterfoil.CodeOf(err) != counterfoil.LedgerUnavailable {
				t.Fatalf("a full database: %v", err)
			}
			if !strings.Contains(err.Error(), "full") {
				t.Errorf("the fault does not say why: %v", err)
			}
			if s.Ready() == nil {
				t.Error("it is ready")
			}
			kept, root := s.Head()
			if kept != int64(told) {
				t.Errorf("%d were told, %d are recorded", told, kept)
			}
			probe <- time.Now()
			probe <- time.Now() // the first one is over when the second is taken
			if s.Ready() == nil {
				t.Error("it is ready again while it is full")
			}
			if size, again := s.Head(); size != kept || again != root {
				t.Error("the log changed while it was full")
			}
			f.checkLedger(s, nil)
			limit.Store(1 << 30)
			if how == "a probe" {
				probe <- time.Now()
				probe <- time.Now()
				if err := s.Ready(); err != nil {
					t.Errorf("there is room again: %v", err)
				}
			}
			if err := put(); err != nil {
				t.Fatal(err)
			}
			if err := s.Ready(); err != nil {
				t.Errorf("it takes decisions and is not ready: %v", err)
			}
			f.checkLedger(s, nil)
			if n, _ := s.Head(); n != int64(told) {
				t.Errorf("%d were told, %d are recorded", told, n)
			}
		})
	}
}

// Everyone of a batch that fails is told so, and nobody's effect stays.
func TestFailedBatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var fail atomic.Bool
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	f.opt.wrap = func(w writer) writer {
		return &faulty{writer: w, before: func(s statement) error {
			if s == commit && fail.Load() {
				select {
				case entered <- struct{}{}:
				default:
				}
				<-gate
				return errInjected
			}
			return nil
		}}
	}
	s := f.open()
	fail.Store(true)
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if err := s.Decide(t.Context(), decided("payroll"), nil); !errors.Is(err, errInjected) {
				t.Errorf("got %v", err)
			}
		})
	}
	<-entered
	close(gate)
	wg.Wait()
	fail.Store(false)
	if n, _ := s.Head(); n != 0 || s.Ready() == nil {
		t.Errorf("%d entries, ready: %v", n, s.Ready())
	}
	e := decided("payroll")
	if err := s.Decide(t.Context(), e, nil); err != nil || e.Index != 0 {
		t.Fatalf("entry %d, %v", e.Index, err)
	}
	if open, err := s.Unfinished(t.Context()); err != nil || len(open) != 1 {
		t.Errorf("open calls: %v, %v", open, err)
	}
	f.checkLedger(s, nil)
}

// When even the head cannot be read after a commit failed, nothing goes on
// until it can.
func TestUnknownCommit(t *testing.T) {
	t.Parallel()
	for _, landed := range []bool{false, true} {
		t.Run(fmt.Sprintf("landed=%v", landed), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			w := &blind{}
			f.opt.wrap = func(inner writer) writer { w.writer = inner; return w }
			s := f.open()
			if err := s.Decide(t.Context(), decided("first"), nil); err != nil {
				t.Fatal(err)
			}
			w.landed.Store(landed)
			w.blind.Store(true)
			for range 3 {
				if err := s.Decide(t.Context(), decided("payroll"), nil); counterfoil.CodeOf(err) != counterfoil.LedgerUnavailable {
					t.Fatalf("got %v", err)
				}
			}
			if n, _ := s.Head(); n != 1 || s.Ready() == nil {
				t.Errorf("it goes on blindly: %d entries", n)
			}
			w.blind.Store(false)
			e := decided("last")
			if err := s.Decide(t.Context(), e, nil); err != nil {
				t.Fatal(err)
			}
			want := int64(1)
			if landed {
				want = 2
				// The call that was recorded and whose caller was told no has
				// an end, of which nobody knows anything.
				if err := s.Wait(t.Context(), 3); err != nil {
					t.Fatal(err)
				}
				if got := recorded(t, s, ledger.CallFinished); got != 1 {
					t.Errorf("%d ends", got)
				}
			}
			if e.Index != want {
				t.Errorf("the next entry is %d, want %d", e.Index, want)
			}
			f.checkLedger(s, nil)
		})
	}
}

type blind struct {
	writer
	blind, landed atomic.Bool
}

func (w *blind) exec(s statement, args ...driver.Value) (int64, error) {
	if s == commit && w.blind.Load() {
		if w.landed.Load() {
			w.landed.Store(false)
			w.writer.exec(s, args...)
		}
		return 0, errInjected
	}
	return w.writer.exec(s, args...)
}

func (w *blind) query(s statement, row func([]driver.Value) error, args ...driver.Value) error {
	if s == readHead && w.blind.Load() {
		return errInjected
	}
	return w.writer.query(s, row, args...)
}

// A caller who leaves while it waits in the queue leaves nothing; one who
// leaves during the commit is told no, and its call has an end.
func TestCallersWhoLeave(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gate, entered := make(chan struct{}), make(chan struct{}, 16)
	var hold atomic.Bool
	f.opt.wrap = func(w writer) writer {
		return &faulty{writer: w, before: func(s statement) error {
			if s == commit && hold.Load() {
				entered <- struct{}{}
				<-gate
			}
			return nil
		}}
	}
	s := f.open()
	hold.Store(true)
	leaving, leave := context.WithCancel(t.Context())
	during, queued := make(chan error, 1), make(chan error, 1)
	go func() { during <- s.Decide(leaving, decided("during"), nil) }()
	<-entered // the commit is under way
	go func() { queued <- s.Decide(leaving, decided("queued"), nil) }()
	for waitingFor(s) == 0 {
		runtime.Gosched()
	}
	leave()
	for _, c := range []chan error{during, queued} {
		if err := <-c; !errors.Is(err, context.Canceled) || counterfoil.CodeOf(err) != counterfoil.LedgerUnavailable {
			t.Errorf("a caller who left: %v", err)
		}
	}
	if err := s.Decide(leaving, decided("late"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who had left before: %v", err)
	}
	hold.Store(false)
	close(gate)
	if err := s.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	found, err := s.Find(t.Context(), ledger.Filter{})
	if err != nil || len(found) != 2 {
		t.Fatalf("%d entries, %v", len(found), err)
	}
	if found[1].Agent != "during" || found[0].Kind != ledger.CallFinished || found[0].Of != 0 || found[0].Outcome != ledger.OutcomeUnknown {
		t.Errorf("the log is %+v, %+v", found[1], found[0])
	}
}

func waitingFor(s *Store) int {
	s.seq.mu.Lock()
	defer s.seq.mu.Unlock()
	return len(s.seq.queue)
}

// A clock that steps back refuses decisions until it has caught up.
func TestClockStepsBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	probe := make(chan time.Time)
	f.opt.probe = probe
	s := f.open()
	put := func() (*ledger.Entry, error) {
		e := decided("payroll")
		return e, s.Decide(t.Context(), e, nil)
	}
	first, err := put()
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(-backstep)
	second, err := put()
	if err != nil || second.Time != first.Time {
		t.Errorf("a small step back: %s then %s, %v", first.Time, second.Time, err)
	}
	f.clock.Advance(-time.Millisecond)
	if _, err := put(); counterfoil.CodeOf(err) != counterfoil.LedgerUnavailable || !strings.Contains(err.Error(), "clock") {
		t.Errorf("a large step back: %v", err)
	}
	if s.Ready() == nil {
		t.Error("it is ready")
	}
	f.clock.Advance(time.Hour)
	probe <- time.Now()
	probe <- time.Now()
	if err := s.Ready(); err != nil {
		t.Errorf("the clock has caught up: %v", err)
	}
	third, err := put()
	if err != nil || third.Time <= second.Time {
		t.Errorf("%s then %s, %v", second.Time, third.Time, err)
	}
	f.checkLedger(s, nil)
}

// Close answers what waits and refuses what comes after.
func TestClose(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	var wg sync.WaitGroup
	var told atomic.Int64
	for range 16 {
		wg.Go(func() {
			for {
				e := decided("payroll")
				e.Decision = ledger.Refuse
				err := s.Decide(context.Background(), e, nil)
				if err == nil {
					told.Add(1)
					continue
				}
				if !errors.Is(err, errClosed) || counterfoil.CodeOf(err) != counterfoil.LedgerUnavailable {
					t.Error(err)
				}
				return
			}
		})
	}
	if err := s.Wait(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	s = f.open()
	if n, _ := s.Head(); n != told.Load() {
		t.Errorf("%d were told, %d are recorded", told.Load(), n)
	}
	c := readPlace(t, f)
	if n, root := s.Head(); c.Size != n || c.Hash != root {
		t.Errorf("the last checkpoint is of %d entries", c.Size)
	}
}

// What does not fit into one commit goes into the next: nobody is forgotten,
// also not by Close.
func TestMoreThanOneCommitHolds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gate, entered := make(chan struct{}), make(chan struct{}, 64)
	f.opt.wrap = func(w writer) writer {
		return &faulty{writer: w, before: func(s statement) error {
			if s == commit {
				entered <- struct{}{}
				<-gate
			}
			return nil
		}}
	}
	release := make(chan struct{})
	go func() { // the store writes to begin its log, before there is one
		<-entered
		gate <- struct{}{}
		close(release)
	}()
	s := f.open()
	<-release
	var wg sync.WaitGroup
	put := func() {
		wg.Go(func() {
			e := entry(ledger.ServerStarted, "")
			e.Detail = map[string]any{"room": strings.Repeat("x", ledger.MaxEntry/2)}
			if err := s.Append(context.Background(), e); err != nil {
				t.Error(err)
			}
		})
	}
	put()
	<-entered // a commit is under way; the others wait for the next
	const others = 40
	for range others {
		put()
	}
	for waitingFor(s) < others {
		runtime.Gosched()
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	close(gate)
	wg.Wait()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Decisions != others+1 || st.Batches < 3 {
		t.Errorf("%+v", st)
	}
	f.opt.wrap = nil
	f.checkLedger(f.open(), nil)
}
