package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// The tests forge credentials from JSON text, so that they can say what no
// honest encoder would.

var b64 = base64.RawURLEncoding

// testNow is the time of all vectors.
var testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const (
	testIssuer   = "https://issuer.example"
	testResource = "https://gateway.example/r/bank"
	testURL      = "https://gateway.example/r/bank/accounts"
)

// ecKey derives a key from a label: vectors are the same whenever they are
// made.
func ecKey(curve elliptic.Curve, label string) *ecdsa.PrivateKey {
	size := (curve.Params().BitSize + 7) / 8
	d := make([]byte, size)
	for i := 0; i < size; i += 32 {
		sum := sha256.Sum256([]byte(fmt.Sprintf("counterfoil test key/%s/%d", label, i)))
		copy(d[i:], sum[:])
	}
	d[0] = 0 // below the order of any curve
	key, err := ecdsa.ParseRawPrivateKey(curve, d)
	if err != nil {
		panic(err)
	}
	return key
}

// scalar returns the private scalar.
func scalar(key *ecdsa.PrivateKey) []byte {
	b, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	return b
}

func edKey(label string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("counterfoil test key/" + label))
	return ed25519.NewKeyFromSeed(seed[:])
}

var (
	keyA   = ecKey(elliptic.P256(), "a")
	keyB   = ecKey(elliptic.P256(), "b")
	key384 = ecKey(elliptic.P384(), "a")
	keyEd  = edKey("a")
)

func publicOf(key crypto.Signer) PublicKey {
	pub, err := NewPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return pub
}

func jwkOf(key crypto.Signer) string { return string(publicOf(key).JWK()) }

// signRaw signs as JWS does, the same signature each time (RFC 6979, RFC 8032).
func signRaw(key crypto.Signer, input string) []byte {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		hash := crypto.SHA256
		if key.Curve == elliptic.P384() {
			hash = crypto.SHA384
		}
		h := hash.New()
		h.Write([]byte(input))
		s := &Signer{key: deterministic{key}}
		sig, err := s.signECDSA(h.Sum(nil), hash)
		if err != nil {
			panic(err)
		}
		return sig
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(input))
	}
	panic("a key of another type")
}

// deterministic signs without randomness.
type deterministic struct{ *ecdsa.PrivateKey }

func (d deterministic) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return d.PrivateKey.Sign(nil, digest, opts)
}

// compact makes a JWS of two JSON texts.
func compact(key crypto.Signer, header, claims string) string {
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(claims))
	return input + "." + b64.EncodeToString(signRaw(key, input))
}

// hs256 signs with a public text as the secret, as an algorithm confusion
// does.
func hs256(secret []byte, header, claims string) string {
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(claims))
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(input))
	return input + "." + b64.EncodeToString(m.Sum(nil))
}

// edit replaces old by new in a text, which must have it exactly once.
func edit(text string, change [2]string) string {
	if change == [2]string{} {
		return text
	}
	if strings.Count(text, change[0]) != 1 {
		panic(fmt.Sprintf("%q is not exactly once in %s", change[0], text))
	}
	return strings.Replace(text, change[0], change[1], 1)
}

// derSignature replaces the signature by the same in DER.
func derSignature(compact string) string {
	i := strings.LastIndexByte(compact, '.')
	sig, err := b64.DecodeString(compact[i+1:])
	if err != nil {
		panic(err)
	}
	der := []byte{0x30, 0}
	der = appendInteger(der, sig[:len(sig)/2])
	der = appendInteger(der, sig[len(sig)/2:])
	der[1] = byte(len(der) - 2)
	return compact[:i+1] + b64.EncodeToString(der)
}

// negateS replaces s by n-s, which verifies as well.
func negateS(compact string) string {
	i := strings.LastIndexByte(compact, '.')
	sig, err := b64.DecodeString(compact[i+1:])
	if err != nil {
		panic(err)
	}
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s)
	s.FillBytes(sig[32:])
	return compact[:i+1] + b64.EncodeToString(sig)
}

// part returns one of the three parts.
func part(compact string, n int) string { return strings.Split(compact, ".")[n] }

// withPart replaces one of the three parts.
func withPart(compact string, n int, text string) string {
	parts := strings.Split(compact, ".")
	parts[n] = text
	return strings.Join(parts, ".")
}

// looseBits sets a trailing bit that means nothing in a part whose length
// leaves some.
func looseBits(compact string, n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	p := part(compact, n)
	if len(p)%4 == 0 {
		panic("the part has no loose bits")
	}
	last := strings.IndexByte(alphabet, p[len(p)-1])
	return withPart(compact, n, p[:len(p)-1]+string(alphabet[last|1]))
}

func quoteJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func wantRefused(t *testing.T, err error, code counterfoil.Code) {
	t.Helper()
	refusal, ok := counterfoil.AsRefusal(err)
	if !ok || refusal.Code != code {
		t.Errorf("got %v, want the refusal %s", err, code)
	}
}
