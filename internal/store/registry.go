package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Apply commits a change of the registry, all of it or nothing. It returns
// ErrConflict when the registry is not of the revision any more that the change
// was computed from. A new Agent document begins the agent's life; a name that
// was offboarded is refused (request_malformed), a key that is or was anybody's
// too (key_in_use). With an instance that ends go the open approvals that it asked
// for, with a Person the passkeys, the code, and the open approvals that the person
// signed: the config.applied entry, or the first one, says which.
//
// A change that is a Proposal closes it, once (tool_unknown). It is refused with the
// code of its approval's state before its time, unless that is approved, and for
// ever when somebody said no.
func (s *Store) Apply(ctx context.Context, c counterfoil.Change, entries []*ledger.Entry) error {
	p, err := s.planChange(c)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New("applying a change without an entry that records it")
	}
	tells := max(0, slices.IndexFunc(entries, func(e *ledger.Entry) bool { return e.Kind == ledger.ConfigApplied }))
	return s.amended(ctx, entries, p.learn, func(w writer, d *decision) error {
		p.now = s.opt.Now()
		if err := p.effect(w); err != nil {
			return err
		}
		d.tell(tells, p.lost)
		return nil
	})
}

// A changePlan is a change with everything parsed.
type changePlan struct {
	counterfoil.Change
	next  string // the revision after it
	epoch int64  // of agents that begin their life
	nouns []noun
	ended map[string]string // instance to agent, of EndKeys

	// Filled in by the effect.
	begins   []string                          // agents that began their life
	states   map[string]counterfoil.AgentState // of Void
	unpinned []counterfoil.ToolID              // of Unpin
	now      time.Time
	lost     losses
}

func (s *Store) planChange(c counterfoil.Change) (*changePlan, error) {
	next, err := nextOf(c.Base)
	if err != nil {
		return nil, fmt.Errorf("applying a change: %w", err)
	}
	p := &changePlan{Change: c, next: next, epoch: millis(s.opt.Now()), ended: map[string]string{}, states: map[string]counterfoil.AgentState{}}
	for _, d := range c.Put {
		n, err := parseDocument(d)
		if err != nil {
			return nil, fmt.Errorf("applying a change: %w", err)
		}
		p.nouns = append(p.nouns, n)
	}
	for _, k := range c.Delete {
		if k.Kind == counterfoil.KindAgent {
			return nil, fmt.Errorf("applying a change: agent %q must be offboarded, not deleted", k.Name)
		}
	}
	p.NewKeys = make([]counterfoil.Instance, len(c.NewKeys))
	for i, inst := range c.NewKeys {
		if err := checkInstance(inst); err != nil {
			return nil, err
		}
		inst.Status, inst.Enrolled, inst.How = counterfoil.Active, fromMillis(millis(inst.Enrolled)), counterfoil.EnrolledByManifest
		p.NewKeys[i] = inst
	}
	for _, id := range c.EndKeys {
		inst, ok := s.Instance(id)
		if !ok {
			return nil, fmt.Errorf("applying a change: instance %q is not known", id)
		}
		p.ended[id] = inst.Agent
	}
	return p, nil
}

func (p *changePlan) effect(w writer) error {
	n, err := w.exec(nextRevision, p.Base, p.next)
	if err != nil {
		return fmt.Errorf("changing the registry: %w", err)
	}
	if n != 1 {
		return ErrConflict
	}
	if p.Proposal != "" {
		if err := makeProposal(w, p.Proposal, p.now); err != nil {
			return err
		}
	}
	for i, d := range p.Put {
		if p.nouns[i].agent != nil {
			if err := p.beginLife(w, d.Name); err != nil {
				return err
			}
		}
		if _, err := w.exec(putDocument, d.Kind, d.Name, string(d.Body)); err != nil {
			return fmt.Errorf("keeping %s %q: %w", d.Kind, d.Name, err)
		}
	}
	for _, k := range p.Delete {
		if err := p.remove(w, k); err != nil {
			return err
		}
	}
	if err := p.narrow(w); err != nil {
		return err
	}
	for _, id := range p.EndKeys {
		if err := endInstanceAndKeys(w, id, p.ended[id]); err != nil {
			return err
		}
		revoked, err := revokeOpen(w, p.now, "the instance that asked for it ended", openOfInstance, p.ended[id], id)
		if err != nil {
			return err
		}
		p.lost.approvals = append(p.lost.approvals, revoked...)
	}
	for _, inst := range p.NewKeys {
		if err := wantActive(w, inst.Agent); err != nil {
			return err
		}
		if err := enrolInstance(w, inst); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes a document, with what is nobody's then.
func (p *changePlan) remove(w writer, k counterfoil.DocKey) error {
	n, err := w.exec(deleteDocument, k.Kind, k.Name)
	if err != nil {
		return fmt.Errorf("deleting %s %q: %w", k.Kind, k.Name, err)
	}
	if n != 1 {
		return fmt.Errorf("deleting %s %q: there is none", k.Kind, k.Name)
	}
	switch k.Kind {
	case counterfoil.KindResource:
		// A later resource of that name is another server.
		if _, err := w.exec(dropPins, k.Name); err != nil {
			return fmt.Errorf("dropping the pins of %q: %w", k.Name, err)
		}
	case counterfoil.KindPerson:
		// A later person of that name is another human.
		if _, err := w.exec(dropPersonCode, k.Name); err != nil {
			return fmt.Errorf("dropping the code of %q: %w", k.Name, err)
		}
		l, err := endPasskeysOf(w, k.Name, p.now)
		if err != nil {
			return err
		}
		p.lost.approvals, p.lost.passkeys = append(p.lost.approvals, l.approvals...), append(p.lost.passkeys, l.passkeys...)
	}
	return nil
}

// narrow takes back what the agents and tools of before may not keep.
func (p *changePlan) narrow(w writer) error {
	for _, agent := range p.Void {
		n, err := w.exec(voidTokens, agent, p.epoch)
		if err != nil {
			return fmt.Errorf("voiding the tokens of %q: %w", agent, err)
		}
		if n != 1 {
			return fmt.Errorf("voiding the tokens of %q: it is not known, or offboarded", agent)
		}
		status, epoch, err := agentRow(w, agent)
		if err != nil {
			return err
		}
		p.states[agent] = counterfoil.AgentState{Status: status, Epoch: epoch}
	}
	for _, t := range p.Unpin {
		n, err := w.exec(dropFirstPin, t.Resource, t.Tool, counterfoil.PinFirstSight)
		if err != nil {
			return fmt.Errorf("dropping the pin of %s: %w", t, err)
		}
		if n == 1 {
			p.unpinned = append(p.unpinned, t)
		}
	}
	return nil
}

// beginLife begins the life of an agent that never was. One that is stays what
// it is; one that was offboarded never returns.
func (p *changePlan) beginLife(w writer, agent string) error {
	n, err := w.exec(insertAgent, agent, p.epoch)
	if err != nil {
		return fmt.Errorf("keeping agent %q: %w", agent, err)
	}
	if n == 1 {
		p.begins = append(p.begins, agent)
		return nil
	}
	status, _, err := agentRow(w, agent)
	if err != nil {
		return err
	}
	if status == counterfoil.Offboarded {
		return counterfoil.Refuse(counterfoil.RequestMalformed,
			"agent %q was offboarded: names are never given twice; choose another", agent)
	}
	return nil
}

func endInstanceAndKeys(w writer, id, agent string) error {
	if _, err := w.exec(endInstance, id, agent); err != nil {
		return fmt.Errorf("ending instance %q: %w", id, err)
	}
	if _, err := w.exec(endKeysOfInstance, id); err != nil {
		return fmt.Errorf("ending the keys of instance %q: %w", id, err)
	}
	return nil
}

func (p *changePlan) learn(v *views) {
	r := cloneRegistry(v.registry)
	for _, n := range p.nouns {
		n.put(r)
	}
	for _, k := range p.Delete {
		remove(r, k)
		if k.Kind == counterfoil.KindResource {
			maps.DeleteFunc(v.pins, func(at pinKey, _ pin) bool { return at.resource == k.Name })
		}
	}
	for _, t := range p.unpinned {
		delete(v.pins, pinKey{t.Resource, t.Tool})
	}
	maps.Copy(v.agents, p.states)
	v.registry, v.revision = r, p.next
	for _, agent := range p.begins {
		v.agents[agent] = counterfoil.AgentState{Status: counterfoil.Active, Epoch: p.epoch}
	}
	for id := range p.ended {
		v.endInstance(id)
	}
	for _, inst := range p.NewKeys {
		learnInstance(v, inst)
	}
}

// A lifeChange moves an agent to another state of life. The entry is changed
// by it, so the change works on a copy until it is committed.
type lifeChange struct {
	agent string
	now   int64
	entry ledger.Entry
	state counterfoil.AgentState
	took  counterfoil.Voided

	released []string // instances that were quarantined
}

// live commits a change of an agent's life: move makes it, learn tells the
// views.
func (s *Store) live(ctx context.Context, agent string, e *ledger.Entry, move func(*lifeChange, writer) error, learn func(*lifeChange, *views)) (*lifeChange, error) {
	c := &lifeChange{agent: agent, now: millis(s.opt.Now()), entry: *e}
	d := &decision{
		entries: []*ledger.Entry{&c.entry},
		effect: func(w writer) error {
			if err := move(c, w); err != nil {
				return err
			}
			var err error
			if c.state.Status, c.state.Epoch, err = agentRow(w, agent); err != nil {
				return err
			}
			c.took.Epoch = c.state.Epoch
			c.describe()
			return nil
		},
		learn: func(v *views) {
			v.agents[agent] = c.state
			if learn != nil {
				learn(c, v)
			}
		},
	}
	if err := s.commit(ctx, d); err != nil {
		return nil, err
	}
	*e = c.entry
	return c, nil
}

// describe writes into the entry what the change took or gave back, so that the
// log says it without the tables.
func (c *lifeChange) describe() {
	c.entry.Agent, c.entry.Epoch = c.agent, c.state.Epoch
	detail := map[string]any{}
	if len(c.took.Approvals) > 0 {
		detail["approvals"] = c.took.Approvals
	}
	if len(c.took.Instances)+len(c.took.Keys) > 0 {
		detail["instances"], detail["keys"] = c.took.Instances, c.took.Keys
	}
	if len(c.released) > 0 {
		detail["released"] = c.released
	}
	if len(detail) == 0 {
		return
	}
	for name, v := range c.entry.Detail {
		detail[name] = v
	}
	c.entry.Detail = detail
}

// Suspend commits that an agent does nothing until it is resumed. Its epoch
// rises, so that tokens from before stay void afterwards, and its open approvals are
// revoked.
func (s *Store) Suspend(ctx context.Context, agent string, e *ledger.Entry) error {
	_, err := s.live(ctx, agent, e, func(c *lifeChange, w writer) error {
		n, err := w.exec(suspendAgent, agent, c.now)
		if err != nil {
			return fmt.Errorf("suspending agent %q: %w", agent, err)
		}
		if n != 1 {
			return wrongState(w, agent, "suspended")
		}
		c.took.Approvals, err = revokeOpen(w, fromMillis(c.now), "the agent was suspended", openOfAgent, agent)
		return err
	}, nil)
	return err
}

// Resume commits that a suspended agent is active again, and that the quarantined
// instances that are named, which it returns, are released; others stay as they
// are, so that whoever ends a suspension frees no key that was copied. It is
// refused (request_malformed) as a whole when one of them is not a quarantined
// instance of the agent, and when there is nothing to do. The epoch is a new one,
// so that tokens from before stay void.
func (s *Store) Resume(ctx context.Context, agent string, release []string, e *ledger.Entry) (released []string, err error) {
	release = slices.Compact(slices.Sorted(slices.Values(release)))
	c, err := s.live(ctx, agent, e,
		func(c *lifeChange, w writer) error {
			n, err := w.exec(resumeAgent, agent, c.now, len(release) > 0)
			if err != nil {
				return fmt.Errorf("resuming agent %q: %w", agent, err)
			}
			if n != 1 {
				return notResumed(w, agent)
			}
			for _, id := range release {
				if err := releaseOne(w, id, agent, c.now); err != nil {
					return err
				}
			}
			c.released = release
			return nil
		},
		func(c *lifeChange, v *views) {
			now := fromMillis(c.now)
			for _, id := range c.released {
				i := v.instances[id]
				i.Status, i.Suspected, i.Shown = counterfoil.Active, later(i.Suspected, now), later(i.Shown, now)
				v.instances[id] = i
			}
		})
	if err != nil {
		return nil, err
	}
	return c.released, nil
}

// releaseOne releases a quarantined instance: what was seen of its key until now
// counts no more.
func releaseOne(w writer, id, agent string, now int64) error {
	n, err := w.exec(releaseInstance, id, agent, now)
	if err != nil {
		return fmt.Errorf("releasing an instance: %w", err)
	}
	if n == 1 {
		return nil
	}
	status, err := instanceRow(w, id, agent)
	if err != nil {
		return err
	}
	if status == "" {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "agent %q has no instance %.80q; nothing was released", agent, id)
	}
	return counterfoil.Refuse(counterfoil.RequestMalformed, "instance %.80q of agent %q is %s, not quarantined; nothing was released", id, agent, status)
}

// notResumed says why there is nothing to resume, and what would be.
func notResumed(w writer, agent string) error {
	status, _, err := agentRow(w, agent)
	if err != nil {
		return err
	}
	if status != counterfoil.Active {
		return wrongState(w, agent, "resumed")
	}
	var n int64
	err = w.query(countQuarantined, func(r []driver.Value) error { n = r[0].(int64); return nil }, agent)
	if err != nil {
		return fmt.Errorf("counting the quarantined instances of %q: %w", agent, err)
	}
	if n == 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "agent %q is active and has no quarantined instance: there is nothing to resume", agent)
	}
	return counterfoil.Refuse(counterfoil.RequestMalformed,
		"agent %q is not suspended, and %d of its instances are quarantined: counterfoil agent show NAME lists them, counterfoil agent resume NAME --release INSTANCE releases one", agent, n)
}

// wrongState says why an agent cannot be suspended, resumed or offboarded.
func wrongState(w writer, agent, what string) error {
	status, _, err := agentRow(w, agent)
	if err != nil {
		return err
	}
	if status == "" {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "there is no agent %q", agent)
	}
	return counterfoil.Refuse(counterfoil.RequestMalformed, "agent %q is %s and cannot be %s", agent, status, what)
}

// Offboard commits the end of an agent, in one transaction: its tokens,
// instances, keys and open approvals are void, its document is gone, and neither its name nor
// any of its keys is ever accepted again.
func (s *Store) Offboard(ctx context.Context, agent string, e *ledger.Entry) (counterfoil.Voided, error) {
	next := ""
	c, err := s.live(ctx, agent, e,
		func(c *lifeChange, w writer) error {
			var err error
			next, err = offboard(c, w)
			return err
		},
		func(c *lifeChange, v *views) {
			r := cloneRegistry(v.registry)
			delete(r.Agents, agent)
			v.registry, v.revision = r, next
			for _, id := range v.ofAgent[agent] {
				i := v.instances[id]
				i.Status = counterfoil.Ended
				v.instances[id] = i
			}
			for _, jkt := range c.took.Keys {
				v.endKey(jkt)
			}
		})
	if err != nil {
		return counterfoil.Voided{}, err
	}
	return c.took, nil
}

func offboard(c *lifeChange, w writer) (revision string, err error) {
	n, err := w.exec(offboardAgent, c.agent, c.now)
	if err != nil {
		return "", fmt.Errorf("offboarding agent %q: %w", c.agent, err)
	}
	if n != 1 {
		return "", wrongState(w, c.agent, "offboarded")
	}
	if c.took.Instances, err = texts(w, keptInstancesOfAgent, c.agent); err != nil {
		return "", err
	}
	if c.took.Keys, err = texts(w, liveKeysOfAgent, c.agent); err != nil {
		return "", err
	}
	if c.took.Approvals, err = revokeOpen(w, fromMillis(c.now), "the agent was offboarded", openOfAgent, c.agent); err != nil {
		return "", err
	}
	if _, err := w.exec(endInstancesOfAgent, c.agent); err != nil {
		return "", fmt.Errorf("ending the instances of %q: %w", c.agent, err)
	}
	if _, err := w.exec(endKeysOfAgent, c.agent); err != nil {
		return "", fmt.Errorf("ending the keys of %q: %w", c.agent, err)
	}
	if _, err := w.exec(deleteDocument, counterfoil.KindAgent, c.agent); err != nil {
		return "", fmt.Errorf("deleting the document of %q: %w", c.agent, err)
	}
	return advanceRevision(w)
}

// advanceRevision gives the registry its next revision, whatever it is now.
func advanceRevision(w writer) (string, error) {
	var now string
	err := w.query(getMeta, func(r []driver.Value) error { now = r[0].(string); return nil }, "revision")
	if err != nil {
		return "", fmt.Errorf("reading the registry's revision: %w", err)
	}
	next, err := nextOf(now)
	if err != nil {
		return "", err
	}
	if _, err := w.exec(nextRevision, now, next); err != nil {
		return "", fmt.Errorf("changing the registry: %w", err)
	}
	return next, nil
}

// texts returns the first column of a query, which is text.
func texts(w writer, st statement, args ...driver.Value) ([]string, error) {
	var out []string
	err := w.query(st, func(r []driver.Value) error {
		out = append(out, r[0].(string))
		return nil
	}, args...)
	if err != nil {
		return nil, fmt.Errorf("reading what an agent has: %w", err)
	}
	return out, nil
}
