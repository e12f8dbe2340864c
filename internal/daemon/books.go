package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/ledger"
)

// books is the store as the web room reads the ledger.
type books struct {
	*store.Store
	verifier note.Verifier
}

// Head returns how many entries there are and the root over them.
func (b books) Head() (int64, string) {
	size, root := b.Store.Head()
	return size, root.String()
}

// Tile returns a tile by its path, as far as the log goes.
func (b books) Tile(ctx context.Context, path string) ([]byte, bool, error) {
	t, err := ledger.ParseTilePath(path)
	if err != nil {
		return nil, false, nil
	}
	data, err := b.ReadTile(ctx, t)
	if errors.Is(err, store.ErrNoEntry) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// Range calls each with the entries from one index to before another.
func (b books) Range(ctx context.Context, from, to int64, each func(entry []byte) error) error {
	return b.Entries(ctx, from, to, func(_ int64, entry []byte) error { return each(entry) })
}

// Export writes the log as it is now.
func (b books) Export(ctx context.Context, w io.Writer) error {
	signed, err := b.Checkpoint(ctx)
	if err != nil {
		return err
	}
	c, err := ledger.OpenCheckpoint(signed, b.verifier)
	if err != nil {
		return fmt.Errorf("opening our own checkpoint: %w", err)
	}
	return ledger.WriteExport(w, c, func(put func([]byte) error) error {
		return b.Entries(ctx, 0, c.Size, func(_ int64, entry []byte) error { return put(entry) })
	})
}
