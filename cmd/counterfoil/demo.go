package main

import (
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

// demoManifest takes the bank's URL. The till is the same bank, where one person is
// enough.
const demoManifest = `kind: Person
name: ana                      # owns the agent, so she cannot approve for it
email: ana@example.com
groups: [finance]
roles: [admin]
---
kind: Person
name: bo
email: bo@example.com
groups: [finance]
---
kind: Person
name: cy
email: cy@example.com
groups: [finance]
---
kind: Person
name: dan
email: dan@example.com
groups: [finance]
---
kind: Class
name: read
tier: routine
---
kind: Class
name: refund                   # one person must say yes
tier: guarded
approvers: [finance]
template: "Refund {{.amount}} {{.currency}} to {{.to}}"
---
kind: Class
name: payout                   # moves money for good: two people must say yes
tier: irreversible
approvers: [finance]
window: 1h
template: "Pay {{.amount}} {{.currency}} to {{.to}}"
---
kind: Resource
name: bank
type: mcp
environment: demo
upstream: %[1]s
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: read}
  - {name: pay, class: payout, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Resource
name: till
type: mcp
environment: demo
upstream: %[1]s
tools:
  - {name: pay, class: refund, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Agent
name: payroll
owner: ana
purpose: monthly payroll run
environment: demo
grants:
  - tools: [bank/get_balance, bank/pay, till/pay]
`

func (a *app) demoCommand() *cobra.Command {
	var stay bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "See the whole story on this machine, in a minute",
		Long: `Runs a server, a bank as a real MCP server, an HTTP API that knows nothing but a static
token, agents and the people who approve for them on loopback in a temporary folder, and shows what is allowed, what is refused
and why. Ends with 0 when every step went as it should.

With --stay it goes on: a payout waits for you. The address that it prints enrols
your passkey as one of its people, who can then read the payout in the console and
say yes or no.`,
		Example: "  counterfoil demo\n  counterfoil demo --stay",
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
	agent  *agent.Transport // signs what the agent sends to the bank
	till   *agent.Transport // and to the till
	token  string
	legacy legacy
	log    kept // everything that the server logged
	people map[string]*demoPerson
	codes  map[string]string // pages that enrol people who have no passkey yet

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
		return d.stay()
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

	data := filepath.Join(d.dir, "data")
	srv, err := daemon.Open(d.ctx, daemon.Config{
		Dev:        true,
		Data:       data,
		Public:     daemon.Listener{URL: "http://localhost:0"},
		Management: daemon.Listener{URL: "http://localhost:0"},
	}, daemon.Options{Log: slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Version: versionString()})
	if err != nil {
		return nil, err
	}
	manifest := fmt.Sprintf(demoManifest, "http://"+ln.Addr().String()+"/mcp")
	if err := os.WriteFile(filepath.Join(d.dir, "bank.yaml"), []byte(manifest), 0o600); err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	d.bank, d.daemon = bank, srv
	d.app.data = data
	stopLegacy, err := d.startLegacy()
	if err != nil {
		return nil, err
	}
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
		stopLegacy()
	}, nil
}

// story is the order in which the steps are told.
func (d *demo) story() error {
	if !d.app.json {
		fmt.Fprintln(d.app.out, "Counterfoil demo: a server, a bank (a real MCP server), a legacy API that knows one static token, agents and four people, on loopback, in a temporary folder.")
	}
	for _, step := range []func() error{
		d.setUp, d.read, d.ungranted,
		d.enrolPeople, d.payout, d.guarded, d.denied,
		d.stolenToken, d.replayedProof, d.asBearer,
		d.legacyCall, d.legacyContained, d.legacyStolen, d.legacyReset, d.observed, d.required,
		d.task, d.leaked, d.revoked, d.resumed,
		d.ledger, d.nowhere, d.tampered, d.forged,
	} {
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
	result, err := quiet.submit(d.ctx, []string{filepath.Join(d.dir, "bank.yaml")}, false)
	if err != nil {
		return err
	}
	d.codes = map[string]string{}
	for _, ch := range result.Changes {
		if ch.EnrolmentCode != "" {
			d.codes[ch.Name] = ch.EnrolmentCode
		}
	}
	code, _, err := quiet.makeCode(d.ctx, "payroll")
	if err != nil {
		return err
	}
	id := d.identity()
	if err := quiet.enroll(d.ctx, id, code, "Ed25519"); err != nil {
		return err
	}
	if d.agent, _, err = quiet.transport(&id, "bank", nil); err != nil {
		return err
	}
	if d.till, _, err = quiet.transport(&id, "till", nil); err != nil {
		return err
	}
	tok, err := d.agent.Token(d.ctx)
	if err != nil {
		return err
	}
	if d.signer, err = agent.LoadKey(d.keyFile()); err != nil {
		return err
	}
	d.token = tok.Token.Reveal()
	d.tell("An agent gets a key and a token", outcome{
		tried:    "apply the manifest; enrol one instance of payroll with a one-time code; ask for a token for the bank",
		want:     allowed,
		got:      allowed,
		answered: fmt.Sprintf("a token for %s, bound to key %.12s…", strings.Join(tok.Scope, " and "), d.signer.Public().Thumbprint()),
		why:      "the private key was made on the agent's side and never left it; the code works once",
	})
	return nil
}
