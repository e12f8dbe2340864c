package ledger

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// A Tree is the right edge of the Merkle tree over the entries: all that is
// needed to append to it and to know its root, 32 bytes for each level
// whatever its size. The zero Tree is empty. A Tree is a value: a copy is a
// snapshot. Hashing is that of x/mod's tlog, which is RFC 6962's.
type Tree struct {
	size int64
	edge [63]tlog.Hash // edge[i] is the root of the perfect subtree of 2^i entries, where bit i of size is set
}

// Size returns how many entries the tree has.
func (t *Tree) Size() int64 { return t.size }

// Append adds an entry by its hash, and appends to dst the hashes that a store
// keeps for it: the entry's own, then one for each subtree that it completes.
// They are those of tlog.StoredHashes.
func (t *Tree) Append(entry tlog.Hash, dst []tlog.Hash) []tlog.Hash {
	h := entry
	dst = append(dst, h)
	level := 0
	for ; t.size>>level&1 == 1; level++ {
		h = tlog.NodeHash(t.edge[level], h)
		dst = append(dst, h)
	}
	t.edge[level] = h
	t.size++
	return dst
}

// Add is Append for those who keep nothing.
func (t *Tree) Add(entry tlog.Hash) {
	h := entry
	level := 0
	for ; t.size>>level&1 == 1; level++ {
		h = tlog.NodeHash(t.edge[level], h)
	}
	t.edge[level] = h
	t.size++
}

// Root returns the root of the tree.
func (t *Tree) Root() tlog.Hash {
	if t.size == 0 {
		return emptyRoot
	}
	level := bits.TrailingZeros64(uint64(t.size))
	h := t.edge[level]
	for level++; t.size>>level != 0; level++ {
		if t.size>>level&1 == 1 {
			h = tlog.NodeHash(t.edge[level], h)
		}
	}
	return h
}

// emptyRoot is the root of the tree without entries (RFC 6962, Section 2.1).
var emptyRoot = func() tlog.Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic(err) // it computes nothing and reads nothing
	}
	return h
}()

// LoadTree returns the tree of that size, whose stored hashes r reads.
func LoadTree(size int64, r tlog.HashReader) (Tree, error) {
	t := Tree{size: size}
	var indexes []int64
	var levels []int
	for level := 62; level >= 0; level-- {
		if size>>level&1 == 1 {
			// The subtree of this bit is the last one of its level.
			indexes = append(indexes, tlog.StoredHashIndex(level, size>>level-1))
			levels = append(levels, level)
		}
	}
	if len(indexes) == 0 {
		return t, nil
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return Tree{}, fmt.Errorf("reading the edge of the tree of %d entries: %w", size, err)
	}
	for i, level := range levels {
		t.edge[level] = hashes[i]
	}
	return t, nil
}
