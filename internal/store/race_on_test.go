//go:build race

package store

// slower is by how much less there is where the race detector looks: it makes SQLite
// many times as slow.
const slower = 20
