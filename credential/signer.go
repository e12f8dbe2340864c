package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A Signer signs with one key, which may be in hardware. It is safe for
// concurrent use if its crypto.Signer is.
type Signer struct {
	key crypto.Signer
	pub PublicKey

	// The headers are the same for every credential of a kind.
	assertionHeader, proofHeader, tokenHeader string
	eventHeader, introspectionHeader          string
}

// NewSigner takes a key under the rules of NewPublicKey.
func NewSigner(key crypto.Signer) (*Signer, error) {
	if key == nil {
		return nil, errors.New("the key is missing")
	}
	pub, err := NewPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return newSigner(key, pub)
}

// NewSignerFor takes a key for one algorithm: one of Algorithms, which the key has to
// be of, or RS256. What a signer of RS256 signs is security events and nothing else.
func NewSignerFor(alg string, key crypto.Signer) (*Signer, error) {
	s, err := NewSigner(key)
	if err != nil {
		return nil, err
	}
	if alg == RS256 && s.pub.alg == PS256 {
		pub := s.pub
		pub.alg = RS256
		return newSigner(key, pub)
	}
	if !s.pub.takes(alg) {
		return nil, fmt.Errorf("the key is for %s, not for %.16q", s.pub.alg, alg)
	}
	return s, nil
}

func newSigner(key crypto.Signer, pub PublicKey) (*Signer, error) {
	var err error
	s := &Signer{key: key, pub: pub}
	type named struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
		Typ string `json:"typ"`
	}
	type keyed struct {
		Alg string         `json:"alg"`
		JWK jsontext.Value `json:"jwk"`
		Typ string         `json:"typ"`
	}
	if s.eventHeader, err = headerPart(named{pub.alg, pub.thumb, typEvent}); err != nil {
		return nil, err
	}
	if pub.alg == RS256 {
		return s, nil // the other headers stay empty, and signJWS refuses them
	}
	if s.introspectionHeader, err = headerPart(named{pub.alg, pub.thumb, typIntrospection}); err != nil {
		return nil, err
	}
	if s.assertionHeader, err = headerPart(named{pub.alg, pub.thumb, typAssertion}); err != nil {
		return nil, err
	}
	if s.tokenHeader, err = headerPart(named{pub.alg, pub.thumb, typToken}); err != nil {
		return nil, err
	}
	if s.proofHeader, err = headerPart(keyed{pub.alg, pub.JWK(), typProof}); err != nil {
		return nil, err
	}
	return s, nil
}

// Public returns the public key.
func (s *Signer) Public() PublicKey { return s.pub }

// Sign signs input in the form that JWS asks for (RFC 7518, Section 3).
func (s *Signer) Sign(input []byte) ([]byte, error) {
	switch s.pub.alg {
	case ES256:
		h := sha256.Sum256(input)
		return s.signECDSA(h[:], crypto.SHA256)
	case ES384:
		h := sha512.Sum384(input)
		return s.signECDSA(h[:], crypto.SHA384)
	case Ed25519:
		sig, err := s.key.Sign(rand.Reader, input, crypto.Hash(0))
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		return sig, nil
	case PS256:
		h := sha256.Sum256(input)
		sig, err := s.key.Sign(rand.Reader, h[:], pssOptions)
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		return sig, nil
	case RS256:
		h := sha256.Sum256(input)
		sig, err := s.key.Sign(rand.Reader, h[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		return sig, nil
	}
	return nil, fmt.Errorf("signing with a key of algorithm %q", s.pub.alg)
}

// signECDSA turns the DER that a crypto.Signer makes into r || s.
func (s *Signer) signECDSA(sum []byte, hash crypto.Hash) ([]byte, error) {
	der, err := s.key.Sign(rand.Reader, sum, hash)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	var rs struct{ R, S *big.Int }
	size := len(sum)
	rest, err := asn1.Unmarshal(der, &rs)
	if err != nil || len(rest) != 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 8*size || rs.S.BitLen() > 8*size {
		return nil, errors.New("signing: the signer's answer is not an ECDSA signature")
	}
	sig := make([]byte, 2*size)
	rs.R.FillBytes(sig[:size])
	rs.S.FillBytes(sig[size:])
	return sig, nil
}

// GenerateKey makes a key for ES256, ES384, Ed25519 (or EdDSA), PS256 or, for security
// events, RS256.
func GenerateKey(alg string) (crypto.Signer, error) {
	switch alg {
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case Ed25519, EdDSA:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case PS256:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RS256:
		return rsa.GenerateKey(rand.Reader, minModulus)
	}
	return nil, fmt.Errorf("algorithm %.32q is not one of %s", alg, strings.Join(algorithms, ", "))
}

const pemType = "PRIVATE KEY"

// MarshalPrivateKeyPEM writes a key as PKCS #8 in PEM (RFC 5958, RFC 7468).
func MarshalPrivateKeyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParsePrivateKeyPEM reads what MarshalPrivateKeyPEM writes: one PKCS #8 block
// and nothing else, of a key that this package takes. Errors hold nothing of
// the text.
func ParsePrivateKeyPEM(b []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemType || len(block.Headers) != 0 {
		return nil, errors.New("the private key is not PKCS #8 in PEM (-----BEGIN PRIVATE KEY-----)")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("there is more after the private key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the private key is not PKCS #8")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key is not for signing")
	}
	if _, err := NewPublicKey(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}
