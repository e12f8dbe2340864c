package counterfoiltest

import (
	"sync"
	"time"
)

// A Clock is what a system takes for the time.
type Clock struct {
	base func() time.Time

	mu    sync.Mutex
	moved time.Duration
}

// NewClock starts a clock at noon of an ordinary day. Only the test moves it.
func NewClock() *Clock {
	noon := time.Date(2026, time.November, 2, 12, 0, 0, 0, time.UTC)
	return &Clock{base: func() time.Time { return noon }}
}

// WallClock returns a clock that goes as the machine's does, for stories with
// programs that look at a clock of their own.
func WallClock() *Clock {
	return &Clock{base: time.Now}
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base().Add(c.moved)
}

// Advance moves the clock; a negative duration moves it back.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved += d
}
