package credential

import (
	"crypto"
	"crypto/elliptic"
	"fmt"
	"strings"

	"github.com/counterfoil/counterfoil"
)

const vectorToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU" // of RFC 9449, Section 7.1

// The honest proof.
var (
	proofHeader = `{"typ":"dpop+jwt","alg":"ES256","jwk":` + jwkOf(keyA) + `}`
	proofBody   = fmt.Sprintf(`{"jti":"e1j3V_bKic8-LAEB","htm":"POST","htu":"%s","iat":%d,"ath":"%s"}`, testURL, testNow.Unix(), TokenHash(vectorToken))
)

func proofRows() []row {
	const malformed, target, stale = counterfoil.ProofMalformed, counterfoil.ProofTarget, counterfoil.ProofStale
	iat := fmt.Sprintf(`"iat":%d`, testNow.Unix())
	at := func(seconds int64) [2]string {
		return [2]string{iat, fmt.Sprintf(`"iat":%d`, testNow.Unix()+seconds)}
	}
	htu := func(url string) [2]string { return [2]string{`"` + testURL + `"`, quoteJSON(url)} }
	jwk := func(text string) [2]string { return [2]string{jwkOf(keyA), text} }
	x := func(key crypto.Signer) string { return strings.Split(jwkOf(key), `"`)[11] }
	return []row{
		{name: "honest"},
		{name: "extra members in jwk", check: "6", header: jwk(`{"kid":"k","use":"sig","ext":true,` + jwkOf(keyA)[1:])},
		{name: "extra header parameter and claim", check: "2", header: [2]string{`{"typ"`, `{"x5t":"AAAA","typ"`}, claims: [2]string{`{"jti"`, `{"foo":{"bar":1},"jti"`}},
		{name: "ES384", check: "5", header: [2]string{proofHeader, `{"typ":"dpop+jwt","alg":"ES384","jwk":` + jwkOf(key384) + `}`}, key: key384},
		{name: "Ed25519", check: "5", header: [2]string{proofHeader, `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwkOf(keyEd) + `}`}, key: keyEd},
		{name: "EdDSA with Ed25519", check: "5", header: [2]string{proofHeader, `{"typ":"dpop+jwt","alg":"EdDSA","jwk":` + jwkOf(keyEd) + `}`}, key: keyEd},
		{name: "htu with query and fragment", check: "9", claims: htu(testURL + "?a=b#c")},
		{name: "htu with scheme and host in upper case", check: "9", claims: htu("HTTPS://Gateway.EXAMPLE/r/bank/accounts")},
		{name: "htu with the default port", check: "9", claims: htu("https://gateway.example:443/r/bank/accounts")},
		{name: "htu with an empty port", check: "9", claims: htu("https://gateway.example:/r/bank/accounts")},
		{name: "htu with unreserved characters escaped", check: "9", claims: htu("https://gateway.exampl%65/r/%62ank/accounts")},
		{name: "htu with dot segments", check: "9", claims: htu("https://gateway.example/r/x/../bank/./accounts")},
		{name: "iat 60 s ago", check: "11", claims: at(-60)},
		{name: "iat 10 s ahead", check: "11", claims: at(10)},
		{name: "iat with a fraction", check: "11", claims: [2]string{iat, iat + ".25"}},
		{name: "the other s of the same signature", check: "6", mangle: negateS}, // a JWS is no id: jti is

		{name: "two in one header", check: "1", mangle: func(s string) string { return s + ", " + s }, code: malformed},
		{name: "JSON serialization", check: "1", mangle: func(s string) string { // its commas make it several
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, part(s, 0), part(s, 1), part(s, 2))
		}, code: malformed},
		{name: "empty header", check: "1", mangle: func(string) string { return "" }, code: malformed},
		{name: "larger than 8 KiB", check: "size", claims: [2]string{`{"jti"`, `{"pad":"` + strings.Repeat("x", 6200) + `","jti"`}, code: counterfoil.PayloadTooLarge},
		{name: "two parts", check: "2", mangle: func(s string) string { return s[:strings.LastIndexByte(s, '.')] }, code: malformed},
		{name: "four parts", check: "2", mangle: func(s string) string { return s + "." }, code: malformed},
		{name: "dots alone", check: "2", mangle: func(string) string { return strings.Repeat(".", 8000) }, code: malformed},
		{name: "padding", check: "2", mangle: func(s string) string { return s + "==" }, code: malformed},
		{name: "a line break in base64url", check: "2", mangle: func(s string) string { return s[:len(s)-4] + "\n" + s[len(s)-4:] }, code: malformed},
		{name: "standard base64 alphabet", check: "2", mangle: func(s string) string {
			return withPart(s, 2, strings.NewReplacer("-", "+", "_", "/").Replace(part(s, 2)))
		}, code: malformed},
		{name: "loose bits in the signature", check: "2", mangle: func(s string) string { return looseBits(s, 2) }, code: malformed},
		{name: "header with a name twice", check: "2", header: [2]string{`"alg"`, `"alg":"none","alg"`}, code: malformed},
		{name: "header with a name in another case", check: "2", header: [2]string{`"alg"`, `"ALG":"none","alg"`}, code: malformed},
		{name: "claims with a name twice", check: "2", claims: [2]string{`"htm"`, `"htm":"GET","htm"`}, code: malformed},
		{name: "claims are an array", check: "2", claims: [2]string{proofBody, `[` + proofBody + `]`}, code: malformed},
		{name: "claims with bytes after", check: "2", claims: [2]string{proofBody, proofBody + `{}`}, code: malformed},
		{name: "crit", check: "2", header: [2]string{`{"typ"`, `{"crit":["exp"],"exp":1,"typ"`}, code: malformed},
		{name: "b64", check: "2", header: [2]string{`{"typ"`, `{"b64":true,"typ"`}, code: malformed},
		{name: "zip", check: "2", header: [2]string{`{"typ"`, `{"zip":"DEF","typ"`}, code: malformed},
		{name: "jku", check: "2", header: [2]string{`{"typ"`, `{"jku":"https://keys.example","typ"`}, code: malformed},
		{name: "x5u", check: "2", header: [2]string{`{"typ"`, `{"x5u":"https://keys.example","typ"`}, code: malformed},
		{name: "x5c", check: "2", header: [2]string{`{"typ"`, `{"x5c":null,"typ"`}, code: malformed},

		{name: "no jti", check: "3", claims: [2]string{`"jti":"e1j3V_bKic8-LAEB",`, ``}, code: malformed},
		{name: "empty jti", check: "3", claims: [2]string{`"e1j3V_bKic8-LAEB"`, `""`}, code: malformed},
		{name: "jti is a number", check: "3", claims: [2]string{`"e1j3V_bKic8-LAEB"`, `7`}, code: malformed},
		{name: "jti is null", check: "3", claims: [2]string{`"e1j3V_bKic8-LAEB"`, `null`}, code: malformed},
		{name: "jti of 257 bytes", check: "3", claims: [2]string{`e1j3V_bKic8-LAEB`, strings.Repeat("x", 257)}, code: malformed},
		{name: "no htm", check: "3", claims: [2]string{`"htm":"POST",`, ``}, code: malformed},
		{name: "no htu", check: "3", claims: [2]string{`"htu":"` + testURL + `",`, ``}, code: malformed},
		{name: "no iat", check: "3", claims: [2]string{iat + `,`, ``}, code: malformed},
		{name: "no ath", check: "3", claims: [2]string{`,"ath":"` + TokenHash(vectorToken) + `"`, ``}, code: target},

		{name: "no typ", check: "4", header: [2]string{`"typ":"dpop+jwt",`, ``}, code: malformed},
		{name: "typ JWT", check: "4", header: [2]string{`dpop+jwt`, `JWT`}, code: malformed},
		{name: "typ in upper case", check: "4", header: [2]string{`dpop+jwt`, `DPOP+JWT`}, code: malformed},
		{name: "typ with a prefix", check: "4", header: [2]string{`dpop+jwt`, `application/dpop+jwt`}, code: malformed},
		{name: "typ of an assertion", check: "4", header: [2]string{`dpop+jwt`, typAssertion}, code: malformed},

		{name: "alg none", check: "5", header: [2]string{`ES256`, `none`}, mangle: func(s string) string { return withPart(s, 2, "") }, code: malformed},
		{name: "alg nOnE", check: "5", header: [2]string{`ES256`, `nOnE`}, mangle: func(s string) string { return withPart(s, 2, "") }, code: malformed},
		{name: "alg HS256 keyed with the public key", check: "5", mangle: func(string) string {
			return hs256([]byte(jwkOf(keyA)), edit(proofHeader, [2]string{`ES256`, `HS256`}), proofBody)
		}, code: malformed},
		{name: "alg RS256", check: "5", header: [2]string{`ES256`, `RS256`}, code: malformed},
		{name: "alg ES256K", check: "5", header: [2]string{`ES256`, `ES256K`}, code: malformed},
		{name: "no alg", check: "5", header: [2]string{`"alg":"ES256",`, ``}, code: malformed},
		{name: "alg of another key", check: "6", header: [2]string{`ES256`, `ES384`}, code: malformed},
		{name: "EdDSA with P-256", check: "6", header: [2]string{`ES256`, `EdDSA`}, code: malformed},

		{name: "signed by another key", check: "6", key: keyB, code: malformed},
		{name: "a bit of the claims flipped", check: "6", mangle: func(s string) string {
			return withPart(s, 1, b64.EncodeToString([]byte(edit(proofBody, [2]string{"e1j3V", "e1j3W"}))))
		}, code: malformed},
		{name: "empty signature", check: "6", mangle: func(s string) string { return withPart(s, 2, "") }, code: malformed},
		{name: "signature in DER", check: "6", mangle: derSignature, code: malformed},
		{name: "signature of zeros", check: "6", mangle: func(s string) string { return withPart(s, 2, b64.EncodeToString(make([]byte, 64))) }, code: malformed},
		{name: "signature cut short", check: "6", mangle: func(s string) string {
			b, _ := b64.DecodeString(part(s, 2))
			return withPart(s, 2, b64.EncodeToString(b[:63]))
		}, code: malformed},
		{name: "signature with a byte more", check: "6", mangle: func(s string) string {
			b, _ := b64.DecodeString(part(s, 2))
			return withPart(s, 2, b64.EncodeToString(append(b, 0)))
		}, code: malformed},

		{name: "no jwk", check: "6", header: [2]string{`,"jwk":` + jwkOf(keyA), ``}, code: malformed},
		{name: "kid for jwk", check: "6", header: [2]string{`"jwk":` + jwkOf(keyA), `"kid":"` + publicOf(keyA).Thumbprint() + `"`}, code: malformed},
		{name: "jwk is a string", check: "6", header: jwk(`"jwk"`), code: malformed},
		{name: "jwk is null", check: "6", header: jwk(`null`), code: malformed},
		{name: "private jwk", check: "7", header: jwk(`{"d":"` + b64.EncodeToString(scalar(keyA)) + `",` + jwkOf(keyA)[1:]), code: malformed},
		{name: "private member null", check: "7", header: jwk(`{"d":null,` + jwkOf(keyA)[1:]), code: malformed},
		{name: "oct", check: "7", header: jwk(`{"kty":"oct","k":"AAAA"}`), code: malformed},
		{name: "point off the curve", check: "6", header: jwk(fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, x(keyA), x(keyB))), code: malformed},
		{name: "coordinate cut short", check: "6", header: [2]string{x(keyA), x(keyA)[:40]}, code: malformed},
		{name: "no y", check: "6", header: jwk(fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q}`, x(keyA))), code: malformed},
		{name: "curve of another size", check: "6", header: [2]string{"P-256", "P-384"}, code: malformed},
		{name: "curve P-521", check: "6", header: jwk(fmt.Sprintf(`{"crv":"P-521","kty":"EC","x":%q,"y":%q}`, xy(elliptic.P521(), 0), xy(elliptic.P521(), 1))), code: malformed},
		{name: "curve secp256k1", check: "6", header: [2]string{"P-256", "secp256k1"}, code: malformed},
		{name: "jwk for encryption", check: "6", header: jwk(`{"use":"enc",` + jwkOf(keyA)[1:]), code: malformed},
		{name: "jwk with another alg", check: "6", header: jwk(`{"alg":"ES384",` + jwkOf(keyA)[1:]), code: malformed},

		{name: "htm GET", check: "8", claims: [2]string{`POST`, `GET`}, code: target},
		{name: "htm in lower case", check: "8", claims: [2]string{`POST`, `post`}, code: target},
		{name: "htu of another path", check: "9", claims: htu("https://gateway.example/r/bank/pay"), code: target},
		{name: "htu with a slash more", check: "9", claims: htu(testURL + "/"), code: target},
		{name: "htu with an empty segment", check: "9", claims: htu("https://gateway.example/r//bank/accounts"), code: target},
		{name: "htu with a path in upper case", check: "9", claims: htu("https://gateway.example/R/bank/accounts"), code: target},
		{name: "htu with a slash escaped", check: "9", claims: htu("https://gateway.example/r%2fbank/accounts"), code: target},
		{name: "htu of another host", check: "9", claims: htu("https://evil.example/r/bank/accounts"), code: target},
		{name: "htu of another scheme", check: "9", claims: htu("http://gateway.example/r/bank/accounts"), code: target},
		{name: "htu of another port", check: "9", claims: htu("https://gateway.example:8443/r/bank/accounts"), code: target},
		{name: "htu with a second colon before the port", check: "9", claims: htu("https://gateway.example::443/r/bank/accounts"), code: target},
		{name: "htu with userinfo", check: "9", claims: htu("https://gateway.example@gateway.example/r/bank/accounts"), code: target},
		{name: "htu of a path alone", check: "9", claims: htu("/r/bank/accounts"), code: target},
		{name: "htu with a bad escape", check: "9", claims: htu(testURL + "%zz"), code: target},
		{name: "htu with a space", check: "9", claims: htu(testURL + " "), code: target},
		{name: "iat 61 s ago", check: "11", claims: at(-61), code: stale},
		{name: "iat an hour ago", check: "11", claims: at(-3600), code: stale},
		{name: "iat 11 s ahead", check: "11", claims: at(11), code: stale},
		{name: "iat an hour ahead", check: "11", claims: at(3600), code: stale},
		{name: "iat in milliseconds", check: "11", claims: [2]string{iat, iat + "000"}, code: malformed},
		{name: "iat is a string", check: "11", claims: [2]string{iat, fmt.Sprintf(`"iat":"%d"`, testNow.Unix())}, code: malformed},
		{name: "iat is null", check: "11", claims: [2]string{iat, `"iat":null`}, code: malformed},
		{name: "iat is 1e400", check: "11", claims: [2]string{iat, `"iat":1e400`}, code: malformed},
		{name: "iat is negative", check: "11", claims: [2]string{iat, `"iat":-1`}, code: malformed},
		{name: "ath of another token", check: "12", claims: [2]string{TokenHash(vectorToken), TokenHash("other")}, code: target},
		{name: "ath is the token", check: "12", claims: [2]string{TokenHash(vectorToken), vectorToken}, code: target},
		{name: "ath with padding", check: "12", claims: [2]string{TokenHash(vectorToken), TokenHash(vectorToken) + "="}, code: target},
	}
}

// xy returns a coordinate of a key on a curve that is not taken.
func xy(curve elliptic.Curve, n int) string {
	point, err := ecKey(curve, "a").PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	half := len(point) / 2
	return b64.EncodeToString(point[1+n*half : 1+(n+1)*half])
}

// make turns a row into a compact JWS.
func (r *row) make(key crypto.Signer, header, claims string) string {
	if r.key != nil {
		key = r.key.(crypto.Signer)
	}
	s := compact(key, edit(header, r.header), edit(claims, r.claims))
	if r.mangle != nil {
		s = r.mangle(s)
	}
	return s
}

func proofVectors() *vectorFile {
	f := &vectorFile{
		Description: "DPoP proofs for one request. Each refused row is the honest proof with one thing changed.",
		Clauses:     "check is the number of the check in RFC 9449, Section 4.3; in reading a JWT (2) RFC 7515, RFC 7519 and RFC 7493",
		Now:         testNow.Unix(), Method: "POST", URL: testURL, AccessToken: vectorToken,
	}
	f.Refused = append(f.Refused, &vector{Name: "no DPoP header", Check: "1", Code: counterfoil.ProofMissing})
	for _, r := range proofRows() {
		v := &vector{Name: r.name, Check: r.check, Header: []string{r.make(keyA, proofHeader, proofBody)}, Code: r.code}
		f.add(v)
	}
	honest := f.Accepted[0]
	honest.Thumb = publicOf(keyA).Thumbprint()
	f.Refused = append(f.Refused, &vector{Name: "two DPoP headers", Check: "1", Header: []string{honest.Header[0], honest.Header[0]}, Code: counterfoil.ProofMalformed})
	return f
}

func (f *vectorFile) add(v *vector) {
	if v.Code == "" {
		f.Accepted = append(f.Accepted, v)
	} else {
		f.Refused = append(f.Refused, v)
	}
}
