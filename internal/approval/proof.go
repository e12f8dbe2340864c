package approval

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// ProofFormat is the format member of a Proof.
const ProofFormat = "counterfoil/approval-proof/1"

// A Proof is what shows one approval to somebody who has the log's public key and
// nothing else of ours: the text that was signed, as far as it is kept, and a receipt
// for each entry of the approval, of the passkeys that signed it, and of the call.
//
// It shows that these entries are in the log and that people signed that text. It
// cannot show what is not in it, such as that a passkey ended later: an export of the
// whole log does.
type Proof struct {
	Format string `json:"format"` // first, so that a reader knows what follows

	Approval  string         `json:"approval"`
	Statement jsontext.Value `json:"statement,omitzero"`
	Rendering jsontext.Value `json:"rendering,omitzero"`
	Call      jsontext.Value `json:"call,omitzero"`

	Receipts []ledger.Receipt `json:"receipts"` // by index
}

// NewProof makes the proof of an approval as it is shown, with its receipts.
func NewProof(v *View, receipts []ledger.Receipt) (Proof, error) {
	p := Proof{Format: ProofFormat, Approval: v.ID, Statement: v.Statement, Call: v.Call, Receipts: receipts}
	if v.Rendering != nil {
		b, err := v.Rendering.write()
		if err != nil {
			return Proof{}, err
		}
		p.Rendering = b
	}
	return p, nil
}

// Verify checks every receipt with open, every assertion in their entries, and that
// the text is what was signed.
func (p *Proof) Verify(open func(ledger.Receipt) (*ledger.Entry, error)) (OfflineReport, error) {
	if p.Format != ProofFormat {
		return OfflineReport{}, fmt.Errorf("the proof is of the format %.40q, not %s", p.Format, ProofFormat)
	}
	var o Offline
	for i, r := range p.Receipts {
		if i > 0 && r.Index <= p.Receipts[i-1].Index {
			return OfflineReport{}, errors.New("the receipts are not in the order of the log")
		}
		e, err := open(r)
		if err != nil {
			return OfflineReport{}, fmt.Errorf("the receipt of entry %d: %w", r.Index, err)
		}
		// What let a signer's passkey count before its time is verified with it.
		if e.Approval.ID != "" && e.Approval.ID != p.Approval && e.Tool != changeTool(counterfoil.ChangeRelease) {
			return OfflineReport{}, fmt.Errorf("entry %d is of another approval", e.Index)
		}
		if err := o.Add(e); err != nil {
			return OfflineReport{}, fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	asked := o.approvals[p.Approval]
	if asked == nil {
		return OfflineReport{}, errors.New("the receipts have no entry that asks for the approval")
	}
	return o.Report(), p.verifyText(asked)
}

// verifyText checks that the text is the one of the digest that the log has and that
// every challenge was made of, and says of rule, class and deadline what the log says.
// Where it was erased there is nothing to check.
func (p *Proof) verifyText(asked *offlineApproval) error {
	if p.Statement == nil && p.Rendering == nil && p.Call == nil {
		return nil
	}
	s, err := asked.states(p.Statement)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name, want string
		digest     func([]byte) string
		text       []byte
	}{{"call", s.CallDigest, counterfoil.CallDigest, p.Call}, {"rendering", s.RenderingDigest, renderingDigest, p.Rendering}} {
		text, err := ijson.Canonical(part.text)
		if err != nil {
			return fmt.Errorf("reading the %s: %w", part.name, err)
		}
		if part.digest(text) != part.want {
			return fmt.Errorf("the %s is not the one that was signed", part.name)
		}
	}
	return nil
}

// A Log is where the entries of a proof are found.
type Log interface {
	// Entry returns the exact bytes of an entry that exists.
	Entry(ctx context.Context, index int64) ([]byte, error)
	// Find returns the newest entries that the filter chooses, newest first.
	Find(ctx context.Context, f ledger.Filter) ([]*ledger.Entry, error)
}

// ProofEntries returns the indices, in order, of the entries that a proof of the
// approval needs. The agent's looks are none of them, however many there are.
func ProofEntries(ctx context.Context, log Log, v *View) ([]int64, error) {
	g := gathering{log: log, found: map[int64]bool{}, done: map[string]bool{}}
	if err := g.approval(ctx, v.ID, v.Created); err != nil {
		return nil, err
	}
	if v.Entry > 0 {
		if err := g.call(ctx, v.Entry, v.Created); err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(g.found)), nil
}

// A gathering collects the entries of a proof.
type gathering struct {
	log   Log
	found map[int64]bool
	done  map[string]bool // approvals
}

// all returns every entry that the filter chooses.
func (g *gathering) all(ctx context.Context, f ledger.Filter) ([]*ledger.Entry, error) {
	var out []*ledger.Entry
	f.Limit = 1000
	if !f.Since.IsZero() {
		f.Since = f.Since.Add(-time.Minute) // the log's clock and ours may differ by a little
	}
	for {
		page, err := g.log.Find(ctx, f)
		if err != nil {
			return nil, err
		}
		if out = append(out, page...); len(page) < f.Limit {
			return out, nil
		}
		f.Before = page[len(page)-1].Index
	}
}

// approval collects the entries of an approval and of the passkeys that signed it.
func (g *gathering) approval(ctx context.Context, id string, since time.Time) error {
	if g.done[id] {
		return nil
	}
	g.done[id] = true
	for _, kind := range []ledger.Kind{ledger.ApprovalRequested, ledger.ApprovalSigned, ledger.ApprovalClosed, ledger.ChangeProposed, ledger.ChangeClosed} {
		entries, err := g.all(ctx, ledger.Filter{Kind: kind, Approval: id, Since: since})
		if err != nil {
			return err
		}
		for _, e := range entries {
			g.found[e.Index] = true
			if err := g.aboutPasskey(ctx, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// aboutPasskey collects the entry that enrolled the passkey that an entry names and,
// where it signed before it counted by itself, what released it.
func (g *gathering) aboutPasskey(ctx context.Context, e *ledger.Entry) error {
	enrolled, ok := e.Detail["enrolled"].(float64) // of a signature and of what asks to release one
	if !ok {
		return nil
	}
	index := int64(enrolled)
	b, err := g.log.Entry(ctx, index)
	if err != nil {
		return err
	}
	entry, err := ledger.Parse(b)
	if err != nil {
		return err
	}
	k, err := readEnrolled(entry)
	if err != nil {
		return fmt.Errorf("reading entry %d: %w", index, err)
	}
	g.found[index] = true
	at, err := e.When()
	if err != nil || e.Kind != ledger.ApprovalSigned || !at.Before(k.UsableFrom) {
		return err
	}
	since, err := entry.When()
	if err != nil {
		return err
	}
	closed, err := g.all(ctx, ledger.Filter{Kind: ledger.ChangeClosed, Since: since, Before: e.Index})
	if err != nil {
		return err
	}
	for _, c := range closed {
		if c.Detail["verb"] == counterfoil.ChangeRelease && c.Detail[fieldCredential] == encode(k.ID) {
			return g.approval(ctx, c.Approval.ID, since)
		}
	}
	return nil
}

// call collects a decision and its end.
func (g *gathering) call(ctx context.Context, index int64, since time.Time) error {
	b, err := g.log.Entry(ctx, index)
	if err != nil {
		return err
	}
	e, err := ledger.Parse(b)
	if err != nil {
		return err
	}
	g.found[index] = true
	ends, err := g.all(ctx, ledger.Filter{Kind: ledger.CallFinished, RequestID: e.RequestID, Since: since})
	if err != nil {
		return err
	}
	for _, end := range ends {
		if end.Of == index {
			g.found[end.Index] = true
		}
	}
	return nil
}
