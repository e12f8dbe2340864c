package manifest

import (
	"maps"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
)

func (w *writer) resource(r *counterfoil.Resource) []entry {
	return []entry{
		{"type", w.text(r.Type)},
		{"environment", w.text(r.Environment)},
		{"upstream", w.text(r.Upstream)},
		{"public_url", w.text(r.PublicURL)},
		{"binding", w.text(r.Binding)},
		{"require_from", w.moment(r.RequireFrom)},
		{"bearers", list(false, r.Bearers, w.bearer)},
		{"credential", w.credential(r.Credential)},
		{"tools", list(false, r.Tools, w.tool)},
		{"resources", w.text(r.Resources)},
		{"prompts", w.text(r.Prompts)},
		{"servers", w.words(r.Servers)},
	}
}

// moment writes a date where it says all.
func (w *writer) moment(t time.Time) *yaml.Node {
	switch {
	case t.IsZero():
		return nil
	case t.Equal(t.UTC().Truncate(24 * time.Hour)):
		return w.text(t.UTC().Format(time.DateOnly))
	}
	return w.text(t.UTC().Format(time.RFC3339Nano))
}

func (w *writer) bearer(b counterfoil.Bearer) *yaml.Node {
	return w.mapping(true,
		entry{"agent", w.text(b.Agent)}, entry{"key", w.text(b.Key)},
		entry{"issuer", w.text(b.Issuer)}, entry{"subject", w.text(b.Subject)}, entry{"audience", w.text(b.Audience)},
		entry{"jwks_uri", w.text(b.JWKSURI)}, entry{"keys", list(true, b.Keys, w.key)})
}

func (w *writer) credential(c *counterfoil.UpstreamCredential) *yaml.Node {
	if c == nil {
		return nil
	}
	var oauth *yaml.Node
	if o := c.OAuth; o != nil {
		oauth = w.mapping(true,
			entry{"token_url", w.text(o.TokenURL)}, entry{"client_id", w.text(o.ClientID)}, entry{"client_secret", w.text(o.ClientSecret)},
			entry{"scope", w.text(o.Scope)}, entry{"audience", w.text(o.Audience)}, entry{"resource", w.text(o.Resource)},
			entry{"subject_token", w.text(o.SubjectToken)})
	}
	return w.mapping(true,
		entry{"header", w.text(c.Header)}, entry{"prefix", w.quote(c.Prefix)}, entry{"file", w.text(c.File)},
		entry{"stored", w.text(c.Stored)}, entry{"exec", w.text(c.Exec)}, entry{"url", w.text(c.URL)}, entry{"url_token", w.text(c.URLToken)},
		entry{"oauth", oauth}, entry{"ttl", w.duration(c.TTL)})
}

// tool writes a tool on one line, but for one with a schema, whose members have a line
// each.
func (w *writer) tool(t counterfoil.Tool) *yaml.Node {
	var fields *yaml.Node
	if len(t.Fields) > 0 {
		var entries []entry
		for _, name := range slices.Sorted(maps.Keys(t.Fields)) {
			entries = append(entries, entry{name, w.text(t.Fields[name])})
		}
		fields = w.mapping(true, entries...)
	}
	return w.mapping(t.Schema == "",
		entry{"name", w.text(t.Name)}, entry{"method", w.text(t.Method)}, entry{"path", w.text(t.Path)},
		entry{"class", w.text(t.Class)}, entry{"fields", fields},
		entry{"consumes", w.words(t.Consumes)}, entry{"headers", w.words(t.Headers)},
		entry{"stream", w.flag(t.Stream)}, entry{"websocket", w.flag(t.WebSocket)}, entry{"colons", w.flag(t.Colons)}, entry{"schema", w.jsonNode(t.Schema)})
}
