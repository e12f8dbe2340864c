package web

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/evidence"
	"github.com/counterfoil/counterfoil/ledger"
)

// revokePages adds the pages of what takes authority away, and of what came of it.
func (p *pages) revokePages(rt *router) {
	rt.handle("GET", "/revocations", p.page(forReaders, p.revocationsPage))
	rt.handle("GET", "/revocations/{index}", p.page(forReaders, p.revocationPage))
	rt.handle("GET", "/revoke", p.page(forAdmins, p.revokePage))
	rt.handle("POST", "/revoke", p.act(forAdmins, []string{"kind", "id", "reason"}, p.revokeForm))
	rt.handle("GET", "/resources", p.page(forReaders, p.resourcesPage))
}

// ofRequests is what no revocation touches.
const ofRequests = "Calls that were forwarded already: they end as they end, and the ledger says how."

// voidAgent is the page before an agent is suspended or offboarded.
func (p *pages) voidPage(v visit, offboard bool) (shown, error) {
	name := v.path("name")
	body, err := p.voidOfAgent(v, name, offboard)
	if err != nil {
		return shown{}, err
	}
	body.Action, body.Back, body.BackLabel = "/agents/"+name+"/suspend", "/agents/"+name, name
	if offboard {
		body.Action, body.Confirm = "/agents/"+name+"/offboard", name
	}
	return shown{name: "void", title: strings.TrimSuffix(body.Question, "?"), section: "agents", body: body}, nil
}

func (p *pages) voidOfAgent(v visit, name string, offboard bool) (console.Void, error) {
	world, err := p.standing(v)
	if err != nil {
		return console.Void{}, err
	}
	h := &holding{world: world}
	if err := h.ofAgent(name); err != nil {
		return console.Void{}, err
	}
	body := console.Void{
		Question: "Suspend " + name + "?", Text: "Until an administrator resumes it on the server’s machine:", Command: "counterfoil agent resume " + name,
		Verb: "Suspend " + name, Stays: []string{ofRequests, "The record of what " + name + " did."},
	}
	always := []string{"tokens", "tasks", "approvals"}
	if offboard {
		if err := h.forGood(name); err != nil {
			return console.Void{}, err
		}
		body.Question, body.Text, body.Command, body.Verb = "Offboard "+name+"?", "This is for good. The name and its keys never come back.", "", "Offboard "+name
		always = append(always, "instances", "keys", "grants")
	} else {
		body.Stays = append(body.Stays, "Its keys and its grants, of which it has no use until then.")
	}
	voids := h.voided()
	voids.Agents = nil // it is the agent itself
	body.Losses = append(p.losses(world.ctx, &voids, world.more, always...), console.Loss{What: "Enrolment codes that were not used"})
	if offboard {
		body.Losses = append(body.Losses, console.Loss{What: "The name " + name + ", which nobody can have again"})
	}
	return body, nil
}

func (p *pages) voidForm(v visit, offboard bool) (string, error) {
	ctx, name, reason := v.r.Context(), v.path("name"), v.form.Get("reason")
	if !offboard {
		if _, err := p.Authority.Suspend(ctx, name, reason, v.s.person.Name); err != nil {
			return "", err
		}
		return p.toReceipt(v, ledger.AgentSuspended, name, "suspended")
	}
	if v.form.Get("name") != name {
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the name that was written to confirm is not %s", name)
	}
	if _, err := p.Authority.Offboard(ctx, name, reason, v.s.person.Name); err != nil {
		return "", err
	}
	return p.toReceipt(v, ledger.AgentOffboarded, name, "offboarded")
}

// toReceipt leads to the receipt of what was just done to an agent. It was done
// whether or not its entry is found.
func (p *pages) toReceipt(v visit, kind ledger.Kind, agent, done string) (string, error) {
	found, err := p.Entries.Find(v.r.Context(), ledger.Filter{Kind: kind, Agent: agent, Limit: 1})
	if err != nil || len(found) == 0 {
		return "/agents?done=" + done, nil //nolint:nilerr // the page of what was done is all that is missing
	}
	return fmt.Sprintf("/revocations/%d?done=%s", found[0].Index, done), nil
}

// revokePage is the page before anything is revoked: what that is, and what hangs on it.
func (p *pages) revokePage(v visit) (shown, error) {
	target := counterfoil.Target{Kind: counterfoil.TargetKind(v.query("kind")), ID: strings.TrimSpace(v.query("id"))}
	if !slices.Contains(counterfoil.TargetKinds(), target.Kind) || target.ID == "" {
		return shown{}, counterfoil.Refuse(counterfoil.RequestMalformed, "what is to be revoked is a %s, with its name or id", strings.Join(targetKinds, ", "))
	}
	world, err := p.standing(v)
	if err != nil {
		return shown{}, err
	}
	body := console.Void{Back: "/revocations", BackLabel: "Revocations", Stays: []string{ofRequests, "The record of what was done."}}
	var section string
	if target.Kind == counterfoil.TargetAgent {
		if body, err = p.voidOfAgent(v, target.ID, false); err != nil {
			return shown{}, err
		}
		body.Back, body.BackLabel, section = "/agents/"+target.ID, target.ID, "agents"
	} else if section, err = p.describe(&body, target, &holding{world: world}); err != nil {
		return shown{}, err
	}
	body.Action, body.Kind, body.ID = "/revoke", string(target.Kind), target.ID
	return shown{name: "void", title: strings.TrimSuffix(body.Question, "?"), section: section, body: body}, nil
}

func noTarget(t counterfoil.Target) error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no %s %.60q", t.Kind, t.ID)
}

// A prospect is what the revocation of a target means, and takes.
type prospect struct {
	question, verb string
	text, command  string   // what it means, and what brings it back
	agent          string   // whose page leads to it
	section        string   // of the console, where it is of no agent
	always         []string // of which it is said, too, that there is nothing
	and            string   // what it takes that has no name
}

// prospects are by the kind of target. Each gathers what hangs on it. Of an agent see
// voidOfAgent.
var prospects = map[counterfoil.TargetKind]func(*pages, string, *holding) (prospect, error){
	counterfoil.TargetToken: (*pages).ofToken, counterfoil.TargetKey: (*pages).ofKey, counterfoil.TargetInstance: (*pages).ofInstance,
	counterfoil.TargetTask: (*pages).ofTask, counterfoil.TargetPerson: (*pages).ofPerson, counterfoil.TargetResource: (*pages).ofResource,
	counterfoil.TargetOwner: (*pages).ofOwner,
}

// describe says what the revocation of a target means and takes, and in which section
// of the console that is.
func (p *pages) describe(body *console.Void, t counterfoil.Target, h *holding) (section string, err error) {
	look := prospects[t.Kind]
	if look == nil {
		return "", noTarget(t)
	}
	of, err := look(p, t.ID, h)
	if err != nil {
		return "", err
	}
	switch of.section {
	case "people":
		body.Back, body.BackLabel = "/people", "People"
	case "resources":
		body.Back, body.BackLabel = "/resources", "Resources"
	default:
		of.section, body.Back, body.BackLabel = "agents", "/agents/"+of.agent, of.agent
	}
	body.Question, body.Verb, body.Text, body.Command = of.question, of.verb, of.text, of.command
	voids := h.voided()
	body.Losses = p.losses(h.world.ctx, &voids, h.world.more, of.always...)
	if of.and != "" {
		body.Losses = append(body.Losses, console.Loss{What: of.and})
	}
	return of.section, nil
}

func (p *pages) ofToken(id string, h *holding) (prospect, error) {
	e, err := p.tokenEntry(h.world, id)
	if err != nil {
		return prospect{}, err
	}
	h.addTokens(func(e *ledger.Entry) bool { return e.TokenJTI == id })
	return prospect{
		question: "Revoke this token of " + e.Agent + "?", verb: "Revoke the token", agent: e.Agent,
		text: "Its agent can get another one: where the agent is not trusted any more, revoke more than this.",
	}, nil
}

func (p *pages) ofKey(id string, h *holding) (prospect, error) {
	inst, old, ok := p.keyOf(id)
	if !ok {
		return prospect{}, noTarget(counterfoil.Target{Kind: counterfoil.TargetKey, ID: id})
	}
	out := prospect{question: "Revoke this key of " + inst.Agent + "?", verb: "Revoke the key", agent: inst.Agent, always: []string{"tokens", "approvals"}}
	if old {
		out.text = "Nobody can ever use it again. It is the key before the present one, which stays."
		h.keys = []string{id}
		h.addTokens(func(e *ledger.Entry) bool { return e.JKT == id })
		return out, nil
	}
	out.text = "Nobody can ever use it again. It is an instance’s own: the instance ends with it."
	h.ofInstance(inst)
	return out, nil
}

func (p *pages) ofInstance(id string, h *holding) (prospect, error) {
	inst, ok := p.instanceOf(id)
	if !ok || inst.Status == counterfoil.Ended {
		return prospect{}, noTarget(counterfoil.Target{Kind: counterfoil.TargetInstance, ID: id})
	}
	h.ofInstance(inst)
	return prospect{
		question: "End this instance of " + inst.Agent + "?", verb: "End the instance", agent: inst.Agent, always: []string{"tokens", "approvals"},
		text: "This is for good: its key never comes back. " + inst.Agent + " goes on with its other instances, and with new ones.",
	}, nil
}

func (p *pages) ofTask(id string, h *holding) (prospect, error) {
	t, err := p.Authority.Task(h.world.ctx, id)
	if err != nil {
		return prospect{}, err
	}
	if t.State != counterfoil.TaskOpen {
		return prospect{}, conflict{counterfoil.Refuse(counterfoil.TaskClosed, "the task is %s already", t.State)}
	}
	h.ofTask(&t)
	return prospect{
		question: "End this task of " + t.Agent + "?", verb: "End the task", agent: t.Agent, always: []string{"tokens", "approvals"},
		text: "A task that ended never opens again. " + t.Agent + " may open another one.",
	}, nil
}

func (p *pages) ofPerson(name string, h *holding) (prospect, error) {
	if _, registry := p.Authority.Policy(); registry.People[name] == nil {
		return prospect{}, noTarget(counterfoil.Target{Kind: counterfoil.TargetPerson, ID: name})
	}
	return prospect{
		question: "Revoke " + name + "?", verb: "Revoke " + name, section: "people", always: []string{"agents", "approvals", "passkeys"},
		text:    "What they lose now stays lost. They may not log in, sign or enrol until an administrator lets them, on the server’s machine:",
		command: "counterfoil person resume " + name, and: "Every session of theirs, and enrolment codes that were not used",
	}, h.ofPerson(name)
}

func (p *pages) ofResource(name string, h *holding) (prospect, error) {
	if _, registry := p.Authority.Policy(); registry.Resources[name] == nil {
		return prospect{}, noTarget(counterfoil.Target{Kind: counterfoil.TargetResource, ID: name})
	}
	h.ofResource(name)
	return prospect{
		question: "Revoke the resource " + name + "?", verb: "Revoke " + name, section: "resources", always: []string{"tokens", "approvals"},
		text:    "It takes no call, and nobody gets a token for it, until an administrator lets it, on the server’s machine:",
		command: "counterfoil resource resume " + name,
	}, nil
}

func (p *pages) ofOwner(name string, h *holding) (prospect, error) {
	if err := h.ofOwner(name); err != nil {
		return prospect{}, err
	}
	if len(h.agents) == 0 {
		return prospect{}, counterfoil.Refuse(counterfoil.ToolUnknown, "%.60q owns no agent that is not suspended", name)
	}
	return prospect{
		question: "Suspend every agent of " + name + "?", verb: "Suspend them all", section: "people", always: []string{"tokens", "tasks", "approvals"},
		text: "Each stays suspended until an administrator resumes it. The person may do what they could.",
	}, nil
}

// tokenEntry is the entry that issued a token that could be used now.
func (p *pages) tokenEntry(world *standing, id string) (*ledger.Entry, error) {
	for _, e := range world.tokens {
		if e.TokenJTI == id {
			return e, nil
		}
	}
	return nil, counterfoil.Refuse(counterfoil.ToolUnknown, "no token %.60q could be used now: it is expired, revoked or unknown", id)
}

func (p *pages) revokeForm(v visit) (string, error) {
	r := counterfoil.Revocation{
		Target: counterfoil.Target{Kind: counterfoil.TargetKind(v.form.Get("kind")), ID: v.form.Get("id")}, Reason: v.form.Get("reason"),
	}
	done, err := p.Authority.Revoke(v.r.Context(), r, v.s.person.Name)
	switch {
	case err != nil:
		return "", err
	case done.Index < 0:
		return "/revocations?done=already", nil
	}
	return fmt.Sprintf("/revocations/%d?done=revoked", done.Index), nil
}

// revocationWord says what an entry did.
func revocationWord(entry ledger.Kind, t counterfoil.Target) string {
	switch entry {
	case ledger.AgentOffboarded:
		return "Agent offboarded"
	case ledger.CloneSuspected:
		return "Instance quarantined"
	case ledger.KeyRotated:
		return "Key replaced"
	default:
	}
	return map[counterfoil.TargetKind]string{
		counterfoil.TargetToken: "Token revoked", counterfoil.TargetKey: "Key revoked", counterfoil.TargetInstance: "Instance ended",
		counterfoil.TargetTask: "Task ended", counterfoil.TargetPerson: "Person revoked", counterfoil.TargetResource: "Resource revoked",
		counterfoil.TargetOwner: "Agents of an owner suspended", counterfoil.TargetAgent: "Agent suspended",
	}[t.Kind]
}

// targetURL is the page of a target that has one.
func (p *pages) targetURL(t counterfoil.Target) string {
	_, registry := p.Authority.Policy()
	switch {
	case t.Kind == counterfoil.TargetAgent && registry.Agents[t.ID] != nil:
		return "/agents/" + url.PathEscape(t.ID)
	case t.Kind == counterfoil.TargetPerson || t.Kind == counterfoil.TargetOwner:
		return "/people"
	case t.Kind == counterfoil.TargetResource:
		return "/resources"
	}
	return ""
}

// How many revocations the page has, and how many with all of them.
const (
	mostRevocations = 50
	allRevocations  = 500
)

func (p *pages) revocationsPage(v visit) (shown, error) {
	most := mostRevocations
	if v.query("all") != "" {
		most = allRevocations
	}
	found, err := evidence.Revocations(v.r.Context(), p.Entries, most+1)
	if err != nil {
		return shown{}, err
	}
	var body console.Revocations
	if len(found) > most {
		found = found[:most]
		body.Older = "/ledger?kind=revoked"
		if most == mostRevocations {
			body.Older = "/revocations?all=1"
		}
	}
	for _, r := range found {
		body.All = append(body.All, console.RevocationRow{
			Index: r.Index, At: r.At, What: revocationWord(r.Entry, r.Target), Kind: string(r.Target.Kind), ID: r.Target.ID, URL: p.targetURL(r.Target),
			Who: r.Actor, Reason: text(r.Reason), Took: summary(&r.Voided),
		})
	}
	for _, k := range counterfoil.TargetKinds() {
		label := map[counterfoil.TargetKind]string{counterfoil.TargetOwner: "every agent of an owner", counterfoil.TargetKey: "key, by its thumbprint"}[k]
		if label == "" {
			label = string(k)
		}
		body.Kinds = append(body.Kinds, console.Choice{Label: label, URL: string(k)})
	}
	return shown{name: "revocations", title: "Revocations", section: "revocations", body: body}, nil
}

func (p *pages) revocationPage(v visit) (shown, error) {
	ctx := v.r.Context()
	index, err := p.indexOf(v)
	if err != nil {
		return shown{}, err
	}
	r, err := evidence.ReceiptOf(ctx, p.Entries, index)
	if err != nil {
		return shown{}, err
	}
	body := console.Revocation{
		Index: index, What: revocationWord(r.Entry, r.Target), Kind: string(r.Target.Kind), ID: r.Target.ID, URL: p.targetURL(r.Target),
		At: r.At, Who: r.Actor, Reason: text(r.Reason), Losses: p.losses(ctx, &r.Voided, false),
	}
	if r.Target.Kind == counterfoil.TargetResource {
		body.Losses = append(body.Losses, console.Loss{What: "Every token for it that was issued until then"})
	}
	for _, point := range r.Points {
		out := console.Point{Name: point.Name, Kind: point.Kind, What: pointWords[point.Kind], At: point.Stopped, Streams: point.Streams}
		if !point.Stopped.IsZero() {
			out.After, out.Entry = latency(time.Duration(point.LatencyUS)*time.Microsecond), point.Seq
		}
		body.Points = append(body.Points, out)
	}
	return shown{name: "revocation", title: body.What, section: "revocations", body: body}, nil
}

// pointWords say what an enforcement point is, by its kind.
var pointWords = map[string]string{
	evidence.PointGateway: "the gateway of this server", evidence.PointServer: "a resource server that follows the feed",
	evidence.PointSignals: "a receiver of shared signals",
}

// latency writes a duration with as many digits as mean something.
func latency(d time.Duration) string {
	switch {
	case d < 0:
		return "0 µs"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Truncate(time.Second).String()
}

func (p *pages) resourcesPage(visit) (shown, error) {
	_, registry := p.Authority.Policy()
	var body console.Resources
	nouns, err := p.Authority.List(counterfoil.KindResource)
	if err != nil {
		return shown{}, err
	}
	for _, noun := range nouns {
		r, ok := noun.(*counterfoil.Resource)
		if !ok {
			return shown{}, fmt.Errorf("a list of resources holds a %T", noun)
		}
		row := console.ResourceRow{Name: r.Name, Type: r.Type, Environment: r.Environment, Place: r.Upstream}
		for _, t := range r.Tools {
			if t.Class != "" {
				row.Tools++
			}
		}
		if r.Upstream == "" {
			row.Place = r.PublicURL
		}
		status, before := p.Approvals.ResourceStatus(r.Name)
		row.Status, row.Before = string(status), before
		for _, a := range p.Authority.Agents() {
			if grantsAt(registry.Agents[a.Agent.Name], r.Name) {
				row.Agents = append(row.Agents, a.Agent.Name)
			}
		}
		body.All = append(body.All, row)
	}
	return shown{name: "resources", title: "Resources", section: "resources", body: body}, nil
}

// grantsAt reports whether an agent is granted anything at a resource.
func grantsAt(a *counterfoil.Agent, resource string) bool {
	return a != nil && slices.ContainsFunc(a.Grants, func(g counterfoil.Grant) bool {
		return slices.ContainsFunc(g.Tools, func(t counterfoil.ToolID) bool { return t.Resource == resource })
	})
}
