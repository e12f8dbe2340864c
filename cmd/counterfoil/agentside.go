package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// identity is who a command on the agent's machine acts as.
type identity struct {
	issuer string
	agent  string
	key    string
	task   string // id of the task that it works in; empty for none
}

func (id *identity) flags(c *cobra.Command) {
	c.Flags().StringVar(&id.issuer, "issuer", os.Getenv("COUNTERFOIL_ISSUER"), "the issuer's `URL` (COUNTERFOIL_ISSUER)")
	c.Flags().StringVar(&id.agent, "agent", "", "the agent's `name`")
	c.Flags().StringVar(&id.key, "key", "", "`file` of the instance's private key")
	must(c.MarkFlagRequired("agent"))
	must(c.MarkFlagRequired("key"))
}

// maybe adds the flags of a command that an administrator gives without a key.
func (id *identity) maybe(c *cobra.Command) {
	c.Flags().StringVar(&id.issuer, "issuer", os.Getenv("COUNTERFOIL_ISSUER"), "with --key: the issuer's `URL` (COUNTERFOIL_ISSUER)")
	c.Flags().StringVar(&id.agent, "agent", "", "the agent's `name`")
	c.Flags().StringVar(&id.key, "key", "", "as the agent: `file` of the instance's private key; as an administrator: none")
	c.Flags().StringVar(&id.task, "task", "", "with --key: ask as the open task with this `ID`, which sees itself and those below")
}

// signer loads the identity's key.
func (a *app) signer(id *identity) (*credential.Signer, error) {
	if _, err := os.Lstat(agent.NewKeyPath(id.key)); err == nil {
		a.note("a rotation of this key was not finished, and it may be dead: counterfoil rotate finishes it")
	}
	return agent.LoadKey(id.key)
}

// must is for mistakes of the program that every run would show.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (id *identity) check() error {
	if id.issuer == "" {
		return usage("--issuer is needed: the URL that the server printed as public=… (or set COUNTERFOIL_ISSUER)")
	}
	id.issuer = strings.TrimSuffix(id.issuer, "/")
	if err := counterfoil.CheckName(id.agent); err != nil {
		return usage("--agent: %v", err)
	}
	if id.task != "" && !strings.HasPrefix(id.task, "tsk_") {
		return usage("--task: %q is no task's id, which begins with tsk_; counterfoil task open makes a task", id.task)
	}
	return nil
}

// resourceURL is the identifier of a resource: its name under the issuer, or
// the URL itself.
func (id *identity) resourceURL(name string) (string, error) {
	if strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://") {
		return name, nil
	}
	if err := counterfoil.CheckName(name); err != nil {
		return "", usage("--resource: %v", err)
	}
	return id.issuer + counterfoil.ResourcePath + name, nil
}

// transport returns what signs this identity's requests to one resource.
func (a *app) transport(id *identity, resource string, scope []string) (*agent.Transport, string, error) {
	if err := id.check(); err != nil {
		return nil, "", err
	}
	url, err := id.resourceURL(resource)
	if err != nil {
		return nil, "", err
	}
	signer, err := a.signer(id)
	if err != nil {
		return nil, "", err
	}
	t, err := agent.NewTransport(agent.Config{Issuer: id.issuer, Agent: id.agent, Signer: signer, Resource: url, Scope: scope, Task: id.task})
	return t, url, err
}

func (a *app) enrollCommand() *cobra.Command {
	var id identity
	var code, alg string
	c := &cobra.Command{
		Use:   "enroll --issuer URL --agent NAME --code - --key FILE",
		Short: "Make a key on this machine and register it as an instance of an agent",
		Long: `Makes a new private key in FILE (mode 0600; it never leaves this machine), proves
that it is held, and registers it as an instance of the agent. The one-time code
comes from 'counterfoil agent enroll-code NAME' and is read from standard input,
so that it is in no shell history and no process list.`,
		Example: "  counterfoil agent enroll-code payroll | counterfoil enroll --issuer http://localhost:8420 --agent payroll --code - --key payroll.key",
		Args:    cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			if err := id.check(); err != nil {
				return err
			}
			if code != "-" {
				return usage("--code takes only -, which reads the code from standard input: on the command line every local user could read it")
			}
			line, err := bufio.NewReader(io.LimitReader(a.in, 1024)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("reading the code: %w", err)
			}
			if strings.TrimSpace(line) == "" {
				return errors.New("no code came on standard input; get one with: counterfoil agent enroll-code " + id.agent)
			}
			return a.enroll(ctx, id, counterfoil.NewSecret(strings.TrimSpace(line)), alg)
		}),
	}
	id.flags(c)
	c.Flags().StringVar(&code, "code", "-", "always -: the code is read from standard input")
	c.Flags().StringVar(&alg, "alg", "Ed25519", "the key's algorithm: Ed25519, ES256, ES384")
	return c
}

// enroll saves the key before it is registered, so that a crash between the two
// never leaves an instance whose key is lost; a refused enrolment takes the file
// away again.
func (a *app) enroll(ctx context.Context, id identity, code counterfoil.Secret, alg string) error {
	if _, err := os.Lstat(id.key); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: a key is never written over; name another file", id.key)
	}
	private, err := credential.GenerateKey(alg)
	if err != nil {
		return err
	}
	if err := agent.SaveKey(id.key, private); err != nil {
		return err
	}
	signer, err := agent.LoadKey(id.key)
	if err != nil {
		return err
	}
	done, err := agent.Enroll(ctx, agent.EnrolConfig{Issuer: id.issuer, Agent: id.agent, Code: code, Signer: signer})
	if err != nil {
		if _, refused := counterfoil.AsRefusal(err); refused {
			os.Remove(id.key)
		}
		return err
	}
	return a.print(map[string]any{"agent": done.Agent, "instance": done.Instance, "jkt": done.JKT, "key": id.key}, func(w io.Writer) {
		fmt.Fprintf(w, "enrolled %s as instance %s\nkey      %s (thumbprint %s)\n", done.Agent, done.Instance, id.key, done.JKT)
	})
}

func (a *app) tokenCommand() *cobra.Command {
	var id identity
	var resource string
	var scope []string
	c := &cobra.Command{
		Use:     "token --issuer URL --agent NAME --key FILE --resource NAME [--scope TOOL…] [--task ID]",
		Short:   "Get an access token, bound to the key",
		Long:    "Gets an access token for one resource. It is bound to the key: without proofs by that key nobody can use it.",
		Example: "  counterfoil token --issuer http://localhost:8420 --agent payroll --key payroll.key --resource bank --json",
		Args:    cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			t, _, err := a.transport(&id, resource, scope)
			if err != nil {
				return err
			}
			tok, err := t.Token(ctx)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"access_token": tok.Token.Reveal(), "token_type": "DPoP", "scope": strings.Join(tok.Scope, " "), "expires_at": tok.Expires.UTC()},
				func(w io.Writer) { fmt.Fprintln(w, tok.Token.Reveal()) })
		}),
	}
	id.flags(c)
	id.taskFlag(c)
	c.Flags().StringVar(&resource, "resource", "", "the resource's `name` or URL")
	c.Flags().StringSliceVar(&scope, "scope", nil, "ask for these tools only")
	must(c.MarkFlagRequired("resource"))
	return c
}

func (a *app) callCommand() *cobra.Command {
	var id identity
	var args string
	var request httpCall
	var how calling
	c := &cobra.Command{
		Use:   "call RESOURCE/TOOL (--args JSON | --path PATH [--method METHOD] [--data BODY]) --issuer URL --agent NAME --key FILE [--task ID] [--wait TIME]",
		Short: "Call a tool of an MCP server or of an HTTP API through the gateway",
		Long: `Calls a tool of an MCP server, or of an HTTP API with --path, through the gateway. A
call that people have to approve is refused with the approval's id: repeat it after
they signed, or let --wait wait for them. An equal call that ran already is refused
until its approval's time is over; --idempotency-key says that a call is the same one,
or that it is another.

Of an HTTP API the answer's body is printed as it comes, and an answer of 400 or more
ends with 1.`,
		Example: `  counterfoil call bank/get_balance --args '{"account":"operating"}' --issuer http://localhost:8420 --agent payroll --key payroll.key
  counterfoil call crm/get_customer --path /customers/7 --issuer http://localhost:8420 --agent payroll --key payroll.key
  counterfoil call crm/add_note --path /customers/7/notes --data '{"text":"called"}' --issuer http://localhost:8420 --agent payroll --key payroll.key`,
		Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, words []string) error {
			tool, err := counterfoil.ParseToolID(words[0])
			if err != nil {
				return usage("%v", err)
			}
			if err := ijson.Check([]byte(args)); err != nil {
				return usage("--args: %v", err)
			}
			if err := errors.Join(request.check(), a.checkWait(how.wait)); err != nil {
				return err
			}
			if request.path != "" {
				return a.callHTTP(ctx, id, tool, &request, how)
			}
			return a.call(ctx, id, tool, args, how)
		}),
	}
	id.flags(c)
	id.taskFlag(c)
	c.Flags().StringVar(&args, "args", "{}", "the tool's arguments, a `JSON` object")
	request.flags(c)
	c.Flags().StringVar(&how.key, "idempotency-key", "", "names this call: repeated with the same `key` it is the same call")
	waitFlag(c, &how.wait)
	return c
}

// calling is how a call is made, beside what it is.
type calling struct {
	wait time.Duration
	key  string
}

func (a *app) call(ctx context.Context, id identity, tool counterfoil.ToolID, args string, how calling) error {
	t, url, err := a.transport(&id, tool.Resource, nil)
	if err != nil {
		return err
	}
	var trip http.RoundTripper = agent.NewWaiter(agent.WaitConfig{Transport: t, Wait: how.wait})
	if how.key != "" {
		trip = callHeader{trip, "Idempotency-Key", how.key}
	}
	result, err := callTool(ctx, trip, url, tool.Tool, args)
	if err != nil {
		return err
	}
	refusal := refusalOf(result)
	if refusal != nil && (result.IsError || refusal.Code != counterfoil.ApprovalSpent) {
		return refusal
	}
	if _, repeated := result.Meta["counterfoil/repeated"]; repeated || refusal != nil {
		// What the idempotency key asks for: the answer of the call that ran.
		a.note("this call was made before, and not again; this is its answer")
	}
	b, err := result.MarshalJSON()
	if err != nil {
		return fmt.Errorf("encoding the result: %w", err)
	}
	if result.IsError {
		a.code = exitFailed
	}
	if a.json {
		_, err = fmt.Fprintf(a.out, "%s\n", b)
		return err
	}
	for _, part := range result.Content {
		if text, ok := part.(*mcp.TextContent); ok {
			fmt.Fprintln(a.out, text.Text)
			continue
		}
		other, err := part.MarshalJSON()
		if err != nil {
			return fmt.Errorf("encoding the result: %w", err)
		}
		fmt.Fprintf(a.out, "%s\n", other)
	}
	return nil
}

// plain turns a refusal or a fault that concerns the whole request into an error
// that says so: an MCP client would tell its status alone. What a client
// negotiates by (400, 404, 405) passes.
type plain struct{ next http.RoundTripper }

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(r)
	if err != nil || resp.StatusCode < 500 && !slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests}, resp.StatusCode) {
		return resp, err
	}
	defer resp.Body.Close()
	return nil, problemOf(resp)
}

// callHeader gives tool calls, and no other request, a header.
type callHeader struct {
	next        http.RoundTripper
	name, value string
}

func (h callHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.GetBody == nil {
		return h.next.RoundTrip(r)
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, fmt.Errorf("reading the request again: %w", err)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("reading the request again: %w", err)
	}
	var m struct {
		Method string `json:"method"`
	}
	if ijson.UnmarshalLax(b, &m) == nil && m.Method == "tools/call" {
		r = r.Clone(r.Context())
		r.Header.Set(h.name, h.value)
	}
	return h.next.RoundTrip(r)
}

// callTool makes one call as an MCP client over a signing transport.
func callTool(ctx context.Context, t http.RoundTripper, url, tool, args string) (*mcp.CallToolResult, error) {
	client := mcp.NewClient(&mcp.Implementation{Name: "counterfoil", Version: versionString()}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: plain{t}}, DisableStandaloneSSE: true, MaxRetries: -1}, nil)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", url, err)
	}
	defer session.Close()
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: json.RawMessage(args)})
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", tool, err)
	}
	return result, nil
}

// refusalOf returns the gateway's refusal in a tool's result, if it is one.
func refusalOf(result *mcp.CallToolResult) *counterfoil.Refusal {
	m, ok := result.Meta["counterfoil/refusal"]
	if !ok {
		return nil
	}
	var told struct {
		Code     counterfoil.Code            `json:"code"`
		Detail   string                      `json:"detail"`
		Approval *counterfoil.ApprovalStatus `json:"approval"`
	}
	b, err := ijson.Marshal(m)
	if err != nil || ijson.UnmarshalLax(b, &told) != nil || told.Code == "" {
		return counterfoil.Refuse(counterfoil.Internal, "the refusal cannot be read")
	}
	return &counterfoil.Refusal{Code: told.Code, Detail: told.Detail, Approval: told.Approval}
}
