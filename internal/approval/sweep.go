package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	sweepEvery  = 5 * time.Second
	eraseAfter  = 24 * time.Hour // since it was closed, where the class keeps payloads
	sweepAtMost = 10_000
)

// Run sweeps at once and then again and again, until ctx ends.
func (e *Engine) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := e.Sweep(ctx); err != nil && ctx.Err() == nil {
			e.log.Error("sweeping approvals", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Sweep records what expired, tells of what was revoked, hands on what was decided and not taken up, and erases
// what nobody needs any more. Nothing rests on it: what is past its time does not count
// whether or not it was swept.
func (e *Engine) Sweep(ctx context.Context) error {
	return errors.Join(e.expire(ctx), e.tellOfRevoked(ctx), e.handOn(ctx), e.erase(ctx))
}

func (e *Engine) expire(ctx context.Context) error {
	list, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{
		States: []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}, Brief: true, Limit: sweepAtMost,
	})
	if err != nil {
		return fmt.Errorf("looking for what expired: %w", err)
	}
	now := e.now()
	for i := range list {
		a := &list[i]
		if stateAt(a, now) != counterfoil.StateExpired {
			continue
		}
		why := "nobody decided in time"
		if a.State == counterfoil.StateApproved {
			why = "it was not used in time"
		}
		err := e.close(ctx, a, counterfoil.StateExpired, "", why)
		if _, refused := counterfoil.AsRefusal(err); err != nil && !refused { // refused: something else ended it first
			return fmt.Errorf("recording that approval %s expired: %w", a.ID, err)
		}
	}
	return nil
}

// tellOfRevoked tells of approvals that were revoked together with what they stood on,
// by who knows nobody to tell: those who were asked about them learn that nothing is
// wanted of them any more. An agent sees it at its next look; a notice that a restart
// lost is lost.
func (e *Engine) tellOfRevoked(ctx context.Context) error {
	list, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{States: []counterfoil.ApprovalState{counterfoil.StateRevoked}, Brief: true, Limit: 500})
	if err != nil {
		return fmt.Errorf("looking for what was revoked: %w", err)
	}
	for i := range slices.Backward(list) {
		if a := &list[i]; e.told.news(a) {
			e.notify(ctx, EventClosed, a)
		}
	}
	e.told.upTo(list)
	return nil
}

// handOn tells of approvals that were decided and that nobody has taken up: after a
// start, and where whoever is told was not there to be told. What was denied long ago
// is looked at once after a start.
func (e *Engine) handOn(ctx context.Context) error {
	now := e.now()
	for _, f := range []counterfoil.ApprovalFilter{
		{Kind: counterfoil.ApprovalOfCall, Held: true, States: []counterfoil.ApprovalState{counterfoil.StateApproved}, Brief: true, Limit: sweepAtMost},
		{Kind: counterfoil.ApprovalOfChange, States: []counterfoil.ApprovalState{counterfoil.StateApproved, counterfoil.StateDenied}, Limit: 1000},
	} {
		list, err := e.store.Approvals(ctx, f)
		if err != nil {
			return fmt.Errorf("looking for what was decided: %w", err)
		}
		// The oldest first: where there is no room for all, it is theirs.
		for i := range slices.Backward(list) {
			a := &list[i]
			old := a.State == counterfoil.StateDenied && e.caughtUp.Load() && now.Sub(a.Closed) > 12*sweepEvery
			if stateAt(a, now) == a.State && !old {
				e.decidedNow(ctx, a)
			}
		}
	}
	e.caughtUp.Store(true)
	return nil
}

// erase forgets the calls, renderings and results of approvals that are over. Where the
// class keeps no payloads it is as soon as no repeat without an Idempotency-Key can mean
// them any more, that is past their deadline, and whoever waits for an answer had time to
// fetch it; else a day later. What nobody knows the
// end of is kept for whoever has to find out.
func (e *Engine) erase(ctx context.Context) error {
	list, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{Erasable: true, Brief: true, Limit: sweepAtMost})
	if err != nil {
		return fmt.Errorf("looking for what to erase: %w", err)
	}
	reg, _ := e.store.Registry()
	now := e.now()
	var ids []string
	for i := range list {
		a := &list[i]
		if a.State.Open() || a.State == counterfoil.StateSpent || a.State == counterfoil.StateIndeterminate {
			continue
		}
		due := a.Expires
		if (a.Held || a.Key != "") && due.Before(a.Closed.Add(fetchWindow)) {
			due = a.Closed.Add(fetchWindow)
		}
		// What nobody decided on and never ran proves nothing to anybody.
		nothing := !a.State.Ran() && len(a.Signatures) == 0
		if (reg.Classes[a.Class].KeepsPayload() || a.Kind == counterfoil.ApprovalOfChange) && !nothing {
			due = a.Closed.Add(eraseAfter)
		}
		if now.Before(due) || now.Before(a.Closed) || len(ids) == 1000 {
			continue
		}
		ids = append(ids, a.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	entry := &ledger.Entry{Kind: ledger.ApprovalErased, Detail: map[string]any{"approvals": ids}}
	if err := e.store.EraseApprovals(ctx, ids, entry); err != nil {
		return fmt.Errorf("erasing %d approvals: %w", len(ids), err)
	}
	return nil
}
