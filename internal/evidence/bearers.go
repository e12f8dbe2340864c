package evidence

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A BearerReport is who sent bearer credentials since a time, and what one could do
// that is stolen now.
type BearerReport struct {
	Since     time.Time        `json:"since"`
	Until     time.Time        `json:"until"`
	Resources []BearerResource `json:"resources"` // that declare credentials, or were sent some; by name
}

// A BearerResource is one resource on its way to bound tokens.
type BearerResource struct {
	Name        string    `json:"name"`
	Type        string    `json:"type,omitzero"` // empty: no such resource any more
	Binding     string    `json:"binding"`       // the mode now
	RequireFrom time.Time `json:"require_from,omitzero"`

	Credentials []BearerUse `json:"credentials"`

	// Left are the credentials that were used and taken since: what has to send bound
	// tokens before require is safe. Safe is that there are none.
	Left []string `json:"left"`
	Safe bool     `json:"safe"`
}

// A BearerUse is one credential: how it was used, and what it opens.
type BearerUse struct {
	Bearer   string `json:"bearer"` // its name, no secret: Bearer.Label
	Agent    string `json:"agent"`
	Declared bool   `json:"declared"` // now; what is not is not taken any more

	Calls   int       `json:"calls"`   // that were allowed
	Refused int       `json:"refused"` // that were not
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`

	Tools  []CountedText `json:"tools,omitzero"`       // that were called, RESOURCE/TOOL
	From   []CountedText `json:"addresses,omitzero"`   // that it was sent from
	Agents []CountedText `json:"user_agents,omitzero"` // what sent it, in its own words

	// Opens is what whoever has it could call now, without a key.
	Opens []BearerReach `json:"opens"`
}

// A CountedText is a text that was in so many calls, the last at that time.
type CountedText struct {
	Text  string    `json:"text"`
	Calls int       `json:"calls"`
	Last  time.Time `json:"last"`
}

// A BearerReach is a tool that a stolen credential opens.
type BearerReach struct {
	Tool  string `json:"tool"`
	Class string `json:"class"`
	Tier  string `json:"tier"`

	People    int  `json:"people"`              // who would have to approve each call
	Networks  bool `json:"networks,omitzero"`   // from the networks of its grants alone
	Condition bool `json:"conditions,omitzero"` // where a condition of its grants holds
}

const (
	bearerPage = 4096 // entries that are read at once
	mostTexts  = 32   // addresses and the like that are told apart of one credential
)

// Bearers reports on one resource, or on all of them where name is empty.
//
// It reads the log backwards to since and looks into the entries of bearer calls alone:
// what is between them costs no more than reading it. Nothing is kept for the next
// report.
func Bearers(ctx context.Context, log Ledger, reg *counterfoil.Registry, name string, since, now time.Time) (BearerReport, error) {
	uses := map[bearerID]*bearerUse{}
	for _, r := range reg.Resources {
		for i := range r.Bearers {
			uses[bearerID{r.Name, r.Bearers[i].Label(), r.Bearers[i].Agent}] = &bearerUse{declared: true}
		}
	}
	if err := readBearers(ctx, log, since, uses); err != nil {
		return BearerReport{}, err
	}
	byName := map[string]*BearerResource{}
	for _, id := range slices.SortedFunc(maps.Keys(uses), bearerID.compare) {
		if name != "" && id.resource != name {
			continue
		}
		r := byName[id.resource]
		if r == nil {
			r = newBearerResource(reg, id.resource, now)
			byName[id.resource] = r
		}
		use := uses[id].report(id)
		use.Opens = opens(reg, id, use.Declared, now)
		if use.Calls > 0 && use.Declared {
			r.Left, r.Safe = append(r.Left, use.Bearer), false
		}
		r.Credentials = append(r.Credentials, use)
	}
	out := BearerReport{Since: since, Until: now, Resources: []BearerResource{}}
	for _, n := range slices.Sorted(maps.Keys(byName)) {
		out.Resources = append(out.Resources, *byName[n])
	}
	return out, nil
}

func newBearerResource(reg *counterfoil.Registry, name string, now time.Time) *BearerResource {
	r := &BearerResource{Name: name, Binding: counterfoil.BindingRequire, Left: []string{}, Safe: true}
	if res := reg.Resources[name]; res != nil {
		r.Type, r.Binding, r.RequireFrom = res.Type, res.BindingAt(now), res.RequireFrom
	}
	return r
}

// A bearerID is a credential at a resource, and the agent that its use counted as.
type bearerID struct{ resource, label, agent string }

func (a bearerID) compare(b bearerID) int {
	return cmp.Or(cmp.Compare(a.resource, b.resource), cmp.Compare(a.agent, b.agent), cmp.Compare(a.label, b.label))
}

// readBearers counts the calls of the log since then.
func readBearers(ctx context.Context, log Ledger, since time.Time, uses map[bearerID]*bearerUse) error {
	f := ledger.Filter{Kind: ledger.CallDecided, Binding: counterfoil.NotBound, Since: since, Limit: bearerPage}
	for {
		page, err := log.Find(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range page {
			label, _ := e.Detail["bearer"].(string)
			id := bearerID{e.Resource, label, e.Agent}
			if label == "" {
				continue
			}
			if uses[id] == nil {
				uses[id] = &bearerUse{}
			}
			if err := uses[id].add(e); err != nil {
				return err
			}
		}
		if len(page) < f.Limit || page[len(page)-1].Index == 0 {
			return nil
		}
		f.Before = page[len(page)-1].Index
	}
}

// A bearerUse counts.
type bearerUse struct {
	declared       bool
	calls, refused int
	first, last    time.Time

	tools, from, agents tallies
}

// add counts one call. Entries come newest first.
func (u *bearerUse) add(e *ledger.Entry) error {
	at, err := e.When()
	if err != nil {
		return err
	}
	if u.last.IsZero() {
		u.last = at
	}
	u.first = at
	if e.Decision == ledger.Allow {
		u.calls++
	} else {
		u.refused++
	}
	u.tools.add(e.Tool, at)
	u.from.add(cmp.Or(e.Source.Address, "unknown"), at)
	agent, _ := e.Detail["user_agent"].(string)
	u.agents.add(agent, at)
	return nil
}

func (u *bearerUse) report(id bearerID) BearerUse {
	return BearerUse{
		Bearer: id.label, Agent: id.agent, Declared: u.declared, Calls: u.calls, Refused: u.refused, First: u.first, Last: u.last,
		Tools: u.tools.list(), From: u.from.list(), Agents: u.agents.list(),
	}
}

// tallies count texts. What comes when there are many already is one of "others", so that
// who makes them up fills no memory.
type tallies struct{ of map[string]*CountedText }

const manyMore = "others"

func (t *tallies) add(text string, at time.Time) {
	if text == "" {
		return
	}
	if t.of == nil {
		t.of = map[string]*CountedText{}
	}
	if t.of[text] == nil && len(t.of) >= mostTexts {
		text = manyMore
	}
	c := t.of[text]
	if c == nil {
		c = &CountedText{Text: text, Last: at}
		t.of[text] = c
	}
	c.Calls++
}

// list returns them, the most frequent first.
func (t *tallies) list() []CountedText {
	out := make([]CountedText, 0, len(t.of))
	for _, c := range t.of {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b CountedText) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Text, b.Text))
	})
	return out
}

// opens returns what a credential opens to whoever has it, in the resource's mode now.
// It is what the registry says; policies may still forbid a call, and nobody is asked
// here whether the agent is suspended.
func opens(reg *counterfoil.Registry, id bearerID, declared bool, now time.Time) []BearerReach {
	out := []BearerReach{}
	res, agent := reg.Resources[id.resource], reg.Agents[id.agent]
	if res == nil || agent == nil || !declared || agent.Environment != res.Environment || agent.Tasks.Required {
		return out
	}
	mode := res.BindingAt(now)
	if mode == counterfoil.BindingRequire {
		return out
	}
	for _, tool := range toolsOf(res) {
		class := reg.Classes[tool.Class]
		if class == nil || class.Tier == counterfoil.Forbidden || mode == counterfoil.BindingPrefer && class.Tier != counterfoil.Routine {
			continue
		}
		reach := BearerReach{Tool: res.Name + "/" + tool.Name, Class: class.Name, Tier: class.Tier.String(), People: class.Tier.People(), Networks: true, Condition: true}
		granted := false
		for i := range agent.Grants {
			g := &agent.Grants[i]
			if !g.Covers(counterfoil.ToolID{Resource: res.Name, Tool: tool.Name}) {
				continue
			}
			granted = true
			reach.Networks = reach.Networks && len(g.Networks) > 0
			reach.Condition = reach.Condition && g.When != ""
		}
		if granted {
			out = append(out, reach)
		}
	}
	return out
}

func toolsOf(res *counterfoil.Resource) []counterfoil.Tool {
	out := slices.Clone(res.Tools)
	for _, name := range []string{counterfoil.ToolResources, counterfoil.ToolPrompts} {
		if t, ok := res.Tool(name); ok && !slices.ContainsFunc(res.Tools, func(o counterfoil.Tool) bool { return o.Name == name }) {
			out = append(out, t)
		}
	}
	return slices.DeleteFunc(out, func(t counterfoil.Tool) bool { return t.Class == "" })
}
