package ledger

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// A memory keeps stored hashes as a store would.
type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(m)) {
			return nil, fmt.Errorf("hash %d is not there", index)
		}
		out[i] = m[index]
	}
	return out, nil
}

// The tree must be that of x/mod at every size: the same stored hashes, the
// same root, and the same again when it is loaded.
func TestTreeIsTlogs(t *testing.T) {
	t.Parallel()
	var tree, quiet Tree
	var stored memory
	for n := range int64(600) {
		if want, err := tlog.TreeHash(n, stored); err != nil || tree.Root() != want {
			t.Fatalf("root at %d: %v, want %v (%v)", n, tree.Root(), want, err)
		}
		h := tlog.Hash(sha256.Sum256([]byte{byte(n), byte(n >> 8)}))
		want, err := tlog.StoredHashesForRecordHash(n, h, stored)
		if err != nil {
			t.Fatal(err)
		}
		got := tree.Append(h, nil)
		quiet.Add(h)
		if len(got) != len(want) {
			t.Fatalf("entry %d stores %d hashes, want %d", n, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("hash %d of entry %d differs", i, n)
			}
		}
		stored = append(stored, got...)
		if int64(len(stored)) != tlog.StoredHashCount(n+1) {
			t.Fatalf("%d hashes after entry %d", len(stored), n)
		}
		loaded, err := LoadTree(n+1, stored)
		if err != nil || loaded.Root() != tree.Root() || quiet.Root() != tree.Root() || loaded.Size() != n+1 {
			t.Fatalf("loaded at %d: %v", n+1, err)
		}
	}
}

func TestTreeGrowsFromAnySize(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(t, "size")
		more := rapid.IntRange(0, 200).Draw(t, "more")
		var tree Tree
		var stored memory
		for i := range n {
			stored = append(stored, tree.Append(tlog.Hash{byte(i)}, nil)...)
		}
		grown, err := LoadTree(int64(n), stored)
		if err != nil {
			t.Fatal(err)
		}
		for i := range more {
			h := tlog.Hash{byte(i), 1}
			stored = append(stored, tree.Append(h, nil)...)
			grown.Add(h)
		}
		if grown.Root() != tree.Root() {
			t.Fatal("the roots differ")
		}
		proof, err := tlog.ProveTree(int64(n+more), int64(n), stored)
		if n > 0 && err == nil {
			old, _ := LoadTree(int64(n), stored)
			err = tlog.CheckTree(proof, int64(n+more), tree.Root(), int64(n), old.Root())
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestTilePaths(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]tlog.Tile{
		"tile/0/000":               {H: 8, L: 0, N: 0, W: 256},
		"tile/0/x001/x234/067":     {H: 8, L: 0, N: 1234067, W: 256},
		"tile/1/x001/x234/067.p/5": {H: 8, L: 1, N: 1234067, W: 5},
	} {
		got, err := ParseTilePath(path)
		if err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", path, got, err)
		}
		if p := TilePath(want); p != path {
			t.Errorf("%+v is written %s, want %s", want, p, path)
		}
	}
	for _, bad := range []string{
		"", "tile", "tile/", "tile/0", "tile/8/0/000", "tile/data/000", "tile/entries/000", "tile/0/0", "tile/0/x000/000", "tile/0/000.p/0",
		"tile/0/000.p/256", "tile/-1/000", "tile/00/000", "tile/0/000/", "/tile/0/000", "tile/9/000", "tile/0/../000", "tile/0/000.p/05",
	} {
		if got, err := ParseTilePath(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}
