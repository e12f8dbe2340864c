package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// RequestApproval keeps a new approval with e, an approval.requested, unless the
// same agent, in the same task, has one that is pending or approved and not past
// its time, with equal call digest and equal key: then that one is returned,
// attached is true and nothing is recorded.
//
// Of a call it is refused where the agent or the instance is not live at the
// caller's epoch, its token is revoked, its task closed or the resource suspended, so
// that no approval comes to be after what revokes them; where
// the agent used the key in the task with another call digest
// (idempotency_mismatch) or for this very call, and that ran (approval_spent);
// where most or more of the agent's are pending, or keptPerPending times as many were
// taken back or ran out and still hold their calls (too_many_pending).
func (s *Store) RequestApproval(ctx context.Context, a counterfoil.Approval, most int, e *ledger.Entry) (kept counterfoil.Approval, attached bool, err error) {
	if a.ID == "" || a.CallDigest == "" || a.Expires.IsZero() || a.Kind != counterfoil.ApprovalOfCall && a.Kind != counterfoil.ApprovalOfChange ||
		(a.Kind == counterfoil.ApprovalOfCall) != (a.Caller.Agent != "") {
		return kept, false, errors.New("requesting an approval: its id, kind, digest or time is missing, or a call's agent, or a change has one")
	}
	if e.Kind != ledger.ApprovalRequested {
		return kept, false, fmt.Errorf("requesting an approval with a %s entry", e.Kind)
	}
	a.State, a.Created, a.Expires = counterfoil.StatePending, fromMillis(millis(a.Created)), fromMillis(millis(a.Expires))
	a.UseUntil, a.Closed, a.Signatures, a.Decided, a.Result, a.Reason = time.Time{}, time.Time{}, nil, 0, nil, ""
	var other counterfoil.Approval // whoever gave up does not look at it while the effect sets it
	d := &decision{bytes: sizeOf(&a)}
	d.effect = func(w writer) error {
		now := s.opt.Now()
		if a.Kind == counterfoil.ApprovalOfCall {
			if err := wantUsable(w, &a, now); err != nil {
				return err
			}
			if err := checkKey(w, &a, now); err != nil {
				return err
			}
		}
		var err error
		other, err = approvalRow(w, openApprovalOfCall, a.Kind, a.Caller.Agent, a.Caller.Task, a.CallDigest, a.Key, millis(now), millis(now))
		if err != nil {
			return err
		}
		if other.ID != "" {
			// As with a pin: that approval may be of this very batch, so the
			// answer waits until it is committed.
			d.entries, d.drafts = nil, []ledger.Draft{}
			return nil
		}
		if a.Kind == counterfoil.ApprovalOfCall {
			if err := checkPending(w, a.Caller.Agent, most, now); err != nil {
				return err
			}
		}
		return putApproval(w, &a)
	}
	if err := s.record(ctx, e, d); err != nil {
		return counterfoil.Approval{}, false, err
	}
	if other.ID != "" {
		return other, true, nil
	}
	return a, false, nil
}

// wantUsable refuses a request by who could not make the call: its agent or instance
// is not live, its token is revoked, its task closed or its resource suspended.
func wantUsable(w writer, a *counterfoil.Approval, now time.Time) error {
	c := &a.Caller
	if err := wantLive(w, counterfoil.Live{Agent: c.Agent, Instance: c.Instance, Epoch: c.Epoch, Unbound: c.Binding == counterfoil.NotBound}); err != nil {
		return err
	}
	dead := false
	err := w.query(findDead, func([]driver.Value) error { dead = true; return nil }, string(counterfoil.TargetToken), c.TokenID)
	if err != nil {
		return fmt.Errorf("reading whether a token is revoked: %w", err)
	}
	if dead {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the token was revoked")
	}
	if err := wantOpenTask(w, c.Task, c.Agent, now); err != nil {
		return err
	}
	return wantInForce(w, counterfoil.TargetResource, a.Tool.Resource, counterfoil.TokenRevoked)
}

// wantLive refuses what is not live at that very epoch, with the codes of Revoked.
func wantLive(w writer, live counterfoil.Live) error {
	status, epoch, err := agentRow(w, live.Agent)
	if err != nil {
		return err
	}
	if live.Unbound && live.Instance == "" && live.Epoch == 0 && status == counterfoil.Active {
		return nil
	}
	instance, err := instanceRow(w, live.Instance, live.Agent)
	if err != nil {
		return err
	}
	switch {
	case status == counterfoil.Suspended:
		return counterfoil.Refuse(counterfoil.AgentSuspended, "agent %q is suspended", live.Agent)
	case status != counterfoil.Active || epoch != live.Epoch:
		return counterfoil.Refuse(counterfoil.TokenRevoked, "agent %q is not live at epoch %d", live.Agent, live.Epoch)
	case instance == counterfoil.Quarantined:
		return quarantined(live.Agent, live.Instance)
	case instance != counterfoil.Active:
		return counterfoil.Refuse(counterfoil.TokenRevoked, "instance %q of agent %q is not live", live.Instance, live.Agent)
	}
	return nil
}

// checkKey refuses an Idempotency-Key that says that this is another call, or the
// same one again. Of an approval that was erased nobody can say which call it was: where
// that ran, the key is used up.
func checkKey(w writer, a *counterfoil.Approval, now time.Time) error {
	if a.Key == "" {
		return nil
	}
	var refusal error
	err := w.query(keyUses, func(r []driver.Value) error {
		ran, digest := counterfoil.ApprovalState(r[0].(string)).Ran(), r[1].(string)
		switch {
		case digest != a.CallDigest && digest != "":
			refusal = keyOfAnother(a.Key)
		case ran && refusal == nil:
			refusal = counterfoil.Refuse(counterfoil.ApprovalSpent, "the call with the Idempotency-Key %q ran already", a.Key)
		}
		return nil
	}, a.Caller.Agent, a.Caller.Task, a.Key)
	if err == nil && refusal == nil {
		// It may have needed nobody then.
		err = w.query(keyOutcome, func(r []driver.Value) error {
			refusal = counterfoil.Refuse(counterfoil.ApprovalSpent, "the call with the Idempotency-Key %q ran already", a.Key)
			if r[0].(string) != a.CallDigest {
				refusal = keyOfAnother(a.Key)
			}
			return nil
		}, a.Caller.Agent, a.Caller.Task, a.Key, millis(now.Add(-outcomeKept)))
	}
	if err != nil {
		return fmt.Errorf("reading the uses of a key: %w", err)
	}
	return refusal
}

// keptPerPending bounds what an agent leaves behind that asks and takes back, again and
// again: for each approval that may be pending, so many that nobody decided may wait to
// be erased. What people decided on is not counted: there are only so many of it.
const keptPerPending = 10

func checkPending(w writer, agent string, most int, now time.Time) error {
	var pending, over int64
	err := w.query(countPending, func(r []driver.Value) error {
		pending, over = r[0].(int64), r[1].(int64)
		return nil
	}, agent, millis(now))
	if err != nil {
		return fmt.Errorf("counting pending approvals: %w", err)
	}
	if pending >= int64(most) {
		return counterfoil.Refuse(counterfoil.TooManyPending, "%d approvals of agent %q are pending; wait for them to be decided", pending, agent)
	}
	if over >= keptPerPending*int64(most) {
		return counterfoil.Refuse(counterfoil.TooManyPending, "%d approvals of agent %q were taken back or ran out undecided, and are still kept; wait until they are erased", over, agent)
	}
	return nil
}

// SignApproval keeps a signature with e, an approval.signed, and moves the approval
// on. closed is recorded after e where the signature ends the approval, which a no
// does; nil otherwise.
func (s *Store) SignApproval(ctx context.Context, sg counterfoil.Signing, e, closed *ledger.Entry) error {
	if err := checkSigning(sg, e, closed); err != nil {
		return err
	}
	groups, err := json.Marshal(sg.Signature.Groups, json.FormatNilSliceAsNull(true))
	if err != nil {
		return fmt.Errorf("signing approval %q: %w", sg.Approval, err)
	}
	d := &decision{entries: []*ledger.Entry{e}}
	if closed != nil {
		d.entries = append(d.entries, closed)
	}
	if d.drafts, err = prepare(d.entries); err != nil {
		return err
	}
	d.effect = func(w writer) error {
		now := s.opt.Now()
		a, err := approvalRow(w, readApproval, sg.Approval)
		if err != nil {
			return err
		}
		if err := maySign(w, &a, &sg, now); err != nil {
			return err
		}
		if err := keepUse(w, sg.Signature.Passkey, sg.SignCount, sg.BackedUp, now); err != nil {
			return err
		}
		g := &sg.Signature
		_, err = w.exec(insertSignature, a.ID, int64(len(a.Signatures)), g.Person, g.Mailbox, g.Passkey, g.Decision, g.Reason,
			string(groups), millis(g.At), g.Record, g.Digest)
		if err != nil {
			return fmt.Errorf("keeping a signature: %w", err)
		}
		switch sg.Next {
		case counterfoil.StateApproved:
			if _, err := w.exec(approveApproval, a.ID, millis(sg.UseUntil)); err != nil {
				return fmt.Errorf("approving approval %q: %w", a.ID, err)
			}
		case counterfoil.StateDenied:
			return move(w, a.ID, a.State, sg.Next, g.Reason, now)
		}
		return nil
	}
	return s.commit(ctx, d)
}

// checkSigning looks for what no caller means.
func checkSigning(sg counterfoil.Signing, e, closed *ledger.Entry) error {
	if e.Kind != ledger.ApprovalSigned || closed != nil && closed.Kind != ledger.ApprovalClosed {
		return errors.New("signing an approval with entries of other kinds")
	}
	if g := &sg.Signature; g.Person == "" || g.Mailbox == "" || len(g.Passkey) == 0 || len(g.Record) == 0 || g.Digest == "" || g.At.IsZero() {
		return errors.New("signing an approval: person, mailbox, passkey, record or time is missing")
	}
	yes, no := sg.Signature.Decision == counterfoil.DecisionApprove, sg.Signature.Decision == counterfoil.DecisionDeny
	switch {
	case yes && sg.Next == counterfoil.StatePending && closed == nil && sg.UseUntil.IsZero():
	case yes && sg.Next == counterfoil.StateApproved && closed == nil && !sg.UseUntil.IsZero():
	case no && sg.Next == counterfoil.StateDenied && closed != nil && sg.UseUntil.IsZero():
	default:
		return fmt.Errorf("signing an approval: with %q it cannot become %s, or an entry or its time is missing or too many", sg.Signature.Decision, sg.Next)
	}
	return nil
}

// maySign refuses a signature that the approval does not take.
func maySign(w writer, a *counterfoil.Approval, sg *counterfoil.Signing, now time.Time) error {
	if a.State != counterfoil.StatePending || pastTime(a, now) {
		return refuseState(a, now)
	}
	g := &sg.Signature
	for i := range a.Signatures {
		// Who said yes may still say no: one no ends it.
		if o := &a.Signatures[i]; g.Decision != counterfoil.DecisionDeny && (o.Person == g.Person || o.Mailbox == g.Mailbox || bytes.Equal(o.Passkey, g.Passkey)) {
			return counterfoil.Refuse(counterfoil.ApproverNotDistinct, "this person, mailbox or passkey signed already")
		}
	}
	if len(a.Signatures) != sg.Previous {
		return counterfoil.ErrOvertaken
	}
	// The engine counts; it is here once more because nothing comes after.
	if sg.Next == counterfoil.StateApproved && len(a.Signatures)+1 < max(a.Rule.Required, 1) {
		return fmt.Errorf("approving approval %q: %d signatures of %d", a.ID, len(a.Signatures)+1, a.Rule.Required)
	}
	if err := wantInForce(w, counterfoil.TargetPerson, g.Person, counterfoil.ApproverNotEligible); err != nil {
		return err
	}
	p, err := passkeyRow(w, g.Passkey)
	if err != nil {
		return err
	}
	if p.Person != g.Person || p.Status != counterfoil.Active {
		return counterfoil.Refuse(counterfoil.PasskeyRefused, "the passkey is not an active one of %q", g.Person)
	}
	return nil
}

// move takes an approval from one state to another, which closes it.
func move(w writer, id string, from, to counterfoil.ApprovalState, reason string, now time.Time) error {
	n, err := w.exec(moveApproval, id, string(from), string(to), reason, millis(now))
	if err != nil {
		return fmt.Errorf("closing approval %q: %w", id, err)
	}
	if n != 1 {
		return fmt.Errorf("closing approval %q: it is not %s", id, from)
	}
	return nil
}

// closes lists what CloseApproval does. An approval of a call that was spent ends
// with FinishApproval, and only what is not known is said by a person.
var closes = map[counterfoil.ApprovalState][]counterfoil.ApprovalState{
	counterfoil.StateExpired:    {counterfoil.StatePending, counterfoil.StateApproved},
	counterfoil.StateCancelled:  {counterfoil.StatePending, counterfoil.StateApproved},
	counterfoil.StateSuperseded: {counterfoil.StatePending, counterfoil.StateApproved},
	counterfoil.StateRevoked:    {counterfoil.StatePending, counterfoil.StateApproved},
	counterfoil.StateSucceeded:  {counterfoil.StateIndeterminate},
	counterfoil.StateFailed:     {counterfoil.StateIndeterminate},
}

// CloseApproval moves an approval from one of the states to another with e, an
// approval.closed. It is refused with the code of the state that the approval is in
// when that is none of them, and when it is to expire before its time.
func (s *Store) CloseApproval(ctx context.Context, id string, from []counterfoil.ApprovalState, to counterfoil.ApprovalState, reason string, e *ledger.Entry) error {
	if e.Kind != ledger.ApprovalClosed {
		return fmt.Errorf("closing an approval with a %s entry", e.Kind)
	}
	for _, f := range from {
		if !slices.Contains(closes[to], f) {
			return fmt.Errorf("closing an approval: from %s it does not become %s", f, to)
		}
	}
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		now := s.opt.Now()
		a, err := approvalRow(w, readApproval, id)
		if err != nil {
			return err
		}
		if a.ID == "" || !slices.Contains(from, a.State) || to == counterfoil.StateExpired && !pastTime(&a, now) {
			return refuseState(&a, now)
		}
		return move(w, id, a.State, to, reason, now)
	}})
}

// EraseApprovals forgets what closed approvals hold of their calls, all of them or
// nothing, with e: call, fields, statement, rendering, result, and the digest of the
// call, which could be compared with a guess. What is open, runs, or waits for a
// person to say whether it ran is refused (request_malformed).
func (s *Store) EraseApprovals(ctx context.Context, ids []string, e *ledger.Entry) error {
	if len(ids) == 0 || e.Kind != ledger.ApprovalErased {
		return fmt.Errorf("erasing %d approvals with a %s entry", len(ids), e.Kind)
	}
	ids = slices.Clone(ids)
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		for _, id := range ids {
			n, err := w.exec(eraseApproval, id)
			if err != nil {
				return fmt.Errorf("erasing approval %q: %w", id, err)
			}
			if n != 1 {
				return counterfoil.Refuse(counterfoil.RequestMalformed, "approval %q is not known or not closed; nothing was erased", id)
			}
		}
		return nil
	}})
}
