package daemon

import (
	"net/netip"
	"slices"

	"github.com/counterfoil/counterfoil/internal/outbound"
)

// Outbound is what the server may connect to beyond public addresses: receivers of
// messages and events, keys of other issuers. An upstream that a manifest names, and who
// gives its credential, may be private or on this machine without it.
type Outbound struct {
	Allow []string `yaml:"allow"` // CIDRs; with --dev loopback is among them
}

// maxAllow bounds what each connection is compared with.
const maxAllow = 256

func (o *Outbound) check(bad func(string, ...any)) {
	if len(o.Allow) > maxAllow {
		bad("outbound.allow: %d networks; %d is the limit", len(o.Allow), maxAllow)
	}
	for _, cidr := range o.Allow {
		p, err := netip.ParsePrefix(cidr)
		switch {
		case err != nil:
			bad("outbound.allow: %q is not a CIDR; one address is written 10.0.0.1/32", cidr)
		case p.Addr().Is4In6():
			bad("outbound.allow: %q is an IPv4 network in IPv6 clothes; write it as IPv4", cidr)
		case p != p.Masked():
			bad("outbound.allow: %q has bits beyond its length; %s is the network", cidr, p.Masked())
		case p.Bits() == 0:
			// Nothing would be left to judge; whoever may name a URL would reach
			// whatever this machine reaches.
			bad("outbound.allow: %q opens everything; name the networks", cidr)
		}
	}
}

var loopbacks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// guard judges what the server connects to. What is no CIDR, which check tells of, opens
// nothing.
func (c *Config) guard() *outbound.Guard {
	var allow []netip.Prefix
	for _, cidr := range c.Outbound.Allow {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			allow = append(allow, p)
		}
	}
	if c.Dev {
		allow = slices.Concat(allow, loopbacks)
	}
	return outbound.New(allow)
}
