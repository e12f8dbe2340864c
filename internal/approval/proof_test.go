package approval

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// foundEntries finds in the world's log as the log itself does: the newest first, and no
// more than are asked for.
type foundEntries struct{ w *world }

func (l foundEntries) Entry(ctx context.Context, index int64) ([]byte, error) {
	return l.w.store.Entry(ctx, index)
}

func (l foundEntries) Find(_ context.Context, f ledger.Filter) ([]*ledger.Entry, error) {
	all := l.w.entries()
	slices.Reverse(all)
	all = slices.DeleteFunc(all, func(e *ledger.Entry) bool {
		at, err := e.When()
		return err != nil || f.Kind != "" && e.Kind != f.Kind || f.Approval != "" && e.Approval.ID != f.Approval || f.RequestID != "" && e.RequestID != f.RequestID ||
			at.Before(f.Since) || f.Before > 0 && e.Index >= f.Before
	})
	if f.Limit == 0 {
		f.Limit = 100
	}
	return all[:min(len(all), f.Limit)], nil
}

// proof makes an approval's proof, in which an entry is its own receipt.
func (w *world) proof(id string) Proof {
	w.t.Helper()
	v, err := w.View(w.t.Context(), "", id)
	wantDone(w.t, err)
	indices, err := ProofEntries(w.t.Context(), foundEntries{w}, &v)
	wantDone(w.t, err)
	var receipts []ledger.Receipt
	for _, i := range indices {
		b, err := w.store.Entry(w.t.Context(), i)
		wantDone(w.t, err)
		receipts = append(receipts, ledger.Receipt{Index: i, Entry: b})
	}
	p, err := NewProof(&v, receipts)
	wantDone(w.t, err)
	return p
}

func openReceipt(r ledger.Receipt) (*ledger.Entry, error) { return ledger.Parse(r.Entry) }

func (w *world) wantProof(id string, want OfflineReport) {
	w.t.Helper()
	p := w.proof(id)
	if got, err := p.Verify(openReceipt); err != nil || got != want {
		w.t.Errorf("the proof shows %+v, %v; want %+v", got, err, want)
	}
}

// However often the agent looked, the proof has what shows the approval.
func TestAProofAmongLooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	looks := func() {
		for range 101 {
			e := &ledger.Entry{Kind: ledger.CallDecided, Decision: ledger.Allow, Agent: "payroll", Tool: "bank/tasks/get", Approval: ledger.Approval{ID: id}}
			wantDone(t, w.store.Decide(t.Context(), e, nil))
			wantDone(t, w.store.Finish(t.Context(), &ledger.Entry{Kind: ledger.CallFinished, Of: e.Index, Outcome: "succeeded"}))
		}
	}
	looks()
	w.approve(id, "bo", "cy")
	looks()
	w.run(pay)
	looks()
	w.wantProof(id, OfflineReport{Passkeys: 2, Signatures: 2, Calls: 1})
	if n := len(w.proof(id).Receipts); n != 7 {
		t.Errorf("it has %d receipts: two of passkeys, one of the request, two of signatures, two of the call are 7", n)
	}
}

// A passkey that two people released within its day is proven with what released it.
func TestAProofOfAReleasedPasskey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	second := passkey.New(testRP, testOrigin)
	w.enrolWith("bo", second, false)
	release := w.told(EventChangeProposed)[0].Approval
	w.approve(release, "cy", "ed")
	w.phones["bo"] = second
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	w.run(pay)
	w.wantProof(id, OfflineReport{Passkeys: 3, Signatures: 4, Calls: 1})
	w.wantProof(release, OfflineReport{Passkeys: 3, Signatures: 2})

	p := w.proof(id)
	p.Receipts = slices.DeleteFunc(p.Receipts, func(r ledger.Receipt) bool {
		e, err := openReceipt(r)
		return err != nil || e.Kind == ledger.ChangeClosed
	})
	if _, err := p.Verify(openReceipt); err == nil || !strings.Contains(err.Error(), "counts for irreversible") {
		t.Errorf("without the release: %v", err)
	}
	// Entries of any other approval have no place in it.
	p = w.proof(id)
	other := w.ask(w.pay("200", "DE1"))
	b, err := w.store.Entry(t.Context(), w.store.Size()-1)
	wantDone(t, err)
	p.Receipts = append(p.Receipts, ledger.Receipt{Index: w.store.Size() - 1, Entry: b})
	if _, err := p.Verify(openReceipt); err == nil || !strings.Contains(err.Error(), "of another approval") {
		t.Errorf("with an entry of %s: %v", other, err)
	}
}

// What the log says of the rule, the class and the deadline is what was signed.
func TestAProofHoldsTheLogAgainstTheStatement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	id := w.ask(w.pay("100", "DE1", of("reset", "credential-reset")))
	w.approve(id, "bo")
	w.wantProof(id, OfflineReport{Passkeys: 1, Signatures: 1})
	for name, change := range map[string]func(e *ledger.Entry){
		"rule":     func(e *ledger.Entry) { e.Detail["rule"].(map[string]any)["groups"] = []any{[]any{"finance", "evil"}} },
		"class":    func(e *ledger.Entry) { e.Detail["class_digest"] = e.Detail["template_digest"] },
		"template": func(e *ledger.Entry) { e.Detail["template_digest"] = e.Detail["class_digest"] },
		"deadline": func(e *ledger.Entry) { e.Detail["expires"] = "2027-03-02T09:15:00.000000Z" },
	} {
		p := w.proof(id)
		_, err := p.Verify(func(r ledger.Receipt) (*ledger.Entry, error) {
			e, err := openReceipt(r)
			if err == nil && e.Kind == ledger.ApprovalRequested {
				change(e)
			}
			return e, err
		})
		if err == nil || !strings.Contains(err.Error(), "another rule, class or deadline") {
			t.Errorf("another %s: %v", name, err)
		}
	}
	p := w.proof(id)
	p.Call = jsontext.Value(strings.Replace(string(p.Call), `"100"`, `"900"`, 1))
	if _, err := p.Verify(openReceipt); err == nil {
		t.Error("another call is shown")
	}
}
