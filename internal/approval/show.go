package approval

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// sees reports whether a viewer may see an approval: administrators and auditors all,
// others those that their groups decide, that they signed, or that are to release a
// passkey of theirs. The empty viewer is the
// administration socket, whose holder has the machine, sees all and signs nothing.
func sees(reg crowd, a *counterfoil.Approval, viewer string) bool {
	if viewer == "" {
		return true
	}
	p := reg.People[viewer]
	if p == nil || reg.suspended(p) {
		return false
	}
	if slices.Contains(p.Roles, counterfoil.RoleAdmin) || slices.Contains(p.Roles, counterfoil.RoleAuditor) {
		return true
	}
	for _, any := range a.Rule.Groups {
		if meet(any, p.Groups) {
			return true
		}
	}
	return mayObject(reg, a, viewer) || slices.ContainsFunc(a.Signatures, func(s counterfoil.Signature) bool { return s.Person == viewer })
}

// Inbox returns the approvals that a person may sign now, or object to as a passkey is
// in the person's name; the one that expires first is at the top.
func (e *Engine) Inbox(ctx context.Context, person string) ([]View, error) {
	list, err := e.pending(ctx)
	if err != nil {
		return nil, err
	}
	reg, _ := e.crowd()
	var out []View
	for i := range list {
		if _, err := maySign(reg, &list[i], person, counterfoil.DecisionApprove); err == nil || mayObject(reg, &list[i], person) {
			out = append(out, e.view(reg, &list[i], person))
		}
	}
	slices.SortStableFunc(out, func(a, b View) int { return a.Expires.Compare(b.Expires) })
	return out, nil
}

// pending returns what waits for people at this moment.
func (e *Engine) pending(ctx context.Context) ([]counterfoil.Approval, error) {
	list, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{States: []counterfoil.ApprovalState{counterfoil.StatePending}, Brief: true, Limit: 10_000})
	if err != nil {
		return nil, err
	}
	now := e.now()
	return slices.DeleteFunc(list, func(a counterfoil.Approval) bool { return stateAt(&a, now) != counterfoil.StatePending }), nil
}

// listed is how many approvals a list has where nobody says how many.
const listed = 100

// List returns the approvals that a viewer may see, newest first, without their calls.
func (e *Engine) List(ctx context.Context, viewer string, f counterfoil.ApprovalFilter) ([]View, error) {
	most := f.Limit
	if most <= 0 {
		most = listed
	}
	// What the viewer may not see does not count among those that are asked for.
	f.Brief, f.Limit = true, max(most, 10_000)
	list, err := e.store.Approvals(ctx, f)
	if err != nil {
		return nil, err
	}
	reg, _ := e.crowd()
	now := e.now()
	out := []View{}
	for i := range list {
		a := &list[i]
		if len(out) == most {
			break
		}
		if !sees(reg, a, viewer) {
			continue
		}
		if len(f.States) > 0 && !slices.Contains(f.States, stateAt(a, now)) {
			continue // it is past its time, and nobody wrote that down yet
		}
		out = append(out, e.view(reg, a, viewer))
	}
	return out, nil
}

// View returns an approval with everything that is shown of it. For who may not see it
// there is none.
func (e *Engine) View(ctx context.Context, viewer, id string) (View, error) {
	a, ok, err := e.store.Approval(ctx, id)
	if err != nil {
		return View{}, err
	}
	reg, _ := e.crowd()
	if !ok || !sees(reg, &a, viewer) {
		return View{}, noApproval()
	}
	v := e.view(reg, &a, viewer)
	if len(a.Call) == 0 || len(a.Rendering) == 0 {
		return v, nil // erased
	}
	if v.Rendering, err = parseRendering(a.Rendering); err != nil {
		return View{}, err
	}
	if v.Tree, err = Tree(a.Call); err != nil {
		return View{}, err
	}
	v.Statement, v.Call = jsontext.Value(a.Statement), jsontext.Value(a.Call)
	for _, name := range slices.Sorted(maps.Keys(v.Rendering.Fields)) {
		v.Fields = append(v.Fields, Field{Name: name, Value: Visible(v.Rendering.Fields[name])})
	}
	v.Words, v.Earlier = Visible(v.Rendering.Words), v.Rendering.Earlier
	if a.Kind == counterfoil.ApprovalOfCall {
		if v.Limits, err = e.limits(ctx, reg.Classes[a.Class], &a); err != nil {
			return View{}, err
		}
		if v.Similar, err = e.similar(ctx, reg, &a, viewer); err != nil {
			return View{}, err
		}
	}
	if v.MaySign {
		e.looks.open(viewer, id, e.now())
	}
	return v, nil
}

// view makes what lists show of an approval.
func (e *Engine) view(reg crowd, a *counterfoil.Approval, viewer string) View {
	state := stateAt(a, e.now())
	v := View{
		ID: a.ID, State: state, Kind: a.Kind, Agent: a.Caller.Agent, Instance: a.Caller.Instance, Owner: a.Owner, Task: a.Caller.Task, Openers: a.Openers, Asked: a.Requester,
		Tool: a.Tool.String(), Class: a.Class, Tier: a.Rule.Tier.String(), Held: a.Held, Digest: a.Digest, Rule: a.Rule,
		Created: a.Created, Expires: a.Expires, UseUntil: a.UseUntil, Closed: a.Closed, Reason: a.Reason, Entry: a.Decided,
		Sentence: []Segment{{Text: a.Tool.String()}}, Signatures: []SignatureView{}, Earlier: a.Earlier,
	}
	if r, err := parseRendering(a.Rendering); err == nil {
		v.TaskPurpose = Visible(r.TaskPurpose)
		v.NoTemplate = r.Template == "" && a.Kind == counterfoil.ApprovalOfCall
		switch {
		case r.Template != "":
			v.Sentence = sentence(r.Template, r.Fields)
		case r.Sentence != "":
			v.Sentence = Visible(r.Sentence)
		}
	}
	for i := range a.Signatures {
		s := &a.Signatures[i]
		by := reg.People[s.Person]
		v.Signatures = append(v.Signatures, SignatureView{
			Person: s.Person, Decision: s.Decision, Reason: s.Reason, Groups: s.Groups, At: s.At, Digest: s.Digest,
			Passkey: encode(s.Passkey), Owner: by != nil && owns(reg.Registry, a, by),
		})
	}
	if state == counterfoil.StatePending || state == counterfoil.StateExpired && a.UseUntil.IsZero() {
		v.Needed = needed(&a.Rule, signedGroups(a))
	}
	if state != counterfoil.StatePending {
		v.WhyNot = sentenceOf(a, state)
		return v
	}
	v.Missing = missing(&a.Rule, signedGroups(a))
	v.Candidates = e.candidates(reg, a)
	switch _, err := maySign(reg, a, viewer, counterfoil.DecisionApprove); {
	case viewer == "":
		v.WhyNot = "people sign with their passkeys"
	case err != nil:
		v.WhyNot = plainError(err)
	default:
		v.MaySign = true
		v.OwnAgent = owns(reg.Registry, a, reg.People[viewer])
	}
	if _, err := maySign(reg, a, viewer, counterfoil.DecisionDeny); viewer != "" && err == nil {
		v.MayDeny = true // who said yes may still say no
	}
	return v
}

// candidates returns who may sign an approval now.
func (e *Engine) candidates(reg crowd, a *counterfoil.Approval) []string {
	var out []string
	for name := range reg.People {
		if _, err := maySign(reg, a, name, counterfoil.DecisionApprove); err == nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// limits returns what a call takes from the limits of its class, and what is taken
// already.
func (e *Engine) limits(ctx context.Context, class *counterfoil.Class, a *counterfoil.Approval) ([]LimitView, error) {
	if class == nil {
		return nil, nil
	}
	var out []LimitView
	for _, l := range class.Limits {
		used, err := e.store.Taken(ctx, counterfoil.Taking{Class: class.Name, Field: l.Sum, Agent: payer(&a.Caller, a.For), Window: time.Duration(l.Window)})
		if err != nil {
			return nil, err
		}
		out = append(out, LimitView{
			Field: l.Sum, Window: l.Window.String(), Used: decimal(used), Amount: plain(Visible(cut(a.Fields[l.Sum], 64))), Max: l.Max,
		})
	}
	return out, nil
}

// similar finds the latest approved call of the same agent and tool before this one,
// and what is different now: to whoever may see that one. Another class may have had
// other people.
func (e *Engine) similar(ctx context.Context, reg crowd, a *counterfoil.Approval, viewer string) (*Similar, error) {
	list, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{
		Kind: counterfoil.ApprovalOfCall, Agent: a.Caller.Agent, Brief: true,
		States: []counterfoil.ApprovalState{
			counterfoil.StateApproved, counterfoil.StateSpent, counterfoil.StateSucceeded, counterfoil.StateFailed, counterfoil.StateIndeterminate,
		},
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		b := &list[i]
		if b.ID == a.ID || b.Tool != a.Tool || b.Created.After(a.Created) {
			continue
		}
		whole, _, err := e.store.Approval(ctx, b.ID)
		if err != nil {
			return nil, err
		}
		s := &Similar{ID: b.ID, State: stateAt(b, e.now()), Created: b.Created, Erased: len(whole.Call) == 0 || !sees(reg, b, viewer)}
		if !s.Erased {
			if s.Differences, s.More, err = differences(whole.Call, a.Call); err != nil {
				return nil, err
			}
		}
		return s, nil
	}
	return nil, nil
}

// acts returns a refusal unless the person has the role of an administrator.
func (e *Engine) acts(person string) error {
	reg, _ := e.crowd()
	if p := reg.People[person]; p == nil || reg.suspended(p) || !slices.Contains(p.Roles, counterfoil.RoleAdmin) {
		return counterfoil.Refuse(counterfoil.RoleRequired, "an administrator does that")
	}
	return nil
}

// CancelBy takes an approval back for an administrator.
func (e *Engine) CancelBy(ctx context.Context, id, person, reason string) error {
	if err := e.acts(person); err != nil {
		return err
	}
	a, ok, err := e.store.Approval(ctx, id)
	if err != nil {
		return err
	}
	if !ok {
		return noApproval()
	}
	if s := stateAt(&a, e.now()); !s.Open() {
		return counterfoil.Refuse(codeOf(s), "%s", sentenceOf(&a, s))
	}
	return e.close(ctx, &a, counterfoil.StateCancelled, person, cut(strings.ToValidUTF8(reason, "�"), 4*maxReason))
}

// Reconcile says how a call ended of which nobody could say: the call itself is never
// run again.
func (e *Engine) Reconcile(ctx context.Context, id, person string, happened bool, reason string) error {
	if err := e.acts(person); err != nil {
		return err
	}
	a, ok, err := e.store.Approval(ctx, id)
	if err != nil {
		return err
	}
	if !ok {
		return noApproval()
	}
	to := counterfoil.StateFailed
	if happened {
		to = counterfoil.StateSucceeded
	}
	if a.State != counterfoil.StateIndeterminate {
		return counterfoil.Refuse(codeOf(stateAt(&a, e.now())), "how approval %s ended is known: it is %s", a.ID, a.State)
	}
	entry := e.entryOf(ledger.ApprovalClosed, &a, to)
	entry.Actor, entry.Reason = person, cut(strings.ToValidUTF8(reason, "�"), 4*maxReason)
	entry.Detail = map[string]any{"reconciled": true, "entry": strconv.FormatInt(a.Decided, 10)}
	return e.store.CloseApproval(context.WithoutCancel(ctx), id, []counterfoil.ApprovalState{counterfoil.StateIndeterminate}, to, entry.Reason, entry)
}

// People returns everybody who is declared, with passkeys, load and latest decisions.
func (e *Engine) People(ctx context.Context) ([]PersonView, error) {
	reg, _ := e.crowd()
	out := []PersonView{}
	waiting, err := e.pending(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		p, err := e.personView(ctx, reg, name, waiting)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (e *Engine) person(ctx context.Context, name string) (PersonView, error) {
	waiting, err := e.pending(ctx)
	if err != nil {
		return PersonView{}, err
	}
	reg, _ := e.crowd()
	return e.personView(ctx, reg, name, waiting)
}

// personView returns a person, of whom some of the approvals wait.
func (e *Engine) personView(ctx context.Context, reg crowd, name string, waiting []counterfoil.Approval) (PersonView, error) {
	p := reg.People[name]
	if p == nil {
		return PersonView{}, errors.New("a person who is not declared")
	}
	v := PersonView{Name: name, Status: reg.statusOf(p), Email: p.Email, Groups: p.Groups, Roles: p.Roles, Passkeys: []PasskeyView{}, Seconds: e.looks.median(name)}
	keys, err := e.store.PasskeysOf(ctx, name)
	if err != nil {
		return PersonView{}, err
	}
	for i := range keys {
		k := &keys[i]
		v.Passkeys = append(v.Passkeys, PasskeyView{
			ID: encode(k.ID), How: k.How, Status: k.Status, AAGUID: k.AAGUID, Attested: k.Attested, BackedUp: k.BackedUp,
			Enrolled: k.Enrolled, UsableFrom: k.UsableFrom, Used: k.Used,
		})
	}
	for i := range waiting {
		if _, err := maySign(reg, &waiting[i], name, counterfoil.DecisionApprove); err == nil {
			v.Load++
		}
	}
	signed, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{Signer: name, Brief: true})
	if err != nil {
		return PersonView{}, err
	}
	for i := range signed {
		for j := range signed[i].Signatures {
			switch s := &signed[i].Signatures[j]; {
			case s.Person != name:
			case s.Decision == counterfoil.DecisionApprove:
				v.Approved++
			default:
				v.Denied++
			}
		}
	}
	return v, nil
}

// notify tells people outside. What an approval of a call says goes with it in the
// operator's sentence alone, and what the task is for in the words of whoever opened
// it, with what hides made visible.
func (e *Engine) notify(ctx context.Context, event string, a *counterfoil.Approval) {
	n := Notice{
		Event: event, Approval: a.ID, State: string(a.State), Agent: a.Caller.Agent, Task: a.Caller.Task, Tool: a.Tool.String(), Class: a.Class, Tier: a.Rule.Tier.String(),
		Digest: a.Digest, Expires: a.Expires, URL: strings.TrimSuffix(e.cfg.Origin, "/") + "/approvals/" + a.ID,
	}
	if r, err := parseRendering(a.Rendering); err == nil {
		n.Sentence, n.Purpose = plain(Visible(r.Sentence)), plain(Visible(cut(r.TaskPurpose, maxShown)))
	}
	if a.State == counterfoil.StatePending {
		reg, _ := e.crowd()
		n.People = e.candidates(reg, a)
		if holder := holderOf(a); holder != "" && reg.People[holder] != nil && !slices.Contains(n.People, holder) {
			n.People = append(n.People, holder)
		}
	}
	e.cfg.Notify(ctx, n)
}

// ResourceStatus says whether a resource is in force, and which of its tokens are void
// for ever: those that were issued then or earlier.
func (e *Engine) ResourceStatus(name string) (status counterfoil.Status, before time.Time) {
	return e.store.ResourceStatus(name)
}
