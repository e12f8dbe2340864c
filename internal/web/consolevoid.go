package web

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

// A holding is what hangs on the authority of a target, as of now: what its revocation
// voids. It is shown before the click; what was voided in the end is in the entry.
type holding struct {
	world *standing

	agents    []string
	instances []counterfoil.Instance
	keys      []string
	tokens    []string
	tasks     []counterfoil.Task
	approvals []approval.View
	passkeys  []approval.PasskeyView
	grants    []string
}

// A standing is what is open and live at the moment of one request, each read once.
type standing struct {
	p      *pages
	ctx    context.Context //nolint:containedctx // of the one request that it is read for
	viewer string
	now    time.Time

	tasks     []counterfoil.Task // open ones
	approvals []approval.View    // open ones
	tokens    []*ledger.Entry    // that issued those that are live
	more      bool               // there may be more tokens
}

// Bounds of what is looked at before a revocation: the latest tokens, and how long one
// may have been issued and still be in its time.
const (
	mostTokens    = 5000
	mostOpen      = 10_000
	tokenReach    = 16 * time.Minute
	tokenRevision = time.Second // of the time that a token says it was issued at
)

func (p *pages) standing(v visit) (*standing, error) {
	s := &standing{p: p, ctx: v.r.Context(), viewer: v.s.person.Name, now: p.Now()}
	var err error
	if s.tasks, err = p.Authority.Tasks(s.ctx, counterfoil.TaskFilter{State: counterfoil.TaskOpen, Limit: mostOpen}); err != nil {
		return nil, err
	}
	s.approvals, err = p.Approvals.List(s.ctx, s.viewer, counterfoil.ApprovalFilter{
		States: []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}, Limit: mostOpen,
	})
	if err != nil {
		return nil, err
	}
	return s, s.readTokens()
}

// readTokens finds the tokens that could be used at this moment. The ledger knows them:
// each was recorded before it was given.
func (s *standing) readTokens() error {
	since := s.now.Add(-tokenReach)
	issued, err := s.p.Entries.Find(s.ctx, ledger.Filter{Kind: ledger.TokenIssued, Since: since, Limit: mostTokens})
	if err != nil {
		return err
	}
	s.more = len(issued) == mostTokens
	revoked, err := s.p.Entries.Find(s.ctx, ledger.Filter{Kind: ledger.Revoked, Since: since, Limit: mostTokens})
	if err != nil {
		return err
	}
	dead := map[string]bool{}
	for _, e := range revoked {
		dead[e.TokenJTI] = true
	}
	live, epochs := map[string]bool{}, map[string]int64{}
	for _, a := range s.p.Authority.Agents() {
		if a.Status != counterfoil.Active {
			continue
		}
		epochs[a.Agent.Name] = a.Epoch
		all, err := s.p.Authority.Instances(a.Agent.Name)
		if err != nil {
			return err
		}
		for _, i := range all {
			live[i.ID] = i.Status == counterfoil.Active
		}
	}
	for _, e := range issued {
		if e.Decision != ledger.Allow || dead[e.TokenJTI] || !live[e.Instance] || epochs[e.Agent] != e.Epoch || !s.inTime(e) {
			continue
		}
		s.tokens = append(s.tokens, e)
	}
	return nil
}

// inTime reports whether the token that an entry issued has not expired, and its task
// and its resource are there still.
func (s *standing) inTime(e *ledger.Entry) bool {
	text, _ := e.Detail["expires"].(string)
	expires, err := ledger.ParseTime(text)
	if err != nil || !s.now.Before(expires) {
		return false
	}
	if e.Resource != "" {
		at, _ := e.When() // the log takes no other times
		if status, before := s.p.Approvals.ResourceStatus(e.Resource); status != counterfoil.Active || !at.Truncate(tokenRevision).After(before) {
			return false
		}
	}
	return e.Task == "" || slices.ContainsFunc(s.tasks, func(t counterfoil.Task) bool { return t.ID == e.Task && t.Live(s.now) })
}

// ofAgent gathers what an agent holds that is void once it is suspended.
func (h *holding) ofAgent(name string) error {
	view, err := h.world.p.Authority.Agent(name)
	if err != nil {
		return err
	}
	h.agents = append(h.agents, name)
	if view.Status != counterfoil.Active {
		return nil // there is nothing left
	}
	for i := range h.world.tasks {
		if t := &h.world.tasks[i]; t.Agent == name || t.Opener == name {
			h.ofTask(t)
		}
	}
	h.addApprovals(func(v *approval.View) bool { return v.Agent == name })
	h.addTokens(func(e *ledger.Entry) bool { return e.Agent == name })
	return nil
}

// forGood adds what an agent loses beyond that when it is offboarded.
func (h *holding) forGood(name string) error {
	view, err := h.world.p.Authority.Agent(name)
	if err != nil {
		return err
	}
	all, err := h.world.p.Authority.Instances(name)
	if err != nil {
		return err
	}
	for _, i := range all {
		if i.Status != counterfoil.Ended {
			h.addInstance(i)
		}
	}
	for i := range view.Agent.Grants {
		for _, id := range view.Agent.Grants[i].Tools {
			if !slices.Contains(h.grants, id.String()) {
				h.grants = append(h.grants, id.String())
			}
		}
	}
	return nil
}

func (h *holding) addInstance(i counterfoil.Instance) {
	h.instances, h.keys = append(h.instances, i), append(h.keys, i.JKT)
	if i.Old != nil {
		h.keys = append(h.keys, i.Old.JKT)
	}
}

// ofInstance gathers what hangs on an instance.
func (h *holding) ofInstance(i counterfoil.Instance) {
	h.addInstance(i)
	h.addApprovals(func(v *approval.View) bool { return v.Instance == i.ID })
	h.addTokens(func(e *ledger.Entry) bool { return e.Instance == i.ID })
}

// ofTask gathers a task, those below it, and what hangs on them.
func (h *holding) ofTask(t *counterfoil.Task) {
	if slices.ContainsFunc(h.tasks, func(o counterfoil.Task) bool { return o.ID == t.ID }) {
		return
	}
	h.tasks = append(h.tasks, *t)
	h.addApprovals(func(v *approval.View) bool { return v.Task == t.ID })
	h.addTokens(func(e *ledger.Entry) bool { return e.Task == t.ID })
	for i := range h.world.tasks {
		if below := &h.world.tasks[i]; below.Parent == t.ID {
			h.ofTask(below)
		}
	}
}

// ofOwner gathers what the agents of a person hold.
func (h *holding) ofOwner(name string) error {
	for _, a := range h.world.p.Authority.Agents() {
		if a.Agent.Owner != name || a.Status != counterfoil.Active {
			continue
		}
		if err := h.ofAgent(a.Agent.Name); err != nil {
			return err
		}
	}
	return nil
}

// ofPerson gathers what a person has, signed and owns.
func (h *holding) ofPerson(name string) error {
	people, err := h.world.p.Approvals.People(h.world.ctx)
	if err != nil {
		return err
	}
	for _, p := range people {
		for _, k := range p.Passkeys {
			if p.Name == name && k.Status == counterfoil.Active {
				h.passkeys = append(h.passkeys, k)
			}
		}
	}
	h.addApprovals(func(v *approval.View) bool {
		return slices.ContainsFunc(v.Signatures, func(s approval.SignatureView) bool { return s.Person == name })
	})
	return h.ofOwner(name)
}

// ofResource gathers what is for a resource.
func (h *holding) ofResource(name string) {
	h.addApprovals(func(v *approval.View) bool {
		of, _, _ := strings.Cut(v.Tool, "/")
		return of == name && v.Kind == counterfoil.ApprovalOfCall
	})
	h.addTokens(func(e *ledger.Entry) bool { return e.Resource == name })
}

func (h *holding) addApprovals(keep func(*approval.View) bool) {
	for i := range h.world.approvals {
		v := &h.world.approvals[i]
		if keep(v) && !slices.ContainsFunc(h.approvals, func(o approval.View) bool { return o.ID == v.ID }) {
			h.approvals = append(h.approvals, *v)
		}
	}
}

func (h *holding) addTokens(keep func(*ledger.Entry) bool) {
	for _, e := range h.world.tokens {
		if keep(e) && !slices.Contains(h.tokens, e.TokenJTI) {
			h.tokens = append(h.tokens, e.TokenJTI)
		}
	}
}

// voided is what a holding comes to, in the form in which it is shown afterwards.
func (h *holding) voided() counterfoil.Voided {
	v := counterfoil.Voided{Agents: h.agents, Keys: h.keys, Tokens: h.tokens, Grants: h.grants}
	for i := range h.instances {
		v.Instances = append(v.Instances, h.instances[i].ID)
	}
	for i := range h.tasks {
		v.Tasks = append(v.Tasks, h.tasks[i].ID)
	}
	for i := range h.approvals {
		v.Approvals = append(v.Approvals, h.approvals[i].ID)
	}
	for i := range h.passkeys {
		v.Passkeys = append(v.Passkeys, h.passkeys[i].ID)
	}
	return v
}

// mostNames is how many things of one kind are named.
const mostNames = 30

// A lossKind is how one kind of thing that is taken is told.
type lossKind struct {
	ids       func(*counterfoil.Voided) []string
	one, many string // "live token"
	none      string // there is nothing of the kind
	after     string // what it means
	name      func(*pages, context.Context, string) console.Name
}

// lossKinds are in the order in which they are told.
var lossKinds = map[string]lossKind{
	"agents":    {func(v *counterfoil.Voided) []string { return v.Agents }, "agent", "agents", "No agent of theirs", "suspended until an administrator resumes it", (*pages).agentName},
	"tokens":    {func(v *counterfoil.Voided) []string { return v.Tokens }, "live token", "live tokens", "No live token", "", nil},
	"instances": {func(v *counterfoil.Voided) []string { return v.Instances }, "instance", "instances", "No instance", "ended for good", nil},
	"keys":      {func(v *counterfoil.Voided) []string { return v.Keys }, "key", "keys", "No key", "never to be used again by anybody", nil},
	"tasks":     {func(v *counterfoil.Voided) []string { return v.Tasks }, "open task", "open tasks", "No open task", "", (*pages).taskName},
	"approvals": {func(v *counterfoil.Voided) []string { return v.Approvals }, "open approval", "open approvals", "No open approval", "signatures included", (*pages).approvalName},
	"passkeys":  {func(v *counterfoil.Voided) []string { return v.Passkeys }, "passkey", "passkeys", "No passkey", "ended for good", nil},
	"grants":    {func(v *counterfoil.Voided) []string { return v.Grants }, "granted tool", "granted tools", "No granted tool", "", nil},
}

var lossOrder = []string{"agents", "tokens", "instances", "keys", "tasks", "approvals", "passkeys", "grants"}

// losses tells what is taken. Of those kinds that are named, it is said too that there
// is nothing.
func (p *pages) losses(ctx context.Context, v *counterfoil.Voided, more bool, always ...string) []console.Loss {
	var out []console.Loss
	for _, name := range lossOrder {
		k := lossKinds[name]
		ids := k.ids(v)
		if len(ids) == 0 {
			if slices.Contains(always, name) {
				out = append(out, console.Loss{What: k.none, None: true})
			}
			continue
		}
		l := console.Loss{What: fmt.Sprintf("%d %s", len(ids), k.many)}
		if len(ids) == 1 {
			l.What = "1 " + k.one
		}
		if more && name == "tokens" {
			l.What += ", or more"
		}
		if k.after != "" {
			l.What += ", " + k.after
		}
		for _, id := range ids[:min(len(ids), mostNames)] {
			n := console.Name{ID: id}
			if k.name != nil {
				n = k.name(p, ctx, id)
			}
			l.Names = append(l.Names, n)
		}
		l.More = max(len(ids)-mostNames, 0)
		out = append(out, l)
	}
	if len(v.Credentials) > 0 {
		l := console.Loss{What: "No use any more of upstream credentials, which stay the resources’"}
		for _, c := range v.Credentials {
			l.Names = append(l.Names, console.Name{ID: c})
		}
		out = append(out, l)
	}
	if v.Codes > 0 {
		out = append(out, console.Loss{What: fmt.Sprintf("%d enrolment codes that were not used", v.Codes)})
	}
	return out
}

func (p *pages) agentName(_ context.Context, id string) console.Name {
	n := console.Name{ID: id}
	if _, registry := p.Authority.Policy(); registry.Agents[id] != nil {
		n.URL = "/agents/" + id
	}
	return n
}

func (p *pages) taskName(ctx context.Context, id string) console.Name {
	n := console.Name{ID: id}
	if t, err := p.Authority.Task(ctx, id); err == nil {
		n.Text = beginning(text(t.Purpose))
	}
	return n
}

// approvalName looks as nobody who could sign: a list is no look at an approval.
func (p *pages) approvalName(ctx context.Context, id string) console.Name {
	n := console.Name{ID: id}
	if v, err := p.Approvals.View(ctx, "", id); err == nil {
		n.URL, n.Text = "/approvals/"+id, beginning(spans(v.Sentence))
	}
	return n
}

// beginning is as much of a text as fits into a list: its own page has all of it.
func beginning(t console.Text) console.Text {
	const most = 160
	n := 0
	for i := range t {
		for at := range t[i].Text {
			if n++; n > most {
				out := append(slices.Clone(t[:i]), t[i], console.Span{Text: "…"})
				out[i].Text = t[i].Text[:at]
				return out
			}
		}
	}
	return t
}

// summary says in a few words what was taken.
func summary(v *counterfoil.Voided) string {
	var out []string
	for _, name := range lossOrder {
		k := lossKinds[name]
		switch n := len(k.ids(v)); {
		case n == 1:
			out = append(out, "1 "+k.one)
		case n > 1:
			out = append(out, fmt.Sprintf("%d %s", n, k.many))
		}
	}
	return strings.Join(out, ", ")
}

// keyOf finds the instance that has a key, or had it before it was rotated.
func (m *management) keyOf(jkt string) (i counterfoil.Instance, old, ok bool) {
	_, registry := m.Authority.Policy()
	for _, name := range slices.Sorted(maps.Keys(registry.Agents)) {
		all, err := m.Authority.Instances(name)
		if err != nil {
			continue
		}
		for _, i := range all {
			if i.JKT == jkt {
				return i, false, true
			}
			if i.Old != nil && i.Old.JKT == jkt {
				return i, true, true
			}
		}
	}
	return counterfoil.Instance{}, false, false
}

// instanceOf finds an instance by its id.
func (m *management) instanceOf(id string) (counterfoil.Instance, bool) {
	for _, a := range m.Authority.Agents() {
		all, err := m.Authority.Instances(a.Agent.Name)
		if err != nil {
			continue
		}
		for _, i := range all {
			if i.ID == id {
				return i, true
			}
		}
	}
	return counterfoil.Instance{}, false
}
