package web

import (
	"net/http"
	"slices"
	"strings"
)

// Routes lists what a handler of ours answers, as "METHOD /pattern", for tests that
// have to have tried everything.
func Routes(h http.Handler) []string {
	var out []string
	for _, rte := range h.(*router).routes {
		for method := range rte.methods {
			out = append(out, method+" "+strings.Join(rte.segments, "/"))
		}
	}
	slices.Sort(out)
	return out
}

// Bounds that the tests go to.
const (
	SessionIdle  = sessionIdle
	SessionMost  = sessionMost
	SessionsEach = sessionsEach
	AddressBurst = addressBurst
	LookBurst    = lookBurst
	AskBurst     = askBurst
	MaxAsk       = maxAsk
	MaxWaiting   = maxWaiting
)
