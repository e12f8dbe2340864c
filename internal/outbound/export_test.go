package outbound

import (
	"net"
	"time"
)

// Resolving returns a Guard that asks another resolver.
func (g *Guard) Resolving(r *net.Resolver) *Guard {
	h := *g
	h.resolver = r
	return &h
}

// Within returns a Guard with another limit of time for an exchange.
func (g *Guard) Within(d time.Duration) *Guard {
	h := *g
	h.limit = d
	return &h
}
