package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// revocationStages are the verbs of tasks and of revocation.
func revocationStages() []stage {
	ctx := context.Background()
	use := counterfoil.CallUse{Task: "tsk_1", Class: "payout", Amounts: map[string]int64{"amount": 5}, Agent: "payroll", Key: "k", Digest: "d"}
	limited := func(s *subject) {
		s.crew()
		s.task("tsk_1", "payroll", "ins_1", func(t *counterfoil.Task) {
			t.Limits = []counterfoil.TaskLimit{{Class: "payout", Sum: "amount", Max: 9}}
		})
	}
	decide := func(s *subject) error {
		e := decided("payroll")
		e.Task = "tsk_1"
		return s.DecideUsing(ctx, use, e, []byte(`{}`))
	}
	revoke := func(kind counterfoil.TargetKind, id string) func(*subject) error {
		return func(s *subject) error {
			_, news, err := s.tryRevoke(kind, id)
			if err == nil && !news {
				return fmt.Errorf("it was known")
			}
			return err
		}
	}
	busy := func(s *subject) {
		s.shop()
		s.token("tok_1", "payroll", "ins_1", "tsk_1")
		s.wantDone(s.PutCode(ctx, code("payroll", "x"), entry(ledger.EnrolmentCodeIssued, "payroll")))
	}
	refused := func(c counterfoil.Caller) func(*subject) bool {
		return func(s *subject) bool {
			c := c
			c.Epoch, c.Issued, c.Audience = s.AgentState("payroll").Epoch, s.fixture.clock.Now(), "https://issuer/r/bank"
			return s.Revoked(ctx, c) != nil
		}
	}
	plain := counterfoil.Caller{Agent: "payroll", Instance: "ins_1", JKT: "jkt-ins_1", TokenID: "tok_1"}
	tasked, bound := plain, plain
	tasked.Task, bound.JKT = "tsk_1", "bound"
	also := func(a func(*subject) bool, id string) func(*subject) bool {
		return func(s *subject) bool { return a(s) && s.kept(id).State == counterfoil.StateRevoked }
	}
	stream := counterfoil.SignalStream{ID: "str_1", Agent: "payroll", Audience: "r"}
	put := func(s *subject) error {
		return s.PutStream(ctx, stream, nil, entry(ledger.StreamChanged, "payroll"))
	}
	streams := func(want func([]counterfoil.SignalStream) bool) func(*subject) bool {
		return func(s *subject) bool { l, err := s.Streams(ctx); return err == nil && want(l) }
	}
	used := func(id string) func(*subject) bool {
		return func(s *subject) bool {
			used, err := s.AssertionUsed(ctx, s.use("payroll", id))
			return err == nil && used
		}
	}
	restore := func(kind counterfoil.TargetKind, id string) func(*subject) error {
		return func(s *subject) error {
			return s.Restore(ctx, counterfoil.Target{Kind: kind, ID: id}, entry(ledger.Restored, ""))
		}
	}
	return []stage{
		{"open a task", ledger.TaskOpened, false, (*subject).crew, func(s *subject) error {
			t := s.aTask("tsk_1", "payroll", "ins_1")
			t.Limits = []counterfoil.TaskLimit{{Class: "payout", Max: 9}, {Class: "read", Max: 9}}
			return s.openTask(t)
		}, func(s *subject) bool {
			t, ok, err := s.Task(ctx, "tsk_1")
			_, live := s.LiveTask("tsk_1")
			return err == nil && ok && live && len(t.Limits) == 2
		}},
		{"close a task", ledger.TaskClosed, false, func(s *subject) { busy(s); s.task("tsk_2", "payroll", "ins_1", below("tsk_1")) },
			func(s *subject) error { _, err := s.closeTask("tsk_1", counterfoil.TaskCompleted); return err },
			func(s *subject) bool {
				_, below := s.LiveTask("tsk_2")
				return also(refused(tasked), "apr_1")(s) && !below && s.taskOf("tsk_2").State == counterfoil.TaskRevoked
			}},
		{"call in a task", ledger.CallDecided, false, limited, decide, func(s *subject) bool {
			t := s.taskOf("tsk_1")
			return t.Calls == 1 && t.Limits[0].Used == 5
		}},
		{"end a call with a key", ledger.CallFinished, false, func(s *subject) { limited(s); s.wantDone(decide(s)) }, func(s *subject) error {
			return s.FinishUsing(ctx, use, []byte(`{}`), finished(&ledger.Entry{Index: s.index(ledger.CallDecided), Agent: "payroll"}))
		}, func(s *subject) bool { open, err := s.Unfinished(ctx); return err == nil && len(open) == 0 }},
		{"revoke a token", ledger.Revoked, false, busy, revoke(counterfoil.TargetToken, "tok_1"), refused(plain)},
		{"revoke a key", ledger.Revoked, false, busy, revoke(counterfoil.TargetKey, "jkt-ins_1"), also(refused(plain), "apr_1")},
		{"revoke another key", ledger.Revoked, false, busy, revoke(counterfoil.TargetKey, "bound"), refused(bound)},
		{"revoke an instance", ledger.Revoked, false, busy, revoke(counterfoil.TargetInstance, "ins_1"), also(refused(bound), "apr_1")},
		{"revoke a task", ledger.Revoked, false, busy, revoke(counterfoil.TargetTask, "tsk_1"), also(refused(tasked), "apr_1")},
		{"revoke an agent", ledger.Revoked, false, busy, revoke(counterfoil.TargetAgent, "payroll"), also(refused(plain), "apr_1")},
		{"revoke an owner", ledger.Revoked, false, busy, revoke(counterfoil.TargetOwner, "ana"), also(refused(plain), "apr_1")},
		{"revoke a person", ledger.Revoked, false, busy, revoke(counterfoil.TargetPerson, "bo"),
			also(func(s *subject) bool { return s.PersonStatus("bo") == counterfoil.Suspended }, "apr_1")},
		{"revoke a resource", ledger.Revoked, false, busy, revoke(counterfoil.TargetResource, "bank"), also(refused(plain), "apr_1")},
		{"restore a resource", ledger.Restored, false, func(s *subject) { busy(s); s.revoke(counterfoil.TargetResource, "bank") },
			restore(counterfoil.TargetResource, "bank"), func(s *subject) bool { st, _ := s.ResourceStatus("bank"); return st == counterfoil.Active }},
		{"restore a person", ledger.Restored, false, func(s *subject) { busy(s); s.revoke(counterfoil.TargetPerson, "bo") },
			restore(counterfoil.TargetPerson, "bo"), func(s *subject) bool { return s.PersonStatus("bo") == counterfoil.Active }},
		{"offboard", ledger.AgentOffboarded, false, func(s *subject) { busy(s); s.wantDone(put(s)) }, func(s *subject) error {
			_, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
			return err
		}, func(s *subject) bool {
			_, live := s.LiveTask("tsk_1")
			l, err := s.Streams(ctx)
			return also(refused(plain), "apr_1")(s) && !live && err == nil && len(l) == 0
		}},
		{"rotate", ledger.KeyRotated, false, busy, func(s *subject) error { return s.rotate("jkt-ins_1", "k2", time.Hour) }, func(s *subject) bool {
			_, _, before := s.ProofKey("jkt-ins_1")
			_, _, after := s.ProofKey("k2")
			return before && after
		}},
		{"rotate again, at once", ledger.KeyRotated, false, func(s *subject) { busy(s); s.wantDone(s.rotate("jkt-ins_1", "k2", time.Hour)) },
			func(s *subject) error { return s.rotate("k2", "k3", 0) }, func(s *subject) bool {
				_, _, first := s.ProofKey("jkt-ins_1")
				_, _, second := s.ProofKey("k2")
				_, _, third := s.ProofKey("k3")
				return !first && !second && third
			}},
		{"drop a code", ledger.Revoked, true, busy, func(s *subject) error {
			_, err := s.DropCode(ctx, code("payroll", "x").Hash, entry(ledger.Revoked, ""))
			return err
		}, func(s *subject) bool {
			n := 0
			err := s.readRows(ctx, `SELECT 1 FROM codes`, func([]driver.Value) error { n++; return nil })
			return err == nil && n == 0
		}},
		{"use an assertion", ledger.TokenIntrospected, false, busy, func(s *subject) error {
			return s.UseAssertion(ctx, s.use("payroll", "q"), s.live("payroll", "ins_1"), entry(ledger.TokenIntrospected, "payroll"))
		}, used("q")},
		{"give a token back", ledger.Revoked, false, busy, func(s *subject) error {
			_, err := s.RevokeTokenWith(ctx, s.use("payroll", "q"), counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: "tok_1"},
				Agent: "payroll", Expires: s.fixture.clock.Now().Add(time.Minute)}, entry(ledger.Revoked, "payroll"))
			return err
		}, func(s *subject) bool { return refused(plain)(s) && used("q")(s) }},
		{"put a stream", ledger.StreamChanged, false, busy, put, streams(func(l []counterfoil.SignalStream) bool { return len(l) == 1 })},
		{"ack a stream", ledger.SignalDelivered, true, func(s *subject) { busy(s); s.wantDone(put(s)) },
			func(s *subject) error {
				return s.AckStream(ctx, "str_1", 4, nil, entry(ledger.SignalDelivered, "payroll"))
			},
			streams(func(l []counterfoil.SignalStream) bool { return l[0].Cursor == 4 })},
		{"delete a stream", ledger.StreamChanged, false, func(s *subject) { busy(s); s.wantDone(put(s)) },
			func(s *subject) error { return s.DeleteStream(ctx, "str_1", entry(ledger.StreamChanged, "payroll")) },
			streams(func(l []counterfoil.SignalStream) bool { return len(l) == 0 })},
	}
}

// index returns where the newest entry of a kind is.
func (s *subject) index(kind ledger.Kind) int64 {
	s.t.Helper()
	found, err := s.Find(context.Background(), ledger.Filter{Kind: kind, Limit: 1})
	s.wantDone(err)
	if len(found) != 1 {
		s.t.Fatalf("there is no %s", kind)
	}
	return found[0].Index
}

// TestRevocationFaults fails each write of each verb in turn, as TestProofFaults does.
func TestRevocationFaults(t *testing.T) {
	t.Parallel()
	for _, st := range revocationStages() {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lost=%v", st.name, lost), func(t *testing.T) {
				t.Parallel()
				from := prepared(t, st)
				for write := 0; ; write++ {
					if !proofFault(t, st, from, write, lost) {
						if write < 6 {
							t.Fatalf("only %d writes were tried", write)
						}
						return
					}
				}
			})
		}
	}
}
