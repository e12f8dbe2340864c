// Package authority is the issuer's engine: the registry of agents and its life
// cycle, enrolment of instances, issuance of access tokens, and the keys that
// sign them.
//
// It guarantees that a token exists only after its entry is durable, that an
// assertion and an enrolment code are used at most once, that what a request is
// told is what the ledger says of it, that an answer before authentication does
// not tell an unknown agent from a known one, and that what widens who may approve
// waits for two people or a day.
//
// It does not speak HTTP (package web does), does not judge calls (package
// policy does) and holds no state that decides anything: of any number of
// concurrent requests, the store's conditional writes say which one wins.
package authority
