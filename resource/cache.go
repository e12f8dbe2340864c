package resource

import (
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/credential"
)

// keptToken is a token whose signature verified. Nothing else about it was
// checked, and all of that is checked for each request.
type keptToken struct {
	credential.SignedToken
	kid  string
	hash string // its ath
}

const (
	tokenShards  = 16
	tokensAShard = 1024 // at most
)

// tokenCache keeps verified tokens by their SHA-256. Only what our issuer
// signed gets in, so that strangers cannot push others out. The zero tokenCache
// is ready.
type tokenCache struct {
	shards [tokenShards]tokenShard
}

type tokenShard struct {
	mu sync.RWMutex
	m  map[[32]byte]*keptToken
}

func (c *tokenCache) get(sum [32]byte) *keptToken {
	s := &c.shards[sum[0]%tokenShards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[sum]
}

// put keeps t. In a full shard it drops what is past, and if that is little some
// others, which costs each of them a verification.
func (c *tokenCache) put(sum [32]byte, t *keptToken, now time.Time) {
	s := &c.shards[sum[0]%tokenShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[[32]byte]*keptToken{}
	}
	if len(s.m) >= tokensAShard {
		for k, old := range s.m {
			if !now.Before(old.ClaimedExpiry()) {
				delete(s.m, k)
			}
		}
		// As many as pay for having looked at all.
		for k := range s.m {
			if len(s.m) <= tokensAShard-tokensAShard/8 {
				break
			}
			delete(s.m, k)
		}
	}
	s.m[sum] = t
}
