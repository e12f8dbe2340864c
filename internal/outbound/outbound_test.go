package outbound_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/outbound"
)

func guard(cidrs ...string) *outbound.Guard {
	var allow []netip.Prefix
	for _, c := range cidrs {
		allow = append(allow, netip.MustParsePrefix(c))
	}
	return outbound.New(allow)
}

// What each kind of address is to each trust, without a list.
func TestAddresses(t *testing.T) {
	t.Parallel()
	const no, private, yes = 0, 1, 2 // to nobody, to upstreams, to everybody
	for _, c := range []struct {
		to    int
		addrs string
	}{
		{yes, "8.8.8.8 1.1.1.1 93.184.216.34 172.15.255.255 172.32.0.1 100.63.255.255 100.128.0.1 192.0.1.1 198.17.255.255 198.20.0.1 223.255.255.255"},
		{yes, "2606:4700::1111 2a00:1450:4001::8a 2001:4860:4860::8888 2620:fe::fe 64:ff9b::808:808 ::ffff:8.8.8.8"},

		{private, "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 127.0.0.1 127.1.2.3 ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1"},
		{private, "fd00::1 fc00::1 fdff:ffff::1 fec0::1 feff::1"},                                     // local
		{private, "192.0.0.1 192.0.0.8 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1"}, // RFC 6890
		{private, "192.88.99.1 240.0.0.1 255.255.255.254 2001:db8::1 3fff::1 2001:10::1 2001:2::1 100::1 5f00::1"},
		{private, "64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1:a00:0:100:: 64:ff9b:1::a00:1 64:ff9b:1::808:808"}, // translated
		{private, "2002:7f00:1:: 2002:808:808::1 ::127.0.0.1 ::8.8.8.8 ::ffff:0:10.0.0.1"},                    // tunnels
		{private, "2001:0:808:808::f7f7:f7f7 2001:0:a00:1::f5ff:fffe 2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:7f00:1"},

		{no, "0.0.0.0 0.1.2.3 :: 224.0.0.1 239.255.255.255 255.255.255.255 ff02::1 ff0e::1 ::ffff:0.0.0.0 ::ffff:224.0.0.1"},
		{no, "169.254.169.254 169.254.0.1 169.254.170.2 fe80::1 fe80::1%eth0 febf::1 ::ffff:169.254.169.254"},
		{no, "100.100.100.200 192.0.0.192 168.63.129.16 fd00:ec2::254 fd20:ce::254"},
		{no, "fd00:ec2::23 fd00:ec2::1 fd00:ec2:ffff::1 fd00:c1::a9fe:a9fe fd00:42::42"},
		{private, "fd00:ec1::23 fd00:ec3::254 fd00:c1::a9fe:a9ff fd00:42::43"}, // beside them
		{no, "64:ff9b::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe::1 ::169.254.169.254 ::ffff:0:169.254.169.254"},
		{no, "2001:0:a9fe:a9fe:: 2001:0:808:808::5601:5601 2606:4700::5efe:a9fe:a9fe 2606:4700::200:5efe:a9fe:a9fe 64:ff9b::6464:64c8 64:ff9b::"},
	} {
		for s := range strings.FieldsSeq(c.addrs) {
			for _, g := range []*outbound.Guard{nil, {}, guard()} {
				a := netip.MustParseAddr(s)
				if err := g.Check(outbound.Elsewhere, a); (err == nil) != (c.to == yes) || err != nil && !errors.Is(err, outbound.ErrRefused) {
					t.Errorf("elsewhere, %s: %v", s, err)
				}
				if err := g.Check(outbound.Upstream, a); (err == nil) != (c.to >= private) || err != nil && !errors.Is(err, outbound.ErrRefused) {
					t.Errorf("upstream, %s: %v", s, err)
				}
			}
		}
	}
	if guard().Check(outbound.Upstream, netip.Addr{}) == nil {
		t.Error("no address passes")
	}
}

// What the operator's list opens, and what it does not.
func TestList(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ list, opens, not string }{
		{"10.1.0.0/16", "10.1.0.1 10.1.255.255 ::ffff:10.1.0.1", "10.2.0.1 64:ff9b::a01:1 ::10.1.0.1 2002:a01:1:: 127.0.0.1"},
		{"127.0.0.0/8 ::1/128", "127.0.0.1 ::1 ::ffff:127.0.0.1", "64:ff9b::7f00:1 2002:7f00:1:: ::127.0.0.1 ::2 10.0.0.1"},
		{"::ffff:10.1.0.0/112", "10.1.2.3", "10.2.0.1"},
		{"fd00::/8", "fd00::1 fd12:3456::1", "fc00::1 fd00:ec2::254 fd20:ce::254 fd00:ec2::23 fd00:c1::a9fe:a9fe fd00:42::42"},
		{"fd00:ec2::254/128", "fd00:ec2::254", "fd00:ec2::253 fd00:ec2::23"},
		{"fd00:ec2::23/128 fd00:42::42/128", "fd00:ec2::23 fd00:42::42", "fd00:ec2::254 fd00:c1::a9fe:a9fe"},
		{"0.0.0.0/0 ::/0", "10.0.0.1 127.0.0.1 fd00::1 2001:db8::1 64:ff9b::a00:1", "169.254.169.254 fe80::1 100.100.100.200 168.63.129.16 fd00:ec2::254 64:ff9b::a9fe:a9fe 0.0.0.0 :: 224.0.0.1 255.255.255.255 ff02::1"},
		{"100.64.0.0/10", "100.64.0.1", "100.100.100.200"},
		{"168.63.129.16/32", "168.63.129.16", ""},
		{"169.254.0.0/16", "169.254.1.1 169.254.169.254", "64:ff9b::a9fe:a9fe ::169.254.169.254"},
		{"169.0.0.0/8", "169.1.2.3", "169.254.169.254"},
		{"169.254.169.254/32", "169.254.169.254", "169.254.169.253"},
		{"fe80::/64", "fe80::1 fe80::1%eth0", "fe81::1"},
		{"64:ff9b::/96", "64:ff9b::808:808", "64:ff9b::a00:1"},
		{"64:ff9b::/96 10.0.0.0/8", "64:ff9b::a00:1", "64:ff9b::7f00:1"},
		{"224.0.0.1/32 0.0.0.0/32", "", "224.0.0.1 0.0.0.0"},
	} {
		g := guard(strings.Fields(c.list)...)
		for s := range strings.FieldsSeq(c.opens) {
			if err := g.Check(outbound.Elsewhere, netip.MustParseAddr(s)); err != nil {
				t.Errorf("%s with %s: %v", s, c.list, err)
			}
		}
		for s := range strings.FieldsSeq(c.not) {
			if g.Check(outbound.Elsewhere, netip.MustParseAddr(s)) == nil {
				t.Errorf("%s with %s passes", s, c.list)
			}
		}
	}
	// The same list opens an upstream.
	if err := guard("169.254.169.254/32").Check(outbound.Upstream, netip.MustParseAddr("169.254.169.254")); err != nil {
		t.Error(err)
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	const never = "|//h.example|h.example|/x|ftp://h.example|file:///etc/passwd|gopher://h.example:70/_x|unix:///run/x|https:h.example|https://|https://:443|https:///x" +
		"|https://u:p@h.example|https://u@h.example|https://@h.example|https://h.example@127.0.0.1|https://h.example#f|https://h.example/#|https://127.0.0.1#@h.example" +
		`|https://h.example\@127.0.0.1|https://127.0.0.1\.h.example|https://h.example/\x|https://h example|https://h.example/a b|https://h.example%2f127.0.0.1|https://%31%32%37.0.0.1` +
		"|https://h.example:|https://h.example:0|https://h.example:65536|https://h.example:x|https://h.example:0443|https://h..example|https://-h.example|https://h.example\n|https://h.example\t|https://h\x00" +
		"|https://münchen.example|https://１２７.0.0.1|https://127。0。0。1|https://①②⑦.0.0.1" +
		"|https://127.1|https://0|https://2130706433|https://0x7f000001|https://0x7f.1|https://017700000001|https://0177.0.0.1|https://0x7f.0.0.0x1|https://127.0.1|https://127.0.0.1.|https://127.0.0.01|https://1.2.3.4.5" +
		"|https://h.example.1|https://h.0x7f|https://256.1.1.1|https://[::1|https://[::1%25lo]|https://[fe80::1%25eth0]|https://[127.0.0.1]|https://localhost.|https://LOCALHOST." +
		"|https://metadata|https://metadata.google.internal|https://METADATA.google.internal|https://metadata.google.internal.|https://metadata.goog|https://instance-data|https://instance-data.ec2.internal" +
		"|https://169.254.169.254|https://[::ffff:169.254.169.254]|https://[::ffff:a9fe:a9fe]|https://[64:ff9b::a9fe:a9fe]|https://[2002:a9fe:a9fe::]|https://[fe80::1]|https://[fd00:ec2::254]|https://0.0.0.0|https://[::]|https://224.0.0.1|https://100.100.100.200"
	const locally = "https://127.0.0.1|http://127.0.0.1:9000/mcp|https://127.1.2.3|http://[::1]:1/x|https://[0:0:0:0:0:0:0:1]|https://[::ffff:127.0.0.1]|https://[::ffff:7f00:1]|http://localhost:80/x?y=z|https://LocalHost"
	const private = "https://10.0.0.1|https://192.168.0.1:8443/x|https://172.16.0.1|https://100.64.0.1|https://[fd00::1]|https://[fec0::1]|https://[64:ff9b::7f00:1]|https://[2002:7f00:1::]|https://[::127.0.0.1]|https://x.localhost"
	const anywhere = "https://h.example|https://h.example:8443/x?y=z|HTTPS://H.example/|https://h|https://my_host|https://xn--mnchen-3ya.example|https://8.8.8.8|https://[2606:4700::1111]:443/|https://h.example/a%20b|https://1.h.example|https://0x7f.h.example"
	const plain = "http://h.example|http://8.8.8.8|http://h"

	dev := guard("127.0.0.0/8", "::1/128")
	both := func(what, urls string, g *outbound.Guard, elsewhere, upstream bool) {
		t.Helper()
		for s := range strings.SplitSeq(urls, "|") {
			for trust, ok := range map[outbound.Trust]bool{outbound.Elsewhere: elsewhere, outbound.Upstream: upstream} {
				err := g.CheckURL(trust, s)
				if (err == nil) != ok || err != nil && !errors.Is(err, outbound.ErrRefused) {
					t.Errorf("%s, trust %d, %q: %v", what, trust, s, err)
				}
			}
		}
	}
	for name, g := range map[string]*outbound.Guard{"nil": nil, "empty": guard(), "dev": dev} {
		both(name, never, g, false, false)
		both(name, locally, g, name == "dev", true)
		both(name, strings.TrimSuffix(private, "|https://x.localhost"), g, false, true)
		both(name, anywhere, g, true, true)
		both(name, plain, g, false, true)
	}
	both("the rest of loopback", "https://x.localhost", dev, true, true)
	both("the rest of loopback", "http://x.localhost|http://h.example.", dev, false, true)
	both("one of loopback", "http://[::1]/|http://localhost/", guard("::1/128"), true, true)
	both("one of loopback", "http://127.0.0.1/", guard("::1/128"), false, true)
	both("an opened network", "https://10.0.0.1|https://[::ffff:10.0.0.1]", guard("10.0.0.0/8"), true, true)
	both("no TLS to an opened network", "http://10.0.0.1", guard("10.0.0.0/8"), false, true)

	for _, s := range []string{"https://u:s3cr3t@h.example/s3cr3t", "ftp://h/s3cr3t", "https://10.0.0.1/s3cr3t", "https://h:s3cr3t", "https://h\x7f/s3cr3t", "http://h/s3cr3t"} {
		if err := guard().CheckURL(outbound.Elsewhere, s); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: %v", s, err)
		}
	}
}
