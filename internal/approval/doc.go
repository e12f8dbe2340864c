// Package approval is human proof: a call that a class does not let run by itself
// waits here for people, who sign what they saw with their passkeys, and is let go
// once.
//
// What it guarantees:
//
//   - What is signed names the call (its canonical bytes), the class, the rule, the
//     template, what was shown and until when, through digests that are made here and
//     never by the caller. See digest.go.
//   - A signature is a WebAuthn assertion with user verification, by an enrolled
//     passkey of a person who may decide this approval, over a challenge that was made
//     for that person, that decision and the signatures before it, and that is good
//     once and for five minutes.
//   - Nothing is believed twice on one look: when an approval is about to be spent,
//     every signature is verified again against its passkey, every signer's eligibility
//     is asked again, and class, rule, template and tool are compared with what was
//     signed. The store then spends it in one conditional write.
//   - Silence, a fault and an unknown state are a no.
//
// What it does not check: tokens and proofs (the gateway has), grants and policies
// (package policy has, at each call), and roles at the console beyond those that an
// act here needs.
//
// It holds ceremonies that are under way in memory alone: a restart makes people
// begin them again and loses nothing that was decided.
package approval
