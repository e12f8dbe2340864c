package ledger

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil/ijson"
)

// A Receipt shows that one entry is in the log, to somebody who has neither
// the log nor its other entries: the entry, the path from it to the root, and
// the checkpoint that signs the root.
type Receipt struct {
	Entry      jsontext.Value `json:"entry"`
	Index      int64          `json:"index"`
	Proof      []tlog.Hash    `json:"proof"` // RFC 6962 audit path, from the leaf upwards
	Checkpoint string         `json:"checkpoint"`
}

// MakeReceipt makes the receipt of the entry at index, whose exact bytes are
// entry, under a checkpoint that covers it. It does not return a receipt that
// would not verify.
func MakeReceipt(r tlog.HashReader, entry []byte, index int64, c Checkpoint) (Receipt, error) {
	if index < 0 || index >= c.Size {
		return Receipt{}, fmt.Errorf("making a receipt: entry %d is not among the %d entries of the checkpoint", index, c.Size)
	}
	proof, err := tlog.ProveRecord(c.Size, index, r)
	if err != nil {
		return Receipt{}, fmt.Errorf("making a receipt: %w", err)
	}
	if err := tlog.CheckRecord(proof, c.Size, c.Hash, index, tlog.RecordHash(entry)); err != nil {
		return Receipt{}, fmt.Errorf("making a receipt for entry %d: the log is damaged: %w", index, err)
	}
	return Receipt{Entry: bytes.Clone(entry), Index: index, Proof: proof, Checkpoint: string(c.Note)}, nil
}

// ParseReceipt reads a receipt. White space between tokens is allowed, as
// people keep receipts in all kinds of files.
func ParseReceipt(b []byte) (Receipt, error) {
	var r Receipt
	if err := ijson.Unmarshal(b, &r); err != nil {
		return Receipt{}, fmt.Errorf("reading a receipt: %w", err)
	}
	return r, nil
}

// Verify checks the receipt with the log's public key and returns the entry
// that it shows.
func (r Receipt) Verify(verifier note.Verifier) (*Entry, error) {
	c, err := OpenCheckpoint([]byte(r.Checkpoint), verifier)
	if err != nil {
		return nil, err
	}
	entry, err := ijson.Canonical(r.Entry)
	if err != nil {
		return nil, fmt.Errorf("the receipt's entry was changed: %w", err)
	}
	if r.Index < 0 || r.Index >= c.Size || len(r.Proof) > 63 {
		return nil, fmt.Errorf("the receipt is for entry %d, its checkpoint signs %d entries", r.Index, c.Size)
	}
	if err := tlog.CheckRecord(r.Proof, c.Size, c.Hash, r.Index, tlog.RecordHash(entry)); err != nil {
		return nil, errors.New("entry, proof and checkpoint do not belong together: the receipt was changed")
	}
	e, err := Parse(entry)
	if err != nil {
		return nil, err
	}
	if e.Index != r.Index {
		return nil, fmt.Errorf("the receipt's entry says that it is entry %d, not %d", e.Index, r.Index)
	}
	return e, nil
}

// Encode writes the receipt as ParseReceipt reads it.
func (r Receipt) Encode() ([]byte, error) { return ijson.Marshal(r) }
