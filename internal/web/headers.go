package web

import (
	"net/http"
	"strings"
)

// Content security policies of the management listener. Nothing is loaded from
// another origin, nothing is inline, and no page frames one of ours, so that
// nobody's click lands on a button of ours (console.md, Manner).
const (
	// policyOfAnswers is for what is not a page: it loads nothing at all.
	policyOfAnswers = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

	// policyOfPages is for the console's pages and what they load.
	policyOfPages = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
)

// permissions turns off what no page here uses, so that a script that should not be
// there cannot use it either.
const permissions = "publickey-credentials-get=(self), publickey-credentials-create=(self), " +
	"accelerometer=(), autoplay=(), camera=(), display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), " +
	"gyroscope=(), hid=(), identity-credentials-get=(), idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), " +
	"otp-credentials=(), payment=(), picture-in-picture=(), screen-wake-lock=(), serial=(), storage-access=(), usb=(), " +
	"xr-spatial-tracking=()"

// securityHeaders sets what every answer of the management listener has, whatever
// it answers. A page then sets its own policy: policyOfPages.
func (m *management) securityHeaders(h http.Header) {
	h.Set("Content-Security-Policy", policyOfAnswers)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", permissions)
	if m.overTLS() {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// pageHeaders makes an answer a page of the console: personal, so nobody keeps it.
func pageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", policyOfPages)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/html; charset=utf-8")
}

// overTLS reports whether people reach the management listener over TLS, whoever
// ends it.
func (m *management) overTLS() bool { return strings.HasPrefix(m.ManagementURL, "https://") }
