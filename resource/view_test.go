package resource_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/resource"
)

const activeEpoch = 1_700_000_000_000

// A told is an issuer that tells a View, at one injected time.
type told struct {
	t    *testing.T
	now  time.Time
	view *resource.View
	seq  int64
}

func newTold(t *testing.T) *told {
	o := &told{t: t, now: start, seq: 100}
	o.view = &resource.View{Now: func() time.Time { return o.now }}
	return o
}

func states(s counterfoil.Status, epoch int64, names ...string) map[string]counterfoil.AgentState {
	out := map[string]counterfoil.AgentState{}
	for _, n := range names {
		out[n] = counterfoil.AgentState{Status: s, Epoch: epoch}
	}
	return out
}

// all is a snapshot of payroll alone, active.
func (o *told) all(dead ...counterfoil.Dead) counterfoil.RevocationFeed {
	return counterfoil.RevocationFeed{Seq: o.seq, At: o.now, MaxStale: 10_000, Snapshot: &counterfoil.RevocationStep{
		Seq: o.seq, At: o.now, Agents: states(counterfoil.Active, activeEpoch, "payroll"), Dead: dead,
	}}
}

// next is a message of one step that follows on the last.
func (o *told) next(agents map[string]counterfoil.AgentState, dead ...counterfoil.Dead) counterfoil.RevocationFeed {
	prev := o.seq
	o.seq += 7
	return counterfoil.RevocationFeed{Seq: o.seq, At: o.now, MaxStale: 10_000, Steps: []counterfoil.RevocationStep{
		{Seq: o.seq, Prev: prev, At: o.now, Agents: agents, Dead: dead},
	}}
}

// same says that nothing changed.
func (o *told) same() counterfoil.RevocationFeed {
	return counterfoil.RevocationFeed{Seq: o.seq, At: o.now, MaxStale: 10_000}
}

func (o *told) take(f counterfoil.RevocationFeed) {
	o.t.Helper()
	if err := o.view.Take(f, o.now); err != nil {
		o.t.Fatal(err)
	}
}

func (o *told) dead(kind counterfoil.TargetKind, id string) counterfoil.Dead {
	return counterfoil.Dead{Kind: kind, ID: id, Until: o.now.Add(time.Hour)}
}

func payroll() counterfoil.Caller {
	return counterfoil.Caller{
		Agent: "payroll", Instance: "ins_1", Epoch: activeEpoch, Task: "tsk_1", Audience: bank, TokenID: "tok_1",
		JKT: "thumbprint", Issued: start, Expires: start.Add(5 * time.Minute),
	}
}

func (o *told) wantLive(c counterfoil.Caller) {
	o.t.Helper()
	if err := o.view.Revoked(context.Background(), c); err != nil {
		o.t.Errorf("the live caller is refused: %v", err)
	}
}

func (o *told) wantNot(code counterfoil.Code, c counterfoil.Caller) {
	o.t.Helper()
	err := o.view.Revoked(context.Background(), c)
	if err == nil || counterfoil.CodeOf(err) != code {
		o.t.Errorf("got %v, want %s", err, code)
	}
}

// TestViewRefusesWhatIsRevoked: each kind of target, by a step and by a snapshot, with
// the caller that lacks just that beside it.
func TestViewRefusesWhatIsRevoked(t *testing.T) {
	t.Parallel()
	resourceDead := counterfoil.Dead{Kind: counterfoil.TargetResource, ID: bank, Until: start.Add(time.Hour), Before: start}
	of := func(s counterfoil.Status, epoch int64) map[string]counterfoil.AgentState {
		return states(s, epoch, "payroll")
	}
	for name, c := range map[string]struct {
		agents map[string]counterfoil.AgentState
		dead   []counterfoil.Dead
		code   counterfoil.Code
		other  func(*counterfoil.Caller) // lives on
	}{
		"suspended":                         {agents: of(counterfoil.Suspended, activeEpoch+1), code: counterfoil.AgentSuspended},
		"offboarded":                        {agents: of(counterfoil.Offboarded, activeEpoch+1), code: counterfoil.TokenRevoked},
		"a new epoch":                       {agents: of(counterfoil.Active, activeEpoch+1), code: counterfoil.TokenRevoked, other: func(c *counterfoil.Caller) { c.Epoch++ }},
		"token":                             {dead: []counterfoil.Dead{{Kind: counterfoil.TargetToken, ID: "tok_1", Until: start.Add(time.Hour)}}, code: counterfoil.TokenRevoked, other: func(c *counterfoil.Caller) { c.TokenID = "tok_2" }},
		"key":                               {dead: []counterfoil.Dead{{Kind: counterfoil.TargetKey, ID: "thumbprint", Until: start.Add(time.Hour)}}, code: counterfoil.TokenRevoked, other: func(c *counterfoil.Caller) { c.JKT = "another" }},
		"instance":                          {dead: []counterfoil.Dead{{Kind: counterfoil.TargetInstance, ID: "ins_1", Until: start.Add(time.Hour)}}, code: counterfoil.TokenRevoked, other: func(c *counterfoil.Caller) { c.Instance = "ins_2" }},
		"task":                              {dead: []counterfoil.Dead{{Kind: counterfoil.TargetTask, ID: "tsk_1", Until: start.Add(time.Hour)}}, code: counterfoil.TaskClosed, other: func(c *counterfoil.Caller) { c.Task = "" }},
		"resource":                          {dead: []counterfoil.Dead{resourceDead}, code: counterfoil.TokenRevoked, other: func(c *counterfoil.Caller) { c.Issued = start.Add(time.Second) }},
		"resource, for another one's token": {dead: []counterfoil.Dead{resourceDead}, code: counterfoil.TokenRevoked, other: func(c *counterfoil.Caller) { c.Audience = bank + "2" }},
	} {
		for _, how := range []string{"step", "snapshot", "first snapshot"} {
			t.Run(name+" by a "+how, func(t *testing.T) {
				t.Parallel()
				o := newTold(t)
				caller := payroll()
				if how != "first snapshot" {
					o.take(o.all())
					o.wantLive(caller)
				}
				o.now = o.now.Add(time.Second)
				f := o.next(c.agents, c.dead...)
				if how != "step" {
					f = o.all(c.dead...)
					if c.agents != nil {
						f.Snapshot.Agents = c.agents
					}
				}
				o.take(f)
				o.wantNot(c.code, caller)
				if c.other != nil {
					other := caller
					c.other(&other)
					o.wantLive(other)
				}
			})
		}
	}
}

func TestViewRefusesWhomItWasNotToldOf(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	o.take(o.all())
	stranger := payroll()
	stranger.Agent = "newcomer"
	o.wantNot(counterfoil.TokenRevoked, stranger)
	o.wantNot(counterfoil.TokenRevoked, counterfoil.Caller{})
	o.take(o.next(states(counterfoil.Active, activeEpoch, "newcomer")))
	o.wantLive(stranger)
	o.wantLive(payroll())
	// A snapshot that leaves an agent out takes it for gone, and for good.
	f := o.all()
	f.Snapshot.Agents = states(counterfoil.Active, activeEpoch, "newcomer")
	o.now = o.now.Add(time.Second)
	f.At = o.now
	o.take(f)
	o.wantNot(counterfoil.TokenRevoked, payroll())
	o.wantLive(stranger)
	o.now = o.now.Add(time.Second)
	if err := o.view.Take(o.all(), o.now); err == nil {
		t.Error("what was gone came back")
	}
}

// TestViewIsStaleWithoutNews: not before the first snapshot, and not after the bound.
// The clock is the local one, from when the last message was asked for.
func TestViewIsStaleWithoutNews(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	stale := func() {
		t.Helper()
		o.wantNot(counterfoil.RevocationStale, payroll())
		if err := o.view.Ready(); err == nil || counterfoil.CodeOf(err) != counterfoil.RevocationStale {
			t.Errorf("Ready: %v", err)
		}
	}
	stale()
	if o.view.Seq() != -1 || o.view.Age() != math.MaxInt64 {
		t.Errorf("seq %d, age %v", o.view.Seq(), o.view.Age())
	}
	if err := o.view.Take(o.same(), o.now); !errors.Is(err, resource.ErrGap) {
		t.Errorf("steps before a snapshot: %v", err)
	}
	stale()
	o.take(o.all())
	o.wantLive(payroll())
	if o.view.Seq() != o.seq || o.view.Age() != 0 || o.view.Ready() != nil {
		t.Errorf("seq %d, age %v, %v", o.view.Seq(), o.view.Age(), o.view.Ready())
	}
	o.now = o.now.Add(10*time.Second - 1)
	o.wantLive(payroll())
	o.now = o.now.Add(1)
	stale()
	// That nothing changed is news too.
	o.take(o.same())
	o.wantLive(payroll())
	// An answer that was long on its way is as old as its question.
	asked := o.now
	o.now = o.now.Add(9 * time.Second)
	if err := o.view.Take(o.same(), asked); err != nil {
		t.Fatal(err)
	}
	if o.view.Age() != 9*time.Second {
		t.Errorf("age %v", o.view.Age())
	}
	o.now = o.now.Add(time.Second)
	stale()
	o.take(o.same())
	// A clock that goes back refuses.
	o.now = o.now.Add(-time.Minute)
	stale()
	o.now = o.now.Add(time.Minute)
	o.wantLive(payroll())
	// The shorter bound counts: the server's own, or the issuer's.
	for _, c := range []struct {
		own    time.Duration
		issuer int64
		want   time.Duration
	}{{2 * time.Second, 10_000, 2 * time.Second}, {time.Minute, 4_000, 4 * time.Second}, {time.Minute, 0, time.Minute}, {0, 0, resource.DefaultMaxStale}} {
		o := newTold(t)
		o.view.MaxStale = c.own
		f := o.all()
		f.MaxStale = c.issuer
		o.take(f)
		o.now = o.now.Add(c.want - 1)
		o.wantLive(payroll())
		o.now = o.now.Add(1)
		o.wantNot(counterfoil.RevocationStale, payroll())
	}
}

// TestViewTakesNothingBack: whatever is sent again, later, in another order or with
// something left out, what was revoked stays so (RV3).
func TestViewTakesNothingBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		message func(o *told, first, second counterfoil.RevocationFeed) counterfoil.RevocationFeed
		err     error // nil: any
	}{
		"the first snapshot again": {func(_ *told, first, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed { return first }, resource.ErrOld},
		"the step again":           {func(_ *told, _, second counterfoil.RevocationFeed) counterfoil.RevocationFeed { return second }, resource.ErrOld},
		"the first snapshot with the time of now": {func(o *told, first, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			first.At = o.now
			return first
		}, resource.ErrOld},
		"a message of before": {func(o *told, first, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.same()
			f.At = first.At
			return f
		}, resource.ErrOld},
		"a newer snapshot of an older epoch": {func(o *told, first, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			o.seq++
			return o.all()
		}, nil},
		"a newer step to an older epoch": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			return o.next(states(counterfoil.Active, activeEpoch, "payroll"))
		}, nil},
		"a step that follows on what is not known": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			o.seq += 5
			return o.next(nil)
		}, resource.ErrGap},
		"a step that follows on something before": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.next(nil)
			f.Steps[0].Prev = 100
			return f
		}, resource.ErrGap},
		"steps that are not linked": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			a, b := o.next(nil), o.next(nil)
			b.Steps = append(a.Steps, counterfoil.RevocationStep{Seq: b.Seq, Prev: a.Seq - 1})
			return b
		}, resource.ErrGap},
		"steps that end before the message": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.next(nil)
			f.Seq++
			return f
		}, resource.ErrGap},
		"no step where one is": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.same()
			f.Seq++
			return f
		}, resource.ErrGap},
		"a step that is before itself": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.next(nil)
			f.Steps[0].Seq = f.Steps[0].Prev
			return f
		}, nil},
		"a snapshot with steps": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.next(nil)
			f.Snapshot = &counterfoil.RevocationStep{Seq: f.Seq}
			return f
		}, nil},
		"a snapshot of another number": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.all()
			f.Snapshot.Seq--
			return f
		}, nil},
		"a status that is none": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			return o.next(states("", activeEpoch+9, "payroll"))
		}, nil},
		"an epoch that is none": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			return o.next(states(counterfoil.Active, math.MaxInt64, "payroll"))
		}, nil},
		"a name that is none": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			return o.next(states(counterfoil.Active, activeEpoch, "Pay Roll"))
		}, nil},
		"somebody back from offboarding": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			o.take(o.next(states(counterfoil.Offboarded, activeEpoch+5, "gone")))
			return o.next(states(counterfoil.Active, activeEpoch+6, "gone"))
		}, nil},
		"back within one message": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			a, b := o.next(states(counterfoil.Suspended, activeEpoch+7, "payroll")), o.next(states(counterfoil.Active, activeEpoch+6, "payroll"))
			b.Steps = append(a.Steps, b.Steps...)
			return b
		}, nil},
		"a kind that is none": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			return o.next(nil, o.dead(counterfoil.TargetPerson, "ana"))
		}, nil},
		"a resource without a time": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			return o.next(nil, o.dead(counterfoil.TargetResource, bank))
		}, nil},
		"a dead thing without a name": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			return o.next(nil, o.dead(counterfoil.TargetToken, ""))
		}, nil},
		"no time": {func(o *told, _, _ counterfoil.RevocationFeed) counterfoil.RevocationFeed {
			f := o.next(nil)
			f.At = time.Time{}
			return f
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newTold(t)
			first := o.all()
			first.Snapshot.Agents["gone"] = counterfoil.AgentState{Status: counterfoil.Active, Epoch: activeEpoch}
			o.take(first)
			o.now = o.now.Add(time.Second)
			second := o.next(states(counterfoil.Suspended, activeEpoch+3, "payroll"), o.dead(counterfoil.TargetToken, "tok_1"))
			o.take(second)
			o.wantNot(counterfoil.AgentSuspended, payroll())
			o.now = o.now.Add(time.Second)
			message := c.message(o, first, second)
			seq := o.view.Seq()
			err := o.view.Take(message, o.now)
			if err == nil || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			o.wantNot(counterfoil.AgentSuspended, payroll())
			if o.view.Seq() != seq || o.view.Age() == 0 && name != "somebody back from offboarding" {
				t.Errorf("seq %d after %d, age %v: it was taken for news", o.view.Seq(), seq, o.view.Age())
			}
			// The positive control: what does follow is taken, and so is life after it.
			o.seq = seq
			o.now = o.now.Add(time.Second)
			o.take(o.next(states(counterfoil.Active, activeEpoch+20, "payroll")))
			back := payroll()
			back.Epoch, back.TokenID = activeEpoch+20, "tok_2"
			o.wantLive(back)
			o.wantNot(counterfoil.TokenRevoked, payroll())
			// A token that was revoked stays so in a snapshot that does not say it.
			f := o.all()
			f.Snapshot.Agents = states(counterfoil.Active, activeEpoch+20, "payroll")
			o.take(f)
			back.TokenID = "tok_1"
			o.wantNot(counterfoil.TokenRevoked, back)
		})
	}
}

// TestAnEchoIsNoNews: the last message, sent again by whoever stands between, keeps
// no View fresh.
func TestAnEchoIsNoNews(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	o.take(o.all())
	echo := o.same()
	for range 3 {
		o.now = o.now.Add(4 * time.Second)
		_ = o.view.Take(echo, o.now)
	}
	o.wantNot(counterfoil.RevocationStale, payroll())
	o.take(o.same())
	o.wantLive(payroll())
}

// TestTheDeadAreForgottenWhenNobodyCanAsk: not before their time by either clock.
func TestTheDeadAreForgottenWhenNobodyCanAsk(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	d := counterfoil.Dead{Kind: counterfoil.TargetToken, ID: "tok_1", Until: start.Add(10 * time.Minute)}
	o.take(o.all(d))
	// The same is told with an earlier end: it is not dead for shorter.
	early := d
	early.Until = start
	o.take(o.next(nil, early))
	for _, after := range []time.Duration{time.Minute, 5*time.Minute + time.Second, 11 * time.Minute} {
		o.now = start.Add(after)
		o.take(o.same())
		o.wantNot(counterfoil.TokenRevoked, payroll())
	}
	o.now = start.Add(20 * time.Minute)
	o.take(o.same())
	o.wantLive(payroll()) // whose token expired, which the Verifier knows
}

// TestViewRace: what is taken while others ask is there for who asks later.
func TestViewRace(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	o.take(o.all())
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = o.view.Revoked(context.Background(), payroll())
					_, _, _ = o.view.Seq(), o.view.Age(), o.view.Ready()
				}
			}
		})
	}
	for i := range 200 {
		id := fmt.Sprint("tok_x", i)
		o.take(o.next(nil, o.dead(counterfoil.TargetToken, id)))
		c := payroll()
		c.TokenID = id
		o.wantNot(counterfoil.TokenRevoked, c)
		if i%50 == 0 {
			f := o.all()
			o.take(f)
		}
	}
	close(done)
	wg.Wait()
	o.wantLive(payroll())
}

// TestWhatIsDeadUntilATime: of every kind, what says a time is void for tokens of then
// and before alone, and for all once anybody says none.
func TestWhatIsDeadUntilATime(t *testing.T) {
	t.Parallel()
	for kind, id := range map[counterfoil.TargetKind]string{
		counterfoil.TargetToken: "tok_1", counterfoil.TargetKey: "thumbprint", counterfoil.TargetInstance: "ins_1",
		counterfoil.TargetTask: "tsk_1", counterfoil.TargetResource: bank,
	} {
		code := counterfoil.TokenRevoked
		if kind == counterfoil.TargetTask {
			code = counterfoil.TaskClosed
		}
		for _, how := range []string{"step", "snapshot"} {
			t.Run(string(kind)+" by a "+how, func(t *testing.T) {
				t.Parallel()
				o := newTold(t)
				o.take(o.all())
				o.wantLive(payroll())
				say := func(before time.Time) {
					t.Helper()
					o.now = o.now.Add(time.Second)
					d := o.dead(kind, id)
					d.Before = before
					f := o.next(nil, d)
					if how == "snapshot" {
						f = o.all(d)
					}
					o.take(f)
				}
				issued := func(at time.Duration) counterfoil.Caller {
					c := payroll()
					c.Issued = start.Add(at)
					return c
				}
				say(start)
				o.wantNot(code, issued(-time.Second))
				o.wantNot(code, issued(0))
				o.wantLive(issued(time.Second)) // as of an instance that was released
				say(start.Add(2 * time.Second))
				o.wantNot(code, issued(2*time.Second))
				o.wantLive(issued(3 * time.Second))
				say(start.Add(time.Second)) // less takes nothing back
				o.wantNot(code, issued(2*time.Second))
				if kind == counterfoil.TargetResource {
					return // which always says a time
				}
				say(time.Time{})
				o.wantNot(code, issued(3*time.Second))
				say(start)
				o.wantNot(code, issued(3*time.Second)) // for good
			})
		}
	}
}

// of makes a message one of a log.
func of(log string, f counterfoil.RevocationFeed) counterfoil.RevocationFeed {
	f.Log = log
	return f
}

// TestViewOfARestoredLog: an issuer that was restored tells of another log. Its numbers
// begin anew, by a snapshot; what is dead stays so; and no epoch that was comes back.
func TestViewOfARestoredLog(t *testing.T) {
	t.Parallel()
	const old, restored = "issuer.example/ledger", "issuer.example/ledger/restored-1"
	o := newTold(t)
	o.seq = 500
	first := of(old, o.all(o.dead(counterfoil.TargetToken, "tok_dead")))
	for name, status := range map[string]counterfoil.Status{"lost": counterfoil.Active, "gone": counterfoil.Offboarded, "late": counterfoil.Active} {
		first.Snapshot.Agents[name] = counterfoil.AgentState{Status: status, Epoch: activeEpoch + 100}
	}
	o.take(first)
	o.wantLive(payroll())
	if o.view.Log() != old {
		t.Errorf("the log is %q", o.view.Log())
	}
	caller := func(agent string, epoch int64) counterfoil.Caller {
		c := payroll()
		c.Agent, c.Epoch, c.TokenID = agent, epoch, "tok_"+agent
		return c
	}
	refuse := func(name string, f counterfoil.RevocationFeed, want error) {
		t.Helper()
		if err := o.view.Take(f, o.now); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	// A step of the other log that happens to follow on the number.
	o.now = o.now.Add(time.Second)
	step := of(restored, o.next(states(counterfoil.Active, activeEpoch+50, "payroll")))
	refuse("a step of another log", step, resource.ErrGap)
	o.seq = 500
	refuse("that nothing changed in another log", of(restored, o.same()), resource.ErrGap)
	refuse("a snapshot of no log", of("", o.all()), resource.ErrOld)
	o.wantLive(payroll())
	if o.view.Seq() != 500 || o.view.Log() != old {
		t.Errorf("seq %d of %s", o.view.Seq(), o.view.Log())
	}

	// Its clock is behind, and so are its numbers.
	o.seq, o.now = 40, o.now.Add(time.Second)
	f := of(restored, o.all())
	f.At = start.Add(-time.Minute)
	f.Snapshot.Agents = states(counterfoil.Suspended, activeEpoch+200, "payroll", "gone")
	f.Snapshot.Agents["late"] = counterfoil.AgentState{Status: counterfoil.Active, Epoch: activeEpoch + 60}
	o.take(f)
	if o.view.Seq() != 40 || o.view.Log() != restored || o.view.Age() != 0 {
		t.Errorf("seq %d of %s, age %v", o.view.Seq(), o.view.Log(), o.view.Age())
	}
	o.wantNot(counterfoil.AgentSuspended, payroll())
	o.wantNot(counterfoil.TokenRevoked, caller("lost", activeEpoch+100))
	o.wantNot(counterfoil.TokenRevoked, caller("late", activeEpoch+100))
	o.wantNot(counterfoil.TokenRevoked, caller("late", activeEpoch+60))

	// The control: its steps are taken, and let in who is let in again. Somebody who was
	// offboarded, or declared, in the time that is lost is whom the log says.
	states := states(counterfoil.Active, activeEpoch+300, "payroll", "gone", "late", "lost")
	next := of(restored, o.next(states))
	next.At = start
	next.Steps[0].At = start
	o.take(next)
	for name := range states {
		o.wantLive(caller(name, activeEpoch+300))
		o.wantNot(counterfoil.TokenRevoked, caller(name, activeEpoch+100))
	}
	dead := caller("payroll", activeEpoch+300)
	dead.TokenID = "tok_dead"
	o.wantNot(counterfoil.TokenRevoked, dead)

	// What was said before, of whichever log, is not taken again (RV3).
	refuse("the snapshot of the log before", first, resource.ErrOld)
	first.At, first.Seq, first.Snapshot.Seq = o.now, 9000, 9000
	refuse("that, as if it were new", first, resource.ErrOld)
	refuse("this log's snapshot", f, resource.ErrOld)
	o.wantLive(caller("payroll", activeEpoch+300))
	// It may be restored once more, and an epoch that no log said a higher one of stays.
	o.seq, o.now = 3, o.now.Add(time.Second)
	last := of(restored+"1", o.all())
	last.Snapshot.Agents = map[string]counterfoil.AgentState{"payroll": {Status: counterfoil.Active, Epoch: activeEpoch + 300}, "gone": {Status: counterfoil.Active, Epoch: activeEpoch + 301}}
	o.take(last)
	o.wantNot(counterfoil.TokenRevoked, caller("payroll", activeEpoch+300))
	o.wantLive(caller("gone", activeEpoch+301))
	refuse("the log before the last", first, resource.ErrOld)
}
