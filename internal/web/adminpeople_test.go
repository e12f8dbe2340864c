package web_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// TestNewPeopleGetACode: once, in the answer of the apply that made them.
func TestNewPeopleGetACode(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	type change struct {
		Name, Verb string
		Code       string `json:"enrolment_code"`
		URL        string `json:"enrolment_url"`
	}
	apply := func(yaml string, dryRun bool) []change {
		t.Helper()
		a := s.admin("POST", "/api/v1/apply", map[string]any{"files": []map[string]string{{"name": "a.yaml", "data": yaml}}, "dry_run": dryRun})
		var out struct{ Changes []change }
		if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return out.Changes
	}
	const dee = "{kind: Person, name: dee, email: dee@example.com}\n---\n{kind: Class, name: write, tier: routine}\n"
	if ch := apply(dee, true); len(ch) != 2 || ch[0].Code != "" || ch[1].Code != "" {
		t.Errorf("a dry run: %+v", ch)
	}
	ch := apply(dee, false)
	code := ""
	for _, c := range ch {
		if (c.Name == "dee") != (c.Code != "") {
			t.Errorf("%+v", c)
		}
		if c.Name == "dee" {
			code = c.Code
			if !strings.HasPrefix(code, "cfe_") || c.URL != "http://localhost:8421/enrol#"+code {
				t.Errorf("%+v", c)
			}
		}
	}
	if ch := apply(dee, false); ch[0].Code != "" || ch[1].Code != "" {
		t.Errorf("again: %+v", ch)
	}
	if ch := apply("{kind: Person, name: dee, email: dee@example.org}", false); ch[0].Verb != "update" || ch[0].Code != "" {
		t.Errorf("an update: %+v", ch)
	}
	b := &browser{s: s, person: "dee", phone: s.phone()}
	if a := b.enrol(code); a.status != 201 {
		t.Errorf("enrolling with it: %d %s", a.status, a.body)
	}
	for _, e := range s.entries("") {
		if text, _ := json.Marshal(e); strings.Contains(string(text), code) {
			t.Errorf("the code is in entry %d", e.Index)
		}
	}
}

// TestAGonePersonIsResumedFirst: a name that is declared again is as it was.
func TestAGonePersonIsResumedFirst(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	const dee = "{kind: Person, name: dee, email: dee@example.com}"
	s.apply(dee)
	if a := s.admin("POST", "/api/v1/revocations", map[string]any{"kind": "person", "id": "dee", "reason": "left"}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	again := func() answer {
		t.Helper()
		if a := s.admin("DELETE", "/api/v1/people/dee", nil); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return s.apply(dee)
	}
	if a := again(); !strings.Contains(a.body, "counterfoil person resume dee, and then counterfoil person enroll-code dee") || strings.Contains(a.body, "cfe_") {
		t.Errorf("declared again: %s", a.body)
	}
	if a := s.admin("POST", "/api/v1/people/dee/resume", map[string]any{"reason": "is back"}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := again(); strings.Contains(a.body, "resume") || !strings.Contains(a.body, "cfe_") {
		t.Errorf("declared again once resumed: %s", a.body)
	}
}

func TestPersonCodes(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	ask := func(person string, body any) answer {
		return s.admin("POST", "/api/v1/people/"+person+"/enroll-code", body)
	}
	a := ask("bo", nil)
	if a.status != 200 || a.member("how") != "first" || a.member("person") != "bo" || a.member("expires_at") != "2026-11-21T10:00:00Z" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	wantProblem(t, ask("nobody", nil), 404, counterfoil.ToolUnknown)
	wantProblem(t, ask("bo", map[string]any{"reset": true, "person": "cy"}), 400, counterfoil.PayloadMalformed)
	b := &browser{s: s, person: "bo", phone: s.phone()}
	if a := b.enrol(a.member("code")); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := ask("bo", map[string]any{}); a.member("how") != "added" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// A code that is a day old is over.
	late := ask("bo", map[string]any{"reset": true})
	if late.member("how") != "reset" {
		t.Errorf("%d %s", late.status, late.body)
	}
	s.clock.Advance(24 * time.Hour)
	again := &browser{s: s, person: "bo", phone: s.phone()}
	wantProblem(t, again.enrol(late.member("code")), 400, counterfoil.EnrolmentRefused)
}

// TestTheSocketShowsApprovals: all of them, and approves none.
func TestTheSocketShowsApprovals(t *testing.T) {
	t.Parallel()
	s := newOffice(t)
	id := s.held(s.enrol("payroll"), "12.50")
	if a := s.admin("GET", "/api/v1/approvals?state=pending", nil); a.status != 200 || !strings.Contains(a.body, id) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.admin("GET", "/api/v1/approvals?state=denied", nil); a.status != 200 || strings.Contains(a.body, id) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.admin("GET", "/api/v1/approvals/"+id, nil); a.status != 200 || a.member("may_sign") != "false" || !strings.Contains(a.body, "12.50") {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, path := range []string{"/api/v1/approvals/apr_none", "/api/v1/approvals?state=pending&state=denied", "/api/v1/approvals?decision=approve"} {
		if a := s.admin("GET", path, nil); a.status != 404 && a.status != 400 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
