// Package seal encrypts secrets that are at rest, under the key-encryption key of a
// deployment. It does not keep that key, and does not check who may read.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// A sealed secret is
//
//	version (1 byte) ‖ mark of the KEK (8 bytes) ‖ nonce (12) ‖ AES-256-GCM
//
// under a key derived from the key-encryption key for one purpose, with purpose
// and key id as additional data: a row that was moved to another table or
// another key id does not open. The mark is a one-way function of the KEK, so
// that a wrong KEK is told from a damaged row, and the operator is told which.
const (
	version  = 1
	markSize = 8
	header   = 1 + markSize
)

// Reasons for which a sealed secret does not open.
var (
	ErrWrongKEK = errors.New("it was sealed under another key-encryption key")
	ErrDamaged  = errors.New("it is damaged, or belongs to another row")
)

// Seal encrypts a secret under the key-encryption key, for one purpose and one
// key id. Two seals of one secret differ.
func Seal(kek []byte, purpose, id string, plaintext []byte) ([]byte, error) {
	aead, err := cipherOf(kek, purpose)
	if err != nil {
		return nil, err
	}
	mark, err := kekMark(kek)
	if err != nil {
		return nil, err
	}
	out := append([]byte{version}, mark...)
	return aead.Seal(out, nil, plaintext, boundTo(purpose, id)), nil
}

// Open returns what Seal was given. Its error is ErrWrongKEK or ErrDamaged,
// wrapped with what an operator can do.
func Open(kek []byte, purpose, id string, sealed []byte) ([]byte, error) {
	mark, err := kekMark(kek)
	if err != nil {
		return nil, err
	}
	if len(sealed) < header || sealed[0] != version {
		return nil, fmt.Errorf("opening %s %s: %w; restore it from a backup", purpose, id, ErrDamaged)
	}
	if !bytes.Equal(sealed[1:header], mark) {
		return nil, fmt.Errorf("opening %s %s: %w (mark %s, the one given has %s); put back the KEK file that this data was made with",
			purpose, id, ErrWrongKEK, hex.EncodeToString(sealed[1:header]), hex.EncodeToString(mark))
	}
	aead, err := cipherOf(kek, purpose)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nil, sealed[header:], boundTo(purpose, id))
	if err != nil {
		return nil, fmt.Errorf("opening %s %s: %w; restore it from a backup", purpose, id, ErrDamaged)
	}
	return plaintext, nil
}

// cipherOf derives the purpose's own key (RFC 5869), so that what one purpose's
// key leaks says nothing of another's.
func cipherOf(kek []byte, purpose string) (cipher.AEAD, error) {
	key, err := derive(kek, "counterfoil/seal/1\n"+purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func kekMark(kek []byte) ([]byte, error) { return derive(kek, "counterfoil/kek-mark/1", markSize) }

func derive(kek []byte, info string, n int) ([]byte, error) {
	if len(kek) != 32 {
		return nil, fmt.Errorf("the key-encryption key has %d bytes, not 32", len(kek))
	}
	return hkdf.Key(sha256.New, kek, nil, info, n)
}

func boundTo(purpose, id string) []byte { return []byte(purpose + "\n" + id) }
