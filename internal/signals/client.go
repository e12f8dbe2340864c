package signals

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// maxTime is how long one exchange may take.
const maxTime = 5 * time.Second

// newClient makes the client for all that goes out from here: no redirects, because
// where we connect is the manifest's to say and not an answer's; no proxy out of the
// environment; no connection that stays, so that a name is looked up and its address
// judged each time; and everything bounded.
func newClient() *http.Client {
	dialer := &net.Dialer{Timeout: maxTime}
	return &http.Client{
		Timeout:       maxTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				host, _, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				d := *dialer
				d.Control = controlFor(host)
				return d.DialContext(ctx, network, address)
			},
			DisableKeepAlives: true, DisableCompression: true, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: maxTime, ResponseHeaderTimeout: maxTime, MaxResponseHeaderBytes: 32 << 10,
		},
	}
}

// controlFor looks at the address that is dialled for a host, after resolving.
func controlFor(host string) func(_, address string, _ syscall.RawConn) error {
	loopback := loopbackHost(host)
	return func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dialling: %w", err)
		}
		return checkAddress(at.Addr(), loopback)
	}
}

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

var (
	metadata = []netip.Addr{
		netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16"),
		netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"),
	}
	nat64  = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixTo4 = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

// checkAddress refuses addresses at which no one is who sends or receives events:
// link-local ones, among which clouds have their metadata services, and this machine
// unless it was named.
func checkAddress(ip netip.Addr, loopback bool) error {
	ip = ip.WithZone("").Unmap()
	all := []netip.Addr{ip}
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		all = append(all, netip.AddrFrom4([4]byte(b[12:16])))
	case sixTo4.Contains(ip):
		all = append(all, netip.AddrFrom4([4]byte(b[2:6])))
	}
	for _, a := range all {
		if a.IsLoopback() && !loopback {
			return fmt.Errorf("dialling %s: it is this machine, under a name that does not say so", ip)
		}
		if a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
			return fmt.Errorf("dialling %s: it is a link-local address, or none", ip)
		}
		for _, m := range metadata {
			if a == m {
				return fmt.Errorf("dialling %s: it is a metadata service", ip)
			}
		}
	}
	return nil
}

// exchange sends one request and returns the answer's status and at most so many bytes
// of its body. A longer one is an error. Errors hold no URL.
func (e *Engine) exchange(ctx context.Context, method, to string, body []byte, header http.Header, most int64) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return 0, nil, errors.New("making the request")
	}
	req.Header = header
	req.Header.Set("User-Agent", "counterfoil")
	resp, err := e.client.Do(req)
	if err != nil {
		if of := (*url.Error)(nil); errors.As(err, &of) {
			err = of.Err
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return resp.StatusCode, nil, fmt.Errorf("reading the answer: %w", err)
	case int64(len(answer)) > most:
		return resp.StatusCode, nil, fmt.Errorf("the answer is longer than %d bytes", most)
	}
	return resp.StatusCode, answer, nil
}
