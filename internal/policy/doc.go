// Package policy decides whether an agent may make a call. It is the only
// package that knows Cedar (cedar-policy/cedar-go).
//
// # What decides
//
// A call needs a grant and no forbid. Grants, networks, environments, classes,
// limits and the bounds a token carries are judged in Go; a grant's condition
// and the policies' forbids are Cedar. Principal is Agent::"payroll", action
// Action::"call", resource Tool::"bank/pay", whose parents are Class::"payout"
// and Resource::"bank". No entity has attributes or tags. The context is:
//
//	args      record         the call's arguments
//	fields    record         the tool's fields (manifest), numbers always decimal
//	hour      long           0 to 23, UTC
//	weekday   long           1 (Monday) to 7 (Sunday), UTC
//	network   ipaddr         where the call comes from; absent when unknown
//	task      string         absent when the call is outside a task
//	subject   string         whom the agent acts for; absent when the token names nobody
//	actors    set of string  the delegation chain, without its order; absent when empty
//	key_kind  string         the algorithm of the proof; absent when there was none
//
// # What JSON becomes
//
// A JSON value has a Cedar image without loss or none at all. Strings and
// booleans are themselves, objects are records. An integer within ±(2^53−1) is a
// long; any other number of at most four decimal places within Cedar's range is
// a decimal. In fields, integers are decimals too, so that 12 and 12.50 meet one
// rule. An array is a set: Cedar has no lists, so a rule sees neither the order
// nor how often an element occurs, and it cannot be written to depend on them.
// null and all other numbers have no image; nor does an array that holds, at any
// depth, something that has none, or more than 1000 elements; nor what lies
// beyond the 10000th value of a call.
//
// What has no image is left out of the context, and no stand-in would be safe:
// Cedar compares values of different types without an error. So every rule in
// the call's scope that names such a member, or a record or set around it, in
// whatever branch, refuses the call. Which members a rule names is found from
// its text when it is loaded.
//
// Cedar skips a forbid that errs. Here any error of any rule in the call's scope
// refuses the call: the amount "60000", a string, does not pass a rule that
// compares it with a number.
//
// # Guarantees
//
// All functions are total: no arguments, however deep, large or odd, make them
// panic, and no registry does. Zero values refuse. A Set is immutable and safe
// for concurrent use; time is a parameter.
//
// Not checked here: that the token is genuine and live, that the arguments fit
// the tool's schema, sums over a window, that the tool's definition is the pinned
// one.
package policy
