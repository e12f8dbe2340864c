package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// Bounds of a KeySet. The issuer publishes a key for ten minutes before it signs, so
// whoever looks twice in that time has every key that signs.
const (
	keysFresh    = 10 * time.Minute // for how long fetched keys are used
	keysBeat     = 4 * time.Minute  // between two fetches
	keysCooldown = 10 * time.Second // between two fetches for keys that are unknown, and after an error
	keysTimeout  = 5 * time.Second  // of one fetch
	maxKeys      = 64 << 10         // bytes of the document
)

// A KeySet is the KeySource of a service that is not the issuer: the keys that the
// issuer publishes (RFC 7517), fetched over HTTP and kept in memory. Run keeps it
// current, so that no request waits for the issuer. What was fetched is used for ten
// minutes: after that, with the issuer out of reach, every request is a fault.
//
// Its fields are set before the first use. It is safe for concurrent use and must not
// be copied.
type KeySet struct {
	// Issuer is the issuer's identifier, without a slash at its end: an https URL, or
	// an http one of loopback.
	Issuer string

	// Client sends the requests; redirects are not followed. When nil, one with the
	// standard library's defaults.
	Client *http.Client

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: slog.Default

	fetching sync.Mutex // held while one fetch for an unknown key is under way

	mu      sync.RWMutex
	keys    map[string]credential.PublicKey // by kid, the thumbprint; guarded by mu
	fetched time.Time                       // when what is known was asked for; guarded by mu
	tried   time.Time                       // when it was last asked for; guarded by mu
}

// Key returns a key that is published, out of memory. The issuer is asked, at most
// every ten seconds and by one request at a time, about a key that is not known, because
// one that replaces a stolen key signs at once; and when what is known is too old.
func (s *KeySet) Key(ctx context.Context, kid string) (credential.PublicKey, error) {
	key, known, fresh := s.get(kid)
	if (!known || !fresh) && s.due() && s.fetching.TryLock() {
		err := s.Fetch(ctx)
		s.fetching.Unlock()
		if err != nil {
			s.log().ErrorContext(ctx, "asking for the issuer's keys", "err", err)
		}
		key, known, fresh = s.get(kid)
	}
	switch {
	case !fresh:
		return credential.PublicKey{}, errors.New("the issuer's keys are not known as of now")
	case !known:
		return credential.PublicKey{}, counterfoil.Refuse(counterfoil.TokenMalformed, "the token is signed by no key that its issuer publishes")
	}
	return key, nil
}

// get looks a key up, and reports whether what is known is fresh.
func (s *KeySet) get(kid string) (key credential.PublicKey, known, fresh bool) {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	key, known = s.keys[kid]
	return key, known, !s.fetched.IsZero() && now.Sub(s.fetched) <= keysFresh
}

// due reports whether the issuer may be asked about an unknown key now.
func (s *KeySet) due() bool {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return now.Sub(s.tried) >= keysCooldown
}

// Run keeps the keys current until ctx ends. Errors are logged.
func (s *KeySet) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := keysBeat
		if err := s.Fetch(ctx); err != nil && ctx.Err() == nil {
			s.log().ErrorContext(ctx, "asking for the issuer's keys", "err", err)
			pause = keysCooldown
		}
		timer := time.NewTimer(jitter(pause))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Fetch asks for the keys once. After an error what was known stays as it was, and as
// old as it was.
func (s *KeySet) Fetch(ctx context.Context) error {
	asked := s.now()
	s.mu.Lock()
	s.tried = asked
	s.mu.Unlock()
	keys, err := s.ask(ctx)
	if err != nil {
		return fmt.Errorf("fetching the keys of %s: %w", s.Issuer, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked.Before(s.fetched) {
		return nil // another answer is newer
	}
	s.keys, s.fetched = keys, asked
	return nil
}

func (s *KeySet) ask(ctx context.Context) (map[string]credential.PublicKey, error) {
	u, err := url.Parse(s.Issuer)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, errors.New("the issuer is neither an https URL nor an http URL of loopback")
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Issuer+counterfoil.JWKSPath, nil)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	var client http.Client
	if s.Client != nil {
		client = *s.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxKeys+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(b) > maxKeys {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxKeys)
	}
	return readKeys(b)
}

// readKeys reads a JWK set (RFC 7517, Section 5). Keys that verify no tokens, such as
// those of events, are passed over, as the clause says; so is one whose kid is not its
// thumbprint, which no token of this issuer names.
func readKeys(b []byte) (map[string]credential.PublicKey, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := ijson.UnmarshalLax(b, &set); err != nil {
		return nil, fmt.Errorf("the answer is no set of keys: %w", err)
	}
	keys := map[string]credential.PublicKey{}
	for _, raw := range set.Keys {
		var named struct {
			Kid string `json:"kid"`
		}
		key, err := credential.ParseJWK(raw)
		if err == nil && ijson.UnmarshalLax(raw, &named) == nil && named.Kid == key.Thumbprint() {
			keys[named.Kid] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the answer has no key that verifies tokens")
	}
	return keys, nil
}

// loopback reports whether a URL's host is this machine (RFC 6761, Section 6.3).
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || strings.EqualFold(host, "localhost")
}

func (s *KeySet) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *KeySet) log() *slog.Logger {
	if s.Log == nil {
		return slog.Default()
	}
	return s.Log
}
