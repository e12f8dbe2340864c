// Package ledger is the decision chain: what an entry is and how it is
// encoded, the Merkle tree over the entries (RFC 6962, as in
// golang.org/x/mod/sumdb/tlog), signed checkpoints (C2SP tlog-checkpoint),
// tiles (C2SP tlog-tiles), receipts, exports, and their offline verification.
//
// Guarantees. Whoever holds an export and the log's public key can tell,
// without asking anybody, whether the entries are exactly those that the log's
// key signed. With an earlier checkpoint in hand they can also tell whether
// the log was cut or rebuilt since, even by the holder of the key.
//
// What it does not do: it does not decide what is recorded, it does not store
// (that is the work of the store behind the server), and it does not judge
// what an entry claims. Without a checkpoint kept outside the machine the log
// is tamper-evident to everyone but the holder of its key.
//
// It is pure: time is an input, and nothing but the readers and writers that
// are passed in is touched.
package ledger
