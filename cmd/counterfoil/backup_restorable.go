package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/counterfoil/counterfoil/internal/daemon"
)

// restorable says what is missing of what a restoration starts from, before anything is
// made: a name that was mistyped must not become a new, empty folder, and whoever has no
// key-encryption key any more must not be told to make one.
func restorable(cfg *daemon.Config, req *daemon.RestoreRequest) error {
	absent := func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	if !absent(filepath.Join(cfg.Data, "restore.plan")) {
		return nil // one that was broken off is finished with what it made
	}
	db := filepath.Join(cfg.Data, "counterfoil.db")
	if path, ok := strings.CutPrefix(cfg.Storage, "sqlite:"); ok {
		db = path
	}
	switch {
	case req.From != "" && absent(req.From):
		return fmt.Errorf("there is no backup at %s: name the file that counterfoil backup wrote with --from", req.From)
	case req.From == "" && absent(cfg.Data):
		return fmt.Errorf("there is no folder %s: name the server's data folder with --data or --config; for a new folder name a backup with --from", cfg.Data)
	case req.From == "" && absent(db):
		return fmt.Errorf("%s holds no ledger: there is no database at %s; copy the older one there, or name a backup with --from", cfg.Data, db)
	}
	if req.KEK != "" {
		if absent(req.KEK) {
			return fmt.Errorf("there is no key-encryption key at %s, which --kek names", req.KEK)
		}
		return nil
	}
	kek := cfg.KEK.File
	if kek == "" {
		kek = filepath.Join(cfg.Data, "kek")
	}
	if absent(kek) {
		return fmt.Errorf("there is no key-encryption key at %s: put back the copy of the one that the server had, or name it with --kek; another one opens nothing of what is restored", kek)
	}
	return nil
}
