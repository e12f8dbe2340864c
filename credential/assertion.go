package credential

import (
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	typAssertion = "client-authentication+jwt"

	assertionLife    = 60 * time.Second  // of those made here
	maxAssertionLife = 120 * time.Second // of those taken
)

// An UnverifiedAssertion is a client assertion that is well formed. What it
// says is the sender's word.
type UnverifiedAssertion struct {
	jws    jws
	claims assertionClaims
}

type assertionClaims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	ID        string   `json:"jti"`
	Expires   date     `json:"exp"`
	IssuedAt  date     `json:"iat"`
	NotBefore date     `json:"nbf"`
}

// An Assertion is verified: the holder of the key asks, now, this issuer. That
// its id was not used before is the store's to say.
type Assertion struct {
	Agent         string
	ID            string
	KeyThumbprint string
	Expires       time.Time // until when the id must be remembered

	// Issued is when it was made, by its iat; of one that does not say, the earliest
	// that it would have been taken.
	Issued time.Time
}

// RefuseClient is the one answer for an agent, a key or a signature that is
// not known, so that asking tells nobody which agents exist. Precise is what
// the ledger records.
func RefuseClient(precise counterfoil.Code) *counterfoil.Refusal {
	return counterfoil.RefuseAs(counterfoil.ClientRefused, precise, "the agent, its key or the signature is not known here")
}

func refuseAssertion(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.AssertionMalformed, "the client assertion: "+format, args...)
}

// ParseAssertion reads a client assertion (RFC 7523, Section 3). Everything
// that it refuses is refused alike whoever the agent is.
func ParseAssertion(compact string) (UnverifiedAssertion, error) {
	var none UnverifiedAssertion
	if len(compact) > MaxAssertion {
		return none, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the client assertion is larger than %d bytes", MaxAssertion)
	}
	t, _, err := parseJWS(compact, readKeyless, nil)
	if err != nil {
		return none, refuseAssertion("%v", err)
	}
	// RFC 8725, Section 3.11: a token of another kind (a proof, an access
	// token, an event) is not a client assertion. Absent and JWT are what
	// libraries of today send.
	switch mediaType(t.header.Typ) {
	case "", "jwt", typAssertion:
	default:
		return none, refuseAssertion("its typ %.64q is not %s", t.header.Typ, typAssertion)
	}
	a := UnverifiedAssertion{jws: t}
	if err := t.claims(&a.claims); err != nil {
		return none, refuseAssertion("%v", err)
	}
	c := &a.claims
	switch {
	// RFC 7523, Section 3, points 1 and 2.A: iss and sub, for client
	// authentication both the client's id.
	case c.Issuer == "" || c.Subject == "":
		return none, refuseAssertion("iss and sub are needed")
	case c.Issuer != c.Subject:
		return none, refuseAssertion("iss and sub are not the same")
	// Point 3 says that aud is needed; whether it is ours is for Check.
	case len(c.Audience) == 0:
		return none, refuseAssertion("aud is needed")
	// Point 4.
	case !c.Expires.set:
		return none, refuseAssertion("exp is needed")
	// Point 7 leaves jti open; without one there is no single use.
	case c.ID == "" || len(c.ID) > maxID:
		return none, refuseAssertion("a jti of 1 to %d bytes is needed", maxID)
	case c.IssuedAt.set && c.Expires.t.Before(c.IssuedAt.t):
		return none, refuseAssertion("exp is before iat")
	}
	return a, nil
}

// mediaType lowers a typ and takes the prefix that RFC 7515, Section 4.1.9,
// recommends to leave out.
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// KeyID returns the kid of the header, if any: the sender's word.
func (a UnverifiedAssertion) KeyID() string { return a.jws.header.Kid }

// Algorithm returns the name that the header gives the signature's algorithm,
// EdDSA by its newer one: the sender's word.
func (a UnverifiedAssertion) Algorithm() string {
	if a.jws.header.Alg == EdDSA {
		return Ed25519
	}
	return a.jws.header.Alg
}

// ClaimedAgent returns the agent that the assertion says it is of: the
// sender's word.
func (a UnverifiedAssertion) ClaimedAgent() string { return a.claims.Subject }

// Check verifies the assertion under the key that is registered for the
// claimed agent, for the issuer's identifier. The signature comes first, so
// that whoever has no key of the agent learns nothing from what follows.
func (a UnverifiedAssertion) Check(key PublicKey, issuer string, now time.Time) (Assertion, error) {
	// RFC 7523, Section 3, point 9; the algorithm is the registered key's.
	if err := key.Verify(a.jws.input, a.jws.sig, a.jws.header.Alg); err != nil {
		return Assertion{}, RefuseClient(counterfoil.AssertionMalformed)
	}
	c := &a.claims
	// RFC 7523, Section 3, point 3, as rfc7523bis narrows it: the issuer is
	// the sole value; the token endpoint is not taken.
	if !c.Audience.only(issuer) {
		return Assertion{}, counterfoil.Refuse(counterfoil.AssertionAudience, "aud must be %q alone", issuer)
	}
	if err := c.checkTimes(now); err != nil {
		return Assertion{}, err
	}
	issued := c.Expires.t.Add(-maxAssertionLife)
	if c.IssuedAt.set {
		issued = c.IssuedAt.t
	}
	return Assertion{
		Agent:         c.Subject,
		ID:            c.ID,
		KeyThumbprint: key.Thumbprint(),
		Expires:       c.Expires.t.Add(Ahead),
		Issued:        issued,
	}, nil
}

func (c *assertionClaims) checkTimes(now time.Time) error {
	expired := func(format string, args ...any) error {
		return counterfoil.Refuse(counterfoil.AssertionExpired, "the client assertion "+format, args...)
	}
	// Without iat the life is counted from now.
	from := now
	if c.IssuedAt.set {
		from = c.IssuedAt.t
	}
	switch {
	// RFC 7523, Section 3, point 4, allowing for clock skew.
	case !now.Before(c.Expires.t.Add(Ahead)):
		return expired("expired at %s; it is %s here", stamp(c.Expires.t), stamp(now))
	// Points 5 and 6.
	case c.IssuedAt.t.After(now.Add(Ahead)):
		return expired("is dated %s; it is %s here", stamp(c.IssuedAt.t), stamp(now))
	case c.NotBefore.t.After(now.Add(Ahead)):
		return expired("is not valid before %s; it is %s here", stamp(c.NotBefore.t), stamp(now))
	// Point 4 lets us refuse what lives unreasonably long.
	case c.Expires.t.Sub(from) > maxAssertionLife:
		return expired("lives longer than %v", maxAssertionLife)
	}
	return nil
}

// stamp writes a time for a detail.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// SignAssertion makes a client assertion for the issuer, valid for 60 seconds,
// with a fresh id. It is used once; a retry needs another.
func SignAssertion(s *Signer, agent, issuer string, now time.Time) (string, error) {
	if agent == "" || issuer == "" {
		return "", fmt.Errorf("signing an assertion: agent and issuer are needed")
	}
	return signJWS(s, s.assertionHeader, struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
		ID       string `json:"jti"`
	}{agent, agent, issuer, now.Unix(), now.Add(assertionLife).Unix(), freshID()})
}
