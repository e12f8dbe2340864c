package approval

import (
	"container/list"
	"sync"
	"time"
)

// maxCeremonies bounds what people may have under way at once. Beyond it the oldest
// is dropped: whoever had it begins again. Each kind has a table of its own, so that
// logins, which anybody can begin, push out no signature.
const maxCeremonies = 10_000

// ceremonies are challenges that were handed out and not used yet. They are in memory
// alone: a challenge that a restart forgot is good for nothing. Safe for concurrent
// use.
type ceremonies[T any] struct {
	mu    sync.Mutex
	byKey map[string]*list.Element // of *underway[T]
	order *list.List               // oldest first
}

type underway[T any] struct {
	key     string
	what    T
	expires time.Time
}

func newCeremonies[T any]() *ceremonies[T] {
	return &ceremonies[T]{byKey: map[string]*list.Element{}, order: list.New()}
}

// begin keeps what a challenge was made for. A key has one: the latest.
func (c *ceremonies[T]) begin(key string, what T, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.byKey[key]; ok {
		c.drop(old)
	}
	for c.order.Len() >= maxCeremonies || c.stale(now) {
		c.drop(c.order.Front())
	}
	c.byKey[key] = c.order.PushBack(&underway[T]{key, what, now.Add(ceremonyLife)})
}

// end takes a ceremony out, whatever then comes of it: of any number of answers to
// one challenge one is looked at.
func (c *ceremonies[T]) end(key string, now time.Time) (what T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[key]
	if !ok {
		return what, false
	}
	u := c.drop(el)
	return u.what, now.Before(u.expires)
}

func (c *ceremonies[T]) stale(now time.Time) bool {
	front := c.order.Front()
	return front != nil && !now.Before(front.Value.(*underway[T]).expires)
}

func (c *ceremonies[T]) drop(el *list.Element) *underway[T] {
	u := c.order.Remove(el).(*underway[T])
	delete(c.byKey, u.key)
	return u
}
