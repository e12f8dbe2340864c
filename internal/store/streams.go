package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// bodyOf is what is kept of a stream as text: all but how far its receiver has got.
func bodyOf(st counterfoil.SignalStream) (string, error) {
	st.Cursor, st.Acked = 0, nil
	b, err := json.Marshal(st, json.Deterministic(true))
	return string(b), err
}

// PutStream commits a stream with e, a stream.changed: a new one where from is nil, and
// otherwise in place of from, which a read of Streams gave. It returns ErrConflict where
// that is not the stream any more, and where the agent has one already or the id is
// taken. What the receiver got meanwhile stays, and how far it is only grows.
func (s *Store) PutStream(ctx context.Context, st counterfoil.SignalStream, from *counterfoil.SignalStream, e *ledger.Entry) error {
	if st.ID == "" || st.Agent == "" || from != nil && (from.ID != st.ID || from.Agent != st.Agent) || e.Kind != ledger.StreamChanged {
		return errors.New("keeping a stream: its id or agent is missing, or another's than before, or its entry of another kind")
	}
	body, err := bodyOf(st)
	if err != nil {
		return fmt.Errorf("encoding a stream: %w", err)
	}
	before := ""
	if from != nil {
		if before, err = bodyOf(*from); err != nil {
			return fmt.Errorf("encoding a stream: %w", err)
		}
	}
	acked, err := json.Marshal(st.Acked)
	if err != nil {
		return fmt.Errorf("encoding a stream: %w", err)
	}
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		status, _, err := agentRow(w, st.Agent)
		if err != nil {
			return err
		}
		if status == "" || status == counterfoil.Offboarded {
			return counterfoil.Refuse(counterfoil.ClientRefused, "agent %q is not known", st.Agent)
		}
		var n int64
		if from == nil {
			n, err = w.exec(insertStream, st.ID, st.Agent, body, st.Cursor, string(acked))
		} else {
			n, err = w.exec(updateStream, st.ID, before, body, st.Cursor)
		}
		if err != nil {
			return fmt.Errorf("keeping a stream: %w", err)
		}
		if n != 1 {
			return ErrConflict
		}
		return nil
	}})
}

// DeleteStream commits that there is no such stream any more, with e, a stream.changed.
// It is refused (tool_unknown) where there is none.
func (s *Store) DeleteStream(ctx context.Context, id string, e *ledger.Entry) error {
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		n, err := w.exec(deleteStream, id)
		if err != nil {
			return fmt.Errorf("deleting a stream: %w", err)
		}
		if n != 1 {
			return noStream(id)
		}
		return nil
	}})
}

func noStream(id string) error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no stream %.80q", id)
}

// Streams returns every stream, with how far its receiver has got.
func (s *Store) Streams(ctx context.Context) ([]counterfoil.SignalStream, error) {
	var list []counterfoil.SignalStream
	err := s.readRows(ctx, sqliteTexts[readStreams], func(r []driver.Value) error {
		var st counterfoil.SignalStream
		if err := json.Unmarshal([]byte(r[0].(string)), &st); err != nil {
			return err
		}
		st.Cursor = r[1].(int64)
		list = append(list, st)
		return json.Unmarshal([]byte(r[2].(string)), &list[len(list)-1].Acked)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// AckStream commits how far a receiver has got, with e, a signal.delivered: everything
// up to the entry cursor, and the events at the places acked beyond. Neither is ever
// taken back, so that two who say so at once may do it in any order. It is refused
// (tool_unknown) where there is no such stream.
func (s *Store) AckStream(ctx context.Context, id string, cursor int64, acked []int64, e *ledger.Entry) error {
	acked = slices.Clone(acked)
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		found, have, text := false, int64(0), ""
		err := w.query(streamRow, func(r []driver.Value) error {
			found, have, text = true, r[0].(int64), r[1].(string)
			return nil
		}, id)
		if err != nil {
			return fmt.Errorf("reading a stream: %w", err)
		}
		if !found {
			return noStream(id)
		}
		var all []int64
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return fmt.Errorf("reading a stream: %w", err)
		}
		cursor := max(cursor, have)
		all = slices.DeleteFunc(append(all, acked...), func(place int64) bool { return place/counterfoil.MaxEventsOfEntry <= cursor })
		slices.Sort(all)
		b, err := json.Marshal(slices.Compact(all))
		if err != nil {
			return fmt.Errorf("encoding a stream: %w", err)
		}
		if _, err := w.exec(ackStream, id, cursor, string(b)); err != nil {
			return fmt.Errorf("keeping how far a stream is: %w", err)
		}
		return nil
	}})
}
