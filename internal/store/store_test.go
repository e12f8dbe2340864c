package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

const testOrigin = "localhost:8420/ledger"

func newClock() *testkit.Clock {
	return testkit.NewClock(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
}

// A bench is what a test opens a store on, again and again.
type fixture struct {
	t     testing.TB
	dir   string
	clock *testkit.Clock
	opt   Options
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	signer, verifier := testkit.LogKey(t, testOrigin)
	f := &fixture{t: t, dir: t.TempDir(), clock: newClock()}
	f.opt = Options{
		Now: f.clock.Now, Issuer: "https://issuer", Origin: testOrigin, Signer: signer, Verifier: verifier, Begin: true,
		Places: []string{"file:" + f.place()},
		probe:  make(chan time.Time), keep: make(chan time.Time),
	}
	return f
}

func (f *fixture) db() string    { return filepath.Join(f.dir, "store.db") }
func (f *fixture) place() string { return filepath.Join(f.dir, "checkpoint") }

func (f *fixture) tryOpen(change ...func(*Options)) (*Store, error) {
	opt := f.opt
	for _, c := range change {
		c(&opt)
	}
	return Open(context.Background(), "sqlite:"+f.db(), opt)
}

// open opens the store and closes it when the test ends, unless the test has.
func (f *fixture) open(change ...func(*Options)) *Store {
	f.t.Helper()
	s, err := f.tryOpen(change...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		select {
		case <-s.done:
		default:
			s.Close()
		}
	})
	return s
}

func decided(agent string) *ledger.Entry {
	return &ledger.Entry{
		Kind: ledger.CallDecided, RequestID: counterfoil.NewID("req_"), Agent: agent, Owner: "ana", Instance: "ins_x",
		JKT: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", Binding: "dpop", TokenJTI: "tok_x", Proof: counterfoil.NewID("proof_"),
		Epoch: 1763726400000, OnBehalfOf: agent, Resource: "bank", Tool: "bank/pay", ToolDigest: "sha-256:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
		Class: "read", Tier: "routine", Scope: []string{"get_balance", "pay"}, PolicyDigest: "sha-256:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
		Decision: ledger.Allow, Source: ledger.Source{Address: "127.0.0.1", Environment: "prod"},
	}
}

func finished(of *ledger.Entry) *ledger.Entry {
	return &ledger.Entry{Kind: ledger.CallFinished, Of: of.Index, RequestID: of.RequestID, Agent: of.Agent, Tool: of.Tool, Outcome: "done", LatencyUS: 812}
}

// checkLedger exports the log and verifies the export, as somebody with the
// public key alone would.
func (f *fixture) checkLedger(s *Store, earlier []byte) ledger.Report {
	f.t.Helper()
	ctx := context.Background()
	r, err := verifyStore(ctx, s, ledger.VerifyOptions{Verifier: f.opt.Verifier, Earlier: earlier})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func verifyStore(ctx context.Context, s *Store, opt ledger.VerifyOptions) (ledger.Report, error) {
	b, err := s.Checkpoint(ctx)
	if err != nil {
		return ledger.Report{}, err
	}
	c, err := ledger.OpenCheckpoint(b, opt.Verifier)
	if err != nil {
		return ledger.Report{}, err
	}
	path := filepath.Join(filepath.Dir(s.path), "export")
	out, err := os.Create(path)
	if err != nil {
		return ledger.Report{}, err
	}
	defer out.Close()
	err = ledger.WriteExport(out, c, func(put func([]byte) error) error {
		return s.Entries(ctx, 0, c.Size, func(_ int64, b []byte) error { return put(b) })
	})
	if err != nil {
		return ledger.Report{}, err
	}
	if _, err := out.Seek(0, 0); err != nil {
		return ledger.Report{}, err
	}
	return ledger.VerifyExport(out, opt)
}

func TestDecideAndFinish(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	ctx := context.Background()
	e := decided("payroll")
	if err := s.Decide(ctx, e, []byte(`{"amount":"100"}`)); err != nil {
		t.Fatal(err)
	}
	if e.Index != 0 || e.Time != "2026-11-21T12:00:00.000000Z" {
		t.Errorf("the entry is %d at %s", e.Index, e.Time)
	}
	salt, _, err := s.Payload(ctx, e.Index)
	if err != nil || ledger.Commitment(salt, []byte(`{"amount":"100"}`)) != e.PayloadCommitment {
		t.Errorf("payload: %v, commitment %q", err, e.PayloadCommitment)
	}
	if open, err := s.Unfinished(ctx); err != nil || len(open) != 1 {
		t.Errorf("open calls: %v, %v", open, err)
	}
	if err := s.Finish(ctx, finished(e)); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(ctx, finished(e)); err == nil {
		t.Error("a call ends twice")
	}
	if open, err := s.Unfinished(ctx); err != nil || len(open) != 0 {
		t.Errorf("open calls: %v, %v", open, err)
	}
	if r := f.checkLedger(s, nil); r.Size != 2 {
		t.Errorf("the log has %d entries", r.Size)
	}
}

func TestManyCallers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 20 {
				e := decided(fmt.Sprintf("agent-%d", i))
				if err := s.Decide(ctx, e, nil); err != nil {
					t.Error(err)
					return
				}
				if err := s.Finish(ctx, finished(e)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.open()
	if r := f.checkLedger(s, nil); r.Size != 64*40 {
		t.Errorf("the log has %d entries", r.Size)
	}
	if open, err := s.Unfinished(ctx); err != nil || len(open) != 0 {
		t.Errorf("open calls: %v, %v", open, err)
	}
	if _, err := s.Entry(ctx, 64*40); !errors.Is(err, ErrNoEntry) {
		t.Errorf("an entry beyond the end: %v", err)
	}
}

// suspend is Suspend for who does not look at what it took.
func (s *Store) suspend(ctx context.Context, agent string, e *ledger.Entry) error {
	_, err := s.Suspend(ctx, agent, e)
	return err
}
