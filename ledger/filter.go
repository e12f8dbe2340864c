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
	Actor     string
	Tool      string
	Class     string
	Code      counterfoil.Code
	RequestID string
	Approval  string // its id
	Token     string // its id
	Binding   string // what the caller had shown, such as bearer
	Since     time.Time
	Until     time.Time // before that
	Before    int64     // of a lower index; any when zero
	Limit     int       // the most that are wanted; 100 when zero
}
