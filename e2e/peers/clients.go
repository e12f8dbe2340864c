package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// An Address is how an MCP client is told where its server is: a URL, or the
// command that is the server on its standard input and output, as in a desktop
// client's configuration.
type Address struct {
	URL     string   `json:"url,omitempty"`
	Command string   `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
}

// A Call is a tool call for an MCP client.
type Call struct {
	Name      string         `json:"name"`
	Arguments map[string]any `json:"arguments,omitempty"`
}

// A Session is what an MCP client saw.
type Session struct {
	Protocol string // revision agreed on
	Session  bool   // whether the server gave a session id
	Server   struct{ Name, Version string }
	Tools    []string // names, as listed
	Calls    []Called

	// Refused is why the client did not connect.
	Refused *struct {
		Name, Message string
		Code          any // a number of JSON-RPC or a word of the SDK
	}
}

// Called is one call's end: a result or an error, and what came before it.
type Called struct {
	Name     string
	Progress []Step
	Result   *Result
	Error    *Error
}

// A Step is one progress notification.
type Step struct{ Progress, Total float64 }

// An Error is one of JSON-RPC, or of the client itself.
type Error struct {
	Code    any // a number of JSON-RPC or a word of the SDK
	Message string
	Data    json.RawMessage
}

// A Result is a tool's, or the gateway's in its place.
type Result struct {
	Content []struct{ Type, Text string }
	IsError bool
	Meta    struct {
		Refusal struct {
			Code, Detail string
			Approval     struct{ ID string }
		} `json:"counterfoil/refusal"`
	} `json:"_meta"`
}

// Text returns the text of the result's first block.
func (c Called) Text() string {
	if c.Result == nil || len(c.Result.Content) == 0 {
		return ""
	}
	return c.Result.Content[0].Text
}

// Code returns the code of the gateway's refusal, if the call got one.
func (c Called) Code() string {
	if c.Result == nil || !c.Result.IsError {
		return ""
	}
	return c.Result.Meta.Refusal.Code
}

// String says how the call ended.
func (c Called) String() string {
	switch {
	case c.Error != nil:
		return fmt.Sprintf("%s: error %v: %s", c.Name, c.Error.Code, c.Error.Message)
	case c.Result == nil:
		return c.Name + ": nothing"
	}
	return fmt.Sprintf("%s: %d notices, %+v", c.Name, len(c.Progress), *c.Result)
}

// A Client connects, lists the tools and makes the calls, one after another.
type Client func(t testing.TB, at Address, calls ...Call) Session

// MCP is the [Client] of the TypeScript SDK's first major version.
func (p Peers) MCP(t testing.TB, at Address, calls ...Call) Session {
	t.Helper()
	return p.converse(t, "mcp-client.mjs", at, "", calls)
}

// MCP2 is that of the second major version. The revision is "auto" (it asks the
// server), "legacy" (it opens with a handshake) or one that it insists on.
func (p Peers) MCP2(revision string) Client {
	return func(t testing.TB, at Address, calls ...Call) Session {
		t.Helper()
		return p.converse(t, "mcp-client-2.mjs", at, revision, calls)
	}
}

func (p Peers) converse(t testing.TB, script string, at Address, revision string, calls []Call) Session {
	t.Helper()
	in := struct {
		Address
		Revision string `json:"revision,omitempty"`
		Calls    []Call `json:"calls"`
	}{at, revision, calls}
	var s Session
	p.Run(t, script, in, &s)
	if s.Refused == nil && len(s.Calls) != len(calls) {
		t.Fatalf("%s reported %d calls of %d", script, len(s.Calls), len(calls))
	}
	return s
}

// Exit codes of the inspector that are not faults of ours.
const (
	inspectorDone      = 0
	inspectorToolError = 5
)

// inspected is what the inspector answers: a list, a tool's result or why it did
// not get one.
type inspected struct {
	Result *struct {
		Result
		Tools []struct{ Name string }
	}
	Error *Error
}

// Inspector is the MCP inspector's command line, which is one process for the
// list and one for each call. The era is "legacy", "modern" or "auto". It tells
// neither revision nor progress, and calls no tool that is not listed.
func (p Peers) Inspector(era string) Client {
	return func(t testing.TB, at Address, calls ...Call) Session {
		t.Helper()
		return p.inspect(t, at, era, calls)
	}
}

func (p Peers) inspect(t testing.TB, at Address, era string, calls []Call) Session {
	t.Helper()
	home := t.TempDir()
	server := []string{"--transport", "http", "--server-url", at.URL}
	if at.URL == "" {
		config := filepath.Join(home, "mcp.json")
		b, err := json.Marshal(map[string]any{"mcpServers": map[string]any{"counterfoil": at}})
		if err == nil {
			err = os.WriteFile(config, b, 0o600)
		}
		if err != nil {
			t.Fatalf("configuring the inspector: %v", err)
		}
		server = []string{"--config", config, "--server", "counterfoil"}
	}
	inspect := func(args ...string) inspected {
		t.Helper()
		launcher := filepath.Join(p.dir, "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js")
		args = slices.Concat([]string{launcher, "--cli", "--format", "json", "--protocol-era", era}, server, args)
		cmd := exec.CommandContext(t.Context(), p.node, args...)
		cmd.Dir, cmd.Env = home, []string{"HOME=" + home, "MCP_INSPECTOR_SECRET_STORE=memory"}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != inspectorDone && code != inspectorToolError {
			t.Fatalf("the inspector ended with %d (%v)\n%s%s", code, err, stderr.Bytes(), stdout.Bytes())
		}
		answer := stdout.Bytes()
		if len(answer) == 0 {
			// It did not make the call: why is its last line of errors.
			lines := bytes.Split(bytes.TrimSpace(stderr.Bytes()), []byte("\n"))
			answer = lines[len(lines)-1]
		}
		var out inspected
		if err := json.Unmarshal(answer, &out); err != nil {
			t.Fatalf("the inspector answered something else than JSON: %v\n%s%s", err, stdout.Bytes(), stderr.Bytes())
		}
		return out
	}

	var s Session
	for _, tool := range inspect("--method", "tools/list").Result.Tools {
		s.Tools = append(s.Tools, tool.Name)
	}
	for _, call := range calls {
		if call.Arguments == nil {
			call.Arguments = map[string]any{}
		}
		arguments, err := json.Marshal(call.Arguments)
		if err != nil {
			t.Fatal(err)
		}
		got := inspect("--method", "tools/call", "--tool-name", call.Name, "--tool-args-json", string(arguments))
		c := Called{Name: call.Name, Error: got.Error}
		if got.Result != nil {
			c.Result = &got.Result.Result
		}
		s.Calls = append(s.Calls, c)
	}
	return s
}

// GoSDK is the [Client] of the Go SDK. It asks for the newest revision and takes
// an older one.
func GoSDK(t testing.TB, at Address, calls ...Call) Session {
	t.Helper()
	var transport mcp.Transport = &mcp.StreamableClientTransport{Endpoint: at.URL}
	if at.URL == "" {
		cmd := exec.CommandContext(t.Context(), at.Command, at.Args...)
		cmd.Env = []string{}
		transport = &mcp.CommandTransport{Command: cmd}
	}
	var mu sync.Mutex // guards steps, which the client's own goroutine writes
	steps := map[any][]Step{}
	client := mcp.NewClient(&mcp.Implementation{Name: "an-unmodified-client", Version: "1.0.0"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			mu.Lock()
			defer mu.Unlock()
			steps[r.Params.ProgressToken] = append(steps[r.Params.ProgressToken], Step{r.Params.Progress, r.Params.Total})
		},
	})
	session, err := client.Connect(t.Context(), transport, nil)
	if err != nil {
		t.Fatalf("connecting the Go SDK's client: %v", err)
	}
	var s Session
	agreed := session.InitializeResult()
	s.Protocol, s.Session = agreed.ProtocolVersion, session.ID() != ""
	if agreed.ServerInfo != nil {
		s.Server.Name, s.Server.Version = agreed.ServerInfo.Name, agreed.ServerInfo.Version
	}
	for tool, err := range session.Tools(t.Context(), nil) {
		if err != nil {
			t.Fatalf("listing tools with the Go SDK's client: %v", err)
		}
		s.Tools = append(s.Tools, tool.Name)
	}
	for i, call := range calls {
		params := &mcp.CallToolParams{Name: call.Name, Arguments: call.Arguments}
		if call.Arguments == nil {
			params.Arguments = map[string]any{}
		}
		params.SetProgressToken(fmt.Sprint("call ", i))
		s.Calls = append(s.Calls, called(t, call.Name, func() (any, error) { return session.CallTool(t.Context(), params) }))
	}
	// Notices are handled apart from answers: the end waits for all of them.
	if err := session.Close(); err != nil {
		t.Errorf("closing the Go SDK's client: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range s.Calls {
		s.Calls[i].Progress = steps[fmt.Sprint("call ", i)]
	}
	return s
}

// called makes a call and brings its end into the form that the scripts answer.
func called(t testing.TB, name string, call func() (any, error)) Called {
	t.Helper()
	result, err := call()
	if err != nil {
		c := Called{Name: name, Error: &Error{Message: err.Error()}}
		if wire, ok := errors.AsType[*jsonrpc.Error](err); ok {
			c.Error.Code, c.Error.Data = wire.Code, wire.Data
		}
		return c
	}
	b, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	c := Called{Name: name, Result: &Result{}}
	if err := json.Unmarshal(b, c.Result); err != nil {
		t.Fatal(err)
	}
	return c
}

// OpenID is what openid-client is told: who it is and where, nothing of how.
type OpenID struct {
	Issuer    string `json:"issuer"`
	Agent     string `json:"agent"`
	KeyFile   string `json:"keyFile"`             // PKCS#8 PEM
	Resource  string `json:"resource"`            // URL
	Scope     string `json:"scope,omitempty"`     // default: none sent
	Discovery string `json:"discovery,omitempty"` // "oauth2" (RFC 8414, the default) or "oidc"
	Use       any    `json:"use,omitempty"`       // a request to send to the resource with the token
}

// Token is what openid-client got: a token, or a refusal.
type Token struct {
	TokenType string `json:"token_type"` // in lower case: openid-client folds it
	ExpiresIn int    `json:"expires_in"` // seconds
	Scope     string `json:"scope"`
	JKT       string `json:"jkt"` // thumbprint of the key that it signed proofs with
	Header    struct{ Typ, Alg, Kid string }
	Claims    struct {
		Iss, Aud, Sub, Scope string
		Cnf                  struct{ JKT string }
	}
	Used *struct { // the resource's answer to [OpenID.Use]
		Status int
		Body   string
	}
	Refused *struct {
		Name, Message, Code string
		Status              int
		Error, Description  string
	}
}

// OpenID gets a token with openid-client.
func (p Peers) OpenID(t testing.TB, in OpenID) Token {
	t.Helper()
	var out Token
	p.Run(t, "openid-client.mjs", in, &out)
	return out
}

// OAuth is what oauth4webapi is told: who it is and which resource it wants. It
// finds the issuer out. What follows Use is what it does otherwise than it
// should.
type OAuth struct {
	Agent    string `json:"agent"`
	KeyFile  string `json:"keyFile"`  // PKCS#8 PEM
	Resource string `json:"resource"` // URL
	Use      any    `json:"use"`      // a request to send to the resource with the token

	Audience     string `json:"audience,omitempty"`     // of the assertion
	ProofKeyFile string `json:"proofKeyFile,omitempty"` // signs the token request's proof
	ShowKeyFile  string `json:"showKeyFile,omitempty"`  // signs the proof at the resource
	ShowTo       string `json:"showTo,omitempty"`       // gets the token that is for Resource

	// About has it ask about its token and revoke it, first as another agent.
	About *OtherAgent `json:"about,omitempty"`
}

// OtherAgent is whom oauth4webapi is too.
type OtherAgent struct {
	Other        string `json:"other"`
	OtherKeyFile string `json:"otherKeyFile"`
}

// Introspected is what the issuer said of a token.
type Introspected struct {
	Type string         // media type of the answer
	Said map[string]any // its claims, out of the JWT where it was one
}

// Shown is how far oauth4webapi came.
type Shown struct {
	Nonces   []string // where it was asked for a nonce, and came back with one
	Resource *struct {
		Resource             string
		AuthorizationServers []string `json:"authorization_servers"`
	}
	Issuer    string
	TokenType string `json:"token_type"` // in lower case: oauth4webapi folds it
	ExpiresIn int    `json:"expires_in"` // seconds
	Scope     string
	JKT       string // thumbprint of the key that it signed proofs with
	// Claims are the token's, after oauth4webapi took token and proof as a
	// resource server does, with the keys that the issuer publishes.
	Claims *struct {
		Iss, Aud, Sub string
		ClientID      string `json:"client_id"`
		Cnf           struct{ JKT string }
	}
	Used *struct { // the resource's answer to [OAuth.Use]
		Status int
		Body   string
	}
	About *struct { // of [OAuth.About]
		Other, OtherJWT   Introspected
		Before, BeforeJWT Introspected
		After, AfterJWT   Introspected
		Used              struct { // the resource's answer to the revoked token
			Status int
			Body   string
		}
	}
	Refused *struct {
		Where         string // resource metadata, issuer metadata, token or resource
		Code          string // ours
		Name, Message string
		Status        int
		Error, Scheme string // Scheme of the challenge
		Description   string
	}
}

// OAuth gets a token with oauth4webapi and shows it to the resource.
func (p Peers) OAuth(t testing.TB, in OAuth) Shown {
	t.Helper()
	var out Shown
	p.Run(t, "oauth4webapi.mjs", in, &out)
	return out
}
