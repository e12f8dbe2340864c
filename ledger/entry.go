package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

// A Kind says what an entry records.
type Kind string

// The kinds. Verifiers accept any kind: a log outlives the program that reads
// it.
const (
	ServerStarted          Kind = "server.started"
	ServerStopped          Kind = "server.stopped"
	ConfigApplied          Kind = "config.applied"
	AgentCreated           Kind = "agent.created"
	AgentChanged           Kind = "agent.changed"
	AgentSuspended         Kind = "agent.suspended"
	AgentResumed           Kind = "agent.resumed"
	AgentOffboarded        Kind = "agent.offboarded"
	EnrolmentCodeIssued    Kind = "enrolment_code.issued" // never the code itself
	InstanceEnrolled       Kind = "instance.enrolled"
	ProofKeyBound          Kind = "proof_key.bound"
	KeyRotated             Kind = "key.rotated"
	TokenIssued            Kind = "token.issued"
	TokenRefused           Kind = "token.refused"
	TaskOpened             Kind = "task.opened"
	TaskClosed             Kind = "task.closed"
	CallDecided            Kind = "call.decided"
	CallFinished           Kind = "call.finished"
	ApprovalRequested      Kind = "approval.requested"
	ApprovalSigned         Kind = "approval.signed"
	ApprovalClosed         Kind = "approval.closed"
	ApprovalErased         Kind = "approval.erased" // what was kept of closed approvals' calls is gone
	ChangeProposed         Kind = "change.proposed" // waits for people, or for its time
	ChangeClosed           Kind = "change.closed"   // and how
	SessionOpened          Kind = "session.opened"  // a person logged in to the console
	SessionClosed          Kind = "session.closed"
	Revoked                Kind = "revoked"
	RevocationEnforced     Kind = "revocation.enforced" // an enforcement point takes nothing of before view.seq any more
	Restored               Kind = "restored"            // a person or a resource may act again
	TokenIntrospected      Kind = "token.introspected"
	StreamChanged          Kind = "stream.changed"   // a receiver of shared signals made, changed or deleted its stream
	SignalDelivered        Kind = "signal.delivered" // a receiver has everything to an index
	SignalReceived         Kind = "signal.received"  // somebody else's
	ServerRestored         Kind = "server.restored"  // from a backup: what follows has another log's key
	BackupMade             Kind = "backup.made"
	PersonEnrolled         Kind = "person.enrolled"
	PersonChanged          Kind = "person.changed"
	PasskeyEnded           Kind = "passkey.ended"
	UpstreamCredentialUsed Kind = "upstream.credential_used" // binding ends here: what the upstream is shown is a bearer secret
	AnswerScrubbed         Kind = "answer.scrubbed"          // an upstream's answer held its credential, which was masked
	CredentialStored       Kind = "credential.stored"        // an upstream's, sealed in the database
	CredentialDeleted      Kind = "credential.deleted"
	ToolPinned             Kind = "tool.pinned"
	ToolChanged            Kind = "tool.changed"
	CloneSuspected         Kind = "clone.suspected"
	RefusedAggregate       Kind = "refused.aggregate"
	CheckpointSigned       Kind = "checkpoint"
)

// Values of Entry.Decision. The empty decision is no decision.
const (
	Allow  = "allow"
	Refuse = "refuse"
)

// OutcomeUnknown is the outcome of a call of which nobody can say any more how
// it ended: the server stopped, or its caller was gone, between the decision
// and the end.
const OutcomeUnknown = "unknown"

// An Entry is one record of the log. Index and Time are assigned by the log;
// everything else is the writer's. Every member but index, kind and time is
// left out when it is empty. Nothing in an entry is a secret or a whole token.
type Entry struct {
	Index int64  `json:"index"` // position in the log, from 0
	Time  string `json:"time"`  // RFC 3339, UTC, microseconds; never earlier than the entry before
	Kind  Kind   `json:"kind"`

	RequestID string `json:"request_id,omitzero"`

	// Who acted.
	Agent      string   `json:"agent,omitzero"`
	Owner      string   `json:"owner,omitzero"`
	Instance   string   `json:"instance,omitzero"`
	JKT        string   `json:"jkt,omitzero"`       // thumbprint of the key that proved possession (RFC 7638)
	Binding    string   `json:"binding,omitzero"`   // dpop, mtls or bearer
	TokenJTI   string   `json:"token_jti,omitzero"` // the token's id, never the token
	Proof      string   `json:"proof,omitzero"`     // hash of thumbprint and proof id: read back after a restart
	Epoch      int64    `json:"epoch,omitzero"`
	View       View     `json:"view,omitzero"` // the revocation state that was looked at
	OnBehalfOf string   `json:"on_behalf_of,omitzero"`
	Actors     []string `json:"actors,omitzero"` // delegation chain, newest first
	Actor      string   `json:"actor,omitzero"`  // who administers, such as uid:0
	Task       string   `json:"task,omitzero"`

	// On what, and how it was decided.
	Resource          string           `json:"resource,omitzero"`
	Tool              string           `json:"tool,omitzero"` // resource/tool, or resource/method for what is not a tool call
	ToolDigest        string           `json:"tool_digest,omitzero"`
	Class             string           `json:"class,omitzero"`
	Tier              string           `json:"tier,omitzero"`
	ScopeRequested    []string         `json:"scope_requested,omitzero"`
	Scope             []string         `json:"scope,omitzero"`
	PayloadCommitment string           `json:"payload_commitment,omitzero"` // see Commitment
	PolicyDigest      string           `json:"policy_digest,omitzero"`
	Decision          string           `json:"decision,omitzero"` // Allow or Refuse
	Code              counterfoil.Code `json:"code,omitzero"`
	Approval          Approval         `json:"approval,omitzero"`
	Source            Source           `json:"source,omitzero"`

	// How it ended.
	Of        int64  `json:"of,omitzero"`         // call.finished: index of the call.decided that it ends; always written there
	Outcome   string `json:"outcome,omitzero"`    // in call.finished
	LatencyUS int64  `json:"latency_us,omitzero"` // microseconds from the decision to the end

	Reason string         `json:"reason,omitzero"` // free text of a person or of a refusal
	Detail map[string]any `json:"detail,omitzero"` // facts of the kind; what encoding to JSON gives must be I-JSON
}

// A View is the revocation state that a decision was made with.
type View struct {
	Seq int64 `json:"seq,omitzero"` // index of the newest entry that it includes
	Age int64 `json:"age,omitzero"` // milliseconds since it was known to be current
}

// An Approval is the state of a human proof at the moment of the entry.
type Approval struct {
	ID      string   `json:"id,omitzero"`
	State   string   `json:"state,omitzero"`
	Signers []string `json:"signers,omitzero"`
}

func (a *Approval) zero() bool { return a.ID == "" && a.State == "" && len(a.Signers) == 0 }

// A Source is where a request came from.
type Source struct {
	Address     string `json:"address,omitzero"` // empty when unknown
	Environment string `json:"environment,omitzero"`
}

const timeLayout = "2006-01-02T15:04:05.000000Z"

// FormatTime writes a time as entries hold it: RFC 3339, UTC, microseconds
// always written. Its texts sort as the times do.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime reads what FormatTime writes, and nothing else.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeLayout, s)
	// time.Parse takes a comma for the point.
	if err != nil || len(s) != len(timeLayout) || strings.IndexByte(s, ',') >= 0 {
		return time.Time{}, fmt.Errorf("time %.40q is not of the form %s", s, timeLayout)
	}
	return t, nil
}

// When returns the entry's time.
func (e *Entry) When() (time.Time, error) { return ParseTime(e.Time) }
