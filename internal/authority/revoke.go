package authority

import (
	"context"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ledger"
)

// maxTargetID is how long the id of a target may be, in bytes.
const maxTargetID = 256

// A Revoked says what a revocation took.
type Revoked struct {
	// Index is that of its entry; -1 where nothing was left to take, which has none.
	Index  int64              `json:"index"`
	Voided counterfoil.Voided `json:"voided"`
}

// Revoke takes authority from its target, at once and for good: with the answer, no
// call that the target's authority would have allowed is decided any more. A token is
// named by its id or, by whoever has it, by the whole of it, which is never recorded.
//
// What was revoked before is no news: nothing is recorded, and there is no error, as
// what was asked for is so.
func (a *Authority) Revoke(ctx context.Context, r counterfoil.Revocation, actor string) (Revoked, error) {
	if err := a.checkTarget(r.Target); err != nil {
		return Revoked{}, err
	}
	if err := checkText("reason", r.Reason, 0); err != nil {
		return Revoked{}, err
	}
	if r.Target.Kind == counterfoil.TargetToken && strings.Contains(r.Target.ID, ".") {
		var err error
		if r, err = a.tokenNamed(ctx, r); err != nil {
			return Revoked{}, err
		}
	}
	e := a.revokedEntry(r)
	e.Actor = actor
	return a.revoke(ctx, r, e)
}

func (a *Authority) revoke(ctx context.Context, r counterfoil.Revocation, e *ledger.Entry) (Revoked, error) {
	if r.Target.Kind == counterfoil.TargetPerson {
		// Between what a change of an agent asks of its owner and its commit, nobody is
		// suspended: see ownerGone.
		a.mu.Lock()
		defer a.mu.Unlock()
	}
	voided, news, err := a.cfg.Store.Revoke(context.WithoutCancel(ctx), r, e)
	if err != nil {
		return Revoked{}, err
	}
	if !news {
		return Revoked{Index: -1, Voided: voided}, nil
	}
	return Revoked{e.Index, voided}, nil
}

func (a *Authority) checkTarget(t counterfoil.Target) error {
	switch {
	case !slices.Contains(counterfoil.TargetKinds(), t.Kind):
		return counterfoil.Refuse(counterfoil.RequestMalformed, "there is no kind of target %.40q; there are %v", t.Kind, counterfoil.TargetKinds())
	case t.ID == "":
		return counterfoil.Refuse(counterfoil.RequestMalformed, "which %s is missing", t.Kind)
	case len(t.ID) > maxTargetID && t.Kind != counterfoil.TargetToken || len(t.ID) > credential.MaxToken:
		return unknown(string(t.Kind), t.ID)
	}
	return nil
}

// tokenNamed returns the revocation of the token that its target is the whole of.
func (a *Authority) tokenNamed(ctx context.Context, r counterfoil.Revocation) (counterfoil.Revocation, error) {
	if a.cfg.Tokens == nil {
		return r, counterfoil.Refuse(counterfoil.RequestMalformed, "name the token by its id (jti)")
	}
	token, why, err := a.inspect(ctx, r.Target.ID)
	if err != nil {
		return r, err
	}
	if why != "" {
		return r, counterfoil.Refuse(counterfoil.ToolUnknown, "this is no token of this issuer that is good now (%s)", why)
	}
	return revocationOf(&token, r.Reason), nil
}

// revocationOf is the revocation of a token that verified.
func revocationOf(t *credential.Token, reason string) counterfoil.Revocation {
	return counterfoil.Revocation{
		Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: t.ID}, Reason: reason, Expires: t.Expires, Agent: t.Agent.ID,
	}
}

// revokedEntry begins the entry of a revocation: whom it concerns, so that it is in
// their history. The store adds the target and what was taken.
func (a *Authority) revokedEntry(r counterfoil.Revocation) *ledger.Entry {
	id := r.Target.ID
	e := &ledger.Entry{Kind: ledger.Revoked, Reason: r.Reason, Agent: r.Agent}
	switch r.Target.Kind {
	case counterfoil.TargetToken:
		e.TokenJTI = id
	case counterfoil.TargetKey:
		e.JKT = id
		e.Agent, _ = a.cfg.Store.AgentOfKey(id)
		if inst, ok := a.cfg.Store.InstanceByKey(id); ok {
			e.Instance = inst.ID
		}
	case counterfoil.TargetInstance:
		if inst, ok := a.cfg.Store.Instance(id); ok {
			e.Agent, e.Instance, e.JKT = inst.Agent, inst.ID, inst.JKT
		}
	case counterfoil.TargetTask:
		e.Task = id
		if t, open := a.cfg.Store.LiveTask(id); open {
			e.Agent = t.Agent
		}
	case counterfoil.TargetAgent:
		e.Agent = id
	case counterfoil.TargetResource:
		e.Resource = id
	case counterfoil.TargetOwner:
		e.Owner = id
	case counterfoil.TargetPerson: // in the detail: a person may own nothing
	}
	_, registry := a.Policy()
	if agent := registry.Agents[e.Agent]; agent != nil {
		e.Owner = agent.Owner
	}
	return e
}

// RestoreTarget puts a person or a resource that was revoked back in force. It revives
// nothing of before: passkeys, approvals and tokens stay void. It is for the
// administrator at the machine; nothing that comes over a network restores.
func (a *Authority) RestoreTarget(ctx context.Context, t counterfoil.Target, reason, actor string) error {
	if err := checkText("reason", reason, 0); err != nil {
		return err
	}
	e := &ledger.Entry{
		Kind: ledger.Restored, Reason: reason, Actor: actor,
		Detail: map[string]any{"kind": string(t.Kind), "id": t.ID},
	}
	_, registry := a.Policy()
	switch t.Kind {
	case counterfoil.TargetPerson:
		if registry.People[t.ID] == nil {
			return unknown(counterfoil.KindPerson, t.ID)
		}
	case counterfoil.TargetResource:
		if registry.Resources[t.ID] == nil {
			return unknown(counterfoil.KindResource, t.ID)
		}
		e.Resource = t.ID
	case counterfoil.TargetAgent:
		return counterfoil.Refuse(counterfoil.RequestMalformed, "an agent is resumed, which says what becomes of its quarantined instances")
	default:
		return counterfoil.Refuse(counterfoil.RequestMalformed, "a person or a resource can be restored; what else was revoked is void for good")
	}
	return a.cfg.Store.Restore(context.WithoutCancel(ctx), t, e)
}

// RevokeToken revokes a token for the agent that it is of (RFC 7009). Every other
// agent's token, one that is unknown and one that expired are answered alike and with
// no effect (Section 2.2: the purpose, that the token is of no use, is met or nobody's
// business), but the assertion is used up.
//
// token_type_hint is not looked at: there is one type of token here, and a hint that
// is wrong must not keep a token from being found (Section 2.1). For the same reason
// unsupported_token_type never comes: what is not an access token is not a token that
// we gave, so it is an invalid one (Section 2.2.1 is for types that exist and cannot be
// revoked).
func (a *Authority) RevokeToken(ctx context.Context, req ClientRequest) error {
	ctx = context.WithoutCancel(ctx)
	q, err := a.inquire(ctx, counterfoil.RevokePath, &req)
	if err != nil {
		return err
	}
	token, why, err := a.inspect(ctx, q.token)
	if err != nil {
		return err
	}
	if why == "" && token.Agent.ID != q.who.agent.Name {
		why = counterfoil.TokenAudience
	}
	if why != "" {
		// Nothing is revoked, so the entry must not look like a revocation.
		e := q.entry(ledger.TokenIntrospected)
		e.TokenJTI, e.Detail["active"], e.Detail["why"] = token.ID, false, string(why)
		err = a.cfg.Store.UseAssertion(ctx, q.use(), q.who.live(), e)
	} else {
		r := revocationOf(&token, "revoked by its agent")
		e := q.entry(ledger.Revoked)
		e.Reason, e.TokenJTI = r.Reason, token.ID
		_, err = a.cfg.Store.RevokeTokenWith(ctx, q.use(), r, e)
	}
	if err != nil {
		return a.refusedInquiry(ctx, q, err)
	}
	return nil
}
