package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	textSealedCredential = `SELECT sealed FROM credentials WHERE name = ?`
	textCredentials      = `SELECT name, stored, actor FROM credentials ORDER BY name`
)

// PutCredential commits an upstream's credential, sealed, with e, a credential.stored, in
// place of the one of that name, if there is one. The entry's Actor is who put it.
func (s *Store) PutCredential(ctx context.Context, name string, sealed []byte, e *ledger.Entry) error {
	if name == "" || len(sealed) == 0 || e.Kind != ledger.CredentialStored {
		return fmt.Errorf("keeping a credential: its name or what is sealed is missing, or its entry is a %s", e.Kind)
	}
	actor := e.Actor
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		if _, err := w.exec(putCredential, name, sealed, millis(s.opt.Now()), actor); err != nil {
			return fmt.Errorf("keeping a credential: %w", err)
		}
		return nil
	}})
}

// DeleteCredential commits that there is no credential of that name any more, with e, a
// credential.deleted. It is refused (tool_unknown) where there is none.
func (s *Store) DeleteCredential(ctx context.Context, name string, e *ledger.Entry) error {
	if e.Kind != ledger.CredentialDeleted {
		return fmt.Errorf("deleting a credential with a %s entry", e.Kind)
	}
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		n, err := w.exec(deleteCredential, name)
		if err != nil {
			return fmt.Errorf("deleting a credential: %w", err)
		}
		if n != 1 {
			return counterfoil.Refuse(counterfoil.ToolUnknown, "no credential %.80q is stored", name)
		}
		return nil
	}})
}

// SealedCredential returns what was put under a name, or nil where nothing is.
func (s *Store) SealedCredential(ctx context.Context, name string) ([]byte, error) {
	var sealed []byte
	err := s.readRows(ctx, textSealedCredential, func(r []driver.Value) error {
		sealed = bytes.Clone(r[0].([]byte))
		return nil
	}, name)
	if err != nil {
		return nil, fmt.Errorf("reading a credential: %w", err)
	}
	return sealed, nil
}

// Credentials lists what is stored by name, without what it holds.
func (s *Store) Credentials(ctx context.Context) ([]counterfoil.StoredCredential, error) {
	list := []counterfoil.StoredCredential{}
	err := s.readRows(ctx, textCredentials, func(r []driver.Value) error {
		list = append(list, counterfoil.StoredCredential{Name: r[0].(string), At: fromMillis(r[1].(int64)), By: r[2].(string)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the credentials: %w", err)
	}
	return list, nil
}
