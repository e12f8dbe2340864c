package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// checkURL reads an absolute http or https URL without anything that hides where
// it leads or that is a secret.
func checkURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%.160q is not a URL", s)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%.160q is not an http or https URL", s)
	case u.Opaque != "" || u.Host == "":
		return nil, fmt.Errorf("%.160q has no host", s)
	case u.User != nil:
		return nil, errors.New("must not have a user or a password; secrets are files under secrets_dir (credential)")
	case strings.Contains(s, "#"):
		return nil, errors.New("must not have a fragment")
	case strings.ContainsAny(s, " \\"):
		return nil, errors.New("must not have blanks or backslashes")
	}
	if strings.HasSuffix(u.Host, ":") {
		return nil, fmt.Errorf("%.160q has no port after the colon", s)
	}
	if p := u.Port(); p != "" {
		if v, err := strconv.Atoi(p); err != nil || v < 1 || v > 65535 {
			return nil, fmt.Errorf("port %.10q is not one", p)
		}
	}
	return u, nil
}

// checkIssuer takes what RFC 8414, Section 2 takes as an issuer identifier, and
// http for platforms inside a cluster.
func checkIssuer(s string) error {
	u, err := checkURL(s)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("must not have a query")
	}
	return nil
}

// checkPublicURL takes what may be a resource identifier: RFC 8707, Section 2
// forbids a fragment and advises against a query.
func checkPublicURL(s string) error { return checkIssuer(s) }

// checkUpstream takes where the gateway may be sent. Addresses that hand out the
// machine's own credentials are never an upstream, however they are written: the
// gateway would carry them to the agent. What a name resolves to is not known
// here.
func checkUpstream(s string) error {
	u, err := checkURL(s)
	if err != nil {
		return err
	}
	return checkDialled(u)
}

// checkPlatform takes the issuer of a platform's identities: keys are fetched
// from there.
func checkPlatform(s string) error {
	if err := checkIssuer(s); err != nil {
		return err
	}
	u, err := checkURL(s)
	if err != nil {
		return err
	}
	return checkDialled(u)
}

// checkSubject takes one workload's name: nothing in it stands for others.
func checkSubject(s string) error {
	if s == "" || strings.Contains(s, "*") {
		return fmt.Errorf("%.80q is not one subject: it is compared as it is written, and has no wildcards", s)
	}
	return nil
}

// checkDialled takes the host of a URL that the server connects to.
func checkDialled(u *url.URL) error {
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		return checkAddress(a)
	}
	if err := checkHost(host); err != nil {
		return err
	}
	if slices.Contains(metadataNames, host) {
		return fmt.Errorf("%s is a cloud's metadata service, which is never an upstream", host)
	}
	return nil
}

var metadataNames = []string{
	"metadata", "metadata.google.internal", "metadata.goog", "metadata.internal",
	"instance-data", "instance-data.ec2.internal", "metadata.azure.internal", "metadata.tencentyun.com", "metadata.platformequinix.com",
}

// metadataAddrs are the metadata services beyond the link-local networks: AWS
// over IPv6, Alibaba, Oracle, Azure's wire server.
var metadataAddrs = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("168.63.129.16"),
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func checkAddress(a netip.Addr) error {
	if a.Zone() != "" {
		return fmt.Errorf("%s names an interface; write the address alone", a)
	}
	bare := a.Unmap()
	if b := bare.As16(); nat64.Contains(bare) {
		bare = netip.AddrFrom4([4]byte(b[12:])) // RFC 6052, Section 2.2
	}
	switch {
	case bare.IsLinkLocalUnicast() || slices.Contains(metadataAddrs, bare):
		return fmt.Errorf("%s is a link-local or metadata address, which is never an upstream", a)
	case bare.IsUnspecified():
		return fmt.Errorf("%s is no address to connect to; write 127.0.0.1 or ::1", a)
	case bare.IsMulticast():
		return fmt.Errorf("%s is a multicast address", a)
	}
	return nil
}

var hostLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

var numericLabel = regexp.MustCompile(`^(0x[0-9a-f]*|[0-9]+)$`)

// checkHost takes a name in ASCII. One that ends in a number is an address in
// disguise (https://url.spec.whatwg.org/#ends-in-a-number-checker): some
// resolvers read 2852039166 or 0xA9.0xFE.1 as one.
func checkHost(host string) error {
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if !hostLabel.MatchString(l) {
			return fmt.Errorf("%.160q is not a host name", host)
		}
	}
	if len(host) > 253 || numericLabel.MatchString(labels[len(labels)-1]) {
		return fmt.Errorf("%.160q is not a host name; write addresses as 10.0.0.1", host)
	}
	return nil
}

var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")

// framing are headers that are the connection's or the request's own: as a
// credential they would change what is sent, or would be taken off again.
var framing = []string{
	"connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive", "proxy-connection",
	"te", "trailer", "transfer-encoding", "upgrade", "dpop",
}

func checkHeaderName(s string) error {
	if !headerName.MatchString(s) {
		return fmt.Errorf("%.80q is not a header's name", s)
	}
	if slices.Contains(framing, strings.ToLower(s)) {
		return fmt.Errorf("header %q is the request's own and cannot carry a credential", s)
	}
	return nil
}

var secretFile = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,126}$`)

// checkSecretFile takes a plain name: no separator, no parent, nothing hidden.
func checkSecretFile(s string) error {
	if !secretFile.MatchString(s) || strings.Contains(s, "..") {
		return fmt.Errorf("%.80q is not a plain file name under secrets_dir: letters, digits, _ - and ., without a slash and without two dots in a row", s)
	}
	return nil
}

var (
	pathVariable = regexp.MustCompile(`^\{[A-Za-z_][A-Za-z0-9_]{0,63}\}$`)
	pathLiteral  = regexp.MustCompile(`^[A-Za-z0-9._~!$&'()*+,;=:@-]+$`)
)

// checkPath takes a template such as /customers/{id}: literal segments in plain
// characters (RFC 3986, Section 3.3, without percent-encoding) and segments that
// are one variable.
func checkPath(s string) error {
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("%.160q does not begin with a slash", s)
	}
	segments := strings.Split(s[1:], "/")
	seen := map[string]bool{}
	for i, seg := range segments {
		switch {
		case seg == "" && i == len(segments)-1:
			// "/" itself, and a path that ends in a slash.
		case seg == "":
			return fmt.Errorf("%.160q has an empty segment", s)
		case seg == "." || seg == "..":
			return fmt.Errorf("%.160q has a segment %s", s, seg)
		case pathVariable.MatchString(seg):
			if seen[seg] {
				return fmt.Errorf("%.160q has the variable %s twice", s, seg)
			}
			seen[seg] = true
		case strings.ContainsAny(seg, "{}"):
			return fmt.Errorf("segment %.80q of %.160q is not a variable such as {id}; a variable is a whole segment", seg, s)
		case !pathLiteral.MatchString(seg):
			return fmt.Errorf("segment %.80q of %.160q has a character that a path template does not take (no %%, ? or #)", seg, s)
		}
	}
	return nil
}

// ambiguous reports whether some path matches both templates and neither is the
// more special one at every segment. A literal beats a variable; where each
// template has a literal against the other's variable nothing decides.
func ambiguous(a, b string) bool {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	if len(as) != len(bs) {
		return false
	}
	aWins, bWins := false, false
	for i := range as {
		av, bv := isVariable(as[i]), isVariable(bs[i])
		switch {
		case av && bv:
		case av && bs[i] == "", bv && as[i] == "":
			return false // a variable is never empty
		case av:
			bWins = true
		case bv:
			aWins = true
		case as[i] != bs[i]:
			return false
		}
	}
	return aWins == bWins
}

func isVariable(segment string) bool { return strings.HasPrefix(segment, "{") }
