package counterfoil

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Person is a human: an owner, an approver, an administrator.
type Person struct {
	Name   string   `json:"name"`
	Email  string   `json:"email,omitzero"`
	Groups []string `json:"groups,omitzero"` // what approval rules name
	Roles  []string `json:"roles,omitzero"`  // admin, auditor; never approver
}

// Roles of a Person. Approving is no role: see Class.Approvers.
const (
	RoleAdmin   = "admin"
	RoleAuditor = "auditor" // sees what an administrator sees, and changes nothing
)

// Mailbox returns the person's e-mail as mail systems deliver it: in lower case,
// without what follows "+" and without dots in its local part. Two records with one
// mailbox are one human. Without an e-mail it is the name, which no e-mail equals.
func (p *Person) Mailbox() string {
	local, domain, ok := strings.Cut(strings.ToLower(strings.TrimSpace(p.Email)), "@")
	if !ok {
		return p.Name
	}
	local, _, _ = strings.Cut(local, "+")
	domain = strings.TrimRight(domain, ".")
	if domain == "googlemail.com" {
		domain = "gmail.com"
	}
	return strings.ReplaceAll(local, ".", "") + "@" + domain
}

// A Class is a kind of effect and what it takes to cause it.
type Class struct {
	Name string `json:"name"`
	Tier Tier   `json:"tier"`

	// Approvers are alternatives within, conjunction between: [[a b] [c]] is
	// "one of a or b, and one of c".
	Approvers         [][]string `json:"approvers,omitzero"`
	Window            Duration   `json:"window,omitzero"` // time to decide; 15 minutes when zero
	Template          string     `json:"template,omitzero"`
	Limits            []Limit    `json:"limits,omitzero"`
	Payload           string     `json:"payload,omitzero"` // full, digest (when empty) or none: what is kept after closing
	OwnerMayApprove   bool       `json:"owner_may_approve,omitzero"`
	Authenticators    []string   `json:"authenticators,omitzero"` // AAGUIDs
	InsecureLowerTier bool       `json:"insecure_lower_tier,omitzero"`
}

// KeepsPayload reports whether the payloads of the class's calls are kept. Of
// others, and where there is no class, the log's commitment is all there is.
func (c *Class) KeepsPayload() bool { return c != nil && c.Payload == PayloadFull }

// Values of a Class's Payload; PayloadDigest when empty.
const (
	PayloadFull   = "full"
	PayloadDigest = "digest" // the commitment, and the salt that it can be checked with
	PayloadNone   = "none"   // the commitment alone, which nobody can check any more
)

// A Limit bounds the sum of a field over a window.
type Limit struct {
	Sum    string   `json:"sum"` // the field
	Per    string   `json:"per"` // agent
	Window Duration `json:"window"`
	Max    string   `json:"max"` // a decimal of at most four places
}

// An Agent is a non-human identity record.
type Agent struct {
	Name        string     `json:"name"`
	Owner       string     `json:"owner"`
	Purpose     string     `json:"purpose,omitzero"`
	Environment string     `json:"environment"`
	Keys        []string   `json:"keys,omitzero"` // public JWKs, canonical JSON; an instance each
	Workloads   []Workload `json:"workloads,omitzero"`
	Grants      []Grant    `json:"grants,omitzero"`
	Tasks       TaskLimits `json:"tasks,omitzero"`
	ProofKeys   string     `json:"proof_keys,omitzero"` // registered (when empty) or any
	Signals     *Signals   `json:"signals,omitzero"`    // shared signals that it may receive; nil: none
	Clones      string     `json:"clones,omitzero"`     // ClonesQuarantine (when empty) or ClonesRecord
}

// Values of an Agent's Clones: what follows when one of its keys was seen in two
// places at once.
const (
	ClonesQuarantine = "quarantine" // the key's instance is refused until a person releases it
	ClonesRecord     = "record"     // the ledger says so, and nothing else happens
)

// A Workload is a platform identity that an agent may log in with.
type Workload struct {
	Issuer   string `json:"issuer"`
	Subject  string `json:"subject"`
	Audience string `json:"audience,omitzero"`
}

// TaskLimits bound the tasks an agent opens.
type TaskLimits struct {
	MaxDuration Duration `json:"max_duration,omitzero"`
	MaxCalls    int      `json:"max_calls,omitzero"`
	Required    bool     `json:"required,omitzero"`

	// Orchestrators are agents that may open tasks for this one, and end those that
	// they opened. Nothing that they may call themselves comes with that.
	Orchestrators []string `json:"orchestrators,omitzero"`
}

// Signals is what an agent that receives shared signals (SSF 1.0) may do.
type Signals struct {
	// Push are the URLs that events may be pushed to; the agent names one of them
	// when it makes its stream. Without one it polls.
	Push []string `json:"push,omitzero"`
}

// A Transmitter is somebody else's source of shared signals (SSF 1.0), such as an
// identity provider, whose word about people counts.
type Transmitter struct {
	Name     string   `json:"name"`
	Issuer   string   `json:"issuer"`            // iss of its events
	Audience string   `json:"audience"`          // aud of its events; the issuer's URL when empty
	JWKSURI  string   `json:"jwks_uri,omitzero"` // where its keys are, or
	Keys     []string `json:"keys,omitzero"`     // the keys, public JWKs
	Poll     string   `json:"poll,omitzero"`     // its polling endpoint (RFC 8936); empty: it pushes
	Token    string   `json:"token,omitzero"`    // file with the bearer token for it
	Disabled []string `json:"disabled,omitzero"` // what follows for a person that it says is disabled; see below
}

// What follows when a Transmitter says that a person's account or sessions are no
// more. Without a word both do.
const (
	DisabledSuspendAgents = "suspend-agents" // the agents that the person owns
	DisabledVoidApprovals = "void-approvals" // what the person signed; and they sign no more
)

// A Grant is standing permission: tools, from networks, on a condition.
type Grant struct {
	Tools    []ToolID       `json:"tools"`             // the tool "*" is every classified tool of the resource
	Networks []netip.Prefix `json:"networks,omitzero"` // none means any
	When     string         `json:"when,omitzero"`     // one Cedar expression
}

// Covers reports whether the grant lists the tool, by name or by "*".
func (g *Grant) Covers(t ToolID) bool {
	for _, p := range g.Tools {
		if p.Resource == t.Resource && (p.Tool == t.Tool || p.Tool == EveryTool) {
			return true
		}
	}
	return false
}

// A Policy holds forbids, in Cedar.
type Policy struct {
	Name  string `json:"name"`
	Cedar string `json:"cedar"`
}

// A Registry is everything that manifests declare, at one moment. It is
// immutable once shared.
type Registry struct {
	People    map[string]*Person
	Classes   map[string]*Class
	Resources map[string]*Resource
	Agents    map[string]*Agent
	Policies  map[string]*Policy

	Transmitters map[string]*Transmitter
	Vocabularies map[string]*Vocabulary
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{
		People:    map[string]*Person{},
		Classes:   map[string]*Class{},
		Resources: map[string]*Resource{},
		Agents:    map[string]*Agent{},
		Policies:  map[string]*Policy{},

		Transmitters: map[string]*Transmitter{},
		Vocabularies: map[string]*Vocabulary{},
	}
}

// Members returns the people who are in one of the groups, by name.
func (r *Registry) Members(groups []string) []*Person {
	var out []*Person
	for _, name := range slices.Sorted(maps.Keys(r.People)) {
		if p := r.People[name]; p != nil && slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(p.Groups, g) }) {
			out = append(out, p)
		}
	}
	return out
}

// Humans counts people by mailbox: two records of one human are one.
func Humans(people []*Person) int {
	mailboxes := map[string]bool{}
	for _, p := range people {
		mailboxes[p.Mailbox()] = true
	}
	return len(mailboxes)
}

// ChangeGroups returns the groups whose people decide on changes of who may approve,
// sorted: those of irreversible classes and, while fewer than two humans are in them,
// those of forbidden classes, too. So making a class forbidden, which has to count at
// once, takes nobody's say away.
func (r *Registry) ChangeGroups() []string {
	of := func(tier Tier) (groups []string) {
		for _, c := range r.Classes {
			if c != nil && c.Tier == tier {
				groups = append(groups, slices.Concat(c.Approvers...)...)
			}
		}
		return groups
	}
	groups := of(Irreversible)
	if Humans(r.Members(groups)) < 2 {
		groups = append(groups, of(Forbidden)...)
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// An AgentState is where an agent is in its life. The zero AgentState is not
// live.
type AgentState struct {
	Status Status `json:"status"`
	// Epoch is milliseconds since 1970 or one more than the epoch before,
	// whichever is greater; tokens must equal it.
	Epoch int64 `json:"epoch"`
}

// A Status is a state of life. The zero Status is unknown, which is not live.
type Status string

const (
	Active     Status = "active"
	Suspended  Status = "suspended"
	Offboarded Status = "offboarded" // of agents alone; final, the name never returns

	Quarantined Status = "quarantined" // of instances alone: the key was seen in two places
	Ended       Status = "ended"       // of instances alone; final for the key
)

// An Instance is one running process of an agent. It is live exactly when its
// agent is active and its own status is Active.
type Instance struct {
	ID       string
	Agent    string
	JKT      string // thumbprint of its key (RFC 7638)
	JWK      string // its public key, canonical JSON
	Alg      string // pinned at registration
	Status   Status
	Enrolled time.Time
	How      string // EnrolledByCode or EnrolledByManifest

	// Old is the key that this one replaced, while both are taken; nil otherwise.
	Old *OldKey

	// Suspected is when its key was last taken for cloned, or released from that.
	// What was seen before counts no more. Zero: never.
	Suspected time.Time

	// Shown is when somebody else's use of its key was last recorded without
	// anything that follows (ClonesRecord), or its key was released. Zero: never.
	Shown time.Time
}

// An OldKey is the key that an instance had before, until it is taken no more.
type OldKey struct {
	JKT, JWK, Alg string
	Until         time.Time
}

// How an Instance came to be. What a manifest declared, a manifest ends; what
// enrolled with a code does not end because a manifest is silent about it.
const (
	EnrolledByCode     = "code"
	EnrolledByManifest = "manifest"
)

// A Caller is who a verified request comes from. Only resource.Verifier makes
// one; whoever holds one may trust every field.
type Caller struct {
	Agent       string
	Instance    string
	Environment string
	Epoch       int64
	Task        string
	Subject     string   // whom the agent acts for; its own name when for itself
	Actors      []string // delegation chain, newest first; empty until tokens are exchanged

	Audience string
	TokenID  string
	Scope    []string
	Details  []ToolDetail
	Issued   time.Time // the token's
	Expires  time.Time // the token's

	JKT     string // empty where there is no key
	Binding string // BoundDPoP, BoundMTLS or NotBound
	KeyKind string // the algorithm of the proof
	Proof   string // hash of thumbprint and proof id; at most one request has it
	Bearer  string // what was shown where nothing is bound, by a name that is no secret: Bearer.Label
}

// How a Caller is bound to what it showed.
const (
	BoundDPoP = "dpop"   // RFC 9449
	BoundMTLS = "mtls"   // RFC 8705
	NotBound  = "bearer" // whoever has it is the caller
)

// DetailType is the authorization_details type that the token endpoint takes
// (RFC 9396, Section 2).
const DetailType = "https://github.com/counterfoil/counterfoil/tool-call"

// A ToolDetail is the standing form of an authorization detail: one tool at
// one resource, and optionally bounds on its arguments. It has no call digest;
// the one-shot form comes with approvals.
type ToolDetail struct {
	Type        string                `json:"type"`
	Locations   []string              `json:"locations"`
	Actions     []string              `json:"actions,omitzero"`
	Tool        string                `json:"tool"`
	ToolDigest  string                `json:"tool_digest,omitzero"`
	ActionClass string                `json:"action_class,omitzero"`
	Constraints map[string]Constraint `json:"constraints,omitzero"` // by JSON pointer into the arguments
}

// A Constraint bounds one argument. Exactly one member is set.
type Constraint struct {
	Max    string   `json:"max,omitzero"` // a decimal
	Enum   []string `json:"enum,omitzero"`
	Equals string   `json:"equals,omitzero"`
}

// An Action is one concrete call, ready to be decided.
type Action struct {
	Caller    Caller
	Tool      ToolID
	Arguments []byte     // canonical JSON object (RFC 8785); what is decided on is what is sent
	Source    netip.Addr // the zero Addr is unknown, which no network holds

	// Opaque says that the arguments' member body stands for a body that is not in
	// them: one that is no JSON, or that was not shown. No rule judges it.
	Opaque bool
}

// A Duration is a time.Duration that is written as text ("15m0s") in JSON.
type Duration time.Duration

// String writes the duration as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}
