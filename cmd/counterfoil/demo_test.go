package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// TestDemo runs the whole story, and holds each step against what it has to show.
func TestDemo(t *testing.T) {
	t.Parallel()
	want := []string{
		"allowed", "allowed", "tool_not_granted",
		"allowed", "approval_required", "approval_pending", "approver_not_eligible", "approval_mismatch", "allowed", "approval_spent",
		"allowed", "approval_denied",
		"proof_key_mismatch", "proof_replayed", "bearer_refused",
		"allowed", "contained", "proof_key_mismatch", "allowed", "allowed", "bearer_refused",
		"allowed", "task_closed", "token_revoked", "inactive", "agent_suspended", "token_revoked",
		"allowed", "contained", "detected", "detected",
	}
	out := command(t, "", "demo", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d steps, want %d:\n%s", len(lines), len(want), out)
	}
	for i, line := range lines {
		var step struct {
			Step     int    `json:"step"`
			Code     string `json:"code"`
			Answered string `json:"answered"`
			Why      string `json:"why"`
			OK       bool   `json:"ok"`
		}
		if err := ijson.UnmarshalLax([]byte(line), &step); err != nil {
			t.Fatal(err)
		}
		if step.Step != i+1 || step.Code != want[i] || !step.OK || step.Answered == "" || step.Why == "" {
			t.Errorf("step %d, want %s: %s", i+1, want[i], line)
		}
	}
	for step, text := range map[int]string{8: "0 payments", 9: "1 payment", 10: "1 payment", 12: "this invoice is not ours", 16: "Ada Lovelace", 17: "/clients/7 302", 20: "nightly sent key sha-256:", 22: "1 of 5 calls", 25: "before: active, of payroll", 26: "cut 1 stream", 28: "5 assertions of people verified, 3 calls", 29: "9 uses of it", 31: "the signature of cy does not verify"} {
		if !strings.Contains(lines[step-1], text) {
			t.Errorf("step %d does not say %q: %s", step, text, lines[step-1])
		}
	}
}

// TestFinds: the demo's search finds what it looks for in every form in which the
// legacy API writes it.
func TestFinds(t *testing.T) {
	t.Parallel()
	const secret = "crm-WQ2XK7VJ4T6N8R3M5P9B"
	for name, seen := range map[string]string{
		"as it is": "token=" + secret, "half of it": "t=" + secret[12:], "for a URL": "%" + hex.EncodeToString([]byte(secret[:1])) + secret[1:11] + "%" + hex.EncodeToString([]byte(secret[11:12])) + "~",
		"for JSON": `"\u0063` + secret[1:] + `"`,
	} {
		if finds(secret, []byte(seen)) == "" {
			t.Errorf("%s: it does not find it", name)
		}
	}
	for before := range 4 {
		text := []byte(strings.Repeat("x", before) + secret + "y")
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			if finds(secret, []byte(`{"a":"`+e.EncodeToString(text)+`"}`)) == "" {
				t.Errorf("in base64 after %d bytes: it does not find it", before)
			}
		}
	}
	for _, seen := range []string{"", "crm-", strings.Repeat("*", 24), base64.StdEncoding.EncodeToString([]byte("crm-another"))} {
		if found := finds(secret, []byte(seen)); found != "" {
			t.Errorf("%q: %s", seen, found)
		}
	}
}

// A watched is an output in which a test waits for a text.
type watched struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Write(p)
	close(w.changed)
	w.changed = make(chan struct{})
	return len(p), nil
}

// await returns the first match, once it is there.
func (w *watched) await(t *testing.T, ended <-chan int, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for {
		w.mu.Lock()
		found, changed, text := re.FindStringSubmatch(w.b.String()), w.changed, w.b.String()
		w.mu.Unlock()
		if found != nil {
			return found
		}
		select {
		case <-changed:
		case code := <-ended:
			t.Fatalf("the demo ended with %d before it said %q:\n%s", code, pattern, text)
		}
	}
}

// TestDemoStays: whoever watches becomes the second person, and the payout that
// waited runs once they said yes.
func TestDemoStays(t *testing.T) {
	t.Parallel()
	for decision, then := range map[string]string{counterfoil.DecisionApprove: `the bank paid`, counterfoil.DecisionDeny: `approval_denied: `} {
		t.Run(decision, func(t *testing.T) {
			t.Parallel()
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			said := &watched{changed: make(chan struct{})}
			ended := make(chan int, 1)
			go func() {
				ended <- run(ctx, []string{"demo", "--stay"}, streams{strings.NewReader(""), new(bytes.Buffer), said})
			}()
			at := said.await(t, ended, `(http://localhost:\d+)/enrol#(cfe_\w+)[\s\S]+/approvals/(apr_\w+)[\s\S]+the agent's key`)
			dan, err := newDemoPerson(ctx, at[1], "dan", at[2])
			if err != nil {
				t.Fatal(err)
			}
			if r, err := dan.decide(ctx, at[3], decision, ""); err != nil || r.code != allowed {
				t.Fatalf("dan decides: %+v %v", r, err)
			}
			said.await(t, ended, then)
			interrupt()
			if code := <-ended; code != exitDone {
				t.Errorf("it ended with %d", code)
			}
		})
	}
}
