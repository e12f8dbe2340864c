package credential

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// The honest access token: the issuer's key is B, the agent's A.
var (
	tokenHeader = `{"typ":"at+jwt","alg":"ES256","kid":"` + publicOf(keyB).Thumbprint() + `"}`
	tokenBody   = fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":"payroll","client_id":"payroll","iat":%d,"nbf":%d,"exp":%d,"jti":"tok_1","scope":"pay read",`+
		`"authorization_details":[{"type":%q,"locations":[%q],"tool":"pay","constraints":{"/amount":{"max":"500.00"}}}],`+
		`"cnf":{"jkt":%q},"sub_profile":"ai_agent","task":{"id":"tsk_1","exp":%d},"agent":{"id":"payroll","instance":"ins_1","env":"production","epoch":1795262400000}}`,
		testIssuer, testResource, testNow.Unix(), testNow.Unix(), testNow.Unix()+300, counterfoil.DetailType, testResource,
		publicOf(keyA).Thumbprint(), testNow.Unix()+3600)
)

func tokenRows() []row {
	const malformed, expired = counterfoil.TokenMalformed, counterfoil.TokenExpired
	now := testNow.Unix()
	exp, nbf := fmt.Sprintf(`"exp":%d,"jti"`, now+300), fmt.Sprintf(`"nbf":%d`, now)
	iss := func(s string) [2]string { return [2]string{`"iss":"` + testIssuer + `"`, `"iss":` + s} }
	aud := func(s string) [2]string { return [2]string{`"aud":"` + testResource + `"`, `"aud":` + s} }
	typ := func(s string) [2]string { return [2]string{`"at+jwt"`, quoteJSON(s)} }
	without := func(name, text string) row {
		return row{name: "no " + name, check: name, claims: [2]string{text, ``}, code: malformed}
	}
	rows := []row{
		{name: "honest"},
		{name: "typ with a prefix", check: "typ", header: typ("application/at+jwt")},
		{name: "aud an array of one", check: "aud", claims: aud(`["` + testResource + `"]`)},
		{name: "no scope, details or task", check: "claims", claims: [2]string{tokenBody, tokenWithout()}},
		{name: "unknown claim", check: "claims", claims: [2]string{`{"iss"`, `{"acr":"1","iss"`}},

		{name: "alg none", check: "alg", header: [2]string{`ES256`, `none`}, mangle: func(s string) string { return withPart(s, 2, "") }, code: malformed},
		{name: "alg HS256 keyed with the public key", check: "alg", mangle: func(string) string {
			return hs256([]byte(jwkOf(keyB)), edit(tokenHeader, [2]string{`ES256`, `HS256`}), tokenBody)
		}, code: malformed},
		{name: "alg ES384 for a key of ES256", check: "alg", header: [2]string{`ES256`, `ES384`}, code: malformed},
		{name: "jwk in the header", check: "header", header: [2]string{`{"typ"`, `{"jwk":` + jwkOf(keyA) + `,"typ"`}, code: malformed},
		{name: "no kid", check: "kid", header: [2]string{`,"kid":"` + publicOf(keyB).Thumbprint() + `"`, ``}, code: malformed},
		{name: "signed by another key", check: "signature", key: keyA, code: malformed},
		{name: "expired and signed by another key", check: "signature", key: keyA, claims: [2]string{exp, fmt.Sprintf(`"exp":%d,"jti"`, now-1)}, code: malformed},
		{name: "cut short by a character", check: "form", mangle: func(s string) string { return s[:len(s)-1] }, code: malformed},
		{name: "a character more", check: "form", mangle: func(s string) string { return s + "A" }, code: malformed},
		{name: "larger than 8 KiB", check: "size", claims: [2]string{`{"iss"`, `{"pad":"` + strings.Repeat("x", 6200) + `","iss"`}, code: counterfoil.PayloadTooLarge},
		{name: "encrypted: five parts", check: "form", mangle: func(s string) string { return s + ".A.A" }, code: malformed},

		{name: "iss of another issuer", check: "iss", claims: iss(`"https://evil.example"`), code: counterfoil.TokenIssuer},
		{name: "iss with a slash more", check: "iss", claims: iss(`"` + testIssuer + `/"`), code: counterfoil.TokenIssuer},
		{name: "aud of another resource", check: "aud", claims: aud(`"https://gateway.example/r/mail"`), code: counterfoil.TokenAudience},
		{name: "aud an array with another", check: "aud", claims: aud(`["` + testResource + `","https://gateway.example/r/mail"]`), code: counterfoil.TokenAudience},
		{name: "aud with a slash more", check: "aud", claims: aud(`"` + testResource + `/"`), code: counterfoil.TokenAudience},
		{name: "aud is empty", check: "aud", claims: aud(`""`), code: malformed},
		{name: "expired now", check: "exp", claims: [2]string{exp, fmt.Sprintf(`"exp":%d,"jti"`, now)}, code: expired},
		{name: "expired an hour ago", check: "exp", claims: [2]string{exp, fmt.Sprintf(`"exp":%d,"jti"`, now-3600)}, code: expired},
		{name: "exp is a string", check: "exp", claims: [2]string{exp, fmt.Sprintf(`"exp":"%d","jti"`, now+300)}, code: malformed},
		{name: "not valid for 11 s", check: "nbf", claims: [2]string{nbf, fmt.Sprintf(`"nbf":%d`, now+11)}, code: expired},
		{name: "dated 11 s ahead", check: "iat", claims: [2]string{fmt.Sprintf(`"iat":%d`, now), fmt.Sprintf(`"iat":%d`, now+11)}, code: expired},
		without("iss", `"iss":"`+testIssuer+`",`),
		without("aud", `"aud":"`+testResource+`",`),
		without("sub", `"sub":"payroll",`),
		without("client_id", `"client_id":"payroll",`),
		without("jti", `"jti":"tok_1",`),
		without("exp", fmt.Sprintf(`"exp":%d,"jti":"tok_1",`, now+300)),
		without("nbf", nbf+`,`),
		without("iat", fmt.Sprintf(`"iat":%d,`, now)),
		without("cnf", `"cnf":{"jkt":"`+publicOf(keyA).Thumbprint()+`"},`),
		{name: "no agent", check: "agent", claims: [2]string{tokenBody, tokenBody[:strings.Index(tokenBody, `,"agent"`)] + "}"}, code: malformed},
		{name: "agent is not client_id", check: "agent", claims: [2]string{`"agent":{"id":"payroll"`, `"agent":{"id":"treasury"`}, code: malformed},
		{name: "no epoch", check: "agent", claims: [2]string{`,"epoch":1795262400000`, ``}, code: malformed},
		{name: "unknown member of agent", check: "agent", claims: [2]string{`"epoch"`, `"only":"x","epoch"`}, code: malformed},
		{name: "bound to a certificate too", check: "cnf", claims: [2]string{`"cnf":{`, `"cnf":{"x5t#S256":"AAAA",`}, code: malformed},
		{name: "bound to nothing", check: "cnf", claims: [2]string{`"cnf":{"jkt":"` + publicOf(keyA).Thumbprint() + `"}`, `"cnf":{}`}, code: malformed},
		{name: "unknown restriction in a detail", check: "authorization_details", claims: [2]string{`"tool":"pay"`, `"tool":"pay","call_digest":"sha-256:AAAA"`}, code: malformed},
		{name: "a name twice", check: "claims", claims: [2]string{`"sub"`, `"sub":"treasury","sub"`}, code: malformed},
	}
	for _, other := range []string{"", "JWT", "AT+JWT", "dpop+jwt", "client-authentication+jwt", "logout+jwt", "secevent+jwt", "id_token+jwt", "token-introspection+jwt", "txntoken+jwt"} {
		rows = append(rows, row{name: fmt.Sprintf("typ %q", other), check: "typ", header: typ(other), code: malformed})
	}
	return rows
}

// tokenWithout returns the claims without those that may be absent.
func tokenWithout() string {
	s := tokenBody
	for _, cut := range [][2]string{{`,"scope"`, `,"cnf"`}, {`,"sub_profile"`, `,"agent"`}} {
		i, j := strings.Index(s, cut[0]), strings.Index(s, cut[1])
		s = s[:i] + s[j:]
	}
	return s
}

func tokenVectors() *vectorFile {
	f := &vectorFile{
		Description: "Access tokens for one resource, under the issuer's key. Each refused row is the honest token with one thing changed.",
		Clauses:     "RFC 9068, Section 4; RFC 9449, Section 6.1; RFC 7519",
		Now:         testNow.Unix(), Issuer: testIssuer, Audience: testResource, Key: json.RawMessage(jwkOf(keyB)),
	}
	for _, r := range tokenRows() {
		f.add(&vector{Name: r.name, Check: r.check, Compact: r.make(keyB, tokenHeader, tokenBody), Code: r.code})
	}
	f.Accepted[0].Thumb = publicOf(keyA).Thumbprint()
	return f
}
