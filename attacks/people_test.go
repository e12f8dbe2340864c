package attacks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// officeManifest is beside the one of every world: dan is a second record of bo, ann
// one of ana, who owns the agents. The shop takes any arguments, the kiosk is the bank
// with a limit.
const officeManifest = `{kind: Person, name: dan, email: B.O+pay@Example.com, groups: [finance-approvers]}
---
{kind: Person, name: ann, email: a.n.a+x@example.COM, groups: [finance-approvers]}
---
{kind: Person, name: eve, email: eve@example.com, groups: [legal]}
---
{kind: Person, name: aud, email: aud@example.com, roles: [auditor]}
---
{kind: Person, name: adm, email: adm@example.com, roles: [admin]}
---
kind: Class
name: order
tier: guarded
approvers: [finance-approvers]
template: "Order {{.what}} for {{.to}}"
---
kind: Class
name: petty
tier: guarded
approvers: [finance-approvers]
template: "Pay {{.amount}} to {{.to}} out of petty cash"
limits: [{sum: amount, per: agent, window: 24h, max: "5000"}]
---
kind: Resource
name: shop
type: mcp
environment: prod
upstream: %[1]s
tools:
  - {name: echo, class: order, fields: {what: /what, to: /to}}
  - {name: once, class: petty, fields: {amount: /amount, to: /to}}
---
kind: Resource
name: kiosk
type: mcp
environment: prod
upstream: %[2]s
tools:
  - {name: pay, class: petty, fields: {amount: /amount, to: /to}}
---
kind: Agent
name: clerk
owner: ana
purpose: buys what is needed
environment: prod
grants: [{tools: [bank/get_balance, bank/pay, till/pay, "shop/*", kiosk/pay]}]
---
kind: Agent
name: rival
owner: ana
environment: prod
grants: [{tools: [bank/get_balance, bank/pay, till/pay, "shop/*", kiosk/pay]}]
`

// An office is a world whose calls wait for people: bo and cy have passkeys and are
// logged in.
type office struct {
	*world
	tap *tap

	clerk, rival *actor
	verger       *actor // speaks for resources; nil where a test has none
	bo, cy       *counterfoiltest.Approver

	root   testing.TB           // the whole test, of which T may be a part
	logins time.Time            // when bo and cy last logged in
	tokens map[string]heldToken // by instance and resource
	calls  int                  // no two calls of an office are equal by chance
}

type heldToken struct {
	compact string
	got     time.Time
}

func newOffice(t *testing.T, options ...counterfoiltest.Option) *office {
	t.Helper()
	o := &office{world: newWorld(t, options...), tap: newTap(t), root: t, tokens: map[string]heldToken{}}
	o.Apply(fmt.Sprintf(officeManifest, o.tap.url, o.BankUpstream()))
	o.clerk, o.rival = o.actor("clerk"), o.actor("rival")
	o.bo, o.cy = o.Approver("bo"), o.Approver("cy")
	o.logins = o.Clock.Now()
	return o
}

// inPart makes a part of a test what failures belong to.
func (o *office) inPart(t *testing.T) (leave func()) {
	outer := o.tap.t
	o.tap.t = t
	leaveWorld := o.in(t)
	return func() {
		o.tap.t = outer
		leaveWorld()
	}
}

// restart restarts the daemon in a part of a test, for the parts after it too.
func (o *office) restart() {
	part := o.T
	defer func() { o.T = part }()
	o.T = o.root
	o.Restart()
	o.logins = time.Time{}
}

// What calls are of.
const (
	atBankPay = "bank/pay"  // irreversible: two people
	atTill    = "till/pay"  // guarded: one
	atShop    = "shop/echo" // guarded, any arguments
	atKiosk   = "kiosk/pay" // guarded, with a limit
	atStall   = "shop/once" // guarded, with that limit, any arguments
	honestPay = `{"amount":%d.%02d,"currency":"EUR","to":"acme"}`
)

// payment returns arguments of a payment that no other call of the office has.
func (o *office) payment() string {
	o.calls++
	return fmt.Sprintf(honestPay, 1+o.calls/100, o.calls%100)
}

// order returns arguments for the shop that no other call of the office has.
func (o *office) order() string {
	o.calls++
	return fmt.Sprintf(`{"to":"acme","what":"box %d"}`, o.calls)
}

// tokenAt returns an actor's token for a resource.
func (o *office) tokenAt(a *actor, resource string) string {
	o.T.Helper()
	key, now := a.instance+" "+resource, o.Clock.Now()
	if had := o.tokens[key]; had.compact != "" && now.Sub(had.got) < 2*time.Minute {
		return had.compact
	}
	o.tokens[key] = heldToken{o.tokenFor(a, resource), now}
	return o.tokens[key].compact
}

// prepare makes an honest call of a tool, given as resource/tool.
func (o *office) prepare(a *actor, tool, arguments string) *call {
	o.T.Helper()
	resource, name, _ := strings.Cut(tool, "/")
	at := o.Issuer() + counterfoil.ResourcePath + resource
	return &call{
		method: http.MethodPost, url: at, body: counterfoiltest.Body(name, arguments),
		header: http.Header{
			"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
			"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {name},
		},
		scheme: "DPoP", token: o.tokenAt(a, at), proof: counterfoiltest.ForgeProof(o.T, a.signer, http.MethodPost, at, o.Clock.Now()),
	}
}

// send makes an honest call, with changes.
func (o *office) send(a *actor, tool, arguments string, edits ...func(*call)) answer {
	o.T.Helper()
	q := o.prepare(a, tool, arguments)
	for _, edit := range edits {
		edit(q)
	}
	return o.sendCall(q)
}

func naming(id string) func(*call) { return func(q *call) { q.header.Set("Counterfoil-Approval", id) } }
func keyed(key string) func(*call) { return func(q *call) { q.header.Set("Idempotency-Key", key) } }

// told returns what an answer says of an approval.
func (a answer) told() counterfoil.ApprovalStatus {
	var wire struct {
		Approval counterfoil.ApprovalStatus `json:"approval"`
		Result   struct {
			Meta map[string]struct {
				Approval counterfoil.ApprovalStatus `json:"approval"`
			} `json:"_meta"`
		} `json:"result"`
	}
	if json.Unmarshal(a.body, &wire) != nil {
		return counterfoil.ApprovalStatus{}
	}
	if s := wire.Result.Meta["counterfoil/refusal"].Approval; s.ID != "" {
		return s
	}
	return wire.Approval
}

// refused is how a decision over MCP is told (docs/errors.md).
func refused(code counterfoil.Code) want { return want{status: 200, code: code} }

// ask makes a call that waits for people and returns the approval.
func (o *office) ask(a *actor, tool, arguments string, edits ...func(*call)) string {
	o.T.Helper()
	got := o.send(a, tool, arguments, edits...)
	id := got.told().ID
	if got.code != counterfoil.ApprovalRequired || id == "" {
		o.T.Fatalf("asking for an approval: %s", got)
	}
	return id
}

// approved asks and lets as many people say yes as are needed.
func (o *office) approved(a *actor, tool, arguments string, edits ...func(*call)) string {
	o.T.Helper()
	id := o.ask(a, tool, arguments, edits...)
	state := o.bo.Countersign(id)
	if tool == atBankPay {
		state = o.cy.Countersign(id)
	}
	if state != counterfoil.StateApproved {
		o.T.Fatalf("after the signatures the approval is %s", state)
	}
	return id
}

// arrived returns how many calls reached any upstream, and how many decisions let a
// call go.
func (o *office) arrived() (reached int) {
	o.tap.mu.Lock()
	defer o.tap.mu.Unlock()
	return o.Reached() + len(o.tap.got)
}

// wantRun wants a call to have run, once; wantNot wants that nothing happened.
func (o *office) wantRun(what string, run func() answer) answer {
	o.T.Helper()
	from, before := o.size(), o.arrived()
	got := run()
	if !got.passed() {
		o.T.Fatalf("%s: %s", what, got)
	}
	if n, allowed := o.arrived()-before, o.allowed(from); n != 1 || allowed != 1 {
		o.T.Fatalf("%s: %d decisions that allow, %d calls at the upstream", what, allowed, n)
	}
	return got
}

func (o *office) wantNot(what string, want want, run func() answer) answer {
	o.T.Helper()
	from, before := o.size(), o.arrived()
	got := run()
	if got.status != want.status || got.code != want.code {
		o.T.Errorf("%s: got %s\nwant %+v", what, got, want)
	}
	signed := 0
	for _, e := range o.since(from) {
		if e.Kind == ledger.ApprovalSigned {
			signed++
		}
	}
	if n, allowed := o.arrived()-before, o.allowed(from); n != 0 || allowed != 0 || signed != 0 {
		o.T.Errorf("%s: refused, and yet %d decisions that allow, %d calls at the upstream, %d signatures", what, allowed, n, signed)
	}
	return got
}

func (o *office) allowed(from int64) (n int) {
	for _, e := range o.since(from) {
		if e.Kind == ledger.CallDecided && e.Decision == ledger.Allow {
			n++
		}
	}
	return n
}

// reconcile holds the record against what happened, the shop's calls too.
func (o *office) reconcile() {
	o.T.Helper()
	o.reconcileBut(0)
}

// reconcileBut is reconcile where the test made that many calls end in the dark.
func (o *office) reconcileBut(unknown int) {
	o.T.Helper()
	o.CheckLedgerBut(unknown)
	decided := map[int64]bool{}
	forwarded := 0
	spent := map[string]int64{} // by approval, the entry that used it
	for _, e := range o.Entries() {
		switch {
		case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow && (e.Tier == "guarded" || e.Tier == "irreversible"):
			if before, twice := spent[e.Approval.ID]; twice || e.Approval.ID == "" {
				o.T.Errorf("entry %d uses approval %q, entry %d did", e.Index, e.Approval.ID, before)
			}
			spent[e.Approval.ID] = e.Index
			decided[e.Index] = e.Resource == "shop"
		case e.Kind == ledger.CallFinished && decided[e.Of] && e.Outcome != "not_forwarded": // the shop is always there
			forwarded++
		}
	}
	if n := len(o.tap.seen()); n != forwarded {
		o.T.Errorf("%d calls reached the shop, %d were decided and ended", n, forwarded)
	}
}

// A visit is a request to the management listener before it is sent.
type visit struct {
	method, path, body string
	as                 *counterfoiltest.Approver // nil: nobody
}

// visit sends a request as a page of the console does, with changes.
func (o *office) visit(v visit, edits ...func(*http.Request)) answer {
	o.T.Helper()
	return o.do(o.asking(v, edits...))
}

// asking makes the request.
func (o *office) asking(v visit, edits ...func(*http.Request)) *http.Request {
	o.T.Helper()
	r, err := http.NewRequestWithContext(o.T.Context(), v.method, o.ManagementURL()+v.path, strings.NewReader(v.body))
	if err != nil {
		o.T.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if v.method != http.MethodGet {
		r.Header.Set("Origin", o.ManagementURL())
	}
	if v.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if v.as != nil {
		for _, c := range v.as.Cookies() {
			r.AddCookie(c)
		}
	}
	for _, edit := range edits {
		edit(r)
	}
	return r
}

// page reads a page of the console.
func (o *office) page(as *counterfoiltest.Approver, path string) string {
	o.T.Helper()
	got := o.visit(visit{http.MethodGet, path, "", as}, func(r *http.Request) { r.Header.Set("Accept", "text/html") })
	if got.status != http.StatusOK {
		o.T.Fatalf("the page %s: %s", path, got)
	}
	return string(got.body)
}

// challenge begins a signature and returns the options.
func (o *office) challenge(as *counterfoiltest.Approver, id, decision, reason string) []byte {
	o.T.Helper()
	got := o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/challenge", decisionBody(decision, reason, nil), as})
	if got.status != http.StatusOK {
		o.T.Fatalf("a challenge for %s: %s", as.Name, got)
	}
	return got.body
}

// sign sends a signature.
func (o *office) sign(as *counterfoiltest.Approver, id, decision, reason string, credential []byte) answer {
	o.T.Helper()
	return o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/signatures", decisionBody(decision, reason, credential), as})
}

func decisionBody(decision, reason string, assertion []byte) string {
	in := map[string]any{"decision": decision}
	if reason != "" {
		in["reason"] = reason
	}
	if assertion != nil {
		in["credential"] = json.RawMessage(assertion)
	}
	b, err := json.Marshal(in)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// device is an authenticator at the console's page.
func (o *office) device() *passkey.Authenticator {
	o.T.Helper()
	u, err := url.Parse(o.ManagementURL())
	if err != nil {
		o.T.Fatal(err)
	}
	return passkey.New(u.Hostname(), o.ManagementURL())
}

// signers are the people whose yes an approval has.
func (o *office) signers(id string) []string {
	o.T.Helper()
	var names []string
	for _, s := range o.Approval(id).Signatures {
		names = append(names, s.Person)
	}
	slices.Sort(names)
	return names
}

// again logs people in anew, whose sessions a test's clock has ended.
func (o *office) again() {
	o.T.Helper()
	o.bo.Login()
	o.cy.Login()
	o.logins = o.Clock.Now()
}

// awake is again where it is time for that.
func (o *office) awake() {
	o.T.Helper()
	if o.Clock.Now().Sub(o.logins) > 10*time.Minute {
		o.again()
	}
}
