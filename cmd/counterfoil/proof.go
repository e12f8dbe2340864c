package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

// maxProof bounds the file of a proof, in bytes: a call of 4 MiB and its receipts.
const maxProof = 16 << 20

// peekProof reads r as the proof of an approval, if it is one; otherwise r is unread.
func peekProof(r *bufio.Reader) ([]byte, bool) {
	begin := `{"format":"` + approval.ProofFormat + `"`
	if head, err := r.Peek(len(begin)); err != nil || string(head) != begin {
		return nil, false
	}
	b, err := io.ReadAll(io.LimitReader(r, maxProof))
	return b, err == nil
}

// verifyProof verifies the proof of one approval: what was signed, and by whom.
func verifyProof(b []byte, opt ledger.VerifyOptions) (verified, error) {
	if opt.Earlier != nil {
		return verified{}, errors.New("--checkpoint goes with an export or a URL: a proof has some entries and cannot show that a log extends another")
	}
	var p approval.Proof
	if err := ijson.Unmarshal(b, &p); err != nil {
		return verified{}, fmt.Errorf("reading the proof: %w", err)
	}
	v := verified{Of: "proof of approval " + p.Approval}
	report, err := p.Verify(func(r ledger.Receipt) (*ledger.Entry, error) {
		e, err := r.Verify(opt.Verifier)
		if err != nil {
			return nil, err
		}
		if v.First == "" {
			v.First = e.Time
		}
		v.Last = e.Time
		return e, nil
	})
	if err != nil {
		return verified{}, err
	}
	c, err := ledger.OpenCheckpoint([]byte(p.Receipts[len(p.Receipts)-1].Checkpoint), opt.Verifier)
	if err != nil {
		return verified{}, err
	}
	v.Origin, v.Size, v.Root = c.Origin, c.Size, c.Hash.String()
	v.People = &peopleProof{report.Passkeys, report.Signatures, report.Calls}
	return v, nil
}
