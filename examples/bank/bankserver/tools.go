package bankserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// Instructions and schemas that a client sees. The amount is a number: a rule
// of the gateway's compares it and its limits sum it.
const (
	instructions = "A bank. Amounts are numbers of currency units with at most two decimal places."

	inGetBalance = `{"type":"object","additionalProperties":false,"required":["account"],"properties":{
		"account":{"type":"string","description":"The account's name: operating or reserve."}}}`
	outGetBalance = `{"type":"object","required":["account","balance","currency"],"properties":{
		"account":{"type":"string"},"balance":{"type":"number"},"currency":{"type":"string"}}}`

	inListPayees  = `{"type":"object","additionalProperties":false,"properties":{}}`
	outListPayees = `{"type":"object","required":["payees"],"properties":{"payees":{"type":"array","items":{
		"type":"object","required":["name","company","iban"],"properties":{
		"name":{"type":"string"},"company":{"type":"string"},"iban":{"type":"string"}}}}}}`

	inPay = `{"type":"object","additionalProperties":false,"required":["to","amount","currency"],"properties":{
		"to":{"type":"string","description":"The payee's name, as list_payees gives it."},
		"amount":{"type":"number","exclusiveMinimum":0,"description":"Units of the currency, at most two decimal places."},
		"currency":{"type":"string","pattern":"^[A-Z]{3}$","description":"ISO 4217, for example EUR."}}}`
	outPay = `{"type":"object","required":["id","to","amount","currency","balance"],"properties":{
		"id":{"type":"integer"},"to":{"type":"string"},"amount":{"type":"number"},
		"currency":{"type":"string"},"balance":{"type":"number"}}}`
)

// firstStateless is the first revision without sessions. Revisions are dates
// and sort as text.
const firstStateless = "2026-07-28"

// servers holds the two faces of one bank. The SDK serves a revision with
// sessions and one without from two handlers; the request's header says which.
type servers struct {
	server              *mcp.Server
	stateful, stateless *mcp.StreamableHTTPHandler
}

func newServers(b *Bank) *servers {
	s := mcp.NewServer(
		&mcp.Implementation{Name: "bank", Title: "Counterfoil's example bank", Version: "1.0.0"},
		&mcp.ServerOptions{Instructions: instructions, Capabilities: &mcp.ServerCapabilities{}})
	yes, no := true, false
	addTool(s, &mcp.Tool{Name: "get_balance", Description: "What is in an account.",
		InputSchema: jsontext.Value(inGetBalance), OutputSchema: jsontext.Value(outGetBalance),
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: &no}},
		func(ctx context.Context, in struct {
			Account string `json:"account"`
		}) (Account, error) {
			return b.Balance(ctx, in.Account)
		})
	addTool(s, &mcp.Tool{Name: "list_payees", Description: "Everybody whom the bank can pay.",
		InputSchema: jsontext.Value(inListPayees), OutputSchema: jsontext.Value(outListPayees),
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: &no}},
		func(ctx context.Context, _ struct{}) (out struct {
			Payees []Payee `json:"payees"`
		}, err error) {
			out.Payees, err = b.Payees(ctx)
			return out, err
		})
	addTool(s, &mcp.Tool{Name: "pay", Description: "Pays a payee out of the operating account, at once and for good.",
		InputSchema: jsontext.Value(inPay), OutputSchema: jsontext.Value(outPay),
		Annotations: &mcp.ToolAnnotations{DestructiveHint: &yes, OpenWorldHint: &yes}},
		func(ctx context.Context, in struct {
			To       string  `json:"to"`
			Amount   *Amount `json:"amount"` // a pointer, so that absent is not zero
			Currency string  `json:"currency"`
		}) (out struct {
			ID       int64  `json:"id"`
			To       string `json:"to"`
			Amount   Amount `json:"amount"`
			Currency string `json:"currency"`
			Balance  Amount `json:"balance"`
		}, err error) {
			if in.Amount == nil {
				return out, errors.New("the amount is missing")
			}
			p, from, err := b.Pay(ctx, in.To, *in.Amount, in.Currency)
			out.ID, out.To, out.Amount, out.Currency, out.Balance = p.ID, p.To, p.Amount, p.Currency, from.Balance
			return out, err
		})
	get := func(*http.Request) *mcp.Server { return s }
	return &servers{
		server:    s,
		stateful:  mcp.NewStreamableHTTPHandler(get, &mcp.StreamableHTTPOptions{SessionTimeout: 30 * time.Minute}),
		stateless: mcp.NewStreamableHTTPHandler(get, &mcp.StreamableHTTPOptions{Stateless: true, PropagateRequestCancellation: true}),
	}
}

// addTool registers a tool whose arguments are read from the bytes that came.
// The SDK's own typed tools pass numbers through float64 first; money does not.
// Unknown and duplicate members are refused.
func addTool[In, Out any](s *mcp.Server, t *mcp.Tool, do func(context.Context, In) (Out, error)) {
	s.AddTool(t, func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		args := req.Params.Arguments
		if len(args) == 0 {
			args = []byte("{}")
		}
		res := new(mcp.CallToolResult)
		var in In
		if err := json.Unmarshal(args, &in, json.RejectUnknownMembers(true)); err != nil {
			res.SetError(err)
			return res, nil
		}
		out, err := do(ctx, in)
		if err != nil {
			res.SetError(err)
			return res, nil
		}
		b, err := json.Marshal(out)
		if err != nil {
			return nil, err
		}
		res.StructuredContent = jsontext.Value(b)
		res.Content = []mcp.Content{&mcp.TextContent{Text: string(b)}}
		return res, nil
	})
}

// Handler serves MCP over streamable HTTP at whatever path it is mounted.
func (b *Bank) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Protocol-Version") >= firstStateless {
			b.servers.stateless.ServeHTTP(w, r)
			return
		}
		b.servers.stateful.ServeHTTP(w, r)
	})
}

func (s *servers) close() {
	for session := range s.server.Sessions() {
		// What is left of a session after its end is the SDK's; the error says
		// only that the client was gone first.
		_ = session.Close()
	}
}
