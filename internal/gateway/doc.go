// Package gateway is the enforcement point in front of MCP servers and HTTP APIs: it
// checks who asks, decides whether they may, records the decision, and only then
// forwards. Proxies that forward by themselves ask it (Ask), and so do enforcement points
// that only say what is to happen (Evaluate). All of them go through one admit: see the
// type protocol.
//
// # What it guarantees
//
//   - Every request carries a token and a proof that resource.Verifier checked;
//     there is no other way in, for lists and pings neither.
//   - What is forwarded is not what was received. A message is rebuilt from the
//     members that its method knows, in canonical JSON (RFC 8785), so that the
//     bytes the upstream reads are the bytes that were decided on. Of the
//     headers nothing is copied; the agent's token and proof never go upstream.
//   - A request over HTTP goes on with the path as it was sent, which is refused where two
//     servers could read it as two; with its query and a body of JSON written anew from
//     what was decided on; with bytes that are no JSON as they came, by their digest; and
//     with headers that are known by their names. Once.
//   - What an upstream is shown is released for one call, after its decision, and its use
//     is recorded. Of what the upstream answers the agent sees none of it.
//   - A decision is of the moment when the whole request is there: registry,
//     policy and clock are those after the body, whose time is bounded.
//   - The decision is durable before anything is forwarded, and revocation is
//     looked at once more after that. What cannot be recorded is not done.
//   - A decision ends once: with what the upstream answered, or with "unknown"
//     when it was sent and no answer came. Nothing is sent twice.
//   - A call above routine goes on only with an approval of exactly that call,
//     which is used up in the commit of its decision. Nobody is asked about a call
//     that would be refused anyway, and no request is held open for a person.
//   - A call in a task is covered by that task and by each above it, and counted
//     against all of them in the commit of its decision.
//   - A call with an Idempotency-Key is made once: a repeat gets the answer that there
//     was, and where nobody knows one, that.
//   - A caller that is revoked has no open stream: they are cut as the revocation is
//     heard of, and by a look now and then should it not be heard. Once they are gone
//     the log says so (revocation.enforced), and not before.
//   - Lists show what the caller may call, and a tool whose definition is not
//     the pinned one is neither shown nor called.
//
// # Revisions
//
// It speaks 2026-07-28 and, with sessions, 2025-11-25 and 2025-06-18. A request
// is forwarded in the revision it came in; there is no translation, and what
// the gateway does not speak itself (extensions) it does not let client and
// upstream negotiate behind its back. The one extension that it speaks, to clients
// alone, is tasks: those are calls that wait for people, which the gateway makes by
// itself once they are approved. Sessions are the upstream's: the id
// that a client holds is the upstream's, sealed to resource, agent and task, so
// that nothing is kept here and an id is of no use to anybody else.
//
// # What it does not check
//
// Whether arguments are good: where they decide, and where a manifest has a schema of
// them, their names and kinds are held against it, and all else is the upstream's to
// judge. What an answer says, but for the credential that it may hold. What goes through a
// WebSocket, or is in a body that is passed on as it comes. Whether signatures are good,
// which is for whoever implements Approvals.
package gateway
