package authority

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

// proposalWait is how long what widens waits when nobody signs for it.
const proposalWait = 24 * time.Hour

// maxProposals is how many changes may wait at once: each asks people to look.
const maxProposals = 20

// A Proposal is a change of the registry that waits: for two of the people who
// approve now, or for its time. One no ends it.
type Proposal struct {
	ID        string    `json:"id,omitzero"` // empty in a dry run
	Verb      string    `json:"verb"`        // apply or delete
	Actor     string    `json:"actor"`
	Approval  string    `json:"approval,omitzero"` // id; empty when only the time lets it take effect
	Created   time.Time `json:"created"`
	Effective time.Time `json:"effective"` // when it takes effect by itself
	Why       []string  `json:"why"`       // what in it has to wait
}

// proposed is what is kept of a change that waits: what was asked for, as it was
// asked for, and what it was said to widen.
type proposed struct {
	Files  []proposedFile `json:"files,omitzero"`
	Kind   string         `json:"kind,omitzero"` // of a deletion
	Name   string         `json:"name,omitzero"`
	Widens []Widening     `json:"widens,omitzero"`

	// Was has the digest of each document as it was in force, by kind and name; empty
	// for one that was not. What became of one since is not what was looked at.
	Was map[string]string `json:"was,omitzero"`
}

type proposedFile struct {
	Name string `json:"name"`
	Data string `json:"data"`
}

func applied(files []manifest.File) proposed {
	var p proposed
	for _, f := range files {
		p.Files = append(p.Files, proposedFile{f.Name, string(f.Data)})
	}
	return p
}

func (p *proposed) verb() string {
	if p.Kind != "" {
		return "delete"
	}
	return "apply"
}

// documents reads the files again, which were read without a problem before.
func (p *proposed) documents() ([]manifest.Document, []manifest.Problem) {
	var files []manifest.File
	for _, f := range p.Files {
		files = append(files, manifest.File{Name: f.Name, Data: []byte(f.Data)})
	}
	return manifest.Parse(files)
}

func (p *proposed) digest() string { return digest([]byte("delete\n" + p.Kind + "\n" + p.Name)) }

// digestOf is over what documents say, not over how and in which order it is
// written.
func digestOf(docs []manifest.Document) string {
	var lines []string
	for _, d := range docs {
		body, err := ijson.Marshal(d.Noun)
		if err != nil {
			body = fmt.Appendf(nil, "%p", d.Noun) // equal to nothing
		}
		lines = append(lines, d.Kind+"\n"+d.Name+"\n"+digest(body))
	}
	slices.Sort(lines)
	return digest([]byte("apply\n" + strings.Join(lines, "\n")))
}

func whyTexts(widens []Widening) []string {
	out := make([]string, 0, len(widens))
	for _, w := range widens {
		out = append(out, w.String())
	}
	return bounded(out)
}

// bounded returns at most maxWhys texts, and how many more there are.
func bounded(whys []string) []string {
	if n := len(whys) - maxWhys; n > 0 {
		return append(slices.Clone(whys[:maxWhys]), fmt.Sprintf("and %d more", n))
	}
	return whys
}

// maxWhys is how many reasons are told, so that entries and pages stay of a size
// that is read.
const maxWhys = 50

// propose keeps a change that has to wait, and returns nil for one that need not:
// nothing in it widens, nobody ever enrolled a passkey, or this is a development
// server. That nobody has a passkey any more is no such case: taking people away
// counts at once, and must not open the door. It is called with the lock held.
//
// The approval is asked for first and the proposal kept then. A crash in between
// leaves an approval that no change waits for: whoever signs it changes nothing, it
// expires when the change would have taken effect, and whoever applied was told
// nothing and applies again. The other way round, a change could take effect without
// anybody having been told.
func (a *Authority) propose(ctx context.Context, c *change, what proposed, digest, actor string, dry bool) (*Proposal, error) {
	if len(c.widens) == 0 || a.cfg.Dev {
		return nil, nil
	}
	if ever, err := a.cfg.Store.AnybodyEnrolled(ctx); err != nil || !ever {
		return nil, err
	}
	open, err := a.cfg.Store.Proposals(ctx)
	if err != nil {
		return nil, err
	}
	for i := range open {
		if open[i].Digest != digest {
			continue
		}
		same, err := a.asItWas(&open[i])
		if err != nil {
			return nil, err
		}
		if same {
			return viewOf(&open[i])
		}
		// It would not be made at its time. This is asked for over what is in force.
		if !dry {
			if err := a.closeChange(ctx, &open[i], counterfoil.Approval{}, "asked for again, as what it changes had changed"); err != nil {
				return nil, err
			}
		}
		open = slices.Delete(open, i, i+1)
		break
	}
	registry, _ := a.cfg.Store.Registry()
	if what.Was, err = c.was(registry, &what); err != nil {
		return nil, err
	}
	now := a.cfg.Now().UTC().Truncate(time.Millisecond)
	p := counterfoil.Proposal{Digest: digest, Actor: actor, Created: now, Effective: now.Add(proposalWait)}
	what.Widens = c.widens
	if p.Documents, err = ijson.Marshal(what); err != nil {
		return nil, fmt.Errorf("encoding a proposal: %w", err)
	}
	if dry {
		return viewOf(&p)
	}
	if len(open) >= maxProposals {
		return nil, counterfoil.Refuse(counterfoil.TooManyPending,
			"%d changes wait already; withdraw one, have it signed, or wait until it takes effect", len(open))
	}
	p.ID = counterfoil.NewID("prp_")
	// From here on whether the client waits for the answer is not a part of it.
	ctx = context.WithoutCancel(ctx)
	if p.Approval, err = a.ask(ctx, &p, c, &what); err != nil {
		return nil, fmt.Errorf("asking for an approval: %w", err)
	}
	e := &ledger.Entry{
		Kind: ledger.ChangeProposed, Actor: actor, Approval: ledger.Approval{ID: p.Approval},
		Detail: map[string]any{
			"proposal": p.ID, "verb": what.verb(), "digest": p.Digest, "documents": c.documents(),
			"widens": whyTexts(c.widens), "effective": ledger.FormatTime(p.Effective),
		},
	}
	if p.Approval != "" {
		e.Approval.State = string(counterfoil.StatePending)
	}
	if err := a.cfg.Store.PutProposal(ctx, p, e); err != nil {
		return nil, err
	}
	return viewOf(&p)
}

// documents names the documents of a change for an entry, as far as one holds them.
func (c *change) documents() []any {
	var out []any
	for _, d := range c.store.Put {
		out = append(out, map[string]any{"kind": d.Kind, "name": d.Name, "digest": digest(d.Body)})
	}
	for _, k := range c.store.Delete {
		out = append(out, map[string]any{"kind": k.Kind, "name": k.Name, "verb": "delete"})
	}
	return out[:min(len(out), maxRecorded)]
}

// was returns the digests of the documents of a change, as they are in force.
func (c *change) was(registry *counterfoil.Registry, what *proposed) (map[string]string, error) {
	was := map[string]string{}
	put := func(kind, name string) (err error) {
		was[kind+"/"+name], err = digestIn(registry, kind, name)
		return err
	}
	if what.Kind != "" {
		return was, put(what.Kind, what.Name)
	}
	for _, ch := range c.result.Changes {
		if err := put(ch.Kind, ch.Name); err != nil {
			return nil, err
		}
	}
	return was, nil
}

// digestIn returns the digest of a document of a registry; empty when it has none.
func digestIn(registry *counterfoil.Registry, kind, name string) (string, error) {
	noun := nounOf(registry, kind, name)
	if noun == nil {
		return "", nil
	}
	body, err := ijson.Marshal(noun)
	if err != nil {
		return "", fmt.Errorf("encoding %s %s: %w", kind, name, err)
	}
	return digest(body), nil
}

// changedSince names a document of a proposal that is not what it was when the change
// was asked for, nor what the change makes of it. Making it would take back what was
// done meanwhile, such as authority that was narrowed in a hurry.
func (p *proposed) changedSince(registry *counterfoil.Registry) (document string, err error) {
	becomes := map[string]any{}
	if p.Kind == "" {
		docs, problems := p.documents()
		if len(problems) > 0 {
			return "", nil // it cannot be made anyway
		}
		for _, d := range docs {
			becomes[d.Kind+"/"+d.Name] = d.Noun
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Was)) {
		kind, name, _ := strings.Cut(key, "/")
		is, err := digestIn(registry, kind, name)
		if err != nil {
			return "", err
		}
		if is == p.Was[key] {
			continue
		}
		if becomes[key] == nil || is == "" || manifest.Diff(nounOf(registry, kind, name), becomes[key]) != "" {
			return kind + " " + name, nil
		}
	}
	return "", nil
}

// waiting warns of changes that wait and are about the same documents: what a manifest
// says now is not what will be in force when they take effect.
func (a *Authority) waiting(ctx context.Context, c *change) ([]string, error) {
	open, err := a.cfg.Store.Proposals(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the changes that wait: %w", err)
	}
	var out []string
	for i := range open {
		what, err := read(&open[i])
		if err != nil {
			return nil, err
		}
		for _, ch := range c.result.Changes {
			if _, about := what.Was[ch.Kind+"/"+ch.Name]; about {
				out = append(out, fmt.Sprintf("%s %s: the change %s waits and takes effect on %s; to take it back: counterfoil change withdraw %s",
					ch.Kind, ch.Name, open[i].ID, open[i].Effective.UTC().Format(time.RFC3339), open[i].ID))
				break
			}
		}
	}
	return out, nil
}

// asItWas reports whether the documents of a proposal are what they were.
func (a *Authority) asItWas(p *counterfoil.Proposal) (bool, error) {
	what, err := read(p)
	if err != nil {
		return false, err
	}
	registry, _ := a.cfg.Store.Registry()
	document, err := what.changedSince(registry)
	return document == "", err
}

func viewOf(p *counterfoil.Proposal) (*Proposal, error) {
	what, err := read(p)
	if err != nil {
		return nil, err
	}
	return &Proposal{
		ID: p.ID, Verb: what.verb(), Actor: p.Actor, Approval: p.Approval,
		Created: p.Created, Effective: p.Effective, Why: whyTexts(what.Widens),
	}, nil
}

func read(p *counterfoil.Proposal) (what proposed, err error) {
	if err := ijson.Unmarshal(p.Documents, &what); err != nil {
		return what, fmt.Errorf("reading proposal %s: %w", p.ID, err)
	}
	return what, nil
}

// Proposals returns the changes that wait, the one that takes effect first at the
// front.
func (a *Authority) Proposals(ctx context.Context) ([]Proposal, error) {
	open, err := a.cfg.Store.Proposals(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the changes that wait: %w", err)
	}
	out := []Proposal{}
	for i := range open {
		p, err := viewOf(&open[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	slices.SortStableFunc(out, func(x, y Proposal) int { return cmp.Compare(x.Effective.UnixMilli(), y.Effective.UnixMilli()) })
	return out, nil
}

// Withdraw takes a change back that waits. Its approval, if it is open, is cancelled
// with it.
func (a *Authority) Withdraw(ctx context.Context, id, actor string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg.Store.CloseProposal(context.WithoutCancel(ctx), id, closed(id, actor, "withdrawn"))
}

func closed(proposal, actor, reason string) *ledger.Entry {
	return &ledger.Entry{Kind: ledger.ChangeClosed, Actor: actor, Reason: reason, Detail: map[string]any{"proposal": proposal}}
}

// SettleChanges makes the changes that people let take effect or whose time has come,
// and closes those that people said no to. A fault with one of them leaves it for the
// next time and the others alone.
func (a *Authority) SettleChanges(ctx context.Context) error {
	open, err := a.cfg.Store.Proposals(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range open {
		if err := a.settleOne(ctx, &open[i]); err != nil {
			errs = append(errs, fmt.Errorf("change %s: %w", open[i].ID, err))
		}
	}
	return errors.Join(errs...)
}

// settleOne does what is due for one change. Two of it at once do it once: the store
// closes a proposal once, with the change or without it.
func (a *Authority) settleOne(ctx context.Context, p *counterfoil.Proposal) error {
	var approval counterfoil.Approval
	if p.Approval != "" {
		var ok bool
		var err error
		if approval, ok, err = a.cfg.Store.Approval(ctx, p.Approval); err != nil {
			return err
		} else if !ok {
			approval.State = counterfoil.StateExpired // its record was dropped, long after its time
		}
	}
	now := a.cfg.Now()
	why := ""
	switch approval.State {
	case counterfoil.StateDenied:
		return a.closeChange(ctx, p, approval, "denied")
	case counterfoil.StateCancelled:
		return a.closeChange(ctx, p, approval, "its approval was cancelled")
	case counterfoil.StateApproved:
		if a.cfg.Changes != nil && now.Before(approval.UseUntil) {
			why = counterfoil.ChangedByPeople
		}
	}
	if why == "" && !now.Before(p.Effective) {
		why = counterfoil.ChangedByTime
	}
	if why == "" {
		return nil
	}
	return a.makeChange(ctx, p, approval, why)
}

// closeChange ends a change that will not be made.
func (a *Authority) closeChange(ctx context.Context, p *counterfoil.Proposal, approval counterfoil.Approval, reason string) error {
	e := closed(p.ID, p.Actor, reason)
	e.Approval = recorded(approval)
	a.cfg.Log.InfoContext(ctx, "a change that waited is not made", "proposal", p.ID, "reason", reason)
	return a.cfg.Store.CloseProposal(context.WithoutCancel(ctx), p.ID, e)
}

func recorded(a counterfoil.Approval) ledger.Approval {
	out := ledger.Approval{ID: a.ID, State: string(a.State)}
	for _, s := range a.Signatures {
		out.Signers = append(out.Signers, s.Person)
	}
	return out
}

// makeChange makes a change that waited, and pins what it declares.
func (a *Authority) makeChange(ctx context.Context, p *counterfoil.Proposal, approval counterfoil.Approval, why string) error {
	c, docs, err := a.makeLocked(ctx, p, approval, why)
	if err != nil || c == nil {
		return err
	}
	a.cfg.Log.InfoContext(ctx, "a change that waited took effect", "proposal", p.ID, "reason", why)
	a.pin(ctx, toPin(docs, c.store.Unpin), p.Actor, &c.result)
	for _, w := range c.result.Warnings {
		a.cfg.Log.WarnContext(ctx, "a change that waited", "proposal", p.ID, "warning", w)
	}
	return nil
}

// makeLocked plans the change against what is in force now and commits it with the
// end of its proposal. What cannot be made any more, or would widen more than people
// were told, is closed: whoever asked applies again. A nil change was not made.
func (a *Authority) makeLocked(ctx context.Context, p *counterfoil.Proposal, approval counterfoil.Approval, why string) (*change, []manifest.Document, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.reload(); err != nil {
		return nil, nil, err
	}
	if why == counterfoil.ChangedByPeople {
		// Under the lock, so that nobody leaves a group in between. A passkey that ends
		// in between revokes the approval, which the commit looks at.
		err := a.cfg.Changes.VerifyChange(ctx, p.Approval)
		if refusal, ok := counterfoil.AsRefusal(err); ok {
			a.cfg.Log.WarnContext(ctx, "the approval of a change does not hold: it waits for its time", "proposal", p.ID, "reason", refusal.Reason())
			return nil, nil, nil
		} else if err != nil {
			return nil, nil, err
		}
	}
	what, err := read(p)
	if err != nil {
		return nil, nil, a.closeChange(ctx, p, approval, "it cannot be read any more")
	}
	registry, _ := a.cfg.Store.Registry()
	document, err := what.changedSince(registry)
	if err != nil {
		return nil, nil, err
	}
	if document != "" {
		return nil, nil, a.closeChange(ctx, p, approval, document+" is not what it was when this was asked for: apply again, over what is in force")
	}
	c, docs, err := a.replan(p, &what)
	if refusal, ok := counterfoil.AsRefusal(err); ok {
		return nil, nil, a.closeChange(ctx, p, approval, "it cannot be made any more: "+refusal.Reason())
	} else if err != nil {
		return nil, nil, err
	}
	for _, w := range c.widens {
		if !slices.ContainsFunc(what.Widens, func(told Widening) bool { return told.String() == w.String() }) {
			return nil, nil, a.closeChange(ctx, p, approval, "what is in force changed, and it would widen what nobody was told of: "+w.String())
		}
	}
	if len(c.store.Put)+len(c.store.Delete) == 0 {
		return nil, nil, a.closeChange(ctx, p, approval, "nothing is left of it to change")
	}
	c.store.Proposal = p.ID
	for _, e := range c.entries {
		if e.Kind == ledger.ConfigApplied {
			e.Detail["proposal"] = p.ID
		}
	}
	e := closed(p.ID, p.Actor, why)
	e.Approval = recorded(approval)
	c.entries = append(c.entries, e)
	if err := a.commitChange(ctx, &c); err != nil {
		return nil, nil, fmt.Errorf("making it: %w", err)
	}
	return &c, docs, nil
}

// replan is the plan of a change that waited, as of now.
func (a *Authority) replan(p *counterfoil.Proposal, what *proposed) (c change, docs []manifest.Document, err error) {
	if what.Kind != "" {
		c, err = a.planDelete(what.Kind, what.Name, p.Actor)
		return c, nil, err
	}
	docs, problems := what.documents()
	if len(problems) > 0 {
		return c, nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "%s", problems[0])
	}
	if c, err = a.plan(docs, p.Actor); err == nil && len(c.result.Problems) > 0 {
		err = counterfoil.Refuse(counterfoil.PayloadMalformed, "%s", c.result.Problems[0])
	}
	return c, docs, err
}
