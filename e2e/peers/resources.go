package peers

import (
	"strings"
	"testing"
)

// Express starts a service that takes the issuer's tokens with
// express-oauth2-jwt-bearer and returns its identifier.
func (p Peers) Express(t testing.TB, issuer string) string {
	t.Helper()
	return p.service(t, "express-server.mjs", issuer)
}

// Jose starts one that takes them with a JWT library alone.
func (p Peers) Jose(t testing.TB, issuer string) string {
	t.Helper()
	return p.service(t, "jose-server.mjs", issuer)
}

func (p Peers) service(t testing.TB, script, issuer string) string {
	t.Helper()
	return strings.TrimSuffix(p.serve(t, nil, script, issuer), "/mcp") + "/api"
}
