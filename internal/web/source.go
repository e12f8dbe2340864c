package web

import (
	"net/http"
	"net/netip"
	"strings"
)

// Source returns the function that says where a request comes from: its peer,
// or, when the peer is a trusted proxy, the right-most hop of X-Forwarded-For
// that is not one. The zero Addr is unknown, which no network holds: a trusted
// proxy that names nobody, names no address or names only proxies, and a peer
// that has no IP address. From anyone but a trusted proxy the header is
// ignored.
func Source(trusted []netip.Prefix) func(*http.Request) netip.Addr {
	isProxy := func(a netip.Addr) bool {
		for _, p := range trusted {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) netip.Addr {
		peer := peerAddr(r)
		if !peer.IsValid() || !isProxy(peer) {
			return peer
		}
		// RFC 9110, Section 5.3: several header lines are one list. Each proxy
		// appends to its right, so what is left of the first hop that is not
		// ours is that hop's own word.
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0; i-- {
			hop := parseHop(strings.TrimSpace(hops[i]))
			if !hop.IsValid() {
				return netip.Addr{}
			}
			if !isProxy(hop) {
				return hop
			}
		}
		return netip.Addr{}
	}
}

func peerAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// parseHop reads an address, with or without a port.
func parseHop(s string) netip.Addr {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone("")
}

// isLocal reports whether a request was made on this machine: its peer is
// loopback and nothing says that a proxy here passed it on for somebody else.
func isLocal(r *http.Request) bool {
	if !peerAddr(r).IsLoopback() {
		return false
	}
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if len(r.Header.Values(h)) > 0 {
			return false
		}
	}
	return true
}
