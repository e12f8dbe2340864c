package counterfoil

import (
	"net/url"
	"time"
)

// Kinds of resource.
const (
	ResourceMCP    = "mcp"
	ResourceHTTP   = "http"
	ResourceDirect = "direct" // not fronted: tokens only
)

// Binding modes: the ladder from bearer to bound. Any other mode is BindingRequire.
const (
	BindingRequire = "require" // bound tokens alone
	BindingPrefer  = "prefer"  // a Bearer too, for routine classes
	BindingObserve = "observe" // a Bearer too, for what its agent may; what would be refused is recorded
)

// A Resource is a protected server.
type Resource struct {
	Name        string              `json:"name"`
	Type        string              `json:"type"`
	Environment string              `json:"environment"`
	Upstream    string              `json:"upstream,omitzero"`
	PublicURL   string              `json:"public_url,omitzero"`
	Binding     string              `json:"binding"`
	Credential  *UpstreamCredential `json:"credential,omitzero"`
	Tools       []Tool              `json:"tools,omitzero"`
	Resources   string              `json:"resources,omitzero"` // class of an MCP server's resources; empty refuses them
	Prompts     string              `json:"prompts,omitzero"`   // class of its prompts; empty refuses them

	// RequireFrom is when the binding becomes BindingRequire by itself. Zero: not by
	// itself.
	RequireFrom time.Time `json:"require_from,omitzero"`

	// Bearers are what is taken without a key while the binding allows it.
	Bearers []Bearer `json:"bearers,omitzero"`

	// Servers are agents that speak for the resource: they may introspect its
	// tokens, follow what is revoked and ask whether a call of it is allowed.
	Servers []string `json:"servers,omitzero"`
}

// BindingAt returns the binding mode at that time. What is no mode is BindingRequire.
func (r *Resource) BindingAt(now time.Time) string {
	switch {
	case r.Binding != BindingObserve && r.Binding != BindingPrefer:
		return BindingRequire
	case !r.RequireFrom.IsZero() && !now.Before(r.RequireFrom):
		return BindingRequire
	}
	return r.Binding
}

// A Bearer is a credential that whoever has it may use, and the agent that its use
// counts as: a static key, or the tokens of somebody else's issuer for one subject.
// Nothing that this issuer issues is one.
type Bearer struct {
	Agent string `json:"agent"`

	// Key is "sha-256:" and the base64url of a static key's SHA-256; or empty, and
	// the rest says whose tokens (RFC 7519) are taken.
	Key string `json:"key,omitzero"`

	Issuer   string   `json:"issuer,omitzero"`
	Subject  string   `json:"subject,omitzero"`
	Audience string   `json:"audience,omitzero"` // its aud; the resource's identifier when empty
	JWKSURI  string   `json:"jwks_uri,omitzero"` // where the issuer's keys are, or
	Keys     []string `json:"keys,omitzero"`     // the keys, public JWKs
}

// Label names a bearer credential in records and reports. It is no secret.
func (b *Bearer) Label() string {
	if b.Key != "" {
		return "key " + b.Key
	}
	return b.Issuer + " " + b.Subject
}

// Names under which an MCP resource's resources and prompts are granted.
const (
	ToolResources = "resources"
	ToolPrompts   = "prompts"
)

// Tool returns the tool of that name, if it has a class. The tools "resources" and
// "prompts" exist where the manifest gives them one.
func (r *Resource) Tool(name string) (Tool, bool) {
	for i := range r.Tools {
		if r.Tools[i].Name == name && r.Tools[i].Class != "" {
			return r.Tools[i], true
		}
	}
	switch {
	case name == ToolResources && r.Resources != "":
		return Tool{Name: name, Class: r.Resources}, true
	case name == ToolPrompts && r.Prompts != "":
		return Tool{Name: name, Class: r.Prompts}, true
	}
	return Tool{}, false
}

// An UpstreamCredential is what the gateway shows the upstream: a header, whose
// secret comes from exactly one place. It is shown to the upstream's own host alone.
type UpstreamCredential struct {
	Header string `json:"header"`
	Prefix string `json:"prefix,omitzero"`

	File     string         `json:"file,omitzero"`      // a file under the secrets directory
	Stored   string         `json:"stored,omitzero"`    // a name in the database's own store, where it is sealed
	Exec     string         `json:"exec,omitzero"`      // a program in the folder of providers, which prints it
	URL      string         `json:"url,omitzero"`       // where it is got from
	OAuth    *OAuthProvider `json:"oauth,omitzero"`     // where a token is got from
	URLToken string         `json:"url_token,omitzero"` // file with a bearer token for URL

	// TTL is how long what a provider said is kept at most; what the provider says
	// itself counts where it is less. Zero: five minutes.
	TTL Duration `json:"ttl,omitzero"`
}

// Label says where the secret comes from, for records and whoever has to change it: "file
// crm-token", "stored crm", "exec vault-crm", "url https://host", "oauth https://host". It
// is no secret: of an address it has the origin alone, as the rest of it may hold one. A
// credential of no place, or of two, is labelled by one of them.
func (c *UpstreamCredential) Label() string {
	switch {
	case c.Exec != "":
		return "exec " + c.Exec
	case c.URL != "":
		return "url " + origin(c.URL)
	case c.OAuth != nil:
		return "oauth " + origin(c.OAuth.TokenURL)
	case c.Stored != "":
		return "stored " + c.Stored
	}
	return "file " + c.File
}

// origin is an address without path, query and user.
func origin(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "?"
	}
	return u.Scheme + "://" + u.Host
}

// An OAuthProvider is somebody else's token endpoint, which gives the gateway tokens
// for an upstream: by client credentials (RFC 6749, Section 4.4), or by exchanging the
// gateway's own token (RFC 8693) where SubjectToken names one.
type OAuthProvider struct {
	TokenURL     string `json:"token_url"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"` // file
	Scope        string `json:"scope,omitzero"`
	Audience     string `json:"audience,omitzero"`
	Resource     string `json:"resource,omitzero"`      // RFC 8707
	SubjectToken string `json:"subject_token,omitzero"` // file; a JWT
}

// A Tool is something callable at a resource. A tool without a class is not
// callable: of an http resource it keeps the requests that are its own from the tools
// whose templates fit them, too, and nothing lists it.
type Tool struct {
	Name   string            `json:"name"`
	Class  string            `json:"class"`
	Fields map[string]string `json:"fields,omitzero"` // name to JSON pointer (RFC 6901) into the arguments

	// Of http resources only.
	Method    string   `json:"method,omitzero"`
	Path      string   `json:"path,omitzero"`      // a template such as /customers/{id}
	Consumes  []string `json:"consumes,omitzero"`  // media types of bodies that are taken beside JSON
	Headers   []string `json:"headers,omitzero"`   // request headers that are passed on beside the usual ones
	Stream    bool     `json:"stream,omitzero"`    // a body is passed on as it comes; routine classes only
	WebSocket bool     `json:"websocket,omitzero"` // RFC 6455; routine classes only
	Colons    bool     `json:"colons,omitzero"`    // a path may end in a colon and a word, which are of the last variable's value and no verb of the API

	// Schema is the JSON Schema, in canonical JSON, of the arguments: an object with
	// the members path, query and body. Empty: any.
	Schema string `json:"schema,omitzero"`
}

// A Vocabulary is what an enforcement point of somebody else's asks about in words of
// its own (AuthZEN 1.0): its subjects, actions and resources are no agents and tools
// here, and Cedar policies say which of them go together. What they allow is of one
// class, which is routine: nobody here could be asked.
type Vocabulary struct {
	Name    string   `json:"name"`
	Servers []string `json:"servers"` // the agents that may ask
	Class   string   `json:"class"`
	Cedar   string   `json:"cedar"`
}
