package agent

import "strings"

// A challenge is one scheme of a WWW-Authenticate header with its parameters,
// by lower-case name.
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// challengeParam returns a parameter of the first challenge of a scheme. One
// header value may hold several schemes and a response several headers; an
// error of another scheme does not count (RFC 9449, Section 7.2).
func challengeParam(values []string, scheme, param string) string {
	for _, v := range values {
		for _, c := range parseChallenges(v) {
			if c.scheme == scheme {
				return c.params[param]
			}
		}
	}
	return ""
}

// parseChallenges reads one WWW-Authenticate value (RFC 9110, Section 11.6.1).
// Commas separate both challenges and parameters: what is followed by "=" is a
// parameter of the challenge before it, anything else begins a challenge. What
// cannot be read is skipped; the parameters before it stand.
func parseChallenges(s string) []challenge {
	var all []challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return all
		}
		name, rest := cutToken(s)
		if name == "" {
			_, s, _ = strings.Cut(s, ",")
			continue
		}
		after := strings.TrimLeft(rest, " \t")
		value, equal := strings.CutPrefix(after, "=")
		if !equal {
			all = append(all, challenge{scheme: strings.ToLower(name), params: map[string]string{}})
			s = rest
			continue
		}
		var param string
		param, s = cutValue(strings.TrimLeft(value, " \t"))
		if len(all) == 0 {
			continue
		}
		// RFC 9110, Section 11.2: a name occurs once. Of several the first
		// counts, so that what is appended changes nothing.
		params, name := all[len(all)-1].params, strings.ToLower(name)
		if _, twice := params[name]; !twice {
			params[name] = param
		}
	}
}

// cutToken splits a token (RFC 9110, Section 5.6.2) off s.
func cutToken(s string) (token, rest string) {
	i := 0
	for i < len(s) && tokenByte(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// cutValue splits a token or a quoted string (RFC 9110, Section 5.6.4) off s.
func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		// Padding of a token68, which is not a parameter.
		return value, strings.TrimLeft(rest, "=/")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "" // unterminated
}
