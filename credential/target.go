package credential

import (
	"errors"
	"strings"
)

// sameTarget reports whether htu names the request's URL: both without query
// and fragment, after syntax-based and scheme-based normalisation (RFC 3986,
// Sections 6.2.2 and 6.2.3). An htu that is no URL is not the same. The error
// is about the request's URL, which is ours.
func sameTarget(htu, url string) (bool, error) {
	// What a careful client sends and what is configured are normally the
	// same text.
	if htu == url && !strings.ContainsAny(url, "?#") {
		return true, nil
	}
	want, ok := normalize(url)
	if !ok {
		return false, errors.New("it is not an absolute http or https URL in ASCII")
	}
	got, ok := normalize(htu)
	return ok && got == want, nil
}

// normalize returns the normal form of an absolute http or https URL without
// its query and fragment. It is no parser for URLs to be followed: userinfo,
// which has no place there (RFC 9110, Section 4.2.4), white space and bytes
// beyond ASCII make it say no.
func normalize(s string) (string, bool) {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return "", false
		}
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return "", false
	}
	defaultPort := ""
	switch scheme = strings.ToLower(scheme); scheme {
	case "https":
		defaultPort = "443"
	case "http":
		defaultPort = "80"
	default:
		return "", false
	}
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if authority == "" || strings.ContainsAny(authority, "@\\") {
		return "", false
	}
	authority, ok = percent(authority)
	if !ok {
		return "", false
	}
	// Section 6.2.2.1: the host is case-insensitive. After percent-decoding,
	// as that may show letters.
	authority = lowerOutsideEscapes(authority)
	// Section 6.2.3: the default port and an empty one are none.
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port = authority[:i], authority[i+1:]
	}
	if host == "" || strings.Trim(port, "0123456789") != "" || host[0] != '[' && strings.IndexByte(host, ':') >= 0 {
		return "", false
	}
	if authority = host; port != "" && port != defaultPort {
		authority += ":" + port
	}
	// Section 6.2.2.2 before 6.2.2.3: %2e is a dot.
	if path, ok = percent(path); !ok {
		return "", false
	}
	path = removeDotSegments(path)
	if path == "" {
		path = "/" // Section 6.2.3
	}
	return scheme + "://" + authority + path, true
}

// percent decodes escapes of unreserved characters and writes others in upper
// case (RFC 3986, Sections 6.2.2.1 and 6.2.2.2).
func percent(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		hi, ok1 := unhex(s[i+1])
		lo, ok2 := unhex(s[i+2])
		if !ok1 || !ok2 {
			return "", false
		}
		if c := hi<<4 | lo; unreserved(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteString(strings.ToUpper(s[i+1 : i+3]))
		}
		i += 2
	}
	return b.String(), true
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// unreserved is RFC 3986, Section 2.3.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// lowerOutsideEscapes lowers ASCII letters but for those of escapes, which are
// in upper case already.
func lowerOutsideEscapes(s string) string {
	b := []byte(s)
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '%':
			i += 2
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// removeDotSegments is RFC 3986, Section 5.2.4, for a path that is empty or
// starts with a slash. Empty segments stay: //a is not /a.
func removeDotSegments(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	segments := strings.Split(path[1:], "/")
	for i, seg := range segments {
		last := i == len(segments)-1
		switch seg {
		case ".", "..":
			if seg == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, seg)
		}
	}
	return "/" + strings.Join(out, "/")
}
