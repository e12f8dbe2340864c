package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/counterfoil/counterfoil/credential"
)

// exponentOf returns the private member that a JWK has of a key.
func exponentOf(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return d
	case ed25519.PrivateKey:
		return key.Seed()
	case *rsa.PrivateKey:
		return key.D.Bytes()
	}
	t.Fatalf("a key of type %T", key)
	return nil
}

func rsaOf(t testing.TB) (*rsa.PrivateKey, credential.PublicKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := credential.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}
