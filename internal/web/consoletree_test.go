package web_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
)

// sentences gives the class a template, and its tool the fields for it.
const sentences = `
{kind: Class, name: payout, tier: irreversible, approvers: [finance], template: "Pay {{.amount}} to {{.iban}}"}
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: http://127.0.0.1:1/mcp
binding: require
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: read}
  - {name: pay, class: payout, fields: {amount: /amount, iban: /payee/iban}}
`

// ask asks for an approval of a call with these arguments and returns its id and the
// canonical call.
func (s *system) ask(k agentKey, arguments map[string]any, fields map[string]string) (string, []byte) {
	s.t.Helper()
	caller, err := s.verify(k, s.token(k).member("access_token"), "bank")
	if err != nil {
		s.t.Fatal(err)
	}
	call, err := ijson.Marshal(map[string]any{"v": 1, "tool": "bank/pay", "agent": k.agent, "arguments": arguments})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = s.engine.Claim(s.t.Context(), counterfoil.GuardedCall{
		RequestID: counterfoil.NewID("req_"), Caller: caller, Tool: counterfoil.ToolID{Resource: "bank", Tool: "pay"}, ToolDigest: "sha-256:x",
		Class: "payout", Fields: fields, Call: call,
	})
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Code != counterfoil.ApprovalRequired || r.Approval == nil {
		s.t.Fatalf("asking for an approval: %v", err)
	}
	return r.Approval.ID, call
}

var payment = map[string]string{"amount": "100", "iban": "DE02 1203"}

func paymentWith(more map[string]any) map[string]any {
	more["amount"], more["payee"] = "100", map[string]any{"iban": "DE02 1203"}
	return more
}

// TestThePageSaysWhatItLeavesOut: of a call that is too large to be shown the page has
// the fields, says where something is missing and how much, and gives all of it; it
// does not say that this is exactly what runs.
func TestThePageSaysWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	s.apply(sentences)
	k, bo := s.enrol("payroll"), s.loggedIn("bo")
	many := map[string]any{}
	for i := range 25 {
		many[fmt.Sprintf("t%02d", i)] = strings.Repeat("x", 20_000)
	}
	whole, _ := s.ask(k, paymentWith(map[string]any{"memo": strings.Repeat("a letter. ", 1500)}), payment)
	long, call := s.ask(k, paymentWith(map[string]any{"a/b": make([]int, 5000)}), payment)
	name, _ := s.ask(k, paymentWith(map[string]any{strings.Repeat("n", 2000): 1}), payment)
	texts, _ := s.ask(k, paymentWith(many), payment)

	const exact, short = "Exactly what runs, member by member", "Not all of it is shown here"
	page := bo.visit("/approvals/" + whole).body
	if !strings.Contains(page, exact) || strings.Contains(page, short) || strings.Count(page, "a letter. ") < 1500 {
		t.Errorf("a payload of 15 kB is not shown whole: %v, %v", strings.Contains(page, exact), strings.Contains(page, short))
	}
	page = bo.visit("/approvals/" + long).body
	for _, want := range []string{
		short, "What the class goes by", ">/arguments/a~1b</bdi>", "members of 10001 bytes in all", "more members are not shown here",
		">DE02 1203</bdi><i data-seen>", counterfoil.CallDigest(call), `href="/approvals/` + long + `/call"`,
	} {
		if !strings.Contains(strings.ReplaceAll(page, "\u202f", ""), want) {
			t.Errorf("the page has not %q", want)
		}
	}
	if strings.Contains(page, exact) || !strings.Contains(page, `<span class="field">iban</span>`) {
		t.Error("the page says that all is there, or the field is not")
	}
	page = bo.visit("/approvals/" + texts).body
	if !strings.Contains(page, "the rest of a text of 20\u202f000 bytes") || !strings.Contains(page, "parts of 5 other places") {
		t.Error("the page does not name the texts that are cut")
	}
	if page = bo.visit("/approvals/" + name).body; strings.Contains(page, exact) || !strings.Contains(page, "nnn…</bdi></code>: the rest of a name of 2000 bytes") {
		t.Error("the page does not say that a name is cut")
	}
	if a := bo.visit("/approvals/" + long + "/call"); a.status != 200 || a.body != string(call) || !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("all of it is %d, %d bytes", a.status, len(a.body))
	}
	if a := s.loggedIn("dan").visit("/approvals/" + long + "/call"); a.status != 404 {
		t.Errorf("who may not see it gets %d", a.status)
	}
}

// TestALabelIsOfOneField: a member whose name has a slash in it wears no label of a
// field that is elsewhere.
func TestALabelIsOfOneField(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	s.apply(sentences)
	bo := s.loggedIn("bo")
	id, _ := s.ask(s.enrol("payroll"), paymentWith(map[string]any{
		"payee/iban": "GB33", "payee~1iban": "GB34", "~1payee": map[string]any{"iban": "GB35"}, "payee\u200b": map[string]any{"iban": "GB36"},
	}), payment)
	page := bo.visit("/approvals/" + id).body
	labelled := regexp.MustCompile(`([^<>]*)</bdi><span class="field">iban</span>`).FindAllStringSubmatch(page, -1)
	if len(labelled) != 1 || labelled[0][1] != "DE02 1203" || !strings.Contains(page, "GB33") {
		t.Errorf("the label is on %q", labelled)
	}
}

// TestWhatIsSaidOfSignatures: what they were made with, and what is missing as long as
// it may come, and after.
func TestWhatIsSaidOfSignatures(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	bo, cy := s.loggedIn("bo"), s.loggedIn("cy")
	k := s.enrol("payroll")
	half, unused := s.held(k, "100"), s.held(k, "200")
	bo.decide(half, "approve")
	bo.decide(unused, "approve")
	cy.decide(unused, "approve")
	seat := regexp.MustCompile(`(?s)seat-approve.*?for finance · Passkey<`)
	if page := bo.visit("/approvals/" + half).body; !seat.MatchString(page) || !strings.Contains(page, "One of finance<small>not yet") {
		t.Error("the page does not say what bo signed with, or who is missing")
	}
	s.clock.Advance(20 * time.Minute)
	bo.login()
	if page := bo.visit("/approvals/" + half).body; !strings.Contains(page, "Its time was over before") || !strings.Contains(page, "One of finance<small>never came") {
		t.Error("of one that expired half signed the page says something else")
	}
	if page := bo.visit("/approvals/" + unused).body; !strings.Contains(page, "approved and not used in time") || strings.Contains(page, "never came") {
		t.Error("of one that expired approved the page says something else")
	}
}

// TestOpenPagesAreLimited: whoever is nobody asks one question of the store, and so
// many a second.
func TestOpenPagesAreLimited(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	nobody := &browser{s: s}
	const hint = "person enroll-code"
	if a := nobody.visit("/login"); a.status != 200 || !strings.Contains(a.body, hint) {
		t.Errorf("before anybody has a passkey: %d", a.status)
	}
	bo := s.loggedIn("bo")
	if a := nobody.visit("/login"); a.status != 200 || strings.Contains(a.body, hint) {
		t.Errorf("after: %d", a.status)
	}
	limited := 0
	for i := range web.AddressBurst + 10 {
		if a := nobody.visit([]string{"/login", "/enrol"}[i%2]); a.status == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited != 12 {
		t.Errorf("%d were refused", limited)
	}
	if a := bo.visit("/"); a.status != 200 {
		t.Errorf("who is logged in gets %d", a.status)
	}
	s.clock.Advance(time.Minute)
	if a := nobody.visit("/login"); a.status != 200 {
		t.Errorf("a minute later: %d", a.status)
	}
}

// TestLooksPushNothingOut: an agent that asks about its approval a thousand times is
// in its chain and on its page not once, and nothing else is missing there.
func TestLooksPushNothingOut(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k, bo, cy, aud := s.enrol("payroll"), s.loggedIn("bo"), s.loggedIn("cy"), s.loggedIn("aud")
	id := s.held(k, "100")
	look := func(tool string) {
		e := &ledger.Entry{
			Kind: ledger.CallDecided, RequestID: counterfoil.NewID("req_"), Agent: "payroll", Tool: tool, Decision: ledger.Allow, TokenJTI: counterfoil.NewID("tok_"),
			Approval: ledger.Approval{ID: id},
		}
		if err := s.store.Decide(t.Context(), e, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 250 {
		look([]string{"counterfoil/approvals", "bank/tasks/get", "bank/tasks/update"}[i%3])
	}
	bo.decide(id, "approve")
	for range 250 {
		look("bank/tasks/get")
	}
	cy.decide(id, "approve")
	links := func(query string) (steps []string) {
		t.Helper()
		a := aud.get("/api/v1/ledger/chain?" + query)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for _, m := range regexp.MustCompile(`"step":"([a-z.]+)"`).FindAllStringSubmatch(a.body, -1) {
			steps = append(steps, m[1])
		}
		if strings.Contains(a.body, "tasks/") || strings.Contains(a.body, "counterfoil/approvals") {
			t.Errorf("%s: looks are in the chain", query)
		}
		return steps
	}
	want := fmt.Sprint([]string{"requested", "signed", "signed"})
	for range 5 {
		if got := fmt.Sprint(links("approval=" + id)); got != want {
			t.Errorf("the chain is %s", got)
		}
	}
	if page := bo.visit("/approvals/" + id).body; strings.Count(page, "entry ") != 3 {
		t.Errorf("the page has %d entries", strings.Count(page, "entry "))
	}
}

// TestLimitedLooksAreTold: a look over the rate has used its proof up, so that the log
// says before the answer does that there were such, once a second.
func TestLimitedLooksAreTold(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	k := s.enrol("payroll")
	id := s.held(k, "12.50")
	token := s.token(k, field("resource", s.issuer)).member("access_token")
	before, _ := s.store.Head()
	for range web.LookBurst {
		if a := s.lookWith(k, id, token); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if e := s.since(before, ledger.RefusedAggregate); len(e) != 0 {
		t.Errorf("told of what was not refused: %+v", e)
	}
	for range 3 {
		wantProblem(t, s.lookWith(k, id, token), 429, counterfoil.RateLimited)
	}
	if e := s.since(before, ledger.RefusedAggregate); len(e) != 1 || e[0].Agent != "payroll" || e[0].Code != counterfoil.RateLimited || e[0].Decision != ledger.Refuse {
		t.Errorf("entries: %+v", e)
	}
}
