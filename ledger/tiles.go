package ledger

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// TileHeight is the height of tiles (C2SP tlog-tiles): 256 hashes each.
const TileHeight = 8

// TilePath returns the path of a tile below the log's URL (C2SP tlog-tiles,
// "Merkle Tree"), such as tile/0/x001/x234/067.p/5.
func TilePath(t tlog.Tile) string {
	// tlog.Tile.Path writes the height too, which C2SP fixes and leaves out.
	return strings.Replace(t.Path(), fmt.Sprintf("tile/%d/", t.H), "tile/", 1)
}

// ParseTilePath reads what TilePath writes, and nothing else. Entries are not
// served as tiles: tile/entries and tile/data are errors.
func ParseTilePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return tlog.Tile{}, fmt.Errorf("%.80q is not the path of a tile", path)
	}
	t, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", TileHeight, rest))
	if err != nil || t.L < 0 || t.L > 7 || TilePath(t) != path {
		return tlog.Tile{}, fmt.Errorf("%.80q is not the path of a tile", path)
	}
	return t, nil
}

// FetchTile gets the bytes of a tile by its TilePath. What it returns is not
// trusted.
type FetchTile func(ctx context.Context, path string) ([]byte, error)

// VerifyTiles checks a log of which only hashes are at hand: that the hashes
// of all entries give the root that the checkpoint signs, and that the log
// extends the earlier checkpoint of the options. It says nothing about what
// the entries are.
func VerifyTiles(ctx context.Context, checkpoint []byte, fetch FetchTile, opt VerifyOptions) (Report, error) {
	c, err := OpenCheckpoint(checkpoint, opt.Verifier)
	if err != nil {
		return Report{}, err
	}
	v := verification{opt: opt, report: Report{Origin: c.Origin, Size: c.Size, Hash: c.Hash, Earlier: -1}}
	if opt.Earlier != nil {
		earlier, err := OpenCheckpoint(opt.Earlier, opt.Verifier)
		if err != nil {
			return Report{}, fmt.Errorf("reading the earlier checkpoint: %w", err)
		}
		if earlier.Size > c.Size {
			return Report{}, fmt.Errorf("the log has %d entries, the earlier checkpoint signs %d: the tail was cut", c.Size, earlier.Size)
		}
		v.earlier = &earlier
	}
	if err := v.passEarlier(); err != nil {
		return Report{}, err
	}
	for v.tree.size < c.Size {
		if err := v.tile(ctx, c.Size, fetch); err != nil {
			return Report{}, err
		}
	}
	if v.tree.Root() != c.Hash {
		return Report{}, fmt.Errorf("the tiles do not give the root that the checkpoint signs: %s", v.suspects())
	}
	return v.report, nil
}

// tile fetches the tile of entry hashes that comes next.
func (v *verification) tile(ctx context.Context, size int64, fetch FetchTile) error {
	const width = 1 << TileHeight
	t := tlog.Tile{H: TileHeight, N: v.tree.size / width, W: int(min(width, size-v.tree.size))}
	b, err := fetch(ctx, TilePath(t))
	if err != nil {
		return fmt.Errorf("fetching %s: %w", TilePath(t), err)
	}
	if len(b) != t.W*tlog.HashSize {
		return fmt.Errorf("%s has %d bytes instead of %d", TilePath(t), len(b), t.W*tlog.HashSize)
	}
	for ; len(b) > 0; b = b[tlog.HashSize:] {
		v.tree.Add(tlog.Hash(b[:tlog.HashSize]))
		if err := v.passEarlier(); err != nil {
			return err
		}
	}
	if v.opt.Progress != nil {
		v.opt.Progress(v.tree.size)
	}
	return nil
}
