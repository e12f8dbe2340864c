package attacks

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// What people are shown, and where they can click: AP10, AP12.

// orderClass is the shop's class as manifests declare it.
var orderClass = map[string]any{
	"name": "order", "tier": "guarded", "approvers": []any{[]any{"finance-approvers"}}, "template": "Order {{.what}} for {{.to}}",
}

// TestPayloadsThatLookLikeOthers is AP12: what hides or turns text is shown as what it
// is, nothing of it is markup, and what is signed is the text itself. A second judge
// computes every digest again.
func TestPayloadsThatLookLikeOthers(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const mebibyte = 1 << 20
	long := strings.Repeat("long ", mebibyte/5)
	for _, c := range []struct {
		name      string
		arguments map[string]any
		words     string
		shown     []string // on the page
		hidden    []string // not on the page, as they are
	}{
		{name: "the control", arguments: map[string]any{"to": "acme", "what": "100 boxes"}, words: "They ran out.",
			shown: []string{"100 boxes", "They ran out."}, hidden: []string{`class="point"`, `class="alike"`, "only the beginning"}},
		{name: "AP12 text that is turned", arguments: map[string]any{"to": "acme", "what": "boxes \u202e001 rof\u202c"},
			shown: []string{"U+202E", "right-to-left override", "U+202C"}, hidden: []string{"\u202e", "\u202c"}},
		{name: "AP12 isolates and marks", arguments: map[string]any{"to": "\u2066acme\u2069\u200f\u061c", "what": "boxes"},
			shown: []string{"U+2066", "U+2069", "U+200F", "U+061C"}, hidden: []string{"\u2066", "\u2069", "\u200f", "\u061c"}},
		{name: "AP12 text without a width", arguments: map[string]any{"to": "ac\u200bme", "what": "bo\u2060xes\ufeff\u00ad\u3164"},
			shown: []string{"U+200B", "U+2060", "U+FEFF", "U+00AD", "U+3164"}, hidden: []string{"\u200b", "\u2060", "\ufeff", "\u00ad", "\u3164"}},
		{name: "AP12 names without a width", arguments: map[string]any{"to": "acme", "what": "boxes", "amo\u200bunt": 100, "a\u202eb": map[string]any{"x\u200d": 1}},
			shown: []string{"U+200B", "U+202E", "U+200D"}, hidden: []string{"\u200b", "\u202e", "\u200d"}},
		{name: "AP12 an account that looks like another", arguments: map[string]any{"to": "\u0430cme", "what": "PayPa\u04cf"},
			shown: []string{`class="alike"`, "\u0430cme", "not what it looks like"}, hidden: nil},
		{name: "AP12 lines and controls", arguments: map[string]any{"to": "acme\nApproved by bo\r\n", "what": "boxes\u0000\u001b[2J\u0085\u2028"},
			shown: []string{"U+000A", "U+000D", "U+0000", "U+001B", "U+0085", "U+2028"}, hidden: []string{"\x00", "\x1b", "\u0085", "\u2028", "acme\nApproved"}},
		{name: "AP12 text that nobody sees", arguments: map[string]any{"to": "acme", "what": "boxes" + tags("and a yacht")},
			shown: []string{"U+E0061"}, hidden: []string{tags("a")}},
		{name: "AP12 markup", arguments: map[string]any{"to": `"><script>alert(1)</script>`, "what": `<img src=x onerror=alert(1)> {{.to}} &lt;`, `<b onclick="x()">`: `</article><button id="approve">`},
			words:  `<a href="https://evil.example">Approve here</a> </blockquote><form action=/logout>`,
			shown:  []string{"&lt;script&gt;", "&lt;img src=x", "{{.to}}", "&amp;lt;", "&lt;/article&gt;", "&lt;a href="},
			hidden: []string{"<script>alert", "<img", "<b onclick", `</article><button`, "<a href=\"https://evil", "<form action=/logout>", "onerror=alert(1)>"}},
		{name: "AP12 words of the agent's that hide", arguments: map[string]any{"to": "acme", "what": "boxes"}, words: "\u202eotua devorppa \u200bsi siht",
			shown: []string{"U+202E", "U+200B"}, hidden: []string{"\u202e", "\u200b"}},
		{name: "AP12 many members", arguments: manyMembers(), shown: []string{"more members are not shown here"}},
		{name: "AP12 a mebibyte", arguments: map[string]any{"to": long + "and evil", "what": "boxes", "note": long[:20000] + "and a yacht"},
			shown:  []string{"bytes in all", hashed("", long+"and evil"), "only the beginning of 20\u202f011", hashed("", long[:20000]+"and a yacht")},
			hidden: []string{"and evil", "and a yacht"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer o.inPart(t)()
			o.again()
			text, err := json.Marshal(c.arguments)
			if err != nil {
				t.Fatal(err)
			}
			worded := func(q *call) { q.body = speaking(q.body, c.words) }
			id := o.ask(o.clerk, atShop, string(text), worded)
			page := o.page(o.bo, "/approvals/"+id)
			o.wantShown("the page", page, id, c.shown, c.hidden)
			if len(page) > 2<<20 {
				t.Errorf("the page has %d bytes", len(page))
			}
			if inbox := o.page(o.bo, "/"); !strings.Contains(inbox, id) {
				t.Errorf("the inbox does not have it")
			} else {
				o.wantShown("the inbox", inbox, id, nil, c.hidden)
			}
			if words := strings.Index(page, `class="words"`); c.words != "" && words < strings.Index(page, `id="payload-section"`) {
				t.Errorf("the agent's words are not after the payload")
			}
			if state := o.bo.Countersign(id); state != counterfoil.StateApproved {
				t.Fatalf("the approval is %s", state)
			}
			n := o.judge(verdict{id: id, agent: "clerk", tool: atShop, arguments: string(text), class: orderClass})
			if n != 1 {
				t.Errorf("%d signatures", n)
			}
			o.wantRun("the call", func() answer { return o.send(o.clerk, atShop, string(text), worded) })
			if got, want := o.tap.got[len(o.tap.got)-1].args, canonicalJSON(t, parsedJSON(t, text)); got != want {
				t.Errorf("the upstream got %.200s, signed was %.200s", got, want)
			}
			o.wantShown("the page of what was decided", o.page(o.bo, "/decided/"+id), id, nil, c.hidden)
		})
	}
	o.reconcile()
}

// TestWhatTwoPeopleSign: with two signatures and a reason too the second judge comes to
// the same digests, and the second signature is over the first (AP12).
func TestWhatTwoPeopleSign(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	arguments := o.payment()
	id := o.ask(o.clerk, atBankPay, arguments)
	const reason = "as agreed with \"acme\" <é\u202e>"
	for _, sign := range []func() counterfoil.ApprovalState{
		func() counterfoil.ApprovalState { return o.cy.Decide(id, counterfoil.DecisionApprove, reason).State },
		func() counterfoil.ApprovalState { return o.bo.Countersign(id) },
	} {
		sign()
	}
	class := map[string]any{
		"name": "payout", "tier": "irreversible", "approvers": []any{[]any{"finance-approvers"}}, "template": "Pay {{.amount}} {{.currency}} to {{.to}}",
	}
	v := verdict{id: id, agent: "clerk", tool: atBankPay, arguments: arguments, class: class, reasons: map[string]string{"cy": reason}}
	if n := o.judge(v); n != 2 || o.Approval(id).State != counterfoil.StateApproved {
		t.Errorf("%d signatures, and it is %s", n, o.Approval(id).State)
	}
	o.wantRun("the call", func() answer { return o.send(o.clerk, atBankPay, arguments) })

	// A no is signed as such.
	v.arguments = o.payment()
	v.id = o.ask(o.clerk, atBankPay, v.arguments)
	o.bo.Countersign(v.id)
	if state := o.cy.Deny(v.id, reason); state != counterfoil.StateDenied || o.judge(v) != 2 {
		t.Errorf("a yes and a no: it is %s", state)
	}
	o.wantNot("the call that was denied", refused(counterfoil.ApprovalDenied), func() answer { return o.send(o.clerk, atBankPay, v.arguments) })
	o.reconcile()
}

// wantShown looks for texts in a page.
func (o *office) wantShown(what, page, id string, shown, hidden []string) {
	o.T.Helper()
	for _, s := range shown {
		if !strings.Contains(page, s) && !strings.Contains(html.UnescapeString(page), s) {
			o.T.Errorf("%s of %s does not show %.80q", what, id, s)
		}
	}
	for _, s := range hidden {
		if strings.Contains(page, s) {
			at := strings.Index(page, s)
			o.T.Errorf("%s of %s has %.80q as it is: …%.200q", what, id, s, page[max(0, at-80):])
		}
	}
}

// tags writes ASCII in characters that no font shows.
func tags(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(0xe0000 + r)
	}
	return b.String()
}

// manyMembers has more members than a page shows.
func manyMembers() map[string]any {
	m := map[string]any{"to": "acme", "what": "boxes"}
	for i := range 3000 {
		m[fmt.Sprintf("m%04d", i)] = i
	}
	return m
}

// speaking puts the agent's own words into a call.
func speaking(body, words string) string {
	if words == "" {
		return body
	}
	text, err := json.Marshal(words)
	if err != nil {
		panic(err)
	}
	return strings.Replace(body, `"_meta":{`, `"_meta":{"counterfoil/reason":`+string(text)+`,`, 1)
}

// TestOtherSitesDecideNothing is AP10: what a page of somebody else's can make a
// browser send is refused, with the session and a good assertion in it, and nothing of
// ours is shown in a frame.
func TestOtherSitesDecideNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	adm := o.Approver("adm")
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	drop := func(edit func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) { // of a browser that says nothing of where it comes from
			r.Header.Del("Origin")
			r.Header.Del("Sec-Fetch-Site")
			edit(r)
		}
	}
	foreign := want{status: 403, code: counterfoil.OriginForbidden}
	for _, c := range []struct {
		name string
		edit func(*http.Request)
	}{
		{"another site", header("Sec-Fetch-Site", "cross-site")},
		{"a sibling", header("Sec-Fetch-Site", "same-site")},
		{"nobody's page", header("Sec-Fetch-Site", "none")},
		{"another origin", header("Origin", "https://evil.example")},
		{"a frame without an origin", header("Origin", "null")},
		{"another port", header("Origin", "http://localhost:1")},
		{"the public listener", header("Origin", o.Issuer())},
		{"a form's text", drop(header("Content-Type", "text/plain"))},
		{"a form's fields", drop(header("Content-Type", "application/x-www-form-urlencoded"))},
		{"a form's file", drop(header("Content-Type", "multipart/form-data; boundary=x"))},
		{"a name that was rebound", func(r *http.Request) { r.Host = "evil.example" }},
		{"another name of this machine", func(r *http.Request) { r.Host = strings.Replace(r.Host, "localhost", "127.0.0.1", 1) }},
	} {
		forgery{row: "AP10", name: "the signature from " + c.name, want: foreign, send: func(o *office, id string) answer {
			assertion := o.bo.Device.Get(o.challenge(o.bo, id, counterfoil.DecisionApprove, ""))
			body := decisionBody(counterfoil.DecisionApprove, "", assertion)
			return o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/signatures", body, o.bo}, c.edit)
		}}.run(t, o)
		id := o.ask(o.clerk, atTill, o.payment())
		for _, v := range []visit{
			{http.MethodPost, "/api/v1/approvals/" + id + "/challenge", `{"decision":"approve"}`, o.bo},
			{http.MethodPost, "/api/v1/approvals/" + id + "/cancel", `{"reason":"x"}`, adm},
			{http.MethodPost, "/api/v1/agents/rival/suspend", `{"reason":"x"}`, adm},
			{http.MethodPost, "/api/v1/sessions/options", `{}`, nil},
			{http.MethodPost, "/api/v1/enrolments/options", `{"code":"x"}`, nil},
		} {
			foreign.check(t, o.visit(v, c.edit))
		}
		if a := o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/cancel", `{"reason":"x"}`, adm}); !a.passed() {
			t.Errorf("our own page: %s", a)
		}
	}
	// A form of the console without the session's token.
	id := o.ask(o.clerk, atTill, o.payment())
	form := func(fields string) answer {
		return o.visit(visit{http.MethodPost, "/approvals/" + id + "/cancel", fields, adm}, header("Content-Type", "application/x-www-form-urlencoded"))
	}
	for _, fields := range []string{"reason=x", "reason=x&csrf=", "reason=x&csrf=AAAA", "reason=x&csrf=" + strings.Repeat("A", 43)} {
		if a := form(fields); a.status/100 != 4 || o.Approval(id).State != counterfoil.StatePending {
			t.Errorf("AP10 the form %s: %s", fields, a)
		}
	}
	page := o.page(adm, "/approvals/"+id)
	_, rest, _ := strings.Cut(page, `name="csrf" value="`)
	token, _, _ := strings.Cut(rest, `"`)
	if a := form("reason=x&csrf=" + token); a.status != http.StatusSeeOther || o.Approval(id).State != counterfoil.StateCancelled {
		t.Errorf("the console's own form: %s", a)
	}
	o.wantUnframed(id, adm.Name)
	o.reconcile()
}

// wantUnframed wants that every page says that it is shown in no frame, and is not to
// one that asks.
func (o *office) wantUnframed(id, person string) {
	o.T.Helper()
	for _, path := range []string{"/", "/login", "/enrol", "/decided", "/approvals/" + id, "/nothing", "/api/v1/approvals/" + id} {
		v := visit{http.MethodGet, path, "", o.bo}
		a := o.visit(v, func(r *http.Request) { r.Header.Set("Accept", "text/html") })
		policy := a.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") ||
			a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			o.T.Errorf("AP10 %s may be framed: %v", path, a.header)
		}
		if strings.HasPrefix(path, "/api/") {
			continue
		}
		for _, dest := range []string{"iframe", "frame", "object", "embed"} {
			framed := o.visit(v, func(r *http.Request) {
				r.Header.Set("Accept", "text/html")
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				r.Header.Set("Sec-Fetch-Dest", dest)
				r.Header.Set("Sec-Fetch-Mode", "navigate")
			})
			if framed.status == http.StatusOK || strings.Contains(string(framed.body), "acme") {
				o.T.Errorf("AP10 %s in an %s: %s", path, dest, framed)
			}
		}
	}
}
