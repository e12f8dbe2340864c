// Package attest verifies what others say of who calls: JWTs (RFC 7519) of issuers
// that are not ours, which a resource takes while it is on its way to bound tokens.
//
// What a nil error of [Issuers.Attest] guarantees: the token is signed with a key that
// its issuer publishes now, or that the declaration holds; it is of exactly the
// declared issuer, subject and audience, and within its time; it is no proof, no event
// and no ID token. What it does not: that who shows it is who it was given to. Nothing
// binds it to a key, so whoever has it may use it, until it expires.
//
// Which keys are asked for is the declaration's to say and never the token's: no claim
// and no header of a token becomes an address. What is fetched goes through the guard
// of everything that the server dials.
package attest
