package seal

import (
	"bytes"
	"testing"
)

// What was sealed opens as it was, in its own place, and nothing else opens.
func FuzzOpen(f *testing.F) {
	kek := bytes.Repeat([]byte{7}, 32)
	good, err := Seal(kek, "signing_keys/sealed", "kid", []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "kid")
	f.Add(good[:len(good)-1], "kid")
	f.Add(good, "other")
	f.Add([]byte{version}, "")
	f.Fuzz(func(t *testing.T, sealed []byte, id string) {
		out, err := Open(kek, "signing_keys/sealed", id, sealed)
		if err == nil {
			if id != "kid" || string(out) != "secret" {
				t.Errorf("%x opens as %q in %q", sealed, out, id)
			}
			// Sealing twice gives two texts; of what opens no bit can be changed.
			bent := bytes.Clone(sealed)
			bent[len(bent)/2] ^= 1
			if _, err := Open(kek, "signing_keys/sealed", id, bent); err == nil {
				t.Errorf("%x opens, and so does %x", sealed, bent)
			}
		}
		if err != nil && bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("the error tells: %v", err)
		}
	})
}
