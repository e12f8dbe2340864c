package gateway

import (
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A resource on its way from bearer credentials to bound tokens stands on a rung of a
// ladder: observe takes what it declares for what its agent may, prefer for routine
// classes alone, require not at all. Each call by a bearer credential is recorded with
// the credential's name and with what would become of it at the end of the ladder.

// mentionInterval is how often the log for operators names a credential that is still
// in use. The ledger has each call.
const mentionInterval = time.Minute

// maxAgentHeader bounds what is recorded of a User-Agent.
const maxAgentHeader = 128

// A ladder remembers which credentials were mentioned when. The zero ladder is ready.
type ladder struct {
	mu        sync.Mutex
	mentioned map[string]time.Time // by resource and label, which are declared ones
}

// due reports whether a credential is to be mentioned now.
func (l *ladder) due(resource, label string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := resource + " " + label
	if at, ok := l.mentioned[id]; ok && now.Sub(at) < mentionInterval && !now.Before(at) {
		return false
	}
	if l.mentioned == nil || len(l.mentioned) >= 4096 {
		l.mentioned = map[string]time.Time{} // declarations came and went
	}
	l.mentioned[id] = now
	return true
}

// unbound reports whether the caller has shown something that whoever has it may use.
func (c *call) unbound() bool { return c.caller.Binding == counterfoil.NotBound }

// known reports whether it is known who was refused, so that the refusal is an entry of
// its own: the caller of a proof that is used up, or of a declared credential.
func (c *call) known() bool { return c.caller.Proof != "" || c.caller.Bearer != "" }

// climb completes a caller without a key: what a token would say of its environment and
// its tools is what the registry says now.
func (c *call) climb() error {
	if !c.unbound() {
		return nil
	}
	a := c.registry.Agents[c.caller.Agent]
	if a == nil {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "agent %q is not known", c.caller.Agent)
	}
	c.caller.Environment = a.Environment
	c.declared = declarations(c.resource, &c.caller)
	if a.Tasks.Required {
		// A bearer credential names no task.
		return counterfoil.Refuse(counterfoil.BearerRefused, "agent %q works in tasks, and a bearer credential is of none", a.Name)
	}
	scope, err := c.policy.Narrow(a.Name, c.resource.Name, nil)
	if err != nil {
		// No grant at all: the call is decided, and refused, for each tool by its name.
		scope = nil
	}
	c.caller.Scope = scope
	if c.gateway.ladder.due(c.resource.Name, c.caller.Bearer, c.now) {
		c.gateway.cfg.Log.Warn("a bearer credential is still in use", "agent", a.Name, "resource", c.resource.Name,
			"bearer", c.caller.Bearer, "binding", c.resource.BindingAt(c.now), "address", c.source.String())
	}
	return nil
}

// noteUnbound leaves in an entry what a report needs to say who still sends a bearer
// credential, and what would become of the call where bound tokens are required.
func (c *call) noteUnbound(e *ledger.Entry) {
	if !c.unbound() {
		return
	}
	if e.Detail == nil {
		e.Detail = map[string]any{}
	}
	e.Detail["bearer"] = c.caller.Bearer
	e.Detail["binding_mode"] = c.resource.BindingAt(c.now)
	e.Detail["would_refuse"] = string(counterfoil.BearerRefused)
	if c.r != nil {
		if agent := agentHeader(c.r.Header); agent != "" {
			e.Detail["user_agent"] = agent
		}
	}
}

// agentHeader returns the User-Agent as it may be recorded: visible, short, and not the
// credential itself.
func agentHeader(h http.Header) string {
	whole := h.Get("User-Agent")
	if _, token, _ := strings.Cut(h.Get("Authorization"), " "); strings.TrimSpace(token) != "" && strings.Contains(whole, strings.TrimSpace(token)) {
		return ""
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, whole)
	if len(text) > maxAgentHeader {
		text = text[:maxAgentHeader]
	}
	return text
}

// rung refuses a call without a key that the resource's mode does not take for its
// class. err is what was decided of it otherwise, which counts first where it refuses
// for good: a call that is refused anyway is not refused for its credential.
func (c *call) rung(err error) error {
	if !c.unbound() || err != nil && !isCode(err, counterfoil.ApprovalRequired) {
		return err
	}
	switch mode := c.resource.BindingAt(c.now); {
	case mode == counterfoil.BindingObserve:
		return err
	case mode == counterfoil.BindingPrefer && c.tier == counterfoil.Routine:
		return err
	case mode == counterfoil.BindingPrefer:
		return counterfoil.Refuse(counterfoil.BearerRefused, "resource %s takes a bearer credential for routine classes alone: send Authorization: DPoP with a proof", c.resource.Name)
	}
	return counterfoil.Refuse(counterfoil.BearerRefused, "resource %s takes bound tokens alone since the credential was looked at: send Authorization: DPoP with a proof", c.resource.Name)
}

// onRung leaves of what may be called what the resource's mode takes from the caller.
func (c *call) onRung(callable func(string) bool) func(string) bool {
	if !c.unbound() || c.resource.BindingAt(c.now) == counterfoil.BindingObserve {
		return callable
	}
	return func(tool string) bool { return callable(tool) && c.tierOf(tool) == counterfoil.Routine }
}

// outOfReach reports whether a held call is not the caller's to ask about: what was
// asked for with a key is not told to who has none.
func (c *call) outOfReach(a *counterfoil.Approval) bool {
	return c.unbound() && a.Caller.Binding != counterfoil.NotBound
}

// declarations are those of a credential: who a label is may be declared by other keys, at
// another place or for another audience.
func declarations(res *counterfoil.Resource, who *counterfoil.Caller) (out []counterfoil.Bearer) {
	for i := range res.Bearers {
		if b := &res.Bearers[i]; b.Agent == who.Agent && b.Label() == who.Bearer {
			out = append(out, *b)
		}
	}
	return out
}

// stillTaken refuses a caller without a key whose credential the resource does not take
// any more: it is not declared as it was, or the time of bound tokens has come. It looks at
// the registry that is in force, so that nothing that began before outlasts it.
func (c *call) stillTaken() error {
	if !c.unbound() {
		return nil
	}
	_, reg := c.gateway.cfg.Policy()
	res := reg.Resources[c.resource.Name]
	if res != nil && res.BindingAt(c.gateway.cfg.Now()) != counterfoil.BindingRequire {
		now := declarations(res, &c.caller)
		// Of a held call it is not known any more what was declared when it was accepted.
		if len(now) > 0 && (c.held || reflect.DeepEqual(now, c.declared)) {
			return nil
		}
	}
	return counterfoil.Refuse(counterfoil.BearerRefused, "resource %s does not take this bearer credential any more", c.resource.Name)
}

// revoked is what is asked again right before a call has an effect, and while an answer
// goes on: whether its caller may still be one.
func (c *call) revoked() error {
	if err := c.stillTaken(); err != nil {
		return err
	}
	return c.gateway.cfg.Revocation.Revoked(c.ctx, c.present())
}
