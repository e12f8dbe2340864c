package resource

import (
	"errors"
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// Challenge returns the WWW-Authenticate values for an answer to err; none for
// what is no matter of authentication. metadataURL is the resource's metadata
// (RFC 9728, Section 5.1), scope what a token for it would name; both may be
// empty. err must not be nil.
func Challenge(err error, metadataURL, scope string) []string {
	code := counterfoil.CodeOf(err)
	wire := code.Wire()
	if wire.Fault {
		return nil
	}
	about := params{{"algs", algs}, {"resource_metadata", metadataURL}, {"scope", scope}}
	refusal, ok := counterfoil.AsRefusal(err)
	if !ok {
		return nil
	}
	switch {
	// RFC 6750, Section 3.1: without credentials there is no error.
	case errors.Is(err, errNoCredentials):
		return []string{about.as("DPoP")}

	// RFC 9449, Section 7.2: the scheme that was used says what is wrong, the
	// other what to use.
	case code == counterfoil.BearerRefused, errors.Is(err, errBearer):
		return []string{
			params{{"error", wire.Challenge}, {"error_description", refusal.Detail}, {"resource_metadata", metadataURL}}.as("Bearer"),
			about.as("DPoP"),
		}

	// A token without a proof: the proof is at fault.
	case code == counterfoil.ProofMissing:
		return []string{failed("invalid_dpop_proof", refusal.Detail, about)}

	// The scope is the one that would do (RFC 6750, Section 3.1).
	case code == counterfoil.ToolNotGranted:
		if refusal.Scope != "" {
			about[2].value = refusal.Scope
		}
		return []string{failed(wire.Challenge, refusal.Detail, about)}

	case wire.Challenge == "":
		return nil
	}
	return []string{failed(wire.Challenge, refusal.Detail, about)}
}

var algs = strings.Join(credential.Algorithms(), " ")

type params []struct{ name, value string }

func failed(code, detail string, about params) string {
	return append(params{{"error", code}, {"error_description", detail}}, about...).as("DPoP")
}

// as writes one challenge (RFC 9110, Section 11.6.1), leaving out what is
// empty.
func (p params) as(scheme string) string {
	var b strings.Builder
	b.WriteString(scheme)
	separator := " "
	for _, m := range p {
		if m.value == "" {
			continue
		}
		b.WriteString(separator)
		b.WriteString(m.name)
		b.WriteString(`="`)
		quote(&b, m.value)
		b.WriteByte('"')
		separator = ", "
	}
	return b.String()
}

// quote writes a value in the characters that RFC 6750, Section 3, allows in
// error_description, which need no escapes. A detail may hold what the sender
// sent.
func quote(b *strings.Builder, s string) {
	const most = 400
	for i, r := range s {
		if i >= most {
			b.WriteString("...")
			return
		}
		switch {
		case r == '"':
			b.WriteByte('\'')
		case r < ' ' || r > '~' || r == '\\':
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
}

// setHeaders writes the headers that belong to a refusal or a fault.
func (v *Verifier) setHeaders(h http.Header, err error) {
	for _, c := range Challenge(err, "", "") {
		h.Add("WWW-Authenticate", c)
	}
	code := counterfoil.CodeOf(err)
	if code == counterfoil.NonceRequired {
		// RFC 9449, Section 8: the answer that holds it is not cached.
		h.Set("DPoP-Nonce", v.Nonce())
	}
	if code.Wire().Retry {
		h.Set("Retry-After", "1")
	}
	h.Set("Cache-Control", "no-store")
}
