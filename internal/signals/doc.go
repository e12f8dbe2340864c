// Package signals speaks shared signals (SSF 1.0): it tells receivers what was revoked
// here, and hears from other transmitters what became of people.
//
// What is told is derived from the ledger. A security event token (RFC 8417) is a
// function of a stream and a ledger entry, so there is no outbox: nothing is sent that
// is not in the log, and nothing in the log is lost between two writes. Of a stream is
// kept how far its receiver has acknowledged; the rest is made again, the same each
// time.
//
// What is heard only takes away. An event of a transmitter that a manifest names may
// revoke what a person owns or signed; every other event is recorded and changes
// nothing, and none restores anything.
//
// It guarantees that an event is sent only to the receiver's own URL out of its
// agent's manifest, to nothing on the link-local network, and never after the agent's
// signals were taken back. It does not authenticate receivers: whoever calls with a
// counterfoil.Caller has.
package signals
