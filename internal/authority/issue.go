package authority

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
)

// A TokenResponse is the token endpoint's answer (RFC 6749, Section 5.1).
type TokenResponse struct {
	AccessToken string                   `json:"access_token"`
	TokenType   string                   `json:"token_type"`
	ExpiresIn   int64                    `json:"expires_in"` // seconds
	Scope       string                   `json:"scope,omitzero"`
	Details     []counterfoil.ToolDetail `json:"authorization_details,omitzero"`
}

// An attempt is one token request on its way. What is filled in says how far
// the request came, and with it how its refusal is recorded.
type attempt struct {
	req     *TokenRequest
	now     time.Time
	form    tokenForm
	who     client // filled once the agent authenticated
	proof   credential.Proof
	target  target
	set     *policy.Set
	chain   chain // the task that the token is of and those above it; nil: of none
	granted grantedScope

	proofUsed bool // by this attempt
}

func (at *attempt) authenticated() bool { return at.who.agent != nil }

// use is of the assertion that authenticated.
func (at *attempt) use() counterfoil.AssertionUse {
	return counterfoil.AssertionUse{Agent: at.who.agent.Name, ID: at.who.assertion.ID, Until: at.who.assertion.Expires}
}

// Issue answers a token request (RFC 6749, Section 4.4, with RFC 7523 and RFC
// 9449). The order matters: what is cheap comes before what costs a signature,
// a proof that fails or lacks a nonce uses up no assertion, and the entry is
// durable before the token exists. A crash between the two leaves an entry of a
// token that nobody has, and an assertion that is used up; the agent makes a
// new one.
func (a *Authority) Issue(ctx context.Context, req TokenRequest) (TokenResponse, error) {
	at := &attempt{req: &req, now: a.cfg.Now()}
	resp, err := a.issue(ctx, at)
	if err != nil {
		return TokenResponse{}, a.refused(ctx, at, err)
	}
	return resp, nil
}

func (a *Authority) issue(ctx context.Context, at *attempt) (TokenResponse, error) {
	var err error
	if !a.sources.Take(AddressKey(at.req.Source), at.now, 0) {
		return TokenResponse{}, counterfoil.Refuse(counterfoil.RateLimited, "too many refused requests from this address")
	}
	if at.form, err = parseTokenForm(at.req); err != nil {
		return TokenResponse{}, err
	}
	at.who, err = a.authenticate(at.form.clientForm, at.req.Proof, at.now)
	// The rate comes before what a suspended agent is told: that has an entry.
	if at.authenticated() && !a.agents.Take(at.who.agent.Name, at.now, 1) {
		return TokenResponse{}, counterfoil.Refuse(counterfoil.RateLimited, "more than %d token requests a second", agentRate)
	}
	if err != nil {
		return TokenResponse{}, err
	}
	if at.proof, err = a.checkProof(at.req.Proof, counterfoil.TokenPath, at.now); err != nil {
		return TokenResponse{}, err
	}
	// Before its key is judged: what a proof by somebody else's key shows is that
	// they have it, and a proof that was used before shows nothing.
	if err := a.useProof(ctx, at.proof); err != nil {
		return TokenResponse{}, err
	}
	at.proofUsed = true // whatever is decided now
	if err := a.checkProofKey(at.who, at.proof, at.now); err != nil {
		return TokenResponse{}, a.unlessReplayed(ctx, at, err)
	}
	if err := a.narrow(at); err != nil {
		return TokenResponse{}, err
	}
	return a.commit(ctx, at)
}

// unlessReplayed returns the refusal of a proof's key, or assertion_replayed where
// the assertion was used. Anybody may have seen such an assertion, so what the
// refusal would say of its instance, up to a raised alarm that names it, is not
// shown. The store is asked for a refusal alone: for a token, Issue decides. A key
// that is refused uses up no assertion, like every proof that is.
func (a *Authority) unlessReplayed(ctx context.Context, at *attempt, refusal error) error {
	used, err := a.cfg.Store.AssertionUsed(ctx, at.use())
	switch {
	case err != nil:
		return err
	case used:
		return counterfoil.Refuse(counterfoil.AssertionReplayed, "the assertion was used before")
	}
	return refusal
}

// checkProof checks the one DPoP proof of a request (RFC 9449, Section 4.3). The
// URL is the configured one: what the request's Host says is the caller's word.
func (a *Authority) checkProof(header []string, path string, now time.Time) (credential.Proof, error) {
	u, err := credential.ParseProof(header)
	if err != nil {
		return credential.Proof{}, err
	}
	proof, err := u.Check(credential.ProofRequest{Method: "POST", URL: a.cfg.Issuer + path}, now)
	if err != nil {
		return credential.Proof{}, err
	}
	if n := a.cfg.Nonces; n != nil && n.Required(proof.IssuedAt, now) && !n.Check(proof.Nonce, now) {
		return proof, counterfoil.Refuse(counterfoil.NonceRequired, "the proof needs the nonce of the DPoP-Nonce header beside this answer")
	}
	return proof, nil
}

// Nonce returns a fresh nonce for an answer that asks for one, or that tells
// the next one in advance; ok is false when no proof needs one now.
func (a *Authority) Nonce(asked bool) (nonce string, ok bool) {
	now := a.cfg.Now()
	if n := a.cfg.Nonces; n != nil && (asked || n.Required(now, now)) {
		return n.Mint(now), true
	}
	return "", false
}

// checkProofKey holds the proof's key against the agent that authenticated. The
// store has the last word where a new key is bound: Issue.
func (a *Authority) checkProofKey(who client, proof credential.Proof, now time.Time) error {
	if own(who.instance, proof.JKT, now) {
		return nil
	}
	owner, known := a.cfg.Store.AgentOfKey(proof.JKT)
	if known && owner != who.agent.Name {
		return counterfoil.Refuse(counterfoil.KeyInUse, "the proof's key belongs, or once belonged, to another agent")
	}
	if inst, ok := a.cfg.Store.InstanceByKey(proof.JKT); ok && inst.ID != who.instance.ID {
		return counterfoil.Refuse(counterfoil.KeyInUse, "the proof's key belongs to another instance")
	}
	if who.assertion.KeyThumbprint != who.instance.JKT {
		// Whoever has a key that was rotated from must not keep what its end takes.
		return counterfoil.Refuse(counterfoil.ProofKeyMismatch, "the assertion is by a key that was rotated from, which binds no other")
	}
	if who.agent.ProofKeys != proofKeysAny {
		return counterfoil.Refuse(counterfoil.ProofKeyMismatch, "the proof is signed by another key than the assertion's")
	}
	return nil
}

// Values of an agent's proof_keys: the registered key only, when empty, or any
// that no other agent ever had, at most maxProofKeys live ones an instance.
const (
	proofKeysAny = "any"
	maxProofKeys = 8
)

func (a *Authority) useProof(ctx context.Context, proof credential.Proof) error {
	fresh, err := a.cfg.Replay.UseOnce(ctx, proof.Hash, proof.Expires)
	if err != nil {
		return counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("checking replay: %w", err))
	}
	if !fresh {
		return counterfoil.Refuse(counterfoil.ProofReplayed, "the proof was already used; make one with a new jti for each request")
	}
	return nil
}

// commit records the token and signs it, in this order.
func (a *Authority) commit(ctx context.Context, at *attempt) (TokenResponse, error) {
	who, g := at.who, at.granted
	if err := a.afterMark(at); err != nil {
		return TokenResponse{}, err
	}
	claims := credential.TokenClaims{
		Issuer: a.cfg.Issuer, Audience: at.target.id, Subject: who.agent.Name, ClientID: who.agent.Name,
		ID: counterfoil.NewID("tok_"), IssuedAt: at.now, NotBefore: at.now, Expires: a.ends(at),
		Scope: g.tools, Details: g.details, JKT: at.proof.JKT, SubProfile: credential.SubProfileAgent,
		Agent: credential.AgentClaim{
			ID: who.agent.Name, Instance: who.instance.ID, Env: who.agent.Environment, Epoch: who.state.Epoch,
		},
	}
	if len(at.chain) > 0 {
		claims.Task = &credential.TaskClaim{ID: at.chain.id(), Expires: at.chain[0].Deadline}
	}
	e := a.entry(ledger.TokenIssued, at)
	e.Decision, e.TokenJTI = ledger.Allow, claims.ID
	e.Detail["expires"] = ledger.FormatTime(claims.Expires)
	i := counterfoil.Issuance{
		Use: at.use(), Live: who.live(),
		Token: claims.ID, Expires: claims.Expires, Task: at.chain.id(), Resource: at.target.name,
	}
	var bound *ledger.Entry
	if !own(who.instance, at.proof.JKT, at.now) {
		i.Bind = counterfoil.KeyBinding{JKT: at.proof.JKT, Most: maxProofKeys}
		bound = a.entry(ledger.ProofKeyBound, at)
	}
	if err := a.cfg.Store.Issue(ctx, i, e, bound); err != nil {
		return TokenResponse{}, err
	}
	token, err := credential.SignToken(a.cfg.Keys.Signer(), claims)
	if err != nil {
		return TokenResponse{}, fmt.Errorf("signing the token: %w", err)
	}
	return TokenResponse{
		AccessToken: token, TokenType: "DPoP", ExpiresIn: int64(claims.Expires.Sub(at.now) / time.Second),
		Scope: g.scope(), Details: g.details,
	}, nil
}

// afterMark refuses for a moment a token that would be void from its beginning: its
// resource was revoked in the second that the token would say that it is of, and is back
// in force. That it is out of force is for the store to say.
func (a *Authority) afterMark(at *attempt) error {
	status, voided := a.cfg.Store.ResourceStatus(at.target.name)
	if status == counterfoil.Active && !at.now.Truncate(time.Second).After(voided) {
		return counterfoil.Refuse(counterfoil.RateLimited, "the resource was revoked within this second, and every token of then is void: ask again in a second")
	}
	return nil
}

// ends is when the token of an attempt expires: never after its task, and never after
// the key that it is bound to.
func (a *Authority) ends(at *attempt) time.Time {
	end := at.now.Add(a.cfg.TokenLife)
	if len(at.chain) > 0 && at.chain[0].Deadline.Before(end) {
		end = at.chain[0].Deadline
	}
	if old := at.who.instance.Old; old != nil && old.JKT == at.proof.JKT && old.Until.Before(end) {
		end = old.Until
	}
	return end
}

// entry begins the entry of an attempt with all that is verified so far.
func (a *Authority) entry(kind ledger.Kind, at *attempt) *ledger.Entry {
	e := &ledger.Entry{
		Kind: kind, RequestID: at.req.RequestID, Source: source(at.req.Source), Detail: map[string]any{"grant_type": GrantClientCredentials},
		Resource: at.target.name, ScopeRequested: at.form.scope, Scope: at.granted.tools, Task: at.chain.id(),
	}
	if at.set != nil {
		e.PolicyDigest = at.set.Digest()
	}
	if at.authenticated() {
		e.Agent, e.Owner, e.Instance = at.who.agent.Name, at.who.agent.Owner, at.who.instance.ID
		e.JKT, e.Epoch = at.who.instance.JKT, at.who.state.Epoch
		e.Source.Environment = at.who.agent.Environment
	}
	if at.proof.Hash != "" {
		e.JKT, e.Binding = at.proof.JKT, "dpop"
	}
	if at.proofUsed && kind != ledger.ProofKeyBound {
		// One entry says that a proof was used: a start reads it back.
		e.Proof = at.proof.Hash
	}
	return e
}

// refused records a refusal: with an entry of its own once the agent
// authenticated, in the aggregate otherwise. What cannot be recorded is not
// said: the answer is then the fault.
func (a *Authority) refused(ctx context.Context, at *attempt, err error) error {
	r, ok := counterfoil.AsRefusal(err)
	if !ok {
		return err
	}
	if !at.authenticated() || r.Code == counterfoil.RateLimited {
		a.refusedBefore(at.req.Source, at.now, r)
		return err
	}
	e := a.entry(ledger.TokenRefused, at)
	e.Decision, e.Code, e.Reason, e.Scope = ledger.Refuse, r.Recorded(), r.Reason(), nil
	if at.target.id == "" {
		e.Detail["resource"] = at.form.resource // what was asked for and is not there
	}
	if len(at.chain) == 0 && taskID.MatchString(at.form.task) {
		e.Detail["task"] = at.form.task // another's, or one that ended
	}
	if ferr := a.cfg.Store.Append(ctx, e); ferr != nil {
		return ferr
	}
	if r.Code == counterfoil.ClientRefused {
		// The agent was ended while the request was on its way: the answer is
		// that of an agent that never was.
		return credential.RefuseClient(r.Recorded())
	}
	return err
}

// refusedBefore counts a refusal before authentication and charges its address.
func (a *Authority) refusedBefore(addr netip.Addr, now time.Time, r *counterfoil.Refusal) {
	a.Refused(r.Recorded())
	if r.Code != counterfoil.RateLimited {
		a.sources.Take(AddressKey(addr), now, 1)
	}
}
