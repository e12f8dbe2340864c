package web_test

import (
	"encoding/json"
	"testing"

	"github.com/counterfoil/counterfoil/ledger"
)

// TestChangesThatWait: the socket says what waits, and takes it back.
func TestChangesThatWait(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.enrolled("bo")
	type proposal struct{ ID, Verb, Approval, Actor string }
	apply := func(yaml string) (out struct {
		Proposal *proposal
		Changes  []struct {
			Code string `json:"enrolment_code"`
		}
	}) {
		t.Helper()
		a := s.admin("POST", "/api/v1/apply", map[string]any{"files": []map[string]string{{"name": "a.yaml", "data": yaml}}})
		if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return out
	}
	waiting := func() []proposal {
		t.Helper()
		var out struct{ Changes []proposal }
		a := s.admin("GET", "/api/v1/changes", nil)
		if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return out.Changes
	}
	if out := apply("{kind: Person, name: dee}"); out.Proposal != nil || len(waiting()) > 0 || out.Changes[0].Code == "" {
		t.Errorf("what widens nothing: %+v", out)
	}
	out := apply("{kind: Person, name: eve, groups: [finance]}")
	if out.Proposal == nil || out.Proposal.ID == "" || out.Proposal.Approval == "" || out.Changes[0].Code != "" {
		t.Fatalf("what widens: %+v", out)
	}
	if got := waiting(); len(got) != 1 || got[0] != *out.Proposal {
		t.Errorf("%+v wait", got)
	}
	if a := s.admin("GET", "/api/v1/people/eve", nil); a.status != 404 {
		t.Errorf("eve is there: %d", a.status)
	}
	for want, path := range map[int]string{200: out.Proposal.ID, 404: "prp_none"} {
		if a := s.admin("DELETE", "/api/v1/changes/"+path, nil); a.status != want {
			t.Errorf("withdrawing %s: %d %s", path, a.status, a.body)
		}
	}
	if got := waiting(); len(got) != 0 || len(s.entries(ledger.ChangeClosed)) != 1 {
		t.Errorf("%+v wait", got)
	}
}
