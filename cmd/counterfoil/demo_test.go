package main

import (
	"bytes"
	"context"
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
		"allowed", "task_closed", "token_revoked", "inactive", "agent_suspended", "token_revoked",
		"allowed", "detected", "detected",
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
	for step, text := range map[int]string{8: "0 payments", 9: "1 payment", 10: "1 payment", 12: "this invoice is not ours", 16: "1 of 5 calls", 19: "before: active, of payroll", 20: "cut 1 stream", 22: "4 assertions of people verified, 2 calls", 24: "the signature of cy does not verify"} {
		if !strings.Contains(lines[step-1], text) {
			t.Errorf("step %d does not say %q: %s", step, text, lines[step-1])
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
