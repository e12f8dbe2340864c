package agent

import (
	"net/http"
	"sync"
)

// A nonce is the latest DPoP nonce of one server. The authorization server's
// and a resource's are different spaces even at one address (RFC 9449, Section
// 9), so each has its own.
type nonce struct {
	mu    sync.Mutex
	value string
}

func (n *nonce) get() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.value
}

// take keeps the nonce of an answer, whatever its status: RFC 9449, Section
// 8.2, lets a server hand out the next one with a success.
func (n *nonce) take(h http.Header) (taken bool) {
	values := h.Values("DPoP-Nonce")
	if len(values) != 1 || !validNonce(values[0]) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.value = values[0]
	return true
}

// validNonce reports whether s is 1*NQCHAR (RFC 9449, Section 8.1; RFC 6749,
// Appendix A) and of a size that still fits into a proof.
func validNonce(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= 512
}
