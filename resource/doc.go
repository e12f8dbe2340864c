// Package resource is the one verifier of requests that carry an access token:
// the gateway uses it, and so does any other resource server. It takes tokens
// that are bound to a key (RFC 9449) with a proof of that key and, unless a
// [Request] says that a resource is still on its way there, nothing else.
//
// What a nil error of [Verifier.Check] guarantees: the token is by this issuer,
// for this resource alone, within its time; the proof is by the key that the
// token is bound to, made for this method, this URL and this token, fresh, and
// used for the first time; the agent, its instance and its epoch are not
// revoked as far as the given [Revocation] knows. What it does not check: what
// the token allows (scope, details, policy), and the body, which a proof does
// not cover.
//
// Of a caller that is [counterfoil.NotBound] a nil error guarantees less: that the
// credential is one that the request's Bearers declare, by its digest, or a token
// that [Verifier.Outside] verified, and that its agent is not revoked. Whoever has
// the credential is the caller. A token that is bound to a key is never one.
//
// [Verifier.Middleware] is the whole of it for an ordinary service, and [Verifier.Tool]
// says what the token allows. A service that is not the issuer knows its keys by a
// [KeySet], and what is revoked by a [View], which a [Feed] keeps current.
package resource
