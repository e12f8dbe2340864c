package web

import (
	"context"
	"net/http"
	"slices"

	"github.com/counterfoil/counterfoil"
)

// Credentials are what upstreams are shown and the database keeps sealed. What is put is
// never read back.
type Credentials interface {
	// Put keeps a credential under a name, in place of the one of before. It is
	// refused (request_malformed) where it cannot be used.
	Put(ctx context.Context, name string, secret counterfoil.Secret, actor string) error
	// Delete is refused (tool_unknown) where there is none of that name.
	Delete(ctx context.Context, name, actor string) error
	// List returns all of them by name.
	List(ctx context.Context) ([]counterfoil.StoredCredential, error)
}

// credentialRoutes are of the administration socket alone: a secret does not go through a
// browser.
func (m *admin) credentialRoutes(rt *router) {
	if m.Credentials == nil {
		return
	}
	rt.handle(http.MethodGet, "/api/v1/credentials", typed(m, m.listCredentials))
	rt.handle(http.MethodPut, "/api/v1/credentials/{name}", typed(m, m.putCredential))
	rt.handle(http.MethodDelete, "/api/v1/credentials/{name}", typed(m, m.deleteCredential))
}

type secretBody struct {
	Secret string `json:"secret"`
}

type credentialList struct {
	Credentials []counterfoil.StoredCredential `json:"credentials"`
}

// A credentialDone says which resources a change is of.
type credentialDone struct {
	Name string   `json:"name"`
	Used []string `json:"used"`
}

func (m *admin) listCredentials(ctx context.Context, _ call[none]) (credentialList, error) {
	list, err := m.Credentials.List(ctx)
	if err != nil {
		return credentialList{}, err
	}
	for i := range list {
		list[i].At, list[i].Used = list[i].At.UTC(), m.usesCredential(list[i].Name)
	}
	return credentialList{list}, nil
}

func (m *admin) putCredential(ctx context.Context, c call[secretBody]) (credentialDone, error) {
	name := c.path("name")
	if err := m.Credentials.Put(ctx, name, counterfoil.NewSecret(c.in.Secret), c.actor); err != nil {
		return credentialDone{}, err
	}
	return credentialDone{name, m.usesCredential(name)}, nil
}

func (m *admin) deleteCredential(ctx context.Context, c call[none]) (credentialDone, error) {
	name := c.path("name")
	if err := m.Credentials.Delete(ctx, name, c.actor); err != nil {
		return credentialDone{}, err
	}
	return credentialDone{name, m.usesCredential(name)}, nil
}

// usesCredential returns the resources whose manifests name a stored credential.
func (m *admin) usesCredential(name string) []string {
	used := []string{}
	_, registry := m.Authority.Policy()
	for _, r := range registry.Resources {
		if r.Credential != nil && r.Credential.Stored == name {
			used = append(used, r.Name)
		}
	}
	slices.Sort(used)
	return used
}
