package authority

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ledger"
)

// A ClientRequest is what an authenticated client asks about a token, by introspection
// (RFC 7662) or revocation (RFC 7009), as it came: nothing in it is verified.
type ClientRequest struct {
	Form          url.Values // the body's parameters, and nothing else's
	Authorization []string   // the values of the Authorization header, which has no use here
	Source        netip.Addr // the zero Addr is unknown
	RequestID     string
	JWT           bool // of introspection: the answer as a JWT is wanted (RFC 9701)
}

// An inquiry is such a request on its way.
type inquiry struct {
	req      *ClientRequest
	endpoint string // the path
	now      time.Time
	who      client // filled once the agent authenticated
	token    string
}

// inquire authenticates the client of a request about a token by the checks of the
// token endpoint, all of them but the proof: no token is issued, so there is no key to
// bind one to. What uses up the assertion is the commit of what follows.
func (a *Authority) inquire(ctx context.Context, endpoint string, req *ClientRequest) (*inquiry, error) {
	q := &inquiry{req: req, endpoint: endpoint, now: a.cfg.Now()}
	if err := a.admit(q); err != nil {
		return nil, a.refusedInquiry(ctx, q, err)
	}
	return q, nil
}

func (a *Authority) admit(q *inquiry) error {
	if a.cfg.Tokens == nil || a.cfg.Revocation == nil {
		return fmt.Errorf("answering %s: nobody is there who checks tokens", q.endpoint)
	}
	if !a.sources.Take(AddressKey(q.req.Source), q.now, 0) {
		return counterfoil.Refuse(counterfoil.RateLimited, "too many refused requests from this address")
	}
	if err := oneMethod(q.req.Form, q.req.Authorization); err != nil {
		return err
	}
	if err := once(q.req.Form); err != nil {
		return err
	}
	var f clientForm
	if err := f.parseClient(q.req.Form); err != nil {
		return err
	}
	// RFC 7662, Section 2.1, and RFC 7009, Section 2.1: the one parameter that is
	// required. What it holds is looked at only after the client authenticated.
	if q.token = q.req.Form.Get("token"); q.token == "" {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "token is missing")
	}
	var err error
	q.who, err = a.authenticate(f, nil, q.now)
	// The rate comes before what a suspended agent is told: that has an entry.
	if q.authenticated() && !a.agents.Take(q.who.agent.Name, q.now, 1) {
		return counterfoil.Refuse(counterfoil.RateLimited, "more than %d requests a second", agentRate)
	}
	return err
}

func (q *inquiry) authenticated() bool { return q.who.agent != nil }

// use is of the assertion that authenticated.
func (q *inquiry) use() counterfoil.AssertionUse {
	return counterfoil.AssertionUse{Agent: q.who.agent.Name, ID: q.who.assertion.ID, Until: q.who.assertion.Expires}
}

// entry begins the entry of an inquiry with all that is verified so far.
func (q *inquiry) entry(kind ledger.Kind) *ledger.Entry {
	e := &ledger.Entry{Kind: kind, RequestID: q.req.RequestID, Source: source(q.req.Source), Detail: map[string]any{"endpoint": q.endpoint}}
	if q.authenticated() {
		e.Agent, e.Owner, e.Instance = q.who.agent.Name, q.who.agent.Owner, q.who.instance.ID
		e.JKT, e.Epoch = q.who.assertion.KeyThumbprint, q.who.state.Epoch
		e.Source.Environment = q.who.agent.Environment
	}
	return e
}

// refusedInquiry records a refusal like that of a token request: in the aggregate
// before the agent authenticated, with an entry of its own after it.
func (a *Authority) refusedInquiry(ctx context.Context, q *inquiry, err error) error {
	r, ok := counterfoil.AsRefusal(err)
	if !ok {
		return err
	}
	if !q.authenticated() || r.Code == counterfoil.RateLimited {
		a.refusedBefore(q.req.Source, q.now, r)
		return err
	}
	e := q.entry(ledger.TokenRefused)
	e.Decision, e.Code, e.Reason = ledger.Refuse, r.Recorded(), r.Reason()
	if ferr := a.cfg.Store.Append(ctx, e); ferr != nil {
		return ferr
	}
	if r.Code == counterfoil.ClientRefused {
		return credential.RefuseClient(r.Recorded()) // ended on its way: as an agent that never was
	}
	return err
}

// inspect returns the token that was presented; ok is false for what is none of ours,
// or past its time. Whether it is revoked is another question.
func (a *Authority) inspect(ctx context.Context, compact string) (t credential.Token, why counterfoil.Code, err error) {
	t, err = a.cfg.Tokens.Inspect(ctx, compact)
	if r, refused := counterfoil.AsRefusal(err); refused {
		return credential.Token{}, r.Recorded(), nil
	}
	return t, "", err
}

// callerOf is who would call with a token, as far as the token says it: what is revoked
// is asked of it.
func callerOf(t *credential.Token) counterfoil.Caller {
	c := counterfoil.Caller{
		Agent: t.Agent.ID, Instance: t.Agent.Instance, Environment: t.Agent.Env, Epoch: t.Agent.Epoch, Subject: t.Subject,
		Audience: t.Audience, TokenID: t.ID, Scope: t.Scope, Details: t.Details, Issued: t.IssuedAt, Expires: t.Expires, JKT: t.JKT,
	}
	if t.Task != nil {
		c.Task = t.Task.ID
	}
	return c
}
