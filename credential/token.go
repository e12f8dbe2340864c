package credential

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

const typToken = "at+jwt"

// SubProfileAgent is the sub_profile of a token whose subject is the agent
// itself.
const SubProfileAgent = "ai_agent"

// TokenClaims are what an access token says (RFC 9068; RFC 9449, Section 6.1;
// RFC 9396). Its times are whole seconds.
type TokenClaims struct {
	Issuer   string
	Audience string // the resource, one alone
	Subject  string // whom the agent acts for; the agent itself when for itself
	ClientID string // the agent
	ID       string

	IssuedAt  time.Time
	NotBefore time.Time
	Expires   time.Time

	Scope   []string // names of tools
	Details []counterfoil.ToolDetail

	JKT        string // thumbprint of the key that the token is bound to
	SubProfile string

	Task  *TaskClaim // nil: no task
	Agent AgentClaim
}

// A TaskClaim names the task that a token is for.
type TaskClaim struct {
	ID      string
	Expires time.Time
}

// An AgentClaim is the agent's state when the token was made.
type AgentClaim struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
	Env      string `json:"env"`
	Epoch    int64  `json:"epoch"`
}

// wireToken is the JSON of a token that is made.
type wireToken struct {
	Issuer     string                   `json:"iss"`
	Audience   string                   `json:"aud"`
	Subject    string                   `json:"sub"`
	ClientID   string                   `json:"client_id"`
	IssuedAt   int64                    `json:"iat"`
	NotBefore  int64                    `json:"nbf"`
	Expires    int64                    `json:"exp"`
	ID         string                   `json:"jti"`
	Scope      string                   `json:"scope,omitzero"`
	Details    []counterfoil.ToolDetail `json:"authorization_details,omitzero"`
	Cnf        wireCnf                  `json:"cnf"`
	SubProfile string                   `json:"sub_profile,omitzero"`
	Task       *wireTask                `json:"task,omitzero"`
	Agent      AgentClaim               `json:"agent"`
}

type wireCnf struct {
	JKT string `json:"jkt"`
}

type wireTask struct {
	ID      string `json:"id"`
	Expires int64  `json:"exp"`
}

// tokenClaims is the JSON of a token that is read. Members within cnf,
// authorization_details, task and agent bound what the token allows, so that
// an unknown one there is refused; at the top RFC 7519, Section 4, has unknown
// claims ignored.
type tokenClaims struct {
	Issuer     string         `json:"iss"`
	Audience   audience       `json:"aud"`
	Subject    string         `json:"sub"`
	ClientID   string         `json:"client_id"`
	IssuedAt   date           `json:"iat"`
	NotBefore  date           `json:"nbf"`
	Expires    date           `json:"exp"`
	ID         string         `json:"jti"`
	Scope      string         `json:"scope"`
	Details    jsontext.Value `json:"authorization_details"`
	Cnf        jsontext.Value `json:"cnf"`
	SubProfile string         `json:"sub_profile"`
	Task       jsontext.Value `json:"task"`
	Agent      jsontext.Value `json:"agent"`
}

// An UnverifiedToken is an access token that is well formed. What it says is
// the sender's word.
type UnverifiedToken struct {
	jws    jws
	claims TokenClaims
	aud    audience
}

// A Token is verified: this issuer made it for this audience, and it is within
// its time. That it comes with a proof of its key, and that it is not revoked,
// is for the caller to ask.
type Token struct{ TokenClaims }

func refuseToken(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.TokenMalformed, "the access token: "+format, args...)
}

// SignToken makes an access token (RFC 9068). Every claim but the scope, the
// details, the profile and the task is needed.
func SignToken(s *Signer, c TokenClaims) (string, error) {
	if err := c.complete(); err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	for _, t := range c.Scope {
		// RFC 6749, Section 3.3: scope-token.
		if t == "" || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return "", fmt.Errorf("signing a token: scope token %.64q", t)
		}
	}
	w := wireToken{
		Issuer: c.Issuer, Audience: c.Audience, Subject: c.Subject, ClientID: c.ClientID, ID: c.ID,
		IssuedAt: c.IssuedAt.Unix(), NotBefore: c.NotBefore.Unix(), Expires: c.Expires.Unix(),
		Scope: strings.Join(c.Scope, " "), Details: c.Details,
		Cnf: wireCnf{c.JKT}, SubProfile: c.SubProfile, Agent: c.Agent,
	}
	if c.Task != nil {
		w.Task = &wireTask{c.Task.ID, c.Task.Expires.Unix()}
	}
	return signJWS(s, s.tokenHeader, w)
}

// complete reports which claim that every token has is missing (RFC 9068,
// Section 2.2; RFC 9449, Section 6.1).
func (c *TokenClaims) complete() error {
	for _, m := range [...]struct{ name, value string }{
		{"iss", c.Issuer}, {"aud", c.Audience}, {"sub", c.Subject}, {"client_id", c.ClientID}, {"jti", c.ID},
		{"cnf.jkt", c.JKT}, {"agent.id", c.Agent.ID}, {"agent.instance", c.Agent.Instance}, {"agent.env", c.Agent.Env},
	} {
		if m.value == "" {
			return fmt.Errorf("%s is needed", m.name)
		}
	}
	switch {
	case c.IssuedAt.IsZero() || c.NotBefore.IsZero() || c.Expires.IsZero():
		return errors.New("iat, nbf and exp are needed")
	case c.Agent.ID != c.ClientID:
		return errors.New("client_id and agent.id are not the same")
	case c.Agent.Epoch <= 0:
		return errors.New("agent.epoch is needed")
	case c.Task != nil && (c.Task.ID == "" || c.Task.Expires.IsZero()):
		return errors.New("task.id and task.exp are needed")
	}
	return nil
}

// ParseToken reads an access token in the form that SignToken makes.
func ParseToken(compact string) (UnverifiedToken, error) {
	return (*Headers)(nil).ParseToken(compact)
}

// ParseToken is the function of that name, with the headers that are known.
func (h *Headers) ParseToken(compact string) (UnverifiedToken, error) {
	var none UnverifiedToken
	if len(compact) > MaxToken {
		return none, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the access token is larger than %d bytes", MaxToken)
	}
	t, _, err := parseJWS(compact, readKeyless, h)
	if err != nil {
		return none, refuseToken("%v", err)
	}
	// RFC 9068, Section 4: typ is at+jwt or application/at+jwt and nothing
	// else. This keeps assertions, proofs and ID tokens out.
	if t.header.Typ != typToken && t.header.Typ != "application/"+typToken {
		return none, refuseToken("its typ %.64q is not %s", t.header.Typ, typToken)
	}
	if t.header.Kid == "" {
		return none, refuseToken("its header has no kid")
	}
	var c tokenClaims
	if err := t.claims(&c); err != nil {
		return none, refuseToken("%v", err)
	}
	u := UnverifiedToken{jws: t, aud: c.Audience}
	if err := c.decode(&u.claims); err != nil {
		return none, refuseToken("%v", err)
	}
	return u, nil
}

// decode turns the JSON into claims.
func (c *tokenClaims) decode(out *TokenClaims) error {
	*out = TokenClaims{
		Issuer: c.Issuer, Subject: c.Subject, ClientID: c.ClientID, ID: c.ID,
		IssuedAt: c.IssuedAt.t, NotBefore: c.NotBefore.t, Expires: c.Expires.t,
		SubProfile: c.SubProfile,
	}
	if len(c.Audience) > 0 {
		out.Audience = c.Audience[0]
	}
	if !c.IssuedAt.set || !c.NotBefore.set || !c.Expires.set {
		return errors.New("iat, nbf and exp are needed")
	}
	if c.Scope != "" {
		out.Scope = strings.Split(c.Scope, " ")
	}
	var cnf wireCnf
	if err := strictly("cnf", c.Cnf, &cnf); err != nil {
		return err
	}
	out.JKT = cnf.JKT
	if err := strictly("agent", c.Agent, &out.Agent); err != nil {
		return err
	}
	if c.Details != nil {
		if err := strictly("authorization_details", c.Details, &out.Details); err != nil {
			return err
		}
	}
	if c.Task != nil {
		var task wireTask
		if err := strictly("task", c.Task, &task); err != nil {
			return err
		}
		out.Task = &TaskClaim{task.ID, time.Unix(task.Expires, 0)}
	}
	return out.complete()
}

var noUnknown = json.RejectUnknownMembers(true)

// strictly decodes a claim whose unknown members are refused, because what is
// not understood may be a restriction.
func strictly(name string, v jsontext.Value, out any) error {
	if v == nil || v.Kind() == 'n' {
		return fmt.Errorf("%s is needed", name)
	}
	// The claims it is part of passed ijson.Check.
	if err := json.Unmarshal(v, out, noUnknown); err != nil {
		return fmt.Errorf("its %s: %w", name, ijson.Explain(err))
	}
	return nil
}

// KeyID returns the kid of the header: the sender's word.
func (t UnverifiedToken) KeyID() string { return t.jws.header.Kid }

// ClaimedIssuer returns iss: the sender's word.
func (t UnverifiedToken) ClaimedIssuer() string { return t.claims.Issuer }

// Check verifies the token: signature, issuer, audience and time (RFC 9068,
// Section 4).
func (t UnverifiedToken) Check(key PublicKey, issuer, audience string, now time.Time) (Token, error) {
	s, err := t.CheckSignature(key)
	if err != nil {
		return Token{}, err
	}
	return s.Check(issuer, audience, now)
}

// A SignedToken is an access token whose signature verified, and nothing else:
// it may be of another issuer, for another resource, or past. A verifier may
// keep it, as none of that changes, and checks it again each time.
type SignedToken struct {
	claims TokenClaims
	aud    audience
	kid    string // the thumbprint of the key that verified it
}

// CheckSignature verifies the signature alone.
func (t UnverifiedToken) CheckSignature(key PublicKey) (SignedToken, error) {
	if err := key.Verify(t.jws.input, t.jws.sig, t.jws.header.Alg); err != nil {
		return SignedToken{}, refuseToken("its signature does not verify")
	}
	return SignedToken{claims: t.claims, aud: t.aud, kid: key.Thumbprint()}, nil
}

// SignedBy returns the thumbprint of the key that verified the signature.
func (t SignedToken) SignedBy() string { return t.kid }

// ClaimedExpiry returns exp, which Check compares with the time.
func (t SignedToken) ClaimedExpiry() time.Time { return t.claims.Expires }

// Check does what the signature does not.
func (t *SignedToken) Check(issuer, audience string, now time.Time) (Token, error) {
	c := &t.claims
	switch {
	// RFC 9068, Section 4: iss exactly. Two issuers may have keys of the same
	// kid, so that a good signature says nothing about it.
	case c.Issuer != issuer || issuer == "":
		return Token{}, counterfoil.Refuse(counterfoil.TokenIssuer, "the access token's iss %.128q is not %q", c.Issuer, issuer)
	// aud is this resource and no other: a token for two could be replayed by
	// the one at the other.
	case !t.aud.only(audience):
		return Token{}, counterfoil.Refuse(counterfoil.TokenAudience, "the access token is not for %q alone", audience)
	case !now.Before(c.Expires):
		return Token{}, counterfoil.Refuse(counterfoil.TokenExpired, "the access token expired at %s; it is %s here", stamp(c.Expires), stamp(now))
	case c.NotBefore.After(now.Add(Ahead)) || c.IssuedAt.After(now.Add(Ahead)):
		return Token{}, counterfoil.Refuse(counterfoil.TokenExpired, "the access token is not valid before %s; it is %s here", stamp(c.NotBefore), stamp(now))
	}
	return Token{*c}, nil
}
