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
// page whose name was rebound to our address speaks to us under that name.
// proxied says which requests may bear another Host.
func ownHost(own string, proxied func(*http.Request) bool) handler {
	h := parseHost(own)
	return func(_ http.ResponseWriter, r *http.Request) error {
		if proxied(r) || h.isOf(r) || isOfThisMachine(r) {
			return nil
		}
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the request is for another host than %s", h.text)
	}
}

// ownPages is ownHost for a listener that people log in to: only what says how the
// server is takes this machine's other names. A page on another port of localhost
// is another's, and a browser gives it our cookies.
func ownPages(own string, proxied, health func(*http.Request) bool) handler {
	h := parseHost(own)
	return func(_ http.ResponseWriter, r *http.Request) error {
		if err := noUpgrade(r); err != nil {
			return err
		}
		if proxied(r) || h.isOf(r) || health(r) && isOfThisMachine(r) {
			return nil
		}
		return counterfoil.Refuse(counterfoil.OriginForbidden, "the request is for another host than %s: open the page there", h.text)
	}
}

// noUpgrade refuses to change the protocol of a connection. What is the gateway's it
// judges itself: a tool may be a WebSocket.
func noUpgrade(r *http.Request) error {
	if len(r.Header.Values("Upgrade")) > 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the protocol of a connection is not changed here")
	}
	return nil
}

// A host is what a listener is called.
type host struct{ text, scheme, name, port string }

func parseHost(own string) host {
	u, err := url.Parse(own)
	if err != nil {
		u = &url.URL{}
	}
	return host{u.Host, u.Scheme, strings.ToLower(u.Hostname()), portOf(u.Scheme, u.Port())}
}

// isOf reports whether the request is for the listener by its own name.
func (h host) isOf(r *http.Request) bool {
	name, port := hostOf(r)
	return name == h.name && portOf(h.scheme, port) == h.port
}

// isOfThisMachine reports whether a request is for a name that leads to the machine
// that it came from. Nobody can have a name of theirs rebound to "localhost" or to a
// loopback address: these are this machine's own health checks, whatever port is
// mapped to which.
func isOfThisMachine(r *http.Request) bool {
	name, _ := hostOf(r)
	return isLoopbackName(name) && peerAddr(r).IsLoopback()
}

func hostOf(r *http.Request) (name, port string) {
	name = r.Host
	if h, after, err := net.SplitHostPort(r.Host); err == nil {
		name, port = h, after
	}
	return strings.ToLower(strings.Trim(name, "[]")), port
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
