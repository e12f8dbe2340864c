// Package store keeps state and ledger in one database and changes both
// together or not at all.
//
// There is one way to write. A caller hands in a decision: an effect, which
// may say no, and the entries that record it. One goroutine, the sequencer,
// takes whatever waits, runs the effects, gives the entries their places and
// times, adds them to the Merkle tree, and commits all of it in one
// transaction. Callers are answered after the commit. So what was acknowledged
// is durable, what is durable is recorded, and one commit serves as many
// callers as there are.
//
// After a commit and before its callers are answered, the views in memory
// (registry, life cycles, instances, keys, pins, open tasks, what is revoked) are
// brought up to date: acknowledged means visible, and no request waits for a read of
// the database. Whoever follows what is revoked is told of it then, too.
//
// Guarantees, and to whom:
//
//   - A verb that returns nil is durable, its entries included.
//   - A verb that returns a refusal (counterfoil.AsRefusal) changed nothing.
//   - A verb that returns a fault changed nothing, with two exceptions in
//     which it may have been committed all the same: the context ended while
//     the commit was under way, or the commit itself failed in a way that did
//     not tell. In both the caller must act as if it was refused. An allowing
//     call.decided whose caller was not told so gets a call.finished with the
//     outcome unknown, and the approval that it spent is indeterminate.
//   - Of any number of concurrent callers, exactly one wins a single-use verb.
//   - Nothing is signed that is not committed.
//
// One process has the database: a lock file beside it sees to that. What
// crashes leave behind is repaired by Open: SQLite rolls back what was not
// committed, and decisions without an end get one.
package store
