package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// allowed is what a step of the demo expects where nothing is refused.
const allowed counterfoil.Code = "allowed"

const demoManifest = `kind: Person
name: ana
email: ana@example.com
---
kind: Class
name: read
tier: routine
---
kind: Class
name: payout                   # moves money: two people must say yes
tier: irreversible
approvers: [finance]
---
kind: Resource
name: bank
type: mcp
environment: demo
upstream: %s
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: read}
  - {name: pay, class: payout, fields: {amount: /amount, to: /to}}
---
kind: Agent
name: payroll
owner: ana
purpose: monthly payroll run
environment: demo
grants:
  - tools: [bank/get_balance, bank/pay]
`

func (a *app) demoCommand() *cobra.Command {
	var stay bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "See the whole story on this machine, in a minute",
		Long: `Runs a server, a bank as a real MCP server and an agent on loopback in a temporary
folder, and shows what is allowed, what is refused and why. Ends with 0 when
every step went as it should.`,
		Example: "  counterfoil demo",
		Args:    cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.demo(ctx, stay)
		}),
	}
	c.Flags().BoolVar(&stay, "stay", false, "leave it running at the end, until interrupted")
	return c
}

// demo is one run of the story.
type demo struct {
	app    *app
	ctx    context.Context // of the one run; a demo lives no longer
	dir    string
	daemon *daemon.Daemon
	bank   *bankserver.Bank
	signer *credential.Signer
	bearer *agent.Transport
	token  string

	number int
	failed int
}

func (a *app) demo(ctx context.Context, stay bool) error {
	dir, err := os.MkdirTemp("", "counterfoil-demo-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	d := &demo{app: a, ctx: ctx, dir: dir}
	stop, err := d.start()
	if err != nil {
		return err
	}
	defer stop()
	if err := d.story(); err != nil {
		return err
	}
	if d.failed > 0 {
		return fmt.Errorf("%d of %d steps did not go as they should", d.failed, d.number)
	}
	if !a.json {
		fmt.Fprintf(a.out, "\nAll %d steps went as they should.\n", d.number)
	}
	if stay {
		a.note("Running until you press Ctrl-C.\n  issuer and gateway  %s\n  admin commands      counterfoil agent list --data %s\n  the agent's key     %s", d.daemon.PublicURL(), d.daemon.Data(), d.keyFile())
		<-ctx.Done()
	}
	return nil
}

func (d *demo) keyFile() string { return filepath.Join(d.dir, "payroll.key") }

// start brings up the bank and the server and returns what takes both down.
func (d *demo) start() (func(), error) {
	bank, err := bankserver.Open(filepath.Join(d.dir, "bank.db"))
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the bank: %w", err)
	}
	server := &http.Server{Handler: bank.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(ln) }() // ends with server.Close

	quiet := slog.New(slog.DiscardHandler)
	data := filepath.Join(d.dir, "data")
	srv, err := daemon.Open(d.ctx, daemon.Config{
		Dev:        true,
		Data:       data,
		Public:     daemon.Listener{URL: "http://localhost:0"},
		Management: daemon.Listener{URL: "http://localhost:0"},
	}, daemon.Options{Log: quiet, Version: versionString()})
	if err != nil {
		return nil, err
	}
	manifest := fmt.Sprintf(demoManifest, "http://"+ln.Addr().String()+"/mcp")
	if err := os.WriteFile(filepath.Join(d.dir, "bank.yaml"), []byte(manifest), 0o600); err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	d.bank, d.daemon = bank, srv
	d.app.data = data
	run, cancel := context.WithCancel(context.WithoutCancel(d.ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Run(run) // a listener that fails shows in the steps
	}()
	return func() {
		cancel()
		<-done
		_ = srv.Close()
		_ = server.Close()
		_ = bank.Close()
	}, nil
}

// story is the order in which the steps are told.
func (d *demo) story() error {
	if !d.app.json {
		fmt.Fprintln(d.app.out, "Counterfoil demo: a server, a bank (a real MCP server) and an agent, on loopback, in a temporary folder.")
	}
	for _, step := range []func() error{d.setUp, d.read, d.ungranted, d.gated, d.stolenToken, d.replayedProof, d.asBearer, d.ledger} {
		if err := d.ctx.Err(); err != nil {
			return fmt.Errorf("the demo was interrupted: %w", err)
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// outcome is what a step tried and what came of it.
type outcome struct {
	tried    string
	want     counterfoil.Code
	got      counterfoil.Code
	answered string
	why      string
}

// tell prints one step.
func (d *demo) tell(title string, o outcome) {
	d.number++
	ok := o.got == o.want
	if !ok {
		d.failed++
	}
	if d.app.json {
		b, err := ijson.Marshal(map[string]any{"step": d.number, "title": title, "tried": o.tried, "code": string(o.got), "expected": string(o.want), "answered": o.answered, "why": o.why, "ok": ok})
		if err == nil {
			fmt.Fprintf(d.app.out, "%s\n", b)
		}
		return
	}
	mark := "ok"
	if !ok {
		mark = fmt.Sprintf("NOT AS IT SHOULD BE: expected %s", o.want)
	}
	fmt.Fprintf(d.app.out, "\n%d. %s\n   tried     %s\n   answered  %s: %s\n   why       %s\n   %s\n", d.number, title, o.tried, o.got, o.answered, o.why, mark)
}

// quiet is the administrator's own commands, without what they print.
func (d *demo) quiet() *app {
	return &app{streams: streams{strings.NewReader(""), io.Discard, io.Discard}, data: d.app.data}
}

// setUp declares who may do what and gives the agent a key of its own.
func (d *demo) setUp() error {
	quiet := d.quiet()
	if err := quiet.apply(d.ctx, []string{filepath.Join(d.dir, "bank.yaml")}); err != nil {
		return err
	}
	code, _, err := quiet.makeCode(d.ctx, "payroll")
	if err != nil {
		return err
	}
	id := identity{issuer: d.daemon.PublicURL(), agent: "payroll", key: d.keyFile()}
	if err := quiet.enroll(d.ctx, id, code, "Ed25519"); err != nil {
		return err
	}
	t, _, err := id.transport("bank", nil)
	if err != nil {
		return err
	}
	tok, err := t.Token(d.ctx)
	if err != nil {
		return err
	}
	if d.signer, err = agent.LoadKey(d.keyFile()); err != nil {
		return err
	}
	d.bearer, d.token = t, tok.Token.Reveal()
	d.tell("An agent gets a key and a token", outcome{
		tried:    "apply the manifest; enrol one instance of payroll with a one-time code; ask for a token for the bank",
		want:     allowed,
		got:      allowed,
		answered: fmt.Sprintf("a token for %s, bound to key %.12s…", strings.Join(tok.Scope, " and "), d.signer.Public().Thumbprint()),
		why:      "the private key was made on the agent's side and never left it; the code works once",
	})
	return nil
}

func (d *demo) bankURL() string { return d.daemon.PublicURL() + counterfoil.ResourcePath + "bank" }

// call makes a tool call as the agent and says how it ended.
func (d *demo) call(tool, args string) (counterfoil.Code, string, error) {
	result, err := callTool(d.ctx, d.bearer, d.bankURL(), tool, args)
	if err != nil {
		return "", "", err
	}
	if r := refusalOf(result); r != nil {
		return r.Code, r.Detail, nil
	}
	b, err := result.MarshalJSON()
	if err != nil {
		return "", "", fmt.Errorf("encoding the result: %w", err)
	}
	var body struct {
		Structured any `json:"structuredContent"`
	}
	if err := ijson.UnmarshalLax(b, &body); err != nil {
		return "", "", fmt.Errorf("reading the result: %w", err)
	}
	text, err := ijson.Marshal(body.Structured)
	if err != nil {
		return "", "", fmt.Errorf("encoding the result: %w", err)
	}
	if result.IsError {
		return "failed", string(text), nil
	}
	return allowed, string(text), nil
}

func (d *demo) tellCall(title, tool, args string, want counterfoil.Code, why string) error {
	got, text, err := d.call(tool, args)
	if err != nil {
		return err
	}
	d.tell(title, outcome{tried: fmt.Sprintf("bank/%s %s", tool, args), want: want, got: got, answered: text, why: why})
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

func (d *demo) gated() error {
	const args = `{"to":"acme","amount":100,"currency":"EUR"}`
	got, text, err := d.call("pay", args)
	if err != nil {
		return err
	}
	paid, err := d.bank.Payments(d.ctx)
	if err != nil {
		return err
	}
	if len(paid) != 0 {
		got = "paid"
	}
	d.tell("A payout", outcome{
		tried: "bank/pay " + args, want: counterfoil.ApprovalRequired, got: got, answered: text,
		why: fmt.Sprintf("class payout is irreversible: a key alone never moves money; the bank's books show %d payments", len(paid)),
	})
	return nil
}

// request is one hand-made call of get_balance, for what no honest client sends.
func (d *demo) request(scheme, proof string) (counterfoil.Code, string, error) {
	const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_balance","arguments":{"account":"operating"},` +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"demo","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	req, err := http.NewRequestWithContext(d.ctx, http.MethodPost, d.bankURL(), bytes.NewReader([]byte(body)))
	if err != nil {
		return "", "", fmt.Errorf("making the request: %w", err)
	}
	for k, v := range map[string]string{
		"Authorization": scheme + " " + d.token, "DPoP": proof, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
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
	got, text, err := d.request("DPoP", proof)
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
	first, _, err := d.request("DPoP", proof)
	if err != nil {
		return err
	}
	got, text, err := d.request("DPoP", proof)
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
	got, text, err := d.request("Bearer", "")
	if err != nil {
		return err
	}
	d.tell("The token as a plain bearer token", outcome{
		tried: "Authorization: Bearer with the agent's token", want: counterfoil.BearerRefused, got: got, answered: text,
		why: "a bound token is never accepted without its proof",
	})
	return nil
}

// ledger verifies an export with the public key alone, then verifies it again
// with one byte changed.
func (d *demo) ledger() error {
	export := filepath.Join(d.dir, "ledger.export")
	quiet := d.quiet()
	if err := quiet.exportLedger(d.ctx, export); err != nil {
		return err
	}
	key := filepath.Join(d.app.data, daemon.LedgerKeyName)
	report, err := verifyExport(export, key, "", nil)
	if err != nil {
		return err
	}
	d.tell("The ledger, verified offline", outcome{
		tried: "counterfoil ledger verify, with the export and the public key alone", want: allowed, got: allowed,
		answered: fmt.Sprintf("%d entries, root %s", report.Size, report.Root),
		why:      "every decision above, and its outcome, is a leaf of a signed Merkle tree",
	})

	data, err := os.ReadFile(export)
	if err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	tampered := bytes.Replace(data, []byte(`"code":"tool_not_granted"`), []byte(`"code":"tool_not_grantee"`), 1)
	if bytes.Equal(tampered, data) {
		return fmt.Errorf("the export has no entry of the refused call")
	}
	if err := os.WriteFile(export, tampered, 0o600); err != nil {
		return fmt.Errorf("writing the changed export: %w", err)
	}
	_, err = verifyExport(export, key, "", nil)
	o := outcome{
		tried: "the same, after one byte of the refusal's entry was changed", want: "detected", got: "detected",
		why: "an entry cannot be changed, moved or taken out without the root changing",
	}
	if err == nil {
		o.got, o.answered = "verified", "the change went unnoticed"
	} else {
		o.answered = err.Error()
	}
	d.tell("A ledger that somebody touched", o)
	return nil
}
