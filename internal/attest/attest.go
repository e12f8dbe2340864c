package attest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	// ahead is how far an issuer's clock may be before ours.
	ahead = 10 * time.Second

	// maxLife is how long a token may be good from its making on. What is good for
	// longer is a static key, and is declared as one.
	maxLife = 366 * 24 * time.Hour

	// maxToken is the length of a token, in bytes.
	maxToken = 8 << 10
)

// A Config is what Issuers are made of. Its fields must be set.
type Config struct {
	// Fetch gets the JWK set at a URL of a declaration, through the outbound guard,
	// at most maxKeySet bytes of it.
	Fetch func(ctx context.Context, url string, most int64) (body []byte, err error)
}

// Issuers verify the tokens of issuers that are not ours. Safe for concurrent use.
type Issuers struct {
	cfg  Config
	sets keySets
}

// New makes Issuers that know no keys yet.
func New(cfg Config) (*Issuers, error) {
	if cfg.Fetch == nil {
		return nil, errors.New("making the verifier of outside tokens: a part that it needs is missing")
	}
	return &Issuers{cfg: cfg}, nil
}

// A header is what a token's JOSE header says. Its algorithm is a claim until the key
// agrees.
type header struct {
	Alg  string         `json:"alg"`
	KID  string         `json:"kid"`
	Typ  string         `json:"typ"`
	Crit jsontext.Value `json:"crit"`
	B64  jsontext.Value `json:"b64"`
	Zip  jsontext.Value `json:"zip"`
}

// types are the typ values of tokens that may be access tokens of somebody: of RFC
// 9068, of RFC 7519, of a JWT-SVID, and none. A proof, an event, a client assertion or
// a logout token names its own and is none of these.
var types = map[string]bool{"": true, "jwt": true, "jose": true, "at+jwt": true}

func refuse(code counterfoil.Code, format string, args ...any) error {
	return counterfoil.Refuse(code, "the bearer token: "+format, args...)
}

// Attest verifies a token of the issuer that b names, for b's subject and b's audience
// or, where b has none, the given one. The Caller has its TokenID (the jti, empty
// without one), Issued and Expires, and nothing else.
//
// The refusals are token_malformed, token_issuer, token_audience, token_expired and
// bearer_refused; the fault is upstream_unavailable: the issuer's keys cannot be had.
func (s *Issuers) Attest(ctx context.Context, token string, b *counterfoil.Bearer, audience string, now time.Time) (counterfoil.Caller, error) {
	var none counterfoil.Caller
	if b == nil || b.Issuer == "" || b.Subject == "" {
		return none, refuse(counterfoil.BearerRefused, "nobody declared whose tokens are taken")
	}
	if len(token) > maxToken {
		return none, refuse(counterfoil.TokenMalformed, "it is longer than %d bytes", maxToken)
	}
	// RFC 8725, Section 3.1: the algorithms are ours to choose. HMAC is none of them:
	// with it a public key would be a secret.
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return none, refuse(counterfoil.TokenMalformed, "it is no compact JWS by an algorithm that is taken")
	}
	h, err := readHeader(token)
	if err != nil {
		return none, err
	}
	// What the token says of its issuer chooses nothing: the declaration's keys are
	// asked for.
	keys, err := s.keys(ctx, b, h.KID, now)
	if err != nil {
		return none, err
	}
	payload, ok := verify(jws, keys, h.Alg)
	if !ok {
		return none, refuse(counterfoil.TokenMalformed, "its signature is by no key of %s", b.Issuer)
	}
	if b.Audience != "" {
		audience = b.Audience
	}
	return checkClaims(payload, b, audience, now)
}

func readHeader(token string) (header, error) {
	var h header
	part, _, _ := strings.Cut(token, ".")
	raw, err := decode(part)
	if err != nil || ijson.UnmarshalLax(raw, &h) != nil {
		return h, refuse(counterfoil.TokenMalformed, "its header is not strict JSON")
	}
	switch {
	// RFC 7515, Section 4.1.11: an extension that is not understood is refused, and
	// none is.
	case h.Crit != nil, h.B64 != nil, h.Zip != nil:
		return h, refuse(counterfoil.TokenMalformed, "its header has an extension that is not understood")
	// RFC 8725, Section 3.11: explicit types keep kinds of JWT apart.
	case !types[strings.TrimPrefix(strings.ToLower(h.Typ), "application/")]:
		return h, refuse(counterfoil.TokenMalformed, "its type %.64q is not that of an access token", h.Typ)
	}
	return h, nil
}

// verify returns the payload when one of the keys signed it.
func verify(jws *jose.JSONWebSignature, keys []key, alg string) ([]byte, bool) {
	for i := range keys {
		if !keys[i].suits(alg) {
			continue
		}
		if payload, err := jws.Verify(keys[i].public); err == nil {
			return payload, true
		}
	}
	return nil, false
}

type claims struct {
	Issuer    string         `json:"iss"`
	Subject   string         `json:"sub"`
	Audience  jsontext.Value `json:"aud"`
	Expires   jsontext.Value `json:"exp"`
	NotBefore jsontext.Value `json:"nbf"`
	IssuedAt  jsontext.Value `json:"iat"`
	ID        string         `json:"jti"`

	// What access tokens have not.
	Cnf    jsontext.Value `json:"cnf"`     // bound to a key: RFC 7800
	Events jsontext.Value `json:"events"`  // a security event: RFC 8417; a logout token
	HTM    jsontext.Value `json:"htm"`     // a DPoP proof
	Nonce  jsontext.Value `json:"nonce"`   // an ID token
	AtHash jsontext.Value `json:"at_hash"` // an ID token
	CHash  jsontext.Value `json:"c_hash"`  // an ID token
}

func checkClaims(payload []byte, b *counterfoil.Bearer, audience string, now time.Time) (counterfoil.Caller, error) {
	var none counterfoil.Caller
	var c claims
	if err := ijson.UnmarshalLax(payload, &c); err != nil {
		return none, refuse(counterfoil.TokenMalformed, "its claims: %v", err)
	}
	switch {
	case c.Cnf != nil:
		return none, refuse(counterfoil.BearerRefused, "it is bound to a key (cnf): it is taken with a proof of that key alone")
	case c.Events != nil, c.HTM != nil, c.Nonce != nil, c.AtHash != nil, c.CHash != nil:
		return none, refuse(counterfoil.TokenMalformed, "it is an event, a proof or an ID token and no access token")
	case c.Issuer != b.Issuer:
		return none, refuse(counterfoil.TokenIssuer, "its iss %.128q is not %q", c.Issuer, b.Issuer)
	case c.Subject != b.Subject:
		return none, refuse(counterfoil.BearerRefused, "its sub is not the declared one")
	case !onlyAudience(c.Audience, audience):
		return none, refuse(counterfoil.TokenAudience, "its aud is not %q alone", audience)
	}
	expires, err := date("exp", c.Expires)
	if err != nil {
		return none, err
	}
	issued, err := date("iat", c.IssuedAt)
	if err != nil {
		return none, err
	}
	switch {
	case !now.Before(expires):
		return none, refuse(counterfoil.TokenExpired, "it expired at %s", expires.UTC().Format(time.RFC3339))
	case issued.After(now.Add(ahead)):
		return none, refuse(counterfoil.TokenExpired, "it was made in the future (iat)")
	case expires.Sub(issued) > maxLife:
		return none, refuse(counterfoil.TokenExpired, "it is good for more than %d days: what is good for so long is declared as a static key", int(maxLife.Hours()/24))
	}
	if c.NotBefore != nil {
		from, err := date("nbf", c.NotBefore)
		if err != nil {
			return none, err
		}
		if from.After(now.Add(ahead)) {
			return none, refuse(counterfoil.TokenExpired, "it is not good yet (nbf)")
		}
	}
	if len(c.ID) > maxID || strings.ContainsFunc(c.ID, func(r rune) bool { return r < '!' || r > '~' }) {
		return none, refuse(counterfoil.TokenMalformed, "its jti is not at most %d visible characters", maxID)
	}
	return counterfoil.Caller{TokenID: c.ID, Issued: issued, Expires: expires}, nil
}

// maxID bounds a jti, which goes into every entry.
const maxID = 256
