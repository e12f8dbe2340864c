// Package credential makes and checks the three credentials of the system:
// client assertions (RFC 7523 and its revision, which narrows the audience),
// DPoP proofs (RFC 9449) and access tokens (RFC 9068), and the keys that sign
// them (RFC 7517, RFC 7638).
//
// It is pure: no I/O, no clock, no memory of what it saw. What it guarantees
// about a value of a verified type ([Assertion], [Proof], [Token]) is that the
// signature verified under the key asked for and that every check of the RFC
// that needs nothing but the credential, the request and the time has passed.
// What it does not check: that the id was not used before, that the key is
// registered and live, that the token is not revoked. Those are asked of a
// store, by the engines.
//
// The reader of JOSE (RFC 7515) is small and strict on purpose: the compact
// form only; three parts; unpadded base64url that encodes back to the very
// same text, so that one credential has one spelling; the algorithm out of an
// allow-list and the same as the key's own; no header parameter that would
// make the header choose a key or change what is signed. The cryptography is
// the standard library's.
//
// Algorithms (RFC 7518, RFC 9864): ES256, ES384, Ed25519, for which EdDSA is
// taken as another name, and PS256 with a salt of 32 bytes over moduli of 2048
// to 8192 bits.
package credential
