package credential

import (
	"encoding/json"
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
		if err := json.Unmarshal(key.JWK(), &other); err != nil || !other.Valid() {
			t.Errorf("go-jose refuses what is accepted: %v", err)
		}
	})
}

func wantAnyRefusal(t *testing.T, err error) {
	t.Helper()
	if refusal, ok := counterfoil.AsRefusal(err); !ok || refusal.Code == "" || refusal.Detail == "" {
		t.Errorf("not a refusal: %v", err)
	}
}
