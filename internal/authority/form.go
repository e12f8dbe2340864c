package authority

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// Values of the token endpoint's parameters (RFC 6749, Section 4.4; RFC 7523,
// Section 2.2).
const (
	GrantClientCredentials = "client_credentials"
	AssertionTypeJWT       = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// Bounds on what one token request may name, in bytes. A scope that is longer
// would not fit into a token.
const (
	maxScope    = 4 << 10
	maxResource = 2 << 10
)

// A TokenRequest is a request to the token endpoint as it came: nothing in it
// is verified.
type TokenRequest struct {
	Form          url.Values // the body's parameters, and nothing else's
	Proof         []string   // the values of the DPoP header
	Authorization []string   // the values of the Authorization header, which has no use here
	Source        netip.Addr // the zero Addr is unknown
	RequestID     string
}

// A tokenForm is a token request whose parameters have the right form. What
// they say is still the caller's word.
type tokenForm struct {
	clientForm
	resource string
	scope    []string // nil when absent: all that is granted
	details  []counterfoil.ToolDetail
	task     string
}

// parseTokenForm checks the form of a token request before anything is looked
// up or verified.
func parseTokenForm(req *TokenRequest) (tokenForm, error) {
	var f tokenForm
	if err := oneMethod(req.Form, req.Authorization); err != nil {
		return f, err
	}
	// RFC 8707, Section 2, lets a client name several resources; a token of ours
	// is for one, so that no resource can replay it at another.
	if len(req.Form["resource"]) > 1 {
		return f, counterfoil.Refuse(counterfoil.TargetInvalid, "resource is there %d times; a token is for one", len(req.Form["resource"]))
	}
	if err := once(req.Form); err != nil {
		return f, err
	}
	// RFC 6749, Section 3.2: a parameter without a value counts as omitted.
	switch grant := req.Form.Get("grant_type"); grant {
	case GrantClientCredentials:
	case "":
		return f, counterfoil.Refuse(counterfoil.RequestMalformed, "grant_type is missing")
	default:
		return f, counterfoil.Refuse(counterfoil.GrantUnsupported, "grant type %.80q is not offered; use %s", grant, GrantClientCredentials)
	}
	if err := f.parseClient(req.Form); err != nil {
		return f, err
	}
	return f, f.parseTarget(req.Form)
}

func (f *tokenForm) parseTarget(form url.Values) error {
	f.resource, f.task = form.Get("resource"), form.Get("task")
	if err := checkResourceParameter(f.resource); err != nil {
		return err
	}
	if s := form.Get("scope"); s != "" {
		scope, err := parseScope(s)
		if err != nil {
			return err
		}
		f.scope = scope
	}
	if s := form.Get("authorization_details"); s != "" {
		details, err := parseDetails([]byte(s))
		if err != nil {
			return err
		}
		f.details = details
	}
	return nil
}

// checkResourceParameter checks the form that RFC 8707, Section 2, asks for: an
// absolute URI without a fragment. Which resource it names is compared later,
// character by character.
func checkResourceParameter(s string) error {
	if s == "" {
		return counterfoil.Refuse(counterfoil.TargetInvalid, "resource is missing: send the resource's URL as its metadata says it")
	}
	if len(s) > maxResource {
		return counterfoil.Refuse(counterfoil.TargetInvalid, "resource is longer than %d bytes", maxResource)
	}
	u, err := url.Parse(s)
	if err != nil || !u.IsAbs() || strings.Contains(s, "#") {
		return counterfoil.Refuse(counterfoil.TargetInvalid, "resource is not an absolute URI without a fragment")
	}
	return nil
}

// parseScope reads a list of tool names (RFC 6749, Section 3.3), in the order
// in which they were asked for. A name twice is a name once.
func parseScope(s string) ([]string, error) {
	if len(s) > maxScope {
		return nil, counterfoil.Refuse(counterfoil.ScopeInvalid, "scope is longer than %d bytes", maxScope)
	}
	names := strings.Split(s, " ")
	scope := make([]string, 0, len(names))
	for _, name := range names {
		if err := counterfoil.CheckToolName(name); err != nil {
			return nil, counterfoil.Refuse(counterfoil.ScopeInvalid, "scope is not a list of tool names separated by single spaces: %v", err)
		}
		if !slices.Contains(scope, name) {
			scope = append(scope, name)
		}
	}
	return scope, nil
}
