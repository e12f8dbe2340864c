package gateway

import (
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
)

// ServeAs answers a POST as from a caller that was verified elsewhere: tokens of
// agents that act for a user do not exist yet.
func (g *Gateway) ServeAs(w http.ResponseWriter, r *http.Request, caller counterfoil.Caller) {
	c := &mcpCall{call: g.newCall(w, r)}
	c.words = c
	if err := c.screen(); err != nil {
		c.fail(err)
		return
	}
	c.caller = caller
	c.post()
}

// LookEvery sets how long it is between two looks at an open stream's caller.
func (g *Gateway) LookEvery(d time.Duration) { g.look = d }

// Look looks at the caller of each open stream now.
func (g *Gateway) Look() {
	for _, w := range g.streams.all() {
		w.look()
	}
}
