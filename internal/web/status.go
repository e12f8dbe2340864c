package web

import (
	"context"
	"net/http"
	"regexp"
	"strconv"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/resource"
)

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
		return p.tooMany(r.Context(), caller.Agent, statusTool, lookRate)
	}
	var a counterfoil.Approval
	if err == nil {
		a, err = p.approvalOf(r.Context(), id, caller)
	}
	// A look is recorded as any request with a valid token is, so that a restart knows
	// its proof: a decision and, where it was allowed, its end.
	e := p.decision(r, caller, statusTool)
	if a.ID != "" {
		e.Approval.ID = a.ID // without its state: a look uses nothing up
	}
	if err := p.decide(r.Context(), e, err); err != nil {
		return err
	}
	if err != nil {
		return recorded{err}
	}
	p.finish(r.Context(), e, nil)
	status := p.Approvals.StatusOf(a)
	if status.Status == string(counterfoil.StatePending) {
		w.Header().Set("Retry-After", strconv.Itoa(status.Interval))
	}
	writeJSON(w, http.StatusOK, "application/json", status)
	return nil
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
