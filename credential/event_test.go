package credential

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/counterfoil/counterfoil"
)

// eventRSA makes one key for all tests: it takes its time.
var eventRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := GenerateKey(RS256)
	if err != nil {
		panic(err)
	}
	return key.(*rsa.PrivateKey)
})

func eventSigner(t testing.TB) *Signer {
	t.Helper()
	s, err := NewSignerFor(RS256, eventRSA())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	eventHeader = `{"typ":"secevent+jwt","alg":"RS256","kid":"k"}`
	revokedType = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
)

var eventBody = fmt.Sprintf(`{"iss":%q,"aud":"https://us.example","jti":"e-1","iat":%d,"sub_id":{"format":"email","email":"ana@example.com"},"events":{%q:{"event_timestamp":1}}}`,
	testIssuer, testNow.Unix(), revokedType)

// rs256 makes a JWS of two JSON texts with the key for events.
func rs256(header, claims string) string {
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(claims))
	s, err := NewSignerFor(RS256, eventRSA())
	if err != nil {
		panic(err)
	}
	sig, err := s.Sign([]byte(input))
	if err != nil {
		panic(err)
	}
	return input + "." + b64.EncodeToString(sig)
}

// What is signed here, another implementation verifies, from the published key, and
// the same event is the same text each time.
func TestSignSET(t *testing.T) {
	t.Parallel()
	s := eventSigner(t)
	if s.Public().Alg() != RS256 || eventRSA().N.BitLen() < 2048 {
		t.Fatalf("the key is for %s with %d bits", s.Public().Alg(), eventRSA().N.BitLen())
	}
	claims := SETClaims{
		Issuer: testIssuer, Audience: "payroll", ID: "str_a.1.0", IssuedAt: testNow, Txn: "1",
		Subject: SubjectID{Format: SubjectComplex, Application: &SubjectID{Format: SubjectIssSub, Issuer: testIssuer, Subject: "payroll"}},
		Event:   revokedType, Payload: map[string]any{"event_timestamp": testNow.Unix()},
	}
	compact, err := SignSET(s, claims)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := SignSET(s, claims); err != nil || again != compact {
		t.Errorf("the same event is another text the second time: %v", err)
	}
	sig, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := sig.Verify(&eventRSA().PublicKey)
	if err != nil {
		t.Fatalf("go-jose: %v", err)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub", "exp"} {
		if _, has := got[name]; has {
			t.Errorf("the event has %s", name)
		}
	}
	for _, name := range []string{"iss", "aud", "jti", "iat", "sub_id", "events", "txn"} {
		if _, has := got[name]; !has {
			t.Errorf("the event has no %s", name)
		}
	}
	if typ := sig.Signatures[0].Header.ExtraHeaders["typ"]; typ != "secevent+jwt" {
		t.Errorf("typ %v", typ)
	}

	incomplete := claims
	incomplete.Audience = ""
	if _, err := SignSET(s, incomplete); err == nil {
		t.Error("an event without an audience is signed")
	}
}

// A key for events signs nothing that an agent could use, and is nobody's key where
// agents' keys are read.
func TestEventKeyIsForEventsAlone(t *testing.T) {
	t.Parallel()
	events := eventSigner(t)
	agents, err := NewSigner(eventRSA())
	if err != nil {
		t.Fatal(err)
	}
	now := testNow
	token := TokenClaims{
		Issuer: testIssuer, Audience: testResource, Subject: "payroll", ClientID: "payroll", ID: "tok_1", IssuedAt: now, NotBefore: now,
		Expires: now.Add(time.Minute), JKT: "x", Agent: AgentClaim{ID: "payroll", Instance: "ins_1", Env: "prod", Epoch: 1},
	}
	makers := map[string]func(*Signer) (string, error){
		"assertion": func(s *Signer) (string, error) { return SignAssertion(s, "payroll", testIssuer, now) },
		"proof":     func(s *Signer) (string, error) { return SignProof(s, "GET", testURL, "", "", now) },
		"token":     func(s *Signer) (string, error) { return SignToken(s, token) },
		"introspection": func(s *Signer) (string, error) {
			return SignIntrospection(s, testIssuer, "bank", now, map[string]any{"active": false})
		},
	}
	for name, sign := range makers {
		if _, err := sign(agents); err != nil {
			t.Errorf("control: a %s by the key for PS256: %v", name, err)
		}
		if got, err := sign(events); err == nil {
			t.Errorf("a %s by the key for events: %s", name, got)
		}
	}
	if slices.Contains(Algorithms(), RS256) {
		t.Error("agents may use RS256")
	}
	jwk := agents.Public().JWK()
	named := strings.Replace(string(jwk), "{", `{"alg":"RS256",`, 1)
	if _, err := ParseJWK(jwk); err != nil {
		t.Errorf("control: an RSA key of an agent: %v", err)
	}
	if _, err := ParseJWK([]byte(named)); err == nil {
		t.Error("an agent's key for RS256 is taken")
	}
	if k, err := ParseEventJWK([]byte(named)); err != nil || k.Alg() != RS256 {
		t.Errorf("control: the same as a key for events: %v, %v", k.Alg(), err)
	}
	// By the signature too: an assertion with RS256 that the registered key's other
	// name would verify.
	input := edit(assertionHeader, [2]string{`ES256`, `RS256`})
	if _, err := ParseAssertion(rs256(input, assertionBody)); counterfoil.CodeOf(err) != counterfoil.AssertionMalformed {
		t.Errorf("an assertion with RS256: %v", err)
	}
	if err := agents.Public().Verify([]byte("x"), signRS256(t, events, "x"), RS256); err == nil {
		t.Error("an agent's key verifies RS256")
	}
	if err := events.Public().Verify([]byte("x"), signRS256(t, events, "x"), RS256); err != nil {
		t.Errorf("control: %v", err)
	}
}

func signRS256(t *testing.T, s *Signer, input string) []byte {
	t.Helper()
	sig, err := s.Sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func TestKeyForAlgorithm(t *testing.T) {
	t.Parallel()
	rsaJWK := string(publicOf(eventRSA()).JWK())
	with := func(alg string) string { return strings.Replace(rsaJWK, "{", `{"alg":"`+alg+`",`, 1) }
	for _, c := range []struct{ jwk, alg string }{
		{rsaJWK, RS256}, {with("RS256"), RS256}, {with("PS256"), PS256}, {jwkOf(keyA), ES256},
		{jwkOf(key384), ""}, {jwkOf(keyEd), ""}, {with("ES256"), ""}, {with("none"), ""},
		{strings.Replace(rsaJWK, "{", `{"d":"AQ",`, 1), ""}, {`[]`, ""}, {`{"kty":"oct","k":"AAAA"}`, ""},
	} {
		k, err := ParseEventJWK([]byte(c.jwk))
		if k.Alg() != c.alg || (err == nil) != (c.alg != "") {
			t.Errorf("%.60s: %q, %v; want %q", c.jwk, k.Alg(), err, c.alg)
		}
	}
	if k, err := ParseJWKFor(RS256, []byte(rsaJWK)); err != nil || k.Alg() != RS256 {
		t.Errorf("a row of RS256: %v", err)
	}
	if k, err := ParseJWKFor(ES256, []byte(jwkOf(keyA))); err != nil || k.Alg() != ES256 {
		t.Errorf("a row of ES256: %v", err)
	}
	if _, err := ParseJWKFor(RS256, []byte(jwkOf(keyA))); err == nil {
		t.Error("a row of RS256 with another key is taken")
	}
	if _, err := NewSignerFor(RS256, keyA); err == nil {
		t.Error("a signer for RS256 with another key")
	}
	if s, err := NewSignerFor(ES256, keyA); err != nil || s.Public().Alg() != ES256 {
		t.Errorf("a signer for ES256: %v", err)
	}
}

// Each row is the honest event with one thing changed.
func TestParseSET(t *testing.T) {
	t.Parallel()
	const malformed = counterfoil.RequestMalformed
	now := testNow.Unix()
	iat := fmt.Sprintf(`"iat":%d`, now)
	typ := func(s string) [2]string { return [2]string{`"secevent+jwt"`, quoteJSON(s)} }
	aud := func(s string) [2]string { return [2]string{`"aud":"https://us.example"`, `"aud":` + s} }
	events := fmt.Sprintf(`{%q:{"event_timestamp":1}}`, revokedType)
	for _, r := range []struct {
		name           string
		header, claims [2]string
		mangle         func(string) string
		code           counterfoil.Code
	}{
		{name: "honest"},
		{name: "typ with a prefix", header: typ("application/secevent+jwt")},
		{name: "several audiences", claims: aud(`["https://other.example","https://us.example"]`)},
		{name: "sub beside sub_id", claims: [2]string{`{"iss"`, `{"sub":"x","iss"`}},
		{name: "exp to come", claims: [2]string{iat, iat + fmt.Sprintf(`,"exp":%d`, now+1)}},
		{name: "29 days old", claims: [2]string{iat, fmt.Sprintf(`"iat":%d`, now-29*86400)}},
		{name: "no subject", claims: [2]string{`"sub_id":{"format":"email","email":"ana@example.com"},`, ``}},

		{name: "no typ", header: [2]string{`"typ":"secevent+jwt",`, ``}, code: malformed},
		{name: "typ of a token", header: typ("at+jwt"), code: malformed},
		{name: "typ JWT", header: typ("JWT"), code: malformed},
		{name: "alg none", header: [2]string{`RS256`, `none`}, code: malformed},
		{name: "alg HS256", header: [2]string{`RS256`, `HS256`}, code: malformed},
		{name: "alg RS512", header: [2]string{`RS256`, `RS512`}, code: malformed},
		{name: "alg PS256 over RS256", header: [2]string{`RS256`, `PS256`}, code: counterfoil.TokenMalformed},
		{name: "jwk in the header", header: [2]string{`{"typ"`, `{"jwk":` + jwkOf(keyB) + `,"typ"`}, code: malformed},
		{name: "jku in the header", header: [2]string{`{"typ"`, `{"jku":"https://keys.example","typ"`}, code: malformed},
		{name: "crit in the header", header: [2]string{`{"typ"`, `{"crit":["b64"],"typ"`}, code: malformed},
		{name: "claims swapped", mangle: func(s string) string {
			return withPart(s, 1, b64.EncodeToString([]byte(edit(eventBody, [2]string{"e-1", "e-2"}))))
		}, code: counterfoil.TokenMalformed},
		{name: "a signature too short", mangle: func(s string) string { return withPart(s, 2, b64.EncodeToString(make([]byte, 255))) }, code: counterfoil.TokenMalformed},
		{name: "no signature", mangle: func(s string) string { return withPart(s, 2, "") }, code: counterfoil.TokenMalformed},
		{name: "loose bits", mangle: func(s string) string { return looseBits(s, 2) }, code: malformed},
		{name: "no iss", claims: [2]string{`"iss":"` + testIssuer + `",`, ``}, code: malformed},
		{name: "another iss", claims: [2]string{testIssuer, testIssuer + "/"}, code: counterfoil.TokenIssuer},
		{name: "no aud", claims: [2]string{`"aud":"https://us.example",`, ``}, code: counterfoil.TokenAudience},
		{name: "another aud", claims: aud(`"https://us.example/"`), code: counterfoil.TokenAudience},
		{name: "aud empty", claims: aud(`[]`), code: counterfoil.TokenAudience},
		{name: "no jti", claims: [2]string{`"jti":"e-1",`, ``}, code: malformed},
		{name: "jti of 257 bytes", claims: [2]string{`e-1`, strings.Repeat("x", 257)}, code: malformed},
		{name: "jti twice", claims: [2]string{`"jti"`, `"jti":"e-0","jti"`}, code: malformed},
		{name: "no iat", claims: [2]string{iat + `,`, ``}, code: malformed},
		{name: "iat 11 s ahead", claims: [2]string{iat, fmt.Sprintf(`"iat":%d`, now+11)}, code: counterfoil.TokenExpired},
		{name: "30 days old", claims: [2]string{iat, fmt.Sprintf(`"iat":%d`, now-30*86400)}, code: counterfoil.TokenExpired},
		{name: "expired", claims: [2]string{iat, iat + fmt.Sprintf(`,"exp":%d`, now-10)}, code: counterfoil.TokenExpired},
		{name: "no events", claims: [2]string{`,"events":` + events, ``}, code: malformed},
		{name: "events empty", claims: [2]string{events, `{}`}, code: malformed},
		{name: "events a list", claims: [2]string{events, `[]`}, code: malformed},
		{name: "two events", claims: [2]string{`{"event_timestamp":1}`, `{},"https://x.example/e":{}`}, code: malformed},
		{name: "an event that is text", claims: [2]string{`{"event_timestamp":1}`, `"x"`}, code: malformed},
		{name: "a subject that is text", claims: [2]string{`{"format":"email","email":"ana@example.com"}`, `"x"`}, code: malformed},
		{name: "larger than 64 KiB", claims: [2]string{`{"iss"`, `{"pad":"` + strings.Repeat("x", 50<<10) + `","iss"`}, code: counterfoil.PayloadTooLarge},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			compact := rs256(edit(eventHeader, r.header), edit(eventBody, r.claims))
			if r.mangle != nil {
				compact = r.mangle(compact)
			}
			u, err := ParseSET(compact)
			var set SET
			if err == nil {
				set, err = u.Check(eventSigner(t).Public(), testIssuer, "https://us.example", testNow)
			}
			if r.code != "" {
				if err == nil || counterfoil.CodeOf(err) != r.code {
					t.Errorf("got %v, want %s", err, r.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if set.ID != "e-1" || set.Event != revokedType || string(set.Payload) != `{"event_timestamp":1}` || set.Issuer != testIssuer {
				t.Errorf("set = %+v", set)
			}
		})
	}
	// Under another key of the same kind, and with the other algorithms that are taken.
	other, err := GenerateKey(RS256)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewSignerFor(RS256, other)
	if err != nil {
		t.Fatal(err)
	}
	u, err := ParseSET(rs256(eventHeader, eventBody))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Check(stranger.Public(), testIssuer, "https://us.example", testNow); counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
		t.Errorf("another's key: %v", err)
	}
	if _, err := u.Check(PublicKey{}, testIssuer, "https://us.example", testNow); err == nil {
		t.Error("no key verifies")
	}
	for _, key := range []crypto.Signer{keyA, eventRSA()} {
		s, err := NewSigner(key) // ES256, and PS256
		if err != nil {
			t.Fatal(err)
		}
		part, err := headerPart(map[string]string{"typ": "secevent+jwt", "alg": s.Public().Alg()})
		if err != nil {
			t.Fatal(err)
		}
		compact, err := signJWS(s, part, json.RawMessage(eventBody))
		if err != nil {
			t.Fatal(err)
		}
		u, err := ParseSET(compact)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Check(s.Public(), testIssuer, "https://us.example", testNow); err != nil {
			t.Errorf("%s: %v", s.Public().Alg(), err)
		}
	}
}

func TestSignIntrospection(t *testing.T) {
	t.Parallel()
	s, err := NewSigner(keyA)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := SignIntrospection(s, testIssuer, "bank", testNow, map[string]any{"active": true, "sub": "payroll"})
	if err != nil {
		t.Fatal(err)
	}
	if !joseVerifies(compact, s.Public().JWK()) {
		t.Error("go-jose does not verify it")
	}
	parts := strings.Split(compact, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"aud":"bank","iat":%d,"iss":%q,"token_introspection":{"active":true,"sub":"payroll"}}`, testNow.Unix(), testIssuer)
	if string(payload) != want {
		t.Errorf("claims %s\nwant   %s", payload, want)
	}
	head, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || !strings.Contains(string(head), `"typ":"token-introspection+jwt"`) {
		t.Errorf("header %s, %v", head, err)
	}
	// It is no access token, whoever shows it, and no event.
	if _, err := ParseToken(compact); counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
		t.Errorf("as an access token: %v", err)
	}
	if _, err := ParseSET(compact); counterfoil.CodeOf(err) != counterfoil.RequestMalformed {
		t.Errorf("as an event: %v", err)
	}
	for _, answer := range []any{nil, "text", []string{}} {
		if _, err := SignIntrospection(s, testIssuer, "bank", testNow, answer); err == nil {
			t.Errorf("%v is signed", answer)
		}
	}
}

func FuzzParseSET(f *testing.F) {
	f.Add(rs256(eventHeader, eventBody))
	f.Add(rs256(edit(eventHeader, [2]string{`RS256`, `PS256`}), eventBody))
	f.Add(compact(keyA, assertionHeader, assertionBody))
	key := eventSigner(f).Public()
	f.Fuzz(func(t *testing.T, compact string) {
		u, err := ParseSET(compact)
		if err != nil {
			wantAnyRefusal(t, err)
			return
		}
		if _, err := u.Check(key, testIssuer, "https://us.example", testNow); err != nil {
			wantAnyRefusal(t, err)
			return
		}
		sig, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.RS256})
		if err == nil {
			_, err = sig.Verify(&eventRSA().PublicKey)
		}
		if err != nil {
			t.Errorf("go-jose refuses what is accepted: %v", err)
		}
	})
}

func FuzzParseEventJWK(f *testing.F) {
	f.Add([]byte(publicOf(eventRSA()).JWK()))
	f.Add([]byte(jwkOf(keyA)))
	f.Fuzz(func(t *testing.T, jwk []byte) {
		k, err := ParseEventJWK(jwk)
		if err == nil && !slices.Contains(EventAlgorithms(), k.Alg()) {
			t.Errorf("a key of %s for events", k.Alg())
		}
	})
}
