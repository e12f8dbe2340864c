package authority

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// Content types of an introspection's answer (RFC 7662, Section 2.2; RFC 9701, Section
// 5).
const (
	IntrospectionJSON = "application/json"
	IntrospectionJWT  = "application/token-introspection+jwt"
)

// An Introspection is the answer of an introspection, as it is sent.
type Introspection struct {
	Body        []byte
	ContentType string
}

// introspected is what is said of a token (RFC 7662, Section 2.2; RFC 9449, Section
// 6.2; RFC 9396, Section 9.2). Of an inactive one nothing but that is said.
type introspected struct {
	Active     bool                     `json:"active"`
	Issuer     string                   `json:"iss,omitzero"`
	Subject    string                   `json:"sub,omitzero"`
	Audience   string                   `json:"aud,omitzero"`
	ClientID   string                   `json:"client_id,omitzero"`
	Scope      string                   `json:"scope,omitzero"`
	IssuedAt   int64                    `json:"iat,omitzero"`
	NotBefore  int64                    `json:"nbf,omitzero"`
	Expires    int64                    `json:"exp,omitzero"`
	ID         string                   `json:"jti,omitzero"`
	TokenType  string                   `json:"token_type,omitzero"`
	Cnf        *confirmation            `json:"cnf,omitzero"`
	SubProfile string                   `json:"sub_profile,omitzero"`
	Details    []counterfoil.ToolDetail `json:"authorization_details,omitzero"`
	Task       *taskClaim               `json:"task,omitzero"`
	Agent      *credential.AgentClaim   `json:"agent,omitzero"`
}

type confirmation struct {
	JKT string `json:"jkt"`
}

type taskClaim struct {
	ID      string `json:"id"`
	Expires int64  `json:"exp"`
}

// Introspect says whether a token is good now, and what it is (RFC 7662), to its own
// agent and to those that the manifest of its resource names as its servers. To
// everybody else a token is as one that is not: nobody learns of it by asking. The
// assertion is used up with the entry before anything is said.
func (a *Authority) Introspect(ctx context.Context, req ClientRequest) (Introspection, error) {
	q, err := a.inquire(ctx, counterfoil.IntrospectPath, &req)
	if err != nil {
		return Introspection{}, err
	}
	token, why, err := a.inspect(ctx, q.token)
	if err != nil {
		return Introspection{}, err
	}
	if why == "" {
		err := a.cfg.Revocation.Revoked(ctx, callerOf(&token))
		if r, refused := counterfoil.AsRefusal(err); refused {
			why = r.Recorded()
		} else if err != nil {
			return Introspection{}, err
		}
	}
	if why == "" && !a.mayKnow(q.who.agent.Name, &token) {
		why = counterfoil.TokenAudience
	}
	e := q.entry(ledger.TokenIntrospected)
	e.TokenJTI, e.Detail["active"] = token.ID, why == ""
	if why != "" {
		e.Detail["why"] = string(why) // never to who asks
	}
	if err := a.cfg.Store.UseAssertion(ctx, q.use(), q.who.live(), e); err != nil {
		return Introspection{}, a.refusedInquiry(ctx, q, err)
	}
	answer := introspected{}
	if why == "" {
		answer = introspectionOf(&token)
	}
	return a.introspection(q, answer)
}

// mayKnow reports whether an agent may be told of a token: its own, or one for a
// resource that it speaks for.
func (a *Authority) mayKnow(agent string, t *credential.Token) bool {
	if t.Agent.ID == agent {
		return true
	}
	_, registry := a.Policy()
	found, ok := a.findTarget(registry, t.Audience)
	return ok && slices.Contains(found.resource.Servers, agent)
}

func introspectionOf(t *credential.Token) introspected {
	out := introspected{
		Active: true, Issuer: t.Issuer, Subject: t.Subject, Audience: t.Audience, ClientID: t.ClientID,
		Scope: strings.Join(t.Scope, " "), IssuedAt: t.IssuedAt.Unix(), NotBefore: t.NotBefore.Unix(), Expires: t.Expires.Unix(),
		ID: t.ID, TokenType: "DPoP", Cnf: &confirmation{t.JKT}, SubProfile: t.SubProfile, Details: t.Details, Agent: &t.Agent,
	}
	if t.Task != nil {
		out.Task = &taskClaim{t.Task.ID, t.Task.Expires.Unix()}
	}
	return out
}

// introspection writes the answer. Its JWT is for who asked, by the very key that
// access tokens are signed with; its type keeps it from being taken for one (RFC 9701,
// Section 8.1).
func (a *Authority) introspection(q *inquiry, answer introspected) (Introspection, error) {
	if q.req.JWT {
		compact, err := credential.SignIntrospection(a.cfg.Keys.Signer(), a.cfg.Issuer, q.who.agent.Name, q.now, answer)
		if err != nil {
			return Introspection{}, err
		}
		return Introspection{[]byte(compact), IntrospectionJWT}, nil
	}
	body, err := ijson.Marshal(answer)
	if err != nil {
		return Introspection{}, fmt.Errorf("encoding an introspection: %w", err)
	}
	return Introspection{body, IntrospectionJSON}, nil
}
