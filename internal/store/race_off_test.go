//go:build !race

package store

// slower is by how much less there is where the race detector looks.
const slower = 1
