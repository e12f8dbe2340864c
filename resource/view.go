package resource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
)

// DefaultMaxStale is how old what a View knows may be where nobody says so.
const DefaultMaxStale = 10 * time.Second

// A View is the Revocation of a resource server that is not the issuer: what is
// revoked, as its issuer tells it (Feed). It refuses every caller before it has heard
// of everything, and again, with the fault revocation_stale, as soon as it has heard
// nothing new for as long as MaxStale. An agent that it was not told of is revoked.
//
// What it knows never becomes less by a message: one that is older than what it knows,
// comes twice, leaves something out or says that something is as it was before is not
// taken. So whoever holds messages back, or sends them again, gets nothing but a View
// that refuses.
//
// An issuer that was restored from a backup goes on with another log, whose numbers say
// nothing of those of the log before. Of that one the View takes everything at once, and
// then its steps; it never goes back to a log that it left. What was dead stays so, and
// no agent is let in at an epoch that the View knew it at, or before.
//
// Its fields are set before the first use. It is safe for concurrent use, and must
// not be copied.
type View struct {
	// MaxStale is how long it may have heard nothing, by this machine's monotonic
	// clock. Where the issuer's own bound is shorter, that counts. Zero: the
	// issuer's.
	MaxStale time.Duration

	Now func() time.Time // nil: time.Now

	apply sync.Mutex // held while a message is taken

	mu sync.RWMutex // guards what follows; held for writing by who holds apply
	viewState
}

// viewState is what a View knows. The zero viewState is nothing, not even that.
type viewState struct {
	ready    bool
	log      string   // origin of the log that seq is of
	left     []string // logs before it
	seq      int64
	at       time.Time // of the last message, by the issuer's clock
	heard    time.Time // the message was made after this, by our clock
	maxStale time.Duration

	agents map[string]packedState
	dead   map[deadKey]deadline
	before map[deadKey]time.Time // tokens of then or earlier are void; of what is dead and not here, all
	sweep  time.Time             // when to look for what is past

	// floor has the epochs that agents of a log before had where this log has not said a
	// higher one: they are let in above those alone.
	floor map[string]int64
}

// deadKey names something that is dead.
type deadKey struct {
	kind counterfoil.TargetKind
	id   string
}

// A deadline is the last second, since 1970, in which it may matter that something is
// dead.
type deadline uint32

// A packedState is an AgentState in one word, as there may be a million: the epoch,
// and the status in the last two bits.
type packedState int64

const (
	packedUnknown packedState = iota // refused like what is not there
	packedActive
	packedSuspended
	packedOffboarded
)

func pack(s counterfoil.AgentState) (packedState, error) {
	if s.Epoch < 0 || s.Epoch > math.MaxInt64>>2 {
		return 0, fmt.Errorf("epoch %d is none", s.Epoch)
	}
	p := packedState(s.Epoch << 2)
	switch s.Status {
	case counterfoil.Active:
		return p | packedActive, nil
	case counterfoil.Suspended:
		return p | packedSuspended, nil
	case counterfoil.Offboarded:
		return p | packedOffboarded, nil
	}
	return 0, fmt.Errorf("status %.20q is none", s.Status)
}

func (p packedState) status() packedState { return p & 3 }
func (p packedState) epoch() int64        { return int64(p >> 2) }

// Errors of Take, which tell its caller how to go on.
var (
	// ErrGap says that a message before this one is missing: a snapshot is needed.
	ErrGap = errors.New("a step is missing")
	// ErrOld says that the message is not newer than what is known. It changed nothing.
	ErrOld = errors.New("the message is not newer than what is known")
)

// Take takes a message, all of it or nothing. asked is when it was asked for, by Now:
// it is at least as new as that, however long it was on its way. On any error the View
// knows what it knew, and goes stale unless another message comes.
func (v *View) Take(f counterfoil.RevocationFeed, asked time.Time) error {
	v.apply.Lock()
	defer v.apply.Unlock()
	old := v.viewState // nobody else writes it
	moved := old.ready && f.Log != old.log
	switch {
	case f.Seq < 0 || f.At.IsZero() || f.MaxStale < 0:
		return errors.New("the message lacks its sequence number or its time")
	case f.Snapshot != nil && (len(f.Steps) > 0 || f.Snapshot.Seq != f.Seq):
		return errors.New("the snapshot is not of the message's sequence number, or has steps beside it")
	case f.Snapshot == nil && (!old.ready || moved):
		return ErrGap
	case moved && (f.Log == "" || slices.Contains(old.left, f.Log)):
		return ErrOld
	// Of the same moment there may be two, where the issuer's clock is coarse; they
	// say the same or are told apart by their steps.
	case old.ready && asked.Before(old.heard):
		return ErrOld
	case old.ready && !moved && (f.At.Before(old.at) || f.Seq < old.seq || f.Seq == old.seq && len(f.Steps) > 0):
		return ErrOld
	}
	if moved {
		old = old.leave()
	}
	next, err := old, error(nil)
	if f.Snapshot != nil {
		next, err = old.snapshot(f.Snapshot)
	} else {
		err = old.linked(f)
	}
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.viewState = next
	for i := range f.Steps {
		v.step(&f.Steps[i])
	}
	// A message that says the same at the same moment as the one before may be that
	// one, sent again: it is no sign that the issuer is there.
	if !old.ready || moved || f.At.After(old.at) || f.Seq > old.seq {
		v.heard = asked
	}
	v.ready, v.log, v.seq, v.at, v.maxStale = true, f.Log, f.Seq, f.At, milliseconds(f.MaxStale)
	v.drop(v.now())
	return nil
}

func milliseconds(ms int64) time.Duration {
	return time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// leave returns what is known as it is for another log: what is dead, and which epochs
// every agent was seen at. What that log says of agents counts anew, as it may be from
// before they were offboarded, or declared.
func (s *viewState) leave() viewState {
	next := *s
	next.left = append(slices.Clone(s.left), s.log)
	next.agents, next.floor = nil, make(map[string]int64, len(s.agents)+len(s.floor))
	maps.Copy(next.floor, s.floor)
	for name, p := range s.agents {
		next.floor[name] = max(next.floor[name], p.epoch())
	}
	return next
}

// snapshot returns what is known with a snapshot in place of what was. What was dead
// stays so until its time, and no agent goes back.
func (s *viewState) snapshot(step *counterfoil.RevocationStep) (viewState, error) {
	next := *s
	next.agents = make(map[string]packedState, len(step.Agents))
	next.dead, next.before = make(map[deadKey]deadline, len(s.dead)+len(step.Dead)), map[deadKey]time.Time{}
	maps.Copy(next.dead, s.dead)
	maps.Copy(next.before, s.before)
	for name, state := range step.Agents {
		p, err := s.changed(name, state)
		if err != nil {
			return viewState{}, err
		}
		next.agents[name] = p
	}
	next.floor = map[string]int64{}
	for name, floor := range s.floor {
		if p, there := next.agents[name]; !there || p.epoch() <= floor {
			next.floor[name] = floor
		}
	}
	// An agent is never forgotten while its tokens could come back to life: one that
	// the snapshot leaves out is gone.
	for name, p := range s.agents {
		if _, there := next.agents[name]; !there {
			next.agents[name] = p&^3 | packedOffboarded
		}
	}
	for i := range step.Dead {
		if err := checkDead(&step.Dead[i]); err != nil {
			return viewState{}, err
		}
		next.bury(&step.Dead[i])
	}
	return next, nil
}

// changed checks and packs a state of an agent that is newer than what is known.
func (s *viewState) changed(name string, state counterfoil.AgentState) (packedState, error) {
	if err := counterfoil.CheckName(name); err != nil {
		return 0, err
	}
	p, err := pack(state)
	if err != nil {
		return 0, fmt.Errorf("agent %s: %w", name, err)
	}
	old, known := s.agents[name]
	switch {
	case !known:
	case p.epoch() < old.epoch():
		return 0, fmt.Errorf("agent %s goes back to epoch %d", name, p.epoch())
	case old.status() == packedOffboarded && p.status() != packedOffboarded:
		return 0, fmt.Errorf("agent %s was offboarded and is %s", name, state.Status)
	}
	return p, nil
}

func checkDead(d *counterfoil.Dead) error {
	switch d.Kind {
	case counterfoil.TargetToken, counterfoil.TargetKey, counterfoil.TargetInstance, counterfoil.TargetTask:
	case counterfoil.TargetResource:
		if d.Before.IsZero() {
			return fmt.Errorf("resource %.128q is dead without saying since when", d.ID)
		}
	default:
		return fmt.Errorf("%.20q is no kind of what is dead", d.Kind)
	}
	if d.ID == "" || d.Until.IsZero() {
		return fmt.Errorf("a dead %s has no id or no end", d.Kind)
	}
	return nil
}

// linked reports why the steps of a message cannot be taken: each has to follow on
// the one before, the first on what is known, and the last is the message's.
func (s *viewState) linked(f counterfoil.RevocationFeed) error {
	seq := s.seq
	fresh := map[string]packedState{} // states that a step of this message changed
	for i := range f.Steps {
		step := &f.Steps[i]
		if step.Prev != seq {
			return fmt.Errorf("%w before %d", ErrGap, step.Seq)
		}
		if step.Seq <= seq {
			return fmt.Errorf("step %d follows on %d", step.Seq, seq)
		}
		seq = step.Seq
		for name, state := range step.Agents {
			p, err := s.changed(name, state)
			if err != nil {
				return err
			}
			if before, twice := fresh[name]; twice && (p.epoch() < before.epoch() || before.status() == packedOffboarded && p.status() != packedOffboarded) {
				return fmt.Errorf("agent %s goes back within one message", name)
			}
			fresh[name] = p
		}
		for i := range step.Dead {
			if err := checkDead(&step.Dead[i]); err != nil {
				return err
			}
		}
	}
	if seq != f.Seq {
		return fmt.Errorf("%w before %d", ErrGap, f.Seq)
	}
	return nil
}

// step takes a step that was checked. The maps are the View's own: v.mu is held.
func (s *viewState) step(step *counterfoil.RevocationStep) {
	for name, state := range step.Agents {
		s.agents[name], _ = pack(state)
		s.rise(name, s.agents[name])
	}
	for i := range step.Dead {
		s.bury(&step.Dead[i])
	}
}

// rise forgets the epochs of a log before of an agent that is above them.
func (s *viewState) rise(name string, p packedState) {
	if floor, ok := s.floor[name]; ok && p.epoch() > floor {
		delete(s.floor, name)
	}
}

// bury adds something dead, for no less long than it was, and for no fewer tokens.
func (s *viewState) bury(d *counterfoil.Dead) {
	until := deadline(min(max(d.Until.Unix()+1, 0), math.MaxUint32))
	k := deadKey{d.Kind, d.ID}
	was, there := s.dead[k]
	s.dead[k] = max(was, until)
	before, some := s.before[k]
	switch {
	case d.Before.IsZero():
		delete(s.before, k)
	case !there || some && d.Before.After(before):
		s.before[k] = d.Before
	}
}

// sweepEach is how often what is past is looked for, and how much longer it is kept
// than it has to be, for clocks that are not alike.
const sweepEach = 5 * time.Minute

// drop forgets what no token could use any more, by our clock, which tokens are
// checked with, and by the issuer's.
func (s *viewState) drop(now time.Time) {
	if now.Before(s.sweep) {
		return
	}
	s.sweep = now.Add(sweepEach)
	past := min(now.Unix(), s.at.Unix()) - int64(sweepEach/time.Second)
	for k, until := range s.dead {
		if int64(until) < past {
			delete(s.dead, k)
			delete(s.before, k)
		}
	}
}

func (v *View) now() time.Time {
	if v.Now == nil {
		return time.Now()
	}
	return v.Now()
}

// Log returns the origin of the log that Seq is an index of; empty before anything is
// known, or where nobody said it.
func (v *View) Log() string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.log
}

// Seq returns the index of the newest ledger entry that what is known includes; -1
// before anything is known.
func (v *View) Seq() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if !v.ready {
		return -1
	}
	return v.seq
}

// Age returns how old what is known may be: how long ago the last message that was
// taken was asked for. Before the first there is no such time, and it returns the
// longest there is.
func (v *View) Age() time.Duration {
	now := v.now()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.age(now)
}

func (s *viewState) age(now time.Time) time.Duration {
	if !s.ready {
		return math.MaxInt64
	}
	return now.Sub(s.heard)
}

// Ready returns nil while what is known is fresh enough to let anybody in, and the
// fault revocation_stale otherwise.
func (v *View) Ready() error {
	now := v.now()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.fresh(now)
}

// bound returns how old what is known may be. v.mu is held.
func (v *View) bound() time.Duration {
	bound := v.MaxStale
	if v.maxStale > 0 && (bound <= 0 || v.maxStale < bound) {
		bound = v.maxStale
	}
	if bound <= 0 {
		bound = DefaultMaxStale
	}
	return bound
}

// fresh is Ready with v.mu held.
func (v *View) fresh(now time.Time) error {
	age, bound := v.age(now), v.bound()
	switch {
	case !v.ready:
		return counterfoil.NewFault(counterfoil.RevocationStale, errors.New("nothing is known of what is revoked yet"))
	// A clock that went back says nothing about how long it was.
	case age < 0, age >= bound:
		return counterfoil.NewFault(counterfoil.RevocationStale, fmt.Errorf("what is revoked was last heard %v ago, which may be %v", age, bound))
	}
	return nil
}

// Revoked returns nil exactly when what is known is fresh and the caller is live in
// it.
func (v *View) Revoked(_ context.Context, c counterfoil.Caller) error {
	now := v.now()
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.fresh(now); err != nil {
		return err
	}
	state, known := v.agents[c.Agent]
	switch {
	case !known || c.Agent == "" || state.status() == packedUnknown:
		return counterfoil.Refuse(counterfoil.TokenRevoked, "agent %q is not known", c.Agent)
	case state.status() == packedSuspended:
		return counterfoil.Refuse(counterfoil.AgentSuspended, "agent %q is suspended", c.Agent)
	case state.status() != packedActive:
		return counterfoil.Refuse(counterfoil.TokenRevoked, "agent %q was offboarded", c.Agent)
	case state.epoch() != c.Epoch:
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the token is of epoch %d, agent %q is at epoch %d", c.Epoch, c.Agent, state.epoch())
	case v.isBelow(c):
		return counterfoil.Refuse(counterfoil.TokenRevoked, "agent %q was at that epoch, or a later one, before the issuer was restored", c.Agent)
	case v.isDead(counterfoil.TargetToken, c.TokenID, c.Issued):
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the token was revoked")
	case v.isDead(counterfoil.TargetKey, c.JKT, c.Issued):
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the key is not a live key of instance %q", c.Instance)
	case v.isDead(counterfoil.TargetInstance, c.Instance, c.Issued):
		return counterfoil.Refuse(counterfoil.TokenRevoked, "instance %q of agent %q is not live", c.Instance, c.Agent)
	case c.Task != "" && v.isDead(counterfoil.TargetTask, c.Task, c.Issued):
		return counterfoil.Refuse(counterfoil.TaskClosed, "the token's task is not open")
	case v.isDead(counterfoil.TargetResource, c.Audience, c.Issued):
		return counterfoil.Refuse(counterfoil.TokenRevoked, "tokens of then for %q were revoked", c.Audience)
	}
	return nil
}

// isBelow reports whether a log before this one had the caller's agent at the token's
// epoch or a later one.
func (s *viewState) isBelow(c counterfoil.Caller) bool {
	floor, ok := s.floor[c.Agent]
	return ok && c.Epoch <= floor
}

// isDead reports whether no token of something that was issued then may be used.
func (s *viewState) isDead(kind counterfoil.TargetKind, id string, issued time.Time) bool {
	k := deadKey{kind, id}
	if _, dead := s.dead[k]; !dead {
		return false
	}
	before, some := s.before[k]
	return !some || !issued.After(before)
}
