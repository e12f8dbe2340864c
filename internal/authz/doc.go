// Package authz answers proxies of somebody else's that hold a request and ask
// whether to pass it on: forward authentication as nginx, Traefik and Caddy ask
// (one HTTP request about another), and Envoy's external authorization, over HTTP
// and over gRPC (envoy.service.auth.v3.Authorization).
//
// It translates and decides nothing: what it understood of the request goes to the
// Judge, which is the gateway. What it guarantees: who is not a trusted proxy is
// refused; the path of the question alone says what is asked; the resource is what
// the proxy's configuration says, never what the request says; the request's path
// lies below the resource's public URL, whatever host a header names; a body counts
// as known only where the proxy said that it is the whole one, byte for byte; and
// nothing but an allowing Answer is answered with what any of these proxies takes
// for a yes.
//
// It does not check that a proxy then passes on what it asked about, nor that it asks
// at all: that is the proxy's configuration (docs/points.md).
package authz
