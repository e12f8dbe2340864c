package counterfoil

import "time"

// A TargetKind says what authority is taken from.
type TargetKind string

// What can be revoked.
const (
	TargetToken    TargetKind = "token"    // by its id (jti)
	TargetKey      TargetKind = "key"      // by its thumbprint; with an instance's own key the instance ends
	TargetInstance TargetKind = "instance" // ends, and its key with it
	TargetTask     TargetKind = "task"
	TargetAgent    TargetKind = "agent"    // suspended: everything it has is void, and it gets nothing until it is resumed
	TargetPerson   TargetKind = "person"   // may do nothing, and what they signed and own is void
	TargetResource TargetKind = "resource" // takes no call, and its tokens are void
	TargetOwner    TargetKind = "owner"    // every agent of a person
)

// TargetKinds returns all kinds of target.
func TargetKinds() []TargetKind {
	return []TargetKind{TargetToken, TargetKey, TargetInstance, TargetTask, TargetAgent, TargetPerson, TargetResource, TargetOwner}
}

// A Target is what a revocation takes authority from.
type Target struct {
	Kind TargetKind `json:"kind"`
	ID   string     `json:"id"`
}

// String writes "agent payroll".
func (t Target) String() string { return string(t.Kind) + " " + t.ID }

// Suspend is the part of a person's revocation that policy may leave out, as far as
// somebody else's signal asks for it.
type Suspend struct {
	Agents    bool // suspend the agents that the person owns
	Approvals bool // void what the person signed, and let them sign no more
}

// A Revocation takes authority away, all of it or nothing.
type Revocation struct {
	Target  Target
	Reason  string
	Expires time.Time // of a token: when nobody could use it any more
	Agent   string    // of a token: whose it is

	// Ended says of a key that was rotated from that its time beside the new one is
	// over, and no more: what was asked for under it stays.
	Ended bool

	// Suspend says what follows for a person. The zero Suspend is all of it, and
	// the person's passkeys end; otherwise they stay, for who is let back in.
	Suspend Suspend
}

// Voided is what was taken, each by its id or name.
type Voided struct {
	Epoch int64 `json:"epoch,omitzero"` // of the one agent: every token of an older one is void

	Agents      []string `json:"agents,omitzero"` // suspended, of an owner or a person
	Instances   []string `json:"instances,omitzero"`
	Keys        []string `json:"keys,omitzero"`   // thumbprints
	Tokens      []string `json:"tokens,omitzero"` // ids of those that had not expired
	Tasks       []string `json:"tasks,omitzero"`
	Approvals   []string `json:"approvals,omitzero"`
	Passkeys    []string `json:"passkeys,omitzero"`    // credential ids, base64url
	Codes       int      `json:"codes,omitzero"`       // enrolment codes that were not used
	Grants      []string `json:"grants,omitzero"`      // tools that were granted, as the manifest says them
	Credentials []string `json:"credentials,omitzero"` // names of the upstream credentials that its calls used; they are the resources' and stay
}

// A RevocationStep is one commit that changed what is revoked.
type RevocationStep struct {
	// Seq is the index of its (last) ledger entry, Prev that of the step before.
	// Whoever has not reached Prev misses something and needs a snapshot.
	Seq  int64     `json:"seq"`
	Prev int64     `json:"prev"`
	At   time.Time `json:"at"`

	// Agents are the states that changed, new agents' too: an agent that an
	// enforcement point does not know is revoked.
	Agents map[string]AgentState `json:"agents,omitzero"`
	Dead   []Dead                `json:"dead,omitzero"`
}

// A Dead is something that no token may use any more. It is told until no token of
// before can be in its time.
type Dead struct {
	Kind  TargetKind `json:"kind"` // token, key, instance, task or resource
	ID    string     `json:"id"`   // of a resource its identifier (RFC 8707), which tokens name
	Until time.Time  `json:"until"`

	// Before says that only tokens that were issued then or earlier are void, as of a
	// resource, which may be put back in force, and of an instance, which may be
	// released. Zero: every one, whenever it was issued.
	Before time.Time `json:"before,omitzero"`
}

// MaxFeedWait is how long one request for what changed may wait for it. Who asks for
// longer is refused.
const MaxFeedWait = 25 * time.Second

// A RevocationFeed is what an enforcement point is told: steps after the one that it
// knows or, where those are not at hand, everything as of one step.
type RevocationFeed struct {
	// Log is the origin of the log whose indexes Seq and those of the steps are. A
	// restoration begins another one: an index of the one says nothing in the other.
	Log string `json:"log,omitzero"`

	Seq      int64            `json:"seq"` // of the newest step that it includes
	At       time.Time        `json:"at"`  // as of when, by the issuer's clock
	Snapshot *RevocationStep  `json:"snapshot,omitzero"`
	Steps    []RevocationStep `json:"steps,omitzero"` // in order; empty: nothing changed

	// MaxStale is the issuer's bound, in milliseconds: who has heard nothing for as
	// long refuses every call.
	MaxStale int64 `json:"max_stale_ms"`
}

// A Rotation replaces the key of an instance by another.
type Rotation struct {
	Agent, Instance string
	Old             string // thumbprint of the key that proved it
	JKT, JWK, Alg   string // the new one
	OldUntil        time.Time
}
