package resource

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// An Outside verifies the tokens of issuers that are not ours.
type Outside interface {
	// Attest verifies a JWT (RFC 7519) of the issuer that b names, for b's subject
	// and, where b names no audience, for the given one. It returns what the token
	// says of itself: TokenID, Issued and Expires; the rest of the Caller is not
	// read. A refusal says that the token is none of these; a fault that the
	// issuer's keys cannot be known now. Safe for concurrent use.
	Attest(ctx context.Context, token string, b *counterfoil.Bearer, audience string, now time.Time) (counterfoil.Caller, error)
}

const (
	// MinBearerKey is how many bytes a static key has at least: what is shorter can
	// be guessed from the digest that records name it by.
	MinBearerKey = 16

	// staticLife is how long the check of a static key counts. The key itself has no
	// end.
	staticLife = 5 * time.Minute
)

// errBearer marks the refusal of a bearer credential, whose challenge names the
// scheme that was used beside the one to use (RFC 9449, Section 7.2).
var errBearer = errors.New("a bearer credential")

type badBearer struct{ *counterfoil.Refusal }

func (badBearer) Is(target error) bool { return target == errBearer }
func (b badBearer) Unwrap() error      { return b.Refusal }

// bearerToken returns what follows the scheme Bearer in the one Authorization
// header; ok is false where there is another scheme, or not one header.
func bearerToken(h http.Header) (token string, ok bool) {
	values := h["Authorization"]
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	return strings.TrimLeft(token, " "), strings.EqualFold(scheme, "Bearer")
}

// checkBearer is Check for a request without a key.
//
// What is bound to a key is never taken here, in no mode (RFC 9449, Section 7.2):
// neither a token of our own, however it is declared, nor anybody's that has a cnf,
// nor anything that comes beside a proof, whose sender has a key and is to use it.
func (v *Verifier) checkBearer(ctx context.Context, r *Request, token string, now time.Time) (counterfoil.Caller, error) {
	var none counterfoil.Caller
	if r.Binding != counterfoil.BindingObserve && r.Binding != counterfoil.BindingPrefer {
		return none, counterfoil.Refuse(counterfoil.BearerRefused, "send Authorization: DPoP with a proof; bearer is not taken")
	}
	if len(r.Header["Dpop"]) > 0 {
		return none, counterfoil.Refuse(counterfoil.BearerRefused, "there is a DPoP proof: send Authorization: DPoP with it")
	}
	if !token68(token) {
		return none, counterfoil.Refuse(counterfoil.RequestMalformed, "the Authorization header is not Bearer and one token")
	}
	if len(token) > credential.MaxToken {
		return none, counterfoil.Refuse(counterfoil.BearerRefused, "the bearer credential is longer than %d bytes", credential.MaxToken)
	}
	says := peekJWT(token)
	if says.bound || says.jwt && v.isOurs(says.issuer) {
		return none, counterfoil.Refuse(counterfoil.BearerRefused, "a token that is bound to a key, or that %s made, is taken with a proof of the key alone", v.Issuer)
	}
	caller, err := staticKey(r, token, now)
	if err == nil && caller.Agent == "" {
		caller, err = v.outside(ctx, r, token, says, now)
	}
	if refusal, ok := counterfoil.AsRefusal(err); ok {
		return none, badBearer{refusal}
	}
	if err != nil {
		return none, err
	}
	caller.Audience, caller.Subject, caller.Binding = r.Resource, caller.Agent, counterfoil.NotBound
	if err := v.Revocation.Revoked(ctx, caller); err != nil {
		return caller, err
	}
	return caller, nil
}

// isOurs reports whether an issuer is us, also where it is written in a way that
// others might take for us.
func (v *Verifier) isOurs(issuer string) bool {
	return strings.EqualFold(strings.TrimRight(issuer, "/"), strings.TrimRight(v.Issuer, "/"))
}

// staticKey returns the caller whose declared key the token is, and a Caller without
// an agent where it is nobody's. Every key is compared, in constant time each.
func staticKey(r *Request, token string, now time.Time) (counterfoil.Caller, error) {
	var found *counterfoil.Bearer
	sum := sha256.Sum256([]byte(token))
	digest := "sha-256:" + credential.EncodeHash(sum)
	for i := range r.Bearers {
		b := &r.Bearers[i]
		if b.Key == "" || b.Agent == "" || subtle.ConstantTimeCompare([]byte(b.Key), []byte(digest)) != 1 {
			continue
		}
		if found != nil && found.Agent != b.Agent {
			return counterfoil.Caller{}, counterfoil.Refuse(counterfoil.BearerRefused, "the key is declared for two agents, so that it says nothing of who calls")
		}
		found = b
	}
	switch {
	case found == nil:
		return counterfoil.Caller{}, nil
	case len(token) < MinBearerKey:
		return counterfoil.Caller{}, counterfoil.Refuse(counterfoil.BearerRefused, "the key is shorter than %d bytes", MinBearerKey)
	}
	return counterfoil.Caller{Agent: found.Agent, Bearer: found.Label(), TokenID: digest, Expires: now.Add(staticLife)}, nil
}

// outside returns the caller that a token of an outside issuer is declared for. Which
// declaration is looked at is the token's own word; that it is true is what is
// checked then. Nothing is fetched for a token that nobody declared.
func (v *Verifier) outside(ctx context.Context, r *Request, token string, says jwtClaims, now time.Time) (counterfoil.Caller, error) {
	err := error(counterfoil.Refuse(counterfoil.BearerRefused, "the bearer credential is none that is declared here"))
	if !says.jwt || says.issuer == "" || says.subject == "" || v.Outside == nil {
		return counterfoil.Caller{}, err
	}
	for i := range r.Bearers {
		b := &r.Bearers[i]
		if b.Key != "" || b.Agent == "" || b.Issuer != says.issuer || b.Subject != says.subject {
			continue
		}
		var is counterfoil.Caller
		if is, err = v.Outside.Attest(ctx, token, b, r.Resource, now); err != nil {
			continue
		}
		id := is.TokenID
		if id == "" {
			id = "sha-256:" + credential.EncodeHash(sha256.Sum256([]byte(token)))
		}
		return counterfoil.Caller{Agent: b.Agent, Bearer: b.Label(), TokenID: id, Issued: is.Issued, Expires: is.Expires}, nil
	}
	return counterfoil.Caller{}, err
}

// jwtClaims are what a token says of itself before anything is verified.
type jwtClaims struct {
	jwt             bool
	bound           bool // to a key, or not to be read in one way only
	issuer, subject string
}

// peekJWT reads a token as a JWT. What has the form of one and claims that two parsers
// may read differently counts as bound: the other reading may have a cnf.
func peekJWT(token string) jwtClaims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return jwtClaims{}
	}
	header, err := decodePart(parts[0])
	if err != nil || jsontext.Value(header).Kind() != '{' {
		return jwtClaims{}
	}
	payload, err := decodePart(parts[1])
	if err != nil {
		return jwtClaims{}
	}
	says := jwtClaims{jwt: true, bound: true}
	var claims struct {
		Issuer  string         `json:"iss"`
		Subject string         `json:"sub"`
		Cnf     jsontext.Value `json:"cnf"`
	}
	if ijson.Check(header) != nil || ijson.UnmarshalLax(payload, &claims) != nil {
		return says
	}
	says.bound, says.issuer, says.subject = claims.Cnf != nil, claims.Issuer, claims.Subject
	return says
}

// decodePart decodes base64url as leniently as anybody who might take the token.
func decodePart(part string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
}
