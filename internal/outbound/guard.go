// Package outbound is the one guard of everything that the server connects to by
// itself: upstreams, webhooks, receivers and transmitters of events, keys of other
// issuers, providers of credentials.
//
// It guarantees that no connection goes to an address that the trust in whoever named
// it does not cover. The address is judged when it is dialled, after resolving, so that
// a name that changes its mind between two lookups gains nothing; IPv4 addresses that
// an IPv6 address carries inside are judged too. No proxy out of the environment is
// used, no redirect is followed, no answer is decompressed, and time and size are
// bounded.
//
// Not checked here: who answers, beyond TLS; and a translator (NAT64) that the network
// runs at a prefix of its own, which nobody but the network knows.
package outbound

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Trust says who chose where to connect. The zero Trust is the strictest.
type Trust int

// Whom a place to connect to was named by.
const (
	Elsewhere Trust = iota // public addresses, and what the operator's list opens
	Upstream               // an operator's own upstream and what belongs to it: also private addresses and loopback
)

// Bounds of one exchange, and of one connection.
const (
	maxTime     = 5 * time.Second  // of an exchange by Fetch, of dialling and of a handshake
	mostDefault = 64 << 10         // bytes of an answer's body by Fetch
	mostHeader  = 32 << 10         // bytes of an answer's headers, from elsewhere
	upHeader    = 64 << 10         // the same, from an upstream
	idleTimeout = 4 * time.Second  // Node lets go after five and tells no request on its way
	idleAll     = 256              // idle connections to all upstreams
	idleHost    = 64               // and to one
	keepAlive   = 15 * time.Second // between probes of a connection that is silent
)

// A Guard judges addresses. It is immutable and safe for concurrent use; the nil and
// the zero Guard have an empty list.
type Guard struct {
	allow    []netip.Prefix
	resolver *net.Resolver // the system's when nil
	limit    time.Duration // maxTime when zero
	widest   bool          // opens whatever a list may open
}

// New makes a Guard with a list of networks that the operator opens, whoever named an
// address in them. Of the link-local networks and the metadata services of clouds a
// prefix opens what it names by itself: one inside the link-local network, or a metadata
// service's address alone. A wider one, such as that of all unique local addresses, does
// not. Addresses that are nobody's, such as 0.0.0.0, and groups are never opened.
func New(allow []netip.Prefix) *Guard {
	g := &Guard{allow: make([]netip.Prefix, 0, len(allow))}
	for _, p := range allow {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		g.allow = append(g.allow, p.Masked())
	}
	return g
}

// opens reports whether the operator's list names the address.
func (g *Guard) opens(a netip.Addr, k kind) bool {
	if g == nil || k == nobody {
		return false
	}
	return g.widest || slices.ContainsFunc(g.allow, func(p netip.Prefix) bool {
		switch {
		case !p.Contains(a):
			return false
		case k == linkLocal:
			return linkLocal4.Contains(p.Addr()) && p.Bits() >= linkLocal4.Bits() || linkLocal6.Contains(p.Addr()) && p.Bits() >= linkLocal6.Bits()
		case k == metadata:
			return p.IsSingleIP()
		}
		return true
	})
}

// Check reports why an address may not be connected to. Its error is one of
// ErrRefused. The IPv4 addresses that an IPv6 address holds for a translator or a
// tunnel have to pass too; the operator's list opens those only where it names the IPv6
// address as well.
func (g *Guard) Check(t Trust, ip netip.Addr) error {
	if why := g.judge(t, ip); why != "" {
		return refuse("%s %s", ip, why)
	}
	return nil
}

// judge returns why an address may not be connected to, or nothing.
func (g *Guard) judge(t Trust, ip netip.Addr) string {
	ip = ip.WithZone("").Unmap()
	if !ip.IsValid() {
		return "is none"
	}
	listed := g.opens(ip, kindOf(ip))
	for _, a := range embedded(ip) {
		k := kindOf(a)
		if listed && g.opens(a, k) {
			continue
		}
		inside := ""
		if a != ip {
			inside = fmt.Sprintf(" (there is %s in it)", a)
		}
		switch {
		case k == linkLocal, k == metadata:
			return "is a link-local or metadata address" + inside
		case k == nobody:
			return "is no address to connect to" + inside
		case t == Upstream, k == public:
		case a.IsLoopback():
			return "is this machine" + inside + "; outbound.allow opens it"
		default:
			return "is not a public address" + inside + "; outbound.allow opens it"
		}
	}
	return ""
}

// Dialer returns what dials only addresses that pass Check. Each of those that a name
// has is judged when its turn comes.
func (g *Guard) Dialer(t Trust) *net.Dialer {
	d := &net.Dialer{Timeout: maxTime, KeepAlive: keepAlive, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return refuse("is no address")
		}
		return g.Check(t, at.Addr())
	}}
	if g != nil {
		d.Resolver = g.resolver
	}
	return d
}

// Transport returns a new transport that dials by Dialer, through no proxy, asks for no
// compression, and bounds handshakes and headers. Connections to elsewhere are closed
// after one request, so that each is judged anew. It does not look at the URL: see
// CheckURL.
func (g *Guard) Transport(t Trust) *http.Transport {
	tr := &http.Transport{
		DialContext:            g.Dialer(t).DialContext,
		TLSHandshakeTimeout:    maxTime,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: mostHeader,
	}
	if t != Upstream {
		tr.DisableKeepAlives, tr.ResponseHeaderTimeout = true, maxTime
		return tr
	}
	tr.MaxIdleConns, tr.MaxIdleConnsPerHost, tr.IdleConnTimeout, tr.MaxResponseHeaderBytes = idleAll, idleHost, idleTimeout, upHeader
	return tr
}

// Client returns a new client over Transport that checks each URL first, follows no
// redirect and takes five seconds in all, the body included. Its answers are not
// bounded in size.
func (g *Guard) Client(t Trust) *http.Client {
	return &http.Client{
		Timeout:       g.time(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     checked{g, t, g.Transport(t)},
	}
}

func (g *Guard) time() time.Duration {
	if g == nil || g.limit == 0 {
		return maxTime
	}
	return g.limit
}

// checked is a transport that looks at the URL too.
type checked struct {
	guard *Guard
	trust Trust
	*http.Transport
}

func (c checked) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := c.guard.CheckURL(c.trust, r.URL.String()); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return c.Transport.RoundTrip(r)
}
