package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
)

// Format writes a noun as a manifest. Parsing what it writes gives the noun
// again, which Format makes sure of itself: a noun that no manifest can say is an
// error.
func Format(noun any) ([]byte, error) {
	kind, name := NameOf(noun)
	if kind == "" {
		return nil, fmt.Errorf("formatting %T: not a noun of the registry", noun)
	}
	// Block scalars are easier to read, but not every text survives them.
	var problems []Problem
	for _, quoted := range []bool{false, true} {
		w := writer{quoted: quoted}
		b, err := encode(w.noun(kind, name, noun))
		if err != nil {
			return nil, fmt.Errorf("formatting %s %s: %w", kind, name, err)
		}
		var docs []Document
		docs, problems = Parse([]File{{Name: kind + "/" + name, Data: b}})
		if len(problems) == 0 && len(docs) == 1 && len(changed(noun, docs[0].Noun)) == 0 {
			return b, nil
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("formatting %s %s: it is no valid manifest: %s", kind, name, problems[0].Text)
	}
	return nil, fmt.Errorf("formatting %s %s: it cannot be written as a manifest without loss", kind, name)
}

func encode(n *yaml.Node) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("writing YAML: %v", p)
		}
	}()
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// A writer builds the YAML of one noun: members in the order of the contract's
// example, those that are empty left out.
type writer struct{ quoted bool }

// An entry is one member; one without a value is left out.
type entry struct {
	name  string
	value *yaml.Node
}

func (w *writer) mapping(flow bool, entries ...entry) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if flow {
		n.Style = yaml.FlowStyle
	}
	for _, e := range entries {
		if e.value != nil {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e.name}, e.value)
		}
	}
	return n
}

func (w *writer) text(s string) *yaml.Node {
	if s == "" {
		return nil
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	switch {
	case w.quoted:
		n.Style = yaml.DoubleQuotedStyle
	case strings.Contains(s, "\n"):
		n.Style = yaml.LiteralStyle
	}
	return n
}

func (w *writer) quote(s string) *yaml.Node {
	if s == "" {
		return nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

func (w *writer) flag(v bool) *yaml.Node {
	if !v {
		return nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"}
}

func (w *writer) count(v int) *yaml.Node {
	if v == 0 {
		return nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprint(v)}
}

func (w *writer) duration(d counterfoil.Duration) *yaml.Node {
	if d == 0 {
		return nil
	}
	return w.text(durationText(time.Duration(d)))
}

// durationText writes 15m, not 15m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// list writes a sequence. One that flows is on one line.
func list[T any](flow bool, items []T, each func(T) *yaml.Node) *yaml.Node {
	if len(items) == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	if flow {
		n.Style = yaml.FlowStyle
	}
	for _, v := range items {
		n.Content = append(n.Content, each(v))
	}
	return n
}

func (w *writer) words(items []string) *yaml.Node { return list(true, items, w.text) }

func (w *writer) noun(kind, name string, noun any) *yaml.Node {
	entries := []entry{{"kind", w.text(kind)}, {"name", w.text(name)}}
	switch n := noun.(type) {
	case *counterfoil.Person:
		entries = append(entries, entry{"email", w.text(n.Email)}, entry{"groups", w.words(n.Groups)}, entry{"roles", w.words(n.Roles)})
	case *counterfoil.Class:
		entries = append(entries, w.class(n)...)
	case *counterfoil.Resource:
		entries = append(entries, w.resource(n)...)
	case *counterfoil.Agent:
		entries = append(entries, w.agent(n)...)
	case *counterfoil.Policy:
		entries = append(entries, entry{"cedar", w.text(n.Cedar)})
	case *counterfoil.Transmitter:
		entries = append(entries, w.transmitter(n)...)
	case *counterfoil.Vocabulary:
		entries = append(entries, w.vocabulary(n)...)
	}
	return w.mapping(false, entries...)
}

func (w *writer) class(c *counterfoil.Class) []entry {
	approvers := list(true, c.Approvers, w.words)
	if len(c.Approvers) == 1 {
		approvers = w.words(c.Approvers[0])
	}
	return []entry{
		{"tier", w.text(c.Tier.String())},
		{"approvers", approvers},
		{"window", w.duration(c.Window)},
		{"template", w.text(c.Template)},
		{"limits", list(false, c.Limits, func(l counterfoil.Limit) *yaml.Node {
			return w.mapping(true, entry{"sum", w.text(l.Sum)}, entry{"per", w.text(l.Per)}, entry{"window", w.duration(l.Window)}, entry{"max", w.quote(l.Max)})
		})},
		{"payload", w.text(c.Payload)},
		{"owner_may_approve", w.flag(c.OwnerMayApprove)},
		{"authenticators", w.words(c.Authenticators)},
		{"insecure_lower_tier", w.flag(c.InsecureLowerTier)},
	}
}

func (w *writer) agent(a *counterfoil.Agent) []entry {
	var tasks *yaml.Node
	if t := a.Tasks; t.MaxDuration != 0 || t.MaxCalls != 0 || t.Required || len(t.Orchestrators) > 0 {
		tasks = w.mapping(true, entry{"max_duration", w.duration(a.Tasks.MaxDuration)},
			entry{"max_calls", w.count(a.Tasks.MaxCalls)}, entry{"required", w.flag(a.Tasks.Required)},
			entry{"orchestrators", w.words(a.Tasks.Orchestrators)})
	}
	var signals *yaml.Node
	if a.Signals != nil {
		// Without a URL it is still a wish: to poll.
		signals = w.mapping(true, entry{"push", w.words(a.Signals.Push)})
	}
	return []entry{
		{"owner", w.text(a.Owner)},
		{"purpose", w.text(a.Purpose)},
		{"environment", w.text(a.Environment)},
		{"keys", list(false, a.Keys, w.key)},
		{"workloads", list(false, a.Workloads, func(l counterfoil.Workload) *yaml.Node {
			return w.mapping(true, entry{"issuer", w.text(l.Issuer)}, entry{"subject", w.text(l.Subject)}, entry{"audience", w.text(l.Audience)})
		})},
		{"grants", list(false, a.Grants, w.grant)},
		{"tasks", tasks},
		{"proof_keys", w.text(a.ProofKeys)},
		{"signals", signals},
		{"clones", w.text(a.Clones)},
	}
}

func (w *writer) transmitter(t *counterfoil.Transmitter) []entry {
	return []entry{
		{"issuer", w.text(t.Issuer)},
		{"audience", w.text(t.Audience)},
		{"jwks_uri", w.text(t.JWKSURI)},
		{"keys", list(false, t.Keys, w.key)},
		{"poll", w.text(t.Poll)},
		{"token", w.text(t.Token)},
		{"disabled", w.words(t.Disabled)},
	}
}

// key writes a JWK as a mapping: it has nothing but text members.
func (w *writer) key(jwk string) *yaml.Node {
	var m map[string]string
	if err := json.Unmarshal([]byte(jwk), &m); err != nil {
		return w.quote(jwk)
	}
	var entries []entry
	for _, name := range slices.Sorted(maps.Keys(m)) {
		entries = append(entries, entry{name, w.text(m[name])})
	}
	return w.mapping(true, entries...)
}

func (w *writer) grant(g counterfoil.Grant) *yaml.Node {
	return w.mapping(false,
		entry{"tools", list(true, g.Tools, func(t counterfoil.ToolID) *yaml.Node { return w.text(t.String()) })},
		entry{"networks", list(true, g.Networks, func(p netip.Prefix) *yaml.Node { return w.text(p.String()) })},
		entry{"when", w.text(g.When)})
}
