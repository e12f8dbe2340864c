package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

func (p *pages) inbox(v visit) (shown, error) {
	views, err := p.Approvals.Inbox(v.r.Context(), v.s.person.Name)
	if err != nil {
		return shown{}, err
	}
	body := console.Inbox{Nobody: true}
	for i := range views {
		body.Waiting = append(body.Waiting, ask(&views[i], v.s.person.Name))
	}
	_, registry := p.Authority.Policy()
	for _, c := range registry.Classes {
		body.Nobody = body.Nobody && c.Tier != counterfoil.Guarded && c.Tier != counterfoil.Irreversible
	}
	return shown{name: "inbox", title: "Inbox", section: "inbox", body: body}, nil
}

// ask is an approval in a list.
func ask(v *approval.View, viewer string) console.Ask {
	a := console.Ask{
		ID: v.ID, Sentence: spans(v.Sentence), Agent: v.Agent, Tool: v.Tool, Class: v.Class, Tier: v.Tier, State: string(v.State),
		Change: v.Kind == counterfoil.ApprovalOfChange, Signed: len(v.Signatures), Required: len(v.Signatures) + v.Missing,
		Created: v.Created, Expires: v.Expires, Closed: v.Closed,
	}
	if v.State == counterfoil.StateApproved {
		a.Expires = v.UseUntil
	}
	for _, s := range v.Signatures {
		if s.Person == viewer {
			a.Mine = decisionWord(s.Decision)
		}
	}
	return a
}

func decisionWord(decision string) string {
	if decision == counterfoil.DecisionApprove {
		return "approved"
	}
	return "refused"
}

// decidedStates are the choices of the list of what was decided.
var decidedStates = []struct {
	label, query string
	states       []counterfoil.ApprovalState
}{
	{"All", "", []counterfoil.ApprovalState{
		counterfoil.StateApproved, counterfoil.StateSpent, counterfoil.StateSucceeded, counterfoil.StateFailed, counterfoil.StateIndeterminate,
		counterfoil.StateDenied, counterfoil.StateExpired, counterfoil.StateCancelled, counterfoil.StateSuperseded, counterfoil.StateRevoked,
	}},
	{"Done", "done", []counterfoil.ApprovalState{counterfoil.StateSucceeded, counterfoil.StateFailed, counterfoil.StateSpent}},
	{"Refused", "refused", []counterfoil.ApprovalState{counterfoil.StateDenied}},
	{"Outcome unknown", "unknown", []counterfoil.ApprovalState{counterfoil.StateIndeterminate}},
	{"Waiting for others", "waiting", []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}},
	{"Never ran", "never", []counterfoil.ApprovalState{
		counterfoil.StateExpired, counterfoil.StateCancelled, counterfoil.StateSuperseded, counterfoil.StateRevoked,
	}},
}

func (p *pages) decided(v visit) (shown, error) {
	chosen := decidedStates[0]
	for _, d := range decidedStates {
		if d.query == v.query("which") {
			chosen = d
		}
	}
	views, err := p.Approvals.List(v.r.Context(), v.s.person.Name, counterfoil.ApprovalFilter{States: chosen.states})
	if err != nil {
		return shown{}, err
	}
	var body console.Decided
	for _, d := range decidedStates {
		url := "/decided"
		if d.query != "" {
			url += "?which=" + d.query
		}
		body.States = append(body.States, console.Choice{Label: d.label, URL: url, Current: d.query == chosen.query})
	}
	for i := range views {
		body.All = append(body.All, ask(&views[i], v.s.person.Name))
	}
	return shown{name: "decided", title: "Decided", section: "decided", body: body}, nil
}

func (p *pages) approvalPage(v visit) (shown, error) {
	view, err := p.Approvals.View(v.r.Context(), v.s.person.Name, v.path("id"))
	if err != nil {
		return shown{}, err
	}
	a, err := p.approval(v.r.Context(), &view, v.s)
	if err != nil {
		return shown{}, err
	}
	if !view.State.Open() || view.State == counterfoil.StateApproved {
		if a.Entries, err = p.entriesOf(v.r.Context(), &view); err != nil {
			return shown{}, err
		}
		a.Proof = "/approvals/" + view.ID + "/proof"
	}
	section := "decided"
	if view.State == counterfoil.StatePending {
		section = "inbox"
	}
	return shown{name: "approval", title: console.Flat(a.Sentence), section: section, body: a}, nil
}

// approval fills in the page of an approval.
func (p *pages) approval(ctx context.Context, view *approval.View, s session) (console.Approval, error) {
	a := console.Approval{
		ID: view.ID, State: string(view.State), Change: view.Kind == counterfoil.ApprovalOfChange, Tier: view.Tier,
		Sentence: spans(view.Sentence), Template: !view.NoTemplate, Agent: view.Agent, Owner: view.Owner, Task: view.Task, Seen: s.isReader(),
		Class: view.Class, Rule: ruleWords(view.Rule), Tool: view.Tool, Repeats: view.Earlier,
		Created: view.Created, Expires: view.Expires, UseUntil: view.UseUntil, Closed: view.Closed,
		Empty: emptySeats(view.Needed), Eligible: view.Candidates, Words: spans(view.Words), Digest: view.Digest,
		MaySign: view.MaySign, MayDeny: view.MayDeny, OwnAgent: view.OwnAgent, WhyNot: view.WhyNot, Outcome: outcome(view), Reason: text(view.Reason),
		Erased: view.Call == nil,
	}
	if a.Change {
		a.Agent = view.Asked
	}
	if r := view.Rendering; r != nil {
		a.Irrevocable, a.OnBehalf, a.Does = r.Irrevocable, r.OnBehalfOf, text(r.Purpose)
		a.Asserted = r.Asserted
		a.TaskFor, a.OpenedBy = text(r.TaskPurpose), r.TaskOpener
		a.Resource, a.Environment = r.Resource, r.Environment
	}
	p.fillCall(&a, view)
	for _, l := range view.Limits {
		a.Limits = append(a.Limits, limitUse(l))
	}
	a.Earlier = earlier(view.Similar)
	for _, sig := range view.Signatures {
		kind, err := p.signedWith(ctx, sig.Passkey)
		if err != nil {
			return console.Approval{}, err
		}
		a.Signatures = append(a.Signatures, console.Signature{
			Person: sig.Person, Decision: sig.Decision, Reason: text(sig.Reason), Groups: sig.Groups, At: sig.At,
			Passkey: kind, Owner: sig.Owner, Mine: sig.Person == s.person.Name,
		})
		if sig.Person == s.person.Name {
			a.Mine = &a.Signatures[len(a.Signatures)-1]
		}
	}
	if a.Mine != nil {
		a.WhyNot = "" // the page says so already
	}
	if view.State == counterfoil.StateDenied && len(view.Signatures) > 0 {
		a.Reason = nil // it stands with the signature
	}
	a.MayCancel = s.isAdmin() && view.State.Open()
	a.Reconcile = s.isAdmin() && view.State == counterfoil.StateIndeterminate
	a.NeedsAdmin = !s.isAdmin() && view.State == counterfoil.StateIndeterminate
	return a, nil
}

// signedWith says what kind of passkey a signature was made with.
func (p *pages) signedWith(ctx context.Context, id string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		return "", fmt.Errorf("reading a credential's id: %w", err)
	}
	k, ok, err := p.Passkeys.PasskeyByID(ctx, b)
	if err != nil || !ok {
		return "", err
	}
	return passkeyKind(approval.PasskeyView{AAGUID: k.AAGUID, Attested: k.Attested}), nil
}

// fillCall fills in what runs, and where.
func (p *pages) fillCall(a *console.Approval, view *approval.View) {
	if view.Tree == nil {
		return
	}
	tree := rows{fields: map[string]string{}}
	if resource, tool, ok := strings.Cut(view.Tool, "/"); ok && !a.Change {
		_, registry := p.Authority.Policy()
		if r := registry.Resources[resource]; r != nil {
			t, _ := r.Tool(tool)
			for name, pointer := range t.Fields {
				tree.fields["/arguments"+pointer] = name
			}
		}
	}
	tree.within(view.Tree, 0, "")
	a.Payload, a.Bytes, a.CallDigest = tree.out, len(view.Call), counterfoil.CallDigest(view.Call)
	a.Hidden, a.MoreHidden = tree.hidden[:min(len(tree.hidden), mostHidden)], max(len(tree.hidden)-mostHidden, 0)
	if len(a.Hidden) > 0 {
		a.Whole = "/approvals/" + view.ID + "/call"
		for _, f := range view.Fields {
			a.Fields = append(a.Fields, console.Field{Name: f.Name, Value: spans(f.Value)})
		}
	}
	members, err := ijson.Members(view.Call)
	if err != nil {
		return // the tree was made of it; there is nothing more to say
	}
	a.Audience = ledger.Text(members["aud"])
	if r := view.Rendering; r != nil {
		a.Upstream = r.Upstream
	}
	if ledger.Text(members["protocol"]) == counterfoil.ResourceHTTP {
		a.Target = text(ledger.Text(members["method"]) + " " + ledger.Text(members["target"]))
	}
}

func earlier(s *approval.Similar) *console.Earlier {
	if s == nil {
		return nil
	}
	e := &console.Earlier{ID: s.ID, At: s.Created, Outcome: console.StateWord(string(s.State)), Erased: s.Erased, More: s.More}
	for _, d := range s.Differences {
		e.Differences = append(e.Differences, console.Difference{Name: text(d.Path), Before: spans(d.Before), After: spans(d.After)})
	}
	return e
}

// ruleWords says whose signatures a rule needs.
func ruleWords(r counterfoil.ApprovalRule) string {
	n := "One person has to sign"
	if r.Required == 2 {
		n = "Two people have to sign"
	} else if r.Required > 2 {
		n = fmt.Sprintf("%d people have to sign", r.Required)
	}
	switch len(r.Groups) {
	case 0:
		return n + "."
	case 1:
		return n + ", of " + strings.Join(r.Groups[0], " or ") + "."
	}
	var each []string
	for _, any := range r.Groups {
		each = append(each, "one of "+strings.Join(any, " or "))
	}
	return n + ": " + strings.Join(each[:len(each)-1], ", ") + " and " + each[len(each)-1] + "."
}

// emptySeats names the signatures that an approval needs, by the groups that each can
// be of.
func emptySeats(needed [][]string) []string {
	var out []string
	for _, groups := range needed {
		out = append(out, "one of "+strings.Join(groups, " or "))
	}
	return out
}

// outcome says what came of an approval.
func outcome(v *approval.View) string {
	people := fmt.Sprintf("%d people signed", len(v.Signatures))
	if len(v.Signatures) == 1 {
		people = v.Signatures[0].Person + " signed"
	}
	change := v.Kind == counterfoil.ApprovalOfChange
	switch v.State {
	case counterfoil.StateApproved:
		if change {
			return people + ". The change takes effect now."
		}
		return people + ". The agent may make this one call, once, before its time is over."
	case counterfoil.StateSpent:
		return people + ", and the call was let go. How it ended is not known yet."
	case counterfoil.StateSucceeded:
		if change {
			return people + ", and the change took effect."
		}
		return people + ", the call ran once, and the upstream said that it did it."
	case counterfoil.StateFailed:
		return people + ". The call was let go and did not do it: the upstream said no, or was not reached. It does not run again."
	case counterfoil.StateIndeterminate:
		return people + ", and the call was forwarded, but no answer came. Nobody knows from here whether it took effect. It does not run again."
	case counterfoil.StateDenied:
		if n := len(v.Signatures); n > 0 {
			return v.Signatures[n-1].Person + " refused it. Nothing ran."
		}
		return "It was refused. Nothing ran."
	case counterfoil.StateExpired:
		if !v.UseUntil.IsZero() {
			return "It was approved and not used in time. Nothing ran."
		}
		return "Its time was over before everybody who is needed had signed. Nothing ran."
	case counterfoil.StateCancelled:
		return "It was taken back. Nothing ran."
	case counterfoil.StateSuperseded:
		return "The class, its rule or the tool changed after it was asked for. Nothing ran; the agent may ask again."
	case counterfoil.StateRevoked:
		return "The agent, its task, the resource or somebody who signed was revoked. Nothing ran."
	}
	return ""
}

// entriesOf are the entries of an approval, oldest first.
func (p *pages) entriesOf(ctx context.Context, v *approval.View) ([]console.EntryLink, error) {
	entries, err := p.find(ctx, ledger.Filter{Approval: v.ID, Since: v.Created.Add(-maxBefore), Limit: maxLinks}, false)
	if err != nil {
		return nil, err
	}
	slices.Reverse(entries)
	var out []console.EntryLink
	for _, e := range entries {
		l := lineOf(e)
		what := l.What
		if l.Person != "" {
			what = l.Person + ": " + strings.ToLower(what[:1]) + what[1:]
		}
		out = append(out, console.EntryLink{Index: e.Index, What: what, At: l.At})
	}
	return out, nil
}

// live says what has become of what a page shows, without putting off the end of the
// session.
func (p *pages) live(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	if err := p.sameOrigin(r); err != nil {
		return err
	}
	s, err := p.glance(r)
	if err != nil {
		return err
	}
	type news struct {
		Waiting []string `json:"waiting,omitzero"`
		State   string   `json:"state,omitzero"`
	}
	if id := r.URL.Query().Get("approval"); id != "" {
		view, err := p.Approvals.View(r.Context(), s.person.Name, id)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, "application/json", news{State: fmt.Sprintf("%s/%d", view.State, len(view.Signatures))})
		return nil
	}
	views, err := p.Approvals.Inbox(r.Context(), s.person.Name)
	if err != nil {
		return err
	}
	n := news{Waiting: []string{}}
	for i := range views {
		n.Waiting = append(n.Waiting, views[i].ID)
	}
	writeJSON(w, http.StatusOK, "application/json", n)
	return nil
}

// proof is what the page offers to check without this server: see approval.Proof.
func (p *pages) proof(v visit) (string, []byte, error) {
	ctx := v.r.Context()
	view, err := p.Approvals.View(ctx, v.s.person.Name, v.path("id"))
	if err != nil {
		return "", nil, err
	}
	indices, err := approval.ProofEntries(ctx, p.Entries, &view)
	if err != nil {
		return "", nil, err
	}
	receipts := []ledger.Receipt{}
	for _, i := range indices {
		r, err := p.Entries.Receipt(ctx, i)
		if err != nil {
			return "", nil, err
		}
		receipts = append(receipts, r)
	}
	out, err := approval.NewProof(&view, receipts)
	if err != nil {
		return "", nil, err
	}
	b, err := json.Marshal(out) // in the order of its members: the format comes first
	return view.ID + ".proof.json", append(b, '\n'), err
}

// callFile is all of what runs, for whoever is shown a part of it: the bytes that the
// digest of the call is over.
func (p *pages) callFile(v visit) (string, []byte, error) {
	view, err := p.Approvals.View(v.r.Context(), v.s.person.Name, v.path("id"))
	if err != nil {
		return "", nil, err
	}
	if view.Call == nil {
		return "", nil, counterfoil.Refuse(counterfoil.ToolUnknown, "the call was erased")
	}
	return view.ID + ".call.json", view.Call, nil
}

func (p *pages) cancelForm(v visit) (string, error) {
	id := v.path("id")
	return "/approvals/" + id + "?done=cancelled", p.Approvals.CancelBy(v.r.Context(), id, v.s.person.Name, v.form.Get("reason"))
}

func (p *pages) reconcileForm(v visit) (string, error) {
	id, happened := v.path("id"), v.form.Get("happened")
	if happened != "yes" && happened != "no" {
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the field happened is neither yes nor no")
	}
	return "/approvals/" + id + "?done=reconciled", p.Approvals.Reconcile(v.r.Context(), id, v.s.person.Name, happened == "yes", v.form.Get("reason"))
}
