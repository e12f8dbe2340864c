package resource

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"
)

// TestTokenCacheIsBounded: however many tokens come, so many are kept and the
// newest is one of them.
func TestTokenCacheIsBounded(t *testing.T) {
	t.Parallel()
	var c tokenCache
	var expiry time.Time // of the zero token
	now := expiry.Add(-time.Hour)
	held := func() int {
		n := 0
		for i := range c.shards {
			n += len(c.shards[i].m)
		}
		return n
	}
	sum := func(i uint64) [32]byte { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, i)) }
	for i := range uint64(3 * tokenShards * tokensAShard) {
		c.put(sum(i), &keptToken{}, now)
		if c.get(sum(i)) == nil {
			t.Fatalf("token %d is not kept", i)
		}
	}
	if n := held(); n > tokenShards*tokensAShard || n < tokenShards*tokensAShard*7/8 {
		t.Errorf("%d tokens are kept", n)
	}
	if c.get(sum(1<<40)) != nil {
		t.Error("a token that never came is there")
	}
}

// TestPastTokensGoFirst: when a shard is full of tokens that are past, they
// make room, all of them.
func TestPastTokensGoFirst(t *testing.T) {
	t.Parallel()
	var c tokenCache
	var expiry time.Time // of the zero token
	for i := range tokensAShard + 1 {
		if got := len(c.shards[0].m); got != i {
			t.Fatalf("%d tokens are kept of %d", got, i)
		}
		now := expiry.Add(-time.Second)
		if i == tokensAShard {
			now = expiry
		}
		c.put([32]byte{0, byte(i), byte(i >> 8)}, &keptToken{}, now)
	}
	if got := len(c.shards[0].m); got != 1 {
		t.Errorf("%d tokens are kept", got)
	}
}
