package daemon

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// TestProxiesAskOverTLSBeyondLoopback: what is asked holds tokens and what is answered
// secrets.
func TestProxiesAskOverTLSBeyondLoopback(t *testing.T) {
	t.Parallel()
	const withTLS = "  listen: 127.0.0.1:8420\n  tls: {cert: c.pem, key: k.pem}\nmanagement"
	for _, c := range []struct {
		name, authz string
		change      []string
		says        string
	}{
		{"on loopback", "127.0.0.1:8422", nil, ""},
		{"on loopback by its name", "localhost:0", nil, ""},
		{"elsewhere without TLS", "10.0.0.1:8422", nil, "public.tls"},
		{"everywhere without TLS", ":8422", nil, "public.tls"},
		{"everywhere with TLS", ":8422", []string{"  listen: 127.0.0.1:8420\nmanagement", withTLS}, ""},
		{"nobody may ask", "127.0.0.1:8422", []string{"trusted_proxies: [127.0.0.1/32]\n", ""}, "nobody could ask"},
		{"no port", "127.0.0.1", nil, "host:port"},
	} {
		_, err := readText(t, strings.NewReplacer(c.change...).Replace(goodConfig)+"authz: {listen: \""+c.authz+"\"}\n")
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), "authz.listen") || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestPeersOfProxies: an IPv4 peer is the same however its connection says it, and who
// has no address is nobody's peer.
func TestPeersOfProxies(t *testing.T) {
	t.Parallel()
	isPeer := isPeerOf([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")})
	for peer, want := range map[string]bool{
		"10.1.2.3:4": true, "[::ffff:10.1.2.3]:4": true, "[fe80::1%eth0]:4": true,
		"11.1.2.3:4": false, "127.0.0.1:4": false, "[::1]:4": false, "[::10.1.2.3]:4": false, "@": false, "": false, "10.1.2.3": false,
	} {
		if got := isPeer(&http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {"10.1.2.3"}}}); got != want {
			t.Errorf("%q: %v", peer, got)
		}
	}
}
