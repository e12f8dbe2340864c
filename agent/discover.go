package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/counterfoil/counterfoil/ijson"
)

// maxIssuers bounds how many issuers a resource may name.
const maxIssuers = 16

// A ResourceInfo is what a resource says of itself (RFC 9728, Section 2). It is
// the resource's word alone: whether an agent has anything to do with one of
// those issuers is for the agent to know.
type ResourceInfo struct {
	Resource string   `json:"resource"`              // its URL, exactly as asked
	Issuers  []string `json:"authorization_servers"` // at least one; for Config.Issuer
	Scopes   []string `json:"scopes_supported"`      // often none, which says nothing
}

// Discover asks a resource which issuers it takes tokens of, for an agent that
// knows the resource's URL and no more. Nothing secret is sent. Of base only the
// transport is used; nil is as in Config.
func Discover(ctx context.Context, resource string, base *http.Client) (ResourceInfo, error) {
	info, err := discover(ctx, resource, clientOf(base))
	if err != nil {
		return ResourceInfo{}, fmt.Errorf("asking %q for its issuers: %w", resource, err)
	}
	return info, nil
}

func discover(ctx context.Context, resource string, client *http.Client) (ResourceInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	u, err := checkURL(resource)
	if err != nil {
		return ResourceInfo{}, err
	}
	places, err := metadataPlaces(ctx, resource, u, client)
	if err != nil {
		return ResourceInfo{}, err
	}
	var refused error
	for _, at := range places {
		status, body, err := document(ctx, client, at)
		if err != nil {
			return ResourceInfo{}, err
		}
		if status == http.StatusOK {
			return readResourceInfo(resource, body)
		}
		refused = refusedBy("its metadata", status, body)
	}
	return ResourceInfo{}, refused
}

// metadataPlaces says where a resource's metadata may be: where its challenge
// says, and then nowhere else; otherwise at the well-known place of the resource
// and of its host (MCP 2026-07-28, Authorization, Protected Resource Metadata
// Discovery). The challenge is asked for with a GET, which has no effect; a
// resource that takes none answers without one.
func metadataPlaces(ctx context.Context, resource string, u *url.URL, client *http.Client) ([]string, error) {
	req, err := get(ctx, resource)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close() // unread: it may be a stream
	if resp.StatusCode == http.StatusUnauthorized {
		for _, scheme := range []string{"dpop", "bearer"} {
			at := challengeParam(resp.Header.Values("WWW-Authenticate"), scheme, "resource_metadata")
			if at == "" {
				continue
			}
			// Only the resource's own host can vouch for it. A place elsewhere
			// would have this agent send requests into its own network for
			// whoever wrote the challenge.
			if m, err := checkURL(at); err != nil || origin(m) != origin(u) {
				return nil, fmt.Errorf("its challenge says that its metadata is at %q, which is not its own host", printable(at))
			}
			return []string{at}, nil
		}
	}
	const wellKnown = "oauth-protected-resource"
	return slices.Compact([]string{metadataURL(resource, wellKnown), metadataURL(u.Scheme+"://"+u.Host, wellKnown)}), nil
}

func readResourceInfo(resource string, body []byte) (ResourceInfo, error) {
	var info ResourceInfo
	if err := ijson.UnmarshalLax(body, &info); err != nil {
		return ResourceInfo{}, fmt.Errorf("reading its metadata: %w", err)
	}
	// RFC 9728, Section 3.3: the value must be identical to the URL that the
	// metadata was looked up for, and other metadata must not be used: a resource
	// that passes another one's off for its own would get that one's tokens.
	if info.Resource != resource {
		return ResourceInfo{}, fmt.Errorf("its metadata is of the resource %q", printable(info.Resource))
	}
	if len(info.Issuers) == 0 || len(info.Issuers) > maxIssuers {
		return ResourceInfo{}, errors.New("its metadata names no issuer, or too many")
	}
	for _, issuer := range info.Issuers {
		if _, err := checkURL(issuer); err != nil {
			return ResourceInfo{}, fmt.Errorf("its metadata names the issuer %q: %w", printable(issuer), err)
		}
	}
	return info, nil
}

// document reads a whole answer, whatever its status.
func document(ctx context.Context, client *http.Client, url string) (int, []byte, error) {
	req, err := get(ctx, url)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := readLimited(resp.Body)
	return resp.StatusCode, body, err
}

// get makes a request without credentials.
func get(ctx context.Context, url string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	return req, nil
}
