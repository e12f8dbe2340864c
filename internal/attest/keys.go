package attest

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// algorithms are those of tokens that are taken: all of them by public keys.
var algorithms = []jose.SignatureAlgorithm{
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
}

const (
	keysLife    = 5 * time.Minute  // what was fetched counts for as long: a key that was removed is gone then
	keysRefresh = time.Minute      // between two fetches for a key that is not known
	keysRetry   = 10 * time.Second // after a fetch that failed
	maxKeySet   = 64 << 10         // bytes of a JWK set
	maxKeys     = 32               // of a set, or of a declaration
	maxSets     = 1024             // issuers whose keys are kept
)

// A key is a public key of an outside issuer with what its JWK says of it.
type key struct {
	kid    string
	alg    string // empty: whatever suits the kind of key
	public any
}

// suits reports whether a token by that algorithm may be by the key: the key says
// which, never the token (RFC 8725, Section 3.1).
func (k *key) suits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		return len(alg) == 5 && (alg[:2] == "RS" || alg[:2] == "PS")
	case *ecdsa.PublicKey:
		// RFC 7518, Section 3.4: each algorithm has its own curve.
		return map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}[pub.Curve] == alg
	case ed25519.PublicKey:
		return alg == string(jose.EdDSA)
	}
	return false
}

// keySets hold the keys of issuers that publish them: by issuer and address, so that
// the same kid at two issuers is two keys. The zero keySets is ready.
type keySets struct {
	mu   sync.Mutex
	sets map[[2]string]*keySet
}

// A keySet is one issuer's keys as they were fetched. Whoever finds what it looks for
// waits for nobody.
type keySet struct {
	known atomic.Pointer[fetched]

	mu    sync.Mutex // one fetch at a time; guards what follows
	tried time.Time
}

type fetched struct {
	keys []key
	at   time.Time
}

func (s *keySets) of(issuer, uri string) *keySet {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := [2]string{issuer, uri}
	if s.sets == nil || s.sets[id] == nil && len(s.sets) >= maxSets {
		s.sets = map[[2]string]*keySet{} // declarations came and went; those in force are fetched anew
	}
	if s.sets[id] == nil {
		s.sets[id] = &keySet{}
	}
	return s.sets[id]
}

// keys returns the keys that a token of b with that kid may be signed with.
func (s *Issuers) keys(ctx context.Context, b *counterfoil.Bearer, kid string, now time.Time) ([]key, error) {
	if b.JWKSURI == "" {
		declared := make([]jsontext.Value, 0, len(b.Keys))
		for _, k := range b.Keys {
			declared = append(declared, jsontext.Value(k))
		}
		return named(parseKeys(declared), kid), nil
	}
	set := s.sets.of(b.Issuer, b.JWKSURI)
	if found := set.find(kid, now); len(found) > 0 {
		return found, nil
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	known := set.known.Load()
	fresh := known.fresh(now)
	if found := set.find(kid, now); len(found) > 0 {
		return found, nil // somebody else fetched them
	}
	// Whoever sends tokens with made-up kids, or while the keys cannot be had, has us
	// ask now and then, whatever they send.
	wait := keysRefresh
	if !fresh {
		wait = keysRetry
	}
	if !set.tried.IsZero() && now.Before(set.tried.Add(wait)) && !now.Before(set.tried) {
		if fresh {
			return nil, nil
		}
		return nil, counterfoil.NewFault(counterfoil.UpstreamUnavailable, fmt.Errorf("the keys of %s could not be fetched a moment ago", b.Issuer))
	}
	set.tried = now
	keys, err := s.fetch(ctx, b.JWKSURI)
	if err != nil {
		if fresh {
			return nil, nil // what is there is good, and has not that key
		}
		return nil, counterfoil.NewFault(counterfoil.UpstreamUnavailable, fmt.Errorf("fetching the keys of %s: %w", b.Issuer, err))
	}
	set.known.Store(&fetched{keys, now}) // all of them: what is not there any more is gone
	return named(keys, kid), nil
}

func (f *fetched) fresh(now time.Time) bool {
	// A clock that went back says nothing about how old they are.
	return f != nil && !now.Before(f.at) && now.Before(f.at.Add(keysLife))
}

func (set *keySet) find(kid string, now time.Time) []key {
	if known := set.known.Load(); known.fresh(now) {
		return named(known.keys, kid)
	}
	return nil
}

// named returns the keys that a kid may mean: those that have it, and those that have
// none (RFC 7515, Section 4.1.4: it is a hint). Without a kid it is all of them.
func named(keys []key, kid string) []key {
	if kid == "" {
		return keys
	}
	var out []key
	for _, k := range keys {
		if k.kid == kid || k.kid == "" {
			out = append(out, k)
		}
	}
	return out
}

func (s *Issuers) fetch(ctx context.Context, uri string) ([]key, error) {
	// The fetch is everybody's: it does not end with the one who happened to need it.
	body, err := s.cfg.Fetch(context.WithoutCancel(ctx), uri, maxKeySet)
	if err != nil {
		return nil, err
	}
	if len(body) > maxKeySet {
		return nil, fmt.Errorf("the JWK set is longer than %d bytes", maxKeySet)
	}
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := ijson.UnmarshalLax(body, &set); err != nil {
		return nil, fmt.Errorf("the JWK set: %w", err)
	}
	return parseKeys(set.Keys), nil
}

// parseKeys reads JWKs. RFC 7517, Section 5: those that are not understood are
// ignored. Of two with one name neither is meant more than the other.
func parseKeys(raw []jsontext.Value) []key {
	var keys []key
	for _, jwk := range raw[:min(len(raw), maxKeys)] {
		if k, ok := parseKey(jwk); ok {
			keys = append(keys, k)
		}
	}
	return slices.DeleteFunc(slices.Clone(keys), func(k key) bool {
		n := 0
		for _, other := range keys {
			if other.kid == k.kid && k.kid != "" {
				n++
			}
		}
		return n > 1
	})
}

// wireKey is what is read of a JWK. Certificates in it are not: they say nothing that
// is asked here, and parsers of them have failed others.
type wireKey struct {
	Kty string `json:"kty"`
	Crv string `json:"crv,omitzero"`
	X   string `json:"x,omitzero"`
	Y   string `json:"y,omitzero"`
	N   string `json:"n,omitzero"`
	E   string `json:"e,omitzero"`
}

func parseKey(raw jsontext.Value) (k key, ok bool) {
	// A set is somebody else's bytes, and so is what a parser makes of them.
	defer func() {
		if recover() != nil {
			k, ok = key{}, false
		}
	}()
	var wire wireKey
	var about struct {
		KID string         `json:"kid"`
		Alg string         `json:"alg"`
		Use string         `json:"use"`
		Ops []string       `json:"key_ops"`
		D   jsontext.Value `json:"d"`
		K   jsontext.Value `json:"k"`
	}
	if ijson.UnmarshalLax(raw, &wire) != nil || ijson.UnmarshalLax(raw, &about) != nil {
		return k, false
	}
	switch {
	// RFC 7517, Sections 4.2 and 4.3: what the key is for, where it says so.
	case about.Use != "" && about.Use != "sig", len(about.Ops) > 0 && !slices.Contains(about.Ops, "verify"):
		return k, false
	case about.D != nil, about.K != nil: // a secret that is published is nobody's word
		return k, false
	}
	canonical, err := json.Marshal(wire)
	if err != nil {
		return k, false
	}
	var parsed jose.JSONWebKey
	if parsed.UnmarshalJSON(canonical) != nil || !parsed.Valid() || !parsed.IsPublic() {
		return k, false
	}
	k = key{kid: about.KID, alg: about.Alg, public: parsed.Key}
	if pub, isRSA := k.public.(*rsa.PublicKey); isRSA {
		bits := pub.N.BitLen()
		// Small ones can be factored; large ones cost everybody's time.
		if bits < 2048 || bits > 4096 || pub.E < 3 || pub.E%2 == 0 {
			return key{}, false
		}
	}
	return k, true
}
