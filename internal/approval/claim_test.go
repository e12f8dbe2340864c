package approval

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// What was signed is the class, the rule, the template, the tool and the owner of that
// moment: when one is another, people are asked again.
func TestWhatChangedSupersedes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		what   string // that is said to have changed
		change func(*world, *counterfoil.GuardedCall)
		need   int // signatures of the new approval
	}{
		{"more people", "rule", func(w *world, c *counterfoil.GuardedCall) {
			w.class("credential-reset", func(c *counterfoil.Class) { c.Tier = counterfoil.Irreversible })
		}, 2},
		{"other groups", "rule", func(w *world, c *counterfoil.GuardedCall) {
			w.class("credential-reset", func(c *counterfoil.Class) { c.Approvers = [][]string{{"finance", "audit"}} })
		}, 1},
		{"a template", "template", func(w *world, c *counterfoil.GuardedCall) {
			w.class("credential-reset", func(c *counterfoil.Class) { c.Template = "Reset {{.to}}" })
		}, 1},
		{"a limit", "class", func(w *world, c *counterfoil.GuardedCall) {
			w.class("credential-reset", func(c *counterfoil.Class) {
				c.Limits = []counterfoil.Limit{{Sum: "amount", Per: "agent", Window: counterfoil.Duration(time.Hour), Max: "5000"}}
			})
		}, 1},
		{"authenticators", "rule", func(w *world, c *counterfoil.GuardedCall) {
			w.class("credential-reset", func(c *counterfoil.Class) { c.Authenticators = []string{"ee882879-721c-4913-9775-3dfcce97072a"} })
		}, 1},
		{"the tool's definition", "tool", func(w *world, c *counterfoil.GuardedCall) { c.ToolDigest = "sha-256:other" }, 1},
		{"the owner", "owner", func(w *world, c *counterfoil.GuardedCall) {
			w.apply(doc(w.t, counterfoil.KindAgent, "payroll", counterfoil.Agent{Name: "payroll", Owner: "cy", Environment: "prod"}))
		}, 1},
		{"the server", "upstream", func(w *world, c *counterfoil.GuardedCall) {
			reg, _ := w.store.Registry()
			bank := *reg.Resources["bank"]
			bank.Upstream = "http://127.0.0.1:9999/mcp"
			w.apply(doc(w.t, counterfoil.KindResource, "bank", bank))
		}, 1},
	} {
		for _, signed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/signed=%t", row.name, signed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.enrol("bo")
				c := w.pay("100", "DE1", of("reset", "credential-reset"))
				id := w.ask(c)
				if signed {
					w.approve(id, "bo")
				}
				row.change(w, &c)
				_, err := w.Claim(t.Context(), c)
				r := wantRefused(t, err, counterfoil.ApprovalSuperseded)
				if r.Approval.ID == id || r.Approval.Status != "pending" || r.Approval.ApprovalsRequired != row.need {
					t.Errorf("told %+v", r.Approval)
				}
				w.wantState(id, counterfoil.StateSuperseded)
				if why := w.approval(id).Reason; why != "the "+row.what+" changed" {
					t.Errorf("superseded because %s", why)
				}
				// Whoever names the old one is told of the new one, once and again.
				named := c
				named.Named = id
				_, err = w.Claim(t.Context(), named)
				if again := wantRefused(t, err, counterfoil.ApprovalSuperseded); again.Approval.ID != r.Approval.ID {
					t.Errorf("named: told %+v", again.Approval)
				}
				_, err = w.Claim(t.Context(), c)
				wantRefused(t, err, counterfoil.ApprovalPending)
				w.checkLog()
			})
		}
	}
}

// An unrelated change and a new key of the agent's void nothing.
func TestWhatIsUnrelatedVoidsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	w.approve(w.ask(pay), "bo", "cy")
	w.class("read", func(c *counterfoil.Class) { c.Template = "Read" })
	w.personDoc("fay", func(p *counterfoil.Person) { p.Groups = []string{"finance"} })
	pay.Caller.JKT = "another"
	w.run(pay)
}

// A held call that the gateway makes itself asks nobody anew.
func TestAHeldCallIsNotAskedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	c := w.pay("100", "DE1", of("reset", "credential-reset"))
	c.Held = true
	id := w.ask(c)
	w.approve(id, "bo")
	select {
	case got := <-w.Held():
		if got != id {
			t.Errorf("held: %s", got)
		}
	default:
		t.Fatal("nobody is told of a held call that was approved")
	}
	c.Named, c.ToolDigest = id, "sha-256:other"
	_, err := w.Claim(t.Context(), c)
	if r := wantRefused(t, err, counterfoil.ApprovalSuperseded); r.Approval.ID != id {
		t.Errorf("told %+v", r.Approval)
	}
	if n := len(w.entriesOf(ledger.ApprovalRequested)); n != 1 {
		t.Errorf("%d approvals were asked for", n)
	}
}

// After a start, whoever makes held calls is told of those that were approved before.
func TestHeldCallsAreFoundAfterAStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	c := w.pay("100", "DE1", of("reset", "credential-reset"))
	c.Held = true
	id := w.ask(c)
	w.approve(id, "bo")
	w.reopen()
	wantDone(t, w.Sweep(t.Context()))
	select {
	case got := <-w.Held():
		if got != id {
			t.Errorf("held: %s", got)
		}
	default:
		t.Fatal("nobody is told")
	}
}

// Signers are looked at again when the approval is spent.
func TestASignerWhoIsNotOneAnyMore(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world){
		"left the group": func(w *world) { w.personDoc("cy", func(p *counterfoil.Person) { p.Groups = []string{"audit"} }) },
		"left the house": func(w *world) {
			_, base := w.store.Registry()
			wantDone(w.t, w.store.Apply(w.t.Context(), counterfoil.Change{Base: base, Delete: []counterfoil.DocKey{{Kind: counterfoil.KindPerson, Name: "cy"}}}, []*ledger.Entry{{Kind: ledger.ConfigApplied}}))
		},
		"passkey reset": func(w *world) {
			if _, _, err := w.MakeCode(w.t.Context(), "cy", "uid:0", true); err != nil {
				w.t.Fatal(err)
			}
		},
		"passkey ended": func(w *world) {
			id := w.phone("cy").Passkeys()[0].ID
			wantDone(w.t, w.store.EndPasskeys(w.t.Context(), [][]byte{id}, &ledger.Entry{Kind: ledger.PasskeyEnded, Detail: map[string]any{"credential": encode(id)}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.enrol("bo", "cy")
			pay := w.pay("100", "DE1")
			id := w.ask(pay)
			w.approve(id, "bo", "cy")
			if _, err := w.Claim(t.Context(), pay); err != nil {
				t.Fatalf("the control: %v", err)
			}
			change(w)
			c := pay
			c.Named = id
			_, err := w.Claim(t.Context(), c)
			wantRefused(t, err, counterfoil.ApprovalRevoked)
			w.wantState(id, counterfoil.StateRevoked)
			// A repeat without the name asks again.
			if again := w.ask(pay); again == id {
				t.Error("the revoked approval is asked about again")
			}
			w.checkLog()
		})
	}
}

// Whoever stood for a group and left it, though not every one, leaves a gap.
func TestASignerWhoLeftOneOfTwoGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "ed")
	both := w.pay("100", "DE1", of("both", "both"))
	id := w.ask(both)
	w.approve(id, "bo", "ed")
	w.personDoc("ed", func(p *counterfoil.Person) { p.Groups = []string{"finance"} })
	_, err := w.Claim(t.Context(), both)
	wantRefused(t, err, counterfoil.ApprovalRevoked)
}

// A record that somebody changed in the store is one that nobody signed.
func TestAChangedRecordDoesNotVerify(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	reg, _ := w.crowd()
	for name, change := range map[string]func(*counterfoil.Approval){
		"":           func(*counterfoil.Approval) {},
		"the digest": func(a *counterfoil.Approval) { a.Digest = "sha-256:" + strings.Repeat("A", 43) },
		"the call":   func(a *counterfoil.Approval) { a.Call = w.pay("999", "DE1").Call },
		"call and digest": func(a *counterfoil.Approval) {
			a.Call = w.pay("999", "DE1").Call
			a.CallDigest = counterfoil.CallDigest(a.Call)
		},
		"the rendering":          func(a *counterfoil.Approval) { a.Rendering = append(a.Rendering, ' ') },
		"the rule":               func(a *counterfoil.Approval) { a.Rule.Required = 1 },
		"the rule's groups":      func(a *counterfoil.Approval) { a.Rule.Groups = [][]string{{"audit"}} },
		"the deadline":           func(a *counterfoil.Approval) { a.Expires = a.Expires.Add(time.Hour) },
		"the class":              func(a *counterfoil.Approval) { a.Class = "own" },
		"the statement":          func(a *counterfoil.Approval) { a.Statement = append(a.Statement, ' ') },
		"one signature":          func(a *counterfoil.Approval) { a.Signatures = a.Signatures[:1] },
		"no signature":           func(a *counterfoil.Approval) { a.Signatures = nil },
		"one signature twice":    func(a *counterfoil.Approval) { a.Signatures[1] = a.Signatures[0] },
		"the order":              func(a *counterfoil.Approval) { s := a.Signatures; s[0], s[1] = s[1], s[0] },
		"a signer":               func(a *counterfoil.Approval) { a.Signatures[1].Person = "ed" },
		"a passkey":              func(a *counterfoil.Approval) { a.Signatures[1].Passkey = a.Signatures[0].Passkey },
		"a decision":             func(a *counterfoil.Approval) { a.Signatures[1].Decision = counterfoil.DecisionDeny },
		"a reason":               func(a *counterfoil.Approval) { a.Signatures[1].Reason = "because" },
		"a signature's record":   func(a *counterfoil.Approval) { a.Signatures[1].Record[40] ^= 1 },
		"a record of the other":  func(a *counterfoil.Approval) { a.Signatures[1].Record = a.Signatures[0].Record },
		"a signature's digest":   func(a *counterfoil.Approval) { a.Signatures[1].Digest = a.Signatures[0].Digest },
		"the first one's digest": func(a *counterfoil.Approval) { a.Signatures[0].Digest = a.Signatures[1].Digest },
	} {
		a := w.approval(id)
		change(&a)
		why, err := w.doubt(t.Context(), reg, &a)
		if err != nil || (why == "") != (name == "") {
			t.Errorf("%q: doubt is %q, %v", name, why, err)
		}
	}
}

// A passkey that is not what it was is seen when the approval is used, whoever else
// has noticed.
func TestASignersPasskeyIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	id := w.ask(w.pay("100", "DE1"))
	w.approve(id, "bo", "cy")
	reg, _ := w.crowd()
	a := w.approval(id)
	for name, change := range map[string]func(*counterfoil.Passkey){
		"":               func(*counterfoil.Passkey) {},
		"ended":          func(k *counterfoil.Passkey) { k.Status = counterfoil.Ended },
		"of nobody":      func(k *counterfoil.Passkey) { k.Person = "" },
		"cools":          func(k *counterfoil.Passkey) { k.UsableFrom = a.Signatures[1].At.Add(time.Millisecond) },
		"another key":    func(k *counterfoil.Passkey) { k.PublicKey = passkey.PublicKey(passkey.NewKey()) },
		"may be copied":  func(k *counterfoil.Passkey) { k.Eligible = true },
		"another handle": func(k *counterfoil.Passkey) { k.Handle = []byte("x") },
		"another model":  func(k *counterfoil.Passkey) { k.AAGUID = "ee882879-721c-4913-9775-3dfcce97072a" },
		"vouched for":    func(k *counterfoil.Passkey) { k.Attested = true },
		"added":          func(k *counterfoil.Passkey) { k.How = counterfoil.PasskeyAdded },
		"another entry":  func(k *counterfoil.Passkey) { k.Entry++ },
		"no entry":       func(k *counterfoil.Passkey) { k.Entry = 1 << 40 },
	} {
		why, err := w.on(passkeys{w.store, change}).doubt(t.Context(), reg, &a)
		if (err != nil) != (name == "no entry") || err == nil && (why == "") != (name == "") {
			t.Errorf("%q: doubt is %q, %v", name, why, err)
		}
	}
}

// passkeys is a store whose passkeys are changed.
type passkeys struct {
	Store
	change func(*counterfoil.Passkey)
}

func (s passkeys) PasskeyByID(ctx context.Context, id []byte) (counterfoil.Passkey, bool, error) {
	k, ok, err := s.Store.PasskeyByID(ctx, id)
	s.change(&k)
	return k, ok, err
}

// The same bytes from somebody else are not the call that was approved.
func TestAnApprovalIsOfWhoAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	for _, change := range []func(*counterfoil.Caller){
		func(c *counterfoil.Caller) { c.Agent, c.Instance, c.Task = "other", "ins_other", "" },
		func(c *counterfoil.Caller) { c.Task = "tsk_2" },
	} {
		c := pay
		change(&c.Caller)
		c.Named = id
		_, err := w.Claim(t.Context(), c)
		wantRefused(t, err, counterfoil.ApprovalMismatch)
	}
	w.run(pay)
}

// An approval is over at its deadline, to the millisecond, swept or not.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	c := w.pay("100", "DE1", of("reset", "credential-reset"))
	id := w.ask(c)
	options, err := w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
	wantDone(t, err)
	w.clock.Advance(15*time.Minute - time.Millisecond)
	_, err = w.Sign(t.Context(), id, "bo", counterfoil.DecisionApprove, "", w.phone("bo").Get(options))
	wantRefusedFor(t, err, counterfoil.PasskeyRefused, "older than") // the ceremony's five minutes
	options, err = w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
	wantDone(t, err)
	w.clock.Advance(time.Millisecond)
	_, err = w.Sign(t.Context(), id, "bo", counterfoil.DecisionApprove, "", w.phone("bo").Get(options))
	wantRefused(t, err, counterfoil.ApprovalExpired)
	n := c
	n.Named = id
	_, err = w.Claim(t.Context(), n)
	if r := wantRefused(t, err, counterfoil.ApprovalExpired); r.Approval.Status != "expired" {
		t.Errorf("told %+v", r.Approval)
	}
	_, err = w.Challenge(t.Context(), id, "bo", counterfoil.DecisionApprove, "")
	wantRefused(t, err, counterfoil.ApprovalExpired)
	again := w.ask(c)
	w.approve(again, "bo")
	w.clock.Advance(counterfoil.ApprovalUseWindow - time.Millisecond)
	if _, err := w.Claim(t.Context(), c); err != nil {
		t.Errorf("within its time: %v", err)
	}
	w.reopen() // a restart does not forget the time
	w.clock.Advance(time.Millisecond)
	n.Named = again
	_, err = w.Claim(t.Context(), n)
	wantRefused(t, err, counterfoil.ApprovalExpired)
	w.checkLog()
}

// Of many who claim one approval one spends it.
func TestOneApprovalIsSpentOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 64 {
		wg.Go(func() {
			s, err := w.Claim(t.Context(), pay)
			if err == nil {
				_, err = w.spend(s, pay)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
				return
			}
			r, ok := counterfoil.AsRefusal(err)
			if !ok || r.Code != counterfoil.ApprovalSpent || r.Approval == nil || r.Approval.ID != id {
				t.Errorf("a loser hears %v", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d spent it", won)
	}
	if r := w.checkLog(); r.Calls != 1 {
		t.Errorf("offline: %+v", r)
	}
}

// Pending calls are one where they are equal and have one Idempotency-Key, or none.
func TestWhichCallsAreOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	keyedID := w.ask(w.pay("100", "DE1", keyed("k1")))
	other := w.ask(w.pay("100", "DE1", keyed("k2")))
	task := w.ask(w.pay("100", "DE1", func(c *counterfoil.GuardedCall) { c.Caller.Task = "" }))
	agent := w.ask(w.pay("100", "DE1", func(c *counterfoil.GuardedCall) {
		c.Caller.Agent, c.Caller.Subject, c.Caller.Instance, c.Caller.Task = "other", "other", "ins_other", ""
	}))
	seen := map[string]bool{id: true, keyedID: true, other: true, task: true, agent: true}
	if len(seen) != 5 {
		t.Errorf("approvals that should be five: %v", seen)
	}
	_, err := w.Claim(t.Context(), w.pay("100", "DE1", keyed("k1")))
	if r := wantRefused(t, err, counterfoil.ApprovalPending); r.Approval.ID != keyedID || !r.Approval.Attached {
		t.Errorf("told %+v", r.Approval)
	}
	// A key is for one call.
	_, err = w.Claim(t.Context(), w.pay("101", "DE1", keyed("k1")))
	wantRefused(t, err, counterfoil.IdempotencyMismatch)

	// A call that ran under a key never runs again under it, however late.
	w.approve(keyedID, "bo", "cy")
	w.run(w.pay("100", "DE1", keyed("k1")))
	w.clock.Advance(20 * time.Hour)
	_, err = w.Claim(t.Context(), w.pay("100", "DE1", keyed("k1")))
	if r := wantRefused(t, err, counterfoil.ApprovalSpent); r.Approval.ID != keyedID || r.Approval.Entry == 0 {
		t.Errorf("told %+v", r.Approval)
	}
	w.clock.Advance(20 * time.Hour)
	wantDone(t, w.Sweep(t.Context())) // which erases it
	if w.approval(keyedID).CallDigest != "" {
		t.Fatal("it was not erased")
	}
	for _, c := range []counterfoil.GuardedCall{w.pay("100", "DE1", keyed("k1")), w.pay("100", "DE1", named(keyedID))} {
		_, err = w.Claim(t.Context(), c)
		wantRefused(t, err, counterfoil.ApprovalSpent)
	}
	w.checkLog()
}

// A dead connection, a mistake or a flood: an agent has so many approvals pending.
func TestSoManyArePending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range defaultMaxPending {
		w.ask(w.pay(fmt.Sprint(i+1), "DE1"))
	}
	_, err := w.Claim(t.Context(), w.pay("500", "DE1"))
	wantRefused(t, err, counterfoil.TooManyPending)
	_, err = w.Claim(t.Context(), w.pay("1", "DE1")) // attaches
	wantRefused(t, err, counterfoil.ApprovalPending)
	w.ask(w.pay("500", "DE1", func(c *counterfoil.GuardedCall) {
		c.Caller.Agent, c.Caller.Subject, c.Caller.Instance, c.Caller.Task = "other", "other", "ins_other", ""
	}))
	w.clock.Advance(15 * time.Minute) // silence is a no
	w.ask(w.pay("500", "DE1"))
}
