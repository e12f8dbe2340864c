package authority

import (
	"context"
	"net/netip"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// CodeLife is how long an agent's enrolment code is good for.
const CodeLife = 15 * time.Minute

// maxInstances bounds the instances of one agent that did not end.
const maxInstances = 1000

// An EnrolRequest asks to register the key that its proof is made with as an
// instance of the agent. Nothing in it is verified.
type EnrolRequest struct {
	Agent, Code string
	Proof       []string // the values of the DPoP header
	Source      netip.Addr
	RequestID   string
}

// enrolmentRefused is the one text for a code that is unknown, used, expired or
// for somebody else.
const enrolmentRefused = "the code is unknown, used, expired, or for another agent"

// EnrolCode makes a one-time code for a new instance of the agent. Only its
// hash is kept: this answer is the one time that anyone sees it.
func (a *Authority) EnrolCode(ctx context.Context, agent, actor string) (counterfoil.Secret, time.Time, error) {
	doc, err := a.agent(agent)
	if err != nil {
		return counterfoil.Secret{}, time.Time{}, err
	}
	if s := a.cfg.Store.AgentState(agent); s.Status != counterfoil.Active {
		return counterfoil.Secret{}, time.Time{}, counterfoil.Refuse(counterfoil.RequestMalformed, "agent %s is %s; it cannot enrol", agent, s.Status)
	}
	if a.keptInstances(agent) >= maxInstances {
		return counterfoil.Secret{}, time.Time{}, counterfoil.Refuse(counterfoil.RequestMalformed, "agent %s has %d instances that did not end (quarantined ones count), which is the limit; an instance ends when its key leaves the manifest, or with its agent", agent, maxInstances)
	}
	code, hash := counterfoil.NewEnrolmentCode()
	expires := a.cfg.Now().Add(CodeLife)
	e := &ledger.Entry{
		Kind: ledger.EnrolmentCodeIssued, Agent: agent, Owner: doc.Owner, Actor: actor,
		Detail: map[string]any{"expires": ledger.FormatTime(expires)},
	}
	err = a.cfg.Store.PutCode(context.WithoutCancel(ctx), counterfoil.EnrolmentCode{Hash: hash, Agent: agent, Expires: expires}, e)
	if err != nil {
		return counterfoil.Secret{}, time.Time{}, err
	}
	return code, expires, nil
}

// Enroll registers the proof's key as an instance of the agent, for a code that
// is spent with it in one transaction: of any number of concurrent requests
// with one code, one wins. A crash leaves either both or neither. Nobody is
// authenticated before, so a refusal is counted, not recorded by itself.
func (a *Authority) Enroll(ctx context.Context, req EnrolRequest) (counterfoil.Instance, error) {
	now := a.cfg.Now()
	inst, err := a.enroll(ctx, req, now)
	if err == nil {
		return inst, nil
	}
	if r, ok := counterfoil.AsRefusal(err); ok {
		a.refusedBefore(req.Source, now, r)
	}
	return counterfoil.Instance{}, err
}

func (a *Authority) enroll(ctx context.Context, req EnrolRequest, now time.Time) (counterfoil.Instance, error) {
	var none counterfoil.Instance
	if !a.sources.Take(AddressKey(req.Source), now, 0) {
		return none, counterfoil.Refuse(counterfoil.RateLimited, "too many refused requests from this address")
	}
	if err := counterfoil.CheckName(req.Agent); err != nil {
		return none, counterfoil.Refuse(counterfoil.RequestMalformed, "agent: %v", err)
	}
	code, err := counterfoil.ParseEnrolmentCode(req.Code)
	if err != nil {
		return none, err
	}
	proof, err := a.checkProof(req.Proof, counterfoil.EnrollPath, now)
	if err != nil {
		return none, err
	}
	if err := a.useProof(ctx, proof); err != nil {
		return none, err
	}
	_, registry := a.Policy()
	agent := registry.Agents[req.Agent]
	if agent == nil || a.keptInstances(req.Agent) >= maxInstances {
		return none, counterfoil.Refuse(counterfoil.EnrolmentRefused, enrolmentRefused)
	}
	inst := counterfoil.Instance{
		ID: counterfoil.NewID("ins_"), Agent: req.Agent, JKT: proof.JKT, JWK: string(proof.Key.JWK()),
		Alg: proof.Key.Alg(), Status: counterfoil.Active, Enrolled: now, How: counterfoil.EnrolledByCode,
	}
	e := a.instanceEntry(inst, agent.Owner, counterfoil.EnrolledByCode)
	e.RequestID, e.Proof, e.Binding, e.Source = req.RequestID, proof.Hash, "dpop", source(req.Source)
	err = a.cfg.Store.Enroll(ctx, code, inst, e)
	if r, ok := counterfoil.AsRefusal(err); ok && r.Code == counterfoil.EnrolmentRefused {
		return none, counterfoil.RefuseAs(r.Code, r.Recorded(), enrolmentRefused)
	}
	if err != nil {
		return none, err
	}
	return inst, nil
}

func (a *Authority) instanceEntry(inst counterfoil.Instance, owner, how string) *ledger.Entry {
	return &ledger.Entry{
		Kind: ledger.InstanceEnrolled, Agent: inst.Agent, Owner: owner, Instance: inst.ID, JKT: inst.JKT,
		Detail: map[string]any{"alg": inst.Alg, "how": how},
	}
}

// keptInstances counts the instances that did not end. Quarantined ones are not
// live, and count: they may be released.
func (a *Authority) keptInstances(agent string) int {
	n := 0
	for _, inst := range a.cfg.Store.Instances(agent) {
		if !ended(inst) {
			n++
		}
	}
	return n
}

// ended reports whether an instance is over for good. A status that nobody knows
// is over.
func ended(inst counterfoil.Instance) bool {
	return inst.Status != counterfoil.Active && inst.Status != counterfoil.Quarantined
}

// agent returns the registered agent of that name.
func (a *Authority) agent(name string) (*counterfoil.Agent, error) {
	_, registry := a.Policy()
	if agent := registry.Agents[name]; agent != nil {
		return agent, nil
	}
	return nil, unknown("Agent", name)
}

// unknown is the refusal of a name that nothing has.
func unknown(kind, name string) error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no %s %.80q", kind, name)
}
