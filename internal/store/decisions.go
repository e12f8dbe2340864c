package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// commit hands a decision to the sequencer and fills in, once it is committed,
// where its entries are.
func (s *Store) commit(ctx context.Context, d *decision) error {
	if err := s.seq.submit(ctx, d); err != nil {
		return err
	}
	for i, e := range d.entries {
		e.Index, e.Time = d.index+int64(i), d.time
	}
	return nil
}

func prepare(entries []*ledger.Entry) ([]ledger.Draft, error) {
	drafts := make([]ledger.Draft, len(entries))
	for i, e := range entries {
		var err error
		if drafts[i], err = ledger.Prepare(e); err != nil {
			return nil, err
		}
	}
	return drafts, nil
}

// record commits one entry together with an effect that does not change it.
func (s *Store) record(ctx context.Context, e *ledger.Entry, d *decision) error {
	var err error
	if d.oneDraft[0], err = ledger.Prepare(e); err != nil {
		return err
	}
	d.one[0] = e
	d.entries, d.drafts = d.one[:], d.oneDraft[:]
	d.sighting = sightingOf(e)
	return s.commit(ctx, d)
}

// Append commits an entry that changes nothing else. Calls are not appended:
// see Decide and Finish.
func (s *Store) Append(ctx context.Context, e *ledger.Entry) error {
	if e.Kind == ledger.CallDecided || e.Kind == ledger.CallFinished {
		return fmt.Errorf("appending a %s entry: calls are decided and finished", e.Kind)
	}
	return s.record(ctx, e, &decision{})
}

// Decide commits a call.decided. When the payload is not nil the entry gets a
// commitment to it; what is kept of it beside the tree is what the entry's class
// says, see keep. An allowed call is open until Finish ends it, or the next
// start does. The caller must not act before Decide has returned nil.
func (s *Store) Decide(ctx context.Context, e *ledger.Entry, payload []byte) error {
	if e.Kind != ledger.CallDecided {
		return fmt.Errorf("deciding a call with a %s entry", e.Kind)
	}
	d := &decision{opens: e.Decision == ledger.Allow}
	s.commitTo(d, e, payload)
	return s.record(ctx, e, d)
}

// commitTo gives an entry a commitment to its payload, unless that is nil.
func (s *Store) commitTo(d *decision, e *ledger.Entry, payload []byte) {
	if payload == nil {
		return
	}
	d.salt = make([]byte, 32)
	rand.Read(d.salt) // never fails: crypto/rand ends the process instead
	e.PayloadCommitment = ledger.Commitment(d.salt, payload)
	d.payload = s.keep(e.Class, payload)
}

// keep returns what is kept of a payload, with its salt: all of it where the
// class says so; nothing of it, so that whoever has the payload can still show
// that it is the one, where it does not; nil, so that not even the salt is
// kept, where the class wants that.
func (s *Store) keep(class string, payload []byte) []byte {
	registry, _ := s.Registry()
	c := registry.Classes[class]
	switch {
	case c.KeepsPayload():
		return payload
	case c != nil && c.Payload == counterfoil.PayloadNone:
		return nil
	}
	return []byte{}
}

// Finish commits the call.finished of the open call e.Of. A call ends once:
// the second Finish is an error, and nothing of it is recorded.
func (s *Store) Finish(ctx context.Context, e *ledger.Entry) error {
	return s.finish(ctx, e, &decision{})
}

func (s *Store) finish(ctx context.Context, e *ledger.Entry, d *decision) error {
	if e.Kind != ledger.CallFinished {
		return fmt.Errorf("finishing a call with a %s entry", e.Kind)
	}
	if e.Of < 0 {
		return fmt.Errorf("finishing call %d: there is no such entry", e.Of)
	}
	d.oneEnd[0] = e.Of
	d.ends = d.oneEnd[:]
	return s.record(ctx, e, d)
}

// Issue commits a token.issued: the assertion's id is used up, agent, instance, epoch and
// the key that the assertion was verified with are live at that moment, the task is open and the resource in force, or it is
// refused (client_refused, agent_suspended, task_closed, target_invalid,
// assertion_replayed). The token is remembered, so that what is taken later can be
// listed. The caller must not make the token before Issue has returned nil.
//
// Where a key is to be bound, its proof_key.bound is committed before the token in
// the same transaction, so that one assertion binds one key at most, and none
// without a token. A key that the instance has already is no news: bound is not
// recorded. A key that is or was anybody else's is refused (key_in_use), one too
// many too (proof_key_mismatch); both use up no assertion.
func (s *Store) Issue(ctx context.Context, i counterfoil.Issuance, issued, bound *ledger.Entry) error {
	if err := checkUse(i.Use, i.Live); err != nil {
		return err
	}
	if (i.Bind.JKT == "") != (bound == nil) {
		return errors.New("issuing a token: a key is bound with the entry that says so, or neither")
	}
	if bound == nil {
		return s.record(ctx, issued, &decision{effect: func(w writer) error { return s.useUp(w, &i) }})
	}
	d := &decision{entries: []*ledger.Entry{bound, issued}, sighting: sightingOf(issued)}
	var err error
	if d.drafts, err = prepare(d.entries); err != nil {
		return err
	}
	known := false
	d.effect = func(w writer) error {
		if err := s.useUp(w, &i); err != nil {
			return err
		}
		var err error
		if known, err = bindProofKey(w, i.Live, i.Bind, s.opt.Now()); known {
			d.entries, d.drafts = d.entries[1:], d.drafts[1:] // the token alone
		}
		return err
	}
	d.learn = func(v *views) {
		if !known {
			v.keys[i.Bind.JKT] = keyView{agent: i.Live.Agent, instance: i.Live.Instance, live: true}
		}
	}
	return s.commit(ctx, d)
}

// mayIssue reports whether what a token is issued on is live, open and in force, as far
// as the views know: where they do not say so, the tables are asked.
func (v *views) mayIssue(i *counterfoil.Issuance, now time.Time) bool {
	inst := v.instances[i.Live.Instance]
	if v.agents[i.Live.Agent] != (counterfoil.AgentState{Status: counterfoil.Active, Epoch: i.Live.Epoch}) ||
		inst.Agent != i.Live.Agent || inst.Status != counterfoil.Active {
		return false
	}
	if r, ok := v.resources[i.Resource]; ok && r.status != counterfoil.Active {
		return false
	}
	if k := v.keys[i.Live.Key]; k.instance != i.Live.Instance || !k.in(func() time.Time { return now }) {
		return false
	}
	if i.Task == "" {
		return true
	}
	t := v.tasks[i.Task]
	return t != nil && t.Agent == i.Live.Agent && t.Live(now)
}

func checkUse(use counterfoil.AssertionUse, live counterfoil.Live) error {
	if use.Agent == "" || use.ID == "" || use.Until.IsZero() {
		return errors.New("using an assertion: its agent, id or time is missing")
	}
	if live.Key == "" {
		return errors.New("using an assertion: the key that it was verified with is missing")
	}
	if use.Agent != live.Agent {
		return errors.New("using an assertion for another agent than it is of")
	}
	return nil
}

// UseAssertion commits e, for which an agent that is live used up an assertion, or is
// refused as Issue is: one assertion is good for one request, of whatever kind.
func (s *Store) UseAssertion(ctx context.Context, use counterfoil.AssertionUse, live counterfoil.Live, e *ledger.Entry) error {
	if err := checkUse(use, live); err != nil {
		return err
	}
	i := counterfoil.Issuance{Use: use, Live: live}
	return s.record(ctx, e, &decision{effect: func(w writer) error { return s.useUp(w, &i) }})
}

// useUp uses up the assertion for what is live, and remembers the token.
func (s *Store) useUp(w writer, i *counterfoil.Issuance) error {
	now := s.opt.Now()
	key, until := assertionKey(i.Use), max(millis(i.Use.Until), millis(i.Expires))
	var n int64
	var err error
	if s.seq.sees() && !s.seq.older && s.views.mayIssue(i, now) {
		n, err = w.exec(keepAssertion, i.Use.Agent, key, until, i.Token, i.Live.Instance, i.Task, i.Live.Epoch, millis(i.Expires))
	} else {
		n, err = w.exec(useAssertion, i.Use.Agent, key, until, i.Token, i.Live.Instance, i.Task, i.Live.Epoch, millis(i.Expires), millis(now), i.Resource, i.Live.Key)
	}
	if err != nil {
		return fmt.Errorf("using an assertion: %w", err)
	}
	if n == 1 {
		return nil
	}
	return s.whyNotIssued(w, i)
}

// AssertionUsed reports whether an assertion was used up. It decides nothing, as it
// may be at this moment: Issue and UseAssertion do.
func (s *Store) AssertionUsed(ctx context.Context, use counterfoil.AssertionUse) (bool, error) {
	var one int64
	err := s.reads.QueryRowContext(ctx, sqliteTexts[findAssertion], use.Agent, assertionKey(use)).Scan(&one)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	}
	return false, counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading an assertion: %w", err))
}

// assertionKey is what an assertion's id is remembered by. An agent's name has no
// NUL, so no two pairs give one text.
func assertionKey(use counterfoil.AssertionUse) []byte {
	id := sha256.Sum256([]byte(use.Agent + "\x00" + use.ID))
	return id[:]
}

// whyNotIssued tells an id that was used from what is not live, open or in force.
func (s *Store) whyNotIssued(w writer, i *counterfoil.Issuance) error {
	live := i.Live
	status, epoch, err := agentRow(w, live.Agent)
	if err != nil {
		return err
	}
	instance, err := instanceRow(w, live.Instance, live.Agent)
	if err != nil {
		return err
	}
	switch {
	case status == counterfoil.Suspended:
		return counterfoil.Refuse(counterfoil.AgentSuspended, "agent %q is suspended", live.Agent)
	case status == counterfoil.Active && instance == counterfoil.Quarantined:
		return quarantined(live.Agent, live.Instance)
	case status != counterfoil.Active || epoch != live.Epoch || instance != counterfoil.Active:
		return counterfoil.Refuse(counterfoil.ClientRefused, "agent, instance or epoch is not live any more")
	}
	taken, err := hasKey(w, live, live.Key, s.opt.Now())
	if err != nil {
		return err
	}
	if !taken {
		return counterfoil.Refuse(counterfoil.ClientRefused, "the key that the assertion is signed with is not live any more")
	}
	if err := wantOpenTask(w, i.Task, live.Agent, s.opt.Now()); err != nil {
		return err
	}
	if err := wantInForce(w, counterfoil.TargetResource, i.Resource, counterfoil.TargetInvalid); err != nil {
		return err
	}
	return counterfoil.Refuse(counterfoil.AssertionReplayed, "the assertion was used before")
}

// hasKey reports whether an instance has a key that is taken.
func hasKey(w writer, live counterfoil.Live, jkt string, now time.Time) (has bool, err error) {
	err = w.query(keyOwner, func(r []driver.Value) error {
		until := r[3].(int64)
		has = r[0].(string) == live.Agent && r[1].(string) == live.Instance && r[2].(int64) == 1 && (until == 0 || until > millis(now))
		return nil
	}, jkt)
	if err != nil {
		return false, fmt.Errorf("reading a key: %w", err)
	}
	return has, nil
}

// instanceRow returns the zero status for an instance that the agent never had.
func instanceRow(w writer, instance, agent string) (status counterfoil.Status, err error) {
	err = w.query(instanceStatus, func(r []driver.Value) error {
		status = counterfoil.Status(r[0].(string))
		return nil
	}, instance, agent)
	if err != nil {
		return "", fmt.Errorf("reading instance %q: %w", instance, err)
	}
	return status, nil
}

// quarantined is the refusal of an instance whose key was seen in two places.
func quarantined(agent, instance string) error {
	return counterfoil.Refuse(counterfoil.AgentSuspended, "instance %q of agent %q is quarantined: its key was seen in two places", instance, agent)
}

// agentRow returns the zero status for a name that no agent ever had.
func agentRow(w writer, agent string) (status counterfoil.Status, epoch int64, err error) {
	err = w.query(agentStatus, func(r []driver.Value) error {
		status, epoch = counterfoil.Status(r[0].(string)), r[1].(int64)
		return nil
	}, agent)
	if err != nil {
		return "", 0, fmt.Errorf("reading agent %q: %w", agent, err)
	}
	return status, epoch, nil
}

// PutCode commits an enrolment code.
func (s *Store) PutCode(ctx context.Context, code counterfoil.EnrolmentCode, e *ledger.Entry) error {
	now := s.opt.Now()
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		if err := wantActive(w, code.Agent); err != nil {
			return err
		}
		if _, err := w.exec(purgeCodes, millis(now)); err != nil {
			return fmt.Errorf("forgetting expired codes: %w", err)
		}
		if _, err := w.exec(putCode, code.Hash[:], code.Agent, millis(code.Expires)); err != nil {
			return fmt.Errorf("keeping an enrolment code: %w", err)
		}
		return nil
	}})
}

// wantActive refuses what is for an agent that is not active.
func wantActive(w writer, agent string) error {
	status, _, err := agentRow(w, agent)
	switch {
	case err != nil:
		return err
	case status == counterfoil.Suspended:
		return counterfoil.Refuse(counterfoil.AgentSuspended, "agent %q is suspended", agent)
	case status == counterfoil.Offboarded:
		return counterfoil.Refuse(counterfoil.ClientRefused, "agent %q was offboarded", agent)
	case status != counterfoil.Active:
		return counterfoil.Refuse(counterfoil.ClientRefused, "agent %q is not known", agent)
	}
	return nil
}

// Enroll spends the code with that hash and commits the instance with its key,
// or refuses and leaves the code as it was: enrolment_refused where the code is
// unknown, spent, expired or another agent's, or the agent is not active;
// key_in_use where the key is or was anybody's. Of any number of concurrent
// calls with one code, one wins.
func (s *Store) Enroll(ctx context.Context, code [sha256.Size]byte, inst counterfoil.Instance, e *ledger.Entry) error {
	if err := checkInstance(inst); err != nil {
		return err
	}
	now := s.opt.Now()
	inst.Status, inst.Enrolled, inst.How = counterfoil.Active, fromMillis(millis(inst.Enrolled)), counterfoil.EnrolledByCode
	return s.record(ctx, e, &decision{
		effect: func(w writer) error {
			n, err := w.exec(spendCode, code[:], inst.Agent, millis(now))
			if err != nil {
				return fmt.Errorf("spending an enrolment code: %w", err)
			}
			if n != 1 {
				return counterfoil.Refuse(counterfoil.EnrolmentRefused, "the enrolment code is not valid")
			}
			if err := wantActive(w, inst.Agent); err != nil {
				if _, ok := counterfoil.AsRefusal(err); !ok {
					return err
				}
				return counterfoil.RefuseAs(counterfoil.EnrolmentRefused, counterfoil.CodeOf(err), "the enrolment code is not valid")
			}
			return enrolInstance(w, inst)
		},
		learn: func(v *views) { learnInstance(v, inst) },
	})
}

func checkInstance(i counterfoil.Instance) error {
	if i.ID == "" || i.Agent == "" || i.JKT == "" || i.JWK == "" || i.Alg == "" {
		return errors.New("enrolling an instance: its id, agent, thumbprint, key or algorithm is missing")
	}
	return nil
}

func enrolInstance(w writer, i counterfoil.Instance) error {
	n, err := w.exec(insertKey, i.JKT, i.Agent, i.ID, int64(1))
	if err != nil {
		return fmt.Errorf("keeping a key: %w", err)
	}
	if n != 1 {
		return counterfoil.Refuse(counterfoil.KeyInUse, "the key %s is, or once was, in use; make a new one", i.JKT)
	}
	n, err = w.exec(insertInstance, i.ID, i.Agent, i.JKT, i.JWK, i.Alg, millis(i.Enrolled), i.How)
	if err != nil {
		return fmt.Errorf("keeping an instance: %w", err)
	}
	if n != 1 {
		return fmt.Errorf("keeping an instance: its id %q is taken", i.ID)
	}
	return nil
}

func learnInstance(v *views, i counterfoil.Instance) {
	v.keys[i.JKT] = keyView{agent: i.Agent, instance: i.ID, registered: true, live: true}
	v.addInstance(i)
}

// errKnown says that there is nothing to change and so nothing to record.
var errKnown = errors.New("known already")

// bindProofKey gives an instance that is live one more key to prove with, and
// reports whether it has the key already.
func bindProofKey(w writer, live counterfoil.Live, bind counterfoil.KeyBinding, now time.Time) (known bool, err error) {
	i, err := instanceKeysOf(w, live.Instance)
	if err != nil {
		return false, err
	}
	if i.jkt != live.Key {
		// Whoever has a key that was rotated from must not keep what its end takes.
		return false, counterfoil.Refuse(counterfoil.ProofKeyMismatch, "the assertion is by a key that was rotated from, which binds no other")
	}
	if known, err = hasKey(w, live, bind.JKT, now); known || err != nil {
		return known, err
	}
	found := false
	err = w.query(keyOwner, func([]driver.Value) error { found = true; return nil }, bind.JKT)
	switch {
	case err != nil:
		return false, fmt.Errorf("reading a key: %w", err)
	case found:
		return false, counterfoil.Refuse(counterfoil.KeyInUse, "the key %s is, or once was, in use; make a new one", bind.JKT)
	}
	var n int64
	err = w.query(countProofKeys, func(r []driver.Value) error { n = r[0].(int64); return nil }, live.Instance)
	if err != nil {
		return false, fmt.Errorf("counting proof keys: %w", err)
	}
	if n >= int64(bind.Most) {
		return false, counterfoil.Refuse(counterfoil.ProofKeyMismatch, "instance %q has %d proof keys already; use one of them", live.Instance, n)
	}
	if _, err := w.exec(insertKey, bind.JKT, live.Agent, live.Instance, int64(0)); err != nil {
		return false, fmt.Errorf("keeping a key: %w", err)
	}
	return false, nil
}

// PinTool commits the digest of a tool's definition; how says who or what
// vouched for it. It replaces an earlier one, unless nobody vouched
// (counterfoil.PinFirstSight): then whatever is pinned stays, nothing is
// recorded, and the caller asks Pin which digest it is.
func (s *Store) PinTool(ctx context.Context, resource, tool, digest, how string, e *ledger.Entry) error {
	put, pinned := putPin, true
	if how == counterfoil.PinFirstSight {
		put = putFirstPin
	}
	d := &decision{}
	d.effect = func(w writer) error {
		n, err := w.exec(put, resource, tool, digest, how)
		if err != nil {
			return fmt.Errorf("keeping a pin: %w", err)
		}
		if n != 1 {
			// It is no refusal: the pin that was first may be of this very
			// batch, so the answer waits until it is committed and visible.
			pinned, d.entries, d.drafts = false, nil, []ledger.Draft{}
		}
		return nil
	}
	d.learn = func(v *views) {
		if pinned {
			v.pins[pinKey{resource, tool}] = pin{digest, how}
		}
	}
	return s.record(ctx, e, d)
}

// SaveKeys commits keys of the issuer, each over the one of its id, or returns
// ErrConflict when the keys are not those any more, each in that state, that
// Keys returned as from. What a key is never changes under its id, only where it
// is in its life.
func (s *Store) SaveKeys(ctx context.Context, from, keys []counterfoil.SigningKey, e *ledger.Entry) error {
	want := map[string]string{}
	for _, k := range from {
		want[k.KID] = k.State
	}
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		have := map[string]string{}
		err := w.query(readSigningKeys, func(r []driver.Value) error {
			have[r[0].(string)] = r[3].(string)
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading signing keys: %w", err)
		}
		if !maps.Equal(have, want) {
			return ErrConflict
		}
		for _, k := range keys {
			var sealed driver.Value // NULL once the private half is gone
			if k.Sealed != nil {
				sealed = k.Sealed
			}
			n, err := w.exec(putSigningKey, k.KID, k.Purpose, k.Alg, k.State, k.JWK, sealed,
				millis(k.Created), millis(k.ActiveAt), millis(k.RetiredAt))
			if err != nil {
				return fmt.Errorf("keeping a signing key: %w", err)
			}
			if n != 1 {
				return fmt.Errorf("keeping a signing key: %q is another key", k.KID)
			}
		}
		return nil
	}})
}

// Keys returns every key of the issuer, in any state, oldest first.
func (s *Store) Keys(ctx context.Context) ([]counterfoil.SigningKey, error) {
	rows, err := s.reads.QueryContext(ctx, sqliteTexts[readSigningKeys])
	if err != nil {
		return nil, counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading signing keys: %w", err))
	}
	defer rows.Close()
	var keys []counterfoil.SigningKey
	for rows.Next() {
		var k counterfoil.SigningKey
		var created, active, retired int64
		err := rows.Scan(&k.KID, &k.Purpose, &k.Alg, &k.State, &k.JWK, &k.Sealed, &created, &active, &retired)
		if err != nil {
			return nil, counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading signing keys: %w", err))
		}
		k.Created, k.ActiveAt, k.RetiredAt = fromMillis(created), fromMillis(active), fromMillis(retired)
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading signing keys: %w", err))
	}
	return keys, nil
}
