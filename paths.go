package counterfoil

// Paths below the issuer's URL: proofs are made for them, and identifiers are
// made of them.
const (
	TokenPath      = "/oauth/token"
	EnrollPath     = "/enroll"
	ApprovalPath   = "/approvals/" // and an approval's id: its status, for the agent that asked
	TasksPath      = "/tasks"
	RotatePath     = "/keys/rotate"
	IntrospectPath = "/oauth/introspect"
	RevokePath     = "/oauth/revoke"
	LeakedPath     = "/oauth/leaked"
	FeedPath       = "/oauth/revocations" // what is revoked, for enforcement points
	JWKSPath       = "/oauth/jwks"        // the keys that tokens are signed with
	SignalsPath    = "/ssf"
	AccessPath     = "/access/v1" // what enforcement points of others ask (AuthZEN 1.0)
	ResourcePath   = "/r/"        // and a resource's name: what the gateway serves
)

// ID is the resource's identifier (RFC 8707): its URL at the issuer's gateway, or
// its own where somebody else's gateway is in front of it. Tokens name it as
// their audience and proofs are made for it, character by character.
func (r *Resource) ID(issuer string) string {
	if r.PublicURL != "" {
		return r.PublicURL
	}
	return issuer + ResourcePath + r.Name
}
