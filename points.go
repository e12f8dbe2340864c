package counterfoil

import (
	"errors"
	"net/http"
	"net/netip"
	"time"
)

// What enforcement points of somebody else ask the gateway, and what it answers. The
// types are here because who reads a proxy's protocol and who decides do not import
// each other.

// A Question is a request that a proxy holds and asks about: may it be passed on? It
// carries a token, so it is decided as the gateway decides on its own requests.
type Question struct {
	RequestID string
	Point     string // the protocol: forward_auth, ext_authz_http or ext_authz_grpc
	Resource  string // by its name; the proxy's configuration says it, never the request

	Method string
	Path   string // as it was sent, from the slash after the resource's public URL on, without the query
	Query  string // as it was sent, without the question mark
	Header http.Header
	Source netip.Addr // of who made the request; the zero Addr is unknown

	// Body is the request's where BodyKnown; else the proxy did not send it, and
	// nothing is allowed whose arguments matter to anybody.
	Body      []byte
	BodyKnown bool
}

// An Answer is what the proxy is to do. The zero Answer refuses.
type Answer struct {
	Allow bool

	// Status, Header and Body answer the request in the proxy's place where it is
	// refused.
	Status int
	Header http.Header
	Body   []byte

	// Set are headers that the request is to have upstream, and Remove those that it
	// must not have there, where it is allowed.
	Set    http.Header
	Remove []string
}

// A Statement is what an enforcement point that is authenticated says of a call and
// asks about (AuthZEN 1.0): that an agent wants to make it is its word, not proved.
type Statement struct {
	RequestID string
	Point     Caller // who asks, verified; one of the resource's Servers

	Agent     string // whose call it is said to be
	Task      string // said too; empty: none
	Tool      ToolID
	Arguments []byte     // canonical JSON object; nil: not said
	Source    netip.Addr // said too; the zero Addr is unknown
	Approval  string     // id of the approval that it wants to use up; empty: none
}

// A Verdict is what a Statement is answered with. The zero Verdict refuses.
type Verdict struct {
	Allow  bool
	Code   Code   // of a refusal
	Detail string // for the developer of the enforcement point
	Entry  int64  // the call.decided

	// Requestable says that people may still allow the call, and may be asked until then
	// by whoever brings Context back, which means nothing to anybody else. Digest is of
	// what they would allow.
	Requestable bool
	Until       time.Time
	Context     string
	Digest      string

	Class    string
	Approval *ApprovalStatus // what people were asked, where the Statement names it
}

// ErrDenial says that what came back as a Verdict's Context is none of this enforcement
// point's, or that its time is over.
var ErrDenial = errors.New("the denial is not one that people can be asked about")
