package main

import (
	"context"
	"path/filepath"
	"testing"
)

func TestListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "bank.db")
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "localhost:0", "nonsense"} {
		if err := run(t.Context(), []string{"--listen", addr, "--db", db}); err == nil {
			t.Errorf("--listen %s was taken", addr)
		}
	}
	// The control: loopback is served until the context ends.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"--listen", "127.0.0.1:0", "--db", db}); err != nil {
		t.Error(err)
	}
}
