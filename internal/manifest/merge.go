package manifest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// Merge lays documents over a registry, which it leaves as it is; neither may be
// changed afterwards. The new registry is usable only when there is no problem.
// A merge of what is there already changes nothing and says so.
//
// What was wrong with documents at rest before, because another one was deleted,
// is not a problem of this merge; what the merge makes wrong is.
func Merge(base *counterfoil.Registry, docs []Document) (*counterfoil.Registry, []Change, []Problem) {
	if base == nil {
		base = counterfoil.NewRegistry()
	}
	reg := &counterfoil.Registry{
		People:    cloneMap(base.People),
		Classes:   cloneMap(base.Classes),
		Resources: cloneMap(base.Resources),
		Agents:    cloneMap(base.Agents),
		Policies:  cloneMap(base.Policies),

		Transmitters: cloneMap(base.Transmitters),
		Vocabularies: cloneMap(base.Vocabularies),
	}
	var changes []Change
	at := map[docKey]*Document{}
	classes := declaredClasses(base, docs)
	for i := range docs {
		d := docs[i].within(classes)
		if kind, name := NameOf(d.Noun); kind == "" || kind != d.Kind || name != d.Name {
			continue // not made by Parse
		}
		changes = append(changes, put(reg, d))
		at[docKey{d.Kind, d.Name}] = d
	}
	found := examine(reg)
	known := map[finding]bool{}
	if len(found) > 0 {
		for _, f := range examine(base) {
			known[f.bare()] = true
		}
	}
	var problems []Problem
	for _, f := range found {
		d := at[docKey{f.kind, f.name}]
		if d == nil && known[f.bare()] {
			continue
		}
		if len(problems) == maxProblems {
			problems = append(problems, Problem{Text: "there are more problems; these come first"})
			break
		}
		problems = append(problems, d.place(f))
	}
	return reg, changes, problems
}

// Check returns what is wrong with a registry as a whole, such as references to
// documents that are gone.
func Check(reg *counterfoil.Registry) []Problem {
	if reg == nil {
		return nil
	}
	var problems []Problem
	for _, f := range examine(reg) {
		problems = append(problems, (*Document)(nil).place(f))
	}
	return problems
}

// declaredClasses returns the classes that there are once the documents are applied.
func declaredClasses(base *counterfoil.Registry, docs []Document) map[string]bool {
	classes := map[string]bool{}
	for name := range base.Classes {
		classes[name] = true
	}
	for i := range docs {
		if docs[i].Kind == KindClass {
			classes[docs[i].Name] = true
		}
	}
	return classes
}

func cloneMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

// put lays one document over the registry.
func put(reg *counterfoil.Registry, d *Document) Change {
	switch n := d.Noun.(type) {
	case *counterfoil.Person:
		return putIn(reg.People, d, n)
	case *counterfoil.Class:
		return putIn(reg.Classes, d, n)
	case *counterfoil.Resource:
		return putIn(reg.Resources, d, n)
	case *counterfoil.Agent:
		return putIn(reg.Agents, d, n)
	case *counterfoil.Transmitter:
		return putIn(reg.Transmitters, d, n)
	case *counterfoil.Vocabulary:
		return putIn(reg.Vocabularies, d, n)
	default:
		return putIn(reg.Policies, d, d.Noun.(*counterfoil.Policy))
	}
}

func putIn[T any](m map[string]*T, d *Document, noun *T) Change {
	c := Change{Kind: d.Kind, Name: d.Name, Verb: Create}
	if old := m[d.Name]; old != nil {
		if c.Fields = changed(old, noun); len(c.Fields) == 0 {
			c.Verb = Unchanged
			return c // the old noun stays, so that nothing is written
		}
		c.Verb = Update
	}
	m[d.Name] = noun
	return c
}

// changed returns the members in which two nouns differ, by their names in
// manifests. What is absent and what is empty are the same.
func changed(old, noun any) []string {
	a, errA := asMembers(old)
	b, errB := asMembers(noun)
	if errA != nil || errB != nil {
		return []string{"name"} // cannot be compared, so it is not the same
	}
	var fields []string
	for name := range a {
		if _, ok := b[name]; !ok {
			fields = append(fields, name)
		}
	}
	for name, v := range b {
		if o, ok := a[name]; !ok || !reflect.DeepEqual(o, v) {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}

func asMembers(noun any) (map[string]string, error) {
	b, err := json.Marshal(noun, json.Deterministic(true), json.OmitZeroStructFields(true))
	if err != nil {
		return nil, err
	}
	var raw map[string]jsontext.Value
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(raw))
	for name, v := range raw {
		// An agent's signals say something by being there: it may have events, by
		// polling.
		if s := string(v); s != "[]" && s != "{}" || name == "signals" {
			out[name] = s
		}
	}
	return out, nil
}

// A finding is a problem with a noun of a registry, wherever it was declared.
type finding struct {
	kind, name string
	at         string // path of the member
	line       int    // within the member's text, from 1
	text       string
	hint       string // depends on what else there is
}

// bare is the finding without what may change while it stays.
func (f finding) bare() finding {
	f.hint = ""
	return f
}

// place turns a finding into a problem with file and line. Without a document
// the noun was there before.
func (d *Document) place(f finding) Problem {
	text := f.text + f.hint
	if f.at != "" {
		text = f.at + ": " + text
	}
	text = fmt.Sprintf("%s %s: %s", f.kind, f.name, text)
	if d == nil {
		return Problem{Text: text + " (declared earlier, not in these files)"}
	}
	at := f.at
	for {
		if p, ok := d.Pos[at]; ok {
			if at == f.at && f.line > 0 {
				if d.literal[at] {
					p.Line += f.line
				} else {
					p.Line += f.line - 1
				}
			}
			return Problem{p.File, p.Line, text}
		}
		// The nearest thing around it that has a place.
		i := strings.LastIndexAny(at, ".[")
		if i < 0 {
			return Problem{d.Pos[""].File, d.Pos[""].Line, text}
		}
		at = at[:i]
	}
}

// examine checks all documents together: references, uniqueness, Cedar.
func examine(reg *counterfoil.Registry) []finding {
	e := &examiner{reg: reg}
	urls, keys, bearers := map[string]string{}, map[string]string{}, map[string]bearerOf{}
	for _, name := range slices.Sorted(maps.Keys(reg.Resources)) {
		if r := reg.Resources[name]; r != nil {
			e.resource(r, urls)
			e.bearers(r, bearers)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reg.Agents)) {
		if a := reg.Agents[name]; a != nil {
			e.agent(a, keys)
		}
	}
	issuers := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(reg.Transmitters)) {
		if t := reg.Transmitters[name]; t != nil {
			e.transmitter(t, issuers)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reg.Vocabularies)) {
		if v := reg.Vocabularies[name]; v != nil {
			e.vocabulary(v)
		}
	}
	_, problems := policy.Load(reg)
	for _, p := range problems {
		e.found = append(e.found, finding{kind: p.Kind, name: p.Name, at: p.Field, line: p.Line, text: p.Text})
	}
	return e.found
}

type examiner struct {
	reg   *counterfoil.Registry
	found []finding
}

// missing notes a reference to what is not among the candidates.
func (e *examiner) missing(f finding, word string, candidates []string) {
	slices.Sort(candidates)
	f.hint = hint(word, candidates)
	e.found = append(e.found, f)
}

func (e *examiner) add(kind, name, at, format string, args ...any) {
	e.found = append(e.found, finding{kind: kind, name: name, at: at, text: fmt.Sprintf(format, args...)})
}

func (e *examiner) class(r *counterfoil.Resource, at, class string) {
	if e.reg.Classes[class] == nil {
		e.missing(finding{kind: KindResource, name: r.Name, at: at, text: fmt.Sprintf("there is no Class %q", class)}, class, slices.Collect(maps.Keys(e.reg.Classes)))
	}
}

func (e *examiner) resource(r *counterfoil.Resource, urls map[string]string) {
	for i, t := range r.Tools {
		if t.Class != "" {
			e.class(r, fmt.Sprintf("tools[%d].class", i), t.Class)
		}
		e.unread(r, i)
	}
	if r.Resources != "" {
		e.class(r, "resources", r.Resources)
	}
	if r.Prompts != "" {
		e.class(r, "prompts", r.Prompts)
	}
	for i, name := range r.Servers {
		e.agentNamed(KindResource, r.Name, fmt.Sprintf("servers[%d]", i), name)
	}
	if r.PublicURL == "" {
		return
	}
	if other, taken := urls[r.PublicURL]; taken {
		e.add(KindResource, r.Name, "public_url", "Resource %s has the same URL; a token for one would be a token for both", other)
	} else {
		urls[r.PublicURL] = r.Name
	}
}

func (e *examiner) agent(a *counterfoil.Agent, keys map[string]string) {
	if e.reg.People[a.Owner] == nil {
		e.missing(finding{kind: KindAgent, name: a.Name, at: "owner", text: fmt.Sprintf("there is no Person %q", a.Owner)}, a.Owner, slices.Collect(maps.Keys(e.reg.People)))
	}
	for i, k := range a.Keys {
		if other, taken := keys[k]; taken && other != a.Name {
			e.add(KindAgent, a.Name, fmt.Sprintf("keys[%d]", i), "Agent %s has the same key; a key belongs to one instance of one agent", other)
		} else {
			keys[k] = a.Name
		}
	}
	for i, name := range a.Tasks.Orchestrators {
		e.agentNamed(KindAgent, a.Name, fmt.Sprintf("tasks.orchestrators[%d]", i), name)
	}
	for i := range a.Grants {
		for j, id := range a.Grants[i].Tools {
			e.grantTool(a, fmt.Sprintf("grants[%d].tools[%d]", i, j), id)
		}
	}
}

// agentNamed notes a reference to an agent that is not there.
func (e *examiner) agentNamed(kind, name, at, agent string) {
	if e.reg.Agents[agent] == nil {
		e.missing(finding{kind: kind, name: name, at: at, text: fmt.Sprintf("there is no Agent %q", agent)}, agent, slices.Collect(maps.Keys(e.reg.Agents)))
	}
}

func (e *examiner) transmitter(t *counterfoil.Transmitter, issuers map[string]string) {
	// Of two documents about one transmitter each would say what its events do.
	if other, taken := issuers[t.Issuer]; taken {
		e.add(KindTransmitter, t.Name, "issuer", "Transmitter %s has the same issuer; what its events do is said in one place", other)
	} else {
		issuers[t.Issuer] = t.Name
	}
}

func (e *examiner) grantTool(a *counterfoil.Agent, at string, id counterfoil.ToolID) {
	r := e.reg.Resources[id.Resource]
	if r == nil {
		e.missing(finding{kind: KindAgent, name: a.Name, at: at, text: fmt.Sprintf("%s: there is no Resource %q", id, id.Resource)}, id.Resource, slices.Collect(maps.Keys(e.reg.Resources)))
		return
	}
	if id.Tool == "*" {
		return
	}
	if _, ok := r.Tool(id.Tool); ok {
		return
	}
	if r.Type == counterfoil.ResourceMCP && (id.Tool == counterfoil.ToolResources || id.Tool == counterfoil.ToolPrompts) {
		e.add(KindAgent, a.Name, at, "%s: Resource %s gives its %s no class; add `%s: CLASS` to it", id, r.Name, id.Tool, id.Tool)
		return
	}
	var names []string
	for _, t := range classifiedTools(r) {
		names = append(names, t.Name)
	}
	e.missing(finding{kind: KindAgent, name: a.Name, at: at, text: fmt.Sprintf("%s: Resource %s classifies no tool %q", id, r.Name, id.Tool)}, id.Tool, names)
}
