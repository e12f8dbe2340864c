package counterfoil

import "time"

// A StoredCredential is an upstream's credential that the database keeps sealed, without
// what it holds.
type StoredCredential struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`            // when it was put
	By   string    `json:"by"`            // who put it, such as uid:0
	Used []string  `json:"used,omitzero"` // resources whose manifests name it
}
