package approval

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A Store keeps approvals, passkeys and codes. Each verb that changes something
// commits it in one transaction with its entries, or returns a refusal or a fault
// and commits neither. Of any number of concurrent calls for what may happen once,
// exactly one succeeds. Safe for concurrent use; what was acknowledged is seen by
// every later call.
type Store interface {
	Approvals
	Passkeys
	Standing

	// Registry returns what is declared. It is immutable.
	Registry() (*counterfoil.Registry, string)
	// AgentState is where an agent is in its life; zero for a name nobody had.
	AgentState(agent string) counterfoil.AgentState
	// Entry returns the exact bytes of an entry of the log.
	Entry(ctx context.Context, index int64) ([]byte, error)
	// Append commits an entry that changes nothing else.
	Append(ctx context.Context, e *ledger.Entry) error
}

// Standing is what may still act at this moment. What it answers includes every
// revocation that was acknowledged.
type Standing interface {
	// PersonStatus is active unless the person is suspended.
	PersonStatus(name string) counterfoil.Status
	// ResourceStatus is active unless the resource is suspended; tokens for it that
	// were issued at before or earlier are void.
	ResourceStatus(name string) (status counterfoil.Status, before time.Time)
	// LiveTask returns a task that is open; its deadline is the caller's to compare.
	LiveTask(id string) (counterfoil.Task, bool)
}

// Approvals is the part of a Store that keeps approvals.
type Approvals interface {
	// RequestApproval keeps a new approval with e, an approval.requested, unless
	// the same agent, in the same task, has one that is pending or approved and
	// not past its time, with equal call digest and equal key: then that one is
	// returned, attached is true and nothing is recorded. An agent that has most
	// or more pending is refused (too_many_pending). An Idempotency-Key that the
	// agent and task used with another call digest is refused
	// (idempotency_mismatch).
	RequestApproval(ctx context.Context, a counterfoil.Approval, most int, e *ledger.Entry) (kept counterfoil.Approval, attached bool, err error)

	// Approval returns an approval with its signatures; ok is false for an id that
	// nobody has or whose record was dropped.
	Approval(ctx context.Context, id string) (a counterfoil.Approval, ok bool, err error)

	// Approvals returns those that the filter chooses, newest first.
	Approvals(ctx context.Context, f counterfoil.ApprovalFilter) ([]counterfoil.Approval, error)

	// SignApproval keeps a signature with e, an approval.signed, and moves the
	// approval on. It is refused when the approval is not pending or past its time
	// (the code of its state), when it has other signatures than the signing
	// covers (counterfoil.ErrOvertaken), when the mailbox, the person or the passkey signed
	// already and this is no no (approver_not_distinct), when the passkey is not active, or when its
	// sign count went back since (passkey_refused). closed is recorded after e
	// where the signature ends the approval; nil otherwise.
	SignApproval(ctx context.Context, s counterfoil.Signing, e, closed *ledger.Entry) error

	// CloseApproval moves an approval from one of the states to another with e, an
	// approval.closed. It is refused with the code of the state that the approval
	// is in when that is none of them.
	CloseApproval(ctx context.Context, id string, from []counterfoil.ApprovalState, to counterfoil.ApprovalState, reason string, e *ledger.Entry) error

	// SpendApproval commits e, a call.decided that allows, and spends the approval
	// in the same transaction: only where it is approved, its time to be used is
	// not over, call digest, task and number of signatures are those of s, agent
	// and instance are live at that epoch, and every taking fits its limit. Where the
	// registry is not of the spending's revision any more it returns
	// counterfoil.ErrChanged. What
	// does not is refused: approval_spent, approval_expired, approval_mismatch,
	// approval_revoked, limit_exceeded, …. What is kept of the payload is as for
	// any call.decided.
	SpendApproval(ctx context.Context, s counterfoil.Spending, e *ledger.Entry, payload []byte) error

	// Taken returns how much of the taking's limit is used now, in ten-thousandths;
	// math.MaxInt64 where it is more than that.
	Taken(ctx context.Context, t counterfoil.Taking) (int64, error)

	// FinishApproval commits e, a call.finished, and how the approval ended. The
	// result is kept for whoever may repeat the call; nil keeps none.
	FinishApproval(ctx context.Context, id string, state counterfoil.ApprovalState, result []byte, e *ledger.Entry) error

	// EraseApprovals forgets the calls, renderings and results of closed
	// approvals, all of them or nothing, with e.
	EraseApprovals(ctx context.Context, ids []string, e *ledger.Entry) error
}

// Passkeys is the part of a Store that keeps passkeys and the codes for them.
type Passkeys interface {
	// PutPersonCode keeps a code with e and drops the person's earlier ones. With
	// PasskeyReset, every passkey that the person has ends, and approvals that are
	// not closed lose its signatures: they are revoked. Refused (tool_unknown) for
	// a name that is no Person.
	PutPersonCode(ctx context.Context, code counterfoil.PersonCode, e *ledger.Entry) error

	// PersonCode returns a code that is not spent, by its hash.
	PersonCode(ctx context.Context, hash [32]byte) (code counterfoil.PersonCode, ok bool, err error)

	// EnrolPasskey spends the code and keeps the passkey with e, a
	// person.enrolled. Refused: enrolment_refused where the code is unknown,
	// spent, expired or another person's, key_in_use where anybody ever had the
	// credential id or the public key.
	EnrolPasskey(ctx context.Context, hash [32]byte, p counterfoil.Passkey, e *ledger.Entry) error

	// PasskeysOf returns every passkey that a person ever had, oldest first.
	PasskeysOf(ctx context.Context, person string) ([]counterfoil.Passkey, error)
	// PasskeyByID returns the passkey with that credential id, ended ones too.
	PasskeyByID(ctx context.Context, id []byte) (p counterfoil.Passkey, ok bool, err error)

	// UsePasskey keeps a login's sign count with e, a session.opened. Refused
	// (passkey_refused) where the passkey is not active or its count went back
	// since.
	UsePasskey(ctx context.Context, id []byte, signCount uint32, backedUp bool, e *ledger.Entry) error

	// EndPasskeys ends passkeys with e; approvals that are open and have a
	// signature by one of them are revoked.
	EndPasskeys(ctx context.Context, ids [][]byte, e *ledger.Entry) error

	// ReleasePasskey makes a passkey usable for irreversible classes at once, with
	// e, spending the approval of that change, whose call has that digest.
	ReleasePasskey(ctx context.Context, id []byte, approval, callDigest string, e *ledger.Entry) error
}
