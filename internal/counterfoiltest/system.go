// Package counterfoiltest is the harness: a whole daemon in this process on a
// real store, a real MCP server behind its gateway, agents with keys of their
// own, and a clock that the test moves. A story ends in CheckLedger.
package counterfoiltest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// Manifest is what a System declares at its start; %[1]s is the bank's URL. The till
// is the same bank with other classes: a payment there takes one person.
const Manifest = `kind: Person
name: ana
email: ana@example.com
groups: [finance-approvers]
roles: [admin]
---
kind: Person
name: bo
email: bo@example.com
groups: [finance-approvers]
---
kind: Person
name: cy
email: cy@example.com
groups: [finance-approvers]
---
kind: Class
name: read
tier: routine
---
kind: Class
name: small-payment
tier: routine
---
kind: Class
name: payout
tier: irreversible
approvers: [finance-approvers]
template: "Pay {{.amount}} {{.currency}} to {{.to}}"
---
kind: Class
name: refund
tier: guarded
approvers: [finance-approvers]
template: "Refund {{.amount}} {{.currency}} to {{.to}}"
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: %[1]s
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: read}
  - {name: pay, class: payout, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Resource
name: till
type: mcp
environment: prod
upstream: %[1]s
tools:
  - {name: pay, class: refund, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Agent
name: payroll
owner: ana
purpose: monthly payroll run
environment: prod
grants:
  - tools: [bank/get_balance, bank/pay, till/pay]
---
kind: Agent
name: auditor
owner: ana
purpose: reads everything
environment: prod
grants:
  - tools: [bank/get_balance, bank/list_payees]
`

// A System is a running deployment under test.
type System struct {
	T     testing.TB
	Dir   string // the daemon's data folder
	Clock *Clock
	Bank  *bankserver.Bank

	// Log is what the daemon logged.
	Log *Buffer

	public, management string // URLs, the same after each restart

	bank     *Recorder
	bankURL  string
	daemon   *daemon.Daemon
	stop     context.CancelFunc
	done     chan error
	configs  []func(*daemon.Config)
	upstream []*Recorder
}

// Option changes how the daemon is configured.
type Option func(*daemon.Config)

// New starts a system and applies Manifest. It ends with the test.
func New(t testing.TB, options ...Option) *System {
	t.Helper()
	return NewAt(t, NewClock(), options...)
}

// NewAt is New with a clock of the test's choice.
func NewAt(t testing.TB, clock *Clock, options ...Option) *System {
	t.Helper()
	dir := t.TempDir()
	bank, err := bankserver.Open(filepath.Join(dir, "bank.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bank.Close() })
	s := &System{T: t, Dir: filepath.Join(dir, "data"), Clock: clock, Bank: bank, Log: &Buffer{}}
	for _, o := range options {
		s.configs = append(s.configs, o)
	}
	s.public, s.management = freeURL(t), freeURL(t)
	s.bank = NewRecorder(bank.Handler())
	s.bankURL = s.Upstream(s.bank) + "/mcp"
	s.Start()
	s.Apply(fmt.Sprintf(Manifest, s.bankURL))
	return s
}

// Ports that a daemon of a test has, or had and takes again after a restart. They
// are below those that systems give to outgoing connections (from 32768 on with
// Linux, from 49152 with others), of which tests have many, and each test binary
// has some of its own, as others run beside it.
const (
	firstPort = 10000
	portsEach = 400
	portSets  = 50
)

var ports struct {
	mu    sync.Mutex
	taken map[int]bool // guarded by mu
	next  int          // guarded by mu
}

// freeURL returns a loopback address that is the test's until it ends.
func freeURL(t testing.TB) string {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range portsEach {
		port := firstPort + os.Getpid()%portSets*portsEach + ports.next
		ports.next = (ports.next + 1) % portsEach
		if ports.taken[port] {
			continue
		}
		host := fmt.Sprintf("localhost:%d", port)
		ln, err := net.Listen("tcp", host)
		if err != nil {
			continue // somebody else's
		}
		ln.Close()
		if ports.taken == nil {
			ports.taken = map[int]bool{}
		}
		ports.taken[port] = true
		t.Cleanup(func() {
			ports.mu.Lock()
			defer ports.mu.Unlock()
			delete(ports.taken, port)
		})
		return "http://" + host
	}
	t.Fatal("no port is free")
	return ""
}

// Upstream serves an MCP server on loopback; its calls count in CheckLedger
// when it is a recorder.
func (s *System) Upstream(h http.Handler) string {
	if r, ok := h.(*Recorder); ok {
		s.upstream = append(s.upstream, r)
	}
	srv := httptest.NewServer(h)
	s.T.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}

// Start opens and runs the daemon on the system's folder, as a restart does.
func (s *System) Start() {
	s.T.Helper()
	if err := s.TryStart(); err != nil {
		s.T.Fatalf("starting the daemon: %v", err)
	}
}

// TryStart is Start for a start that may be refused.
func (s *System) TryStart() error {
	cfg := daemon.Config{
		Dev: true, Data: s.Dir,
		Public:     daemon.Listener{URL: s.public},
		Management: daemon.Listener{URL: s.management},
	}
	for _, c := range s.configs {
		c(&cfg)
	}
	log := slog.New(slog.NewJSONHandler(s.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := daemon.Open(context.Background(), cfg, daemon.Options{Log: log, Version: "test", Now: s.Clock.Now})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.daemon, s.stop, s.done = d, stop, make(chan error, 1)
	done := s.done
	go func() { done <- d.Run(ctx) }()
	s.T.Cleanup(s.Stop)
	return nil
}

// Stop drains and closes the daemon, once.
func (s *System) Stop() {
	if s.stop == nil {
		return
	}
	s.stop()
	if err := <-s.done; err != nil {
		s.T.Errorf("running the daemon: %v", err)
	}
	if err := s.daemon.Close(); err != nil {
		s.T.Errorf("closing the daemon: %v", err)
	}
	s.stop = nil
}

// Restart stops the daemon and starts it again on the same folder and clock.
func (s *System) Restart() {
	s.T.Helper()
	s.Stop()
	s.Start()
}

// Issuer is the public URL.
func (s *System) Issuer() string { return s.daemon.PublicURL() }

// ManagementURL is where health and metrics are.
func (s *System) ManagementURL() string { return s.daemon.ManagementURL() }

// BankURL is the bank's identifier at the gateway.
func (s *System) BankURL() string { return s.Issuer() + counterfoil.ResourcePath + "bank" }

// TillURL is the till's identifier at the gateway.
func (s *System) TillURL() string { return s.Issuer() + counterfoil.ResourcePath + "till" }

// BankUpstream is where the bank itself listens.
func (s *System) BankUpstream() string { return s.bankURL }

// UpstreamHeaders returns the header of every request that reached the bank.
func (s *System) UpstreamHeaders() []http.Header {
	_, h := s.bank.Seen()
	return h
}

// UpstreamCalls returns how many tool calls reached the bank.
func (s *System) UpstreamCalls() int {
	c, _ := s.bank.Seen()
	return len(c)
}

// Reached returns how many tool calls reached any upstream that records.
func (s *System) Reached() int {
	n := 0
	for _, r := range s.upstream {
		calls, _ := r.Seen()
		n += len(calls)
	}
	return n
}

// Admin sends a request to the admin socket and returns the answer's status and
// body.
func (s *System) Admin(method, path string, in any) (int, []byte) {
	s.T.Helper()
	var body io.Reader
	if in != nil {
		b, err := ijson.Marshal(in)
		if err != nil {
			s.T.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://admin"+path, body)
	if err != nil {
		s.T.Fatal(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	socket, err := daemon.FindSocket(s.Dir)
	if err != nil {
		s.T.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Do(req)
	if err != nil {
		s.T.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	return resp.StatusCode, answer
}

// Apply puts a manifest in force.
func (s *System) Apply(manifest string) {
	s.T.Helper()
	if problems := s.TryApply(manifest); len(problems) > 0 {
		s.T.Fatalf("applying: %s", strings.Join(problems, "\n"))
	}
}

// Warnings applies a manifest and returns what it was warned of.
func (s *System) Warnings(manifest string) []string {
	s.T.Helper()
	var result struct {
		Warnings []string `json:"warnings"`
	}
	body := s.must(http.MethodPost, "/api/v1/apply", map[string]any{
		"files": []map[string]string{{"name": "test.yaml", "data": manifest}}, "dry_run": false,
	})
	if err := ijson.UnmarshalLax(body, &result); err != nil {
		s.T.Fatal(err)
	}
	return result.Warnings
}

// TryApply applies a manifest and returns what is wrong with it.
func (s *System) TryApply(manifest string) []string {
	s.T.Helper()
	status, body := s.Admin(http.MethodPost, "/api/v1/apply", map[string]any{
		"files": []map[string]string{{"name": "test.yaml", "data": manifest}}, "dry_run": false,
	})
	var result struct {
		Problems []string `json:"problems"`
	}
	if err := ijson.UnmarshalLax(body, &result); err != nil || status/100 != 2 && len(result.Problems) == 0 {
		s.T.Fatalf("applying: HTTP %d %s", status, body)
	}
	return result.Problems
}

// must fails the test unless the admin request succeeded.
func (s *System) must(method, path string, in any) []byte {
	s.T.Helper()
	status, body := s.Admin(method, path, in)
	if status/100 != 2 {
		s.T.Fatalf("%s %s: HTTP %d %s", method, path, status, body)
	}
	return body
}

// Offboard deletes an agent.
func (s *System) Offboard(agent string) {
	s.T.Helper()
	s.must(http.MethodPost, "/api/v1/agents/"+agent+"/offboard", map[string]any{"reason": "test"})
}

// Suspend suspends an agent.
func (s *System) Suspend(agent string) {
	s.T.Helper()
	s.must(http.MethodPost, "/api/v1/agents/"+agent+"/suspend", map[string]any{"reason": "test"})
}

// Resume resumes an agent.
func (s *System) Resume(agent string) {
	s.T.Helper()
	s.must(http.MethodPost, "/api/v1/agents/"+agent+"/resume", map[string]any{"reason": "test"})
}

// EnrolCode makes a one-time code for an agent.
func (s *System) EnrolCode(agent string) string {
	s.T.Helper()
	var answer struct {
		Code string `json:"code"`
	}
	if err := ijson.UnmarshalLax(s.must(http.MethodPost, "/api/v1/agents/"+agent+"/enroll-code", map[string]any{}), &answer); err != nil {
		s.T.Fatal(err)
	}
	return answer.Code
}

// A Buffer is a log that many goroutines write.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Timeout bounds one wait of a story; it is generous because machines are slow,
// and nothing is measured with it.
const Timeout = 30 * time.Second
