package daemon

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authz"
	"github.com/counterfoil/counterfoil/internal/web"
)

// Authz is where proxies of somebody else's ask whether a request may be passed on.
type Authz struct {
	Listen string `yaml:"listen"` // host:port; empty: nowhere. Beyond loopback with public.tls
}

func (a *Authz) check(c *Config, bad func(string, ...any)) {
	if a.Listen == "" {
		return
	}
	host, _, err := net.SplitHostPort(a.Listen)
	switch {
	case err != nil:
		bad("authz.listen: %q is not host:port", a.Listen)
	case !isLoopbackHost(host) && c.Public.TLS.Cert == "":
		bad("authz.listen: %q takes questions from other machines, which needs public.tls: what is asked holds tokens, what is answered credentials", a.Listen)
	case len(c.TrustedProxies) == 0:
		bad("authz.listen: nobody could ask; name the proxies that may in trusted_proxies")
	}
}

// serveAuthz listens for proxies that ask.
func (d *Daemon) serveAuthz() error {
	cfg := &d.cfg
	if cfg.Authz.Listen == "" {
		return nil
	}
	proxies := cfg.proxies()
	h, err := authz.New(authz.Config{
		Judge: d.gateway, PublicURL: cfg.Public.URL, Trusted: isPeerOf(proxies), Source: web.Source(proxies),
		Resource: func(name string) *counterfoil.Resource {
			_, reg := d.authority.Policy()
			return reg.Resources[name]
		},
		Refused: d.authority.Refused, MaxBody: cfg.Limits.Body, Log: d.opt.Log,
	})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cfg.Authz.Listen)
	if err != nil {
		return fmt.Errorf("listening for proxies that ask: %w", err)
	}
	d.onUndo(func() { ln.Close() })
	files := cfg.Public.TLS
	if host, _, err := net.SplitHostPort(cfg.Authz.Listen); err == nil && isLoopbackHost(host) {
		files = TLS{}
	}
	if err := d.serve("authz", h, ln, files); err != nil {
		return err
	}
	// gRPC is HTTP/2, on loopback without TLS, too.
	p := &http.Protocols{}
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(files.Cert == "")
	d.servers[len(d.servers)-1].server.Protocols = p
	d.authzAddr = ln.Addr().String()
	return nil
}

// AuthzAddr is where proxies ask; empty where none may.
func (d *Daemon) AuthzAddr() string { return d.authzAddr }

// isPeerOf returns the function that says whether a request's peer is one of those.
func isPeerOf(proxies []netip.Prefix) func(*http.Request) bool {
	return func(r *http.Request) bool {
		at, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return false
		}
		peer := at.Addr().Unmap().WithZone("")
		for _, p := range proxies {
			if p.Contains(peer) {
				return true
			}
		}
		return false
	}
}
