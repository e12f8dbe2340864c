package approval

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/counterfoil/counterfoil"
)

// TellChange tells of a change that nobody can be asked about, because nobody may decide
// it: everybody who is declared and ever had a passkey. Nobody can sign for it or say
// no here, but whoever reads of it can have it withdrawn.
func (e *Engine) TellChange(ctx context.Context, c counterfoil.ChangeRequest) error {
	reg, _ := e.store.Registry()
	n := Notice{
		Event: EventChangeProposed, Tool: counterfoil.ToolID{Resource: "counterfoil", Tool: c.Verb}.String(), Class: changeClass,
		Tier: counterfoil.Irreversible.String(), Sentence: plain(Visible(cut(c.Sentence, maxShown))), Expires: c.Expires, URL: e.party.origin + "/people",
	}
	for _, name := range slices.Sorted(maps.Keys(reg.People)) {
		keys, err := e.store.PasskeysOf(ctx, name)
		if err != nil {
			return fmt.Errorf("looking for who is told of a change: %w", err)
		}
		if len(keys) > 0 {
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
