package agent_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
)

func TestKeyFile(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{credential.Ed25519, credential.ES256} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "agent.key")
			key, err := credential.GenerateKey(alg)
			if err != nil {
				t.Fatal(err)
			}
			want, err := credential.NewSigner(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := agent.SaveKey(path, key); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			got, err := agent.LoadKey(path)
			if err != nil || got.Public().Thumbprint() != want.Public().Thumbprint() || got.Public().Alg() != alg {
				t.Errorf("another key came back: %v", err)
			}
		})
	}
}

func TestKeyFileIsNeverOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.key")
	for i := range 2 {
		key, err := credential.GenerateKey(credential.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		if err := agent.SaveKey(path, key); (err != nil) != (i > 0) {
			t.Fatalf("%d: %v", i, err)
		}
		if i == 0 {
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
					t.Error("the first key is not there any more", err)
				}
			})
		}
	}
	if err := agent.SaveKey(filepath.Join(path, "below"), nil); err == nil {
		t.Error("no key was saved without an error")
	}
}

func TestKeyFileOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.key")
	key, err := credential.GenerateKey(credential.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.SaveKey(path, key); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o660, 0o606, 0o700, 0o611} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.LoadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%04o: %v; want an error that says how to mend it", mode, err)
		}
	}
	for _, mode := range []fs.FileMode{0o400, 0o600} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.LoadKey(path); err != nil {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

func TestWhatIsNoKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	secret := "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
	for name, path := range map[string]string{
		"nothing":    filepath.Join(dir, "nothing"),
		"a folder":   dir,
		"a pipe":     pipe, // opening it would wait for ever
		"empty":      write("empty", ""),
		"text":       write("text", "hello"),
		"cut PEM":    write("cut", "-----BEGIN PRIVATE KEY-----\n"+secret+"\n"),
		"not PKCS#8": write("bad", "-----BEGIN PRIVATE KEY-----\n"+secret+"\n-----END PRIVATE KEY-----\n"),
		"too large":  write("large", strings.Repeat("x", 1<<20)),
	} {
		_, err := agent.LoadKey(path)
		if err == nil {
			t.Errorf("%s is a key", name)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error holds the text: %v", name, err)
		}
	}
}
