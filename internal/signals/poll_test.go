package signals_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/ledger"
)

// An event is shown until its receiver has it, the same each time, also by a server
// that was started again; and what was before the stream is none of its.
func TestPollUntilAcknowledged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.happen(suspended("payroll"))
	s := w.create(signals.Wish{})
	if got := w.poll(s.ID, signals.PollRequest{}); len(got.Sets) != 0 {
		t.Fatalf("before anything happened: %v", words(w.read(got.Sets)))
	}
	w.happen(ledger.Entry{Kind: ledger.CallDecided, Agent: "payroll", Detail: map[string]any{"kind": "revoked"}}, taskClosed("tsk_1"), taskClosed("tsk_2"))
	first := w.poll(s.ID, signals.PollRequest{})
	events := w.read(first.Sets)
	if words(events) != "session-revoked session-revoked" {
		t.Fatalf("told: %s", words(events))
	}
	w.pass(time.Hour)
	w.start()
	again := w.poll(s.ID, signals.PollRequest{})
	for id, set := range first.Sets {
		if again.Sets[id] != set {
			t.Errorf("%s is another text the second time", id)
		}
	}
	// Acknowledging what is no event of the stream's changes nothing.
	foreign := strings.Replace(events[0].ID, s.ID, "str_other", 1)
	w.poll(s.ID, signals.PollRequest{Ack: []string{foreign, "x", s.ID + ".3.0", strings.Replace(events[0].ID, ".3.0.", ".3.00.", 1), events[0].ID + "0", strings.ToUpper(events[0].ID)}})
	if n := len(w.poll(s.ID, signals.PollRequest{}).Sets); n != 2 || len(w.of(ledger.SignalDelivered)) != 0 {
		t.Errorf("%d events after an acknowledgement of others, %d entries", n, len(w.of(ledger.SignalDelivered)))
	}
	// Out of order.
	if got := w.poll(s.ID, signals.PollRequest{Ack: []string{events[1].ID}}); !slices.Equal(ids(w.read(got.Sets)), []string{events[0].ID}) {
		t.Errorf("after the second was taken: %v", got.Sets)
	}
	w.start()
	if got := w.poll(s.ID, signals.PollRequest{Ack: []string{events[0].ID}}); len(got.Sets) != 0 {
		t.Errorf("after both were taken: %v", got.Sets)
	}
	delivered := w.of(ledger.SignalDelivered)
	if len(delivered) != 2 || delivered[0].View.Seq >= 3 || delivered[1].View.Seq < 4 || delivered[1].Agent != "watch" {
		t.Errorf("entries: %+v", delivered)
	}
	// What was taken is no news again.
	w.poll(s.ID, signals.PollRequest{Ack: ids(events)})
	if n := len(w.of(ledger.SignalDelivered)); n != 2 {
		t.Errorf("%d entries after the same acknowledgement", n)
	}
}

func TestPollBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	for i := range 250 {
		w.happen(taskClosed(fmt.Sprint("tsk_", i)))
	}
	most := func(n int64) signals.PollRequest { return signals.PollRequest{MaxEvents: &n} }
	if got := w.poll(s.ID, most(0)); len(got.Sets) != 0 {
		t.Errorf("maxEvents 0: %d", len(got.Sets))
	}
	if got := w.poll(s.ID, most(3)); len(got.Sets) != 3 || !got.More {
		t.Errorf("maxEvents 3: %d, more %v", len(got.Sets), got.More)
	}
	if _, err := w.Poll(t.Context(), watch, s.ID, most(-1)); counterfoil.CodeOf(err) != counterfoil.RequestMalformed {
		t.Errorf("maxEvents -1: %v", err)
	}
	seen := 0
	var ack []string
	for round := range 4 {
		got := w.poll(s.ID, signals.PollRequest{Ack: ack})
		seen += len(got.Sets)
		if want := round < 2; got.More != want {
			t.Errorf("round %d: more %v", round, got.More)
		}
		ack = ids(w.read(got.Sets))
	}
	if seen != 250 {
		t.Errorf("%d events in all", seen)
	}
}

// What the receiver refuses it is not shown again, and the log says what it said.
func TestPollErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	w.happen(taskClosed("tsk_1"), taskClosed("tsk_2"))
	events := w.read(w.poll(s.ID, signals.PollRequest{}).Sets)
	got := w.poll(s.ID, signals.PollRequest{Errors: map[string]string{events[0].ID: "invalid_key\nsecret Text"}})
	if !slices.Equal(ids(w.read(got.Sets)), []string{events[1].ID}) {
		t.Errorf("after an error: %v", got.Sets)
	}
	entries := w.of(ledger.SignalDelivered)
	if len(entries) != 1 || fmt.Sprint(entries[0].Detail["refused"]) != fmt.Sprintf("map[%s:invalid_keysecretext]", events[0].ID) {
		t.Errorf("entries %+v", entries)
	}
}

// Who is not the stream's agent, or may receive no signals any more, gets nothing.
func TestPollIsForTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	w.happen(taskClosed("tsk_1"))
	ask := func(c counterfoil.Caller) error {
		_, err := w.Poll(t.Context(), c, s.ID, signals.PollRequest{ReturnImmediately: true})
		return err
	}
	wantCode(t, "control", ask(watch), "")
	w.declare(func(r *counterfoil.Registry) { r.Agents["payroll"].Signals = &counterfoil.Signals{} })
	wantCode(t, "another agent with signals", ask(counterfoil.Caller{Agent: "payroll"}), counterfoil.ToolUnknown)
	w.set("watch", counterfoil.Suspended)
	wantCode(t, "suspended", ask(watch), counterfoil.AgentSuspended)
	w.set("watch", counterfoil.Active)
	w.declare(func(r *counterfoil.Registry) { r.Agents["watch"].Signals = nil })
	wantCode(t, "its signals taken back", ask(watch), counterfoil.PolicyForbids)
}

// A poll that waits is answered when something happens, and not by what tells nothing.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- w.Run(ctx) }()
	answers := make(chan signals.PollAnswer, 1)
	go func() {
		a, err := w.Poll(ctx, watch, s.ID, signals.PollRequest{})
		if err != nil {
			t.Error(err)
		}
		answers <- a
	}()
	w.happen(ledger.Entry{Kind: ledger.CallDecided, Agent: "payroll"})
	w.happen(taskClosed("tsk_1"))
	if got := words(w.read((<-answers).Sets)); got != "session-revoked" {
		t.Errorf("told: %q", got)
	}
	// One whose caller goes away ends without anything.
	gone, leave := context.WithCancel(ctx)
	none := 0
	go func() {
		a, err := w.Poll(gone, watch, s.ID, signals.PollRequest{MaxEvents: new(int64(1)), Ack: []string{s.ID + ".2.0"}})
		if err != nil {
			t.Error(err)
		}
		answers <- a
	}()
	leave()
	none = len((<-answers).Sets)
	if none > 1 {
		t.Errorf("%d events", none)
	}
	cancel()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What is acknowledged and could not be recorded is shown again.
func TestAcknowledgementThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	w.happen(taskClosed("tsk_1"))
	w.start() // so that the event is read from the log
	events := w.read(w.poll(s.ID, signals.PollRequest{}).Sets)
	w.mu.Lock()
	w.fail = errors.New("the disk is full")
	w.mu.Unlock()
	if _, err := w.Poll(t.Context(), watch, s.ID, signals.PollRequest{Ack: ids(events), ReturnImmediately: true}); err == nil {
		t.Fatal("an acknowledgement that is not recorded is taken")
	}
	w.mu.Lock()
	w.fail = nil
	w.mu.Unlock()
	if got := w.poll(s.ID, signals.PollRequest{}); len(got.Sets) != 1 {
		t.Errorf("%d events", len(got.Sets))
	}
	if got := w.poll(s.ID, signals.PollRequest{Ack: ids(events)}); len(got.Sets) != 0 {
		t.Errorf("control: %d events", len(got.Sets))
	}
}

// A receiver that is far behind is told everything, in pieces, and one that leaves the
// first event and takes all others is stopped before we keep too much.
func TestBacklog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{Request: []string{signals.SessionRevoked}})
	const n = 300 // more than what is held of one stream, or of all
	for i := range n {
		w.happen(ledger.Entry{Kind: ledger.InstanceEnrolled, Agent: "payroll", JKT: "j"}, taskClosed(fmt.Sprint("tsk_", i)))
	}
	w.start()
	w.Tighten(60, 50, 120)
	for i := range 100 {
		w.happen(taskClosed(fmt.Sprint("tsk_late", i))) // these the tail has, and loses
	}
	seen := map[string]bool{}
	first, rounds := "", 0
	var ack []string
	for ; ; rounds++ {
		got := w.poll(s.ID, signals.PollRequest{Ack: ack})
		ack = nil
		for id := range got.Sets {
			if first == "" {
				first = ids(w.read(got.Sets))[0]
			}
			if id != first {
				ack = append(ack, id)
				seen[id] = true
			}
		}
		if len(ack) == 0 {
			break
		}
	}
	all, _ := w.Streams(t.Context())
	if len(all[0].Acked) < 120 || len(all[0].Acked) > 120+100 {
		t.Errorf("%d places are kept after %d events", len(all[0].Acked), len(seen))
	}
	ack = []string{first}
	for seen[first] = true; ; {
		got := w.poll(s.ID, signals.PollRequest{Ack: ack})
		if ack = ids(w.read(got.Sets)); len(ack) == 0 {
			break
		}
		for _, id := range ack {
			seen[id] = true
		}
	}
	if len(seen) != n+100 {
		t.Errorf("%d of %d events", len(seen), n+100)
	}
	if all, _ := w.Streams(t.Context()); len(all[0].Acked) != 0 || all[0].Cursor < 2*n {
		t.Errorf("at the end: cursor %d, %d places", all[0].Cursor, len(all[0].Acked))
	}
}
