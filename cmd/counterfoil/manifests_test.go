//go:build unix

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A pipe that nobody writes to cannot be read to its end; an interrupt ends the
// wait all the same. What can be read is read.
func TestManifestsAreAwaitedUntilAnInterrupt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe.yaml"), filepath.Join(dir, "file.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("kind: Class\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{}
	ctx, interrupt := context.WithCancel(t.Context())
	if files, err := a.awaitManifests(ctx, []string{file}); err != nil || len(files) != 1 {
		t.Errorf("a file: %v %v", files, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := a.awaitManifests(ctx, []string{pipe})
		ended <- err
	}()
	interrupt()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a pipe that nobody writes to: %v", err)
	}
}
