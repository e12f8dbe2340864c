package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("legacy-4f9d2c81-7b60-example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "localhost:0", "nonsense"} {
		if err := run(t.Context(), []string{"--listen", addr, "--token", token}); err == nil {
			t.Errorf("--listen %s was taken", addr)
		}
	}
	for _, args := range [][]string{{}, {"--token", token + "-not-there"}, {"--token", os.DevNull}, {"--token", token, "more"}} {
		if err := run(t.Context(), append([]string{"--listen", "127.0.0.1:0"}, args...)); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	// The control: loopback is served until the context ends.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"--listen", "127.0.0.1:0", "--token", token}); err != nil {
		t.Error(err)
	}
}
