package credential

import (
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
)

// Bounds on RSA moduli, in bits: less is weak, more is a way to make us work.
const (
	minModulus = 2048
	maxModulus = 8192

	maxSignature = maxModulus / 8
)

func parseRSA(j *jwk) (PublicKey, error) {
	if len(j.N) > base64.RawURLEncoding.EncodedLen(maxModulus/8)+8 {
		return PublicKey{}, errModulus
	}
	n, err := decode(nil, []byte(j.N))
	if err != nil || len(n) == 0 {
		return PublicKey{}, errors.New("the JWK's n is not an integer in base64url")
	}
	e, err := decode(nil, []byte(j.E))
	if err != nil || len(e) == 0 || len(e) > 4 {
		return PublicKey{}, errors.New("the JWK's e is not an integer of at most 4 bytes in base64url")
	}
	// RFC 7518, Section 2, Base64urlUInt: no more octets than are needed, so
	// that a key has one thumbprint.
	if n[0] == 0 || e[0] == 0 {
		return PublicKey{}, errors.New("the JWK's n or e starts with a zero byte")
	}
	exp := 0
	for _, b := range e {
		exp = exp<<8 | int(b)
	}
	return newRSA(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: exp})
}

var errModulus = fmt.Errorf("the RSA key's modulus is not of %d to %d bits", minModulus, maxModulus)

// newRSA checks a key that nobody else changes.
func newRSA(pub *rsa.PublicKey) (PublicKey, error) {
	switch bits := pub.N.BitLen(); {
	case pub.N.Sign() <= 0 || bits < minModulus || bits > maxModulus:
		return PublicKey{}, errModulus
	case pub.N.Bit(0) == 0:
		return PublicKey{}, errors.New("the RSA key's modulus is even")
	// FIPS 186-5, Section 5.1: e is odd and greater than 2^16. The upper bound
	// is that of crypto/rsa.
	case pub.E < 65537 || pub.E%2 == 0 || pub.E > math.MaxInt32:
		return PublicKey{}, errors.New("the RSA key's exponent is not odd and within 65537 to 2^31-1")
	case roca(pub.N):
		return PublicKey{}, errors.New("the RSA key is of a generator known to be weak (CVE-2017-15361)")
	}
	b := append(make([]byte, 0, 1500), `{"e":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, big.NewInt(int64(pub.E)).Bytes())
	b = append(b, `","kty":"RSA","n":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, pub.N.Bytes())
	b = append(b, `"}`...)
	return newKey(PS256, pub, b), nil
}

// rocaPrimes are the small primes for which 65537 does not generate the whole
// multiplicative group.
var rocaPrimes = []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157}

// rocaResidues[i] holds the powers of 65537 modulo rocaPrimes[i].
var rocaResidues = func() []map[int64]bool {
	all := make([]map[int64]bool, len(rocaPrimes))
	for i, p := range rocaPrimes {
		all[i] = map[int64]bool{}
		for r := int64(1); !all[i][r]; r = r * 65537 % p {
			all[i][r] = true
		}
	}
	return all
}()

// roca reports whether the modulus has the fingerprint of the primes that the
// library behind CVE-2017-15361 made: a power of 65537 modulo each of many
// small primes. Of other moduli fewer than one in 10^8 have it.
func roca(n *big.Int) bool {
	var m, p big.Int
	for i, prime := range rocaPrimes {
		if !rocaResidues[i][m.Mod(n, p.SetInt64(prime)).Int64()] {
			return false
		}
	}
	return true
}
