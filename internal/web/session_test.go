package web_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.enrolled("adm")
	wantProblem(t, b.get("/api/v1/session"), 401, counterfoil.SessionRequired)
	a := b.tryLogin()
	if a.status != 201 || a.member("person") != "adm" || a.member("roles") != "[admin]" || a.member("expires_at") != "2026-11-20T10:15:00Z" {
		t.Fatalf("login: %d %s", a.status, a.body)
	}
	cookie := a.header.Values("Set-Cookie")
	if len(cookie) != 1 {
		t.Fatalf("cookies: %q", cookie)
	}
	for _, part := range []string{"counterfoil_session=", "; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"} {
		if !strings.Contains(cookie[0], part) {
			t.Errorf("the cookie %q lacks %q", cookie[0], part)
		}
	}
	if strings.Contains(cookie[0], "Domain") || strings.Contains(cookie[0], "Secure") {
		t.Errorf("the cookie of a development server over HTTP: %q", cookie[0])
	}
	b.cookie, _, _ = strings.Cut(cookie[0], ";")
	if a := b.get("/api/v1/session"); a.status != 200 || a.member("person") != "adm" {
		t.Errorf("who am I: %d %s", a.status, a.body)
	}
	if e := s.entries(ledger.SessionOpened); len(e) != 1 || e[0].Actor != "adm" {
		t.Errorf("entries of logins: %+v", e)
	}
	// An id is nowhere: not in the log, not in the ledger.
	_, id, _ := strings.Cut(b.cookie, "=")
	if strings.Contains(s.logs.String(), id) {
		t.Error("the session's id is in the log")
	}
	if a := b.delete("/api/v1/session"); a.status != 204 || a.body != "" || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout: %d %s %q", a.status, a.body, a.header.Get("Set-Cookie"))
	}
	wantProblem(t, b.get("/api/v1/session"), 401, counterfoil.SessionRequired)
	if e := s.entries(ledger.SessionClosed); len(e) != 1 || e[0].Actor != "adm" || e[0].RequestID == "" {
		t.Errorf("entries of logouts: %+v", e)
	}
}

// TestCookieBeyondDevelopment: over TLS the cookie is this host's alone.
func TestCookieBeyondDevelopment(t *testing.T) {
	t.Parallel()
	s := newOffice(t, func(s *system) { s.manage, s.dev = "https://console.example.com", false })
	a := s.enrolled("adm").tryLogin()
	cookie := a.header.Get("Set-Cookie")
	if a.status != 201 || !strings.HasPrefix(cookie, "__Host-counterfoil_session=") || !strings.Contains(cookie, "; Secure") || strings.Contains(cookie, "Domain") {
		t.Errorf("%d %s %q", a.status, a.body, cookie)
	}
	if got := a.header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
		t.Errorf("Strict-Transport-Security is %q", got)
	}
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(*system, *browser)
		over bool
	}{
		{"used all the time", func(s *system, b *browser) {
			for range 10 {
				s.clock.Advance(14 * time.Minute)
				b.get("/api/v1/session")
			}
		}, false},
		{"just before the idle time", func(s *system, b *browser) { s.clock.Advance(web.SessionIdle - time.Millisecond) }, false},
		{"after the idle time", func(s *system, b *browser) { s.clock.Advance(web.SessionIdle) }, true},
		{"after a day of use", func(s *system, b *browser) {
			for range 12*60/14 + 1 {
				s.clock.Advance(14 * time.Minute)
				b.get("/api/v1/session")
			}
		}, true},
		{"the person is declared no more", func(s *system, b *browser) {
			if a := s.admin("DELETE", "/api/v1/people/adm", nil); a.status != 200 {
				s.t.Fatalf("%d %s", a.status, a.body)
			}
		}, true},
		{"the person was suspended", func(s *system, b *browser) {
			if a := s.admin("POST", "/api/v1/revocations", map[string]any{"kind": "person", "id": "adm", "reason": "left"}); a.status != 200 {
				s.t.Fatalf("%d %s", a.status, a.body)
			}
		}, true},
		{"the person was suspended, and kept the passkey", func(s *system, b *browser) {
			r := counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetPerson, ID: "adm"}, Suspend: counterfoil.Suspend{Approvals: true}}
			e := &ledger.Entry{Kind: ledger.Revoked, Detail: map[string]any{"kind": "person", "id": "adm"}}
			if _, news, err := s.store.Revoke(s.t.Context(), r, e); err != nil || !news {
				s.t.Fatal(news, err)
			}
		}, true},
		{"somebody else was suspended", func(s *system, b *browser) {
			if a := s.admin("POST", "/api/v1/revocations", map[string]any{"kind": "person", "id": "eve", "reason": "left"}); a.status != 200 {
				s.t.Fatalf("%d %s", a.status, a.body)
			}
		}, false},
		{"the passkey was reset", func(s *system, b *browser) { s.personCode("adm", true) }, true},
		{"another passkey was added", func(s *system, b *browser) {
			again := &browser{s: s, person: "adm", phone: s.phone()}
			if a := again.enrol(s.personCode("adm", false)); a.status != 201 {
				s.t.Fatalf("%d %s", a.status, a.body)
			}
		}, false},
		{"a restart", func(s *system, b *browser) { s.store.Close(); s.reopen() }, true},
		{"ten more logins", func(s *system, b *browser) {
			for range web.SessionsEach {
				s.clock.Advance(time.Second)
				other := *b
				other.cookie = ""
				other.login()
			}
		}, true},
		{"nine more logins", func(s *system, b *browser) {
			for range web.SessionsEach - 1 {
				s.clock.Advance(time.Second)
				other := *b
				other.cookie = ""
				other.login()
			}
		}, false},
		{"the same browser logs in again", func(s *system, b *browser) { other := *b; other.login() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newOffice(t)
			b := s.loggedIn("adm")
			if a := b.get("/api/v1/agents"); a.status != 200 {
				t.Fatalf("before: %d %s", a.status, a.body)
			}
			c.end(s, b)
			a := b.get("/api/v1/agents")
			if c.over {
				wantProblem(t, a, 401, counterfoil.SessionRequired)
			} else if a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

// TestRolesAreOfNow: a role that is taken away counts with the next request.
func TestRolesAreOfNow(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.loggedIn("adm")
	if a := b.get("/api/v1/people"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s.apply("{kind: Person, name: adm, email: adm@example.com}")
	wantProblem(t, b.get("/api/v1/people"), 403, counterfoil.RoleRequired)
	if a := b.get("/api/v1/session"); a.status != 200 || a.member("roles") != "[]" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestCookiesThatAreNoSession(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.loggedIn("adm")
	name, id, _ := strings.Cut(b.cookie, "=")
	if !counterfoil.CheckHandle(counterfoil.HandleSession, id) {
		t.Errorf("the session's id %q is no handle that a secret scanner knows", id)
	}
	last := len(id) - 1
	for what, cookie := range map[string]string{
		"another":                name + "=" + counterfoil.NewHandle(counterfoil.HandleSession).Reveal(),
		"two, the other first":   name + "=" + counterfoil.NewHandle(counterfoil.HandleSession).Reveal() + "; " + b.cookie,
		"two, the other last":    b.cookie + "; " + name + "=" + counterfoil.NewHandle(counterfoil.HandleSession).Reveal(),
		"twice the same":         b.cookie + "; " + b.cookie,
		"cut short":              name + "=" + id[:last],
		"padded":                 b.cookie + "=",
		"longer":                 b.cookie + "AAAA",
		"another name":           "session=" + id,
		"the name beyond dev":    "__Host-" + b.cookie,
		"in the name's case":     "Counterfoil_Session=" + id,
		"empty":                  name + "=",
		"other bits at the end":  name + "=" + id[:last] + flip(id[last]),
		"in capitals":            name + "=" + strings.ToUpper(id),
		"another kind of handle": name + "=" + counterfoil.HandleCode + strings.TrimPrefix(id, counterfoil.HandleSession),
	} {
		forged := *b
		forged.cookie = cookie
		wantProblem(t, forged.get("/api/v1/session"), 401, counterfoil.SessionRequired)
		if t.Failed() {
			t.Fatal(what)
		}
	}
	if a := b.get("/api/v1/session"); a.status != 200 {
		t.Errorf("the honest one: %d %s", a.status, a.body)
	}
}

// flip returns another last character of base32 whose lowest bits, which mean
// nothing, are others.
func flip(c byte) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	return string(letters[strings.IndexByte(letters, c)^1])
}

// TestOtherSitesAreRefused (AP10, AD6): whatever a page of another site can make a
// browser send, with the cookie of a person who is logged in.
func TestOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.loggedIn("adm")
	const path, body = "/api/v1/agents/free/suspend", `{"reason":"x"}`
	for _, c := range []struct {
		name string
		edit func(*http.Request)
	}{
		{"of another site", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }},
		{"of a sibling", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }},
		{"out of the address bar", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "none") }},
		{"said twice", func(r *http.Request) { r.Header.Add("Sec-Fetch-Site", "cross-site") }},
		{"another origin", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }},
		{"another port", func(r *http.Request) { r.Header.Set("Origin", "http://localhost:8422") }},
		{"another scheme", func(r *http.Request) { r.Header.Set("Origin", "https://localhost:8421") }},
		{"no origin to speak of", func(r *http.Request) { r.Header.Set("Origin", "null") }},
		{"a longer origin", func(r *http.Request) { r.Header.Set("Origin", "http://localhost:8421.evil.example") }},
		{"two origins", func(r *http.Request) { r.Header.Add("Origin", "https://evil.example") }},
		{"a form's body", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }},
		{"a form's text", func(r *http.Request) {
			r.Header.Set("Content-Type", "text/plain")
			r.Header.Del("Origin")
			r.Header.Del("Sec-Fetch-Site")
		}},
		{"a form's text with parameters", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain; application/json") }},
		{"a form's file", func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=x") }},
		{"a name that was rebound", func(r *http.Request) { r.Host = "evil.example" }},
		{"a name that was rebound, on this machine", func(r *http.Request) { r.Host, r.RemoteAddr = "evil.example:8421", "127.0.0.1:4000" }},
		{"another port of this machine", func(r *http.Request) { r.Host, r.RemoteAddr = "localhost:3000", "127.0.0.1:4000" }},
		{"this machine by number", func(r *http.Request) { r.Host, r.RemoteAddr = "127.0.0.1:8421", "127.0.0.1:4000" }},
	} {
		r := b.request("POST", path, []byte(body))
		c.edit(r)
		a := b.send(r)
		wantProblem(t, a, 403, counterfoil.OriginForbidden)
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
	for name, edit := range map[string]func(*http.Request){
		"two media types": func(r *http.Request) { r.Header.Add("Content-Type", "application/json") },
		"another type":    func(r *http.Request) { r.Header.Set("Content-Type", "application/merge-patch+json") },
		"no type":         func(r *http.Request) { r.Header.Del("Content-Type") },
		"a charset":       func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-16") },
	} {
		r := b.request("POST", path, []byte(body))
		edit(r)
		if a := b.send(r); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// Reading too: a page under another name must not see.
	r := b.request("GET", "/api/v1/agents", nil)
	r.Host = "evil.example"
	wantProblem(t, b.send(r), 403, counterfoil.OriginForbidden)
	if a := s.admin("GET", "/api/v1/agents/free", nil); a.member("status") != "active" {
		t.Fatalf("one of them had an effect: %s", a.body)
	}
	if a := b.send(b.request("POST", path, []byte(body))); a.status != 200 {
		t.Errorf("of our own page: %d %s", a.status, a.body)
	}
}

// TestLoginIsOursToo: the ceremonies that need no session are no other site's either.
func TestLoginIsOursToo(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.enrolled("adm")
	for _, path := range []string{"/api/v1/sessions/options", "/api/v1/sessions", "/api/v1/enrolments/options", "/api/v1/enrolments"} {
		r := b.request("POST", path, []byte(`{}`))
		r.Header.Set("Origin", "https://evil.example")
		wantProblem(t, b.send(r), 403, counterfoil.OriginForbidden)
	}
	// A login needs no body to begin, and takes an empty one.
	if a := b.send(b.request("POST", "/api/v1/sessions/options", nil)); a.status != 200 || strings.Contains(a.body, "allowCredentials") {
		t.Errorf("without a body: %d %s", a.status, a.body)
	}
	r := httptest.NewRequest("POST", "/api/v1/sessions/options", strings.NewReader(`{}`))
	r.Header.Set("Content-Type", "application/json")
	if a := serve(s.handlers.Management, r); a.status != 200 {
		t.Errorf("of a program: %d %s", a.status, a.body)
	}
}

func TestEveryAnswerHasTheHeaders(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.loggedIn("adm")
	rebound := b.request("GET", "/api/v1/agents", nil)
	rebound.Host = "evil.example"
	for name, a := range map[string]answer{
		"an answer":       b.get("/api/v1/agents"),
		"a refusal":       b.without().get("/api/v1/agents"),
		"nothing":         b.get("/nothing"),
		"the document":    b.get("/api/v1/openapi.json"),
		"another host":    b.send(rebound),
		"a wrong method":  b.send(b.request("PATCH", "/api/v1/agents", nil)),
		"what is no page": b.get("/api/v1/agents/none"),
	} {
		for header, want := range map[string]string{
			"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if got := a.header.Get(header); got != want {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		csp := a.header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: the policy %q lacks %s", name, csp, part)
			}
		}
		if strings.Contains(csp, "unsafe") || !strings.Contains(a.header.Get("Permissions-Policy"), "publickey-credentials-get=(self)") {
			t.Errorf("%s: %q %q", name, csp, a.header.Get("Permissions-Policy"))
		}
		if a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: another origin may read it", name)
		}
	}
}

// TestCeremoniesAreLimited: by address, so that one does not take them from others.
func TestCeremoniesAreLimited(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.enrolled("adm")
	from := func(addr string) answer {
		r := b.request("POST", "/api/v1/sessions/options", []byte(`{}`))
		r.RemoteAddr = addr
		return b.send(r)
	}
	refused := 0
	for range web.AddressBurst + 10 {
		if a := from("198.51.100.1:1000"); a.status == 429 {
			refused++
			wantProblem(t, a, 429, counterfoil.RateLimited)
		}
	}
	if refused != 10 {
		t.Errorf("%d were refused", refused)
	}
	if a := from("198.51.100.2:1000"); a.status != 200 {
		t.Errorf("of another address: %d %s", a.status, a.body)
	}
	s.clock.Advance(time.Minute)
	if a := from("198.51.100.1:1001"); a.status != 200 {
		t.Errorf("a minute later: %d %s", a.status, a.body)
	}
}

// TestEnrolmentCodesAreOnce (AD5): one passkey a code, none without.
func TestEnrolmentCodesAreOnce(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	code := s.personCode("bo", false)
	b := &browser{s: s, person: "bo", phone: s.phone()}
	a := b.enrol(code)
	if a.status != 201 || a.member("name") != "bo" || strings.Contains(a.body, code) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	again := &browser{s: s, person: "bo", phone: s.phone()}
	wantProblem(t, again.enrol(code), 400, counterfoil.EnrolmentRefused)
	for _, bad := range []string{"", "cfe_", "admin", code[:len(code)-1], code + "A", strings.ToUpper(code)} {
		a := again.post("/api/v1/enrolments/options", map[string]any{"code": bad})
		if a.status != 400 {
			t.Errorf("%q: %d %s", bad, a.status, a.body)
		}
	}
	if strings.Contains(s.logs.String(), code) {
		t.Error("the code is in the log")
	}
}

// TestForgedLogins: each beside the one that passes.
func TestForgedLogins(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	b := s.enrolled("adm")
	for name, change := range map[string]func(*passkey.Ceremony){
		"unverified":       func(c *passkey.Ceremony) { c.UV = false },
		"absent":           func(c *passkey.Ceremony) { c.UP = false },
		"another origin":   func(c *passkey.Ceremony) { c.Origin = "https://evil.example" },
		"another rpId":     func(c *passkey.Ceremony) { c.RPID = "evil.example" },
		"another key":      func(c *passkey.Ceremony) { c.Key = passkey.NewKey() },
		"another type":     func(c *passkey.Ceremony) { c.Type = "webauthn.create" },
		"another passkey":  func(c *passkey.Ceremony) { c.ID = []byte("somebody else's passkey ........") },
		"its own question": func(c *passkey.Ceremony) { c.Challenge = strings.Repeat("A", 43) },
	} {
		a := b.tryLogin(change)
		if a.status != 400 || a.member("code") != string(counterfoil.PasskeyRefused) || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	b.login()
	// The same answer opens nothing again.
	options := b.without().post("/api/v1/sessions/options", map[string]any{})
	body := map[string]any{"credential": json.RawMessage(b.phone.Get([]byte(options.body)))}
	if a := b.without().post("/api/v1/sessions", body); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := b.without().post("/api/v1/sessions", body); a.status != 400 {
		t.Errorf("again: %d %s", a.status, a.body)
	}
}
