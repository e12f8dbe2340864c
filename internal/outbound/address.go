package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrRefused is in every error that says that a place may not be connected to: trying
// again is of no use.
var ErrRefused = errors.New("not a place to connect to")

// A refusedError is text for whoever wrote the address. It holds no URL, which may be a
// secret.
type refusedError struct{ text string }

func (e *refusedError) Error() string        { return e.text }
func (e *refusedError) Is(target error) bool { return target == ErrRefused }

func refuse(format string, args ...any) error { return &refusedError{fmt.Sprintf(format, args...)} }

// A kind is what an address is good for.
type kind int

const (
	nobody    kind = iota // no host has it: unspecified, groups, broadcast
	linkLocal             // neighbours, among which clouds have their metadata services
	metadata              // a metadata service elsewhere
	special               // private, loopback, documentation and the like
	public                // globally reachable
)

var (
	linkLocal4 = netip.MustParsePrefix("169.254.0.0/16") // RFC 3927
	linkLocal6 = netip.MustParsePrefix("fe80::/10")      // RFC 4291, Section 2.5.6

	globalUnicast = netip.MustParsePrefix("2000::/3")                 // RFC 4291, Section 2.4
	nat64         = netip.MustParsePrefix("64:ff9b::/96")             // RFC 6052
	nat64Local    = netip.MustParsePrefix("64:ff9b:1::/48")           // RFC 8215
	sixToFour     = netip.MustParsePrefix("2002::/16")                // RFC 3056
	teredo        = netip.MustParsePrefix("2001::/32")                // RFC 4380
	compatible    = netip.MustParsePrefix("::/96")                    // RFC 4291, Section 2.5.5.1
	translated    = netip.MustParsePrefix("::ffff:0:0:0/96")          // RFC 2765
	thisNetwork   = netip.MustParsePrefix("0.0.0.0/8")                // RFC 791; Linux takes 0.0.0.0 for itself
	broadcast     = netip.MustParseAddr("255.255.255.255")            // RFC 919
	isatap        = [][4]byte{{0, 0, 0x5e, 0xfe}, {2, 0, 0x5e, 0xfe}} // RFC 5214, Section 6.1
)

// metadataServices are those beyond the link-local networks.
var metadataServices = []netip.Prefix{
	netip.MustParsePrefix("100.100.100.200/32"),     // Alibaba
	netip.MustParsePrefix("192.0.0.192/32"),         // Oracle
	netip.MustParsePrefix("168.63.129.16/32"),       // Azure's wire server
	netip.MustParsePrefix("fd00:ec2::/32"),          // AWS: of instances ::254, of pods ::23, and what comes
	netip.MustParsePrefix("fd20:ce::254/128"),       // Google
	netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), // Oracle
	netip.MustParsePrefix("fd00:42::42/128"),        // Scaleway
}

// notPublic are the networks of the IANA special-purpose registries (RFC 6890) that are
// not globally reachable, or lead somewhere that their bits do not say. Of IPv6 only
// those inside 2000::/3 are listed: nothing else there is public but the well-known
// prefix of translators, and what that leads to is judged by itself.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), // Teredo, benchmarks, ORCHID
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3fff::/20"),
}

// kindOf judges one address as it stands, without what it holds inside.
func kindOf(a netip.Addr) kind {
	switch {
	case a.IsMulticast(), a.IsUnspecified(), thisNetwork.Contains(a), a == broadcast:
		return nobody
	case a.IsLinkLocalUnicast():
		return linkLocal
	case contains(metadataServices, a):
		return metadata
	case contains(notPublic, a):
		return special
	case a.Is4(), globalUnicast.Contains(a), nat64.Contains(a):
		return public
	}
	return special
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// embedded returns an address and the IPv4 addresses that a translator or a tunnel
// would take out of it.
func embedded(ip netip.Addr) []netip.Addr {
	out := []netip.Addr{ip}
	if ip.Is4() || ip.IsLoopback() || ip.IsUnspecified() {
		return out
	}
	b := ip.As16()
	add := func(v [4]byte) { out = append(out, netip.AddrFrom4(v)) }
	last := [4]byte(b[12:])
	switch {
	case nat64.Contains(ip), compatible.Contains(ip), translated.Contains(ip):
		add(last)
	case nat64Local.Contains(ip):
		// RFC 6052, Section 2.2: with a prefix of 48 bits the address is around the
		// byte that is zero, with one of 96 at the end. Which it is only the network
		// knows.
		around := [4]byte{b[6], b[7], b[9], b[10]}
		if around != [4]byte{} {
			add(around)
		}
		if last != [4]byte{} || around == [4]byte{} {
			add(last)
		}
	case sixToFour.Contains(ip):
		add([4]byte(b[2:6]))
	case teredo.Contains(ip):
		add([4]byte(b[4:8])) // the server
		add([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	if slices.Contains(isatap, [4]byte(b[8:12])) {
		add(last)
	}
	return out
}
