package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A configuration is taken whole or refused with the file's name on each
// problem, and what is taken has nothing that its check would refuse.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte("data: [\n"))
	f.Add([]byte("data: &a [*a]\n"))
	f.Add([]byte("colour: red\n--- {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig("c.yaml", data)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("%v is no list of problems", err)
			}
			for _, p := range problems {
				if !strings.HasPrefix(p, "c.yaml:") {
					t.Errorf("a problem without the file: %q", p)
				}
			}
			return
		}
		if p := c.check(); len(p) > 0 || c.Dev {
			t.Errorf("%q is taken: %v", data, p)
		}
		c.fill()
		c.proxies()
		if p := c.check(); len(p) > 0 {
			t.Errorf("%q with what is filled in: %v", data, p)
		}
	})
}

// A key-encryption key is 32 bytes in one spelling, and what is wrong with a
// file is said without its text.
func FuzzKeyFile(f *testing.F) {
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=\n"))
	f.Add([]byte("PRIVATE+KEY+log.example+00000000+AAAA"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "kek")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		kek, err := loadKEK(path, false)
		if err == nil && len(kek) != kekSize {
			t.Errorf("%q is a key of %d bytes", data, len(kek))
		}
		if text := strings.TrimSpace(string(data)); err != nil && len(text) > 20 && strings.Contains(err.Error(), text) {
			t.Errorf("the error has the text: %v", err)
		}
	})
}
