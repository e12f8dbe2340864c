package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil/ijson"
)

// The algorithms by name. EdDSA is the name that RFC 9864 replaced by Ed25519;
// both are taken, and only with that curve.
const (
	ES256   = "ES256"
	ES384   = "ES384"
	Ed25519 = "Ed25519"
	EdDSA   = "EdDSA"
	PS256   = "PS256"

	// RS256 is for security events alone, which receivers of shared signals expect
	// (CAEP Interoperability Profile, Section 2.6). No agent and no token has it.
	RS256 = "RS256"
)

var algorithms = []string{ES256, ES384, EdDSA, Ed25519, PS256}

// Algorithms returns the names of the algorithms that are taken, as metadata
// and challenges list them.
func Algorithms() []string { return slices.Clone(algorithms) }

func allowed(alg string) bool { return slices.Contains(algorithms, alg) }

// eventAlgorithms are those of security events that are received.
var eventAlgorithms = []string{RS256, ES256, PS256}

// EventAlgorithms returns the names of the algorithms that are taken of those who
// send security events.
func EventAlgorithms() []string { return slices.Clone(eventAlgorithms) }

// A PublicKey is a key that passed every check of this package, with its one
// algorithm. It is immutable. The zero PublicKey verifies nothing.
type PublicKey struct {
	alg   string
	key   crypto.PublicKey // *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey
	jwk   string           // canonical, required members only
	thumb string
}

// IsZero reports whether k is the zero PublicKey.
func (k PublicKey) IsZero() bool { return k.key == nil }

// Alg returns the algorithm that the key is for: ES256, ES384, Ed25519 or
// PS256, and of a key for events also RS256.
func (k PublicKey) Alg() string { return k.alg }

// Thumbprint returns the RFC 7638 thumbprint with SHA-256, in base64url: the
// key's id.
func (k PublicKey) Thumbprint() string { return k.thumb }

// JWK returns the public key with its required members alone, in canonical
// form: the text that the thumbprint is made over.
func (k PublicKey) JWK() []byte { return []byte(k.jwk) }

// Key returns the standard library's key, which must not be changed.
func (k PublicKey) Key() crypto.PublicKey { return k.key }

// jwk holds the members of a JWK that mean something to us (RFC 7517, RFC
// 7518, RFC 8037).
type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y"`
	N   string `json:"n"`
	E   string `json:"e"`
	Alg string `json:"alg"`
	Use string `json:"use"`

	KeyOps []string `json:"key_ops"`

	// Private or symmetric key material.
	D   jsontext.Value `json:"d"`
	P   jsontext.Value `json:"p"`
	Q   jsontext.Value `json:"q"`
	DP  jsontext.Value `json:"dp"`
	DQ  jsontext.Value `json:"dq"`
	QI  jsontext.Value `json:"qi"`
	Oth jsontext.Value `json:"oth"`
	K   jsontext.Value `json:"k"`
}

// maxJWK is more than a public RSA key of 8192 bits needs.
const maxJWK = 8 << 10

// ParseJWK reads a public JWK. Members that say nothing about the key itself
// are ignored; private members, symmetric keys, points off their curve, weak
// RSA keys, and alg, use or key_ops for anything but verification are errors.
// Errors are plain and may be shown to whoever sent the key.
func ParseJWK(b []byte) (PublicKey, error) {
	if len(b) > maxJWK {
		return PublicKey{}, fmt.Errorf("the JWK is larger than %d bytes", maxJWK)
	}
	if err := ijson.Check(b); err != nil {
		return PublicKey{}, fmt.Errorf("the JWK: %w", err)
	}
	return parseJWK(b)
}

// parseJWK is ParseJWK for what passed ijson.Check.
func parseJWK(b jsontext.Value) (PublicKey, error) {
	k, alg, err := readJWK(b)
	if err != nil {
		return PublicKey{}, err
	}
	if alg != "" && !k.takes(alg) {
		return PublicKey{}, fmt.Errorf("the JWK's alg %.16q is not %s, which its type is for", alg, k.alg)
	}
	return k, nil
}

// ParseEventJWK reads a public JWK whose key signs security events and nothing else,
// under the rules of ParseJWK. An RSA key is for the algorithm that its alg names,
// RS256 or PS256; without one it is for RS256, which such keys are for (CAEP
// Interoperability Profile, Section 2.6). A key for events verifies no assertion, no
// proof and no token.
func ParseEventJWK(b []byte) (PublicKey, error) {
	if len(b) > maxJWK {
		return PublicKey{}, fmt.Errorf("the JWK is larger than %d bytes", maxJWK)
	}
	if err := ijson.Check(b); err != nil {
		return PublicKey{}, fmt.Errorf("the JWK: %w", err)
	}
	k, alg, err := readJWK(b)
	if err != nil {
		return PublicKey{}, err
	}
	if k.alg == PS256 && (alg == "" || alg == RS256) {
		k.alg = RS256
	}
	switch {
	case !slices.Contains(eventAlgorithms, k.alg):
		return PublicKey{}, fmt.Errorf("a key of algorithm %s signs no events; they are signed with %s", k.alg, strings.Join(eventAlgorithms, ", "))
	case alg != "" && !k.takes(alg):
		return PublicKey{}, fmt.Errorf("the JWK's alg %.16q is not %s, which its type is for", alg, k.alg)
	}
	return k, nil
}

// ParseJWKFor reads a public JWK of ours as a key for one algorithm: RS256, for
// events, or one of Algorithms.
func ParseJWKFor(alg string, b []byte) (PublicKey, error) {
	parse := ParseJWK
	if alg == RS256 {
		parse = ParseEventJWK
	}
	k, err := parse(b)
	if err == nil && !k.takes(alg) {
		return PublicKey{}, fmt.Errorf("the JWK is for %s, not for %.16q", k.alg, alg)
	}
	return k, err
}

// readJWK reads the key of a JWK, and what it says its algorithm is.
func readJWK(b jsontext.Value) (PublicKey, string, error) {
	if b.Kind() != '{' {
		return PublicKey{}, "", errors.New("the JWK is not a JSON object")
	}
	var j jwk
	if err := json.Unmarshal(b, &j); err != nil {
		return PublicKey{}, "", fmt.Errorf("the JWK: %w", ijson.Explain(err))
	}
	// RFC 9449, Section 4.3, check 7, and plain sense at registration: whoever
	// shows a private key has lost it.
	for _, v := range [...]jsontext.Value{j.D, j.P, j.Q, j.DP, j.DQ, j.QI, j.Oth, j.K} {
		if v != nil {
			return PublicKey{}, "", errors.New("the JWK holds private or symmetric key material")
		}
	}
	if j.Use != "" && j.Use != "sig" {
		return PublicKey{}, "", fmt.Errorf("the JWK's use %.16q is not sig", j.Use)
	}
	if j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify") {
		return PublicKey{}, "", errors.New("the JWK's key_ops do not include verify")
	}
	k, err := j.key()
	return k, j.Alg, err
}

func (j *jwk) key() (PublicKey, error) {
	switch {
	case j.Kty == "EC" && j.Crv == "P-256":
		return parseEC(ES256, elliptic.P256(), 32, j)
	case j.Kty == "EC" && j.Crv == "P-384":
		return parseEC(ES384, elliptic.P384(), 48, j)
	case j.Kty == "OKP" && j.Crv == "Ed25519":
		x, err := decode(make([]byte, 0, ed25519.PublicKeySize), []byte(j.X))
		if err != nil || len(x) != ed25519.PublicKeySize {
			return PublicKey{}, errors.New("the JWK's x is not 32 bytes in base64url")
		}
		return newEd25519(x)
	case j.Kty == "RSA":
		return parseRSA(j)
	case j.Kty == "EC" || j.Kty == "OKP":
		return PublicKey{}, fmt.Errorf("the JWK's curve %.16q is not P-256, P-384 or Ed25519", j.Crv)
	}
	return PublicKey{}, fmt.Errorf("the JWK's kty %.16q is not EC, OKP or RSA", j.Kty)
}

func parseEC(alg string, curve elliptic.Curve, size int, j *jwk) (PublicKey, error) {
	// RFC 7518, Section 6.2.1.2: the length of the octet string must be the
	// full size of a coordinate.
	var buf [1 + 2*48]byte
	buf[0] = 4 // uncompressed (SEC 1, Section 2.3.4)
	point, err := decode(buf[:1], []byte(j.X))
	if err != nil || len(point) != 1+size {
		return PublicKey{}, fmt.Errorf("the JWK's x is not %d bytes in base64url", size)
	}
	point, err = decode(point, []byte(j.Y))
	if err != nil || len(point) != 1+2*size {
		return PublicKey{}, fmt.Errorf("the JWK's y is not %d bytes in base64url", size)
	}
	return newEC(alg, curve, point)
}

func newEC(alg string, curve elliptic.Curve, point []byte) (PublicKey, error) {
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return PublicKey{}, errors.New("the key's point is not on its curve")
	}
	size := len(point) / 2
	var buf [256]byte
	b := append(buf[:0], `{"crv":"`...)
	b = append(b, curve.Params().Name...)
	b = append(b, `","kty":"EC","x":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, point[1:1+size])
	b = append(b, `","y":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, point[1+size:])
	b = append(b, `"}`...)
	return newKey(alg, pub, b), nil
}

func newEd25519(x []byte) (PublicKey, error) {
	if smallOrder(x) {
		return PublicKey{}, errors.New("the key's point is of small order: anybody could sign for it")
	}
	var buf [128]byte
	b := append(buf[:0], `{"crv":"Ed25519","kty":"OKP","x":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, x)
	b = append(b, `"}`...)
	return newKey(Ed25519, ed25519.PublicKey(bytes.Clone(x)), b), nil
}

// newKey makes the key; canonical is the text that RFC 7638 hashes.
func newKey(alg string, key crypto.PublicKey, canonical []byte) PublicKey {
	sum := sha256.Sum256(canonical)
	return PublicKey{alg: alg, key: key, jwk: string(canonical), thumb: EncodeHash(sum)}
}

// EncodeHash writes a SHA-256 in base64url, as ath and thumbprints are.
func EncodeHash(sum [32]byte) string {
	var buf [43]byte
	base64.RawURLEncoding.Encode(buf[:], sum[:])
	return string(buf[:])
}

// NewPublicKey takes a key of the standard library, under the same rules as
// ParseJWK.
func NewPublicKey(pub crypto.PublicKey) (PublicKey, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub == nil {
			return PublicKey{}, errors.New("the key is missing")
		}
		alg := ""
		switch pub.Curve {
		case elliptic.P256():
			alg = ES256
		case elliptic.P384():
			alg = ES384
		default:
			return PublicKey{}, errors.New("the key's curve is not P-256 or P-384")
		}
		point, err := pub.Bytes()
		if err != nil {
			return PublicKey{}, errors.New("the key's point is not on its curve")
		}
		return newEC(alg, pub.Curve, point)
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return PublicKey{}, errors.New("the key is not 32 bytes")
		}
		return newEd25519(pub)
	case *rsa.PublicKey:
		if pub == nil || pub.N == nil {
			return PublicKey{}, errors.New("the key is missing")
		}
		return newRSA(&rsa.PublicKey{N: new(big.Int).Set(pub.N), E: pub.E})
	}
	return PublicKey{}, fmt.Errorf("a key of type %T is not taken", pub)
}

// takes reports whether alg is the key's algorithm, by either of its names.
func (k PublicKey) takes(alg string) bool {
	return alg == k.alg && alg != "" || k.alg == Ed25519 && alg == EdDSA
}

// ErrSignature says that a signature did not verify, or that its algorithm is
// not the key's.
var ErrSignature = errors.New("the signature does not verify")

// Verify reports, by ErrSignature, that sig is not the key's signature over
// input under the algorithm named alg. The algorithm is the key's own, whatever
// a header says (RFC 8725, Section 3.1).
func (k PublicKey) Verify(input, sig []byte, alg string) error {
	if !k.takes(alg) {
		return ErrSignature
	}
	ok := false
	switch pub := k.key.(type) {
	case *ecdsa.PublicKey:
		ok = verifyECDSA(pub, k.alg, input, sig)
	case ed25519.PublicKey:
		ok = len(sig) == ed25519.SignatureSize && ed25519.Verify(pub, input, sig)
	case *rsa.PublicKey:
		sum := sha256.Sum256(input)
		if k.alg == RS256 {
			// RFC 7518, Section 3.3.
			ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], sig) == nil
			break
		}
		// RFC 7518, Section 3.5: the salt is as long as the hash, no other.
		ok = rsa.VerifyPSS(pub, crypto.SHA256, sum[:], sig, pssOptions) == nil
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

var pssOptions = &rsa.PSSOptions{SaltLength: sha256.Size, Hash: crypto.SHA256}

// verifyECDSA verifies r || s (RFC 7518, Section 3.4).
func verifyECDSA(pub *ecdsa.PublicKey, alg string, input, sig []byte) bool {
	var sum [sha512.Size384]byte
	n := 0
	if alg == ES256 {
		h := sha256.Sum256(input)
		n = copy(sum[:], h[:])
	} else {
		h := sha512.Sum384(input)
		n = copy(sum[:], h[:])
	}
	size := n // for both curves a coordinate is as long as the hash
	if len(sig) != 2*size {
		return false
	}
	var buf [2 + 2*(3+48)]byte
	der := append(buf[:0], 0x30, 0)
	der = appendInteger(der, sig[:size])
	der = appendInteger(der, sig[size:])
	der[1] = byte(len(der) - 2)
	// Zero and values beyond the order are refused there.
	return ecdsa.VerifyASN1(pub, sum[:n], der)
}

// appendInteger appends an unsigned integer in DER.
func appendInteger(der, n []byte) []byte {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	if n[0]&0x80 != 0 {
		der = append(der, 2, byte(len(n)+1), 0)
	} else {
		der = append(der, 2, byte(len(n)))
	}
	return append(der, n...)
}

// smallOrders are the encodings of the points of small order on edwards25519,
// canonical or not, without their sign bit. Under such a key a signature can
// be made without a private key.
var smallOrders = [7][32]byte{
	{},     // y = 0, order 4
	{0: 1}, // y = 1, order 1
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05}, // order 8
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}, // order 8
	field(0xec), // y = -1, order 2
	field(0xed), // y = p, that is 0
	field(0xee), // y = p+1, that is 1
}

// field returns the 32 bytes of 2^255-1 with another first byte.
func field(first byte) (b [32]byte) {
	for i := range b {
		b[i] = 0xff
	}
	b[0], b[31] = first, 0x7f
	return b
}

func smallOrder(x []byte) bool {
	y := [32]byte(x)
	y[31] &= 0x7f
	return slices.Contains(smallOrders[:], y)
}
