package evidence_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/evidence"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

const origin = "localhost:8420/ledger"

// A book is a log that tests write to. Every entry is a millisecond after the one
// before.
type book struct {
	*store.Store
	t     *testing.T
	clock *testkit.Clock
}

func newBook(t *testing.T) *book {
	t.Helper()
	clock := testkit.NewClock(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	signer, verifier := testkit.LogKey(t, origin)
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "store.db"), store.Options{
		Now: clock.Now, Origin: origin, Signer: signer, Verifier: verifier, Begin: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &book{db, t, clock}
}

func (b *book) add(e *ledger.Entry) int64 {
	b.t.Helper()
	b.clock.Advance(time.Millisecond)
	write := func() error { return b.Append(b.t.Context(), e) }
	if e.Kind == ledger.CallDecided {
		write = func() error { return b.Decide(b.t.Context(), e, nil) }
	}
	if err := write(); err != nil {
		b.t.Fatal(err)
	}
	return e.Index
}

// other is an entry that says nothing of revocations.
func (b *book) other() { b.add(&ledger.Entry{Kind: ledger.TokenIssued, Agent: "payroll"}) }

func (b *book) revoked(id string) int64 {
	return b.add(&ledger.Entry{
		Kind: ledger.Revoked, Actor: "uid:0", Reason: "lost", Epoch: 7,
		Detail: map[string]any{"kind": "agent", "id": id, "tokens": []string{"tok_1", "tok_2"}, "codes": 1},
	})
}

func (b *book) enforced(seq int64, streams int) int64 {
	return b.add(&ledger.Entry{
		Kind: ledger.RevocationEnforced, View: ledger.View{Seq: seq}, Detail: map[string]any{"point": "gateway", "streams": streams, "latency_us": 900},
	})
}

func (b *book) looked(agent, instance string, seq int64, decision string) int64 {
	return b.add(&ledger.Entry{
		Kind: ledger.CallDecided, Agent: agent, Instance: instance, Tool: "counterfoil/revocations", View: ledger.View{Seq: seq}, Decision: decision,
	})
}

func (b *book) stream(agent, change string, status counterfoil.StreamStatus) int64 {
	return b.add(&ledger.Entry{Kind: ledger.StreamChanged, Agent: agent, Detail: map[string]any{"stream": "str_" + agent, "change": change, "status": string(status)}})
}

func (b *book) delivered(agent string, seq int64) int64 {
	return b.add(&ledger.Entry{Kind: ledger.SignalDelivered, Agent: agent, View: ledger.View{Seq: seq}})
}

func (b *book) receipt(index int64) evidence.Receipt {
	b.t.Helper()
	r, err := evidence.ReceiptOf(b.t.Context(), b, index)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// stopped are the points of a receipt, as "kind name seq".
func (b *book) wantPoints(index int64, want ...evidence.Point) {
	b.t.Helper()
	r := b.receipt(index)
	for i := range want {
		p := &want[i]
		if p.Seq == 0 {
			continue
		}
		text, err := b.Entry(b.t.Context(), p.Seq)
		if err != nil {
			b.t.Fatal(err)
		}
		e, err := ledger.Parse(text)
		if err != nil {
			b.t.Fatal(err)
		}
		if p.Stopped, err = e.When(); err != nil {
			b.t.Fatal(err)
		}
		p.LatencyUS = p.Stopped.Sub(r.At).Microseconds()
	}
	if !slices.Equal(r.Points, want) {
		b.t.Errorf("the points of %d are\n%+v\nwant\n%+v", index, r.Points, want)
	}
}

var _ evidence.Ledger = (*store.Store)(nil)

func TestAReceiptSaysWhatWasTakenAndWhenItCounted(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.looked("shop", "ins_1", 0, ledger.Allow)
	b.stream("siem", "created", counterfoil.StreamEnabled)
	first := b.revoked("payroll")
	gateway := func(seq int64, streams int) evidence.Point {
		return evidence.Point{Name: "gateway", Kind: evidence.PointGateway, Seq: seq, Streams: streams}
	}
	server := func(instance string, seq int64) evidence.Point {
		return evidence.Point{Name: "shop/" + instance, Kind: evidence.PointServer, Seq: seq}
	}
	receiver := func(seq int64) evidence.Point {
		return evidence.Point{Name: "siem", Kind: evidence.PointSignals, Seq: seq}
	}

	// Before anybody says anything, nobody has stopped, and everybody is there.
	b.wantPoints(first, gateway(0, 0), server("ins_1", 0), receiver(0))
	r := b.receipt(first)
	at := b.clock.Now()
	if r.Index != first || !r.At.Equal(at) || r.Entry != ledger.Revoked || r.Target != (counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}) ||
		r.Reason != "lost" || r.Actor != "uid:0" || r.Voided.Epoch != 7 || !slices.Equal(r.Voided.Tokens, []string{"tok_1", "tok_2"}) || r.Voided.Codes != 1 {
		t.Errorf("the receipt is %+v", r)
	}

	// What says less than the revocation says nothing of it.
	b.enforced(first-1, 4)
	b.looked("shop", "ins_1", first-1, ledger.Allow)
	b.looked("shop", "ins_1", first, ledger.Refuse)
	b.delivered("siem", first-1)
	b.wantPoints(first, gateway(0, 0), server("ins_1", 0), receiver(0))

	// What says as much does, and the first that says it counts.
	seen, has := b.looked("shop", "ins_1", first, ledger.Allow), b.delivered("siem", first)
	cut := b.enforced(first, 3)
	b.other()
	second := b.revoked("other")
	b.enforced(second, 1)
	b.looked("shop", "ins_1", second, ledger.Allow)
	b.delivered("siem", second)
	b.wantPoints(first, gateway(cut, 3), server("ins_1", seen), receiver(has))
}

func TestReceiptsAreCoalesced(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	var revoked []int64
	for range 5 {
		revoked = append(revoked, b.revoked("payroll"))
	}
	said := b.enforced(revoked[3], 2)
	for _, index := range revoked[:4] {
		b.wantPoints(index, evidence.Point{Name: "gateway", Kind: evidence.PointGateway, Seq: said, Streams: 2})
	}
	b.wantPoints(revoked[4], evidence.Point{Name: "gateway", Kind: evidence.PointGateway})
}

// TestAStartStopsWhatWasOpen: streams do not outlive their process.
func TestAStartStopsWhatWasOpen(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.add(&ledger.Entry{Kind: ledger.ServerStarted})
	revoked := b.revoked("payroll")
	b.wantPoints(revoked, evidence.Point{Name: "gateway", Kind: evidence.PointGateway})
	started := b.add(&ledger.Entry{Kind: ledger.ServerStarted})
	b.wantPoints(revoked, evidence.Point{Name: "gateway", Kind: evidence.PointGateway, Seq: started})
	b.enforced(revoked+5, 1)
	b.wantPoints(revoked, evidence.Point{Name: "gateway", Kind: evidence.PointGateway, Seq: started})
}

func TestWhoIsAPoint(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.looked("gone", "ins_1", 0, ledger.Allow)
	b.stream("left", "created", counterfoil.StreamEnabled)
	b.stream("left", "deleted", counterfoil.StreamEnabled)
	b.stream("paused", "created", counterfoil.StreamEnabled)
	b.stream("paused", "status", counterfoil.StreamPaused)
	b.clock.Advance(10 * time.Minute)
	b.looked("shop", "ins_1", 0, ledger.Allow)
	b.looked("shop", "ins_2", 0, ledger.Allow)
	b.looked("thief", "ins_3", 0, ledger.Refuse)
	revoked := b.revoked("payroll")
	seen := b.looked("shop", "ins_2", revoked, ledger.Allow)
	// Each instance follows by itself.
	b.wantPoints(revoked,
		evidence.Point{Name: "gateway", Kind: evidence.PointGateway},
		evidence.Point{Name: "shop/ins_1", Kind: evidence.PointServer},
		evidence.Point{Name: "shop/ins_2", Kind: evidence.PointServer, Seq: seen})
}

// TestALateReceiptIsFound: what is looked for is found however much is in between.
func TestALateReceiptIsFound(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	revoked := b.revoked("payroll")
	var all []*ledger.Entry
	for range 5000 {
		all = append(all, &ledger.Entry{Kind: ledger.RevocationEnforced, View: ledger.View{Seq: revoked - 1}, Detail: map[string]any{"point": "gateway"}})
	}
	errs := make(chan error, len(all))
	for _, e := range all {
		go func() { errs <- b.Append(context.WithoutCancel(t.Context()), e) }()
	}
	for range all {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	said := b.enforced(revoked, 1)
	for range 3 {
		b.enforced(revoked+1, 9)
	}
	b.wantPoints(revoked, evidence.Point{Name: "gateway", Kind: evidence.PointGateway, Seq: said, Streams: 1})
}

func TestWhatHasAReceipt(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	until := func(in time.Duration) map[string]any {
		return map[string]any{"previous": map[string]any{"jkt": "old", "until": ledger.FormatTime(b.clock.Now().Add(in))}}
	}
	for _, tc := range []struct {
		name string
		e    *ledger.Entry
		want counterfoil.Target
	}{
		{"an agent that is suspended", &ledger.Entry{Kind: ledger.AgentSuspended, Agent: "payroll"}, counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}},
		{"an agent that is offboarded", &ledger.Entry{Kind: ledger.AgentOffboarded, Agent: "payroll"}, counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}},
		{"a task that ends", &ledger.Entry{Kind: ledger.TaskClosed, Task: "tsk_1"}, counterfoil.Target{Kind: counterfoil.TargetTask, ID: "tsk_1"}},
		{"a clone that is quarantined", &ledger.Entry{Kind: ledger.CloneSuspected, Instance: "ins_1", Detail: map[string]any{"clones": counterfoil.ClonesQuarantine}},
			counterfoil.Target{Kind: counterfoil.TargetInstance, ID: "ins_1"}},
		{"a clone that is recorded", &ledger.Entry{Kind: ledger.CloneSuspected, Instance: "ins_1", Detail: map[string]any{"clones": counterfoil.ClonesRecord}}, counterfoil.Target{}},
		{"a key that is replaced at once", &ledger.Entry{Kind: ledger.KeyRotated, Detail: until(0)}, counterfoil.Target{Kind: counterfoil.TargetKey, ID: "old"}},
		{"a key that is taken for an hour", &ledger.Entry{Kind: ledger.KeyRotated, Detail: until(time.Hour)}, counterfoil.Target{}},
		{"a token that was given back and was dead", &ledger.Entry{Kind: ledger.Revoked, Agent: "payroll"}, counterfoil.Target{}},
		{"anything else", &ledger.Entry{Kind: ledger.TokenIssued, Agent: "payroll"}, counterfoil.Target{}},
	} {
		index := b.add(tc.e)
		r, err := evidence.ReceiptOf(t.Context(), b, index)
		if tc.want == (counterfoil.Target{}) {
			if err == nil || counterfoil.CodeOf(err) != counterfoil.ToolUnknown {
				t.Errorf("%s: %+v, %v", tc.name, r, err)
			}
			continue
		}
		if err != nil || r.Target != tc.want {
			t.Errorf("%s: the target is %+v, %v", tc.name, r.Target, err)
		}
	}
	size, _ := b.Head()
	for _, index := range []int64{-1, size, size + 100} {
		if _, err := evidence.ReceiptOf(t.Context(), b, index); err == nil || counterfoil.CodeOf(err) != counterfoil.ToolUnknown {
			t.Errorf("the receipt of entry %d: %v", index, err)
		}
	}
}

func TestRevocationsAreListedNewestFirst(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	first := b.revoked("a")
	b.add(&ledger.Entry{Kind: ledger.TaskClosed, Task: "tsk_1"})
	b.add(&ledger.Entry{Kind: ledger.Revoked, Agent: "payroll"}) // took nothing
	second := b.add(&ledger.Entry{Kind: ledger.AgentSuspended, Agent: "b"})
	b.other()
	third := b.revoked("c")
	for limit, want := range map[int][]int64{10: {third, second, first}, 2: {third, second}} {
		list, err := evidence.Revocations(t.Context(), b, limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, r := range list {
			got = append(got, r.Index)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %d they are %v, want %v", limit, got, want)
		}
	}
}
