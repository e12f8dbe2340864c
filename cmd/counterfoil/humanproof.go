package main

import (
	"bytes"

	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

// A humanProof verifies what people signed, while an export is read.
type humanProof struct{ offline approval.Offline }

// peopleProof is what a verification found of people.
type peopleProof struct {
	Passkeys   int `json:"passkeys"`   // that were enrolled
	Assertions int `json:"assertions"` // that verified
	Calls      int `json:"calls"`      // that were allowed with an approval, each with the people that its rule asks for
}

// add takes the next entry.
func (h *humanProof) add(entry []byte) error {
	if besidePeople(entry) {
		return nil
	}
	e, err := ledger.Parse(entry)
	if err != nil {
		return err
	}
	return h.offline.Add(e)
}

func (h *humanProof) report() *peopleProof {
	r := h.offline.Report()
	return &peopleProof{r.Passkeys, r.Signatures, r.Calls}
}

// besidePeople reports whether an entry has surely nothing to do with people: it
// spares the reading of most entries of most logs. Whoever holds the log's key may
// have written it to mislead, so only a plain spelling is believed: one kind and one
// tier in the whole text, and nothing escaped.
func besidePeople(entry []byte) bool {
	if bytes.IndexByte(entry, '\\') >= 0 || bytes.Count(entry, []byte(`"kind"`)) != 1 {
		return false
	}
	for _, kind := range [...]ledger.Kind{ledger.CallFinished, ledger.TokenIssued, ledger.TokenRefused, ledger.RefusedAggregate} {
		if bytes.Contains(entry, []byte(`"kind":"`+string(kind)+`"`)) {
			return true
		}
	}
	return bytes.Contains(entry, []byte(`"kind":"`+string(ledger.CallDecided)+`"`)) &&
		!bytes.Contains(entry, []byte(`"approval"`)) &&
		bytes.Count(entry, []byte(`"tier"`)) == 1 && bytes.Contains(entry, []byte(`"tier":"routine"`))
}
