// Package agent is what an agent links in: its key, its tokens, and an
// http.RoundTripper that puts a fresh proof on each request (RFC 9449).
//
//	t, err := agent.NewTransport(agent.Config{
//		Issuer:   "https://id.example.com",
//		Agent:    "payroll",
//		Signer:   signer, // agent.LoadKey
//		Resource: "https://id.example.com/r/bank",
//	})
//	client := t.Client()
//
// For programs that cannot sign, a Connector serves the same resource on
// loopback, on a unix socket or over standard input and output. A Waiter, which a
// Connector has inside, holds a call for which people have to say yes.
//
// Tasks opens, shows and ends tasks; with Config.Task a Transport works in one, and
// any instance of the agent goes on with a task that is open. Rotate replaces the key
// of an instance, and ReportLeak tells an issuer of what was found where it should
// not be.
//
// What it guarantees. The private key signs here and is sent nowhere. A token
// and a proof go to the configured resource's origin and to no other, a
// redirect is an error. Every attempt has an assertion and a proof of its own,
// repetitions included, and a body is sent again only where the request can make
// it anew. Tokens are bound to the key: an answer with a token of another type
// is an error (RFC 9449, Section 5; Config.InsecureBearer is the way out). The server's metadata must name the very
// issuer that was asked (RFC 8414, Section 3.3), over TLS or on loopback.
//
// What it does not check. An access token is opaque to it: only the resource
// verifies one. It does not judge what it sends; the gateway does.
package agent
