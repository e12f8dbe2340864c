package counterfoiltest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/testkit"
)

// An Agent is one enrolled instance with its key.
type Agent struct {
	Name      string
	Instance  string
	Signer    *credential.Signer
	Transport *agent.Transport // for the bank

	sys *System
}

// Agent enrols a new instance of an agent, as an operator and the agent's
// machine do: with a one-time code.
func (s *System) Agent(name string) *Agent {
	s.T.Helper()
	return s.AgentWith(name, NewSigner(s.T, credential.Ed25519))
}

// NewSigner makes a key that nobody knows.
func NewSigner(t testing.TB, alg string) *credential.Signer {
	t.Helper()
	return testkit.Signer(t, alg)
}

// AgentWith is Agent with a key of the test's choice.
func (s *System) AgentWith(name string, signer *credential.Signer) *Agent {
	s.T.Helper()
	done, err := agent.Enroll(s.T.Context(), agent.EnrolConfig{
		Issuer: s.Issuer(), Agent: name, Code: counterfoil.NewSecret(s.EnrolCode(name)), Signer: signer, Now: s.Clock.Now,
	})
	if err != nil {
		s.T.Fatalf("enrolling %s: %v", name, err)
	}
	a := &Agent{Name: name, Instance: done.Instance, Signer: signer, sys: s}
	a.Transport = a.For(s.BankURL())
	return a
}

// For returns what signs the agent's requests to a resource.
func (a *Agent) For(resource string, scope ...string) *agent.Transport {
	a.sys.T.Helper()
	t, err := agent.NewTransport(agent.Config{Issuer: a.sys.Issuer(), Agent: a.Name, Signer: a.Signer, Resource: resource, Scope: scope, Now: a.sys.Clock.Now})
	if err != nil {
		a.sys.T.Fatal(err)
	}
	return t
}

// Token returns the agent's token for the bank.
func (a *Agent) Token() string {
	a.sys.T.Helper()
	tok, err := a.Transport.Token(a.sys.T.Context())
	if err != nil {
		a.sys.T.Fatalf("getting a token for %s: %v", a.Name, err)
	}
	return tok.Token.Reveal()
}

// An Answer is how a call ended: a result, a refusal, or an error of the client.
type Answer struct {
	Result  *mcp.CallToolResult
	Refusal *counterfoil.Refusal
	Err     error
}

// Call calls a tool of the bank as an MCP client does.
func (a *Agent) Call(tool string, args any) Answer {
	a.sys.T.Helper()
	return a.CallAt(a.Transport, tool, args)
}

// CallAt is Call through another transport, for another resource or scope.
func (a *Agent) CallAt(t *agent.Transport, tool string, args any) Answer {
	a.sys.T.Helper()
	ctx, cancel := context.WithTimeout(a.sys.T.Context(), Timeout)
	defer cancel()
	client := mcp.NewClient(&mcp.Implementation{Name: "counterfoiltest", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: t.Resource(), HTTPClient: t.Client(), DisableStandaloneSSE: true, MaxRetries: -1}, nil)
	if err != nil {
		return answerOf(nil, err)
	}
	defer session.Close()
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	return answerOf(result, err)
}

func answerOf(result *mcp.CallToolResult, err error) Answer {
	a := Answer{Result: result, Err: err}
	if err != nil {
		if r, ok := counterfoil.AsRefusal(err); ok {
			a.Refusal = r
		}
		return a
	}
	if m, ok := result.Meta["counterfoil/refusal"].(map[string]any); ok {
		a.Refusal = refusalOf(m)
	}
	return a
}

func refusalOf(m map[string]any) *counterfoil.Refusal {
	var told struct {
		Code     counterfoil.Code            `json:"code"`
		Detail   string                      `json:"detail"`
		Approval *counterfoil.ApprovalStatus `json:"approval"`
	}
	b, err := ijson.Marshal(m)
	if err != nil || ijson.UnmarshalLax(b, &told) != nil {
		return counterfoil.Refuse(counterfoil.Internal, "the refusal cannot be read: %v", m)
	}
	return &counterfoil.Refusal{Code: told.Code, Detail: told.Detail, Approval: told.Approval}
}

// Ask makes a call that people have to approve and returns the approval that it
// waits for.
func (a *Agent) Ask(t *agent.Transport, tool string, args any) string {
	a.sys.T.Helper()
	answer := a.CallAt(t, tool, args)
	WantRefused(a.sys.T, answer, counterfoil.ApprovalRequired)
	if answer.Refusal == nil || answer.Refusal.Approval == nil {
		a.sys.T.Fatalf("no approval was asked for: %+v %v", answer.Result, answer.Err)
	}
	return answer.Refusal.Approval.ID
}

// Tools returns the names of the tools that the agent is shown.
func (a *Agent) Tools() []string {
	a.sys.T.Helper()
	ctx, cancel := context.WithTimeout(a.sys.T.Context(), Timeout)
	defer cancel()
	client := mcp.NewClient(&mcp.Implementation{Name: "counterfoiltest", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: a.Transport.Resource(), HTTPClient: a.Transport.Client(), DisableStandaloneSSE: true, MaxRetries: -1}, nil)
	if err != nil {
		a.sys.T.Fatalf("connecting: %v", err)
	}
	defer session.Close()
	var names []string
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			a.sys.T.Fatalf("listing tools: %v", err)
		}
		names = append(names, tool.Name)
	}
	return names
}

// A Wire is a hand-made request to the bank, for what no honest client sends.
// Zero fields are filled with what an honest client would send; a header is
// left out with the value "-".
type Wire struct {
	Body   string
	Token  string
	Proof  string
	Header map[string]string
}

// Body is a tools/call of MCP 2026-07-28 with canonical arguments.
func Body(tool, args string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":` + args +
		`,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"wire","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
}

// A WireAnswer is what came back.
type WireAnswer struct {
	Status int
	Header http.Header
	Body   []byte
	Code   counterfoil.Code // of a refusal or fault, over MCP too; empty when there is none
}

// Proof signs a fresh proof for the bank with the agent's token.
func (a *Agent) Proof() string {
	a.sys.T.Helper()
	proof, err := credential.SignProof(a.Signer, http.MethodPost, a.sys.BankURL(), "", a.Token(), a.sys.Clock.Now())
	if err != nil {
		a.sys.T.Fatal(err)
	}
	return proof
}

// Send sends a hand-made request to the bank.
func (a *Agent) Send(w Wire) WireAnswer {
	a.sys.T.Helper()
	if w.Body == "" {
		w.Body = Body("get_balance", `{"account":"operating"}`)
	}
	if w.Token == "" {
		w.Token = a.Token()
	}
	if w.Proof == "" {
		w.Proof = a.Proof()
	}
	req, err := http.NewRequestWithContext(a.sys.T.Context(), http.MethodPost, a.sys.BankURL(), bytes.NewReader([]byte(w.Body)))
	if err != nil {
		a.sys.T.Fatal(err)
	}
	header := map[string]string{
		"Authorization": "DPoP " + w.Token, "DPoP": w.Proof, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "get_balance",
	}
	for k, v := range w.Header {
		header[k] = v
	}
	for k, v := range header {
		if v != "-" {
			req.Header.Set(k, v)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.sys.T.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.sys.T.Fatal(err)
	}
	return WireAnswer{resp.StatusCode, resp.Header, body, CodeOf(body)}
}

// CodeOf finds the code in any of the forms in which one is answered.
func CodeOf(body []byte) counterfoil.Code {
	var b struct {
		Code   string `json:"code"`
		Result struct {
			Meta map[string]json.RawMessage `json:"_meta"`
		} `json:"result"`
	}
	if ijson.UnmarshalLax(body, &b) != nil {
		return ""
	}
	if b.Code != "" {
		return counterfoil.Code(b.Code)
	}
	var refusal struct {
		Code string `json:"code"`
	}
	if raw, ok := b.Result.Meta["counterfoil/refusal"]; ok && ijson.UnmarshalLax(raw, &refusal) == nil {
		return counterfoil.Code(refusal.Code)
	}
	return ""
}

// WantRefused fails the test unless the call was refused with the code.
func WantRefused(t testing.TB, a Answer, code counterfoil.Code) {
	t.Helper()
	switch {
	case a.Refusal == nil:
		t.Errorf("not refused, want %s: %+v %v", code, a.Result, a.Err)
	case a.Refusal.Code != code:
		t.Errorf("refused with %v, want %s", a.Refusal, code)
	}
}

// WantDone fails the test unless the call succeeded.
func WantDone(t testing.TB, a Answer) {
	t.Helper()
	if a.Err != nil || a.Refusal != nil || a.Result == nil || a.Result.IsError {
		t.Errorf("not done: %+v %v %v", a.Result, a.Refusal, a.Err)
	}
}
