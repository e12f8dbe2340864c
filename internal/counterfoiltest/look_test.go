package counterfoiltest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	. "github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestALookUsesNothingUp: an agent that looks while its call is under way, at the status
// and at the task, leaves a log in which the approval was used once.
func TestALookUsesNothingUp(t *testing.T) {
	t.Parallel()
	sys := New(t)
	reached, leave := make(chan struct{}), make(chan struct{})
	let := sync.OnceFunc(func() { close(leave) })
	t.Cleanup(let)
	var once sync.Once
	vault := sys.Upstream(NewRecorder(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(body), `"tools/call"`) {
			once.Do(func() { close(reached) })
			<-leave
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		sys.Bank.Handler().ServeHTTP(w, r)
	})))
	sys.Apply(fmt.Sprintf(Manifest+`---
kind: Resource
name: vault
type: mcp
environment: prod
upstream: %[2]s/mcp
tools:
  - {name: pay, class: payout, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Agent
name: treasurer
owner: ana
environment: prod
grants:
  - tools: [vault/pay]
`, sys.BankUpstream(), vault))
	treasurer := sys.Agent("treasurer")
	resource := sys.Issuer() + counterfoil.ResourcePath + "vault"
	client := treasurer.For(resource)
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"wire","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`
	ask := func(method, name, params string) string {
		t.Helper()
		body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + params + `,` + meta + `}}`
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, resource, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": name} {
			req.Header.Set(k, v)
		}
		return send(t, client.Client(), req)
	}
	var made struct {
		Result struct {
			TaskID string `json:"taskId"`
		} `json:"result"`
	}
	first := ask("tools/call", "pay", `"name":"pay","arguments":{"to":"acme","amount":100,"currency":"EUR"}`)
	if err := ijson.UnmarshalLax([]byte(first), &made); err != nil || made.Result.TaskID == "" {
		t.Fatalf("asked: %s", first)
	}
	id := made.Result.TaskID
	look := func(want string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sys.Issuer()+counterfoil.ApprovalPath+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := send(t, client.Client(), req); !strings.Contains(got, `"status":"`+want+`"`) {
			t.Errorf("the status is %s, want %s", got, want)
		}
		if got := ask("tasks/get", id, `"taskId":"`+id+`"`); !strings.Contains(got, id) {
			t.Errorf("the task is %s", got)
		}
	}
	look("pending")
	sys.Approver("bo").Countersign(id)
	sys.Approver("cy").Countersign(id)
	select {
	case <-reached:
	case <-time.After(Timeout):
		t.Fatal("the call was not made")
	}
	look("spent")
	look("spent")
	let()
	sys.Restart()
	look("succeeded")
	paid(t, sys, 1)
	for _, e := range sys.Entries() {
		if e.Kind == ledger.CallDecided && e.Approval.ID == id && e.Tool != "vault/pay" && e.Approval.State != "" {
			t.Errorf("a look at %s is recorded as %+v", e.Tool, e.Approval)
		}
	}
	sys.CheckLedger()
}

func send(t *testing.T, client *http.Client, req *http.Request) string {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
