package authority

import (
	"context"
	"crypto/sha256"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A Directory says what is declared, known and live. Its answers include every
// change that was acknowledged before, and it waits for nothing.
type Directory interface {
	// Registry returns what is declared and its revision. The registry is
	// immutable.
	Registry() (*counterfoil.Registry, string)
	// AgentState is where an agent is in its life; zero for a name nobody had.
	AgentState(agent string) counterfoil.AgentState
	// Instances returns every instance that an agent ever had, oldest first.
	Instances(agent string) []counterfoil.Instance
	// LatestInstances returns the last instances that an agent had, at most so
	// many, the newest first.
	LatestInstances(agent string, most int) []counterfoil.Instance
	// InstanceByKey returns the instance, dead or not, whose registered key has
	// that thumbprint.
	InstanceByKey(jkt string) (counterfoil.Instance, bool)
	// ProofKey returns whom a live key proves for, bound proof keys included.
	ProofKey(jkt string) (agent, instance string, ok bool)
	// AgentOfKey returns the agent that has, or ever had, a key.
	AgentOfKey(jkt string) (string, bool)
}

// A Recorder commits issuance and enrolment. Each verb commits its effect and
// its entry in one transaction, or returns a refusal or a fault and commits
// neither; a nil error means that both are durable. Of any number of concurrent
// uses of one assertion or one code, exactly one returns nil.
type Recorder interface {
	Append(ctx context.Context, e *ledger.Entry) error
	// Issue uses up the assertion: assertion_replayed when it was used, and
	// client_refused when what has to be live is not. Where a key is to be bound,
	// bound is recorded before issued, unless the instance has the key already:
	// key_in_use when anybody else ever had it, proof_key_mismatch when the
	// instance has too many. bound is nil where no key is to be bound.
	Issue(ctx context.Context, i counterfoil.Issuance, issued, bound *ledger.Entry) error
	// AssertionUsed reports whether Issue was done with it, as of a moment ago.
	AssertionUsed(ctx context.Context, use counterfoil.AssertionUse) (bool, error)
	PutCode(ctx context.Context, code counterfoil.EnrolmentCode, e *ledger.Entry) error
	// Enroll spends the code of the instance's agent: enrolment_refused when
	// there is none, key_in_use when anybody ever had the key.
	Enroll(ctx context.Context, code [sha256.Size]byte, inst counterfoil.Instance, e *ledger.Entry) error
}

// A Registrar commits changes of what is declared and of agents' lives, like a
// Recorder. A fault leaves open whether the change was made, until the
// Directory says it.
type Registrar interface {
	Apply(ctx context.Context, c counterfoil.Change, entries []*ledger.Entry) error
	Suspend(ctx context.Context, agent string, e *ledger.Entry) error
	// Resume ends a suspension and releases those quarantined instances that are
	// named, which it returns: all of them, or it is refused.
	Resume(ctx context.Context, agent string, release []string, e *ledger.Entry) (released []string, err error)
	// Suspect reports whether the suspicion was news: one that is not commits
	// nothing.
	Suspect(ctx context.Context, s counterfoil.Suspicion, e *ledger.Entry) (news bool, err error)
	Offboard(ctx context.Context, agent string, e *ledger.Entry) (counterfoil.Voided, error)
	// PinTool replaces what was pinned before.
	PinTool(ctx context.Context, resource, tool, digest, how string, e *ledger.Entry) error
	Pin(resource, tool string) (digest string, ok bool)
	// PinHow returns the how of the pin; empty when there is none.
	PinHow(resource, tool string) string
}

// A ProposalStore keeps the changes that wait, like a Registrar.
type ProposalStore interface {
	// PutProposal keeps a change that waits with e, a change.proposed.
	PutProposal(ctx context.Context, p counterfoil.Proposal, e *ledger.Entry) error
	// Proposals returns those that still wait, oldest first.
	Proposals(ctx context.Context) ([]counterfoil.Proposal, error)
	// CloseProposal ends one that will not be made, with e, a change.closed. It is
	// refused when it does not wait any more. One that is made is ended by Apply,
	// with the change.
	CloseProposal(ctx context.Context, id string, e *ledger.Entry) error
	// Approval returns the approval that a change waits for.
	Approval(ctx context.Context, id string) (a counterfoil.Approval, ok bool, err error)
	// AnybodyEnrolled reports whether a passkey was ever enrolled, by whomever, be
	// it ended or its person gone.
	AnybodyEnrolled(ctx context.Context) (bool, error)
}
