package outbound

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// metadataNames are names of the metadata services of clouds.
var metadataNames = []string{
	"metadata", "metadata.google.internal", "metadata.goog", "metadata.internal",
	"instance-data", "instance-data.ec2.internal", "metadata.azure.internal", "metadata.tencentyun.com", "metadata.platformequinix.com",
}

var (
	hostLabel    = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
	numericLabel = regexp.MustCompile(`^(0x[0-9a-f]*|[0-9]+)$`)
)

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// CheckURL reports why a URL may not be connected to, as far as its text says; what its
// name resolves to is judged when it is dialled. It takes absolute https URLs, and http
// ones where the host is loopback by its own word and opened, or where trust is Upstream.
// What hides where a URL leads is refused: user information, fragments, backslashes,
// blanks, numbers that some resolvers read as addresses, a zone. Errors are ErrRefused
// and say nothing of the URL but an address.
func (g *Guard) CheckURL(t Trust, s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return refuse("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse("is not an http or https URL")
	case u.Opaque != "" || u.Hostname() == "":
		return refuse("has no host")
	case u.User != nil || strings.Contains(u.Host, "@"):
		return refuse("has a user or a password")
	case strings.Contains(s, "#"):
		return refuse("has a fragment")
	case strings.ContainsAny(s, " \\"):
		return refuse("has a blank or a backslash")
	case strings.HasSuffix(u.Host, ":"):
		return refuse("has no port after the colon")
	}
	if p := u.Port(); p != "" {
		if v, err := strconv.Atoi(p); err != nil || v < 1 || v > 65535 || p[0] == '0' {
			return refuse("has no port between 1 and 65535")
		}
	}
	local, err := g.checkHost(t, strings.ToLower(u.Hostname()))
	if err != nil {
		return err
	}
	if u.Scheme == "http" && t != Upstream && !local {
		return refuse("is plain http, which is for loopback; use https")
	}
	return nil
}

// CheckForm reports why nobody connects to a URL, whatever the operator's list opens:
// where a URL is read by who does not know the list. What passes still has to pass a
// Guard.
func CheckForm(t Trust, s string) error { return widest.CheckURL(t, s) }

var widest = &Guard{widest: true}

// checkHost judges a host in lower case, without brackets and port, and reports whether
// it is loopback by its own word.
func (g *Guard) checkHost(t Trust, host string) (local bool, err error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return false, refuse("names an interface; write the address alone")
		}
		if why := g.judge(t, a); why != "" {
			return false, refuse("leads to %s, which %s", a, why)
		}
		return a.Unmap().IsLoopback(), nil
	}
	name, rooted := strings.CutSuffix(host, ".")
	if rooted && t != Upstream {
		return false, refuse("has a dot after its host")
	}
	for l := range strings.SplitSeq(name, ".") {
		if !hostLabel.MatchString(l) {
			return false, refuse("has no host name in ASCII")
		}
	}
	// https://url.spec.whatwg.org/#ends-in-a-number-checker: some resolvers read
	// 2852039166, 127.1 or 0xA9.0xFE.1 as an address.
	if len(name) > 253 || numericLabel.MatchString(name[strings.LastIndexByte(name, '.')+1:]) {
		return false, refuse("has a number for a host; write addresses as 10.0.0.1")
	}
	switch {
	case slices.Contains(metadataNames, name):
		return false, refuse("is a cloud's metadata service")
	case name == "localhost" && rooted:
		return false, refuse("has a dot after localhost")
	case name == "localhost", strings.HasSuffix(name, ".localhost"): // RFC 6761, Section 6.3
		if why := g.judge(t, loopback4); why != "" && g.judge(t, loopback6) != "" {
			return false, refuse("leads to localhost, which %s", why)
		}
		return name == "localhost", nil
	}
	return false, nil
}
