package web

import (
	"context"
	"errors"
	"net/http"
	"net/netip"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
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

// Outcomes of what agents ask of the issuer itself, beside ledger.OutcomeUnknown.
const (
	outcomeSucceeded = "succeeded"
	outcomeRefused   = "refused" // with the code
)

// maxAsk bounds the body of what an agent asks of the issuer itself, in bytes.
const maxAsk = 256 << 10

// withToken makes a handler of what an agent asks of the issuer itself. It takes a
// token for the issuer, with a proof for the request's public URL; the request is
// recorded before do runs, as every request with a valid token is, so that a restart
// knows its proof; do answers with a status and a JSON value, nil for none, or
// refuses, and how it ended is recorded too. tool is what the request is called in the
// ledger, such as counterfoil/tasks.
//
// do reads the body with readJSON, without a ResponseWriter: what it is given ends at
// maxAsk.
func (p *public) withToken(tool string, do func(ctx context.Context, r *http.Request, c counterfoil.Caller) (status int, body any, err error)) handler {
	return p.withTokenAs(tokened{tool: tool}, do)
}

// tokened is what a handler of withTokenAs may have beside its tool.
type tokened struct {
	tool string

	// look sees the entry before it is recorded, and its refusal is the decision.
	// Optional.
	look func(r *http.Request, c counterfoil.Caller, e *ledger.Entry) error

	// limited says whose rate counts; the agent's where it is nil.
	limited func(counterfoil.Caller) string

	// rate is how often it may be asked. Optional: as anything else that is asked of the
	// issuer.
	rate *authority.Limiter
}

// withTokenAs is withToken with more to say.
func (p *public) withTokenAs(a tokened, do func(ctx context.Context, r *http.Request, c counterfoil.Caller) (status int, body any, err error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "no-store")
		if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength != 0 {
			return counterfoil.Refuse(counterfoil.RequestMalformed, "a %s has no body", r.Method)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxAsk)
		caller, err := p.Verifier.Check(r.Context(), resource.Request{
			Method: r.Method, URL: p.publicURL(r), Resource: p.Issuer, Header: r.Header,
		})
		if err != nil && counterfoil.CodeOf(err) == counterfoil.NonceRequired {
			w.Header().Set("DPoP-Nonce", p.Verifier.Nonce())
		}
		if err != nil && caller.Proof == "" {
			return err // nobody was authenticated: it is counted, not recorded
		}
		who := caller.Agent
		if a.limited != nil {
			who = a.limited(caller)
		}
		rate, most := p.asks, askRate
		if a.rate != nil {
			rate, most = a.rate, pointRate
		}
		if !rate.Take(who, p.Now(), 1) {
			return p.tooMany(r.Context(), caller.Agent, a.tool, most)
		}
		e := p.decision(r, caller, a.tool)
		if err == nil && a.look != nil {
			err = a.look(r, caller, e)
		}
		if err := p.decide(r.Context(), e, err); err != nil {
			return err
		}
		if err != nil {
			return recorded{err}
		}
		status, body, err := do(r.Context(), r, caller)
		p.finish(r.Context(), e, err)
		if err != nil {
			return recorded{err}
		}
		if body == nil {
			w.WriteHeader(status)
			return nil
		}
		writeJSON(w, status, "application/json", body)
		return nil
	}
}

// publicURL is the URL that a proof for the request is made for: configuration, and
// the path.
func (p *public) publicURL(r *http.Request) string { return p.origin + r.URL.EscapedPath() }

// tooMany refuses a request of an agent over its rate. Its proof is used up and is in
// no entry of its own, or the limit would save nothing: one entry a second and agent
// says, before the answer does, that there were such, so that a start which reads the
// proofs back takes none from before it (see internal/gateway, rates).
func (p *public) tooMany(ctx context.Context, agent, tool string, rate int) error {
	now := p.Now()
	if p.told.Take(agent, now, 1) {
		err := p.Recorder.Append(context.WithoutCancel(ctx), &ledger.Entry{
			Kind: ledger.RefusedAggregate, Agent: agent, Tool: tool, Decision: ledger.Refuse, Code: counterfoil.RateLimited,
			Detail: map[string]any{"began": ledger.FormatTime(now)},
		})
		if err != nil {
			return notRecorded(err)
		}
	}
	return counterfoil.Refuse(counterfoil.RateLimited, "more than %d such requests of the agent a second", rate)
}

// decision is the entry of a request with a valid token.
func (p *public) decision(r *http.Request, c counterfoil.Caller, tool string) *ledger.Entry {
	set, registry := p.Authority.Policy()
	e := &ledger.Entry{
		Kind: ledger.CallDecided, RequestID: RequestID(r.Context()), Tool: tool,
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
	return e
}

// decide records a decision; why is the refusal, nil where it is allowed. Unless it
// returns nil nothing may be done.
func (p *public) decide(ctx context.Context, e *ledger.Entry, why error) error {
	if why != nil {
		e.Decision, e.Code = ledger.Refuse, counterfoil.CodeOf(why)
		if refusal, ok := counterfoil.AsRefusal(why); ok {
			e.Code, e.Reason = refusal.Recorded(), refusal.Reason()
		}
	}
	if err := p.Recorder.Decide(context.WithoutCancel(ctx), e, nil); err != nil {
		return notRecorded(err)
	}
	return nil
}

// finish records how an allowed request ended. What it did is done and recorded by
// itself: when the entry cannot be written, the answer is still given, the store stops
// being ready by itself, and the next start ends the decision as unknown.
func (p *public) finish(ctx context.Context, of *ledger.Entry, why error) {
	end := &ledger.Entry{
		Kind: ledger.CallFinished, RequestID: of.RequestID, Agent: of.Agent, Instance: of.Instance, Tool: of.Tool,
		Of: of.Index, Outcome: outcomeSucceeded,
	}
	if why != nil {
		end.Outcome, end.Code = ledger.OutcomeUnknown, counterfoil.CodeOf(why)
		if refusal, ok := counterfoil.AsRefusal(why); ok {
			end.Outcome, end.Code, end.Reason = outcomeRefused, refusal.Recorded(), refusal.Reason()
		}
	}
	if err := p.Recorder.Finish(context.WithoutCancel(ctx), end); err != nil {
		p.Logger.ErrorContext(ctx, "recording how a request ended", "request_id", of.RequestID, "entry", of.Index, "outcome", end.Outcome, "err", err)
		p.Tally.Count(counterfoil.CodeOf(notRecorded(err)))
	}
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
