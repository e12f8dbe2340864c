package web

import (
	"context"

	"github.com/counterfoil/counterfoil/internal/authority"
)

// changes are the changes of the registry that wait for people, or for their time.
type changes struct {
	Changes []authority.Proposal `json:"changes"`
}

func (m *admin) listChanges(ctx context.Context, _ call[none]) (changes, error) {
	waiting, err := m.Authority.Proposals(ctx)
	return changes{waiting}, err
}

type withdrawn struct {
	ID string `json:"id"`
}

// withdrawChange takes one back. Its approval, if it is open, is cancelled with it.
func (m *admin) withdrawChange(ctx context.Context, c call[none]) (withdrawn, error) {
	id := c.path("id")
	return withdrawn{id}, m.Authority.Withdraw(ctx, id, c.actor)
}
