// Package counterfoil is the vocabulary of the system: the nouns that are
// persisted and passed between rooms, the closed enumerations, and the one
// table that says how each refusal looks on the wire. Reading "go doc" of it
// is reading the glossary.
//
// It does no I/O, depends on the standard library alone and imports nothing
// of ours; everything else imports it.
//
// The words, each with one meaning everywhere (code, API, docs):
//
//   - An [Agent] is a non-human identity record. An [Instance] is one running
//     process of it, with a key of its own that never leaves it.
//   - An assertion (RFC 7523) proves who asks for a token, a proof (RFC 9449)
//     who uses it, a token (RFC 9068) what may be asked with it.
//   - A [Resource] is a protected server, a [Tool] something callable there,
//     written "resource/tool". A [Grant] is standing permission.
//   - An [Action] is one concrete call. Its [Class] says what kind of effect
//     it has; the class's [Tier] how much human proof that needs.
//   - A [Refusal] is a decided no with a stable [Code]; a fault is our own
//     failure, and the request is refused all the same.
//   - A decision is the verdict on an action: allow or refuse. An approval is a
//     request for human proof on one action, which a decision then spends.
//   - An entry is one record of the ledger, an append-only Merkle tree; its
//     index is its place there. A checkpoint is the tree's size and root hash,
//     signed; a receipt is an entry with its proof of inclusion and a
//     checkpoint.
//   - A thumbprint (RFC 7638) is a key's identifier, "jkt" on the wire. The
//     binding mode of a resource says whether tokens there must be bound to a
//     key: [BindingRequire], and no other so far.
//   - The owner of an agent is the [Person] accountable for it. Its epoch is
//     a number that tokens must equal: a new epoch voids all older tokens.
package counterfoil
