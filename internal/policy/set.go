package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cedar-policy/cedar-go"

	"github.com/counterfoil/counterfoil"
)

// Names of fields in problems.
const (
	fieldCedar = "cedar"
	fieldWhen  = "when"
)

// A Problem is why a document cannot be in force.
type Problem struct {
	Kind, Name string
	Field      string // "cedar" or "grants[0].when"; empty for the whole document
	Line       int    // within the field's text, from 1; 0 is unknown
	Text       string
}

// A Set is a registry made ready to decide. It is immutable and safe for
// concurrent use; a nil Set refuses everything. It shares the registry's nouns,
// which nobody changes once they are shared.
type Set struct {
	resources map[string]*resource
	agents    map[string]*agent
	forbids   forbids
	meanings  map[meaning]*vocabulary
	digest    string

	// broken says why every call is refused: a policy that cannot be compiled
	// has no known scope, so it might forbid anything.
	broken string
}

type resource struct {
	*counterfoil.Resource
	tools map[string]*tool
}

// A tool is a classified tool with all that a decision needs of it.
type tool struct {
	id     counterfoil.ToolID
	name   string // id as text
	class  string
	tier   counterfoil.Tier
	limits []limit
	fields []field

	// The tool in Cedar: itself, its class and its resource.
	lineage [3]cedar.EntityUID
	entity  cedar.Entity
}

type field struct {
	name string
	at   pointer // empty when the manifest's pointer is none: the field is absent
}

type limit struct {
	field string
	text  string
	max   int64 // ten-thousandths
	ok    bool
}

type agent struct {
	uid         cedar.EntityUID
	environment string
	grants      []grant
}

type grant struct {
	*counterfoil.Grant
	index int
	when  *rule // nil when there is no condition

	// broken says that the condition could not be compiled: it errs for ever.
	broken bool
}

// Get makes a tool the getter of its own entity: it is the only one that has
// parents.
func (t *tool) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	if uid == t.lineage[0] {
		return t.entity, true
	}
	return cedar.Entity{}, false
}

// Load compiles a registry. A set is returned whatever the problems: what could
// not be compiled refuses. Problems are those of Cedar texts; that documents
// refer to each other rightly is the manifest's business, and a reference to
// nothing refuses here.
func Load(reg *counterfoil.Registry) (*Set, []Problem) {
	if reg == nil {
		reg = counterfoil.NewRegistry()
	}
	s := &Set{resources: map[string]*resource{}, agents: make(map[string]*agent, len(reg.Agents))}
	for name, r := range reg.Resources {
		if r != nil {
			s.resources[name] = loadResource(name, r, reg.Classes)
		}
	}
	problems := s.loadPolicies(reg.Policies)
	l := grantLoader{compiled: map[string]*compiled{}}
	for _, name := range slices.Sorted(maps.Keys(reg.Agents)) {
		if a := reg.Agents[name]; a != nil {
			s.agents[name] = l.agent(name, a)
		}
	}
	problems = append(problems, l.problems...)
	problems = append(problems, s.loadVocabularies(reg)...)
	s.digest = digest(reg)
	return s, problems
}

// Digest identifies all that decides: two sets with the same digest decide
// alike. It is "sha-256:" and base64url.
func (s *Set) Digest() string {
	if s == nil {
		return ""
	}
	return s.digest
}

func loadResource(name string, r *counterfoil.Resource, classes map[string]*counterfoil.Class) *resource {
	out := &resource{Resource: r, tools: make(map[string]*tool, len(r.Tools))}
	add := func(t counterfoil.Tool) {
		if t.Class == "" || out.tools[t.Name] != nil {
			return // unclassified is not callable; of two with one name the first counts
		}
		out.tools[t.Name] = loadTool(name, t, classes[t.Class])
	}
	for _, t := range r.Tools {
		add(t)
	}
	add(counterfoil.Tool{Name: counterfoil.ToolResources, Class: r.Resources})
	add(counterfoil.Tool{Name: counterfoil.ToolPrompts, Class: r.Prompts})
	return out
}

func loadTool(resource string, t counterfoil.Tool, class *counterfoil.Class) *tool {
	out := &tool{id: counterfoil.ToolID{Resource: resource, Tool: t.Name}, class: t.Class}
	if class != nil {
		out.tier = class.Tier // without a class the zero tier, which is forbidden
		for _, l := range class.Limits {
			units, ok := ParseUnits(l.Max)
			out.limits = append(out.limits, limit{field: l.Sum, text: l.Max, max: units, ok: ok})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Fields)) {
		at, err := ParsePointer(t.Fields[name])
		if err != nil {
			at = nil
		}
		out.fields = append(out.fields, field{name, at})
	}
	out.name = out.id.String()
	out.lineage = [3]cedar.EntityUID{
		cedar.NewEntityUID(typeTool, cedar.String(out.name)),
		cedar.NewEntityUID(typeClass, cedar.String(t.Class)),
		cedar.NewEntityUID(typeResource, cedar.String(resource)),
	}
	out.entity = cedar.Entity{UID: out.lineage[0], Parents: cedar.NewEntityUIDSet(out.lineage[1], out.lineage[2])}
	return out
}

func (s *Set) loadPolicies(policies map[string]*counterfoil.Policy) []Problem {
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		p := policies[name]
		if p == nil {
			continue
		}
		rules, errs := compilePolicy(name, p.Cedar)
		for _, e := range errs {
			problems = append(problems, Problem{Kind: "Policy", Name: name, Field: fieldCedar, Line: e.line, Text: e.text})
			s.broken = cmp.Or(s.broken, fmt.Sprintf("policy %q cannot be compiled, so nothing can be decided", name))
		}
		for _, r := range rules {
			s.forbids.add(r)
		}
	}
	return problems
}

// A grantLoader compiles grants. Agents by the thousand have the same few
// conditions, so each text is compiled once.
type grantLoader struct {
	compiled map[string]*compiled
	problems []Problem
}

type compiled struct {
	rule *rule
	err  *textError
}

func (l *grantLoader) agent(name string, a *counterfoil.Agent) *agent {
	out := &agent{
		uid:         cedar.NewEntityUID(typeAgent, cedar.String(name)),
		environment: a.Environment,
		grants:      make([]grant, len(a.Grants)),
	}
	for i := range a.Grants {
		g := grant{Grant: &a.Grants[i], index: i}
		if g.When != "" {
			c := l.compile(g.When)
			if g.when = c.rule; c.err != nil {
				g.broken = true
				l.problems = append(l.problems, Problem{
					Kind: "Agent", Name: name, Field: fmt.Sprintf("grants[%d].%s", i, fieldWhen),
					Line: c.err.line, Text: c.err.text,
				})
			}
		}
		out.grants[i] = g
	}
	return out
}

func (l *grantLoader) compile(when string) *compiled {
	c := l.compiled[when]
	if c == nil {
		c = &compiled{}
		c.rule, c.err = compileWhen(when)
		l.compiled[when] = c
	}
	return c
}

// holds reports whether one of the grant's networks holds the address. An
// unknown address is in none.
func (g *grant) holds(source netip.Addr) bool {
	if len(g.Networks) == 0 {
		return true
	}
	for _, n := range g.Networks {
		if n.Contains(source) {
			return true
		}
	}
	return false
}

// forbids are the rules of all policies, by what their heads are bound to, so
// that a decision looks only at those that can concern it, however many there
// are.
type forbids struct {
	any     byResource
	byAgent map[cedar.EntityUID]*byResource
}

type byResource struct {
	any []*rule
	at  map[cedar.EntityUID][]*rule
}

func (f *forbids) add(r *rule) {
	b := &f.any
	if r.principal.bound {
		if f.byAgent == nil {
			f.byAgent = map[cedar.EntityUID]*byResource{}
		}
		if b = f.byAgent[r.principal.entity]; b == nil {
			b = &byResource{}
			f.byAgent[r.principal.entity] = b
		}
	}
	if !r.resource.bound {
		b.any = append(b.any, r)
		return
	}
	if b.at == nil {
		b.at = map[cedar.EntityUID][]*rule{}
	}
	b.at[r.resource.entity] = append(b.at[r.resource.entity], r)
}

// concerning appends the rules whose head matches the agent and the tool.
func (f *forbids) concerning(rules ruleList, agent cedar.EntityUID, t *tool) ruleList {
	rules = f.any.concerning(rules, t)
	if b := f.byAgent[agent]; b != nil {
		rules = b.concerning(rules, t)
	}
	return rules
}

func (b *byResource) concerning(rules ruleList, t *tool) ruleList {
	rules = append(rules, b.any...)
	if len(b.at) == 0 {
		return rules
	}
	for _, e := range t.lineage {
		rules = append(rules, b.at[e]...)
	}
	return rules
}
