package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
)

// office is who works with approvals: bo and cy approve, ana owns the agent and is
// in the group all the same, dan has no role and no group, aud audits, adm administers.
const office = `
{kind: Person, name: dan, email: dan@example.com}
---
{kind: Person, name: eve, email: eve@example.com, groups: [legal]}
---
{kind: Person, name: aud, email: aud@example.com, roles: [auditor]}
---
{kind: Person, name: adm, email: adm@example.com, roles: [admin]}
`

// newOffice is a system with people who may log in.
func newOffice(t *testing.T, edit ...func(*system)) *system {
	t.Helper()
	s := newSystem(t, edit...)
	s.apply(office)
	return s
}

// A browser is a person's, with a passkey and at times a session.
type browser struct {
	s      *system
	person string
	phone  *passkey.Authenticator
	cookie string // the value of the Cookie header; empty when nobody is logged in
}

// enrolled returns a person's browser once the passkey is enrolled.
func (s *system) enrolled(person string) *browser {
	s.t.Helper()
	b := &browser{s: s, person: person, phone: s.phone()}
	if a := b.enrol(s.personCode(person, false)); a.status != http.StatusCreated {
		s.t.Fatalf("enrolling %s: %d %s", person, a.status, a.body)
	}
	return b
}

// loggedIn is enrolled with a session.
func (s *system) loggedIn(person string) *browser {
	s.t.Helper()
	b := s.enrolled(person)
	b.login()
	return b
}

func (s *system) phone() *passkey.Authenticator {
	host, _, _ := strings.Cut(strings.SplitN(s.manage, "://", 2)[1], ":")
	return passkey.New(host, s.manage)
}

func (s *system) personCode(person string, reset bool) string {
	s.t.Helper()
	a := s.admin("POST", "/api/v1/people/"+person+"/enroll-code", map[string]any{"reset": reset})
	if a.status != 200 {
		s.t.Fatalf("a code for %s: %d %s", person, a.status, a.body)
	}
	return a.member("code")
}

func (b *browser) enrol(code string) answer {
	b.s.t.Helper()
	options := b.post("/api/v1/enrolments/options", map[string]any{"code": code})
	if options.status != 200 {
		return options
	}
	return b.post("/api/v1/enrolments", map[string]any{"code": code, "credential": json.RawMessage(b.phone.Create([]byte(options.body)))})
}

func (b *browser) login() {
	b.s.t.Helper()
	a := b.tryLogin()
	if a.status != http.StatusCreated {
		b.s.t.Fatalf("logging %s in: %d %s", b.person, a.status, a.body)
	}
	set, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	b.cookie = set
}

func (b *browser) tryLogin(changes ...func(*passkey.Ceremony)) answer {
	b.s.t.Helper()
	options := b.post("/api/v1/sessions/options", map[string]any{})
	if options.status != 200 {
		b.s.t.Fatalf("options: %d %s", options.status, options.body)
	}
	return b.post("/api/v1/sessions", map[string]any{"credential": json.RawMessage(b.phone.Get([]byte(options.body), changes...))})
}

// without is the same browser before anybody logged in.
func (b *browser) without() *browser {
	c := *b
	c.cookie = ""
	return &c
}

func (b *browser) get(path string) answer { return b.send(b.request("GET", path, nil)) }

func (b *browser) delete(path string) answer { return b.send(b.request("DELETE", path, nil)) }

func (b *browser) post(path string, body any) answer {
	b.s.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return b.send(b.request("POST", path, text))
}

// request is what a page of the console sends.
func (b *browser) request(method, path string, body []byte) *http.Request {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	r.RemoteAddr = "192.0.2.10:4000"
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if method != "GET" {
		r.Header.Set("Origin", b.s.manage)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if b.cookie != "" {
		r.Header.Set("Cookie", b.cookie)
	}
	return r
}

func (b *browser) send(r *http.Request) answer { return serve(b.s.handlers.Management, r) }

// decide signs a decision, with a challenge of its own.
func (b *browser) decide(id, decision string, changes ...func(*passkey.Ceremony)) answer {
	b.s.t.Helper()
	options := b.post("/api/v1/approvals/"+id+"/challenge", map[string]any{"decision": decision})
	if options.status != 200 {
		return options
	}
	return b.post("/api/v1/approvals/"+id+"/signatures", map[string]any{
		"decision": decision, "credential": json.RawMessage(b.phone.Get([]byte(options.body), changes...)),
	})
}

// state is how an approval stands, as the administration socket says it.
func (s *system) state(id string) string {
	s.t.Helper()
	a := s.admin("GET", "/api/v1/approvals/"+id, nil)
	if a.status != 200 {
		s.t.Fatalf("%s: %d %s", id, a.status, a.body)
	}
	return a.member("state")
}

// held asks for an approval as the gateway does, for a payment of an amount.
func (s *system) held(k agentKey, amount string) string {
	s.t.Helper()
	a := s.token(k)
	caller, err := s.verify(k, a.member("access_token"), "bank")
	if err != nil {
		s.t.Fatal(err)
	}
	call, err := json.Marshal(map[string]any{
		"v": 1, "aud": s.issuer + "/r/bank", "env": "prod", "resource": "bank", "protocol": "mcp", "method": "tools/call", "target": "pay",
		"tool": "bank/pay", "tool_digest": "sha-256:x", "arguments": map[string]any{"amount": amount, "to": "acme"}, "agent": k.agent,
		"absent": []string{"subject", "task"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = s.engine.Claim(s.t.Context(), counterfoil.GuardedCall{
		RequestID: counterfoil.NewID("req_"), Caller: caller, Tool: counterfoil.ToolID{Resource: "bank", Tool: "pay"}, ToolDigest: "sha-256:x",
		Class: "payout", Fields: map[string]string{"amount": amount}, Call: call,
	})
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Code != counterfoil.ApprovalRequired || r.Approval == nil {
		s.t.Fatalf("asking for an approval: %v", err)
	}
	return r.Approval.ID
}

// oneToken is an agent's token for the issuer, the same for many requests: none of
// them is let in with it.
func (s *system) oneToken(k agentKey) http.Header {
	s.t.Helper()
	if s.kept == "" {
		s.kept = s.token(k, field("resource", s.issuer)).member("access_token")
	}
	return http.Header{"Authorization": {"DPoP " + s.kept}}
}

// asActor makes a request one of the administrator at the socket.
func asActor(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), actorKey{}, "uid:0"))
}
