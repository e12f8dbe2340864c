package web

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
)

type rotateBody struct {
	Emergency bool   `json:"emergency"`
	Purpose   string `json:"purpose"` // of the ring; that of access tokens when empty
}

type signingKey struct {
	KID     string    `json:"kid"`
	Purpose string    `json:"purpose"`
	Alg     string    `json:"alg"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`
}

type signingKeys struct {
	Keys []signingKey `json:"keys"`
}

func (m *admin) rotate(ctx context.Context, c call[rotateBody]) (signingKeys, error) {
	ring := m.Keys
	for _, other := range m.rings() {
		if c.in.Purpose == other.Purpose() {
			ring = other
		}
	}
	if c.in.Purpose != "" && ring.Purpose() != c.in.Purpose {
		return signingKeys{}, counterfoil.Refuse(counterfoil.RequestMalformed, "no signing key has the purpose %.40q", c.in.Purpose)
	}
	turn := ring.Rotate
	if c.in.Emergency {
		turn = ring.RotateEmergency
	}
	if err := turn(ctx, c.actor); err != nil {
		return signingKeys{}, err
	}
	return m.signingKeys(), nil
}

func (m *admin) signingKeys() signingKeys {
	out := signingKeys{Keys: []signingKey{}}
	for _, ring := range m.rings() {
		for _, k := range ring.Keys() {
			out.Keys = append(out.Keys, signingKey{k.KID, ring.Purpose(), k.Alg, k.State, k.Created.UTC()})
		}
	}
	return out
}

// rings are the key rings, one for each purpose.
func (m *admin) rings() []*authority.Keyring {
	if m.EventKeys == nil {
		return []*authority.Keyring{m.Keys}
	}
	return []*authority.Keyring{m.Keys, m.EventKeys}
}
