package store

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// put applies documents, with whatever else the change does.
func (s *subject) put(c counterfoil.Change) error {
	_, c.Base = s.Registry()
	return s.Apply(s.t.Context(), c, []*ledger.Entry{entry(ledger.ConfigApplied, "")})
}

// What a class says of its payloads is what is kept of them.
func suitePayloads(t *testing.T, s *subject) {
	ctx := t.Context()
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{
		document(t, counterfoil.KindClass, "kept", &counterfoil.Class{Name: "kept", Payload: counterfoil.PayloadFull}),
		document(t, counterfoil.KindClass, "usual", &counterfoil.Class{Name: "usual"}),
		document(t, counterfoil.KindClass, "digest", &counterfoil.Class{Name: "digest", Payload: counterfoil.PayloadDigest}),
		document(t, counterfoil.KindClass, "none", &counterfoil.Class{Name: "none", Payload: counterfoil.PayloadNone}),
	}}))
	const payload = `{"amount":"100"}`
	for _, tt := range []struct {
		class      string
		full, salt bool
	}{
		{"kept", true, true},
		{"usual", false, true},
		{"digest", false, true},
		{"", false, true},
		{"a class that is gone", false, true},
		{"none", false, false},
	} {
		e := decided("payroll")
		e.Class, e.Decision, e.Code = tt.class, ledger.Refuse, counterfoil.PolicyForbids
		s.wantDone(s.Decide(ctx, e, []byte(payload)))
		if e.PayloadCommitment == "" {
			t.Errorf("class %q: the log has no commitment", tt.class)
		}
		salt, kept, err := s.Payload(ctx, e.Index)
		switch {
		case !tt.salt:
			if !errors.Is(err, ErrNoEntry) {
				t.Errorf("class %q: kept is %q, salt %x, %v", tt.class, kept, salt, err)
			}
		case err != nil || ledger.Commitment(salt, []byte(payload)) != e.PayloadCommitment:
			t.Errorf("class %q: the commitment cannot be checked: %v", tt.class, err)
		case tt.full != (string(kept) == payload) || !tt.full && len(kept) != 0:
			t.Errorf("class %q: kept is %q", tt.class, kept)
		}
	}
}

// A pin that no person looked at never takes the place of another.
func suiteFirstSight(t *testing.T, s *subject) {
	ctx := t.Context()
	first := func(tool, digest string) error {
		return s.PinTool(ctx, "bank", tool, digest, counterfoil.PinFirstSight, entry(ledger.ToolPinned, ""))
	}
	wantPin := func(tool, digest, how string) {
		t.Helper()
		if d, ok := s.Pin("bank", tool); d != digest || ok != (digest != "") || s.PinHow("bank", tool) != how {
			t.Errorf("%s is pinned to %q by %q, want %q by %q", tool, d, s.PinHow("bank", tool), digest, how)
		}
	}
	s.wantDone(first("get", "seen"))
	wantPin("get", "seen", counterfoil.PinFirstSight)
	s.wantDone(s.PinTool(ctx, "bank", "get", "vetted", "apply", entry(ledger.ToolPinned, "")))
	wantPin("get", "vetted", "apply")
	size := s.size()
	s.wantDone(first("get", "seen"))
	if s.size() != size {
		t.Error("a pin that was not made is recorded")
	}
	for range 2 {
		wantPin("get", "vetted", "apply")
		s.reopen()
	}
}

// Pins go with their resource, and those that nobody looked at when their tool
// comes to need a person.
func suiteUnpin(t *testing.T, s *subject) {
	ctx := t.Context()
	pin := func(resource, tool, how string) {
		t.Helper()
		s.wantDone(s.PinTool(ctx, resource, tool, "d", how, entry(ledger.ToolPinned, "")))
	}
	pinned := func() string {
		out := ""
		for _, r := range []string{"bank", "crm"} {
			for _, tool := range []string{"seen", "vetted"} {
				if d, ok := s.Pin(r, tool); ok {
					out += " " + r + "/" + tool + "=" + d
				}
			}
		}
		return out
	}
	bank := document(t, counterfoil.KindResource, "bank", &counterfoil.Resource{Name: "bank", Type: "mcp"})
	crm := document(t, counterfoil.KindResource, "crm", &counterfoil.Resource{Name: "crm", Type: "mcp"})
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{bank, crm}}))
	for _, r := range []string{"bank", "crm"} {
		pin(r, "seen", counterfoil.PinFirstSight)
		pin(r, "vetted", "apply")
	}
	if got := pinned(); got != " bank/seen=d bank/vetted=d crm/seen=d crm/vetted=d" {
		t.Fatalf("pinned are%s", got)
	}
	// The change as a whole is refused, so nothing of it stays.
	all := []counterfoil.ToolID{{Resource: "bank", Tool: "seen"}, {Resource: "bank", Tool: "vetted"}, {Resource: "bank", Tool: "gone"}}
	if err := s.put(counterfoil.Change{Unpin: all, Delete: []counterfoil.DocKey{
		{Kind: counterfoil.KindResource, Name: "crm"}, {Kind: counterfoil.KindClass, Name: "nowhere"},
	}}); err == nil {
		t.Error("what is not there was deleted")
	}
	if got := pinned(); got != " bank/seen=d bank/vetted=d crm/seen=d crm/vetted=d" {
		t.Errorf("after a change that was not made, pinned are%s", got)
	}
	s.wantDone(s.put(counterfoil.Change{Unpin: all, Delete: []counterfoil.DocKey{{Kind: counterfoil.KindResource, Name: "crm"}}}))
	for range 2 {
		if got := pinned(); got != " bank/vetted=d" {
			t.Errorf("pinned are%s", got)
		}
		s.reopen()
	}
	// A later resource of that name begins without pins.
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{crm}}))
	if got := pinned(); got != " bank/vetted=d" {
		t.Errorf("after the name came back, pinned are%s", got)
	}
}

// A change that narrows an agent voids its tokens, in the same commit.
func suiteVoid(t *testing.T, s *subject) {
	s.agent("payroll")
	s.agent("planner")
	s.instance("ins_1", "payroll")
	s.instance("ins_2", "planner")
	caller := func(agent, id string) counterfoil.Caller {
		return counterfoil.Caller{Agent: agent, Instance: id, Epoch: s.AgentState(agent).Epoch, JKT: "jkt-" + id}
	}
	payroll, planner := caller("payroll", "ins_1"), caller("planner", "ins_2")
	ctx := t.Context()
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{agentDocument(t, "payroll")}}))
	s.wantDone(s.Revoked(ctx, payroll)) // a change alone voids nothing
	if err := s.put(counterfoil.Change{Void: []string{"payroll", "nobody"}}); err == nil {
		t.Error("the tokens of an agent that is not were voided")
	}
	s.wantDone(s.Revoked(ctx, payroll))
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{agentDocument(t, "payroll")}, Void: []string{"payroll"}}))
	for range 2 {
		s.wantRefused(counterfoil.TokenRevoked, func() error { return s.Revoked(ctx, payroll) })
		s.wantDone(s.Revoked(ctx, planner))
		if st := s.AgentState("payroll"); st.Status != counterfoil.Active || st.Epoch != payroll.Epoch+1 {
			t.Errorf("the agent is %+v, was at epoch %d", st, payroll.Epoch)
		}
		s.wantDone(s.Revoked(ctx, caller("payroll", "ins_1")))
		s.reopen()
	}
}

// How an instance came to be is kept.
func suiteHow(t *testing.T, s *subject) {
	s.agent("payroll")
	s.instance("ins_1", "payroll")
	s.wantDone(s.put(counterfoil.Change{NewKeys: []counterfoil.Instance{instance("ins_2", "payroll")}}))
	for range 2 {
		for id, want := range map[string]string{"ins_1": counterfoil.EnrolledByCode, "ins_2": counterfoil.EnrolledByManifest} {
			if i, _ := s.Instance(id); i.How != want {
				t.Errorf("%s came to be by %q", id, i.How)
			}
		}
		s.reopen()
	}
}

// A first sight that loses to a pin of its own batch is answered when that pin
// is visible: whoever asks then is not told that there is none.
func TestFirstSightInOneBatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gate, entered := make(chan struct{}), make(chan struct{}, 16)
	var hold atomic.Bool
	f.opt.wrap = func(w writer) writer {
		return &faulty{writer: w, before: func(s statement) error {
			if s == commit && hold.CompareAndSwap(true, false) {
				entered <- struct{}{}
				<-gate
			}
			return nil
		}}
	}
	s := f.open()
	hold.Store(true)
	ctx := t.Context()
	done := make(chan error, 3)
	go func() { done <- s.Append(ctx, entry(ledger.ServerStarted, "")) }()
	<-entered // what comes now is the next batch
	go func() {
		done <- s.PinTool(ctx, "bank", "get", "vetted", "apply", entry(ledger.ToolPinned, ""))
	}()
	for waitingFor(s) < 1 {
		runtime.Gosched()
	}
	go func() {
		err := s.PinTool(ctx, "bank", "get", "seen", counterfoil.PinFirstSight, entry(ledger.ToolPinned, ""))
		if d, _ := s.Pin("bank", "get"); err == nil && d != "vetted" {
			err = fmt.Errorf("after the answer the pin is %q", d)
		}
		done <- err
	}()
	for waitingFor(s) < 2 {
		runtime.Gosched()
	}
	close(gate)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := recorded(t, s, ledger.ToolPinned); got != 1 {
		t.Errorf("%d pins are recorded", got)
	}
	f.checkLedger(s, nil)
}

// A database of the first version is taken further: its instances end with their
// manifest, as they did.
func TestInstancesOfTheFirstVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	sub := &subject{t: t, fixture: f, Store: s}
	sub.agent("payroll")
	sub.instance("ins_1", "payroll")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.edit(`ALTER TABLE instances DROP COLUMN how`, `ALTER TABLE instances DROP COLUMN suspected`, `ALTER TABLE instances DROP COLUMN shown`)
	f.edit(`DROP TABLE approvals`, `DROP TABLE signatures`, `DROP TABLE takings`, `DROP TABLE passkeys`, `DROP TABLE person_codes`, `DROP TABLE proposals`)
	f.before7()
	f.edit(`PRAGMA user_version = 1`)
	s = f.open()
	if i, ok := s.Instance("ins_1"); !ok || i.How != counterfoil.EnrolledByManifest || i.Status != counterfoil.Active || !i.Suspected.IsZero() || !i.Shown.IsZero() {
		t.Errorf("the instance is %+v", i)
	}
}
