package store

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// What is revoked is revoked for whoever comes next, also where both are committed
// together and memory knows of neither.
func TestRevokedInOneBatch(t *testing.T) {
	t.Parallel()
	issue := func(s *subject) error { return s.tryToken("tok_9", "payroll", "ins_1", "tsk_1") }
	call := func(s *subject) error { return s.use1("tsk_1", "read", nil) }
	listed := func(s *subject) error { return s.use1("tsk_1", "", nil) }
	request := func(s *subject) error {
		_, _, err := s.request(s.approval("payroll", "two", func(a *counterfoil.Approval) { a.Caller.Task, a.Caller.TokenID = "tsk_1", "tok_1" }))
		return err
	}
	sign := func(s *subject) error { return s.sign(s.signing("apr_1", "cy", 1, counterfoil.StateApproved)) }
	rotate := func(s *subject) error { return s.rotate("jkt-ins_1", "k2", 0) }
	open := func(s *subject) error {
		task := s.aTask("tsk_9", "payroll", "ins_1")
		task.Parent = "tsk_1"
		return s.openTask(task)
	}
	login := func(s *subject) error {
		return s.UsePasskey(s.t.Context(), []byte("cy"), 9, true, entry(ledger.SessionOpened, ""))
	}
	introspect := func(s *subject) error {
		return s.UseAssertion(s.t.Context(), s.use("payroll", "q"), s.live("payroll", "ins_1"), entry(ledger.TokenIntrospected, "payroll"))
	}
	for _, c := range []struct {
		name   string
		kind   counterfoil.TargetKind
		id     string
		then   func(*subject) error
		refuse counterfoil.Code
	}{
		{"an agent, then a token", counterfoil.TargetAgent, "payroll", issue, counterfoil.AgentSuspended},
		{"an instance, then a token", counterfoil.TargetInstance, "ins_1", issue, counterfoil.ClientRefused},
		{"a task, then a token", counterfoil.TargetTask, "tsk_1", issue, counterfoil.TaskClosed},
		{"a resource, then a token", counterfoil.TargetResource, "bank", issue, counterfoil.TargetInvalid},
		{"a task, then a call", counterfoil.TargetTask, "tsk_1", call, counterfoil.TaskClosed},
		{"a task, then a list", counterfoil.TargetTask, "tsk_1", listed, counterfoil.TaskClosed},
		{"a task, then one below", counterfoil.TargetTask, "tsk_1", open, counterfoil.TaskClosed},
		{"an agent, then a task", counterfoil.TargetAgent, "payroll", open, counterfoil.AgentSuspended},
		{"a token, then a request", counterfoil.TargetToken, "tok_1", request, counterfoil.TokenRevoked},
		{"a task, then a request", counterfoil.TargetTask, "tsk_1", request, counterfoil.TaskClosed},
		{"a resource, then a request", counterfoil.TargetResource, "bank", request, counterfoil.TokenRevoked},
		{"a person, then a signature over theirs", counterfoil.TargetPerson, "bo", sign, counterfoil.ApprovalRevoked},
		{"a person, then their login", counterfoil.TargetPerson, "cy", login, counterfoil.PasskeyRefused},
		{"a key, then another", counterfoil.TargetKey, "jkt-ins_1", rotate, counterfoil.TokenRevoked},
		{"an owner, then a question", counterfoil.TargetOwner, "ana", introspect, counterfoil.AgentSuspended},
		{"nothing of it", counterfoil.TargetKey, "bound", issue, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			gate, entered := make(chan struct{}), make(chan struct{}, 1)
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
			s := &subject{t: t, fixture: f, Store: f.open()}
			s.shop()
			s.token("tok_1", "payroll", "ins_1", "")
			batches := s.Stats().Batches
			hold.Store(true)
			done, then := make(chan error, 2), make(chan error, 1)
			go func() { done <- s.Append(t.Context(), entry(ledger.ServerStarted, "")) }()
			<-entered // what comes now is the next batch
			go func() { _, _, err := s.tryRevoke(c.kind, c.id); done <- err }()
			s.waitFor(1)
			go func() { then <- c.then(s) }()
			s.waitFor(2)
			close(gate)
			for range 2 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			err := <-then
			if c.refuse == "" && err != nil || c.refuse != "" && (err == nil || counterfoil.CodeOf(err) != c.refuse) {
				t.Errorf("what came next: %v, want %q", err, c.refuse)
			}
			if n := s.Stats().Batches - batches; n != 2 {
				t.Errorf("there were %d batches", n)
			}
			s.checkLedger()
		})
	}
}

// waitFor waits until so many decisions wait for the sequencer.
func (s *subject) waitFor(n int) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); waitingFor(s.Store) < n; runtime.Gosched() {
		if time.Now().After(end) {
			s.t.Fatal("nothing came")
		}
	}
}
