package approval

import (
	"context"

	"github.com/counterfoil/counterfoil"
)

// HeldCall returns the approval of a call that the gateway makes itself, with
// everything that it needs for that.
func (e *Engine) HeldCall(ctx context.Context, id string) (counterfoil.Approval, error) {
	a, ok, err := e.store.Approval(ctx, id)
	if err != nil {
		return counterfoil.Approval{}, err
	}
	if !ok || !a.Held || a.Kind != counterfoil.ApprovalOfCall {
		return counterfoil.Approval{}, noApproval()
	}
	a.State = stateAt(&a, e.now())
	return a, nil
}

// GiveUp closes an approved held call that may not run as things are now: a policy,
// a pin or a limit says no, or what was approved is not there any more. The agent
// learns why; an equal call is a new request.
func (e *Engine) GiveUp(ctx context.Context, id string, why *counterfoil.Refusal) error {
	a, err := e.HeldCall(ctx, id)
	if err != nil || a.State != counterfoil.StateApproved {
		return err
	}
	return e.close(ctx, &a, counterfoil.StateSuperseded, "", string(why.Recorded())+": "+why.Reason())
}
