package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil/ledger"
)

// A place keeps the newest checkpoint outside the database, where whoever puts
// back an old copy of the database does not put back an old checkpoint.
type place struct{ path string }

func parsePlaces(urls []string) ([]place, error) {
	var out []place
	for _, u := range urls {
		path, ok := strings.CutPrefix(u, "file:")
		if !ok || path == "" {
			return nil, fmt.Errorf("checkpoint place %q: only file:PATH is known", u)
		}
		out = append(out, place{path})
	}
	return out, nil
}

// check compares the log with the checkpoint that is kept, nil when there is
// none yet.
func (p place) check(v note.Verifier, size int64, hashes tlog.HashReader) (*ledger.Checkpoint, error) {
	b, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint that is kept: %w", err)
	}
	c, err := ledger.OpenCheckpoint(b, v)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint in %s is not one of this log: %w; the key or the place is another log's%s", p.path, err, advice)
	}
	if c.Size > size {
		return nil, fmt.Errorf("the log has %d entries, the checkpoint in %s says that it had %d: an old copy was put in its place%s", size, p.path, c.Size, advice)
	}
	root, err := tlog.TreeHash(c.Size, hashes)
	if err != nil {
		return nil, fmt.Errorf("reading the tree: %w", err)
	}
	if root != c.Hash {
		return nil, fmt.Errorf("the first %d entries are not those that the checkpoint in %s signs: the log was changed%s", c.Size, p.path, advice)
	}
	return &c, nil
}

// write replaces the checkpoint that is kept. A crash leaves the old or the new
// one, never half of one.
func (p place) write(b []byte) error {
	dir := filepath.Dir(p.path)
	f, err := os.CreateTemp(dir, filepath.Base(p.path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once renamed there is nothing of that name
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()) // a checkpoint is public
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), p.path); err != nil {
		return err
	}
	return syncDir(dir)
}

// Checkpoint returns a signed checkpoint of the log as it is committed now.
func (s *Store) Checkpoint(context.Context) ([]byte, error) {
	c, err := s.sign()
	if err != nil {
		return nil, err
	}
	return c.Note, nil
}

// sign signs the head, once for each size. The head is read after the commit
// made it visible, so what is signed is durable.
func (s *Store) sign() (ledger.Checkpoint, error) {
	s.signed.Lock()
	defer s.signed.Unlock()
	size, root := s.Head()
	if c := s.signed.checkpoint; c.Note != nil && c.Size == size && c.Hash == root {
		return c, nil
	}
	b, err := ledger.SignCheckpoint(s.opt.Signer, s.opt.Origin, size, root)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	s.signed.checkpoint = ledger.Checkpoint{Origin: s.opt.Origin, Size: size, Hash: root, Note: b}
	return s.signed.checkpoint, nil
}

// keepCheckpoint writes a checkpoint of now to every place. A place that does
// not take it stops nobody.
func (s *Store) keepCheckpoint() error {
	c, err := s.sign()
	if err != nil {
		s.opt.Log.Error("signing a checkpoint", "err", err)
		return err
	}
	var errs []error
	for _, p := range s.places {
		if err := p.write(c.Note); err != nil {
			s.stats.places.Add(1)
			s.opt.Log.Error("keeping a checkpoint", "place", p.path, "err", err)
			errs = append(errs, fmt.Errorf("keeping the checkpoint in %s: %w", p.path, err))
		}
	}
	return errors.Join(errs...)
}

// keepCheckpoints keeps a checkpoint whenever the log grew, at most once a
// second.
func (s *Store) keepCheckpoints(ctx context.Context, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		_ = s.keepCheckpoint() // logged and counted there
		next := tick
		var timer *time.Timer
		if next == nil {
			timer = time.NewTimer(time.Second)
			next = timer.C
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}
