package counterfoil

import "time"

// What engines hand to the store beside a ledger entry. They are here because
// neither may import the other.

// Kinds of Document.
const (
	KindPerson   = "Person"
	KindClass    = "Class"
	KindResource = "Resource"
	KindAgent    = "Agent"
	KindPolicy   = "Policy"

	KindTransmitter = "Transmitter"
	KindVocabulary  = "Vocabulary"
)

// A DocKey names a document of the registry.
type DocKey struct{ Kind, Name string }

// A Document is a declared noun as it is kept: Body is the JSON of the Person,
// Class, Resource, Agent or Policy.
type Document struct {
	Kind, Name string
	Body       []byte
}

// A Change is what one apply does to the registry, all of it or nothing.
type Change struct {
	// Base is the revision of the registry that the change was computed from.
	// A change of another revision is not made.
	Base string

	Put     []Document
	Delete  []DocKey   // never an Agent: agents are offboarded
	NewKeys []Instance // an instance for each key that an Agent document adds
	EndKeys []string   // ids of the instances whose key left its Agent document
	Void    []string   // agents whose tokens from before are void: their epoch rises
	Unpin   []ToolID   // tools that need a person now: what was pinned without one goes

	// Proposal is the id of the Proposal that this is; empty where it waited for
	// nobody. It is closed with the change, and its approval is used up.
	Proposal string
}

// A Proposal is a change of the registry that waits for people, or for its time.
type Proposal struct {
	ID        string // "prp_" and 128 random bits
	Documents []byte // the manifests' files, as JSON
	Digest    string // of the documents
	Actor     string // who asked, such as uid:0
	Approval  string // id of the approval that lets it take effect at once; empty: none can
	Created   time.Time
	Effective time.Time // when it takes effect by itself
}

// PinFirstSight is how a tool is pinned that no person looked at: by the first
// call that saw it.
const PinFirstSight = "first sight"

// An AssertionUse is the one use of a client assertion's id. It is remembered
// until Until, after which no assertion with that id can be valid.
type AssertionUse struct {
	Agent, ID string
	Until     time.Time
}

// Live names what has to be live, at that very epoch, for a decision to stand.
type Live struct {
	Agent, Instance string
	Epoch           int64

	// Key is the thumbprint of the key that an assertion was verified with. What is
	// given for the assertion has it, and is given only while the key is taken.
	Key string

	// Unbound says that whoever asks has no key, and so neither instance nor epoch: the
	// agent has to be active. It is said by what a resource's Bearers are for alone.
	Unbound bool
}

// A KeyBinding lets an instance prove with a key beside its own. The zero
// KeyBinding binds none.
type KeyBinding struct {
	JKT  string
	Most int // how many such keys the instance may have
}

// An Issuance is what a token is issued on: the use of an assertion, what has to
// be live, and the key that it is bound to where that is not the instance's own.
type Issuance struct {
	Use  AssertionUse
	Live Live
	Bind KeyBinding

	Token    string    // its id
	Expires  time.Time // the token's
	Task     string    // has to be open; empty: none
	Resource string    // has to be in force; empty: the issuer's own pages
}

// A Sighting is a key at an instance and a place: one proof that verified, as the
// entry of its request says it.
type Sighting struct {
	Entry     int64     // the entry's index
	At        time.Time // the entry's time
	RequestID string
	Agent     string // who proved with the key
	Instance  string
	JKT       string
	Address   string // empty when unknown

	// Foreign says that the key is somebody else's: the request was refused with
	// key_in_use.
	Foreign bool
}

// A Suspicion is that a key was cloned, and what follows from it.
type Suspicion struct {
	Agent, Instance string // whose key it is
	First, Second   Sighting

	// What follows, by the agent's policy. An instance that was suspected at or
	// after Since is not suspected again; of a foreign use that is only recorded,
	// what counts is when the last one was.
	Since      time.Time
	Quarantine bool
}

// An EnrolmentCode is a one-time code for the enrolment of an instance, known
// by its hash only.
type EnrolmentCode struct {
	Hash    [32]byte // SHA-256
	Agent   string
	Expires time.Time
}

// A SigningKey is one of the issuer's keys as it is kept.
type SigningKey struct {
	KID, Purpose, Alg, State     string
	JWK                          []byte // public, canonical
	Sealed                       []byte // private, sealed under the key encryption key; nil once it never signs again
	Created, ActiveAt, RetiredAt time.Time
}
