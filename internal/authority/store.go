package authority

import (
	"context"
	"crypto/sha256"
	"time"

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
	// that thumbprint, or had it before it was rotated.
	InstanceByKey(jkt string) (counterfoil.Instance, bool)
	// Instance returns an instance, dead or not.
	Instance(id string) (counterfoil.Instance, bool)
	// AgentOfKey returns the agent that has, or ever had, a key.
	AgentOfKey(jkt string) (string, bool)
}

// A Standing says who and what is in force. It waits for nothing, and has no registry:
// it answers for any name.
type Standing interface {
	// PersonStatus is counterfoil.Suspended for a person who was revoked and is not
	// back, or of whom nobody said since a restoration that they are.
	PersonStatus(name string) counterfoil.Status
	// ResourceStatus is the same of a resource. Its tokens that were issued at voided
	// or earlier are void, in force or not; zero: none is.
	ResourceStatus(name string) (status counterfoil.Status, voided time.Time)
}

// A Recorder commits issuance and enrolment. Each verb commits its effect and
// its entry in one transaction, or returns a refusal or a fault and commits
// neither; a nil error means that both are durable. Of any number of concurrent
// uses of one assertion or one code, exactly one returns nil.
type Recorder interface {
	Append(ctx context.Context, e *ledger.Entry) error
	// Issue uses up the assertion: assertion_replayed when it was used,
	// client_refused when what has to be live is not, task_closed when the task is
	// not open, and target_invalid when the resource is out of force. Where a key is to be bound,
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
	Suspend(ctx context.Context, agent string, e *ledger.Entry) (counterfoil.Voided, error)
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

// Tasks keeps tasks, like a Recorder.
type Tasks interface {
	// OpenTask refuses a task for which the opener, the agent, or the parent is not
	// live, and limit_exceeded when the agent has counterfoil.MaxOpenTasks of them.
	OpenTask(ctx context.Context, t counterfoil.Task, opener counterfoil.Live, e *ledger.Entry) error
	// CloseTask ends a task and those below it, with what hangs on them: task_closed
	// when it is not open any more.
	CloseTask(ctx context.Context, id string, to counterfoil.TaskState, reason string, e *ledger.Entry) (counterfoil.Voided, error)
	// Task returns a task in whatever state.
	Task(ctx context.Context, id string) (counterfoil.Task, bool, error)
	// LiveTask returns an open task, which may be past its deadline. It waits for
	// nothing; what was used of its limits may lag.
	LiveTask(id string) (counterfoil.Task, bool)
	// Tasks returns those that the filter chooses, the newest first.
	Tasks(ctx context.Context, f counterfoil.TaskFilter) ([]counterfoil.Task, error)
	// DueTasks returns the ids of open tasks that are past their deadline.
	DueTasks(now time.Time) []string
}

// A Revoker takes authority away, and gives a person or a resource back to its life,
// like a Recorder.
type Revoker interface {
	// Revoke reports whether it was news: what was revoked before commits nothing.
	// What nobody ever had is refused (tool_unknown). Of a token whose end is not
	// said, the store knows it. What was taken is written into e.
	Revoke(ctx context.Context, r counterfoil.Revocation, e *ledger.Entry) (v counterfoil.Voided, news bool, err error)
	// RevokeTokenWith is Revoke of a token by the client that authenticated with an
	// assertion, which is used up, news or not: assertion_replayed when it was.
	RevokeTokenWith(ctx context.Context, use counterfoil.AssertionUse, r counterfoil.Revocation, e *ledger.Entry) (news bool, err error)
	// UseAssertion uses up an assertion with e and no other effect; it is refused
	// like Issue.
	UseAssertion(ctx context.Context, use counterfoil.AssertionUse, live counterfoil.Live, e *ledger.Entry) error
	// Restore puts a person or a resource back in force: request_malformed when it
	// is, tool_unknown when there is none.
	Restore(ctx context.Context, t counterfoil.Target, e *ledger.Entry) error
	// DropCode voids an enrolment code, of an agent or a person, and reports whether
	// there was one; otherwise it commits nothing.
	DropCode(ctx context.Context, hash [sha256.Size]byte, e *ledger.Entry) (news bool, err error)
}

// A Rotator keeps the keys of instances, like a Recorder.
type Rotator interface {
	// Rotate gives an instance another key: key_in_use when anybody ever had it.
	Rotate(ctx context.Context, r counterfoil.Rotation, live counterfoil.Live, e *ledger.Entry) error
	// DueKeys returns the thumbprints of keys that were rotated from, whose overlap is
	// over and of which nobody was told yet.
	DueKeys(now time.Time) []string
}
