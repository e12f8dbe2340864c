package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// PutProposal commits a change that waits, with e, a change.proposed. Its approval,
// where it has one, is an open one of a change, or it is refused with the code of
// its state.
func (s *Store) PutProposal(ctx context.Context, p counterfoil.Proposal, e *ledger.Entry) error {
	if p.ID == "" || len(p.Documents) == 0 || p.Effective.IsZero() {
		return errors.New("keeping a proposal: its id, documents or time is missing")
	}
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		if p.Approval != "" {
			a, err := approvalRow(w, readApproval, p.Approval)
			if err != nil {
				return err
			}
			if a.Kind != counterfoil.ApprovalOfChange || !a.State.Open() {
				return refuseChange(&a, s.opt.Now())
			}
		}
		n, err := w.exec(insertProposal, p.ID, p.Documents, p.Digest, p.Actor, p.Approval, millis(p.Created), millis(p.Effective))
		if err != nil {
			return fmt.Errorf("keeping proposal %q: %w", p.ID, err)
		}
		if n != 1 {
			return fmt.Errorf("keeping proposal %q: its id is taken", p.ID)
		}
		return nil
	}})
}

// refuseChange is the refusal of an approval that is not one of a change, or not in
// the state that was asked for.
func refuseChange(a *counterfoil.Approval, now time.Time) error {
	if a.ID != "" && a.Kind != counterfoil.ApprovalOfChange {
		return counterfoil.Refuse(counterfoil.ApprovalMismatch, "approval %s is not of a change", a.ID)
	}
	return refuseState(a, now)
}

// Proposals returns the changes that wait, oldest first.
func (s *Store) Proposals(ctx context.Context) ([]counterfoil.Proposal, error) {
	var list []counterfoil.Proposal
	err := s.readRows(ctx, sqliteTexts[readProposals], func(r []driver.Value) error {
		list = append(list, counterfoil.Proposal{
			ID: r[0].(string), Documents: bytesOf(r[1]), Digest: r[2].(string), Actor: r[3].(string), Approval: r[4].(string),
			Created: fromMillis(r[5].(int64)), Effective: fromMillis(r[6].(int64)),
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// CloseProposal commits that a change will not be made, with e, a change.closed. Its
// approval, where that is open, is cancelled, and the entry says so. It is refused
// (tool_unknown) where the proposal does not wait any more: it is closed once.
func (s *Store) CloseProposal(ctx context.Context, id string, e *ledger.Entry) error {
	return s.amended(ctx, []*ledger.Entry{e}, nil, func(w writer, d *decision) error {
		p, err := takeProposal(w, id)
		if err != nil || p.Approval == "" {
			return err
		}
		a, err := approvalRow(w, readApproval, p.Approval)
		if err != nil || !a.State.Open() {
			return err
		}
		if err := move(w, a.ID, a.State, counterfoil.StateCancelled, "the change that it is for was taken back", s.opt.Now()); err != nil {
			return err
		}
		d.tell(0, &losses{Voided: counterfoil.Voided{Approvals: []string{a.ID}}})
		return nil
	})
}

// takeProposal closes a proposal that waits.
func takeProposal(w writer, id string) (p counterfoil.Proposal, err error) {
	err = w.query(readProposal, func(r []driver.Value) error {
		p = counterfoil.Proposal{ID: id, Approval: r[0].(string), Effective: fromMillis(r[1].(int64))}
		return nil
	}, id)
	if err != nil {
		return p, fmt.Errorf("reading proposal %q: %w", id, err)
	}
	n, err := w.exec(deleteProposal, id)
	if err != nil {
		return p, fmt.Errorf("closing proposal %q: %w", id, err)
	}
	if n != 1 {
		return p, counterfoil.Refuse(counterfoil.ToolUnknown, "no change %q waits", id)
	}
	return p, nil
}

// makeProposal closes the proposal whose change is made, with the approval that let it be.
// Before its time that approval is approved and may be used. From then on it needs
// none; but what a person said no to is never made.
func makeProposal(w writer, id string, now time.Time) error {
	p, err := takeProposal(w, id)
	if err != nil {
		return err
	}
	due := millis(p.Effective) <= millis(now)
	if p.Approval == "" {
		if !due {
			return counterfoil.Refuse(counterfoil.ApprovalPending, "change %q waits for its time", id)
		}
		return nil
	}
	a, err := approvalRow(w, readApproval, p.Approval)
	if err != nil {
		return err
	}
	switch a.State {
	case counterfoil.StateApproved:
		if !due && pastTime(&a, now) {
			return refuseChange(&a, now)
		}
		return move(w, a.ID, a.State, counterfoil.StateSucceeded, "", now)
	case counterfoil.StatePending, counterfoil.StateExpired, counterfoil.StateRevoked:
		if due {
			return nil
		}
	}
	return refuseChange(&a, now)
}
