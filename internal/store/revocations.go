package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Revoke takes authority from a target, all of it or nothing, with e, a revoked, that
// lists what was taken. news is false, and nothing is recorded, where there is nothing
// left to take. It is refused (tool_unknown) for what never was.
//
// A key that is an instance's own takes the instance with it; any other is dead, with the
// open approvals that were asked for under it. So is a token, with the calls that are held.
// A person is suspended, with what Revocation.Suspend says. Nothing of what was taken
// ever comes back: see Resume and Restore.
func (s *Store) Revoke(ctx context.Context, r counterfoil.Revocation, e *ledger.Entry) (v counterfoil.Voided, news bool, err error) {
	if e.Kind != ledger.Revoked {
		return v, false, fmt.Errorf("revoking %s with a %s entry", r.Target, e.Kind)
	}
	if r.Target.Kind == counterfoil.TargetToken {
		if r, err = s.completeToken(ctx, r); err != nil {
			return v, false, err
		}
	}
	l := &losses{}
	learn := func(v *views) {
		l.learn(v)
		v.changes++ // a step, whatever it took: who enforces says of each that it is
	}
	err = s.amended(ctx, []*ledger.Entry{e}, learn, func(w writer, d *decision) error {
		news, err := s.revoke(w, l, &r)
		if err != nil {
			return err
		}
		if !news {
			return errKnown
		}
		d.entries[0].Detail = withTarget(d.entries[0].Detail, r.Target)
		if d.entries[0].Agent == "" {
			d.entries[0].Agent = l.of
		}
		if r.Target.Kind == counterfoil.TargetAgent {
			l.Epoch = l.states[r.Target.ID].Epoch
			d.entries[0].Epoch = l.Epoch
		}
		d.drafts = nil
		d.tell(0, l)
		return nil
	})
	switch {
	case errors.Is(err, errKnown):
		return v, false, nil
	case err != nil:
		return v, false, err
	}
	return l.Voided, true, nil
}

// withTarget adds to a detail, which is the entry's own, what the revocation is of.
func withTarget(detail map[string]any, t counterfoil.Target) map[string]any {
	if detail == nil {
		detail = map[string]any{}
	}
	detail["kind"], detail["id"] = string(t.Kind), t.ID
	return detail
}

// revoke reports whether there was anything to take.
func (s *Store) revoke(w writer, l *losses, r *counterfoil.Revocation) (news bool, err error) {
	// A token may say that it was issued a moment after the clock stepped back.
	now := later(s.opt.Now(), s.seq.latest)
	id := r.Target.ID
	switch r.Target.Kind {
	case counterfoil.TargetToken:
		return l.revokeToken(w, r, now)
	case counterfoil.TargetKey:
		return l.revokeKey(w, r, now)
	case counterfoil.TargetInstance:
		return l.revokeInstance(w, id, now)
	case counterfoil.TargetTask:
		return l.revokeTask(w, id, r.Reason, now)
	case counterfoil.TargetAgent:
		return l.revokeAgent(w, id, now)
	case counterfoil.TargetPerson:
		return l.revokePerson(w, id, r.Suspend, now)
	case counterfoil.TargetOwner:
		return l.revokeOwner(w, id, now)
	case counterfoil.TargetResource:
		return s.revokeResource(w, l, id, now)
	}
	return false, fmt.Errorf("revoking %q: there is no such kind of target", r.Target.Kind)
}

func never(t counterfoil.TargetKind, id string) error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no %s %.80q", t, id)
}

// completeToken says whose a token is and when it expires, where the caller does not
// know. It reads on its own: a token that anybody can name is committed.
func (s *Store) completeToken(ctx context.Context, r counterfoil.Revocation) (counterfoil.Revocation, error) {
	if r.Target.ID == "" {
		return r, errors.New("revoking a token without its id")
	}
	if r.Agent != "" && !r.Expires.IsZero() {
		return r, nil
	}
	err := s.readRows(ctx, sqliteTexts[tokenRow], func(row []driver.Value) error {
		r.Agent, r.Expires = row[0].(string), fromMillis(row[1].(int64))
		return nil
	}, r.Target.ID)
	if err == nil && r.Expires.IsZero() {
		err = never(counterfoil.TargetToken, r.Target.ID)
	}
	return r, err
}

// revokeToken takes one token until nobody could use it any more.
func (l *losses) revokeToken(w writer, r *counterfoil.Revocation, now time.Time) (news bool, err error) {
	// As long as a verifier allows for clocks that differ.
	until := r.Expires.Add(longestToken - 15*time.Minute)
	if !until.After(now) {
		return false, nil
	}
	n, err := w.exec(insertDead, string(counterfoil.TargetToken), r.Target.ID, millis(until))
	if err != nil {
		return false, fmt.Errorf("revoking a token: %w", err)
	}
	if n != 1 {
		return false, nil
	}
	l.of = r.Agent
	l.Tokens = append(l.Tokens, r.Target.ID)
	l.dead = append(l.dead, counterfoil.Dead{Kind: counterfoil.TargetToken, ID: r.Target.ID, Until: fromMillis(millis(until))})
	// What it asked for outlives it, and would be made when nobody remembers it.
	return true, l.revokeOpen(w, now, "the token that asked for it was revoked", openOfToken, r.Agent, r.Target.ID)
}

// An instanceKeys is what the key of an instance is looked up for.
type instanceKeys struct {
	agent       string // empty: there is no such instance
	status      counterfoil.Status
	jkt, oldJKT string
	oldUntil    int64
	how         string
}

func instanceKeysOf(w writer, id string) (i instanceKeys, err error) {
	err = w.query(instanceRowOf, func(r []driver.Value) error {
		i = instanceKeys{agent: r[0].(string), status: counterfoil.Status(r[1].(string)), jkt: r[2].(string), how: r[3].(string), oldJKT: r[4].(string), oldUntil: r[5].(int64)}
		return nil
	}, id)
	if err != nil {
		return i, fmt.Errorf("reading instance %q: %w", id, err)
	}
	return i, nil
}

// revokeKey takes a key, with the open approvals that were asked for under it: a thief's
// question dies with the key. It does so too where the key was rotated from long ago. With
// the key that an instance rotated from go those that were bound beside it.
func (l *losses) revokeKey(w writer, r *counterfoil.Revocation, now time.Time) (news bool, err error) {
	jkt, agent, instance, live := r.Target.ID, "", "", false
	err = w.query(keyRowOf, func(r []driver.Value) error {
		agent, instance, live = r[0].(string), r[1].(string), r[3].(int64) == 1
		return nil
	}, jkt)
	if err != nil {
		return false, fmt.Errorf("reading a key: %w", err)
	}
	if instance == "" {
		return false, never(counterfoil.TargetKey, jkt)
	}
	l.of = agent
	i, err := instanceKeysOf(w, instance)
	if err != nil {
		return false, err
	}
	switch {
	case r.Ended && live && (i.oldJKT != jkt || i.oldUntil > millis(now)):
		return false, fmt.Errorf("ending key %s: it is not one whose time beside a new one is over", jkt)
	case live && i.jkt == jkt:
		return true, l.endInstance(w, instance, agent, "the key of the instance that asked for it was revoked", now)
	case live && i.oldJKT == jkt:
		if _, err := w.exec(forgetOldKey, instance, jkt); err != nil {
			return false, fmt.Errorf("forgetting a key: %w", err)
		}
		err = l.endAgedKeys(w, instance, now)
	case live:
		err = l.endKey(w, jkt, now)
	}
	if err != nil || r.Ended {
		return live, err
	}
	l.revoked = append([]string{jkt}, l.Keys...)
	for _, k := range slices.Compact(slices.Clone(l.revoked)) {
		if err := l.revokeOpen(w, now, "the key under which it was asked for was revoked", openOfKey, agent, instance, k); err != nil {
			return false, err
		}
	}
	return live || len(l.Approvals) > 0, nil
}

func (l *losses) revokeInstance(w writer, id string, now time.Time) (news bool, err error) {
	i, err := instanceKeysOf(w, id)
	switch {
	case err != nil:
		return false, err
	case i.agent == "":
		return false, never(counterfoil.TargetInstance, id)
	case i.status == counterfoil.Ended:
		return false, nil
	}
	l.of = i.agent
	return true, l.endInstance(w, id, i.agent, "the instance that asked for it was revoked", now)
}

func (l *losses) revokeTask(w writer, id, reason string, now time.Time) (news bool, err error) {
	t, err := taskOf(w, id)
	switch {
	case err != nil:
		return false, err
	case t.ID == "":
		return false, never(counterfoil.TargetTask, id)
	case t.State != counterfoil.TaskOpen:
		return false, nil
	}
	l.of = t.Agent
	return true, l.closeTasks(w, closing{to: counterfoil.TaskCancelled, reason: reason, now: now}, openTasksBelow, id)
}

func (l *losses) revokeAgent(w writer, agent string, now time.Time) (news bool, err error) {
	status, _, err := agentRow(w, agent)
	if err != nil {
		return false, err
	}
	if status == "" {
		return false, never(counterfoil.TargetAgent, agent)
	}
	l.of = agent
	return l.suspend(w, agent, "the agent was revoked", now)
}

// revokeOwner suspends the active agents of a person.
func (l *losses) revokeOwner(w writer, owner string, now time.Time) (news bool, err error) {
	agents, err := l.suspendAgentsOf(w, owner, now)
	if err == nil && agents == 0 {
		err = wantPerson(w, owner, counterfoil.ToolUnknown)
	}
	return len(l.Agents) > 0, err
}

// suspendAgentsOf suspends the active agents of a person, and returns how many there
// are in any state.
func (l *losses) suspendAgentsOf(w writer, owner string, now time.Time) (agents int, err error) {
	names, err := texts(w, agentsOfOwner, owner)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		ok, err := l.suspend(w, name, "its owner was revoked", now)
		if err != nil {
			return 0, err
		}
		if ok {
			l.Agents = append(l.Agents, name)
		}
	}
	return len(names), nil
}

func (l *losses) revokePerson(w writer, person string, part counterfoil.Suspend, now time.Time) (news bool, err error) {
	known := false
	err = w.query(standingOf, func([]driver.Value) error { known = true; return nil }, string(counterfoil.TargetPerson), person)
	if err != nil {
		return false, fmt.Errorf("reading person %q: %w", person, err)
	}
	if !known {
		if err := wantPerson(w, person, counterfoil.ToolUnknown); err != nil {
			return false, err
		}
	}
	all := part == counterfoil.Suspend{}
	if all || part.Approvals {
		if news, err = l.suspendPerson(w, person, now); err != nil {
			return false, err
		}
	}
	if all {
		if err := l.endPasskeysOf(w, person, now); err != nil {
			return false, err
		}
	}
	if all || part.Agents {
		if _, err := l.suspendAgentsOf(w, person, now); err != nil {
			return false, err
		}
	}
	return news || len(l.Agents)+len(l.Passkeys)+len(l.Approvals) > 0, nil
}

// suspendPerson takes from a person the word: to log in, to sign, and what was signed.
func (l *losses) suspendPerson(w writer, person string, now time.Time) (news bool, err error) {
	if news, err = l.suspendStanding(w, standing{kind: counterfoil.TargetPerson, name: person}); err != nil {
		return false, err
	}
	codes, err := w.exec(dropPersonCode, person)
	if err != nil {
		return false, fmt.Errorf("dropping the code of %q: %w", person, err)
	}
	l.Codes += int(codes)
	return news, l.revokeOpen(w, now, "a person who signed it was revoked", openOfSigner, person)
}

// revokeResource suspends a resource: the tokens for it are void, and open approvals of
// calls of its tools are revoked.
func (s *Store) revokeResource(w writer, l *losses, name string, now time.Time) (news bool, err error) {
	audience := (&counterfoil.Resource{Name: name}).ID(s.opt.Issuer)
	n, err := readNoun(w, counterfoil.KindResource, name)
	if err != nil {
		return false, err
	}
	found := n.resource != nil
	if found {
		audience = n.resource.ID(s.opt.Issuer)
	} else {
		err = w.query(standingOf, func([]driver.Value) error { found = true; return nil }, string(counterfoil.TargetResource), name)
	}
	if err != nil {
		return false, fmt.Errorf("reading resource %q: %w", name, err)
	}
	if !found {
		return false, never(counterfoil.TargetResource, name)
	}
	if news, err = l.suspendStanding(w, standing{kind: counterfoil.TargetResource, name: name, before: now, audience: audience}); err != nil || !news {
		return false, err
	}
	if err := l.bury(w, counterfoil.TargetResource, audience, now, now); err != nil {
		return false, err
	}
	return true, l.revokeOpen(w, now, "the resource was revoked", openOfResource, name)
}

// RevokeTokenWith is Revoke of a token that an agent itself gives back (RFC 7009): the
// assertion that the agent showed is used up in the same transaction. It is refused
// (assertion_replayed) where that was used before. What is not news, and the zero
// Target, is recorded too, as e alone.
func (s *Store) RevokeTokenWith(ctx context.Context, use counterfoil.AssertionUse, r counterfoil.Revocation, e *ledger.Entry) (news bool, err error) {
	if use.Agent == "" || use.ID == "" || use.Until.IsZero() {
		return false, errors.New("revoking a token: the use of an assertion is missing")
	}
	if r.Target != (counterfoil.Target{}) {
		if r.Target.Kind != counterfoil.TargetToken || r.Agent == "" || r.Expires.IsZero() {
			return false, errors.New("revoking a token: whose it is and when it expires is missing, or it is none")
		}
	}
	l := &losses{}
	err = s.amended(ctx, []*ledger.Entry{e}, l.learn, func(w writer, d *decision) error {
		n, err := w.exec(useAssertionAlone, use.Agent, assertionKey(use), millis(use.Until))
		if err != nil {
			return fmt.Errorf("using an assertion: %w", err)
		}
		if n != 1 {
			return counterfoil.Refuse(counterfoil.AssertionReplayed, "the assertion was used before")
		}
		if r.Target.ID == "" {
			return nil
		}
		if news, err = l.revokeToken(w, &r, later(s.opt.Now(), s.seq.latest)); err != nil || !news {
			return err
		}
		d.entries[0].Detail, d.drafts = withTarget(d.entries[0].Detail, r.Target), nil
		d.tell(0, l)
		return nil
	})
	return err == nil && len(l.Tokens) > 0, err
}

// DropCode commits, with e, that an enrolment code is good for nothing, an agent's or a
// person's; news is false, and nothing is recorded, where nobody has such a code.
func (s *Store) DropCode(ctx context.Context, hash [32]byte, e *ledger.Entry) (news bool, err error) {
	err = s.record(ctx, e, &decision{effect: func(w writer) error {
		dropped := int64(0)
		for _, st := range []statement{dropCode, dropPersonCodeByHash} {
			n, err := w.exec(st, hash[:])
			if err != nil {
				return fmt.Errorf("dropping a code: %w", err)
			}
			dropped += n
		}
		if dropped == 0 {
			return errKnown
		}
		return nil
	}})
	if errors.Is(err, errKnown) {
		return false, nil
	}
	return err == nil, err
}
