package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// views is what is kept in memory of the tables. It is rebuilt by Open, changed
// by the sequencer after a commit, and read by everyone under Store.mu.
type views struct {
	registry *counterfoil.Registry // immutable: replaced, never changed
	revision string

	agents    map[string]counterfoil.AgentState
	instances map[string]counterfoil.Instance
	ofAgent   map[string][]string // ids of an agent's instances, in order of enrolment
	keys      map[string]keyView
	pins      map[pinKey]pin
	tasks     map[string]*taskView // open ones

	// What was revoked.
	issuer     string
	people     map[string]standing
	resources  map[string]standing
	audiences  map[string]standing // the same resources, by what tokens call them
	deadTokens map[string]int64    // until when, as millis
	dead       map[deadKey]counterfoil.Dead
	rotated    map[string]struct{} // instances with an Old key

	// What was learned since the last step of the feed, and how much ever.
	changed change
	changes int
}

type keyView struct {
	agent, instance  string
	registered, live bool
	until            time.Time // of a key that was replaced, or bound before that; zero: no end

	// revoked says that somebody took it: what was asked for under it went with it.
	// A start does not know any more, and has none of that.
	revoked bool
}

// in reports whether the key is taken.
func (k keyView) in(now func() time.Time) bool {
	return k.live && (k.until.IsZero() || now().Before(k.until))
}

type pinKey struct{ resource, tool string }

type pin struct{ digest, how string }

func newViews(issuer string) *views {
	return &views{
		registry:  counterfoil.NewRegistry(),
		agents:    map[string]counterfoil.AgentState{},
		instances: map[string]counterfoil.Instance{},
		ofAgent:   map[string][]string{},
		keys:      map[string]keyView{},
		pins:      map[pinKey]pin{},
		tasks:     map[string]*taskView{},

		issuer:     issuer,
		people:     map[string]standing{},
		resources:  map[string]standing{},
		deadTokens: map[string]int64{},
		dead:       map[deadKey]counterfoil.Dead{},
		rotated:    map[string]struct{}{},
	}
}

// loadViews reads the tables.
func loadViews(w writer, issuer string) (*views, error) {
	v := newViews(issuer)
	err := w.query(getMeta, func(r []driver.Value) error {
		v.revision = r[0].(string)
		return nil
	}, "revision")
	if err != nil {
		return nil, err
	}
	err = w.query(readDocuments, func(r []driver.Value) error {
		d, err := parseDocument(counterfoil.Document{Kind: r[0].(string), Name: r[1].(string), Body: []byte(r[2].(string))})
		if err != nil {
			return err
		}
		d.put(v.registry)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = w.query(readAgents, func(r []driver.Value) error {
		v.agents[r[0].(string)] = counterfoil.AgentState{Status: counterfoil.Status(r[1].(string)), Epoch: r[2].(int64)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = w.query(readInstances, func(r []driver.Value) error {
		i := counterfoil.Instance{
			ID: r[0].(string), Agent: r[1].(string), JKT: r[2].(string), JWK: r[3].(string), Alg: r[4].(string),
			Status: counterfoil.Status(r[5].(string)), Enrolled: fromMillis(r[6].(int64)), How: r[7].(string),
			Suspected: fromMillis(r[8].(int64)), Shown: fromMillis(r[9].(int64)),
		}
		if jkt := r[10].(string); jkt != "" {
			i.Old = &counterfoil.OldKey{JKT: jkt, JWK: r[11].(string), Alg: r[12].(string), Until: fromMillis(r[13].(int64))}
			v.rotated[i.ID] = struct{}{}
		}
		v.addInstance(i)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, ids := range v.ofAgent {
		slices.SortFunc(ids, func(a, b string) int { return v.instances[a].Enrolled.Compare(v.instances[b].Enrolled) })
	}
	err = w.query(readKeys, func(r []driver.Value) error {
		jkt := r[0].(string)
		v.keys[jkt] = keyView{
			agent: r[1].(string), instance: r[2].(string), registered: r[3].(int64) == 1, live: r[4].(int64) == 1, until: fromMillis(r[5].(int64)),
		}
		if !v.keys[jkt].live {
			v.endKey(jkt)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = w.query(readPins, func(r []driver.Value) error {
		v.pins[pinKey{r[0].(string), r[1].(string)}] = pin{r[2].(string), r[3].(string)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := v.loadRevoked(w); err != nil {
		return nil, err
	}
	return v, v.loadTasks(w)
}

// loadRevoked reads what was revoked.
func (v *views) loadRevoked(w writer) error {
	err := w.query(readStanding, func(r []driver.Value) error {
		s := standing{kind: counterfoil.TargetKind(r[0].(string)), name: r[1].(string), status: counterfoil.Status(r[2].(string)), before: fromMillis(r[3].(int64))}
		switch s.kind {
		case counterfoil.TargetPerson:
			v.people[s.name] = s
		case counterfoil.TargetResource:
			s.audience = (&counterfoil.Resource{Name: s.name}).ID(v.issuer)
			v.resources[s.name] = s
		default:
			return fmt.Errorf("reading what was revoked: there is no kind %q", s.kind)
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.findAudiences()
	return w.query(readDead, func(r []driver.Value) error {
		kind, id, until := counterfoil.TargetKind(r[0].(string)), r[1].(string), r[2].(int64)
		if kind == counterfoil.TargetToken {
			v.deadTokens[id] = until
			return nil
		}
		v.dead[deadKey{kind, id}] = counterfoil.Dead{Kind: kind, ID: id, Until: fromMillis(until), Before: fromMillis(r[3].(int64))}
		return nil
	})
}

// loadTasks reads the open tasks.
func (v *views) loadTasks(w writer) error {
	var r taskReader
	if err := w.query(openTasks, r.row); err != nil {
		return err
	}
	for _, t := range r.list {
		v.tasks[t.ID] = &taskView{Task: t}
	}
	for _, t := range v.tasks {
		if t.Parent == "" {
			continue
		}
		if t.parent = v.tasks[t.Parent]; t.parent == nil {
			return fmt.Errorf("task %q is open and its parent %q is not: the database is damaged", t.ID, t.Parent)
		}
	}
	return nil
}

// addTask learns of a task that was opened. What it hangs under is open, or it would
// not have been.
func (v *views) addTask(t counterfoil.Task) {
	v.tasks[t.ID] = &taskView{Task: t, parent: v.tasks[t.Parent]}
}

func (v *views) addInstance(i counterfoil.Instance) {
	v.instances[i.ID] = i
	// A fresh slice: readers may hold the one before.
	v.ofAgent[i.Agent] = append(slices.Clip(v.ofAgent[i.Agent]), i.ID)
}

// endInstance marks an instance dead; its keys are ended on their own.
func (v *views) endInstance(id string) {
	i := v.instances[id]
	i.Status, i.Old = counterfoil.Ended, nil
	v.instances[id] = i
	delete(v.rotated, id)
}

func (v *views) endKey(jkt string) {
	k := v.keys[jkt]
	k.live = false
	v.keys[jkt] = k
	if i := v.instances[k.instance]; i.Old != nil && i.Old.JKT == jkt {
		i.Old = nil
		v.instances[k.instance] = i
		delete(v.rotated, k.instance)
	}
}

// A noun is a parsed document.
type noun struct {
	name     string
	person   *counterfoil.Person
	class    *counterfoil.Class
	resource *counterfoil.Resource
	agent    *counterfoil.Agent
	policy   *counterfoil.Policy

	transmitter *counterfoil.Transmitter
	vocabulary  *counterfoil.Vocabulary
}

// parseDocument reads a document. One that does not name itself as it is filed
// is an error, here and at the next start.
func parseDocument(d counterfoil.Document) (noun, error) {
	n := noun{name: d.Name}
	var err error
	var name string
	switch d.Kind {
	case counterfoil.KindPerson:
		n.person, err = parseNoun[counterfoil.Person](d.Body)
		name = nameOf(n.person, func(p *counterfoil.Person) string { return p.Name })
	case counterfoil.KindClass:
		n.class, err = parseNoun[counterfoil.Class](d.Body)
		name = nameOf(n.class, func(c *counterfoil.Class) string { return c.Name })
	case counterfoil.KindResource:
		n.resource, err = parseNoun[counterfoil.Resource](d.Body)
		name = nameOf(n.resource, func(r *counterfoil.Resource) string { return r.Name })
	case counterfoil.KindAgent:
		n.agent, err = parseNoun[counterfoil.Agent](d.Body)
		name = nameOf(n.agent, func(a *counterfoil.Agent) string { return a.Name })
	case counterfoil.KindPolicy:
		n.policy, err = parseNoun[counterfoil.Policy](d.Body)
		name = nameOf(n.policy, func(p *counterfoil.Policy) string { return p.Name })
	case counterfoil.KindTransmitter:
		n.transmitter, err = parseNoun[counterfoil.Transmitter](d.Body)
		name = nameOf(n.transmitter, func(t *counterfoil.Transmitter) string { return t.Name })
	case counterfoil.KindVocabulary:
		n.vocabulary, err = parseNoun[counterfoil.Vocabulary](d.Body)
		name = nameOf(n.vocabulary, func(v *counterfoil.Vocabulary) string { return v.Name })
	default:
		err = fmt.Errorf("no such kind")
	}
	if err == nil && name != d.Name {
		err = fmt.Errorf("the document calls itself %q", name)
	}
	if err != nil {
		return noun{}, fmt.Errorf("reading %s %q: %w", d.Kind, d.Name, err)
	}
	return n, nil
}

func parseNoun[T any](body []byte) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(body, v, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	return v, nil
}

func nameOf[T any](v *T, name func(*T) string) string {
	if v == nil {
		return ""
	}
	return name(v)
}

// put adds the noun to a registry that nobody else has yet.
func (n noun) put(r *counterfoil.Registry) {
	switch {
	case n.person != nil:
		r.People[n.name] = n.person
	case n.class != nil:
		r.Classes[n.name] = n.class
	case n.resource != nil:
		r.Resources[n.name] = n.resource
	case n.agent != nil:
		r.Agents[n.name] = n.agent
	case n.policy != nil:
		r.Policies[n.name] = n.policy
	case n.transmitter != nil:
		r.Transmitters[n.name] = n.transmitter
	case n.vocabulary != nil:
		r.Vocabularies[n.name] = n.vocabulary
	}
}

func remove(r *counterfoil.Registry, k counterfoil.DocKey) {
	switch k.Kind {
	case counterfoil.KindPerson:
		delete(r.People, k.Name)
	case counterfoil.KindClass:
		delete(r.Classes, k.Name)
	case counterfoil.KindResource:
		delete(r.Resources, k.Name)
	case counterfoil.KindAgent:
		delete(r.Agents, k.Name)
	case counterfoil.KindPolicy:
		delete(r.Policies, k.Name)
	case counterfoil.KindTransmitter:
		delete(r.Transmitters, k.Name)
	case counterfoil.KindVocabulary:
		delete(r.Vocabularies, k.Name)
	}
}

// cloneRegistry copies the maps. The nouns in them never change.
func cloneRegistry(r *counterfoil.Registry) *counterfoil.Registry {
	return &counterfoil.Registry{
		People:    maps.Clone(r.People),
		Classes:   maps.Clone(r.Classes),
		Resources: maps.Clone(r.Resources),
		Agents:    maps.Clone(r.Agents),
		Policies:  maps.Clone(r.Policies),

		Transmitters: maps.Clone(r.Transmitters),
		Vocabularies: maps.Clone(r.Vocabularies),
	}
}

// Registry returns what is declared now and its revision, which changes with
// every change of it. The registry is immutable.
func (s *Store) Registry() (*counterfoil.Registry, string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.views.registry, s.views.revision
}

// AgentState returns where an agent is in its life; the zero AgentState for a
// name that no agent ever had.
func (s *Store) AgentState(agent string) counterfoil.AgentState {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.views.agents[agent]
}

// Instance returns an instance, dead ones included.
func (s *Store) Instance(id string) (counterfoil.Instance, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.views.instances[id]
	return s.now(i), ok
}

// now leaves out the key that an instance had before, once that is taken no more.
func (s *Store) now(i counterfoil.Instance) counterfoil.Instance {
	if i.Old != nil && !s.opt.Now().Before(i.Old.Until) {
		i.Old = nil
	}
	return i
}

// Instances returns the instances that an agent ever had, oldest first.
func (s *Store) Instances(agent string) []counterfoil.Instance {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := s.views.ofAgent[agent]
	out := make([]counterfoil.Instance, 0, len(ids))
	for _, id := range ids {
		out = append(out, s.now(s.views.instances[id]))
	}
	return out
}

// LatestInstances returns the last instances that an agent had, at most so many,
// the newest first.
func (s *Store) LatestInstances(agent string, most int) []counterfoil.Instance {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := s.views.ofAgent[agent]
	ids = ids[max(0, len(ids)-most):]
	out := make([]counterfoil.Instance, 0, len(ids))
	for _, id := range slices.Backward(ids) {
		out = append(out, s.now(s.views.instances[id]))
	}
	return out
}

// InstanceByKey returns the instance whose own, registered key has that
// thumbprint, dead ones included: its present one, or its Old one while that is taken.
// Proof keys that an instance bound are not its own: see ProofKey.
func (s *Store) InstanceByKey(jkt string) (counterfoil.Instance, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.views.keys[jkt]
	if !ok || !k.registered {
		return counterfoil.Instance{}, false
	}
	i, ok := s.views.instances[k.instance]
	i = s.now(i)
	if !ok || i.JKT != jkt && (i.Old == nil || i.Old.JKT != jkt) {
		return counterfoil.Instance{}, false
	}
	return i, true
}

// AgentOfKey returns the agent that has, or ever had, the key with that
// thumbprint.
func (s *Store) AgentOfKey(jkt string) (agent string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.views.keys[jkt]
	return k.agent, ok
}

// ProofKey returns the agent and the instance that a live key with that
// thumbprint proves for, the instance's own key included.
func (s *Store) ProofKey(jkt string) (agent, instance string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.views.keys[jkt]
	if !ok || !k.in(s.opt.Now) {
		return "", "", false
	}
	return k.agent, k.instance, true
}

// Pin returns the pinned digest of a tool's definition.
func (s *Store) Pin(resource, tool string) (digest string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.views.pins[pinKey{resource, tool}]
	return p.digest, ok
}

// PinHow returns who or what vouched for the pinned definition of a tool, as
// PinTool was told; empty when there is none.
func (s *Store) PinHow(resource, tool string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.views.pins[pinKey{resource, tool}].how
}

// Revoked returns nil exactly when the caller's agent is active at the token's
// epoch, its instance and key are live, its token was not revoked, its resource not
// since it was issued, and its task, where it has one, is open and in its time; a
// refusal otherwise. Of a caller without a key it asks that its agent is active and its
// resource in force, and nothing of instance and epoch, which it has not. What it looks
// at includes every change that was acknowledged.
func (s *Store) Revoked(_ context.Context, c counterfoil.Caller) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.views
	a, ok := v.agents[c.Agent]
	switch {
	case !ok || c.Agent == "":
		return counterfoil.Refuse(counterfoil.TokenRevoked, "agent %q is not known", c.Agent)
	case a.Status == counterfoil.Suspended:
		return counterfoil.Refuse(counterfoil.AgentSuspended, "agent %q is suspended", c.Agent)
	case a.Status != counterfoil.Active:
		return counterfoil.Refuse(counterfoil.TokenRevoked, "agent %q was offboarded", c.Agent)
	case c.Binding == counterfoil.NotBound:
		return v.unboundRevoked(&c)
	case a.Epoch != c.Epoch:
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the token is of epoch %d, agent %q is at epoch %d", c.Epoch, c.Agent, a.Epoch)
	}
	i, ok := v.instances[c.Instance]
	if ok && i.Agent == c.Agent && i.Status == counterfoil.Quarantined {
		return quarantined(c.Agent, c.Instance)
	}
	if !ok || i.Agent != c.Agent || i.Status != counterfoil.Active {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "instance %q of agent %q is not live", c.Instance, c.Agent)
	}
	// A key that nobody registered or bound is nobody's: whatever a token says.
	if k, ok := v.keys[c.JKT]; !ok || !k.in(s.opt.Now) || k.instance != c.Instance {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the key is not a live key of instance %q", c.Instance)
	}
	if _, dead := v.deadTokens[c.TokenID]; dead {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the token was revoked")
	}
	if r, ok := v.audiences[c.Audience]; ok && (r.status != counterfoil.Active || !c.Issued.After(r.before)) {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "resource %q is suspended, or was since the token was issued", r.name)
	}
	// What it was called when it was revoked is known as long as a token of then could be.
	if d, ok := v.dead[deadKey{counterfoil.TargetResource, c.Audience}]; ok && (d.Before.IsZero() || !c.Issued.After(d.Before)) {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the resource was revoked since the token was issued")
	}
	if c.Task != "" {
		if t := v.tasks[c.Task]; t == nil || t.Agent != c.Agent || !t.Live(s.opt.Now()) {
			return taskClosed()
		}
	}
	return nil
}

// unboundRevoked is what is left to ask of a caller without a key whose agent is
// active. What has no key has no task either. A static key was not issued at any time:
// suspending the resource stops it, and resuming it lets it in again.
func (v *views) unboundRevoked(c *counterfoil.Caller) error {
	if c.Bearer == "" || c.Instance != "" || c.JKT != "" || c.Task != "" || c.Epoch != 0 {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "a bearer credential has neither key nor task")
	}
	void := func(before time.Time) bool {
		return before.IsZero() || !c.Issued.IsZero() && !c.Issued.After(before)
	}
	if r, ok := v.audiences[c.Audience]; ok && (r.status != counterfoil.Active || !r.before.IsZero() && void(r.before)) {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "resource %q is suspended, or was since the token was issued", r.name)
	}
	if d, ok := v.dead[deadKey{counterfoil.TargetResource, c.Audience}]; ok && void(d.Before) {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the resource was revoked since the token was issued")
	}
	return nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// A revision is a counter, as text: nobody reads anything into it.
func nextOf(revision string) (string, error) {
	n, err := strconv.ParseUint(revision, 10, 63)
	if err != nil {
		return "", fmt.Errorf("revision %q is not a number", revision)
	}
	return strconv.FormatUint(n+1, 10), nil
}
