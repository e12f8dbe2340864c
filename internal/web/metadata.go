package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// serverMetadata is the authorization server's document (RFC 8414, Section 2).
// It says what is true today and nothing else: there is no authorization
// endpoint, so there are no response types and no PKCE methods to name.
type serverMetadata struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	JWKSURI       string   `json:"jwks_uri"`
	GrantTypes    []string `json:"grant_types_supported"`
	ResponseTypes []string `json:"response_types_supported"` // required by RFC 8414 even when empty
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	AuthAlgs      []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	DPoPAlgs      []string `json:"dpop_signing_alg_values_supported"`
	DetailTypes   []string `json:"authorization_details_types_supported"`

	// RFC 7662 and RFC 7009, by the same assertions as the token endpoint. Without
	// *_auth_methods_supported a client assumes client_secret_basic (RFC 8414,
	// Section 2).
	IntrospectionEndpoint string   `json:"introspection_endpoint"`
	IntrospectionMethods  []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectionAlgs     []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
	IntrospectionSigning  []string `json:"introspection_signing_alg_values_supported"` // RFC 9701, Section 7
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	RevocationMethods     []string `json:"revocation_endpoint_auth_methods_supported"`
	RevocationAlgs        []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`

	// Ours.
	EnrolmentEndpoint string `json:"counterfoil_enrolment_endpoint"`
	TasksEndpoint     string `json:"counterfoil_tasks_endpoint"`
	RotationEndpoint  string `json:"counterfoil_key_rotation_endpoint"`
	LeakEndpoint      string `json:"counterfoil_leak_endpoint"`
	RevocationFeed    string `json:"counterfoil_revocation_feed"`
	Signals           string `json:"counterfoil_signals,omitzero"` // where the transmitter of shared signals (SSF 1.0) says what it offers
	Ledger            string `json:"counterfoil_ledger"`           // where <this>/checkpoint and <this>/tile/… are
}

// resourceMetadata is a protected resource's document (RFC 9728, Section 2).
//
// It has no scopes_supported: MCP clients ask for every scope that is named
// there, and a request for one tool that is not granted is refused whole. Left
// out, they ask for none and get all that is granted.
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	Name                 string   `json:"resource_name"`
	AuthorizationServers []string `json:"authorization_servers"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	DetailTypes          []string `json:"authorization_details_types_supported"`
	DPoPAlgs             []string `json:"dpop_signing_alg_values_supported"`
	DPoPRequired         bool     `json:"dpop_bound_access_tokens_required"`
}

// newServerMetadata makes the document of an issuer whose keys sign by that algorithm.
func newServerMetadata(issuer, signs string) serverMetadata {
	return serverMetadata{
		Issuer:        issuer,
		TokenEndpoint: issuer + counterfoil.TokenPath,
		JWKSURI:       issuer + jwksPath,
		GrantTypes:    []string{authority.GrantClientCredentials},
		ResponseTypes: []string{},
		AuthMethods:   []string{"private_key_jwt"},
		AuthAlgs:      authority.Algorithms(),
		DPoPAlgs:      authority.Algorithms(),
		DetailTypes:   []string{counterfoil.DetailType},

		IntrospectionEndpoint: issuer + counterfoil.IntrospectPath,
		IntrospectionMethods:  []string{"private_key_jwt"},
		IntrospectionAlgs:     authority.Algorithms(),
		IntrospectionSigning:  []string{signs},
		RevocationEndpoint:    issuer + counterfoil.RevokePath,
		RevocationMethods:     []string{"private_key_jwt"},
		RevocationAlgs:        authority.Algorithms(),

		EnrolmentEndpoint: issuer + counterfoil.EnrollPath,
		TasksEndpoint:     issuer + counterfoil.TasksPath,
		RotationEndpoint:  issuer + counterfoil.RotatePath,
		LeakEndpoint:      issuer + counterfoil.LeakedPath,
		RevocationFeed:    issuer + counterfoil.FeedPath,
		Ledger:            issuer + ledgerPath,
	}
}

// signalsMetadata is where a receiver of shared signals looks (SSF 1.0, Section 6.2.1):
// the well-known part goes between the issuer's host and its path.
func signalsMetadata(issuer string) string {
	base, err := basePath(issuer)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(issuer, base) + signalsMetadataPath + base
}

const signalsMetadataPath = "/.well-known/ssf-configuration"

func newResourceMetadata(issuer string, r *counterfoil.Resource, now time.Time) resourceMetadata {
	return resourceMetadata{
		Resource:             r.ID(issuer),
		Name:                 r.Name,
		AuthorizationServers: []string{issuer},
		BearerMethods:        []string{"header"},
		DetailTypes:          []string{counterfoil.DetailType},
		DPoPAlgs:             authority.Algorithms(),
		DPoPRequired:         r.BindingAt(now) == counterfoil.BindingRequire,
	}
}

// metadataPaths are the paths of the server's document. RFC 8414, Section 3.1,
// inserts the well-known part before the issuer's path; OpenID Connect Discovery
// 1.0, Section 4, appends it, and clients try one, the other or both.
func metadataPaths(base string) []string {
	paths := []string{
		"/.well-known/oauth-authorization-server" + base,
		"/.well-known/openid-configuration" + base,
	}
	if base != "" {
		paths = append(paths, base+"/.well-known/openid-configuration")
	}
	return paths
}

// basePath returns the path of the issuer's URL, without a slash at its end.
func basePath(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(issuer, "/") {
		return "", fmt.Errorf("issuer %q is not a URL without query, fragment and a slash at its end", issuer)
	}
	return u.EscapedPath(), nil
}

// cacheable marks a public document that may be kept.
func cacheable(w http.ResponseWriter, seconds int) {
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", seconds))
}
