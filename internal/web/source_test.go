package web_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/counterfoil/counterfoil/internal/web"
)

func TestSource(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, tt := range []struct {
		name, peer string
		header     []string
		want       string // empty: unknown
	}{
		{"a peer that is no proxy", "192.0.2.1:1234", nil, "192.0.2.1"},
		{"its header is ignored", "192.0.2.1:1234", []string{"198.51.100.7"}, "192.0.2.1"},
		{"a proxy names the client", "10.1.2.3:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a client's own header is left of it", "10.1.2.3:1", []string{"127.0.0.1, 198.51.100.7"}, "198.51.100.7"},
		{"two proxies in a row", "10.1.2.3:1", []string{"127.0.0.1, 198.51.100.7, 10.9.9.9"}, "198.51.100.7"},
		{"several header lines are one list", "10.1.2.3:1", []string{"127.0.0.1", "198.51.100.7, 10.9.9.9"}, "198.51.100.7"},
		{"a port beside the address", "10.1.2.3:1", []string{"198.51.100.7:4711"}, "198.51.100.7"},
		{"IPv6 in brackets", "[fd00::1]:1", []string{"[2001:db8::5]"}, "2001:db8::5"},
		{"IPv6 in brackets with a port", "[fd00::1]:1", []string{"[2001:db8::5]:99"}, "2001:db8::5"},
		{"an IPv4 address in IPv6 form is the IPv4 address", "[::ffff:192.0.2.1]:1", nil, "192.0.2.1"},
		{"a proxy in IPv6 form is that proxy", "[::ffff:10.1.2.3]:1", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"a zone says nothing", "[fe80::1%eth0]:1", nil, "fe80::1"},
		{"a proxy that names nobody", "10.1.2.3:1", nil, ""},
		{"a proxy that names proxies only", "10.1.2.3:1", []string{"10.4.4.4, 10.5.5.5"}, ""},
		{"the hop beside it is no address", "10.1.2.3:1", []string{"198.51.100.7, unknown"}, ""},
		{"the hop beside it is empty", "10.1.2.3:1", []string{"198.51.100.7,"}, ""},
		{"no address is further left than needed", "10.1.2.3:1", []string{"garbage, 198.51.100.7"}, "198.51.100.7"},
		{"a unix socket", "@", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
			for _, h := range tt.header {
				r.Header.Add("X-Forwarded-For", h)
			}
			var want netip.Addr
			if tt.want != "" {
				want = netip.MustParseAddr(tt.want)
			}
			if got := web.Source(trusted)(r); got != want {
				t.Errorf("Source = %v, want %v", got, want)
			}
		})
	}
}
