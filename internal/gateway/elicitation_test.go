package gateway_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
)

// TestURLElicitation is the way of standards 5.8 (b) 2 and 4: the user that the agent
// acts for is sent to the page, and nothing that the client says of that approves.
func TestURLElicitation(t *testing.T) {
	t.Parallel()
	const metaURL = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{},"url":{}}}}`
	o, a := newOffice(t, nil, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Classes["reset"].OwnerMayApprove = true
	})
	caller := counterfoil.Caller{
		Agent: "payroll", Instance: a.instance, Environment: "prod", Epoch: a.epoch, Subject: "bo", Actors: []string{"payroll"}, Audience: o.resource(),
		TokenID: "tok_x", Scope: a.scope, Expires: start.Add(time.Hour), JKT: a.signer.Public().Thumbprint(), Binding: "dpop", KeyKind: "ES256", Proof: "sha-256:p",
	}
	as := func(caller counterfoil.Caller, more, meta string) reply {
		t.Helper()
		rec := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, o.resource(), strings.NewReader(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"`+resetTool+`","arguments":{"user":"u1"}`+more+`,`+meta+`}}`))
		for k, v := range map[string]string{"Content-Type": "application/json", "MCP-Protocol-Version": rev2026, "Mcp-Method": "tools/call", "Mcp-Name": resetTool} {
			r.Header.Set(k, v)
		}
		r.RemoteAddr = "127.0.0.1:40000"
		o.gateway.ServeAs(rec, r, caller)
		return reply{rec.Code, rec.Header(), rec.Body.String()}
	}
	first := read(t, as(caller, "", metaURL))
	page := first.Result.Inputs["approval"]
	id := first.Result.Meta.Refusal.Approval.ID
	if first.Result.ResultType != "input_required" || page.Method != "elicitation/create" || page.Params["mode"] != "url" || page.Params["url"] != consoleURL+"/approvals/"+id || page.Params["message"] == "" || first.Result.IsError {
		t.Fatalf("it is asked %+v", first.Result)
	}
	answered := func(action, state string) string {
		return `,"inputResponses":{"approval":{"action":"` + action + `","content":{"confirm":true}}},"requestState":"` + state + `"`
	}
	// Accepted, and nobody signed: again.
	again := read(t, as(caller, answered("accept", first.Result.State), metaURL))
	if again.Result.ResultType != "input_required" || again.Result.Meta.Refusal.Approval.ID != id || again.Result.Meta.Refusal.Code != counterfoil.ApprovalPending {
		t.Fatalf("an accept alone gets %+v", again.Result)
	}
	// Looked away: no loop.
	if away := read(t, as(caller, answered("cancel", first.Result.State), metaURL)); !away.Result.IsError || away.Result.Meta.Refusal.Code != counterfoil.ApprovalPending {
		t.Errorf("who looks away gets %+v", away.Result)
	}
	// Foreign: another agent's user, other arguments.
	other := caller
	other.Subject = "cy"
	foreign := as(other, answered("accept", first.Result.State), metaURL)
	if foreign.status != http.StatusBadRequest || !strings.Contains(foreign.body, `-32602`) {
		t.Errorf("another user gets %d %s", foreign.status, foreign.body)
	}
	if o.paid() != 0 {
		t.Fatal("it ran")
	}
	// Who cannot be asked, or may not decide, gets the ordinary result.
	for name, r := range map[string]reply{
		"a client without URLs": as(caller, "", meta2026), "the agent for itself": a.call2026(resetTool, `{"user":"u1"}`, nil),
	} {
		if got := read(t, r); !got.Result.IsError || got.Result.State != "" {
			t.Errorf("%s gets %+v", name, got.Result)
		}
	}
	if got := o.decideAs(id, "cy"); got != counterfoil.StateApproved {
		t.Fatalf("it is %s", got)
	}
	done := as(caller, answered("accept", again.Result.State), metaURL)
	wantDone(t, done)
	sent := o.upstream.calls(`"name":"` + resetTool + `"`)
	if len(sent) != 1 || strings.Contains(sent[0].body, "inputResponses") || strings.Contains(sent[0].body, "requestState") {
		t.Fatalf("upstream: %+v", sent)
	}

	// Declined: taken back.
	o.clock.Advance(16 * time.Minute)
	caller.Expires = o.clock.Now().Add(time.Hour)
	next := read(t, as(caller, "", metaURL))
	id = next.Result.Meta.Refusal.Approval.ID
	if no := read(t, as(caller, answered("decline", next.Result.State), metaURL)); !no.Result.IsError || no.Result.Meta.Refusal.Code != counterfoil.ApprovalCancelled || o.state(id).State != counterfoil.StateCancelled {
		t.Errorf("who declines gets %+v", no.Result)
	}
	if o.paid() != 1 {
		t.Errorf("%d went upstream", o.paid())
	}
}

// decideAs has one person say yes.
func (o *office) decideAs(id, person string) counterfoil.ApprovalState {
	return o.decide(id, person, counterfoil.DecisionApprove, "")
}

// TestURLElicitationInSessions is MCP 2025-11-25: an error that says where to send the
// user.
func TestURLElicitationInSessions(t *testing.T) {
	t.Parallel()
	upstream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if strings.Contains(string(body), "tools/list") {
			jsonUpstream(w, r)
			return
		}
		sessionUpstream(w, r)
	})
	o, a := newOffice(t, upstream, func(_ *office, reg *counterfoil.Registry, _ *gateway.Config) {
		reg.Classes["reset"].OwnerMayApprove = true
	})
	caller := counterfoil.Caller{
		Agent: "payroll", Instance: a.instance, Environment: "prod", Epoch: a.epoch, Subject: "bo", Actors: []string{"payroll"}, Audience: o.resource(),
		Scope: a.scope, Expires: start.Add(time.Hour), JKT: a.signer.Public().Thumbprint(), Binding: "dpop", Proof: "sha-256:p",
	}
	as := func(session, body string) reply {
		rec := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, o.resource(), strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if session != "" {
			r.Header.Set("Mcp-Session-Id", session)
		}
		r.RemoteAddr = "127.0.0.1:40000"
		o.gateway.ServeAs(rec, r, caller)
		return reply{rec.Code, rec.Header(), rec.Body.String()}
	}
	for _, capabilities := range []string{`{"elicitation":{"form":{},"url":{}}}`, `{"elicitation":{}}`} {
		hello := as("", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"c","version":"1"}}}`)
		id := hello.header.Get("Mcp-Session-Id")
		if id == "" {
			t.Fatalf("no session: %d %s", hello.status, hello.body)
		}
		got := read(t, as(id, toolCall(resetTool, `{}`)))
		if !strings.Contains(capabilities, "url") {
			if got.Error != nil || !got.Result.IsError {
				t.Errorf("a client without URLs gets %+v", got)
			}
			continue
		}
		var data struct {
			Elicitations []struct{ Mode, ElicitationID, URL, Message string } `json:"elicitations"`
		}
		if got.Error == nil || got.Error.Code != -32042 {
			t.Fatalf("it gets %+v", got)
		}
		if err := json.Unmarshal(got.Error.Data, &data, json.MatchCaseInsensitiveNames(true)); err != nil || len(data.Elicitations) != 1 {
			t.Fatalf("%s, %v", got.Error.Data, err)
		}
		e := data.Elicitations[0]
		if e.Mode != "url" || e.Message == "" || e.URL != consoleURL+"/approvals/"+e.ElicitationID || e.ElicitationID != o.pending(t) {
			t.Errorf("it is asked %+v", e)
		}
	}
}
