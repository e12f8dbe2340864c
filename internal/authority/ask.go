package authority

import (
	"context"
	"fmt"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/manifest"
)

// Changes asks people. The approval engine is one.
type Changes interface {
	// RequestChange asks those who are in one of the groups whether the change may
	// take effect at once, and tells them that it does by itself at its time. A nil
	// error means that the approval is kept.
	RequestChange(ctx context.Context, c counterfoil.ChangeRequest) (counterfoil.Approval, error)
	// VerifyChange verifies every signature of an approved change again, as of now.
	// It is refused when one does not hold any more.
	VerifyChange(ctx context.Context, approval string) error
	// TellChange tells of a change that nobody can be asked about: everybody who is
	// declared and ever had a passkey.
	TellChange(ctx context.Context, c counterfoil.ChangeRequest) error
	// TellAgain tells again of the changes that people were asked about and that
	// wait.
	TellAgain(ctx context.Context) error
}

// maxShown bounds the differences that are shown to those who are asked; the digest
// covers all of them.
const maxShown = 64 << 10

// ask asks the people who approve now. Where there are none, only the time is left,
// and everybody is told who could notice.
func (a *Authority) ask(ctx context.Context, p *counterfoil.Proposal, c *change, what *proposed) (approval string, err error) {
	if a.cfg.Changes == nil {
		return "", nil
	}
	registry, _ := a.cfg.Store.Registry()
	request := requestFor(p, what)
	if request.Groups = registry.ChangeGroups(); len(registry.Members(request.Groups)) == 0 {
		return "", a.cfg.Changes.TellChange(ctx, request)
	}
	if request.Call, err = callOf(registry, p, c, what); err != nil {
		return "", err
	}
	kept, err := a.cfg.Changes.RequestChange(ctx, request)
	return kept.ID, err
}

// requestFor is what people are told of a proposal.
func requestFor(p *counterfoil.Proposal, what *proposed) counterfoil.ChangeRequest {
	return counterfoil.ChangeRequest{Verb: counterfoil.ChangeApply, Sentence: sentence(what.Widens), Actor: p.Actor, Expires: p.Effective}
}

// callOf is what exactly is signed of a proposal.
func callOf(registry *counterfoil.Registry, p *counterfoil.Proposal, c *change, what *proposed) ([]byte, error) {
	type shown struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
		Verb string `json:"verb"`
		Diff string `json:"diff,omitzero"`
	}
	var changes []shown
	size, cut := 0, 0
	for _, ch := range c.result.Changes {
		if ch.Verb == manifest.Unchanged {
			continue
		}
		if size += len(ch.Diff); size > maxShown {
			cut++
			continue
		}
		changes = append(changes, shown{ch.Kind, ch.Name, ch.Verb, ch.Diff})
	}
	if what.Kind != "" {
		diff := manifest.Diff(nounOf(registry, what.Kind, what.Name), nil)
		changes = append(changes, shown{what.Kind, what.Name, "delete", diff})
	}
	call := map[string]any{
		"proposal": p.ID, "verb": what.verb(), "digest": p.Digest, "actor": p.Actor, "widens": whyTexts(c.widens), "changes": changes,
	}
	if cut > 0 {
		call["not_shown"] = cut // documents; the digest covers them
	}
	body, err := ijson.Marshal(call)
	if err != nil {
		return nil, fmt.Errorf("encoding the change: %w", err)
	}
	return body, nil
}

// tellAgain tells again of every change that waits. What was to be sent when the
// process ended is lost, and somebody who is not told cannot say no.
func (a *Authority) tellAgain(ctx context.Context) error {
	if a.cfg.Changes == nil {
		return nil
	}
	open, err := a.cfg.Store.Proposals(ctx)
	if err != nil {
		return err
	}
	for i := range open {
		if open[i].Approval != "" {
			continue
		}
		what, err := read(&open[i])
		if err != nil {
			return err
		}
		if err := a.cfg.Changes.TellChange(ctx, requestFor(&open[i], &what)); err != nil {
			return err
		}
	}
	return a.cfg.Changes.TellAgain(ctx)
}

// sentence says for people what a change widens: the first few ways of it.
func sentence(widens []Widening) string {
	const most = 3
	var parts []string
	for i, w := range widens {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(widens)-most))
			break
		}
		parts = append(parts, w.What+" "+w.Why)
	}
	return strings.Join(parts, "; ")
}
