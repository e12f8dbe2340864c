package approval

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// deciders returns the people who decide irreversible classes.
func (e *Engine) deciders(reg *counterfoil.Registry) []string {
	groups := irreversibleGroups(reg)
	var out []string
	for name, p := range reg.People {
		if meet(groups, p.Groups) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// irreversibleGroups returns every group that decides an irreversible class.
func irreversibleGroups(reg *counterfoil.Registry) []string {
	var groups []string
	for _, c := range reg.Classes {
		if c.Tier == counterfoil.Irreversible {
			groups = append(groups, slices.Concat(c.Approvers...)...)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// The fields of a change that is about a passkey: whose it is, and which.
const (
	fieldPerson     = "person"
	fieldCredential = "credential"
)

// askRelease asks two people whether a passkey may count at once.
func (e *Engine) askRelease(ctx context.Context, k *counterfoil.Passkey) error {
	reg, _ := e.store.Registry()
	groups := irreversibleGroups(reg)
	if len(groups) == 0 {
		return nil // nobody decides anything that it would have to cool for
	}
	call, err := ijson.Marshal(map[string]any{
		"v": 1, "change": counterfoil.ChangeRelease, fieldPerson: k.Person, fieldCredential: encode(k.ID),
		"how": k.How, "usable_from": ledger.FormatTime(k.UsableFrom),
	})
	if err != nil {
		return err
	}
	_, err = e.requestChange(ctx, counterfoil.ChangeRequest{
		Verb: counterfoil.ChangeRelease, Call: call, Groups: groups, Actor: k.Person, Expires: k.UsableFrom,
		Sentence: fmt.Sprintf("Let the passkey that %s %s count for irreversible classes now, not in a day", k.Person, k.How),
	}, map[string]string{fieldPerson: k.Person, fieldCredential: encode(k.ID)})
	return err
}

// release does what people decided about a passkey: it counts at once, or it ends. Both
// are done once; doing it again after a crash changes nothing.
func (e *Engine) release(ctx context.Context, a *counterfoil.Approval) error {
	if len(a.Fields) == 0 {
		return nil // erased: it was done long ago
	}
	id, ok := unbase64(a.Fields[fieldCredential])
	if !ok {
		return fmt.Errorf("approval %s names no passkey", a.ID)
	}
	k, ok, err := e.store.PasskeyByID(ctx, id)
	if err != nil {
		return err
	}
	if !ok || k.Status != counterfoil.Active {
		return nil
	}
	detail := map[string]any{"verb": counterfoil.ChangeRelease, fieldPerson: k.Person, fieldCredential: encode(k.ID)}
	if a.State == counterfoil.StateDenied {
		entry := e.entryOf(ledger.PasskeyEnded, a, a.State)
		entry.Reason, entry.Detail = "people said no to it", detail
		return e.store.EndPasskeys(context.WithoutCancel(ctx), [][]byte{id}, entry)
	}
	if !k.UsableFrom.After(e.now()) {
		return nil // it has cooled by itself
	}
	err = e.VerifyChange(ctx, a.ID)
	if _, refused := counterfoil.AsRefusal(err); refused {
		return nil // it is revoked now, and the passkey cools its day
	}
	if err != nil {
		return err
	}
	entry := e.entryOf(ledger.ChangeClosed, a, counterfoil.StateApproved)
	entry.Detail = detail
	detail["usable_from"] = ledger.FormatTime(e.now())
	return e.store.ReleasePasskey(context.WithoutCancel(ctx), id, a.ID, entry)
}

// RequestChange asks two people whether something may take effect at once that widens
// who may approve, or lessens what needs approval. Silence is neither yes nor no: at its
// Expires the change takes effect by itself.
func (e *Engine) RequestChange(ctx context.Context, c counterfoil.ChangeRequest) (counterfoil.Approval, error) {
	return e.requestChange(ctx, c, nil)
}

const changeClass = "admin-change"

func (e *Engine) requestChange(ctx context.Context, c counterfoil.ChangeRequest, fields map[string]string) (counterfoil.Approval, error) {
	if len(c.Groups) == 0 || c.Verb == "" || len(c.Call) == 0 || c.Expires.IsZero() {
		return counterfoil.Approval{}, fmt.Errorf("asking about the change %q: nobody could decide it, or it says not what it is", c.Verb)
	}
	call, err := ijson.Canonical(c.Call)
	if err != nil {
		return counterfoil.Approval{}, fmt.Errorf("asking about the change %q: %w", c.Verb, err)
	}
	class := &counterfoil.Class{Name: changeClass, Tier: counterfoil.Irreversible, Approvers: [][]string{c.Groups}}
	a := counterfoil.Approval{
		ID: counterfoil.NewID("apr_"), State: counterfoil.StatePending, Kind: counterfoil.ApprovalOfChange, Requester: c.Actor,
		RequestID: counterfoil.NewID("req_"), Tool: counterfoil.ToolID{Resource: "counterfoil", Tool: c.Verb},
		Class: class.Name, Rule: counterfoil.RuleOf(class), Fields: fields,
		CallDigest: CallDigest(call), Call: call, Created: e.now(), Expires: millis(c.Expires),
	}
	r := Rendering{
		V: 1, Sentence: cut(c.Sentence, maxShown), Class: class.Name, Tier: class.Tier, Rule: a.Rule, Requester: c.Actor,
		Tool: a.Tool.String(), Resource: a.Tool.Resource, Fields: map[string]string{},
		Why:         "it widens who may approve, or lessens what needs approval: it takes effect at " + c.Expires.UTC().Format(time.RFC3339) + ", at once when two people say yes, and never when one says no",
		Irrevocable: "Whatever it lets happen cannot be undone.",
	}
	for k, v := range fields {
		r.Fields[k] = cut(v, maxShown)
	}
	r.absences()
	entry, err := e.complete(&a, class, r)
	if err != nil {
		return counterfoil.Approval{}, err
	}
	kept, _, err := e.store.RequestApproval(context.WithoutCancel(ctx), a, e.cfg.MaxPending, entry)
	if err != nil {
		return counterfoil.Approval{}, err
	}
	e.notify(ctx, EventChangeProposed, &kept)
	return kept, nil
}
