package resource

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// A Request is what Check looks at.
type Request struct {
	Method string

	// URL is the public URL of the request, from configuration, never from
	// the Host header or a forwarding header, which are the sender's. Query
	// and fragment are ignored.
	URL string

	// Resource is the identifier that the token's audience must be.
	Resource string

	Header http.Header

	// Binding is the resource's mode at this moment (Resource.BindingAt). Any but
	// observe and prefer, and none, takes bound tokens alone.
	Binding string

	// Bearers are what is taken without a key where Binding allows it. Whether the
	// class of a call allows it too is for the caller of Check.
	Bearers []counterfoil.Bearer
}

// A KeySource knows the issuer's keys.
type KeySource interface {
	// Key returns the key that tokens with this kid are verified with, as of
	// now: a key that was removed is unknown. It is asked for every request,
	// so it answers from memory. An unknown kid is the refusal
	// token_malformed. Safe for concurrent use.
	Key(ctx context.Context, kid string) (credential.PublicKey, error)
}

// A ReplayCache remembers proofs until they expire on their own.
type ReplayCache interface {
	// UseOnce records key until t and reports whether it was unseen. Of any
	// number of concurrent calls with the same key, on any number of
	// machines, exactly one reports true. An error means that nothing is
	// known: the request is refused as a fault.
	UseOnce(ctx context.Context, key string, until time.Time) (bool, error)
}

// A Revocation knows what is revoked.
type Revocation interface {
	// Revoked returns nil when the caller is live: agent active, epoch equal
	// to the token's, instance live. It returns a refusal (token_revoked,
	// agent_suspended) when not, and the fault revocation_stale when what it
	// knows is older than its bound. Safe for concurrent use.
	Revoked(ctx context.Context, c counterfoil.Caller) error
}

// Nonces decides when a proof must hold a nonce of this server and knows its
// own (RFC 9449, Section 9). Safe for concurrent use.
type Nonces interface {
	// Required reports whether a proof issued then must hold a nonce.
	Required(issuedAt, now time.Time) bool
	// Check reports whether the nonce is one of ours that is still good.
	Check(nonce string, now time.Time) bool
	// Mint makes a nonce.
	Mint(now time.Time) string
}

// A Verifier checks requests. Its fields are set before the first use and not
// changed; it is then safe for concurrent use. It must not be copied. What is
// left out refuses: without keys, a replay cache or a view of what is revoked
// every request is a fault.
type Verifier struct {
	Issuer     string
	Keys       KeySource
	Replay     ReplayCache
	Revocation Revocation
	Nonces     Nonces           // nil: never required
	Now        func() time.Time // nil: time.Now
	Outside    Outside          // nil: no outside issuer's token is taken
	Log        *slog.Logger     // for Middleware; nil: slog.Default

	tokens  tokenCache
	headers credential.Headers
}

// TokensOnly is the Revocation of a service that has no view of what is
// revoked: a token is good until it expires. Say so to whoever runs it.
type TokensOnly struct{}

// Revoked returns nil.
func (TokensOnly) Revoked(context.Context, counterfoil.Caller) error { return nil }

// errNoCredentials marks a request without any credential, whose challenge has
// no error (RFC 6750, Section 3.1).
var errNoCredentials = errors.New("no credentials")

type noCredentials struct{ *counterfoil.Refusal }

func (noCredentials) Is(target error) bool { return target == errNoCredentials }
func (n noCredentials) Unwrap() error      { return n.Refusal }

// Check verifies one request and says who it comes from. When it returns an
// error, refusal or fault, the request must not be served.
//
// From the moment when the proof is used up, the Caller is returned beside an
// error too, so that whoever keeps a record can record who was refused:
// Caller.Proof is not empty exactly when this request used its proof up, and
// then it must be recorded before the answer where used proofs are read back
// from the record after a restart. A request that replays a used proof yields
// a Caller without Proof. A bearer credential that is known and may not be used
// now yields a Caller too, with Bearer and never a Proof. A Caller's Scope and Details are shared with other
// requests by the same token and must not be changed.
func (v *Verifier) Check(ctx context.Context, r Request) (counterfoil.Caller, error) {
	var none counterfoil.Caller
	if v.Keys == nil || v.Replay == nil || v.Revocation == nil {
		return none, counterfoil.NewFault(counterfoil.Internal, errors.New("the verifier lacks keys, replay cache or revocation"))
	}
	now := v.now()

	// What the headers say, before any cryptography.
	if token, ok := bearerToken(r.Header); ok {
		return v.checkBearer(ctx, &r, token, now)
	}
	compact, err := accessToken(r.Header)
	if err != nil {
		return none, err
	}
	proof, err := v.headers.ParseProof(r.Header["Dpop"])
	if err != nil {
		return none, err
	}

	// The token: RFC 9068, Section 4.
	sum := sha256.Sum256([]byte(compact))
	signed, err := v.signed(ctx, compact, sum)
	if err != nil {
		return none, err
	}
	token, err := signed.Check(v.Issuer, r.Resource, now)
	if err != nil {
		return none, err
	}
	if token.Task != nil && !now.Before(token.Task.Expires) {
		return none, counterfoil.Refuse(counterfoil.TaskClosed, "the token's task is past its deadline")
	}

	// The proof: RFC 9449, Section 4.3, with the ath of this token.
	p, err := proof.Check(credential.ProofRequest{Method: r.Method, URL: r.URL, TokenHash: signed.hash}, now)
	if err != nil {
		return none, err
	}
	// Section 4.3, check 12, second half: the token is bound to the proof's
	// key.
	if p.JKT != token.JKT {
		return none, counterfoil.Refuse(counterfoil.ProofKeyMismatch, "the DPoP proof is not by the key that the access token is bound to")
	}
	v.headers.KeepProof(proof)
	// Check 10: the nonce. Before the proof is used up, as the sender is asked
	// to come again.
	if v.Nonces != nil && v.Nonces.Required(p.IssuedAt, now) && (p.Nonce == "" || !v.Nonces.Check(p.Nonce, now)) {
		return none, counterfoil.Refuse(counterfoil.NonceRequired, "the DPoP proof must hold the nonce of the DPoP-Nonce header")
	}

	caller := callerOf(&token, &p)
	// Section 11.1: single use. Last of what depends on the request alone, so
	// that a request that is refused for itself uses nothing up.
	fresh, err := v.Replay.UseOnce(ctx, p.Hash, p.Expires)
	if err != nil {
		return none, counterfoil.NewFault(counterfoil.StoreUnavailable, err)
	}
	if !fresh {
		caller.Proof = ""
		return caller, counterfoil.Refuse(counterfoil.ProofReplayed, "the DPoP proof was used before")
	}
	// Revocation is looked at every time, kept token or not, and after the
	// proof is used up, so that the last look is the latest.
	if err := v.Revocation.Revoked(ctx, caller); err != nil {
		return caller, err
	}
	return caller, nil
}

func (v *Verifier) now() time.Time {
	if v.Now == nil {
		return time.Now()
	}
	return v.Now()
}

// Nonce returns a fresh nonce for the DPoP-Nonce header of an answer to
// nonce_required, or "" when this verifier asks for none.
func (v *Verifier) Nonce() string {
	if v.Nonces == nil {
		return ""
	}
	return v.Nonces.Mint(v.now())
}

// signed returns the token with its signature verified, from the cache where
// it was verified before. The key is asked for each time, so that what a
// removed key signed stops being taken at once.
func (v *Verifier) signed(ctx context.Context, compact string, sum [32]byte) (*keptToken, error) {
	if kept := v.tokens.get(sum); kept != nil {
		key, err := v.key(ctx, kept.kid)
		if err != nil {
			return nil, err
		}
		if key.Thumbprint() == kept.SignedBy() {
			return kept, nil
		}
	}
	unverified, err := v.headers.ParseToken(compact)
	if err != nil {
		return nil, err
	}
	// A foreign issuer is said before its key is unknown: the key's id means
	// nothing without the issuer.
	if unverified.ClaimedIssuer() != v.Issuer {
		return nil, counterfoil.Refuse(counterfoil.TokenIssuer, "the access token's iss %.128q is not %q", unverified.ClaimedIssuer(), v.Issuer)
	}
	key, err := v.key(ctx, unverified.KeyID())
	if err != nil {
		return nil, err
	}
	signed, err := unverified.CheckSignature(key)
	if err != nil {
		return nil, err
	}
	v.headers.KeepToken(unverified)
	kept := &keptToken{SignedToken: signed, kid: unverified.KeyID(), hash: credential.EncodeHash(sum)}
	v.tokens.put(sum, kept, v.now())
	return kept, nil
}

func (v *Verifier) key(ctx context.Context, kid string) (credential.PublicKey, error) {
	key, err := v.Keys.Key(ctx, kid)
	if err == nil {
		return key, nil
	}
	if _, ok := counterfoil.AsRefusal(err); ok {
		return credential.PublicKey{}, err
	}
	return credential.PublicKey{}, counterfoil.NewFault(counterfoil.StoreUnavailable, err)
}

// accessToken returns the token of the one Authorization header (RFC 9449,
// Section 7.1). Tokens in the query or the body are nobody's credential here.
func accessToken(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", noCredentials{counterfoil.Refuse(counterfoil.ProofMissing, "Authorization: DPoP with an access token, and a DPoP header, are needed")}
	}
	// RFC 9449, Section 7.1, and RFC 6750, Section 3.1: more than one method
	// of sending a token is invalid_request.
	if len(values) > 1 {
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "more than one Authorization header")
	}
	// RFC 9110, Section 11.4: the scheme's case does not matter.
	scheme, token, _ := strings.Cut(values[0], " ")
	switch {
	case strings.EqualFold(scheme, "DPoP"):
	case values[0] == "":
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the Authorization header is empty")
	default:
		return "", noCredentials{counterfoil.Refuse(counterfoil.ProofMissing, "the Authorization scheme must be DPoP")}
	}
	token = strings.TrimLeft(token, " ")
	if token == "" || !token68(token) {
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the Authorization header is not DPoP and one token")
	}
	return token, nil
}

// token68 is RFC 9110, Section 11.2.
func token68(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("-._~+/", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

func callerOf(t *credential.Token, p *credential.Proof) counterfoil.Caller {
	c := counterfoil.Caller{
		Agent:       t.Agent.ID,
		Instance:    t.Agent.Instance,
		Environment: t.Agent.Env,
		Epoch:       t.Agent.Epoch,
		Subject:     t.Subject,
		Audience:    t.Audience,
		TokenID:     t.ID,
		Scope:       t.Scope,
		Details:     t.Details,
		Issued:      t.IssuedAt,
		Expires:     t.Expires,
		JKT:         p.JKT,
		Binding:     counterfoil.BoundDPoP,
		KeyKind:     p.Alg,
		Proof:       p.Hash,
	}
	if t.Task != nil {
		c.Task = t.Task.ID
	}
	return c
}
