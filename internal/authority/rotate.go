package authority

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ledger"
)

// MaxOverlap is how long the key that was rotated from may be taken beside the new one.
const MaxOverlap = 24 * time.Hour

// A RotateRequest asks for another key of the caller's instance. Nothing in it is
// verified.
type RotateRequest struct {
	NewProof        string // a DPoP proof by the new key, for the same request and the same token
	AccessTokenHash string // ath of the request's access token (RFC 9449, Section 4.2)
	Overlap         time.Duration
	Source          netip.Addr
	RequestID       string
}

// A RotatedKey says which key an instance has now.
type RotatedKey struct {
	Agent    string      `json:"agent"`
	Instance string      `json:"instance"`
	JKT      string      `json:"jkt"`
	Previous PreviousKey `json:"previous"`
}

// A PreviousKey is the key that was rotated from, and until when it is taken.
type PreviousKey struct {
	JKT   string    `json:"jkt"`
	Until time.Time `json:"until"`
}

// RotateKey gives the caller's instance another key. Both keys say so: the present one
// by the request's own proof, which the caller was verified by, and the new one by a
// proof for the same request and token, so that nobody registers a key that is not
// theirs. The instance stays who it is, with its tasks and approvals; the old key is
// dead at once, or after the overlap, and never comes back, and with it go the keys that
// were bound beside it.
//
// The present key alone rotates: whoever has an old one, in its overlap or bound beside
// it, would otherwise take the instance over.
func (a *Authority) RotateKey(ctx context.Context, caller counterfoil.Caller, req RotateRequest) (RotatedKey, error) {
	now := a.cfg.Now()
	set, registry, err := a.current()
	if err != nil {
		return RotatedKey{}, err
	}
	inst, err := a.rotatable(registry, caller)
	if err != nil {
		return RotatedKey{}, err
	}
	if req.Overlap < 0 || req.Overlap > MaxOverlap {
		return RotatedKey{}, counterfoil.Refuse(counterfoil.RequestMalformed, "overlap is 0 to %d seconds", int(MaxOverlap/time.Second))
	}
	proof, err := a.checkNewProof(req, now)
	if err != nil {
		return RotatedKey{}, err
	}
	until := now.Add(req.Overlap).UTC().Truncate(time.Millisecond)
	r := counterfoil.Rotation{
		Agent: caller.Agent, Instance: inst.ID, Old: inst.JKT,
		JKT: proof.JKT, JWK: string(proof.Key.JWK()), Alg: proof.Key.Alg(), OldUntil: until,
	}
	e := &ledger.Entry{
		Kind: ledger.KeyRotated, RequestID: req.RequestID, Agent: caller.Agent, Instance: inst.ID, JKT: proof.JKT,
		Binding: caller.Binding, TokenJTI: caller.TokenID, Epoch: caller.Epoch, Source: source(req.Source), PolicyDigest: set.Digest(),
		Detail: map[string]any{"alg": r.Alg, "previous": map[string]any{"jkt": inst.JKT, "until": ledger.FormatTime(until)}},
	}
	e.Source.Environment = caller.Environment
	if agent := registry.Agents[caller.Agent]; agent != nil {
		e.Owner = agent.Owner
	}
	live := counterfoil.Live{Agent: caller.Agent, Instance: caller.Instance, Epoch: caller.Epoch}
	if err := a.cfg.Store.Rotate(context.WithoutCancel(ctx), r, live, e); err != nil {
		return RotatedKey{}, err
	}
	return RotatedKey{Agent: caller.Agent, Instance: inst.ID, JKT: proof.JKT, Previous: PreviousKey{inst.JKT, until}}, nil
}

// rotatable returns the caller's instance, unless its key is not the caller's to change.
func (a *Authority) rotatable(registry *counterfoil.Registry, caller counterfoil.Caller) (counterfoil.Instance, error) {
	var none counterfoil.Instance
	if caller.Task != "" {
		// The instance outlives the task, and works in others.
		return none, counterfoil.Refuse(counterfoil.OutsideTask, "a token of a task does nothing beyond it: rotate with one that is of no task")
	}
	inst, ok := a.cfg.Store.Instance(caller.Instance)
	agent := registry.Agents[caller.Agent]
	if !ok || inst.Agent != caller.Agent || ended(inst) || agent == nil {
		return none, counterfoil.Refuse(counterfoil.TokenRevoked, "the instance ended")
	}
	if caller.JKT != inst.JKT {
		return none, counterfoil.Refuse(counterfoil.ProofKeyMismatch, "a key is rotated with the instance's present key alone")
	}
	listed := slices.ContainsFunc(agent.Keys, func(jwk string) bool {
		k, err := a.keys.get(jwk)
		return err == nil && k.public.Thumbprint() == inst.JKT
	})
	if inst.How != counterfoil.EnrolledByCode || listed {
		return none, counterfoil.Refuse(counterfoil.RequestMalformed, "the key is declared in the agent's manifest: it is rotated there")
	}
	return inst, nil
}

// checkNewProof checks the proof by the new key (RFC 9449, Section 4.3). It needs no
// nonce, and its id is not remembered: it is for one access token, shown beside a proof
// by the present key, and a key is registered once.
func (a *Authority) checkNewProof(req RotateRequest, now time.Time) (credential.Proof, error) {
	if req.AccessTokenHash == "" {
		return credential.Proof{}, errors.New("rotating a key: without the hash of the access token the new key's proof is for any")
	}
	if req.NewProof == "" {
		return credential.Proof{}, counterfoil.Refuse(counterfoil.RequestMalformed, "proof, a DPoP proof by the new key, is missing")
	}
	u, err := credential.ParseProof([]string{req.NewProof})
	if err != nil {
		return credential.Proof{}, err
	}
	return u.Check(credential.ProofRequest{Method: "POST", URL: a.cfg.Issuer + counterfoil.RotatePath, TokenHash: req.AccessTokenHash}, now)
}

// ExpireKeys ends the keys that were rotated from and whose overlap is over. They are
// refused already: this says so to whoever follows what is revoked.
func (a *Authority) ExpireKeys(ctx context.Context) error {
	var errs []error
	for _, jkt := range a.cfg.Store.DueKeys(a.cfg.Now()) {
		r := counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetKey, ID: jkt}, Reason: "it was rotated, and its time beside the new key is over", Ended: true}
		_, err := a.revoke(ctx, r, a.revokedEntry(r))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
