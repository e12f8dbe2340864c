// Package evidence follows the ledger and says what it shows: here, one key in two
// places.
//
// A Sighting is one proof that verified, at an instance and a place. Two of one
// instance from two places, less than a window apart, are a key that two machines
// have; so is one by a key that belongs to somebody else. What follows from that is
// the authority's: evidence decides nothing and changes nothing.
//
// No call waits for it. It reads what is committed, so that it lags by a commit,
// and after a restart it reads the end of the log again: whoever it tells must take
// the same suspicion twice for one.
//
// It does not tell apart what one address hides (two machines behind one NAT), nor
// two machines that take turns with a window's pause in between.
package evidence
