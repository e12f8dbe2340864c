package resource

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/counterfoil/counterfoil/credential"
)

// NonceLife is how long a nonce is taken after it was made.
const NonceLife = 5 * time.Minute

// MemoryNonces is Nonces for one machine: a nonce is the time at which it was
// made, with a MAC under a key of this process, so that nothing is stored and
// nothing of an earlier process is taken. The token endpoint and the resources
// have one each, as their nonces are distinct (RFC 9449, Section 8.2).
type MemoryNonces struct {
	// Always asks every proof for a nonce.
	Always bool

	// LostAt is when used proofs were lost that may still be live; zero when
	// none were. A proof from before that, or from so little after that its
	// maker's clock may have been ahead, must hold a nonce made since: it was
	// not used before the loss.
	LostAt time.Time

	key [32]byte
}

// NewMemoryNonces makes nonces with a key of their own.
func NewMemoryNonces() *MemoryNonces {
	n := &MemoryNonces{}
	rand.Read(n.key[:]) // never fails: crypto/rand ends the process instead
	return n
}

// Required reports whether a proof issued then must hold a nonce.
func (n *MemoryNonces) Required(issuedAt, _ time.Time) bool {
	return n.Always || !n.LostAt.IsZero() && issuedAt.Before(n.LostAt.Add(credential.Ahead))
}

// A nonce is 8 bytes of microseconds since 1970 and 16 of MAC.
const nonceSize = 8 + 16

// Mint makes a nonce.
func (n *MemoryNonces) Mint(now time.Time) string {
	var b [nonceSize]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMicro()))
	n.mac(b[:8], b[8:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (n *MemoryNonces) mac(text, out []byte) {
	h := hmac.New(sha256.New, n.key[:])
	h.Write(text)
	copy(out, h.Sum(nil))
}

// Check reports whether the nonce is ours, not older than NonceLife, and made
// since the loss.
func (n *MemoryNonces) Check(nonce string, now time.Time) bool {
	if len(nonce) != base64.RawURLEncoding.EncodedLen(nonceSize) {
		return false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(b) != nonceSize {
		return false
	}
	var want [16]byte
	n.mac(b[:8], want[:])
	if !hmac.Equal(want[:], b[8:]) {
		return false
	}
	made := time.UnixMicro(int64(binary.BigEndian.Uint64(b)))
	return !made.After(now) && now.Sub(made) <= NonceLife && !made.Before(n.LostAt.Truncate(time.Microsecond))
}
