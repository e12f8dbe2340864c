//go:build !race

package main

// inFlight is how many calls are in flight when the server is told to end.
const inFlight = 1000
