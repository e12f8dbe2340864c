package credential

import "sync"

// Bounds on what is remembered: so many headers of a kind, none longer than an
// honest one, one of each key.
const (
	maxHeaders = 4096
	maxHeader  = 512 // bytes of base64url
)

// Headers remembers the JOSE headers of proofs and tokens that were verified.
// All proofs that a program makes with one key have one header, its public key
// included, and so have all tokens by one: reading them again, and finding again
// that the key is a point on its curve, is a good part of what a check costs beside
// the signatures. What is remembered is what reading would find; signatures are
// verified each time.
//
// A key can be written in many ways, unknown members included, so only the last
// header of each is remembered: whoever has a key pushes out nobody but himself.
// Nothing gets in by being read: whoever has verified a proof or a token, and
// that it is somebody's who may be known here, keeps it. The zero Headers is
// ready, and a nil one remembers nothing. Safe for concurrent use; it must not be
// copied.
type Headers struct {
	mu     sync.RWMutex
	proofs headersByText
	tokens headersByText
}

type headersByText struct {
	known map[string]knownHeader
	of    map[string]string // the text of a key's header, by thumbprint or kid
}

// A knownHeader is a header that was checked, with the key that it holds.
type knownHeader struct {
	header header
	key    PublicKey // of a proof
}

// KeepProof remembers the header of a proof. The caller has verified it.
func (h *Headers) KeepProof(p UnverifiedProof) {
	if !p.jws.known {
		h.keep(&h.proofs, p.key.Thumbprint(), p.jws.input[:p.jws.first], knownHeader{p.jws.header, p.key})
	}
}

// KeepToken remembers the header of a token. The caller has verified it.
func (h *Headers) KeepToken(t UnverifiedToken) {
	if !t.jws.known {
		h.keep(&h.tokens, t.jws.header.Kid, t.jws.input[:t.jws.first], knownHeader{header: t.jws.header})
	}
}

func (h *Headers) keep(all *headersByText, key string, part []byte, known knownHeader) {
	if len(part) > maxHeader {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if all.known == nil {
		all.known, all.of = map[string]knownHeader{}, map[string]string{}
	}
	before, replaces := all.of[key]
	if !replaces && len(all.of) >= maxHeaders {
		for other, text := range all.of {
			delete(all.of, other) // any: it costs that one a reading
			delete(all.known, text)
			break
		}
	}
	delete(all.known, before)
	text := string(part)
	all.of[key], all.known[text] = text, known
}

// find returns what is known of a header, of a proof or else of a token.
func (h *Headers) find(text string, proof bool) (knownHeader, bool) {
	if h == nil {
		return knownHeader{}, false
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := &h.tokens
	if proof {
		all = &h.proofs
	}
	known, ok := all.known[text]
	return known, ok
}
