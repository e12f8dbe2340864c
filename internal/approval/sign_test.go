package approval

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestANoEndsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo")
	state, err := w.sign(id, "cy", counterfoil.DecisionDeny, "wrong\u202e account\nask me")
	if err != nil || state != counterfoil.StateDenied {
		t.Fatalf("a no: %s, %v", state, err)
	}
	_, err = w.Challenge(t.Context(), id, "ed", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApprovalDenied)
	for _, c := range []counterfoil.GuardedCall{pay, w.pay("100", "DE1", named(id))} {
		_, err = w.Claim(t.Context(), c)
		if r := wantRefused(t, err, counterfoil.ApprovalDenied); r.Approval.Reason != "wrong⟨U+202E⟩ account ask me" {
			t.Errorf("the agent is told %q", r.Approval.Reason)
		}
	}
	closed := w.entriesOf(ledger.ApprovalClosed)
	if len(closed) != 1 || closed[0].Approval.State != "denied" || closed[0].Actor != "cy" {
		t.Errorf("approval.closed: %+v", closed)
	}
	// Who said yes may still say no.
	regretted := w.ask(w.pay("100", "DE3"))
	w.approve(regretted, "bo")
	if v, err := w.View(t.Context(), "bo", regretted); err != nil || v.MaySign || !v.MayDeny {
		t.Errorf("who said yes may sign %t, deny %t: %v", v.MaySign, v.MayDeny, err)
	}
	_, err = w.sign(regretted, "bo", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApproverNotDistinct)
	if state, err := w.sign(regretted, "bo", counterfoil.DecisionDeny, "on second thoughts"); err != nil || state != counterfoil.StateDenied {
		t.Errorf("a no after a yes: %s, %v", state, err)
	}
	// Another call is asked about; the same one only after the deadline.
	w.ask(w.pay("100", "DE2"))
	w.clock.Advance(15 * time.Minute)
	if again := w.ask(pay); again == id {
		t.Error("the denied approval is asked about again")
	}
	if n := w.told(EventClosed); len(n) != 2 || n[0].State != "denied" {
		t.Errorf("told: %+v", n)
	}
	w.checkLog()
}

func TestReasonsAndDecisions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	id := w.ask(w.pay("100", "DE1"))
	for _, bad := range [][2]string{{"", ""}, {"yes", ""}, {"approve ", ""}, {"deny", strings.Repeat("é", 501)}, {"deny", "\xff"}} {
		_, err := w.Challenge(t.Context(), id, "bo", bad[0], bad[1])
		wantRefused(t, err, counterfoil.RequestMalformed)
	}
	if _, err := w.sign(id, "bo", counterfoil.DecisionDeny, strings.Repeat("é", 500)); err != nil {
		t.Errorf("500 characters: %v", err)
	}
	_, err := w.Challenge(t.Context(), "apr_unknown", "bo", counterfoil.DecisionDeny, "")
	wantRefused(t, err, counterfoil.ToolUnknown)
}

// A challenge is for one person, approval, decision and reason, once, the latest alone.
func TestAChallengeIsForOneDecision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	id, other := w.ask(w.pay("100", "DE1")), w.ask(w.pay("200", "DE1"))
	begin := func(id, person, decision, reason string) []byte {
		options, err := w.Challenge(t.Context(), id, person, decision, reason)
		wantDone(t, err)
		return options
	}
	const yes, no = counterfoil.DecisionApprove, counterfoil.DecisionDeny
	for name, try := range map[string]func() error{
		"none was given": func() error {
			_, err := w.Sign(t.Context(), id, "bo", yes, "", w.phone("bo").Get(begin(other, "bo", yes, "")))
			return err
		},
		"of another approval": func() error {
			begin(id, "bo", yes, "")
			_, err := w.Sign(t.Context(), id, "bo", yes, "", w.phone("bo").Get(begin(other, "bo", yes, "")))
			return err
		},
		"of another decision": func() error {
			_, err := w.Sign(t.Context(), id, "bo", no, "", w.phone("bo").Get(begin(id, "bo", yes, "")))
			return err
		},
		"of another reason": func() error {
			_, err := w.Sign(t.Context(), id, "bo", yes, "fine", w.phone("bo").Get(begin(id, "bo", yes, "")))
			return err
		},
		"of another person": func() error {
			begin(id, "cy", yes, "")
			options := begin(id, "bo", yes, "")
			_, err := w.Sign(t.Context(), id, "cy", yes, "", w.phone("bo").Get(options))
			return err
		},
		"an older one": func() error {
			first := begin(id, "bo", yes, "")
			begin(id, "bo", yes, "")
			_, err := w.Sign(t.Context(), id, "bo", yes, "", w.phone("bo").Get(first))
			return err
		},
		"five minutes old": func() error {
			options := begin(id, "bo", yes, "")
			w.clock.Advance(ceremonyLife)
			_, err := w.Sign(t.Context(), id, "bo", yes, "", w.phone("bo").Get(options))
			return err
		},
		"used by a failure": func() error {
			options := begin(id, "bo", yes, "")
			answer := w.phone("bo").Get(options)
			if _, err := w.Sign(t.Context(), id, "bo", yes, "", []byte(`{}`)); counterfoil.CodeOf(orNil(err)) != counterfoil.PasskeyRefused {
				t.Errorf("an empty credential: %v", err)
			}
			_, err := w.Sign(t.Context(), id, "bo", yes, "", answer)
			return err
		},
		"of a login": func() error {
			begin(id, "bo", yes, "")
			options, err := w.LoginOptions(t.Context())
			wantDone(t, err)
			_, err = w.Sign(t.Context(), id, "bo", yes, "", w.phone("bo").Get(options))
			return err
		},
		"forgotten by a restart": func() error {
			options := begin(id, "bo", yes, "")
			w.start()
			_, err := w.Sign(t.Context(), id, "bo", yes, "", w.phone("bo").Get(options))
			return err
		},
	} {
		err := try()
		if counterfoil.CodeOf(orNil(err)) != counterfoil.PasskeyRefused {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.approve(id, "bo") // the control
	// The same answer once more.
	options := begin(other, "bo", yes, "")
	answer := w.phone("bo").Get(options)
	_, err := w.Sign(t.Context(), other, "bo", yes, "", answer)
	wantDone(t, err)
	_, err = w.Sign(t.Context(), other, "bo", yes, "", answer)
	wantRefused(t, err, counterfoil.ApproverNotDistinct)
	w.checkLog()
}

// Whoever signs on an outdated challenge is given a fresh one.
func TestASignatureThatIsOvertaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	id := w.ask(w.pay("100", "DE1", of("both", "both")))
	options, err := w.Challenge(t.Context(), id, "ed", counterfoil.DecisionApprove, "")
	wantDone(t, err)
	w.approve(id, "bo")
	_, err = w.Sign(t.Context(), id, "ed", counterfoil.DecisionApprove, "", w.phone("ed").Get(options))
	var over *Overtaken
	if !errors.As(err, &over) || !errors.Is(err, counterfoil.ErrOvertaken) {
		t.Fatalf("got %v, want to be overtaken", err)
	}
	state, err := w.Sign(t.Context(), id, "ed", counterfoil.DecisionApprove, "", w.phone("ed").Get(over.Options))
	if err != nil || state != counterfoil.StateApproved {
		t.Errorf("the fresh challenge: %s, %v", state, err)
	}
	w.checkLog()
}

// Everybody signs at the same moment: each signature covers those before it, and nobody
// is counted twice.
func TestManySignAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	people := []string{"bo", "cy", "ed"}
	w.enrol(people...)
	for range 5 {
		id := w.ask(w.pay(fmt.Sprint(100+w.store.Size()), "DE1", of("both", "both")))
		var wg sync.WaitGroup
		start := make(chan struct{})
		for _, name := range people {
			phone := w.phone(name)
			wg.Go(func() {
				<-start
				options, err := w.Challenge(t.Context(), id, name, counterfoil.DecisionApprove, "")
				for err == nil {
					_, err = w.Sign(t.Context(), id, name, counterfoil.DecisionApprove, "", phone.Get(options))
					var over *Overtaken
					if errors.As(err, &over) {
						options, err = over.Options, nil
						continue
					}
					return
				}
			})
		}
		close(start)
		wg.Wait()
		if a := w.approval(id); a.State == counterfoil.StateApproved && len(a.Signatures) != 2 {
			t.Errorf("%s with %d signatures", a.State, len(a.Signatures))
		}
	}
	w.checkLog()
}
