package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// longestToken is how long a token may be in its time after it was issued, the
// difference between two clocks included. What is dead for as long needs no telling.
const longestToken = 16 * time.Minute

// losses are what a change took. The change's entry lists it, so that the log says it
// without the tables, and the views learn it after the commit.
type losses struct {
	counterfoil.Voided
	of       string                            // the agent whose it was, where it is one's
	states   map[string]counterfoil.AgentState // of the agents that changed
	dead     []counterfoil.Dead
	standing []standing
	revoked  []string // keys that a revocation named or took, as against those that ran out
}

// revokeOpen revokes the open approvals that a statement lists, and returns their
// ids. It runs in the transaction of what takes away their ground, so that nobody
// signs or spends one in between.
func revokeOpen(w writer, now time.Time, why string, st statement, args ...driver.Value) ([]string, error) {
	type open struct {
		id    string
		state counterfoil.ApprovalState
	}
	var found []open
	err := w.query(st, func(r []driver.Value) error {
		found = append(found, open{r[0].(string), counterfoil.ApprovalState(r[1].(string))})
		return nil
	}, args...)
	if err != nil {
		return nil, fmt.Errorf("reading open approvals: %w", err)
	}
	var ids []string
	for _, o := range found {
		if err := move(w, o.id, o.state, counterfoil.StateRevoked, why, now); err != nil {
			return nil, err
		}
		ids = append(ids, o.id)
	}
	return ids, nil
}

// revokeOpen is the function of that name, and keeps what was revoked.
func (l *losses) revokeOpen(w writer, now time.Time, why string, st statement, args ...driver.Value) error {
	ids, err := revokeOpen(w, now, why, st, args...)
	l.Approvals = append(l.Approvals, ids...)
	return err
}

// bury remembers what no token may use any more, for as long as one of before could
// be in its time.
func (l *losses) bury(w writer, kind counterfoil.TargetKind, id string, now, before time.Time) error {
	d := counterfoil.Dead{Kind: kind, ID: id, Until: fromMillis(millis(now.Add(longestToken))), Before: fromMillis(millis(before))}
	if _, err := w.exec(putDead, string(kind), id, millis(d.Until), millis(before)); err != nil {
		return fmt.Errorf("keeping that %s %q is dead: %w", kind, id, err)
	}
	l.dead = append(l.dead, d)
	return nil
}

// endInstance ends an instance, its keys, and the open approvals that it asked for.
func (l *losses) endInstance(w writer, id, agent, why string, now time.Time) error {
	keys, err := texts(w, liveKeysOfInstance, id)
	if err != nil {
		return err
	}
	tokens, err := texts(w, tokensOfInstance, agent, id, millis(now))
	if err != nil {
		return err
	}
	if _, err := w.exec(endInstance, id, agent); err != nil {
		return fmt.Errorf("ending instance %q: %w", id, err)
	}
	if _, err := w.exec(endKeysOfInstance, id); err != nil {
		return fmt.Errorf("ending the keys of instance %q: %w", id, err)
	}
	l.Instances, l.Keys, l.Tokens = append(l.Instances, id), append(l.Keys, keys...), append(l.Tokens, tokens...)
	if err := l.bury(w, counterfoil.TargetInstance, id, now, time.Time{}); err != nil {
		return err
	}
	return l.revokeOpen(w, now, why, openOfInstance, agent, id)
}

// endKey ends a key that is not an instance's own.
func (l *losses) endKey(w writer, jkt string, now time.Time) error {
	n, err := w.exec(endKey, jkt)
	if err != nil {
		return fmt.Errorf("ending key %s: %w", jkt, err)
	}
	if n == 1 {
		l.Keys = append(l.Keys, jkt)
	}
	return l.bury(w, counterfoil.TargetKey, jkt, now, time.Time{})
}

// endAgedKeys ends the keys that an instance had before its present one and that are
// still taken: the one that it rotated from, and those that were bound before.
func (l *losses) endAgedKeys(w writer, instance string, now time.Time) error {
	keys, err := texts(w, agedKeys, instance)
	if err != nil {
		return err
	}
	if _, err := w.exec(endAgedKeys, instance); err != nil {
		return fmt.Errorf("ending the keys of before of instance %q: %w", instance, err)
	}
	for _, jkt := range keys {
		if err := l.bury(w, counterfoil.TargetKey, jkt, now, time.Time{}); err != nil {
			return err
		}
	}
	l.Keys = append(l.Keys, keys...)
	return nil
}

// suspend takes from an agent that is active everything that it holds beside its
// name and its keys; ok is false where it is not active.
func (l *losses) suspend(w writer, agent, why string, now time.Time) (ok bool, err error) {
	_, epoch, err := agentRow(w, agent)
	if err != nil {
		return false, err
	}
	n, err := w.exec(suspendAgent, agent, millis(now))
	if err != nil {
		return false, fmt.Errorf("suspending agent %q: %w", agent, err)
	}
	if n != 1 {
		return false, nil
	}
	return true, l.void(w, agent, epoch, why, now)
}

// void takes the tokens of an agent's epoch that was, its open tasks, those that it
// opened for others, its open approvals and its codes.
func (l *losses) void(w writer, agent string, epoch int64, why string, now time.Time) error {
	tokens, err := texts(w, tokensOfAgent, agent, epoch, millis(now))
	if err != nil {
		return err
	}
	l.Tokens = append(l.Tokens, tokens...)
	if err := l.revokeOpen(w, now, why, openOfAgent, agent); err != nil {
		return err
	}
	c := closing{to: counterfoil.TaskRevoked, reason: why, now: now, void: agent}
	if err := l.closeTasks(w, c, openTasksOfAgent, agent); err != nil {
		return err
	}
	codes, err := w.exec(dropCodesOf, agent)
	if err != nil {
		return fmt.Errorf("dropping the codes of %q: %w", agent, err)
	}
	l.Codes += int(codes)
	return l.look(w, agent)
}

// look remembers where an agent is in its life now.
func (l *losses) look(w writer, agent string) error {
	status, epoch, err := agentRow(w, agent)
	if err != nil {
		return err
	}
	if l.states == nil {
		l.states = map[string]counterfoil.AgentState{}
	}
	l.states[agent] = counterfoil.AgentState{Status: status, Epoch: epoch}
	return nil
}

// learn tells the views.
func (l *losses) learn(v *views) {
	for agent, state := range l.states {
		v.setAgent(agent, state)
	}
	for _, id := range l.Instances {
		v.endInstance(id)
	}
	for _, jkt := range l.Keys {
		v.endKey(jkt)
	}
	for _, jkt := range l.revoked {
		k := v.keys[jkt]
		k.revoked = true
		v.keys[jkt] = k
	}
	for _, id := range l.Tasks {
		delete(v.tasks, id)
	}
	for _, s := range l.standing {
		v.setStanding(s)
	}
	for _, d := range l.dead {
		v.bury(d)
	}
}

// mostListed is how many bytes of ids an entry lists. An entry has a size that it
// cannot be beyond, and what is taken from whoever has much is taken all the same:
// the marks of agents and the states of the rest say what is void, the lists only
// which that were.
const mostListed = ledger.MaxEntry * 3 / 4

// into writes into an entry's detail what was lost. Lists that are too long are cut,
// and the entry says how long they were.
func (l *losses) into(detail map[string]any) {
	room := mostListed
	uncut := map[string]any{}
	for _, m := range []struct {
		name string
		ids  []string
	}{
		{"agents", l.Agents}, {"instances", l.Instances}, {"keys", l.Keys}, {"passkeys", l.Passkeys}, {"tasks", l.Tasks},
		{"approvals", l.Approvals}, {"grants", l.Grants}, {"credentials", l.Credentials}, {"tokens", l.Tokens},
	} {
		if len(m.ids) == 0 {
			continue
		}
		fit := 0
		for fit < len(m.ids) && room >= len(m.ids[fit])+3 {
			room -= len(m.ids[fit]) + 3
			fit++
		}
		detail[m.name] = m.ids[:fit:fit]
		if fit < len(m.ids) {
			uncut[m.name] = len(m.ids)
		}
	}
	if l.Codes > 0 {
		detail["codes"] = l.Codes
	}
	if len(uncut) > 0 {
		detail["of"] = uncut
	}
}

// tell writes into an entry of the decision what was lost. The entry is a copy: see
// amended.
func (d *decision) tell(i int, l *losses) {
	detail := map[string]any{}
	l.into(detail)
	if len(detail) == 0 {
		return
	}
	e := d.entries[i]
	for name, v := range e.Detail {
		if _, ok := detail[name]; !ok {
			detail[name] = v
		}
	}
	e.Detail, d.drafts = detail, nil // encoded again once the effect is done
}

// amended commits entries that the effect may add to. The effect has copies of them,
// because a caller who gives up has its own back at that moment.
func (s *Store) amended(ctx context.Context, entries []*ledger.Entry, learn func(*views), effect func(writer, *decision) error) error {
	drafts, err := prepare(entries)
	if err != nil {
		return err
	}
	d := &decision{drafts: drafts, learn: learn, sighting: sightingOf(entries[len(entries)-1])}
	for _, e := range entries {
		c := *e
		c.Detail = maps.Clone(e.Detail)
		d.entries = append(d.entries, &c)
	}
	d.effect = func(w writer) error { return effect(w, d) }
	if err := s.commit(ctx, d); err != nil {
		return err
	}
	for i, e := range entries {
		*e = *d.entries[i]
	}
	return nil
}
