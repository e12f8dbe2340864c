//go:build race

package main

// inFlight is how many calls are in flight when the server is told to end. The race
// detector makes both processes many times as slow.
const inFlight = 150
