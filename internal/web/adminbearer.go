package web

import (
	"context"
	"net/url"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/evidence"
)

// Who still sends bearer credentials: the report behind the way to bound tokens.

// defaultBearerSpan is how far a report looks back where nobody says.
const defaultBearerSpan = 30 * 24 * time.Hour

var bearerFilter = []parameter{
	{"resource", "only this resource", nil},
	{"since", "what was used since this time (RFC 3339); 30 days when absent", nil},
}

func (m *admin) bearer(ctx context.Context, c call[none]) (evidence.BearerReport, error) {
	return m.bearers(ctx, c.query)
}

func (m *management) bearer(ctx context.Context, a asked[none]) (evidence.BearerReport, error) {
	return m.socket.bearers(ctx, a.query)
}

func (m *admin) bearers(ctx context.Context, query url.Values) (evidence.BearerReport, error) {
	now := m.Now()
	name, since := "", now.Add(-defaultBearerSpan)
	for key, values := range query {
		if len(values) != 1 {
			return evidence.BearerReport{}, counterfoil.Refuse(counterfoil.RequestMalformed, "%.40q is there %d times", key, len(values))
		}
		switch key {
		case "resource":
			name = values[0]
		case "since":
			var err error
			if since, err = time.Parse(time.RFC3339, values[0]); err != nil {
				return evidence.BearerReport{}, counterfoil.Refuse(counterfoil.RequestMalformed, "since is not a time such as 2006-01-02T15:04:05Z")
			}
		default:
			return evidence.BearerReport{}, counterfoil.Refuse(counterfoil.RequestMalformed, "there is no filter %.40q; there are resource and since", key)
		}
	}
	_, registry := m.Authority.Policy()
	if name != "" && registry.Resources[name] == nil {
		return evidence.BearerReport{}, counterfoil.Refuse(counterfoil.ToolUnknown, "there is no resource %.80q", name)
	}
	return evidence.Bearers(ctx, m.Entries, registry, name, since.UTC(), now.UTC())
}
