package web

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

type peopleList struct {
	People []approval.PersonView `json:"people"`
}

func (m *management) people(ctx context.Context, _ asked[none]) (peopleList, error) {
	people, err := m.Approvals.People(ctx)
	return peopleList{people}, err
}

// anAgent is an agent as administrators and auditors see it: its document, and where
// it is in its life.
type anAgent struct {
	Name        string             `json:"name"`
	Owner       string             `json:"owner"`
	Purpose     string             `json:"purpose,omitzero"`
	Environment string             `json:"environment"`
	Status      counterfoil.Status `json:"status"`
	Epoch       int64              `json:"epoch"`
	Live        int                `json:"live"`                 // instances
	Quarantined []string           `json:"quarantined,omitzero"` // ids of instances whose key was seen in two places

	// Of one agent alone.
	Manifest  string     `json:"manifest,omitzero"` // YAML
	Instances []instance `json:"instances,omitzero"`
}

type agentList struct {
	Agents []anAgent `json:"agents"`
}

func (m *management) agents(context.Context, asked[none]) (agentList, error) {
	out := agentList{Agents: []anAgent{}}
	for _, v := range m.Authority.Agents() {
		out.Agents = append(out.Agents, anAgent{
			Name: v.Agent.Name, Owner: v.Agent.Owner, Purpose: v.Agent.Purpose, Environment: v.Agent.Environment,
			Status: v.Status, Epoch: v.Epoch, Live: v.Instances, Quarantined: v.Quarantined,
		})
	}
	return out, nil
}

func (m *management) agent(_ context.Context, a asked[none]) (anAgent, error) {
	return m.showAgent(a.path("name"))
}

func (m *management) showAgent(name string) (anAgent, error) {
	v, err := m.Authority.Agent(name)
	if err != nil {
		return anAgent{}, err
	}
	doc, err := m.socket.show(counterfoil.KindAgent, v.Agent)
	if err != nil {
		return anAgent{}, err
	}
	all, err := m.Authority.Instances(name)
	if err != nil {
		return anAgent{}, err
	}
	return anAgent{
		Name: v.Agent.Name, Owner: v.Agent.Owner, Purpose: v.Agent.Purpose, Environment: v.Agent.Environment,
		Status: v.Status, Epoch: v.Epoch, Live: v.Instances, Quarantined: v.Quarantined,
		Manifest: doc.Manifest, Instances: newInstances(all),
	}, nil
}

func (m *management) suspend(ctx context.Context, a asked[reasonBody]) (anAgent, error) {
	if _, err := m.Authority.Suspend(ctx, a.path("name"), a.in.Reason, a.session.person.Name); err != nil {
		return anAgent{}, err
	}
	return m.showAgent(a.path("name"))
}

func (m *management) offboard(ctx context.Context, a asked[reasonBody]) (voided, error) {
	v, err := m.Authority.Offboard(ctx, a.path("name"), a.in.Reason, a.session.person.Name)
	return newVoided(v), err
}

// entryFilter are the names that parseFilter knows.
var entryFilter = []parameter{
	{"agent", "only entries of this agent", nil},
	{"actor", "only entries of this person or administrator", nil},
	{"kind", "only entries of this kind, such as call.decided", nil},
	{"tool", "only entries of this tool, RESOURCE/TOOL", nil},
	{"class", "only entries of this class", nil},
	{"code", "only entries with this code", nil},
	{"request_id", "only entries of this request", nil},
	{"approval", "only entries of this approval", nil},
	{"token", "only entries of this token, by its id", nil},
	{"since", "only entries since this time (RFC 3339)", nil},
	{"from", "entries in order from this index on; goes with limit alone", nil},
	{"limit", "the most entries, 100 when absent and at most 1000", nil},
}

func (m *management) ledgerEntries(ctx context.Context, a asked[none]) (found, error) {
	return m.socket.entries(ctx, call[none]{query: a.query, path: a.path})
}

func (m *management) ledgerEntry(ctx context.Context, a asked[none]) (jsontext.Value, error) {
	return m.socket.entry(ctx, call[none]{path: a.path})
}

func (m *management) ledgerReceipt(ctx context.Context, a asked[none]) (ledger.Receipt, error) {
	return m.socket.receipt(ctx, call[none]{path: a.path})
}

// A chain is what the log has of one call, in order: the token that it came with,
// the decision that let it go or held it, what people signed, and how it ended.
type chain struct {
	Links []link `json:"links"`
}

// A link is one entry of a chain. Its receipt is at ledger/receipts/{index}.
type link struct {
	Step  string         `json:"step"` // issued, requested, signed, closed, decided, outcome, or the entry's kind
	Index int64          `json:"index"`
	Entry jsontext.Value `json:"entry"`

	entry *ledger.Entry
}

// steps are the links that every call has.
var steps = map[ledger.Kind]string{
	ledger.TokenIssued: "issued", ledger.ApprovalRequested: "requested", ledger.ApprovalSigned: "signed", ledger.ApprovalClosed: "closed",
	ledger.CallDecided: "decided", ledger.CallFinished: "outcome",
}

func (m *management) ledgerChain(ctx context.Context, a asked[none]) (chain, error) {
	request, approvalID := a.query.Get("request_id"), a.query.Get("approval")
	if (request == "") == (approvalID == "") {
		return chain{}, counterfoil.Refuse(counterfoil.RequestMalformed, "one of request_id and approval is needed")
	}
	return m.chain(ctx, request, approvalID)
}

// Bounds of a chain: how many entries one question to the log may bring, how many
// questions are asked, and how long before something of it is known to have happened
// the log is read back.
const (
	maxLinks     = 200
	maxQuestions = 16
	maxBefore    = 48 * time.Hour
)

// isLook reports whether an entry is of an agent that asked about its approval, and
// none of the call: it asks as often as it likes, each time with a request of its own.
func isLook(e *ledger.Entry) bool {
	if e.Tool == statusTool {
		return true
	}
	// A tool may have such a name; then what is decided of it has a class.
	_, method, _ := strings.Cut(e.Tool, "/")
	return e.Kind == ledger.CallDecided && e.Class == "" && (method == "tasks/get" || method == "tasks/update" || method == "tasks/cancel")
}

// chain follows a request, or an approval, to everything that belongs to the same
// call. A request names the approval that it was held for or let go by, an approval
// names its requests, and these name the tokens that they came with.
func (m *management) chain(ctx context.Context, request, approvalID string) (chain, error) {
	w := &walk{m: m, seen: map[int64]*ledger.Entry{}, asked: map[ledger.Filter]bool{}}
	if err := w.ask(ctx, ledger.Filter{RequestID: request, Approval: approvalID}, time.Time{}); err != nil {
		return chain{}, err
	}
	// Three steps lead anywhere: request, approval, its other requests, their tokens.
	for range 3 {
		for _, q := range w.next() {
			if err := w.ask(ctx, q.Filter, q.at); err != nil {
				return chain{}, err
			}
		}
	}
	if len(w.seen) == 0 {
		return chain{}, counterfoil.Refuse(counterfoil.ToolUnknown, "the log has nothing of that")
	}
	out := chain{Links: []link{}}
	for _, e := range w.seen {
		b, err := ledger.Encode(e)
		if err != nil {
			return chain{}, err
		}
		step, ok := steps[e.Kind]
		if !ok {
			step = string(e.Kind)
		}
		out.Links = append(out.Links, link{step, e.Index, b, e})
	}
	slices.SortFunc(out.Links, func(a, b link) int { return cmp.Compare(a.Index, b.Index) })
	return out, nil
}

// A walk collects the entries of a chain.
type walk struct {
	m     *management
	seen  map[int64]*ledger.Entry
	asked map[ledger.Filter]bool
}

// ask looks for entries from maxBefore before a time on, or, where that is not known,
// in the whole log.
func (w *walk) ask(ctx context.Context, f ledger.Filter, at time.Time) error {
	if w.asked[f] || len(w.asked) == maxQuestions {
		return nil
	}
	w.asked[f] = true
	if f.Approval != "" {
		// The record says when the approval begins, as long as there is one.
		if v, err := w.m.Approvals.View(ctx, "", f.Approval); err == nil {
			at = v.Created
		} else {
			at = time.Time{}
		}
	}
	if !at.IsZero() {
		f.Since = at.Add(-maxBefore)
	}
	looks := f.RequestID != "" // a look is asked for by its own request alone
	if f.Limit == 0 {
		f.Limit = maxLinks
	}
	entries, err := w.m.find(ctx, f, looks)
	if err != nil {
		return err
	}
	for _, e := range entries {
		w.seen[e.Index] = e
	}
	return nil
}

// find returns the newest entries that a filter with a limit chooses, without looks
// unless they are wanted: of those an agent can make any number, so that the log is
// asked until there are enough others.
func (m *management) find(ctx context.Context, f ledger.Filter, looks bool) ([]*ledger.Entry, error) {
	var out []*ledger.Entry
	page := f
	page.Limit = max(f.Limit, maxLinks)
	for len(out) < f.Limit {
		entries, err := m.Entries.Find(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if (looks || !isLook(e)) && len(out) < f.Limit {
				out = append(out, e)
			}
		}
		if len(entries) < page.Limit || entries[len(entries)-1].Index == 0 {
			break
		}
		page.Before = entries[len(entries)-1].Index
	}
	return out, nil
}

// A question is what to look for, and when something of it happened.
type question struct {
	ledger.Filter
	at time.Time
}

// next returns what to ask about the entries that are there, in their order: first of
// those that asked for the approval or let the call go, which the others only repeat.
func (w *walk) next() []question {
	var first, then []question
	for _, i := range slices.Sorted(maps.Keys(w.seen)) {
		e := w.seen[i]
		at, err := e.When()
		if err != nil {
			at = time.Time{}
		}
		var of []question
		if id := e.Approval.ID; id != "" {
			of = append(of, question{ledger.Filter{Approval: id}, at})
		}
		if e.RequestID != "" && (e.Kind == ledger.ApprovalRequested || e.Kind == ledger.CallDecided && !isLook(e)) {
			of = append(of, question{ledger.Filter{RequestID: e.RequestID}, at})
		}
		if e.TokenJTI != "" && e.Kind != ledger.TokenIssued && !isLook(e) {
			of = append(of, question{ledger.Filter{Token: e.TokenJTI, Kind: ledger.TokenIssued, Limit: 1}, at})
		}
		if e.Kind == ledger.ApprovalRequested || e.Kind == ledger.CallDecided && e.Decision == ledger.Allow {
			first = append(first, of...)
		} else {
			then = append(then, of...)
		}
	}
	return append(first, then...)
}

// A condition is what an administrator has to know before believing a page.
type condition struct {
	Now     time.Time    `json:"now"`
	Ready   bool         `json:"ready"`
	Reasons []string     `json:"reasons,omitzero"` // why requests are not taken
	Issuer  string       `json:"issuer"`
	Agents  int          `json:"agents"`
	Ledger  ledgerStatus `json:"ledger"`
	Keys    []signingKey `json:"keys"`

	// Newest is when the last entry was written; empty of an empty log.
	Newest string `json:"newest,omitzero"`
}

func (m *management) condition(ctx context.Context, _ asked[none]) (condition, error) {
	s, err := m.socket.status(ctx, call[none]{})
	if err != nil {
		return condition{}, err
	}
	c := condition{m.Now().UTC(), s.Ready, s.Reasons, s.Issuer, s.Agents, s.Ledger, s.Keys, ""}
	newest, err := m.Entries.Find(ctx, ledger.Filter{Limit: 1})
	if err != nil {
		return condition{}, err
	}
	if len(newest) > 0 {
		c.Newest = newest[0].Time
	}
	return c, nil
}
