package web_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ledger"
)

// A row is one attack on the token endpoint. Beside each, the same request
// without the attack is sent and must pass. A row whose code is empty is itself
// a request that must pass.
type row struct {
	id, name string
	edit     func(*request)
	status   int
	oauth    string
	code     counterfoil.Code
}

func client(id, name string, code counterfoil.Code, edit func(*request)) row {
	return row{id, name, edit, 401, "invalid_client", code}
}

func malformed(id, name string, edit func(*request)) row {
	return row{id, name, edit, 400, "invalid_request", counterfoil.RequestMalformed}
}

func proof(id, name string, code counterfoil.Code, edit func(*request)) row {
	return row{id, name, edit, 400, "invalid_dpop_proof", code}
}

func passes(id, name string, edit func(*request)) row { return row{id, name, edit, 200, "", ""} }

// run sends every row. Rows are in sequence, a second apart, so that no rate is
// met; a refused row must leave no token behind.
func run(t *testing.T, s *system, k agentKey, rows []row) {
	t.Helper()
	outer := s.t
	defer func() { s.t = outer }()
	for _, r := range rows {
		t.Run(r.id+" "+r.name, func(t *testing.T) {
			s.t = t
			s.clock.advance(time.Second)
			if a := s.send(s.request(k)); a.status != 200 {
				t.Fatalf("the request without the attack: %d %s", a.status, a.body)
			}
			before, _ := s.store.Head()
			q := s.request(k)
			r.edit(q)
			a := s.send(q)
			wantStatus(t, a, r.status, r.oauth, r.code)
			if got := len(s.since(before, ledger.TokenIssued)); (got == 1) != (r.status == 200) || got > 1 {
				t.Errorf("%d tokens were recorded", got)
			}
			if strings.Contains(a.body, "access_token") != (r.status == 200) {
				t.Errorf("answer %s", a.body)
			}
		})
	}
}

func claim(name string, value any) func(*request) {
	return func(q *request) { q.assertion.claims[name] = value }
}

func without(name string) func(*request) {
	return func(q *request) { delete(q.assertion.claims, name) }
}

func proofClaim(name string, value any) func(*request) {
	return func(q *request) { q.proof.claims[name] = value }
}

func withoutProof(name string) func(*request) {
	return func(q *request) { delete(q.proof.claims, name) }
}

func field(name string, values ...string) func(*request) {
	return func(q *request) { q.form[name] = values }
}

func TestClientAssertionAttacks(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	stranger, token := newSigner(t, "ES256"), s.token(k).member("access_token")
	rows := keyConfusion(t, k, stranger)
	rows = append(rows,
		client("CA2", "the attacker's key", counterfoil.ClientRefused, func(q *request) { q.assertion.signer = stranger }),
		client("CA2", "another agent's key and its kid", counterfoil.ClientRefused, func(q *request) {
			q.assertion.signer = other.signer
			q.assertion.header["kid"] = other.signer.Public().Thumbprint()
		}),
		client("CA6", "the token endpoint as aud", counterfoil.AssertionAudience, claim("aud", s.issuer+"/oauth/token")),
		client("CA6", "another server as aud", counterfoil.AssertionAudience, claim("aud", "https://as.example")),
		client("CA6", "us and another server as aud", counterfoil.AssertionAudience, claim("aud", []string{s.issuer, "https://as.example"})),
		client("CA6", "us twice as aud", counterfoil.AssertionAudience, claim("aud", []string{s.issuer, s.issuer})),
		client("CA6", "no aud", counterfoil.AssertionMalformed, without("aud")),
		client("CA6", "an empty aud", counterfoil.AssertionAudience, claim("aud", "")),
		client("CA6", "a slash at its end", counterfoil.AssertionAudience, claim("aud", s.issuer+"/")),
		client("CA6", "another case", counterfoil.AssertionAudience, claim("aud", strings.ToUpper(s.issuer))),
		passes("CA6", "us alone in an array", claim("aud", []string{s.issuer})),
		client("CA8", "iss is not sub", counterfoil.AssertionMalformed, claim("iss", "other")),
		client("CA8", "another agent", counterfoil.ClientRefused, func(q *request) { q.assertion.claims["iss"], q.assertion.claims["sub"] = "other", "other" }),
		client("CA8", "client_id of another agent", counterfoil.AssertionMalformed, field("client_id", "other")),
		passes("CA8", "its own client_id", field("client_id", "payroll")),
		client("CA9", "no jti", counterfoil.AssertionMalformed, without("jti")),
		client("CA9", "an empty jti", counterfoil.AssertionMalformed, claim("jti", "")),
		client("CA9", "a jti of 10 KiB", counterfoil.AssertionMalformed, claim("jti", strings.Repeat("a", 10<<10))),
		client("CA9", "a jti that is a number", counterfoil.AssertionMalformed, claim("jti", 7)),
		client("CA12", "a proof as assertion", counterfoil.AssertionMalformed, func(q *request) { q.form.Set("client_assertion", q.proof.compact(t)) }),
		client("CA12", "an access token as assertion", counterfoil.AssertionMalformed, func(q *request) { q.form.Set("client_assertion", token) }),
		proof("CA12", "an assertion as proof", counterfoil.ProofMalformed, func(q *request) { q.proofs = []string{q.assertion.compact(t)} }),
		passes("TYP", "typ JWT", func(q *request) { q.assertion.header["typ"] = "JWT" }),
		passes("TYP", "no typ", func(q *request) { delete(q.assertion.header, "typ") }),
		client("TYP", "typ of another kind", counterfoil.AssertionMalformed, func(q *request) { q.assertion.header["typ"] = "secevent+jwt" }),
		passes("KID", "no kid", func(q *request) { delete(q.assertion.header, "kid") }),
		client("KID", "a kid nobody has", counterfoil.ClientRefused, func(q *request) { q.assertion.header["kid"] = "nobody" }),
	)
	rows = append(rows, assertionTimes(s)...)
	rows = append(rows, duplicateNames(s)...)
	run(t, s, k, rows)
}

// keyConfusion are attempts to have the signature checked with another key or
// in another way than registered.
func keyConfusion(t *testing.T, k agentKey, stranger *credential.Signer) []row {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public().Key())
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string][]byte{
		"JWK": k.signer.Public().JWK(), "DER": der, "raw point": der[len(der)-64:],
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	}
	var rows []row
	for _, alg := range []string{"none", "None", "nOnE", ""} {
		rows = append(rows, client("CA1", "alg "+alg, counterfoil.AssertionMalformed, func(q *request) {
			q.assertion.header["alg"] = alg
			q.assertion.sign = func([]byte) []byte { return nil }
		}))
	}
	for name, key := range shared {
		rows = append(rows, client("CA2", "HS256 keyed with the public key as "+name, counterfoil.AssertionMalformed, func(q *request) {
			q.assertion.header["alg"] = "HS256"
			q.assertion.sign = func(input []byte) []byte {
				mac := hmac.New(sha256.New, key)
				mac.Write(input)
				return mac.Sum(nil)
			}
		}))
	}
	for _, alg := range []string{"ES384", "PS256", "EdDSA"} {
		rows = append(rows, client("CA3", "alg "+alg+" for a key of ES256", counterfoil.ClientRefused, func(q *request) { q.assertion.header["alg"] = alg }))
	}
	rows = append(rows, client("CA3", "RS256", counterfoil.AssertionMalformed, func(q *request) { q.assertion.header["alg"] = "RS256" }))
	var jwk any
	if err := json.Unmarshal(stranger.Public().JWK(), &jwk); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{"jwk": jwk, "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/cert", "x5c": []string{"MIIB"}} {
		rows = append(rows, client("CA4", name+" with the attacker's key", counterfoil.AssertionMalformed, func(q *request) {
			q.assertion.header[name] = value
			q.assertion.signer = stranger
		}))
	}
	return rows
}

func assertionTimes(s *system) []row {
	// The times are set when the row runs, from the clock of that moment.
	at := func(set func(q *request, now int64)) func(*request) {
		return func(q *request) { set(q, s.clock.Now().Unix()) }
	}
	times := func(iat, exp int64) func(*request) {
		return at(func(q *request, now int64) { q.assertion.claims["iat"], q.assertion.claims["exp"] = now+iat, now+exp })
	}
	return []row{
		client("CA7", "no exp", counterfoil.AssertionMalformed, without("exp")),
		client("CA7", "exp past by more than the skew", counterfoil.AssertionExpired, times(-80, -20)),
		client("CA7", "a life of 121 s", counterfoil.AssertionExpired, times(0, 121)),
		passes("CA7", "a life of 120 s", times(0, 120)),
		client("CA7", "iat 61 s ahead", counterfoil.AssertionExpired, times(61, 120)),
		passes("CA7", "iat 8 s ahead", times(8, 60)),
		client("CA7", "nbf 61 s ahead", counterfoil.AssertionExpired, at(func(q *request, now int64) { q.assertion.claims["nbf"] = now + 61 })),
		passes("CA7", "nbf 8 s ahead", at(func(q *request, now int64) { q.assertion.claims["nbf"] = now + 8 })),
		client("CA7", "exp as text", counterfoil.AssertionMalformed, at(func(q *request, now int64) { q.assertion.claims["exp"] = fmt.Sprint(now + 60) })),
		client("CA7", "ten years without iat", counterfoil.AssertionExpired, at(func(q *request, now int64) {
			delete(q.assertion.claims, "iat")
			q.assertion.claims["exp"] = now + 10*365*86400
		})),
	}
}

func duplicateNames(s *system) []row {
	claims := func(format string) func(*request) {
		return func(q *request) {
			c := q.assertion.claims
			q.assertion.rawClaims = fmt.Sprintf(format, s.issuer, c["jti"], c["iat"], c["exp"])
		}
	}
	header := func(format string) func(*request) {
		return func(q *request) { q.assertion.rawHeader = fmt.Sprintf(format, q.assertion.header["kid"]) }
	}
	return []row{
		passes("CA16", "raw claims", claims(`{"iss":"payroll","sub":"payroll","aud":%q,"jti":%q,"iat":%d,"exp":%d}`)),
		client("CA16", "sub twice", counterfoil.AssertionMalformed, claims(`{"sub":"other","iss":"payroll","sub":"payroll","aud":%q,"jti":%q,"iat":%d,"exp":%d}`)),
		client("CA16", "sub and Sub", counterfoil.AssertionMalformed, claims(`{"Sub":"other","iss":"payroll","sub":"payroll","aud":%q,"jti":%q,"iat":%d,"exp":%d}`)),
		client("CA16", "an escaped sub", counterfoil.AssertionMalformed, claims(`{"s\u0075b":"other","iss":"payroll","sub":"payroll","aud":%q,"jti":%q,"iat":%d,"exp":%d}`)),
		client("CA16", "more after the claims", counterfoil.AssertionMalformed, claims(`{"iss":"payroll","sub":"payroll","aud":%q,"jti":%q,"iat":%d,"exp":%d}{}`)),
		passes("CA16", "raw header", header(`{"alg":"ES256","kid":%q}`)),
		client("CA16", "alg twice", counterfoil.AssertionMalformed, header(`{"alg":"none","alg":"ES256","kid":%q}`)),
		client("CA16", "alg and ALG", counterfoil.AssertionMalformed, header(`{"ALG":"none","alg":"ES256","kid":%q}`)),
	}
}

func TestTokenFormAttacks(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	head := func(name string, values ...string) func(*request) {
		return func(q *request) { q.header[name] = values }
	}
	twice := func(name string) func(*request) {
		return func(q *request) { q.late = append(q.late, func(q *request) { q.form.Add(name, q.form.Get(name)) }) }
	}
	rows := []row{
		malformed("CA13", "Basic beside the assertion", head("Authorization", "Basic cGF5cm9sbDp4")),
		malformed("CA13", "Bearer beside the assertion", head("Authorization", "Bearer x")),
		malformed("CA13", "an empty Authorization header", head("Authorization", "")),
		malformed("CA13", "client_secret beside the assertion", field("client_secret", "x")),
		malformed("CA13", "an empty client_secret", field("client_secret", "")),
		malformed("CA13", "the assertion twice", twice("client_assertion")),
		client("CA13", "no client authentication", counterfoil.ClientRefused, func(q *request) {
			q.late = append(q.late, func(q *request) { q.form.Del("client_assertion"); q.form.Del("client_assertion_type") })
		}),
		malformed("CA14", "another client_assertion_type", field("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")),
		malformed("CA14", "no client_assertion_type", field("client_assertion_type", "")),
		malformed("CA14", "no client_assertion", field("client_assertion", "")),
		malformed("CA14", "a parameter in the query string", func(q *request) { q.query = "?scope=pay" }),
		malformed("CA14", "an empty query string", func(q *request) { q.query = "?" }),
		malformed("CA14", "all in the query string", func(q *request) {
			q.late = append(q.late, func(q *request) { q.query, q.body = "?"+q.form.Encode(), "x=" })
		}),
		malformed("CA14", "a JSON body", func(q *request) { q.contentType, q.body = "application/json", `{"grant_type":"client_credentials"}` }),
		malformed("CA14", "a JSON body that says it is a form", func(q *request) { q.body = `{"grant_type":"client_credentials"}` }),
		malformed("CA14", "text/plain", func(q *request) { q.contentType = "text/plain" }),
		malformed("CA14", "multipart", func(q *request) { q.contentType = "multipart/form-data; boundary=x" }),
		malformed("CA14", "no Content-Type", func(q *request) { q.contentType = "" }),
		malformed("CA14", "two Content-Types", head("Content-Type", "application/x-www-form-urlencoded", "application/json")),
		malformed("CA14", "another charset", func(q *request) { q.contentType += "; charset=utf-16" }),
		passes("CA14", "charset UTF-8", func(q *request) { q.contentType += "; charset=UTF-8" }),
		malformed("CA14", "Content-Encoding", head("Content-Encoding", "gzip")),
		malformed("CA14", "scope twice", field("scope", "pay", "pay")),
		malformed("CA14", "an unknown parameter twice", field("x", "1", "2")),
		passes("CA14", "an unknown parameter", field("x", "1")),
		passes("CA14", "a parameter without a value", field("scope", "")),
		malformed("CA14", "a semicolon between parameters", func(q *request) {
			q.late = append(q.late, func(q *request) { q.body = q.form.Encode() + ";x=1" })
		}),
		malformed("CA14", "a broken escape", func(q *request) {
			q.late = append(q.late, func(q *request) { q.body = q.form.Encode() + "&x=%zz" })
		}),
		malformed("CA14", "no UTF-8", field("x", "\xff")),
		malformed("CA14", "a NUL", field("x", "a\x00b")),
		malformed("GT", "no grant_type", field("grant_type", "")),
		{"GT", "another grant", field("grant_type", "password"), 400, "unsupported_grant_type", counterfoil.GrantUnsupported},
		{"GT", "token exchange", field("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"), 400, "unsupported_grant_type", counterfoil.GrantUnsupported},
		{"DO1", "a body of 1 MiB", func(q *request) { q.body = strings.Repeat("a", 1<<20) }, 413, "invalid_request", counterfoil.PayloadTooLarge},
		{"DO1", "an assertion of 17 KiB", func(q *request) { q.form.Set("client_assertion", strings.Repeat("a", 17<<10)) }, 413, "invalid_request", counterfoil.PayloadTooLarge},
		{"DO1", "a proof of 9 KiB", func(q *request) { q.proofs = []string{strings.Repeat("a", 9<<10)} }, 413, "invalid_request", counterfoil.PayloadTooLarge},
		client("DO1", "an assertion of dots", counterfoil.AssertionMalformed, func(q *request) { q.form.Set("client_assertion", strings.Repeat(".", 16<<10)) }),
		client("DO2", "claims that are deep", counterfoil.AssertionMalformed, func(q *request) {
			q.assertion.rawClaims = `{"sub":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}"
		}),
	}
	run(t, s, k, rows)
}

func TestProofAttacks(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	stranger := newSigner(t, "ES256")
	jwkOf := func(signer *credential.Signer, edit func(map[string]any)) func(*request) {
		return func(q *request) {
			var m map[string]any
			if err := json.Unmarshal(signer.Public().JWK(), &m); err != nil {
				t.Fatal(err)
			}
			edit(m)
			q.proof.header["jwk"] = m
		}
	}
	set := func(name string, value any) func(map[string]any) { return func(m map[string]any) { m[name] = value } }
	rows := []row{
		proof("DT1", "none", counterfoil.ProofMissing, func(q *request) { q.proofs = []string{} }),
		proof("DT1", "two headers", counterfoil.ProofMalformed, func(q *request) {
			q.late = append(q.late, func(q *request) { q.proofs = append(q.proofs, q.proofs[0]) })
		}),
		proof("DT1", "two in one header", counterfoil.ProofMalformed, func(q *request) {
			q.late = append(q.late, func(q *request) { q.proofs[0] += ", " + q.proofs[0] })
		}),
		proof("DT1", "an empty header", counterfoil.ProofMalformed, func(q *request) { q.proofs = []string{""} }),
		proof("DT2", "typ JWT", counterfoil.ProofMalformed, func(q *request) { q.proof.header["typ"] = "JWT" }),
		proof("DT2", "no typ", counterfoil.ProofMalformed, func(q *request) { delete(q.proof.header, "typ") }),
		proof("DT2", "typ in upper case", counterfoil.ProofMalformed, func(q *request) { q.proof.header["typ"] = "DPOP+JWT" }),
		proof("DT2", "typ with application/", counterfoil.ProofMalformed, func(q *request) { q.proof.header["typ"] = "application/dpop+jwt" }),
		proof("DT3", "alg none", counterfoil.ProofMalformed, func(q *request) { q.proof.header["alg"], q.proof.sign = "none", func([]byte) []byte { return nil } }),
		proof("DT3", "alg HS256", counterfoil.ProofMalformed, func(q *request) { q.proof.header["alg"] = "HS256" }),
		proof("DT3", "alg RS256", counterfoil.ProofMalformed, func(q *request) { q.proof.header["alg"] = "RS256" }),
		proof("DT4", "no jwk", counterfoil.ProofMalformed, func(q *request) { delete(q.proof.header, "jwk") }),
		proof("DT4", "a private jwk", counterfoil.ProofMalformed, jwkOf(k.signer, set("d", "AAAA"))),
		proof("DT4", "a symmetric jwk", counterfoil.ProofMalformed, func(q *request) { q.proof.header["jwk"] = map[string]any{"kty": "oct", "k": "AAAA"} }),
		proof("DT4", "another curve", counterfoil.ProofMalformed, jwkOf(k.signer, set("crv", "P-384"))),
		proof("DT4", "a point off the curve", counterfoil.ProofMalformed, jwkOf(k.signer, set("y", base64.RawURLEncoding.EncodeToString(make([]byte, 32))))),
		passes("DT4", "more members in jwk", jwkOf(k.signer, set("note", "mine"))),
		proof("DT5", "signed by another key", counterfoil.ProofMalformed, func(q *request) { q.proof.signer = stranger }),
		proof("DT5", "a bit flipped", counterfoil.ProofMalformed, func(q *request) {
			q.proof.sign = func(input []byte) []byte {
				sig, err := k.signer.Sign(input)
				if err != nil {
					t.Error(err)
				}
				sig[10] ^= 1
				return sig
			}
		}),
		proof("DT6", "htm GET", counterfoil.ProofTarget, proofClaim("htm", "GET")),
		proof("DT6", "htm post", counterfoil.ProofTarget, proofClaim("htm", "post")),
		proof("DT6", "htu of another path", counterfoil.ProofTarget, proofClaim("htu", s.issuer+"/oauth/other")),
		proof("DT6", "htu of another host", counterfoil.ProofTarget, proofClaim("htu", "http://evil.example/oauth/token")),
		proof("DT6", "htu of another scheme", counterfoil.ProofTarget, proofClaim("htu", "https"+strings.TrimPrefix(s.issuer, "http")+"/oauth/token")),
		proof("DT6", "htu of the Host header", counterfoil.ProofTarget, func(q *request) {
			q.proof.claims["htu"] = "http://evil.example/oauth/token"
			q.header["X-Forwarded-Host"], q.header["Forwarded"] = []string{"evil.example"}, []string{"host=evil.example"}
		}),
		passes("DT6", "htu in another case of scheme and host", proofClaim("htu", "HTTP"+strings.TrimPrefix(s.issuer, "http")+"/oauth/token")),
		passes("DT6", "htu with query and fragment", proofClaim("htu", s.issuer+"/oauth/token?a=1#b")),
		passes("DT6", "htu with dot segments", proofClaim("htu", s.issuer+"/a/../oauth/token")),
		proof("DT8", "no jti", counterfoil.ProofMalformed, withoutProof("jti")),
		proof("DT11", "made for the gateway", counterfoil.ProofTarget, func(q *request) {
			q.proof.claims["htu"], q.proof.claims["ath"] = s.issuer+"/r/bank", "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
		}),
		passes("DT11", "an ath at the token endpoint says nothing", proofClaim("ath", "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo")),
	}
	run(t, s, k, append(rows, proofTimes(s)...))
}

func proofTimes(s *system) []row {
	at := func(d time.Duration) func(*request) {
		return func(q *request) { q.proof.claims["iat"] = s.clock.Now().Add(d).Unix() }
	}
	return []row{
		proof("DT7", "iat an hour ago", counterfoil.ProofStale, at(-time.Hour)),
		proof("DT7", "iat in an hour", counterfoil.ProofStale, at(time.Hour)),
		proof("DT7", "iat 61 s ago", counterfoil.ProofStale, at(-61*time.Second)),
		passes("DT7", "iat 59 s ago", at(-59*time.Second)),
		passes("DT7", "iat 9 s ahead", at(9*time.Second)),
		proof("DT7", "iat as text", counterfoil.ProofMalformed, proofClaim("iat", "now")),
		proof("DT7", "iat beyond numbers", counterfoil.ProofMalformed, func(q *request) {
			q.proof.rawClaims = fmt.Sprintf(`{"htm":"POST","htu":%q,"jti":"a-long-enough-id","iat":1e400}`, s.issuer+"/oauth/token")
		}),
		proof("DT7", "no iat", counterfoil.ProofMalformed, withoutProof("iat")),
	}
}
