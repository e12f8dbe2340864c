package credential

import (
	"crypto/elliptic"
	"fmt"
	"math/big"
	"strings"
)

// Moduli that no generator makes: only their size and their residues count.
func modulus(bits int, label string) *big.Int {
	b := make([]byte, 0, bits/8)
	for i := 0; len(b) < bits/8; i++ {
		b = append(b, scalar(ecKey(elliptic.P256(), fmt.Sprint(label, i)))...)
	}
	n := new(big.Int).SetBytes(b[:bits/8])
	n.SetBit(n, bits-1, 1)
	n.SetBit(n, 0, 1)
	return n
}

func rsaJWK(n *big.Int, e int64) string {
	return fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, b64.EncodeToString(big.NewInt(e).Bytes()), b64.EncodeToString(n.Bytes()))
}

// rocaModulus is a power of 65537 modulo the product of many primes, made
// larger, as the product of two such primes is.
func rocaModulus() *big.Int {
	m := big.NewInt(1)
	for p := int64(3); p < 740; p += 2 {
		if big.NewInt(p).ProbablyPrime(10) {
			m.Mul(m, big.NewInt(p))
		}
	}
	n := new(big.Int).Exp(big.NewInt(65537), big.NewInt(123457), m)
	k := modulus(2048-m.BitLen(), "roca")
	n.Add(n, new(big.Int).Mul(m, k.Lsh(k, 1)))
	for n.BitLen() < 2048 {
		n.Add(n, new(big.Int).Lsh(m, uint(2048-m.BitLen())))
	}
	return n
}

func keyVectors() *vectorFile {
	p256, ed := jwkOf(keyA), jwkOf(keyEd)
	n := modulus(2048, "n")
	good := rsaJWK(n, 65537)
	even := new(big.Int).SetBit(n, 0, 0)
	accepted := []*vector{
		{Name: "P-256", JWK: p256, Thumb: publicOf(keyA).Thumbprint()},
		{Name: "P-384", JWK: jwkOf(key384)},
		{Name: "Ed25519", JWK: ed},
		{Name: "Ed25519 of RFC 8037, A.3", JWK: `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, Thumb: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		{Name: "RSA of RFC 7638, 3.1", JWK: `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","kid":"2011-04-29"}`, Thumb: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{Name: "RSA of 2048 bits", JWK: good},
		{Name: "alg, use and key_ops for verification", JWK: `{"alg":"ES256","use":"sig","key_ops":["verify"],"kid":"k",` + p256[1:]},
		{Name: "alg EdDSA for Ed25519", JWK: `{"alg":"EdDSA",` + ed[1:]},
	}
	refused := []*vector{
		{Name: "a symmetric key", JWK: `{"kty":"oct","k":"AAAA"}`},
		{Name: "a private P-256 key", JWK: `{"d":"AAAA",` + p256[1:]},
		{Name: "a private RSA key by one prime", JWK: `{"p":"AAAA",` + good[1:]},
		{Name: "an empty object", JWK: `{}`},
		{Name: "an array", JWK: `[` + p256 + `]`},
		{Name: "a key set", JWK: `{"keys":[` + p256 + `]}`},
		{Name: "a member twice", JWK: `{"crv":"P-384",` + p256[1:]},
		{Name: "bytes after", JWK: p256 + `x`},
		{Name: "P-521", JWK: fmt.Sprintf(`{"crv":"P-521","kty":"EC","x":%q,"y":%q}`, xy(elliptic.P521(), 0), xy(elliptic.P521(), 1))},
		{Name: "P-256 with alg ES512", JWK: `{"alg":"ES512",` + p256[1:]},
		{Name: "P-256 with alg ECDH-ES", JWK: `{"alg":"ECDH-ES",` + p256[1:]},
		{Name: "for encryption", JWK: `{"use":"enc",` + p256[1:]},
		{Name: "for signing alone", JWK: `{"key_ops":["sign"],` + p256[1:]},
		{Name: "the point at infinity", JWK: `{"crv":"P-256","kty":"EC","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}`},
		{Name: "y of another key", JWK: strings.Replace(p256, strings.Split(p256, `"`)[15], strings.Split(jwkOf(keyB), `"`)[15], 1)},
		{Name: "x with padding", JWK: strings.Replace(p256, `","y"`, `=","y"`, 1)},
		{Name: "Ed25519 of small order", JWK: `{"crv":"Ed25519","kty":"OKP","x":"` + b64.EncodeToString(append([]byte{1}, make([]byte, 31)...)) + `"}`},
		{Name: "Ed25519 of 31 bytes", JWK: `{"crv":"Ed25519","kty":"OKP","x":"` + b64.EncodeToString(make([]byte, 31)) + `"}`},
		{Name: "Ed448", JWK: `{"crv":"Ed448","kty":"OKP","x":"` + b64.EncodeToString(make([]byte, 57)) + `"}`},
		{Name: "X25519", JWK: `{"crv":"X25519","kty":"OKP","x":"` + b64.EncodeToString(modulus(256, "x").Bytes()) + `"}`},
		{Name: "RSA of 1024 bits", JWK: rsaJWK(modulus(1024, "n"), 65537)},
		{Name: "RSA of 2040 bits", JWK: rsaJWK(modulus(2040, "n"), 65537)},
		{Name: "RSA of 8200 bits", JWK: rsaJWK(modulus(8200, "n"), 65537)},
		{Name: "RSA with exponent 1", JWK: rsaJWK(n, 1)},
		{Name: "RSA with exponent 3", JWK: rsaJWK(n, 3)},
		{Name: "RSA with an even exponent", JWK: rsaJWK(n, 65538)},
		{Name: "RSA with an even modulus", JWK: rsaJWK(even, 65537)},
		{Name: "RSA with a zero byte before the modulus", JWK: strings.Replace(good, b64.EncodeToString(n.Bytes()), b64.EncodeToString(append([]byte{0}, n.Bytes()...)), 1)},
		{Name: "RSA with a zero byte before the exponent", JWK: strings.Replace(good, `"AQAB"`, `"AAEAAQ"`, 1)},
		{Name: "RSA for RS256", JWK: `{"alg":"RS256",` + good[1:]},
		{Name: "RSA with the fingerprint of CVE-2017-15361", JWK: rsaJWK(rocaModulus(), 65537)},
	}
	for _, v := range refused {
		v.Code = "key_refused"
	}
	return &vectorFile{
		Description: "Public keys as JWK. Refused rows have the code key_refused: how a refused key is answered depends on where it was shown.",
		Clauses:     "RFC 7517, RFC 7518, RFC 8037, RFC 7638, FIPS 186-5",
		Now:         testNow.Unix(), Accepted: accepted, Refused: refused,
	}
}
