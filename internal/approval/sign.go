package approval

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// A signCeremony is a challenge that was made for one person, one decision, one reason
// and the signatures that were there.
type signCeremony struct {
	challenge challenge
	bytes     []byte
}

// signingKey names the one ceremony that a person has with an approval.
func signingKey(id, person string) string { return id + "\n" + person }

// Overtaken says that another signature came between: sign again, over these options.
type Overtaken struct {
	Options []byte // {"publicKey":…}, as Challenge returns them
}

// Error says what ErrOvertaken says.
func (o *Overtaken) Error() string { return counterfoil.ErrOvertaken.Error() }

// Unwrap returns counterfoil.ErrOvertaken.
func (o *Overtaken) Unwrap() error { return counterfoil.ErrOvertaken }

// An act is a person's decision on an approval at one moment.
type act struct {
	a                        counterfoil.Approval
	person, decision, reason string
	groups                   []string           // of the person, of those that the rule names
	tasks                    []counterfoil.Task // that the call is of
	now                      time.Time
}

// Challenge begins a signature: it returns the options of navigator.credentials.get
// whose challenge is that of this person's decision on what is there. A later one for
// the same person and approval replaces it.
func (e *Engine) Challenge(ctx context.Context, id, person, decision, reason string) ([]byte, error) {
	d, err := e.decide(ctx, id, person, decision, reason)
	if err != nil {
		return nil, err
	}
	keys, err := e.keysFor(ctx, d)
	if err != nil {
		return nil, err
	}
	c := newChallenge(&d.a, person, decision, reason)
	b, err := c.bytes()
	if err != nil {
		return nil, err
	}
	e.signings.begin(signingKey(id, person), signCeremony{c, b}, d.now)
	return e.party.request(b, keys)
}

// decide returns a decision that a person may make now. Who may not is told that and
// nothing of how the approval stands.
func (e *Engine) decide(ctx context.Context, id, person, decision, reason string) (*act, error) {
	if decision != counterfoil.DecisionApprove && decision != counterfoil.DecisionDeny {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "a decision is approve or deny, not %q", decision)
	}
	if !utf8.ValidString(reason) || utf8.RuneCountInString(reason) > maxReason {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "a reason is text of at most %d characters", maxReason)
	}
	a, ok, err := e.store.Approval(ctx, id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, noApproval()
	}
	reg, _ := e.crowd()
	if _, err := decides(reg, &a, person, decision); err != nil {
		return nil, err
	}
	d := &act{a: a, person: person, decision: decision, reason: reason, now: e.now()}
	if s := stateAt(&a, d.now); s != counterfoil.StatePending {
		return nil, counterfoil.Refuse(codeOf(s), "%s", sentenceOf(&a, s))
	}
	if err := e.grounded(d); err != nil {
		return nil, err
	}
	d.groups, err = maySign(reg, &a, person, decision)
	return d, err
}

// grounded refuses to decide on a call that nobody could make any more. The store
// revokes such approvals together with what they stand on; nobody signs one in between.
func (e *Engine) grounded(d *act) (err error) {
	a := &d.a
	if a.Kind != counterfoil.ApprovalOfCall {
		return nil
	}
	lost := func(what string) error {
		return counterfoil.Refuse(counterfoil.ApprovalRevoked, "approval %s is of %s", a.ID, what)
	}
	if status, _ := e.store.ResourceStatus(a.Tool.Resource); status != counterfoil.Active {
		return lost("a resource that is suspended")
	}
	if e.store.AgentState(a.Caller.Agent).Status != counterfoil.Active || a.For != "" && e.store.AgentState(a.For).Status != counterfoil.Active {
		return lost("an agent that is suspended")
	}
	if d.tasks, err = liveTasks(e.store, a.Caller.Task, a.Caller.Agent, d.now); err != nil {
		return lost("a task that is closed")
	}
	return nil
}

// keysFor returns a person's passkeys that can sign this decision. A no needs none of
// a special kind: it lets nothing happen.
func (e *Engine) keysFor(ctx context.Context, d *act) ([]counterfoil.Passkey, error) {
	all, err := e.store.PasskeysOf(ctx, d.person)
	if err != nil {
		return nil, err
	}
	var keys []counterfoil.Passkey
	why := notEligible("%s has no passkey", d.person)
	for _, k := range active(all) {
		if err := d.takes(&k); err != nil {
			why = err
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, why
	}
	return keys, nil
}

// takes says why a passkey cannot sign the decision.
func (d *act) takes(k *counterfoil.Passkey) error {
	if d.decision == counterfoil.DecisionDeny {
		return nil
	}
	return usable(&d.a.Rule, k, d.now)
}

// Sign takes a person's decision: an assertion over the challenge that Challenge gave
// for it. It returns the state that the approval is in then. Whatever comes of it, that
// challenge is used up. An *Overtaken error carries options for the signatures that are
// there now.
func (e *Engine) Sign(ctx context.Context, id, person, decision, reason string, credential []byte) (counterfoil.ApprovalState, error) {
	ceremony, begun := e.signings.end(signingKey(id, person), e.now())
	d, err := e.decide(ctx, id, person, decision, reason)
	if err != nil {
		return "", err
	}
	c := &ceremony.challenge
	if !begun || c.Digest != d.a.Digest || c.Decision != decision || c.ReasonDigest != digest(prefixReason, []byte(reason)) {
		return "", refusedPasskey("no challenge was given for this decision, or it is used or older than %s: begin again", ceremonyLife)
	}
	if len(c.Previous) != len(d.a.Signatures) {
		return "", e.overtaken(ctx, d)
	}
	// A record of which something was changed is not what anybody was shown.
	if _, err := stated(&d.a); err != nil {
		return "", fmt.Errorf("signing approval %s: %w", id, err)
	}
	if counterfoil.CallDigest(d.a.Call) != d.a.CallDigest {
		return "", fmt.Errorf("signing approval %s: the call is not the one of its digest", id)
	}
	s, k, err := e.assess(ctx, d, ceremony, credential)
	if err != nil {
		return "", err
	}
	entry, closed := e.signed(d, &s, &k)
	if err := e.store.SignApproval(context.WithoutCancel(ctx), s, entry, closed); err != nil {
		if errors.Is(err, counterfoil.ErrOvertaken) {
			return "", e.overtaken(ctx, d)
		}
		return "", err
	}
	e.afterSigning(ctx, d.a, s)
	return s.Next, nil
}

// overtaken makes the error that carries a challenge over what is there now, or says
// why there is nothing more to sign.
func (e *Engine) overtaken(ctx context.Context, d *act) error {
	options, err := e.Challenge(ctx, d.a.ID, d.person, d.decision, d.reason)
	if err != nil {
		return err
	}
	return &Overtaken{Options: options}
}

// assess verifies an assertion and makes a signature of it.
func (e *Engine) assess(ctx context.Context, d *act, ceremony signCeremony, credential []byte) (s counterfoil.Signing, k counterfoil.Passkey, err error) {
	in, err := parseAssertion(credential)
	if err != nil {
		return s, k, err
	}
	k, ok, err := e.store.PasskeyByID(ctx, in.id)
	if err != nil {
		return s, k, err
	}
	if !ok || k.Person != d.person || k.Status != counterfoil.Active {
		return s, k, refusedPasskey("the passkey is not an active one of %s", d.person)
	}
	if err := e.onRecord(ctx, &k); err != nil {
		return s, k, fmt.Errorf("signing with a passkey of %s: %w", d.person, err)
	}
	out, err := e.asserted(in, &k, ceremony.bytes)
	if err != nil {
		return s, k, err
	}
	if err := d.takes(&k); err != nil {
		return s, k, err
	}
	reg, _ := e.store.Registry()
	p := reg.People[d.person]
	if p == nil {
		return s, k, notEligible("%q is not declared", d.person)
	}
	r := record{Assertion: in.recorded(), Challenge: ceremony.challenge}
	text, sum, err := r.write()
	if err != nil {
		return s, k, err
	}
	s = counterfoil.Signing{
		Approval: d.a.ID, Previous: len(d.a.Signatures), SignCount: out.count, BackedUp: out.backedUp,
		Signature: counterfoil.Signature{
			Person: d.person, Mailbox: p.Mailbox(), Passkey: k.ID, Decision: d.decision, Reason: d.reason, Groups: d.groups,
			At: d.now, Record: text, Digest: sum,
		},
	}
	s.Next, s.UseUntil = d.next()
	return s, k, nil
}

// asserted verifies an assertion that is made now: the sign count goes on.
func (e *Engine) asserted(in *assertion, k *counterfoil.Passkey, challenge []byte) (asserted, error) {
	out, err := e.party.verify(in, k, challenge)
	if err == nil && !countsOn(k.SignCount, out.count) {
		e.log.Warn("a passkey's sign count did not rise: it may have been copied", "person", k.Person, "passkey", encode(k.ID))
		err = refusedPasskey("the passkey's sign count did not rise: it may have been copied")
	}
	return out, err
}

// next is the state that a decision leads to: one no ends it, and the last yes that
// the rule asks for approves it.
func (d *act) next() (counterfoil.ApprovalState, time.Time) {
	if d.decision == counterfoil.DecisionDeny {
		return counterfoil.StateDenied, time.Time{}
	}
	if missing(&d.a.Rule, append(signedGroups(&d.a), d.groups)) > 0 {
		return counterfoil.StatePending, time.Time{}
	}
	until := earliest(d.now.Add(counterfoil.ApprovalUseWindow), d.tasks)
	if d.a.Kind == counterfoil.ApprovalOfChange && d.a.Expires.After(until) {
		until = d.a.Expires // at which it would take effect anyway
	}
	return counterfoil.StateApproved, until
}

// signed makes the entries of a signature: with the whole assertion and every member
// of its challenge, so that anybody can verify it who has the log alone.
func (e *Engine) signed(d *act, s *counterfoil.Signing, k *counterfoil.Passkey) (entry, closed *ledger.Entry) {
	g := &s.Signature
	entry = e.entryOf(ledger.ApprovalSigned, &d.a, s.Next)
	entry.Actor, entry.Reason = g.Person, g.Reason
	if g.Decision == counterfoil.DecisionApprove {
		entry.Approval.Signers = append(entry.Approval.Signers, g.Person)
	}
	var r any
	if err := ijson.Unmarshal(g.Record, &r); err != nil {
		r = nil // it is canonical JSON that we wrote
	}
	entry.Detail = map[string]any{
		"record": r, "enrolled": k.Entry, "groups": g.Groups, "sign_count": int64(s.SignCount), "backed_up": s.BackedUp,
	}
	if waited, ok := e.looks.took(d.person, d.a.ID, d.now); ok {
		entry.Detail["seconds_on_page"] = int64(waited / time.Second)
	}
	if s.Next != counterfoil.StateDenied {
		return entry, nil
	}
	closed = e.entryOf(ledger.ApprovalClosed, &d.a, s.Next)
	closed.Actor, closed.Reason = g.Person, g.Reason
	return entry, closed
}

// afterSigning tells who waits for it. What a crash right here leaves untold, the next
// sweep tells.
func (e *Engine) afterSigning(ctx context.Context, a counterfoil.Approval, s counterfoil.Signing) {
	a.State, a.UseUntil = s.Next, s.UseUntil
	a.Signatures = append(a.Signatures, s.Signature)
	if s.Next == counterfoil.StateDenied {
		a.Reason = s.Signature.Reason
		e.notify(ctx, EventClosed, &a)
	} else {
		e.notify(ctx, EventSigned, &a)
	}
	if s.Next != counterfoil.StatePending {
		e.decidedNow(ctx, &a)
	}
}

// decidedNow hands on an approval that was approved, or a change that was denied.
func (e *Engine) decidedNow(ctx context.Context, a *counterfoil.Approval) {
	switch {
	case a.Kind == counterfoil.ApprovalOfChange && a.Tool.Tool == counterfoil.ChangeRelease:
		if err := e.release(ctx, a); err != nil {
			e.log.Error("what was decided about a passkey is not in force yet", "approval", a.ID, "err", err)
		}
	case a.Kind == counterfoil.ApprovalOfChange:
		tell(e.changes, a.ID)
	case a.Held && a.State == counterfoil.StateApproved:
		tell(e.held, a.ID)
	}
}
