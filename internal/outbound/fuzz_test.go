package outbound_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/outbound"
)

// FuzzCheckURL: what is taken is read in one way only, and whoever is trusted less is
// taken to nothing that who is trusted more is not.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{
		"https://h.example/x?y=z", "http://127.0.0.1:9/", "https://[::1]:1", "https://[fe80::1%25eth0]/", "https://u:p@h.example#f", `https://h.example\@127.0.0.1`, "https://0x7f.1", "https://127.0.0.1./",
		"HTTPS://LOCALHOST", "https://[64:ff9b::7f00:1]", "https://h.example:0443", "https:///x", "https://h.example:", "//h", "https://%31.h", "https://xn--mnchen-3ya.example",
	} {
		f.Add(s)
	}
	lists := []*outbound.Guard{nil, guard("127.0.0.0/8", "::1/128"), guard("10.0.0.0/8", "fd00::/8", "169.254.169.254/32")}
	f.Fuzz(func(t *testing.T, s string) {
		for _, g := range lists {
			if g.CheckURL(outbound.Elsewhere, s) != nil {
				continue
			}
			if err := g.CheckURL(outbound.Upstream, s); err != nil {
				t.Errorf("%q: taken from elsewhere and not as an upstream: %v", s, err)
			}
			if err := outbound.CheckForm(outbound.Elsewhere, s); err != nil {
				t.Errorf("%q: taken, and its form is not: %v", s, err)
			}
			u, err := url.Parse(s)
			if err != nil || u.User != nil || u.Fragment != "" || strings.ContainsAny(s, "#\\ ") || strings.ContainsAny(u.Host, "@/%") {
				t.Fatalf("%q is taken", s)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s, nil)
			if err != nil || req.URL.Host != u.Host {
				t.Fatalf("%q: no request can be made: %v", s, err)
			}
			host := u.Hostname()
			if a, err := netip.ParseAddr(host); err == nil && g.Check(outbound.Elsewhere, a) != nil {
				t.Errorf("%q is taken, and its address is not", s)
			}
			if last := host[strings.LastIndexByte(host, '.')+1:]; strings.Contains(host, ".") && strings.Trim(last, "0123456789") == "" {
				if _, err := netip.ParseAddr(host); err != nil {
					t.Errorf("%q ends in a number", s)
				}
			}
		}
	})
}

// FuzzCheck: an address is judged the same however it is written, and the more trusted
// reach what the less trusted reach.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"8.8.8.8", "127.0.0.1", "169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fe80::1", "2606:4700::1111", "::"} {
		b := netip.MustParseAddr(s).As16()
		f.Add(b[:])
	}
	lists := []*outbound.Guard{nil, guard("127.0.0.0/8"), guard("0.0.0.0/0", "::/0")}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		for _, g := range lists {
			elsewhere, upstream := g.Check(outbound.Elsewhere, a), g.Check(outbound.Upstream, a)
			if elsewhere == nil && upstream != nil {
				t.Errorf("%s: %v", a, upstream)
			}
			if a.Is4In6() || a.Is4() {
				four := a.Unmap()
				if (g.Check(outbound.Elsewhere, four) == nil) != (elsewhere == nil) || (g.Check(outbound.Upstream, four) == nil) != (upstream == nil) {
					t.Errorf("%s is judged otherwise than %s", a, four)
				}
			}
			if (a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast()) && upstream == nil {
				t.Errorf("%s passes", a)
			}
		}
	})
}
