package web

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

// Bounds of what a page reads of the ledger: more is said to be more.
const (
	agentsWindow  = 24 * time.Hour
	agentWindow   = 48 * time.Hour
	agentsEntries = 5000
	agentEntries  = 2000
	recentLines   = 10
)

func (p *pages) agentsPage(v visit) (shown, error) {
	entries, err := p.Entries.Find(v.r.Context(), ledger.Filter{Kind: ledger.CallDecided, Since: p.Now().Add(-agentsWindow), Limit: agentsEntries})
	if err != nil {
		return shown{}, err
	}
	rows := map[string]*console.AgentRow{}
	var body console.Agents
	for _, a := range p.Authority.Agents() {
		body.All = append(body.All, console.AgentRow{
			Name: a.Agent.Name, Owner: a.Agent.Owner, Purpose: a.Agent.Purpose, Environment: a.Agent.Environment, Status: string(a.Status),
			Instances: a.Instances, Quarantined: len(a.Quarantined), More: len(entries) >= agentsEntries,
		})
	}
	for i := range body.All {
		rows[body.All[i].Name] = &body.All[i]
	}
	for _, e := range entries {
		row := rows[e.Agent]
		if row == nil {
			continue
		}
		if !isCall(e) {
			continue
		}
		row.Calls++
		if wasRefused(e) {
			row.Refusals++
		}
		if at, err := e.When(); err == nil && at.After(row.Last) {
			row.Last = at
		}
	}
	return shown{name: "agents", title: "Agents", section: "agents", body: body}, nil
}

// isCall reports whether an entry decides a call of a tool. What only opens or ends a
// conversation has no class; what was refused without one is a call all the same.
func isCall(e *ledger.Entry) bool {
	return e.Kind == ledger.CallDecided && e.Tool != statusTool && (e.Class != "" || e.Decision == ledger.Refuse)
}

// wasRefused reports whether a call was refused for good: to wait for people is no
// refusal yet.
func wasRefused(e *ledger.Entry) bool {
	return e.Decision == ledger.Refuse && e.Code != counterfoil.ApprovalRequired && e.Code != counterfoil.ApprovalPending
}

// agentBody fills in what a page says of an agent's document and its instances.
func (p *pages) agentBody(name string) (console.Agent, error) {
	view, err := p.Authority.Agent(name)
	if err != nil {
		return console.Agent{}, err
	}
	instances, err := p.Authority.Instances(name)
	if err != nil {
		return console.Agent{}, err
	}
	doc := view.Agent
	a := console.Agent{
		Name: doc.Name, Owner: doc.Owner, Purpose: doc.Purpose, Environment: doc.Environment, Status: string(view.Status), Tasks: taskWords(doc.Tasks),
	}
	for _, w := range doc.Workloads {
		a.Workloads = append(a.Workloads, w.Subject+" of "+w.Issuer)
	}
	_, registry := p.Authority.Policy()
	for i := range doc.Grants {
		a.Grants = append(a.Grants, grant(registry, &doc.Grants[i]))
	}
	for _, i := range instances {
		inst := console.Instance{ID: i.ID, Key: i.JKT, KeyKind: i.Alg, Status: string(i.Status), How: i.How, Enrolled: i.Enrolled}
		if i.Old != nil && p.Now().Before(i.Old.Until) {
			inst.Old, inst.OldUntil = i.Old.JKT, i.Old.Until
		}
		a.Instances = append(a.Instances, inst)
	}
	return a, nil
}

func taskWords(t counterfoil.TaskLimits) []string {
	var out []string
	if t.Required {
		out = append(out, "required")
	}
	if t.MaxDuration > 0 {
		out = append(out, "at most "+t.MaxDuration.String())
	}
	if t.MaxCalls > 0 {
		out = append(out, "at most "+strconv.Itoa(t.MaxCalls)+" calls")
	}
	return out
}

// grant says what a grant's tools are classified as now. A tool without a class is not
// callable, whatever grant lists it.
func grant(registry *counterfoil.Registry, g *counterfoil.Grant) console.Grant {
	out := console.Grant{When: g.When}
	for _, n := range g.Networks {
		out.Networks = append(out.Networks, n.String())
	}
	for _, id := range g.Tools {
		r := registry.Resources[id.Resource]
		if r != nil && id.Tool == counterfoil.EveryTool {
			for _, t := range r.Tools {
				if t.Class == "" {
					continue // it is there to be told from the others
				}
				out.Tools = append(out.Tools, grantedTool(registry, counterfoil.ToolID{Resource: id.Resource, Tool: t.Name}, t))
			}
			continue
		}
		var tool counterfoil.Tool
		if r != nil {
			tool, _ = r.Tool(id.Tool)
		}
		out.Tools = append(out.Tools, grantedTool(registry, id, tool))
	}
	return out
}

func grantedTool(registry *counterfoil.Registry, id counterfoil.ToolID, t counterfoil.Tool) console.GrantedTool {
	g := console.GrantedTool{Tool: id.String(), Class: t.Class}
	if class := registry.Classes[t.Class]; class != nil {
		g.Tier = class.Tier.String()
	}
	return g
}

func (p *pages) agentPage(v visit) (shown, error) {
	ctx, name := v.r.Context(), v.path("name")
	a, err := p.agentBody(name)
	if err != nil {
		return shown{}, err
	}
	if a.Waiting, err = p.openApprovals(ctx, v.s.person.Name, name, counterfoil.StatePending); err != nil {
		return shown{}, err
	}
	if err := p.fillTasks(ctx, &a); err != nil {
		return shown{}, err
	}
	now := p.Now()
	entries, err := p.Entries.Find(ctx, ledger.Filter{Agent: name, Since: now.Add(-agentWindow), Limit: agentEntries})
	if err != nil {
		return shown{}, err
	}
	var calls []console.Call
	codes := map[counterfoil.Code]int{}
	for _, e := range entries {
		at, err := e.When()
		if err != nil {
			return shown{}, err
		}
		if len(a.Recent) < recentLines {
			a.Recent = append(a.Recent, lineOf(e))
		}
		if e.Code != "" {
			codes[e.Code]++
		}
		if isCall(e) {
			calls = append(calls, console.Call{At: at, Class: e.Class, Tier: e.Tier, Refused: wasRefused(e)})
		}
		for i := range a.Instances {
			if inst := &a.Instances[i]; inst.ID == e.Instance && e.Source.Address != "" && inst.Place == "" {
				inst.Place, inst.Last = e.Source.Address, at
			}
		}
	}
	a.Timeline = console.NewTimeline(calls, now, time.Hour, int(agentWindow/time.Hour), len(entries) >= agentEntries)
	a.Refusals = codeCounts(codes, name)
	return shown{name: "agent", title: name, section: "agents", body: a}, nil
}

// codeCounts orders codes by how often they were answered.
func codeCounts(codes map[counterfoil.Code]int, agent string) []console.CodeCount {
	var out []console.CodeCount
	for _, c := range slices.Sorted(maps.Keys(codes)) {
		out = append(out, console.CodeCount{
			Code: string(c), Meaning: c.Wire().Meaning, Count: codes[c],
			URL: "/ledger?" + url.Values{"agent": {agent}, "code": {string(c)}}.Encode(),
		})
	}
	slices.SortStableFunc(out, func(a, b console.CodeCount) int { return cmp.Compare(b.Count, a.Count) })
	for i := range out {
		out[i].Percent = max(1, out[i].Count*100/out[0].Count)
	}
	return out
}

func (p *pages) openApprovals(ctx context.Context, viewer, agent string, states ...counterfoil.ApprovalState) (int, error) {
	views, err := p.Approvals.List(ctx, viewer, counterfoil.ApprovalFilter{Agent: agent, States: states})
	return len(views), err
}

func voidFields(offboard bool) []string {
	if offboard {
		return []string{"reason", "name"}
	}
	return []string{"reason"}
}

func (p *pages) peoplePage(v visit) (shown, error) {
	people, err := p.Approvals.People(v.r.Context())
	if err != nil {
		return shown{}, err
	}
	var body console.People
	for _, person := range people {
		body.All = append(body.All, p.person(person))
	}
	return shown{name: "people", title: "People", section: "people", body: body}, nil
}

// enough is how many decisions a rate of yes says something of.
const enough = 5

func (p *pages) person(v approval.PersonView) console.Person {
	out := console.Person{
		Name: v.Name, Email: v.Email, Status: string(v.Status), Groups: v.Groups, Roles: v.Roles, Pending: v.Load, Approved: v.Approved, Denied: v.Denied, Yes: -1,
		Seconds: int(v.Seconds),
	}
	if n := v.Approved + v.Denied; n >= enough {
		out.Yes = v.Approved * 100 / n
	}
	for _, k := range v.Passkeys {
		out.Passkeys = append(out.Passkeys, console.Passkey{
			ID: k.ID, Kind: passkeyKind(k), How: passkeyHow[k.How], Synced: k.BackedUp, Ended: k.Status != counterfoil.Active,
			Enrolled: k.Enrolled, Used: k.Used, From: k.UsableFrom,
		})
	}
	_, registry := p.Authority.Policy()
	if me := registry.People[v.Name]; me != nil {
		for _, other := range slices.Sorted(maps.Keys(registry.People)) {
			if other != v.Name && registry.People[other].Mailbox() == me.Mailbox() {
				out.Twin = other
			}
		}
	}
	return out
}

var passkeyHow = map[string]string{
	counterfoil.PasskeyFirst: "the first one", counterfoil.PasskeyAdded: "added", counterfoil.PasskeyReset: "in place of earlier ones",
}

// passkeyKinds are AAGUIDs that are met most. What is not attested is only what the
// authenticator says of itself.
var passkeyKinds = map[string]string{
	"fbfc3007-154e-4ecc-8c0b-6e020557d7bd": "iCloud Keychain",
	"ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4": "Google Password Manager",
	"08987058-cadc-4b81-b6e1-30de50dcbe96": "Windows Hello",
	"9ddd1817-af5a-4672-a2b9-3e3dd95000a9": "Windows Hello",
	"bada5566-a7aa-401f-bd96-45619a55120d": "1Password",
	"d548826e-79b4-db40-a3d8-11116f7e8349": "Bitwarden",
}

func passkeyKind(k approval.PasskeyView) string {
	name := passkeyKinds[k.AAGUID]
	switch {
	case k.Attested && name == "":
		return "Attested authenticator"
	case name == "":
		return "Passkey"
	case k.Attested:
		return name + " (attested)"
	}
	return name
}
