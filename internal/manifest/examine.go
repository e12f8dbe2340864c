package manifest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/counterfoil/counterfoil"
)

// unread refuses a tool whose calls carry what nobody reads, in a class for which people
// would be asked: they would sign for something that they were not shown.
func (e *examiner) unread(r *counterfoil.Resource, i int) {
	t := &r.Tools[i]
	c := e.reg.Classes[t.Class]
	if c == nil || c.Tier == counterfoil.Routine {
		return
	}
	for _, m := range []struct {
		have       bool
		name, what string
	}{{t.Stream, "stream", "a body that is passed on as it comes"}, {t.WebSocket, "websocket", "what goes over a WebSocket"}} {
		if m.have {
			e.add(KindResource, r.Name, fmt.Sprintf("tools[%d].%s", i, m.name), "%s is read by nobody, so it goes with routine classes alone; Class %s is %s", m.what, c.Name, c.Tier)
		}
	}
}

// bearerOf says where an issuer's keys were said to be, and whose a static key is.
type bearerOf struct {
	resource string
	bearer   counterfoil.Bearer
}

// bearers checks what a resource takes without a key, beside what the others take: a
// key, and the tokens of one issuer, mean the same everywhere, and so does the subject of
// a token that both would take.
func (e *examiner) bearers(r *counterfoil.Resource, seen map[string]bearerOf) {
	for i, b := range r.Bearers {
		at := fmt.Sprintf("bearers[%d]", i)
		e.agentNamed(KindResource, r.Name, at+".agent", b.Agent)
		id := "key " + b.Key
		if b.Key == "" {
			id = "issuer " + b.Issuer
		}
		first, known := seen[id]
		switch {
		case !known:
			seen[id] = bearerOf{r.Name, b}
		case b.Key != "" && first.bearer.Agent != b.Agent:
			e.add(KindResource, r.Name, at+".key", "Resource %s takes the same key as agent %s; a key is one agent's", first.resource, first.bearer.Agent)
		case b.Key == "" && (first.bearer.JWKSURI != b.JWKSURI || !slices.Equal(first.bearer.Keys, b.Keys)):
			e.add(KindResource, r.Name, at+".issuer", "Resource %s names other keys of the same issuer; an issuer has one set of keys", first.resource)
		}
		if b.Key != "" {
			continue
		}
		// Without an audience of its own a token is for its resource alone.
		id = fmt.Sprintf("token %q %q %q", b.Issuer, b.Subject, cmp.Or(b.Audience, r.PublicURL, "resource "+r.Name))
		if first, known = seen[id]; !known {
			seen[id] = bearerOf{r.Name, b}
		} else if first.bearer.Agent != b.Agent {
			e.add(KindResource, r.Name, at+".subject", "Resource %s takes the same token as agent %s; a token is one agent's", first.resource, first.bearer.Agent)
		}
	}
}
