package store

import (
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func suiteStreams(t *testing.T, s *subject) {
	ctx := t.Context()
	s.crew()
	put := func(st counterfoil.SignalStream, from *counterfoil.SignalStream) error {
		return s.PutStream(ctx, st, from, entry(ledger.StreamChanged, st.Agent))
	}
	list := func() []counterfoil.SignalStream {
		t.Helper()
		l, err := s.Streams(ctx)
		s.wantDone(err)
		return l
	}
	const e = counterfoil.MaxEventsOfEntry
	st := counterfoil.SignalStream{ID: "str_1", Agent: "payroll", Method: counterfoil.DeliveryPush, Endpoint: "https://r.example", Sealed: []byte{1, 2},
		Audience: "r", Describe: "mine", Request: []string{"x"}, Status: counterfoil.StreamEnabled, Reason: "r", Created: s.fixture.clock.Now(), From: 3, Cursor: 4, Acked: []int64{6*e + 1}}
	s.wantDone(put(st, nil))
	for range 2 {
		if got := list(); len(got) != 1 || !reflect.DeepEqual(got[0], st) {
			t.Errorf("kept is %+v, put %+v", got, st)
		}
		s.reopen()
	}
	for name, other := range map[string]counterfoil.SignalStream{"its id": {ID: "str_1", Agent: "planner"}, "its agent": {ID: "str_2", Agent: "payroll"}} {
		if err := put(other, nil); !errors.Is(err, ErrConflict) {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
	s.wantRefused(counterfoil.ClientRefused, func() error { return put(counterfoil.SignalStream{ID: "str_3", Agent: "nobody"}, nil) })
	ack := func(cursor int64, acked ...int64) error {
		return s.AckStream(ctx, "str_1", cursor, acked, entry(ledger.SignalDelivered, "payroll"))
	}
	s.wantDone(ack(5, 7*e, 6*e+1, 5*e+3))
	if got := list()[0]; got.Cursor != 5 || !slices.Equal(got.Acked, []int64{6*e + 1, 7 * e}) {
		t.Errorf("acknowledged: %d, %v", got.Cursor, got.Acked)
	}
	// Who read it before that changes what it read, and takes nothing back.
	paused := st
	paused.Status = counterfoil.StreamPaused
	s.wantDone(put(paused, &st))
	if err := put(st, &st); !errors.Is(err, ErrConflict) {
		t.Errorf("it was another one meanwhile: %v", err)
	}
	s.wantDone(ack(3))
	if got := list()[0]; got.Cursor != 5 || got.Status != counterfoil.StreamPaused || len(got.Acked) != 2 {
		t.Errorf("it went back: %+v", got)
	}
	var wg sync.WaitGroup
	for i := range int64(32) {
		wg.Go(func() {
			if err := ack(i%8, (i+10)*e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := list()[0]; got.Cursor != 7 || len(got.Acked) != 32 {
		t.Errorf("acknowledged: %d, %v", got.Cursor, got.Acked)
	}
	del := func(id string) func() error {
		return func() error { return s.DeleteStream(ctx, id, entry(ledger.StreamChanged, "payroll")) }
	}
	s.wantRefused(counterfoil.ToolUnknown, del("str_9"))
	s.wantDone(del("str_1")())
	s.wantRefused(counterfoil.ToolUnknown, del("str_1"))
	s.wantRefused(counterfoil.ToolUnknown, func() error { return ack(9) })
	// An agent that is offboarded receives nothing any more.
	s.wantDone(put(st, nil))
	_, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
	s.wantDone(err)
	if got := list(); len(got) != 0 {
		t.Errorf("streams: %+v", got)
	}
	s.wantRefused(counterfoil.ClientRefused, func() error { return put(st, nil) })
}

func suiteTransmitters(t *testing.T, s *subject) {
	tr := &counterfoil.Transmitter{Name: "idp", Issuer: "https://idp", Keys: []string{"{}"}}
	s.apply(document(t, counterfoil.KindTransmitter, "idp", tr))
	old, _ := s.Registry()
	for range 2 {
		if reg, _ := s.Registry(); !reflect.DeepEqual(reg.Transmitters["idp"], tr) {
			t.Errorf("kept is %+v", reg.Transmitters)
		}
		s.reopen()
	}
	s.wantDone(s.put(counterfoil.Change{Delete: []counterfoil.DocKey{{Kind: counterfoil.KindTransmitter, Name: "idp"}}}))
	if reg, _ := s.Registry(); reg.Transmitters["idp"] != nil || old.Transmitters["idp"] == nil {
		t.Error("it was not deleted, or from what was handed out")
	}
}
