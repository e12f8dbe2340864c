package counterfoil

import (
	"crypto/sha256"
	"strings"
)

// codeLength is the length of an enrolment code, which is a handle: prefix, random
// part and checksum let a secret scanner tell a leaked code from any other text
// without asking us, and let us refuse a mistyped one before anything is looked up.
const codeLength = len(HandleCode) + handleRandom + handleChecksum

// NewEnrolmentCode makes a fresh enrolment code, of an agent's instance or of a
// person's passkey. Only its hash is ever kept.
func NewEnrolmentCode() (code Secret, hash [sha256.Size]byte) {
	code = NewHandle(HandleCode)
	return code, hashCode(code.Reveal())
}

// ParseEnrolmentCode reads an enrolment code that is well formed, which says nothing
// about whether anyone ever made it, and returns the hash that it is looked up by. It
// takes no other spelling than the one that was handed out: a code that was changed on
// its way is not repaired.
func ParseEnrolmentCode(s string) (hash [sha256.Size]byte, err error) {
	if len(s) != codeLength || !strings.HasPrefix(s, HandleCode) {
		return hash, Refuse(EnrolmentRefused, "an enrolment code begins with %s and has %d characters", HandleCode, codeLength)
	}
	if !CheckHandle(HandleCode, s) {
		return hash, Refuse(EnrolmentRefused, "the enrolment code is mistyped: its checksum does not match")
	}
	return hashCode(s), nil
}

func hashCode(s string) [sha256.Size]byte {
	// A plain hash: the code has 128 random bits, so nothing can be guessed.
	return sha256.Sum256([]byte("counterfoil/enrolment-code/1\n" + s))
}
