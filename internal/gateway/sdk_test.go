package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

type balanceArgs struct {
	Account string `json:"account"`
}

type countArgs struct {
	To int `json:"to"`
}

// sdkServer is a real MCP server.
func sdkServer(stateless, jsonAnswers bool) http.Handler {
	s := mcp.NewServer(&mcp.Implementation{Name: "bank", Version: "1"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "get_balance", Description: "Balance"}, func(_ context.Context, _ *mcp.CallToolRequest, in balanceArgs) (*mcp.CallToolResult, any, error) {
		if in.Account == "" {
			return nil, nil, fmt.Errorf("no account")
		}
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "12.50 in " + in.Account}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "count"}, func(ctx context.Context, req *mcp.CallToolRequest, in countArgs) (*mcp.CallToolResult, any, error) {
		for i := range in.To {
			if err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: req.Params.GetProgressToken(), Progress: float64(i + 1), Total: float64(in.To)}); err != nil {
				return nil, nil, err
			}
		}
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "counted"}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "pay"}, func(context.Context, *mcp.CallToolRequest, balanceArgs) (*mcp.CallToolResult, any, error) {
		panic("paid")
	})
	mcp.AddTool(s, &mcp.Tool{Name: "hidden"}, func(context.Context, *mcp.CallToolRequest, balanceArgs) (*mcp.CallToolResult, any, error) {
		panic("called")
	})
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: stateless, JSONResponse: jsonAnswers})
}

// TestTheSDKTalksThroughTheGateway has the official SDK at both ends, unchanged
// but for a RoundTripper that signs.
func TestTheSDKTalksThroughTheGateway(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name                   string
		stateless, jsonAnswers bool
		ask                    string
		get                    string
	}{
		{"2026-07-28", true, false, rev2026, rev2026},
		{"2026-07-28 in JSON", true, true, rev2026, rev2026},
		{"2025-11-25 with sessions", false, false, rev2025, rev2025},
		{"2025-11-25 with sessions in JSON", false, true, rev2025, rev2025},
		{"2025-06-18", false, false, "2025-06-18", "2025-06-18"},
		{"2025-11-25 without sessions", true, false, rev2025, rev2025},
		{"a new client falls back", false, false, rev2026, rev2025},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sdkServer(tc.stateless, tc.jsonAnswers), nil)
			tools, err := gateway.Definitions(t.Context(), nil, w.registry.Resources["bank"], custody.Released{})
			if err != nil || len(tools) != 4 {
				t.Fatalf("definitions: %d, %v", len(tools), err)
			}
			w.log.pin("pay", tools["pay"].Digest)

			a := w.actor("payroll")
			var mu sync.Mutex
			var progress []float64
			got := make(chan struct{}, 10)
			client := mcp.NewClient(&mcp.Implementation{Name: "t", Version: "1"}, &mcp.ClientOptions{
				ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
					mu.Lock()
					progress = append(progress, r.Params.Progress)
					mu.Unlock()
					got <- struct{}{}
				},
			})
			s, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: w.resource(), HTTPClient: &http.Client{Transport: a}, MaxRetries: -1},
				&mcp.ClientSessionOptions{ProtocolVersion: tc.ask})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if v := s.InitializeResult().ProtocolVersion; v != tc.get {
				t.Fatalf("they speak %s", v)
			}

			list, err := s.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tool := range list.Tools {
				names = append(names, tool.Name)
			}
			if strings.Join(names, " ") != "count get_balance pay" {
				t.Errorf("the list is %v", names)
			}

			call := func(name string, args map[string]any, token any) *mcp.CallToolResult {
				t.Helper()
				p := &mcp.CallToolParams{Name: name, Arguments: args}
				if token != nil {
					p.SetProgressToken(token)
				}
				r, err := s.CallTool(t.Context(), p)
				if err != nil {
					t.Fatalf("calling %s: %v", name, err)
				}
				return r
			}
			if r := call("get_balance", map[string]any{"account": "a"}, nil); r.IsError || r.Content[0].(*mcp.TextContent).Text != "12.50 in a" {
				t.Errorf("get_balance says %+v", r.Content[0])
			}
			if r := call("get_balance", map[string]any{"account": ""}, nil); !r.IsError || r.Meta["counterfoil/refusal"] != nil {
				t.Errorf("the tool's own error came as %+v", r)
			}
			if !tc.jsonAnswers || !tc.stateless { // otherwise the server has nowhere to send its progress
				if r := call("count", map[string]any{"to": 3}, "tok"); r.IsError {
					t.Errorf("count says %+v", r.Content[0])
				}
				for range 3 {
					<-got
				}
				mu.Lock()
				if fmt.Sprint(progress) != "[1 2 3]" {
					t.Errorf("the progress is %v", progress)
				}
				mu.Unlock()
			}
			r := call("pay", map[string]any{"account": "a"}, nil)
			o, _ := r.Meta["counterfoil/refusal"].(map[string]any)
			if !r.IsError || o["code"] != string(counterfoil.ApprovalRequired) {
				t.Errorf("pay says %+v", r)
			}
			if len(w.upstream.calls(`"name":"pay"`)) > 0 {
				t.Fatal("the payment went upstream")
			}
			s.Close()
			checkLog(t, w.log)
		})
	}
}

// checkLog checks that every allowed decision ends once and no other does.
func checkLog(t *testing.T, l *log) {
	t.Helper()
	ends := map[int64]int{}
	for _, e := range l.of(ledger.CallFinished) {
		ends[e.Of]++
	}
	allowed := 0
	for _, e := range l.of(ledger.CallDecided) {
		want := 0
		if e.Decision == ledger.Allow {
			want, allowed = 1, allowed+1
		}
		if e.Proof == "" || ends[e.Index] > want {
			t.Errorf("entry %d (%s, %s) has %d ends", e.Index, e.Tool, e.Decision, ends[e.Index])
		}
	}
	if allowed == 0 {
		t.Error("nothing was allowed")
	}
}
