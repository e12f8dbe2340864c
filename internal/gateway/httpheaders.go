package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// passed are the headers of requests that go on to every HTTP resource, beside those that
// its tool names. Whether they are a part of the call that people allow is their value.
var passed = map[string]bool{
	"Accept": false, "Accept-Language": false, "Traceparent": false, "Tracestate": false,
	"If-Match": true, "If-None-Match": true, "If-Modified-Since": true, "If-Unmodified-Since": true, "If-Range": true,
	"Range": true, "Prefer": true,
}

// ofParts are the headers by which a request asks for a part of what there is.
var ofParts = []string{"Range", "If-Range"}

// asksForParts reports whether a header asks for a part of an answer. What two answers
// hold a half of each no mask finds, so where there is something to be masked there are
// no parts.
func asksForParts(name string) bool { return slices.Contains(ofParts, name) }

// partial reports whether an answer is a part of what there is.
func partial(reply *reply) bool {
	media := strings.ToLower(strings.TrimSpace(reply.Header.Get("Content-Type")))
	return reply.StatusCode == http.StatusPartialContent || strings.HasPrefix(media, "multipart/byteranges")
}

// forwarded makes the headers of the request that go on, and those of them that are a
// part of the call.
func (t *webTool) forwarded(from http.Header) (all, digested http.Header, err error) {
	all, digested = http.Header{}, http.Header{}
	take := func(name string, part bool) {
		values := from[name]
		if len(values) == 0 || err != nil {
			return
		}
		value := strings.Join(values, ", ") // RFC 9110, Section 5.3
		if name == "Prefer" {
			if value = withoutAsync(value); value == "" {
				return
			}
		}
		if !isPlain(value) {
			err = counterfoil.Refuse(counterfoil.RequestMalformed, "the header %s has a character beyond visible ASCII", name)
			return
		}
		all[name] = []string{value}
		if part {
			digested[name] = all[name]
		}
	}
	for name, part := range passed {
		if t.parts || !asksForParts(name) {
			take(name, part)
		}
	}
	for _, name := range t.headers {
		take(name, true)
	}
	return all, digested, err
}

// withoutAsync takes off a Prefer header (RFC 7240) what is said to the gateway: how it
// answers when people have a say. It is no part of the call.
func withoutAsync(value string) string {
	var kept []string
	for preference := range strings.SplitSeq(value, ",") {
		name, _, _ := strings.Cut(preference, ";")
		if p := strings.TrimSpace(preference); p != "" && !strings.EqualFold(strings.TrimSpace(name), "respond-async") {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, ", ")
}

// headerObject writes headers as an object in canonical form, names in lower case; nil
// where there are none.
func headerObject(h http.Header) []byte {
	if len(h) == 0 {
		return nil
	}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	b := []byte{'{'}
	for _, name := range names {
		b = appendMember(b, strings.ToLower(name), quote(h[name][0]))
	}
	return append(b, '}')
}

// dropped are headers of answers that do not go on: they are about the upstream's own
// connection, about who it takes the gateway for, or about the whole origin, which is the
// gateway's.
var dropped = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Set-Cookie": true, "Set-Cookie2": true, "Www-Authenticate": true, "Proxy-Authenticate": true, "Authentication-Info": true, "Proxy-Authentication-Info": true,
	"Dpop-Nonce": true, "Server": true, "X-Powered-By": true, "Via": true, "Date": true,
	"Strict-Transport-Security": true, "Public-Key-Pins": true, "Alt-Svc": true, "Clear-Site-Data": true, "Service-Worker-Allowed": true, "Nel": true, "Report-To": true,
	"Refresh": true, "Sourcemap": true,
	"Cache-Control": true, "Pragma": true, "Expires": true, "Age": true, // no answer is for anybody else: it has no-store
	"X-Request-Id": true, "Content-Length": true, "Content-Encoding": true, "X-Accel-Redirect": true, "X-Accel-Buffering": true, "X-Sendfile": true,
}

// answerHeaders makes the headers of an answer that go on to the client.
func (c *httpCall) answerHeaders(from http.Header) http.Header {
	own := map[string]bool{}
	for _, v := range from["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			own[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	out := http.Header{}
	for name, values := range from {
		if dropped[name] || own[name] || strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "Counterfoil-") || strings.HasPrefix(name, "X-Accel-") {
			continue
		}
		out[name] = values
	}
	if c.resource.Credential != nil {
		delete(out, "Accept-Ranges")
	}
	for _, name := range []string{"Location", "Content-Location"} {
		if v := out[name]; len(v) > 0 {
			if mapped := c.mapLocation(v[0]); mapped != "" {
				out[name] = []string{mapped}
			} else {
				delete(out, name)
			}
		}
	}
	return out
}
