// Command conformance is what the MCP conformance suite examines as a client:
// the smallest program that finds the issuer of a server, logs in, lists the
// tools and calls them, with package agent under the MCP Go SDK's client. The
// suite starts it with the server's URL as its last argument and the rest in its
// environment; it ends with 0 when everything went well.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

func main() {
	if err := run(context.Background(), os.Args[len(os.Args)-1], os.Getenv("MCP_CONFORMANCE_SCENARIO")); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, scenario string) error {
	info, err := agent.Discover(ctx, server, nil)
	if err != nil {
		return err
	}
	config := agent.Config{Issuer: info.Issuers[0], Resource: info.Resource}
	switch scenario {
	case "auth/client-credentials-jwt":
		err = registered(&config, os.Getenv("MCP_CONFORMANCE_CONTEXT"))
	case "auth/dpop", "auth/dpop-nonce":
		err = delegated(ctx, &config)
	case "auth/resource-mismatch", "auth/metadata-issuer-mismatch":
		// Documents that lie: it ends before anybody would have to be known.
		config.Agent, config.InsecureBearer = "nobody", true
		config.Signer, err = newSigner()
	default:
		err = fmt.Errorf("scenario %q is not one of ours", scenario)
	}
	if err != nil {
		return err
	}
	transport, err := agent.NewTransport(config)
	if err != nil {
		return err
	}
	return use(ctx, transport)
}

// registered is an agent that the issuer knows: its name and its key are given.
// The suite's issuer of this scenario binds no tokens to keys.
func registered(config *agent.Config, given string) error {
	var c struct {
		ClientID   string `json:"client_id"`
		PrivateKey string `json:"private_key_pem"`
	}
	if err := ijson.UnmarshalLax([]byte(given), &c); err != nil {
		return fmt.Errorf("reading what the suite gives: %w", err)
	}
	key, err := credential.ParsePrivateKeyPEM([]byte(c.PrivateKey))
	if err != nil {
		return err
	}
	config.Agent, config.InsecureBearer = c.ClientID, true
	config.Signer, err = credential.NewSigner(key)
	return err
}

// delegated is an agent that somebody logs in for: the suite counts a proof at
// the token endpoint with an authorization code alone. What comes before that
// request is no part of package agent and is done here: registration (RFC
// 7591), and what a browser would do (OAuth 2.1, Section 4.1; RFC 9207).
func delegated(ctx context.Context, config *agent.Config) error {
	signer, err := newSigner()
	if err != nil {
		return err
	}
	config.Signer = signer
	var issuer struct {
		Authorization string `json:"authorization_endpoint"`
		Registration  string `json:"registration_endpoint"`
	}
	if err := ask(ctx, http.MethodGet, config.Issuer+"/.well-known/oauth-authorization-server", nil, &issuer); err != nil {
		return err
	}
	const redirect = "http://127.0.0.1/callback"
	var client struct {
		ID string `json:"client_id"`
	}
	if err := ask(ctx, http.MethodPost, issuer.Registration, map[string]any{
		"client_name": "counterfoil", "application_type": "native", "redirect_uris": []string{redirect},
		"grant_types": []string{"authorization_code"}, "response_types": []string{"code"}, "token_endpoint_auth_method": "none",
	}, &client); err != nil {
		return err
	}
	config.Agent = client.ID

	verifier, state := rand.Text()+rand.Text(), rand.Text() // RFC 7636 wants 43 characters or more
	challenge := sha256.Sum256([]byte(verifier))
	code, err := authorize(ctx, issuer.Authorization, config.Issuer, url.Values{
		"response_type": {"code"}, "client_id": {client.ID}, "redirect_uri": {redirect}, "state": {state}, "resource": {config.Resource},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	})
	if err != nil {
		return err
	}
	config.Grant = func(context.Context) (url.Values, error) {
		return url.Values{
			"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "client_id": {client.ID}, "code_verifier": {verifier},
		}, nil
	}
	return nil
}

// newSigner makes a key of the algorithm that the suite's issuers take.
func newSigner() (*credential.Signer, error) {
	key, err := credential.GenerateKey(credential.ES256)
	if err != nil {
		return nil, err
	}
	return credential.NewSigner(key)
}

// authorize asks for an authorization code and takes it from the redirect.
func authorize(ctx context.Context, endpoint, issuer string, q url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"?"+q.Encode(), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		return "", fmt.Errorf("authorizing: the answer %s has no redirect: %w", resp.Status, err)
	}
	got := back.Query()
	if got.Get("state") != q.Get("state") || got.Get("iss") != issuer || got.Get("code") == "" {
		return "", errors.New("authorizing: the redirect is not the answer to what was asked, or from another issuer")
	}
	return got.Get("code"), nil
}

// ask sends a request with a JSON body, if any, and reads the JSON answer.
func ask(ctx context.Context, method, to string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := ijson.Marshal(in)
		if err != nil {
			return err
		}
		body = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", to, resp.Status)
	}
	return ijson.UnmarshalLax(b, out)
}

// use lists the tools and calls each.
func use(ctx context.Context, transport *agent.Transport) error {
	client := mcp.NewClient(&mcp.Implementation{Name: "counterfoil-conformance", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: transport.Resource(), HTTPClient: transport.Client(), DisableStandaloneSSE: true,
	}, nil)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			return fmt.Errorf("listing tools: %w", err)
		}
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool.Name})
		if err != nil {
			return fmt.Errorf("calling %s: %w", tool.Name, err)
		}
		if result.IsError {
			return fmt.Errorf("calling %s: it failed", tool.Name)
		}
	}
	return session.Close()
}
