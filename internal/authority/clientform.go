package authority

import (
	"net/url"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// A clientForm is how a client says who it is, at every endpoint alike (RFC 7521,
// Section 4.2). What it says is still the caller's word.
type clientForm struct {
	assertion string
	clientID  string // empty when absent
}

// oneMethod refuses every way to authenticate but a client assertion. RFC 6749,
// Section 2.3: a client uses one authentication method per request. Whoever sends a
// second is confused about which one counts.
func oneMethod(form url.Values, authorization []string) error {
	if len(authorization) > 0 && !form.Has("client_assertion") && !form.Has("client_assertion_type") && !form.Has("client_secret") {
		// RFC 6749, Section 5.2: it attempted to authenticate by the header, which no
		// client does here.
		return credential.RefuseClient("")
	}
	if len(authorization) > 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the Authorization header has no use here: authenticate with client_assertion alone")
	}
	if form.Has("client_secret") {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "client_secret is not taken: authenticate with client_assertion alone")
	}
	return nil
}

// once refuses a parameter that is there twice. RFC 6749, Section 3.2: parameters
// must not be included more than once. That holds for those we ignore as well.
func once(form url.Values) error {
	for name, values := range form {
		if len(values) > 1 {
			return counterfoil.Refuse(counterfoil.RequestMalformed, "parameter %.40q is there %d times", name, len(values))
		}
	}
	return nil
}

func (f *clientForm) parseClient(form url.Values) error {
	f.assertion, f.clientID = form.Get("client_assertion"), form.Get("client_id")
	kind := form.Get("client_assertion_type")
	if f.assertion == "" && kind == "" {
		// RFC 6749, Section 5.2: no client authentication included.
		return credential.RefuseClient("")
	}
	if f.assertion == "" {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "client_assertion is missing")
	}
	if kind != AssertionTypeJWT {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "client_assertion_type is not %s", AssertionTypeJWT)
	}
	return nil
}
