package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

func (d *demo) bankURL() string { return d.daemon.PublicURL() + counterfoil.ResourcePath + "bank" }

// A reply is how a call of the agent's ended.
type reply struct {
	code     counterfoil.Code
	text     string
	approval string // that it waits for, or was refused with
}

// call makes a tool call as the agent, with the name of an approval when one is
// given.
func (d *demo) call(t *agent.Transport, tool, args, approval string) (reply, error) {
	var trip http.RoundTripper = t
	if approval != "" {
		trip = callHeader{t, "Counterfoil-Approval", approval}
	}
	result, err := callTool(d.ctx, trip, t.Resource(), tool, args)
	if err != nil {
		return reply{}, err
	}
	if r := refusalOf(result); r != nil {
		out := reply{code: r.Code, text: r.Detail}
		if r.Approval != nil {
			out.approval = r.Approval.ID
			if r.Approval.Reason != "" {
				out.text += fmt.Sprintf(", because %q", r.Approval.Reason)
			}
		}
		return out, nil
	}
	b, err := result.MarshalJSON()
	if err != nil {
		return reply{}, fmt.Errorf("encoding the result: %w", err)
	}
	var body struct {
		Structured any `json:"structuredContent"`
	}
	if err := ijson.UnmarshalLax(b, &body); err != nil {
		return reply{}, fmt.Errorf("reading the result: %w", err)
	}
	text, err := ijson.Marshal(body.Structured)
	if err != nil {
		return reply{}, fmt.Errorf("encoding the result: %w", err)
	}
	if result.IsError {
		return reply{code: "failed", text: string(text)}, nil
	}
	return reply{code: allowed, text: string(text)}, nil
}

func (d *demo) tellCall(title, tool, args string, want counterfoil.Code, why string) error {
	r, err := d.call(d.agent, tool, args, "")
	if err != nil {
		return err
	}
	d.tell(title, outcome{tried: fmt.Sprintf("bank/%s %s", tool, args), want: want, got: r.code, answered: r.text, why: why})
	return nil
}

func (d *demo) read() error {
	return d.tellCall("A read that is granted", "get_balance", `{"account":"operating"}`, allowed,
		"the agent's grant lists bank/get_balance, and class read runs on machine identity alone")
}

func (d *demo) ungranted() error {
	return d.tellCall("A tool that nobody granted", "list_payees", `{}`, counterfoil.ToolNotGranted,
		"the bank has the tool, but no grant of payroll lists it; it is not even shown to the agent")
}

// request is one hand-made call of get_balance, for what no honest client sends.
func (d *demo) request(scheme, token, proof string) (counterfoil.Code, string, error) {
	const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_balance","arguments":{"account":"operating"},` +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"demo","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	req, err := http.NewRequestWithContext(d.ctx, http.MethodPost, d.bankURL(), bytes.NewReader([]byte(body)))
	if err != nil {
		return "", "", fmt.Errorf("making the request: %w", err)
	}
	for k, v := range map[string]string{
		"Authorization": scheme + " " + token, "DPoP": proof, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "get_balance",
	} {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", "", fmt.Errorf("sending the request: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", "", fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return allowed, "HTTP 200", nil
	}
	var problem struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	if err := ijson.UnmarshalLax(answer, &problem); err != nil {
		return "", "", fmt.Errorf("reading the answer (HTTP %d): %w", resp.StatusCode, err)
	}
	return counterfoil.Code(problem.Code), fmt.Sprintf("HTTP %d, %s", resp.StatusCode, problem.Detail), nil
}

func (d *demo) proof(s *credential.Signer) (string, error) {
	return credential.SignProof(s, http.MethodPost, d.bankURL(), "", d.token, time.Now())
}

func (d *demo) stolenToken() error {
	private, err := credential.GenerateKey("ES256")
	if err != nil {
		return err
	}
	thief, err := credential.NewSigner(private)
	if err != nil {
		return err
	}
	proof, err := d.proof(thief)
	if err != nil {
		return err
	}
	got, text, err := d.request("DPoP", d.token, proof)
	if err != nil {
		return err
	}
	d.tell("A stolen token, without its key", outcome{
		tried: "the agent's token from another machine, with a proof by the thief's own key", want: counterfoil.ProofKeyMismatch, got: got, answered: text,
		why: "the token names the key it is bound to; without that key it is worth nothing",
	})
	return nil
}

func (d *demo) replayedProof() error {
	proof, err := d.proof(d.signer)
	if err != nil {
		return err
	}
	first, _, err := d.request("DPoP", d.token, proof)
	if err != nil {
		return err
	}
	got, text, err := d.request("DPoP", d.token, proof)
	if err != nil {
		return err
	}
	if first != allowed {
		got, text = first, "the first, honest use was not allowed"
	}
	d.tell("A replayed request", outcome{
		tried: "a recorded request of the agent, token and proof, sent a second time", want: counterfoil.ProofReplayed, got: got, answered: text,
		why: "each proof is good for one request; the first one passed",
	})
	return nil
}

func (d *demo) asBearer() error {
	got, text, err := d.request("Bearer", d.token, "")
	if err != nil {
		return err
	}
	d.tell("The token as a plain bearer token", outcome{
		tried: "Authorization: Bearer with the agent's token", want: counterfoil.BearerRefused, got: got, answered: text,
		why: "a bound token is never accepted without its proof",
	})
	return nil
}
