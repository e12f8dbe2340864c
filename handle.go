package counterfoil

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// A handle is a secret that says by its looks what it is: something that only who
// holds it can use, and whose server needs nothing of it but equality. It is
//
//	prefix ‖ 26 characters (128 random bits) ‖ 7 characters (CRC-32 of all before)
//
// in lower-case base32 without padding (RFC 4648, Section 6). The CRC is that of
// IEEE 802.3, four bytes in network order. So a secret scanner finds every one of
// them in any text with the regular expression
//
//	cf[ces]_[a-z2-7]{33}
//
// and tells by the checksum that a match is no accident, without asking us. The
// checksum is no protection: the 128 bits are. Access tokens are no handles; they
// are JWTs whose typ is at+jwt and whose iss is the issuer.
const (
	HandleCode      = "cfe_" // an enrolment code, of an agent's instance or of a person's passkey
	HandleSession   = "cfs_" // a person's session with the console
	HandleConnector = "cfc_" // the path under which a local connector serves
)

const (
	handleRandom   = 26
	handleChecksum = 7
)

// NewHandle makes a fresh handle with a prefix out of those above.
func NewHandle(prefix string) Secret {
	s := NewID(prefix)
	return NewSecret(s + checksum(s))
}

// CheckHandle reports whether s is a handle with that prefix, which says nothing
// about whether anyone ever made it. There is one spelling of each: what was changed
// on its way is not repaired.
func CheckHandle(prefix, s string) bool {
	if len(s) != len(prefix)+handleRandom+handleChecksum || !strings.HasPrefix(s, prefix) {
		return false
	}
	body := s[:len(s)-handleChecksum]
	raw, err := idEncoding.DecodeString(body[len(prefix):])
	// The last character carries 3 bits; the two bits it could have beside
	// them must be zero, or four spellings would be one handle.
	return err == nil && idEncoding.EncodeToString(raw) == body[len(prefix):] && checksum(body) == s[len(body):]
}

func checksum(s string) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc32.ChecksumIEEE([]byte(s)))
	return idEncoding.EncodeToString(b[:])
}
