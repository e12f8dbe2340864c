package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// noun reads a document of a known kind.
func (d *doc) noun(kind, name string, n *yaml.Node) any {
	var k, s string
	m := members{"kind": d.text(&k), "name": d.text(&s, counterfoil.CheckName)}
	switch kind {
	case KindPerson:
		return d.person(n, m, name)
	case KindClass:
		return d.class(n, m, name)
	case KindResource:
		return d.resource(n, m, name)
	case KindAgent:
		return d.agent(n, m, name)
	case KindTransmitter:
		return d.transmitter(n, m, name)
	case KindVocabulary:
		return d.vocabulary(n, m, name)
	default:
		p := &counterfoil.Policy{Name: name}
		m["cedar"] = d.cedar(&p.Cedar)
		d.object(n, "", m, "name", "cedar")
		return p
	}
}

func (d *doc) person(n *yaml.Node, m members, name string) *counterfoil.Person {
	p := &counterfoil.Person{Name: name}
	m["email"] = d.text(&p.Email, checkEmail)
	m["groups"] = d.words(&p.Groups, counterfoil.CheckName)
	m["roles"] = d.words(&p.Roles, func(s string) error {
		switch s {
		case counterfoil.RoleAdmin, counterfoil.RoleAuditor:
			return nil
		case "approver":
			return errors.New("approver is no role; who approves is said by groups and by the class's approvers")
		}
		return fmt.Errorf("%.40q is none of admin, auditor%s", s, hint(s, []string{counterfoil.RoleAdmin, counterfoil.RoleAuditor}))
	})
	d.object(n, "", m, "name")
	return p
}

func checkEmail(s string) error {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || len(s) > 254 || strings.ContainsAny(domain, "@") || strings.ContainsAny(s, " <>,;\"") {
		return fmt.Errorf("%.80q is not an email address", s)
	}
	// Two spellings of one mailbox would be two people where one is to count once,
	// and of other scripts there are more spellings than can be told apart.
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%.80q has a character that is not plain ASCII; write the domain in its ASCII form (xn--…)", s)
		}
	}
	if strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") {
		return fmt.Errorf("%.80q has a domain with an empty label", s)
	}
	return nil
}

func (d *doc) class(n *yaml.Node, m members, name string) *counterfoil.Class {
	c := &counterfoil.Class{Name: name}
	m["tier"] = func(n *yaml.Node, at string) {
		var s string
		d.enum(&s, "routine", "guarded", "irreversible", "forbidden")(n, at)
		if s != "" {
			c.Tier, _ = counterfoil.ParseTier(s)
		}
	}
	m["approvers"] = d.approvers(&c.Approvers)
	m["window"] = d.duration(&c.Window)
	m["template"] = d.text(&c.Template, checkTemplate)
	m["limits"] = d.list(func(n *yaml.Node, at string) {
		var l counterfoil.Limit
		d.object(n, at, members{
			"sum":    d.text(&l.Sum, checkFieldName),
			"per":    d.enum(&l.Per, "agent"),
			"window": d.duration(&l.Window),
			"max":    d.decimal(&l.Max),
		}, "sum", "per", "window", "max")
		c.Limits = append(c.Limits, l)
	})
	m["payload"] = d.enum(&c.Payload, "full", "digest", "none")
	m["owner_may_approve"] = d.flag(&c.OwnerMayApprove)
	m["authenticators"] = d.words(&c.Authenticators, checkAAGUID)
	m["insecure_lower_tier"] = d.flag(&c.InsecureLowerTier)
	d.object(n, "", m, "name", "tier")
	// A zero tier is stricter than any minimum, so a tier that could not be read
	// is not reported a second time.
	if low := counterfoil.LowestTier(name); c.Tier > low && !c.InsecureLowerTier {
		d.fail(n, "tier", "class %s cannot be below %s: what it does cannot be taken back; `insecure_lower_tier: true` allows it and is recorded", name, low)
	}
	if c.Tier == counterfoil.Routine && len(c.Limits) > 0 {
		d.fail(n, "limits", "limits go with a tier above routine: they are taken when an approval is spent, and at a routine call nothing adds up")
	}
	return c
}

// approvers reads [a, b], one of either, or [[a], [b]], one of a and one of b.
func (d *doc) approvers(dst *[][]string) handler {
	return func(n *yaml.Node, at string) {
		if !d.plain(n, at, yaml.SequenceNode) {
			return
		}
		if len(n.Content) == 0 {
			d.fail(n, at, "is empty; name a group or leave the member out")
			return
		}
		if n.Content[0].Kind != yaml.SequenceNode {
			var one []string
			d.words(&one, counterfoil.CheckName)(n, at)
			*dst = [][]string{one}
			return
		}
		d.list(func(n *yaml.Node, at string) {
			var one []string
			d.words(&one, counterfoil.CheckName)(n, at)
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				d.fail(n, at, "is empty; name a group")
			}
			*dst = append(*dst, one)
		})(n, at)
	}
}

var aaguid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func checkAAGUID(s string) error {
	if !aaguid.MatchString(s) {
		return fmt.Errorf("%.60q is not an AAGUID: 32 lower-case hexadecimal digits in groups of 8-4-4-4-12", s)
	}
	return nil
}

var fieldName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

func checkFieldName(s string) error {
	if !fieldName.MatchString(s) {
		return fmt.Errorf("%.80q is not a field's name: letters, digits and _, at most 64, no digit first", s)
	}
	return nil
}

func (d *doc) agent(n *yaml.Node, m members, name string) *counterfoil.Agent {
	a := &counterfoil.Agent{Name: name}
	m["owner"] = d.text(&a.Owner, counterfoil.CheckName)
	m["purpose"] = d.optional(&a.Purpose)
	m["environment"] = d.text(&a.Environment, counterfoil.CheckName)
	m["keys"] = d.list(func(n *yaml.Node, at string) { d.jwk(&a.Keys, n, at, agentKey) })
	m["workloads"] = d.list(func(n *yaml.Node, at string) {
		var w counterfoil.Workload
		d.object(n, at, members{
			"issuer":   d.text(&w.Issuer, checkPlatform),
			"subject":  d.text(&w.Subject, checkSubject),
			"audience": d.text(&w.Audience),
		}, "issuer", "subject")
		a.Workloads = append(a.Workloads, w)
	})
	m["grants"] = d.list(func(n *yaml.Node, at string) { a.Grants = append(a.Grants, d.grant(n, at)) })
	m["tasks"] = func(n *yaml.Node, at string) {
		d.object(n, at, members{
			"max_duration": d.duration(&a.Tasks.MaxDuration),
			"max_calls":    d.count(&a.Tasks.MaxCalls),
			"required":     d.flag(&a.Tasks.Required),
			// Whoever opens a task says what the agent is at work for. Its own tasks are
			// its own anyway.
			"orchestrators": d.words(&a.Tasks.Orchestrators, counterfoil.CheckName, func(s string) error {
				if s == name {
					return errors.New("an agent opens its own tasks without being named here")
				}
				return nil
			}),
		})
	}
	m["proof_keys"] = d.enum(&a.ProofKeys, "registered", "any")
	m["signals"] = func(n *yaml.Node, at string) {
		a.Signals = &counterfoil.Signals{}
		d.object(n, at, members{"push": d.words(&a.Signals.Push, checkPush)})
		if len(a.Signals.Push) > maxPush {
			d.fail(n, at, "push has %d URLs; the limit is %d", len(a.Signals.Push), maxPush)
		}
	}
	m["clones"] = d.enum(&a.Clones, counterfoil.ClonesQuarantine, counterfoil.ClonesRecord)
	d.object(n, "", m, "name", "owner", "environment")
	return a
}

func (d *doc) grant(n *yaml.Node, at string) counterfoil.Grant {
	var g counterfoil.Grant
	d.object(n, at, members{
		"tools": d.list(func(n *yaml.Node, at string) {
			var s string
			d.text(&s)(n, at)
			if s == "" {
				return
			}
			id, err := parseGrantTool(s)
			switch {
			case err != nil:
				d.fail(n, at, "%v", err)
			case slices.Contains(g.Tools, id):
				d.fail(n, at, "%q is there twice", s)
			default:
				g.Tools = append(g.Tools, id)
			}
		}),
		"networks": d.list(func(n *yaml.Node, at string) {
			var s string
			d.text(&s)(n, at)
			if s == "" {
				return
			}
			p, err := parseNetwork(s)
			switch {
			case err != nil:
				d.fail(n, at, "%v", err)
			case slices.Contains(g.Networks, p):
				d.fail(n, at, "%q is there twice", s)
			default:
				g.Networks = append(g.Networks, p)
			}
		}),
		"when": d.cedar(&g.When),
	}, "tools")
	for i := 0; i+1 < len(n.Content); i += 2 {
		// An empty list of tools grants nothing and an empty list of networks
		// looks like none while it means any.
		if k, v := n.Content[i].Value, n.Content[i+1]; v.Kind == yaml.SequenceNode && len(v.Content) == 0 && (k == "tools" || k == "networks") {
			d.fail(v, join(at, k), "is empty; leave the %s out", map[string]string{"tools": "grant", "networks": "member"}[k])
		}
	}
	return g
}

// parseGrantTool reads resource/tool and resource/*.
func parseGrantTool(s string) (counterfoil.ToolID, error) {
	if r, ok := strings.CutSuffix(s, "/*"); ok {
		return counterfoil.ToolID{Resource: r, Tool: "*"}, counterfoil.CheckName(r)
	}
	if strings.Contains(s, "*") {
		return counterfoil.ToolID{}, fmt.Errorf("%.160q has a *; the only pattern is resource/*, every tool that the resource's manifest classifies", s)
	}
	return counterfoil.ParseToolID(s)
}

func parseNetwork(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			return netip.Prefix{}, fmt.Errorf("%q is an address; write the network as %s/%d", s, a, a.BitLen())
		}
		return netip.Prefix{}, fmt.Errorf("%.80q is not a network such as 10.0.0.0/8 or \"::1/128\"", s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is IPv4 written as IPv6; write it as IPv4", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits beyond its length; did you mean %s?", s, p.Masked())
	}
	return p, nil
}

// A keyReader reads a public JWK, and says which of its members are kept.
type keyReader func(raw []byte) (credential.PublicKey, map[string]string, error)

// agentKey reads the key of an instance.
func agentKey(raw []byte) (credential.PublicKey, map[string]string, error) {
	key, err := credential.ParseJWK(raw)
	if err != nil {
		return key, nil, err
	}
	var m map[string]string
	err = ijson.Unmarshal(key.JWK(), &m)
	return key, m, err
}

// jwk reads a public JWK, written as a mapping or as JSON text, and keeps it in
// canonical form: the members that the reader keeps, and its kid where it has one,
// because what is signed may name the key by it.
func (d *doc) jwk(dst *[]string, n *yaml.Node, at string, read keyReader) {
	var raw []byte
	if n.Kind == yaml.MappingNode {
		m := map[string]any{}
		all := members{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			all[name] = func(n *yaml.Node, at string) { m[name] = d.jwkMember(n, at) }
		}
		before := len(d.problems)
		d.object(n, at, all)
		if len(d.problems) > before {
			return
		}
		var err error
		if raw, err = json.Marshal(m, json.Deterministic(true)); err != nil {
			d.fail(n, at, "is not a JWK: %v", err)
			return
		}
	} else {
		s, ok := d.scalar(n, at, "a public JWK, as a mapping or as JSON text", "!!str")
		if !ok {
			return
		}
		raw = []byte(s)
	}
	key, kept, err := read(raw)
	if err != nil {
		d.fail(n, at, "is not a public key that is taken here: %v", err)
		return
	}
	jwk, err := named(raw, key, kept)
	if err != nil {
		d.fail(n, at, "is not a public key that is taken here: %v", err)
		return
	}
	for _, other := range *dst {
		if k, _, err := read([]byte(other)); err == nil && k.Thumbprint() == key.Thumbprint() {
			d.fail(n, at, "the key %s is there twice", key.Thumbprint())
			return
		}
	}
	*dst = append(*dst, jwk)
}

// named returns the members that are kept with the kid of the text that they were
// read from, which is left out when it says nothing but the thumbprint.
func named(raw []byte, key credential.PublicKey, kept map[string]string) (string, error) {
	var given struct {
		KID string `json:"kid"`
	}
	if err := ijson.UnmarshalLax(raw, &given); err != nil {
		return "", fmt.Errorf("its kid is not a text")
	}
	if len(given.KID) > 256 {
		return "", fmt.Errorf("its kid is longer than 256 bytes")
	}
	if given.KID != "" && given.KID != key.Thumbprint() {
		kept["kid"] = given.KID
	}
	jwk, err := ijson.Marshal(kept)
	return string(jwk), err
}

// jwkMember reads a member of a JWK: text, or a list of texts (key_ops, x5c).
func (d *doc) jwkMember(n *yaml.Node, at string) any {
	if n.Kind == yaml.SequenceNode {
		var list []string
		d.list(func(n *yaml.Node, at string) {
			s, _ := d.scalar(n, at, "text", "!!str")
			list = append(list, s)
		})(n, at)
		return list
	}
	s, _ := d.scalar(n, at, "text", "!!str")
	return s
}
