package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

const balance = `{"account":"operating"}`

// identity is the demo's agent, as it is on its own machine.
func (d *demo) identity() identity {
	return identity{issuer: d.daemon.PublicURL(), agent: "payroll", key: d.keyFile()}
}

// use sends one hand-made call with a token and an honest proof for it.
func (d *demo) use(token string) (counterfoil.Code, string, error) {
	proof, err := credential.SignProof(d.signer, http.MethodPost, d.bankURL(), "", token, time.Now())
	if err != nil {
		return "", "", fmt.Errorf("signing a proof: %w", err)
	}
	return d.request("DPoP", token, proof)
}

// task is the life of one task: what is called in it, and what its end takes.
func (d *demo) task() error {
	id := d.identity()
	tasks, err := d.quiet().tasks(&id)
	if err != nil {
		return err
	}
	task, err := tasks.Open(d.ctx, agent.OpenTask{
		Purpose: "payroll of May", Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "get_balance"}}, Life: 10 * time.Minute, MaxCalls: 5,
	})
	if err != nil {
		return err
	}
	id.task = task.ID
	t, _, err := d.quiet().transport(&id, "bank", nil)
	if err != nil {
		return err
	}
	r, err := d.call(t, "get_balance", balance, "")
	if err != nil {
		return err
	}
	if task, err = tasks.Show(d.ctx, task.ID); err != nil {
		return err
	}
	d.tell("The agent works in a task", outcome{
		tried: `open a task "payroll of May" for bank/get_balance alone, for ten minutes and five calls; bank/get_balance with a token of the task`,
		want:  allowed, got: r.code, answered: fmt.Sprintf("%s; the task counts %s calls", r.text, callsOf(task)),
		why: "a task narrows what the agent may do, and the token lives no longer than the task",
	})
	tok, err := t.Token(d.ctx)
	if err != nil {
		return err
	}
	if _, err := tasks.Complete(d.ctx, task.ID, "all paid"); err != nil {
		return err
	}
	got, text, err := d.use(tok.Token.Reveal())
	if err != nil {
		return err
	}
	d.tell("The task is completed", outcome{
		tried: "complete the task; the same call with the same token, which has minutes to live", want: counterfoil.TaskClosed, got: got, answered: text,
		why: "everything of a task ends with it, in one step: tokens, open approvals, streams",
	})
	return nil
}

// leaked is what becomes of a token that was found in the wrong place.
func (d *demo) leaked() error {
	before, err := d.introspect(d.token)
	if err != nil {
		return err
	}
	if err := agent.ReportLeak(d.ctx, d.daemon.PublicURL(), counterfoil.NewSecret("found in a build log: "+d.token), nil); err != nil {
		return err
	}
	got, text, err := d.use(d.token)
	if err != nil {
		return err
	}
	d.tell("A leaked token is reported", outcome{
		tried: "counterfoil leaked, by anyone, with a line of a log that has the whole token; then the token's own agent uses it", want: counterfoil.TokenRevoked, got: got, answered: text,
		why: "whoever has the whole token has proved the leak; an id or a thumbprint proves nothing and revokes nothing",
	})
	after, err := d.introspect(d.token)
	if err != nil {
		return err
	}
	o := outcome{
		tried: "introspection of the token (RFC 7662), before the report and after it", want: "inactive", got: "inactive",
		answered: fmt.Sprintf("before: %s; after: %s", before, after),
		why:      "of a token that is no good nobody is told more than that",
	}
	if !strings.HasPrefix(before, "active, ") || after != `{"active":false}` {
		o.got = "wrong"
	}
	d.tell("What others are told of it", o)
	return nil
}

// introspect asks as the agent what a token is worth.
func (d *demo) introspect(token string) (string, error) {
	assertion, err := credential.SignAssertion(d.signer, "payroll", d.daemon.PublicURL(), time.Now())
	if err != nil {
		return "", fmt.Errorf("signing an assertion: %w", err)
	}
	form := url.Values{
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}, "token": {token},
	}
	req, err := http.NewRequestWithContext(d.ctx, http.MethodPost, d.daemon.PublicURL()+counterfoil.IntrospectPath, strings.NewReader(form.Encode()))
	if err != nil {
		return "", fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("sending the request: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	var told struct {
		Active bool   `json:"active"`
		Agent  string `json:"client_id"`
		Scope  string `json:"scope"`
	}
	if err := ijson.UnmarshalLax(b, &told); err != nil || !told.Active {
		return strings.TrimSpace(string(b)), err
	}
	return fmt.Sprintf("active, of %s, for %s", told.Agent, told.Scope), nil
}

// revoked takes everything from the agent while it has a stream open.
func (d *demo) revoked() error {
	ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
	defer cancel()
	cut, err := d.stream(ctx)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	admin := d.quiet()
	admin.out = &said
	began := time.Now()
	if err := admin.revoke(ctx, counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}, "laptop stolen", 30*time.Second); err != nil {
		return err
	}
	var after time.Duration
	select {
	case at := <-cut:
		after = at.Sub(began)
	case <-ctx.Done():
		return errors.New("the agent was revoked, and its stream stayed open")
	}
	receipt := "no receipt came"
	for line := range strings.Lines(said.String()) {
		if strings.HasPrefix(line, "gateway stopped") {
			receipt = strings.TrimSpace(line)
		}
	}
	got := allowed
	if err := d.fresh(ctx); err != nil {
		got = counterfoil.CodeOf(err)
	}
	if !strings.Contains(receipt, "cut 1 stream") {
		got = "no receipt"
	}
	d.tell("The agent is revoked while it works", outcome{
		tried: "the agent opens a stream at the bank and leaves it open; counterfoil revoke agent payroll --reason 'laptop stolen'; the agent asks for a token",
		want:  counterfoil.AgentSuspended, got: got,
		answered: fmt.Sprintf("%s; the client saw its stream end %d ms after the command began", receipt, after.Milliseconds()),
		why:      "one step voids every token, task, approval and stream of it, and the ledger has when each enforcement point stopped",
	})
	return nil
}

// fresh asks for a token that is not kept from before.
func (d *demo) fresh(ctx context.Context) error {
	id := d.identity()
	t, _, err := d.quiet().transport(&id, "bank", nil)
	if err != nil {
		return err
	}
	_, err = t.Token(ctx)
	return err
}

// stream opens a stream on which the bank would say that its tools changed, and tells
// when it ends.
func (d *demo) stream(ctx context.Context) (<-chan time.Time, error) {
	const body = `{"jsonrpc":"2.0","id":"changes","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},` +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"demo","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.bankURL(), strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen",
	} {
		req.Header.Set(k, v)
	}
	resp, err := d.agent.RoundTrip(req) //nolint:bodyclose // it is open until it is cut, and closed then
	if err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		defer resp.Body.Close()
		return nil, fmt.Errorf("opening a stream: the bank answered %s: %w", resp.Status, problemOf(resp))
	}
	ended := make(chan time.Time, 1)
	go func() {
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body) // until it is cut
		ended <- time.Now()
	}()
	return ended, nil
}

// resumed lets the agent work again, without anything that it had.
func (d *demo) resumed() error {
	old, err := d.agent.Token(d.ctx) // as it has it still
	if err != nil {
		return err
	}
	if err := d.quiet().admin(d.ctx, http.MethodPost, "/api/v1/agents/payroll/resume", map[string]any{"reason": "the laptop is back", "release": []string{}}, nil); err != nil {
		return err
	}
	got, text, err := d.use(old.Token.Reveal())
	if err != nil {
		return err
	}
	r, err := d.call(d.agent, "get_balance", balance, "")
	if err != nil {
		return err
	}
	if r.code != allowed {
		got, text = r.code, "the new token: "+r.text
	}
	d.tell("It is let back in, with nothing of before", outcome{
		tried: "counterfoil agent resume payroll; a call with the token from before; a call with a new one", want: counterfoil.TokenRevoked, got: got,
		answered: text + "; the new one was allowed",
		why:      "the agent's epoch rose, and a token has to name that very epoch: nothing that was revoked comes back",
	})
	return nil
}
