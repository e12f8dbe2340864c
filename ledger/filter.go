package ledger

import (
	"time"

	"github.com/counterfoil/counterfoil"
)

// A Filter chooses entries. Empty members choose every entry. Whoever keeps a
// log finds by it; the package itself reads in order.
type Filter struct {
	Kind      Kind
	Agent     string
	Tool      string
	Code      counterfoil.Code
	RequestID string
	Since     time.Time
	Limit     int // the most that are wanted; 100 when zero
}
