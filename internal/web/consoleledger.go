package web

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

// kindWords are what entries are called for people. A kind that is not here is shown
// by its name.
var kindWords = map[ledger.Kind]string{
	ledger.ServerStarted: "Server started", ledger.ServerStopped: "Server stopped", ledger.ConfigApplied: "Configuration applied",
	ledger.AgentCreated: "Agent created", ledger.AgentChanged: "Agent changed", ledger.AgentSuspended: "Agent suspended",
	ledger.AgentResumed: "Agent resumed", ledger.AgentOffboarded: "Agent offboarded", ledger.EnrolmentCodeIssued: "Enrolment code issued",
	ledger.InstanceEnrolled: "Instance enrolled", ledger.ProofKeyBound: "Proof key bound", ledger.KeyRotated: "Signing key rotated",
	ledger.TokenIssued: "Token issued", ledger.TokenRefused: "Token refused", ledger.TaskOpened: "Task opened", ledger.TaskClosed: "Task closed",
	ledger.CallDecided: "Call decided", ledger.CallFinished: "Call finished", ledger.ApprovalRequested: "Approval asked for",
	ledger.ApprovalSigned: "Approval signed", ledger.ApprovalClosed: "Approval closed", ledger.ApprovalErased: "Payloads erased",
	ledger.ChangeProposed: "Change proposed", ledger.ChangeClosed: "Change closed", ledger.SessionOpened: "Logged in",
	ledger.SessionClosed: "Logged out", ledger.Revoked: "Revoked", ledger.PersonEnrolled: "Passkey enrolled", ledger.PersonChanged: "Person changed",
	ledger.PasskeyEnded: "Passkey ended", ledger.UpstreamCredentialUsed: "Forwarded with the upstream’s credential",
	ledger.ToolPinned: "Tool pinned", ledger.ToolChanged: "Tool changed", ledger.CloneSuspected: "Clone suspected",
	ledger.RefusedAggregate: "Refusals counted", ledger.CheckpointSigned: "Checkpoint signed",
}

func kindWord(k ledger.Kind) string {
	if w := kindWords[k]; w != "" {
		return w
	}
	return string(k)
}

// lineOf is an entry in a list.
func lineOf(e *ledger.Entry) console.Line {
	at, _ := e.When() // the log takes no other times
	l := console.Line{
		Index: e.Index, At: at, Kind: string(e.Kind), What: kindWord(e.Kind), Agent: e.Agent, Tool: e.Tool, Class: e.Class, Tier: e.Tier,
		Code: string(e.Code), Decision: e.Decision, Approval: e.Approval.ID, Person: e.Actor,
	}
	switch e.Kind {
	case ledger.ApprovalSigned:
		l.What = "Approval signed"
		if decisionOf(e) == counterfoil.DecisionDeny {
			l.What = "Approval refused"
		}
	case ledger.ApprovalClosed, ledger.ApprovalRequested:
		if e.Approval.State != "" && e.Kind == ledger.ApprovalClosed {
			l.What = "Approval closed: " + strings.ToLower(console.StateWord(e.Approval.State))
		}
	case ledger.CallFinished:
		if e.Outcome != "" {
			l.What = "Call finished: " + e.Outcome
		}
	}
	return l
}

// decisionOf is what a person signed.
func decisionOf(e *ledger.Entry) string {
	record, _ := e.Detail["record"].(map[string]any)
	challenge, _ := record["challenge"].(map[string]any)
	decision, _ := challenge["decision"].(string)
	return decision
}

// ledgerLines is how many entries one page of the ledger has.
const ledgerLines = 100

// inputTime is what a field of type datetime-local sends, with and without seconds.
var inputTimes = []string{"2006-01-02T15:04", "2006-01-02T15:04:05"}

func (p *pages) ledgerPage(v visit) (shown, error) {
	values, err := url.ParseQuery(v.r.URL.RawQuery)
	if err != nil {
		return shown{}, counterfoil.Refuse(counterfoil.RequestMalformed, "the query string is malformed")
	}
	get := func(name string) string { return strings.TrimSpace(values.Get(name)) }
	q := console.Query{
		Agent: get("agent"), Tool: get("tool"), Class: get("class"), Code: get("code"), Person: get("person"), Kind: get("kind"),
		Since: get("since"), Until: get("until"),
	}
	f := ledger.Filter{
		Agent: q.Agent, Tool: q.Tool, Class: q.Class, Code: counterfoil.Code(q.Code), Actor: q.Person, Kind: ledger.Kind(q.Kind), Limit: ledgerLines + 1,
	}
	for _, t := range []struct {
		text string
		to   *time.Time
	}{{q.Since, &f.Since}, {q.Until, &f.Until}} {
		if t.text == "" {
			continue
		}
		at, err := parseInputTime(t.text)
		if err != nil {
			return shown{}, err
		}
		*t.to = at
	}
	if b := get("before"); b != "" {
		if f.Before, err = strconv.ParseInt(b, 10, 64); err != nil || f.Before <= 0 {
			return shown{}, counterfoil.Refuse(counterfoil.RequestMalformed, "before is not an index")
		}
	}
	entries, err := p.Entries.Find(v.r.Context(), f)
	if err != nil {
		return shown{}, err
	}
	size, _ := p.Entries.Head()
	body := console.Ledger{Size: size, Query: q, Asked: q != console.Query{}}
	if len(entries) > ledgerLines {
		entries = entries[:ledgerLines]
		values.Set("before", strconv.FormatInt(entries[ledgerLines-1].Index, 10))
		body.Limited, body.Next = true, "/ledger?"+values.Encode()
	}
	for _, e := range entries {
		body.Found = append(body.Found, lineOf(e))
	}
	_, registry := p.Authority.Policy()
	body.Classes = slices.Sorted(maps.Keys(registry.Classes))
	for k := range kindWords {
		body.Kinds = append(body.Kinds, string(k))
	}
	slices.Sort(body.Kinds)
	return shown{name: "ledger", title: "Ledger", section: "ledger", body: body}, nil
}

func parseInputTime(s string) (time.Time, error) {
	for _, layout := range inputTimes {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, counterfoil.Refuse(counterfoil.RequestMalformed, "%.40q is not a time such as 2006-01-02T15:04", s)
}

// indexOf is the index in the path, of an entry that exists.
func (p *pages) indexOf(v visit) (int64, error) {
	n, err := strconv.ParseInt(v.path("index"), 10, 64)
	if size, _ := p.Entries.Head(); err != nil || n < 0 || n >= size {
		return 0, counterfoil.Refuse(counterfoil.ToolUnknown, "the log has no entry %.40q", v.path("index"))
	}
	return n, nil
}

func (p *pages) entryPage(v visit) (shown, error) {
	ctx := v.r.Context()
	index, err := p.indexOf(v)
	if err != nil {
		return shown{}, err
	}
	b, err := p.Entries.Entry(ctx, index)
	if err != nil {
		return shown{}, err
	}
	e, err := ledger.Parse(b)
	if err != nil {
		return shown{}, err
	}
	tree, err := approval.Tree(b)
	if err != nil {
		return shown{}, err
	}
	size, _ := p.Entries.Head()
	l := lineOf(e)
	body := console.Chain{Index: index, Size: size, What: l.What, At: l.At, Kind: l.Kind, Approval: e.Approval.ID}
	var facts rows
	facts.within(tree, 0, "")
	body.Facts = facts.out
	entries := []*ledger.Entry{e}
	if e.RequestID != "" || e.Approval.ID != "" {
		request, id := e.RequestID, ""
		if e.Approval.ID != "" {
			request, id = "", e.Approval.ID
		}
		c, err := p.chain(ctx, request, id)
		if err != nil {
			return shown{}, err
		}
		if i := slices.IndexFunc(c.Links, func(l link) bool { return l.Index == index }); i >= 0 {
			entries = nil
			for _, l := range c.Links {
				entries = append(entries, l.entry)
			}
		}
	}
	for _, e := range entries {
		s := step(e)
		s.Current = e.Index == index
		body.Steps = append(body.Steps, s)
	}
	return shown{name: "entry", title: fmt.Sprintf("Entry %d", index), section: "ledger", body: body}, nil
}

// step is an entry as a link of a chain.
func step(e *ledger.Entry) console.Step {
	l := lineOf(e)
	s := console.Step{EntryLink: console.EntryLink{Index: e.Index, What: l.What, At: l.At, Who: l.Person, Code: l.Code}, State: "done"}
	if s.Who == "" {
		s.Who = e.Agent
	}
	var facts []string
	if e.Tool != "" {
		facts = append(facts, e.Tool)
	}
	if e.Class != "" {
		facts = append(facts, "class "+e.Class)
	}
	switch {
	case e.Code == counterfoil.ApprovalRequired || e.Code == counterfoil.ApprovalPending:
		s.State = "waits"
	case e.Decision == ledger.Refuse:
		s.State = "refused"
	case e.Kind == ledger.ApprovalRequested:
		s.State = "waits"
	case e.Kind == ledger.ApprovalSigned && decisionOf(e) == counterfoil.DecisionDeny:
		s.State = "refused"
	case e.Decision == ledger.Allow:
		facts = append(facts, "allowed")
	}
	if len(e.Approval.Signers) > 0 && e.Kind == ledger.CallDecided {
		facts = append(facts, "approved by "+strings.Join(e.Approval.Signers, " and "))
	}
	if e.LatencyUS > 0 {
		facts = append(facts, fmt.Sprintf("after %d ms", (e.LatencyUS+999)/1000))
	}
	s.Text = strings.Join(facts, ", ")
	return s
}

func (p *pages) receiptFile(v visit) (string, []byte, error) {
	index, err := p.indexOf(v)
	if err != nil {
		return "", nil, err
	}
	r, err := p.Entries.Receipt(v.r.Context(), index)
	if err != nil {
		return "", nil, err
	}
	b, err := r.Encode()
	return fmt.Sprintf("receipt-%d.json", index), append(b, '\n'), err
}

func (p *pages) healthPage(v visit) (shown, error) {
	c, err := p.condition(v.r.Context(), asked[none]{})
	if err != nil {
		return shown{}, err
	}
	body := console.Health{Ready: c.Ready}
	for _, reason := range c.Reasons {
		body.Checks = append(body.Checks, console.Check{Name: "Requests are refused", Value: "now", Text: reason})
	}
	newest := console.Check{Name: "The ledger advances", Text: fmt.Sprintf("That is when the newest of %d entries was written. Every decision appends one before what it allows happens.", c.Ledger.Size)}
	if at, err := ledger.ParseTime(c.Newest); err == nil {
		newest.Good, newest.At = true, at
	} else {
		newest.Value = "empty"
	}
	body.Checks = append(body.Checks, newest, p.checkpointCheck(v, c.Ledger.Size), p.viewCheck(c.Ledger.Size),
		console.Check{Name: "Clock", Good: true, At: c.Now, Browse: true, Text: "Compare it with yours; with scripts this page does."})
	for _, k := range c.Keys {
		body.Checks = append(body.Checks, console.Check{Name: "Signing key " + k.State, Good: true, At: k.Created, Text: k.Alg + " " + k.KID})
	}
	if err := p.fillPoints(v.r.Context(), &body); err != nil {
		return shown{}, err
	}
	return shown{name: "health", title: "Health", section: "health", body: body}, nil
}

// checkpointCheck says whether the log is signed as far as it goes.
func (p *pages) checkpointCheck(v visit, size int64) console.Check {
	out := console.Check{Name: "Checkpoint", Value: "none", Text: "The log’s signature over its entries cannot be had. Receipts cannot be made while this lasts."}
	note, err := p.Log.Checkpoint(v.r.Context())
	if err != nil {
		return out
	}
	lines := strings.SplitN(string(note), "\n", 4)
	if len(lines) < 4 {
		return out
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return out
	}
	out.Good, out.Value = n >= size, fmt.Sprintf("%d entries", n)
	out.Text = "The log’s key signs that these entries are there and none was changed. Root " + lines[2]
	return out
}

// viewCheck says how old what this server knows of revocations is.
func (p *pages) viewCheck(size int64) console.Check {
	out := console.Check{Name: "Revocations", Good: true, Value: "no lag", Text: "This one node reads its own store: what is revoked is refused from the next request on."}
	if p.View == nil {
		return out
	}
	view := p.View()
	out.Value = fmt.Sprintf("%d ms behind", view.Age)
	out.Text = fmt.Sprintf("Requests are decided on what was revoked up to entry %d of %d.", view.Seq, size)
	return out
}
