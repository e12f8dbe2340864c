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
		d.tell(tells, &p.lost)
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
		if err := p.lost.endInstance(w, id, p.ended[id], "the instance that asked for it ended", p.now); err != nil {
			return err
		}
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
		return p.lost.endPasskeysOf(w, k.Name, p.now)
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
	for agent, state := range p.states {
		v.setAgent(agent, state)
	}
	v.registry, v.revision = r, p.next
	for _, agent := range p.begins {
		v.setAgent(agent, counterfoil.AgentState{Status: counterfoil.Active, Epoch: p.epoch})
	}
	p.lost.learn(v)
	v.findAudiences()
	for _, inst := range p.NewKeys {
		learnInstance(v, inst)
	}
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
