//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package store

import (
	"errors"
	"os"
)

// The server runs where a folder can be locked; elsewhere only the agent's
// commands do.
func flock(*os.File) error { return errors.New("locking a file is not supported on this system") }

func funlock(*os.File) error { return nil }

func syncDir(string) error { return nil }
