package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// A stuck upstream takes a payment and says nothing until the connection ends.
type stuck struct {
	next    http.Handler
	arrived chan string // the payments that arrived, as they came
}

func (s *stuck) before(next http.Handler) http.Handler {
	s.next = next
	return s
}

func (s *stuck) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	if bytes.Contains(body, []byte(`"tools/call"`)) && bytes.Contains(body, []byte(`"pay"`)) {
		s.arrived <- string(body)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.next.ServeHTTP(w, r)
}

// people enrols passkeys at the victim's console.
func (v *victim) people(names ...string) map[string]*demoPerson {
	v.t.Helper()
	console, err := os.ReadFile(filepath.Join(v.dir, "management.url"))
	if err != nil {
		v.t.Fatal(err)
	}
	all := map[string]*demoPerson{}
	for _, name := range names {
		var code personCode
		if err := ijson.UnmarshalLax([]byte(command(v.t, "", "person", "enroll-code", name, "--data", v.dir, "--json")), &code); err != nil {
			v.t.Fatal(err)
		}
		if all[name], err = newDemoPerson(v.t.Context(), strings.TrimSpace(string(console)), name, code.Code); err != nil {
			v.t.Fatal(err)
		}
	}
	return all
}

// approval returns an approval as the operator sees it.
func (v *victim) approval(id string) approval.View {
	v.t.Helper()
	view, err := readView([]byte(command(v.t, "", "approval", "show", id, "--data", v.dir, "--json")))
	if err != nil {
		v.t.Fatal(err)
	}
	return view
}

// TestKilledBetweenSpendingAndOutcome: a payment that two people signed is on its
// way when the machine dies. Nobody knows whether it happened, so a person finds
// out; it never goes out again.
func TestKilledBetweenSpendingAndOutcome(t *testing.T) {
	t.Parallel()
	upstream := &stuck{arrived: make(chan string, 16)}
	v, _, signer := newVictim(t, upstream)
	people := v.people("ana", "bo", "cy")
	tr, err := agent.NewTransport(agent.Config{Issuer: v.issuer, Agent: "payroll", Signer: signer, Resource: v.issuer + "/r/bank"})
	if err != nil {
		t.Fatal(err)
	}
	pay := func(ctx context.Context, named string) (*counterfoil.Refusal, error) {
		var trip http.RoundTripper = tr
		if named != "" {
			trip = callHeader{tr, "Counterfoil-Approval", named}
		}
		result, err := callTool(ctx, trip, tr.Resource(), "pay", payAcme)
		if err != nil {
			return nil, err
		}
		return refusalOf(result), nil
	}
	want := func(r *counterfoil.Refusal, err error, code counterfoil.Code) *counterfoil.ApprovalStatus {
		t.Helper()
		if err != nil || r == nil || r.Code != code || r.Approval == nil {
			t.Fatalf("the call got %v %v, want %s", r, err, code)
		}
		return r.Approval
	}
	yes := func(name, id string) {
		t.Helper()
		if r, err := people[name].decide(t.Context(), id, counterfoil.DecisionApprove, ""); err != nil || r.code != allowed {
			t.Fatalf("%s says yes: %+v %v", name, r, err)
		}
	}
	restart := func() {
		t.Helper()
		v.kill()
		v.start()
		for _, p := range people {
			if err := p.login(t.Context()); err != nil { // sessions die with the server
				t.Fatal(err)
			}
		}
	}

	// What one person signed is there after a kill, and the other's signature covers it.
	r, err := pay(t.Context(), "")
	id := want(r, err, counterfoil.ApprovalRequired).ID
	yes("bo", id)
	restart()
	r, err = pay(t.Context(), "")
	if again := want(r, err, counterfoil.ApprovalPending); again.ID != id {
		t.Fatalf("after a kill the call waits for %s, and it was %s", again.ID, id)
	}
	yes("cy", id)
	restart()
	if a := v.approval(id); a.State != counterfoil.StateApproved || len(a.Signatures) != 2 {
		t.Fatalf("after a kill it is %s with %d signatures", a.State, len(a.Signatures))
	}

	// The payment arrives, and the server is killed before the answer.
	answered := make(chan error, 1)
	go func() {
		_, err := pay(context.WithoutCancel(t.Context()), id)
		answered <- err
	}()
	<-upstream.arrived
	restart()
	if err := <-answered; err == nil {
		t.Error("a call was answered by a server that was killed before it knew")
	}
	for deadline := time.Now().Add(counterfoiltest.Timeout); v.approval(id).State != counterfoil.StateIndeterminate; {
		if time.Now().After(deadline) {
			t.Fatalf("nobody knows what became of the payment, and its approval is %s", v.approval(id).State)
		}
		<-time.After(20 * time.Millisecond) // another process, which finds out by itself
	}
	for _, named := range []string{"", id} {
		r, err = pay(t.Context(), named)
		if s := want(r, err, counterfoil.ApprovalSpent); s.ID != id || s.Status != string(counterfoil.StateIndeterminate) || s.Entry == 0 {
			t.Errorf("the repeated call was told %+v", s)
		}
	}

	// A person who found out says so, and even then it does not run.
	if _, err := people["bo"].post(t.Context(), "/api/v1/approvals/"+id+"/reconcile", map[string]any{"happened": true, "reason": "the bank's statement"}); counterfoil.CodeOf(orNil(err)) != counterfoil.RoleRequired {
		t.Errorf("somebody without the role reconciled: %v", err)
	}
	if _, err := people["ana"].post(t.Context(), "/api/v1/approvals/"+id+"/reconcile", map[string]any{"happened": true, "reason": "the bank's statement"}); err != nil {
		t.Error(err)
	}
	if a := v.approval(id); a.State != counterfoil.StateSucceeded {
		t.Errorf("it was found out that it happened, and the approval is %s", a.State)
	}
	r, err = pay(t.Context(), id)
	want(r, err, counterfoil.ApprovalSpent)
	if n := len(upstream.arrived); n != 0 {
		t.Errorf("%d more payments arrived", n)
	}

	unknown := 0
	for _, e := range readExport(t, v.export()) {
		if e.Kind == ledger.CallFinished && e.Outcome == ledger.OutcomeUnknown {
			unknown++
		}
	}
	if unknown != 1 {
		t.Errorf("%d calls ended in the dark, want the one", unknown)
	}
}

// orNil keeps CodeOf, which takes no nil, from one.
func orNil(err error) error {
	if err == nil {
		return counterfoil.Refuse("", "nothing")
	}
	return err
}

// readExport reads the entries of an export that verified.
func readExport(t *testing.T, path string) []*ledger.Entry {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []*ledger.Entry
	for line := range bytes.Lines(b) {
		if !bytes.Contains(line, []byte(`"kind":"`)) {
			continue
		}
		e, err := ledger.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}
