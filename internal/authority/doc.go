// Package authority is the issuer's engine: the registry of agents and its life
// cycle, enrolment of instances and rotation of their keys, tasks, issuance of
// access tokens, what is said of them and how they and everything else are revoked,
// and the keys that sign them.
//
// It guarantees that a token exists only after its entry is durable, that an
// assertion and an enrolment code are used at most once, that what a request is
// told is what the ledger says of it, that an answer before authentication does
// not tell an unknown agent from a known one, that no token has more than its agent, its
// task and every task above it, and none outlives them, and that what widens who may
// approve waits for two people or a day.
//
// It does not speak HTTP (package web does), does not judge calls (package policy
// does), checks no token itself (package resource does) and holds no state that
// decides anything: of any number of concurrent requests, the store's conditional
// writes say which one wins.
package authority
