package approval

import (
	"context"

	"github.com/counterfoil/counterfoil"
)

// VerifyChange verifies the signatures of an approved change once more, at the moment
// when it is to take effect: signers, their groups and their passkeys are to be what
// they were. One that does not hold is revoked, and refused with approval_revoked: the
// change then waits for its time.
func (e *Engine) VerifyChange(ctx context.Context, id string) error {
	a, ok, err := e.store.Approval(ctx, id)
	if err != nil {
		return err
	}
	if !ok || a.Kind != counterfoil.ApprovalOfChange || stateAt(&a, e.now()) != counterfoil.StateApproved {
		return counterfoil.Refuse(counterfoil.ApprovalMismatch, "%s is no approved change", id)
	}
	reg, _ := e.crowd()
	why, err := e.doubt(ctx, reg, &a)
	if err != nil || why == "" {
		return err
	}
	if err := e.close(ctx, &a, counterfoil.StateRevoked, "", why); err != nil {
		return err
	}
	return counterfoil.Refuse(counterfoil.ApprovalRevoked, "approval %s does not hold any more: %s", id, why)
}
