package approval

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// deciders returns the people who decide changes of who may approve.
func (e *Engine) deciders(reg crowd) []string {
	var out []string
	for _, p := range reg.Members(reg.ChangeGroups()) {
		if !reg.suspended(p) {
			out = append(out, p.Name)
		}
	}
	return out
}

// The fields of a change that is about a passkey: whose it is, and which.
const (
	fieldPerson     = "person"
	fieldCredential = "credential"
)

// askRelease asks two people whether a passkey may count at once.
func (e *Engine) askRelease(ctx context.Context, k *counterfoil.Passkey) error {
	reg, _ := e.store.Registry()
	groups := reg.ChangeGroups()
	if len(groups) == 0 {
		return nil // nobody decides anything that it would have to cool for
	}
	call, err := releaseCall(k)
	if err != nil {
		return err
	}
	_, err = e.requestChange(ctx, counterfoil.ChangeRequest{
		Verb: counterfoil.ChangeRelease, Call: call, Groups: groups, Actor: k.Person, Expires: k.UsableFrom,
		Sentence: fmt.Sprintf("Let the passkey that %s %s count for irreversible classes now, not in a day", k.Person, k.How),
	}, k)
	return err
}

// releaseCall is what people sign who release a passkey. All of it is in the entry that
// enrolled it, so that anybody who has the log can make it again.
func releaseCall(k *counterfoil.Passkey) ([]byte, error) {
	return ijson.Marshal(map[string]any{
		"v": 1, "change": counterfoil.ChangeRelease, fieldPerson: k.Person, fieldCredential: encode(k.ID),
		"how": k.How, "usable_from": ledger.FormatTime(k.UsableFrom),
	})
}

// holderOf returns who holds the passkey that an approval is to release; empty for any
// other. It is what is signed that says so. Lists do not have that: there it is whoever
// asked, and nothing is decided on a list.
func holderOf(a *counterfoil.Approval) string {
	if a.Kind != counterfoil.ApprovalOfChange || a.Tool.Tool != counterfoil.ChangeRelease {
		return ""
	}
	if person, _, err := released(a); err == nil {
		return person
	}
	return a.Requester
}

// released reads whose passkey an approval is to release, and which, from what is
// signed.
func released(a *counterfoil.Approval) (person string, id []byte, err error) {
	var call struct {
		Person     string `json:"person"`
		Credential string `json:"credential"`
	}
	if counterfoil.CallDigest(a.Call) != a.CallDigest {
		return "", nil, fmt.Errorf("the call of approval %s is not the one of its digest", a.ID)
	}
	if err := ijson.UnmarshalLax(a.Call, &call); err != nil {
		return "", nil, fmt.Errorf("reading the call of approval %s: %w", a.ID, err)
	}
	id, ok := unbase64(call.Credential)
	if !ok || call.Person == "" {
		return "", nil, fmt.Errorf("approval %s names no passkey", a.ID)
	}
	return call.Person, id, nil
}

// release does what people decided about a passkey: it counts at once, or it ends. Both
// are done once; doing it again after a crash changes nothing.
func (e *Engine) release(ctx context.Context, a *counterfoil.Approval) error {
	whole, ok, err := e.store.Approval(ctx, a.ID)
	if err != nil || !ok || len(whole.Call) == 0 {
		return err // erased: it was done long ago
	}
	a = &whole
	if _, err := stated(a); err != nil {
		return fmt.Errorf("approval %s: %w", a.ID, err)
	}
	person, id, err := released(a)
	if err != nil {
		return err
	}
	k, ok, err := e.store.PasskeyByID(ctx, id)
	if err != nil {
		return err
	}
	if !ok || k.Status != counterfoil.Active || k.Person != person {
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
	call, err := releaseCall(&k)
	if err != nil {
		return err
	}
	return e.store.ReleasePasskey(context.WithoutCancel(ctx), id, a.ID, counterfoil.CallDigest(call), entry)
}

// RequestChange asks two people whether something may take effect at once that widens
// who may approve, or lessens what needs approval. Silence is neither yes nor no: at its
// Expires the change takes effect by itself.
func (e *Engine) RequestChange(ctx context.Context, c counterfoil.ChangeRequest) (counterfoil.Approval, error) {
	return e.requestChange(ctx, c, nil)
}

const changeClass = "admin-change"

// changeTool is the tool of a change in entries.
func changeTool(verb string) string {
	return counterfoil.ToolID{Resource: "counterfoil", Tool: verb}.String()
}

// requestChange asks about a change; k is the passkey that it releases, if it is about
// one.
func (e *Engine) requestChange(ctx context.Context, c counterfoil.ChangeRequest, k *counterfoil.Passkey) (counterfoil.Approval, error) {
	if len(c.Groups) == 0 || c.Verb == "" || len(c.Call) == 0 || c.Expires.IsZero() {
		return counterfoil.Approval{}, fmt.Errorf("asking about the change %q: nobody could decide it, or it says not what it is", c.Verb)
	}
	call, err := ijson.Canonical(c.Call)
	if err != nil {
		return counterfoil.Approval{}, fmt.Errorf("asking about the change %q: %w", c.Verb, err)
	}
	var fields map[string]string
	if k != nil {
		fields = map[string]string{fieldPerson: k.Person, fieldCredential: encode(k.ID)}
	}
	class := &counterfoil.Class{Name: changeClass, Tier: counterfoil.Irreversible, Approvers: [][]string{c.Groups}}
	a := counterfoil.Approval{
		ID: counterfoil.NewID("apr_"), State: counterfoil.StatePending, Kind: counterfoil.ApprovalOfChange, Requester: c.Actor,
		RequestID: counterfoil.NewID("req_"), Tool: counterfoil.ToolID{Resource: "counterfoil", Tool: c.Verb},
		Class: class.Name, Rule: counterfoil.RuleOf(class),
		CallDigest: counterfoil.CallDigest(call), Call: call, Created: e.now(), Expires: millis(c.Expires),
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
	if k != nil {
		// Nothing in it could be guessed that is not in the log already, and with it the
		// log alone shows which passkey people signed for.
		entry.Detail["statement"], entry.Detail[fieldCredential], entry.Detail["enrolled"] = jsontext.Value(a.Statement), encode(k.ID), k.Entry
	}
	kept, _, err := e.store.RequestApproval(context.WithoutCancel(ctx), a, e.cfg.MaxPending, entry)
	if err != nil {
		return counterfoil.Approval{}, err
	}
	e.notify(ctx, EventChangeProposed, &kept)
	return kept, nil
}
