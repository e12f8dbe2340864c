package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// pages are the console's pages: what package console renders, filled in and shown to
// whom it is for. Nothing here decides. A signature goes through the API like any
// other client's; what a form may do takes authority away, or says how a call ended.
type pages struct {
	*management
	rt *router
}

// A shown is the answer to a request for a page.
type shown struct {
	name    string // of the page, see console.PageNames
	title   string
	section string // of the navigation
	body    any
	status  int // 200 when zero
}

// A visit is a request for a page by somebody who is logged in.
type visit struct {
	w    http.ResponseWriter // of a form, for a cookie; what is written is not the visit's to write
	r    *http.Request
	s    session
	form url.Values // of a POST, checked
}

func (v visit) path(name string) string { return v.r.PathValue(name) }

func (v visit) query(name string) string { return v.r.URL.Query().Get(name) }

// pages adds the console's pages.
func (m *management) pages(rt *router) {
	p := &pages{m, rt}
	rt.handle(http.MethodGet, console.AssetPath+"{name}", p.asset)
	rt.handle(http.MethodGet, "/login", p.open(p.login))
	rt.handle(http.MethodGet, "/enrol", p.open(p.enrolPage))
	rt.handle(http.MethodGet, "/live", p.live)
	rt.handle(http.MethodPost, "/logout", p.act(forPeople, nil, p.logOut))

	rt.handle(http.MethodGet, "/", p.page(forPeople, p.inbox))
	rt.handle(http.MethodGet, "/decided", p.page(forPeople, p.decided))
	rt.handle(http.MethodGet, "/decided/{id}", p.page(forPeople, p.approvalPage))
	rt.handle(http.MethodGet, "/approvals/{id}", p.page(forPeople, p.approvalPage))
	rt.handle(http.MethodGet, "/approvals/{id}/call", p.download(forPeople, p.callFile))
	rt.handle(http.MethodGet, "/approvals/{id}/proof", p.download(forPeople, p.proof))
	rt.handle(http.MethodPost, "/approvals/{id}/cancel", p.act(forAdmins, []string{"reason"}, p.cancelForm))
	rt.handle(http.MethodPost, "/approvals/{id}/reconcile", p.act(forAdmins, []string{"reason", "happened"}, p.reconcileForm))

	rt.handle(http.MethodGet, "/agents", p.page(forReaders, p.agentsPage))
	rt.handle(http.MethodGet, "/agents/{name}", p.page(forReaders, p.agentPage))
	for _, offboard := range []bool{false, true} {
		path := "/agents/{name}/suspend"
		if offboard {
			path = "/agents/{name}/offboard"
		}
		rt.handle(http.MethodGet, path, p.page(forAdmins, func(v visit) (shown, error) { return p.voidPage(v, offboard) }))
		rt.handle(http.MethodPost, path, p.act(forAdmins, voidFields(offboard), func(v visit) (string, error) { return p.voidForm(v, offboard) }))
	}
	p.revokePages(rt)
	rt.handle(http.MethodGet, "/people", p.page(forReaders, p.peoplePage))
	rt.handle(http.MethodGet, "/ledger", p.page(forReaders, p.ledgerPage))
	rt.handle(http.MethodGet, "/ledger/{index}", p.page(forReaders, p.entryPage))
	rt.handle(http.MethodGet, "/ledger/{index}/receipt", p.download(forReaders, p.receiptFile))
	rt.handle(http.MethodGet, "/health", p.page(forReaders, p.healthPage))

	// What is nothing is a page too, for whoever reads pages.
	const anything = "/{rest...}"
	rt.handle(http.MethodGet, anything, func(w http.ResponseWriter, r *http.Request) error {
		if !wantsPage(r) {
			return notHere()
		}
		return p.page(forPeople, func(visit) (shown, error) { return shown{}, notHere() })(w, r)
	})
	rt.otherwise(anything, func(http.ResponseWriter, *http.Request) error { return notHere() })
}

func wantsPage(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

// asset serves a file whose name holds its digest: it never changes, so it is kept for
// as long as a browser likes.
func (p *pages) asset(w http.ResponseWriter, r *http.Request) error {
	a, ok := console.FindAsset(r.PathValue("name"))
	if !ok {
		return notHere()
	}
	w.Header().Set("Content-Type", a.Media)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Write(a.Bytes)
	return nil
}

// page serves a page to whom it is for. Whoever is not logged in is sent to where that
// is done, and back.
func (p *pages) page(who audience, build func(visit) (shown, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		p.headers(w)
		if err := navigated(r); err != nil {
			return p.failed(w, r, nil, err)
		}
		s, err := p.session(r)
		if code(err) == counterfoil.SessionRequired {
			p.toLogin(w, r)
			return nil
		}
		if err != nil {
			return p.failed(w, r, nil, err)
		}
		if err := who.permits(s); err != nil {
			return p.failed(w, r, &s, err)
		}
		got, err := build(visit{r: r, s: s})
		if err != nil {
			return p.failed(w, r, &s, err)
		}
		return p.write(w, r, &s, got)
	}
}

// open serves a page to anyone, and to each address so many a second.
func (p *pages) open(build func(*http.Request) (shown, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		p.headers(w)
		if err := navigated(r); err != nil {
			return p.failed(w, r, nil, err)
		}
		if !p.addresses.Take("page "+authority.AddressKey(p.Source(r)), p.Now(), 1) {
			// No page: it costs more than the refusal.
			return counterfoil.Refuse(counterfoil.RateLimited, "too many requests from this address")
		}
		got, err := build(r)
		if err != nil {
			return p.failed(w, r, nil, err)
		}
		return p.write(w, r, nil, got)
	}
}

// act serves a form: the request comes from a page of ours, the session's token is in
// it, and every other field is one of those named, once. It answers with where to go.
func (p *pages) act(who audience, fields []string, do func(visit) (string, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		p.headers(w)
		var s session
		to, err := func() (string, error) {
			if err := p.sameOrigin(r); err != nil {
				return "", err
			}
			form, err := readFields(w, r, append([]string{"csrf"}, fields...))
			if err != nil {
				return "", err
			}
			if s, err = p.session(r); err != nil {
				return "", err
			}
			if err := s.checkForm(form.Get("csrf")); err != nil {
				return "", err
			}
			if err := who.permits(s); err != nil {
				return "", err
			}
			return do(visit{w: w, r: r, s: s, form: form})
		}()
		if err != nil {
			if s.person == nil {
				return p.failed(w, r, nil, err)
			}
			return p.failed(w, r, &s, err)
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
}

// download serves a file to whom it is for.
func (p *pages) download(who audience, build func(visit) (name string, body []byte, err error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := navigated(r); err != nil {
			return err
		}
		s, err := p.session(r)
		if err != nil {
			return err
		}
		if err := who.permits(s); err != nil {
			return err
		}
		name, body, err := build(visit{r: r, s: s})
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		w.Header().Set("Cache-Control", "no-store")
		w.Write(body)
		return nil
	}
}

// readFields reads the body of a form of ours: every one of the fields once, and
// nothing else. A submit button that was not pressed is not there.
func readFields(w http.ResponseWriter, r *http.Request, names []string) (url.Values, error) {
	form, err := readForm(w, r)
	if err != nil {
		return nil, err
	}
	for name, values := range form {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		switch {
		case !known:
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the form has no field %.40q", name)
		case len(values) != 1:
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the field %s is there %d times", name, len(values))
		}
	}
	for _, n := range names {
		if strings.TrimSpace(form.Get(n)) == "" {
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the field %s is empty", n)
		}
	}
	return form, nil
}

// headers are those of a page. A form's request has to say its origin, which it does
// not under no-referrer (Fetch, appending a request Origin header).
func (p *pages) headers(w http.ResponseWriter) {
	pageHeaders(w.Header())
	w.Header().Set("Referrer-Policy", "same-origin")
}

// navigated refuses what asks for a page without being about to show it: an embedded
// one, a script of another page. A link from elsewhere is welcome; it does nothing.
func navigated(r *http.Request) error {
	site, mode, dest := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	embedded := dest != "" && dest != "document" && dest != "empty"
	foreign := site != "" && site != "same-origin" && site != "none"
	if embedded || foreign && mode != "navigate" {
		return counterfoil.Refuse(counterfoil.OriginForbidden, "this page is not shown inside of another, and not to another site's scripts")
	}
	return nil
}

// toLogin sends a browser to log in, and back to where it was. A link on another site,
// in a mail or a chat, comes without the session's cookie, which is kept from
// everything that others begin (SameSite=Strict): the browser asks once more, by
// itself, before anybody is asked to log in.
func (p *pages) toLogin(w http.ResponseWriter, r *http.Request) {
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		w.Header().Set("Refresh", "0; url="+r.URL.RequestURI())
		w.WriteHeader(http.StatusOK)
		return
	}
	next := "/login"
	if r.URL.Path != "/" {
		next += "?next=" + url.QueryEscape(r.URL.Path)
	}
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
}

// write renders a page.
func (p *pages) write(w http.ResponseWriter, r *http.Request, s *session, got shown) error {
	page := console.Page{Title: got.title, Section: got.section, Now: p.Now(), Said: said[r.URL.Query().Get("done")], Body: got.body}
	if s != nil {
		v, err := p.viewer(r.Context(), *s)
		if err != nil {
			return err
		}
		page.Viewer = v
	}
	html, err := console.Render(got.name, page)
	if err != nil {
		return err
	}
	if got.status != 0 {
		w.WriteHeader(got.status)
	}
	w.Write(html)
	return nil
}

// said is what is said of a form that did what it should.
var said = map[string]string{
	"revoked":    "Revoked, from this moment on.",
	"already":    "That was revoked before: there was nothing left to take.",
	"suspended":  "Suspended. Every token of the agent is void from this moment.",
	"offboarded": "Offboarded. The agent, its keys and its name are gone for good.",
	"cancelled":  "Cancelled. The agent is told so; nothing runs.",
	"reconciled": "Recorded. The call does not run again.",
}

func (p *pages) viewer(ctx context.Context, s session) (*console.Viewer, error) {
	waiting, err := p.Approvals.Inbox(ctx, s.person.Name)
	if err != nil {
		return nil, err
	}
	return &console.Viewer{Name: s.person.Name, Sees: s.isReader(), Admin: s.isAdmin(), Waiting: len(waiting), Token: s.token}, nil
}

func (p *pages) login(r *http.Request) (shown, error) {
	next := r.URL.Query().Get("next")
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		next = "/"
	}
	ever, err := p.Passkeys.AnybodyEnrolled(r.Context())
	if err != nil {
		return shown{}, err
	}
	l := console.Login{Next: next, Nobody: !ever, Ended: next != "/", Dev: p.Dev, Command: "counterfoil person enroll-code NAME"}
	return shown{name: "login", title: "Log in", body: l}, nil
}

func (p *pages) enrolPage(*http.Request) (shown, error) {
	return shown{name: "enrol", title: "Enrol a passkey", body: console.Enrol{}}, nil
}

func (p *pages) logOut(v visit) (string, error) {
	return "/login", p.closeSession(v.w, v.r, v.s)
}
