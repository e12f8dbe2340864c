package authority_test

import (
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

func (w *world) mustRevoke(kind counterfoil.TargetKind, id string) {
	w.t.Helper()
	if _, err := w.a.Revoke(w.t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: kind, ID: id}, Reason: "a test"}, "uid:7"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) mustRestore(kind counterfoil.TargetKind, id string) {
	w.t.Helper()
	if err := w.a.RestoreTarget(w.t.Context(), counterfoil.Target{Kind: kind, ID: id}, "a test", "uid:7"); err != nil {
		w.t.Fatal(err)
	}
}

// Nobody gets authority from an owner who has none: not by being resumed, created or
// moved. Who has such an owner keeps what it says.
func TestOwnersWhoAreGone(t *testing.T) {
	t.Parallel()
	const (
		people = "{kind: Person, name: eva, email: eva@example.com}\n---\n{kind: Person, name: eva2, email: e.v.a+work@gmail.com}\n---\n{kind: Person, name: eva3, email: eva@gmail.com}\n---\n"
		agent  = "{kind: Agent, name: temp, environment: prod, owner: "
	)
	for gone, owner := range map[string]string{"eva": "eva", "eva2": "eva3"} {
		t.Run(owner, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.house.mustApply(w.a, people+agent+owner+"}")
			apply := func(yaml string) authority.ApplyResult {
				t.Helper()
				result, err := w.a.Apply(t.Context(), authority.ApplyRequest{Files: []manifest.File{{Name: "x.yaml", Data: []byte(yaml)}}, Actor: "uid:7"})
				if err != nil {
					t.Fatal(err)
				}
				return result
			}
			resume := func() error { _, err := w.a.Resume(t.Context(), "temp", nil, "", "uid:7"); return err }
			if _, err := w.a.Suspend(t.Context(), "temp", "", "uid:7"); err != nil {
				t.Fatal(err)
			}
			wantCode(t, "before: resume", resume(), "")
			if _, err := w.a.Suspend(t.Context(), "temp", "", "uid:7"); err != nil {
				t.Fatal(err)
			}
			w.mustRevoke(counterfoil.TargetPerson, gone)

			before := w.store.Size()
			err := resume()
			wantCode(t, "resume", err, counterfoil.RequestMalformed)
			if err == nil || !strings.Contains(err.Error(), "counterfoil person resume "+gone) || !strings.Contains(err.Error(), "another owner") {
				t.Errorf("it says %v", err)
			}
			for name, yaml := range map[string]string{
				"a new agent": strings.Replace(agent, "temp", "fresh", 1) + owner + "}",
				"a moved one": strings.Replace(agents[strings.Index(agents, "kind: Agent\nname: teller"):strings.Index(agents, "---\nkind: Agent\nname: stranger")], "owner: bo", "owner: "+owner, 1),
			} {
				if got := apply(yaml); len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "counterfoil person resume "+gone) {
					t.Errorf("%s: %+v", name, got)
				}
			}
			if w.store.Size() != before {
				t.Error("something is recorded")
			}
			if got := apply(agent + owner + ", proof_keys: any}"); len(got.Problems) > 0 || got.Changes[0].Verb != "update" {
				t.Errorf("the agent that has that owner: %+v", got)
			}
			// Another owner, or the person, who is back.
			if got := apply(agent + "bo}"); len(got.Problems) > 0 {
				t.Errorf("to another owner: %+v", got)
			}
			wantCode(t, "of another owner: resume", resume(), "")
			w.mustRestore(counterfoil.TargetPerson, gone)
			if got := apply(agent + owner + "}"); len(got.Problems) > 0 {
				t.Errorf("to the person, who is back: %+v", got)
			}
		})
	}
}

// An apply says which of its resources takes no call.
func TestApplyWarnsOfSuspendedResources(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const says = "counterfoil resource resume shop"
	warned := func() bool {
		return strings.Contains(strings.Join(w.house.mustApply(w.a, agents).Warnings, "\n"), says)
	}
	if warned() {
		t.Error("before: it warns")
	}
	w.mustRevoke(counterfoil.TargetResource, "shop")
	if !warned() {
		t.Error("it does not warn")
	}
	w.mustRestore(counterfoil.TargetResource, "shop")
	if warned() {
		t.Error("afterwards: it warns")
	}
}

// A token of the second in which its resource was revoked is void. None is handed out
// when the resource is back within that second.
func TestNoDeadTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clock.Advance(300 * time.Millisecond)
	w.mustRevoke(counterfoil.TargetResource, "bank")
	w.mustRestore(counterfoil.TargetResource, "bank")
	w.clock.Advance(200 * time.Millisecond)
	issued := len(w.entries(ledger.TokenIssued))
	_, err := w.ask("payroll", "bank", nil)
	wantCode(t, "within the second", err, counterfoil.RateLimited)
	if n := len(w.entries(ledger.TokenIssued)); n != issued {
		t.Error("a token is recorded")
	}
	if _, err := w.use(w.mustAsk("payroll", "shop", nil).AccessToken, "shop", w.keys["payroll"]); err != nil {
		t.Errorf("another resource: %v", err)
	}
	w.clock.Advance(500 * time.Millisecond)
	if _, err := w.use(w.mustAsk("payroll", "bank", nil).AccessToken, "bank", w.keys["payroll"]); err != nil {
		t.Errorf("a second later: %v", err)
	}
}
