package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net/netip"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// An approvalBody is what is kept of an approval as JSON: what nobody looks it up
// by, and what never changes.
type approvalBody struct {
	Requester  string                   `json:"requester,omitzero"`
	Openers    []string                 `json:"openers,omitzero"`
	Owner      string                   `json:"owner,omitzero"`
	Caller     counterfoil.Caller       `json:"caller,omitzero"`
	For        string                   `json:"for,omitzero"`
	ForEpoch   int64                    `json:"for_epoch,omitzero"`
	RequestID  string                   `json:"request_id"`
	Source     netip.Addr               `json:"source,omitzero"`
	Tool       counterfoil.ToolID       `json:"tool"`
	ToolDigest string                   `json:"tool_digest,omitzero"`
	Class      string                   `json:"class"`
	Rule       counterfoil.ApprovalRule `json:"rule"`
	Digest     string                   `json:"digest"`
	Earlier    string                   `json:"earlier,omitzero"`
}

// An approvalReader collects the rows that approvalRows reads.
type approvalReader struct{ list []counterfoil.Approval }

// row takes one row: an approval with one of its signatures, or without any.
func (r *approvalReader) row(v []driver.Value) error {
	if n := len(r.list); n == 0 || r.list[n-1].ID != v[0].(string) {
		a, err := approvalOf(v)
		if err != nil {
			return fmt.Errorf("reading approval %q: %w", v[0], err)
		}
		r.list = append(r.list, a)
	}
	if v[18] == nil {
		return nil
	}
	a := &r.list[len(r.list)-1]
	s, err := signatureOf(v[19:])
	if err != nil {
		return fmt.Errorf("reading a signature of approval %q: %w", a.ID, err)
	}
	a.Signatures = append(a.Signatures, s)
	return nil
}

func approvalOf(v []driver.Value) (counterfoil.Approval, error) {
	var b approvalBody
	if err := json.Unmarshal([]byte(v[11].(string)), &b); err != nil {
		return counterfoil.Approval{}, err
	}
	a := counterfoil.Approval{
		ID: v[0].(string), State: counterfoil.ApprovalState(v[1].(string)), Kind: v[2].(string), Key: v[3].(string), Held: v[4].(int64) == 1,
		Requester: b.Requester, Openers: b.Openers, Owner: b.Owner, Caller: b.Caller, For: b.For, ForEpoch: b.ForEpoch, RequestID: b.RequestID, Source: b.Source,
		Tool: b.Tool, ToolDigest: b.ToolDigest, Class: b.Class, Rule: b.Rule, Digest: b.Digest, Earlier: b.Earlier,
		Created: fromMillis(v[5].(int64)), Expires: fromMillis(v[6].(int64)), UseUntil: fromMillis(v[7].(int64)), Closed: fromMillis(v[8].(int64)),
		Decided: v[9].(int64), Reason: v[10].(string), CallDigest: v[12].(string),
		Statement: bytesOf(v[14]), Rendering: bytesOf(v[15]), Call: bytesOf(v[16]), Result: bytesOf(v[17]),
	}
	if text, ok := v[13].(string); ok {
		if err := json.Unmarshal([]byte(text), &a.Fields); err != nil {
			return counterfoil.Approval{}, err
		}
	}
	return a, nil
}

func signatureOf(v []driver.Value) (counterfoil.Signature, error) {
	s := counterfoil.Signature{
		Person: v[0].(string), Mailbox: v[1].(string), Passkey: bytesOf(v[2]), Decision: v[3].(string), Reason: v[4].(string),
		At: fromMillis(v[6].(int64)), Record: bytesOf(v[7]), Digest: v[8].(string),
	}
	return s, json.Unmarshal([]byte(v[5].(string)), &s.Groups)
}

// bytesOf returns a blob, nil for NULL.
func bytesOf(v driver.Value) []byte {
	b, _ := v.([]byte)
	return b
}

// blobOf returns what is bound for a blob that may be none: NULL for nil.
func blobOf(b []byte) driver.Value {
	if b == nil {
		return nil
	}
	return b
}

// sizeOf is about how many bytes an approval takes that somebody else chose.
func sizeOf(a *counterfoil.Approval) int {
	n := len(a.Statement) + len(a.Rendering) + len(a.Call)
	for name, value := range a.Fields {
		n += len(name) + len(value)
	}
	return n
}

// putApproval keeps an approval that is pending.
func putApproval(w writer, a *counterfoil.Approval) error {
	body, err := json.Marshal(approvalBody{
		Requester: a.Requester, Openers: a.Openers, Owner: a.Owner, Caller: a.Caller, For: a.For, ForEpoch: a.ForEpoch, RequestID: a.RequestID, Source: a.Source,
		Tool: a.Tool, ToolDigest: a.ToolDigest, Class: a.Class, Rule: a.Rule, Digest: a.Digest, Earlier: a.Earlier,
	}, json.FormatNilSliceAsNull(true))
	if err != nil {
		return fmt.Errorf("encoding approval %q: %w", a.ID, err)
	}
	var fields driver.Value
	if a.Fields != nil {
		b, err := json.Marshal(a.Fields, json.Deterministic(true))
		if err != nil {
			return fmt.Errorf("encoding approval %q: %w", a.ID, err)
		}
		fields = string(b)
	}
	n, err := w.exec(insertApproval, a.ID, a.Kind, a.Caller.Agent, a.Caller.Instance, a.Caller.Task, a.Key, a.Held, millis(a.Created), millis(a.Expires),
		string(body), a.CallDigest, fields, blobOf(a.Statement), blobOf(a.Rendering), blobOf(a.Call))
	if err != nil {
		return fmt.Errorf("keeping approval %q: %w", a.ID, err)
	}
	if n != 1 {
		return fmt.Errorf("keeping approval %q: its id is taken", a.ID)
	}
	return nil
}

// approvalRow returns the one approval that a statement reads; the zero Approval
// when there is none.
func approvalRow(w writer, st statement, args ...driver.Value) (counterfoil.Approval, error) {
	var r approvalReader
	if err := w.query(st, r.row, args...); err != nil {
		return counterfoil.Approval{}, fmt.Errorf("reading an approval: %w", err)
	}
	if len(r.list) == 0 {
		return counterfoil.Approval{}, nil
	}
	return r.list[0], nil
}

// pastTime reports whether the time is over that an approval has in its state.
// Nobody needs to have written that down.
func pastTime(a *counterfoil.Approval, now time.Time) bool {
	switch a.State {
	case counterfoil.StatePending:
		return millis(a.Expires) <= millis(now)
	case counterfoil.StateApproved:
		return millis(a.UseUntil) <= millis(now)
	}
	return false
}

// refuseState is the refusal of an approval that is not in the state that was
// asked for.
func refuseState(a *counterfoil.Approval, now time.Time) error {
	switch {
	case a.ID == "":
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such approval")
	case pastTime(a, now) || a.State == counterfoil.StateExpired:
		return counterfoil.Refuse(counterfoil.ApprovalExpired, "the time of approval %s is over", a.ID)
	case a.State.Ran():
		return counterfoil.Refuse(counterfoil.ApprovalSpent, "approval %s was used: its call %s", a.ID, a.State)
	case a.State == counterfoil.StatePending:
		return counterfoil.Refuse(counterfoil.ApprovalPending, "approval %s is not decided yet", a.ID)
	case a.State == counterfoil.StateApproved:
		return counterfoil.Refuse(counterfoil.ApprovalPending, "approval %s is approved and not used yet", a.ID)
	case a.State == counterfoil.StateDenied:
		return counterfoil.Refuse(counterfoil.ApprovalDenied, "approval %s was denied", a.ID)
	case a.State == counterfoil.StateCancelled:
		return counterfoil.Refuse(counterfoil.ApprovalCancelled, "approval %s was cancelled", a.ID)
	case a.State == counterfoil.StateSuperseded:
		return counterfoil.Refuse(counterfoil.ApprovalSuperseded, "approval %s is for a call that would run otherwise now", a.ID)
	}
	return counterfoil.Refuse(counterfoil.ApprovalRevoked, "approval %s was revoked", a.ID)
}

// Approval returns an approval with its signatures; ok is false for an id that
// nobody has.
func (s *Store) Approval(ctx context.Context, id string) (a counterfoil.Approval, ok bool, err error) {
	var r approvalReader
	if err := s.readRows(ctx, sqliteTexts[readApproval], r.row, id); err != nil || len(r.list) == 0 {
		return counterfoil.Approval{}, false, err
	}
	return r.list[0], true, nil
}

// Approvals returns those that the filter chooses, newest first.
func (s *Store) Approvals(ctx context.Context, f counterfoil.ApprovalFilter) ([]counterfoil.Approval, error) {
	var r approvalReader
	text, args := approvalFilter(f)
	if err := s.readRows(ctx, text, r.row, args...); err != nil {
		return nil, err
	}
	return r.list, nil
}

// readRows runs a query on a connection that reads, as writer.query does on the
// one that writes. What was committed before is seen.
func (s *Store) readRows(ctx context.Context, text string, row func([]driver.Value) error, args ...any) error {
	rows, err := s.reads.QueryContext(ctx, text, args...)
	if err != nil {
		return tableFault(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return tableFault(err)
	}
	scanned, into, values := make([]any, len(columns)), make([]any, len(columns)), make([]driver.Value, len(columns))
	for i := range scanned {
		into[i] = &scanned[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return tableFault(err)
		}
		for i, v := range scanned {
			values[i] = v
		}
		if err := row(values); err != nil {
			return tableFault(err)
		}
	}
	if err := rows.Err(); err != nil {
		return tableFault(err)
	}
	return nil
}

func tableFault(err error) error {
	return counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading the store: %w", err))
}
