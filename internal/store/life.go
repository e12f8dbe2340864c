package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A lifeChange moves an agent to another state of life. The entry is changed
// by it, so the change works on a copy until it is committed.
type lifeChange struct {
	agent string
	now   time.Time
	entry ledger.Entry
	took  losses

	released []string // instances that were quarantined
}

// live commits a change of an agent's life: move makes it, learn tells the
// views.
func (s *Store) live(ctx context.Context, agent string, e *ledger.Entry, move func(*lifeChange, writer) error, learn func(*lifeChange, *views)) (*lifeChange, error) {
	c := &lifeChange{agent: agent, now: fromMillis(millis(s.opt.Now())), entry: *e}
	d := &decision{
		entries: []*ledger.Entry{&c.entry},
		effect: func(w writer) error {
			if err := move(c, w); err != nil {
				return err
			}
			if err := c.took.look(w, agent); err != nil {
				return err
			}
			c.took.Epoch = c.took.states[agent].Epoch
			c.describe()
			return nil
		},
		learn: func(v *views) {
			c.took.learn(v)
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
	c.entry.Agent, c.entry.Epoch = c.agent, c.took.Epoch
	detail := map[string]any{}
	c.took.into(detail)
	if len(c.released) > 0 {
		detail["released"] = c.released
	}
	if len(detail) == 0 {
		return
	}
	for name, v := range c.entry.Detail {
		if _, ok := detail[name]; !ok {
			detail[name] = v
		}
	}
	c.entry.Detail = detail
}

// Suspend commits that an agent does nothing until it is resumed. Its epoch
// rises, so that tokens from before stay void afterwards; its open tasks are closed,
// those that it opened for others too, its open approvals are revoked, and its enrolment
// codes are good for nothing.
func (s *Store) Suspend(ctx context.Context, agent string, e *ledger.Entry) (counterfoil.Voided, error) {
	c, err := s.live(ctx, agent, e, func(c *lifeChange, w writer) error {
		ok, err := c.took.suspend(w, agent, "the agent was suspended", c.now)
		if err == nil && !ok {
			err = wrongState(w, agent, "suspended")
		}
		return err
	}, nil)
	if err != nil {
		return counterfoil.Voided{}, err
	}
	return c.took.Voided, nil
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
			n, err := w.exec(resumeAgent, agent, millis(c.now), len(release) > 0)
			if err != nil {
				return fmt.Errorf("resuming agent %q: %w", agent, err)
			}
			if n != 1 {
				return notResumed(w, agent)
			}
			for _, id := range release {
				if err := releaseOne(w, id, agent, millis(c.now)); err != nil {
					return err
				}
			}
			c.released = release
			return nil
		},
		func(c *lifeChange, v *views) {
			for _, id := range c.released {
				i := v.instances[id]
				i.Status, i.Suspected, i.Shown = counterfoil.Active, later(i.Suspected, c.now), later(i.Shown, c.now)
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

// Offboard commits the end of an agent, in one transaction: its tokens, tasks,
// instances, keys, codes, its stream and its open approvals are void, its document is
// gone, and neither its name nor any of its keys is ever accepted again. What it was
// granted, and with which credentials of resources that was done, is listed with it.
func (s *Store) Offboard(ctx context.Context, agent string, e *ledger.Entry) (counterfoil.Voided, error) {
	next := ""
	c, err := s.live(ctx, agent, e,
		func(c *lifeChange, w writer) error {
			var err error
			next, err = offboard(c, w)
			return err
		},
		func(_ *lifeChange, v *views) {
			r := cloneRegistry(v.registry)
			delete(r.Agents, agent)
			v.registry, v.revision = r, next
		})
	if err != nil {
		return counterfoil.Voided{}, err
	}
	return c.took.Voided, nil
}

func offboard(c *lifeChange, w writer) (revision string, err error) {
	_, epoch, err := agentRow(w, c.agent)
	if err != nil {
		return "", err
	}
	n, err := w.exec(offboardAgent, c.agent, millis(c.now))
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
	if err := c.took.void(w, c.agent, epoch, "the agent was offboarded", c.now); err != nil {
		return "", err
	}
	if err := c.took.granted(w, c.agent); err != nil {
		return "", err
	}
	for _, step := range []struct {
		what string
		st   statement
		args []driver.Value
	}{
		{"ending the instances", endInstancesOfAgent, []driver.Value{c.agent}},
		{"ending the keys", endKeysOfAgent, []driver.Value{c.agent}},
		{"dropping the stream", dropStreamOf, []driver.Value{c.agent}},
		{"deleting the document", deleteDocument, []driver.Value{counterfoil.KindAgent, c.agent}},
	} {
		if _, err := w.exec(step.st, step.args...); err != nil {
			return "", fmt.Errorf("%s of %q: %w", step.what, c.agent, err)
		}
	}
	return advanceRevision(w)
}

// granted lists what an agent's document grants it, and the upstream credentials that
// the resources of it are called with.
func (l *losses) granted(w writer, agent string) error {
	n, err := readNoun(w, counterfoil.KindAgent, agent)
	if err != nil || n.agent == nil {
		return err
	}
	for _, g := range n.agent.Grants {
		for _, t := range g.Tools {
			l.Grants = append(l.Grants, t.String())
			r, err := readNoun(w, counterfoil.KindResource, t.Resource)
			if err != nil {
				return err
			}
			if r.resource != nil && r.resource.Credential != nil {
				l.Credentials = append(l.Credentials, r.resource.Credential.Label())
			}
		}
	}
	slices.Sort(l.Grants)
	slices.Sort(l.Credentials)
	l.Grants, l.Credentials = slices.Compact(l.Grants), slices.Compact(l.Credentials)
	return nil
}

// readNoun returns the zero noun for what is not declared.
func readNoun(w writer, kind, name string) (n noun, err error) {
	err = w.query(documentOf, func(r []driver.Value) error {
		n, err = parseDocument(counterfoil.Document{Kind: kind, Name: name, Body: []byte(r[0].(string))})
		return err
	}, kind, name)
	if err != nil {
		return noun{}, fmt.Errorf("reading %s %q: %w", kind, name, err)
	}
	return n, nil
}
