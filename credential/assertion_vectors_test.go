package credential

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"

	"crypto/x509"

	"github.com/counterfoil/counterfoil"
)

// The honest assertion.
var (
	assertionHeader = `{"typ":"client-authentication+jwt","alg":"ES256","kid":"` + publicOf(keyA).Thumbprint() + `"}`
	assertionBody   = fmt.Sprintf(`{"iss":"payroll","sub":"payroll","aud":%q,"jti":"a-1","iat":%d,"exp":%d}`, testIssuer, testNow.Unix(), testNow.Unix()+60)
)

func assertionRows() []row {
	const malformed, audience, expired = counterfoil.AssertionMalformed, counterfoil.AssertionAudience, counterfoil.AssertionExpired
	now := testNow.Unix()
	iat, exp := fmt.Sprintf(`"iat":%d`, now), fmt.Sprintf(`"exp":%d`, now+60)
	times := func(i, e int64) [2]string {
		return [2]string{iat + "," + exp, fmt.Sprintf(`"iat":%d,"exp":%d`, now+i, now+e)}
	}
	aud := func(json string) [2]string { return [2]string{`"` + testIssuer + `"`, json} }
	typ := func(t string) [2]string { return [2]string{`"` + typAssertion + `"`, quoteJSON(t)} }
	der, err := x509.MarshalPKIXPublicKey(keyA.Public())
	if err != nil {
		panic(err)
	}
	point, err := keyA.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	confused := func(name string, secret []byte) row {
		return row{name: "alg HS256 keyed with the public key as " + name, check: "alg", mangle: func(string) string {
			return hs256(secret, edit(assertionHeader, [2]string{`ES256`, `HS256`}), assertionBody)
		}, code: malformed}
	}
	return []row{
		{name: "honest"},
		{name: "typ absent", check: "typ", header: [2]string{`"typ":"client-authentication+jwt",`, ``}},
		{name: "typ JWT", check: "typ", header: typ("JWT")},
		{name: "typ with a prefix", check: "typ", header: typ("application/client-authentication+jwt")},
		{name: "kid absent", check: "kid", header: [2]string{`,"kid":"` + publicOf(keyA).Thumbprint() + `"`, ``}},
		{name: "aud an array of one", check: "aud", claims: aud(`["` + testIssuer + `"]`)},
		{name: "iat absent", check: "iat", claims: [2]string{iat + `,`, ``}},
		{name: "iat and nbf 8 s ahead", check: "iat", claims: [2]string{iat + "," + exp, fmt.Sprintf(`"iat":%d,"nbf":%d,"exp":%d`, now+8, now+8, now+68)}},
		{name: "iat 10 s ahead", check: "iat", claims: times(10, 70)},
		{name: "120 s long", check: "exp", claims: times(0, 120)},
		{name: "expired 9 s ago", check: "exp", claims: times(-60, -9)},
		{name: "other claims", check: "claims", claims: [2]string{`{"iss"`, `{"client_id":"x","iss"`}},
		{name: "jti of 256 bytes", check: "jti", claims: [2]string{`a-1`, strings.Repeat("x", 256)}},

		{name: "alg none", check: "alg", header: [2]string{`ES256`, `none`}, mangle: func(s string) string { return withPart(s, 2, "") }, code: malformed},
		{name: "alg None", check: "alg", header: [2]string{`ES256`, `None`}, mangle: func(s string) string { return withPart(s, 2, "") }, code: malformed},
		{name: "alg nOnE", check: "alg", header: [2]string{`ES256`, `nOnE`}, mangle: func(s string) string { return withPart(s, 2, "") }, code: malformed},
		confused("JWK", []byte(jwkOf(keyA))),
		confused("PEM", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		confused("DER", der),
		confused("a point", point[1:]),
		{name: "alg RS256", check: "alg", header: [2]string{`ES256`, `RS256`}, code: malformed},
		{name: "alg ES384 for a key of ES256", check: "alg", header: [2]string{`ES256`, `ES384`}, code: counterfoil.ClientRefused},
		{name: "alg PS256 for a key of ES256", check: "alg", header: [2]string{`ES256`, `PS256`}, code: counterfoil.ClientRefused},
		{name: "jwk in the header", check: "header", header: [2]string{`{"typ"`, `{"jwk":` + jwkOf(keyB) + `,"typ"`}, code: malformed},
		{name: "jku in the header", check: "header", header: [2]string{`{"typ"`, `{"jku":"https://keys.example","typ"`}, code: malformed},
		{name: "x5u in the header", check: "header", header: [2]string{`{"typ"`, `{"x5u":"https://keys.example","typ"`}, code: malformed},
		{name: "x5c in the header", check: "header", header: [2]string{`{"typ"`, `{"x5c":["AAAA"],"typ"`}, code: malformed},
		{name: "crit in the header", check: "header", header: [2]string{`{"typ"`, `{"crit":["b64"],"b64":false,"typ"`}, code: malformed},
		{name: "header with a name twice", check: "header", header: [2]string{`"alg"`, `"alg":"ES256","alg"`}, code: malformed},
		{name: "typ of a proof", check: "typ", header: typ("dpop+jwt"), code: malformed},
		{name: "typ of an access token", check: "typ", header: typ("at+jwt"), code: malformed},
		{name: "typ of a request object", check: "typ", header: typ("oauth-authz-req+jwt"), code: malformed},
		{name: "typ of an attestation's proof", check: "typ", header: typ("oauth-client-attestation-pop+jwt"), code: malformed},
		{name: "typ of an event", check: "typ", header: typ("secevent+jwt"), code: malformed},
		{name: "larger than 16 KiB", check: "size", claims: [2]string{`{"iss"`, `{"pad":"` + strings.Repeat("x", 13000) + `","iss"`}, code: counterfoil.PayloadTooLarge},
		{name: "dots alone", check: "form", mangle: func(string) string { return strings.Repeat(".", 16000) }, code: malformed},
		{name: "JSON serialization", check: "form", mangle: func(s string) string {
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, part(s, 0), part(s, 1), part(s, 2))
		}, code: malformed},
		{name: "padding", check: "form", mangle: func(s string) string { return s + "==" }, code: malformed},
		{name: "loose bits in the signature", check: "form", mangle: func(s string) string { return looseBits(s, 2) }, code: malformed},
		{name: "signed by another key", check: "signature", key: keyB, code: counterfoil.ClientRefused},
		{name: "signature in DER", check: "signature", mangle: derSignature, code: counterfoil.ClientRefused},
		{name: "claims swapped under the signature", check: "signature", mangle: func(s string) string {
			return withPart(s, 1, b64.EncodeToString([]byte(edit(assertionBody, [2]string{"a-1", "a-2"}))))
		}, code: counterfoil.ClientRefused},
		{name: "iss is not sub", check: "iss", claims: [2]string{`"iss":"payroll"`, `"iss":"treasury"`}, code: malformed},
		{name: "no iss", check: "iss", claims: [2]string{`"iss":"payroll",`, ``}, code: malformed},
		{name: "no sub", check: "sub", claims: [2]string{`"sub":"payroll",`, ``}, code: malformed},
		{name: "neither iss nor sub", check: "sub", claims: [2]string{`"iss":"payroll","sub":"payroll",`, ``}, code: malformed},
		{name: "sub twice", check: "sub", claims: [2]string{`"sub"`, `"sub":"treasury","sub"`}, code: malformed},
		{name: "sub and Sub", check: "sub", claims: [2]string{`"sub"`, `"Sub":"treasury","sub"`}, code: malformed},
		{name: "sub in an array", check: "sub", claims: [2]string{`"sub":"payroll"`, `"sub":["payroll"]`}, code: malformed},
		{name: "no aud", check: "aud", claims: [2]string{`"aud":"` + testIssuer + `",`, ``}, code: malformed},
		{name: "aud is null", check: "aud", claims: aud(`null`), code: malformed},
		{name: "aud is a number", check: "aud", claims: aud(`[1]`), code: malformed},
		{name: "aud is empty", check: "aud", claims: aud(`""`), code: audience},
		{name: "aud is the token endpoint", check: "aud", claims: aud(`"` + testIssuer + `/oauth/token"`), code: audience},
		{name: "aud is another server", check: "aud", claims: aud(`"https://other.example"`), code: audience},
		{name: "aud an array with another", check: "aud", claims: aud(`["` + testIssuer + `","https://other.example"]`), code: audience},
		{name: "aud an array of the same twice", check: "aud", claims: aud(`["` + testIssuer + `","` + testIssuer + `"]`), code: audience},
		{name: "aud with a slash more", check: "aud", claims: aud(`"` + testIssuer + `/"`), code: audience},
		{name: "aud in another case", check: "aud", claims: aud(`"https://Issuer.example"`), code: audience},
		{name: "no exp", check: "exp", claims: [2]string{`,` + exp, ``}, code: malformed},
		{name: "exp is a string", check: "exp", claims: [2]string{exp, fmt.Sprintf(`"exp":"%d"`, now+60)}, code: malformed},
		{name: "exp before iat", check: "exp", claims: times(5, 4), code: malformed},
		{name: "expired 10 s ago", check: "exp", claims: times(-60, -10), code: expired},
		{name: "expired an hour ago", check: "exp", claims: times(-3660, -3600), code: expired},
		{name: "121 s long", check: "exp", claims: times(0, 121), code: expired},
		{name: "24 hours long", check: "exp", claims: times(0, 86400), code: expired},
		{name: "121 s long without iat", check: "exp", claims: [2]string{iat + "," + exp, fmt.Sprintf(`"exp":%d`, now+121)}, code: expired},
		{name: "iat 11 s ahead", check: "iat", claims: times(11, 71), code: expired},
		{name: "iat 61 s ahead", check: "iat", claims: times(61, 100), code: expired},
		{name: "nbf 61 s ahead", check: "nbf", claims: [2]string{iat, iat + fmt.Sprintf(`,"nbf":%d`, now+61)}, code: expired},
		{name: "nbf is null", check: "nbf", claims: [2]string{iat, iat + `,"nbf":null`}, code: malformed},
		{name: "no jti", check: "jti", claims: [2]string{`"jti":"a-1",`, ``}, code: malformed},
		{name: "jti of 257 bytes", check: "jti", claims: [2]string{`a-1`, strings.Repeat("x", 257)}, code: malformed},
		{name: "jti of 10 KiB", check: "jti", claims: [2]string{`a-1`, strings.Repeat("x", 10<<10)}, code: malformed},
		{name: "jti is a number", check: "jti", claims: [2]string{`"a-1"`, `1`}, code: malformed},
	}
}

func assertionVectors() *vectorFile {
	f := &vectorFile{
		Description: "Client assertions for one issuer, under one registered key. Each refused row is the honest assertion with one thing changed.",
		Clauses:     "RFC 7523, Section 3, with the sole audience of rfc7523bis and a life of at most 120 seconds; clocks may differ by 10 seconds",
		Now:         testNow.Unix(), Issuer: testIssuer, Key: json.RawMessage(jwkOf(keyA)),
	}
	for _, r := range assertionRows() {
		f.add(&vector{Name: r.name, Check: r.check, Compact: r.make(keyA, assertionHeader, assertionBody), Code: r.code})
	}
	f.Accepted[0].Thumb = publicOf(keyA).Thumbprint()
	return f
}
