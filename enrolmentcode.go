package counterfoil

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// An enrolment code, of an agent's instance or of a person's passkey, is
//
//	cfe_ ‖ 26 characters (128 random bits) ‖ 7 characters (CRC-32 of all before)
//
// in lower-case base32 without padding (RFC 4648, Section 6), that is the
// regular expression cfe_[a-z2-7]{33}. Prefix and checksum let a secret scanner
// tell a leaked code from any other text without asking us, and let us refuse a
// mistyped one before anything is looked up. The checksum is no protection: the
// 128 bits are.
const (
	codePrefix   = "cfe_"
	codeRandom   = 26
	codeChecksum = 7
	codeLength   = len(codePrefix) + codeRandom + codeChecksum
)

// NewEnrolmentCode makes a fresh enrolment code. Only its hash is ever kept.
func NewEnrolmentCode() (code Secret, hash [sha256.Size]byte) {
	s := NewID(codePrefix)
	s += checksum(s)
	return NewSecret(s), hashCode(s)
}

func checksum(s string) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc32.ChecksumIEEE([]byte(s)))
	return idEncoding.EncodeToString(b[:])
}

// ParseEnrolmentCode reads an enrolment code that is well formed, which says nothing
// about whether anyone ever made it, and returns the hash that it is looked up by. It
// takes no other spelling than the one that was handed out: a code that was changed on
// its way is not repaired.
func ParseEnrolmentCode(s string) (hash [sha256.Size]byte, err error) {
	if len(s) != codeLength || !strings.HasPrefix(s, codePrefix) {
		return hash, Refuse(EnrolmentRefused, "an enrolment code begins with %s and has %d characters", codePrefix, codeLength)
	}
	body := s[:codeLength-codeChecksum]
	raw, err := idEncoding.DecodeString(body[len(codePrefix):])
	// The last character carries 3 bits; the two bits it could have beside
	// them must be zero, or four spellings would be one code.
	if err != nil || idEncoding.EncodeToString(raw) != body[len(codePrefix):] || checksum(body) != s[len(body):] {
		return hash, Refuse(EnrolmentRefused, "the enrolment code is mistyped: its checksum does not match")
	}
	return hashCode(s), nil
}

func hashCode(s string) [sha256.Size]byte {
	// A plain hash: the code has 128 random bits, so nothing can be guessed.
	return sha256.Sum256([]byte("counterfoil/enrolment-code/1\n" + s))
}
