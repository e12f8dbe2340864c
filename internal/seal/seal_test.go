package seal_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/seal"
)

func kek(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func TestSeal(t *testing.T) {
	t.Parallel()
	secret := []byte("what nobody may read")
	sealed, err := seal.Seal(kek(1), "signing_keys/sealed", "kid-1", secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, secret) {
		t.Fatal("the sealed form holds the secret")
	}
	if again, _ := seal.Seal(kek(1), "signing_keys/sealed", "kid-1", secret); bytes.Equal(again, sealed) {
		t.Error("two seals of one secret are the same")
	}
	got, err := seal.Open(kek(1), "signing_keys/sealed", "kid-1", sealed)
	if err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	flip := func(i int) []byte {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		return b
	}
	for _, tt := range []struct {
		name        string
		kek         []byte
		purpose, id string
		sealed      []byte
		want        error
	}{
		{"another KEK", kek(2), "signing_keys/sealed", "kid-1", sealed, seal.ErrWrongKEK},
		{"another row", kek(1), "signing_keys/sealed", "kid-2", sealed, seal.ErrDamaged},
		{"another table", kek(1), "ledger/sealed", "kid-1", sealed, seal.ErrDamaged},
		{"a bit of the text", kek(1), "signing_keys/sealed", "kid-1", flip(len(sealed) - 1), seal.ErrDamaged},
		{"a bit of the nonce", kek(1), "signing_keys/sealed", "kid-1", flip(12), seal.ErrDamaged},
		{"another version", kek(1), "signing_keys/sealed", "kid-1", flip(0), seal.ErrDamaged},
		{"cut", kek(1), "signing_keys/sealed", "kid-1", sealed[:20], seal.ErrDamaged},
		{"empty", kek(1), "signing_keys/sealed", "kid-1", nil, seal.ErrDamaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := seal.Open(tt.kek, tt.purpose, tt.id, tt.sealed)
			if !errors.Is(err, tt.want) || got != nil {
				t.Errorf("Open = %q, %v; want %v", got, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), string(secret)) {
				t.Error("the error holds the secret")
			}
		})
	}
	if _, err := seal.Seal(kek(1)[:16], "p", "i", secret); err == nil {
		t.Error("a KEK of 16 bytes was taken")
	}
}
