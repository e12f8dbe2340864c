package approval

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

func TestSentence(t *testing.T) {
	t.Parallel()
	fields := map[string]string{"amount": "100", "to": "DE\u202e1", "odd": "{{.amount}}", "empty": ""}
	for template, want := range map[string]string{
		"":                              "",
		"Pay {{.amount}} to {{.to}}":    "Pay 100 to DE⟨U+202E⟩1",
		"Pay {{ .amount }}.":            "Pay 100.",
		"{{.odd}}":                      "{{.amount}}", // a value is no template
		"{{.missing}} EUR":              "⟨absent⟩ EUR",
		"[{{.empty}}]":                  "[]",
		"{{range .}}":                   "⟨unreadable template⟩",
		"a {{.amount":                   "a ⟨unreadable template⟩",
		"{{amount}} b":                  "⟨unreadable template⟩",
		"<b>{{.amount}}</b>":            "<b>100</b>",
		"Pay {{.amount}} {{.amount}}{{": "Pay 100 100⟨unreadable template⟩",
	} {
		if got := plain(sentence(template, fields)); got != want {
			t.Errorf("sentence(%q) = %q, want %q", template, got, want)
		}
	}
	marked := sentence("Pay {{.amount}} EUR", fields)
	if len(marked) != 3 || !marked[1].Value || marked[0].Value || marked[2].Value {
		t.Errorf("values are not marked: %+v", marked)
	}
}

func TestWhatPeopleAreShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	first := w.pay("100", "DE1")
	w.approve(w.ask(first), "bo", "cy")
	firstID, _ := w.run(first)

	id := w.ask(w.pay("250", "DЕ1", func(c *counterfoil.GuardedCall) {
		c.Words = "urgent\u202e" + strings.Repeat("!", 2000)
		c.Caller.Subject = "cy"
		delete(c.Fields, "currency")
	}))
	v, err := w.View(t.Context(), "bo", id)
	wantDone(t, err)
	r := v.Rendering
	if plain(v.Sentence) != "Pay 250 ⟨absent⟩ to DЕ1" || r.Owner != "ana" || r.OnBehalfOf != "cy" || r.Purpose != "monthly payroll run" ||
		r.Environment != "prod" || r.Tier != counterfoil.Irreversible || !strings.Contains(r.Irrevocable, "cannot be undone") ||
		!strings.Contains(r.Why, "2 people of finance have to say yes") || !slices.Contains(r.Absent, "fields/currency") || !slices.Contains(r.Absent, "actors") {
		t.Errorf("the rendering is %+v", r)
	}
	if !strings.Contains(seen(v.Sentence), "?DЕ1?") {
		t.Errorf("a look-alike is not marked: %s", seen(v.Sentence))
	}
	if words := plain(v.Words); !strings.HasPrefix(words, "urgent⟨U+202E⟩!") || len(words) > 1200 {
		t.Errorf("the agent's words are %q", words)
	}
	if v.Tree == nil || v.Tree.Type != "object" || counterfoil.CallDigest(v.Call) != w.approval(id).CallDigest {
		t.Errorf("the call is %s", v.Call)
	}
	if digest(prefixApproval, v.Statement) != v.Digest {
		t.Error("the statement is not the one of the digest")
	}
	if v.Similar == nil || v.Similar.ID != firstID || v.Similar.State != counterfoil.StateSucceeded {
		t.Fatalf("similar is %+v", v.Similar)
	}
	paths := map[string]bool{}
	for _, d := range v.Similar.Differences {
		paths[d.Path] = true
	}
	if len(paths) != 3 || !paths["/arguments/amount"] || !paths["/arguments/to"] || !paths["/subject"] {
		t.Errorf("differences: %+v", v.Similar.Differences)
	}
	if len(v.Limits) != 1 || v.Limits[0].Amount != "250" || v.Limits[0].Max != "1000" {
		t.Errorf("limits: %+v", v.Limits)
	}

	// No template: the payload is all there is, and it is said.
	id = w.ask(w.pay("100", "DE1", of("reset", "credential-reset")))
	if v, err := w.View(t.Context(), "bo", id); err != nil || !v.NoTemplate || plain(v.Sentence) != "bank/reset" {
		t.Errorf("without a template: %+v, %v", v.Sentence, err)
	}
	n := w.told(EventRequested)
	if len(n) != 3 || n[1].Sentence != "Pay 250 ⟨absent⟩ to DЕ1" || n[1].URL != testOrigin+"/approvals/"+n[1].Approval || !slices.Equal(n[0].People, []string{"bo", "cy", "ed"}) {
		t.Errorf("told: %+v", n)
	}
}

// For who may not see it there is no such approval.
func TestWhoSeesAnApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	id := w.ask(w.pay("100", "DE1", of("reset", "credential-reset")))
	for name, sees := range map[string]bool{"": true, "ana": true, "gus": true, "bo": true, "cy": true, "di": false, "fay": false, "nobody": false} {
		_, err := w.View(t.Context(), name, id)
		if (err == nil) != sees || err != nil && counterfoil.CodeOf(err) != counterfoil.ToolUnknown {
			t.Errorf("%q: %v", name, err)
		}
		list, err := w.List(t.Context(), name, counterfoil.ApprovalFilter{})
		if err != nil || (len(list) == 1) != sees {
			t.Errorf("%q lists %d, %v", name, len(list), err)
		}
		inbox, err := w.Inbox(t.Context(), name)
		if err != nil || (len(inbox) == 1) != (name == "bo" || name == "cy" || name == "ed") {
			t.Errorf("%q has %d in the inbox, %v", name, len(inbox), err)
		}
	}
	_, err := w.View(t.Context(), "", "apr_none")
	wantRefused(t, err, counterfoil.ToolUnknown)
	v, err := w.View(t.Context(), "ana", id)
	if err != nil || v.MaySign || v.WhyNot == "" {
		t.Errorf("the owner sees %t, %q, %v", v.MaySign, v.WhyNot, err)
	}
	// Once it is decided, whoever signed still sees it, in the group or not.
	w.approve(id, "bo")
	w.personDoc("bo", func(p *counterfoil.Person) { p.Groups = nil })
	if _, err := w.View(t.Context(), "bo", id); err != nil {
		t.Errorf("a signer: %v", err)
	}
}

// What differs from an earlier call is for those who may see the earlier call.
func TestDifferencesAreForWhoMaySee(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	first := w.pay("100", "DE1", of("reset", "credential-reset"))
	w.approve(w.ask(first), "bo")
	w.run(first)
	// The tool is of another class now, which other people decide.
	w.class("credential-reset", func(c *counterfoil.Class) { c.Approvers = [][]string{{"audit"}} })
	id := w.ask(w.pay("200", "DE2", of("reset", "credential-reset")))
	for viewer, sees := range map[string]bool{"": true, "gus": true, "ed": true, "di": false} {
		v, err := w.View(t.Context(), viewer, id)
		if err != nil || v.Similar == nil || v.Similar.Erased == sees || (len(v.Similar.Differences) > 0) != sees {
			t.Errorf("%q sees %+v, %v", viewer, v.Similar, err)
		}
	}
}

// What is of a size that nobody reads is cut, and says so.
func TestALargeCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	big := strings.Repeat("é", 1<<19)
	c := w.pay("100", "DE1")
	var err error
	members := map[string]any{}
	for i := range 3000 {
		members[fmt.Sprintf("m%04d", i)] = i
	}
	c.Call, err = ijson.Marshal(map[string]any{"v": 1, "arguments": map[string]any{"big": big, "many": members}})
	wantDone(t, err)
	c.Fields["to"] = big
	v, err := w.View(t.Context(), "bo", w.ask(c))
	wantDone(t, err)
	if len(v.Rendering.Fields["to"]) > 3000 || !strings.Contains(v.Rendering.Fields["to"], "1048576 bytes") {
		t.Errorf("a field has %d bytes", len(v.Rendering.Fields["to"]))
	}
	arguments := v.Tree.Children[0]
	cutText, many := arguments.Children[0], arguments.Children[1]
	if cutText.Length != 1<<20 || cutText.Digest == "" || many.More < 500 || len(many.Children) > maxCost/nodeCost {
		t.Errorf("the tree: %d bytes, %d children, %d more", cutText.Length, len(many.Children), many.More)
	}
}

// A sweep records what expired, and forgets what nobody needs any more.
func TestSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	kept, unused := w.pay("100", "DE1"), w.pay("100", "DE1", of("reset", "credential-reset"))
	full, brief := w.ask(kept), w.ask(unused)
	w.approve(full, "bo", "cy")
	w.run(kept)
	w.approve(brief, "bo")
	undecided := w.ask(w.pay("100", "DE7")) // of a class that keeps payloads
	wantDone(t, w.Sweep(t.Context()))
	if len(w.approval(full).Call) == 0 || len(w.approval(brief).Call) == 0 {
		t.Fatal("what is open or not past its deadline was erased")
	}
	w.clock.Advance(counterfoil.ApprovalUseWindow)
	wantDone(t, w.Sweep(t.Context()))
	w.wantState(brief, counterfoil.StateExpired)
	if len(w.approval(brief).Call) == 0 {
		t.Error("it was erased before its deadline")
	}
	w.clock.Advance(10 * time.Minute)
	wantDone(t, w.Sweep(t.Context()))
	if len(w.approval(brief).Call) != 0 || len(w.approval(full).Call) == 0 {
		t.Error("past the deadline: what the class does not keep goes, what it keeps stays")
	}
	if len(w.approval(undecided).Call) != 0 {
		t.Error("what nobody decided on is kept")
	}
	v, err := w.View(t.Context(), "bo", brief)
	if err != nil || v.Rendering != nil || plain(v.Sentence) != "bank/reset" {
		t.Errorf("what was erased is seen as %+v, %v", v, err)
	}
	w.clock.Advance(24 * time.Hour)
	size := w.store.Size()
	wantDone(t, w.Sweep(t.Context()))
	if a := w.approval(full); len(a.Call) != 0 || len(a.Rendering) != 0 || len(a.Result) != 0 || a.State != counterfoil.StateSucceeded {
		t.Errorf("a day later: %+v", a)
	}
	if w.store.Size() != size+1 {
		t.Errorf("%d entries", w.store.Size()-size)
	}
	wantDone(t, w.Sweep(t.Context()))
	if w.store.Size() != size+1 {
		t.Error("a sweep that does nothing is recorded")
	}
	w.checkLog()
}

// A call that ran late leaves its answer for as long as it takes to fetch it.
func TestAnswersWaitToBeFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	late := w.pay("100", "DE1", of("reset", "credential-reset"), keyed("k1"))
	id := w.ask(late)
	w.clock.Advance(14 * time.Minute)
	w.approve(id, "bo")
	w.run(late)
	w.clock.Advance(14 * time.Minute) // far beyond the deadline
	wantDone(t, w.Sweep(t.Context()))
	if len(w.approval(id).Result) == 0 {
		t.Fatal("the answer went before it could be fetched")
	}
	w.clock.Advance(time.Minute)
	wantDone(t, w.Sweep(t.Context()))
	if len(w.approval(id).Result) != 0 {
		t.Error("the answer stays")
	}
}

func TestPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	id := w.ask(w.pay("100", "DE1"))
	if _, err := w.View(t.Context(), "bo", id); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(40 * time.Second)
	w.approve(id, "bo")
	if _, err := w.sign(w.ask(w.pay("200", "DE1")), "bo", counterfoil.DecisionDeny, "no"); err != nil {
		t.Fatal(err)
	}
	people, err := w.People(t.Context())
	wantDone(t, err)
	if len(people) != 7 || people[1].Name != "bo" {
		t.Fatalf("people: %+v", people)
	}
	bo, cy := people[1], people[2]
	if bo.Approved != 1 || bo.Denied != 1 || bo.Load != 0 || bo.Seconds != 40 || len(bo.Passkeys) != 1 || bo.Passkeys[0].Used.IsZero() {
		t.Errorf("bo is %+v", bo)
	}
	if cy.Load != 1 || cy.Approved != 0 {
		t.Errorf("cy is %+v", cy)
	}
}
