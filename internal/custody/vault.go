package custody

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/seal"
	"github.com/counterfoil/counterfoil/ledger"
)

// sealedCredentials is the purpose under which what is stored is sealed: table and column.
const sealedCredentials = "credentials/sealed"

var names = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Put seals a credential and keeps it under a name, in place of the one of before. It
// counts from the next call on.
func (c *Custody) Put(ctx context.Context, name string, secret counterfoil.Secret, actor string) error {
	if !names.MatchString(name) {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "%.80q is not a name: at most 63 of a-z, 0-9 and hyphens", name)
	}
	if err := usable(secret); err != nil {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the credential cannot be used: %v", err)
	}
	sealed, err := seal.Seal(c.cfg.KEK, sealedCredentials, name, []byte(secret.Reveal()))
	if err != nil {
		return fmt.Errorf("sealing a credential: %w", err)
	}
	// Nothing of the secret is in the entry, no digest either: one could be compared
	// with guesses.
	return c.cfg.Vault.PutCredential(ctx, name, sealed, &ledger.Entry{
		Kind: ledger.CredentialStored, Actor: actor, Detail: map[string]any{"name": name},
	})
}

// Delete deletes a credential. It is refused (tool_unknown) where there is none.
func (c *Custody) Delete(ctx context.Context, name, actor string) error {
	return c.cfg.Vault.DeleteCredential(ctx, name, &ledger.Entry{
		Kind: ledger.CredentialDeleted, Actor: actor, Detail: map[string]any{"name": name},
	})
}

// List returns what is stored, by name, without what it holds.
func (c *Custody) List(ctx context.Context) ([]counterfoil.StoredCredential, error) {
	return c.cfg.Vault.Credentials(ctx)
}

// Check reports why a resource's credential could not be released, as far as that can be
// said without asking a provider: files, the vault and programs are looked at.
func (c *Custody) Check(res *counterfoil.Resource) error {
	cred := res.Credential
	if cred == nil {
		return nil
	}
	if err := onePlace(cred); err != nil {
		return err
	}
	file := func(name string) error {
		if name == "" {
			return nil
		}
		_, err := c.file(name)
		return err
	}
	switch {
	case cred.Exec != "":
		_, err := c.program(cred.Exec)
		return err
	case cred.URL != "":
		return errors.Join(confidential(cred.URL), file(cred.URLToken))
	case cred.OAuth != nil:
		_, err := c.file(cred.OAuth.ClientSecret)
		return errors.Join(confidential(cred.OAuth.TokenURL), err, file(cred.OAuth.SubjectToken))
	}
	_, err := c.read(c.base, cred)
	return err
}
