package credential

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// rsaKey is made once: making one takes long.
var rsaKey = func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}()

func signers(t *testing.T) map[string]*Signer {
	t.Helper()
	all := map[string]*Signer{}
	for alg, key := range map[string]crypto.Signer{ES256: keyA, ES384: key384, Ed25519: keyEd, PS256: rsaKey} {
		s, err := NewSigner(key)
		if err != nil {
			t.Fatal(err)
		}
		if s.Public().Alg() != alg {
			t.Fatalf("the key for %s is for %s", alg, s.Public().Alg())
		}
		all[alg] = s
	}
	return all
}

func TestAssertionRoundTrip(t *testing.T) {
	t.Parallel()
	for alg, s := range signers(t) {
		compact, err := SignAssertion(s, "payroll", testIssuer, testNow)
		if err != nil {
			t.Fatal(err)
		}
		u, err := ParseAssertion(compact)
		if err != nil {
			t.Fatal(alg, err)
		}
		if u.KeyID() != s.Public().Thumbprint() || u.ClaimedAgent() != "payroll" {
			t.Errorf("%s: kid %q, agent %q", alg, u.KeyID(), u.ClaimedAgent())
		}
		a, err := u.Check(s.Public(), testIssuer, testNow)
		if err != nil {
			t.Fatal(alg, err)
		}
		want := Assertion{Agent: "payroll", ID: a.ID, KeyThumbprint: s.Public().Thumbprint(), Expires: testNow.Add(assertionLife + Ahead), Issued: testNow}
		if !a.Expires.Equal(want.Expires) || a.Agent != want.Agent || a.KeyThumbprint != want.KeyThumbprint || len(a.ID) != 22 {
			t.Errorf("%s: %+v", alg, a)
		}
		// Its id is remembered for as long as it is taken, and not taken after.
		if _, err := u.Check(s.Public(), testIssuer, a.Expires.Add(-time.Nanosecond)); err != nil {
			t.Errorf("%s: refused while its id is remembered: %v", alg, err)
		}
		_, err = u.Check(s.Public(), testIssuer, a.Expires)
		wantRefused(t, err, counterfoil.AssertionExpired)
		_, err = u.Check(publicOf(keyB), testIssuer, testNow)
		wantRefused(t, err, counterfoil.ClientRefused)
		_, err = u.Check(PublicKey{}, testIssuer, testNow)
		wantRefused(t, err, counterfoil.ClientRefused)
		_, err = u.Check(s.Public(), "", testNow)
		wantRefused(t, err, counterfoil.AssertionAudience)
	}
}

// TestClientRefusalsAreAlike: an answer is no oracle for which agents, keys or
// algorithms are registered.
func TestClientRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	want := RefuseClient(counterfoil.KeyUnknown)
	for name, compact := range map[string]string{
		"other key":                 compact(keyB, assertionHeader, assertionBody),
		"other algorithm":           compact(keyA, edit(assertionHeader, [2]string{"ES256", "PS256"}), assertionBody),
		"other key, other audience": compact(keyB, assertionHeader, edit(assertionBody, [2]string{testIssuer, "https://x.example"})),
	} {
		u, err := ParseAssertion(compact)
		if err != nil {
			t.Fatal(err)
		}
		_, err = u.Check(publicOf(keyA), testIssuer, testNow)
		got, ok := counterfoil.AsRefusal(err)
		if !ok || got.Code != want.Code || got.Detail != want.Detail {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProofRoundTrip(t *testing.T) {
	t.Parallel()
	for alg, s := range signers(t) {
		header, err := SignProof(s, "POST", testURL+"?q=1#f", "nonce-1", "token-1", testNow)
		if err != nil {
			t.Fatal(err)
		}
		u, err := ParseProof([]string{header})
		if err != nil {
			t.Fatal(alg, err)
		}
		req := ProofRequest{Method: "POST", URL: testURL + "?q=2", TokenHash: TokenHash("token-1")}
		p, err := u.Check(req, testNow)
		if err != nil {
			t.Fatal(alg, err)
		}
		if p.JKT != s.Public().Thumbprint() || p.Alg != alg || p.Nonce != "nonce-1" || !p.IssuedAt.Equal(testNow) || len(p.ID) != 22 || len(p.Hash) != 43 {
			t.Errorf("%s: %+v", alg, p)
		}
		// The id outlives the window, so that no proof is taken after it is
		// forgotten.
		if _, err := u.Check(req, p.Expires.Add(-Ahead)); err != nil {
			t.Errorf("%s: refused at the edge of the window: %v", alg, err)
		}
		_, err = u.Check(req, p.Expires.Add(-Ahead+time.Nanosecond))
		wantRefused(t, err, counterfoil.ProofStale)
		// At the token endpoint ath is not asked for.
		req.TokenHash = ""
		if _, err := u.Check(req, testNow); err != nil {
			t.Error(err)
		}
		// A public URL that is none is our fault, not the sender's.
		req.URL = "gateway.example/r/bank"
		_, err = u.Check(req, testNow)
		if _, refused := counterfoil.AsRefusal(err); refused || err == nil {
			t.Errorf("%s: got %v for a bad configuration, want a fault", alg, err)
		}
	}
}

func TestProofHashIsOfKeyAndID(t *testing.T) {
	t.Parallel()
	// printf 'counterfoil/proof/1\nkey\nid' | openssl dgst -sha256 -binary | basenc --base64url
	const want = "T4sb-Zgq3v_Qv__jXTo9RtN68xsE0BJIryQL5qXraMg"
	if got := proofHash("key", "id"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := map[string]bool{}
	for _, jkt := range []string{"a", "b"} {
		for _, id := range []string{"x", "y"} {
			seen[proofHash(jkt, id)] = true
		}
	}
	if len(seen) != 4 {
		t.Error("two pairs have one hash")
	}
}

func testClaims() TokenClaims {
	return TokenClaims{
		Issuer: testIssuer, Audience: testResource, Subject: "payroll", ClientID: "payroll", ID: "tok_1",
		IssuedAt: testNow, NotBefore: testNow, Expires: testNow.Add(5 * time.Minute),
		Scope: []string{"pay", "read"},
		Details: []counterfoil.ToolDetail{{
			Type: counterfoil.DetailType, Locations: []string{testResource}, Tool: "pay",
			Constraints: map[string]counterfoil.Constraint{"/amount": {Max: "500.00"}, "/to": {Enum: []string{"a", "b"}}},
		}},
		JKT: publicOf(keyA).Thumbprint(), SubProfile: SubProfileAgent,
		Task:  &TaskClaim{ID: "tsk_1", Expires: testNow.Add(time.Hour)},
		Agent: AgentClaim{ID: "payroll", Instance: "ins_1", Env: "production", Epoch: testNow.UnixMilli()},
	}
}

func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	for alg, s := range signers(t) {
		want := testClaims()
		compact, err := SignToken(s, want)
		if err != nil {
			t.Fatal(err)
		}
		u, err := ParseToken(compact)
		if err != nil {
			t.Fatal(alg, err)
		}
		if u.KeyID() != s.Public().Thumbprint() || u.ClaimedIssuer() != testIssuer {
			t.Errorf("%s: kid %q, issuer %q", alg, u.KeyID(), u.ClaimedIssuer())
		}
		got, err := u.Check(s.Public(), testIssuer, testResource, testNow)
		if err != nil {
			t.Fatal(alg, err)
		}
		for _, p := range []*time.Time{&got.IssuedAt, &got.NotBefore, &got.Expires, &got.Task.Expires} {
			*p = p.UTC()
		}
		if !reflect.DeepEqual(got.TokenClaims, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", alg, got.TokenClaims, want)
		}
		_, err = u.Check(s.Public(), testIssuer, testResource, want.Expires)
		wantRefused(t, err, counterfoil.TokenExpired)
		_, err = u.Check(s.Public(), "", testResource, testNow)
		wantRefused(t, err, counterfoil.TokenIssuer)
		_, err = u.Check(s.Public(), testIssuer, "", testNow)
		wantRefused(t, err, counterfoil.TokenAudience)
	}
}

// TestTokenJSON: the bytes are those of the profile, so that other people's
// servers can read them.
func TestTokenJSON(t *testing.T) {
	t.Parallel()
	s := signers(t)[ES256]
	c := testClaims()
	c.Details = nil
	compact, err := SignToken(s, c)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := b64.DecodeString(part(compact, 1))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"agent":{"env":"production","epoch":1795262400000,"id":"payroll","instance":"ins_1"},"aud":"https://gateway.example/r/bank",` +
		`"client_id":"payroll","cnf":{"jkt":"` + c.JKT + `"},"exp":1795262700,"iat":1795262400,"iss":"https://issuer.example","jti":"tok_1",` +
		`"nbf":1795262400,"scope":"pay read","sub":"payroll","sub_profile":"ai_agent","task":{"exp":1795266000,"id":"tsk_1"}}`
	if string(claims) != want {
		t.Errorf("got  %s\nwant %s", claims, want)
	}
	header, err := b64.DecodeString(part(compact, 0))
	if want := `{"alg":"ES256","kid":"` + s.Public().Thumbprint() + `","typ":"at+jwt"}`; err != nil || string(header) != want {
		t.Errorf("header %s, want %s", header, want)
	}
}

func TestIncompleteTokensAreNotSigned(t *testing.T) {
	t.Parallel()
	s := signers(t)[ES256]
	for name, change := range map[string]func(*TokenClaims){
		"issuer":     func(c *TokenClaims) { c.Issuer = "" },
		"audience":   func(c *TokenClaims) { c.Audience = "" },
		"subject":    func(c *TokenClaims) { c.Subject = "" },
		"client":     func(c *TokenClaims) { c.ClientID = "" },
		"id":         func(c *TokenClaims) { c.ID = "" },
		"key":        func(c *TokenClaims) { c.JKT = "" },
		"instance":   func(c *TokenClaims) { c.Agent.Instance = "" },
		"other name": func(c *TokenClaims) { c.Agent.ID = "treasury" },
		"epoch":      func(c *TokenClaims) { c.Agent.Epoch = 0 },
		"expiry":     func(c *TokenClaims) { c.Expires = time.Time{} },
		"task":       func(c *TokenClaims) { c.Task = &TaskClaim{} },
		"scope":      func(c *TokenClaims) { c.Scope = []string{"a b"} },
	} {
		c := testClaims()
		if _, err := SignToken(s, c); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if _, err := SignToken(s, c); err == nil {
			t.Errorf("a token without a good %s is signed", name)
		}
	}
}

// TestOneKindIsNotAnother: each credential, as it is made here, under each of
// the readers.
func TestOneKindIsNotAnother(t *testing.T) {
	t.Parallel()
	s := signers(t)[ES256]
	assertion, err := SignAssertion(s, "payroll", testIssuer, testNow)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := SignProof(s, "POST", testURL, "", "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	token, err := SignToken(s, testClaims())
	if err != nil {
		t.Fatal(err)
	}
	for name, compact := range map[string]string{"assertion": assertion, "proof": proof, "token": token} {
		_, aerr := ParseAssertion(compact)
		_, perr := ParseProof([]string{compact})
		_, terr := ParseToken(compact)
		if (aerr == nil) != (name == "assertion") || (perr == nil) != (name == "proof") || (terr == nil) != (name == "token") {
			t.Errorf("a %s: as assertion %v, as proof %v, as token %v", name, aerr, perr, terr)
		}
	}
}

func TestVerifyTakesTheKeysAlgorithmAlone(t *testing.T) {
	t.Parallel()
	all := signers(t)
	input := []byte("input")
	for alg, s := range all {
		sig, err := s.Sign(input)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{ES256, ES384, Ed25519, EdDSA, PS256, "", "none", "RS256"} {
			want := name == alg || alg == Ed25519 && name == EdDSA
			if err := s.Public().Verify(input, sig, name); (err == nil) != want {
				t.Errorf("a key for %s under alg %q: %v", alg, name, err)
			}
		}
		for other, k := range all {
			if other != alg && k.Public().Verify(input, sig, other) == nil {
				t.Errorf("a signature of %s verifies with a key for %s", alg, other)
			}
		}
		if err := s.Public().Verify([]byte("inpus"), sig, alg); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another input: %v", alg, err)
		}
		if err := s.Public().Verify(input, nil, alg); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: no signature: %v", alg, err)
		}
		if err := (PublicKey{}).Verify(input, sig, ""); !errors.Is(err, ErrSignature) {
			t.Errorf("the zero key: %v", err)
		}
	}
}

// TestSaltLength: PS256 with a salt of another length is not PS256.
func TestSaltLength(t *testing.T) {
	t.Parallel()
	pub := publicOf(rsaKey)
	sum := crypto.SHA256.New()
	sum.Write([]byte("input"))
	digest := sum.Sum(nil)
	for salt, want := range map[int]bool{32: true, 0: false, 20: false, 64: false} {
		opts := &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		if salt == 0 {
			opts.SaltLength = 16
		}
		sig, err := rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, digest, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := pub.Verify([]byte("input"), sig, PS256); (err == nil) != want {
			t.Errorf("a salt of %d bytes: %v", opts.SaltLength, err)
		}
	}
}

func TestThumbprints(t *testing.T) {
	t.Parallel()
	for alg, s := range signers(t) {
		again, err := ParseJWK(s.Public().JWK())
		if err != nil || again.Thumbprint() != s.Public().Thumbprint() || again.Alg() != alg {
			t.Errorf("%s: the key's own JWK is another key: %v", alg, err)
		}
	}
}

// TestSmallOrder: under each of the points a signature without a private key
// verifies for some message, which is why they are refused.
func TestSmallOrder(t *testing.T) {
	t.Parallel()
	// The identity as R and zero as S: S·B = R + k·A wherever k·A is zero.
	sig := make([]byte, 64)
	sig[0] = 1
	for _, y := range smallOrders {
		for _, sign := range []byte{0, 0x80} {
			a := y
			a[31] |= sign
			if _, err := NewPublicKey(ed25519.PublicKey(a[:])); err == nil {
				t.Errorf("%x is accepted", a)
			}
			forged := false
			message := make([]byte, 8)
			for i := range uint64(200) {
				binary.BigEndian.PutUint64(message, i)
				if ed25519.Verify(a[:], message, sig) {
					forged = true
					break
				}
			}
			// A point whose x is zero has no negative: the encoding is
			// invalid, and nothing verifies. The library may take it.
			if !forged && sign == 0 && y != field(0xed) && y != field(0xee) {
				t.Errorf("%x is not of small order", a)
			}
		}
	}
	if _, err := NewPublicKey(keyEd.Public()); err != nil {
		t.Error(err)
	}
}

func TestPrivateKeyPEM(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{ES256, ES384, Ed25519} {
		key, err := GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		text, err := MarshalPrivateKeyPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePrivateKeyPEM(text)
		if err != nil {
			t.Fatal(err)
		}
		if publicOf(again).Thumbprint() != publicOf(key).Thumbprint() {
			t.Error("another key came back")
		}
		for name, bad := range map[string]string{
			"two keys":     string(text) + string(text),
			"another type": strings.ReplaceAll(string(text), "PRIVATE KEY", "EC PRIVATE KEY"),
			"nothing":      "",
			"half":         string(text[:len(text)/2]),
		} {
			if _, err := ParsePrivateKeyPEM([]byte(bad)); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	}
	p521, err := MarshalPrivateKeyPEM(ecKey(elliptic.P521(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePrivateKeyPEM(p521); err == nil {
		t.Error("a P-521 key is accepted")
	}
	if _, err := GenerateKey("RS512"); err == nil {
		t.Error("a key for RS512 is made")
	}
}

// TestNormalize holds the comparison of URLs against the examples of RFC 3986,
// Section 6.2, and against what must stay different.
func TestNormalize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b string }{
		{"HTTP://www.EXAMPLE.com/", "http://www.example.com/"},
		{"http://example.com", "http://example.com/"},
		{"http://example.com:", "http://example.com/"},
		{"http://example.com:80/", "http://example.com/"},
		{"https://example.com:443", "https://example.com/"},
		{"https://[2001:DB8::1]:443/x", "https://[2001:db8::1]/x"},
		{"http://example.com/%7euser", "http://example.com/~user"},
		{"http://example.com/%c3%a9", "http://example.com/%C3%A9"},
		{"http://example.com/a/./b/../c", "http://example.com/a/c"},
		{"http://example.com/a/%2e%2E/b", "http://example.com/b"},
		{"http://example.com/../..", "http://example.com/"},
		{"http://example.com/a/b/..", "http://example.com/a/"},
		{"http://example.com/a/.", "http://example.com/a/"},
		{"http://example.com?x", "http://example.com/#y"},
		{"http://example.com/.well-known/x", "http://example.com/.well-known/x?"},
	} {
		if same, err := sameTarget(c.a, c.b); !same || err != nil {
			t.Errorf("%s and %s are not the same: %v", c.a, c.b, err)
		}
		if same, err := sameTarget(c.b, c.a); !same || err != nil {
			t.Errorf("%s and %s are not the same: %v", c.b, c.a, err)
		}
	}
	for _, c := range []struct{ a, b string }{
		{"http://example.com/a", "https://example.com/a"},
		{"http://example.com/a", "http://example.com/A"},
		{"http://example.com/a", "http://example.com/a/"},
		{"http://example.com/a//b", "http://example.com/a/b"},
		{"http://example.com/a%2fb", "http://example.com/a/b"},
		{"http://example.com:443/", "http://example.com/"},
		{"http://example.com.", "http://example.com"},
		{"http://example.com%40evil.example/", "http://evil.example/"},
		{"http://example.com\\@evil.example/", "http://example.com/"},
		{"http://u@example.com/", "http://example.com/"},
		{"//example.com/", "http://example.com/"},
		{"http:///a", "http://example.com/a"},
		{"http://:80/", "http://example.com/"},
		{"http://example.com/é", "http://example.com/%C3%A9"},
		{"http://example.com/\x00", "http://example.com/"},
		{"http://example.com/%", "http://example.com/"},
		{"http://example.com/%2", "http://example.com/"},
		{"ftp://example.com/", "http://example.com/"},
		{"", "http://example.com/"},
	} {
		if same, err := sameTarget(c.a, c.b); same || err != nil {
			t.Errorf("%q is the same as %q, or %v", c.a, c.b, err)
		}
	}
}
