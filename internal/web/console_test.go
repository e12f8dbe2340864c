package web_test

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

// visit asks for a page as a browser does whose person typed the address.
func (b *browser) visit(path string, edits ...func(http.Header)) answer {
	r := b.request("GET", path, nil)
	r.Header.Set("Sec-Fetch-Site", "none")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Accept", "text/html,*/*")
	for _, e := range edits {
		e(r.Header)
	}
	return b.send(r)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([A-Za-z0-9_-]+)"`)

// token is the session's, out of a form on a page.
func (b *browser) token() string {
	b.s.t.Helper()
	m := csrfField.FindStringSubmatch(b.visit("/").body)
	if m == nil {
		b.s.t.Fatalf("no page of %s has a form", b.person)
	}
	return m[1]
}

// submit sends a form of the console.
func (b *browser) submit(path string, form url.Values, edits ...func(*http.Request)) answer {
	r := b.request("POST", path, []byte(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	for _, e := range edits {
		e(r)
	}
	return b.send(r)
}

// TestPagesAreForWhomTheyAre: the role decides, and whoever is not logged in is sent
// to log in, and back.
func TestPagesAreForWhomTheyAre(t *testing.T) {
	s := newOffice(t)
	id := s.held(s.enrol("payroll"), "100")
	revoked := s.revocation()
	people := map[string]*browser{"dan": s.loggedIn("dan"), "bo": s.loggedIn("bo"), "aud": s.loggedIn("aud"), "adm": s.loggedIn("adm")}
	nobody := people["dan"].without()
	const (
		all     = "dan bo aud adm"
		readers = "aud adm"
	)
	for path, who := range map[string]string{
		"/": all, "/decided": all, "/decided?which=refused": all,
		"/approvals/" + id: "bo aud adm", "/decided/" + id: "bo aud adm", "/approvals/" + id + "/proof": "bo aud adm",
		"/approvals/" + id + "/call":                "bo aud adm",
		"/approvals/apr_aaaaaaaaaaaaaaaaaaaaaaaaaa": "",
		"/agents": readers, "/agents/payroll": readers, "/agents/nobody": "",
		"/agents/payroll/suspend": "adm", "/agents/payroll/offboard": "adm",
		"/people": readers, "/ledger": readers, "/ledger?agent=payroll&kind=call.decided": readers, "/ledger/0": readers, "/ledger/0/receipt": readers,
		"/ledger/999999": "", "/ledger/-1": "", "/ledger?since=yesterday": "", "/ledger?before=0": "", "/health": readers,
		"/nothing": "", "/approvals": "", "/resources": readers, "/revocations": readers, "/revocations/" + revoked: readers, "/revocations/0": "",
		"/revoke?kind=agent&id=payroll": "adm", "/revoke": "", "/revoke?kind=agent": "", "/revoke?kind=person&id=bo": "adm",
	} {
		for name, b := range people {
			a := b.visit(path)
			allowed := strings.Contains(" "+who+" ", " "+name+" ")
			if allowed != (a.status == 200) || !allowed && (a.status < 400 || a.status >= 500) {
				t.Errorf("%s for %s: %d, allowed: %v\n%.400s", path, name, a.status, allowed, a.body)
			}
			if !allowed && (strings.HasSuffix(path, "suspend") || strings.HasPrefix(path, "/revoke")) && strings.Contains(a.body, "takes away") {
				t.Errorf("%s shows %s what it refuses", path, name)
			}
		}
		a := nobody.visit(path)
		file := strings.HasSuffix(path, "/proof") || strings.HasSuffix(path, "/call") || strings.HasSuffix(path, "/receipt")
		if file && a.status != 401 || !file && (a.status != 303 || !strings.HasPrefix(a.header.Get("Location"), "/login")) {
			t.Errorf("%s for nobody: %d %s", path, a.status, a.header.Get("Location"))
		}
	}
	if got := nobody.visit("/approvals/" + id).header.Get("Location"); got != "/login?next="+url.QueryEscape("/approvals/"+id) {
		t.Errorf("the way back is %s", got)
	}
	for _, path := range []string{"/login", "/enrol", "/login?next=/agents"} {
		if a := nobody.visit(path); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	// An address of another site is no way back.
	for _, next := range []string{"//evil.example", "https://evil.example", `/\evil.example`, "javascript:alert(1)", "/\tevil"} {
		if a := nobody.visit("/login?next=" + url.QueryEscape(next)); !strings.Contains(a.body, `data-next="/"`) {
			t.Errorf("next %q is taken", next)
		}
	}
}

// TestPagesKeepTheirPolicy: no page has anything that the policy would have to be
// weakened for, and every page and refusal is sent with it.
func TestPagesKeepTheirPolicy(t *testing.T) {
	s := newOffice(t)
	id := s.held(s.enrol("payroll"), "100")
	adm, bo := s.loggedIn("adm"), s.loggedIn("bo")
	inline := regexp.MustCompile(`(?i)<script(?:[^>]*)>[^<]|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:|(?:src|href|action)="(?:https?:)?//`)
	assets := regexp.MustCompile(`(?:src|href)="(` + console.AssetPath + `[^"]+)"`)
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
	for _, path := range []string{
		"/", "/approvals/" + id, "/decided", "/agents", "/agents/payroll", "/agents/payroll/offboard", "/people", "/ledger", "/ledger/0", "/health", "/login", "/enrol", "/nothing",
		"/resources", "/revocations", "/revocations/" + s.revocation(), "/revoke?kind=person&id=bo",
	} {
		b := adm
		if path == "/" || strings.HasPrefix(path, "/approvals/") {
			b = bo
		}
		a := b.visit(path)
		if got := a.header.Get("Content-Security-Policy"); got != policy {
			t.Errorf("%s has the policy %s", path, got)
		}
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
			"Cross-Origin-Opener-Policy": "same-origin", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if m := inline.FindString(a.body); m != "" {
			t.Errorf("%s has %q", path, m)
		}
		for _, m := range assets.FindAllStringSubmatch(a.body, -1) {
			got := b.without().get(m[1])
			if got.status != 200 || got.header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
				t.Errorf("%s: %d %s", m[1], got.status, got.header.Get("Cache-Control"))
			}
		}
	}
	for _, path := range []string{console.AssetPath + "console.css", console.AssetPath + "console.000000000000.js", console.AssetPath + "../frame.html"} {
		if a := adm.get(path); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

// TestPagesAreNotEmbedded: AP10. What a browser says about why it asks is believed
// where it is against the asker.
func TestPagesAreNotEmbedded(t *testing.T) {
	s := newOffice(t)
	bo := s.loggedIn("bo")
	set := func(site, mode, dest string) func(http.Header) {
		return func(h http.Header) {
			h.Set("Sec-Fetch-Site", site)
			h.Set("Sec-Fetch-Mode", mode)
			h.Set("Sec-Fetch-Dest", dest)
		}
	}
	for _, tt := range []struct {
		name, site, mode, dest string
		want                   int
	}{
		{"typed", "none", "navigate", "document", 200},
		{"a link of ours", "same-origin", "navigate", "document", 200},
		{"a link on another site", "cross-site", "navigate", "document", 200},
		{"a frame", "cross-site", "navigate", "iframe", 403},
		{"a frame of our own", "same-origin", "navigate", "iframe", 403},
		{"an object", "same-site", "navigate", "object", 403},
		{"a script of another port", "same-site", "cors", "empty", 403},
		{"an image", "cross-site", "no-cors", "image", 403},
	} {
		a := bo.visit("/", set(tt.site, tt.mode, tt.dest))
		if a.status != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, a.status, tt.want)
		}
	}
	// A link on another site comes without the cookie: the browser asks once more by
	// itself, and then as one of ours.
	a := bo.without().visit("/decided", set("cross-site", "navigate", "document"))
	if a.status != 200 || a.header.Get("Refresh") != "0; url=/decided" {
		t.Errorf("a link on another site: %d %q", a.status, a.header.Get("Refresh"))
	}
}

// TestForms: AP10. A form acts for a person only where it comes from one of our pages
// with the session's own token, and has its fields once each.
func TestForms(t *testing.T) {
	s := newOffice(t)
	k := s.enrol("payroll")
	id := s.held(k, "100")
	adm, aud := s.loggedIn("adm"), s.loggedIn("aud")
	token := adm.token()
	with := func(pairs ...string) url.Values {
		v := url.Values{"csrf": {token}}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	const suspend = "/agents/payroll/suspend"
	good := with("reason", "on holiday")
	for _, tt := range []struct {
		name string
		got  answer
		want int
	}{
		{"another port of this host", adm.submit(suspend, good, header("Sec-Fetch-Site", "same-site"), header("Origin", "http://localhost:1")), 403},
		{"another site", adm.submit(suspend, good, header("Sec-Fetch-Site", "cross-site")), 403},
		{"a page without an origin", adm.submit(suspend, good, header("Origin", "null")), 403},
		{"an origin that only begins like ours", adm.submit(suspend, good, header("Origin", s.manage+".evil.example")), 403},
		{"a typed address", adm.submit(suspend, good, header("Sec-Fetch-Site", "none")), 403},
		{"no token", adm.submit(suspend, url.Values{"reason": {"x"}}), 400},
		{"another session's token", adm.submit(suspend, url.Values{"reason": {"x"}, "csrf": {aud.token()}}), 403},
		{"a token that is longer", adm.submit(suspend, url.Values{"reason": {"x"}, "csrf": {token + "A"}}), 403},
		{"nobody", adm.without().submit(suspend, good), 401},
		{"an auditor", aud.submit(suspend, url.Values{"reason": {"x"}, "csrf": {aud.token()}}), 403},
		{"no reason", adm.submit(suspend, with()), 400},
		{"a reason of spaces", adm.submit(suspend, with("reason", "  ")), 400},
		{"two reasons", adm.submit(suspend, with("reason", "a", "reason", "b")), 400},
		{"a field too many", adm.submit(suspend, with("reason", "a", "role", "admin")), 400},
		{"a query", adm.submit(suspend+"?csrf="+token, good), 400},
		{"text/plain", adm.submit(suspend, good, header("Content-Type", "text/plain")), 400},
		{"multipart", adm.submit(suspend, good, header("Content-Type", "multipart/form-data; boundary=x")), 400},
		{"the wrong name", adm.submit("/agents/payroll/offboard", with("reason", "a", "name", "payrol")), 400},
		{"an outcome that is none", adm.submit("/approvals/"+id+"/reconcile", with("reason", "a", "happened", "maybe")), 400},
		{"an outcome of what has not run", adm.submit("/approvals/"+id+"/reconcile", with("reason", "a", "happened", "yes")), 403},
		{"an agent that is not there", adm.submit("/agents/nobody/suspend", good), 404},
	} {
		if tt.got.status != tt.want || tt.got.header.Get("Location") != "" {
			t.Errorf("%s: %d, want %d\n%.300s", tt.name, tt.got.status, tt.want, tt.got.body)
		}
	}
	if n := len(s.entries(ledger.AgentSuspended)) + len(s.entries(ledger.AgentOffboarded)) + len(s.entries(ledger.ApprovalClosed)); n != 0 {
		t.Fatalf("%d refused forms did something", n)
	}

	for _, tt := range []struct{ name, path, to string }{
		{"cancel", "/approvals/" + id + "/cancel", "/approvals/" + id + "?done=cancelled"},
		{"suspend", suspend, "/revocations/#?done=suspended"},
		{"offboard", "/agents/payroll/offboard", "/revocations/#?done=offboarded"},
		{"log out", "/logout", "/login"},
	} {
		form := with("reason", "on holiday")
		switch tt.name {
		case "offboard":
			form.Set("name", "payroll")
		case "log out":
			form = with()
		}
		a := adm.submit(tt.path, form)
		to := regexp.MustCompile(`/\d+\?`).ReplaceAllString(a.header.Get("Location"), "/#?")
		if a.status != http.StatusSeeOther || to != tt.to {
			t.Errorf("%s: %d to %q\n%.300s", tt.name, a.status, a.header.Get("Location"), a.body)
		}
	}
	if a := adm.visit("/"); a.status != 303 {
		t.Errorf("after logging out: %d", a.status)
	}
	for _, kind := range []ledger.Kind{ledger.ApprovalClosed, ledger.AgentSuspended, ledger.AgentOffboarded, ledger.SessionClosed} {
		if e := s.entries(kind); len(e) != 1 || e[0].Actor != "adm" {
			t.Errorf("%s: %d entries", kind, len(e))
		}
	}
}

// TestOpenPageKeepsNoSession: what a page asks by itself does not put off the end of
// the session; what a person asks does.
func TestOpenPageKeepsNoSession(t *testing.T) {
	s := newOffice(t)
	id := s.held(s.enrol("payroll"), "100")
	for _, tt := range []struct {
		path  string
		lives bool
	}{{"/live", false}, {"/live?approval=" + id, false}, {"/", true}} {
		bo := s.loggedIn("bo")
		for range 2 {
			s.clock.Advance(9 * time.Minute)
			bo.get(tt.path)
		}
		if got := bo.get("/live").status == 200; got != tt.lives {
			t.Errorf("a session that is kept open by %s lives: %v", tt.path, got)
		}
	}
	// What is live says what waits, and only to whom it is for.
	fresh := s.held(s.enrol("payroll"), "7")
	bo, dan := s.loggedIn("bo"), s.loggedIn("dan")
	if a := bo.get("/live"); !strings.Contains(a.body, fresh) {
		t.Errorf("live says %s", a.body)
	}
	if a := dan.get("/live"); strings.Contains(a.body, fresh) {
		t.Errorf("live says to somebody else %s", a.body)
	}
	if a := dan.get("/live?approval=" + fresh); a.status != 404 {
		t.Errorf("live of somebody else's approval: %d", a.status)
	}
	if a := bo.get("/live?approval=" + fresh); a.member("state") != "pending/0" {
		t.Errorf("live says %s", a.body)
	}
}

// TestProof: what is downloaded is enough to check the signatures with the log's key
// alone.
func TestProof(t *testing.T) {
	s := newOffice(t)
	id := s.held(s.enrol("payroll"), "100")
	bo, cy := s.loggedIn("bo"), s.loggedIn("cy")
	for _, b := range []*browser{bo, cy} {
		if a := b.decide(id, counterfoil.DecisionApprove); a.status != 200 {
			t.Fatalf("signing: %d %s", a.status, a.body)
		}
	}
	a := bo.visit("/approvals/" + id + "/proof")
	if got := a.header.Get("Content-Disposition"); got != `attachment; filename="`+id+`.proof.json"` {
		t.Errorf("the file is %s", got)
	}
	opened := func(r ledger.Receipt) (*ledger.Entry, error) { return r.Verify(s.opened.opt.Verifier) }
	read := func(text string) approval.Proof {
		var p approval.Proof
		if err := ijson.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	proof := read(a.body)
	report, err := proof.Verify(opened)
	if err != nil || report.Signatures != 2 || report.Passkeys != 2 {
		t.Fatalf("the proof shows %+v %v", report, err)
	}
	for name, change := range map[string]func(*approval.Proof){
		"another amount": func(p *approval.Proof) { p.Call = []byte(strings.Replace(string(p.Call), `"100"`, `"900"`, 1)) },
		"another sentence": func(p *approval.Proof) {
			p.Rendering = []byte(strings.Replace(string(p.Rendering), "bank/pay", "bank/get", 1))
		},
		"no sentence": func(p *approval.Proof) { p.Rendering = nil },
		"another statement": func(p *approval.Proof) {
			p.Statement = []byte(strings.Replace(string(p.Statement), `"required":2`, `"required":1`, 1))
		},
		"another approval":       func(p *approval.Proof) { p.Approval = "apr_other" },
		"another format":         func(p *approval.Proof) { p.Format = "counterfoil/approval-proof/2" },
		"no receipts":            func(p *approval.Proof) { p.Receipts = nil },
		"receipts out of order":  func(p *approval.Proof) { slices.Reverse(p.Receipts) },
		"a receipt twice":        func(p *approval.Proof) { p.Receipts = append(p.Receipts, p.Receipts[len(p.Receipts)-1]) },
		"a passkey not enrolled": func(p *approval.Proof) { p.Receipts = p.Receipts[1:] },
		"an entry that was changed": func(p *approval.Proof) {
			last := &p.Receipts[len(p.Receipts)-1]
			last.Entry = []byte(strings.Replace(string(last.Entry), "cy", "bo", 1))
		},
	} {
		p := read(a.body)
		change(&p)
		if _, err := p.Verify(opened); err == nil {
			t.Errorf("a proof with %s verifies", name)
		}
	}
	if bare := read(a.body); true {
		bare.Statement, bare.Rendering, bare.Call = nil, nil, nil // erased by now
		if _, err := bare.Verify(opened); err != nil {
			t.Errorf("without what was erased it shows nothing: %v", err)
		}
	}
	if !strings.Contains(bo.visit("/approvals/"+id).body, "Verify offline") {
		t.Error("the page does not lead to it")
	}
}

// TestApprovalPageOrder: console.md, Pages: what the operator says comes first, what
// the agent says last.
func TestApprovalPageOrder(t *testing.T) {
	s := newOffice(t)
	id := s.held(s.enrol("payroll"), "100")
	body := s.loggedIn("bo").visit("/approvals/" + id).body
	at := 0
	for _, part := range []string{
		"<h1>", "What cannot be undone", "Who asks", "Why it waits for people", "What differs from the last one", "The whole payload",
		"Where it goes", ">Deadline<", "Who has signed", "own words</h2>", `id="refuse"`, `id="approve"`,
	} {
		i := strings.Index(body[at:], part)
		if i < 0 {
			t.Fatalf("%q is not there, or not in its place", part)
		}
		at += i
	}
	if !strings.Contains(body, `id="approve" disabled`) || !strings.Contains(body, `id="refuse" disabled`) {
		t.Error("a button can be pressed before the script has seen the payload shown")
	}
}
