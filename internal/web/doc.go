// Package web is every HTTP route of the authority: the public listener, the
// management listener and the administration socket. It owns the codec, the
// renderer of its errors, request ids and the counters by code. What an error
// says is counterfoil.Problem, which the gateway and a resource server answer
// with too, each with its protocol's headers.
//
// It guarantees that every answer of an error has a code out of the one table
// and a request id, that a fault's text never leaves, that a panic costs one
// request, and that nothing it says of itself is made of a request's headers:
// every URL is made of configuration.
//
// It decides nothing about agents: package authority does.
package web
