package web

// Rates. What anyone may ask costs a place among the ceremonies that are kept, and a
// signature check: a person at a desk needs two requests a quarter of an hour, an
// office behind one address a few hundred. An agent looks at its approval every five
// seconds; each look is two entries of the ledger, and so is whatever else it asks of the
// issuer. An enforcement point of somebody else's asks before each call that it lets
// through.
const (
	addressRate, addressBurst = 2, 120
	lookRate, lookBurst       = 10, 50
	askRate, askBurst         = 10, 50
	pointRate, pointBurst     = 500, 1000
)
