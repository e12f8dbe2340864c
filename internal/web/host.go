package web

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// Behind returns the function that says whether a request came through a trusted
// proxy, which may write a Host of its own: the peer is one, and says for whom
// it asks. A browser on the proxy's machine has the same address and says
// nothing of the kind.
func Behind(trusted []netip.Prefix) func(*http.Request) bool {
	return func(r *http.Request) bool {
		if len(r.Header.Values("X-Forwarded-For")) == 0 {
			return false
		}
		peer := peerAddr(r)
		for _, p := range trusted {
			if p.Contains(peer) {
				return true
			}
		}
		return false
	}
}

// ownHost returns the gate of a listener that answers to its own name alone: a
// page whose name was rebound to our address speaks to us under that name. Nor
// does it change the protocol of a connection. proxied says which requests may
// bear another Host.
func ownHost(own string, proxied func(*http.Request) bool) handler {
	u, err := url.Parse(own)
	if err != nil {
		u = &url.URL{}
	}
	name, port := strings.ToLower(u.Hostname()), portOf(u.Scheme, u.Port())
	return func(_ http.ResponseWriter, r *http.Request) error {
		if len(r.Header.Values("Upgrade")) > 0 {
			return counterfoil.Refuse(counterfoil.RequestMalformed, "the protocol of a connection is not changed here")
		}
		if proxied(r) {
			return nil
		}
		host, p := r.Host, ""
		if h, after, err := net.SplitHostPort(r.Host); err == nil {
			host, p = h, after
		}
		host = strings.ToLower(strings.Trim(host, "[]"))
		if host == name && portOf(u.Scheme, p) == port {
			return nil
		}
		// Nobody can have a name of theirs rebound to "localhost" or to a
		// loopback address: these are this machine's own health checks, whatever
		// port is mapped to which.
		if isLoopbackName(host) && peerAddr(r).IsLoopback() {
			return nil
		}
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the request is for another host than %s", u.Host)
	}
}

func portOf(scheme, port string) string {
	switch {
	case port != "":
		return port
	case scheme == "https":
		return "443"
	}
	return "80"
}

// isLoopbackName reports whether nobody else can own the name.
func isLoopbackName(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
