package approval

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
)

// TellChange tells of a change that nobody can be asked about, because nobody may decide
// it: everybody who is declared and ever had a passkey. Nobody can sign for it or say
// no here, but whoever reads of it can have it withdrawn.
func (e *Engine) TellChange(ctx context.Context, c counterfoil.ChangeRequest) error {
	reg, _ := e.crowd()
	n := Notice{
		Event: EventChangeProposed, Tool: counterfoil.ToolID{Resource: "counterfoil", Tool: c.Verb}.String(), Class: changeClass,
		Tier: counterfoil.Irreversible.String(), Sentence: plain(Visible(cut(c.Sentence, maxShown))), Expires: c.Expires, URL: e.party.origin + "/people",
	}
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		keys, err := e.store.PasskeysOf(ctx, name)
		if err != nil {
			return fmt.Errorf("looking for who is told of a change: %w", err)
		}
		if len(keys) > 0 && !reg.suspended(reg.People[name]) {
			n.People = append(n.People, name)
		}
	}
	e.cfg.Notify(ctx, n)
	return nil
}

// TellAgain tells again of the changes that people were asked about and that wait:
// notices are lost with the process that was to send them.
func (e *Engine) TellAgain(ctx context.Context) error {
	list, err := e.store.Approvals(ctx, counterfoil.ApprovalFilter{
		Kind: counterfoil.ApprovalOfChange, States: []counterfoil.ApprovalState{counterfoil.StatePending}, Limit: 1000,
	})
	if err != nil {
		return fmt.Errorf("looking for the changes that wait: %w", err)
	}
	for i := range list {
		if stateAt(&list[i], e.now()) == counterfoil.StatePending {
			e.notify(ctx, EventChangeProposed, &list[i])
		}
	}
	return nil
}

// told remembers which revoked approvals people were told of. It is in memory alone.
type told struct {
	mu    sync.Mutex
	since time.Time       // what was revoked before is not news
	ids   map[string]bool // of what was revoked since then and told
}

func newTold(since time.Time) *told { return &told{since: since, ids: map[string]bool{}} }

// add remembers that people are told of an approval.
func (t *told) add(a *counterfoil.Approval) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ids[a.ID] = true
}

// news reports whether nobody was told of an approval yet; then somebody is.
func (t *told) news(a *counterfoil.Approval) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.Closed.Before(t.since) || t.ids[a.ID] {
		return false
	}
	t.ids[a.ID] = true
	return true
}

// upTo forgets what is no news by its time alone: what is revoked from now on is not
// earlier than the latest of those that are known.
func (t *told) upTo(known []counterfoil.Approval) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range known {
		if known[i].Closed.After(t.since) {
			t.since = known[i].Closed
		}
	}
	maps.DeleteFunc(t.ids, func(id string, _ bool) bool {
		return slices.ContainsFunc(known, func(a counterfoil.Approval) bool { return a.ID == id && a.Closed.Before(t.since) })
	})
}
