package web_test

import (
	"encoding/json"
	"testing"

	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestAChangeThatTwoSigned: it takes effect at once, and the log alone shows that two
// people let it be.
func TestAChangeThatTwoSigned(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	bo, cy := s.loggedIn("bo"), s.loggedIn("cy")
	a := s.admin("POST", "/api/v1/apply", map[string]any{"files": []map[string]string{{"name": "a.yaml", "data": "{kind: Person, name: eve, groups: [finance]}"}}})
	var out struct{ Proposal *struct{ Approval string } }
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || out.Proposal == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, b := range []*browser{bo, cy} {
		if a := b.decide(out.Proposal.Approval, "approve"); a.status != 200 {
			t.Fatalf("signing: %d %s", a.status, a.body)
		}
	}
	if err := s.auth.SettleChanges(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, registry := s.auth.Policy(); registry.People["eve"] == nil {
		t.Fatal("eve is not there")
	}
	feed := func(but ledger.Kind) error {
		var o approval.Offline
		for _, e := range s.since(0, "") {
			if e.Kind == but {
				continue
			}
			if err := o.Add(e); err != nil {
				return err
			}
		}
		return nil
	}
	if err := feed(""); err != nil {
		t.Errorf("the log: %v", err)
	}
	for _, kind := range []ledger.Kind{ledger.ApprovalRequested, ledger.ApprovalSigned, ledger.ChangeProposed} {
		if feed(kind) == nil {
			t.Errorf("the log verifies without its %s", kind)
		}
	}
}
