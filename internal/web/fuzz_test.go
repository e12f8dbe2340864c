package web

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
)

// Whatever forwarding headers say, only a trusted proxy is believed, and what it
// says is an address that is none of the proxies'.
func FuzzSource(f *testing.F) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	f.Add("10.0.0.1:80", "192.0.2.7, 10.0.0.2")
	f.Add("192.0.2.9:80", "10.0.0.2")
	f.Add("[fd00::1%eth0]:80", "[2001:db8::1]:443, ::ffff:10.0.0.3")
	f.Add("10.0.0.1:80", "unknown, ,_hidden")
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		r := &http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {forwarded}, "Forwarded": {"for=" + forwarded}}}
		got := Source(trusted)(r)
		direct := peerAddr(r)
		isProxy := trusted[0].Contains(direct) || trusted[1].Contains(direct)
		switch {
		case !isProxy && got != direct:
			t.Errorf("%q says %q and is believed: %s", peer, forwarded, got)
		case got.IsValid() && isProxy && (trusted[0].Contains(got) || trusted[1].Contains(got)):
			t.Errorf("%q, %q: the caller is the proxy %s", peer, forwarded, got)
		case got.Zone() != "" || got.Is4In6():
			t.Errorf("%q, %q: %s", peer, forwarded, got)
		}
	})
}

// A form that is taken has text alone, each name and value as it was sent.
func FuzzReadForm(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", "", "grant_type=client_credentials&scope=a+b")
	f.Add("application/x-www-form-urlencoded; charset=utf-8", "", "a=%00")
	f.Add("application/json", "", "{}")
	f.Add("application/x-www-form-urlencoded", "a=b", "a=b;c=d&%zz")
	f.Fuzz(func(t *testing.T, contentType, query, body string) {
		r := httptest.NewRequest(http.MethodPost, "/oauth/token", strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", contentType)
		form, err := readForm(httptest.NewRecorder(), r)
		if err != nil {
			if _, ok := counterfoil.AsRefusal(err); !ok {
				t.Errorf("%v is no refusal", err)
			}
			return
		}
		if query != "" || !strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), "application/x-www-form-urlencoded") {
			t.Errorf("%q with the query %q is taken", contentType, query)
		}
		for name, values := range form {
			if text := name + strings.Join(values, ""); !utf8.ValidString(text) || strings.Contains(text, "\x00") {
				t.Errorf("%q is taken as %q", body, form)
			}
		}
		if again, err := url.ParseQuery(form.Encode()); err != nil || len(again) != len(form) {
			t.Errorf("%q is read as %q: %v", body, form, err)
		}
	})
}

// A filter that is taken looks at no more than the bound.
func FuzzParseFilter(f *testing.F) {
	f.Add("agent=payroll&kind=call.decided&limit=10")
	f.Add("from=0&limit=99999999999")
	f.Add("from=5&agent=x")
	f.Add("since=2026-11-21T12:00:00Z&code=")
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		filter, from, err := parseFilter(values)
		switch {
		case err != nil && counterfoil.CodeOf(err) != counterfoil.RequestMalformed:
			t.Errorf("%q: %v", query, err)
		case err == nil && (filter.Limit < 1 || filter.Limit > maxFound || from < -1 || len(values["from"]) == 0 && from != -1):
			t.Errorf("%q is read as %+v from %d", query, filter, from)
		}
	})
}

// A path has a route when it is spelled as ours, and its parts are no path of
// their own.
func FuzzRoute(f *testing.F) {
	rt := &router{answers: &answers{}}
	none := func(http.ResponseWriter, *http.Request) error { return nil }
	for _, p := range []string{"/oauth/token", "/api/v1/agents/{name}", "/api/v1/agents/{name}/instances", "/ledger/tile/{tile...}"} {
		rt.handle(http.MethodGet, p, none)
	}
	for _, s := range []string{"/oauth/token", "/oauth//token", "/oauth/token/", "/api/v1/agents/a%2fb", "/api/v1/agents/..", "/ledger/tile/0/000", "/ledger/tile/", "/oauth/./token", "//oauth/token"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: http.MethodGet, URL: u}
		if _, found := rt.find(r); !found {
			return
		}
		if u.Path != path.Clean(u.Path) || strings.Contains(u.EscapedPath(), "%2") || u.Path != u.EscapedPath() && u.RawPath != "" {
			t.Errorf("%q has a route", target)
		}
		if name := r.PathValue("name"); strings.ContainsAny(name, "/") || name == ".." || name == "." {
			t.Errorf("%q has the name %q", target, name)
		}
	})
}

// A Host that passes the gate is the listener's own name or this machine's.
func FuzzOwnHost(f *testing.F) {
	gate := ownHost("https://agents.example.com", Behind(nil))
	for _, s := range []string{"agents.example.com", "AGENTS.example.com:443", "agents.example.com:80", "evil.example", "localhost", "[::1]:1", "agents.example.com@evil.example", "agents.example.com:443:443"} {
		f.Add(s, "192.0.2.1:5")
		f.Add(s, "127.0.0.1:5")
	}
	f.Fuzz(func(t *testing.T, host, peer string) {
		r := &http.Request{Host: host, RemoteAddr: peer, Header: http.Header{}}
		if gate(nil, r) != nil {
			return
		}
		name := strings.ToLower(host)
		if own := strings.TrimSuffix(strings.Trim(strings.TrimSuffix(name, ":443"), "[]"), ":"); own == "agents.example.com" {
			return
		}
		if !peerAddr(r).IsLoopback() {
			t.Errorf("the host %q is taken from %q", host, peer)
		}
	})
}
