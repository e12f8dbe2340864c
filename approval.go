package counterfoil

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"time"
)

// An ApprovalState is where an approval is in its life. The zero ApprovalState
// is unknown, which allows nothing.
type ApprovalState string

// The states: pending → approved → spent → succeeded, failed or indeterminate;
// pending → denied, expired, cancelled, superseded or revoked; approved →
// expired, superseded, cancelled or revoked.
const (
	StatePending       ApprovalState = "pending"
	StateApproved      ApprovalState = "approved"
	StateSpent         ApprovalState = "spent"         // the call was let go and its end is not known yet
	StateSucceeded     ApprovalState = "succeeded"     // the upstream said that it did it
	StateFailed        ApprovalState = "failed"        // the upstream said no, or nothing was sent
	StateIndeterminate ApprovalState = "indeterminate" // nobody knows; a person reconciles it, and it never runs again
	StateDenied        ApprovalState = "denied"
	StateExpired       ApprovalState = "expired"
	StateCancelled     ApprovalState = "cancelled"  // the asking agent or an administrator took it back
	StateSuperseded    ApprovalState = "superseded" // class, rule, template or tool changed
	StateRevoked       ApprovalState = "revoked"    // agent, instance, task or a signer was
)

// Open reports whether something may still come of the approval.
func (s ApprovalState) Open() bool { return s == StatePending || s == StateApproved }

// Ran reports whether the approval was spent, however that ended.
func (s ApprovalState) Ran() bool {
	return s == StateSpent || s == StateSucceeded || s == StateFailed || s == StateIndeterminate
}

// What whoever asks and whoever keeps what is asked have to agree on.
const (
	ApprovalUseWindow = 5 * time.Minute // to use what was approved
	ApprovalPoll      = 5 * time.Second // between two looks of an agent
	MaxWords          = 1000            // bytes of the agent's own words
)

// CallDigest says which call it is: equal calls, in canonical JSON, have equal digests,
// and nothing that is digested for another purpose has one of them.
func CallDigest(call []byte) string {
	h := sha256.New()
	h.Write([]byte("counterfoil/call/1\n"))
	h.Write(call)
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Kinds of approval.
const (
	ApprovalOfCall   = "call"   // of a call through the gateway
	ApprovalOfChange = "change" // of what widens who may approve, or lessens what needs approval
)

// What a person signs.
const (
	DecisionApprove = "approve"
	DecisionDeny    = "deny"
)

// An ApprovalRule says whose signatures an approval needs. It is a part of what
// is signed.
type ApprovalRule struct {
	Tier     Tier `json:"tier"`
	Required int  `json:"required"` // distinct people

	// Groups are alternatives within, conjunction between: a distinct signer for
	// each, and every signer in one of them.
	Groups [][]string `json:"groups"`

	OwnerMayApprove bool     `json:"owner_may_approve,omitzero"` // guarded classes alone
	Authenticators  []string `json:"authenticators,omitzero"`    // AAGUIDs, attested; none means any
}

// RuleOf returns the rule of a class: as many people as its tier needs, and one
// for each of its groups.
func RuleOf(c *Class) ApprovalRule {
	r := ApprovalRule{Tier: c.Tier, Groups: c.Approvers, Authenticators: c.Authenticators}
	r.Required = max(c.Tier.People(), len(c.Approvers))
	r.OwnerMayApprove = c.OwnerMayApprove && c.Tier == Guarded
	return r
}

// An Approval is a request for human proof on one action, as it is kept.
type Approval struct {
	ID    string        `json:"id"` // "apr_" and 128 random bits
	State ApprovalState `json:"state"`
	Kind  string        `json:"kind"` // ApprovalOfCall or ApprovalOfChange

	// Who asked, as of the request. Of a change, Requester alone is set.
	Requester string   `json:"requester,omitzero"` // who administers, such as uid:0
	Openers   []string `json:"openers,omitzero"`   // owners of the agents that opened the task and those above it
	Owner     string   `json:"owner,omitzero"`     // of the agent
	Caller    Caller   `json:"caller,omitzero"`
	For       string   `json:"for,omitzero"`       // see GuardedCall.For
	ForEpoch  int64    `json:"for_epoch,omitzero"` // of that agent: whatever it loses ends the approval
	RequestID string   `json:"request_id"`

	// Source is where the request came from; the zero Addr is unknown. A held call
	// is decided on it again, as grants are bound to networks.
	Source netip.Addr `json:"source,omitzero"`

	// What for.
	Tool       ToolID            `json:"tool"`
	ToolDigest string            `json:"tool_digest,omitzero"`
	Class      string            `json:"class"`
	Rule       ApprovalRule      `json:"rule"`
	Fields     map[string]string `json:"fields,omitzero"`
	Key        string            `json:"key,omitzero"`  // the Idempotency-Key; empty when there was none
	Held       bool              `json:"held,omitzero"` // the gateway makes the call itself once it is approved

	CallDigest string `json:"call_digest"` // "sha-256:" and base64url
	Digest     string `json:"digest"`      // approval_digest, likewise
	Statement  []byte `json:"statement"`   // the canonical JSON that Digest is over
	Rendering  []byte `json:"rendering"`   // canonical JSON of everything that is shown beside the call
	Call       []byte `json:"call"`        // the canonical call; nil once it is erased

	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`            // to decide; of a change, when it takes effect by itself
	UseUntil time.Time `json:"use_until,omitzero"` // to spend, once approved
	Closed   time.Time `json:"closed,omitzero"`    // when it left pending and approved for good

	Signatures []Signature `json:"signatures,omitzero"` // in order

	Reason  string `json:"reason,omitzero"`  // of a no, or why it was closed
	Decided int64  `json:"decided,omitzero"` // index of the call.decided that spent it; zero before
	Result  []byte `json:"result,omitzero"`  // the answer, kept for whoever may repeat the call
	Earlier string `json:"earlier,omitzero"` // the approval of an equal call that ran before
}

// A Signature is one person's decision on an approval.
type Signature struct {
	Person   string    `json:"person"`
	Mailbox  string    `json:"mailbox"` // see Person.Mailbox: one human counts once
	Passkey  []byte    `json:"passkey"` // credential id
	Decision string    `json:"decision"`
	Reason   string    `json:"reason,omitzero"`
	Groups   []string  `json:"groups"` // that the person was in
	At       time.Time `json:"at"`

	// Record is canonical JSON {"assertion":{…},"challenge":{…}}: the assertion as
	// it came and every member of the challenge that it is over. Digest is over
	// it, and the next signature's challenge covers that.
	Record []byte `json:"record"`
	Digest string `json:"digest"`
}

// A Signing is a Signature to be kept, with what must hold for it to be.
type Signing struct {
	Approval  string
	Signature Signature
	Previous  int           // how many signatures it covers: no other came between
	Next      ApprovalState // pending, approved or denied
	UseUntil  time.Time     // of an approved one
	SignCount uint32        // of the passkey, to be kept
	BackedUp  bool          // of the passkey, to be kept
}

// A Spending is an approval that verified, about to be used up for one call.
type Spending struct {
	Approval   string
	CallDigest string
	Signatures int // how many verified
	Live       Live
	Use        CallUse // its Task is the approval's; it has no Key, as the approval has
	Takings    []Taking
	Signers    []string // people, in order of signing, for the entry

	// Revision is of the registry that it was verified under. Rule, class and who may
	// say yes are what that one says: under any other it spends nothing.
	Revision string
}

// A Taking is what a call takes from a cumulative limit. It is never given back.
type Taking struct {
	Class, Field, Agent string
	Window              time.Duration
	Amount, Max         int64 // ten-thousandths
}

// A GuardedCall is a call that a person has to allow, as the gateway would
// forward it now.
type GuardedCall struct {
	RequestID  string
	Caller     Caller
	Source     netip.Addr // see Approval.Source
	Tool       ToolID
	ToolDigest string
	Class      string
	Fields     map[string]string // see policy.Decision
	Call       []byte            // the canonical call, whose digest says which call it is
	Named      string            // the approval that the caller names; empty when none
	Key        string            // the caller's Idempotency-Key; empty when none
	Held       bool              // the gateway is to make the call itself
	Words      string            // the agent's own; shown last, and marked as such

	// For is the agent that makes the call, where Caller is an enforcement point that
	// says so, and nothing else does. Empty where the caller makes it. A call that is
	// named so and names an approval asks nobody.
	For string

	// Amounts are for the limits of the caller's task: see CallUse. Nil where none of
	// them sums a field of the class.
	Amounts map[string]int64
}

// A Passkey is a person's WebAuthn credential.
type Passkey struct {
	ID         []byte // credential id
	Person     string
	Handle     []byte // user handle, the person's
	PublicKey  []byte // COSE
	AAGUID     string
	Attested   bool // by a root that the operator trusts
	SignCount  uint32
	Eligible   bool // for backup (BE); never changes
	BackedUp   bool // BS
	Transports []string
	Enrolled   time.Time
	UsableFrom time.Time // for irreversible classes: later where it was added or reset
	Used       time.Time // last; zero when never
	How        string    // PasskeyFirst, PasskeyAdded or PasskeyReset
	Entry      int64     // index of its person.enrolled
	Status     Status    // Active or Ended
}

// How a Passkey came to be.
const (
	PasskeyFirst = "first" // with an operator's code, by a person who had none
	PasskeyAdded = "added"
	PasskeyReset = "reset" // in place of those before
)

// A PersonCode is a one-time code for the enrolment of a passkey, known by its
// hash only.
type PersonCode struct {
	Hash    [32]byte // SHA-256
	Person  string
	How     string // PasskeyFirst, PasskeyAdded or PasskeyReset
	Expires time.Time
}

// ErrOvertaken says that a signature does not cover the ones that are there: another
// came between. Sign again, over these.
var ErrOvertaken = errors.New("another signature came between")

// ErrChanged says that the registry is not the one any more that an approval was
// verified under. Claim again.
var ErrChanged = errors.New("what is declared changed meanwhile")

// An ApprovalFilter chooses approvals. Empty members choose every one.
type ApprovalFilter struct {
	States     []ApprovalState
	Kind       string
	Agent      string
	Task       *string // nil: any
	CallDigest string
	Key        string
	Signer     string // a person who signed
	Held       bool   // those alone that the gateway is to call itself
	Erasable   bool   // those alone that still hold something to erase
	Brief      bool   // of calls without what an agent may make large: Fields, Call and Result
	Limit      int    // 100 when zero
}

// A ChangeRequest asks people whether something may take effect at once that
// widens who may approve, or lessens what needs approval.
type ChangeRequest struct {
	Verb     string // ChangeApply or ChangeRelease
	Sentence string // what it is, for people
	Call     []byte // canonical JSON: what exactly
	Groups   []string
	Actor    string
	Expires  time.Time // when it takes effect by itself
}

// Why a change that waited took effect: the reason of its change.closed. Whoever
// verifies a log goes by these words.
const (
	ChangedByPeople = "approved"
	ChangedByTime   = "its time came"
)

// Verbs of a ChangeRequest: the tool "counterfoil/VERB" in entries.
const (
	ChangeApply   = "apply"           // manifests
	ChangeRelease = "release-passkey" // a passkey that was added or reset
)
