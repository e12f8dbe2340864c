// Package testkit is what the tests of several rooms need to stand on: a clock
// that only the test moves, a key of an agent, a key of a log and an issuer that
// is not ours. It imports the two public rooms that make those keys and nothing else
// of ours, so that a test of any other room may use it; the whole system is in
// counterfoiltest.
package testkit

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ledger"
)

// A Clock stands still until it is moved. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at a time.
func NewClock(at time.Time) *Clock { return &Clock{now: at} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock; a negative duration moves it back.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Signer returns a new key of an agent.
func Signer(t testing.TB, alg string) *credential.Signer {
	t.Helper()
	key, err := credential.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := credential.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// LogKey returns a new key of a log.
func LogKey(t testing.TB, origin string) (note.Signer, note.Verifier) {
	t.Helper()
	secret, public, err := ledger.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ledger.ParseSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := ledger.ParseVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}
