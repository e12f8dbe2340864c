package signals

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	keysLife    = 10 * time.Minute // what was fetched counts for as long
	keysRefresh = time.Minute      // between two fetches for a key that is not known
	maxKeySet   = 64 << 10         // bytes of a JWK set
	maxKeys     = 32               // of a set
)

// A namedKey is a transmitter's key with the name that its events may give it.
type namedKey struct {
	kid string
	key credential.PublicKey
}

// A keyCache holds the keys of transmitters that publish them.
type keyCache struct {
	mu   sync.Mutex
	sets map[string]*keySet // by jwks_uri
}

// A keySet is one transmitter's keys as they were fetched.
type keySet struct {
	mu      sync.Mutex // one fetch at a time
	keys    []namedKey
	fetched time.Time // zero: never
	tried   time.Time
}

func (c *keyCache) of(uri string) *keySet {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sets == nil {
		c.sets = map[string]*keySet{}
	}
	if c.sets[uri] == nil {
		c.sets[uri] = &keySet{}
	}
	return c.sets[uri]
}

// keysOf returns the keys of a transmitter that an event may be signed with: those of
// its kid or, without one, all. None is none that is known.
func (e *Engine) keysOf(ctx context.Context, t *counterfoil.Transmitter, kid string) ([]credential.PublicKey, error) {
	if t.JWKSURI == "" {
		var keys []namedKey
		for _, jwk := range t.Keys {
			if k, err := parseNamed([]byte(jwk)); err == nil {
				keys = append(keys, k)
			}
		}
		return named(keys, kid), nil
	}
	set := e.keys.of(t.JWKSURI)
	set.mu.Lock()
	defer set.mu.Unlock()
	now := e.cfg.Now()
	fresh := !set.fetched.IsZero() && now.Before(set.fetched.Add(keysLife))
	found := named(set.keys, kid)
	if fresh && len(found) > 0 {
		return found, nil
	}
	// Whoever sends events with a made-up kid, or while the keys cannot be fetched, has
	// us ask once a minute, whatever they send.
	if !set.tried.IsZero() && now.Before(set.tried.Add(keysRefresh)) {
		if !fresh {
			return nil, counterfoil.NewFault(counterfoil.UpstreamUnavailable, fmt.Errorf("the keys of transmitter %s could not be fetched a moment ago", t.Name))
		}
		return nil, nil
	}
	set.tried = now
	keys, err := e.fetchKeys(ctx, t.JWKSURI)
	if err != nil {
		if fresh {
			return nil, nil // what is there is good, and has not that key
		}
		return nil, counterfoil.NewFault(counterfoil.UpstreamUnavailable, fmt.Errorf("fetching the keys of transmitter %s: %w", t.Name, err))
	}
	set.keys, set.fetched = keys, now
	return named(keys, kid), nil
}

func named(keys []namedKey, kid string) []credential.PublicKey {
	var out []credential.PublicKey
	for _, k := range keys {
		if kid == "" || k.kid == kid || k.key.Thumbprint() == kid {
			out = append(out, k.key)
		}
	}
	return out
}

func (e *Engine) fetchKeys(ctx context.Context, uri string) ([]namedKey, error) {
	// The fetch is everybody's: it does not end with the one who happened to need it.
	status, body, err := e.exchange(context.WithoutCancel(ctx), http.MethodGet, uri, nil, http.Header{"Accept": {"application/json"}}, maxKeySet)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("the answer has status %d", status)
	}
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := ijson.UnmarshalLax(body, &set); err != nil {
		return nil, fmt.Errorf("the JWK set: %w", err)
	}
	var keys []namedKey
	for _, jwk := range set.Keys[:min(len(set.Keys), maxKeys)] {
		// RFC 7517, Section 5: keys of a kind that is not understood are ignored.
		if k, err := parseNamed(jwk); err == nil {
			keys = append(keys, k)
		}
	}
	// Of two keys with one name neither is meant more than the other.
	ambiguous := func(k namedKey) bool {
		n := 0
		for _, other := range keys {
			if other.kid == k.kid && k.kid != "" {
				n++
			}
		}
		return n > 1
	}
	kept := make([]namedKey, 0, len(keys))
	for _, k := range keys {
		if !ambiguous(k) {
			kept = append(kept, k)
		}
	}
	return slices.Clip(kept), nil
}

func parseNamed(jwk []byte) (namedKey, error) {
	key, err := credential.ParseEventJWK(jwk)
	if err != nil {
		return namedKey{}, err
	}
	var given struct {
		KID string `json:"kid"`
	}
	if err := ijson.UnmarshalLax(jwk, &given); err != nil {
		return namedKey{}, err
	}
	return namedKey{given.KID, key}, nil
}
