package approval

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

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
	asked := ""
	for i, r := range p.Receipts {
		if i > 0 && r.Index <= p.Receipts[i-1].Index {
			return OfflineReport{}, errors.New("the receipts are not in the order of the log")
		}
		e, err := open(r)
		if err != nil {
			return OfflineReport{}, fmt.Errorf("the receipt of entry %d: %w", r.Index, err)
		}
		if e.Approval.ID != "" && e.Approval.ID != p.Approval {
			return OfflineReport{}, fmt.Errorf("entry %d is of another approval", e.Index)
		}
		if err := o.Add(e); err != nil {
			return OfflineReport{}, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if e.Kind == ledger.ApprovalRequested {
			asked, _ = e.Detail["approval_digest"].(string)
		}
	}
	if asked == "" {
		return OfflineReport{}, errors.New("the receipts have no entry that asks for the approval")
	}
	return o.Report(), p.verifyText(asked)
}

// verifyText checks that the text is the one of the digest that the log has and that
// every challenge was made of. Where it was erased there is nothing to check.
func (p *Proof) verifyText(asked string) error {
	if p.Statement == nil && p.Rendering == nil && p.Call == nil {
		return nil
	}
	text, err := ijson.Canonical(p.Statement)
	if err != nil {
		return fmt.Errorf("reading the statement: %w", err)
	}
	if digest(prefixApproval, text) != asked {
		return errors.New("the statement is not the one that was signed")
	}
	var s statement
	if err := ijson.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("reading the statement: %w", err)
	}
	if s.ID != p.Approval {
		return errors.New("the statement is of another approval")
	}
	for _, part := range []struct {
		name, prefix, want string
		text               []byte
	}{{"call", prefixCall, s.CallDigest, p.Call}, {"rendering", "", s.RenderingDigest, p.Rendering}} {
		text, err := ijson.Canonical(part.text)
		if err != nil {
			return fmt.Errorf("reading the %s: %w", part.name, err)
		}
		if digest(part.prefix, text) != part.want {
			return fmt.Errorf("the %s is not the one that was signed", part.name)
		}
	}
	return nil
}
