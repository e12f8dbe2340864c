package counterfoil

import "time"

// How a stream's events get to its receiver.
const (
	DeliveryPush = "urn:ietf:rfc:8935"
	DeliveryPoll = "urn:ietf:rfc:8936"
)

// A StreamStatus says whether a stream's events are sent (SSF 1.0, Section 8.1.2).
// The zero StreamStatus is unknown, of which nothing is sent.
type StreamStatus string

// The states of a stream.
const (
	StreamEnabled  StreamStatus = "enabled"
	StreamPaused   StreamStatus = "paused"   // events are held until it is enabled
	StreamDisabled StreamStatus = "disabled" // events are neither sent nor held
)

// A SignalStream is an agent's wish to be told what is revoked, by shared signals
// (SSF 1.0). No event is kept with it: they are made of the ledger's entries each
// time, so that none is lost and none is of something that is not in the log. What is
// kept is how far the receiver has got.
type SignalStream struct {
	ID    string `json:"id"`    // "str_" and 128 random bits
	Agent string `json:"agent"` // whose it is; an agent has one at most

	Method   string   `json:"method"`            // DeliveryPush or DeliveryPoll
	Endpoint string   `json:"endpoint,omitzero"` // of push: one of those that the agent's manifest lists
	Sealed   []byte   `json:"sealed,omitzero"`   // of push: the Authorization that the receiver wants, sealed; nil: none
	Audience string   `json:"audience"`          // aud of its events
	Describe string   `json:"describe,omitzero"` // the receiver's own words
	Request  []string `json:"request,omitzero"`  // event types that the receiver asked for; none: every one

	Status StreamStatus `json:"status"`
	Reason string       `json:"reason,omitzero"` // of the status, as whoever changed it gave it

	Created time.Time `json:"created"`

	// From is the index of the first ledger entry that is the stream's: what was
	// before is not told, and what came while it was disabled neither.
	From int64 `json:"from"`

	// Cursor is the index of a ledger entry: of it and all before it, the receiver
	// has everything. Acked are the places of events beyond that it has, too: each
	// is an entry's index times MaxEventsOfEntry, and the event's number within it.
	Cursor int64   `json:"cursor"`
	Acked  []int64 `json:"acked,omitzero"`
}

// MaxEventsOfEntry is how many events one ledger entry may become. It leaves room in
// a place for more entries than a log will have.
const MaxEventsOfEntry = 1 << 16
