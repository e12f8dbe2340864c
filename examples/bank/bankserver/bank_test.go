package bankserver_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
)

func open(t *testing.T, path string) *bankserver.Bank {
	t.Helper()
	b, err := bankserver.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func connect(t *testing.T, b *bankserver.Bank, revision string) *mcp.ClientSession {
	t.Helper()
	srv := httptest.NewServer(b.Handler())
	t.Cleanup(srv.Close)
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	s, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: srv.URL + "/mcp"}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if got := s.InitializeResult().ProtocolVersion; got != revision {
		t.Fatalf("negotiated %s, want %s", got, revision)
	}
	return s
}

// call returns the structured content, or the text of the error.
func call(t *testing.T, s *mcp.ClientSession, tool, args string) (string, bool) {
	t.Helper()
	res, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: json.RawMessage(args)})
	if err != nil {
		t.Fatalf("%s %s: %v", tool, args, err)
	}
	return res.Content[0].(*mcp.TextContent).Text, !res.IsError
}

func TestToolsInBothRevisions(t *testing.T) {
	t.Parallel()
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(revision, func(t *testing.T) {
			t.Parallel()
			b := open(t, filepath.Join(t.TempDir(), "a bank?%.db"))
			s := connect(t, b, revision)
			if hasSession := s.ID() != ""; hasSession != (revision == "2025-11-25") {
				t.Errorf("session id %q", s.ID())
			}
			list, err := s.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tool := range list.Tools {
				names = append(names, tool.Name)
			}
			if got := strings.Join(names, " "); got != "get_balance list_payees pay" {
				t.Errorf("tools %q", got)
			}
			if got, ok := call(t, s, "get_balance", `{"account":"operating"}`); !ok || got != `{"account":"operating","balance":250000.00,"currency":"EUR"}` {
				t.Errorf("get_balance: %v %s", ok, got)
			}
			if got, ok := call(t, s, "list_payees", `{}`); !ok || !strings.Contains(got, `"name":"acme"`) {
				t.Errorf("list_payees: %v %s", ok, got)
			}
			if got, ok := call(t, s, "pay", `{"to":"acme","amount":100.1,"currency":"EUR"}`); !ok || !strings.Contains(got, `"balance":249899.90`) {
				t.Errorf("pay: %v %s", ok, got)
			}
			paid, err := b.Payments(t.Context())
			if err != nil || len(paid) != 1 || paid[0].To != "acme" || paid[0].Amount != 10010 || paid[0].Currency != "EUR" {
				t.Errorf("payments %+v, %v", paid, err)
			}
		})
	}
}

func TestPayRefusesAndPaysNothing(t *testing.T) {
	t.Parallel()
	b := open(t, filepath.Join(t.TempDir(), "bank.db"))
	s := connect(t, b, "2026-07-28")
	for _, args := range []string{
		`{}`,
		`{"to":"acme","currency":"EUR"}`,
		`{"to":"acme","amount":null,"currency":"EUR"}`,
		`{"to":"acme","amount":0,"currency":"EUR"}`,
		`{"to":"acme","amount":-1,"currency":"EUR"}`,
		`{"to":"acme","amount":"12.50","currency":"EUR"}`,
		`{"to":"acme","amount":0.001,"currency":"EUR"}`,
		`{"to":"acme","amount":1.000,"currency":"EUR"}`,
		`{"to":"acme","amount":0.1000000000000000055,"currency":"EUR"}`,
		`{"to":"acme","amount":1e2,"currency":"EUR"}`,
		`{"to":"acme","amount":99999999999999,"currency":"EUR"}`,
		`{"to":"acme","amount":250000.01,"currency":"EUR"}`,
		`{"to":"acme","amount":1,"currency":"USD"}`,
		`{"to":"nobody","amount":1,"currency":"EUR"}`,
		`{"to":"acme","amount":1,"currency":"EUR","from":"reserve"}`,
		`{"To":"acme","amount":1,"currency":"EUR"}`,
	} {
		if got, ok := call(t, s, "pay", args); ok {
			t.Errorf("pay %s: %s", args, got)
		}
	}
	if got, ok := call(t, s, "get_balance", `{"account":"none"}`); ok {
		t.Errorf("get_balance of none: %s", got)
	}
	if paid, err := b.Payments(t.Context()); err != nil || len(paid) != 0 {
		t.Fatalf("payments %v, %v", paid, err)
	}
	// The control: the same server pays what is in order.
	if got, ok := call(t, s, "pay", `{"to":"acme","amount":0.01,"currency":"EUR"}`); !ok {
		t.Errorf("pay: %s", got)
	}
}

func TestPaymentsAreKeptAndNeverOverdraw(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "bank.db")
	b := open(t, path)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			// Each is a tenth and a bit: exactly nine fit.
			_, _, _ = b.Pay(context.Background(), "globex", 27_000_00, "EUR")
		})
	}
	wg.Wait()
	again := open(t, path)
	paid, err := again.Payments(t.Context())
	if err != nil || len(paid) != 9 {
		t.Fatalf("%d payments, %v", len(paid), err)
	}
	acct, err := again.Balance(t.Context(), bankserver.PayingAccount)
	if err != nil || acct.Balance != 7_000_00 {
		t.Fatalf("left %s, %v", acct.Balance, err)
	}
}

func TestAmounts(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bankserver.Amount{"0": 0, "0.1": 10, "0.10": 10, "12": 1200, "12.5": 1250, "9999999999999.99": 999999999999999} {
		if got, err := bankserver.ParseAmount(in); err != nil || got != want {
			t.Errorf("%s is %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ".", "1.", ".5", "01", "+1", "-1", "1.005", "1,5", "1e2", "0x1", " 1", "10000000000000", "NaN", "١"} {
		if got, err := bankserver.ParseAmount(in); err == nil {
			t.Errorf("%q is %d", in, got)
		}
	}
	if got := bankserver.Amount(-5).String(); got != "-0.05" {
		t.Errorf("-5 cents is %s", got)
	}
}

func TestAFileThatIsNoDatabase(t *testing.T) {
	t.Parallel()
	if b, err := bankserver.Open(t.TempDir()); err == nil {
		t.Error(b.Close(), "a folder opened as a bank")
	}
}
