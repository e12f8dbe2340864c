package manifest

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
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

// checkUpstream takes where the gateway may be sent.
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

// checkDialled takes the host of a URL that the server connects to: nothing but a name or
// an address, in the one way to write it. Which addresses may be connected to is not
// known here: see Addresses.
func checkDialled(u *url.URL) error {
	return outbound.CheckForm(outbound.Upstream, u.String())
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

// checkForwarded takes a request header that a tool passes on.
func checkForwarded(s string) error {
	switch {
	case !headerName.MatchString(s):
		return fmt.Errorf("%.80q is not a header's name", s)
	case !counterfoil.MayForward(s):
		return fmt.Errorf("header %q is never passed on", s)
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
	pathPieces   = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()*+,;=:@-]|\{[A-Za-z0-9_.-]{1,64}\})+$`)
)

// checkPath takes a template such as /customers/{id}: literal segments in plain
// characters (RFC 3986, Section 3.3, without percent-encoding) and segments that
// are one variable.
func checkPath(s string) error { return checkSegments(s, false) }

// checkUnlisted takes the template of a tool without a class, which may have variables
// within a segment, such as /reports/{name}.csv: nobody calls it.
func checkUnlisted(s string) error { return checkSegments(s, true) }

func checkSegments(s string, within bool) error {
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
		case within && pathPieces.MatchString(seg):
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

// clash reports whether two tools of one method cannot stand beside each other. One
// without a class takes requests away from every other, so that it may match some of them
// equally well, but not the same ones.
func clash(a, b *counterfoil.Tool) bool {
	if a.Class != "" && b.Class != "" {
		return ambiguous(a.Path, b.Path)
	}
	return shapeOf(a.Path) == shapeOf(b.Path)
}

// shapeOf is a template without its variables' names.
func shapeOf(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if isVariable(s) {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}

// isVariable reports whether a segment is a variable, and nothing beside.
func isVariable(segment string) bool {
	return strings.HasPrefix(segment, "{") && strings.IndexByte(segment, '}') == len(segment)-1
}
