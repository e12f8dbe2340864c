package credential

import (
	"bytes"
	"crypto"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/counterfoil/counterfoil"
)

// What is refused is refused, with a code; what is accepted, go-jose accepts.

func FuzzParseProof(f *testing.F) {
	v := proofVectors()
	for _, row := range append(v.Accepted, v.Refused...) {
		for _, h := range row.Header {
			f.Add(h)
		}
	}
	req := ProofRequest{Method: "POST", URL: testURL, TokenHash: TokenHash(vectorToken)}
	f.Fuzz(func(t *testing.T, header string) {
		u, err := ParseProof([]string{header})
		if err != nil {
			wantAnyRefusal(t, err)
			return
		}
		p, err := u.Check(req, testNow)
		if err != nil {
			wantAnyRefusal(t, err)
			return
		}
		if u.jws.header.Alg != Ed25519 && !joseVerifies(header, p.Key.JWK()) {
			t.Error("go-jose refuses what is accepted")
		}
	})
}

func FuzzParseAssertion(f *testing.F) {
	v := assertionVectors()
	for _, row := range append(v.Accepted, v.Refused...) {
		f.Add(row.Compact)
	}
	key := publicOf(keyA)
	f.Fuzz(func(t *testing.T, compact string) {
		u, err := ParseAssertion(compact)
		if err != nil {
			wantAnyRefusal(t, err)
			return
		}
		if _, err := u.Check(key, testIssuer, testNow); err != nil {
			wantAnyRefusal(t, err)
		} else if !joseVerifies(compact, key.JWK()) {
			t.Error("go-jose refuses what is accepted")
		}
	})
}

func FuzzParseToken(f *testing.F) {
	v := tokenVectors()
	for _, row := range append(v.Accepted, v.Refused...) {
		f.Add(row.Compact)
	}
	key := publicOf(keyB)
	f.Fuzz(func(t *testing.T, compact string) {
		u, err := ParseToken(compact)
		if err != nil {
			wantAnyRefusal(t, err)
			return
		}
		if _, err := u.Check(key, testIssuer, testResource, testNow); err != nil {
			wantAnyRefusal(t, err)
		} else if !joseVerifies(compact, key.JWK()) {
			t.Error("go-jose refuses what is accepted")
		}
	})
}

func FuzzParseJWK(f *testing.F) {
	v := keyVectors()
	for _, row := range append(v.Accepted, v.Refused...) {
		f.Add([]byte(row.JWK))
	}
	f.Fuzz(func(t *testing.T, jwk []byte) {
		key, err := ParseJWK(jwk)
		if err != nil {
			return
		}
		again, err := ParseJWK(key.JWK())
		if err != nil || again.Thumbprint() != key.Thumbprint() || again.Alg() != key.Alg() {
			t.Errorf("the key's own JWK is another key: %v", err)
		}
		var other jose.JSONWebKey
		err = json.Unmarshal(key.JWK(), &other)
		if err != nil && strings.Contains(err.Error(), "modulus too large") {
			return // its limit is lower
		}
		if err != nil || !other.Valid() {
			t.Errorf("go-jose refuses what is accepted: %v", err)
		}
	})
}

// A key file is read as the key that it holds, and what is wrong with one is said
// without a word of it.
func FuzzParsePrivateKeyPEM(f *testing.F) {
	for _, key := range []crypto.Signer{keyA, key384, keyEd} {
		b, err := MarshalPrivateKeyPEM(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
		f.Add(append(bytes.Clone(b), b...))
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nHeader: x\n\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := ParsePrivateKeyPEM(b)
		if err != nil {
			for _, line := range strings.Fields(string(b)) {
				if len(line) >= 16 && strings.Contains(err.Error(), line) {
					t.Errorf("the error holds the text: %v", err)
				}
			}
			return
		}
		written, err := MarshalPrivateKeyPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePrivateKeyPEM(written)
		if err != nil || publicOf(again).Thumbprint() != publicOf(key).Thumbprint() {
			t.Errorf("the key comes back as another: %v", err)
		}
	})
}

// Two URLs are one target alike from both sides, and not where net/url sees
// another scheme, host or user.
func FuzzTarget(f *testing.F) {
	for _, r := range proofRows() {
		if u := r.claims[1]; strings.Contains(u, "gateway") {
			f.Add(strings.Trim(u, `"`))
		}
	}
	f.Fuzz(func(t *testing.T, htu string) {
		normal, ok := normalize(htu)
		if ok {
			if again, ok := normalize(normal); !ok || again != normal {
				t.Errorf("%q becomes %q, then %q", htu, normal, again)
			}
		}
		same, err := sameTarget(htu, testURL)
		if err != nil {
			t.Fatal(err)
		}
		if !same {
			return
		}
		if back, err := sameTarget(testURL, htu); err != nil || !back {
			t.Errorf("%q is the target, and the target is not %q: %v", htu, htu, err)
		}
		if u, err := url.Parse(htu); err == nil && (u.User != nil || !strings.EqualFold(u.Scheme, "https") || !strings.EqualFold(u.Hostname(), "gateway.example")) {
			t.Errorf("%q is taken for %s", htu, testURL)
		}
	})
}

func wantAnyRefusal(t *testing.T, err error) {
	t.Helper()
	if refusal, ok := counterfoil.AsRefusal(err); !ok || refusal.Code == "" || refusal.Detail == "" {
		t.Errorf("not a refusal: %v", err)
	}
}
