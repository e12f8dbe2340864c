package web

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A Recorder makes decisions durable. Each verb returns after the commit; an error
// means that nothing can be relied on to be there. Safe for concurrent use.
type Recorder interface {
	// Decide records e, a call.decided, and sets e.Index.
	Decide(ctx context.Context, e *ledger.Entry, payload []byte) error
	// Finish records e, the call.finished that ends the decision e.Of.
	Finish(ctx context.Context, e *ledger.Entry) error
	// Append records an entry that has no effect beside itself.
	Append(ctx context.Context, e *ledger.Entry) error
}

// statusTool is what an agent's look at its approval is called in the ledger.
const statusTool = "counterfoil/approvals"

// approvalID is what an approval's id looks like. What looks otherwise is nobody's,
// and no proof is made for its URL.
var approvalID = regexp.MustCompile(`^apr_[A-Za-z0-9_-]{8,64}$`)

// approvalStatus tells the agent that asked how its approval stands. It takes a
// token for the issuer or for the approval's own resource, with a proof; everybody
// else's answer, another task of the same agent included, is that there is nothing.
func (p *public) approvalStatus(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	id := r.PathValue("id")
	if !approvalID.MatchString(id) {
		return noApproval()
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery || r.ContentLength != 0 {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "a look at an approval has neither query nor body")
	}
	caller, err := p.checkCaller(r, p.Issuer+counterfoil.ApprovalPath+id)
	if err != nil && counterfoil.CodeOf(err) == counterfoil.NonceRequired {
		w.Header().Set("DPoP-Nonce", p.Verifier.Nonce())
	}
	if err != nil && caller.Proof == "" {
		return err // nobody was authenticated: it is counted, not recorded
	}
	if !p.looks.Take(caller.Agent, p.Now(), 1) {
		return p.tooManyLooks(r.Context(), caller.Agent)
	}
	var a counterfoil.Approval
	if err == nil {
		a, err = p.approvalOf(r.Context(), id, caller)
	}
	if err := p.recordLook(r, caller, a, err); err != nil {
		return err
	}
	if err != nil {
		return recorded{err}
	}
	status := p.Approvals.StatusOf(a)
	if status.Status == string(counterfoil.StatePending) {
		w.Header().Set("Retry-After", strconv.Itoa(status.Interval))
	}
	writeJSON(w, http.StatusOK, "application/json", status)
	return nil
}

// tooManyLooks refuses a look of an agent over its rate. Its proof is used up and is in
// no entry of its own, or the limit would save nothing: one entry a second and agent
// says, before the answer does, that there were such, so that a start which reads the
// proofs back takes none from before it (see internal/gateway, rates).
func (p *public) tooManyLooks(ctx context.Context, agent string) error {
	now := p.Now()
	if p.told.Take(agent, now, 1) {
		err := p.Recorder.Append(context.WithoutCancel(ctx), &ledger.Entry{
			Kind: ledger.RefusedAggregate, Agent: agent, Tool: statusTool, Decision: ledger.Refuse, Code: counterfoil.RateLimited,
			Detail: map[string]any{"began": ledger.FormatTime(now)},
		})
		if err != nil {
			return notRecorded(err)
		}
	}
	return counterfoil.Refuse(counterfoil.RateLimited, "more than %d looks at approvals a second", lookRate)
}

// checkCaller verifies the request's token and proof. A token's audience is the
// issuer or a resource; which it may be is known only once the approval is, and that
// is looked up for nobody who is not verified. A token for something else uses up no
// proof, so that each may be tried.
func (p *public) checkCaller(r *http.Request, url string) (counterfoil.Caller, error) {
	check := func(audience string) (counterfoil.Caller, error) {
		return p.Verifier.Check(r.Context(), resource.Request{Method: r.Method, URL: url, Resource: audience, Header: r.Header})
	}
	caller, err := check(p.Issuer)
	if err == nil || counterfoil.CodeOf(err) != counterfoil.TokenAudience {
		return caller, err
	}
	_, registry := p.Authority.Policy()
	for _, res := range registry.Resources {
		at, atErr := check(res.ID(p.Issuer))
		if atErr == nil || counterfoil.CodeOf(atErr) != counterfoil.TokenAudience {
			return at, atErr
		}
	}
	return caller, err
}

// approvalOf returns an approval that the caller asked for, in this task, with a
// token that is for it.
func (p *public) approvalOf(ctx context.Context, id string, caller counterfoil.Caller) (counterfoil.Approval, error) {
	a, err := p.Approvals.Status(ctx, id, caller)
	if err != nil {
		if counterfoil.CodeOf(err) == counterfoil.ToolUnknown {
			err = noApproval()
		}
		return counterfoil.Approval{}, err
	}
	if caller.Audience == p.Issuer {
		return a, nil
	}
	_, registry := p.Authority.Policy()
	if res := registry.Resources[a.Tool.Resource]; res == nil || res.ID(p.Issuer) != caller.Audience {
		return counterfoil.Approval{}, noApproval()
	}
	return a, nil
}

func noApproval() error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such approval of this agent and task, or the token is for another resource")
}

// recordLook records a look as any request with a valid token is recorded, so that a
// restart knows its proof: a decision and, where it was allowed, its end.
func (p *public) recordLook(r *http.Request, c counterfoil.Caller, a counterfoil.Approval, why error) error {
	set, registry := p.Authority.Policy()
	e := &ledger.Entry{
		Kind: ledger.CallDecided, RequestID: RequestID(r.Context()), Tool: statusTool,
		Agent: c.Agent, Instance: c.Instance, JKT: c.JKT, Binding: c.Binding, TokenJTI: c.TokenID, Proof: c.Proof,
		Epoch: c.Epoch, Actors: c.Actors, Task: c.Task, Scope: c.Scope, PolicyDigest: set.Digest(),
		Source: sourceOf(p.Source(r)), Decision: ledger.Allow,
	}
	e.Source.Environment = c.Environment
	if c.Subject != c.Agent {
		e.OnBehalfOf = c.Subject
	}
	if agent := registry.Agents[c.Agent]; agent != nil {
		e.Owner = agent.Owner
	}
	if p.View != nil {
		e.View = p.View()
	}
	if a.ID != "" {
		e.Approval.ID = a.ID // without its state: a look uses nothing up
	}
	if why != nil {
		e.Decision, e.Code = ledger.Refuse, counterfoil.CodeOf(why)
		if refusal, ok := counterfoil.AsRefusal(why); ok {
			e.Code, e.Reason = refusal.Recorded(), refusal.Reason()
		}
	}
	ctx := context.WithoutCancel(r.Context())
	if err := p.Recorder.Decide(ctx, e, nil); err != nil {
		return notRecorded(err)
	}
	if why != nil {
		return nil
	}
	end := &ledger.Entry{
		Kind: ledger.CallFinished, RequestID: e.RequestID, Agent: c.Agent, Instance: c.Instance, Tool: statusTool,
		Of: e.Index, Outcome: "succeeded",
	}
	if err := p.Recorder.Finish(ctx, end); err != nil {
		return notRecorded(err)
	}
	return nil
}

// notRecorded is the fault of a commit that failed, unless it says itself which.
func notRecorded(err error) error {
	if f := (*counterfoil.Fault)(nil); errors.As(err, &f) {
		return err
	}
	return counterfoil.NewFault(counterfoil.LedgerUnavailable, err)
}

func sourceOf(addr netip.Addr) ledger.Source {
	if !addr.IsValid() {
		return ledger.Source{}
	}
	return ledger.Source{Address: addr.String()}
}
