package credential

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	typEvent         = "secevent+jwt"
	typIntrospection = "token-introspection+jwt"

	// MaxEvent is the largest security event that is read, in bytes.
	MaxEvent = 64 << 10

	// MaxEventAge is how old a security event may be. Its id is remembered for as
	// long, so that one that is sent again later is no news by its age.
	MaxEventAge = 30 * 24 * time.Hour
)

// Formats of a SubjectID (RFC 9493, Section 3.2; SSF 1.0, Section 3).
const (
	SubjectEmail   = "email"
	SubjectIssSub  = "iss_sub"
	SubjectOpaque  = "opaque"
	SubjectTokenID = "jwt_id"
	SubjectURI     = "uri"
	SubjectComplex = "complex"
)

// A SubjectID says whom or what an event is about. Of a complex one the members that
// are left out stand for every one of their kind.
type SubjectID struct {
	Format  string `json:"format"`
	Email   string `json:"email,omitzero"`
	Issuer  string `json:"iss,omitzero"`
	Subject string `json:"sub,omitzero"`
	ID      string `json:"id,omitzero"`
	TokenID string `json:"jti,omitzero"`
	URI     string `json:"uri,omitzero"`

	User        *SubjectID `json:"user,omitzero"`
	Session     *SubjectID `json:"session,omitzero"`
	Application *SubjectID `json:"application,omitzero"`
}

// SETClaims are what a security event token says (RFC 8417, Section 2.2; SSF 1.0,
// Section 4): one event about one subject. There is neither sub nor exp, so that it is
// taken for no other kind of JWT (SSF 1.0, Section 4.1.4 and 4.1.7).
type SETClaims struct {
	Issuer   string
	Audience string
	ID       string
	IssuedAt time.Time
	Txn      string // optional

	Subject SubjectID
	Event   string // the event's type, a URI
	Payload any    // its JSON is an object
}

type wireSET struct {
	Issuer   string         `json:"iss"`
	Audience string         `json:"aud"`
	ID       string         `json:"jti"`
	IssuedAt int64          `json:"iat"`
	Txn      string         `json:"txn,omitzero"`
	Subject  SubjectID      `json:"sub_id"`
	Events   map[string]any `json:"events"`
}

// SignSET makes a security event token. By a signer of RS256 the same claims make the
// same text each time (RFC 8017, Section 8.2), so that an event need not be kept to be
// sent again.
func SignSET(s *Signer, c SETClaims) (string, error) {
	if c.Issuer == "" || c.Audience == "" || c.ID == "" || len(c.ID) > maxID || c.IssuedAt.IsZero() || c.Subject.Format == "" || c.Event == "" || c.Payload == nil {
		return "", errors.New("signing an event: everything but txn is needed, and jti in at most 256 bytes")
	}
	return signJWS(s, s.eventHeader, wireSET{
		Issuer: c.Issuer, Audience: c.Audience, ID: c.ID, IssuedAt: c.IssuedAt.Unix(), Txn: c.Txn,
		Subject: c.Subject, Events: map[string]any{c.Event: c.Payload},
	})
}

type setClaims struct {
	Issuer   string         `json:"iss"`
	Audience audience       `json:"aud"`
	ID       string         `json:"jti"`
	IssuedAt date           `json:"iat"`
	Expires  date           `json:"exp"`
	Txn      string         `json:"txn"`
	Subject  jsontext.Value `json:"sub_id"`
	Events   jsontext.Value `json:"events"`
}

// An UnverifiedSET is a security event token that is well formed. What it says is the
// sender's word.
type UnverifiedSET struct {
	jws    jws
	claims setClaims
	set    SET
}

// A SET is verified: that issuer made it for this audience, and it is of our time.
// That its id was not seen before is the store's to say.
type SET struct {
	Issuer   string
	ID       string
	IssuedAt time.Time
	Txn      string

	Subject jsontext.Value // sub_id, an object; nil when there is none
	Event   string
	Payload jsontext.Value // an object
}

func refuseSET(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.RequestMalformed, "the event: "+format, args...)
}

// ParseSET reads a security event token. Its refusals are request_malformed or
// payload_too_large.
func ParseSET(compact string) (UnverifiedSET, error) {
	var none UnverifiedSET
	if len(compact) > MaxEvent {
		return none, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the event is larger than %d bytes", MaxEvent)
	}
	t, _, err := parseJWS(compact, readEvent, nil)
	if err != nil {
		return none, refuseSET("%v", err)
	}
	// SSF 1.0, Section 4.1.6, and RFC 8417, Section 2.3: explicit typing keeps ID
	// tokens, access tokens and assertions of the same issuer out.
	if mediaType(t.header.Typ) != typEvent {
		return none, refuseSET("its typ %.64q is not %s", t.header.Typ, typEvent)
	}
	u := UnverifiedSET{jws: t}
	c := &u.claims
	if err := t.claims(c); err != nil {
		return none, refuseSET("%v", err)
	}
	switch {
	case c.Issuer == "":
		return none, refuseSET("iss is needed")
	case c.ID == "" || len(c.ID) > maxID:
		return none, refuseSET("a jti of 1 to %d bytes is needed", maxID)
	case !c.IssuedAt.set:
		return none, refuseSET("iat is needed")
	case len(c.Txn) > maxID:
		return none, refuseSET("its txn is longer than %d bytes", maxID)
	case c.Subject != nil && c.Subject.Kind() != '{':
		return none, refuseSET("its sub_id is not an object")
	case c.Events == nil || c.Events.Kind() != '{':
		return none, refuseSET("its events are not an object")
	}
	events, err := ijson.Members(c.Events)
	if err != nil {
		return none, refuseSET("its events: %v", err)
	}
	// SSF 1.0, Section 4.1.5: only one event a SET. Of two that contradict each
	// other nobody could say which counts.
	if len(events) != 1 {
		return none, refuseSET("it has %d events, where there is one", len(events))
	}
	u.set = SET{Issuer: c.Issuer, ID: c.ID, IssuedAt: c.IssuedAt.t, Txn: c.Txn, Subject: slices.Clone(c.Subject)}
	for event, payload := range events {
		if event == "" || len(event) > 4*maxID || payload.Kind() != '{' {
			return none, refuseSET("its event is not a type with an object")
		}
		u.set.Event, u.set.Payload = event, payload
	}
	return u, nil
}

// KeyID returns the kid of the header, if any: the sender's word.
func (u UnverifiedSET) KeyID() string { return u.jws.header.Kid }

// Algorithm returns the name that the header gives the signature's algorithm: the
// sender's word.
func (u UnverifiedSET) Algorithm() string { return u.jws.header.Alg }

// ClaimedIssuer returns iss: the sender's word.
func (u UnverifiedSET) ClaimedIssuer() string { return u.claims.Issuer }

// ClaimedID returns jti: the sender's word.
func (u UnverifiedSET) ClaimedID() string { return u.claims.ID }

// Check verifies the event under a key of its issuer, for this audience. Its refusals
// are token_malformed (the signature), token_issuer, token_audience and
// token_expired (its time).
func (u UnverifiedSET) Check(key PublicKey, issuer, audience string, now time.Time) (SET, error) {
	c := &u.claims
	if err := key.Verify(u.jws.input, u.jws.sig, u.jws.header.Alg); err != nil {
		return SET{}, counterfoil.Refuse(counterfoil.TokenMalformed, "the event: its signature does not verify")
	}
	switch {
	case c.Issuer != issuer || issuer == "":
		return SET{}, counterfoil.Refuse(counterfoil.TokenIssuer, "the event's iss %.128q is not %q", c.Issuer, issuer)
	// RFC 8417, Section 2.2: an event may be for several; we have to be one.
	case audience == "" || !slices.Contains(c.Audience, audience):
		return SET{}, counterfoil.Refuse(counterfoil.TokenAudience, "the event is not for %q", audience)
	case c.IssuedAt.t.After(now.Add(Ahead)):
		return SET{}, counterfoil.Refuse(counterfoil.TokenExpired, "the event is dated %s; it is %s here", stamp(c.IssuedAt.t), stamp(now))
	case !now.Before(c.IssuedAt.t.Add(MaxEventAge)):
		return SET{}, counterfoil.Refuse(counterfoil.TokenExpired, "the event is of %s, longer ago than %v", stamp(c.IssuedAt.t), MaxEventAge)
	// Events have no exp (SSF 1.0, Section 4.1.7). Where one is there it is meant.
	case c.Expires.set && !now.Before(c.Expires.t.Add(Ahead)):
		return SET{}, counterfoil.Refuse(counterfoil.TokenExpired, "the event expired at %s; it is %s here", stamp(c.Expires.t), stamp(now))
	}
	return u.set, nil
}

// SignIntrospection makes the JWT form of an introspection answer (RFC 9701, Section
// 5) for the one who asked. The answer is an object, and is all within one claim: at
// the top there is neither sub nor exp, so that it is taken for no access token.
func SignIntrospection(s *Signer, issuer, audience string, now time.Time, answer any) (string, error) {
	if issuer == "" || audience == "" || answer == nil {
		return "", errors.New("signing an introspection: issuer, audience and an answer are needed")
	}
	raw, err := ijson.Marshal(answer)
	if err != nil {
		return "", fmt.Errorf("encoding an introspection: %w", err)
	}
	if !strings.HasPrefix(string(raw), "{") {
		return "", errors.New("signing an introspection: the answer is not an object")
	}
	return signJWS(s, s.introspectionHeader, struct {
		Issuer   string         `json:"iss"`
		Audience string         `json:"aud"`
		IssuedAt int64          `json:"iat"`
		Answer   jsontext.Value `json:"token_introspection"`
	}{issuer, audience, now.Unix(), raw})
}
