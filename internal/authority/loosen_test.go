package authority

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Which changes let a token be used without its key where it was not, or for longer.
func TestLoosened(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	const (
		head = "{kind: Class, name: read, tier: routine}\n---\n{kind: Person, name: ana, email: ana@example.com}\n---\n" +
			"{kind: Agent, name: cron, owner: ana, environment: prod}\n---\nkind: Resource\nname: crm\ntype: http\nenvironment: prod\nupstream: https://crm.example\n"
		key   = "bearers:\n  - {agent: cron, key: \"sha-256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}\n"
		other = "  - {agent: cron, key: \"sha-256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA\"}\n"
		takes = "Resource crm: takes the bearer credential key sha-256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA for agent cron"
	)
	for _, tt := range []struct {
		name, before, after string
		want                []string
	}{
		{"a new resource that requires", "", "binding: require\n", nil},
		{"a new resource that does not", "", "binding: prefer\n" + key, []string{"Resource crm: binding goes from require to prefer", takes}},
		{"down the ladder", "binding: require\n" + key, "binding: observe\n" + key, []string{"Resource crm: binding goes from require to observe", takes}},
		{"down one step", "binding: prefer\n" + key, "binding: observe\n" + key, []string{"Resource crm: binding goes from prefer to observe"}},
		{"up the ladder", "binding: observe\n" + key, "binding: prefer\n" + key, nil},
		{"to the top", "binding: observe\n" + key, "binding: require\n" + key, nil},
		{"nothing", "binding: observe\n" + key, "binding: observe\n" + key, nil},
		{"one more", "binding: observe\n" + key, "binding: observe\n" + key + other, []string{strings.ReplaceAll(takes, "AAA", "BBB")[:len(takes)-len("A for agent cron")] + "A for agent cron"}},
		{"one less", "binding: observe\n" + key + other, "binding: observe\n" + key, nil},
		{"a date", "binding: observe\n" + key, "binding: observe\nrequire_from: 2026-12-01\n" + key, nil},
		{"a later date", "binding: observe\nrequire_from: 2026-12-01\n" + key, "binding: observe\nrequire_from: 2026-12-02\n" + key,
			[]string{"Resource crm: binding is not require from 2026-12-01T00:00:00Z on, as it was to be"}},
		{"down one step, and a later date", "binding: prefer\nrequire_from: 2026-12-01\n" + key, "binding: observe\nrequire_from: 2026-12-02\n" + key,
			[]string{"Resource crm: binding goes from prefer to observe", "Resource crm: binding is not require from 2026-12-01T00:00:00Z on, as it was to be"}},
		{"down one step, and no date", "binding: prefer\nrequire_from: 2026-12-01\n" + key, "binding: observe\n" + key,
			[]string{"Resource crm: binding goes from prefer to observe", "Resource crm: binding is not require from 2026-12-01T00:00:00Z on, as it was to be"}},
		{"down one step, the same date", "binding: prefer\nrequire_from: 2026-12-01\n" + key, "binding: observe\nrequire_from: 2026-12-01\n" + key,
			[]string{"Resource crm: binding goes from prefer to observe"}},
		{"an earlier date", "binding: observe\nrequire_from: 2026-12-02\n" + key, "binding: observe\nrequire_from: 2026-12-01\n" + key, nil},
		{"no date", "binding: observe\nrequire_from: 2026-12-01\n" + key, "binding: observe\n" + key,
			[]string{"Resource crm: binding is not require from 2026-12-01T00:00:00Z on, as it was to be"}},
		{"a date that was past", "binding: observe\nrequire_from: 2026-10-01\n" + key, "binding: observe\n" + key, []string{"Resource crm: binding goes from require to observe", takes}},
		{"a date that is past", "", "binding: observe\nrequire_from: 2026-10-01\n" + key, nil},
	} {
		before := registryOf(t, nil, head+tt.before)
		if tt.before == "" {
			before = registryOf(t, nil, "{kind: Class, name: read, tier: routine}")
		}
		after := registryOf(t, before, head+tt.after)
		if got := loosened(before, after, now); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}
