package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// SpendApproval commits e, a call.decided that allows, and spends the approval in
// the same transaction: only where it is approved, its time to be used is not over,
// agent, call digest, task and number of signatures are those of sp, agent and
// instance are live at that epoch, the task is open and the call counted against it as
// DecideUsing does, and every taking fits its limit. Where the registry
// is of another revision than sp it returns counterfoil.ErrChanged. Whatever is
// refused spends nothing and takes nothing. As after Decide the call is open, and the
// caller must not act before SpendApproval has returned nil.
func (s *Store) SpendApproval(ctx context.Context, sp counterfoil.Spending, e *ledger.Entry, payload []byte) error {
	if e.Kind != ledger.CallDecided || e.Decision != ledger.Allow {
		return fmt.Errorf("spending an approval with a %s entry that says %q", e.Kind, e.Decision)
	}
	// By the entry a start finds the approval of a call that has no end.
	if sp.Approval == "" || e.Approval.ID != sp.Approval {
		return fmt.Errorf("spending approval %q with an entry that names %q", sp.Approval, e.Approval.ID)
	}
	if sp.Revision == "" {
		return fmt.Errorf("spending approval %q: nobody says what it was verified under", sp.Approval)
	}
	takings, err := onceEach(sp.Takings)
	if err != nil {
		return err
	}
	task, closed := s.chain(sp.Use.Task, sp.Live.Agent)
	d := &decision{opens: true}
	d.effect = func(w writer) error {
		now := s.opt.Now()
		if err := wantRevision(w, sp.Revision); err != nil {
			return err
		}
		a, err := approvalRow(w, readApproval, sp.Approval)
		if err != nil {
			return err
		}
		if err := maySpend(w, &a, &sp, now); err != nil {
			return err
		}
		// Not before it is known that the approval is the caller's: who names one of
		// somebody else learns nothing of its task.
		if closed != nil {
			return closed
		}
		if err := count(w, task, &sp.Use, now); err != nil {
			return err
		}
		if err := take(w, sp.Takings, now); err != nil {
			return err
		}
		for _, t := range takings {
			if _, err := w.exec(insertTaking, t.Class, t.Field, t.Agent, millis(now), d.index, t.Amount); err != nil {
				return fmt.Errorf("taking from a limit: %w", err)
			}
		}
		n, err := w.exec(spendApproval, a.ID, d.index, millis(now))
		if err != nil {
			return fmt.Errorf("spending approval %q: %w", a.ID, err)
		}
		if n != 1 {
			return fmt.Errorf("spending approval %q: it is not approved", a.ID)
		}
		return nil
	}
	s.commitTo(d, e, payload)
	return s.record(ctx, e, d)
}

// wantRevision returns counterfoil.ErrChanged where the registry is of another revision
// than the one that was looked at. A change of it commits the next with its documents,
// so nothing of another rule is spent after that.
func wantRevision(w writer, looked string) error {
	var now string
	err := w.query(getMeta, func(r []driver.Value) error { now = r[0].(string); return nil }, "revision")
	if err != nil {
		return fmt.Errorf("reading the registry's revision: %w", err)
	}
	if now != looked {
		return counterfoil.ErrChanged
	}
	return nil
}

// maySpend refuses an approval that does not let this call go. Whoever names an
// approval of somebody else, or of another call, learns nothing of it.
func maySpend(w writer, a *counterfoil.Approval, sp *counterfoil.Spending, now time.Time) error {
	if a.ID == "" || a.Kind != counterfoil.ApprovalOfCall || a.Caller.Agent != sp.Live.Agent || a.Caller.Task != sp.Use.Task ||
		a.CallDigest != sp.CallDigest && a.CallDigest != "" { // which is empty once it is erased, and closed then
		return counterfoil.Refuse(counterfoil.ApprovalMismatch, "the approval is not of this call")
	}
	if a.State != counterfoil.StateApproved || pastTime(a, now) {
		return refuseState(a, now)
	}
	if len(a.Signatures) != sp.Signatures || sp.Signatures < max(a.Rule.Required, 1) {
		return counterfoil.Refuse(counterfoil.ApprovalMismatch, "the approval has %d signatures, %d were verified and %d are needed",
			len(a.Signatures), sp.Signatures, a.Rule.Required)
	}
	return wantLive(w, sp.Live)
}

// onceEach returns the takings without those that take the same from the same: two
// limits that look at one field have one taking of it.
func onceEach(takings []counterfoil.Taking) ([]counterfoil.Taking, error) {
	var once []counterfoil.Taking
	for _, t := range takings {
		if t.Class == "" || t.Field == "" || t.Agent == "" || t.Amount < 0 || t.Window <= 0 {
			return nil, errors.New("taking from a limit: its class, field, agent or window is missing, or the amount is negative")
		}
		i := slices.IndexFunc(once, func(o counterfoil.Taking) bool { return o.Class == t.Class && o.Field == t.Field && o.Agent == t.Agent })
		switch {
		case i < 0:
			once = append(once, t)
		case once[i].Amount != t.Amount:
			return nil, fmt.Errorf("taking from a limit: two amounts of the field %q", t.Field)
		}
	}
	return once, nil
}

// take refuses (limit_exceeded) what does not fit a limit, whatever its sums are.
func take(w writer, takings []counterfoil.Taking, now time.Time) error {
	for _, t := range takings {
		var high, low int64 // of the sum: high<<32 + low
		err := w.query(sumTakings, func(r []driver.Value) error {
			high, low = r[0].(int64), r[1].(int64)
			return nil
		}, t.Class, t.Field, t.Agent, millis(now.Add(-t.Window)))
		if err != nil {
			return fmt.Errorf("summing what was taken from a limit: %w", err)
		}
		if !fits(high, low, t.Amount, t.Max) {
			return counterfoil.Refuse(counterfoil.LimitExceeded,
				"the limit of class %s on the sum of %q within %s does not leave as much; wait for the window to pass, or ask for less", t.Class, t.Field, t.Window)
		}
	}
	return nil
}

// Taken returns how much of the taking's limit is used now, in ten-thousandths, or
// math.MaxInt64 where it is more than that. It decides nothing: SpendApproval does.
func (s *Store) Taken(ctx context.Context, t counterfoil.Taking) (int64, error) {
	var high, low int64
	err := s.reads.QueryRowContext(ctx, sqliteTexts[sumTakings], t.Class, t.Field, t.Agent, millis(s.opt.Now().Add(-t.Window))).Scan(&high, &low)
	if err != nil {
		return 0, counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("summing what was taken from a limit: %w", err))
	}
	if !fits(high, low, 0, math.MaxInt64) {
		return math.MaxInt64, nil
	}
	return high<<32 + low, nil
}

// fits reports whether high<<32 + low + amount is at most limit. None of them is
// negative but, for an error of whoever asks, the limit.
func fits(high, low, amount, limit int64) bool {
	if limit < 0 || high > limit>>32 {
		return false
	}
	left := limit - high<<32 // not negative, as high<<32 is at most limit
	return low <= left && amount <= left-low
}

// FinishApproval commits e, the call.finished of the open call that the approval was
// spent for, and how it ended. The result is kept for whoever may repeat the call;
// nil keeps none.
func (s *Store) FinishApproval(ctx context.Context, id string, state counterfoil.ApprovalState, result []byte, e *ledger.Entry) error {
	if e.Kind != ledger.CallFinished || e.Of < 0 || id == "" {
		return fmt.Errorf("finishing call %d of approval %q with a %s entry", e.Of, id, e.Kind)
	}
	switch state {
	case counterfoil.StateSucceeded, counterfoil.StateFailed, counterfoil.StateIndeterminate:
	default:
		return fmt.Errorf("finishing the call of approval %q: %s is no end", id, state)
	}
	d := &decision{bytes: len(result)}
	d.oneEnd[0] = e.Of
	d.ends = d.oneEnd[:]
	of := e.Of
	d.effect = func(w writer) error {
		n, err := w.exec(finishApproval, id, of, string(state), blobOf(result))
		if err != nil {
			return fmt.Errorf("finishing approval %q: %w", id, err)
		}
		if n != 1 {
			return fmt.Errorf("finishing approval %q: it was not spent for call %d", id, of)
		}
		return nil
	}
	return s.record(ctx, e, d)
}

// endApproval says of the approval of a call that has no end that nobody knows
// whether it ran, and reports whether there is such an approval.
func endApproval(w writer, id string, call int64) (bool, error) {
	n, err := w.exec(finishApproval, id, call, string(counterfoil.StateIndeterminate), nil)
	if err != nil {
		return false, fmt.Errorf("ending approval %q: %w", id, err)
	}
	return n == 1, nil
}
