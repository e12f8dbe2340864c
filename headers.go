package counterfoil

import "strings"

// withheld are headers of requests, in lower case, that no tool of an HTTP resource
// passes on. They say who asks, which connection it is, what a proxy believes, or what
// the request is beside what was decided on; or they are about a body as it was before it
// was written anew.
var withheld = map[string]bool{
	"authorization": true, "cookie": true, "cookie2": true, "dpop": true, "set-cookie": true,
	"connection": true, "host": true, "http2-settings": true, "keep-alive": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
	"accept-encoding": true, "content-digest": true, "content-encoding": true, "content-length": true, "content-range": true, "content-type": true, "digest": true, "expect": true,
	"repr-digest": true, "request-range": true, "signature": true, "signature-input": true,
	"forwarded": true, "max-forwards": true, "user-agent": true, "via": true, "x-host": true, "x-real-ip": true,
	"x-http-method": true, "x-http-method-override": true, "x-method-override": true,
	"idempotency-key": true, "x-idempotency-key": true,
}

// withheldPrefixes begin the names of more of them.
var withheldPrefixes = []string{
	"counterfoil-", "proxy-", "sec-websocket-", "x-client-cert", "x-envoy-", "x-forwarded-", "x-original-", "x-rewrite-", "x-ssl-",
}

// MayForward reports whether a tool of an HTTP resource may name a header of requests to
// be passed on. The case of the name does not count, and one with "_" is none: a server
// that makes variables of headers does not tell it from "-".
func MayForward(name string) bool {
	low := strings.ToLower(name)
	if low == "" || withheld[low] || strings.Contains(low, "_") {
		return false
	}
	for _, prefix := range withheldPrefixes {
		if strings.HasPrefix(low, prefix) {
			return false
		}
	}
	return true
}
