package credential

import "sync"

// maxHeaders bounds how many headers of a kind are remembered.
const maxHeaders = 4096

// Headers remembers the JOSE headers of proofs and tokens that were verified.
// All proofs by one key have one header, its public key included, and so have all
// tokens by one: reading them again, and finding again that the key is a point
// on its curve, is a good part of what a check costs beside the signatures. What
// is remembered is what reading would find; signatures are verified each time.
//
// Nothing gets in by being read: whoever has verified a proof or a token, and
// that it is somebody's who may be known here, keeps it. The zero Headers is
// ready, and a nil one remembers nothing. Safe for concurrent use; it must not be
// copied.
type Headers struct {
	mu     sync.RWMutex
	proofs map[string]knownHeader
	tokens map[string]knownHeader
}

// A knownHeader is a header that was checked, with the key that it holds.
type knownHeader struct {
	header header
	key    PublicKey // of a proof
}

// KeepProof remembers the header of a proof. The caller has verified it.
func (h *Headers) KeepProof(p UnverifiedProof) {
	if !p.jws.known {
		h.keep(&h.proofs, string(p.jws.input[:p.jws.first]), knownHeader{p.jws.header, p.key})
	}
}

// KeepToken remembers the header of a token. The caller has verified it.
func (h *Headers) KeepToken(t UnverifiedToken) {
	if !t.jws.known {
		h.keep(&h.tokens, string(t.jws.input[:t.jws.first]), knownHeader{header: t.jws.header})
	}
}

func (h *Headers) keep(all *map[string]knownHeader, text string, known knownHeader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if *all == nil {
		*all = map[string]knownHeader{}
	}
	if len(*all) >= maxHeaders {
		for other := range *all {
			delete(*all, other) // any: it costs that one a reading
			break
		}
	}
	(*all)[text] = known
}

// find returns what is known of a header, of a proof or else of a token.
func (h *Headers) find(text string, proof bool) (knownHeader, bool) {
	if h == nil {
		return knownHeader{}, false
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := h.tokens
	if proof {
		all = h.proofs
	}
	known, ok := all[text]
	return known, ok
}
